//! Whether enclaves are ready, attest and serve what they were given, found out before anybody asks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use cloister_wire::{ATTESTATION_MEDIA_TYPE, limits::NONCE_BYTES, paths};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    enclaves::Enclave,
    log::log,
    metrics::Metrics,
    pool::{Pool, Question},
    sagemaker::models::LoadedModels,
    upstream::{Upstream, content_type},
};

/// Between two checks of an enclave that is up.
const WHEN_UP: Duration = Duration::from_secs(5);
/// Between two checks of one that is not.
const WHEN_DOWN: Duration = Duration::from_secs(1);
/// Between two attestation documents of an enclave that is up.
const ATTESTED: Duration = Duration::from_secs(60);
/// For one answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many enclaves are up, as of their last check.
#[derive(Clone, Default)]
pub(crate) struct Health(Arc<AtomicUsize>);

impl Health {
    pub(crate) fn any_up(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    /// Checks every enclave for as long as the tasks are kept. One that has lost `models` is down until it has them again.
    pub(crate) fn watch(
        &self,
        upstream: &Arc<Upstream>,
        models: Option<&Arc<LoadedModels>>,
        metrics: &Metrics,
    ) -> JoinSet<()> {
        let mut checks = JoinSet::new();
        for index in 0..upstream.enclaves.all().len() {
            let (up, upstream, metrics) = (self.0.clone(), upstream.clone(), metrics.clone());
            let check = Check { up: false, attested: None, models: models.map(|models| (models.clone(), index)) };
            checks.spawn(async move { check.repeat(&upstream.enclaves.all()[index], &up, &metrics).await });
        }
        checks
    }
}

/// What is known of one enclave.
struct Check {
    up: bool,
    attested: Option<Instant>,
    /// What it was given, and which of the enclaves it is.
    models: Option<(Arc<LoadedModels>, usize)>,
}

impl Check {
    async fn repeat(mut self, enclave: &Enclave<Pool>, count: &AtomicUsize, metrics: &Metrics) {
        let address = &enclave.way.address;
        metrics.enclave_up(address, false);
        let mut logged = None;
        loop {
            let up = self.check(&enclave.way).await;
            enclave.note((!up).then(Instant::now));
            if logged.replace(up) != Some(up) {
                log(format_args!("event={} enclave={address}", if up { "enclave_up" } else { "enclave_down" }));
            }
            if up != self.up {
                self.up = up;
                metrics.enclave_up(address, up);
                match up {
                    true => count.fetch_add(1, Ordering::Relaxed),
                    false => count.fetch_sub(1, Ordering::Relaxed),
                };
            }
            sleep(if up { WHEN_UP } else { WHEN_DOWN }).await;
        }
    }

    async fn check(&mut self, pool: &Pool) -> bool {
        if !succeeds(pool, &Question::get(paths::READY)).await {
            self.attested = None;
            return false;
        }
        if self.attested.is_none_or(|last| last.elapsed() >= ATTESTED) {
            self.attested = attests(pool).await.then(Instant::now);
        }
        self.attested.is_some() && self.restored().await
    }

    /// Whether it serves all that it was given. Asked each time: it may have started anew between two checks.
    async fn restored(&self) -> bool {
        match &self.models {
            Some((models, index)) => models.restore(*index, self.up).await.unwrap_or(self.up),
            None => true,
        }
    }
}

/// Whether a nonce is answered. With what is the clients' business: to believe the document takes a policy.
async fn attests(pool: &Pool) -> bool {
    let mut nonce = [0; NONCE_BYTES];
    if getrandom::getrandom(&mut nonce).is_err() {
        return false;
    }
    let headers: HeaderMap = content_type(ATTESTATION_MEDIA_TYPE);
    let question = Question::post(paths::ATTESTATION, headers, Bytes::copy_from_slice(&nonce));
    let status = status(pool, &question).await;
    // One that has much to do, or budgets what it is asked, is there all the same.
    status.is_some_and(|status| status.is_success() || status == StatusCode::TOO_MANY_REQUESTS)
}

async fn succeeds(pool: &Pool, question: &Question) -> bool {
    status(pool, question).await.is_some_and(|status| status.is_success())
}

async fn status(pool: &Pool, question: &Question) -> Option<StatusCode> {
    Some(timeout(PATIENCE, pool.ask(question)).await.ok()?.ok()?.status())
}
