//! The receipt, and how anybody checks it.

use cloister_attestation::Receipt;
use maud::{Markup, html};

use super::{Report, counted, grouped, identifier, instant, section};
use crate::words::foreign;

impl Report {
    pub(super) fn proof(&self) -> Markup {
        let content = match &self.exchanges.receipt {
            None => html! { p { "There was no row to ask for, so there is no receipt." } },
            Some(receipt) => html! {
                p {
                    "The enclave signs a receipt for each answer, and your client checks it before it decrypts anything. "
                    @match self.exchanges.requests {
                        1 => "Here was one.",
                        requests => { "Here were " (grouped(requests)) "; this is the first." }
                    }
                }
                (fields(receipt))
                (self.how_to_check())
                p.note {
                    "A receipt does not prove that the data was true, who asked, or that no other answer was given: the \
                     digests are of ciphertexts, which only you can tie to values."
                }
            },
        };
        section("receipt", "The receipt", content)
    }

    fn how_to_check(&self) -> Markup {
        let count = counted(self.exchanges.requests, "receipt");
        html! {
            h3 { "How anybody checks it, offline" }
            @if self.evidence.is_empty() {
                p {
                    "No evidence was kept of this run. With " code { "--evidence FILE" } ", " code { "cloister infer" }
                    " writes all that a third party needs, and then:"
                }
                pre { code { (command("FILE")) } }
            } @else {
                p {
                    "Whoever has the evidence, and a policy of their own choice, checks " (count)
                    " with neither you nor a network:"
                }
                pre { code { @for file in &self.evidence { (command(&foreign(file))) "\n" } } }
            }
        }
    }
}

fn command(evidence: &str) -> String {
    format!("cloister verify-receipt {evidence} --policy POLICY")
}

fn fields(Receipt { request, response, bundle, parameters, module_id, time }: &Receipt) -> Markup {
    html! {
        dl.fields {
            div { dt { "Signed at" } dd { (instant(*time)) } }
            div { dt { "By the enclave" } dd { (identifier(module_id)) } }
            div { dt { "For the request" } dd { (identifier(request)) } }
            div { dt { "And the response" } dd { (identifier(response)) } }
            div { dt { "By the bundle" } dd { (identifier(bundle)) } }
            div { dt { "Encrypted with" } dd { (identifier(parameters)) } }
        }
    }
}
