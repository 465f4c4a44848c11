//! An answer that says no, why, and what to do: the Open Inference Protocol's `error`, and our code.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use cloister_client::{Error, ErrorKind};
use cloister_wire::error::ErrorCode;
use serde_json::json;

use super::tensors::TensorError;

/// Why a request is not answered.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    error: String,
    retry_after: Option<u64>,
}

impl Refusal {
    pub(super) fn new(code: ErrorCode, error: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, code: code.as_str(), error: error.into(), retry_after: None }
    }

    pub(super) fn after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// Because of what asks, not of what is asked for.
    pub(super) fn forbidden(error: impl Into<String>) -> Self {
        Self { status: StatusCode::FORBIDDEN, code: "forbidden", error: error.into(), retry_after: None }
    }
}

impl From<TensorError> for Refusal {
    fn from(error: TensorError) -> Self {
        Self::new(ErrorCode::BadRequest, error.to_string())
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::Encrypt(_) => StatusCode::BAD_REQUEST,
            Error::Model(_) if error.kind() == ErrorKind::BadInput => StatusCode::NOT_FOUND,
            // The token is ours, not of who asks.
            Error::Refused { code: ErrorCode::Unauthorized, .. } => StatusCode::BAD_GATEWAY,
            Error::Refused { code, .. } => StatusCode::from_u16(code.status()).unwrap_or(StatusCode::BAD_GATEWAY),
            Error::Unreachable { .. } | Error::ConnectionLost { .. } | Error::Closed => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_GATEWAY,
        };
        let closed = matches!(error, Error::Closed).then_some(1);
        let retry_after = error.retry_after().map(|wait| wait.as_secs().max(1)).or(closed);
        Self { status, code: error.code(), error: format!("{error}. {}", error.remedy()), retry_after }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { status, code, error, retry_after } = self;
        let mut response = (status, Json(json!({"error": error, "code": code}))).into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
