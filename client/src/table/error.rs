//! Why something is not a table of numbers.

use std::collections::HashSet;

/// Not a table of numbers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// Not CSV, or lines of unequal length.
    #[error("{}", csv_message(.0))]
    Csv(#[from] csv::Error),
    /// No header or no rows.
    #[error("the file has no rows under a header line")]
    Empty,
    /// Two columns have one name.
    #[error("two columns are named {column:?}")]
    DuplicateColumn {
        /// The name.
        column: String,
    },
    /// Columns are missing.
    #[error("wrong columns: {}", wrong_columns(expected, found))]
    Columns {
        /// What is needed.
        expected: Vec<String>,
        /// What the header names.
        found: Vec<String>,
    },
    /// A column that was asked for is not there.
    #[error("there is no column {column:?}; there are {}", quoted(found))]
    NoColumn {
        /// The name that was asked for.
        column: String,
        /// What the header names.
        found: Vec<String>,
    },
    /// A column of which a range was asked for has texts in it, or nothing.
    #[error("column {column:?} has no numbers, or not only numbers")]
    NoNumbers {
        /// The column.
        column: String,
    },
    /// The first line is no header.
    #[error("the first line looks like data: it contains the number {cell}")]
    NoHeader {
        /// A number of the first line.
        cell: String,
    },
    /// An empty cell.
    #[error("line {line}, column {column:?}: the cell is empty")]
    MissingCell {
        /// Line of the file, from 1.
        line: u64,
        /// Column.
        column: String,
    },
    /// A cell that is no number.
    #[error("line {line}, column {column:?}: {cell:?} is not a number")]
    NotANumber {
        /// Line of the file, from 1.
        line: u64,
        /// Column.
        column: String,
        /// What it says.
        cell: String,
    },
    /// NaN or an infinity.
    #[error("line {line}, column {column:?}: {cell:?} is not finite")]
    NotFinite {
        /// Line of the file, from 1.
        line: u64,
        /// Column.
        column: String,
        /// What it says.
        cell: String,
    },
}

impl TableError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Csv(_) => "bad_csv",
            Self::Empty => "empty_table",
            Self::DuplicateColumn { .. } => "duplicate_column",
            Self::Columns { .. } => "wrong_columns",
            Self::NoColumn { .. } => "no_column",
            Self::NoNumbers { .. } => "no_numbers",
            Self::NoHeader { .. } => "no_header",
            Self::MissingCell { .. } => "missing_cell",
            Self::NotANumber { .. } => "not_a_number",
            Self::NotFinite { .. } => "not_finite",
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Csv(_) => {
                "Give a UTF-8 file with a header, cells separated by commas, and as many of them in every line.".into()
            }
            Self::Empty => "Give a header line with the column names, and at least one row.".into(),
            Self::DuplicateColumn { .. } => "Rename or remove one of the two.".into(),
            Self::Columns { .. } => {
                "Name the columns in the header line as the model does; their order does not matter.".into()
            }
            Self::NoColumn { .. } => "Name one of the columns that are there.".into(),
            Self::NoNumbers { .. } => "Name a column of numbers.".into(),
            Self::NoHeader { .. } => "Put a line with the names of the columns in front.".into(),
            Self::MissingCell { .. } => "Fill the cell or remove the row: a missing value has no encryption.".into(),
            Self::NotANumber { .. } | Self::NotFinite { .. } => "Write a finite decimal number.".into(),
        }
    }
}

/// Names that anybody reads.
const MAX_NAMES: usize = 20;

/// Both sides; of many columns, those that are missing.
fn wrong_columns(expected: &[String], found: &[String]) -> String {
    if expected.len().max(found.len()) <= MAX_NAMES {
        return format!("expected {}, found {}", quoted(expected), quoted(found));
    }
    let there: HashSet<&String> = found.iter().collect();
    let missing: Vec<String> = expected.iter().filter(|name| !there.contains(name)).cloned().collect();
    format!(
        "of {} expected, {} are not among the {} found: {}",
        expected.len(),
        missing.len(),
        found.len(),
        quoted(&missing)
    )
}

fn quoted(names: &[String]) -> String {
    let mut text = names.iter().take(MAX_NAMES).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    if names.len() > MAX_NAMES {
        text.push_str(&format!(" and {} more", names.len() - MAX_NAMES));
    }
    text
}

fn csv_message(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let line = pos.as_ref().map_or(0, csv::Position::line);
            format!("line {line} has {len} cells, the header has {expected_len}")
        }
        csv::ErrorKind::Utf8 { pos, .. } => {
            format!("line {} is not UTF-8", pos.as_ref().map_or(0, csv::Position::line))
        }
        _ => error.to_string(),
    }
}
