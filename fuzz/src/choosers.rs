//! Requests to trees and networks, and their replies. The first byte says to which model, as a URL does.

use std::sync::{LazyLock, Mutex, PoisonError};

use aws_lc_rs::digest;
use cloister_inference::{Bundle, Evaluator, PublicKey, Request, Scratch, Session};
use cloister_wire::error::ErrorCode;

use crate::{Verdict, code, messages::NAMED_KEY};

/// A request, on the enclave's side.
///
/// It is answered under a key of this process, whatever key it names: what a key may be is [`crate::messages::public_key`]'s.
pub fn selection_request(bytes: &[u8]) -> Verdict {
    let (Model { bundle, evaluator, key, .. }, request) = model(bytes)?;
    let asked = evaluator.check(request).map_err(|error| code!(error))?;
    assert_eq!((asked.logits, request.len()), (bundle.logits() as u64, bundle.request_len(1)));

    let mut request = request.to_vec();
    request[NAMED_KEY].copy_from_slice(&key.1);
    let reply = evaluator.evaluate(&request, &key.0, &mut Scratch::default()).expect("the request was checked");
    assert_eq!((&reply[..4], &reply[4..9]), (&b"clrp"[..], &request[4..9]));
    assert_eq!(reply.len(), bundle.reply_len(1));
    Ok(())
}

/// A reply, on the client's side.
///
/// The key is another one in each process, so the bytes are not a reply but what somebody changed of the one that the
/// client waits for: they are added to it, bit by bit. Zeros are the reply itself.
pub fn selection_reply(bytes: &[u8]) -> Verdict {
    let (Model { bundle, client, .. }, changes) = model(bytes)?;
    let Client { session, request, reply, logits } = &mut *client.lock().unwrap_or_else(PoisonError::into_inner);
    let own = reply.iter().copied().chain(std::iter::repeat(0));
    let changed: Vec<u8> = changes.iter().zip(own).map(|(change, own)| change ^ own).collect();
    match session.decrypt(request, &changed) {
        Ok(decrypted) => {
            assert_eq!((decrypted.len(), decrypted[0].len()), (1, bundle.logits()));
            assert!(decrypted[0].iter().all(|logit| logit.is_finite()));
            assert!(changed != *reply || decrypted[0] == *logits);
            Ok(())
        }
        Err(error) => {
            assert!(changed != *reply, "{error}");
            Err(code!(error))
        }
    }
}

/// A model, and somebody who asks it.
struct Model {
    bundle: Bundle,
    evaluator: Evaluator,
    /// A public key, and what requests name it by.
    key: (PublicKey, [u8; NAMED_KEY.end - NAMED_KEY.start]),
    client: Mutex<Client>,
}

/// A session that waits for the reply to a request of one row.
struct Client {
    session: Session,
    request: Request,
    reply: Vec<u8>,
    logits: Vec<f64>,
}

impl Model {
    fn new(bundle: &[u8]) -> Self {
        let bundle = Bundle::from_bytes(bundle).expect("the seed is a bundle");
        let (description, evaluator) = (bundle.description(), Evaluator::new(&bundle));
        let mut session = Session::new(description);
        let key = PublicKey::from_bytes(session.public_key()).expect("a session makes public keys");
        let name = digest::digest(&digest::SHA256, session.public_key());
        let name = *name.as_ref().first_chunk().expect("a digest is longer");
        let row: Vec<f64> = description.features().iter().map(|feature| feature.low).collect();
        let request = session.encrypt(&[row]).expect("the row is within the ranges");
        let reply = evaluator.evaluate(request.bytes(), &key, &mut Scratch::default());
        let reply = reply.expect("the request is for this model");
        let logits = session.decrypt(&request, &reply).expect("the reply is to this request").remove(0);
        Self { evaluator, key: (key, name), client: Mutex::new(Client { session, request, reply, logits }), bundle }
    }
}

/// By their numbers: small ones, so that requests are.
static MODELS: LazyLock<[Model; 3]> = LazyLock::new(|| {
    [
        Model::new(include_bytes!("../corpus/bundle/valid-tree-hidden")),
        Model::new(include_bytes!("../corpus/bundle/valid-tree-public")),
        Model::new(include_bytes!("../corpus/bundle/valid-network")),
    ]
});

/// The model that is meant, and what it is sent.
fn model(bytes: &[u8]) -> Result<(&'static Model, &[u8]), &'static str> {
    let unknown = ErrorCode::UnknownModel.as_str();
    let (&number, bytes) = bytes.split_first().ok_or(unknown)?;
    Ok((MODELS.get(usize::from(number)).ok_or(unknown)?, bytes))
}
