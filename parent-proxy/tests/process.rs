//! The program, as other programs start, watch and stop it.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStderr, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

const PROXY: &str = env!("CARGO_BIN_EXE_cloister-parent-proxy");
/// The longest that a test waits for something that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn it_says_where_it_listens_and_ends_well_when_asked() {
    for signal in ["TERM", "INT"] {
        let mut proxy = Proxy::start(&[]);
        let mut client = proxy.client();
        assert_alive(&mut client);
        drop(client);
        proxy.log_says("event=closed");
        proxy.signal(signal);
        assert_eq!(proxy.exit_code(), Some(0));
        assert_eq!(proxy.stdout.take().unwrap().lines().count(), 0, "one line is all that stdout gets");
    }
}

#[test]
fn a_drain_waits_for_open_connections_and_a_second_signal_cuts_them() {
    let mut proxy = Proxy::start(&[]);
    let mut client = proxy.client();
    assert_alive(&mut client);

    proxy.signal("TERM");
    proxy.log_says("event=draining connections=1");
    assert_alive(&mut client);
    proxy.signal("INT");
    assert_closed(client);
    assert_eq!(proxy.exit_code(), Some(0));
}

#[test]
fn the_drain_timeout_cuts() {
    let mut proxy = Proxy::start(&["--drain-timeout", "50ms"]);
    let mut client = proxy.client();
    assert_alive(&mut client);

    proxy.signal("TERM");
    assert_closed(client);
    proxy.log_says("event=stopped served=1 refused=0 cut=1");
    assert_eq!(proxy.exit_code(), Some(0));
}

#[test]
fn the_log_says_what_happened_and_not_what_was_said() {
    let mut proxy = Proxy::start(&["--max-connections", "1"]);
    let mut client = proxy.client();
    client.write_all(b"PAYLOAD").unwrap();
    client.read_exact(&mut [0; 7]).unwrap();
    assert_closed(proxy.client());
    drop(client);

    let log = proxy.log_says("event=closed");
    for part in [
        "event=opened client=127.0.0.1:",
        "event=refused limit=1 limit_per_address=1 refused_so_far=1",
        " up=7 down=7 ",
        " end=finished",
    ] {
        assert!(log.contains(part), "{part:?} is not in\n{log}");
    }
    assert!(!log.contains("PAYLOAD"), "{log}");
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    const LINES_OF_A_CONNECTION: usize = 2;
    const PIPE: usize = 64 * 1024;
    let proxy = Proxy::start(&[]);
    for _ in 0..2 * PIPE / (LINES_OF_A_CONNECTION * "time=1795000000.000 event=opened client=127.0.0.1:1".len()) {
        assert_alive(&mut proxy.client());
    }
}

#[test]
fn it_outlives_a_lack_of_file_descriptors() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 24; exec \"$0\" \"$@\"", PROXY]);
    let mut proxy = Proxy::start_by(command, &[]);
    let clients: Vec<_> = (0..24).map(|_| proxy.client()).collect();
    proxy.log_says("event=accept_failed");
    drop(clients);

    let began = Instant::now();
    while !is_alive(&mut proxy.client()) {
        assert!(began.elapsed() < PATIENCE, "it never recovers");
    }
}

#[test]
fn a_faulty_command_line_is_explained() {
    for (arguments, explanation) in [
        (&["serve"][..], "--listen <ADDR>"),
        (&["serve", "--listen", "tcp:127.0.0.1:0"], "--enclave <ADDR>"),
        (
            &["serve", "--listen", "tcp:127.0.0.1:0", "--enclave", "vsok:16:5000"],
            "accepted are vsock:CID:PORT, hybrid:PATH:PORT",
        ),
        (&["serve", "--listen", "unix:/run/p.sock", "--enclave", "vsock:16:5000"], "accepted is tcp:HOST:PORT"),
    ] {
        let output = Command::new(PROXY).args(arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(explanation), "{explanation:?} is not in\n{stderr}");
    }
}

#[test]
fn an_address_that_is_taken_is_reported() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = Command::new(PROXY)
        .args(["serve", "--enclave", "vsock:16:5000", "--listen", &format!("tcp:127.0.0.1:{port}")])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains(&format!("cannot listen on 127.0.0.1 port {port}")), "{stderr}");
}

/// A running program in front of an enclave that returns every byte.
struct Proxy {
    child: Child,
    address: String,
    stdout: Option<BufReader<ChildStdout>>,
    stderr: Option<BufReader<ChildStderr>>,
}

impl Proxy {
    fn start(flags: &[&str]) -> Self {
        Self::start_by(Command::new(PROXY), flags)
    }

    fn start_by(mut command: Command, flags: &[&str]) -> Self {
        let mut child = command
            .args(["serve", "--listen", "tcp:127.0.0.1:0", "--enclave", &format!("tcp:{}", echo())])
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (line, stdout) = read_until("", BufReader::new(child.stdout.take().unwrap()));
        let address = line.strip_prefix("listening on tcp:").and_then(|rest| rest.strip_suffix('\n'));
        let address = address.unwrap_or_else(|| panic!("{line:?}")).to_owned();
        Self { child, address, stdout: Some(stdout), stderr: Some(stderr) }
    }

    fn client(&self) -> TcpStream {
        let client = TcpStream::connect(&self.address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits until a line of the log contains `part`, and returns the log up to it.
    fn log_says(&mut self, part: &'static str) -> String {
        let (log, stderr) = read_until(part, self.stderr.take().unwrap());
        self.stderr = Some(stderr);
        log
    }

    fn exit_code(&mut self) -> Option<i32> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(began.elapsed() < PATIENCE, "it does not end");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads up to the first line that contains `part`.
fn read_until<R: BufRead + Send + 'static>(part: &'static str, mut reader: R) -> (String, R) {
    let (done, read) = mpsc::channel();
    thread::spawn(move || {
        let mut text = String::new();
        while !text.lines().next_back().is_some_and(|line| line.contains(part)) {
            assert!(reader.read_line(&mut text).unwrap() > 0, "{part:?} is not in\n{text}");
        }
        done.send((text, reader))
    });
    read.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{part:?} was not said"))
}

fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let mut stream = stream.unwrap();
                io::copy(&mut stream.try_clone().unwrap(), &mut stream)
            });
        }
    });
    address
}

fn assert_alive(client: &mut TcpStream) {
    assert!(is_alive(client));
}

/// A byte there and back.
fn is_alive(client: &mut TcpStream) -> bool {
    client.write_all(&[7]).and_then(|()| client.read_exact(&mut [0])).is_ok()
}

/// The connection ends, orderly or not, without another byte.
fn assert_closed(mut client: TcpStream) {
    match client.read(&mut [0]) {
        Ok(read) => assert_eq!(read, 0),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
}
