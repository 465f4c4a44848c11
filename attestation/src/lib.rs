//! [verification]: crate::verification
//!
#![doc = include_str!("../README.md")]
//!
//! # What does not compile
//!
//! A document that was judged as of its own time never leads to a connection:
//!
//! ```compile_fail,E0599
//! # use cloister_attestation::*;
//! fn misuse(document: UnverifiedDocument, policy: &Policy, challenge: &Challenge, presentation: &Presentation) {
//!     let archived = document.authenticate(policy.root(), At::<Archival>::document()).unwrap();
//!     let fresh: FreshDocument = archived.answers(challenge, presentation).unwrap(); // only AuthenticDocument<Live> answers
//! }
//! ```
//!
//! # Layout
//!
//! ```text
//! document      the types of the protocol, up to what a root vouches for
//!   cose          COSE_Sign1, in its one accepted encoding
//!   payload, pcrs the nine keys of a document
//!   certificates  the profile and names of the five certificates
//!   chain         path validation
//!   root          what all trust begins with
//!   cache         certificates that were validated before
//! fresh         documents that answer a challenge
//!   presentation  nonce, challenge and answer
//!   statement     what an enclave commits to
//!   manifest      what it serves
//! enclave       the end of verification
//! policy        what a person accepts
//! receipt       what an enclave signs for each answer, and receipt_key the key
//! evidence      receipts, verifiable by anybody
//! error, step   what went wrong, and where
//! cbor, digest, time, foreign
//! ```

#[doc = include_str!("../VERIFICATION.md")]
pub mod verification {}

mod cache;
mod cbor;
mod certificates;
mod chain;
mod cose;
mod digest;
mod document;
mod enclave;
mod error;
mod evidence;
mod foreign;
mod fresh;
mod manifest;
mod payload;
mod pcrs;
mod policy;
mod presentation;
mod receipt;
mod receipt_key;
mod root;
mod statement;
mod step;
mod time;

pub use cache::CertificateCache;
pub use cbor::FormatError;
pub use certificates::{CertificateError, Link};
pub use cose::CoseError;
pub use digest::{ParseDigestError, Sha384};
pub use document::{Archival, ArchivedDocument, At, AuthenticDocument, Live, UnverifiedDocument};
pub use enclave::VerifiedEnclave;
pub use error::{Refusal, VerificationError};
pub use evidence::{ArchivedEnclave, Evidence, EvidenceError};
pub use fresh::FreshDocument;
pub use manifest::{Limits, Loadable, Manifest, ManifestModel, ModelError};
pub use payload::PayloadError;
pub use pcrs::Pcrs;
pub use policy::{ChannelRule, Pins, Policy, PolicyError, PolicyModel, PolicyWarning, Release, Standing};
pub use presentation::{Challenge, Nonce, Presentation};
pub use receipt::{Receipt, ReceiptError};
pub use receipt_key::{ReceiptKey, ReceiptKeyError, ReceiptPublicKey};
pub use root::{Root, RootError};
pub use statement::{Channel, EXPORTER_LABEL, Statement};
pub use step::{Step, StepReport};
pub use time::{ParseTimestampError, Timestamp};
