//! Connections: TLS where it ends here, limits, deadlines and a graceful end.

use std::{
    future::Future,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Extension, Router};
use cloister_attestation::Channel;
use cloister_enclave::{Listener, TlsIdentity};
use cloister_wire::limits;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;

use crate::{
    keys::PublicKeys,
    log::{self, Event},
    write_deadline::WriteDeadline,
};

/// For a peer to take an answer: 6 MB, at a megabit a second.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// After a failed accept, so that a shortage of file descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// For requests in flight when shutdown is asked for.
const DRAIN: Duration = Duration::from_secs(10);

/// Where TLS ends.
#[derive(Clone, Debug)]
pub enum Front {
    /// Here: documents are bound to each session.
    Tls(TlsIdentity),
    /// Before the enclave, or nowhere: no document is bound to anything, and nobody sends a token.
    Plain,
}

/// One of the places for connections, all of which may share their limit.
#[derive(Clone, Debug)]
pub struct Slots {
    semaphore: Arc<Semaphore>,
    limit: usize,
}

impl Slots {
    /// Places for so many connections.
    pub fn new(limit: usize) -> Self {
        Self { semaphore: Arc::new(Semaphore::new(limit)), limit }
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.limit - self.semaphore.available_permits()
    }
}

/// What a connection is known by, to all its requests.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Unlike any other's.
    pub(crate) number: u64,
    pub(crate) keys: PublicKeys,
}

impl Peer {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { number: NEXT.fetch_add(1, Ordering::Relaxed), keys: PublicKeys::default() }
    }
}

/// Serves `app` until `shutdown`. Every request carries as an extension its connection's [`Channel`]. Connections beyond the limit
/// wait, one of them accepted and the others in the listener's backlog.
pub async fn serve<L: Listener>(
    mut listener: L,
    front: Front,
    app: Router,
    slots: Slots,
    shutdown: impl Future<Output = ()>,
) {
    let graceful = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let io = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok(io) => io,
                Err(error) => {
                    log::event(Event::AcceptFailed, error.raw_os_error().unwrap_or(0) as u64);
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        // Only now: a listener that nobody asks must not hold a place that another one could fill.
        let slot = tokio::select! {
            () = &mut shutdown => break,
            slot = slots.semaphore.clone().acquire_owned() => slot.expect("the semaphore is never closed"),
        };
        let (front, app, watcher) = (front.clone(), app.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _slot = slot;
            accept(io, front, app, watcher).await;
        });
    }
    log::event(Event::Draining, slots.taken() as u64);
    drop(listener);
    let _ = timeout(DRAIN, graceful.shutdown()).await;
}

/// One connection from handshake to close.
async fn accept<Io>(io: Io, front: Front, app: Router, watcher: Watcher)
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    // A peer that asks and never reads, or reads a byte now and then, would hold its slot and its answer for ever.
    let mut io = TimeoutStream::new(io);
    io.set_write_timeout(Some(limits::REQUEST_DEADLINE));
    let io = WriteDeadline::new(Box::pin(io), ANSWER_DEADLINE);
    match front {
        Front::Plain => connection(io, Channel::None, app, watcher).await,
        Front::Tls(identity) => match timeout(limits::HANDSHAKE_TIMEOUT, identity.accept(io)).await {
            Ok(Ok((stream, channel))) => connection(stream, channel, app, watcher).await,
            _ => log::event(Event::HandshakeFailed, 0),
        },
    }
}

/// HTTP/1.1 only.
async fn connection<Io>(io: Io, channel: Channel, app: Router, watcher: Watcher)
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = TowerToHyperService::new(app.layer(Extension(channel)).layer(Extension(Peer::new())));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADER_TIMEOUT)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(io), service);
    let _: Result<(), hyper::Error> = watcher.watch(connection).await;
}

/// hyper's read buffer for one connection: more than any header, less than a flood.
const MAX_BUFFER: usize = 32 * 1024;

/// Listens for signals from now on; the future resolves at the first SIGTERM or SIGINT.
pub fn terminated() -> io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
