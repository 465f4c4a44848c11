//! The files of models.

use cloister_inference::{
    Bundle, Description, EncryptError, Evaluator, Feature, ImportError, ImportOptions, Imported, MAX_MESSAGE_LEN,
    MAX_SELECTION_LEN, PublicKey, Scratch, Session, Step, import,
};

use crate::{Verdict, code};

/// The public half of a model, as a client gets it.
pub fn description(bytes: &[u8]) -> Verdict {
    let description = Description::from_bytes(bytes).map_err(|error| code!(error))?;
    assert_eq!(description.to_bytes(), bytes);
    assert_eq!(description.logit_names().len(), description.logits());
    let longest = match description.selection() {
        Some(_) => MAX_SELECTION_LEN,
        None => MAX_MESSAGE_LEN,
    };
    for rows in [1, description.rows_per_request()] {
        assert!(description.request_len(rows).max(description.reply_len(rows)) <= longest);
    }
    if !cfg!(miri) {
        encrypts(&description);
    }
    Ok(())
}

/// A client can encrypt whatever rows it has for any model that can be described.
fn encrypts(description: &Description) {
    let mut session = Session::new(description);
    for rows in [1, description.rows_per_request().min(SEVERAL)] {
        if let Some(request) = encrypted(&mut session, &vec![row(description); rows]) {
            assert_eq!(request.bytes().len(), description.request_len(rows));
        }
    }
}

/// Rows enough for another layout than that of a single one.
const SEVERAL: usize = 24;

/// A bundle, as the enclave loads it.
pub fn bundle(bytes: &[u8]) -> Verdict {
    let bundle = Bundle::from_bytes(bytes).map_err(|error| code!(error))?;
    assert_eq!(bundle.to_bytes(), bytes);
    assert!(bundle.ledger().total() <= bundle.bound());
    assert!(bundle.distance_per_row() >= 0.0);
    if !cfg!(miri) {
        keep_the_promise(&bundle);
    }
    Ok(())
}

/// Whatever loads decrypts to the logits of its integers: exactly if its noise is rounded away, or else within its own
/// bound.
fn keep_the_promise(bundle: &Bundle) {
    let description = bundle.description();
    let (evaluator, mut session) = (Evaluator::new(bundle), Session::new(description));
    evaluator.rehearse();
    let key = PublicKey::from_bytes(session.public_key()).expect("a session makes public keys");
    for rows in [1, description.rows_per_request().min(SEVERAL)] {
        let rows = vec![row(description); rows];
        let Some(request) = encrypted(&mut session, &rows) else { continue };
        let reply = evaluator.evaluate(request.bytes(), &key, &mut Scratch::default());
        let reply = reply.expect("the request is for this model");
        let decrypted = session.decrypt(&request, &reply).expect("decryption is certain");
        let clear = evaluator.evaluate_clear(&description.encode(&rows).expect("they were encoded before"));
        assert_eq!((decrypted.len(), decrypted[0].len()), (rows.len(), bundle.logits()));
        for (decrypted, clear) in decrypted.iter().flatten().zip(clear.iter().flatten()) {
            let clear = description.publish(*clear);
            match description.scale().is_exact() {
                true => assert_eq!(*decrypted, clear),
                // Either is rounded to the published decimals, which the bound has in it once.
                false => assert!((decrypted - clear).abs() <= 2.0 * bundle.bound()),
            }
        }
    }
}

/// The request, unless the client's steps lead out of the declared ranges.
fn encrypted(session: &mut Session, rows: &[Vec<f64>]) -> Option<cloister_inference::Request> {
    let has_steps = !session.description().steps().is_empty();
    match session.encrypt(rows) {
        Ok(request) => Some(request),
        Err(EncryptError::NotFinite { .. } | EncryptError::OutOfRange { .. } | EncryptError::OffGrid { .. })
            if has_steps =>
        {
            None
        }
        Err(error) => panic!("the middle of a range is in it: {error}"),
    }
}

/// What the client's steps make the middle of every range, as far as they can be undone.
fn row(description: &Description) -> Vec<f64> {
    let middle = |Feature { low, high, .. }: &Feature| 0.5 * (low + high);
    let mut row: Vec<f64> = description.features().iter().map(middle).collect();
    for step in description.steps().iter().rev() {
        match step {
            Step::Impute { values } => {
                row.iter_mut().zip(values).filter(|(x, value)| **value == Some(**x)).for_each(|(x, _)| *x = f64::NAN);
            }
            Step::Scale { scale, offset } => {
                row.iter_mut().zip(scale).zip(offset).for_each(|((x, scale), offset)| *x = *x / scale + offset);
            }
            // Whatever row it was, of some length.
            _ => row.iter_mut().enumerate().for_each(|(index, x)| *x += index as f64),
        }
    }
    row
}

/// An ONNX file, as its owner imports it.
pub fn onnx(bytes: &[u8]) -> Verdict {
    let mut options = ImportOptions::new("fuzz", "1");
    if cfg!(miri) {
        options.precision = 0.0; // Refused once the file was read: the self-check takes minutes there.
    }
    let Imported { bundle, report } = match import(bytes, &options) {
        Err(ImportError::NoPrecision { .. }) if cfg!(miri) => return Ok(()),
        Err(error @ (ImportError::SelfCheck { .. } | ImportError::Bundle(_) | ImportError::Encode(_))) => {
            panic!("a defect of Cloister: {error}")
        }
        other => other.map_err(|error| code!(error))?,
    };
    assert!(bundle.bound() <= options.precision);
    // The bound of a model that chooses is that of the model on its grids.
    assert!(report.quantisation.is_some() || report.self_check.largest_difference <= bundle.bound());
    assert_eq!(Bundle::from_bytes(&bundle.to_bytes()), Ok(bundle));
    Ok(())
}
