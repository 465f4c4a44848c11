//! Rows of features from CSV: columns found by name, every bad cell named by line and column.

mod error;
mod reader;

use std::io::Read;

use cloister_inference::FeatureRange;

pub use self::{
    error::TableError,
    reader::{Header, Row, TableReader},
};
use reader::is_missing;

/// A CSV file in memory.
#[derive(Debug)]
pub struct Table {
    header: Header,
    rows: Vec<Row>,
}

impl Table {
    /// Reads a CSV file with a header line. Every line must have as many cells as the header.
    pub fn read(source: impl Read) -> Result<Self, TableError> {
        let mut reader = TableReader::new(source)?;
        let (mut rows, mut row) = (Vec::new(), Row::default());
        while reader.read(&mut row)? {
            rows.push(row.clone());
        }
        if rows.is_empty() {
            return Err(TableError::Empty);
        }
        Ok(Self { header: reader.into_parts().1, rows })
    }

    /// The names of the columns.
    pub fn columns(&self) -> &[String] {
        self.header.names()
    }

    /// The columns with numbers in every cell that is not missing.
    pub fn numeric_columns(&self) -> Vec<&str> {
        let names = self.columns().iter().enumerate();
        names.filter(|(position, _)| self.column(*position).is_some()).map(|(_, name)| name.as_str()).collect()
    }

    /// The numbers of the columns `names`, in that order, row by row.
    pub fn numbers(&self, names: &[&str]) -> Result<Vec<Vec<f64>>, TableError> {
        let positions = self.header.positions(names.iter().copied())?;
        self.rows.iter().map(|row| self.header.numbers(row, &positions)).collect()
    }

    /// The least and greatest number of each of the columns `names`, missing ones aside: what a model is imported with.
    pub fn ranges(&self, names: &[&str]) -> Result<Vec<FeatureRange>, TableError> {
        let positions = self.header.positions(names.iter().copied())?;
        let range = |(name, position): (&&str, usize)| match self.column(position) {
            Some(column) => column.range(name),
            None => Err(TableError::NoNumbers { column: (*name).to_owned() }),
        };
        names.iter().zip(positions).map(range).collect()
    }

    /// What a column of numbers shows; none if there is a text in it, or nothing at all.
    fn column(&self, position: usize) -> Option<Column> {
        let mut column = Some(Column::default());
        self.rows.iter().for_each(|row| column = column.take().and_then(|column| column.with(row, position)));
        column.filter(Column::has_numbers)
    }

    /// The [`ranges`](Self::ranges) of the [`numeric_columns`](Self::numeric_columns) of a file of any length, of which one row at a time
    /// is kept.
    pub fn numeric_ranges(source: impl Read) -> Result<Vec<FeatureRange>, TableError> {
        let mut reader = TableReader::new(source)?;
        let mut columns: Vec<Option<Column>> = vec![Some(Column::default()); reader.header().names().len()];
        let mut row = Row::default();
        let mut rows = 0_u64;
        while reader.read(&mut row)? {
            rows += 1;
            for (position, column) in columns.iter_mut().enumerate() {
                *column = column.take().and_then(|column| column.with(&row, position));
            }
        }
        if rows == 0 {
            return Err(TableError::Empty);
        }
        let columns = columns.into_iter().map(|column| column.filter(Column::has_numbers));
        let numeric = reader.header().names().iter().zip(columns).filter_map(|(name, column)| Some((name, column?)));
        numeric.map(|(name, column)| column.range(name)).collect()
    }

    /// The texts of one column.
    pub fn texts(&self, name: &str) -> Result<Vec<&str>, TableError> {
        let position = self.header.position(name)?;
        Ok(self.rows.iter().map(|row| row.cell(position)).collect())
    }

    /// The line of a row in the file, counted from 1.
    pub fn line(&self, row: usize) -> u64 {
        self.rows[row].line()
    }
}

/// What a column of numbers has shown so far.
#[derive(Clone, Debug)]
struct Column {
    low: f64,
    high: f64,
    /// The first cell that is infinite, and its line. It is an error only if all other cells are numbers.
    not_finite: Option<(u64, String)>,
}

impl Default for Column {
    fn default() -> Self {
        Self { low: f64::INFINITY, high: f64::NEG_INFINITY, not_finite: None }
    }
}

impl Column {
    /// With one cell more; none if that is a text.
    fn with(self, row: &Row, position: usize) -> Option<Self> {
        let cell = row.cell(position);
        if is_missing(cell) {
            return Some(self);
        }
        let number: f64 = cell.parse().ok()?;
        let not_finite = self.not_finite.or_else(|| (!number.is_finite()).then(|| (row.line(), cell.to_owned())));
        Some(Self { low: self.low.min(number), high: self.high.max(number), not_finite })
    }

    fn has_numbers(&self) -> bool {
        self.low <= self.high
    }

    fn range(self, name: &str) -> Result<FeatureRange, TableError> {
        let Self { low, high, not_finite } = self;
        let name = name.to_owned();
        match not_finite {
            Some((line, cell)) => Err(TableError::NotFinite { line, column: name, cell }),
            None => Ok(FeatureRange { name, low, high, step: None }),
        }
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

    #[test]
    fn ranges_of_a_stream_are_those_of_a_table() {
        let text = "a,kind,b,c\n1,x,-2,nan\n-3,4,5,\n2,5,1e3,1\n";
        let table = table(text).unwrap();
        let ranges = table.ranges(&table.numeric_columns()).unwrap();
        let shown: Vec<_> = ranges.iter().map(|range| (range.name.as_str(), range.low, range.high)).collect();
        assert_eq!(shown, [("a", -3.0, 2.0), ("b", -2.0, 1e3), ("c", 1.0, 1.0)]);
        assert_eq!(Table::numeric_ranges(text.as_bytes()).unwrap(), ranges);
        let error = |text: &str| Table::numeric_ranges(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(error("a,b\n1,2\n3,-inf\n"), r#"line 3, column "b": "-inf" is not finite"#);
        assert_eq!(error("a,b\n"), TableError::Empty.to_string());
        assert_eq!(
            Table::numeric_ranges(&b"a,b,c\n1,,nan\n"[..]).unwrap().len(),
            1,
            "a column of nothing is no column"
        );
        assert!(matches!(table.ranges(&["kind"]), Err(TableError::NoNumbers { column }) if column == "kind"));
    }
}
