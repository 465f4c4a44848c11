//! `cloister-parent-proxy serve`: see the library for what it does.

use std::{
    io::{self, Write},
    num::NonZeroUsize,
    time::Duration,
};

use anyhow::Context;
use clap::{Parser, Subcommand};
use cloister_parent_proxy::{Address, Limits, Shutdown, log_to_stderr, run};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    select,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Forwards TCP connections to Nitro enclaves on this instance. It holds no key and reads nothing.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(Serve),
}

/// Forward connections until SIGTERM or SIGINT
///
/// Prints "listening on tcp:IP:PORT" on stdout when it is ready, and one line per event on stderr. A first signal
/// stops accepting and lets open connections finish; a second one, or the drain timeout, cuts them. The exit code is
/// then 0. Times are whole numbers with a unit: 500ms, 5s, 2m.
#[derive(clap::Args)]
struct Serve {
    /// Where to accept clients, as tcp:HOST:PORT; with port 0 the system chooses one
    #[arg(long, value_name = "ADDR", value_parser = tcp)]
    listen: (String, u16),
    /// An enclave, as vsock:CID:PORT, hybrid:PATH:PORT, unix:PATH or tcp:HOST:PORT; given more than once, each has its turn
    #[arg(long = "enclave", value_name = "ADDR", required = true)]
    enclaves: Vec<Address>,
    /// Connections at a time; one over it is closed at once
    #[arg(long, value_name = "NUMBER", default_value = "256")]
    max_connections: NonZeroUsize,
    /// How long to try to reach an enclave, all tries for a connection together
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = limit)]
    connect_timeout: Duration,
    /// How long a connection may stay open without a byte in either direction
    #[arg(long, value_name = "TIME", default_value = "300s", value_parser = limit)]
    idle_timeout: Duration,
    /// How long open connections may take to finish after the first signal
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    drain_timeout: Duration,
}

fn main() -> anyhow::Result<()> {
    let Cli { command: Command::Serve(serve) } = Cli::parse();
    let _log = log_to_stderr().context("cannot start the log")?;
    let runtime = Runtime::new().context("cannot start the runtime")?;
    let result = runtime.block_on(serve.run());
    // A name lookup that hangs must not keep the process.
    runtime.shutdown_background();
    result
}

impl Serve {
    async fn run(self) -> anyhow::Result<()> {
        let limits = self.limits();
        let (host, port) = self.listen;
        let listener =
            TcpListener::bind((&*host, port)).await.with_context(|| format!("cannot listen on {host} port {port}"))?;
        // Before the line that others wait for: they may send a signal as soon as they have read it.
        let shutdown = on_signals().context("cannot listen for signals")?;
        announce(&listener)?;
        run(listener, self.enclaves, limits, shutdown).await;
        Ok(())
    }

    fn limits(&self) -> Limits {
        Limits {
            connections: self.max_connections,
            connect: self.connect_timeout,
            idle: self.idle_timeout,
            drain: self.drain_timeout,
        }
    }
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

fn announce(listener: &TcpListener) -> anyhow::Result<()> {
    let address = listener.local_addr().context("cannot tell the address that was bound")?;
    let mut stdout = io::stdout();
    // With nobody there to read the line, there is nobody who waits for it.
    let _ = writeln!(stdout, "listening on tcp:{address}").and_then(|()| stdout.flush());
    Ok(())
}

fn tcp(text: &str) -> Result<(String, u16), String> {
    match text.parse() {
        Ok(Address::Tcp { host, port }) => Ok((host, port)),
        Ok(_) => Err(format!("clients arrive by TCP, not at {text:?}; accepted is tcp:HOST:PORT")),
        Err(error) => Err(error.to_string()),
    }
}

/// A time in which something must happen.
fn limit(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err(format!("{text:?} leaves no time at all; accepted are 1ms and more")),
        time => Ok(time),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    match (number.parse::<u32>(), unit) {
        (Ok(number), "ms") => Ok(Duration::from_millis(number.into())),
        (Ok(number), "s") => Ok(Duration::from_secs(number.into())),
        (Ok(number), "m") => Ok(Duration::from_secs(60 * u64::from(number))),
        _ => Err(format!("{text:?} is not a time; accepted is a whole number with a unit, as in 500ms, 5s or 2m")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(arguments: &[&str]) -> Result<Serve, clap::Error> {
        let required = ["cloister-parent-proxy", "serve", "--listen", "tcp:127.0.0.1:0", "--enclave", "vsock:16:5000"];
        let Cli { command: Command::Serve(serve) } = Cli::try_parse_from([&required, arguments].concat())?;
        Ok(serve)
    }

    #[test]
    fn the_flags_default_to_the_limits_of_the_library() {
        assert_eq!(serve(&[]).unwrap().limits(), Limits::default());
    }

    #[test]
    fn times_have_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("4294967295m"), Ok(Duration::from_secs(60 * u64::from(u32::MAX))));
        for text in ["", "5", "s", "5 s", "-5s", "0.5s", "5h", "5sec", "4294967296s", "٣s"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_the_drain_may_be_cut_to_nothing() {
        assert_eq!(serve(&["--drain-timeout", "0s"]).unwrap().drain_timeout, Duration::ZERO);
        assert!(serve(&["--connect-timeout", "0s"]).is_err());
        assert!(serve(&["--idle-timeout", "0ms"]).is_err());
        assert!(serve(&["--max-connections", "0"]).is_err());
    }

    #[test]
    fn clients_arrive_by_tcp() {
        assert_eq!(tcp("tcp:[::1]:8443"), Ok(("::1".into(), 8443)));
        assert!(tcp("unix:/run/proxy.sock").unwrap_err().ends_with("accepted is tcp:HOST:PORT"));
        assert!(tcp("8443").unwrap_err().contains("tcp:HOST:PORT"));
    }
}
