//! What a client knows of a model: everything to ask it and to read its answers, and nothing of its weights.

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha384};
use thiserror::Error;

use crate::bits::MAX_BITS;
use crate::bound::{GRID_TOLERANCE, LOGIT_ROOM, MAX_DECIMALS, Scale, power_of_ten, publication_error};
use crate::cbor::{self, FormatError};
use crate::limbs::Limbs;
use crate::packing::{Layout, Packing, Shape};
use crate::parameters::ParameterSet;
use crate::selection::{self, Grid, Selection};
use crate::steps::Step;

/// The public half of a bundle, identified by its SHA-384.
///
/// The scales, the bound and the largest logit are sums over the whole model, which any client could read off a few
/// answers. The parameters of its steps are public: what is not linear, and what has to come before that, is done by
/// clients.
#[derive(Clone, PartialEq)]
pub struct Description {
    fields: Fields,
    /// By the numbers of their layouts; none of a model that chooses.
    packings: Vec<Packing>,
    /// Of a model that chooses.
    shape: Option<selection::Shape>,
    bytes: Vec<u8>,
}

/// One input column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feature {
    /// The least value for which the bound holds; lower ones are refused.
    pub low: f64,
    /// The greatest.
    pub high: f64,
    /// The column's name.
    pub name: String,
    /// Values are multiples of this from [`low`](Self::low) on, exactly; others are refused. Without it any value goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<f64>,
}

/// One class.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Label {
    /// One side of a yes-or-no question.
    Boolean(bool),
    /// A class known by a number.
    Integer(i64),
    /// A class known by a name.
    Text(String),
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // As Python writes it, where the labels come from.
            Self::Boolean(true) => f.write_str("True"),
            Self::Boolean(false) => f.write_str("False"),
            Self::Integer(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// What the client makes of logits: probabilities, one per label, or the values of a regression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Link {
    /// Nothing: a decision function, or the values of a regression, as they are.
    Identity,
    /// exp(l_c) / Σ_i exp(l_i).
    Softmax,
    /// σ(l) = 1/(1 + exp(−l)) of the second label, from one logit for two labels.
    Sigmoid,
    /// σ(l_c) / Σ_i σ(l_i), of classifiers that were trained one against the rest.
    OneVsRest,
    /// Nothing: logits are probabilities already, as forests average them; one for two labels is the second's.
    Probability,
    /// exp(l), the values of a regression with a logarithmic link.
    Exp,
}

impl Link {
    /// Whether it gives a probability for each label.
    pub fn gives_probabilities(self) -> bool {
        match self {
            Self::Softmax | Self::Sigmoid | Self::OneVsRest | Self::Probability => true,
            Self::Identity | Self::Exp => false,
        }
    }
}

impl Description {
    /// Reads a description, and checks all that it says.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DescriptionError> {
        Self::new(cbor::read(bytes, DOMAIN, MAX_LEN)?)
    }

    pub(crate) fn new(fields: Fields) -> Result<Self, DescriptionError> {
        let (packings, shape) = fields.check()?;
        let bytes = cbor::write(&fields);
        match bytes.len() {
            0..=MAX_LEN => Ok(Self { fields, packings, shape, bytes }),
            len => Err(FormatError::TooLarge { len, max: MAX_LEN }.into()),
        }
    }

    /// The file's bytes: deterministic CBOR.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.bytes.clone()
    }

    /// SHA-384 of the file's bytes.
    pub fn digest(&self) -> [u8; 48] {
        Sha384::digest(&self.bytes).into()
    }

    /// The model's name, fit for a path.
    pub fn name(&self) -> &str {
        &self.fields.name
    }

    /// The model's version, as its owner counts.
    pub fn version(&self) -> &str {
        &self.fields.version
    }

    /// The parameters under which requests are encrypted.
    pub fn parameters(&self) -> ParameterSet {
        self.fields.parameters
    }

    /// The input columns, in order.
    pub fn features(&self) -> &[Feature] {
        &self.fields.features
    }

    /// What a client does to a row before it encrypts it, in order. The ranges of features are those of the result.
    pub fn steps(&self) -> &[Step] {
        &self.fields.steps
    }

    /// Whether a value of this feature may be missing, since a step fills it in.
    pub fn imputes(&self, feature: usize) -> bool {
        let values = |step: &Step| matches!(step, Step::Impute { values } if values[feature].is_some());
        self.fields.steps.iter().any(values)
    }

    /// The classes, in the order of the logits; none of a regression.
    pub fn labels(&self) -> &[Label] {
        &self.fields.labels
    }

    /// The logits of one row, K: one per label, one for two labels, or one per value of a regression.
    pub fn logits(&self) -> usize {
        self.fields.logits
    }

    /// A name for each logit: its label, or the number of a regression's value.
    pub fn logit_names(&self) -> Vec<String> {
        match (self.labels(), self.logits()) {
            ([], count) => (0..count).map(|index| index.to_string()).collect(),
            ([_, yes], 1) => vec![yes.to_string()],
            (labels, _) => labels.iter().map(ToString::to_string).collect(),
        }
    }

    /// What becomes of logits.
    pub fn link(&self) -> Link {
        self.fields.link
    }

    /// The decimals to which logits are published.
    pub fn decimals(&self) -> u32 {
        self.fields.decimals
    }

    /// Whether the bound is of the model as it is on the bits of its features, and not of the original: of networks, and of
    /// trees whose thresholds are hidden.
    pub fn is_quantised(&self) -> bool {
        let is_uniform = |grid: &Grid| matches!(grid, Grid::Uniform(_));
        self.selection().is_some_and(|selection| selection.grids.iter().any(is_uniform))
    }

    /// The most by which a published logit differs from the model's, for features within their ranges; of trees and networks
    /// from that of the model on its bits, but for a chance of 2^−128.
    pub fn bound(&self) -> f64 {
        self.fields.bound
    }

    /// The scales of the integers.
    pub fn scale(&self) -> Scale {
        self.fields.scale
    }

    /// The largest value that an honest reply decrypts to, as an integer at the scale of a logit.
    pub fn limit(&self) -> u64 {
        self.fields.limit
    }

    /// How integers are split into digits.
    pub fn limbs(&self) -> Limbs {
        self.fields.limbs.unwrap_or(Limbs::WHOLE)
    }

    /// How rows become encrypted bits, if the model is one that chooses: trees, or a network.
    pub fn selection(&self) -> Option<&Selection> {
        self.fields.selection.as_ref()
    }

    pub(crate) fn selection_shape(&self) -> Option<selection::Shape> {
        self.shape
    }

    /// The layouts in which requests may come, by their numbers; none of a model that chooses.
    pub fn layouts(&self) -> &[Layout] {
        &self.fields.layouts
    }

    /// The most logits that an enclave returns from boot to end, if that is limited.
    pub fn budget(&self) -> Option<u64> {
        self.fields.budget
    }

    /// The most rows that one request holds.
    pub fn rows_per_request(&self) -> usize {
        self.packings.iter().map(Packing::capacity).max().unwrap_or(1)
    }

    /// The exact bytes of a request of `rows` rows.
    pub fn request_len(&self, rows: usize) -> usize {
        match self.selection_shape() {
            Some(shape) => shape.request_len(),
            None => self.packing_for(rows).1.request_len(rows),
        }
    }

    /// The exact bytes of the reply to it.
    pub fn reply_len(&self, rows: usize) -> usize {
        match self.selection_shape() {
            Some(shape) => shape.reply_len(),
            None => self.packing_for(rows).1.reply_len(rows),
        }
    }

    /// The layout in which so many rows are sent to a linear model.
    pub fn layout_for(&self, rows: usize) -> Option<Layout> {
        (!self.packings.is_empty()).then(|| self.packing_for(rows).1.layout())
    }

    /// Whether the products of a request of so many rows go through number-theoretic transforms.
    pub fn transforms(&self, rows: usize) -> bool {
        !self.packings.is_empty() && self.packing_for(rows).1.transforms()
    }

    /// The cheapest layout that holds so many rows, or the one that holds most; and its number.
    pub(crate) fn packing_for(&self, rows: usize) -> (u8, &Packing) {
        let by_number = || self.packings.iter().enumerate().map(|(number, packing)| (number as u8, packing));
        let holding = by_number().filter(|(_, packing)| packing.capacity() >= rows);
        let cheapest = holding.min_by(|(_, one), (_, other)| one.cost(rows).total_cmp(&other.cost(rows)));
        cheapest
            .or_else(|| by_number().max_by_key(|(_, packing)| packing.capacity()))
            .expect("every linear model has a layout")
    }

    pub(crate) fn packings(&self) -> &[Packing] {
        &self.packings
    }
}

impl fmt::Debug for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fields.fmt(f)
    }
}

pub(crate) const DOMAIN: &str = "cloister/description";

/// Room for as many features and labels as there may be, most of them with short names.
pub(crate) const MAX_LEN: usize = 6 << 20;

/// A description as it is written, in the order of the keys' encodings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fields {
    pub(crate) v: u64,
    pub(crate) link: Link,
    pub(crate) name: String,
    pub(crate) bound: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limbs: Option<Limbs>,
    pub(crate) limit: u64,
    #[serde(with = "ScaleFields")]
    pub(crate) scale: Scale,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) steps: Vec<Step>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) budget: Option<u64>,
    pub(crate) domain: String,
    pub(crate) labels: Vec<Label>,
    pub(crate) logits: usize,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) layouts: Vec<Layout>,
    pub(crate) version: String,
    pub(crate) decimals: u32,
    pub(crate) features: Vec<Feature>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) selection: Option<Selection>,
    pub(crate) parameters: ParameterSet,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Scale", deny_unknown_fields)]
struct ScaleFields {
    flood: u32,
    reply: u32,
    shift: u32,
    weights: i32,
    features: u32,
}

impl Fields {
    /// Every statement is one that a model can have, and the packings or the shape that follow from them.
    fn check(&self) -> Result<(Vec<Packing>, Option<selection::Shape>), DescriptionError> {
        check_identifier("name", &self.name)?;
        check_identifier("version", &self.version)?;
        self.check_logits()?;
        check_shape(self.features.len(), self.logits)?;
        self.features.iter().try_for_each(Feature::check)?;
        self.check_steps()?;
        self.labels.iter().try_for_each(Label::check)?;
        check_distinct("feature", self.features.iter().map(|feature| &feature.name))?;
        check_distinct("label", self.labels.iter().map(Label::to_string))?;
        self.check_numbers()?;
        match (&self.selection, self.limbs, self.v) {
            // Weights multiply one polynomial; what is chosen has no shift.
            (None, Some(_), 1) if self.parameters.dimension() == 1 => Ok((self.packings()?, None)),
            (Some(selection), None, 2) if self.layouts.is_empty() && !self.scale.is_exact() => {
                Ok((vec![], Some(self.selection_shape(selection)?)))
            }
            _ => Err(DescriptionError::Kind),
        }
    }

    /// A grid for each feature, in a shape that is possible.
    fn selection_shape(&self, selection: &Selection) -> Result<selection::Shape, DescriptionError> {
        let shape = selection::Shape::new(self.parameters, selection, self.logits, self.scale.reply);
        shape.filter(|_| selection.grids.len() == self.features.len()).ok_or(DescriptionError::Selection)
    }

    /// The shape that the statements make.
    pub(crate) fn shape(&self) -> Shape {
        Shape {
            parameters: self.parameters,
            features: self.features.len(),
            logits: self.logits,
            limbs: self.limbs.unwrap_or(Limbs::WHOLE),
            reply_bits: self.scale.reply,
        }
    }

    fn packings(&self) -> Result<Vec<Packing>, DescriptionError> {
        let Self { layouts, .. } = self;
        if !(1..=MAX_LAYOUTS).contains(&layouts.len()) {
            return Err(DescriptionError::Layouts { layouts: layouts.len() });
        }
        // Each is laid out in memory by itself.
        let repeated = layouts.iter().enumerate().find(|(index, layout)| layouts[..*index].contains(layout));
        if let Some((_, &layout)) = repeated {
            return Err(DescriptionError::RepeatedLayout(layout));
        }
        let packing = |&layout: &Layout| Packing::new(self.shape(), layout).ok_or(DescriptionError::Layout(layout));
        layouts.iter().map(packing).collect()
    }

    /// As many logits as the labels and the link ask for.
    fn check_logits(&self) -> Result<(), DescriptionError> {
        let fits = match (self.labels.len(), self.link) {
            (0, Link::Identity | Link::Exp) => self.logits > 0,
            (2, Link::Identity | Link::Sigmoid | Link::Probability) if self.logits == 1 => true,
            (2.., Link::Identity | Link::Softmax | Link::OneVsRest | Link::Probability) => {
                self.logits == self.labels.len()
            }
            _ => false,
        };
        match fits {
            true => Ok(()),
            false => Err(DescriptionError::Logits { logits: self.logits, labels: self.labels.len(), link: self.link }),
        }
    }

    fn check_steps(&self) -> Result<(), DescriptionError> {
        match self.steps.iter().position(|step| !step.fits(self.features.len())) {
            Some(step) => Err(DescriptionError::Step { step }),
            None => Ok(()),
        }
    }

    fn check_numbers(&self) -> Result<(), DescriptionError> {
        if self.decimals > MAX_DECIMALS {
            return Err(DescriptionError::Decimals { decimals: self.decimals });
        }
        let Scale { features, weights, reply, shift, flood } = self.scale;
        let limbs = self.limbs.unwrap_or(Limbs::WHOLE);
        let Limbs { weights: weight_limbs, features: feature_limbs } = limbs;
        let scale_is_sane = (1..=MAX_FEATURE_BITS).contains(&features)
            && WEIGHT_BITS.contains(&weights)
            && (1..=MAX_BITS).contains(&reply)
            && shift.max(flood) <= MAX_SHIFT
            && LOGIT_BITS.contains(&self.scale.logit_bits())
            && weight_limbs.is_sane()
            && feature_limbs.is_sane()
            && (self.scale.is_exact() || limbs == Limbs::WHOLE)
            && self.largest_logit_bits() < 127;
        if !scale_is_sane {
            return Err(DescriptionError::Scale(self.scale));
        }
        if !(self.bound.is_finite() && self.bound >= publication_error(self.decimals)) {
            return Err(DescriptionError::Bound { bound: self.bound, decimals: self.decimals });
        }
        if u128::from(self.limit) >= LOGIT_ROOM {
            return Err(DescriptionError::Limit { limit: self.limit });
        }
        Ok(())
    }

    /// The bits of the largest integer that publishing meets: a recombined logit times 10^k, of digits and a shift that
    /// are sane by themselves.
    fn largest_logit_bits(&self) -> u32 {
        let whole = self.limbs.unwrap_or(Limbs::WHOLE);
        let limbs = whole.weights.count * whole.features.count;
        let summed = whole.last_place().saturating_add(limbs.ilog2() + 1);
        summed.saturating_add(64 - self.scale.shift).saturating_add(power_of_ten(self.decimals).ilog2() + 1)
    }
}

/// A model has a feature and a logit, and no more of each than fit into messages and memory.
pub(crate) fn check_shape(features: usize, logits: usize) -> Result<(), DescriptionError> {
    if features == 0 || logits == 0 {
        return Err(DescriptionError::Empty { features, logits });
    }
    let fits = features <= MAX_FEATURES && logits <= MAX_LOGITS && features * logits <= MAX_WEIGHTS;
    match fits {
        true => Ok(()),
        false => Err(DescriptionError::TooWide { features, logits }),
    }
}

/// The most features of a model.
pub const MAX_FEATURES: usize = 50_000;

/// The most logits of a model.
pub const MAX_LOGITS: usize = 1000;

/// The most weights of a model: features times logits.
pub const MAX_WEIGHTS: usize = 1 << 22;

/// More would only cost memory.
const MAX_LAYOUTS: usize = 8;

/// A larger shift would leave no bit of a word to a logit.
const MAX_SHIFT: u32 = 62;

/// A float64 in [−1, 1] times 2^m is rounded exactly as long as its unit stays above the last bit.
pub(crate) const MAX_FEATURE_BITS: u32 = 51;

/// Weights of any size that makes sense: the scale of 784 pixels is near 20.
pub(crate) const WEIGHT_BITS: std::ops::RangeInclusive<i32> = -40..=110;

/// Decimals are cut from a 128-bit product, L·10^k, by shifting m + w bits out.
pub(crate) const LOGIT_BITS: std::ops::RangeInclusive<i32> = 1..=112;

fn check_identifier(what: &'static str, text: &str) -> Result<(), DescriptionError> {
    let fits = (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && !text.starts_with('.');
    match fits {
        true => Ok(()),
        false => Err(DescriptionError::Identifier { what, text: text.into() }),
    }
}

fn check_text(what: &'static str, text: &str) -> Result<(), DescriptionError> {
    match (1..=128).contains(&text.len()) && !text.contains(char::is_control) {
        true => Ok(()),
        false => Err(DescriptionError::Text { what, text: text.into() }),
    }
}

fn check_distinct<T: Into<String> + Clone + std::hash::Hash + Eq>(
    what: &'static str,
    texts: impl Iterator<Item = T>,
) -> Result<(), DescriptionError> {
    let mut seen = HashSet::new();
    for text in texts {
        if !seen.insert(text.clone()) {
            return Err(DescriptionError::Duplicate { what, text: text.into() });
        }
    }
    Ok(())
}

impl Feature {
    pub(crate) fn check(&self) -> Result<(), DescriptionError> {
        check_text("feature", &self.name)?;
        let Self { low, high, .. } = *self;
        let is_range = low.abs() <= LARGEST && high.abs() <= LARGEST && high - low >= 1.0 / LARGEST;
        if !is_range {
            return Err(DescriptionError::Range { feature: self.name.clone(), low, high });
        }
        match self.step {
            Some(step) if !is_grid(low, high, step) => {
                Err(DescriptionError::Grid { feature: self.name.clone(), step, low, high })
            }
            _ => Ok(()),
        }
    }
}

/// Whether the range is an even number of steps, so that its middle is on the grid.
fn is_grid(low: f64, high: f64, step: f64) -> bool {
    let halves = (high - low) / step * 0.5;
    (1.0..=MAX_GRID).contains(&halves) && (halves - halves.round()).abs() <= halves * GRID_TOLERANCE
}

/// Finer grids are as good as none.
const MAX_GRID: f64 = (1u64 << 40) as f64;

/// Far enough from the ends of float64 that nothing over- or underflows.
const LARGEST: f64 = 1e100;

impl Label {
    fn check(&self) -> Result<(), DescriptionError> {
        match self {
            Self::Boolean(_) | Self::Integer(_) => Ok(()),
            Self::Text(text) => check_text("label", text),
        }
    }
}

/// Why bytes are not a description, or say what cannot be.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum DescriptionError {
    /// Not such a file.
    #[error("the model's description: {0}")]
    Format(#[from] FormatError),
    /// A name or version that does not fit a path.
    #[error("the model's {what} is {text:?}, where 1 to 64 of A-Z a-z 0-9 . _ - are allowed, the first no dot")]
    Identifier {
        /// Name or version.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// A feature's name or a label that is empty, long, or not printable.
    #[error("a {what} is {text:?}, where 1 to 128 bytes without control characters are allowed")]
    Text {
        /// Feature or label.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// Two of the same name.
    #[error("two {what}s are {text:?}")]
    Duplicate {
        /// Feature or label.
        what: &'static str,
        /// Their name.
        text: String,
    },
    /// No features, or no logits.
    #[error("{features} features and {logits} logits are no model")]
    Empty {
        /// d.
        features: usize,
        /// K.
        logits: usize,
    },
    /// More than the limits allow.
    #[error(
        "too wide: {features} features × {logits} logits, where at most {MAX_FEATURES} features, {MAX_LOGITS} logits and \
         {MAX_WEIGHTS} weights are possible"
    )]
    TooWide {
        /// d.
        features: usize,
        /// K.
        logits: usize,
    },
    /// No layouts, or more than are of use.
    #[error("{layouts} layouts, where 1 to {MAX_LAYOUTS} are possible")]
    Layouts {
        /// As many as it has.
        layouts: usize,
    },
    /// A layout in which not one row fits.
    #[error("no row fits into ciphertexts of {} features and {} outputs", .0.features, .0.outputs)]
    Layout(Layout),
    /// The same layout twice.
    #[error("two layouts are of {} features and {} outputs", .0.features, .0.outputs)]
    RepeatedLayout(Layout),
    /// A grid that does not fit its range.
    #[error(
        "feature {feature:?} has a grid of step {step} in the range {low} to {high}, which is no even number of steps"
    )]
    Grid {
        /// The feature.
        feature: String,
        /// Its step.
        step: f64,
        /// Its lower end.
        low: f64,
        /// Its upper end.
        high: f64,
    },
    /// A range that is empty, endless or not a number.
    #[error("feature {feature:?} has the range {low} to {high}")]
    Range {
        /// The feature.
        feature: String,
        /// Its lower end.
        low: f64,
        /// Its upper end.
        high: f64,
    },
    /// A step without a number for each column.
    #[error("step {step} does not have a number for each column")]
    Step {
        /// Counted from 0.
        step: usize,
    },
    /// Neither a linear model nor one that chooses, by its fields and its format.
    #[error("its fields are neither a linear model's nor those of trees or a network")]
    Kind,
    /// Bits that make no request.
    #[error("its bits, their gadget and its check make no request that is possible")]
    Selection,
    /// Scales that no arithmetic here supports.
    #[error("no such scales: {0:?}")]
    Scale(Scale),
    /// More decimals than a float64 has.
    #[error("{decimals} decimals, where at most {MAX_DECIMALS} are possible")]
    Decimals {
        /// As many as it says.
        decimals: u32,
    },
    /// Logits that neither a classifier with these labels nor a regression has.
    #[error("{logits} logits for {labels} labels and the link {link:?}")]
    Logits {
        /// As many as it says.
        logits: usize,
        /// The labels.
        labels: usize,
        /// The link.
        link: Link,
    },
    /// A bound that publication alone exceeds, or that is not a number.
    #[error("a bound of {bound} for {decimals} decimals")]
    Bound {
        /// As it says.
        bound: f64,
        /// The decimals of which half a unit is within any bound.
        decimals: u32,
    },
    /// Logits that would wrap.
    #[error("logits of up to {limit}, where 2^63 wrap")]
    Limit {
        /// As it says.
        limit: u64,
    },
}

impl DescriptionError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Format(error) => error.code(),
            Self::Identifier { .. } => "identifier",
            Self::Text { .. } => "text",
            Self::Duplicate { .. } => "duplicate",
            Self::Empty { .. } => "empty_model",
            Self::TooWide { .. } => "too_wide",
            Self::Layouts { .. } | Self::Layout(_) | Self::RepeatedLayout(_) => "layout",
            Self::Grid { .. } => "grid",
            Self::Range { .. } => "range",
            Self::Step { .. } => "step",
            Self::Kind => "kind",
            Self::Selection => "selection",
            Self::Scale(_) => "scale",
            Self::Decimals { .. } => "decimals",
            Self::Logits { .. } => "logits",
            Self::Bound { .. } => "bound",
            Self::Limit { .. } => "limit",
        }
    }

    /// What a person does about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Format(error) => error.remedy(),
            Self::Identifier { what, .. } => format!("choose another {what}"),
            Self::Text { what, .. } => format!("give that {what} another name"),
            Self::Duplicate { what, .. } => format!("give each {what} its own name"),
            Self::Empty { .. } => "train a model of at least one feature".into(),
            Self::TooWide { logits, .. } => format!(
                "keep at most {} features for {logits} logits, for example the most important ones",
                MAX_FEATURES.min(MAX_WEIGHTS / logits.clamp(&1, &MAX_LOGITS))
            ),
            Self::Grid { .. } => "give a step of which the range is an even multiple, or none".into(),
            Self::Range { .. } => format!("give finite ends, the lower one first, within ±{LARGEST:e}"),
            _ => "import the model again".into(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::steps::Norm;

    pub(crate) fn feature(name: &str, low: f64, high: f64) -> Feature {
        Feature { low, high, name: name.into(), step: None }
    }

    impl Description {
        pub(crate) fn with_steps(&self, steps: Vec<Step>) -> Self {
            Self::new(Fields { steps, ..self.fields.clone() }).unwrap()
        }
    }

    fn fields() -> Fields {
        Fields {
            v: 1,
            link: Link::Softmax,
            name: "sample".into(),
            bound: 1e-3,
            limbs: Some(Limbs::WHOLE),
            limit: 1 << 62,
            scale: Scale { features: 40, weights: 20, reply: 26, shift: 0, flood: 40 },
            steps: vec![],
            budget: Some(1000),
            domain: DOMAIN.into(),
            labels: vec![Label::Integer(-1), Label::Text("other".into())],
            logits: 2,
            layouts: vec![Layout { outputs: 2, features: 2 }, Layout { outputs: 1, features: 1 }],
            version: "1.0".into(),
            decimals: 3,
            features: vec![feature("x0", -1.0, 1.0), feature("x1", 0.0, 1e6)],
            selection: None,
            parameters: ParameterSet::N2048TUniform17,
        }
    }

    fn error(change: impl FnOnce(&mut Fields)) -> DescriptionError {
        let mut fields = fields();
        change(&mut fields);
        Description::new(fields).unwrap_err()
    }

    #[test]
    fn it_reads_back_what_it_writes() {
        let description = Description::new(fields()).unwrap();
        assert_eq!(Description::from_bytes(&description.to_bytes()).unwrap(), description);
        assert_eq!(description.digest(), <[u8; 48]>::from(Sha384::digest(description.to_bytes())));
        assert_eq!(description.labels()[0].to_string(), "-1");
    }

    /// RFC 8949, section 4.2.1: keys in the bytewise order of their encodings, in every map.
    #[test]
    fn keys_are_in_deterministic_order() {
        let value: ciborium::Value =
            ciborium::from_reader(&Description::new(fields()).unwrap().to_bytes()[..]).unwrap();
        assert_sorted(&value);
    }

    #[test]
    fn steps_are_written_in_order_too() {
        let steps = vec![
            Step::Impute { values: vec![Some(0.5), None] },
            Step::Scale { scale: vec![1.0, 2.0], offset: vec![0.0, -1.0] },
            Step::Normalize(Norm::L2),
        ];
        let description = Description::new(fields()).unwrap().with_steps(steps.clone());
        assert_eq!(Description::from_bytes(&description.to_bytes()).unwrap().steps(), steps);
        assert_sorted(&ciborium::from_reader(&description.to_bytes()[..]).unwrap());
    }

    pub(crate) fn assert_sorted(value: &ciborium::Value) {
        match value {
            ciborium::Value::Array(items) => items.iter().for_each(assert_sorted),
            ciborium::Value::Map(entries) => {
                let keys: Vec<_> = entries.iter().map(|(key, _)| cbor::write(key)).collect();
                assert!(keys.is_sorted(), "{entries:?}");
                entries.iter().for_each(|(_, value)| assert_sorted(value));
            }
            _ => {}
        }
    }

    #[test]
    fn the_parameter_set_is_written_by_its_name() {
        for set in ParameterSet::ALL {
            assert_eq!(cbor::write(&set), cbor::write(&set.name()));
        }
    }

    fn limbs(fields: &mut Fields) -> &mut Limbs {
        fields.limbs.get_or_insert(Limbs::WHOLE)
    }

    /// One for each label, or for two the second's.
    #[test]
    fn probabilities_are_logits_of_labels() {
        let of = |logits, labels: i64| {
            let labels = (0..labels).map(Label::Integer).collect();
            let layouts = vec![Layout { outputs: 1, features: 1 }];
            Description::new(Fields { link: Link::Probability, logits, labels, layouts, ..fields() })
        };
        for (logits, labels) in [(1, 2), (2, 2), (3, 3)] {
            let description = of(logits, labels).unwrap();
            let read = Description::from_bytes(&description.to_bytes()).unwrap();
            assert!(read.link() == Link::Probability && read.link().gives_probabilities());
        }
        for (logits, labels) in [(1, 0), (1, 3), (2, 3)] {
            assert_eq!(of(logits, labels).unwrap_err().code(), "logits");
        }
        let written = ciborium::Value::Text("probability".into());
        assert_eq!(cbor::write(&Link::Probability), cbor::write(&written));
    }

    #[test]
    fn each_fault_has_its_error() {
        let code = |change: fn(&mut Fields)| error(change).code();
        assert_eq!(code(|f| f.name = "a/b".into()), "identifier");
        assert_eq!(code(|f| f.version = String::new()), "identifier");
        assert_eq!(code(|f| f.name = "..".into()), "identifier");
        assert_eq!(code(|f| f.features[0].name = "a\nb".into()), "text");
        assert_eq!(code(|f| f.features[0].name = "x1".into()), "duplicate");
        assert_eq!(code(|f| f.labels[1] = Label::Text("-1".into())), "duplicate");
        assert_eq!(code(|f| f.features.clear()), "empty_model");
        assert_eq!(code(|f| f.labels.truncate(1)), "logits");
        assert_eq!(code(|f| f.logits = 1), "logits");
        assert_eq!(code(|f| (f.labels, f.link, f.logits) = (vec![], Link::Exp, 0)), "logits");
        assert_eq!(code(|f| f.features[1].high = f64::NAN), "range");
        assert_eq!(code(|f| f.features[1].high = f64::INFINITY), "range");
        assert_eq!(code(|f| f.features[1].high = f.features[1].low), "range");
        assert_eq!(code(|f| f.steps = vec![Step::Impute { values: vec![None] }]), "step");
        assert_eq!(code(|f| f.scale.features = 52), "scale");
        assert_eq!(code(|f| f.scale.weights = -40), "scale");
        assert_eq!(code(|f| f.scale.weights = i32::MAX), "scale");
        assert_eq!(code(|f| f.scale.reply = 0), "scale");
        assert_eq!(code(|f| f.scale.shift = 63), "scale");
        assert_eq!(code(|f| f.scale.shift = 65), "scale");
        assert_eq!(code(|f| f.scale.shift = u32::MAX), "scale");
        assert_eq!(code(|f| f.scale.flood = u32::MAX), "scale");
        assert_eq!(code(|f| limbs(f).weights.count = 2), "scale");
        assert_eq!(code(|f| limbs(f).features.count = usize::MAX), "scale");
        assert_eq!(code(|f| (limbs(f).weights.count, f.scale.shift) = (8, 1)), "scale");
        assert_eq!(code(|f| f.layouts.clear()), "layout");
        assert_eq!(code(|f| f.layouts.push(f.layouts[0])), "layout");
        assert_eq!(code(|f| f.layouts[1].outputs = 3), "layout");
        assert_eq!(code(|f| f.layouts[0].features = 0), "layout");
        for step in [0.0, -1.0, f64::NAN, 0.3, 2.0, 1e-300] {
            let mut fields = fields();
            fields.features[0].step = Some(step);
            assert_eq!(Description::new(fields).unwrap_err().code(), "grid", "{step}");
        }
        assert_eq!(code(|f| f.decimals = 16), "decimals");
        assert_eq!(code(|f| f.bound = 4e-4), "bound");
        assert_eq!(code(|f| f.bound = f64::NAN), "bound");
        assert_eq!(code(|f| f.limit = 1 << 63), "limit");
    }

    #[test]
    fn a_model_too_wide_is_refused_with_the_numbers() {
        let many = |f: &mut Fields| f.features = (0..50_001).map(|j| feature(&format!("x{j}"), 0.0, 1.0)).collect();
        let error = error(many);
        assert_eq!(error, DescriptionError::TooWide { features: 50_001, logits: 2 });
        assert!(error.to_string().contains("50001"), "{error}");
        assert!(error.remedy().contains("50000"), "{}", error.remedy());
        assert!(check_shape(50_000, 84).is_err() && check_shape(50_000, 83).is_ok());
        assert!(check_shape(1, 1001).is_err() && check_shape(4194, 1000).is_ok());
    }

    #[test]
    fn the_cheapest_layout_that_holds_the_rows_is_taken() {
        let description = Description::new(fields()).unwrap();
        let [small, large] = description.packings() else { unreachable!("there are two") };
        assert_eq!((small.capacity(), large.capacity()), (512, 2048));
        assert_eq!(description.packing_for(1).0, 0);
        assert_eq!(description.packing_for(513).0, 1);
        assert_eq!(description.packing_for(5000).0, 1, "the one that holds most");
        assert_eq!(description.rows_per_request(), 2048);
    }
}
