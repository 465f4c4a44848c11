//! A front before enclaves that say what they were asked.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_lc_rs::digest;
use axum::{
    Json, Router,
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::{HeaderMap, Method, StatusCode, request, response},
    response::{IntoResponse, Response},
};
use cloister_parent_proxy::{Address, FrontSettings, Limits, Metrics, Shutdown, serve_http};
use cloister_wire::{
    error::{ErrorBody, ErrorCode},
    oip::RepositoryModel,
    paths,
};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

/// The longest that a test waits for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// A limit that no test reaches.
pub(crate) const NEVER: Duration = Duration::from_secs(3600);

pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("what must happen did not, however long the test waited")
}

/// Waits until something holds.
pub(crate) async fn until(holds: impl AsyncFn() -> bool) {
    let waiting = async {
        while !holds().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    soon(waiting).await;
}

/// A question as an enclave gets it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A model repository that loads what [`bundle`] makes, and `bundle NAME` without a digest of its own.
#[derive(Clone, Default)]
pub(crate) struct Models(Arc<Mutex<Vec<RepositoryModel>>>);

impl Models {
    pub(crate) async fn start(&self) -> Enclave {
        let models = self.clone();
        Enclave::that(move |asked| std::future::ready(models.answer(&asked))).await
    }

    pub(crate) fn with(name: &str, digest: &str) -> Self {
        let models = Self::default();
        models.serve(model(name, digest));
        models
    }

    pub(crate) fn answer(&self, asked: &Asked) -> Response {
        match asked.path.as_str() {
            paths::REPOSITORY_INDEX => Json(self.served()).into_response(),
            paths::REPOSITORY_LOAD => match loaded(&asked.body) {
                Some(model) => {
                    self.serve(model.clone());
                    Json(model).into_response()
                }
                None => refuses(ErrorCode::BundleRefused),
            },
            path => match self.unload(path) {
                true => StatusCode::OK.into_response(),
                false => refuses(ErrorCode::UnknownModel),
            },
        }
    }

    /// Loads a bundle of this enclave's own, and says its digest.
    pub(crate) fn load(&self, bundle: &[u8]) -> String {
        let model = loaded(bundle).unwrap();
        self.serve(model.clone());
        model.digest
    }

    pub(crate) fn served(&self) -> Vec<RepositoryModel> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn digests(&self) -> Vec<String> {
        self.served().into_iter().map(|model| model.digest).collect()
    }

    /// Begins anew, with nothing.
    pub(crate) fn forget(&self) {
        self.0.lock().unwrap().clear();
    }

    fn serve(&self, model: RepositoryModel) {
        let mut models = self.0.lock().unwrap();
        models.retain(|other| other.name != model.name);
        models.push(model);
    }

    fn unload(&self, path: &str) -> bool {
        let mut models = self.0.lock().unwrap();
        let before = models.len();
        models.retain(|model| paths::repository_unload(&model.name, Some(&model.version)) != path);
        models.len() < before
    }
}

fn model(name: &str, digest: &str) -> RepositoryModel {
    RepositoryModel { name: name.into(), version: "1".into(), state: "READY".into(), digest: digest.into() }
}

fn loaded(body: &[u8]) -> Option<RepositoryModel> {
    #[derive(serde::Deserialize)]
    struct Bundle {
        description: ciborium::Value,
    }
    let digest = format!("sha384:{}", hex::encode(digest::digest(&digest::SHA384, body)));
    if let Some(name) = body.strip_prefix(b"bundle ") {
        return Some(model(str::from_utf8(name).unwrap(), &digest));
    }
    let Bundle { description } = ciborium::from_reader(body).ok()?;
    let description: HashMap<String, String> = ciborium::from_reader(description.as_bytes()?.as_slice()).unwrap();
    Some(model(&description["name"], &digest))
}

/// As much of a bundle as says its name and its version, and something to set it apart.
pub(crate) fn bundle(name: &str, weights: u8) -> Vec<u8> {
    let text = |text: &str| ciborium::Value::Text(text.into());
    let description = [(text("name"), text(name)), (text("version"), text("1"))];
    let description = ciborium::Value::Bytes(cbor(&ciborium::Value::Map(description.into())));
    cbor(&ciborium::Value::Map(vec![(text("weights"), weights.into()), (text("description"), description)]))
}

fn cbor(value: &ciborium::Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

/// An enclave that keeps what it was asked.
pub(crate) struct Enclave {
    pub(crate) address: Address,
    asked: Arc<Mutex<Vec<Asked>>>,
    running: JoinHandle<()>,
}

impl Enclave {
    /// One that is ready, attests and answers as [`answers`] does.
    pub(crate) async fn start() -> Self {
        Self::that(|asked| async move { answers(&asked) }).await
    }

    pub(crate) async fn that<F>(answer: impl Fn(Asked) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp(listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = asked.clone();
        let app = Router::new().fallback(move |request: Request| {
            let (answer, kept) = (answer.clone(), kept.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = to_bytes(body, usize::MAX).await.unwrap();
                let asked = Asked { method: head.method, path: head.uri.to_string(), headers: head.headers, body };
                kept.lock().unwrap().push(asked.clone());
                answer(asked).await
            }
        });
        let running = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, asked, running }
    }

    /// What it was asked, but for the checks of its health.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap().clone();
        asked.into_iter().filter(|asked| asked.path != paths::READY && asked.path != paths::ATTESTATION).collect()
    }

    /// What a model repository was asked to change.
    pub(crate) fn changes(&self) -> Vec<Asked> {
        self.asked().into_iter().filter(|asked| asked.path != paths::REPOSITORY_INDEX).collect()
    }

    pub(crate) fn was_asked(&self, path: &str) -> bool {
        self.asked.lock().unwrap().iter().any(|asked| asked.path == path)
    }

    pub(crate) fn last(&self) -> Asked {
        self.asked().pop().unwrap()
    }
}

impl Drop for Enclave {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// `METHOD PATH:` and the body, with headers of all kinds.
pub(crate) fn answers(asked: &Asked) -> Response {
    let body = [format!("{} {}:", asked.method, asked.path).as_bytes(), &asked.body].concat();
    let headers = [
        ("content-type", "application/vnd.cloister.test"),
        ("inference-header-content-length", "7"),
        ("retry-after", "3"),
        ("www-authenticate", "Bearer"),
        ("set-cookie", "not=passed"),
        ("server", "not passed"),
    ];
    (headers, body).into_response()
}

pub(crate) fn refuses(code: ErrorCode) -> Response {
    let status = StatusCode::from_u16(code.status()).unwrap();
    (status, axum::Json(ErrorBody { error: "as the test wants".into(), code })).into_response()
}

/// An address at which nothing listens. It stays taken, so that no other test gets it.
pub(crate) async fn closed() -> Address {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    std::mem::forget(socket);
    tcp(address)
}

pub(crate) fn tcp(address: SocketAddr) -> Address {
    Address::Tcp { host: address.ip().to_string(), port: address.port() }
}

/// A running HTTP front.
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    pub(crate) metrics: Metrics,
    shutdown: watch::Sender<Shutdown>,
    running: JoinHandle<()>,
}

impl Front {
    pub(crate) async fn to(enclaves: &[&Enclave]) -> Self {
        Self::with(settings(enclaves), unlimited()).await
    }

    pub(crate) async fn with(settings: FrontSettings, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Metrics::default();
        let (shutdown, asked) = watch::channel(Shutdown::NotAsked);
        let running = tokio::spawn(serve_http(listener, settings, limits, metrics.clone(), asked));
        Self { address, metrics, shutdown, running }
    }

    pub(crate) fn ask(&self, step: Shutdown) {
        self.shutdown.send(step).unwrap();
    }

    pub(crate) async fn ended(self) {
        soon(self.running).await.unwrap();
    }

    pub(crate) async fn refuses(&self) {
        until(async || TcpStream::connect(self.address).await.is_err()).await;
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(request(Method::GET, path), Body::empty()).await
    }

    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut head = request(Method::POST, path);
        for (name, value) in headers {
            head = head.header(*name, *value);
        }
        self.send(head, body.into()).await
    }

    /// `POST /invocations` with a content type and other headers.
    pub(crate) async fn invoke(&self, media_type: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        self.post("/invocations", &[&[("content-type", media_type)], headers].concat(), body).await
    }

    pub(crate) async fn send(&self, head: request::Builder, body: Body) -> Answer {
        let mut request = head.body(body).unwrap();
        let uri = format!("http://{}{}", self.address, request.uri());
        *request.uri_mut() = uri.parse().unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let (head, body) = soon(client.request(request)).await.unwrap().into_parts();
        Answer { head, body: soon(to_bytes(Body::new(body), usize::MAX)).await.unwrap() }
    }
}

pub(crate) fn request(method: Method, path: &str) -> request::Builder {
    Request::builder().method(method).uri(path)
}

pub(crate) fn settings(enclaves: &[&Enclave]) -> FrontSettings {
    let enclaves = enclaves.iter().map(|enclave| enclave.address.clone()).collect();
    FrontSettings { enclaves, ..FrontSettings::default() }
}

pub(crate) fn unlimited() -> Limits {
    Limits { connect: NEVER, arrival: NEVER, answer: NEVER, drain: NEVER, ..Limits::default() }
}

/// What a client gets.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: response::Parts,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The code of a refusal, which has that code's status and says something.
    pub(crate) fn code(&self) -> ErrorCode {
        let ErrorBody { error, code } = serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?}"));
        assert_eq!(self.status(), code.status(), "{error}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert!(!error.is_empty());
        code
    }

    /// What a refusal says.
    pub(crate) fn error(&self) -> String {
        serde_json::from_slice::<ErrorBody>(&self.body).unwrap().error
    }
}

/// An enclave that answers inference once it is let, and how to let it.
pub(crate) async fn waiting() -> (Enclave, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let waits = gate.clone();
    let enclave = Enclave::that(move |asked| {
        let waits = waits.clone();
        async move {
            if asked.path.ends_with("/infer") {
                waits.acquire().await.unwrap().forget();
            }
            answers(&asked)
        }
    });
    (enclave.await, gate)
}
