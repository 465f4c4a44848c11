//! VERIFICATION.md against the code: the same numbers, the same error codes, and tests that exist.

#![expect(clippy::unwrap_used, reason = "the helpers are part of the tests")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use cloister_attestation::Step;

const SPECIFICATION: &str = include_str!("../VERIFICATION.md");

/// The tests that are named outside of the tables.
const IN_PROSE: [&str; 4] = [
    "known_certificates_vouch_for_no_other_document",
    "models_are_accepted_by_the_digest_in_the_policy",
    "no_changed_bit_is_accepted",
    "what_is_no_presentation",
];

/// A row of a table: its number, its error codes and its tests.
struct Check {
    number: &'static str,
    codes: Vec<&'static str>,
    tests: Vec<&'static str>,
}

fn checks() -> Vec<Check> {
    let rows = SPECIFICATION.lines().filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let (section, number) = cells[0].split_once('.')?;
        let numbered = section.parse::<u8>().is_ok() || matches!(section, "R" | "E");
        (numbered && number.parse::<u8>().is_ok()).then_some(cells)
    });
    rows.map(|cells| {
        let [.., errors, tests] = cells[..] else { panic!("{cells:?}") };
        Check { number: cells[0], codes: quoted(errors), tests: quoted(tests) }
    })
    .collect()
}

/// What stands between backticks and is a name.
fn quoted(text: &'static str) -> Vec<&'static str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')).collect()
}

fn sources(folder: &str) -> String {
    fn files(folder: &Path) -> Vec<PathBuf> {
        let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }
    let files = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
    files
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect()
}

#[test]
fn the_twelve_steps_have_their_sections() {
    let sections: Vec<&str> = SPECIFICATION.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    for (step, section) in Step::ALL.into_iter().zip(sections) {
        assert!(section.eq_ignore_ascii_case(&step.to_string()), "{section}: {step}");
    }
}

#[test]
fn every_number_is_in_the_code() {
    let source = sources("src");
    let comments = source.lines().filter_map(|line| line.trim().strip_prefix("//"));
    let numbers: BTreeSet<&str> = comments.flat_map(leading_numbers).collect();
    for Check { number, .. } in checks() {
        assert!(numbers.contains(number), "{number}");
    }
}

/// The numbers with which a comment begins: `3.1, 3.2 and 3.3`.
fn leading_numbers(comment: &str) -> impl Iterator<Item = &str> {
    let words = comment.trim_start_matches(['/', ' ']).split([' ', ',', ':', ';']);
    words.take_while(|word| word.is_empty() || *word == "and" || word.contains('.'))
}

#[test]
fn every_error_has_its_check() {
    let source = sources("src");
    let in_code = |code: &str| source.contains(&format!("=> \"{code}\""));
    let checks = checks();
    for Check { number, codes, .. } in &checks {
        assert!(!codes.is_empty() && codes.iter().all(|code| in_code(code)), "{number}: {codes:?}");
    }
    let specified: BTreeSet<&str> = quoted(SPECIFICATION).into_iter().collect();
    let errors = ["error.rs", "cose.rs", "payload.rs", "certificates/error.rs", "receipt.rs", "evidence.rs"];
    for file in errors {
        let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file)).unwrap();
        let code = source.split("pub fn code(&self)").skip(1).map(|rest| rest.split("pub fn").next().unwrap());
        for code in code.flat_map(|body| body.split("=> \"").skip(1)).map(|rest| rest.split('"').next().unwrap()) {
            assert!(specified.contains(code), "{code} of {file} is not in VERIFICATION.md");
        }
    }
}

#[test]
fn every_check_has_tests_that_exist() {
    let sources = sources("tests") + &sources("src");
    let lines: Vec<&str> = sources.lines().map(str::trim).collect();
    let tests: BTreeSet<&str> = lines
        .windows(2)
        .filter(|pair| pair[0] == "#[test]")
        .filter_map(|pair| pair[1].strip_prefix("fn ")?.split('(').next())
        .collect();
    for Check { number, tests: named, .. } in checks() {
        assert!(!named.is_empty(), "{number} has no test");
        assert!(named.iter().all(|name| tests.contains(name)), "{number}: {named:?}");
    }
    for name in IN_PROSE {
        assert!(SPECIFICATION.contains(name) && tests.contains(name), "{name}");
    }
}
