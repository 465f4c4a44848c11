//! Every file of every corpus, once more. `valid-…` is accepted, `refused-CODE…` is refused with that code, and whatever else
//! a fuzzer found makes nothing panic.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::{collections::BTreeSet, fs, path::Path};

use cloister_fuzz::{PARSERS, Parser};

/// The files of one corpus, by name.
fn corpus(parser: &Parser) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(parser.name);
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
fn every_parser_has_seeds_of_both_kinds() {
    for parser in &PARSERS {
        let seeds = corpus(parser);
        let promises: BTreeSet<_> = seeds.iter().filter_map(|(name, _)| promised(name)).map(|p| p.is_ok()).collect();
        assert_eq!(promises.len(), 2, "{}", parser.name);
    }
}

#[test]
fn corpora_and_fuzz_targets_are_those_of_the_parsers() {
    let parsers: BTreeSet<_> = PARSERS.iter().map(|parser| parser.name.to_owned()).collect();
    assert_eq!(listed("corpus"), parsers);
    assert_eq!(listed("libfuzzer/targets"), parsers);
}

/// The names in a folder of this package, without extensions.
fn listed(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
    entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}
