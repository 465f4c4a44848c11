//! `cargo image`: the same sources make the same bytes, and what cannot be an image is refused before it is compiled.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::{fs, process::Command};

use cloister_e2e::{
    build,
    cli::{hex, write},
    hostile::BUNDLE,
    image::{PROGRAM, program_from_elsewhere},
};
use cloister_enclave_app::settings as enclave_app;
use cloister_image::{Image, Settings, first_ramdisk};

#[test]
fn two_builds_from_two_folders_are_byte_identical() {
    let (here, elsewhere) = (&*PROGRAM, program_from_elsewhere().unwrap());
    assert!(*here == elsewhere, "the programs differ, of {} and {} bytes", here.len(), elsewhere.len());
    let image = |program: &[u8]| Image::assemble(b"any kernel", program, &Settings::default(), &[&BUNDLE]);
    let (one, other) = (image(here), image(&elsewhere));
    assert_eq!(hex(&one.measurements.0[0]), hex(&other.measurements.0[0]));
    assert!(one.eif == other.eif);
}

#[test]
fn the_program_reads_the_settings_that_an_image_has() {
    let folder = tempfile::tempdir().unwrap();
    let read = |max_connections| {
        let ramdisk = first_ramdisk(b"", &Settings::with_connections(max_connections));
        let at = |wanted| ramdisk.iter().position(|byte| *byte == wanted).unwrap();
        let file = write(folder.path(), "cloister.json", &ramdisk[at(b'{')..=at(b'}')]);
        enclave_app::Settings::read(file.as_ref())
    };
    assert_eq!(read(256).unwrap(), enclave_app::Settings::default());
    assert_eq!(read(Settings::MAX_CONNECTIONS).unwrap().max_connections, Settings::MAX_CONNECTIONS);
    assert!(read(Settings::MAX_CONNECTIONS + 1).is_err());
}

#[test]
fn what_cannot_be_an_image_is_refused_before_it_is_compiled() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = write(folder.path(), "kernel", "another kernel");
    let model = write(folder.path(), "iris.cloister", BUNDLE.to_bytes());
    let again = write(folder.path(), "again.cloister", BUNDLE.to_bytes());
    let damaged = write(folder.path(), "damaged.cloister", b"no bundle");
    let out = folder.path().join("out").display().to_string();
    let cargo_image = build::executable("cloister-image").unwrap();
    for (arguments, exit, reason) in [
        (vec!["--kernel", &kernel, "--model", &model], 1, "is not pinned. Build the pinned one, Linux 6.12.107"),
        (vec!["--kernel", "/nowhere", "--model", &model], 1, "/nowhere: No such file"),
        (vec!["--kernel", &kernel, "--model", &damaged], 1, "damaged.cloister: "),
        (vec!["--kernel", &kernel, "--model", &model, &again], 1, "another bundle is version \"1\" of \"iris\", too"),
        (vec!["--kernel", &kernel], 2, "--model <FILE>"),
        (vec!["--kernel", &kernel, "--model", &model, "--max-connections", "901"], 2, "901 is not in 1..=900"),
    ] {
        let output = Command::new(&cargo_image).args(&arguments).args(["--out", &out]).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {stderr}");
        assert!(stderr.contains(reason), "{arguments:?}: {stderr}");
    }
    assert!(fs::read_dir(&out).is_err(), "nothing was written");
}
