//! The model repository, for the parent: what is served, more of it, less of it.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::post,
};
use cloister_inference::Bundle;
use cloister_wire::{
    error::ErrorCode,
    oip::RepositoryModel,
    paths::{self, REPOSITORY_INDEX, REPOSITORY_LOAD},
};
use tokio::time::timeout;

use crate::{
    models::Model,
    refusal::Refusal,
    repository::Repository,
    service::{Target, with_fallbacks},
};

/// What is served at the port that only the parent reaches.
pub(crate) fn router(repository: Arc<Repository>) -> Router {
    let router = Router::new()
        .route(REPOSITORY_INDEX, post(index))
        .route(REPOSITORY_LOAD, post(load))
        .route(&paths::repository_unload("{model}", None), post(unload))
        .route(&paths::repository_unload("{model}", Some("{version}")), post(unload));
    with_fallbacks(router).layer(middleware::from_fn(deadline)).with_state(repository)
}

/// For a bundle to arrive and be made ready.
const DEADLINE: Duration = Duration::from_secs(60);

/// A parent that stops to send takes no place for longer.
async fn deadline(request: Request, next: Next) -> Response {
    let late = || Refusal::new(ErrorCode::Deadline, "the request was not complete in time").into_response();
    timeout(DEADLINE, next.run(request)).await.unwrap_or_else(|_| late())
}

async fn index(State(repository): State<Arc<Repository>>) -> Json<Vec<RepositoryModel>> {
    Json(repository.served().models.iter().map(|held| listed(&held.model)).collect())
}

async fn load(State(repository): State<Arc<Repository>>, request: Request) -> Result<Json<RepositoryModel>, Refusal> {
    let bytes = axum::body::to_bytes(request.into_body(), Bundle::MAX_LEN);
    let bytes =
        bytes.await.map_err(|_| Refusal::new(ErrorCode::TooLarge, "no bundle is as large, or it did not arrive"))?;
    Ok(Json(listed(&*repository.load(bytes.into()).await?)))
}

async fn unload(State(repository): State<Arc<Repository>>, target: Target) -> Result<(), Refusal> {
    Ok(repository.unload(&target.model, target.version.as_deref()).await?)
}

fn listed(model: &Model) -> RepositoryModel {
    RepositoryModel {
        name: model.entry.name.clone(),
        version: model.entry.version.clone(),
        state: "READY".into(),
        digest: model.entry.bundle.to_string(),
    }
}
