//! HTTP: Open Inference Protocol paths and `/v1/attestation`.

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, header::CONTENT_TYPE},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use cloister_attestation::{Channel, Nonce, Sha384};
use cloister_wire::{
    ATTESTATION_MEDIA_TYPE, BINARY_MEDIA_TYPE, HEADER_LENGTH, INFER_MEDIA_TYPE,
    error::ErrorCode,
    limits,
    oip::{Expected, Framed, Health, InferRequest, InferResponse, ModelMetadata, ServerMetadata, header_length},
    paths,
};
use serde::Deserialize;
use tokio::time::timeout;

use crate::{
    access::{Caller, Charge, Clients},
    admission::Client,
    evaluations::{Evaluations, Work},
    memory::{Memory, Reserved},
    notary::Notary,
    refusal::Refusal,
    repository::{Held, Repository},
    server::Peer,
};

/// What evaluates the models, as Open Inference Protocol metadata says it.
const PLATFORM: &str = "cloister_linear";

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) repository: Arc<Repository>,
    pub(crate) notary: Notary,
    pub(crate) clients: Clients,
    pub(crate) evaluations: Evaluations,
    pub(crate) memory: Memory,
}

impl Service {
    pub(crate) fn router(self: Arc<Self>) -> Router {
        let versioned = |rest: &str| paths::model("{model}", Some("{version}")) + rest;
        let newest = |rest: &str| paths::model("{model}", None) + rest;
        let mut router = Router::new()
            .route(paths::ATTESTATION, post(attestation))
            .route(paths::SERVER, get(server))
            .route(paths::LIVE, get(health))
            .route(paths::READY, get(health));
        for path in [newest, versioned as fn(&str) -> String] {
            router = router
                .route(&path(""), get(model))
                .route(&path(paths::MODEL_READY), get(model_ready))
                .route(&path(paths::MODEL_INFER), post(infer));
        }
        with_fallbacks(router).layer(middleware::from_fn(deadline)).with_state(self)
    }

    fn find(&self, target: &Target) -> Result<Held, Refusal> {
        let found = self.repository.served().find(&target.model, target.version.as_deref());
        found.ok_or_else(|| Refusal::new(ErrorCode::UnknownModel, "no model of this name and version is served"))
    }

    /// Who asks, as far as its token and its channel say.
    fn caller(&self, channel: Channel, headers: &HeaderMap) -> Result<Caller<'_>, Refusal> {
        match (bearer_token(headers)?, channel) {
            (Some(_), Channel::None) => Err(Refusal::new(
                ErrorCode::Unauthorized,
                "a token came over a channel that does not end in the enclave: others have seen it, replace it",
            )),
            (Some(token), Channel::TlsExporter(_)) => self
                .clients
                .by_token(token)
                .ok_or_else(|| Refusal::new(ErrorCode::Unauthorized, "this enclave does not know the token")),
            (None, channel) => self.clients.anonymous().ok_or_else(|| {
                let why = match channel {
                    Channel::TlsExporter(_) => "this enclave serves known clients only: send a bearer token",
                    Channel::None => "this enclave serves known clients only, over TLS that ends in it",
                };
                Refusal::new(ErrorCode::Unauthorized, why)
            }),
        }
    }

    /// Reads a body of at most `limit` bytes, for which there must be memory, and for the answer.
    async fn receive(&self, request: Request, limit: usize, answer: usize) -> Result<(Bytes, Reserved), Refusal> {
        let too_large = || Refusal::new(ErrorCode::TooLarge, format!("the body has more than {limit} bytes"));
        let length = request.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse().ok());
        let expected: usize = length.unwrap_or(limit);
        if expected > limit {
            return Err(too_large());
        }
        let reserved = self.memory.reserve(expected + answer)?;
        match axum::body::to_bytes(request.into_body(), limit).await {
            Ok(body) => Ok((body, reserved)),
            Err(error) if is_length_limit(&error) => Err(too_large()),
            Err(_) => Err(Refusal::new(ErrorCode::BadRequest, "the body did not arrive")),
        }
    }

    /// That the client gets an answer that it accepts, or none.
    fn check_expected(&self, expected: Expected<'_>, held: &Held) -> Result<(), Refusal> {
        let Expected { bundle, receipt_key } = expected;
        if receipt_key.is_some_and(|expected| expected != self.notary.receipt_key_digest()) {
            return Err(Refusal::new(ErrorCode::Misdirected, "the request was made for another enclave than this one"));
        }
        let actual = held.model.entry.bundle.to_string();
        match bundle.and_then(|expected| expected.parse::<Sha384>().ok()) {
            Some(expected) if expected != held.model.entry.bundle => Err(Refusal::new(
                ErrorCode::ModelChanged,
                format!("the model is another one: expected {expected}, served is {actual}"),
            )),
            None if bundle.is_some() => Err(Refusal::new(ErrorCode::BadRequest, "the expected bundle is no digest")),
            _ => Ok(()),
        }
    }
}

/// What a path names.
#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) model: String,
    pub(crate) version: Option<String>,
}

/// What is asked of paths and methods that there are not.
pub(crate) fn with_fallbacks<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router
        .fallback(async || Refusal::new(ErrorCode::NotFound, "there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            Refusal::new(ErrorCode::MethodNotAllowed, "this path does not know this method")
        })
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
    request: Request,
) -> Result<Response, Refusal> {
    let (nonce, _reserved) = service.receive(request, limits::BESIDE_CIPHERTEXT_BYTES, 0).await?;
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

async fn model(
    State(service): State<Arc<Service>>,
    Extension(channel): Extension<Channel>,
    Path(target): Path<Target>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    service.caller(channel, &headers)?;
    let Held { model, .. } = service.find(&target)?;
    let reserved = service.memory.reserve(2 * model.description.len())?;
    let versions = service.repository.served().versions(&target.model);
    let metadata = ModelMetadata::new(&target.model, versions, PLATFORM, model.description.clone());
    let metadata = serde_json::to_vec(&metadata).expect("texts and numbers are JSON");
    Ok(([(CONTENT_TYPE, "application/json")], reserved.until_sent(metadata)).into_response())
}

async fn model_ready(State(service): State<Arc<Service>>, Path(target): Path<Target>) -> Result<Json<Health>, Refusal> {
    service.find(&target).map(|_| Json(Health { live: true, ready: true }))
}

async fn infer(
    State(service): State<Arc<Service>>,
    Extension(channel): Extension<Channel>,
    Extension(peer): Extension<Peer>,
    Path(target): Path<Target>,
    request: Request,
) -> Result<Response, Refusal> {
    // Before the body is read: a stranger costs nothing.
    let Caller { account, number } = service.caller(channel, request.headers())?;
    let held = service.find(&target)?;
    let self_framed = has_media_type(request.headers(), INFER_MEDIA_TYPE);
    let framed = header_length_header(request.headers())?;
    // A larger one is a request to no model here.
    let limit = service.repository.served().largest().0;
    let (body, reserved) = service.receive(request, limit, held.model.largest.1).await?;

    let framed = if self_framed { Some(header_length(&body)?) } else { framed };
    let request = InferRequest::parse(framed, &body)?;
    service.check_expected(request.expected, &held)?;
    let asked = held.model.evaluator.check(request.ciphertext)?;
    let key = peer.keys.find(asked.key, request.public_key)?.ok_or(Refusal::new(
        ErrorCode::PublicKeyMissing,
        "the public key that the ciphertext names was not sent on this connection: send it with the request",
    ))?;

    let charge = Charge { bytes: body.len(), compute: asked.cost };
    account.spend(charge, std::time::Instant::now()).map_err(|after| {
        Refusal::new(ErrorCode::RateLimited, "the budget of this client is spent for now").until(after)
    })?;
    let client = number.map_or(Client::Connection(peer.number), Client::Known);
    let place = service.evaluations.admit(client, asked.cost).await?;
    if !account.spend_logits(asked.logits) {
        return Err(Refusal::new(ErrorCode::BudgetSpent, "the client has got all the logits that it may have"));
    }
    if !held.spend(asked.logits) {
        account.refund_logits(asked.logits);
        return Err(Refusal::new(
            ErrorCode::BudgetSpent,
            "the model has returned all the logits that its owner allows",
        ));
    }
    let work = Work { model: held.model.clone(), request: body.slice_ref(request.ciphertext), key };
    let ciphertext = service.evaluations.evaluate(work, asked.cost, place).await?;
    let entry = &held.model.entry;
    let receipt = service.notary.receipt(
        Sha384::of(request.ciphertext),
        Sha384::of(&ciphertext),
        entry.bundle,
        held.model.parameters,
    );

    let response = InferResponse {
        model_name: &entry.name,
        model_version: &entry.version,
        id: request.id,
        ciphertext: &ciphertext,
        receipt: &receipt,
    };
    let Framed { header_length, body } = response.to_framed();
    let media_type = if self_framed { INFER_MEDIA_TYPE } else { BINARY_MEDIA_TYPE };
    let mut response = ([(CONTENT_TYPE, media_type)], reserved.until_sent(body)).into_response();
    response.headers_mut().insert(HEADER_LENGTH, HeaderValue::from(header_length));
    Ok(response)
}

/// The token of `Authorization: Bearer …` (RFC 6750 §2.1).
fn bearer_token(headers: &HeaderMap) -> Result<Option<&[u8]>, Refusal> {
    let Some(value) = headers.get("authorization") else { return Ok(None) };
    let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len()).unwrap_or_default();
    match scheme.eq_ignore_ascii_case(b"Bearer ") {
        true => Ok(Some(token)),
        false => Err(Refusal::new(ErrorCode::Unauthorized, "the one kind of authorization here is a bearer token")),
    }
}

fn has_media_type(headers: &HeaderMap, media_type: &str) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    value.split(';').next().is_some_and(|value| value.trim().eq_ignore_ascii_case(media_type))
}

fn header_length_header(headers: &HeaderMap) -> Result<Option<usize>, Refusal> {
    let Some(value) = headers.get(HEADER_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    length.map(Some).ok_or(Refusal::new(ErrorCode::BadRequest, "Inference-Header-Content-Length is not a number"))
}

fn is_length_limit(error: &axum::Error) -> bool {
    use std::error::Error;
    std::iter::successors(error.source(), |&error| error.source())
        .any(|error| error.is::<http_body_util::LengthLimitError>())
}
