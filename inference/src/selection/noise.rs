//! How far noise moves what a model that chooses gives.
//!
//! A CMux adds three things to the value that it selects:
//!
//! - the noise of the bit's GGSW ciphertext, through digits: Σ_i d_i·E_i over (k+1)·ℓ·N products. Digits are at most 2^(β−1),
//!   whatever they are, and E is drawn independently by the client, so the sum is sub-Gaussian of variance
//!   (k+1)·ℓ·N·2^(2β−2)·V[E];
//! - what digits leave out, 2^(64−βℓ) wide, of the body and, where the secret has a one, of the masks. As in the analysis of
//!   CGGI (J. Cryptology 2020, section 4.1) it counts as uniform and independent of the secret, of which at most
//!   k·N/2 + z·√(k·N)/2 coefficients are ones. For that, halves are rounded either way: a mean would add up with the ones;
//! - the rounding of float64 in transforms and products. Digits of β bits against 64-bit words over N coefficients come
//!   out off by 2^(β+15.5) per coefficient; of the masks' the secret adds up as many as it has ones. A test holds what is
//!   measured to it.
//!
//! On the way from a leaf to the root of a tree these are independent in turn (each CMux has fresh digits), so that variances
//! add; between trees nothing is assumed, so that deviations add: the same bits' noise is in all of them. z = 13.4
//! deviations are exceeded with a probability of 2^−128 at most.

use std::ops::Range;

use super::Shape;
use super::evaluator::diagrams;
use super::model::{Model, Network, Neuron, Trees};
use crate::bound::{ErrorLedger, StatedErrors, publication_error, switch_error};

/// What moves a decrypted logit, in its integer's units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Noise {
    /// z·Σ √depth·σ over trees or neurons: all CMuxes.
    pub(crate) selection: f64,
    /// The client's own on the check, and (2kN + 1)·2^t of the encryption of zero that is added.
    pub(crate) encryption: f64,
    /// 2^φ.
    pub(crate) flood: f64,
    /// (kN + 1)·2^(63−b).
    pub(crate) switch: f64,
}

/// The deviations z with 2·exp(−z²/2) ≤ 2^−128.
const DEVIATIONS: f64 = 13.4;

impl Noise {
    /// `depths`: the most CMuxes in turn, of every tree or neuron.
    pub(crate) fn new(shape: &Shape, depths: impl IntoIterator<Item = usize>, flood: u32) -> Self {
        let parameters = shape.parameters;
        let deviation = variance(shape).sqrt();
        let depths: f64 = depths.into_iter().map(|depth| (depth as f64).sqrt()).sum();
        let zero = (2 * parameters.mask_len() + 1) as f64 * parameters.largest_noise() as f64;
        Self {
            selection: DEVIATIONS * deviation * depths,
            encryption: parameters.body_error() as f64 + zero,
            flood: (flood as f64).exp2(),
            switch: switch_error(shape.reply_bits, parameters) as f64,
        }
    }

    pub(crate) fn total(&self) -> f64 {
        let Self { selection, encryption, flood, switch } = *self;
        selection + encryption + flood + switch
    }

    /// How far a row's outputs are from the same flood around its integer logits alone, as
    /// [`crate::bound::Noise::distance`] has it.
    pub(crate) fn distance(&self, shape: &Shape) -> f64 {
        let mean = self.selection / DEVIATIONS + self.encryption;
        shape.outputs() as f64 * mean / (2.0 * self.flood)
    }

    /// Where a logit's bound comes from: `summands` integers that were rounded, and the noise, all in units of an integer.
    pub(crate) fn ledger(&self, unit: f64, summands: usize, decimals: u32, stated: StatedErrors) -> ErrorLedger {
        ErrorLedger {
            export: stated.export,
            weight_quantisation: 0.5 * summands as f64 * unit,
            feature_quantisation: 0.0,
            encryption_noise: (self.selection + self.encryption) * unit,
            flooding: self.flood * unit,
            modulus_switch: self.switch * unit,
            arithmetic: stated.arithmetic,
            publication: publication_error(decimals),
        }
    }

    /// Whether nothing wraps and the check comes through: the largest value that an honest reply decrypts to.
    pub(crate) fn limit(&self, largest: u128, shape: &Shape) -> Option<u64> {
        let limit = largest as f64 + self.total();
        let fits =
            limit < 2_f64.powi(63) * (1.0 - f64::EPSILON) && self.total() < 2_f64.powi(63 - shape.check.bits as i32);
        fits.then(|| limit.ceil() as u64)
    }
}

/// Of what one CMux adds.
fn variance(shape: &Shape) -> f64 {
    let (parameters, base) = (shape.parameters, f64::from(shape.gadget.base));
    let (rows, degree) = (shape.rows() as f64, parameters.degree() as f64);
    let rounded = 2_f64.powi(63 - 8 * parameters.body_len() as i32);
    let ciphertext =
        rows * degree * (2.0 * base - 2.0).exp2() * (parameters.noise_variance() + rounded * rounded / 3.0);

    let coefficients = parameters.mask_len() as f64;
    let ones = 0.5 * coefficients + DEVIATIONS * 0.5 * coefficients.sqrt();
    let left_out = (64.0 - base * f64::from(shape.gadget.levels)).exp2();
    let decomposition = left_out * left_out / 12.0 * (1.0 + ones);

    let float = (2.0 * (base + 15.5)).exp2() * f64::from(shape.gadget.levels) * ones;
    ciphertext + decomposition + float
}

impl Model {
    /// The most CMuxes in turn, for every tree or neuron.
    pub(crate) fn depths(&self, bits: &[Range<u32>]) -> Vec<usize> {
        match self {
            Self::Trees(Trees { trees, .. }) => {
                diagrams(trees, bits).iter().flat_map(|diagram| diagram.depths().iter().copied()).collect()
            }
            Self::Network(Network { neurons, .. }) => neurons.iter().map(Neuron::selects).collect(),
        }
    }
}
