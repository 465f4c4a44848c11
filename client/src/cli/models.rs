//! `cloister models`

use clap::Args;
use cloister_attestation::{Loadable, Manifest, ManifestModel, ModelError, VerifiedEnclave};
use serde_json::{Value, json};

use super::{
    EvaluatorArguments,
    evaluator::connect,
    failure::Failure,
    output::{Output, foreign},
    text::wrapped,
};

/// List the models of a verified evaluator, and what the policy says of each
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Models {
    #[command(flatten)]
    evaluator: EvaluatorArguments,
}

const EXAMPLES: &str = "\
Examples:
  cloister models https://evaluator.example:8443 --policy policy.toml
  cloister models https://evaluator.example:8443 --policy policy.toml --json";

impl Models {
    pub(crate) async fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let connection = connect(&self.evaluator.evaluator(output)?, output).await?;
        show(connection.enclave(), output);
        Ok(())
    }
}

/// The models of the manifest, and whether the policy accepts each.
pub(crate) fn show(enclave: &VerifiedEnclave, output: &mut Output) {
    let mut models: Vec<Value> = Vec::new();
    let Manifest { models: served, loadable, limits: _ } = enclave.manifest();
    for model in served {
        let ManifestModel { name, version, bundle, description: _ } = model;
        let judged = enclave.accept(model);
        output.line(format!("model {} {}: {}\n  {bundle}", foreign(name), foreign(version), verdict(&judged)));
        models
            .push(json!({"name": name, "version": version, "digest": bundle.to_string(), "accepted": judged.is_ok()}));
    }
    output.set("models", models);
    output.line(wrapped("models that its parent may load: ", &loadable.to_string()));
    output.set(
        "loadable",
        match loadable {
            Loadable::None => json!("none"),
            Loadable::Any => json!("any"),
            Loadable::Listed(digests) => digests.iter().map(ToString::to_string).collect(),
        },
    );
    if let Loadable::Listed(digests) = loadable {
        output.line(digests.iter().map(|digest| format!("  {digest}")).collect::<Vec<_>>().join("\n"));
    }
}

/// What the policy says of a model.
pub(crate) fn verdict(judged: &Result<(), ModelError>) -> &'static str {
    match judged {
        Ok(_) => "accepted by the policy",
        Err(ModelError::DigestMismatch { .. }) => "NOT ACCEPTED: the policy has another digest under this name",
        Err(_) => "NOT ACCEPTED: not in the policy",
    }
}
