//! `cloister verify-receipt`

use std::path::PathBuf;

use clap::Args;
use cloister_attestation::{Evidence, Receipt, Timestamp};
use serde_json::{Value, json};

use super::{
    failure::Failure,
    load_policy,
    output::{Output, label},
};

/// Verify the receipts in an evidence file, offline
#[derive(Debug, Args)]
pub(crate) struct VerifyReceipt {
    /// Evidence, as `cloister infer --evidence` writes it
    evidence: PathBuf,
    /// The policy that the enclave must satisfy
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

/// What nobody should read into a receipt.
const NOT_PROVED: &str = "This does not prove that the data was true, who asked, or that no other answer was given.";

impl VerifyReceipt {
    pub(crate) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let policy = load_policy(self.policy.as_ref().ok_or_else(Failure::no_policy)?)?;
        let bytes = std::fs::read(&self.evidence).map_err(|error| Failure::file(&self.evidence, &error))?;
        output.set("verified", false);
        let evidence = Evidence::from_cbor(&bytes)?;
        let enclave = evidence.verify(&policy, Timestamp::now())?;

        output.simulated(enclave.simulated());
        output.set("verified", true);
        output.set("release", enclave.release());
        output.set("module_id", enclave.module_id());
        output.set("document_time", enclave.timestamp().to_string());
        output.steps(enclave.steps());
        let simulated = label(enclave.simulated());
        output.line(format!("\n{simulated}VERIFIED: {}, release {}", enclave.module_id(), enclave.release()));
        let mut receipts: Vec<Value> = Vec::new();
        for Receipt { request, response, bundle, parameters, module_id: _, time } in enclave.receipts() {
            output.line(format!(
                "{time}\n  request   {request}\n  response  {response}\n  model     {bundle}\n  parameters {parameters}"
            ));
            receipts.push(json!({
                "time": time.to_string(),
                "request": request.to_string(),
                "response": response.to_string(),
                "bundle": bundle.to_string(),
                "parameters": parameters,
            }));
        }
        output.set("receipts", receipts);
        output.line(NOT_PROVED);
        Ok(())
    }
}
