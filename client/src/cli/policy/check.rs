//! `cloister policy check`

use std::path::{Path, PathBuf};

use clap::Args;
use cloister_attestation::{Policy, PolicyWarning, Release, Standing, Timestamp, UnverifiedDocument};

use super::{Failure, Output, files, load_policy, warn};
use crate::cli::{
    failure::NOT_VERIFIED,
    measurements,
    output::label,
    verify_document::{When, show_steps},
};

/// Say whether a policy would accept anything today, or a given build or document
///
/// Exit code 0 says yes: the policy is in force and accepts some release, or the one of the build or document. 3 says no,
/// with the reason; 6 that the file is no policy. Remarks on what its author may not have meant go to stderr.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Check {
    /// The policy file
    file: PathBuf,
    /// Would this attestation document be accepted, as far as it can tell? It says nothing of its channel
    #[arg(long, value_name = "FILE", conflicts_with = "measurements")]
    document: Option<PathBuf>,
    /// Would this build be accepted? measurements.json, or what nitro-cli prints
    #[arg(long, value_name = "FILE")]
    measurements: Option<PathBuf>,
    /// The time to judge at: now, an RFC 3339 time, or the document's own, at which the policy is still judged now
    #[arg(long, value_name = "document|now|RFC3339", default_value = "now")]
    at: When,
}

const EXAMPLES: &str = "\
Examples:
  cloister policy check policy.toml
  cloister policy check policy.toml --at 2027-01-31T00:00:00Z
  cloister policy check policy.toml --measurements measurements.json
  cloister policy check policy.toml --document old.cose --at document";

impl Check {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let at = match self.at {
            When::Instant(time) => {
                output.note(format!("judged as of {time}, not of the time on this machine"));
                time
            }
            When::Document if self.document.is_none() => {
                return Err(Failure::usage("--at document is for a --document, whose time it takes"));
            }
            When::Document | When::Now => Timestamp::now(),
        };
        let policy = load_policy(&self.file)?;
        output.set("simulated", policy.root().is_simulated());
        output.set("at", at.to_string());
        output.set("expires", policy.expires().to_string());
        output.set("accepted", false);
        warn(&policy, at, output);
        let told = match (&self.document, &self.measurements) {
            (Some(document), _) => self.check_document(&policy, document, at, output)?,
            (None, Some(build)) => check_build(&policy, build, at, output)?,
            (None, None) => {
                let names = in_force(&policy, at)?;
                let told = format!("IN FORCE until {}: accepts {}", policy.expires(), names.join(", "));
                output.set("releases", names);
                told
            }
        };
        output.set("accepted", true);
        output.line(told);
        Ok(())
    }

    fn check_document(
        &self,
        policy: &Policy,
        document: &Path,
        at: Timestamp,
        output: &mut Output,
    ) -> Result<String, Failure> {
        let bytes = files::read(document)?;
        let document = UnverifiedDocument::parse(&bytes)?.authenticate(policy.root(), self.at.into())?;
        output.simulated(document.simulated());
        let simulated = label(document.simulated());
        let accepted = document.require(policy, at)?;
        output.set("release", accepted.release());
        show_steps(accepted.document().steps(), output);
        Ok(format!("\n{simulated}ACCEPTED: the document is of release {}", accepted.release()))
    }
}

/// As which release a build would be accepted.
fn check_build(policy: &Policy, path: &Path, at: Timestamp, output: &mut Output) -> Result<String, Failure> {
    let release = policy.release_measured(&measurements::read(path)?, at)?;
    check_pins(policy, at)?;
    output.set("release", release.name.as_str());
    Ok(format!("ACCEPTED: the build is release {}", release.name))
}

/// The releases that would be accepted; an error if nothing at all would be.
pub(crate) fn in_force(policy: &Policy, at: Timestamp) -> Result<Vec<&str>, Failure> {
    let open = policy.open_releases(at)?;
    if open.is_empty() {
        return Err(no_open_release(policy, at));
    }
    check_pins(policy, at)?;
    Ok(open.iter().map(|release| release.name.as_str()).collect())
}

/// Requires that the pins do not keep every enclave out. A document meets them itself.
fn check_pins(policy: &Policy, at: Timestamp) -> Result<(), Failure> {
    let fits_nothing = |warning: &PolicyWarning| matches!(warning, PolicyWarning::PinFitsNothing { .. });
    let Some(pin) = policy.warnings(at).into_iter().find(fits_nothing) else { return Ok(()) };
    Err(Failure::new(
        NOT_VERIFIED,
        pin.code(),
        pin.to_string(),
        "Correct the pin with `cloister policy pin`, or remove it from the [pin] table of the file.",
    ))
}

fn no_open_release(policy: &Policy, at: Timestamp) -> Failure {
    let one = |release: &Release| match policy.standing(release, at) {
        Standing::Revoked { reason } => format!("\n  {} is revoked: {reason}", release.name),
        Standing::Ended { not_after } => format!("\n  {} ended at {not_after}", release.name),
        Standing::Open => format!("\n  {} is open", release.name),
    };
    let releases: String = policy.releases().iter().map(one).collect();
    Failure::new(
        NOT_VERIFIED,
        "no_open_release",
        format!("every release of the policy has ended or is revoked, so it accepts no new document{releases}"),
        "Get the current policy from whoever publishes the releases, or add the current one: `cloister policy add`.",
    )
}
