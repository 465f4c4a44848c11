//! What is worth a second look in a policy that is sound.

use std::time::Duration;

use super::{ChannelRule, Pins, Policy, Standing};
use crate::{
    Timestamp,
    certificates::names::{instance_id, is_region},
    time::spoken,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Less is too little to publish the next policy and bring it to everybody.
const SOON: Duration = DAY.saturating_mul(14);

/// More is too long for a revocation to reach everybody.
const LATE: Duration = DAY.saturating_mul(366);

/// Something in a policy that is allowed, and that its author may not have meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyWarning {
    /// Little time is left.
    #[error("it expires in {}, at {expires}: publish or get the next one before", spoken(*left))]
    ExpiresSoon {
        /// The policy's expiry.
        expires: Timestamp,
        /// The time until then.
        left: Duration,
    },
    /// It stays in force for over a year.
    #[error("it expires only at {expires}: until then, who keeps this copy hears of no revocation")]
    ExpiresLate {
        /// The policy's expiry.
        expires: Timestamp,
    },
    /// No model is accepted.
    #[error("it lists no model, so no model of an accepted enclave can be used")]
    NoModel,
    /// TLS may end before the enclave.
    #[error(
        "channel = \"optional\": whoever asks for it accepts that another accepted enclave answers in an enclave's place"
    )]
    ChannelOptional,
    /// Another root than AWS's.
    #[error("its root is not AWS's: whatever it accepts is SIMULATED and protects nothing")]
    SimulatedRoot,
    /// Two entries for the same measurements.
    #[error(
        "the releases `{first}` and `{second}` are the same build: revoking one revokes both, and it ends with the later end"
    )]
    SameBuild {
        /// The earlier entry.
        first: String,
        /// The later entry.
        second: String,
    },
    /// A release whose time is over.
    #[error("release `{release}` ended at {not_after}: enclaves that still run it are refused")]
    ReleaseEnded {
        /// The release.
        release: String,
        /// Its last moment.
        not_after: Timestamp,
    },
    /// A pin that no enclave has.
    #[error("the pin {key} = `{actual}` fits no enclave, so none is accepted: {reason}")]
    PinFitsNothing {
        /// The key in the file.
        key: &'static str,
        /// The pin.
        actual: String,
        /// What it would have to be.
        reason: &'static str,
    },
}

impl PolicyWarning {
    /// A stable identifier for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::ExpiresSoon { .. } => "expires_soon",
            Self::ExpiresLate { .. } => "expires_late",
            Self::NoModel => "no_model",
            Self::ChannelOptional => "channel_optional",
            Self::SimulatedRoot => "simulated_root",
            Self::SameBuild { .. } => "same_build",
            Self::ReleaseEnded { .. } => "release_ended",
            Self::PinFitsNothing { .. } => "pin_fits_nothing",
        }
    }

    /// Everything worth a second look in `policy` at `now`.
    pub(super) fn all(policy: &Policy, now: Timestamp) -> Vec<Self> {
        let mut warnings: Vec<Self> = expiry(policy.expires, now).into_iter().collect();
        if policy.root.is_simulated() {
            warnings.push(Self::SimulatedRoot);
        }
        if policy.channel == ChannelRule::Optional {
            warnings.push(Self::ChannelOptional);
        }
        if policy.models().is_empty() {
            warnings.push(Self::NoModel);
        }
        warnings.extend(releases(policy, now));
        warnings.extend(pins(&policy.pins));
        warnings
    }
}

fn expiry(expires: Timestamp, now: Timestamp) -> Option<PolicyWarning> {
    let left = expires.since(now);
    match left {
        Duration::ZERO => None,
        _ if left < SOON => Some(PolicyWarning::ExpiresSoon { expires, left }),
        _ if left > LATE => Some(PolicyWarning::ExpiresLate { expires }),
        _ => None,
    }
}

fn releases(policy: &Policy, now: Timestamp) -> Vec<PolicyWarning> {
    let mut warnings = Vec::new();
    for (index, release) in policy.releases.iter().enumerate() {
        if let Some(first) = policy.releases[..index].iter().find(|first| first.pcrs == release.pcrs) {
            let (first, second) = (first.name.clone(), release.name.clone());
            warnings.push(PolicyWarning::SameBuild { first, second });
        }
        if let Standing::Ended { not_after } = policy.standing(release, now) {
            warnings.push(PolicyWarning::ReleaseEnded { release: release.name.clone(), not_after });
        }
    }
    warnings
}

fn pins(pins: &Pins) -> Vec<PolicyWarning> {
    let Pins { pcr3: _, pcr4, pcr8: _, module_id, region } = pins;
    let fits_nothing =
        |key, actual: &str, reason| PolicyWarning::PinFitsNothing { key, actual: actual.to_owned(), reason };
    let mut warnings = Vec::new();
    if let Some(module_id) = module_id {
        match instance_id(module_id) {
            Some(instance) => {
                if pcr4.is_some_and(|pcr4| pcr4 != Pins::pcr4_of_instance(instance)) {
                    warnings.push(fits_nothing("module_id", module_id, "the pin pcr4 is of another instance"));
                }
            }
            None => warnings.push(fits_nothing("module_id", module_id, "a module id is i-…-enc…")),
        }
    }
    if let Some(region) = region
        && !is_region(region)
    {
        warnings.push(fits_nothing("region", region, "a region is such as eu-west-1"));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PolicyModel, Release, Sha384};

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn release(name: &str, byte: u8) -> Release {
        Release { name: name.to_owned(), pcrs: [[byte; 48]; 3], not_after: None, revoked: None }
    }

    /// A policy about which there is nothing to say.
    fn policy() -> Policy {
        let mut policy = Policy::new(NOW.plus(90 * DAY));
        policy.add_release(release("1.0", 1)).unwrap();
        policy.add_model(PolicyModel { name: "iris".to_owned(), digest: Sha384([1; 48]) }).unwrap();
        policy
    }

    fn codes(policy: &Policy) -> Vec<&'static str> {
        policy.warnings(NOW).iter().map(PolicyWarning::code).collect()
    }

    #[test]
    fn a_policy_as_it_should_be_has_no_warnings() {
        assert_eq!(policy().warnings(NOW), []);
    }

    #[test]
    fn expiry_is_neither_too_near_nor_too_far() {
        let warned = |left| codes(&Policy { expires: NOW.plus(left), ..policy() });
        assert_eq!(warned(Duration::ZERO), [""; 0], "it has expired, which is more than a warning");
        assert_eq!(warned(SOON - Duration::from_millis(1)), ["expires_soon"]);
        assert_eq!(warned(SOON), [""; 0]);
        assert_eq!(warned(LATE), [""; 0]);
        assert_eq!(warned(LATE + Duration::from_millis(1)), ["expires_late"]);
    }

    #[test]
    fn what_accepts_more_or_less_than_it_seems_is_named() {
        assert_eq!(codes(&policy().with_channel(ChannelRule::Optional)), ["channel_optional"]);
        assert_eq!(codes(&Policy { models: Default::default(), ..policy() }), ["no_model"]);

        let mut twice = policy();
        twice.add_release(release("1.0 again", 1)).unwrap();
        let (first, second) = ("1.0".to_owned(), "1.0 again".to_owned());
        assert_eq!(twice.warnings(NOW), [PolicyWarning::SameBuild { first, second }]);

        let mut ended = policy();
        let not_after = NOW.minus(DAY);
        ended.add_release(Release { not_after: Some(not_after), ..release("0.9", 9) }).unwrap();
        assert_eq!(ended.warnings(NOW), [PolicyWarning::ReleaseEnded { release: "0.9".to_owned(), not_after }]);
        ended.revoke("0.9", "leaks").unwrap();
        assert_eq!(ended.warnings(NOW), [], "a revoked release is refused on purpose");
    }

    #[test]
    fn pins_that_fit_no_enclave_are_named() {
        let module_id = |text: &str| Some(text.to_owned());
        let warned = |pins| codes(&policy().with_pins(pins).unwrap());
        let instance = Some(Pins::pcr4_of_instance("i-1"));
        assert_eq!(warned(Pins { module_id: module_id("i-1-enc2"), pcr4: instance, ..Pins::default() }), [""; 0]);
        let other = Pins { module_id: module_id("i-2-enc2"), pcr4: instance, ..Pins::default() };
        assert_eq!(warned(other), ["pin_fits_nothing"]);
        for text in ["i-1", "enc2", "i-1-enc", "eu-west-1"] {
            assert_eq!(warned(Pins { module_id: module_id(text), ..Pins::default() }), ["pin_fits_nothing"], "{text}");
        }
        assert_eq!(warned(Pins { region: Some("EU (Ireland)".to_owned()), ..Pins::default() }), ["pin_fits_nothing"]);
        assert_eq!(warned(Pins { region: Some("eu-west-1".to_owned()), ..Pins::default() }), [""; 0]);
    }
}
