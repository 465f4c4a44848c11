//! The command line, run as a person runs it.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::LazyLock,
    time::Duration,
};

use cloister_attestation::{Policy, PolicyModel, Release, Sha384, Timestamp};
use serde_json::Value;

use crate::build;

/// The program.
pub static CLOISTER: LazyLock<PathBuf> = LazyLock::new(|| build::executable("cloister-client").unwrap());

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code.
    pub exit: i32,
    /// What it said.
    pub stdout: String,
    /// What it remarked.
    pub stderr: String,
}

/// Runs `cloister` with these arguments.
pub fn cloister(arguments: &[&str]) -> Outcome {
    cloister_with(arguments, &[])
}

/// Runs `cloister` with these arguments and environment variables.
pub fn cloister_with(arguments: &[&str], environment: &[(&str, &str)]) -> Outcome {
    let Output { status, stdout, stderr } =
        command().args(arguments).envs(environment.iter().copied()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome { exit: status.code().unwrap(), stdout: text(stdout), stderr: text(stderr) }
}

/// The program, as on a machine where nobody has configured anything.
pub fn command() -> Command {
    let mut command = Command::new(&*CLOISTER);
    let ours = env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CLOISTER_"));
    for name in
        ours.map(|(name, _)| name).chain(["AWS_PROFILE", "SSL_CERT_FILE", "CLICOLOR_FORCE", "CI"].map(Into::into))
    {
        command.env_remove(name);
    }
    command.env("CLOISTER_CONFIG", "/dev/null");
    command
}

/// Every command of a program of ours, the ones below others by their whole name.
pub fn commands(program: &Path) -> Vec<String> {
    let below = |command: &str| {
        let help = help(program, command);
        let (_, list) = help.split_once("Commands:\n").unwrap_or_default();
        let lines = list.lines().take_while(|line| !line.is_empty());
        // What a description goes on with is indented further.
        let names = lines.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
        names.filter(|name| *name != "help").map(str::to_owned).collect::<Vec<_>>()
    };
    let mut commands = below("");
    for command in commands.clone() {
        commands.extend(below(&command).iter().map(|name| format!("{command} {name}")));
    }
    commands
}

/// What a program of ours says of a command, or of itself if that is empty.
pub fn help(program: &Path, command: &str) -> String {
    let output = Command::new(program).args(command.split_whitespace()).arg("--help").output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

impl Outcome {
    /// The one JSON object on stdout.
    pub fn json(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "{}{}", self.stdout, self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// Asserts exit code and error code, in both forms of output; returns message and remedy.
    pub fn assert_fails(arguments: &[&str], exit: i32, code: &str) -> (String, String) {
        let people = cloister(arguments);
        assert_eq!(people.exit, exit, "{arguments:?}: {}", people.stderr);
        assert!(people.stderr.contains("what to do:"), "{}", people.stderr);
        let machine = cloister(&[arguments, &["--json"]].concat());
        assert_eq!(machine.exit, exit);
        let error = machine.json()["error"].clone();
        assert_eq!(error["code"], code, "{error}");
        let text = |field: &str| error[field].as_str().unwrap().to_owned();
        assert!(people.stderr.contains(&format!("code: {code}")), "{}", people.stderr);
        assert!(!text("message").is_empty() && !text("remedy").is_empty());
        // What verifies says so before it can fail; the rest never does.
        let verifies = ["verify", "models", "infer", "gateway", "doctor", "verify-document", "verify-receipt"]
            .contains(&arguments[0]);
        assert_eq!(machine.json().get("verified").is_some(), verifies, "{}", machine.stdout);
        (text("message"), text("remedy"))
    }
}

/// Asserts that exactly these steps are told, each with both sides, and all but the last as passed.
pub fn assert_steps_are_complete(object: &Value, numbers: &[u64]) {
    let steps = object["steps"].as_array().unwrap();
    assert!(steps.iter().map(|step| step["n"].as_u64().unwrap()).eq(numbers.iter().copied()), "{steps:?}");
    for (step, number) in steps.iter().zip(numbers) {
        assert_eq!(step["ok"], number != numbers.last().unwrap() || object["error"].is_null(), "{step}");
        let filled = |field: &str| step[field].as_str().is_some_and(|text| !text.is_empty());
        assert!(["name", "expected", "detail"].into_iter().all(filled), "{step}");
    }
}

/// Asserts that of a document alone, each step that was not asked is told as such in its place.
pub fn assert_says_what_was_not_asked(told: &str) {
    let lines = told.lines().filter(|line| line.contains("  ok  ") || line.contains(" not asked: "));
    let numbers: Vec<&str> = lines.filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(numbers, ["1", "2", "3", "4", "5", "6", "7", "8", "9-11", "12", "12.8-9"], "{told}");
}

/// Asserts that nothing but hexadecimal numbers and paths is wider than a terminal of 80 columns.
pub fn assert_fits_a_terminal(text: &str) {
    let wide = text.lines().filter(|line| line.chars().count() > 80);
    for line in wide {
        assert_eq!(line.split_whitespace().count(), 1, "{line}");
    }
}

/// Bytes as they are printed.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file, and gives its path as an argument.
pub fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path.display().to_string()
}

/// Policies in a folder, and what the command line says of them.
#[derive(Debug)]
pub struct Desk {
    /// Where they are.
    pub folder: tempfile::TempDir,
}

impl Desk {
    /// An empty folder.
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// Writes a file, and gives its path as an argument.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        write(self.folder.path(), name, content)
    }

    /// A policy for 90 days with the releases `1.0` and `1.1`, and a model.
    pub fn policy(&self, change: impl FnOnce(&mut Policy)) -> String {
        let mut policy = Policy::new(Timestamp::now().plus(90 * DAY));
        for (name, byte) in [("1.0", 0x10), ("1.1", 0x11)] {
            policy.add_release(release(name, byte)).unwrap();
        }
        policy.add_model(PolicyModel { name: "iris".to_owned(), digest: Sha384([1; 48]) }).unwrap();
        change(&mut policy);
        self.write("policy.toml", policy.to_toml())
    }
}

/// A day.
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A release whose measurements are all the same byte.
pub fn release(name: &str, byte: u8) -> Release {
    Release { name: name.to_owned(), pcrs: [[byte; 48]; 3], not_after: None, revoked: None }
}
