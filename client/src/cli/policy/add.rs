//! `cloister policy add`

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use cloister_attestation::{PolicyModel, Release, Sha384, Timestamp};
use cloister_inference::Bundle;

use super::{Failure, Output, change, files, rfc3339, show, warn};
use crate::cli::{measurements, output::foreign};

/// Accept a release, a model, or both
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, group(ArgGroup::new("accepted").required(true).multiple(true)))]
pub(crate) struct Add {
    /// The policy file to change
    file: PathBuf,
    /// measurements.json of a release, or what nitro-cli build-enclave, describe-eif or describe-enclaves prints
    #[arg(long, value_name = "FILE", group = "accepted", requires = "name")]
    measurements: Option<PathBuf>,
    /// Name of the release
    #[arg(long, value_name = "RELEASE", requires = "measurements")]
    name: Option<String>,
    /// Last time that documents of this release are accepted
    #[arg(long, value_name = "RFC3339", value_parser = rfc3339, requires = "measurements")]
    not_after: Option<Timestamp>,
    /// A bundle whose digest to accept under the name in it, in place of any other digest: a policy has one for each name
    #[arg(long, value_name = "FILE", group = "accepted")]
    model: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  cloister policy add policy.toml --measurements measurements.json --name 1.2.0
  cloister policy add policy.toml --model iris.cloister
  nitro-cli describe-eif --eif-path image.eif > image.json
  cloister policy add policy.toml --measurements image.json --name 1.2.0 \\
      --not-after 2027-01-31T00:00:00Z";

impl Add {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let (release, model) = (self.release()?, self.model()?);
        let mut replaced = None;
        let add = |mut policy: cloister_attestation::Policy| {
            if let Some(PolicyModel { name, digest }) = &model {
                let before = policy.models().iter().find(|known| known.name == *name && known.digest != *digest);
                replaced = before.map(|known| (name.clone(), known.digest));
            }
            release.map_or(Ok(()), |release| policy.add_release(release))?;
            model.map_or(Ok(()), |model| policy.add_model(model))?;
            Ok(policy)
        };
        let (policy, _) = change(&self.file, add, output)?;
        if let Some((name, digest)) = replaced {
            output.note(format!("model {}: no longer accepted is {digest}", foreign(&name)));
        }
        show::show(&policy, output);
        warn(&policy, Timestamp::now(), output);
        Ok(())
    }

    fn release(&self) -> Result<Option<Release>, Failure> {
        let (Some(path), Some(name)) = (&self.measurements, &self.name) else { return Ok(None) };
        let pcrs = measurements::read(path)?;
        Ok(Some(Release { name: name.clone(), pcrs, not_after: self.not_after, revoked: None }))
    }

    fn model(&self) -> Result<Option<PolicyModel>, Failure> {
        let Some(path) = &self.model else { return Ok(None) };
        let bundle = Bundle::from_bytes(&files::read(path)?).map_err(|error| Failure::bundle(path, &error))?;
        Ok(Some(PolicyModel { name: bundle.name().to_owned(), digest: Sha384(bundle.digest()) }))
    }
}
