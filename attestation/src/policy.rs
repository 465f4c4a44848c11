//! Policies: which enclaves and models a person accepts.
//!
//! A policy is a TOML file that a person can review and a release can publish. An empty one accepts nothing. It is never
//! learned from the endpoint that it is to judge.

mod error;
mod file;
mod release;

use std::time::Duration;

pub use error::PolicyError;
pub use release::Release;

use crate::{
    AuthenticDocument, Channel, ModelError, Root, Sha384, Timestamp, VerificationError,
    document::MAX_AGE,
    pcrs::{MEASURED, Pcrs},
};

/// What is accepted, and until when.
#[derive(Clone, Debug)]
pub struct Policy {
    expires: Timestamp,
    channel: ChannelRule,
    max_age: Duration,
    root: Root,
    releases: Vec<Release>,
    models: Models,
    pins: Pins,
    /// The digest of the text it was read from; none once it was changed.
    source: Option<Sha384>,
}

impl Policy {
    /// A policy that accepts nothing yet: AWS's root, an attested channel, documents of the last five minutes.
    pub fn new(expires: Timestamp) -> Self {
        Self {
            expires,
            channel: ChannelRule::Required,
            max_age: MAX_AGE,
            root: Root::aws_nitro_g1(),
            releases: Vec::new(),
            models: Models::default(),
            pins: Pins::default(),
            source: None,
        }
    }

    /// Reads a policy file, at most 1 MiB. Unknown keys are errors.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        file::read(text)
    }

    /// Writes a policy file: the same policy always gives the same text, with comments for who reviews it.
    pub fn to_toml(&self) -> String {
        file::write(self)
    }

    /// The digest of the text that it was read from, or that it would be written to.
    pub fn digest(&self) -> Sha384 {
        self.source.unwrap_or_else(|| Sha384::of(self.to_toml().as_bytes()))
    }

    /// From when on it accepts nothing.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// Whether it is out of date at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.expires
    }

    /// Whether TLS has to end in the enclave.
    pub fn channel(&self) -> ChannelRule {
        self.channel
    }

    /// The age that a document may have when a connection is attested; five minutes at most.
    pub fn max_age(&self) -> Duration {
        self.max_age
    }

    /// The root that documents have to be under.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The releases, in the order of the file.
    pub fn releases(&self) -> &[Release] {
        &self.releases
    }

    /// The models, in the order of the file.
    pub fn models(&self) -> &[PolicyModel] {
        &self.models.0
    }

    /// Where and by whom an enclave must have been started.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Judges under another root than AWS's: everything accepted is then simulated.
    pub fn with_root(mut self, root: Root) -> Self {
        self.source = None;
        self.root = root;
        self
    }

    /// Sets whether TLS has to end in the enclave.
    pub fn with_channel(mut self, channel: ChannelRule) -> Self {
        self.source = None;
        self.channel = channel;
        self
    }

    /// Sets where and by whom an enclave must have been started.
    pub fn with_pins(mut self, pins: Pins) -> Self {
        self.source = None;
        self.pins = pins;
        self
    }

    /// Adds a release, in place of one of the same name. None of its PCRs may be all zeros, and a revoked one stays revoked.
    pub fn add_release(&mut self, release: Release) -> Result<(), PolicyError> {
        release.check()?;
        match self.releases.iter_mut().find(|known| known.name == release.name) {
            Some(known) if known.revoked.is_some() && release.revoked.is_none() => {
                return Err(PolicyError::Revoked { release: release.name });
            }
            Some(known) => *known = release,
            None => self.releases.push(release),
        }
        self.source = None;
        Ok(())
    }

    /// Adds a model, in place of one of the same name.
    pub fn add_model(&mut self, model: PolicyModel) {
        self.source = None;
        match self.models.0.iter_mut().find(|known| known.name == model.name) {
            Some(known) => *known = model,
            None => self.models.0.push(model),
        }
    }

    /// Revokes a release for good: it is refused from now on, and stored answers of it too.
    pub fn revoke(&mut self, name: &str, reason: &str) -> Result<(), PolicyError> {
        let Some(release) = self.releases.iter_mut().find(|release| release.name == name) else {
            return Err(PolicyError::UnknownRelease { name: name.to_owned() });
        };
        self.source = None;
        release.revoked = Some(reason.to_owned());
        Ok(())
    }

    pub(crate) fn accepted_models(&self) -> &Models {
        &self.models
    }

    /// The release that `document` is of: expiry now, end of the release at the document's time, revocation always.
    pub(crate) fn release_of<T>(
        &self,
        document: &AuthenticDocument<T>,
        now: Timestamp,
    ) -> Result<&Release, VerificationError> {
        if self.is_expired(now) {
            return Err(VerificationError::PolicyExpired { now, expires: self.expires });
        }
        if document.root != self.root {
            let expected = self.root.fingerprint().to_owned();
            return Err(VerificationError::RootMismatch { expected, actual: document.root.fingerprint().to_owned() });
        }
        let release = self.measured_release(document.pcrs(), document.timestamp())?;
        self.pins.check(document)?;
        Ok(release)
    }

    /// The release that was measured into `pcrs`; a revoked one counts before any other of the same build.
    fn measured_release(&self, pcrs: &Pcrs, document: Timestamp) -> Result<&Release, VerificationError> {
        let nearest = self.releases.iter().rev().max_by_key(|release| release.rank(pcrs, document));
        let release = nearest.ok_or(VerificationError::EmptyPolicy)?;
        let Release { name, pcrs: expected, not_after, revoked } = release;
        for (index, expected) in MEASURED.into_iter().zip(expected) {
            let actual = pcrs.register(index).ok_or(VerificationError::PcrMissing { index })?;
            if actual != expected {
                let (expected, actual) = (hex::encode(expected), hex::encode(actual));
                return Err(VerificationError::PcrMismatch { index, release: name.clone(), expected, actual });
            }
        }
        if let Some(reason) = revoked {
            return Err(VerificationError::ReleaseRevoked { release: name.clone(), reason: reason.clone() });
        }
        match not_after {
            Some(not_after) if document > *not_after => {
                Err(VerificationError::ReleaseEnded { release: name.clone(), document, not_after: *not_after })
            }
            _ => Ok(release),
        }
    }

    pub(crate) fn check_channel(&self, channel: &Channel) -> Result<(), VerificationError> {
        match (self.channel, channel) {
            (ChannelRule::Required, Channel::None) => Err(VerificationError::ChannelRequired),
            (ChannelRule::Required | ChannelRule::Optional, Channel::TlsExporter(_))
            | (ChannelRule::Optional, Channel::None) => Ok(()),
        }
    }
}

/// Whether TLS has to end in the enclave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelRule {
    /// `channel = "required"`: it has to.
    #[default]
    Required,
    /// `channel = "optional"`: the caller may ask for an enclave behind somebody else's TLS.
    Optional,
}

/// A model that is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyModel {
    /// The name that requests ask for.
    pub name: String,
    /// The digest of its bundle.
    pub digest: Sha384,
}

/// The models of a policy, each name once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Models(Vec<PolicyModel>);

impl Models {
    /// Requires that the bundle that is served under `name` is the accepted one.
    pub(crate) fn check(&self, name: &str, actual: Sha384) -> Result<(), ModelError> {
        match self.0.iter().find(|model| model.name == name) {
            Some(model) if model.digest == actual => Ok(()),
            Some(PolicyModel { digest, .. }) => {
                Err(ModelError::DigestMismatch { name: name.to_owned(), expected: *digest, actual })
            }
            None => Err(ModelError::NotInPolicy { name: name.to_owned(), digest: actual }),
        }
    }
}

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
    fn check<T>(&self, document: &AuthenticDocument<T>) -> Result<(), VerificationError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn pcrs(values: [u8; 3]) -> [[u8; 48]; 3] {
        values.map(|value| [value; 48])
    }

    fn release(name: &str, values: [u8; 3]) -> Release {
        Release { name: name.to_owned(), pcrs: pcrs(values), not_after: None, revoked: None }
    }

    fn document(values: [u8; 3]) -> Pcrs {
        MEASURED.into_iter().zip(pcrs(values)).collect()
    }

    fn policy(releases: &[(&str, [u8; 3])]) -> Policy {
        let mut policy = Policy::new(NOW);
        for (name, values) in releases {
            policy.add_release(release(name, *values)).unwrap();
        }
        policy
    }

    #[test]
    fn an_empty_policy_accepts_nothing() {
        assert_eq!(policy(&[]).measured_release(&document([1, 2, 3]), NOW), Err(VerificationError::EmptyPolicy));
    }

    #[test]
    fn a_revoked_release_is_not_added_again() {
        let mut policy = policy(&[("1.0", [1, 2, 3])]);
        policy.revoke("1.0", "leaked").unwrap();
        let error = policy.add_release(release("1.0", [1, 2, 3])).unwrap_err();
        assert_eq!(error.code(), "policy_revoked");
        assert_eq!(policy.releases()[0].revoked.as_deref(), Some("leaked"));
    }

    #[test]
    fn every_register_counts() {
        let policy = policy(&[("1.0", [1, 2, 3])]);
        assert_eq!(policy.measured_release(&document([1, 2, 3]), NOW).unwrap().name, "1.0");
        for (index, values) in [(0, [9, 2, 3]), (1, [1, 9, 3]), (2, [1, 2, 9])] {
            let error = policy.measured_release(&document(values), NOW).unwrap_err();
            assert!(matches!(error, VerificationError::PcrMismatch { index: found, .. } if found == index), "{error}");
        }
    }

    #[test]
    fn a_missing_register_is_refused() {
        let policy = policy(&[("1.0", [1, 2, 3])]);
        for missing in MEASURED {
            let others = MEASURED.into_iter().zip(pcrs([1, 2, 3])).filter(|(index, _)| *index != missing);
            assert!(policy.measured_release(&others.collect(), NOW).is_err());
        }
        assert!(policy.measured_release(&Pcrs::default(), NOW).is_err());
    }

    #[test]
    fn the_nearest_release_shares_most_registers_else_is_the_first() {
        let policy = policy(&[("first", [1, 2, 3]), ("near", [4, 5, 6])]);
        let nearest = |values| match policy.measured_release(&document(values), NOW) {
            Err(VerificationError::PcrMismatch { index, release, .. }) => (index, release),
            other => panic!("{other:?}"),
        };
        assert_eq!(nearest([9, 5, 6]), (0, "near".to_owned()));
        assert_eq!(nearest([1, 5, 6]), (0, "near".to_owned()));
        assert_eq!(nearest([1, 2, 6]), (2, "first".to_owned()));
        assert_eq!(nearest([7, 8, 9]), (0, "first".to_owned()));
    }

    #[test]
    fn revocation_wins_over_every_other_entry() {
        let mut policy = policy(&[("good", [1, 2, 3]), ("same build", [1, 2, 3])]);
        policy.revoke("same build", "leaks").unwrap();
        let expected =
            VerificationError::ReleaseRevoked { release: "same build".to_owned(), reason: "leaks".to_owned() };
        assert_eq!(policy.measured_release(&document([1, 2, 3]), NOW), Err(expected));
        assert_eq!(policy.revoke("other", "x"), Err(PolicyError::UnknownRelease { name: "other".to_owned() }));
    }

    #[test]
    fn a_release_ends_at_the_documents_time() {
        let mut policy = Policy::new(NOW);
        policy.add_release(Release { not_after: Some(NOW), ..release("old", [1, 2, 3]) }).unwrap();
        assert!(policy.measured_release(&document([1, 2, 3]), NOW).is_ok());
        let later = NOW.plus(Duration::from_millis(1));
        let ended = VerificationError::ReleaseEnded { release: "old".to_owned(), document: later, not_after: NOW };
        assert_eq!(policy.measured_release(&document([1, 2, 3]), later), Err(ended));
    }

    #[test]
    fn a_build_that_is_listed_twice_is_accepted_while_one_entry_is_open() {
        let mut policy = Policy::new(NOW);
        let before = NOW.minus(Duration::from_millis(1));
        policy.add_release(Release { not_after: Some(before), ..release("old name", [1, 2, 3]) }).unwrap();
        policy.add_release(release("new name", [1, 2, 3])).unwrap();
        assert_eq!(policy.measured_release(&document([1, 2, 3]), NOW).unwrap().name, "new name");
    }

    #[test]
    fn a_release_with_a_zero_register_is_refused() {
        let refused = Policy::new(NOW).add_release(release("debug", [1, 0, 3]));
        assert_eq!(refused, Err(PolicyError::ZeroPcr { release: "debug".to_owned(), index: 1 }));
    }

    #[test]
    fn adding_replaces_by_name() {
        let mut policy = policy(&[("1.0", [1, 2, 3])]);
        policy.add_release(release("1.0", [4, 5, 6])).unwrap();
        assert_eq!(policy.releases().len(), 1);
        assert_eq!(policy.releases()[0].pcrs, pcrs([4, 5, 6]));
        for digest in [1, 2] {
            policy.add_model(PolicyModel { name: "iris".to_owned(), digest: Sha384([digest; 48]) });
        }
        assert_eq!(policy.models(), [PolicyModel { name: "iris".to_owned(), digest: Sha384([2; 48]) }]);
    }

    #[test]
    fn a_model_is_accepted_by_name_and_digest() {
        let models = Models(vec![PolicyModel { name: "iris".to_owned(), digest: Sha384([1; 48]) }]);
        assert_eq!(models.check("iris", Sha384([1; 48])), Ok(()));
        assert_eq!(models.check("iris", Sha384([2; 48])).unwrap_err().code(), "model_digest_mismatch");
        assert_eq!(models.check("digits", Sha384([1; 48])).unwrap_err().code(), "model_not_in_policy");
    }

    #[test]
    fn expiry_is_the_first_moment_that_is_too_late() {
        let policy = Policy::new(NOW);
        assert!(!policy.is_expired(NOW.minus(Duration::from_millis(1))));
        assert!(policy.is_expired(NOW));
    }
}
