//! SageMaker's contract, and what stands around it: the runtime that signs and hands on, S3, and other clients' protocols.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::{fs, process::Command};

use cloister_e2e::{
    cli::cloister_with,
    hostile::BUNDLE,
    iris::{self, Iris},
    process::Process,
    python::Python,
    service::{ask, version},
    world::{HttpOptions, HttpWorld},
};
use cloister_inference::{Prediction, Session};
use cloister_wire::oip::{Expected, InferRequest, InferResponse, header_length};
use serde_json::{Value, json};

const LOADABLE: &str = r#"{"v":1,"max_connections":256,"loadable":"any"}"#;

fn text(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Status and body of what a place says, `tcp:HOST:PORT` or `http://HOST:PORT`.
fn get(place: &str, path: &str) -> (u16, String) {
    let address = place.trim_start_matches("http://").trim_start_matches("tcp:").parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (status, body) = runtime.block_on(ask(address, hyper::Method::GET, path, "")).unwrap();
    (status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
}

/// Asks again until it is so.
fn wait_until(what: impl Fn() -> bool) {
    for _ in 0..200 {
        if what() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("it is not so after ten seconds");
}

/// Waits until the proxy knows that the enclave is up.
fn wait_until_up(world: &HttpWorld) {
    wait_until(|| get(&world.url, "/ping").0 == 200);
}

#[test]
fn the_container_does_what_sagemaker_expects_of_one() {
    let Some(python) = Python::find().unwrap() else { return };
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    fs::create_dir_all(models.join("iris-2")).unwrap();
    fs::write(models.join("iris-2/model.cloister"), version("2").unwrap().to_bytes()).unwrap();
    let models = models.display().to_string();
    let options = HttpOptions { settings: Some(LOADABLE), proxy: &["--multi-model", &models], environment: &[] };
    let world = HttpWorld::start(std::slice::from_ref(&BUNDLE), &options).unwrap();
    wait_until_up(&world);

    let (data, mut session) = (Iris::load().unwrap(), Session::new(BUNDLE.description()));
    let request = session.encrypt(&data.rows).unwrap();
    let public_key = Some(session.public_key());
    let message =
        InferRequest { id: None, public_key, ciphertext: request.bytes(), expected: Expected::default() }.to_framed();
    let (message_file, answer_file) = (folder.path().join("message"), folder.path().join("answer"));
    fs::write(&message_file, message.body).unwrap();
    let [message, answer] = [&message_file, &answer_file].map(|file| file.display().to_string());
    let output = python.run("sagemaker.py", &[&world.url, &message, &answer, &models]).unwrap();
    assert!(output.status.success(), "{}", text(&output));

    // The answer that it got is one: all of Iris.
    let answer = fs::read(answer_file).unwrap();
    let answer = InferResponse::parse(Some(header_length(&answer).unwrap()), &answer).unwrap();
    let logits = session.decrypt(&request, answer.ciphertext).unwrap();
    let predictions: Vec<_> = logits.into_iter().map(|logits| Prediction::new(BUNDLE.description(), logits)).collect();
    let agreement = iris::Agreement::of(&predictions, &data, BUNDLE.bound());
    assert_eq!((agreement.violations, agreement.labels_equal), (0, 150));
}

#[test]
fn before_the_enclave_is_up_the_container_is_not_healthy() {
    let program = cloister_e2e::build::executable("cloister-parent-proxy").unwrap();
    let arguments = ["serve", "--http", "tcp:127.0.0.1:0", "--plain-enclave", "unix:/nowhere/enclave.sock"];
    let proxy = Process::start(&program, &arguments).unwrap();
    let (status, body) = get(&proxy.place("http").unwrap(), "/ping");
    assert_eq!(status, 503);
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["code"], "unavailable");
}

const KEY: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
    ("AWS_REGION", "eu-central-1"),
];

#[test]
fn a_data_scientist_infers_through_a_sagemaker_endpoint() {
    let Some(python) = Python::find().unwrap() else { return };
    let world = HttpWorld::start(std::slice::from_ref(&BUNDLE), &HttpOptions::default()).unwrap();
    wait_until_up(&world);
    let (_runtime, url) = python.serve("runtime.py", &[&world.url]).unwrap();
    let runtime = ("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", url.as_str());
    let (policy, evidence) =
        (world.policy_file().display().to_string(), world.folder().join("evidence.cbor").display().to_string());
    let input = iris::file("iris.csv").display().to_string();
    let infer = |endpoint: &'static str| {
        let common = ["infer", "--sagemaker", endpoint, "--policy", &policy, "--model", "iris", "--json"];
        [&common[..], &["--in", &input, "--labels", "species", "--evidence", &evidence]].concat()
    };
    let environment = [&KEY[..], &[runtime]].concat();
    let outcome = cloister_with(&infer("iris-endpoint"), &environment);
    assert_eq!(outcome.exit, 0, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("TLS ENDS BEFORE THE ENCLAVE"), "{}", outcome.stderr);
    let object = outcome.json();
    assert_eq!(
        (&object["verified"], &object["channel"], &object["simulated"]),
        (&json!(true), &json!("none"), &json!(true))
    );
    assert_eq!(object["predictions"].as_array().unwrap().len(), 150);
    let checked = cloister_with(&["verify-receipt", &evidence, "--policy", &policy], &[]);
    assert_eq!(checked.exit, 0, "{}", checked.stderr);

    let verified = cloister_with(&["verify", "--sagemaker", "iris-endpoint", "--policy", &policy], &environment);
    assert_eq!(verified.exit, 0, "{}", verified.stderr);

    let wrong = [&environment[..], &[("AWS_SECRET_ACCESS_KEY", "another")]].concat();
    let refused = cloister_with(&infer("iris-endpoint"), &wrong);
    assert_eq!((refused.exit, &refused.json()["error"]["code"]), (4, &json!("intermediary")), "{}", refused.stderr);
    assert!(refused.stdout.contains("signature does not match") && !refused.stdout.contains("another"));
    let refused = cloister_with(&infer("no-endpoint"), &environment);
    assert_eq!((refused.exit, &refused.json()["error"]["code"]), (4, &json!("intermediary")));
    // What the container refuses comes through SageMaker's own error.
    let other =
        ["infer", "--sagemaker", "iris-endpoint", "--policy", &policy, "--model", "wine", "--in", &input, "--json"];
    assert_eq!(cloister_with(&other, &environment).json()["error"]["code"], "unknown_model");
}

#[test]
fn messages_lie_in_s3_where_that_is_allowed() {
    let Some(python) = Python::find().unwrap() else { return };
    let (_s3, url) = python.serve("s3.py", &[]).unwrap();
    let environment = [
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "a-secret-of-s3"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", url.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
    ];
    let options =
        HttpOptions { settings: None, proxy: &["--s3-bucket", "payloads/cloister"], environment: &environment };
    let world = HttpWorld::start(std::slice::from_ref(&BUNDLE), &options).unwrap();
    wait_until_up(&world);
    let (policy, input) = (world.policy_file().display().to_string(), iris::file("iris.csv").display().to_string());
    let infer = |place: &'static str| {
        let common = ["infer", "--gateway", &world.url, "--objects", place, "--policy", &policy, "--model", "iris"];
        cloister_with(&[&common[..], &["--in", &input, "--json"]].concat(), &environment)
    };
    let outcome = infer("s3://payloads/cloister/run-1");
    assert_eq!(outcome.exit, 0, "{}", outcome.stderr);
    assert_eq!(outcome.json()["predictions"].as_array().unwrap().len(), 150);
    for elsewhere in ["s3://private/cloister", "s3://payloads/other", "s3://payloads/cloister-not"] {
        let refused = infer(elsewhere);
        assert_eq!((refused.exit, &refused.json()["error"]["code"]), (4, &json!("object_refused")), "{elsewhere}");
    }
    let missing = infer("s3://no-such-bucket/cloister");
    assert_eq!((missing.exit, &missing.json()["error"]["code"]), (5, &json!("objects")), "{}", missing.stdout);
    for said in [outcome.stderr, missing.stdout, missing.stderr, world.proxy.end()] {
        assert!(!said.contains("a-secret-of-s3"), "{said}");
    }
}

#[test]
fn clients_of_the_open_inference_protocol_find_what_they_know() {
    let Some(python) = Python::find().unwrap() else { return };
    let world = HttpWorld::start(&[BUNDLE.clone(), version("2").unwrap()], &HttpOptions::default()).unwrap();
    let output = python.run("oip.py", &[world.url.strip_prefix("http://").unwrap()]).unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

/// What an operator does on the parent, and what the metrics say of it.
#[test]
fn an_operator_loads_and_unloads_models_and_sees_it_in_the_metrics() {
    let world = HttpWorld::start(
        std::slice::from_ref(&BUNDLE),
        &HttpOptions { settings: Some(LOADABLE), ..HttpOptions::default() },
    )
    .unwrap();
    let program = cloister_e2e::build::executable("cloister-parent-proxy").unwrap();
    let (control, bundle) = (world.enclave.place("control").unwrap(), world.folder().join("two.cloister"));
    fs::write(&bundle, version("2").unwrap().to_bytes()).unwrap();
    let models = |arguments: &[&str]| {
        let output =
            Command::new(&program).arg("models").args(arguments).args(["--control", &control]).output().unwrap();
        (output.status.code(), text(&output))
    };
    assert_eq!(models(&["load", &bundle.display().to_string()]).0, Some(0));
    let (_, listed) = models(&["list"]);
    assert!(listed.contains("iris") && listed.contains('2'), "{listed}");
    assert_eq!(models(&["unload", "iris/1"]).0, Some(0));
    let (exit, said) = models(&["unload", "iris/1"]);
    assert_eq!(exit, Some(1));
    assert!(said.contains("no such model"), "{said}");
    assert_eq!(models(&["load", "/nowhere.cloister"]).0, Some(1));
    let policy = world.policy_file().display().to_string();
    let verified = cloister_with(&["verify", "--gateway", &world.url, "--policy", &policy], &[]);
    assert!(verified.stdout.contains("models that its parent may load: any"), "{}", verified.stdout);
    assert!(verified.stdout.contains("NOT ACCEPTED: the policy has another digest"), "{}", verified.stdout);

    let place = world.proxy.place("metrics").unwrap();
    wait_until(|| get(&place, "/metrics").1.contains("event=\"unloaded\""));
    let (_, page) = get(&place, "/metrics");
    for line in
        ["cloister_enclave_events_total{event=\"loaded\"} 1", "cloister_enclave_event_last_value{event=\"unloaded\"} 1"]
    {
        assert!(page.contains(line), "{line}: {page}");
    }
}
