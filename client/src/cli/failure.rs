//! How a command fails: what happened, what to do, and the exit code.

use std::{io, path::Path};

use cloister_attestation::{EvidenceError, PolicyError, Refusal, VerificationError};
use cloister_client::{Error, ErrorKind, TableError};
use cloister_inference::BundleError;

use super::output::foreign;

pub(crate) const INTERNAL: u8 = 1;
pub(crate) const USAGE: u8 = 2;
pub(crate) const NOT_VERIFIED: u8 = 3;
pub(crate) const REFUSED: u8 = 4;
pub(crate) const UNREACHABLE: u8 = 5;
pub(crate) const BAD_INPUT: u8 = 6;
/// What shells say of a program that SIGINT ended.
pub(crate) const INTERRUPTED: u8 = 130;

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: u8,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) remedy: String,
    /// The verification step that failed, and those before it, if it was one.
    pub(crate) refusal: Option<Box<Refusal>>,
}

impl Failure {
    pub(crate) fn new(exit: u8, code: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { exit, code: code.into(), message: message.into(), remedy: remedy.into(), refusal: None }
    }

    pub(crate) fn bad_input(code: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(BAD_INPUT, code, message, remedy)
    }

    pub(crate) fn internal(error: &dyn std::fmt::Display) -> Self {
        Self::new(
            INTERNAL,
            "internal",
            error.to_string(),
            "This is a defect of Cloister or of this machine: please report it.",
        )
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, "usage", message, "See `cloister --help`.")
    }

    pub(crate) fn no_policy() -> Self {
        Self::new(
            USAGE,
            "no_policy",
            "no policy was given, and without one no evaluator is accepted",
            "Give --policy FILE with the policy that comes with the release (in simulation: DIR/policy.toml of the \
             simulated enclave's --authority DIR), or make one: `cloister policy new`. To give it once for all: \
             CLOISTER_POLICY, or `policy` in the file that `cloister --help` names.",
        )
    }

    pub(crate) fn no_evaluator() -> Self {
        Self::new(
            USAGE,
            "usage",
            "no evaluator was named",
            "Name one: https://HOST:PORT, --gateway URL or --sagemaker ENDPOINT; or once for all: CLOISTER_ENDPOINT, or \
             `endpoint` in the file that `cloister --help` names.",
        )
    }

    pub(crate) fn file(path: &Path, error: &io::Error) -> Self {
        Self::bad_input("file", format!("{}: {error}", path.display()), "Check the path and its permissions.")
    }

    pub(crate) fn policy(path: &Path, error: &PolicyError) -> Self {
        Self::bad_input(error.code(), format!("{}: {error}", path.display()), error.remedy())
    }

    pub(crate) fn table(path: &Path, error: &TableError) -> Self {
        Self::bad_input(error.code(), format!("{}: {error}", path.display()), error.remedy())
    }

    pub(crate) fn bundle(path: &Path, error: &BundleError) -> Self {
        Self::bad_input(error.code(), format!("{}: {error}", path.display()), error.remedy())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let failure = Self::new(NOT_VERIFIED, refusal.code(), refusal.to_string(), refusal.remedy());
        Self { refusal: Some(refusal.into()), ..failure }
    }
}

/// A judgement on something else than a document: there are no steps before it.
impl From<VerificationError> for Failure {
    fn from(error: VerificationError) -> Self {
        Self::new(NOT_VERIFIED, error.code(), error.to_string(), error.remedy())
    }
}

impl From<EvidenceError> for Failure {
    fn from(error: EvidenceError) -> Self {
        let remedy = error.remedy();
        match error {
            EvidenceError::Document(refusal) => Self { remedy, ..refusal.into() },
            other => Self::new(NOT_VERIFIED, other.code(), other.to_string(), remedy),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match error.kind() {
            ErrorKind::NotVerified => NOT_VERIFIED,
            ErrorKind::Refused => REFUSED,
            ErrorKind::Unreachable => UNREACHABLE,
            ErrorKind::BadInput => BAD_INPUT,
        };
        match error {
            Error::NotVerified(refusal) => refusal.into(),
            // Its reason may repeat what came.
            Error::BadAnswer { .. } => Self::new(exit, error.code(), foreign(&error.to_string()), error.remedy()),
            other => Self::new(exit, other.code(), other.to_string(), other.remedy()),
        }
    }
}
