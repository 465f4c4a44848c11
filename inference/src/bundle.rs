//! A model as the enclave holds it: its description, its integers, and the proof that the two belong together.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha384};
use thiserror::Error;

use crate::bound::{ErrorLedger, IntegerModel, LOGIT_ROOM, StatedErrors};
use crate::cbor::{self, Bytes, FormatError};
use crate::description::{self, Description, DescriptionError};
use crate::parameters::ParameterSet;

/// A model, identified by the SHA-384 of its file.
///
/// A value of this type keeps what it promises: every condition is checked by whatever makes one, loading included. Only the
/// two error terms that stem from the original model, `export` and `arithmetic`, are taken from the file; the other terms
/// are computed again from its integers.
#[derive(Clone, PartialEq)]
pub struct Bundle {
    description: Description,
    model: IntegerModel,
    ledger: ErrorLedger,
    bytes: Vec<u8>,
}

impl Bundle {
    /// Reads a bundle, and checks that decryption cannot fail and that the bound holds.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BundleError> {
        let Fields { v: _, biases, domain: _, export, weights, arithmetic, description } =
            cbor::read(bytes, DOMAIN, MAX_LEN)?;
        let description = Description::from_bytes(&description.0)?;
        Self::new(description, IntegerModel { weights, biases }, StatedErrors { export, arithmetic })
    }

    pub(crate) fn new(
        description: Description,
        model: IntegerModel,
        stated: StatedErrors,
    ) -> Result<Self, BundleError> {
        check_shape(&description, &model)?;
        check_certainty(&description, &model)?;
        let ledger = check_bound(&description, &model, stated)?;
        let bytes = cbor::write(&Fields {
            v: 1,
            biases: model.biases.clone(),
            domain: DOMAIN.into(),
            export: stated.export,
            weights: model.weights.clone(),
            arithmetic: stated.arithmetic,
            description: Bytes(description.to_bytes()),
        });
        Ok(Self { description, model, ledger, bytes })
    }

    /// The file's bytes: deterministic CBOR.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.bytes.clone()
    }

    /// SHA-384 of the file's bytes.
    pub fn digest(&self) -> [u8; 48] {
        Sha384::digest(&self.bytes).into()
    }

    /// What clients may know.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The model's name, fit for a path.
    pub fn name(&self) -> &str {
        self.description.name()
    }

    /// The model's version, as its owner counts.
    pub fn version(&self) -> &str {
        self.description.version()
    }

    /// The parameters under which requests are encrypted.
    pub fn parameters(&self) -> ParameterSet {
        self.description.parameters()
    }

    /// The logits of one row: K.
    pub fn logits(&self) -> usize {
        self.description.labels().len()
    }

    /// The most rows that one request holds.
    pub fn rows_per_request(&self) -> usize {
        self.description.rows_per_request()
    }

    /// The exact bytes of a request of `rows` rows.
    pub fn request_len(&self, rows: usize) -> usize {
        self.description.request_len(rows)
    }

    /// The exact bytes of the reply to it.
    pub fn reply_len(&self, rows: usize) -> usize {
        self.description.reply_len(rows)
    }

    /// The most by which a published logit differs from scikit-learn's.
    pub fn bound(&self) -> f64 {
        self.description.bound()
    }

    /// Where that bound comes from.
    pub fn ledger(&self) -> &ErrorLedger {
        &self.ledger
    }

    pub(crate) fn model(&self) -> &IntegerModel {
        &self.model
    }
}

/// The weights stay out of logs.
impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundle").field("description", &self.description).finish_non_exhaustive()
    }
}

const DOMAIN: &str = "cloister/bundle";

/// A description, and as many 9-byte integers as a polynomial has coefficients, twice over.
const MAX_LEN: usize = description::MAX_LEN + (64 << 10);

/// A bundle as it is written, in the order of the keys' encodings.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    v: u64,
    biases: Vec<i64>,
    domain: String,
    export: f64,
    weights: Vec<Vec<i64>>,
    arithmetic: f64,
    description: Bytes,
}

fn check_shape(description: &Description, model: &IntegerModel) -> Result<(), BundleError> {
    let (features, classes) = (description.features().len(), description.labels().len());
    let check = |what, expected, actual| match expected == actual {
        true => Ok(()),
        false => Err(BundleError::Shape { what, expected, actual }),
    };
    check("biases", classes, model.biases.len())?;
    check("rows of weights", classes, model.weights.len())?;
    model.weights.iter().try_for_each(|row| check("weights of a class", features, row.len()))
}

/// Decryption cannot fail: P + ‖ω‖₁·(2^t + 2^15) + (N + 1)·2^(63−b) < 2^63, and clients know this limit.
fn check_certainty(description: &Description, model: &IntegerModel) -> Result<(), BundleError> {
    let limit = model.limit(description.scale(), description.parameters());
    if limit >= LOGIT_ROOM {
        return Err(BundleError::Uncertain { limit, room: LOGIT_ROOM });
    }
    match u128::from(description.limit()) == limit {
        true => Ok(()),
        false => Err(BundleError::Limit { stated: description.limit(), actual: limit }),
    }
}

/// The bound holds: it is no less than the sum of the ledger.
fn check_bound(
    description: &Description,
    model: &IntegerModel,
    stated: StatedErrors,
) -> Result<ErrorLedger, BundleError> {
    for (what, error) in [("export", stated.export), ("arithmetic", stated.arithmetic)] {
        if !(error >= 0.0 && error.is_finite()) {
            return Err(BundleError::StatedError { what, error });
        }
    }
    let ledger = ErrorLedger::new(model, description.scale(), description.parameters(), description.decimals(), stated);
    match ledger.total() <= description.bound() {
        true => Ok(ledger),
        false => Err(BundleError::Bound { stated: description.bound(), actual: ledger.total() }),
    }
}

/// Why bytes are not a bundle, or one that does not keep its promises.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Not such a file.
    #[error("the bundle: {0}")]
    Format(#[from] FormatError),
    /// The description inside is faulty.
    #[error(transparent)]
    Description(#[from] DescriptionError),
    /// Not as many integers as the description's columns and classes ask for.
    #[error("the bundle has {actual} {what}, its description asks for {expected}")]
    Shape {
        /// Which integers.
        what: &'static str,
        /// As many as it takes.
        expected: usize,
        /// As many as there are.
        actual: usize,
    },
    /// A sum could wrap, so that a decryption could be wrong.
    #[error("logits and noise reach {limit}, where {room} wrap: decryption would not be certain")]
    Uncertain {
        /// P + noise + rounding.
        limit: u128,
        /// 2^63.
        room: u128,
    },
    /// Clients are told another limit.
    #[error("the description says that logits reach {stated}, the weights say {actual}")]
    Limit {
        /// The description's.
        stated: u64,
        /// The weights'.
        actual: u128,
    },
    /// An error term that is none.
    #[error("the {what} error is stated as {error}")]
    StatedError {
        /// Which.
        what: &'static str,
        /// As stated.
        error: f64,
    },
    /// The errors exceed what the description promises.
    #[error("the description promises {stated:e}, the errors add up to {actual:e}")]
    Bound {
        /// The description's.
        stated: f64,
        /// The ledger's sum.
        actual: f64,
    },
}

impl BundleError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Format(error) => error.code(),
            Self::Description(error) => error.code(),
            Self::Shape { .. } => "bundle_shape",
            Self::Uncertain { .. } => "bundle_uncertain",
            Self::Limit { .. } => "bundle_limit",
            Self::StatedError { .. } => "bundle_stated_error",
            Self::Bound { .. } => "bundle_bound",
        }
    }

    /// What a person does about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Format(error) => error.remedy(),
            Self::Description(error) => error.remedy(),
            _ => "import the model again; this file was not made by an unchanged Cloister".into(),
        }
    }
}
