//! What a proxy allows itself and its clients.

use std::{num::NonZeroUsize, time::Duration};

use cloister_wire::limits::REQUEST_DEADLINE;

/// Numbers, sizes and times that nothing exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time, to the relay and to the HTTP front each; one over it is reset at once. 256 by default. In
    /// the front one on which nothing is asked makes room for another: with more of them than [`requests`](Self::requests)
    /// there always is one.
    pub connections: NonZeroUsize,
    /// Of these the ones of a single address; of IPv6 a /64 counts as one. As many by default: behind a balancer all clients
    /// have its address.
    pub connections_per_address: NonZeroUsize,
    /// The time in which one of the enclaves must accept a connection. 5 s by default.
    pub connect: Duration,
    /// The time for which a connection may stay open without a byte moving in either direction. 300 s by default.
    pub idle: Duration,
    /// The time that open connections have to finish once the proxy was asked to drain. 25 s by default: SageMaker kills
    /// a container 30 s after it has asked it to end.
    pub drain: Duration,
    /// HTTP requests at a time; one over it is refused as `overloaded`. 64 by default.
    pub requests: NonZeroUsize,
    /// Bytes of the body of an HTTP request, and of an object that stands for one. 6 MiB by default, as SageMaker's.
    pub body: usize,
    /// The time in which such a body must arrive: until then it has the place of a request. 10 s by default, as an enclave's.
    pub arrival: Duration,
    /// The time in which the body of an HTTP request must arrive and its answer be made; it may be read for as long again.
    /// 60 s by default, as SageMaker's.
    pub answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let connections = NonZeroUsize::new(256).expect("256 is not zero");
        Self {
            connections,
            connections_per_address: connections,
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(300),
            drain: Duration::from_secs(25),
            requests: NonZeroUsize::new(64).expect("64 is not zero"),
            body: 6 << 20,
            arrival: REQUEST_DEADLINE,
            answer: Duration::from_secs(60),
        }
    }
}
