//! `cloister-parent-proxy serve`.

use std::{
    env,
    io::{self, Write},
    net::SocketAddr,
    num::NonZeroUsize,
    path::PathBuf,
    time::Duration,
};

use anyhow::Context;
use clap::{
    CommandFactory,
    error::{ErrorKind, Result as Usage},
};
use cloister_parent_proxy::{
    Address, Bucket, EventListener, FrontSettings, Limits, Metrics, Model, MultiModel, Shutdown, hear_events, run,
    serve_http, serve_metrics,
};
use tokio::{
    net::TcpListener,
    select,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

use super::value::{duration, limit, size, tcp};
use crate::Cli;

/// Where SageMaker puts the models of a multi-model endpoint.
const SAGEMAKER_MODELS: &str = "/opt/ml/models";
/// Where SageMaker asks a container, unless it says another port.
const SAGEMAKER_PORT: u16 = 8080;

/// Forward connections and answer HTTP until SIGTERM or SIGINT
///
/// Prints "listening on tcp:IP:PORT, http tcp:IP:PORT, metrics tcp:IP:PORT" on stdout when it is ready, without the parts
/// that it does not serve, and one line per event on stderr. A first signal stops accepting and lets open connections and
/// requests finish; a second one, or the drain timeout, cuts them. The exit code is then 0. Times are whole numbers with a
/// unit: 500ms, 5s, 2m. Every flag has an environment variable, in which commas separate values.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("front").args(["listen", "http", "plain_enclaves"]).multiple(true).required(true))]
pub(crate) struct Serve {
    /// Where to accept clients whose TLS ends in an enclave, as tcp:HOST:PORT; with port 0 the system chooses one
    #[arg(long, env = "CLOISTER_LISTEN", value_name = "ADDR", value_parser = tcp, requires = "enclaves")]
    listen: Option<(String, u16)>,
    /// An enclave's TLS port, as vsock:CID:PORT, hybrid:PATH:PORT, unix:PATH or tcp:HOST:PORT; given more than once, each
    /// has its turn
    #[arg(long = "enclave", env = "CLOISTER_ENCLAVE", value_name = "ADDR", value_delimiter = ',', requires = "listen")]
    enclaves: Vec<Address>,
    /// Where to answer HTTP, as tcp:HOST:PORT: the Open Inference Protocol and SageMaker's contract, for where TLS ends
    /// before this instance. With --plain-enclave it is tcp:0.0.0.0:8080 unless given, or SageMaker's port
    #[arg(long, env = "CLOISTER_HTTP", value_name = "ADDR", value_parser = tcp, requires = "plain_enclaves")]
    http: Option<(String, u16)>,
    /// An enclave's port for plain HTTP, written as for --enclave; given more than once, each has its turn
    #[arg(long = "plain-enclave", env = "CLOISTER_PLAIN_ENCLAVE", value_name = "ADDR", value_delimiter = ',')]
    plain_enclaves: Vec<Address>,
    /// Whom an invocation is for that names no model, as NAME or NAME/VERSION
    #[arg(long, env = "CLOISTER_DEFAULT_MODEL", value_name = "MODEL", requires = "plain_enclaves")]
    default_model: Option<Model>,
    /// A bucket, or NAME/PREFIX for a folder in one, in which invocations may name objects; settings and credentials come
    /// from the AWS_* variables or from the instance
    #[arg(long = "s3-bucket", env = "CLOISTER_S3_BUCKET", value_name = "NAME", value_delimiter = ',')]
    buckets: Vec<Bucket>,
    /// The folder of bundles that SageMaker's multi-model verbs may load; with SAGEMAKER_MULTI_MODEL=true it is
    /// /opt/ml/models unless given. Whoever reaches the HTTP port may then load and unload models: it is for SageMaker,
    /// where only the platform reaches it
    #[arg(long, env = "CLOISTER_MULTI_MODEL", value_name = "DIR", requires = "plain_enclaves")]
    multi_model: Option<PathBuf>,
    /// An enclave's model repository, for --multi-model: one for each --plain-enclave, in their order
    #[arg(long, env = "CLOISTER_CONTROL", value_name = "ADDR", value_delimiter = ',')]
    control: Vec<Address>,
    /// Where to answer GET /metrics, as tcp:HOST:PORT
    #[arg(long, env = "CLOISTER_METRICS", value_name = "ADDR", value_parser = tcp)]
    metrics: Option<(String, u16)>,
    /// Where to hear what enclaves log, written as for --enclave; vsock:4294967295:PORT hears any of them
    #[arg(long, env = "CLOISTER_EVENTS", value_name = "ADDR")]
    events: Option<Address>,
    /// Connections at a time, to each of the places where clients arrive; one over it is closed at once, but for HTTP the one
    /// on which nothing has been asked for the longest makes room. Give more than --max-requests, so that GET /ping finds some
    #[arg(long, env = "CLOISTER_MAX_CONNECTIONS", value_name = "NUMBER", default_value = "256")]
    max_connections: NonZeroUsize,
    /// Of these the ones of a single address (of IPv6, a /64); as many as --max-connections unless given, since behind a
    /// load balancer all clients have its address. Give less where clients connect themselves
    #[arg(long, env = "CLOISTER_MAX_CONNECTIONS_PER_ADDRESS", value_name = "NUMBER")]
    max_connections_per_address: Option<NonZeroUsize>,
    /// How long to try to reach an enclave, all tries for a connection together
    #[arg(long, env = "CLOISTER_CONNECT_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = limit)]
    connect_timeout: Duration,
    /// How long a forwarded connection may stay open without a byte in either direction
    #[arg(long, env = "CLOISTER_IDLE_TIMEOUT", value_name = "TIME", default_value = "300s", value_parser = limit)]
    idle_timeout: Duration,
    /// How long open connections and requests may take to finish after the first signal
    #[arg(long, env = "CLOISTER_DRAIN_TIMEOUT", value_name = "TIME", default_value = "25s", value_parser = duration)]
    drain_timeout: Duration,
    /// HTTP requests at a time; one over it is refused
    #[arg(long, env = "CLOISTER_MAX_REQUESTS", value_name = "NUMBER", default_value = "64")]
    max_requests: NonZeroUsize,
    /// The largest body of an HTTP request, in bytes, KiB or MiB
    #[arg(long, env = "CLOISTER_MAX_BODY", value_name = "SIZE", default_value = "6MiB", value_parser = size)]
    max_body: usize,
    /// How long the body of an HTTP request may take to arrive
    #[arg(long, env = "CLOISTER_BODY_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = limit)]
    body_timeout: Duration,
    /// How long an HTTP request may take from its head to its answer, and then its answer to be read
    #[arg(long, env = "CLOISTER_ANSWER_TIMEOUT", value_name = "TIME", default_value = "60s", value_parser = limit)]
    answer_timeout: Duration,
}

impl Serve {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let limits = self.limits();
        let front = match self.front(|name| env::var(name).ok()) {
            Ok(front) => front,
            Err(error) => error.exit(),
        };
        let relay = bind(self.listen).await?;
        let http = match front {
            Some((address, settings)) => bind(Some(address)).await?.zip(Some(settings)),
            None => None,
        };
        let numbers = bind(self.metrics).await?;
        let events = match self.events {
            Some(address) => {
                Some(EventListener::bind(&address).await.with_context(|| format!("cannot listen at {address}"))?)
            }
            None => None,
        };
        // Before the line that others wait for: they may send a signal as soon as they have read it.
        let shutdown = on_signals().context("cannot listen for signals")?;
        announce([
            ("listening on ", relay.as_ref()),
            ("http ", http.as_ref().map(|(listener, _)| listener)),
            ("metrics ", numbers.as_ref()),
        ])?;

        let (metrics, mut parts) = (Metrics::default(), JoinSet::new());
        if let Some(listener) = relay {
            let running = run(listener, self.enclaves, limits, metrics.clone(), shutdown.clone());
            parts.spawn(async { _ = running.await });
        }
        if let Some((listener, settings)) = http {
            parts.spawn(serve_http(listener, settings, limits, metrics.clone(), shutdown.clone()));
        }
        // Whoever watches may do so until the last client has gone.
        let mut watchers = JoinSet::new();
        let (last, ended) = watch::channel(Shutdown::NotAsked);
        if let Some(listener) = numbers {
            watchers.spawn(serve_metrics(listener, limits, metrics.clone(), ended.clone()));
        }
        if let Some(listener) = events {
            watchers.spawn(hear_events(listener, metrics, ended));
        }
        parts.join_all().await;
        last.send_replace(Shutdown::Cut);
        watchers.join_all().await;
        Ok(())
    }

    fn limits(&self) -> Limits {
        Limits {
            connections: self.max_connections,
            connections_per_address: self.max_connections_per_address.unwrap_or(self.max_connections),
            connect: self.connect_timeout,
            idle: self.idle_timeout,
            drain: self.drain_timeout,
            requests: self.max_requests,
            body: self.max_body,
            arrival: self.body_timeout,
            answer: self.answer_timeout,
        }
    }

    /// What the HTTP front is for and where it is, as the flags say or else SageMaker's variables.
    fn front(&self, variable: impl Fn(&str) -> Option<String>) -> Usage<Option<((String, u16), FrontSettings)>> {
        if self.plain_enclaves.is_empty() {
            return Ok(None);
        }
        let port = match variable("SAGEMAKER_BIND_TO_PORT") {
            Some(port) => port.parse().map_err(|_| usage(format!("SAGEMAKER_BIND_TO_PORT is {port:?} and no port")))?,
            None => SAGEMAKER_PORT,
        };
        let asked = variable("SAGEMAKER_MULTI_MODEL").is_some_and(|asked| asked == "true");
        let folder = self.multi_model.clone().or(asked.then(|| SAGEMAKER_MODELS.into()));
        let settings = FrontSettings {
            enclaves: self.plain_enclaves.clone(),
            default_model: self.default_model.clone(),
            buckets: self.buckets.clone(),
            multi_model: folder.map(|folder| self.multi_model(folder)).transpose()?,
        };
        Ok(Some((self.http.clone().unwrap_or(("0.0.0.0".into(), port)), settings)))
    }

    fn multi_model(&self, folder: PathBuf) -> Usage<MultiModel> {
        if self.control.len() != self.plain_enclaves.len() {
            let (control, enclaves) = (self.control.len(), self.plain_enclaves.len());
            let what =
                "models are loaded into every enclave: give one --control <ADDR> for each --plain-enclave <ADDR>";
            return Err(usage(format!("{what} (now {control} for {enclaves})")));
        }
        Ok(MultiModel { folder, control: self.control.clone() })
    }
}

pub(super) fn usage(what: String) -> clap::Error {
    Cli::command().error(ErrorKind::MissingRequiredArgument, what)
}

async fn bind(address: Option<(String, u16)>) -> anyhow::Result<Option<TcpListener>> {
    let Some((host, port)) = address else { return Ok(None) };
    let listener = TcpListener::bind((&*host, port)).await;
    listener.map(Some).with_context(|| format!("cannot listen on {host} port {port}"))
}

/// Asks to drain at the first SIGTERM or SIGINT, and to cut at the second.
fn on_signals() -> io::Result<watch::Receiver<Shutdown>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (shutdown, asked) = watch::channel(Shutdown::NotAsked);
    tokio::spawn(async move {
        for step in [Shutdown::Drain, Shutdown::Cut] {
            select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            shutdown.send_replace(step);
        }
    });
    Ok(asked)
}

/// One line, in which what is not served is left out.
fn announce(parts: [(&str, Option<&TcpListener>); 3]) -> anyhow::Result<()> {
    let mut places = Vec::new();
    for (name, listener) in parts {
        if let Some(listener) = listener {
            let address: SocketAddr = listener.local_addr().context("cannot tell the address that was bound")?;
            places.push(format!("{name}tcp:{address}"));
        }
    }
    let mut stdout = io::stdout();
    // With nobody there to read the line, there is nobody who waits for it.
    let _ = writeln!(stdout, "{}", places.join(", ")).and_then(|()| stdout.flush());
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::Command;

    const RELAY: [&str; 4] = ["--listen", "tcp:127.0.0.1:0", "--enclave", "vsock:16:5000"];
    const PLAIN: [&str; 2] = ["--plain-enclave", "vsock:16:5001,vsock:17:5001"];

    fn serve(arguments: &[&str]) -> Usage<Serve> {
        match Cli::try_parse_from([&["cloister-parent-proxy", "serve"], arguments].concat())?.command {
            Command::Serve(serve) => Ok(*serve),
            Command::Models(_) => unreachable!("serve is what was said"),
        }
    }

    fn relay(arguments: &[&str]) -> Usage<Serve> {
        serve(&[&RELAY, arguments].concat())
    }

    fn front(arguments: &[&str], variables: &[(&str, &str)]) -> Usage<Option<((String, u16), FrontSettings)>> {
        let variable =
            |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).into());
        serve(arguments)?.front(variable)
    }

    #[test]
    fn the_flags_default_to_the_limits_of_the_library() {
        assert_eq!(relay(&[]).unwrap().limits(), Limits::default());
    }

    #[test]
    fn an_address_may_have_all_connections_unless_it_is_said() {
        let each = |arguments: &[&str]| relay(arguments).unwrap().limits().connections_per_address.get();
        assert_eq!(each(&["--max-connections", "1000"]), 1000);
        assert_eq!(each(&["--max-connections", "1000", "--max-connections-per-address", "8"]), 8);
    }

    #[test]
    fn only_the_drain_may_be_cut_to_nothing() {
        assert_eq!(relay(&["--drain-timeout", "0s"]).unwrap().drain_timeout, Duration::ZERO);
        for faulty in [
            ["--connect-timeout", "0s"],
            ["--idle-timeout", "0ms"],
            ["--answer-timeout", "0s"],
            ["--body-timeout", "0s"],
            ["--max-connections", "0"],
            ["--max-connections-per-address", "0"],
            ["--max-requests", "0"],
            ["--max-body", "0"],
        ] {
            assert!(relay(&faulty).is_err(), "{faulty:?}");
        }
    }

    #[test]
    fn a_relay_or_a_front_or_both() {
        assert!(serve(&RELAY).is_ok());
        assert!(serve(&PLAIN).is_ok());
        assert!(relay(&PLAIN).is_ok());
        for faulty in [&[][..], &RELAY[..2], &RELAY[2..], &["--http", "tcp:127.0.0.1:0"], &["--default-model", "iris"]]
        {
            assert_eq!(serve(faulty).err().unwrap().kind(), ErrorKind::MissingRequiredArgument, "{faulty:?}");
        }
        assert!(front(&RELAY, &[]).unwrap().is_none());
    }

    #[test]
    fn http_is_where_it_is_said_or_where_sagemaker_asks() {
        let address = |arguments: &[&str], variables: &[_]| {
            front(&[&PLAIN, arguments].concat(), variables).map(|front| front.unwrap().0)
        };
        assert_eq!(address(&[], &[]).unwrap(), ("0.0.0.0".into(), 8080));
        let variable = ("SAGEMAKER_BIND_TO_PORT", "8081");
        assert_eq!(address(&[], &[variable]).unwrap(), ("0.0.0.0".into(), 8081));
        assert_eq!(address(&["--http", "tcp:127.0.0.1:9"], &[variable]).unwrap(), ("127.0.0.1".into(), 9));
        assert!(address(&[], &[("SAGEMAKER_BIND_TO_PORT", "http")]).is_err());
    }

    #[test]
    fn models_are_loaded_where_it_is_asked_and_into_every_enclave() {
        let folder = |arguments: &[&str], variables: &[_]| {
            let front = front(&[&PLAIN, arguments].concat(), variables)?;
            Ok::<_, clap::Error>(front.unwrap().1.multi_model.map(|multi| (multi.folder, multi.control.len())))
        };
        let (both, variable) = (["--control", "vsock:16:5003,vsock:17:5003"], ("SAGEMAKER_MULTI_MODEL", "true"));
        assert_eq!(folder(&both, &[]).unwrap(), None);
        assert_eq!(folder(&both, &[("SAGEMAKER_MULTI_MODEL", "false")]).unwrap(), None);
        assert_eq!(folder(&both, &[variable]).unwrap(), Some((SAGEMAKER_MODELS.into(), 2)));
        let said = [&both[..], &["--multi-model", "/models"]].concat();
        assert_eq!(folder(&said, &[variable]).unwrap(), Some(("/models".into(), 2)));
        assert!(folder(&["--multi-model", "/models"], &[]).is_err());
        assert!(folder(&["--control", "vsock:16:5003"], &[variable]).is_err());
    }
}
