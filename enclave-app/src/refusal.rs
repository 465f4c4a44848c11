//! What a peer is told when it is refused.

use std::time::Duration;

use axum::{
    Json,
    http::{
        HeaderValue, StatusCode,
        header::{RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use cloister_inference::{EvaluateError, MessageError as CiphertextError};
use cloister_wire::{
    error::{ErrorBody, ErrorCode},
    oip::MessageError,
};

use crate::{
    admission::Full,
    log::{self, Event},
    notary::NotaryError,
};

/// A stable code, and a text without anything that is not the peer's own.
#[derive(Debug)]
pub(crate) struct Refusal {
    body: ErrorBody,
    retry_after: Option<Duration>,
}

impl Refusal {
    pub(crate) fn new(code: ErrorCode, error: impl Into<String>) -> Self {
        ErrorBody { error: error.into(), code }.into()
    }

    /// It is worth to ask again after that time (RFC 9110 §10.2.3).
    pub(crate) fn until(self, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..self }
    }
}

impl From<ErrorBody> for Refusal {
    fn from(body: ErrorBody) -> Self {
        Self { body, retry_after: None }
    }
}

impl From<MessageError> for Refusal {
    fn from(error: MessageError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<EvaluateError> for Refusal {
    fn from(error: EvaluateError) -> Self {
        let code = match error {
            EvaluateError::Cancelled => ErrorCode::Deadline,
            _ => ErrorCode::CiphertextRefused,
        };
        Self::new(code, error.to_string())
    }
}

impl From<CiphertextError> for Refusal {
    fn from(error: CiphertextError) -> Self {
        Self::new(ErrorCode::CiphertextRefused, error.to_string())
    }
}

impl From<NotaryError> for Refusal {
    fn from(error: NotaryError) -> Self {
        match error {
            NotaryError::Busy => Self::new(ErrorCode::Busy, "too many documents are waiting: try again in a second")
                .until(Duration::from_secs(1)),
            _ => Self::new(ErrorCode::Internal, "no attestation document could be made"),
        }
    }
}

impl From<Full> for Refusal {
    fn from(full: Full) -> Self {
        match full {
            Full::Client(after) => {
                Self::new(ErrorCode::Busy, "this client has as much work waiting as one may have").until(after)
            }
            Full::Service(after) => {
                Self::new(ErrorCode::Overloaded, "more work is waiting than can be done in time").until(after)
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { body, retry_after } = self;
        let status = body.code.status();
        log::event(Event::Refused, u64::from(status));
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(body)).into_response();
        if let Some(after) = retry_after {
            let seconds = after.as_secs_f64().ceil().max(1.0);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds as u64));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"cloister\""));
        }
        response
    }
}
