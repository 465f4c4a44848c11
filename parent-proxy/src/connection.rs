//! One client's visit.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Instant};

use tokio::{net::TcpStream, select, sync::watch};

use crate::{
    address::Address,
    enclaves::{Enclaves, Unreachable},
    limits::Limits,
    log::log,
    metrics::Metrics,
    relay::{Traffic, relay},
};

/// How a visit ended.
#[derive(Debug)]
pub(crate) enum End {
    /// Both sides said all they had to say.
    Finished,
    /// No byte moved for as long as the limit allows.
    Idle,
    /// The proxy ends, and does not wait any longer.
    Cut,
    /// No enclave accepted a connection.
    Unreachable,
    /// The client's connection broke.
    Client(io::Error),
    /// The enclave's connection broke.
    Enclave(io::Error),
}

/// Joins `client` to an enclave, and stays until that ends or `cut` becomes true.
pub(crate) async fn visit(
    mut client: TcpStream,
    peer: SocketAddr,
    enclaves: Arc<Enclaves<Address>>,
    limits: Limits,
    metrics: Metrics,
    mut cut: watch::Receiver<bool>,
) -> End {
    let traffic = Traffic::new(Instant::now(), &metrics);
    let end = select! {
        end = join(&mut client, peer, &enclaves, limits, &traffic) => end,
        () = async { drop(cut.wait_for(|cut| *cut).await) } => End::Cut,
    };
    if !matches!(end, End::Finished) {
        reset(client);
    }
    log(format_args!("event=closed client={peer} {traffic} end={end}"));
    end
}

async fn join(
    client: &mut TcpStream,
    peer: SocketAddr,
    enclaves: &Enclaves<Address>,
    limits: Limits,
    traffic: &Traffic,
) -> End {
    if let Err(error) = client.set_nodelay(true) {
        return End::Client(error);
    }
    match enclaves.connect(limits.connect).await {
        Ok((address, enclave)) => {
            log(format_args!("event=opened client={peer} enclave={address}"));
            relay(client, enclave, limits.idle, traffic).await
        }
        Err(Unreachable) => End::Unreachable,
    }
}

/// Closes so that the client sees an abort: a clean end could pass for the end of an answer.
pub(crate) fn reset(client: TcpStream) {
    // Where this fails there is no connection left to abort.
    let _ = client.set_zero_linger();
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("finished"),
            Self::Idle => f.write_str("idle"),
            Self::Cut => f.write_str("cut"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Client(error) => write!(f, "client error={:?}", error.to_string()),
            Self::Enclave(error) => write!(f, "enclave error={:?}", error.to_string()),
        }
    }
}
