//! Everything that is signed.
//!
//! The NSM serves one request at a time, so one task asks it, behind a bounded queue: a flood of nonces is refused with
//! `busy` and stalls nobody. Receipts are signed where they arise; their key is certified by every document.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cloister_attestation::{
    Channel, Nonce, Presentation, Receipt, ReceiptKey, Sha384, Statement, Timestamp, UnverifiedDocument,
};
use cloister_enclave::{AttestError, Attester, Claims};
use tokio::sync::{mpsc, oneshot};

use crate::{
    log::{self, Event},
    repository::Repository,
};

/// Documents waiting to be made. The NSM makes about a hundred a second.
const QUEUE: usize = 32;

/// Signs documents and receipts.
#[derive(Clone, Debug)]
pub(crate) struct Notary {
    queue: mpsc::Sender<Order>,
    receipt_key: Arc<ReceiptKey>,
    receipt_key_digest: Arc<str>,
    clock: Arc<Clock>,
    module_id: Arc<str>,
}

#[derive(Debug)]
struct Order {
    nonce: Nonce,
    channel: Channel,
    answer: oneshot::Sender<Presentation>,
}

impl Notary {
    /// Makes the receipt key and a first document, so that a service that is ready has proved that it can attest.
    pub(crate) async fn start<A: Attester>(
        attester: A,
        spki: &[u8],
        repository: Arc<Repository>,
    ) -> Result<Self, NotaryError> {
        let receipt_key = Arc::new(ReceiptKey::generate());
        let clock = Arc::new(Clock::new());
        let module_id = attester.module_id().into();
        let desk = Desk {
            attester,
            clock: clock.clone(),
            spki: spki.to_vec(),
            receipt_key: receipt_key.public_key().to_vec(),
            repository,
        };
        let (queue, orders) = mpsc::channel(QUEUE);
        let desk = tokio::task::spawn_blocking(move || desk.present(&Nonce::random(), Channel::None).map(|_| desk))
            .await
            .map_err(|_| NotaryError::Stopped)??;
        tokio::task::spawn_blocking(move || desk.work(orders));
        let receipt_key_digest = Sha384::of(receipt_key.public_key()).to_string().into();
        Ok(Self { queue, receipt_key, receipt_key_digest, clock, module_id })
    }

    /// By which requests name the enclave that they were made for.
    pub(crate) fn receipt_key_digest(&self) -> &str {
        &self.receipt_key_digest
    }

    /// A presentation for this nonce and channel.
    pub(crate) async fn present(&self, nonce: Nonce, channel: Channel) -> Result<Presentation, NotaryError> {
        let (answer, presentation) = oneshot::channel();
        self.queue.try_send(Order { nonce, channel, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotaryError::Busy,
            mpsc::error::TrySendError::Closed(_) => NotaryError::Stopped,
        })?;
        presentation.await.map_err(|_| NotaryError::Stopped)
    }

    /// A signed receipt for this exchange, at the time of the last document plus what a monotonic clock measured since.
    pub(crate) fn receipt(&self, request: Sha384, response: Sha384, bundle: Sha384, parameters: &str) -> Vec<u8> {
        let receipt = Receipt {
            request,
            response,
            bundle,
            parameters: parameters.to_owned(),
            module_id: self.module_id.to_string(),
            time: self.clock.now(),
        };
        receipt.sign(&self.receipt_key)
    }
}

/// The one place that talks to the attester.
struct Desk<A> {
    attester: A,
    clock: Arc<Clock>,
    spki: Vec<u8>,
    receipt_key: Vec<u8>,
    repository: Arc<Repository>,
}

impl<A: Attester> Desk<A> {
    fn work(self, mut orders: mpsc::Receiver<Order>) {
        while let Some(Order { nonce, channel, answer }) = orders.blocking_recv() {
            if answer.is_closed() {
                continue;
            }
            let started = Instant::now();
            match self.present(&nonce, channel) {
                Ok(presentation) => {
                    log::event(Event::Attested, started.elapsed().as_micros() as u64);
                    let _ = answer.send(presentation);
                }
                Err(_) => log::event(Event::AttestFailed, 0),
            }
        }
    }

    fn present(&self, nonce: &Nonce, channel: Channel) -> Result<Presentation, NotaryError> {
        let manifest = self.repository.served().manifest.to_cbor();
        let statement = Statement {
            channel,
            spki: self.spki.clone(),
            receipt_key: self.receipt_key.clone(),
            manifest: Sha384::of(&manifest),
        };
        let user_data = statement.user_data();
        let claims = Claims { nonce: &nonce.0, public_key: &self.spki, user_data: &user_data };
        let document = self.attester.attest(&claims)?;
        // Whether the document is any good is for those to say who verify it.
        match UnverifiedDocument::parse(&document) {
            Ok(readable) => self.clock.set(readable.claimed_timestamp()),
            Err(_) => log::event(Event::DocumentUnreadable, 0),
        }
        Ok(Presentation { document, receipt_key: self.receipt_key.clone(), manifest })
    }
}

/// Time as the NSM last told it. Milliseconds since the epoch at the instant the notary started.
#[derive(Debug)]
struct Clock {
    started: Instant,
    epoch_at_start: AtomicU64,
}

impl Clock {
    fn new() -> Self {
        Self { started: Instant::now(), epoch_at_start: AtomicU64::new(0) }
    }

    /// Never steps back: a receipt is not older than a document that was handed out before it.
    fn set(&self, document: Timestamp) {
        let elapsed = self.started.elapsed().as_millis() as u64;
        self.epoch_at_start.fetch_max(document.millis().saturating_sub(elapsed), Ordering::Relaxed);
    }

    fn now(&self) -> Timestamp {
        let elapsed: Duration = self.started.elapsed();
        Timestamp::from_millis(self.epoch_at_start.load(Ordering::Relaxed) + elapsed.as_millis() as u64)
    }
}

/// Nothing was signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotaryError {
    /// Too many documents are waiting.
    #[error("too many documents are waiting to be made")]
    Busy,
    /// The notary's task is gone or the document could not be made.
    #[error("no document could be made")]
    Stopped,
    /// The attester refused.
    #[error(transparent)]
    Attest(#[from] AttestError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_follows_the_last_document_and_never_steps_back() {
        let clock = Clock::new();
        let document = Timestamp::from_millis(1_700_000_000_000);
        clock.set(document);
        let first = clock.now();
        assert!(first >= document.minus(Duration::from_millis(1)) && first < document.plus(Duration::from_secs(60)));
        clock.set(document.minus(Duration::from_secs(3600)));
        assert!(clock.now() >= first, "an older document does not turn the clock back");
        let later = document.plus(Duration::from_secs(3600));
        clock.set(later);
        assert!(clock.now() >= later.minus(Duration::from_millis(1)));
    }
}
