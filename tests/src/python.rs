//! Programs in Python: our own package, AWS's own models of its APIs, an S3 server, a client of the Open Inference Protocol.
//!
//! `tests/python/requirements.txt` says what they need. `python3 -m venv target/python` and
//! `target/python/bin/pip install -r tests/python/requirements.txt` install it.

use std::{
    env,
    io::{Seek, Write},
    path::PathBuf,
    process::{Command, Output},
};

use anyhow::{Context, bail};

use crate::{build::workspace, process::Process};

/// Names a Python that has what is needed.
const VARIABLE: &str = "CLOISTER_PYTHON";
/// Where it is if that is not set.
const DEFAULT: &str = "target/python/bin/python";

/// What it has to have, and what says so.
const MODULES: [&str; 14] = [
    "boto3",
    "ipykernel",
    "matplotlib",
    "maturin",
    "moto",
    "mypy",
    "nbclient",
    "numpy",
    "pandas",
    "polars",
    "pytest",
    "skl2onnx",
    "tqdm",
    "tritonclient",
];
const MISSING: &str = "import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, sys.argv[1:])))";

/// A Python that has what is needed.
#[derive(Clone, Debug)]
pub struct Python(PathBuf);

impl Python {
    /// One; or none, which is told. Where the variable asks for one, that it cannot be used is an error.
    pub fn find() -> anyhow::Result<Option<Self>> {
        let asked = env::var_os(VARIABLE).map(PathBuf::from);
        let python = Self(asked.clone().unwrap_or_else(|| workspace().join(DEFAULT)));
        let works = python.command().args(["-c", MISSING]).args(MODULES).output();
        match (works, asked) {
            (Ok(output), _) if output.status.success() => Ok(Some(python)),
            (_, Some(path)) => {
                bail!("{VARIABLE}: {} does not have all of tests/python/requirements.txt", path.display())
            }
            (_, None) => {
                // Past the test harness, which captures what passes.
                let skipped = format!(
                    "SKIPPED: no Python with tests/python/requirements.txt at {DEFAULT}; {VARIABLE} names another\n"
                );
                std::io::stderr().write_all(skipped.as_bytes())?;
                Ok(None)
            }
        }
    }

    /// A command of it, which lacks arguments.
    pub fn command(&self) -> Command {
        Command::new(&self.0)
    }

    /// Runs a script of `tests/python` to its end.
    pub fn run(&self, script: &str, arguments: &[&str]) -> anyhow::Result<Output> {
        self.run_with(script, arguments, "")
    }

    /// As [`run`](Self::run), with a text to read.
    pub fn run_with(&self, script: &str, arguments: &[&str], input: &str) -> anyhow::Result<Output> {
        let mut text = tempfile::tempfile()?;
        text.write_all(input.as_bytes())?;
        text.rewind()?;
        self.command().arg(file(script)).args(arguments).stdin(text).output().with_context(|| script.to_owned())
    }

    /// Starts a script of `tests/python` that says where it listens: `http://127.0.0.1:PORT`.
    pub fn serve(&self, script: &str, arguments: &[&str]) -> anyhow::Result<(Process, String)> {
        let script = file(script).display().to_string();
        let process = Process::start(&self.0, &[&[script.as_str()], arguments].concat())?;
        let url = process.first_line.strip_prefix("listening on ").context("the first line says where")?.to_owned();
        Ok((process, url))
    }
}

fn file(script: &str) -> PathBuf {
    workspace().join("tests/python").join(script)
}
