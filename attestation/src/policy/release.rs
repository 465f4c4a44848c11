//! Releases: the builds that a policy names.

use std::fmt;

use super::{
    PolicyError,
    text::{check_name, check_reason},
};
use crate::{
    Timestamp,
    pcrs::{MEASURED, Pcrs, ZERO},
};

/// A build that is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Its name, for people: at most 128 visible characters.
    pub name: String,
    /// PCR0, 1 and 2 as its publisher gives them.
    pub pcrs: [[u8; 48]; 3],
    /// The last moment whose documents are accepted.
    pub not_after: Option<Timestamp>,
    /// Why it is refused for good, if it is.
    pub revoked: Option<String>,
}

/// How a release stands at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// Documents that are made then are accepted.
    Open,
    /// Documents that are made then are refused, earlier ones accepted.
    Ended {
        /// The last moment whose documents are accepted.
        not_after: Timestamp,
    },
    /// Every document is refused, because of this entry or another one of the same build.
    Revoked {
        /// Why.
        reason: &'a str,
    },
}

impl Release {
    /// Requires a name, and that no register is all zeros, which any enclave in debug mode shows.
    pub(super) fn check(&self) -> Result<(), PolicyError> {
        let Self { name, pcrs, not_after: _, revoked } = self;
        check_name("release", name)?;
        revoked.as_deref().map_or(Ok(()), check_reason)?;
        for (index, pcr) in MEASURED.into_iter().zip(pcrs) {
            if *pcr == ZERO {
                return Err(PolicyError::ZeroPcr { release: name.clone(), index });
            }
        }
        Ok(())
    }

    /// Whether documents that are made at `time` are too late for it.
    pub(super) fn ended(&self, time: Timestamp) -> Option<Timestamp> {
        self.not_after.filter(|not_after| time > *not_after)
    }

    /// How near it is to `pcrs`: by the registers they share, and if all are, by whether it decides.
    pub(super) fn rank(&self, pcrs: &Pcrs, document: Timestamp) -> (usize, bool, bool) {
        let registers = MEASURED.into_iter().zip(&self.pcrs);
        let shared = registers.filter(|(index, pcr)| pcrs.register(*index) == Some(pcr)).count();
        let same = shared == MEASURED.len();
        (shared, same && self.revoked.is_some(), same && self.ended(document).is_none())
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PCR0 {}… = release {}", hex::encode(&self.pcrs[0][..4]), self.name)
    }
}
