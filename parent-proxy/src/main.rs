//! `cloister-parent-proxy`: see the library for what it does.

mod command;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use cloister_parent_proxy::log_to_stderr;
use tokio::runtime::Runtime;

use crate::command::{models::Models, serve::Serve};

/// Joins the network to the Nitro enclaves on this instance. It holds no key and reads nothing.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(Box<Serve>),
    Models(Models),
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(Cli { command }: Cli) -> anyhow::Result<()> {
    let runtime = Runtime::new().context("cannot start the runtime")?;
    let result = match command {
        Command::Serve(serve) => {
            let _log = log_to_stderr().context("cannot start the log")?;
            runtime.block_on(serve.run())
        }
        Command::Models(models) => runtime.block_on(models.run()),
    };
    // A name lookup that hangs must not keep the process.
    runtime.shutdown_background();
    result
}
