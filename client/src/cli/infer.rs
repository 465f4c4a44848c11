//! `cloister infer`

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use cloister_client::{Prediction, Table};
use cloister_inference::{Description, EncryptError};
use serde_json::{Value, json};

use super::{
    Evaluator,
    failure::Failure,
    output::{Output, write_stdout},
};

/// Encrypt rows, have them evaluated, decrypt the answer
#[derive(Debug, Args)]
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
    /// Move values outside the declared range to its edge instead of refusing them
    #[arg(long)]
    clip: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Csv,
    Json,
}

impl Infer {
    pub(crate) async fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let table = Table::read(open(&self.input)?)?;
        let truth = self.labels.as_deref().map(|column| table.texts(column)).transpose()?;

        let mut connection = self.evaluator.connect(output).await?;
        let enclave = connection.enclave();
        output.note(format!(
            "verified {}, release {} (every step: cloister verify)",
            enclave.module_id(),
            enclave.release()
        ));

        let mut model = connection.model(&self.model).await?;
        let description = model.description().clone();
        let columns: Vec<&str> = description.features().iter().map(|feature| feature.name.as_str()).collect();
        let mut rows = table.numbers(&columns)?;
        if self.clip {
            let clipped = clip(&mut rows, &description);
            output.set("clipped", clipped);
            output.note(format!("clipped {clipped} values to the declared ranges"));
        }

        let mut predictions = Vec::with_capacity(rows.len());
        let (mut up, mut down) = (0, 0);
        let batch = description.rows_per_request();
        for (index, rows_of_request) in rows.chunks(batch).enumerate() {
            let first = index * batch;
            let answer = model.infer(rows_of_request).await.map_err(|error| locate(error, &table, first))?;
            predictions.extend(answer.predictions);
            up += answer.bytes.0;
            down += answer.bytes.1;
            if rows.len() > batch {
                output.note(format!("{} of {} rows", predictions.len(), rows.len()));
            }
        }

        self.write(&predictions, &description, output)?;
        let uncertain = predictions.iter().filter(|prediction| !prediction.certain).count();
        output.set("rows", predictions.len());
        output.set("bound", description.bound());
        output.set("uncertain", uncertain);
        output.set("bytes_up", up);
        output.set("bytes_down", down);
        output.note(format!(
            "{} rows, every logit within {:e} of the model's; {up} bytes up, {down} down, all of it encrypted",
            predictions.len(),
            description.bound()
        ));
        if uncertain > 0 {
            output.note(format!("{uncertain} labels are closer to another one than the bound: marked certain=false"));
        }
        if let Some(truth) = truth {
            let right = predictions.iter().zip(&truth).filter(|(p, truth)| p.label.to_string() == **truth).count();
            let accuracy = right as f64 / truth.len() as f64;
            output.set("accuracy", accuracy);
            output.note(format!("accuracy {accuracy:.4} ({right} of {})", truth.len()));
        }
        if let Some(path) = &self.evidence {
            for (index, evidence) in connection.evidence().iter().enumerate() {
                // One file, unless the connection was attested again on the way.
                let mut name = path.clone().into_os_string();
                if index > 0 {
                    name.push(format!(".{}", index + 1));
                }
                let path = PathBuf::from(name);
                std::fs::write(&path, evidence.to_cbor()).map_err(|error| Failure::file(&path, &error))?;
                output.note(format!("evidence: {}", path.display()));
            }
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
            write_stdout(&text);
            return Ok(());
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

/// Errors of one row name its line in the file; nothing of its request was sent.
fn locate(error: cloister_client::Error, table: &Table, first: usize) -> Failure {
    let row = match &error {
        cloister_client::Error::Encrypt(
            EncryptError::OutOfRange { row, .. }
            | EncryptError::NotFinite { row, .. }
            | EncryptError::WrongWidth { row, .. },
        ) => Some(*row),
        _ => None,
    };
    let failure = Failure::from(error);
    match row {
        Some(row) => failure.at_line(table.line(first + row)),
        None => failure,
    }
}

/// Moves values to the edges of their ranges; how many were moved.
fn clip(rows: &mut [Vec<f64>], description: &Description) -> usize {
    let mut clipped = 0;
    for row in rows {
        for (value, feature) in row.iter_mut().zip(description.features()) {
            let inside = value.clamp(feature.low, feature.high);
            clipped += usize::from(inside != *value);
            *value = inside;
        }
    }
    clipped
}

fn predictions_json(predictions: &[Prediction], description: &Description) -> Value {
    let named = |values: &[f64]| -> Value {
        description.labels().iter().zip(values).map(|(label, value)| (label.to_string(), json!(value))).collect()
    };
    let one = |prediction: &Prediction| {
        json!({
            "label": prediction.label.to_string(),
            "certain": prediction.certain,
            "logits": named(&prediction.logits),
            "probabilities": named(&prediction.probabilities),
        })
    };
    predictions.iter().map(one).collect()
}

fn predictions_csv(predictions: &[Prediction], description: &Description) -> Result<String, Failure> {
    let decimals = description.decimals() as usize;
    let labels = || description.labels().iter();
    let mut writer = csv::Writer::from_writer(Vec::new());
    let header = ["label".to_owned(), "certain".to_owned()]
        .into_iter()
        .chain(labels().map(|label| format!("logit:{label}")))
        .chain(labels().map(|label| format!("probability:{label}")));
    let failed = |error: csv::Error| Failure::internal(&error);
    writer.write_record(header).map_err(failed)?;
    for Prediction { label, certain, logits, probabilities } in predictions {
        let record = [label.to_string(), certain.to_string()]
            .into_iter()
            .chain(logits.iter().map(|logit| format!("{logit:.decimals$}")))
            .chain(probabilities.iter().map(|probability| format!("{probability:.6}")));
        writer.write_record(record).map_err(failed)?;
    }
    let bytes = writer.into_inner().map_err(|error| Failure::internal(&error))?;
    String::from_utf8(bytes).map_err(|error| Failure::internal(&error))
}
