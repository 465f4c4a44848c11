//! `cloister-simulated-enclave`: enclave-app's service without hardware. It listens on loopback or a unix socket only.

use std::{path::PathBuf, process::ExitCode};

use anyhow::anyhow;
use clap::Parser;
use cloister_enclave::Entropy;
use cloister_enclave_app::{Parts, models::Models, run, server::terminated, settings::Settings};
use cloister_simulated_enclave::{Authority, Identity, LocalAddress, LocalListener, policy};

/// SIMULATED enclave for development and tests: no hardware, no isolation, an authority of its own
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Folder of the simulated authority; made if empty. `policy.toml` is written there
    #[arg(long, value_name = "DIR")]
    authority: PathBuf,
    /// tcp:127.0.0.1:PORT, tcp:[::1]:PORT or unix:PATH
    #[arg(long, value_name = "ADDR")]
    listen: LocalAddress,
    /// Model bundles to serve
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
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

async fn serve(Arguments { authority: folder, listen, model }: Arguments) -> anyhow::Result<()> {
    let models = Models::from_files(&model)?;
    let authority = Authority::open_or_create(&folder)?;
    let policy_file = authority.write_policy(&folder, policy(&authority, &models.manifest()))?;

    let listener = LocalListener::bind(&listen).await.map_err(|error| anyhow!("listening on {listen}: {error}"))?;
    eprintln!("SIMULATED enclave: no hardware protects it and its documents prove nothing");
    println!("listening on {}, policy {}", listener.address()?, policy_file.display());
    let (attester, entropy) = (authority.enclave(Identity::random()), Entropy::from_kernel()?);
    let parts = Parts { attester, listener, entropy, models, settings: Settings::default() };
    run(parts, terminated()?).await?;
    Ok(())
}
