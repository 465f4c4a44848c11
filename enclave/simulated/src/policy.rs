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
        let model = PolicyModel { name: name.clone(), digest: *bundle };
        policy.add_model(model).expect("the names of models are fit for a path");
    }
    policy
}

#[cfg(test)]
mod tests {
    use cloister_attestation::Sha384;

    use super::*;

    fn model(name: &str, byte: u8) -> ManifestModel {
        let (bundle, description) = (Sha384([byte; 48]), Sha384([byte; 48]));
        ManifestModel { name: name.to_owned(), bundle, version: "1".to_owned(), description }
    }

    #[test]
    fn enclaves_that_share_a_folder_keep_each_others_models() {
        let folder = tempfile::tempdir().unwrap();
        let write = |authority: &Authority, models: &[ManifestModel]| {
            let path = authority.write_policy(folder.path(), policy(authority, models)).unwrap();
            Policy::parse(&std::fs::read_to_string(path).unwrap()).unwrap()
        };
        let digests = |policy: &Policy| {
            policy.models().iter().map(|model| (model.name.clone(), model.digest)).collect::<Vec<_>>()
        };
        let (ours, other) = (Authority::ephemeral(), Authority::ephemeral());
        write(&ours, &[model("iris", 1), model("wine", 2)]);
        let second = write(&ours, &[model("iris", 3)]);
        assert_eq!(digests(&second), [("iris".to_owned(), Sha384([3; 48])), ("wine".to_owned(), Sha384([2; 48]))]);
        assert_eq!(digests(&write(&other, &[model("iris", 4)])), [("iris".to_owned(), Sha384([4; 48]))]);
    }

    #[test]
    fn the_policy_survives_its_file() {
        let authority = Authority::ephemeral();
        let policy = policy(&authority, &[model("iris", 1)]);
        let read = Policy::parse(&policy.to_toml()).unwrap();
        assert_eq!(read.root(), &authority.root());
        assert!(read.root().is_simulated());
        assert_eq!(read.releases(), policy.releases());
        assert_eq!(read.models(), policy.models());
        assert_eq!(read.digest(), policy.digest());
    }
}
