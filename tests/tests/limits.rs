//! Floods, failures and slow peers: each gets its answer, and everybody else goes on.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::{
    future::pending,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cloister_client::{AttestedConnection, Endpoint, Error};
use cloister_e2e::{
    hostile::{BUNDLE, trusting},
    iris::Iris,
    raw::{RawClient, ask_without_reading},
};
use cloister_enclave::{AttestError, Attester, Claims, Entropy};
use cloister_enclave_app::{Listeners, Parts, models::Models, run, settings::Settings};
use cloister_simulated_enclave::{Authority, Identity, LocalAddress, LocalListener, SimulatedNsm};
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
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("iris.cloister");
    std::fs::write(&bundle, BUNDLE.to_bytes()).unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let attester = Moody { nsm: authority.enclave(Identity::random()), delay, broken: broken.clone() };
    let listener = LocalListener::bind(&LocalAddress::Tcp(([127, 0, 0, 1], 0).into())).await.unwrap();
    let LocalAddress::Tcp(address) = listener.address().unwrap() else { unreachable!("bound to tcp") };
    let models = Models::from_files(&[bundle]).unwrap();
    let entropy = Entropy::from_kernel().unwrap();
    let listeners = Listeners { tls: listener, plain: None, control: None };
    let parts = Parts { attester, listeners, entropy, models, settings: Settings::default() };
    tokio::spawn(run(parts, pending()));
    (address, broken)
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
