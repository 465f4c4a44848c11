//! The service that runs in the enclave: it holds models, proves what it is, and evaluates ciphertexts it cannot read.
//!
//! ```text
//! settings     what an image's author decides
//! models       bundles read, checked and made ready
//! repository   the models that are served now, and the manifest that says so
//! control      loading and unloading them, for the parent
//! notary       everything that is signed: attestation documents, one at a time, and receipts
//! service      HTTP: Open Inference Protocol paths and /v1/attestation
//! infer        what an inference request goes through
//! refusal      what a peer is told when it is refused
//! access       who asks, and what is left of its budget
//! admission    who works next
//! evaluations  where evaluations run, and how they end early
//! memory       what requests under way take of it
//! keys         the public keys of a connection's client
//! server       connections: TLS, limits, deadlines, graceful shutdown
//! write_deadline  peers that do not take what they asked for
//! log          what happened, as a fixed list of events and numbers
//! ```
//!
//! What differs between hardware and simulation is passed in as [`Parts`]: the attester, the listeners and the proof that
//! randomness was checked. This crate can name neither a secret key nor a plaintext.

mod access;
mod admission;
mod control;
mod evaluations;
mod infer;
mod keys;
pub mod log;
mod memory;
pub mod models;
mod notary;
mod refusal;
mod repository;
pub mod server;
mod service;
pub mod settings;
mod write_deadline;

use std::{future::Future, io, sync::Arc, time::Duration};

use cloister_enclave::{Attester, Entropy, EntropyError, IdentityError, Listener, MountError, NsmError, TlsIdentity};

use tokio::{sync::watch, time::sleep};

use crate::{
    access::Clients,
    evaluations::Evaluations,
    log::Event,
    memory::Memory,
    models::{Models, ModelsError},
    notary::{Notary, NotaryError},
    repository::Repository,
    server::{Front, Slots, serve},
    service::Service,
    settings::{Settings, SettingsError},
};

/// What a platform provides.
#[derive(Debug)]
pub struct Parts<A, L> {
    /// Signs attestation documents.
    pub attester: A,
    /// Where connections come from.
    pub listeners: Listeners<L>,
    /// Keys are made only against this.
    pub entropy: Entropy,
    /// What is served.
    pub models: Models,
    /// Within which limits.
    pub settings: Settings,
}

/// Where connections come from.
#[derive(Debug)]
pub struct Listeners<L> {
    /// With TLS that ends in the enclave.
    pub tls: L,
    /// In plain HTTP, for where TLS ends before the enclave.
    pub plain: Option<L>,
    /// From the parent, which loads models; heeded only if the settings allow any to be loaded.
    pub control: Option<L>,
}

/// Connections of the parent that load models.
const CONTROL_CONNECTIONS: usize = 4;
/// How often it is told how much there is to do.
const GAUGES: Duration = Duration::from_secs(10);

/// Serves until `shutdown` resolves, then lets requests in flight finish.
///
/// The TLS key and the receipt key are made here and live as long as this call.
pub async fn run<A, L>(parts: Parts<A, L>, shutdown: impl Future<Output = ()>) -> Result<(), RunError>
where
    A: Attester,
    L: Listener,
{
    let Parts { attester, listeners, entropy, models, settings } = parts;
    if models.is_empty() && settings.loadable.is_none() {
        return Err(RunError::Models(ModelsError::None));
    }
    let identity = TlsIdentity::generate(entropy)?;
    let models_memory = (settings.memory.models_mib as usize) << 20;
    let repository = Arc::new(Repository::new(models, settings.loadable, models_memory));
    let notary = Notary::start(attester, identity.spki(), repository.clone()).await?;
    let service = Arc::new(Service {
        repository: repository.clone(),
        notary,
        clients: Clients::new(settings.clients.as_deref(), settings.anonymous, settings.memory.requests_mib),
        evaluations: Evaluations::new(),
        memory: Memory::new(settings.memory.requests_mib),
    });
    log::event(Event::Ready, repository.served().models.len() as u64);

    let slots = Slots::new(usize::from(settings.max_connections));
    let (stop, stopped) = watch::channel(());
    // It ends when `stop` is dropped.
    let stopped = || {
        let mut stopped = stopped.clone();
        async move { while stopped.changed().await.is_ok() {} }
    };
    let Listeners { tls, plain, control } = listeners;
    let control = control.filter(|_| !repository.is_fixed());
    let app = service.clone().router();
    tokio::join!(
        async {
            tokio::select! {
                () = shutdown => {}
                () = tell(&service, &slots) => {}
            }
            drop(stop);
        },
        serve(tls, Front::Tls(identity), app.clone(), slots.clone(), stopped()),
        maybe(plain, |plain| serve(plain, Front::Plain, app.clone(), slots.clone(), stopped())),
        maybe(control, |control| {
            serve(
                control,
                Front::Plain,
                control::router(repository.clone()),
                Slots::new(CONTROL_CONNECTIONS),
                stopped(),
            )
        }),
    );
    log::event(Event::Stopped, 0);
    Ok(())
}

async fn maybe<T, Done: Future<Output = ()>>(what: Option<T>, then: impl FnOnce(T) -> Done) {
    if let Some(what) = what {
        then(what).await;
    }
}

/// Tells how much there is to do, again and again, to whoever counts events.
async fn tell(service: &Service, slots: &Slots) {
    loop {
        sleep(GAUGES).await;
        if log::is_forwarded() {
            log::event(Event::Connections, slots.taken() as u64);
            log::event(Event::Waiting, service.evaluations.waiting() as u64);
            log::event(Event::RequestMemory, service.memory.taken() as u64);
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
    /// There is nothing to serve.
    #[error(transparent)]
    Models(ModelsError),
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
            Self::Models(_) | Self::Service(RunError::Models(_)) => Event::FatalModels,
            Self::Nsm(_) => Event::FatalNsm,
            Self::Entropy(_) => Event::FatalEntropy,
            Self::Listen { .. } => Event::FatalListen,
            Self::Service(_) => Event::FatalService,
            Self::Panicked => Event::FatalPanic,
        }
    }
}
