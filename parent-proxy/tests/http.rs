//! The HTTP front before enclaves: what is passed on, what is kept back, and its limits.
//!
//! A test waits for what must happen, for as long as it may take; none depends on how fast the machine is.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

mod support;

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use axum::{body::Body, http::Method, response::IntoResponse};
use cloister_parent_proxy::{Limits, Metrics, Shutdown, serve_metrics};
use cloister_wire::error::ErrorCode;
use support::{Enclave, Front, answers, closed, refuses, request, settings, soon, unlimited, until, waiting};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    time::sleep,
};

// What is passed on

#[tokio::test]
async fn every_path_of_the_protocol_is_relayed_as_it_is() {
    let enclave = Enclave::start().await;
    let front = Front::to(&[&enclave]).await;
    for (method, path) in [
        (Method::POST, "/v1/attestation"),
        (Method::GET, "/v2"),
        (Method::GET, "/v2/health/ready"),
        (Method::GET, "/v2/models/iris"),
        (Method::GET, "/v2/models/iris/ready"),
        (Method::POST, "/v2/models/iris/infer"),
        (Method::GET, "/v2/models/iris/versions/2"),
        (Method::GET, "/v2/models/iris/versions/2/ready"),
        (Method::POST, "/v2/models/iris/versions/2/infer"),
    ] {
        let body = if method == Method::POST { "body" } else { "" };
        let answer = front.send(request(method.clone(), path), Body::from(body)).await;
        assert_eq!((answer.status(), answer.text()), (200, format!("{method} {path}:{body}").as_str()));
    }
}

/// What restarts a process asks whether it lives, what sends requests to it whether an enclave is ready.
#[tokio::test]
async fn it_lives_also_while_no_enclave_does() {
    let enclave = Enclave::start().await;
    let front = Front::to(&[&enclave]).await;
    drop(enclave);
    for (path, status) in [("/v2/health/live", 200), ("/v2/health/ready", 503)] {
        assert_eq!(front.send(request(Method::GET, path), Body::empty()).await.status(), status, "{path}");
    }
}

#[tokio::test]
async fn the_model_repository_and_all_else_is_not_there() {
    let enclave = Enclave::start().await;
    let front = Front::to(&[&enclave]).await;
    for path in [
        "/",
        "/v2/repository/index",
        "/v2/repository/load",
        "/v2/repository/models/iris/unload",
        "/v2/models/iris/infer/../../../repository/load",
        "/models",
        "/models/iris/invoke",
        "/metrics",
    ] {
        let answer = front.post(path, &[], "").await;
        assert_eq!(answer.code(), ErrorCode::NotFound, "{path}");
    }
    let answer = front.get("/v2/models/iris/infer").await;
    assert_eq!(answer.code(), ErrorCode::MethodNotAllowed);
    assert!(enclave.asked().is_empty());
}

#[tokio::test]
async fn of_headers_only_what_the_protocol_needs_is_passed_either_way() {
    let enclave = Enclave::start().await;
    let front = Front::to(&[&enclave]).await;
    let headers = [
        ("content-type", "application/octet-stream"),
        ("inference-header-content-length", "12"),
        ("authorization", "Bearer secret"),
        ("cookie", "a=b"),
        ("x-forwarded-for", "198.51.100.1"),
    ];
    let answer = front.post("/v2/models/iris/infer", &headers, "body").await;

    let asked = enclave.last();
    let mut names: Vec<_> = asked.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "content-type", "host", "inference-header-content-length"]);
    assert_eq!(asked.headers["inference-header-content-length"], "12");

    let mut names: Vec<_> = answer.head.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    let passed = ["content-length", "content-type", "date", "inference-header-content-length", "retry-after"];
    assert_eq!(names, [&passed[..], &["www-authenticate"]].concat());
    assert_eq!(answer.header("content-type"), Some("application/vnd.cloister.test"));
}

#[tokio::test]
async fn a_refusal_of_the_enclave_is_passed_on() {
    let enclave = Enclave::that(|_| async { refuses(ErrorCode::PlaintextRefused) }).await;
    let front = Front::to(&[&enclave]).await;
    let answer = front.post("/v2/models/iris/infer", &[], "").await;
    assert_eq!((answer.code(), answer.error().as_str()), (ErrorCode::PlaintextRefused, "as the test wants"));
}

// Which enclave

#[tokio::test]
async fn enclaves_answer_in_turn() {
    let (a, b) = (Enclave::start().await, Enclave::start().await);
    let front = Front::to(&[&a, &b]).await;
    for _ in 0..4 {
        assert_eq!(front.get("/v2").await.status(), 200);
    }
    assert_eq!((a.asked().len(), b.asked().len()), (2, 2));
}

#[tokio::test]
async fn a_dead_enclave_is_passed_over() {
    let alive = Enclave::start().await;
    let mut settings = settings(&[&alive]);
    settings.enclaves.insert(0, closed().await);
    let front = Front::with(settings, unlimited()).await;
    for _ in 0..4 {
        assert_eq!(front.post("/v2/models/iris/infer", &[], "body").await.status(), 200);
    }
}

#[tokio::test]
async fn an_enclave_that_dies_before_it_answers_is_passed_over() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dying = support::tcp(listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
        }
    });
    let alive = Enclave::start().await;
    let mut settings = settings(&[&alive]);
    settings.enclaves.insert(0, dying);
    let front = Front::with(settings, unlimited()).await;
    for _ in 0..4 {
        assert_eq!(front.post("/v2/models/iris/infer", &[], "body").await.text(), "POST /v2/models/iris/infer:body");
    }
}

#[tokio::test]
async fn a_request_for_another_enclave_finds_it() {
    let other = Enclave::that(|_| async { refuses(ErrorCode::Misdirected) }).await;
    let right = Enclave::start().await;
    let front = Front::to(&[&other, &right]).await;
    for _ in 0..4 {
        assert_eq!(front.post("/v2/models/iris/infer", &[], "body").await.status(), 200);
    }
    assert!(!other.asked().is_empty());
}

#[tokio::test]
async fn a_request_for_none_of_them_is_misdirected() {
    let others = [
        Enclave::that(|_| async { refuses(ErrorCode::Misdirected) }).await,
        Enclave::that(|_| async { refuses(ErrorCode::Misdirected) }).await,
    ];
    let front = Front::to(&[&others[0], &others[1]]).await;
    assert_eq!(front.post("/v2/models/iris/infer", &[], "").await.code(), ErrorCode::Misdirected);

    let mut settings = settings(&[&others[0]]);
    settings.enclaves.push(closed().await);
    let front = Front::with(settings, unlimited()).await;
    let answer = front.post("/v2/models/iris/infer", &[], "").await;
    assert_eq!(answer.code(), ErrorCode::Unavailable, "the one that is away may be the right one");
}

#[tokio::test]
async fn without_an_enclave_the_service_is_unavailable() {
    let mut settings = settings(&[]);
    settings.enclaves.push(closed().await);
    let front = Front::with(settings, unlimited()).await;
    let answer = front.get("/v2").await;
    assert_eq!((answer.code(), answer.header("retry-after")), (ErrorCode::Unavailable, Some("5")));
    assert!(front.metrics.page().contains("cloister_proxy_upstream_failures_total{enclave="));
}

// Limits

#[tokio::test]
async fn a_body_that_says_it_is_too_large_is_not_read() {
    let enclave = Enclave::start().await;
    let front = Front::with(settings(&[&enclave]), Limits { body: 1000, ..unlimited() }).await;
    let mut client = TcpStream::connect(front.address).await.unwrap();
    let head = "POST /v2/models/iris/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 1001\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    soon(client.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("\"code\":\"too_large\""), "{answer}");
    assert!(enclave.asked().is_empty());
}

#[tokio::test]
async fn a_client_that_sends_too_much_all_the_same_hears_the_refusal() {
    let enclave = Enclave::start().await;
    let front = Front::with(settings(&[&enclave]), Limits { body: 1000, ..unlimited() }).await;
    let answer = front.post("/v2/models/iris/infer", &[], vec![0; 1 << 20]).await;
    assert_eq!(answer.code(), ErrorCode::TooLarge);
}

#[tokio::test]
async fn a_body_that_does_not_say_its_size_is_read_up_to_the_limit() {
    let enclave = Enclave::start().await;
    let front = Front::with(settings(&[&enclave]), Limits { body: 1000, ..unlimited() }).await;
    for (chunks, status) in [(10, "200"), (11, "413")] {
        let mut client = TcpStream::connect(front.address).await.unwrap();
        let head = "POST /v2/models/iris/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunk = format!("64\r\n{}\r\n", "x".repeat(100));
        let end = if status == "200" { "0\r\n\r\n" } else { "" };
        client.write_all(format!("{head}{}{end}", chunk.repeat(chunks)).as_bytes()).await.unwrap();
        let mut answer = vec![0; "HTTP/1.1 200".len()];
        soon(client.read_exact(&mut answer)).await.unwrap();
        assert_eq!(String::from_utf8(answer).unwrap(), format!("HTTP/1.1 {status}"));
    }
    assert_eq!(enclave.asked().len(), 1);
}

#[tokio::test]
async fn one_request_over_the_limit_is_refused_and_makes_no_queue() {
    let (enclave, gate) = waiting().await;
    let requests = NonZeroUsize::new(1).unwrap();
    let front = Front::with(settings(&[&enclave]), Limits { requests, ..unlimited() }).await;
    let front = Arc::new(front);
    let first = tokio::spawn({
        let front = front.clone();
        async move { front.post("/v2/models/iris/infer", &[], "").await }
    });
    until(async || enclave.was_asked("/v2/models/iris/infer")).await;

    let answer = front.get("/v2").await;
    assert_eq!((answer.code(), answer.header("retry-after")), (ErrorCode::Overloaded, Some("1")));
    until(async || front.get("/ping").await.status() == 200).await;

    gate.add_permits(1);
    assert_eq!(soon(first).await.unwrap().status(), 200);
    assert_eq!(front.get("/v2").await.status(), 200);
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_not_waited_for() {
    let (enclave, _gate) = waiting().await;
    let limits = Limits { answer: Duration::from_millis(100), ..unlimited() };
    let front = Front::with(settings(&[&enclave]), limits).await;
    assert_eq!(front.post("/v2/models/iris/infer", &[], "").await.code(), ErrorCode::Deadline);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_gives_its_place_to_another() {
    let enclave = Enclave::start().await;
    let limits = Limits { arrival: Duration::from_millis(100), requests: NonZeroUsize::MIN, ..unlimited() };
    let front = Front::with(settings(&[&enclave]), limits).await;
    let mut slow = TcpStream::connect(front.address).await.unwrap();
    let head = "POST /v2/models/iris/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nslow";
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    soon(slow.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"code\":\"deadline\""), "{answer}");
    until(async || front.get("/v2").await.status() == 200).await;
    assert!(!enclave.was_asked("/v2/models/iris/infer"));
}

/// More than Linux lets a socket keep.
const LARGE: usize = 8 << 20;

/// An enclave whose answers are large.
async fn large() -> Enclave {
    let answer = async |asked: support::Asked| match asked.path.ends_with("/infer") {
        true => vec![0; LARGE].into_response(),
        false => answers(&asked),
    };
    Enclave::that(answer).await
}

/// A client that has read the beginning of an answer, and whose socket keeps little of the rest.
async fn unread(front: &Front, request: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(128 << 10).unwrap();
    let mut client = socket.connect(front.address).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    let mut begin = [0; "HTTP/1.1 200".len()];
    soon(client.read_exact(&mut begin)).await.unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200");
    client
}

#[tokio::test]
async fn an_answer_has_the_place_of_its_request_until_it_is_sent() {
    let enclave = large().await;
    let front = Front::with(settings(&[&enclave]), Limits { requests: NonZeroUsize::MIN, ..unlimited() }).await;
    let request = "POST /v2/models/iris/infer HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let mut client = unread(&front, request).await;
    assert_eq!(front.get("/v2").await.code(), ErrorCode::Overloaded);
    let mut rest = Vec::new();
    soon(client.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.len() > LARGE);
    until(async || front.get("/v2").await.status() == 200).await;
}

#[tokio::test]
async fn an_answer_that_is_read_too_slowly_is_cut_however_steadily() {
    const LINES: usize = 4;
    /// Bytes a second.
    const PACE: f64 = (4 << 20) as f64;
    let enclave = large().await;
    let limits = Limits { answer: Duration::from_secs(2), body: LINES * LARGE, ..unlimited() };
    let front = Front::with(settings(&[&enclave]), limits).await;
    let lines = "{\"model\":\"iris\",\"request\":\"\"}\n".repeat(LINES);
    let head = "POST /invocations HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/jsonlines\r\n";
    let length = lines.len();
    let mut client = unread(&front, &format!("{head}content-length: {length}\r\n\r\n{lines}")).await;
    let (mut read, mut piece) = (0, [0; 64 << 10]);
    // So fast that every write makes progress in time, and so slow that all of them take twice the time that there is.
    while let Ok(count @ 1..) = soon(client.read(&mut piece)).await {
        read += count;
        sleep(Duration::from_secs_f64(count as f64 / PACE)).await;
    }
    assert!(read < LINES * LARGE, "{read}");
    until(async || front.metrics.page().contains("cloister_proxy_connections_open{place=\"http\"} 0\n")).await;
}

#[tokio::test]
async fn one_connection_over_the_cap_is_closed() {
    let (enclave, gate) = waiting().await;
    let connections = NonZeroUsize::MIN;
    let front = Front::with(settings(&[&enclave]), Limits { connections, ..unlimited() }).await;
    let mut first = TcpStream::connect(front.address).await.unwrap();
    first.write_all(b"POST /v2/models/iris/infer HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    until(async || enclave.was_asked("/v2/models/iris/infer")).await;
    let mut second = TcpStream::connect(front.address).await.unwrap();
    assert!(!kept_alive(&mut second).await);
    assert!(front.metrics.page().contains("cloister_proxy_connections_refused_total{place=\"http\"} 1\n"));
    gate.add_permits(1);
    soon(first.read_exact(&mut [0; "HTTP/1.1 200".len()])).await.unwrap();
}

#[tokio::test]
async fn connections_on_which_nothing_is_asked_keep_nobody_out() {
    let enclave = Enclave::start().await;
    let connections = NonZeroUsize::new(2).unwrap();
    let front = Front::with(settings(&[&enclave]), Limits { connections, ..unlimited() }).await;
    let mut first = TcpStream::connect(front.address).await.unwrap();
    assert!(kept_alive(&mut first).await);
    let mut second = TcpStream::connect(front.address).await.unwrap();
    assert!(kept_alive(&mut second).await);
    let mut third = TcpStream::connect(front.address).await.unwrap();
    assert!(kept_alive(&mut third).await);
    assert!(!kept_alive(&mut first).await, "the one that has been idle for the longest");
    assert!(kept_alive(&mut second).await);
    // Nor does the beginning of a head that never ends.
    for _ in 0..2 {
        TcpStream::connect(front.address).await.unwrap().write_all(b"GET /pi").await.unwrap();
    }
    until(async || front.get("/ping").await.status() == 200).await;
}

#[tokio::test]
async fn an_address_has_its_share_of_connections() {
    let enclave = Enclave::start().await;
    let limits = Limits { connections_per_address: NonZeroUsize::MIN, ..unlimited() };
    let front = Front::with(settings(&[&enclave]), limits).await;
    let mut first = TcpStream::connect(front.address).await.unwrap();
    assert!(kept_alive(&mut first).await);
    assert!(!kept_alive(&mut TcpStream::connect(front.address).await.unwrap()).await);
    let neighbour = TcpSocket::new_v4().unwrap();
    neighbour.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    assert!(kept_alive(&mut neighbour.connect(front.address).await.unwrap()).await);
    assert!(kept_alive(&mut first).await);
}

/// Whether a request is answered, on a connection that stays.
async fn kept_alive(client: &mut TcpStream) -> bool {
    let asked = client.write_all(b"GET /execution-parameters HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut answer = Vec::new();
    while asked.is_ok() && !answer.ends_with(b"}") {
        match soon(client.read_u8()).await {
            Ok(byte) => answer.push(byte),
            Err(_) => break,
        }
    }
    answer.ends_with(b"}")
}

// Shutdown

#[tokio::test]
async fn a_drain_lets_a_request_finish_and_accepts_no_other() {
    let (enclave, gate) = waiting().await;
    let front = Arc::new(Front::to(&[&enclave]).await);
    let request = tokio::spawn({
        let front = front.clone();
        async move { front.post("/v2/models/iris/infer", &[], "body").await }
    });
    until(async || enclave.was_asked("/v2/models/iris/infer")).await;

    front.ask(Shutdown::Drain);
    front.refuses().await;
    gate.add_permits(1);
    assert_eq!(soon(request).await.unwrap().text(), "POST /v2/models/iris/infer:body");
    Arc::into_inner(front).unwrap().ended().await;
}

#[tokio::test]
async fn a_drain_does_not_wait_for_connections_on_which_nothing_is_asked() {
    let enclave = Enclave::start().await;
    let front = Front::to(&[&enclave]).await;
    let mut client = TcpStream::connect(front.address).await.unwrap();
    assert!(kept_alive(&mut client).await);
    front.ask(Shutdown::Drain);
    front.ended().await;
}

#[tokio::test]
async fn the_deadline_of_a_drain_and_a_second_signal_cut() {
    for (drain, step) in [(Duration::from_millis(50), Shutdown::Drain), (support::NEVER, Shutdown::Cut)] {
        let (enclave, _gate) = waiting().await;
        let front = Front::with(settings(&[&enclave]), Limits { drain, ..unlimited() }).await;
        let mut client = TcpStream::connect(front.address).await.unwrap();
        client.write_all(b"POST /v2/models/iris/infer HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        until(async || enclave.was_asked("/v2/models/iris/infer")).await;
        front.ask(step);
        front.ended().await;
        assert_eq!(soon(client.read(&mut [0])).await.unwrap_or(0), 0);
    }
}

// Metrics

#[tokio::test]
async fn the_metrics_say_what_was_asked_and_answered() {
    let enclave = Enclave::start().await;
    let front = Front::to(&[&enclave]).await;
    front.post("/v2/models/iris/infer", &[], "").await;
    front.post("/nowhere", &[], "").await;
    until(async || front.get("/ping").await.status() == 200).await;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_shutdown, asked) = watch::channel(Shutdown::NotAsked);
    tokio::spawn(serve_metrics(listener, Limits::default(), front.metrics.clone(), asked));
    let answer = get(address, "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4"), "{answer}");
    for line in [
        "cloister_proxy_http_requests_total{route=\"/v2/models/{model}/infer\",status=\"200\"} 1",
        "cloister_proxy_http_requests_total{route=\"none\",status=\"404\"} 1",
        "cloister_proxy_http_request_seconds_count{route=\"/v2/models/{model}/infer\"} 1",
        "cloister_proxy_http_requests_in_flight 0",
        "cloister_proxy_connections_open{place=\"http\"} ",
        &format!("cloister_proxy_enclave_up{{enclave=\"{}\"}} 1", enclave.address),
    ] {
        assert!(answer.lines().any(|found| found.starts_with(line)), "{line} is not in\n{answer}");
    }
    assert!(get(address, "/v2").await.starts_with("HTTP/1.1 404 "));
    assert!(!Metrics::default().page().contains("/v2/models"));
}

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut client = TcpStream::connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(client.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn nothing_that_a_client_writes_is_counted_by_name() {
    let enclave = Enclave::that(|_| async { "".into_response() }).await;
    let front = Front::to(&[&enclave]).await;
    for n in 0..3 {
        front.get(&format!("/v2/models/model-{n}")).await;
    }
    let page = front.metrics.page();
    assert!(page.contains("{route=\"/v2/models/{model}\",status=\"200\"} 3\n"), "{page}");
    assert!(!page.contains("model-"), "{page}");
}
