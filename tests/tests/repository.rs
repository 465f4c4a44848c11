//! Models that change while an enclave runs: what it attests is always what it serves.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use cloister_attestation::{Loadable, ModelError, Sha384};
use cloister_client::{AttestedConnection, Error};
use cloister_e2e::{
    iris::Iris,
    service::{Service, accepting, any_loadable, ask, version, version_with_budget},
    tasks::Task,
};
use cloister_enclave_app::settings::{Memory, Settings};
use cloister_inference::Bundle;
use cloister_simulated_enclave::{Authority, Identity};
use cloister_wire::{error::ErrorCode, oip::ModelMetadata, paths};
use hyper::Method;
use tokio::task::JoinSet;

struct World {
    authority: Authority,
    service: Service,
}

impl World {
    async fn start(settings: Settings, bundles: &[Bundle]) -> Self {
        let authority = Authority::ephemeral();
        let service = Service::start(authority.enclave(Identity::random()), settings, bundles).await.unwrap();
        Self { authority, service }
    }

    /// A client that accepts this bundle.
    async fn client(&self, bundle: &Bundle) -> AttestedConnection {
        let policy = accepting(&self.authority, bundle);
        AttestedConnection::open(&self.service.endpoint().unwrap(), policy).await.unwrap()
    }

    async fn refusal(&self, bundle: &Bundle) -> (ErrorCode, String) {
        let refused = self.service.load(bundle).await.unwrap().unwrap_err();
        (refused.code, refused.error)
    }
}

fn row() -> Vec<Vec<f64>> {
    Iris::load().unwrap().rows[..1].to_vec()
}

#[tokio::test]
async fn each_client_gets_the_version_that_its_policy_accepts() {
    let (one, two) = (version("1").unwrap(), version("2").unwrap());
    let world = World::start(any_loadable(), std::slice::from_ref(&one)).await;
    let loaded = world.service.load(&two).await.unwrap().unwrap();
    assert_eq!((loaded.version.as_str(), loaded.digest), ("2", Sha384(two.digest()).to_string()));
    for (bundle, served) in [(&one, "1"), (&two, "2")] {
        let mut connection = world.client(bundle).await;
        assert_eq!(connection.enclave().manifest().models.len(), 2);
        assert_eq!(connection.enclave().model("iris").unwrap().version, served);
        connection.model("iris").await.unwrap().infer(&row()).await.unwrap();
    }
    // Neither of them: told of the newest.
    let connection = world.client(&version("3").unwrap()).await;
    let Err(ModelError::DigestMismatch { actual, .. }) = connection.enclave().model("iris") else { panic!() };
    assert_eq!(actual, Sha384(two.digest()));
}

#[tokio::test]
async fn versions_are_listed_and_asked_for_as_the_protocol_says() {
    let (one, two) = (version("1").unwrap(), version("2").unwrap());
    let world = World::start(any_loadable(), &[one.clone(), two.clone()]).await;
    let metadata = async |path: &str| {
        let (status, body) = ask(world.service.plain, Method::GET, path, "").await.unwrap();
        (status.as_u16(), serde_json::from_slice::<ModelMetadata>(&body).ok())
    };
    let (_, newest) = metadata(&paths::model("iris", None)).await;
    let (_, first) = metadata(&paths::model("iris", Some("1"))).await;
    let (newest, first) = (newest.unwrap(), first.unwrap());
    assert_eq!(newest.versions, ["1", "2"]);
    assert_ne!(newest.parameters.cloister_description, first.parameters.cloister_description);
    assert_eq!(metadata(&paths::model("iris", Some("3"))).await.0, 404);
    for (path, status) in [("/v2/models/iris/ready", 200), ("/v2/models/iris/versions/2/ready", 200)] {
        assert_eq!(ask(world.service.plain, Method::GET, path, "").await.unwrap().0, status);
    }
    assert_eq!(ask(world.service.plain, Method::GET, "/v2/models/iris/versions/9/ready", "").await.unwrap().0, 404);
    let listed = world.service.index().await.unwrap();
    assert_eq!(listed.iter().map(|model| model.version.as_str()).collect::<Vec<_>>(), ["1", "2"]);
}

/// A replaced model is told with both digests; the connection attests what is served now, and the policy decides.
#[tokio::test]
async fn a_client_that_expects_the_old_bundle_is_told_that_the_model_changed_with_both_digests() {
    let (old, new) = (version("1").unwrap(), version_with_budget("1", Some(1_000_000)).unwrap());
    assert_ne!(old.digest(), new.digest());
    let world = World::start(any_loadable(), std::slice::from_ref(&old)).await;
    let mut connection = world.client(&old).await;
    let mut model = connection.model("iris").await.unwrap();
    model.infer(&row()).await.unwrap();
    world.service.load(&new).await.unwrap().unwrap();

    let error = model.infer(&row()).await.unwrap_err();
    let Error::ModelChanged { expected, actual } = &error else { panic!("{error}") };
    assert_eq!((expected.bundle, actual.bundle), (Sha384(old.digest()), Sha384(new.digest())));
    let text = error.to_string();
    assert!(text.contains(&expected.bundle.to_string()) && text.contains(&actual.bundle.to_string()), "{text}");
    assert_eq!(world.service.index().await.unwrap().len(), 1, "it was replaced");
    assert_eq!(connection.model("iris").await.unwrap_err().code(), "model_digest_mismatch");
    world.client(&new).await.model("iris").await.unwrap().infer(&row()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_under_way_end_well_while_models_are_replaced() {
    let (kept, others) = (version("1").unwrap(), ["2", "3"].map(|name| version(name).unwrap()));
    let world = World::start(any_loadable(), std::slice::from_ref(&kept)).await;
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        let mut connection = world.client(&kept).await;
        clients.spawn(async move {
            let mut model = connection.model("iris").await.unwrap();
            for _ in 0..200 {
                model.infer(&row()).await.unwrap();
            }
        });
    }
    for _ in 0..10 {
        for other in &others {
            world.service.load(other).await.unwrap().unwrap();
        }
        for other in &others {
            world.service.unload("iris", Some(other.version())).await.unwrap();
        }
    }
    clients.join_all().await;
    assert_eq!(world.service.index().await.unwrap().len(), 1);
}

#[tokio::test]
async fn only_what_the_measured_settings_allow_is_loaded_and_clients_are_told_which() {
    let (served, allowed, other) = (version("1").unwrap(), version("2").unwrap(), version("3").unwrap());
    let loadable = Loadable::Listed(vec![Sha384(allowed.digest())]);
    let settings = Settings { loadable, ..Settings::default() };
    let world = World::start(settings, std::slice::from_ref(&served)).await;
    // And that of the image, which may come back once it was unloaded.
    let either = Loadable::Listed(vec![Sha384(allowed.digest()), Sha384(served.digest())]);
    assert_eq!(world.client(&served).await.enclave().manifest().loadable, either);
    world.service.unload("iris", None).await.unwrap();
    world.service.load(&served).await.unwrap().unwrap();
    let (code, text) = world.refusal(&other).await;
    assert_eq!(code, ErrorCode::ModelNotAllowed);
    assert!(text.contains(&Sha384(other.digest()).to_string()), "{text}");
    world.service.load(&allowed).await.unwrap().unwrap();
    assert_eq!(world.client(&allowed).await.enclave().model("iris").unwrap().version, "2");
}

#[tokio::test]
async fn an_enclave_that_may_load_nothing_does_not_even_listen() {
    let served = version("1").unwrap();
    let world = World::start(Settings::default(), std::slice::from_ref(&served)).await;
    world.client(&served).await;
    assert!(world.service.index().await.is_err());
    // Nor does the port for clients know these paths.
    let asked = ask(world.service.plain, Method::POST, paths::REPOSITORY_LOAD, served.to_bytes()).await.unwrap();
    assert_eq!(asked.0, 404);
}

/// The budget is the bundle's, from boot to end: neither unloading nor loading gives it back.
#[tokio::test]
async fn a_budget_is_not_renewed_by_loading_a_model_again() {
    let bundle = version_with_budget("1", Some(3)).unwrap();
    let world = World::start(any_loadable(), std::slice::from_ref(&bundle)).await;
    let spend = async || {
        let mut connection = world.client(&bundle).await;
        let mut model = connection.model("iris").await.unwrap();
        model.infer(&row()).await.map(drop).map_err(|error| error.code())
    };
    assert_eq!(spend().await, Ok(()));
    assert_eq!(spend().await, Err("budget_spent"));
    world.service.unload("iris", None).await.unwrap();
    world.service.load(&bundle).await.unwrap().unwrap();
    assert_eq!(spend().await, Err("budget_spent"));
}

#[tokio::test]
async fn what_is_no_bundle_or_has_no_room_is_refused_and_what_is_served_stays() {
    let served = version("1").unwrap();
    let memory = Memory { models_mib: 1, ..Memory::default() };
    let world = World::start(Settings { memory, ..any_loadable() }, std::slice::from_ref(&served)).await;
    for bytes in [b"no bundle".to_vec(), Vec::new(), served.to_bytes()[1..].to_vec()] {
        let asked = ask(world.service.control, Method::POST, paths::REPOSITORY_LOAD, bytes).await.unwrap();
        assert_eq!(asked.0, 400, "{}", String::from_utf8_lossy(&asked.1));
    }
    let wide = Task::load("wide784").unwrap().import(1e-3).unwrap();
    let (code, text) = world.refusal(&wide).await;
    assert_eq!(code, ErrorCode::InsufficientMemory, "{text}");
    assert!(text.contains("of 1 MiB"), "{text}");
    assert!(world.service.unload("wine", None).await.is_err());
    assert_eq!(world.service.index().await.unwrap().len(), 1);
    world.client(&served).await.model("iris").await.unwrap().infer(&row()).await.unwrap();
}
