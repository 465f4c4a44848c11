//! A model as the enclave holds it: its description, its integers, and the proof that the two belong together.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha384};
use thiserror::Error;

use crate::bound::{ErrorLedger, IntegerModel, LOGIT_ROOM, Noise, Norms, StatedErrors};
use crate::cbor::{self, Bytes, FormatError};
use crate::description::{self, Description, DescriptionError, MAX_LOGITS, MAX_WEIGHTS};
use crate::parameters::ParameterSet;
use crate::selection;
use crate::selection::model::ModelError;
use crate::selection::noise::Noise as SelectionNoise;

/// A model, identified by the SHA-384 of its file.
///
/// A value of this type keeps what it promises: every condition is checked by whatever makes one, loading included.
/// Only the two error terms that stem from the original model, `export` and `arithmetic`, are taken from the file; the
/// other terms are computed again from its integers.
#[derive(Clone, PartialEq)]
pub struct Bundle {
    description: Description,
    model: Model,
    ledger: ErrorLedger,
    distance: f64,
    bytes: Vec<u8>,
}

impl Bundle {
    /// No bundle has more bytes.
    pub const MAX_LEN: usize = MAX_LEN;

    /// Reads a bundle, and checks that decryption cannot fail and that the bound holds.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BundleError> {
        let Fields { v, model, biases, domain: _, export, weights, arithmetic, description } =
            cbor::read(bytes, DOMAIN, MAX_LEN)?;
        let description = Description::from_bytes(&description.0)?;
        let model = match (v, model, biases, weights) {
            (1, None, Some(biases), Some(weights)) => Model::Linear(IntegerModel { weights, biases }),
            (2, Some(model), None, None) => Model::Selection(model),
            _ => return Err(BundleError::Kind),
        };
        Self::new(description, model, StatedErrors { export, arithmetic })
    }

    pub(crate) fn new(
        description: Description,
        model: impl Into<Model>,
        stated: StatedErrors,
    ) -> Result<Self, BundleError> {
        let model = model.into();
        let (ledger, distance) = match &model {
            Model::Linear(model) => check_linear(&description, model, stated)?,
            Model::Selection(model) => check_selection(&description, model, stated)?,
        };
        let bytes = cbor::write(&Fields::new(&description, &model, stated));
        Ok(Self { description, model, ledger, distance, bytes })
    }

    /// The file's bytes: deterministic CBOR.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.bytes.clone()
    }

    /// SHA-384 of the file's bytes.
    pub fn digest(&self) -> [u8; 48] {
        Sha384::digest(&self.bytes).into()
    }

    /// What clients may know.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The model's name, fit for a path.
    pub fn name(&self) -> &str {
        self.description.name()
    }

    /// The model's version, as its owner counts.
    pub fn version(&self) -> &str {
        self.description.version()
    }

    /// The parameters under which requests are encrypted.
    pub fn parameters(&self) -> ParameterSet {
        self.description.parameters()
    }

    /// The logits of one row: K.
    pub fn logits(&self) -> usize {
        self.description.logits()
    }

    /// The most rows that one request holds.
    pub fn rows_per_request(&self) -> usize {
        self.description.rows_per_request()
    }

    /// The exact bytes of a request of `rows` rows.
    pub fn request_len(&self, rows: usize) -> usize {
        self.description.request_len(rows)
    }

    /// The exact bytes of the reply to it.
    pub fn reply_len(&self, rows: usize) -> usize {
        self.description.reply_len(rows)
    }

    /// The most by which a published logit differs from scikit-learn's.
    pub fn bound(&self) -> f64 {
        self.description.bound()
    }

    /// Where that bound comes from.
    pub fn ledger(&self) -> &ErrorLedger {
        &self.ledger
    }

    /// How much a reply says about the weights beside the integer logits of its rows, for each row: the statistical
    /// distance, given that the mask is hidden, between its outputs and what anybody can make of those logits. For a
    /// client that follows the protocol; above 1 it promises nothing.
    pub fn distance_per_row(&self) -> f64 {
        self.distance
    }

    pub(crate) fn model(&self) -> &Model {
        &self.model
    }
}

/// What a model computes, in integers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    Linear(IntegerModel),
    Selection(selection::model::Model),
}

impl From<IntegerModel> for Model {
    fn from(model: IntegerModel) -> Self {
        Self::Linear(model)
    }
}

impl From<selection::model::Model> for Model {
    fn from(model: selection::model::Model) -> Self {
        Self::Selection(model)
    }
}

/// The weights stay out of logs.
impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundle").field("description", &self.description).finish_non_exhaustive()
    }
}

const DOMAIN: &str = "cloister/bundle";

/// A description, 9 bytes for every weight, and some for each limb of every bias; trees and networks have fewer numbers.
const MAX_LEN: usize = description::MAX_LEN + 9 * MAX_WEIGHTS + 9 * 100 * MAX_LOGITS;

/// A bundle as it is written, in the order of the keys' encodings.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    v: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<selection::model::Model>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    biases: Option<Vec<Vec<i64>>>,
    domain: String,
    export: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weights: Option<Vec<Vec<i64>>>,
    arithmetic: f64,
    description: Bytes,
}

impl Fields {
    fn new(description: &Description, model: &Model, StatedErrors { export, arithmetic }: StatedErrors) -> Self {
        let (v, biases, weights, model) = match model {
            Model::Linear(IntegerModel { weights, biases }) => (1, Some(biases.clone()), Some(weights.clone()), None),
            Model::Selection(model) => (2, None, None, Some(model.clone())),
        };
        let description = Bytes(description.to_bytes());
        Self { v, model, biases, domain: DOMAIN.into(), export, weights, arithmetic, description }
    }
}

fn check_linear(
    description: &Description,
    model: &IntegerModel,
    stated: StatedErrors,
) -> Result<(ErrorLedger, f64), BundleError> {
    if description.selection().is_some() {
        return Err(BundleError::Kind);
    }
    check_shape(description, model)?;
    let noise = check_certainty(description, model)?;
    check_stated(stated)?;
    let ledger =
        ErrorLedger::new(model, description.features(), description.scale(), &noise, description.decimals(), stated);
    check_bound(description, &ledger)?;
    Ok((ledger, noise.distance(&description.packings()[0].shape)))
}

/// As [`check_linear`], of a model that chooses.
fn check_selection(
    description: &Description,
    model: &selection::model::Model,
    stated: StatedErrors,
) -> Result<(ErrorLedger, f64), BundleError> {
    let (selection, shape) = (description.selection(), description.selection_shape());
    let (Some(selection), Some(shape)) = (selection, shape) else { return Err(BundleError::Kind) };
    model.check(&shape, &selection.grids)?;
    let noise = SelectionNoise::new(&shape, model.depths(&selection.ranges()), description.scale().flood);
    let limit = noise.limit(model.largest(), &shape);
    let limit = limit.ok_or(BundleError::Uncertain {
        limit: model.largest().saturating_add(noise.total() as u128),
        noise: noise.total() as u128,
        room: LOGIT_ROOM,
    })?;
    if limit != description.limit() {
        return Err(BundleError::Limit { stated: description.limit(), actual: limit.into() });
    }
    check_stated(stated)?;
    let ledger = noise.ledger(description.scale().unit(), model.summands(), description.decimals(), stated);
    check_bound(description, &ledger)?;
    Ok((ledger, noise.distance(&shape)))
}

fn check_shape(description: &Description, model: &IntegerModel) -> Result<(), BundleError> {
    let (features, classes) = (description.features().len(), description.logits());
    let check = |what, expected, actual| match expected == actual {
        true => Ok(()),
        false => Err(BundleError::Shape { what, expected, actual }),
    };
    let limbs = description.limbs();
    check("rows of biases", classes, model.biases.len())?;
    let digits = limbs.weights.count * limbs.features.count;
    model.biases.iter().try_for_each(|row| check("digits of a bias", digits, row.len()))?;
    check("rows of weights", classes, model.weights.len())?;
    model.weights.iter().try_for_each(|row| check("weights of a class", features, row.len()))
}

/// Decryption cannot fail: P·2^δ and all noise stay below 2^63, noise alone below 2^(δ−1) if it is to be rounded away, and
/// clients know the limit.
fn check_certainty(description: &Description, model: &IntegerModel) -> Result<Noise, BundleError> {
    let (packings, scale) = (description.packings(), description.scale());
    let reaches: Vec<u64> = description.features().iter().map(|feature| feature.reach(scale.features)).collect();
    let norms = Norms::new(model, description.limbs(), &reaches);
    let noise = Noise::new(&norms, scale, packings);
    match noise.limit(norms.largest(), scale) {
        Err(limit) => Err(BundleError::Uncertain { limit, noise: noise.total(), room: LOGIT_ROOM }),
        Ok(limit) if limit != description.limit() => {
            Err(BundleError::Limit { stated: description.limit(), actual: limit.into() })
        }
        Ok(_) => Ok(noise),
    }
}

fn check_stated(stated: StatedErrors) -> Result<(), BundleError> {
    for (what, error) in [("export", stated.export), ("arithmetic", stated.arithmetic)] {
        if !(error >= 0.0 && error.is_finite()) {
            return Err(BundleError::StatedError { what, error });
        }
    }
    Ok(())
}

/// The bound holds: it is no less than the sum of the ledger.
fn check_bound(description: &Description, ledger: &ErrorLedger) -> Result<(), BundleError> {
    match ledger.total() <= description.bound() {
        true => Ok(()),
        false => Err(BundleError::Bound { stated: description.bound(), actual: ledger.total() }),
    }
}

/// Why bytes are not a bundle, or one that does not keep its promises.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Not such a file.
    #[error("the bundle: {0}")]
    Format(#[from] FormatError),
    /// The description inside is faulty.
    #[error(transparent)]
    Description(#[from] DescriptionError),
    /// Fields of a linear model and of trees or a network, or a description of the other.
    #[error("the bundle's fields are neither a linear model's nor those of trees or a network")]
    Kind,
    /// Trees or a network that are none.
    #[error("the bundle: {0}")]
    Model(#[from] ModelError),
    /// Not as many integers as the description's columns and classes ask for.
    #[error("the bundle has {actual} {what}, its description asks for {expected}")]
    Shape {
        /// Which integers.
        what: &'static str,
        /// As many as it takes.
        expected: usize,
        /// As many as there are.
        actual: usize,
    },
    /// A sum could wrap, so that a decryption could be wrong.
    #[error("logits reach {limit}, of which {noise} are noise, where {room} wrap: decryption would not be certain")]
    Uncertain {
        /// P·2^δ and all noise.
        limit: u128,
        /// All noise.
        noise: u128,
        /// 2^63.
        room: u128,
    },
    /// Clients are told another limit.
    #[error("the description says that logits reach {stated}, the weights say {actual}")]
    Limit {
        /// The description's.
        stated: u64,
        /// The weights'.
        actual: u128,
    },
    /// An error term that is none.
    #[error("the {what} error is stated as {error}")]
    StatedError {
        /// Which.
        what: &'static str,
        /// As stated.
        error: f64,
    },
    /// The errors exceed what the description promises.
    #[error("the description promises {stated:e}, the errors add up to {actual:e}")]
    Bound {
        /// The description's.
        stated: f64,
        /// The ledger's sum.
        actual: f64,
    },
}

impl BundleError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Format(error) => error.code(),
            Self::Description(error) => error.code(),
            Self::Kind => "bundle_kind",
            Self::Model(_) => "bundle_model",
            Self::Shape { .. } => "bundle_shape",
            Self::Uncertain { .. } => "bundle_uncertain",
            Self::Limit { .. } => "bundle_limit",
            Self::StatedError { .. } => "bundle_stated_error",
            Self::Bound { .. } => "bundle_bound",
        }
    }

    /// What a person does about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Format(FormatError::Malformed { .. }) => {
                "give a bundle: cloister model import FILE.onnx --out NAME.cloister makes one".into()
            }
            Self::Format(error) => error.remedy(),
            Self::Description(error) => error.remedy(),
            _ => "import the model again; this file was not made by an unchanged Cloister".into(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::bound::Scale;
    use crate::description::tests::{assert_sorted, feature};
    use crate::description::{Label, Link};
    #[cfg(feature = "client")]
    use crate::limbs::Digits;
    use crate::limbs::Limbs;
    use crate::mask::{Keystream, SEED_LEN};
    #[cfg(feature = "client")]
    use crate::packing::Layout;
    use crate::packing::{Packing, Shape};

    /// `count` words that look random and are always the same.
    pub(crate) fn uniform(count: usize, seed: u8) -> Vec<u64> {
        let mut words = vec![0; count];
        Keystream::new(&[seed; SEED_LEN]).fill(&mut words);
        words
    }

    const STATED: StatedErrors = StatedErrors { export: 1e-6, arithmetic: 1e-12 };

    /// Weights of 20 bits, biases of 60 in all, and every feature in −1 … 1: 2^30 integers of it, or 8 if exact.
    fn sample_parts(features: usize, classes: usize, limbs: Limbs) -> (description::Fields, IntegerModel) {
        let parameters = ParameterSet::N2048TUniform17;
        let exact = limbs != Limbs::WHOLE;
        let scale = match exact {
            false => Scale { features: 30, weights: 10, reply: 40, shift: 0, flood: 34 },
            true => Scale { features: 10, weights: 20, reply: 40, shift: 40, flood: 38 },
        };
        let weights: Vec<i64> = uniform(features * classes, 2).into_iter().map(|word| word as i64 >> 44).collect();
        let bias = |word: u64| word as i64 >> if exact { 35 } else { 4 };
        let biases = uniform(classes, 3).into_iter().map(|word| limbs.split(bias(word).into()).unwrap()).collect();
        let model = IntegerModel { weights: weights.chunks(features).map(<[i64]>::to_vec).collect(), biases };
        let shape = Shape { parameters, features, logits: classes, limbs, reply_bits: scale.reply };
        let mut fields = description::Fields {
            v: 1,
            link: Link::Softmax,
            name: "sample".into(),
            bound: 1.0,
            limbs: Some(limbs),
            limit: 1,
            scale,
            steps: vec![],
            budget: None,
            domain: description::DOMAIN.into(),
            labels: (0..classes as i64).map(Label::Integer).collect(),
            logits: classes,
            layouts: Packing::choose(shape),
            version: "1".into(),
            decimals: 3,
            features: (0..features).map(|j| feature(&format!("x{j}"), -1.0, 1.0)).collect(),
            selection: None,
            parameters,
        };
        promise(&mut fields, &model);
        (fields, model)
    }

    /// States the bound and the limit that hold.
    fn promise(fields: &mut description::Fields, model: &IntegerModel) {
        let (shape, scale) = (fields.shape(), fields.scale);
        let packings: Vec<_> = fields.layouts.iter().map(|&layout| Packing::new(shape, layout).unwrap()).collect();
        let norms = Norms::new(model, fields.limbs.unwrap(), &vec![1 << scale.features; shape.features]);
        let noise = Noise::new(&norms, scale, &packings);
        fields.bound = ErrorLedger::new(model, &fields.features, scale, &noise, fields.decimals, STATED).total();
        fields.limit = noise.limit(norms.largest(), scale).unwrap();
    }

    impl Bundle {
        /// The integers of a linear model.
        #[cfg(feature = "client")]
        pub(crate) fn linear(&self) -> &IntegerModel {
            match &self.model {
                Model::Linear(model) => model,
                Model::Selection(_) => panic!("a linear model"),
            }
        }

        /// Those of one that chooses.
        #[cfg(feature = "client")]
        pub(crate) fn chooses(&self) -> &selection::model::Model {
            match &self.model {
                Model::Selection(model) => model,
                Model::Linear(_) => panic!("a model that chooses"),
            }
        }
    }

    /// A model that chooses, of features of so many bits, with logits as large as there is room for.
    #[cfg(feature = "client")]
    pub(crate) fn chooser(
        parameters: ParameterSet,
        gadget: selection::Gadget,
        model: impl Into<selection::model::Model>,
        bits: &[u32],
    ) -> Bundle {
        use crate::selection::{Check, Grid, Selection};
        let mut model = model.into();
        let scale = 1 << (61 - model.largest().ilog2());
        model.change(|value| *value *= scale);
        let (mut fields, _) = sample_parts(bits.len(), model.base().len().max(2), Limbs::WHOLE);
        let check = Check { bits: 8, count: 2 };
        let grids = bits.iter().map(|&bits| Grid::Uniform(bits)).collect();
        (fields.v, fields.limbs, fields.layouts) = (2, None, vec![]);
        fields.selection = Some(Selection { check, grids, gadget, single: false });
        fields.scale = Scale { flood: 10, reply: 40, shift: 0, weights: 58, features: 1 };
        (fields.logits, fields.parameters) = (model.base().len(), parameters);
        if fields.logits == 1 {
            (fields.labels, fields.link) = (vec![], Link::Identity);
        }
        let selection = fields.selection.clone().unwrap();
        let shape = selection::Shape::new(parameters, &selection, fields.logits, 40).unwrap();
        let noise = SelectionNoise::new(&shape, model.depths(&selection.ranges()), 10);
        fields.limit = noise.limit(model.largest(), &shape).unwrap();
        fields.bound = noise.ledger(fields.scale.unit(), model.summands(), fields.decimals, STATED).total();
        Bundle::new(Description::new(fields).unwrap(), model, STATED).unwrap()
    }

    /// A model of that shape, with noise in its logits.
    pub(crate) fn sample(features: usize, classes: usize) -> Bundle {
        sample_with(features, classes, Limbs::WHOLE, |_| ())
    }

    /// A model of that shape whose logits are exact: weights in three digits of 7 bits, features in two of 6.
    #[cfg(feature = "client")]
    pub(crate) fn exact_sample(features: usize, classes: usize) -> Bundle {
        sample_with(features, classes, EXACT, |_| ())
    }

    #[cfg(feature = "client")]
    const EXACT: Limbs = Limbs { weights: Digits { bits: 7, count: 3 }, features: Digits { bits: 6, count: 2 } };

    fn sample_with(
        features: usize,
        classes: usize,
        limbs: Limbs,
        change: impl FnOnce(&mut description::Fields),
    ) -> Bundle {
        let (mut fields, model) = sample_parts(features, classes, limbs);
        if classes == 1 {
            (fields.labels, fields.link) = (vec![], Link::Identity);
        }
        change(&mut fields);
        promise(&mut fields, &model);
        Bundle::new(Description::new(fields).unwrap(), model, STATED).unwrap()
    }

    /// As [`exact_sample`], in one layout with all features in one block, and with replies that keep nearly every bit: what
    /// the modulus switch hides is left to see.
    #[cfg(feature = "client")]
    pub(crate) fn attacked_sample(features: usize, classes: usize) -> Bundle {
        sample_with(features, classes, EXACT, |fields| {
            fields.scale.reply = 56;
            fields.layouts = vec![Layout { outputs: 3, features }];
        })
    }

    /// What is told of a model with these logits, labels and link.
    #[cfg(feature = "client")]
    pub(crate) fn described(logits: usize, labels: Vec<Label>, link: Link) -> Description {
        let (mut fields, _) = sample_parts(4, 2, Limbs::WHOLE);
        (fields.logits, fields.labels, fields.link) = (logits, labels, link);
        fields.layouts = Packing::choose(fields.shape());
        Description::new(fields).unwrap()
    }

    fn error(change: impl FnOnce(&mut description::Fields, &mut IntegerModel, &mut StatedErrors)) -> BundleError {
        let ((mut fields, mut model), mut stated) = (sample_parts(4, 3, Limbs::WHOLE), STATED);
        change(&mut fields, &mut model, &mut stated);
        Bundle::new(Description::new(fields).unwrap(), model, stated).unwrap_err()
    }

    #[test]
    fn it_reads_back_what_it_writes() {
        let bundle = sample(4, 3);
        let read = Bundle::from_bytes(&bundle.to_bytes()).unwrap();
        assert_eq!(read, bundle);
        assert_eq!(read.ledger().total(), read.bound());
        assert_eq!(read.digest(), <[u8; 48]>::from(Sha384::digest(bundle.to_bytes())));
        assert_sorted(&ciborium::from_reader(&bundle.to_bytes()[..]).unwrap());
    }

    #[test]
    fn the_description_gives_no_weight_away() {
        let (bundle, other) = (sample(4, 3), sample_parts(4, 3, Limbs::WHOLE));
        let description = bundle.description().to_bytes();
        for number in other.1.weights.iter().chain(&other.1.biases).flatten() {
            let encoded = cbor::write(number);
            assert!(!description.windows(encoded.len()).any(|window| window == encoded), "{number}");
        }
        assert!(!format!("{bundle:?}").contains("weights: [["));
    }

    #[test]
    fn a_shape_that_does_not_fit_is_refused() {
        let shape = |what, expected, actual| BundleError::Shape { what, expected, actual };
        assert_eq!(error(|_, model, _| model.biases.truncate(2)), shape("rows of biases", 3, 2));
        assert_eq!(error(|_, model, _| model.biases[1].push(0)), shape("digits of a bias", 1, 2));
        assert_eq!(error(|_, model, _| model.weights.push(vec![0; 4])), shape("rows of weights", 3, 4));
        assert_eq!(error(|_, model, _| model.weights[2].push(0)), shape("weights of a class", 4, 5));
        assert_eq!(
            error(|fields, _, _| {
                fields.features.truncate(3);
                fields.layouts.retain(|layout| layout.features == 1);
            }),
            shape("weights of a class", 3, 4)
        );
    }

    #[test]
    fn a_decryption_that_could_fail_is_refused() {
        let huge = error(|_, model, _| model.weights[0][0] = 1 << 33);
        assert!(
            matches!(huge, BundleError::Uncertain { limit, room, .. } if limit >= room && room == 1 << 63),
            "{huge}"
        );
        let extreme = error(|_, model, _| model.weights[0] = vec![i64::MIN; 4]);
        assert_eq!(extreme.code(), "bundle_uncertain");
        assert_eq!(error(|_, model, _| model.biases = vec![vec![i64::MIN]; 3]).code(), "bundle_uncertain");
        assert_eq!(error(|fields, _, _| fields.scale.reply = 10).code(), "bundle_uncertain");
    }

    #[test]
    fn a_promise_that_is_not_kept_is_refused() {
        assert_eq!(error(|_, model, _| model.weights[0][0] += 1).code(), "bundle_limit");
        assert_eq!(error(|fields, _, _| fields.limit += 1).code(), "bundle_limit");
        assert_eq!(error(|fields, _, _| fields.bound = fields.bound.next_down()).code(), "bundle_bound");
        assert_eq!(error(|_, _, stated| stated.export *= 2.0).code(), "bundle_bound");
        for value in [f64::NAN, f64::INFINITY, -1e-9] {
            assert_eq!(error(|_, _, stated| stated.arithmetic = value).code(), "bundle_stated_error");
        }
    }

    #[test]
    fn no_truncation_is_a_bundle() {
        let bytes = sample(4, 3).to_bytes();
        for len in 0..bytes.len() {
            let error = Bundle::from_bytes(&bytes[..len]).unwrap_err();
            assert!(error.code().starts_with("format_"), "{len}: {error}");
        }
    }

    /// Whatever the one flipped bit says, the file is refused with a reason, or still keeps all that it promises.
    #[test]
    fn no_flipped_bit_panics() {
        let bytes = sample(4, 3).to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match Bundle::from_bytes(&flipped) {
                Ok(bundle) => {
                    assert_eq!(bundle.to_bytes(), flipped);
                    assert!(bundle.ledger().total() <= bundle.bound());
                }
                Err(error) => assert!(!error.remedy().is_empty() && !error.code().is_empty()),
            }
        }
    }

    #[test]
    fn other_files_are_refused() {
        let bundle = sample(4, 3);
        assert_eq!(
            Bundle::from_bytes(&bundle.description().to_bytes()).unwrap_err(),
            FormatError::Domain { expected: DOMAIN, actual: description::DOMAIN.into() }.into()
        );
        let newer = [&[0xa2, 0x61, b'v', 0x03][..], &cbor::write(&"domain"), &cbor::write(&DOMAIN)].concat();
        assert_eq!(Bundle::from_bytes(&newer).unwrap_err(), FormatError::Version { version: 3 }.into());
        assert_eq!(Bundle::from_bytes(&vec![0; MAX_LEN + 1]).unwrap_err().code(), "format_too_large");
        assert!(Bundle::from_bytes(&newer).unwrap_err().to_string().contains("made by a newer Cloister: update"));
    }
}
