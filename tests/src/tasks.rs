//! The tasks on which Cloister is compared with other systems. `tests/data/tasks/make.py` makes their files, with the
//! weights and rows that the other systems get as well.

use std::fs::{self, File};

use anyhow::Context;
use cloister_client::{Prediction, Table};
use cloister_inference::{Bundle, FeatureRange, ImportOptions, import};

use crate::build::workspace;

/// A model, rows, and scikit-learn's float64 outputs on them.
#[derive(Debug)]
pub struct Task {
    onnx: Vec<u8>,
    name: &'static str,
    /// Features, row by row.
    pub rows: Vec<Vec<f64>>,
    /// scikit-learn's `decision_function` of each row.
    pub logits: Vec<Vec<f64>>,
    /// scikit-learn's `predict` of each row.
    pub labels: Vec<String>,
}

impl Task {
    /// Reads `iris`, `bc`, `digits` or `wide784`.
    pub fn load(name: &'static str) -> anyhow::Result<Self> {
        let folder = workspace().join("tests/data/tasks");
        let table = |file: String| -> anyhow::Result<Table> { Ok(Table::read(File::open(folder.join(file))?)?) };
        let expected = table(format!("{name}.expected.csv"))?;
        let decisions: Vec<&str> =
            expected.columns().iter().map(String::as_str).filter(|column| column.starts_with("decision:")).collect();
        let rows = match name {
            "wide784" => pixels(&fs::read(folder.join("wide784.u8"))?),
            _ => {
                let rows = table(format!("{name}.csv"))?;
                rows.numbers(&rows.numeric_columns())?
            }
        };
        Ok(Self {
            onnx: fs::read(folder.join(format!("{name}.onnx")))?,
            name,
            rows,
            logits: expected.numbers(&decisions)?,
            labels: expected.texts("label")?.into_iter().map(str::to_owned).collect(),
        })
    }

    /// Imports the model with the ranges of the rows, and for digits with the grid of its sixteen grey levels.
    pub fn import(&self, precision: f64) -> anyhow::Result<Bundle> {
        let step = (self.name == "digits").then_some(1.0 / 16.0);
        let range = |index: usize| {
            let column = self.rows.iter().map(|row| row[index]);
            let (low, high) =
                column.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
            FeatureRange { name: format!("x{index}"), low, high, step }
        };
        let ranges = (0..self.rows.first().context("a task has rows")?.len()).map(range).collect();
        let options = ImportOptions { precision, ranges: Some(ranges), ..ImportOptions::new(self.name, "1") };
        Ok(import(&self.onnx, &options)?.bundle)
    }

    /// The largest distance of a logit from scikit-learn's, and how many labels are equal.
    pub fn compare(&self, predictions: &[Prediction]) -> (f64, usize) {
        let errors = predictions.iter().zip(&self.logits).flat_map(|(prediction, logits)| {
            prediction.logits.iter().zip(logits).map(|(logit, expected)| (logit - expected).abs())
        });
        let labels = predictions.iter().zip(&self.labels);
        let equal = labels.filter(|(prediction, label)| prediction.label_text() == **label).count();
        (errors.fold(0.0, f64::max), equal)
    }
}

fn pixels(bytes: &[u8]) -> Vec<Vec<f64>> {
    bytes.chunks(784).map(|row| row.iter().map(|&byte| f64::from(byte) / 255.0).collect()).collect()
}
