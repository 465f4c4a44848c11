//! Documents, and all that goes with them.

use std::{borrow::Cow, sync::LazyLock};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use ciborium::Value;
use cloister_attestation::{
    Archival, At, CertificateCache, Evidence, Live, Manifest, Policy, Presentation, ReceiptKey, ReceiptPublicKey,
    Sha384, Statement, Step, UnverifiedDocument,
};

use crate::{
    Verdict, code, refused,
    world::{self, NOW, POLICY, PRESENTATION},
};

/// The most bytes of a document that are looked at.
const MAX_DOCUMENT: usize = 16 * 1024;

const TAG_18: u8 = 0xd2;

/// An attestation document, as of its own time.
pub fn document(bytes: &[u8]) -> Verdict {
    let parse = |bytes: &[u8]| UnverifiedDocument::parse(bytes).map_err(|error| code!(error));
    let document = parse(bytes);
    if bytes.first() != Some(&TAG_18) && bytes.len() < MAX_DOCUMENT {
        let tagged = parse(&[&[TAG_18], bytes].concat());
        assert_eq!(tagged.err(), document.as_ref().err().copied(), "tag 18 says nothing");
    }
    let document = document?;
    if cfg!(miri) {
        return Ok(());
    }
    let judge = |cache: &CertificateCache| {
        let document = document.clone().authenticate_with(POLICY.root(), At::<Archival>::document(), cache);
        document.map(drop).map_err(|error| code!(error))
    };
    let verdict = judge(&CertificateCache::new(0));
    assert_eq!(judge(&KNOWN), verdict, "documents under known certificates are judged as strictly");
    assert!(verdict.is_err() || world::is_document(bytes), "nobody signed this");
    verdict
}

/// The certificates of every document that was authenticated before.
static KNOWN: LazyLock<CertificateCache> = LazyLock::new(CertificateCache::default);

/// The certificates and names of a document that is otherwise in order, up to the path that they form.
///
/// The bytes are a module id, and the regional, zonal and instance authority, each after its length in two bytes, and then
/// the leaf. Nobody signs the document, so its certificates are accepted if it is refused at its signature.
pub fn certificate_names(bytes: &[u8]) -> Verdict {
    let chain = Chain::split(bytes);
    let authentic = UnverifiedDocument::parse(&chain.unsigned_document())
        .and_then(|document| document.authenticate(POLICY.root(), At::<Archival>::document()));
    let refusal = authentic.expect_err("nobody signed it");
    if refusal.step() != Step::Signature {
        return Err(code!(refusal));
    }
    let issued = Chain::split(include_bytes!("../corpus/certificate_names/valid-chain"));
    assert_eq!(chain.signed(), issued.signed(), "nobody issued these");
    Ok(())
}

struct Chain<'a> {
    module_id: Cow<'a, str>,
    authorities: [&'a [u8]; 3],
    leaf: &'a [u8],
}

impl<'a> Chain<'a> {
    fn split(bytes: &'a [u8]) -> Self {
        let (module_id, rest) = part(bytes);
        let (regional, rest) = part(rest);
        let (zonal, rest) = part(rest);
        let (instance, leaf) = part(rest);
        Self { module_id: String::from_utf8_lossy(module_id), authorities: [regional, zonal, instance], leaf }
    }

    /// A document whose signature is all zeros. Its PCR4 is that of the instance in the module id.
    fn unsigned_document(&self) -> Vec<u8> {
        let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
        let instance = self.module_id.split("-enc").next().unwrap_or_default();
        let instance_pcr = Sha384::of(&[&[0; 48], instance.as_bytes()].concat()).0;
        let pcrs = [(0, [1; 48]), (1, [1; 48]), (2, [1; 48]), (4, instance_pcr)];
        let [regional, zonal, instance] = self.authorities;
        let payload: [(&str, Value); 9] = [
            ("module_id", self.module_id.as_ref().into()),
            ("digest", "SHA384".into()),
            ("timestamp", NOW.millis().into()),
            ("pcrs", Value::Map(pcrs.map(|(index, pcr)| (index.into(), bytes(&pcr))).into())),
            ("certificate", bytes(self.leaf)),
            ("cabundle", Value::Array([POLICY.root().der(), regional, zonal, instance].map(bytes).into())),
            ("public_key", Value::Null),
            ("user_data", Value::Null),
            ("nonce", Value::Null),
        ];
        let payload = cbor(&Value::Map(payload.map(|(key, value)| (key.into(), value)).into()));
        sign1(&ES384, payload, &[0; 96])
    }

    /// The module id, and of each certificate what its issuer signed.
    fn signed(&self) -> (&str, [Option<&[u8]>; 4]) {
        let [regional, zonal, instance] = self.authorities;
        (&self.module_id, [regional, zonal, instance, self.leaf].map(tbs_certificate))
    }
}

/// What stands behind its length, and the rest; whatever is there if that is less.
fn part(bytes: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk() else { return (bytes, &[]) };
    rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()))
}

/// The first part of a certificate, if both have 256 bytes or more, as all in the seeds have.
fn tbs_certificate(certificate: &[u8]) -> Option<&[u8]> {
    let [0x30, 0x82, _, _, tbs @ ..] = certificate else { return None };
    let [0x30, 0x82, high, low, ..] = *tbs else { return None };
    tbs.get(..4 + usize::from(u16::from_be_bytes([high, low])))
}

const ES384: [u8; 4] = [0xa1, 0x01, 0x38, 0x22];
const ES256: [u8; 3] = [0xa1, 0x01, 0x26];

/// A COSE_Sign1 (RFC 9052 §4.2).
fn sign1(protected: &[u8], payload: Vec<u8>, signature: &[u8]) -> Vec<u8> {
    let [protected, signature] = [protected, signature].map(|bytes| Value::Bytes(bytes.to_vec()));
    cbor(&Value::Array(vec![protected, Value::Map(vec![]), Value::Bytes(payload), signature]))
}

fn cbor(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("a Vec takes every byte");
    bytes
}

/// A policy file.
pub fn policy(bytes: &[u8]) -> Verdict {
    let policy = Policy::from_bytes(bytes).map_err(|error| code!(error))?;
    assert_eq!(policy.digest(), Sha384::of(bytes));
    for warning in policy.warnings(NOW) {
        refused(warning.code(), &[warning.to_string()]);
    }
    let written = policy.to_toml();
    let again = Policy::parse(&written).expect("what is written is read");
    assert_eq!(again.to_toml(), written);
    assert_eq!(content(&again), content(&policy));
    Ok(())
}

/// Everything that a policy says.
fn content(policy: &Policy) -> impl PartialEq + std::fmt::Debug {
    let rules = (policy.expires(), policy.channel(), policy.max_age());
    (rules, policy.root().clone(), policy.releases().to_vec(), policy.models().to_vec(), policy.pins().clone())
}

/// What an enclave states about a session.
pub fn statement(bytes: &[u8]) -> Verdict {
    let statement = Statement::from_cbor(bytes).map_err(|error| code!(error))?;
    assert_eq!(statement.to_cbor(), bytes);
    if !cfg!(miri) {
        assert_eq!(statement.user_data(), [&[1], &Sha384::of(bytes).0[..]].concat());
    }
    Ok(())
}

/// What an enclave serves.
pub fn manifest(bytes: &[u8]) -> Verdict {
    let manifest = Manifest::from_cbor(bytes).map_err(|error| code!(error))?;
    assert_eq!(manifest.to_cbor(), bytes);
    for model in &manifest.models {
        let same = manifest.versions(&model.name).filter(|other| other.version == model.version);
        assert_eq!(same.collect::<Vec<_>>(), [model], "a version is listed once");
    }
    Ok(())
}

/// An enclave's answer to the client's challenge, through all twelve steps.
pub fn presentation(bytes: &[u8]) -> Verdict {
    let presentation = Presentation::from_cbor(bytes).map_err(|error| code!(error))?;
    assert_eq!(presentation.to_cbor(), bytes);
    if cfg!(miri) {
        return UnverifiedDocument::parse(&presentation.document).map(drop).map_err(|error| code!(error));
    }
    UnverifiedDocument::parse(&presentation.document)
        .and_then(|document| document.authenticate(POLICY.root(), At::<Live>::now(NOW)))
        .and_then(|document| document.answers(&world::challenge(), &presentation))
        .and_then(|fresh| fresh.require(&POLICY, NOW))
        .map_err(|error| code!(error))?;
    assert!(world::is_document(&presentation.document), "nobody signed this");
    assert_eq!(presentation.receipt_key, PRESENTATION.receipt_key, "nobody vouched for this key");
    assert_eq!(presentation.manifest, PRESENTATION.manifest, "nobody vouched for this manifest");
    Ok(())
}

/// A receipt by the enclave.
pub fn receipt(bytes: &[u8]) -> Verdict {
    if let Ok(key) = ReceiptPublicKey::from_spki(bytes) {
        assert_eq!(key.spki(), bytes);
    }
    world::ENCLAVE.receipt_key().verify(bytes).map_err(|error| code!(error))?;
    assert!(world::is_receipt(bytes), "nobody signed this");
    Ok(())
}

/// The payload of a receipt by an enclave that signs whatever it likes.
pub fn receipt_payload(bytes: &[u8]) -> Verdict {
    let receipt = DISHONEST.public.verify(&DISHONEST.sign(bytes)).map_err(|error| code!(error))?;
    let again = receipt.sign(&ReceiptKey::generate());
    assert!(again[..again.len() - 66].ends_with(bytes), "the payload stands in front of the signature and its head");
    Ok(())
}

static DISHONEST: LazyLock<Dishonest> = LazyLock::new(Dishonest::new);

struct Dishonest {
    key: EcdsaKeyPair,
    public: ReceiptPublicKey,
}

impl Dishonest {
    fn new() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("P-256 is supported");
        let honest = ReceiptKey::generate();
        let head = &honest.public_key()[..honest.public_key().len() - key.public_key().as_ref().len()];
        let public = ReceiptPublicKey::from_spki(&[head, key.public_key().as_ref()].concat());
        Self { key, public: public.expect("the point of a key is on its curve") }
    }

    /// `["Signature1", protected, h'', payload]` is what is signed (RFC 9052 §4.4).
    fn sign(&self, payload: &[u8]) -> Vec<u8> {
        let [protected, nothing, content] = [&ES256[..], &[], payload].map(|bytes| Value::Bytes(bytes.to_vec()));
        let message = cbor(&Value::Array(vec!["Signature1".into(), protected, nothing, content]));
        let signature = self.key.sign(&SystemRandom::new(), &message).expect("there is randomness");
        sign1(&ES256, payload.to_vec(), signature.as_ref())
    }
}

/// Evidence of what the enclave answered.
pub fn evidence(bytes: &[u8]) -> Verdict {
    let evidence = Evidence::from_cbor(bytes).map_err(|error| code!(error))?;
    assert_eq!(evidence.to_cbor(), bytes);
    if cfg!(miri) {
        return Ok(());
    }
    let enclave = evidence.verify(&POLICY, NOW).map_err(|error| code!(error))?;
    let honest = world::ENCLAVE.evidence(vec![]);
    assert!(world::is_document(&evidence.document), "nobody signed this");
    assert_eq!((&evidence.statement, &evidence.manifest), (&honest.statement, &honest.manifest));
    assert!(evidence.receipts.iter().all(|receipt| world::is_receipt(receipt)), "nobody signed this");
    assert_eq!(enclave.receipts().len(), evidence.receipts.len());
    Ok(())
}
