//! Deterministic CBOR (RFC 8949, section 4.2.1), read strictly.
//!
//! One rule does it all: what is read must write back to the same bytes. That leaves no room for another order of keys,
//! long forms, indefinite lengths, tags, duplicates or anything after the end. Structures list their fields in the
//! order that section asks for: shorter names first, then alphabetical.

use ciborium::de;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The newest version of the formats here. Linear models are written in the first, all others in the second.
const VERSION: u64 = 2;

/// Why bytes are not the document they should be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Larger than any valid one.
    #[error("{len} bytes, where at most {max} are allowed")]
    TooLarge {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// Not CBOR, or not such a map.
    #[error("not readable: {reason}")]
    Malformed {
        /// What the reader found.
        reason: String,
    },
    /// A document of Cloister's, but another one.
    #[error("this is {actual:?}, not {expected:?}")]
    Domain {
        /// What was asked for.
        expected: &'static str,
        /// What it says it is.
        actual: String,
    },
    /// A format that this version does not know.
    #[error("format {version}, made by a newer Cloister: update (this one reads format {VERSION})")]
    Version {
        /// Its format.
        version: u64,
    },
    /// Readable, but not in the one form that is accepted.
    #[error("not deterministic CBOR: it does not write back to the same bytes")]
    NotDeterministic,
}

impl FormatError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "format_too_large",
            Self::Malformed { .. } => "format_malformed",
            Self::Domain { .. } => "format_domain",
            Self::Version { .. } => "format_version",
            Self::NotDeterministic => "format_not_deterministic",
        }
    }

    /// What a person does about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Version { .. } => "update Cloister".into(),
            Self::Domain { expected, .. } => format!("give a file that is {expected:?}"),
            _ => "get the file again from where it was made, unchanged".into(),
        }
    }
}

/// What every document starts with, whatever its version holds besides.
#[derive(Deserialize)]
struct Envelope {
    v: u64,
    domain: String,
}

/// Reads a `T` that is the document `domain`, in its only form.
pub(crate) fn read<T: Serialize + DeserializeOwned>(
    bytes: &[u8],
    domain: &'static str,
    max: usize,
) -> Result<T, FormatError> {
    if bytes.len() > max {
        return Err(FormatError::TooLarge { len: bytes.len(), max });
    }
    let envelope: Envelope = decode(bytes)?;
    if envelope.domain != domain {
        return Err(FormatError::Domain { expected: domain, actual: envelope.domain });
    }
    if !(1..=VERSION).contains(&envelope.v) {
        return Err(FormatError::Version { version: envelope.v });
    }
    let value = decode(bytes)?;
    match write(&value) == bytes {
        true => Ok(value),
        false => Err(FormatError::NotDeterministic),
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FormatError> {
    let malformed = |error: de::Error<_>| FormatError::Malformed { reason: describe(&error) };
    de::from_reader_with_recursion_limit(bytes, MAX_DEPTH).map_err(malformed)
}

/// Deeper than any document here.
const MAX_DEPTH: usize = 16;

fn describe(error: &de::Error<std::io::Error>) -> String {
    match error {
        de::Error::Io(_) => "it ends too early".into(),
        de::Error::Syntax(offset) => format!("no CBOR at byte {offset}"),
        de::Error::Semantic(_, reason) => reason.escape_debug().take(200).collect(),
        de::Error::RecursionLimitExceeded => "nested too deeply".into(),
    }
}

/// Writes `value`.
pub(crate) fn write<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = vec![];
    ciborium::into_writer(value, &mut bytes).expect("a Vec takes all bytes, and the documents here are all CBOR");
    bytes
}

/// A byte string; serde would make an array of a `Vec<u8>`.
#[derive(Debug)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a byte string")
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        v: u64,
        body: Bytes,
        domain: String,
    }

    const DOMAIN: &str = "cloister/sample";

    fn sample() -> Vec<u8> {
        write(&Sample { v: 1, body: Bytes(vec![1, 2, 3]), domain: DOMAIN.into() })
    }

    fn error(bytes: &[u8]) -> FormatError {
        read::<Sample>(bytes, DOMAIN, 100).unwrap_err()
    }

    #[test]
    fn it_is_the_deterministic_form() {
        assert_eq!(
            sample(),
            [b"\xa3\x61v\x01\x64body\x43\x01\x02\x03\x66domain\x6f".as_slice(), DOMAIN.as_bytes()].concat()
        );
        assert_eq!(read::<Sample>(&sample(), DOMAIN, 100).unwrap().body.0, [1, 2, 3]);
    }

    #[test]
    fn each_fault_has_its_error() {
        let domain = [b"\x66domain\x6f".as_slice(), DOMAIN.as_bytes()].concat();
        let map = |head: &[u8]| [head, &domain].concat();
        assert_eq!(error(&[0; 101]), FormatError::TooLarge { len: 101, max: 100 });
        assert_eq!(error(&sample()[..10]), FormatError::Malformed { reason: "it ends too early".into() });
        assert_eq!(error(&map(b"\xa2\x61v\x03")), FormatError::Version { version: 3 });
        assert_eq!(error(&map(b"\xa3\x61v\x03\x63new\x80")), FormatError::Version { version: 3 });
        assert_eq!(
            read::<Sample>(&sample(), "cloister/other", 100).unwrap_err(),
            FormatError::Domain { expected: "cloister/other", actual: DOMAIN.into() }
        );
        assert_eq!(error(&map(b"\xa3\x64body\x43\x01\x02\x03\x61v\x01")), FormatError::NotDeterministic, "order");
        assert_eq!(
            error(&map(b"\xa3\x61v\x18\x01\x64body\x43\x01\x02\x03")),
            FormatError::NotDeterministic,
            "long form"
        );
        assert_eq!(error(&map(b"\xa3\x61v\xc1\x01\x64body\x43\x01\x02\x03")), FormatError::NotDeterministic, "tag");
        assert_eq!(error(&[sample(), vec![0]].concat()), FormatError::NotDeterministic, "trailing byte");
        let chunked = map(b"\xa3\x61v\x01\x64body\x5f\x43\x01\x02\x03\xff");
        assert_eq!(error(&chunked), FormatError::NotDeterministic, "chunks");
        assert!(
            matches!(error(&map(b"\xa3\x61v\x01\x64body\x83\x01\x02\x03")), FormatError::Malformed { .. }),
            "array"
        );
        assert!(
            matches!(error(&map(b"\xa4\x61v\x01\x61v\x01\x64body\x40")), FormatError::Malformed { .. }),
            "duplicate"
        );
    }
}
