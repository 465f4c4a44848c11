//! Documents that AWS really signed, and forgeries made from one of them, each against what its file name says.
//!
//! They lie outside the repository: in `../shared/vectors` beside the workspace, or where `CLOISTER_VECTORS` points.

#![expect(clippy::unwrap_used, reason = "the helpers are part of the tests")]

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use cloister_attestation::{
    Archival, At, AuthenticDocument, CertificateCache, Root, Step, UnverifiedDocument, VerificationError,
};

/// None, said past the capture of the test's output, if they are not there. Where they were said to be, they have to be.
fn folder() -> Option<PathBuf> {
    if let Some(named) = env::var_os("CLOISTER_VECTORS") {
        return Some(PathBuf::from(named).join("attestation"));
    }
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/attestation");
    if beside.is_dir() {
        return Some(beside);
    }
    let skipped = format!("SKIPPED: no test vectors in {}; set CLOISTER_VECTORS\n", beside.display());
    io::stderr().write_all(skipped.as_bytes()).unwrap();
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
    Ok(UnverifiedDocument::parse(document)?.authenticate(&Root::aws_nitro_g1(), At::document())?)
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
            Some("neg") => {
                let refused = judged.unwrap_err();
                let root = matches!(refused, VerificationError::RootMismatch { .. });
                assert_eq!(root, name.contains("root"), "{name}: {refused}");
                assert_eq!(refused == VerificationError::Signature, name.contains("signature"), "{name}: {refused}");
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
        let judged = judge(&document);
        if name.starts_with("ok-") {
            judged.unwrap_or_else(|error| panic!("{name}: {error}"));
            continue;
        }
        let step = judged.unwrap_err().step();
        let changed = name.strip_prefix("bad-").unwrap_or_else(|| panic!("{name} is neither ok- nor bad-"));
        let expected = match changed.split('-').next() {
            Some("alg" | "outer" | "trailing" | "truncated" | "unprotected") => Step::Cose,
            Some("payload") => Step::Payload,
            Some("sig" | "timestamp") => Step::Signature,
            other => panic!("{name}: no step is known for {other:?}"),
        };
        assert_eq!(step, expected, "{name}");
    }
}

/// Of every byte, one bit. All bits of documents of both kinds are changed in `documents.rs`.
#[test]
fn no_changed_bit_of_a_genuine_document_is_accepted() {
    let Some(folder) = folder() else { return };
    for (name, document) in documents(&folder).into_iter().filter(|(name, _)| name.starts_with("prod")) {
        let known = CertificateCache::default();
        let judge = |document: &[u8]| {
            let document = UnverifiedDocument::parse(document)?;
            document.authenticate_with(&Root::aws_nitro_g1(), At::<Archival>::document(), &known)
        };
        judge(&document).unwrap();
        for byte in 0..document.len() {
            let mut changed = document.clone();
            changed[byte] ^= 1 << (byte % 8);
            assert!(judge(&changed).is_err(), "{name}: byte {byte}");
        }
    }
}
