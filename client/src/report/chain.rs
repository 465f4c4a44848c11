//! What was verified: a chain from the root to the model, on which hang the steps of VERIFICATION.md.

use cloister_attestation::{Step, StepReport};
use maud::{Markup, html};

use super::{Report, Verified, identifier, section};
use crate::words::{foreign, safe};

/// A link of the chain. Each rests on those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Root,
    Certificates,
    Document,
    Session,
    Release,
}

impl Link {
    const ALL: [Self; 5] = [Self::Root, Self::Certificates, Self::Document, Self::Session, Self::Release];

    /// The link to which a step belongs.
    fn of(step: Step) -> Self {
        match step {
            Step::Certificates => Self::Root,
            Step::Chain => Self::Certificates,
            Step::Size | Step::Cose | Step::Payload | Step::Signature | Step::Time | Step::Debug => Self::Document,
            Step::Nonce | Step::PublicKey | Step::Statement => Self::Session,
            Step::Policy => Self::Release,
        }
    }

    fn title(self, verified: &Verified) -> &'static str {
        match self {
            Self::Root if verified.simulated => "The root certificate, of a simulated authority",
            Self::Root => "The root certificate, of AWS Nitro Enclaves",
            Self::Certificates => "The certificates below it",
            Self::Document => "The attestation document",
            Self::Session if verified.is_relayed() => "This exchange",
            Self::Session => "This session",
            Self::Release => "The release",
        }
    }

    fn role(self, verified: &Verified) -> &'static str {
        match self {
            Self::Root if verified.simulated => {
                "Trust begins where your policy says. It names an authority that was made for simulation, so what follows shows \
                 how verification works, and nothing about hardware."
            }
            Self::Root => {
                "Trust begins where your policy says: with the certificate of the authority that vouches for hardware."
            }
            Self::Certificates => "It vouches for others, and the last of these for the one enclave that answered.",
            Self::Document => "That enclave signed a document about itself: what it runs, and what it commits to.",
            Self::Session if verified.is_relayed() => {
                "The document answers this very client, and names the key that signs receipts."
            }
            Self::Session => "The document is about this very connection and no other.",
            Self::Release => "What it runs is what your policy accepts.",
        }
    }
}

/// Why a step matters.
fn reason(step: Step, relayed: bool) -> &'static str {
    match step {
        Step::Size => "Whoever answers may send anything. What is larger than any genuine document is not even read.",
        Step::Cose => "The signed envelope has one form and one algorithm, so that it cannot be read in two ways.",
        Step::Payload => "Every statement is there once, and there is no other, so that nothing can be slipped in.",
        Step::Certificates => {
            "The document names those who vouch for it. The first has to be the root that your policy names, and the last has \
             to be for this very enclave."
        }
        Step::Chain => {
            "Each certificate was signed by the one above it, up to the root. Nobody else can begin such a chain."
        }
        Step::Signature => "The key in the last certificate signed the document. Not a bit of it was changed since.",
        Step::Time => "The document was made just now. One that somebody kept from another day is refused.",
        Step::Debug => {
            "The console of an enclave in debug mode can be read from outside. This one is not in debug mode."
        }
        Step::Nonce => {
            "Your client drew a random number and the document repeats it, so it was made for you and is no copy."
        }
        Step::PublicKey if relayed => {
            "TLS ends before the enclave, so there is no key to compare. What ties answers to this enclave is their receipts."
        }
        Step::PublicKey => {
            "The key that answered the TLS handshake is the enclave's own. Nobody sits in between with another."
        }
        Step::Statement if relayed => {
            "The document commits to the key that signs receipts and to the list of models. Neither can be exchanged."
        }
        Step::Statement => {
            "The document commits to this TLS session, to the key that signs receipts and to the list of models. None of them \
             can be exchanged."
        }
        Step::Policy => {
            "What was measured when the enclave booted is a release that your policy accepts, and that is not revoked."
        }
    }
}

impl Report {
    pub(super) fn verification(&self) -> Markup {
        let content = html! {
            p {
                "Each link rests on those before it. The numbers are those of the steps in "
                em { "attestation/VERIFICATION.md" }
                ", in the order in which they were taken. Had one failed, nothing but a random number would have been \
                 sent."
                @if self.attestations > 1 {
                    " There were " (self.attestations) " attestations, one for each connection and further ones for those kept \
                     over 15 minutes. Each took all twelve steps; the first is shown."
                }
            }
            (self.simulated())
            ol.chain {
                @for link in Link::ALL { (self.link(link)) }
                (self.model_link())
            }
        };
        section("verified", "What was verified, before anything was sent", content)
    }

    fn link(&self, link: Link) -> Markup {
        let verified = &self.verified;
        let steps = verified.steps.iter().filter(|report| Link::of(report.step) == link);
        let doubtful = verified.simulated && link == Link::Root;
        html! {
            li.doubtful[doubtful] {
                h3 { (link.title(verified)) }
                p { (link.role(verified)) }
                @for step in steps { (passed(step, verified.is_relayed())) }
            }
        }
    }

    /// The end of the chain has no number: it is taken for each model, after the steps for the enclave.
    fn model_link(&self) -> Markup {
        let (name, version) = (foreign(&self.model.name), foreign(&self.model.version));
        html! {
            li {
                h3 { "The model" }
                p { "The document vouches for a list of models, and your policy for this one." }
                div.step {
                    h4 { span.number { "✓" } "model" }
                    p {
                        "The list has " (name) " with the digest that your policy has. Columns, ranges and labels come from a \
                         description with the digest in that list, so that nobody can exchange them."
                    }
                    dl {
                        div { dt { "model" } dd { (name) " " (version) } }
                        div { dt { "bundle" } dd { (identifier(self.model.bundle)) } }
                        div { dt { "description" } dd { (identifier(self.model.description)) } }
                    }
                }
            }
        }
    }
}

fn passed(StepReport { step, expected, found }: &StepReport, relayed: bool) -> Markup {
    html! {
        div.step {
            h4 { span.number { (step.number()) } (step.name()) }
            p { (reason(*step, relayed)) }
            dl {
                div { dt { "expected" } dd { (safe(expected)) } }
                div { dt { "found" } dd { (safe(found)) } }
            }
        }
    }
}
