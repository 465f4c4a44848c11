//! Which evaluator a command asks, over which way, and what it must prove.

use std::{env, path::PathBuf};

use clap::Args;
use cloister_client::{
    AttestedConnection, Endpoint, Evaluator, Intermediary, ObjectLocation, SageMakerEndpoint, Token, gateway_url,
};

use super::{
    failure::Failure,
    files, load_policy,
    output::{Output, remark},
};

/// An evaluator, and what it must prove.
#[derive(Debug, Args)]
pub(crate) struct EvaluatorArguments {
    /// Where the service is: https://HOST:PORT. TLS ends in the enclave. Or else --gateway, or --sagemaker
    #[arg(required_unless_present_any = ["gateway", "sagemaker"], conflicts_with_all = ["gateway", "sagemaker"])]
    endpoint: Option<Endpoint>,
    /// Instead of ENDPOINT: a load balancer or API gateway that ends TLS before the enclave, https://HOST:PORT/PATH. The policy
    /// must allow it (channel = "optional")
    #[arg(long, value_name = "URL", conflicts_with = "sagemaker")]
    gateway: Option<String>,
    /// Instead of ENDPOINT: the name of a SageMaker endpoint, in AWS_REGION and with AWS's credentials of the environment. The policy
    /// must allow it (channel = "optional")
    #[arg(long, value_name = "ENDPOINT")]
    sagemaker: Option<String>,
    /// Behind --gateway or --sagemaker: where encrypted messages lie instead of travelling in bodies, s3://BUCKET/PREFIX
    #[arg(long, value_name = "S3_URL", conflicts_with = "endpoint")]
    objects: Option<String>,
    /// File with the bearer token by which the enclave knows this client. It goes to ENDPOINT only, once that is verified
    #[arg(long, value_name = "FILE", conflicts_with_all = ["gateway", "sagemaker"])]
    token_file: Option<PathBuf>,
    /// The policy that it must satisfy. Get it from whoever publishes the release, never from the endpoint
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

impl EvaluatorArguments {
    /// The evaluator that the arguments name.
    pub(super) fn evaluator(&self) -> Result<Evaluator, Failure> {
        let policy = load_policy(self.policy.as_ref().ok_or_else(Failure::no_policy)?)?;
        let usage = |error: &dyn std::fmt::Display| Failure::usage(error.to_string());
        let objects = self.objects.as_deref().map(str::parse::<ObjectLocation>).transpose();
        let objects = objects.map_err(|error| usage(&error))?;
        let evaluator = match (&self.endpoint, &self.gateway, &self.sagemaker) {
            (Some(endpoint), ..) => Evaluator::new(endpoint.clone(), self.token()?, policy),
            (None, Some(url), _) => {
                let url = gateway_url(url).map_err(|error| usage(&error))?;
                Evaluator::behind(Intermediary::Gateway { url, objects }, policy)
            }
            (None, None, Some(name)) => {
                let endpoint = sagemaker_endpoint(name).map_err(|error| usage(&error))?;
                Evaluator::behind(Intermediary::SageMaker { endpoint, objects }, policy)
            }
            (None, None, None) => {
                return Err(Failure::usage("name an evaluator: https://HOST:PORT, --gateway or --sagemaker"));
            }
        };
        Ok(evaluator.with_remarks(|text| remark(text)))
    }

    /// Connects to it and verifies it.
    pub(super) async fn connect(&self, output: &mut Output) -> Result<AttestedConnection, Failure> {
        connect(&self.evaluator()?, output).await
    }

    fn token(&self) -> Result<Option<Token>, Failure> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let bytes = zeroize::Zeroizing::new(files::read(path)?);
        let token = std::str::from_utf8(&bytes).ok().and_then(|text| Token::parse(text).ok());
        let bad = || {
            Failure::bad_input("token", format!("{}: no token is in it", path.display()), "`cloister token` makes one.")
        };
        token.map(Some).ok_or_else(bad)
    }
}

/// With the environment variables by which AWS's own programs are told where to go.
fn sagemaker_endpoint(name: &str) -> Result<SageMakerEndpoint, cloister_client::IntermediaryError> {
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION")).unwrap_or_default();
    let url = variable("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME").or_else(|| variable("AWS_ENDPOINT_URL"));
    SageMakerEndpoint::new(name, &region, url.as_deref())
}

/// Connects and verifies, and says what was verified. A failure leaves `verified` false.
pub(super) async fn connect(evaluator: &Evaluator, output: &mut Output) -> Result<AttestedConnection, Failure> {
    let connection = evaluator.connect().await?;
    let enclave = connection.enclave();
    output.simulated(enclave.simulated());
    output.set("verified", true);
    output.set("release", enclave.release());
    output.set("module_id", enclave.module_id());
    output.set("document_time", enclave.timestamp().to_string());
    output.channel(enclave.channel());
    Ok(connection)
}
