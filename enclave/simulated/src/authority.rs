//! The root of a family of simulated enclaves.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    process,
};

use cloister_attestation::{Policy, Root, RootError};
use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384};

use crate::{Identity, SimulatedNsm, chain};

/// Key and certificate in one file, so that enclaves that start together agree on both. Readable by its owner only.
const KEY_FILE: &str = "root-key.pem";

/// The certificate alone, for others.
const ROOT_FILE: &str = "root.pem";

/// What a client verifies with.
const POLICY_FILE: &str = "policy.toml";

/// A simulated root: its certificate and key.
#[derive(Debug)]
pub struct Authority {
    key: KeyPair,
    root: Root,
    certificate: Vec<u8>,
}

impl Authority {
    /// A new root that lives as long as this value.
    pub fn ephemeral() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("P-384 is supported");
        let certificate = chain::root().self_signed(&key).expect("constant parameters");
        Self::assemble(key, &certificate.pem()).expect("a certificate just made")
    }

    /// The root in the folder `dir`, made anew if there is none. Enclaves that share a folder share a root.
    ///
    /// Only the root is kept: key and certificate in `root-key.pem`, readable by its owner, the certificate in `root.pem`.
    pub fn open_or_create(dir: &Path) -> Result<Self, AuthorityError> {
        fs::create_dir_all(dir).map_err(AuthorityError::at(dir))?;
        let path = dir.join(KEY_FILE);
        if !path.exists() {
            let Self { key, root, .. } = Self::ephemeral();
            create(&path, &(key.serialize_pem() + &root.to_pem()))?;
        }
        let text = fs::read_to_string(&path).map_err(AuthorityError::at(&path))?;
        let authority = Self::read(&text, &path)?;
        replace(&dir.join(ROOT_FILE), &authority.root_pem())?;
        Ok(authority)
    }

    fn read(text: &str, path: &Path) -> Result<Self, AuthorityError> {
        let damaged = |reason: String| AuthorityError::Damaged { path: path.to_owned(), reason };
        let begin = text.find("-----BEGIN CERTIFICATE").ok_or_else(|| damaged("no certificate".to_owned()))?;
        let (key, certificate) = text.split_at(begin);
        let key = KeyPair::from_pem(key).map_err(|error| damaged(error.to_string()))?;
        if !key.is_compatible(&PKCS_ECDSA_P384_SHA384) {
            return Err(damaged("the key is not of P-384".to_owned()));
        }
        Self::assemble(key, certificate).map_err(|error| damaged(error.to_string()))
    }

    fn assemble(key: KeyPair, pem: &str) -> Result<Self, RootError> {
        let root = Root::from_pem(pem)?;
        let certificate = root.as_der().to_vec();
        Ok(Self { key, root, certificate })
    }

    /// The trust anchor of its enclaves.
    pub fn root(&self) -> Root {
        self.root.clone()
    }

    /// The trust anchor in PEM.
    pub fn root_pem(&self) -> String {
        self.root.to_pem()
    }

    /// A simulated enclave with documents under this root.
    pub fn enclave(&self, identity: Identity) -> SimulatedNsm {
        SimulatedNsm::new(self.duplicate(), identity)
    }

    /// Writes `policy` to `policy.toml` in the folder `dir`, in place of what was there, and returns its path.
    pub fn write_policy(&self, dir: &Path, policy: &Policy) -> Result<PathBuf, AuthorityError> {
        let path = dir.join(POLICY_FILE);
        replace(&path, &policy.to_toml())?;
        Ok(path)
    }
}
