//! The files of models.

use cloister_inference::{
    Bundle, Description, Evaluator, ImportError, ImportOptions, Imported, Scratch, Session, import,
};

use crate::{Verdict, code};

/// The public half of a model, as a client gets it.
pub fn description(bytes: &[u8]) -> Verdict {
    let description = Description::from_bytes(bytes).map_err(|error| code!(error))?;
    assert_eq!(description.to_bytes(), bytes);
    Ok(())
}

/// A bundle, as the enclave loads it.
pub fn bundle(bytes: &[u8]) -> Verdict {
    let bundle = Bundle::from_bytes(bytes).map_err(|error| code!(error))?;
    assert_eq!(bundle.to_bytes(), bytes);
    assert!(bundle.ledger().total() <= bundle.bound());
    if !cfg!(miri) {
        keep_the_promise(&bundle);
    }
    Ok(())
}

/// Whatever loads decrypts to the logits of its integers, within its own bound.
fn keep_the_promise(bundle: &Bundle) {
    let description = bundle.description();
    let middle = description.features().iter().map(|feature| feature.low / 2.0 + feature.high / 2.0);
    let rows = [middle.collect::<Vec<_>>()];
    let (evaluator, mut session) = (Evaluator::new(bundle), Session::new(description));
    let request = session.encrypt(&rows).expect("the middle of a range is in it");
    let reply = evaluator.evaluate(request.bytes(), &mut Scratch::default()).expect("the request is for this model");
    let decrypted = session.decrypt(&request, &reply).expect("decryption is certain");
    let clear = evaluator.evaluate_clear(&description.encode(&rows).expect("they were encoded before"));
    for (decrypted, clear) in decrypted.iter().flatten().zip(clear.iter().flatten()) {
        // Either is rounded to the published decimals, which the bound has in it once.
        assert!((decrypted - description.publish(*clear)).abs() <= 2.0 * bundle.bound());
    }
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
    assert!(report.self_check.largest_difference <= bundle.bound());
    assert_eq!(Bundle::from_bytes(&bundle.to_bytes()), Ok(bundle));
    Ok(())
}
