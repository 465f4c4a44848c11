//! `cloister verify`

use clap::Args;

use super::{
    EvaluatorArguments,
    evaluator::connect,
    failure::Failure,
    models,
    output::{Detail, Output, foreign, label},
    text::wrapped,
};

/// Verify the evaluator at an endpoint, step by step, and send it nothing but a nonce
///
/// The steps are numbered as in attestation/VERIFICATION.md, which says of each what is checked, with which bounds, and why. What
/// the command line leaves out, the environment or the configuration file says: `cloister --help`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Verify {
    #[command(flatten)]
    evaluator: EvaluatorArguments,
    #[command(flatten)]
    detail: Detail,
}

const EXAMPLES: &str = "\
Examples:
  cloister verify https://evaluator.example:8443 --policy policy.toml
  cloister verify https://evaluator.example:8443 --policy policy.toml -v
  cloister verify https://evaluator.example:8443 --policy policy.toml --json | jq .steps";

impl Verify {
    pub(crate) async fn run(&self, output: &mut Output) -> Result<(), Failure> {
        output.detail(self.detail);
        let connection = connect(&self.evaluator.evaluator(output)?, output).await?;
        let enclave = connection.enclave();
        output.steps(enclave.steps());
        let simulated = label(enclave.simulated());
        let enclave_id = foreign(enclave.module_id());
        let verdict = format!("\n{simulated}VERIFIED: {enclave_id} runs release {}", enclave.release());
        output.line(wrapped("", &verdict));
        models::show(enclave, output);
        Ok(())
    }
}
