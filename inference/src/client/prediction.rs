//! What a client makes of published logits.

use crate::description::{Description, Label, Link};

/// The answer to one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// The class of the largest published logit.
    pub label: Label,
    /// Whether that class is the original model's for sure: its logit leads by more than twice the bound.
    pub certain: bool,
    /// The published logits, in the order of the description's labels.
    pub logits: Vec<f64>,
    /// Their softmax, in the same order.
    pub probabilities: Vec<f64>,
}

impl Prediction {
    /// # Panics
    ///
    /// If there is not one logit per label.
    pub fn new(description: &Description, logits: Vec<f64>) -> Self {
        assert_eq!(logits.len(), description.labels().len(), "one logit per label");
        let mut order: Vec<usize> = (0..logits.len()).collect();
        // Stable: of equal logits the first one wins, as in an argmax.
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        Self {
            label: description.labels()[order[0]].clone(),
            certain: logits[order[0]] - logits[order[1]] > 2.0 * description.bound(),
            probabilities: match description.link() {
                Link::Softmax => softmax(&logits),
            },
            logits,
        }
    }
}

/// exp(l_c − max) / Σ_i exp(l_i − max), which no logit makes overflow.
fn softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|logit| (logit - max).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}
