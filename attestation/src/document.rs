//! Attestation documents: read, then authenticated. Each step consumes the last one's type.

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};

use crate::{
    CertificateCache, Challenge, FreshDocument, Pcrs, Policy, Presentation, Refusal, Root, Step, StepReport, Timestamp,
    VerificationError,
    certificates::Certificates,
    chain,
    cose::{ES384, Sign1},
    foreign::foreign,
    fresh::check_nonce,
    payload::Payload,
    pcrs::{MEASURED, ZERO},
    step::{Journal, Outcome},
    time::spoken,
};

/// The NSM writes about 5 KiB; its own limit is 16 KiB.
const MAX_DOCUMENT: usize = 16 * 1024;

/// CBOR tag 18, COSE_Sign1 (RFC 9052 §2). The NSM omits it, its specification allows it.
const TAG_18: u8 = 0xd2;

/// How far a document may be from the verifier's clock, either way.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(5 * 60);

/// The mode in which a document was authenticated against the clock: it may lead to a connection.
#[derive(Clone, Copy, Debug)]
pub enum Live {}

/// The mode in which a document was authenticated as of some past time: it never leads to a connection.
#[derive(Clone, Copy, Debug)]
pub enum Archival {}

/// The time as of which a document is judged.
#[derive(Clone, Copy, Debug)]
pub struct At<T> {
    accepted: Accepted,
    mode: PhantomData<fn() -> T>,
}

/// The times at which a document may have been made.
#[derive(Clone, Copy, Debug)]
enum Accepted {
    Any,
    Until(Timestamp),
    Around(Timestamp),
}

impl At<Live> {
    /// Now, by the verifier's own clock.
    pub fn now(clock: Timestamp) -> Self {
        Self { accepted: Accepted::Around(clock), mode: PhantomData }
    }
}

impl At<Archival> {
    /// The document's own time: was it authentic when it was made?
    pub fn document() -> Self {
        Self { accepted: Accepted::Any, mode: PhantomData }
    }

    /// The document's own time, which must not be after `clock` by more than clocks may differ, 5 minutes.
    pub fn document_until(clock: Timestamp) -> Self {
        Self { accepted: Accepted::Until(clock), mode: PhantomData }
    }

    /// A chosen time, judged as strictly as now.
    pub fn instant(clock: Timestamp) -> Self {
        Self { accepted: Accepted::Around(clock), mode: PhantomData }
    }
}

impl fmt::Display for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any time: judged as of when it was made"),
            Self::Until(clock) => {
                write!(f, "made at most {} after {clock}: judged as of when it was made", spoken(MAX_AGE))
            }
            Self::Around(clock) => write!(f, "made within {} of {clock}", spoken(MAX_AGE)),
        }
    }
}

/// A document that was read, of which nothing is believed yet.
#[derive(Clone, Debug)]
pub struct UnverifiedDocument {
    bytes: Vec<u8>,
    sign1: Sign1,
    payload: Payload,
    journal: Journal,
}

impl UnverifiedDocument {
    /// Steps 1 to 3: size, COSE and payload.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut journal = Journal::default();

        // 1. Size
        journal.note(Step::Size, format!("at most {MAX_DOCUMENT} bytes"), check_size(bytes))?;

        // 2. COSE
        let expected = "a COSE_Sign1 in its one encoding: ES384, no other header, 96 bytes of signature";
        let sign1 = journal.note(Step::Cose, expected, read_cose(bytes))?;

        // 3. Payload
        let expected = "the nine keys of a document, each once and of its type";
        let payload = journal.note(Step::Payload, expected, read_payload(&sign1))?;

        Ok(Self { bytes: bytes.to_vec(), sign1, payload, journal })
    }

    /// The time that the document claims. Only an enclave reading its own document may believe it.
    pub fn claimed_timestamp(&self) -> Timestamp {
        self.payload.timestamp
    }

    /// Steps 4 to 8: certificates, chain, signature, time and debug mode.
    pub fn authenticate<T>(self, root: &Root, at: At<T>) -> Result<AuthenticDocument<T>, Refusal> {
        self.authenticate_with(root, at, &CertificateCache::new(0))
    }

    /// As [`authenticate`](Self::authenticate), and as strict: only what follows from the certificates alone, their profile
    /// and signatures, is not computed again for those in `cache`. Their names, and their validity when the document was
    /// made, are.
    pub fn authenticate_with<T>(
        self,
        root: &Root,
        at: At<T>,
        cache: &CertificateCache,
    ) -> Result<AuthenticDocument<T>, Refusal> {
        let Self { bytes, sign1, payload, mut journal } = self;
        let known = cache.find(root, &payload);
        let again = known.is_some();

        // 4. Certificates
        let expected = format!("{}, then four certificates of the Nitro profile, for this enclave", described(root));
        let read = || Certificates::read(&payload, root).map(Arc::new);
        let named = known.map_or_else(read, Ok).and_then(|certificates| check_names(&payload, certificates, again));
        let (certificates, region) = journal.note(Step::Certificates, expected, named)?;

        // 5. Chain, at the document's own time; step 7 ties that time to the clock
        let expected =
            format!("ECDSA P-384 signatures up to the root, all certificates valid at {}", payload.timestamp);
        journal.note(Step::Chain, expected, check_chain(&payload, root, &certificates, again))?;
        if !again {
            cache.insert(root, &payload, &certificates);
        }

        // 6. Signature
        let expected = "ECDSA P-384 by the leaf's key, over header and payload";
        journal.note(Step::Signature, expected, check_signature(&sign1, &certificates.key))?;

        // 7. Time
        journal.note(Step::Time, at.accepted.to_string(), check_time(payload.timestamp, at.accepted))?;

        // 8. Debug mode
        journal.note(Step::Debug, "PCR0, 1 and 2 present, none of them all zeros", check_debug(&payload.pcrs))?;

        Ok(AuthenticDocument { bytes, payload, root: root.clone(), region, journal, mode: PhantomData })
    }
}

fn check_size(bytes: &[u8]) -> Outcome<()> {
    // 1.1
    if bytes.len() > MAX_DOCUMENT {
        return Err(VerificationError::TooLarge { limit: MAX_DOCUMENT, actual: bytes.len() });
    }
    Ok(((), format!("{} bytes", bytes.len())))
}

/// One optional tag 18, then exactly one encoding.
fn read_cose(bytes: &[u8]) -> Outcome<Sign1> {
    // 2.1
    let untagged = bytes.strip_prefix(&[TAG_18]);
    let sign1 = Sign1::parse(untagged.unwrap_or(bytes), ES384)?;
    let tag = if untagged.is_some() { "with tag 18" } else { "untagged" };
    Ok((sign1, format!("COSE_Sign1 with ES384, {tag}")))
}

fn read_payload(sign1: &Sign1) -> Outcome<Payload> {
    let payload = Payload::parse(&sign1.payload)?;
    let found = format!("{}, {} PCRs", foreign(&payload.module_id), payload.pcrs.iter().count());
    Ok((payload, found))
}

fn check_names(
    payload: &Payload,
    certificates: Arc<Certificates>,
    again: bool,
) -> Outcome<(Arc<Certificates>, String)> {
    let region = certificates.check_names(payload)?;
    let found = format!("leaf {}, region {region}{}", foreign(&certificates.leaf_name), source(again));
    Ok(((certificates, region), found))
}

fn check_chain(payload: &Payload, root: &Root, certificates: &Certificates, again: bool) -> Outcome<()> {
    let (not_before, not_after) = certificates.check_validity(payload.timestamp)?;
    if !again {
        chain::verify(payload, root)?;
    }
    Ok(((), format!("valid from {not_before} to {not_after}{}", source(again))))
}

/// Where a result about certificates is from.
fn source(again: bool) -> &'static str {
    if again { ", as verified before" } else { "" }
}

fn check_signature(sign1: &Sign1, key: &[u8]) -> Outcome<()> {
    // 6.1
    match UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key).verify(&sign1.signed, &sign1.signature) {
        Ok(()) => Ok(((), "by the leaf's key".to_owned())),
        Err(_) => Err(VerificationError::Signature),
    }
}

fn check_time(document: Timestamp, accepted: Accepted) -> Outcome<()> {
    let (earliest, now) = match accepted {
        Accepted::Any => return Ok(((), format!("made at {document}"))),
        Accepted::Until(now) => (Timestamp::from_millis(0), now),
        Accepted::Around(now) => (now.minus(MAX_AGE), now),
    };
    // 7.1
    if document < earliest {
        return Err(VerificationError::DocumentTooOld { now, document, max_age: MAX_AGE });
    }
    // 7.2
    if document > now.plus(MAX_AGE) {
        return Err(VerificationError::DocumentInFuture { now, document, leeway: MAX_AGE });
    }
    let distance = if now < document {
        format!("{} ahead of the clock", spoken(document.since(now)))
    } else {
        format!("{} ago", spoken(now.since(document)))
    };
    Ok(((), format!("made at {document}, {distance}")))
}

fn check_debug(pcrs: &Pcrs) -> Outcome<()> {
    let mut found = Vec::new();
    for index in MEASURED {
        // 8.1
        let pcr = pcrs.register(index).ok_or(VerificationError::PcrMissing { index })?;
        // 8.2
        if *pcr == ZERO {
            return Err(VerificationError::DebugMode { index });
        }
        found.push(format!("PCR{index} {}…", hex::encode(&pcr[..4])));
    }
    Ok(((), found.join(", ")))
}

fn described(root: &Root) -> String {
    let who = if root.is_simulated() { "SIMULATED" } else { "AWS Nitro G1" };
    format!("root {who} ({}…)", &root.fingerprint()[..8])
}

/// A field of a document, for people.
pub(crate) fn shown(field: Option<&[u8]>) -> String {
    field.map_or_else(|| "absent".to_owned(), hex::encode)
}

/// A document that a genuine (or simulated) NSM signed for an enclave that is not in debug mode.
///
/// Which program it describes, and whether it answers anybody, is not known yet.
#[derive(Debug)]
pub struct AuthenticDocument<T> {
    pub(crate) bytes: Vec<u8>,
    pub(crate) payload: Payload,
    pub(crate) root: Root,
    pub(crate) region: String,
    pub(crate) journal: Journal,
    mode: PhantomData<fn() -> T>,
}

impl<T> AuthenticDocument<T> {
    /// The enclave, `i-…-enc…`.
    pub fn module_id(&self) -> &str {
        &self.payload.module_id
    }

    /// The AWS region, from the leaf's name.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// When the NSM signed it, by the NSM's clock.
    pub fn timestamp(&self) -> Timestamp {
        self.payload.timestamp
    }

    /// What was measured.
    pub fn pcrs(&self) -> &Pcrs {
        &self.payload.pcrs
    }

    /// The key that the enclave asked the NSM to vouch for.
    pub fn public_key(&self) -> Option<&[u8]> {
        self.payload.public_key.as_deref()
    }

    /// What else the enclave asked the NSM to vouch for.
    pub fn user_data(&self) -> Option<&[u8]> {
        self.payload.user_data.as_deref()
    }

    /// The nonce that the enclave gave to the NSM.
    pub fn nonce(&self) -> Option<&[u8]> {
        self.payload.nonce.as_deref()
    }

    /// Whether the root is any other than AWS's.
    pub fn simulated(&self) -> bool {
        self.root.is_simulated()
    }

    /// The steps passed so far.
    pub fn steps(&self) -> &[StepReport] {
        self.journal.steps()
    }
}

impl AuthenticDocument<Live> {
    /// Steps 9 to 11: it answers `challenge`, and vouches for the receipt key and the manifest of `presentation`.
    ///
    /// The statement is built from the challenge alone, except for what the commitment then shows to be the enclave's.
    pub fn answers(self, challenge: &Challenge, presentation: &Presentation) -> Result<FreshDocument, Refusal> {
        FreshDocument::check(self, challenge, presentation)
    }
}

impl AuthenticDocument<Archival> {
    /// Step 9 for a document alone, by whoever sent the nonce.
    pub fn answers_nonce(mut self, nonce: &[u8]) -> Result<Self, Refusal> {
        let expected = format!("the nonce that was sent, {}", hex::encode(nonce));
        let answer = check_nonce(&self, nonce);
        self.journal.note(Step::Nonce, expected, answer)?;
        Ok(self)
    }

    /// Step 12 for a document alone: `policy` accepts its release and pins, and is itself in force at `now`.
    ///
    /// This does not say that the document answers anybody: steps 9 to 11 need a challenge, or [`Evidence`](crate::Evidence).
    pub fn require(mut self, policy: &Policy, now: Timestamp) -> Result<ArchivedDocument, Refusal> {
        let accepted = policy.release_of(&self, now);
        let release = self.journal.note(Step::Policy, policy.summary(), accepted)?;
        Ok(ArchivedDocument { document: self, release })
    }
}

/// A document of a release that a policy accepts. No connection accepts it.
#[derive(Debug)]
pub struct ArchivedDocument {
    document: AuthenticDocument<Archival>,
    release: String,
}

impl ArchivedDocument {
    /// The release of the policy that the enclave ran.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// The document.
    pub fn document(&self) -> &AuthenticDocument<Archival> {
        &self.document
    }
}
