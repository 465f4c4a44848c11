//! What is wrong with a policy file.

use crate::{ParseDigestError, ParseTimestampError, RootError};

/// A text is not a policy, or a change is impossible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// More text than any policy has.
    #[error("the policy has {actual} bytes, at most {limit} are allowed")]
    TooLarge {
        /// The most bytes allowed.
        limit: usize,
        /// The bytes found.
        actual: usize,
    },
    /// Not TOML, or with keys that are missing, unknown or of another type.
    #[error("the policy is malformed: {0}")]
    Malformed(String),
    /// A version that this program does not know.
    #[error("the policy has version {version}, this program knows version 1: made by a newer Cloister: update")]
    Newer {
        /// The version found.
        version: i64,
    },
    /// A time without its offset, or before 1970.
    #[error("{key}: {source}")]
    Time {
        /// The key.
        key: String,
        /// What was found.
        source: ParseTimestampError,
    },
    /// A duration that is none, or longer than five minutes.
    #[error("max_age is \"{actual}\", expected \"5m\" or shorter, such as \"90s\"")]
    MaxAge {
        /// The text found.
        actual: String,
    },
    /// A root that is no certificate.
    #[error("root: {0}")]
    Root(RootError),
    /// A register that is no SHA-384 digest.
    #[error("{key}: `{actual}` is not a PCR: 96 hexadecimal digits")]
    Pcr {
        /// The key.
        key: String,
        /// What was found.
        actual: String,
    },
    /// A register that every debug enclave has.
    #[error("release `{release}`: PCR{index} is all zeros, which is what an enclave in debug mode shows")]
    ZeroPcr {
        /// The release.
        release: String,
        /// The register.
        index: u8,
    },
    /// A digest that is none.
    #[error("model `{model}`: {source}")]
    Digest {
        /// The model.
        model: String,
        /// What was found.
        source: ParseDigestError,
    },
    /// A release or model without a name.
    #[error("a {what} has an empty name")]
    EmptyName {
        /// Which of them.
        what: &'static str,
    },
    /// A name that occurs twice.
    #[error("the {what} `{name}` is listed twice")]
    Duplicate {
        /// A release or a model.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A release that was revoked, which is for good.
    #[error("release `{release}` is revoked and stays so")]
    Revoked {
        /// The release.
        release: String,
    },
    /// A release that is not there.
    #[error("the policy has no release `{name}`")]
    UnknownRelease {
        /// The name asked for.
        name: String,
    },
}

impl PolicyError {
    /// A stable identifier for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "policy_too_large",
            Self::Malformed(_) => "bad_policy",
            Self::Newer { .. } => "newer_version",
            Self::Time { .. } => "policy_time",
            Self::MaxAge { .. } => "policy_max_age",
            Self::Root(_) => "policy_root",
            Self::Pcr { .. } => "policy_pcr",
            Self::ZeroPcr { .. } => "policy_zero_pcr",
            Self::Digest { .. } => "policy_digest",
            Self::EmptyName { .. } => "policy_empty_name",
            Self::Duplicate { .. } => "policy_duplicate",
            Self::Revoked { .. } => "policy_revoked",
            Self::UnknownRelease { .. } => "unknown_release",
        }
    }

    /// What a person does about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Newer { .. } => "Update Cloister on this machine.",
            Self::ZeroPcr { .. } => {
                "Take the measurements of the build itself (measurements.json), not those of an enclave in debug mode."
            }
            Self::Revoked { .. } => "Add the new build under a name of its own.",
            Self::UnknownRelease { .. } => "See the names with `cloister policy show`.",
            Self::Time { .. } => "Write a time with its offset, such as 2027-02-01T00:00:00Z, without quotes.",
            _ => "Correct the file, or make a new one with `cloister policy new`; every key is checked on purpose.",
        }
        .to_owned()
    }
}
