//! enclave-app's service in this very process, with settings of the test's own.

use std::{future::pending, net::SocketAddr};

use anyhow::ensure;
use bytes::Bytes;
use cloister_attestation::{ChannelRule, Loadable, Policy, PolicyModel, Sha384};
use cloister_client::{Endpoint, Intermediary, gateway_url};
use cloister_enclave::{Attester, Entropy};
use cloister_enclave_app::{Listeners, Parts, models::Models, run, settings::Settings};
use cloister_inference::{Bundle, ImportOptions, import};
use cloister_simulated_enclave::{Authority, LocalAddress, LocalListener, policy};
use cloister_wire::{
    error::ErrorBody,
    oip::RepositoryModel,
    paths::{REPOSITORY_INDEX, REPOSITORY_LOAD, repository_unload},
};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::{iris, world::write_bundles};

/// A running service.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// Where TLS ends in it.
    pub tls: SocketAddr,
    /// Where it speaks plain HTTP.
    pub plain: SocketAddr,
    /// Where models are loaded.
    pub control: SocketAddr,
}

impl Service {
    /// Starts a service that serves `bundles`.
    pub async fn start<A: Attester>(attester: A, settings: Settings, bundles: &[Bundle]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let files = write_bundles(folder.path(), bundles)?;
        let ((tls, tls_at), (plain, plain_at), (control, control_at)) = (bind().await?, bind().await?, bind().await?);
        let listeners = Listeners { tls, plain: Some(plain), control: Some(control) };
        let models = Models::from_files(&files)?;
        let parts = Parts { attester, listeners, entropy: Entropy::from_kernel()?, models, settings };
        tokio::spawn(run(parts, pending()));
        Ok(Self { tls: tls_at, plain: plain_at, control: control_at })
    }

    /// Where clients connect.
    pub fn endpoint(&self) -> anyhow::Result<Endpoint> {
        Ok(format!("https://{}", self.tls).parse()?)
    }

    /// Where clients connect for whom somebody else ends TLS.
    pub fn gateway(&self) -> anyhow::Result<Intermediary> {
        gateway(self.plain)
    }

    /// Serves a bundle from now on.
    pub async fn load(&self, bundle: &Bundle) -> anyhow::Result<Result<RepositoryModel, ErrorBody>> {
        let (status, body) = ask(self.control, Method::POST, REPOSITORY_LOAD, bundle.to_bytes()).await?;
        Ok(match status {
            StatusCode::OK => Ok(serde_json::from_slice(&body)?),
            _ => Err(serde_json::from_slice(&body)?),
        })
    }

    /// Serves a model, or one of its versions, no longer.
    pub async fn unload(&self, name: &str, version: Option<&str>) -> anyhow::Result<()> {
        let (status, _) = ask(self.control, Method::POST, &repository_unload(name, version), Bytes::new()).await?;
        ensure!(status == StatusCode::OK, "{status}");
        Ok(())
    }

    /// What is served.
    pub async fn index(&self) -> anyhow::Result<Vec<RepositoryModel>> {
        let (_, body) = ask(self.control, Method::POST, REPOSITORY_INDEX, Bytes::new()).await?;
        Ok(serde_json::from_slice(&body)?)
    }
}

/// A gateway that is nothing but this address.
pub fn gateway(address: SocketAddr) -> anyhow::Result<Intermediary> {
    Ok(Intermediary::Gateway { url: gateway_url(&format!("http://{address}"))?, objects: None })
}

async fn bind() -> anyhow::Result<(LocalListener, SocketAddr)> {
    let listener = LocalListener::bind(&LocalAddress::Tcp(([127, 0, 0, 1], 0).into())).await?;
    let LocalAddress::Tcp(address) = listener.address()? else { unreachable!("bound to tcp") };
    Ok((listener, address))
}

/// One plain HTTP request on a connection of its own; status and body of the answer.
pub async fn ask(
    address: SocketAddr,
    method: Method,
    path: &str,
    body: impl Into<Bytes>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let (mut requests, connection) = http1::handshake(TokioIo::new(TcpStream::connect(address).await?)).await?;
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", "enclave.invalid");
    let response = requests.send_request(request.body(Full::new(body.into()))?).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

/// The Iris model as another version, of other bytes.
pub fn version(version: &str) -> anyhow::Result<Bundle> {
    version_with_budget(version, None)
}

/// The Iris model as another version, that returns no more logits than these.
pub fn version_with_budget(version: &str, budget: Option<u64>) -> anyhow::Result<Bundle> {
    let options = ImportOptions { ranges: Some(iris::ranges()?), budget, ..ImportOptions::new("iris", version) };
    Ok(import(&std::fs::read(iris::file("iris.onnx"))?, &options)?.bundle)
}

/// The policy that accepts the simulated enclaves of `authority`, and this bundle.
pub fn accepting(authority: &Authority, bundle: &Bundle) -> Policy {
    let mut policy = policy(authority, &[]);
    let digest = Sha384(bundle.digest());
    policy.add_model(PolicyModel { name: bundle.name().to_owned(), digest }).expect("the name is fit for a path");
    policy
}

/// The same, where others may end TLS.
pub fn accepting_relays(authority: &Authority, bundle: &Bundle) -> Policy {
    accepting(authority, bundle).with_channel(ChannelRule::Optional)
}

/// Settings under which any bundle may be loaded.
pub fn any_loadable() -> Settings {
    Settings { loadable: Loadable::Any, ..Settings::default() }
}
