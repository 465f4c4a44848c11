//! `cloister verify`

use clap::Args;
use cloister_attestation::{Channel, VerifiedEnclave};
use cloister_client::AttestedConnection;

use super::{Evaluator, failure::Failure, models, output::Output};

/// Verify the evaluator at an endpoint
#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    evaluator: Evaluator,
}

impl Verify {
    pub(crate) async fn run(&self, output: &mut Output) -> Result<(), Failure> {
        output.set("verified", false);
        let connection = AttestedConnection::open(&self.evaluator.endpoint, self.evaluator.policy()?).await?;
        let enclave = connection.enclave();
        show(enclave, output);
        output.line(format!("\nVERIFIED: {} runs release {}", enclave.module_id(), enclave.release()));
        models::show(enclave, output);
        Ok(())
    }
}

/// What was verified, as every command that connects says it.
pub(crate) fn show(enclave: &VerifiedEnclave, output: &mut Output) {
    output.simulated(enclave.simulated());
    output.set("verified", true);
    output.set("release", enclave.release());
    output.set("module_id", enclave.module_id());
    output.set("document_time", enclave.timestamp().to_string());
    output.set(
        "channel",
        match enclave.channel() {
            Channel::TlsExporter(_) => "tls-exporter",
            Channel::None => "none",
        },
    );
    output.steps(enclave.steps());
}
