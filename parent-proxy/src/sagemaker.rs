//! The contract of a SageMaker container: one verb for everything, told apart by its content type.
//!
//! ```text
//! attributes   the custom attributes of a request
//! sessions     clients that stay with one enclave
//! batch        the lines of a batch transform
//! models       the verbs of a multi-model endpoint
//! ```

pub(crate) mod attributes;
pub(crate) mod batch;
pub(crate) mod models;
pub(crate) mod sessions;

use std::{sync::Arc, time::SystemTime};

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use cloister_wire::{
    ATTESTATION_MEDIA_TYPE, INFER_MEDIA_TYPE, METADATA_MEDIA_TYPE, OBJECT_MEDIA_TYPE,
    error::ErrorCode,
    object::{ObjectRequest, ObjectResponse},
    paths,
};
use serde::Serialize;

use self::{
    attributes::{Attributes, CUSTOM_ATTRIBUTES},
    sessions::{CLOSED_SESSION_ID, NEW_SESSION_ID, Session, SessionRequest},
};
use crate::{
    front::Front,
    model::Model,
    pool::Question,
    refusal::Refusal,
    upstream::{Pin, content_type, passed_down},
};

const TARGET_MODEL: HeaderName = HeaderName::from_static("x-amzn-sagemaker-target-model");
const INFERENCE_ID: HeaderName = HeaderName::from_static("x-amzn-sagemaker-inference-id");
const LINES_MEDIA_TYPE: &str = "application/jsonlines";

pub(crate) fn routes(front: &Front) -> Router<Arc<Front>> {
    let invocations = Router::new().route("/invocations", post(invocations));
    match front.models {
        Some(_) => invocations.merge(models::routes()),
        None => invocations,
    }
}

/// Whether an enclave is ready and attests; what the last check found, so that the answer is there at once.
pub(crate) async fn ping(State(front): State<Arc<Front>>) -> Result<StatusCode, Refusal> {
    match front.health.any_up() {
        true => Ok(StatusCode::OK),
        false => Err(Refusal::unavailable()),
    }
}

/// How a batch transform sends its records, where it does not say it itself.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ExecutionParameters {
    max_concurrent_transforms: usize,
    batch_strategy: &'static str,
    #[serde(rename = "MaxPayloadInMB")]
    max_payload_in_mb: usize,
}

pub(crate) async fn execution_parameters(State(front): State<Arc<Front>>) -> Json<ExecutionParameters> {
    // SageMaker refuses a transform whose payloads together may have more.
    const MAX_MB_AT_A_TIME: usize = 100;
    let max_payload_in_mb = (front.limits.body >> 20).clamp(1, MAX_MB_AT_A_TIME);
    let max_concurrent_transforms = front.limits.requests.get().min(MAX_MB_AT_A_TIME / max_payload_in_mb);
    Json(ExecutionParameters { max_concurrent_transforms, batch_strategy: "MULTI_RECORD", max_payload_in_mb })
}

async fn invocations(State(front): State<Arc<Front>>, request: Request) -> Response {
    invoke(&front, None, request).await
}

/// Does what a request's content type asks for, with the `model` that its path names, if it names one.
pub(crate) async fn invoke(front: &Front, model: Option<Model>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let result = answer(front, model, &head.headers, body).await;
    let mut response = result.unwrap_or_else(IntoResponse::into_response);
    for name in [CUSTOM_ATTRIBUTES, INFERENCE_ID] {
        if let Some(value) = head.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

async fn answer(front: &Front, model: Option<Model>, headers: &HeaderMap, body: Body) -> Result<Response, Refusal> {
    let attributes = Attributes::of(headers)?;
    let session = Session::of(headers, &front.sessions)?;
    let content = Content::of(headers, &session)?;
    let body = front.read(body).await?;
    let mut invocation = Invocation { front, model, headers, attributes, pin: session.pin(), session };
    let mut response = invocation.answer(content, body).await?;
    if response.status().is_success() {
        response.headers_mut().extend(invocation.new_session());
    }
    Ok(response)
}

/// What a body is, and so what is to be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Attestation,
    Metadata,
    Infer,
    Object,
    Lines,
    Session,
}

impl Content {
    fn of(headers: &HeaderMap, session: &Session) -> Result<Self, Refusal> {
        let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            ATTESTATION_MEDIA_TYPE => Ok(Self::Attestation),
            METADATA_MEDIA_TYPE => Ok(Self::Metadata),
            INFER_MEDIA_TYPE => Ok(Self::Infer),
            OBJECT_MEDIA_TYPE => Ok(Self::Object),
            LINES_MEDIA_TYPE => Ok(Self::Lines),
            "application/json" if *session != Session::None => Ok(Self::Session),
            "application/json" | "text/csv" => Err(plaintext_refused()),
            _ => Err(unsupported("this content type is not served")),
        }
    }
}

fn plaintext_refused() -> Refusal {
    unsupported("plaintext is refused: encrypt with a Cloister client, which verifies the enclave first")
}

fn unsupported(why: &str) -> Refusal {
    let accepted = [ATTESTATION_MEDIA_TYPE, METADATA_MEDIA_TYPE, INFER_MEDIA_TYPE, OBJECT_MEDIA_TYPE, LINES_MEDIA_TYPE];
    Refusal::new(ErrorCode::UnsupportedMediaType, format!("{why}; accepted are {}", accepted.join(", ")))
}

/// A request whose head is read.
struct Invocation<'a> {
    front: &'a Front,
    model: Option<Model>,
    headers: &'a HeaderMap,
    attributes: Attributes<'a>,
    session: Session,
    pin: Pin,
}

impl Invocation<'_> {
    async fn answer(&mut self, content: Content, body: Bytes) -> Result<Response, Refusal> {
        let question = match content {
            Content::Attestation => Question::post(paths::ATTESTATION, content_type(ATTESTATION_MEDIA_TYPE), body),
            Content::Metadata => Question::get(self.model()?.path()),
            Content::Infer => infer(&self.model()?, body),
            Content::Object => return self.object(&body).await,
            Content::Lines => return self.lines(&body).await,
            Content::Session => return self.session(&body).await,
        };
        Ok(passed_down(self.front.upstream.ask_pinned(&mut self.pin, &question).await?))
    }

    /// Whom the request is for: said by the path, by SageMaker's header, by an attribute, or by nothing.
    fn model(&self) -> Result<Model, Refusal> {
        if let Some(model) = &self.model {
            return Ok(model.clone());
        }
        let target = self.headers.get(TARGET_MODEL).map(target_model).transpose()?;
        match target.or_else(|| self.attributes.value("model")) {
            Some(text) => text.parse().map_err(|error| Refusal::bad_request(format!("{error}"))),
            None => self.front.default_model.clone().ok_or_else(|| {
                let how = "the request names no model: name one with X-Amzn-SageMaker-Target-Model, or with model=NAME in \
                           X-Amzn-SageMaker-Custom-Attributes";
                Refusal::bad_request(how)
            }),
        }
    }

    /// Answers a message that lies in an object store, there or here.
    async fn object(&mut self, body: &[u8]) -> Result<Response, Refusal> {
        let request: ObjectRequest = serde_json::from_slice(body)
            .map_err(|error| Refusal::bad_request(format!("the body names no objects: {error}")))?;
        let exchange = self.front.objects.exchange(&request)?;
        let model = self.model()?;
        let message = exchange.fetch(self.front.limits.body).await?;
        let answer = self.front.upstream.ask_pinned(&mut self.pin, &infer(&model, message)).await?;
        match request.output {
            Some(output) if answer.status() == StatusCode::OK => {
                exchange.store(answer.into_body()).await?;
                Ok(Json(ObjectResponse { output }).into_response())
            }
            _ => Ok(passed_down(answer)),
        }
    }

    async fn lines(&mut self, body: &[u8]) -> Result<Response, Refusal> {
        let model = self.model();
        let lines = batch::answer(&self.front.upstream, &mut self.pin, &model, body, self.front.limits.body).await?;
        Ok(([(CONTENT_TYPE, LINES_MEDIA_TYPE)], lines).into_response())
    }

    /// Opens or closes a session without anything else, as AWS's own containers let clients do.
    async fn session(&mut self, body: &[u8]) -> Result<Response, Refusal> {
        let request: SessionRequest = serde_json::from_slice(body).map_err(|_| plaintext_refused())?;
        match (request, &self.session) {
            (SessionRequest::Close, Session::Bound { id, .. }) => {
                self.front.sessions.close(id);
                Ok(([(CLOSED_SESSION_ID, id.clone())], Json(request)).into_response())
            }
            (SessionRequest::NewSession, Session::New) => {
                let answer = self.front.upstream.ask_pinned(&mut self.pin, &Question::get(paths::READY)).await?;
                match answer.status().is_success() {
                    true => Ok(Json(request).into_response()),
                    false => Ok(passed_down(answer)),
                }
            }
            _ => {
                let how =
                    "the header X-Amzn-SageMaker-Session-Id is NEW_SESSION to open a session, and its id to close it";
                Err(Refusal::bad_request(how))
            }
        }
    }

    /// The session that the client asked for, with the enclave that has answered, as a header.
    fn new_session(&self) -> Option<(HeaderName, HeaderValue)> {
        let (Session::New, Pin::To(enclave)) = (&self.session, &self.pin) else { return None };
        let session = self.front.sessions.open(enclave, SystemTime::now())?;
        Some((NEW_SESSION_ID, HeaderValue::try_from(session).ok()?))
    }
}

/// The header's value without what makes it the key of an object.
fn target_model(value: &HeaderValue) -> Result<&str, Refusal> {
    let text =
        value.to_str().map_err(|_| Refusal::bad_request("X-Amzn-SageMaker-Target-Model is not visible ASCII"))?;
    let text = text.strip_prefix('/').unwrap_or(text);
    Ok(text.strip_suffix(".cloister").or_else(|| text.strip_suffix(".tar.gz")).unwrap_or(text))
}

/// Asks for the inference of a message that says itself where its parts end.
pub(crate) fn infer(model: &Model, message: Bytes) -> Question {
    Question::post(model.infer_path(), content_type(INFER_MEDIA_TYPE), message)
}
