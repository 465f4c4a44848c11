//! The dependency graph is a security statement: ARCHITECTURE.md says it, this checks it. So are the promises of SECURITY.md.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::{collections::BTreeMap, fs, process::Command};

use cloister_e2e::build::workspace;
use serde_json::Value;

/// What each package may depend on, of ours. Development dependencies ship nowhere and are not counted.
const ALLOWED: [(&str, &[&str]); 12] = [
    ("cloister-attestation", &[]),
    ("cloister-inference", &[]),
    ("cloister-wire", &[]),
    ("cloister-enclave", &["cloister-attestation"]),
    ("cloister-enclave-app", &["cloister-attestation", "cloister-enclave", "cloister-inference", "cloister-wire"]),
    ("cloister-simulated-enclave", &["cloister-attestation", "cloister-enclave", "cloister-enclave-app"]),
    ("cloister-image", &["cloister-inference"]),
    ("cloister-parent-proxy", &["cloister-wire"]),
    ("cloister-client", &["cloister-attestation", "cloister-inference", "cloister-wire"]),
    ("cloister-python", &["cloister-attestation", "cloister-client", "cloister-inference"]),
    ("cloister-fuzz", &["cloister-attestation", "cloister-inference", "cloister-wire"]),
    (
        "cloister-e2e",
        &[
            "cloister-attestation",
            "cloister-client",
            "cloister-enclave",
            "cloister-enclave-app",
            "cloister-image",
            "cloister-inference",
            "cloister-simulated-enclave",
            "cloister-wire",
        ],
    ),
];

/// Packages that ship.
const SHIPPED: [&str; 4] = ["cloister-enclave-app", "cloister-parent-proxy", "cloister-client", "cloister-python"];

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(workspace()).output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The normal dependencies of every package of the workspace.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--locked", "--no-deps", "--format-version=1"])).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let package = |package: &Value| {
        let normal =
            package["dependencies"].as_array().unwrap().iter().filter(|dependency| dependency["kind"].is_null());
        (text(&package["name"]), normal.map(|dependency| text(&dependency["name"])).collect())
    };
    metadata["packages"].as_array().unwrap().iter().map(package).collect()
}

#[test]
fn packages_depend_on_what_they_may_and_on_nothing_else_of_ours() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into();
    let found = dependencies();
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        allowed.keys().collect::<Vec<_>>(),
        "a package is judged here or absent"
    );
    for (package, dependencies) in found {
        let mut ours: Vec<_> = dependencies.into_iter().filter(|name| name.starts_with("cloister-")).collect();
        ours.sort();
        assert_eq!(ours, allowed[package.as_str()], "{package}");
    }
}

#[test]
fn only_inference_can_name_tfhe() {
    for (package, dependencies) in dependencies() {
        // Its transforms are a crate of their own, which knows no keys and is measured alone as well.
        let names_it = dependencies.iter().any(|name| name.starts_with("tfhe") && name != "tfhe-ntt");
        assert_eq!(names_it, package == "cloister-inference", "{package}");
    }
}

#[test]
fn nothing_simulated_ships() {
    for package in SHIPPED {
        let tree = cargo(&["tree", "--locked", "-p", package, "-e", "normal,features"]);
        assert!(!tree.contains("simulated"), "{package}");
    }
}

#[test]
fn the_enclave_has_no_secret_key_and_no_importer() {
    let tree = cargo(&["tree", "--locked", "-p", "cloister-enclave-app", "-e", "normal,features"]);
    assert!(tree.contains("cloister-inference"), "the tree lists what is built");
    for absent in [
        r#"cloister-inference feature "client""#,
        r#"cloister-inference feature "import""#,
        "rten-onnx",
        r#"tfhe feature "shortint""#,
        r#"tfhe feature "integer""#,
    ] {
        assert!(!tree.contains(absent), "{absent}");
    }
}

#[test]
fn the_verifier_needs_neither_network_nor_async_nor_tfhe() {
    let tree = cargo(&["tree", "--locked", "-p", "cloister-attestation", "-e", "normal", "--prefix", "none"]);
    for absent in ["tokio", "hyper", "tfhe", "rustls v"] {
        assert!(!tree.lines().any(|line| line.starts_with(absent)), "{absent}");
    }
}

/// The proxy knows nothing of ours, so it has a list of its own.
#[test]
fn the_proxy_counts_every_event_that_an_enclave_logs() {
    let names = |file: &str, from: &str, to: &str| -> Vec<String> {
        let source = fs::read_to_string(workspace().join(file)).unwrap();
        let list = source.split_once(from).unwrap().1.split_once(to).unwrap().0;
        let mut names: Vec<_> = list.split('"').skip(1).step_by(2).map(str::to_owned).collect();
        names.sort();
        names
    };
    let logged = names("enclave-app/src/log.rs", "const fn name(self)", "\n    }\n");
    assert!(logged.contains(&"fatal_panic".to_owned()) && logged.len() > 20, "{logged:?}");
    assert_eq!(names("parent-proxy/src/events.rs", "const NAMES:", "];"), logged);
}

/// `[`name`](file.rs)` in SECURITY.md, whose name is that of a test and not of the file.
#[test]
fn every_promise_links_a_test_that_exists() {
    let promises = fs::read_to_string(workspace().join("SECURITY.md")).unwrap();
    let links: Vec<(&str, &str)> = promises
        .split("[`")
        .skip(1)
        .filter_map(|rest| {
            let (name, rest) = rest.split_once("`](")?;
            Some((name, rest.split_once(')')?.0))
        })
        .collect();
    assert!(links.len() > 20, "{links:?}");
    for (name, file) in links {
        let source = fs::read_to_string(workspace().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(name.contains('.') || source.contains(&format!("fn {name}(")), "{name} in {file}");
    }
}
