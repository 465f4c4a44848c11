//! The paths of the Open Inference Protocol, and what was verified.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{Path, Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, ORIGIN},
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use cloister_client::{Pool, Prediction};
use cloister_wire::{HEADER_LENGTH, error::ErrorCode, limits::REQUEST_DEADLINE, oip::ServerMetadata, paths};
use serde_json::{Value, json};
use tokio::{sync::SemaphorePermit, time::timeout};

use super::{
    super::output::foreign,
    evaluations::Evaluations,
    listener::Reach,
    refusal::Refusal,
    tensors::{self, InferRequest},
};

const EVIDENCE: &str = "/v1/evidence";

/// Says of every answer whether attestation is simulated.
const SIMULATED: HeaderName = HeaderName::from_static("cloister-simulated");

type Shared = State<Arc<Evaluations>>;

/// Everything that is served to whoever can connect.
pub(super) fn app(evaluations: Arc<Evaluations>, reach: Reach) -> Router {
    let mut routes = Router::new()
        .route(paths::SERVER, get(server))
        .route(paths::LIVE, get(live))
        .route(paths::READY, get(ready))
        .route(paths::REPOSITORY_INDEX, post(index))
        .route(EVIDENCE, get(evidence))
        .route(&format!("{EVIDENCE}/{{piece}}"), get(piece));
    for path in [paths::model("{model}", None), paths::model("{model}", Some("{version}"))] {
        routes = routes
            .route(&(path.clone() + paths::MODEL_READY), get(model_ready))
            .route(&(path.clone() + paths::MODEL_INFER), post(infer))
            .route(&path, get(model));
    }
    routes
        .fallback(async || {
            Refusal::new(ErrorCode::NotFound, "nothing is here: the Open Inference Protocol begins at /v2")
        })
        .method_not_allowed_fallback(async || Refusal::new(ErrorCode::MethodNotAllowed, "this path has another method"))
        .layer(middleware::from_fn_with_state(evaluations.clone(), say_if_simulated))
        .layer(middleware::from_fn(move |request, next| from_here(reach, request, next)))
        .with_state(evaluations)
}

/// A web page must not use a browser on this machine to ask: what it sends has an `Origin` or, if it only fetches, a
/// `Sec-Fetch-Site`; and what it makes of a name of its own
/// that leads here (DNS rebinding) has that name as `Host`.
async fn from_here(reach: Reach, request: Request, next: Next) -> Response {
    if request.headers().contains_key(ORIGIN) {
        return Refusal::forbidden("requests of web pages are not served: they have an Origin").into_response();
    }
    let site = request.headers().get("sec-fetch-site");
    if site.is_some_and(|site| site != "none" && site != "same-origin") {
        return Refusal::forbidden("requests of web pages are not served: a browser says that it comes from one")
            .into_response();
    }
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if reach == Reach::Machine && !is_loopback(host) {
        return Refusal::forbidden("the Host is not this machine: ask for 127.0.0.1, [::1] or localhost")
            .into_response();
    }
    next.run(request).await
}

/// Whether a `Host` header names this machine by an address, or by the one name that nobody else can give.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || address.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

async fn say_if_simulated(State(evaluations): Shared, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if evaluations.seen().simulated {
        response.headers_mut().insert(SIMULATED, HeaderValue::from_static("true"));
    }
    response
}

async fn server(State(evaluations): Shared) -> Json<ServerMetadata> {
    let name = if evaluations.seen().simulated { "cloister-gateway (SIMULATED)" } else { "cloister-gateway" };
    Json(ServerMetadata {
        name: name.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        extensions: vec!["binary_tensor_data".to_owned(), "model_repository".to_owned()],
    })
}

async fn live() -> Json<Value> {
    Json(json!({"live": true}))
}

async fn ready(State(evaluations): Shared) -> (StatusCode, Json<Value>) {
    let ready = evaluations.seen().verified;
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(json!({"ready": ready})))
}

async fn index(State(evaluations): Shared) -> Json<Vec<Value>> {
    let listed = |model: cloister_attestation::ManifestModel| json!({"name": model.name, "version": model.version, "state": "READY", "digest": model.bundle.to_string()});
    Json(evaluations.seen().models.into_iter().map(listed).collect())
}

/// `/v2/models/MODEL`, and what follows `/versions/`.
type Model = Path<ModelPath>;

#[derive(serde::Deserialize)]
struct ModelPath {
    model: String,
    version: Option<String>,
}

/// Connections to the model of that name: the version whose digest the policy has.
async fn find(evaluations: &Evaluations, path: &ModelPath) -> Result<Pool, Refusal> {
    let seen = evaluations.seen();
    // Not every name is worth a connection.
    if seen.verified && !seen.models.iter().any(|model| model.name == path.model) {
        let names: Vec<String> = seen.models.iter().map(|model| foreign(&model.name)).collect();
        let (asked, names) = (foreign(&path.model), names.join(", "));
        return Err(Refusal::new(
            ErrorCode::UnknownModel,
            format!("no model {asked:?} is accepted here; there are: {names}"),
        ));
    }
    let pool = evaluations.model(&path.model).await?;
    match &path.version {
        Some(version) if *version != pool.model().version => Err(Refusal::new(
            ErrorCode::UnknownModel,
            format!("the policy accepts version {:?} of this model", pool.model().version),
        )),
        _ => Ok(pool),
    }
}

async fn model(State(evaluations): Shared, Path(path): Model) -> Result<Json<Value>, Refusal> {
    let _place = place(&evaluations)?;
    let pool = find(&evaluations, &path).await?;
    let (inputs, outputs) = tensors::metadata(pool.description());
    let features = pool.description().features().iter();
    let features = features.map(|feature| json!({"name": feature.name, "low": feature.low, "high": feature.high}));
    Ok(Json(json!({
        "name": pool.model().name,
        "versions": [pool.model().version],
        "platform": "cloister_tfhe",
        "inputs": inputs,
        "outputs": outputs,
        "parameters": {
            "digest": pool.model().bundle.to_string(),
            "bound": pool.description().bound(),
            "features": features.collect::<Vec<_>>(),
            "labels": pool.description().labels(),
            "simulated": evaluations.seen().simulated,
        },
    })))
}

async fn model_ready(State(evaluations): Shared, Path(path): Model) -> Result<Json<Value>, Refusal> {
    let _place = place(&evaluations)?;
    find(&evaluations, &path).await?;
    Ok(Json(json!({"name": path.model, "ready": true})))
}

fn place(evaluations: &Evaluations) -> Result<SemaphorePermit<'_>, Refusal> {
    let busy = || Refusal::new(ErrorCode::Busy, "too many requests wait: ask again later").after(1);
    evaluations.place().ok_or_else(busy)
}

async fn infer(
    State(evaluations): Shared,
    Path(path): Model,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let _place = place(&evaluations)?;
    if headers.contains_key(CONTENT_ENCODING) {
        return Err(Refusal::new(ErrorCode::UnsupportedMediaType, "compressed bodies are not read: send it as it is"));
    }
    let header_length = headers.get(HEADER_LENGTH).map(header_length).transpose()?;
    let body = read(body, evaluations.max_body).await?;
    let pool = find(&evaluations, &path).await?;
    let mut request = InferRequest::parse(header_length, &body, pool.description())?;
    drop(body);
    let mut rows = std::mem::take(&mut request.rows);
    let moved: Vec<bool> = rows.iter_mut().map(|row| request.clip && pool.description().clip(row)).collect();
    let answers = evaluations.infer(&pool, rows).await?;
    let mut predictions: Vec<Prediction> = answers.into_iter().flat_map(|answer| answer.predictions).collect();
    // The label of what was sent says nothing certain about what was asked.
    predictions.iter_mut().zip(moved).for_each(|(prediction, moved)| prediction.certain &= !moved);
    let model = pool.model();
    let (header_length, answer) = request.answer((&model.name, &model.version), &predictions);
    let content_type = if header_length.is_some() { "application/octet-stream" } else { "application/json" };
    let mut response = ([(CONTENT_TYPE, content_type)], answer).into_response();
    if let Some(length) = header_length {
        response.headers_mut().insert(HEADER_LENGTH, HeaderValue::from(length));
    }
    Ok(response)
}

fn header_length(value: &HeaderValue) -> Result<usize, Refusal> {
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    length.ok_or_else(|| Refusal::new(ErrorCode::BadRequest, format!("{HEADER_LENGTH} is not a number")))
}

async fn read(body: Body, limit: usize) -> Result<bytes::Bytes, Refusal> {
    match timeout(REQUEST_DEADLINE, to_bytes(body, limit)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(Refusal::new(
            ErrorCode::TooLarge,
            format!(
                "the body ends early, or has more than {} MiB: send fewer rows at a time, or allow more by --max-body",
                limit >> 20
            ),
        )),
        Err(_) => Err(Refusal::new(ErrorCode::Deadline, "the body did not come in time")),
    }
}

async fn evidence(State(evaluations): Shared) -> Json<Value> {
    let mut report = evaluations.seen().report;
    let (first, pieces) = evaluations.evidence();
    let piece = |(index, (receipts, bytes)): (usize, (usize, Vec<u8>))| json!({"path": format!("{EVIDENCE}/{}", first + index), "receipts": receipts, "bytes": bytes.len()});
    report["evidence"] = pieces.into_iter().enumerate().map(piece).collect();
    report["check"] = "save each path to a file, then: cloister verify-receipt FILE --policy POLICY".into();
    Json(report)
}

/// CBOR, for `cloister verify-receipt`.
async fn piece(State(evaluations): Shared, Path(piece): Path<usize>) -> Result<Response, Refusal> {
    let (first, mut pieces) = evaluations.evidence();
    let index = piece.checked_sub(first).filter(|index| *index < pieces.len());
    let gone = || Refusal::new(ErrorCode::NotFound, format!("no such piece of evidence: see {EVIDENCE}"));
    let (_, bytes) = pieces.swap_remove(index.ok_or_else(gone)?);
    Ok(([(CONTENT_TYPE, "application/cbor")], bytes).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_loopback() {
        for host in ["127.0.0.1:8000", "127.0.0.1", "localhost:8000", "LOCALHOST", "[::1]:8000", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in
            ["", "evil.example:8000", "127.0.0.1.evil.example", "192.168.0.1", "localhost.evil.example", "0.0.0.0"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
