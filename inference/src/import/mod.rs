//! From an ONNX file to a bundle, on the model owner's machine.

mod fold;
mod guard;
mod onnx;
mod plan;

use std::fmt;

use thiserror::Error;

use crate::bound::{ErrorLedger, StatedErrors};
use crate::bundle::{Bundle, BundleError};
use crate::client::EncryptError;
use crate::description::{self, Description, DescriptionError, Feature, Link};
use crate::evaluator::Evaluator;
use crate::mask::{self, SEED_LEN};
use crate::parameters::ParameterSet;
use fold::FoldedModel;
use onnx::Classifier;
use plan::Plan;

/// What the ONNX file does not say.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportOptions {
    /// The model's name, fit for a path.
    pub name: String,
    /// Its version, as its owner counts.
    pub version: String,
    /// ε: the most by which a published logit may differ from scikit-learn's.
    pub precision: f64,
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
        Self { name: name.into(), version: version.into(), precision: 1e-3, ranges: None, feature_names: None }
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

/// Reads an ONNX file, and writes a bundle whose published logits are within `options.precision` of the original model's.
///
/// 1. Read the graph: scaler and linear classifier, nothing else.
/// 2. Declare a range for every feature.
/// 3. Fold scaler and ranges into the weights.
/// 4. Choose the scales.
/// 5. Assemble the bundle, which proves the bound, and try it on random rows.
pub fn import(onnx: &[u8], options: &ImportOptions) -> Result<Imported, ImportError> {
    let parameters = ParameterSet::N2048TUniform17;
    let classifier = Classifier::read(onnx)?;
    description::packing(parameters, classifier.features(), classifier.labels.len())?;
    let features = declare_features(&classifier, options)?;
    features.iter().try_for_each(Feature::check)?;
    let folded = FoldedModel::new(&classifier, &features);
    let plan = Plan::new(&folded, parameters, options.precision)?;
    let bundle = assemble(&classifier, features, plan, folded.errors, options)?;
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

/// How far the declared range reaches if only the scaler is known.
const DEVIATIONS: f64 = 8.0;

fn around(name: String, centre: f64, reach: f64) -> Feature {
    Feature { low: centre - reach, high: centre + reach, name }
}

/// A tenth of the span more on each side; a column that never changed gets a thousandth of its value, or of one.
fn widen(range: &FeatureRange) -> Feature {
    let FeatureRange { name, low, high } = range;
    let margin = match high - low {
        0.0 => 1e-3 * low.abs().max(1.0),
        span => 0.1 * span,
    };
    Feature { low: low - margin, high: high + margin, name: name.clone() }
}

fn assemble(
    classifier: &Classifier,
    features: Vec<Feature>,
    plan: Plan,
    errors: StatedErrors,
    options: &ImportOptions,
) -> Result<Bundle, ImportError> {
    let parameters = ParameterSet::N2048TUniform17;
    let Plan { model, scale, decimals } = plan;
    let description = Description::new(description::Fields {
        v: 1,
        link: Link::Softmax,
        name: options.name.clone(),
        bound: ErrorLedger::new(&model, scale, parameters, decimals, errors).total(),
        limit: model.limit(scale, parameters).try_into().expect("a plan keeps logits and noise under 2^63"),
        scale,
        domain: description::DOMAIN.into(),
        labels: classifier.labels.clone(),
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
    for batch in rows.chunks(bundle.rows_per_request()) {
        let logits = evaluator.evaluate_clear(&description.encode(batch)?);
        for (row, logits) in batch.iter().zip(logits) {
            for (class, logit) in logits.into_iter().enumerate() {
                let difference = (description.publish(logit) - clear_logit(classifier, class, row)).abs();
                largest_difference = largest_difference.max(difference);
            }
        }
    }
    match largest_difference <= bundle.bound() {
        true => Ok(SelfCheck { rows: rows.len(), largest_difference }),
        false => Err(ImportError::SelfCheck { difference: largest_difference, bound: bundle.bound() }),
    }
}

const SELF_CHECK_ROWS: usize = 1000;

/// Every fourth value at an end of its range, the others anywhere in it; the same rows for the same bundle.
fn random_rows(features: &[Feature], digest: [u8; 48]) -> Vec<Vec<f64>> {
    let seed = digest.first_chunk::<SEED_LEN>().expect("48 bytes have 32");
    let mut words = vec![0; features.len() * SELF_CHECK_ROWS];
    mask::expand(seed, &mut words);
    let value = |(feature, word): (&Feature, &u64)| match word & 7 {
        0 => feature.low,
        1 => feature.high,
        _ => (feature.low + (feature.high - feature.low) * (*word as f64 / u64::MAX as f64)).min(feature.high),
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

/// Why a model was not imported.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// Larger than any linear classifier that fits.
    #[error("the ONNX file has {len} bytes, where at most {max} are read")]
    TooLarge {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// Not an ONNX file.
    #[error("not an ONNX file: {reason}")]
    NotOnnx {
        /// What the reader found.
        reason: String,
    },
    /// A node that no linear classifier has, or not so.
    #[error("node {node:?} ({op}): {reason}")]
    UnsupportedNode {
        /// Its name.
        node: String,
        /// Its operator.
        op: String,
        /// What is wrong with it.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
    /// A graph that is not a linear classifier as a whole.
    #[error("the graph is not a linear classifier: {reason}")]
    Graph {
        /// What is wrong with it.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
    /// A parameter that is no number.
    #[error("number {index} of the {attribute} of {op} is {value}")]
    NotFinite {
        /// The node's operator.
        op: String,
        /// Which of its attributes.
        attribute: &'static str,
        /// Counted from 0.
        index: usize,
        /// NaN or an infinity.
        value: f32,
    },
    /// As many ranges or names as there are other columns.
    #[error("{actual} {what} are given, the model has {expected} columns")]
    Columns {
        /// Ranges or names.
        what: &'static str,
        /// The model's columns.
        expected: usize,
        /// As many as given.
        actual: usize,
    },
    /// Nothing says where the features lie.
    #[error("the model has no scaler and no ranges are given: nothing says where its features lie")]
    NoRanges,
    /// A precision that is no positive number.
    #[error("a precision of {precision} cannot be kept")]
    NoPrecision {
        /// As asked for.
        precision: f64,
    },
    /// No scales keep the promise.
    #[error("a precision of {asked:e} is out of reach{}", match reachable {
        Some(precision) => format!("; the smallest that this model reaches with these ranges is {precision:e}"),
        None => "; this model reaches none with these ranges".into(),
    })]
    Precision {
        /// ε, as asked for.
        asked: f64,
        /// The smallest of 1, 2, 5, 10, … × 10^−15 that can be kept, up to a few million.
        reachable: Option<f64>,
    },
    /// The proof says one thing and the trial another: a defect of Cloister.
    #[error("the self-check found logits {difference:e} apart, the proven bound is {bound:e}")]
    SelfCheck {
        /// The largest difference.
        difference: f64,
        /// The bound that it exceeds.
        bound: f64,
    },
    /// A name, range or label that cannot be described; or a model too wide.
    #[error(transparent)]
    Description(#[from] DescriptionError),
    /// The integers do not keep the promises of a bundle: a defect of Cloister.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The self-check's rows are not the model's: a defect of Cloister.
    #[error(transparent)]
    Encode(#[from] EncryptError),
}

impl ImportError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "onnx_too_large",
            Self::NotOnnx { .. } => "not_onnx",
            Self::UnsupportedNode { .. } => "onnx_node",
            Self::Graph { .. } => "onnx_graph",
            Self::NotFinite { .. } => "onnx_not_finite",
            Self::Columns { .. } => "columns",
            Self::NoRanges => "no_ranges",
            Self::NoPrecision { .. } => "no_precision",
            Self::Precision { .. } => "precision",
            Self::SelfCheck { .. } => "self_check",
            Self::Description(error) => error.code(),
            Self::Bundle(error) => error.code(),
            Self::Encode(error) => error.code(),
        }
    }

    /// What a person does about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::UnsupportedNode { remedy, .. } | Self::Graph { remedy, .. } => remedy.clone(),
            Self::TooLarge { .. } | Self::NotOnnx { .. } => "give the .onnx file of a linear classifier".into(),
            Self::NotFinite { .. } => {
                "train the model again; some of its numbers are missing or have overflowed".into()
            }
            Self::Columns { expected, .. } => format!("give {expected}, in the order of the training data's columns"),
            Self::NoRanges => "give training data for the ranges, or put a StandardScaler before the classifier".into(),
            Self::NoPrecision { .. } => "ask for a positive number such as 0.001".into(),
            Self::Precision { reachable: Some(precision), .. } => {
                format!("ask for a precision of {precision:e}, or declare narrower ranges by giving data")
            }
            Self::Precision { reachable: None, .. } => "declare narrower ranges by giving data".into(),
            Self::SelfCheck { .. } | Self::Bundle(_) | Self::Encode(_) => {
                "report this with the ONNX file; it is a defect of Cloister".into()
            }
            Self::Description(error) => error.remedy(),
        }
    }
}
