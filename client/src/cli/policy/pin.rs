//! `cloister policy pin`

use std::path::PathBuf;

use clap::Args;
use cloister_attestation::{Pins, Timestamp};

use super::{Failure, Output, change, show, warn};

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
    #[arg(long, value_name = "ARN", value_parser = role, conflicts_with = "pcr3")]
    role: Option<String>,
    /// The parent instance, by its id i-…: PCR4
    #[arg(long, value_name = "ID", value_parser = instance, conflicts_with = "pcr4")]
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
        warn(&policy, Timestamp::now(), output);
        Ok(())
    }
}

/// The ARN of a role. Of a typing error there would be a PCR3 too, which nobody recognises and no enclave has.
fn role(arn: &str) -> Result<String, String> {
    match is_role(arn) {
        true => Ok(arn.to_owned()),
        false => Err("a role is its whole ARN, arn:aws:iam::123456789012:role/NAME".to_owned()),
    }
}

/// `arn:PARTITION:iam::ACCOUNT:role/NAME`; a path may stand before the name.
fn is_role(arn: &str) -> bool {
    let rest = arn.strip_prefix("arn:").unwrap_or_default();
    let (partition, rest) = rest.split_once(":iam::").unwrap_or_default();
    let (account, name) = rest.split_once(":role/").unwrap_or_default();
    let of = |text: &str, kind: fn(&u8) -> bool| !text.is_empty() && text.as_bytes().iter().all(kind);
    of(partition, |byte| matches!(byte, b'a'..=b'z' | b'-'))
        && of(account, u8::is_ascii_digit)
        && account.len() == 12
        && of(name, u8::is_ascii_graphic)
}

/// The id of an instance, and for the same reason nothing else.
fn instance(id: &str) -> Result<String, String> {
    match is_instance(id) {
        true => Ok(id.to_owned()),
        false => Err("an instance id is such as i-0827e799ec9232d44".to_owned()),
    }
}

/// `i-` and 17 digits, or 8 as older ones have.
fn is_instance(id: &str) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    id.strip_prefix("i-").is_some_and(|digits| matches!(digits.len(), 8 | 17) && digits.bytes().all(is_digit))
}

fn pcr(text: &str) -> Result<[u8; 48], String> {
    let mut pcr = [0; 48];
    hex::decode_to_slice(text, &mut pcr).map(|()| pcr).map_err(|_| "a PCR is 96 hexadecimal digits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_a_whole_arn() {
        for arn in [
            "arn:aws:iam::123456789012:role/Webserver",
            "arn:aws-us-gov:iam::123456789012:role/service-role/a+b=c,d.e@f-g_h",
        ] {
            assert_eq!(role(arn), Ok(arn.to_owned()));
        }
        for typo in [
            "",
            "Webserver",
            "arn:aws:iam::123456789012:role/",
            "arn:aws:iam::123456789012:role/Web server",
            "arn:aws:iam::12345678901:role/Webserver",
            "arn:aws:iam::12345678901x:role/Webserver",
            "arn::iam::123456789012:role/Webserver",
            "ARN:aws:iam::123456789012:role/Webserver",
            " arn:aws:iam::123456789012:role/Webserver",
            "arn:aws:iam::123456789012:instance-profile/Webserver",
            "arn:aws:sts::123456789012:assumed-role/Webserver/i-0827e799ec9232d44",
        ] {
            assert!(role(typo).unwrap_err().contains("whole ARN"), "{typo}");
        }
    }

    #[test]
    fn an_instance_id_has_8_or_17_digits() {
        for id in ["i-0827e799ec9232d44", "i-0827e799"] {
            assert_eq!(instance(id), Ok(id.to_owned()));
        }
        for typo in ["", "banana", "i-", "0827e799ec9232d44", "i-0827e799ec9232d4", "i-0827E799", "i-0827e79g"] {
            assert!(instance(typo).unwrap_err().contains("i-0827e799ec9232d44"), "{typo}");
        }
    }
}
