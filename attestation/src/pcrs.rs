//! Platform configuration registers: what was measured.

use std::{collections::BTreeMap, fmt, str::FromStr};

/// The highest index an NSM has.
pub(crate) const MAX_INDEX: u8 = 31;

/// The registers that name a program: the image, its kernel with the first ramdisk, the other ramdisks.
pub(crate) const MEASURED: [u8; 3] = [0, 1, 2];

/// One SHA-384 register; 96 hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pcr(pub [u8; 48]);

impl Pcr {
    /// Whether nothing was measured into the register, or the enclave runs in debug mode.
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 48]
    }
}

impl fmt::Display for Pcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Pcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Pcr {
    type Err = ParsePcrError;

    fn from_str(text: &str) -> Result<Self, ParsePcrError> {
        let mut value = [0; 48];
        hex::decode_to_slice(text, &mut value).map_err(|_| ParsePcrError(text.to_owned()))?;
        Ok(Self(value))
    }
}

/// A text is not a [`Pcr`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a PCR: 96 hexadecimal digits")]
pub struct ParsePcrError(String);

/// The registers of a document, by index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pcrs(BTreeMap<u8, Pcr>);

impl Pcrs {
    /// The 48 bytes of register `index`, if the document has it.
    pub fn get(&self, index: u8) -> Option<&[u8]> {
        self.register(index).map(|pcr| pcr.0.as_slice())
    }

    /// All registers of the document, by ascending index.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        self.0.iter().map(|(&index, pcr)| (index, pcr.0.as_slice()))
    }

    pub(crate) fn register(&self, index: u8) -> Option<&Pcr> {
        self.0.get(&index)
    }
}

impl FromIterator<(u8, Pcr)> for Pcrs {
    fn from_iter<I: IntoIterator<Item = (u8, Pcr)>>(registers: I) -> Self {
        Self(registers.into_iter().collect())
    }
}
