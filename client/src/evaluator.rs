//! Where an evaluator is, by which way, and what it must prove: what every further connection to it is made of.

use std::time::Duration;

use cloister_attestation::Policy;
use tokio::time::sleep;

use crate::{AttestedConnection, Endpoint, Error, Intermediary, Token};

/// An evaluator to which connections can be opened, each verified by itself.
#[derive(Debug)]
pub struct Evaluator {
    route: Route,
    policy: Policy,
    remark: fn(&str),
}

#[derive(Debug)]
enum Route {
    Channel { endpoint: Endpoint, token: Option<Token> },
    Relayed(Intermediary),
}

/// As often, an evaluator may say that it is busy before it is believed.
const MAX_TRIES: usize = 5;
const MAX_WAIT: Duration = Duration::from_secs(5);

impl Evaluator {
    /// Where TLS ends in the enclave. `token` is by which it knows this client.
    pub fn new(endpoint: Endpoint, token: Option<Token>, policy: Policy) -> Self {
        Self { route: Route::Channel { endpoint, token }, policy, remark: |_| () }
    }

    /// Where somebody else ends TLS: [`AttestedConnection::open_without_channel`] says what is lost.
    pub fn behind(intermediary: Intermediary, policy: Policy) -> Self {
        Self { route: Route::Relayed(intermediary), policy, remark: |_| () }
    }

    /// Has `remark` told of what takes its time: a service that is asked again, a connection that is done without.
    pub fn with_remarks(self, remark: fn(&str)) -> Self {
        Self { remark, ..self }
    }

    /// What it must prove.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Connects, verifies, and only then says who asks. An enclave that has more nonces to answer than it can is asked again.
    pub async fn connect(&self) -> Result<AttestedConnection, Error> {
        let mut tries = 0;
        loop {
            let error = match self.try_connect().await {
                Err(error) => error,
                opened => return opened,
            };
            let Some(wait) = error.retry_after().filter(|_| tries < MAX_TRIES) else { return Err(error) };
            tries += 1;
            self.pause(&error, wait.min(MAX_WAIT)).await;
        }
    }

    async fn try_connect(&self) -> Result<AttestedConnection, Error> {
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
    pub(crate) fn is_relayed(&self) -> bool {
        matches!(self.route, Route::Relayed(_))
    }

    /// Says why it is asked again, and when, and waits until then.
    pub(crate) async fn pause(&self, error: &Error, wait: Duration) {
        self.remark(&format!("{error}: asking again in {:.0} s", wait.as_secs_f64().ceil()));
        sleep(wait).await;
    }

    pub(crate) fn remark(&self, text: &str) {
        (self.remark)(text);
    }
}
