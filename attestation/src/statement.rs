//! What an enclave states about itself and a session, and commits to in a document.

use serde::{Deserialize, Serialize};

use crate::{
    FormatError, Sha384,
    cbor::{self, Bytes, Format, VERSION},
};

/// The TLS exporter's label (RFC 8446 §7.5): no context, 32 bytes.
pub const EXPORTER_LABEL: &[u8] = b"EXPERIMENTAL-cloister-attestation-v1";

/// Separates statements from everything else that is ever hashed.
const DOMAIN: &str = "cloister/attestation";

/// The first byte of `user_data`: which kind of commitment follows.
const COMMITMENT: u8 = 1;

const FORMAT: Format = Format { name: "statement", limit: 4096 };

/// How a connection reaches the enclave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// TLS ends in the enclave. The exporter is that of this very session, taken by each end itself.
    TlsExporter([u8; 32]),
    /// TLS ends before the enclave: nothing ties the document to a connection.
    None,
}

impl Channel {
    /// Its name in a statement.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TlsExporter(_) => "tls-exporter",
            Self::None => "none",
        }
    }
}

/// What both ends know of a session, each from its own side.
///
/// The client builds it from its own exporter and the certificate it saw, never from bytes that it received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// How the connection reaches the enclave.
    pub channel: Channel,
    /// The enclave's TLS key, a SubjectPublicKeyInfo in DER.
    pub spki: Vec<u8>,
    /// The key that signs receipts, a SubjectPublicKeyInfo in DER.
    pub receipt_key: Vec<u8>,
    /// The digest of the [`Manifest`](crate::Manifest).
    pub manifest: Sha384,
}

impl Statement {
    /// Deterministic CBOR: `{v, spki, domain, channel, exporter, manifest, receipt_key}`.
    pub fn to_cbor(&self) -> Vec<u8> {
        let exporter = match self.channel {
            Channel::TlsExporter(exporter) => Some(Bytes(exporter.to_vec())),
            Channel::None => None,
        };
        cbor::encode(&Wire {
            v: VERSION,
            spki: Bytes(self.spki.clone()),
            domain: DOMAIN.to_owned(),
            channel: self.channel.name().to_owned(),
            exporter,
            manifest: self.manifest,
            receipt_key: Bytes(self.receipt_key.clone()),
        })
    }

    /// Reads what [`to_cbor`](Self::to_cbor) wrote, at most 4 KiB.
    pub fn from_cbor(bytes: &[u8]) -> Result<Self, FormatError> {
        let Wire { v: _, spki, domain, channel, exporter, manifest, receipt_key } = FORMAT.decode(bytes)?;
        if domain != DOMAIN {
            return Err(FORMAT.malformed(format_args!("its domain is `{domain}`, expected `{DOMAIN}`")));
        }
        let channel = match (channel.as_str(), exporter) {
            ("tls-exporter", Some(Bytes(exporter))) => exporter
                .try_into()
                .map(Channel::TlsExporter)
                .map_err(|_| FORMAT.malformed("its exporter has not 32 bytes"))?,
            ("none", None) => Channel::None,
            (other, _) => {
                return Err(FORMAT.malformed(format_args!("channel `{other}` does not go with its exporter")));
            }
        };
        Ok(Self { channel, spki: spki.0, receipt_key: receipt_key.0, manifest })
    }

    /// The commitment that the NSM signs: `0x01 ‖ SHA-384(statement)`.
    pub fn user_data(&self) -> Vec<u8> {
        let mut commitment = vec![COMMITMENT];
        commitment.extend_from_slice(&Sha384::of(&self.to_cbor()).0);
        commitment
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    v: u64,
    spki: Bytes,
    domain: String,
    channel: String,
    exporter: Option<Bytes>,
    manifest: Sha384,
    receipt_key: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(channel: Channel) -> Statement {
        Statement { channel, spki: vec![1], receipt_key: vec![2], manifest: Sha384([3; 48]) }
    }

    #[test]
    fn cbor_round_trips() {
        for channel in [Channel::TlsExporter([4; 32]), Channel::None] {
            let statement = statement(channel);
            assert_eq!(Statement::from_cbor(&statement.to_cbor()), Ok(statement));
        }
    }

    #[test]
    fn the_encoding_is_fixed() {
        let mut expected =
            b"\xa7\x61v\x01\x64spki\x41\x01\x66domain\x74cloister/attestation\x67channel\x64none".to_vec();
        expected.extend_from_slice(b"\x68exporter\xf6\x68manifest\x58\x30");
        expected.extend_from_slice(&[3; 48]);
        expected.extend_from_slice(b"\x6breceipt_key\x41\x02");
        assert_eq!(statement(Channel::None).to_cbor(), expected);
    }

    #[test]
    fn every_part_changes_the_commitment() {
        let mut commitments = vec![
            statement(Channel::None).user_data(),
            statement(Channel::TlsExporter([0; 32])).user_data(),
            statement(Channel::TlsExporter([1; 32])).user_data(),
            Statement { spki: vec![9], ..statement(Channel::None) }.user_data(),
            Statement { receipt_key: vec![9], ..statement(Channel::None) }.user_data(),
            Statement { manifest: Sha384([9; 48]), ..statement(Channel::None) }.user_data(),
        ];
        assert!(commitments.iter().all(|commitment| commitment.len() == 49 && commitment[0] == 1));
        commitments.sort();
        commitments.dedup();
        assert_eq!(commitments.len(), 6);
    }

    #[test]
    fn a_channel_without_its_exporter_is_refused() {
        let mut wire = Wire {
            v: 1,
            spki: Bytes(vec![]),
            domain: DOMAIN.to_owned(),
            channel: "tls-exporter".to_owned(),
            exporter: None,
            manifest: Sha384([0; 48]),
            receipt_key: Bytes(vec![]),
        };
        assert_eq!(Statement::from_cbor(&cbor::encode(&wire)).unwrap_err().code(), "malformed");
        wire.exporter = Some(Bytes(vec![0; 31]));
        assert_eq!(Statement::from_cbor(&cbor::encode(&wire)).unwrap_err().code(), "malformed");
        wire.channel = "none".to_owned();
        assert_eq!(Statement::from_cbor(&cbor::encode(&wire)).unwrap_err().code(), "malformed");
        wire = Wire { domain: "cloister/receipt".to_owned(), exporter: None, ..wire };
        assert_eq!(Statement::from_cbor(&cbor::encode(&wire)).unwrap_err().code(), "malformed");
    }
}
