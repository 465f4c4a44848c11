//! Accepting HTTP connections, up to a cap, until asked to stop.

use axum::{Router, body::Body, http::Request};
use cloister_wire::limits::HEADER_TIMEOUT;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use tokio::{
    net::{TcpListener, TcpStream},
    select,
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::sleep,
};
use tokio_io_timeout::TimeoutStream;
use tower_service::Service;

use crate::{
    connection::reset,
    exchange::{Exchanges, keep},
    limits::Limits,
    linger::Linger,
    log::log,
    metrics::{Metrics, Place},
    peers::Peers,
    server::{Shutdown, accept, asked},
};

/// hyper's read buffer for one connection: more than any head, less than a flood.
const BUFFER: usize = 64 * 1024;

/// Serves `app` until `shutdown` asks it to end, and returns when the last request is answered or cut. With `metrics` it is
/// counted, and its end is logged.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Router,
    limits: Limits,
    metrics: Option<Metrics>,
    mut shutdown: watch::Receiver<Shutdown>,
) {
    let graceful = GracefulShutdown::new();
    let peers = Peers::new(limits.connections_per_address);
    let mut connections = JoinSet::new();
    let mut open = Open::default();
    loop {
        let (client, address) = select! {
            biased;
            _ = asked(&mut shutdown, Shutdown::Drain) => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener) => accepted,
        };
        let peer = peers.admit(address.ip());
        let Some(peer) = peer.filter(|_| open.has_room(limits.connections.get())) else {
            metrics.iter().for_each(|metrics| metrics.connection_refused(Place::Http));
            reset(client);
            continue;
        };
        let counted = metrics.as_ref().map(|metrics| metrics.connection_opened(Place::Http));
        let exchanges = Exchanges::new();
        let connection = connection(client, app.clone(), limits, exchanges.clone(), graceful.watcher());
        let task = connections.spawn(async move {
            let _end_with_it = (counted, peer);
            connection.await;
        });
        open.0.push((task, exchanges));
    }
    drop(listener);
    if metrics.is_some() {
        let (count, limit) = (connections.len(), limits.drain.as_secs_f64());
        log(format_args!("event=draining http_connections={count} limit_s={limit}"));
    }
    select! {
        () = graceful.shutdown() => {}
        true = asked(&mut shutdown, Shutdown::Cut) => {}
        () = sleep(limits.drain) => {}
    }
    let cut = cut(connections).await;
    if metrics.is_some() {
        log(format_args!("event=stopped http_cut={cut}"));
    }
}

/// The connections that have not ended, and what is done on each.
#[derive(Default)]
struct Open(Vec<(AbortHandle, Exchanges)>);

impl Open {
    /// Whether there is room for another connection of `cap`. The one on which nothing has been asked for the longest makes
    /// it: whoever opens connections and asks nothing must not keep others out, SageMaker's `GET /ping` among them.
    fn has_room(&mut self, cap: usize) -> bool {
        self.0.retain(|(task, _)| !task.is_finished());
        if self.0.len() < cap {
            return true;
        }
        let idle = self.0.iter().enumerate().filter_map(|(at, (_, exchanges))| Some((exchanges.idle_since()?, at)));
        let Some((_, longest)) = idle.min() else { return false };
        self.0.swap_remove(longest).0.abort();
        true
    }
}

/// One connection from its acceptance to its end. HTTP/1.1 only.
async fn connection(client: TcpStream, app: Router, limits: Limits, exchanges: Exchanges, watcher: Watcher) {
    // Where this fails the connection has ended, as the next read will say.
    let _ = client.set_nodelay(true);
    // A client that asks and never reads would hold its place for ever.
    let mut client = TimeoutStream::new(client);
    client.set_write_timeout(Some(limits.answer));
    let begun = exchanges.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (exchange, answer) = (begun.begin(), app.clone().call(request.map(Body::new)));
        async move { answer.await.map(|answer| keep(exchange, answer)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(Linger::new(Box::pin(client))), service);
    select! {
        _ = watcher.watch(connection) => {}
        // So would one that reads a byte now and then. The answer is made in half of this.
        () = exchanges.overdue(limits.answer.saturating_mul(2)) => {}
    }
}

/// Ends what has not ended, and says how many that were.
async fn cut(mut connections: JoinSet<()>) -> usize {
    while connections.try_join_next().is_some() {}
    let open = connections.len();
    connections.shutdown().await;
    open
}
