//! What is wrong with the certificates of a document.

use super::Link;
use crate::foreign::foreign;

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
    /// Not the strict DER of an X.509 certificate, an extension that occurs twice, or not one common name.
    #[error("the {link} certificate is malformed: {reason}")]
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
    #[error("the {link} certificate was issued by `{}`, expected `{}`", foreign(actual), foreign(expected))]
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
    /// Basic constraints that others may ignore.
    #[error("the {link} certificate's basic constraints are not critical")]
    NotCritical {
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
    /// A leaf that may issue certificates, by its basic constraints or its key usage.
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
    #[error("the module id is `{}`, expected i-…-enc…", foreign(actual))]
    ModuleId {
        /// The module id found.
        actual: String,
    },
    /// A certificate for another enclave or instance.
    #[error("the {link} certificate is for `{}`, expected `{}`", foreign(actual), foreign(expected))]
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
            Self::NotCritical { .. } => "constraints_not_critical",
            Self::PathLength { .. } => "path_length",
            Self::LeafIsAuthority => "leaf_is_authority",
            Self::KeyUsage { .. } => "key_usage",
            Self::ModuleId { .. } => "module_id",
            Self::CommonName { .. } => "certificate_name",
            Self::InstancePcr { .. } => "instance_pcr",
        }
    }
}
