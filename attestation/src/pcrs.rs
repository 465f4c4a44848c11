//! Platform configuration registers: what was measured.

use std::collections::BTreeMap;

use crate::VerificationError;

/// The highest index an NSM has.
pub(crate) const MAX_INDEX: u8 = 31;

/// The registers that name a program: the image, its kernel with the first ramdisk, the other ramdisks.
pub(crate) const MEASURED: [u8; 3] = [0, 1, 2];

/// One SHA-384 register.
pub(crate) type Pcr = [u8; 48];

/// Nothing was measured into this register, or the enclave runs in debug mode.
pub(crate) const ZERO: Pcr = [0; 48];

/// The registers of a document, by index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pcrs(BTreeMap<u8, Pcr>);

impl Pcrs {
    /// The 48 bytes of register `index`, if the document has it.
    pub fn get(&self, index: u8) -> Option<&[u8]> {
        self.register(index).map(Pcr::as_slice)
    }

    /// All registers of the document, by ascending index.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        self.0.iter().map(|(&index, pcr)| (index, pcr.as_slice()))
    }

    pub(crate) fn register(&self, index: u8) -> Option<&Pcr> {
        self.0.get(&index)
    }

    /// PCR0, 1 and 2.
    pub(crate) fn measured(&self) -> Result<[Pcr; 3], VerificationError> {
        let of = |index| self.register(index).copied().ok_or(VerificationError::PcrMissing { index });
        let [pcr0, pcr1, pcr2] = MEASURED;
        Ok([of(pcr0)?, of(pcr1)?, of(pcr2)?])
    }
}

impl FromIterator<(u8, Pcr)> for Pcrs {
    fn from_iter<I: IntoIterator<Item = (u8, Pcr)>>(registers: I) -> Self {
        Self(registers.into_iter().collect())
    }
}
