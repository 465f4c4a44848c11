//! What a command prints.

use std::{
    fmt::Display,
    io::{ErrorKind, Write},
    process::ExitCode,
};

use cloister_attestation::{Step, StepReport};
use serde_json::{Map, Value, json};

use super::failure::Failure;

/// Nobody overlooks this.
const SIMULATED: &str = "\
************************************************************************
*  SIMULATED: this is not a Nitro Enclave. Its documents are signed by *
*  a simulated authority; they prove nothing about any hardware.       *
************************************************************************";

/// Collects what `--json` writes, or prints for people as it goes.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    object: Map<String, Value>,
    steps: Vec<Value>,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, object: Map::new(), steps: Vec::new() }
    }

    /// Whether stdout belongs to one JSON object.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// A field of the JSON object.
    pub(crate) fn set(&mut self, field: &str, value: impl Into<Value>) {
        self.object.insert(field.to_owned(), value.into());
    }

    /// A line for people.
    pub(crate) fn line(&self, text: impl Display) {
        if !self.json {
            write_stdout(&format!("{text}\n"));
        }
    }

    /// Progress or a remark, on stderr in either mode.
    pub(crate) fn note(&self, text: impl Display) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// Says whether attestation is simulated: a field, and a banner that cannot be overlooked.
    pub(crate) fn simulated(&mut self, simulated: bool) {
        self.set("simulated", simulated);
        if simulated {
            self.note(SIMULATED);
        }
    }

    /// Verification steps that passed.
    pub(crate) fn steps(&mut self, steps: &[StepReport]) {
        for StepReport { step, detail } in steps {
            self.line(format!("  {:>2}  ok  {:<13} {detail}", step.number(), step.name()));
            self.steps.push(json!({"n": step.number(), "name": step.name(), "ok": true, "detail": detail}));
        }
    }

    /// Prints the outcome and gives the exit code.
    pub(crate) fn finish(mut self, outcome: Result<(), Failure>) -> ExitCode {
        let exit = match outcome {
            Ok(()) => 0,
            Err(failure) => {
                self.fail(&failure);
                failure.exit
            }
        };
        if self.json {
            if !self.steps.is_empty() {
                self.object.insert("steps".into(), self.steps.into());
            }
            write_stdout(&format!("{}\n", Value::from(self.object)));
        }
        ExitCode::from(exit)
    }

    fn fail(&mut self, failure: &Failure) {
        let Failure { code, message, remedy, step, exit: _ } = failure;
        if let Some(failed) = step {
            self.steps.clear();
            for step in Step::ALL.into_iter().take_while(|step| step.number() <= *failed) {
                let ok = step.number() < *failed;
                let detail = if ok { "" } else { message };
                self.steps.push(json!({"n": step.number(), "name": step.name(), "ok": ok, "detail": detail}));
            }
        }
        if self.json {
            if self.object.contains_key("verified") || step.is_some() {
                self.set("verified", false);
            }
            self.set("error", json!({"code": code, "message": message, "remedy": remedy}));
        } else {
            let place = step.and_then(|n| Step::ALL.into_iter().find(|step| step.number() == n));
            let place = place.map_or(String::new(), |step| format!(" at step {} ({})", step.number(), step.name()));
            self.note(format!("error{place}: {message}\n  what to do: {remedy}\n  code: {code}"));
        }
    }
}

/// Writes to stdout. A reader that is gone ends the program quietly.
pub(crate) fn write_stdout(text: &str) {
    let mut stdout = std::io::stdout().lock();
    if let Err(error) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        let closed = error.kind() == ErrorKind::BrokenPipe;
        std::process::exit(if closed { 0 } else { super::failure::INTERNAL.into() });
    }
}
