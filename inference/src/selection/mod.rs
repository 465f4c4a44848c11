//! Models that choose: trees, forests, boosting and networks of one hidden layer.
//!
//! A client turns each feature into an integer of a few bits, its *level* on a [`Grid`], and sends every bit as a GGSW
//! ciphertext. An external product with such a ciphertext selects one of two others without telling which: a CMux (CGGI,
//! J. Cryptology 2020, section 3.4). Whether a level is below a cut, and which leaf a tree comes to, are decision diagrams
//! over bits, with one CMux per node ([`diagram`]). A neuron turns its table of activations by as much as its weights
//! and the bits say, with one CMux per bit ([`network`]). Neither needs a bootstrap nor an evaluation key.
//!
//! Bits are exact, so the path taken is exact. Only the numbers at its end carry noise ([`noise`]): by how much is known
//! from the diagram's depth, and failing to stay within has a probability of 2^−128.

#[cfg(all(test, feature = "client"))]
mod attacks;
pub(crate) mod diagram;
pub(crate) mod evaluator;
pub(crate) mod ggsw;
pub(crate) mod machine;
pub(crate) mod model;
pub(crate) mod network;
pub(crate) mod noise;

use std::ops::Range;

use serde::{Deserialize, Serialize};
use tfhe::core_crypto::prelude::{DecompositionBaseLog, DecompositionLevelCount};

use crate::bits::{MAX_BITS, packed_len};
use crate::message::{REPLY_HEAD_LEN, REQUEST_HEAD_LEN};
use crate::parameters::ParameterSet;

/// How rows become bits, and bits ciphertexts: the public half of a model that chooses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// What shows a client that a reply is to its request, and under its key.
    pub check: Check,
    /// For every feature, in order.
    pub grids: Vec<Grid>,
    /// The decomposition of what is multiplied by bits.
    pub gadget: Gadget,
    /// Whether values are rounded to float32 before they are compared, as the model was trained to.
    pub single: bool,
}

/// The levels of a feature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Grid {
    /// 2^n intervals of one width, which say nothing of the model: n.
    Uniform(u32),
    /// The model's own cuts, ascending, which are public so: a level is how many of them a value reaches. Paths are those of
    /// the original model.
    Cuts(Vec<f64>),
}

impl Grid {
    /// The bits of a level.
    pub fn bits(&self) -> u32 {
        match self {
            Self::Uniform(bits) => *bits,
            Self::Cuts(cuts) => usize::BITS - cuts.len().leading_zeros(),
        }
    }

    /// The level of a value between `low` and `high`.
    #[cfg(any(test, feature = "client"))]
    pub(crate) fn level(&self, value: f64, low: f64, high: f64) -> u64 {
        match self {
            Self::Uniform(bits) => {
                let levels = 1_u64 << bits;
                let level = (value - low) / (high - low) * levels as f64;
                (level.max(0.0) as u64).min(levels - 1)
            }
            Self::Cuts(cuts) => cuts.partition_point(|&cut| cut <= value) as u64,
        }
    }

    /// The bits of one of its levels, the lowest first.
    #[cfg(feature = "client")]
    pub(crate) fn bits_of(&self, level: u64) -> impl Iterator<Item = u64> + use<> {
        (0..self.bits()).map(move |place| level >> place & 1)
    }

    fn is_sane(&self) -> bool {
        match self {
            Self::Uniform(bits) => (1..=MAX_LEVEL_BITS).contains(bits),
            Self::Cuts(cuts) => {
                cuts.len() < 1 << MAX_LEVEL_BITS
                    && cuts.iter().all(|cut| cut.is_finite())
                    && cuts.is_sorted_by(|one, other| one < other)
            }
        }
    }
}

/// More levels than any model has cuts of one feature.
pub(crate) const MAX_LEVEL_BITS: u32 = 12;

/// Coefficients beside the logits, on which a client sends a number drawn for this request, and gets it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// The bits of the number on one coefficient, its leading ones.
    pub bits: u32,
    /// As many coefficients.
    pub count: usize,
}

/// A gadget decomposition: a coefficient's leading β·ℓ bits, rounded, as ℓ digits of −2^(β−1) … 2^(β−1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gadget {
    /// β, the bits of a digit.
    pub base: u32,
    /// ℓ, the digits.
    pub levels: u32,
}

impl Selection {
    /// Where the bits of each feature are, the lowest first.
    pub(crate) fn ranges(&self) -> Vec<Range<u32>> {
        let mut end = 0;
        let range = |grid: &Grid| {
            let start = end;
            end += grid.bits();
            start..end
        };
        self.grids.iter().map(range).collect()
    }

    /// The bits of a row's levels, each 0 or 1.
    #[cfg(feature = "client")]
    pub(crate) fn bits_of(&self, levels: &[i64]) -> impl Iterator<Item = u64> {
        let pairs = self.grids.iter().zip(levels);
        pairs.flat_map(|(grid, &level)| grid.bits_of(level as u64))
    }
}

impl Gadget {
    pub(crate) fn base_log(self) -> DecompositionBaseLog {
        DecompositionBaseLog(self.base as usize)
    }

    pub(crate) fn level_count(self) -> DecompositionLevelCount {
        DecompositionLevelCount(self.levels as usize)
    }

    /// 2^(64−βj), what the digit of level j counts.
    #[cfg(feature = "client")]
    pub(crate) fn factor(self, level: u32) -> u64 {
        1 << (64 - self.base * level)
    }

    fn is_sane(self) -> bool {
        // A float64 holds 53 bits: digits and their rounding errors stay far below.
        (1..=MAX_GADGET_LEVELS).contains(&self.levels) && (2..=32).contains(&self.base) && self.base * self.levels <= 52
    }
}

/// More levels would cost time, and floating point would still be as coarse.
pub(crate) const MAX_GADGET_LEVELS: u32 = 4;

/// No request of one row is longer.
pub const MAX_SELECTION_LEN: usize = 16 << 20;

/// Everything that sizes and positions follow from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) parameters: ParameterSet,
    pub(crate) gadget: Gadget,
    pub(crate) check: Check,
    /// The bits of a row.
    pub(crate) bits: usize,
    /// K.
    pub(crate) logits: usize,
    /// b.
    pub(crate) reply_bits: u32,
}

impl Shape {
    /// `None` if a request would be too long, logits and check do not fit into a polynomial, or the statements are none that
    /// arithmetic here supports.
    pub(crate) fn new(parameters: ParameterSet, selection: &Selection, logits: usize, reply_bits: u32) -> Option<Self> {
        let Selection { check, grids, gadget, single: _ } = selection;
        let is_sane = grids.iter().all(Grid::is_sane)
            && gadget.is_sane()
            && (1..=MAX_CHECK_BITS).contains(&check.bits)
            && (1..=MAX_CHECK_COUNT).contains(&check.count)
            && (1..=MAX_BITS).contains(&reply_bits);
        if !is_sane {
            return None;
        }
        let bits = grids.iter().map(|grid| grid.bits() as usize).sum();
        let shape = Self { parameters, gadget: *gadget, check: *check, bits, logits, reply_bits };
        (shape.outputs() <= parameters.degree() && shape.request_len() <= MAX_SELECTION_LEN).then_some(shape)
    }

    /// Logits, and what comes back of the check.
    pub(crate) fn outputs(&self) -> usize {
        self.logits + self.check.count
    }

    /// The GLWE ciphertexts that a GGSW ciphertext is made of: (k + 1)·ℓ.
    pub(crate) fn rows(&self) -> usize {
        (self.parameters.dimension() + 1) * self.gadget.levels as usize
    }

    /// The bytes of one bit's bodies.
    pub(crate) fn bit_len(&self) -> usize {
        self.rows() * self.parameters.degree() * self.parameters.body_len()
    }

    pub(crate) fn check_len(&self) -> usize {
        self.outputs() * self.parameters.body_len()
    }

    pub(crate) fn request_len(&self) -> usize {
        REQUEST_HEAD_LEN + self.check_len() + self.bits * self.bit_len()
    }

    pub(crate) fn reply_len(&self) -> usize {
        REPLY_HEAD_LEN + packed_len(self.parameters.mask_len() + self.outputs(), self.reply_bits)
    }
}

/// More leading bits would leave none to noise.
const MAX_CHECK_BITS: u32 = 16;

const MAX_CHECK_COUNT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_count_intervals_or_cuts() {
        let uniform = Grid::Uniform(2);
        let levels = |values: [f64; 6]| values.map(|value| uniform.level(value, -1.0, 3.0));
        assert_eq!(levels([-1.0, -0.01, 0.0, 1.5, 2.99, 3.0]), [0, 0, 1, 2, 3, 3]);
        let cuts = Grid::Cuts(vec![-1.0, 0.5, 2.0]);
        assert_eq!([-3.0, -1.0, 0.4, 0.5, 9.0].map(|value| cuts.level(value, -3.0, 9.0)), [0, 1, 1, 2, 3]);
        assert_eq!([0, 1, 2, 3, 4, 7, 8].map(|cuts| Grid::Cuts(vec![0.0; cuts]).bits()), [0, 1, 2, 2, 3, 3, 4]);
    }
}
