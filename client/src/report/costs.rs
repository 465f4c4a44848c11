//! Bytes and times, as bars.

use std::time::Duration;

use maud::{Markup, html};

use super::{Exchanges, Report, counted, grouped, section};
use crate::Timing;

/// A bar of a chart.
struct Bar {
    label: &'static str,
    note: &'static str,
    /// As a person reads it.
    text: String,
    value: f64,
    /// It stands beside the others for comparison only.
    is_reference: bool,
}

impl Report {
    pub(super) fn travelled(&self) -> Markup {
        let Exchanges { requests, sent, public_keys, received, .. } = self.exchanges;
        let asked = self.rows.saturating_sub(self.resumed);
        let plaintext = asked * self.description.features().len() as u64 * size_of::<f64>() as u64;
        let reference = Bar {
            is_reference: true,
            ..bytes("Rows in plaintext", "as float64, for comparison: never sent", plaintext)
        };
        let bars = [
            reference,
            bytes("Encrypted requests", "up: the rows", sent),
            bytes("Public keys", "up: with them replies are made anew", public_keys),
            bytes("Encrypted replies", "down: the logits", received),
            bytes("Evaluation keys", "linear models need none", 0),
        ];
        let content = html! {
            p {
                (counted(asked, "row")) " in " (counted(requests, "request")) ", beside the attestation. "
                @if self.resumed > 0 {
                    "An earlier run had got " (counted(self.resumed, "row"))
                    " before, whose bytes and times are not counted here."
                }
            }
            (chart("Bytes of the encrypted messages, beside what they hold", &bars))
        };
        section("travelled", "What travelled", content)
    }

    pub(super) fn times(&self) -> Markup {
        let Timing { encrypt, exchange, receipt, decrypt } = self.exchanges.timing;
        let bars = [
            time("Connect and verify", "TLS, attestation and its twelve steps", self.connect),
            time("Encrypt", "on your machine", encrypt),
            time("Exchange", "network and evaluation", exchange),
            time("Check receipts", "before anything is decrypted", receipt),
            time("Decrypt", "on your machine", decrypt),
        ];
        let content = html! {
            p {
                "The first connection, and then the sum over all requests"
                @if self.attestations > 1 { ", of which several may have been under way at a time" }
                "."
            }
            (chart("Time of each phase", &bars))
        };
        section("times", "Where the time went", content)
    }
}

fn bytes(label: &'static str, note: &'static str, bytes: u64) -> Bar {
    Bar { label, note, text: counted(bytes, "byte"), value: bytes as f64, is_reference: false }
}

/// In milliseconds to the microsecond, so that all bars have the same unit.
fn time(label: &'static str, note: &'static str, time: Duration) -> Bar {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let text = format!("{}.{:03} ms", grouped(micros / 1000), micros % 1000);
    Bar { label, note, text, value: time.as_secs_f64(), is_reference: false }
}

fn chart(caption: &str, bars: &[Bar]) -> Markup {
    let most = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    html! {
        figure {
            figcaption { (caption) }
            ul.bars { @for bar in bars { (drawn(bar, most)) } }
        }
    }
}

fn drawn(Bar { label, note, text, value, is_reference }: &Bar, most: f64) -> Markup {
    let percent = if most > 0.0 { 100.0 * value / most } else { 0.0 };
    let said = format!("{label}: {text}, {percent:.1} % of the longest bar");
    let class = if *is_reference { "bar reference" } else { "bar" };
    html! {
        li {
            span.label { (label) small { (note) } }
            svg class=(class) width="100%" height="16" role="img" aria-label=(said) {
                title { (said) }
                rect.track width="100%" height="16" rx="2" {}
                rect.value width={ (format!("{percent:.3}")) "%" } height="16" rx="2" {}
            }
            span.number { (text) }
        }
    }
}
