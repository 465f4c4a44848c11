//! What an enclave serves.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    FormatError, Sha384,
    cbor::{self, Format, VERSION},
    foreign::{foreign, listed},
};

const FORMAT: Format = Format { name: "manifest", limit: 64 * 1024 };

/// The models that an enclave serves now, the limits it serves them under, and what it may serve later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The models, each version of a name once; of several the last is the newest.
    pub models: Vec<ManifestModel>,
    /// The limits of the service.
    pub limits: Limits,
    /// Which bundles the enclave takes while it runs, by its measured settings.
    pub loadable: Loadable,
}

/// Which bundles an enclave takes from its parent while it runs. Whatever it takes stands in its manifest from then on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Loadable {
    /// None: it serves the models of its image.
    #[default]
    None,
    /// Those with one of these digests.
    Listed(Vec<Sha384>),
    /// Any.
    Any,
}

impl Loadable {
    /// Whether a bundle of this digest is taken.
    pub fn allows(&self, bundle: Sha384) -> bool {
        match self {
            Self::None => false,
            Self::Listed(digests) => digests.contains(&bundle),
            Self::Any => true,
        }
    }

    /// Whether nothing is ever taken.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

impl fmt::Display for Loadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none: models are those of the image"),
            Self::Listed(_) => f.write_str("those with these digests"),
            Self::Any => f.write_str("any: what is served is up to the parent, the manifest says what it is"),
        }
    }
}

/// One model, by its digests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestModel {
    /// The name that requests ask for.
    pub name: String,
    /// The digest of the bundle, weights and all. Policies name it.
    pub bundle: Sha384,
    /// The publisher's version.
    pub version: String,
    /// The digest of the public description: ranges, scale, columns and labels.
    pub description: Sha384,
}

/// The limits of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The longest body of a request, in bytes.
    pub max_request_bytes: u64,
}

impl Manifest {
    /// Deterministic CBOR: `{v, limits, models, loadable}`; `loadable` is a list of digests, or null for any.
    pub fn to_cbor(&self) -> Vec<u8> {
        let Self { models, limits, loadable } = self.clone();
        let loadable = match loadable {
            Loadable::None => Some(Vec::new()),
            Loadable::Listed(digests) => Some(digests),
            Loadable::Any => None,
        };
        cbor::encode(&Wire { v: VERSION, limits, models, loadable })
    }

    /// Reads what [`to_cbor`](Self::to_cbor) wrote, at most 64 KiB.
    pub fn from_cbor(bytes: &[u8]) -> Result<Self, FormatError> {
        let Wire { v: _, limits, models, loadable } = FORMAT.decode(bytes)?;
        let mut names = BTreeSet::new();
        if let Some(twice) = models.iter().find(|model| !names.insert((&model.name, &model.version))) {
            let ManifestModel { name, version, .. } = twice;
            return Err(FORMAT.malformed(format_args!("version `{version}` of model `{name}` occurs twice")));
        }
        let loadable = match loadable {
            Some(digests) if digests.is_empty() => Loadable::None,
            Some(digests) => Loadable::Listed(digests),
            None => Loadable::Any,
        };
        Ok(Self { models, limits, loadable })
    }

    /// The digest that statements carry.
    pub fn digest(&self) -> Sha384 {
        Sha384::of(&self.to_cbor())
    }

    /// The versions of a model, the newest last.
    pub fn versions<'a>(&'a self, name: &str) -> impl DoubleEndedIterator<Item = &'a ManifestModel> {
        self.models.iter().filter(move |model| model.name == name)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    v: u64,
    limits: Limits,
    models: Vec<ManifestModel>,
    loadable: Option<Vec<Sha384>>,
}

/// The enclave does not serve this model, or not the one that the policy accepts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The enclave serves no model of that name.
    #[error("the enclave serves no model `{}`; it serves {}", foreign(name), listed(served.iter()))]
    UnknownModel {
        /// The name asked for.
        name: String,
        /// The names served.
        served: Vec<String>,
    },
    /// The policy lists no model of that name.
    #[error("the policy does not list the model `{}`; the enclave serves {digest}", foreign(name))]
    NotInPolicy {
        /// The name asked for.
        name: String,
        /// The digest of the bundle that is served.
        digest: Sha384,
    },
    /// The enclave serves another bundle under that name.
    #[error(
        "the enclave serves another model `{}` than the policy accepts\n  expected {expected}\n  actual   {actual}",
        foreign(name)
    )]
    DigestMismatch {
        /// The name asked for.
        name: String,
        /// The digest in the policy.
        expected: Sha384,
        /// The digest of the bundle that is served.
        actual: Sha384,
    },
}

impl ModelError {
    /// A stable identifier for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownModel { .. } => "unknown_model",
            Self::NotInPolicy { .. } => "model_not_in_policy",
            Self::DigestMismatch { .. } => "model_digest_mismatch",
        }
    }

    /// What a person does about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::UnknownModel { .. } => "Ask for one of the models that it serves.",
            Self::NotInPolicy { .. } => {
                "Compare the digest with the one that the model's publisher gives; if it is the same and you accept the \
                 model, add it: `cloister policy add`."
            }
            Self::DigestMismatch { .. } => {
                "This is not the model you accepted: send it nothing, and rely on no answer of it. If its publisher made a new version, get its \
                 digest from there and add it: `cloister policy add`."
            }
        }
        .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> ManifestModel {
        ManifestModel {
            name: name.to_owned(),
            version: "1".to_owned(),
            bundle: Sha384([1; 48]),
            description: Sha384([2; 48]),
        }
    }

    fn manifest(names: &[&str]) -> Manifest {
        let limits = Limits { max_request_bytes: 1 << 20 };
        Manifest { models: names.iter().copied().map(model).collect(), limits, loadable: Loadable::None }
    }

    #[test]
    fn cbor_round_trips() {
        for names in [&[][..], &["iris"], &["iris", "digits"]] {
            for loadable in [Loadable::None, Loadable::Any, Loadable::Listed(vec![Sha384([5; 48])])] {
                let manifest = Manifest { loadable, ..manifest(names) };
                assert_eq!(Manifest::from_cbor(&manifest.to_cbor()), Ok(manifest));
            }
        }
    }

    #[test]
    fn a_model_has_versions_and_the_newest_is_the_last() {
        let mut manifest = manifest(&["iris", "digits", "iris"]);
        manifest.models[2].version = "2".to_owned();
        let read = Manifest::from_cbor(&manifest.to_cbor()).unwrap();
        let versions: Vec<_> = read.versions("iris").map(|model| &model.version).collect();
        assert_eq!(versions, ["1", "2"]);
    }

    #[test]
    fn a_version_that_occurs_twice_is_refused() {
        let error = Manifest::from_cbor(&manifest(&["iris", "iris"]).to_cbor()).unwrap_err();
        assert_eq!(error.to_string(), "the manifest is malformed: version `1` of model `iris` occurs twice");
    }

    #[test]
    fn a_longer_manifest_than_the_limit_is_refused() {
        let long = manifest(&[&"x".repeat(FORMAT.limit)]);
        assert_eq!(Manifest::from_cbor(&long.to_cbor()).unwrap_err().code(), "too_large");
    }
}
