//! A connection to an evaluator that was verified. There is no way to get one without the verification.

use std::time::Instant;

use cloister_attestation::{
    At, Challenge, Evidence, Live, ManifestModel, Nonce, Policy, Presentation, Timestamp, UnverifiedDocument,
    VerifiedEnclave,
};
use cloister_wire::{ATTESTATION_MEDIA_TYPE, limits::REATTEST_AFTER, paths};

use crate::{Endpoint, Error, RemoteModel, transport::Transport};

/// One TLS session that ends in an enclave which satisfied a policy.
#[derive(Debug)]
pub struct AttestedConnection {
    pub(crate) transport: Transport,
    policy: Policy,
    enclave: VerifiedEnclave,
    attested: Instant,
    receipts: Vec<Vec<u8>>,
    earlier: Vec<Evidence>,
}

impl AttestedConnection {
    /// Connects, and sends a nonce and nothing else until every step of the verification has passed.
    pub async fn open(endpoint: &Endpoint, policy: Policy) -> Result<Self, Error> {
        let mut transport = Transport::connect(endpoint).await?;
        let enclave = attest(&mut transport, &policy).await?;
        Ok(Self { transport, policy, enclave, attested: Instant::now(), receipts: Vec::new(), earlier: Vec::new() })
    }

    /// What was verified.
    pub fn enclave(&self) -> &VerifiedEnclave {
        &self.enclave
    }

    /// A model that the policy accepts, with its description checked against the attested manifest, and a fresh secret
    /// key.
    pub async fn model(&mut self, name: &str) -> Result<RemoteModel<'_>, Error> {
        let entry = self.enclave.model(name)?.clone();
        RemoteModel::open(self, entry).await
    }

    /// Everything that a third party needs to check the receipts of this connection offline: one piece of evidence for
    /// each attestation, of which there is more than one only on connections kept for over 15 minutes.
    pub fn evidence(&self) -> Vec<Evidence> {
        let current = self.enclave.evidence(self.receipts.clone());
        self.earlier.iter().cloned().chain([current]).collect()
    }

    pub(crate) fn keep_receipt(&mut self, receipt: Vec<u8>) {
        self.receipts.push(receipt);
    }

    /// Asks for a new document once the last one is 15 minutes old. The model in use must still be the same.
    pub(crate) async fn refresh(&mut self, model: &ManifestModel) -> Result<(), Error> {
        if self.attested.elapsed() < REATTEST_AFTER {
            return Ok(());
        }
        let enclave = attest(&mut self.transport, &self.policy).await?;
        let now = enclave.model(&model.name)?;
        if now != model {
            return Err(Error::ModelChanged { name: model.name.clone(), expected: model.bundle, actual: now.bundle });
        }
        let receipts = std::mem::take(&mut self.receipts);
        self.earlier.push(self.enclave.evidence(receipts));
        self.enclave = enclave;
        self.attested = Instant::now();
        Ok(())
    }
}

/// DESIGN's channel steps: the nonce and the session are ours, everything else is judged.
async fn attest(transport: &mut Transport, policy: &Policy) -> Result<VerifiedEnclave, Error> {
    let challenge = Challenge { nonce: Nonce::random(), channel: transport.channel(), spki: transport.spki().to_vec() };
    let answer = transport.post(paths::ATTESTATION, ATTESTATION_MEDIA_TYPE, challenge.nonce.0.to_vec()).await?;
    let presentation = Presentation::from_cbor(&answer.body)?;
    let now = Timestamp::now();
    let enclave = UnverifiedDocument::parse(&presentation.document)?
        .authenticate(policy.root(), At::<Live>::now(now))?
        .answers(&challenge, &presentation)?
        .require(policy, now)?;
    Ok(enclave)
}
