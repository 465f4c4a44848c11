//! From a challenge to a verified enclave, its receipts and their evidence: what passes, and each thing that does not.

#![expect(clippy::unwrap_used, reason = "the helpers are part of the tests")]

use std::time::Duration;

use cloister_attestation::{
    ArchivedEnclave, At, Challenge, Channel, ChannelRule, Evidence, EvidenceError, FormatError, FreshDocument, Limits,
    Live, Loadable, Manifest, ManifestModel, ModelError, Nonce, Pins, Policy, PolicyModel, Presentation, Receipt,
    ReceiptError, ReceiptKey, Release, Sha384, Statement, Step, Timestamp, UnverifiedDocument, VerificationError,
    VerifiedEnclave,
};
use cloister_enclave::{Attester, Claims};
use cloister_simulated_enclave::{Authority, Identity, SimulatedNsm, policy};

const MINUTE: Duration = Duration::from_secs(60);
const PARAMETERS: &str = "n2048-tuniform17";

/// An enclave, and a client that is connected to it.
struct World {
    authority: Authority,
    nsm: SimulatedNsm,
    receipt_key: ReceiptKey,
    manifest: Manifest,
    policy: Policy,
    challenge: Challenge,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        let authority = Authority::ephemeral();
        let now = Timestamp::now();
        let model = |name: &str, digest| ManifestModel {
            name: name.to_owned(),
            bundle: Sha384([digest; 48]),
            version: "1".to_owned(),
            description: Sha384([0xdd; 48]),
        };
        let models = vec![model("iris", 1), model("digits", 2)];
        Self {
            nsm: authority.enclave(Identity::random()).with_clock(move || now),
            receipt_key: ReceiptKey::generate(),
            policy: policy(&authority, &models),
            manifest: Manifest { models, limits: Limits { max_request_bytes: 65536 }, loadable: Loadable::None },
            challenge: Challenge {
                nonce: Nonce::random(),
                channel: Channel::TlsExporter([7; 32]),
                spki: b"the enclave's TLS key".to_vec(),
            },
            authority,
            now,
        }
    }

    fn statement(&self) -> Statement {
        Statement {
            channel: self.challenge.channel,
            spki: self.challenge.spki.clone(),
            receipt_key: self.receipt_key.public_key().to_vec(),
            manifest: self.manifest.digest(),
        }
    }

    /// What the enclave answers when its session is described by `statement`.
    fn present(&self, statement: &Statement) -> Presentation {
        let Challenge { nonce, .. } = &self.challenge;
        let claims = Claims { nonce: &nonce.0, public_key: &statement.spki, user_data: &statement.user_data() };
        Presentation {
            document: self.nsm.attest(&claims).unwrap(),
            receipt_key: statement.receipt_key.clone(),
            manifest: self.manifest.to_cbor(),
        }
    }

    fn fresh(&self, presentation: &Presentation) -> Result<FreshDocument, VerificationError> {
        let document = UnverifiedDocument::parse(&presentation.document)?;
        let document = document.authenticate(&self.authority.root(), At::<Live>::now(self.now))?;
        Ok(document.answers(&self.challenge, presentation)?)
    }

    fn verify(&self) -> Result<VerifiedEnclave, VerificationError> {
        Ok(self.fresh(&self.present(&self.statement()))?.require(&self.policy, self.now)?)
    }

    fn receipt(&self) -> Receipt {
        Receipt {
            request: Sha384::of(b"request"),
            response: Sha384::of(b"response"),
            bundle: Sha384([1; 48]),
            parameters: PARAMETERS.to_owned(),
            module_id: self.nsm.module_id().to_owned(),
            time: self.now.plus(MINUTE),
        }
    }

    fn evidence(&self) -> Evidence {
        self.verify().unwrap().evidence(vec![self.receipt().sign(&self.receipt_key)])
    }

    fn archived(&self, evidence: &Evidence) -> Result<ArchivedEnclave, EvidenceError> {
        evidence.verify(&self.policy, self.now.plus(60 * MINUTE))
    }
}

/// Why the document of a piece of evidence was refused.
fn reason(refused: &EvidenceError) -> &VerificationError {
    match refused {
        EvidenceError::Document(refusal) => &refusal.error,
        other => panic!("{other}"),
    }
}

#[test]
fn an_honest_enclave_passes_all_twelve_steps() {
    let world = World::new();
    let enclave = world.verify().unwrap();
    assert!(enclave.steps().iter().map(|report| report.step).eq(Step::ALL));
    assert_eq!(enclave.release(), "simulated");
    assert_eq!(enclave.module_id(), world.nsm.module_id());
    assert_eq!(enclave.timestamp(), world.now);
    assert_eq!(enclave.channel(), world.challenge.channel);
    assert_eq!(enclave.manifest(), &world.manifest);
    assert_eq!(enclave.receipt_key().spki(), world.receipt_key.public_key());
    assert!(enclave.simulated());
}

mod freshness {
    use super::*;

    #[test]
    fn what_is_no_presentation() {
        let world = World::new();
        let presentation = world.present(&world.statement()).to_cbor();
        let trailing = [&presentation[..], &[0]].concat();
        for bytes in [&b""[..], b"no CBOR", &presentation[1..], &trailing, &[0; 96 * 1024 + 1]] {
            let refused = Presentation::from_cbor(bytes).unwrap_err();
            assert_eq!((refused.code(), refused.step()), ("presentation_malformed", Step::Size));
        }
    }

    #[test]
    fn another_nonce() {
        let mut world = World::new();
        let presentation = world.present(&world.statement());
        world.challenge.nonce = Nonce([0; 32]);
        let refused = world.fresh(&presentation).unwrap_err();
        let VerificationError::NonceMismatch { expected, .. } = refused else { panic!("{refused}") };
        assert_eq!(expected, "00".repeat(32));
    }

    #[test]
    fn no_nonce_public_key_or_user_data() {
        let world = World::new();
        let statement = world.statement();
        let (nonce, user_data) = (world.challenge.nonce.0, statement.user_data());
        let refused = |nonce, public_key, user_data| {
            let document = world.nsm.document(nonce, public_key, user_data).unwrap();
            world.fresh(&Presentation { document, ..world.present(&statement) }).unwrap_err()
        };
        let error = refused(None, Some(&statement.spki), Some(&user_data));
        assert!(matches!(error, VerificationError::NonceMismatch { .. }), "{error}");
        let error = refused(Some(&nonce), None, Some(&user_data));
        assert!(matches!(error, VerificationError::PublicKeyMismatch { .. }), "{error}");
        let error = refused(Some(&nonce), Some(&statement.spki), None);
        assert!(matches!(error, VerificationError::StatementMismatch { .. }), "{error}");
    }

    #[test]
    fn a_public_key_that_is_empty() {
        let mut world = World::new();
        world.challenge.channel = Channel::None;
        let statement = Statement { spki: Vec::new(), ..world.statement() };
        let refused = world.fresh(&world.present(&statement)).unwrap_err();
        assert_eq!(refused.code(), "public_key_mismatch");
    }

    #[test]
    fn another_tls_key() {
        let mut world = World::new();
        let presentation = world.present(&world.statement());
        world.challenge.spki = b"the key of somebody in between".to_vec();
        let refused = world.fresh(&presentation).unwrap_err();
        assert!(matches!(refused, VerificationError::PublicKeyMismatch { .. }), "{refused}");
    }

    #[test]
    fn another_session() {
        let mut world = World::new();
        let presentation = world.present(&world.statement());
        world.challenge.channel = Channel::TlsExporter([8; 32]);
        let refused = world.fresh(&presentation).unwrap_err();
        assert!(matches!(refused, VerificationError::StatementMismatch { .. }), "{refused}");
    }

    #[test]
    fn a_plain_connection_in_place_of_an_attested_one_and_the_reverse() {
        let mut world = World::new();
        let plain = Statement { channel: Channel::None, ..world.statement() };
        let refused = world.fresh(&world.present(&plain)).unwrap_err();
        assert!(matches!(refused, VerificationError::StatementMismatch { .. }), "{refused}");
        let attested = world.statement();
        world.challenge.channel = Channel::None;
        let refused = world.fresh(&world.present(&attested)).unwrap_err();
        assert!(matches!(refused, VerificationError::StatementMismatch { .. }), "{refused}");
    }

    #[test]
    fn another_receipt_key_or_manifest() {
        let mut world = World::new();
        let honest = world.present(&world.statement());
        let receipt_key = ReceiptKey::generate().public_key().to_vec();
        let refused = world.fresh(&Presentation { receipt_key, ..honest.clone() }).unwrap_err();
        assert!(matches!(refused, VerificationError::StatementMismatch { .. }), "{refused}");
        world.manifest.limits.max_request_bytes += 1;
        let refused = world.fresh(&Presentation { manifest: world.manifest.to_cbor(), ..honest }).unwrap_err();
        assert!(matches!(refused, VerificationError::StatementMismatch { .. }), "{refused}");
    }

    #[test]
    fn a_receipt_key_or_manifest_that_is_none() {
        let world = World::new();
        let statement = Statement { receipt_key: b"no key".to_vec(), ..world.statement() };
        let refused = world.fresh(&world.present(&statement)).unwrap_err();
        assert!(matches!(refused, VerificationError::ReceiptKey(_)), "{refused}");

        let manifest = b"\xa1\x61v\x02".to_vec();
        let statement = Statement { manifest: Sha384::of(&manifest), ..world.statement() };
        let refused = world.fresh(&Presentation { manifest, ..world.present(&statement) }).unwrap_err();
        let newer = FormatError::Newer { format: "manifest", version: 2 };
        assert_eq!(refused, VerificationError::Manifest(newer));
    }
}

mod policies {
    use super::*;

    #[test]
    fn an_expired_policy() {
        let world = World::new();
        let fresh = world.fresh(&world.present(&world.statement())).unwrap();
        let expires = world.policy.expires();
        let refused = fresh.require(&world.policy, expires).unwrap_err();
        assert_eq!(*refused.error, VerificationError::PolicyExpired { now: expires, expires });
    }

    #[test]
    fn a_policy_without_releases() {
        let mut world = World::new();
        world.policy = Policy::new(world.policy.expires()).with_root(world.authority.root());
        assert_eq!(world.verify().unwrap_err(), VerificationError::EmptyPolicy);
    }

    #[test]
    fn a_policy_for_another_root_than_the_document_was_authenticated_with() {
        let mut world = World::new();
        world.policy = policy(&Authority::ephemeral(), &[]);
        let refused = world.verify().unwrap_err();
        assert!(matches!(refused, VerificationError::RootMismatch { .. }), "{refused}");
    }

    #[test]
    fn another_program() {
        let mut world = World::new();
        let [pcr0, pcr1, pcr2] = Identity::measurements();
        let other = |name: &str, pcrs| Release { name: name.to_owned(), pcrs, not_after: None, revoked: None };
        world.policy = Policy::new(world.policy.expires()).with_root(world.authority.root());
        world.policy.add_release(other("first", [[9; 48], [9; 48], [9; 48]])).unwrap();
        world.policy.add_release(other("near", [[9; 48], pcr1, pcr2])).unwrap();
        let (release, expected) = ("near".to_owned(), "09".repeat(48));
        let actual = pcr0.iter().map(|byte| format!("{byte:02x}")).collect();
        let measured = [pcr0, pcr1, pcr2].into();
        let refused = VerificationError::PcrMismatch { index: 0, release, expected, actual, measured };
        assert_eq!(world.verify().unwrap_err(), refused);
    }

    #[test]
    fn a_revoked_release() {
        let mut world = World::new();
        world.policy.revoke("simulated", "it leaks").unwrap();
        let (release, reason) = ("simulated".to_owned(), "it leaks".to_owned());
        assert_eq!(world.verify().unwrap_err(), VerificationError::ReleaseRevoked { release, reason });
    }

    #[test]
    fn a_release_that_ended() {
        let mut world = World::new();
        let not_after = world.now.minus(MINUTE);
        let ended = Release { not_after: Some(not_after), ..world.policy.releases()[0].clone() };
        world.policy.add_release(ended).unwrap();
        let (release, document) = ("simulated".to_owned(), world.now);
        assert_eq!(world.verify().unwrap_err(), VerificationError::ReleaseEnded { release, document, not_after });
    }

    /// A world whose policy pins everything about its enclave.
    fn pinned(change: impl FnOnce(&mut Pins)) -> World {
        let mut world = World::new();
        let now = world.now;
        let mut signed = world.nsm.identity().clone();
        signed.pcrs.insert(8, [8; 48]);
        world.nsm = world.authority.enclave(signed).with_clock(move || now);
        let Identity { pcrs, region, .. } = world.nsm.identity();
        let mut pins = Pins {
            pcr3: Some(pcrs[&3]),
            pcr4: Some(pcrs[&4]),
            pcr8: Some(pcrs[&8]),
            module_id: Some(world.nsm.module_id().to_owned()),
            region: Some(region.clone()),
        };
        change(&mut pins);
        world.policy = world.policy.with_pins(pins).unwrap();
        world
    }

    fn pinned_pcr(change: impl FnOnce(&mut Pins)) -> u8 {
        match pinned(change).verify().unwrap_err() {
            VerificationError::PinnedPcrMismatch { index, .. } => index,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn an_enclave_that_is_pinned_and_others() {
        pinned(|_| ()).verify().unwrap();
        assert_eq!(pinned_pcr(|pins| pins.pcr3 = Some([1; 48])), 3);
        assert_eq!(pinned_pcr(|pins| pins.pcr4 = Some([1; 48])), 4);
        assert_eq!(pinned_pcr(|pins| pins.pcr8 = Some([1; 48])), 8);

        let other = || "another".to_owned();
        let world = pinned(|pins| pins.module_id = Some(other()));
        let (expected, actual) = (other(), world.nsm.module_id().to_owned());
        let refused = world.verify().unwrap_err();
        assert_eq!(refused, VerificationError::PinnedModuleIdMismatch { expected, actual });
        let world = pinned(|pins| pins.region = Some(other()));
        let (expected, actual) = (other(), world.nsm.identity().region.clone());
        assert_eq!(world.verify().unwrap_err(), VerificationError::PinnedRegionMismatch { expected, actual });
    }

    #[test]
    fn a_connection_without_channel_needs_the_policys_leave() {
        let mut world = World::new();
        let statement = Statement { channel: Channel::None, ..world.statement() };
        world.challenge = Challenge { channel: Channel::None, spki: Vec::new(), ..world.challenge };
        let presentation = world.present(&statement);
        let refused = world.fresh(&presentation).unwrap().require(&world.policy, world.now).unwrap_err();
        assert_eq!(*refused.error, VerificationError::ChannelRequired);

        world.policy = world.policy.with_channel(ChannelRule::Optional);
        let enclave = world.fresh(&presentation).unwrap().require(&world.policy, world.now).unwrap();
        assert_eq!(enclave.channel(), Channel::None);
    }

    #[test]
    fn a_shorter_age() {
        let mut world = World::new();
        let text = world.policy.to_toml().replace("version = 1", "version = 1\nmax_age = \"60s\"");
        world.policy = Policy::parse(&text).unwrap();
        world.verify().unwrap();
        let fresh = world.fresh(&world.present(&world.statement())).unwrap();
        let now = world.now.plus(2 * MINUTE);
        let refused = fresh.require(&world.policy, now).unwrap_err();
        let too_old = VerificationError::OlderThanPolicyAllows { now, document: world.now, max_age: MINUTE };
        assert_eq!((refused.step(), *refused.error), (Step::Policy, too_old));
    }
}

#[test]
fn models_are_accepted_by_the_digest_in_the_policy() {
    let mut world = World::new();
    let enclave = world.verify().unwrap();
    assert_eq!(enclave.model("iris").unwrap(), &world.manifest.models[0]);
    let served = vec!["iris".to_owned(), "digits".to_owned()];
    assert_eq!(enclave.model("wine"), Err(ModelError::UnknownModel { name: "wine".to_owned(), served }));

    let (name, expected, actual) = ("iris".to_owned(), Sha384([9; 48]), Sha384([1; 48]));
    world.policy.add_model(PolicyModel { name: name.clone(), digest: expected }).unwrap();
    assert_eq!(world.verify().unwrap().model("iris"), Err(ModelError::DigestMismatch { name, expected, actual }));

    world.policy = policy(&world.authority, &[]);
    let (name, digest) = ("iris".to_owned(), Sha384([1; 48]));
    assert_eq!(world.verify().unwrap().model("iris"), Err(ModelError::NotInPolicy { name, digest }));
}

mod receipts {
    use super::*;

    fn check(world: &World, receipt: &Receipt) -> Result<Receipt, ReceiptError> {
        let expected = world.receipt();
        let signed = receipt.sign(&world.receipt_key);
        let enclave = world.verify().unwrap();
        enclave.check_receipt(&signed, expected.request, expected.response, expected.bundle, PARAMETERS)
    }

    #[test]
    fn the_receipt_of_this_answer() {
        let world = World::new();
        assert_eq!(check(&world, &world.receipt()), Ok(world.receipt()));
    }

    #[test]
    fn a_receipt_that_differs_in_one_thing() {
        let world = World::new();
        let receipt = world.receipt();
        let other = Sha384([9; 48]);
        let refused = check(&world, &Receipt { request: other, ..receipt.clone() });
        assert_eq!(refused, Err(ReceiptError::RequestMismatch { expected: receipt.request, actual: other }));
        let refused = check(&world, &Receipt { response: other, ..receipt.clone() });
        assert_eq!(refused, Err(ReceiptError::ResponseMismatch { expected: receipt.response, actual: other }));
        let refused = check(&world, &Receipt { bundle: other, ..receipt.clone() });
        assert_eq!(refused, Err(ReceiptError::BundleMismatch { expected: receipt.bundle, actual: other }));
        let refused = check(&world, &Receipt { parameters: "weak".to_owned(), ..receipt.clone() });
        let (expected, actual) = (PARAMETERS.to_owned(), "weak".to_owned());
        assert_eq!(refused, Err(ReceiptError::ParametersMismatch { expected, actual }));
        let refused = check(&world, &Receipt { module_id: "i-1-enc2".to_owned(), ..receipt.clone() });
        let (expected, actual) = (receipt.module_id.clone(), "i-1-enc2".to_owned());
        assert_eq!(refused, Err(ReceiptError::ModuleIdMismatch { expected, actual }));
        let time = world.now.minus(Duration::from_millis(1));
        let refused = check(&world, &Receipt { time, ..receipt.clone() });
        assert_eq!(refused, Err(ReceiptError::BeforeDocument { receipt: time, document: world.now }));
        let (time, latest) = (world.now.plus(61 * MINUTE), world.now.plus(60 * MINUTE));
        let refused = check(&world, &Receipt { time, ..receipt });
        assert_eq!(refused, Err(ReceiptError::LongAfterDocument { receipt: time, document: world.now, latest }));
    }

    #[test]
    fn a_receipt_by_another_key() {
        let world = World::new();
        let Receipt { request, response, bundle, .. } = world.receipt();
        let signed = world.receipt().sign(&ReceiptKey::generate());
        let refused = world.verify().unwrap().check_receipt(&signed, request, response, bundle, PARAMETERS);
        assert_eq!(refused, Err(ReceiptError::Signature));
    }
}

mod evidence {
    use super::*;

    fn refusal(change: impl FnOnce(&mut Evidence)) -> EvidenceError {
        let world = World::new();
        let mut evidence = world.evidence();
        change(&mut evidence);
        world.archived(&evidence).unwrap_err()
    }

    #[test]
    fn evidence_of_an_answer() {
        let world = World::new();
        let evidence = Evidence::from_cbor(&world.evidence().to_cbor()).unwrap();
        let enclave = world.archived(&evidence).unwrap();
        assert!(enclave.steps().iter().map(|report| report.step).eq(Step::ALL));
        assert_eq!(enclave.release(), "simulated");
        assert_eq!(enclave.module_id(), world.nsm.module_id());
        assert_eq!(enclave.timestamp(), world.now);
        assert_eq!(enclave.channel(), world.challenge.channel);
        assert_eq!(enclave.receipts(), [world.receipt()]);
        assert_eq!(enclave.recorded_policy(), world.policy.digest());
        assert!(enclave.simulated());
    }

    #[test]
    fn parts_that_are_not_what_they_should_be() {
        let garbage = || b"garbage".to_vec();
        let refused = refusal(|evidence| evidence.document = garbage());
        assert!(matches!(reason(&refused), VerificationError::Cose(_)), "{refused}");
        let refused = refusal(|evidence| evidence.statement = garbage());
        assert!(matches!(refused, EvidenceError::Format(_)), "{refused}");
        let refused = refusal(|evidence| evidence.manifest = garbage());
        assert!(matches!(refused, EvidenceError::ManifestMismatch { .. }), "{refused}");
        let refused = refusal(|evidence| evidence.receipts.push(garbage()));
        assert!(matches!(refused, EvidenceError::Receipt { index: 1, source: ReceiptError::Cose(_) }), "{refused}");
        assert_eq!(refusal(|evidence| evidence.receipts.clear()), EvidenceError::NoReceipts);
    }

    #[test]
    fn the_statement_of_another_session() {
        let other = ReceiptKey::generate();
        let refused = refusal(|evidence| {
            let statement = Statement::from_cbor(&evidence.statement).unwrap();
            let forged = Statement { receipt_key: other.public_key().to_vec(), ..statement };
            evidence.statement = forged.to_cbor();
        });
        assert!(matches!(reason(&refused), VerificationError::StatementMismatch { .. }), "{refused}");
        let refused = refusal(|evidence| {
            let statement = Statement::from_cbor(&evidence.statement).unwrap();
            evidence.statement = Statement { spki: b"another".to_vec(), ..statement }.to_cbor();
        });
        assert!(matches!(reason(&refused), VerificationError::PublicKeyMismatch { .. }), "{refused}");
    }

    #[test]
    fn parts_of_another_session() {
        let ours = World::new();
        let mut theirs = World { authority: ours.authority.clone(), policy: ours.policy.clone(), ..World::new() };
        theirs.nsm = ours.authority.enclave(Identity::random()).with_clock({
            let now = ours.now;
            move || now
        });
        theirs.challenge.channel = Channel::TlsExporter([8; 32]);
        theirs.manifest.limits.max_request_bytes += 1;
        theirs.now = ours.now;
        let (mine, other) = (ours.evidence(), theirs.evidence());
        ours.archived(&mine).unwrap();
        ours.archived(&other).unwrap();
        let code = |exchanged: Evidence| ours.archived(&exchanged).unwrap_err().code();
        assert_eq!(code(Evidence { document: other.document.clone(), ..mine.clone() }), "statement_mismatch");
        assert_eq!(code(Evidence { statement: other.statement.clone(), ..mine.clone() }), "manifest_mismatch");
        assert_eq!(code(Evidence { manifest: other.manifest.clone(), ..mine.clone() }), "manifest_mismatch");
        assert_eq!(code(Evidence { receipts: other.receipts.clone(), ..mine.clone() }), "receipt_signature_invalid");
        let both = Evidence { statement: other.statement.clone(), manifest: other.manifest.clone(), ..mine.clone() };
        assert_eq!(code(both), "statement_mismatch");
        let (receipts, mut policy) = ([mine.receipts.clone(), other.receipts].concat(), mine.policy);
        let refused = ours.archived(&Evidence { receipts, ..mine.clone() }).unwrap_err();
        assert_eq!(refused, EvidenceError::Receipt { index: 1, source: ReceiptError::Signature });
        policy.0[0] ^= 1;
        ours.archived(&Evidence { policy, ..mine }).unwrap();
    }

    #[test]
    fn a_part_that_is_missing_or_added() {
        let bytes = World::new().evidence().to_cbor();
        let malformed = |bytes: &[u8]| assert_eq!(Evidence::from_cbor(bytes).unwrap_err().code(), "evidence_malformed");
        for key in ["v", "policy", "document", "manifest", "receipts", "statement"] {
            let encoded = [&[0x60 + u8::try_from(key.len()).unwrap()], key.as_bytes()].concat();
            let place = bytes.windows(encoded.len()).position(|window| window == encoded).unwrap();
            let mut renamed = bytes.clone();
            renamed[place + 1] ^= 1;
            malformed(&renamed);
        }
        assert_eq!(bytes[0], 0xa6);
        malformed(&[&[0xa7], &bytes[1..], &[0x69], b"statementt", &[0xf6]].concat());
        malformed(&[&[0xa5], &bytes[1..]].concat());
        malformed(&bytes[..bytes.len() - 1]);
        malformed(&[&bytes[..], &[0]].concat());
    }

    #[test]
    fn a_receipt_by_another_key_enclave_or_time() {
        let world = World::new();
        let refused = |receipt: Vec<u8>| match world
            .archived(&Evidence { receipts: vec![receipt], ..world.evidence() })
            .unwrap_err()
        {
            EvidenceError::Receipt { index: 0, source } => source,
            other => panic!("{other}"),
        };
        assert_eq!(refused(world.receipt().sign(&ReceiptKey::generate())), ReceiptError::Signature);
        let sign = |receipt: Receipt| receipt.sign(&world.receipt_key);
        let error = refused(sign(Receipt { module_id: "i-1-enc2".to_owned(), ..world.receipt() }));
        assert!(matches!(error, ReceiptError::ModuleIdMismatch { .. }), "{error}");
        let error = refused(sign(Receipt { time: world.now.minus(MINUTE), ..world.receipt() }));
        assert!(matches!(error, ReceiptError::BeforeDocument { .. }), "{error}");
    }

    #[test]
    fn a_receipt_that_is_counted_twice() {
        let world = World::new();
        // ECDSA signatures differ each time: it is the answer that counts.
        let receipts = vec![world.receipt().sign(&world.receipt_key), world.receipt().sign(&world.receipt_key)];
        assert_ne!(receipts[0], receipts[1]);
        let refused = world.archived(&Evidence { receipts, ..world.evidence() }).unwrap_err();
        assert_eq!(refused, EvidenceError::DuplicateReceipt { index: 1 });
    }

    #[test]
    fn a_receipt_from_the_future() {
        let world = World::new();
        let (receipt, evidence) = (world.receipt().time, world.evidence());
        evidence.verify(&world.policy, receipt.minus(5 * MINUTE)).unwrap();
        let (now, leeway) = (receipt.minus(5 * MINUTE).minus(Duration::from_millis(1)), 5 * MINUTE);
        let refused = evidence.verify(&world.policy, now).unwrap_err();
        assert_eq!(
            refused,
            EvidenceError::Receipt { index: 0, source: ReceiptError::InFuture { receipt, now, leeway } }
        );
        assert!(refused.remedy().contains("clock"));
    }

    #[test]
    fn more_receipts_than_evidence_may_have() {
        let receipts = vec![vec![0]; Evidence::MAX_RECEIPTS];
        let fits = Evidence { receipts, ..World::new().evidence() };
        assert_eq!(Evidence::from_cbor(&fits.to_cbor()).unwrap(), fits);
        let over = Evidence { receipts: vec![vec![0]; Evidence::MAX_RECEIPTS + 1], ..fits };
        let refused = Evidence::from_cbor(&over.to_cbor()).unwrap_err();
        assert_eq!(refused.code(), "evidence_malformed");
        assert!(refused.to_string().contains("at most 32768 receipts"), "{refused}");
    }

    #[test]
    fn only_names_that_the_policy_accepts_are_given() {
        let mut world = World::new();
        let bundle = world.manifest.models[0].bundle;
        world.manifest.models[1].bundle = bundle;
        world.manifest.models[1].name = "fraud".to_owned();
        let archived = world.archived(&world.evidence()).unwrap();
        assert_eq!(archived.models(bundle).iter().map(|model| model.name.as_str()).collect::<Vec<_>>(), ["iris"]);
        assert!(archived.models(Sha384([9; 48])).is_empty());
    }

    #[test]
    fn a_model_that_is_not_served_or_not_accepted() {
        let mut world = World::new();
        let bundle = Sha384([9; 48]);
        let unknown = Receipt { bundle, ..world.receipt() }.sign(&world.receipt_key);
        let refused = world.archived(&Evidence { receipts: vec![unknown], ..world.evidence() }).unwrap_err();
        assert_eq!(refused, EvidenceError::UnknownBundle { index: 0, bundle });

        let evidence = world.evidence();
        world.policy.add_model(PolicyModel { name: "iris".to_owned(), digest: bundle }).unwrap();
        let refused = world.archived(&evidence).unwrap_err();
        assert_eq!(refused.code(), "model_digest_mismatch");
    }

    #[test]
    fn a_policy_that_expired_since_or_revoked_the_release() {
        let mut world = World::new();
        let evidence = world.evidence();
        let refused = evidence.verify(&world.policy, world.policy.expires()).unwrap_err();
        assert!(matches!(reason(&refused), VerificationError::PolicyExpired { .. }), "{refused}");
        world.policy.revoke("simulated", "it leaks").unwrap();
        let refused = world.archived(&evidence).unwrap_err();
        assert!(matches!(reason(&refused), VerificationError::ReleaseRevoked { .. }), "{refused}");
    }

    #[test]
    fn a_release_may_have_ended_since() {
        let mut world = World::new();
        let evidence = world.evidence();
        let ended = Release { not_after: Some(world.now), ..world.policy.releases()[0].clone() };
        world.policy.add_release(ended).unwrap();
        world.archived(&evidence).unwrap();
    }

    #[test]
    fn a_document_from_the_future() {
        let world = World::new();
        let refused = world.evidence().verify(&world.policy, world.now.minus(6 * MINUTE)).unwrap_err();
        assert!(matches!(reason(&refused), VerificationError::DocumentInFuture { .. }), "{refused}");
    }

    #[test]
    fn evidence_of_a_connection_without_channel_needs_the_policys_leave() {
        let mut world = World::new();
        world.policy = world.policy.with_channel(ChannelRule::Optional);
        let statement = Statement { channel: Channel::None, ..world.statement() };
        world.challenge.channel = Channel::None;
        let enclave = world.fresh(&world.present(&statement)).unwrap().require(&world.policy, world.now).unwrap();
        let evidence = enclave.evidence(vec![world.receipt().sign(&world.receipt_key)]);
        assert_eq!(world.archived(&evidence).unwrap().channel(), Channel::None);
        world.policy = world.policy.with_channel(ChannelRule::Required);
        let refused = world.archived(&evidence).unwrap_err();
        assert_eq!(reason(&refused), &VerificationError::ChannelRequired);
    }

    #[test]
    fn no_changed_bit_is_accepted() {
        let world = World::new();
        let bytes = world.evidence().to_cbor();
        // The digest of the recorded policy is the client's word and nothing more; all else is covered by some signature.
        let recorded = bytes.windows(48).position(|window| window == world.policy.digest().0).unwrap();
        for byte in (0..bytes.len()).filter(|byte| !(recorded..recorded + 48).contains(byte)) {
            let mut changed = bytes.clone();
            changed[byte] ^= 1 << (byte % 8);
            let verified = Evidence::from_cbor(&changed).is_ok_and(|evidence| world.archived(&evidence).is_ok());
            assert!(!verified, "byte {byte}");
        }
    }
}
