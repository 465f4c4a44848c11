//! What a parent can do to the bytes of a session, and an evaluator to those of an answer: cut, drop, repeat and exchange them.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::time::Duration;

use cloister_attestation::Timestamp;
use cloister_client::{AttestedConnection, Endpoint, Error};
use cloister_e2e::{
    clock::HandClock,
    hostile::{
        Hostile, nonce,
        parent::{Parent, Place, Tamper, Trick},
        speaker::{self, End, Speaker, Speech, ok},
        trusting,
    },
    iris::Iris,
};
use cloister_simulated_enclave::Authority;
use cloister_wire::{
    limits::{HANDSHAKE_TIMEOUT, MAX_RESPONSE_BYTES, REATTEST_AFTER},
    paths,
};
use rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768;
use tokio::{io::AsyncReadExt, net::TcpListener, time::Instant};

async fn open(endpoint: &Endpoint) -> Result<AttestedConnection, Error> {
    AttestedConnection::open(endpoint, trusting(&Authority::ephemeral())).await
}

/// A parent that plays `trick` on one record of whatever the enclave at `evaluator` sends.
async fn parent(evaluator: &Hostile, request: usize, record: usize, trick: Trick) -> Endpoint {
    let tamper = Tamper::Record(Place { request, record }, trick);
    Parent::start(evaluator.address, tamper).await.unwrap().endpoint().unwrap()
}

const UNDECIPHERABLE: &str = "connection error: cannot decrypt peer's message";
/// What rustls says of a stream that ends without `close_notify`, up to a link.
const TRUNCATED: &str = "peer closed connection without sending TLS close_notify";

// Parents, during the handshake

#[tokio::test]
async fn a_handshake_that_is_cut_or_reordered_ends_and_nothing_was_asked() {
    // Records of an enclave's handshake: its hello, a change of cipher that means nothing, and the rest, encrypted.
    for (record, trick, reason) in [
        (0, Trick::Cut, "tls handshake eof"),
        (0, Trick::End, "tls handshake eof"),
        (0, Trick::Flip, "cannot decrypt peer's message"),
        (0, Trick::Repeat, "cannot decrypt peer's message"),
        (0, Trick::Swap, "received unexpected message: got ChangeCipherSpec when expecting Handshake"),
        (1, Trick::Flip, "peer misbehaved: IllegalMiddleboxChangeCipherSpec"),
        (2, Trick::Cut, "tls handshake eof"),
        (2, Trick::End, "tls handshake eof"),
        (2, Trick::Flip, "cannot decrypt peer's message"),
    ] {
        let evaluator = Hostile::honest(&Authority::ephemeral()).await.unwrap();
        let error = open(&parent(&evaluator, 0, record, trick).await).await.map(drop).unwrap_err();
        let Error::Unreachable { reason: actual, .. } = &error else { panic!("{record} {trick:?}: {error}") };
        assert_eq!(*actual, format!("TLS handshake: {reason}"), "{record} {trick:?}");
        assert_eq!(evaluator.seen(), []);
    }
}

#[tokio::test]
async fn a_server_that_never_shakes_hands_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
    let started = Instant::now();
    let error = open(&endpoint).await.map(drop).unwrap_err();
    let Error::Unreachable { reason, .. } = &error else { panic!("{error}") };
    assert_eq!(reason, "no TLS handshake within 5 s");
    assert!(started.elapsed() < HANDSHAKE_TIMEOUT + Duration::from_secs(1));
    let (mut tcp, _) = listener.accept().await.unwrap();
    let mut hello = Vec::new();
    tcp.read_to_end(&mut hello).await.unwrap();
    assert_eq!(hello.len(), 5 + usize::from(u16::from_be_bytes([hello[3], hello[4]])), "one record, the offer");
}

// Parents, afterwards

#[tokio::test]
async fn a_presentation_that_is_cut_or_changed_ends_the_connection() {
    for (trick, reason) in [(Trick::Cut, TRUNCATED), (Trick::End, TRUNCATED), (Trick::Flip, UNDECIPHERABLE)] {
        let evaluator = Hostile::honest(&Authority::ephemeral()).await.unwrap();
        let error = open(&parent(&evaluator, 1, 0, trick).await).await.map(drop).unwrap_err();
        assert_lost(&error, reason);
        assert_eq!(evaluator.seen(), [nonce()]);
    }
}

#[tokio::test]
async fn a_reply_that_is_cut_or_changed_ends_the_connection() {
    for (trick, reason) in [(Trick::Cut, TRUNCATED), (Trick::End, TRUNCATED), (Trick::Flip, UNDECIPHERABLE)] {
        let authority = Authority::ephemeral();
        let evaluator = Hostile::honest(&authority).await.unwrap();
        let endpoint = parent(&evaluator, 3, 0, trick).await;
        let mut connection = AttestedConnection::open(&endpoint, trusting(&authority)).await.unwrap();
        let mut model = connection.model("iris").await.unwrap();
        let rows = Iris::load().unwrap().rows;
        assert_lost(&model.infer(&rows[..1]).await.unwrap_err(), reason);
        let seen = evaluator.seen().len();
        assert_eq!(model.infer(&rows[..1]).await.unwrap_err().code(), "connection_lost", "there is no second one");
        assert_eq!(evaluator.seen().len(), seen);
    }
}

#[tokio::test]
async fn a_presentation_that_comes_twice_ends_the_connection_before_the_next_request() {
    let authority = Authority::ephemeral();
    let evaluator = Hostile::honest(&authority).await.unwrap();
    let endpoint = parent(&evaluator, 1, 0, Trick::Repeat).await;
    let mut connection = AttestedConnection::open(&endpoint, trusting(&authority)).await.unwrap();
    assert_eq!(connection.model("iris").await.unwrap_err().code(), "connection_lost");
    assert!(!evaluator.seen().iter().any(|(path, _)| *path == paths::infer("iris", Some("1"))));
}

#[tokio::test]
async fn records_of_an_answer_that_are_exchanged_dropped_or_repeated_end_the_connection() {
    for trick in [Trick::Swap, Trick::Drop, Trick::Repeat] {
        let answer = ok(200, &[0; 200]);
        let records = answer.chunks(100).map(<[u8]>::to_vec).collect();
        let speaker = speak(Speech::Records(records), End::Close).await;
        let place = Place { request: 1, record: 0 };
        let parent = Parent::start(speaker.address, Tamper::Record(place, trick)).await.unwrap();
        let error = open(&parent.endpoint().unwrap()).await.map(drop).unwrap_err();
        assert_lost(&error, "cannot decrypt peer's message");
        assert_one_nonce(&speaker);
    }
}

fn assert_lost(error: &Error, expected: &str) {
    let Error::ConnectionLost { reason } = error else { panic!("{error}") };
    assert!(reason.contains(expected), "{reason:?}, expected {expected:?}");
}

// Evaluators

async fn speak(speech: Speech, end: End) -> Speaker {
    Speaker::start(speaker::config(&[X25519MLKEM768], 1).unwrap(), speech, end).await.unwrap()
}

fn assert_one_nonce(speaker: &Speaker) {
    let heard: Vec<_> = speaker.heard().into_iter().map(|heard| (heard.path, heard.body.len())).collect();
    assert_eq!(heard, [nonce()]);
}

/// What a client makes of this answer to its nonce.
async fn answered(speech: Speech, end: End) -> Error {
    let speaker = speak(speech, end).await;
    let error = open(&speaker.endpoint().unwrap()).await.map(drop).unwrap_err();
    assert_one_nonce(&speaker);
    error
}

#[tokio::test]
async fn an_answer_that_is_shorter_than_it_says_is_no_answer() {
    for (end, reason) in [(End::Close, "end of file before message length reached"), (End::Cut, TRUNCATED)] {
        assert_lost(&answered(Speech::Records(vec![ok(100, &[0; 99])]), end).await, reason);
    }
}

#[tokio::test]
async fn an_answer_without_a_length_ends_with_its_session_or_is_no_answer() {
    let answer = || Speech::Records(vec![b"HTTP/1.1 200 OK\r\n\r\nhalf of a presentation".to_vec()]);
    assert_lost(&answered(answer(), End::Cut).await, TRUNCATED);
    assert_eq!(answered(answer(), End::Close).await.code(), "presentation_malformed", "it ended, and is judged");
}

#[tokio::test]
async fn a_longer_answer_than_any_is_not_read() {
    let body = vec![0; MAX_RESPONSE_BYTES + 1];
    assert_lost(&answered(Speech::Records(vec![ok(body.len(), &body)]), End::Close).await, "length limit exceeded");
}

#[tokio::test]
async fn what_is_no_answer_to_a_nonce_is_refused_by_its_kind() {
    let http2_settings = b"\0\0\0\x04\0\0\0\0\0";
    for (said, code, text) in [
        (http2_settings.to_vec(), "connection_lost", "invalid HTTP version parsed"),
        (Vec::new(), "connection_lost", "connection closed before message completed"),
        (ok(32, &[7; 32]), "presentation_malformed", "expected map"),
        (ok(0, &[]), "presentation_malformed", "the answer to the challenge is malformed"),
        (status("302 Found\r\nlocation: https://elsewhere.invalid/"), "bad_answer", "HTTP status 302 Found"),
        (status("101 Switching Protocols\r\nupgrade: h2c"), "bad_answer", "HTTP status 101 Switching Protocols"),
        (status("500 No"), "bad_answer", "HTTP status 500 Internal Server Error without a Cloister error"),
    ] {
        let error = answered(Speech::Records(vec![said]), End::Close).await;
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(text), "{error}, expected {text:?}");
    }
    assert_lost(&answered(Speech::Echo, End::Close).await, "invalid HTTP version parsed");
}

fn status(status: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn a_presentation_that_is_cut_when_attesting_again_leaves_the_connection_unusable() {
    let authority = Authority::ephemeral();
    let evaluator = Hostile::honest(&authority).await.unwrap();
    let endpoint = parent(&evaluator, 3, 0, Trick::Cut).await;
    let clock = HandClock::at(Timestamp::now());
    let mut connection =
        AttestedConnection::open_with_clock(&endpoint, trusting(&authority), clock.clone()).await.unwrap();
    let mut model = connection.model("iris").await.unwrap();
    clock.advance(REATTEST_AFTER);
    let rows = Iris::load().unwrap().rows;
    assert_lost(&model.infer(&rows[..1]).await.unwrap_err(), TRUNCATED);
    assert_eq!(model.infer(&rows[..1]).await.unwrap_err().code(), "connection_lost");
    assert_eq!(evaluator.seen(), [nonce(), (paths::model("iris", Some("1")), 0), nonce()]);
}
