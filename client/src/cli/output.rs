//! What a command prints.

use std::{
    fmt::Display,
    io::{ErrorKind, Write},
    process::ExitCode,
};

use cloister_attestation::{Step, StepReport};
use serde_json::{Map, Value, json};

use super::failure::{Failure, INTERNAL, NOT_VERIFIED};

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
            write_stdout(&format!("{}\n", safe(text)));
        }
    }

    /// Progress or a remark, on stderr in either mode.
    pub(crate) fn note(&self, text: impl Display) {
        let _ = writeln!(std::io::stderr(), "{}", safe(text));
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
        let mut exit = match outcome {
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
            let written = write_stdout(&format!("{}\n", Value::from(self.object)));
            if !written && exit == 0 {
                exit = INTERNAL;
            }
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
            if failure.exit == NOT_VERIFIED {
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

/// `SIMULATED: ` in front of what would otherwise read as the real thing.
pub(crate) fn label(simulated: bool) -> &'static str {
    if simulated { "SIMULATED, which proves nothing about hardware: " } else { "" }
}

/// A number as a person writes it: at most six decimals, without the digits that only binary has.
pub(crate) fn short(number: f64) -> String {
    if number != 0.0 && !(1e-3..1e9).contains(&number.abs()) {
        return format!("{number:.3e}");
    }
    let text = format!("{number:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Writes to stdout; false if that fails. A reader that is gone is no failure, and changes no outcome.
pub(crate) fn write_stdout(text: &str) -> bool {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => true,
        Err(error) => error.kind() == ErrorKind::BrokenPipe,
    }
}

/// Text without what could steer a terminal or reorder a line: names in files and documents are somebody else's words.
fn safe(text: impl Display) -> String {
    let steers = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.to_string().chars().map(|c| if steers(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_printed_steers_a_terminal() {
        assert_eq!(safe("a\u{1b}[31mb\u{202e}c\rd\ne"), "a\u{fffd}[31mb\u{fffd}c\u{fffd}d\ne");
        assert_eq!(safe("größer ≤ 1"), "größer ≤ 1");
    }

    #[test]
    fn numbers_are_short() {
        for (number, text) in
            [(3.9399999999999995, "3.94"), (-0.13999999999999999, "-0.14"), (8.0, "8"), (0.0, "0"), (1e-7, "1.000e-7")]
        {
            assert_eq!(short(number), text);
        }
    }
}
