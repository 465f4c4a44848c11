//! Every parser that meets foreign bytes, as a function of those bytes alone.
//!
//! None of them may panic, whatever the bytes, and each asserts what holds of bytes that it accepts: that they are the one
//! encoding of what was read, that nothing was accepted that was not signed. cargo-fuzz calls them with bytes that nobody
//! thought of (`fuzz/README.md` says how), and `cargo test` with every file under `fuzz/corpus`.
//!
//! ```text
//! attestation   documents and all that goes with them
//! messages      what crosses an attested connection
//! choosers      the same of trees and networks
//! models        the files of models
//! world         the one authority, enclave and client for which the seeds are valid
//! ```

pub mod attestation;
pub mod choosers;
pub mod messages;
pub mod models;
pub mod world;

/// Whether bytes are accepted, or the stable code of why not.
pub type Verdict = Result<(), &'static str>;

/// A parser, by the name of its corpus.
#[derive(Clone, Copy, Debug)]
pub struct Parser {
    /// Its folder under `fuzz/corpus`, and its fuzz target.
    pub name: &'static str,
    /// What it makes of bytes.
    pub parse: fn(&[u8]) -> Verdict,
    /// Whether miri can follow its first steps. It stops at cryptography: aws-lc is foreign code to it, and AES takes minutes.
    pub under_miri: bool,
}

/// All of them.
pub const PARSERS: [Parser; 17] = [
    Parser { name: "document", parse: attestation::document, under_miri: true },
    Parser { name: "certificate_names", parse: attestation::certificate_names, under_miri: false },
    Parser { name: "policy", parse: attestation::policy, under_miri: false },
    Parser { name: "statement", parse: attestation::statement, under_miri: true },
    Parser { name: "manifest", parse: attestation::manifest, under_miri: true },
    Parser { name: "presentation", parse: attestation::presentation, under_miri: true },
    Parser { name: "receipt", parse: attestation::receipt, under_miri: false },
    Parser { name: "receipt_payload", parse: attestation::receipt_payload, under_miri: false },
    Parser { name: "evidence", parse: attestation::evidence, under_miri: true },
    Parser { name: "public_key", parse: messages::public_key, under_miri: false },
    Parser { name: "request", parse: messages::request, under_miri: true },
    Parser { name: "reply", parse: messages::reply, under_miri: true },
    Parser { name: "selection_request", parse: choosers::selection_request, under_miri: false },
    Parser { name: "selection_reply", parse: choosers::selection_reply, under_miri: false },
    Parser { name: "description", parse: models::description, under_miri: true },
    Parser { name: "bundle", parse: models::bundle, under_miri: true },
    Parser { name: "onnx", parse: models::onnx, under_miri: true },
];

/// What a person is told of a refusal, and its code. Foreign text in it must not steer a terminal.
#[track_caller]
fn refused(code: &'static str, told: &[String]) -> &'static str {
    for text in told {
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{code}: {text:?}");
    }
    code
}

/// The code of an error, after all that it says was put into words.
macro_rules! code {
    ($error:expr) => {{
        let error = &$error;
        $crate::refused(error.code(), &[error.to_string(), error.remedy()])
    }};
}
use code;
