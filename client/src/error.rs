//! What went wrong, whose fault it is, and what to do.

use std::time::Duration;

use cloister_attestation::{ManifestModel, ModelError, ReceiptError, Refusal, Sha384};
use cloister_inference::{DecryptError, DescriptionError, EncryptError};
use cloister_wire::error::ErrorCode;

/// An operation of the client failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody answers, or not in TLS 1.3.
    #[error("{endpoint} cannot be reached: {reason}")]
    Unreachable {
        /// Who was called.
        endpoint: String,
        /// Why it failed.
        reason: String,
    },
    /// The connection ended, or an answer did not come in time.
    #[error("the connection was lost: {reason}")]
    ConnectionLost {
        /// Why.
        reason: String,
    },
    /// The evaluator did not prove what the policy asks for. Nothing was sent to it but a nonce.
    #[error(transparent)]
    NotVerified(#[from] Refusal),
    /// The model is not served, or not the one that the policy accepts.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The description that was relayed is not the attested one.
    #[error("model {name:?}: the description received has digest {actual}, the attested manifest says {expected}")]
    DescriptionMismatch {
        /// The model.
        name: String,
        /// What the manifest says.
        expected: Sha384,
        /// What came.
        actual: Sha384,
    },
    /// The attested description cannot be used.
    #[error(transparent)]
    Description(#[from] DescriptionError),
    /// After a new attestation the model is another one.
    #[error("model {:?} changed while it was in use: {}", expected.name, change(expected, actual))]
    ModelChanged {
        /// What was verified before.
        expected: Box<ManifestModel>,
        /// What is served now.
        actual: Box<ManifestModel>,
    },
    /// The rows cannot be encrypted for this model. Nothing was sent.
    #[error(transparent)]
    Encrypt(#[from] EncryptError),
    /// The service refused.
    #[error("the service refused: {message}")]
    Refused {
        /// Its code.
        code: ErrorCode,
        /// Its text.
        message: String,
        /// When it is worth to ask again, if that is all it takes.
        retry_after: Option<Duration>,
    },
    /// Whoever stands before the service refused, or cannot be used.
    #[error("{reason}")]
    Intermediary {
        /// What it said.
        reason: String,
    },
    /// There are no credentials for AWS.
    #[error("no AWS credentials: {reason}")]
    Credentials {
        /// Why.
        reason: String,
    },
    /// The object store did not take or give a message.
    #[error("the object store cannot be used: {reason}")]
    Objects {
        /// Why.
        reason: String,
    },
    /// A token is for an enclave alone, and here others end TLS. It was not sent.
    #[error("no token is sent where TLS ends before the enclave")]
    TokenWithoutChannel,
    /// What came back is not an answer.
    #[error("the answer cannot be read: {reason}")]
    BadAnswer {
        /// Why.
        reason: String,
    },
    /// The answer's receipt is not for this exchange. Nothing of the answer was decrypted.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The answer does not decrypt within the proven bound.
    #[error(transparent)]
    Decrypt(#[from] DecryptError),
    /// The connections were closed before this was sent.
    #[error("the connections to the evaluator were closed before all was sent")]
    Closed,
    /// An earlier answer under this secret key was wrong, so the key is not used again.
    #[error("an earlier answer was not honest: this session's secret key is not used again")]
    SessionSpent,
}

/// What differs first between two models of one name.
fn change(expected: &ManifestModel, actual: &ManifestModel) -> String {
    let ManifestModel { name: _, bundle, version, description } = expected;
    if *bundle != actual.bundle {
        format!("its bundle was {bundle}, now it is {}", actual.bundle)
    } else if *description != actual.description {
        format!("its description was {description}, now it is {}", actual.description)
    } else {
        format!("its version was {version:?}, now it is {:?}", actual.version)
    }
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::ConnectionLost { .. } => "connection_lost",
            Self::NotVerified(refusal) => refusal.code(),
            Self::Model(error) => error.code(),
            Self::DescriptionMismatch { .. } => "description_mismatch",
            Self::Description(error) => error.code(),
            Self::ModelChanged { .. } => "model_changed",
            Self::Encrypt(error) => error.code(),
            Self::Refused { code, .. } => code.as_str(),
            Self::Intermediary { .. } => "intermediary",
            Self::Credentials { .. } => "credentials",
            Self::Objects { .. } => "objects",
            Self::TokenWithoutChannel => "token_without_channel",
            Self::BadAnswer { .. } => "bad_answer",
            Self::Receipt(error) => error.code(),
            Self::Decrypt(error) => error.code(),
            Self::Closed => "closed",
            Self::SessionSpent => "session_spent",
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Unreachable { .. } => {
                "Check the address and its kind (https:// for TLS that ends in the enclave, --gateway for anything else), that \
                 proxy and enclave are running, and that no firewall is between. If others are connected, all places may be \
                 taken: try again, or with --connections 1."
                    .into()
            }
            Self::ConnectionLost { .. } => {
                "Connect again; if it happens again, ask the operator for the service's log.".into()
            }
            Self::NotVerified(refusal) => refusal.remedy(),
            Self::Model(error) => error.remedy(),
            Self::DescriptionMismatch { .. } => {
                "Whoever relays this connection alters it: use another way to the service, and tell its operator."
                    .into()
            }
            Self::Description(error) => error.remedy(),
            Self::ModelChanged { .. } => {
                "Connect again; if the change is expected, add the new digest to the policy.".into()
            }
            Self::Encrypt(error) => error.remedy(),
            Self::Refused { code, retry_after, .. } => match code {
                ErrorCode::Busy | ErrorCode::Overloaded | ErrorCode::RateLimited | ErrorCode::Unavailable => {
                    match retry_after {
                        Some(after) => format!("Try again in {} s.", after.as_secs().max(1)),
                        None => "Try again in a few seconds.".into(),
                    }
                }
                ErrorCode::Unauthorized => {
                    "Ask the operator for a token, whose digest stands in the enclave's settings, and give it with \
                     --token-file to https://HOST:PORT, where TLS ends in the enclave. Through a gateway nobody is known."
                        .into()
                }
                ErrorCode::BudgetSpent => {
                    "Ask the operator: the limit is the owner's, and lasts until the enclave is started anew.".into()
                }
                ErrorCode::Misdirected => {
                    "Several enclaves answer here, and each time another one: have the balancer keep a client's requests \
                     together, or try again."
                        .into()
                }
                ErrorCode::NotFound => {
                    "Nothing of Cloister's is at this address: check host, port and path (a proxy's HTTP port is 8080, and its \
                     metrics are at another)."
                        .into()
                }
                ErrorCode::TooLarge => {
                    "Send fewer rows at a time, or ask the operator for a higher limit (--max-body of the proxy, and of what \
                     stands before it); behind a gateway, --objects sends no large bodies."
                        .into()
                }
                ErrorCode::ObjectRefused | ErrorCode::ObjectUnavailable => {
                    "Check that the proxy allows this bucket (--s3-bucket) and may read and write it.".into()
                }
                ErrorCode::Internal => "Ask the operator for the service's log.".into(),
                _ => "Check that client and service are of the same release.".into(),
            },
            Self::Intermediary { .. } => {
                "Check the name and region of the endpoint and the permissions of who asks (sagemaker:InvokeEndpoint)."
                    .into()
            }
            Self::Credentials { .. } => {
                "Set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN; of a profile: \
                 eval \"$(aws configure export-credentials --format env)\"."
                    .into()
            }
            Self::Objects { .. } => {
                "Check the bucket, AWS_REGION, and the permissions of who asks (s3:PutObject, s3:GetObject, \
                 s3:DeleteObject)."
                    .into()
            }
            Self::TokenWithoutChannel => {
                "Leave the token out, or connect to the enclave itself: https://HOST:PORT.".into()
            }
            Self::BadAnswer { .. } => {
                "Check that the address is a Cloister service and that client and service are of the same release."
                    .into()
            }
            Self::Receipt(error) => error.remedy(),
            Self::Decrypt(error) => error.remedy(),
            Self::Closed => "Connect again, and ask again.".into(),
            Self::SessionSpent => {
                "Connect again, which makes a new key; keep the evidence of the dishonest answer.".into()
            }
        }
    }

    /// After which time it is worth to try again, if that is all it takes.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Model(ModelError::UnknownModel { .. })
            | Self::Encrypt(_)
            | Self::Credentials { .. }
            | Self::TokenWithoutChannel => ErrorKind::BadInput,
            Self::NotVerified(_)
            | Self::Model(_)
            | Self::DescriptionMismatch { .. }
            | Self::Description(_)
            | Self::ModelChanged { .. }
            | Self::Receipt(_)
            | Self::Decrypt(_)
            | Self::SessionSpent => ErrorKind::NotVerified,
            Self::Refused { .. } | Self::BadAnswer { .. } | Self::Intermediary { .. } => ErrorKind::Refused,
            Self::Unreachable { .. } | Self::ConnectionLost { .. } | Self::Objects { .. } | Self::Closed => {
                ErrorKind::Unreachable
            }
        }
    }
}

/// Whose fault an error is, and so who has to do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The evaluator cannot be trusted.
    NotVerified,
    /// The service, or whoever stands before it, does not answer this request.
    Refused,
    /// The network, or what it leads to.
    Unreachable,
    /// What the caller gave.
    BadInput,
}
