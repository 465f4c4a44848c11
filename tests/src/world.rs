//! A simulated enclave behind a proxy, both separate processes.

use std::path::{Path, PathBuf};

use anyhow::Context;
use cloister_client::{Endpoint, Intermediary, Policy, gateway_url};
use cloister_inference::Bundle;
use tempfile::TempDir;

use crate::{build, iris, process::Process};

const ENCLAVE: &str = "cloister-simulated-enclave";
const PROXY: &str = "cloister-parent-proxy";

/// How proxy and enclave are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Loopback TCP.
    Tcp,
    /// A unix socket.
    Unix,
}

/// A simulated enclave that serves models, and a proxy in front of it.
#[derive(Debug)]
pub struct World {
    /// Where clients connect.
    pub endpoint: Endpoint,
    /// The bundle that is served, or the first of them.
    pub bundle: PathBuf,
    /// Runs until dropped.
    pub proxy: Process,
    /// Runs until dropped.
    pub enclave: Process,
    /// The enclave's own address, as the proxy is told it.
    pub enclave_address: String,
    folder: TempDir,
}

impl World {
    /// Builds the programs that [`start`](Self::start) runs.
    pub fn build() -> anyhow::Result<()> {
        [ENCLAVE, PROXY].into_iter().try_for_each(|package| build::executable(package).map(drop))
    }

    /// Builds what is to be run, imports the Iris model, and starts both programs.
    pub fn start(link: Link) -> anyhow::Result<Self> {
        Self::serving(link, &[iris::import()?.bundle])
    }

    /// Builds what is to be run, and starts both programs with these models.
    pub fn serving(link: Link, bundles: &[Bundle]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let files = write_bundles(folder.path(), bundles)?;
        let listen = match link {
            Link::Tcp => "tcp:127.0.0.1:0".to_owned(),
            Link::Unix => format!("unix:{}", folder.path().join("enclave.sock").display()),
        };
        let authority = folder.path().join("authority");
        let enclave = enclave(&authority, &listen, &files)?;
        let enclave_address = address(&enclave)?;
        let proxy = proxy(&[&enclave_address])?;
        let endpoint = endpoint(&proxy)?;
        let bundle = files.first().context("there is a model to serve")?.clone();
        Ok(Self { endpoint, bundle, proxy, enclave, enclave_address, folder })
    }

    /// The file of the policy that accepts this enclave and its model.
    pub fn policy_file(&self) -> PathBuf {
        self.authority().join("policy.toml")
    }

    /// The policy that accepts this enclave and its model.
    pub fn policy(&self) -> anyhow::Result<Policy> {
        Ok(Policy::parse(&std::fs::read_to_string(self.policy_file())?)?)
    }

    /// The folder of the simulated authority.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("authority")
    }

    /// A folder that lives as long as this.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// A simulated enclave with all its ports, behind a proxy that speaks HTTP.
#[derive(Debug)]
pub struct HttpWorld {
    /// `http://127.0.0.1:PORT` of the proxy.
    pub url: String,
    /// Runs until dropped.
    pub proxy: Process,
    /// Runs until dropped.
    pub enclave: Process,
    folder: TempDir,
}

/// What an [`HttpWorld`] has beside the ordinary.
#[derive(Clone, Debug, Default)]
pub struct HttpOptions<'a> {
    /// The enclave's settings, JSON.
    pub settings: Option<&'a str>,
    /// Further arguments of the proxy.
    pub proxy: &'a [&'a str],
    /// Its environment.
    pub environment: &'a [(&'a str, &'a str)],
}

impl HttpWorld {
    /// Starts both programs with these models; each proxy and enclave may be one of several under the same authority.
    pub fn start(bundles: &[Bundle], options: &HttpOptions<'_>) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let files = write_bundles(folder.path(), bundles)?;
        let events = format!("unix:{}", folder.path().join("events.sock").display());
        let mut arguments = vec!["--plain", "tcp:127.0.0.1:0", "--control", "tcp:127.0.0.1:0", "--events", &events];
        let settings = folder.path().join("settings.json").display().to_string();
        if let Some(text) = options.settings {
            std::fs::write(&settings, text)?;
            arguments.extend(["--settings", &settings]);
        }
        let enclave = enclave_with(&folder.path().join("authority"), "tcp:127.0.0.1:0", &files, &arguments)?;
        // There is no control where nothing may be loaded.
        let (plain, control) = (enclave.place("plain")?, enclave.place("control").ok());
        let mut arguments = vec!["serve", "--http", "tcp:127.0.0.1:0", "--plain-enclave", &plain];
        arguments.extend(control.iter().flat_map(|control| ["--control", control]));
        let arguments =
            [&arguments[..], &["--metrics", "tcp:127.0.0.1:0", "--events", &events], options.proxy].concat();
        let proxy = Process::start_with(&build::executable(PROXY)?, &arguments, options.environment)?;
        let url = proxy.place("http")?.replacen("tcp:", "http://", 1);
        Ok(Self { url, proxy, enclave, folder })
    }

    /// The file of the policy that accepts this enclave and its models, over any channel.
    pub fn policy_file(&self) -> PathBuf {
        self.folder.path().join("authority/policy.toml")
    }

    /// The policy of that file.
    pub fn policy(&self) -> anyhow::Result<Policy> {
        Ok(Policy::parse(&std::fs::read_to_string(self.policy_file())?)?)
    }

    /// The proxy as a gateway.
    pub fn gateway(&self) -> anyhow::Result<Intermediary> {
        Ok(Intermediary::Gateway { url: gateway_url(&self.url)?, objects: None })
    }

    /// A folder that lives as long as this.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Writes each bundle into a file, and gives these in the same order.
pub fn write_bundles(folder: &Path, bundles: &[Bundle]) -> anyhow::Result<Vec<PathBuf>> {
    let write = |bundle: &Bundle| {
        let file = folder.join(format!("{}@{}.cloister", bundle.name(), bundle.version()));
        std::fs::write(&file, bundle.to_bytes()).map(|()| file)
    };
    Ok(bundles.iter().map(write).collect::<Result<_, _>>()?)
}

/// Starts a simulated enclave.
pub fn enclave(authority: &Path, listen: &str, bundles: &[PathBuf]) -> anyhow::Result<Process> {
    enclave_with(authority, listen, bundles, &[])
}

/// Starts a simulated enclave with further arguments.
pub fn enclave_with(authority: &Path, listen: &str, bundles: &[PathBuf], further: &[&str]) -> anyhow::Result<Process> {
    let program = build::executable(ENCLAVE)?;
    let authority = authority.to_string_lossy();
    let bundles: Vec<_> = bundles.iter().map(|bundle| bundle.to_string_lossy()).collect();
    let mut arguments = vec!["--authority", &authority, "--listen", listen];
    arguments.extend(further);
    if !bundles.is_empty() {
        arguments.push("--model");
    }
    arguments.extend(bundles.iter().map(|bundle| &**bundle));
    Process::start(&program, &arguments)
}

/// Starts a proxy on a free port of loopback.
pub fn proxy(enclaves: &[&str]) -> anyhow::Result<Process> {
    let program = build::executable(PROXY)?;
    let mut arguments = vec!["serve", "--listen", "tcp:127.0.0.1:0"];
    for enclave in enclaves {
        arguments.extend(["--enclave", enclave]);
    }
    Process::start(&program, &arguments)
}

/// Where a program said that it listens.
pub fn address(process: &Process) -> anyhow::Result<String> {
    let address = process.first_line.strip_prefix("listening on ").context("the first line says where")?;
    Ok(address.split(',').next().unwrap_or(address).to_owned())
}

/// The endpoint that a proxy offers.
pub fn endpoint(proxy: &Process) -> anyhow::Result<Endpoint> {
    let address = address(proxy)?;
    let authority = address.strip_prefix("tcp:").context("the proxy listens on tcp")?;
    Ok(format!("https://{authority}").parse()?)
}
