//! A gateway that hands each request to the next of several enclaves, as balancers do, and changes answers if it is told to.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Context;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use cloister_client::Intermediary;
use cloister_wire::{HEADER_LENGTH, paths};
use tokio::net::TcpListener;

use super::locked;
use crate::service::gateway;

/// What a gateway makes of the answer to a path.
pub type Change = fn(&str, Bytes) -> Bytes;

/// A running gateway.
#[derive(Debug)]
pub struct Balancer {
    /// Where it listens, in plain HTTP.
    pub address: SocketAddr,
    enclaves: Vec<SocketAddr>,
    turn: AtomicUsize,
    /// Whose turn it always is, or nobody's.
    pinned: Mutex<Option<usize>>,
    change: Change,
    asked: Mutex<Vec<(usize, String)>>,
}

impl Balancer {
    /// Starts one before the plain ports of these enclaves.
    pub async fn start(enclaves: &[SocketAddr], change: Change) -> anyhow::Result<Arc<Self>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, enclaves, turn) = (listener.local_addr()?, enclaves.to_vec(), AtomicUsize::new(0));
        let (pinned, asked) = (Mutex::default(), Mutex::default());
        let balancer = Arc::new(Self { address, enclaves, turn, pinned, change, asked });
        let app = Router::new().fallback(relay).with_state(balancer.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(balancer)
    }

    /// As clients name it.
    pub fn gateway(&self) -> anyhow::Result<Intermediary> {
        gateway(self.address)
    }

    /// From now on it hands everything to this one.
    pub fn pin(&self, enclave: usize) {
        *locked(&self.pinned) = Some(enclave);
    }

    /// Which enclave got which path.
    pub fn asked(&self) -> Vec<(usize, String)> {
        locked(&self.asked).clone()
    }

    async fn relay(&self, request: Request) -> anyhow::Result<Response> {
        let pinned = *locked(&self.pinned);
        let turn = pinned.unwrap_or_else(|| self.turn.fetch_add(1, Ordering::Relaxed) % self.enclaves.len());
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        locked(&self.asked).push((turn, path.clone()));
        let url = format!("http://{}{path}", self.enclaves.get(turn).context("no such enclave")?);
        let body = axum::body::to_bytes(body, usize::MAX).await?;
        let mut forward = reqwest::Client::new().request(head.method, url).body(body);
        if let Some(media_type) = head.headers.get("content-type") {
            forward = forward.header("content-type", media_type);
        }
        let answer = forward.send().await?;
        let mut response = Response::builder().status(answer.status());
        if let Some(length) = answer.headers().get(HEADER_LENGTH) {
            response = response.header(HEADER_LENGTH, length);
        }
        Ok(response.body(Body::from((self.change)(&path, answer.bytes().await?)))?)
    }
}

async fn relay(State(balancer): State<Arc<Balancer>>, request: Request) -> Response {
    let answer = balancer.relay(request).await;
    answer.unwrap_or_else(|error| (StatusCode::BAD_GATEWAY, error.to_string()).into_response())
}

/// Nothing else than what it got.
pub fn unchanged(_: &str, answer: Bytes) -> Bytes {
    answer
}

/// Half of what it should give.
pub fn cut_answer(path: &str, answer: Bytes) -> Bytes {
    if path.ends_with("/infer") { answer.slice(..answer.len() - 1) } else { answer }
}

/// Nothing of what it should give.
pub fn empty_answer(path: &str, answer: Bytes) -> Bytes {
    if path.ends_with("/infer") { Bytes::new() } else { answer }
}

/// Half of what it should give.
pub fn cut_presentation(path: &str, answer: Bytes) -> Bytes {
    if path == paths::ATTESTATION { answer.slice(..answer.len() - 1) } else { answer }
}

/// Half of what it should give.
pub fn cut_metadata(path: &str, answer: Bytes) -> Bytes {
    if path.contains("/versions/") && !path.ends_with("/infer") { answer.slice(..answer.len() / 2) } else { answer }
}
