//! Which evaluator a command asks, over which way, and what it must prove.

use std::{env, path::PathBuf, time::Duration};

use clap::Args;
use cloister_client::{
    AttestedConnection, Endpoint, Error, Intermediary, ObjectLocation, Policy, SageMakerEndpoint, Token, gateway_url,
};
use tokio::time::sleep;

use super::{
    failure::Failure,
    files, load_policy,
    output::{Output, remark},
};

/// An evaluator, and what it must prove.
#[derive(Debug, Args)]
pub(crate) struct Evaluator {
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

/// A way to an evaluator, to be gone as often as connections are wanted.
#[derive(Debug)]
pub(super) struct Way {
    route: Route,
    policy: Policy,
}

#[derive(Debug)]
enum Route {
    Channel { endpoint: Endpoint, token: Option<Token> },
    Relayed(Intermediary),
}

impl Evaluator {
    /// The way that the arguments name.
    pub(super) fn way(&self) -> Result<Way, Failure> {
        let policy = load_policy(self.policy.as_ref().ok_or_else(Failure::no_policy)?)?;
        Ok(Way { route: self.route()?, policy })
    }

    fn route(&self) -> Result<Route, Failure> {
        let usage = |error: &dyn std::fmt::Display| Failure::usage(error.to_string());
        let objects = self.objects.as_deref().map(str::parse::<ObjectLocation>).transpose();
        let objects = objects.map_err(|error| usage(&error))?;
        match (&self.endpoint, &self.gateway, &self.sagemaker) {
            (Some(endpoint), ..) => Ok(Route::Channel { endpoint: endpoint.clone(), token: self.token()? }),
            (None, Some(url), _) => {
                let url = gateway_url(url).map_err(|error| usage(&error))?;
                Ok(Route::Relayed(Intermediary::Gateway { url, objects }))
            }
            (None, None, Some(name)) => {
                let endpoint = sagemaker_endpoint(name).map_err(|error| usage(&error))?;
                Ok(Route::Relayed(Intermediary::SageMaker { endpoint, objects }))
            }
            (None, None, None) => Err(Failure::usage("name an evaluator: https://HOST:PORT, --gateway or --sagemaker")),
        }
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

/// As often, an evaluator may say that it is busy before it is believed.
const MAX_TRIES: usize = 5;
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Says why it is asked again, and when, and waits until then.
pub(super) async fn pause(error: &Error, wait: Duration) {
    remark(format!("{error}: asking again in {:.0} s", wait.as_secs_f64().ceil()));
    sleep(wait).await;
}

impl Way {
    /// Connects, verifies, and only then says who asks. An enclave that has more nonces to answer than it can is asked again.
    pub(super) async fn open(&self) -> Result<AttestedConnection, Error> {
        let mut tries = 0;
        loop {
            let error = match self.try_open().await {
                Err(error) => error,
                opened => return opened,
            };
            let Some(wait) = error.retry_after().filter(|_| tries < MAX_TRIES) else { return Err(error) };
            tries += 1;
            pause(&error, wait.min(MAX_WAIT)).await;
        }
    }

    async fn try_open(&self) -> Result<AttestedConnection, Error> {
        let policy = self.policy.clone();
        match &self.route {
            Route::Relayed(intermediary) => AttestedConnection::open_without_channel(intermediary, policy).await,
            Route::Channel { endpoint, token } => {
                let connection = AttestedConnection::open(endpoint, policy).await?;
                match token {
                    Some(token) => connection.with_token(token),
                    None => Ok(connection),
                }
            }
        }
    }

    /// Whether somebody else ends TLS.
    pub(super) fn is_relayed(&self) -> bool {
        matches!(self.route, Route::Relayed(_))
    }

    /// Connects and verifies, and says what was verified. A failure leaves `verified` false.
    pub(super) async fn connect(&self, output: &mut Output) -> Result<AttestedConnection, Failure> {
        let connection = self.open().await?;
        let enclave = connection.enclave();
        output.simulated(enclave.simulated());
        output.set("verified", true);
        output.set("release", enclave.release());
        output.set("module_id", enclave.module_id());
        output.set("document_time", enclave.timestamp().to_string());
        output.channel(enclave.channel());
        Ok(connection)
    }
}
