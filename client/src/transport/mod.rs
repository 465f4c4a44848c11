//! What carries nonces, questions and requests to an evaluator. Nothing is trusted here: what a transport brings back is judged by
//! [`crate::connection`].

mod objects;
mod relayed;
mod sagemaker;
mod session;

use std::time::Duration;

use bytes::Bytes;
use cloister_attestation::{Channel, ManifestModel};
use cloister_wire::{error::ErrorBody, limits::REQUEST_DEADLINE, oip::Framed};
use hyper::{
    StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};

pub(crate) use self::{objects::Objects, relayed::Relayed, session::Session};
use crate::Error;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The service's own deadline, and time for the network.
const ANSWER_TIMEOUT: Duration = REQUEST_DEADLINE.saturating_add(Duration::from_secs(20));

/// Nobody is asked for more patience than that.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// A way to an evaluator.
#[derive(Debug)]
pub(crate) enum Transport {
    /// TLS to whoever answers; attestation says whether that is the enclave.
    Session(Session),
    /// Through somebody who ends TLS, and whom nobody attests.
    Relayed(Relayed),
}

/// A successful answer to an inference request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) header_length: Option<usize>,
    pub(crate) body: Bytes,
}

impl Transport {
    /// This session's exporter, as we computed it, if there is a session.
    pub(crate) fn channel(&self) -> Channel {
        match self {
            Self::Session(session) => session.channel(),
            Self::Relayed(_) => Channel::None,
        }
    }

    /// The key that signed this session's handshake; none was seen if there is no session.
    pub(crate) fn spki(&self) -> &[u8] {
        match self {
            Self::Session(session) => session.spki(),
            Self::Relayed(_) => &[],
        }
    }

    /// The presentation for a nonce.
    pub(crate) async fn present(&mut self, nonce: &[u8]) -> Result<Bytes, Error> {
        match self {
            Self::Session(session) => session.present(nonce).await,
            Self::Relayed(relayed) => relayed.present(nonce).await,
        }
    }

    /// The metadata of a model.
    pub(crate) async fn describe(&mut self, model: &ManifestModel) -> Result<Bytes, Error> {
        match self {
            Self::Session(session) => session.describe(model).await,
            Self::Relayed(relayed) => relayed.describe(model).await,
        }
    }

    /// The answer to an inference request.
    pub(crate) async fn infer(&mut self, model: &ManifestModel, request: Framed) -> Result<Answer, Error> {
        match self {
            Self::Session(session) => session.infer(model, request).await,
            Self::Relayed(relayed) => relayed.infer(model, request.body.into()).await,
        }
    }
}

/// A refusal in the protocol's form, or whatever answered instead.
fn refusal(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Error {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(ErrorBody { error, code }) => Error::Refused { code, message: printable(&error), retry_after },
        Err(_) => Error::BadAnswer { reason: format!("HTTP status {status} without a Cloister error") },
    }
}

/// Seconds only: nobody here sends dates (RFC 9110 §10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

/// A peer's text without control characters, so that it cannot steer a terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}
