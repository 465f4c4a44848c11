//! The HTTP front: which requests are let in, and what answers them.

use std::{path::PathBuf, sync::Arc, time::Instant};

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use cloister_wire::{error::ErrorCode, paths};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as _;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    time::timeout,
};

use crate::{
    address::Address,
    exchange::keep,
    health::Health,
    http,
    limits::Limits,
    log::log,
    metrics::{MEDIA_TYPE, Metrics},
    model::Model,
    objects::{Bucket, Objects},
    oip,
    refusal::Refusal,
    repository::Repository,
    sagemaker::{self, models::LoadedModels, sessions::Sessions},
    server::Shutdown,
    upstream::Upstream,
};

/// What an HTTP front is for.
#[derive(Clone, Debug, Default)]
pub struct FrontSettings {
    /// The enclaves' ports for plain HTTP.
    pub enclaves: Vec<Address>,
    /// Whom a request is for that does not say it.
    pub default_model: Option<Model>,
    /// The places in an object store that requests may name; none of them by default.
    pub buckets: Vec<Bucket>,
    /// Whether models are loaded and unloaded as SageMaker asks.
    pub multi_model: Option<MultiModel>,
}

/// Where models come from and go to. Whoever reaches the front may then load and unload them: for SageMaker, where only the
/// platform does.
#[derive(Clone, Debug)]
pub struct MultiModel {
    /// The folder under which bundles lie.
    pub folder: PathBuf,
    /// The enclaves' model repositories: all of them, or a model would be found on some only.
    pub control: Vec<Address>,
}

/// Answers HTTP requests that arrive at `listener` until `shutdown` asks it to end, and returns when the last one is answered
/// or cut.
pub async fn serve_http(
    listener: TcpListener,
    settings: FrontSettings,
    limits: Limits,
    metrics: Metrics,
    shutdown: watch::Receiver<Shutdown>,
) {
    let front = Arc::new(Front::new(settings, limits, metrics.clone()));
    let _checks = front.health.watch(&front.upstream, front.models.as_ref(), &metrics);
    http::serve(listener, front.router(), limits, Some(metrics), shutdown).await;
}

/// Answers `GET /metrics` at `listener` until `shutdown` asks it to end.
pub async fn serve_metrics(
    listener: TcpListener,
    limits: Limits,
    metrics: Metrics,
    shutdown: watch::Receiver<Shutdown>,
) {
    let page = async |State(metrics): State<Metrics>| ([("content-type", MEDIA_TYPE)], metrics.page());
    let app = Router::new().route("/metrics", get(page)).fallback(not_found).with_state(metrics);
    // What is served here is no service, so it is neither counted nor logged as one.
    http::serve(listener, app, limits, None, shutdown).await;
}

/// Everything that answers take.
pub(crate) struct Front {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) health: Health,
    pub(crate) default_model: Option<Model>,
    pub(crate) sessions: Sessions,
    pub(crate) objects: Objects,
    pub(crate) models: Option<Arc<LoadedModels>>,
    pub(crate) limits: Limits,
    metrics: Metrics,
    requests: Arc<Semaphore>,
}

impl Front {
    fn new(settings: FrontSettings, limits: Limits, metrics: Metrics) -> Self {
        let FrontSettings { enclaves, default_model, buckets, multi_model } = settings;
        let loaded =
            |MultiModel { folder, control }| Arc::new(LoadedModels::new(folder, Repository::new(control, &limits)));
        Self {
            sessions: Sessions::new(enclaves.clone()),
            upstream: Arc::new(Upstream::new(enclaves, &limits, metrics.clone())),
            health: Health::default(),
            default_model,
            objects: Objects::new(buckets, metrics.clone()),
            models: multi_model.map(loaded),
            limits,
            metrics,
            requests: Arc::new(Semaphore::new(limits.requests.get().min(Semaphore::MAX_PERMITS))),
        }
    }

    fn router(self: &Arc<Self>) -> Router {
        let work = oip::routes().merge(sagemaker::routes(self)).layer(from_fn_with_state(self.clone(), admit));
        // Whoever asks these wants to know how we are, all the more when there is much to do.
        let state = Router::new()
            .route(PING, get(sagemaker::ping))
            .route("/execution-parameters", get(sagemaker::execution_parameters));
        work.merge(state)
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .layer(from_fn_with_state(self.clone(), observe))
            .with_state(self.clone())
    }

    /// A body, as far as it is allowed to be; one that says that it is larger is not even read.
    pub(crate) async fn read(&self, body: Body) -> Result<Bytes, Refusal> {
        let max = self.limits.body;
        let too_large = || Refusal::new(ErrorCode::TooLarge, format!("the body has more than the {max} bytes allowed"));
        if body.size_hint().lower() > max as u64 {
            return Err(too_large());
        }
        let arrival = self.limits.arrival;
        match timeout(arrival, Limited::new(body, max).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(_)) => Err(Refusal::bad_request("the body ended early: send it again")),
            Err(_) => {
                let error = format!("the body did not arrive within {} s: send it again", arrival.as_secs_f64());
                Err(Refusal::new(ErrorCode::Deadline, error))
            }
        }
    }
}

/// Lets in as many requests as may be in work, each for as long as it may take. Its place is free when its answer is sent:
/// until then we hold it.
async fn admit(State(front): State<Arc<Front>>, request: Request, next: Next) -> Response {
    let Ok(place) = front.requests.clone().try_acquire_owned() else {
        let error = format!("{} requests are in work already: try again", front.limits.requests);
        return Refusal::new(ErrorCode::Overloaded, error).into_response();
    };
    let answer = timeout(front.limits.answer, next.run(request)).await.unwrap_or_else(|_| {
        let error = format!("no answer within {} s: try again", front.limits.answer.as_secs_f64());
        Refusal::new(ErrorCode::Deadline, error).into_response()
    });
    keep(place, answer)
}

/// Counts and logs what was asked and answered: the pattern of the path and numbers, nothing that a client wrote.
async fn observe(State(front): State<Arc<Front>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let _in_flight = front.metrics.request_began();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let (status, time) = (response.status().as_u16(), began.elapsed());
    front.metrics.request_answered(route, status, time);
    // Asked every few seconds, they would be all that the log says.
    if ![PING, paths::LIVE, paths::READY].contains(&route) {
        log(format_args!("event=answered route={route} status={status} seconds={:.3}", time.as_secs_f64()));
    }
    response
}

const PING: &str = "/ping";

pub(crate) async fn not_found() -> Refusal {
    Refusal::new(ErrorCode::NotFound, "nothing is at this path")
}

async fn method_not_allowed() -> Refusal {
    Refusal::new(ErrorCode::MethodNotAllowed, "this path has another method")
}
