//! `cloister model`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use cloister_attestation::Sha384;
use cloister_client::Table;
use cloister_inference::{Bundle, FeatureRange, ImportError, ImportOptions, SelfCheck, import};
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
    /// What skl2onnx writes for StandardScaler + LogisticRegression
    onnx: PathBuf,
    /// The bundle to write, in place of what is there; by convention NAME.cloister
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Largest distance of a decrypted logit from the model's own, proved
    #[arg(long, value_name = "E", default_value_t = 1e-3)]
    precision: f64,
    /// CSV file whose numeric columns, in the order of the training columns, name the features and give their ranges
    /// (widened by 10 % of the span on each side); without it, 8 standard deviations around the scaler's means
    #[arg(long, value_name = "DATA.csv")]
    ranges: Option<PathBuf>,
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
  cloister model import iris.onnx --out iris.cloister --ranges iris.csv --precision 1e-4";

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
        let options = ImportOptions {
            name: self.name.clone().unwrap_or_else(|| stem(&self.out)),
            version: self.model_version.clone(),
            precision: self.precision,
            ranges: self.ranges.as_deref().map(ranges).transpose()?,
            feature_names: None,
        };
        let imported = import(&onnx, &options).map_err(|error| {
            let about_ranges = matches!(error, ImportError::Columns { .. } | ImportError::MeanOutside { .. });
            let file = self.ranges.as_ref().filter(|_| about_ranges).unwrap_or(&self.onnx);
            Failure::bad_input(error.code(), format!("{}: {error}", file.display()), error.remedy())
        })?;
        std::fs::write(&self.out, imported.bundle.to_bytes()).map_err(|error| Failure::file(&self.out, &error))?;
        show(&imported.bundle, output);
        let SelfCheck { rows, largest_difference } = imported.report.self_check;
        output.set("self_check", largest_difference);
        output.line(format!("self-check: on {rows} random rows at most {largest_difference:.2e} from the ONNX graph"));
        Ok(())
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

    output.line("features (rows outside these ranges are refused):");
    let mut features: Vec<Value> = Vec::new();
    for feature in description.features() {
        output.line(format!("  {:<24} {} to {}", foreign(&feature.name), short(feature.low), short(feature.high)));
        features.push(json!({"name": feature.name, "low": feature.low, "high": feature.high}));
    }
    output.set("features", features);
    let labels: Vec<String> = description.labels().iter().map(ToString::to_string).collect();
    let named: Vec<String> = labels.iter().map(|label| foreign(label)).collect();
    output.line(format!("labels: {}", named.join(", ")));
    output.set("labels", labels);

    output.line(format!(
        "bound: every published logit is within {:.3e} of the model's, with certainty, and has {} decimals",
        description.bound(),
        description.decimals()
    ));
    let mut ledger = serde_json::Map::new();
    for (term, value) in bundle.ledger().terms() {
        output.line(format!("  {term:<24} {value:.2e}"));
        ledger.insert(term.to_owned(), value.into());
    }
    output.set("ledger", ledger);
    let (one, full) = (description.request_len(1), description.request_len(rows));
    output.line(format!(
        "one row: {one} bytes up, {} down; {rows} rows in one request: {full} up, {} down; no evaluation key",
        description.reply_len(1),
        description.reply_len(rows)
    ));
}
