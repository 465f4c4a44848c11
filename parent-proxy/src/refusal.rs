//! An answer that says no, why, and what to do.

use axum::{
    Json,
    http::{StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use cloister_wire::error::{ErrorBody, ErrorCode};

/// Why a request is refused: [`ErrorBody`] with its status, and when to try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) body: ErrorBody,
    status: u16,
}

impl Refusal {
    pub(crate) fn new(code: ErrorCode, error: impl Into<String>) -> Self {
        Self { body: ErrorBody { error: error.into(), code }, status: code.status() }
    }

    pub(crate) fn bad_request(error: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadRequest, error)
    }

    pub(crate) fn unavailable() -> Self {
        Self::new(ErrorCode::Unavailable, "no enclave answers: try again in a few seconds")
    }

    /// With another status than that of its code, where a contract that is not ours asks for one.
    pub(crate) fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    fn retry_after(&self) -> Option<&'static str> {
        match self.body.code {
            ErrorCode::Overloaded => Some("1"),
            ErrorCode::Unavailable => Some("5"),
            _ => None,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.retry_after().map(|seconds| [(RETRY_AFTER, seconds)]);
        match retry_after {
            Some(header) => (status, header, Json(self.body)).into_response(),
            None => (status, Json(self.body)).into_response(),
        }
    }
}
