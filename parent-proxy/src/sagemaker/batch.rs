//! The lines of a batch transform: a request each, and an answer for each.

use axum::http::StatusCode;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use cloister_wire::error::{ErrorBody, ErrorCode};
use serde::{Deserialize, Serialize};
use tokio::task::yield_now;

use super::infer;
use crate::{
    model::Model,
    refusal::Refusal,
    upstream::{Pin, Upstream},
};

/// The answers to a batch are kept until the last is there: so many times what a body may have, a few answers for each byte
/// that was sent, and no multiple of it that a client chooses.
const ANSWERS_PER_BODY: usize = 4;
/// Records of a batch. A line that is none costs a client two bytes and us an answer.
const MAX_LINES: usize = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    model: Option<String>,
    id: Option<String>,
    /// An inference message in base64.
    request: String,
}

#[derive(Serialize)]
struct Answered {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Response(String),
    Error(ErrorBody),
}

/// Answers line by line, in order, but for blank ones. One that cannot be answered does not keep others from being answered.
pub(crate) async fn answer(
    upstream: &Upstream,
    pin: &mut Pin,
    default: &Result<Model, Refusal>,
    body: &[u8],
    max_body: usize,
) -> Result<String, Refusal> {
    let max = ANSWERS_PER_BODY.saturating_mul(max_body);
    let text = str::from_utf8(body).map_err(|_| Refusal::bad_request("the lines are not UTF-8"))?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    if lines.clone().nth(MAX_LINES).is_some() {
        let error = format!("there are more than {MAX_LINES} lines: send fewer at a time");
        return Err(Refusal::new(ErrorCode::TooLarge, error));
    }
    let mut answers = String::new();
    for line in lines {
        let answered = answer_line(upstream, pin, default, line).await;
        answers.push_str(&serde_json::to_string(&answered).expect("texts alone become JSON"));
        answers.push('\n');
        if answers.len() > max {
            let error = format!("the answers have more than {max} bytes: send fewer lines at a time");
            return Err(Refusal::new(ErrorCode::TooLarge, error));
        }
        // Lines that no enclave is asked about would have the thread to themselves, and no deadline.
        yield_now().await;
    }
    Ok(answers)
}

async fn answer_line(upstream: &Upstream, pin: &mut Pin, default: &Result<Model, Refusal>, line: &str) -> Answered {
    let (id, result) = match serde_json::from_str(line) {
        Ok(Record { model, id, request }) => {
            let model = match model {
                Some(text) => text.parse().map_err(|error| Refusal::bad_request(format!("{error}"))),
                None => default.clone(),
            };
            (id, answer_record(upstream, pin, model, &request).await)
        }
        Err(error) => (None, Err(Refusal::bad_request(format!("the line is no record: {error}")))),
    };
    let outcome = result.map_or_else(|refusal| Outcome::Error(refusal.body), Outcome::Response);
    Answered { id, outcome }
}

async fn answer_record(
    upstream: &Upstream,
    pin: &mut Pin,
    model: Result<Model, Refusal>,
    request: &str,
) -> Result<String, Refusal> {
    let message = STANDARD.decode(request).map_err(|_| Refusal::bad_request("the request is not base64"))?;
    let question = infer(&model?, Bytes::from(message));
    let answer = upstream.ask_pinned(pin, &question).await?;
    match answer.status() {
        StatusCode::OK => Ok(STANDARD.encode(answer.body())),
        status => Err(serde_json::from_slice(answer.body()).map_or_else(
            |_| Refusal::new(ErrorCode::Internal, format!("the enclave answered with status {status}")),
            |ErrorBody { error, code }| Refusal::new(code, error),
        )),
    }
}
