//! The root of a family of simulated enclaves.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process,
    sync::Arc,
};

use cloister_attestation::{Policy, Root, RootError};
use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384};

use crate::{Identity, SimulatedNsm, chain};

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

    /// Writes `policy` to `policy.toml` in the folder `dir` and returns its path.
    ///
    /// Models that a policy of this authority there already names are kept: another enclave shares the folder and serves them.
    pub fn write_policy(&self, dir: &Path, mut policy: Policy) -> Result<PathBuf, AuthorityError> {
        let path = dir.join(POLICY_FILE);
        let earlier = fs::read_to_string(&path).ok().and_then(|text| Policy::parse(&text).ok());
        for model in earlier.iter().filter(|earlier| *earlier.root() == self.root()).flat_map(Policy::models) {
            if policy.models().iter().all(|known| known.name != model.name) {
                policy.add_model(model.clone()).expect("a policy was read with this model");
            }
        }
        replace(&path, &policy.to_toml())?;
        Ok(path)
    }

    pub(crate) fn key(&self) -> &KeyPair {
        &self.key
    }
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
}

impl AuthorityError {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

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

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(KEY_FILE), "no key").unwrap();
        let error = Authority::open_or_create(dir.path()).unwrap_err();
        assert!(matches!(error, AuthorityError::Damaged { .. }), "{error}");
    }
}
