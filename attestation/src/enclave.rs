//! A verified enclave: the end of verification, and what a client asks it for.

use crate::{
    Channel, Evidence, FreshDocument, Manifest, ManifestModel, ModelError, Policy, Receipt, ReceiptError,
    ReceiptPublicKey, Sha384, StepReport, Timestamp, policy::Models,
};

/// An enclave that passed every step, at the other end of the challenge's channel, now.
#[derive(Debug)]
pub struct VerifiedEnclave {
    fresh: FreshDocument,
    release: String,
    accepted: Models,
    policy: Sha384,
}

impl VerifiedEnclave {
    pub(crate) fn new(fresh: FreshDocument, release: String, policy: &Policy) -> Self {
        Self { fresh, release, accepted: policy.accepted_models().clone(), policy: policy.digest() }
    }

    /// The release of the policy that the enclave runs.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// The digest of the policy that it satisfied.
    pub fn policy(&self) -> Sha384 {
        self.policy
    }

    /// The enclave, `i-…-enc…`.
    pub fn module_id(&self) -> &str {
        self.fresh.document.module_id()
    }

    /// When its document was made, by the NSM's clock.
    pub fn timestamp(&self) -> Timestamp {
        self.fresh.document.timestamp()
    }

    /// Whether it is no real hardware: say so wherever its answers are shown.
    pub fn simulated(&self) -> bool {
        self.fresh.document.simulated()
    }

    /// How the connection reaches it.
    pub fn channel(&self) -> Channel {
        self.fresh.statement.channel
    }

    /// What it serves. A model is accepted only through [`model`](Self::model).
    pub fn manifest(&self) -> &Manifest {
        &self.fresh.manifest
    }

    /// The key that signs its receipts.
    pub fn receipt_key(&self) -> &ReceiptPublicKey {
        &self.fresh.receipt_key
    }

    /// The digest of that key, by which a request says for which enclave it was made.
    pub fn receipt_key_digest(&self) -> Sha384 {
        Sha384::of(&self.fresh.statement.receipt_key)
    }

    /// All twelve steps, and what was found in each.
    pub fn steps(&self) -> &[StepReport] {
        self.fresh.document.steps()
    }

    /// The model `name`, if the enclave serves the bundle that the policy accepts under that name, in whichever version.
    pub fn model(&self, name: &str) -> Result<&ManifestModel, ModelError> {
        let judge = |model| self.accept(model).map(|()| model);
        let mut newest_first = self.manifest().versions(name).rev().map(judge);
        let newest = newest_first.next().ok_or_else(|| {
            let mut served: Vec<_> = self.manifest().models.iter().map(|model| model.name.clone()).collect();
            served.dedup();
            ModelError::UnknownModel { name: name.to_owned(), served }
        })?;
        newest.or_else(|error| newest_first.find_map(Result::ok).ok_or(error))
    }

    /// Requires that the policy accepts this model, one of the manifest's.
    pub fn accept(&self, model: &ManifestModel) -> Result<(), ModelError> {
        self.accepted.check(&model.name, model.bundle)
    }

    /// Reads a receipt, and requires that it is for exactly this answer. Release nothing of an answer before.
    ///
    /// `request` and `response` are the digests of the messages that were sent and received, `bundle` that of the model
    /// asked for, `parameters` the name of the encryption parameters.
    pub fn check_receipt(
        &self,
        receipt: &[u8],
        request: Sha384,
        response: Sha384,
        bundle: Sha384,
        parameters: &str,
    ) -> Result<Receipt, ReceiptError> {
        let receipt = self.receipt_key().verify(receipt)?;
        // R.3
        if receipt.request != request {
            return Err(ReceiptError::RequestMismatch { expected: request, actual: receipt.request });
        }
        if receipt.response != response {
            return Err(ReceiptError::ResponseMismatch { expected: response, actual: receipt.response });
        }
        if receipt.bundle != bundle {
            return Err(ReceiptError::BundleMismatch { expected: bundle, actual: receipt.bundle });
        }
        if receipt.parameters != parameters {
            let (expected, actual) = (parameters.to_owned(), receipt.parameters);
            return Err(ReceiptError::ParametersMismatch { expected, actual });
        }
        receipt.check_origin(self.module_id(), self.timestamp())?;
        Ok(receipt)
    }

    /// Everything that others need to check `receipts` later, offline.
    pub fn evidence(&self, receipts: Vec<Vec<u8>>) -> Evidence {
        Evidence {
            document: self.fresh.document.bytes.clone(),
            statement: self.fresh.statement.to_cbor(),
            manifest: self.fresh.manifest.to_cbor(),
            receipts,
            policy: self.policy,
        }
    }
}
