//! The command line as a newcomer meets it: exit codes, one JSON object, and texts that say what to do.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::{ffi::OsStr, fs, process::Stdio, time::Duration};

use cloister_attestation::{Policy, PolicyModel, Release, Sha384, Timestamp};
use cloister_e2e::{
    cli::{Outcome, assert_steps_are_complete, cloister, command, hex, write},
    hostile::{BUNDLE, Cheat, Hostile, identity, trusting},
    iris,
    world::{Link, World},
};
use cloister_simulated_enclave::{Authority, Identity};
use serde_json::Value;

#[test]
fn alone_it_prints_some_lines_to_go_on_with() {
    let alone = cloister(&[]);
    assert_eq!((alone.exit, alone.stdout.lines().count()), (0, 4));
    assert!(alone.stdout.contains("cloister verify") && alone.stdout.contains("cloister infer"));
    assert_eq!(cloister(&["frobnicate"]).exit, 2);
    assert_eq!(cloister(&["frobnicate", "--json"]).json()["error"]["code"], "usage");
    assert_eq!(cloister(&["--help"]).exit, 0);
    let unreadable = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff");
    assert_eq!(command().args([OsStr::new("verify"), unreadable]).output().unwrap().status.code(), Some(2));
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
    let verdict = "\nSIMULATED (proves nothing about hardware), VERIFIED:";
    for told in
        [verdict, "11  ok  statement\n          expected  ", "\n          found     ", "the nonce that was sent"]
    {
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
    let mut child = command().args(base).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let closed = child.wait_with_output().unwrap();
    assert_eq!(closed.status.code(), Some(0));
    assert!(!String::from_utf8_lossy(&closed.stderr).contains("panicked"));
    // But a refusal stays one, whoever reads it.
    let mut child = command()
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

    // Whatever fails first, nothing was verified.
    let input = iris::file("iris.csv").display().to_string();
    for arguments in [
        &["verify", &endpoint][..],
        &["models", &endpoint, "--policy", "/nonexistent"],
        &["infer", &endpoint, "--model", "iris", "--in", &input],
        &["infer", &endpoint, "--model", "iris", "--in", "/nonexistent"],
        &["verify-document", "/nonexistent"],
        &["verify-document", &input, "--policy", "/nonexistent"],
        &["verify-receipt", &input],
        &["verify-receipt", &input, "--policy", "/nonexistent"],
    ] {
        assert_eq!(cloister(&[arguments, &["--json"]].concat()).json()["verified"], false, "{arguments:?}");
    }

    // Nobody there.
    let policy = world.policy_file().display().to_string();
    Outcome::assert_fails(&["verify", "https://127.0.0.1:1", "--policy", &policy], 5, "unreachable");
}

#[test]
fn a_model_is_told_to_be_accepted_of_another_digest_or_not_listed() {
    let world = World::start(Link::Tcp).unwrap();
    let endpoint = world.endpoint.to_string();
    let policy = world.policy().unwrap();
    let mut other = policy.clone();
    other.add_model(PolicyModel { name: "iris".to_owned(), digest: Sha384([9; 48]) }).unwrap();
    let mut none = Policy::new(policy.expires()).with_root(policy.root().clone());
    none.add_release(policy.releases()[0].clone()).unwrap();
    for (policy, verdict) in [
        (policy, "accepted by the policy"),
        (other, "NOT ACCEPTED: the policy has another digest under this name"),
        (none, "NOT ACCEPTED: not in the policy"),
    ] {
        let policy = write(world.folder(), "policy.toml", policy.to_toml());
        for command in ["verify", "models"] {
            let told = cloister(&[command, &endpoint, "--policy", &policy]);
            assert!(told.stdout.contains(&format!("model iris 1: {verdict}\n")), "{}{}", told.stdout, told.stderr);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_is_named() {
    let authority = Authority::ephemeral();
    let folder = tempfile::tempdir().unwrap();
    let policy = write(folder.path(), "policy.toml", trusting(&authority).to_toml());
    for (minutes, code) in [(-10_i64, "document_too_old"), (10, "clock_or_document_in_future")] {
        let nsm = authority.enclave(Identity::random()).with_clock(move || {
            let shift = Duration::from_secs(60 * minutes.unsigned_abs());
            if minutes < 0 { Timestamp::now().minus(shift) } else { Timestamp::now().plus(shift) }
        });
        let hostile = Hostile::start(nsm, identity().unwrap(), &BUNDLE, Cheat::Nothing).await.unwrap();
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
fn a_token_is_for_its_owner_alone_and_only_its_digest_is_printed() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token.txt");
    let made = cloister(&["token", &file.display().to_string(), "--json"]);
    let token = cloister_client::Token::parse(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!((made.exit, &made.json()["token_digest"]), (0, &token.digest().to_string().into()));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!made.stdout.contains(token.text()) && !made.stderr.contains(token.text()));
    Outcome::assert_fails(&["token", &file.display().to_string()], 6, "file");
    // A file that holds none is told before anybody is asked.
    let empty = write(folder.path(), "empty.txt", "");
    let policy = write(folder.path(), "policy.toml", cloister_attestation::Policy::new(Timestamp::now()).to_toml());
    let verify = ["verify", "https://127.0.0.1:1", "--policy", &policy, "--token-file", &empty];
    Outcome::assert_fails(&verify, 6, "token");
}

const HELP: [&[&str]; 17] = [
    &["verify"],
    &["models"],
    &["infer"],
    &["doctor"],
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
    &["token"],
    &["completions"],
    &["man"],
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
