//! Policies on the command line: made, changed, shown and checked.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::{
    fs,
    process::{Command, Stdio},
};

use cloister_attestation::{ChannelRule, Pins, Policy, Release, Timestamp};
use cloister_e2e::cli::{
    CLOISTER, DAY, Desk, Outcome, assert_says_what_was_not_asked, cloister, command, hex, release,
};
use cloister_simulated_enclave::{Authority, Identity, policy as simulated_policy};
use serde_json::Value;

/// What nitro-cli prints of an image.
fn measurements(pcr0: u8, pcr1: u8) -> String {
    let [pcr0, pcr1] = [pcr0, pcr1].map(|byte| hex(&[byte; 48]));
    format!(
        r#"{{ "Measurements": {{ "HashAlgorithm": "Sha384 {{ ... }}", "PCR0": "{pcr0}", "PCR1": "{pcr1}", "PCR2": "{pcr1}" }} }}"#
    )
}

/// The codes of the warnings.
fn warned(object: &Value) -> Vec<String> {
    let warnings = object["warnings"].as_array().unwrap();
    warnings.iter().map(|warning| warning["code"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_new_policy_asks_for_a_channel_unless_it_is_told_otherwise() {
    let desk = Desk::new();
    for (name, arguments, channel) in [
        ("one", &[][..], ChannelRule::Required),
        ("two", &["--channel", "required"], ChannelRule::Required),
        ("three", &["--channel", "optional"], ChannelRule::Optional),
    ] {
        let file = desk.folder.path().join(name).display().to_string();
        assert_eq!(cloister(&[&["policy", "new", &file], arguments].concat()).exit, 0);
        assert_eq!(Policy::parse(&fs::read_to_string(&file).unwrap()).unwrap().channel(), channel);
    }
    let file = desk.folder.path().join("four").display().to_string();
    assert_eq!(cloister(&["policy", "new", &file, "--channel", "none"]).exit, 2);
}

#[test]
fn a_revocation_is_written_once_and_for_good() {
    let desk = Desk::new();
    let policy = desk.policy(|_| ());
    let revoke =
        |release: &'static str, reason: &'static str| ["policy", "revoke", &policy, release, "--reason", reason];

    let (message, _) = Outcome::assert_fails(&revoke("2.0", "leaks"), 6, "unknown_release");
    assert!(message.contains("it has 1.0, 1.1"), "{message}");
    assert_eq!(cloister(&["policy", "revoke", &policy, "1.0"]).exit, 2, "a reason is required");
    assert_eq!(cloister(&revoke("1.0", "")).exit, 2);
    Outcome::assert_fails(&revoke("1.0", "two\nlines"), 6, "policy_unprintable");

    let revoked = cloister(&revoke("1.0", "leaks"));
    assert_eq!(revoked.exit, 0, "{}", revoked.stderr);
    assert!(revoked.stdout.contains("REVOKED: release 1.0: leaks"), "{}", revoked.stdout);
    assert_eq!(revoked.stderr, "", "nothing of the file was lost");
    let written = fs::read_to_string(&policy).unwrap();
    assert_eq!(Policy::parse(&written).unwrap().releases()[0].revoked.as_deref(), Some("leaks"));

    let again = cloister(&[&revoke("1.0", "leaks")[..], &["--json"]].concat());
    assert_eq!((again.exit, &again.json()["changed"]), (0, &false.into()));
    let (message, _) = Outcome::assert_fails(&revoke("1.0", "it is slow"), 6, "already_revoked");
    assert!(message.contains("leaks"), "{message}");
    assert_eq!(fs::read_to_string(&policy).unwrap(), written);

    let build = desk.write("build.json", measurements(0x10, 0x10));
    let renamed = ["policy", "add", &policy, "--measurements", &build, "--name", "1.0 again"];
    Outcome::assert_fails(&renamed, 6, "policy_revoked");
}

#[test]
fn a_policy_is_written_whole_or_not_at_all() {
    let desk = Desk::new();
    let policy = desk.policy(|_| ());
    let before = fs::read_to_string(&policy).unwrap();
    let full = Command::new("sh")
        .args(["-c", r#"trap '' XFSZ; ulimit -f 0; exec "$0" "$@""#])
        .arg(&*CLOISTER)
        .args(["policy", "revoke", &policy, "1.0", "--reason", "leaks"])
        .output()
        .unwrap();
    assert_eq!(full.status.code(), Some(6), "{}", String::from_utf8_lossy(&full.stderr));
    assert_eq!(fs::read_to_string(&policy).unwrap(), before);
    assert_eq!(fs::read_dir(desk.folder.path()).unwrap().count(), 1, "no draft is left");

    let link = desk.folder.path().join("link.toml");
    std::os::unix::fs::symlink(&policy, &link).unwrap();
    let revoke = ["policy", "revoke", link.to_str().unwrap(), "1.0", "--reason", "leaks"];
    assert_eq!(cloister(&revoke).exit, 0);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_ne!(fs::read_to_string(&policy).unwrap(), before, "what the link points to was changed");
}

#[test]
fn changes_at_the_same_time_are_all_kept() {
    let desk = Desk::new();
    let names = |kind: &str| (0..20).map(|index| format!("{kind}-{index}")).collect::<Vec<_>>();
    let (old, new) = (names("old"), names("new"));
    let policy = desk.policy(|policy| {
        for (name, byte) in old.iter().zip(0x20..) {
            policy.add_release(release(name, byte)).unwrap();
        }
    });
    let link = desk.folder.path().join("link.toml").display().to_string();
    std::os::unix::fs::symlink(&policy, &link).unwrap();
    let start = |arguments: &[&str]| {
        command().arg("policy").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut children = Vec::new();
    for ((old, new), byte) in old.iter().zip(&new).zip(0x40..) {
        let build = desk.write(&format!("{new}.json"), measurements(byte, byte));
        children.push(start(&["revoke", &policy, old, "--reason", "leaks"]));
        children.push(start(&["add", &link, "--measurements", &build, "--name", new]));
    }
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let policy = Policy::parse(&fs::read_to_string(&policy).unwrap()).unwrap();
    let revoked = |name: &str| policy.releases().iter().find(|release| release.name == name).unwrap().revoked.is_some();
    assert!(old.iter().all(|name| revoked(name)), "no revocation is lost");
    assert!(!new.iter().any(|name| revoked(name)), "every addition is there");
}

#[test]
fn lost_comments_are_announced() {
    let desk = Desk::new();
    let policy = desk.policy(|_| ());
    let commented = fs::read_to_string(&policy).unwrap() + "# ask Ada before the next one\n";
    let policy = desk.write("commented.toml", &commented);
    let unchanged = cloister(&["policy", "revoke", &policy, "2.0", "--reason", "leaks"]);
    assert_eq!((unchanged.exit, fs::read_to_string(&policy).unwrap()), (6, commented));
    let revoked = cloister(&["policy", "revoke", &policy, "1.0", "--reason", "leaks"]);
    assert!(revoked.stderr.contains("comments and layout of your own are not kept"), "{}", revoked.stderr);
}

#[test]
fn a_policy_is_checked_for_what_it_accepts_today() {
    let desk = Desk::new();
    let check = |policy: &str| cloister(&["policy", "check", policy, "--json"]);

    let sound = check(&desk.policy(|_| ()));
    assert_eq!((sound.exit, sound.stderr.as_str()), (0, ""));
    let sound = sound.json();
    assert_eq!((&sound["accepted"], &sound["releases"]), (&true.into(), &vec!["1.0", "1.1"].into()));
    assert_eq!(warned(&sound), [""; 0]);

    let refused = |change: fn(&mut Policy), code: &str| {
        let policy = desk.policy(change);
        let (message, _) = Outcome::assert_fails(&["policy", "check", &policy], 3, code);
        let object = check(&policy).json();
        assert_eq!((&object["accepted"], object.get("verified")), (&false.into(), None));
        message
    };
    refused(|policy| *policy = Policy::new(Timestamp::now().plus(90 * DAY)), "empty_policy");
    refused(|policy| *policy = Policy::new(Timestamp::now().minus(DAY)), "policy_expired");
    let message = refused(
        |policy| {
            policy.revoke("1.0", "leaks").unwrap();
            let not_after = Some(Timestamp::now().minus(DAY));
            policy.add_release(Release { not_after, ..release("1.1", 0x11) }).unwrap();
        },
        "no_open_release",
    );
    assert!(message.contains("1.0 is revoked: leaks") && message.contains("1.1 ended at "), "{message}");

    let doubtful = check(&desk.policy(|policy| {
        let not_after = Some(Timestamp::now().minus(DAY));
        policy.add_release(Release { not_after, ..release("0.9", 9) }).unwrap();
        policy.add_release(release("1.0 too", 0x10)).unwrap();
        *policy = policy.clone().with_channel(ChannelRule::Optional);
    }));
    assert_eq!(doubtful.exit, 0, "warnings refuse nothing");
    assert_eq!(warned(&doubtful.json()), ["channel_optional", "release_ended", "same_build"]);
    assert_eq!(doubtful.stderr.lines().filter(|line| line.starts_with("warning: ")).count(), 3, "{}", doubtful.stderr);

    // But what keeps every enclave out accepts nothing.
    let message = refused(pin_nobody, "pin_fits_nothing");
    assert!(message.contains("module_id = `my enclave` fits no enclave"), "{message}");
    let pinned = desk.policy(pin_nobody);
    assert_eq!(warned(&check(&pinned).json()), ["pin_fits_nothing"]);
    let build = desk.write("build.json", measurements(0x11, 0x11));
    Outcome::assert_fails(&["policy", "check", &pinned, "--measurements", &build], 3, "pin_fits_nothing");

    // At another time: near the end, after it, and long before.
    let policy = desk.policy(|_| ());
    let at = |days: u32| {
        cloister(&["policy", "check", &policy, "--json", "--at", &Timestamp::now().plus(DAY * days).to_string()])
    };
    assert_eq!((at(80).exit, warned(&at(80).json())), (0, vec!["expires_soon".to_owned()]));
    assert_eq!((at(91).exit, &at(91).json()["error"]["code"]), (3, &"policy_expired".into()));
    assert_eq!(cloister(&["policy", "check", &policy, "--at", "document"]).exit, 2, "of which document?");
}

fn pin_nobody(policy: &mut Policy) {
    let pins = Pins { module_id: Some("my enclave".to_owned()), ..Pins::default() };
    *policy = policy.clone().with_pins(pins).unwrap();
}

#[test]
fn a_simulated_root_is_a_warning_until_an_enclave_is_at_hand() {
    let desk = Desk::new();
    let authority = Authority::ephemeral();
    let policy = desk.write("policy.toml", simulated_policy(&authority, &[]).to_toml());
    let document = desk.write("d", authority.enclave(Identity::random()).document(None, None, None).unwrap());
    for command in [&["show", &policy][..], &["check", &policy], &["pin", &policy, "--region", "eu-west-1"]] {
        let told = cloister(&[&["policy", "--json"], command].concat());
        assert_eq!((told.exit, &told.json()["simulated"]), (0, &true.into()), "{}", told.stderr);
        assert_eq!(warned(&told.json()), ["simulated_root", "no_model"]);
        assert!(told.stderr.contains("(simulated_root)"), "{}", told.stderr);
        assert!(!told.stderr.contains("this is not a Nitro Enclave"), "{}", told.stderr);
    }
    let policy = desk.write("policy.toml", simulated_policy(&authority, &[]).to_toml());
    let told = cloister(&["policy", "check", &policy, "--document", &document]);
    assert!(told.stderr.contains("this is not a Nitro Enclave"), "{}", told.stderr);
    let verdict = "\nSIMULATED (proves nothing about hardware), ACCEPTED: the document is of release simulated\n";
    assert!(told.stdout.contains(verdict), "{}", told.stdout);
}

#[test]
fn a_policy_is_asked_about_a_build_and_a_document() {
    let desk = Desk::new();
    let policy = desk.policy(|_| ());
    let ask = |build: &str| ["policy", "check", &policy, "--measurements", build].map(str::to_owned);
    let known = desk.write("known.json", measurements(0x11, 0x11));
    let accepted = cloister(&["policy", "check", &policy, "--measurements", &known, "--json"]);
    assert_eq!((accepted.exit, &accepted.json()["release"]), (0, &"1.1".into()), "{}", accepted.stderr);
    let near = ask(&desk.write("near.json", measurements(0x99, 0x11)));
    let (message, _) = Outcome::assert_fails(&near.each_ref().map(String::as_str), 3, "pcr_mismatch");
    assert!(message.contains("PCR0") && message.contains("`1.1`") && message.contains(&"99".repeat(48)), "{message}");
    let none = ask(&desk.write("none.json", "{}"));
    Outcome::assert_fails(&none.each_ref().map(String::as_str), 6, "no_measurements");

    let authority = Authority::ephemeral();
    let old = Timestamp::now().minus(40 * DAY);
    let nsm = authority.enclave(Identity::random()).with_clock(move || old);
    let document = desk.write("old.cose", nsm.document(None, None, None).unwrap());
    let policy = desk.write("simulated.toml", simulated_policy(&authority, &[]).to_toml());
    let ask = ["policy", "check", &policy, "--document", &document];
    Outcome::assert_fails(&ask, 3, "document_too_old");
    let then = cloister(&[&ask[..], &["--at", "document"]].concat());
    assert_eq!(then.exit, 0, "{}", then.stderr);
    assert_says_what_was_not_asked(&then.stdout);
    let accepted = cloister(&[&ask[..], &["--at", &old.to_string(), "--json"]].concat()).json();
    assert_eq!((&accepted["accepted"], &accepted["release"]), (&true.into(), &"simulated".into()));
    // Its own time is no time that is still to come.
    let future = Timestamp::now().plus(DAY);
    let nsm = authority.enclave(Identity::random()).with_clock(move || future);
    let premature = desk.write("premature.cose", nsm.document(None, None, None).unwrap());
    for ask in [
        ["policy", "check", &policy, "--document", &premature],
        ["verify-document", &premature, "--policy", &policy, "-v"],
    ] {
        Outcome::assert_fails(&[&ask[..], &["--at", "document"]].concat(), 3, "clock_or_document_in_future");
    }
    // The policy that revokes it refuses it at any time.
    let revoke = ["policy", "revoke", &policy, "simulated", "--reason", "leaks"];
    assert_eq!(cloister(&revoke).exit, 0);
    Outcome::assert_fails(&[&ask[..], &["--at", "document"]].concat(), 3, "release_revoked");
    Outcome::assert_fails(
        &["verify-document", &document, "--policy", &policy, "--at", "document"],
        3,
        "release_revoked",
    );
}

#[test]
fn a_policy_shows_how_its_releases_stand() {
    let desk = Desk::new();
    let policy = desk.policy(|policy| {
        policy.revoke("1.0", "leaks").unwrap();
        let not_after = Some(Timestamp::now().minus(DAY));
        policy.add_release(Release { not_after, ..release("0.9", 9) }).unwrap();
    });
    let shown = cloister(&["policy", "show", &policy]).stdout;
    for told in [
        "release 1.0  REVOKED: leaks\n",
        "release 1.1  OPEN\n",
        "release 0.9  ENDED 20",
        "\nroot    AWS Nitro G1 ",
        "at most 5 min old\n",
    ] {
        assert!(shown.contains(told), "{shown}");
    }
    let object = cloister(&["policy", "show", &policy, "--json"]).json();
    let states: Vec<&str> =
        object["releases"].as_array().unwrap().iter().map(|release| release["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["revoked", "open", "ended"]);
    let expired = desk.policy(|policy| *policy = Policy::new(Timestamp::from_millis(1_600_000_000_000)));
    assert!(cloister(&["policy", "show", &expired]).stdout.starts_with("EXPIRED 2020-09-13"));
}

#[test]
fn pins_are_set_by_what_people_know() {
    let desk = Desk::new();
    let policy = desk.policy(|_| ());
    let pin = |arguments: &[&str]| cloister(&[&["policy", "pin", &policy, "--json"], arguments].concat());
    assert_eq!(pin(&[]).exit, 2, "nothing to pin");
    assert_eq!(pin(&["--instance-id", "i-0827e799ec9232d44", "--pcr4", &"11".repeat(48)]).exit, 2);
    let before = fs::read_to_string(&policy).unwrap();
    for (typo, told) in [
        (["--instance-id", "banana"], "an instance id is such as i-0827e799ec9232d44"),
        (["--role", "Webserver"], "a role is its whole ARN, arn:aws:iam::123456789012:role/NAME"),
    ] {
        let refused = pin(&typo);
        let message = refused.json()["error"]["message"].to_string();
        assert!(refused.exit == 2 && message.contains(told), "{message}");
    }
    assert_eq!(fs::read_to_string(&policy).unwrap(), before);
    assert_eq!(pin(&["--pcr3", "11"]).exit, 2);
    assert_eq!(pin(&["--pcr3", &"00".repeat(48)]).json()["error"]["code"], "policy_zero_pin");

    assert_eq!(pin(&["--role", "arn:aws:iam::123456789012:role/Webserver", "--region", "eu-west-1"]).exit, 0);
    let pins = pin(&["--instance-id", "i-0827e799ec9232d44"]).json()["pins"].clone();
    let [pcr3, pcr4] =
        [Pins::pcr3_of_role("arn:aws:iam::123456789012:role/Webserver"), Pins::pcr4_of_instance("i-0827e799ec9232d44")];
    assert_eq!((&pins["pcr3"], &pins["pcr4"]), (&hex(&pcr3).into(), &hex(&pcr4).into()));
    assert_eq!(pins["region"], "eu-west-1", "pins that are not given stay");
    let doubtful = pin(&["--region", "Ireland"]);
    assert_eq!((doubtful.exit, warned(&doubtful.json())), (0, vec!["pin_fits_nothing".to_owned()]));
    assert!(doubtful.stderr.starts_with("warning: the pin region = `Ireland`"), "{}", doubtful.stderr);
}

#[test]
fn files_that_are_no_policy_are_named_for_what_they_are() {
    let desk = Desk::new();
    let text = fs::read_to_string(desk.policy(|_| ())).unwrap();
    let check = |policy: &str, exit, code: &str| Outcome::assert_fails(&["policy", "check", policy], exit, code);
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).chain([0xff]).collect();
    check(&desk.write("utf16.toml", utf16), 6, "policy_not_utf8");
    check(&desk.write("zero.toml", text.replace(&"10".repeat(48), &"00".repeat(48))), 6, "policy_zero_pcr");
    check(&desk.write("key.toml", text.replace("channel", "chanel")), 6, "bad_policy");
    check(&desk.write("name.toml", text.replace("\"1.0\"", "\"1.0\\u202e\"")), 6, "policy_unprintable");
    check(&desk.write("large.toml", text.clone() + &"#".repeat(1 << 20)), 6, "policy_too_large");
    check("/dev/zero", 6, "file_too_large");
    check("/nonexistent", 6, "file");
    let crlf = desk.write("crlf.toml", format!("\u{feff}{}", text.replace('\n', "\r\n")));
    assert_eq!(cloister(&["policy", "check", &crlf]).exit, 0);
}

#[test]
fn measurements_are_taken_from_what_nitro_cli_prints_and_not_in_debug_mode() {
    let desk = Desk::new();
    let image = measurements(7, 8);
    let built = format!("Start building the Enclave Image...\nEnclave Image successfully created.\n{image}\n");
    let running = |flags: &str| format!(r#"[ {{ "Flags": "{flags}", {} ]"#, &image[1..]);
    let add = |name: &str, content: &str| {
        let file = desk.write(name, content);
        ["policy", "add", &desk.policy(|_| ()), "--measurements", &file, "--name", "new"].map(str::to_owned)
    };
    for content in [&image, &built, &running("NONE")] {
        let added = cloister(&add("good.json", content).each_ref().map(String::as_str));
        assert!(added.stdout.contains(&format!("release new  OPEN\n  PCR0 {}", "07".repeat(48))), "{}", added.stderr);
    }
    let nothing = cloister(&["policy", "add", &desk.policy(|_| ())]);
    assert!(nothing.exit == 2 && nothing.stderr.contains("--measurements <FILE>|--model <FILE>"), "{}", nothing.stderr);
    let debug = add("debug.json", &running("DEBUG_MODE"));
    Outcome::assert_fails(&debug.each_ref().map(String::as_str), 6, "measurements_debug_mode");
    let zero = add("zero.json", &image.replace("07", "00"));
    Outcome::assert_fails(&zero.each_ref().map(String::as_str), 6, "measurements_zero_pcr");
}
