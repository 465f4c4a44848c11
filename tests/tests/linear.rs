//! Every kind of linear model that scikit-learn has, from its ONNX file through the whole service and back.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::fs;

use cloister_client::{AttestedConnection, Error, RemoteModel};
use cloister_e2e::{
    iris::{self, Iris},
    linear::{Case, Comparison},
    raw::RawClient,
    world::{Link, World},
};
use cloister_inference::{Bundle, FeatureRange, ImportOptions, Prediction, Session, import};
use cloister_wire::{
    BINARY_MEDIA_TYPE, HEADER_LENGTH,
    error::{ErrorBody, ErrorCode},
    oip::{Expected, InferRequest},
    paths,
};
use rten_onnx::onnx::{
    AttributeProto, DataType, GraphProto, ModelProto, NodeProto, TypeProto, TypeProtoTensor, ValueInfoProto,
};

async fn infer_all(model: &mut RemoteModel<'_>, rows: &[Vec<f64>]) -> Vec<Prediction> {
    let mut predictions = Vec::new();
    for rows in rows.chunks(model.description().rows_per_request()) {
        predictions.extend(model.infer(rows).await.unwrap().predictions);
    }
    predictions
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pipeline_agrees_with_scikit_learn_on_every_row_through_the_whole_service() {
    let cases = Case::all().unwrap();
    assert!(cases.len() > 60);
    let bundles: Vec<_> = cases.iter().map(|case| case.import(1e-2).unwrap()).collect();
    let world = World::serving(Link::Tcp, &bundles).unwrap();
    let mut connection = AttestedConnection::open(&world.endpoint, world.policy().unwrap()).await.unwrap();
    let mut total = Comparison::default();
    for case in &cases {
        let mut model = connection.model(&case.name).await.unwrap();
        let predictions = infer_all(&mut model, &case.rows().unwrap()).await;
        let comparison = case.compare(&predictions, model.description()).unwrap();
        (total.rows, total.uncertain) = (total.rows + comparison.rows, total.uncertain + comparison.uncertain);
    }
    assert!(total.uncertain * 100 < total.rows, "{total:?}: a bound that leaves labels open is no bound");
}

/// A model with weights that are a function of their place, rows within ±1, and their logits in float64.
fn synthetic(name: &str, features: usize, logits: usize, rows: usize) -> (Bundle, Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let wave = |index: usize| f64::from(((index * 7919 % 2003) as f32 / 1001.0 - 1.0) / 32.0);
    let range = |index| FeatureRange { name: format!("x{index}"), low: -1.0, high: 1.0, step: None };
    let options = ImportOptions {
        precision: 1e-2,
        ranges: Some((0..features).map(range).collect()),
        ..ImportOptions::new(name, "1")
    };
    let bundle = import(&regressor(features, logits, |index| wave(index) as f32), &options).unwrap().bundle;
    let rows: Vec<Vec<f64>> =
        (0..rows).map(|row| (0..features).map(|j| 30.0 * wave(row * 31 + j * 17 + 5)).collect()).collect();
    let logit = |row: &Vec<f64>, c: usize| row.iter().enumerate().map(|(j, x)| x * wave(c * features + j)).sum();
    let expected = rows.iter().map(|row| (0..logits).map(|c| logit(row, c)).collect()).collect();
    (bundle, rows, expected)
}

/// `LinearRegressor` as skl2onnx writes it.
fn regressor(features: usize, targets: usize, weight: impl Fn(usize) -> f32) -> Vec<u8> {
    let attribute = |name: &str| AttributeProto { name: Some(name.into()), ..Default::default() };
    let node = NodeProto {
        name: Some("LinearRegressor".into()),
        op_type: Some("LinearRegressor".into()),
        domain: Some("ai.onnx.ml".into()),
        input: vec!["X".into()],
        output: vec!["variable".into()],
        attribute: vec![
            AttributeProto { floats: (0..features * targets).map(weight).collect(), ..attribute("coefficients") },
            AttributeProto { floats: vec![0.0; targets], ..attribute("intercepts") },
            AttributeProto { i: Some(targets as i64), ..attribute("targets") },
        ],
    };
    let tensor = TypeProtoTensor { elem_type: Some(DataType::FLOAT), shape: None };
    let kind = TypeProto { tensor_type: Some(tensor), ..Default::default() };
    let value = |name: &str| ValueInfoProto { name: Some(name.into()), r#type: Some(kind.clone()) };
    let (input, output) = (vec![value("X")], vec![value("variable")]);
    let graph = GraphProto { node: vec![node], input, output, ..Default::default() };
    ModelProto { graph: Some(graph), ..Default::default() }.write_buf().unwrap()
}

/// The largest model that is accepted, by features, and one by outputs; both over several requests.
#[tokio::test(flavor = "multi_thread")]
async fn models_of_50_000_features_and_of_1000_outputs_are_served() {
    let (wide, many) = (synthetic("wide", 50_000, 5, 20), synthetic("many", 40, 1000, 70));
    assert!(wide.0.rows_per_request() < 20 && many.0.rows_per_request() > 1);
    let world = World::serving(Link::Unix, &[wide.0, many.0]).unwrap();
    let mut connection = AttestedConnection::open(&world.endpoint, world.policy().unwrap()).await.unwrap();
    for (name, rows, logits) in [("wide", wide.1, wide.2), ("many", many.1, many.2)] {
        let mut model = connection.model(name).await.unwrap();
        let bound = model.description().bound();
        let predictions = infer_all(&mut model, &rows).await;
        for (prediction, logits) in predictions.iter().zip(&logits) {
            let errors = prediction.logits.iter().zip(logits).map(|(logit, expected)| (logit - expected).abs());
            assert!(errors.fold(0.0, f64::max) <= bound, "{name}");
        }
    }
}

/// A model that returns seven logits from boot to end: two rows of three classes, and no third one, by whatever
/// connection.
#[tokio::test]
async fn a_budget_of_logits_is_kept_over_all_connections() {
    let ranges = iris::ranges().unwrap();
    let options = ImportOptions { budget: Some(7), ranges: Some(ranges), ..ImportOptions::new("iris", "1") };
    let bundle = import(&fs::read(iris::file("iris.onnx")).unwrap(), &options).unwrap().bundle;
    let world = World::serving(Link::Unix, &[bundle]).unwrap();
    let rows = Iris::load().unwrap().rows;
    let ask = async |count: usize| {
        let mut connection = AttestedConnection::open(&world.endpoint, world.policy().unwrap()).await.unwrap();
        let mut model = connection.model("iris").await.unwrap();
        assert_eq!(model.description().budget(), Some(7));
        model.infer(&rows[..count]).await.map(drop)
    };
    let spent = |answer| matches!(answer, Err(Error::Refused { code: ErrorCode::BudgetSpent, .. }));
    assert!(spent(ask(3).await), "nine logits are more than seven");
    assert!(ask(1).await.is_ok() && ask(1).await.is_ok());
    assert!(spent(ask(1).await));
}

/// A connection has places for two public keys; a session whose key was displaced by later ones sends it again.
#[tokio::test]
async fn a_session_whose_public_key_was_displaced_sends_it_again() {
    let world = World::start(Link::Unix).unwrap();
    let rows = &Iris::load().unwrap().rows[..1];
    let mut client = raw(&world).await;
    let description = Bundle::from_bytes(&fs::read(&world.bundle).unwrap()).unwrap().description().clone();
    let mut sessions: Vec<Session> = (0..3).map(|_| Session::new(&description)).collect();
    for session in &mut sessions {
        assert_eq!(ask(&mut client, session, rows, true).await, None);
    }
    assert_eq!(ask(&mut client, &mut sessions[0], rows, false).await, Some(ErrorCode::PublicKeyMissing));
    assert_eq!(ask(&mut client, &mut sessions[2], rows, false).await, None);
    assert_eq!(ask(&mut client, &mut sessions[0], rows, true).await, None);
    // Another connection knows none of them.
    let mut other = raw(&world).await;
    assert_eq!(ask(&mut other, &mut sessions[0], rows, false).await, Some(ErrorCode::PublicKeyMissing));
}

async fn raw(world: &World) -> RawClient {
    RawClient::connect(format!("{}:{}", world.endpoint.host(), world.endpoint.port()).parse().unwrap()).await.unwrap()
}

/// Asks for the logits of `rows`, with or without the public key; the code of the refusal.
async fn ask(client: &mut RawClient, session: &mut Session, rows: &[Vec<f64>], with_key: bool) -> Option<ErrorCode> {
    let request = session.encrypt(rows).unwrap();
    let public_key = with_key.then_some(session.public_key());
    let framed =
        InferRequest { id: None, public_key, ciphertext: request.bytes(), expected: Expected::default() }.to_framed();
    let length = framed.header_length.to_string();
    let headers = [("content-type", BINARY_MEDIA_TYPE), (HEADER_LENGTH, length.as_str())];
    let (status, body) = client.post(&paths::infer("iris", None), &headers, framed.body).await.unwrap();
    (status != 200).then(|| serde_json::from_slice::<ErrorBody>(&body).unwrap().code)
}
