//! The enclaves' model repositories, which only the parent reaches.

use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use cloister_wire::{
    BINARY_MEDIA_TYPE,
    error::{ErrorBody, ErrorCode},
    oip::RepositoryModel,
    paths,
};
use serde::de::DeserializeOwned;

use crate::{
    address::Address,
    limits::Limits,
    model::Model,
    pool::{Answer, Pool, Question, Unanswered},
    upstream::content_type,
};

/// The largest bundle that is read. An enclave may accept less.
pub const MAX_BUNDLE_BYTES: usize = 64 << 20;

/// All enclaves' model repositories; what is done is done on each.
pub struct Repository {
    ports: Vec<Pool>,
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
    /// There is no enclave to ask.
    #[error("there is no enclave to ask")]
    NoEnclave,
}

impl Repository {
    /// The repositories at these addresses.
    pub fn new(control: Vec<Address>, limits: &Limits) -> Self {
        Self { ports: control.into_iter().map(|address| Pool::new(address, limits.connect)).collect() }
    }

    /// What each enclave serves, in the order of their addresses.
    ///
    /// # Errors
    ///
    /// When one of them does not say.
    pub async fn list(&self) -> Result<Vec<(Address, Vec<RepositoryModel>)>, RepositoryError> {
        let question = Question::post(paths::REPOSITORY_INDEX, HeaderMap::new(), Bytes::new());
        let mut lists = Vec::new();
        for port in &self.ports {
            let answer = ask(port, &question).await?;
            lists.push((port.address.clone(), read(port, &answer)?));
        }
        Ok(lists)
    }

    /// Loads a bundle into every enclave, or into none: where one refuses, those before it unload it again.
    ///
    /// # Errors
    ///
    /// That of the first enclave that did not load it.
    pub async fn load(&self, bundle: Bytes) -> Result<RepositoryModel, RepositoryError> {
        let question = Question::post(paths::REPOSITORY_LOAD, content_type(BINARY_MEDIA_TYPE), bundle);
        let mut loaded: Vec<(&Pool, RepositoryModel)> = Vec::new();
        for port in &self.ports {
            match load_one(port, &question, loaded.first().map(|(_, first)| first)).await {
                Ok(model) => loaded.push((port, model)),
                Err(error) => {
                    for (port, model) in &loaded {
                        // It may have gone with its enclave; the error that matters is the first.
                        let _ = ask(port, &unload(&model.name, Some(&model.version))).await;
                    }
                    return Err(error);
                }
            }
        }
        loaded.into_iter().next().map(|(_, model)| model).ok_or(RepositoryError::NoEnclave)
    }

    /// Unloads a model, or one of its versions, from every enclave.
    ///
    /// # Errors
    ///
    /// That of the first enclave that did not unload it, if need be of one that did not have it; the others were asked all
    /// the same.
    pub async fn unload(&self, model: &Model) -> Result<(), RepositoryError> {
        let question = unload(model.name(), model.version());
        let mut result: Result<(), RepositoryError> = Ok(());
        for port in &self.ports {
            let unloaded = ask(port, &question).await.map(drop);
            result = match result {
                Err(first) if first.is_unknown_model() && unloaded.is_err() => unloaded,
                result => result.and(unloaded),
            };
        }
        result
    }
}

fn unload(name: &str, version: Option<&str>) -> Question {
    Question::post(paths::repository_unload(name, version), HeaderMap::new(), Bytes::new())
}

async fn load_one(
    port: &Pool,
    question: &Question,
    first: Option<&RepositoryModel>,
) -> Result<RepositoryModel, RepositoryError> {
    let model: RepositoryModel = read(port, &ask(port, question).await?)?;
    match first {
        Some(first) if *first != model => Err(RepositoryError::Disagree { first: text(first), second: text(&model) }),
        _ => Ok(model),
    }
}

fn text(RepositoryModel { name, version, state: _, digest }: &RepositoryModel) -> String {
    format!("{name}/{version} {digest}")
}

async fn ask(port: &Pool, question: &Question) -> Result<Answer, RepositoryError> {
    let answer = port
        .ask(question)
        .await
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
