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
