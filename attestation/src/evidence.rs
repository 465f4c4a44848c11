//! Evidence: what anybody needs to check receipts later, offline.

use std::{collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, SeqAccess, Visitor},
};

use crate::{
    Archival, At, AuthenticDocument, Channel, FormatError, Manifest, ManifestModel, ModelError, Policy, Receipt,
    ReceiptError, ReceiptPublicKey, Refusal, Sha384, Statement, Step, StepReport, Timestamp, UnverifiedDocument,
    cbor::{self, Bytes, Format, VERSION},
    fresh::{check_public_key, check_statement},
    policy::Models,
};

/// Room for all the receipts that a piece of evidence may have.
const FORMAT: Format = Format { name: "evidence", limit: 16 << 20 };

/// One enclave's document, what it committed to, and receipts that it signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The attestation document.
    pub document: Vec<u8>,
    /// The [`Statement`] in CBOR; without it nothing ties the receipt key to the document.
    pub statement: Vec<u8>,
    /// The [`Manifest`] in CBOR.
    pub manifest: Vec<u8>,
    /// The receipts, COSE_Sign1 each.
    pub receipts: Vec<Vec<u8>>,
    /// The digest of the policy that the client verified the enclave with. It is a record: verification is by the policy
    /// that the verifier brings.
    pub policy: Sha384,
}

impl Evidence {
    /// The most receipts of one piece of evidence: at the 375 bytes that a receipt has, three quarters of what may be read.
    pub const MAX_RECEIPTS: usize = 32_768;

    /// Deterministic CBOR: `{v, policy, document, manifest, receipts, statement}`.
    pub fn to_cbor(&self) -> Vec<u8> {
        let Self { document, statement, manifest, receipts, policy } = self.clone();
        cbor::encode(&Wire {
            v: VERSION,
            policy,
            document: Bytes(document),
            manifest: Bytes(manifest),
            receipts: Receipts(receipts.into_iter().map(Bytes).collect()),
            statement: Bytes(statement),
        })
    }

    /// Reads what [`to_cbor`](Self::to_cbor) wrote, at most 16 MiB.
    pub fn from_cbor(bytes: &[u8]) -> Result<Self, EvidenceError> {
        // E.1
        let Wire { v: _, policy, document, manifest, receipts, statement } = FORMAT.decode(bytes)?;
        Ok(Self {
            document: document.0,
            statement: statement.0,
            manifest: manifest.0,
            receipts: receipts.0.into_iter().map(|Bytes(receipt)| receipt).collect(),
            policy,
        })
    }

    /// Decides whether `policy` accepts the enclave and every receipt.
    ///
    /// The document is judged as of its own time, which is at most 5 minutes after `now`, and `policy` as of `now`. Nobody's challenge is
    /// compared: that was for the client that got the answer.
    pub fn verify(&self, policy: &Policy, now: Timestamp) -> Result<ArchivedEnclave, EvidenceError> {
        let document =
            UnverifiedDocument::parse(&self.document)?.authenticate(policy.root(), At::document_until(now))?;
        let mut enclave = ArchivedEnclave::check(document, self, policy, now)?;
        if self.receipts.is_empty() {
            return Err(EvidenceError::NoReceipts);
        }
        let mut answers = HashSet::new();
        for (index, receipt) in self.receipts.iter().enumerate() {
            let receipt = enclave.accept(index, receipt, now)?;
            if !answers.insert(receipt.clone()) {
                return Err(EvidenceError::DuplicateReceipt { index });
            }
            enclave.receipts.push(receipt);
        }
        Ok(enclave)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    v: u64,
    policy: Sha384,
    document: Bytes,
    manifest: Bytes,
    receipts: Receipts,
    statement: Bytes,
}

/// The receipts; no more of them are read than there may be.
#[derive(Serialize)]
#[serde(transparent)]
struct Receipts(Vec<Bytes>);

impl<'de> Deserialize<'de> for Receipts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Array;

        impl<'de> Visitor<'de> for Array {
            type Value = Receipts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an array of at most {} receipts", Evidence::MAX_RECEIPTS)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Receipts, A::Error> {
                let mut receipts = Vec::new();
                while let Some(receipt) = sequence.next_element()? {
                    if receipts.len() == Evidence::MAX_RECEIPTS {
                        return Err(A::Error::invalid_length(receipts.len() + 1, &self));
                    }
                    receipts.push(receipt);
                }
                Ok(Receipts(receipts))
            }
        }

        deserializer.deserialize_seq(Array)
    }
}

/// An enclave that was verified as of its document's time. No connection accepts it.
#[derive(Debug)]
pub struct ArchivedEnclave {
    document: AuthenticDocument<Archival>,
    release: String,
    statement: Statement,
    manifest: Manifest,
    receipt_key: ReceiptPublicKey,
    receipts: Vec<Receipt>,
    accepted: Models,
    recorded_policy: Sha384,
}

impl ArchivedEnclave {
    fn check(
        mut document: AuthenticDocument<Archival>,
        evidence: &Evidence,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<Self, EvidenceError> {
        let Evidence { document: _, statement, manifest, receipts: _, policy: recorded_policy } = evidence;

        // 9. Nonce: was for the client
        let found = Ok(((), "not compared: it was for the client that connected".to_owned()));
        document.journal.note(Step::Nonce, "any: the client compared it", found)?;

        // 10. Public key
        let statement = Statement::from_cbor(statement)?;
        let key = check_public_key(&document, &statement.spki);
        document.journal.note(Step::PublicKey, "the TLS key in the statement", key)?;

        // 11. Statement
        // E.2
        let digest = Sha384::of(manifest);
        if digest != statement.manifest {
            return Err(EvidenceError::ManifestMismatch { expected: statement.manifest, actual: digest });
        }
        let expected = format!("user_data {}, of the statement", hex::encode(statement.user_data()));
        let vouched = check_statement(&document, &statement, manifest);
        let (manifest, receipt_key) = document.journal.note(Step::Statement, expected, vouched)?;

        // 12. Policy
        let accepted = policy.release_of(&document, now);
        let accepted = accepted.and_then(|accepted| policy.allow_channel(&statement.channel).map(|()| accepted));
        let release = document.journal.note(Step::Policy, policy.summary_of_connection(), accepted)?;
        let (receipts, accepted) = (Vec::new(), policy.accepted_models().clone());
        let recorded_policy = *recorded_policy;
        Ok(Self { document, release, statement, manifest, receipt_key, receipts, accepted, recorded_policy })
    }

    /// Requires that the enclave signed `receipt` within the hour, not after `now`, and served its model under a name for which
    /// the policy accepts it.
    fn accept(&self, index: usize, receipt: &[u8], now: Timestamp) -> Result<Receipt, EvidenceError> {
        // E.3
        let refused = |source| EvidenceError::Receipt { index, source };
        let receipt = self.receipt_key.verify(receipt).map_err(refused)?;
        receipt.check_origin(self.module_id(), self.timestamp()).map_err(refused)?;
        receipt.check_past(now).map_err(refused)?;
        if self.models(receipt.bundle).is_empty() {
            return Err(self.refused_model(index, receipt.bundle));
        }
        Ok(receipt)
    }

    fn refused_model(&self, index: usize, bundle: Sha384) -> EvidenceError {
        let served = self.manifest.models.iter().find(|model| model.bundle == bundle);
        match served.map(|model| self.accepted.check(&model.name, bundle)) {
            Some(Err(source)) => EvidenceError::Model { index, source: source.into() },
            _ => EvidenceError::UnknownBundle { index, bundle },
        }
    }

    /// The models that it served with this bundle, under names for which the policy accepts it.
    pub fn models(&self, bundle: Sha384) -> Vec<&ManifestModel> {
        let accepted = |model: &&ManifestModel| self.accepted.check(&model.name, model.bundle).is_ok();
        self.manifest.models.iter().filter(|model| model.bundle == bundle).filter(accepted).collect()
    }

    /// The release of the policy that the enclave ran.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Whether it was no real hardware: say so wherever its answers are shown.
    pub fn simulated(&self) -> bool {
        self.document.simulated()
    }

    /// The enclave, `i-…-enc…`.
    pub fn module_id(&self) -> &str {
        self.document.module_id()
    }

    /// When its document was made, by the NSM's clock.
    pub fn timestamp(&self) -> Timestamp {
        self.document.timestamp()
    }

    /// Its document.
    pub fn document(&self) -> &AuthenticDocument<Archival> {
        &self.document
    }

    /// How the client's connection reached it.
    pub fn channel(&self) -> Channel {
        self.statement.channel
    }

    /// What it served.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The receipts, all of them verified; at least one.
    pub fn receipts(&self) -> &[Receipt] {
        &self.receipts
    }

    /// The digest of the policy by which the client says it verified.
    pub fn recorded_policy(&self) -> Sha384 {
        self.recorded_policy
    }

    /// The steps taken, and what was found in each.
    pub fn steps(&self) -> &[StepReport] {
        self.document.steps()
    }
}

/// Evidence does not show what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// The evidence, its statement or its manifest is malformed.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The document is not accepted.
    #[error(transparent)]
    Document(#[from] Refusal),
    /// Another manifest than the one in the statement.
    #[error("the manifest is not the one that the enclave vouched for\n  expected {expected}\n  actual   {actual}")]
    ManifestMismatch {
        /// The digest in the statement.
        expected: Sha384,
        /// The digest of the manifest.
        actual: Sha384,
    },
    /// Nothing to verify.
    #[error("the evidence has no receipts")]
    NoReceipts,
    /// A receipt of the same answer as an earlier one, whatever its signature's bytes.
    #[error("receipt {index} is for the same answer as an earlier one")]
    DuplicateReceipt {
        /// Its place, from 0.
        index: usize,
    },
    /// A receipt is not accepted.
    #[error("receipt {index}: {source}")]
    Receipt {
        /// Its place, from 0.
        index: usize,
        /// Why.
        source: ReceiptError,
    },
    /// A receipt is by a model that the enclave did not serve.
    #[error("receipt {index}: the enclave served no model with the bundle {bundle}")]
    UnknownBundle {
        /// Its place, from 0.
        index: usize,
        /// The digest in the receipt.
        bundle: Sha384,
    },
    /// A receipt is by a model that the policy does not accept.
    #[error("receipt {index}: {source}")]
    Model {
        /// Its place, from 0.
        index: usize,
        /// Why.
        source: Box<ModelError>,
    },
}

impl EvidenceError {
    /// A stable identifier for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Format(_) => "evidence_malformed",
            Self::Document(error) => error.code(),
            Self::ManifestMismatch { .. } => "manifest_mismatch",
            Self::NoReceipts => "no_receipts",
            Self::DuplicateReceipt { .. } => "duplicate_receipt",
            Self::Receipt { source, .. } => source.code(),
            Self::UnknownBundle { .. } => "bundle_mismatch",
            Self::Model { source, .. } => source.code(),
        }
    }

    /// What a person does about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Document(error) if !matches!(error.step(), Step::PublicKey | Step::Statement) => error.remedy(),
            Self::Model { source, .. } => source.remedy(),
            Self::Receipt { source: source @ ReceiptError::InFuture { .. }, .. } => source.remedy(),
            Self::NoReceipts => "Ask for evidence of an answer; this file shows none.".to_owned(),
            Self::Format(FormatError::Newer { .. }) => "Update Cloister on this machine.".to_owned(),
            Self::Format(_) => {
                "Give the file that `cloister infer --evidence` wrote. If it is that one, it was changed: ask its sender for \
                 the original."
                    .to_owned()
            }
            Self::Document(_) | Self::ManifestMismatch { .. } | Self::DuplicateReceipt { .. } | Self::Receipt { .. } | Self::UnknownBundle { .. } => {
                "Do not rely on this file: it was changed, or put together from different sessions. Ask its sender for the \
                 original."
                    .to_owned()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cbor_round_trips() {
        let evidence = Evidence {
            document: vec![1; 5000],
            statement: vec![2; 300],
            manifest: vec![3],
            receipts: vec![vec![4], vec![5, 6]],
            policy: Sha384([7; 48]),
        };
        assert_eq!(Evidence::from_cbor(&evidence.to_cbor()), Ok(evidence));
    }
}
