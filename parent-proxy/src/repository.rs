//! The enclaves' model repositories, which only the parent reaches.

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use cloister_wire::{
    BINARY_MEDIA_TYPE,
    error::{ErrorBody, ErrorCode},
    oip::RepositoryModel,
    paths,
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::{
    address::Address,
    bundle::{digest_of, name_and_version},
    limits::Limits,
    model::Model,
    pool::{Answer, Pool, Question, Unanswered},
    upstream::content_type,
};

/// The largest bundle that is read. An enclave may accept less.
pub const MAX_BUNDLE_BYTES: usize = 64 << 20;

/// For a bundle to be judged and made ready, however large.
const LOAD: Duration = Duration::from_secs(60);
/// For all else.
const OTHER: Duration = Duration::from_secs(10);

/// All enclaves' model repositories; what is done is done on each.
pub struct Repository {
    ports: Vec<Port>,
}

/// One enclave's, and how long it may take.
struct Port {
    pool: Pool,
    load: Duration,
    other: Duration,
}

/// What an enclave did not do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepositoryError {
    /// There is no answer.
    #[error("{enclave} does not answer: {source}")]
    Unanswered {
        /// The enclave's repository port.
        enclave: Address,
        /// Why there is none.
        source: Unanswered,
    },
    /// The answer is no.
    #[error("{enclave} refuses: {} ({})", .body.error, .body.code)]
    Refused {
        /// The enclave's repository port.
        enclave: Address,
        /// The answer's status.
        status: u16,
        /// What it says.
        body: ErrorBody,
    },
    /// The answer cannot be read.
    #[error(
        "{enclave} answers with status {status} and a body that is none of a model repository's: is that its port?"
    )]
    Unreadable {
        /// The enclave's repository port.
        enclave: Address,
        /// The answer's status.
        status: u16,
    },
    /// Two enclaves call the same bundle differently.
    #[error("the enclaves disagree about what was loaded: {first} and {second}; see that they run the same image")]
    Disagree {
        /// What one of them loaded.
        first: String,
        /// What another one loaded.
        second: String,
    },
    /// Some enclaves serve what others do not, and what they served in its place is gone.
    #[error("{source}; but {changed}: load the bundle that all shall serve once more")]
    Partly {
        /// Which, and what.
        changed: String,
        /// What another one did not do.
        source: Box<RepositoryError>,
    },
    /// Another bundle has this name and version, and is to keep them.
    #[error(
        "{enclave} serves {by}, another bundle of this name and version: unload it first, or give this one another version"
    )]
    Taken {
        /// The enclave's repository port.
        enclave: Address,
        /// What it serves.
        by: String,
    },
    /// There is no enclave to ask.
    #[error("there is no enclave to ask")]
    NoEnclave,
}

impl Repository {
    /// The repositories at these addresses.
    pub fn new(control: Vec<Address>, limits: &Limits) -> Self {
        let port = |address| Port { pool: Pool::new(address, limits.connect), load: LOAD, other: OTHER };
        Self { ports: control.into_iter().map(port).collect() }
    }

    /// What each enclave serves, in the order of their addresses.
    ///
    /// # Errors
    ///
    /// When one of them does not say.
    pub async fn list(&self) -> Result<Vec<(Address, Vec<RepositoryModel>)>, RepositoryError> {
        let mut lists = Vec::new();
        for port in &self.ports {
            lists.push((port.pool.address.clone(), port.list().await?));
        }
        Ok(lists)
    }

    /// Loads a bundle into every enclave, in place of one of the same name and version, or into none: where one refuses,
    /// those before it that did not have it unload it again.
    ///
    /// # Errors
    ///
    /// That of the first enclave that did not load it; [`RepositoryError::Partly`] if it took the place of another on some,
    /// which does not come back.
    pub async fn load(&self, bundle: Bytes) -> Result<RepositoryModel, RepositoryError> {
        let before = self.list().await?;
        self.load_after(&before, bundle).await
    }

    /// Loads a bundle into every enclave or into none, and in place of no other.
    pub(crate) async fn add(&self, bundle: Bytes) -> Result<RepositoryModel, RepositoryError> {
        let before = self.list().await?;
        // What has no name is no bundle, as the enclaves will say.
        if let Some((name, version)) = name_and_version(&bundle) {
            let digest = digest_of(&bundle);
            for (enclave, models) in &before {
                if let Some(other) = named(models, &name, &version).filter(|other| other.digest != digest) {
                    return Err(RepositoryError::Taken { enclave: enclave.clone(), by: text(other) });
                }
            }
        }
        self.load_after(&before, bundle).await
    }

    async fn load_after(
        &self,
        before: &[(Address, Vec<RepositoryModel>)],
        bundle: Bytes,
    ) -> Result<RepositoryModel, RepositoryError> {
        let mut loaded = Vec::new();
        for (port, (_, before)) in self.ports.iter().zip(before) {
            let result = match port.load(bundle.clone()).await {
                Ok(model) => {
                    loaded.push(Change { port, before, model });
                    agree(&loaded)
                }
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                return Err(take_back(loaded, error).await);
            }
        }
        loaded.into_iter().next().map(|change| change.model).ok_or(RepositoryError::NoEnclave)
    }

    /// What one enclave serves.
    pub(crate) async fn list_of(&self, enclave: usize) -> Result<Vec<RepositoryModel>, RepositoryError> {
        self.ports.get(enclave).ok_or(RepositoryError::NoEnclave)?.list().await
    }

    /// Loads a bundle into one enclave, which has lost it.
    pub(crate) async fn load_again(&self, enclave: usize, bundle: Bytes) -> Result<RepositoryModel, RepositoryError> {
        self.ports.get(enclave).ok_or(RepositoryError::NoEnclave)?.load(bundle).await
    }

    /// Unloads a model, or one of its versions, from every enclave.
    ///
    /// # Errors
    ///
    /// That of the first enclave that did not unload it, if need be of one that did not have it; the others were asked all
    /// the same.
    pub async fn unload(&self, model: &Model) -> Result<(), RepositoryError> {
        let mut result: Result<(), RepositoryError> = Ok(());
        for port in &self.ports {
            let unloaded = port.unload(model.name(), model.version()).await;
            result = match result {
                Err(first) if first.is_unknown_model() && unloaded.is_err() => unloaded,
                result => result.and(unloaded),
            };
        }
        result
    }
}

/// What an enclave has loaded, and what it served before.
struct Change<'a> {
    port: &'a Port,
    before: &'a [RepositoryModel],
    model: RepositoryModel,
}

impl Change<'_> {
    /// Unloads what was not served before; whether the enclave now serves what it did.
    async fn take_back(&self) -> bool {
        let RepositoryModel { name, version, digest, .. } = &self.model;
        match named(self.before, name, version) {
            Some(before) => before.digest == *digest,
            // One that has started anew in the meantime has it no longer.
            None => {
                self.port.unload(name, Some(version)).await.map_or_else(|error| error.is_unknown_model(), |()| true)
            }
        }
    }
}

/// Whether the last enclave calls what it has loaded as the first does.
fn agree(loaded: &[Change<'_>]) -> Result<(), RepositoryError> {
    match loaded {
        [first, .., last] if first.model != last.model => {
            Err(RepositoryError::Disagree { first: text(&first.model), second: text(&last.model) })
        }
        _ => Ok(()),
    }
}

/// The error that says what failed, and on which enclaves it could not be undone.
async fn take_back(loaded: Vec<Change<'_>>, error: RepositoryError) -> RepositoryError {
    let mut changed = Vec::new();
    for change in &loaded {
        if !change.take_back().await {
            changed.push(format!("{} serves {}", change.port.pool.address, text(&change.model)));
        }
    }
    match changed.is_empty() {
        true => error,
        false => RepositoryError::Partly { changed: changed.join(", "), source: Box::new(error) },
    }
}

fn named<'a>(models: &'a [RepositoryModel], name: &str, version: &str) -> Option<&'a RepositoryModel> {
    models.iter().find(|model| model.name == name && model.version == version)
}

fn text(RepositoryModel { name, version, state: _, digest }: &RepositoryModel) -> String {
    format!("{name}/{version} {digest}")
}

impl Port {
    async fn list(&self) -> Result<Vec<RepositoryModel>, RepositoryError> {
        let question = Question::post(paths::REPOSITORY_INDEX, HeaderMap::new(), Bytes::new());
        read(&self.pool, &ask(&self.pool, &question, self.other).await?)
    }

    async fn load(&self, bundle: Bytes) -> Result<RepositoryModel, RepositoryError> {
        let question = Question::post(paths::REPOSITORY_LOAD, content_type(BINARY_MEDIA_TYPE), bundle);
        read(&self.pool, &ask(&self.pool, &question, self.load).await?)
    }

    async fn unload(&self, name: &str, version: Option<&str>) -> Result<(), RepositoryError> {
        let question = Question::post(paths::repository_unload(name, version), HeaderMap::new(), Bytes::new());
        ask(&self.pool, &question, self.other).await.map(drop)
    }
}

async fn ask(port: &Pool, question: &Question, patience: Duration) -> Result<Answer, RepositoryError> {
    let answer = timeout(patience, port.ask(question))
        .await
        .unwrap_or(Err(Unanswered::Late(patience)))
        .map_err(|source| RepositoryError::Unanswered { enclave: port.address.clone(), source })?;
    match answer.status() {
        status if status.is_success() => Ok(answer),
        status => Err(refused(port, status, &answer)),
    }
}

fn refused(port: &Pool, status: StatusCode, answer: &Answer) -> RepositoryError {
    let (enclave, status) = (port.address.clone(), status.as_u16());
    match serde_json::from_slice(answer.body()) {
        Ok(body) => RepositoryError::Refused { enclave, status, body },
        Err(_) => RepositoryError::Unreadable { enclave, status },
    }
}

fn read<T: DeserializeOwned>(port: &Pool, answer: &Answer) -> Result<T, RepositoryError> {
    serde_json::from_slice(answer.body())
        .map_err(|_| RepositoryError::Unreadable { enclave: port.address.clone(), status: answer.status().as_u16() })
}

impl RepositoryError {
    /// Whether the model was not there to begin with.
    pub(crate) fn is_unknown_model(&self) -> bool {
        matches!(self, Self::Refused { body: ErrorBody { code: ErrorCode::UnknownModel, .. }, .. })
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_enclave_that_does_not_answer_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: Address = format!("tcp:{}", listener.local_addr().unwrap()).parse().unwrap();
        let mut repository = Repository::new(vec![address], &Limits::default());
        for port in &mut repository.ports {
            (port.load, port.other) = (Duration::from_millis(1), Duration::from_millis(1));
        }
        let late = |error| matches!(error, RepositoryError::Unanswered { source: Unanswered::Late(_), .. });
        assert!(late(repository.list().await.unwrap_err()));
        assert!(late(repository.load_again(0, Bytes::new()).await.unwrap_err()));
        assert!(late(repository.unload(&"iris".parse().unwrap()).await.unwrap_err()));
    }
}
