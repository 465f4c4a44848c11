//! What makes the command line comfortable: completions, manual pages, configuration, colours, and a doctor.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::{
    fs,
    io::Write,
    net::TcpListener,
    process::{Command, Stdio},
};

use cloister_attestation::{Policy, PolicyModel, Release, Sha384, Timestamp};
use cloister_e2e::{
    cli::{CLOISTER, Outcome, assert_fits_a_terminal, cloister, cloister_with, command, commands, hex, write},
    iris,
    nginx::Nginx,
    service::{Service, accepting},
    world::{HttpOptions, HttpWorld, Link, World},
};
use cloister_simulated_enclave::{Authority, Identity};
use serde_json::Value;

#[test]
fn every_shell_completes_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let Outcome { exit, stdout: script, stderr } = cloister(&["completions", shell]);
        assert_eq!((exit, stderr.as_str()), (0, ""));
        for command in commands(&CLOISTER) {
            let name = command.split(' ').next_back().unwrap();
            assert!(script.contains(name), "{shell}: {name}");
        }
        assert_eq!(cloister(&["completions", shell, "--json"]).json()["script"], script.as_str());
    }
    assert_eq!(cloister(&["completions", "csh"]).exit, 2);
}

#[test]
fn bash_takes_the_script_and_completes_commands_and_files() {
    let folder = tempfile::tempdir().unwrap();
    let script = write(folder.path(), "cloister", cloister(&["completions", "bash"]).stdout);
    assert!(Command::new("bash").args(["-n", &script]).status().unwrap().success());
    write(folder.path(), "policy.toml", "");
    let complete = |words: &str, word: &str| {
        let words = format!(
            "source {script}; cd {}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
             _cloister cloister '{word}' \"${{COMP_WORDS[COMP_CWORD - 1]}}\"; echo ${{COMPREPLY[@]}}",
            folder.path().display()
        );
        let output = Command::new("bash").args(["-c", &words]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete("cloister inf", "inf"), "infer");
    assert_eq!(complete("cloister policy ch", "ch"), "check");
    assert_eq!(complete("cloister verify --policy pol", "pol"), "policy.toml");
    assert_eq!(complete("cloister infer --model pol", "pol"), "pol", "a model is no file");
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("man1").display().to_string();
    let written = cloister(&["man", &place, "--json"]);
    assert_eq!(written.exit, 0, "{}", written.stderr);
    let names = commands(&CLOISTER).into_iter().map(|command| format!("cloister-{}.1", command.replace(' ', "-")));
    let mut expected: Vec<String> =
        names.chain(["cloister.1".to_owned()]).map(|name| format!("{place}/{name}")).collect();
    let mut pages: Vec<String> = serde_json::from_value(written.json()["pages"].clone()).unwrap();
    expected.sort();
    pages.sort();
    assert_eq!(pages, expected);
    assert_eq!(cloister(&["man", &place]).stdout.lines().count(), pages.len(), "says what it wrote");
    for page in &pages {
        assert!(fs::read_to_string(page).unwrap().starts_with(".ie \\n(.g"), "{page}");
        assert_is_sound(page);
    }

    let top = cloister(&["man"]).stdout;
    assert_eq!(top, fs::read_to_string(format!("{place}/cloister.1")).unwrap());
    for told in [".SH \"EXIT CODES\"", "130 interrupted", ".SH CONFIGURATION", "CLOISTER_TOKEN_FILE", "config.toml"] {
        assert!(top.contains(told), "{told}: {top}");
    }
    let infer = fs::read_to_string(format!("{place}/cloister-infer.1")).unwrap();
    assert!(infer.contains(".SH EXAMPLES\n.nf\n  cloister infer https://"), "{infer}");
    Outcome::assert_fails(&["man", "/dev/null/man1"], 6, "file");
}

/// By whatever reads manual pages here.
fn assert_is_sound(page: &str) {
    let run = |program: &str, arguments: &[&str]| Command::new(program).args(arguments).arg(page).output().ok();
    let judged = run("mandoc", &["-Tlint", "-Wwarning"]).or_else(|| run("man", &["--warnings", "-l"]));
    match judged {
        Some(output) => assert!(output.status.success() && output.stderr.is_empty(), "{page}: {output:?}"),
        None => eprintln!("SKIPPED: there is neither mandoc nor man"),
    }
}

/// Settings of somebody's.
struct Home {
    folder: tempfile::TempDir,
    policy: String,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // It accepts nothing, and is enough to say which way would be gone.
        let policy = write(folder.path(), "policy.toml", Policy::new(Timestamp::now()).to_toml());
        Self { folder, policy }
    }

    fn write(&self, text: &str) -> String {
        write(self.folder.path(), "config.toml", text)
    }

    /// What `doctor` says was set, each with where it came from.
    fn settings(arguments: &[&str], environment: &[(&str, &str)]) -> Value {
        cloister_with(&[&["doctor", "--json"], arguments].concat(), environment).json()["settings"].clone()
    }
}

#[test]
fn the_command_line_counts_before_the_environment_the_file_and_the_default() {
    let home = Home::new();
    let file = home.write("endpoint = \"https://127.0.0.1:1\"\npolicy = \"policy.toml\"\nconnections = 3\n");
    let config = ("CLOISTER_CONFIG", file.as_str());
    let from = |value: &str, from: &str| serde_json::json!({"value": value, "from": from});

    let settings = Home::settings(&[], &[config]);
    assert_eq!(settings["endpoint"], from("https://127.0.0.1:1", &file));
    assert_eq!(settings["policy"], from(&home.policy, &file), "relative to the file");
    assert_eq!(settings["connections"], from("3", &file));

    let environment =
        [config, ("CLOISTER_ENDPOINT", "https://127.0.0.1:2"), ("CLOISTER_POLICY", "p"), ("CLOISTER_CONNECTIONS", "")];
    let settings = Home::settings(&[], &environment);
    assert_eq!(settings["endpoint"], from("https://127.0.0.1:2", "CLOISTER_ENDPOINT"));
    assert_eq!(settings["policy"], from("p", "CLOISTER_POLICY"));
    assert_eq!(settings["connections"], from("3", &file), "what is empty is not set");

    let settings = Home::settings(&["https://127.0.0.1:3", "--policy", "q"], &environment);
    assert_eq!(settings["endpoint"], from("https://127.0.0.1:3", "the command line"));
    assert_eq!(settings["policy"], from("q", "the command line"));

    // A file is looked for at home, and never where somebody happens to be.
    let at_home = |variable: &str, path: &str| {
        let folder = home.folder.path().join(path);
        fs::create_dir_all(&folder).unwrap();
        fs::copy(&file, folder.join("config.toml")).unwrap();
        let root = home.folder.path().join(path.split('/').next().unwrap());
        let mut command = command();
        command.env_remove("CLOISTER_CONFIG").env_remove("XDG_CONFIG_HOME").env("HOME", "/nonexistent");
        let output = command.env(variable, root).current_dir(&folder).args(["doctor", "--json"]).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["settings"]["connections"]["value"].clone()
    };
    assert_eq!(at_home("XDG_CONFIG_HOME", "xdg/cloister"), "3");
    assert_eq!(at_home("HOME", "home/.config/cloister"), "3");
    assert_eq!(at_home("HOME", "here"), Value::Null);
    assert_eq!(at_home("HOME", "cloister"), Value::Null);
}

#[test]
fn a_way_of_a_higher_layer_drops_what_a_lower_one_has_for_another() {
    let home = Home::new();
    let token = home.folder.path().join("token").display().to_string();
    assert_eq!(cloister(&["token", &token]).exit, 0);
    let file = home.write("endpoint = \"https://127.0.0.1:1\"\ntoken_file = \"token\"\n");
    let config = ("CLOISTER_CONFIG", file.as_str());
    assert_eq!(Home::settings(&[], &[config])["token_file"]["value"], token.as_str());
    for (arguments, environment) in [
        (&["--gateway", "http://127.0.0.1:2"][..], [config, ("CLOISTER_OBJECTS", "")]),
        (&[], [config, ("CLOISTER_GATEWAY", "http://127.0.0.1:2")]),
        (&[], [config, ("CLOISTER_SAGEMAKER", "iris")]),
    ] {
        let settings = Home::settings(arguments, &environment);
        assert!(settings.get("token_file").is_none() && settings.get("endpoint").is_none(), "{settings}");
    }
    let objects = home.write("gateway = \"http://127.0.0.1:1\"\nobjects = \"s3://bucket\"\n");
    let config = ("CLOISTER_CONFIG", objects.as_str());
    assert_eq!(Home::settings(&[], &[config])["objects"]["value"], "s3://bucket");
    assert!(Home::settings(&["https://127.0.0.1:2"], &[config]).get("objects").is_none());

    // In one layer, or above the way, it is a mistake.
    let usage = |arguments: &[&str], environment: &[(&str, &str)]| {
        let refused = cloister_with(&[&["verify", "--json"], arguments].concat(), environment);
        assert_eq!((refused.exit, &refused.json()["verified"]), (2, &false.into()), "{}", refused.stdout);
        refused.json()["error"]["message"].as_str().unwrap().to_owned()
    };
    let message = usage(&["https://127.0.0.1:1", "--gateway", "http://127.0.0.1:2"], &[]);
    assert!(message.contains("endpoint (from the command line) and gateway (from the command line)"), "{message}");
    let message = usage(&["--gateway", "http://127.0.0.1:2", "--token-file", &token], &[]);
    assert!(message.contains("token_file (from the command line) is not for gateway"), "{message}");
    let message = usage(&["--token-file", &token], &[config]);
    assert!(message.contains(&format!("is not for gateway (from {objects})")), "{message}");
    let message = usage(&[], &[("CLOISTER_ENDPOINT", "https://h"), ("CLOISTER_SAGEMAKER", "iris")]);
    assert!(message.contains("CLOISTER_ENDPOINT") && message.contains("CLOISTER_SAGEMAKER"), "{message}");
    let message = usage(&["https://h", "--objects", "s3://bucket"], &[]);
    assert!(message.contains("objects"), "{message}");
    let message = usage(&[], &[("CLOISTER_CONNECTIONS", "17")]);
    assert!(message.contains("1 to 16"), "{message}");
    let message = usage(&[], &[("CLOISTER_ENDPOINT", "h")]);
    assert!(message.contains("endpoint (from CLOISTER_ENDPOINT)"), "{message}");
    assert!(usage(&[], &[]).contains("no evaluator"));
}

/// Whoever has somebody try an endpoint of theirs, with a policy of theirs, does not get the token of another.
#[test]
fn a_token_does_not_follow_another_endpoint() {
    let home = Home::new();
    let file = home.write("endpoint = \"https://127.0.0.1:1\"\ntoken_file = \"token\"\n");
    let config = ("CLOISTER_CONFIG", file.as_str());
    let token = |arguments: &[&str], environment: &[(&str, &str)]| {
        Home::settings(arguments, environment).get("token_file").map(|setting| setting["from"].clone())
    };
    assert_eq!(token(&[], &[config]), Some(file.as_str().into()));
    assert_eq!(token(&["https://127.0.0.1:2"], &[config]), None);
    assert_eq!(token(&[], &[config, ("CLOISTER_ENDPOINT", "https://127.0.0.1:2")]), None);
    let environment = [config, ("CLOISTER_TOKEN_FILE", "other")];
    assert_eq!(token(&[], &environment), Some("CLOISTER_TOKEN_FILE".into()), "above the endpoint it is meant for it");
    assert_eq!(token(&["https://127.0.0.1:2"], &environment), None);
    assert_eq!(token(&["https://127.0.0.1:2", "--token-file", "t"], &environment), Some("the command line".into()));
}

#[test]
fn a_file_with_what_nobody_knows_is_refused_by_every_command_that_reads_it() {
    let home = Home::new();
    let file = home.write("endpoint = \"https://127.0.0.1:1\"\nverify = false\n");
    let input = iris::file("iris.csv").display().to_string();
    for command in [&["verify"][..], &["models"], &["doctor"], &["infer", "--model", "iris", "--in", &input]] {
        let refused = cloister_with(&[command, &["--json"]].concat(), &[("CLOISTER_CONFIG", &file)]);
        let told = refused.json().to_string();
        assert_eq!((refused.exit, &refused.json()["error"]["code"]), (6, &"bad_configuration".into()), "{told}");
        for part in [&file, "unknown field `verify`", "`endpoint`", "`token_file`", "`connections`"] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }
    let missing = cloister_with(&["verify", "--json"], &[("CLOISTER_CONFIG", "/nonexistent")]);
    assert_eq!(
        (missing.exit, &missing.json()["error"]["code"]),
        (6, &"file".into()),
        "one that was named must be there"
    );
}

#[test]
fn once_configured_commands_need_no_arguments() {
    let world = World::start(Link::Tcp).unwrap();
    let text = format!("endpoint = \"{}\"\npolicy = \"authority/policy.toml\"\n", world.endpoint);
    let file = write(world.folder(), "config.toml", text);
    let environment = [("CLOISTER_CONFIG", file.as_str()), ("CLOISTER_CONNECTIONS", "1")];
    let verified = cloister_with(&["verify", "-v"], &environment);
    assert_eq!(verified.exit, 0, "{}", verified.stderr);
    assert!(
        verified.stdout.contains(&format!("endpoint    {}  (from {file})\n", world.endpoint)),
        "{}",
        verified.stdout
    );
    assert!(verified.stdout.contains("connections 1  (from CLOISTER_CONNECTIONS)\n"), "{}", verified.stdout);
    assert_eq!(cloister_with(&["models"], &environment).exit, 0);
    let input = iris::file("iris.csv").display().to_string();
    let evidence = world.folder().join("evidence").display().to_string();
    let infer = ["infer", "--model", "iris", "--in", &input, "--evidence", &evidence];
    let inferred = cloister_with(&infer, &environment);
    assert_eq!((inferred.exit, inferred.stdout.lines().count()), (0, 151), "{}", inferred.stderr);
    assert_eq!(cloister_with(&["verify-receipt", &evidence], &environment).exit, 0);
    let well = cloister_with(&["doctor", "--model", "iris", "--try"], &environment);
    assert_eq!(well.exit, 0, "{}{}", well.stdout, well.stderr);
}

/// What `doctor` says of each check: `ok`, and what was found and advised.
fn checks(arguments: &[&str]) -> (Outcome, Vec<(String, Value, String)>) {
    let outcome = cloister(&[&["doctor", "--json"], arguments].concat());
    let object = outcome.json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let one = |check: &Value| {
        let told = format!("{}\n{}\n{}", text(&check["found"]), text(&check["remedy"]), text(&check["command"]));
        (text(&check["name"]), check["ok"].clone(), told)
    };
    let checks = object["checks"].as_array().unwrap().iter().map(one).collect();
    (outcome, checks)
}

const CHECKS: [&str; 14] = [
    "configuration",
    "policy",
    "name",
    "connection",
    "tls",
    "attestation",
    "clock",
    "verification",
    "channel",
    "hardware",
    "models",
    "client",
    "description",
    "round trip",
];

/// Asserts that these fail and nothing else does, that these are made, and returns what is told of the first.
fn assert_ill(arguments: &[&str], exit: i32, code: &str, ill: &[&str], well: &[&str]) -> String {
    let (outcome, checks) = checks(arguments);
    let names: Vec<&str> = checks.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, CHECKS, "each is told, in order");
    let with =
        |ok: bool| checks.iter().filter(|check| check.1 == ok).map(|(name, ..)| name.as_str()).collect::<Vec<_>>();
    assert_eq!((with(false), with(true)), (ill.to_vec(), well.to_vec()), "{}", outcome.stdout);
    assert_eq!((outcome.exit, &outcome.json()["error"]["code"]), (exit, &code.into()), "{}", outcome.stdout);
    let people = cloister(&[&["doctor"], arguments].concat());
    assert_eq!(people.exit, exit);
    let failed = people.stdout.lines().filter(|line| line.starts_with("FAIL")).count();
    let remedies = people.stdout.lines().filter(|line| line.starts_with("      what to do: ")).count();
    assert_eq!((failed, remedies), (ill.len(), ill.len()), "{}", people.stdout);
    checks.into_iter().find(|(name, ..)| name == ill[0]).unwrap().2
}

#[test]
fn a_good_world_is_well() {
    let world = World::start(Link::Tcp).unwrap();
    let (endpoint, policy) = (world.endpoint.to_string(), world.policy_file().display().to_string());
    let well = [endpoint.as_str(), "--policy", &policy, "--model", "iris", "--try"];
    let (outcome, checks) = checks(&well);
    assert_eq!((outcome.exit, checks.len()), (0, CHECKS.len()), "{}", outcome.stdout);
    assert!(checks.iter().all(|(_, ok, _)| *ok == true), "{}", outcome.stdout);
    assert_eq!((&outcome.json()["verified"], &outcome.json()["simulated"]), (&true.into(), &true.into()));
    assert!(outcome.stderr.contains("SIMULATED"));
    let told = |name: &str| checks.iter().find(|check| check.0 == name).unwrap().2.clone();
    assert!(told("models").contains("iris 1 accepted by the policy"));
    assert!(told("description").contains("4 features, 3 logits"));
    assert!(told("round trip").contains("answered in "));
    assert!(told("hardware").contains("SIMULATED"));
    let people = cloister(&[&["doctor"], &well[..5]].concat());
    assert!(people.stdout.contains("--    round trip     not asked for"), "{}", people.stdout);
    assert!(people.stdout.ends_with("\nnothing is wrong\n"), "{}", people.stdout);
    assert_fits_a_terminal(&people.stdout);
}

#[test]
fn each_illness_is_named_with_its_remedy() {
    let world = World::start(Link::Tcp).unwrap();
    let (endpoint, policy_file) = (world.endpoint.to_string(), world.policy_file().display().to_string());
    let policy = world.policy().unwrap();
    let before = ["configuration", "policy", "name", "connection"];

    // Nothing is set, and nothing but that is wrong.
    assert_ill(&[], 2, "usage", &["configuration", "policy"], &[]);
    assert_ill(&[&endpoint], 2, "no_policy", &["policy"], &["configuration", "name", "connection"]);

    // The policy ran out: the rest is looked at all the same.
    let text = policy.to_toml();
    let expires = text.lines().find(|line| line.starts_with("expires")).unwrap();
    let expired = write(world.folder(), "expired.toml", text.replace(expires, "expires = 2020-01-01T00:00:00Z"));
    let well = ["configuration", "name", "connection", "tls", "attestation", "clock"];
    let told = assert_ill(&[&endpoint, "--policy", &expired], 3, "policy_expired", &["policy", "verification"], &well);
    assert!(told.contains("2020-01-01"), "{told}");

    // Nobody listens.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let closed = format!("https://{free}");
    let told = assert_ill(&[&closed, "--policy", &policy_file], 5, "unreachable", &["connection"], &before[..3]);
    assert!(told.contains("refused") && told.contains("are running"), "{told}");
    let nowhere = ["https://cloister.invalid:1", "--policy", &policy_file];
    assert_ill(&nowhere, 5, "name_not_resolved", &["name"], &before[..2]);

    // Another build: with the command that would accept it.
    let mut other = policy.clone();
    let genuine = policy.releases()[0].clone();
    let pcrs = [[0x5a; 48], genuine.pcrs[1], genuine.pcrs[2]];
    other.add_release(Release { pcrs, ..genuine.clone() }).unwrap();
    let other_file = write(world.folder(), "other.toml", other.to_toml());
    let well = [&before[..], &["tls", "attestation", "clock"]].concat();
    let told = assert_ill(&[&endpoint, "--policy", &other_file], 3, "pcr_mismatch", &["verification"], &well);
    assert!(told.contains("step 12 (policy)") && told.contains(&hex(&genuine.pcrs[0])), "{told}");
    let people = cloister(&["doctor", &endpoint, "--policy", &other_file]).stdout;
    let line = people.lines().find(|line| line.contains("| cloister policy add")).unwrap();
    let suggested = told.lines().next_back().unwrap();
    assert_eq!(line.trim(), suggested);
    assert!(people.contains("its publisher, and not the endpoint"), "{people}");
    assert!(suggested.contains(&format!("policy add '{other_file}' --")), "{suggested}");
    let add = suggested.replace("cloister policy", "\"$0\" policy").replace("RELEASE", "mine");
    assert!(Command::new("sh").args(["-c", &add]).arg(&*CLOISTER).output().unwrap().status.success(), "{add}");
    assert_eq!(cloister(&["verify", &endpoint, "--policy", &other_file]).exit, 0, "it is exact");

    // A model that nobody serves, and one that is served otherwise.
    let well = [&well[..], &["verification", "channel", "hardware"]].concat();
    let unknown = [&endpoint, "--policy", &policy_file, "--model", "wine"];
    let told = assert_ill(&unknown, 6, "unknown_model", &["models"], &well);
    assert!(told.contains("wine") && told.contains("iris"), "{told}");
    other.add_model(PolicyModel { name: "iris".to_owned(), digest: Sha384([9; 48]) }).unwrap();
    other.add_release(genuine).unwrap();
    let other = write(world.folder(), "other.toml", other.to_toml());
    assert_ill(&[&endpoint, "--policy", &other], 3, "model_digest_mismatch", &["models"], &well);
}

#[test]
fn whoever_answers_instead_is_recognised() {
    let world = HttpWorld::start(&[iris::import().unwrap().bundle], &HttpOptions::default()).unwrap();
    let policy = world.policy_file().display().to_string();
    let well = ["configuration", "policy", "name", "connection"];
    let authority = world.url.trim_start_matches("http://");
    let endpoint = format!("https://{authority}");
    let told = assert_ill(&[&endpoint, "--policy", &policy], 5, "plain_http", &["tls"], &well);
    assert!(told.contains(&format!("--gateway {}", world.url)), "{told}");
    // Which helps.
    let (outcome, checks) = checks(&["--gateway", &world.url, "--policy", &policy, "--model", "iris", "--try"]);
    assert_eq!(outcome.exit, 0, "{}", outcome.stdout);
    let passed_over: Vec<&str> =
        checks.iter().filter(|check| check.1.is_null()).map(|check| check.0.as_str()).collect();
    assert_eq!(passed_over, ["tls"], "{}", outcome.stdout);
    assert!(outcome.stderr.contains("TLS ENDS BEFORE THE ENCLAVE"));

    let Some(program) = Nginx::find().unwrap() else { return };
    let nginx = Nginx::start(&program, authority).unwrap();
    let endpoint = nginx.url.trim_end_matches("/cloister");
    let told = assert_ill(&[endpoint, "--policy", &policy], 5, "foreign_tls", &["tls"], &well);
    assert!(told.contains("pass TCP on") && told.contains("--gateway https://localhost"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_not_known_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token").display().to_string();
    let digest = cloister(&["token", &token, "--json"]).json()["token_digest"].clone();
    let settings = format!(r#"{{"v": 1, "max_connections": 16, "clients": [{{"name": "a", "token": {digest}}}]}}"#);
    let settings = serde_json::from_str(&settings).unwrap();
    let bundle = iris::import().unwrap().bundle;
    let authority = Authority::ephemeral();
    let nsm = authority.enclave(Identity::random());
    let service = Service::start(nsm, settings, std::slice::from_ref(&bundle)).await.unwrap();
    let policy = write(folder.path(), "policy.toml", accepting(&authority, &bundle).to_toml());
    let endpoint = service.endpoint().unwrap().to_string();
    tokio::task::spawn_blocking(move || {
        let told =
            assert_ill(&[&endpoint, "--policy", &policy], 4, "unauthorized", &["client"], &[&CHECKS[..11]].concat());
        assert!(told.contains("--token-file"), "{told}");
        let known = [&endpoint, "--policy", &policy, "--token-file", &token];
        let (outcome, checks) = checks(&known);
        assert_eq!(outcome.exit, 0, "{}", outcome.stdout);
        assert!(checks.iter().any(|check| check.2.contains("served with its token")), "{}", outcome.stdout);
    })
    .await
    .unwrap();
}

#[test]
fn colours_are_for_terminals() {
    let world = World::start(Link::Tcp).unwrap();
    let (endpoint, policy) = (world.endpoint.to_string(), world.policy_file().display().to_string());
    let verify = ["verify", &endpoint, "--policy", &policy];
    let fails = ["verify", "https://127.0.0.1:1", "--policy", &policy];
    let is_coloured = |arguments: &[&str], environment: &[(&str, &str)]| {
        let Outcome { stdout, stderr, .. } = cloister_with(arguments, environment);
        (stdout.contains('\u{1b}'), stderr.contains('\u{1b}'))
    };
    for arguments in [&verify, &fails] {
        assert_eq!(is_coloured(arguments, &[]), (false, false), "it is a pipe");
    }
    let forced = ("CLICOLOR_FORCE", "1");
    assert_eq!(is_coloured(&verify, &[forced]), (true, true), "ok, and the banner");
    assert_eq!(is_coloured(&fails, &[forced]), (false, true));
    assert_eq!(is_coloured(&verify, &[forced, ("NO_COLOR", "1")]), (false, false));
    let object = cloister_with(&[&verify[..], &["--json"]].concat(), &[forced]);
    assert_eq!(object.json()["verified"], true, "data have no colours: {}", object.stdout);

    let line = [&["'", CLOISTER.to_str().unwrap(), "' "].concat(), verify.join(" ").as_str()].concat();
    let terminal = |environment: &[(&str, &str)]| {
        let mut script = Command::new("script");
        script
            .args(["-qec", &line, "/dev/null"])
            .env_remove("NO_COLOR")
            .env_remove("CI")
            .env("TERM", "xterm")
            .stdin(Stdio::null());
        script.env("CLOISTER_CONFIG", "/dev/null").envs(environment.iter().copied());
        script.output().ok().map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let Some(told) = terminal(&[]) else {
        std::io::stderr().write_all(b"SKIPPED: there is no `script` to make a terminal\n").unwrap();
        return;
    };
    assert!(told.contains("\u{1b}[32mok\u{1b}[0m") && told.contains("\u{1b}[33m***"), "{told:?}");
    for environment in [[("NO_COLOR", "1")], [("TERM", "dumb")]] {
        let told = terminal(&environment).unwrap();
        assert!(told.contains("VERIFIED") && !told.contains('\u{1b}'), "{told:?}");
    }
}
