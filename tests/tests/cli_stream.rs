//! Long inputs on the command line: order, memory, and runs that are interrupted and go on.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
    slice,
    thread::sleep,
    time::{Duration, Instant},
};

use cloister_attestation::{Manifest, Sha384};
use cloister_e2e::{
    cli::{Outcome, cloister, command, write},
    hostile::{
        BUNDLE, Cheat, Hostile,
        parent::{Parent, Place, Tamper, Trick},
        trusting,
    },
    iris,
    service::Service,
    world::{Link, World},
};
use cloister_enclave_app::settings::Settings;
use cloister_simulated_enclave::{Authority, Identity};
use serde_json::Value;
use tokio::task::spawn_blocking;

/// The rows of one request of the Iris model.
const REQUEST: usize = 2048;

/// Rows of which no two neighbours have the same logits, and their species, as far as anybody knows.
fn table(rows: usize) -> String {
    let row = |index: usize| format!("5.1,3.5,1.4,{:.4},setosa\n", 0.1 + 0.0024 * (index % 997) as f64);
    let header = iris::FEATURES.join(",") + ",species\n";
    (0..rows).map(row).fold(header, |text, row| text + &row)
}

/// An evaluator, and arguments that ask it.
struct Desk {
    world: World,
    base: Vec<String>,
}

impl Desk {
    fn new() -> Self {
        let world = World::start(Link::Tcp).unwrap();
        let policy = world.policy_file().display().to_string();
        let base = ["infer", &world.endpoint.to_string(), "--policy", &policy, "--model", "iris"].map(str::to_owned);
        Self { world, base: base.to_vec() }
    }

    fn path(&self, name: &str) -> String {
        self.world.folder().join(name).display().to_string()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        write(self.world.folder(), name, content)
    }

    fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        self.base.iter().map(String::as_str).chain(more.iter().copied()).collect()
    }

    fn infer(&self, more: &[&str]) -> Outcome {
        let outcome = cloister(&self.arguments(more));
        assert_eq!(outcome.exit, 0, "{more:?}: {}", outcome.stderr);
        outcome
    }

    fn fails(&self, more: &[&str], exit: i32, code: &str) -> (String, String) {
        Outcome::assert_fails(&self.arguments(more), exit, code)
    }

    fn start(&self, more: &[&str]) -> Command {
        let mut command = command();
        command.args(self.arguments(more)).stderr(Stdio::piped());
        command
    }
}

/// The same predictions in the same order, up to what the noise of an encryption does to the last digit.
fn assert_same(one: &str, other: &str) {
    assert_eq!(one.lines().count(), other.lines().count());
    assert_eq!(one.lines().next(), other.lines().next());
    for (index, (one, other)) in one.lines().zip(other.lines()).enumerate().skip(1) {
        let close = one.split(',').zip(other.split(',')).all(|pair| match pair {
            (one, other) if one == other => true,
            (one, other) => (one.parse::<f64>().unwrap() - other.parse::<f64>().unwrap()).abs() < 1.5e-3,
        });
        assert!(close, "line {index}:\n{one}\n{other}");
    }
}

/// Waits until a file has this many bytes.
fn await_bytes(path: &str, bytes: u64) {
    let patience = Instant::now() + Duration::from_secs(30);
    while fs::metadata(path).map_or(0, |metadata| metadata.len()) < bytes {
        assert!(Instant::now() < patience, "{path} has {:?}", fs::metadata(path));
        sleep(Duration::from_millis(2));
    }
}

/// The receipts in evidence that the policy accepts.
fn receipts(evidence: &str, policy: &Path) -> usize {
    let verified = cloister(&["verify-receipt", evidence, "--policy", &policy.display().to_string(), "--json"]);
    assert_eq!(verified.exit, 0, "{}", verified.stderr);
    verified.json()["receipts"].as_array().unwrap().len()
}

#[test]
fn many_requests_over_several_connections_are_answered_in_order() {
    let desk = Desk::new();
    let input = desk.write("in.csv", table(40 * REQUEST + 7));
    let (one, many, evidence) = (desk.path("one.csv"), desk.path("many.csv"), desk.path("evidence"));
    desk.infer(&["--in", &input, "--out", &one, "--connections", "1"]);
    let told = desk.infer(&["--in", &input, "--out", &many, "--connections", "4", "--evidence", &evidence, "--json"]);
    assert_eq!(told.json()["rows"], 40 * REQUEST + 7);
    let many = fs::read_to_string(many).unwrap();
    assert_same(&fs::read_to_string(one).unwrap(), &many);
    assert!(
        many.lines().skip(1).zip(many.lines().skip(2)).all(|(one, next)| one != next),
        "rows tell each other apart"
    );

    let files = (1..=4).map(|n| if n == 1 { evidence.clone() } else { format!("{evidence}.{n}") });
    let policy = desk.world.policy_file();
    let counts: Vec<usize> =
        files.filter(|file| Path::new(file).exists()).map(|file| receipts(&file, &policy)).collect();
    assert_eq!(counts.iter().sum::<usize>(), 41, "{counts:?}");
    assert!(counts.len() > 1, "several connections answered: {counts:?}");

    let array = desk.path("out.json");
    desk.infer(&["--in", &input, "--out", &array, "--format", "json"]);
    let array: Value = serde_json::from_str(&fs::read_to_string(array).unwrap()).unwrap();
    assert_eq!(array.as_array().unwrap().len(), 40 * REQUEST + 7);
}

/// The service has one place, which the first connection takes.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_find_no_place_are_done_without() {
    let authority = Authority::ephemeral();
    let settings = Settings { max_connections: 1, ..Settings::default() };
    let attester = authority.enclave(Identity::random());
    let service = Service::start(attester, settings, slice::from_ref(&BUNDLE)).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let policy = write(folder.path(), "policy.toml", trusting(&authority).to_toml());
    let input = write(folder.path(), "in.csv", table(5 * REQUEST));
    let endpoint = service.endpoint().unwrap().to_string();
    let Outcome { exit, stdout, stderr } = spawn_blocking(move || {
        cloister(&["infer", &endpoint, "--policy", &policy, "--model", "iris", "--in", &input, "--connections", "4"])
    })
    .await
    .unwrap();
    assert_eq!(exit, 0, "{stderr}");
    assert!(stderr.contains("going on with fewer connections"), "{stderr}");
    assert_eq!(stdout.lines().count(), 1 + 5 * REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_last_row_means_that_nothing_was_sent() {
    let authority = Authority::ephemeral();
    let hostile = Hostile::honest(&authority).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let policy = write(folder.path(), "policy.toml", trusting(&authority).to_toml());
    let input = write(folder.path(), "in.csv", table(5000) + "5.1,3.5,1.4,99,setosa\n");
    let endpoint = hostile.endpoint().unwrap().to_string();
    let (message, _) = spawn_blocking(move || {
        let arguments = ["infer", &endpoint, "--policy", &policy, "--model", "iris", "--in", &input];
        Outcome::assert_fails(&arguments, 6, "out_of_range")
    })
    .await
    .unwrap();
    assert!(message.contains("line 5002"), "{message}");
    assert!(hostile.seen().iter().all(|(path, _)| !path.ends_with("/infer")), "{:?}", hostile.seen());
}

/// Each connection is verified by itself, and by the same policy; that it serves the very same model is checked all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_another_version_of_the_model_ends_the_run() {
    let authority = Authority::ephemeral();
    let hostile = Hostile::honest(&authority).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let policy = write(folder.path(), "policy.toml", trusting(&authority).to_toml());
    let endpoint = hostile.endpoint().unwrap().to_string();
    let mut child = command()
        .args(["infer", &endpoint, "--policy", &policy, "--model", "iris", "--in", "-", "--connections", "4"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let rows = table(40 * REQUEST);
    let (header, rows) = rows.split_at(rows.find('\n').unwrap() + 1);
    stdin.write_all(header.as_bytes()).unwrap();
    // The first connection is open, and the others will meet an enclave that serves something else.
    while hostile.seen().len() < 2 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    hostile.turn(Cheat::Forge(|draft| {
        let mut manifest = Manifest::from_cbor(&draft.manifest).unwrap();
        manifest.models[0].version = "2".to_owned();
        draft.serve(&manifest);
    }));
    let rows = rows.to_owned();
    let ended = spawn_blocking(move || {
        // It may be gone before it has read all of it.
        let _ = stdin.write_all(rows.as_bytes());
        drop(stdin);
        child.wait_with_output().unwrap()
    });
    let ended = ended.await.unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(3), "{told}");
    assert!(told.contains("code: model_changed") && told.contains(r#"its version was "1", now it is"#), "{told}");
}

/// What was answered honestly is kept, with its receipts.
#[tokio::test(flavor = "multi_thread")]
async fn a_dishonest_answer_ends_the_run_behind_those_before_it() {
    let authority = Authority::ephemeral();
    let hostile = Hostile::cheating(&authority, Cheat::RepeatAnswer).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.toml");
    fs::write(&policy, trusting(&authority).to_toml()).unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (input, out, evidence) = (write(folder.path(), "in.csv", table(10 * REQUEST)), path("out.csv"), path("e"));
    let (endpoint, accepted) = (hostile.endpoint().unwrap().to_string(), policy.display().to_string());
    let arguments = [
        ["infer", &endpoint, "--policy", &accepted, "--model", "iris", "--in", &input, "--connections", "1"].as_slice(),
        &["--out", &out, "--evidence", &evidence],
    ]
    .concat();
    let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
    let refused = spawn_blocking(move || cloister(&arguments.iter().map(String::as_str).collect::<Vec<_>>()));
    let refused = refused.await.unwrap();
    assert_eq!(refused.exit, 3, "{}", refused.stderr);
    assert!(refused.stderr.contains(&format!("the first {REQUEST} rows; --resume goes on")), "{}", refused.stderr);
    assert_eq!(fs::read_to_string(out).unwrap().lines().count(), 1 + REQUEST);
    assert_eq!(receipts(&evidence, &policy), 1);
}

#[test]
fn a_run_that_was_killed_goes_on() {
    let desk = Desk::new();
    let input = desk.write("in.csv", table(200_000));
    let (whole, out) = (desk.path("whole.csv"), desk.path("out.csv"));
    desk.infer(&["--in", &input, "--out", &whole]);
    let mut killed = desk.start(&["--in", &input, "--out", &out]).spawn().unwrap();
    await_bytes(&out, 100_000);
    killed.kill().unwrap();
    killed.wait().unwrap();
    let mut kept = fs::read_to_string(&out).unwrap();
    kept.truncate(kept.rfind('\n').unwrap() + 1);
    assert!(kept.lines().count() < 200_000, "it was killed in time");
    // As if it had been killed within a line.
    fs::write(&out, format!("{kept}setosa,tr")).unwrap();

    let resumed = desk.infer(&["--in", &input, "--out", &out, "--resume", "--json"]).json();
    assert_eq!((&resumed["rows"], &resumed["resumed"]), (&200_000.into(), &(kept.lines().count() - 1).into()));
    let out_now = fs::read_to_string(&out).unwrap();
    assert!(out_now.starts_with(&kept), "what was there stays, byte for byte");
    assert_same(&out_now, &fs::read_to_string(&whole).unwrap());
    assert!(!Path::new(&format!("{out}.resume")).exists());
}

/// Its parent drops a connection after a few answers, and one more; then it is gone, and with it the run. The rest comes over
/// another way.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_lost_its_connections_goes_on_and_counts_all_rows() {
    let desk = spawn_blocking(Desk::new).await.unwrap();
    let enclave = desk.world.enclave_address.strip_prefix("tcp:").unwrap().parse().unwrap();
    let end = Tamper::Record(Place { request: 5, record: 0 }, Trick::End);
    let parent = Parent::start_for(enclave, end, 2).await.unwrap().endpoint().unwrap().to_string();
    spawn_blocking(move || {
        // Some are moved to the edge, and some have labels that the model does not give.
        let rows = "5.1,3.5,1.4,99,setosa\n6,3,5,1.7,rose\n".repeat(20);
        let input = desk.write("in.csv", table(18 * REQUEST) + &rows);
        let (whole, out, evidence) = (desk.path("whole.csv"), desk.path("out.csv"), desk.path("evidence"));
        let common = ["--in", &input, "--clip", "--labels", "species"];
        let arguments = |more: &[&str]| [&common, more].concat().iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let infer = |more: &[&str]| {
            let arguments = arguments(more);
            desk.infer(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).json()
        };
        let uninterrupted = infer(&["--out", &whole, "--json"]);

        let lossy = arguments(&["--out", &out, "--evidence", &evidence, "--connections", "1"]);
        let mut lossy: Vec<&str> = desk.arguments(&lossy.iter().map(String::as_str).collect::<Vec<_>>());
        lossy[1] = &parent;
        let lost = cloister(&lossy);
        assert_eq!(lost.exit, 5, "{}", lost.stderr);
        assert!(
            lost.stderr.contains("connecting anew") && lost.stderr.contains("code: unreachable"),
            "{}",
            lost.stderr
        );
        let kept = fs::read(&out).unwrap();
        let resumed = infer(&["--out", &out, "--evidence", &evidence, "--connections", "1", "--resume", "--json"]);
        assert!(resumed["resumed"].as_u64().unwrap() > 0);
        for field in ["rows", "clipped", "uncertain", "accuracy"] {
            assert_eq!(resumed[field], uninterrupted[field], "{field}");
        }
        assert_eq!(resumed["clipped"], 20);
        assert!(fs::read(&out).unwrap().starts_with(&kept));
        assert_same(&fs::read_to_string(&out).unwrap(), &fs::read_to_string(&whole).unwrap());

        let policy = desk.world.policy_file();
        let counts = ["", ".2", ".3"].map(|number| receipts(&format!("{evidence}{number}"), &policy));
        assert!(counts.into_iter().all(|count| count > 0));
    })
    .await
    .unwrap();
}

#[test]
fn who_interrupts_keeps_rows_and_evidence() {
    let desk = Desk::new();
    let input = desk.write("in.csv", table(200_000));
    let (out, evidence) = (desk.path("out.csv"), desk.path("evidence"));
    let child = desk.start(&["--in", &input, "--out", &out, "--evidence", &evidence]).spawn().unwrap();
    await_bytes(&out, 50_000);
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let ended = child.wait_with_output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{told}");
    assert!(told.contains("--resume goes on from there") && told.contains("code: interrupted"), "{told}");
    let rows = fs::read_to_string(&out).unwrap().lines().count() - 1;
    let policy = desk.world.policy_file();
    let evidence = [evidence.clone(), format!("{evidence}.2")];
    let receipts: usize =
        evidence.iter().filter(|file| Path::new(file).exists()).map(|file| receipts(file, &policy)).sum();
    assert!(receipts * REQUEST >= rows, "{receipts} receipts for {rows} rows");
}

#[test]
fn what_cannot_go_on_is_refused() {
    let desk = Desk::new();
    let input = desk.write("in.csv", table(10));
    let out = desk.path("out.csv");
    let run = ["--in", &input, "--out", &out];
    let fails = |arguments: &[&str], exit, code: &str, needle: &str| {
        let (message, remedy) = desk.fails(arguments, exit, code);
        assert!(format!("{message} {remedy}").contains(needle), "{message} {remedy}");
    };
    fails(&[&run[..], &["--resume"]].concat(), 6, "nothing_to_resume", "out.csv.resume");
    fails(&["--in", &input, "--resume"], 2, "usage", "--out");
    fails(&["--in", "-", "--out", &out, "--resume"], 6, "empty_table", "");
    fails(&[&run[..], &["--resume", "--format", "json"]].concat(), 2, "usage", "CSV");
    assert!(!Path::new(&out).exists(), "nothing was begun");
    fails(&["--in", &input, "--out", &input], 2, "usage", "is the input");
    fails(&["--in", &input, "--evidence", &input], 2, "usage", "is the input");
    assert_eq!(fs::read_to_string(&input).unwrap(), table(10));

    // As an interrupted run leaves it: what a whole one writes, without its last rows.
    desk.infer(&run);
    let whole = fs::read_to_string(&out).unwrap();
    let begin = |rows: usize, edit: &dyn Fn(&mut Value)| {
        let mut sidecar = sidecar(&desk, &input);
        edit(&mut sidecar);
        desk.write("out.csv.resume", sidecar.to_string());
        desk.write("out.csv", whole.lines().take(rows + 1).fold(String::new(), |text, line| text + line + "\n"))
    };
    let resume = [&run[..], &["--resume"]].concat();
    begin(4, &|_| {});
    fails(&run, 6, "unfinished_output", "--resume");
    fails(&[&resume[..], &["--clip"]].concat(), 6, "resume_mismatch", "--clip was false, now it is true");
    let other = desk.write("other.csv", table(11));
    fails(&["--in", &other, "--out", &out, "--resume"], 6, "resume_mismatch", "input's digest");
    begin(4, &|sidecar| sidecar["bundle"] = "sha384:00".into());
    fails(&resume, 6, "resume_mismatch", "model's digest was sha384:00");
    begin(4, &|sidecar| sidecar["surprise"] = true.into());
    fails(&resume, 6, "bad_resume_file", "surprise");
    begin(4, &|_| {});
    desk.write("out.csv", "label,certain\n");
    fails(&resume, 6, "resume_output", "line 1");
    desk.write("out.csv", whole.clone() + whole.lines().nth(1).unwrap() + "\n");
    fails(&resume, 6, "resume_output", "more rows than the input");
    begin(4, &|_| {});
    let lock = fs::File::open(desk.path("out.csv.resume")).unwrap();
    lock.lock().unwrap();
    fails(&resume, 6, "output_in_use", "out.csv");
    drop(lock);

    // And what can, does: from the middle, from the very beginning, and when only the word that it is done is missing.
    for rows in [4, 0, 10] {
        begin(rows, &|_| {});
        assert_eq!(desk.infer(&[&resume[..], &["--json"]].concat()).json()["rows"], 10);
        assert_same(&fs::read_to_string(&out).unwrap(), &whole);
    }
    begin(4, &|_| {});
    desk.write("out.csv", "");
    desk.infer(&resume);
    assert_same(&fs::read_to_string(&out).unwrap(), &whole);
}

/// What an interrupted run leaves beside its output.
fn sidecar(desk: &Desk, input: &str) -> Value {
    let inspected = cloister(&["model", "inspect", &desk.world.bundle.display().to_string(), "--json"]).json();
    let bytes = fs::read(input).unwrap();
    let rows = bytes.iter().filter(|byte| **byte == b'\n').count() - 1;
    serde_json::json!({
        "v": 1,
        "input": Sha384::of(&bytes).to_string(),
        "bytes": bytes.len(),
        "rows": rows,
        "model": "iris",
        "bundle": inspected["digest"],
        "format": "csv",
        "clip": false,
    })
}

/// 300 000 rows take the memory of a few requests: all of them, as text and as numbers, would be several times as much.
#[test]
fn memory_does_not_grow_with_the_input() {
    const BOUND_KIB: u64 = 32 << 10;
    let desk = Desk::new();
    let input = desk.write("in.csv", table(300_000));
    let mut child = desk.start(&["--in", &input, "--out", &desk.path("out.csv")]).spawn().unwrap();
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        peak = peak.max(peak_memory(&child).unwrap_or(0));
        sleep(Duration::from_millis(10));
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(fs::read_to_string(desk.path("out.csv")).unwrap().lines().count(), 300_001);
    assert!((1..BOUND_KIB).contains(&peak), "{peak} KiB");
}

/// The most that a process has had in memory, in KiB.
fn peak_memory(process: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[test]
fn a_pipe_is_answered_while_it_is_written() {
    let desk = Desk::new();
    let mut child = desk.start(&["--in", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    // More than a request, as the reader looks ahead; the pipe stays open.
    stdin.write_all(table(2 * REQUEST + 1).as_bytes()).unwrap();
    let mut line = String::new();
    for _ in 0..=2 * REQUEST {
        line.clear();
        stdout.read_line(&mut line).unwrap();
    }
    assert!(line.starts_with("setosa,true,"), "{line}");
    // A bad row ends it behind the good ones.
    stdin.write_all(b"5.1,3.5,1.4,0.2,setosa\n5.1,3.5,1.4,99,setosa\n").unwrap();
    drop(stdin);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let ended = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(6), "{told}");
    assert!(told.contains(&format!("line {}", 2 * REQUEST + 4)), "{told}");
    assert!(rest.is_empty(), "what shares a request with a bad row is not sent: {rest}");
}

#[test]
fn one_json_object_has_room_for_100_000_rows() {
    let desk = Desk::new();
    let input = desk.write("in.csv", table(100_001));
    let refused = cloister(&desk.arguments(&["--in", &input, "--json"]));
    assert_eq!(refused.exit, 6, "{}", refused.stderr);
    let error = &refused.json()["error"];
    assert_eq!(error["code"], "too_many_rows");
    assert!(error["message"].as_str().unwrap().contains("100000"), "{error}");
    assert!(error["remedy"].as_str().unwrap().contains("--out FILE"), "{error}");
    assert_eq!(desk.infer(&["--in", &input, "--json", "--out", &desk.path("out.csv")]).json()["rows"], 100_001);
}

#[test]
fn a_reader_that_goes_away_ends_a_long_run() {
    let desk = Desk::new();
    let input = desk.write("in.csv", table(300_000));
    let mut child = desk.start(&["--in", &input]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("label,"), "{line}");
    let ended = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(0), "{told}");
    assert!(!told.contains("panicked") && !told.contains("\n300000 rows"), "{told}");
}
