//! Documents are as right as programs: every command in them runs, every link leads somewhere, every example is a command.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    path::{Component, Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::Context;
use cloister_e2e::{
    build::{executable, workspace},
    cli::{CLOISTER, cloister, commands, help},
    documents::{Document, Session},
};

/// Where everybody begins who reads another document: programs, a model, and an evaluator that runs.
const BEGINNING: (&str, &str) = ("README.md", "## By hand");

/// Commands that stay until somebody ends them.
const SERVERS: [&str; 3] = ["cloister-simulated-enclave ", "cloister-parent-proxy serve ", "cloister gateway "];

/// How commands begin that are not run, and why. What is ours in them has to be able to read its options all the same.
const NOT_RUN: [(&str, &str); 17] = [
    ("cargo test", "this is one of its tests"),
    ("cargo measure ", "takes minutes, optimised; `every_group_of_figures_that_is_named_is_one` looks at its argument"),
    ("cargo image ", "needs the kernel; `image` and `qemu` build images"),
    ("cargo +nightly fuzz ", "needs a nightly toolchain and cargo-fuzz"),
    ("MIRIFLAGS=", "needs a nightly toolchain with miri, and ten minutes"),
    ("RUSTFLAGS=", "builds for minutes, optimised"),
    ("CLOISTER_QEMU_NE=", "is another of these tests"),
    ("enclave/image/kernel/build.sh ", "builds a kernel for minutes"),
    ("enclave/image/qemu/build.sh ", "builds a virtual machine for half an hour"),
    ("enclave/image/aws/build.sh ", "needs Docker and nitro-cli"),
    ("pip install ./python", "builds for minutes, optimised; the Python package has tests of its own"),
    ("aws ", "needs an account at AWS"),
    ("AWS_REGION=", "needs an endpoint at AWS; `sagemaker` asks a stand-in"),
    ("scp ", "needs an EC2 instance"),
    ("sudo ", "changes the machine, which is to be an EC2 instance"),
    ("journalctl ", "reads the log of the EC2 instance"),
    ("cloister verify https://HOST", "needs an EC2 instance"),
];

/// Languages of fenced blocks that are no commands, and where else they are looked at.
const LANGUAGES: [(&str, &str); 5] = [
    ("dockerfile", "needs Docker"),
    ("python", "the Python package runs them"),
    ("rust", "rustdoc compiles those of packages; COMPARISON.md shows calls of other libraries"),
    ("rust,no_run", "rustdoc compiles it"),
    ("text", "a picture"),
];

/// Files that documents take for granted: what comes with a release, and what is not built here.
const PROVIDED: [(&str, &str, &str); 4] = [
    ("docs/models.md", "measurements.json", MEASUREMENTS),
    ("enclave/image/aws/README.md", "measurements.json", MEASUREMENTS),
    ("enclave/image/aws/README.md", "image/cloister.eif", ""),
    ("enclave/image/aws/README.md", "target/x86_64-unknown-linux-gnu/release/cloister-parent-proxy", ""),
];

const MEASUREMENTS: &str = r#"{"Measurements": {
    "PCR0": "101010101010101010101010101010101010101010101010101010101010101010101010101010101010101010101010",
    "PCR1": "111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111",
    "PCR2": "121212121212121212121212121212121212121212121212121212121212121212121212121212121212121212121212"}}"#;

/// The package for Python, whose documents its own tests run.
const PYTHON: &str = "python";

/// Every document of the repository, by its path there, but those of the package for Python.
fn documents() -> Vec<(String, Document)> {
    let mut folders = vec![workspace().canonicalize().unwrap()];
    let root = folders[0].clone();
    let mut documents = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path().strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            let hidden = path.starts_with('.') || ["target", PYTHON].contains(&path.as_str());
            if entry.file_type().unwrap().is_dir() && !hidden {
                folders.push(entry.path());
            } else if Path::new(&path).extension().is_some_and(|extension| extension == "md") {
                let document = Document::read(&path).unwrap();
                documents.push((path, document));
            }
        }
    }
    documents.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert!(documents.iter().any(|(path, _)| path == BEGINNING.0) && documents.len() > 10);
    documents
}

/// Does what a reader of the document does, from the beginning.
fn follow(path: &str, document: &Document) -> anyhow::Result<()> {
    let mut session = Session::new()?;
    for (_, file, content) in PROVIDED.iter().filter(|(reader, _, _)| *reader == path) {
        session.provide(file, content)?;
    }
    let mut commands = document.commands();
    if path != BEGINNING.0 {
        let readme = fs::read_to_string(workspace().join(BEGINNING.0))?;
        let (_, beginning) = readme.split_once(BEGINNING.1).context("the beginning is there")?;
        commands.splice(..0, Document::parse(beginning).commands());
    }
    for command in &commands {
        if NOT_RUN.iter().any(|(prefix, _)| command.starts_with(prefix)) {
            session.read_options(command)?;
        } else if SERVERS.iter().any(|server| command.starts_with(server)) {
            session.serve(command)?;
        } else if command.starts_with("curl ") && !there_is_curl() {
            // Past the test harness, which captures what passes.
            std::io::stderr().write_all(format!("SKIPPED: there is no curl for {path}\n").as_bytes())?;
        } else {
            session.run(command)?;
        }
    }
    Ok(())
}

fn there_is_curl() -> bool {
    Command::new("curl").arg("--version").output().is_ok_and(|output| output.status.success())
}

#[test]
fn every_command_does_what_its_reader_expects() {
    let documents = documents();
    let failures: Vec<String> = thread::scope(|scope| {
        let with_commands = documents.iter().filter(|(_, document)| !document.commands().is_empty());
        let readers: Vec<_> =
            with_commands.map(|(path, document)| (path, scope.spawn(move || follow(path, document)))).collect();
        let ended = readers.into_iter().map(|(path, reader)| (path, reader.join().unwrap()));
        ended.filter_map(|(path, outcome)| outcome.err().map(|error| format!("{path}: {error:#}"))).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn what_is_not_run_is_in_a_document_and_has_a_reason() {
    let documents = documents();
    let commands: Vec<String> = documents.iter().flat_map(|(_, document)| document.commands()).collect();
    for (prefix, _) in NOT_RUN {
        assert!(commands.iter().any(|command| command.starts_with(prefix)), "no command begins with {prefix:?}");
    }
    let blocks = documents.iter().flat_map(|(path, document)| document.blocks.iter().map(move |block| (path, block)));
    let mut languages = BTreeSet::new();
    for (path, language) in blocks.filter_map(|(path, block)| Some((path, block.language.as_deref()?))) {
        let known = LANGUAGES.iter().any(|(name, _)| *name == language) || language == "sh";
        assert!(known, "{path}: a block of {language:?} is neither run nor listed");
        languages.insert(language);
    }
    for (path, document) in &documents {
        for other in ["```", "~~~", "\t", "<pre", "<code"] {
            assert!(!document.prose.contains(other), "{path}: {other:?} may hide code from these tests");
        }
    }
    for (language, _) in LANGUAGES {
        assert!(languages.contains(language), "no block is {language}");
    }
    for (path, _, _) in PROVIDED {
        assert!(documents.iter().any(|(name, _)| name == path), "{path}");
    }
}

/// What programs of ours say of themselves and of each of their commands, by the words that ask for it.
fn helps() -> BTreeMap<String, String> {
    let mut helps = BTreeMap::new();
    for (name, package) in [
        ("cloister", "cloister-client"),
        ("cloister-parent-proxy", "cloister-parent-proxy"),
        ("cloister-simulated-enclave", "cloister-simulated-enclave"),
        ("cargo image --", "cloister-image"),
    ] {
        let program = executable(package).unwrap();
        helps.insert(name.to_owned(), help(&program, ""));
        let commands = commands(&program).into_iter();
        helps.extend(commands.map(|command| (format!("{name} {command}"), help(&program, &command))));
    }
    helps
}

/// The options in a text.
fn options(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-');
    words.filter(|word| word.strip_prefix("--").is_some_and(|name| !name.is_empty()))
}

/// `cloister COMMAND --option` and `--option` in a text.
#[test]
fn every_command_and_option_that_is_named_exists() {
    let helps = helps();
    let has = |text: &str, option: &str| options(text).any(|other| other == option);
    let mut checked = 0;
    for (path, document) in documents() {
        let commands = document.commands();
        for name in document.names() {
            let begins = |words: &&String| name == *words || name.starts_with(&format!("{words} "));
            if let Some(words) = helps.keys().filter(begins).max_by_key(|words| words.len()) {
                let (help, rest) = (&helps[words], name[words.len()..].trim_start());
                // Which command it is may be left open.
                if rest.starts_with('…') {
                    continue;
                }
                assert!(options(rest).all(|option| has(help, option)), "{path}: {name}");
                let unknown = rest.starts_with(|letter: char| letter.is_ascii_lowercase());
                assert!(!(unknown && help.contains("Commands:\n")), "{path}: {name}");
            } else if name.starts_with("--") {
                // Those of other programs are in the commands that they are said of.
                let known = |option| helps.values().chain(&commands).any(|text| has(text, option));
                assert!(options(name).all(known), "{path}: {name}");
            } else {
                continue;
            }
            checked += 1;
        }
    }
    assert!(checked > 50, "{checked}");
}

/// `cargo COMMAND`: cargo's own, and the aliases of this repository.
#[test]
fn every_command_of_cargo_that_is_named_exists() {
    let listed = Command::new(env!("CARGO")).arg("--list").current_dir(workspace()).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let known: BTreeSet<&str> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    for (path, document) in documents() {
        let commands = document.commands();
        for command in document.names().chain(commands.iter().map(String::as_str)) {
            let mut words = command.split_whitespace().skip_while(|word| word.contains('='));
            if words.next() == Some("cargo")
                && let Some(name) = words.next()
            {
                // What is installed for another toolchain is not ours to know.
                assert!(name.starts_with('+') || known.contains(name), "{path}: {command}");
            }
        }
    }
}

/// `cargo measure -- GROUP`.
#[test]
fn every_group_of_figures_that_is_named_is_one() {
    let mut groups = 0;
    for (path, document) in documents() {
        let commands = document.commands();
        let names = document.names().chain(commands.iter().map(String::as_str));
        for arguments in names.filter_map(|name| name.strip_prefix("cargo measure -- ")) {
            // It refuses the first group that it does not know.
            let mut measure = Command::new(env!("CARGO_BIN_EXE_measure"));
            let output = measure.args(arguments.split_whitespace()).arg("nothing").output().unwrap();
            let refusal = String::from_utf8(output.stderr).unwrap();
            assert!(refusal.contains("there is no group \"nothing\""), "{path}: {arguments}: {refusal}");
            groups += 1;
        }
    }
    assert!(groups > 3);
}

#[test]
fn every_example_of_a_help_text_is_a_command() {
    let mut session = Session::new().unwrap();
    session.run("export PATH=\"$PWD/target/debug:$PATH\"").unwrap();
    let pages = tempfile::tempdir().unwrap();
    assert_eq!(cloister(&["man", pages.path().to_str().unwrap()]).exit, 0);
    let mut examples = 0;
    for command in commands(&CLOISTER) {
        // Help texts break lines where a terminal ends; manual pages do not.
        let page = pages.path().join(format!("cloister-{}.1", command.replace(' ', "-")));
        let page = fs::read_to_string(page).unwrap();
        let Some((_, section)) = page.split_once(".SH EXAMPLES\n.nf\n") else { continue };
        let text =
            section.split_once(".fi").unwrap().0.replace("\\-", "-").replace("\\*(Aq", "'").replace("\\\\", "\\");
        let indented: String = text.lines().map(|line| format!("  {line}\n")).collect();
        for example in Document::parse(&format!("\n{indented}")).commands() {
            session.read_options(&example).unwrap_or_else(|error| panic!("cloister {command} --help: {error:#}"));
            examples += 1;
        }
    }
    assert!(examples > 20);
}

/// A path without `..`, as seen from the root of the repository.
fn resolve(document: &str, target: &str) -> String {
    let mut path = PathBuf::from(document);
    path.pop();
    for component in Path::new(target).components() {
        match component {
            Component::ParentDir => assert!(path.pop(), "{document}: {target} leads out of the repository"),
            other => path.push(other),
        }
    }
    path.to_str().unwrap().to_owned()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_of_it() {
    let documents = documents();
    let mut links = 0;
    for (path, document) in &documents {
        for link in document.links().into_iter().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            let target = if file.is_empty() { path.clone() } else { resolve(path, file) };
            links += 1;
            assert!(workspace().join(&target).exists(), "{path}: {link}");
            if let Some(anchor) = anchor {
                assert!(Document::read(&target).unwrap().anchors().iter().any(|name| name == anchor), "{path}: {link}");
            }
        }
    }
    assert!(links > 50);
}

#[test]
fn the_readme_leads_to_each_document_beside_the_code() {
    let readme = Document::read("README.md").unwrap();
    for (path, _) in documents().iter().filter(|(path, _)| path.starts_with("docs/")) {
        let linked = readme.links().iter().any(|link| link.split('#').next() == Some(path));
        assert!(linked, "README.md does not link {path}");
    }
}
