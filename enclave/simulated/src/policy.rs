//! The policy that accepts simulated enclaves.

use std::time::Duration;

use cloister_attestation::{ManifestModel, Policy, PolicyModel, Release, Timestamp};

use crate::{Authority, Identity};

/// The one release that simulated enclaves run.
const RELEASE: &str = "simulated";

/// How long a simulated policy is in force.
const LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Accepts the simulated enclaves of `authority` for 30 days, with `models`.
pub fn policy(authority: &Authority, models: &[ManifestModel]) -> Policy {
    let mut policy = Policy::new(Timestamp::now().plus(LIFE)).with_root(authority.root());
    let release = Release { name: RELEASE.to_owned(), pcrs: Identity::measurements(), not_after: None, revoked: None };
    policy.add_release(release).expect("the measurements are no zeros");
    for ManifestModel { name, bundle, version: _, description: _ } in models {
        policy.add_model(PolicyModel { name: name.clone(), digest: *bundle });
    }
    policy
}

#[cfg(test)]
mod tests {
    use cloister_attestation::Sha384;

    use super::*;

    #[test]
    fn the_policy_survives_its_file() {
        let authority = Authority::ephemeral();
        let model = ManifestModel {
            name: "iris".to_owned(),
            bundle: Sha384([1; 48]),
            version: "1".to_owned(),
            description: Sha384([2; 48]),
        };
        let policy = policy(&authority, &[model]);
        let read = Policy::parse(&policy.to_toml()).unwrap();
        assert_eq!(read.root(), &authority.root());
        assert!(read.root().is_simulated());
        assert_eq!(read.releases(), policy.releases());
        assert_eq!(read.models(), policy.models());
        assert_eq!(read.digest(), policy.digest());
    }
}
