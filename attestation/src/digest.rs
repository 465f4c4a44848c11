//! SHA-384 digests, by which models, messages and statements are named.

use std::{fmt, str::FromStr};

use aws_lc_rs::digest::{SHA384, SHA384_OUTPUT_LEN, digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::cbor::Bytes;

/// How a digest begins wherever people read it.
const PREFIX: &str = "sha384:";

/// A SHA-384 digest (FIPS 180-4): `sha384:<96 hex digits>` as text, a 48-byte string in CBOR.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha384(pub [u8; SHA384_OUTPUT_LEN]);

impl Sha384 {
    /// Hashes `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut output = [0; SHA384_OUTPUT_LEN];
        output.copy_from_slice(digest(&SHA384, bytes).as_ref());
        Self(output)
    }
}

impl fmt::Display for Sha384 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", hex::encode(self.0))
    }
}

impl fmt::Debug for Sha384 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha384 {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let hex = text.strip_prefix(PREFIX).ok_or(ParseDigestError)?;
        let mut output = [0; SHA384_OUTPUT_LEN];
        hex::decode_to_slice(hex, &mut output).map_err(|_| ParseDigestError)?;
        Ok(Self(output))
    }
}

/// A text is not a [`Sha384`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest is written sha384: followed by 96 hexadecimal digits")]
pub struct ParseDigestError;

impl Serialize for Sha384 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Sha384 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Bytes(bytes) = Bytes::deserialize(deserializer)?;
        let length = bytes.len();
        bytes.try_into().map(Self).map_err(|_| de::Error::invalid_length(length, &"48 bytes of SHA-384"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4, the example message "abc".
    const ABC: &str = "sha384:cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed\
                       8086072ba1e7cc2358baeca134c825a7";

    #[test]
    fn text_round_trips() {
        assert_eq!(Sha384::of(b"abc").to_string(), ABC);
        assert_eq!(ABC.parse(), Ok(Sha384::of(b"abc")));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "sha384:", &ABC[7..], &ABC[..ABC.len() - 1], "sha256:00", &format!("{ABC}0")] {
            assert_eq!(text.parse::<Sha384>(), Err(ParseDigestError), "{text}");
        }
    }
}
