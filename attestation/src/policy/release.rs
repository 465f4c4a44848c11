//! Releases: the builds that a policy names.

use std::fmt;

use super::PolicyError;
use crate::{
    Timestamp,
    pcrs::{MEASURED, Pcrs, ZERO},
};

/// A build that is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Its name, for people.
    pub name: String,
    /// PCR0, 1 and 2 as its publisher gives them.
    pub pcrs: [[u8; 48]; 3],
    /// The last moment whose documents are accepted.
    pub not_after: Option<Timestamp>,
    /// Why it is refused for good, if it is.
    pub revoked: Option<String>,
}

impl Release {
    /// Requires a name, and that no register is all zeros, which any enclave in debug mode shows.
    pub(super) fn check(&self) -> Result<(), PolicyError> {
        if self.name.is_empty() {
            return Err(PolicyError::EmptyName { what: "release" });
        }
        for (index, pcr) in MEASURED.into_iter().zip(&self.pcrs) {
            if *pcr == ZERO {
                return Err(PolicyError::ZeroPcr { release: self.name.clone(), index });
            }
        }
        Ok(())
    }

    /// How near it is to `pcrs`: by the registers they share, and if all are, by whether it decides.
    pub(super) fn rank(&self, pcrs: &Pcrs, document: Timestamp) -> (usize, bool, bool) {
        let registers = MEASURED.into_iter().zip(&self.pcrs);
        let shared = registers.filter(|(index, pcr)| pcrs.register(*index) == Some(pcr)).count();
        let same = shared == MEASURED.len();
        let open = self.not_after.is_none_or(|not_after| document <= not_after);
        (shared, same && self.revoked.is_some(), same && open)
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PCR0 {}… = release {}", hex::encode(&self.pcrs[0][..4]), self.name)
    }
}
