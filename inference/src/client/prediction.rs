//! What a client makes of published logits.

use crate::description::{Description, Label, Link};

/// The answer to one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// The predicted class: that of the largest published logit; with one logit for two labels the second label if the
    /// logit is positive, or more than half if it is a probability. A regression has none.
    pub label: Option<Label>,
    /// Whether the label is for sure that of the model which the [bound](Description::bound) is of: no change of the logits
    /// by it makes the label another. Always so for a regression.
    pub certain: bool,
    /// The published logits, in the order of [`Description::logit_names`].
    pub logits: Vec<f64>,
    /// What the link makes of them: one probability per label, or the values of a regression. A classifier without
    /// probabilities has its logits here again.
    pub outputs: Vec<f64>,
}

impl Prediction {
    /// # Panics
    ///
    /// If there are not as many logits as the description says.
    pub fn new(description: &Description, logits: Vec<f64>) -> Self {
        assert_eq!(logits.len(), description.logits(), "as many logits as the description says");
        let (label, margin) = match (description.labels(), &logits[..]) {
            ([], _) => (None, f64::INFINITY),
            ([no, yes], &[logit]) => {
                let cut = if description.link() == Link::Probability { 0.5 } else { 0.0 };
                (Some(if logit > cut { yes } else { no }), (logit - cut).abs())
            }
            (labels, _) => {
                let (first, margin) = lead(&logits);
                (Some(&labels[first]), 0.5 * margin)
            }
        };
        Self {
            label: label.cloned(),
            certain: margin > description.bound(),
            outputs: apply(description.link(), &logits),
            logits,
        }
    }

    /// The label as text; empty for a regression.
    pub fn label_text(&self) -> String {
        self.label.as_ref().map(ToString::to_string).unwrap_or_default()
    }
}

/// The first of the largest logits, as an argmax has it, and by how much it leads.
fn lead(logits: &[f64]) -> (usize, f64) {
    let first = (1..logits.len()).fold(0, |first, c| if logits[c] > logits[first] { c } else { first });
    let others = logits.iter().enumerate().filter(|&(c, _)| c != first);
    let second = others.map(|(_, &logit)| logit).fold(f64::NEG_INFINITY, f64::max);
    (first, logits[first] - second)
}

fn apply(link: Link, logits: &[f64]) -> Vec<f64> {
    match link {
        Link::Identity => logits.to_vec(),
        Link::Softmax => softmax(logits),
        Link::Sigmoid => vec![sigmoid(-logits[0]), sigmoid(logits[0])],
        Link::OneVsRest => normalised(logits.iter().copied().map(sigmoid)),
        Link::Probability => {
            // The noise of a logit may lead out of what a probability is.
            let probabilities = logits.iter().map(|logit| logit.clamp(0.0, 1.0));
            match logits.len() {
                1 => probabilities.flat_map(|second| [1.0 - second, second]).collect(),
                _ => probabilities.collect(),
            }
        }
        Link::Exp => logits.iter().map(|logit| logit.exp()).collect(),
    }
}

/// exp(l_c − max) / Σ_i exp(l_i − max), which no logit makes overflow.
fn softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    normalised(logits.iter().map(|logit| (logit - max).exp()))
}

/// 1/(1 + exp(−l)).
fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

/// Each share of the sum; equal shares of nothing, as scikit-learn has it.
fn normalised(values: impl Iterator<Item = f64> + Clone) -> Vec<f64> {
    let (sum, count) = (values.clone().sum::<f64>(), values.clone().count());
    match sum {
        0.0 => vec![1.0 / count as f64; count],
        sum => values.map(|value| value / sum).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::tests::{described, sample};

    #[test]
    fn the_largest_logit_decides_and_a_near_one_makes_it_uncertain() {
        let description = sample(4, 3).description().clone();
        let bound = description.bound();
        let predict = |logits| Prediction::new(&description, logits);
        let prediction = predict(vec![-1.0, 2.0, 0.5]);
        assert_eq!((prediction.label, prediction.certain), (Some(Label::Integer(1)), true));
        assert!(predict(vec![2.1 * bound, 0.0, -1.0]).certain);
        assert!(!predict(vec![2.0 * bound, 0.0, -1.0]).certain);
        let tie = predict(vec![-1.0, 0.25, 0.25]);
        assert_eq!((tie.label, tie.certain), (Some(Label::Integer(1)), false));
    }

    #[test]
    fn one_logit_tells_two_labels_apart_by_its_sign() {
        let labels = vec![Label::Text("no".into()), Label::Text("yes".into())];
        let description = described(1, labels, Link::Sigmoid);
        let predict = |logit| Prediction::new(&description, vec![logit]);
        let (yes, no) = (predict(0.5), predict(-2.0));
        assert_eq!((yes.label_text().as_str(), no.label_text().as_str()), ("yes", "no"));
        assert!((yes.outputs[1] - 1.0 / (1.0 + (-0.5f64).exp())).abs() < 1e-15);
        assert!((no.outputs.iter().sum::<f64>() - 1.0).abs() < 1e-15);
        assert_eq!((predict(0.0).label_text().as_str(), predict(0.0).certain), ("no", false));
        assert!(!predict(description.bound()).certain && predict(1.1 * description.bound()).certain);
    }

    #[test]
    fn one_probability_tells_two_labels_apart_at_one_half() {
        let description = described(1, vec![Label::Boolean(false), Label::Boolean(true)], Link::Probability);
        let predict = |logit| Prediction::new(&description, vec![logit]);
        let (yes, no, half) = (predict(0.75), predict(0.25), predict(0.5));
        assert_eq!((yes.label_text().as_str(), no.label_text().as_str()), ("True", "False"));
        assert_eq!((yes.outputs, no.outputs), (vec![0.25, 0.75], vec![0.75, 0.25]));
        assert_eq!((half.label_text().as_str(), half.certain), ("False", false));
        assert_eq!((predict(-1e-4).outputs, predict(1.0 + 1e-4).outputs), (vec![1.0, 0.0], vec![0.0, 1.0]));
        let bound = description.bound();
        assert!(!predict(0.5 + 0.9 * bound).certain && predict(0.5 + 1.1 * bound).certain);
        let three = described(3, (0..3).map(Label::Integer).collect(), Link::Probability);
        let prediction = Prediction::new(&three, vec![0.25, 0.5, 0.25]);
        assert_eq!((prediction.label, prediction.outputs), (Some(Label::Integer(1)), vec![0.25, 0.5, 0.25]));
    }

    #[test]
    fn a_regression_has_values_and_no_label() {
        let description = described(2, vec![], Link::Exp);
        let prediction = Prediction::new(&description, vec![0.0, 1.0]);
        assert_eq!((prediction.label, prediction.certain), (None, true));
        assert_eq!(prediction.outputs, [1.0, 1f64.exp()]);
    }

    #[test]
    fn probabilities_sum_up_to_one_whatever_the_logits() {
        assert_eq!(softmax(&[1e6, 1e6, -1e6]), [0.5, 0.5, 0.0]);
        let some = softmax(&[0.0, 1.0, 2.0]);
        assert!((some.iter().sum::<f64>() - 1.0).abs() < 1e-15);
        assert!((some[1] / some[0] - 1f64.exp()).abs() < 1e-14);
        assert_eq!(apply(Link::OneVsRest, &[0.0, 0.0]), [0.5, 0.5]);
        assert_eq!(apply(Link::OneVsRest, &[-1e6, -1e6, -1e6, -1e6]), [0.25; 4]);
    }
}
