//! HTTP: Open Inference Protocol paths and `/v1/attestation`.

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    extract::{FromRequestParts, Path, Request, State},
    http::{HeaderMap, header::CONTENT_TYPE, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use cloister_attestation::{Channel, Nonce};
use cloister_wire::{
    ATTESTATION_MEDIA_TYPE,
    error::ErrorCode,
    limits,
    oip::{Health, ModelMetadata, ModelReady, ServerMetadata},
    paths,
};
use serde::Deserialize;
use tokio::time::timeout;

use crate::{
    access::{Account, Caller, Clients},
    evaluations::Evaluations,
    infer::{infer, receive},
    memory::{Memory, Reserved},
    notary::Notary,
    refusal::Refusal,
    repository::{Held, Repository},
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

    pub(crate) fn find(&self, target: &Target) -> Result<Held, Refusal> {
        let found = self.repository.served().find(&target.model, target.version.as_deref());
        found.ok_or_else(|| Refusal::new(ErrorCode::UnknownModel, "no model of this name and version is served"))
    }

    /// Who asks, as far as its token and its channel say.
    pub(crate) fn caller(&self, channel: Channel, headers: &HeaderMap) -> Result<Caller<'_>, Refusal> {
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

    /// Memory of this account's share and of everybody's, before the first byte that takes it.
    pub(crate) fn reserve(&self, account: &Account, bytes: usize) -> Result<Reserved, Refusal> {
        let own = account.memory.reserve(bytes)?;
        Ok(self.memory.reserve(bytes)?.and(own))
    }
}

/// What a path names.
#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) model: String,
    pub(crate) version: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(target)| target).map_err(|_| Refusal::new(ErrorCode::BadRequest, "the path is not text"))
    }
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
    let nonce = receive(request.into_body(), limits::NONCE_BYTES).await?;
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
    target: Target,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Caller { account, .. } = service.caller(channel, &headers)?;
    let Held { model, .. } = service.find(&target)?;
    let reserved = service.reserve(account, 2 * model.description.len())?;
    let versions = service.repository.served().versions(&target.model);
    let metadata = ModelMetadata::new(&target.model, versions, PLATFORM, model.description.clone());
    let metadata = serde_json::to_vec(&metadata).expect("texts and numbers are JSON");
    Ok(([(CONTENT_TYPE, "application/json")], reserved.until_sent(metadata)).into_response())
}

async fn model_ready(State(service): State<Arc<Service>>, target: Target) -> Result<Json<ModelReady>, Refusal> {
    service.find(&target).map(|_| Json(ModelReady { name: target.model, ready: true }))
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
