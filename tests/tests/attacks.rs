//! Eight attacks. Each asserts the exact error, and that nothing reached the attacker that should not have.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use cloister_attestation::{Nonce, Release, VerificationError};
use cloister_client::{AttestedConnection, Error};
use cloister_e2e::{
    hostile::{
        BUNDLE, Cheat, Hostile, identity, nonce,
        parent::{Parent, Place, Tamper, Trick},
        permuted_labels, trusting,
    },
    iris::Iris,
    raw::RawClient,
    world::{Link, World},
};
use cloister_inference::Description;
use cloister_simulated_enclave::{Authority, Identity};
use cloister_wire::{error::ErrorBody, error::ErrorCode, paths};

#[tokio::test]
async fn an_honest_evaluator_passes_so_that_the_attacks_below_fail_for_their_own_reason() {
    let authority = Authority::ephemeral();
    let honest = Hostile::honest(&authority).await.unwrap();
    let mut connection = AttestedConnection::open(&honest.endpoint().unwrap(), trusting(&authority)).await.unwrap();
    let answer = connection.model("iris").await.unwrap().infer(&Iris::load().unwrap().rows[..1]).await.unwrap();
    assert_eq!(answer.predictions[0].label_text(), "setosa");
}

#[tokio::test]
async fn a_foreign_root_is_refused() {
    let (ours, theirs) = (Authority::ephemeral(), Authority::ephemeral());
    let hostile = Hostile::honest(&theirs).await.unwrap();
    let [expected, actual] = [&ours, &theirs].map(|authority| authority.root().fingerprint().to_owned());
    let refusal = hostile.refusal(trusting(&ours)).await.unwrap();
    assert_eq!(refusal, VerificationError::RootMismatch { expected, actual });
}

#[tokio::test]
async fn another_program_is_refused_at_its_pcr() {
    let authority = Authority::ephemeral();
    let mut other = Identity::random();
    other.pcrs.insert(0, [0x5a; 48]);
    let hostile = Hostile::start(authority.enclave(other), identity().unwrap(), &BUNDLE, Cheat::Nothing).await.unwrap();
    let refusal = hostile.refusal(trusting(&authority)).await.unwrap();
    assert_eq!(refusal.code(), "pcr_mismatch");
    assert!(matches!(refusal, VerificationError::PcrMismatch { index: 0, actual, .. } if actual == "5a".repeat(48)));
}

#[tokio::test]
async fn a_debug_image_is_refused_even_by_a_policy_that_would_like_it() {
    let authority = Authority::ephemeral();
    let debug = authority.enclave(Identity::random().debug());
    let hostile = Hostile::start(debug, identity().unwrap(), &BUNDLE, Cheat::Nothing).await.unwrap();
    let refusal = hostile.refusal(trusting(&authority)).await.unwrap();
    assert_eq!(refusal, VerificationError::DebugMode { index: 0 });
    let zero = Release { name: "debug".into(), pcrs: [[0; 48]; 3], not_after: None, revoked: None };
    assert_eq!(trusting(&authority).add_release(zero).unwrap_err().code(), "policy_zero_pcr");
}

#[tokio::test]
async fn a_replayed_document_is_refused_at_its_nonce() {
    let authority = Authority::ephemeral();
    let key = identity().unwrap();
    let genuine = authority.enclave(Identity::random());
    let genuine = Hostile::start(genuine, key.clone(), &BUNDLE, Cheat::Nothing).await.unwrap();
    let old = genuine.presentation(&Nonce([7; 32])).unwrap();
    let attester = authority.enclave(Identity::random());
    let hostile = Hostile::start(attester, key, &BUNDLE, Cheat::Replay(old)).await.unwrap();
    let refusal = hostile.refusal(trusting(&authority)).await.unwrap();
    assert_eq!(refusal.code(), "nonce_mismatch");
    assert!(matches!(refusal, VerificationError::NonceMismatch { actual, .. } if actual == "07".repeat(32)));
}

#[tokio::test]
async fn a_man_in_the_middle_with_his_own_key_is_refused() {
    let authority = Authority::ephemeral();
    let genuine = Hostile::honest(&authority).await.unwrap();
    let hostile = Hostile::cheating(&authority, Cheat::Relay(genuine.address)).await.unwrap();
    let refusal = hostile.refusal(trusting(&authority)).await.unwrap();
    assert_eq!(refusal.code(), "public_key_mismatch");
    assert_eq!(genuine.seen(), [nonce()]);
}

#[tokio::test]
async fn a_relay_to_a_second_genuine_enclave_is_refused_even_with_its_stolen_key() {
    let authority = Authority::ephemeral();
    let stolen = identity().unwrap();
    let genuine = authority.enclave(Identity::random());
    let genuine = Hostile::start(genuine, stolen.clone(), &BUNDLE, Cheat::Nothing).await.unwrap();
    let attester = authority.enclave(Identity::random());
    let hostile = Hostile::start(attester, stolen, &BUNDLE, Cheat::Relay(genuine.address)).await.unwrap();
    let refusal = hostile.refusal(trusting(&authority)).await.unwrap();
    assert_eq!(refusal.code(), "statement_mismatch");
    assert_eq!(genuine.seen(), [nonce()]);
}

#[tokio::test]
async fn a_changed_reply_is_refused_by_its_receipt_and_the_key_is_not_used_again() {
    let authority = Authority::ephemeral();
    let hostile = Hostile::cheating(&authority, Cheat::ChangeReply).await.unwrap();
    let rows = &Iris::load().unwrap().rows[..2];
    let mut connection = AttestedConnection::open(&hostile.endpoint().unwrap(), trusting(&authority)).await.unwrap();
    let mut model = connection.model("iris").await.unwrap();
    let error = model.infer(rows).await.unwrap_err();
    assert!(matches!(error, Error::Receipt(_)), "{error}");
    assert_eq!(error.code(), "response_mismatch");
    let requests = hostile.seen().len();
    assert!(matches!(model.infer(rows).await, Err(Error::SessionSpent)));
    assert_eq!(hostile.seen().len(), requests, "nothing more is sent");
}

#[tokio::test]
async fn a_parent_that_changes_bytes_ends_the_connection_and_nothing_else() {
    let authority = Authority::ephemeral();
    let genuine = Hostile::honest(&authority).await.unwrap();
    let flipped = async |request, record| {
        let tamper = Tamper::Record(Place { request, record }, Trick::Flip);
        let parent = Parent::start(genuine.address, tamper).await.unwrap();
        AttestedConnection::open(&parent.endpoint().unwrap(), trusting(&authority)).await.unwrap_err().to_string()
    };
    for record in [0, 2] {
        let error = flipped(0, record).await;
        assert!(
            error.ends_with("cannot be reached: TLS handshake: cannot decrypt peer's message"),
            "{record}: {error}"
        );
    }
    assert_eq!(flipped(1, 0).await, "the connection was lost: connection error: cannot decrypt peer's message");
    assert_eq!(genuine.seen(), [nonce()], "only the last one got so far");
}

#[tokio::test]
async fn a_permuted_description_is_refused_before_anything_is_encrypted() {
    let attested = BUNDLE.description();
    let permuted = permuted_labels(attested);
    assert_eq!(Description::from_bytes(&permuted).unwrap().labels().iter().rev().collect::<Vec<_>>(), {
        attested.labels().iter().collect::<Vec<_>>()
    });
    let mut flipped = attested.to_bytes();
    *flipped.last_mut().unwrap() ^= 1;
    for other in [permuted, flipped] {
        let authority = Authority::ephemeral();
        let hostile = Hostile::cheating(&authority, Cheat::ChangeDescription(other)).await.unwrap();
        let mut connection =
            AttestedConnection::open(&hostile.endpoint().unwrap(), trusting(&authority)).await.unwrap();
        let error = connection.model("iris").await.unwrap_err();
        assert_eq!(error.code(), "description_mismatch");
        assert_eq!(hostile.seen(), [nonce(), (paths::model("iris", Some("1")), 0)]);
    }
}

#[tokio::test]
async fn plaintext_tensors_are_refused_by_a_service_that_goes_on() {
    let world = World::start(Link::Tcp).unwrap();
    let address = format!("{}:{}", world.endpoint.host(), world.endpoint.port()).parse().unwrap();
    let mut client = RawClient::connect(address).await.unwrap();
    let tensor = r#"{"inputs":[{"name":"X","datatype":"FP32","shape":[1,4],"data":[5.1,3.5,1.4,0.2]}]}"#;
    let json = [("content-type", "application/json")];
    let (status, body) = client.post(&paths::infer("iris", None), &json, tensor).await.unwrap();
    assert_eq!(status, 400);
    let ErrorBody { error, code } = serde_json::from_slice(&body).unwrap();
    assert_eq!(code, ErrorCode::PlaintextRefused);
    assert!(error.contains("FP32") && error.contains("encrypt"), "{error}");

    let mut connection = AttestedConnection::open(&world.endpoint, world.policy().unwrap()).await.unwrap();
    connection.model("iris").await.unwrap().infer(&Iris::load().unwrap().rows[..1]).await.unwrap();
}
