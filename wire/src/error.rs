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
    /// The service failed.
    Internal,
}

impl ErrorCode {
    /// The HTTP status that carries this code (RFC 9110 §15).
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest | Self::PlaintextRefused | Self::CiphertextRefused | Self::PublicKeyMissing => 400,
            Self::BudgetSpent => 403,
            Self::NotFound | Self::UnknownModel => 404,
            Self::MethodNotAllowed => 405,
            Self::Deadline => 408,
            Self::TooLarge => 413,
            Self::Busy => 429,
            Self::Internal => 500,
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
            ErrorCode::Internal,
        ] {
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{code}\""));
        }
    }
}
