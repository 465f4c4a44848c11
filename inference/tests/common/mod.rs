//! The files of `tests/data`, which these tests read.

use std::fs;

use cloister_inference::FeatureRange;

/// The bytes of `path` in `tests/data`.
pub(crate) fn data(path: &str) -> Vec<u8> {
    let path = format!("{}/../tests/data/{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A CSV file: its header and its cells.
pub(crate) struct Table {
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn read(path: &str) -> Self {
        let text = String::from_utf8(data(path)).unwrap();
        let mut lines = text.lines().map(|line| line.split(',').map(String::from).collect());
        Self { header: lines.next().unwrap(), rows: lines.collect() }
    }

    /// All cells as numbers; an empty one is missing.
    pub(crate) fn numbers(&self) -> Vec<Vec<f64>> {
        let number = |cell: &String| if cell.is_empty() { f64::NAN } else { cell.parse().unwrap() };
        self.rows.iter().map(|row| row.iter().map(number).collect()).collect()
    }

    /// The least and greatest value of each column.
    pub(crate) fn ranges(&self) -> Vec<FeatureRange> {
        let numbers = self.numbers();
        let range = |(index, name): (usize, &String)| FeatureRange {
            name: name.clone(),
            low: numbers.iter().map(|row| row[index]).fold(f64::INFINITY, f64::min),
            high: numbers.iter().map(|row| row[index]).fold(f64::NEG_INFINITY, f64::max),
            step: None,
        };
        self.header.iter().enumerate().map(range).collect()
    }
}
