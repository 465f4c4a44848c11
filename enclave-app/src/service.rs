//! HTTP: Open Inference Protocol paths and `/v1/attestation`.

use std::{cell::RefCell, num::NonZero, sync::Arc, thread, time::Instant};

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, Path, Request, State, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use cloister_attestation::{Channel, Nonce, Sha384};
use cloister_inference::{EvaluateError, MessageError as CiphertextError, PublicKey, Scratch};
use cloister_wire::{
    ATTESTATION_MEDIA_TYPE, BINARY_MEDIA_TYPE, HEADER_LENGTH,
    error::{ErrorBody, ErrorCode},
    limits,
    oip::{Framed, Health, InferRequest, InferResponse, MessageError, ServerMetadata},
    paths,
};
use tokio::{sync::Mutex, time::timeout};

use crate::{
    keys::PublicKeys,
    log::{self, Event},
    models::{Model, Models},
    notary::{Notary, NotaryError},
};

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct Service {
    models: Models,
    notary: Notary,
    /// For evaluations that take milliseconds.
    long: Arc<Mutex<Scratch>>,
}

impl Service {
    pub(crate) fn new(models: Models, notary: Notary) -> Self {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        Self { models, notary, long: Arc::new(Mutex::new(Scratch::with_threads(threads))) }
    }

    pub(crate) fn router(self) -> Router {
        Router::new()
            .route(paths::ATTESTATION, post(attestation))
            .route(paths::SERVER, get(server))
            .route(paths::LIVE, get(health))
            .route(paths::READY, get(health))
            .route(paths::MODEL, get(model))
            .route(paths::MODEL_READY, get(model_ready))
            .route(paths::INFER, post(infer))
            .fallback(async || Refusal::new(ErrorCode::NotFound, "there is nothing at this path"))
            .method_not_allowed_fallback(async || {
                Refusal::new(ErrorCode::MethodNotAllowed, "this path does not know this method")
            })
            .layer(DefaultBodyLimit::max(self.models.max_request_bytes()))
            .layer(middleware::from_fn(deadline))
            .with_state(Arc::new(self))
    }

    /// Evaluates on a thread that may take its time, and on all processors; one request at a time, so that their buffers
    /// are there once.
    async fn evaluate_long(
        self: &Arc<Self>,
        name: &str,
        request: Bytes,
        key: Arc<PublicKey>,
    ) -> Result<Vec<u8>, Refusal> {
        let (service, name) = (self.clone(), name.to_owned());
        let mut scratch = self.long.clone().lock_owned().await;
        let evaluation = tokio::task::spawn_blocking(move || {
            Ok(service.model(&name)?.evaluator.evaluate(&request, &key, &mut scratch)?)
        });
        evaluation.await.unwrap_or_else(|_| Err(Refusal::new(ErrorCode::Internal, "the evaluation did not end")))
    }

    fn model(&self, name: &str) -> Result<&Model, Refusal> {
        self.models.get(name).ok_or(Refusal::new(ErrorCode::UnknownModel, "no model of this name is served"))
    }
}

/// A body must arrive and its answer be made in time; a slow peer holds a connection slot no longer.
async fn deadline(request: Request, next: Next) -> Response {
    match timeout(limits::REQUEST_DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Refusal::new(ErrorCode::Deadline, "the request was not complete in time").into_response(),
    }
}

async fn attestation(
    State(service): State<Arc<Service>>,
    Extension(channel): Extension<Channel>,
    Body(nonce): Body,
) -> Result<Response, Refusal> {
    let nonce = <[u8; limits::NONCE_BYTES]>::try_from(&nonce[..])
        .map_err(|_| Refusal::new(ErrorCode::BadRequest, "the body must be a nonce of 32 bytes"))?;
    let presentation = service.notary.present(Nonce(nonce), channel).await?;
    Ok(([(CONTENT_TYPE, ATTESTATION_MEDIA_TYPE)], presentation.to_cbor()).into_response())
}

async fn server() -> Json<ServerMetadata> {
    Json(ServerMetadata {
        name: "cloister".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        extensions: vec!["binary_tensor_data".into()],
    })
}

/// Models are loaded and attestation has worked before the first connection is accepted.
async fn health() -> Json<Health> {
    Json(Health { live: true, ready: true })
}

async fn model(State(service): State<Arc<Service>>, Path(name): Path<String>) -> Result<Response, Refusal> {
    Ok(Json(&service.model(&name)?.metadata).into_response())
}

async fn model_ready(State(service): State<Arc<Service>>, Path(name): Path<String>) -> Result<Json<Health>, Refusal> {
    service.model(&name).map(|_| Json(Health { live: true, ready: true }))
}

async fn infer(
    State(service): State<Arc<Service>>,
    Extension(keys): Extension<PublicKeys>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Refusal> {
    let model = service.model(&name)?;
    let request = InferRequest::parse(header_length(&headers)?, &body)?;
    let asked = model.evaluator.check(request.ciphertext)?;
    let key = keys.find(asked.key, request.public_key)?.ok_or(Refusal::new(
        ErrorCode::PublicKeyMissing,
        "the public key that the ciphertext names was not sent on this connection: send it with the request",
    ))?;
    if !model.spend(asked.logits) {
        return Err(Refusal::new(
            ErrorCode::BudgetSpent,
            "the model has returned all the logits that its owner allows",
        ));
    }

    let started = Instant::now();
    let ciphertext = match body.len() > LONG_BYTES {
        false => SCRATCH.with_borrow_mut(|scratch| model.evaluator.evaluate(request.ciphertext, &key, scratch))?,
        true => service.evaluate_long(&name, body.slice_ref(request.ciphertext), key).await?,
    };
    let receipt =
        service.notary.receipt(Sha384::of(request.ciphertext), Sha384::of(&ciphertext), model.bundle, model.parameters);
    log::event(Event::Inferred, started.elapsed().as_micros() as u64);

    let response = InferResponse {
        model_name: &name,
        model_version: &model.version,
        id: request.id,
        ciphertext: &ciphertext,
        receipt: &receipt,
    };
    let Framed { header_length, body } = response.to_framed();
    let mut response = ([(CONTENT_TYPE, BINARY_MEDIA_TYPE)], body).into_response();
    response.headers_mut().insert(HEADER_LENGTH, HeaderValue::from(header_length));
    Ok(response)
}

/// Requests of less than this are evaluated in well under a millisecond, where they are.
const LONG_BYTES: usize = 64 * 1024;

thread_local! {
    /// Such an evaluation never yields, so each worker thread keeps its own.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

fn header_length(headers: &HeaderMap) -> Result<Option<usize>, Refusal> {
    let Some(value) = headers.get(HEADER_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    length.map(Some).ok_or(Refusal::new(ErrorCode::BadRequest, "Inference-Header-Content-Length is not a number"))
}

/// A request body within the limit.
struct Body(Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        Bytes::from_request(request, state).await.map(Self).map_err(|rejection| match rejection {
            BytesRejection::FailedToBufferBody(failure) if failure.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Refusal::new(ErrorCode::TooLarge, "the body is larger than a request to any model here")
            }
            _ => Refusal::new(ErrorCode::BadRequest, "the body did not arrive"),
        })
    }
}

/// What a peer is told: a stable code, and a text without anything that is not the peer's own.
#[derive(Debug)]
struct Refusal(ErrorBody);

impl Refusal {
    fn new(code: ErrorCode, error: impl Into<String>) -> Self {
        Self(ErrorBody { error: error.into(), code })
    }
}

impl From<MessageError> for Refusal {
    fn from(error: MessageError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<EvaluateError> for Refusal {
    fn from(error: EvaluateError) -> Self {
        Self::new(ErrorCode::CiphertextRefused, error.to_string())
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
            NotaryError::Busy => Self::new(ErrorCode::Busy, "too many documents are waiting: try again in a second"),
            _ => Self::new(ErrorCode::Internal, "no attestation document could be made"),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.0.code.status();
        log::event(Event::Refused, u64::from(status));
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.0)).into_response()
    }
}
