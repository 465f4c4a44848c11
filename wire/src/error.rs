//! Error codes: stable, small, and all that a peer learns. Causes stay in the service's log.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a service refused. The text form is part of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// The request cannot be read.
    BadRequest,
    /// A plaintext tensor was sent to an encrypted model.
    PlaintextRefused,
    /// The ciphertext does not conform to the model.
    CiphertextRefused,
    /// The ciphertext names a public key that was not sent on this connection, or that was displaced by later ones.
    PublicKeyMissing,
    /// The model has returned as many logits as its owner allows.
    BudgetSpent,
    /// There is nothing at this path.
    NotFound,
    /// No model of this name is served.
    UnknownModel,
    /// The path is right, the method is not.
    MethodNotAllowed,
    /// The request did not arrive or could not be answered in time.
    Deadline,
    /// The body is larger than the limit.
    TooLarge,
    /// Too much work is waiting: try again later.
    Busy,
    /// No bearer token came, or none that is known; or one came where TLS does not end in the enclave.
    Unauthorized,
    /// The measured settings do not allow this bundle to be loaded.
    ModelNotAllowed,
    /// The object lies outside the buckets that are allowed.
    ObjectRefused,
    /// The model is another one than the request expects.
    ModelChanged,
    /// Nothing is done with a body of this content type.
    UnsupportedMediaType,
    /// The request expects another enclave than the one that got it.
    Misdirected,
    /// The client has spent its budget of requests, bytes or time: try again later.
    RateLimited,
    /// The object store did not give or take the object.
    ObjectUnavailable,
    /// The service has more work than it can do in time: try again later.
    Overloaded,
    /// No enclave answers.
    Unavailable,
    /// There is no memory for another model.
    InsufficientMemory,
    /// The bundle cannot be served.
    BundleRefused,
    /// The service failed.
    Internal,
}

impl ErrorCode {
    /// The HTTP status that carries this code (RFC 9110 §15).
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest
            | Self::PlaintextRefused
            | Self::CiphertextRefused
            | Self::PublicKeyMissing
            | Self::BundleRefused => 400,
            Self::Unauthorized => 401,
            Self::BudgetSpent | Self::ModelNotAllowed | Self::ObjectRefused => 403,
            Self::NotFound | Self::UnknownModel => 404,
            Self::MethodNotAllowed => 405,
            Self::Deadline => 408,
            Self::ModelChanged => 409,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Misdirected => 421,
            Self::Busy | Self::RateLimited => 429,
            Self::Internal => 500,
            Self::ObjectUnavailable => 502,
            Self::Overloaded | Self::Unavailable => 503,
            Self::InsufficientMemory => 507,
        }
    }

    /// The text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::PlaintextRefused => "plaintext_refused",
            Self::CiphertextRefused => "ciphertext_refused",
            Self::PublicKeyMissing => "public_key_missing",
            Self::BudgetSpent => "budget_spent",
            Self::NotFound => "not_found",
            Self::UnknownModel => "unknown_model",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Deadline => "deadline",
            Self::TooLarge => "too_large",
            Self::Busy => "busy",
            Self::Unauthorized => "unauthorized",
            Self::ModelNotAllowed => "model_not_allowed",
            Self::ObjectRefused => "object_refused",
            Self::ModelChanged => "model_changed",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Misdirected => "misdirected",
            Self::RateLimited => "rate_limited",
            Self::ObjectUnavailable => "object_unavailable",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::InsufficientMemory => "insufficient_memory",
            Self::BundleRefused => "bundle_refused",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal's body: the Open Inference Protocol's `error`, and our code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What was wrong and what to do.
    pub error: String,
    /// The stable code.
    pub code: ErrorCode,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_is_what_serde_writes() {
        for code in [
            ErrorCode::BadRequest,
            ErrorCode::PlaintextRefused,
            ErrorCode::CiphertextRefused,
            ErrorCode::NotFound,
            ErrorCode::UnknownModel,
            ErrorCode::MethodNotAllowed,
            ErrorCode::Deadline,
            ErrorCode::TooLarge,
            ErrorCode::Busy,
            ErrorCode::Unauthorized,
            ErrorCode::ModelNotAllowed,
            ErrorCode::ObjectRefused,
            ErrorCode::ModelChanged,
            ErrorCode::UnsupportedMediaType,
            ErrorCode::Misdirected,
            ErrorCode::RateLimited,
            ErrorCode::ObjectUnavailable,
            ErrorCode::Overloaded,
            ErrorCode::Unavailable,
            ErrorCode::InsufficientMemory,
            ErrorCode::BundleRefused,
            ErrorCode::Internal,
        ] {
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{code}\""));
        }
    }
}
