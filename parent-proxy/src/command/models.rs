//! `cloister-parent-proxy models`.

use std::{
    fmt::Arguments,
    fs,
    io::{self, Write},
    path::PathBuf,
};

use anyhow::{Context, ensure};
use clap::Subcommand;
use cloister_parent_proxy::{Address, Limits, MAX_BUNDLE_BYTES, Model, Repository};

/// Say what the enclaves serve, or change it
///
/// It asks the enclaves' model repositories, which only this instance reaches. Exit codes: 0 done, 1 not done, and why on
/// stderr, 2 usage.
#[derive(clap::Args)]
pub(crate) struct Models {
    #[command(subcommand)]
    action: Action,
    /// An enclave's model repository, as vsock:CID:PORT, hybrid:PATH:PORT, unix:PATH or tcp:HOST:PORT; once for each
    #[arg(long, global = true, env = "CLOISTER_CONTROL", value_name = "ADDR", value_delimiter = ',')]
    control: Vec<Address>,
}

#[derive(Subcommand)]
enum Action {
    /// List what each enclave serves
    List,
    /// Load a bundle into every enclave, in place of one of the same name and version, or into none
    Load {
        /// The bundle, a *.cloister file
        file: PathBuf,
    },
    /// Unload a model, or one of its versions, from every enclave
    Unload {
        /// The model, as NAME or NAME/VERSION
        model: Model,
    },
}

impl Models {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let Self { action, control } = self;
        let enclaves = match control.len() {
            0 => super::serve::usage("give --control <ADDR> for each enclave, or set CLOISTER_CONTROL".into()).exit(),
            1 => "1 enclave".to_owned(),
            several => format!("{several} enclaves"),
        };
        let repository = Repository::new(control, &Limits::default());
        match action {
            Action::List => list(&repository).await?,
            Action::Load { file } => {
                let model = repository.load(read(&file)?.into()).await?;
                say(format_args!("loaded {}/{} {} into {enclaves}", model.name, model.version, model.digest));
            }
            Action::Unload { model } => {
                repository.unload(&model).await?;
                say(format_args!("unloaded {model} from {enclaves}"));
            }
        }
        Ok(())
    }
}

async fn list(repository: &Repository) -> anyhow::Result<()> {
    for (enclave, models) in repository.list().await? {
        if models.is_empty() {
            say(format_args!("{enclave} serves no model"));
        }
        for model in models {
            say(format_args!("{enclave} {}/{} {} {}", model.name, model.version, model.state, model.digest));
        }
    }
    Ok(())
}

fn read(file: &PathBuf) -> anyhow::Result<Vec<u8>> {
    let bundle = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(
        bundle.len() <= MAX_BUNDLE_BYTES,
        "{} has {} bytes, and a bundle at most {MAX_BUNDLE_BYTES}",
        file.display(),
        bundle.len()
    );
    Ok(bundle)
}

/// A reader that has gone has read enough.
fn say(line: Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}
