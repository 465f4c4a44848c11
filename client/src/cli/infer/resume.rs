//! Runs that go on where they were interrupted: beside an unfinished output lies a file that says of which run it is.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use csv::{ReaderBuilder, StringRecord};
use serde::{Deserialize, Serialize};

use super::{Failure, foreign, predictions::Shape};

/// What decides the bytes of an output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Run {
    pub(super) v: u8,
    /// Digest of the input.
    pub(super) input: String,
    /// Its length.
    pub(super) bytes: u64,
    pub(super) rows: u64,
    pub(super) model: String,
    /// Digest of the model.
    pub(super) bundle: String,
    pub(super) format: String,
    pub(super) clip: bool,
}

impl Run {
    pub(super) const VERSION: u8 = 1;

    /// The run that is to go on is this one.
    fn require(&self, now: &Self, sidecar: &Path) -> Result<(), Failure> {
        let Self { v, input, bytes, rows, model, bundle, format, clip } = self;
        let differences = [
            ("the format of this file", v.to_string(), now.v.to_string()),
            ("the model's name", model.clone(), now.model.clone()),
            ("the model's digest", bundle.clone(), now.bundle.clone()),
            ("the output's format", format.clone(), now.format.clone()),
            ("--clip", clip.to_string(), now.clip.to_string()),
            ("the input's digest", input.clone(), now.input.clone()),
            ("the input's length", bytes.to_string(), now.bytes.to_string()),
            ("the input's number of rows", rows.to_string(), now.rows.to_string()),
        ];
        match differences.into_iter().find(|(_, then, now)| then != now) {
            None => Ok(()),
            Some((what, then, now)) => Err(Failure::bad_input(
                "resume_mismatch",
                format!(
                    "{}: the unfinished run is another one: {what} was {}, now it is {}",
                    sidecar.display(),
                    foreign(&then),
                    foreign(&now)
                ),
                format!("Give what the unfinished run was given; or remove {}, and start over.", sidecar.display()),
            )),
        }
    }
}

/// Where it is said of which run `out` is.
pub(super) fn sidecar(out: &Path) -> PathBuf {
    let mut name = out.to_owned().into_os_string();
    name.push(".resume");
    name.into()
}

/// The file beside an output that is not finished. It is locked: two runs do not write one output.
#[derive(Debug)]
pub(super) struct Sidecar {
    path: PathBuf,
    _lock: File,
}

impl Sidecar {
    /// Says that the output, which has nothing of an earlier run in it any more, is of `run`.
    pub(super) fn create(out: &Path, run: &Run) -> Result<Self, Failure> {
        let path = sidecar(out);
        let draft = path.with_extension(format!("{}.draft", std::process::id()));
        let create = || {
            let mut file = File::create(&draft)?;
            file.lock()?;
            file.write_all(&serde_json::to_vec(run)?)?;
            // Whole or not at all.
            fs::rename(&draft, &path).map(|()| file)
        };
        match create() {
            Ok(file) => Ok(Self { path, _lock: file }),
            Err(error) => {
                let _ = fs::remove_file(&draft);
                Err(Failure::file(&path, &error))
            }
        }
    }

    /// The one beside `out`, which must be of `run`.
    fn open(out: &Path, run: &Run) -> Result<Self, Failure> {
        let path = sidecar(out);
        let file = File::open(&path).map_err(|error| Failure::file(&path, &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::bad_input(
                    "output_in_use",
                    format!("{} is being written by another run", out.display()),
                    "Wait until that one has ended.",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(Failure::file(&path, &error)),
        }
        let mut text = Vec::new();
        (&file).take(MAX_SIDECAR).read_to_end(&mut text).map_err(|error| Failure::file(&path, &error))?;
        let then: Run = serde_json::from_slice(&text).map_err(|error| {
            Failure::bad_input(
                "bad_resume_file",
                format!("{}: {error}", path.display()),
                "Remove it, and start over without --resume.",
            )
        })?;
        then.require(run, &path)?;
        Ok(Self { path, _lock: file })
    }

    /// The output is finished.
    pub(super) fn remove(self) -> Result<(), Failure> {
        fs::remove_file(&self.path).map_err(|error| Failure::file(&self.path, &error))
    }
}

/// More than any sidecar has.
const MAX_SIDECAR: u64 = 64 << 10;

/// An output that an earlier run began, without what it did not finish of a line.
#[derive(Debug)]
pub(super) struct Unfinished {
    /// Is written at its end.
    pub(super) file: File,
    pub(super) sidecar: Sidecar,
    /// Whole rows under the header; none if not even that is whole.
    pub(super) rows: Option<u64>,
}

impl Unfinished {
    /// Opens the output, and cuts off what is not whole.
    pub(super) fn open(out: &Path, run: &Run, shape: &Shape) -> Result<Self, Failure> {
        let sidecar = Sidecar::open(out, run)?;
        let unusable = |error: io::Error| Failure::file(out, &error);
        let mut file = File::options().read(true).write(true).open(out).map_err(unusable)?;
        let (header, columns) = (shape.csv_header()?, shape.columns().len());
        let whole = Whole::find(&file, &header, columns).map_err(|error| broken(out, &error.to_string()))?;
        if whole.rows.is_some_and(|rows| rows > run.rows) {
            return Err(broken(out, "it has more rows than the input"));
        }
        file.set_len(whole.bytes).and_then(|()| file.seek(SeekFrom::End(0))).map_err(unusable)?;
        Ok(Self { file, sidecar, rows: whole.rows })
    }
}

fn broken(out: &Path, why: &str) -> Failure {
    Failure::bad_input(
        "resume_output",
        format!("{} is not what the unfinished run wrote: {why}", out.display()),
        format!("Remove {}, and start over without --resume.", sidecar(out).display()),
    )
}

/// The part of an output that consists of whole lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct Whole {
    bytes: u64,
    rows: Option<u64>,
}

impl Whole {
    fn find(mut file: &File, header: &str, columns: usize) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let mut begun = Vec::new();
        file.rewind()?;
        file.take(header.len() as u64).read_to_end(&mut begun)?;
        if !header.as_bytes().starts_with(&begun) {
            return Err(io::Error::other("line 1 is another one"));
        }
        if begun.len() < header.len() {
            return Ok(Self::default());
        }
        let mut whole = Self { bytes: header.len() as u64, rows: Some(0) };
        let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(Ends::new(file));
        let mut record = StringRecord::new();
        while reader.read_record(&mut record)? {
            let (end, fits) = (header.len() as u64 + reader.position().byte(), record.len() == columns);
            // A line that was cut short is the last one. A break within quotes ends no line, but then cells are missing.
            if end == length && !(fits && reader.get_ref().with_line_break) {
                break;
            }
            if !fits {
                let row = whole.rows.map_or(0, |rows| rows + 1);
                return Err(io::Error::other(format!("row {row} has {} cells, not {columns}", record.len())));
            }
            whole = Self { bytes: end, rows: whole.rows.map(|rows| rows + 1) };
        }
        Ok(whole)
    }
}

/// Notes whether what was read so far ends with a line break.
struct Ends<R> {
    source: R,
    with_line_break: bool,
}

impl<R> Ends<R> {
    fn new(source: R) -> Self {
        Self { source, with_line_break: false }
    }
}

impl<R: Read> Read for Ends<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        if let Some(last) = buffer[..count].last() {
            self.with_line_break = *last == b'\n';
        }
        Ok(count)
    }
}

/// Reads the rows of an output again, so that they count in the summary.
#[derive(Debug)]
pub(super) struct Earlier {
    reader: csv::Reader<File>,
    record: StringRecord,
    out: PathBuf,
}

impl Earlier {
    pub(super) fn open(out: &Path) -> Result<Self, Failure> {
        let file = File::open(out).map_err(|error| Failure::file(out, &error))?;
        Ok(Self { reader: csv::Reader::from_reader(file), record: StringRecord::new(), out: out.to_owned() })
    }

    /// Label and certainty of the next row.
    pub(super) fn next(&mut self, shape: &Shape) -> Result<(&str, bool), Failure> {
        let read = self.reader.read_record(&mut self.record).map_err(|error| broken(&self.out, &error.to_string()))?;
        let row = if read { shape.read(self.record.iter()) } else { None };
        row.ok_or_else(|| broken(&self.out, "a line has no label and certainty"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Option<Whole> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Whole::find(&file, "label,certain\n", 2).ok()
    }

    #[test]
    fn a_line_that_was_cut_short_does_not_count() {
        let text = "label,certain\nsetosa,true\n\"two\nlines, \"\"so\"\"\",true\nsetosa,false\n";
        let ends = [14, 26, 51, 64];
        assert_eq!(text.len(), ends[3]);
        for length in 0..=text.len() {
            let bytes = ends.into_iter().filter(|end| *end <= length).max().unwrap_or(0);
            let rows = ends.iter().filter(|end| **end <= length).count().checked_sub(1);
            let expected = Whole { bytes: bytes as u64, rows: rows.map(|rows| rows as u64) };
            assert_eq!(whole(&text[..length]), Some(expected), "of {length} bytes");
        }
    }

    #[test]
    fn what_is_no_output_of_the_run_is_told() {
        assert_eq!(whole("label,sure\nsetosa,true\n"), None);
        assert_eq!(whole("label,certain\nsetosa\nsetosa,true\n"), None);
        assert_eq!(whole("label,certain\nsetosa,true,1\nsetosa,true\n"), None);
    }

    #[test]
    fn each_difference_of_runs_is_named() {
        let run = Run {
            v: Run::VERSION,
            input: "sha384:00".into(),
            bytes: 10,
            rows: 2,
            model: "iris".into(),
            bundle: "sha384:01".into(),
            format: "csv".into(),
            clip: false,
        };
        let refused = |now: Run| run.require(&now, Path::new("out.resume")).unwrap_err().message;
        assert!(run.require(&run, Path::new("out.resume")).is_ok());
        assert!(refused(Run { clip: true, ..run.clone() }).ends_with("--clip was false, now it is true"));
        for (now, needle) in [
            (Run { v: 2, ..run.clone() }, "format of this file was 1"),
            (Run { input: "sha384:02".into(), ..run.clone() }, "input's digest was sha384:00, now it is sha384:02"),
            (Run { bytes: 11, ..run.clone() }, "length"),
            (Run { rows: 3, ..run.clone() }, "rows"),
            (Run { model: "wine".into(), ..run.clone() }, "name was iris, now it is wine"),
            (Run { bundle: "sha384:02".into(), ..run.clone() }, "model's digest"),
            (Run { format: "json".into(), ..run.clone() }, "output's format"),
        ] {
            assert!(refused(now).contains(needle), "{needle}");
        }
    }
}
