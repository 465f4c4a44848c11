//! From an ONNX file to a bundle, on the model owner's machine.

mod chain;
mod choice;
mod clear;
mod ensemble;
mod error;
mod fold;
mod guard;
mod levels;
mod model;
mod nodes;
mod nonlinear;
mod onnx;
mod plan;
mod preparation;
mod ranges;
mod refusal;
#[cfg(test)]
mod sample;
mod shaping;
mod tail;
mod tensor;

use std::fmt;

use crate::bound::{ErrorLedger, StatedErrors};
use crate::bundle::Bundle;
use crate::description::{self, Description, Feature};
use crate::evaluator::Evaluator;
use crate::mask::{Keystream, SEED_LEN};
use choice::{Choice, Task};
pub use error::ImportError;
use fold::FoldedModel;
use model::Model;
use nonlinear::Source;
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
    /// Without data the scaler that comes first says where a column lies: within 8 standard deviations (or quartile
    /// ranges) of the mean that it subtracts; within what it maps to 0 and 1 if it multiplies before it adds, as
    /// MinMaxScaler does by default; within what it maps to ±1 if it subtracts nothing, as MaxAbsScaler does. The
    /// latter two get a tenth of the span on each side. Columns over their norm are within ±1 in any case.
    pub ranges: Option<Vec<FeatureRange>>,
    /// Whether clients may know the thresholds of trees.
    pub thresholds: Thresholds,
    /// Some rows of the columns, as clients will have them: what features are cut into bits by, of trees and networks.
    /// Without them rows all over the ranges are as good as any.
    pub rows: Vec<Vec<f64>>,
    /// Names for the columns if there are no ranges; without either they are those of the graph's inputs if each is
    /// one column, or `x0`, `x1`, ….
    pub feature_names: Option<Vec<String>>,
}

impl ImportOptions {
    /// As many [`rows`](Self::rows) are looked at; more say nothing new.
    pub const MOST_ROWS: usize = 2000;

    /// The defaults: a precision of 0.001, ranges from the scaler, unnamed columns.
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            precision: 1e-3,
            model_privacy: None,
            budget: None,
            ranges: None,
            thresholds: Thresholds::Hidden,
            rows: vec![],
            feature_names: None,
        }
    }
}

/// Whether the thresholds of trees become public.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Thresholds {
    /// Features are cut into intervals of one width, which say nothing of the model, and thresholds move to their ends.
    #[default]
    Hidden,
    /// Features are cut at the thresholds themselves, which the description tells: every path is the original model's.
    Public,
}

/// What cutting features into levels changes, against the model itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantisation {
    /// As many rows were compared.
    pub rows: usize,
    /// Whether they are data that was given, or lie all over the ranges.
    pub from_data: bool,
    /// As many have another label; of a regression, which has none, nothing.
    pub labels_changed: Option<usize>,
    /// By which no logit has changed more.
    pub largest_difference: f64,
    /// The bits of a row.
    pub bits: u32,
    /// The share of labels that changed, or a regression's root mean square of changes over ten of its deviations.
    pub(crate) amount: f64,
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
    /// What bits cost, of trees and networks.
    pub quantisation: Option<Quantisation>,
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
        let Self { precision, ledger, self_check: SelfCheck { rows, largest_difference }, quantisation } = self;
        writeln!(f, "{ledger}")?;
        writeln!(f, "{:<20} {precision:.3e}", "asked for")?;
        if let Some(quantisation) = quantisation {
            writeln!(f, "{:<20} {quantisation}", "quantisation")?;
        }
        write!(f, "{:<20} {largest_difference:.3e} on {rows} random rows", "self-check")
    }
}

impl fmt::Display for Quantisation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, from_data, labels_changed, largest_difference, bits, amount: _ } = self;
        let which = if *from_data { "rows of the data" } else { "rows all over the ranges" };
        write!(f, "{bits} bits a row; of {rows} {which}, ")?;
        if let Some(changed) = labels_changed {
            write!(f, "{changed} have another label, and ")?;
        }
        write!(f, "no logit moves by more than {largest_difference:.2e}")
    }
}

/// Reads an ONNX file, and writes a bundle whose published logits are within `options.precision` of the original
/// model's; of trees and networks, of the model's on its bits.
///
/// 1. Read the graph: an affine chain, with trees or a hidden layer in it or not, and a tail that is in the list.
/// 2. Declare a range for every feature.
/// 3. Fold chain and ranges into weights; or bring thresholds and hidden layers to the columns, and cut these into levels.
/// 4. Choose the scales.
/// 5. Assemble the bundle, which proves the bound, and try it on random rows.
pub fn import(onnx: &[u8], options: &ImportOptions) -> Result<Imported, ImportError> {
    let model = Model::read(onnx)?;
    description::check_shape(model.features(), model.chain.width(model.logits))?;
    let features = ranges::declare(&model, options)?;
    let wish = Wish { precision: options.precision, distance: options.model_privacy };
    match (&model.source, options.thresholds) {
        (Source::Linear, Thresholds::Public) => return Err(ImportError::NoThresholds),
        (Source::Linear, Thresholds::Hidden) => {}
        _ => return import_choice(&model, &features, wish, options),
    }
    let folded = FoldedModel::new(&model, &features)?;
    let plan = Plan::new(&folded, &features, wish)?;
    let bundle = assemble(&model, plan, folded.errors, options)?;
    let self_check = check_itself(&bundle, &model)?;
    let report =
        ImportReport { precision: options.precision, ledger: *bundle.ledger(), self_check, quantisation: None };
    Ok(Imported { bundle, report })
}

/// Trees or a network: rows are cut into bits.
fn import_choice(
    model: &Model,
    features: &[Feature],
    wish: Wish,
    options: &ImportOptions,
) -> Result<Imported, ImportError> {
    let rows = prepared(model, features.len(), &options.rows)?;
    let features: Vec<Feature> = features.iter().map(|feature| Feature { step: None, ..feature.clone() }).collect();
    let task = Task {
        source: &model.source,
        features: &features,
        rows: &rows,
        link: model.link,
        is_classifier: !model.labels.is_empty(),
        thresholds: options.thresholds,
        wish,
    };
    let Choice { model: integers, selection, parameters, scale, decimals, bound, limit, quantisation } =
        Choice::new(&task)?;
    let stated = task.stated();
    let description = Description::new(description::Fields {
        v: 2,
        link: model.link,
        name: options.name.clone(),
        bound,
        limbs: None,
        limit,
        scale,
        steps: model.preparation.steps(),
        budget: options.budget,
        domain: description::DOMAIN.into(),
        labels: model.labels.clone(),
        logits: model.chain.width(model.logits),
        layouts: vec![],
        version: options.version.clone(),
        decimals,
        features,
        selection: Some(selection),
        parameters,
    })?;
    let bundle = Bundle::new(description, integers, stated)?;
    let self_check = check_choice(&bundle, model, options.thresholds)?;
    let (precision, ledger) = (options.precision, *bundle.ledger());
    Ok(Imported { bundle, report: ImportReport { precision, ledger, self_check, quantisation: Some(quantisation) } })
}

/// Rows after the client's steps; those that these cannot be taken with are left out.
fn prepared(model: &Model, columns: usize, rows: &[Vec<f64>]) -> Result<Vec<Vec<f64>>, ImportError> {
    if let Some(row) = rows.iter().find(|row| row.len() != columns) {
        return Err(ImportError::Columns { what: "values of a row", expected: columns, actual: row.len() });
    }
    let steps = model.preparation.steps();
    let prepare = |row: &Vec<f64>| {
        let mut row = row.clone();
        let taken = steps.iter().try_for_each(|step| step.apply(&mut row));
        taken.ok().filter(|()| row.iter().all(|value| value.is_finite())).map(|()| row)
    };
    Ok(rows.iter().take(ImportOptions::MOST_ROWS).filter_map(prepare).collect())
}

/// Compares what was read with the graph itself, and the bundle's published logits with both where thresholds are exact.
fn check_choice(bundle: &Bundle, model: &Model, thresholds: Thresholds) -> Result<SelfCheck, ImportError> {
    let (evaluator, description) = (Evaluator::new(bundle), bundle.description());
    let graph = clear::Interpreter::new(model);
    let rows = random_rows(description.features(), CHOICE_ROWS, bundle.digest());
    let (mut checked, mut largest_difference) = (0, 0.0_f64);
    for row in rows {
        let encoded = [description.encode_prepared(checked, &row)?];
        let (clear, read) = (graph.logits(&row), model.source.logits(&row));
        checked += 1;
        for ((logit, clear), read) in evaluator.evaluate_clear(&encoded).remove(0).into_iter().zip(clear).zip(read) {
            let published = (description.publish(logit) - clear).abs();
            let (difference, bound) = match thresholds {
                Thresholds::Public => (published, bundle.bound()),
                // What bits change is no fault; what was read is held to the graph.
                Thresholds::Hidden => ((read - clear).abs(), 1e-9 + 1e-6 * clear.abs().max(1.0)),
            };
            // Not even NaN gets by.
            match difference <= bound {
                true => largest_difference = largest_difference.max(difference),
                false => return Err(ImportError::SelfCheck { difference, bound }),
            }
        }
    }
    Ok(SelfCheck { rows: checked, largest_difference })
}

const CHOICE_ROWS: usize = 64;

fn assemble(source: &Model, plan: Plan, errors: StatedErrors, options: &ImportOptions) -> Result<Bundle, ImportError> {
    let Plan { model, features, parameters, scale, limbs, layouts, decimals, bound, limit, cost: _ } = plan;
    let description = Description::new(description::Fields {
        v: 1,
        link: source.link,
        name: options.name.clone(),
        bound,
        limbs: Some(limbs),
        limit,
        scale,
        steps: source.preparation.steps(),
        budget: options.budget,
        domain: description::DOMAIN.into(),
        labels: source.labels.clone(),
        logits: source.chain.width(source.logits),
        layouts,
        version: options.version.clone(),
        decimals,
        features,
        selection: None,
        parameters,
    })?;
    Ok(Bundle::new(description, model, errors)?)
}

/// Compares the bundle's published logits with those of the graph itself, on rows all over the declared ranges.
fn check_itself(bundle: &Bundle, model: &Model) -> Result<SelfCheck, ImportError> {
    let (evaluator, description) = (Evaluator::new(bundle), bundle.description());
    let graph = clear::Interpreter::new(model);
    let rows = random_rows(description.features(), rows_to_check(model), bundle.digest());
    let mut largest_difference = 0.0_f64;
    let mut checked = 0;
    for row in rows {
        let encoded = [description.encode_prepared(checked, &row)?];
        let clear = graph.logits(&row);
        checked += 1;
        for (logit, clear) in evaluator.evaluate_clear(&encoded).remove(0).into_iter().zip(clear) {
            let difference = (description.publish(logit) - clear).abs();
            // Not even NaN gets by.
            match difference <= bundle.bound() {
                true => largest_difference = largest_difference.max(difference),
                false => return Err(ImportError::SelfCheck { difference, bound: bundle.bound() }),
            }
        }
    }
    Ok(SelfCheck { rows: checked, largest_difference })
}

const SELF_CHECK_ROWS: usize = 1000;

/// Fewer rows of a large model: a second or two of work.
fn rows_to_check(model: &Model) -> usize {
    (SELF_CHECK_WORK / model.chain.elements()).clamp(16, SELF_CHECK_ROWS)
}

const SELF_CHECK_WORK: usize = 1 << 27;

/// Every fourth value at an end of its range, the others anywhere in it; the same rows for the same bundle. Each is made
/// when it is its turn: all rows of a wide model together are hundreds of megabytes.
fn random_rows(features: &[Feature], rows: usize, digest: [u8; 48]) -> impl Iterator<Item = Vec<f64>> {
    let seed = digest.first_chunk::<SEED_LEN>().expect("48 bytes have 32");
    let mut stream = Keystream::new(seed);
    let mut words = vec![0; features.len()];
    let value = move |(feature, word): (&Feature, &u64)| match (word & 7, feature.step) {
        (0, _) => feature.low,
        (1, _) => feature.high,
        (_, Some(step)) => {
            let steps = ((feature.high - feature.low) / step).round() * (*word as f64 / u64::MAX as f64);
            (feature.low + steps.round() * step).min(feature.high)
        }
        (_, None) => (feature.low + (feature.high - feature.low) * (*word as f64 / u64::MAX as f64)).min(feature.high),
    };
    (0..rows).map(move |_| {
        stream.fill(&mut words);
        features.iter().zip(&words).map(value).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::sample::{Sample, bypass, changed, iris, ranges};
    use super::*;

    #[test]
    fn a_model_without_a_scaler_needs_ranges() {
        let unscaled = changed(|graph| bypass(graph, "Scaler"));
        let error = import(&unscaled, &ImportOptions::new("iris", "1")).unwrap_err();
        assert_eq!(error, ImportError::NoRanges { column: 1, name: "x0".into() });
        let options = ImportOptions { ranges: Some(ranges()), ..ImportOptions::new("iris", "1") };
        assert!(import(&unscaled, &options).unwrap().report.self_check.largest_difference <= 1e-3);
    }

    #[test]
    fn a_model_too_wide_is_refused_with_the_numbers() {
        let wide = Sample::new(50_001).classifier("(X) -> label, scores", &vec![1.0; 150_003], &[0.0; 3], "NONE");
        let error = import(&wide.file(&["label", "scores"]), &ImportOptions::new("wide", "1")).unwrap_err();
        assert_eq!(error, ImportError::TooWide { what: "features", actual: 50_001, max: 50_000 });
    }

    /// A node that only hands on costs the self-check its width all the same.
    #[test]
    fn a_small_file_of_many_wide_nodes_is_refused() {
        let wide = |nodes: usize| {
            let first = Sample::new(50_000).node("Normalizer(X) -> n0").with_text("norm", "L2");
            let handed_on = (0..nodes).fold(first, |sample, n| sample.node(&format!("Identity(n{n}) -> n{}", n + 1)));
            let one = handed_on.integers("i", &[0]).node(&format!("Gather(n{nodes}, i) -> y"));
            Model::read(&one.with_integer("axis", 1).file(&["y"]))
        };
        assert!(wide(10).is_ok());
        let reason = wide(1000).unwrap_err().to_string();
        assert!(reason.ends_with("larger than any model that is served"), "{reason}");
    }

    /// Dropping it would overflow the stack, and so would writing it.
    #[test]
    fn a_formula_deeper_than_any_model_has_is_refused() {
        let deep = (0..100_000).fold(Sample::new(2), |sample, n| {
            sample.node(&format!("Exp({}) -> e{n}", if n == 0 { "X".into() } else { format!("e{}", n - 1) }))
        });
        let error = Model::read(&deep.file(&["e99999"])).unwrap_err();
        assert!(error.to_string().ends_with("no supported model makes so much of its scores"), "{error}");
    }

    #[test]
    fn rows_of_the_self_check_reach_all_of_their_ranges() {
        let features = [
            Feature { low: -1.0, high: 3.0, name: "a".into(), step: None },
            Feature { low: 0.0, high: 1e-3, name: "b".into(), step: None },
        ];
        let rows: Vec<_> = random_rows(&features, SELF_CHECK_ROWS, [9; 48]).collect();
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
        assert!(check_itself(&bundle, &Model::read(&iris()).unwrap()).is_ok());
        let other = changed(|graph| sample::attribute(graph, "LinearClassifier", "intercepts").floats[1] += 2e-3);
        assert_eq!(check_itself(&bundle, &Model::read(&other).unwrap()).unwrap_err().code(), "self_check");
        let nowhere = Model { places: vec![("nowhere".into(), 0); 3], ..Model::read(&iris()).unwrap() };
        assert_eq!(check_itself(&bundle, &nowhere).unwrap_err().code(), "self_check", "NaN is no number in the bound");
    }
}
