//! Evaluators and parents that cheat, in this very process.

use std::{
    future::pending,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use anyhow::Context;
use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use cloister_attestation::{
    Channel, Limits, Manifest, ManifestModel, Nonce, Presentation, Receipt, ReceiptKey, Sha384, Statement, Timestamp,
};
use cloister_client::{AttestedConnection, Endpoint, Policy};
use cloister_enclave::{Attester, Claims, Entropy, TlsIdentity};
use cloister_enclave_app::server::serve;
use cloister_inference::{Bundle, Evaluator, Scratch};
use cloister_simulated_enclave::{Authority, Identity, LocalAddress, LocalListener, SimulatedNsm, policy};
use cloister_wire::{
    ATTESTATION_MEDIA_TYPE, HEADER_LENGTH,
    oip::{Framed, InferRequest, InferResponse, ModelMetadata},
    paths,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::raw::RawClient;

/// What an evaluator does wrong. Everything else it does right.
#[derive(Clone, Debug)]
pub enum Cheat {
    /// Nothing.
    Nothing,
    /// It answers every nonce with this presentation.
    Replay(Presentation),
    /// It has another enclave answer the nonce.
    Relay(SocketAddr),
    /// It changes a bit of the reply after the receipt was signed.
    ChangeReply,
    /// It relays another description than the attested one.
    ChangeDescription(Vec<u8>),
}

/// An evaluator in the test's own hands.
#[derive(Debug)]
pub struct Hostile {
    /// Where it listens.
    pub address: SocketAddr,
    evaluator: Arc<HostileEvaluator>,
}

/// A new TLS identity, as an enclave makes it at boot.
pub fn identity() -> anyhow::Result<TlsIdentity> {
    Ok(TlsIdentity::generate(Entropy::from_kernel()?)?)
}

impl Hostile {
    /// Starts an evaluator that attests with `attester`, holds `identity`, serves `bundle` and cheats.
    pub async fn start(
        attester: SimulatedNsm,
        identity: TlsIdentity,
        bundle: &Bundle,
        cheat: Cheat,
    ) -> anyhow::Result<Self> {
        let listener = LocalListener::bind(&LocalAddress::Tcp(([127, 0, 0, 1], 0).into())).await?;
        let LocalAddress::Tcp(address) = listener.address()? else { unreachable!("bound to tcp") };
        let description = bundle.description();
        let manifest = Manifest { models: vec![manifest_entry(bundle)], limits: Limits { max_request_bytes: 65536 } };
        let evaluator = Arc::new(HostileEvaluator {
            cheat,
            attester,
            spki: identity.spki().to_vec(),
            receipt_key: ReceiptKey::generate(),
            manifest,
            description: description.to_bytes(),
            parameters: description.parameters().name(),
            model: Evaluator::new(bundle),
            seen: Mutex::default(),
        });
        let app = Router::new().fallback(handle).with_state(evaluator.clone());
        tokio::spawn(serve(listener, identity, app, pending()));
        Ok(Self { address, evaluator })
    }

    /// Every request that arrived: its path and the bytes of its body.
    pub fn seen(&self) -> Vec<(String, usize)> {
        self.evaluator.seen.lock().expect("no holder of the lock panics").clone()
    }

    /// Bytes that arrived beside nonces and inference requests: where evaluation keys would be counted.
    pub fn bytes_beside_requests(&self) -> usize {
        let beside = |path: &str| path != paths::ATTESTATION && !path.ends_with("/infer");
        self.seen().iter().filter(|(path, _)| beside(path)).map(|(_, bytes)| bytes).sum()
    }

    /// The endpoint that clients connect to.
    pub fn endpoint(&self) -> anyhow::Result<Endpoint> {
        Ok(format!("https://{}", self.address).parse()?)
    }

    /// The presentation that it gives for a nonce of the attacker's choice, over no session of any client.
    pub fn presentation(&self, nonce: &Nonce) -> anyhow::Result<Presentation> {
        self.evaluator.present(nonce, Channel::TlsExporter([7; 32]))
    }
}

/// Bytes that a client sends beside its nonce and its requests, counted by an evaluator that got `rows` to infer.
pub async fn key_bytes(bundle: &Bundle, rows: &[Vec<f64>]) -> anyhow::Result<usize> {
    let authority = Authority::ephemeral();
    let attester = authority.enclave(Identity::random());
    let evaluator = Hostile::start(attester, identity()?, bundle, Cheat::Nothing).await?;
    let mut connection = AttestedConnection::open(&evaluator.endpoint()?, trusting(&authority, bundle)).await?;
    connection.model(bundle.name()).await?.infer(rows).await?;
    Ok(evaluator.bytes_beside_requests())
}

/// The policy that accepts the simulated enclaves of `authority`, and `bundle`.
pub fn trusting(authority: &Authority, bundle: &Bundle) -> Policy {
    policy(authority, &[manifest_entry(bundle)])
}

fn manifest_entry(bundle: &Bundle) -> ManifestModel {
    ManifestModel {
        name: bundle.name().into(),
        version: bundle.version().into(),
        bundle: Sha384(bundle.digest()),
        description: Sha384(bundle.description().digest()),
    }
}

#[derive(Debug)]
struct HostileEvaluator {
    cheat: Cheat,
    attester: SimulatedNsm,
    spki: Vec<u8>,
    receipt_key: ReceiptKey,
    manifest: Manifest,
    description: Vec<u8>,
    parameters: &'static str,
    model: Evaluator,
    seen: Mutex<Vec<(String, usize)>>,
}

async fn handle(
    State(evaluator): State<Arc<HostileEvaluator>>,
    Extension(channel): Extension<Channel>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let path = request.uri().path().to_owned();
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap_or_default();
    evaluator.seen.lock().expect("no holder of the lock panics").push((path.clone(), body.len()));
    let answer = match path.as_str() {
        paths::ATTESTATION => evaluator.attestation(&body, channel).await,
        path if path.ends_with("/infer") => evaluator.infer(&headers, &body),
        _ => Ok(evaluator.metadata()),
    };
    answer.unwrap_or_else(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response())
}

impl HostileEvaluator {
    async fn attestation(&self, nonce: &Bytes, channel: Channel) -> anyhow::Result<Response> {
        let presentation = match &self.cheat {
            Cheat::Replay(presentation) => presentation.to_cbor().into(),
            Cheat::Relay(to) => {
                let mut genuine = RawClient::connect(*to).await?;
                let media_type = [("content-type", ATTESTATION_MEDIA_TYPE)];
                genuine.post(paths::ATTESTATION, &media_type, nonce.clone()).await?.1
            }
            _ => self.present(&Nonce(nonce[..].try_into()?), channel)?.to_cbor().into(),
        };
        Ok(presentation.into_response())
    }

    fn present(&self, nonce: &Nonce, channel: Channel) -> anyhow::Result<Presentation> {
        let receipt_key = self.receipt_key.public_key().to_vec();
        let manifest = self.manifest.to_cbor();
        let statement = Statement {
            channel,
            spki: self.spki.clone(),
            receipt_key: receipt_key.clone(),
            manifest: Sha384::of(&manifest),
        };
        let claims = Claims { nonce: &nonce.0, public_key: &self.spki, user_data: &statement.user_data() };
        Ok(Presentation { document: self.attester.attest(&claims)?, receipt_key, manifest })
    }

    fn metadata(&self) -> Response {
        let description = match &self.cheat {
            Cheat::ChangeDescription(other) => other,
            _ => &self.description,
        };
        let ManifestModel { name, version, .. } = &self.manifest.models[0];
        Json(ModelMetadata::new(name, version, "hostile", STANDARD.encode(description))).into_response()
    }

    fn infer(&self, headers: &HeaderMap, body: &[u8]) -> anyhow::Result<Response> {
        let length = headers.get(HEADER_LENGTH).context("no header length")?.to_str()?.parse()?;
        let request = InferRequest::parse(Some(length), body)?;
        let mut ciphertext = self.model.evaluate(request.ciphertext, &mut Scratch::default())?;
        let ManifestModel { name, version, bundle, .. } = &self.manifest.models[0];
        let receipt = Receipt {
            request: Sha384::of(request.ciphertext),
            response: Sha384::of(&ciphertext),
            bundle: *bundle,
            parameters: self.parameters.to_owned(),
            module_id: self.attester.module_id().to_owned(),
            time: Timestamp::now(),
        };
        if matches!(self.cheat, Cheat::ChangeReply) {
            let last = ciphertext.last_mut().context("an empty reply")?;
            *last ^= 1;
        }
        let Framed { header_length, body } = InferResponse {
            model_name: name,
            model_version: version,
            id: None,
            ciphertext: &ciphertext,
            receipt: &receipt.sign(&self.receipt_key),
        }
        .to_framed();
        let mut response = body.into_response();
        response.headers_mut().insert(HEADER_LENGTH, HeaderValue::from(header_length));
        Ok(response)
    }
}

/// A parent that flips one bit of what the enclave sends, `after` so many bytes of a connection.
pub async fn flipping_parent(to: SocketAddr, after: usize) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(enclave) = TcpStream::connect(to).await else { return };
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_enclave, mut to_enclave) = enclave.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_enclave).await });
            tokio::spawn(async move {
                let (mut buffer, mut passed) = ([0; 4096], 0);
                while let Ok(length @ 1..) = from_enclave.read(&mut buffer).await {
                    if (passed..passed + length).contains(&after) {
                        buffer[after - passed] ^= 1;
                    }
                    passed += length;
                    if to_client.write_all(&buffer[..length]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(address)
}
