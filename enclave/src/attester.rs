//! What signs attestation documents.

/// Signs attestation documents about the enclave this program runs in.
///
/// Calls may block: the NSM serves one request at a time. Callers run them off the async executor.
pub trait Attester: Send + Sync + 'static {
    /// The module id that documents of this attester carry, `i-…-enc…`.
    fn module_id(&self) -> &str;

    /// A fresh COSE_Sign1 attestation document over `claims`.
    fn attest(&self, claims: &Claims<'_>) -> Result<Vec<u8>, AttestError>;
}

/// The three fields of an attestation document that its requester chooses.
///
/// At most 512 bytes each for `nonce` and `user_data`, 1024 for `public_key`: the NSM API's limits.
#[derive(Clone, Copy, Debug)]
pub struct Claims<'a> {
    /// The verifier's challenge.
    pub nonce: &'a [u8],
    /// The TLS SubjectPublicKeyInfo, DER.
    pub public_key: &'a [u8],
    /// The commitment to the statement.
    pub user_data: &'a [u8],
}

/// The attester gave no document.
#[derive(Debug, thiserror::Error)]
#[error("the attester gave no document: {0}")]
pub struct AttestError(pub String);
