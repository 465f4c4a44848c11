//! Choosing the scales: the most precise that fit into 64 bits, and the smallest reply that keeps the promise.

use super::ImportError;
use super::fold::FoldedModel;
use crate::bits::MAX_BITS;
use crate::bound::{ErrorLedger, IntegerModel, LOGIT_ROOM, MAX_DECIMALS, Scale, power_of_ten, power_of_two};
use crate::description::{LOGIT_BITS, MAX_FEATURE_BITS, WEIGHT_BITS};
use crate::parameters::ParameterSet;

/// A quantised model and how precise it is.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) model: IntegerModel,
    pub(super) scale: Scale,
    pub(super) decimals: u32,
}

impl Plan {
    /// The plan of the smallest reply for which published logits are within `precision`.
    pub(super) fn new(folded: &FoldedModel, parameters: ParameterSet, precision: f64) -> Result<Self, ImportError> {
        let is_number = precision.is_finite() && precision > 0.0;
        let refused =
            || ImportError::Precision { asked: precision, reachable: reachable(folded, parameters, precision) };
        match is_number {
            true => Self::find(folded, parameters, precision).ok_or_else(refused),
            false => Err(ImportError::NoPrecision { precision }),
        }
    }

    fn find(folded: &FoldedModel, parameters: ParameterSet, precision: f64) -> Option<Self> {
        let decimals = decimals(precision)?;
        let error =
            |model: &IntegerModel, scale| ErrorLedger::new(model, scale, parameters, decimals, folded.errors).total();
        let finest = |weight_bits| quantise(folded, weight_bits, precision);
        let by_error = |(model, scale)| (error(&model, scale), model, scale);
        let (_, model, scale) =
            WEIGHT_BITS.filter_map(finest).map(by_error).min_by(|(one, ..), (other, ..)| one.total_cmp(other))?;
        let scale =
            (1..=MAX_BITS).map(|reply| Scale { reply, ..scale }).find(|&scale| error(&model, scale) <= precision)?;
        Some(Self { model, scale, decimals })
    }
}

/// The least k with 10^−k ≤ `precision`: publishing k decimals costs no more than half of it.
fn decimals(precision: f64) -> Option<u32> {
    (0..=MAX_DECIMALS).find(|&k| 1.0 / power_of_ten(k) as f64 <= precision)
}

/// The integers at dw = 2^−w, and the largest M for which they fit: P + `precision`·M/dw < 2^63.
///
/// A model within its promise has no more noise and rounding than `precision`, so this leaves room for all of them.
fn quantise(folded: &FoldedModel, weight_bits: i32, precision: f64) -> Option<(IntegerModel, Scale)> {
    let weights: Vec<Vec<i64>> =
        folded.weights.iter().map(|row| round_all(row, power_of_two(weight_bits))).collect::<Option<_>>()?;
    let mut model = IntegerModel { weights, biases: vec![] };
    for features in (1..=MAX_FEATURE_BITS).rev() {
        let scale = Scale { features, weights: weight_bits, reply: MAX_BITS };
        if !LOGIT_BITS.contains(&scale.logit_bits()) {
            continue;
        }
        let per_logit = power_of_two(scale.logit_bits());
        let Some(biases) = round_all(&folded.biases, per_logit) else { continue };
        model.biases = biases;
        let room = LOGIT_ROOM.saturating_sub(model.largest_logit(scale)) as f64;
        if precision * per_logit < room * ROUNDED_DOWN {
            return Some((model, scale));
        }
    }
    None
}

/// Makes up for rounding an integer to float64.
const ROUNDED_DOWN: f64 = 1.0 - f64::EPSILON;

/// round(value·factor) of each, if all fit.
fn round_all(values: &[f64], factor: f64) -> Option<Vec<i64>> {
    let round = |value: &f64| {
        let scaled = (value * factor).round_ties_even();
        (scaled.abs() < power_of_two(63)).then_some(scaled as i64)
    };
    values.iter().map(round).collect()
}

/// The next precision of 1, 2, 5, 10, … × 10^−15 that the model reaches.
fn reachable(folded: &FoldedModel, parameters: ParameterSet, asked: f64) -> Option<f64> {
    let steps = (-6..=MAX_DECIMALS as i32).rev().flat_map(|k| [1.0, 2.0, 5.0].map(|digit| digit / 10_f64.powi(k)));
    steps.filter(|&precision| precision > asked).find(|&precision| Plan::find(folded, parameters, precision).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bound::StatedErrors;
    use crate::bundle::tests::uniform;

    const SET: ParameterSet = ParameterSet::N2048TUniform17;

    /// Weights that look random in ±2·`size` and biases in ±`size`, of a model of that shape.
    fn folded(features: usize, classes: usize, size: f64) -> FoldedModel {
        let number = |word: u64| word as i64 as f64 / i64::MAX as f64 * size;
        let weights: Vec<f64> = uniform(features * classes, 6).into_iter().map(|word| 2.0 * number(word)).collect();
        FoldedModel {
            weights: weights.chunks(features).map(<[f64]>::to_vec).collect(),
            biases: uniform(classes, 7).into_iter().map(number).collect(),
            errors: StatedErrors { export: 1e-7 * size, arithmetic: 1e-13 * size },
        }
    }

    fn total(plan: &Plan, folded: &FoldedModel) -> f64 {
        ErrorLedger::new(&plan.model, plan.scale, SET, plan.decimals, folded.errors).total()
    }

    #[test]
    fn a_plan_keeps_its_promise_in_the_smallest_reply() {
        for (features, classes, size, precision) in [
            (4, 3, 1.0, 1e-3),
            (30, 2, 1.0, 1e-3),
            (64, 10, 0.3, 1e-2),
            (1, 2, 1e-9, 1e-6),
            (10, 5, 1e6, 1e4),
            (1024, 2, 0.1, 0.1),
        ] {
            let folded = folded(features, classes, size);
            let plan = Plan::new(&folded, SET, precision).unwrap();
            assert!(total(&plan, &folded) <= precision, "{features}×{classes}");
            assert!(plan.model.limit(plan.scale, SET) < LOGIT_ROOM);
            let smaller = Plan { scale: Scale { reply: plan.scale.reply - 1, ..plan.scale }, ..plan };
            assert!(total(&smaller, &folded) > precision, "{features}×{classes}: {:?}", smaller.scale);
        }
    }

    #[test]
    fn the_scale_of_features_is_as_large_as_fits() {
        let folded = folded(4, 3, 1.0);
        let Plan { model, mut scale, .. } = Plan::new(&folded, SET, 1e-3).unwrap();
        scale.features += 1;
        assert!(2 * model.limit(scale, SET) > LOGIT_ROOM);
        scale.features += 1;
        assert!(model.limit(scale, SET) > LOGIT_ROOM);
    }

    #[test]
    fn decimals_cost_at_most_half_the_precision() {
        for (precision, expected) in [(1e-3, 3), (9.9e-4, 4), (5e-2, 2), (1.0, 0), (1e6, 0), (1e-15, 15)] {
            assert_eq!(decimals(precision), Some(expected));
        }
        assert_eq!(decimals(9e-16), None);
    }

    #[test]
    fn what_is_out_of_reach_is_refused_with_what_is_not() {
        let folded = folded(64, 10, 0.3);
        let error = Plan::new(&folded, SET, 1e-9).unwrap_err();
        let ImportError::Precision { asked: 1e-9, reachable: Some(reachable) } = error else { panic!("{error}") };
        assert!((1e-5..1e-2).contains(&reachable), "{reachable:e}");
        assert!(Plan::new(&folded, SET, reachable).is_ok());
        assert!(Plan::new(&folded, SET, reachable / 2.5).is_err());
        assert!(error.to_string().contains(&format!("{reachable:e}")));
    }

    #[test]
    fn a_precision_is_a_positive_number() {
        for precision in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Plan::new(&folded(4, 3, 1.0), SET, precision).unwrap_err().code(), "no_precision");
        }
    }

    #[test]
    fn weights_of_zero_are_a_model_too() {
        let folded = FoldedModel { weights: vec![vec![0.0; 4]; 3], ..folded(4, 3, 1.0) };
        assert!(total(&Plan::new(&folded, SET, 1e-3).unwrap(), &folded) <= 1e-3);
    }
}
