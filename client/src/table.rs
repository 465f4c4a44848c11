//! Rows of features from CSV: columns found by name, every bad cell named by line and column.

use std::io::Read;

use cloister_inference::FeatureRange;
use csv::{ReaderBuilder, StringRecord};

/// A CSV file in memory.
#[derive(Debug)]
pub struct Table {
    header: Vec<String>,
    records: Vec<(u64, StringRecord)>,
}

impl Table {
    /// Reads a CSV file with a header line. Every line must have as many cells as the header.
    pub fn read(source: impl Read) -> Result<Self, TableError> {
        let mut reader = ReaderBuilder::new().trim(csv::Trim::All).from_reader(source);
        let header: Vec<String> = reader.headers()?.iter().map(str::to_owned).collect();
        if header.iter().all(String::is_empty) {
            return Err(TableError::Empty);
        }
        if let Some(twice) = header.iter().enumerate().find(|(i, name)| header[..*i].contains(name)) {
            return Err(TableError::DuplicateColumn { column: twice.1.clone() });
        }
        // pandas writes 0, 1, 2 … where columns have no names, so whole numbers pass.
        if let Some(cell) = header.iter().find(|name| name.contains('.') && name.parse::<f64>().is_ok()) {
            return Err(TableError::NoHeader { cell: cell.clone() });
        }
        let mut records = Vec::new();
        for record in reader.into_records() {
            let record = record?;
            let line = record.position().map_or(0, csv::Position::line);
            records.push((line, record));
        }
        if records.is_empty() {
            return Err(TableError::Empty);
        }
        Ok(Self { header, records })
    }

    /// The names of the columns.
    pub fn columns(&self) -> &[String] {
        &self.header
    }

    /// The columns whose every cell is a number.
    pub fn numeric_columns(&self) -> Vec<&str> {
        let numeric = |index: usize| self.records.iter().all(|(_, record)| record[index].parse::<f64>().is_ok());
        self.header.iter().enumerate().filter(|(index, _)| numeric(*index)).map(|(_, name)| name.as_str()).collect()
    }

    /// The numbers of the columns `names`, in that order, row by row.
    pub fn numbers(&self, names: &[&str]) -> Result<Vec<Vec<f64>>, TableError> {
        let indices = names
            .iter()
            .map(|name| self.header.iter().position(|column| column == name))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| TableError::Columns {
                expected: names.iter().map(|name| (*name).to_owned()).collect(),
                found: self.header.clone(),
            })?;
        let row = |(line, record): &(u64, StringRecord)| {
            indices.iter().map(|&index| self.number(*line, record, index)).collect()
        };
        self.records.iter().map(row).collect()
    }

    /// The least and greatest number of each of the columns `names`: what a model is imported with.
    pub fn ranges(&self, names: &[&str]) -> Result<Vec<FeatureRange>, TableError> {
        let rows = self.numbers(names)?;
        let range = |(index, name): (usize, &&str)| {
            let column = rows.iter().map(|row| row[index]);
            let (low, high) = (column.clone().fold(f64::INFINITY, f64::min), column.fold(f64::NEG_INFINITY, f64::max));
            FeatureRange { name: (*name).to_owned(), low, high, step: None }
        };
        Ok(names.iter().enumerate().map(range).collect())
    }

    /// The texts of one column.
    pub fn texts(&self, name: &str) -> Result<Vec<&str>, TableError> {
        let position = self.header.iter().position(|column| column == name);
        let index =
            position.ok_or_else(|| TableError::NoColumn { column: name.to_owned(), found: self.header.clone() })?;
        Ok(self.records.iter().map(|(_, record)| &record[index]).collect())
    }

    /// The line of a row in the file, counted from 1.
    pub fn line(&self, row: usize) -> u64 {
        self.records[row].0
    }

    fn number(&self, line: u64, record: &StringRecord, index: usize) -> Result<f64, TableError> {
        let (cell, column) = (&record[index], || self.header[index].clone());
        if cell.is_empty() {
            return Err(TableError::MissingCell { line, column: column() });
        }
        let number: f64 = cell.parse().map_err(|_| TableError::NotANumber {
            line,
            column: column(),
            cell: cell.chars().take(40).collect(),
        })?;
        if !number.is_finite() {
            return Err(TableError::NotFinite { line, column: column(), cell: cell.to_owned() });
        }
        Ok(number)
    }
}

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
    #[error("wrong columns: expected {}, found {}", quoted(expected), quoted(found))]
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
            Self::NoHeader { .. } => "Put a line with the names of the columns in front.".into(),
            Self::MissingCell { .. } => "Fill the cell or remove the row: a missing value has no encryption.".into(),
            Self::NotANumber { .. } | Self::NotFinite { .. } => "Write a finite decimal number.".into(),
        }
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
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

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Result<Table, TableError> {
        Table::read(text.as_bytes())
    }

    #[test]
    fn columns_are_found_by_name_in_any_order() {
        let table = table("b,a,kind\n1,2,x\n3,4,y\n").unwrap();
        assert_eq!(table.numbers(&["a", "b"]).unwrap(), [[2.0, 1.0], [4.0, 3.0]]);
        assert_eq!(table.texts("kind").unwrap(), ["x", "y"]);
        assert_eq!(table.numeric_columns(), ["b", "a"]);
    }

    #[test]
    fn wrong_columns_name_both_sides() {
        let error = table("a,c\n1,2\n").unwrap().numbers(&["a", "b"]).unwrap_err();
        assert_eq!(error.to_string(), r#"wrong columns: expected "a", "b", found "a", "c""#);
    }

    #[test]
    fn bad_cells_are_named_by_line_and_column() {
        let numbers = |text: &str| table(text).unwrap().numbers(&["a", "b"]).unwrap_err().to_string();
        assert_eq!(numbers("a,b\n1,2\n3,\n"), r#"line 3, column "b": the cell is empty"#);
        assert_eq!(numbers("a,b\nx,2\n"), r#"line 2, column "a": "x" is not a number"#);
        assert_eq!(numbers("a,b\n1,NaN\n"), r#"line 2, column "b": "NaN" is not finite"#);
        assert_eq!(numbers("a,b\n1,-inf\n"), r#"line 2, column "b": "-inf" is not finite"#);
        assert_eq!(numbers("a,b\n1,1e999\n"), r#"line 2, column "b": "1e999" is not finite"#);
    }

    #[test]
    fn what_is_no_table_is_refused() {
        assert_eq!(table("a,b\n1,2\n3\n").unwrap_err().to_string(), "line 3 has 1 cells, the header has 2");
        assert!(matches!(table(""), Err(TableError::Empty)));
        assert!(matches!(table("a,b\n"), Err(TableError::Empty)));
        assert!(matches!(table("5.1,3.5\n4.9,3.0\n"), Err(TableError::NoHeader { cell }) if cell == "5.1"));
        assert!(table("0,1\n4.9,3.0\n").is_ok());
        assert!(matches!(table("a,b\n1,2\n").unwrap().texts("c"), Err(TableError::NoColumn { .. })));
        assert!(matches!(table("a,a\n1,2\n"), Err(TableError::DuplicateColumn { .. })));
        assert!(matches!(Table::read(&b"a,b\n\xff,1\n"[..]), Err(TableError::Csv(_))));
    }
}
