//! HTTP over TLS to whoever answers. Nothing is trusted here: what a transport says is judged by [`crate::connection`].

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use cloister_attestation::{Channel, EXPORTER_LABEL};
use cloister_wire::{
    HEADER_LENGTH,
    error::ErrorBody,
    limits::{HANDSHAKE_TIMEOUT, MAX_RESPONSE_BYTES, REQUEST_DEADLINE},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    client::conn::http1::{self, SendRequest},
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, PeerIncompatible, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
    version::TLS13,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::{Endpoint, Error};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The service's own deadline, and time for the network.
const ANSWER_TIMEOUT: Duration = REQUEST_DEADLINE.saturating_add(Duration::from_secs(20));
/// Sent as SNI; nobody checks it, attestation says who answers (RFC 6761 reserves `.invalid`).
const SERVER_NAME: &str = "enclave.invalid";

/// One TLS session with somebody, and what binds attestation to it.
pub(crate) struct Transport {
    requests: SendRequest<Full<Bytes>>,
    endpoint: Endpoint,
    channel: Channel,
    spki: Vec<u8>,
}

/// A successful answer.
pub(crate) struct Answer {
    pub(crate) header_length: Option<usize>,
    pub(crate) body: Bytes,
}

impl Transport {
    pub(crate) async fn connect(endpoint: &Endpoint) -> Result<Self, Error> {
        let unreachable = |reason: String| Error::Unreachable { endpoint: endpoint.clone(), reason };
        let tcp = timeout(CONNECT_TIMEOUT, TcpStream::connect((endpoint.host(), endpoint.port())))
            .await
            .map_err(|_| unreachable(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs())))?
            .map_err(|error| unreachable(error.to_string()))?;
        tcp.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;

        let name = ServerName::try_from(SERVER_NAME).expect("the name is valid");
        let tls = timeout(HANDSHAKE_TIMEOUT, TlsConnector::from(Arc::new(config())).connect(name, tcp))
            .await
            .map_err(|_| unreachable(format!("no TLS handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())))?
            .map_err(|error| unreachable(format!("TLS handshake: {error}")))?;
        let (_, session) = tls.get_ref();
        let exporter = session
            .export_keying_material([0; 32], EXPORTER_LABEL, None)
            .map_err(|error| unreachable(format!("TLS exporter: {error}")))?;
        let spki = session
            .peer_certificates()
            .and_then(|certificates| ParsedCertificate::try_from(certificates.first()?).ok())
            .map(|certificate| certificate.subject_public_key_info().as_ref().to_vec())
            .ok_or_else(|| unreachable("TLS handshake: no certificate".into()))?;

        let (requests, connection) =
            http1::handshake(TokioIo::new(tls)).await.map_err(|error| unreachable(causes(&error)))?;
        tokio::spawn(connection);
        Ok(Self { requests, endpoint: endpoint.clone(), channel: Channel::TlsExporter(exporter), spki })
    }

    /// This session's exporter, as we computed it.
    pub(crate) fn channel(&self) -> Channel {
        self.channel
    }

    /// The key that signed this session's handshake.
    pub(crate) fn spki(&self) -> &[u8] {
        &self.spki
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Answer, Error> {
        self.exchange(self.request(Method::GET, path), Bytes::new()).await
    }

    pub(crate) async fn post(&mut self, path: &str, media_type: &str, body: impl Into<Bytes>) -> Result<Answer, Error> {
        self.exchange(self.request(Method::POST, path).header(CONTENT_TYPE, media_type), body.into()).await
    }

    pub(crate) async fn post_framed(
        &mut self,
        path: &str,
        media_type: &str,
        framed: cloister_wire::oip::Framed,
    ) -> Result<Answer, Error> {
        let request = self
            .request(Method::POST, path)
            .header(CONTENT_TYPE, media_type)
            .header(HEADER_LENGTH, framed.header_length);
        self.exchange(request, framed.body.into()).await
    }

    fn request(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        Request::builder().method(method).uri(path).header(HOST, self.endpoint.authority())
    }

    async fn exchange(&mut self, request: hyper::http::request::Builder, body: Bytes) -> Result<Answer, Error> {
        let lost = |reason: String| Error::ConnectionLost { reason };
        let request = request.body(Full::new(body)).map_err(|error| lost(error.to_string()))?;
        let answer = async {
            self.requests.ready().await?;
            let response = self.requests.send_request(request).await?;
            let (head, body) = response.into_parts();
            Ok::<_, hyper::Error>((head, Limited::new(body, MAX_RESPONSE_BYTES).collect().await))
        };
        let (head, body) = timeout(ANSWER_TIMEOUT, answer)
            .await
            .map_err(|_| lost(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())))?
            .map_err(|error| lost(causes(&error)))?;
        let body = body.map_err(|error| lost(causes(&*error)))?.to_bytes();
        if head.status != StatusCode::OK {
            return Err(refusal(head.status, &body));
        }
        let header_length = head.headers.get(HEADER_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Answer { header_length, body })
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// An error with its causes: hyper's own text does not say them.
fn causes(error: &dyn StdError) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// A refusal in the protocol's form, or whatever answered instead.
fn refusal(status: StatusCode, body: &[u8]) -> Error {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(ErrorBody { error, code }) => Error::Refused { code, message: printable(&error) },
        Err(_) => Error::BadAnswer { reason: format!("HTTP status {status} without a Cloister error") },
    }
}

/// A peer's text without control characters, so that it cannot steer a terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}

/// TLS 1.3 only, the hybrid post-quantum exchange first, no resumption and no early data.
fn config() -> ClientConfig {
    let provider = Arc::new(CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    });
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyKey(provider)))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// Accepts any single certificate, because attestation and not a certificate authority says whose key it is. That the
/// peer *holds* the key is checked: the handshake signature is verified as in any TLS session.
#[derive(Debug)]
struct AnyKey(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyKey {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if !intermediates.is_empty() {
            return Err(CertificateError::BadEncoding.into());
        }
        ParsedCertificate::try_from(certificate)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
