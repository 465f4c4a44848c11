//! A client that verifies nothing and sends whatever it is told: what an attacker would write.

use std::{io, net::SocketAddr, sync::Arc};

use anyhow::Context;
use bytes::Bytes;
use cloister_attestation::{Channel, EXPORTER_LABEL};
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A TLS session with anybody.
#[derive(Debug)]
pub struct RawClient {
    requests: http1::SendRequest<Full<Bytes>>,
    /// The exporter of the session.
    pub channel: Channel,
}

impl RawClient {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let tls = handshake(address, config().into()).await?;
        let channel = Channel::TlsExporter(tls.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None)?);
        let (requests, connection) = http1::handshake(TokioIo::new(tls)).await?;
        tokio::spawn(connection);
        Ok(Self { requests, channel })
    }

    /// Posts `body` and returns status and body of the answer.
    pub async fn post(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let mut request = Request::post(path).header("host", "enclave.invalid");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.requests.ready().await?;
        let response = self.requests.send_request(request.body(Full::new(body.into()))?).await?;
        let status = response.status();
        let body = response.into_body().collect().await.context("reading the answer")?;
        Ok((status, body.to_bytes()))
    }
}

/// Asks for `path` again and again and reads no answer, until the other side ends the connection; how it did.
pub async fn ask_without_reading(address: SocketAddr, path: &str) -> anyhow::Result<io::Error> {
    let mut tls = handshake(address, config().into()).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: enclave.invalid\r\n\r\n");
    loop {
        if let Err(error) = tls.write_all(request.as_bytes()).await {
            return Ok(error);
        }
    }
}

/// A session with whoever is there, in the way of `config`.
pub async fn handshake(address: SocketAddr, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from("enclave.invalid").expect("the name is valid");
    TlsConnector::from(config).connect(name, tcp).await
}

/// TLS 1.3 with whatever rustls offers, and with sessions that are resumed where the server allows it.
pub fn config() -> ClientConfig {
    offering(&aws_lc_rs::default_provider().kx_groups)
}

/// As [`config`], with these key exchanges alone.
pub fn offering(groups: &[&'static dyn SupportedKxGroup]) -> ClientConfig {
    let provider = CryptoProvider { kx_groups: groups.to_vec(), ..aws_lc_rs::default_provider() };
    let mut config = ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3 suites")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
