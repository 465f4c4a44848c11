//! What an evaluator attests and shows, before it is signed.

use cloister_attestation::{Channel, Manifest, Nonce, Presentation, Sha384, Statement};
use cloister_enclave::{Attester, Claims};
use cloister_simulated_enclave::SimulatedNsm;

/// An honest answer to one nonce. Whoever changes a part of it cheats in that part alone.
#[derive(Clone, Debug)]
pub struct Draft {
    /// What the document gets as its nonce.
    pub nonce: Vec<u8>,
    /// What the document gets as its public key.
    pub public_key: Vec<u8>,
    /// What the evaluator states.
    pub statement: Statement,
    /// What the document gets as its user data, unless it is the commitment to the statement.
    pub user_data: Option<Vec<u8>>,
    /// The receipt key that is shown.
    pub receipt_key: Vec<u8>,
    /// The manifest that is shown, in CBOR.
    pub manifest: Vec<u8>,
}

impl Draft {
    pub(super) fn new(nonce: &Nonce, channel: Channel, spki: &[u8], receipt_key: &[u8], manifest: &Manifest) -> Self {
        let (public_key, receipt_key) = (spki.to_vec(), receipt_key.to_vec());
        let statement = Statement {
            channel,
            spki: public_key.clone(),
            receipt_key: receipt_key.clone(),
            manifest: manifest.digest(),
        };
        let manifest = manifest.to_cbor();
        Self { nonce: nonce.0.to_vec(), public_key, statement, user_data: None, receipt_key, manifest }
    }

    /// Serves `manifest`, and says so in the statement too.
    pub fn serve(&mut self, manifest: &Manifest) {
        self.manifest = manifest.to_cbor();
        self.statement.manifest = Sha384::of(&self.manifest);
    }

    pub(super) fn present(self, attester: &SimulatedNsm) -> anyhow::Result<Presentation> {
        let Self { nonce, public_key, statement, user_data, receipt_key, manifest } = self;
        let user_data = user_data.unwrap_or_else(|| statement.user_data());
        let claims = Claims { nonce: &nonce, public_key: &public_key, user_data: &user_data };
        Ok(Presentation { document: attester.attest(&claims)?, receipt_key, manifest })
    }
}
