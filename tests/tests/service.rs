//! The whole service over real sockets and separate processes.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use cloister_attestation::{Evidence, Timestamp};
use cloister_client::{AttestedConnection, Error};
use cloister_e2e::{
    iris::{Agreement, Iris},
    raw::RawClient,
    world::{Link, World, enclave, endpoint, proxy},
};
use cloister_inference::Session;
use cloister_wire::{
    BINARY_MEDIA_TYPE, HEADER_LENGTH,
    error::{ErrorBody, ErrorCode},
    limits,
    oip::{Expected, InferRequest},
    paths,
};

async fn raw(world: &World) -> RawClient {
    RawClient::connect(format!("{}:{}", world.endpoint.host(), world.endpoint.port()).parse().unwrap()).await.unwrap()
}

#[tokio::test]
async fn iris_over_tcp_and_unix_is_within_the_bound_and_leaves_evidence() {
    let data = Iris::load().unwrap();
    for link in [Link::Tcp, Link::Unix] {
        let world = World::start(link).unwrap();
        let policy = world.policy().unwrap();
        let mut connection = AttestedConnection::open(&world.endpoint, policy.clone()).await.unwrap();
        assert!(connection.enclave().simulated());
        let mut model = connection.model("iris").await.unwrap();
        let bound = model.description().bound();
        let answer = model.infer(&data.rows).await.unwrap();
        let agreement = Agreement::of(&answer.predictions, &data, bound);
        assert_eq!((agreement.violations, agreement.labels_equal), (0, 150), "{agreement:?}");

        let evidence = Evidence::from_cbor(&connection.evidence()[0].to_cbor()).unwrap();
        let archived = evidence.verify(&policy, Timestamp::now()).unwrap();
        assert_eq!(archived.receipts().len(), 1);
        assert!(archived.simulated());
    }
}

#[tokio::test]
async fn bad_requests_get_a_code_each_and_the_service_goes_on() {
    let world = World::start(Link::Tcp).unwrap();
    let bundle = cloister_inference::Bundle::from_bytes(&std::fs::read(&world.bundle).unwrap()).unwrap();
    let data = Iris::load().unwrap();
    let mut session = Session::new(bundle.description());
    let good = session.encrypt(&data.rows[..2]).unwrap();
    let public_key = session.public_key().to_vec();
    let mut client = raw(&world).await;

    let mut refusals = Vec::new();
    let mut attempt = async |path: &str, ciphertext: &[u8]| {
        let framed =
            InferRequest { id: None, public_key: Some(&public_key), ciphertext, expected: Expected::default() }
                .to_framed();
        let length = framed.header_length.to_string();
        let headers = [("content-type", BINARY_MEDIA_TYPE), (HEADER_LENGTH, length.as_str())];
        let (status, body) = client.post(path, &headers, framed.body).await.unwrap();
        if status == 200 {
            return None;
        }
        let refusal: ErrorBody = serde_json::from_slice(&body).unwrap();
        assert_eq!(status.as_u16(), refusal.code.status());
        refusals.push(refusal.error);
        Some(refusal.code)
    };
    let infer = paths::infer("iris", None);
    assert_eq!(attempt(&infer, good.bytes()).await, None);
    assert_eq!(attempt(&paths::infer("unknown", None), good.bytes()).await, Some(ErrorCode::UnknownModel));
    assert_eq!(attempt("/v3", good.bytes()).await, Some(ErrorCode::NotFound));
    for length in [0, 1, 39, good.bytes().len() - 1] {
        let code = attempt(&infer, &good.bytes()[..length]).await;
        assert_eq!(code, Some(ErrorCode::CiphertextRefused), "{length}");
    }
    for bit in 0..9 * 8 {
        let mut flipped = good.bytes().to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(attempt(&infer, &flipped).await, Some(ErrorCode::CiphertextRefused), "bit {bit}");
    }
    assert_eq!(attempt(&infer, good.bytes()).await, None);
    assert!(refusals.iter().all(|text| !text.is_empty() && text.len() < 300), "{refusals:?}");

    let (status, body) = client
        .post(&infer, &[], vec![0; limits::BESIDE_CIPHERTEXT_BYTES + bundle.request_len(bundle.rows_per_request()) + 1])
        .await
        .unwrap();
    assert_eq!(status, 413, "{}", String::from_utf8_lossy(&body));
    let (status, _) = raw(&world).await.post(paths::ATTESTATION, &[], vec![0; 31]).await.unwrap();
    assert_eq!(status, 400);
    let (status, _) = raw(&world).await.post(paths::READY, &[], vec![]).await.unwrap();
    assert_eq!(status, 405);

    let mut connection = AttestedConnection::open(&world.endpoint, world.policy().unwrap()).await.unwrap();
    connection.model("iris").await.unwrap().infer(&data.rows[..1]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_enclave_is_a_clear_error_and_a_second_one_takes_over() {
    let world = World::start(Link::Unix).unwrap();
    let World { ref bundle, ref enclave_address, .. } = world;
    let second = enclave(&world.authority(), "tcp:127.0.0.1:0", std::slice::from_ref(bundle)).unwrap();
    let second_address = cloister_e2e::world::address(&second).unwrap();
    let both = proxy(&[enclave_address, &second_address]).unwrap();
    let both_endpoint = endpoint(&both).unwrap();
    let policy = world.policy().unwrap();

    let mut connection = AttestedConnection::open(&world.endpoint, policy.clone()).await.unwrap();
    let rows = &Iris::load().unwrap().rows[..1];
    let mut model = connection.model("iris").await.unwrap();
    model.infer(rows).await.unwrap();
    let (alone, policy_again) = (world.endpoint.clone(), policy.clone());
    assert_eq!(world.enclave.terminate().unwrap(), Some(0), "the service drains and ends");

    assert!(matches!(model.infer(rows).await, Err(Error::ConnectionLost { .. })));
    assert!(matches!(
        AttestedConnection::open(&alone, policy_again).await,
        Err(Error::Unreachable { .. } | Error::ConnectionLost { .. })
    ));
    for _ in 0..2 {
        AttestedConnection::open(&both_endpoint, policy.clone()).await.unwrap();
    }
    assert_eq!(both.terminate().unwrap(), Some(0), "the proxy drains and ends");
}
