//! What the model takes and gives, and how good it was.

use cloister_inference::Feature;
use maud::{Markup, html};

use super::{Report, counted, grouped, section};
use crate::words::{foreign, short};

/// Rows of a table that a person reads without being asked.
const FEW: usize = 12;
/// More than anybody reads.
const MOST: usize = 1000;

impl Report {
    pub(super) fn model(&self) -> Markup {
        let content = html! {
            dl.fields {
                div { dt { "Gives" } dd { (self.gives()) } }
                div {
                    dt { "Proven bound" }
                    dd {
                        "every logit is within " (format!("{:.3e}", self.description.bound()))
                        " of the model's own"
                        @if self.description.is_quantised() { ", as it is on the bits of its features" }
                        ", for the values that were sent"
                    }
                }
                @if !self.description.labels().is_empty() {
                    div {
                        dt { "Certain labels" }
                        dd { (grouped(self.certain)) " of " (counted(self.rows, "row")) ", in spite of the bound" }
                    }
                }
                @if let Some(right) = self.right.filter(|_| self.rows > 0) {
                    div {
                        dt { "Accuracy" }
                        dd {
                            (format!("{:.4}", right as f64 / self.rows as f64)) ": " (grouped(right)) " of "
                            (counted(self.rows, "row"))
                        }
                    }
                }
                div { dt { "Budget" } dd { (self.budget()) } }
            }
            (features(self.description.features()))
        };
        section("model", "The model", content)
    }

    fn gives(&self) -> String {
        let labels = self.description.labels();
        if labels.is_empty() {
            return format!("a regression of {}", counted(self.description.logits() as u64, "value"));
        }
        let named: Vec<String> = labels.iter().take(MOST).map(|label| foreign(&label.to_string())).collect();
        format!("one of {}: {}{}", counted(labels.len() as u64, "label"), named.join(", "), more(labels.len()))
    }

    fn budget(&self) -> String {
        let rows = grouped(self.description.features().len() as u64 + 1);
        match self.description.budget() {
            Some(logits) => format!("{} from boot to end of the enclave, over all clients", counted(logits, "logit")),
            None => format!("none; the logits of {rows} rows are enough to solve for a linear model's weights"),
        }
    }
}

fn features(features: &[Feature]) -> Markup {
    let table = html! {
        table.features {
            caption { "Features and their ranges; rows outside them are refused or moved to the edge" }
            thead {
                tr {
                    th scope="col" { "Feature" }
                    th.number scope="col" { "From" }
                    th.number scope="col" { "To" }
                    th.number scope="col" { "In steps of" }
                }
            }
            tbody {
                @for Feature { name, low, high, step } in features.iter().take(MOST) {
                    tr {
                        th scope="row" { (foreign(name)) }
                        td.number { (short(*low)) }
                        td.number { (short(*high)) }
                        td.number { @match step { Some(step) => (short(*step)), None => "any" } }
                    }
                }
            }
        }
        @if features.len() > MOST { p.note { "The table ends here" (more(features.len())) "." } }
    };
    match features.len() {
        ..=FEW => table,
        count => html! { details { summary { (counted(count as u64, "feature")) " and their ranges" } (table) } },
    }
}

/// What is left out of so many.
fn more(count: usize) -> String {
    match count.checked_sub(MOST) {
        None | Some(0) => String::new(),
        Some(more) => format!(" and {} more", grouped(more as u64)),
    }
}
