//! The models that are served now. Every change of them is one of the manifest: what documents say is always what is served.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, atomic::AtomicU64},
};

use cloister_attestation::{Limits, Loadable, Manifest, Sha384};
use cloister_inference::{Bundle, Evaluator};
use cloister_wire::{
    error::{ErrorBody, ErrorCode},
    limits,
};

use crate::{
    access,
    log::{self, Event},
    models::{Model, Models},
};

/// As many models fit into a manifest.
const MAX_MODELS: usize = 256;
/// Of how many bundles with a budget it is remembered how much is left.
const MAX_LEDGER: usize = 10_000;

/// The models of an enclave, from boot to end.
#[derive(Debug)]
pub(crate) struct Repository {
    served: RwLock<Arc<Served>>,
    loadable: Loadable,
    /// Bytes that weights may take when one is loaded. A model of the image counts, and is not refused.
    memory: usize,
    /// What is left of the budgets of bundles, those that are served no longer too: nobody gets a new one by loading anew.
    ledger: Mutex<BTreeMap<Sha384, Arc<AtomicU64>>>,
    changing: Arc<tokio::sync::Mutex<()>>,
}

/// What is served at one time.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) models: Vec<Held>,
    /// The manifest that says so.
    pub(crate) manifest: Manifest,
}

/// A model and what is left of its budget. A request holds it, so that it stays while the request does, whatever is loaded meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) model: Arc<Model>,
    budget: Option<Arc<AtomicU64>>,
}

impl Held {
    /// Takes so many logits from what the model's owner allows from boot to end; `false` if that is spent.
    pub(crate) fn spend(&self, logits: u64) -> bool {
        self.budget.as_ref().is_none_or(|left| access::take(left, logits))
    }
}

impl Served {
    fn new(models: Vec<Held>, loadable: &Loadable) -> Self {
        let largest = models.iter().map(|held| held.model.largest_request).max().unwrap_or(0);
        let manifest = Manifest {
            models: models.iter().map(|held| held.model.entry.clone()).collect(),
            limits: Limits { max_request_bytes: (largest + limits::BESIDE_CIPHERTEXT_BYTES) as u64 },
            loadable: loadable.clone(),
        };
        Self { models, manifest }
    }

    /// The version of a model; the newest, if none is asked for.
    pub(crate) fn find(&self, name: &str, version: Option<&str>) -> Option<Held> {
        self.models.iter().rev().find(|held| held.model.is(name, version)).cloned()
    }

    /// All versions of a model, the newest last.
    pub(crate) fn versions(&self, name: &str) -> Vec<String> {
        self.manifest.versions(name).map(|model| model.version.clone()).collect()
    }

    /// The most bytes of a request to any of the models, as the manifest says it.
    pub(crate) fn largest_request(&self) -> usize {
        self.manifest.limits.max_request_bytes as usize
    }
}

impl Repository {
    pub(crate) fn new(models: Models, mut loadable: Loadable, memory: usize) -> Self {
        // What was measured into the image may come back after it was unloaded.
        if let Loadable::Listed(digests) = &mut loadable {
            let own = models.0.iter().map(|model| model.entry.bundle);
            let missing: Vec<_> = own.filter(|bundle| !digests.contains(bundle)).collect();
            digests.extend(missing);
        }
        let repository = Self {
            served: RwLock::new(Arc::new(Served::new(Vec::new(), &loadable))),
            loadable,
            memory,
            ledger: Mutex::default(),
            changing: Arc::default(),
        };
        let Models(models) = models;
        repository.serve(models.into_iter().map(|model| repository.with_budget(model)).collect());
        repository
    }

    /// What is served now.
    pub(crate) fn served(&self) -> Arc<Served> {
        self.served.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether anything can ever change.
    pub(crate) fn is_fixed(&self) -> bool {
        self.loadable.is_none()
    }

    /// Serves a bundle from now on, in place of one of the same name and version. Requests under way end with what they have.
    pub(crate) async fn load(self: &Arc<Self>, bytes: Vec<u8>) -> Result<Arc<Model>, ErrorBody> {
        let one_at_a_time = self.changing.clone().lock_owned().await;
        let digest = Sha384::of(&bytes);
        if !self.loadable.allows(digest) {
            return Err(refused(
                ErrorCode::ModelNotAllowed,
                format!("the measured settings of this enclave do not allow the bundle {digest}"),
            ));
        }
        if let Some(held) = self.served().models.iter().find(|held| held.model.entry.bundle == digest) {
            return Ok(held.model.clone());
        }
        let repository = self.clone();
        // It goes on when nobody waits for it any more: what it takes of memory and time is taken once.
        let loading = tokio::task::spawn_blocking(move || {
            let _one_at_a_time = one_at_a_time;
            repository.prepare(&bytes).inspect(|model| repository.add(model.clone()))
        });
        loading.await.unwrap_or_else(|_| Err(refused(ErrorCode::Internal, "the model was not prepared")))
    }

    fn add(&self, model: Arc<Model>) {
        let mut models = self.served().models.clone();
        models.retain(|other| !other.model.is(&model.entry.name, Some(&model.entry.version)));
        models.push(self.with_budget(model));
        log::event(Event::Loaded, models.len() as u64);
        self.serve(models);
    }

    /// Serves a model, or one of its versions, no longer.
    pub(crate) async fn unload(&self, name: &str, version: Option<&str>) -> Result<(), ErrorBody> {
        let _one_at_a_time = self.changing.lock().await;
        let mut models = self.served().models.clone();
        let before = models.len();
        models.retain(|held| !held.model.is(name, version));
        if models.len() == before {
            return Err(refused(ErrorCode::UnknownModel, "no such model is served"));
        }
        log::event(Event::Unloaded, models.len() as u64);
        self.serve(models);
        Ok(())
    }

    fn prepare(&self, bytes: &[u8]) -> Result<Arc<Model>, ErrorBody> {
        let unusable = |error: &dyn std::fmt::Display| refused(ErrorCode::BundleRefused, error.to_string());
        let bundle = Bundle::from_bytes(bytes).map_err(|error| unusable(&error))?;
        // The bytes that were judged are those that are served.
        if bundle.digest() != Sha384::of(bytes).0 {
            return Err(refused(ErrorCode::BundleRefused, "the bundle is not in its one encoding"));
        }
        let served = self.served();
        let others = served.models.iter().filter(|held| !held.model.is(bundle.name(), Some(bundle.version())));
        let (count, taken) = others.fold((0, 0), |(count, taken), held| (count + 1, taken + held.model.memory));
        let needed = Evaluator::memory(bundle.description());
        let new_budget =
            bundle.description().budget().is_some() && !self.ledger().contains_key(&Sha384(bundle.digest()));
        let no_ledger = new_budget && self.ledger().len() >= MAX_LEDGER;
        if taken + needed > self.memory || count >= MAX_MODELS || no_ledger {
            return Err(refused(
                ErrorCode::InsufficientMemory,
                format!(
                    "the weights take {} MiB, and {} of {} MiB are taken by {count} other models, of {MAX_MODELS} at most: \
                     unload some",
                    mib(needed),
                    mib(taken),
                    mib(self.memory)
                ),
            ));
        }
        Model::new(&bundle).map(Arc::new).map_err(|error| unusable(&error))
    }

    fn with_budget(&self, model: Arc<Model>) -> Held {
        let left = |budget| self.ledger().entry(model.entry.bundle).or_insert_with(|| Arc::new(budget)).clone();
        let budget = model.budget.map(|budget| left(AtomicU64::new(budget)));
        Held { model, budget }
    }

    fn ledger(&self) -> MutexGuard<'_, BTreeMap<Sha384, Arc<AtomicU64>>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, models: Vec<Held>) {
        let served = Served::new(models, &self.loadable);
        *self.served.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(served);
    }
}

fn refused(code: ErrorCode, error: impl Into<String>) -> ErrorBody {
    ErrorBody { error: error.into(), code }
}

fn mib(bytes: usize) -> usize {
    bytes.div_ceil(1 << 20)
}
