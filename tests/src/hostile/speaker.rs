//! TLS servers that say what they were told to say, whatever they are asked.

use std::{
    io::{self, Read},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use cloister_client::Endpoint;
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    HandshakeKind, NamedGroup, ServerConfig,
    crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::locked;

/// What is said to a request.
#[derive(Clone, Debug)]
pub enum Speech {
    /// These records.
    Records(Vec<Vec<u8>>),
    /// The request itself.
    Echo,
}

/// What comes after the speech.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A `close_notify` (RFC 8446 §6.1).
    Close,
    /// The end of the TCP stream, of which TLS knows nothing.
    Cut,
}

/// What came in one session.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// Whether the session was resumed.
    pub kind: HandshakeKind,
    /// How its keys were agreed on.
    pub group: NamedGroup,
    /// Whether the request came before the handshake was finished.
    pub early: bool,
    /// The path of the request.
    pub path: String,
    /// The body of the request.
    pub body: Vec<u8>,
}

/// A TLS server.
#[derive(Debug)]
pub struct Speaker {
    /// Where it listens.
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Speaker {
    /// Starts a server that gives the same speech in every session.
    pub async fn start(config: ServerConfig, speech: Speech, end: End) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let speaker = Self { address: listener.local_addr()?, heard: Arc::default() };
        let (acceptor, heard) = (TlsAcceptor::from(Arc::new(config)), speaker.heard.clone());
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(session(acceptor.clone(), tcp, speech.clone(), end, heard.clone()));
            }
        });
        Ok(speaker)
    }

    /// The endpoint that clients connect to.
    pub fn endpoint(&self) -> anyhow::Result<Endpoint> {
        Ok(format!("https://{}", self.address).parse()?)
    }

    /// What came in each session in which anything came.
    pub fn heard(&self) -> Vec<Heard> {
        locked(&self.heard).clone()
    }
}

/// TLS 1.3 with these key exchanges, best first, and a new certificate that is sent so many times.
pub fn config(groups: &[&'static dyn SupportedKxGroup], certificates: usize) -> anyhow::Result<ServerConfig> {
    let key = KeyPair::generate()?;
    showing(groups, vec![certificate(&key)?; certificates], &key)
}

/// TLS 1.3 with the certificate of a key that it does not hold.
pub fn imposter() -> anyhow::Result<ServerConfig> {
    let (held, stolen) = (KeyPair::generate()?, KeyPair::generate()?);
    showing(&[aws_lc_rs::kx_group::X25519MLKEM768], vec![certificate(&stolen)?], &held)
}

fn certificate(key: &KeyPair) -> anyhow::Result<CertificateDer<'static>> {
    Ok(CertificateParams::new(["enclave.invalid".to_owned()])?.self_signed(key)?.into())
}

fn showing(
    groups: &[&'static dyn SupportedKxGroup],
    chain: Vec<CertificateDer<'static>>,
    key: &KeyPair,
) -> anyhow::Result<ServerConfig> {
    let provider = CryptoProvider { kx_groups: groups.to_vec(), ..aws_lc_rs::default_provider() };
    let key = provider.key_provider.load_private_key(PrivatePkcs8KeyDer::from(key.serialize_der()).into())?;
    let certified = SingleCertAndKey::from(CertifiedKey::new(chain, key));
    Ok(ServerConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certified)))
}

/// `HTTP/1.1 200 OK` with this body, of which it says that it has `length` bytes.
pub fn ok(length: usize, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").as_bytes(), body].concat()
}

async fn session(
    acceptor: TlsAcceptor,
    tcp: TcpStream,
    speech: Speech,
    end: End,
    heard: Arc<Mutex<Vec<Heard>>>,
) -> io::Result<()> {
    let mut tls = acceptor.accept(tcp).await?;
    let early = early(&mut tls)?;
    let request = if early.is_empty() { request(&mut tls).await? } else { early.clone() };
    locked(&heard).push(Heard::of(&tls, !early.is_empty(), &request));
    let records = match speech {
        Speech::Records(records) => records,
        Speech::Echo => vec![request],
    };
    for record in records {
        tls.write_all(&record).await?;
        tls.flush().await?;
    }
    match end {
        End::Close => tls.shutdown().await,
        End::Cut => tls.get_mut().0.shutdown().await,
    }
}

/// What came before the handshake was finished, if the server allowed any.
fn early(tls: &mut TlsStream<TcpStream>) -> io::Result<Vec<u8>> {
    let mut early = Vec::new();
    if let Some(mut data) = tls.get_mut().1.early_data() {
        data.read_to_end(&mut early)?;
    }
    Ok(early)
}

/// A request of at most a nonce: its head, and as many bytes as that announces.
async fn request(tls: &mut TlsStream<TcpStream>) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    while !request.ends_with(END_OF_HEAD) {
        request.push(tls.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&request).to_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
    let head = request.len();
    request.resize(head + length.unwrap_or(0), 0);
    tls.read_exact(&mut request[head..]).await?;
    Ok(request)
}

const END_OF_HEAD: &[u8] = b"\r\n\r\n";

impl Heard {
    fn of(tls: &TlsStream<TcpStream>, early: bool, request: &[u8]) -> Self {
        let (_, session) = tls.get_ref();
        let end = request.windows(END_OF_HEAD.len()).position(|bytes| bytes == END_OF_HEAD);
        let (head, body) = request.split_at(end.expect("a request has a head") + END_OF_HEAD.len());
        Self {
            kind: session.handshake_kind().expect("the handshake is over"),
            group: session.negotiated_key_exchange_group().expect("the handshake is over").name(),
            early,
            path: String::from_utf8_lossy(head).split(' ').nth(1).unwrap_or_default().to_owned(),
            body: body.to_vec(),
        }
    }
}
