//! COSE_Sign1 (RFC 9052 §4.2), in exactly one encoding.

use coset::{CborSerializable, CoseSign1, CoseSign1Builder, Header, ProtectedHeader, cbor::Value};

use crate::foreign::foreign;

/// A signature algorithm, by the whole protected header that announces it and the length of `r ‖ s`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Algorithm {
    protected: &'static [u8],
    signature_length: usize,
}

/// ES384: `{1: -35}`, what the NSM signs with.
pub(crate) const ES384: Algorithm = Algorithm { protected: &[0xa1, 0x01, 0x38, 0x22], signature_length: 96 };

/// ES256: `{1: -7}`, what receipts are signed with.
pub(crate) const ES256: Algorithm = Algorithm { protected: &[0xa1, 0x01, 0x26], signature_length: 64 };

impl Algorithm {
    fn differs(&self, protected: &[u8]) -> CoseError {
        CoseError::Protected { expected: hex::encode(self.protected), actual: hex::encode(protected) }
    }
}

/// The parts of a COSE_Sign1 that a verifier needs.
#[derive(Clone, Debug)]
pub(crate) struct Sign1 {
    pub(crate) payload: Vec<u8>,
    /// The `Sig_structure` (RFC 9052 §4.4), over which the signature is.
    pub(crate) signed: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

impl Sign1 {
    /// Reads an untagged COSE_Sign1 that announces `algorithm` and nothing else.
    ///
    /// The parser alone accepts an indefinite or non-minimal outer array, chunked strings, any unprotected header, a nil
    /// payload and any algorithm; comparing with the re-encoding, and each part with what it must be, refuses them all.
    pub(crate) fn parse(bytes: &[u8], algorithm: Algorithm) -> Result<Self, CoseError> {
        // 2.2
        let sign1 = CoseSign1::from_slice(bytes).map_err(|error| unreadable(error, bytes, algorithm))?;
        // 2.3
        if !sign1.clone().to_vec().is_ok_and(|encoded| encoded == bytes) {
            return Err(CoseError::NotCanonical);
        }
        let signed = sign1.tbs_data(&[]);
        let CoseSign1 { protected, unprotected, payload, signature } = sign1;

        // 2.4
        let protected = protected.original_data.unwrap_or_default();
        if protected != algorithm.protected {
            return Err(algorithm.differs(&protected));
        }
        // 2.5
        if unprotected != Header::default() {
            return Err(CoseError::Unprotected);
        }
        // 2.6
        let payload = payload.ok_or(CoseError::NoPayload)?;
        // 2.7
        if signature.len() != algorithm.signature_length {
            return Err(CoseError::SignatureLength { expected: algorithm.signature_length, actual: signature.len() });
        }
        Ok(Self { payload, signed, signature })
    }

    /// Writes what [`parse`](Self::parse) reads.
    pub(crate) fn sign(payload: Vec<u8>, algorithm: Algorithm, signer: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let mut sign1 = CoseSign1Builder::new().payload(payload).build();
        sign1.protected =
            ProtectedHeader { original_data: Some(algorithm.protected.to_vec()), header: Header::default() };
        sign1.signature = signer(&sign1.tbs_data(&[]));
        sign1.to_vec().expect("an array of byte strings and an empty map always encodes")
    }
}

fn unreadable(error: coset::CoseError, bytes: &[u8], algorithm: Algorithm) -> CoseError {
    CoseError::Malformed(match error {
        coset::CoseError::DecodeFailed(_) => "no CBOR, or it ends too early".to_owned(),
        // An algorithm without a name, such as the -1 of an NSM that does not sign: the parser fails, 2.4 has a better reason.
        coset::CoseError::UnregisteredIanaValue | coset::CoseError::UnregisteredIanaNonPrivateValue => {
            match protected_header(bytes) {
                Some(protected) if protected != algorithm.protected => return algorithm.differs(&protected),
                _ => foreign(&error.to_string()),
            }
        }
        other => foreign(&other.to_string()),
    })
}

/// The first element of an array, if it is a byte string.
fn protected_header(bytes: &[u8]) -> Option<Vec<u8>> {
    let elements = Value::from_slice(bytes).ok()?.into_array().ok()?;
    elements.into_iter().next()?.into_bytes().ok()
}

/// Bytes are not the COSE_Sign1 that was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CoseError {
    /// Not a COSE_Sign1: a four-element array of two headers, payload and signature.
    #[error("not a COSE_Sign1: {0}")]
    Malformed(String),
    /// Readable, yet encoded in another way than the one that is accepted.
    #[error("the COSE_Sign1 is not in its shortest, definite-length encoding")]
    NotCanonical,
    /// Another algorithm, or more in the protected header than the algorithm.
    #[error("the protected header is {actual}, expected {expected}")]
    Protected {
        /// The only accepted header, in hexadecimal.
        expected: String,
        /// The header found, in hexadecimal.
        actual: String,
    },
    /// Something in the unprotected header, which nobody signed.
    #[error("the unprotected header is not empty")]
    Unprotected,
    /// The payload is absent.
    #[error("there is no payload")]
    NoPayload,
    /// A signature of another length than `r ‖ s`.
    #[error("the signature has {actual} bytes, expected {expected}")]
    SignatureLength {
        /// The length of `r ‖ s`.
        expected: usize,
        /// The length found.
        actual: usize,
    },
}

impl CoseError {
    /// A stable identifier for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed_cose",
            Self::NotCanonical => "non_canonical_cose",
            Self::Protected { .. } => "protected_header",
            Self::Unprotected => "unprotected_header",
            Self::NoPayload => "no_payload",
            Self::SignatureLength { .. } => "signature_length",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(algorithm: Algorithm) -> Vec<u8> {
        Sign1::sign(b"payload".to_vec(), algorithm, |_| vec![7; algorithm.signature_length])
    }

    #[test]
    fn what_is_written_is_read() {
        for algorithm in [ES384, ES256] {
            let sign1 = Sign1::parse(&signed(algorithm), algorithm).unwrap();
            assert_eq!(sign1.payload, b"payload");
            assert_eq!(sign1.signature, vec![7; algorithm.signature_length]);
        }
    }

    #[test]
    fn the_signed_bytes_are_those_of_rfc_9052() {
        let sign1 = Sign1::parse(&signed(ES256), ES256).unwrap();
        assert_eq!(sign1.signed, b"\x84\x6aSignature1\x43\xa1\x01\x26\x40\x47payload");
    }

    #[test]
    fn another_algorithm_is_refused() {
        assert_eq!(
            Sign1::parse(&signed(ES256), ES384).unwrap_err(),
            CoseError::Protected { expected: "a1013822".to_owned(), actual: "a10126".to_owned() }
        );
        // -1, which no registry has: what QEMU's NSM writes, which does not sign.
        let unsigned = Algorithm { protected: &[0xa1, 0x01, 0x20], signature_length: 64 };
        assert_eq!(
            Sign1::parse(&signed(unsigned), ES384).unwrap_err(),
            CoseError::Protected { expected: "a1013822".to_owned(), actual: "a10120".to_owned() }
        );
    }
}
