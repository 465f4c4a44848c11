//! Who could see what.

use maud::{Markup, html};

use super::{Report, section};

/// What can be seen, in the order of the columns.
const COLUMNS: [&str; 5] = ["Features", "Logits", "Labels", "Model", "Sizes and times"];

/// Somebody who takes part, or could.
struct Party {
    name: &'static str,
    who: &'static str,
    sees: [Sight; COLUMNS.len()],
}

/// Whether somebody sees it, and how that is so.
#[derive(Clone, Copy)]
enum Sight {
    Yes(&'static str),
    Partly(&'static str),
    No(&'static str),
}

use Sight::{No, Partly, Yes};

const YOU: Party = Party {
    name: "You",
    who: "your client, on your machine",
    sees: [
        Yes("yours; encrypted before they leave"),
        Yes("decrypted by your client"),
        Yes("your client makes them of logits"),
        Partly("its public description, and what its logits tell"),
        Yes("all of them"),
    ],
};

const ENCLAVE: Party = Party {
    name: "The enclave",
    who: "with its operator and the model's owner",
    sees: [
        No("ciphertexts; the key never leaves your client"),
        No("computed without being read"),
        No("neither sent nor computed there"),
        Yes("the owner made it, the enclave evaluates it"),
        Yes("how many rows, and when"),
    ],
};

const AROUND: Party = Party {
    name: "Parent instance and network",
    who: "whoever runs the machine around the enclave, and whoever carries bytes",
    sees: [
        No("ciphertexts"),
        No("ciphertexts"),
        No("never sent"),
        Partly("the instance has the image, and in it the model; the network has neither"),
        Yes("of every message; the number of rows follows"),
    ],
};

const AWS: Party = Party {
    name: "AWS",
    who: "which made the hardware, vouches for it, and owns the network there",
    sees: [
        No("ciphertexts, even within the enclave"),
        No("ciphertexts, even within the enclave"),
        No("never sent"),
        Partly("it could, as the owner of the machines"),
        Yes("of every message; the number of rows follows"),
    ],
};

const NO_AWS: Party =
    Party { name: "AWS", who: "takes no part: the enclave is simulated", sees: [No("not involved"); COLUMNS.len()] };

const RELAY: Party = Party {
    name: "Whoever ends TLS",
    who: "a load balancer or gateway, and where messages are kept for it",
    sees: [
        No("ciphertexts"),
        No("ciphertexts"),
        No("never sent"),
        Partly("its public description"),
        Yes("of every message, and who sent it"),
    ],
};

impl Report {
    pub(super) fn parties(&self) -> Markup {
        let mut parties = vec![YOU, ENCLAVE, AROUND];
        if self.verified.is_relayed() {
            parties.push(RELAY);
        }
        parties.push(if self.verified.simulated { NO_AWS } else { AWS });
        let content = html! {
            p {
                "Two locks guard the run, and each covers the other's gap. Encryption hides features and logits from \
                 everybody else, even from broken hardware, and says nothing about which model answered. Attestation and \
                 receipts say which program and which model that was."
            }
            (table(&parties))
            @if self.verified.is_relayed() {
                p.note {
                    "Whoever ends TLS may also drop, delay and count messages, and choose which of the accepted enclaves \
                     answers. Answers without a receipt of the enclave that was verified are refused."
                }
            }
            p.note {
                "Whoever holds the predictions holds logits: keep them as you keep the features. Anybody on the way can \
                 refuse service"
                @if self.verified.simulated { ", and whoever has the simulated authority can answer in the enclave's place." }
                @else { ", and nobody can answer in the enclave's place." }
            }
        };
        section("parties", "Who could see what", content)
    }
}

/// Roles are said because a narrow page lays the table out as blocks, and would lose them.
fn table(parties: &[Party]) -> Markup {
    html! {
        table.parties role="table" {
            caption { "Who could see what of this run" }
            thead role="rowgroup" {
                tr role="row" {
                    th role="columnheader" scope="col" { "Who" }
                    @for column in COLUMNS { th role="columnheader" scope="col" { (column) } }
                }
            }
            tbody role="rowgroup" {
                @for Party { name, who, sees } in parties {
                    tr role="row" {
                        th role="rowheader" scope="row" { (name) small { (who) } }
                        @for (column, sight) in COLUMNS.iter().zip(sees) { (cell(column, *sight)) }
                    }
                }
            }
        }
    }
}

fn cell(column: &str, sight: Sight) -> Markup {
    let (class, verdict, how) = match sight {
        Yes(how) => ("yes", "Yes", how),
        Partly(how) => ("partly", "Partly", how),
        No(how) => ("no", "No", how),
    };
    html! {
        td role="cell" data-column=(column) { span.sight.(class) { (verdict) } small { (how) } }
    }
}
