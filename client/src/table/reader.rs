//! Rows of a CSV file, one at a time: a file of any length takes the memory of one row.

use std::{collections::HashMap, io::Read};

use csv::{ReaderBuilder, StringRecord};

use super::TableError;

/// Reads a CSV file with a header line, row by row. Every line must have as many cells as the header.
#[derive(Debug)]
pub struct TableReader<R> {
    reader: csv::Reader<R>,
    header: Header,
}

impl<R: Read> TableReader<R> {
    /// Reads the header.
    pub fn new(source: R) -> Result<Self, TableError> {
        // Cells are trimmed where they are used: the reader would copy every row for it.
        let mut reader = ReaderBuilder::new().trim(csv::Trim::Headers).from_reader(source);
        let header = Header::new(reader.headers()?.iter().map(str::to_owned).collect())?;
        Ok(Self { reader, header })
    }

    /// What the header says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Puts the next row in place of the one that `row` holds; false at the end of the file.
    pub fn read(&mut self, row: &mut Row) -> Result<bool, TableError> {
        Ok(self.reader.read_record(&mut row.record)?)
    }

    /// The source, and what the header says.
    pub fn into_parts(self) -> (R, Header) {
        (self.reader.into_inner(), self.header)
    }
}

/// The names of the columns.
#[derive(Clone, Debug)]
pub struct Header {
    names: Vec<String>,
    positions: HashMap<String, usize>,
}

impl Header {
    fn new(names: Vec<String>) -> Result<Self, TableError> {
        if names.iter().all(String::is_empty) {
            return Err(TableError::Empty);
        }
        let mut positions = HashMap::with_capacity(names.len());
        for (position, column) in names.iter().enumerate() {
            if positions.insert(column.clone(), position).is_some() {
                return Err(TableError::DuplicateColumn { column: column.clone() });
            }
        }
        // pandas writes 0, 1, 2 … where columns have no names, so whole numbers pass.
        if let Some(cell) = names.iter().find(|name| name.contains('.') && name.parse::<f64>().is_ok()) {
            return Err(TableError::NoHeader { cell: cell.clone() });
        }
        Ok(Self { names, positions })
    }

    /// The names, in the order of the file.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Where one column is.
    pub fn position(&self, name: &str) -> Result<usize, TableError> {
        let position = self.positions.get(name).copied();
        position.ok_or_else(|| TableError::NoColumn { column: name.to_owned(), found: self.names.clone() })
    }

    /// Where the columns `names` are, in that order.
    pub fn positions<'a>(&self, names: impl Iterator<Item = &'a str> + Clone) -> Result<Vec<usize>, TableError> {
        let positions: Option<Vec<usize>> = names.clone().map(|name| self.positions.get(name).copied()).collect();
        positions.ok_or_else(|| TableError::Columns {
            expected: names.map(str::to_owned).collect(),
            found: self.names.clone(),
        })
    }

    /// The numbers of a row at `positions`, in that order.
    pub fn numbers(&self, row: &Row, positions: &[usize]) -> Result<Vec<f64>, TableError> {
        self.numbers_or_missing(row, positions, |_| false)
    }

    /// The numbers of a row at `positions`, in that order; NaN for an empty or NaN cell where `may_miss` says so of the
    /// number in that order.
    pub fn numbers_or_missing(
        &self,
        row: &Row,
        positions: &[usize],
        may_miss: impl Fn(usize) -> bool,
    ) -> Result<Vec<f64>, TableError> {
        let number = |(index, &position): (usize, &usize)| match is_missing(row.cell(position)) && may_miss(index) {
            true => Ok(f64::NAN),
            false => self.number(row, position),
        };
        positions.iter().enumerate().map(number).collect()
    }

    fn number(&self, row: &Row, position: usize) -> Result<f64, TableError> {
        let (cell, line, column) = (row.cell(position), row.line(), || self.names[position].clone());
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

/// Whether there is no value, as pandas writes it.
pub(super) fn is_missing(cell: &str) -> bool {
    cell.is_empty() || cell.eq_ignore_ascii_case("nan")
}

/// A line of the file, as long as the header.
#[derive(Clone, Debug, Default)]
pub struct Row {
    record: StringRecord,
}

impl Row {
    /// The line in the file on which it begins, counted from 1.
    pub fn line(&self) -> u64 {
        self.record.position().map_or(0, csv::Position::line)
    }

    /// The text of the column at `position`, without space around it.
    ///
    /// # Panics
    ///
    /// If the header has no such position.
    pub fn cell(&self, position: usize) -> &str {
        self.record[position].trim()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_one_at_a_time_with_their_lines() {
        let mut reader = TableReader::new(&b"b , a\n 1,2\n\"3\n\",4\n5,6\n"[..]).unwrap();
        let positions = reader.header().positions(["a", "b"].into_iter()).unwrap();
        let mut row = Row::default();
        for (line, numbers) in [(2, [2.0, 1.0]), (3, [4.0, 3.0]), (5, [6.0, 5.0])] {
            assert!(reader.read(&mut row).unwrap());
            assert_eq!((row.line(), reader.header().numbers(&row, &positions).unwrap()), (line, numbers.to_vec()));
        }
        assert!(!reader.read(&mut row).unwrap());
    }

    #[test]
    fn values_may_be_missing_where_the_model_fills_them_in() {
        let mut reader = TableReader::new(&b"a,b\n,nan\n"[..]).unwrap();
        let mut row = Row::default();
        assert!(reader.read(&mut row).unwrap());
        let numbers = |may_miss: fn(usize) -> bool| reader.header().numbers_or_missing(&row, &[1, 0], may_miss);
        assert!(numbers(|_| true).unwrap().iter().all(|number| number.is_nan()));
        assert_eq!(numbers(|index| index == 0).unwrap_err().to_string(), r#"line 2, column "a": the cell is empty"#);
    }

    /// Fifty thousand names: what compared each with each would take seconds.
    #[test]
    fn many_columns_are_found_at_once() {
        let names: Vec<String> = (0..50_000).map(|index| format!("x{index}")).collect();
        let text = names.join(",");
        let reader = TableReader::new(text.as_bytes()).unwrap();
        let reversed = || names.iter().rev().map(String::as_str);
        assert!(reader.header().positions(reversed()).unwrap().into_iter().eq((0..50_000).rev()));
        let error = reader.header().positions(reversed().chain(["y"])).unwrap_err().to_string();
        assert_eq!(error, r#"wrong columns: of 50001 expected, 1 are not among the 50000 found: "y""#);
    }
}
