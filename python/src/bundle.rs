//! Models, made of ONNX.

use cloister_attestation::Sha384;
use cloister_inference::{FeatureRange, ImportOptions, Imported, Thresholds, import};
use pyo3::{buffer::PyBuffer, prelude::*};

use crate::{
    convert::{Described, described, width},
    error::Failure,
};

/// A model that an enclave can serve, as it was imported.
#[pyclass(frozen)]
pub(crate) struct Bundle(Imported);

#[pymethods]
impl Bundle {
    /// What it takes, gives and promises.
    fn description(&self) -> Described {
        let bundle = &self.0.bundle;
        described(bundle.description(), Sha384(bundle.digest()))
    }

    /// Where its bound comes from, what bits change of trees and networks, and how it fared on random rows.
    fn report(&self) -> String {
        self.0.report.to_string()
    }

    /// What its file has.
    fn to_bytes(&self) -> Vec<u8> {
        self.0.bundle.to_bytes()
    }
}

/// Name, least and greatest value, and step if values are multiples of one.
type Range = (String, f64, f64, Option<f64>);

/// Imports a model. Without `ranges`, and the `rows` that they are of, the first scaler says where the columns lie, and
/// `names` what they are called.
#[pyfunction]
#[pyo3(signature = (onnx, name, version, precision, model_privacy, budget, ranges, rows, public_thresholds, names))]
#[expect(clippy::too_many_arguments, reason = "those of Python's import_model")]
pub(crate) fn import_onnx(
    py: Python<'_>,
    onnx: &[u8],
    name: String,
    version: String,
    precision: f64,
    model_privacy: Option<f64>,
    budget: Option<u64>,
    ranges: Option<Vec<Range>>,
    rows: Option<PyBuffer<f64>>,
    public_thresholds: bool,
    names: Option<Vec<String>>,
) -> PyResult<Bundle> {
    let range = |(name, low, high, step)| FeatureRange { name, low, high, step };
    let ranges = ranges.map(|ranges| ranges.into_iter().map(range).collect());
    let options = ImportOptions {
        precision,
        model_privacy,
        budget,
        ranges,
        thresholds: if public_thresholds { Thresholds::Public } else { Thresholds::Hidden },
        rows: rows.map(|rows| first_rows(py, &rows)).transpose()?.unwrap_or_default(),
        feature_names: names,
        ..ImportOptions::new(name, version)
    };
    let imported = py.detach(|| import(onnx, &options));
    Ok(Bundle(imported.map_err(Failure::from)?))
}

/// As many as an import looks at.
fn first_rows(py: Python<'_>, rows: &PyBuffer<f64>) -> PyResult<Vec<Vec<f64>>> {
    let values = rows.to_vec(py)?;
    Ok(values.chunks(width(rows)).take(ImportOptions::MOST_ROWS).map(<[f64]>::to_vec).collect())
}
