//! Where a client's time comes from.

use std::fmt::Debug;

use cloister_attestation::Timestamp;

/// Says what time it is, as rustls's `TimeProvider` does. It can skip no check.
pub trait Clock: Debug + Send + Sync {
    /// The time.
    fn now(&self) -> Timestamp;
}

/// The clock of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
