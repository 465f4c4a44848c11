//! `cloister verify-document`

use std::{path::PathBuf, str::FromStr};

use clap::Args;
use cloister_attestation::{Archival, At, AuthenticDocument, Root, Timestamp, UnverifiedDocument};
use serde_json::Value;

use super::{
    failure::Failure,
    load_policy,
    output::{Output, label},
};

/// Verify an attestation document in a file: raw COSE_Sign1, as the NSM returns it
#[derive(Debug, Args)]
pub(crate) struct VerifyDocument {
    /// The document
    file: PathBuf,
    /// Also require this policy; its root is then the trust anchor instead of AWS's
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The time to judge the document at: its own, now, or an RFC 3339 time
    #[arg(long, value_name = "document|now|RFC3339", default_value = "now")]
    at: When,
}

#[derive(Clone, Copy, Debug)]
enum When {
    Document,
    Now,
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

impl VerifyDocument {
    pub(crate) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let policy = self.policy.as_ref().map(load_policy).transpose()?;
        let bytes = std::fs::read(&self.file).map_err(|error| Failure::file(&self.file, &error))?;
        output.set("verified", false);

        let aws = Root::aws_nitro_g1();
        let root = policy.as_ref().map_or(&aws, |policy| policy.root());
        let at = match self.at {
            When::Document => At::<Archival>::document(),
            When::Now => At::<Archival>::instant(Timestamp::now()),
            When::Instant(time) => At::<Archival>::instant(time),
        };
        let document = UnverifiedDocument::parse(&bytes)?.authenticate(root, at)?;
        output.simulated(document.simulated());
        describe(&document, output);
        output.steps(document.steps());
        let simulated = label(document.simulated());
        match policy {
            Some(policy) => {
                let accepted = document.require(&policy, Timestamp::now())?;
                output.set("release", accepted.release());
                output.set("policy", "applied");
                output
                    .line(format!("\n{simulated}AUTHENTIC, and the policy accepts it: release {}", accepted.release()));
            }
            None => {
                output.set("policy", "none");
                output.line("\nAUTHENTIC and not in debug mode. NO POLICY WAS APPLIED: this says nothing about which program it is.");
            }
        }
        output.set("verified", true);
        Ok(())
    }
}

fn describe(document: &AuthenticDocument<Archival>, output: &mut Output) {
    output.set("module_id", document.module_id());
    output.set("document_time", document.timestamp().to_string());
    output.line(format!("module id  {}\ntime       {}", document.module_id(), document.timestamp()));
    let pcrs = document.pcrs().iter().filter(|(_, value)| value.iter().any(|byte| *byte != 0));
    let pcrs: Vec<(String, String)> = pcrs.map(|(index, value)| (format!("pcr{index}"), hex::encode(value))).collect();
    for (name, value) in &pcrs {
        output.line(format!("{name:<10} {value}"));
    }
    output.set("pcrs", pcrs.into_iter().map(|(name, value)| (name, Value::from(value))).collect::<Value>());
}
