//! Documents that AWS really signed, and forgeries made from one of them, each against what its file name says.
//!
//! They lie outside the repository: in `../shared/vectors` beside the workspace, or where `CLOISTER_VECTORS` points.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use cloister_attestation::{Archival, At, AuthenticDocument, Root, Step, UnverifiedDocument, VerificationError};

fn folder() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
    let folder = env::var_os("CLOISTER_VECTORS").map_or_else(beside, PathBuf::from).join("attestation");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("SKIPPED: no test vectors in {}; set CLOISTER_VECTORS", folder.display());
    None
}

/// The name, without its extension, and the bytes of every document in `folder`.
fn documents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut documents = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "cose") {
            documents.push((path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()));
        }
    }
    assert!(!documents.is_empty(), "{}", folder.display());
    documents
}

fn judge(document: &[u8]) -> Result<AuthenticDocument<Archival>, VerificationError> {
    UnverifiedDocument::parse(document)?.authenticate(&Root::aws_nitro_g1(), At::document())
}

#[test]
fn genuine_documents_are_judged_by_their_kind() {
    let Some(folder) = folder() else { return };
    for (name, document) in documents(&folder) {
        let judged = judge(&document);
        match name.split('-').next() {
            Some("prod") => {
                let document = judged.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert!(!document.simulated(), "{name}");
                assert_eq!(document.steps().len(), 8, "{name}");
            }
            Some("debug") => assert_eq!(judged.unwrap_err(), VerificationError::DebugMode { index: 0 }, "{name}"),
            Some("neg") if name.contains("bad-signature") => {
                assert_eq!(judged.unwrap_err(), VerificationError::Signature, "{name}");
            }
            Some("neg") if name.contains("non-aws-root") => {
                assert!(matches!(judged.unwrap_err(), VerificationError::RootMismatch { .. }), "{name}");
            }
            _ => panic!("{name} is of no kind that this test knows"),
        }
    }
}

#[test]
fn a_genuine_document_is_described() {
    let Some(folder) = folder() else { return };
    let document = judge(&fs::read(folder.join("prod-2025-12-25-indef.cose")).unwrap()).unwrap();
    assert_eq!(document.module_id(), "i-0827e799ec9232d44-enc019b55a68bd2ed4b");
    assert_eq!(document.region(), "us-east-1");
    assert_eq!(document.timestamp().to_string(), "2025-12-25T13:15:37.578Z");
    assert_eq!(document.pcrs().iter().count(), 16);
    assert_eq!(document.public_key(), None);
    assert_eq!(document.user_data().map(<[u8]>::len), Some(64));
    assert_eq!(document.nonce(), None);
}

#[test]
fn forgeries_are_refused_at_the_step_that_their_name_says() {
    let Some(folder) = folder() else { return };
    for (name, document) in documents(&folder.join("derived")) {
        let step = match name.as_str() {
            "ok-tagged18" => {
                judge(&document).unwrap();
                continue;
            }
            "bad-alg-es256"
            | "bad-outer-5-elements"
            | "bad-trailing-byte"
            | "bad-truncated"
            | "bad-unprotected-nonempty" => Step::Cose,
            "bad-payload-dup-pcrs" => Step::Payload,
            "bad-sig-zero" | "bad-timestamp-bitflip" => Step::Signature,
            unknown => panic!("{unknown} is of no kind that this test knows"),
        };
        assert_eq!(judge(&document).unwrap_err().step(), step, "{name}");
    }
}
