//! `cloister verify-document`

use std::{path::PathBuf, str::FromStr};

use clap::Args;
use cloister_attestation::{
    Archival, At, AuthenticDocument, Pcrs, Root, Step, StepReport, Timestamp, UnverifiedDocument,
};
use serde_json::{Value, json};

use super::{
    failure::Failure,
    files, load_policy,
    output::{Detail, Output, foreign, label},
    text::wrapped,
};

/// Verify an attestation document in a file: raw COSE_Sign1, as the NSM returns it
///
/// The steps are numbered as in attestation/VERIFICATION.md. Steps 9 to 11 compare a document with the challenge that it
/// answers, and of a policy 12.8 and 12.9 (channel and max_age) are about a connection: only the client that connects has
/// both, and `cloister verify` checks them.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VerifyDocument {
    /// The document
    file: PathBuf,
    /// Also require this policy; its root is then the trust anchor instead of AWS's
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The time to judge the document at: its own if that is past, now, or an RFC 3339 time. A policy is always judged now
    #[arg(long, value_name = "document|now|RFC3339", default_value = "now")]
    at: When,
    #[command(flatten)]
    detail: Detail,
}

const EXAMPLES: &str = "\
Examples:
  cloister verify-document doc.cose --policy policy.toml
  cloister verify-document old.cose --at document -v
  cloister verify-document old.cose --at 2025-12-25T13:16:00Z";

/// The time to judge at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    /// That of the document, which is not in the future.
    Document,
    /// That of this machine.
    Now,
    /// A chosen one.
    Instant(Timestamp),
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "document" => Ok(Self::Document),
            "now" => Ok(Self::Now),
            time => Timestamp::parse_rfc3339(time)
                .map(Self::Instant)
                .map_err(|_| "write document, now, or a time such as 2026-11-22T12:00:00Z".to_owned()),
        }
    }
}

impl From<When> for At<Archival> {
    fn from(when: When) -> Self {
        match when {
            When::Document => Self::document_until(Timestamp::now()),
            When::Now => Self::instant(Timestamp::now()),
            When::Instant(time) => Self::instant(time),
        }
    }
}

impl VerifyDocument {
    pub(crate) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        output.detail(self.detail);
        let policy = self.policy.as_ref().map(load_policy).transpose()?;
        let bytes = files::read(&self.file)?;
        output.set("policy", if policy.is_some() { "applied" } else { "none" });

        let aws = Root::aws_nitro_g1();
        let root = policy.as_ref().map_or(&aws, |policy| policy.root());
        let document = UnverifiedDocument::parse(&bytes)?.authenticate(root, self.at.into())?;
        output.simulated(document.simulated());
        describe(&document, output);
        let simulated = label(document.simulated());
        match policy {
            Some(policy) => {
                let accepted = document.require(&policy, Timestamp::now())?;
                show_steps(accepted.document().steps(), output);
                output.set("release", accepted.release());
                let verdict =
                    format!("\n{simulated}AUTHENTIC, and the policy accepts it: release {}", accepted.release());
                output.line(wrapped("", &verdict));
            }
            None => {
                show_steps(document.steps(), output);
                output.line(NO_POLICY);
            }
        }
        output.set("verified", true);
        Ok(())
    }
}

/// The steps of a document alone, and in their place those that were not asked, so that nobody takes it for an answer.
pub(crate) fn show_steps(steps: &[StepReport], output: &mut Output) {
    let (before, policy) = steps.split_at(steps.partition_point(|report| report.step < Step::Nonce));
    let mut not_asked = Vec::new();
    for (passed, (numbers, reason)) in
        [before, policy].into_iter().zip(NOT_ASKED).filter(|(passed, _)| !passed.is_empty())
    {
        output.steps(passed);
        output.line(format!("  {numbers:<7} not asked: {reason}"));
        not_asked.push(numbers);
    }
    output.set("not_asked", not_asked);
}

/// What only a client can check that connects, and why.
const NOT_ASKED: [(&str, &str); 2] = [
    ("9-11", "they compare with the challenge, which its sender has"),
    ("12.8-9", "channel and max_age are about the connection of a client"),
];

const NO_POLICY: &str = "\n\
    AUTHENTIC and not in debug mode. NO POLICY WAS APPLIED: this says nothing about\n\
    which program it is.";

fn describe(document: &AuthenticDocument<Archival>, output: &mut Output) {
    let (module_id, region, time) = (document.module_id(), document.region(), document.timestamp().to_string());
    let (id, place) = (foreign(module_id), foreign(region));
    output.line(format!("module id   {id}\nregion      {place}\ntime        {time}"));
    output.set("module_id", module_id);
    output.set("region", region);
    output.set("document_time", time);
    for (name, field) in
        [("nonce", document.nonce()), ("public_key", document.public_key()), ("user_data", document.user_data())]
    {
        describe_field(name, field, output);
    }
    describe_pcrs(document.pcrs(), output);
}

/// A field that the enclave chose: absent is not empty.
fn describe_field(name: &str, field: Option<&[u8]>, output: &mut Output) {
    let told = match field {
        None => "absent".to_owned(),
        Some([]) => "empty".to_owned(),
        Some(bytes) if output.is_verbose() => format!("{} bytes\n    {}", bytes.len(), hex::encode(bytes)),
        Some(bytes) => format!("{} bytes", bytes.len()),
    };
    output.line(format!("{name:<11} {told}"));
    output.set(name, field.map(hex::encode));
}

/// The registers into which something was measured.
fn describe_pcrs(pcrs: &Pcrs, output: &mut Output) {
    let mut object = json!({});
    for (index, value) in pcrs.iter().filter(|(_, value)| value.iter().any(|byte| *byte != 0)) {
        let value = hex::encode(value);
        output.line(format!("PCR{index:<8} {}\n    {value}", measures(index)));
        object[format!("pcr{index}")] = Value::from(value);
    }
    output.set("pcrs", object);
}

/// What is measured into a register, by AWS's documentation and ours.
fn measures(index: u8) -> &'static str {
    match index {
        0 => "the whole image",
        1 => "kernel and boot ramdisk; of a Cloister image, the program",
        2 => "the other ramdisks; of a Cloister image, the models",
        3 => "the IAM role of the parent instance",
        4 => "the id of the parent instance",
        8 => "the certificate that signed the image",
        _ => "what the enclave itself measured",
    }
}
