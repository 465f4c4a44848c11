//! What an enclave serves.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    FormatError, Sha384,
    cbor::{self, Format, VERSION},
    foreign::{foreign, listed},
};

const FORMAT: Format = Format { name: "manifest", limit: 64 * 1024 };

/// The models that an enclave serves and the limits it serves them under, fixed at its boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The models, each name once.
    pub models: Vec<ManifestModel>,
    /// The limits of the service.
    pub limits: Limits,
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
    /// Deterministic CBOR: `{v, limits, models}`.
    pub fn to_cbor(&self) -> Vec<u8> {
        let Self { models, limits } = self.clone();
        cbor::encode(&Wire { v: VERSION, limits, models })
    }

    /// Reads what [`to_cbor`](Self::to_cbor) wrote, at most 64 KiB.
    pub fn from_cbor(bytes: &[u8]) -> Result<Self, FormatError> {
        let Wire { v: _, limits, models } = FORMAT.decode(bytes)?;
        let mut names = BTreeSet::new();
        match models.iter().find(|model| !names.insert(&model.name)) {
            Some(model) => Err(FORMAT.malformed(format_args!("model `{}` occurs twice", model.name))),
            None => Ok(Self { models, limits }),
        }
    }

    /// The digest that statements carry.
    pub fn digest(&self) -> Sha384 {
        Sha384::of(&self.to_cbor())
    }

    /// The model of that name.
    pub fn model(&self, name: &str) -> Option<&ManifestModel> {
        self.models.iter().find(|model| model.name == name)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    v: u64,
    limits: Limits,
    models: Vec<ManifestModel>,
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
        Manifest { models: names.iter().copied().map(model).collect(), limits: Limits { max_request_bytes: 1 << 20 } }
    }

    #[test]
    fn cbor_round_trips() {
        for names in [&[][..], &["iris"], &["iris", "digits"]] {
            let manifest = manifest(names);
            assert_eq!(Manifest::from_cbor(&manifest.to_cbor()), Ok(manifest));
        }
    }

    #[test]
    fn a_name_that_occurs_twice_is_refused() {
        let error = Manifest::from_cbor(&manifest(&["iris", "iris"]).to_cbor()).unwrap_err();
        assert_eq!(error.to_string(), "the manifest is malformed: model `iris` occurs twice");
    }

    #[test]
    fn a_longer_manifest_than_the_limit_is_refused() {
        let long = manifest(&[&"x".repeat(FORMAT.limit)]);
        assert_eq!(Manifest::from_cbor(&long.to_cbor()).unwrap_err().code(), "too_large");
    }
}
