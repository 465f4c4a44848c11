//! Certificates that passed path validation before.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{Root, Sha384, certificates::Certificates, payload::Payload};

/// Remembers the certificates of the enclaves that were seen last, so that their next document costs one signature and not
/// five: a leaf lives for three hours, and a busy verifier sees it often.
///
/// Only certificates whose signatures were all verified get in, found again by the digest of every byte of them and of the
/// root. A hit never outlives them: their validity is compared with each document's time anew. The default keeps 64.
pub struct CertificateCache {
    capacity: usize,
    /// The most recently used first.
    entries: Mutex<VecDeque<(Sha384, Arc<Certificates>)>>,
}

impl CertificateCache {
    /// Keeps the certificates of at most `capacity` enclaves, about 1 KiB each; of none if it is 0.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, entries: Mutex::default() }
    }

    /// How many enclaves' certificates it holds.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The certificates of `payload`, if they were verified under `root`.
    pub(crate) fn find(&self, root: &Root, payload: &Payload) -> Option<Arc<Certificates>> {
        if self.is_empty() {
            return None;
        }
        let digest = digest(root, payload);
        let mut entries = self.entries();
        let place = entries.iter().position(|(known, _)| *known == digest)?;
        let entry = entries.remove(place)?;
        entries.push_front(entry.clone());
        Some(entry.1)
    }

    /// Keeps `certificates`, which passed validation under `root`.
    pub(crate) fn insert(&self, root: &Root, payload: &Payload, certificates: &Arc<Certificates>) {
        if self.capacity == 0 {
            return;
        }
        let digest = digest(root, payload);
        let mut entries = self.entries();
        // Somebody else may have verified the same ones meanwhile.
        entries.retain(|(known, _)| *known != digest);
        entries.truncate(self.capacity - 1);
        entries.push_front((digest, certificates.clone()));
    }

    /// No code panics while it holds the lock, and an entry is whole at any time.
    fn entries(&self) -> MutexGuard<'_, VecDeque<(Sha384, Arc<Certificates>)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for CertificateCache {
    fn default() -> Self {
        Self::new(64)
    }
}

impl fmt::Debug for CertificateCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (capacity, len) = (self.capacity, self.len());
        f.debug_struct("CertificateCache").field("capacity", &capacity).field("len", &len).finish()
    }
}

/// Of the root and every certificate, each with its length in front.
fn digest(root: &Root, payload: &Payload) -> Sha384 {
    let mut bytes = Vec::new();
    let bundle = payload.cabundle.iter().map(Vec::as_slice);
    for certificate in [root.der()].into_iter().chain(bundle).chain([payload.certificate.as_slice()]) {
        bytes.extend_from_slice(&(certificate.len() as u64).to_be_bytes());
        bytes.extend_from_slice(certificate);
    }
    Sha384::of(&bytes)
}
