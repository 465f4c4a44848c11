//! Kept connections to one enclave's HTTP port.

use std::{
    error::Error,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::http::{
    HeaderMap, Method, Request, Response, Uri,
    uri::{Authority, PathAndQuery, Scheme},
};
use bytes::Bytes;
use cloister_wire::limits::MAX_RESPONSE_BYTES;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::time::timeout;
use tower_service::Service;

use crate::address::{Address, Stream};

/// Shorter than an enclave keeps a connection on which nothing is asked, so that few requests meet its end.
const IDLE: Duration = Duration::from_secs(30);

/// Connections to an enclave that are kept for the next request.
pub(crate) struct Pool {
    pub(crate) address: Address,
    client: Client<Connector, Full<Bytes>>,
}

/// A request that can be sent again: to another enclave, or once more to one that closed a kept connection.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What an enclave has answered, complete.
pub(crate) type Answer = Response<Bytes>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unanswered {
    /// The path is none that a request can have.
    #[error("the path cannot be sent")]
    Path(#[from] axum::http::Error),
    /// No connection, or it broke before an answer had begun.
    #[error("{}", causes(.0))]
    Connection(#[from] hyper_util::client::legacy::Error),
    /// It did not come in time.
    #[error("there is no answer within {} s", .0.as_secs_f64())]
    Late(Duration),
    /// The answer broke off, or is larger than any that an enclave gives.
    #[error("the answer ended early or has more than {MAX_RESPONSE_BYTES} bytes: {0}")]
    Body(Box<dyn Error + Send + Sync>),
}

/// The library's own text says only in which step it happened.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

impl Pool {
    pub(crate) fn new(address: Address, connect: Duration) -> Self {
        let connector = Connector { address: address.clone(), limit: connect };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Self { address, client }
    }

    /// Asks, and asks once more if a connection broke: it may be one that was kept and that the enclave has just closed.
    /// Nothing that an enclave is asked does harm when it is asked twice.
    pub(crate) async fn ask(&self, question: &Question) -> Result<Answer, Unanswered> {
        match self.try_ask(question).await {
            Err(Unanswered::Connection(error)) if !error.is_connect() => self.try_ask(question).await,
            result => result,
        }
    }

    async fn try_ask(&self, question: &Question) -> Result<Answer, Unanswered> {
        let (head, body) = self.client.request(question.to_request()?).await?.into_parts();
        let body = Limited::new(body, MAX_RESPONSE_BYTES).collect().await.map_err(Unanswered::Body)?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}

impl Question {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), headers: HeaderMap::new(), body: Bytes::new() }
    }

    pub(crate) fn post(path: impl Into<String>, headers: HeaderMap, body: Bytes) -> Self {
        Self { method: Method::POST, path: path.into(), headers, body }
    }

    fn to_request(&self) -> Result<Request<Full<Bytes>>, axum::http::Error> {
        // HTTP asks for a host, and the pool for a key; the connector goes to the enclave whatever it says.
        let uri = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(Authority::from_static("enclave"))
            .path_and_query(PathAndQuery::try_from(self.path.as_str())?)
            .build()?;
        let mut request = Request::builder().method(self.method.clone()).uri(uri).body(Full::new(self.body.clone()))?;
        request.headers_mut().clone_from(&self.headers);
        Ok(request)
    }
}

#[derive(Clone)]
struct Connector {
    address: Address,
    limit: Duration,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { address, limit } = self.clone();
        Box::pin(async move {
            let stream =
                timeout(limit, address.connect()).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
            Ok(TokioIo::new(stream))
        })
    }
}

impl Connection for Box<dyn Stream> {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}
