//! What happened, one JSON line each on stderr: a fixed list of event names and numbers, never text from a peer.

use std::{
    io::Write,
    time::{SystemTime, UNIX_EPOCH},
};

/// Everything that is ever logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
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
    /// A request was answered; microseconds of evaluation.
    Inferred,
    /// A request was refused; its HTTP status.
    Refused,
    /// Shutdown was asked for; connections still open.
    Draining,
    /// The service ended.
    Stopped,
}

impl Event {
    const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::AcceptFailed => "accept_failed",
            Self::HandshakeFailed => "handshake_failed",
            Self::Attested => "attested",
            Self::AttestFailed => "attest_failed",
            Self::Inferred => "inferred",
            Self::Refused => "refused",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

/// Logs one event. A reader that is gone does not stop the service.
pub fn event(event: Event, value: u64) {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis());
    let line = format!("{{\"time\":{time},\"event\":\"{}\",\"value\":{value}}}\n", event.name());
    let _ = std::io::stderr().write_all(line.as_bytes());
}
