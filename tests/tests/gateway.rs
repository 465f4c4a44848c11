//! nginx ends TLS between client and parent, as a load balancer or an API gateway does.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use cloister_attestation::{ChannelRule, Nonce};
use cloister_e2e::{
    cli::{Outcome, cloister_with, write},
    hostile::{
        BUNDLE, Cheat, Hostile,
        balancer::{Balancer, Change, cut_answer, cut_metadata, cut_presentation, unchanged},
        permuted_labels, trusting,
    },
    iris,
    nginx::Nginx,
    service::Service,
    world::{HttpOptions, HttpWorld},
};
use cloister_enclave_app::settings::Settings;
use cloister_simulated_enclave::{Authority, Identity};
use serde_json::json;

/// `cloister` as somebody runs it whose machine trusts the authority of this nginx.
fn cloister(nginx: &Nginx, arguments: &[&str]) -> Outcome {
    cloister_with(arguments, &[("SSL_CERT_FILE", &nginx.authority.display().to_string())])
}

#[test]
fn inference_and_receipts_work_behind_a_balancer_that_ends_tls() {
    let Some(program) = Nginx::find().unwrap() else { return };
    let world = HttpWorld::start(std::slice::from_ref(&BUNDLE), &HttpOptions::default()).unwrap();
    let nginx = Nginx::start(&program, world.url.strip_prefix("http://").unwrap()).unwrap();
    let (policy, input) = (world.policy_file().display().to_string(), iris::file("iris.csv").display().to_string());
    let evidence = world.folder().join("evidence.cbor").display().to_string();
    let way = ["--gateway", &nginx.url, "--policy", &policy];

    let verified = cloister(&nginx, &[&["verify"], &way[..]].concat());
    assert_eq!(verified.exit, 0, "{}", verified.stderr);
    for banner in ["SIMULATED", "TLS ENDS BEFORE THE ENCLAVE"] {
        assert!(verified.stderr.contains(banner), "{}", verified.stderr);
    }
    let infer = ["--model", "iris", "--in", &input, "--labels", "species", "--evidence", &evidence, "--json"];
    let inferred = cloister(&nginx, &[&["infer"], &way[..], &infer].concat());
    assert_eq!(inferred.exit, 0, "{}", inferred.stderr);
    let object = inferred.json();
    assert_eq!((&object["channel"], object["predictions"].as_array().unwrap().len()), (&json!("none"), 150));
    let checked = cloister(&nginx, &["verify-receipt", &evidence, "--policy", &policy]);
    assert_eq!(checked.exit, 0, "{}", checked.stderr);

    // An enclave behind it is not taken for one at its end.
    let direct = nginx.url.strip_suffix("/cloister").unwrap();
    let refused = cloister(&nginx, &["verify", direct, "--policy", &policy, "--json"]);
    assert_ne!(refused.exit, 0, "{}", refused.stdout);
    // Whoever does not trust the authority of nginx does not get so far.
    assert_eq!(cloister_with(&[&["verify"], &way[..]].concat(), &[]).exit, 5);
}

/// The code with which a client refuses what answers behind nginx.
struct Case {
    program: std::path::PathBuf,
    authority: Authority,
    folder: tempfile::TempDir,
}

impl Case {
    async fn code(&self, upstream: std::net::SocketAddr, channel: ChannelRule) -> String {
        let policy = trusting(&self.authority).with_channel(channel).to_toml();
        let policy = write(self.folder.path(), "policy.toml", policy);
        let rows = write(
            self.folder.path(),
            "rows.csv",
            format!("{}\n{}", iris::FEATURES.join(","), "5.1,3.5,1.4,0.2\n".repeat(5000)),
        );
        let program = self.program.clone();
        let ask = move || {
            let nginx = Nginx::start(&program, &upstream.to_string()).unwrap();
            let arguments = ["infer", "--gateway", &nginx.url, "--policy", &policy, "--model", "iris", "--in", &rows];
            // One connection, so that it is the second answer which comes again.
            cloister(&nginx, &[&arguments[..], &["--connections", "1", "--json"]].concat())
        };
        let outcome = tokio::task::spawn_blocking(ask).await.unwrap();
        match outcome.exit {
            0 => "accepted".to_owned(),
            _ => outcome.json()["error"]["code"].as_str().unwrap().to_owned(),
        }
    }

    async fn of_cheat(&self, cheat: Cheat) -> String {
        let hostile = Hostile::plain(&self.authority, cheat).await.unwrap();
        self.code(hostile.address, ChannelRule::Optional).await
    }

    async fn enclave(&self, authority: &Authority) -> Service {
        let attester = authority.enclave(Identity::random());
        Service::start(attester, Settings::default(), std::slice::from_ref(&BUNDLE)).await.unwrap()
    }

    async fn of_change(&self, change: Change) -> String {
        let enclave = self.enclave(&self.authority).await;
        let balancer = Balancer::start(&[enclave.plain], change).await.unwrap();
        self.code(balancer.address, ChannelRule::Optional).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_cheats_behind_a_balancer_is_refused_by_name() {
    let Some(program) = Nginx::find().unwrap() else { return };
    let case = Case { program, authority: Authority::ephemeral(), folder: tempfile::tempdir().unwrap() };
    assert_eq!(case.of_cheat(Cheat::Nothing).await, "accepted", "so that the others fail for their own reason");
    // Permuted labels, and changed and repeated answers.
    let permuted = permuted_labels(BUNDLE.description());
    assert_eq!(case.of_cheat(Cheat::ChangeDescription(permuted)).await, "description_mismatch");
    assert_eq!(case.of_cheat(Cheat::ChangeReply).await, "response_mismatch");
    assert_eq!(case.of_cheat(Cheat::RepeatAnswer).await, "request_mismatch");
    // A document of before, and a document that forges what it vouches for.
    let old = Hostile::plain(&case.authority, Cheat::Nothing).await.unwrap().presentation(&Nonce([7; 32])).unwrap();
    assert_eq!(case.of_cheat(Cheat::Replay(old)).await, "nonce_mismatch");
    // Answers that are cut.
    assert_eq!(case.of_change(unchanged).await, "accepted");
    assert_eq!(case.of_change(cut_answer).await, "bad_answer");
    assert_eq!(case.of_change(cut_metadata).await, "bad_answer");
    assert_eq!(case.of_change(cut_presentation).await, "presentation_malformed");
    // A policy that asks for a channel, and an enclave that it does not accept.
    let honest = case.enclave(&case.authority).await;
    assert_eq!(case.code(honest.plain, ChannelRule::Required).await, "channel_required");
    let stranger = case.enclave(&Authority::ephemeral()).await;
    assert_eq!(case.code(stranger.plain, ChannelRule::Optional).await, "root_mismatch");
    // Redirections: to one that is accepted, whose answers are its own; and to one that is not.
    let other = case.enclave(&case.authority).await;
    let both = Balancer::start(&[honest.plain, other.plain], unchanged).await.unwrap();
    assert_eq!(case.code(both.address, ChannelRule::Optional).await, "accepted");
    let astray = Balancer::start(&[honest.plain, stranger.plain], unchanged).await.unwrap();
    let code = case.code(astray.address, ChannelRule::Optional).await;
    assert!(["accepted", "root_mismatch"].contains(&code.as_str()), "{code}");
}
