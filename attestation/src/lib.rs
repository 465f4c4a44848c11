//! Strict verification of AWS Nitro attestation documents: policy, statement, receipts and evidence.
//!
//! A client that is about to send data asks one question first: *which program will evaluate it, at the other end of this
//! connection, now?* An AWS Nitro Enclave answers with a document that its hardware signed. This crate decides whether to
//! believe it. It is synchronous, opens no connection and asks for no time: callers pass in what differs.
//!
//! # The paved path
//!
//! Every step consumes the type of the last one, so the dangerous order does not compile.
//!
//! ```
//! use cloister_attestation::{At, Challenge, Live, Policy, Presentation, Timestamp, UnverifiedDocument, VerifiedEnclave};
//!
//! fn verify(challenge: &Challenge, answer: &[u8], policy: &Policy) -> Result<VerifiedEnclave, Box<dyn std::error::Error>> {
//!     let now = Timestamp::now();
//!     let presentation = Presentation::from_cbor(answer)?;
//!     let enclave = UnverifiedDocument::parse(&presentation.document)? //   1 to 3: size, COSE, payload
//!         .authenticate(policy.root(), At::<Live>::now(now))? //            4 to 8: certificates, chain, signature, time, debug
//!         .answers(challenge, &presentation)? //                            9 to 11: nonce, public key, statement
//!         .require(policy, now)?; //                                        12: policy
//!     Ok(enclave)
//! }
//! ```
//!
//! The [`Challenge`] is made of the client's own nonce, its own TLS exporter and the certificate it saw. The
//! [`VerifiedEnclave`] then gives out accepted models ([`VerifiedEnclave::model`]), checks what comes back
//! ([`VerifiedEnclave::check_receipt`]) and writes [`Evidence`], which anybody can verify later, offline
//! ([`Evidence::verify`]). Inside the enclave, [`Statement::user_data`] and [`Receipt::sign`] are the other half.
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
//! # Errors
//!
//! Every error carries both sides of the comparison that failed, a stable `code()` for programs, and a `remedy()` for
//! people; a [`VerificationError`] also names the [`Step`].
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
//! fresh         documents that answer a challenge
//!   presentation  nonce, challenge and answer
//!   statement     what an enclave commits to
//!   manifest      what it serves
//! enclave       the end of verification
//! policy        what a person accepts
//! receipt       what an enclave signs for each answer, and receipt_key the key
//! evidence      receipts, verifiable by anybody
//! error, step   what went wrong, and where
//! cbor, digest, time
//! ```

mod cbor;
mod certificates;
mod chain;
mod cose;
mod digest;
mod document;
mod enclave;
mod error;
mod evidence;
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

pub use cbor::FormatError;
pub use certificates::{CertificateError, Link};
pub use cose::CoseError;
pub use digest::{ParseDigestError, Sha384};
pub use document::{Archival, ArchivedDocument, At, AuthenticDocument, Live, UnverifiedDocument};
pub use enclave::VerifiedEnclave;
pub use error::VerificationError;
pub use evidence::{ArchivedEnclave, Evidence, EvidenceError};
pub use fresh::FreshDocument;
pub use manifest::{Limits, Manifest, ManifestModel, ModelError};
pub use payload::PayloadError;
pub use pcrs::Pcrs;
pub use policy::{ChannelRule, Pins, Policy, PolicyError, PolicyModel, Release};
pub use presentation::{Challenge, Nonce, Presentation};
pub use receipt::{Receipt, ReceiptError};
pub use receipt_key::{ReceiptKey, ReceiptKeyError, ReceiptPublicKey};
pub use root::{Root, RootError};
pub use statement::{Channel, EXPORTER_LABEL, Statement};
pub use step::{Step, StepReport};
pub use time::{ParseTimestampError, Timestamp};
