//! Real trees, forests, boosted ensembles and networks, and what their frameworks say of every row.
//! `tests/data/trees/make.py` makes the files, and says what they are.

use std::{
    fs::{self, File},
    path::PathBuf,
};

use anyhow::Context;
use cloister_client::{Prediction, Table};
use cloister_inference::{ImportError, ImportOptions, Imported, Thresholds, import};
use serde::Deserialize;

use crate::{
    build::workspace,
    linear::{exported, numbers},
};

/// A model that was trained and exported.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    /// What it is called here.
    pub name: String,
    rows: String,
    train: String,
    /// Trees in all; none of a network.
    pub trees: usize,
    /// The framework's own, of a classifier.
    pub accuracy: Option<f64>,
    /// Rows that lie on a threshold within float32: the exported graph sends them another way than the framework.
    pub crossed: usize,
}

/// How predictions compare with the framework's.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// As many rows.
    pub rows: usize,
    /// Labels that are another.
    pub other: usize,
    /// Labels that are true.
    pub right: usize,
    /// The same of the framework's labels.
    pub right_before: usize,
    /// For each row the furthest that a probability or a regression's value is off.
    pub errors: Vec<f64>,
}

impl Case {
    /// All of `tests/data/trees`.
    pub fn all() -> anyhow::Result<Vec<Self>> {
        Ok(serde_json::from_slice(&fs::read(file("trees/cases.json"))?)?)
    }

    /// The one of that name.
    pub fn named(name: &str) -> anyhow::Result<Self> {
        Self::all()?.into_iter().find(|case| case.name == name).with_context(|| format!("no case {name}"))
    }

    /// Imports it, with ranges of all its rows and bits by those that it was trained on.
    pub fn import(&self, precision: f64, thresholds: Thresholds) -> anyhow::Result<Result<Imported, ImportError>> {
        let onnx = fs::read(file(&format!("trees/{}.onnx", self.name)))?;
        let mut ranges = Table::numeric_ranges(File::open(file(&self.train))?)?;
        for (range, tested) in ranges.iter_mut().zip(Table::numeric_ranges(File::open(file(&self.rows))?)?) {
            (range.low, range.high) = (range.low.min(tested.low), range.high.max(tested.high));
        }
        let rows = numbers(&file(&self.train))?;
        let options =
            ImportOptions { precision, ranges: Some(ranges), thresholds, rows, ..ImportOptions::new(&self.name, "1") };
        Ok(import(&onnx, &options))
    }

    /// The rows that it is tested on; NaN where a value is missing.
    pub fn rows(&self) -> anyhow::Result<Vec<Vec<f64>>> {
        numbers(&file(&self.rows))
    }

    /// Predictions for the first rows against the framework's.
    pub fn compare(&self, predictions: &[Prediction]) -> anyhow::Result<Comparison> {
        let expected = Table::read(File::open(file(&format!("trees/{}.expected.csv", self.name)))?)?;
        let columns = |prefix: &str| -> Vec<String> {
            expected.columns().iter().filter(|name| name.starts_with(prefix)).cloned().collect()
        };
        let outputs = [columns("probability:"), columns("prediction:")].concat();
        let outputs = expected.numbers(&outputs.iter().map(String::as_str).collect::<Vec<_>>())?;
        let mut comparison = Comparison { rows: predictions.len(), ..Comparison::default() };
        for (prediction, outputs) in predictions.iter().zip(&outputs) {
            let off = prediction.outputs.iter().zip(outputs).map(|(found, expected)| (found - expected).abs());
            comparison.errors.push(off.max_by(f64::total_cmp).unwrap_or(0.0));
        }
        if self.accuracy.is_some() {
            let (labels, targets) = (expected.texts("label")?, expected.texts("target")?);
            for (prediction, (label, target)) in predictions.iter().zip(labels.iter().zip(&targets)) {
                let found = prediction.label_text();
                comparison.other += usize::from(found != exported(label));
                comparison.right += usize::from(found == exported(target));
                comparison.right_before += usize::from(label == target);
            }
        }
        Ok(comparison)
    }
}

fn file(name: &str) -> PathBuf {
    workspace().join("tests/data").join(name)
}
