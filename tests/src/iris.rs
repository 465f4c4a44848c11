//! The Iris data, its model and what scikit-learn says of it. `tests/data/iris/make.py` makes all three files.

use std::{fs::File, path::PathBuf};

use cloister_client::{Prediction, Table};
use cloister_inference::{FeatureRange, ImportOptions, Imported, import as import_onnx};

use crate::build::workspace;

/// Names of the feature columns.
pub const FEATURES: [&str; 4] = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"];
/// Labels, in the order of the logits.
pub const LABELS: [&str; 3] = ["setosa", "versicolor", "virginica"];

/// The data and scikit-learn's float64 outputs on it.
#[derive(Debug)]
pub struct Iris {
    /// 150 rows of four features.
    pub rows: Vec<Vec<f64>>,
    /// The species of each row.
    pub species: Vec<String>,
    /// scikit-learn's `decision_function` of each row.
    pub logits: Vec<Vec<f64>>,
    /// scikit-learn's `predict` of each row.
    pub predicted: Vec<String>,
}

/// Path of a file of the data folder.
pub fn file(name: &str) -> PathBuf {
    workspace().join("tests/data/iris").join(name)
}

impl Iris {
    /// Reads the data.
    pub fn load() -> anyhow::Result<Self> {
        let data = Table::read(File::open(file("iris.csv"))?)?;
        let expected = Table::read(File::open(file("expected.csv"))?)?;
        let owned = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
        Ok(Self {
            rows: data.numbers(&FEATURES)?,
            species: owned(data.texts("species")?),
            logits: expected.numbers(&LABELS)?,
            predicted: owned(expected.texts("label")?),
        })
    }
}

/// The least and greatest value of each feature.
pub fn ranges() -> anyhow::Result<Vec<FeatureRange>> {
    Ok(Table::read(File::open(file("iris.csv"))?)?.ranges(&FEATURES)?)
}

/// Imports the model from its ONNX file, with the ranges of the data, at the default precision.
pub fn import() -> anyhow::Result<Imported> {
    let options = ImportOptions { ranges: Some(ranges()?), ..ImportOptions::new("iris", "1") };
    Ok(import_onnx(&std::fs::read(file("iris.onnx"))?, &options)?)
}

/// How predictions compare with scikit-learn's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Agreement {
    /// Labels that equal scikit-learn's.
    pub labels_equal: usize,
    /// Labels that equal the species.
    pub right: usize,
    /// Labels whose margin exceeds twice the bound.
    pub certain: usize,
    /// Largest distance of a logit from scikit-learn's.
    pub max_logit_error: f64,
    /// Logits further from scikit-learn's than `bound`.
    pub violations: usize,
}

impl Agreement {
    /// Compares one prediction per row of the data.
    pub fn of(predictions: &[Prediction], iris: &Iris, bound: f64) -> Self {
        assert_eq!(predictions.len(), iris.rows.len(), "one prediction per row");
        let mut agreement = Self::default();
        for (row, prediction) in predictions.iter().enumerate() {
            let label = prediction.label_text();
            agreement.labels_equal += usize::from(label == iris.predicted[row]);
            agreement.right += usize::from(label == iris.species[row]);
            agreement.certain += usize::from(prediction.certain);
            for (logit, expected) in prediction.logits.iter().zip(&iris.logits[row]) {
                let error = (logit - expected).abs();
                agreement.max_logit_error = agreement.max_logit_error.max(error);
                agreement.violations += usize::from(error > bound);
            }
        }
        agreement
    }
}
