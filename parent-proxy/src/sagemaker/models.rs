//! The verbs of a multi-model endpoint: SageMaker says which models are loaded, from files that it has put there.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    ops::Bound::{Excluded, Unbounded},
    path::{Path as FilePath, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json, Router,
    extract::{
        Path, Query, Request, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::StatusCode,
    response::Response,
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use cloister_wire::{
    error::{ErrorBody, ErrorCode},
    oip::RepositoryModel,
};
use serde::{Deserialize, Serialize};
use tokio::task::{spawn, spawn_blocking};

use super::invoke;
use crate::{
    bundle::digest_of,
    front::Front,
    log::log,
    model::Model,
    refusal::Refusal,
    repository::{MAX_BUNDLE_BYTES, Repository, RepositoryError},
};

/// Models on a page of their list.
const PAGE: usize = 100;
/// Names that are remembered. Each may mean any bundle, so there may be more than an enclave holds models.
const MAX_NAMES: usize = 1000;
const MAX_NAME_BYTES: usize = 256;

pub(crate) fn routes() -> Router<Arc<Front>> {
    Router::new()
        .route("/models", post(load).get(list))
        .route("/models/{model_name}", get(show).delete(unload))
        .route("/models/{model_name}/invoke", post(invoke_model))
}

/// The models that SageMaker has had loaded, by the names that it has given them.
pub(crate) struct LoadedModels {
    folder: PathBuf,
    repository: Repository,
    /// What an enclave that lost it gets again.
    loaded: Mutex<BTreeMap<String, Loaded>>,
    /// One load or unload at a time, as an enclave sees them.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Loaded {
    model: Model,
    url: String,
    /// Of its bundle, as the enclaves call it.
    digest: String,
}

impl Loaded {
    /// Whether an enclave serves it, or what an operator has put in its place.
    fn is(&self, served: &RepositoryModel) -> bool {
        self.model.name() == served.name && self.model.version() == Some(&served.version)
    }
}

#[derive(Deserialize)]
struct LoadRequest {
    model_name: String,
    url: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    model_name: String,
    model_url: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List {
    models: Vec<Entry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
struct ListQuery {
    next_page_token: Option<String>,
}

async fn load(State(front): State<Arc<Front>>, request: Request) -> Result<Json<Entry>, Refusal> {
    let LoadRequest { model_name, url } = serde_json::from_slice(&front.read(request.into_body()).await?)
        .map_err(|error| Refusal::bad_request(format!("the body says no model_name and url: {error}")))?;
    to_its_end(async move { models(&front)?.load(model_name, url).await.map(Json) }).await
}

async fn list(State(front): State<Arc<Front>>, query: PageQuery) -> Result<Json<List>, Refusal> {
    let Query(ListQuery { next_page_token }) = query?;
    models(&front)?.list(next_page_token.as_deref()).map(Json)
}

async fn show(State(front): State<Arc<Front>>, name: Name) -> Result<Json<Entry>, Refusal> {
    let Path(model_name) = name?;
    let Loaded { url: model_url, .. } = models(&front)?.find(&model_name)?;
    Ok(Json(Entry { model_name, model_url }))
}

async fn unload(State(front): State<Arc<Front>>, name: Name) -> Result<StatusCode, Refusal> {
    let Path(name) = name?;
    to_its_end(async move { models(&front)?.unload(&name).await.map(|()| StatusCode::OK) }).await
}

/// A change goes on when nobody waits for it any more, so that what the enclaves serve and what is known of it agree.
async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    let failed = |_| Err(Refusal::new(ErrorCode::Internal, "the change failed"));
    spawn(change).await.unwrap_or_else(failed)
}

async fn invoke_model(State(front): State<Arc<Front>>, name: Name, request: Request) -> Result<Response, Refusal> {
    let Path(name) = name?;
    let Loaded { model, .. } = models(&front)?.find(&name)?;
    Ok(invoke(&front, Some(model), request).await)
}

/// What a path or a query says, or what is wrong with it: said as all refusals are, by [`Refusal`].
type Name = Result<Path<String>, PathRejection>;
type PageQuery = Result<Query<ListQuery>, QueryRejection>;

impl From<PathRejection> for Refusal {
    fn from(rejection: PathRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

fn models(front: &Front) -> Result<&LoadedModels, Refusal> {
    front.models.as_deref().ok_or_else(|| Refusal::new(ErrorCode::NotFound, "nothing is at this path"))
}

impl LoadedModels {
    pub(crate) fn new(folder: PathBuf, repository: Repository) -> Self {
        Self { folder, repository, loaded: Mutex::default(), changing: tokio::sync::Mutex::default() }
    }

    async fn load(&self, name: String, url: String) -> Result<Entry, Refusal> {
        let _alone = self.changing.lock().await;
        self.may_be_loaded(&name)?;
        let bundle = self.bundle(&url).await?;
        let RepositoryModel { name: own_name, version, digest, .. } = self.repository.add(bundle).await?;
        let model = Model::of(&own_name, &version).map_err(|error| {
            Refusal::new(ErrorCode::Internal, format!("the enclave answers with a name of none: {error}"))
        })?;
        log(format_args!("event=model_loaded model={model}"));
        self.loaded().insert(name.clone(), Loaded { model, url: url.clone(), digest });
        Ok(Entry { model_name: name, model_url: url })
    }

    fn may_be_loaded(&self, name: &str) -> Result<(), Refusal> {
        let loaded = self.loaded();
        if !(1..=MAX_NAME_BYTES).contains(&name.len()) || !name.bytes().all(|c| c.is_ascii_graphic()) {
            let error = format!("a model's name has 1 to {MAX_NAME_BYTES} bytes, all of them visible ASCII");
            return Err(Refusal::bad_request(error));
        }
        if loaded.contains_key(name) {
            let error = "a model of this name is loaded: unload it first";
            return Err(Refusal::bad_request(error).with_status(StatusCode::CONFLICT.as_u16()));
        }
        if loaded.len() >= MAX_NAMES {
            let error = format!("{MAX_NAMES} models are loaded: unload some");
            return Err(Refusal::new(ErrorCode::InsufficientMemory, error));
        }
        Ok(())
    }

    async fn bundle(&self, url: &str) -> Result<Bytes, BundleError> {
        let (folder, file) = (self.folder.clone(), PathBuf::from(url));
        spawn_blocking(move || read_bundle(&folder, &file)).await.unwrap_or(Err(BundleError::Unreadable))
    }

    /// Loads into an enclave what was loaded into all and what it has lost, as one has that started anew. Whether it then
    /// serves it all; `None` while that changes. If it counts as `up` it is first said that it does not: loading takes time.
    pub(crate) async fn restore(&self, enclave: usize, up: bool) -> Option<bool> {
        if self.loaded().is_empty() {
            return Some(true);
        }
        let _alone = self.changing.try_lock().ok()?;
        let given: Vec<_> = self.loaded().values().cloned().collect();
        let served = match self.repository.list_of(enclave).await {
            Ok(served) => served,
            Err(error) => {
                log(format_args!("event=repository_failed error={:?}", error.to_string()));
                return Some(false);
            }
        };
        let is_lost = |given: &Loaded| !served.iter().any(|served| given.is(served));
        for Loaded { model, url, digest } in given.into_iter().filter(is_lost) {
            if up {
                return Some(false);
            }
            match self.load_again(enclave, &url, &digest).await {
                Ok(()) => log(format_args!("event=model_restored model={model}")),
                Err(Refusal { body, .. }) => {
                    log(format_args!("event=model_not_restored model={model} error={:?}", body.error));
                    return Some(false);
                }
            }
        }
        Some(true)
    }

    async fn load_again(&self, enclave: usize, url: &str, digest: &str) -> Result<(), Refusal> {
        let bundle = self.bundle(url).await?;
        if digest_of(&bundle) != digest {
            return Err(Refusal::new(ErrorCode::Internal, "another bundle is at its url than when it was loaded"));
        }
        self.repository.load_again(enclave, bundle).await?;
        Ok(())
    }

    async fn unload(&self, name: &str) -> Result<(), Refusal> {
        let _alone = self.changing.lock().await;
        let Loaded { model, .. } = self.find(name)?;
        // The same bundle may have been loaded under another name, which goes on meaning it.
        let shared = self.loaded().iter().any(|(other, loaded)| other != name && loaded.model == model);
        if !shared {
            match self.repository.unload(&model).await {
                Err(error) if !error.is_unknown_model() => return Err(error.into()),
                _ => log(format_args!("event=model_unloaded model={model}")),
            }
        }
        self.loaded().remove(name);
        Ok(())
    }

    fn find(&self, name: &str) -> Result<Loaded, Refusal> {
        let unknown = || Refusal::new(ErrorCode::UnknownModel, "no model of this name is loaded");
        self.loaded().get(name).cloned().ok_or_else(unknown)
    }

    fn list(&self, token: Option<&str>) -> Result<List, Refusal> {
        let after = token.map(name_in).transpose()?;
        let from = after.as_deref().map_or(Unbounded, Excluded);
        let loaded = self.loaded();
        let mut rest = loaded.range::<str, _>((from, Unbounded));
        let entry =
            |(name, loaded): (&String, &Loaded)| Entry { model_name: name.clone(), model_url: loaded.url.clone() };
        let models: Vec<_> = rest.by_ref().take(PAGE).map(entry).collect();
        let last = models.last().filter(|_| rest.next().is_some());
        let next_page_token = last.map(|last| URL_SAFE_NO_PAD.encode(&last.model_name));
        Ok(List { models, next_page_token })
    }

    fn loaded(&self) -> MutexGuard<'_, BTreeMap<String, Loaded>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last name of the page before: what has been unloaded since changes nothing about what follows it.
fn name_in(token: &str) -> Result<String, Refusal> {
    let name = URL_SAFE_NO_PAD.decode(token).ok().and_then(|name| String::from_utf8(name).ok());
    name.ok_or_else(|| Refusal::bad_request("next_page_token is none that was given out"))
}

/// Why no bundle is read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum BundleError {
    #[error("nothing is at this url under the folder of models")]
    NotFound,
    #[error("the url is neither a *.cloister file nor a folder that holds exactly one")]
    NotOne,
    #[error("the bundle has more than {MAX_BUNDLE_BYTES} bytes")]
    TooLarge,
    #[error("the file cannot be read: see that this service may")]
    Unreadable,
}

/// The one bundle at `url`, wherever symbolic links lead, as long as they stay under `folder`.
fn read_bundle(folder: &FilePath, url: &FilePath) -> Result<Bytes, BundleError> {
    let folder = folder.canonicalize()?;
    let found = under(&folder, url)?;
    let file = if found.is_dir() { under(&folder, &only_bundle(&found)?)? } else { found };
    if !is_bundle(&file) || !file.is_file() {
        return Err(BundleError::NotOne);
    }
    let mut bundle = Vec::new();
    File::open(file)?.take(MAX_BUNDLE_BYTES as u64 + 1).read_to_end(&mut bundle)?;
    if bundle.len() > MAX_BUNDLE_BYTES {
        return Err(BundleError::TooLarge);
    }
    Ok(bundle.into())
}

/// Where a path leads, if that is under `folder`. Nothing is said of what is elsewhere, not even whether it is there.
fn under(folder: &FilePath, path: &FilePath) -> Result<PathBuf, BundleError> {
    let path = path.canonicalize().map_err(|_| BundleError::NotFound)?;
    if path.starts_with(folder) { Ok(path) } else { Err(BundleError::NotFound) }
}

fn only_bundle(folder: &FilePath) -> Result<PathBuf, BundleError> {
    let entries = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    match <[PathBuf; 1]>::try_from(entries.into_iter().filter(|path| is_bundle(path)).collect::<Vec<_>>()) {
        Ok([bundle]) => Ok(bundle),
        Err(_) => Err(BundleError::NotOne),
    }
}

fn is_bundle(path: &FilePath) -> bool {
    path.extension().is_some_and(|extension| extension == "cloister")
}

impl From<io::Error> for BundleError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::NotFound,
            _ => Self::Unreadable,
        }
    }
}

impl From<BundleError> for Refusal {
    fn from(error: BundleError) -> Self {
        let code = match error {
            BundleError::NotFound => ErrorCode::NotFound,
            BundleError::NotOne => ErrorCode::BadRequest,
            BundleError::TooLarge => ErrorCode::TooLarge,
            BundleError::Unreadable => ErrorCode::Internal,
        };
        Self::new(code, error.to_string())
    }
}

impl From<RepositoryError> for Refusal {
    fn from(error: RepositoryError) -> Self {
        log(format_args!("event=repository_failed error={:?}", error.to_string()));
        // Which enclaves differ is for the log.
        let error = match error {
            RepositoryError::Partly { source, .. } => *source,
            error => error,
        };
        match error {
            RepositoryError::Taken { .. } => {
                let error = "another bundle of this name and version is served, and is not replaced: unload it first, or give \
                             this one another version";
                Self::bad_request(error).with_status(StatusCode::CONFLICT.as_u16())
            }
            RepositoryError::Refused { status, body: ErrorBody { error, code }, .. } => {
                Self::new(code, error).with_status(status)
            }
            RepositoryError::Unanswered { .. } | RepositoryError::NoEnclave => Self::unavailable(),
            _ => Self::new(ErrorCode::Internal, "an enclave's model repository gives no answer that can be read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    /// A folder of models beside one that is none of them, each with a bundle.
    fn folders() -> (TempDir, PathBuf, PathBuf) {
        let both = tempfile::tempdir().unwrap();
        let (models, other) = (both.path().join("models"), both.path().join("models-not"));
        for folder in [&models, &other] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("iris.cloister"), b"iris").unwrap();
        }
        (both, models, other)
    }

    #[test]
    fn a_bundle_is_a_file_or_alone_in_a_folder() {
        let (_both, models, _) = folders();
        assert_eq!(read_bundle(&models, &models.join("iris.cloister")).unwrap(), &b"iris"[..]);
        fs::write(models.join("README"), b"").unwrap();
        assert_eq!(read_bundle(&models, &models).unwrap(), &b"iris"[..]);
        assert_eq!(read_bundle(&models, &models.join("README")), Err(BundleError::NotOne));

        fs::write(models.join("wine.cloister"), b"wine").unwrap();
        assert_eq!(read_bundle(&models, &models), Err(BundleError::NotOne));
        assert_eq!(read_bundle(&models, &models.join("gone.cloister")), Err(BundleError::NotFound));
        assert_eq!(read_bundle(&models, &models.join("iris.cloister/x")), Err(BundleError::NotFound));
    }

    #[test]
    fn nothing_outside_the_folder_is_read() {
        let (_both, models, other) = folders();
        let folder = models.join("folder");
        fs::create_dir(&folder).unwrap();
        symlink(other.join("iris.cloister"), folder.join("link.cloister")).unwrap();
        symlink(&other, models.join("linked")).unwrap();
        for url in [
            other.join("iris.cloister"),
            models.join("../models-not/iris.cloister"),
            models.join("linked/iris.cloister"),
            models.join("linked"),
            folder.join("link.cloister"),
            folder,
        ] {
            assert_eq!(read_bundle(&models, &url), Err(BundleError::NotFound), "{}", url.display());
        }
    }

    #[test]
    fn a_link_that_stays_inside_is_followed() {
        let (_both, models, _) = folders();
        symlink(models.join("iris.cloister"), models.join("link.cloister")).unwrap();
        assert_eq!(read_bundle(&models, &models.join("link.cloister")).unwrap(), &b"iris"[..]);
    }

    #[test]
    fn a_bundle_has_a_limit() {
        let (_both, models, _) = folders();
        let file = models.join("large.cloister");
        File::create(&file).unwrap().set_len(MAX_BUNDLE_BYTES as u64 + 1).unwrap();
        assert_eq!(read_bundle(&models, &file), Err(BundleError::TooLarge));
    }

    fn loaded() -> LoadedModels {
        LoadedModels::new(PathBuf::new(), Repository::new(Vec::new(), &crate::Limits::default()))
    }

    fn entry(n: usize) -> (String, Loaded) {
        let (model, digest) = ("iris/1".parse().unwrap(), String::new());
        (format!("{n:03}"), Loaded { model, url: format!("/models/{n}"), digest })
    }

    #[test]
    fn names_are_short_and_visible_and_not_without_number() {
        let models = loaded();
        let status = |name: &str| models.may_be_loaded(name).err().map(|refusal| refusal.body.code);
        for faulty in ["", "a b", "a\n", "\u{1b}[2J", "é", &"x".repeat(MAX_NAME_BYTES + 1)] {
            assert_eq!(status(faulty), Some(ErrorCode::BadRequest), "{faulty:?}");
        }
        assert_eq!(status(&"x".repeat(MAX_NAME_BYTES)), None);
        models.loaded().extend((0..MAX_NAMES).map(entry));
        assert_eq!(status("another"), Some(ErrorCode::InsufficientMemory));
    }

    #[test]
    fn pages_follow_one_another() {
        let models = loaded();
        models.loaded().extend((0..2 * PAGE + 1).map(entry));
        let (mut token, mut names) = (None, Vec::new());
        loop {
            let page = models.list(token.as_deref()).unwrap();
            names.extend(page.models.into_iter().map(|entry| entry.model_name));
            token = page.next_page_token;
            if token.is_none() {
                break;
            }
        }
        assert_eq!(names, (0..2 * PAGE + 1).map(|n| format!("{n:03}")).collect::<Vec<_>>());
        assert!(models.list(Some("%")).is_err());
    }
}
