//! Handshakes under attack: downgrade, resumption, early data, reflection, other protocols and keys that are not held.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::{
    io::{self, ErrorKind, Read, Write},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use cloister_client::{AttestedConnection, Endpoint, Error};
use cloister_e2e::{
    hostile::{
        Hostile, nonce,
        parent::{Parent, Tamper},
        speaker::{self, End, Heard, Speaker, Speech},
        trusting,
    },
    raw::{self, handshake},
};
use cloister_simulated_enclave::Authority;
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, HandshakeKind, NamedGroup,
    crypto::{
        SupportedKxGroup,
        aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768},
    },
    pki_types::ServerName,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, spawn_blocking},
};

const HYBRID: &[&dyn SupportedKxGroup] = &[X25519MLKEM768];

/// Why a client does not get a session with whoever is at `endpoint`.
async fn unreachable(endpoint: &Endpoint) -> String {
    match AttestedConnection::open(endpoint, trusting(&Authority::ephemeral())).await.map(drop) {
        Err(Error::Unreachable { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

/// A TLS server that refuses whatever it is asked, as far as it gets.
async fn speaker(config: rustls::ServerConfig) -> Speaker {
    let refusal = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_vec();
    Speaker::start(config, Speech::Records(vec![refusal]), End::Close).await.unwrap()
}

/// What `speaker` heard after a client asked it for a document.
async fn asked(speaker: &Speaker) -> Heard {
    let error = AttestedConnection::open(&speaker.endpoint().unwrap(), trusting(&Authority::ephemeral())).await;
    assert_eq!(error.unwrap_err().code(), "bad_answer", "the speaker refuses to attest");
    let heard = speaker.heard().pop().unwrap();
    assert_eq!((heard.path.clone(), heard.body.len()), nonce());
    heard
}

/// A peer that knows no TLS: `answer` to the first bytes that come, then the end. Returns those bytes and all later ones.
async fn stranger(answer: fn(&[u8]) -> Vec<u8>) -> (Endpoint, JoinHandle<(Vec<u8>, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
    let heard = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut hello = vec![0; 5];
        tcp.read_exact(&mut hello).await.unwrap();
        let length = usize::from(u16::from_be_bytes([hello[3], hello[4]]));
        hello.resize(5 + length, 0);
        tcp.read_exact(&mut hello[5..]).await.unwrap();
        tcp.write_all(&answer(&hello)).await.unwrap();
        let mut rest = Vec::new();
        tcp.read_to_end(&mut rest).await.unwrap();
        (hello, rest)
    });
    (endpoint, heard)
}

/// A fatal alert in a record of its own (RFC 8446 §6).
fn alert(description: AlertDescription) -> Vec<u8> {
    vec![21, 3, 3, 0, 2, 2, description.into()]
}

/// A handshake message in a record of its own.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap();
    let record = [&[22, 3, 3], &(length + 4).to_be_bytes()[..], &[kind, 0], &length.to_be_bytes()].concat();
    [&record, body].concat()
}

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;

/// The legacy session id of a hello, with its length (RFC 8446 §4.1.2): after the heads of record and message, the version
/// and 32 random bytes.
fn session_id(hello: &[u8]) -> &[u8] {
    &hello[43..44 + usize::from(hello[43])]
}

/// The key exchange that a ServerHello selects.
fn selected(server_hello: &[u8]) -> NamedGroup {
    const KEY_SHARE: [u8; 2] = [0, 51];
    let mut extensions = &server_hello[43 + session_id(server_hello).len() + 5..];
    while extensions[..2] != KEY_SHARE {
        let length = usize::from(u16::from_be_bytes([extensions[2], extensions[3]]));
        extensions = &extensions[4 + length..];
    }
    u16::from_be_bytes([extensions[4], extensions[5]]).into()
}

// Key exchange

#[tokio::test]
async fn our_two_ends_agree_on_the_hybrid_exchange() {
    let authority = Authority::ephemeral();
    let evaluator = Hostile::honest(&authority).await.unwrap();
    let parent = Parent::start(evaluator.address, Tamper::Nothing).await.unwrap();
    AttestedConnection::open(&parent.endpoint().unwrap(), trusting(&authority)).await.unwrap();
    assert_eq!(selected(&parent.heard()[0]), NamedGroup::X25519MLKEM768);
}

/// Hybrid *first*. An evaluator without it is one that chose so itself; see the next test for who may not choose.
#[tokio::test]
async fn an_evaluator_that_has_x25519_alone_is_spoken_to() {
    let speaker = speaker(speaker::config(&[X25519], 1).unwrap()).await;
    assert_eq!(asked(&speaker).await.group, NamedGroup::X25519);
}

#[tokio::test]
async fn a_parent_that_strikes_the_hybrid_exchange_from_the_offer_gets_no_session() {
    fn strike(offer: &mut [u8]) {
        let (hybrid, unknown) = (u16::from(NamedGroup::X25519MLKEM768).to_be_bytes(), [0x0a, 0x0a]);
        for at in 0..offer.len() - 1 {
            if offer[at..at + 2] == hybrid {
                offer[at..at + 2].copy_from_slice(&unknown);
            }
        }
    }
    let evaluator = Hostile::honest(&Authority::ephemeral()).await.unwrap();
    let parent = Parent::start(evaluator.address, Tamper::Offer(strike)).await.unwrap();
    let reason = unreachable(&parent.endpoint().unwrap()).await;
    assert_eq!(reason, "TLS handshake: cannot decrypt peer's message", "the two ends saw different offers");
    assert_eq!(selected(&parent.heard()[0]), NamedGroup::X25519, "the enclave took what was left");
    assert_eq!(evaluator.seen(), []);
}

#[tokio::test]
async fn an_evaluator_without_our_key_exchanges_is_refused() {
    let other: [&dyn SupportedKxGroup; 2] = [SECP256R1, SECP384R1];
    let speaker = speaker(speaker::config(&other, 1).unwrap()).await;
    let reason = unreachable(&speaker.endpoint().unwrap()).await;
    assert_eq!(reason, "TLS handshake: received fatal alert: HandshakeFailure");
    assert_eq!(speaker.heard(), []);
}

#[tokio::test]
async fn a_server_that_asks_for_a_key_exchange_which_was_not_offered_is_refused() {
    /// SHA-256 of "HelloRetryRequest" (RFC 8446 §4.1.3).
    const RETRY: [u8; 32] = [
        0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2,
        0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
    ];
    let (endpoint, heard) = stranger(|hello| {
        let extensions = [0, 43, 0, 2, 3, 4, 0, 51, 0, 2, 0, 23];
        let body = [&[3, 3], &RETRY[..], session_id(hello), &[0x13, 0x02, 0, 0, 12], &extensions].concat();
        message(SERVER_HELLO, &body)
    })
    .await;
    let reason = unreachable(&endpoint).await;
    assert_eq!(reason, "TLS handshake: peer misbehaved: IllegalHelloRetryRequestWithUnofferedNamedGroup");
    let (_, rest) = heard.await.unwrap();
    assert_eq!(rest, alert(AlertDescription::IllegalParameter));
}

#[tokio::test]
async fn an_enclave_takes_the_hybrid_exchange_or_x25519_and_no_other() {
    let enclave = Hostile::honest(&Authority::ephemeral()).await.unwrap();
    let agreed = async |groups: &[&'static dyn SupportedKxGroup]| {
        let tls = handshake(enclave.address, raw::offering(groups).into()).await?;
        Ok::<_, io::Error>(tls.get_ref().1.negotiated_key_exchange_group().unwrap().name())
    };
    assert_eq!(agreed(HYBRID).await.unwrap(), NamedGroup::X25519MLKEM768);
    assert_eq!(agreed(&[X25519]).await.unwrap(), NamedGroup::X25519);
    assert_eq!(agreed(&[X25519MLKEM768, SECP256R1]).await.unwrap(), NamedGroup::X25519MLKEM768);
    let refused = agreed(&[SECP256R1, SECP384R1]).await.unwrap_err();
    assert_eq!(refused.to_string(), "received fatal alert: HandshakeFailure");
}

// Versions

#[tokio::test]
async fn a_tls_1_2_server_is_refused() {
    let (endpoint, heard) = stranger(|hello| {
        let ecdhe_ecdsa_aes128_gcm = [0xc0, 0x2b];
        let body = [&[3, 3], &[7; 32][..], session_id(hello), &ecdhe_ecdsa_aes128_gcm, &[0]].concat();
        message(SERVER_HELLO, &body)
    })
    .await;
    let reason = unreachable(&endpoint).await;
    assert_eq!(reason, "TLS handshake: peer is incompatible: ServerTlsVersionIsDisabledByOurConfig");
    let (_, rest) = heard.await.unwrap();
    assert_eq!(rest, alert(AlertDescription::ProtocolVersion));
}

#[tokio::test]
async fn a_tls_1_2_client_is_refused() {
    let enclave = Hostile::honest(&Authority::ephemeral()).await.unwrap();
    let extensions = [
        &[0, 10, 0, 6, 0, 4, 0, 29, 0, 23][..], // supported_groups: x25519, secp256r1
        &[0, 11, 0, 2, 1, 0],                   // ec_point_formats: uncompressed
        &[0, 13, 0, 4, 0, 2, 4, 3],             // signature_algorithms: ecdsa_secp256r1_sha256
    ]
    .concat();
    let suites = [0, 2, 0xc0, 0x2b];
    let length = u16::try_from(extensions.len()).unwrap().to_be_bytes();
    let hello = [&[3, 3], &[7; 32][..], &[0], &suites, &[1, 0], &length, &extensions].concat();
    let mut tcp = TcpStream::connect(enclave.address).await.unwrap();
    tcp.write_all(&message(CLIENT_HELLO, &hello)).await.unwrap();
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, alert(AlertDescription::ProtocolVersion));
}

#[tokio::test]
async fn a_parent_that_strikes_tls_1_3_from_the_offer_gets_no_session() {
    fn strike(offer: &mut [u8]) {
        let supported_versions = [0, 43, 0, 3, 2, 3, 4];
        let at = offer.windows(7).position(|window| window == supported_versions).unwrap();
        offer[at + 6] = 3;
    }
    let evaluator = Hostile::honest(&Authority::ephemeral()).await.unwrap();
    let parent = Parent::start(evaluator.address, Tamper::Offer(strike)).await.unwrap();
    let reason = unreachable(&parent.endpoint().unwrap()).await;
    assert_eq!(reason, "TLS handshake: received fatal alert: ProtocolVersion");
    assert_eq!(evaluator.seen(), []);
}

// Protocols within TLS

#[tokio::test]
async fn an_evaluator_that_speaks_http_2_alone_is_refused() {
    let mut config = speaker::config(HYBRID, 1).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let speaker = speaker(config).await;
    let reason = unreachable(&speaker.endpoint().unwrap()).await;
    assert_eq!(reason, "TLS handshake: received fatal alert: NoApplicationProtocol");
    assert_eq!(speaker.heard(), []);
}

#[tokio::test]
async fn a_client_that_speaks_http_2_is_refused_with_and_without_saying_so() {
    let enclave = Hostile::honest(&Authority::ephemeral()).await.unwrap();
    let mut config = raw::config();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let refused = handshake(enclave.address, config.into()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::UnexpectedEof);

    let mut tls = handshake(enclave.address, raw::config().into()).await.unwrap();
    tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut answer = Vec::new();
    let ended = tls.read_to_end(&mut answer).await.unwrap_err();
    assert_eq!((ended.kind(), answer.len()), (ErrorKind::UnexpectedEof, 0));
    assert_eq!(enclave.seen(), []);
}

// Keys

#[tokio::test]
async fn a_server_with_a_certificate_whose_key_it_does_not_hold_is_refused() {
    let speaker = speaker(speaker::imposter().unwrap()).await;
    let reason = unreachable(&speaker.endpoint().unwrap()).await;
    assert_eq!(reason, "TLS handshake: invalid peer certificate: BadSignature");
    assert_eq!(speaker.heard(), []);
}

#[tokio::test]
async fn a_server_with_more_than_one_certificate_is_refused() {
    let speaker = speaker(speaker::config(HYBRID, 2).unwrap()).await;
    let reason = unreachable(&speaker.endpoint().unwrap()).await;
    assert_eq!(reason, "TLS handshake: invalid peer certificate: BadEncoding");
    assert_eq!(speaker.heard(), []);
}

// Reflection

#[tokio::test]
async fn a_peer_that_plays_the_clients_own_bytes_back_is_refused() {
    let (endpoint, heard) = stranger(<[u8]>::to_vec).await;
    let reason = unreachable(&endpoint).await;
    assert_eq!(
        reason,
        "TLS handshake: received unexpected handshake message: got ClientHello when expecting ServerHello or \
         HelloRetryRequest"
    );
    let (hello, rest) = heard.await.unwrap();
    assert_eq!((hello[0], hello[5]), (22, CLIENT_HELLO));
    assert_eq!(rest, alert(AlertDescription::UnexpectedMessage), "it heard an offer, and nothing of a request");
}

// Resumption and early data

/// A server that invites everybody to resume, and to send data before it is known who answers.
async fn inviting() -> Speaker {
    let mut config = speaker::config(HYBRID, 1).unwrap();
    config.send_tls13_tickets = 4;
    config.max_early_data_size = u32::MAX;
    speaker(config).await
}

/// A client that would resume and send early data wherever it can. Sends `request` early if a ticket allows it, else later.
async fn eager(address: SocketAddr, config: Arc<ClientConfig>, request: String) -> Eager {
    let session = move || {
        let mut tcp = std::net::TcpStream::connect(address).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut tls = ClientConnection::new(config, ServerName::try_from("enclave.invalid").unwrap()).unwrap();
        let early = tls.early_data().map(|mut early| early.write_all(request.as_bytes()).unwrap()).is_some();
        tls.complete_io(&mut tcp).unwrap();
        let accepted = tls.is_early_data_accepted();
        match early {
            true if !accepted => tls.send_close_notify(),
            true => {}
            false => tls.writer().write_all(request.as_bytes()).unwrap(),
        }
        let mut answer = Vec::new();
        let _ = rustls::Stream::new(&mut tls, &mut tcp).read_to_end(&mut answer);
        let kind = tls.handshake_kind().unwrap();
        Eager { kind, early, accepted, tickets: tls.tls13_tickets_received(), answered: !answer.is_empty() }
    };
    spawn_blocking(session).await.unwrap()
}

#[derive(Debug, PartialEq)]
struct Eager {
    kind: HandshakeKind,
    early: bool,
    accepted: bool,
    tickets: u32,
    answered: bool,
}

/// A whole request for a document.
fn attestation() -> String {
    let nonce = "n".repeat(32);
    let head = "POST /v1/attestation HTTP/1.1\r\nhost: enclave.invalid\r\nconnection: close\r\ncontent-length: 32";
    format!("{head}\r\n\r\n{nonce}")
}

fn eagerly() -> Arc<ClientConfig> {
    let mut config = raw::offering(HYBRID);
    config.enable_early_data = true;
    config.into()
}

#[tokio::test]
async fn a_client_never_resumes_and_never_sends_early_data() {
    let speaker = inviting().await;
    for _ in 0..3 {
        let Heard { kind, early, .. } = asked(&speaker).await;
        assert_eq!((kind, early), (HandshakeKind::Full, false));
    }
    let config = eagerly();
    let first = eager(speaker.address, config.clone(), attestation()).await;
    assert_eq!(first, Eager { kind: HandshakeKind::Full, early: false, accepted: false, tickets: 4, answered: true });
    let second = eager(speaker.address, config, attestation()).await;
    assert!(second.early && second.accepted, "another client does, so the server means it: {second:?}");
    let Heard { kind, early, .. } = speaker.heard().pop().unwrap();
    assert_eq!((kind, early), (HandshakeKind::Resumed, true));
}

#[tokio::test]
async fn an_enclave_gives_no_tickets_and_resumes_nothing() {
    let enclave = Hostile::honest(&Authority::ephemeral()).await.unwrap();
    let config = eagerly();
    for _ in 0..2 {
        let session = eager(enclave.address, config.clone(), attestation()).await;
        let full = Eager { kind: HandshakeKind::Full, early: false, accepted: false, tickets: 0, answered: true };
        assert_eq!(session, full);
    }
    assert_eq!(enclave.seen(), [nonce(), nonce()]);
}

#[tokio::test]
async fn an_enclave_takes_neither_a_strangers_ticket_nor_the_early_data_that_comes_with_it() {
    let (stranger, enclave) = (inviting().await, Hostile::honest(&Authority::ephemeral()).await.unwrap());
    let config = eagerly();
    assert_eq!(eager(stranger.address, config.clone(), attestation()).await.tickets, 4);
    let session = eager(enclave.address, config, attestation()).await;
    let refused = Eager { kind: HandshakeKind::Full, early: true, accepted: false, tickets: 0, answered: false };
    assert_eq!(session, refused);
    assert_eq!(enclave.seen(), [], "the early request was never read");
}
