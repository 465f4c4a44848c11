//! `cloister-enclave-app`: the program in the enclave. It talks to `/dev/nsm` and vsock, and to nothing else.

use std::{path::PathBuf, process::ExitCode};

use anyhow::anyhow;
use clap::Parser;
use cloister_enclave::{Entropy, NitroSecureModule, VsockListener};
use cloister_enclave_app::{Parts, exit_code, models::Models, run, server::terminated};

/// vsock port of the attested TLS service.
const PORT: u32 = 5000;

/// Serves encrypted inference from inside an AWS Nitro Enclave, on vsock port 5000
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Folder with the model bundles (*.cloister)
    #[arg(long, value_name = "DIR", default_value = "/models")]
    models: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    exit_code(serve(Arguments::parse()).await)
}

async fn serve(Arguments { models }: Arguments) -> anyhow::Result<()> {
    let models = Models::from_folder(&models)?;
    let attester = NitroSecureModule::open()?;
    let entropy = Entropy::from_nsm(&attester)?;
    let listener = VsockListener::bind(PORT).map_err(|error| anyhow!("listening on vsock port {PORT}: {error}"))?;
    run(Parts { attester, listener, entropy, models }, terminated()?).await?;
    Ok(())
}
