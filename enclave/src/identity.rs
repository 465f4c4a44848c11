//! The TLS identity of one boot.

use std::{fmt, io, sync::Arc};

use cloister_attestation::{Channel, EXPORTER_LABEL};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::PrivatePkcs8KeyDer,
    server::NoServerSessionStorage,
    version::TLS13,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::Entropy;

/// The certificate's only name. Nobody checks it: attestation says who this is (RFC 6761 reserves `.invalid`).
const NAME: &str = "enclave.invalid";

/// A P-256 key and its self-signed certificate, made at boot, held in memory only, gone with the boot.
#[derive(Clone)]
pub struct TlsIdentity {
    acceptor: TlsAcceptor,
    spki: Arc<[u8]>,
}

impl TlsIdentity {
    /// Makes a new key. TLS 1.3 only; no tickets, no resumption, no early data, so that every connection is one session
    /// with one exporter.
    pub fn generate(_checked: Entropy) -> Result<Self, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = CertificateParams::new([NAME.to_owned()])?.self_signed(&key)?;
        let spki = key.subject_public_key_info();
        let private = PrivatePkcs8KeyDer::from(key.serialize_der());

        let mut config = ServerConfig::builder_with_provider(provider().into())
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.into()], private.into())?;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { acceptor: Arc::new(config).into(), spki: spki.into() })
    }

    /// The SubjectPublicKeyInfo that documents carry as `public_key`, DER (RFC 5280 §4.1.2.7).
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Shakes hands, and takes the exporter (RFC 8446 §7.5) that binds documents to this very session.
    pub async fn accept<Io>(&self, io: Io) -> Result<(TlsStream<Io>, Channel), AcceptError>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = self.acceptor.accept(io).await.map_err(AcceptError::Handshake)?;
        let (_, session) = stream.get_ref();
        let exporter = session.export_keying_material([0; 32], EXPORTER_LABEL, None).map_err(AcceptError::Exporter)?;
        Ok((stream, Channel::TlsExporter(exporter)))
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").field("spki_bytes", &self.spki.len()).finish_non_exhaustive()
    }
}

/// aws-lc-rs with the hybrid post-quantum exchange first.
fn provider() -> CryptoProvider {
    CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    }
}

/// No identity could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Key or certificate could not be made.
    #[error("the TLS key or certificate cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// rustls refuses the configuration.
    #[error("the TLS configuration is refused: {0}")]
    Config(#[from] rustls::Error),
}

/// A peer did not become a session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The handshake failed.
    #[error("TLS handshake: {0}")]
    Handshake(#[source] io::Error),
    /// The session gives no exporter.
    #[error("TLS exporter: {0}")]
    Exporter(#[source] rustls::Error),
}
