//! `cloister verify`

use clap::Args;

use super::{Evaluator, failure::Failure, models, output::Output};

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
        output.line(format!("\nVERIFIED: {} runs release {}", enclave.module_id(), enclave.release()));
        models::show(enclave, output);
        Ok(())
    }
}
