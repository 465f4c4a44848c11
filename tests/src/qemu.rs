//! A Nitro Enclave without AWS: QEMU's `nitro-enclave` machine, with a Linux NSM driver, registers that measure, and
//! virtual sockets. What it cannot have is AWS's signature, so a simulated authority signs.
//!
//! `enclave/image/qemu/build.sh` builds the pieces.

use std::{
    env,
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    os::unix::{
        fs::symlink,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use cloister_attestation::Timestamp;
use cloister_simulated_enclave::{Authority, Identity};
use serde::Deserialize;
use tempfile::TempDir;

use crate::build::workspace;

/// Names the folder with the pieces.
const VARIABLE: &str = "CLOISTER_QEMU_NE";
/// Where they are if it is not set, from the root of this repository.
const DEFAULT: &str = "../shared/qemu-ne";

/// Emulation is slow, and test machines are shared.
const BOOT: Duration = Duration::from_secs(120);
/// How often it is looked.
const POLL: Duration = Duration::from_millis(20);
/// How long an event may take from the enclave to its parent.
const EVENT: Duration = Duration::from_secs(30);
/// How long its kernel may take to accept or refuse a connection.
const ANSWER: Duration = Duration::from_secs(10);
/// What its kernel says when all drivers are ready.
const LAST_OF_KERNEL: &str = "Run /init as init process";
/// How long the reason of an enclave that has ended is waited for.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// The guest's context identifier. It means nothing outside of its vsock device, so all machines have the same.
const CID: u32 = 16;
/// As many as the smallest enclave on AWS has, where a processor of two threads is not divided.
const CPUS: &str = "2";
/// The enclave's ports, as enclave-app has them.
const SERVICE_PORT: u32 = 5000;
const PLAIN_PORT: u32 = 5001;
const LOG_PORT: u32 = 5002;
const CONTROL_PORT: u32 = 5003;
const HEARTBEAT_PORT: u32 = 9000;
const HEARTBEAT: u8 = 0xb7;

/// QEMU, its vsock device, its firmware and a kernel.
#[derive(Clone, Debug)]
pub struct Pieces(PathBuf);

impl Pieces {
    /// The pieces, or why there are none. Where the variable asks for them, that they cannot be used is an error.
    pub fn find() -> anyhow::Result<Result<Self, String>> {
        let asked = env::var_os(VARIABLE).map(PathBuf::from);
        let pieces = Self(asked.clone().unwrap_or_else(|| workspace().join(DEFAULT)));
        match (pieces.check(), asked) {
            (Ok(()), _) => Ok(Ok(pieces)),
            (Err(reason), None) => Ok(Err(format!(
                "{reason}. enclave/image/qemu/build.sh builds what is needed; {VARIABLE} names its folder"
            ))),
            (Err(reason), Some(_)) => bail!("{VARIABLE}: {reason}"),
        }
    }

    fn check(&self) -> Result<(), String> {
        for path in [self.kernel(), self.qemu(), self.vsock_device(), self.firmware().join("qboot.rom")] {
            if !path.is_file() {
                return Err(format!("there is no {}", path.display()));
            }
        }
        // A program whose libraries are not installed is there and cannot start.
        for program in [self.qemu(), self.vsock_device()] {
            let output = Command::new(&program).arg("--version").output();
            let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
            if !output.status.success() {
                return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
            }
        }
        Ok(())
    }

    /// A kernel that this repository pins.
    pub fn kernel(&self) -> PathBuf {
        self.0.join("kernel/bzImage")
    }

    fn qemu(&self) -> PathBuf {
        self.0.join("bin/qemu-system-x86_64")
    }

    fn vsock_device(&self) -> PathBuf {
        self.0.join("bin/vhost-device-vsock")
    }

    fn firmware(&self) -> PathBuf {
        self.0.join("fw")
    }
}

/// How a machine is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its memory.
    pub memory_mib: u32,
    /// Who signs its documents; without one they carry no signature.
    pub authority: Option<Authority>,
    /// Who it says it is. Its registers are measured, not taken from here.
    pub identity: Identity,
    /// Where the parent reaches it; a place of its own if there is none.
    pub socket: Option<PathBuf>,
    /// Whether anybody on the parent listens to it. To an enclave that is not heard the kernel's messages are left, so it needs
    /// its console.
    pub heard: bool,
    /// How long it may take until it serves or says why not.
    pub patience: Duration,
    /// What a hypervisor could add to the kernel's command line, which is not measured.
    pub append: &'static str,
    /// Whether it has a console, as in debug mode.
    pub console: bool,
}

impl Options {
    /// A new enclave on a new instance whose documents `authority` signs.
    pub fn signed_by(authority: &Authority) -> Self {
        let (authority, identity) = (Some(authority.clone()), Identity::random());
        let (memory_mib, patience) = (128, BOOT);
        Self { memory_mib, authority, identity, socket: None, heard: true, patience, append: "", console: true }
    }
}

/// A running enclave. It is killed, as a hypervisor would, when this is dropped.
#[derive(Debug)]
pub struct Machine {
    // In the order in which they end: without its device, a dead machine's connections would stay open.
    qemu: Killed,
    _vsock_device: Killed,
    socket: PathBuf,
    seen: Seen,
    _folder: TempDir,
    /// From the start of QEMU until the service said that it is ready.
    pub boot: Duration,
}

/// What reached the parent.
#[derive(Clone, Debug, Default)]
struct Seen {
    events: Arc<Mutex<Vec<String>>>,
    heartbeats: Arc<Mutex<usize>>,
    console: Arc<Mutex<Vec<u8>>>,
}

/// A line of an enclave's log, all of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Event {
    #[expect(dead_code, reason = "it is read, to be sure that it is a number")]
    time: u64,
    event: String,
    #[expect(dead_code, reason = "it is read, to be sure that it is a number")]
    value: u64,
}

/// How a machine that does not serve ended.
#[derive(Debug)]
pub struct Ended {
    /// The names of its events.
    pub events: Vec<String>,
    /// What it wrote to its console.
    pub console: String,
}

impl Machine {
    /// Boots an image, and waits until it serves.
    pub fn boot(pieces: &Pieces, eif: &Path, options: &Options) -> anyhow::Result<Self> {
        match Self::start(pieces, eif, options)? {
            Ok(machine) => Ok(machine),
            Err(Ended { events, console }) => bail!("the enclave ended: {events:?}\n{console}"),
        }
    }

    /// Boots an image, and waits until it serves or has ended.
    pub fn start(pieces: &Pieces, eif: &Path, options: &Options) -> anyhow::Result<Result<Self, Ended>> {
        let folder = tempfile::tempdir()?;
        let file = |name: &str| folder.path().join(name);
        let seen = Seen::default();
        let Options { memory_mib, authority, identity, socket, heard, patience, append, console } = options;
        // The vsock device ends for good if anybody connects while the guest's driver sets up its queues (seen in 1 of 4 boots
        // of an enclave that was asked again and again). So nobody knows its socket before the enclave serves.
        let hidden = file("vsock");
        let socket = socket.clone().unwrap_or_else(|| file("vm"));
        // What a machine that was here before has left.
        let _ = fs::remove_file(&socket);
        let happened = heard.then(|| seen.listen(&hidden)).transpose()?;

        let device_socket = file("device");
        let vm = format!(
            "guest-cid={CID},socket={},uds-path={},tx-buffer-size=32768",
            device_socket.display(),
            hidden.display()
        );
        let log = File::create(file("vsock.log"))?;
        let device = Command::new(pieces.vsock_device()).args(["--vm", &vm]).stdout(Stdio::null()).stderr(log).spawn();
        let device = Killed(device.context("starting the vsock device")?);
        wait_for(Duration::from_secs(10), || device_socket.exists()).context("the vsock device does not start")?;

        let started = Instant::now();
        let mut qemu = Command::new(pieces.qemu());
        let (module_id, instance_id) = (identity.module_id(), &identity.instance_id);
        let serial = if *console { "on" } else { "off" };
        qemu.arg("-M")
            .arg(format!("nitro-enclave,vsock=vsock,id={module_id},parent-id={instance_id},isa-serial={serial}"));
        // Who does not listen learns from the kernel that its drivers are ready.
        let told = if *heard { "" } else { "loglevel=7 " };
        qemu.arg("-append").arg(format!("{told}{append}"));
        qemu.arg("-chardev").arg(format!("socket,id=vsock,path={}", device_socket.display()));
        qemu.arg("-kernel").arg(eif).arg("-L").arg(pieces.firmware());
        qemu.args(["-accel", "tcg", "-cpu", "max", "-smp", CPUS, "-m", &memory_mib.to_string()]);
        qemu.args(["-nographic", "-no-reboot"]);
        // Otherwise QEMU notifies its NSM once when the driver is ready, and if that is between the two buffers of the first
        // request, it breaks the device ("Expected response buffer after request buffer"): seen in 2 of 30 boots.
        qemu.args(["-global", "virtio-mmio.ioeventfd=off"]);
        if let Some(authority) = authority {
            let signer = file("signer");
            write_credentials(&signer, authority, identity)?;
            qemu.env("QEMU_NSM_TEST_DIR", signer);
        }
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut qemu = Killed(qemu.spawn().context("starting QEMU")?);
        let console = [
            seen.collect_console(qemu.0.stdout.take().context("stdout is piped")?),
            seen.collect_console(qemu.0.stderr.take().context("stderr is piped")?),
        ];

        while started.elapsed() < *patience {
            let serves = match &happened {
                Some(events) => events.recv_timeout(POLL).is_ok_and(|event| event == "ready"),
                None => {
                    thread::sleep(POLL);
                    seen.console().contains(LAST_OF_KERNEL) && connect(&hidden).is_ok()
                }
            };
            if serves {
                let boot = started.elapsed();
                symlink(&hidden, &socket).with_context(|| socket.display().to_string())?;
                return Ok(Ok(Self { qemu, _vsock_device: device, socket, seen, _folder: folder, boot }));
            }
            if qemu.0.try_wait()?.is_some() {
                // What it said last is still read.
                console.into_iter().for_each(|reader| drop(reader.join()));
                let _ = wait_for(LAST_WORDS, || seen.events().iter().any(|event| event.starts_with("fatal")));
                return Ok(Err(Ended { events: seen.events(), console: seen.console() }));
            }
        }
        let device = fs::read_to_string(file("vsock.log"))?;
        bail!("the enclave does neither serve nor end: {:?}\n{}\n{device}", seen.events(), seen.console())
    }

    /// Where its service is, as the proxy is told it.
    pub fn address(&self) -> String {
        address(&self.socket)
    }

    /// Where the same is in plain HTTP.
    pub fn plain_address(&self) -> String {
        format!("hybrid:{}:{PLAIN_PORT}", self.socket.display())
    }

    /// Where its models are loaded.
    pub fn control_address(&self) -> String {
        format!("hybrid:{}:{CONTROL_PORT}", self.socket.display())
    }

    /// The names of the events that it has logged.
    pub fn events(&self) -> Vec<String> {
        self.seen.events()
    }

    /// Waits until it has logged so many events of this name.
    pub fn wait_for(&self, name: &str, count: usize) -> anyhow::Result<()> {
        wait_for(EVENT, || self.events().iter().filter(|event| *event == name).count() >= count)
            .with_context(|| format!("{count} of {name:?} in {:?}", self.events()))
    }

    /// Heartbeats that it has sent.
    pub fn heartbeats(&self) -> usize {
        *locked(&self.seen.heartbeats)
    }

    /// Stops its processors, as a hypervisor can at any time. What is sent to it waits.
    pub fn pause(&self) -> anyhow::Result<()> {
        let status =
            Command::new("kill").args(["-STOP", &self.qemu.0.id().to_string()]).status().context("running kill")?;
        anyhow::ensure!(status.success(), "kill failed");
        Ok(())
    }
}

/// Where the service of the machine behind a socket is, or will be.
pub fn address(socket: &Path) -> String {
    format!("hybrid:{}:{SERVICE_PORT}", socket.display())
}

/// A process that is killed when this is dropped.
#[derive(Debug)]
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Connects to the service of the machine behind a socket.
fn connect(socket: &Path) -> anyhow::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(format!("CONNECT {SERVICE_PORT}\n").as_bytes())?;
    let mut answer = [0; 3];
    stream.read_exact(&mut answer)?;
    anyhow::ensure!(answer == *b"OK ", "nobody listens");
    Ok(stream)
}

/// Listens where connections of the machine behind `socket` to a port of its parent arrive.
fn parent(socket: &Path, port: u32) -> anyhow::Result<UnixListener> {
    let path = format!("{}_{port}", socket.display());
    let _ = fs::remove_file(&path);
    UnixListener::bind(&path).context(path)
}

impl Seen {
    /// Listens as a parent does, to events and heartbeats. The names of events arrive at the receiver as well.
    fn listen(&self, socket: &Path) -> anyhow::Result<mpsc::Receiver<String>> {
        let (sender, happened) = mpsc::channel();
        let (listener, events) = (parent(socket, LOG_PORT)?, self.events.clone());
        thread::spawn(move || {
            let connections = listener.incoming().filter_map(Result::ok);
            for line in connections.flat_map(|stream| BufReader::new(stream).lines()).map_while(Result::ok) {
                let Event { time: _, event, value: _ } =
                    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
                // These come with time, and not because of anything that happened.
                if ["connections", "waiting", "request_memory"].contains(&event.as_str()) {
                    continue;
                }
                locked(&events).push(event.clone());
                let _ = sender.send(event);
            }
        });
        let (listener, heartbeats) = (parent(socket, HEARTBEAT_PORT)?, self.heartbeats.clone());
        thread::spawn(move || {
            for mut stream in listener.incoming().filter_map(Result::ok) {
                let mut byte = [0];
                if stream.read_exact(&mut byte).is_ok() && byte == [HEARTBEAT] {
                    *locked(&heartbeats) += 1;
                    let _ = stream.write_all(&byte);
                }
            }
        });
        Ok(happened)
    }

    fn events(&self) -> Vec<String> {
        locked(&self.events).clone()
    }

    fn console(&self) -> String {
        String::from_utf8_lossy(&locked(&self.console)).into_owned()
    }

    fn collect_console(&self, mut stream: impl Read + Send + 'static) -> JoinHandle<()> {
        let console = self.console.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut buffer) {
                locked(&console).extend_from_slice(&buffer[..read]);
            }
        })
    }
}

/// The files that QEMU's NSM signs with: a chain of five certificates and the key of its last.
fn write_credentials(folder: &Path, authority: &Authority, identity: &Identity) -> anyhow::Result<()> {
    let credentials = authority.credentials(identity, Timestamp::now());
    fs::create_dir(folder)?;
    fs::write(folder.join("key.pem"), credentials.key_pem)?;
    fs::write(folder.join("leaf.der"), credentials.certificate)?;
    for (index, certificate) in credentials.cabundle.iter().enumerate() {
        fs::write(folder.join(format!("ca{index}.der")), certificate)?;
    }
    Ok(())
}

fn wait_for(limit: Duration, condition: impl Fn() -> bool) -> anyhow::Result<()> {
    let started = Instant::now();
    while !condition() {
        anyhow::ensure!(started.elapsed() < limit, "it did not happen within {limit:?}");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
