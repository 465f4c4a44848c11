//! The command line as a newcomer meets it: exit codes, one JSON object, and texts that say what to do.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::{
    ffi::OsStr,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::LazyLock,
    time::Duration,
};

use cloister_attestation::{
    Channel, ChannelRule, Evidence, Limits, Manifest, ManifestModel, Nonce, Pins, Policy, PolicyModel, Receipt,
    ReceiptKey, Release, Sha384, Statement, Timestamp,
};
use cloister_e2e::{
    build,
    hostile::{Cheat, Hostile, identity, trusting},
    iris,
    world::{Link, World},
};
use cloister_enclave::{Attester, Claims};
use cloister_simulated_enclave::{Authority, Identity, SimulatedNsm, policy as simulated_policy};
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

/// Asserts that exactly these steps are told, each with both sides, and all but the last as passed.
fn assert_steps_are_complete(object: &Value, numbers: &[u64]) {
    let steps = object["steps"].as_array().unwrap();
    assert!(steps.iter().map(|step| step["n"].as_u64().unwrap()).eq(numbers.iter().copied()), "{steps:?}");
    for (step, number) in steps.iter().zip(numbers) {
        assert_eq!(step["ok"], number != numbers.last().unwrap() || object["error"].is_null(), "{step}");
        let filled = |field: &str| step[field].as_str().is_some_and(|text| !text.is_empty());
        assert!(["name", "expected", "detail"].into_iter().all(filled), "{step}");
    }
}

/// Asserts that nothing but hexadecimal numbers and paths is wider than a terminal of 80 columns.
fn assert_fits_a_terminal(text: &str) {
    let wide = text.lines().filter(|line| line.chars().count() > 80);
    for line in wide {
        assert_eq!(line.split_whitespace().count(), 1, "{line}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
    assert_steps_are_complete(&object, &(1..=12).collect::<Vec<_>>());
    let verbose = cloister(&["verify", &endpoint, "--policy", &policy, "-v"]);
    for told in ["11  ok  statement\n          expected  ", "\n          found     ", "the nonce that was sent"] {
        assert!(verbose.stdout.contains(told), "{}", verbose.stdout);
    }
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
    let renamed = fs::read_to_string(&data).unwrap().replacen("sepal length", "sepal\u{2028}\u{202e}length", 1);
    let renamed = write(folder.path(), "renamed.csv", renamed);
    let told = cloister(&["model", "import", &onnx, "--out", &path("x.cloister"), "--ranges", &renamed]);
    assert!(told.stdout.contains("  sepal\\u{2028}\\u{202e}length"), "{}{}", told.stdout, told.stderr);
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
        writeln!(io::stderr(), "SKIPPED: no AWS-signed documents at {}", vectors.display()).unwrap();
        return;
    }
    let aws = vectors.join("prod-2025-12-25-indef.cose").display().to_string();
    let old = cloister(&["verify-document", &aws]);
    assert_eq!(old.exit, 3, "expired now");
    let then = cloister(&["verify-document", &aws, "--at", "document"]);
    assert_eq!(then.exit, 0, "{}", then.stderr);
    assert!(then.stdout.contains("NO POLICY WAS APPLIED"));
    assert!(then.stdout.contains("9-11    not asked") && !then.stdout.contains("12.8"), "{}", then.stdout);
    let debug = vectors.join("debug-2025-12-25-indef.cose").display().to_string();
    Outcome::assert_fails(&["verify-document", &debug, "--at", "document"], 3, "debug_mode");
}

const HELP: [&[&str]; 13] = [
    &["verify"],
    &["models"],
    &["infer"],
    &["verify-document"],
    &["verify-receipt"],
    &["model", "import"],
    &["model", "inspect"],
    &["policy", "new"],
    &["policy", "add"],
    &["policy", "revoke"],
    &["policy", "pin"],
    &["policy", "show"],
    &["policy", "check"],
];

#[test]
fn every_command_shows_how_it_is_used() {
    for command in HELP {
        let help = cloister(&[command, &["--help"]].concat());
        let examples = help.stdout.split("Examples:\n").nth(1).unwrap_or_default();
        assert!(examples.contains(&format!("cloister {}", command.join(" "))), "{}", help.stdout);
    }
    for command in ["verify", "verify-document", "verify-receipt"] {
        assert!(cloister(&[command, "--help"]).stdout.contains("attestation/VERIFICATION.md"), "{command}");
    }
}

#[test]
fn steps_are_told_with_both_sides_and_refusals_with_what_passed() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::ephemeral();
    let good = simulated_policy(&authority, &[]);
    let mut other = good.clone();
    let [_, pcr1, pcr2] = Identity::measurements();
    let release = Release { pcrs: [[0x5a; 48], pcr1, pcr2], ..good.releases()[0].clone() };
    other.add_release(release).unwrap();
    let (policy, other) = (write(folder.path(), "p", good.to_toml()), write(folder.path(), "o", other.to_toml()));
    let nsm = authority.enclave(Identity::random());
    let document = write(folder.path(), "d", nsm.document(Some(&[7; 32]), Some(b""), None).unwrap());

    let base = ["verify-document", &document, "--policy", &policy];
    let told = cloister(&base).stdout;
    for part in
        ["nonce       32 bytes\n", "public_key  empty\n", "user_data   absent\n", "PCR0        the whole image\n"]
    {
        assert!(told.contains(part), "{told}");
    }
    assert!(told.contains("   1  ok  size          ") && told.contains("  12  ok  policy        PCR0 "), "{told}");
    assert!(told.contains("9-11    not asked") && told.contains("12.8-9  not asked"), "{told}");
    assert!(!told.contains("expected"), "{told}");
    let told = cloister(&[&base[..], &["-v"]].concat()).stdout;
    assert!(told.contains(&format!("nonce       32 bytes\n    {}\n", "07".repeat(32))), "{told}");
    assert!(told.contains("   1  ok  size\n          expected  at most 16384 bytes\n          found     "), "{told}");
    assert_fits_a_terminal(&told);
    let object = cloister(&[&base[..], &["--json"]].concat()).json();
    assert_steps_are_complete(&object, &[1, 2, 3, 4, 5, 6, 7, 8, 12]);
    assert_eq!(object["not_asked"], Value::from(vec!["9-11", "12.8-9"]));
    assert_eq!((&object["public_key"], &object["user_data"]), (&"".into(), &Value::Null));
    assert_eq!(object["region"], nsm.identity().region.as_str());

    let base = ["verify-document", &document, "--policy", &other];
    Outcome::assert_fails(&base, 3, "pcr_mismatch");
    let object = cloister(&[&base[..], &["--json"]].concat()).json();
    assert_steps_are_complete(&object, &[1, 2, 3, 4, 5, 6, 7, 8, 12]);
    assert_eq!(object["steps"][8]["detail"], object["error"]["message"]);
    let refused = cloister(&base).stderr;
    assert!(refused.contains("   1  ok  size          "), "{refused}");
    assert!(refused.contains("  12 FAIL policy\n\nerror at step 12 (policy): "), "{refused}");
    for side in [[0x5a; 48], Identity::measurements()[0]] {
        assert!(refused.contains(&format!("\n    {}\n", hex(&side))), "{refused}");
    }
    assert!(refused.contains("  to pass: a release of the policy (simulated)"), "{refused}");
    assert_fits_a_terminal(refused.split("12 FAIL").nth(1).unwrap());
    let refused = cloister(&[&base[..], &["-v"]].concat()).stderr;
    assert!(refused.contains("          expected  at most 16384 bytes"), "{refused}");
    assert_fits_a_terminal(&refused);
}

/// Policies in a folder, and what the command line says of them.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        write(self.folder.path(), name, content)
    }

    /// A policy for 90 days with the releases `1.0` and `1.1`, and a model.
    fn policy(&self, change: impl FnOnce(&mut Policy)) -> String {
        let mut policy = Policy::new(Timestamp::now().plus(90 * DAY));
        for (name, byte) in [("1.0", 0x10), ("1.1", 0x11)] {
            policy.add_release(release(name, byte)).unwrap();
        }
        policy.add_model(PolicyModel { name: "iris".to_owned(), digest: Sha384([1; 48]) }).unwrap();
        change(&mut policy);
        self.write("policy.toml", policy.to_toml())
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn release(name: &str, byte: u8) -> Release {
    Release { name: name.to_owned(), pcrs: [[byte; 48]; 3], not_after: None, revoked: None }
}

/// What nitro-cli prints of an image.
fn measurements(pcr0: u8, pcr1: u8) -> String {
    let [pcr0, pcr1] = [pcr0, pcr1].map(|byte| hex(&[byte; 48]));
    format!(
        r#"{{ "Measurements": {{ "HashAlgorithm": "Sha384 {{ ... }}", "PCR0": "{pcr0}", "PCR1": "{pcr1}", "PCR2": "{pcr1}" }} }}"#
    )
}

#[test]
fn a_revocation_is_written_once_and_for_good() {
    let desk = Desk::new();
    let policy = desk.policy(|_| ());
    let revoke =
        |release: &'static str, reason: &'static str| ["policy", "revoke", &policy, release, "--reason", reason];

    let (message, _) = Outcome::assert_fails(&revoke("2.0", "leaks"), 6, "unknown_release");
    assert!(message.contains("`1.0`, `1.1`"), "{message}");
    assert_eq!(cloister(&["policy", "revoke", &policy, "1.0"]).exit, 2, "a reason is required");
    assert_eq!(cloister(&revoke("1.0", "")).exit, 2);
    Outcome::assert_fails(&revoke("1.0", "two\nlines"), 6, "policy_unprintable");

    let revoked = cloister(&revoke("1.0", "leaks"));
    assert_eq!(revoked.exit, 0, "{}", revoked.stderr);
    assert!(revoked.stdout.contains("REVOKED: release 1.0: leaks"), "{}", revoked.stdout);
    assert_eq!(revoked.stderr, "", "nothing of the file was lost");
    let written = fs::read_to_string(&policy).unwrap();
    assert_eq!(Policy::parse(&written).unwrap().releases()[0].revoked.as_deref(), Some("leaks"));

    let again = cloister(&[&revoke("1.0", "leaks")[..], &["--json"]].concat());
    assert_eq!((again.exit, &again.json()["changed"]), (0, &false.into()));
    let (message, _) = Outcome::assert_fails(&revoke("1.0", "it is slow"), 6, "already_revoked");
    assert!(message.contains("leaks"), "{message}");
    assert_eq!(fs::read_to_string(&policy).unwrap(), written);

    let build = desk.write("build.json", measurements(0x10, 0x10));
    let renamed = ["policy", "add", &policy, "--measurements", &build, "--name", "1.0 again"];
    Outcome::assert_fails(&renamed, 6, "policy_revoked");
}

#[test]
fn a_policy_is_written_whole_or_not_at_all() {
    let desk = Desk::new();
    let policy = desk.policy(|_| ());
    let before = fs::read_to_string(&policy).unwrap();
    let full = Command::new("sh")
        .args(["-c", r#"trap '' XFSZ; ulimit -f 0; exec "$0" "$@""#])
        .arg(&*CLOISTER)
        .args(["policy", "revoke", &policy, "1.0", "--reason", "leaks"])
        .output()
        .unwrap();
    assert_eq!(full.status.code(), Some(6), "{}", String::from_utf8_lossy(&full.stderr));
    assert_eq!(fs::read_to_string(&policy).unwrap(), before);
    assert_eq!(fs::read_dir(desk.folder.path()).unwrap().count(), 1, "no draft is left");

    let link = desk.folder.path().join("link.toml");
    std::os::unix::fs::symlink(&policy, &link).unwrap();
    let revoke = ["policy", "revoke", link.to_str().unwrap(), "1.0", "--reason", "leaks"];
    assert_eq!(cloister(&revoke).exit, 0);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_ne!(fs::read_to_string(&policy).unwrap(), before, "what the link points to was changed");
}

#[test]
fn changes_at_the_same_time_are_all_kept() {
    let desk = Desk::new();
    let names = |kind: &str| (0..20).map(|index| format!("{kind}-{index}")).collect::<Vec<_>>();
    let (old, new) = (names("old"), names("new"));
    let policy = desk.policy(|policy| {
        for (name, byte) in old.iter().zip(0x20..) {
            policy.add_release(release(name, byte)).unwrap();
        }
    });
    let link = desk.folder.path().join("link.toml").display().to_string();
    std::os::unix::fs::symlink(&policy, &link).unwrap();
    let start = |arguments: &[&str]| {
        Command::new(&*CLOISTER)
            .arg("policy")
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut children = Vec::new();
    for ((old, new), byte) in old.iter().zip(&new).zip(0x40..) {
        let build = desk.write(&format!("{new}.json"), measurements(byte, byte));
        children.push(start(&["revoke", &policy, old, "--reason", "leaks"]));
        children.push(start(&["add", &link, "--measurements", &build, "--name", new]));
    }
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let policy = Policy::parse(&fs::read_to_string(&policy).unwrap()).unwrap();
    let revoked = |name: &str| policy.releases().iter().find(|release| release.name == name).unwrap().revoked.is_some();
    assert!(old.iter().all(|name| revoked(name)), "no revocation is lost");
    assert!(!new.iter().any(|name| revoked(name)), "every addition is there");
}

#[test]
fn lost_comments_are_announced() {
    let desk = Desk::new();
    let policy = desk.policy(|_| ());
    let commented = fs::read_to_string(&policy).unwrap() + "# ask Ada before the next one\n";
    let policy = desk.write("commented.toml", &commented);
    let unchanged = cloister(&["policy", "revoke", &policy, "2.0", "--reason", "leaks"]);
    assert_eq!((unchanged.exit, fs::read_to_string(&policy).unwrap()), (6, commented));
    let revoked = cloister(&["policy", "revoke", &policy, "1.0", "--reason", "leaks"]);
    assert!(revoked.stderr.contains("comments and layout of your own are not kept"), "{}", revoked.stderr);
}

#[test]
fn a_policy_is_checked_for_what_it_accepts_today() {
    let desk = Desk::new();
    let check = |policy: &str| cloister(&["policy", "check", policy, "--json"]);
    let warned = |object: &Value| -> Vec<String> {
        let warnings = object["warnings"].as_array().unwrap();
        warnings.iter().map(|warning| warning["code"].as_str().unwrap().to_owned()).collect()
    };

    let sound = check(&desk.policy(|_| ()));
    assert_eq!((sound.exit, sound.stderr.as_str()), (0, ""));
    let sound = sound.json();
    assert_eq!((&sound["accepted"], &sound["releases"]), (&true.into(), &vec!["1.0", "1.1"].into()));
    assert_eq!(warned(&sound), [""; 0]);

    let refused = |change: fn(&mut Policy), code: &str| {
        let policy = desk.policy(change);
        let (message, _) = Outcome::assert_fails(&["policy", "check", &policy], 3, code);
        assert_eq!(check(&policy).json()["accepted"], false);
        message
    };
    refused(|policy| *policy = Policy::new(Timestamp::now().plus(90 * DAY)), "empty_policy");
    refused(|policy| *policy = Policy::new(Timestamp::now().minus(DAY)), "policy_expired");
    let message = refused(
        |policy| {
            policy.revoke("1.0", "leaks").unwrap();
            let not_after = Some(Timestamp::now().minus(DAY));
            policy.add_release(Release { not_after, ..release("1.1", 0x11) }).unwrap();
        },
        "no_open_release",
    );
    assert!(message.contains("1.0 is revoked: leaks") && message.contains("1.1 ended at "), "{message}");

    let doubtful = check(&desk.policy(|policy| {
        let not_after = Some(Timestamp::now().minus(DAY));
        policy.add_release(Release { not_after, ..release("0.9", 9) }).unwrap();
        policy.add_release(release("1.0 too", 0x10)).unwrap();
        let pins = Pins { module_id: Some("my enclave".to_owned()), ..Pins::default() };
        *policy = policy.clone().with_channel(ChannelRule::Optional).with_pins(pins).unwrap();
    }));
    assert_eq!(doubtful.exit, 0, "warnings refuse nothing");
    assert_eq!(warned(&doubtful.json()), ["channel_optional", "release_ended", "same_build", "pin_fits_nothing"]);
    assert_eq!(doubtful.stderr.lines().filter(|line| line.starts_with("warning: ")).count(), 4, "{}", doubtful.stderr);
    let simulated = desk.write("simulated.toml", simulated_policy(&Authority::ephemeral(), &[]).to_toml());
    assert_eq!(warned(&check(&simulated).json()), ["simulated_root", "no_model"]);

    // At another time: near the end, after it, and long before.
    let policy = desk.policy(|_| ());
    let at = |days: u32| {
        cloister(&["policy", "check", &policy, "--json", "--at", &Timestamp::now().plus(DAY * days).to_string()])
    };
    assert_eq!((at(80).exit, warned(&at(80).json())), (0, vec!["expires_soon".to_owned()]));
    assert_eq!((at(91).exit, &at(91).json()["error"]["code"]), (3, &"policy_expired".into()));
    assert_eq!(cloister(&["policy", "check", &policy, "--at", "document"]).exit, 2, "of which document?");
}

#[test]
fn a_policy_is_asked_about_a_build_and_a_document() {
    let desk = Desk::new();
    let policy = desk.policy(|_| ());
    let ask = |build: &str| ["policy", "check", &policy, "--measurements", build].map(str::to_owned);
    let known = desk.write("known.json", measurements(0x11, 0x11));
    let accepted = cloister(&["policy", "check", &policy, "--measurements", &known, "--json"]);
    assert_eq!((accepted.exit, &accepted.json()["release"]), (0, &"1.1".into()), "{}", accepted.stderr);
    let near = ask(&desk.write("near.json", measurements(0x99, 0x11)));
    let (message, _) = Outcome::assert_fails(&near.each_ref().map(String::as_str), 3, "pcr_mismatch");
    assert!(message.contains("PCR0") && message.contains("`1.1`") && message.contains(&"99".repeat(48)), "{message}");
    let none = ask(&desk.write("none.json", "{}"));
    Outcome::assert_fails(&none.each_ref().map(String::as_str), 6, "no_measurements");

    let authority = Authority::ephemeral();
    let old = Timestamp::now().minus(40 * DAY);
    let nsm = authority.enclave(Identity::random()).with_clock(move || old);
    let document = desk.write("old.cose", nsm.document(None, None, None).unwrap());
    let policy = desk.write("simulated.toml", simulated_policy(&authority, &[]).to_toml());
    let ask = ["policy", "check", &policy, "--document", &document];
    Outcome::assert_fails(&ask, 3, "document_too_old");
    let then = cloister(&[&ask[..], &["--at", "document"]].concat());
    assert_eq!(then.exit, 0, "{}", then.stderr);
    assert!(then.stdout.contains("12.8-9  not asked: channel and max_age"), "{}", then.stdout);
    let accepted = cloister(&[&ask[..], &["--at", &old.to_string(), "--json"]].concat()).json();
    assert_eq!((&accepted["accepted"], &accepted["release"]), (&true.into(), &"simulated".into()));
    // Its own time is no time that is still to come.
    let future = Timestamp::now().plus(DAY);
    let nsm = authority.enclave(Identity::random()).with_clock(move || future);
    let premature = desk.write("premature.cose", nsm.document(None, None, None).unwrap());
    for ask in [
        ["policy", "check", &policy, "--document", &premature],
        ["verify-document", &premature, "--policy", &policy, "-v"],
    ] {
        Outcome::assert_fails(&[&ask[..], &["--at", "document"]].concat(), 3, "clock_or_document_in_future");
    }
    // The policy that revokes it refuses it at any time.
    let revoke = ["policy", "revoke", &policy, "simulated", "--reason", "leaks"];
    assert_eq!(cloister(&revoke).exit, 0);
    Outcome::assert_fails(&[&ask[..], &["--at", "document"]].concat(), 3, "release_revoked");
    Outcome::assert_fails(
        &["verify-document", &document, "--policy", &policy, "--at", "document"],
        3,
        "release_revoked",
    );
}

#[test]
fn a_policy_shows_how_its_releases_stand() {
    let desk = Desk::new();
    let policy = desk.policy(|policy| {
        policy.revoke("1.0", "leaks").unwrap();
        let not_after = Some(Timestamp::now().minus(DAY));
        policy.add_release(Release { not_after, ..release("0.9", 9) }).unwrap();
    });
    let shown = cloister(&["policy", "show", &policy]).stdout;
    for told in
        ["release 1.0  REVOKED: leaks\n", "release 1.1  OPEN\n", "release 0.9  ENDED 20", "\nroot    AWS Nitro G1 "]
    {
        assert!(shown.contains(told), "{shown}");
    }
    let object = cloister(&["policy", "show", &policy, "--json"]).json();
    let states: Vec<&str> =
        object["releases"].as_array().unwrap().iter().map(|release| release["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["revoked", "open", "ended"]);
    let expired = desk.policy(|policy| *policy = Policy::new(Timestamp::from_millis(1_600_000_000_000)));
    assert!(cloister(&["policy", "show", &expired]).stdout.starts_with("EXPIRED 2020-09-13"));
}

#[test]
fn pins_are_set_by_what_people_know() {
    let desk = Desk::new();
    let policy = desk.policy(|_| ());
    let pin = |arguments: &[&str]| cloister(&[&["policy", "pin", &policy, "--json"], arguments].concat());
    assert_eq!(pin(&[]).exit, 2, "nothing to pin");
    assert_eq!(pin(&["--instance-id", "i-1", "--pcr4", &"11".repeat(48)]).exit, 2);
    assert_eq!(pin(&["--pcr3", "11"]).exit, 2);
    assert_eq!(pin(&["--pcr3", &"00".repeat(48)]).json()["error"]["code"], "policy_zero_pin");

    assert_eq!(pin(&["--role", "arn:aws:iam::123456789012:role/Webserver", "--region", "eu-west-1"]).exit, 0);
    let pins = pin(&["--instance-id", "i-0827e799ec9232d44"]).json()["pins"].clone();
    let [pcr3, pcr4] =
        [Pins::pcr3_of_role("arn:aws:iam::123456789012:role/Webserver"), Pins::pcr4_of_instance("i-0827e799ec9232d44")];
    assert_eq!((&pins["pcr3"], &pins["pcr4"]), (&hex(&pcr3).into(), &hex(&pcr4).into()));
    assert_eq!(pins["region"], "eu-west-1", "pins that are not given stay");
}

#[test]
fn files_that_are_no_policy_are_named_for_what_they_are() {
    let desk = Desk::new();
    let text = fs::read_to_string(desk.policy(|_| ())).unwrap();
    let check = |policy: &str, exit, code: &str| Outcome::assert_fails(&["policy", "check", policy], exit, code);
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).chain([0xff]).collect();
    check(&desk.write("utf16.toml", utf16), 6, "policy_not_utf8");
    check(&desk.write("zero.toml", text.replace(&"10".repeat(48), &"00".repeat(48))), 6, "policy_zero_pcr");
    check(&desk.write("key.toml", text.replace("channel", "chanel")), 6, "bad_policy");
    check(&desk.write("name.toml", text.replace("\"1.0\"", "\"1.0\\u202e\"")), 6, "policy_unprintable");
    check(&desk.write("large.toml", text.clone() + &"#".repeat(1 << 20)), 6, "policy_too_large");
    check("/dev/zero", 6, "file_too_large");
    check("/nonexistent", 6, "file");
    let crlf = desk.write("crlf.toml", format!("\u{feff}{}", text.replace('\n', "\r\n")));
    assert_eq!(cloister(&["policy", "check", &crlf]).exit, 0);
}

#[test]
fn measurements_are_taken_from_what_nitro_cli_prints_and_not_in_debug_mode() {
    let desk = Desk::new();
    let image = measurements(7, 8);
    let built = format!("Start building the Enclave Image...\nEnclave Image successfully created.\n{image}\n");
    let running = |flags: &str| format!(r#"[ {{ "Flags": "{flags}", {} ]"#, &image[1..]);
    let add = |name: &str, content: &str| {
        let file = desk.write(name, content);
        ["policy", "add", &desk.policy(|_| ()), "--measurements", &file, "--name", "new"].map(str::to_owned)
    };
    for content in [&image, &built, &running("NONE")] {
        let added = cloister(&add("good.json", content).each_ref().map(String::as_str));
        assert!(added.stdout.contains(&format!("release new  OPEN\n  PCR0 {}", "07".repeat(48))), "{}", added.stderr);
    }
    let debug = add("debug.json", &running("DEBUG_MODE"));
    Outcome::assert_fails(&debug.each_ref().map(String::as_str), 6, "measurements_debug_mode");
    let zero = add("zero.json", &image.replace("07", "00"));
    Outcome::assert_fails(&zero.each_ref().map(String::as_str), 6, "measurements_zero_pcr");
}

/// An enclave that answers without sockets, so that every part of its evidence can be exchanged.
struct Witness {
    nsm: SimulatedNsm,
    receipt_key: ReceiptKey,
    spki: Vec<u8>,
    manifest: Manifest,
}

impl Witness {
    /// A boot: new keys, another enclave.
    fn boot(authority: &Authority) -> Self {
        let (nsm, receipt_key) = (authority.enclave(Identity::random()), ReceiptKey::generate());
        let spki = nsm.module_id().as_bytes().to_vec();
        let model = |name: &str, byte| ManifestModel {
            name: name.to_owned(),
            version: "1".to_owned(),
            bundle: Sha384([byte; 48]),
            description: Sha384([byte; 48]),
        };
        let models = vec![model("iris", 1), model("flowers", 1), model("wine", 2)];
        Self { nsm, receipt_key, spki, manifest: Manifest { models, limits: Limits { max_request_bytes: 65536 } } }
    }

    fn receipt(&self) -> Receipt {
        Receipt {
            request: Sha384::of(b"request"),
            response: Sha384::of(b"response"),
            bundle: Sha384([1; 48]),
            parameters: "n2048-tuniform17".to_owned(),
            module_id: self.nsm.module_id().to_owned(),
            time: Timestamp::now(),
        }
    }

    /// The evidence of one answer in a new session.
    fn evidence(&self, channel: Channel) -> Evidence {
        let (spki, manifest) = (self.spki.clone(), self.manifest.digest());
        let statement = Statement { channel, spki, receipt_key: self.receipt_key.public_key().to_vec(), manifest };
        let (nonce, user_data) = (Nonce::random(), statement.user_data());
        let claims = Claims { nonce: &nonce.0, public_key: &self.spki, user_data: &user_data };
        Evidence {
            document: self.nsm.attest(&claims).unwrap(),
            statement: statement.to_cbor(),
            manifest: self.manifest.to_cbor(),
            receipts: vec![self.receipt().sign(&self.receipt_key)],
            policy: Sha384([0; 48]),
        }
    }
}

#[test]
fn a_receipt_proves_image_model_messages_and_time_and_says_what_not() {
    let desk = Desk::new();
    let authority = Authority::ephemeral();
    let witness = Witness::boot(&authority);
    let policy = simulated_policy(&authority, &witness.manifest.models).with_channel(ChannelRule::Optional);
    let policy = desk.write("policy.toml", policy.to_toml());
    let verify = |channel, extra: &[&str]| {
        let file = desk.write("evidence", witness.evidence(channel).to_cbor());
        let verified = cloister(&[&["verify-receipt", &file, "--policy", &policy], extra].concat());
        assert_eq!(verified.exit, 0, "{}", verified.stderr);
        verified
    };
    let attested = Channel::TlsExporter([7; 32]);
    let object = verify(attested, &["--json"]).json();
    assert_steps_are_complete(&object, &(1..=12).collect::<Vec<_>>());
    let receipt = &object["receipts"][0];
    assert_eq!(receipt["models"], Value::from(vec!["iris", "flowers"]), "all names of the bundle");
    assert_eq!(receipt["request"], Sha384::of(b"request").to_string());
    assert_eq!(receipt["response"], Sha384::of(b"response").to_string());
    assert!(Timestamp::parse_rfc3339(receipt["time"].as_str().unwrap()).unwrap() <= Timestamp::now());
    for (index, pcr) in Identity::measurements().iter().enumerate() {
        assert_eq!(object["pcrs"][format!("pcr{index}")], hex(pcr));
    }
    assert_eq!((&object["release"], &object["channel"]), (&"simulated".into(), &"tls-exporter".into()));
    assert_eq!(object["module_id"], witness.nsm.module_id());
    assert_eq!(object["region"], witness.nsm.identity().region.as_str());
    assert_eq!(object["recorded_policy_is_this"], false);

    let not_proved =
        |object: &Value| object["not_proved"].as_array().unwrap().iter().map(Value::to_string).collect::<String>();
    let limits = not_proved(&object);
    for limit in ["data was true", "who asked", "no other answer", "one connection", "fresh", "judged now", "SIMULATED"]
    {
        assert!(limits.contains(limit), "{limit}: {limits}");
    }
    assert!(!limits.contains("TLS ended"), "{limits}");
    assert!(not_proved(&verify(Channel::None, &["--json"]).json()).contains("TLS ended"));

    let told = verify(attested, &["-v"]).stdout;
    assert_fits_a_terminal(&told);
    for part in
        ["This does not prove\n  - that the data", "iris = flowers", "  receipt 0, 20", "\n          expected  "]
    {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn a_receipt_names_the_models_that_the_policy_accepts_and_no_other() {
    let desk = Desk::new();
    let authority = Authority::ephemeral();
    let witness = Witness::boot(&authority);
    let file = desk.write("evidence", witness.evidence(Channel::TlsExporter([7; 32])).to_cbor());
    let mut policy = simulated_policy(&authority, &witness.manifest.models);
    policy.add_model(PolicyModel { name: "iris".to_owned(), digest: Sha384([9; 48]) }).unwrap();
    let policy = desk.write("policy.toml", policy.to_toml());
    let verify = ["verify-receipt", &file, "--policy", &policy];
    let told = cloister(&verify).stdout;
    assert!(told.contains("  model     flowers, parameters "), "{told}");
    let object = cloister(&[&verify[..], &["--json"]].concat()).json();
    assert_eq!(object["receipts"][0]["models"], Value::from(vec!["flowers"]));
}

/// What an attacker would like to see in a terminal.
const FORGED: &str = "x\nVERIFIED: everything\r\u{85}\u{2028}\u{61c}\u{202e}\u{1b}[2J";

/// Asserts that `told` has [`FORGED`] in it, on one line and harmless.
fn assert_is_escaped(told: &str) {
    let escaped = "x\\nVERIFIED: everything\\r\\u{85}\\u{2028}\\u{61c}\\u{202e}\\u{1b}[2J";
    assert!(told.contains(escaped), "{told}");
    assert!(!told.lines().any(|line| line.trim_start().starts_with("VERIFIED: everything")), "{told}");
    assert!(!told.contains(['\r', '\u{85}', '\u{2028}', '\u{61c}', '\u{202e}', '\u{1b}', '\u{fffd}']), "{told}");
}

#[test]
fn the_words_of_an_enclave_forge_no_line_about_its_receipts() {
    let desk = Desk::new();
    let authority = Authority::ephemeral();
    let mut witness = Witness::boot(&authority);
    let policy = desk.write("policy.toml", simulated_policy(&authority, &witness.manifest.models).to_toml());
    let model =
        ManifestModel { name: FORGED.to_owned(), version: FORGED.to_owned(), ..witness.manifest.models[0].clone() };
    witness.manifest.models.push(model);
    let parameters = Receipt { parameters: FORGED.to_owned(), ..witness.receipt() }.sign(&witness.receipt_key);
    let evidence = Evidence { receipts: vec![parameters], ..witness.evidence(Channel::TlsExporter([7; 32])) };
    let file = desk.write("evidence", evidence.to_cbor());
    let verified = cloister(&["verify-receipt", &file, "--policy", &policy, "-v"]);
    assert_eq!(verified.exit, 0, "{}", verified.stderr);
    let parameters = verified.stdout.lines().find(|line| line.starts_with("  model     iris = flowers, parameters x"));
    assert_is_escaped(parameters.unwrap_or(&verified.stdout));
    assert!(!verified.stdout.lines().any(|line| line.trim_start().starts_with("VERIFIED: everything")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_words_of_an_enclave_forge_no_line_about_its_models() {
    let authority = Authority::ephemeral();
    let bundle = iris::import().unwrap().bundle;
    let folder = tempfile::tempdir().unwrap();
    let policy = write(folder.path(), "policy.toml", trusting(&authority, &bundle).to_toml());
    let forge = Cheat::Forge(|draft| {
        let mut manifest = Manifest::from_cbor(&draft.manifest).unwrap();
        let named = ManifestModel { name: FORGED.to_owned(), ..manifest.models[0].clone() };
        manifest.models[0].version = FORGED.to_owned();
        manifest.models.push(named);
        draft.serve(&manifest);
    });
    let hostile = Hostile::cheating(&authority, forge).await.unwrap();
    let endpoint = hostile.endpoint().unwrap().to_string();
    for command in ["verify", "models"] {
        let (endpoint, policy) = (endpoint.clone(), policy.clone());
        let verified = tokio::task::spawn_blocking(move || cloister(&[command, &endpoint, "--policy", &policy]));
        let verified = verified.await.unwrap();
        assert_eq!(verified.exit, 0, "{}", verified.stderr);
        let models: Vec<&str> = verified.stdout.lines().filter(|line| line.starts_with("model ")).collect();
        assert_eq!(models.len(), 2, "{}", verified.stdout);
        models.iter().for_each(|line| assert_is_escaped(line));
        assert!(!verified.stdout.contains("\nVERIFIED: everything"), "{}", verified.stdout);
    }
}

#[test]
fn evidence_with_a_part_missing_exchanged_or_of_another_session_is_refused() {
    let desk = Desk::new();
    let authority = Authority::ephemeral();
    let (witness, stranger) = (Witness::boot(&authority), Witness::boot(&authority));
    let session = || witness.evidence(Channel::TlsExporter(Nonce::random().0));
    let (a, b, foreign) = (session(), session(), stranger.evidence(Channel::TlsExporter([7; 32])));
    let good = simulated_policy(&authority, &witness.manifest.models);
    let policy = desk.write("policy.toml", good.to_toml());
    let refused_bytes = |bytes: &[u8], code: &str| {
        let file = desk.write("evidence", bytes);
        Outcome::assert_fails(&["verify-receipt", &file, "--policy", &policy], 3, code).0
    };
    let refused = |change: &dyn Fn(&mut Evidence), code: &str| {
        let mut evidence = a.clone();
        change(&mut evidence);
        refused_bytes(&evidence.to_cbor(), code)
    };

    // Another session's.
    refused(&|evidence| evidence.document = b.document.clone(), "statement_mismatch");
    refused(&|evidence| evidence.statement = b.statement.clone(), "statement_mismatch");
    // Another enclave's.
    refused(&|evidence| evidence.document = foreign.document.clone(), "public_key_mismatch");
    refused(&|evidence| evidence.statement = foreign.statement.clone(), "public_key_mismatch");
    let message = refused(&|evidence| evidence.receipts.extend(foreign.receipts.clone()), "receipt_signature_invalid");
    assert!(message.contains("receipt 1"), "{message}");
    // Exchanged.
    let other = Manifest { limits: Limits { max_request_bytes: 1 }, ..witness.manifest.clone() }.to_cbor();
    refused(&|evidence| evidence.manifest = other.clone(), "manifest_mismatch");
    let signed = |receipt: Receipt| receipt.sign(&witness.receipt_key);
    let unknown = signed(Receipt { bundle: Sha384([9; 48]), ..witness.receipt() });
    let message = refused(&|evidence| evidence.receipts.push(unknown.clone()), "bundle_mismatch");
    assert!(message.contains("receipt 1"), "{message}");
    let other_module = signed(Receipt { module_id: stranger.nsm.module_id().to_owned(), ..witness.receipt() });
    refused(&|evidence| evidence.receipts = vec![other_module.clone()], "module_id_mismatch");
    let early = signed(Receipt { time: Timestamp::now().minus(DAY), ..witness.receipt() });
    refused(&|evidence| evidence.receipts = vec![early.clone()], "receipt_before_document");
    let late = signed(Receipt { time: Timestamp::now().plus(DAY), ..witness.receipt() });
    refused(&|evidence| evidence.receipts = vec![late.clone()], "receipt_long_after_document");
    // Missing.
    refused(&|evidence| evidence.receipts.clear(), "no_receipts");
    refused(&|evidence| evidence.document.clear(), "malformed_cose");
    refused(&|evidence| evidence.statement.clear(), "evidence_malformed");
    refused(&|evidence| evidence.manifest.clear(), "manifest_mismatch");
    let message = refused(&|evidence| evidence.receipts[0].truncate(100), "receipt_malformed");
    assert!(message.contains("receipt 0"), "{message}");

    // The file itself. It is a map of six keys, `v` first and then `policy` with 48 bytes.
    let bytes = a.to_cbor();
    let (head, policy_entry) = (b"\xa6\x61v\x01", b"\x66policy\x58\x30");
    assert!(bytes.starts_with(&[&head[..], policy_entry].concat()), "as deterministic CBOR says");
    let end_of_policy = head.len() + policy_entry.len() + 48;
    refused_bytes(b"", "evidence_malformed");
    refused_bytes(&bytes[..bytes.len() - 1], "evidence_malformed");
    refused_bytes(&[&bytes[..], b"\0"].concat(), "evidence_malformed");
    let removed = refused_bytes(&[b"\xa5\x61v\x01", &bytes[end_of_policy..]].concat(), "evidence_malformed");
    assert!(removed.contains("missing field `policy`"), "{removed}");
    let added = refused_bytes(&[b"\xa7", &bytes[1..], b"\x6azzzzzzzzzz\x01"].concat(), "evidence_malformed");
    assert!(added.contains("unknown field `zzzzzzzzzz`"), "{added}");
    let newer = refused_bytes(&[b"\xa6\x61v\x02", &bytes[head.len()..]].concat(), "evidence_malformed");
    assert!(newer.contains("made by a newer Cloister: update"), "{newer}");
    Outcome::assert_fails(&["verify-receipt", "/nonexistent", "--policy", &policy], 6, "file");

    // What is not exchanged is accepted; and receipts of one boot are not of one session, as the command says.
    let accepted = |evidence: &Evidence| {
        let file = desk.write("evidence", evidence.to_cbor());
        cloister(&["verify-receipt", &file, "--policy", &policy]).exit
    };
    assert_eq!(accepted(&a), 0);
    assert_eq!(accepted(&Evidence { receipts: b.receipts.clone(), ..a.clone() }), 0);
}

#[test]
fn evidence_is_judged_by_the_policy_of_today() {
    let desk = Desk::new();
    let authority = Authority::ephemeral();
    let witness = Witness::boot(&authority);
    let file = desk.write("evidence", witness.evidence(Channel::None).to_cbor());
    let good = simulated_policy(&authority, &witness.manifest.models).with_channel(ChannelRule::Optional);
    let refused = |change: &dyn Fn(&mut Policy), code: &str| {
        let mut policy = good.clone();
        change(&mut policy);
        let policy = desk.write("policy.toml", policy.to_toml());
        Outcome::assert_fails(&["verify-receipt", &file, "--policy", &policy], 3, code).0
    };
    refused(&|policy| policy.revoke("simulated", "leaks").unwrap(), "release_revoked");
    refused(&|policy| *policy = policy.clone().with_channel(ChannelRule::Required), "channel_required");
    refused(&|policy| *policy = policy.clone().with_root(Authority::ephemeral().root()), "root_mismatch");
    let elsewhere = Pins { region: Some("eu-west-1".to_owned()), ..Pins::default() };
    refused(&|policy| *policy = policy.clone().with_pins(elsewhere.clone()).unwrap(), "pinned_region_mismatch");
    let other = |name: &str| PolicyModel { name: name.to_owned(), digest: Sha384([9; 48]) };
    let message = refused(
        &|policy| ["iris", "flowers"].into_iter().for_each(|name| policy.add_model(other(name)).unwrap()),
        "model_digest_mismatch",
    );
    assert!(message.contains("receipt 0"), "{message}");
    let object = cloister(&["verify-receipt", &file, "--policy", "/nonexistent", "--json"]).json();
    assert_eq!(object["error"]["code"], "file");
}
