//! What enclaves log, as they send it here: an enclave has no console that anybody reads.

use std::{fs, io, os::unix::net::UnixStream, path::Path, sync::Arc, time::Duration};

use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::{TcpListener, UnixListener},
    select,
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_vsock::{VsockAddr, VsockListener};

use crate::{
    address::{Address, Stream},
    log::log,
    metrics::Metrics,
    server::{Shutdown, asked},
};

/// Enclaves that are heard at a time; one over it is not.
const CONNECTIONS: usize = 16;
/// A name, two numbers and what JSON takes are less than this.
const MAX_LINE: usize = 256;
/// An enclave that serves says something every ten seconds; whoever says nothing for this long gives its place to another.
const IDLE: Duration = Duration::from_secs(60);
/// After a failed accept, so that a shortage of file descriptors does not spin.
const PAUSE: Duration = Duration::from_millis(50);

/// Where enclaves send what they log.
pub struct EventListener(Listener);

enum Listener {
    Vsock(VsockListener),
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl EventListener {
    /// Listens at an address. Of a vsock address the CID is one's own, or 4294967295 for any; of a hybrid one the device
    /// connects to `PATH_PORT` (Firecracker's `docs/vsock.md`, "Guest-Initiated Connections").
    ///
    /// # Errors
    ///
    /// When the operating system does not let us.
    pub async fn bind(address: &Address) -> io::Result<Self> {
        Ok(Self(match address {
            Address::Vsock { cid, port } => Listener::Vsock(VsockListener::bind(VsockAddr::new(*cid, *port))?),
            Address::Hybrid { path, port } => Listener::Unix(bind_unix(format!("{}_{port}", path.display()))?),
            Address::Unix(path) => Listener::Unix(bind_unix(path)?),
            Address::Tcp { host, port } => Listener::Tcp(TcpListener::bind((host.as_str(), *port)).await?),
        }))
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match &self.0 {
            Listener::Vsock(listener) => Box::new(listener.accept().await?.0),
            Listener::Unix(listener) => Box::new(listener.accept().await?.0),
            Listener::Tcp(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

/// Binds a path, at which a socket that nobody listens on any more may lie.
fn bind_unix(path: impl AsRef<Path>) -> io::Result<UnixListener> {
    let path = path.as_ref();
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && UnixStream::connect(path).is_err() => {
            fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        result => result,
    }
}

/// Counts and logs what enclaves send to `listener` until `shutdown` asks to end.
pub async fn hear_events(listener: EventListener, metrics: Metrics, mut shutdown: watch::Receiver<Shutdown>) {
    let events = Arc::new(Events { metrics, idle: IDLE });
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // What is in work goes on being heard, until the process ends.
    loop {
        let accepted = select! {
            _ = asked(&mut shutdown, Shutdown::Drain) => return,
            accepted = listener.accept() => accepted,
        };
        match (accepted, places.clone().try_acquire_owned()) {
            (Ok(mut stream), Ok(place)) => {
                let events = events.clone();
                tokio::spawn(async move {
                    let _place = place;
                    events.read(&mut stream).await;
                });
            }
            (Ok(_), Err(_)) => log(format_args!("event=events_refused limit={CONNECTIONS}")),
            (Err(_), _) => sleep(PAUSE).await,
        }
    }
}

struct Events {
    metrics: Metrics,
    idle: Duration,
}

/// One line, of which nothing but a name from a short alphabet and numbers is passed on.
#[derive(Deserialize)]
struct Line<'a> {
    time: u64,
    event: &'a str,
    value: u64,
}

impl Events {
    /// Reads lines until there are none, or none come.
    async fn read(&self, stream: &mut (impl AsyncRead + Unpin)) {
        let mut read = [0; 4096];
        let mut line = Vec::with_capacity(MAX_LINE);
        // One byte over the limit is kept, as a sign that there were more.
        while let Ok(Ok(filled @ 1..)) = timeout(self.idle, stream.read(&mut read)).await {
            for &byte in &read[..filled] {
                match byte {
                    b'\n' => {
                        self.take(&line);
                        line.clear();
                    }
                    _ if line.len() <= MAX_LINE => line.push(byte),
                    _ => {}
                }
            }
        }
    }

    fn take(&self, line: &[u8]) {
        match serde_json::from_slice(line) {
            Ok(Line { time, event, value }) if line.len() <= MAX_LINE && is_name(event) => {
                let name = if NAMES.contains(&event) { event } else { OTHER };
                log(format_args!("event=enclave_event name={name} value={value} enclave_time={time}"));
                self.metrics.event(name, value);
            }
            _ => self.metrics.event_dropped(),
        }
    }
}

fn is_name(name: &str) -> bool {
    (1..=32).contains(&name.len()) && name.bytes().all(|c| c.is_ascii_lowercase() || c == b'_')
}

/// What enclaves of other releases say, and whoever else sends here: each name that is told apart is kept for ever.
const OTHER: &str = "other";
/// The events of `enclave-app/src/log.rs`.
const NAMES: [&str; 27] = [
    "booted",
    "heartbeat_failed",
    "ready",
    "accept_failed",
    "handshake_failed",
    "attested",
    "attest_failed",
    "document_unreadable",
    "inferred",
    "refused",
    "loaded",
    "unloaded",
    "connections",
    "waiting",
    "request_memory",
    "draining",
    "stopped",
    "panicked",
    "lost",
    "fatal_platform",
    "fatal_settings",
    "fatal_models",
    "fatal_nsm",
    "fatal_entropy",
    "fatal_listen",
    "fatal_service",
    "fatal_panic",
];

#[cfg(test)]
mod tests {
    use super::*;

    async fn heard(text: &[u8]) -> String {
        let events = Events { metrics: Metrics::default(), idle: IDLE };
        events.read(&mut &text[..]).await;
        events.metrics.page()
    }

    #[tokio::test]
    async fn lines_are_counted_by_their_name() {
        let page = heard(
            b"{\"time\":1,\"event\":\"inferred\",\"value\":280}\n{\"time\":2,\"event\":\"inferred\",\"value\":20}\n\
              {\"time\":3,\"event\":\"ready\",\"value\":2}\n",
        )
        .await;
        for line in [
            "cloister_enclave_events_total{event=\"inferred\"} 2",
            "cloister_enclave_event_value_total{event=\"inferred\"} 300",
            "cloister_enclave_event_last_value{event=\"inferred\"} 20",
            "cloister_enclave_events_total{event=\"ready\"} 1",
            "cloister_proxy_event_lines_dropped_total 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
    }

    #[tokio::test]
    async fn rubbish_is_dropped_and_counted() {
        let long = format!("{{\"time\":1,\"event\":\"ready\",\"value\":1}}{}\n", " ".repeat(MAX_LINE));
        let page = heard(
            &[
                &b"\xff\xfe\n\n{}\n"[..],
                b"{\"time\":1,\"event\":\"Ready\",\"value\":1}\n",
                b"{\"time\":1,\"event\":\"a\\nb\",\"value\":1}\n",
                b"{\"time\":1,\"event\":\"\",\"value\":1}\n",
                b"{\"time\":1,\"event\":\"ready\",\"value\":-1}\n",
                long.as_bytes(),
                &[b'x'; 100_000],
            ]
            .concat(),
        )
        .await;
        assert!(page.contains("cloister_proxy_event_lines_dropped_total 8\n"), "{page}");
        assert!(!page.contains("cloister_enclave_events_total{"), "{page}");
    }

    #[tokio::test]
    async fn names_that_no_enclave_has_are_counted_together() {
        let lines =
            ["invented", "made_up", "loaded"].map(|n| format!("{{\"time\":1,\"event\":\"{n}\",\"value\":1}}\n"));
        let page = heard(lines.concat().as_bytes()).await;
        assert!(page.contains("cloister_enclave_events_total{event=\"other\"} 2\n"), "{page}");
        assert!(page.contains("cloister_enclave_events_total{event=\"loaded\"} 1\n"), "{page}");
        assert!(page.contains("cloister_proxy_event_lines_dropped_total 0\n"), "{page}");
    }

    #[tokio::test]
    async fn whoever_says_nothing_is_not_heard_for_ever() {
        let events = Events { metrics: Metrics::default(), idle: Duration::from_millis(1) };
        let (mut near, _far) = tokio::io::duplex(1);
        events.read(&mut near).await;
    }
}
