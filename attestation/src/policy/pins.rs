//! Pins: where and by whom an enclave must have been started. They stop a parent from diverting a client to another genuine
//! enclave of the same build.

use super::{PolicyError, text::check_name};
use crate::{
    AuthenticDocument, Sha384, VerificationError,
    pcrs::{Pcr, ZERO},
};

/// Where and by whom an enclave must have been started; what is absent is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    /// The role of the parent instance.
    pub pcr3: Option<[u8; 48]>,
    /// The parent instance.
    pub pcr4: Option<[u8; 48]>,
    /// The certificate that signed the image.
    pub pcr8: Option<[u8; 48]>,
    /// One enclave, `i-…-enc…`.
    pub module_id: Option<String>,
    /// An AWS region.
    pub region: Option<String>,
}

impl Pins {
    /// PCR3 of enclaves whose parent instance has the IAM role `arn`: SHA-384(48 zero bytes ‖ ARN), as AWS's
    /// [documentation](https://docs.aws.amazon.com/enclaves/latest/user/set-up-attestation.html) says.
    pub fn pcr3_of_role(arn: &str) -> [u8; 48] {
        extended(arn)
    }

    /// PCR4 of enclaves on the parent instance `id`, `i-…`: SHA-384(48 zero bytes ‖ id), by the same source.
    pub fn pcr4_of_instance(id: &str) -> [u8; 48] {
        extended(id)
    }

    /// Requires that every pin pins something.
    ///
    /// A register that is all zeros names nobody: PCR3 is zero on every instance without a role, whosever it is, and PCR8 for
    /// every image that is not signed.
    pub(super) fn check(&self) -> Result<(), PolicyError> {
        let Self { pcr3, pcr4, pcr8, module_id, region } = self;
        for (index, pin) in [(3, pcr3), (4, pcr4), (8, pcr8)] {
            if *pin == Some(ZERO) {
                return Err(PolicyError::ZeroPin { index });
            }
        }
        for (what, pin) in [("pin of the module id", module_id), ("pin of the region", region)] {
            pin.as_deref().map_or(Ok(()), |text| check_name(what, text))?;
        }
        Ok(())
    }

    /// Requires that `document` has what is pinned.
    pub(super) fn admit<T>(&self, document: &AuthenticDocument<T>) -> Result<(), VerificationError> {
        let Self { pcr3, pcr4, pcr8, module_id, region } = self;
        for (index, pin) in [(3, pcr3), (4, pcr4), (8, pcr8)] {
            let Some(expected) = pin else { continue };
            let actual = document.pcrs().register(index).ok_or(VerificationError::PcrMissing { index })?;
            if actual != expected {
                let (expected, actual) = (hex::encode(expected), hex::encode(actual));
                return Err(VerificationError::PinnedPcrMismatch { index, expected, actual });
            }
        }
        if let Some(expected) = module_id
            && expected != document.module_id()
        {
            let (expected, actual) = (expected.clone(), document.module_id().to_owned());
            return Err(VerificationError::PinnedModuleIdMismatch { expected, actual });
        }
        if let Some(expected) = region
            && expected != document.region()
        {
            let (expected, actual) = (expected.clone(), document.region().to_owned());
            return Err(VerificationError::PinnedRegionMismatch { expected, actual });
        }
        Ok(())
    }
}

/// A fresh register, extended once.
fn extended(value: &str) -> Pcr {
    Sha384::of(&[&ZERO, value.as_bytes()].concat()).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_of_zeros_pins_nothing_and_is_refused() {
        let pinned = [
            (3, Pins { pcr3: Some(ZERO), ..Pins::default() }),
            (4, Pins { pcr4: Some(ZERO), ..Pins::default() }),
            (8, Pins { pcr8: Some(ZERO), ..Pins::default() }),
        ];
        for (index, pins) in pinned {
            assert_eq!(pins.check(), Err(PolicyError::ZeroPin { index }));
        }
        assert_eq!(Pins { pcr3: Some([1; 48]), ..Pins::default() }.check(), Ok(()));
    }

    #[test]
    fn a_pin_of_text_is_visible_text() {
        let module_id = |text: &str| Pins { module_id: Some(text.to_owned()), ..Pins::default() }.check();
        assert_eq!(module_id("i-1-enc2"), Ok(()));
        assert_eq!(module_id("").unwrap_err().code(), "policy_empty_name");
        assert_eq!(module_id("i-1-enc2\n").unwrap_err().code(), "policy_unprintable");
        let region = Pins { region: Some("eu\u{200b}".to_owned()), ..Pins::default() };
        assert_eq!(region.check().unwrap_err().code(), "policy_unprintable");
    }

    /// Reproduced with `python3 -c 'import hashlib; print(hashlib.sha384(bytes(48) + b"i-0827e799ec9232d44").hexdigest())'`.
    #[test]
    fn registers_are_computed_as_aws_documents_them() {
        let pcr4 = hex::encode(Pins::pcr4_of_instance("i-0827e799ec9232d44"));
        assert_eq!(
            pcr4,
            "7b3574ad9b7e88ec8335e8ce967315fac77218441e97eea9795de704d7f2678d0b298ecda39b544c1689669f48cba5e8"
        );
        let pcr3 = hex::encode(Pins::pcr3_of_role("arn:aws:iam::123456789012:role/Webserver"));
        assert_eq!(
            pcr3,
            "78fce75db17cd4e0a3fb8dad3ad128ca5e77edbb2b2c7f75329dccd99aa5f6ef4fc1f1a452e315b9e98f9e312e6921e6"
        );
    }
}
