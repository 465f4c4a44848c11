//! Every linear model of scikit-learn, from its ONNX file to predictions, held to scikit-learn's own numbers.
//!
//! `tests/data/linear/make.py` says what the files are and how they were made.
#![cfg(feature = "import")]
#![expect(clippy::unwrap_used, reason = "the helpers are part of the tests")]

use std::fs;

use cloister_inference::{
    Bundle, Description, Evaluator, FeatureRange, ImportError, ImportOptions, Link, Prediction, PublicKey, Scratch,
    Session, import,
};
use serde::Deserialize;

/// What `cases.json` says of a case.
#[derive(Clone, Debug, Deserialize)]
struct Case {
    name: String,
    dataset: String,
    model: String,
    kind: String,
    outputs: Vec<String>,
    named_columns: bool,
    client_steps: bool,
    #[serde(default)]
    classes: Vec<serde_json::Value>,
}

fn data(name: &str) -> Vec<u8> {
    let path = format!("{}/../tests/data/linear/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn cases() -> Vec<Case> {
    let cases: Vec<Case> = serde_json::from_slice(&data("cases.json")).unwrap();
    assert!(cases.len() > 60, "{}", cases.len());
    cases
}

/// A CSV file: its header and its cells.
struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn read(name: &str) -> Self {
        let text = String::from_utf8(data(name)).unwrap();
        let mut lines = text.lines().map(|line| line.split(',').map(String::from).collect());
        Self { header: lines.next().unwrap(), rows: lines.collect() }
    }

    /// All cells as numbers; an empty one is missing.
    fn numbers(&self) -> Vec<Vec<f64>> {
        let number = |cell: &String| if cell.is_empty() { f64::NAN } else { cell.parse().unwrap() };
        self.rows.iter().map(|row| row.iter().map(number).collect()).collect()
    }

    /// The least and greatest value of each column.
    fn ranges(&self) -> Vec<FeatureRange> {
        let numbers = self.numbers();
        let range = |(index, name): (usize, &String)| FeatureRange {
            name: name.clone(),
            low: numbers.iter().map(|row| row[index]).fold(f64::INFINITY, f64::min),
            high: numbers.iter().map(|row| row[index]).fold(f64::NEG_INFINITY, f64::max),
            step: None,
        };
        self.header.iter().enumerate().map(range).collect()
    }

    /// The cells of a row under headers that begin so.
    fn cells<'a>(&'a self, row: usize, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        let columns = self.header.iter().enumerate().filter(move |(_, name)| name.starts_with(prefix));
        columns.map(move |(index, _)| &self.rows[row][index][..])
    }

    fn values(&self, row: usize, prefix: &str) -> Vec<f64> {
        self.cells(row, prefix).map(|cell| cell.parse().unwrap()).collect()
    }
}

/// The least precision of 0.001, 0.01, … that a case reaches.
fn imported(case: &Case, ranges: Option<Vec<FeatureRange>>) -> Bundle {
    let options = ImportOptions { ranges, ..ImportOptions::new(&case.name, "1") };
    let onnx = data(&format!("{}.onnx", case.name));
    for precision in [1e-3, 1e-2, 0.1, 1.0] {
        match import(&onnx, &ImportOptions { precision, ..options.clone() }) {
            Ok(imported) => return imported.bundle,
            Err(ImportError::Precision { .. }) => {}
            Err(error) => panic!("{}: {error}; {}", case.name, error.remedy()),
        }
    }
    panic!("{}: no precision is in reach", case.name)
}

/// Encrypts all rows, evaluates and decrypts them, with every file read from its bytes.
fn predict(bundle: &Bundle, rows: &[Vec<f64>]) -> Vec<Prediction> {
    let description = Description::from_bytes(&bundle.description().to_bytes()).unwrap();
    let evaluator = Evaluator::new(&Bundle::from_bytes(&bundle.to_bytes()).unwrap());
    let mut session = Session::new(&description);
    let key = PublicKey::from_bytes(session.public_key()).unwrap();
    let mut predictions = vec![];
    for batch in rows.chunks(bundle.rows_per_request()) {
        let request = session.encrypt(batch).unwrap();
        let reply = evaluator.evaluate(request.bytes(), &key, &mut Scratch::default()).unwrap();
        let logits = session.decrypt(&request, &reply).unwrap();
        predictions.extend(logits.into_iter().map(|logits| Prediction::new(&description, logits)));
    }
    predictions
}

#[test]
fn every_case_is_within_the_bound_of_scikit_learn() {
    let (mut rows, mut uncertain) = (0, 0);
    for case in cases() {
        let dataset = Table::read(&format!("{}.csv", case.dataset));
        let bundle = imported(&case, Some(dataset.ranges()));
        let expected = Table::read(&format!("{}.expected.csv", case.name));
        let predictions = predict(&bundle, &dataset.numbers());
        assert_eq!(predictions.len(), expected.rows.len(), "{}", case.name);
        for (row, prediction) in predictions.iter().enumerate() {
            compare(&case, &bundle, prediction, &expected, row);
        }
        rows += predictions.len();
        uncertain += predictions.iter().filter(|prediction| !prediction.certain).count();
    }
    assert!(uncertain * 200 < rows, "{uncertain} of {rows}");
}

fn compare(case: &Case, bundle: &Bundle, prediction: &Prediction, expected: &Table, row: usize) {
    let (name, bound) = (&case.name, bundle.bound());
    let near = |found: &[f64], expected: &[f64], bound: f64| {
        assert_eq!(found.len(), expected.len(), "{name}, row {row}");
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() <= bound, "{name}, row {row}: {found} for {expected}, within {bound}");
        }
    };
    match &case.kind[..] {
        "classifier" => {
            if prediction.certain {
                assert_eq!(prediction.label_text(), label(expected, row), "{name}, row {row}");
            }
            near(&prediction.logits, &expected.values(row, "decision:"), bound);
            match bundle.description().link() {
                Link::Identity => assert_eq!(prediction.outputs, prediction.logits),
                // No probability moves more than its logits do together: |dp| ≤ ¼ to 2 of the largest.
                _ => near(&prediction.outputs, &expected.values(row, "probability:"), 2.0 * bound),
            }
        }
        _ => {
            assert_eq!((prediction.label_text(), prediction.certain), (String::new(), true));
            let values = expected.values(row, "prediction:");
            match bundle.description().link() {
                Link::Exp => {
                    let logits: Vec<_> = values.iter().map(|value| value.ln()).collect();
                    near(&prediction.logits, &logits, bound + 1e-12);
                }
                _ => near(&prediction.outputs, &values, bound),
            }
        }
    }
}

/// Scikit-learn's label. ONNX has no boolean labels: skl2onnx writes 0 and 1.
fn label(expected: &Table, row: usize) -> String {
    match expected.cells(row, "label").next().unwrap() {
        "True" => "1".into(),
        "False" => "0".into(),
        other => other.into(),
    }
}
#[test]
fn zz_dump() {
    for case in cases() {
        let dataset = Table::read(&format!("{}.csv", case.dataset));
        let bundle = imported(&case, Some(dataset.ranges()));
        let l = bundle.ledger();
        let predictions = predict(&bundle, &dataset.numbers());
        let unc = predictions.iter().filter(|p| !p.certain).count();
        let onnx = data(&format!("{}.onnx", case.name));
        let free = match import(&onnx, &ImportOptions { precision: 1.0, ..ImportOptions::new("x", "1") }) {
            Ok(i) => format!("ok {:.1e}", i.report.self_check.largest_difference),
            Err(e) => format!("{}: {e}", e.code()),
        };
        println!(
            "{:28} {:?} logits {} labels {:?} bound {:.2e} export {:.1e} arith {:.1e} unc {}/{} steps {} | free {}",
            case.name,
            bundle.description().link(),
            bundle.logits(),
            bundle.description().labels().first(),
            bundle.bound(),
            l.export,
            l.arithmetic,
            unc,
            predictions.len(),
            bundle.description().steps().len(),
            free
        );
    }
    for entry in fs::read_dir(format!("{}/../tests/data/linear/refused", env!("CARGO_MANIFEST_DIR"))).unwrap() {
        let path = entry.unwrap().path();
        match import(&fs::read(&path).unwrap(), &ImportOptions { precision: 1.0, ..ImportOptions::new("x", "1") }) {
            Ok(_) => println!("{path:?} imported"),
            Err(e) => println!("{:?} {}: {e} -> {}", path.file_name().unwrap(), e.code(), e.remedy()),
        }
    }
}
