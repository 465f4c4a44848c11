//! Where the features lie: from data, or from the scaler that comes first.

use super::chain::{Chain, Id, Operation};
use super::model::Model;
use super::onnx::Input;
use super::{FeatureRange, ImportError, ImportOptions};
use crate::description::Feature;

/// The declared range of every column, as the chain gets it.
pub(super) fn declare(model: &Model, options: &ImportOptions) -> Result<Vec<Feature>, ImportError> {
    let expected = model.features();
    let check = |what, actual| match actual == expected {
        true => Ok(()),
        false => Err(ImportError::Columns { what, expected, actual }),
    };
    let is_normalized = model.preparation.normalized().is_some();
    let first = match is_normalized {
        // Whatever comes next scales shares of a norm.
        true => vec![None; expected],
        false => FirstScaler::of_columns(&model.chain, model.logits, expected),
    };
    let features: Vec<Feature> = if let Some(ranges) = &options.ranges {
        check("ranges", ranges.len())?;
        ranges.iter().zip(&first).enumerate().try_for_each(check_mean)?;
        ranges.iter().map(widen).collect()
    } else {
        let names = options.feature_names.clone().unwrap_or_else(|| names(&model.graph.inputs));
        check("feature names", names.len())?;
        let range = |(column, (name, first)): (usize, (String, &Option<FirstScaler>))| match first {
            _ if is_normalized => Ok(feature(name, -1.0, 1.0)),
            Some(first) => first.range(column, name),
            None => Err(ImportError::NoRanges { column: column + 1, name }),
        };
        names.into_iter().zip(&first).enumerate().map(range).collect::<Result<_, _>>()?
    };
    let prepared = features.into_iter().enumerate().map(|(column, feature)| prepare(model, column, feature));
    let features: Vec<_> = prepared.collect();
    features.iter().try_for_each(Feature::check)?;
    Ok(features)
}

fn feature(name: String, low: f64, high: f64) -> Feature {
    Feature { low, high, name, step: None }
}

/// A tenth of the span more on each side; a column that never changed gets a thousandth of its value, or of one. A grid
/// goes on from the least value, and has an even number of steps.
fn widen(range: &FeatureRange) -> Feature {
    let FeatureRange { name, low, high, step } = range;
    let margin = match high - low {
        0.0 => 1e-3 * low.abs().max(1.0),
        span => 0.1 * span,
    };
    let Some(step) = *step else { return feature(name.clone(), low - margin, high + margin) };
    let (before, after) = ((margin / step).ceil(), ((high - low + margin) / step).ceil());
    let after = after + (before + after) % 2.0;
    Feature { step: Some(step), ..feature(name.clone(), low - before * step, low + after * step) }
}

/// One name per column: the input's own, or `x0`, `x1`, … if one input has several.
fn names(inputs: &[Input]) -> Vec<String> {
    match inputs.iter().all(|input| input.columns == 1) && inputs.len() > 1 {
        true => inputs.iter().map(|input| input.name.clone()).collect(),
        false => (0..inputs.iter().map(|input| input.columns).sum()).map(|index| format!("x{index}")).collect(),
    }
}

/// The range after the client's steps: shares of a norm are within ±1, and an imputed value is in its column's range.
fn prepare(model: &Model, column: usize, feature: Feature) -> Feature {
    match (model.preparation.normalized(), model.preparation.imputed(column)) {
        (Some(_), _) => Feature { low: -1.0, high: 1.0, step: None, ..feature },
        (None, Some(value)) => Feature { low: feature.low.min(value), high: feature.high.max(value), ..feature },
        (None, None) => feature,
    }
}

/// The mean of the training data lies within the declared range, unless columns are in another order.
fn check_mean((index, (range, scaler)): (usize, (&FeatureRange, &Option<FirstScaler>))) -> Result<(), ImportError> {
    let FeatureRange { name, low, high, .. } = range;
    let mean = match *scaler {
        Some(FirstScaler::Deviation { mean, .. } | FirstScaler::Mean(mean)) if mean != 0.0 => mean,
        _ => return Ok(()),
    };
    // A column that never changes in this data may have done so in that of the training.
    let declared = widen(range);
    if low == high || (declared.low..=declared.high).contains(&mean) {
        return Ok(());
    }
    Err(ImportError::MeanOutside { column: index + 1, name: name.clone(), low: *low, high: *high, mean })
}

/// What happens to a column first.
#[derive(Clone, Copy, Debug, PartialEq)]
enum FirstScaler {
    /// (x − mean)·scale or over its inverse, as StandardScaler and RobustScaler do.
    Deviation { mean: f64, scale: f64 },
    /// x·scale + offset, as MinMaxScaler does to reach 0 to 1.
    Unit { scale: f64, offset: f64 },
    /// x·scale, as MaxAbsScaler does to reach ±1.
    Magnitude { scale: f64 },
    /// x − mean, as a decomposition does: nothing says how far values go.
    Mean(f64),
}

/// How far the declared range reaches if only the scaler is known.
const DEVIATIONS: f64 = 8.0;

impl FirstScaler {
    /// Where the values lie that the scaler was trained on, and some more.
    fn range(self, column: usize, name: String) -> Result<Feature, ImportError> {
        let data = |one: f64, other: f64| {
            Ok(widen(&FeatureRange { name: name.clone(), low: one.min(other), high: one.max(other), step: None }))
        };
        match self {
            Self::Deviation { mean, scale } => {
                let reach = DEVIATIONS / scale.abs();
                Ok(feature(name, mean - reach, mean + reach))
            }
            Self::Unit { scale, offset } => data(-offset / scale, (1.0 - offset) / scale),
            Self::Magnitude { scale } => data(-1.0 / scale, 1.0 / scale),
            Self::Mean(_) => Err(ImportError::NoRanges { column: column + 1, name }),
        }
    }

    /// What happens first to each column on its way to `logits`, where that is a scaler.
    fn of_columns(chain: &Chain, logits: Id, columns: usize) -> Vec<Option<Self>> {
        let needed = chain.needed(logits);
        let mut found = vec![None; columns];
        for id in (0..=logits).filter(|&id| needed[id]) {
            let Some((numbers, scalers)) = Self::of_vector(chain, id) else { continue };
            for (&column, scaler) in numbers.iter().zip(scalers) {
                // A mean is all that is known only if no scale follows.
                if matches!(found[column], None | Some(Self::Mean(_))) {
                    found[column] = Some(scaler);
                }
            }
        }
        found
    }

    /// The columns that a vector scales, and how.
    fn of_vector(chain: &Chain, id: Id) -> Option<(&[usize], Vec<Self>)> {
        match chain.operation(id) {
            Operation::Multiply { of, by } => Self::scaled(chain, *of, by.values.clone()),
            Operation::Divide { of, by } => Self::scaled(chain, *of, by.map(|value| 1.0 / value).values),
            Operation::Add { to, constants } => match chain.operation(*to) {
                Operation::Multiply { of, by } => {
                    let pairs = by.values.iter().zip(&constants.values);
                    let unit = pairs.map(|(&scale, &offset)| Self::Unit { scale, offset }).collect();
                    Some((columns(chain, *of)?, unit))
                }
                _ => Some((columns(chain, *to)?, constants.values.iter().map(|&offset| Self::Mean(-offset)).collect())),
            },
            _ => None,
        }
    }

    /// (x − mean)·scale, as far as `of` is x − mean.
    fn scaled(chain: &Chain, of: Id, scales: Vec<f64>) -> Option<(&[usize], Vec<Self>)> {
        let Operation::Add { to, constants } = chain.operation(of) else { return None };
        let is_moved = constants.values.iter().any(|&value| value != 0.0);
        // StandardScaler(with_std=False) says nothing of deviations.
        let is_scaled = scales.iter().any(|&scale| scale != 1.0);
        let scaler = |(&offset, scale): (&f64, f64)| match (is_scaled, is_moved) {
            (false, _) => Self::Mean(-offset),
            (true, false) => Self::Magnitude { scale },
            (true, true) => Self::Deviation { mean: -offset, scale },
        };
        Some((columns(chain, *to)?, constants.values.iter().zip(scales).map(scaler).collect()))
    }
}

/// The columns that a vector is, if it is nothing else.
fn columns(chain: &Chain, id: Id) -> Option<&[usize]> {
    match chain.operation(id) {
        Operation::Columns { columns, .. } => Some(columns),
        _ => None,
    }
}
