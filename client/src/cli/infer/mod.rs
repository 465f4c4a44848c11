//! `cloister infer`: rows stream through, so that a file of any length takes the memory of a few requests.

mod evidence;
mod input;
mod predictions;
mod report;
mod resume;
mod rows;
mod sink;
mod tally;
mod transfer;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use clap::{Args, ValueEnum, ValueHint};
use cloister_attestation::ManifestModel;
use cloister_client::{Description, Pool};

pub(super) use self::evidence::EvidenceFiles;
use self::{
    input::{Checked, Input},
    predictions::Shape,
    report::Page,
    resume::{Run, Unfinished, sidecar},
    sink::Sink,
    tally::Tally,
    transfer::Transfer,
};
use super::{
    evaluator::{PoolArguments, connect},
    failure::Failure,
    files,
    output::{Output, foreign, short},
};

/// Encrypt rows, have them evaluated by a verified evaluator, and decrypt the answer
///
/// Files of any length stream through in little memory, several requests at a time, and the output has the order of the input.
/// All rows of a file are checked before the first is sent. Of a pipe they are checked as they come, so that a bad one is found
/// when those before it have been answered. A service that has no time, or a budget that is spent for now, is waited for, up to
/// five minutes. The version of the model is the one whose digest the policy has.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Infer {
    #[command(flatten)]
    evaluator: PoolArguments,
    /// Name of the model, as `cloister models` lists it
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Other)]
    model: String,
    /// CSV file with a header line; columns are matched by name, `-` is stdin
    #[arg(long = "in", value_name = "FILE|-")]
    input: PathBuf,
    /// Where predictions go; `-` is stdout
    #[arg(long, value_name = "FILE|-", default_value = "-")]
    out: PathBuf,
    /// How predictions are written
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    format: Format,
    /// Write evidence: everything a third party needs to check the receipts offline. Several connections write several
    /// files: FILE, FILE.2 and so on
    #[arg(long, value_name = "FILE")]
    evidence: Option<PathBuf>,
    /// Write a page about the run: what was verified, who could see what, sizes, times and the receipt. It loads nothing, needs no
    /// script, and holds no feature, logit or label of any row
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Column of the input with the true labels; prints the accuracy
    #[arg(long, value_name = "COLUMN", value_hint = ValueHint::Other)]
    labels: Option<String>,
    /// Move values outside the declared range to its edge instead of refusing them; such rows are never `certain`
    #[arg(long)]
    clip: bool,
    /// Go on with a run that was interrupted: its rows in --out FILE are kept. Beside an unfinished file lies FILE.resume, which
    /// says of which input and model it is. Evidence goes to further files; that of a process that was killed is lost with it
    #[arg(long)]
    resume: bool,
}

const EXAMPLES: &str = "\
Examples:
  cloister infer https://evaluator.example:8443 --policy policy.toml --model iris --in rows.csv
  cloister infer https://evaluator.example:8443 --policy policy.toml --model iris --in rows.csv \\
      --out predictions.csv --evidence evidence.cbor --report report.html
  cloister infer https://evaluator.example:8443 --policy policy.toml --model iris --in rows.csv \\
      --out predictions.csv --evidence evidence.cbor --connections 4 --resume
  cloister infer --sagemaker iris-endpoint --policy policy.toml --model iris --in rows.csv
  cat rows.csv | \\
      cloister infer https://evaluator.example:8443 --policy policy.toml --model iris --in -";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Csv,
    Json,
}

/// More predictions do not go into one JSON object, which is whole before it is written.
const MAX_OBJECT_ROWS: u64 = 100_000;

impl Infer {
    pub(crate) async fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let mut input = Input::open(&self.input)?;
        self.check_resume(&input)?;
        self.check_outputs(&input)?;
        let labels = self.labels.as_deref().map(|column| input.labels(column)).transpose()?;

        let settings = self.evaluator.settings()?;
        settings.show(output);
        let connections = settings.connections();
        let evaluator = Arc::new(settings.evaluator()?);
        let began = Instant::now();
        let connection = connect(&evaluator, output).await?;
        let page = self.report.as_deref().map(|path| Page::begin(path, &connection, began.elapsed()));
        let enclave = connection.enclave();
        output.note(format!(
            "verified {}, release {} (every step: cloister verify)",
            foreign(enclave.module_id()),
            enclave.release()
        ));
        let pool = Pool::start(evaluator, connection, &self.model, connections).await?;
        let (description, model) = (pool.description().clone(), pool.model().clone());
        if self.labels.is_some() && description.labels().is_empty() {
            return Err(Failure::bad_input(
                "no_labels",
                format!("the model {} is a regression, and gives no labels to compare with", model.name),
                "Leave --labels away.",
            ));
        }

        let columns = input.columns(description.clone(), labels, self.clip)?;
        // All of them, before the first is sent.
        let checked = input.check(&columns, pool.portion(None), output)?;
        self.check_object(checked.map_or(0, |checked| checked.rows), output)?;
        let (sink, done) = self.sink(&description, checked, &model, output)?;

        let rows = checked.map(|checked| checked.rows);
        let size = pool.portion(rows.map(|rows| rows - done));
        let mut transfer = Transfer {
            infer: self,
            pool,
            sink,
            tally: Tally::new(&description, labels.is_some()),
            evidence: EvidenceFiles::new(self.evidence.as_deref(), self.resume),
        };
        let outcome = transfer.run(input.stream(columns, checked, done, size), rows, done, output).await;

        let Transfer { pool, sink, tally, mut evidence, .. } = transfer;
        // What was signed until then is worth keeping, above all after a dishonest answer.
        let written = pool.close().await.iter().try_for_each(|piece| evidence.write(piece, output));
        let finished = sink.finish(outcome.is_ok(), tally.rows, output);
        outcome.and(written).and(finished)?;
        tally.tell(&description, output);
        page.map_or(Ok(()), |page| page.write(model, description, tally, &evidence, output))
    }

    /// What goes on is a file that was begun, of input that can be read again; what was begun is not lost by mistake.
    fn check_resume(&self, input: &Input) -> Result<(), Failure> {
        let sidecar = sidecar(&self.out);
        let begun = !self.to_stdout() && sidecar.exists();
        match (self.resume, begun) {
            (true, _) if self.to_stdout() || matches!(self.format, Format::Json) || !input.is_file() => {
                Err(Failure::usage("--resume needs a file for --in, and one of CSV for --out"))
            }
            (true, false) => Err(Failure::bad_input(
                "nothing_to_resume",
                format!("there is no {}: {} is no unfinished run's", sidecar.display(), self.out.display()),
                "If the output has all rows, it is done. Otherwise run without --resume.",
            )),
            (false, true) => Err(Failure::bad_input(
                "unfinished_output",
                format!("{} has rows of a run that was interrupted", self.out.display()),
                format!("Go on with --resume; or remove {}, and start over.", sidecar.display()),
            )),
            _ => Ok(()),
        }
    }

    /// What cannot be written is found out before anything is asked for.
    fn check_outputs(&self, input: &Input) -> Result<(), Failure> {
        let outputs = [Some(&self.out), self.evidence.as_ref(), self.report.as_ref()];
        let outputs = outputs.into_iter().flatten().filter(|path| *path != Path::new("-"));
        // The input is still being read when the first predictions are written.
        let mut taken = Vec::new();
        if input.is_file() {
            taken.push((self.input.canonicalize().ok(), "input"));
        }
        for path in outputs {
            files::check_writable(path)?;
            let place = path.canonicalize().ok();
            if let Some((_, what)) = taken.iter().find(|(taken, _)| *taken == place) {
                return Err(Failure::usage(format!("{} is the {what}: write to another file", path.display())));
            }
            if path.is_file() {
                taken.push((place, "file of another option"));
            }
        }
        Ok(())
    }

    fn to_stdout(&self) -> bool {
        self.out == Path::new("-")
    }

    /// One JSON object has room for so many rows.
    fn check_object(&self, rows: u64, output: &Output) -> Result<(), Failure> {
        if rows <= MAX_OBJECT_ROWS || !self.to_stdout() || !output.is_json() {
            return Ok(());
        }
        Err(Failure::bad_input(
            "too_many_rows",
            format!("--json puts the predictions of at most {MAX_OBJECT_ROWS} rows into its object, here are more"),
            "Write them to a file: --out FILE.",
        ))
    }

    /// Where predictions go, and how many are there.
    fn sink(
        &self,
        description: &Description,
        checked: Option<Checked>,
        model: &ManifestModel,
        output: &Output,
    ) -> Result<(Sink, u64), Failure> {
        let shape = Shape::new(description);
        if self.to_stdout() {
            let sink = if output.is_json() { Sink::object(shape) } else { Sink::stdout(shape, self.format) };
            return Ok((sink, 0));
        }
        let is_file = std::fs::metadata(&self.out).is_ok_and(|metadata| metadata.is_file());
        let run = checked.filter(|_| is_file && matches!(self.format, Format::Csv)).map(|checked| Run {
            v: Run::VERSION,
            input: checked.digest.to_string(),
            bytes: checked.bytes,
            rows: checked.rows,
            model: model.name.clone(),
            bundle: model.bundle.to_string(),
            format: "csv".to_owned(),
            clip: self.clip,
        });
        match &run {
            Some(run) if self.resume => {
                let unfinished = Unfinished::open(&self.out, run, &shape)?;
                let done = unfinished.rows.unwrap_or(0);
                output.note(format!("{} has {done} of {} rows already", self.out.display(), run.rows));
                Ok((Sink::resumed(shape, &self.out, unfinished), done))
            }
            _ => Ok((Sink::file(shape, self.format, &self.out, run), 0)),
        }
    }
}
