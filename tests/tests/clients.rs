//! Who asks, and for how much.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::time::Duration;

use cloister_client::{AttestedConnection, Error, Token};
use cloister_e2e::{
    hostile::{BUNDLE, trusting},
    iris::Iris,
    raw::RawClient,
    service::{Service, ask},
    world::{enclave_with, endpoint},
};
use cloister_enclave_app::settings::{Budget, Client, Settings};
use cloister_inference::Session;
use cloister_simulated_enclave::{Authority, Identity};
use cloister_wire::{
    BINARY_MEDIA_TYPE, HEADER_LENGTH, INFER_MEDIA_TYPE,
    error::{ErrorBody, ErrorCode},
    oip::{Expected, InferRequest},
    paths,
};
use hyper::Method;

struct World {
    authority: Authority,
    service: Service,
}

impl World {
    async fn start(clients: &[(&Token, Budget)], anonymous: Option<Budget>) -> Self {
        let clients = clients.iter().enumerate().map(|(index, (token, budget))| Client {
            name: format!("client {index}"),
            token: token.digest(),
            budget: *budget,
        });
        let clients = Some(clients.collect()).filter(|clients: &Vec<_>| !clients.is_empty());
        let settings = Settings { clients, anonymous, ..Settings::default() };
        let authority = Authority::ephemeral();
        let attester = authority.enclave(Identity::random());
        let service = Service::start(attester, settings, std::slice::from_ref(&BUNDLE)).await.unwrap();
        Self { authority, service }
    }

    async fn connect(&self, token: Option<&Token>) -> AttestedConnection {
        let policy = trusting(&self.authority);
        let connection = AttestedConnection::open(&self.service.endpoint().unwrap(), policy).await.unwrap();
        match token {
            Some(token) => connection.with_token(token).unwrap(),
            None => connection,
        }
    }

    /// Has a row answered over a connection of its own.
    async fn infer(&self, token: Option<&Token>) -> Result<(), Error> {
        let mut connection = self.connect(token).await;
        connection.model("iris").await?.infer(&Iris::load().unwrap().rows[..1]).await.map(drop)
    }

    async fn code(&self, token: Option<&Token>) -> Option<ErrorCode> {
        match self.infer(token).await {
            Ok(()) => None,
            Err(Error::Refused { code, .. }) => Some(code),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn known_clients_are_served_and_nobody_else() {
    let (known, stranger) = (Token::generate(), Token::generate());
    let world = World::start(&[(&known, Budget::default())], None).await;
    assert_eq!(world.code(Some(&known)).await, None);
    assert_eq!(world.code(Some(&stranger)).await, Some(ErrorCode::Unauthorized));
    assert_eq!(world.code(None).await, Some(ErrorCode::Unauthorized));
    // Whoever is unknown learns what everybody may verify, and that is all.
    let connection = world.connect(None).await;
    assert_eq!(connection.enclave().manifest().models.len(), 1);
}

#[tokio::test]
async fn a_stranger_is_told_how_and_before_its_body_is_read() {
    let known = Token::generate();
    let world = World::start(&[(&known, Budget::default())], None).await;
    let mut client = RawClient::connect(world.service.tls).await.unwrap();
    for authorization in ["Bearer wrong", "Basic dXNlcjpwYXNz", "Bearer", ""] {
        let headers = [("authorization", authorization), ("content-length", "5")];
        let (status, body) = client.post(&paths::infer("iris", None), &headers, "wrong").await.unwrap();
        let refusal: ErrorBody = serde_json::from_slice(&body).unwrap();
        assert_eq!((status.as_u16(), refusal.code), (401, ErrorCode::Unauthorized), "{authorization}");
    }
}

/// A token that went over a channel which others end has been seen by others.
#[tokio::test]
async fn a_token_on_the_plain_port_is_refused_although_it_is_right() {
    let known = Token::generate();
    let world = World::start(&[(&known, Budget::default())], Some(Budget::default())).await;
    let path = paths::infer("iris", None);
    let headers = [("authorization", &*format!("Bearer {}", known.text())), ("content-type", INFER_MEDIA_TYPE)];
    let client = reqwest::Client::new();
    let mut request = client.post(format!("http://{}{path}", world.service.plain));
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let answer = request.body("{}").send().await.unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.headers()["www-authenticate"], "Bearer realm=\"cloister\"");
    assert!(answer.text().await.unwrap().contains("replace it"));
}

#[tokio::test]
async fn where_only_known_clients_are_served_the_plain_port_serves_nobody() {
    let world = World::start(&[(&Token::generate(), Budget::default())], None).await;
    for (method, path) in [(Method::POST, paths::infer("iris", None)), (Method::GET, paths::model("iris", None))] {
        let (status, body) = ask(world.service.plain, method, &path, "").await.unwrap();
        assert_eq!(status, 401, "{}", String::from_utf8_lossy(&body));
    }
    let ready = ask(world.service.plain, Method::GET, paths::READY, "").await.unwrap();
    assert_eq!(ready.0, 200, "health is nobody's secret");
}

#[tokio::test]
async fn each_client_has_a_budget_of_its_own_and_those_without_a_token_share_one() {
    let (one, other) = (Token::generate(), Token::generate());
    let two = Budget { requests_per_minute: Some(2), ..Budget::default() };
    let world =
        World::start(&[(&one, two), (&other, two)], Some(Budget { logits: Some(3), ..Budget::default() })).await;
    for _ in 0..2 {
        assert_eq!(world.code(Some(&one)).await, None);
    }
    let error = world.infer(Some(&one)).await.unwrap_err();
    let wait = error.retry_after().unwrap();
    assert_eq!(error.code(), "rate_limited");
    assert!((Duration::from_secs(1)..=Duration::from_secs(60)).contains(&wait), "{wait:?}");
    assert!(error.remedy().contains(&format!("{} s", wait.as_secs())), "{}", error.remedy());
    assert_eq!(world.code(Some(&other)).await, None, "another one's budget is untouched");
    assert_eq!(world.code(None).await, None);
    assert_eq!(world.code(None).await, Some(ErrorCode::BudgetSpent), "whatever connection it is");
}

#[tokio::test]
async fn bytes_and_compute_are_counted_too() {
    let (bytes, compute) = (Token::generate(), Token::generate());
    let budgets = [
        (&bytes, Budget { bytes_per_minute: Some(20_000), ..Budget::default() }),
        (&compute, Budget { compute_ms_per_minute: Some(0), ..Budget::default() }),
    ];
    let world = World::start(&budgets, None).await;
    // A public key has 16 kB.
    assert_eq!(world.code(Some(&bytes)).await, None);
    assert_eq!(world.code(Some(&bytes)).await, Some(ErrorCode::RateLimited));
    assert_eq!(world.code(Some(&compute)).await, Some(ErrorCode::RateLimited));
}

/// Nothing of a token is in what the enclave logs or answers.
#[tokio::test]
async fn no_token_is_in_a_log() {
    let folder = tempfile::tempdir().unwrap();
    let token = Token::generate();
    let settings =
        format!(r#"{{"v":1,"max_connections":9,"clients":[{{"name":"a-hospital","token":"{}"}}]}}"#, token.digest());
    let (settings_file, bundle) = (folder.path().join("settings.json"), folder.path().join("iris.cloister"));
    std::fs::write(&settings_file, settings).unwrap();
    std::fs::write(&bundle, BUNDLE.to_bytes()).unwrap();
    let settings = settings_file.display().to_string();
    let authority = folder.path().join("authority");
    let enclave = enclave_with(&authority, "tcp:127.0.0.1:0", &[bundle], &["--settings", &settings]).unwrap();
    let endpoint = endpoint(&enclave).unwrap();
    let policy = std::fs::read_to_string(folder.path().join("authority/policy.toml")).unwrap();
    let policy = cloister_client::Policy::parse(&policy).unwrap();
    for wrong in [false, true] {
        let sent = if wrong { Token::generate() } else { Token::parse(token.text()).unwrap() };
        let connection = AttestedConnection::open(&endpoint, policy.clone()).await.unwrap();
        let mut connection = connection.with_token(&sent).unwrap();
        let asked = connection.model("iris").await.map(drop);
        assert_eq!(asked.is_err(), wrong);
    }
    let log = enclave.end();
    assert!(log.contains("\"event\":\"refused\",\"value\":401"), "{log}");
    for secret in [token.text(), &token.digest().to_string(), "a-hospital", "Bearer"] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}

/// A request over a raw connection: status and code.
async fn raw_infer(client: &mut RawClient, session: &mut Session, expected: Expected<'_>) -> (u16, Option<ErrorCode>) {
    let request = session.encrypt(&Iris::load().unwrap().rows[..1]).unwrap();
    let public_key = Some(session.public_key());
    let framed = InferRequest { id: None, public_key, ciphertext: request.bytes(), expected }.to_framed();
    let length = framed.header_length.to_string();
    let headers = [("content-type", BINARY_MEDIA_TYPE), (HEADER_LENGTH, length.as_str())];
    let (status, body) = client.post(&paths::infer("iris", None), &headers, framed.body).await.unwrap();
    (status.as_u16(), serde_json::from_slice::<ErrorBody>(&body).ok().map(|refusal| refusal.code))
}

#[tokio::test]
async fn what_a_request_expects_is_what_answers_it_or_nothing() {
    let world = World::start(&[], None).await;
    let (mut client, mut session) =
        (RawClient::connect(world.service.tls).await.unwrap(), Session::new(BUNDLE.description()));
    let (bundle, other) =
        (cloister_attestation::Sha384(BUNDLE.digest()).to_string(), cloister_attestation::Sha384([1; 48]).to_string());
    let expected = |bundle, receipt_key| Expected { bundle, receipt_key };
    for (expected, outcome) in [
        (expected(None, None), (200, None)),
        (expected(Some(bundle.as_str()), None), (200, None)),
        (expected(Some(other.as_str()), None), (409, Some(ErrorCode::ModelChanged))),
        (expected(Some("none"), None), (400, Some(ErrorCode::BadRequest))),
        (expected(None, Some(other.as_str())), (421, Some(ErrorCode::Misdirected))),
    ] {
        assert_eq!(raw_infer(&mut client, &mut session, expected).await, outcome, "{expected:?}");
    }
}
