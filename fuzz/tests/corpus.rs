//! Every file of every corpus, once more. `valid-…` is accepted, `refused-CODE…` is refused with that code, and whatever else
//! a fuzzer found makes nothing panic.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::{collections::BTreeSet, fs, path::PathBuf};

use cloister_fuzz::{PARSERS, Parser};

fn corpora() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/corpus").into()
}

/// The files of one corpus, by name.
fn corpus(parser: &Parser) -> Vec<(String, Vec<u8>)> {
    let folder = corpora().join(parser.name);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = files
        .map(|file| {
            let file = file.unwrap();
            (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// What the name of a seed promises, if it promises anything.
fn promised(name: &str) -> Option<Result<(), &str>> {
    if name.starts_with("valid-") {
        return Some(Ok(()));
    }
    let code = name.strip_prefix("refused-")?;
    Some(Err(code.split('-').next().unwrap()))
}

/// The seeds that are not what their name says.
fn broken_promises(parser: &Parser) -> Vec<String> {
    let judged = corpus(parser).into_iter().map(|(name, bytes)| ((parser.parse)(&bytes), name));
    let broken = judged.filter(|(verdict, name)| match promised(name) {
        // Without cryptography, much is not refused yet.
        Some(promised) => *verdict != promised && !(cfg!(miri) && verdict.is_ok()),
        None => false,
    });
    broken.map(|(verdict, name)| format!("{}/{name}: {verdict:?}", parser.name)).collect()
}

#[test]
fn every_seed_keeps_the_promise_of_its_name() {
    let parsers = PARSERS.iter().filter(|parser| parser.under_miri || !cfg!(miri));
    let broken: Vec<_> = parsers.flat_map(broken_promises).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_parser_has_seeds_of_both_kinds_and_every_corpus_a_parser() {
    for parser in &PARSERS {
        let promises: BTreeSet<_> =
            corpus(parser).iter().filter_map(|(name, _)| promised(name).map(|p| p.is_ok())).collect();
        assert_eq!(promises.len(), 2, "{}", parser.name);
    }
    let folders: BTreeSet<_> =
        fs::read_dir(corpora()).unwrap().map(|folder| folder.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(folders, PARSERS.iter().map(|parser| parser.name.to_owned()).collect());
}
