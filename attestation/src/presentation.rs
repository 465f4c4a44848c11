//! A challenge, and the enclave's answer to it.

use aws_lc_rs::rand;
use serde::{Deserialize, Serialize};

use crate::{
    Channel, Refusal, VerificationError,
    cbor::{self, Bytes, Format, VERSION},
};

/// A document, a key and a manifest at their own limits.
const FORMAT: Format = Format { name: "answer to the challenge", limit: 96 * 1024 };

/// Thirty-two bytes that were never used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce(pub [u8; 32]);

impl Nonce {
    /// Random bytes from the operating system.
    pub fn random() -> Self {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).expect("the operating system gives random bytes");
        Self(bytes)
    }
}

/// What a client demands of an enclave, all of it from the client's own side of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// What the client sent.
    pub nonce: Nonce,
    /// The exporter of the client's own TLS session, if it ends in the enclave.
    pub channel: Channel,
    /// The SubjectPublicKeyInfo in the certificate of that session, DER. Not looked at without a channel.
    pub spki: Vec<u8>,
}

/// What an enclave answers to a nonce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presentation {
    /// The attestation document, as the NSM returned it.
    pub document: Vec<u8>,
    /// The key that signs receipts: the SubjectPublicKeyInfo of a P-256 key, DER.
    pub receipt_key: Vec<u8>,
    /// The [`Manifest`](crate::Manifest) in CBOR.
    pub manifest: Vec<u8>,
}

impl Presentation {
    /// Deterministic CBOR: `{v, document, manifest, receipt_key}`.
    pub fn to_cbor(&self) -> Vec<u8> {
        let Self { document, receipt_key, manifest } = self.clone();
        let (document, manifest, receipt_key) = (Bytes(document), Bytes(manifest), Bytes(receipt_key));
        cbor::encode(&Wire { v: VERSION, document, manifest, receipt_key })
    }

    /// Reads what [`to_cbor`](Self::to_cbor) wrote, at most 96 KiB.
    pub fn from_cbor(bytes: &[u8]) -> Result<Self, Refusal> {
        let wire = FORMAT.decode(bytes).map_err(|error| Refusal {
            error: VerificationError::Presentation(error).into(),
            expected: "a document, a receipt key and a manifest".to_owned(),
            passed: Vec::new(),
        })?;
        let Wire { v: _, document, manifest, receipt_key } = wire;
        Ok(Self { document: document.0, receipt_key: receipt_key.0, manifest: manifest.0 })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    v: u64,
    document: Bytes,
    manifest: Bytes,
    receipt_key: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cbor_round_trips() {
        let presentation = Presentation { document: vec![1; 5000], receipt_key: vec![2], manifest: vec![3; 64 * 1024] };
        assert_eq!(Presentation::from_cbor(&presentation.to_cbor()), Ok(presentation));
    }

    #[test]
    fn nonces_differ() {
        assert_ne!(Nonce::random(), Nonce::random());
    }
}
