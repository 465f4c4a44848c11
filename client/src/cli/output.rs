//! What a command prints.

use std::{
    fmt::Display,
    io::{ErrorKind, Write},
    process::ExitCode,
};

use clap::Args;
use cloister_attestation::{Channel, StepReport};
use serde_json::{Map, Value, json};

use super::{
    failure::{Failure, INTERNAL, NOT_VERIFIED},
    text::wrapped,
};

/// Nobody overlooks this.
const SIMULATED: &str = "\
************************************************************************
*  SIMULATED: this is not a Nitro Enclave. Its documents are signed by *
*  a simulated authority; they prove nothing about any hardware.       *
************************************************************************";

const NO_CHANNEL: &str = "\
TLS ENDS BEFORE THE ENCLAVE: whoever ends it sees sizes and times, and may hand requests to
another enclave that the policy accepts. Features and logits stay encrypted, and no answer
counts without a receipt of the enclave that was verified.";

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
    pub(crate) fn line(&self, text: impl Display) {
        if !self.json {
            write_stdout(&format!("{}\n", safe(text)));
        }
    }

    /// Progress or a remark, on stderr in either mode.
    pub(crate) fn note(&self, text: impl Display) {
        remark(text);
    }

    /// Says whether attestation is simulated: a field, and a banner that cannot be overlooked.
    pub(crate) fn simulated(&mut self, simulated: bool) {
        self.set("simulated", simulated);
        if simulated {
            self.note(SIMULATED);
        }
    }

    /// Says how the enclave was reached: a field, and a banner if anybody is in between.
    pub(crate) fn channel(&mut self, channel: Channel) {
        self.set("channel", channel.name());
        if channel == Channel::None {
            self.note(NO_CHANNEL);
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
fn told(steps: &[StepReport], verbose: bool) -> String {
    let one = |StepReport { step, expected, found }: &StepReport| {
        let (number, name) = (step.number(), step.name());
        if !verbose {
            return format!("  {number:>2}  ok  {name:<13} {found}");
        }
        let (expected, found) = (wrapped("          expected  ", expected), wrapped("          found     ", found));
        format!("  {number:>2}  ok  {name}\n{expected}\n{found}")
    };
    steps.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// What happened, where, and what to do, in the order in which a person needs it: the end is what a terminal shows.
fn explained(failure: &Failure, verbose: bool) -> String {
    let Failure { exit: _, code, message, remedy, refusal } = failure;
    let mut lines = Vec::new();
    match refusal {
        None => lines.push(wrapped("error: ", message)),
        Some(refusal) => {
            let step = refusal.step();
            if !refusal.passed.is_empty() {
                lines.push(told(&refusal.passed, verbose));
            }
            lines.push(format!("  {:>2} FAIL {}\n", step.number(), step.name()));
            lines.push(wrapped("", &format!("error at step {} ({}): {message}", step.number(), step.name())));
            lines.push(wrapped("  to pass: ", &refusal.expected));
        }
    }
    lines.push(wrapped("  what to do: ", remedy));
    lines.push(format!("  code: {code}"));
    lines.join("\n")
}

/// A remark on stderr.
pub(crate) fn remark(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{}", safe(text));
}

/// Stands in front of what would otherwise read as the real thing.
pub(crate) fn label(simulated: bool) -> &'static str {
    if simulated { "SIMULATED (proves nothing about hardware), " } else { "" }
}

/// A number as a person writes it: at most six decimals, without the digits that only binary has.
pub(crate) fn short(number: f64) -> String {
    if number != 0.0 && !(1e-3..1e9).contains(&number.abs()) {
        return format!("{number:.3e}");
    }
    let text = format!("{number:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What became of a text for stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Written,
    /// No failure, and it changes no outcome.
    ReaderGone,
    Failed,
}

/// Writes to stdout.
pub(crate) fn write_stdout(text: &str) -> Delivery {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Delivery::Written,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Delivery::ReaderGone,
        Err(_) => Delivery::Failed,
    }
}

/// Somebody else's words in a line of ours, from a file, a document or a peer: they neither end it nor steer the terminal, and
/// what is long is cut. Whoever wants all of it has `--json`.
pub(crate) fn foreign(text: &str) -> String {
    let escaped = |c: char| if is_printable(c) { c.to_string() } else { c.escape_default().to_string() };
    let mut shown: String = text.chars().take(MAX_FOREIGN).map(escaped).collect();
    if text.chars().nth(MAX_FOREIGN).is_some() {
        shown.push('…');
    }
    shown
}

/// More of a name than anybody reads, in characters.
const MAX_FOREIGN: usize = 200;

/// Text without what could steer a terminal or reorder a line, whoever forgot [`foreign`].
fn safe(text: impl Display) -> String {
    let shown = |c: char| if c == '\n' || is_printable(c) { c } else { char::REPLACEMENT_CHARACTER };
    text.to_string().chars().map(shown).collect()
}

/// Whether a character is shown as itself in the middle of a word: what Rust escapes in strings is not, but for quotes and `\`.
fn is_printable(c: char) -> bool {
    let word = String::from_iter(['a', c]);
    matches!(c, '"' | '\'' | '\\') || word.escape_debug().eq(word.chars())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_printed_steers_a_terminal() {
        assert_eq!(safe("a\u{1b}[31mb\u{202e}c\rd\ne"), "a\u{fffd}[31mb\u{fffd}c\u{fffd}d\ne");
        for c in ['\u{61c}', '\u{200f}', '\u{2028}', '\u{2066}', '\u{feff}', '\u{e0041}'] {
            assert_eq!(safe(c), "\u{fffd}", "{c:?}");
        }
        for text in ["größer ≤ 1", "वर्गीकरण", "cafe\u{301}", "\"it's\" a\\b"] {
            assert_eq!(safe(text), text);
        }
    }

    #[test]
    fn foreign_words_stay_in_their_line_and_are_short() {
        assert_eq!(foreign("iris\nVERIFIED\r\u{85}\u{2028}\u{1b}[2J"), "iris\\nVERIFIED\\r\\u{85}\\u{2028}\\u{1b}[2J");
        assert_eq!(foreign("ab\u{61c}\u{202e}c"), "ab\\u{61c}\\u{202e}c");
        for text in ["größer ≤ 1", "वर्गीकरण", "\"it's\" a\\b", &"x".repeat(MAX_FOREIGN)] {
            assert_eq!(foreign(text), text);
        }
        assert_eq!(foreign(&"x".repeat(MAX_FOREIGN + 1)), "x".repeat(MAX_FOREIGN) + "…");
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
