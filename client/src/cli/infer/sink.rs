//! Where predictions go, a chunk at a time.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

use cloister_client::Prediction;
use serde_json::Value;

use super::{
    super::output::{Delivery, write_stdout},
    Failure, Format, Output,
    predictions::Shape,
    resume::{Run, Sidecar, Unfinished},
};

/// Takes predictions in order. Nothing of what was there before is lost until the first come.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) shape: Shape,
    to: Target,
}

#[derive(Debug)]
enum Target {
    /// A field of the one object that `--json` writes.
    Object(Vec<Value>),
    Text {
        format: Format,
        to: Text,
        begun: bool,
    },
}

#[derive(Debug)]
enum Text {
    Stdout,
    /// A file that is not opened yet, and of which run it will be, if that can go on later.
    Path(PathBuf, Option<Run>),
    File(PathBuf, File, Option<Sidecar>),
}

impl Sink {
    /// For `--json` without a file.
    pub(super) fn object(shape: Shape) -> Self {
        Self { shape, to: Target::Object(Vec::new()) }
    }

    pub(super) fn stdout(shape: Shape, format: Format) -> Self {
        Self { shape, to: Target::Text { format, to: Text::Stdout, begun: false } }
    }

    pub(super) fn file(shape: Shape, format: Format, path: &Path, run: Option<Run>) -> Self {
        Self { shape, to: Target::Text { format, to: Text::Path(path.to_owned(), run), begun: false } }
    }

    /// Goes on with a file of CSV.
    pub(super) fn resumed(shape: Shape, path: &Path, unfinished: Unfinished) -> Self {
        let Unfinished { file, sidecar, rows } = unfinished;
        let to = Text::File(path.to_owned(), file, Some(sidecar));
        Self { shape, to: Target::Text { format: Format::Csv, to, begun: rows.is_some() } }
    }

    /// Writes predictions; all of them, or none are wanted any more.
    pub(super) fn write(&mut self, predictions: &[Prediction]) -> Result<Delivery, Failure> {
        let Self { shape, to } = self;
        match to {
            Target::Object(values) => {
                values.extend(predictions.iter().map(|prediction| shape.json(prediction)));
                Ok(Delivery::Written)
            }
            Target::Text { format, to, begun } => {
                let first = !std::mem::replace(begun, true);
                let text = match format {
                    Format::Csv if first => shape.csv_header()? + &shape.csv(predictions)?,
                    Format::Csv => shape.csv(predictions)?,
                    Format::Json => {
                        let before = if first { "[\n" } else { ",\n" };
                        before.to_owned() + &shape.json_elements(predictions).join(",\n")
                    }
                };
                to.write(&text)
            }
        }
    }

    /// Ends what was written, so that it can be read; if it is all of it, nothing is left to resume.
    pub(super) fn finish(self, complete: bool, rows: u64, output: &mut Output) -> Result<(), Failure> {
        match self.to {
            Target::Object(values) if complete => output.set("predictions", values),
            Target::Text { format, mut to, begun: true } => {
                if matches!(format, Format::Json) {
                    to.write("\n]\n")?;
                }
                match to {
                    Text::File(_, _, Some(sidecar)) if complete => sidecar.remove()?,
                    Text::File(path, _, sidecar) if !complete => {
                        let go_on = if sidecar.is_some() { "; --resume goes on from there" } else { "" };
                        output.note(format!("{} has the first {rows} rows{go_on}", path.display()));
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Text {
    fn write(&mut self, text: &str) -> Result<Delivery, Failure> {
        if let Self::Path(path, run) = self {
            let file = File::create(&*path).map_err(|error| Failure::file(path, &error))?;
            // Only now: what says of which run a file is must not lie beside what another one wrote.
            let sidecar = run.as_ref().map(|run| Sidecar::create(path, run)).transpose()?;
            *self = Self::File(path.clone(), file, sidecar);
        }
        match self {
            Self::File(path, file, _) => {
                file.write_all(text.as_bytes()).map_err(|error| Failure::file(path, &error))?;
                Ok(Delivery::Written)
            }
            _ => match write_stdout(text) {
                Delivery::Failed => Err(Failure::internal(&"stdout cannot be written")),
                delivery => Ok(delivery),
            },
        }
    }
}
