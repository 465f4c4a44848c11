//! `cloister policy show`

use std::{path::PathBuf, time::Duration};

use clap::Args;
use cloister_attestation::{ChannelRule, Pins, Policy, PolicyModel, Release, Standing, Timestamp};
use serde_json::{Value, json};

use super::{Failure, Output, load_policy, warn};

/// Show what a policy accepts: each release OPEN, ENDED or REVOKED
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Show {
    /// The policy file
    file: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  cloister policy show policy.toml
  cloister policy show policy.toml --json | jq '.releases[] | {name, state}'";

impl Show {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let policy = load_policy(&self.file)?;
        show(&policy, output);
        warn(&policy, Timestamp::now(), output);
        Ok(())
    }
}

/// Everything that a policy says, and how it stands now.
pub(super) fn show(policy: &Policy, output: &mut Output) {
    let now = Timestamp::now();
    output.set("simulated", policy.root().is_simulated());
    show_force(policy, now, output);
    show_conditions(policy, output);
    show_releases(policy, now, output);
    let mut models: Vec<Value> = Vec::new();
    for PolicyModel { name, digest } in policy.models() {
        output.line(format!("model   {name}\n  {digest}"));
        models.push(json!({"name": name, "digest": digest.to_string()}));
    }
    output.set("models", models);
}

/// Until when it is in force, and under which root.
fn show_force(policy: &Policy, now: Timestamp, output: &mut Output) {
    let expired = policy.is_expired(now);
    output.set("expires", policy.expires().to_string());
    output.set("expired", expired);
    output.set("root", policy.root().fingerprint());
    output.line(match expired {
        true => format!("EXPIRED {}: this policy accepts nothing", policy.expires()),
        false => format!("expires {}", policy.expires()),
    });
    let whose = if policy.root().is_simulated() { "SIMULATED" } else { "AWS Nitro G1" };
    output.line(format!("root    {whose} {}", policy.root().fingerprint()));
}

/// What else must hold, beside releases and models.
fn show_conditions(policy: &Policy, output: &mut Output) {
    let channel = match policy.channel() {
        ChannelRule::Required => "required",
        ChannelRule::Optional => "optional",
    };
    let Pins { pcr3, pcr4, pcr8, module_id, region } = policy.pins();
    output.set("channel", channel);
    output.set("max_age_s", policy.max_age().as_secs());
    output.line(format!("channel {channel}, documents at most {} old", spoken(policy.max_age())));
    let pins = [
        ("pcr3", pcr3.map(hex::encode)),
        ("pcr4", pcr4.map(hex::encode)),
        ("pcr8", pcr8.map(hex::encode)),
        ("module_id", module_id.clone()),
        ("region", region.clone()),
    ];
    let mut object = serde_json::Map::new();
    for (name, value) in pins {
        let Some(value) = value else { continue };
        output.line(format!("pin     {name} {value}"));
        object.insert(name.to_owned(), value.into());
    }
    output.set("pins", object);
}

/// In minutes, if they are whole.
fn spoken(age: Duration) -> String {
    match age.as_secs() {
        seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

fn show_releases(policy: &Policy, now: Timestamp, output: &mut Output) {
    let mut releases: Vec<Value> = Vec::new();
    for release in policy.releases() {
        let (state, told) = match policy.standing(release, now) {
            Standing::Open => ("open", release.not_after.map_or("OPEN".into(), |time| format!("OPEN until {time}"))),
            Standing::Ended { not_after } => ("ended", format!("ENDED {not_after}")),
            Standing::Revoked { reason } => ("revoked", format!("REVOKED: {reason}")),
        };
        let Release { name, pcrs, not_after, revoked } = release;
        let [pcr0, pcr1, pcr2] = pcrs.map(hex::encode);
        output.line(format!("release {name}  {told}\n  PCR0 {pcr0}\n  PCR1 {pcr1}\n  PCR2 {pcr2}"));
        releases.push(json!({
            "name": name, "state": state, "pcr0": pcr0, "pcr1": pcr1, "pcr2": pcr2,
            "not_after": not_after.map(|time| time.to_string()), "revoked": revoked,
        }));
    }
    if releases.is_empty() {
        output.line("no release: this policy accepts no enclave");
    }
    output.set("releases", releases);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_minutes_when_they_are_whole() {
        for (seconds, told) in [(300, "5 min"), (60, "1 min"), (90, "90 s"), (59, "59 s")] {
            assert_eq!(spoken(Duration::from_secs(seconds)), told);
        }
    }
}
