//! Questions to whichever enclave answers them.

use std::time::Instant;

use axum::{
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use cloister_wire::HEADER_LENGTH;

use crate::{
    address::Address,
    enclaves::{Enclave, Enclaves, Unreachable, log_unreachable},
    limits::Limits,
    metrics::Metrics,
    pool::{Answer, Pool, Question},
};

/// The headers that go to an enclave. A bearer token is not among them: TLS ended before us, so it is nobody's secret.
const UP: [HeaderName; 2] = [CONTENT_TYPE, HeaderName::from_static(HEADER_LENGTH)];
/// The headers that come back.
const DOWN: [HeaderName; 4] = [CONTENT_TYPE, HeaderName::from_static(HEADER_LENGTH), RETRY_AFTER, WWW_AUTHENTICATE];

/// All enclaves' HTTP ports.
pub(crate) struct Upstream {
    pub(crate) enclaves: Enclaves<Pool>,
    metrics: Metrics,
}

/// Which enclave answers a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pin {
    /// Each question may go to another.
    Free,
    /// All go to the one that answers the first.
    Wanted,
    /// All go to this one.
    To(Address),
}

impl Upstream {
    pub(crate) fn new(addresses: Vec<Address>, limits: &Limits, metrics: Metrics) -> Self {
        let pools = addresses.into_iter().map(|address| Pool::new(address, limits.connect));
        Self { enclaves: Enclaves::new(pools), metrics }
    }

    /// Asks the enclaves in turn until one answers, and says which one did.
    ///
    /// One that says that the question is meant for another has not answered, unless all of them say so.
    pub(crate) async fn ask(&self, question: &Question) -> Result<(&Address, Answer), Unreachable> {
        let mut misdirected = None;
        let mut unreachable = false;
        for enclave in self.enclaves.in_turn(Instant::now()) {
            match self.ask_one(enclave, question).await {
                Ok(answer) if answer.status() == StatusCode::MISDIRECTED_REQUEST => {
                    misdirected = Some((&enclave.way.address, answer));
                }
                Ok(answer) => return Ok((&enclave.way.address, answer)),
                Err(Unreachable) => unreachable = true,
            }
        }
        misdirected.filter(|_| !unreachable).ok_or(Unreachable)
    }

    /// Asks the enclave to which the client is pinned, or else any, and pins a client that wants it to the one that answers.
    pub(crate) async fn ask_pinned(&self, pin: &mut Pin, question: &Question) -> Result<Answer, Unreachable> {
        if let Pin::To(address) = pin {
            let enclave = self.enclaves.all().iter().find(|enclave| enclave.way.address == *address);
            return self.ask_one(enclave.ok_or(Unreachable)?, question).await;
        }
        let (address, answer) = self.ask(question).await?;
        if *pin == Pin::Wanted {
            *pin = Pin::To(address.clone());
        }
        Ok(answer)
    }

    async fn ask_one(&self, enclave: &Enclave<Pool>, question: &Question) -> Result<Answer, Unreachable> {
        let result = enclave.way.ask(question).await;
        enclave.note(result.is_err().then(Instant::now));
        result.map_err(|error| {
            self.metrics.upstream_failed(&enclave.way.address);
            log_unreachable(&enclave.way.address, &error.to_string());
            Unreachable
        })
    }
}

/// Of a client's headers those that an enclave gets.
pub(crate) fn headers_up(headers: &HeaderMap) -> HeaderMap {
    only(&UP, headers)
}

pub(crate) fn content_type(media_type: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media_type))])
}

/// An enclave's answer as a client gets it.
pub(crate) fn passed_down(answer: Answer) -> Response {
    let (head, body) = answer.into_parts();
    (head.status, only(&DOWN, &head.headers), body).into_response()
}

fn only(names: &[HeaderName], headers: &HeaderMap) -> HeaderMap {
    let kept = names.iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone())));
    kept.collect()
}
