//! Accepting connections, up to a cap, until asked to stop.

use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpStream},
    select,
    sync::watch,
    task::{JoinError, JoinSet},
    time::sleep,
};

use crate::{
    address::Address,
    connection::{End, reset, visit},
    enclaves::Enclaves,
    limits::Limits,
    log::log,
    metrics::{Metrics, Place},
    peers::Peers,
};

/// What a proxy has been asked, each time more than before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shutdown {
    /// Nothing: serve.
    #[default]
    NotAsked,
    /// Stop accepting, and let open connections finish for as long as [`Limits::drain`].
    Drain,
    /// End all connections now.
    Cut,
}

/// What a proxy did, in numbers of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Accepted and given to an enclave, if one could be reached.
    pub served: u64,
    /// Reset because there were too many.
    pub refused: u64,
    /// Of those served, the ones that the end of the proxy cut off.
    pub cut: u64,
}

/// Forwards what arrives at `listener` to the `enclaves`, in turn, until `shutdown` asks it to end.
///
/// It returns when the last connection has ended. A dropped sender of `shutdown` asks it to drain.
pub async fn run(
    listener: TcpListener,
    enclaves: Vec<Address>,
    limits: Limits,
    metrics: Metrics,
    mut shutdown: watch::Receiver<Shutdown>,
) -> Summary {
    let mut server = Server::new(enclaves, limits, metrics);
    loop {
        select! {
            biased;
            _ = asked(&mut shutdown, Shutdown::Drain) => break,
            // Before `accept`, so that a visit which has ended takes no place.
            Some(ended) = server.visits.join_next() => server.note(ended),
            (client, peer) = accept(&listener) => server.admit(client, peer),
        }
    }
    drop(listener);
    server.drain(shutdown).await
}

/// Waits for `step`: true once it is asked, false if nobody is left who could.
pub(crate) async fn asked(shutdown: &mut watch::Receiver<Shutdown>, step: Shutdown) -> bool {
    shutdown.wait_for(|asked| *asked >= step).await.is_ok()
}

/// Accepts a connection, however often that fails: out of file descriptors is a reason to wait, not to end or to spin.
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut pause = Duration::from_millis(5);
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                log(format_args!("event=accept_failed error={:?} pause_ms={}", error.to_string(), pause.as_millis()));
                sleep(pause).await;
                pause = (2 * pause).min(Duration::from_secs(1));
            }
        }
    }
}

struct Server {
    enclaves: Arc<Enclaves<Address>>,
    limits: Limits,
    metrics: Metrics,
    peers: Peers,
    visits: JoinSet<End>,
    cut: watch::Sender<bool>,
    summary: Summary,
    refusal_logged: Option<Instant>,
}

impl Server {
    fn new(enclaves: Vec<Address>, limits: Limits, metrics: Metrics) -> Self {
        Self {
            enclaves: Arc::new(Enclaves::new(enclaves)),
            limits,
            metrics,
            peers: Peers::new(limits.connections_per_address),
            visits: JoinSet::new(),
            cut: watch::Sender::new(false),
            summary: Summary::default(),
            refusal_logged: None,
        }
    }

    fn admit(&mut self, client: TcpStream, peer: SocketAddr) {
        let room = self.visits.len() < self.limits.connections.get();
        let Some(place) = room.then(|| self.peers.admit(peer.ip())).flatten() else {
            self.summary.refused += 1;
            self.metrics.connection_refused(Place::Relay);
            self.log_refusals();
            reset(client);
            return;
        };
        self.summary.served += 1;
        let open = self.metrics.connection_opened(Place::Relay);
        let (enclaves, metrics) = (self.enclaves.clone(), self.metrics.clone());
        let visit = visit(client, peer, enclaves, self.limits, metrics, self.cut.subscribe());
        self.visits.spawn(async move {
            let _ended_with_it = (open, place);
            visit.await
        });
    }

    /// One line a second at most: a flood must not push everything else out of the log.
    fn log_refusals(&mut self) {
        if self.refusal_logged.is_none_or(|last| last.elapsed() >= Duration::from_secs(1)) {
            self.refusal_logged = Some(Instant::now());
            log(format_args!(
                "event=refused limit={} limit_per_address={} refused_so_far={}",
                self.limits.connections, self.limits.connections_per_address, self.summary.refused
            ));
        }
    }

    fn note(&mut self, ended: Result<End, JoinError>) {
        match ended {
            Ok(End::Cut) => self.summary.cut += 1,
            Ok(_) => {}
            Err(error) => log(format_args!("event=internal_error error={:?}", error.to_string())),
        }
    }

    async fn drain(mut self, mut shutdown: watch::Receiver<Shutdown>) -> Summary {
        let limit = self.limits.drain;
        log(format_args!("event=draining connections={} limit_s={}", self.visits.len(), limit.as_secs_f64()));
        select! {
            () = self.all_ended() => {}
            true = asked(&mut shutdown, Shutdown::Cut) => {}
            () = sleep(limit) => {}
        }
        self.cut.send_replace(true);
        self.all_ended().await;
        log(format_args!("event=stopped {}", self.summary));
        self.summary
    }

    async fn all_ended(&mut self) {
        while let Some(ended) = self.visits.join_next().await {
            self.note(ended);
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { served, refused, cut } = self;
        write!(f, "served={served} refused={refused} cut={cut}")
    }
}
