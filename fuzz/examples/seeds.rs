//! Makes the seeds anew: `cargo run -p cloister-fuzz --example seeds`, and then `cargo test -p cloister-fuzz`.
//!
//! All of them are of one new authority, enclave and client, which sign them and are forgotten; so they are made together or
//! not at all. A seed `valid-…` is accepted, a seed `refused-CODE…` is refused with that code. Files that a fuzzer found are
//! left as they are, though what was signed in them is then by nobody.

#[path = "seeds/documents.rs"]
mod documents;
#[path = "seeds/messages.rs"]
mod messages;
#[path = "seeds/models.rs"]
mod models;
#[path = "seeds/policies.rs"]
mod policies;
#[path = "seeds/signed.rs"]
mod signed;

use std::{fs, path::PathBuf};

use ciborium::Value;
use cloister_inference::{Bundle, Evaluator, PublicKey, Scratch, Session};
use signed::Enclave;

fn main() {
    let (bundle, larger_ring, choosers) = models::write();
    let enclave = Enclave::new(&bundle);
    let exchange = Exchange::new(&bundle, &[[5.1, 3.5, 1.4, 0.2]]);
    let other = Exchange::new(&bundle, &[[6.0, 3.0, 4.8, 1.8]]);

    policies::write(&enclave);
    documents::write(&enclave);
    signed::write(&enclave, &exchange, &other);
    messages::write(&enclave, &bundle, &larger_ring, &choosers, [&exchange, &other]);
}

/// A client's public key, and the ciphertexts of its first request and the answer.
struct Exchange {
    key: Vec<u8>,
    request: Vec<u8>,
    reply: Vec<u8>,
}

impl Exchange {
    fn new(bundle: &Bundle, rows: &[[f64; 4]]) -> Self {
        let mut session = Session::new(bundle.description());
        let request = session.encrypt(rows).expect("the rows are those of Iris").bytes().to_vec();
        let key = PublicKey::from_bytes(session.public_key()).expect("a session makes public keys");
        let reply = Evaluator::new(bundle).evaluate(&request, &key, &mut Scratch::default());
        Self { key: session.public_key().to_vec(), request, reply: reply.expect("the request is for this model") }
    }
}

/// The seeds of one parser.
struct Corpus(PathBuf);

impl Corpus {
    /// Without the seeds that an earlier run wrote.
    fn new(parser: &str) -> Self {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus")).join(parser);
        fs::create_dir_all(&folder).expect("the corpus can be written");
        for file in fs::read_dir(&folder).expect("the folder was just made") {
            let file = file.expect("the folder can be read");
            if !file.file_name().to_string_lossy().starts_with("found-") {
                fs::remove_file(file.path()).expect("the corpus can be written");
            }
        }
        Self(folder)
    }

    fn valid(&self, name: &str, bytes: impl AsRef<[u8]>) {
        self.write(format!("valid-{name}"), bytes.as_ref());
    }

    /// `code` may be followed by a dash and more.
    fn refused(&self, code: &str, bytes: impl AsRef<[u8]>) {
        self.write(format!("refused-{code}"), bytes.as_ref());
    }

    fn write(&self, name: String, bytes: &[u8]) {
        let path = self.0.join(name);
        assert!(!path.exists(), "{} is written twice", path.display());
        fs::write(path, bytes).expect("the corpus can be written");
    }
}

/// With the first occurrence of `from` changed.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let place = bytes.windows(from.len()).position(|window| window == from);
    let (before, rest) = bytes.split_at(place.unwrap_or_else(|| panic!("{} is not there", from.escape_ascii())));
    [before, to, &rest[from.len()..]].concat()
}

/// Deterministic CBOR with the value at `path` changed: keys of maps and numbers of arrays, with slashes between.
fn set(bytes: &[u8], path: &str, value: impl Into<Value>) -> Vec<u8> {
    let mut document: Value = ciborium::from_reader(bytes).expect("the document is CBOR");
    *at(&mut document, path) = value.into();
    let mut changed = vec![];
    ciborium::into_writer(&document, &mut changed).expect("a Vec takes every byte");
    changed
}

fn at<'a>(document: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('/').fold(document, |value, part| match value {
        Value::Map(entries) => {
            let entry = entries.iter_mut().find(|(key, _)| key.as_text() == Some(part));
            &mut entry.unwrap_or_else(|| panic!("{path}: no {part}")).1
        }
        Value::Array(values) => &mut values[part.parse::<usize>().expect("arrays have numbers")],
        _ => panic!("{path}: nothing is in {part}"),
    })
}
