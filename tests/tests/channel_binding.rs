//! What a document is bound to: this nonce, this session, these keys, this enclave. Whatever is exchanged is refused.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::sync::Arc;

use cloister_attestation::{
    At, Challenge, Channel, ChannelRule, Limits, Live, Loadable, Manifest, ManifestModel, Nonce, Pins, Policy,
    Presentation, ReceiptKey, Sha384, Statement, Timestamp, UnverifiedDocument, VerificationError,
};
use cloister_client::{AttestedConnection, Error};
use cloister_e2e::{
    hostile::{
        BUNDLE, Cheat, Draft, Exchange, Hostile, nonce, not_verified,
        parent::{Parent, Tamper},
        trusting,
    },
    iris::Iris,
    raw::RawClient,
    world::{Link, World},
};
use cloister_enclave::{Attester, Claims};
use cloister_simulated_enclave::{Authority, Identity};
use cloister_wire::paths;

/// What is said, how, and the error's code.
type Forgery = (&'static str, fn(&mut Draft), &'static str);

/// The enclave is genuine in each of these, and answers in one part with something else.
const FORGERIES: [Forgery; 20] = [
    ("no nonce", |draft| draft.nonce.clear(), "nonce_mismatch"),
    ("half of the nonce", |draft| draft.nonce.truncate(16), "nonce_mismatch"),
    ("a longer nonce", |draft| draft.nonce.push(0), "nonce_mismatch"),
    ("the nonce reversed", |draft| draft.nonce.reverse(), "nonce_mismatch"),
    ("another TLS key in the document", |draft| draft.public_key = other_key(), "public_key_mismatch"),
    (
        "another TLS key in document and statement",
        |draft| {
            draft.public_key = other_key();
            draft.statement.spki = draft.public_key.clone();
        },
        "public_key_mismatch",
    ),
    ("another TLS key in the statement", |draft| draft.statement.spki = other_key(), "statement_mismatch"),
    ("no exporter", |draft| draft.statement.channel = Channel::None, "statement_mismatch"),
    ("an exporter of zeros", |draft| draft.statement.channel = Channel::TlsExporter([0; 32]), "statement_mismatch"),
    ("another receipt key is stated", |draft| draft.statement.receipt_key = other_key(), "statement_mismatch"),
    ("another enclave's receipt key is shown", |draft| draft.receipt_key = other_key(), "statement_mismatch"),
    ("another manifest is stated", |draft| draft.statement.manifest = Sha384([0; 48]), "statement_mismatch"),
    ("another enclave's manifest is shown", |draft| draft.manifest = other_manifest(draft), "statement_mismatch"),
    (
        "receipt key and manifest exchanged",
        |draft| std::mem::swap(&mut draft.receipt_key, &mut draft.manifest),
        "statement_mismatch",
    ),
    ("no commitment", |draft| draft.user_data = Some(Vec::new()), "statement_mismatch"),
    ("another kind of commitment", |draft| commit(draft, |user_data| user_data[0] = 2), "statement_mismatch"),
    ("more than a commitment", |draft| commit(draft, |user_data| user_data.push(0)), "statement_mismatch"),
    ("a statement that is for something else", in_another_domain, "statement_mismatch"),
    (
        "a receipt key that is none",
        |draft| {
            draft.receipt_key = b"key".to_vec();
            draft.statement.receipt_key = draft.receipt_key.clone();
        },
        "receipt_key_invalid",
    ),
    (
        "a manifest that is none",
        |draft| {
            draft.manifest = b"manifest".to_vec();
            draft.statement.manifest = Sha384::of(&draft.manifest);
        },
        "manifest_invalid",
    ),
];

fn other_key() -> Vec<u8> {
    ReceiptKey::generate().public_key().to_vec()
}

fn other_manifest(draft: &Draft) -> Vec<u8> {
    let mut manifest = Manifest::from_cbor(&draft.manifest).unwrap();
    manifest.models[0].version.push('0');
    manifest.to_cbor()
}

fn commit(draft: &mut Draft, edit: fn(&mut Vec<u8>)) {
    let mut user_data = draft.statement.user_data();
    edit(&mut user_data);
    draft.user_data = Some(user_data);
}

/// The very same statement under another heading of the same length, so that nothing but the heading differs.
fn in_another_domain(draft: &mut Draft) {
    let (domain, other) = (b"cloister/attestation", b"cloister/receiptions");
    let mut statement = draft.statement.to_cbor();
    let at = statement.windows(domain.len()).position(|window| window == domain).unwrap();
    statement[at..at + domain.len()].copy_from_slice(other);
    draft.user_data = Some([&[1][..], &Sha384::of(&statement).0].concat());
}

#[tokio::test]
async fn whatever_an_enclave_attests_beside_the_truth_is_refused_by_name() {
    let authority = Authority::ephemeral();
    for (name, forge, code) in FORGERIES {
        let hostile = Hostile::cheating(&authority, Cheat::Forge(forge)).await.unwrap();
        assert_eq!(hostile.refusal(trusting(&authority)).await.unwrap().code(), code, "{name}");
    }
}

#[tokio::test]
async fn a_refused_exporter_is_shown_with_the_one_that_was_expected() {
    let authority = Authority::ephemeral();
    let other: fn(&mut Draft) = |draft| draft.statement.channel = Channel::TlsExporter([0; 32]);
    let hostile = Hostile::cheating(&authority, Cheat::Forge(other)).await.unwrap();
    let refusal = hostile.refusal(trusting(&authority)).await.unwrap();
    let VerificationError::StatementMismatch { expected, actual } = refusal else { panic!("{refusal}") };
    assert_ne!(expected, actual);
    assert!([expected, actual].iter().all(|user_data| user_data.len() == 2 * 49 && user_data.starts_with("01")));
}

#[tokio::test]
async fn presentations_that_are_exchanged_between_two_sessions_of_a_client_are_refused_in_both() {
    let authority = Authority::ephemeral();
    let exchange = Arc::new(Exchange::default());
    let hostile = Hostile::cheating(&authority, Cheat::ExchangePresentations(exchange)).await.unwrap();
    let endpoint = hostile.endpoint().unwrap();
    let open = || AttestedConnection::open(&endpoint, trusting(&authority));
    let (one, other) = tokio::join!(open(), open());
    let refusals = [one, other].map(|refused| not_verified(refused.unwrap_err()).unwrap());
    assert_eq!(hostile.seen(), [nonce(), nonce()]);

    let [one, other] = refusals;
    let VerificationError::NonceMismatch { expected, actual } = one else { panic!("{one}") };
    assert_eq!(
        other,
        VerificationError::NonceMismatch { expected: actual, actual: expected },
        "each got what was made for the other"
    );
}

#[tokio::test]
async fn answers_that_are_exchanged_between_two_sessions_are_refused_in_both() {
    let authority = Authority::ephemeral();
    let exchange = Arc::new(Exchange::default());
    let hostile = Hostile::cheating(&authority, Cheat::ExchangeAnswers(exchange)).await.unwrap();
    let endpoint = hostile.endpoint().unwrap();
    let rows = Iris::load().unwrap().rows;
    let infer = async || {
        let mut connection = AttestedConnection::open(&endpoint, trusting(&authority)).await.unwrap();
        connection.model("iris").await.unwrap().infer(&rows[..1]).await.unwrap_err().code()
    };
    assert_eq!(tokio::join!(infer(), infer()), ("request_mismatch", "request_mismatch"));
}

#[tokio::test]
async fn an_answer_that_comes_again_is_refused_and_not_decrypted() {
    let authority = Authority::ephemeral();
    let hostile = Hostile::cheating(&authority, Cheat::RepeatAnswer).await.unwrap();
    let rows = Iris::load().unwrap().rows;
    let mut connection = AttestedConnection::open(&hostile.endpoint().unwrap(), trusting(&authority)).await.unwrap();
    let mut model = connection.model("iris").await.unwrap();
    model.infer(&rows[..1]).await.unwrap();
    assert_eq!(model.infer(&rows[..1]).await.unwrap_err().code(), "request_mismatch");
    assert!(matches!(model.infer(&rows[..1]).await, Err(Error::SessionSpent)));
}

/// SECURITY.md does not promise which one of several equal enclaves answers, unless the policy pins one.
#[tokio::test]
async fn a_diversion_to_another_genuine_enclave_is_refused_by_whoever_pinned_one_and_by_nobody_else() {
    let authority = Authority::ephemeral();
    let meant = Identity::random();
    let pinned = |pins| trusting(&authority).with_pins(pins).unwrap();
    let by_module = pinned(Pins { module_id: Some(meant.module_id()), ..Pins::default() });
    let by_instance = pinned(Pins { pcr4: Some(meant.pcrs[&4]), ..Pins::default() });

    let divert = async || {
        let other = Hostile::honest(&authority).await.unwrap();
        let parent = Parent::start(other.address, Tamper::Nothing).await.unwrap();
        (other, parent.endpoint().unwrap())
    };
    let (other, endpoint) = divert().await;
    let connection = AttestedConnection::open(&endpoint, trusting(&authority)).await.unwrap();
    assert_eq!(connection.enclave().module_id(), other.identity().module_id());

    let (other, endpoint) = divert().await;
    let error = AttestedConnection::open(&endpoint, by_module).await.unwrap_err();
    let (expected, actual) = (meant.module_id(), other.identity().module_id());
    assert_eq!(not_verified(error).unwrap(), VerificationError::PinnedModuleIdMismatch { expected, actual });
    assert_eq!(other.seen(), [nonce()]);

    let (other, endpoint) = divert().await;
    let error = AttestedConnection::open(&endpoint, by_instance).await.unwrap_err();
    let [expected, actual] = [&meant, other.identity()].map(|identity| hex(&identity.pcrs[&4]));
    assert_eq!(not_verified(error).unwrap(), VerificationError::PinnedPcrMismatch { index: 4, expected, actual });
    assert_eq!(other.seen(), [nonce()]);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An enclave's answer over the channel that it states, to the nonce of a challenge whose channel is `asked`.
fn judge(stated: Channel, asked: Channel, policy: &Policy, authority: &Authority) -> Result<(), VerificationError> {
    let challenge = Challenge { nonce: Nonce([1; 32]), channel: asked, spki: other_key() };
    let (receipt_key, manifest) = (other_key(), manifest().to_cbor());
    let statement = Statement {
        channel: stated,
        spki: challenge.spki.clone(),
        receipt_key: receipt_key.clone(),
        manifest: Sha384::of(&manifest),
    };
    let claims = Claims { nonce: &challenge.nonce.0, public_key: &challenge.spki, user_data: &statement.user_data() };
    let document = authority.enclave(Identity::random()).attest(&claims).unwrap();
    let presentation = Presentation { document, receipt_key, manifest };
    let now = Timestamp::now();
    UnverifiedDocument::parse(&presentation.document)?
        .authenticate(policy.root(), At::<Live>::now(now))?
        .answers(&challenge, &presentation)?
        .require(policy, now)?;
    Ok(())
}

fn manifest() -> Manifest {
    let models = vec![ManifestModel {
        name: "iris".into(),
        version: "1".into(),
        bundle: Sha384(BUNDLE.digest()),
        description: Sha384(BUNDLE.description().digest()),
    }];
    Manifest { models, limits: Limits { max_request_bytes: 65536 }, loadable: Loadable::None }
}

#[test]
fn a_document_of_one_kind_of_channel_is_refused_where_the_other_was_asked_for() {
    let authority = Authority::ephemeral();
    let required = trusting(&authority);
    let optional = trusting(&authority).with_channel(ChannelRule::Optional);
    let tls = Channel::TlsExporter([9; 32]);
    let code = |stated, asked, policy| judge(stated, asked, policy, &authority).map_err(|error| error.code());
    for policy in [&required, &optional] {
        assert_eq!(code(tls, tls, policy), Ok(()));
        assert_eq!(code(Channel::None, tls, policy), Err("statement_mismatch"), "on the TLS port");
        assert_eq!(code(tls, Channel::None, policy), Err("statement_mismatch"), "where TLS ends before the enclave");
    }
    assert_eq!(code(Channel::None, Channel::None, &optional), Ok(()), "both asked for and allowed");
    assert_eq!(
        judge(Channel::None, Channel::None, &required, &authority),
        Err(VerificationError::ChannelRequired),
        "asked for, but not allowed"
    );
}

#[tokio::test]
async fn the_tls_port_gives_documents_of_its_own_session_and_never_of_no_channel() {
    let world = World::start(Link::Tcp).unwrap();
    let address = format!("{}:{}", world.endpoint.host(), world.endpoint.port()).parse().unwrap();
    let mut client = RawClient::connect(address).await.unwrap();
    let user_data = async |client: &mut RawClient, channel: Channel| {
        let (status, answer) = client.post(paths::ATTESTATION, &[], vec![3; 32]).await.unwrap();
        assert_eq!(status, 200);
        let Presentation { document, receipt_key, manifest } = Presentation::from_cbor(&answer).unwrap();
        let root = world.policy().unwrap().root().clone();
        let document = UnverifiedDocument::parse(&document).unwrap();
        let document = document.authenticate(&root, At::<Live>::now(Timestamp::now())).unwrap();
        let spki = document.public_key().unwrap().to_vec();
        let statement = Statement { channel, spki, receipt_key, manifest: Sha384::of(&manifest) };
        (document.user_data().unwrap().to_vec(), statement.user_data())
    };
    let ours = client.channel;
    let (actual, expected) = user_data(&mut client, ours).await;
    assert_eq!(actual, expected);
    let (actual, without_channel) = user_data(&mut client, Channel::None).await;
    assert_ne!(actual, without_channel);
    let theirs = RawClient::connect(address).await.unwrap().channel;
    let (actual, of_another_session) = user_data(&mut client, theirs).await;
    assert_ne!(actual, of_another_session);
}
