//! Attestation documents: read, then authenticated. Each step consumes the last one's type.

use std::{marker::PhantomData, time::Duration};

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};

use crate::{
    Challenge, FreshDocument, Pcrs, Policy, Presentation, Root, Step, StepReport, Timestamp, VerificationError,
    certificates::{self, Leaf},
    chain,
    cose::{ES384, Sign1},
    payload::Payload,
    pcrs::{MEASURED, ZERO},
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
    /// The clock to compare with, unless the document's own time is taken.
    clock: Option<Timestamp>,
    mode: PhantomData<fn() -> T>,
}

impl At<Live> {
    /// Now, by the verifier's own clock.
    pub fn now(clock: Timestamp) -> Self {
        Self { clock: Some(clock), mode: PhantomData }
    }
}

impl At<Archival> {
    /// The document's own time: was it authentic when it was made?
    pub fn document() -> Self {
        Self { clock: None, mode: PhantomData }
    }

    /// A chosen time, judged as strictly as now.
    pub fn instant(clock: Timestamp) -> Self {
        Self { clock: Some(clock), mode: PhantomData }
    }
}

/// A document that was read, of which nothing is believed yet.
#[derive(Clone, Debug)]
pub struct UnverifiedDocument {
    bytes: Vec<u8>,
    sign1: Sign1,
    payload: Payload,
    steps: Vec<StepReport>,
}

impl UnverifiedDocument {
    /// Steps 1 to 3: size, COSE and payload.
    pub fn parse(bytes: &[u8]) -> Result<Self, VerificationError> {
        let mut steps = Vec::new();

        // 1. Size
        if bytes.len() > MAX_DOCUMENT {
            return Err(VerificationError::TooLarge { limit: MAX_DOCUMENT, actual: bytes.len() });
        }
        steps.push(StepReport::new(Step::Size, format!("{} bytes", bytes.len())));

        // 2. COSE: one optional tag 18, then exactly one encoding
        let untagged = bytes.strip_prefix(&[TAG_18]).unwrap_or(bytes);
        let sign1 = Sign1::parse(untagged, ES384)?;
        steps.push(StepReport::new(Step::Cose, "COSE_Sign1 with ES384"));

        // 3. Payload
        let payload = Payload::parse(&sign1.payload)?;
        steps.push(StepReport::new(
            Step::Payload,
            format!("{}, {} PCRs", payload.module_id.escape_debug(), payload.pcrs.iter().count()),
        ));

        Ok(Self { bytes: bytes.to_vec(), sign1, payload, steps })
    }

    /// The time that the document claims. Only an enclave reading its own document may believe it.
    pub fn claimed_timestamp(&self) -> Timestamp {
        self.payload.timestamp
    }

    /// The module id that the document claims. Only an enclave reading its own document may believe it.
    pub fn claimed_module_id(&self) -> &str {
        &self.payload.module_id
    }

    /// Steps 4 to 8: certificates, chain, signature, time and debug mode.
    pub fn authenticate<T>(self, root: &Root, at: At<T>) -> Result<AuthenticDocument<T>, VerificationError> {
        let Self { bytes, sign1, payload, mut steps } = self;

        // 4. Certificates
        let Leaf { region, key } = certificates::check(&payload, root)?;
        steps.push(StepReport::new(Step::Certificates, format!("root {}, region {region}", described(root))));

        // 5. Chain, at the document's own time; step 7 ties that time to the clock
        chain::verify(&payload, root)?;
        steps.push(StepReport::new(Step::Chain, format!("valid at {}", payload.timestamp)));

        // 6. Signature
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &key)
            .verify(&sign1.signed, &sign1.signature)
            .map_err(|_| VerificationError::Signature)?;
        steps.push(StepReport::new(Step::Signature, "by the leaf's key"));

        // 7. Time
        if let Some(now) = at.clock {
            check_time(payload.timestamp, now)?;
        }
        steps.push(StepReport::new(Step::Time, age(payload.timestamp, at.clock)));

        // 8. Debug mode zeroes PCR0, 1 and 2, and only those
        for index in MEASURED {
            let pcr = payload.pcrs.register(index).ok_or(VerificationError::PcrMissing { index })?;
            if *pcr == ZERO {
                return Err(VerificationError::DebugMode { index });
            }
        }
        steps.push(StepReport::new(Step::Debug, "off: PCR0, 1 and 2 are measurements"));

        Ok(AuthenticDocument { bytes, payload, root: root.clone(), region, steps, mode: PhantomData })
    }
}

fn described(root: &Root) -> String {
    let who = if root.is_simulated() { "SIMULATED" } else { "AWS Nitro G1" };
    format!("{who} ({}…)", &root.fingerprint()[..8])
}

fn check_time(document: Timestamp, now: Timestamp) -> Result<(), VerificationError> {
    check_age(document, now, MAX_AGE)?;
    if document > now.plus(MAX_AGE) {
        return Err(VerificationError::DocumentInFuture { now, document, leeway: MAX_AGE });
    }
    Ok(())
}

pub(crate) fn check_age(document: Timestamp, now: Timestamp, max_age: Duration) -> Result<(), VerificationError> {
    if document < now.minus(max_age) {
        return Err(VerificationError::DocumentTooOld { now, document, max_age });
    }
    Ok(())
}

fn age(document: Timestamp, clock: Option<Timestamp>) -> String {
    match clock {
        None => format!("made at {document}, judged as of then"),
        Some(now) if now < document => {
            format!("made at {document}, {} ahead of the clock", spoken(document.since(now)))
        }
        Some(now) => format!("made at {document}, {} ago", spoken(now.since(document))),
    }
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
    pub(crate) steps: Vec<StepReport>,
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
        &self.steps
    }
}

impl AuthenticDocument<Live> {
    /// Steps 9 to 11: it answers `challenge`, and vouches for the receipt key and the manifest of `presentation`.
    ///
    /// The statement is built from the challenge alone, except for what the commitment then shows to be the enclave's.
    pub fn answers(
        self,
        challenge: &Challenge,
        presentation: &Presentation,
    ) -> Result<FreshDocument, VerificationError> {
        FreshDocument::check(self, challenge, presentation)
    }
}

impl AuthenticDocument<Archival> {
    /// Step 12 for a document alone: `policy` accepts its release and pins, and is itself in force at `now`.
    ///
    /// This does not say that the document answers anybody: steps 9 to 11 need a challenge, or [`Evidence`](crate::Evidence).
    pub fn require(mut self, policy: &Policy, now: Timestamp) -> Result<ArchivedDocument, VerificationError> {
        let release = policy.release_of(&self, now)?;
        self.steps.push(StepReport::new(Step::Policy, release.to_string()));
        Ok(ArchivedDocument { document: self, release: release.name.clone() })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_within_five_minutes_of_the_clock() {
        let now = Timestamp::from_millis(1_000_000_000);
        for document in [now.minus(MAX_AGE), now, now.plus(MAX_AGE)] {
            assert_eq!(check_time(document, now), Ok(()));
        }
        let instant = Duration::from_millis(1);
        let document = now.minus(MAX_AGE).minus(instant);
        let old = VerificationError::DocumentTooOld { now, document, max_age: MAX_AGE };
        assert_eq!(check_time(document, now), Err(old));
        let document = now.plus(MAX_AGE).plus(instant);
        let future = VerificationError::DocumentInFuture { now, document, leeway: MAX_AGE };
        assert_eq!(check_time(document, now), Err(future));
    }

    #[test]
    fn a_document_over_the_limit_is_not_looked_at() {
        let refused = UnverifiedDocument::parse(&[0; MAX_DOCUMENT + 1]).unwrap_err();
        assert_eq!(refused, VerificationError::TooLarge { limit: MAX_DOCUMENT, actual: MAX_DOCUMENT + 1 });
    }
}
