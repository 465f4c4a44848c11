//! The certificates of a document: their profile, their names, and what those names say.
//!
//! Everything here is a fact that held for every genuine document examined, from 2021 to 2025. Path validation, next
//! door in `chain`, checks signatures and validity; it does not check key usage, and it knows nothing of these names.

mod error;
pub(crate) mod names;

use std::{fmt, time::Duration};

pub use error::CertificateError;
use x509_cert::{
    Certificate,
    certificate::Version,
    der::{
        Decode, Encode, Tag, Tagged,
        asn1::{ObjectIdentifier, PrintableStringRef, Utf8StringRef},
        oid::{AssociatedOid, db::rfc4519},
    },
    ext::pkix::{BasicConstraints, KeyUsage},
    spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned},
    time::{Time, Validity},
};

use crate::{Root, Timestamp, VerificationError, payload::Payload, root};

/// ecdsa-with-SHA384 (RFC 5758 §3.2), without parameters.
const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");

/// id-ecPublicKey (RFC 5480 §2.1.1), with the curve as parameter.
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");

/// secp384r1 (RFC 5480 §2.1.1.1).
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// An uncompressed point of P-384: `04 ‖ x ‖ y`.
const P384_POINT: usize = 1 + 2 * 48;

/// The unit of a certificate's validity; the last one counts whole.
const SECOND: Duration = Duration::from_secs(1);

/// The places in the chain of a genuine document, from the root down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Link {
    /// The trust anchor.
    Root,
    /// A region's authority.
    Regional,
    /// An availability zone's authority.
    Zonal,
    /// The parent instance's authority.
    Instance,
    /// The enclave's certificate, whose key signs documents for three hours.
    Leaf,
}

impl Link {
    /// How many authorities may follow this one (RFC 5280 §4.2.1.9); a leaf is no authority.
    const fn path_length(self) -> Option<u8> {
        match self {
            Self::Regional => Some(2),
            Self::Zonal => Some(1),
            Self::Instance => Some(0),
            Self::Root | Self::Leaf => None,
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root",
            Self::Regional => "regional",
            Self::Zonal => "zonal",
            Self::Instance => "instance",
            Self::Leaf => "leaf",
        })
    }
}

/// What the certificates of a document say. Whether they were signed by whom they name is for `chain` to decide.
#[derive(Debug)]
pub(crate) struct Certificates {
    instance_name: String,
    pub(crate) leaf_name: String,
    /// The leaf's key, an uncompressed point.
    pub(crate) key: Vec<u8>,
    /// First and last second of each, from the root to the leaf.
    validity: [(Link, Timestamp, Timestamp); 5],
}

impl Certificates {
    /// Requires that `payload` carries `root` and four certificates of the Nitro profile under it.
    pub(crate) fn read(payload: &Payload, root: &Root) -> Result<Self, VerificationError> {
        let (first, authorities) = payload.cabundle.split_first().ok_or(CertificateError::Count { actual: 0 })?;
        // 4.1
        if first[..] != root.certificate()[..] {
            let actual = root::fingerprint(first);
            return Err(VerificationError::RootMismatch { expected: root.fingerprint().to_owned(), actual });
        }
        // 4.2
        let [regional, zonal, instance] = authorities else {
            return Err(CertificateError::Count { actual: payload.cabundle.len() }.into());
        };

        let anchor = decode(Link::Root, root.certificate())?;
        let regional = authority(Link::Regional, regional, &anchor)?;
        let zonal = authority(Link::Zonal, zonal, &regional)?;
        let instance = authority(Link::Instance, instance, &zonal)?;
        let leaf = end_entity(&payload.certificate, &instance)?;
        Ok(Self {
            instance_name: common_name(Link::Instance, &instance)?,
            leaf_name: common_name(Link::Leaf, &leaf)?,
            key: public_key(Link::Leaf, leaf.tbs_certificate().subject_public_key_info())?.to_vec(),
            validity: [
                validity(Link::Root, &anchor),
                validity(Link::Regional, &regional),
                validity(Link::Zonal, &zonal),
                validity(Link::Instance, &instance),
                validity(Link::Leaf, &leaf),
            ],
        })
    }

    /// Requires that the names and PCR4 are those of the enclave of `payload`. Returns its region.
    pub(crate) fn check_names(&self, payload: &Payload) -> Result<String, CertificateError> {
        names::check(payload, &self.instance_name, &self.leaf_name)
    }

    /// 5.1: requires that all five are valid at `document`. Returns the time during which they are.
    pub(crate) fn check_validity(&self, document: Timestamp) -> Result<(Timestamp, Timestamp), VerificationError> {
        let mut common = (Timestamp::from_millis(0), Timestamp::from_millis(u64::MAX));
        for (link, not_before, not_after) in self.validity {
            if document < not_before {
                return Err(VerificationError::CertificateNotYetValid { link, document, not_before });
            }
            if document >= not_after.plus(SECOND) {
                return Err(VerificationError::CertificateExpired { link, document, not_after });
            }
            common = (common.0.max(not_before), common.1.min(not_after));
        }
        Ok(common)
    }
}

/// First and last second: certificates know no smaller unit (RFC 5280 §4.1.2.5).
fn validity(link: Link, certificate: &Certificate) -> (Link, Timestamp, Timestamp) {
    let Validity { not_before, not_after, .. } = certificate.tbs_certificate().validity();
    let timestamp = |time: &Time| Timestamp::from_millis(0).plus(time.to_unix_duration());
    (link, timestamp(not_before), timestamp(not_after))
}

/// The one common name (X.520 §6.2.2), in one of the two string types that RFC 5280 §4.1.2.4 wants.
fn common_name(link: Link, certificate: &Certificate) -> Result<String, CertificateError> {
    let mut names =
        certificate.tbs_certificate().subject().iter().filter(|attribute| attribute.oid == rfc4519::COMMON_NAME);
    let (Some(name), None) = (names.next(), names.next()) else {
        return Err(not_der(link, "its subject has not exactly one common name"));
    };
    match name.value.tag() {
        Tag::PrintableString => name.value.decode_as::<PrintableStringRef<'_>>().map(|text| text.as_str().to_owned()),
        _ => name.value.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned()),
    }
    .map_err(|error| not_der(link, error))
}

fn authority(link: Link, der: &[u8], issuer: &Certificate) -> Result<Certificate, CertificateError> {
    let certificate = profile(link, der, issuer)?;
    let constraints: Option<(bool, BasicConstraints)> = extension(link, &certificate)?;
    // 4.8
    let Some((critical, BasicConstraints { ca: true, path_len_constraint: path_length })) = constraints else {
        return Err(CertificateError::NotAnAuthority { link });
    };
    if !critical {
        return Err(CertificateError::NotCritical { link });
    }
    // 4.9
    if path_length != link.path_length() {
        return Err(CertificateError::PathLength { link, expected: link.path_length(), actual: path_length });
    }
    // 4.10
    let usage: Option<(bool, KeyUsage)> = extension(link, &certificate)?;
    if !usage.is_some_and(|(_, usage)| usage.key_cert_sign()) {
        return Err(CertificateError::KeyUsage { link, expected: "keyCertSign" });
    }
    Ok(certificate)
}

fn end_entity(der: &[u8], issuer: &Certificate) -> Result<Certificate, CertificateError> {
    let link = Link::Leaf;
    let certificate = profile(link, der, issuer)?;
    let constraints: Option<(bool, BasicConstraints)> = extension(link, &certificate)?;
    let usage: Option<(bool, KeyUsage)> = extension(link, &certificate)?;
    // 4.10
    let Some((_, usage)) = usage.filter(|(_, usage)| usage.digital_signature()) else {
        return Err(CertificateError::KeyUsage { link, expected: "digitalSignature" });
    };
    // 4.11
    let constrained = constraints.is_some_and(|(_, found)| found.ca || found.path_len_constraint.is_some());
    if constrained || usage.key_cert_sign() {
        return Err(CertificateError::LeafIsAuthority);
    }
    Ok(certificate)
}

/// What all four have in common: strict DER, version 3, P-384 throughout, and the name of the one above as issuer.
fn profile(link: Link, der: &[u8], issuer: &Certificate) -> Result<Certificate, CertificateError> {
    // 4.3
    let certificate = decode(link, der)?;
    let tbs = certificate.tbs_certificate();
    // 4.4
    if tbs.version() != Version::V3 {
        return Err(CertificateError::Version { link });
    }
    // 4.5
    for algorithm in [tbs.signature(), certificate.signature_algorithm()] {
        signature_algorithm(link, algorithm)?;
    }
    // 4.6
    public_key(link, tbs.subject_public_key_info())?;
    // 4.7
    if tbs.issuer() != issuer.tbs_certificate().subject() {
        let (expected, actual) = (issuer.tbs_certificate().subject().to_string(), tbs.issuer().to_string());
        return Err(CertificateError::Issuer { link, expected, actual });
    }
    Ok(certificate)
}

fn decode(link: Link, der: &[u8]) -> Result<Certificate, CertificateError> {
    let certificate = Certificate::from_der(der).map_err(|error| not_der(link, error))?;
    require_der(link, &certificate, der)?;
    Ok(certificate)
}

/// Requires that `bytes` are the one encoding of `value`: the decoder is not as strict everywhere.
fn require_der(link: Link, value: &impl Encode, bytes: &[u8]) -> Result<(), CertificateError> {
    match value.to_der() {
        Ok(encoded) if encoded == bytes => Ok(()),
        Ok(_) => Err(not_der(link, "it is not encoded as DER would")),
        Err(error) => Err(not_der(link, error)),
    }
}

fn not_der(link: Link, reason: impl fmt::Display) -> CertificateError {
    CertificateError::Der { link, reason: reason.to_string() }
}

fn signature_algorithm(link: Link, algorithm: &AlgorithmIdentifierOwned) -> Result<(), CertificateError> {
    if algorithm.oid == ECDSA_WITH_SHA384 && algorithm.parameters.is_none() {
        return Ok(());
    }
    let parameters = if algorithm.parameters.is_some() { " with parameters" } else { "" };
    Err(CertificateError::SignatureAlgorithm { link, actual: format!("{}{parameters}", algorithm.oid) })
}

/// The point of a P-384 key.
fn public_key(link: Link, spki: &SubjectPublicKeyInfoOwned) -> Result<&[u8], CertificateError> {
    let curve = spki.algorithm.parameters.as_ref().and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
    match spki.subject_public_key.as_bytes() {
        Some(point)
            if spki.algorithm.oid == EC_PUBLIC_KEY
                && curve == Some(P384)
                && point.len() == P384_POINT
                && point[0] == 0x04 =>
        {
            Ok(point)
        }
        _ => Err(CertificateError::PublicKey { link }),
    }
}

/// An extension that occurs at most once, and whether it is critical.
fn extension<'a, T>(link: Link, certificate: &'a Certificate) -> Result<Option<(bool, T)>, CertificateError>
where
    T: Decode<'a, Error = x509_cert::der::Error> + Encode + AssociatedOid,
{
    let found = certificate.tbs_certificate().get_extension::<T>().map_err(|error| not_der(link, error))?;
    if let Some((_, value)) = &found {
        let extensions = certificate.tbs_certificate().extensions().into_iter().flatten();
        for extension in extensions.filter(|extension| extension.extn_id == T::OID) {
            require_der(link, value, extension.extn_value.as_bytes())?;
        }
    }
    Ok(found)
}
