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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::tests::sample;

    #[test]
    fn the_largest_logit_decides_and_a_near_one_makes_it_uncertain() {
        let description = sample(4, 3).description().clone();
        let bound = description.bound();
        let predict = |logits| Prediction::new(&description, logits);
        let prediction = predict(vec![-1.0, 2.0, 0.5]);
        assert_eq!((prediction.label, prediction.certain), (Label::Integer(1), true));
        assert!(predict(vec![2.1 * bound, 0.0, -1.0]).certain);
        assert!(!predict(vec![2.0 * bound, 0.0, -1.0]).certain);
        let tie = predict(vec![-1.0, 0.25, 0.25]);
        assert_eq!((tie.label, tie.certain), (Label::Integer(1), false));
    }

    #[test]
    fn probabilities_are_a_softmax_whatever_the_logits() {
        let description = sample(4, 3).description().clone();
        let probabilities = |logits| Prediction::new(&description, logits).probabilities;
        assert_eq!(probabilities(vec![1e6, 1e6, -1e6]), [0.5, 0.5, 0.0]);
        let some = probabilities(vec![0.0, 1.0, 2.0]);
        assert!((some.iter().sum::<f64>() - 1.0).abs() < 1e-15);
        assert!((some[1] / some[0] - 1f64.exp()).abs() < 1e-14);
    }
}
