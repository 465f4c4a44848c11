//! Clients that know nothing of Cloister, through `cloister gateway`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use cloister_client::Prediction;
use cloister_e2e::{
    cli::{CLOISTER, Outcome, cloister},
    iris,
    linear::Case,
    process::Process,
    python::Python,
    trees,
    world::{self, Link, World},
};
use cloister_inference::Thresholds;
use reqwest::{StatusCode, header};
use serde_json::{Value, json};

/// `cloister gateway` before a simulated enclave.
struct Scoring {
    world: World,
    gateway: Process,
    url: String,
}

impl Scoring {
    fn start(arguments: &[&str]) -> Self {
        Self::before(World::start(Link::Tcp).unwrap(), arguments)
    }

    fn before(world: World, arguments: &[&str]) -> Self {
        let (endpoint, policy) = (world.endpoint.to_string(), world.policy_file().display().to_string());
        let common = ["gateway", &endpoint, "--policy", &policy];
        let listen: &[&str] = if arguments.contains(&"--listen") { &[] } else { &["--listen", "127.0.0.1:0"] };
        let gateway = gateway(&[&common, listen, arguments].concat());
        let url = gateway.first_line.strip_prefix("listening on ").unwrap().to_owned();
        Self { world, gateway, url }
    }

    async fn infer(&self, body: &Value) -> (StatusCode, Value) {
        self.ask("iris", body).await
    }

    async fn ask(&self, model: &str, body: &Value) -> (StatusCode, Value) {
        let url = format!("{}/v2/models/{model}/infer", self.url);
        let request = reqwest::Client::new().post(url).body(body.to_string());
        let answer = request.send().await.unwrap();
        (answer.status(), serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
    }

    async fn get(&self, path: &str) -> (StatusCode, Vec<u8>) {
        let answer = reqwest::get(format!("{}{path}", self.url)).await.unwrap();
        (answer.status(), answer.bytes().await.unwrap().to_vec())
    }

    async fn report(&self) -> Value {
        serde_json::from_slice(&self.get("/v1/evidence").await.1).unwrap()
    }
}

/// As on a machine where nobody has configured anything.
fn gateway(arguments: &[&str]) -> Process {
    Process::start_with(&CLOISTER, arguments, &[("CLOISTER_CONFIG", "/dev/null")]).unwrap()
}

/// The first row of each species.
fn flowers() -> Value {
    json!({"id": "7", "inputs": [{"name": "X", "shape": [3, 4], "datatype": "FP64", "data": [
        [5.1, 3.5, 1.4, 0.2], [7.0, 3.2, 4.7, 1.4], [6.3, 3.3, 6.0, 2.5]
    ]}]})
}

/// Every model of scikit-learn's that the tests have, asked for as an unmodified client does.
#[test]
fn unmodified_clients_get_what_scikit_learn_says() {
    let Some(python) = Python::find().unwrap() else { return };
    let cases = Case::all().unwrap();
    let bundles: Vec<_> = cases.iter().map(|case| case.import(1e-3).unwrap()).collect();
    let scoring = Scoring::before(World::serving(Link::Tcp, &bundles).unwrap(), &[]);
    let told: Vec<Value> = cases
        .iter()
        .map(|case| json!({"name": case.name, "dataset": case.dataset(), "expected": case.expected()}))
        .collect();
    let address = scoring.url.strip_prefix("http://").unwrap();
    let output = python.run_with("scoring.py", &[address], &json!(told).to_string()).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Whoever asks does not see that a request of theirs holds one row, or that logits may be probabilities already.
#[tokio::test]
async fn trees_and_networks_are_asked_as_any_other_model() {
    let (public, hidden) = (Thresholds::Public, Thresholds::Hidden);
    let models = [("iris-dt", public, 2e-2), ("bc-dt", public, 2e-2), ("iris-16", hidden, 0.2)];
    let cases = models.map(|(name, ..)| trees::Case::named(name).unwrap());
    let import = |(case, (_, thresholds, _)): (&trees::Case, _)| case.import(1e-2, thresholds).unwrap().unwrap().bundle;
    let bundles: Vec<_> = cases.iter().zip(models).map(import).collect();
    let scoring = Scoring::before(World::serving(Link::Tcp, &bundles).unwrap(), &[]);
    for ((case, bundle), (name, _, within)) in cases.iter().zip(&bundles).zip(models) {
        let description = bundle.description();
        let (labels, width) = (description.labels().len(), description.logits());
        let metadata: Value = serde_json::from_slice(&scoring.get(&format!("/v2/models/{name}")).await.1).unwrap();
        let declared = json!([
            {"name": "label", "datatype": "INT64", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP64", "shape": [-1, labels]},
            {"name": "logits", "datatype": "FP64", "shape": [-1, width]},
            {"name": "certain", "datatype": "BOOL", "shape": [-1]},
        ]);
        assert_eq!(metadata["outputs"], declared, "{name}");

        let rows = &case.rows().unwrap()[..5];
        let shape = [rows.len(), description.features().len()];
        let input = json!({"inputs": [{"name": "X", "shape": shape, "datatype": "FP64", "data": rows}]});
        let (status, answer) = scoring.ask(name, &input).await;
        assert_eq!(status, 200, "{answer}");
        let output = |name: &str| {
            let outputs = answer["outputs"].as_array().unwrap();
            outputs.iter().find(|output| output["name"] == name).unwrap()["data"].clone()
        };
        let numbers = |name: &str| serde_json::from_value::<Vec<f64>>(output(name)).unwrap();
        let logits = numbers("logits");
        let predictions: Vec<_> = logits.chunks(width).map(|row| Prediction::new(description, row.to_vec())).collect();
        let comparison = case.compare(&predictions).unwrap();
        assert!(
            comparison.other == 0 && comparison.errors.iter().all(|error| *error <= within),
            "{name}: {comparison:?}"
        );
        let probabilities = predictions.iter().flat_map(|prediction| prediction.outputs.clone());
        assert!(probabilities.zip(numbers("probabilities")).all(|(one, other)| (one - other).abs() < 1e-12), "{name}");
        let told: Vec<String> = output("label").as_array().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(told, predictions.iter().map(Prediction::label_text).collect::<Vec<_>>(), "{name}");
        assert_eq!(output("certain"), json!(predictions.iter().map(|p| p.certain).collect::<Vec<_>>()), "{name}");
    }
}

#[tokio::test]
async fn answers_are_those_of_the_model_and_say_that_they_are_simulated() {
    let scoring = Scoring::start(&[]);
    let (status, answer) = scoring.infer(&flowers()).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        (&answer["model_name"], &answer["model_version"], &answer["id"]),
        (&json!("iris"), &json!("1"), &json!("7"))
    );
    let output = |name: &str| {
        let outputs = answer["outputs"].as_array().unwrap();
        outputs.iter().find(|output| output["name"] == name).unwrap().clone()
    };
    assert_eq!(output("label")["data"], json!(["setosa", "versicolor", "virginica"]));
    assert_eq!((&output("label")["datatype"], &output("label")["shape"]), (&json!("BYTES"), &json!([3])));
    assert_eq!(output("certain")["data"], json!([true, true, true]));
    assert_eq!(
        (output("logits")["shape"].clone(), output("probabilities")["shape"].clone()),
        (json!([3, 3]), json!([3, 3]))
    );
    let (row, bound) = (&iris::Iris::load().unwrap().logits[0], 1e-3);
    for (found, expected) in output("logits")["data"].as_array().unwrap().iter().zip(row) {
        assert!((found.as_f64().unwrap() - expected).abs() <= bound, "{found} {expected}");
    }
    let answer = reqwest::get(format!("{}/v2", scoring.url)).await.unwrap();
    assert_eq!(answer.headers()["cloister-simulated"], "true");
    assert!(answer.text().await.unwrap().contains("SIMULATED"));
    assert!(scoring.gateway.end().contains("SIMULATED: this is not a Nitro Enclave"));
}

#[tokio::test]
async fn what_was_verified_is_shown_and_holds_offline() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("evidence");
    let scoring = Scoring::start(&["--evidence", &file.display().to_string()]);
    assert_eq!(scoring.infer(&flowers()).await.0, 200);
    let report = scoring.report().await;
    assert_eq!(
        (&report["verified"], &report["simulated"], &report["channel"]),
        (&json!(true), &json!(true), &json!("tls-exporter"))
    );
    assert_eq!(report["steps"].as_array().unwrap().len(), 12);
    assert_eq!(report["models"][0]["name"], "iris");
    let pieces = report["evidence"].as_array().unwrap();
    assert_eq!((pieces.len(), &pieces[0]["receipts"]), (1, &json!(1)), "{report}");
    let (status, piece) = scoring.get(pieces[0]["path"].as_str().unwrap()).await;
    assert_eq!(status, 200);
    assert_eq!(scoring.get("/v1/evidence/9").await.0, 404);
    let saved = folder.path().join("saved");
    fs::write(&saved, piece).unwrap();
    let policy = scoring.world.policy_file();
    assert_receipts(&saved, &policy, 1);

    assert_eq!(scoring.gateway.terminate().unwrap(), Some(0));
    assert_receipts(&file, &policy, 1);
}

fn assert_receipts(evidence: &Path, policy: &Path, count: usize) {
    let [evidence, policy] = [evidence, policy].map(|path| path.display().to_string());
    let outcome = cloister(&["verify-receipt", &evidence, "--policy", &policy, "--json"]);
    assert_eq!(outcome.exit, 0, "{}", outcome.stderr);
    assert_eq!(outcome.json()["receipts"].as_array().unwrap().len(), count);
}

/// Of a page in a browser on this machine, whether it says where it comes from or has its own name lead here.
#[tokio::test]
async fn web_pages_are_not_served() {
    let scoring = Scoring::start(&[]);
    let ask = |name, value| {
        let request = reqwest::Client::new().get(format!("{}/v2", scoring.url)).header(name, value);
        async { request.send().await.unwrap().status() }
    };
    assert_eq!(ask(header::ORIGIN, "https://evil.example").await, 403);
    assert_eq!(ask(header::ORIGIN, "null").await, 403);
    assert_eq!(ask(header::HOST, "evil.example:8000").await, 403);
    for (site, status) in [("cross-site", 403), ("same-site", 403), ("none", 200)] {
        assert_eq!(ask(header::HeaderName::from_static("sec-fetch-site"), site).await, status, "{site}");
    }
    assert_eq!(ask(header::HOST, "localhost:8000").await, 200);
}

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong() {
    let scoring = Scoring::start(&["--max-body", "1"]);
    let tensor = |change: &dyn Fn(&mut Value)| {
        let mut request = flowers();
        change(&mut request["inputs"][0]);
        request
    };
    for (request, status, needle) in [
        (tensor(&|tensor| tensor["shape"] = json!([2, 4])), 400, "has 12 values, its shape says 8"),
        (tensor(&|tensor| tensor["shape"] = json!([12])), 400, "lists of another length"),
        (
            tensor(&|tensor| (tensor["shape"], tensor["data"]) = (json!([4]), json!([5.1, 3.5, 1.4, 0.2]))),
            400,
            "expected [rows, 4]",
        ),
        (
            tensor(&|tensor| (tensor["shape"], tensor["data"]) = (json!([1, 3]), json!([5.1, 3.5, 1.4]))),
            400,
            "the model has 4 columns",
        ),
        (tensor(&|tensor| tensor["shape"] = json!([u64::MAX, 4])), 400, "has 12 values"),
        (tensor(&|tensor| (tensor["shape"], tensor["data"]) = (json!([0, 4]), json!([]))), 400, "it has no rows"),
        (tensor(&|tensor| tensor["datatype"] = json!("BYTES")), 400, "give FP64, FP32, INT64 or INT32"),
        (tensor(&|tensor| tensor["data"] = json!(["a"])), 400, "cannot be read"),
        (tensor(&|tensor| tensor["data"][0][0] = Value::Null), 400, "is not a number"),
        (tensor(&|tensor| tensor["data"][1][2] = json!(99)), 400, "row 1, column \\\"petal length (cm)\\\": 99"),
        (
            tensor(&|tensor| {
                (tensor["shape"], tensor["data"]) = (json!([2, 4]), json!([[5, 3], [1, 0], [5, 3], [1, 0]]))
            }),
            400,
            "lists of another length",
        ),
        (tensor(&|tensor| tensor["data"] = json!([[5, 3, 1, 0], [5, 3]])), 400, "lists of as many numbers each"),
        (tensor(&|tensor| tensor["datatype"] = json!("INT32")), 400, "values that are no integers"),
        (tensor(&|tensor| tensor["parameters"] = json!({"binary_data_size": 96})), 400, "in JSON and in binary"),
        (
            json!({"inputs": flowers()["inputs"], "outputs": vec![json!({"name": "logits"}); 100_000]}),
            413,
            "--max-body",
        ),
        (
            json!({"inputs": flowers()["inputs"], "outputs": vec![json!({"name": "logits"}); 1000]}),
            400,
            "asked for twice",
        ),
        (json!({"inputs": []}), 400, "the inputs are none"),
        (json!({"inputs": [flowers()["inputs"][0], flowers()["inputs"][0]]}), 400, "one tensor of shape [rows, 4]"),
        (json!({"id": "x".repeat(1000), "inputs": []}), 400, "the id has more than"),
        (json!({"id": "x".repeat(2 << 20), "inputs": []}), 413, "--max-body"),
        (json!([]), 400, "cannot be read"),
    ] {
        let (found, answer) = scoring.infer(&request).await;
        assert!(found == status && answer.to_string().contains(needle), "{needle}: {found} {answer}");
    }
    let mut clipped = tensor(&|tensor| tensor["data"][1][2] = json!(99));
    clipped["parameters"] = json!({"clip": true});
    let (status, answer) = scoring.infer(&clipped).await;
    assert!(status == 200 && answer.to_string().contains("\"data\":[true,false,true]"), "{answer}");
    let (status, _) = scoring.get("/elsewhere").await;
    assert_eq!(status, 404);
    // Nothing of that keeps it from its work.
    assert_eq!(scoring.infer(&flowers()).await.0, 200);
}

#[test]
fn a_unix_socket_is_for_its_user_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scoring.sock");
    let listen = format!("unix:{}", path.display());
    let scoring = Scoring::start(&["--listen", &listen]);
    assert_eq!(scoring.url, listen);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let mut stream = UnixStream::connect(&path).unwrap();
    let body = flowers().to_string();
    let (host, length) = ("host: scoring\r\nconnection: close", body.len());
    write!(stream, "POST /v2/models/iris/infer HTTP/1.1\r\n{host}\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("versicolor"), "{answer}");
    assert_eq!(scoring.gateway.terminate().unwrap(), Some(0));
    assert!(!path.exists());
}

/// Who listens where others connect says what that gives up, in so many words.
#[test]
fn other_addresses_are_only_for_those_who_say_what_they_give_up() {
    let world = World::start(Link::Tcp).unwrap();
    let (endpoint, policy) = (world.endpoint.to_string(), world.policy_file().display().to_string());
    let arguments = ["gateway", &endpoint, "--policy", &policy, "--listen", "0.0.0.0:0"];
    let (message, _) = Outcome::assert_fails(&arguments, 2, "usage");
    assert!(message.contains("--anyone-on-this-network-may-read-my-features"), "{message}");
    let given_up = Scoring::before(world, &["--listen", "0.0.0.0:0", "--anyone-on-this-network-may-read-my-features"]);
    assert!(given_up.gateway.end().contains("FEATURES AND PREDICTIONS ARE IN THE CLEAR"));
}

#[test]
fn what_is_not_verified_is_not_begun() {
    let (world, other) = (World::start(Link::Tcp).unwrap(), World::start(Link::Tcp).unwrap());
    let (endpoint, policy) = (world.endpoint.to_string(), other.policy_file().display().to_string());
    Outcome::assert_fails(&["gateway", &endpoint, "--policy", &policy, "--listen", "127.0.0.1:0"], 3, "root_mismatch");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    Outcome::assert_fails(
        &["gateway", "https://127.0.0.1:1", "--policy", &policy, "--listen", &taken],
        5,
        "unreachable",
    );
}

/// The evaluator is started anew, in the same place: requests go on. Then its release is revoked: they do not.
#[tokio::test]
async fn it_connects_anew_and_verifies_anew() {
    let mut scoring = Scoring::start(&[]);
    assert_eq!(scoring.infer(&flowers()).await.0, 200);
    let first = scoring.report().await["module_id"].clone();
    let bundle = scoring.world.bundle.clone();
    let (authority, address) = (scoring.world.authority(), scoring.world.enclave_address.clone());
    // An empty enclave takes its place, and ends for that the one that was there.
    let dead = std::mem::replace(&mut scoring.world.enclave, Process::start(Path::new("/bin/echo"), &["x"]).unwrap());
    dead.end();
    assert_eq!(scoring.infer(&flowers()).await.0, StatusCode::SERVICE_UNAVAILABLE);
    scoring.world.enclave = world::enclave(&authority, &address, &[bundle]).unwrap();
    assert_eq!(scoring.infer(&flowers()).await.0, 200);
    scoring.hang_up(|report| report["module_id"] != first).await;

    let policy = scoring.world.policy_file().display().to_string();
    let revoked = cloister(&["policy", "revoke", &policy, "simulated", "--reason", "a test"]);
    assert_eq!(revoked.exit, 0, "{}", revoked.stderr);
    let report = scoring.hang_up(|report| report["verified"] == false).await;
    assert_eq!(report["error"]["code"], "release_revoked", "{report}");
    assert_eq!(scoring.get("/v2/health/ready").await.0, StatusCode::SERVICE_UNAVAILABLE);
    let (status, answer) = scoring.infer(&flowers()).await;
    assert_eq!((status, &answer["code"]), (StatusCode::BAD_GATEWAY, &json!("release_revoked")), "{answer}");
}

impl Scoring {
    /// Asks for a verification, and waits for what it finds.
    async fn hang_up(&self, found: impl Fn(&Value) -> bool) -> Value {
        let process = self.gateway.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &process]).status().unwrap().success());
        let patience = Instant::now() + Duration::from_secs(30);
        loop {
            let report = self.report().await;
            if found(&report) {
                return report;
            }
            assert!(Instant::now() < patience, "{report}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A request of more than a million rows is under way when the release is revoked: the rest of it is not sent. Nor is anything without a
/// policy.
#[tokio::test]
async fn a_request_under_way_ends_with_the_policy_that_it_began_with() {
    let scoring = Scoring::start(&["--connections", "2"]);
    let rows = 1_500_000;
    let data = [5.1f64, 3.5, 1.4, 0.2].map(f64::to_le_bytes).concat().repeat(rows);
    let parameters = json!({"binary_data_size": data.len()});
    let input = json!({"name": "X", "shape": [rows, 4], "datatype": "FP64", "parameters": parameters});
    let header = json!({"inputs": [input]}).to_string();
    let request = reqwest::Client::new()
        .post(format!("{}/v2/models/iris/infer", scoring.url))
        .header("inference-header-content-length", header.len())
        .body([header.into_bytes(), data].concat());
    let policy = scoring.world.policy_file();
    let text = fs::read_to_string(&policy).unwrap();
    let revoke = async {
        tokio::time::sleep(Duration::from_millis(800)).await;
        let revoked = cloister(&["policy", "revoke", &policy.display().to_string(), "simulated", "--reason", "a test"]);
        assert_eq!(revoked.exit, 0, "{}", revoked.stderr);
        scoring.hang_up(|report| report["verified"] == false).await
    };
    let (answer, _) = tokio::join!(request.send(), revoke);
    let answer = answer.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.text().await.unwrap().contains("\"code\":\"closed\""));
    // What was answered until then has left its receipts.
    let has_receipts =
        |report: &Value| report["evidence"].as_array().unwrap().iter().any(|piece| piece["receipts"] != 0);
    scoring.hang_up(has_receipts).await;

    fs::write(&policy, "no policy").unwrap();
    scoring.hang_up(|report| report["error"]["code"] != "release_revoked").await;
    assert_eq!(scoring.get("/v2/health/ready").await.0, StatusCode::SERVICE_UNAVAILABLE);
    fs::write(&policy, text).unwrap();
    scoring.hang_up(|report| report["verified"] == true).await;
    assert_eq!(scoring.infer(&flowers()).await.0, 200);
}

/// With `--json` the object is there as soon as requests are answered.
#[test]
fn programs_read_where_it_listens() {
    let world = World::start(Link::Tcp).unwrap();
    let (endpoint, policy) = (world.endpoint.to_string(), world.policy_file().display().to_string());
    let arguments = ["gateway", &endpoint, "--policy", &policy, "--listen", "127.0.0.1:0", "--json"];
    let gateway = gateway(&arguments);
    let object: Value = serde_json::from_str(&gateway.first_line).unwrap();
    assert_eq!((&object["verified"], &object["simulated"]), (&json!(true), &json!(true)));
    assert!(object["listening"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{object}");
    assert_eq!(gateway.terminate().unwrap(), Some(0));
}
