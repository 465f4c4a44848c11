//! From an ONNX file to a bundle, on the model owner's machine.

mod error;
mod fold;
mod guard;
mod onnx;
mod plan;

use std::fmt;

use crate::bound::{ErrorLedger, StatedErrors};
use crate::bundle::Bundle;
use crate::description::{self, Description, Feature, Link};
use crate::evaluator::Evaluator;
use crate::mask::{Keystream, SEED_LEN};
pub use error::ImportError;
use fold::FoldedModel;
use onnx::Classifier;
use plan::{Plan, Wish};

/// What the ONNX file does not say.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportOptions {
    /// The model's name, fit for a path.
    pub name: String,
    /// Its version, as its owner counts.
    pub version: String,
    /// ε: the most by which a published logit may differ from scikit-learn's.
    pub precision: f64,
    /// The most that a reply's noise may say of the model beside the logits, as the statistical distance per row;
    /// without it, as little as the precision leaves room for.
    pub model_privacy: Option<f64>,
    /// The most logits that an enclave returns from boot to end.
    pub budget: Option<u64>,
    /// The least and greatest value of each column in some data; a tenth of the span is added on each side.
    ///
    /// Without data a column reaches 8 standard deviations from its mean, as its scaler states them.
    pub ranges: Option<Vec<FeatureRange>>,
    /// Names for the columns if there are no ranges; without either they are `x0`, `x1`, ….
    pub feature_names: Option<Vec<String>>,
}

impl ImportOptions {
    /// The defaults: a precision of 0.001, ranges from the scaler, unnamed columns.
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            precision: 1e-3,
            model_privacy: None,
            budget: None,
            ranges: None,
            feature_names: None,
        }
    }
}

/// What some data says of one column.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureRange {
    /// The column's name.
    pub name: String,
    /// The least value.
    pub low: f64,
    /// The greatest.
    pub high: f64,
    /// Values are multiples of this away from the least one, exactly.
    pub step: Option<f64>,
}

/// A bundle, and how it was found to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// The model, ready to be served.
    pub bundle: Bundle,
    /// What was proven and tried.
    pub report: ImportReport,
}

/// What an import found out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImportReport {
    /// ε, as asked for.
    pub precision: f64,
    /// Where the bound comes from.
    pub ledger: ErrorLedger,
    /// How the integers fared against the original numbers.
    pub self_check: SelfCheck,
}

/// The bundle's integer evaluation against a float64 evaluation of the ONNX file's own numbers, on random rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SelfCheck {
    /// As many rows were tried.
    pub rows: usize,
    /// The largest difference between two logits.
    pub largest_difference: f64,
}

impl fmt::Display for ImportReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { precision, ledger, self_check: SelfCheck { rows, largest_difference } } = self;
        writeln!(f, "{ledger}")?;
        writeln!(f, "{:<20} {precision:.3e}", "asked for")?;
        write!(f, "{:<20} {largest_difference:.3e} on {rows} random rows", "self-check")
    }
}

/// Reads an ONNX file, and writes a bundle whose published logits are within `options.precision` of the original
/// model's.
///
/// 1. Read the graph: scaler and linear classifier, nothing else.
/// 2. Declare a range for every feature.
/// 3. Fold scaler and ranges into the weights.
/// 4. Choose the scales.
/// 5. Assemble the bundle, which proves the bound, and try it on random rows.
pub fn import(onnx: &[u8], options: &ImportOptions) -> Result<Imported, ImportError> {
    let classifier = Classifier::read(onnx)?;
    description::check_shape(classifier.features(), classifier.labels.len())?;
    let features = declare_features(&classifier, options)?;
    features.iter().try_for_each(Feature::check)?;
    if let (Some(ranges), Some(scaler)) = (&options.ranges, &classifier.scaler) {
        ranges.iter().zip(&scaler.offset).enumerate().try_for_each(check_mean)?;
    }
    let folded = FoldedModel::new(&classifier, &features);
    let wish = Wish { precision: options.precision, distance: options.model_privacy };
    let plan = Plan::new(&folded, &features, wish)?;
    let bundle = assemble(&classifier, plan, folded.errors, options)?;
    let self_check = check_itself(&bundle, &classifier)?;
    let report = ImportReport { precision: options.precision, ledger: *bundle.ledger(), self_check };
    Ok(Imported { bundle, report })
}

fn declare_features(classifier: &Classifier, options: &ImportOptions) -> Result<Vec<Feature>, ImportError> {
    let expected = classifier.features();
    let check = |what, actual| match actual == expected {
        true => Ok(()),
        false => Err(ImportError::Columns { what, expected, actual }),
    };
    if let Some(ranges) = &options.ranges {
        check("ranges", ranges.len())?;
        return Ok(ranges.iter().map(widen).collect());
    }
    let names = match &options.feature_names {
        Some(names) => names.clone(),
        None => (0..expected).map(|index| format!("x{index}")).collect(),
    };
    check("feature names", names.len())?;
    let scaler = classifier.scaler.as_ref().ok_or(ImportError::NoRanges)?;
    let columns = names.into_iter().zip(scaler.offset.iter().zip(&scaler.scale));
    Ok(columns.map(|(name, (mean, scale))| around(name, *mean, DEVIATIONS / scale.abs())).collect())
}

/// The mean of the training data lies within the range of that data, unless its columns are in another order.
fn check_mean((index, (range, &mean)): (usize, (&FeatureRange, &f64))) -> Result<(), ImportError> {
    let FeatureRange { name, low, high, .. } = range;
    // The exporter rounded the mean to float32.
    let slack = f64::from(f32::EPSILON) * mean.abs();
    if (low - slack..=high + slack).contains(&mean) {
        return Ok(());
    }
    Err(ImportError::MeanOutside { column: index + 1, name: name.clone(), low: *low, high: *high, mean })
}

/// How far the declared range reaches if only the scaler is known.
const DEVIATIONS: f64 = 8.0;

fn around(name: String, centre: f64, reach: f64) -> Feature {
    Feature { low: centre - reach, high: centre + reach, name, step: None }
}

/// A tenth of the span more on each side; a column that never changed gets a thousandth of its value, or of one. A grid
/// goes on from the least value, and has an even number of steps.
fn widen(range: &FeatureRange) -> Feature {
    let FeatureRange { name, low, high, step } = range;
    let margin = match high - low {
        0.0 => 1e-3 * low.abs().max(1.0),
        span => 0.1 * span,
    };
    let (mut ends, name) = ((low - margin, high + margin), name.clone());
    if let Some(step) = step {
        let before = (margin / step).ceil();
        let after = ((high - low + margin) / step).ceil();
        ends = (low - before * step, low + (after + (before + after) % 2.0) * step);
    }
    Feature { low: ends.0, high: ends.1, name, step: *step }
}

fn assemble(
    classifier: &Classifier,
    plan: Plan,
    errors: StatedErrors,
    options: &ImportOptions,
) -> Result<Bundle, ImportError> {
    let Plan { model, features, parameters, scale, limbs, layouts, decimals, bound, limit, cost: _ } = plan;
    let description = Description::new(description::Fields {
        v: 1,
        link: Link::Softmax,
        name: options.name.clone(),
        bound,
        limbs,
        limit,
        scale,
        budget: options.budget,
        domain: description::DOMAIN.into(),
        labels: classifier.labels.clone(),
        logits: classifier.labels.len(),
        layouts,
        version: options.version.clone(),
        decimals,
        features,
        parameters,
    })?;
    Ok(Bundle::new(description, model, errors)?)
}

/// Compares the bundle's published logits with those of the file's own formula, on rows all over the declared ranges.
fn check_itself(bundle: &Bundle, classifier: &Classifier) -> Result<SelfCheck, ImportError> {
    let (evaluator, description) = (Evaluator::new(bundle), bundle.description());
    let rows = random_rows(description.features(), bundle.digest());
    let mut largest_difference = 0.0_f64;
    let logits = evaluator.evaluate_clear(&description.encode(&rows)?);
    for (row, logits) in rows.iter().zip(logits) {
        for (class, logit) in logits.into_iter().enumerate() {
            let difference = (description.publish(logit) - clear_logit(classifier, class, row)).abs();
            largest_difference = largest_difference.max(difference);
        }
    }
    match largest_difference <= bundle.bound() {
        true => Ok(SelfCheck { rows: rows.len(), largest_difference }),
        false => Err(ImportError::SelfCheck { difference: largest_difference, bound: bundle.bound() }),
    }
}

const SELF_CHECK_ROWS: usize = 1000;

/// Of wide models fewer rows are tried, so that the values stay within 32 MB.
const SELF_CHECK_VALUES: usize = 1 << 22;

/// Every fourth value at an end of its range, the others anywhere in it; the same rows for the same bundle.
fn random_rows(features: &[Feature], digest: [u8; 48]) -> Vec<Vec<f64>> {
    let seed = digest.first_chunk::<SEED_LEN>().expect("48 bytes have 32");
    let mut words = vec![0; features.len() * SELF_CHECK_ROWS.min(SELF_CHECK_VALUES / features.len())];
    Keystream::new(seed).fill(&mut words);
    let value = |(feature, word): (&Feature, &u64)| match (word & 7, feature.step) {
        (0, _) => feature.low,
        (1, _) => feature.high,
        (_, Some(step)) => {
            let steps = ((feature.high - feature.low) / step).round() * (*word as f64 / u64::MAX as f64);
            (feature.low + steps.round() * step).min(feature.high)
        }
        (_, None) => (feature.low + (feature.high - feature.low) * (*word as f64 / u64::MAX as f64)).min(feature.high),
    };
    words.chunks(features.len()).map(|words| features.iter().zip(words).map(value).collect()).collect()
}

/// intercept_c + Σ_j coefficient_cj·scale_j·(x_j − offset_j), as ONNX defines Scaler and LinearClassifier.
fn clear_logit(classifier: &Classifier, class: usize, row: &[f64]) -> f64 {
    let scaled = |(index, x): (usize, &f64)| match &classifier.scaler {
        Some(scaler) => (x - scaler.offset[index]) * scaler.scale[index],
        None => *x,
    };
    let products = row.iter().enumerate().map(scaled).zip(&classifier.coefficients[class]).map(|(z, w)| z * w);
    products.sum::<f64>() + classifier.intercepts[class]
}

#[cfg(test)]
mod tests {
    use super::onnx::tests::{bypass, changed, iris};
    use super::*;
    use crate::description::DescriptionError;

    fn range(name: &str, low: f64, high: f64) -> FeatureRange {
        FeatureRange { name: name.into(), low, high, step: None }
    }

    fn ranges() -> Vec<FeatureRange> {
        vec![range("a", 4.0, 8.0), range("b", 2.0, 4.5), range("c", 1.0, 7.0), range("d", 0.0, 2.5)]
    }

    fn error(onnx: &[u8], change: impl FnOnce(&mut ImportOptions)) -> ImportError {
        let mut options = ImportOptions::new("iris", "1");
        change(&mut options);
        import(onnx, &options).unwrap_err()
    }

    #[test]
    fn ranges_reach_eight_deviations_without_data() {
        let bundle = import(&iris(), &ImportOptions::new("iris", "1")).unwrap().bundle;
        let Feature { low, high, name, .. } = &bundle.description().features()[0];
        assert_eq!(name, "x0");
        // Iris: the mean of sepal lengths is 5.843, their standard deviation 0.8253.
        assert!((low - (5.843_33 - 8.0 * 0.8253)).abs() < 1e-3 && (high - (5.843_33 + 8.0 * 0.8253)).abs() < 1e-3);
    }

    #[test]
    fn names_come_from_ranges_or_names() {
        let names = |change: fn(&mut ImportOptions)| {
            let mut options = ImportOptions::new("iris", "1");
            change(&mut options);
            let bundle = import(&iris(), &options).unwrap().bundle;
            bundle.description().features().iter().map(|feature| feature.name.clone()).collect::<String>()
        };
        assert_eq!(names(|_| {}), "x0x1x2x3");
        assert_eq!(names(|options| options.ranges = Some(ranges())), "abcd");
        assert_eq!(
            names(|options| options.feature_names = Some(["e", "f", "g", "h"].map(String::from).into())),
            "efgh"
        );
    }

    #[test]
    fn a_range_is_widened_by_a_tenth_of_its_span() {
        assert_eq!(widen(&range("a", 0.0, 10.0)), around("a".into(), 5.0, 6.0));
        assert_eq!(
            widen(&range("constant", 50.0, 50.0)),
            Feature { low: 49.95, high: 50.05, name: "constant".into(), step: None }
        );
        assert_eq!(widen(&range("zero", 0.0, 0.0)), around("zero".into(), 0.0, 1e-3));
    }

    #[test]
    fn a_model_without_a_scaler_needs_ranges() {
        let unscaled = changed(|graph| bypass(graph, "Scaler"));
        assert_eq!(error(&unscaled, |_| {}), ImportError::NoRanges);
        let options = ImportOptions { ranges: Some(ranges()), ..ImportOptions::new("iris", "1") };
        assert!(import(&unscaled, &options).unwrap().report.self_check.largest_difference <= 1e-3);
    }

    #[test]
    fn columns_must_match() {
        let columns = |what, actual| ImportError::Columns { what, expected: 4, actual };
        assert_eq!(error(&iris(), |options| options.ranges = Some(ranges()[1..].to_vec())), columns("ranges", 3));
        assert_eq!(error(&iris(), |options| options.feature_names = Some(vec![])), columns("feature names", 0));
        let nowhere =
            vec![range("a", f64::NAN, 1.0), range("b", 2.0, 1.0), range("c", 0.0, f64::INFINITY), range("d", 0.0, 1.0)];
        assert_eq!(error(&iris(), |options| options.ranges = Some(nowhere)).code(), "range");
        assert_eq!(error(&iris(), |options| options.name = "a b".into()).code(), "identifier");
    }

    #[test]
    fn an_endless_range_is_refused() {
        let flat = changed(|graph| graph.node[0].attribute[1].floats[0] = 0.0);
        assert_eq!(error(&flat, |_| {}).code(), "range");
    }

    #[test]
    fn a_model_too_wide_is_refused_with_the_numbers() {
        let wide = changed(|graph| {
            bypass(graph, "Scaler");
            graph.input[0].r#type.as_mut().unwrap().tensor_type.as_mut().unwrap().shape = None;
            let coefficients = graph.node[0].attribute.iter_mut().find(|a| a.name.as_deref() == Some("coefficients"));
            coefficients.unwrap().floats = vec![1.0; 50_001 * 3];
        });
        assert_eq!(error(&wide, |_| {}), DescriptionError::TooWide { features: 50_001, logits: 3 }.into());
    }

    #[test]
    fn rows_of_the_self_check_reach_all_of_their_ranges() {
        let features = [
            Feature { low: -1.0, high: 3.0, name: "a".into(), step: None },
            Feature { low: 0.0, high: 1e-3, name: "b".into(), step: None },
        ];
        let rows = random_rows(&features, [9; 48]);
        assert_eq!(rows.len(), SELF_CHECK_ROWS);
        for (index, Feature { low, high, .. }) in features.iter().enumerate() {
            let values = || rows.iter().map(|row| row[index]);
            assert!(values().all(|value| (low..=high).contains(&&value)));
            assert!(values().any(|value| value == *low) && values().any(|value| value == *high));
        }
    }

    /// The self-check is no formality: it finds a model that is not the file's.
    #[test]
    fn the_self_check_refuses_another_model() {
        let bundle = import(&iris(), &ImportOptions::new("iris", "1")).unwrap().bundle;
        let mut other = Classifier::read(&iris()).unwrap();
        assert!(check_itself(&bundle, &other).is_ok());
        other.intercepts[1] += 2e-3;
        assert_eq!(check_itself(&bundle, &other).unwrap_err().code(), "self_check");
    }
}
