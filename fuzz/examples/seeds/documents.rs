//! Attestation documents, and the certificates in them.

use cloister_attestation::Link;
use cloister_simulated_enclave::forge::{
    BasicConstraints, CertificateParams, Certificates, DnType, Forge, IsCa, KeyUsagePurpose,
};

use crate::{Corpus, replaced, signed::Enclave};

pub(crate) fn write(enclave: &Enclave) {
    documents(enclave);
    certificates(enclave);
}

/// A code, and the one thing about a document for which it is given.
type Mistake = (&'static str, fn(Forge<'_>) -> Forge<'_>);

fn documents(enclave: &Enclave) {
    let corpus = Corpus::new("document");
    let longest = [0x11; 1024];
    let definite = enclave.forge().payload(|payload| payload.indefinite = false).build();
    corpus.valid("tagged", [&[0xd2], &definite[..]].concat());
    corpus.valid("definite", &definite);
    corpus.valid("answer", &enclave.presentation().document);
    corpus.valid("null-fields", enclave.forge().build());
    corpus.valid("empty-fields", enclave.forge().fields(b"", b"", b"").build());
    corpus.valid("longest-fields", enclave.forge().fields(&longest, &longest, &longest).build());
    corpus.valid("reordered", enclave.forge().payload(|payload| payload.entries.reverse()).build());

    corpus.refused("document_too_large", [0; 16 * 1024 + 1]);
    corpus.refused("malformed_cose-empty", []);
    corpus.refused("malformed_cose-trailing-byte", [&definite[..], &[0]].concat());
    corpus.refused("malformed_cose-tag-17", [&[0xd1], &definite[..]].concat());
    corpus.refused("non_canonical_cose", [&[0x98, 4], &definite[1..]].concat());
    let forged: [Mistake; 16] = [
        ("protected_header", |forge| forge.protected(&[0xa1, 1, 0x26])),
        ("unprotected_header", |forge| forge.elements(|all| all[1] = vec![0xa1, 0x04, 0x41, 0])),
        ("no_payload", |forge| forge.elements(|all| all[2] = vec![0xf6])),
        ("signature_length", |forge| forge.elements(|all| all[3] = vec![0x41, 0])),
        ("signature_invalid", |forge| forge.elements(|all| all[3][2] ^= 1)),
        ("malformed_payload-unknown-key", |forge| forge.payload(|payload| payload.set("\u{1b}[2J", &1))),
        ("malformed_payload-twice", |forge| forge.payload(|payload| payload.repeat("pcrs"))),
        ("malformed_payload-missing", |forge| forge.payload(|payload| payload.remove("nonce"))),
        ("digest_algorithm", |forge| forge.payload(|payload| payload.set("digest", &"SHA512"))),
        ("pcr_index", |forge| forge.pcr(32, Some([1; 48]))),
        ("pcr_length", |forge| forge.payload(|payload| payload.set_encoded("pcrs", vec![0xa1, 0x00, 0x41, 7]))),
        ("empty_cabundle", |forge| forge.certificates(|all| all.cabundle.clear())),
        ("field_too_long", |forge| forge.fields(&[1; 1025], b"", b"")),
        ("certificate_count", |forge| forge.certificates(|all| all.cabundle.truncate(3))),
        ("pcr_missing", |forge| forge.pcr(2, None)),
        ("debug_mode", |forge| forge.pcr(1, Some([0; 48]))),
    ];
    for (code, forge) in forged {
        corpus.refused(code, forge(enclave.forge()).build());
    }
}

fn certificates(enclave: &Enclave) {
    let corpus = Corpus::new("certificate_names");
    let chain = |forge: fn(Forge<'_>) -> Forge<'_>| framed(&enclave.module_id(), forge(enclave.forge()));
    corpus.valid("chain", chain(|forge| forge));
    corpus.refused("malformed_certificate-empty", []);
    corpus.refused("module_id", framed("i-1.x-enc2", enclave.forge()));
    corpus.refused("certificate_name-other-enclave", framed(&format!("{}0", enclave.module_id()), enclave.forge()));

    let forged: [Mistake; 12] = [
        ("certificate_name-leaf", |forge| forge.certificate(Link::Leaf, |leaf| rename(leaf, "i-1-enc2.x.aws"))),
        ("certificate_name-instance", |forge| forge.certificate(Link::Instance, |ca| rename(ca, "\u{1b}[2J"))),
        ("certificate_algorithm", |forge| forge.certificates(|all| all.certificate = with_sha256(&all.certificate))),
        ("certificate_key", |forge| forge.p256(Link::Regional)),
        ("certificate_issuer", |forge| forge.certificates(|all| all.cabundle.swap(1, 2))),
        ("not_an_authority", |forge| forge.certificate(Link::Zonal, |ca| ca.is_ca = IsCa::ExplicitNoCa)),
        ("path_length", |forge| forge.certificate(Link::Zonal, |ca| ca.is_ca = path_length(2))),
        ("leaf_is_authority", |forge| forge.certificate(Link::Leaf, |leaf| leaf.is_ca = path_length(0))),
        ("key_usage-leaf", |forge| forge.certificate(Link::Leaf, |leaf| leaf.key_usages.clear())),
        ("key_usage-authority", |forge| forge.certificate(Link::Regional, |ca| ca.key_usages = sign_only())),
        ("malformed_certificate-long", |forge| forge.certificates(|all| all.certificate.push(0))),
        ("chain_invalid", |forge| forge.certificates(|all| flip_last(&mut all.certificate))),
    ];
    for (code, forge) in forged {
        corpus.refused(code, chain(forge));
    }
}

fn rename(params: &mut CertificateParams, name: &str) {
    params.distinguished_name.push(DnType::CommonName, name);
}

fn path_length(length: u8) -> IsCa {
    IsCa::Ca(BasicConstraints::Constrained(length))
}

fn sign_only() -> Vec<KeyUsagePurpose> {
    vec![KeyUsagePurpose::DigitalSignature]
}

/// Announces ecdsa-with-SHA256 in the signed part.
fn with_sha256(certificate: &[u8]) -> Vec<u8> {
    replaced(certificate, b"\x2a\x86\x48\xce\x3d\x04\x03\x03", b"\x2a\x86\x48\xce\x3d\x04\x03\x02")
}

/// Changes the signature.
fn flip_last(der: &mut [u8]) {
    if let Some(last) = der.last_mut() {
        *last ^= 1;
    }
}

/// The module id and the authorities under the root, each behind its length, and the leaf.
fn framed(module_id: &str, forge: Forge<'_>) -> Vec<u8> {
    let mut framed = Vec::new();
    let keep = |all: &mut Certificates| {
        for part in [module_id.as_bytes()].into_iter().chain(all.cabundle[1..].iter().map(Vec::as_slice)) {
            framed.extend(u16::try_from(part.len()).expect("certificates are short").to_be_bytes());
            framed.extend(part);
        }
        framed.extend(&all.certificate);
    };
    forge.certificates(keep).build();
    framed
}
