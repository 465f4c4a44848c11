//! Accepting HTTP connections, up to a cap, until asked to stop.

use axum::Router;
use cloister_wire::limits::HEADER_TIMEOUT;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    select,
    sync::watch,
    task::JoinSet,
    time::sleep,
};
use tokio_io_timeout::TimeoutStream;

use crate::{
    connection::reset,
    limits::Limits,
    linger::Linger,
    log::log,
    metrics::{Metrics, Place},
    server::{Shutdown, accept, asked},
};

/// hyper's read buffer for one connection: more than any head, less than a flood.
const BUFFER: usize = 64 * 1024;

/// Serves `app` until `shutdown` asks it to end, and returns when the last request is answered or cut.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Router,
    limits: Limits,
    metrics: Metrics,
    mut shutdown: watch::Receiver<Shutdown>,
) {
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = select! {
            biased;
            _ = asked(&mut shutdown, Shutdown::Drain) => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener) => accepted,
        };
        if connections.len() >= limits.connections.get() {
            metrics.connection_refused(Place::Http);
            reset(client);
            continue;
        }
        let open = metrics.connection_opened(Place::Http);
        let connection = connection(client, app.clone(), limits, graceful.watcher());
        connections.spawn(async move {
            let _open = open;
            connection.await;
        });
    }
    drop(listener);
    log(format_args!("event=draining http_connections={} limit_s={}", connections.len(), limits.drain.as_secs_f64()));
    select! {
        () = graceful.shutdown() => {}
        true = asked(&mut shutdown, Shutdown::Cut) => {}
        () = sleep(limits.drain) => {}
    }
    log(format_args!("event=stopped http_cut={}", cut(connections).await));
}

/// One connection from its acceptance to its end. HTTP/1.1 only.
async fn connection(client: TcpStream, app: Router, limits: Limits, watcher: Watcher) {
    // Where this fails the connection has ended, as the next read will say.
    let _ = client.set_nodelay(true);
    // A client that asks and never reads would hold its place for ever.
    let mut client = TimeoutStream::new(client);
    client.set_write_timeout(Some(limits.answer));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(Linger::new(Box::pin(client))), TowerToHyperService::new(app));
    let _: Result<(), hyper::Error> = watcher.watch(connection).await;
}

/// Ends what has not ended, and says how many that were.
async fn cut(mut connections: JoinSet<()>) -> usize {
    while connections.try_join_next().is_some() {}
    let open = connections.len();
    connections.shutdown().await;
    open
}
