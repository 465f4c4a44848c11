//! `cloister policy new`

use std::{
    fs::File,
    io::{ErrorKind, Write},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, ValueEnum};
use cloister_attestation::{ChannelRule, Policy, Timestamp};

use super::{Failure, Output, show};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Write a policy that accepts nothing yet
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct New {
    /// The policy file to write; an existing one is not overwritten
    file: PathBuf,
    /// Days until it expires: the time that a revocation takes to reach everybody
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
    expires_in: u32,
    /// Whether TLS has to end in the enclave; `optional` lets --gateway and --sagemaker be used
    #[arg(long, value_enum, default_value_t = Channel::Required)]
    channel: Channel,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Channel {
    Required,
    Optional,
}

const EXAMPLES: &str = "\
Examples:
  cloister policy new policy.toml
  cloister policy new policy.toml --expires-in 30
  cloister policy new policy.toml --channel optional";

impl New {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let channel = match self.channel {
            Channel::Required => ChannelRule::Required,
            Channel::Optional => ChannelRule::Optional,
        };
        let policy = Policy::new(Timestamp::now().plus(DAY * self.expires_in)).with_channel(channel);
        File::create_new(&self.file).and_then(|mut file| file.write_all(policy.to_toml().as_bytes())).map_err(
            |error| match error.kind() {
                ErrorKind::AlreadyExists => Failure::bad_input(
                    "file",
                    format!("{} exists, and is not overwritten", self.file.display()),
                    "Choose another name, or change the policy that is there: `cloister policy add`.",
                ),
                _ => Failure::file(&self.file, &error),
            },
        )?;
        let file = self.file.display();
        output.line(format!(
            "{file} accepts nothing yet. Next:\n  cloister policy add {file} --measurements measurements.json --name RELEASE \
             --model FILE.cloister"
        ));
        show::show(&policy, output);
        Ok(())
    }
}
