//! Deterministic CBOR (RFC 8949 §4.2.1), the encoding of every format of ours.
//!
//! Structs declare their fields in the order of their encoded keys, shorter first and then lexicographic. Decoding accepts
//! only what encoding would have written: that one comparison refuses duplicate keys, non-minimal and indefinite lengths,
//! tags, text for bytes, and trailing bytes.

use std::{fmt, io};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Visitor},
};

use crate::foreign::foreign;

/// The one version of every format so far, under the key `v`.
pub(crate) const VERSION: u64 = 1;

/// A format of ours: its name for people, and the most bytes that are looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    pub(crate) name: &'static str,
    pub(crate) limit: usize,
}

impl Format {
    pub(crate) fn decode<T: Serialize + DeserializeOwned>(self, bytes: &[u8]) -> Result<T, FormatError> {
        let Self { name, limit } = self;
        if bytes.len() > limit {
            return Err(FormatError::TooLarge { format: name, limit, actual: bytes.len() });
        }
        self.check_version(bytes)?;
        let value = ciborium::from_reader(bytes).map_err(|error| self.unreadable(error))?;
        if encode(&value) != bytes {
            return Err(FormatError::NotDeterministic { format: name });
        }
        Ok(value)
    }

    /// Before anything else, since a newer format may have keys that this version does not know.
    fn check_version(self, bytes: &[u8]) -> Result<(), FormatError> {
        #[derive(Deserialize)]
        struct Versioned {
            v: u64,
        }
        match ciborium::from_reader(bytes).map_err(|error| self.unreadable(error))? {
            Versioned { v: VERSION } => Ok(()),
            Versioned { v } => Err(FormatError::Newer { format: self.name, version: v }),
        }
    }

    fn unreadable(self, error: ciborium::de::Error<io::Error>) -> FormatError {
        use ciborium::de::Error::{Io, RecursionLimitExceeded, Semantic, Syntax};
        match error {
            Io(_) => self.malformed("it ends too early"),
            Syntax(place) => self.malformed(format_args!("no CBOR at byte {place}")),
            Semantic(_, reason) => self.malformed(reason),
            RecursionLimitExceeded => self.malformed("it is nested too deeply"),
        }
    }

    pub(crate) fn malformed(self, reason: impl fmt::Display) -> FormatError {
        FormatError::Malformed { format: self.name, reason: foreign(&reason.to_string()) }
    }
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes)
        .expect("a Vec takes every byte and our types serialise without conditions");
    bytes
}

/// Bytes are not one of our formats.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// More bytes than the format allows.
    #[error("the {format} has {actual} bytes, at most {limit} are allowed")]
    TooLarge {
        /// The format's name.
        format: &'static str,
        /// The most bytes allowed.
        limit: usize,
        /// The bytes found.
        actual: usize,
    },
    /// A version that this program does not know.
    #[error(
        "the {format} has format version {version}, this program knows version 1: made by a newer Cloister: update"
    )]
    Newer {
        /// The format's name.
        format: &'static str,
        /// The version found.
        version: u64,
    },
    /// Not the format at all, or a value that it does not allow.
    #[error("the {format} is malformed: {reason}")]
    Malformed {
        /// The format's name.
        format: &'static str,
        /// What was found.
        reason: String,
    },
    /// Readable, yet not the one encoding that the content has.
    #[error("the {format} is not deterministic CBOR (RFC 8949 §4.2.1), or has trailing bytes")]
    NotDeterministic {
        /// The format's name.
        format: &'static str,
    },
}

impl FormatError {
    /// A stable identifier for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::Newer { .. } => "newer_version",
            Self::Malformed { .. } => "malformed",
            Self::NotDeterministic { .. } => "not_deterministic",
        }
    }

    /// What a person does about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Newer { .. } => "Update Cloister on this machine.".to_owned(),
            Self::TooLarge { format, .. } | Self::Malformed { format, .. } | Self::NotDeterministic { format } => {
                format!("Ask for the {format} again; if it stays so, something between you and the enclave changes it.")
            }
        }
    }
}

/// A CBOR byte string; serde would write `Vec<u8>` as an array of integers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ByteString;

        impl Visitor<'_> for ByteString {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a byte string")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }
        }

        deserializer.deserialize_byte_buf(ByteString)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: Format = Format { name: "sample", limit: 16 };

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        v: u64,
        bytes: Bytes,
    }

    /// {"v": 1, "bytes": h'07'}
    const VALID: &[u8] = b"\xa2\x61v\x01\x65bytes\x41\x07";

    #[test]
    fn the_one_encoding_is_read() {
        let sample = Sample { v: 1, bytes: Bytes(vec![7]) };
        assert_eq!(encode(&sample), VALID);
        assert_eq!(SAMPLE.decode(VALID), Ok(sample));
    }

    #[test]
    fn every_other_encoding_is_refused() {
        let cases: [(&str, &[u8], &str); 10] = [
            ("trailing byte", b"\xa2\x61v\x01\x65bytes\x41\x07\x00", "not_deterministic"),
            ("non-minimal integer", b"\xa2\x61v\x18\x01\x65bytes\x41\x07", "not_deterministic"),
            ("indefinite map", b"\xbf\x61v\x01\x65bytes\x41\x07\xff", "not_deterministic"),
            ("chunked bytes", b"\xa2\x61v\x01\x65bytes\x5f\x41\x07\xff", "not_deterministic"),
            ("keys out of order", b"\xa2\x65bytes\x41\x07\x61v\x01", "not_deterministic"),
            ("tag", b"\xa2\x61v\xc1\x01\x65bytes\x41\x07", "not_deterministic"),
            ("duplicate key", b"\xa3\x61v\x01\x61v\x01\x65bytes\x41\x07", "malformed"),
            ("text for bytes", b"\xa2\x61v\x01\x65bytes\x61\x07", "malformed"),
            ("array for bytes", b"\xa2\x61v\x01\x65bytes\x81\x07", "malformed"),
            ("missing key", b"\xa1\x61v\x01", "malformed"),
        ];
        for (name, bytes, code) in cases {
            assert_eq!(SAMPLE.decode::<Sample>(bytes).unwrap_err().code(), code, "{name}");
        }
        assert_eq!(SAMPLE.decode::<Sample>(&[0; 17]).unwrap_err().code(), "too_large");
    }

    #[test]
    fn a_newer_version_is_named_before_its_unknown_keys() {
        let error = SAMPLE.decode::<Sample>(b"\xa2\x61v\x02\x63new\x00").unwrap_err();
        assert_eq!(error, FormatError::Newer { format: "sample", version: 2 });
        assert!(error.to_string().ends_with("made by a newer Cloister: update"));
    }
}
