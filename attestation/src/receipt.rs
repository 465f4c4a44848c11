//! Receipts: what an enclave signs for every answer it gives.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    CoseError, FormatError, ReceiptKey, ReceiptPublicKey, Sha384, Timestamp,
    cbor::{self, Format, VERSION},
    cose::{ES256, Sign1},
    document::MAX_AGE,
    foreign::foreign,
    time::spoken,
};

/// Separates receipts from everything else that is ever signed.
const DOMAIN: &str = "cloister/receipt";

const FORMAT: Format = Format { name: "receipt", limit: 2048 };

/// A receipt younger than its document by more than this is refused: the enclave takes a new document every few minutes,
/// and its own clock is trusted no longer than that.
const MAX_DELAY: Duration = Duration::from_secs(60 * 60);

/// One answer: which request, which response, by which model, when.
///
/// The digests are over the ciphertext messages, so they survive gateways and storage. A receipt does not prove that the
/// data was true, who asked, or that no other answer was given.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Receipt {
    /// The digest of the request.
    pub request: Sha384,
    /// The digest of the response.
    pub response: Sha384,
    /// The digest of the model's bundle.
    pub bundle: Sha384,
    /// The name of the encryption parameters.
    pub parameters: String,
    /// The enclave.
    pub module_id: String,
    /// The enclave's time: that of its last document and the monotonic time since.
    pub time: Timestamp,
}

impl Receipt {
    /// Signs it: a COSE_Sign1 with ES256 over the deterministic CBOR map
    /// `{v, time, bundle, domain, request, response, module_id, parameters}`.
    pub fn sign(&self, key: &ReceiptKey) -> Vec<u8> {
        let Self { request, response, bundle, parameters, module_id, time } = self.clone();
        let wire =
            Wire { v: VERSION, time, bundle, domain: DOMAIN.to_owned(), request, response, module_id, parameters };
        Sign1::sign(cbor::encode(&wire), ES256, |message| key.sign(message))
    }

    fn from_payload(payload: &[u8]) -> Result<Self, FormatError> {
        let Wire { v: _, time, bundle, domain, request, response, module_id, parameters } = FORMAT.decode(payload)?;
        if domain != DOMAIN {
            return Err(FORMAT.malformed(format_args!("its domain is `{domain}`, expected `{DOMAIN}`")));
        }
        Ok(Self { request, response, bundle, parameters, module_id, time })
    }

    /// Requires that the enclave `module_id` signed it within the hour after `document`.
    pub(crate) fn check_origin(&self, module_id: &str, document: Timestamp) -> Result<(), ReceiptError> {
        // R.4
        if self.module_id != module_id {
            let (expected, actual) = (module_id.to_owned(), self.module_id.clone());
            return Err(ReceiptError::ModuleIdMismatch { expected, actual });
        }
        // R.5
        if self.time < document {
            return Err(ReceiptError::BeforeDocument { receipt: self.time, document });
        }
        let latest = document.plus(MAX_DELAY);
        if self.time > latest {
            return Err(ReceiptError::LongAfterDocument { receipt: self.time, document, latest });
        }
        Ok(())
    }

    /// Requires that it was not signed after `now`, but for the distance that clocks may have.
    pub(crate) fn check_past(&self, now: Timestamp) -> Result<(), ReceiptError> {
        // R.6
        if self.time > now.plus(MAX_AGE) {
            return Err(ReceiptError::InFuture { receipt: self.time, now, leeway: MAX_AGE });
        }
        Ok(())
    }
}

impl ReceiptPublicKey {
    /// Reads a receipt that this key signed, at most 4 KiB.
    ///
    /// It says nothing yet about the answer in hand: compare it, or use
    /// [`VerifiedEnclave::check_receipt`](crate::VerifiedEnclave::check_receipt), which does.
    pub fn verify(&self, receipt: &[u8]) -> Result<Receipt, ReceiptError> {
        // R.1
        let limit = 2 * FORMAT.limit;
        if receipt.len() > limit {
            return Err(FormatError::TooLarge { format: FORMAT.name, limit, actual: receipt.len() }.into());
        }
        let Sign1 { payload, signed, signature } = Sign1::parse(receipt, ES256)?;
        // R.2
        if !self.signed(&signed, &signature) {
            return Err(ReceiptError::Signature);
        }
        Ok(Receipt::from_payload(&payload)?)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    v: u64,
    time: Timestamp,
    bundle: Sha384,
    domain: String,
    request: Sha384,
    response: Sha384,
    module_id: String,
    parameters: String,
}

/// A receipt is not for this answer, or not by this enclave.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// Not a COSE_Sign1 with ES256.
    #[error("the receipt is malformed: {0}")]
    Cose(#[from] CoseError),
    /// Not the payload of a receipt.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Signed by another key, or changed since.
    #[error("the receipt is not signed by the enclave's receipt key")]
    Signature,
    /// For another request.
    #[error("the receipt is for another request\n  expected {expected}\n  actual   {actual}")]
    RequestMismatch {
        /// The digest of the request that was sent.
        expected: Sha384,
        /// The digest in the receipt.
        actual: Sha384,
    },
    /// For another response.
    #[error("the receipt is for another response\n  expected {expected}\n  actual   {actual}")]
    ResponseMismatch {
        /// The digest of the response that arrived.
        expected: Sha384,
        /// The digest in the receipt.
        actual: Sha384,
    },
    /// By another model.
    #[error("the receipt is for another model\n  expected {expected}\n  actual   {actual}")]
    BundleMismatch {
        /// The digest of the bundle that was asked for.
        expected: Sha384,
        /// The digest in the receipt.
        actual: Sha384,
    },
    /// Under other encryption parameters.
    #[error("the receipt is for the parameters `{}`, expected `{expected}`", foreign(actual))]
    ParametersMismatch {
        /// The parameters that were used.
        expected: String,
        /// The parameters in the receipt.
        actual: String,
    },
    /// By another enclave.
    #[error("the receipt is by the enclave `{}`, expected `{expected}`", foreign(actual))]
    ModuleIdMismatch {
        /// The module id of the document.
        expected: String,
        /// The module id in the receipt.
        actual: String,
    },
    /// Older than the document that vouches for its key.
    #[error("the receipt was signed at {receipt}, before its document was made at {document}")]
    BeforeDocument {
        /// The receipt's time.
        receipt: Timestamp,
        /// The document's time.
        document: Timestamp,
    },
    /// Signed later than now.
    #[error(
        "the receipt was signed at {receipt}, {} after {now}, the time on this machine (at most {} are allowed)",
        spoken(receipt.since(*now)),
        spoken(*leeway)
    )]
    InFuture {
        /// The receipt's time.
        receipt: Timestamp,
        /// The verifier's clock.
        now: Timestamp,
        /// The difference allowed.
        leeway: Duration,
    },
    /// Too long after the document that vouches for its key.
    #[error("the receipt was signed at {receipt}; with a document made at {document} it has to be by {latest}")]
    LongAfterDocument {
        /// The receipt's time.
        receipt: Timestamp,
        /// The document's time.
        document: Timestamp,
        /// The latest time allowed.
        latest: Timestamp,
    },
}

impl ReceiptError {
    /// A stable identifier for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Cose(_) | Self::Format(_) => "receipt_malformed",
            Self::Signature => "receipt_signature_invalid",
            Self::RequestMismatch { .. } => "request_mismatch",
            Self::ResponseMismatch { .. } => "response_mismatch",
            Self::BundleMismatch { .. } => "bundle_mismatch",
            Self::ParametersMismatch { .. } => "parameters_mismatch",
            Self::ModuleIdMismatch { .. } => "module_id_mismatch",
            Self::BeforeDocument { .. } => "receipt_before_document",
            Self::InFuture { .. } => "receipt_in_future",
            Self::LongAfterDocument { .. } => "receipt_long_after_document",
        }
    }

    /// What a person does about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Format(error) => return error.remedy(),
            Self::BeforeDocument { .. } | Self::LongAfterDocument { .. } => {
                "Attest the enclave again and repeat the request; if it happens twice, report it to its operator."
            }
            Self::InFuture { .. } => "Check this machine's clock: it is almost certainly slow.",
            _ => {
                "Do not use the answer: nothing shows that the enclave you verified gave it. Repeat the request; if it \
                 happens twice, something between you and the enclave changes answers."
            }
        }
        .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt() -> Receipt {
        Receipt {
            request: Sha384([1; 48]),
            response: Sha384([2; 48]),
            bundle: Sha384([3; 48]),
            parameters: "n2048-tuniform17".to_owned(),
            module_id: "i-1-enc2".to_owned(),
            time: Timestamp::from_millis(1_766_668_537_578),
        }
    }

    fn public(key: &ReceiptKey) -> ReceiptPublicKey {
        ReceiptPublicKey::from_spki(key.public_key()).unwrap()
    }

    #[test]
    fn a_receipt_over_4_kib() {
        let key = ReceiptPublicKey::from_spki(ReceiptKey::generate().public_key()).unwrap();
        let too_large = FormatError::TooLarge { format: "receipt", limit: 4096, actual: 4097 };
        assert_eq!(key.verify(&[0; 4097]), Err(ReceiptError::Format(too_large)));
    }

    #[test]
    fn what_is_signed_is_read() {
        let key = ReceiptKey::generate();
        assert_eq!(public(&key).verify(&receipt().sign(&key)), Ok(receipt()));
    }

    #[test]
    fn no_changed_bit_is_accepted() {
        let key = ReceiptKey::generate();
        let public = public(&key);
        let signed = receipt().sign(&key);
        for bit in 0..8 * signed.len() {
            let mut changed = signed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(public.verify(&changed).is_err(), "bit {bit}");
        }
        for length in 0..signed.len() {
            assert!(public.verify(&signed[..length]).is_err(), "length {length}");
        }
    }

    #[test]
    fn another_key_is_refused() {
        let signed = receipt().sign(&ReceiptKey::generate());
        assert_eq!(public(&ReceiptKey::generate()).verify(&signed), Err(ReceiptError::Signature));
    }

    #[test]
    fn a_signed_payload_of_another_domain_or_version_is_refused() {
        let key = ReceiptKey::generate();
        let Receipt { request, response, bundle, parameters, module_id, time } = receipt();
        let domain = "cloister/attestation".to_owned();
        let mut wire = Wire { v: 1, time, bundle, domain, request, response, module_id, parameters };
        let sign = |wire: &Wire| Sign1::sign(cbor::encode(wire), ES256, |message| key.sign(message));

        let refused = public(&key).verify(&sign(&wire)).unwrap_err();
        assert!(matches!(refused, ReceiptError::Format(FormatError::Malformed { .. })), "{refused}");
        (wire.v, wire.domain) = (2, DOMAIN.to_owned());
        let refused = public(&key).verify(&sign(&wire)).unwrap_err();
        assert_eq!(refused, ReceiptError::Format(FormatError::Newer { format: "receipt", version: 2 }));
    }

    #[test]
    fn the_time_is_within_the_hour_after_the_document() {
        let receipt = receipt();
        let check = |document| receipt.check_origin("i-1-enc2", document);
        assert_eq!(check(receipt.time), Ok(()));
        assert_eq!(check(receipt.time.minus(MAX_DELAY)), Ok(()));
        let later = receipt.time.plus(Duration::from_millis(1));
        assert_eq!(check(later), Err(ReceiptError::BeforeDocument { receipt: receipt.time, document: later }));
        let earlier = receipt.time.minus(MAX_DELAY).minus(Duration::from_millis(1));
        let latest = earlier.plus(MAX_DELAY);
        let expected = ReceiptError::LongAfterDocument { receipt: receipt.time, document: earlier, latest };
        assert_eq!(check(earlier), Err(expected));
    }
}
