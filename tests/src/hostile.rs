//! Evaluators, parents and TLS servers that cheat, in this very process.

pub mod balancer;
mod draft;
mod exchange;
pub mod parent;
pub mod speaker;

use std::{
    future::pending,
    net::SocketAddr,
    sync::{Arc, LazyLock, Mutex, MutexGuard},
};

use anyhow::{Context, bail, ensure};
use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use cloister_attestation::{
    Channel, Limits, Loadable, Manifest, ManifestModel, Nonce, Presentation, Receipt, ReceiptKey, Sha384,
    UnverifiedDocument, VerificationError,
};
use cloister_client::{AttestedConnection, Clock, Endpoint, Error, Policy, SystemClock};
use cloister_enclave::{Attester, Entropy, TlsIdentity};
use cloister_enclave_app::server::{Front, Slots, serve};
use cloister_inference::{Bundle, Description, Evaluator, Label, PublicKey, Scratch};
use cloister_simulated_enclave::{Authority, Identity, LocalAddress, LocalListener, SimulatedNsm, policy};
use cloister_wire::{
    ATTESTATION_MEDIA_TYPE, HEADER_LENGTH,
    limits::NONCE_BYTES,
    oip::{Framed, InferRequest, InferResponse, ModelMetadata, header_length},
    paths,
};

pub use self::{draft::Draft, exchange::Exchange};
use crate::{iris, raw::RawClient};

/// The Iris model.
pub static BUNDLE: LazyLock<Bundle> = LazyLock::new(|| iris::import().expect("the Iris model imports").bundle);

/// What an evaluator does wrong. Everything else it does right.
#[derive(Clone, Debug)]
pub enum Cheat {
    /// Nothing.
    Nothing,
    /// It answers every nonce with this presentation.
    Replay(Presentation),
    /// It has another enclave answer the nonce.
    Relay(SocketAddr),
    /// It answers the nonce of each of two sessions with what it made for the other.
    ExchangePresentations(Arc<Exchange<Presentation>>),
    /// It puts something else into what it attests or shows.
    Forge(fn(&mut Draft)),
    /// It changes a bit of the reply after the receipt was signed.
    ChangeReply,
    /// It gives its first answer again and again.
    RepeatAnswer,
    /// It gives each of two sessions the answer that it made for the other.
    ExchangeAnswers(Arc<Exchange<Answer>>),
    /// It relays another description than the attested one.
    ChangeDescription(Vec<u8>),
}

/// A ciphertext and its receipt.
pub type Answer = (Vec<u8>, Vec<u8>);

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
        let spki = identity.spki().to_vec();
        Self::start_behind(Front::Tls(identity), spki, attester, bundle, cheat).await
    }

    /// Starts an evaluator of the Iris model to which connections come in plain HTTP, new under `authority`, that cheats.
    pub async fn plain(authority: &Authority, cheat: Cheat) -> anyhow::Result<Self> {
        let spki = identity()?.spki().to_vec();
        Self::start_behind(Front::Plain, spki, authority.enclave(Identity::random()), &BUNDLE, cheat).await
    }

    async fn start_behind(
        front: Front,
        spki: Vec<u8>,
        attester: SimulatedNsm,
        bundle: &Bundle,
        cheat: Cheat,
    ) -> anyhow::Result<Self> {
        let listener = LocalListener::bind(&LocalAddress::Tcp(([127, 0, 0, 1], 0).into())).await?;
        let LocalAddress::Tcp(address) = listener.address()? else { unreachable!("bound to tcp") };
        let description = bundle.description();
        let manifest = Manifest {
            models: vec![manifest_entry(bundle)],
            limits: Limits { max_request_bytes: 65536 },
            loadable: Loadable::None,
        };
        let evaluator = Arc::new(HostileEvaluator {
            cheat: Mutex::new(cheat),
            attester,
            spki,
            receipt_key: ReceiptKey::generate(),
            manifest,
            description: description.to_bytes(),
            parameters: description.parameters().name(),
            model: Evaluator::new(bundle),
            public_key: Mutex::default(),
            seen: Mutex::default(),
            shown: Mutex::default(),
            first_answer: Mutex::default(),
        });
        let app = Router::new().fallback(handle).with_state(evaluator.clone());
        tokio::spawn(serve(listener, front, app, Slots::new(256), pending()));
        Ok(Self { address, evaluator })
    }

    /// Starts an evaluator of the Iris model, new under `authority`, that cheats.
    pub async fn cheating(authority: &Authority, cheat: Cheat) -> anyhow::Result<Self> {
        Self::start(authority.enclave(Identity::random()), identity()?, &BUNDLE, cheat).await
    }

    /// Starts an evaluator of the Iris model, new under `authority`, that does not cheat yet.
    pub async fn honest(authority: &Authority) -> anyhow::Result<Self> {
        Self::cheating(authority, Cheat::Nothing).await
    }

    /// From now on it cheats like this.
    pub fn turn(&self, cheat: Cheat) {
        *locked(&self.evaluator.cheat) = cheat;
    }

    /// Who it says it is.
    pub fn identity(&self) -> &Identity {
        self.evaluator.attester.identity()
    }

    /// Every request that arrived: its path and the bytes of its body.
    pub fn seen(&self) -> Vec<(String, usize)> {
        locked(&self.evaluator.seen).clone()
    }

    /// The presentations that it made, in order.
    pub fn shown(&self) -> Vec<Presentation> {
        locked(&self.evaluator.shown).clone()
    }

    /// Why a client with `policy` refuses it, having sent one nonce and nothing else.
    pub async fn refusal(&self, policy: Policy) -> anyhow::Result<VerificationError> {
        self.refusal_by(SystemClock, policy).await
    }

    /// Why a client with `policy` and this clock refuses it, having sent one nonce and nothing else.
    pub async fn refusal_by(&self, clock: impl Clock + 'static, policy: Policy) -> anyhow::Result<VerificationError> {
        let refusal = match AttestedConnection::open_with_clock(&self.endpoint()?, policy, clock).await {
            Ok(_) => bail!("it was accepted"),
            Err(error) => not_verified(error)?,
        };
        ensure!(self.seen() == [nonce()], "it was sent {:?}", self.seen());
        Ok(refusal)
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
        self.evaluator.draft(nonce, Channel::TlsExporter([7; 32])).present(&self.evaluator.attester)
    }
}

/// What [`Hostile::seen`] says of a nonce.
pub fn nonce() -> (String, usize) {
    (paths::ATTESTATION.to_owned(), NONCE_BYTES)
}

/// The failed verification that `error` is.
pub fn not_verified(error: Error) -> anyhow::Result<VerificationError> {
    match error {
        Error::NotVerified(refusal) => Ok(*refusal.error),
        other => Err(other.into()),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of the lock panics")
}

/// Bytes that a client sends beside its nonce and its requests, counted by an evaluator that got `rows` to infer.
pub async fn key_bytes(bundle: &Bundle, rows: &[Vec<f64>]) -> anyhow::Result<usize> {
    let authority = Authority::ephemeral();
    let attester = authority.enclave(Identity::random());
    let evaluator = Hostile::start(attester, identity()?, bundle, Cheat::Nothing).await?;
    let mut connection =
        AttestedConnection::open(&evaluator.endpoint()?, policy(&authority, &[manifest_entry(bundle)])).await?;
    connection.model(bundle.name()).await?.infer(rows).await?;
    Ok(evaluator.bytes_beside_requests())
}

/// The policy that accepts the simulated enclaves of `authority`, and the Iris model.
pub fn trusting(authority: &Authority) -> Policy {
    policy(authority, &[manifest_entry(&BUNDLE)])
}

/// The same description with its labels in reverse: each is a CBOR text of under 24 bytes.
pub fn permuted_labels(description: &Description) -> Vec<u8> {
    let text = |label: &Label| {
        let label = label.to_string();
        [&[0x60 | u8::try_from(label.len()).expect("labels are short")], label.as_bytes()].concat()
    };
    let labels: Vec<u8> = description.labels().iter().flat_map(text).collect();
    let reversed: Vec<u8> = description.labels().iter().rev().flat_map(text).collect();
    let mut bytes = description.to_bytes();
    let at = bytes.windows(labels.len()).position(|window| window == labels).expect("the labels are there");
    bytes.splice(at..at + labels.len(), reversed);
    bytes
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
    cheat: Mutex<Cheat>,
    attester: SimulatedNsm,
    spki: Vec<u8>,
    receipt_key: ReceiptKey,
    manifest: Manifest,
    description: Vec<u8>,
    parameters: &'static str,
    model: Evaluator,
    /// The latest that was sent.
    public_key: Mutex<Option<Vec<u8>>>,
    seen: Mutex<Vec<(String, usize)>>,
    shown: Mutex<Vec<Presentation>>,
    first_answer: Mutex<Option<Answer>>,
}

async fn handle(
    State(evaluator): State<Arc<HostileEvaluator>>,
    Extension(channel): Extension<Channel>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let path = request.uri().path().to_owned();
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap_or_default();
    locked(&evaluator.seen).push((path.clone(), body.len()));
    let answer = match path.as_str() {
        paths::ATTESTATION => evaluator.attestation(&body, channel).await,
        path if path.ends_with("/infer") => evaluator.infer(&headers, &body).await,
        _ => Ok(evaluator.metadata()),
    };
    answer.unwrap_or_else(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response())
}

impl HostileEvaluator {
    fn cheat(&self) -> Cheat {
        locked(&self.cheat).clone()
    }

    async fn attestation(&self, nonce: &Bytes, channel: Channel) -> anyhow::Result<Response> {
        let mut draft = self.draft(&Nonce(nonce[..].try_into()?), channel);
        let presentation = match self.cheat() {
            Cheat::Replay(presentation) => presentation,
            Cheat::Relay(to) => {
                let mut genuine = RawClient::connect(to).await?;
                let media_type = [("content-type", ATTESTATION_MEDIA_TYPE)];
                Presentation::from_cbor(&genuine.post(paths::ATTESTATION, &media_type, nonce.clone()).await?.1)?
            }
            Cheat::ExchangePresentations(exchange) => exchange.give(draft.present(&self.attester)?).await?,
            Cheat::Forge(edit) => {
                edit(&mut draft);
                draft.present(&self.attester)?
            }
            _ => draft.present(&self.attester)?,
        };
        locked(&self.shown).push(presentation.clone());
        Ok(presentation.to_cbor().into_response())
    }

    fn draft(&self, nonce: &Nonce, channel: Channel) -> Draft {
        Draft::new(nonce, channel, &self.spki, self.receipt_key.public_key(), &self.manifest)
    }

    fn metadata(&self) -> Response {
        let description = match self.cheat() {
            Cheat::ChangeDescription(other) => other,
            _ => self.description.clone(),
        };
        let ManifestModel { name, version, .. } = &self.manifest.models[0];
        Json(ModelMetadata::new(name, vec![version.clone()], "hostile", STANDARD.encode(description))).into_response()
    }

    async fn infer(&self, headers: &HeaderMap, body: &[u8]) -> anyhow::Result<Response> {
        let length = match headers.get(HEADER_LENGTH) {
            Some(length) => length.to_str()?.parse()?,
            None => header_length(body)?,
        };
        let request = InferRequest::parse(Some(length), body)?;
        if let Some(public_key) = request.public_key {
            *locked(&self.public_key) = Some(public_key.to_vec());
        }
        let mut answer = self.answer(request.ciphertext)?;
        match self.cheat() {
            Cheat::ChangeReply => *answer.0.last_mut().context("an empty reply")? ^= 1,
            Cheat::RepeatAnswer => answer = locked(&self.first_answer).get_or_insert(answer).clone(),
            Cheat::ExchangeAnswers(exchange) => answer = exchange.give(answer).await?,
            _ => {}
        }
        let (ciphertext, receipt) = &answer;
        let ManifestModel { name, version, .. } = &self.manifest.models[0];
        let response =
            InferResponse { model_name: name, model_version: version, id: None, ciphertext, receipt }.to_framed();
        let Framed { header_length, body } = response;
        let mut response = body.into_response();
        response.headers_mut().insert(HEADER_LENGTH, HeaderValue::from(header_length));
        Ok(response)
    }

    fn answer(&self, request: &[u8]) -> anyhow::Result<Answer> {
        let key = locked(&self.public_key).clone().context("no public key was sent")?;
        let ciphertext = self.model.evaluate(request, &PublicKey::from_bytes(&key)?, &mut Scratch::default())?;
        let receipt = Receipt {
            request: Sha384::of(request),
            response: Sha384::of(&ciphertext),
            bundle: self.manifest.models[0].bundle,
            parameters: self.parameters.to_owned(),
            module_id: self.attester.module_id().to_owned(),
            time: UnverifiedDocument::parse(&self.attester.document(None, None, None)?)?.claimed_timestamp(),
        };
        Ok((ciphertext, receipt.sign(&self.receipt_key)))
    }
}
