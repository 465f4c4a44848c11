//! The contract of a SageMaker container.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

mod support;

use std::{fs, os::unix::fs::symlink, path::Path};

use axum::{
    Json,
    body::Body,
    http::Method,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use cloister_parent_proxy::{FrontSettings, Limits, MultiModel};
use cloister_wire::error::ErrorCode;
use serde_json::{Value, json};
use support::{
    Answer, Asked, Enclave, Front, Models, answers, bundle, closed, refuses, request, settings, unlimited, until,
};
use tempfile::TempDir;

const ATTESTATION: &str = "application/vnd.cloister.attestation";
const INFER: &str = "application/vnd.cloister.infer";
const METADATA: &str = "application/vnd.cloister.metadata";
const OBJECT: &str = "application/vnd.cloister.object+json";
const LINES: &str = "application/jsonlines";
const TARGET_MODEL: &str = "x-amzn-sagemaker-target-model";
const ATTRIBUTES: &str = "x-amzn-sagemaker-custom-attributes";
const SESSION: &str = "x-amzn-sagemaker-session-id";
const NEW_SESSION: &str = "x-amzn-sagemaker-new-session-id";
const IRIS: (&str, &str) = (TARGET_MODEL, "iris");

// Health

#[tokio::test]
async fn ping_waits_for_an_enclave_that_attests() {
    let mut settings = settings(&[]);
    settings.enclaves.push(closed().await);
    let front = Front::with(settings.clone(), unlimited()).await;
    assert_eq!(front.get("/ping").await.code(), ErrorCode::Unavailable);

    let ready_only = Enclave::that(async |asked| match asked.path.as_str() {
        "/v1/attestation" => refuses(ErrorCode::Internal),
        _ => answers(&asked),
    });
    let ready_only = ready_only.await;
    let front = Front::to(&[&ready_only]).await;
    until(async || ready_only.was_asked("/v1/attestation")).await;
    assert_eq!(front.get("/ping").await.code(), ErrorCode::Unavailable);

    let enclave = Enclave::start().await;
    settings.enclaves.push(enclave.address.clone());
    let front = Front::with(settings, unlimited()).await;
    until(async || front.get("/ping").await.status() == 200).await;
    drop(enclave);
    until(async || front.get("/ping").await.status() == 503).await;
}

#[tokio::test]
async fn an_enclave_that_has_much_to_do_is_up() {
    let busy = Enclave::that(async |asked| match asked.path.as_str() {
        "/v1/attestation" => refuses(ErrorCode::Busy),
        _ => answers(&asked),
    });
    let busy = busy.await;
    let front = Front::to(&[&busy]).await;
    until(async || front.get("/ping").await.status() == 200).await;
}

#[tokio::test]
async fn execution_parameters_come_from_the_limits() {
    let enclave = Enclave::start().await;
    let parameters = async |limits: Limits| {
        let front = Front::with(settings(&[&enclave]), limits).await;
        front.get("/execution-parameters").await.json()
    };
    let expected = json!({"MaxConcurrentTransforms": 16, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 6});
    assert_eq!(parameters(Limits::default()).await, expected);
    let few = Limits { requests: 2.try_into().unwrap(), body: 20 << 20, ..Limits::default() };
    let expected = json!({"MaxConcurrentTransforms": 2, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 20});
    assert_eq!(parameters(few).await, expected);
}

// Invocations

#[tokio::test]
async fn the_content_type_says_what_is_to_be_done() {
    let enclave = Enclave::start().await;
    let front = Front::to(&[&enclave]).await;
    for (media_type, done) in [
        (ATTESTATION, "POST /v1/attestation:body"),
        (METADATA, "GET /v2/models/iris:"),
        (INFER, "POST /v2/models/iris/infer:body"),
        ("Application/Vnd.Cloister.Infer ; charset=binary", "POST /v2/models/iris/infer:body"),
    ] {
        let answer = front.invoke(media_type, &[IRIS, ("accept", "application/json")], "body").await;
        assert_eq!((answer.status(), answer.text()), (200, done));
    }
    assert_eq!(enclave.last().headers["content-type"], INFER);
}

#[tokio::test]
async fn any_other_content_type_is_refused_with_what_is_accepted() {
    let enclave = Enclave::start().await;
    let front = Front::to(&[&enclave]).await;
    for (media_type, plaintext) in
        [("text/csv", true), ("application/json; charset=utf-8", true), ("image/png", false), ("", false)]
    {
        let answer = front.invoke(media_type, &[IRIS], "5.1,3.5").await;
        assert_eq!(answer.code(), ErrorCode::UnsupportedMediaType, "{media_type}");
        assert!(answer.error().contains(INFER), "{}", answer.error());
        assert_eq!(answer.error().contains("encrypt with a Cloister client"), plaintext, "{}", answer.error());
    }
    assert!(enclave.asked().is_empty());
}

#[tokio::test]
async fn the_model_is_named_by_header_attribute_or_default() {
    let enclave = Enclave::start().await;
    let default = FrontSettings { default_model: Some("wine/3".parse().unwrap()), ..settings(&[&enclave]) };
    let front = Front::with(default, unlimited()).await;
    for (headers, path) in [
        (&[][..], "/v2/models/wine/versions/3"),
        (&[(TARGET_MODEL, "iris")], "/v2/models/iris"),
        (&[(TARGET_MODEL, "iris/2")], "/v2/models/iris/versions/2"),
        (&[(TARGET_MODEL, "/iris.cloister")], "/v2/models/iris"),
        (&[(TARGET_MODEL, "iris.tar.gz")], "/v2/models/iris"),
        (&[(ATTRIBUTES, "trace=7; model=iris/2")], "/v2/models/iris/versions/2"),
        (&[(ATTRIBUTES, "model=iris"), (TARGET_MODEL, "beans")], "/v2/models/beans"),
    ] {
        let answer = front.invoke(METADATA, headers, "").await;
        assert_eq!(answer.text(), format!("GET {path}:"), "{headers:?}");
    }
    for headers in [
        [(TARGET_MODEL, "../iris")],
        [(TARGET_MODEL, "iris/2/3")],
        [(TARGET_MODEL, "")],
        [(ATTRIBUTES, "model=iris%2f")],
        [(ATTRIBUTES, &"x".repeat(1025))],
    ] {
        assert_eq!(front.invoke(METADATA, &headers, "").await.code(), ErrorCode::BadRequest, "{headers:?}");
    }
}

#[tokio::test]
async fn without_any_name_the_request_is_refused_with_how_to_give_one() {
    let enclave = Enclave::start().await;
    let front = Front::to(&[&enclave]).await;
    let answer = front.invoke(INFER, &[], "").await;
    assert_eq!(answer.code(), ErrorCode::BadRequest);
    assert!(answer.error().contains("X-Amzn-SageMaker-Target-Model"), "{}", answer.error());
    assert_eq!(front.invoke(ATTESTATION, &[], "nonce").await.status(), 200);
}

#[tokio::test]
async fn attributes_and_inference_id_are_echoed() {
    let enclave = Enclave::start().await;
    let front = Front::to(&[&enclave]).await;
    let headers = [(ATTRIBUTES, "model=iris;a=b"), ("x-amzn-sagemaker-inference-id", "id-7"), ("x-unknown", "x")];
    for media_type in [METADATA, "text/csv"] {
        let answer = front.invoke(media_type, &headers, "").await;
        assert_eq!(answer.header(ATTRIBUTES), Some("model=iris;a=b"));
        assert_eq!(answer.header("x-amzn-sagemaker-inference-id"), Some("id-7"));
        assert_eq!(answer.header("x-unknown"), None);
    }
}

// Sessions

#[tokio::test]
async fn a_session_stays_with_the_enclave_that_answered() {
    let enclaves = [Enclave::start().await, Enclave::start().await];
    let front = Front::to(&[&enclaves[0], &enclaves[1]]).await;
    let answer = front.invoke(METADATA, &[IRIS, (SESSION, "NEW_SESSION")], "").await;
    let id = session_id(&answer);
    for _ in 0..5 {
        let answer = front.invoke(INFER, &[IRIS, (SESSION, &id)], "").await;
        assert_eq!((answer.status(), answer.header(NEW_SESSION)), (200, None));
    }
    let mut counts = enclaves.each_ref().map(|enclave| enclave.asked().len());
    counts.sort_unstable();
    assert_eq!(counts, [0, 6]);
}

/// The id of a new session, whose header has the form that SageMaker asks for.
fn session_id(answer: &Answer) -> String {
    let (id, expires) = answer.header(NEW_SESSION).unwrap().split_once("; Expires=").unwrap();
    let shape: String = expires.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00Z");
    assert!(id.bytes().all(|c| c.is_ascii_alphanumeric()), "{id}");
    id.to_owned()
}

#[tokio::test]
async fn a_session_ends_with_its_enclave_and_moves_to_no_other() {
    let (first, second) = (Enclave::start().await, Enclave::start().await);
    let front = Front::to(&[&first, &second]).await;
    let id = session_id(&front.invoke(METADATA, &[IRIS, (SESSION, "NEW_SESSION")], "").await);
    let (bound, other) = if first.asked().is_empty() { (second, first) } else { (first, second) };
    drop(bound);
    until(async || front.invoke(METADATA, &[IRIS, (SESSION, &id)], "").await.status() == 503).await;
    assert!(other.asked().is_empty());
}

#[tokio::test]
async fn an_unknown_session_is_refused_and_a_failed_request_opens_none() {
    let enclave = Enclave::that(async |asked| match asked.path.as_str() {
        "/v2/models/gone" => refuses(ErrorCode::UnknownModel),
        _ => answers(&asked),
    });
    let enclave = enclave.await;
    let front = Front::to(&[&enclave]).await;
    let answer = front.invoke(INFER, &[IRIS, (SESSION, "0123456789abcdef")], "").await;
    assert_eq!(answer.code(), ErrorCode::BadRequest);
    assert!(answer.error().contains("NEW_SESSION"), "{}", answer.error());

    let answer = front.invoke(METADATA, &[(TARGET_MODEL, "gone"), (SESSION, "NEW_SESSION")], "").await;
    assert_eq!((answer.code(), answer.header(NEW_SESSION)), (ErrorCode::UnknownModel, None));
}

#[tokio::test]
async fn a_session_is_opened_and_closed_as_awss_containers_let_clients_do_it() {
    let enclave = Enclave::start().await;
    let front = Front::to(&[&enclave]).await;
    let json = "application/json";
    let answer = front.invoke(json, &[(SESSION, "NEW_SESSION")], r#"{"requestType":"NEW_SESSION"}"#).await;
    let id = session_id(&answer);
    let answer = front.invoke(json, &[(SESSION, &id)], r#"{"instances":[[5.1,3.5]]}"#).await;
    assert_eq!(answer.code(), ErrorCode::UnsupportedMediaType);
    let answer = front.invoke(json, &[(SESSION, &id)], r#"{"requestType":"CLOSE"}"#).await;
    assert_eq!((answer.status(), answer.header("x-amzn-sagemaker-closed-session-id")), (200, Some(id.as_str())));
    let answer = front.invoke(METADATA, &[IRIS, (SESSION, &id)], "").await;
    assert_eq!(answer.code(), ErrorCode::BadRequest);
}

// Batch transform

#[tokio::test]
async fn every_line_has_its_answer_in_order() {
    let enclave = Enclave::that(async |asked| match asked.path.as_str() {
        "/v2/models/gone/infer" => refuses(ErrorCode::UnknownModel),
        _ => answers(&asked),
    });
    let enclave = enclave.await;
    let front = Front::to(&[&enclave]).await;
    let lines = [
        json!({"request": STANDARD.encode("one"), "id": "1"}).to_string(),
        json!({"request": STANDARD.encode("two"), "model": "wine/2"}).to_string(),
        json!({"request": STANDARD.encode("three"), "model": "gone", "id": "3"}).to_string(),
        json!({"request": "not base64", "id": "4"}).to_string(),
        "no JSON".into(),
        String::new(),
        json!({"request": STANDARD.encode("seven"), "model": "../x"}).to_string(),
    ];
    let answer = front.invoke(LINES, &[IRIS], lines.join("\n") + "\n").await;
    assert_eq!((answer.status(), answer.header("content-type")), (200, Some(LINES)));
    let answers: Vec<Value> = answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), lines.len() - 1, "a blank line has no answer");
    assert_eq!(answers[0], json!({"id": "1", "response": STANDARD.encode("POST /v2/models/iris/infer:one")}));
    assert_eq!(answers[1], json!({"response": STANDARD.encode("POST /v2/models/wine/versions/2/infer:two")}));
    let error = json!({"error": "as the test wants", "code": "unknown_model"});
    assert_eq!(answers[2], json!({"id": "3", "error": error}));
    for (line, id) in [(3, json!("4")), (4, Value::Null), (5, Value::Null)] {
        assert_eq!((&answers[line]["error"]["code"], &answers[line]["id"]), (&json!("bad_request"), &id), "{line}");
    }
}

#[tokio::test]
async fn lines_without_a_model_say_so_and_an_empty_end_is_no_line() {
    let enclave = Enclave::start().await;
    let front = Front::to(&[&enclave]).await;
    let line = json!({"request": STANDARD.encode("one")}).to_string();
    let answer = front.invoke(LINES, &[], format!("{line}\r\n\r\n")).await;
    assert_eq!(answer.text().lines().count(), 1);
    assert!(answer.text().contains("X-Amzn-SageMaker-Target-Model"), "{}", answer.text());
    assert_eq!(front.invoke(LINES, &[IRIS], "").await.text(), "");
}

#[tokio::test]
async fn a_batch_costs_no_more_than_its_limits() {
    let enclave = Enclave::that(async |_| vec![0; 1000].into_response()).await;
    let front = Front::with(settings(&[&enclave]), Limits { body: 1000, ..unlimited() }).await;
    let line = json!({"request": ""}).to_string() + "\n";
    assert_eq!(front.invoke(LINES, &[IRIS], line.repeat(2)).await.text().lines().count(), 2);
    let asked = enclave.asked().len();
    assert_eq!(front.invoke(LINES, &[IRIS], line.repeat(50)).await.code(), ErrorCode::TooLarge);
    assert_eq!(enclave.asked().len() - asked, 3, "the third answer is one too many");

    let front = Front::to(&[&enclave]).await;
    assert_eq!(front.invoke(LINES, &[IRIS], "\n \r\n".repeat(20_000)).await.text(), "");
    let answer = front.invoke(LINES, &[IRIS], "x\n".repeat(10_001)).await;
    assert_eq!(answer.code(), ErrorCode::TooLarge);
    assert!(answer.error().contains("lines"), "{}", answer.error());
}

// Objects

#[tokio::test]
async fn objects_are_refused_before_anything_is_fetched() {
    let enclave = Enclave::start().await;
    let object = async |front: &Front, body: Value| front.invoke(OBJECT, &[IRIS], body.to_string()).await.code();
    let front = Front::to(&[&enclave]).await;
    assert_eq!(object(&front, json!({"input": "s3://bucket/a"})).await, ErrorCode::ObjectRefused);

    let buckets = vec!["bucket/in".parse().unwrap(), "results".parse().unwrap()];
    let front = Front::with(FrontSettings { buckets, ..settings(&[&enclave]) }, unlimited()).await;
    for (body, code) in [
        (json!({"input": "s3://other/a"}), ErrorCode::ObjectRefused),
        (json!({"input": "s3://bucket/input"}), ErrorCode::ObjectRefused),
        (json!({"input": "s3://bucket/in/a", "output": "s3://bucket/out/a"}), ErrorCode::ObjectRefused),
        (json!({"input": "s3://bucket/in/../a"}), ErrorCode::BadRequest),
        (json!({"input": "s3://bucket/in/a", "output": "results/a"}), ErrorCode::BadRequest),
        (json!({"input": "s3://bucket/in/a", "more": 1}), ErrorCode::BadRequest),
        (json!({}), ErrorCode::BadRequest),
    ] {
        assert_eq!(object(&front, body.clone()).await, code, "{body}");
    }
    assert!(enclave.asked().is_empty());
    assert!(!front.metrics.page().contains("cloister_proxy_object_transfers_total{"));
}

// Multi-model

/// A front with an enclave, and two model repositories.
struct Multi {
    enclave: Enclave,
    repositories: [Enclave; 2],
    front: Front,
    folder: TempDir,
}

impl Multi {
    async fn start() -> Self {
        Self::with([Models::default().start().await, Models::default().start().await]).await
    }

    async fn with(repositories: [Enclave; 2]) -> Self {
        let (enclave, folder) = (Enclave::start().await, tempfile::tempdir().unwrap());
        let control = repositories.each_ref().map(|repository| repository.address.clone()).into();
        let multi_model = Some(MultiModel { folder: folder.path().join("models"), control });
        let front = Front::with(FrontSettings { multi_model, ..settings(&[&enclave]) }, unlimited()).await;
        fs::create_dir(folder.path().join("models")).unwrap();
        fs::write(folder.path().join("models/iris.cloister"), "bundle iris").unwrap();
        Self { enclave, repositories, front, folder }
    }

    fn path(&self, path: impl AsRef<Path>) -> String {
        self.folder.path().join(path).to_str().unwrap().into()
    }

    async fn load(&self, name: &str, url: &str) -> Answer {
        let body = json!({"model_name": name, "url": url}).to_string();
        self.front.post("/models", &[("content-type", "application/json")], body).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.front.send(request(Method::DELETE, path), Body::empty()).await
    }
}

fn last_change(repository: &Enclave) -> Asked {
    repository.changes().pop().unwrap()
}

#[tokio::test]
async fn a_model_is_loaded_shown_invoked_and_unloaded() {
    let multi = Multi::start().await;
    let url = multi.path("models/iris.cloister");
    assert_eq!(multi.load("m-1", &url).await.status(), 200);
    for repository in &multi.repositories {
        assert_eq!(last_change(repository).body, "bundle iris");
    }
    let entry = json!({"modelName": "m-1", "modelUrl": url});
    assert_eq!(multi.front.get("/models/m-1").await.json(), entry);
    assert_eq!(multi.front.get("/models").await.json(), json!({"models": [entry]}));
    let headers = [("content-type", INFER), (TARGET_MODEL, "whatever.cloister"), (ATTRIBUTES, "model=other")];
    let answer = multi.front.post("/models/m-1/invoke", &headers, "body").await;
    assert_eq!(answer.text(), "POST /v2/models/iris/versions/1/infer:body");
    assert_eq!(answer.header(ATTRIBUTES), Some("model=other"));

    assert_eq!(multi.delete("/models/m-1").await.status(), 200);
    for repository in &multi.repositories {
        assert_eq!(last_change(repository).path, "/v2/repository/models/iris/versions/1/unload");
    }
    assert_eq!(multi.front.get("/models/m-1").await.code(), ErrorCode::UnknownModel);
    assert_eq!(multi.delete("/models/m-1").await.code(), ErrorCode::UnknownModel);
    assert_eq!(multi.front.post("/models/m-1/invoke", &headers, "").await.code(), ErrorCode::UnknownModel);
    assert_eq!(multi.front.get("/models").await.json(), json!({"models": []}));
    assert_eq!(multi.enclave.asked().len(), 1);
    for path in ["/models/%ff", "/models?next_page_token=%25", "/models?next_page_token=a&next_page_token=b"] {
        assert_eq!(multi.front.get(path).await.code(), ErrorCode::BadRequest, "{path}");
    }
}

#[tokio::test]
async fn a_name_is_given_once_and_a_bundle_may_have_two() {
    let multi = Multi::start().await;
    let url = multi.path("models");
    assert_eq!(multi.load("m-1", &url).await.status(), 200);
    let answer = multi.load("m-1", &url).await;
    assert_eq!((answer.status(), answer.json()["code"].as_str()), (409, Some("bad_request")));

    assert_eq!(multi.load("m-2", &url).await.status(), 200);
    assert_eq!(multi.delete("/models/m-1").await.status(), 200);
    assert_eq!(last_change(&multi.repositories[0]).path, "/v2/repository/load", "m-2 goes on meaning it");
    assert_eq!(multi.delete("/models/m-2").await.status(), 200);
    assert!(last_change(&multi.repositories[0]).path.ends_with("/unload"));
}

#[tokio::test]
async fn only_bundles_under_the_folder_are_loaded() {
    let multi = Multi::start().await;
    fs::write(multi.path("outside.cloister"), "bundle outside").unwrap();
    fs::write(multi.path("models/iris.onnx"), "bundle iris").unwrap();
    symlink(multi.path("outside.cloister"), multi.path("models/link.cloister")).unwrap();
    symlink(multi.path("."), multi.path("models/up")).unwrap();
    for (url, code) in [
        ("models/gone.cloister", ErrorCode::NotFound),
        ("models/iris.onnx", ErrorCode::BadRequest),
        ("models/../outside.cloister", ErrorCode::NotFound),
        ("models/../gone.cloister", ErrorCode::NotFound),
        ("models/link.cloister", ErrorCode::NotFound),
        ("models/up/outside.cloister", ErrorCode::NotFound),
        ("outside.cloister", ErrorCode::NotFound),
        ("models", ErrorCode::BadRequest),
    ] {
        assert_eq!(multi.load("m", &multi.path(url)).await.code(), code, "{url}");
    }
    let answers = [multi.load("m", "/etc/passwd").await, multi.load("m", "/etc/gone").await];
    assert_eq!(answers[0].text(), answers[1].text(), "what is elsewhere is nobody's business");
    assert_eq!(multi.front.post("/models", &[], "{}").await.code(), ErrorCode::BadRequest);
    assert!(multi.repositories[0].asked().is_empty());
}

/// A repository that answers a load in its own way.
async fn that_loads(models: &Models, load: impl Fn(Asked) -> Response + Clone + Send + Sync + 'static) -> Enclave {
    let models = models.clone();
    let answer = move |asked: Asked| match asked.path.as_str() {
        "/v2/repository/load" => load(asked),
        _ => models.answer(&asked),
    };
    Enclave::that(move |asked| std::future::ready(answer(asked))).await
}

#[tokio::test]
async fn what_one_enclave_refuses_none_keeps() {
    let models = Models::default();
    let full = that_loads(&Models::default(), |_| refuses(ErrorCode::InsufficientMemory)).await;
    let multi = Multi::with([models.start().await, full]).await;
    let answer = multi.load("m-1", &multi.path("models")).await;
    assert_eq!((answer.status(), answer.code()), (507, ErrorCode::InsufficientMemory));
    assert_eq!(last_change(&multi.repositories[0]).path, "/v2/repository/models/iris/versions/1/unload");
    assert!(models.served().is_empty());
    assert_eq!(multi.front.get("/models").await.json(), json!({"models": []}));
}

#[tokio::test]
async fn what_was_served_before_stays_when_a_load_fails() {
    let models = Models::default();
    let served = models.start().await;
    let full = that_loads(&Models::default(), |_| refuses(ErrorCode::InsufficientMemory)).await;
    let multi = Multi::with([served, full]).await;
    let digest = models.load(b"bundle iris");
    assert_eq!(multi.load("m-1", &multi.path("models")).await.code(), ErrorCode::InsufficientMemory);
    assert_eq!(models.digests(), [digest]);
}

#[tokio::test]
async fn enclaves_that_disagree_keep_nothing() {
    let (models, others) = (Models::default(), Models::default());
    let odd = others.clone();
    let odd = that_loads(&others, move |_| {
        odd.load(b"bundle wine");
        Json(&odd.served()[0]).into_response()
    });
    let multi = Multi::with([models.start().await, odd.await]).await;
    assert_eq!(multi.load("m-1", &multi.path("models")).await.code(), ErrorCode::Internal);
    assert!(models.served().is_empty() && others.served().is_empty());
}

#[tokio::test]
async fn no_model_takes_the_place_of_another() {
    let (without, with) = (Models::default(), Models::with("iris", "sha384:00"));
    let multi = Multi::with([without.start().await, with.start().await]).await;
    fs::write(multi.path("models/iris.cloister"), bundle("iris", 1)).unwrap();
    let answer = multi.load("m-1", &multi.path("models")).await;
    assert_eq!(answer.status(), 409);
    assert!(answer.error().contains("not replaced"), "{}", answer.error());
    assert!(without.served().is_empty());
    assert_eq!(with.digests(), ["sha384:00"]);
    with.forget();
    assert_eq!(multi.load("m-1", &multi.path("models")).await.status(), 200);
    assert_eq!(with.digests(), without.digests());

    fs::write(multi.path("models/iris.cloister"), bundle("iris", 2)).unwrap();
    assert_eq!(multi.load("m-2", &multi.path("models")).await.status(), 409, "nor that of one that was loaded");
}

#[tokio::test]
async fn an_enclave_that_starts_anew_gets_its_models_back() {
    let models = Models::default();
    let multi = Multi::with([models.start().await, Models::default().start().await]).await;
    let ping = async |status| until(async || multi.front.get("/ping").await.status() == status).await;
    assert_eq!(multi.load("m-1", &multi.path("models")).await.status(), 200);
    let digests = models.digests();
    ping(200).await;
    models.forget();
    until(async || models.digests() == digests).await;
    ping(200).await;

    let file = multi.path("models/iris.cloister");
    fs::write(&file, "bundle iris, but another").unwrap();
    models.forget();
    ping(503).await;
    let asked = multi.repositories[0].asked().len();
    until(async || multi.repositories[0].asked().len() >= asked + 3).await;
    assert!(models.served().is_empty(), "it gets what it had or nothing, however often it is asked");
    fs::write(&file, "bundle iris").unwrap();
    ping(200).await;
    assert_eq!(models.digests(), digests);
}

#[tokio::test]
async fn a_model_that_an_enclave_has_lost_is_unloaded_from_the_others() {
    let (forgetful, models) = (Models::default(), Models::default());
    let multi = Multi::with([forgetful.start().await, models.start().await]).await;
    assert_eq!(multi.load("m-1", &multi.path("models")).await.status(), 200);
    forgetful.forget();
    assert_eq!(multi.delete("/models/m-1").await.status(), 200);
    assert!(models.served().is_empty());
}
