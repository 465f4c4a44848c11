//! Evaluations: where they run, who is next, and how they end early.

use std::{
    cell::RefCell,
    num::NonZero,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use axum::body::Bytes;
use cloister_inference::{EvaluateError, PublicKey, Scratch};
use cloister_wire::{error::ErrorCode, limits};

use crate::{
    admission::{Admission, Client, Place},
    log::{self, Event},
    models::Model,
    refusal::Refusal,
};

/// Those that take less, as estimated, run where they are.
const LONG: Duration = Duration::from_millis(1);
/// Work that may wait: what cannot begin in half of its time will hardly end in it.
const PATIENCE: Duration = limits::REQUEST_DEADLINE.checked_div(2).expect("two is not zero");

/// One evaluation.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) model: Arc<Model>,
    /// The ciphertext.
    pub(crate) request: Bytes,
    pub(crate) key: Arc<PublicKey>,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Evaluations {
    short: Lane,
    /// One at a time, on all processors, so that their buffers are there once.
    long: Lane,
    scratch: Arc<Mutex<Scratch>>,
}

/// Evaluations of one kind.
#[derive(Debug)]
struct Lane {
    admission: Admission,
    pace: Pace,
}

impl Lane {
    fn new(places: usize) -> Self {
        Self { admission: Admission::new(places, PATIENCE), pace: Pace::default() }
    }
}

impl Evaluations {
    pub(crate) fn new() -> Self {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            short: Lane::new(processors),
            long: Lane::new(1),
            scratch: Arc::new(Mutex::new(Scratch::with_threads(processors))),
        }
    }

    /// Waits for a place for an evaluation of this estimated cost.
    pub(crate) async fn admit(&self, client: Client, cost: Duration) -> Result<Place, Refusal> {
        let Lane { admission, pace } = self.lane(cost);
        Ok(admission.admit(client, pace.apply(cost)).await?)
    }

    fn lane(&self, cost: Duration) -> &Lane {
        if cost < LONG { &self.short } else { &self.long }
    }

    /// Evaluates; a long one ends early if nobody waits for it any more.
    pub(crate) async fn evaluate(&self, work: Work, cost: Duration, place: Place) -> Result<Vec<u8>, Refusal> {
        let started = Instant::now();
        let reply = match cost < LONG {
            true => SCRATCH.with_borrow_mut(|scratch| work.run(scratch)),
            false => self.evaluate_long(work, place).await?,
        }?;
        let took = started.elapsed();
        self.lane(cost).pace.note(cost, took);
        log::event(Event::Inferred, took.as_micros() as u64);
        Ok(reply)
    }

    async fn evaluate_long(&self, work: Work, place: Place) -> Result<Result<Vec<u8>, EvaluateError>, Refusal> {
        let (scratch, cancelled) = (self.scratch.clone(), Arc::new(AtomicBool::new(false)));
        let _cancel = CancelOnDrop(cancelled.clone());
        let evaluation = tokio::task::spawn_blocking(move || {
            // The place is free when the thread is.
            let _place = place;
            let mut scratch = scratch.lock().unwrap_or_else(PoisonError::into_inner);
            scratch.cancel_by(cancelled);
            work.run(&mut scratch)
        });
        evaluation.await.map_err(|_| Refusal::new(ErrorCode::Internal, "the evaluation did not end"))
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.short.admission.waiting() + self.long.admission.waiting()
    }
}

impl Work {
    fn run(&self, scratch: &mut Scratch) -> Result<Vec<u8>, EvaluateError> {
        self.model.evaluator.evaluate(&self.request, &self.key, scratch)
    }
}

thread_local! {
    /// A short evaluation never yields, so each worker thread keeps its own.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Whoever waited was cut off by its deadline, or hung up.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How much longer this machine takes than the one that estimates were made on, in thousandths.
#[derive(Debug)]
struct Pace(AtomicU64);

impl Default for Pace {
    fn default() -> Self {
        Self(AtomicU64::new(1000))
    }
}

impl Pace {
    fn apply(&self, cost: Duration) -> Duration {
        cost.mul_f64(self.0.load(Ordering::Relaxed) as f64 / 1000.0)
    }

    /// Follows what was measured, slowly; two that note at once may lose one.
    fn note(&self, estimated: Duration, took: Duration) {
        let measured = 1000.0 * took.as_secs_f64() / estimated.as_secs_f64().max(1e-6);
        let followed = 0.95 * self.0.load(Ordering::Relaxed) as f64 + 0.05 * measured;
        self.0.store(followed.clamp(100.0, 1e6) as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use cloister_inference::Bundle;
    use cloister_wire::oip::InferRequest;
    use futures_util::FutureExt;

    use super::*;

    /// A request of one row to the Iris model. Nothing here can encrypt, so it is the one that fuzzing begins with.
    fn work() -> Work {
        let bundle = Bundle::from_bytes(include_bytes!("../../fuzz/corpus/bundle/valid-iris")).unwrap();
        // Before the body stands what HTTP says in a header: where the JSON in it ends.
        let (length, body) = include_bytes!("../../fuzz/corpus/request/valid-iris").split_first_chunk().unwrap();
        let header_length = u16::from_be_bytes(*length).into();
        let InferRequest { public_key, ciphertext, .. } = InferRequest::parse(Some(header_length), body).unwrap();
        let key = PublicKey::from_bytes(public_key.unwrap()).unwrap();
        let (model, request) = (Model::new(&bundle).unwrap(), Bytes::copy_from_slice(ciphertext));
        Work { model: Arc::new(model), request, key: Arc::new(key) }
    }

    #[tokio::test]
    async fn an_evaluation_that_nobody_waits_for_any_more_is_cancelled() {
        let evaluations = Evaluations::new();
        let place = evaluations.admit(Client::Others, LONG).await.unwrap();
        {
            // It cannot begin before it is given up.
            let _scratch = evaluations.scratch.lock().unwrap();
            assert!(evaluations.evaluate(work(), LONG, place).now_or_never().is_none());
        }
        let _place = evaluations.admit(Client::Others, LONG).await.expect("its place is free when it has ended");
        let mut scratch = evaluations.scratch.lock().unwrap();
        assert!(matches!(work().run(&mut scratch), Err(EvaluateError::Cancelled)), "it was told so");
        scratch.cancel_by(Arc::default());
        assert!(work().run(&mut scratch).is_ok());
    }

    #[test]
    fn estimates_follow_the_machine() {
        let (pace, ms) = (Pace::default(), Duration::from_millis(1));
        assert_eq!(pace.apply(ms), ms);
        (0..200).for_each(|_| pace.note(ms, 20 * ms));
        assert!((19 * ms..=20 * ms).contains(&pace.apply(ms)), "{:?}", pace.apply(ms));
        (0..1000).for_each(|_| pace.note(ms, Duration::ZERO));
        assert_eq!(pace.apply(ms), ms / 10, "it stays within bounds");
    }
}
