//! Checks, as they are made.

use std::{
    fmt::Display,
    path::{Path, PathBuf},
};

use cloister_attestation::{Refusal, VerificationError};
use serde_json::{Value, json};

use crate::cli::{
    failure::Failure,
    output::Output,
    paint::{FAIL, OK, Painted},
    text::wrapped,
};

/// Tells each check, and remembers the first that failed.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) output: &'a mut Output,
    /// What a remedy may be to change.
    pub(super) policy_file: Option<PathBuf>,
    checks: Vec<Value>,
    /// The name, exit code and error code of the first check that failed.
    first: Option<(String, u8, String)>,
    failed: usize,
}

impl<'a> Report<'a> {
    pub(super) fn new(output: &'a mut Output) -> Self {
        Self { output, policy_file: None, checks: Vec::new(), first: None, failed: 0 }
    }

    /// A check that has an outcome: what to go on with, and what was found.
    pub(super) fn check<T>(&mut self, name: &str, outcome: Result<(T, String), Failure>) -> Option<T> {
        match outcome {
            Ok((value, found)) => {
                self.ok(name, found);
                Some(value)
            }
            Err(failure) => {
                self.fail(name, failure);
                None
            }
        }
    }

    pub(super) fn ok(&mut self, name: &str, found: impl Display) {
        self.output.line(Painted::first(OK, "ok", line("ok", name, &found)));
        self.push(name, Some(true), &found, None);
    }

    pub(super) fn fail(&mut self, name: &str, failure: Failure) {
        let Failure { exit, code, message, remedy, refusal: _ } = failure;
        self.output.line(Painted::first(FAIL, "FAIL", line("FAIL", name, &message)));
        self.output.line(wrapped("      what to do: ", &remedy));
        self.push(name, Some(false), &message, Some(&remedy));
        self.failed += 1;
        self.first.get_or_insert_with(|| (name.to_owned(), exit, code));
    }

    /// A document that was refused: by which step, and what would accept it if that is another build.
    pub(super) fn refuse(&mut self, name: &str, refusal: Refusal) {
        let step = refusal.step();
        let message = format!("step {} ({}): {refusal}\nto pass: {}", step.number(), step.name(), refusal.expected);
        let command = self.policy_file.as_deref().and_then(|file| accepting(&refusal.error, file));
        self.fail(name, Failure { message, ..refusal.into() });
        if let Some(command) = command {
            self.output.line(wrapped("                  ", ONLY_IF));
            // Whole, or it could not be copied.
            self.output.line(format!("      {command}"));
            let check = self.checks.last_mut().expect("it was told just now");
            check["command"] = command.into();
        }
    }

    /// Checks that were not made, and why.
    pub(super) fn passed_over(&mut self, name: &str, why: &str) {
        self.output.line(line("--", name, &why));
        self.push(name, None, &why, None);
    }

    /// Checks for which others had to pass first.
    pub(super) fn not_reached(&mut self, names: &[&str]) {
        names.iter().for_each(|name| self.passed_over(name, "not reached"));
    }

    fn push(&mut self, name: &str, ok: Option<bool>, found: &dyn Display, remedy: Option<&str>) {
        self.checks.push(json!({"name": name, "ok": ok, "found": found.to_string(), "remedy": remedy}));
    }

    /// The first failure is that of the command.
    pub(super) fn finish(self) -> Result<(), Failure> {
        let Self { output, policy_file: _, checks, first, failed } = self;
        output.set("checks", checks);
        let Some((name, exit, code)) = first else {
            output.line("\nnothing is wrong");
            return Ok(());
        };
        let message = match failed {
            1 => format!("a check failed: {name}"),
            _ => format!("{failed} checks failed, the first of them: {name}"),
        };
        Err(Failure::new(exit, &code, message, "Begin with the first check that failed: it says what to do."))
    }
}

fn line(state: &str, name: &str, found: &dyn Display) -> String {
    wrapped(&format!("{state:<5} {name:<14} "), &found.to_string())
}

const ONLY_IF: &str = "Only if its publisher, and not the endpoint, told you these very measurements, this accepts them, under \
                       a name that you choose:";

/// The command that would accept another build. Its measurements come from the enclave itself, which is no reason to.
fn accepting(error: &VerificationError, policy: &Path) -> Option<String> {
    let VerificationError::PcrMismatch { measured, .. } = error else { return None };
    let [pcr0, pcr1, pcr2] = measured.map(hex::encode);
    let measurements = json!({"Measurements": {
        "HashAlgorithm": "Sha384 { ... }", "PCR0": pcr0, "PCR1": pcr1, "PCR2": pcr2,
    }});
    let policy = policy.display().to_string().replace('\'', r"'\''");
    Some(format!("echo '{measurements}' | cloister policy add '{policy}' --measurements /dev/stdin --name RELEASE"))
}
