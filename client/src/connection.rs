//! A connection to an evaluator that was verified. There is no way to get one without the verification.

use cloister_attestation::{
    At, CertificateCache, Challenge, Channel, Evidence, Live, ManifestModel, Nonce, Policy, Presentation, Timestamp,
    UnverifiedDocument, VerifiedEnclave,
};
use cloister_wire::limits::REATTEST_AFTER;

use crate::{
    Clock, Endpoint, Error, Intermediary, RemoteModel, SystemClock, Token,
    model::OpenModel,
    transport::{Relayed, Session, Transport},
};

/// A way to an enclave which satisfied a policy: one TLS session that ends in it, or, where the caller asked for that and the
/// policy allows it, whatever an intermediary relays.
#[derive(Debug)]
pub struct AttestedConnection {
    pub(crate) transport: Transport,
    policy: Policy,
    clock: Box<dyn Clock>,
    /// Of this enclave, so that it is attested again at the cost of one signature.
    certificates: CertificateCache,
    enclave: VerifiedEnclave,
    /// When `enclave` was verified, by `clock`; none once it was refused.
    attested: Option<Timestamp>,
    receipts: Vec<Vec<u8>>,
    earlier: Vec<Evidence>,
}

impl AttestedConnection {
    /// Connects, and sends a nonce and nothing else until every step of the verification has passed.
    pub async fn open(endpoint: &Endpoint, policy: Policy) -> Result<Self, Error> {
        Self::open_with_clock(endpoint, policy, SystemClock).await
    }

    /// As [`open`](Self::open), by another clock than this machine's. A wrong one refuses genuine enclaves.
    pub async fn open_with_clock(
        endpoint: &Endpoint,
        policy: Policy,
        clock: impl Clock + 'static,
    ) -> Result<Self, Error> {
        Self::over(Transport::Session(Session::connect(endpoint).await?), policy, clock).await
    }

    /// As [`open`](Self::open), through somebody who ends TLS before the enclave, which the policy has to allow
    /// (`channel = "optional"`).
    ///
    /// What is lost: nothing ties the enclave to this connection, and whoever relays may hand requests to another enclave that
    /// the same policy accepts. What stays: features and logits are encrypted, and every answer has a receipt of the enclave
    /// that was verified, or is refused. No token travels.
    pub async fn open_without_channel(intermediary: &Intermediary, policy: Policy) -> Result<Self, Error> {
        policy.check_channel(&Channel::None)?;
        Self::over(Transport::Relayed(Relayed::new(intermediary)?), policy, SystemClock).await
    }

    async fn over(mut transport: Transport, policy: Policy, clock: impl Clock + 'static) -> Result<Self, Error> {
        let certificates = CertificateCache::new(1);
        let (enclave, attested) = attest(&mut transport, &policy, &clock, &certificates).await?;
        let (clock, attested) = (Box::new(clock), Some(attested));
        let (receipts, earlier) = (Vec::new(), Vec::new());
        Ok(Self { transport, policy, clock, certificates, enclave, attested, receipts, earlier })
    }

    /// From now on, requests say whose they are. The enclave is verified, so the token goes to it, over this session.
    pub fn with_token(mut self, token: &Token) -> Result<Self, Error> {
        match &mut self.transport {
            Transport::Session(session) => session.authorize(token),
            Transport::Relayed(_) => return Err(Error::TokenWithoutChannel),
        }
        Ok(self)
    }

    /// What was verified.
    pub fn enclave(&self) -> &VerifiedEnclave {
        &self.enclave
    }

    /// A model that the policy accepts, with its description checked against the attested manifest, and a fresh secret
    /// key.
    pub async fn model(&mut self, name: &str) -> Result<RemoteModel<'_>, Error> {
        let model = self.open_model(name).await?;
        Ok(RemoteModel::new(self, model))
    }

    pub(crate) async fn open_model(&mut self, name: &str) -> Result<OpenModel, Error> {
        self.reattest_if_due().await?;
        let entry = self.enclave.model(name)?.clone();
        OpenModel::open(self, entry).await
    }

    /// Everything that a third party needs to check the receipts of this connection offline: one piece of evidence for
    /// each attestation, of which there is more than one only on connections kept for over 15 minutes, and for each 32768
    /// receipts.
    pub fn evidence(&self) -> Vec<Evidence> {
        let current = self.enclave.evidence(self.receipts.clone());
        self.earlier.iter().cloned().chain([current]).collect()
    }

    pub(crate) fn keep_receipt(&mut self, receipt: Vec<u8>) {
        if self.receipts.len() == Evidence::MAX_RECEIPTS {
            self.set_receipts_aside();
        }
        self.receipts.push(receipt);
    }

    /// Before a request to `served`: the attestation is not too old, and the enclave still serves this very model.
    pub(crate) async fn refresh(&mut self, served: &ManifestModel) -> Result<(), Error> {
        self.reattest_if_due().await?;
        self.require(served)
    }

    /// Attests again, and requires that the enclave serves this very model.
    pub(crate) async fn reattest(&mut self, served: &ManifestModel) -> Result<(), Error> {
        self.attest_again().await?;
        self.require(served)
    }

    fn require(&self, served: &ManifestModel) -> Result<(), Error> {
        let manifest = self.enclave.manifest();
        if manifest.models.contains(served) {
            return Ok(self.enclave.accept(served)?);
        }
        // The manifest first: a model that was accepted and is another one now has changed, whatever the policy says of it.
        let same_version = manifest.versions(&served.name).find(|now| now.version == served.version);
        match same_version.or(manifest.versions(&served.name).next_back()) {
            Some(now) => Err(Error::ModelChanged { expected: served.clone().into(), actual: now.clone().into() }),
            None => Ok(self.enclave.model(&served.name).map(drop)?),
        }
    }

    /// Attests again once it is due.
    async fn reattest_if_due(&mut self) -> Result<(), Error> {
        if self.attestation_is_due() { self.attest_again().await } else { Ok(()) }
    }

    async fn attest_again(&mut self) -> Result<(), Error> {
        self.attested = None;
        let (enclave, attested) = attest(&mut self.transport, &self.policy, &*self.clock, &self.certificates).await?;
        if !self.receipts.is_empty() {
            self.set_receipts_aside();
        }
        (self.enclave, self.attested) = (enclave, Some(attested));
        Ok(())
    }

    /// With the evidence that they belong to.
    fn set_receipts_aside(&mut self) {
        let receipts = std::mem::take(&mut self.receipts);
        self.earlier.push(self.enclave.evidence(receipts));
    }

    /// After 15 minutes; when the clock was set back, so that nobody knows how long it has been; when the policy ran out, which
    /// then ends the use of this connection; and as long as the last attestation failed.
    fn attestation_is_due(&self) -> bool {
        let now = self.clock.now();
        let fresh = self.attested.is_some_and(|attested| now >= attested && now.since(attested) < REATTEST_AFTER);
        !fresh || self.policy.is_expired(now)
    }
}

/// The steps of VERIFICATION.md: the nonce and the session are ours, everything else is judged. Also returns when it was.
async fn attest(
    transport: &mut Transport,
    policy: &Policy,
    clock: &dyn Clock,
    certificates: &CertificateCache,
) -> Result<(VerifiedEnclave, Timestamp), Error> {
    let challenge = Challenge { nonce: Nonce::random(), channel: transport.channel(), spki: transport.spki().to_vec() };
    let presentation = Presentation::from_cbor(&transport.present(&challenge.nonce.0).await?)?;
    let now = clock.now();
    let enclave = UnverifiedDocument::parse(&presentation.document)?
        .authenticate_with(policy.root(), At::<Live>::now(now), certificates)?
        .answers(&challenge, &presentation)?
        .require(policy, now)?;
    Ok((enclave, now))
}
