//! Which evaluator a command asks, over which way, and what it must prove.

use std::{fmt, path::PathBuf, str};

use clap::{Args, ValueHint};
use cloister_client::{
    AttestedConnection, Endpoint, Evaluator, Intermediary, Policy, SageMakerEndpoint, Token, gateway_url,
};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{
    configuration::{MAX_CONNECTIONS, Setting, Settings, Way},
    failure::Failure,
    files, load_policy,
    output::{Output, remark},
};

/// An evaluator, and what it must prove: as the command line says it, the environment, or the file, whose keys these are.
#[derive(Clone, Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EvaluatorArguments {
    /// Where the service is: https://HOST:PORT. TLS ends in the enclave. Or else --gateway, or --sagemaker
    #[arg(value_hint = ValueHint::Url)]
    pub(super) endpoint: Option<String>,
    /// Instead of ENDPOINT: a load balancer or API gateway that ends TLS before the enclave, https://HOST:PORT/PATH. The policy
    /// must allow it (channel = "optional")
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub(super) gateway: Option<String>,
    /// Instead of ENDPOINT: the name of a SageMaker endpoint, in AWS_REGION and with AWS's credentials of the environment. The policy
    /// must allow it (channel = "optional")
    #[arg(long, value_name = "ENDPOINT", value_hint = ValueHint::Other)]
    pub(super) sagemaker: Option<String>,
    /// Behind --gateway or --sagemaker: where encrypted messages lie instead of travelling in bodies, s3://BUCKET/PREFIX
    #[arg(long, value_name = "S3_URL", value_hint = ValueHint::Url)]
    pub(super) objects: Option<String>,
    /// File with the bearer token by which the enclave knows this client. It goes to ENDPOINT only, once that is verified
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// The policy that it must satisfy. Get it from whoever publishes the release, never from the endpoint
    #[arg(long, value_name = "FILE")]
    pub(super) policy: Option<PathBuf>,
    /// An argument of [`PoolArguments`].
    #[arg(skip)]
    pub(super) connections: Option<u8>,
}

impl EvaluatorArguments {
    /// The evaluator that the arguments name, or else the environment or the file.
    pub(super) fn evaluator(&self, output: &mut Output) -> Result<Evaluator, Failure> {
        let settings = Settings::load(self)?;
        settings.show(output);
        settings.evaluator()
    }
}

/// An evaluator to which several connections may be opened.
#[derive(Clone, Debug, Args)]
pub(crate) struct PoolArguments {
    #[command(flatten)]
    evaluator: EvaluatorArguments,
    /// Connections at most, each verified by itself and with a secret key of its own; 2 if nothing says otherwise
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_CONNECTIONS)))]
    connections: Option<u8>,
}

impl PoolArguments {
    /// What the arguments say, or else the environment or the file.
    pub(super) fn settings(&self) -> Result<Settings, Failure> {
        Settings::load(&EvaluatorArguments { connections: self.connections, ..self.evaluator.clone() })
    }
}

/// How an evaluator is reached.
#[derive(Debug)]
pub(super) enum Route {
    Channel { endpoint: Endpoint, token: Option<Token> },
    Relayed(Intermediary),
}

impl Settings {
    /// The evaluator that is set.
    pub(super) fn evaluator(&self) -> Result<Evaluator, Failure> {
        let route = self.route()?;
        Ok(route.evaluator(self.policy()?))
    }

    /// The way to it, and with it the token.
    pub(super) fn route(&self) -> Result<Route, Failure> {
        let way = self.way.as_ref().ok_or_else(Failure::no_evaluator)?;
        let objects = self.objects.as_ref().map(|place| usable(place, place.value.parse())).transpose()?;
        let intermediary = match &way.value {
            Way::Endpoint(endpoint) => {
                return Ok(Route::Channel { endpoint: usable(way, endpoint.parse())?, token: self.token()? });
            }
            Way::Gateway(url) => Intermediary::Gateway { url: usable(way, gateway_url(url))?, objects },
            Way::SageMaker(name) => {
                Intermediary::SageMaker { endpoint: usable(way, SageMakerEndpoint::from_environment(name))?, objects }
            }
        };
        Ok(Route::Relayed(intermediary))
    }

    /// What it must prove.
    pub(super) fn policy(&self) -> Result<Policy, Failure> {
        load_policy(&self.policy.as_ref().ok_or_else(Failure::no_policy)?.value)
    }

    fn token(&self) -> Result<Option<Token>, Failure> {
        let Some(Setting { value: path, .. }) = &self.token_file else { return Ok(None) };
        let bytes = Zeroizing::new(files::read(path)?);
        let token = str::from_utf8(&bytes).ok().and_then(|text| Token::parse(text).ok());
        let bad = || {
            Failure::bad_input("token", format!("{}: no token is in it", path.display()), "`cloister token` makes one.")
        };
        token.map(Some).ok_or_else(bad)
    }
}

/// What a setting was parsed into; the error says where it stands.
fn usable<S, T>(setting: &Setting<S>, parsed: Result<T, impl fmt::Display>) -> Result<T, Failure> {
    parsed.map_err(|error| Failure::usage(format!("{setting}: {error}")))
}

impl Route {
    /// The evaluator there.
    pub(super) fn evaluator(self, policy: Policy) -> Evaluator {
        let evaluator = match self {
            Self::Channel { endpoint, token } => Evaluator::new(endpoint, token, policy),
            Self::Relayed(intermediary) => Evaluator::behind(intermediary, policy),
        };
        evaluator.with_remarks(|text| remark(text))
    }

    /// Whether somebody else ends TLS.
    pub(super) fn is_relayed(&self) -> bool {
        matches!(self, Self::Relayed(_))
    }

    /// Whether it is told who asks.
    pub(super) fn has_token(&self) -> bool {
        matches!(self, Self::Channel { token: Some(_), .. })
    }
}

/// Connects and verifies, and says what was verified. A failure leaves `verified` false.
pub(super) async fn connect(evaluator: &Evaluator, output: &mut Output) -> Result<AttestedConnection, Failure> {
    let connection = evaluator.connect().await?;
    tell(&connection, output);
    Ok(connection)
}

/// Says what was verified.
pub(super) fn tell(connection: &AttestedConnection, output: &mut Output) {
    let enclave = connection.enclave();
    output.simulated(enclave.simulated());
    output.set("verified", true);
    output.set("release", enclave.release());
    output.set("module_id", enclave.module_id());
    output.set("document_time", enclave.timestamp().to_string());
    output.channel(enclave.channel());
}
