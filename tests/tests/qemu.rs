//! The image that ships, booted: a Linux kernel with its NSM driver, registers that measure, and virtual sockets. What is
//! not real is the authority that signs, and the hardware.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use cloister_attestation::{ChannelRule, Loadable, PolicyModel, Sha384, Timestamp, VerificationError};
use cloister_client::{AttestedConnection, Endpoint, Error, Intermediary, Policy, gateway_url};
use cloister_e2e::{
    build,
    cli::{cloister, write},
    hostile::{BUNDLE, not_verified},
    image::{BuiltImage, PROGRAM, accepting},
    iris::{self, Agreement, Iris},
    process::Process,
    qemu::{Ended, Machine, Options, Pieces},
    service::version,
    world::{endpoint, proxy},
};
use cloister_image::{Image, Measurements, Settings, first_ramdisk, ramdisk::Ramdisk};
use cloister_inference::{Bundle, ImportOptions, Imported, import};
use cloister_simulated_enclave::Authority;

/// Everything that boots an image.
struct Bench {
    pieces: Pieces,
    authority: Authority,
    folder: tempfile::TempDir,
}

impl Bench {
    /// None, and a word that this test did not run, where there are no pieces.
    fn new() -> Option<Self> {
        match Pieces::find().unwrap() {
            Ok(pieces) => {
                Some(Self { pieces, authority: Authority::ephemeral(), folder: tempfile::tempdir().unwrap() })
            }
            Err(reason) => {
                // Past the test harness, which captures what passes.
                io::stderr().write_all(format!("SKIPPED: no enclave is booted: {reason}\n").as_bytes()).unwrap();
                None
            }
        }
    }

    fn kernel(&self) -> Vec<u8> {
        fs::read(self.pieces.kernel()).unwrap()
    }

    fn image(&self, models: &[&Bundle]) -> Image {
        Image::assemble(&self.kernel(), &PROGRAM, &Settings::default(), models)
    }

    fn options(&self) -> Options {
        Options::signed_by(&self.authority)
    }

    fn eif(&self, image: &Image) -> PathBuf {
        write(self.folder.path(), "test.eif", &image.eif).into()
    }

    /// Boots an image that serves.
    fn boot(&self, image: &Image) -> Machine {
        Machine::boot(&self.pieces, &self.eif(image), &self.options()).unwrap()
    }

    /// Boots an image that ends by itself.
    fn boot_to_end(&self, image: &Image) -> Ended {
        Machine::start(&self.pieces, &self.eif(image), &self.options()).unwrap().unwrap_err()
    }

    /// A policy that accepts these registers, and the Iris model.
    fn policy(&self, pcrs: [[u8; 48]; 3]) -> Policy {
        accepting(&self.authority, Measurements(pcrs))
    }

    /// The policy that a data owner makes of a release's measurements.json.
    fn policy_file(&self, measurements: &Path) -> String {
        let file = self.folder.path().join("policy.toml").display().to_string();
        assert_eq!(cloister(&["policy", "new", &file]).exit, 0);
        let root = format!("root = \"\"\"\n{}\"\"\"\n", self.authority.root_pem());
        write(self.folder.path(), "policy.toml", root + &fs::read_to_string(&file).unwrap());
        let (measurements, model) =
            (measurements.display().to_string(), write(self.folder.path(), "iris.cloister", BUNDLE.to_bytes()));
        let added =
            cloister(&["policy", "add", &file, "--measurements", &measurements, "--name", "1.0.0", "--model", &model]);
        assert_eq!(added.exit, 0, "{}", added.stderr);
        file
    }
}

/// Why the enclave at `endpoint` is refused.
async fn refusal(endpoint: &Endpoint, policy: Policy) -> VerificationError {
    not_verified(AttestedConnection::open(endpoint, policy).await.unwrap_err()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_verified_by_its_measurements_and_answers_150_rows_within_the_bound() {
    let Some(bench) = Bench::new() else { return };
    let image = BuiltImage::build(&bench.pieces.kernel(), &[&BUNDLE]).unwrap();
    let policy_file = bench.policy_file(&image.measurements());
    let machine = Machine::boot(&bench.pieces, &image.eif(), &bench.options()).unwrap();
    let proxy = proxy(&[&machine.address()]).unwrap();
    let endpoint = endpoint(&proxy).unwrap();

    let verified = cloister(&["verify", &endpoint.to_string(), "--policy", &policy_file, "--json"]);
    assert_eq!(verified.exit, 0, "{}", verified.stderr);
    assert!(verified.stderr.contains("SIMULATED"), "another root than AWS's is never without this word");
    let object = verified.json();
    assert_eq!((&object["verified"], &object["release"]), (&true.into(), &"1.0.0".into()), "{object}");
    assert!(object["steps"].as_array().unwrap().iter().all(|step| step["ok"] == true), "{object}");

    let (data, policy) = (Iris::load().unwrap(), Policy::parse(&fs::read_to_string(&policy_file).unwrap()).unwrap());
    let mut connection = AttestedConnection::open(&endpoint, policy.clone()).await.unwrap();
    let mut model = connection.model("iris").await.unwrap();
    let answer = model.infer(&data.rows).await.unwrap();
    let agreement = Agreement::of(&answer.predictions, &data, model.description().bound());
    assert_eq!((agreement.violations, agreement.labels_equal), (0, 150), "{agreement:?}");

    // The first process has done what it has to, and the log says so in the order in which it happened.
    assert_eq!(machine.heartbeats(), 1);
    machine.wait_for("inferred", 1).unwrap();
    assert_eq!(machine.events(), ["booted", "ready", "attested", "attested", "inferred"]);

    // Offline, when nothing of it runs any more.
    let evidence = connection.evidence();
    drop((machine, proxy));
    let archived = evidence[0].verify(&policy, Timestamp::now()).unwrap();
    let registers: Vec<_> = archived.document().pcrs().iter().map(|(index, _)| index).collect();
    assert!(registers.iter().copied().eq(0..32), "every register is locked, so a document shows it: {registers:?}");
    let file = write(bench.folder.path(), "evidence.cbor", evidence[0].to_cbor());
    let receipts = cloister(&["verify-receipt", &file, "--policy", &policy_file]);
    assert_eq!(receipts.exit, 0, "{}", receipts.stderr);
    assert!(receipts.stdout.contains("1.0.0"), "{}", receipts.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_image_is_refused_at_the_register_that_differs() {
    let Some(bench) = Bench::new() else { return };
    let image = bench.image(&[&BUNDLE]);
    let (kernel, settings) = (bench.kernel(), Settings::default());
    let other_settings = Image::assemble(&kernel, &PROGRAM, &Settings::with_connections(7), &[&BUNDLE]);
    let other_program = Image::assemble(&kernel, &[&PROGRAM[..], b"!"].concat(), &settings, &[&BUNDLE]);
    let machine = bench.boot(&image);
    let proxy = proxy(&[&machine.address()]).unwrap();
    let endpoint = endpoint(&proxy).unwrap();
    AttestedConnection::open(&endpoint, bench.policy(image.measurements.0)).await.unwrap();
    for other in [&other_settings, &other_program] {
        let refused = refusal(&endpoint, bench.policy(other.measurements.0)).await;
        assert!(matches!(refused, VerificationError::PcrMismatch { index: 0, .. }), "{refused}");
    }

    let [ours, others] = [image.measurements.0, other_program.measurements.0];
    for index in 0..2 {
        let mut pcrs = ours;
        pcrs[index] = others[index];
        let refused = refusal(&endpoint, bench.policy(pcrs)).await;
        assert!(
            matches!(refused, VerificationError::PcrMismatch { index: at, .. } if usize::from(at) == index),
            "{refused}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_bundle_changes_pcr2_and_is_refused() {
    let Some(bench) = Bench::new() else { return };
    let image = bench.image(&[&BUNDLE]);
    let onnx = fs::read(iris::file("iris.onnx")).unwrap();
    let Imported { bundle, .. } = import(&onnx, &ImportOptions::new("iris", "2")).unwrap();
    let changed = bench.image(&[&bundle]);
    let ([pcr0, pcr1, pcr2], now) = (image.measurements.0, changed.measurements.0);
    assert!(now[0] != pcr0 && now[1] == pcr1 && now[2] != pcr2, "the program is the same, the models are not");

    let machine = bench.boot(&changed);
    let proxy = proxy(&[&machine.address()]).unwrap();
    let endpoint = endpoint(&proxy).unwrap();
    let refused = refusal(&endpoint, bench.policy([pcr0, pcr1, pcr2])).await;
    assert!(matches!(refused, VerificationError::PcrMismatch { index: 0, .. }), "{refused}");
    let refused = refusal(&endpoint, bench.policy([now[0], pcr1, pcr2])).await;
    assert!(matches!(refused, VerificationError::PcrMismatch { index: 2, .. }), "{refused}");
}

/// The kernel unpacks one ramdisk over the other, so whoever writes the second can replace what is in the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_ramdisk_that_replaces_the_program_keeps_pcr1_and_is_refused() {
    let Some(bench) = Bench::new() else { return };
    let genuine = bench.image(&[&BUNDLE]);
    let first = first_ramdisk(&PROGRAM, &Settings::default());
    let settings = br#"{"v":1,"max_connections":1}"#;
    let program = [&PROGRAM[..], b"!"].concat();
    let replaced =
        Ramdisk::new().folder("etc").file("etc/cloister.json", 0o444, settings).file("init", 0o555, &program);
    let replaced = replaced.folder("models");
    let second = replaced.file("models/iris.cloister", 0o444, &BUNDLE.to_bytes()).finish();
    let hostile = Image::of(&bench.kernel(), &[first, second]);
    let ([pcr0, pcr1, pcr2], found) = (genuine.measurements.0, hostile.measurements.0);
    assert_eq!(found[1], pcr1, "PCR1 alone does not say which program runs");

    let machine = bench.boot(&hostile);
    let proxy = proxy(&[&machine.address()]).unwrap();
    let endpoint = endpoint(&proxy).unwrap();
    AttestedConnection::open(&endpoint, bench.policy(found)).await.unwrap();
    let refused = refusal(&endpoint, bench.policy([pcr0, pcr1, pcr2])).await;
    assert!(matches!(refused, VerificationError::PcrMismatch { index: 0, .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_nobody_signed_is_refused_at_the_algorithm() {
    let Some(bench) = Bench::new() else { return };
    let image = bench.image(&[&BUNDLE]);
    let options = Options { authority: None, ..bench.options() };
    let machine = Machine::boot(&bench.pieces, &bench.eif(&image), &options).unwrap();
    let proxy = proxy(&[&machine.address()]).unwrap();
    let refused = refusal(&endpoint(&proxy).unwrap(), bench.policy(image.measurements.0)).await;
    assert_eq!(refused.code(), "protected_header");
    assert!(refused.to_string().contains("the protected header is a10120, expected a1013822"), "{refused}");
    assert!(machine.events().contains(&"document_unreadable".to_owned()), "the operator is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enclave_that_dies_in_a_request_is_a_clear_error_and_the_next_one_is_found() {
    let Some(bench) = Bench::new() else { return };
    let image = bench.image(&[&BUNDLE]);
    let options = Options { socket: Some(bench.folder.path().join("vm")), ..bench.options() };
    let boot = || Machine::boot(&bench.pieces, &bench.eif(&image), &options).unwrap();
    let machine = boot();
    let proxy = proxy(&[&machine.address()]).unwrap();
    let endpoint = endpoint(&proxy).unwrap();
    let policy = bench.policy(image.measurements.0);
    let rows = Iris::load().unwrap().rows;
    let mut connection = AttestedConnection::open(&endpoint, policy.clone()).await.unwrap();
    let mut model = connection.model("iris").await.unwrap();
    model.infer(&rows).await.unwrap();

    // Its processors stop, so that the request is on its way and is not answered when it dies.
    machine.pause().unwrap();
    let dies = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(machine);
    };
    let (answer, ()) = tokio::join!(model.infer(&rows), dies);
    assert!(matches!(answer, Err(Error::ConnectionLost { .. })), "{answer:?}");
    let nobody = AttestedConnection::open(&endpoint, policy.clone()).await;
    assert!(matches!(nobody, Err(Error::Unreachable { .. } | Error::ConnectionLost { .. })), "{nobody:?}");

    let _machine = boot();
    let mut connection = AttestedConnection::open(&endpoint, policy).await.unwrap();
    connection.model("iris").await.unwrap().infer(&rows).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_enclaves_behind_one_proxy_take_turns_and_stand_in_for_each_other() {
    let Some(bench) = Bench::new() else { return };
    let image = bench.image(&[&BUNDLE]);
    let (one, other) = (bench.boot(&image), bench.boot(&image));
    let proxy = proxy(&[&one.address(), &other.address()]).unwrap();
    let endpoint = endpoint(&proxy).unwrap();
    let rows = Iris::load().unwrap().rows;
    let visit = async || {
        let policy = bench.policy(image.measurements.0);
        let mut connection = AttestedConnection::open(&endpoint, policy).await.unwrap();
        connection.model("iris").await.unwrap().infer(&rows[..1]).await.unwrap();
        connection.enclave().module_id().to_owned()
    };
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(visit().await);
    }
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 2, "{seen:?}");
    assert!(seen[0] == seen[2] && seen[1] == seen[3], "{seen:?}");
    drop(one);
    let left = BTreeSet::from([visit().await, visit().await, visit().await]);
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enclave_that_nobody_listens_to_serves_all_the_same() {
    let Some(bench) = Bench::new() else { return };
    let image = bench.image(&[&BUNDLE]);
    let options = Options { heard: false, ..bench.options() };
    let machine = Machine::boot(&bench.pieces, &bench.eif(&image), &options).unwrap();
    let proxy = proxy(&[&machine.address()]).unwrap();
    let policy = bench.policy(image.measurements.0);
    let mut connection = AttestedConnection::open(&endpoint(&proxy).unwrap(), policy).await.unwrap();
    connection.model("iris").await.unwrap().infer(&Iris::load().unwrap().rows).await.unwrap();
}

/// What the settings in the image allow, and no more, is loaded over a virtual socket, and served where TLS ends before the enclave.
#[tokio::test(flavor = "multi_thread")]
async fn a_booted_enclave_serves_behind_a_gateway_and_loads_what_its_image_allows() {
    let Some(bench) = Bench::new() else { return };
    let (allowed, other) = (version("2").unwrap(), version("3").unwrap());
    let digest = Sha384(allowed.digest());
    let settings = Settings(format!(r#"{{"v":1,"max_connections":16,"loadable":["{digest}"]}}"#));
    let image = Image::assemble(&bench.kernel(), &PROGRAM, &settings, &[&BUNDLE]);
    let machine = bench.boot(&image);
    let front = ["serve", "--http", "tcp:127.0.0.1:0", "--plain-enclave", &machine.plain_address()];
    let proxy = Process::start(&build::executable("cloister-parent-proxy").unwrap(), &front).unwrap();
    let url = proxy.place("http").unwrap().replacen("tcp:", "http://", 1);
    let gateway = Intermediary::Gateway { url: gateway_url(&url).unwrap(), objects: None };

    let load = |bundle: &Bundle| {
        let file = write(bench.folder.path(), "load.cloister", bundle.to_bytes());
        let control = machine.control_address();
        let program = build::executable("cloister-parent-proxy").unwrap();
        Command::new(program).args(["models", "load", &file, "--control", &control]).output().unwrap()
    };
    assert!(load(&allowed).status.success());
    let refused = load(&other);
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("do not allow the bundle"), "{said}");

    let mut policy = bench.policy(image.measurements.0).with_channel(ChannelRule::Optional);
    policy.add_model(PolicyModel { name: "iris".to_owned(), digest }).unwrap();
    let mut connection = AttestedConnection::open_without_channel(&gateway, policy).await.unwrap();
    let own = Sha384(BUNDLE.digest());
    assert_eq!(connection.enclave().manifest().loadable, Loadable::Listed(vec![digest, own]));
    let mut model = connection.model("iris").await.unwrap();
    assert_eq!(model.description().version(), "2");
    let data = Iris::load().unwrap();
    let answer = model.infer(&data.rows).await.unwrap();
    let agreement = Agreement::of(&answer.predictions, &data, model.description().bound());
    assert_eq!((agreement.violations, agreement.labels_equal), (0, 150), "{agreement:?}");
    machine.wait_for("loaded", 1).unwrap();
}

/// A production enclave has no console. What a hypervisor adds to the command line reaches the kernel's first process as
/// arguments and environment.
#[tokio::test(flavor = "multi_thread")]
async fn an_enclave_without_console_heeds_nothing_that_is_not_measured() {
    let Some(bench) = Bench::new() else { return };
    let image = bench.image(&[&BUNDLE]);
    let append = "TOKIO_WORKER_THREADS=none OPENSSL_ia32cap=0 RUST_MIN_STACK=1 --models=/nowhere --help nonsense";
    let options = Options { console: false, append, ..bench.options() };
    let machine = Machine::boot(&bench.pieces, &bench.eif(&image), &options).unwrap();
    let proxy = proxy(&[&machine.address()]).unwrap();
    let policy = bench.policy(image.measurements.0);
    let mut connection = AttestedConnection::open(&endpoint(&proxy).unwrap(), policy).await.unwrap();
    connection.model("iris").await.unwrap().infer(&Iris::load().unwrap().rows).await.unwrap();

    let no_models = Image::of(&bench.kernel(), &[first_ramdisk(&PROGRAM, &Settings::default())]);
    let ended = Machine::start(&bench.pieces, &bench.eif(&no_models), &options).unwrap().unwrap_err();
    assert_eq!(ended.events, ["booted", "fatal_models"], "{}", ended.console);

    // The kernel does heed it, so that what was added has arrived.
    let nowhere = Options { append: "rdinit=/nowhere", ..bench.options() };
    let ended = Machine::start(&bench.pieces, &bench.eif(&image), &nowhere).unwrap().unwrap_err();
    assert!(ended.events.is_empty() && ended.console.contains("No working init found"), "{ended:?}");
}

#[test]
fn an_image_that_cannot_serve_ends_and_says_why() {
    let Some(bench) = Bench::new() else { return };
    let kernel = bench.kernel();
    let first = first_ramdisk(&PROGRAM, &Settings::default());
    let models = || Ramdisk::new().folder("models");
    let mut damaged = BUNDLE.to_bytes();
    damaged.pop();
    let no_settings = models().folder("etc").file("etc/cloister.json", 0o444, b"{}");
    for (second, event, reason) in [
        (no_settings, "fatal_settings", "error: /etc/cloister.json: missing field `v`"),
        (models(), "fatal_models", "error: there is no bundle (*.cloister) to serve"),
        (models().file("models/iris.cloister", 0o444, &damaged), "fatal_models", "error: /models/iris.cloister: "),
    ] {
        let image = Image::of(&kernel, &[first.clone(), second.finish()]);
        let Ended { events, console } = bench.boot_to_end(&image);
        assert_eq!(events, ["booted", event], "{console}");
        assert!(console.contains(reason), "{console}");
    }
}
