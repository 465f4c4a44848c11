//! `cloister policy pin`

use std::path::PathBuf;

use clap::Args;
use cloister_attestation::Pins;

use super::{Failure, Output, change, show};

/// Accept only enclaves that run in a given place, by whomever may start them there
///
/// Without pins, the parent may divert a client to any genuine enclave of an accepted release. Pins that are not given stay
/// as they are; to remove one, edit the file.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Pin {
    /// The policy file to change
    file: PathBuf,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Place {
    /// The IAM role of the parent instance, by its ARN: PCR3
    #[arg(long, value_name = "ARN", conflicts_with = "pcr3")]
    role: Option<String>,
    /// The parent instance, by its id i-…: PCR4
    #[arg(long, value_name = "ID", conflicts_with = "pcr4")]
    instance_id: Option<String>,
    /// PCR3, the IAM role of the parent instance
    #[arg(long, value_name = "HEX", value_parser = pcr)]
    pcr3: Option<[u8; 48]>,
    /// PCR4, the parent instance
    #[arg(long, value_name = "HEX", value_parser = pcr)]
    pcr4: Option<[u8; 48]>,
    /// PCR8, the certificate that signed the image
    #[arg(long, value_name = "HEX", value_parser = pcr)]
    pcr8: Option<[u8; 48]>,
    /// One enclave, i-…-enc…
    #[arg(long, value_name = "ID")]
    module_id: Option<String>,
    /// An AWS region
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  cloister policy pin policy.toml --region eu-west-1
  cloister policy pin policy.toml --role arn:aws:iam::123456789012:role/Evaluator
  cloister policy pin policy.toml --instance-id i-0827e799ec9232d44";

impl Pin {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let Self { file, place } = self;
        let Place { role, instance_id, pcr3, pcr4, pcr8, module_id, region } = place;
        let pin = |policy: cloister_attestation::Policy| {
            let known = policy.pins().clone();
            policy.with_pins(Pins {
                pcr3: role.as_deref().map(Pins::pcr3_of_role).or(*pcr3).or(known.pcr3),
                pcr4: instance_id.as_deref().map(Pins::pcr4_of_instance).or(*pcr4).or(known.pcr4),
                pcr8: pcr8.or(known.pcr8),
                module_id: module_id.clone().or(known.module_id),
                region: region.clone().or(known.region),
            })
        };
        let (policy, _) = change(file, pin, output)?;
        show::show(&policy, output);
        Ok(())
    }
}

fn pcr(text: &str) -> Result<[u8; 48], String> {
    let mut pcr = [0; 48];
    hex::decode_to_slice(text, &mut pcr).map(|()| pcr).map_err(|_| "a PCR is 96 hexadecimal digits".to_owned())
}
