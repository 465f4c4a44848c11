//! Two byte streams joined.

use std::{
    fmt, io,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use prometheus_client::metrics::counter::Counter;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, sink, split},
    net::TcpStream,
    select,
    time::sleep,
    try_join,
};

use crate::{
    connection::End,
    metrics::{Direction, Metrics},
};

/// Bytes read before they are written: vsock is fastest with writes of this size and collapses with megabytes.
const BUFFER: usize = 64 * 1024;

/// Passes bytes both ways until both directions have ended, one of them breaks, or no byte has moved for `idle`.
///
/// The end of one stream ends the write side of the other and leaves the opposite direction open. What was read is
/// written before more is read, so a slow reader slows its writer.
pub(crate) async fn relay<E>(client: &mut TcpStream, enclave: E, idle: Duration, traffic: &Traffic) -> End
where
    E: AsyncRead + AsyncWrite,
{
    let (mut from_client, mut to_client) = client.split();
    let (mut from_enclave, mut to_enclave) = split(enclave);
    let up = async {
        match pump(&mut from_client, &mut to_enclave, |n| traffic.count_up(n)).await {
            Ok(()) => Ok(()),
            Err(Broken::Read(error)) => Err(End::Client(error)),
            // It takes no more, but may have answered before it stopped: too large, too many. A socket that is closed
            // with bytes unread would reset that answer on its way, so they are read.
            Err(Broken::Write(_)) => copy(&mut from_client, &mut sink()).await.map(drop).map_err(End::Client),
        }
    };
    let down = async {
        match pump(&mut from_enclave, &mut to_client, |n| traffic.count_down(n)).await {
            Ok(()) => Ok(()),
            Err(Broken::Read(error)) => Err(End::Enclave(error)),
            Err(Broken::Write(error)) => Err(End::Client(error)),
        }
    };
    traffic.touch();
    select! {
        both = async { try_join!(up, down) } => both.err().unwrap_or(End::Finished),
        () = traffic.pauses(idle) => End::Idle,
    }
}

enum Broken {
    Read(io::Error),
    Write(io::Error),
}

/// Passes bytes one way until they end, then passes on the end.
async fn pump<R, W>(from: &mut R, to: &mut W, count: impl Fn(usize)) -> Result<(), Broken>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
    loop {
        let filled = from.read(&mut buffer).await.map_err(Broken::Read)?;
        if filled == 0 {
            return to.shutdown().await.map_err(Broken::Write);
        }
        let mut rest = &buffer[..filled];
        while !rest.is_empty() {
            match to.write_buf(&mut rest).await.map_err(Broken::Write)? {
                0 => return Err(Broken::Write(io::ErrorKind::WriteZero.into())),
                written => count(written),
            }
        }
    }
}

/// What a connection has moved, and when last.
pub(crate) struct Traffic {
    began: Instant,
    /// Microseconds from `began`.
    last: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
    all_up: Counter,
    all_down: Counter,
}

impl Traffic {
    pub(crate) fn new(began: Instant, metrics: &Metrics) -> Self {
        Self {
            began,
            last: AtomicU64::new(0),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            all_up: metrics.relayed(Direction::Up),
            all_down: metrics.relayed(Direction::Down),
        }
    }

    fn count_up(&self, bytes: usize) {
        self.up.fetch_add(bytes as u64, Ordering::Relaxed);
        self.all_up.inc_by(bytes as u64);
        self.touch();
    }

    fn count_down(&self, bytes: usize) {
        self.down.fetch_add(bytes as u64, Ordering::Relaxed);
        self.all_down.inc_by(bytes as u64);
        self.touch();
    }

    fn touch(&self) {
        self.last.store(self.began.elapsed().as_micros() as u64, Ordering::Relaxed);
    }

    fn quiet(&self, now: Instant) -> Duration {
        let last = Duration::from_micros(self.last.load(Ordering::Relaxed));
        now.saturating_duration_since(self.began).saturating_sub(last)
    }

    /// Returns once nothing has moved for `limit`.
    async fn pauses(&self, limit: Duration) {
        loop {
            let left = limit.saturating_sub(self.quiet(Instant::now()));
            if left.is_zero() {
                return;
            }
            sleep(left).await;
        }
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (up, down) = (self.up.load(Ordering::Relaxed), self.down.load(Ordering::Relaxed));
        write!(f, "up={up} down={down} seconds={:.3}", self.began.elapsed().as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn every_byte_either_way_ends_a_pause() {
        for count in [Traffic::count_up, Traffic::count_down] {
            let began = Instant::now().checked_sub(MINUTE).expect("the clock counts from before this minute");
            let traffic = Traffic::new(began, &Metrics::default());
            assert_eq!(traffic.quiet(began + MINUTE), MINUTE);
            count(&traffic, 1);
            assert_eq!(traffic.quiet(began + MINUTE), Duration::ZERO);
            assert!(traffic.quiet(Instant::now() + MINUTE) >= MINUTE);
        }
    }
}
