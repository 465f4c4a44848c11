//! Documents and receipts on the command line: what is proved, what is not, and whose words are whose.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::io::{self, Write};

use cloister_attestation::{
    Channel, ChannelRule, Evidence, Limits, Loadable, Manifest, ManifestModel, Nonce, Pins, Policy, PolicyModel,
    Receipt, ReceiptKey, Release, Sha384, Statement, Timestamp,
};
use cloister_e2e::{
    build,
    cli::{
        DAY, Desk, Outcome, assert_fits_a_terminal, assert_says_what_was_not_asked, assert_steps_are_complete,
        cloister, hex, write,
    },
    hostile::{Cheat, Hostile, trusting},
};
use cloister_enclave::{Attester, Claims};
use cloister_simulated_enclave::{Authority, Identity, SimulatedNsm, policy as simulated_policy};
use serde_json::Value;

#[test]
fn documents_are_verified_in_files() {
    let folder = tempfile::tempdir().unwrap();
    let garbage = write(folder.path(), "garbage", b"not a document");
    Outcome::assert_fails(&["verify-document", "/nonexistent"], 6, "file");
    assert_eq!(cloister(&["verify-document", &garbage]).exit, 3);

    let authority = Authority::ephemeral();
    let policy = write(folder.path(), "policy.toml", trusting(&authority).to_toml());
    let document = |identity: Identity| authority.enclave(identity).document(None, None, None).unwrap();
    let good = write(folder.path(), "good", document(Identity::random()));
    let debug = write(folder.path(), "debug", document(Identity::random().debug()));
    Outcome::assert_fails(&["verify-document", &good], 3, "root_mismatch");
    let accepted = cloister(&["verify-document", &good, "--policy", &policy]);
    assert_eq!(accepted.exit, 0, "{}", accepted.stderr);
    assert!(accepted.stderr.contains("SIMULATED"));
    let verdict = "SIMULATED (proves nothing about hardware), AUTHENTIC, and the policy accepts it";
    assert!(accepted.stdout.contains(verdict), "{}", accepted.stdout);
    Outcome::assert_fails(&["verify-document", &debug, "--policy", &policy], 3, "debug_mode");

    let vectors = build::workspace().join("../shared/vectors/attestation");
    if !vectors.exists() {
        let skipped = format!("SKIPPED: no AWS-signed documents at {}\n", vectors.display());
        io::stderr().write_all(skipped.as_bytes()).unwrap();
        return;
    }
    let aws = vectors.join("prod-2025-12-25-indef.cose").display().to_string();
    let old = cloister(&["verify-document", &aws]);
    assert_eq!(old.exit, 3, "expired now");
    let then = cloister(&["verify-document", &aws, "--at", "document"]);
    assert_eq!(then.exit, 0, "{}", then.stderr);
    assert!(then.stdout.contains("NO POLICY WAS APPLIED"));
    assert!(then.stdout.contains("9-11    not asked") && !then.stdout.contains("12.8"), "{}", then.stdout);
    let debug = vectors.join("debug-2025-12-25-indef.cose").display().to_string();
    Outcome::assert_fails(&["verify-document", &debug, "--at", "document"], 3, "debug_mode");
}

#[test]
fn steps_are_told_with_both_sides_and_refusals_with_what_passed() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::ephemeral();
    let good = simulated_policy(&authority, &[]);
    let mut other = good.clone();
    let [_, pcr1, pcr2] = Identity::measurements();
    let release = Release { pcrs: [[0x5a; 48], pcr1, pcr2], ..good.releases()[0].clone() };
    other.add_release(release).unwrap();
    let (policy, other) = (write(folder.path(), "p", good.to_toml()), write(folder.path(), "o", other.to_toml()));
    let nsm = authority.enclave(Identity::random());
    let document = write(folder.path(), "d", nsm.document(Some(&[7; 32]), Some(b""), None).unwrap());

    let base = ["verify-document", &document, "--policy", &policy];
    let told = cloister(&base).stdout;
    for part in
        ["nonce       32 bytes\n", "public_key  empty\n", "user_data   absent\n", "PCR0        the whole image\n"]
    {
        assert!(told.contains(part), "{told}");
    }
    assert!(told.contains("   1  ok  size          ") && told.contains("  12  ok  policy        PCR0 "), "{told}");
    assert_says_what_was_not_asked(&told);
    assert!(!told.contains("expected"), "{told}");
    let told = cloister(&[&base[..], &["-v"]].concat()).stdout;
    assert!(told.contains(&format!("nonce       32 bytes\n    {}\n", "07".repeat(32))), "{told}");
    assert!(told.contains("   1  ok  size\n          expected  at most 16384 bytes\n          found     "), "{told}");
    assert_fits_a_terminal(&told);
    let object = cloister(&[&base[..], &["--json"]].concat()).json();
    assert_steps_are_complete(&object, &[1, 2, 3, 4, 5, 6, 7, 8, 12]);
    assert_eq!(object["not_asked"], Value::from(vec!["9-11", "12.8-9"]));
    assert_eq!((&object["public_key"], &object["user_data"]), (&"".into(), &Value::Null));
    assert_eq!(object["region"], nsm.identity().region.as_str());

    let base = ["verify-document", &document, "--policy", &other];
    Outcome::assert_fails(&base, 3, "pcr_mismatch");
    let object = cloister(&[&base[..], &["--json"]].concat()).json();
    assert_steps_are_complete(&object, &[1, 2, 3, 4, 5, 6, 7, 8, 12]);
    assert_eq!(object["steps"][8]["detail"], object["error"]["message"]);
    let refused = cloister(&base).stderr;
    assert!(refused.contains("   1  ok  size          "), "{refused}");
    assert!(refused.contains("  12 FAIL policy\n\nerror at step 12 (policy): "), "{refused}");
    for side in [[0x5a; 48], Identity::measurements()[0]] {
        assert!(refused.contains(&format!("\n    {}\n", hex(&side))), "{refused}");
    }
    assert!(refused.contains("  to pass: a release of the policy (simulated)"), "{refused}");
    assert_fits_a_terminal(refused.split("12 FAIL").nth(1).unwrap());
    let refused = cloister(&[&base[..], &["-v"]].concat()).stderr;
    assert!(refused.contains("          expected  at most 16384 bytes"), "{refused}");
    assert_fits_a_terminal(&refused);
}

/// An enclave that answers without sockets, so that every part of its evidence can be exchanged.
struct Witness {
    nsm: SimulatedNsm,
    receipt_key: ReceiptKey,
    spki: Vec<u8>,
    manifest: Manifest,
}

impl Witness {
    /// A boot: new keys, another enclave.
    fn boot(authority: &Authority) -> Self {
        let (nsm, receipt_key) = (authority.enclave(Identity::random()), ReceiptKey::generate());
        let spki = nsm.module_id().as_bytes().to_vec();
        let model = |name: &str, byte| ManifestModel {
            name: name.to_owned(),
            version: "1".to_owned(),
            bundle: Sha384([byte; 48]),
            description: Sha384([byte; 48]),
        };
        let models = vec![model("iris", 1), model("flowers", 1), model("wine", 2)];
        Self {
            nsm,
            receipt_key,
            spki,
            manifest: Manifest { models, limits: Limits { max_request_bytes: 65536 }, loadable: Loadable::None },
        }
    }

    fn receipt(&self) -> Receipt {
        Receipt {
            request: Sha384::of(b"request"),
            response: Sha384::of(b"response"),
            bundle: Sha384([1; 48]),
            parameters: "n2048-tuniform17".to_owned(),
            module_id: self.nsm.module_id().to_owned(),
            time: Timestamp::now(),
        }
    }

    /// The evidence of one answer in a new session.
    fn evidence(&self, channel: Channel) -> Evidence {
        let (spki, manifest) = (self.spki.clone(), self.manifest.digest());
        let statement = Statement { channel, spki, receipt_key: self.receipt_key.public_key().to_vec(), manifest };
        let (nonce, user_data) = (Nonce::random(), statement.user_data());
        let claims = Claims { nonce: &nonce.0, public_key: &self.spki, user_data: &user_data };
        Evidence {
            document: self.nsm.attest(&claims).unwrap(),
            statement: statement.to_cbor(),
            manifest: self.manifest.to_cbor(),
            receipts: vec![self.receipt().sign(&self.receipt_key)],
            policy: Sha384([0; 48]),
        }
    }
}

#[test]
fn a_receipt_proves_image_model_messages_and_time_and_says_what_not() {
    let desk = Desk::new();
    let authority = Authority::ephemeral();
    let witness = Witness::boot(&authority);
    let policy = simulated_policy(&authority, &witness.manifest.models).with_channel(ChannelRule::Optional);
    let policy = desk.write("policy.toml", policy.to_toml());
    let verify = |channel, extra: &[&str]| {
        let file = desk.write("evidence", witness.evidence(channel).to_cbor());
        let verified = cloister(&[&["verify-receipt", &file, "--policy", &policy], extra].concat());
        assert_eq!(verified.exit, 0, "{}", verified.stderr);
        verified
    };
    let attested = Channel::TlsExporter([7; 32]);
    let object = verify(attested, &["--json"]).json();
    assert_steps_are_complete(&object, &(1..=12).collect::<Vec<_>>());
    let receipt = &object["receipts"][0];
    assert_eq!(receipt["models"], Value::from(vec!["iris", "flowers"]), "all names of the bundle");
    assert_eq!(receipt["request"], Sha384::of(b"request").to_string());
    assert_eq!(receipt["response"], Sha384::of(b"response").to_string());
    assert!(Timestamp::parse_rfc3339(receipt["time"].as_str().unwrap()).unwrap() <= Timestamp::now());
    for (index, pcr) in Identity::measurements().iter().enumerate() {
        assert_eq!(object["pcrs"][format!("pcr{index}")], hex(pcr));
    }
    assert_eq!((&object["release"], &object["channel"]), (&"simulated".into(), &"tls-exporter".into()));
    assert_eq!(object["module_id"], witness.nsm.module_id());
    assert_eq!(object["region"], witness.nsm.identity().region.as_str());
    assert_eq!(object["recorded_policy_is_this"], false);

    let not_proved =
        |object: &Value| object["not_proved"].as_array().unwrap().iter().map(Value::to_string).collect::<String>();
    let limits = not_proved(&object);
    for limit in ["data was true", "who asked", "no other answer", "one connection", "fresh", "judged now", "SIMULATED"]
    {
        assert!(limits.contains(limit), "{limit}: {limits}");
    }
    assert!(!limits.contains("TLS ended"), "{limits}");
    assert!(not_proved(&verify(Channel::None, &["--json"]).json()).contains("TLS ended"));

    let told = verify(attested, &["-v"]).stdout;
    assert_fits_a_terminal(&told);
    for part in
        ["This does not prove\n  - that the data", "iris = flowers", "  receipt 0, 20", "\n          expected  "]
    {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn a_receipt_names_the_models_that_the_policy_accepts_and_no_other() {
    let desk = Desk::new();
    let authority = Authority::ephemeral();
    let witness = Witness::boot(&authority);
    let file = desk.write("evidence", witness.evidence(Channel::TlsExporter([7; 32])).to_cbor());
    let mut policy = simulated_policy(&authority, &witness.manifest.models);
    policy.add_model(PolicyModel { name: "iris".to_owned(), digest: Sha384([9; 48]) }).unwrap();
    let policy = desk.write("policy.toml", policy.to_toml());
    let verify = ["verify-receipt", &file, "--policy", &policy];
    let told = cloister(&verify).stdout;
    assert!(told.contains("  model     flowers, parameters "), "{told}");
    let object = cloister(&[&verify[..], &["--json"]].concat()).json();
    assert_eq!(object["receipts"][0]["models"], Value::from(vec!["flowers"]));
}

/// What an attacker would like to see in a terminal.
const FORGED: &str = "x\nVERIFIED: everything\r\u{85}\u{2028}\u{61c}\u{202e}\u{1b}[2J";

/// Asserts that `told` has [`FORGED`] in it, on one line and harmless.
fn assert_is_escaped(told: &str) {
    let escaped = "x\\nVERIFIED: everything\\r\\u{85}\\u{2028}\\u{61c}\\u{202e}\\u{1b}[2J";
    assert!(told.contains(escaped), "{told}");
    assert!(!told.lines().any(|line| line.trim_start().starts_with("VERIFIED: everything")), "{told}");
    assert!(!told.contains(['\r', '\u{85}', '\u{2028}', '\u{61c}', '\u{202e}', '\u{1b}', '\u{fffd}']), "{told}");
}

#[test]
fn the_words_of_an_enclave_forge_no_line_about_its_receipts() {
    let desk = Desk::new();
    let authority = Authority::ephemeral();
    let mut witness = Witness::boot(&authority);
    let policy = desk.write("policy.toml", simulated_policy(&authority, &witness.manifest.models).to_toml());
    let model =
        ManifestModel { name: FORGED.to_owned(), version: FORGED.to_owned(), ..witness.manifest.models[0].clone() };
    witness.manifest.models.push(model);
    // Its document is made before its receipt.
    let session = witness.evidence(Channel::TlsExporter([7; 32]));
    let parameters = Receipt { parameters: FORGED.to_owned(), ..witness.receipt() }.sign(&witness.receipt_key);
    let evidence = Evidence { receipts: vec![parameters], ..session };
    let file = desk.write("evidence", evidence.to_cbor());
    let verified = cloister(&["verify-receipt", &file, "--policy", &policy, "-v"]);
    assert_eq!(verified.exit, 0, "{}", verified.stderr);
    let parameters = verified.stdout.lines().find(|line| line.starts_with("  model     iris = flowers, parameters x"));
    assert_is_escaped(parameters.unwrap_or(&verified.stdout));
    assert!(!verified.stdout.lines().any(|line| line.trim_start().starts_with("VERIFIED: everything")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_words_of_an_enclave_forge_no_line_about_its_models() {
    let authority = Authority::ephemeral();
    let folder = tempfile::tempdir().unwrap();
    let policy = write(folder.path(), "policy.toml", trusting(&authority).to_toml());
    let forge = Cheat::Forge(|draft| {
        let mut manifest = Manifest::from_cbor(&draft.manifest).unwrap();
        let named = ManifestModel { name: FORGED.to_owned(), ..manifest.models[0].clone() };
        manifest.models[0].version = FORGED.to_owned();
        manifest.models.push(named);
        draft.serve(&manifest);
    });
    let hostile = Hostile::cheating(&authority, forge).await.unwrap();
    let endpoint = hostile.endpoint().unwrap().to_string();
    for command in ["verify", "models"] {
        let (endpoint, policy) = (endpoint.clone(), policy.clone());
        let verified = tokio::task::spawn_blocking(move || cloister(&[command, &endpoint, "--policy", &policy]));
        let verified = verified.await.unwrap();
        assert_eq!(verified.exit, 0, "{}", verified.stderr);
        let models: Vec<&str> = verified.stdout.lines().filter(|line| line.starts_with("model ")).collect();
        assert_eq!(models.len(), 2, "{}", verified.stdout);
        models.iter().for_each(|line| assert_is_escaped(line));
        assert!(!verified.stdout.contains("\nVERIFIED: everything"), "{}", verified.stdout);
    }
}

#[test]
fn evidence_with_a_part_missing_exchanged_or_of_another_session_is_refused() {
    let desk = Desk::new();
    let authority = Authority::ephemeral();
    let (witness, stranger) = (Witness::boot(&authority), Witness::boot(&authority));
    let session = || witness.evidence(Channel::TlsExporter(Nonce::random().0));
    let (a, b, foreign) = (session(), session(), stranger.evidence(Channel::TlsExporter([7; 32])));
    let good = simulated_policy(&authority, &witness.manifest.models);
    let policy = desk.write("policy.toml", good.to_toml());
    let refused_bytes = |bytes: &[u8], code: &str| {
        let file = desk.write("evidence", bytes);
        Outcome::assert_fails(&["verify-receipt", &file, "--policy", &policy], 3, code).0
    };
    let refused = |change: &dyn Fn(&mut Evidence), code: &str| {
        let mut evidence = a.clone();
        change(&mut evidence);
        refused_bytes(&evidence.to_cbor(), code)
    };

    // Another session's.
    refused(&|evidence| evidence.document = b.document.clone(), "statement_mismatch");
    refused(&|evidence| evidence.statement = b.statement.clone(), "statement_mismatch");
    // Another enclave's.
    refused(&|evidence| evidence.document = foreign.document.clone(), "public_key_mismatch");
    refused(&|evidence| evidence.statement = foreign.statement.clone(), "public_key_mismatch");
    let message = refused(&|evidence| evidence.receipts.extend(foreign.receipts.clone()), "receipt_signature_invalid");
    assert!(message.contains("receipt 1"), "{message}");
    // Exchanged.
    let other = Manifest { limits: Limits { max_request_bytes: 1 }, ..witness.manifest.clone() }.to_cbor();
    refused(&|evidence| evidence.manifest = other.clone(), "manifest_mismatch");
    let signed = |receipt: Receipt| receipt.sign(&witness.receipt_key);
    let unknown = signed(Receipt { bundle: Sha384([9; 48]), ..witness.receipt() });
    let message = refused(&|evidence| evidence.receipts.push(unknown.clone()), "bundle_mismatch");
    assert!(message.contains("receipt 1"), "{message}");
    let other_module = signed(Receipt { module_id: stranger.nsm.module_id().to_owned(), ..witness.receipt() });
    refused(&|evidence| evidence.receipts = vec![other_module.clone()], "module_id_mismatch");
    let early = signed(Receipt { time: Timestamp::now().minus(DAY), ..witness.receipt() });
    refused(&|evidence| evidence.receipts = vec![early.clone()], "receipt_before_document");
    let late = signed(Receipt { time: Timestamp::now().plus(DAY), ..witness.receipt() });
    refused(&|evidence| evidence.receipts = vec![late.clone()], "receipt_long_after_document");
    // Missing.
    refused(&|evidence| evidence.receipts.clear(), "no_receipts");
    refused(&|evidence| evidence.document.clear(), "malformed_cose");
    refused(&|evidence| evidence.statement.clear(), "evidence_malformed");
    refused(&|evidence| evidence.manifest.clear(), "manifest_mismatch");
    let message = refused(&|evidence| evidence.receipts[0].truncate(100), "receipt_malformed");
    assert!(message.contains("receipt 0"), "{message}");

    // The file itself. It is a map of six keys, `v` first and then `policy` with 48 bytes.
    let bytes = a.to_cbor();
    let (head, policy_entry) = (b"\xa6\x61v\x01", b"\x66policy\x58\x30");
    assert!(bytes.starts_with(&[&head[..], policy_entry].concat()), "as deterministic CBOR says");
    let end_of_policy = head.len() + policy_entry.len() + 48;
    refused_bytes(b"", "evidence_malformed");
    refused_bytes(&bytes[..bytes.len() - 1], "evidence_malformed");
    refused_bytes(&[&bytes[..], b"\0"].concat(), "evidence_malformed");
    let removed = refused_bytes(&[b"\xa5\x61v\x01", &bytes[end_of_policy..]].concat(), "evidence_malformed");
    assert!(removed.contains("missing field `policy`"), "{removed}");
    let added = refused_bytes(&[b"\xa7", &bytes[1..], b"\x6azzzzzzzzzz\x01"].concat(), "evidence_malformed");
    assert!(added.contains("unknown field `zzzzzzzzzz`"), "{added}");
    let newer = refused_bytes(&[b"\xa6\x61v\x02", &bytes[head.len()..]].concat(), "evidence_malformed");
    assert!(newer.contains("made by a newer Cloister: update"), "{newer}");
    Outcome::assert_fails(&["verify-receipt", "/nonexistent", "--policy", &policy], 6, "file");

    // What is not exchanged is accepted; and receipts of one boot are not of one session, as the command says.
    let accepted = |evidence: &Evidence| {
        let file = desk.write("evidence", evidence.to_cbor());
        cloister(&["verify-receipt", &file, "--policy", &policy]).exit
    };
    assert_eq!(accepted(&a), 0);
    assert_eq!(accepted(&Evidence { receipts: b.receipts.clone(), ..a.clone() }), 0);
}

#[test]
fn evidence_is_judged_by_the_policy_of_today() {
    let desk = Desk::new();
    let authority = Authority::ephemeral();
    let witness = Witness::boot(&authority);
    let file = desk.write("evidence", witness.evidence(Channel::None).to_cbor());
    let good = simulated_policy(&authority, &witness.manifest.models).with_channel(ChannelRule::Optional);
    let refused = |change: &dyn Fn(&mut Policy), code: &str| {
        let mut policy = good.clone();
        change(&mut policy);
        let policy = desk.write("policy.toml", policy.to_toml());
        Outcome::assert_fails(&["verify-receipt", &file, "--policy", &policy], 3, code).0
    };
    refused(&|policy| policy.revoke("simulated", "leaks").unwrap(), "release_revoked");
    refused(&|policy| *policy = policy.clone().with_channel(ChannelRule::Required), "channel_required");
    refused(&|policy| *policy = policy.clone().with_root(Authority::ephemeral().root()), "root_mismatch");
    let elsewhere = Pins { region: Some("eu-west-1".to_owned()), ..Pins::default() };
    refused(&|policy| *policy = policy.clone().with_pins(elsewhere.clone()).unwrap(), "pinned_region_mismatch");
    let other = |name: &str| PolicyModel { name: name.to_owned(), digest: Sha384([9; 48]) };
    let message = refused(
        &|policy| ["iris", "flowers"].into_iter().for_each(|name| policy.add_model(other(name)).unwrap()),
        "model_digest_mismatch",
    );
    assert!(message.contains("receipt 0"), "{message}");
    let object = cloister(&["verify-receipt", &file, "--policy", "/nonexistent", "--json"]).json();
    assert_eq!((&object["error"]["code"], &object["verified"]), (&"file".into(), &false.into()));
}
