//! Where TLS ends before the enclave: what still holds, against whoever is in between.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::sync::Arc;

use cloister_attestation::{
    At, Challenge, Channel, ChannelRule, Evidence, Live, Nonce, Presentation, Timestamp, UnverifiedDocument,
    VerificationError,
};
use cloister_client::{AttestedConnection, Error, Intermediary, Token};
use cloister_e2e::{
    hostile::{
        BUNDLE, Cheat, Hostile,
        balancer::{Balancer, Change, cut_answer, cut_metadata, cut_presentation, empty_answer, unchanged},
        not_verified, permuted_labels, trusting,
    },
    iris::{Agreement, Iris},
    service::{Service, accepting_relays, any_loadable, ask, gateway, version, version_with_budget},
};
use cloister_enclave_app::settings::Settings;
use cloister_simulated_enclave::{Authority, Identity};
use cloister_wire::paths;
use hyper::Method;

fn relays(authority: &Authority) -> cloister_client::Policy {
    trusting(authority).with_channel(ChannelRule::Optional)
}

async fn enclave(authority: &Authority) -> Service {
    let attester = authority.enclave(Identity::random());
    Service::start(attester, Settings::default(), std::slice::from_ref(&BUNDLE)).await.unwrap()
}

#[tokio::test]
async fn all_of_iris_is_answered_within_the_bound_with_receipts_of_the_enclave() {
    let (authority, data) = (Authority::ephemeral(), Iris::load().unwrap());
    let service = enclave(&authority).await;
    let policy = relays(&authority);
    let gateway = service.gateway().unwrap();
    let mut connection = AttestedConnection::open_without_channel(&gateway, policy.clone()).await.unwrap();
    assert_eq!(connection.enclave().channel(), Channel::None);
    let mut model = connection.model("iris").await.unwrap();
    let bound = model.description().bound();
    let predictions = model.infer(&data.rows).await.unwrap().predictions;
    model.infer(&data.rows[..1]).await.unwrap();
    let agreement = Agreement::of(&predictions, &data, bound);
    assert_eq!((agreement.violations, agreement.labels_equal), (0, 150), "{agreement:?}");

    let evidence = Evidence::from_cbor(&connection.evidence()[0].to_cbor()).unwrap();
    let archived = evidence.verify(&policy, Timestamp::now()).unwrap();
    assert_eq!((archived.receipts().len(), archived.channel()), (2, Channel::None));
}

#[tokio::test]
async fn a_policy_that_does_not_allow_it_refuses_it() {
    let authority = Authority::ephemeral();
    let gateway = enclave(&authority).await.gateway().unwrap();
    let error = AttestedConnection::open_without_channel(&gateway, trusting(&authority)).await.unwrap_err();
    assert_eq!(not_verified(error).unwrap(), VerificationError::ChannelRequired);
}

/// Each port gives documents of its own kind, and they are not taken for one another.
#[tokio::test]
async fn the_plain_port_vouches_for_no_session() {
    let authority = Authority::ephemeral();
    let service = enclave(&authority).await;
    let nonce = Nonce([7; 32]);
    let (status, body) = ask(service.plain, Method::POST, paths::ATTESTATION, nonce.0.to_vec()).await.unwrap();
    assert_eq!(status, 200);
    let presentation = Presentation::from_cbor(&body).unwrap();
    let answers = |channel| {
        let document = UnverifiedDocument::parse(&presentation.document).unwrap();
        let authentic = document.authenticate(&authority.root(), At::<Live>::now(Timestamp::now())).unwrap();
        let spki = authentic.public_key().unwrap().to_vec();
        authentic.answers(&Challenge { nonce, channel, spki }, &presentation).map(drop)
    };
    assert!(answers(Channel::None).is_ok());
    let refused = answers(Channel::TlsExporter([7; 32])).unwrap_err();
    assert_eq!(refused.code(), "statement_mismatch");
}

#[tokio::test]
async fn no_token_travels_where_others_end_tls() {
    let authority = Authority::ephemeral();
    let service = enclave(&authority).await;
    let gateway = service.gateway().unwrap();
    let connection = AttestedConnection::open_without_channel(&gateway, relays(&authority)).await.unwrap();
    let token = Token::generate();
    assert!(matches!(connection.with_token(&token), Err(Error::TokenWithoutChannel)));
}

/// Why a client refuses an evaluator that cheats behind a gateway.
async fn refusal(cheat: Cheat) -> (Error, Hostile) {
    let authority = Authority::ephemeral();
    let hostile = Hostile::plain(&authority, cheat).await.unwrap();
    let infer = async {
        let gateway = gateway(hostile.address)?;
        let mut connection = AttestedConnection::open_without_channel(&gateway, relays(&authority)).await?;
        let mut model = connection.model("iris").await?;
        for _ in 0..2 {
            model.infer(&Iris::load()?.rows[..1]).await?;
        }
        anyhow::Ok(())
    };
    let error = infer.await.unwrap_err().downcast().unwrap();
    (error, hostile)
}

#[tokio::test]
async fn an_evaluator_behind_a_gateway_gets_away_with_nothing() {
    let (error, hostile) = refusal(Cheat::ChangeDescription(permuted_labels(BUNDLE.description()))).await;
    assert_eq!(error.code(), "description_mismatch");
    assert!(!hostile.seen().iter().any(|(path, _)| path.ends_with("/infer")), "nothing was encrypted for it");
    for (cheat, code) in [(Cheat::ChangeReply, "response_mismatch"), (Cheat::RepeatAnswer, "request_mismatch")] {
        assert_eq!(refusal(cheat.clone()).await.0.code(), code, "{cheat:?}");
    }
    let authority = Authority::ephemeral();
    let old = Hostile::plain(&authority, Cheat::Nothing).await.unwrap().presentation(&Nonce([7; 32])).unwrap();
    let hostile = Hostile::plain(&authority, Cheat::Replay(old)).await.unwrap();
    let gateway = gateway(hostile.address).unwrap();
    let error = AttestedConnection::open_without_channel(&gateway, relays(&authority)).await.unwrap_err();
    assert_eq!(error.code(), "nonce_mismatch");
}

async fn before(enclaves: &[Service], change: Change) -> (Intermediary, Arc<Balancer>) {
    let enclaves: Vec<_> = enclaves.iter().map(|enclave| enclave.plain).collect();
    let balancer = Balancer::start(&enclaves, change).await.unwrap();
    (balancer.gateway().unwrap(), balancer)
}

/// Its receipt key says which enclave a request is for: the others refuse it, and no answer of theirs is taken for its own.
#[tokio::test]
async fn behind_a_balancer_each_request_finds_the_enclave_that_was_verified() {
    let authority = Authority::ephemeral();
    let enclaves = [enclave(&authority).await, enclave(&authority).await, enclave(&authority).await];
    let (gateway, balancer) = before(&enclaves, unchanged).await;
    let mut connection = AttestedConnection::open_without_channel(&gateway, relays(&authority)).await.unwrap();
    let mut model = connection.model("iris").await.unwrap();
    for _ in 0..3 {
        model.infer(&Iris::load().unwrap().rows[..2]).await.unwrap();
    }
    let asked = balancer.asked();
    let nonces: Vec<_> = asked.iter().filter(|(_, path)| path == paths::ATTESTATION).collect();
    assert_eq!(nonces.len(), 1, "one enclave was verified, and answered all three: {asked:?}");
}

/// The request is refused for as long as it comes to another enclave; then that one is verified, by the same policy.
#[tokio::test]
async fn a_redirection_to_another_enclave_is_refused_until_that_one_is_verified() {
    let authority = Authority::ephemeral();
    let enclaves = [enclave(&authority).await, enclave(&authority).await];
    let (gateway, balancer) = before(&enclaves, unchanged).await;
    balancer.pin(0);
    let mut connection = AttestedConnection::open_without_channel(&gateway, relays(&authority)).await.unwrap();
    let first = connection.enclave().module_id().to_owned();
    let mut model = connection.model("iris").await.unwrap();
    model.infer(&Iris::load().unwrap().rows[..2]).await.unwrap();
    balancer.pin(1);
    model.infer(&Iris::load().unwrap().rows[..2]).await.unwrap();
    assert_ne!(model.connection().enclave().module_id(), first);
    let asked: Vec<_> = balancer.asked().into_iter().filter(|(turn, _)| *turn == 1).map(|(_, path)| path).collect();
    let infer = paths::infer("iris", Some("1"));
    let refused = vec![infer.clone(); 4];
    assert_eq!(asked, [refused, vec![paths::ATTESTATION.to_owned(), infer]].concat());
    let evidence = connection.evidence();
    assert_eq!(evidence.len(), 2, "each enclave has its own");
    assert!(evidence.iter().all(|piece| piece.verify(&relays(&authority), Timestamp::now()).is_ok()));

    // One that the policy does not accept is not verified, and gets the refused requests of before.
    let stranger = enclave(&Authority::ephemeral()).await;
    let (gateway, balancer) = before(&[enclaves[0], stranger], unchanged).await;
    balancer.pin(0);
    let mut connection = AttestedConnection::open_without_channel(&gateway, relays(&authority)).await.unwrap();
    let mut model = connection.model("iris").await.unwrap();
    balancer.pin(1);
    let error = model.infer(&Iris::load().unwrap().rows[..2]).await.unwrap_err();
    assert_eq!(error.code(), "root_mismatch");
}

#[tokio::test]
async fn answers_that_are_cut_short_or_of_another_kind_are_no_answers() {
    let authority = Authority::ephemeral();
    let enclaves = [enclave(&authority).await];
    let infer = async |change| {
        let (gateway, _) = before(&enclaves, change).await;
        let mut connection = AttestedConnection::open_without_channel(&gateway, relays(&authority)).await?;
        connection.model("iris").await?.infer(&Iris::load().unwrap().rows[..1]).await.map(drop)
    };
    assert!(infer(unchanged).await.is_ok());
    for (change, code) in [
        (cut_answer as Change, "bad_answer"),
        (cut_presentation, "presentation_malformed"),
        (cut_metadata, "bad_answer"),
        (empty_answer, "bad_answer"),
    ] {
        assert_eq!(infer(change).await.unwrap_err().code(), code);
    }
}

/// Whoever relays may say so without reason; what is served, the enclave attests.
#[tokio::test]
async fn a_model_that_was_replaced_is_told_here_too() {
    let authority = Authority::ephemeral();
    let old = version("1").unwrap();
    let new = version_with_budget("1", Some(10_000)).unwrap();
    let attester = authority.enclave(Identity::random());
    let settings = any_loadable();
    let service = Service::start(attester, settings, std::slice::from_ref(&old)).await.unwrap();
    let policy = accepting_relays(&authority, &old);
    let gateway = service.gateway().unwrap();
    let mut connection = AttestedConnection::open_without_channel(&gateway, policy).await.unwrap();
    let mut model = connection.model("iris").await.unwrap();
    let rows = &Iris::load().unwrap().rows[..1];
    model.infer(rows).await.unwrap();
    service.load(&new).await.unwrap().unwrap();
    assert!(matches!(model.infer(rows).await, Err(Error::ModelChanged { .. })));
}
