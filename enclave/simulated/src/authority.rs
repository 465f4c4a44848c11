//! The root of a family of simulated enclaves.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process,
    sync::Arc,
};

use cloister_attestation::{Policy, PolicyError, Root, RootError, Timestamp};
use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384};

use crate::{
    Identity, SimulatedNsm,
    chain::{self, Chain, Templates},
};

/// Key and certificate in one file, so that programs that start together agree on both. Readable by its owner only.
const KEY_FILE: &str = "root-key.pem";

/// The certificate alone, for others.
const ROOT_FILE: &str = "root.pem";

/// What clients verify with.
const POLICY_FILE: &str = "policy.toml";

/// A simulated root: its certificate and key.
#[derive(Clone, Debug)]
pub struct Authority {
    key: Arc<KeyPair>,
    root: Root,
}

impl Authority {
    /// A new root that is kept nowhere.
    pub fn ephemeral() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("P-384 is supported");
        let certificate = chain::root().self_signed(&key).expect("the parameters are constant");
        let root = Root::from_pem(&certificate.pem()).expect("the certificate was just made");
        Self { key: key.into(), root }
    }

    /// The root in the folder `dir`, made anew if there is none. Enclaves that share a folder share a root.
    ///
    /// Only the root is kept: key and certificate in `root-key.pem`, readable by its owner, the certificate in `root.pem`.
    pub fn open_or_create(dir: &Path) -> Result<Self, AuthorityError> {
        fs::create_dir_all(dir).map_err(AuthorityError::at(dir))?;
        let path = dir.join(KEY_FILE);
        if !path.exists() {
            let Self { key, root } = Self::ephemeral();
            create(&path, &(key.serialize_pem() + &root.to_pem()))?;
        }
        let text = fs::read_to_string(&path).map_err(AuthorityError::at(&path))?;
        let authority = Self::read(&text).map_err(|reason| AuthorityError::Damaged { path, reason })?;
        replace(&dir.join(ROOT_FILE), &authority.root_pem())?;
        Ok(authority)
    }

    fn read(text: &str) -> Result<Self, String> {
        let begin = text.find("-----BEGIN CERTIFICATE").ok_or("it has no certificate")?;
        let (key, certificate) = text.split_at(begin);
        let key = KeyPair::from_pem_and_sign_algo(key, &PKCS_ECDSA_P384_SHA384).map_err(|error| error.to_string())?;
        let root = Root::from_pem(certificate).map_err(|error: RootError| error.to_string())?;
        Ok(Self { key: key.into(), root })
    }

    /// The trust anchor of its enclaves.
    pub fn root(&self) -> Root {
        self.root.clone()
    }

    /// The trust anchor in PEM.
    pub fn root_pem(&self) -> String {
        self.root.to_pem()
    }

    /// A simulated enclave under this root.
    pub fn enclave(&self, identity: Identity) -> SimulatedNsm {
        SimulatedNsm::new(self.clone(), identity)
    }

    /// A chain for `identity` whose leaf lives three hours from `now`, with the leaf's key: for a signer outside of this
    /// program, such as a virtual machine's NSM.
    pub fn credentials(&self, identity: &Identity, now: Timestamp) -> Credentials {
        let chain =
            Chain::issue(self, Templates::new(identity, now)).expect("the templates are constant but for names");
        Credentials { key_pem: chain.key_pem(), cabundle: chain.cabundle, certificate: chain.certificate }
    }

    /// Writes `policy` to `policy.toml` in the folder `dir` and returns its path.
    ///
    /// A policy of this authority that is there stays as it is, and gets the releases and models that it lacks: people change
    /// it, and other enclaves share the folder.
    pub fn write_policy(&self, dir: &Path, policy: Policy) -> Result<PathBuf, AuthorityError> {
        let path = dir.join(POLICY_FILE);
        // As `cloister policy` does: whoever changes a policy keeps others from it.
        let folder = File::open(dir).map_err(AuthorityError::at(dir))?;
        folder.lock().map_err(AuthorityError::at(dir))?;
        let unusable = |source| AuthorityError::Policy { path: path.clone(), source };
        let (policy, changed) = match self.earlier_policy(&path)? {
            Some(earlier) => extended(earlier, &policy).map_err(unusable)?,
            None => (policy, true),
        };
        if changed {
            replace(&path, &policy.to_toml())?;
        }
        Ok(path)
    }

    /// The policy that is there, if it is for enclaves of this authority.
    fn earlier_policy(&self, path: &Path) -> Result<Option<Policy>, AuthorityError> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(AuthorityError::at(path))?,
        };
        let earlier =
            Policy::from_bytes(&bytes).map_err(|source| AuthorityError::Policy { path: path.into(), source })?;
        if *earlier.root() != self.root {
            return Ok(None);
        }
        if earlier.is_expired(Timestamp::now()) {
            return Err(AuthorityError::PolicyExpired { path: path.into(), expires: earlier.expires() });
        }
        Ok(Some(earlier))
    }

    pub(crate) fn key(&self) -> &KeyPair {
        &self.key
    }
}

/// What signs documents of one enclave.
pub struct Credentials {
    /// The certificates from the root to the instance's authority, DER.
    pub cabundle: Vec<Vec<u8>>,
    /// The leaf, DER.
    pub certificate: Vec<u8>,
    /// The leaf's key, PKCS #8 in PEM.
    pub key_pem: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// `earlier` with what only `policy` accepts, and whether that is anything.
fn extended(mut earlier: Policy, policy: &Policy) -> Result<(Policy, bool), PolicyError> {
    let before = earlier.digest();
    for release in policy.releases() {
        // A build stands as the earlier policy says: it may have ended, or be revoked.
        if earlier.releases().iter().all(|known| known.pcrs != release.pcrs) {
            earlier.add_release(release.clone())?;
        }
    }
    for model in policy.models() {
        if !earlier.models().contains(model) {
            earlier.add_model(model.clone())?;
        }
    }
    let changed = earlier.digest() != before;
    Ok((earlier, changed))
}

/// Writes a file for its owner only, whole or not at all. Whoever comes second leaves the first one's file.
fn create(path: &Path, text: &str) -> Result<(), AuthorityError> {
    let draft = draft(path, text, 0o600)?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft).map_err(AuthorityError::at(&draft))?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(AuthorityError::at(path)),
    }
}

/// Writes a file, whole or not at all, in place of what was there.
fn replace(path: &Path, text: &str) -> Result<(), AuthorityError> {
    let draft = draft(path, text, 0o644)?;
    fs::rename(&draft, path).map_err(AuthorityError::at(path))
}

/// Writes `text` to a file of this process beside `path`.
fn draft(path: &Path, text: &str, mode: u32) -> Result<PathBuf, AuthorityError> {
    let draft = path.with_extension(format!("{}.draft", process::id()));
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&draft);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(AuthorityError::at(&draft))?;
    Ok(draft)
}

/// An authority's folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// A file or folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what an authority wrote.
    #[error("{}: {reason}. Remove the folder to start anew", path.display())]
    Damaged {
        /// Which one.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The policy there is none, or contradicts the one to be written.
    #[error("{}: {source}. Correct it, or remove it to have a new one", path.display())]
    Policy {
        /// The policy.
        path: PathBuf,
        /// Why.
        source: PolicyError,
    },
    /// The policy there is out of date.
    #[error("{}: it expired at {expires}. Write a later time into it, or remove it to have a new one", path.display())]
    PolicyExpired {
        /// The policy.
        path: PathBuf,
        /// Its expiry.
        expires: Timestamp,
    },
}

impl AuthorityError {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, thread, time::Duration};

    use cloister_attestation::{ChannelRule, Pins, PolicyModel, Release, Sha384};

    use super::*;

    #[test]
    fn a_folder_keeps_its_root() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("authority");
        let first = Authority::open_or_create(&folder).unwrap();
        let second = Authority::open_or_create(&folder).unwrap();
        assert_eq!(first.root(), second.root());
        assert_ne!(first.root(), Authority::ephemeral().root());
        assert_eq!(fs::read_to_string(folder.join(ROOT_FILE)).unwrap(), first.root_pem());
        let mode = fs::metadata(folder.join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "no drafts are left");
    }

    #[test]
    fn programs_that_start_together_agree() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(KEY_FILE);
        create(&path, "first").unwrap();
        create(&path, "second").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
    }

    fn model(name: &str) -> PolicyModel {
        PolicyModel { name: name.to_owned(), digest: Sha384([7; 48]) }
    }

    /// What an enclave writes that serves these models.
    fn serving(authority: &Authority, models: &[&str]) -> Policy {
        let mut policy = crate::policy(authority, &[]);
        models.iter().for_each(|name| policy.add_model(model(name)).unwrap());
        policy
    }

    #[test]
    fn what_people_put_into_the_policy_stays() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::ephemeral();
        let write = |models: &[&str]| authority.write_policy(dir.path(), serving(&authority, models));
        let path = write(&["iris"]).unwrap();
        let region = Some("simulated-1".to_owned());
        let mut changed = serving(&authority, &["iris"]).with_channel(ChannelRule::Optional);
        changed = changed.with_pins(Pins { region, ..Pins::default() }).unwrap();
        changed.revoke("simulated", "leaks").unwrap();
        let text = changed.to_toml().replace("channel =", "max_age = \"90s\"  # ask Ada\nchannel =");
        fs::write(&path, &text).unwrap();

        write(&["iris"]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "nothing was lacking");
        write(&["iris", "wine"]).unwrap();
        let after = Policy::parse(&fs::read_to_string(&path).unwrap()).unwrap();
        let mut expected = Policy::parse(&text).unwrap();
        expected.add_model(model("wine")).unwrap();
        assert_eq!(after.to_toml(), expected.to_toml());
        assert_eq!(after.releases()[0].revoked.as_deref(), Some("leaks"));
    }

    #[test]
    fn a_policy_that_cannot_be_kept_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::ephemeral();
        let refused = |text: &str| {
            fs::write(dir.path().join(POLICY_FILE), text).unwrap();
            let error = authority.write_policy(dir.path(), serving(&authority, &["iris"])).unwrap_err();
            assert_eq!(fs::read_to_string(dir.path().join(POLICY_FILE)).unwrap(), text);
            error
        };
        let expired = Policy::new(Timestamp::now()).with_root(authority.root());
        assert!(matches!(refused(&expired.to_toml()), AuthorityError::PolicyExpired { .. }));
        let damaged = refused("version = 1");
        assert!(matches!(&damaged, AuthorityError::Policy { source: PolicyError::Malformed(_), .. }), "{damaged}");

        let mut old_build = Policy::new(Timestamp::now().plus(Duration::from_secs(60))).with_root(authority.root());
        let release = Release { name: "simulated".to_owned(), pcrs: [[1; 48]; 3], not_after: None, revoked: None };
        old_build.add_release(Release { revoked: Some("leaks".to_owned()), ..release.clone() }).unwrap();
        let revoked = refused(&old_build.to_toml());
        assert!(matches!(&revoked, AuthorityError::Policy { source: PolicyError::Revoked { .. }, .. }), "{revoked}");
    }

    #[test]
    fn enclaves_that_start_together_lose_no_model() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::ephemeral();
        let names: Vec<String> = (0..20).map(|index| format!("model-{index}")).collect();
        thread::scope(|scope| {
            for name in &names {
                scope.spawn(|| authority.write_policy(dir.path(), serving(&authority, &[name])).unwrap());
            }
        });
        let policy = Policy::parse(&fs::read_to_string(dir.path().join(POLICY_FILE)).unwrap()).unwrap();
        assert_eq!(policy.models().len(), names.len());
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(KEY_FILE), "no key").unwrap();
        let error = Authority::open_or_create(dir.path()).unwrap_err();
        assert!(matches!(error, AuthorityError::Damaged { .. }), "{error}");
    }
}
