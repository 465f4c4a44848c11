//! `cloister policy`

mod add;
mod check;
mod new;
mod pin;
mod revoke;
mod show;

use std::path::Path;

use clap::Subcommand;
use cloister_attestation::{PolicyError, PolicyWarning, Timestamp};
use serde_json::{Value, json};

pub(super) use self::check::in_force;
use super::{failure::Failure, files, load_policy, output::Output, text::wrapped};

/// Make, change and check policies: which releases and models are accepted
#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    New(new::New),
    Add(add::Add),
    Revoke(revoke::Revoke),
    Pin(pin::Pin),
    Show(show::Show),
    Check(check::Check),
}

impl Policy {
    pub(crate) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        match self {
            Self::New(command) => command.run(output),
            Self::Add(command) => command.run(output),
            Self::Revoke(command) => command.run(output),
            Self::Pin(command) => command.run(output),
            Self::Show(command) => command.run(output),
            Self::Check(command) => command.run(output),
        }
    }
}

/// Reads a policy, changes it and writes it, whole or not at all, one program after the other; says whether it changed, and on
/// stderr if a person's own layout gets lost.
fn change(
    path: &Path,
    edit: impl FnOnce(cloister_attestation::Policy) -> Result<cloister_attestation::Policy, PolicyError>,
    output: &Output,
) -> Result<(cloister_attestation::Policy, bool), Failure> {
    let _lock = files::lock(path)?;
    let before = load_policy(path)?;
    let (digest, written) = (before.digest(), before.to_toml());
    let after = edit(before).map_err(|error| Failure::policy(path, &error))?;
    if after.digest() == digest {
        return Ok((after, false));
    }
    if cloister_attestation::Sha384::of(written.as_bytes()) != digest {
        output.note(format!("note: {} is written anew; comments and layout of your own are not kept", path.display()));
    }
    files::replace(path, &after.to_toml())?;
    Ok((after, true))
}

/// Remarks on stderr, and in JSON.
pub(super) fn warn(policy: &cloister_attestation::Policy, now: Timestamp, output: &mut Output) {
    let warnings = policy.warnings(now);
    for warning in &warnings {
        output.note(wrapped("warning: ", &format!("{warning} ({})", warning.code())));
    }
    let one = |warning: &PolicyWarning| json!({"code": warning.code(), "message": warning.to_string()});
    output.set("warnings", warnings.iter().map(one).collect::<Value>());
}

fn rfc3339(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse_rfc3339(text).map_err(|_| "write a time such as 2026-12-31T00:00:00Z".to_owned())
}
