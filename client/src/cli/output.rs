//! What a command prints.

use std::{
    io::{ErrorKind, Write},
    process::ExitCode,
};

use clap::Args;
use cloister_attestation::{Channel, StepReport};
use cloister_client::words::{NO_CHANNEL, SIMULATED};
pub(crate) use cloister_client::words::{foreign, short};
use serde_json::{Map, Value, json};

use super::{
    failure::{Failure, INTERNAL, NOT_VERIFIED},
    paint::{BANNER, FAIL, OK, Painted},
    text::wrapped,
};

/// Collects what `--json` writes, or prints for people as it goes.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    verbose: bool,
    object: Map<String, Value>,
    steps: Vec<Value>,
    /// Whether the object is on stdout.
    written: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, verbose: false, object: Map::new(), steps: Vec::new(), written: false }
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
    pub(crate) fn line(&self, text: impl Into<Painted>) {
        if !self.json {
            deliver(&mut anstream::stdout().lock(), &format!("{}\n", text.into().as_str()));
        }
    }

    /// A text of ours for another program, exactly as it is; with `--json` a field.
    pub(crate) fn verbatim(&mut self, field: &str, text: &str) {
        self.set(field, text);
        if !self.json {
            write_stdout(text);
        }
    }

    /// Progress or a remark, on stderr in either mode.
    pub(crate) fn note(&self, text: impl Into<Painted>) {
        remark(text);
    }

    /// Says whether attestation is simulated: a field, and a banner that cannot be overlooked.
    pub(crate) fn simulated(&mut self, simulated: bool) {
        self.set("simulated", simulated);
        if simulated {
            self.note(Painted::new(BANNER, framed(SIMULATED)));
        }
    }

    /// Says how the enclave was reached: a field, and a banner if anybody is in between.
    pub(crate) fn channel(&mut self, channel: Channel) {
        self.set("channel", channel.name());
        if channel == Channel::None {
            self.note(Painted::new(BANNER, NO_CHANNEL));
        }
    }

    /// From now on, steps are told with both sides.
    pub(crate) fn detail(&mut self, Detail { verbose }: Detail) {
        self.verbose = verbose;
    }

    /// Whether details were asked for.
    pub(crate) fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// Verification steps that passed, after those that were told before.
    pub(crate) fn steps(&mut self, steps: &[StepReport]) {
        self.line(told(steps, self.verbose));
        self.steps.extend(steps.iter().map(passed));
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
        if self.write_object() == Delivery::Failed && exit == 0 {
            exit = INTERNAL;
        }
        ExitCode::from(exit)
    }

    /// Writes the JSON object: what comes after it is on stderr alone. A command that serves does so before it ends.
    pub(crate) fn write_object(&mut self) -> Delivery {
        if !self.json || std::mem::replace(&mut self.written, true) {
            return Delivery::Written;
        }
        if !self.steps.is_empty() {
            self.set("steps", self.steps.clone());
        }
        write_stdout(&format!("{}\n", Value::from(self.object.clone())))
    }

    fn fail(&mut self, failure: &Failure) {
        let Failure { exit, code, message, remedy, refusal } = failure;
        if let Some(refusal) = refusal {
            let (step, expected) = (refusal.step(), &refusal.expected);
            self.steps = refusal.passed.iter().map(passed).collect();
            self.steps.push(json!({
                "n": step.number(), "name": step.name(), "ok": false, "expected": expected, "detail": message,
            }));
        }
        if self.json && !self.written {
            // What was verified first may be refused later; who only judges a policy verifies nothing.
            if *exit == NOT_VERIFIED && self.object.contains_key("verified") {
                self.set("verified", false);
            }
            self.set("error", json!({"code": code, "message": message, "remedy": remedy}));
        } else {
            self.note(explained(failure, self.verbose));
        }
    }
}

/// How much a command tells.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Detail {
    /// Tell of every step what was expected and what was found, in full
    #[arg(short, long)]
    verbose: bool,
}

/// A step in JSON.
pub(crate) fn passed(StepReport { step, expected, found }: &StepReport) -> Value {
    json!({"n": step.number(), "name": step.name(), "ok": true, "expected": expected, "detail": found})
}

/// The steps that passed, a line each, or with both sides.
fn told(steps: &[StepReport], verbose: bool) -> Painted {
    let one = |StepReport { step, expected, found }: &StepReport| {
        let (number, name) = (step.number(), step.name());
        if !verbose {
            return Painted::first(OK, "ok", format!("  {number:>2}  ok  {name:<13} {found}"));
        }
        let (expected, found) = (wrapped("          expected  ", expected), wrapped("          found     ", found));
        Painted::first(OK, "ok", format!("  {number:>2}  ok  {name}\n{expected}\n{found}"))
    };
    Painted::lines(steps.iter().map(one))
}

/// What happened, where, and what to do, in the order in which a person needs it: the end is what a terminal shows.
fn explained(failure: &Failure, verbose: bool) -> Painted {
    let Failure { exit: _, code, message, remedy, refusal } = failure;
    let error = |label: &str, message: &str| Painted::first(FAIL, "error", wrapped(label, message));
    let mut lines = Vec::new();
    match refusal {
        None => lines.push(error("error: ", message)),
        Some(refusal) => {
            let step = refusal.step();
            if !refusal.passed.is_empty() {
                lines.push(told(&refusal.passed, verbose));
            }
            lines.push(Painted::first(FAIL, "FAIL", format!("  {:>2} FAIL {}\n", step.number(), step.name())));
            lines.push(error("", &format!("error at step {} ({}): {message}", step.number(), step.name())));
            lines.push(wrapped("  to pass: ", &refusal.expected).into());
        }
    }
    lines.push(wrapped("  what to do: ", remedy).into());
    lines.push(format!("  code: {code}").into());
    Painted::lines(lines)
}

/// A remark on stderr.
pub(crate) fn remark(text: impl Into<Painted>) {
    let _ = writeln!(anstream::stderr().lock(), "{}", text.into().as_str());
}

/// Nobody overlooks this.
fn framed(text: &str) -> String {
    let stars = "*".repeat(72);
    let lines = text.lines().map(|line| format!("*  {line:<68}*\n"));
    format!("{stars}\n{}{stars}", lines.collect::<String>())
}

/// Stands in front of what would otherwise read as the real thing.
pub(crate) fn label(simulated: bool) -> &'static str {
    if simulated { "SIMULATED (proves nothing about hardware), " } else { "" }
}

/// What became of a text for stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Written,
    /// No failure, and it changes no outcome.
    ReaderGone,
    Failed,
}

/// Writes data to stdout, as they are.
pub(crate) fn write_stdout(text: &str) -> Delivery {
    deliver(&mut std::io::stdout().lock(), text)
}

fn deliver(stdout: &mut impl Write, text: &str) -> Delivery {
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Delivery::Written,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Delivery::ReaderGone,
        Err(_) => Delivery::Failed,
    }
}
