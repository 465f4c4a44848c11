//! The input: a file, which is read twice, or what can be read only once. No more of it than a chunk is kept.

use std::{
    fs::{File, Metadata},
    io::{self, Read, Seek},
    path::{Path, PathBuf},
    thread,
    time::SystemTime,
};

use cloister_attestation::Sha384;
use cloister_client::{Description, Header, TableError, TableReader};
use tokio::sync::mpsc;

use super::{
    super::progress::Progress,
    Failure, Output,
    rows::{Chunk, Columns, Hashed, Rows},
};

/// A source of rows whose header was read.
pub(super) struct Input {
    path: PathBuf,
    header: Header,
    source: Source,
}

enum Source {
    /// Read twice: all of it is judged before any of it is sent.
    File(File),
    /// What cannot be read twice is judged chunk by chunk.
    Stream(Box<TableReader<Box<dyn Read + Send>>>),
}

impl Input {
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let file = match path == Path::new("-") {
            true => None,
            false => Some(File::open(path).map_err(|error| Failure::file(path, &error))?),
        };
        let bad_table = |error: TableError| Failure::table(path, &error);
        let (header, source) = match file {
            Some(file) if file.metadata().is_ok_and(|metadata| metadata.is_file()) => {
                (TableReader::new(&file).map_err(bad_table)?.into_parts().1, Source::File(file))
            }
            other => {
                let stream: Box<dyn Read + Send> = match other {
                    Some(pipe) => Box::new(pipe),
                    None => Box::new(io::stdin()),
                };
                let reader = TableReader::new(stream).map_err(bad_table)?;
                (reader.header().clone(), Source::Stream(reader.into()))
            }
        };
        Ok(Self { path: path.to_owned(), header, source })
    }

    /// Whether it can be read again.
    pub(super) fn is_file(&self) -> bool {
        matches!(self.source, Source::File(_))
    }

    /// Where the column of true labels is.
    pub(super) fn labels(&self, column: &str) -> Result<usize, Failure> {
        self.header.position(column).map_err(|error| Failure::table(&self.path, &error))
    }

    /// What `description` takes of each row. Values outside their range are moved to its edge with `clip`.
    pub(super) fn columns(
        &self,
        description: Description,
        labels: Option<usize>,
        clip: bool,
    ) -> Result<Columns, Failure> {
        let names = description.features().iter().map(|feature| feature.name.as_str());
        let positions = self.header.positions(names).map_err(|error| Failure::table(&self.path, &error))?;
        Ok(Columns { path: self.path.clone(), description, positions, labels, clip })
    }

    /// Judges and counts every row of a file, in chunks of `size`; of a stream nothing is known.
    pub(super) fn check(
        &mut self,
        columns: &Columns,
        size: usize,
        output: &Output,
    ) -> Result<Option<Checked>, Failure> {
        let Source::File(file) = &mut self.source else { return Ok(None) };
        let unreadable = |error: io::Error| Failure::file(&self.path, &error);
        let stamp = stamp(&file.metadata().map_err(unreadable)?);
        file.rewind().map_err(unreadable)?;
        let mut rows = Rows::new(TableReader::new(Hashed::new(&*file)), columns)?;
        let mut progress = Progress::new("checked", None, 0);
        let mut count = 0;
        while let Some(chunk) = rows.next(size)? {
            count += chunk.rows.len() as u64;
            progress.reach(count, output);
        }
        if count == 0 {
            return Err(Failure::table(&self.path, &TableError::Empty));
        }
        let (digest, bytes) = rows.finish();
        Ok(Some(Checked { rows: count, digest, bytes, stamp }))
    }

    /// Hands out all rows, in chunks of `size`; the first `done` of them in chunks of their own, as they are not to be sent.
    ///
    /// A thread of its own reads ahead by one chunk: a pipe may be slow, and nobody waits for it who has an answer to take.
    pub(super) fn stream(
        self,
        columns: Columns,
        checked: Option<Checked>,
        done: u64,
        size: usize,
    ) -> mpsc::Receiver<Result<Chunk, Failure>> {
        let (sender, receiver) = mpsc::channel(1);
        thread::spawn(move || {
            let hand_out = |chunk| sender.blocking_send(Ok(chunk)).is_ok();
            let outcome = match (self.source, checked) {
                (Source::File(file), Some(checked)) => again(file, &columns, checked, done, size, hand_out),
                (Source::File(file), None) => once(TableReader::new(file), &columns, size, hand_out),
                (Source::Stream(reader), _) => once(Ok(*reader), &columns, size, hand_out),
            };
            if let Err(failure) = outcome {
                let _ = sender.blocking_send(Err(failure));
            }
        });
        receiver
    }
}

/// What the first reading of a file found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checked {
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) digest: Sha384,
    stamp: (u64, Option<SystemTime>),
}

fn stamp(metadata: &Metadata) -> (u64, Option<SystemTime>) {
    (metadata.len(), metadata.modified().ok())
}

/// Reads a file for the second time, and finds the same in it.
fn again(
    mut file: File,
    columns: &Columns,
    checked: Checked,
    done: u64,
    size: usize,
    hand_out: impl Fn(Chunk) -> bool,
) -> Result<(), Failure> {
    let changed = |how: &str| {
        Failure::bad_input(
            "input_changed",
            format!("{} changed after it was checked: {how}", columns.path.display()),
            "Run again on a file that nobody writes to.",
        )
    };
    let differs = |failure: Failure| changed(&failure.message);
    let unchanged = |file: &File| file.metadata().is_ok_and(|metadata| stamp(&metadata) == checked.stamp);
    file.rewind().map_err(|error| Failure::file(&columns.path, &error))?;
    if !unchanged(&file) {
        return Err(changed(WRITTEN));
    }
    let mut rows = Rows::new(TableReader::new(Hashed::new(&file)), columns).map_err(differs)?;
    let mut count = 0;
    while let Some(chunk) = rows.next(size_at(count, done, size)).map_err(differs)? {
        count += chunk.rows.len() as u64;
        if count > checked.rows || !unchanged(&file) {
            return Err(changed(WRITTEN));
        }
        if !hand_out(chunk) {
            return Ok(());
        }
    }
    let same = rows.finish() == (checked.digest, checked.bytes) && count == checked.rows;
    if same { Ok(()) } else { Err(changed(WRITTEN)) }
}

const WRITTEN: &str = "somebody wrote to it";

/// `size`, but that no chunk has rows from before and after the first `done`.
fn size_at(row: u64, done: u64, size: usize) -> usize {
    match done.checked_sub(row) {
        None | Some(0) => size,
        Some(left) => size.min(usize::try_from(left).unwrap_or(size)),
    }
}

/// Reads what cannot be read twice.
fn once<R: Read>(
    reader: Result<TableReader<R>, TableError>,
    columns: &Columns,
    size: usize,
    hand_out: impl Fn(Chunk) -> bool,
) -> Result<(), Failure> {
    let mut rows = Rows::new(reader, columns)?;
    let mut empty = true;
    while let Some(chunk) = rows.next(size)? {
        empty = false;
        if !hand_out(chunk) {
            return Ok(());
        }
    }
    if empty { Err(Failure::table(&columns.path, &TableError::Empty)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::cli::fixtures::description;

    struct Case {
        file: tempfile::NamedTempFile,
        input: Input,
        columns: Columns,
        checked: Result<Checked, Failure>,
    }

    /// A file of which the first reading is done.
    fn case(text: &str, clip: bool) -> Case {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let mut input = Input::open(file.path()).unwrap();
        let columns = input.columns(description(), None, clip).unwrap();
        let checked = input.check(&columns, 4, &Output::new(false)).map(Option::unwrap);
        Case { file, input, columns, checked }
    }

    impl Case {
        /// The second reading: the lengths of the chunks, and the code of the failure.
        fn stream(self, done: u64, size: usize) -> (Vec<usize>, Option<String>) {
            let mut chunks = self.input.stream(self.columns, self.checked.ok(), done, size);
            let (mut lengths, mut code) = (Vec::new(), None);
            while let Some(chunk) = chunks.blocking_recv() {
                match chunk {
                    Ok(chunk) => lengths.push(chunk.rows.len()),
                    Err(failure) => code = Some(failure.code),
                }
            }
            (lengths, code)
        }
    }

    fn table(rows: usize) -> String {
        "a,b,c,d\n".to_owned() + &"5.1,3.5,1.4,0.2\n".repeat(rows)
    }

    #[test]
    fn rows_are_counted_and_then_come_in_chunks() {
        let read = |done| case(&table(10), false).stream(done, 4);
        assert_eq!(case(&table(10), false).checked.unwrap().rows, 10);
        assert_eq!(read(0), (vec![4, 4, 2], None));
        assert_eq!(read(3), (vec![3, 4, 3], None));
        assert_eq!(read(6), (vec![4, 2, 4], None));
        assert_eq!(read(10), (vec![4, 4, 2], None));
    }

    #[test]
    fn the_first_reading_finds_the_last_row() {
        let far = table(400) + "5.1,3.5,1.4,99\n";
        let failure = case(&far, false).checked.unwrap_err();
        assert_eq!(failure.code, "out_of_range");
        assert!(failure.message.starts_with("line 402, column \"d\""), "{}", failure.message);
        assert_eq!(case(&far, true).checked.unwrap().rows, 401);
        assert_eq!(case("a,b,c,d\n", false).checked.unwrap_err().code, "empty_table");
    }

    #[test]
    fn a_file_that_changes_in_between_is_refused() {
        for (change, text) in
            [("longer", table(11)), ("shorter", table(9)), ("other", table(10).replacen("5.1", "5.2", 1))]
        {
            let case = case(&table(10), false);
            std::fs::write(case.file.path(), text).unwrap();
            // Whatever the file system says of the time of the change.
            let stamp = stamp(&case.file.as_file().metadata().unwrap());
            let checked = case.checked.map(|checked| Checked { stamp, ..checked });
            let (_, code) = Case { checked, ..case }.stream(0, 4);
            assert_eq!(code.as_deref(), Some("input_changed"), "{change}");
        }
        let case = case(&table(10), false);
        std::fs::write(case.file.path(), table(20)).unwrap();
        assert_eq!(case.stream(0, 4), (vec![], Some("input_changed".to_owned())), "nothing of it is handed out");
    }

    #[test]
    fn what_cannot_be_read_twice_is_judged_as_it_comes() {
        let columns = case(&table(1), false).columns;
        let read = |text: String| {
            let lengths = std::cell::RefCell::new(Vec::new());
            let hand_out = |chunk: Chunk| {
                lengths.borrow_mut().push(chunk.rows.len());
                true
            };
            let code = once(TableReader::new(text.as_bytes()), &columns, 4, hand_out).err().map(|failure| failure.code);
            (lengths.into_inner(), code)
        };
        assert_eq!(read(table(5)), (vec![4, 1], None));
        assert_eq!(read(table(5) + "5.1,3.5,1.4,x\n"), (vec![4], Some("not_a_number".to_owned())));
        assert_eq!(read(table(0)), (vec![], Some("empty_table".to_owned())));
    }
}
