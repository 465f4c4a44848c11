//! The command line as a newcomer meets it: exit codes, one JSON object, and texts that say what to do.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::LazyLock,
    time::Duration,
};

use cloister_attestation::{Policy, Release, Timestamp};
use cloister_e2e::{
    build,
    hostile::{Cheat, Hostile, identity, trusting},
    iris,
    world::{Link, World},
};
use cloister_simulated_enclave::{Authority, Identity};
use serde_json::Value;

static CLOISTER: LazyLock<PathBuf> = LazyLock::new(|| build::executable("cloister-client").unwrap());

struct Outcome {
    exit: i32,
    stdout: String,
    stderr: String,
}

fn cloister(arguments: &[&str]) -> Outcome {
    let Output { status, stdout, stderr } = Command::new(&*CLOISTER).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome { exit: status.code().unwrap(), stdout: text(stdout), stderr: text(stderr) }
}

impl Outcome {
    /// The one JSON object on stdout.
    fn json(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "{}{}", self.stdout, self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// Asserts exit code and error code, in both forms of output; returns message and remedy.
    fn assert_fails(arguments: &[&str], exit: i32, code: &str) -> (String, String) {
        let people = cloister(arguments);
        assert_eq!(people.exit, exit, "{arguments:?}: {}", people.stderr);
        assert!(people.stderr.contains("what to do:"), "{}", people.stderr);
        let machine = cloister(&[arguments, &["--json"]].concat());
        assert_eq!(machine.exit, exit);
        let error = machine.json()["error"].clone();
        assert_eq!(error["code"], code, "{error}");
        let text = |field: &str| error[field].as_str().unwrap().to_owned();
        assert!(people.stderr.contains(&format!("code: {code}")), "{}", people.stderr);
        assert!(!text("message").is_empty() && !text("remedy").is_empty());
        (text("message"), text("remedy"))
    }
}

fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path.display().to_string()
}

#[test]
fn alone_it_prints_three_lines_to_go_on_with() {
    let alone = cloister(&[]);
    assert_eq!((alone.exit, alone.stdout.lines().count()), (0, 3));
    assert!(alone.stdout.contains("cloister verify") && alone.stdout.contains("cloister infer"));
    assert_eq!(cloister(&["frobnicate"]).exit, 2);
    assert_eq!(cloister(&["frobnicate", "--json"]).json()["error"]["code"], "usage");
    assert_eq!(cloister(&["--help"]).exit, 0);
    let unreadable = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff");
    assert_eq!(
        Command::new(&*CLOISTER).args([OsStr::new("verify"), unreadable]).output().unwrap().status.code(),
        Some(2)
    );
}

#[test]
fn a_session_by_hand_verifies_infers_and_proves() {
    let world = World::start(Link::Tcp).unwrap();
    let (endpoint, policy) = (world.endpoint.to_string(), world.policy_file().display().to_string());
    let verified = cloister(&["verify", &endpoint, "--policy", &policy, "--json"]);
    assert_eq!(verified.exit, 0, "{}", verified.stderr);
    assert!(verified.stderr.contains("SIMULATED"));
    let object = verified.json();
    for (field, expected) in
        [("verified", Value::from(true)), ("simulated", true.into()), ("channel", "tls-exporter".into())]
    {
        assert_eq!(object[field], expected, "{field}");
    }
    let steps = object["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 12);
    assert!(steps.iter().enumerate().all(|(index, step)| step["n"] == index + 1 && step["ok"] == true));
    assert_eq!(object["models"][0]["accepted"], true);
    assert!(cloister(&["models", &endpoint, "--policy", &policy]).stdout.contains("iris"));

    let (input, evidence) =
        (iris::file("iris.csv").display().to_string(), world.folder().join("evidence").display().to_string());
    let out = world.folder().join("out.csv").display().to_string();
    let base = ["infer", &endpoint, "--policy", &policy, "--model", "iris", "--in", &input];
    let inferred =
        cloister(&[&base[..], &["--labels", "species", "--evidence", &evidence, "--out", &out, "--json"]].concat());
    assert_eq!(inferred.exit, 0, "{}", inferred.stderr);
    assert_eq!(inferred.json()["rows"], 150);
    assert!(inferred.json()["accuracy"].as_f64().unwrap() > 0.9);
    let rows = fs::read_to_string(&out).unwrap();
    assert!(rows.starts_with("label,certain,logit:setosa,"), "{rows}");
    assert_eq!(rows.lines().count(), 151);
    let to_stdout = cloister(&[&base[..], &["--json"]].concat());
    assert_eq!(to_stdout.json()["predictions"].as_array().unwrap().len(), 150);
    let as_json = cloister(&[&base[..], &["--format", "json"]].concat());
    assert_eq!(serde_json::from_str::<Value>(&as_json.stdout).unwrap()[0]["label"], "setosa");

    let receipts = cloister(&["verify-receipt", &evidence, "--policy", &policy]);
    assert_eq!(receipts.exit, 0, "{}", receipts.stderr);
    assert!(receipts.stdout.contains("does not prove"));
    assert!(receipts.stderr.contains("SIMULATED"));
    let mut changed = fs::read(&evidence).unwrap();
    *changed.last_mut().unwrap() ^= 1;
    let changed = write(world.folder(), "changed", changed);
    assert_eq!(cloister(&["verify-receipt", &changed, "--policy", &policy]).exit, 3);
    assert_eq!(cloister(&["verify-receipt", "/nonexistent", "--policy", &policy]).exit, 6);

    // A reader that goes away ends the program quietly.
    let mut child = Command::new(&*CLOISTER).args(base).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let closed = child.wait_with_output().unwrap();
    assert_eq!(closed.status.code(), Some(0));
    assert!(!String::from_utf8_lossy(&closed.stderr).contains("panicked"));
    // But a refusal stays one, whoever reads it.
    let mut child = Command::new(&*CLOISTER)
        .args(["verify-receipt", &changed, "--policy", &policy, "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn the_errors_that_newcomers_meet_say_what_to_do() {
    let world = World::start(Link::Tcp).unwrap();
    let (endpoint, folder) = (world.endpoint.to_string(), world.folder());
    let policy = world.policy().unwrap();
    let verify =
        |policy: &str, exit, code: &str| Outcome::assert_fails(&["verify", &endpoint, "--policy", policy], exit, code);

    // No policy.
    let (_, remedy) = Outcome::assert_fails(&["verify", &endpoint], 2, "no_policy");
    assert!(remedy.contains("--policy FILE"));

    // Policy expired.
    let text = policy.to_toml();
    let expires = text.lines().find(|line| line.starts_with("expires")).unwrap();
    let expired = write(folder, "expired.toml", text.replace(expires, "expires = 2020-01-01T00:00:00Z"));
    let (message, _) = verify(&expired, 3, "policy_expired");
    assert!(message.contains("2020-01-01"), "{message}");

    // PCR0 differs: both values, and the nearest release.
    let mut other = policy.clone();
    let genuine = policy.releases()[0].clone();
    let pcrs = [[0x5a; 48], genuine.pcrs[1], genuine.pcrs[2]];
    other.add_release(Release { pcrs, ..genuine.clone() }).unwrap();
    let (message, _) = verify(&write(folder, "other.toml", other.to_toml()), 3, "pcr_mismatch");
    let hex = |pcr: &[u8]| pcr.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert!(message.contains(&hex(&[0x5a; 48])) && message.contains(&hex(&genuine.pcrs[0])), "{message}");
    assert!(message.contains(&genuine.name), "{message}");

    // A simulated root where the policy asks for AWS's.
    let mut aws = Policy::new(Timestamp::now().plus(Duration::from_secs(3600)));
    aws.add_release(genuine).unwrap();
    let (message, remedy) = verify(&write(folder, "aws.toml", aws.to_toml()), 3, "root_mismatch");
    assert!(format!("{message} {remedy}").to_lowercase().contains("simulated"), "{message} {remedy}");

    // A policy that is none.
    verify(&write(folder, "broken.toml", "version = 1\nsurprise = true\n"), 6, "bad_policy");
    Outcome::assert_fails(&["verify", &endpoint, "--policy", "/nonexistent"], 6, "file");

    // Nobody there.
    let policy = world.policy_file().display().to_string();
    Outcome::assert_fails(&["verify", "https://127.0.0.1:1", "--policy", &policy], 5, "unreachable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_is_named() {
    let authority = Authority::ephemeral();
    let bundle = iris::import().unwrap().bundle;
    let folder = tempfile::tempdir().unwrap();
    let policy = write(folder.path(), "policy.toml", trusting(&authority, &bundle).to_toml());
    for (minutes, code) in [(-10_i64, "document_too_old"), (10, "clock_or_document_in_future")] {
        let nsm = authority.enclave(Identity::random()).with_clock(move || {
            let shift = Duration::from_secs(60 * minutes.unsigned_abs());
            if minutes < 0 { Timestamp::now().minus(shift) } else { Timestamp::now().plus(shift) }
        });
        let hostile = Hostile::start(nsm, identity().unwrap(), &bundle, Cheat::Nothing).await.unwrap();
        let endpoint = hostile.endpoint().unwrap().to_string();
        let policy = policy.clone();
        let (message, remedy) = tokio::task::spawn_blocking(move || {
            Outcome::assert_fails(&["verify", &endpoint, "--policy", &policy], 3, code)
        })
        .await
        .unwrap();
        assert!(remedy.contains("clock"), "{message} {remedy}");
    }
}

#[test]
fn bad_rows_are_refused_with_line_and_column() {
    let world = World::start(Link::Tcp).unwrap();
    let (endpoint, policy) = (world.endpoint.to_string(), world.policy_file().display().to_string());
    let header = iris::FEATURES.join(",");
    let table = |rows: &str| write(world.folder(), "rows.csv", format!("{header}\n5.1,3.5,1.4,0.2\n{rows}"));
    let infer =
        |input: &str| ["infer", &endpoint, "--policy", &policy, "--model", "iris", "--in", input].map(str::to_owned);
    let refused = |input: &str, code: &str, needles: &[&str]| {
        let arguments = infer(input);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (message, _) = Outcome::assert_fails(&arguments, 6, code);
        assert!(needles.iter().all(|needle| message.contains(needle)), "{message}");
    };
    refused(&table("5.1,3.5,1.4\n"), "bad_csv", &["line 3", "3 cells"]);
    refused(&table("5.1,,1.4,0.2\n"), "missing_cell", &["line 3", "sepal width"]);
    refused(&table("5.1,wide,1.4,0.2\n"), "not_a_number", &["line 3", "sepal width", "wide"]);
    refused(&table("5.1,NaN,1.4,0.2\n"), "not_finite", &["line 3", "NaN"]);
    refused(&table("5.1,inf,1.4,0.2\n"), "not_finite", &["line 3", "inf"]);
    refused(&table("5.1,3.5,1.4,99\n"), "out_of_range", &["line 3", "petal width", "99"]);
    refused(&write(world.folder(), "columns.csv", "a,b\n1,2\n"), "wrong_columns", &["petal width", r#""a", "b""#]);
    refused(&write(world.folder(), "empty.csv", ""), "empty_table", &[]);
    refused("/nonexistent", "file", &[]);

    let clipped = infer(&table("5.1,3.5,1.4,99\n"));
    let clipped: Vec<&str> = clipped.iter().map(String::as_str).chain(["--clip", "--json"]).collect();
    let clipped = cloister(&clipped).json();
    assert_eq!((&clipped["clipped"], &clipped["uncertain"]), (&1.into(), &1.into()));
    assert_eq!(
        clipped["predictions"][1]["certain"], false,
        "a moved value says nothing certain about the one in the file"
    );
    assert_eq!(clipped["predictions"][0]["certain"], true);

    // A bad row after the first request: nothing is sent, and nothing of the outputs is lost.
    let out = write(world.folder(), "earlier.csv", "kept");
    let many = format!("{}5.1,3.5,1.4,99\n", "5.1,3.5,1.4,0.2\n".repeat(400));
    let arguments = infer(&table(&many));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(["--out", &out]).collect();
    let (message, remedy) = Outcome::assert_fails(&arguments, 6, "out_of_range");
    assert!(message.contains("line 403") && remedy.contains("--clip"), "{message} {remedy}");
    assert_eq!(
        cloister(&[&arguments[..], &["--json"]].concat()).json()["verified"],
        true,
        "it was not the evaluator's fault"
    );
    assert_eq!(fs::read_to_string(&out).unwrap(), "kept");
    let unwritable: Vec<&str> = arguments.iter().copied().take(8).chain(["--out", "/nonexistent/out"]).collect();
    Outcome::assert_fails(&unwritable, 6, "file");

    let input = table("");
    let no_column = ["infer", &endpoint, "--policy", &policy, "--model", "iris", "--in", &input, "--labels", "Species"];
    Outcome::assert_fails(&no_column, 6, "no_column");
    let unknown = ["infer", &endpoint, "--policy", &policy, "--model", "wine", "--in", &input];
    let (message, _) = Outcome::assert_fails(&unknown, 6, "unknown_model");
    assert!(message.contains("wine") && message.contains("iris"), "{message}");
}

#[test]
fn models_and_policies_are_made_shown_and_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (onnx, data) = (iris::file("iris.onnx").display().to_string(), iris::file("iris.csv").display().to_string());
    let bundle = path("iris.cloister");
    let imported = cloister(&["model", "import", &onnx, "--out", &bundle, "--ranges", &data, "--json"]);
    assert_eq!(imported.exit, 0, "{}", imported.stderr);
    assert!(imported.json()["bound"].as_f64().unwrap() <= 1e-3);
    let inspected = cloister(&["model", "inspect", &bundle, "--json"]);
    assert_eq!(inspected.json()["digest"], imported.json()["digest"]);
    assert_eq!(cloister(&["model", "import", &onnx, "--out", &path("scaler.cloister")]).exit, 0);

    let swapped = fs::read_to_string(&data)
        .unwrap()
        .lines()
        .map(|line| {
            let mut cells: Vec<&str> = line.split(',').collect();
            cells.swap(0, 3);
            cells.join(",") + "\n"
        })
        .collect::<String>();
    let swapped = write(folder.path(), "swapped.csv", swapped);
    let import_swapped = ["model", "import", &onnx, "--out", &path("x.cloister"), "--ranges", &swapped];
    let (message, _) = Outcome::assert_fails(&import_swapped, 6, "mean_outside");
    assert!(message.contains("petal width") && message.contains("swapped.csv"), "{message}");

    let mut changed = fs::read(&bundle).unwrap();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    let changed = write(folder.path(), "changed.cloister", changed);
    for (file, onnx_too) in [(changed.as_str(), false), ("/nonexistent", true), (data.as_str(), true)] {
        assert_eq!(cloister(&["model", "inspect", file]).exit, 6, "{file}");
        if onnx_too {
            assert_eq!(cloister(&["model", "import", file, "--out", &path("x.cloister")]).exit, 6, "{file}");
        }
    }
    let impossible = ["model", "import", &onnx, "--out", &path("x.cloister"), "--precision", "1e-15"];
    let (message, _) = Outcome::assert_fails(&impossible, 6, "precision");
    assert!(message.contains("1e-15"), "{message}");

    let policy = path("policy.toml");
    assert_eq!(cloister(&["policy", "new", &policy]).exit, 0);
    assert_eq!(cloister(&["policy", "new", &policy]).exit, 6, "an existing policy is not overwritten");
    let pcr = "ab".repeat(48);
    let json = format!(
        r#"{{"Measurements":{{"HashAlgorithm":"Sha384 {{ ... }}","PCR0":"{pcr}","PCR1":"{pcr}","PCR2":"{pcr}"}}}}"#
    );
    let measurements = write(folder.path(), "measurements.json", json);
    let add = ["policy", "add", &policy, "--measurements", &measurements, "--name", "1.0.0", "--model", &bundle];
    assert_eq!(cloister(&add).exit, 0);
    let shown = cloister(&["policy", "show", &policy, "--json"]).json();
    assert_eq!((&shown["releases"][0]["pcr0"], &shown["models"][0]["name"]), (&pcr.into(), &"iris".into()));
    assert_eq!(shown["simulated"], false);
    assert_eq!((&shown["channel"], &shown["max_age_s"]), (&"required".into(), &300.into()));
    let ignored = ["policy", "add", &policy, "--model", &bundle, "--not-after", "2030-01-01T00:00:00Z"];
    assert_eq!(cloister(&ignored).exit, 2, "an end date without a release is not silently dropped");
    let zero = write(
        folder.path(),
        "zero.json",
        format!(r#"{{"Measurements":{{"PCR0":"{0}","PCR1":"{0}","PCR2":"{0}"}}}}"#, "00".repeat(48)),
    );
    assert_eq!(cloister(&["policy", "add", &policy, "--measurements", &zero, "--name", "debug"]).exit, 6);
}

#[test]
fn documents_are_verified_in_files() {
    let folder = tempfile::tempdir().unwrap();
    let garbage = write(folder.path(), "garbage", b"not a document");
    Outcome::assert_fails(&["verify-document", "/nonexistent"], 6, "file");
    assert_eq!(cloister(&["verify-document", &garbage]).exit, 3);

    let authority = Authority::ephemeral();
    let bundle = iris::import().unwrap().bundle;
    let policy = write(folder.path(), "policy.toml", trusting(&authority, &bundle).to_toml());
    let document = |identity: Identity| authority.enclave(identity).document(None, None, None).unwrap();
    let good = write(folder.path(), "good", document(Identity::random()));
    let debug = write(folder.path(), "debug", document(Identity::random().debug()));
    Outcome::assert_fails(&["verify-document", &good], 3, "root_mismatch");
    let accepted = cloister(&["verify-document", &good, "--policy", &policy]);
    assert_eq!(accepted.exit, 0, "{}", accepted.stderr);
    assert!(accepted.stderr.contains("SIMULATED"));
    Outcome::assert_fails(&["verify-document", &debug, "--policy", &policy], 3, "debug_mode");

    let vectors = build::workspace().join("../shared/vectors/attestation");
    if !vectors.exists() {
        eprintln!("SKIPPED: no AWS-signed documents at {}", vectors.display());
        return;
    }
    let aws = vectors.join("prod-2025-12-25-indef.cose").display().to_string();
    let old = cloister(&["verify-document", &aws]);
    assert_eq!(old.exit, 3, "expired now");
    let then = cloister(&["verify-document", &aws, "--at", "document"]);
    assert_eq!(then.exit, 0, "{}", then.stderr);
    assert!(then.stdout.contains("NO POLICY WAS APPLIED"));
    let debug = vectors.join("debug-2025-12-25-indef.cose").display().to_string();
    Outcome::assert_fails(&["verify-document", &debug, "--at", "document"], 3, "debug_mode");
}
