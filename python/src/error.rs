//! Exceptions: whose fault it is, a code, what happened, what to do.

use std::fmt::Display;

use cloister_attestation::{EvidenceError, PolicyError, Refusal};
use cloister_client::{Error, ErrorKind};
use cloister_inference::{EncryptError, ImportError};
use pyo3::{prelude::*, types::PyDict};

use crate::convert::step;

/// Becomes an exception of `cloister._errors`.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: ErrorKind,
    code: String,
    message: String,
    remedy: String,
    /// The verification step that failed, and those before it, if it was one.
    refusal: Option<Box<Refusal>>,
}

impl Failure {
    fn new(kind: ErrorKind, code: &str, message: impl Display, remedy: impl Into<String>) -> Self {
        Self { kind, code: code.to_owned(), message: message.to_string(), remedy: remedy.into(), refusal: None }
    }

    pub(crate) fn bad_input(code: &str, message: impl Display, remedy: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadInput, code, message, remedy)
    }

    pub(crate) fn policy(path: &str, error: &PolicyError) -> Self {
        Self::bad_input(error.code(), format_args!("{path}: {error}"), error.remedy())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::NotVerified(refusal) => refusal.into(),
            Error::Encrypt(EncryptError::OutOfRange { .. }) => Self::bad_input(error.code(), &error, OUT_OF_RANGE),
            other => Self::new(other.kind(), other.code(), &other, other.remedy()),
        }
    }
}

const OUT_OF_RANGE: &str =
    "Check the value and its unit, pass clip=True to move it to the edge, or ask for a model with a wider range.";

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let failure = Self::new(ErrorKind::NotVerified, refusal.code(), &refusal, refusal.remedy());
        Self { refusal: Some(refusal.into()), ..failure }
    }
}

impl From<EvidenceError> for Failure {
    fn from(error: EvidenceError) -> Self {
        let remedy = error.remedy();
        match error {
            EvidenceError::Document(refusal) => Self { remedy, ..refusal.into() },
            other => Self::new(ErrorKind::NotVerified, other.code(), &other, remedy),
        }
    }
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        Self::bad_input(error.code(), &error, error.remedy())
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        Python::attach(|py| exception(py, failure).unwrap_or_else(|error| error))
    }
}

fn exception(py: Python<'_>, failure: Failure) -> PyResult<PyErr> {
    let Failure { kind, code, message, remedy, refusal } = failure;
    let class = match kind {
        ErrorKind::NotVerified => "NotVerified",
        ErrorKind::Refused => "Refused",
        ErrorKind::Unreachable => "Unreachable",
        ErrorKind::BadInput => "BadInput",
    };
    let further = PyDict::new(py);
    if let Some(refusal) = refusal {
        let Refusal { error: _, expected, passed } = &*refusal;
        further.set_item("step", refusal.step().number())?;
        further.set_item("step_name", refusal.step().name())?;
        further.set_item("expected", expected)?;
        further.set_item("passed", passed.iter().map(step).collect::<Vec<_>>())?;
    }
    let class = py.import("cloister._errors")?.getattr(class)?;
    Ok(PyErr::from_value(class.call((message, code, remedy), Some(&further))?))
}
