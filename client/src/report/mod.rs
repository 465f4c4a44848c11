//! A run as one page: what was verified, who could see what, what it cost, and how anybody checks it later.
//!
//! The page loads nothing and needs no script, and its own Content-Security-Policy says so. It holds no feature, no logit and
//! no label of any row, so that it can be passed on.
//!
//! ```text
//! chain    what was verified, from the root to the model
//! parties  who could see what
//! costs    bytes and times as bars
//! proof    the receipt, and how it is checked
//! model    what it takes and gives, and how good it was
//! ```

mod chain;
mod costs;
mod model;
mod parties;
mod proof;

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use cloister_attestation::{Channel, ManifestModel, Receipt, Sha384, StepReport, Timestamp};
use cloister_inference::Description;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::{
    Answer, AttestedConnection, Timing,
    words::{NO_CHANNEL, SIMULATED, foreign},
};

/// A run, as far as it may be told to others.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the first connection verified.
    pub verified: Verified,
    /// How long that took, from the first byte to the last step.
    pub connect: Duration,
    /// How often an enclave was verified: for each connection, and again on those kept for over 15 minutes.
    pub attestations: u64,
    /// The model that answered.
    pub model: ManifestModel,
    /// What it takes and gives.
    pub description: Description,
    /// Rows whose predictions there are.
    pub rows: u64,
    /// Those among them that an earlier run got.
    pub resumed: u64,
    /// Those whose label is certain in spite of the bound.
    pub certain: u64,
    /// Those whose label is the true one, if the true ones are known.
    pub right: Option<u64>,
    /// What this run asked for.
    pub exchanges: Exchanges,
    /// Names of the files that hold the evidence.
    pub evidence: Vec<String>,
    /// When the report was written.
    pub written: Timestamp,
}

/// An evaluator that satisfied the policy.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Whether it is no real hardware.
    pub simulated: bool,
    /// How the connection reaches it.
    pub channel: Channel,
    /// The enclave.
    pub module_id: String,
    /// The release of the policy that it runs.
    pub release: String,
    /// When its document was made.
    pub time: Timestamp,
    /// All twelve steps, and what was found in each.
    pub steps: Vec<StepReport>,
    /// The digest of the policy.
    pub policy: Sha384,
}

/// Requests and their answers, summed up.
#[derive(Clone, Debug, Default)]
pub struct Exchanges {
    /// How many, with a receipt for each.
    pub requests: u64,
    /// Bytes of the encrypted requests.
    pub sent: u64,
    /// Bytes of the public keys that went with them: with the first of each connection; without a channel, with each.
    pub public_keys: u64,
    /// Bytes of the encrypted replies.
    pub received: u64,
    /// Where the time went. Several may have been under way at once.
    pub timing: Timing,
    /// The first receipt.
    pub receipt: Option<Receipt>,
}

impl Exchanges {
    /// Counts an answer. Of its predictions nothing is kept.
    pub fn count(&mut self, Answer { predictions: _, bytes, public_key, receipt, timing }: &Answer) {
        self.requests += 1;
        self.sent += bytes.0 as u64;
        self.public_keys += *public_key as u64;
        self.received += bytes.1 as u64;
        self.timing += *timing;
        self.receipt.get_or_insert_with(|| receipt.clone());
    }
}

impl Verified {
    /// What this connection verified.
    pub fn of(connection: &AttestedConnection) -> Self {
        let enclave = connection.enclave();
        Self {
            simulated: enclave.simulated(),
            channel: enclave.channel(),
            module_id: enclave.module_id().to_owned(),
            release: enclave.release().to_owned(),
            time: enclave.timestamp(),
            steps: enclave.steps().to_vec(),
            policy: enclave.policy(),
        }
    }

    fn is_relayed(&self) -> bool {
        self.channel == Channel::None
    }
}

const STYLE: &str = include_str!("style.css");

impl Report {
    /// The whole page.
    pub fn to_html(&self) -> String {
        let title = format!("{}{}", if self.verified.simulated { "SIMULATED: " } else { "" }, self.outcome());
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta http-equiv="Content-Security-Policy" content=(content_security_policy());
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (title) }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    a.skip href="#verified" { "Skip to what was verified" }
                    (self.header())
                    main {
                        (self.verification())
                        (self.parties())
                        (self.travelled())
                        (self.times())
                        (self.proof())
                        (self.model())
                    }
                    (self.footer())
                }
            }
        };
        page.into_string()
    }

    /// In one sentence.
    fn outcome(&self) -> String {
        let (name, version) = (foreign(&self.model.name), foreign(&self.model.version));
        let were = if self.rows == 1 { "was" } else { "were" };
        format!("{} {were} answered by the model {name} {version} under encryption", counted(self.rows, "row"))
    }

    fn header(&self) -> Markup {
        let Verified { module_id, release, time, .. } = &self.verified;
        html! {
            header {
                p.brand { "Cloister" span { "Report of an encrypted inference" } }
                (self.simulated())
                (self.no_channel())
                h1 { (self.outcome()) "." }
                p.lead {
                    "The evaluator was verified before anything but a random number was sent to it. It got ciphertexts, and \
                     sent ciphertexts back. "
                    strong { "This page holds no feature, no logit and no label of any row, so you can pass it on." }
                }
                dl.facts {
                    div { dt { "Verified release" } dd { (foreign(release)) } }
                    div { dt { "Enclave" } dd { (identifier(module_id)) } }
                    div { dt { "Attested at" } dd { (instant(*time)) } }
                }
            }
        }
    }

    /// Nobody overlooks this.
    fn simulated(&self) -> Markup {
        html! { @if self.verified.simulated { (banner("simulated", SIMULATED)) } }
    }

    fn no_channel(&self) -> Markup {
        html! { @if self.verified.is_relayed() { (banner("relayed", NO_CHANNEL)) } }
    }

    fn footer(&self) -> Markup {
        html! {
            footer {
                dl.fields {
                    div { dt { "Written by" } dd { "cloister " (env!("CARGO_PKG_VERSION")) } }
                    div { dt { "Written at" } dd { (instant(self.written)) } }
                    div { dt { "Policy file" } dd { (identifier(self.verified.policy)) } }
                }
            }
        }
    }
}

/// Nothing is loaded, and no style but ours counts, whatever somebody got into the page.
fn content_security_policy() -> String {
    let style = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
    format!("default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'")
}

/// The words before the colon are what has to be seen.
fn banner(class: &str, text: &str) -> Markup {
    let (title, rest) = text.split_once(": ").unwrap_or((text, ""));
    html! { p.banner.(class) { strong { (title) ": " } (rest) } }
}

fn section(id: &str, title: &str, content: Markup) -> Markup {
    let heading = format!("{id}-title");
    html! { section id=(id) aria-labelledby=(heading) { h2 id=(heading) { (title) } (content) } }
}

/// Digests and the like: to be compared, and whole.
fn identifier(text: impl ToString) -> Markup {
    html! { code { (foreign(&text.to_string())) } }
}

fn instant(time: Timestamp) -> Markup {
    html! { time datetime=(time) { (time) } }
}

/// `1 row`, `1,500 rows`.
fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" })
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut groups: Vec<&str> = Vec::new();
    let mut rest = digits.as_str();
    while let Some((head, tail)) = rest.len().checked_sub(3).filter(|head| *head > 0).map(|head| rest.split_at(head)) {
        groups.push(tail);
        rest = head;
    }
    groups.push(rest);
    groups.reverse();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use cloister_attestation::Step;
    use cloister_inference::{FeatureRange, ImportOptions, import};

    use super::*;

    const ONNX: &[u8] = include_bytes!("../../../tests/data/iris/iris.onnx");

    /// A run over TLS that ended in an enclave of hardware.
    fn report() -> Report {
        let range = |name: &str| FeatureRange { name: name.to_owned(), low: 0.25, high: 8.5, step: None };
        let ranges = Some(["sepal", "<b>width</b>", "petal", "depth"].map(range).to_vec());
        let options = ImportOptions { ranges, ..ImportOptions::new("iris", "1") };
        let description = import(ONNX, &options).unwrap().bundle.description().clone();
        let step = |step: Step| StepReport { step, expected: format!("{step} wanted"), found: format!("{step} seen") };
        let receipt = Receipt {
            request: Sha384([0x11; 48]),
            response: Sha384([0x22; 48]),
            bundle: Sha384([0x33; 48]),
            parameters: description.parameters().name().to_owned(),
            module_id: "i-1-enc2".to_owned(),
            time: Timestamp::from_millis(1_800_000_001_000),
        };
        let timing = [1234, 20_000, 5_006, 789].map(Duration::from_micros);
        let [encrypt, exchange, receipt_time, decrypt] = timing;
        let timing = Timing { encrypt, exchange, receipt: receipt_time, decrypt };
        Report {
            verified: Verified {
                simulated: false,
                channel: Channel::TlsExporter([7; 32]),
                module_id: "i-1-enc2".to_owned(),
                release: "1.2.0".to_owned(),
                time: Timestamp::from_millis(1_800_000_000_000),
                steps: Step::ALL.map(step).to_vec(),
                policy: Sha384([0x44; 48]),
            },
            connect: Duration::from_millis(1_500),
            attestations: 2,
            model: ManifestModel {
                name: "iris".to_owned(),
                version: "1".to_owned(),
                bundle: Sha384([0x33; 48]),
                description: Sha384([0x55; 48]),
            },
            description,
            rows: 1_000_150,
            resumed: 150,
            certain: 999_999,
            right: Some(987_654),
            exchanges: Exchanges {
                requests: 321,
                sent: 65_432_100,
                public_keys: 32_850,
                received: 7_654_321,
                timing,
                receipt: Some(receipt),
            },
            evidence: vec!["e.cbor".to_owned(), "e.cbor.2".to_owned()],
            written: Timestamp::from_millis(1_800_000_002_000),
        }
    }

    #[test]
    fn what_is_told_is_what_was_given() {
        let page = report().to_html();
        for step in Step::ALL {
            let heading = format!("<span class=\"number\">{}</span>{}</h4>", step.number(), step.name());
            assert!(page.contains(&heading), "{heading}");
            assert!(page.contains(&format!("{step} wanted")) && page.contains(&format!("{step} seen")));
        }
        let digests = [0x11, 0x22, 0x33, 0x44, 0x55].map(|byte| Sha384([byte; 48]).to_string());
        for told in digests.iter().map(String::as_str).chain([
            "1,000,150 rows were answered by the model iris 1 under encryption.",
            "There were 2 attestations",
            "i-1-enc2",
            "1.2.0",
            "2027-01-15T08:00:00Z",
            "2027-01-15T08:00:01Z",
            "2027-01-15T08:00:02Z",
            "1,000,000 rows in 321 requests",
            "32,000,000 bytes",
            "65,432,100 bytes",
            "32,850 bytes",
            "7,654,321 bytes",
            ">0 bytes",
            "1,500.000 ms",
            ">1.234 ms",
            ">20.000 ms",
            ">5.006 ms",
            ">0.789 ms",
            "999,999 of 1,000,150 rows",
            "0.9875: 987,654 of 1,000,150 rows",
            "3 labels: setosa, versicolor, virginica",
            "cloister verify-receipt e.cbor --policy POLICY\ncloister verify-receipt e.cbor.2 --policy POLICY\n",
            // With the importer's margin.
            ">sepal</th><td class=\"number\">-0.575</td><td class=\"number\">9.325</td><td class=\"number\">any</td>",
        ]) {
            assert!(page.contains(told), "{told}");
        }
    }

    #[test]
    fn each_banner_is_there_exactly_when_it_is_due() {
        for (simulated, channel, banners) in [
            (false, Channel::TlsExporter([7; 32]), [0, 0]),
            (true, Channel::TlsExporter([7; 32]), [2, 0]),
            (false, Channel::None, [0, 1]),
            (true, Channel::None, [2, 1]),
        ] {
            let mut report = report();
            (report.verified.simulated, report.verified.channel) = (simulated, channel);
            let page = report.to_html();
            let counted = [SIMULATED, NO_CHANNEL].map(|text| {
                let (title, rest) = text.split_once(": ").unwrap();
                page.matches(&format!("<strong>{title}: </strong>{rest}")).count()
            });
            assert_eq!(counted, banners);
            assert_eq!(page.contains("<title>SIMULATED: "), simulated);
            assert_eq!(page.contains("of a simulated authority"), simulated);
            assert_eq!(page.contains("of AWS Nitro Enclaves"), !simulated);
            assert_eq!(page.contains(">Whoever ends TLS<"), channel == Channel::None);
        }
    }

    #[test]
    fn words_of_others_are_text_on_their_line_and_short() {
        let hostile = "<script>alert(1)</script>\u{202e}\n\"><img src=x>";
        let mut report = report();
        report.model.name = hostile.to_owned();
        report.model.version = "9".repeat(1000);
        report.verified.module_id = hostile.to_owned();
        report.verified.release = hostile.to_owned();
        report.verified.steps[0].found = hostile.to_owned();
        report.evidence = vec![hostile.to_owned()];
        report.exchanges.receipt.as_mut().unwrap().module_id = hostile.to_owned();
        let page = report.to_html();
        for absent in ["<script", "<img", "\u{202e}", "<b>", &"9".repeat(201)] {
            assert!(!page.contains(absent), "{absent:?}");
        }
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;\\u{202e}\\n&quot;&gt;&lt;img src=x&gt;"));
        assert!(page.contains("&lt;b&gt;width&lt;/b&gt;"));
    }

    #[test]
    fn the_page_loads_nothing() {
        let page = report().to_html();
        for absent in ["src=", "http:", "https:", "url(", "@import", "<script", "<link", " style=", "onload"] {
            assert!(!page.contains(absent), "{absent}");
        }
        let links: Vec<&str> = page.split("href=\"").skip(1).collect();
        assert!(!links.is_empty() && links.iter().all(|link| link.starts_with('#')));
        // The one style that counts is the one that is there, to the byte.
        let style = page.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
        let hash = STANDARD.encode(digest(&SHA256, style.as_bytes()));
        assert!(page.contains(&format!("content=\"default-src 'none'; style-src 'sha256-{hash}'; ")));
        assert!(page.find("Content-Security-Policy") < page.find("<style>"));
    }

    #[test]
    fn a_run_without_rows_has_a_page_too() {
        let nothing = Exchanges::default();
        let report =
            Report { rows: 0, resumed: 0, right: Some(0), exchanges: nothing, evidence: Vec::new(), ..report() };
        let page = report.to_html();
        assert!(page.contains("0 rows were answered") && page.contains("there is no receipt"));
        assert!(!page.contains("NaN") && !page.contains("Accuracy"));
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (12_345, "12,345"), (1_000_000, "1,000,000")] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!([counted(1, "row"), counted(2000, "row")], ["1 row", "2,000 rows"]);
    }
}
