//! `cloister verify`

use clap::Args;

use super::{
    Evaluator,
    failure::Failure,
    models,
    output::{Output, label},
};

/// Verify the evaluator at an endpoint
#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    evaluator: Evaluator,
}

impl Verify {
    pub(crate) async fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let connection = self.evaluator.connect(output).await?;
        let enclave = connection.enclave();
        output.steps(enclave.steps());
        let simulated = label(enclave.simulated());
        output.line(format!("\n{simulated}VERIFIED: {} runs release {}", enclave.module_id(), enclave.release()));
        models::show(enclave, output);
        Ok(())
    }
}
