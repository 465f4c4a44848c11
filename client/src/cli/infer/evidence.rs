//! Where evidence goes: one file for each attestation.

use std::path::{Path, PathBuf};

use cloister_attestation::Evidence;

use super::{Failure, Output};

/// `FILE`, `FILE.2`, `FILE.3` …
#[derive(Debug)]
pub(crate) struct EvidenceFiles {
    path: Option<PathBuf>,
    next: usize,
    /// Whether what an earlier run wrote is still needed.
    keep: bool,
    /// Pieces of evidence so far, whether they were to be written or not.
    pub(super) pieces: u64,
    /// Files that were written.
    pub(super) written: Vec<PathBuf>,
}

impl EvidenceFiles {
    pub(crate) fn new(path: Option<&Path>, keep: bool) -> Self {
        Self { path: path.map(Path::to_owned), next: 1, keep, pieces: 0, written: Vec::new() }
    }

    pub(crate) fn write(&mut self, evidence: &Evidence, output: &Output) -> Result<(), Failure> {
        self.pieces += 1;
        let Some(path) = self.free() else { return Ok(()) };
        std::fs::write(&path, evidence.to_cbor()).map_err(|error| Failure::file(&path, &error))?;
        output.note(format!("evidence: {}", path.display()));
        self.written.push(path);
        Ok(())
    }

    fn free(&mut self) -> Option<PathBuf> {
        loop {
            let mut name = self.path.clone()?.into_os_string();
            if self.next > 1 {
                name.push(format!(".{}", self.next));
            }
            self.next += 1;
            let path = PathBuf::from(name);
            // An empty file is one that was opened only to see whether it can be written.
            if !self.keep || std::fs::metadata(&path).map_or(0, |metadata| metadata.len()) == 0 {
                return Some(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, content) in [("e", "1"), ("e.2", "2"), ("e.3", ""), ("e.4", "4")] {
            std::fs::write(path(name), content).unwrap();
        }
        let free = |keep| {
            let mut files = EvidenceFiles::new(Some(&path("e")), keep);
            [files.free().unwrap(), files.free().unwrap()]
        };
        assert_eq!(free(false), [path("e"), path("e.2")]);
        assert_eq!(free(true), [path("e.3"), path("e.5")]);
        assert_eq!(EvidenceFiles::new(None, true).free(), None);
    }
}
