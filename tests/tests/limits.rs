//! Floods, failures and slow peers: each gets its answer, and everybody else goes on.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cloister_client::{AttestedConnection, Endpoint, Error, Token};
use cloister_e2e::{
    hostile::{BUNDLE, trusting},
    iris::Iris,
    raw::{RawClient, ask_without_reading},
    service::{Service, accepting},
    tasks::Task,
};
use cloister_enclave::{AttestError, Attester, Claims};
use cloister_enclave_app::settings::{Budget, Client, Memory, Settings};
use cloister_simulated_enclave::{Authority, Identity, SimulatedNsm};
use cloister_wire::{
    error::{ErrorBody, ErrorCode},
    limits::{HANDSHAKE_TIMEOUT, NONCE_BYTES, REQUEST_DEADLINE},
    paths,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout},
};

/// An attester that can be slow or out of order.
struct Moody {
    nsm: SimulatedNsm,
    delay: Duration,
    broken: Arc<AtomicBool>,
}

impl Attester for Moody {
    fn module_id(&self) -> &str {
        self.nsm.module_id()
    }

    fn attest(&self, claims: &Claims<'_>) -> Result<Vec<u8>, AttestError> {
        std::thread::sleep(self.delay);
        if self.broken.load(Ordering::Relaxed) {
            return Err(AttestError("out of order".into()));
        }
        self.nsm.attest(claims)
    }
}

/// The service in this process, with that attester.
async fn service(authority: &Authority, delay: Duration) -> (SocketAddr, Arc<AtomicBool>) {
    let broken = Arc::new(AtomicBool::new(false));
    let attester = Moody { nsm: authority.enclave(Identity::random()), delay, broken: broken.clone() };
    let service = Service::start(attester, Settings::default(), std::slice::from_ref(&BUNDLE)).await.unwrap();
    (service.tls, broken)
}

fn endpoint(address: SocketAddr) -> Endpoint {
    format!("https://{address}").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_nonces_is_refused_as_busy_and_inference_goes_on() {
    let authority = Authority::ephemeral();
    let (address, _) = service(&authority, Duration::from_millis(50)).await;
    let mut connection = AttestedConnection::open(&endpoint(address), trusting(&authority)).await.unwrap();
    let mut model = connection.model("iris").await.unwrap();

    let mut flood = JoinSet::new();
    for _ in 0..100 {
        flood.spawn(async move {
            let mut client = RawClient::connect(address).await.unwrap();
            client.post(paths::ATTESTATION, &[], vec![0; NONCE_BYTES]).await.unwrap()
        });
    }
    let mut busy = 0;
    while let Some(answer) = flood.join_next().await {
        let (status, body) = answer.unwrap();
        if status != 200 {
            assert_eq!(status, 429);
            assert_eq!(serde_json::from_slice::<ErrorBody>(&body).unwrap().code, ErrorCode::Busy);
            busy += 1;
        }
        model.infer(&Iris::load().unwrap().rows[..1]).await.unwrap();
    }
    assert!((1..100).contains(&busy), "{busy} of 100 were refused");
}

#[tokio::test]
async fn an_attester_that_fails_is_an_internal_error_until_it_recovers() {
    let authority = Authority::ephemeral();
    let (address, broken) = service(&authority, Duration::ZERO).await;
    let policy = || trusting(&authority);
    AttestedConnection::open(&endpoint(address), policy()).await.unwrap();
    broken.store(true, Ordering::Relaxed);
    let error = AttestedConnection::open(&endpoint(address), policy()).await.unwrap_err();
    assert!(matches!(error, Error::Refused { code: ErrorCode::Internal, .. }), "{error}");
    broken.store(false, Ordering::Relaxed);
    AttestedConnection::open(&endpoint(address), policy()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_ask_and_never_read_give_their_slots_back() {
    let authority = Authority::ephemeral();
    let (address, _) = service(&authority, Duration::ZERO).await;
    let path = paths::model("iris", None);
    let deaf = ask_without_reading(address, &path);
    let cut = tokio::time::timeout(6 * REQUEST_DEADLINE, deaf).await;
    assert!(matches!(cut, Ok(Ok(_))), "the service ends a connection whose answers nobody takes: {cut:?}");
    AttestedConnection::open(&endpoint(address), trusting(&authority)).await.unwrap();
}

/// Shakes hands one byte in ten milliseconds, which takes longer than anybody waits; how long it was let.
async fn dribble(address: SocketAddr) -> Duration {
    let mut peer = TcpStream::connect(address).await.unwrap();
    let started = Instant::now();
    // The head of a record of 4 KiB, and of a ClientHello that fills it: nothing is wrong with it but its pace.
    let hello = [22, 3, 1, 16, 0, 1, 0, 15, 252].into_iter().chain(std::iter::repeat(3));
    for byte in hello.take(4096) {
        let end = timeout(Duration::from_millis(10), peer.read_u8()).await;
        if end.is_ok() || peer.write_all(&[byte]).await.is_err() {
            break;
        }
    }
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_slow_handshakes_are_cut_off_in_time_and_hold_up_nobody() {
    let authority = Authority::ephemeral();
    let (address, _) = service(&authority, Duration::ZERO).await;
    let slow: JoinSet<_> = (0..200).map(|_| dribble(address)).collect();

    let started = Instant::now();
    let mut connection = AttestedConnection::open(&endpoint(address), trusting(&authority)).await.unwrap();
    connection.model("iris").await.unwrap().infer(&Iris::load().unwrap().rows[..1]).await.unwrap();
    assert!(started.elapsed() < HANDSHAKE_TIMEOUT, "served while the slow ones were at it");
    assert!(!slow.is_empty());
    let slack = Duration::from_secs(2);
    for let_in in slow.join_all().await {
        assert!((HANDSHAKE_TIMEOUT - slack..HANDSHAKE_TIMEOUT + slack).contains(&let_in), "cut off after {let_in:?}");
    }
}

#[tokio::test]
async fn a_peer_that_never_shakes_hands_is_cut_off_and_holds_up_nobody() {
    let authority = Authority::ephemeral();
    let (address, _) = service(&authority, Duration::ZERO).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    AttestedConnection::open(&endpoint(address), trusting(&authority)).await.unwrap();
    let mut end = Vec::new();
    assert_eq!(silent.read_to_end(&mut end).await.unwrap_or(0), 0, "nothing was said to it");
}

/// Peers on the plain port that say that they send as much as a request may have, and then send nothing.
async fn hold_memory(service: &Service, peers: usize) -> Vec<TcpStream> {
    let path = paths::infer("iris", None);
    let mut held = Vec::new();
    for _ in 0..peers {
        let mut peer = TcpStream::connect(service.plain).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 70000\r\n\r\n");
        peer.write_all(head.as_bytes()).await.unwrap();
        held.push(peer);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    held
}

fn little_memory() -> Settings {
    Settings { memory: Memory { requests_mib: 1, ..Memory::default() }, ..Settings::default() }
}

/// A request that finds no memory is refused, and its connection is of use for the next try.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_find_no_memory_are_refused_and_may_come_again() {
    let authority = Authority::ephemeral();
    let attester = authority.enclave(Identity::random());
    let service = Service::start(attester, little_memory(), std::slice::from_ref(&BUNDLE)).await.unwrap();
    let mut connection = AttestedConnection::open(&endpoint(service.tls), trusting(&authority)).await.unwrap();
    let mut model = connection.model("iris").await.unwrap();
    let rows = &Iris::load().unwrap().rows[..1];
    let held = hold_memory(&service, 40).await;
    let error = model.infer(rows).await.unwrap_err();
    assert!(matches!(error, Error::Refused { code: ErrorCode::Overloaded, retry_after: Some(_), .. }), "{error}");
    drop(held);
    tokio::time::sleep(Duration::from_millis(200)).await;
    model.infer(rows).await.unwrap();
}

/// Those without a token have half of the memory at most, and pay before a byte of theirs arrives.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_do_not_keep_known_clients_out_of_memory() {
    let authority = Authority::ephemeral();
    let known = Token::generate();
    let client = Client { name: "known".into(), token: known.digest(), budget: Budget::default() };
    let memory = Memory { requests_mib: 2, ..Memory::default() };
    for anonymous in [Budget::default(), Budget { requests_per_minute: Some(0), ..Budget::default() }] {
        let (clients, anonymous) = (Some(vec![client.clone()]), Some(anonymous));
        let settings = Settings { clients, anonymous, memory, ..Settings::default() };
        let attester = authority.enclave(Identity::random());
        let service = Service::start(attester, settings, std::slice::from_ref(&BUNDLE)).await.unwrap();
        let _held = hold_memory(&service, 60).await;
        let connection = AttestedConnection::open(&endpoint(service.tls), trusting(&authority)).await.unwrap();
        let mut connection = connection.with_token(&known).unwrap();
        connection.model("iris").await.unwrap().infer(&Iris::load().unwrap().rows[..1]).await.unwrap();
    }
}

/// Four connections that ask without end for as much as they can, and one that asks for a row now and then.
#[tokio::test(flavor = "multi_thread")]
async fn a_greedy_client_is_not_served_before_a_modest_one() {
    let authority = Authority::ephemeral();
    let greedy = Token::generate();
    let client = Client { name: "greedy".into(), token: greedy.digest(), budget: Budget::default() };
    let (clients, anonymous) = (Some(vec![client]), Some(Budget::default()));
    let settings = Settings { clients, anonymous, ..Settings::default() };
    let wide = Task::load("wide784").unwrap();
    let bundle = wide.import(1e-3).unwrap();
    let attester = authority.enclave(Identity::random());
    let service = Service::start(attester, settings, std::slice::from_ref(&bundle)).await.unwrap();
    let policy = accepting(&authority, &bundle);
    let stop = Arc::new(AtomicBool::new(false));
    let many = wide.rows[..100].to_vec();
    let mut flood = JoinSet::new();
    for _ in 0..6 {
        let connection = AttestedConnection::open(&endpoint(service.tls), policy.clone()).await.unwrap();
        let mut connection = connection.with_token(&greedy).unwrap();
        let (stop, many) = (stop.clone(), many.clone());
        flood.spawn(async move {
            let mut model = connection.model("wide784").await.unwrap();
            let mut answered = 0;
            while !stop.load(Ordering::Relaxed) {
                match model.infer(&many).await {
                    Ok(_) => answered += 1,
                    Err(Error::Refused { code: ErrorCode::Busy | ErrorCode::Overloaded, .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            answered
        });
    }
    let mut connection = AttestedConnection::open(&endpoint(service.tls), policy).await.unwrap();
    let mut model = connection.model("wide784").await.unwrap();
    for _ in 0..20 {
        model.infer(&wide.rows[..1]).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let answered: usize = flood.join_all().await.into_iter().sum();
    assert!(answered > 0, "the greedy one is served as well");
}
