//! Folding scaler, ranges and classifier into one affine map of [−1, 1]^d, with the errors that this brings.

use super::onnx::{Classifier, Scaler};
use crate::bound::{StatedErrors, power_of_two};
use crate::description::Feature;

/// logit_c = β_c + Σ_j V_cj·u_j with u_j = (x_j − c_j)/h_j: what is left to quantise.
#[derive(Clone, Debug)]
pub(super) struct FoldedModel {
    /// V_cj = W_cj·h_j, one row per class.
    pub(super) weights: Vec<Vec<f64>>,
    /// β_c = b_c + Σ_j W_cj·(c_j − μ_j).
    pub(super) biases: Vec<f64>,
    pub(super) errors: StatedErrors,
}

impl FoldedModel {
    pub(super) fn new(classifier: &Classifier, features: &[Feature]) -> Self {
        let classes = 0..classifier.labels.len();
        let columns: Vec<Column> =
            features.iter().enumerate().map(|(j, feature)| Column::new(classifier, j, feature)).collect();
        let weights = classes.clone().map(|class| columns.iter().map(|column| column.weights[class]).collect());
        let bias =
            |class: usize| columns.iter().fold(classifier.intercepts[class], |sum, column| sum + column.biases[class]);
        Self {
            weights: weights.collect(),
            biases: classes.clone().map(bias).collect(),
            errors: StatedErrors {
                export: largest(classes.clone().map(|class| export_error(classifier, &columns, class))),
                arithmetic: largest(classes.map(|class| arithmetic_error(classifier, &columns, class))),
            },
        }
    }
}

fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, f64::max)
}

/// One feature's share in each class.
struct Column {
    /// V_c = w_c·s·h.
    weights: Vec<f64>,
    /// w_c·s·(c − μ), its share of β_c.
    biases: Vec<f64>,
    /// |w_c·s|·D, the most that it adds to a logit, with D = max |x − μ| over its range.
    reach: Vec<f64>,
    /// The most that a change of w_c, s and μ by one ulp each moves that.
    export: Vec<f64>,
}

impl Column {
    fn new(classifier: &Classifier, index: usize, feature: &Feature) -> Self {
        let (mu, s, dmu, ds) = match &classifier.scaler {
            Some(Scaler { offset, scale }) => (offset[index], scale[index], ulp32(offset[index]), ulp32(scale[index])),
            None => (0.0, 1.0, 0.0, 0.0),
        };
        let distance = (feature.low - mu).abs().max((feature.high - mu).abs());
        let slope: Vec<f64> = classifier.coefficients.iter().map(|row| row[index] * s).collect();
        let each = |value: &dyn Fn(f64) -> f64| slope.iter().map(|&slope| value(slope)).collect();
        Self {
            weights: each(&|slope| slope * feature.half_width()),
            biases: each(&|slope| slope * (feature.centre() - mu)),
            reach: each(&|slope| slope.abs() * distance),
            export: classifier
                .coefficients
                .iter()
                .map(|row| export_of_term(row[index], (s, ds), distance, dmu))
                .collect(),
        }
    }
}

/// One float32 ulp of `value`, at least: 2^−23 of it, or the least step near zero.
fn ulp32(value: f64) -> f64 {
    value.abs() * power_of_two(-23) + power_of_two(-149)
}

/// The most that w·s·(x − μ) moves for |x − μ| ≤ D when w moves by δw, s by δs and μ by δμ:
/// (|w| + δw)(|s| + δs)(D + δμ) − |w||s|D, multiplied out so that nothing cancels.
fn export_of_term(w: f64, (s, ds): (f64, f64), distance: f64, dmu: f64) -> f64 {
    let (w, s, dw) = (w.abs(), s.abs(), ulp32(w));
    (dw * s + w * ds + dw * ds) * distance + (w + dw) * (s + ds) * dmu
}

fn export_error(classifier: &Classifier, columns: &[Column], class: usize) -> f64 {
    ulp32(classifier.intercepts[class]) + columns.iter().map(|column| column.export[class]).sum::<f64>()
}

/// (2d + 20)·2^−53·T with T = |b| + Σ_j |w_j·s_j|·D_j, which none of the sums below exceeds in absolute terms.
///
/// The roundings of float64, in units of 2^−53·T: 2 in V, d + 4 in β, 2 in the client's (x − c)/h, 1 in a published
/// decimal, and d + 3 in scikit-learn's own (x − μ)/σ, products and sum. That is 2d + 12; the rest is for terms of
/// higher order, for parameters that are off by the export, and for this formula's own roundings.
fn arithmetic_error(classifier: &Classifier, columns: &[Column], class: usize) -> f64 {
    let reach = classifier.intercepts[class].abs() + columns.iter().map(|column| column.reach[class]).sum::<f64>();
    (2.0 * columns.len() as f64 + 20.0) * power_of_two(-53) * reach
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::description::Label;
    use crate::description::tests::feature;

    fn classifier() -> Classifier {
        Classifier {
            scaler: Some(Scaler { offset: vec![10.0, -2.0], scale: vec![0.5, 4.0] }),
            coefficients: vec![vec![1.5, -0.25], vec![-3.0, 0.125]],
            intercepts: vec![0.75, -1.0],
            labels: vec![Label::Integer(0), Label::Integer(1)],
        }
    }

    #[test]
    fn folding_keeps_the_logits() {
        let (classifier, features) = (classifier(), [feature("a", 0.0, 16.0), feature("b", -4.0, 4.0)]);
        let folded = FoldedModel::new(&classifier, &features);
        for (a, b) in [(0.0, -4.0), (16.0, 4.0), (3.5, 1.25)] {
            for class in 0..2 {
                let [w0, w1] = classifier.coefficients[class][..] else { unreachable!() };
                let expected = classifier.intercepts[class] + w0 * 0.5 * (a - 10.0) + w1 * 4.0 * (b + 2.0);
                let [v0, v1] = folded.weights[class][..] else { unreachable!() };
                assert_eq!(
                    folded.biases[class] + v0 * (a - 8.0) / 8.0 + v1 * b / 4.0,
                    expected,
                    "exact in these numbers"
                );
            }
        }
    }

    /// Any change of the parameters by one float32 ulp stays within the export term.
    #[test]
    fn the_export_term_covers_changes_of_one_ulp() {
        let features = [feature("a", 0.0, 16.0), feature("b", -4.0, 4.0)];
        let bound = FoldedModel::new(&classifier(), &features).errors.export;
        let logit = |c: &Classifier, class: usize, x: [f64; 2]| {
            let scaler = c.scaler.as_ref().unwrap();
            let term = |j: usize| c.coefficients[class][j] * scaler.scale[j] * (x[j] - scaler.offset[j]);
            c.intercepts[class] + term(0) + term(1)
        };
        let mut worst = 0.0_f64;
        for signs in 0..1 << 14_u32 {
            let nudge = |value: &mut f64, bit: u32| {
                *value += if signs >> bit & 1 == 1 { 1.0 } else { -1.0 } * ulp32(*value);
            };
            let mut moved = classifier();
            let scaler = moved.scaler.as_mut().unwrap();
            (0..2).for_each(|j| nudge(&mut scaler.offset[j], j as u32));
            (0..2).for_each(|j| nudge(&mut scaler.scale[j], 2 + j as u32));
            (0..2).for_each(|c| nudge(&mut moved.intercepts[c], 4 + c as u32));
            (0..4).for_each(|i| nudge(&mut moved.coefficients[i / 2][i % 2], 6 + i as u32));
            let x = [[0.0, -4.0], [16.0, 4.0], [0.0, 4.0], [16.0, -4.0]][(signs >> 10 & 3) as usize];
            for class in 0..2 {
                worst = worst.max((logit(&moved, class, x) - logit(&classifier(), class, x)).abs());
            }
        }
        assert!(worst <= bound && worst > 0.9 * bound, "{worst:e} of {bound:e}");
    }
}
