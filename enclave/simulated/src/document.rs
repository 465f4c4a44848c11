//! Attestation documents as the NSM writes them, and as it would never write them.
//!
//! A document is kept as encoded pieces, so that [`forge`](crate::forge) can change any one of them.

use cloister_attestation::Timestamp;
use serde::Serialize;
use serde_cbor::Value;

use crate::{Identity, chain::Chain};

/// `{1: -35}`: ES384.
const PROTECTED: [u8; 4] = [0xa1, 0x01, 0x38, 0x22];

/// What the requester chooses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields {
    pub(crate) nonce: Option<Vec<u8>>,
    pub(crate) public_key: Option<Vec<u8>>,
    pub(crate) user_data: Option<Vec<u8>>,
}

/// The payload's map: encoded keys and values, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The entries, encoded.
    pub entries: Vec<(Vec<u8>, Vec<u8>)>,
    /// Written as `bf … ff`, as the NSM does since 2025.
    pub indefinite: bool,
}

impl Payload {
    pub(crate) fn new(identity: &Identity, chain: &Chain, fields: Fields, now: Timestamp) -> Self {
        let Fields { nonce, public_key, user_data } = fields;
        let pcrs = identity.pcrs.iter().map(|(index, pcr)| ((*index).into(), Value::Bytes(pcr.to_vec())));
        let mut payload = Self { entries: Vec::new(), indefinite: true };
        payload.set("module_id", &identity.module_id());
        payload.set("digest", &"SHA384");
        payload.set("timestamp", &now.millis());
        payload.set("pcrs", &Value::Map(pcrs.collect()));
        payload.set("certificate", &Value::Bytes(chain.certificate.clone()));
        payload.set("cabundle", &Value::Array(chain.cabundle.iter().cloned().map(Value::Bytes).collect()));
        payload.set("public_key", &public_key.map(Value::Bytes));
        payload.set("user_data", &user_data.map(Value::Bytes));
        payload.set("nonce", &nonce.map(Value::Bytes));
        payload
    }

    /// Gives `key` another value, in its place if it is there.
    pub fn set(&mut self, key: &str, value: &impl Serialize) {
        self.set_encoded(key, cbor(value));
    }

    /// Gives `key` a value that is already encoded, whatever it is.
    pub fn set_encoded(&mut self, key: &str, value: Vec<u8>) {
        let key = cbor(&key);
        match self.entries.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = value,
            None => self.entries.push((key, value)),
        }
    }

    /// Removes `key`.
    pub fn remove(&mut self, key: &str) {
        let key = cbor(&key);
        self.entries.retain(|(known, _)| *known != key);
    }

    /// Writes `key` with its value once more.
    pub fn repeat(&mut self, key: &str) {
        let key = cbor(&key);
        let entry = self.entries.iter().find(|(known, _)| *known == key).cloned();
        self.entries.extend(entry);
    }

    /// The map.
    pub fn to_cbor(&self) -> Vec<u8> {
        let mut bytes = if self.indefinite { vec![0xbf] } else { head(0xa0, self.entries.len()) };
        for (key, value) in &self.entries {
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(value);
        }
        if self.indefinite {
            bytes.push(0xff);
        }
        bytes
    }
}

/// The four elements of a COSE_Sign1 (RFC 9052 §4.2), encoded.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    pub(crate) protected: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Envelope {
    pub(crate) fn new(payload: &Payload) -> Self {
        Self { protected: PROTECTED.to_vec(), payload: payload.to_cbor() }
    }

    /// Signs over `["Signature1", protected, h'', payload]` (RFC 9052 §4.4).
    pub(crate) fn sign(self, chain: &Chain) -> Vec<Vec<u8>> {
        let Self { protected, payload } = self;
        let context = Value::Text("Signature1".to_owned());
        let [protected, payload] = [protected, payload].map(Value::Bytes);
        let signed = Value::Array(vec![context, protected.clone(), Value::Bytes(Vec::new()), payload.clone()]);
        let signature = chain.sign(&cbor(&signed));
        vec![cbor(&protected), vec![0xa0], cbor(&payload), cbor(&Value::Bytes(signature))]
    }
}

/// An array of encoded elements.
pub(crate) fn array(elements: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = head(0x80, elements.len());
    bytes.extend(elements.iter().flatten());
    bytes
}

/// The head of a short array or map.
fn head(major: u8, length: usize) -> Vec<u8> {
    let length = u8::try_from(length).ok().filter(|length| *length < 24);
    vec![major | length.expect("documents have a handful of entries")]
}

pub(crate) fn cbor(value: &impl Serialize) -> Vec<u8> {
    serde_cbor::to_vec(value).expect("a value in memory always encodes")
}
