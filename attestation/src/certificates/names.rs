//! The names in the certificates, and the register that repeats one of them.

use x509_cert::{Certificate, name::Name};

use super::{CertificateError, Link};
use crate::{Sha384, payload::Payload, pcrs::Pcr};

/// The register into which the hypervisor extends the id of the parent instance.
const INSTANCE_PCR: u8 = 4;

/// Checks that the leaf is named after the enclave, its issuer after the instance, and that PCR4 measures that instance.
/// Returns the region.
pub(super) fn check(payload: &Payload, instance: &Certificate, leaf: &Certificate) -> Result<String, CertificateError> {
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
    Ok(region)
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
