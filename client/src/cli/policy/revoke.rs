//! `cloister policy revoke`

use std::path::PathBuf;

use clap::{Args, builder::NonEmptyStringValueParser};

use super::{Failure, Output, change, wrapped};

/// Refuse a release for good, its stored answers too
///
/// Every other entry of the same build is refused with it. Revoking it again for the same reason changes nothing; another
/// reason is an error, because what was published is not rewritten.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Revoke {
    /// The policy file to change
    file: PathBuf,
    /// Name of the release
    release: String,
    /// Why: everybody who meets this release is told
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    reason: String,
}

const EXAMPLES: &str = "\
Examples:
  cloister policy revoke policy.toml 1.1.0 --reason \"CVE-2026-1234 in its TLS library\"
  cloister policy show policy.toml";

impl Revoke {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let Self { file, release, reason } = self;
        let revoke = |mut policy: cloister_attestation::Policy| policy.revoke(release, reason).map(|()| policy);
        let (policy, changed) = change(file, revoke, output)?;
        output.set("release", release.as_str());
        output.set("reason", reason.as_str());
        output.set("changed", changed);
        output.set("expires", policy.expires().to_string());
        if changed {
            let (file, expires) = (file.display(), policy.expires());
            let publish = format!(
                "Publish {file} now: who holds an older copy accepts the release until it expires, at {expires}"
            );
            output.line(wrapped("", &format!("REVOKED: release {release}: {reason}\n{publish}")));
        } else {
            output.line(format!("release {release} is revoked already, for this reason: nothing was changed"));
        }
        Ok(())
    }
}
