//! `cloister model`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use cloister_attestation::Sha384;
use cloister_client::{Row, Table, TableReader};
use cloister_inference::{
    Bundle, Description, FeatureRange, Grid, ImportError, ImportOptions, Link, PublicKey, SelfCheck, Step, Thresholds,
    import,
};
use serde_json::{Value, json};

use super::{
    failure::Failure,
    output::{Output, foreign, short},
};

/// Make and inspect model bundles
#[derive(Debug, Subcommand)]
pub(crate) enum Model {
    Import(Import),
    Inspect(Inspect),
}

/// Turn an ONNX file into a bundle, with a proven bound on every logit
#[derive(Debug, Args)]
#[command(after_help = IMPORT_EXAMPLES)]
pub(crate) struct Import {
    /// What skl2onnx or onnxmltools writes for a linear model, trees, a forest, boosting or a network of one hidden layer, with
    /// scalers and the like in front
    onnx: PathBuf,
    /// The bundle to write, in place of what is there; by convention NAME.cloister
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Largest distance of a decrypted logit from the model's own, proved: 1 down to 1e-9; of trees and networks, from the
    /// model's on its bits. Below about 1e-5, export in float64 (DoubleTensorType)
    #[arg(long, value_name = "E", default_value_t = 1e-3)]
    precision: f64,
    /// How much the noise of replies may tell of the model beside its logits, for each row: a probability such as 2^-30
    /// or 1e-9; without it, as little as the precision leaves room for. Smaller ones cost bytes and time
    #[arg(long, value_name = "P", value_parser = probability)]
    model_privacy: Option<f64>,
    /// The most logits that an enclave returns of this model, from boot to end; with d+1 of a class its weights can be
    /// solved for
    #[arg(long, value_name = "LOGITS")]
    budget: Option<u64>,
    /// Declare that a column's values are multiples of STEP away from its least value in --ranges; others are refused.
    /// Fine precisions cost less so. May be given several times
    #[arg(long, value_name = "COLUMN=STEP", value_parser = grid, requires = "ranges")]
    grid: Vec<(String, f64)>,
    /// CSV file whose numeric columns, in the order of the training columns, name the features and give their ranges
    /// (widened by 10 % of the span on each side); without it, what the first scaler says: 8 standard deviations around
    /// the mean, or the least and greatest value
    #[arg(long, value_name = "DATA.csv")]
    ranges: Option<PathBuf>,
    /// Cut features at the thresholds of trees themselves, which clients then know: every path is the model's own, and
    /// requests are mostly shorter. Without it features are cut into intervals that say nothing of the model, as fine as --ranges needs
    #[arg(long)]
    public_thresholds: bool,
    /// Name that clients ask for; by default the bundle's file name without extension
    #[arg(long)]
    name: Option<String>,
    /// Version that clients see
    #[arg(long, default_value = "1")]
    model_version: String,
}

/// Show what a bundle takes, gives and promises
#[derive(Debug, Args)]
#[command(after_help = INSPECT_EXAMPLES)]
pub(crate) struct Inspect {
    /// The bundle
    file: PathBuf,
}

const IMPORT_EXAMPLES: &str = "\
Examples:
  cloister model import iris.onnx --out iris.cloister
  cloister model import iris.onnx --out iris.cloister --ranges iris.csv --precision 1e-4
  cloister model import iris.onnx --out iris.cloister --ranges iris.csv \\
      --model-privacy 2^-20 --budget 100000";

const INSPECT_EXAMPLES: &str = "\
Examples:
  cloister model inspect iris.cloister
  cloister model inspect iris.cloister --json | jq -r .digest";

impl Model {
    pub(crate) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        match self {
            Self::Import(command) => command.run(output),
            Self::Inspect(command) => command.run(output),
        }
    }
}

impl Import {
    fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let onnx = read(&self.onnx)?;
        let ranges = self.ranges.as_deref().map(|path| self.declared(path)).transpose()?;
        let rows = match (&self.ranges, &ranges) {
            (Some(path), Some(ranges)) => first_rows(path, ranges)?,
            _ => vec![],
        };
        let options = ImportOptions {
            name: self.name.clone().unwrap_or_else(|| stem(&self.out)),
            version: self.model_version.clone(),
            precision: self.precision,
            model_privacy: self.model_privacy,
            budget: self.budget,
            ranges,
            thresholds: if self.public_thresholds { Thresholds::Public } else { Thresholds::Hidden },
            rows,
            feature_names: None,
        };
        let imported = import(&onnx, &options).map_err(|error| {
            let about_ranges = matches!(error, ImportError::Columns { .. } | ImportError::MeanOutside { .. });
            let file = self.ranges.as_ref().filter(|_| about_ranges).unwrap_or(&self.onnx);
            Failure::bad_input(error.code(), format!("{}: {error}", file.display()), error.remedy())
        })?;
        std::fs::write(&self.out, imported.bundle.to_bytes()).map_err(|error| Failure::file(&self.out, &error))?;
        show(&imported.bundle, output);
        if let Some(quantisation) = &imported.report.quantisation {
            output.set("labels_changed", quantisation.labels_changed);
            output.set("largest_change", quantisation.largest_difference);
            output.line(format!("quantisation: {quantisation}"));
        }
        let SelfCheck { rows, largest_difference } = imported.report.self_check;
        output.set("self_check", largest_difference);
        output.line(format!("self-check: on {rows} random rows at most {largest_difference:.2e} from the ONNX graph"));
        Ok(())
    }
}

impl Import {
    /// Names, ranges and grids of the numeric columns of a CSV file.
    fn declared(&self, path: &Path) -> Result<Vec<FeatureRange>, Failure> {
        let mut declared = ranges(path)?;
        for (name, step) in &self.grid {
            let column = declared.iter_mut().find(|range| range.name == *name);
            let column = column.ok_or_else(|| {
                Failure::bad_input(
                    "no_column",
                    format!("--grid names the column {name:?}, which {} does not have", path.display()),
                    "Name a numeric column of that file.",
                )
            })?;
            column.step = Some(*step);
        }
        Ok(declared)
    }
}

/// A number between 0 and 1, as a decimal or as a power of two.
fn probability(text: &str) -> Result<f64, String> {
    let number = match text.strip_prefix("2^-") {
        Some(exponent) => exponent.parse().ok().map(|exponent: u16| (-f64::from(exponent)).exp2()),
        None => text.parse().ok(),
    };
    number
        .filter(|p| (0.0..1.0).contains(p) && *p > 0.0)
        .ok_or_else(|| "give a number between 0 and 1, such as 2^-30".into())
}

fn grid(text: &str) -> Result<(String, f64), String> {
    let (column, step) = text.rsplit_once('=').ok_or("give COLUMN=STEP")?;
    match step.parse() {
        Ok(step) if step > 0.0 && f64::is_finite(step) => Ok((column.to_owned(), step)),
        _ => Err(format!("{step:?} is no positive number")),
    }
}

impl Inspect {
    fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let bytes = read(&self.file)?;
        let bundle = Bundle::from_bytes(&bytes).map_err(|error| Failure::bundle(&self.file, &error))?;
        show(&bundle, output);
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::file(path, &error))
}

fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(|| "model".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

/// Names and ranges of the numeric columns of a CSV file.
fn ranges(path: &Path) -> Result<Vec<FeatureRange>, Failure> {
    let file = std::fs::File::open(path).map_err(|error| Failure::file(path, &error))?;
    Table::numeric_ranges(file).map_err(|error| Failure::table(path, &error))
}

/// The first rows of a CSV file of any length, in those columns, as many as an import looks at; NaN where a cell is empty.
fn first_rows(path: &Path, columns: &[FeatureRange]) -> Result<Vec<Vec<f64>>, Failure> {
    let bad_table = |error| Failure::table(path, &error);
    let file = std::fs::File::open(path).map_err(|error| Failure::file(path, &error))?;
    let mut reader = TableReader::new(file).map_err(bad_table)?;
    let names = columns.iter().map(|range| range.name.as_str());
    let positions = reader.header().positions(names).map_err(bad_table)?;
    let (mut rows, mut row) = (vec![], Row::default());
    while rows.len() < ImportOptions::MOST_ROWS && reader.read(&mut row).map_err(bad_table)? {
        rows.push(reader.header().numbers_or_missing(&row, &positions, |_| true).map_err(bad_table)?);
    }
    Ok(rows)
}

fn show(bundle: &Bundle, output: &mut Output) {
    let (description, digest) = (bundle.description(), Sha384(bundle.digest()));
    let rows = description.rows_per_request();
    output.set("name", bundle.name());
    output.set("version", bundle.version());
    output.set("digest", digest.to_string());
    output.set("bound", description.bound());
    output.set("decimals", description.decimals());
    output.set("rows_per_request", rows);
    output.set("parameters", description.parameters().name());
    output.line(format!("{} {}\n{digest}", foreign(bundle.name()), foreign(bundle.version())));

    show_features(description, output);
    let labels: Vec<String> = description.labels().iter().map(ToString::to_string).collect();
    let named: Vec<String> = labels.iter().map(|label| foreign(label)).collect();
    output.line(match description.labels() {
        [] => format!("a regression of {} values", description.logits()),
        _ => format!("labels: {}", named.join(", ")),
    });
    output.set("labels", labels);
    output.set("link", format!("{:?}", description.link()).to_lowercase());
    output.line(match description.link() {
        Link::Identity => "link: none, logits are what the model gives",
        Link::Softmax => "link: the client makes probabilities of logits by softmax",
        Link::Sigmoid => "link: the client makes a probability of the logit by the logistic function",
        Link::OneVsRest => "link: the client makes probabilities of logits by the logistic function, over their sum",
        Link::Probability => "link: none, logits are probabilities",
        _ => "link: the client takes the exponential of logits",
    });

    output.line(format!(
        "bound: every published logit is within {:.3e} of the model's, {}, and has {} decimals",
        description.bound(),
        match (description.selection().is_some(), description.is_quantised()) {
            (false, _) => "with certainty",
            (true, false) => "but for a chance of 2^-128",
            (true, true) => "as it is on these bits, but for a chance of 2^-128",
        },
        description.decimals()
    ));
    let mut ledger = serde_json::Map::new();
    for (term, value) in bundle.ledger().terms() {
        output.line(format!("  {term:<24} {value:.2e}"));
        ledger.insert(term.to_owned(), value.into());
    }
    output.set("ledger", ledger);
    show_costs(bundle, output);
}

/// Names and ranges, as many as a person reads, and what a client does to values before it encrypts them.
fn show_features(description: &Description, output: &mut Output) {
    output.line("features (rows outside these ranges are refused):");
    for feature in description.features().iter().take(MOST_FEATURES) {
        let grid = feature.step.map(|step| format!(" in steps of {}", short(step))).unwrap_or_default();
        output.line(format!(
            "  {:<24} {} to {}{grid}",
            foreign(&feature.name),
            short(feature.low),
            short(feature.high)
        ));
    }
    if let Some(more) = description.features().len().checked_sub(MOST_FEATURES).filter(|more| *more > 0) {
        output.line(format!("  and {more} more, which --json lists"));
    }
    let features = description.features().iter();
    let all = features.map(|f| json!({"name": f.name, "low": f.low, "high": f.high, "step": f.step}));
    output.set("features", all.collect::<Value>());
    for step in description.steps() {
        output.line(match step {
            Step::Impute { .. } => "the client fills missing values in before it encrypts, with public numbers",
            Step::Scale { .. } => "the client scales values before it encrypts, by public numbers",
            _ => "the client divides each row by its norm before it encrypts; ranges are those of the shares",
        });
    }
}

const MOST_FEATURES: usize = 40;

/// What the arithmetic is, and what it costs and gives away.
fn show_costs(bundle: &Bundle, output: &mut Output) {
    let (description, rows) = (bundle.description(), bundle.rows_per_request());
    let (scale, limbs) = (description.scale(), description.limbs());
    let mode = match scale.is_exact() {
        _ if description.selection().is_some() => {
            "decisions by encrypted bits, exact; logits are decrypted with noise, which the bound includes".to_owned()
        }
        true => format!(
            "exact: integer logits are decrypted without error ({} × {} digits of features and weights)",
            limbs.features.count, limbs.weights.count
        ),
        false => "interval: logits are decrypted with noise, which the bound includes".to_owned(),
    };
    output.line(format!("arithmetic: {}, {mode}", description.parameters()));
    output.set("exact", scale.is_exact());
    if let Some(selection) = description.selection() {
        let bits: u32 = selection.grids.iter().map(Grid::bits).sum();
        let cut = if description.is_quantised() {
            "which say nothing of the model"
        } else {
            "at its thresholds, which are public"
        };
        output.line(format!("bits: {bits} a row, {cut}"));
        output.set("bits", bits);
        output.set("public_thresholds", !description.is_quantised());
    }
    let sizes = [("one row".to_owned(), 1), (format!("{rows} rows in one request, the most"), rows)];
    // Models that choose have one row in each.
    for (what, rows) in sizes.into_iter().take(rows.min(2)) {
        let (up, down) = (description.request_len(rows), description.reply_len(rows));
        output.line(format!("{what}: {up} bytes up, {down} down; no evaluation key"));
    }
    output.set("request_bytes", description.request_len(1));
    output.set("reply_bytes", description.reply_len(1));
    output.set("public_key_bytes", PublicKey::len(description.parameters()));
    output.line(format!("public key, once per connection: {} bytes", PublicKey::len(description.parameters())));

    let distance = bundle.distance_per_row();
    output.set("model_privacy", distance);
    output.line(match distance {
        1.0.. => "model privacy: none; the noise of replies may give the weights away".to_owned(),
        _ => format!(
            "model privacy: beside its logits, a row's reply tells of the weights at most 2^{:.1} (statistical distance, for \
             clients that follow the protocol)",
            distance.log2()
        ),
    });
    output.set("budget", description.budget());
    match description.budget() {
        Some(logits) => output.line(format!("budget: {logits} logits from boot to end")),
        None if description.selection().is_some() => {
            output.line("budget: none; every answer tells of leaves or activations")
        }
        None => output.line(format!(
            "budget: none; {} rows are enough to solve for a class's weights, as precisely as logits are published",
            description.features().len() + 1
        )),
    }
}
