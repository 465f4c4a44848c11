//! The commands. What people read goes to stdout, progress and banners to stderr; `--json` writes exactly one object.

mod completions;
mod configuration;
mod doctor;
mod evaluator;
mod failure;
mod files;
#[cfg(test)]
mod fixtures;
mod gateway;
mod infer;
mod man;
mod measurements;
mod model;
mod models;
mod output;
mod paint;
mod policy;
mod progress;
mod text;
mod token;
mod verify;
mod verify_document;
mod verify_receipt;

use std::{path::Path, process::ExitCode};

use clap::{Parser, Subcommand, error::ErrorKind};
use cloister_client::Policy;
use tokio::runtime::Builder;

use self::{evaluator::EvaluatorArguments, failure::Failure, output::Output};

/// Encrypted inference in an attested AWS Nitro Enclave: the data owner's side
#[derive(Debug, Parser)]
#[command(name = "cloister", version, max_term_width = 100, after_help = format!("{}\n\n{EXIT_CODES}", configuration::HELP))]
struct Arguments {
    /// Write exactly one JSON object to stdout
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

const EXIT_CODES: &str = "\
Exit codes:
  0 done, 1 internal error, 2 usage, 3 not verified, 4 refused by the service,
  5 unreachable, 6 bad input, 130 interrupted";

const GETTING_STARTED: &str = "\
Verify an evaluator:        cloister verify https://HOST:PORT --policy policy.toml
Infer under encryption:     cloister infer  https://HOST:PORT --policy policy.toml --model NAME --in rows.csv
What is wrong:              cloister doctor https://HOST:PORT --policy policy.toml
Everything else:            cloister --help
";

#[derive(Debug, Subcommand)]
enum Command {
    Verify(verify::Verify),
    Models(models::Models),
    Infer(infer::Infer),
    Gateway(gateway::Gateway),
    Doctor(doctor::Doctor),
    VerifyDocument(verify_document::VerifyDocument),
    VerifyReceipt(verify_receipt::VerifyReceipt),
    #[command(subcommand)]
    Model(model::Model),
    #[command(subcommand)]
    Policy(policy::Policy),
    Token(token::Token),
    Completions(completions::Completions),
    Man(man::Man),
}

impl Command {
    /// Only rows are worth several threads.
    fn runtime(&self) -> Builder {
        match self {
            Self::Infer(_) | Self::Gateway(_) => Builder::new_multi_thread(),
            _ => Builder::new_current_thread(),
        }
    }

    /// Whether its outcome says `verified`.
    fn verifies(&self) -> bool {
        match self {
            Self::Verify(_)
            | Self::Models(_)
            | Self::Infer(_)
            | Self::Gateway(_)
            | Self::Doctor(_)
            | Self::VerifyDocument(_)
            | Self::VerifyReceipt(_) => true,
            Self::Model(_) | Self::Policy(_) | Self::Token(_) | Self::Completions(_) | Self::Man(_) => false,
        }
    }
}

fn load_policy(path: impl AsRef<Path>) -> Result<Policy, Failure> {
    let path = path.as_ref();
    Policy::from_bytes(&files::read(path)?).map_err(|error| Failure::policy(path, &error))
}

/// Parses the command line, runs the command, prints its outcome.
pub(crate) fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let Some(command) = arguments.command else {
        let mut output = Output::new(arguments.json);
        output.line(GETTING_STARTED.trim_end());
        output.set("usage", GETTING_STARTED);
        return output.finish(Ok(()));
    };
    let mut output = Output::new(arguments.json);
    let outcome = match command.runtime().enable_all().build() {
        Ok(runtime) => runtime.block_on(dispatch(command, &mut output)),
        Err(error) => Err(Failure::internal(&error)),
    };
    output.finish(outcome)
}

async fn dispatch(command: Command, output: &mut Output) -> Result<(), Failure> {
    // Before anything can fail.
    if command.verifies() {
        output.set("verified", false);
    }
    match command {
        Command::Verify(command) => command.run(output).await,
        Command::Models(command) => command.run(output).await,
        Command::Infer(command) => command.run(output).await,
        Command::Gateway(command) => command.run(output).await,
        Command::Doctor(command) => command.run(output).await,
        Command::VerifyDocument(command) => command.run(output),
        Command::VerifyReceipt(command) => command.run(output),
        Command::Model(command) => command.run(output),
        Command::Policy(command) => command.run(output),
        Command::Token(command) => command.run(output),
        Command::Completions(command) => {
            command.run(output);
            Ok(())
        }
        Command::Man(command) => command.run(output),
    }
}

/// clap's own texts, and its exit codes: 0 for help and version, 2 for usage. With `--json`, one object all the same.
fn usage(error: &clap::Error) -> ExitCode {
    let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if !asked_for && std::env::args_os().any(|argument| argument == "--json") {
        let message = error.to_string();
        let lines = message.lines().map(str::trim).take_while(|line| !line.is_empty()).collect::<Vec<_>>();
        let message = lines.join(" ").trim_start_matches("error: ").to_owned();
        return Output::new(true).finish(Err(Failure::usage(message)));
    }
    let _ = error.print();
    ExitCode::from(if asked_for { 0 } else { failure::USAGE })
}
