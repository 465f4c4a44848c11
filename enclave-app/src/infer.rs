//! `POST …/infer`: what a request goes through until it is answered or refused.

use std::{sync::Arc, time::Instant};

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue,
        header::{CONTENT_LENGTH, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use cloister_attestation::{Channel, Sha384};
use cloister_wire::{
    BINARY_MEDIA_TYPE, HEADER_LENGTH, INFER_MEDIA_TYPE,
    error::ErrorCode,
    oip::{Expected, Framed, InferRequest, InferResponse, header_length},
};
use futures_util::StreamExt;

use crate::{
    access::{Account, Caller, Charge},
    admission::Client,
    evaluations::Work,
    memory::Reserved,
    refusal::Refusal,
    repository::Held,
    server::Peer,
    service::{Service, Target},
};

/// Answers an encrypted request.
pub(crate) async fn infer(
    State(service): State<Arc<Service>>,
    Extension(channel): Extension<Channel>,
    Extension(peer): Extension<Peer>,
    target: Target,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    // What is larger is a request to none of the models.
    let limit = service.repository.served().largest_request();
    let Admitted { account, client, held, framing, request_memory, answer_memory } =
        match Admitted::of(&service, channel, &peer, &target, &head.headers, limit) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                discard(body, limit).await;
                return Err(refusal);
            }
        };

    let body = receive(body, limit).await?;
    let request = InferRequest::parse(framing.header_length(&body)?, &body)?;
    check_expected(&service, request.expected, &held)?;
    let asked = held.model.evaluator.check(request.ciphertext)?;
    let key = peer.keys.find(asked.key, request.public_key)?.ok_or(Refusal::new(
        ErrorCode::PublicKeyMissing,
        "the public key that the ciphertext names was not sent on this connection: send it with the request",
    ))?;

    let charge = Charge { compute: asked.cost, ..Charge::default() };
    spend(account, charge)?;
    let place = service.evaluations.admit(client, asked.cost).await.inspect_err(|_| account.refund(charge))?;
    spend_logits(account, &held, asked.logits)?;
    let work = Work { model: held.model.clone(), request: body.slice_ref(request.ciphertext), key };
    let ciphertext = service.evaluations.evaluate(work, asked.cost, place).await?;

    let entry = &held.model.entry;
    let digests = (Sha384::of(request.ciphertext), Sha384::of(&ciphertext));
    let receipt = service.notary.receipt(digests.0, digests.1, entry.bundle, held.model.parameters);
    let response = InferResponse {
        model_name: &entry.name,
        model_version: &entry.version,
        id: request.id,
        ciphertext: &ciphertext,
        receipt: &receipt,
    };
    drop(request_memory);
    let Framed { header_length, body } = response.to_framed();
    let mut response = ([(CONTENT_TYPE, framing.media_type())], answer_memory.until_sent(body)).into_response();
    response.headers_mut().insert(HEADER_LENGTH, HeaderValue::from(header_length));
    Ok(response)
}

/// A request of which the head is known, and what was taken for the rest of it.
struct Admitted<'a> {
    account: &'a Account,
    client: Client,
    held: Held,
    framing: Framing,
    request_memory: Reserved,
    answer_memory: Reserved,
}

impl<'a> Admitted<'a> {
    /// Before the body is read: whoever may not ask, or not so much now, costs nothing.
    fn of(
        service: &'a Service,
        channel: Channel,
        peer: &Peer,
        target: &Target,
        headers: &HeaderMap,
        limit: usize,
    ) -> Result<Self, Refusal> {
        let Caller { account, number } = service.caller(channel, headers)?;
        let held = service.find(target)?;
        let framing = Framing::of(headers)?;
        let bytes = stated_length(headers).unwrap_or(limit);
        if bytes > limit {
            return Err(too_large(limit));
        }
        let request_memory = service.reserve(account, bytes)?;
        let answer_memory = service.reserve(account, held.model.largest_reply)?;
        spend(account, Charge { requests: 1, bytes, ..Charge::default() })?;
        let client = match number {
            Some(number) => Client::Known(number),
            // Where some are known, all others together are one.
            None if service.clients.are_known() => Client::Others,
            None => Client::Connection(peer.number),
        };
        Ok(Self { account, client, held, framing, request_memory, answer_memory })
    }
}

fn spend(account: &Account, charge: Charge) -> Result<(), Refusal> {
    account.spend(charge, Instant::now()).map_err(|after| {
        Refusal::new(ErrorCode::RateLimited, "the budget of this client is spent for now").until(after)
    })
}

/// Takes logits of the client's budget and of the model's, or of neither.
fn spend_logits(account: &Account, held: &Held, logits: u64) -> Result<(), Refusal> {
    if let Err(left) = account.spend_logits(logits) {
        let why = format!("the request asks for {logits} logits, of which the client may have {left} more");
        return Err(Refusal::new(ErrorCode::BudgetSpent, why));
    }
    if !held.spend(logits) {
        account.refund_logits(logits);
        let why = format!("the request asks for {logits} logits, more than the model's owner still allows");
        return Err(Refusal::new(ErrorCode::BudgetSpent, why));
    }
    Ok(())
}

/// That the client gets an answer that it accepts, or none.
fn check_expected(service: &Service, expected: Expected<'_>, held: &Held) -> Result<(), Refusal> {
    let Expected { bundle, receipt_key } = expected;
    if receipt_key.is_some_and(|expected| expected != service.notary.receipt_key_digest()) {
        return Err(Refusal::new(ErrorCode::Misdirected, "the request was made for another enclave than this one"));
    }
    let Some(expected) = bundle else { return Ok(()) };
    let no_digest = |_| Refusal::new(ErrorCode::BadRequest, "the expected bundle is no digest");
    let (expected, actual) = (expected.parse::<Sha384>().map_err(no_digest)?, held.model.entry.bundle);
    if expected != actual {
        let why = format!("the model is another one: expected {expected}, served is {actual}");
        return Err(Refusal::new(ErrorCode::ModelChanged, why));
    }
    Ok(())
}

/// What says where the JSON header of a message ends.
#[derive(Clone, Copy, Debug)]
enum Framing {
    /// The message itself.
    Own,
    /// The HTTP header; none, if all of the body is JSON.
    Stated(Option<usize>),
}

impl Framing {
    fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        if has_media_type(headers, INFER_MEDIA_TYPE) {
            return Ok(Self::Own);
        }
        let Some(value) = headers.get(HEADER_LENGTH) else { return Ok(Self::Stated(None)) };
        let length = value.to_str().ok().and_then(|text| text.parse().ok());
        length
            .map(|length| Self::Stated(Some(length)))
            .ok_or(Refusal::new(ErrorCode::BadRequest, "Inference-Header-Content-Length is not a number"))
    }

    fn header_length(self, body: &[u8]) -> Result<Option<usize>, Refusal> {
        match self {
            Self::Own => Ok(Some(header_length(body)?)),
            Self::Stated(length) => Ok(length),
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Own => INFER_MEDIA_TYPE,
            Self::Stated(_) => BINARY_MEDIA_TYPE,
        }
    }
}

fn has_media_type(headers: &HeaderMap, media_type: &str) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    value.split(';').next().is_some_and(|value| value.trim().eq_ignore_ascii_case(media_type))
}

fn stated_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads a body of at most `limit` bytes.
pub(crate) async fn receive(body: Body, limit: usize) -> Result<Bytes, Refusal> {
    axum::body::to_bytes(body, limit).await.map_err(|error| match is_length_limit(&error) {
        true => too_large(limit),
        false => Refusal::new(ErrorCode::BadRequest, "the body did not arrive"),
    })
}

/// Takes what still comes and forgets it, so that a refusal reaches whoever is sending, and the connection stays of use.
async fn discard(body: Body, limit: usize) {
    let (mut data, mut left) = (body.into_data_stream(), limit);
    while let Some(Ok(chunk)) = data.next().await {
        let Some(rest) = left.checked_sub(chunk.len()) else { return };
        left = rest;
    }
}

fn too_large(limit: usize) -> Refusal {
    Refusal::new(ErrorCode::TooLarge, format!("the body has more than {limit} bytes"))
}

fn is_length_limit(error: &axum::Error) -> bool {
    use std::error::Error;
    std::iter::successors(error.source(), |&error| error.source())
        .any(|error| error.is::<http_body_util::LengthLimitError>())
}
