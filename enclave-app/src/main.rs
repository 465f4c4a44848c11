//! `cloister-enclave-app`: the program in the enclave. It talks to `/dev/nsm` and vsock, and to nothing else.
//!
//! In an image of `cargo image` it is the kernel's first process and takes everything from the measured ramdisks. In an
//! image of nitro-cli, AWS's init starts it, and it takes arguments.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use cloister_enclave::{Entropy, Init, NitroSecureModule, VsockListener, parent};
use cloister_enclave_app::{
    Fatal, Listeners, Parts,
    log::{self, Event},
    models::Models,
    run,
    server::terminated,
    settings::Settings,
};
use tokio::runtime::Runtime;

/// vsock port of the attested TLS service.
const PORT: u32 = 5000;
/// vsock port of the same service in plain HTTP.
const PLAIN_PORT: u32 = 5001;
/// vsock port at which the parent loads models.
const CONTROL_PORT: u32 = 5003;
/// The parent's vsock port for events.
const LOG_PORT: u32 = 5002;
/// How long an enclave that ends waits for its last events to be read.
const PATIENCE: Duration = Duration::from_secs(1);

/// Serves encrypted inference from inside an AWS Nitro Enclave: on vsock port 5000 with TLS that ends here, on 5001 in plain HTTP,
/// and on 5003 for the parent to load models, if the settings allow any
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Folder with the model bundles (*.cloister)
    #[arg(long, value_name = "DIR", default_value = "/models")]
    models: PathBuf,
    /// The settings, JSON: {"v":1,"max_connections":256}
    #[arg(long, value_name = "FILE", default_value = "/etc/cloister.json")]
    settings: PathBuf,
    /// Only say whether settings and models can be served, and end
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let init = Init::claim();
    let arguments = Arguments::parse();
    let runtime = Runtime::new().expect("a process that has just begun may start threads");
    let outcome = runtime.block_on(async {
        log::forward(|| parent::connect(LOG_PORT));
        log::panics();
        let outcome = tokio::spawn(serve(init, arguments)).await.unwrap_or(Err(Fatal::Panicked));
        if let Err(fatal) = &outcome {
            log::event(fatal.event(), 0);
            // In production there is no console, and a write fails.
            let _ = writeln!(io::stderr(), "error: {fatal}");
        }
        log::finish(PATIENCE).await;
        outcome
    });
    match (init, outcome) {
        (Some(init), _) => init.end(),
        (None, Ok(())) => ExitCode::SUCCESS,
        (None, Err(_)) => ExitCode::FAILURE,
    }
}

async fn serve(init: Option<Init>, Arguments { models, settings, check }: Arguments) -> Result<(), Fatal> {
    if let Some(init) = init {
        log::event(Event::Booted, 0);
        init.mount()?;
        init.reap().map_err(Fatal::Signals)?;
        tokio::spawn(async {
            if parent::heartbeat().await.is_err() {
                log::event(Event::HeartbeatFailed, 0);
            }
        });
    }
    let settings = Settings::read(&settings)?;
    let models = Models::from_folder(&models)?;
    if check {
        return Ok(());
    }
    let attester = NitroSecureModule::open()?;
    let entropy = Entropy::from_nsm(&attester)?;
    let listen = |port| VsockListener::bind(port).map_err(|source| Fatal::Listen { port, source });
    let (plain, control) = (Some(listen(PLAIN_PORT)?), Some(listen(CONTROL_PORT)?));
    let listeners = Listeners { tls: listen(PORT)?, plain, control };
    let shutdown = terminated().map_err(Fatal::Signals)?;
    Ok(run(Parts { attester, listeners, entropy, models, settings }, shutdown).await?)
}
