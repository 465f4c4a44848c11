//! The service that runs in the enclave: it holds models, proves what it is, and evaluates ciphertexts it cannot read.
//!
//! ```text
//! settings     what an image's author decides
//! models       bundles read, checked and made ready
//! notary       everything that is signed: attestation documents, one at a time, and receipts
//! service      HTTP: Open Inference Protocol paths and /v1/attestation
//! keys         the public keys of a connection's client
//! server       connections: TLS, limits, deadlines, graceful shutdown
//! log          what happened, as a fixed list of events and numbers
//! ```
//!
//! What differs between hardware and simulation is passed in as [`Parts`]: the attester, the listener and the proof that
//! randomness was checked. This crate can name neither a secret key nor a plaintext.

mod keys;
pub mod log;
pub mod models;
mod notary;
pub mod server;
mod service;
pub mod settings;

use std::{future::Future, io};

use cloister_attestation::{Limits, Manifest};
use cloister_enclave::{Attester, Entropy, EntropyError, IdentityError, Listener, MountError, NsmError, TlsIdentity};

use crate::{
    log::Event,
    models::{Models, ModelsError},
    notary::{Notary, NotaryError},
    service::Service,
    settings::{Settings, SettingsError},
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
    /// Within which limits.
    pub settings: Settings,
}

/// Serves until `shutdown` resolves, then lets requests in flight finish.
///
/// The TLS key and the receipt key are made here and live as long as this call.
pub async fn run<A, L>(parts: Parts<A, L>, shutdown: impl Future<Output = ()>) -> Result<(), RunError>
where
    A: Attester,
    L: Listener,
{
    let Parts { attester, listener, entropy, models, settings } = parts;
    let identity = TlsIdentity::generate(entropy)?;
    let manifest =
        Manifest { models: models.manifest(), limits: Limits { max_request_bytes: models.max_request_bytes() as u64 } };
    let notary = Notary::start(attester, identity.spki(), manifest).await?;
    log::event(Event::Ready, models.len() as u64);
    server::serve(listener, identity, Service::new(models, notary).router(), settings, shutdown).await;
    log::event(Event::Stopped, 0);
    Ok(())
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

/// Why a program in an enclave ends: one error for everything that happens before the service runs, and instead of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fatal {
    /// A file system is missing.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A signal cannot be handled.
    #[error("signals: {0}")]
    Signals(#[source] io::Error),
    /// The settings are missing or wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The models cannot be served.
    #[error(transparent)]
    Models(#[from] ModelsError),
    /// There is no NSM, or it refuses.
    #[error(transparent)]
    Nsm(#[from] NsmError),
    /// Randomness is not what it has to be.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// The port cannot be listened on.
    #[error("listening on vsock port {port}: {source}")]
    Listen {
        /// Which.
        port: u32,
        /// Why.
        source: io::Error,
    },
    /// The service cannot start.
    #[error(transparent)]
    Service(#[from] RunError),
    /// A bug, which has told itself.
    #[error("the program panicked")]
    Panicked,
}

impl Fatal {
    /// What the log says of it. The text of an error does not leave the enclave but on a console.
    pub fn event(&self) -> Event {
        match self {
            Self::Mount(_) | Self::Signals(_) => Event::FatalPlatform,
            Self::Settings(_) => Event::FatalSettings,
            Self::Models(_) => Event::FatalModels,
            Self::Nsm(_) => Event::FatalNsm,
            Self::Entropy(_) => Event::FatalEntropy,
            Self::Listen { .. } => Event::FatalListen,
            Self::Service(_) => Event::FatalService,
            Self::Panicked => Event::FatalPanic,
        }
    }
}
