//! The evaluation: request bytes in, reply bytes out, nothing learned.
//!
//! It protects the client's data, and the model from what replies say beside logits: whoever gets enough logits can solve
//! for the weights all the same.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use thiserror::Error;

use crate::bundle::{Bundle, Model};
use crate::description::Description;
use crate::linear::{self, Linear};
use crate::message::{self, MessageError, MessageKind, RequestParts, SelectionRequest};
use crate::parameters::ParameterSet;
use crate::public_key::{KeyId, PublicKey};
use crate::selection::evaluator::{Chooser, ChooserScratch, ChooserWorker};

/// A model, ready to evaluate. It holds no key and needs none but the client's public one.
pub struct Evaluator(Kind);

enum Kind {
    Linear(Linear),
    Chooser(Box<Chooser>),
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The public key with which the reply is to be made anew.
    pub key: KeyId,
    /// As many logits will be in the reply.
    pub logits: u64,
    /// The time that the evaluation takes on one thread of the machine of this project's figures, as estimated.
    pub cost: Duration,
}

/// What stands between a reply and the weights.
#[derive(Clone, Copy)]
pub(crate) struct Defences<'a> {
    pub(crate) key: Option<&'a PublicKey>,
    /// φ.
    pub(crate) flood: Option<u32>,
}

/// Buffers of an evaluation, kept from one to the next, and the generator of its noise.
pub struct Scratch {
    workers: Vec<linear::Worker>,
    choosers: Vec<ChooserWorker>,
    bits: ChooserScratch,
    cancelled: Arc<AtomicBool>,
}

impl Scratch {
    /// Buffers for evaluations on up to `threads` threads; only those that take milliseconds are spread.
    pub fn with_threads(threads: usize) -> Self {
        let threads = threads.max(1);
        Self {
            workers: (0..threads).map(|_| linear::Worker::default()).collect(),
            choosers: (0..threads).map(|_| ChooserWorker::default()).collect(),
            bits: ChooserScratch::default(),
            cancelled: Arc::default(),
        }
    }

    /// The next evaluations end early, with [`EvaluateError::Cancelled`], once this is true.
    pub fn cancel_by(&mut self, cancelled: Arc<AtomicBool>) {
        self.cancelled = cancelled;
    }
}

/// On one thread.
impl Default for Scratch {
    fn default() -> Self {
        Self::with_threads(1)
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").field("threads", &self.workers.len()).finish_non_exhaustive()
    }
}

impl Evaluator {
    /// Lays the model out for evaluation.
    pub fn new(bundle: &Bundle) -> Self {
        let description = bundle.description();
        Self(match bundle.model() {
            Model::Linear(model) => Kind::Linear(Linear::new(description, model)),
            Model::Selection(model) => {
                let selection = description.selection().expect("a bundle is checked when it is made");
                Kind::Chooser(Box::new(Chooser::new(description, selection, model)))
            }
        })
    }

    /// Evaluates the model on every row of an encrypted request.
    ///
    /// The request is parsed, has exactly the right size, and names this key; the reply is made anew under the key and
    /// flooded.
    pub fn evaluate(&self, request: &[u8], key: &PublicKey, scratch: &mut Scratch) -> Result<Vec<u8>, EvaluateError> {
        let request = self.parse(request)?;
        if request.key() != key.id() || key.parameters() != self.parameters() {
            return Err(EvaluateError::Key);
        }
        self.reply(&request, Defences { key: Some(key), flood: Some(self.flood()) }, scratch)
    }

    /// Parses a request as an evaluation does, and tells what it asks for.
    pub fn check(&self, request: &[u8]) -> Result<Asked, EvaluateError> {
        Ok(match &self.0 {
            Kind::Linear(linear) => linear.check(request),
            Kind::Chooser(chooser) => chooser.check(request),
        }?)
    }

    /// A reply that is neither made anew nor flooded, and gives the model away. For measuring, and for showing what the
    /// other steps are there for; no service calls it.
    pub fn evaluate_bare(&self, request: &[u8], scratch: &mut Scratch) -> Result<Vec<u8>, EvaluateError> {
        self.evaluate_with(request, Defences { key: None, flood: None }, scratch)
    }

    pub(crate) fn evaluate_with(
        &self,
        request: &[u8],
        defences: Defences<'_>,
        scratch: &mut Scratch,
    ) -> Result<Vec<u8>, EvaluateError> {
        self.reply(&self.parse(request)?, defences, scratch)
    }

    /// The bytes of memory that such a model takes: weights that are laid out, or bits that are transformed.
    pub fn memory(description: &Description) -> usize {
        match description.selection_shape() {
            Some(shape) => Chooser::memory(&shape),
            None => Linear::memory(description),
        }
    }

    /// Makes what is made on first use, so that nobody waits for it: transforms of this ring, and one evaluation in each
    /// layout.
    pub fn rehearse(&self) {
        let set = self.parameters();
        let mut key = message::header(MessageKind::PublicKey, set, 0, 0).to_vec();
        key.resize(message::public_key_len(set), 0);
        let key = PublicKey::from_bytes(&key).expect("a public key has this size");
        let requests: Vec<Vec<u8>> = match &self.0 {
            Kind::Linear(linear) => linear.blank_requests(key.id()).collect(),
            Kind::Chooser(chooser) => vec![chooser.blank_request(key.id())],
        };
        for request in requests {
            self.evaluate(&request, &key, &mut Scratch::default()).expect("a request of one row has this size");
        }
    }

    fn parameters(&self) -> ParameterSet {
        match &self.0 {
            Kind::Linear(linear) => linear.parameters(),
            Kind::Chooser(chooser) => chooser.shape.parameters,
        }
    }

    fn flood(&self) -> u32 {
        match &self.0 {
            Kind::Linear(linear) => linear.flood(),
            Kind::Chooser(chooser) => chooser.flood(),
        }
    }

    fn parse<'a>(&self, request: &'a [u8]) -> Result<Parsed<'a>, MessageError> {
        Ok(match &self.0 {
            Kind::Linear(linear) => Parsed::Linear(linear.parse(request)?),
            Kind::Chooser(chooser) => Parsed::Selection(chooser.parse(request)?),
        })
    }

    fn reply(
        &self,
        request: &Parsed<'_>,
        defences: Defences<'_>,
        scratch: &mut Scratch,
    ) -> Result<Vec<u8>, EvaluateError> {
        let Scratch { workers, choosers, bits, cancelled } = scratch;
        match (&self.0, request) {
            (Kind::Linear(linear), Parsed::Linear(request)) => linear.reply(request, defences, workers, cancelled),
            (Kind::Chooser(chooser), Parsed::Selection(request)) => {
                chooser.reply(request, defences, choosers, bits, cancelled)
            }
            _ => unreachable!("a request is parsed by the model that evaluates it"),
        }
    }

    /// The oracle: the integer logits of rows as [`Description::encode`] makes them, by the very code that evaluates
    /// ciphertexts, on plain integers.
    #[cfg(feature = "client")]
    pub fn evaluate_clear(&self, rows: &[impl AsRef<[i64]>]) -> Vec<Vec<i128>> {
        match &self.0 {
            Kind::Linear(linear) => linear.evaluate_clear(rows),
            Kind::Chooser(chooser) => rows.iter().map(|row| chooser.evaluate_clear(row.as_ref())).collect(),
        }
    }
}

/// The model stays out of logs.
impl std::fmt::Debug for Evaluator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Evaluator").field("parameters", &self.parameters()).finish_non_exhaustive()
    }
}

/// A request of the right size.
enum Parsed<'a> {
    Linear(RequestParts<'a>),
    Selection(SelectionRequest<'a>),
}

impl Parsed<'_> {
    fn key(&self) -> KeyId {
        KeyId(match self {
            Self::Linear(request) => *request.key,
            Self::Selection(request) => *request.key,
        })
    }
}

/// Calls `work` for every item, each but the first on a thread of its own.
pub(crate) fn spread<T: Send>(items: impl Iterator<Item = T>, work: impl Fn(T) + Sync) {
    let mut items = items.peekable();
    let Some(first) = items.next() else { return };
    if items.peek().is_none() {
        return work(first);
    }
    let work = &work;
    thread::scope(|scope| {
        for item in items {
            scope.spawn(move || work(item));
        }
        work(first);
    });
}

/// Why a request was not evaluated.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// It is not a request to this model.
    #[error(transparent)]
    Request(#[from] MessageError),
    /// It names another public key, or one under other parameters.
    #[error("the request names another public key than the one it came with")]
    Key,
    /// Nobody waits for the reply any more.
    #[error("the evaluation was cancelled")]
    Cancelled,
}

impl EvaluateError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Request(error) => error.code(),
            Self::Key => "public_key",
            Self::Cancelled => "cancelled",
        }
    }

    /// What a person does about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Request(error) => error.remedy(),
            Self::Key => "send the public key of the session that encrypted the request".into(),
            Self::Cancelled => "send the request again".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::tests::{sample, uniform};

    fn request(bundle: &Bundle, rows: usize) -> Vec<u8> {
        let (layout, packing) = bundle.description().packing_for(rows);
        let mut request = message::header(MessageKind::Request, packing.shape.parameters, layout, rows).to_vec();
        request.extend(uniform(packing.request_len(rows), 5).iter().map(|&word| word as u8));
        request.truncate(packing.request_len(rows));
        request
    }

    #[test]
    fn no_truncated_or_longer_request_is_evaluated() {
        let bundle = sample(4, 3);
        let (evaluator, mut scratch) = (Evaluator::new(&bundle), Scratch::default());
        let whole = request(&bundle, 2);
        for len in 0..whole.len() {
            let error = evaluator.evaluate_bare(&whole[..len], &mut scratch).unwrap_err();
            assert_eq!(error.code(), if len < 9 { "message_too_short" } else { "message_length" });
        }
        let longer = [&whole[..], &vec![0; 1 << 20]].concat();
        assert_eq!(evaluator.evaluate_bare(&longer, &mut scratch).unwrap_err().code(), "message_length");
    }

    /// Each bit of the header is checked; the others are ciphertext, and none is as good as any.
    #[test]
    fn a_flipped_bit_is_refused_in_the_header_and_harmless_behind_it() {
        let bundle = sample(4, 3);
        let (evaluator, mut scratch) = (Evaluator::new(&bundle), Scratch::default());
        let whole = request(&bundle, 2);
        for bit in (0..72).chain((72..whole.len() * 8).step_by(37)) {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let code = evaluator.evaluate_bare(&flipped, &mut scratch).map_err(|error| error.code());
            match (bit, code) {
                (0..32, code) => assert_eq!(code, Err("message_magic")),
                (32..40, code) => assert_eq!(code, Err("message_version")),
                (40..48, code) => assert_eq!(code, Err("message_parameters")),
                (48..72, Err("message_layout" | "message_rows" | "message_length")) => {}
                (72.., Ok(reply)) => assert_eq!(reply.len(), bundle.reply_len(2)),
                (_, code) => panic!("bit {bit}: {code:?}"),
            }
        }
    }

    #[test]
    fn a_cancelled_evaluation_gives_nothing_and_the_next_one_is_as_ever() {
        for bundle in [sample(4, 3), sample(64, 10)] {
            let (evaluator, mut scratch) = (Evaluator::new(&bundle), Scratch::default());
            let whole = request(&bundle, 2);
            let reply = evaluator.evaluate_bare(&whole, &mut scratch).unwrap();
            scratch.cancel_by(Arc::new(true.into()));
            assert_eq!(evaluator.evaluate_bare(&whole, &mut scratch), Err(EvaluateError::Cancelled));
            scratch.cancel_by(Arc::default());
            assert_eq!(evaluator.evaluate_bare(&whole, &mut scratch), Ok(reply));
        }
    }

    #[test]
    fn what_asks_for_more_costs_more_and_a_wider_model_takes_more_memory() {
        let (small, wide) = (sample(4, 3), sample(2500, 3));
        let cost = |bundle: &Bundle, rows| Evaluator::new(bundle).check(&request(bundle, rows)).unwrap().cost;
        assert!(cost(&small, 1) < cost(&small, small.rows_per_request()));
        assert!(cost(&small, 1) < cost(&wide, 1));
        assert!(Evaluator::memory(small.description()) < Evaluator::memory(wide.description()));
    }

    #[test]
    fn every_layout_can_be_rehearsed() {
        for (features, logits) in [(4, 3), (64, 10), (2500, 3)] {
            Evaluator::new(&sample(features, logits)).rehearse();
        }
    }
}
