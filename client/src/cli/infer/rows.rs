//! Rows as they are needed: in chunks, each judged before it is handed out.

use std::{
    io::{self, Read},
    path::PathBuf,
};

use aws_lc_rs::digest::{Context, SHA384};
use cloister_attestation::Sha384;
use cloister_client::{Description, Row, TableError, TableReader};
use cloister_inference::EncryptError;

use super::{Failure, short};

/// What is taken of each row, and what it must be.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    /// Of the input.
    pub(super) path: PathBuf,
    pub(super) description: Description,
    /// Where its features are.
    pub(super) positions: Vec<usize>,
    /// Where the true labels are.
    pub(super) labels: Option<usize>,
    /// Whether values are moved to the edge of their range.
    pub(super) clip: bool,
}

/// Rows for one request.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Chunk {
    pub(super) rows: Vec<Vec<f64>>,
    /// Which of them `--clip` changed.
    pub(super) moved: Vec<bool>,
    /// Their true labels, if there is a column of them.
    pub(super) truth: Vec<String>,
}

/// Reads rows, each of them good.
pub(super) struct Rows<'a, R> {
    reader: TableReader<R>,
    columns: &'a Columns,
    row: Row,
}

impl<'a, R: Read> Rows<'a, R> {
    pub(super) fn new(reader: Result<TableReader<R>, TableError>, columns: &'a Columns) -> Result<Self, Failure> {
        let reader = reader.map_err(|error| Failure::table(&columns.path, &error))?;
        Ok(Self { reader, columns, row: Row::default() })
    }

    /// The next rows, at most `size`, all of them good; none at the end.
    pub(super) fn next(&mut self, size: usize) -> Result<Option<Chunk>, Failure> {
        let Columns { path, description, positions, labels, clip } = self.columns;
        let bad_table = |error: TableError| Failure::table(path, &error);
        let (mut chunk, mut lines) = (Chunk::default(), Vec::new());
        while chunk.rows.len() < size && self.reader.read(&mut self.row).map_err(bad_table)? {
            let header = self.reader.header();
            let row = header.numbers_or_missing(&self.row, positions, |feature| description.imputes(feature));
            let mut row = row.map_err(bad_table)?;
            chunk.moved.push(*clip && description.clip(&mut row));
            chunk.rows.push(row);
            chunk.truth.extend(labels.map(|position| self.row.cell(position).to_owned()));
            lines.push(self.row.line());
        }
        description.encode(&chunk.rows).map_err(|error| locate(&error, &lines))?;
        Ok((!chunk.rows.is_empty()).then_some(chunk))
    }
}

impl<R: Read> Rows<'_, Hashed<R>> {
    /// Digest and length of what was read.
    pub(super) fn finish(self) -> (Sha384, u64) {
        self.reader.into_parts().0.finish()
    }
}

/// Errors of one row name its line in the file.
fn locate(error: &EncryptError, lines: &[u64]) -> Failure {
    match error {
        EncryptError::OutOfRange { row, column, value, low, high } => Failure::bad_input(
            error.code(),
            format!(
                "line {}, column {column:?}: {value} is outside the model's range, {} to {}",
                lines[*row],
                short(*low),
                short(*high)
            ),
            "Check the value and its unit, pass --clip to move it to the edge, or ask for a model with a wider range.",
        ),
        _ => Failure::bad_input(error.code(), error.to_string(), error.remedy()),
    }
}

/// Digests what is read through it.
pub(super) struct Hashed<R> {
    source: R,
    context: Context,
    bytes: u64,
}

impl<R> Hashed<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, context: Context::new(&SHA384), bytes: 0 }
    }

    fn finish(self) -> (Sha384, u64) {
        let digest = self.context.finish();
        (Sha384(digest.as_ref().try_into().expect("SHA-384 has 48 bytes")), self.bytes)
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.context.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}
