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
        let is_scaled = scales.iter().any(|&scale| scale != 1.0);
        let scaler = |(&offset, scale): (&f64, f64)| match (is_moved, is_scaled) {
            (true, _) => Self::Deviation { mean: -offset, scale },
            (false, true) => Self::Magnitude { scale },
            (false, false) => Self::Mean(0.0),
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

#[cfg(test)]
mod tests {
    use rten_onnx::onnx::DataType;

    use super::*;
    use crate::import::sample::{Sample, attribute, changed, iris, range, ranges};

    /// Seven steps of data with one more on each side are nine, and ten are even.
    #[test]
    fn a_grid_goes_on_around_its_data_in_an_even_number_of_steps() {
        let tenths = widen(&FeatureRange { step: Some(0.1), ..range("a", 0.1, 0.8) });
        assert_eq!((tenths.low, tenths.step), (0.0, Some(0.1)));
        assert!((tenths.high - 1.0).abs() < 1e-12);
        tenths.check().unwrap();
        let pixels = widen(&FeatureRange { step: Some(1.0), ..range("constant", 3.0, 3.0) });
        assert_eq!((pixels.low, pixels.high), (2.0, 4.0));
        pixels.check().unwrap();
    }

    fn declared(onnx: &[u8], change: impl FnOnce(&mut ImportOptions)) -> Result<Vec<Feature>, ImportError> {
        let mut options = ImportOptions::new("iris", "1");
        change(&mut options);
        declare(&Model::read(onnx)?, &options)
    }

    /// The range of the first column of a model that begins so, and goes on from z.
    fn first(sample: Sample) -> Result<(f64, f64), ImportError> {
        let file = sample.floats("ones", &[2, 1], &[1.0; 2]).node("MatMul(z, ones) -> y").file(&["y"]);
        declared(&file, |_| {}).map(|features| (features[0].low, features[0].high))
    }

    #[test]
    fn ranges_reach_eight_deviations_without_data() {
        let Feature { low, high, name, .. } = &declared(&iris(), |_| {}).unwrap()[0];
        assert_eq!(name, "x0");
        // Iris: the mean of sepal lengths is 5.843, their standard deviation 0.8253.
        assert!((low - (5.843_33 - 8.0 * 0.8253)).abs() < 1e-3 && (high - (5.843_33 + 8.0 * 0.8253)).abs() < 1e-3);
        let divided = Sample::new(2).floats("mean", &[2], &[1.0; 2]).floats("deviation", &[2], &[0.5; 2]);
        assert_eq!(first(divided.node("Sub(X, mean) -> c").node("Div(c, deviation) -> z")), Ok((-3.0, 5.0)));
    }

    #[test]
    fn scalers_say_where_their_data_lay() {
        let unit = Sample::new(2).floats("scale", &[2], &[0.25; 2]).floats("offset", &[2], &[-0.5; 2]);
        let unit = unit.node("Mul(X, scale) -> s").node("Add(s, offset) -> z");
        assert_eq!(first(unit), Ok((1.6, 6.4)), "2 to 6, and a tenth on each side");
        let magnitude = Sample::new(2).scaler("(X) -> z", &[0.0; 2], &[0.125; 2]);
        assert_eq!(first(magnitude), Ok((-9.6, 9.6)), "up to 8 in magnitude");
    }

    /// What comes after a scaler does not change where its data lay.
    #[test]
    fn scalers_before_trees_and_networks_say_so_too() {
        let declared =
            |sample: Sample| declared(&sample.file(&["y"]), |_| {}).map(|features| (features[0].low, features[0].high));
        let scaled = || Sample::new(2).scaler("(X) -> z", &[1.0; 2], &[2.0; 2]).floats("w", &[2, 2], &[1.0; 4]);
        assert_eq!(declared(scaled().stump("(z) -> y", "BRANCH_LT", 0.5)), Ok((-3.0, 5.0)));
        let network = |sample: Sample| sample.node("MatMul(z, w) -> p").node("Relu(p) -> r").node("MatMul(r, w) -> y");
        assert_eq!(declared(network(scaled())), Ok((-3.0, 5.0)));
        let nothing = Err(ImportError::NoRanges { column: 1, name: "x0".into() });
        assert_eq!(declared(Sample::new(2).stump("(X) -> y", "BRANCH_LT", 0.5)), nothing);
        let plain = Sample::new(2).floats("w", &[2, 2], &[1.0; 4]).node("Identity(X) -> z");
        assert_eq!(declared(network(plain)), nothing);
    }

    #[test]
    fn what_scales_nothing_says_nothing() {
        let nothing = Err(ImportError::NoRanges { column: 1, name: "x0".into() });
        let mean = Sample::new(2).floats("mean", &[2], &[1.0; 2]).node("Sub(X, mean) -> z");
        assert_eq!(first(mean), nothing);
        let ones = Sample::new(2).scaler("(X) -> z", &[0.0; 2], &[1.0; 2]);
        assert_eq!(first(ones), nothing);
        assert_eq!(first(Sample::new(2).node("Identity(X) -> z")), nothing);
    }

    #[test]
    fn a_norm_says_all() {
        let sample = Sample::new(2).node("Normalizer(X) -> n").with_text("norm", "L2");
        let file = sample.scaler("(n) -> y", &[0.5; 2], &[9.0; 2]).file(&["y"]);
        let unit = |name: &str| feature(name.into(), -1.0, 1.0);
        assert_eq!(declared(&file, |_| {}).unwrap(), [unit("x0"), unit("x1")]);
        let given =
            |options: &mut ImportOptions| options.ranges = Some(vec![range("a", 50.0, 60.0), range("b", 7.0, 7.0)]);
        assert_eq!(declared(&file, given).unwrap(), [unit("a"), unit("b")], "whatever their values were before");
    }

    #[test]
    fn names_come_from_ranges_or_names_or_inputs() {
        let names = |onnx: &[u8], change: fn(&mut ImportOptions)| {
            declared(onnx, change).unwrap().into_iter().map(|feature| feature.name).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(&iris(), |_| {}), "x0 x1 x2 x3");
        assert_eq!(names(&iris(), |options| options.ranges = Some(ranges())), "a b c d");
        let given =
            |options: &mut ImportOptions| options.feature_names = Some(["e", "f", "g", "h"].map(String::from).into());
        assert_eq!(names(&iris(), given), "e f g h");
        let named = Sample::default().input("age", DataType::FLOAT, 1).input("height", DataType::FLOAT, 1);
        let named =
            named.node("Concat(height, age) -> x").with_integer("axis", 1).scaler("(x) -> y", &[1.0, 2.0], &[2.0, 2.0]);
        let named = named.file(&["y"]);
        assert_eq!(names(&named, |_| {}), "age height");
        assert_eq!(declared(&named, |_| {}).unwrap()[0], feature("age".into(), -2.0, 6.0), "the mean of age is 2");
    }

    #[test]
    fn a_range_is_widened_by_a_tenth_of_its_span() {
        assert_eq!(widen(&range("a", 0.0, 10.0)), feature("a".into(), -1.0, 11.0));
        assert_eq!(widen(&range("constant", 50.0, 50.0)), feature("constant".into(), 49.95, 50.05));
        assert_eq!(widen(&range("zero", 0.0, 0.0)), feature("zero".into(), -1e-3, 1e-3));
    }

    #[test]
    fn imputed_values_are_in_their_range() {
        let nan = rten_onnx::onnx::AttributeProto { f: Some(f32::NAN), ..Default::default() };
        let sample = Sample::new(2).node("Imputer(X) -> x").with_floats("imputed_value_floats", &[9.0, 0.5]);
        let file = sample.with("replaced_value_float", nan).scaler("(x) -> y", &[0.5; 2], &[1.0; 2]).file(&["y"]);
        let given =
            |options: &mut ImportOptions| options.ranges = Some(vec![range("a", 0.0, 1.0), range("b", 0.0, 1.0)]);
        let features = declared(&file, given).unwrap();
        assert_eq!((features[0].high, features[1].high), (9.0, 1.1));
    }

    #[test]
    fn columns_must_match() {
        let error = |change: fn(&mut ImportOptions)| declared(&iris(), change).unwrap_err();
        let columns = |what, actual| ImportError::Columns { what, expected: 4, actual };
        assert_eq!(error(|options| options.ranges = Some(ranges()[1..].to_vec())), columns("ranges", 3));
        assert_eq!(error(|options| options.feature_names = Some(vec![])), columns("feature names", 0));
        assert_eq!(error(|options| options.ranges = Some(ranges().into_iter().rev().collect())).code(), "mean_outside");
        let nowhere = |options: &mut ImportOptions| {
            let mut ranges = ranges();
            ranges[2].high = f64::INFINITY;
            options.ranges = Some(ranges);
        };
        assert_eq!(error(nowhere).code(), "range");
    }

    #[test]
    fn an_endless_range_is_refused() {
        let flat = changed(|graph| attribute(graph, "Scaler", "scale").floats[0] = 0.0);
        assert_eq!(declared(&flat, |_| {}).unwrap_err().code(), "range");
    }
}
