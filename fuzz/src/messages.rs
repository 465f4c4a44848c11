//! What crosses an attested connection. The peer on the other side runs the right code, or somebody took it over.
//!
//! The bytes are a message's body after two of big-endian length, as the HTTP header `Inference-Header-Content-Length` would
//! give it; `ff ff` is for a message without that header.

use std::sync::LazyLock;

use cloister_attestation::Sha384;
use cloister_inference::{DecryptError, Evaluator, Request, Scratch, Session};
use cloister_wire::oip::{Framed, InferRequest, InferResponse, MessageError};

use crate::{
    Verdict, code, refused,
    world::{self, BUNDLE},
};

/// A request, on the enclave's side.
pub fn request(bytes: &[u8]) -> Verdict {
    let (header_length, body) = message(bytes);
    let request = InferRequest::parse(header_length, body).map_err(framing)?;
    let Framed { header_length, body } = request.to_framed();
    assert_eq!(InferRequest::parse(Some(header_length), &body).ok(), Some(request));
    if cfg!(miri) {
        return Ok(()); // The arithmetic takes minutes there.
    }

    let reply = EVALUATOR.evaluate(request.ciphertext, &mut Scratch::default()).map_err(|error| code!(error))?;
    let rows = u16::from_le_bytes([request.ciphertext[6], request.ciphertext[7]]);
    assert_eq!(reply.len(), BUNDLE.reply_len(rows.into()));
    Ok(())
}

static EVALUATOR: LazyLock<Evaluator> = LazyLock::new(|| Evaluator::new(&BUNDLE));

/// A reply, on the client's side: its receipt, and what it decrypts to.
///
/// The receipt in a seed is for the request of that seed. The key is another one in each process, so what a reply decrypts
/// to says nothing here, and it is decrypted whatever its receipt is: the enclave signs what it likes.
pub fn reply(bytes: &[u8]) -> Verdict {
    let (header_length, body) = message(bytes);
    let reply = InferResponse::parse(header_length, body).map_err(framing)?;
    let Framed { header_length, body } = reply.to_framed();
    assert_eq!(InferResponse::parse(Some(header_length), &body).ok(), Some(reply));
    if cfg!(miri) {
        return Ok(());
    }

    let decrypted = match CLIENT.0.decrypt(&CLIENT.1, reply.ciphertext) {
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
    world::ENCLAVE.check_receipt(reply.receipt, *SENT, received, bundle, parameters).map_err(|error| code!(error))?;
    decrypted
}

/// A session that waits for the reply to a request of one row.
static CLIENT: LazyLock<(Session, Request)> = LazyLock::new(|| {
    let mut session = Session::new(BUNDLE.description());
    let request = session.encrypt(&[[5.1, 3.5, 1.4, 0.2]]).expect("the row is one of Iris");
    (session, request)
});

/// The request for which the receipts in the seeds are.
static SENT: LazyLock<Sha384> = LazyLock::new(|| {
    let (header_length, body) = message(include_bytes!("../corpus/request/valid-iris"));
    Sha384::of(InferRequest::parse(header_length, body).expect("the seed is a request").ciphertext)
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
