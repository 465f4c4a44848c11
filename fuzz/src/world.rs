//! The one authority, enclave and client for which the seeds are valid: `examples/seeds.rs` made them together, and forgot
//! every secret key.

use std::sync::LazyLock;

use cloister_attestation::{
    At, Challenge, Channel, Live, Nonce, Policy, Presentation, Timestamp, UnverifiedDocument, VerifiedEnclave,
};
use cloister_inference::Bundle;

/// When everything happens.
pub const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);
/// What the client sent.
pub const NONCE: [u8; 32] = [0x5a; 32];
/// The exporter of the client's session.
pub const EXPORTER: [u8; 32] = [0xe5; 32];
/// The enclave's TLS key, as far as anybody looks at it.
pub const TLS_KEY: &[u8] = b"the SubjectPublicKeyInfo of the enclave's TLS key";

/// Accepts the enclave; its root is the authority's.
pub static POLICY: LazyLock<Policy> =
    LazyLock::new(|| Policy::parse(include_str!("../corpus/policy/valid-world")).expect("the seed is a policy"));

/// What the enclave answered to the [`challenge`].
pub static PRESENTATION: LazyLock<Presentation> = LazyLock::new(|| {
    Presentation::from_cbor(include_bytes!("../corpus/presentation/valid-answer")).expect("the seed is a presentation")
});

/// The model that it serves.
pub static BUNDLE: LazyLock<Bundle> =
    LazyLock::new(|| Bundle::from_bytes(include_bytes!("../corpus/bundle/valid-iris")).expect("the seed is a bundle"));

/// Everything that the authority signed.
const DOCUMENTS: [&[u8]; 6] = [
    include_bytes!("../corpus/document/valid-answer"),
    include_bytes!("../corpus/document/valid-definite"),
    include_bytes!("../corpus/document/valid-empty-fields"),
    include_bytes!("../corpus/document/valid-null-fields"),
    include_bytes!("../corpus/document/valid-reordered"),
    include_bytes!("../corpus/document/valid-longest-fields"),
];

/// Everything that the enclave signed.
const RECEIPTS: [&[u8]; 2] =
    [include_bytes!("../corpus/receipt/valid-iris"), include_bytes!("../corpus/receipt/valid-another-request")];

/// What the client demands.
pub fn challenge() -> Challenge {
    Challenge { nonce: Nonce(NONCE), channel: Channel::TlsExporter(EXPORTER), spki: TLS_KEY.to_vec() }
}

/// The enclave, after the client verified it.
pub static ENCLAVE: LazyLock<VerifiedEnclave> = LazyLock::new(|| {
    let document = UnverifiedDocument::parse(&PRESENTATION.document).expect("the seed is a document");
    let document = document.authenticate(POLICY.root(), At::<Live>::now(NOW)).expect("the authority signed it");
    let fresh = document.answers(&challenge(), &PRESENTATION).expect("it was made for this challenge");
    fresh.require(&POLICY, NOW).expect("the policy was made for this enclave")
});

/// Whether the authority signed `document`, with or without tag 18.
pub fn is_document(document: &[u8]) -> bool {
    let untagged = document.strip_prefix(&[0xd2]).unwrap_or(document);
    DOCUMENTS.iter().any(|seed| differ_in_signature_only(seed, untagged, 96))
}

/// Whether the enclave signed `receipt`.
pub fn is_receipt(receipt: &[u8]) -> bool {
    RECEIPTS.iter().any(|seed| differ_in_signature_only(seed, receipt, 64))
}

/// From an ECDSA signature (r, s) anybody makes (r, −s), which is as valid: so much may differ, and nothing else.
fn differ_in_signature_only(seed: &[u8], bytes: &[u8], signature: usize) -> bool {
    seed.len() == bytes.len() && seed[..seed.len() - signature] == bytes[..bytes.len() - signature]
}
