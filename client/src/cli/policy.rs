//! `cloister policy`

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use cloister_attestation::{ChannelRule, Pins, PolicyModel, Release, Sha384, Timestamp};
use cloister_inference::Bundle;
use serde_json::{Value, json};

use super::{failure::Failure, load_policy, output::Output};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Make and read policies
#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Write a policy that accepts nothing yet
    New(New),
    /// Accept a release, a model, or both
    Add(Add),
    /// Show what a policy accepts
    Show(Show),
}

/// Write a policy that accepts nothing yet
#[derive(Debug, Args)]
pub(crate) struct New {
    /// The policy file to write; an existing one is not overwritten
    file: PathBuf,
    /// Days until it expires: the time that a revocation takes to reach everybody
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
    expires_in: u32,
}

/// Accept a release, a model, or both
#[derive(Debug, Args)]
pub(crate) struct Add {
    /// The policy file to change
    file: PathBuf,
    /// measurements.json of a release, or the output of nitro-cli build-enclave
    #[arg(long, value_name = "FILE", requires = "name", required_unless_present = "model")]
    measurements: Option<PathBuf>,
    /// Name of the release
    #[arg(long, value_name = "RELEASE", requires = "measurements")]
    name: Option<String>,
    /// Last time that documents of this release are accepted
    #[arg(long, value_name = "RFC3339", value_parser = rfc3339, requires = "measurements")]
    not_after: Option<Timestamp>,
    /// A bundle whose digest to accept, under the bundle's own name
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
}

/// Show what a policy accepts
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The policy file
    file: PathBuf,
}

impl Policy {
    pub(crate) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        match self {
            Self::New(command) => command.run(output),
            Self::Add(command) => command.run(output),
            Self::Show(command) => command.run(output),
        }
    }
}

impl New {
    fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let expires = Timestamp::now().plus(DAY * self.expires_in);
        let policy = cloister_attestation::Policy::new(expires);
        std::fs::File::create_new(&self.file)
            .and_then(|mut file| std::io::Write::write_all(&mut file, policy.to_toml().as_bytes()))
            .map_err(|error| match error.kind() {
                ErrorKind::AlreadyExists => Failure::bad_input(
                    "file",
                    format!("{} exists, and is not overwritten", self.file.display()),
                    "choose another name, or change it with: cloister policy add",
                ),
                _ => Failure::file(&self.file, &error),
            })?;
        output.line(format!(
            "{} accepts nothing yet. Next: cloister policy add {} --measurements measurements.json --name RELEASE --model FILE.cloister",
            self.file.display(),
            self.file.display()
        ));
        show(&policy, output);
        Ok(())
    }
}

impl Add {
    fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let mut policy = load_policy(&self.file)?;
        if let (Some(path), Some(name)) = (&self.measurements, &self.name) {
            let pcrs = measurements(path)?;
            let release = Release { name: name.clone(), pcrs, not_after: self.not_after, revoked: None };
            policy.add_release(release).map_err(|error| Failure::policy(path, &error))?;
        }
        if let Some(path) = &self.model {
            let bytes = std::fs::read(path).map_err(|error| Failure::file(path, &error))?;
            let bundle = Bundle::from_bytes(&bytes).map_err(|error| Failure::bundle(path, &error))?;
            policy.add_model(PolicyModel { name: bundle.name().to_owned(), digest: Sha384(bundle.digest()) });
        }
        std::fs::write(&self.file, policy.to_toml()).map_err(|error| Failure::file(&self.file, &error))?;
        show(&policy, output);
        Ok(())
    }
}

impl Show {
    fn run(&self, output: &mut Output) -> Result<(), Failure> {
        show(&load_policy(&self.file)?, output);
        Ok(())
    }
}

fn rfc3339(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse_rfc3339(text).map_err(|_| "write a time such as 2026-12-31T00:00:00Z".to_owned())
}

/// PCR0 to PCR2 of `{"Measurements": {"PCR0": …}}`, the form of nitro-cli.
fn measurements(path: &Path) -> Result<[[u8; 48]; 3], Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::file(path, &error))?;
    let wrong = |what: &str| {
        Failure::bad_input(
            "bad_measurements",
            format!("{}: {what}", path.display()),
            "give the JSON that nitro-cli build-enclave prints: {\"Measurements\": {\"PCR0\": \"…\", \"PCR1\": \"…\", \"PCR2\": \"…\"}}",
        )
    };
    let json: Value = serde_json::from_str(&text).map_err(|error| wrong(&error.to_string()))?;
    let pcr = |key: &str| {
        let text = json["Measurements"][key].as_str().ok_or_else(|| wrong(&format!("{key} is missing")))?;
        let bytes = hex::decode(text).ok().and_then(|bytes| <[u8; 48]>::try_from(bytes).ok());
        bytes.ok_or_else(|| wrong(&format!("{key} is not 48 bytes in hexadecimal")))
    };
    Ok([pcr("PCR0")?, pcr("PCR1")?, pcr("PCR2")?])
}

fn show(policy: &cloister_attestation::Policy, output: &mut Output) {
    output.simulated(policy.root().is_simulated());
    let expired = policy.is_expired(Timestamp::now());
    output.set("expires", policy.expires().to_string());
    output.set("expired", expired);
    output.set("root", policy.root().fingerprint());
    output.line(format!("expires {}{}", policy.expires(), if expired { "  EXPIRED" } else { "" }));
    let whose = if policy.root().is_simulated() { "SIMULATED" } else { "AWS Nitro G1" };
    output.line(format!("root    {whose} {}", policy.root().fingerprint()));
    show_conditions(policy, output);

    let mut releases: Vec<Value> = Vec::new();
    for Release { name, pcrs, not_after, revoked } in policy.releases() {
        let (pcrs, not_after) = (pcrs.map(hex::encode), not_after.map(|time| time.to_string()));
        let state = match (revoked, &not_after) {
            (Some(reason), _) => format!("  REVOKED: {reason}"),
            (None, Some(time)) => format!("  until {time}"),
            (None, None) => String::new(),
        };
        let [pcr0, pcr1, pcr2] = pcrs;
        output.line(format!("release {name}{state}\n  PCR0 {pcr0}\n  PCR1 {pcr1}\n  PCR2 {pcr2}"));
        releases.push(
            json!({"name": name, "pcr0": pcr0, "pcr1": pcr1, "pcr2": pcr2, "not_after": not_after, "revoked": revoked}),
        );
    }
    if releases.is_empty() {
        output.line("no release: this policy accepts no enclave");
    }
    output.set("releases", releases);
    let mut models: Vec<Value> = Vec::new();
    for PolicyModel { name, digest } in policy.models() {
        output.line(format!("model   {name}\n  {digest}"));
        models.push(json!({"name": name, "digest": digest.to_string()}));
    }
    output.set("models", models);
}

/// What else must hold, beside releases and models.
fn show_conditions(policy: &cloister_attestation::Policy, output: &mut Output) {
    let channel = match policy.channel() {
        ChannelRule::Required => "required",
        ChannelRule::Optional => "optional",
    };
    let Pins { pcr3, pcr4, pcr8, module_id, region } = policy.pins();
    output.set("channel", channel);
    output.set("max_age_s", policy.max_age().as_secs());
    output.line(format!("channel {channel}, documents at most {} s old", policy.max_age().as_secs()));
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
