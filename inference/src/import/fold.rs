//! Folding the chain and the ranges into one affine map of [−1, 1]^d, with the errors that this brings.
//!
//! Two walks, neither of which multiplies matrices out:
//!
//! 1. Forward, the *extent* of every vector over all rows within their ranges: its values at the centre, which end in
//!    β, and its errors.
//! 2. Backward, how each logit depends on every vector, which ends in V.

use std::collections::{HashMap, HashSet};

use super::ImportError;
use super::chain::{Chain, Id, Operation};
use super::model::Model;
use super::onnx::graph_refused;
use super::tensor::{Parameters, Precision};
use crate::bound::{StatedErrors, power_of_two};
use crate::description::Feature;

/// logit_c = β_c + Σ_j V_cj·u_j with u_j = (x_j − c_j)/h_j: what is left to quantise.
#[derive(Clone, Debug)]
pub(super) struct FoldedModel {
    /// V_cj = W_cj·h_j, one row per class.
    pub(super) weights: Vec<Vec<f64>>,
    /// β_c, the logit at the centre of the ranges.
    pub(super) biases: Vec<f64>,
    pub(super) errors: StatedErrors,
}

impl FoldedModel {
    pub(super) fn new(model: &Model, features: &[Feature]) -> Result<Self, ImportError> {
        let needed = model.chain.needed(model.logits);
        let extent = extents(model, features, &needed)?;
        let weights = slopes(model, &needed)?;
        let scale =
            |row: Vec<f64>| row.iter().zip(features).map(|(slope, feature)| slope * feature.half_width()).collect();
        let weights: Vec<Vec<f64>> = weights.into_iter().map(scale).collect();
        let errors = StatedErrors {
            export: largest(&extent.export) * ROUNDED_UP,
            arithmetic: arithmetic_error(&extent, backward_roundings(model, &needed)) * ROUNDED_UP + UNDERFLOW,
        };
        match weights.iter().flatten().chain(&extent.centre).all(|number| number.abs() <= LARGEST) {
            true => Ok(Self { weights, biases: extent.centre, errors }),
            false => Err(overflow()),
        }
    }
}

/// Other models are not folded.
const AFFINE: &str = "only what is affine is folded";

/// What float64 keeps far from its ends: no product of two such numbers is lost.
const LARGEST: f64 = 1e100;

/// A vector that adds to less, times all that may follow, within [`LARGEST`].
const UNDERFLOW: f64 = 1e-200;

/// The roundings of the errors' own sums, of at most 2^25 terms.
const ROUNDED_UP: f64 = 1.0 + 1e-7;

fn overflow() -> ImportError {
    graph_refused(format!("some of its numbers exceed {LARGEST:e} within the ranges of its features"))
}

fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// One float32 ulp of `value`, at least: 2^−23 of it, or the least step near zero.
pub(super) fn ulp32(value: f64) -> f64 {
    value.abs() * power_of_two(-23) + power_of_two(-149)
}

/// A vector over all rows within the ranges.
#[derive(Clone, Debug, Default)]
struct Extent {
    /// Its values at the centre of the ranges.
    centre: Vec<f64>,
    /// The most that they move from there.
    half: Vec<f64>,
    /// The most that they are off if each float32 parameter moves by one ulp.
    export: Vec<f64>,
    /// T: the sum of the magnitudes of all terms, had everything been multiplied out. No order of evaluation meets more.
    terms: Vec<f64>,
    /// The most roundings on any way from a column to here, each of 2^−53 of T.
    roundings: f64,
}

/// Three evaluations are compared: scikit-learn's, ours of β forward, and ours of V backward.
///
/// In units of 2^−53·T: the roundings on the way of each; 1 in the centre, 3 in the half width and V's product with it,
/// 2 in the client's (x − c)/h, 1 in a published decimal. The rest of 20 is for parameters that are off by the export.
fn arithmetic_error(logits: &Extent, backward: f64) -> f64 {
    (2.0 * logits.roundings + backward + 20.0) * power_of_two(-53) * largest(&logits.terms)
}

/// The most roundings on any way back: those of every vector, as if it lay on it.
fn backward_roundings(model: &Model, needed: &[bool]) -> f64 {
    let stages = model.chain.stages().iter().zip(needed).filter(|(_, needed)| **needed);
    let roundings = stages.map(|(stage, _)| match &stage.operation {
        Operation::Columns { columns: elements, .. } | Operation::Select { elements, .. } => repetitions(elements),
        Operation::Join(_) | Operation::Sum(_) => 1.0,
        Operation::Add { constants, .. } => 1.0 + constants.roundings(),
        Operation::Multiply { by, .. } | Operation::Divide { by, .. } => 2.0 + by.roundings(),
        Operation::Product { matrix, .. } => 1.0 + stage.width as f64 + matrix.roundings(),
        Operation::Ensemble { .. } | Operation::Activate { .. } => unreachable!("{AFFINE}"),
    });
    roundings.sum()
}

/// How often any element is selected, at most.
fn repetitions(elements: &[usize]) -> f64 {
    let distinct: HashSet<_> = elements.iter().collect();
    (1 + elements.len() - distinct.len()) as f64
}

fn extents(model: &Model, features: &[Feature], needed: &[bool]) -> Result<Extent, ImportError> {
    let mut extents: Vec<Extent> = Vec::with_capacity(needed.len());
    for (stage, _) in model.chain.stages().iter().zip(needed).take(model.logits + 1) {
        let extent = match needed[extents.len()] {
            true => Extent::of(&stage.operation, stage.width, &extents, model, features),
            false => Extent::default(),
        };
        match extent.terms.iter().chain(&extent.export).all(|size| *size <= LARGEST) {
            true => extents.push(extent),
            false => return Err(overflow()),
        }
    }
    Ok(extents.pop().unwrap_or_default())
}

impl Extent {
    fn of(operation: &Operation, width: usize, before: &[Self], model: &Model, features: &[Feature]) -> Self {
        match operation {
            Operation::Columns { columns, .. } => Self::columns(columns, model, features),
            Operation::Select { of, elements } => {
                let x = &before[*of];
                let pick = |values: &[f64]| elements.iter().map(|&element| values[element]).collect();
                x.map(pick, x.roundings)
            }
            Operation::Join(parts) => {
                let mut all = Self::default();
                for x in parts.iter().map(|&part| &before[part]) {
                    all.extend(x);
                }
                all
            }
            Operation::Add { to, constants } => before[*to].add(constants),
            Operation::Multiply { of, by } => before[*of].multiply(by),
            Operation::Divide { of, by } => before[*of].divide(by),
            Operation::Product { of, matrix } => before[*of].product(matrix, width),
            Operation::Sum(parts) => Self::sum(parts, width, before),
            Operation::Ensemble { .. } | Operation::Activate { .. } => unreachable!("{AFFINE}"),
        }
    }

    fn columns(columns: &[usize], model: &Model, features: &[Feature]) -> Self {
        let mut extent = Self::default();
        for &column in columns {
            let (feature, error) = (&features[column], model.preparation.error(column));
            extent.centre.push(feature.centre());
            extent.half.push(feature.half_width());
            extent.export.push(error.export);
            extent.terms.push(feature.low.abs().max(feature.high.abs()));
            extent.roundings = extent.roundings.max(error.roundings);
        }
        extent
    }

    fn map(&self, change: impl Fn(&[f64]) -> Vec<f64>, roundings: f64) -> Self {
        let Self { centre, half, export, terms, .. } = self;
        Self { centre: change(centre), half: change(half), export: change(export), terms: change(terms), roundings }
    }

    fn extend(&mut self, other: &Self) {
        self.centre.extend(&other.centre);
        self.half.extend(&other.half);
        self.export.extend(&other.export);
        self.terms.extend(&other.terms);
        self.roundings = self.roundings.max(other.roundings);
    }

    /// The largest magnitude of an element.
    fn reach(&self, index: usize) -> f64 {
        self.centre[index].abs() + self.half[index]
    }

    fn add(&self, constants: &Parameters) -> Self {
        let mut sum = Self { roundings: self.roundings + 1.0 + constants.roundings(), ..self.clone() };
        for (index, &p) in constants.values.iter().enumerate() {
            sum.centre[index] += p;
            sum.export[index] += constants.error(p);
            sum.terms[index] += p.abs();
        }
        sum
    }

    fn multiply(&self, by: &Parameters) -> Self {
        let mut product = Self { roundings: self.roundings + 1.0 + by.roundings(), ..self.clone() };
        for (index, &p) in by.values.iter().enumerate() {
            product.export[index] = self.export_of_product(index, p, by.error(p));
            product.centre[index] *= p;
            product.half[index] *= p.abs();
            product.terms[index] *= p.abs();
        }
        product
    }

    /// The most that x·p moves for |x| ≤ R when x moves by e and p by δ: R·δ + e·(|p| + δ), so that nothing cancels.
    fn export_of_product(&self, index: usize, p: f64, delta: f64) -> f64 {
        self.reach(index) * delta + self.export[index] * (p.abs() + delta)
    }

    /// x/p − x'/p' = ((x − x') + x·(p' − p)/p)/p', so at most (e + R·δ/|p|)/(|p| − δ).
    fn divide(&self, by: &Parameters) -> Self {
        let mut quotient = Self { roundings: self.roundings + 1.0 + by.roundings(), ..self.clone() };
        for (index, &p) in by.values.iter().enumerate() {
            let delta = by.error(p);
            // A divisor that may be zero leaves no bound, and infinity says so.
            let least = (p.abs() - delta).max(0.0);
            quotient.export[index] = match self.export[index] + self.reach(index) * delta / p.abs() {
                0.0 => 0.0,
                error => error / least,
            };
            quotient.centre[index] /= p;
            quotient.half[index] /= p.abs();
            quotient.terms[index] /= p.abs();
        }
        quotient
    }

    fn product(&self, matrix: &Parameters, width: usize) -> Self {
        let zeros = || vec![0.0; width];
        let roundings = self.roundings + self.centre.len() as f64 + matrix.roundings();
        let mut product = Self { centre: zeros(), half: zeros(), export: zeros(), terms: zeros(), roundings };
        for (from, row) in matrix.values.chunks(width).enumerate() {
            for (to, &p) in row.iter().enumerate() {
                product.centre[to] += self.centre[from] * p;
                product.half[to] += self.half[from] * p.abs();
                product.export[to] += self.export_of_product(from, p, matrix.error(p));
                product.terms[to] += self.terms[from] * p.abs();
            }
        }
        product
    }

    fn sum(parts: &[Id], width: usize, before: &[Self]) -> Self {
        let zeros = || vec![0.0; width];
        let mut sum = Self { centre: zeros(), half: zeros(), export: zeros(), terms: zeros(), roundings: 0.0 };
        for x in parts.iter().map(|&part| &before[part]) {
            let add = |sum: &mut [f64], values: &[f64]| sum.iter_mut().zip(values).for_each(|(sum, x)| *sum += x);
            add(&mut sum.centre, &x.centre);
            add(&mut sum.half, &x.half);
            add(&mut sum.export, &x.export);
            add(&mut sum.terms, &x.terms);
            sum.roundings = sum.roundings.max(x.roundings);
        }
        sum.roundings += parts.len() as f64;
        sum
    }
}

impl Parameters {
    /// The most that a parameter is from scikit-learn's because it is float32.
    fn error(&self, value: f64) -> f64 {
        match self.precision {
            Precision::Exact | Precision::Double => 0.0,
            Precision::Single => ulp32(value),
        }
    }
}

/// W, how much each logit changes with each column, one row per logit.
fn slopes(model: &Model, needed: &[bool]) -> Result<Vec<Vec<f64>>, ImportError> {
    let mut work = MAX_WORK;
    let row = |logit| Slope::of(&model.chain, model.logits, logit, needed, &mut work).map(|slope| slope.columns);
    (0..model.chain.width(model.logits)).map(row).collect()
}

/// How one element of a vector depends on what it is computed from: the chain backwards.
pub(super) struct Slope {
    /// What it is where all else is zero.
    pub(super) constant: f64,
    pub(super) columns: Vec<f64>,
    /// What is not affine is not gone through.
    pub(super) nonlinear: HashMap<Id, Vec<f64>>,
}

impl Slope {
    /// `needed` is what `of` needs, `work` what may still be done.
    pub(super) fn of(
        chain: &Chain,
        of: Id,
        element: usize,
        needed: &[bool],
        work: &mut usize,
    ) -> Result<Self, ImportError> {
        let mut slopes: Vec<Vec<f64>> = vec![vec![]; of + 1];
        for id in (0..=of).filter(|&id| needed[id]) {
            slopes[id] = vec![0.0; chain.width(id)];
        }
        slopes[of][element] = 1.0;
        let mut found = Self { constant: 0.0, columns: vec![0.0; chain.features()], nonlinear: HashMap::new() };
        for id in (0..=of).rev().filter(|&id| needed[id]) {
            let slope = std::mem::take(&mut slopes[id]);
            if !slope.iter().all(|slope| slope.abs() <= LARGEST) {
                return Err(overflow());
            }
            *work = spend(*work, chain.operation(id), &slope)?;
            match chain.operation(id) {
                Operation::Ensemble { .. } | Operation::Activate { .. } => {
                    found.nonlinear.insert(id, slope);
                    continue;
                }
                Operation::Add { constants, .. } => {
                    found.constant += slope.iter().zip(&constants.values).map(|(slope, p)| slope * p).sum::<f64>();
                }
                _ => {}
            }
            pull_back(chain.operation(id), &slope, &mut slopes, &mut found.columns);
        }
        Ok(found)
    }
}

/// Multiplications: some seconds of them.
pub(super) const MAX_WORK: usize = 1 << 33;

fn spend(work: usize, operation: &Operation, slope: &[f64]) -> Result<usize, ImportError> {
    let cost = match operation {
        Operation::Product { matrix, .. } => {
            matrix.values.len() / slope.len() * slope.iter().filter(|&&slope| slope != 0.0).count()
        }
        _ => slope.len(),
    };
    work.checked_sub(cost)
        .ok_or_else(|| graph_refused("its chain of matrices takes more work than any model that is served"))
}

/// Adds what a vector's slope means for those that it is computed from.
fn pull_back(operation: &Operation, slope: &[f64], slopes: &mut [Vec<f64>], columns: &mut [f64]) {
    let add = |to: &mut [f64], share: &dyn Fn(f64, usize) -> f64| {
        to.iter_mut().zip(slope).enumerate().for_each(|(index, (to, &slope))| *to += share(slope, index));
    };
    match operation {
        Operation::Columns { columns: numbers, .. } => {
            numbers.iter().zip(slope).for_each(|(&column, slope)| columns[column] += slope);
        }
        Operation::Select { of, elements } => {
            elements.iter().zip(slope).for_each(|(&element, slope)| slopes[*of][element] += slope);
        }
        Operation::Join(parts) => {
            let mut rest = slope;
            for &part in parts {
                let (own, others) = rest.split_at(slopes[part].len());
                slopes[part].iter_mut().zip(own).for_each(|(to, slope)| *to += slope);
                rest = others;
            }
        }
        Operation::Add { to, .. } => add(&mut slopes[*to], &|slope, _| slope),
        Operation::Multiply { of, by } => add(&mut slopes[*of], &|slope, index| slope * by.values[index]),
        Operation::Divide { of, by } => add(&mut slopes[*of], &|slope, index| slope / by.values[index]),
        Operation::Sum(parts) => parts.iter().for_each(|&part| add(&mut slopes[part], &|slope, _| slope)),
        Operation::Product { of, matrix } => {
            let used: Vec<_> = slope.iter().copied().enumerate().filter(|(_, slope)| *slope != 0.0).collect();
            for (to, row) in slopes[*of].iter_mut().zip(matrix.values.chunks(slope.len())) {
                *to += used.iter().map(|&(index, slope)| slope * row[index]).sum::<f64>();
            }
        }
        Operation::Ensemble { .. } | Operation::Activate { .. } => unreachable!("{AFFINE}"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::description::tests::feature;
    use crate::import::sample::Sample;

    /// The logits of a row, by the forward walk alone.
    pub(crate) fn logits(model: &Model, row: &[f64]) -> Vec<f64> {
        let features: Vec<_> = row.iter().map(|&x| feature("x", x, x)).collect();
        extents(model, &features, &model.chain.needed(model.logits)).unwrap().centre
    }

    fn two_features() -> [Feature; 2] {
        [feature("a", 0.0, 16.0), feature("b", -4.0, 4.0)]
    }

    fn scaled() -> Model {
        let sample = Sample::new(2).scaler("(X) -> z", &[10.0, -2.0], &[0.5, 4.0]);
        let sample =
            sample.classifier("(z) -> label, y", &[1.5, -0.25, -3.0, 0.125, 1.0, 2.0], &[0.75, -1.0, 0.0], "NONE");
        sample.read(&["label", "y"]).unwrap()
    }

    /// All kinds of steps: a scaler, a decomposition that whitens, a union, and a classifier.
    fn deep() -> Model {
        let sample = Sample::new(2)
            .floats("mean", &[2], &[0.25, -0.5])
            .floats("matrix", &[2, 3], &[0.6, 0.8, -0.3, -0.8, 0.6, 0.1])
            .floats("variance", &[3], &[4.0, 0.3, 1.7])
            .scaler("(X) -> z", &[10.0, -2.0], &[0.5, 4.0])
            .node("Sub(z, mean) -> centred")
            .node("MatMul(centred, matrix) -> rotated")
            .node("Sqrt(variance) -> root")
            .node("Div(rotated, root) -> white")
            .node("Concat(z, white) -> union")
            .with_integer("axis", 1);
        let coefficients: Vec<f32> = (0..15).map(|index| (index as f32 * 0.7).sin()).collect();
        sample
            .classifier("(union) -> label, y", &coefficients, &[0.75, -1.0, 0.1], "NONE")
            .read(&["label", "y"])
            .unwrap()
    }

    fn published(folded: &FoldedModel, features: &[Feature], row: &[f64]) -> Vec<f64> {
        let unit: Vec<_> =
            row.iter().zip(features).map(|(x, feature)| (x - feature.centre()) / feature.half_width()).collect();
        let logit =
            |(weights, bias): (&Vec<f64>, &f64)| bias + weights.iter().zip(&unit).map(|(v, u)| v * u).sum::<f64>();
        folded.weights.iter().zip(&folded.biases).map(logit).collect()
    }

    const CORNERS: [[f64; 2]; 5] = [[0.0, -4.0], [16.0, 4.0], [0.0, 4.0], [16.0, -4.0], [3.5, 1.25]];

    #[test]
    fn folding_keeps_the_logits() {
        for (model, exact) in [(scaled(), true), (deep(), false)] {
            let folded = FoldedModel::new(&model, &two_features()).unwrap();
            for row in CORNERS {
                for (one, other) in published(&folded, &two_features(), &row).into_iter().zip(logits(&model, &row)) {
                    let slack = if exact { 0.0 } else { folded.errors.arithmetic };
                    assert!((one - other).abs() <= slack, "{one} for {other}");
                }
            }
        }
    }

    /// A model whose float32 parameters are all off by as much as one ulp, each up or down as `up` has it.
    fn nudged(model: &Model, mut up: impl FnMut() -> bool) -> Model {
        let mut moved = model.clone();
        moved.chain.change_parameters(|value| *value += if up() { ulp32(*value) } else { -ulp32(*value) });
        moved
    }

    /// Any change of the parameters by one float32 ulp stays within the export term, which is not much more.
    #[test]
    fn the_export_term_covers_changes_of_one_ulp() {
        for (model, tight) in [(scaled(), 0.9), (deep(), 0.3)] {
            let bound = FoldedModel::new(&model, &two_features()).unwrap().errors.export;
            let mut worst = 0.0_f64;
            let mut state = 1_u64;
            for row in CORNERS.iter().cycle().take(20_000) {
                let up = || {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    state >> 63 == 1
                };
                let moved = nudged(&model, up);
                for (one, other) in logits(&moved, row).into_iter().zip(logits(&model, row)) {
                    worst = worst.max((one - other).abs());
                }
            }
            assert!(worst <= bound && worst > tight * bound, "{worst:e} of {bound:e}");
        }
    }

    /// Not one bit of a float64 parameter is the exporter's.
    #[test]
    fn float64_parameters_have_no_export_term() {
        let sample = Sample::default().input("X", rten_onnx::onnx::DataType::DOUBLE, 2);
        let sample = sample.doubles("w", &[2, 1], &[0.1, -0.3]).doubles("b", &[1], &[0.7]);
        let model = sample.node("MatMul(X, w) -> p").node("Add(p, b) -> y").read(&["y"]).unwrap();
        let errors = FoldedModel::new(&model, &two_features()).unwrap().errors;
        assert_eq!(errors.export, 0.0);
        // T = 16·0.1 + 4·0.3 + 0.7, and some tens of roundings.
        assert!((20.0..200.0).contains(&(errors.arithmetic / (3.5 * power_of_two(-53)))), "{errors:?}");
    }

    #[test]
    fn numbers_that_leave_float64_are_refused() {
        let overflowing = |factor: f64| {
            let sample =
                Sample::default().input("X", rten_onnx::onnx::DataType::DOUBLE, 1).doubles("w", &[1], &[factor]);
            let model = sample.node("Mul(X, w) -> a").node("Mul(a, w) -> y").read(&["y"]).unwrap();
            FoldedModel::new(&model, &[feature("a", -1.0, 1.0)]).map(|folded| folded.errors.arithmetic)
        };
        assert!(overflowing(1e49).is_ok());
        for factor in [1e51, 1e200, -1e300] {
            assert_eq!(overflowing(factor).unwrap_err().code(), "onnx_graph");
        }
        assert!(overflowing(1e-200).unwrap() >= 1e-200, "what underflows is in the bound");
        let divided =
            Sample::new(1).floats("w", &[1], &[f32::from_bits(1)]).node("Div(X, w) -> y").read(&["y"]).unwrap();
        assert!(FoldedModel::new(&divided, &[feature("a", -1.0, 1.0)]).is_err(), "a divisor that may be zero");
    }

    /// 50,000 columns, each scaled, and 20 classes: nothing is quadratic in the columns.
    #[test]
    fn wide_models_fold_in_a_moment() {
        let columns = 50_000;
        let vector = |seed: f32| (0..columns).map(|j| (j as f32 * seed).sin() + 2.0).collect::<Vec<_>>();
        let coefficients: Vec<f32> = (0..20 * columns).map(|j| (j as f32 * 0.3).cos()).collect();
        let sample = Sample::new(columns).scaler("(X) -> z", &vector(0.1), &vector(0.2));
        let sample = sample.classifier("(z) -> label, y", &coefficients, &[0.0; 20], "SOFTMAX");
        let model = sample.read(&["label", "y"]).unwrap();
        let features: Vec<_> = (0..columns).map(|_| feature("x", -1.0, 1.0)).collect();
        let folded = FoldedModel::new(&model, &features).unwrap();
        assert_eq!((folded.weights.len(), folded.weights[0].len()), (20, 50_000));
        let (row, clear) = (vec![0.5; 50_000], crate::import::clear::logits(&model, &vec![0.5; 50_000]));
        for (one, other) in published(&folded, &features, &row).into_iter().zip(clear) {
            assert!((one - other).abs() <= folded.errors.arithmetic, "{one} for {other}");
        }
    }
}
