//! Numbers for those who watch, as Prometheus reads them.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use axum::http::StatusCode;
use prometheus_client::{
    encoding::prometheus_text,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::address::Address;

/// Content type of [`Metrics::page`].
pub(crate) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a proxy counts. Clones count together.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Numbers>);

#[derive(Default)]
struct Numbers {
    open: Family<Labels<1>, Gauge>,
    connections: Family<Labels<1>, Counter>,
    refused: Family<Labels<1>, Counter>,
    relayed: Family<Labels<1>, Counter>,
    requests: Family<Labels<2>, Counter>,
    seconds: Seconds,
    in_flight: Gauge,
    upstream_failures: Family<Labels<1>, Counter>,
    up: Family<Labels<1>, Gauge>,
    transfers: Family<Labels<2>, Counter>,
    events: Family<Labels<1>, Counter>,
    event_values: Family<Labels<1>, Counter>,
    event_last_values: Family<Labels<1>, Gauge<u64, AtomicU64>>,
    events_dropped: Counter,
}

/// Names of labels and what they say.
type Labels<const N: usize> = [(&'static str, String); N];

struct Seconds(Family<Labels<1>, Histogram>);

impl Default for Seconds {
    fn default() -> Self {
        /// From a relayed answer to the longest that SageMaker waits for one.
        const BUCKETS: [f64; 14] =
            [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0];
        Self(Family::new_with_constructor(|| Histogram::new(BUCKETS)))
    }
}

/// Whether bytes go to an enclave or come from one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    Up,
    Down,
}

impl Direction {
    fn label(self) -> (&'static str, String) {
        let text = match self {
            Self::Up => "up",
            Self::Down => "down",
        };
        ("direction", text.into())
    }
}

/// Where clients arrive.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    Relay,
    Http,
}

impl Place {
    fn label(self) -> (&'static str, String) {
        let text = match self {
            Self::Relay => "relay",
            Self::Http => "http",
        };
        ("place", text.into())
    }
}

impl Metrics {
    pub(crate) fn connection_opened(&self, place: Place) -> InFlight {
        self.0.connections.get_or_create(&[place.label()]).inc();
        InFlight::new(self.0.open.get_or_create_owned(&[place.label()]))
    }

    pub(crate) fn connection_refused(&self, place: Place) {
        self.0.refused.get_or_create(&[place.label()]).inc();
    }

    pub(crate) fn relayed(&self, direction: Direction) -> Counter {
        self.0.relayed.get_or_create_owned(&[direction.label()])
    }

    pub(crate) fn request_began(&self) -> InFlight {
        InFlight::new(self.0.in_flight.clone())
    }

    /// `route` is the pattern that matched, of which there are few, and not the path. The status may be an enclave's, so it
    /// is grouped unless it is a known one: each label is kept for ever.
    pub(crate) fn request_answered(&self, route: &str, status: u16, time: Duration) {
        self.0.requests.get_or_create(&[("route", route.into()), ("status", status_label(status))]).inc();
        self.0.seconds.0.get_or_create(&[("route", route.into())]).observe(time.as_secs_f64());
    }

    pub(crate) fn upstream_failed(&self, enclave: &Address) {
        self.0.upstream_failures.get_or_create(&[("enclave", enclave.to_string())]).inc();
    }

    pub(crate) fn enclave_up(&self, enclave: &Address, up: bool) {
        self.0.up.get_or_create(&[("enclave", enclave.to_string())]).set(up.into());
    }

    /// An object was fetched to go up, or came down and was stored, or was not.
    pub(crate) fn transferred(&self, direction: Direction, done: bool) {
        let outcome = if done { "done" } else { "failed" };
        self.0.transfers.get_or_create(&[direction.label(), ("outcome", outcome.into())]).inc();
    }

    pub(crate) fn event(&self, name: &str, value: u64) {
        let event = [("event", name.into())];
        self.0.events.get_or_create(&event).inc();
        self.0.event_values.get_or_create(&event).inc_by(value);
        self.0.event_last_values.get_or_create(&event).set(value);
    }

    pub(crate) fn event_dropped(&self) {
        self.0.events_dropped.inc();
    }

    /// All numbers in Prometheus' text format.
    pub fn page(&self) -> String {
        let mut page = String::new();
        prometheus_text::encode(&mut page, &self.registry()).expect("a text takes whatever is written to it");
        page
    }

    fn registry(&self) -> Registry {
        let numbers = &*self.0;
        let mut all = Registry::default();
        let proxy = all.sub_registry_with_prefix("cloister_proxy");
        proxy.register("connections_open", "Connections that have not ended", numbers.open.clone());
        proxy.register("connections", "Connections accepted", numbers.connections.clone());
        proxy.register("connections_refused", "Connections over the cap", numbers.refused.clone());
        proxy.register("relayed_bytes", "Bytes that the relay has passed on", numbers.relayed.clone());
        proxy.register("http_requests", "HTTP requests answered", numbers.requests.clone());
        proxy.register("http_request_seconds", "Time from a request's head to its answer", numbers.seconds.0.clone());
        proxy.register("http_requests_in_flight", "HTTP requests not answered yet", numbers.in_flight.clone());
        proxy.register("upstream_failures", "Enclaves that gave no answer", numbers.upstream_failures.clone());
        proxy.register("enclave_up", "Whether an enclave is ready and attests", numbers.up.clone());
        proxy.register("object_transfers", "Objects fetched and stored", numbers.transfers.clone());
        proxy.register("event_lines_dropped", "Lines of enclaves that are no event", numbers.events_dropped.clone());
        let enclave = all.sub_registry_with_prefix("cloister_enclave");
        enclave.register("events", "Events that enclaves have logged", numbers.events.clone());
        enclave.register("event_value", "Sum of the values of events", numbers.event_values.clone());
        enclave.register("event_last_value", "Value of the last event", numbers.event_last_values.clone());
        all
    }
}

fn status_label(status: u16) -> String {
    match StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()) {
        Some(_) => status.to_string(),
        None if (100..600).contains(&status) => format!("{}xx", status / 100),
        None => "other".into(),
    }
}

/// Counts one more, for as long as it lives.
pub(crate) struct InFlight(Gauge);

impl InFlight {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.page())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_counted_by_itself_only_if_it_is_known() {
        for (status, label) in [(200, "200"), (507, "507"), (299, "2xx"), (599, "5xx"), (600, "other"), (999, "other")]
        {
            assert_eq!(status_label(status), label);
        }
    }
}
