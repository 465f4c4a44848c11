//! `cloister-enclave-app`: the program in the enclave. It talks to `/dev/nsm` and vsock, and to nothing else.

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use cloister_enclave::{Entropy, NitroSecureModule, VsockListener};
use cloister_enclave_app::{Parts, models::Models, run, server::terminated};

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
async fn main() -> anyhow::Result<()> {
    let Arguments { models } = Arguments::parse();
    let models = Models::from_folder(&models)?;
    let attester = NitroSecureModule::open()?;
    let entropy = Entropy::from_nsm(&attester)?;
    let listener = VsockListener::bind(PORT).with_context(|| format!("listening on vsock port {PORT}"))?;
    run(Parts { attester, listener, entropy, models }, async {
        let _ = terminated().await;
    })
    .await?;
    Ok(())
}
