//! What an enclave states and signs.

use std::time::Duration;

use ciborium::Value;
use cloister_attestation::{
    Channel, ChannelRule, Evidence, Limits, Loadable, Manifest, ManifestModel, Policy, PolicyModel, Presentation,
    Receipt, ReceiptKey, Release, Sha384, Statement, Timestamp,
};
use cloister_fuzz::world::{self, NONCE, NOW, TLS_KEY};
use cloister_inference::Bundle;
use cloister_simulated_enclave::{Authority, Identity, forge::Forge};

use crate::{Corpus, Exchange};

const MINUTE: Duration = Duration::from_secs(60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The one enclave, and the authority that signs for it.
pub(crate) struct Enclave {
    authority: Authority,
    identity: Identity,
    receipt_key: ReceiptKey,
    statement: Statement,
    manifest: Manifest,
    presentation: Presentation,
}

impl Enclave {
    pub(crate) fn new(bundle: &Bundle) -> Self {
        let (authority, identity, receipt_key) = (Authority::ephemeral(), Identity::random(), ReceiptKey::generate());
        let model = ManifestModel {
            name: bundle.name().into(),
            bundle: Sha384(bundle.digest()),
            version: bundle.version().into(),
            description: Sha384(bundle.description().digest()),
        };
        let manifest =
            Manifest { models: vec![model], limits: Limits { max_request_bytes: 65536 }, loadable: Loadable::None };
        let statement = Statement {
            channel: world::challenge().channel,
            spki: TLS_KEY.to_vec(),
            receipt_key: receipt_key.public_key().to_vec(),
            manifest: manifest.digest(),
        };
        let forge = Forge::new(&authority, identity.clone(), NOW);
        let presentation = Presentation {
            document: forge.fields(&NONCE, TLS_KEY, &statement.user_data()).build(),
            receipt_key: receipt_key.public_key().to_vec(),
            manifest: manifest.to_cbor(),
        };
        Self { authority, identity, receipt_key, statement, manifest, presentation }
    }

    pub(crate) fn forge<'a>(&self) -> Forge<'a> {
        Forge::new(&self.authority, self.identity.clone(), NOW)
    }

    pub(crate) fn module_id(&self) -> String {
        self.identity.module_id()
    }

    pub(crate) fn presentation(&self) -> &Presentation {
        &self.presentation
    }

    /// Accepts it, for a year.
    pub(crate) fn policy(&self) -> Policy {
        let mut policy =
            Policy::new(NOW.plus(YEAR)).with_root(self.authority.root()).with_channel(ChannelRule::Required);
        let pcrs = Identity::measurements();
        let release = Release { name: "simulated".into(), pcrs, not_after: None, revoked: None };
        policy.add_release(release).expect("the measurements are no zeros");
        for ManifestModel { name, bundle, .. } in &self.manifest.models {
            policy
                .add_model(PolicyModel { name: name.clone(), digest: *bundle })
                .expect("the name is that of a bundle");
        }
        policy
    }

    /// What it says of an exchange, a minute after its document.
    pub(crate) fn receipt(&self, exchange: &Exchange) -> Receipt {
        Receipt {
            request: Sha384::of(&exchange.request),
            response: Sha384::of(&exchange.reply),
            bundle: self.manifest.models[0].bundle,
            parameters: "n2048-tuniform17".into(),
            module_id: self.module_id(),
            time: NOW.plus(MINUTE),
        }
    }

    pub(crate) fn sign(&self, receipt: &Receipt) -> Vec<u8> {
        receipt.sign(&self.receipt_key)
    }

    fn evidence(&self, receipts: &[&[u8]]) -> Evidence {
        Evidence {
            document: self.presentation.document.clone(),
            statement: self.statement.to_cbor(),
            manifest: self.manifest.to_cbor(),
            receipts: receipts.iter().map(|receipt| receipt.to_vec()).collect(),
            policy: self.policy().digest(),
        }
    }
}

pub(crate) fn write(enclave: &Enclave, exchange: &Exchange, other: &Exchange) {
    statements(&enclave.statement);
    manifests(&enclave.manifest);
    presentations(enclave.presentation());
    let signed = [exchange, other].map(|exchange| enclave.sign(&enclave.receipt(exchange)));
    receipts(enclave, exchange, &signed);
    evidence(enclave, exchange, &signed);
}

fn statements(statement: &Statement) {
    let corpus = Corpus::new("statement");
    let bytes = statement.to_cbor();
    corpus.valid("tls", &bytes);
    let channel = Channel::None;
    corpus.valid("no-channel", Statement { channel, ..statement.clone() }.to_cbor());
    corpus.valid("empty-keys", Statement { spki: vec![], receipt_key: vec![], ..statement.clone() }.to_cbor());
    mistakes(&corpus, &bytes, "malformed", "newer_version", "not_deterministic");
    corpus.refused("too_large", [0; 4097]);
    corpus.refused("malformed-domain", edited(&bytes, |map| set(map, "domain", "\u{1b}[2J")));
    corpus.refused("malformed-channel", edited(&bytes, |map| set(map, "channel", "none")));
    corpus.refused("malformed-exporter", edited(&bytes, |map| set(map, "exporter", Value::Bytes(vec![0; 31]))));
}

fn manifests(manifest: &Manifest) {
    let corpus = Corpus::new("manifest");
    let limits = manifest.limits;
    let model = |name: &str| ManifestModel { name: name.into(), ..manifest.models[0].clone() };
    let manifest = |models, loadable| Manifest { models, limits, loadable }.to_cbor();
    let bytes = manifest(vec![model("iris")], Loadable::None);
    corpus.valid("iris", &bytes);
    corpus.valid("none", manifest(vec![], Loadable::Any));
    corpus.valid("two", manifest(vec![model("iris"), model("")], Loadable::Listed(vec![Sha384::of(b"")])));
    mistakes(&corpus, &bytes, "malformed", "newer_version", "not_deterministic");
    corpus.refused("malformed-name-twice", manifest(vec![model("\u{1b}[2J"), model("\u{1b}[2J")], Loadable::None));
}

fn presentations(presentation: &Presentation) {
    let corpus = Corpus::new("presentation");
    let bytes = presentation.to_cbor();
    corpus.valid("answer", &bytes);
    let code = "presentation_malformed";
    mistakes(&corpus, &bytes, code, "presentation_malformed-newer", "presentation_malformed-not-deterministic");
    let other_key = ReceiptKey::generate().public_key().to_vec();
    corpus.refused("statement_mismatch", Presentation { receipt_key: other_key, ..presentation.clone() }.to_cbor());
    corpus.refused("malformed_cose", Presentation { document: vec![], ..presentation.clone() }.to_cbor());
}

fn receipts(enclave: &Enclave, exchange: &Exchange, [receipt, other]: &[Vec<u8>; 2]) {
    let corpus = Corpus::new("receipt");
    corpus.valid("iris", receipt);
    corpus.valid("another-request", other);
    let forged = enclave.receipt(exchange).sign(&ReceiptKey::generate());
    corpus.refused("receipt_signature_invalid", forged);
    corpus.refused("receipt_malformed-key", enclave.receipt_key.public_key());
    corpus.refused("receipt_malformed-trailing-byte", [receipt, &[0][..]].concat());
    corpus.refused("receipt_malformed-too-large", [0; 4097]);
    receipt_payloads(receipt);
}

fn receipt_payloads(receipt: &[u8]) {
    let corpus = Corpus::new("receipt_payload");
    let Ok(Value::Array(sign1)) = ciborium::from_reader(receipt) else { panic!("a receipt is a COSE_Sign1") };
    let payload = sign1[2].as_bytes().expect("it has a payload");
    corpus.valid("iris", payload);
    corpus.valid("last-moment", edited(payload, |map| set(map, "time", u64::MAX)));
    corpus.refused("receipt_malformed-empty", []);
    corpus.refused("receipt_malformed-truncated", &payload[..payload.len() - 1]);
    corpus.refused("receipt_malformed-trailing-byte", [&payload[..], &[0]].concat());
    corpus.refused("receipt_malformed-newer", edited(payload, |map| set(map, "v", 2)));
    corpus.refused("receipt_malformed-domain", edited(payload, |map| set(map, "domain", "\u{1b}[2J")));
}

fn evidence(enclave: &Enclave, exchange: &Exchange, [receipt, other]: &[Vec<u8>; 2]) {
    let corpus = Corpus::new("evidence");
    let evidence = enclave.evidence(&[receipt]);
    let bytes = evidence.to_cbor();
    corpus.valid("one-receipt", &bytes);
    corpus.valid("two-receipts", enclave.evidence(&[receipt, other]).to_cbor());
    let code = "evidence_malformed";
    mistakes(&corpus, &bytes, code, "evidence_malformed-newer", "evidence_malformed-not-deterministic");
    corpus.refused("no_receipts", enclave.evidence(&[]).to_cbor());
    corpus.refused("malformed_cose", Evidence { document: vec![], ..evidence.clone() }.to_cbor());
    corpus.refused("evidence_malformed-statement", Evidence { statement: vec![], ..evidence.clone() }.to_cbor());
    corpus.refused("manifest_mismatch", Evidence { manifest: vec![], ..evidence.clone() }.to_cbor());
    let statement = Statement { spki: vec![], ..enclave.statement.clone() }.to_cbor();
    corpus.refused("public_key_mismatch", Evidence { statement, ..evidence.clone() }.to_cbor());
    let channel = Channel::None;
    let statement = Statement { channel, ..enclave.statement.clone() }.to_cbor();
    corpus.refused("statement_mismatch", Evidence { statement, ..evidence }.to_cbor());

    let refused = |code: &str, change: fn(&mut Receipt)| {
        let mut changed = enclave.receipt(exchange);
        change(&mut changed);
        corpus.refused(code, enclave.evidence(&[receipt, &enclave.sign(&changed)]).to_cbor());
    };
    refused("bundle_mismatch", |receipt| receipt.bundle = Sha384([1; 48]));
    refused("module_id_mismatch", |receipt| receipt.module_id = "\u{1b}[2J".into());
    refused("receipt_before_document", |receipt| receipt.time = Timestamp::from_millis(0));
    refused("receipt_long_after_document", |receipt| receipt.time = Timestamp::from_millis(u64::MAX));
}

/// What may be wrong with any deterministic map.
fn mistakes(corpus: &Corpus, bytes: &[u8], malformed: &str, newer: &str, not_deterministic: &str) {
    corpus.refused(&format!("{malformed}-empty"), []);
    corpus.refused(&format!("{malformed}-truncated"), &bytes[..bytes.len() - 1]);
    corpus.refused(&format!("{malformed}-unknown-key"), edited(bytes, |map| map.push(("\u{1b}[2J".into(), 1.into()))));
    corpus.refused(&format!("{malformed}-twice"), edited(bytes, |map| map.push(map[0].clone())));
    corpus.refused(newer, edited(bytes, |map| set(map, "v", 2)));
    corpus.refused(&format!("{not_deterministic}-order"), edited(bytes, |map| map.reverse()));
    corpus.refused(&format!("{not_deterministic}-trailing-byte"), [bytes, &[0]].concat());
}

type Map = Vec<(Value, Value)>;

/// A CBOR map, with something changed.
fn edited(bytes: &[u8], change: impl FnOnce(&mut Map)) -> Vec<u8> {
    let Ok(Value::Map(mut map)) = ciborium::from_reader(bytes) else { panic!("the bytes are a map") };
    change(&mut map);
    let mut edited = Vec::new();
    ciborium::into_writer(&Value::Map(map), &mut edited).expect("a Vec takes every byte");
    edited
}

fn set(map: &mut Map, key: &str, value: impl Into<Value>) {
    let entry = map.iter_mut().find(|(known, _)| known.as_text() == Some(key));
    entry.expect("the map has this key").1 = value.into();
}
