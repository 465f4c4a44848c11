//! Eight attacks. Each asserts the exact error, and that nothing reached the attacker that should not have.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::{net::SocketAddr, sync::LazyLock};

use cloister_attestation::{Nonce, Policy, Release};
use cloister_client::{AttestedConnection, Endpoint, Error};
use cloister_e2e::{
    hostile::{self, Cheat, Hostile, flipping_parent, identity},
    iris::{self, Iris},
    raw::RawClient,
    world::{Link, World},
};
use cloister_inference::Bundle;
use cloister_simulated_enclave::{Authority, Identity};
use cloister_wire::{error::ErrorBody, error::ErrorCode, limits::NONCE_BYTES, paths};

static BUNDLE: LazyLock<Bundle> = LazyLock::new(|| iris::import().expect("the Iris model imports").bundle);

fn endpoint(address: SocketAddr) -> Endpoint {
    format!("https://{address}").parse().unwrap()
}

fn trusting(authority: &Authority) -> Policy {
    hostile::trusting(authority, &BUNDLE)
}

/// Connecting fails with `code`, and the attacker saw one nonce and nothing else.
async fn assert_refused(hostile: &Hostile, policy: Policy, code: &str) {
    let error = AttestedConnection::open(&endpoint(hostile.address), policy).await.unwrap_err();
    assert!(matches!(error, Error::NotVerified(_)), "{error}");
    assert_eq!(error.code(), code, "{error}");
    assert_eq!(hostile.seen(), [(paths::ATTESTATION.to_owned(), NONCE_BYTES)]);
}

#[tokio::test]
async fn an_honest_evaluator_passes_so_that_the_attacks_below_fail_for_their_own_reason() {
    let authority = Authority::ephemeral();
    let honest = Hostile::start(authority.enclave(Identity::random()), identity().unwrap(), &BUNDLE, Cheat::Nothing)
        .await
        .unwrap();
    let mut connection = AttestedConnection::open(&endpoint(honest.address), trusting(&authority)).await.unwrap();
    let answer = connection.model("iris").await.unwrap().infer(&Iris::load().unwrap().rows[..1]).await.unwrap();
    assert_eq!(answer.predictions[0].label.to_string(), "setosa");
}

#[tokio::test]
async fn a_foreign_root_is_refused() {
    let (ours, theirs) = (Authority::ephemeral(), Authority::ephemeral());
    let hostile =
        Hostile::start(theirs.enclave(Identity::random()), identity().unwrap(), &BUNDLE, Cheat::Nothing).await.unwrap();
    assert_refused(&hostile, trusting(&ours), "root_mismatch").await;
}

#[tokio::test]
async fn another_program_is_refused_at_its_pcr() {
    let authority = Authority::ephemeral();
    let mut identity_of_other = Identity::random();
    identity_of_other.pcrs.insert(0, [0x5a; 48]);
    let hostile = Hostile::start(authority.enclave(identity_of_other), identity().unwrap(), &BUNDLE, Cheat::Nothing)
        .await
        .unwrap();
    assert_refused(&hostile, trusting(&authority), "pcr_mismatch").await;
}

#[tokio::test]
async fn a_debug_image_is_refused_even_by_a_policy_that_would_like_it() {
    let authority = Authority::ephemeral();
    let hostile =
        Hostile::start(authority.enclave(Identity::random().debug()), identity().unwrap(), &BUNDLE, Cheat::Nothing)
            .await
            .unwrap();
    assert_refused(&hostile, trusting(&authority), "debug_mode").await;
    let zero = Release { name: "debug".into(), pcrs: [[0; 48]; 3], not_after: None, revoked: None };
    assert!(trusting(&authority).add_release(zero).is_err());
}

#[tokio::test]
async fn a_replayed_document_is_refused_at_its_nonce() {
    let authority = Authority::ephemeral();
    let key = identity().unwrap();
    let genuine =
        Hostile::start(authority.enclave(Identity::random()), key.clone(), &BUNDLE, Cheat::Nothing).await.unwrap();
    let old = genuine.presentation(&Nonce::random()).unwrap();
    let hostile =
        Hostile::start(authority.enclave(Identity::random()), key, &BUNDLE, Cheat::Replay(old)).await.unwrap();
    assert_refused(&hostile, trusting(&authority), "nonce_mismatch").await;
}

#[tokio::test]
async fn a_man_in_the_middle_with_his_own_key_is_refused() {
    let authority = Authority::ephemeral();
    let genuine = Hostile::start(authority.enclave(Identity::random()), identity().unwrap(), &BUNDLE, Cheat::Nothing)
        .await
        .unwrap();
    let hostile = Hostile::start(
        authority.enclave(Identity::random()),
        identity().unwrap(),
        &BUNDLE,
        Cheat::Relay(genuine.address),
    )
    .await
    .unwrap();
    assert_refused(&hostile, trusting(&authority), "public_key_mismatch").await;
}

#[tokio::test]
async fn a_relay_to_a_second_genuine_enclave_is_refused_even_with_its_stolen_key() {
    let authority = Authority::ephemeral();
    let stolen = identity().unwrap();
    let genuine =
        Hostile::start(authority.enclave(Identity::random()), stolen.clone(), &BUNDLE, Cheat::Nothing).await.unwrap();
    let hostile = Hostile::start(authority.enclave(Identity::random()), stolen, &BUNDLE, Cheat::Relay(genuine.address))
        .await
        .unwrap();
    assert_refused(&hostile, trusting(&authority), "statement_mismatch").await;
}

#[tokio::test]
async fn a_changed_reply_is_refused_by_its_receipt_and_the_key_is_not_used_again() {
    let authority = Authority::ephemeral();
    let hostile =
        Hostile::start(authority.enclave(Identity::random()), identity().unwrap(), &BUNDLE, Cheat::ChangeReply)
            .await
            .unwrap();
    let rows = &Iris::load().unwrap().rows[..2];
    let mut connection = AttestedConnection::open(&endpoint(hostile.address), trusting(&authority)).await.unwrap();
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
    let genuine = Hostile::start(authority.enclave(Identity::random()), identity().unwrap(), &BUNDLE, Cheat::Nothing)
        .await
        .unwrap();
    for after in [100, 1500, 3000] {
        let parent = flipping_parent(genuine.address, after).await.unwrap();
        let error = AttestedConnection::open(&endpoint(parent), trusting(&authority)).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. } | Error::ConnectionLost { .. }), "{after}: {error}");
    }
    assert!(genuine.seen().iter().all(|(path, bytes)| (path.as_str(), *bytes) == (paths::ATTESTATION, NONCE_BYTES)));
}

#[tokio::test]
async fn a_permuted_description_is_refused_before_anything_is_encrypted() {
    let authority = Authority::ephemeral();
    let mut other = BUNDLE.description().to_bytes();
    *other.last_mut().unwrap() ^= 1;
    let hostile = Hostile::start(
        authority.enclave(Identity::random()),
        identity().unwrap(),
        &BUNDLE,
        Cheat::ChangeDescription(other),
    )
    .await
    .unwrap();
    let mut connection = AttestedConnection::open(&endpoint(hostile.address), trusting(&authority)).await.unwrap();
    let error = connection.model("iris").await.unwrap_err();
    assert_eq!(error.code(), "description_mismatch");
    assert_eq!(hostile.seen(), [(paths::ATTESTATION.to_owned(), NONCE_BYTES), (paths::model("iris"), 0)]);
}

#[tokio::test]
async fn plaintext_tensors_are_refused_by_a_service_that_goes_on() {
    let world = World::start(Link::Tcp).unwrap();
    let address = format!("{}:{}", world.endpoint.host(), world.endpoint.port()).parse().unwrap();
    let mut client = RawClient::connect(address).await.unwrap();
    let tensor = r#"{"inputs":[{"name":"X","datatype":"FP32","shape":[1,4],"data":[5.1,3.5,1.4,0.2]}]}"#;
    let json = [("content-type", "application/json")];
    let (status, body) = client.post(&paths::infer("iris"), &json, tensor).await.unwrap();
    assert_eq!(status, 400);
    let ErrorBody { error, code } = serde_json::from_slice(&body).unwrap();
    assert_eq!(code, ErrorCode::PlaintextRefused);
    assert!(error.contains("FP32") && error.contains("encrypt"), "{error}");

    let mut connection = AttestedConnection::open(&world.endpoint, world.policy().unwrap()).await.unwrap();
    connection.model("iris").await.unwrap().infer(&Iris::load().unwrap().rows[..1]).await.unwrap();
}
