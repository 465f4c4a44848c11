//! What figures were measured on.

use std::{env, fs, process::Command};

use serde_json::{Value, json};

/// The machine and the program.
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores_used: usize,
    pub(crate) rustc: String,
    pub(crate) commit: String,
}

impl Machine {
    pub(crate) fn to_json(&self) -> Value {
        json!({"cpu": self.cpu, "cores_used": self.cores_used, "rustc": self.rustc, "commit": self.commit})
    }
}

/// Reads what the machine says of itself; `unknown` where it says nothing.
pub(crate) fn describe() -> Machine {
    let commit = output("git", &["rev-parse", "--short=12", "HEAD"]);
    let changed = output("git", &["status", "--porcelain", "--untracked-files=no"]).is_some();
    Machine {
        cpu: cpu().unwrap_or_else(unknown),
        // Each end works on one thread.
        cores_used: 1,
        rustc: output(&env::var("RUSTC").unwrap_or_else(|_| "rustc".into()), &["--version"]).unwrap_or_else(unknown),
        commit: commit.map_or_else(unknown, |commit| if changed { commit + "+changes" } else { commit }),
    }
}

fn cpu() -> Option<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(": ")?.1.to_owned())
}

/// The first line that a command prints, if it prints one.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
    String::from_utf8(output.stdout).ok()?.lines().next().map(str::to_owned)
}

fn unknown() -> String {
    "unknown".into()
}
