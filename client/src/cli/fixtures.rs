//! What several tests of commands begin with.

use cloister_client::Description;
use cloister_inference::{FeatureRange, ImportOptions, import};

/// Of the Iris model, its columns named `a` to `d` and from 0 to 10.
pub(crate) fn description() -> Description {
    let names = ["a", "b", "c", "d"].map(str::to_owned);
    let ranges = names.map(|name| FeatureRange { name, low: 0.0, high: 10.0, step: None }).to_vec();
    let options = ImportOptions { ranges: Some(ranges), precision: 1e-2, ..ImportOptions::new("iris", "1") };
    let iris = include_bytes!("../../../tests/data/iris/iris.onnx");
    import(iris, &options).expect("it is imported by many tests").bundle.description().clone()
}
