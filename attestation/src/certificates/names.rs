//! The names in the certificates, and the register that repeats one of them.

use super::{CertificateError, Link};
use crate::{Pins, payload::Payload};

/// The register into which the hypervisor extends the id of the parent instance.
const INSTANCE_PCR: u8 = 4;

/// Checks that the leaf is named after the enclave, its issuer after the instance, and that PCR4 measures that instance.
/// Returns the region.
pub(super) fn check(payload: &Payload, instance_name: &str, leaf_name: &str) -> Result<String, CertificateError> {
    let module_id = &payload.module_id;
    // 4.12
    let instance_id = instance_id(module_id).ok_or_else(|| CertificateError::ModuleId { actual: module_id.clone() })?;

    // 4.13
    let region = region(leaf_name, module_id).ok_or_else(|| CertificateError::CommonName {
        link: Link::Leaf,
        expected: format!("{module_id}.<region>.aws…"),
        actual: leaf_name.to_owned(),
    })?;

    // 4.14
    let domain = instance_name.strip_prefix(&format!("{instance_id}.{region}."));
    if !domain.is_some_and(is_aws) {
        let (expected, actual) = (format!("{instance_id}.{region}.aws…"), instance_name.to_owned());
        return Err(CertificateError::CommonName { link: Link::Instance, expected, actual });
    }

    // 4.15
    let expected = Pins::pcr4_of_instance(instance_id);
    let actual = payload.pcrs.register(INSTANCE_PCR);
    if actual != Some(&expected) {
        let actual = actual.map_or_else(|| "absent".to_owned(), hex::encode);
        return Err(CertificateError::InstancePcr { expected: hex::encode(expected), actual });
    }
    Ok(region)
}

/// `i-…` of a module id `i-…-enc…`.
pub(crate) fn instance_id(module_id: &str) -> Option<&str> {
    let (instance, enclave) = module_id.split_once("-enc")?;
    let id = instance.strip_prefix("i-")?;
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (plain(id) && plain(enclave)).then_some(instance)
}

/// The region in a leaf's common name, `<module id>.<region>.aws`: lower-case letters, digits and hyphens.
fn region(common_name: &str, module_id: &str) -> Option<String> {
    let (region, domain) = common_name.strip_prefix(module_id)?.strip_prefix('.')?.split_once('.')?;
    (is_region(region) && is_aws(domain)).then(|| region.to_owned())
}

/// Whether a text has the form of a region's name, such as `eu-west-1`.
pub(crate) fn is_region(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(plain)
}

/// `aws`, or `aws` and more: `.nitro-enclaves` so far, and whatever the partitions not yet seen may add.
fn is_aws(domain: &str) -> bool {
    domain.strip_prefix("aws").is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']))
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
        for region in ["EU", "eu west", "eu\n", "eu\u{202e}", "eu:443", "\0"] {
            assert_eq!(self::region(&format!("i-1-enc2.{region}.aws"), "i-1-enc2"), None, "{region:?}");
        }
        for name in
            ["", "i-1-enc2", "i-1-enc2.aws", "i-1-enc2..aws", "i-1-enc23.eu-west-1.aws", "i-1-enc2.eu-west-1.awsome"]
        {
            assert_eq!(region(name), None, "{name}");
        }
    }
}
