//! Real pipelines of scikit-learn, and what scikit-learn says of every row. `tests/data/linear/make.py` and
//! `tests/data/text/make.py` make the files, and say what they are.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use cloister_client::{Description, Prediction, Table};
use cloister_inference::{Bundle, ImportOptions, Link, import};
use serde::Deserialize;

use crate::build::workspace;

/// A pipeline that was trained and exported.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    /// What it is called here.
    pub name: String,
    dataset: String,
    kind: Kind,
    #[serde(skip)]
    folder: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Classifier,
    Regressor,
}

/// How predictions compare with scikit-learn's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Comparison {
    /// As many rows.
    pub rows: usize,
    /// Labels that may be another, as the prediction itself says.
    pub uncertain: usize,
}

impl Case {
    /// All of `tests/data/linear`, and the text classifier.
    pub fn all() -> anyhow::Result<Vec<Self>> {
        let mut cases: Vec<Self> = serde_json::from_slice(&fs::read(file("linear", "cases.json"))?)?;
        cases.iter_mut().for_each(|case| case.folder = "linear");
        let text = Self { name: "text".into(), dataset: "text".into(), kind: Kind::Classifier, folder: "text" };
        cases.push(text);
        Ok(cases)
    }

    /// Imports it with the ranges of its rows.
    pub fn import(&self, precision: f64) -> anyhow::Result<Bundle> {
        let onnx = fs::read(file(self.folder, &format!("{}.onnx", self.name)))?;
        let ranges = Some(Table::numeric_ranges(File::open(self.dataset())?)?);
        let options = ImportOptions { precision, ranges, ..ImportOptions::new(&self.name, "1") };
        Ok(import(&onnx, &options).with_context(|| self.name.clone())?.bundle)
    }

    /// The file of its rows.
    pub fn dataset(&self) -> PathBuf {
        file(self.folder, &format!("{}.csv", self.dataset))
    }

    /// The file of what scikit-learn says of each row.
    pub fn expected(&self) -> PathBuf {
        file(self.folder, &format!("{}.expected.csv", self.name))
    }

    /// The rows of its dataset; NaN where a value is missing.
    pub fn rows(&self) -> anyhow::Result<Vec<Vec<f64>>> {
        numbers(&self.dataset())
    }

    /// Holds predictions for all rows to scikit-learn's outputs: logits within the bound, labels equal wherever they are
    /// certain, and probabilities or values as far off as logits within the bound make them.
    pub fn compare(&self, predictions: &[Prediction], description: &Description) -> anyhow::Result<Comparison> {
        let expected = Table::read(File::open(self.expected())?)?;
        let numbers = |prefix: &str| -> anyhow::Result<Vec<Vec<f64>>> {
            let names = expected.columns().iter().filter(|name| name.starts_with(prefix));
            Ok(expected.numbers(&names.map(String::as_str).collect::<Vec<_>>())?)
        };
        match self.kind {
            Kind::Classifier => {
                let labels = expected.texts("label")?;
                ensure!(labels.len() == predictions.len(), "one prediction per row of {}", self.name);
                for (row, (prediction, label)) in predictions.iter().zip(labels).enumerate() {
                    let equal = prediction.label_text() == exported(label);
                    ensure!(equal || !prediction.certain, "{}, row {row}: {label} is expected", self.name);
                }
                self.near(predictions, |p| &p.logits, &numbers("decision:")?, description.bound())?;
                if description.link().gives_probabilities() {
                    // No probability moves by more than its logits do.
                    self.near(predictions, |p| &p.outputs, &numbers("probability:")?, 2.0 * description.bound())?;
                }
            }
            Kind::Regressor => {
                let values = numbers("prediction:")?;
                match description.link() {
                    Link::Exp => {
                        let logits: Vec<Vec<f64>> =
                            values.iter().map(|row| row.iter().map(|value| value.ln()).collect()).collect();
                        self.near(predictions, |p| &p.logits, &logits, description.bound() + 1e-12)?;
                    }
                    _ => self.near(predictions, |p| &p.outputs, &values, description.bound())?,
                }
            }
        }
        let uncertain = predictions.iter().filter(|prediction| !prediction.certain).count();
        Ok(Comparison { rows: predictions.len(), uncertain })
    }

    fn near(
        &self,
        predictions: &[Prediction],
        found: impl Fn(&Prediction) -> &Vec<f64>,
        expected: &[Vec<f64>],
        bound: f64,
    ) -> anyhow::Result<()> {
        ensure!(expected.len() == predictions.len(), "one prediction per row of {}", self.name);
        for (row, (prediction, expected)) in predictions.iter().zip(expected).enumerate() {
            let found = found(prediction);
            ensure!(found.len() == expected.len(), "{}, row {row}: {found:?} for {expected:?}", self.name);
            let within = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() <= bound);
            ensure!(within, "{}, row {row}: {found:?} for {expected:?}, within {bound:e}", self.name);
        }
        Ok(())
    }
}

/// The rows of a file of numbers; NaN where a value is missing.
pub(crate) fn numbers(path: &Path) -> anyhow::Result<Vec<Vec<f64>>> {
    let text = fs::read_to_string(path)?;
    let number = |cell: &str| if cell.is_empty() { Ok(f64::NAN) } else { Ok(cell.parse()?) };
    text.lines().skip(1).map(|line| line.split(',').map(number).collect()).collect()
}

/// ONNX has no boolean labels: skl2onnx writes 0 and 1.
pub(crate) fn exported(label: &str) -> &str {
    match label {
        "True" => "1",
        "False" => "0",
        other => other,
    }
}

fn file(folder: &str, name: &str) -> PathBuf {
    workspace().join("tests/data").join(folder).join(name)
}
