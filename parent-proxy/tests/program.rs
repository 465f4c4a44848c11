//! The program with its HTTP front, set up by flags and by variables, and what it reads and writes beside it.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

mod support;

use std::{
    collections::HashMap,
    io::Write,
    process::{Output, Stdio},
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use cloister_parent_proxy::Address;
use cloister_wire::{error::ErrorCode, oip::RepositoryModel};
use serde_json::{Value, json};
use support::{Asked, Enclave, Models, PATIENCE, answers, bundle, refuses, soon, until, waiting};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream, UnixStream},
    process::{Child, Command},
    time::timeout,
};

const PROXY: &str = env!("CARGO_BIN_EXE_cloister-parent-proxy");

/// A running program, and the first line that it said.
struct Program {
    child: Child,
    line: String,
}

impl Program {
    async fn serve(flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(PROXY);
        command.arg("serve").args(flags).envs(variables.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        soon(stdout.read_line(&mut line)).await.unwrap();
        Self { child, line: line.trim_end().into() }
    }

    /// The address behind a part of the line.
    fn address(&self, part: &str) -> &str {
        let place = self.line.split(", ").find_map(|place| place.strip_prefix(part));
        place.unwrap_or_else(|| panic!("{part:?} is not in {:?}", self.line))
    }

    async fn get(&self, part: &str, path: &str) -> String {
        exchange(self.address(part), format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
    }

    async fn invoke(&self, headers: &str, body: &str) -> String {
        let length = body.len();
        let head = format!("POST /invocations HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}");
        exchange(self.address("http tcp:"), format!("{head}\r\n{headers}\r\n\r\n{body}")).await
    }
}

async fn exchange(address: &str, request: String) -> String {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(client.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn one_line_says_where_everything_is() {
    let enclave = Enclave::start().await.address.to_string();
    let relay = ["--listen", "tcp:127.0.0.1:0", "--enclave", &enclave];
    let http = ["--http", "tcp:127.0.0.1:0", "--plain-enclave", &enclave];
    let metrics = ["--metrics", "tcp:127.0.0.1:0"];
    for (flags, form) in [
        ([&relay[..], &http, &metrics].concat(), "listening on tcp:A, http tcp:A, metrics tcp:A"),
        ([&http[..], &metrics].concat(), "http tcp:A, metrics tcp:A"),
        ([&relay[..], &metrics].concat(), "listening on tcp:A, metrics tcp:A"),
        (http.to_vec(), "http tcp:A"),
    ] {
        let program = Program::serve(&flags, &[]).await;
        let names = program.line.split(", ").map(|part| part.split_once("tcp:127.0.0.1:").unwrap().0);
        let line: Vec<_> = names.map(|name| format!("{name}tcp:A")).collect();
        assert_eq!(line.join(", "), form);
    }
}

#[tokio::test]
async fn variables_say_what_flags_do_not() {
    let (a, b) = (Enclave::start().await, Enclave::start().await);
    let enclaves = format!("{},{}", a.address, b.address);
    let variables = [
        ("CLOISTER_HTTP", "tcp:127.0.0.1:0"),
        ("CLOISTER_PLAIN_ENCLAVE", &enclaves),
        ("CLOISTER_DEFAULT_MODEL", "iris"),
        ("CLOISTER_MAX_BODY", "10"),
        ("CLOISTER_METRICS", "tcp:127.0.0.1:0"),
    ];
    let program = Program::serve(&[], &variables).await;
    let infer = "content-type: application/vnd.cloister.infer";
    for _ in 0..2 {
        let answer = program.invoke(infer, "body").await;
        assert!(answer.ends_with("POST /v2/models/iris/infer:body"), "{answer}");
    }
    assert_eq!((a.asked().len(), b.asked().len()), (1, 1));
    assert!(program.invoke(infer, "eleven byte").await.starts_with("HTTP/1.1 413 "));
    assert!(program.get("metrics tcp:", "/metrics").await.contains("route=\"/invocations\",status=\"413\"} 1\n"));
    until(async || program.get("http tcp:", "/ping").await.starts_with("HTTP/1.1 200 ")).await;
}

#[tokio::test]
async fn asked_to_end_it_answers_what_it_was_asked_before() {
    let (enclave, gate) = waiting().await;
    let address = enclave.address.to_string();
    let flags = ["--http", "tcp:127.0.0.1:0", "--plain-enclave", &address, "--metrics", "tcp:127.0.0.1:0"];
    let mut program = Program::serve(&flags, &[("CLOISTER_DEFAULT_MODEL", "iris")]).await;
    let terminated = async {
        until(async || enclave.was_asked("/v2/models/iris/infer")).await;
        let kill = format!("kill -TERM {}", program.child.id().unwrap());
        assert!(Command::new("sh").args(["-c", &kill]).status().await.unwrap().success());
        until(async || TcpStream::connect(program.address("http tcp:")).await.is_err()).await;
        let page = program.get("metrics tcp:", "/metrics").await;
        assert!(page.contains("cloister_proxy_http_requests_in_flight 1\n"), "{page}");
        gate.add_permits(1);
    };
    let (answer, ()) = tokio::join!(program.invoke("content-type: application/vnd.cloister.infer", "body"), terminated);
    assert!(answer.ends_with("POST /v2/models/iris/infer:body"), "{answer}");
    assert_eq!(soon(program.child.wait()).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn the_page_of_metrics_is_no_service_whose_end_is_logged() {
    let mut command = Command::new(PROXY);
    command.args(["serve", "--http", "tcp:127.0.0.1:0", "--plain-enclave", "vsock:16:5001"]);
    command.args(["--metrics", "tcp:127.0.0.1:0"]).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    soon(BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new())).await.unwrap();
    let kill = format!("kill -TERM {}", child.id().unwrap());
    assert!(Command::new("sh").args(["-c", &kill]).status().await.unwrap().success());
    let mut log = String::new();
    soon(child.stderr.take().unwrap().read_to_string(&mut log)).await.unwrap();
    for event in ["event=draining http_connections=0", "event=stopped http_cut=0"] {
        assert_eq!(log.matches(event).count(), 1, "{event} is once in\n{log}");
    }
}

#[tokio::test]
async fn what_enclaves_log_is_counted_whatever_else_comes() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("events.sock");
    let events = format!("unix:{}", socket.display());
    let enclave = Enclave::start().await.address.to_string();
    let http = ["--http", "tcp:127.0.0.1:0", "--plain-enclave", &enclave];
    let flags = [&http[..], &["--metrics", "tcp:127.0.0.1:0", "--events", &events]].concat();
    let program = Program::serve(&flags, &[]).await;

    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(UnixStream::connect(&socket).await.unwrap());
    }
    let mut rubbish = UnixStream::connect(&socket).await.unwrap();
    rubbish.write_all(&vec![b'x'; 4 << 20]).await.unwrap();
    rubbish.write_all(b"\n").await.unwrap();
    let mut enclave = UnixStream::connect(&socket).await.unwrap();
    enclave.write_all(b"{\"time\":1,\"event\":\"inferred\",\"value\":280}\n").await.unwrap();
    for line in [
        "cloister_enclave_events_total{event=\"inferred\"} 1",
        "cloister_enclave_event_value_total{event=\"inferred\"} 280",
        "cloister_enclave_event_last_value{event=\"inferred\"} 280",
        "cloister_proxy_event_lines_dropped_total 1",
    ] {
        until(async || program.get("metrics tcp:", "/metrics").await.lines().any(|found| found == line)).await;
    }
}

#[tokio::test]
async fn a_socket_that_a_former_program_left_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("events.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let events = format!("unix:{}", socket.display());
    let flags = ["--http", "tcp:127.0.0.1:0", "--plain-enclave", "vsock:16:5001", "--events", &events];
    let program = Program::serve(&flags, &[]).await;
    assert!(program.line.starts_with("http tcp:"), "{}", program.line);
}

// Objects

type Store = Arc<Mutex<HashMap<String, Bytes>>>;

/// As much of S3 as an object needs: `GET` and `PUT`, by path, the latter in place of nothing if that is asked.
async fn object_store() -> (String, Store) {
    async fn serve(State(store): State<Store>, method: Method, uri: Uri, head: HeaderMap, body: Bytes) -> Response {
        let mut store = store.lock().unwrap();
        let key = uri.path().to_owned();
        match method {
            Method::PUT if head.get("if-none-match").is_some_and(|what| what == "*") && store.contains_key(&key) => {
                StatusCode::PRECONDITION_FAILED.into_response()
            }
            Method::PUT => {
                store.insert(key, body);
                [("etag", "\"0\"")].into_response()
            }
            _ => match store.get(&key) {
                Some(object) => {
                    ([("etag", "\"0\""), ("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT")], object.clone())
                        .into_response()
                }
                None => (StatusCode::NOT_FOUND, "<Error><Message>SECRET</Message></Error>").into_response(),
            },
        }
    }
    let store = Store::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().fallback(serve).with_state(store.clone());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (address, store)
}

#[tokio::test]
async fn a_message_in_a_bucket_is_answered_there_or_here() {
    let enclave = Enclave::that(async |asked| match &*asked.body {
        b"refused" => refuses(ErrorCode::CiphertextRefused),
        _ => answers(&asked),
    });
    let enclave = enclave.await;
    let (endpoint, store) = object_store().await;
    for (key, object) in
        [("/requests/a", "body"), ("/requests/refused", "refused"), ("/requests/large", &"x".repeat(101))]
    {
        store.lock().unwrap().insert(key.into(), Bytes::copy_from_slice(object.as_bytes()));
    }
    let address = enclave.address.to_string();
    let flags =
        ["--http", "tcp:127.0.0.1:0", "--plain-enclave", &address, "--default-model", "iris", "--max-body", "100"];
    let variables = [
        ("CLOISTER_S3_BUCKET", "requests,responses/out"),
        ("AWS_ENDPOINT_URL", &*endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_CONDITIONAL_PUT", "disabled"),
    ];
    let program = Program::serve(&flags, &variables).await;
    let ask = async |body: Value| {
        program.invoke("content-type: application/vnd.cloister.object+json", &body.to_string()).await
    };

    let answer = ask(json!({"input": "s3://requests/a"})).await;
    assert!(answer.ends_with("POST /v2/models/iris/infer:body"), "{answer}");

    let answer = ask(json!({"input": "s3://requests/a", "output": "s3://responses/out/a"})).await;
    assert!(answer.ends_with("{\"output\":\"s3://responses/out/a\"}"), "{answer}");
    assert_eq!(store.lock().unwrap()["/responses/out/a"], "POST /v2/models/iris/infer:body");
    assert_eq!(enclave.last().headers["content-type"], "application/vnd.cloister.infer");

    let answer = ask(json!({"input": "s3://requests/a", "output": "s3://requests/refused"})).await;
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("\"code\":\"object_refused\""), "{answer}");
    assert_eq!(store.lock().unwrap()["/requests/refused"], "refused", "what is there is not replaced");

    let answer = ask(json!({"input": "s3://requests/refused", "output": "s3://responses/out/b"})).await;
    assert!(answer.contains("\"code\":\"ciphertext_refused\""), "{answer}");
    assert!(!store.lock().unwrap().contains_key("/responses/out/b"));

    let answer = ask(json!({"input": "s3://requests/gone"})).await;
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("\"code\":\"object_unavailable\""), "{answer}");
    assert!(!answer.contains("SECRET"), "{answer}");

    let answer = ask(json!({"input": "s3://requests/large"})).await;
    assert!(answer.contains("\"code\":\"too_large\""), "{answer}");
}

// The operator's commands

async fn repository(asked: Asked) -> Response {
    let model =
        RepositoryModel { name: "iris".into(), version: "1".into(), state: "READY".into(), digest: "sha384:00".into() };
    match asked.path.as_str() {
        "/v2/repository/index" => Json([model]).into_response(),
        "/v2/repository/load" if asked.body == "bundle" => Json(model).into_response(),
        "/v2/repository/load" => refuses(ErrorCode::BundleRefused),
        "/v2/repository/models/iris/unload" => StatusCode::OK.into_response(),
        _ => refuses(ErrorCode::UnknownModel),
    }
}

async fn models(control: &[&Address], arguments: &[&str]) -> (Option<i32>, String, String) {
    let control = control.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut command = Command::new(PROXY);
    command.arg("models").args(arguments).env("CLOISTER_CONTROL", control);
    let Output { status, stdout, stderr } = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[tokio::test]
async fn models_are_listed_loaded_and_unloaded_on_every_enclave() {
    let (a, b) = (Enclave::that(repository).await, Enclave::that(repository).await);
    let control = [&a.address, &b.address];
    let mut bundle = tempfile::NamedTempFile::new().unwrap();
    bundle.write_all(b"bundle").unwrap();
    let file = bundle.path().to_str().unwrap();

    let line = |address: &Address| format!("{address} iris/1 READY sha384:00\n");
    let list = line(&a.address) + &line(&b.address);
    assert_eq!(models(&control, &["list"]).await, (Some(0), list, String::new()));
    let loaded = "loaded iris/1 sha384:00 into 2 enclaves\n".to_owned();
    assert_eq!(models(&control, &["load", file]).await, (Some(0), loaded, String::new()));
    let unloaded = "unloaded iris from 2 enclaves\n".to_owned();
    assert_eq!(models(&control, &["unload", "iris"]).await, (Some(0), unloaded, String::new()));
    assert_eq!((a.changes().len(), b.changes().len()), (2, 2));
}

#[tokio::test]
async fn an_operator_replaces_a_model_and_hears_where_that_failed() {
    let (replaced, kept) = (Models::with("iris", "sha384:00"), Models::with("iris", "sha384:00"));
    let refusing = kept.clone();
    let refusing = Enclave::that(move |asked| {
        std::future::ready(match asked.path.as_str() {
            "/v2/repository/load" => refuses(ErrorCode::InsufficientMemory),
            _ => refusing.answer(&asked),
        })
    });
    let (first, second) = (replaced.start().await, refusing.await);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bundle("iris", 1)).unwrap();
    let file = file.path().to_str().unwrap();

    let (status, _, stderr) = models(&[&first.address, &second.address], &["load", file]).await;
    let said = stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(status, Some(1), "{said}");
    let digest = &replaced.digests()[0];
    assert!(said.contains(&format!("but {} serves iris/1 {digest}:", first.address)), "{said}");
    assert!(said.contains("(insufficient_memory)"), "{said}");
    assert_eq!((replaced.served().len(), kept.digests()), (1, vec!["sha384:00".into()]));

    let again = models(&[&first.address], &["load", file]).await;
    assert_eq!(again, (Some(0), format!("loaded iris/1 {digest} into 1 enclave\n"), String::new()));
}

#[tokio::test]
async fn what_was_not_done_is_explained() {
    let enclave = Enclave::that(repository).await;
    let mut bundle = tempfile::NamedTempFile::new().unwrap();
    bundle.write_all(b"rubbish").unwrap();
    let (file, dead) = (bundle.path().to_str().unwrap(), support::closed().await);
    for (control, arguments, code, explanation) in [
        (&[&enclave.address][..], &["load", file][..], 1, "refuses: as the test wants (bundle_refused)"),
        (&[&enclave.address], &["unload", "wine/2"], 1, "refuses: as the test wants (unknown_model)"),
        (&[&enclave.address], &["load", "/nowhere.cloister"], 1, "cannot read /nowhere.cloister"),
        (&[&dead], &["list"], 1, "does not answer"),
        (&[&enclave.address], &["unload", "../iris"], 2, "accepted are NAME and NAME/VERSION"),
        (&[&enclave.address], &[], 2, "Usage:"),
    ] {
        let (status, stdout, stderr) = models(control, arguments).await;
        assert_eq!((status, stdout.as_str()), (Some(code), ""), "{stderr}");
        assert!(stderr.contains(explanation), "{explanation:?} is not in\n{stderr}");
    }
    let output = Command::new(PROXY).args(["models", "list"]).env_remove("CLOISTER_CONTROL").output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--control <ADDR>"));
}
