//! Why a document, or the enclave behind it, was not accepted.

use std::time::Duration;

use crate::{
    CertificateError, CoseError, FormatError, Link, PayloadError, ReceiptKeyError, Step, StepReport, Timestamp,
    foreign::foreign, root::is_simulated, time::spoken,
};

/// Verification ended at a step: why, what would have passed, and which steps were passed before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Refusal {
    /// The reason.
    pub error: Box<VerificationError>,
    /// What passes the step that failed.
    pub expected: String,
    /// The steps before it, and what was found in each.
    pub passed: Vec<StepReport>,
}

impl Refusal {
    /// The step that failed.
    pub fn step(&self) -> Step {
        self.error.step()
    }

    /// A stable identifier for programs.
    pub fn code(&self) -> &'static str {
        self.error.code()
    }

    /// What a person does about it.
    pub fn remedy(&self) -> String {
        self.error.remedy()
    }
}

impl From<Refusal> for VerificationError {
    fn from(refusal: Refusal) -> Self {
        *refusal.error
    }
}

/// The reason of the first step that failed, with both sides of the comparison.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerificationError {
    /// Not what an enclave answers to a challenge.
    #[error(transparent)]
    Presentation(FormatError),
    /// More bytes than any document has.
    #[error("the document has {actual} bytes, at most {limit} are allowed")]
    TooLarge {
        /// The most bytes allowed.
        limit: usize,
        /// The bytes found.
        actual: usize,
    },
    /// Not the COSE_Sign1 that the NSM writes.
    #[error(transparent)]
    Cose(#[from] CoseError),
    /// Not the payload that the NSM writes.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// Signed under another root than the expected one.
    #[error("{}\n  expected root {expected}\n  actual root   {actual}", roots(expected, actual))]
    RootMismatch {
        /// SHA-256 of the expected root certificate.
        expected: String,
        /// SHA-256 of the root certificate that the document brought.
        actual: String,
    },
    /// Not the certificates of a Nitro Enclave.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// No valid path from the leaf to the root.
    #[error("the certificates form no valid path to the root: {reason}")]
    Chain {
        /// What path validation found.
        reason: String,
    },
    /// A certificate had expired when the document says it was made.
    #[error("the {link} certificate expired at {not_after}, before the document was made at {document}")]
    CertificateExpired {
        /// The certificate.
        link: Link,
        /// The document's own time.
        document: Timestamp,
        /// The end of the certificate's validity.
        not_after: Timestamp,
    },
    /// A certificate was not valid yet when the document says it was made.
    #[error("the {link} certificate is valid from {not_before}, after the document was made at {document}")]
    CertificateNotYetValid {
        /// The certificate.
        link: Link,
        /// The document's own time.
        document: Timestamp,
        /// The beginning of the certificate's validity.
        not_before: Timestamp,
    },
    /// The leaf's key did not sign this payload.
    #[error("the document's signature is not by the key of its leaf certificate")]
    Signature,
    /// Older than a fresh document can be.
    #[error(
        "the document is too old: made at {document}, {} before {now}, the time on this machine (at most {} are allowed)",
        spoken(now.since(*document)),
        spoken(*max_age)
    )]
    DocumentTooOld {
        /// The verifier's clock.
        now: Timestamp,
        /// The document's time.
        document: Timestamp,
        /// The age allowed.
        max_age: Duration,
    },
    /// Made later than now.
    #[error(
        "the document is from the future: made at {document}, {} after {now}, the time on this machine (at most {} are \
         allowed)",
        spoken(document.since(*now)),
        spoken(*leeway)
    )]
    DocumentInFuture {
        /// The verifier's clock.
        now: Timestamp,
        /// The document's time.
        document: Timestamp,
        /// The difference allowed.
        leeway: Duration,
    },
    /// PCR0, 1 or 2 is zero.
    #[error("the enclave runs in debug mode: PCR{index} is all zeros, so nothing says which program it runs")]
    DebugMode {
        /// The first register that is zero.
        index: u8,
    },
    /// A register that is needed is absent.
    #[error("the document has no PCR{index}")]
    PcrMissing {
        /// The register.
        index: u8,
    },
    /// Not an answer to this challenge.
    #[error("the document answers another challenge\n  expected nonce {expected}\n  actual nonce   {actual}")]
    NonceMismatch {
        /// The nonce that was sent, in hexadecimal.
        expected: String,
        /// The nonce in the document, in hexadecimal.
        actual: String,
    },
    /// The connection ends at another key.
    #[error(
        "the enclave vouches for another TLS key than the expected one\n  expected {expected}\n  \
         actual   {actual}"
    )]
    PublicKeyMismatch {
        /// The SubjectPublicKeyInfo that the connection showed, in hexadecimal.
        expected: String,
        /// The key in the document, in hexadecimal.
        actual: String,
    },
    /// Another session, receipt key or manifest than the enclave vouches for.
    #[error(
        "the enclave does not vouch for this very session, receipt key and list of models\n  expected user_data {expected}\n  \
         actual user_data   {actual}"
    )]
    StatementMismatch {
        /// The commitment to the statement, in hexadecimal.
        expected: String,
        /// The commitment in the document, in hexadecimal.
        actual: String,
    },
    /// The manifest that the enclave vouches for cannot be read.
    #[error(transparent)]
    Manifest(FormatError),
    /// The receipt key that the enclave vouches for is none.
    #[error(transparent)]
    ReceiptKey(ReceiptKeyError),
    /// The policy is out of date.
    #[error("the policy expired at {expires}; the time on this machine is {now}")]
    PolicyExpired {
        /// The verifier's clock.
        now: Timestamp,
        /// The policy's expiry.
        expires: Timestamp,
    },
    /// The policy accepts nothing.
    #[error("the policy lists no release, so it accepts no enclave")]
    EmptyPolicy,
    /// The enclave runs what its publisher withdrew.
    #[error("release `{release}` is revoked: {reason}")]
    ReleaseRevoked {
        /// The release that the enclave runs.
        release: String,
        /// The publisher's reason.
        reason: String,
    },
    /// The enclave runs a release whose time is over.
    #[error("release `{release}` was accepted until {not_after}; the document was made at {document}")]
    ReleaseEnded {
        /// The release that the enclave runs.
        release: String,
        /// The document's time.
        document: Timestamp,
        /// The release's end.
        not_after: Timestamp,
    },
    /// The enclave runs no release of the policy.
    #[error(
        "no release of the policy has these measurements: PCR{index} differs from the nearest, `{release}`\n  expected {expected}\n  \
         actual   {actual}"
    )]
    PcrMismatch {
        /// The first register that differs.
        index: u8,
        /// The release that shares most registers, else the first.
        release: String,
        /// The release's register, in hexadecimal.
        expected: String,
        /// The document's register, in hexadecimal.
        actual: String,
        /// PCR0, 1 and 2 of the document.
        measured: Box<[[u8; 48]; 3]>,
    },
    /// A register differs from the policy's pin.
    #[error("PCR{index} differs from the policy's pin\n  expected {expected}\n  actual   {actual}")]
    PinnedPcrMismatch {
        /// The register.
        index: u8,
        /// The pin, in hexadecimal.
        expected: String,
        /// The document's register, in hexadecimal.
        actual: String,
    },
    /// Another enclave than the pinned one.
    #[error("the policy pins the module id `{expected}`, the document is of `{}`", foreign(actual))]
    PinnedModuleIdMismatch {
        /// The pin.
        expected: String,
        /// The document's module id.
        actual: String,
    },
    /// Another region than the pinned one.
    #[error("the policy pins the region `{expected}`, the document is from `{}`", foreign(actual))]
    PinnedRegionMismatch {
        /// The pin.
        expected: String,
        /// The region in the leaf's name.
        actual: String,
    },
    /// Older than this very policy allows.
    #[error(
        "the document is too old for the policy: made at {document}, {} before {now}, the time on this machine (the policy \
         allows {})",
        spoken(now.since(*document)),
        spoken(*max_age)
    )]
    OlderThanPolicyAllows {
        /// The verifier's clock.
        now: Timestamp,
        /// The document's time.
        document: Timestamp,
        /// The policy's `max_age`.
        max_age: Duration,
    },
    /// TLS ends before the enclave, and the policy does not allow that.
    #[error("TLS ends before the enclave, but the policy says channel = \"required\"")]
    ChannelRequired,
}

impl VerificationError {
    /// The step that failed.
    pub fn step(&self) -> Step {
        match self {
            Self::Presentation(_) | Self::TooLarge { .. } => Step::Size,
            Self::Cose(_) => Step::Cose,
            Self::Payload(_) => Step::Payload,
            Self::RootMismatch { .. } | Self::Certificate(_) => Step::Certificates,
            Self::Chain { .. } | Self::CertificateExpired { .. } | Self::CertificateNotYetValid { .. } => Step::Chain,
            Self::Signature => Step::Signature,
            Self::DocumentTooOld { .. } | Self::DocumentInFuture { .. } => Step::Time,
            Self::DebugMode { .. } | Self::PcrMissing { .. } => Step::Debug,
            Self::NonceMismatch { .. } => Step::Nonce,
            Self::PublicKeyMismatch { .. } => Step::PublicKey,
            Self::StatementMismatch { .. } | Self::Manifest(_) | Self::ReceiptKey(_) => Step::Statement,
            Self::PolicyExpired { .. }
            | Self::EmptyPolicy
            | Self::ReleaseRevoked { .. }
            | Self::ReleaseEnded { .. }
            | Self::PcrMismatch { .. }
            | Self::PinnedPcrMismatch { .. }
            | Self::PinnedModuleIdMismatch { .. }
            | Self::PinnedRegionMismatch { .. }
            | Self::OlderThanPolicyAllows { .. }
            | Self::ChannelRequired => Step::Policy,
        }
    }

    /// A stable identifier for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Presentation(_) => "presentation_malformed",
            Self::TooLarge { .. } => "document_too_large",
            Self::Cose(error) => error.code(),
            Self::Payload(error) => error.code(),
            Self::RootMismatch { .. } => "root_mismatch",
            Self::Certificate(error) => error.code(),
            Self::Chain { .. } => "chain_invalid",
            Self::CertificateExpired { .. } => "certificate_expired",
            Self::CertificateNotYetValid { .. } => "certificate_not_yet_valid",
            Self::Signature => "signature_invalid",
            Self::DocumentTooOld { .. } => "document_too_old",
            Self::DocumentInFuture { .. } => "clock_or_document_in_future",
            Self::DebugMode { .. } => "debug_mode",
            Self::PcrMissing { .. } => "pcr_missing",
            Self::NonceMismatch { .. } => "nonce_mismatch",
            Self::PublicKeyMismatch { .. } => "public_key_mismatch",
            Self::StatementMismatch { .. } => "statement_mismatch",
            Self::Manifest(_) => "manifest_invalid",
            Self::ReceiptKey(_) => "receipt_key_invalid",
            Self::PolicyExpired { .. } => "policy_expired",
            Self::EmptyPolicy => "empty_policy",
            Self::ReleaseRevoked { .. } => "release_revoked",
            Self::ReleaseEnded { .. } => "release_ended",
            Self::PcrMismatch { .. } => "pcr_mismatch",
            Self::PinnedPcrMismatch { .. } => "pinned_pcr_mismatch",
            Self::PinnedModuleIdMismatch { .. } => "pinned_module_id_mismatch",
            Self::PinnedRegionMismatch { .. } => "pinned_region_mismatch",
            Self::OlderThanPolicyAllows { .. } => "document_older_than_policy",
            Self::ChannelRequired => "channel_required",
        }
    }

    /// What a person does about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::RootMismatch { expected, actual } => root_remedy(expected, actual),
            Self::Presentation(error) | Self::Manifest(error) => return error.remedy(),
            Self::TooLarge { .. } | Self::Cose(_) | Self::Payload(_) => {
                "This is not an attestation document as the Nitro Secure Module writes it. Check that you reach the service \
                 you meant, or that the file is the raw document: binary, not base64 or hexadecimal."
            }
            Self::Certificate(_)
            | Self::Chain { .. }
            | Self::CertificateExpired { .. }
            | Self::CertificateNotYetValid { .. }
            | Self::Signature
            | Self::PcrMissing { .. }
            | Self::ReceiptKey(_) => {
                "Trust nothing that came with this document: it was changed, or no Nitro Secure Module made it."
            }
            Self::DocumentTooOld { .. } => {
                "Check this machine's clock first. If it is right, you got an old document again: connect anew, and \
                 suspect whoever forwards the connection if it happens twice. To judge a stored document, say so: \
                 `--at document`, or `At::document_until` in code."
            }
            Self::DocumentInFuture { .. } => {
                "Check this machine's clock: it is almost certainly slow. The Nitro Secure Module keeps its own time, \
                 which the parent instance cannot set."
            }
            Self::DebugMode { .. } => {
                "Start the enclave without debug mode (nitro-cli run-enclave without --debug-mode or --attach-console). \
                 In debug mode the parent instance reads its console, and no policy can accept it."
            }
            Self::NonceMismatch { .. } => {
                "Connect again. If it happens twice, somebody between you and the enclave replays old answers."
            }
            Self::PublicKeyMismatch { .. } | Self::StatementMismatch { .. } => {
                "Send nothing on this connection: something between you and the enclave ends TLS or forwards the answer of \
                 another session."
            }
            Self::PolicyExpired { .. } => {
                "Get the current policy from whoever publishes the releases; policies expire so that an old copy cannot \
                 hide a revocation. If the time shown is wrong, set this machine's clock."
            }
            Self::EmptyPolicy => {
                "Add the release that you accept, with the measurements that its publisher gives: `cloister policy add`."
            }
            Self::ReleaseRevoked { .. } => {
                "Do not use this enclave, and rely on no answer of it. Its operator has to deploy a release that is not \
                 revoked."
            }
            Self::ReleaseEnded { .. } => {
                "The operator has to deploy a current release. If this one should be accepted longer, its publisher has to \
                 say so in a new policy."
            }
            Self::PcrMismatch { .. } => {
                "This is another build than the policy accepts. Ask its publisher for its measurements, never the endpoint \
                 itself, and add them if you accept it: `cloister policy add`. Else do not use it."
            }
            Self::PinnedPcrMismatch { .. }
            | Self::PinnedModuleIdMismatch { .. }
            | Self::PinnedRegionMismatch { .. } => {
                "The program is accepted, but not where or by whom it was started. Check the [pin] table of the policy \
                 with the operator."
            }
            Self::OlderThanPolicyAllows { .. } => {
                "Connect again for a fresh document, and check this machine's clock. If it happens every time, max_age in \
                 the policy is shorter than this connection takes."
            }
            Self::ChannelRequired => {
                "Connect to the enclave's TLS port. If TLS has to end before it, the policy must say \
                 channel = \"optional\" (`cloister policy new --channel optional`, or that line in the file); any enclave that \
                 the same policy accepts may then answer."
            }
        }
        .to_owned()
    }
}

fn roots(expected: &str, actual: &str) -> &'static str {
    match (is_simulated(expected), is_simulated(actual)) {
        (false, _) => "no AWS Nitro Enclave made this document: it is signed under another root than AWS's",
        (true, false) => "the document brings AWS's root, but the policy accepts a simulated enclave only",
        (true, true) => "the document is signed under another simulated root than the policy's",
    }
}

fn root_remedy(expected: &str, actual: &str) -> &'static str {
    match (is_simulated(expected), is_simulated(actual)) {
        (false, _) => {
            "Only AWS hardware is accepted here. If you meant a simulated enclave, give the policy.toml in its authority's \
             folder, and no real data; if not, this does not come from an enclave."
        }
        (true, false) => {
            "Use the policy that the publisher of the enclave's releases gives: it names no root, and so AWS's. The \
             policy of a simulated enclave is for tests."
        }
        (true, true) => {
            "Use the policy.toml that lies in the authority's folder of the very simulated enclave you talk to. A folder \
             that was made anew has a new root."
        }
    }
}
