//! Bundles read, checked and made ready.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use cloister_attestation::{ManifestModel, Sha384};
use cloister_inference::{Bundle, BundleError, Evaluator};
use cloister_wire::paths;

/// File extension of bundles.
const EXTENSION: &str = "cloister";

/// One model, ready to be served.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) entry: ManifestModel,
    pub(crate) parameters: &'static str,
    /// Of a public document: base64, as metadata carries it.
    pub(crate) description: String,
    pub(crate) evaluator: Evaluator,
    /// How many logits its owner allows from boot to end.
    pub(crate) budget: Option<u64>,
    /// Bytes of its largest ciphertext, and of the answer to it.
    pub(crate) largest_request: usize,
    pub(crate) largest_reply: usize,
    /// Bytes that its weights take.
    pub(crate) memory: usize,
}

impl Model {
    /// Lays a model out for evaluation, and has it evaluate a row in each layout.
    pub(crate) fn new(bundle: &Bundle) -> Result<Self, ModelsError> {
        for name in [bundle.name(), bundle.version()] {
            if !paths::is_model_name(name) {
                return Err(ModelsError::Name { name: name.to_owned() });
            }
        }
        let description = bundle.description();
        let evaluator = Evaluator::new(bundle);
        evaluator.rehearse();
        let rows = description.rows_per_request();
        Ok(Self {
            entry: ManifestModel {
                name: bundle.name().to_owned(),
                version: bundle.version().to_owned(),
                bundle: Sha384(bundle.digest()),
                description: Sha384(description.digest()),
            },
            parameters: description.parameters().name(),
            description: STANDARD.encode(description.to_bytes()),
            evaluator,
            budget: description.budget(),
            largest_request: description.request_len(rows),
            largest_reply: description.reply_len(rows),
            memory: Evaluator::memory(description),
        })
    }

    /// Whether it is that version of that name; every version is, if none is asked for.
    pub(crate) fn is(&self, name: &str, version: Option<&str>) -> bool {
        self.entry.name == name && version.is_none_or(|version| self.entry.version == version)
    }
}

/// The models that an enclave serves from its boot on.
#[derive(Debug, Default)]
pub struct Models(pub(crate) Vec<Arc<Model>>);

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
        // The order of a folder is anybody's; versions are told apart by it where nobody asks for one.
        paths.sort();
        Self::from_files(&paths)
    }

    /// Reads bundles. Each version of a name is there once; of several the last is the newest.
    pub fn from_files(paths: &[PathBuf]) -> Result<Self, ModelsError> {
        let mut models: Vec<Arc<Model>> = Vec::new();
        for path in paths {
            let bytes = fs::read(path).map_err(|source| ModelsError::Read { path: path.clone(), source })?;
            let bundle =
                Bundle::from_bytes(&bytes).map_err(|source| ModelsError::Bundle { path: path.clone(), source })?;
            if models.iter().any(|model| model.is(bundle.name(), Some(bundle.version()))) {
                let (name, version) = (bundle.name().to_owned(), bundle.version().to_owned());
                return Err(ModelsError::Duplicate { name, version });
            }
            models.push(Model::new(&bundle)?.into());
        }
        Ok(Self(models))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a manifest says of them.
    pub fn manifest(&self) -> Vec<ManifestModel> {
        self.0.iter().map(|model| model.entry.clone()).collect()
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
    /// Two bundles have one name and one version.
    #[error("two bundles are version {version:?} of {name:?}: import one with another --name or --version")]
    Duplicate {
        /// The name.
        name: String,
        /// The version.
        version: String,
    },
    /// A name or version that cannot stand in a path.
    #[error("model name or version {name:?}: use 1 to 64 of A-Z a-z 0-9 . _ - and no dot in front")]
    Name {
        /// The name.
        name: String,
    },
    /// There is nothing to serve, and nothing can be loaded.
    #[error("there is no bundle (*.{EXTENSION}) to serve, and the settings allow none to be loaded")]
    None,
}
