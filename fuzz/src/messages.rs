//! What crosses an attested connection. The peer on the other side runs the right code, or somebody took it over.
//!
//! The bytes of a request or a reply are a message's body after two of big-endian length, as the HTTP header
//! `Inference-Header-Content-Length` would give it; `ff ff` is for a message without that header.

use std::sync::{LazyLock, Mutex, PoisonError};

use aws_lc_rs::digest;
use cloister_attestation::Sha384;
use cloister_inference::{DecryptError, EvaluateError, Evaluator, Layout, PublicKey, Request, Scratch, Session};
use cloister_wire::{
    error::ErrorCode,
    oip::{Framed, InferRequest, InferResponse, MessageError, header_length},
};

use crate::{
    Verdict, code, refused,
    world::{self, BUNDLE},
};

/// A client's public key, on the enclave's side.
///
/// Whatever is accepted can be evaluated with: a request that names it is answered, if it is for the model's parameters.
pub fn public_key(bytes: &[u8]) -> Verdict {
    let key = PublicKey::from_bytes(bytes).map_err(|error| code!(error))?;
    assert_eq!(bytes.len(), PublicKey::len(key.parameters()));

    let mut request = FIRST.ciphertext.to_vec();
    request[NAMED_KEY].copy_from_slice(&digest::digest(&digest::SHA256, bytes).as_ref()[..NAMED_KEY.len()]);
    assert_eq!(EVALUATOR.check(&request).map(|asked| asked.key), Ok(key.id()));
    match EVALUATOR.evaluate(&request, &key, &mut Scratch::default()) {
        Ok(reply) => assert_answers(&reply, &request),
        Err(error) => assert!(key.parameters() != BUNDLE.parameters(), "{error}"),
    }
    Ok(())
}

/// Where a request names its public key: after its header.
pub(crate) const NAMED_KEY: std::ops::Range<usize> = 9..25;

/// A request, on the enclave's side, which is the first on its connection: its public key came with it or not at all.
pub fn request(bytes: &[u8]) -> Verdict {
    let (stated, body) = message(bytes);
    let found = header_length(body);
    let request = InferRequest::parse(stated, body).map_err(framing)?;
    // What says itself where its header ends says what HTTP says, but for white space in between.
    let found = found.expect("what was parsed begins with JSON");
    assert!(stated.is_none_or(|stated| found <= stated && body[found..stated].iter().all(u8::is_ascii_whitespace)));
    let Framed { header_length, body } = request.to_framed();
    assert_eq!(InferRequest::parse(Some(header_length), &body).ok(), Some(request.clone()));
    if cfg!(miri) {
        return Ok(()); // The arithmetic takes minutes there.
    }

    let asked = EVALUATOR.check(request.ciphertext).map_err(|error| code!(error))?;
    let key = request.public_key.map(PublicKey::from_bytes).transpose().map_err(|error| code!(error))?;
    let key = key.filter(|key| key.id() == asked.key);
    let key = key.ok_or(ErrorCode::PublicKeyMissing.as_str())?;
    if key.parameters() != BUNDLE.parameters() {
        return Err(EvaluateError::Key.code());
    }
    assert_eq!(asked.logits, rows_of(request.ciphertext) as u64 * BUNDLE.logits() as u64);
    let reply = EVALUATOR.evaluate(request.ciphertext, &key, &mut Scratch::default());
    assert_answers(&reply.expect("the request was checked"), request.ciphertext);
    Ok(())
}

static EVALUATOR: LazyLock<Evaluator> = LazyLock::new(|| Evaluator::new(&BUNDLE));

/// The rows that a request's header states.
fn rows_of(request: &[u8]) -> usize {
    u16::from_le_bytes([request[7], request[8]]).into()
}

/// A reply repeats version, parameters, layout and rows, and has G·N mask coefficients and R·K outputs, b bits each.
fn assert_answers(reply: &[u8], request: &[u8]) {
    assert_eq!(&reply[..4], b"clrp");
    assert_eq!(reply[4..9], request[4..9]);
    let description = BUNDLE.description();
    let Layout { outputs: kappa, .. } = description.layouts()[usize::from(request[6])];
    let outputs = description.logits() * description.limbs().weights.count;
    let coefficients = outputs.div_ceil(kappa) * description.parameters().polynomial_size().0
        + rows_of(request) * description.limbs().features.count * outputs;
    assert_eq!(reply.len(), 9 + (coefficients * description.scale().reply as usize).div_ceil(8));
}

/// A reply, on the client's side: its receipt, and what it decrypts to.
///
/// The receipt in a seed is for the request of that seed. The key is another one in each process, so what a reply decrypts
/// to says nothing here, and it is decrypted whatever its receipt is: the enclave signs what it likes.
pub fn reply(bytes: &[u8]) -> Verdict {
    let (header_length, body) = message(bytes);
    let reply = InferResponse::parse(header_length, body).map_err(framing)?;
    let Framed { header_length, body } = reply.to_framed();
    assert_eq!(InferResponse::parse(Some(header_length), &body).ok(), Some(reply.clone()));
    if cfg!(miri) {
        return Ok(());
    }

    let (session, request) = &mut *CLIENT.lock().unwrap_or_else(PoisonError::into_inner);
    let decrypted = match session.decrypt(request, reply.ciphertext) {
        Err(DecryptError::OutOfBound) => Ok(()),
        Ok(logits) => {
            assert!(logits.len() == 1 && logits[0].len() == BUNDLE.logits());
            assert!(logits[0].iter().all(|logit| logit.is_finite()));
            Ok(())
        }
        Err(error) => Err(code!(error)),
    };
    let received = Sha384::of(reply.ciphertext);
    let (bundle, parameters) = (Sha384(BUNDLE.digest()), BUNDLE.parameters().name());
    let sent = Sha384::of(FIRST.ciphertext);
    world::ENCLAVE.check_receipt(reply.receipt, sent, received, bundle, parameters).map_err(|error| code!(error))?;
    decrypted
}

/// A session that waits for the reply to a request of one row.
static CLIENT: LazyLock<Mutex<(Session, Request)>> = LazyLock::new(|| {
    let mut session = Session::new(BUNDLE.description());
    let request = session.encrypt(&[[5.1, 3.5, 1.4, 0.2]]).expect("the row is one of Iris");
    Mutex::new((session, request))
});

/// The request for which the receipts in the seeds are.
static FIRST: LazyLock<InferRequest> = LazyLock::new(|| {
    let (header_length, body) = message(include_bytes!("../corpus/request/valid-iris"));
    InferRequest::parse(header_length, body).expect("the seed is a request")
});

/// The length of the JSON header, and the body.
fn message(bytes: &[u8]) -> (Option<usize>, &[u8]) {
    let Some((length, body)) = bytes.split_first_chunk() else { return (None, bytes) };
    let length = u16::from_be_bytes(*length);
    ((length != u16::MAX).then_some(length.into()), body)
}

fn framing(error: MessageError) -> &'static str {
    refused(error.code().as_str(), &[error.to_string()])
}
