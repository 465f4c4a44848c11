//! Certificates of the shape that AWS's have, with subjects that say SIMULATED.

use std::time::Duration;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair},
};
use cloister_attestation::{Link, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384, SignatureAlgorithm, SigningKey,
};
use time::OffsetDateTime;

use crate::{Authority, Identity};

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a leaf lives after its first document, and how long before that it begins.
const LEAF_LIFE: Duration = Duration::from_secs(3 * 60 * 60);
const LEAF_LEAD: Duration = Duration::from_secs(3);

/// A certificate that is still to be issued, with the algorithm of its key.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    pub(crate) params: CertificateParams,
    pub(crate) algorithm: &'static SignatureAlgorithm,
}

/// The four certificates under a root.
#[derive(Clone, Debug)]
pub(crate) struct Templates {
    regional: Template,
    zonal: Template,
    instance: Template,
    leaf: Template,
}

impl Templates {
    /// For an enclave that asks for its first document at `now`.
    pub(crate) fn new(identity: &Identity, now: Timestamp) -> Self {
        let Identity { instance_id, region, .. } = identity;
        let domain = format!("{region}.aws.nitro-enclaves");
        Self {
            regional: authority(&format!("0123456789abcdef.{domain}"), 2, now.minus(3 * DAY), now.plus(17 * DAY)),
            zonal: authority(&format!("fedcba9876543210.zonal.{domain}"), 1, now.minus(DAY), now.plus(5 * DAY)),
            instance: authority(&format!("{instance_id}.{domain}"), 0, now.minus(HOUR), now.plus(23 * HOUR)),
            leaf: leaf(&format!("{}.{region}.aws", identity.module_id()), now),
        }
    }

    /// One of the four; there is none for the root.
    pub(crate) fn get_mut(&mut self, link: Link) -> Option<&mut Template> {
        match link {
            Link::Regional => Some(&mut self.regional),
            Link::Zonal => Some(&mut self.zonal),
            Link::Instance => Some(&mut self.instance),
            Link::Leaf => Some(&mut self.leaf),
            _ => None,
        }
    }
}

/// The root, valid for as long as AWS's.
pub(crate) fn root() -> CertificateParams {
    let not_before = Timestamp::parse_rfc3339("2019-10-28T13:28:05Z").expect("a constant time");
    let not_after = Timestamp::parse_rfc3339("2049-10-28T14:28:05Z").expect("a constant time");
    let mut params = params("SIMULATED.aws.nitro-enclaves", not_before, not_after);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = authority_usages();
    params
}

fn authority(name: &str, path_length: u8, not_before: Timestamp, not_after: Timestamp) -> Template {
    let mut params = params(name, not_before, not_after);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = authority_usages();
    params.use_authority_key_identifier_extension = true;
    Template { params, algorithm: &PKCS_ECDSA_P384_SHA384 }
}

fn authority_usages() -> Vec<KeyUsagePurpose> {
    vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign]
}

fn leaf(name: &str, now: Timestamp) -> Template {
    let mut params = params(name, now.minus(LEAF_LEAD), now.plus(LEAF_LIFE));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::ContentCommitment];
    Template { params, algorithm: &PKCS_ECDSA_P384_SHA384 }
}

fn params(name: &str, not_before: Timestamp, not_after: Timestamp) -> CertificateParams {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CountryName, "US");
    subject.push(DnType::OrganizationName, "SIMULATED");
    subject.push(DnType::OrganizationalUnitName, "SIMULATED");
    subject.push(DnType::CommonName, name);
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.not_before = date(not_before);
    params.not_after = date(not_after);
    params
}

/// To the second, as certificates are (RFC 5280 §4.1.2.5).
pub(crate) fn date(time: Timestamp) -> OffsetDateTime {
    let seconds = (time.millis() / 1000).try_into().unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// An issued chain, and the key that signs documents under it.
#[derive(Debug)]
pub(crate) struct Chain {
    /// From the root to the instance's authority, DER.
    pub(crate) cabundle: Vec<Vec<u8>>,
    /// The leaf, DER.
    pub(crate) certificate: Vec<u8>,
    leaf: CertificateParams,
    key: KeyPair,
}

impl Chain {
    pub(crate) fn issue(authority: &Authority, templates: Templates) -> Result<Self, rcgen::Error> {
        let Templates { regional, zonal, instance, leaf } = templates;
        let root = root();
        let (regional_der, regional_key) = issue(&regional, &Issuer::from_params(&root, authority.key()))?;
        let (zonal_der, zonal_key) = issue(&zonal, &Issuer::from_params(&regional.params, regional_key))?;
        let (instance_der, instance_key) = issue(&instance, &Issuer::from_params(&zonal.params, zonal_key))?;
        let (certificate, key) = issue(&leaf, &Issuer::from_params(&instance.params, instance_key))?;
        let cabundle = vec![authority.root().der().to_vec(), regional_der, zonal_der, instance_der];
        Ok(Self { cabundle, certificate, leaf: leaf.params, key })
    }

    /// The leaf's key, PKCS #8 in PEM.
    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// Whether the leaf is valid now and for another hour.
    pub(crate) fn lasts(&self, now: Timestamp) -> bool {
        self.leaf.not_before <= date(now) && date(now.plus(HOUR)) <= self.leaf.not_after
    }

    /// ES384: `r ‖ s` over `message` by the leaf's key, which has to be of P-384.
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, self.key.serialized_der());
        let signature = key.expect("the leaf's key is of P-384").sign(&SystemRandom::new(), message);
        signature.expect("signing fails only without randomness, and then aws-lc aborts").as_ref().to_vec()
    }
}

fn issue(template: &Template, issuer: &Issuer<'_, impl SigningKey>) -> Result<(Vec<u8>, KeyPair), rcgen::Error> {
    let key = KeyPair::generate_for(template.algorithm)?;
    let certificate = template.params.signed_by(&key, issuer)?;
    Ok((certificate.der().to_vec(), key))
}
