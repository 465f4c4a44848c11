//! Connections: TLS, limits, deadlines and a graceful end.

use std::{future::Future, io, pin::pin, sync::Arc, time::Duration};

use axum::{Extension, Router};
use cloister_enclave::{Listener, TlsIdentity};
use cloister_wire::limits;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
    time::{sleep, timeout},
};

use tokio_io_timeout::TimeoutStream;

use crate::{
    keys::PublicKeys,
    log::{self, Event},
    settings::Settings,
};

/// After a failed accept, so that a shortage of file descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// For requests in flight when shutdown is asked for.
const DRAIN: Duration = Duration::from_secs(10);

/// Serves `app` over attested TLS until `shutdown`. Every request carries as extensions its connection's
/// [`Channel`](cloister_attestation::Channel), and what that has sent of public keys. Connections beyond the limit wait in the listener's backlog.
pub async fn serve<L: Listener>(
    mut listener: L,
    identity: TlsIdentity,
    app: Router,
    settings: Settings,
    shutdown: impl Future<Output = ()>,
) {
    let max_connections = usize::from(settings.max_connections);
    let slots = Arc::new(Semaphore::new(max_connections));
    let graceful = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let slot = tokio::select! {
            () = &mut shutdown => break,
            slot = slots.clone().acquire_owned() => slot.expect("the semaphore is never closed"),
        };
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
        let (identity, app, watcher) = (identity.clone(), app.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _slot = slot;
            connection(io, &identity, app, watcher).await;
        });
    }
    log::event(Event::Draining, (max_connections - slots.available_permits()) as u64);
    drop(listener);
    let _ = timeout(DRAIN, graceful.shutdown()).await;
}

/// One connection from handshake to close. HTTP/1.1 only.
async fn connection<Io>(io: Io, identity: &TlsIdentity, app: Router, watcher: Watcher)
where
    Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    // A peer that asks and never reads would hold its slot for ever.
    let mut io = TimeoutStream::new(io);
    io.set_write_timeout(Some(limits::REQUEST_DEADLINE));
    let Ok(Ok((stream, channel))) = timeout(limits::HANDSHAKE_TIMEOUT, identity.accept(Box::pin(io))).await else {
        log::event(Event::HandshakeFailed, 0);
        return;
    };
    let app = app.layer(Extension(channel)).layer(Extension(PublicKeys::default()));
    let service = TowerToHyperService::new(app);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADER_TIMEOUT)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
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
