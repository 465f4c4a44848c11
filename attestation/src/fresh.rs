//! Documents that answer a challenge.

use crate::{
    AuthenticDocument, Challenge, Channel, Live, Manifest, Policy, Presentation, ReceiptPublicKey, Refusal, Sha384,
    Statement, Step, Timestamp, VerificationError, VerifiedEnclave, document::shown, foreign::listed, step::Outcome,
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
    ) -> Result<Self, Refusal> {
        let Challenge { nonce, channel, spki } = challenge;
        let Presentation { document: _, receipt_key, manifest } = presentation;

        // 9. Nonce
        let expected = format!("the nonce that was sent, {}", hex::encode(nonce.0));
        let answer = check_nonce(&document, &nonce.0);
        document.journal.note(Step::Nonce, expected, answer)?;

        // 10. Public key: the one that this connection showed; without a channel there is none to compare
        let (expected, key) = match channel {
            Channel::TlsExporter(_) => ("the TLS key of this connection", check_public_key(&document, spki)),
            Channel::None => ("some key: TLS ends before the enclave, so none was seen", some_public_key(&document)),
        };
        let spki = document.journal.note(Step::PublicKey, expected, key)?;

        // 11. Statement
        let statement =
            Statement { channel: *channel, spki, receipt_key: receipt_key.clone(), manifest: Sha384::of(manifest) };
        let expected = format!("user_data {}, of the statement on this session", hex::encode(statement.user_data()));
        let vouched = check_statement(&document, &statement, manifest);
        let (manifest, receipt_key) = document.journal.note(Step::Statement, expected, vouched)?;

        Ok(Self { document, statement, receipt_key, manifest })
    }

    /// Step 12: `policy` accepts the release, the pins, the age and the kind of channel, and is itself in force at `now`.
    pub fn require(mut self, policy: &Policy, now: Timestamp) -> Result<VerifiedEnclave, Refusal> {
        // 12. Policy
        let accepted = self.accepted(policy, now);
        let release = self.document.journal.note(Step::Policy, policy.summary_of_connection(), accepted)?;
        Ok(VerifiedEnclave::new(self, release, policy))
    }

    fn accepted(&self, policy: &Policy, now: Timestamp) -> Outcome<String> {
        let accepted = policy.release_of(&self.document, now)?;
        policy.allow_channel(&self.statement.channel)?;
        policy.check_age(self.document.timestamp(), now)?;
        Ok(accepted)
    }
}

pub(crate) fn check_nonce<T>(document: &AuthenticDocument<T>, nonce: &[u8]) -> Outcome<()> {
    // 9.1
    if document.nonce() != Some(nonce) {
        let (expected, actual) = (hex::encode(nonce), shown(document.nonce()));
        return Err(VerificationError::NonceMismatch { expected, actual });
    }
    Ok(((), "the one that was sent".to_owned()))
}

pub(crate) fn check_public_key<T>(document: &AuthenticDocument<T>, spki: &[u8]) -> Outcome<Vec<u8>> {
    // 10.1
    if document.public_key() != Some(spki) || spki.is_empty() {
        let (expected, actual) = (hex::encode(spki), shown(document.public_key()));
        return Err(VerificationError::PublicKeyMismatch { expected, actual });
    }
    Ok((spki.to_vec(), format!("the same, SHA-384 {}…", hex::encode(&Sha384::of(spki).0[..4]))))
}

fn some_public_key(document: &AuthenticDocument<Live>) -> Outcome<Vec<u8>> {
    let (expected, actual) = ("any".to_owned(), shown(document.public_key()));
    let key = document.public_key().filter(|key| !key.is_empty());
    let key = key.ok_or(VerificationError::PublicKeyMismatch { expected, actual })?;
    Ok((key.to_vec(), "not compared: TLS ends before the enclave".to_owned()))
}

/// Requires that the document commits to `statement`, and reads what is thereby vouched for.
pub(crate) fn check_statement<T>(
    document: &AuthenticDocument<T>,
    statement: &Statement,
    manifest: &[u8],
) -> Outcome<(Manifest, ReceiptPublicKey)> {
    // 11.1
    let commitment = statement.user_data();
    if document.user_data() != Some(&commitment) {
        let (expected, actual) = (hex::encode(commitment), shown(document.user_data()));
        return Err(VerificationError::StatementMismatch { expected, actual });
    }
    // 11.2
    let manifest = Manifest::from_cbor(manifest).map_err(VerificationError::Manifest)?;
    // 11.3
    let receipt_key = ReceiptPublicKey::from_spki(&statement.receipt_key).map_err(VerificationError::ReceiptKey)?;
    let models = listed(manifest.models.iter().map(|model| &model.name));
    let found = format!("the same: channel {}, models {}", statement.channel.name(), models);
    Ok(((manifest, receipt_key), found))
}
