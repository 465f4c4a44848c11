//! Documents that answer a challenge.

use crate::{
    AuthenticDocument, Challenge, Channel, Live, Manifest, Policy, Presentation, ReceiptPublicKey, Sha384, Statement,
    Step, StepReport, Timestamp, VerificationError, VerifiedEnclave,
    document::{check_age, shown},
};

/// A document that an enclave made for this very challenge, with the receipt key and manifest that it vouches for.
#[derive(Debug)]
pub struct FreshDocument {
    pub(crate) document: AuthenticDocument<Live>,
    pub(crate) statement: Statement,
    pub(crate) receipt_key: ReceiptPublicKey,
    pub(crate) manifest: Manifest,
}

impl FreshDocument {
    pub(crate) fn check(
        mut document: AuthenticDocument<Live>,
        challenge: &Challenge,
        presentation: &Presentation,
    ) -> Result<Self, VerificationError> {
        let Challenge { nonce, channel, spki } = challenge;
        let Presentation { document: _, receipt_key, manifest } = presentation;

        // 9. Nonce
        if document.nonce() != Some(&nonce.0) {
            let (expected, actual) = (hex::encode(nonce.0), shown(document.nonce()));
            return Err(VerificationError::NonceMismatch { expected, actual });
        }
        document.steps.push(StepReport::new(Step::Nonce, "the one that was sent"));

        // 10. Public key: the one that this connection showed; without a channel there is none to compare
        let spki = match channel {
            Channel::TlsExporter(_) => {
                if document.public_key() != Some(spki) {
                    let (expected, actual) = (hex::encode(spki), shown(document.public_key()));
                    return Err(VerificationError::PublicKeyMismatch { expected, actual });
                }
                document.steps.push(StepReport::new(Step::PublicKey, "the TLS key of this connection"));
                spki.clone()
            }
            Channel::None => {
                let (expected, actual) = ("any".to_owned(), shown(document.public_key()));
                let absent = VerificationError::PublicKeyMismatch { expected, actual };
                let key = document.public_key().ok_or(absent)?.to_vec();
                document.steps.push(StepReport::new(Step::PublicKey, "not compared: TLS ends before the enclave"));
                key
            }
        };

        // 11. Statement
        let statement =
            Statement { channel: *channel, spki, receipt_key: receipt_key.clone(), manifest: Sha384::of(manifest) };
        let commitment = statement.user_data();
        if document.user_data() != Some(&commitment) {
            let (expected, actual) = (hex::encode(commitment), shown(document.user_data()));
            return Err(VerificationError::StatementMismatch { expected, actual });
        }
        let manifest = Manifest::from_cbor(manifest).map_err(VerificationError::Manifest)?;
        let receipt_key = ReceiptPublicKey::from_spki(receipt_key).map_err(VerificationError::ReceiptKey)?;
        document.steps.push(StepReport::new(
            Step::Statement,
            format!("channel {}, {} models", statement.channel.name(), manifest.models.len()),
        ));
        Ok(Self { document, statement, receipt_key, manifest })
    }

    /// Step 12: `policy` accepts the release, the pins and the kind of channel, and is itself in force at `now`.
    pub fn require(mut self, policy: &Policy, now: Timestamp) -> Result<VerifiedEnclave, VerificationError> {
        // 12. Policy
        let release = policy.release_of(&self.document, now)?;
        policy.check_channel(&self.statement.channel)?;
        check_age(self.document.timestamp(), now, policy.max_age())?;
        self.document.steps.push(StepReport::new(Step::Policy, release.to_string()));
        Ok(VerifiedEnclave::new(self, release.name.clone(), policy))
    }
}
