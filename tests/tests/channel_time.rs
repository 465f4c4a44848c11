//! Time: documents that are old or from the future, wrong clocks on either side, and attestation again on a connection that
//! is kept.
//!
//! An old document for *this* session's nonce cannot exist: the nonce was drawn a moment ago, so a document that was made
//! before and comes again is refused at its nonce (`a_replayed_document_is_refused_at_its_nonce`). What these tests age is the
//! clock of an enclave that answers this very nonce.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::time::Duration;

use cloister_attestation::{EvidenceError, Manifest, Policy, ReceiptError, Sha384, Timestamp, VerificationError};
use cloister_client::{AttestedConnection, Clock, Error, RemoteModel};
use cloister_e2e::{
    clock::HandClock,
    hostile::{BUNDLE, Cheat, Draft, Hostile, identity, nonce, not_verified, trusting},
    iris::Iris,
};
use cloister_simulated_enclave::{Authority, Identity};
use cloister_wire::{limits::REATTEST_AFTER, paths};

const MINUTE: Duration = Duration::from_secs(60);
const INSTANT: Duration = Duration::from_millis(1);
/// How far a document may be from the client's clock.
const LEEWAY: Duration = Duration::from_secs(5 * 60);

/// An honest evaluator whose NSM has this clock.
async fn evaluator(authority: &Authority, clock: &HandClock) -> Hostile {
    let clock = clock.clone();
    let attester = authority.enclave(Identity::random()).with_clock(move || clock.now());
    Hostile::start(attester, identity().unwrap(), &BUNDLE, Cheat::Nothing).await.unwrap()
}

/// What a client whose clock shows `client` says to an enclave whose clock shows `enclave`.
async fn judged(client: Timestamp, enclave: Timestamp, policy: Policy, authority: &Authority) -> VerificationError {
    let evaluator = evaluator(authority, &HandClock::at(enclave)).await;
    evaluator.refusal_by(HandClock::at(client), policy).await.unwrap()
}

#[tokio::test]
async fn clocks_ten_minutes_apart_on_either_side_are_refused_with_both_times() {
    let authority = Authority::ephemeral();
    let now = Timestamp::now();
    let (early, late) = (now.minus(10 * MINUTE), now.plus(10 * MINUTE));
    for (client, enclave) in [(late, now), (now, early)] {
        let expected = VerificationError::DocumentTooOld { now: client, document: enclave, max_age: LEEWAY };
        assert_eq!(judged(client, enclave, trusting(&authority), &authority).await, expected);
        assert_eq!(expected.code(), "document_too_old");
    }
    for (client, enclave) in [(early, now), (now, late)] {
        let expected = VerificationError::DocumentInFuture { now: client, document: enclave, leeway: LEEWAY };
        assert_eq!(judged(client, enclave, trusting(&authority), &authority).await, expected);
        assert_eq!(expected.code(), "clock_or_document_in_future");
    }
}

#[tokio::test]
async fn clocks_four_minutes_apart_on_either_side_are_accepted() {
    let authority = Authority::ephemeral();
    let now = Timestamp::now();
    let (early, late) = (now.minus(4 * MINUTE), now.plus(4 * MINUTE));
    for (client, enclave) in [(late, now), (now, early), (early, now), (now, late)] {
        let evaluator = evaluator(&authority, &HandClock::at(enclave)).await;
        let endpoint = evaluator.endpoint().unwrap();
        let connection = AttestedConnection::open_with_clock(&endpoint, trusting(&authority), HandClock::at(client));
        assert_eq!(connection.await.unwrap().enclave().timestamp(), enclave);
    }
}

#[tokio::test]
async fn a_document_is_old_and_from_the_future_to_the_millisecond() {
    let authority = Authority::ephemeral();
    let now = Timestamp::now();
    let document = now.minus(LEEWAY).minus(INSTANT);
    let old = VerificationError::DocumentTooOld { now, document, max_age: LEEWAY };
    assert_eq!(judged(now, document, trusting(&authority), &authority).await, old);
    let document = now.plus(LEEWAY).plus(INSTANT);
    let future = VerificationError::DocumentInFuture { now, document, leeway: LEEWAY };
    assert_eq!(judged(now, document, trusting(&authority), &authority).await, future);
}

#[tokio::test]
async fn a_policy_shortens_how_old_a_document_may_be() {
    let authority = Authority::ephemeral();
    let (channel, strict) = (r#"channel = "required""#, "channel = \"required\"\nmax_age = \"1m\"");
    let strict = Policy::parse(&trusting(&authority).to_toml().replace(channel, strict)).unwrap();
    assert_eq!(strict.max_age(), MINUTE);
    let now = Timestamp::now();
    let document = now.minus(2 * MINUTE);
    let expected = VerificationError::OlderThanPolicyAllows { now, document, max_age: MINUTE };
    assert_eq!(judged(now, document, strict, &authority).await, expected);
}

/// A kept connection, and one clock for both ends.
struct Kept {
    clock: HandClock,
    evaluator: Hostile,
    connection: AttestedConnection,
    policy: Policy,
}

impl Kept {
    async fn open() -> Self {
        Self::open_at(Timestamp::now()).await
    }

    async fn open_at(time: Timestamp) -> Self {
        let (authority, clock) = (Authority::ephemeral(), HandClock::at(time));
        let evaluator = evaluator(&authority, &clock).await;
        let policy = trusting(&authority);
        let endpoint = evaluator.endpoint().unwrap();
        let connection = AttestedConnection::open_with_clock(&endpoint, policy.clone(), clock.clone()).await.unwrap();
        Self { clock, evaluator, connection, policy }
    }
}

async fn infer(model: &mut RemoteModel<'_>) -> Result<(), Error> {
    model.infer(&Iris::load().unwrap().rows[..1]).await.map(drop)
}

/// The paths that were asked for since the `earlier` first ones.
fn asked_since(evaluator: &Hostile, earlier: usize) -> Vec<String> {
    evaluator.seen().into_iter().skip(earlier).map(|(path, _)| path).collect()
}

#[tokio::test]
async fn a_kept_connection_is_attested_again_after_15_minutes_before_the_next_request() {
    let Kept { clock, evaluator, mut connection, .. } = Kept::open().await;
    let mut model = connection.model("iris").await.unwrap();
    clock.advance(REATTEST_AFTER - INSTANT);
    infer(&mut model).await.unwrap();
    assert_eq!(evaluator.seen().iter().filter(|seen| **seen == nonce()).count(), 1, "not yet");

    let seen = evaluator.seen().len();
    clock.advance(INSTANT);
    infer(&mut model).await.unwrap();
    infer(&mut model).await.unwrap();
    assert_eq!(
        asked_since(&evaluator, seen),
        [paths::ATTESTATION, &paths::infer("iris", Some("1")), &paths::infer("iris", Some("1"))]
    );

    let seen = evaluator.seen().len();
    clock.advance(REATTEST_AFTER);
    connection.model("iris").await.unwrap();
    assert_eq!(
        asked_since(&evaluator, seen),
        [paths::ATTESTATION, &paths::model("iris", Some("1"))],
        "any request counts"
    );
}

#[tokio::test]
async fn a_clock_that_is_set_back_means_attestation_now() {
    let Kept { clock, evaluator, mut connection, .. } = Kept::open().await;
    let mut model = connection.model("iris").await.unwrap();
    let seen = evaluator.seen().len();
    clock.set(clock.now().minus(INSTANT));
    infer(&mut model).await.unwrap();
    infer(&mut model).await.unwrap();
    assert_eq!(
        asked_since(&evaluator, seen),
        [paths::ATTESTATION, &paths::infer("iris", Some("1")), &paths::infer("iris", Some("1"))]
    );
}

#[tokio::test]
async fn receipts_from_before_and_after_are_verified_each_with_its_own_evidence() {
    let Kept { clock, mut connection, policy, .. } = Kept::open().await;
    let mut model = connection.model("iris").await.unwrap();
    infer(&mut model).await.unwrap();
    clock.advance(REATTEST_AFTER);
    infer(&mut model).await.unwrap();
    infer(&mut model).await.unwrap();

    let [before, after] = connection.evidence().try_into().unwrap();
    assert_eq!(before.verify(&policy, clock.now()).unwrap().receipts().len(), 1);
    assert_eq!(after.verify(&policy, clock.now()).unwrap().receipts().len(), 2);
    let mut exchanged = after;
    exchanged.receipts.clone_from(&before.receipts);
    let refused = exchanged.verify(&policy, clock.now()).unwrap_err();
    assert!(
        matches!(refused, EvidenceError::Receipt { index: 0, source: ReceiptError::BeforeDocument { .. } }),
        "{refused}"
    );
}

#[tokio::test]
async fn the_first_presentation_is_refused_when_it_comes_again() {
    let Kept { clock, evaluator, mut connection, .. } = Kept::open().await;
    let mut model = connection.model("iris").await.unwrap();
    evaluator.turn(Cheat::Replay(evaluator.shown()[0].clone()));
    let seen = evaluator.seen().len();
    // Within the five minutes of a fresh document, so that nothing but the nonce tells: the clock was set back.
    clock.set(clock.now().minus(INSTANT));
    for _ in 0..2 {
        let refusal = not_verified(infer(&mut model).await.unwrap_err()).unwrap();
        assert_eq!(refusal.code(), "nonce_mismatch");
    }
    assert_eq!(asked_since(&evaluator, seen), [paths::ATTESTATION, paths::ATTESTATION], "no ciphertext was sent");

    clock.advance(REATTEST_AFTER);
    let refusal = not_verified(infer(&mut model).await.unwrap_err()).unwrap();
    assert_eq!(refusal.code(), "document_too_old", "after 15 minutes its age tells before its nonce");
}

#[tokio::test]
async fn an_enclave_that_serves_another_model_meanwhile_gets_no_request() {
    let changed: fn(&mut Draft) = |draft| {
        let mut manifest = Manifest::from_cbor(&draft.manifest).unwrap();
        manifest.models[0].bundle = Sha384([9; 48]);
        draft.serve(&manifest);
    };
    let Kept { clock, evaluator, mut connection, .. } = Kept::open().await;
    let mut model = connection.model("iris").await.unwrap();
    evaluator.turn(Cheat::Forge(changed));
    let seen = evaluator.seen().len();
    clock.advance(REATTEST_AFTER);
    for _ in 0..2 {
        let error = infer(&mut model).await.unwrap_err();
        let Error::ModelChanged { expected, actual } = &error else { panic!("{error}") };
        assert_eq!((expected.name.as_str(), expected.bundle), ("iris", Sha384(BUNDLE.digest())));
        assert_eq!(actual.bundle, Sha384([9; 48]));
        assert_eq!(error.code(), "model_changed");
    }
    assert_eq!(asked_since(&evaluator, seen), [paths::ATTESTATION]);
    assert_eq!(connection.model("iris").await.unwrap_err().code(), "model_digest_mismatch", "nor does a new session");
}

#[tokio::test]
async fn an_enclave_that_serves_the_model_no_more_gets_no_request() {
    let emptied: fn(&mut Draft) = |draft| {
        let manifest = Manifest::from_cbor(&draft.manifest).unwrap();
        draft.serve(&Manifest { models: Vec::new(), ..manifest });
    };
    let Kept { clock, evaluator, mut connection, .. } = Kept::open().await;
    let mut model = connection.model("iris").await.unwrap();
    evaluator.turn(Cheat::Forge(emptied));
    let seen = evaluator.seen().len();
    clock.advance(REATTEST_AFTER);
    assert_eq!(infer(&mut model).await.unwrap_err().code(), "unknown_model");
    assert_eq!(asked_since(&evaluator, seen), [paths::ATTESTATION]);
}

#[tokio::test]
async fn a_policy_that_expires_meanwhile_ends_a_connection_without_another_request() {
    let expires = trusting(&Authority::ephemeral()).expires();
    let opened = expires.minus(MINUTE);
    let Kept { clock, evaluator, mut connection, policy } = Kept::open_at(opened).await;
    let expires = policy.expires();
    let mut model = connection.model("iris").await.unwrap();
    clock.set(expires.minus(INSTANT));
    infer(&mut model).await.unwrap();

    let seen = evaluator.seen().len();
    clock.set(expires);
    let refusal = not_verified(infer(&mut model).await.unwrap_err()).unwrap();
    assert_eq!(refusal, VerificationError::PolicyExpired { now: expires, expires });
    assert_eq!(refusal.code(), "policy_expired");
    assert_eq!(asked_since(&evaluator, seen), [paths::ATTESTATION], "a nonce, and no ciphertext");
}
