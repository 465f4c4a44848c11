//! The Iris model from its ONNX file to predictions, held to scikit-learn's own numbers.
#![cfg(feature = "import")]
#![expect(clippy::unwrap_used, reason = "the helpers are part of the tests")]

mod common;

use cloister_inference::{
    Bundle, Description, EncryptError, Evaluator, ImportOptions, Imported, Prediction, PublicKey, Scratch, Session,
    import,
};

use common::{Table, data};

/// A file of Iris whose last column is text: its numbers, and that column.
fn table(name: &str) -> (Table, Vec<String>) {
    let mut table = Table::read(&format!("iris/{name}"));
    table.header.pop();
    let texts = table.rows.iter_mut().map(|row| row.pop().unwrap()).collect();
    (table, texts)
}

fn options() -> ImportOptions {
    ImportOptions { ranges: Some(table("iris.csv").0.ranges()), ..ImportOptions::new("iris", "1.0") }
}

fn imported() -> Imported {
    import(&data("iris/iris.onnx"), &options()).unwrap()
}

/// Encrypts `rows`, evaluates and decrypts them, with every file read from its bytes.
fn predict(bundle: &Bundle, rows: &[Vec<f64>]) -> Vec<Prediction> {
    let description = Description::from_bytes(&bundle.description().to_bytes()).unwrap();
    let evaluator = Evaluator::new(&Bundle::from_bytes(&bundle.to_bytes()).unwrap());
    let mut session = Session::new(&description);
    let request = session.encrypt(rows).unwrap();
    let key = PublicKey::from_bytes(session.public_key()).unwrap();
    let reply = evaluator.evaluate(request.bytes(), &key, &mut Scratch::default()).unwrap();
    let logits = session.decrypt(&request, &reply).unwrap();
    logits.into_iter().map(|logits| Prediction::new(&description, logits)).collect()
}

#[test]
fn every_logit_is_within_the_bound_of_scikit_learn() {
    let (iris, expected) = (table("iris.csv").0.numbers(), table("expected.csv").0.numbers());
    for (precision, ranges) in [(1e-3, options().ranges), (1e-4, options().ranges), (1e-3, None), (0.5, None)] {
        let bundle = import(&data("iris/iris.onnx"), &ImportOptions { precision, ranges, ..options() }).unwrap().bundle;
        assert!(bundle.bound() <= precision);
        let predictions = predict(&bundle, &iris);
        assert_eq!(predictions.len(), 150);
        for (prediction, expected) in predictions.iter().zip(&expected) {
            for (logit, expected) in prediction.logits.iter().zip(expected) {
                assert!((logit - expected).abs() <= bundle.bound(), "{logit} for {expected} at {precision}");
            }
        }
    }
}

#[test]
fn every_label_is_that_of_scikit_learn() {
    let ((iris, _), (_, expected)) = (table("iris.csv"), table("expected.csv"));
    let predictions = predict(&imported().bundle, &iris.numbers());
    let labels: Vec<String> = predictions.iter().map(|prediction| prediction.label_text()).collect();
    assert_eq!(labels, expected);
    assert!(predictions.iter().all(|prediction| prediction.certain), "no row of Iris is within 0.002 of a tie");
}

#[test]
fn rows_travel_alone_as_well_as_together() {
    let iris = table("iris.csv").0.numbers();
    let bundle = imported().bundle;
    let together = predict(&bundle, &iris[..10]);
    for (row, prediction) in iris.iter().zip(together) {
        let alone = predict(&bundle, std::slice::from_ref(row)).remove(0);
        for (one, other) in alone.logits.iter().zip(&prediction.logits) {
            assert!((one - other).abs() <= 2.0 * bundle.bound());
        }
    }
}

#[test]
fn messages_and_files_are_small() {
    let bundle = imported().bundle;
    assert_eq!(bundle.rows_per_request(), 2048);
    assert_eq!((bundle.request_len(1), bundle.request_len(150)), (141, 10_869));
    assert_eq!((bundle.reply_len(1), bundle.reply_len(150)), (7_188, 8_752));
    assert!(bundle.to_bytes().len() < 1000);
}

#[test]
fn the_report_accounts_for_the_bound() {
    let Imported { bundle, report } = imported();
    assert_eq!(report.ledger.total(), bundle.bound());
    assert!(report.ledger.terms().iter().all(|(_, term)| *term > 0.0));
    assert!(report.self_check.largest_difference <= bundle.bound());
    let text = report.to_string();
    assert!(report.ledger.terms().iter().all(|(name, _)| text.contains(name)), "{text}");
}

#[test]
fn importing_is_deterministic() {
    assert_eq!(imported().bundle.digest(), imported().bundle.digest());
}

#[test]
fn a_value_out_of_range_names_its_column() {
    let bundle = imported().bundle;
    let error = Session::new(bundle.description()).encrypt(&[[5.1, 3.5, 14.0, 0.2]]).unwrap_err();
    let EncryptError::OutOfRange { row: 0, column, value: 14.0, low, high } = &error else { panic!("{error}") };
    assert_eq!(column, "petal length (cm)");
    assert!((low - 0.41).abs() < 1e-9 && (high - 7.49).abs() < 1e-9, "1.0 to 6.9 and a tenth more: {low} to {high}");
    assert_eq!(error.code(), "out_of_range");
}

#[test]
fn hostile_requests_and_bundles_get_specific_errors() {
    let bundle = imported().bundle;
    let (evaluator, mut scratch) = (Evaluator::new(&bundle), Scratch::default());
    let mut session = Session::new(bundle.description());
    let key = PublicKey::from_bytes(session.public_key()).unwrap();
    let request = session.encrypt(&[[5.1, 3.5, 1.4, 0.2]]).unwrap();
    for len in 0..request.bytes().len() {
        let code = evaluator.evaluate(&request.bytes()[..len], &key, &mut scratch).unwrap_err().code();
        assert_eq!(code, if len < 9 { "message_too_short" } else { "message_length" });
    }
    for bit in 0..72 {
        let mut flipped = request.bytes().to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let code = evaluator.evaluate(&flipped, &key, &mut scratch).unwrap_err().code();
        assert!(code.starts_with("message_"), "{bit}: {code}");
    }
    let bytes = bundle.to_bytes();
    for len in 0..bytes.len() {
        assert_eq!(Bundle::from_bytes(&bytes[..len]).unwrap_err().code(), "format_malformed", "{len}");
    }
    assert_eq!(Bundle::from_bytes(&vec![0xa0; 50 << 20]).unwrap_err().code(), "format_too_large");
}
