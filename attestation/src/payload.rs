//! The signed payload of an attestation document, read strictly.
//!
//! The NSM writes a CBOR map of nine keys, definite until April 2025 and indefinite since. A derived `serde` type would
//! accept integer keys, arrays for maps, text or arrays for bytes, chunked strings, and the last of two equal PCR indexes;
//! the visitors below take borrowed text and bytes only, and everything once. What they still accept, tags and non-minimal
//! integers, changes no meaning, and the NSM signed it.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};

use crate::{
    Timestamp,
    foreign::foreign,
    pcrs::{MAX_INDEX, Pcrs},
};

/// The longest `user_data`, `nonce` and `public_key`. The NSM's own limits are 512, 512 and 1024.
const MAX_FIELD: usize = 1024;

/// The longest `module_id`; a genuine one has 39 bytes.
const MAX_MODULE_ID: usize = 256;

/// The longest certificate (AWS, attestation process, 2.2); genuine ones have 533 to 814 bytes.
const MAX_CERTIFICATE: usize = 1024;

/// The longest chain of certificate authorities that is looked at; a genuine one has four.
const MAX_CABUNDLE: usize = 8;

/// The content of an attestation document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Payload {
    pub(crate) module_id: String,
    pub(crate) timestamp: Timestamp,
    pub(crate) pcrs: Pcrs,
    pub(crate) certificate: Vec<u8>,
    /// From the root to the issuer of `certificate`; never empty.
    pub(crate) cabundle: Vec<Vec<u8>>,
    pub(crate) public_key: Option<Vec<u8>>,
    pub(crate) user_data: Option<Vec<u8>>,
    pub(crate) nonce: Option<Vec<u8>>,
}

impl Payload {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, PayloadError> {
        // 3.1, 3.2 and 3.3
        let map: Map<'_> =
            serde_cbor::from_slice(bytes).map_err(|error| PayloadError::Malformed(foreign(&error.to_string())))?;
        let Map { module_id, digest, timestamp, pcrs, certificate, cabundle, public_key, user_data, nonce } = map;
        // 3.4
        if digest != "SHA384" {
            return Err(PayloadError::Digest { actual: digest.to_owned() });
        }
        // 3.7, whose upper end is met while reading
        if cabundle.0.is_empty() {
            return Err(PayloadError::EmptyCabundle);
        }
        // 3.8 and 3.9
        within("module_id", MAX_MODULE_ID, module_id.as_bytes())?;
        Ok(Self {
            module_id: module_id.to_owned(),
            timestamp: Timestamp::from_millis(timestamp),
            pcrs: pcrs.check()?,
            certificate: within("certificate", MAX_CERTIFICATE, certificate)?,
            cabundle: cabundle
                .0
                .into_iter()
                .map(|der| within("cabundle", MAX_CERTIFICATE, der))
                .collect::<Result<_, _>>()?,
            public_key: field("public_key", public_key)?,
            user_data: field("user_data", user_data)?,
            nonce: field("nonce", nonce)?,
        })
    }
}

fn field(name: &'static str, value: Option<&[u8]>) -> Result<Option<Vec<u8>>, PayloadError> {
    value.map(|bytes| within(name, MAX_FIELD, bytes)).transpose()
}

fn within(field: &'static str, limit: usize, bytes: &[u8]) -> Result<Vec<u8>, PayloadError> {
    if bytes.len() > limit {
        return Err(PayloadError::FieldTooLong { field, limit, actual: bytes.len() });
    }
    Ok(bytes.to_vec())
}

/// The map as it stands in the document.
struct Map<'a> {
    module_id: &'a str,
    digest: &'a str,
    timestamp: u64,
    pcrs: RawPcrs<'a>,
    certificate: &'a [u8],
    cabundle: Cabundle<'a>,
    public_key: Option<&'a [u8]>,
    user_data: Option<&'a [u8]>,
    nonce: Option<&'a [u8]>,
}

impl<'de> Deserialize<'de> for Map<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MapVisitor)
    }
}

struct MapVisitor;

impl<'de> Visitor<'de> for MapVisitor {
    type Value = Map<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the map of an attestation document")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Map<'de>, A::Error> {
        let mut module_id = Once::new("module_id");
        let mut digest = Once::new("digest");
        let mut timestamp = Once::new("timestamp");
        let mut pcrs = Once::new("pcrs");
        let mut certificate = Once::new("certificate");
        let mut cabundle = Once::new("cabundle");
        let mut public_key = Once::new("public_key");
        let mut user_data = Once::new("user_data");
        let mut nonce = Once::new("nonce");
        while let Some(Text(key)) = map.next_key()? {
            match key {
                "module_id" => module_id.set(map.next_value::<Text<'_>>()?.0)?,
                "digest" => digest.set(map.next_value::<Text<'_>>()?.0)?,
                "timestamp" => timestamp.set(map.next_value()?)?,
                "pcrs" => pcrs.set(map.next_value()?)?,
                "certificate" => certificate.set(map.next_value::<ByteString<'_>>()?.0)?,
                "cabundle" => cabundle.set(map.next_value()?)?,
                "public_key" => public_key.set(map.next_value::<Nullable<'_>>()?.0)?,
                "user_data" => user_data.set(map.next_value::<Nullable<'_>>()?.0)?,
                "nonce" => nonce.set(map.next_value::<Nullable<'_>>()?.0)?,
                unknown => return Err(Error::custom(format_args!("unknown key `{unknown}`"))),
            }
        }
        Ok(Map {
            module_id: module_id.get()?,
            digest: digest.get()?,
            timestamp: timestamp.get()?,
            pcrs: pcrs.get()?,
            certificate: certificate.get()?,
            cabundle: cabundle.get()?,
            public_key: public_key.get()?,
            user_data: user_data.get()?,
            nonce: nonce.get()?,
        })
    }
}

/// The value of a key that must occur exactly once.
struct Once<T> {
    key: &'static str,
    value: Option<T>,
}

impl<T> Once<T> {
    fn new(key: &'static str) -> Self {
        Self { key, value: None }
    }

    fn set<E: Error>(&mut self, value: T) -> Result<(), E> {
        match self.value.replace(value) {
            None => Ok(()),
            Some(_) => Err(E::duplicate_field(self.key)),
        }
    }

    fn get<E: Error>(self) -> Result<T, E> {
        self.value.ok_or_else(|| E::missing_field(self.key))
    }
}

/// A definite-length text string.
struct Text<'a>(&'a str);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text string of definite length")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(text))
            }
        }

        deserializer.deserialize_any(TextVisitor)
    }
}

/// A definite-length byte string.
struct ByteString<'a>(&'a [u8]);

impl<'de> Deserialize<'de> for ByteString<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Nullable::deserialize(deserializer)?.0 {
            Some(bytes) => Ok(Self(bytes)),
            None => Err(D::Error::custom("null in place of a byte string")),
        }
    }
}

/// A definite-length byte string, or null.
struct Nullable<'a>(Option<&'a [u8]>);

impl<'de> Deserialize<'de> for Nullable<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NullableVisitor;

        impl<'de> Visitor<'de> for NullableVisitor {
            type Value = Nullable<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a byte string of definite length")
            }

            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Nullable<'de>, E> {
                Ok(Nullable(Some(bytes)))
            }

            fn visit_unit<E>(self) -> Result<Nullable<'de>, E> {
                Ok(Nullable(None))
            }
        }

        deserializer.deserialize_any(NullableVisitor)
    }
}

/// Registers of any length, by index.
struct RawPcrs<'a>(BTreeMap<u8, &'a [u8]>);

impl RawPcrs<'_> {
    fn check(self) -> Result<Pcrs, PayloadError> {
        let register = |(index, value): (u8, &[u8])| {
            // 3.5
            if index > MAX_INDEX {
                return Err(PayloadError::PcrIndex { index, max: MAX_INDEX });
            }
            // 3.6
            let length = value.len();
            let value =
                value.try_into().map_err(|_| PayloadError::PcrLength { index, expected: 48, actual: length })?;
            Ok((index, value))
        };
        self.0.into_iter().map(register).collect()
    }
}

impl<'de> Deserialize<'de> for RawPcrs<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PcrsVisitor;

        impl<'de> Visitor<'de> for PcrsVisitor {
            type Value = RawPcrs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of PCRs")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawPcrs<'de>, A::Error> {
                let mut pcrs = BTreeMap::new();
                while let Some((index, ByteString(value))) = map.next_entry()? {
                    if pcrs.insert(index, value).is_some() {
                        return Err(Error::custom(format_args!("duplicate PCR{index}")));
                    }
                }
                Ok(RawPcrs(pcrs))
            }
        }

        deserializer.deserialize_any(PcrsVisitor)
    }
}

/// The certificate authorities.
struct Cabundle<'a>(Vec<&'a [u8]>);

impl<'de> Deserialize<'de> for Cabundle<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CabundleVisitor;

        impl<'de> Visitor<'de> for CabundleVisitor {
            type Value = Cabundle<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of certificates")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Cabundle<'de>, A::Error> {
                let mut certificates = Vec::new();
                while let Some(ByteString(certificate)) = sequence.next_element()? {
                    if certificates.len() == MAX_CABUNDLE {
                        return Err(Error::custom(format_args!(
                            "more than {MAX_CABUNDLE} certificates in the cabundle"
                        )));
                    }
                    certificates.push(certificate);
                }
                Ok(Cabundle(certificates))
            }
        }

        deserializer.deserialize_any(CabundleVisitor)
    }
}

/// The payload is not that of an attestation document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// Not the map of nine keys, each once and of its type, and nothing after it.
    #[error("the payload is not an attestation document: {0}")]
    Malformed(String),
    /// PCRs of another hash function.
    #[error("the PCRs are digests by `{}`, expected SHA384", foreign(actual))]
    Digest {
        /// The name found.
        actual: String,
    },
    /// A PCR that no NSM has.
    #[error("there is a PCR{index}, the highest is PCR{max}")]
    PcrIndex {
        /// The index found.
        index: u8,
        /// The highest index.
        max: u8,
    },
    /// A PCR that is no SHA-384 digest.
    #[error("PCR{index} has {actual} bytes, expected {expected}")]
    PcrLength {
        /// The register.
        index: u8,
        /// The length of SHA-384.
        expected: usize,
        /// The length found.
        actual: usize,
    },
    /// No certificate authority at all.
    #[error("the cabundle is empty")]
    EmptyCabundle,
    /// More bytes than an NSM signs.
    #[error("{field} has {actual} bytes, at most {limit} are allowed")]
    FieldTooLong {
        /// The key.
        field: &'static str,
        /// The most bytes allowed.
        limit: usize,
        /// The bytes found.
        actual: usize,
    },
}

impl PayloadError {
    /// A stable identifier for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed_payload",
            Self::Digest { .. } => "digest_algorithm",
            Self::PcrIndex { .. } => "pcr_index",
            Self::PcrLength { .. } => "pcr_length",
            Self::EmptyCabundle => "empty_cabundle",
            Self::FieldTooLong { .. } => "field_too_long",
        }
    }
}
