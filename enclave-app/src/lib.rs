//! The service that runs in the enclave: it holds models, proves what it is, and evaluates ciphertexts it cannot read.
//!
//! ```text
//! models       bundles read, checked and made ready
//! notary       everything that is signed: attestation documents, one at a time, and receipts
//! service      HTTP: Open Inference Protocol paths and /v1/attestation
//! server       connections: TLS, limits, deadlines, graceful shutdown
//! log          what happened, as a fixed list of events and numbers
//! ```
//!
//! What differs between hardware and simulation is passed in as [`Parts`]: the attester, the listener and the proof that
//! randomness was checked. This crate can name neither a secret key nor a plaintext.

pub mod log;
pub mod models;
mod notary;
pub mod server;
mod service;

use std::{future::Future, process::ExitCode};

use cloister_attestation::{Limits, Manifest};
use cloister_enclave::{Attester, Entropy, IdentityError, Listener, TlsIdentity};
use cloister_wire::limits;

use crate::{
    log::Event,
    models::Models,
    notary::{Notary, NotaryError},
    service::Service,
};

/// What a platform provides.
#[derive(Debug)]
pub struct Parts<A, L> {
    /// Signs attestation documents.
    pub attester: A,
    /// Where connections come from.
    pub listener: L,
    /// Keys are made only against this.
    pub entropy: Entropy,
    /// What is served.
    pub models: Models,
}

/// Serves until `shutdown` resolves, then lets requests in flight finish.
///
/// The TLS key and the receipt key are made here and live as long as this call.
pub async fn run<A, L>(parts: Parts<A, L>, shutdown: impl Future<Output = ()>) -> Result<(), RunError>
where
    A: Attester,
    L: Listener,
{
    let Parts { attester, listener, entropy, models } = parts;
    let identity = TlsIdentity::generate(entropy)?;
    let manifest =
        Manifest { models: models.manifest(), limits: Limits { max_request_bytes: limits::MAX_REQUEST_BYTES as u64 } };
    let notary = Notary::start(attester, identity.spki(), manifest).await?;
    log::event(Event::Ready, models.len() as u64);
    server::serve(listener, identity, Service::new(models, notary).router(), shutdown).await;
    log::event(Event::Stopped, 0);
    Ok(())
}

/// Says on stderr why a program ended, and with which code. Every error of ours says its cause itself, so the chain of
/// causes that anyhow would add says it twice.
pub fn exit_code(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The service cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// There is no TLS key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Nothing can be signed.
    #[error(transparent)]
    Notary(#[from] NotaryError),
}
