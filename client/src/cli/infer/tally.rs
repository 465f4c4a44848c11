//! What is counted while predictions pass by.

use std::collections::HashSet;

use cloister_client::{Answer, Description, Exchanges};

use super::{Output, foreign};

/// Counters of a run.
#[derive(Debug)]
pub(super) struct Tally {
    /// Rows whose predictions are in the output.
    pub(super) rows: u64,
    /// Those among them that an earlier run put there.
    pub(super) resumed: u64,
    clipped: u64,
    pub(super) uncertain: u64,
    /// Those of this run.
    pub(super) exchanges: Exchanges,
    accuracy: Option<Accuracy>,
}

#[derive(Debug)]
struct Accuracy {
    labels: HashSet<String>,
    right: u64,
    /// The first true label that the model cannot give.
    unknown: Option<String>,
}

impl Tally {
    pub(super) fn new(description: &Description, with_labels: bool) -> Self {
        let labels = || description.labels().iter().map(ToString::to_string).collect();
        let accuracy = with_labels.then(|| Accuracy { labels: labels(), right: 0, unknown: None });
        let exchanges = Exchanges::default();
        Self { rows: 0, resumed: 0, clipped: 0, uncertain: 0, exchanges, accuracy }
    }

    /// Counts a row of the output.
    pub(super) fn row(&mut self, label: &str, certain: bool, moved: bool, truth: Option<&str>) {
        self.rows += 1;
        self.clipped += u64::from(moved);
        self.uncertain += u64::from(!certain);
        if let (Some(accuracy), Some(truth)) = (&mut self.accuracy, truth) {
            accuracy.right += u64::from(label == truth);
            if accuracy.unknown.is_none() && !accuracy.labels.contains(truth) {
                accuracy.unknown = Some(truth.to_owned());
            }
        }
    }

    pub(super) fn answer(&mut self, answer: &Answer) {
        self.exchanges.count(answer);
    }

    /// Rows whose label is the true one, if the true ones are known.
    pub(super) fn right(&self) -> Option<u64> {
        self.accuracy.as_ref().map(|accuracy| accuracy.right)
    }

    /// Says all of it.
    pub(super) fn tell(&self, description: &Description, output: &mut Output) {
        let Self { rows, resumed, clipped, uncertain, exchanges, accuracy } = self;
        let Exchanges { sent: up, received: down, .. } = exchanges;
        output.set("rows", *rows);
        output.set("bytes_up", *up);
        output.set("bytes_down", *down);
        output.set("bound", description.bound());
        output.set("clipped", *clipped);
        output.set("uncertain", *uncertain);
        output.note(format!("{rows} rows; {up} bytes up, {down} down, all of it encrypted"));
        if *resumed > 0 {
            output.set("resumed", *resumed);
            output.note(format!("rows that an earlier run had answered: {resumed}"));
        }
        let model = if description.is_quantised() { "model's on its bits" } else { "model's" };
        output.note(format!("every logit is within {:.3e} of the {model} for the values sent", description.bound()));
        if *clipped > 0 {
            output.note(format!("rows with values moved to the edge of their range, never certain: {clipped}"));
        }
        if uncertain > clipped {
            output.note(format!(
                "rows whose label is closer to another than the bound, not certain: {}",
                uncertain - clipped
            ));
        }
        if let Some(accuracy) = accuracy.as_ref().filter(|_| *rows > 0) {
            accuracy.tell(*rows, description, output);
        }
    }
}

impl Accuracy {
    /// The accuracy, and a word on labels that the model cannot give.
    fn tell(&self, rows: u64, description: &Description, output: &mut Output) {
        let accuracy = self.right as f64 / rows as f64;
        output.set("accuracy", accuracy);
        output.note(format!("accuracy {accuracy:.4} ({} of {rows})", self.right));
        if let Some(unknown) = &self.unknown {
            let named: Vec<String> = description.labels().iter().map(|label| foreign(&label.to_string())).collect();
            let (unknown, named) = (foreign(unknown), named.join(", "));
            output.note(format!("note: the model never says `{unknown}`; its labels are {named}"));
        }
    }
}
