//! The roots of trust.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use x509_cert::der::{self, Decode, Document, pem::LineEnding};

/// AWS publishes it for exactly this purpose:
/// <https://docs.aws.amazon.com/enclaves/latest/user/verify-root.html>.
const AWS_NITRO_G1_PEM: &str = include_str!("aws-nitro-root-g1.pem");

/// SHA-256 of the DER, as AWS publishes it beside the certificate.
const AWS_NITRO_G1_SHA256: &str = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b";

/// The certificate that a document's chain must begin with, byte for byte.
///
/// It is part of the [`Policy`](crate::Policy); nothing else sets it.
#[derive(Clone, PartialEq, Eq)]
pub struct Root {
    certificate: CertificateDer<'static>,
    fingerprint: String,
}

impl Root {
    /// The root of every genuine AWS Nitro Enclave, valid until 2049.
    pub fn aws_nitro_g1() -> Self {
        Self::from_pem(AWS_NITRO_G1_PEM).expect("the embedded certificate is tested against its fingerprint")
    }

    /// Another root, in PEM: documents under it are [simulated](Self::is_simulated).
    pub fn from_pem(pem: &str) -> Result<Self, RootError> {
        let (label, document) = Document::from_pem(pem.trim_start()).map_err(|error| RootError(error.to_string()))?;
        if label != "CERTIFICATE" {
            return Err(RootError(format!("the PEM block is `{label}`, expected CERTIFICATE")));
        }
        let certificate = CertificateDer::from(document.as_bytes().to_vec());
        check(&certificate).map_err(RootError)?;
        let fingerprint = fingerprint(&certificate);
        Ok(Self { certificate, fingerprint })
    }

    /// The certificate in PEM.
    pub fn to_pem(&self) -> String {
        der::pem::encode_string("CERTIFICATE", LineEnding::LF, &self.certificate)
            .expect("a certificate fits PEM's only limit, the address space")
    }

    /// The certificate in DER.
    pub fn der(&self) -> &[u8] {
        &self.certificate
    }

    /// SHA-256 of the certificate's DER, in lower-case hexadecimal.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Whether this is any root but AWS's: what it vouches for is not real hardware.
    pub fn is_simulated(&self) -> bool {
        is_simulated(&self.fingerprint)
    }

    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Root").field(&self.fingerprint).finish()
    }
}

/// A certificate that can be a trust anchor at all; the rest is checked against the chain it issued.
fn check(certificate: &CertificateDer<'_>) -> Result<(), String> {
    x509_cert::Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    webpki::anchor_from_trusted_cert(certificate).map_err(|error| error.to_string())?;
    Ok(())
}

/// SHA-256 in lower-case hexadecimal, as people compare certificates.
pub(crate) fn fingerprint(der: &[u8]) -> String {
    hex::encode(digest(&SHA256, der))
}

pub(crate) fn is_simulated(fingerprint: &str) -> bool {
    fingerprint != AWS_NITRO_G1_SHA256
}

/// A text is not a root certificate in PEM.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a root certificate in PEM: {0}")]
pub struct RootError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_root_is_the_one_aws_publishes() {
        let root = Root::aws_nitro_g1();
        assert_eq!(root.fingerprint(), AWS_NITRO_G1_SHA256);
        assert!(!root.is_simulated());
    }

    #[test]
    fn pem_round_trips() {
        let root = Root::aws_nitro_g1();
        assert_eq!(Root::from_pem(&root.to_pem()), Ok(root));
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let key = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
        let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let two = AWS_NITRO_G1_PEM.repeat(2);
        for pem in ["", "no PEM", key, empty, &two] {
            assert!(Root::from_pem(pem).is_err(), "{pem}");
        }
    }
}
