//! A TLS session with whoever answers, and what binds attestation to it.

use std::{error::Error as StdError, fmt, sync::Arc};

use bytes::Bytes;
use cloister_attestation::{Channel, EXPORTER_LABEL, ManifestModel};
use cloister_wire::{
    ATTESTATION_MEDIA_TYPE, BINARY_MEDIA_TYPE, HEADER_LENGTH,
    limits::{HANDSHAKE_TIMEOUT, MAX_RESPONSE_BYTES},
    oip::Framed,
    paths,
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    client::conn::http1::{self, SendRequest},
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
    http::request::Builder,
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

use super::{ANSWER_TIMEOUT, Answer, CONNECT_TIMEOUT, refusal, retry_after};
use crate::{Endpoint, Error, Token};

/// Sent as SNI; nobody checks it, attestation says who answers (RFC 6761 reserves `.invalid`).
const SERVER_NAME: &str = "enclave.invalid";

/// One TLS session with somebody.
pub(crate) struct Session {
    requests: SendRequest<Full<Bytes>>,
    endpoint: Endpoint,
    channel: Channel,
    spki: Vec<u8>,
    /// Sent with everything but nonces.
    authorization: Option<HeaderValue>,
}

impl Session {
    pub(crate) async fn connect(endpoint: &Endpoint) -> Result<Self, Error> {
        let unreachable = |reason: String| Error::Unreachable { endpoint: endpoint.to_string(), reason };
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
        Ok(Self {
            requests,
            endpoint: endpoint.clone(),
            channel: Channel::TlsExporter(exporter),
            spki,
            authorization: None,
        })
    }

    /// This session's exporter, as we computed it.
    pub(crate) fn channel(&self) -> Channel {
        self.channel
    }

    /// The key that signed this session's handshake.
    pub(crate) fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// From now on, requests say whose they are. Call it once the evaluator is verified.
    pub(crate) fn authorize(&mut self, token: &Token) {
        self.authorization = Some(token.to_header());
    }

    pub(crate) async fn present(&mut self, nonce: &[u8]) -> Result<Bytes, Error> {
        let request = self.request(Method::POST, paths::ATTESTATION).header(CONTENT_TYPE, ATTESTATION_MEDIA_TYPE);
        Ok(self.exchange(request, nonce.to_vec().into()).await?.body)
    }

    pub(crate) async fn describe(&mut self, model: &ManifestModel) -> Result<Bytes, Error> {
        let request = self.authorized(Method::GET, &paths::model(&model.name, Some(&model.version)));
        Ok(self.exchange(request, Bytes::new()).await?.body)
    }

    pub(crate) async fn infer(&mut self, model: &ManifestModel, framed: Framed) -> Result<Answer, Error> {
        let request = self
            .authorized(Method::POST, &paths::infer(&model.name, Some(&model.version)))
            .header(CONTENT_TYPE, BINARY_MEDIA_TYPE)
            .header(HEADER_LENGTH, framed.header_length);
        self.exchange(request, framed.body.into()).await
    }

    fn request(&self, method: Method, path: &str) -> Builder {
        Request::builder().method(method).uri(path).header(HOST, self.endpoint.authority())
    }

    fn authorized(&self, method: Method, path: &str) -> Builder {
        let request = self.request(method, path);
        match &self.authorization {
            Some(authorization) => request.header(AUTHORIZATION, authorization),
            None => request,
        }
    }

    async fn exchange(&mut self, request: Builder, body: Bytes) -> Result<Answer, Error> {
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
            return Err(refusal(head.status, retry_after(&head.headers), &body));
        }
        let header_length = head.headers.get(HEADER_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Answer { header_length, body })
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// An error with its causes: hyper's own text does not say them.
pub(super) fn causes(error: &dyn StdError) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
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
