//! The error ledger: how far a published logit may be from scikit-learn's, why decryption cannot fail, and how much of
//! the model a reply's noise gives away.
//!
//! Every term is a worst case, none a likelihood. The noise is TUniform and so bounded; roundings are bounded by
//! nature.
//!
//! Notation: N is the ring's degree, M_j the largest integer x̃_j of feature j (2^m, or half its grid's steps), s the
//! bits of a logit's scale, δ the bits by which ciphertexts are scaled, b those of a coefficient in the reply, φ those of the
//! flood; ω and B are the integer weights and biases. An integer logit L stands for L·2^−s, and a ciphertext holds L·2^δ.
//!
//! With δ = 0 the noise is part of a logit, and of the ledger (*interval* mode). With δ > 0 it is less than 2^(δ−1) and
//! rounded away: integer logits come out *exact*, limb by limb, and the ledger has nothing of the encryption.

use std::fmt;

use crate::description::Feature;
use crate::limbs::{Digits, Limbs};
use crate::packing::{Packing, Shape};
use crate::parameters::ParameterSet;

/// The scales of a quantised model, all powers of two and given by their exponents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// φ: replies are flooded with uniform noise of −2^φ … 2^φ − 1.
    pub flood: u32,
    /// b: the leading bits of a coefficient that a reply carries.
    pub reply: u32,
    /// δ: ciphertexts hold integers times 2^δ. Zero if the noise is not rounded away.
    pub shift: u32,
    /// w: a weight at the end of its feature's range is a multiple of 2^−w.
    pub weights: i32,
    /// m: a feature at the end of its range is ±2^m, unless it has a grid of its own.
    pub features: u32,
}

impl Scale {
    /// s = m + w: an integer logit L stands for L·2^−s.
    pub(crate) fn logit_bits(self) -> i32 {
        self.features as i32 + self.weights
    }

    /// The logit that the integer 1 stands for.
    pub(crate) fn unit(self) -> f64 {
        power_of_two(-self.logit_bits())
    }

    /// Whether integer logits are decrypted without error.
    pub fn is_exact(self) -> bool {
        self.shift > 0
    }
}

/// 2^`exponent`, exactly.
pub(crate) fn power_of_two(exponent: i32) -> f64 {
    assert!((-1022..=1023).contains(&exponent), "scales are far from the ends of float64");
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// A linear model in integers: logit c is Σ_j ω_cj x̃_j + B_c.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IntegerModel {
    /// ω, one row per logit.
    pub(crate) weights: Vec<Vec<i64>>,
    /// B, one row per logit: for each limb of the features, the digits that are added to the outputs of every limb of the
    /// weights.
    pub(crate) biases: Vec<Vec<i64>>,
}

impl IntegerModel {
    /// For every logit and every limb of the weights, their digits: what is multiplied under encryption.
    pub(crate) fn outputs(&self, weights: Digits) -> impl Iterator<Item = Vec<i64>> {
        self.weights.iter().flat_map(move |row| {
            let mut digits = vec![Vec::with_capacity(row.len()); weights.count];
            for &weight in row {
                digits.iter_mut().zip(weights.of_word(weight)).for_each(|(digits, digit)| digits.push(digit));
            }
            digits
        })
    }
}

/// Sums over the weights' digits that all bounds are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Norms {
    /// ‖ω‖₁ and ‖ω‖₂² of each output.
    outputs: Vec<(u128, u128)>,
    /// P: the largest output within the declared ranges.
    largest: u128,
}

impl Norms {
    /// `reaches`: M_j of every feature.
    pub(crate) fn new(model: &IntegerModel, limbs: Limbs, reaches: &[u64]) -> Self {
        let (features, weights) = (limbs.features, limbs.weights.count);
        let digits: Vec<Vec<u64>> = (0..features.count)
            .map(|limb| reaches.iter().map(|&reach| features.largest(limb, reach)).collect())
            .collect();
        let mut norms = Self { outputs: vec![], largest: 0 };
        for (index, output) in model.outputs(limbs.weights).enumerate() {
            let sizes = || output.iter().map(|digit| u128::from(digit.unsigned_abs()));
            norms.outputs.push((sizes().sum(), sizes().map(|size| size * size).fold(0, u128::saturating_add)));
            for (limb, digits) in digits.iter().enumerate() {
                let products = output.iter().zip(digits).map(|(&w, &x)| u128::from(w.unsigned_abs()) * u128::from(x));
                let bias = model.biases[index / weights][limb * weights + index % weights];
                norms.largest = norms.largest.max(products.sum::<u128>() + u128::from(bias.unsigned_abs()));
            }
        }
        norms
    }

    /// The most that the client's noise and its roundings move an output, in any layout: every output adds up encryptions
    /// under every weight of its group.
    fn noise(&self, packings: &[Packing]) -> u128 {
        let parameters = packings[0].shape.parameters;
        self.groups(packings).map(|(one, _)| one).max().unwrap_or(0) * u128::from(parameters.body_error())
    }

    /// By how much an output is moved in the mean, at most: by independent noise of variance V under every weight, √V·‖ω‖₂,
    /// since no mean of absolute values exceeds the root of that of squares; and by roundings, at worst.
    fn mean_noise(&self, packings: &[Packing]) -> f64 {
        let parameters = packings[0].shape.parameters;
        let rounding = (parameters.body_error() - parameters.largest_noise()) as f64;
        let of_group =
            |(one, two): (u128, u128)| (parameters.noise_variance() * two as f64).sqrt() + rounding * one as f64;
        self.groups(packings).map(of_group).fold(0.0, f64::max)
    }

    /// ‖ω‖₁ and ‖ω‖₂² of all groups of all layouts.
    fn groups(&self, packings: &[Packing]) -> impl Iterator<Item = (u128, u128)> {
        let add = |(one, two): (u128, u128), other: &(u128, u128)| (one + other.0, two.saturating_add(other.1));
        let of_group = move |packing: &Packing, group| self.outputs[packing.outputs_of(group)].iter().fold((0, 0), add);
        packings.iter().flat_map(move |packing| (0..packing.groups()).map(move |group| of_group(packing, group)))
    }

    /// P.
    pub(crate) fn largest(&self) -> u128 {
        self.largest
    }
}

/// What moves a decrypted output away from L·2^δ, each term the most that it can be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Noise {
    /// ‖ω‖₁·(2^t + rounding): the client's own, through the weights.
    pub(crate) encryption: u128,
    /// (2N + 1)·2^t, of the encryption of zero that is added: e′·u − e₁·S + e₂.
    pub(crate) rerandomisation: u128,
    /// What the first two are at most in the mean, over honestly drawn noise.
    pub(crate) mean: f64,
    /// 2^φ.
    pub(crate) flood: u128,
    /// (N + 1)·2^(63−b): the reply's roundings of the mask, which a binary secret can add up N times, and of the output.
    pub(crate) switch: u128,
}

impl Noise {
    pub(crate) fn new(norms: &Norms, scale: Scale, packings: &[Packing]) -> Self {
        let parameters = packings[0].shape.parameters;
        let samples = 2 * parameters.degree() + 1;
        Self {
            encryption: norms.noise(packings),
            rerandomisation: samples as u128 * u128::from(parameters.largest_noise()),
            mean: norms.mean_noise(packings) + (samples as f64 * parameters.noise_variance()).sqrt(),
            flood: 1 << scale.flood,
            switch: switch_error(scale.reply, parameters),
        }
    }

    pub(crate) fn total(&self) -> u128 {
        let Self { encryption, rerandomisation, flood, switch, mean: _ } = *self;
        encryption + rerandomisation + flood + switch
    }

    /// Whether decryption is certain: no sum wraps, and in exact mode the noise is rounded away. `largest` is P.
    pub(crate) fn limit(&self, largest: u128, scale: Scale) -> Result<u64, u128> {
        let rounded_away = !scale.is_exact() || self.total() < 1 << (scale.shift - 1);
        let limit = largest.saturating_mul(1 << scale.shift).saturating_add(self.total());
        match u64::try_from(limit) {
            Ok(fits) if limit < LOGIT_ROOM && rounded_away => Ok(fits),
            _ => Err(limit),
        }
    }

    /// The statistical distance between a row's outputs as they are flooded, and the same flood around its integer logits
    /// alone, for a client whose noise is drawn as the protocol says.
    ///
    /// A uniform variable on 2·2^φ integers and the same one moved by z are |z|/(2·2^φ) apart, and mixtures of them the mean
    /// of that; n outputs are at most n times as far. z is what the weights make of the client's noise, and e′·u − e₁·S + e₂:
    /// only once the latter is flooded, too, nothing is left of u and e₁ but the reply's mask, a′·u + e₁ + W·a, which then
    /// is pseudorandom by the hardness of RLWE.
    pub(crate) fn distance(&self, shape: &Shape) -> f64 {
        let outputs = shape.outputs() * shape.limbs.features.count;
        outputs as f64 * self.mean / (2.0 * self.flood as f64)
    }
}

/// (kN + 1)·2^(63−b).
pub(crate) fn switch_error(bits: u32, parameters: ParameterSet) -> u128 {
    (parameters.mask_len() as u128 + 1) << (63 - bits)
}

/// A limit under 2^63 is what makes decryption certain: no sum wraps.
pub(crate) const LOGIT_ROOM: u128 = 1 << 63;

/// The errors that only whoever folded the model can know; a bundle states them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct StatedErrors {
    pub(crate) export: f64,
    pub(crate) arithmetic: f64,
}

/// Where the bound on |published logit − scikit-learn's float64 logit| comes from. All terms are logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ErrorLedger {
    /// The float32 parameters of the ONNX file, each within one ulp of scikit-learn's float64, through the folding.
    pub export: f64,
    /// Rounding each weight, with every feature at the end of its range: ½·Σ_j M_j·2^−s, and the bias: ½·2^−s.
    pub weight_quantisation: f64,
    /// Rounding each feature to an integer: ½·max_c ‖ω_c‖₁·2^−s; next to nothing where values lie on a declared grid.
    pub feature_quantisation: f64,
    /// The noise of the encryption and what a body leaves out, through the weights, and that of the re-randomisation.
    /// Zero where it is rounded away.
    pub encryption_noise: f64,
    /// Flooding replies: 2^φ·2^−s, or zero as above.
    pub flooding: f64,
    /// Sending b bits of each coefficient of the reply: (N + 1)·2^(63−b)·2^−s, or zero as above.
    pub modulus_switch: f64,
    /// Rounding of float64: in the folding, in the client, and in scikit-learn's own sums.
    pub arithmetic: f64,
    /// Publishing k decimals: ½·10^−k.
    pub publication: f64,
}

impl ErrorLedger {
    pub(crate) fn new(
        model: &IntegerModel,
        features: &[Feature],
        scale: Scale,
        noise: &Noise,
        decimals: u32,
        stated: StatedErrors,
    ) -> Self {
        let unit = scale.unit();
        let reaches: f64 = features.iter().map(|feature| feature.reach(scale.features) as f64).sum();
        let roundings: Vec<f64> = features.iter().map(|feature| feature.rounding(scale.features)).collect();
        let rounded =
            |row: &Vec<i64>| row.iter().zip(&roundings).map(|(w, r)| w.unsigned_abs() as f64 * r).sum::<f64>();
        let of_noise = |noise: u128| if scale.is_exact() { 0.0 } else { noise as f64 * unit };
        Self {
            export: stated.export,
            weight_quantisation: 0.5 * (reaches + 1.0) * unit,
            feature_quantisation: model.weights.iter().map(rounded).fold(0.0, f64::max) * unit,
            encryption_noise: of_noise(noise.encryption + noise.rerandomisation),
            flooding: of_noise(noise.flood),
            modulus_switch: of_noise(noise.switch),
            arithmetic: stated.arithmetic,
            publication: publication_error(decimals),
        }
    }

    /// The terms by name, in the order in which they arise.
    pub fn terms(&self) -> [(&'static str, f64); 8] {
        let Self {
            export,
            weight_quantisation,
            feature_quantisation,
            encryption_noise,
            flooding,
            modulus_switch,
            arithmetic,
            publication,
        } = *self;
        [
            ("export", export),
            ("weight quantisation", weight_quantisation),
            ("feature quantisation", feature_quantisation),
            ("encryption noise", encryption_noise),
            ("flooding", flooding),
            ("modulus switch", modulus_switch),
            ("float64 arithmetic", arithmetic),
            ("publication", publication),
        ]
    }

    /// The bound: the sum of all terms, rounded up by far more than the roundings of these sums of up to 50,000 terms.
    pub fn total(&self) -> f64 {
        self.terms().into_iter().map(|(_, term)| term).sum::<f64>() * (1.0 + power_of_two(-36))
    }
}

impl fmt::Display for ErrorLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, term) in self.terms() {
            writeln!(f, "{name:<20} {term:.3e}")?;
        }
        write!(f, "{:<20} {:.3e}", "bound", self.total())
    }
}

impl Feature {
    /// M: 2^m, or half the steps of its grid.
    pub(crate) fn reach(&self, bits: u32) -> u64 {
        match self.step {
            // No more than 2^40 steps: a description is refused otherwise.
            Some(step) => ((self.high - self.low) / step * 0.5).round() as u64,
            None => 1 << bits,
        }
    }

    /// The most by which x̃ differs from x, in steps: a half, or as far as a value may be off its grid.
    pub(crate) fn rounding(&self, bits: u32) -> f64 {
        match self.step {
            Some(_) => self.reach(bits) as f64 * GRID_TOLERANCE,
            None => 0.5,
        }
    }
}

/// By how much of its range a value may be off its grid: decimal fractions are no float64s.
pub(crate) const GRID_TOLERANCE: f64 = 1.0 / (1u64 << 48) as f64;

/// ½·10^−k.
pub(crate) fn publication_error(decimals: u32) -> f64 {
    0.5 / power_of_ten(decimals) as f64
}

/// 10^`decimals`, exact as a float64 too.
pub(crate) fn power_of_ten(decimals: u32) -> i64 {
    assert!(decimals <= MAX_DECIMALS, "a description has at most {MAX_DECIMALS} decimals");
    10_i64.pow(decimals)
}

/// As many decimals as a float64 holds of any logit below 1.
pub(crate) const MAX_DECIMALS: u32 = 15;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::description::tests::feature;
    use crate::packing::Layout;

    const SET: ParameterSet = ParameterSet::N2048TUniform17;

    #[test]
    fn powers_are_exact() {
        assert_eq!(power_of_two(0), 1.0);
        assert_eq!(power_of_two(-44) * power_of_two(44), 1.0);
        assert_eq!(power_of_two(62), (1u64 << 62) as f64);
        assert_eq!(power_of_ten(15) as f64, 1e15);
    }

    fn iris(limbs: Limbs, model: &IntegerModel) -> (Shape, Norms, Vec<Packing>) {
        let shape = Shape { parameters: SET, features: 2, logits: 2, limbs, reply_bits: 30 };
        let packing = Packing::new(shape, Layout { outputs: shape.outputs(), features: 2 }).unwrap();
        (shape, Norms::new(model, limbs, &[1024, 1024]), vec![packing])
    }

    #[test]
    fn the_terms_are_the_formulas() {
        let model = IntegerModel { weights: vec![vec![3, -5], vec![0, 7]], biases: vec![vec![-11], vec![1 << 20]] };
        let scale = Scale { features: 10, weights: 4, reply: 30, shift: 0, flood: 20 };
        let stated = StatedErrors { export: 0.25, arithmetic: 0.125 };
        let (shape, norms, packings) = iris(Limbs::WHOLE, &model);
        let noise = Noise::new(&norms, scale, &packings);
        let features = [feature("a", 0.0, 1.0), feature("b", -1.0, 1.0)];
        let ledger = ErrorLedger::new(&model, &features, scale, &noise, 1, stated);
        let unit = 1.0 / f64::from(1 << 14);
        let body = (1 << 17) + (1 << 15);
        assert_eq!(ledger.feature_quantisation, 4.0 * unit);
        assert_eq!(ledger.weight_quantisation, 1.0 / 16.0 + unit / 2.0);
        assert_eq!(noise.encryption, 15 * body);
        assert_eq!(noise.rerandomisation, 4097 << 17);
        assert_eq!(ledger.encryption_noise, (noise.encryption + noise.rerandomisation) as f64 * unit);
        assert_eq!(ledger.flooding, f64::from(1 << 20) * unit);
        assert_eq!(ledger.modulus_switch, 2049.0 * (1u64 << 33) as f64 * unit);
        assert_eq!((ledger.export, ledger.arithmetic, ledger.publication), (0.25, 0.125, 0.05));
        assert_eq!(norms.largest(), 7 * 1024 + (1 << 20));
        assert_eq!(noise.limit(norms.largest(), scale), Ok(7 * 1024 + (1 << 20) + noise.total() as u64));
        // Four weights in one group: 15 and 83 are their sums of sizes and squares.
        let variance = ((1u64 << 35) + 1) as f64 / 6.0;
        let mean = (83.0 * variance).sqrt() + 15.0 * f64::from(1 << 15) + (4097.0 * variance).sqrt();
        assert!((noise.distance(&shape) / (2.0 * mean / f64::from(1 << 21)) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn exact_logits_have_nothing_of_the_encryption_in_their_ledger() {
        let limbs = Limbs { weights: Digits { bits: 2, count: 2 }, features: Digits { bits: 6, count: 2 } };
        let biases = [-11, 1 << 20].map(|bias| limbs.split(bias).unwrap());
        let model = IntegerModel { weights: vec![vec![3, -5], vec![0, 7]], biases: biases.into() };
        let scale = Scale { features: 10, weights: 4, reply: 44, shift: 42, flood: 40 };
        let (_, norms, packings) = iris(limbs, &model);
        let noise = Noise::new(&norms, scale, &packings);
        let features = [feature("a", 0.0, 1.0), Feature { step: Some(0.5), ..feature("b", -1.0, 1.0) }];
        let ledger =
            ErrorLedger::new(&model, &features, scale, &noise, 1, StatedErrors { export: 0.0, arithmetic: 0.0 });
        assert_eq!((ledger.encryption_noise, ledger.flooding, ledger.modulus_switch), (0.0, 0.0, 0.0));
        let unit = 1.0 / f64::from(1 << 14);
        assert_eq!(ledger.weight_quantisation, 0.5 * (1024.0 + 2.0 + 1.0) * unit);
        assert_eq!(ledger.feature_quantisation, (1.5 + 5.0 * 2.0 * GRID_TOLERANCE) * unit);
        assert!(noise.limit(norms.largest(), scale).is_ok());
        let loud = Scale { flood: 41, ..scale };
        assert!(Noise::new(&norms, loud, &packings).limit(norms.largest(), loud).is_err(), "no room for the rest");
    }
}
