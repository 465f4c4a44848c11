//! Shipped programs, built one package at a time: building several at once would unify features over them, and what is
//! tested would not be what ships.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context, bail};
use serde_json::Value;

/// Builds `package` in the profile of this very program and returns its executable. 50 ms when it is fresh.
pub fn executable(package: &str) -> anyhow::Result<PathBuf> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--locked", "--message-format=json-render-diagnostics", "-p", package]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output =
        cargo.current_dir(workspace()).stderr(std::process::Stdio::inherit()).output().context("running cargo")?;
    if !output.status.success() {
        bail!("cargo build -p {package} failed");
    }
    String::from_utf8(output.stdout)?
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
        .with_context(|| format!("package {package} has no program"))
}

/// The root of this repository.
pub fn workspace() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
