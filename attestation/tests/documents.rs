//! One forged document per check: everything else about it is right, and the error is exactly that check's.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::time::Duration;

use cloister_attestation::{
    Archival, At, AuthenticDocument, CertificateCache, CertificateError, CoseError, Link, Live, PayloadError, Root,
    Step, Timestamp, UnverifiedDocument, VerificationError,
};
use cloister_simulated_enclave::{
    Authority, Identity,
    forge::{BasicConstraints, CertificateParams, CustomExtension, DnType, DnValue, Forge, IsCa, KeyUsagePurpose},
};

const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);

/// An authority and one of its enclaves.
struct World {
    authority: Authority,
    identity: Identity,
}

impl World {
    fn new() -> Self {
        Self { authority: Authority::ephemeral(), identity: Identity::random() }
    }

    fn forge<'a>(&self) -> Forge<'a> {
        Forge::new(&self.authority, self.identity.clone(), NOW)
    }

    fn judge(&self, document: &[u8]) -> Result<AuthenticDocument<Archival>, VerificationError> {
        Ok(UnverifiedDocument::parse(document)?.authenticate(&self.authority.root(), At::document())?)
    }
}

/// Forges a document and returns why it is refused.
fn refusal<'a>(forge: impl FnOnce(Forge<'a>) -> Forge<'a>) -> VerificationError {
    let world = World::new();
    world.judge(&forge(world.forge()).build()).expect_err("the document is forged")
}

fn cose<'a>(forge: impl FnOnce(Forge<'a>) -> Forge<'a>) -> CoseError {
    match refusal(forge) {
        VerificationError::Cose(error) => error,
        other => panic!("{other}"),
    }
}

fn payload<'a>(forge: impl FnOnce(Forge<'a>) -> Forge<'a>) -> PayloadError {
    match refusal(forge) {
        VerificationError::Payload(error) => error,
        other => panic!("{other}"),
    }
}

fn certificate<'a>(forge: impl FnOnce(Forge<'a>) -> Forge<'a>) -> CertificateError {
    match refusal(forge) {
        VerificationError::Certificate(error) => error,
        other => panic!("{other}"),
    }
}

/// What the payload's parser says of a payload that is not the map it should be.
fn malformed<'a>(forge: impl FnOnce(Forge<'a>) -> Forge<'a>) -> String {
    match payload(forge) {
        PayloadError::Malformed(reason) => reason,
        other => panic!("{other}"),
    }
}

#[test]
fn a_valid_document_passes_eight_steps() {
    let world = World::new();
    let document = world.judge(&world.forge().fields(b"nonce", b"key", b"data").build()).unwrap();
    assert!(document.steps().iter().map(|report| report.step).eq(Step::ALL.into_iter().take(8)));
    assert!(document.simulated());
    assert_eq!(document.module_id(), world.identity.module_id());
    assert_eq!(document.region(), world.identity.region);
    assert_eq!(document.timestamp(), NOW);
    assert_eq!(document.nonce(), Some(&b"nonce"[..]));
    assert_eq!(document.public_key(), Some(&b"key"[..]));
    assert_eq!(document.user_data(), Some(&b"data"[..]));
    assert!(document.pcrs().iter().map(|(index, _)| index).eq(0..16));
    assert_eq!(document.pcrs().get(0), Some(&world.identity.pcrs[&0][..]));
    assert_eq!(document.pcrs().get(16), None);
}

#[test]
fn whoever_sent_a_nonce_requires_it_of_a_document_alone() {
    let world = World::new();
    let document = || world.judge(&world.forge().fields(b"nonce", b"key", b"data").build()).unwrap();
    let answered = document().answers_nonce(b"nonce").unwrap();
    assert_eq!(answered.steps().last().map(|report| report.step), Some(Step::Nonce));
    let refusal = document().answers_nonce(b"another").unwrap_err();
    assert_eq!((refusal.step(), refusal.code(), refusal.passed.len()), (Step::Nonce, "nonce_mismatch", 8));
}

#[test]
fn both_forms_of_the_map_are_read() {
    for indefinite in [false, true] {
        let world = World::new();
        let document = world.forge().payload(|payload| payload.indefinite = indefinite).build();
        world.judge(&document).unwrap();
    }
}

#[test]
fn empty_fields_are_not_absent_fields() {
    let world = World::new();
    let document = world.judge(&world.forge().fields(b"", b"", b"").build()).unwrap();
    assert_eq!((document.nonce(), document.public_key()), (Some(&b""[..]), Some(&b""[..])));
    let document = world.judge(&world.forge().build()).unwrap();
    assert_eq!((document.nonce(), document.public_key()), (None, None));
}

mod size_and_cose {
    use super::*;

    #[test]
    fn a_document_over_16_kib() {
        let expected = VerificationError::TooLarge { limit: 16384, actual: 16385 };
        let refused = UnverifiedDocument::parse(&[0; 16385]).unwrap_err();
        assert_eq!((*refused.error, refused.passed), (expected, Vec::new()));
    }

    #[test]
    fn tags() {
        let world = World::new();
        let document = world.forge().build();
        world.judge(&[&[0xd2], &document[..]].concat()).unwrap();
        for tag in [&[0xd1][..], &[0xd2, 0xd2], &[0xd8, 18], &[0xd8, 61, 0xd2]] {
            let refused = world.judge(&[tag, &document[..]].concat()).unwrap_err();
            assert!(matches!(refused, VerificationError::Cose(CoseError::Malformed(_))), "{tag:?}: {refused}");
        }
    }

    #[test]
    fn trailing_and_missing_bytes() {
        let world = World::new();
        let document = world.forge().build();
        let refused = world.judge(&[&document[..], &[0]].concat()).unwrap_err();
        assert!(matches!(refused, VerificationError::Cose(CoseError::Malformed(_))), "{refused}");
        for length in (0..document.len()).step_by(97) {
            let refused = world.judge(&document[..length]).unwrap_err();
            assert!(matches!(refused, VerificationError::Cose(CoseError::Malformed(_))), "{refused}");
        }
    }

    #[test]
    fn another_number_of_elements() {
        assert!(matches!(cose(|forge| forge.elements(|all| all.push(vec![0xf6]))), CoseError::Malformed(_)));
        assert!(matches!(cose(|forge| forge.elements(|all| drop(all.pop()))), CoseError::Malformed(_)));
    }

    #[test]
    fn an_indefinite_or_longer_array() {
        let world = World::new();
        let document = world.forge().build();
        for (head, tail) in [(&[0x9f][..], &[0xff][..]), (&[0x98, 4], &[])] {
            let refused = world.judge(&[head, &document[1..], tail].concat()).unwrap_err();
            assert_eq!(refused, VerificationError::Cose(CoseError::NotCanonical));
        }
    }

    #[test]
    fn a_chunked_signature() {
        let chunk = |all: &mut Vec<Vec<u8>>| all[3] = [&[0x5f], &all[3][..], &[0xff]].concat();
        assert_eq!(cose(|forge| forge.elements(chunk)), CoseError::NotCanonical);
    }

    #[test]
    fn another_algorithm() {
        let expected =
            |actual: &str| CoseError::Protected { expected: "a1013822".to_owned(), actual: actual.to_owned() };
        assert_eq!(cose(|forge| forge.protected(&[0xa1, 1, 0x26])), expected("a10126"));
        assert_eq!(cose(|forge| forge.protected(&[0xa0])), expected("a0"));
        assert_eq!(cose(|forge| forge.protected(&[])), expected(""));
    }

    #[test]
    fn more_in_the_protected_header() {
        let header = [0xa2, 0x01, 0x38, 0x22, 0x04, 0x41, 0x00];
        let refused = cose(|forge| forge.protected(&header));
        assert!(matches!(refused, CoseError::Protected { .. }), "{refused}");
    }

    #[test]
    fn the_same_header_in_another_encoding() {
        let refused = cose(|forge| forge.protected(&[0xa1, 0x18, 0x01, 0x38, 0x22]));
        assert!(matches!(refused, CoseError::Protected { .. }), "{refused}");
    }

    #[test]
    fn anything_in_the_unprotected_header() {
        assert_eq!(cose(|forge| forge.elements(|all| all[1] = vec![0xa1, 0x04, 0x41, 0])), CoseError::Unprotected);
    }

    #[test]
    fn no_payload() {
        assert_eq!(cose(|forge| forge.elements(|all| all[2] = vec![0xf6])), CoseError::NoPayload);
    }

    #[test]
    fn a_signature_of_another_length() {
        let shorten = |all: &mut Vec<Vec<u8>>| {
            all[3][1] -= 1;
            all[3].pop();
        };
        assert_eq!(cose(|forge| forge.elements(shorten)), CoseError::SignatureLength { expected: 96, actual: 95 });
    }
}

mod payloads {
    use super::*;

    const KEYS: [&str; 9] =
        ["module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle", "public_key", "user_data", "nonce"];

    #[test]
    fn every_key_occurs() {
        for key in KEYS {
            let reason = malformed(|forge| forge.payload(|payload| payload.remove(key)));
            assert!(reason.contains("missing") && reason.contains(key), "{reason}");
        }
    }

    #[test]
    fn every_key_occurs_once() {
        for key in KEYS {
            let reason = malformed(|forge| forge.payload(|payload| payload.repeat(key)));
            assert!(reason.contains("duplicate") && reason.contains(key), "{reason}");
        }
    }

    #[test]
    fn no_other_key_occurs() {
        let reason = malformed(|forge| forge.payload(|payload| payload.set("extra", &1)));
        assert!(reason.contains("unknown key `extra`"), "{reason}");
    }

    #[test]
    fn keys_are_text() {
        for key in [&[0x00][..], b"\x45extra", b"\x7f\x65extra\xff"] {
            let entry = (key.to_vec(), vec![0xf6]);
            let reason = malformed(|forge| forge.payload(|payload| payload.entries.push(entry)));
            assert!(reason.contains("a text string of definite length"), "{reason}");
        }
    }

    #[test]
    fn every_value_is_of_its_type() {
        let cases: [(&str, &[u8]); 17] = [
            ("module_id", b"\x41i"),
            ("module_id", b"\x7f\x61i\xff"),
            ("digest", b"\xf6"),
            ("timestamp", b"\x20"),
            ("timestamp", b"\xfb\x40\x00\x00\x00\x00\x00\x00\x00"),
            ("timestamp", b"\x611"),
            ("pcrs", b"\x80"),
            ("pcrs", b"\xa1\x61\x30\x40"),
            ("pcrs", b"\xa1\x20\x40"),
            ("pcrs", b"\xa1\x19\x01\x00\x40"),
            ("certificate", b"\xf6"),
            ("certificate", b"\x80"),
            ("cabundle", b"\x40"),
            ("cabundle", b"\x81\x60"),
            ("public_key", b"\x60"),
            ("user_data", b"\x81\x01"),
            ("nonce", b"\x5f\x41\x01\x41\x02\xff"),
        ];
        for (key, value) in cases {
            malformed(|forge| forge.payload(|payload| payload.set_encoded(key, value.to_vec())));
        }
    }

    #[test]
    fn the_payload_is_a_map_and_nothing_follows_it() {
        let array = |all: &mut Vec<Vec<u8>>| all[2] = vec![0x41, 0x80];
        malformed(|forge| forge.elements(array));
        let trailing = |all: &mut Vec<Vec<u8>>| {
            let length = u16::from_be_bytes([all[2][1], all[2][2]]) + 1;
            all[2][1..3].copy_from_slice(&length.to_be_bytes());
            all[2].push(0);
        };
        malformed(|forge| forge.elements(trailing));
    }

    #[test]
    fn pcrs_are_sha_384() {
        let refused = payload(|forge| forge.payload(|payload| payload.set("digest", &"SHA512")));
        assert_eq!(refused, PayloadError::Digest { actual: "SHA512".to_owned() });
        for length in [0_u8, 32, 47, 49, 64] {
            let pcrs = [&[0xa1, 0x00, 0x58, length], &vec![7; length.into()][..]].concat();
            let refused = payload(|forge| forge.payload(|payload| payload.set_encoded("pcrs", pcrs)));
            assert_eq!(refused, PayloadError::PcrLength { index: 0, expected: 48, actual: length.into() });
        }
    }

    #[test]
    fn pcrs_have_an_index_up_to_31_each_once() {
        let world = World::new();
        world.judge(&world.forge().pcr(31, Some([1; 48])).build()).unwrap();
        let refused = payload(|forge| forge.pcr(32, Some([1; 48])));
        assert_eq!(refused, PayloadError::PcrIndex { index: 32, max: 31 });
        let pcr = [&[0x00, 0x58, 48], &[7; 48][..]].concat();
        let twice = [&[0xa2], &pcr[..], &pcr].concat();
        let reason = malformed(|forge| forge.payload(|payload| payload.set_encoded("pcrs", twice)));
        assert!(reason.contains("duplicate PCR0"), "{reason}");
    }

    #[test]
    fn the_cabundle_has_one_to_eight_certificates() {
        let refused = payload(|forge| forge.certificates(|all| all.cabundle.clear()));
        assert_eq!(refused, PayloadError::EmptyCabundle);
        let reason = malformed(|forge| forge.certificates(|all| all.cabundle = vec![vec![0]; 9]));
        assert!(reason.contains("more than 8 certificates"), "{reason}");
    }

    #[test]
    fn a_module_id_has_at_most_256_bytes() {
        let long = "i".repeat(257);
        let refused = payload(|forge| forge.payload(|payload| payload.set("module_id", &long)));
        assert_eq!(refused, PayloadError::FieldTooLong { field: "module_id", limit: 256, actual: 257 });
    }

    #[test]
    fn certificates_have_at_most_1024_bytes() {
        let refused = payload(|forge| forge.certificates(|all| all.certificate.resize(1025, 0)));
        assert_eq!(refused, PayloadError::FieldTooLong { field: "certificate", limit: 1024, actual: 1025 });
        let refused = payload(|forge| forge.certificates(|all| all.cabundle[2].resize(1025, 0)));
        assert_eq!(refused, PayloadError::FieldTooLong { field: "cabundle", limit: 1024, actual: 1025 });
    }

    #[test]
    fn fields_have_at_most_1024_bytes() {
        let (fits, long) = ([1; 1024], [1; 1025]);
        let world = World::new();
        world.judge(&world.forge().fields(&fits, &fits, &fits).build()).unwrap();
        let too_long = |field| PayloadError::FieldTooLong { field, limit: 1024, actual: 1025 };
        assert_eq!(payload(|forge| forge.fields(&long, b"", b"")), too_long("nonce"));
        assert_eq!(payload(|forge| forge.fields(b"", &long, b"")), too_long("public_key"));
        assert_eq!(payload(|forge| forge.fields(b"", b"", &long)), too_long("user_data"));
    }
}

mod certificates {
    use super::*;

    const BELOW_THE_ROOT: [Link; 4] = [Link::Regional, Link::Zonal, Link::Instance, Link::Leaf];
    const AUTHORITIES: [Link; 3] = [Link::Regional, Link::Zonal, Link::Instance];

    /// The DER of a certificate below the root.
    fn der(all: &mut cloister_simulated_enclave::forge::Certificates, link: Link) -> &mut Vec<u8> {
        match AUTHORITIES.iter().position(|authority| *authority == link) {
            Some(place) => &mut all.cabundle[place + 1],
            None => &mut all.certificate,
        }
    }

    /// Replaces the `nth` occurrence of `from`, of the same length.
    fn replace(der: &mut [u8], nth: usize, from: &[u8], to: &[u8]) {
        assert_eq!(from.len(), to.len());
        let place = (0..der.len() - from.len()).filter(|start| der[*start..].starts_with(from)).nth(nth);
        let place = place.expect("the certificate has it");
        der[place..place + to.len()].copy_from_slice(to);
    }

    #[test]
    fn another_root() {
        let world = World::new();
        let other = Root::aws_nitro_g1();
        let document = UnverifiedDocument::parse(&world.forge().build()).unwrap();
        let refused = document.authenticate(&other, At::<Archival>::document()).unwrap_err();
        let actual = world.authority.root().fingerprint().to_owned();
        let expected = other.fingerprint().to_owned();
        assert_eq!(*refused.error, VerificationError::RootMismatch { expected, actual });
        assert!(refused.to_string().contains("no AWS Nitro Enclave made this document"), "{refused}");
        assert!(refused.remedy().contains("simulated"));
    }

    #[test]
    fn a_root_that_is_sent_but_not_the_one_that_signed() {
        let world = World::new();
        let root = Authority::ephemeral().root();
        let document = world.forge().certificates(|all| all.cabundle[0] = root.der().to_vec()).build();
        let document = UnverifiedDocument::parse(&document).unwrap();
        let refused = document.authenticate(&root, At::<Archival>::document()).unwrap_err();
        assert!(matches!(*refused.error, VerificationError::Chain { .. }), "same names, other key: {refused}");
    }

    #[test]
    fn another_number_of_authorities() {
        for keep in 1..4 {
            let refused = certificate(|forge| forge.certificates(move |all| all.cabundle.truncate(keep)));
            assert_eq!(refused, CertificateError::Count { actual: keep });
        }
        let refused = certificate(|forge| forge.certificates(|all| all.cabundle.push(all.cabundle[3].clone())));
        assert_eq!(refused, CertificateError::Count { actual: 5 });
    }

    #[test]
    fn authorities_in_another_order() {
        for (place, link) in [(1, Link::Regional), (2, Link::Zonal)] {
            let refused = certificate(|forge| forge.certificates(move |all| all.cabundle.swap(place, place + 1)));
            assert!(matches!(refused, CertificateError::Issuer { link: found, .. } if found == link), "{refused}");
        }
        let others = Authority::ephemeral();
        let other = |link: Link| {
            let mut certificates = None;
            let forge = Forge::new(&others, Identity::random(), NOW);
            forge.certificates(|all| certificates = Some(all.clone())).build();
            der(&mut certificates.unwrap(), link).clone()
        };
        let refused = certificate(|forge| forge.certificates(|all| all.certificate = other(Link::Leaf)));
        assert!(matches!(refused, CertificateError::Issuer { link: Link::Leaf, .. }), "{refused}");
    }

    #[test]
    fn what_is_no_der() {
        for link in BELOW_THE_ROOT {
            let edits: [fn(&mut Vec<u8>); 3] =
                [|der| der.push(0), |der| der.truncate(der.len() - 1), |der| der.clear()];
            for edit in edits {
                let refused = certificate(|forge| forge.certificates(move |all| edit(der(all, link))));
                assert!(matches!(refused, CertificateError::Der { link: found, .. } if found == link), "{refused}");
            }
        }
    }

    #[test]
    fn what_der_would_encode_in_another_way() {
        // digitalSignature and contentCommitment: two bits are used, not three.
        let (der_bits, other_bits) = ([0x03, 0x02, 0x06, 0xc0], [0x03, 0x02, 0x05, 0xc0]);
        let edit = move |der: &mut Vec<u8>| replace(der, 0, &der_bits, &other_bits);
        let refused = certificate(|forge| forge.certificates(move |all| edit(&mut all.certificate)));
        assert!(matches!(refused, CertificateError::Der { link: Link::Leaf, .. }), "{refused}");
        // keyCertSign, cRLSign and digitalSignature, and the boolean `cA` that is true in another way than 0xff.
        for link in AUTHORITIES {
            let edit = move |der: &mut Vec<u8>| replace(der, 0, &[0x01, 0x01, 0xff, 0x02, 0x01], &[1, 1, 1, 2, 1]);
            let refused = certificate(|forge| forge.certificates(move |all| edit(der(all, link))));
            assert!(matches!(refused, CertificateError::Der { link: found, .. } if found == link), "{refused}");
        }
    }

    #[test]
    fn another_number_of_common_names_or_in_another_string() {
        let second = || DnType::CustomDnType(vec![2, 5, 4, 3]);
        let edits: [fn(&mut CertificateParams, DnType); 4] = [
            |params, second| params.distinguished_name.push(second, "i-9-enc9.eu-west-1.aws"),
            |params, _| _ = params.distinguished_name.remove(DnType::CommonName),
            |params, _| {
                params.distinguished_name.push(DnType::CommonName, DnValue::TeletexString("i".try_into().unwrap()))
            },
            |params, _| params.distinguished_name.push(DnType::CommonName, DnValue::BmpString("i".try_into().unwrap())),
        ];
        for edit in edits {
            let refused = certificate(|forge| forge.certificate(Link::Leaf, |params| edit(params, second())));
            assert!(matches!(refused, CertificateError::Der { link: Link::Leaf, .. }), "{refused}");
        }
    }

    #[test]
    fn another_version() {
        for link in BELOW_THE_ROOT {
            let v2 = move |der: &mut Vec<u8>| replace(der, 0, &[0xa0, 3, 2, 1, 2], &[0xa0, 3, 2, 1, 1]);
            let refused = certificate(|forge| forge.certificates(move |all| v2(der(all, link))));
            assert_eq!(refused, CertificateError::Version { link });
        }
    }

    #[test]
    fn another_signature_algorithm_inside_or_outside() {
        // ecdsa-with-SHA384 and ecdsa-with-SHA256 (RFC 5758 §3.2) differ in their last byte.
        let (sha384, sha256) = ([0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3], [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]);
        for link in BELOW_THE_ROOT {
            for place in [0, 1] {
                let edit = move |der: &mut Vec<u8>| replace(der, place, &sha384, &sha256);
                let refused = certificate(|forge| forge.certificates(move |all| edit(der(all, link))));
                let actual = "1.2.840.10045.4.3.2".to_owned();
                assert_eq!(refused, CertificateError::SignatureAlgorithm { link, actual });
            }
        }
    }

    #[test]
    fn a_key_of_another_curve() {
        for link in AUTHORITIES {
            assert_eq!(certificate(|forge| forge.p256(link)), CertificateError::PublicKey { link });
        }
        // secp384r1 and secp521r1 (RFC 5480 §2.1.1.1) differ in their last byte.
        let (p384, p521) = ([0x2b, 0x81, 0x04, 0x00, 0x22], [0x2b, 0x81, 0x04, 0x00, 0x23]);
        for link in BELOW_THE_ROOT {
            let edit = move |der: &mut Vec<u8>| replace(der, 0, &p384, &p521);
            let refused = certificate(|forge| forge.certificates(move |all| edit(der(all, link))));
            assert_eq!(refused, CertificateError::PublicKey { link });
        }
    }

    #[test]
    fn a_key_that_is_no_uncompressed_point() {
        for link in BELOW_THE_ROOT {
            let edit = move |der: &mut Vec<u8>| replace(der, 0, &[0x03, 0x62, 0x00, 0x04], &[0x03, 0x62, 0x00, 0x02]);
            let refused = certificate(|forge| forge.certificates(move |all| edit(der(all, link))));
            assert_eq!(refused, CertificateError::PublicKey { link });
        }
    }

    #[test]
    fn an_authority_that_is_none() {
        for link in AUTHORITIES {
            for is_ca in [IsCa::NoCa, IsCa::ExplicitNoCa] {
                let refused = certificate(|forge| forge.certificate(link, |params| params.is_ca = is_ca));
                assert_eq!(refused, CertificateError::NotAnAuthority { link });
            }
        }
    }

    #[test]
    fn basic_constraints_that_are_not_critical() {
        for (link, length) in [(Link::Regional, 2), (Link::Zonal, 1), (Link::Instance, 0)] {
            let content = vec![0x30, 6, 0x01, 1, 0xff, 0x02, 1, length];
            let refused = certificate(|forge| {
                forge.certificate(link, |params| {
                    params.is_ca = IsCa::NoCa;
                    params.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 19], content));
                })
            });
            assert_eq!(refused, CertificateError::NotCritical { link });
        }
    }

    #[test]
    fn another_path_length() {
        for (link, length) in [(Link::Regional, 2), (Link::Zonal, 1), (Link::Instance, 0)] {
            let constraints = [BasicConstraints::Unconstrained, BasicConstraints::Constrained(length + 1)];
            for (constraint, actual) in constraints.into_iter().zip([None, Some(length + 1)]) {
                let refused =
                    certificate(|forge| forge.certificate(link, |params| params.is_ca = IsCa::Ca(constraint)));
                assert_eq!(refused, CertificateError::PathLength { link, expected: Some(length), actual });
            }
        }
    }

    #[test]
    fn a_leaf_that_is_an_authority() {
        let authority = IsCa::Ca(BasicConstraints::Unconstrained);
        let refused = certificate(|forge| forge.certificate(Link::Leaf, |params| params.is_ca = authority));
        assert_eq!(refused, CertificateError::LeafIsAuthority);
        let usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
        let refused = certificate(|forge| forge.certificate(Link::Leaf, |params| params.key_usages = usages));
        assert_eq!(refused, CertificateError::LeafIsAuthority);
    }

    #[test]
    fn a_key_that_is_not_for_this() {
        for link in AUTHORITIES {
            for usages in [vec![], vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign]] {
                let refused = certificate(|forge| forge.certificate(link, |params| params.key_usages = usages));
                assert_eq!(refused, CertificateError::KeyUsage { link, expected: "keyCertSign" });
            }
        }
        for usages in [vec![], vec![KeyUsagePurpose::ContentCommitment, KeyUsagePurpose::KeyAgreement]] {
            let refused = certificate(|forge| forge.certificate(Link::Leaf, |params| params.key_usages = usages));
            assert_eq!(refused, CertificateError::KeyUsage { link: Link::Leaf, expected: "digitalSignature" });
        }
    }

    #[test]
    fn a_module_id_of_another_form() {
        for module_id in ["", "i-0123", "enc0123", "i-01-encé", "x-01-enc01"] {
            let refused = certificate(|forge| forge.payload(move |payload| payload.set("module_id", &module_id)));
            assert_eq!(refused, CertificateError::ModuleId { actual: module_id.to_owned() });
        }
    }

    #[test]
    fn a_leaf_for_another_enclave() {
        let name = "i-0123-enc0123.simulated-1.aws";
        let refused = certificate(|forge| {
            forge.certificate(Link::Leaf, |params| params.distinguished_name.push(DnType::CommonName, name))
        });
        let CertificateError::CommonName { link: Link::Leaf, actual, .. } = refused else { panic!("{refused}") };
        assert_eq!(actual, name);
    }

    #[test]
    fn a_region_that_is_none() {
        let world = World::new();
        for region in ["", "eu west", "eu\nPCR0", "EU-WEST-1", "eu\u{202e}"] {
            let name = format!("{}.{region}.aws", world.identity.module_id());
            let rename = |params: &mut CertificateParams| params.distinguished_name.push(DnType::CommonName, name);
            let refused = world.judge(&world.forge().certificate(Link::Leaf, rename).build()).unwrap_err();
            let VerificationError::Certificate(CertificateError::CommonName { link: Link::Leaf, .. }) = refused else {
                panic!("{region:?}: {refused}")
            };
            assert!(!refused.to_string().contains('\n') && !refused.to_string().contains('\u{202e}'), "{refused}");
        }
    }

    #[test]
    fn an_instance_authority_for_another_instance_or_region() {
        let world = World::new();
        let instance = &world.identity.instance_id;
        for name in ["i-0123.simulated-1.aws.nitro-enclaves", &format!("{instance}.simulated-2.aws.nitro-enclaves")] {
            let rename = |params: &mut CertificateParams| {
                params.distinguished_name.push(DnType::CommonName, name);
            };
            let refused = world.judge(&world.forge().certificate(Link::Instance, rename).build()).unwrap_err();
            let VerificationError::Certificate(CertificateError::CommonName { link, actual, .. }) = refused else {
                panic!("{refused}")
            };
            assert_eq!((link, actual.as_str()), (Link::Instance, name));
        }
    }

    #[test]
    fn a_pcr4_of_another_instance() {
        for pcr in [Some([0; 48]), Some([1; 48]), None] {
            let refused = certificate(|forge| forge.pcr(4, pcr));
            let CertificateError::InstancePcr { actual, .. } = refused else { panic!("{refused}") };
            assert_eq!(actual, pcr.map_or("absent".to_owned(), |pcr| format!("{:02x}", pcr[0]).repeat(48)));
        }
    }
}

mod chain_and_signature {
    use super::*;

    #[test]
    fn a_certificate_that_somebody_else_signed() {
        let world = World::new();
        let other = Forge::new(&world.authority, world.identity.clone(), NOW);
        let mut stolen = None;
        other.certificates(|all| stolen = Some(all.clone())).build();
        let stolen = stolen.unwrap();
        for place in 1..4 {
            let document = world.forge().certificates(|all| all.cabundle[place] = stolen.cabundle[place].clone());
            let refused = world.judge(&document.build()).unwrap_err();
            assert!(matches!(refused, VerificationError::Chain { .. }), "{place}: {refused}");
        }
    }

    #[test]
    fn a_certificate_whose_signature_is_changed() {
        for place in 0..4 {
            let refused = refusal(|forge| {
                forge.certificates(move |all| {
                    let der = if place == 3 { &mut all.certificate } else { &mut all.cabundle[place + 1] };
                    *der.last_mut().unwrap() ^= 1;
                })
            });
            assert!(matches!(refused, VerificationError::Chain { .. }), "{place}: {refused}");
        }
    }

    #[test]
    fn a_certificate_that_is_not_valid_when_the_document_is_made() {
        for link in [Link::Regional, Link::Zonal, Link::Instance, Link::Leaf] {
            let (before, after) = (NOW.minus(MINUTE), NOW.plus(MINUTE));
            let refused = refusal(|forge| forge.validity(link, before.minus(MINUTE), before));
            assert_eq!(refused, VerificationError::CertificateExpired { link, document: NOW, not_after: before });
            let refused = refusal(|forge| forge.validity(link, after, after.plus(MINUTE)));
            assert_eq!(refused, VerificationError::CertificateNotYetValid { link, document: NOW, not_before: after });
        }
    }

    #[test]
    fn a_document_older_or_younger_than_the_root() {
        let world = World::new();
        let judge = |time: &str| {
            let time = Timestamp::parse_rfc3339(time).unwrap();
            let document = Forge::new(&world.authority, world.identity.clone(), time).build();
            (time, world.judge(&document).unwrap_err())
        };
        let time = |time| Timestamp::parse_rfc3339(time).unwrap();
        let (document, refused) = judge("2019-10-27T00:00:00Z");
        let not_before = time("2019-10-28T13:28:05Z");
        let early = VerificationError::CertificateNotYetValid { link: Link::Root, document, not_before };
        assert_eq!(refused, early);
        let (document, refused) = judge("2049-10-28T14:28:06Z");
        let not_after = time("2049-10-28T14:28:05Z");
        assert_eq!(refused, VerificationError::CertificateExpired { link: Link::Root, document, not_after });
    }

    #[test]
    fn the_last_second_of_a_certificate_counts_whole() {
        let world = World::new();
        let made_at = |time: Timestamp| {
            let forge = Forge::new(&world.authority, world.identity.clone(), time);
            world.judge(&forge.validity(Link::Leaf, NOW.minus(MINUTE), NOW).build())
        };
        made_at(NOW.plus(Duration::from_millis(999))).unwrap();
        let document = NOW.plus(Duration::from_millis(1000));
        let expired = VerificationError::CertificateExpired { link: Link::Leaf, document, not_after: NOW };
        assert_eq!(made_at(document).unwrap_err(), expired);
    }

    #[test]
    fn a_critical_extension_that_nobody_knows() {
        for link in [Link::Regional, Link::Zonal, Link::Instance, Link::Leaf] {
            let extension = |critical| {
                let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999], vec![5, 0]);
                extension.set_criticality(critical);
                extension
            };
            let world = World::new();
            let with = |critical| {
                let add = |params: &mut CertificateParams| params.custom_extensions.push(extension(critical));
                world.judge(&world.forge().certificate(link, add).build())
            };
            with(false).unwrap();
            let refused = with(true).unwrap_err();
            let VerificationError::Chain { reason } = refused else { panic!("{refused}") };
            assert_eq!(reason, "UnsupportedCriticalExtension");
        }
    }

    #[test]
    fn an_extension_that_occurs_twice() {
        let key_usage = || CustomExtension::from_oid_content(&[2, 5, 29, 15], vec![3, 2, 2, 4]);
        for link in [Link::Regional, Link::Zonal, Link::Instance, Link::Leaf] {
            let twice = |params: &mut CertificateParams| params.custom_extensions.push(key_usage());
            let refused = refusal(|forge| forge.certificate(link, twice));
            let VerificationError::Certificate(CertificateError::Der { link: found, .. }) = refused else {
                panic!("{refused}")
            };
            assert_eq!(found, link);
        }
    }

    /// ECDSA accepts `(r, s)` and `(r, n - s)` alike, and the NSM writes both: a document's bytes name nothing.
    #[test]
    fn high_and_low_s_are_both_accepted() {
        let world = World::new();
        let document = world.forge().build();
        let mut other = document.clone();
        let s = other.len() - 48;
        negate(&mut other[s..]);
        assert_ne!(other, document);
        world.judge(&document).unwrap();
        world.judge(&other).unwrap();
    }

    /// `n - s`, with the order `n` of P-384 (FIPS 186-4, D.1.2.4), big-endian.
    fn negate(s: &mut [u8]) {
        let order = "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973";
        let digits = |place: usize| u8::from_str_radix(&order[2 * place..2 * place + 2], 16).unwrap();
        let mut borrow = false;
        for place in (0..48).rev() {
            let (difference, first) = digits(place).overflowing_sub(s[place]);
            let (difference, second) = difference.overflowing_sub(borrow.into());
            (s[place], borrow) = (difference, first || second);
        }
    }

    #[test]
    fn a_leaf_for_another_key() {
        let world = World::new();
        let mut stolen = None;
        world.forge().certificates(|all| stolen = Some(all.clone())).build();
        let document = world.forge().certificates(|all| *all = stolen.unwrap()).build();
        assert_eq!(world.judge(&document).unwrap_err(), VerificationError::Signature);
    }

    #[test]
    fn a_signature_that_is_zero_or_changed() {
        let edits: [fn(&mut [u8]); 3] =
            [|signature| signature.fill(0), |signature| signature[0] ^= 1, |signature| signature[95] ^= 1];
        for edit in edits {
            let refused = refusal(|forge| forge.elements(move |all| edit(&mut all[3][2..])));
            assert_eq!(refused, VerificationError::Signature);
        }
    }

    #[test]
    fn a_payload_that_was_changed_after_it_was_signed() {
        let change = |all: &mut Vec<Vec<u8>>| {
            let place = all[2].windows(5).position(|window| window == b"nonce").unwrap();
            assert_eq!(all[2][place + 5..], [0x41, 7, 0xff]);
            all[2][place + 6] = 8;
        };
        assert_eq!(refusal(|forge| forge.fields(&[7], b"", b"").elements(change)), VerificationError::Signature);
    }
}

mod time {
    use super::*;

    fn live(world: &World, now: Timestamp) -> Result<AuthenticDocument<Live>, VerificationError> {
        Ok(UnverifiedDocument::parse(&world.forge().build())?.authenticate(&world.authority.root(), At::now(now))?)
    }

    #[test]
    fn a_live_document_is_within_five_minutes_of_the_clock() {
        let world = World::new();
        let max = 5 * MINUTE;
        for now in [NOW, NOW.plus(max), NOW.minus(max)] {
            live(&world, now).unwrap();
        }
        let now = NOW.plus(max).plus(Duration::from_millis(1));
        let refused = live(&world, now).unwrap_err();
        assert_eq!(refused, VerificationError::DocumentTooOld { now, document: NOW, max_age: max });
        assert!(refused.remedy().contains("this machine's clock"));
        assert!(refused.to_string().contains(&now.to_string()) && refused.to_string().contains(&NOW.to_string()));
        let now = NOW.minus(max).minus(Duration::from_millis(1));
        let refused = live(&world, now).unwrap_err();
        assert_eq!(refused, VerificationError::DocumentInFuture { now, document: NOW, leeway: max });
        assert!(refused.remedy().contains("this machine's clock"));
    }

    #[test]
    fn an_archived_document_is_judged_as_of_the_chosen_time() {
        let world = World::new();
        let judge =
            |at| UnverifiedDocument::parse(&world.forge().build()).unwrap().authenticate(&world.authority.root(), at);
        judge(At::<Archival>::document()).unwrap();
        judge(At::<Archival>::instant(NOW.plus(MINUTE))).unwrap();
        let refused = judge(At::<Archival>::instant(NOW.plus(60 * MINUTE))).unwrap_err();
        assert!(matches!(*refused.error, VerificationError::DocumentTooOld { .. }), "{refused}");
        judge(At::<Archival>::document_until(NOW.plus(60 * MINUTE))).unwrap();
        judge(At::<Archival>::document_until(NOW.minus(5 * MINUTE))).unwrap();
        let early = NOW.minus(5 * MINUTE).minus(Duration::from_millis(1));
        let refused = judge(At::<Archival>::document_until(early)).unwrap_err();
        assert!(matches!(*refused.error, VerificationError::DocumentInFuture { .. }), "{refused}");
    }

    #[test]
    fn years_that_have_no_date_do_no_harm() {
        for millis in [0, u64::MAX] {
            let refused = refusal(|forge| forge.payload(move |payload| payload.set("timestamp", &millis)));
            assert_eq!(refused.step(), Step::Chain, "{refused}");
        }
    }
}

mod debug_mode {
    use super::*;

    #[test]
    fn all_three_registers_zero() {
        let world = World::new();
        let document = Forge::new(&world.authority, world.identity.clone().debug(), NOW).build();
        assert_eq!(world.judge(&document).unwrap_err(), VerificationError::DebugMode { index: 0 });
    }

    #[test]
    fn any_of_three_registers_zero_or_absent() {
        for index in 0..3 {
            assert_eq!(refusal(|forge| forge.pcr(index, Some([0; 48]))), VerificationError::DebugMode { index });
            assert_eq!(refusal(|forge| forge.pcr(index, None)), VerificationError::PcrMissing { index });
        }
    }
}

mod cache {
    use cloister_simulated_enclave::forge::Certificates;

    use super::*;

    impl World {
        fn judge_with(
            &self,
            cache: &CertificateCache,
            document: &[u8],
        ) -> Result<AuthenticDocument<Archival>, VerificationError> {
            let document = UnverifiedDocument::parse(document)?;
            Ok(document.authenticate_with(&self.authority.root(), At::document(), cache)?)
        }

        /// A document and its certificates.
        fn document(&self) -> (Vec<u8>, Certificates) {
            let mut certificates = None;
            let document = self.forge().certificates(|all| certificates = Some(all.clone())).build();
            (document, certificates.unwrap())
        }
    }

    fn from_cache(document: &AuthenticDocument<Archival>) -> bool {
        let [certificates, chain] = [3, 4].map(|place| document.steps()[place].found.contains("as verified before"));
        assert_eq!(certificates, chain);
        chain
    }

    #[test]
    fn certificates_are_verified_once() {
        let (world, cache) = (World::new(), CertificateCache::default());
        let (document, _) = world.document();
        assert!(!from_cache(&world.judge_with(&cache, &document).unwrap()));
        assert!(from_cache(&world.judge_with(&cache, &document).unwrap()));
        assert_eq!(cache.len(), 1);
        let other = world.forge().build();
        assert!(!from_cache(&world.judge_with(&cache, &other).unwrap()), "the same enclave with other certificates");
    }

    #[test]
    fn known_certificates_vouch_for_no_other_document() {
        let (world, cache) = (World::new(), CertificateCache::default());
        let (document, known) = world.document();
        world.judge_with(&cache, &document).unwrap();
        let refused = |forge: Forge<'_>| {
            let known = known.clone();
            world.judge_with(&cache, &forge.certificates(|all| *all = known).build()).unwrap_err()
        };
        assert_eq!(refused(world.forge()), VerificationError::Signature, "by another key");
        let not_after = NOW.plus(180 * MINUTE);
        let late = Forge::new(&world.authority, world.identity.clone(), not_after.plus(MINUTE));
        let expired =
            VerificationError::CertificateExpired { link: Link::Leaf, document: NOW.plus(181 * MINUTE), not_after };
        assert_eq!(refused(late), expired);
        let other = Forge::new(&world.authority, Identity::random(), NOW);
        let refused_name = refused(other);
        assert!(
            matches!(
                refused_name,
                VerificationError::Certificate(CertificateError::CommonName { link: Link::Leaf, .. })
            ),
            "{refused_name}"
        );
        let refused_pcr = refused(world.forge().pcr(4, Some([1; 48])));
        assert!(
            matches!(refused_pcr, VerificationError::Certificate(CertificateError::InstancePcr { .. })),
            "{refused_pcr}"
        );
    }

    #[test]
    fn known_certificates_count_under_their_root_only() {
        let (world, cache) = (World::new(), CertificateCache::default());
        let (document, _) = world.document();
        world.judge_with(&cache, &document).unwrap();
        let other = World::new();
        let refused = other.judge_with(&cache, &document).unwrap_err();
        assert!(matches!(refused, VerificationError::RootMismatch { .. }), "{refused}");
    }

    #[test]
    fn what_was_refused_is_not_kept() {
        let (world, cache) = (World::new(), CertificateCache::default());
        let flip = |all: &mut Certificates| *all.certificate.last_mut().unwrap() ^= 1;
        let forged = world.forge().certificates(flip).build();
        for _ in 0..2 {
            let refused = world.judge_with(&cache, &forged).unwrap_err();
            assert!(matches!(refused, VerificationError::Chain { .. }), "{refused}");
            assert!(cache.is_empty());
        }
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let (world, cache) = (World::new(), CertificateCache::new(2));
        let documents = [world.forge().build(), world.forge().build(), world.forge().build()];
        let judge = |place: usize| from_cache(&world.judge_with(&cache, &documents[place]).unwrap());
        assert_eq!([0, 1, 0, 2].map(judge), [false, false, true, false]);
        assert_eq!(cache.len(), 2);
        assert_eq!([0, 2, 1].map(judge), [true, true, false]);
    }

    #[test]
    fn a_cache_without_room_keeps_nothing() {
        let (world, cache) = (World::new(), CertificateCache::new(0));
        let document = world.forge().build();
        for _ in 0..2 {
            assert!(!from_cache(&world.judge_with(&cache, &document).unwrap()));
        }
        assert!(cache.is_empty());
    }
}

mod refusals {
    use super::*;

    #[test]
    fn a_refusal_tells_what_passed_and_what_would_have() {
        let world = World::new();
        let document = world.forge().pcr(1, Some([0; 48])).build();
        let document = UnverifiedDocument::parse(&document).unwrap();
        let refused = document.authenticate(&world.authority.root(), At::<Archival>::document()).unwrap_err();
        assert_eq!((refused.step(), refused.code()), (Step::Debug, "debug_mode"));
        assert_eq!(refused.expected, "PCR0, 1 and 2 present, none of them all zeros");
        assert!(refused.passed.iter().map(|report| report.step).eq(Step::ALL.into_iter().take(7)));
        assert!(refused.passed.iter().all(|report| !report.expected.is_empty() && !report.found.is_empty()));
        assert_eq!(refused.to_string(), refused.error.to_string());
    }
}

/// Every bit of a valid document, changed alone, in both forms of the map. The certificates of the unchanged one are known,
/// which spares most changes a path validation and none of them a check.
#[test]
fn no_changed_bit_is_accepted() {
    for indefinite in [false, true] {
        let world = World::new();
        let forge = world.forge().fields(&[1; 32], &[2; 91], &[3; 49]);
        let document = forge.payload(|payload| payload.indefinite = indefinite).build();
        let known = CertificateCache::default();
        let judge = |document: &[u8]| {
            let document = UnverifiedDocument::parse(document)?;
            document.authenticate_with(&world.authority.root(), At::<Archival>::document(), &known)
        };
        judge(&document).unwrap();
        let threads = std::thread::available_parallelism().unwrap().get();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (mut changed, judge) = (document.clone(), &judge);
                scope.spawn(move || {
                    for bit in (thread..8 * changed.len()).step_by(threads) {
                        changed[bit / 8] ^= 1 << (bit % 8);
                        assert!(judge(&changed).is_err(), "bit {} of byte {}", bit % 8, bit / 8);
                        changed[bit / 8] ^= 1 << (bit % 8);
                    }
                });
            }
        });
    }
}
