//! The SageMaker runtime as far as time goes: it hands requests on to a container, over connections that it keeps. Whether they
//! are signed is checked by `tests/python/runtime.py`.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use tokio::net::TcpListener;

/// The name of its one endpoint.
pub const ENDPOINT: &str = "iris-endpoint";

struct Runtime {
    client: reqwest::Client,
    container: String,
}

/// Starts one before a container, `http://HOST:PORT`.
pub async fn start(container: &str) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let runtime = Arc::new(Runtime { client: reqwest::Client::new(), container: container.to_owned() });
    let app = Router::new().route(&format!("/endpoints/{ENDPOINT}/invocations"), post(invoke)).with_state(runtime);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}

async fn invoke(State(runtime): State<Arc<Runtime>>, request: Request) -> Response {
    let answer = runtime.hand_on(request).await;
    answer.unwrap_or_else(|error| (StatusCode::BAD_GATEWAY, error.to_string()).into_response())
}

impl Runtime {
    async fn hand_on(&self, request: Request) -> anyhow::Result<Response> {
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await?;
        let mut invocation = self.client.post(format!("{}/invocations", self.container)).body(body);
        for (name, value) in &head.headers {
            if name == "content-type" || name.as_str().starts_with("x-amzn-sagemaker-") {
                invocation = invocation.header(name, value);
            }
        }
        let answer = invocation.send().await?;
        let media_type = answer.headers().get("content-type").context("an answer has a content type")?.clone();
        let response = Response::builder().status(answer.status()).header("content-type", media_type);
        Ok(response.body(Body::from(answer.bytes().await?))?)
    }
}
