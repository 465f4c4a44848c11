//! `cloister-simulated-enclave`: enclave-app's service without hardware. It listens on loopback or a unix socket only.

use std::{path::PathBuf, process::ExitCode};

use anyhow::anyhow;
use clap::Parser;
use cloister_attestation::ChannelRule;
use cloister_enclave::Entropy;
use cloister_enclave_app::{Listeners, Parts, log, models::Models, run, server::terminated, settings::Settings};
use cloister_simulated_enclave::{Authority, Identity, LocalAddress, LocalListener, policy};

/// SIMULATED enclave for development and tests: no hardware, no isolation, an authority of its own
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Folder of the simulated authority; made if empty. `policy.toml` is written there; a new one allows TLS to end before the
    /// enclave if there is --plain
    #[arg(long, value_name = "DIR")]
    authority: PathBuf,
    /// tcp:127.0.0.1:PORT, tcp:[::1]:PORT or unix:PATH
    #[arg(long, value_name = "ADDR")]
    listen: LocalAddress,
    /// Where to serve the same in plain HTTP, for where TLS ends before the enclave
    #[arg(long, value_name = "ADDR")]
    plain: Option<LocalAddress>,
    /// Where models are loaded and unloaded, if the settings allow any
    #[arg(long, value_name = "ADDR")]
    control: Option<LocalAddress>,
    /// Where to send events, instead of stderr
    #[arg(long, value_name = "ADDR")]
    events: Option<LocalAddress>,
    /// Settings, JSON, as an image has them
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Model bundles to serve
    #[arg(long, value_name = "FILE", num_args = 1..)]
    model: Vec<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match serve(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        // Every error of ours says its cause itself, so the chain of causes that anyhow would add says it twice.
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { authority: folder, listen, plain, control, events, settings, model } = arguments;
    let settings = settings.as_deref().map_or_else(|| Ok(Settings::default()), Settings::read)?;
    let models = Models::from_files(&model)?;
    let authority = Authority::open_or_create(&folder)?;
    let channel = if plain.is_some() { ChannelRule::Optional } else { ChannelRule::Required };
    let policy = policy(&authority, &models.manifest()).with_channel(channel);
    let policy_file = authority.write_policy(&folder, policy)?;

    let listeners = Listeners {
        tls: bind(&listen).await?,
        plain: maybe_bind(plain.as_ref()).await?,
        control: maybe_bind(control.as_ref().filter(|_| !settings.loadable.is_none())).await?,
    };
    eprintln!("SIMULATED enclave: no hardware protects it and its documents prove nothing");
    let mut line = format!("listening on {}", listeners.tls.address()?);
    for (name, listener) in [("plain", &listeners.plain), ("control", &listeners.control)] {
        if let Some(listener) = listener {
            line += &format!(", {name} {}", listener.address()?);
        }
    }
    println!("{line}, policy {}", policy_file.display());
    let (attester, entropy) = (authority.enclave(Identity::random()), Entropy::from_kernel()?);
    if let Some(events) = events {
        log::forward(move || {
            let events = events.clone();
            async move { events.connect().await }
        });
    }
    run(Parts { attester, listeners, entropy, models, settings }, terminated()?).await?;
    Ok(())
}

async fn bind(address: &LocalAddress) -> anyhow::Result<LocalListener> {
    LocalListener::bind(address).await.map_err(|error| anyhow!("listening on {address}: {error}"))
}

async fn maybe_bind(address: Option<&LocalAddress>) -> anyhow::Result<Option<LocalListener>> {
    match address {
        Some(address) => bind(address).await.map(Some),
        None => Ok(None),
    }
}
