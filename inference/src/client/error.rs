//! What can go wrong at a client.

use thiserror::Error;

use crate::message::MessageError;

/// Why rows were not encrypted. Nothing has been sent.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum EncryptError {
    /// No rows, or more than one request holds.
    #[error("{rows} rows, where one request holds 1 to {capacity}")]
    TooManyRows {
        /// As many as given.
        rows: usize,
        /// As many as fit.
        capacity: usize,
    },
    /// A row with another number of values than the model has columns.
    #[error("row {row} has {found} values, the model has {expected} columns")]
    WrongWidth {
        /// Counted from 0.
        row: usize,
        /// The model's columns.
        expected: usize,
        /// The row's values.
        found: usize,
    },
    /// A value that is no number.
    #[error("row {row}, column {column:?}: {value} is not a number that can be encrypted")]
    NotFinite {
        /// Counted from 0.
        row: usize,
        /// The column's name.
        column: String,
        /// NaN or an infinity.
        value: f64,
    },
    /// A value for which the bound does not hold.
    #[error("row {row}, column {column:?}: {value} is outside {low} to {high}, where the model promises its precision")]
    OutOfRange {
        /// Counted from 0.
        row: usize,
        /// The column's name.
        column: String,
        /// The value.
        value: f64,
        /// The least that is accepted.
        low: f64,
        /// The greatest.
        high: f64,
    },
    /// A value between the points of a grid.
    #[error("row {row}, column {column:?}: {value} is not {low} plus a multiple of {step}")]
    OffGrid {
        /// Counted from 0.
        row: usize,
        /// The column's name.
        column: String,
        /// The value.
        value: f64,
        /// The first point.
        low: f64,
        /// From one point to the next.
        step: f64,
    },
}

impl EncryptError {
    /// The same of rows that so many others stand before.
    pub fn after(mut self, others: usize) -> Self {
        match &mut self {
            Self::TooManyRows { .. } => {}
            Self::WrongWidth { row, .. }
            | Self::NotFinite { row, .. }
            | Self::OutOfRange { row, .. }
            | Self::OffGrid { row, .. } => *row += others,
        }
        self
    }

    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooManyRows { .. } => "too_many_rows",
            Self::WrongWidth { .. } => "wrong_width",
            Self::NotFinite { .. } => "not_finite",
            Self::OutOfRange { .. } => "out_of_range",
            Self::OffGrid { .. } => "off_grid",
        }
    }

    /// What a person does about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::TooManyRows { capacity, .. } => format!("send at least one row, and at most {capacity} at a time"),
            Self::WrongWidth { .. } => "give one value per column, in the order of the model's description".into(),
            Self::NotFinite { .. } => "fill in missing values as the model was trained, or leave the row out".into(),
            Self::OffGrid { step, .. } => {
                format!("round the value to a multiple of {step}, or ask for a model without a grid for this column")
            }
            Self::OutOfRange { low, high, .. } => {
                format!(
                    "check the value and its unit, clip it to {low} or {high}, or ask for a model with a wider range"
                )
            }
        }
    }
}

/// Why a reply gave no logits. It never says anything about what was decrypted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecryptError {
    /// It is not a reply from this model.
    #[error(transparent)]
    Reply(#[from] MessageError),
    /// It answers another request: one of another number of rows, or in another layout.
    #[error("the reply is to another request: it has other rows, or another layout")]
    OtherRequest,
    /// What the client had sent along did not come back.
    #[error("the reply is not to this request, or not under this session's key: its check value is another")]
    Foreign,
    /// It decrypts to what no honest evaluation gives.
    #[error(
        "the reply does not decrypt within the model's proven bound: this is not an honest evaluation of the request"
    )]
    OutOfBound,
}

impl DecryptError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Reply(error) => error.code(),
            Self::OtherRequest => "reply_to_another_request",
            Self::Foreign => "reply_foreign",
            Self::OutOfBound => "reply_out_of_bound",
        }
    }

    /// What a person does about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Reply(error) => error.remedy(),
            Self::OtherRequest | Self::Foreign | Self::OutOfBound => {
                "do not send the data again; keep the reply and its receipt, and report the evaluator".into()
            }
        }
    }
}
