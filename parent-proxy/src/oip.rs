//! The Open Inference Protocol, passed on as it is.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Request, State},
    response::Response,
    routing::{get, post},
};
use cloister_wire::paths;
use serde_json::{Value, json};

use crate::{
    enclaves::Unreachable,
    front::Front,
    pool::Question,
    refusal::Refusal,
    upstream::{headers_up, passed_down},
};

/// What an enclave serves to clients. Its model repository is not among it.
pub(crate) fn routes() -> Router<Arc<Front>> {
    let model = paths::model("{model}", None);
    let version = paths::model("{model}", Some("{version}"));
    let mut routes = Router::new()
        .route(paths::ATTESTATION, post(relay))
        .route(paths::SERVER, get(relay))
        .route(paths::LIVE, get(live))
        .route(paths::READY, get(relay));
    for path in [model, version] {
        routes = routes
            .route(&(path.clone() + paths::MODEL_READY), get(relay))
            .route(&(path.clone() + paths::MODEL_INFER), post(relay))
            .route(&path, get(relay));
    }
    routes
}

/// Whether this process lives. That an enclave does not is no reason to start it anew.
async fn live() -> Json<Value> {
    Json(json!({"live": true}))
}

async fn relay(State(front): State<Arc<Front>>, request: Request) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    let question = Question {
        method: head.method,
        path: head.uri.path().into(),
        headers: headers_up(&head.headers),
        body: front.read(body).await?,
    };
    let (_, answer) = front.upstream.ask(&question).await?;
    Ok(passed_down(answer))
}

impl From<Unreachable> for Refusal {
    fn from(Unreachable: Unreachable) -> Self {
        Self::unavailable()
    }
}
