//! A Nitro Enclave without AWS: QEMU's `nitro-enclave` machine, with a Linux NSM driver, registers that measure, and
//! virtual sockets. What it cannot have is AWS's signature, so a simulated authority signs.
//!
//! `enclave/image/qemu/build.sh` builds the pieces.

use std::{
    env,
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use cloister_attestation::Timestamp;
use cloister_simulated_enclave::{Authority, Identity};
use serde_json::Value;
use tempfile::TempDir;

use crate::build::workspace;

/// Names the folder with the pieces.
const VARIABLE: &str = "CLOISTER_QEMU_NE";
/// Where they are if it is not set, from the root of this repository.
const DEFAULT: &str = "../shared/qemu-ne";

/// How long a machine may take until it serves or says why not. Emulation is slow, and test machines are shared.
const BOOT: Duration = Duration::from_secs(120);
/// The guest's context identifier. It means nothing outside of its vsock device, so all machines have the same.
const CID: u32 = 16;
/// The enclave's ports, as enclave-app has them.
const SERVICE_PORT: u32 = 5000;
const LOG_PORT: u32 = 5002;
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
}

impl Options {
    /// A new enclave on a new instance whose documents `authority` signs.
    pub fn signed_by(authority: &Authority) -> Self {
        Self { memory_mib: 128, authority: Some(authority.clone()), identity: Identity::random() }
    }
}

/// A running enclave. It is killed, as a hypervisor would, when this is dropped.
#[derive(Debug)]
pub struct Machine {
    // In the order in which they end: without its device, a dead machine's connections would stay open.
    qemu: Killed,
    _vsock_device: Killed,
    folder: TempDir,
    seen: Seen,
    /// From the start of QEMU until the service said that it is ready.
    pub boot: Duration,
}

/// What reached the parent.
#[derive(Clone, Debug, Default)]
struct Seen {
    events: Arc<Mutex<Vec<Value>>>,
    heartbeats: Arc<Mutex<usize>>,
    console: Arc<Mutex<Vec<u8>>>,
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
        let happened = listen(&file(&format!("vm_{LOG_PORT}")), &file(&format!("vm_{HEARTBEAT_PORT}")), &seen)?;

        let (device_socket, host_socket) = (file("device"), file("vm"));
        let vm = format!(
            "guest-cid={CID},socket={},uds-path={},tx-buffer-size=32768",
            device_socket.display(),
            host_socket.display()
        );
        let log = File::create(file("vsock.log"))?;
        let device = Command::new(pieces.vsock_device()).args(["--vm", &vm]).stdout(Stdio::null()).stderr(log).spawn();
        let device = Killed(device.context("starting the vsock device")?);
        wait_for(Duration::from_secs(10), || device_socket.exists()).context("the vsock device does not start")?;

        let started = Instant::now();
        let mut qemu = Command::new(pieces.qemu());
        let Options { memory_mib, authority, identity } = options;
        let (module_id, instance_id) = (identity.module_id(), &identity.instance_id);
        qemu.arg("-M").arg(format!("nitro-enclave,vsock=vsock,id={module_id},parent-id={instance_id}"));
        qemu.arg("-chardev").arg(format!("socket,id=vsock,path={}", device_socket.display()));
        qemu.arg("-kernel").arg(eif).arg("-L").arg(pieces.firmware());
        qemu.args(["-accel", "tcg", "-cpu", "max", "-m", &memory_mib.to_string(), "-nographic", "-no-reboot"]);
        if let Some(authority) = authority {
            let signer = file("signer");
            write_credentials(&signer, authority, identity)?;
            qemu.env("QEMU_NSM_TEST_DIR", signer);
        }
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut qemu = Killed(qemu.spawn().context("starting QEMU")?);
        seen.collect_console(qemu.0.stdout.take().context("stdout is piped")?);
        seen.collect_console(qemu.0.stderr.take().context("stderr is piped")?);

        while started.elapsed() < BOOT {
            match happened.recv_timeout(Duration::from_millis(20)) {
                Ok(event) if event == "ready" => {
                    return Ok(Ok(Self { qemu, _vsock_device: device, folder, seen, boot: started.elapsed() }));
                }
                _ => {
                    if qemu.0.try_wait()?.is_some() {
                        return Ok(Err(Ended { events: seen.events(), console: seen.console() }));
                    }
                }
            }
        }
        bail!("the enclave does neither serve nor end: {:?}\n{}", seen.events(), seen.console())
    }

    /// Where its service is, as the proxy is told it.
    pub fn address(&self) -> String {
        format!("hybrid:{}:{SERVICE_PORT}", self.folder.path().join("vm").display())
    }

    /// Connects to its service, past every proxy.
    pub fn connect(&self) -> anyhow::Result<UnixStream> {
        let mut stream = UnixStream::connect(self.folder.path().join("vm"))?;
        stream.write_all(format!("CONNECT {SERVICE_PORT}\n").as_bytes())?;
        let mut answer = String::new();
        while !answer.ends_with('\n') {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            answer.push(byte[0].into());
        }
        Ok(stream)
    }

    /// The names of the events that it has logged.
    pub fn events(&self) -> Vec<String> {
        self.seen.events()
    }

    /// Heartbeats that it has sent.
    pub fn heartbeats(&self) -> usize {
        *locked(&self.seen.heartbeats)
    }

    /// Stops its processors, as a hypervisor can at any time. What is sent to it waits.
    pub fn pause(&self) -> anyhow::Result<()> {
        let status = Command::new("kill").args(["-STOP", &self.qemu.0.id().to_string()]).status().context("running kill")?;
        anyhow::ensure!(status.success(), "kill failed");
        Ok(())
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.qemu.0.try_wait()?.is_some())
    }
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

/// Listens as a parent does; the names of events arrive at the receiver.
fn listen(log: &Path, heartbeat: &Path, seen: &Seen) -> anyhow::Result<mpsc::Receiver<String>> {
    let (sender, happened) = mpsc::channel();
    let (log, events) = (UnixListener::bind(log)?, seen.events.clone());
    thread::spawn(move || {
        for line in log.incoming().filter_map(Result::ok).flat_map(|stream| BufReader::new(stream).lines()) {
            let Ok(event) = line.map_err(anyhow::Error::from).and_then(|line| Ok(serde_json::from_str::<Value>(&line)?))
            else {
                continue;
            };
            let name = event["event"].as_str().unwrap_or_default().to_owned();
            locked(&events).push(event);
            let _ = sender.send(name);
        }
    });
    let (heartbeat, heartbeats) = (UnixListener::bind(heartbeat)?, seen.heartbeats.clone());
    thread::spawn(move || {
        for mut stream in heartbeat.incoming().filter_map(Result::ok) {
            let mut byte = [0];
            if stream.read_exact(&mut byte).is_ok() && byte == [HEARTBEAT] {
                *locked(&heartbeats) += 1;
                let _ = stream.write_all(&byte);
            }
        }
    });
    Ok(happened)
}

impl Seen {
    fn events(&self) -> Vec<String> {
        locked(&self.events).iter().filter_map(|event| event["event"].as_str().map(str::to_owned)).collect()
    }

    fn console(&self) -> String {
        String::from_utf8_lossy(&locked(&self.console)).into_owned()
    }

    fn collect_console(&self, mut stream: impl Read + Send + 'static) {
        let console = self.console.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut buffer) {
                locked(&console).extend_from_slice(&buffer[..read]);
            }
        });
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
