//! Every linear model of scikit-learn, from its ONNX file to a bundle. What comes of it through the whole service is held
//! to scikit-learn's own numbers in `tests/tests/linear.rs`.
//!
//! `tests/data/linear/make.py` says what the files are and how they were made.
#![cfg(feature = "import")]
#![expect(clippy::unwrap_used, reason = "the helpers are part of the tests")]

mod common;

use cloister_inference::{Bundle, FeatureRange, ImportError, ImportOptions, Link, Session, Step, import};
use serde::Deserialize;

use common::{Table, data};

/// What `cases.json` says of a case.
#[derive(Clone, Debug, Deserialize)]
struct Case {
    name: String,
    dataset: String,
    model: String,
    kind: String,
    outputs: Vec<String>,
    graph_scores: String,
    named_columns: bool,
    client_steps: bool,
    #[serde(default)]
    classes: Vec<serde_json::Value>,
}

impl Case {
    fn onnx(&self) -> Vec<u8> {
        data(&format!("linear/{}.onnx", self.name))
    }

    fn ranges(&self) -> Vec<FeatureRange> {
        Table::read(&format!("linear/{}.csv", self.dataset)).ranges()
    }
}

fn cases() -> Vec<Case> {
    let cases: Vec<Case> = serde_json::from_slice(&data("linear/cases.json")).unwrap();
    assert!(cases.len() > 60, "{}", cases.len());
    cases
}

/// At the least precision of 0.001, 0.01, … that a case reaches.
fn imported(case: &Case, ranges: Option<Vec<FeatureRange>>) -> Bundle {
    let options = ImportOptions { ranges, ..ImportOptions::new(&case.name, "1") };
    let onnx = case.onnx();
    for precision in [1e-3, 1e-2, 0.1, 1.0] {
        match import(&onnx, &ImportOptions { precision, ..options.clone() }) {
            Ok(imported) => return imported.bundle,
            Err(ImportError::Precision { .. }) => {}
            Err(error) => panic!("{}: {error}; {}", case.name, error.remedy()),
        }
    }
    panic!("{}: no precision is in reach", case.name)
}

#[test]
fn every_case_has_the_link_of_its_model() {
    for case in cases() {
        let description = imported(&case, Some(case.ranges())).description().clone();
        let expected = match (&case.model[..], case.outputs.contains(&"probability".into())) {
            (_, true) if case.graph_scores == "decision" => Link::Identity,
            ("OneVsRestClassifier" | "SGDClassifier", true) if case.classes.len() > 2 => Link::OneVsRest,
            (_, true) if case.classes.len() > 2 => Link::Softmax,
            (_, true) => Link::Sigmoid,
            ("PoissonRegressor" | "GammaRegressor", false) => Link::Exp,
            (_, false) => Link::Identity,
        };
        assert_eq!(description.link(), expected, "{}", case.name);
        assert_eq!(description.labels().len(), case.classes.len(), "{}", case.name);
        let of_labels = if case.classes.len() == 2 { 1 } else { case.classes.len() };
        if case.kind == "classifier" {
            assert_eq!(description.logits(), of_labels, "{}", case.name);
        }
        assert_eq!(!description.steps().is_empty(), case.client_steps, "{}", case.name);
    }
}

#[test]
fn named_columns_keep_their_names() {
    for case in cases().into_iter().filter(|case| case.named_columns) {
        let scaled_all = import(&case.onnx(), &ImportOptions { precision: 1.0, ..ImportOptions::new("named", "1") });
        let bundle = match scaled_all {
            Ok(imported) => imported.bundle,
            // Columns that pass through unscaled say nothing of their ranges.
            Err(ImportError::NoRanges { name, .. }) => {
                assert_eq!(name, "total_phenols");
                continue;
            }
            Err(error) => panic!("{}: {error}", case.name),
        };
        let names = bundle.description().features().iter().map(|feature| feature.name.clone());
        let plain = |name: String| name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let expected = case.ranges().into_iter().map(|range| plain(range.name));
        assert!(names.map(plain).eq(expected), "{}", case.name);
    }
}

/// Ranges from a scaler hold the data that it was trained on, or data like it.
#[test]
fn scalers_give_ranges_that_hold_their_data() {
    let mut imported = 0;
    for case in cases() {
        let options = ImportOptions { precision: 1.0, ..ImportOptions::new("scaled", "1") };
        let bundle = match import(&case.onnx(), &options) {
            Ok(imported) => imported.bundle,
            Err(ImportError::NoRanges { .. }) => continue,
            Err(error) => panic!("{}: {error}", case.name),
        };
        // What MinMaxScaler maps to −1 to 1 looks as if it were mapped to 0 to 1.
        if case.name != "iris-sgd-log" {
            let rows = Table::read(&format!("linear/{}.csv", case.dataset)).numbers();
            let mut session = Session::new(bundle.description());
            let held = rows.iter().filter(|row| session.encrypt(&[row]).is_ok()).count();
            assert!(held * 10 >= rows.len() * 9, "{}: {held} of {}", case.name, rows.len());
        }
        imported += 1;
    }
    assert!(imported > 35, "{imported}");
}

#[test]
fn missing_values_are_filled_in_where_the_model_says_so() {
    let case = cases().into_iter().find(|case| case.name == "iris-imputer").unwrap();
    let bundle = imported(&case, Some(case.ranges()));
    let [Step::Impute { values }] = bundle.description().steps() else { panic!("{:?}", bundle.description().steps()) };
    let mean = values[0].unwrap();
    let mut session = Session::new(bundle.description());
    assert!(session.encrypt(&[[f64::NAN, 3.0, 1.4, 0.2], [mean, 3.0, 1.4, 0.2]]).is_ok());
    let other = cases().into_iter().find(|case| case.name == "iris-logistic").unwrap();
    let bundle = imported(&other, Some(other.ranges()));
    let error = Session::new(bundle.description()).encrypt(&[[f64::NAN, 3.0, 1.4, 0.2]]).unwrap_err();
    assert_eq!(error.code(), "not_finite");
}

/// Every pipeline that is no affine model is refused by name, with a reason and a remedy.
#[test]
fn what_is_not_linear_is_refused_by_name() {
    for (name, op, reason, remedy) in [
        ("polynomial", "ReduceProd", "PolynomialFeatures", "products"),
        ("one-hot", "OneHotEncoder", "categories", "column of its own"),
        ("bins", "Less", "KBinsDiscretizer", "bins"),
        ("clip", "Clip", "MinMaxScaler(clip=True)", "clip=False"),
        ("power", "Log", "PowerTransformer", "StandardScaler"),
        ("quantile", "IsNaN", "QuantileTransformer", "RobustScaler"),
        ("svc-rbf", "SVMClassifier", "kernel", "LinearSVC"),
        ("neighbours", "Scan", "distances", "linear model"),
        ("calibrated", "Sum", "calibrates", "itself"),
        ("naive-bayes", "ReduceLogSumExp", "naive Bayes", "LogisticRegression"),
    ] {
        let error = import(&data(&format!("linear/refused/{name}.onnx")), &ImportOptions::new(name, "1")).unwrap_err();
        let ImportError::UnsupportedNode { node, op: found, .. } = &error else { panic!("{name}: {error}") };
        assert_eq!((&found[..], error.code(), node.is_empty()), (op, "onnx_node", false), "{name}");
        assert!(error.to_string().contains(reason), "{name}: {error}");
        assert!(error.remedy().contains(remedy), "{name}: {}", error.remedy());
    }
}

#[test]
fn truncated_files_are_refused() {
    for name in ["cancer-logistic-text.onnx", "iris-one-vs-rest.onnx"] {
        let onnx = data(&format!("linear/{name}"));
        for len in (0..onnx.len()).step_by(7) {
            // The opset entries at the end are not looked at.
            if let Err(error) = import(&onnx[..len], &ImportOptions::new("truncated", "1")) {
                assert_eq!(error.code(), "not_onnx", "{name}: {len} bytes");
            } else {
                assert!(onnx.len() - len < 64, "{name}: {len} bytes");
            }
        }
    }
}
