//! `cloister infer`

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use cloister_attestation::Evidence;
use cloister_client::{Prediction, Table, TableError};
use cloister_inference::{Description, EncryptError};
use serde_json::{Value, json};

use super::{
    Evaluator,
    failure::Failure,
    output::{Output, foreign, short, write_stdout},
};

/// Encrypt rows, have them evaluated by a verified evaluator, and decrypt the answer
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Infer {
    #[command(flatten)]
    evaluator: Evaluator,
    /// Name of the model, as `cloister models` lists it
    #[arg(long, value_name = "NAME")]
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
    /// Write evidence: everything a third party needs to check the receipts offline
    #[arg(long, value_name = "FILE")]
    evidence: Option<PathBuf>,
    /// Column of the input with the true labels; prints the accuracy
    #[arg(long, value_name = "COLUMN")]
    labels: Option<String>,
    /// Move values outside the declared range to its edge instead of refusing them; such rows are never `certain`
    #[arg(long)]
    clip: bool,
}

const EXAMPLES: &str = "\
Examples:
  cloister infer https://evaluator.example:8443 --policy policy.toml --model iris --in rows.csv
  cloister infer https://evaluator.example:8443 --policy policy.toml --model iris --in rows.csv \\
      --out predictions.csv --evidence evidence.cbor
  cat rows.csv | cloister infer https://evaluator.example:8443 --policy policy.toml --model iris --in -";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Csv,
    Json,
}

impl Infer {
    pub(crate) async fn run(&self, output: &mut Output) -> Result<(), Failure> {
        self.check_outputs()?;
        let bad_table = |error: TableError| Failure::table(&self.input, &error);
        let table = Table::read(open(&self.input)?).map_err(bad_table)?;
        let truth = self.labels.as_deref().map(|column| table.texts(column)).transpose().map_err(bad_table)?;

        let mut connection = self.evaluator.connect(output).await?;
        let enclave = connection.enclave();
        output.note(format!(
            "verified {}, release {} (every step: cloister verify)",
            foreign(enclave.module_id()),
            enclave.release()
        ));

        let mut model = connection.model(&self.model).await?;
        let description = model.description().clone();
        let columns: Vec<&str> = description.features().iter().map(|feature| feature.name.as_str()).collect();
        let mut rows = table.numbers(&columns).map_err(bad_table)?;
        let moved = if self.clip { clip(&mut rows, &description) } else { vec![false; rows.len()] };
        // All of them, before the first is sent.
        description.encode(&rows).map_err(|error| locate(&error, &table))?;

        let mut predictions = Vec::with_capacity(rows.len());
        let (mut up, mut down) = (0, 0);
        for rows_of_request in rows.chunks(description.rows_per_request()) {
            let answer = match model.infer(rows_of_request).await {
                Ok(answer) => answer,
                Err(error) => {
                    // What was signed until then is worth keeping, above all after a dishonest answer.
                    self.write_evidence(&connection.evidence(), output)?;
                    return Err(error.into());
                }
            };
            predictions.extend(answer.predictions);
            up += answer.bytes.0;
            down += answer.bytes.1;
            if predictions.len() < rows.len() {
                output.note(format!("{} of {} rows", predictions.len(), rows.len()));
            }
        }
        // The label of what was sent says nothing certain about what was in the file.
        for (prediction, moved) in predictions.iter_mut().zip(&moved) {
            prediction.certain &= !moved;
        }

        self.write_evidence(&connection.evidence(), output)?;
        self.write(&predictions, &description, output)?;
        output.set("bytes_up", up);
        output.set("bytes_down", down);
        output.note(format!("{} rows; {up} bytes up, {down} down, all of it encrypted", predictions.len()));
        self.summarise(&predictions, &moved, &description, output);
        if let Some(truth) = truth {
            compare(&predictions, &truth, &description, output);
        }
        Ok(())
    }

    /// What cannot be written is found out before anything is asked for. Nothing is truncated yet.
    fn check_outputs(&self) -> Result<(), Failure> {
        let files =
            [Some(&self.out), self.evidence.as_ref()].into_iter().flatten().filter(|path| *path != Path::new("-"));
        for path in files {
            let opened = File::options().append(true).create(true).open(path);
            opened.map_err(|error| Failure::file(path, &error))?;
        }
        Ok(())
    }

    fn summarise(&self, predictions: &[Prediction], moved: &[bool], description: &Description, output: &mut Output) {
        let clipped = moved.iter().filter(|moved| **moved).count();
        let uncertain = predictions.iter().filter(|prediction| !prediction.certain).count();
        output.set("rows", predictions.len());
        output.set("bound", description.bound());
        output.set("clipped", clipped);
        output.set("uncertain", uncertain);
        output.note(format!("every logit is within {:.3e} of the model's for the values sent", description.bound()));
        if clipped > 0 {
            output.note(format!("rows with values moved to the edge of their range, never certain: {clipped}"));
        }
        if uncertain > clipped {
            output.note(format!(
                "rows whose label is closer to another than the bound, not certain: {}",
                uncertain - clipped
            ));
        }
    }

    fn write_evidence(&self, evidence: &[Evidence], output: &Output) -> Result<(), Failure> {
        let Some(path) = &self.evidence else { return Ok(()) };
        for (index, evidence) in evidence.iter().enumerate() {
            // One file, unless the connection was attested again on the way.
            let mut name = path.clone().into_os_string();
            if index > 0 {
                name.push(format!(".{}", index + 1));
            }
            let path = PathBuf::from(name);
            std::fs::write(&path, evidence.to_cbor()).map_err(|error| Failure::file(&path, &error))?;
            output.note(format!("evidence: {}", path.display()));
        }
        Ok(())
    }

    fn write(&self, predictions: &[Prediction], description: &Description, output: &mut Output) -> Result<(), Failure> {
        let to_stdout = self.out == Path::new("-");
        if to_stdout && output.is_json() {
            output.set("predictions", predictions_json(predictions, description));
            return Ok(());
        }
        let text = match self.format {
            Format::Csv => predictions_csv(predictions, description)?,
            Format::Json => format!("{:#}\n", predictions_json(predictions, description)),
        };
        if to_stdout {
            return match write_stdout(&text) {
                true => Ok(()),
                false => Err(Failure::internal(&"stdout cannot be written")),
            };
        }
        File::create(&self.out)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| Failure::file(&self.out, &error))
    }
}

fn open(path: &Path) -> Result<Box<dyn Read>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    let file = File::open(path).map_err(|error| Failure::file(path, &error))?;
    Ok(Box::new(file))
}

/// Errors of one row name its line in the file.
fn locate(error: &EncryptError, table: &Table) -> Failure {
    match error {
        EncryptError::OutOfRange { row, column, value, low, high } => Failure::bad_input(
            error.code(),
            format!(
                "line {}, column {column:?}: {value} is outside the model's range, {} to {}",
                table.line(*row),
                short(*low),
                short(*high)
            ),
            "Check the value and its unit, pass --clip to move it to the edge, or ask for a model with a wider range.",
        ),
        _ => Failure::bad_input(error.code(), error.to_string(), error.remedy()),
    }
}

/// Moves values to the edges of their ranges; which rows were changed.
fn clip(rows: &mut [Vec<f64>], description: &Description) -> Vec<bool> {
    let clip_row = |row: &mut Vec<f64>| {
        let mut moved = false;
        for (value, feature) in row.iter_mut().zip(description.features()) {
            let inside = value.clamp(feature.low, feature.high);
            moved |= inside != *value;
            *value = inside;
        }
        moved
    };
    rows.iter_mut().map(clip_row).collect()
}

/// Accuracy, and a word on labels that the model cannot give.
fn compare(predictions: &[Prediction], truth: &[&str], description: &Description, output: &mut Output) {
    let right = predictions.iter().zip(truth).filter(|(p, truth)| p.label_text() == **truth).count();
    let accuracy = right as f64 / truth.len() as f64;
    output.set("accuracy", accuracy);
    output.note(format!("accuracy {accuracy:.4} ({right} of {})", truth.len()));
    let labels: Vec<String> = description.labels().iter().map(ToString::to_string).collect();
    if let Some(unknown) = truth.iter().find(|truth| !labels.iter().any(|label| label == *truth)) {
        let named: Vec<String> = labels.iter().map(|label| foreign(label)).collect();
        output.note(format!("note: the model never says `{}`; its labels are {}", foreign(unknown), named.join(", ")));
    }
}

fn predictions_json(predictions: &[Prediction], description: &Description) -> Value {
    let named = |names: &[String], values: &[f64]| -> Value {
        names.iter().zip(values).map(|(name, value)| (name.clone(), json!(value))).collect()
    };
    let (logits, outputs) = (description.logit_names(), output_names(description));
    let one = |prediction: &Prediction| {
        let mut object = serde_json::Map::new();
        if let Some(label) = &prediction.label {
            object.insert("label".to_owned(), label.to_string().into());
        }
        object.insert("certain".to_owned(), prediction.certain.into());
        object.insert("logits".to_owned(), named(&logits, &prediction.logits));
        if let Some((kind, names)) = &outputs {
            let kind = if *kind == "probability" { "probabilities" } else { "predictions" };
            object.insert(kind.to_owned(), named(names, &prediction.outputs));
        }
        Value::from(object)
    };
    predictions.iter().map(one).collect()
}

/// What the link gives beside the logits, and a name for each: probabilities, or the values of a regression.
fn output_names(description: &Description) -> Option<(&'static str, Vec<String>)> {
    match description.labels() {
        labels if description.link().gives_probabilities() => {
            Some(("probability", labels.iter().map(ToString::to_string).collect()))
        }
        [] => Some(("prediction", description.logit_names())),
        _ => None,
    }
}

fn predictions_csv(predictions: &[Prediction], description: &Description) -> Result<String, Failure> {
    let decimals = description.decimals() as usize;
    let (is_classifier, outputs) = (!description.labels().is_empty(), output_names(description));
    let mut writer = csv::Writer::from_writer(Vec::new());
    let (kind, names) = outputs.clone().unwrap_or_default();
    let header = is_classifier
        .then(|| "label".to_owned())
        .into_iter()
        .chain(["certain".to_owned()])
        .chain(description.logit_names().into_iter().map(|name| format!("logit:{name}")))
        .chain(names.iter().map(|name| format!("{kind}:{name}")));
    let failed = |error: csv::Error| Failure::internal(&error);
    writer.write_record(header).map_err(failed)?;
    for Prediction { label, certain, logits, outputs } in predictions {
        let record = label
            .iter()
            .map(ToString::to_string)
            .chain([certain.to_string()])
            .chain(logits.iter().map(|logit| format!("{logit:.decimals$}")))
            .chain(outputs.iter().take(names.len()).map(|output| match kind {
                "probability" => format!("{output:.6}"),
                _ => output.to_string(),
            }));
        writer.write_record(record).map_err(failed)?;
    }
    let bytes = writer.into_inner().map_err(|error| Failure::internal(&error))?;
    String::from_utf8(bytes).map_err(|error| Failure::internal(&error))
}
