//! The verification of a document of the shape and algorithms of AWS's, in one thread of this process.

use cloister_attestation::{
    At, CertificateCache, Challenge, Channel, Limits, Live, Loadable, Manifest, Nonce, Policy, Presentation,
    ReceiptKey, Refusal, Statement, Timestamp, UnverifiedDocument, VerifiedEnclave,
};
use cloister_enclave::{Attester, Claims};
use cloister_simulated_enclave::{Authority, Identity, policy};

use crate::{Figure, median, microseconds};

const REPETITIONS: usize = 1000;

pub(crate) fn measure() -> anyhow::Result<Vec<Figure>> {
    let authority = Authority::ephemeral();
    let policy = policy(&authority, &[]);
    let (challenge, presentation) = exchange(&authority)?;
    let (cold, cache) = (CertificateCache::new(0), CertificateCache::default());
    let (mut full, mut cached) = (Vec::new(), Vec::new());
    verify(&challenge, &presentation, &policy, &cache)?;
    // In turn, so that both see the same weather.
    for _ in 0..REPETITIONS {
        full.push(microseconds(|| verify(&challenge, &presentation, &policy, &cold)));
        cached.push(microseconds(|| verify(&challenge, &presentation, &policy, &cache)));
    }
    let figure = |id: &str, value, unit| Figure { id: id.into(), value, unit };
    Ok(vec![
        figure("attestation/document/bytes", presentation.document.len() as f64, "bytes"),
        figure("attestation/document/verify_us", median(full), "us"),
        figure("attestation/document/verify_cached_us", median(cached), "us"),
    ])
}

/// A client's challenge and an enclave's answer.
fn exchange(authority: &Authority) -> anyhow::Result<(Challenge, Presentation)> {
    let (enclave, receipt_key) = (authority.enclave(Identity::random()), ReceiptKey::generate());
    let manifest =
        Manifest { models: Vec::new(), limits: Limits { max_request_bytes: 1 << 20 }, loadable: Loadable::None };
    let statement = Statement {
        channel: Channel::TlsExporter([7; 32]),
        spki: receipt_key.public_key().to_vec(),
        receipt_key: receipt_key.public_key().to_vec(),
        manifest: manifest.digest(),
    };
    let nonce = Nonce::random();
    let claims = Claims { nonce: &nonce.0, public_key: &statement.spki, user_data: &statement.user_data() };
    let document = enclave.attest(&claims)?;
    let presentation =
        Presentation { document, receipt_key: statement.receipt_key.clone(), manifest: manifest.to_cbor() };
    Ok((Challenge { nonce, channel: statement.channel, spki: statement.spki }, presentation))
}

/// All twelve steps.
fn verify(
    challenge: &Challenge,
    presentation: &Presentation,
    policy: &Policy,
    cache: &CertificateCache,
) -> Result<VerifiedEnclave, Refusal> {
    let now = Timestamp::now();
    UnverifiedDocument::parse(&presentation.document)?
        .authenticate_with(policy.root(), At::<Live>::now(now), cache)?
        .answers(challenge, presentation)?
        .require(policy, now)
}
