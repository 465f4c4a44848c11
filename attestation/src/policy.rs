//! Policies: which enclaves and models a person accepts.
//!
//! A policy is a TOML file that a person can review and a release can publish. An empty one accepts nothing. It is never
//! learned from the endpoint that it is to judge.

mod error;
mod file;
mod pins;
mod release;
mod text;
mod warning;

use std::time::Duration;

pub use error::PolicyError;
pub use pins::Pins;
pub use release::{Release, Standing};
pub use warning::PolicyWarning;

use self::text::{check_name, check_reason};
use crate::{
    AuthenticDocument, Channel, ModelError, Refusal, Root, Sha384, Timestamp, VerificationError,
    document::MAX_AGE,
    foreign::listed,
    pcrs::{MEASURED, Pcrs},
    step::Outcome,
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

    /// Reads the bytes of a policy file, as [`parse`](Self::parse) reads its text.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PolicyError> {
        file::read_bytes(bytes)
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

    /// Sets where and by whom an enclave must have been started. A pin of all zeros is refused: it pins nothing.
    pub fn with_pins(mut self, pins: Pins) -> Result<Self, PolicyError> {
        pins.check()?;
        self.source = None;
        self.pins = pins;
        Ok(self)
    }

    /// Adds a release, in place of one of the same name. None of its PCRs may be all zeros, and a revoked build stays revoked
    /// under every name.
    pub fn add_release(&mut self, release: Release) -> Result<(), PolicyError> {
        release.check()?;
        for revoked in self.releases.iter().filter(|known| known.revoked.is_some()) {
            let replaced = revoked.name == release.name && *revoked != release;
            let opened = revoked.pcrs == release.pcrs && release.revoked.is_none();
            if replaced || opened {
                return Err(PolicyError::Revoked { release: revoked.name.clone() });
            }
        }
        match self.releases.iter_mut().find(|known| known.name == release.name) {
            Some(known) => *known = release,
            None => self.releases.push(release),
        }
        self.source = None;
        Ok(())
    }

    /// Adds a model, in place of one of the same name.
    pub fn add_model(&mut self, model: PolicyModel) -> Result<(), PolicyError> {
        check_name("model", &model.name)?;
        match self.models.0.iter_mut().find(|known| known.name == model.name) {
            Some(known) => *known = model,
            None => self.models.0.push(model),
        }
        self.source = None;
        Ok(())
    }

    /// Revokes a release for good: it is refused from now on, and stored answers of it too.
    ///
    /// Revoking it again for the same reason changes nothing. Another reason is refused: what was published stays.
    pub fn revoke(&mut self, name: &str, reason: &str) -> Result<(), PolicyError> {
        check_reason(reason)?;
        let known = self.releases.iter().map(|release| release.name.clone()).collect();
        let Some(release) = self.releases.iter_mut().find(|release| release.name == name) else {
            return Err(PolicyError::UnknownRelease { name: name.to_owned(), known });
        };
        match &release.revoked {
            Some(earlier) if earlier == reason => return Ok(()),
            Some(earlier) => {
                return Err(PolicyError::AlreadyRevoked { release: name.to_owned(), reason: earlier.clone() });
            }
            None => release.revoked = Some(reason.to_owned()),
        }
        self.source = None;
        Ok(())
    }

    /// How `release`, one of [`releases`](Self::releases), stands for documents that are made at `time`. Revoking a build
    /// revokes it under all its names.
    pub fn standing<'a>(&'a self, release: &'a Release, time: Timestamp) -> Standing<'a> {
        let same_build = self.releases.iter().filter(|other| other.pcrs == release.pcrs);
        if let Some(reason) = [release].into_iter().chain(same_build).find_map(|release| release.revoked.as_deref()) {
            return Standing::Revoked { reason };
        }
        release.ended(time).map_or(Standing::Open, |not_after| Standing::Ended { not_after })
    }

    /// The releases that accept documents which are made at `time`. None, if every release has ended or is revoked; an error,
    /// if the policy is out of date at `time` or lists no release at all.
    pub fn open_releases(&self, time: Timestamp) -> Result<Vec<&Release>, VerificationError> {
        self.check_in_force(time)?;
        if self.releases.is_empty() {
            return Err(VerificationError::EmptyPolicy);
        }
        let open = |release: &&Release| self.standing(release, time) == Standing::Open;
        Ok(self.releases.iter().filter(open).collect())
    }

    /// The release as which a build is accepted, of which PCR0, 1 and 2 are known: what the last step of verification says of
    /// a document that it makes at `time`, as far as these registers decide.
    pub fn release_measured(&self, pcrs: &[[u8; 48]; 3], time: Timestamp) -> Result<&Release, VerificationError> {
        self.check_in_force(time)?;
        self.release_by_pcrs(&MEASURED.into_iter().zip(*pcrs).collect(), time)
    }

    /// What its author may not have meant, although it is sound.
    pub fn warnings(&self, now: Timestamp) -> Vec<PolicyWarning> {
        PolicyWarning::all(self, now)
    }

    pub(crate) fn accepted_models(&self) -> &Models {
        &self.models
    }

    /// The name of the release that `document` is of: expiry now, end of the release at the document's time, revocation always.
    pub(crate) fn release_of<T>(&self, document: &AuthenticDocument<T>, now: Timestamp) -> Outcome<String> {
        // 12.1
        self.check_in_force(now)?;
        // 12.2
        if document.root != self.root {
            let expected = self.root.fingerprint().to_owned();
            return Err(VerificationError::RootMismatch { expected, actual: document.root.fingerprint().to_owned() });
        }
        let release = self.release_by_pcrs(document.pcrs(), document.timestamp())?;
        // 12.7
        self.pins.admit(document)?;
        Ok((release.name.clone(), release.to_string()))
    }

    fn check_in_force(&self, now: Timestamp) -> Result<(), VerificationError> {
        if self.is_expired(now) {
            return Err(VerificationError::PolicyExpired { now, expires: self.expires });
        }
        Ok(())
    }

    /// The release that was measured into `pcrs`; a revoked one counts before any other of the same build.
    fn release_by_pcrs(&self, pcrs: &Pcrs, document: Timestamp) -> Result<&Release, VerificationError> {
        let nearest = self.releases.iter().rev().max_by_key(|release| release.rank(pcrs, document));
        // 12.3
        let release = nearest.ok_or(VerificationError::EmptyPolicy)?;
        let name = || release.name.clone();
        // 12.4
        let measured = pcrs.measured()?;
        for ((index, expected), actual) in MEASURED.into_iter().zip(&release.pcrs).zip(&measured) {
            if actual != expected {
                let (expected, actual) = (hex::encode(expected), hex::encode(actual));
                let measured = measured.into();
                return Err(VerificationError::PcrMismatch { index, release: name(), expected, actual, measured });
            }
        }
        // 12.5 and 12.6
        match self.standing(release, document) {
            Standing::Open => Ok(release),
            Standing::Ended { not_after } => {
                Err(VerificationError::ReleaseEnded { release: name(), document, not_after })
            }
            Standing::Revoked { reason } => {
                Err(VerificationError::ReleaseRevoked { release: name(), reason: reason.to_owned() })
            }
        }
    }

    /// 12.9: requires that the document is not older than this policy allows, which may be less than any policy has to.
    pub(crate) fn check_age(&self, document: Timestamp, now: Timestamp) -> Result<(), VerificationError> {
        if document < now.minus(self.max_age) {
            return Err(VerificationError::OlderThanPolicyAllows { now, document, max_age: self.max_age });
        }
        Ok(())
    }

    /// What passes 12.1 to 12.7, in a line.
    pub(crate) fn summary(&self) -> String {
        let Self { expires, releases, pins, .. } = self;
        let releases = listed(releases.iter().map(|release| &release.name));
        let pins = if *pins == Pins::default() { "" } else { " and its pins" };
        format!("a release of the policy ({releases}){pins}, in force until {expires}")
    }

    /// What passes all of step 12, in a line.
    pub(crate) fn summary_of_connection(&self) -> String {
        let channel = match self.channel {
            ChannelRule::Required => "over TLS that ends in the enclave",
            ChannelRule::Optional => "over any channel",
        };
        format!("{}; {channel}", self.summary())
    }

    /// What step 12.8 will say of a connection over `channel`, before there is one.
    pub fn check_channel(&self, channel: &Channel) -> Result<(), Refusal> {
        self.allow_channel(channel).map_err(|error| Refusal {
            error: error.into(),
            expected: self.summary_of_connection(),
            passed: Vec::new(),
        })
    }

    /// 12.8: requires that TLS ends in the enclave, unless the policy says that it need not.
    pub(crate) fn allow_channel(&self, channel: &Channel) -> Result<(), VerificationError> {
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
        assert_eq!(policy(&[]).release_by_pcrs(&document([1, 2, 3]), NOW), Err(VerificationError::EmptyPolicy));
    }

    #[test]
    fn a_revoked_release_is_not_added_again() {
        let mut policy = policy(&[("1.0", [1, 2, 3])]);
        policy.revoke("1.0", "leaked").unwrap();
        let reworded = Release { revoked: Some("harmless".to_owned()), ..release("1.0", [1, 2, 3]) };
        assert_eq!(policy.add_release(reworded).unwrap_err().code(), "policy_revoked");
        let replaced = Release { revoked: Some("other".to_owned()), ..release("1.0", [4, 5, 6]) };
        assert_eq!(policy.add_release(replaced).unwrap_err().code(), "policy_revoked");
        for (name, values) in [("1.0", [1, 2, 3]), ("1.0", [4, 5, 6]), ("1.0 again", [1, 2, 3])] {
            let refused = PolicyError::Revoked { release: "1.0".to_owned() };
            assert_eq!(policy.add_release(release(name, values)), Err(refused));
        }
        assert_eq!(policy.releases()[0].revoked.as_deref(), Some("leaked"));
    }

    #[test]
    fn every_register_counts() {
        let policy = policy(&[("1.0", [1, 2, 3])]);
        assert_eq!(policy.release_by_pcrs(&document([1, 2, 3]), NOW).unwrap().name, "1.0");
        for (index, values) in [(0, [9, 2, 3]), (1, [1, 9, 3]), (2, [1, 2, 9])] {
            let error = policy.release_by_pcrs(&document(values), NOW).unwrap_err();
            assert!(matches!(error, VerificationError::PcrMismatch { index: found, .. } if found == index), "{error}");
        }
    }

    #[test]
    fn a_missing_register_is_refused() {
        let policy = policy(&[("1.0", [1, 2, 3])]);
        for missing in MEASURED {
            let others = MEASURED.into_iter().zip(pcrs([1, 2, 3])).filter(|(index, _)| *index != missing);
            assert!(policy.release_by_pcrs(&others.collect(), NOW).is_err());
        }
        assert!(policy.release_by_pcrs(&Pcrs::default(), NOW).is_err());
    }

    #[test]
    fn the_nearest_release_shares_most_registers_else_is_the_first() {
        let policy = policy(&[("first", [1, 2, 3]), ("near", [4, 5, 6])]);
        let nearest = |values| match policy.release_by_pcrs(&document(values), NOW) {
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
        assert_eq!(policy.release_by_pcrs(&document([1, 2, 3]), NOW), Err(expected));
    }

    #[test]
    fn a_release_is_revoked_once_and_for_one_reason() {
        let mut policy = policy(&[("1.0", [1, 2, 3]), ("1.1", [4, 5, 6])]);
        let known = vec!["1.0".to_owned(), "1.1".to_owned()];
        let unknown = PolicyError::UnknownRelease { name: "other".to_owned(), known };
        assert_eq!(policy.revoke("other", "leaks"), Err(unknown));
        policy.revoke("1.0", "leaks").unwrap();
        assert_eq!(policy.revoke("1.0", "leaks"), Ok(()));
        let refused = PolicyError::AlreadyRevoked { release: "1.0".to_owned(), reason: "leaks".to_owned() };
        assert_eq!(policy.revoke("1.0", "it is slow"), Err(refused));
        assert_eq!(policy.revoke("1.1", "two\nlines").unwrap_err().code(), "policy_unprintable");
        assert_eq!(policy.releases()[1].revoked, None);
    }

    #[test]
    fn a_revoked_release_is_refused_at_every_time() {
        let mut policy = policy(&[("1.0", [1, 2, 3])]);
        policy.revoke("1.0", "leaks").unwrap();
        for document in [Timestamp::from_millis(0), NOW.minus(Duration::from_secs(86_400)), NOW] {
            let refused = policy.release_by_pcrs(&self::document([1, 2, 3]), document).unwrap_err();
            assert_eq!(refused.code(), "release_revoked", "{document}");
        }
    }

    #[test]
    fn releases_stand_as_they_are_judged() {
        let later = NOW.plus(Duration::from_millis(1));
        let mut policy = Policy::new(later.plus(Duration::from_secs(1)));
        policy.add_release(release("open", [1, 1, 1])).unwrap();
        policy.add_release(Release { not_after: Some(NOW), ..release("ended", [2, 2, 2]) }).unwrap();
        policy.add_release(release("withdrawn", [3, 3, 3])).unwrap();
        policy.add_release(release("same build", [3, 3, 3])).unwrap();
        policy.revoke("withdrawn", "leaks").unwrap();

        let expected = [
            Standing::Open,
            Standing::Ended { not_after: NOW },
            Standing::Revoked { reason: "leaks" },
            Standing::Revoked { reason: "leaks" },
        ];
        for (release, expected) in policy.releases().iter().zip(expected) {
            assert_eq!(policy.standing(release, later), expected);
            let judged = policy.release_measured(&release.pcrs, later).map(|found| found.name.as_str());
            assert_eq!(judged.is_ok(), expected == Standing::Open, "{judged:?}");
        }
        let names = |time| policy.open_releases(time).unwrap().iter().map(|r| r.name.as_str()).collect::<Vec<_>>();
        assert_eq!(names(later), ["open"]);
        assert_eq!(names(NOW), ["open", "ended"]);
    }

    #[test]
    fn a_policy_that_accepts_nothing_says_why() {
        let before = NOW.minus(Duration::from_millis(1));
        assert_eq!(policy(&[]).open_releases(before), Err(VerificationError::EmptyPolicy));
        let expired = VerificationError::PolicyExpired { now: NOW, expires: NOW };
        let mut policy = policy(&[("1.0", [1, 2, 3])]);
        assert_eq!(policy.open_releases(NOW), Err(expired.clone()));
        assert_eq!(policy.release_measured(&pcrs([1, 2, 3]), NOW), Err(expired));
        assert_eq!(policy.release_measured(&pcrs([1, 2, 9]), before).unwrap_err().code(), "pcr_mismatch");
        policy.revoke("1.0", "leaks").unwrap();
        assert_eq!(policy.open_releases(before), Ok(Vec::new()));
    }

    #[test]
    fn zeros_are_accepted_by_no_policy() {
        let before = NOW.minus(Duration::from_millis(1));
        let policy = policy(&[("1.0", [1, 2, 3])]);
        for debug in [[0, 0, 0], [0, 2, 3], [1, 0, 3], [1, 2, 0]] {
            assert_eq!(policy.release_measured(&pcrs(debug), before).unwrap_err().code(), "pcr_mismatch");
        }
    }

    #[test]
    fn names_that_cannot_be_shown_are_not_added() {
        let mut policy = Policy::new(NOW);
        assert_eq!(policy.add_release(release("1.0\n", [1, 2, 3])).unwrap_err().code(), "policy_unprintable");
        let model = PolicyModel { name: "iris\u{202e}".to_owned(), digest: Sha384([1; 48]) };
        assert_eq!(policy.add_model(model).unwrap_err().code(), "policy_unprintable");
        assert!(policy.releases().is_empty() && policy.models().is_empty());
    }

    #[test]
    fn a_pin_of_zeros_is_not_set() {
        let pins = Pins { pcr3: Some([0; 48]), ..Pins::default() };
        assert_eq!(Policy::new(NOW).with_pins(pins).unwrap_err(), PolicyError::ZeroPin { index: 3 });
    }

    #[test]
    fn a_release_ends_at_the_documents_time() {
        let mut policy = Policy::new(NOW);
        policy.add_release(Release { not_after: Some(NOW), ..release("old", [1, 2, 3]) }).unwrap();
        assert!(policy.release_by_pcrs(&document([1, 2, 3]), NOW).is_ok());
        let later = NOW.plus(Duration::from_millis(1));
        let ended = VerificationError::ReleaseEnded { release: "old".to_owned(), document: later, not_after: NOW };
        assert_eq!(policy.release_by_pcrs(&document([1, 2, 3]), later), Err(ended));
    }

    #[test]
    fn a_build_that_is_listed_twice_is_accepted_while_one_entry_is_open() {
        let mut policy = Policy::new(NOW);
        let before = NOW.minus(Duration::from_millis(1));
        policy.add_release(Release { not_after: Some(before), ..release("old name", [1, 2, 3]) }).unwrap();
        policy.add_release(release("new name", [1, 2, 3])).unwrap();
        assert_eq!(policy.release_by_pcrs(&document([1, 2, 3]), NOW).unwrap().name, "new name");
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
            policy.add_model(PolicyModel { name: "iris".to_owned(), digest: Sha384([digest; 48]) }).unwrap();
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
