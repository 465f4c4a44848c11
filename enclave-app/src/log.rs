//! What happened, one JSON line each: a fixed list of event names and numbers, never text from a peer.
//!
//! A production enclave has no console, so its lines go to the parent. Nobody who listens there, or reads too slowly, can
//! slow or stop the service: lines wait in a bounded queue, and those that find it full are counted and lost. So is, without
//! a count, what a connection had taken when it broke.
//!
//! `time` is in milliseconds since 1970 by the enclave's own clock, which nobody has to have set.

use std::{
    future::Future,
    io::{self, Write},
    panic,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

/// Everything that is ever logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The kernel's first process runs; nothing is checked yet.
    Booted,
    /// The parent did not answer the heartbeat.
    HeartbeatFailed,
    /// The service accepts connections; the number of models.
    Ready,
    /// A connection could not be accepted; the operating system's error number.
    AcceptFailed,
    /// A TLS handshake failed or took too long.
    HandshakeFailed,
    /// A document was made; microseconds.
    Attested,
    /// The attester gave no document.
    AttestFailed,
    /// The attester gave a document that no client will accept. It is handed on, as the truth about this attester.
    DocumentUnreadable,
    /// A request was answered; microseconds of evaluation.
    Inferred,
    /// A request was refused; its HTTP status.
    Refused,
    /// A model was loaded; how many are served now.
    Loaded,
    /// A model was unloaded; how many are served now.
    Unloaded,
    /// Every ten seconds: connections that are open.
    Connections,
    /// Every ten seconds: evaluations that wait.
    Waiting,
    /// Every ten seconds: KiB that requests under way take.
    RequestMemory,
    /// Shutdown was asked for; connections still open.
    Draining,
    /// The service ended.
    Stopped,
    /// A thread panicked; the line of the source.
    Panicked,
    /// Events before this one that were lost; how many.
    Lost,
    /// The enclave ends, because the kernel refuses a mount or a signal handler.
    FatalPlatform,
    /// The enclave ends, because of its settings.
    FatalSettings,
    /// The enclave ends, because of its models.
    FatalModels,
    /// The enclave ends, because the NSM cannot be used.
    FatalNsm,
    /// The enclave ends, because there is no randomness to make keys from.
    FatalEntropy,
    /// The enclave ends, because it cannot listen.
    FatalListen,
    /// The enclave ends, because it has no TLS identity or nothing can be attested.
    FatalService,
    /// The enclave ends, because its program panicked.
    FatalPanic,
}

impl Event {
    const fn name(self) -> &'static str {
        match self {
            Self::Booted => "booted",
            Self::HeartbeatFailed => "heartbeat_failed",
            Self::Ready => "ready",
            Self::AcceptFailed => "accept_failed",
            Self::HandshakeFailed => "handshake_failed",
            Self::Attested => "attested",
            Self::AttestFailed => "attest_failed",
            Self::DocumentUnreadable => "document_unreadable",
            Self::Inferred => "inferred",
            Self::Refused => "refused",
            Self::Loaded => "loaded",
            Self::Unloaded => "unloaded",
            Self::Connections => "connections",
            Self::Waiting => "waiting",
            Self::RequestMemory => "request_memory",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::Panicked => "panicked",
            Self::Lost => "lost",
            Self::FatalPlatform => "fatal_platform",
            Self::FatalSettings => "fatal_settings",
            Self::FatalModels => "fatal_models",
            Self::FatalNsm => "fatal_nsm",
            Self::FatalEntropy => "fatal_entropy",
            Self::FatalListen => "fatal_listen",
            Self::FatalService => "fatal_service",
            Self::FatalPanic => "fatal_panic",
        }
    }
}

/// Lines that may wait for their reader.
const QUEUE: usize = 1024;
/// After a connection that failed or broke.
const RETRY: Duration = Duration::from_secs(1);
/// For a connection to be accepted.
const CONNECT: Duration = Duration::from_secs(5);

/// Where events go once [`forward`] was called; until then, to stderr.
static FORWARD: OnceLock<Forward> = OnceLock::new();

struct Forward {
    queue: mpsc::Sender<Entry>,
    lost: AtomicU64,
}

enum Entry {
    Line(String),
    /// Nothing comes after it.
    End(oneshot::Sender<()>),
}

/// Logs one event. It never waits.
pub fn event(event: Event, value: u64) {
    let line = line(event, value);
    match FORWARD.get() {
        Some(forward) => forward.log(line),
        None => drop(io::stderr().write_all(line.as_bytes())),
    }
}

impl Forward {
    fn log(&self, line: String) {
        if self.queue.try_send(Entry::Line(line)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn line(event: Event, value: u64) -> String {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis());
    format!("{{\"time\":{time},\"event\":\"{}\",\"value\":{value}}}\n", event.name())
}

/// Sends events, from now on, over what `connect` gives, and connects again whenever that breaks.
///
/// Needs a runtime of tokio, which runs it. Only the first call has an effect.
pub fn forward<Io, Connecting>(connect: impl Fn() -> Connecting + Send + 'static)
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    Connecting: Future<Output = io::Result<Io>> + Send + 'static,
{
    let (queue, entries) = mpsc::channel(QUEUE);
    if FORWARD.set(Forward { queue, lost: AtomicU64::new(0) }).is_ok() {
        let lost = || FORWARD.get().map_or(0, |forward| forward.lost.swap(0, Ordering::Relaxed));
        tokio::spawn(deliver(entries, connect, lost));
    }
}

/// Whether anybody else than a person gets the events.
pub(crate) fn is_forwarded() -> bool {
    FORWARD.get().is_some()
}

/// Logs every panic, from now on, and tells it on stderr as before.
pub fn panics() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |panicked| {
        event(Event::Panicked, panicked.location().map_or(0, |location| location.line().into()));
        tell(panicked);
    }));
}

/// Ends the log: waits until its reader has read everything and hung up, but for `patience` at most.
pub async fn finish(patience: Duration) {
    let Some(Forward { queue, .. }) = FORWARD.get() else { return };
    let (end, read) = oneshot::channel();
    let _ = timeout(patience, async { queue.send(Entry::End(end)).await.is_ok() && read.await.is_ok() }).await;
}

async fn deliver<Io, Connecting>(
    mut entries: mpsc::Receiver<Entry>,
    connect: impl Fn() -> Connecting,
    lost: impl Fn() -> u64,
) where
    Io: AsyncRead + AsyncWrite + Unpin,
    Connecting: Future<Output = io::Result<Io>>,
{
    let mut pending = None;
    loop {
        if let Ok(Ok(parent)) = timeout(CONNECT, connect()).await
            && send(&mut entries, &mut pending, parent, &lost).await.is_ok()
        {
            return;
        }
        sleep(RETRY).await;
    }
}

/// Sends until the log ends. What the connection broke on stays in `pending`, to be sent over the next one.
async fn send(
    entries: &mut mpsc::Receiver<Entry>,
    pending: &mut Option<Entry>,
    mut parent: impl AsyncRead + AsyncWrite + Unpin,
    lost: impl Fn() -> u64,
) -> io::Result<()> {
    loop {
        if pending.is_none() {
            *pending = entries.recv().await;
        }
        match pending {
            Some(Entry::Line(line)) => parent.write_all(line.as_bytes()).await?,
            None | Some(Entry::End(_)) => break,
        }
        let count = lost();
        *pending = (count > 0).then(|| Entry::Line(line(Event::Lost, count)));
    }
    // What was written may still be on its way; that the reader hangs up says that it has arrived.
    parent.shutdown().await?;
    tokio::io::copy(&mut parent, &mut tokio::io::sink()).await?;
    if let Some(Entry::End(end)) = pending.take() {
        let _ = end.send(());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncBufReadExt, BufReader, DuplexStream, duplex};

    use super::*;

    /// A queue whose lines arrive, one connection after the other, at the returned ends.
    fn delivered(connections: usize, lost: u64) -> (mpsc::Sender<Entry>, Vec<DuplexStream>) {
        let (near, far): (Vec<_>, Vec<_>) = (0..connections).map(|_| duplex(64)).unzip();
        let near = Arc::new(Mutex::new(near));
        let connect = move || {
            let next = near.lock().unwrap().pop();
            async { next.ok_or(io::ErrorKind::ConnectionRefused.into()) }
        };
        let (queue, entries) = mpsc::channel(4);
        let lost = AtomicU64::new(lost);
        tokio::spawn(deliver(entries, connect, move || lost.swap(0, Ordering::Relaxed)));
        (queue, far)
    }

    async fn next_line(stream: &mut BufReader<DuplexStream>) -> String {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        line
    }

    fn entry(text: &str) -> Entry {
        Entry::Line(format!("{text}\n"))
    }

    #[tokio::test]
    async fn what_a_connection_broke_on_arrives_over_the_next() {
        let (queue, mut far) = delivered(2, 0);
        queue.send(entry("first")).await.unwrap();
        let mut one = BufReader::new(far.pop().unwrap());
        assert_eq!(next_line(&mut one).await, "first\n");
        drop(one);
        queue.send(entry("second")).await.unwrap();
        let mut other = BufReader::new(far.pop().unwrap());
        assert_eq!(next_line(&mut other).await, "second\n");
    }

    #[tokio::test]
    async fn lost_events_are_counted_in_the_next_line() {
        let (queue, mut far) = delivered(1, 7);
        queue.send(entry("first")).await.unwrap();
        let mut stream = BufReader::new(far.pop().unwrap());
        assert_eq!(next_line(&mut stream).await, "first\n");
        let lost = next_line(&mut stream).await;
        assert!(lost.ends_with("\"event\":\"lost\",\"value\":7}\n"), "{lost}");
    }

    #[tokio::test]
    async fn the_log_ends_when_its_reader_has_read_it_and_hung_up() {
        let (queue, mut far) = delivered(1, 0);
        let (end, mut read) = oneshot::channel();
        queue.send(entry("last")).await.unwrap();
        queue.send(Entry::End(end)).await.unwrap();
        let mut stream = BufReader::new(far.pop().unwrap());
        assert_eq!(next_line(&mut stream).await, "last\n");
        assert_eq!(next_line(&mut stream).await, "", "the end");
        assert!(read.try_recv().is_err(), "it may still be read");
        drop(stream);
        read.await.unwrap();
    }

    #[tokio::test]
    async fn a_reader_that_reads_nothing_stops_nobody() {
        let (queue, far) = delivered(1, 0);
        let forward = Forward { queue, lost: AtomicU64::new(0) };
        for _ in 0..100 {
            forward.log("x".repeat(100));
            tokio::task::yield_now().await;
        }
        let lost = forward.lost.into_inner();
        assert!((80..100).contains(&lost), "{lost} of 100 found the queue full");
        drop(far);
    }
}
