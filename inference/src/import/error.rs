//! What can go wrong in an import.

use thiserror::Error;

use crate::bundle::BundleError;
use crate::client::EncryptError;
use crate::description::DescriptionError;

/// Why a model was not imported.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// Larger than any model that fits.
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
    /// More features or outputs than are served.
    #[error("the model has {actual} {what}, where at most {max} are supported")]
    TooWide {
        /// Features, logits, weights, trees or what they have.
        what: &'static str,
        /// As many as it has.
        actual: usize,
        /// The limit.
        max: usize,
    },
    /// A node that no supported model has, or not so.
    #[error("node {node:?} ({op:?}): {reason}")]
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
    /// A graph that is no supported model as a whole.
    #[error("the graph is no supported model: {reason}")]
    Graph {
        /// What is wrong with it.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
    /// A parameter that is no number.
    #[error("number {index} of {what} is {value}")]
    NotFinite {
        /// Which attribute or constant.
        what: String,
        /// Counted from 0.
        index: usize,
        /// NaN or an infinity.
        value: f64,
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
    /// The ranges are of other data than the scaler was trained on, or of its columns in another order.
    #[error("column {column}, {name:?}, reaches from {low} to {high}, but the scaler's mean there is {mean}")]
    MeanOutside {
        /// The column, counted from 1.
        column: usize,
        /// Its name.
        name: String,
        /// Its least value.
        low: f64,
        /// Its greatest.
        high: f64,
        /// What the scaler subtracts.
        mean: f64,
    },
    /// Nothing says where a feature lies.
    #[error("no ranges are given and no scaler comes first: nothing says where column {column}, {name:?}, lies")]
    NoRanges {
        /// The column, counted from 1.
        column: usize,
        /// Its name.
        name: String,
    },
    /// A precision that is no positive number.
    #[error("a precision of {precision} cannot be kept")]
    NoPrecision {
        /// As asked for.
        precision: f64,
    },
    /// No scales keep the promise.
    #[error("a precision of {asked:e} is out of reach{}{}", match reachable {
        Some(precision) => format!("; the smallest that this model reaches with these ranges is {precision:e}"),
        None => "; this model reaches none with these ranges".into(),
    }, match export {
        0.0 => String::new(),
        export => format!(" (what float32 has lost in the file is up to {export:.1e})"),
    })]
    Precision {
        /// ε, as asked for.
        asked: f64,
        /// What the file's float32 numbers may have lost.
        export: f64,
        /// The smallest of 1, 2, 5, 10, … × 10^−15 that can be kept, up to a few million.
        reachable: Option<f64>,
    },
    /// Thresholds of a model that has none.
    #[error("the model has no thresholds that could be public: it has no trees")]
    NoThresholds,
    /// More bits than one request holds.
    #[error("the {bits} bits of a row take {len} bytes, where one request has at most {max}")]
    TooLong {
        /// The bits of a row.
        bits: usize,
        /// What they take at least.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A distance that is no probability.
    #[error("a distance of {distance} cannot be kept")]
    NoDistance {
        /// As asked for.
        distance: f64,
    },
    /// No plan hides the model so well.
    #[error("no plan keeps replies within 2^{:.1} of what logits alone say{}", asked.log2(), match reachable {
        Some(distance) => format!("; the least for this model, ranges and precision is 2^{}", distance.log2()),
        None => "; this model, ranges and precision allow none".into(),
    })]
    Distance {
        /// As asked for.
        asked: f64,
        /// The least power of two that can be kept.
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
            Self::TooWide { .. } => "onnx_too_wide",
            Self::UnsupportedNode { .. } => "onnx_node",
            Self::Graph { .. } => "onnx_graph",
            Self::NotFinite { .. } => "onnx_not_finite",
            Self::Columns { .. } => "columns",
            Self::MeanOutside { .. } => "mean_outside",
            Self::NoRanges { .. } => "no_ranges",
            Self::NoPrecision { .. } => "no_precision",
            Self::Precision { .. } => "precision",
            Self::NoDistance { .. } => "no_distance",
            Self::NoThresholds => "no_thresholds",
            Self::TooLong { .. } => "too_long",
            Self::Distance { .. } => "distance",
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
            Self::TooLarge { .. } | Self::NotOnnx { .. } => {
                "give the .onnx file of a linear model, trees or a network of one hidden layer".into()
            }
            Self::TooWide { what, max, .. } => format!(
                "train a model of at most {max} {what}{}",
                match *what {
                    "trees" => ", by n_estimators or max_iter",
                    "nodes of trees" => ", by n_estimators, max_depth or max_leaf_nodes",
                    "decisions one after the other" => ", by max_depth",
                    _ => "",
                }
            ),
            Self::NotFinite { .. } => {
                "train the model again; some of its numbers are missing or have overflowed. Trees learn such from missing \
                 values: fill these in with a SimpleImputer before them"
                    .into()
            }
            Self::Columns { expected, .. } => format!("give {expected}, in the order of the training data's columns"),
            Self::MeanOutside { .. } => {
                "give the training data, or data like it, with its columns in the order in which the model was trained"
                    .into()
            }
            Self::NoRanges { .. } => {
                "give training data for the ranges, or begin the pipeline with a StandardScaler, MinMaxScaler, \
                 MaxAbsScaler or RobustScaler of all columns"
                    .into()
            }
            Self::NoPrecision { .. } => "ask for a positive number such as 0.001".into(),
            Self::NoThresholds => "import it without public thresholds".into(),
            Self::TooLong { .. } => {
                "make the thresholds public if they are trees, train on fewer columns, or ask for a coarser precision"
                    .into()
            }
            Self::NoDistance { .. } => "ask for a number between 0 and 1, such as 2^-30".into(),
            Self::Distance { reachable: Some(distance), .. } => {
                format!(
                    "ask for 2^{}, for a coarser precision, or declare narrower ranges by giving data",
                    distance.log2()
                )
            }
            Self::Distance { reachable: None, .. } => "ask for a coarser precision, or declare narrower ranges".into(),
            Self::Precision { export, asked, .. } if export > asked => {
                "export the model in float64 (DoubleTensorType), or ask for a coarser precision".into()
            }
            Self::Precision { reachable: Some(precision), .. } => {
                format!("ask for a precision of {precision:e}, or give a linear model narrower ranges by data")
            }
            Self::Precision { reachable: None, .. } => "declare narrower ranges by giving data".into(),
            Self::SelfCheck { .. } | Self::Bundle(_) | Self::Encode(_) => {
                "report this with the ONNX file; it is a defect of Cloister".into()
            }
            Self::Description(error) => error.remedy(),
        }
    }
}
