//! What is wrong with a policy file.

use crate::{
    ParseDigestError, ParseTimestampError, RootError,
    foreign::{foreign, listed},
};

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
    /// Bytes that are no text.
    #[error("the policy is not UTF-8 text: byte {offset} fits no character")]
    NotUtf8 {
        /// The offset of the first byte that does not fit, from 0.
        offset: usize,
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
    #[error("{}: {source}", foreign(key))]
    Time {
        /// The key.
        key: String,
        /// What was found.
        source: ParseTimestampError,
    },
    /// A duration that is none, or longer than five minutes.
    #[error("max_age is \"{}\", expected \"5m\" or shorter, such as \"90s\"", foreign(actual))]
    MaxAge {
        /// The text found.
        actual: String,
    },
    /// A root that is no certificate.
    #[error("root: {0}")]
    Root(RootError),
    /// A register that is no SHA-384 digest.
    #[error("{}: `{}` is not a PCR: 96 hexadecimal digits", foreign(key), foreign(actual))]
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
    /// A pin that names nobody.
    #[error("pin: PCR{index} is all zeros, which many enclaves of many owners show: it pins nothing")]
    ZeroPin {
        /// The register.
        index: u8,
    },
    /// A digest that is none.
    #[error("model `{}`: {source}", foreign(model))]
    Digest {
        /// The model.
        model: String,
        /// What was found.
        source: ParseDigestError,
    },
    /// A release or model without a name.
    #[error("the name of a {what} is empty")]
    EmptyName {
        /// Which of them.
        what: &'static str,
    },
    /// A name or reason of which a part is not shown, or changes how the rest is shown.
    #[error("the {what} `{}` has the character U+{:04X}, which is not visible text", foreign(text), u32::from(*character))]
    Unprintable {
        /// A release, a model, a pin or a reason.
        what: &'static str,
        /// The text.
        text: String,
        /// The first such character.
        character: char,
    },
    /// A name or reason that is too long to be read.
    #[error("a {what} has {actual} characters, at most {limit} are allowed")]
    TextTooLong {
        /// A release, a model, a pin or a reason.
        what: &'static str,
        /// The most characters allowed.
        limit: usize,
        /// The characters found.
        actual: usize,
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
    /// A release that was revoked for another reason.
    #[error("release `{release}` is revoked already, for another reason: {reason}")]
    AlreadyRevoked {
        /// The release.
        release: String,
        /// The reason that stays.
        reason: String,
    },
    /// A release that is not there.
    #[error("the policy has no release `{}`; it has {}", foreign(name), listed(known.iter()))]
    UnknownRelease {
        /// The name asked for.
        name: String,
        /// The names that are there.
        known: Vec<String>,
    },
}

impl PolicyError {
    /// A stable identifier for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "policy_too_large",
            Self::NotUtf8 { .. } => "policy_not_utf8",
            Self::Malformed(_) => "bad_policy",
            Self::Newer { .. } => "newer_version",
            Self::Time { .. } => "policy_time",
            Self::MaxAge { .. } => "policy_max_age",
            Self::Root(_) => "policy_root",
            Self::Pcr { .. } => "policy_pcr",
            Self::ZeroPcr { .. } => "policy_zero_pcr",
            Self::ZeroPin { .. } => "policy_zero_pin",
            Self::Digest { .. } => "policy_digest",
            Self::EmptyName { .. } => "policy_empty_name",
            Self::Unprintable { .. } => "policy_unprintable",
            Self::TextTooLong { .. } => "policy_text_too_long",
            Self::Duplicate { .. } => "policy_duplicate",
            Self::Revoked { .. } => "policy_revoked",
            Self::AlreadyRevoked { .. } => "already_revoked",
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
            Self::NotUtf8 { .. } => "Save the file as UTF-8 (not UTF-16), or check that it is a policy at all.",
            Self::ZeroPin { .. } => {
                "Remove the pin. Without a role PCR3 is zero, and without a signing certificate PCR8: to pin the instance use \
                 PCR4, to pin the image PCR0."
            }
            Self::Unprintable { .. } | Self::TextTooLong { .. } => {
                "Write names and reasons in visible characters on one line: who reviews the policy must see what it says."
            }
            Self::AlreadyRevoked { .. } => "Nothing is left to do: it stays revoked. Its published reason is not rewritten.",
            Self::Revoked { .. } => "A revoked build is accepted under no other name. Add the new build under a name of its own.",
            Self::UnknownRelease { .. } => "Write the name as the policy does: `cloister policy show` lists them.",
            Self::Time { .. } => "Write a time with its offset, such as 2027-02-01T00:00:00Z, without quotes.",
            _ => "Correct the file, or make a new one with `cloister policy new`; every key is checked on purpose.",
        }
        .to_owned()
    }
}
