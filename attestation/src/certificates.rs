//! The certificates of a document: their profile, their names, and what those names say.
//!
//! Everything here is a fact that held for every genuine document examined, from 2021 to 2025. Path validation, next
//! door in `chain`, checks signatures and validity; it does not check key usage, and it knows nothing of these names.

use std::fmt;

use x509_cert::{
    Certificate,
    certificate::Version,
    der::{Decode, asn1::ObjectIdentifier},
    ext::pkix::{BasicConstraints, KeyUsage},
    name::Name,
    spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned},
};

use crate::{Root, Sha384, VerificationError, payload::Payload, pcrs::Pcr, root};

/// ecdsa-with-SHA384 (RFC 5758 §3.2), without parameters.
const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");

/// id-ecPublicKey (RFC 5480 §2.1.1), with the curve as parameter.
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");

/// secp384r1 (RFC 5480 §2.1.1.1).
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// An uncompressed point of P-384: `04 ‖ x ‖ y`.
const P384_POINT: usize = 1 + 2 * 48;

/// The register into which the hypervisor extends the id of the parent instance.
const INSTANCE_PCR: u8 = 4;

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

/// What the certificates of a document say, before anybody checked their signatures.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// The region in the leaf's name.
    pub(crate) region: String,
    /// The leaf's key, an uncompressed point.
    pub(crate) leaf_key: Vec<u8>,
}

/// Checks that `payload` carries `root` and four certificates of the Nitro profile under it.
pub(crate) fn check(payload: &Payload, root: &Root) -> Result<Names, VerificationError> {
    let (first, authorities) = payload.cabundle.split_first().ok_or(CertificateError::Count { actual: 0 })?;
    if first[..] != root.certificate()[..] {
        let actual = root::fingerprint(first);
        return Err(VerificationError::RootMismatch { expected: root.fingerprint().to_owned(), actual });
    }
    let [regional, zonal, instance] = authorities else {
        return Err(CertificateError::Count { actual: payload.cabundle.len() }.into());
    };

    let anchor = decode(Link::Root, root.certificate())?;
    let regional = authority(Link::Regional, regional, &anchor)?;
    let zonal = authority(Link::Zonal, zonal, &regional)?;
    let instance = authority(Link::Instance, instance, &zonal)?;
    let leaf = end_entity(&payload.certificate, &instance)?;
    Ok(names(payload, &instance, &leaf)?)
}

fn authority(link: Link, der: &[u8], issuer: &Certificate) -> Result<Certificate, CertificateError> {
    let certificate = profile(link, der, issuer)?;
    let constraints: Option<BasicConstraints> = extension(link, &certificate)?;
    let (ca, path_length) = constraints.map_or((false, None), |found| (found.ca, found.path_len_constraint));
    if !ca {
        return Err(CertificateError::NotAnAuthority { link });
    }
    if path_length != link.path_length() {
        return Err(CertificateError::PathLength { link, expected: link.path_length(), actual: path_length });
    }
    let usage: Option<KeyUsage> = extension(link, &certificate)?;
    if !usage.is_some_and(|usage| usage.key_cert_sign()) {
        return Err(CertificateError::KeyUsage { link, expected: "keyCertSign" });
    }
    Ok(certificate)
}

fn end_entity(der: &[u8], issuer: &Certificate) -> Result<Certificate, CertificateError> {
    let link = Link::Leaf;
    let certificate = profile(link, der, issuer)?;
    let constraints: Option<BasicConstraints> = extension(link, &certificate)?;
    if constraints.is_some_and(|found| found.ca) {
        return Err(CertificateError::LeafIsAuthority);
    }
    let usage: Option<KeyUsage> = extension(link, &certificate)?;
    if !usage.is_some_and(|usage| usage.digital_signature()) {
        return Err(CertificateError::KeyUsage { link, expected: "digitalSignature" });
    }
    Ok(certificate)
}

/// What all four have in common: strict DER, version 3, P-384 throughout, and the name of the one above as issuer.
fn profile(link: Link, der: &[u8], issuer: &Certificate) -> Result<Certificate, CertificateError> {
    let certificate = decode(link, der)?;
    let tbs = certificate.tbs_certificate();
    if tbs.version() != Version::V3 {
        return Err(CertificateError::Version { link });
    }
    for algorithm in [tbs.signature(), certificate.signature_algorithm()] {
        signature_algorithm(link, algorithm)?;
    }
    public_key(link, tbs.subject_public_key_info())?;
    if tbs.issuer() != issuer.tbs_certificate().subject() {
        let (expected, actual) = (issuer.tbs_certificate().subject().to_string(), tbs.issuer().to_string());
        return Err(CertificateError::Issuer { link, expected, actual });
    }
    Ok(certificate)
}

fn decode(link: Link, der: &[u8]) -> Result<Certificate, CertificateError> {
    Certificate::from_der(der).map_err(|error| CertificateError::Der { link, reason: error.to_string() })
}

fn signature_algorithm(link: Link, algorithm: &AlgorithmIdentifierOwned) -> Result<(), CertificateError> {
    if algorithm.oid == ECDSA_WITH_SHA384 && algorithm.parameters.is_none() {
        return Ok(());
    }
    Err(CertificateError::SignatureAlgorithm { link, actual: algorithm.oid.to_string() })
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

/// An extension that occurs at most once.
fn extension<'a, T>(link: Link, certificate: &'a Certificate) -> Result<Option<T>, CertificateError>
where
    T: Decode<'a, Error = x509_cert::der::Error> + x509_cert::der::oid::AssociatedOid,
{
    let found = certificate.tbs_certificate().get_extension::<T>();
    let found = found.map_err(|error| CertificateError::Der { link, reason: error.to_string() })?;
    Ok(found.map(|(_critical, value)| value))
}

/// The leaf is named after the enclave, its issuer after the instance, and PCR4 measures that instance.
fn names(payload: &Payload, instance: &Certificate, leaf: &Certificate) -> Result<Names, CertificateError> {
    let module_id = &payload.module_id;
    let instance_id = instance_id(module_id).ok_or_else(|| CertificateError::ModuleId { actual: module_id.clone() })?;

    let actual = common_name(Link::Leaf, leaf.tbs_certificate().subject())?;
    let region = region(&actual, module_id).ok_or_else(|| CertificateError::CommonName {
        link: Link::Leaf,
        expected: format!("{module_id}.<region>.aws…"),
        actual: actual.clone(),
    })?;

    let expected = format!("{instance_id}.{region}.aws");
    let actual = common_name(Link::Instance, instance.tbs_certificate().subject())?;
    if !actual.starts_with(&expected) {
        let expected = format!("{expected}…");
        return Err(CertificateError::CommonName { link: Link::Instance, expected, actual });
    }

    let expected = instance_pcr(instance_id);
    let actual = payload.pcrs.register(INSTANCE_PCR);
    if actual != Some(&expected) {
        let actual = actual.map_or_else(|| "absent".to_owned(), hex::encode);
        return Err(CertificateError::InstancePcr { expected: hex::encode(expected), actual });
    }

    let leaf_key = public_key(Link::Leaf, leaf.tbs_certificate().subject_public_key_info())?.to_vec();
    Ok(Names { region, leaf_key })
}

/// `i-…` of a module id `i-…-enc…`.
fn instance_id(module_id: &str) -> Option<&str> {
    let (instance, enclave) = module_id.split_once("-enc")?;
    let id = instance.strip_prefix("i-")?;
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (plain(id) && plain(enclave)).then_some(instance)
}

/// The region in a leaf's common name, `<module id>.<region>.aws`.
fn region(common_name: &str, module_id: &str) -> Option<String> {
    let (region, domain) = common_name.strip_prefix(module_id)?.strip_prefix('.')?.split_once('.')?;
    (!region.is_empty() && domain.starts_with("aws")).then(|| region.to_owned())
}

/// What one extension of a fresh register gives: SHA-384(48 zero bytes ‖ instance id).
fn instance_pcr(instance_id: &str) -> Pcr {
    let mut extended = vec![0; 48];
    extended.extend_from_slice(instance_id.as_bytes());
    Sha384::of(&extended).0
}

fn common_name(link: Link, name: &Name) -> Result<String, CertificateError> {
    let found = name.common_name().map_err(|error| CertificateError::Der { link, reason: error.to_string() })?;
    Ok(found.map_or_else(String::new, |text| text.value().into_owned()))
}

/// The certificates are not those of a Nitro Enclave.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Not root, regional, zonal and instance authority.
    #[error("the cabundle has {actual} certificates, expected 4")]
    Count {
        /// The number found.
        actual: usize,
    },
    /// Not the strict DER of an X.509 certificate, or an extension that occurs twice.
    #[error("the {link} certificate is not strict DER: {reason}")]
    Der {
        /// The certificate.
        link: Link,
        /// What was found.
        reason: String,
    },
    /// Not version 3.
    #[error("the {link} certificate is not X.509 version 3")]
    Version {
        /// The certificate.
        link: Link,
    },
    /// Signed with something else, inside or outside the signed part.
    #[error(
        "the {link} certificate is signed with algorithm {actual}, expected 1.2.840.10045.4.3.3 (ecdsa-with-SHA384)"
    )]
    SignatureAlgorithm {
        /// The certificate.
        link: Link,
        /// The object identifier found.
        actual: String,
    },
    /// Not an uncompressed point of P-384.
    #[error("the {link} certificate's key is not a P-384 point")]
    PublicKey {
        /// The certificate.
        link: Link,
    },
    /// Another issuer than the subject of the certificate above.
    #[error("the {link} certificate was issued by `{}`, expected `{}`", actual.escape_debug(), expected.escape_debug())]
    Issuer {
        /// The certificate.
        link: Link,
        /// The subject of the certificate above.
        expected: String,
        /// The issuer found.
        actual: String,
    },
    /// A certificate above the leaf that is no authority.
    #[error("the {link} certificate is not a certificate authority's")]
    NotAnAuthority {
        /// The certificate.
        link: Link,
    },
    /// An authority that may issue a longer or shorter path than its place allows.
    #[error("the {link} certificate's path length is {}, expected {}", length(*actual), length(*expected))]
    PathLength {
        /// The certificate.
        link: Link,
        /// The path length of its place.
        expected: Option<u8>,
        /// The path length found.
        actual: Option<u8>,
    },
    /// A leaf that may issue certificates.
    #[error("the leaf certificate is a certificate authority's")]
    LeafIsAuthority,
    /// A key that is not for this.
    #[error("the {link} certificate's key usage lacks {expected}")]
    KeyUsage {
        /// The certificate.
        link: Link,
        /// The usage that its place needs.
        expected: &'static str,
    },
    /// A module id of another form.
    #[error("the module id is `{}`, expected i-…-enc…", actual.escape_debug())]
    ModuleId {
        /// The module id found.
        actual: String,
    },
    /// A certificate for another enclave or instance.
    #[error("the {link} certificate is for `{}`, expected `{}`", actual.escape_debug(), expected.escape_debug())]
    CommonName {
        /// The certificate.
        link: Link,
        /// The form of its name.
        expected: String,
        /// The name found.
        actual: String,
    },
    /// PCR4 measures another instance.
    #[error("PCR4 does not measure the instance of the module id\n  expected {expected}\n  actual   {actual}")]
    InstancePcr {
        /// The measurement of the instance, in hexadecimal.
        expected: String,
        /// The register found, in hexadecimal.
        actual: String,
    },
}

fn length(path_length: Option<u8>) -> String {
    path_length.map_or_else(|| "unlimited".to_owned(), |length| length.to_string())
}

impl CertificateError {
    /// A stable identifier for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Count { .. } => "certificate_count",
            Self::Der { .. } => "malformed_certificate",
            Self::Version { .. } => "certificate_version",
            Self::SignatureAlgorithm { .. } => "certificate_algorithm",
            Self::PublicKey { .. } => "certificate_key",
            Self::Issuer { .. } => "certificate_issuer",
            Self::NotAnAuthority { .. } => "not_an_authority",
            Self::PathLength { .. } => "path_length",
            Self::LeafIsAuthority => "leaf_is_authority",
            Self::KeyUsage { .. } => "key_usage",
            Self::ModuleId { .. } => "module_id",
            Self::CommonName { .. } => "certificate_name",
            Self::InstancePcr { .. } => "instance_pcr",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_ids_name_their_instance() {
        assert_eq!(instance_id("i-0827e799ec9232d44-enc019b55a68bd2ed4b"), Some("i-0827e799ec9232d44"));
        for module_id in ["", "i-", "i-1", "i--enc1", "i-1-enc", "1-enc1", "i-1.x-enc1", "i-1-enc1.eu-west-1.aws"] {
            assert_eq!(instance_id(module_id), None, "{module_id}");
        }
    }

    #[test]
    fn leaf_names_name_their_region() {
        let region = |name| region(name, "i-1-enc2");
        assert_eq!(region("i-1-enc2.ap-southeast-1.aws"), Some("ap-southeast-1".to_owned()));
        for name in
            ["", "i-1-enc2", "i-1-enc2.aws", "i-1-enc2..aws", "i-1-enc23.eu-west-1.aws", "i-1-enc2.eu-west-1.example"]
        {
            assert_eq!(region(name), None, "{name}");
        }
    }
}
