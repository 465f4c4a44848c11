//! Bundles read, checked and made ready.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use cloister_attestation::{ManifestModel, Sha384};
use cloister_inference::{Bundle, BundleError, Evaluator};
use cloister_wire::{limits, oip::ModelMetadata, paths};

/// File extension of bundles.
const EXTENSION: &str = "cloister";
/// What evaluates the models, as Open Inference Protocol metadata says it.
const PLATFORM: &str = "cloister_linear";

/// One model that is served.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) version: String,
    pub(crate) bundle: Sha384,
    description: Sha384,
    pub(crate) parameters: &'static str,
    pub(crate) metadata: ModelMetadata,
    pub(crate) evaluator: Evaluator,
    budget: Option<AtomicU64>,
}

impl Model {
    /// Takes so many logits from what its owner allows from boot to end; `false` if that is spent.
    pub(crate) fn spend(&self, logits: u64) -> bool {
        let Some(budget) = &self.budget else { return true };
        budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(logits)).is_ok()
    }
}

/// The models that are served, by name.
#[derive(Debug, Default)]
pub struct Models {
    by_name: BTreeMap<String, Model>,
    largest_request: usize,
}

impl Models {
    /// Reads every `*.cloister` file of a folder.
    pub fn from_folder(folder: &Path) -> Result<Self, ModelsError> {
        let failed = |source| ModelsError::Read { path: folder.to_owned(), source };
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                paths.push(path);
            }
        }
        Self::from_files(&paths)
    }

    /// Reads bundles. Names must be unique, and at least one is needed.
    pub fn from_files(paths: &[PathBuf]) -> Result<Self, ModelsError> {
        let mut models = Self::default();
        for path in paths {
            let bytes = fs::read(path).map_err(|source| ModelsError::Read { path: path.clone(), source })?;
            let bundle =
                Bundle::from_bytes(&bytes).map_err(|source| ModelsError::Bundle { path: path.clone(), source })?;
            models.insert(&bundle)?;
        }
        if models.by_name.is_empty() {
            return Err(ModelsError::None);
        }
        Ok(models)
    }

    fn insert(&mut self, bundle: &Bundle) -> Result<(), ModelsError> {
        let (name, version) = (bundle.name().to_owned(), bundle.version().to_owned());
        if !paths::is_model_name(&name) {
            return Err(ModelsError::Name { name });
        }
        if self.by_name.contains_key(&name) {
            return Err(ModelsError::Duplicate { name });
        }
        let description = bundle.description();
        let metadata = ModelMetadata::new(&name, &version, PLATFORM, STANDARD.encode(description.to_bytes()));
        let evaluator = Evaluator::new(bundle);
        evaluator.rehearse();
        let model = Model {
            version,
            bundle: Sha384(bundle.digest()),
            description: Sha384(description.digest()),
            parameters: description.parameters().name(),
            metadata,
            evaluator,
            budget: description.budget().map(AtomicU64::new),
        };
        self.largest_request = self.largest_request.max(description.request_len(description.rows_per_request()));
        self.by_name.insert(name, model);
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The most bytes that a request to any of them has.
    pub(crate) fn max_request_bytes(&self) -> usize {
        self.largest_request + limits::BESIDE_CIPHERTEXT_BYTES
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Model> {
        self.by_name.get(name)
    }

    /// What the manifest says of them.
    pub fn manifest(&self) -> Vec<ManifestModel> {
        let entry = |(name, model): (&String, &Model)| ManifestModel {
            name: name.clone(),
            version: model.version.clone(),
            bundle: model.bundle,
            description: model.description,
        };
        self.by_name.iter().map(entry).collect()
    }
}

/// The models cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelsError {
    /// A file or folder cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not a bundle that can be served.
    #[error("{}: {source}", path.display())]
    Bundle {
        /// Which.
        path: PathBuf,
        /// Why.
        source: BundleError,
    },
    /// Two bundles have one name.
    #[error("two bundles are named {name:?}")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// A name that cannot stand in a path.
    #[error("model name {name:?}: use 1 to 64 of A-Z a-z 0-9 . _ - and no dot in front")]
    Name {
        /// The name.
        name: String,
    },
    /// There is nothing to serve.
    #[error("there is no bundle (*.{EXTENSION}) to serve")]
    None,
}
