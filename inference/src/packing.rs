//! Coefficient packing: where features and logits sit in polynomials.
//!
//! A model has d features and K outputs; a [`Layout`] splits the features into B blocks of f, and the outputs into G
//! groups of κ. Each block of all rows is one ciphertext, each group one polynomial of the reply, the sum of B products.
//!
//! In block J, row r has feature Jf + j on coefficient r·fκ + j·κ and encryptions of zero everywhere else. The weights
//! of group γ are W(X) = Σ ω_cj X^((f−1−j)·κ + c), over the block's features j and the group's outputs c, so that W·m has
//! the block's share of output c, Σ_j ω_cj x̃_j, on coefficient r·fκ + (f−1)·κ + c (coefficient packing, as in Cheetah,
//! USENIX Security 2022, section 3.1.1). Rows exactly fκ apart never meet: an output sums coefficients
//! r·fκ + j·κ + (c − c'), and |c − c'| < κ reaches no other feature, wrap included.
//!
//! An output therefore depends on body coefficients −(κ−1) … R·fκ−1 only, indices taken mod N. They are the *window*,
//! and are all of a block's body that a request carries.
//!
//! # What a layout costs, and which one is taken
//!
//! Up travel R·d·κ body coefficients, down G·N mask coefficients and R·K outputs: a larger κ trades the one for the other.
//! A smaller f leaves room for more rows, at B masks to expand. [`Packing::cost`] is the time of a request in
//! microseconds: its bytes at 100 Mbit/s, and an estimate of the evaluation. For 1, 16, 256 and as many rows as fit, the
//! importer takes the layout of the least cost ([`Packing::choose`]); for the rows at hand, a client takes the cheapest
//! of those that hold them, or else the one that holds the most.

use serde::{Deserialize, Serialize};

use crate::bits::packed_len;
use crate::limbs::Limbs;
use crate::message::{MAX_MESSAGE_LEN, REPLY_HEAD_LEN, REQUEST_HEAD_LEN};
use crate::parameters::ParameterSet;

/// How the features and outputs of a model are split over polynomials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// κ, the outputs of one polynomial of the reply.
    pub outputs: usize,
    /// f, the features of one ciphertext of the request.
    pub features: usize,
}

/// The shape of a model: rows and outputs count once per limb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) parameters: ParameterSet,
    /// d.
    pub(crate) features: usize,
    /// The logits of a row.
    pub(crate) logits: usize,
    pub(crate) limbs: Limbs,
    /// b.
    pub(crate) reply_bits: u32,
}

impl Shape {
    /// K, the outputs of a row of one limb.
    pub(crate) fn outputs(&self) -> usize {
        self.logits * self.limbs.weights.count
    }
}

/// A model in one layout: everything that sizes and positions follow from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packing {
    pub(crate) shape: Shape,
    layout: Layout,
    capacity: usize,
}

impl Packing {
    /// `None` if not one row fits, or the layout is not of this model.
    pub(crate) fn new(shape: Shape, layout: Layout) -> Option<Self> {
        let fits = (1..=shape.features).contains(&layout.features) && (1..=shape.outputs()).contains(&layout.outputs);
        if !fits || layout.features.checked_mul(layout.outputs)? > shape.parameters.degree() {
            return None;
        }
        let unbounded = Self { shape, layout, capacity: usize::MAX };
        let in_polynomial = unbounded.degree() / unbounded.stride() / shape.limbs.features.count;
        let capacity = largest(in_polynomial, |rows| {
            unbounded.request_len(rows).max(unbounded.reply_len(rows)) <= MAX_MESSAGE_LEN
        });
        (capacity > 0).then_some(Self { capacity, ..unbounded })
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// N.
    pub(crate) fn degree(&self) -> usize {
        self.shape.parameters.degree()
    }

    /// κ.
    pub(crate) fn kappa(&self) -> usize {
        self.layout.outputs
    }

    /// B.
    pub(crate) fn blocks(&self) -> usize {
        self.shape.features.div_ceil(self.layout.features)
    }

    /// G.
    pub(crate) fn groups(&self) -> usize {
        self.shape.outputs().div_ceil(self.kappa())
    }

    /// fκ: from one row to the next, and the weights of one product.
    pub(crate) fn stride(&self) -> usize {
        self.layout.features * self.kappa()
    }

    /// The most rows of one request: as many as fit into a polynomial, and whose messages stay within the limit.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The rows R that `rows` rows of features are: one per limb.
    pub(crate) fn limb_rows(&self, rows: usize) -> usize {
        rows * self.shape.limbs.features.count
    }

    /// The coefficients before zero that the window starts with: κ − 1.
    pub(crate) fn lead(&self) -> usize {
        self.kappa() - 1
    }

    /// The window's length, R·fκ + κ − 1.
    pub(crate) fn window(&self, rows: usize) -> usize {
        self.limb_rows(rows) * self.stride() + self.lead()
    }

    /// The body coefficients of a block that travel: the window, or all N if it wraps onto itself.
    pub(crate) fn bodies(&self, rows: usize) -> usize {
        self.window(rows).min(self.degree())
    }

    /// The block and the coefficient of a feature of the limb's row `row`.
    #[cfg(any(test, feature = "client"))]
    pub(crate) fn input(&self, row: usize, feature: usize) -> (usize, usize) {
        let Layout { outputs, features } = self.layout;
        (feature / features, row * self.stride() + feature % features * outputs)
    }

    /// The coefficient of a group's first output of the limb's row `row`; the others follow it.
    pub(crate) fn output(&self, row: usize) -> usize {
        row * self.stride() + (self.layout.features - 1) * self.kappa()
    }

    /// The outputs of a group: κ, or fewer in the last.
    pub(crate) fn outputs_of(&self, group: usize) -> std::ops::Range<usize> {
        let first = group * self.kappa();
        first..self.shape.outputs().min(first + self.kappa())
    }

    /// The exact length of a request.
    pub(crate) fn request_len(&self, rows: usize) -> usize {
        REQUEST_HEAD_LEN + self.blocks() * self.bodies(rows) * self.shape.parameters.body_len()
    }

    /// The exact length of a reply.
    pub(crate) fn reply_len(&self, rows: usize) -> usize {
        let coefficients = self.groups() * self.degree() + self.limb_rows(rows) * self.shape.outputs();
        REPLY_HEAD_LEN + packed_len(coefficients, self.shape.reply_bits)
    }

    /// Whether the products go through transforms: where those cost less than so many terms, and their weights leave
    /// room in memory.
    pub(crate) fn transforms(&self) -> bool {
        let pairs = self.blocks() * self.groups();
        pairs * self.stride() > TERMS_OF_A_TRANSFORM * (self.blocks() + self.groups())
            && pairs * self.degree() <= TRANSFORMED_WEIGHTS
    }

    /// The time of a request of `rows` rows, in microseconds: its bytes at 100 Mbit/s, and the evaluation.
    pub(crate) fn cost(&self, rows: usize) -> f64 {
        0.08 * (self.request_len(rows) + self.reply_len(rows)) as f64 + self.evaluation(rows)
    }

    /// The time of an evaluation of `rows` rows on one thread, in microseconds, as estimated from the figures that `cargo measure`
    /// prints.
    pub(crate) fn evaluation(&self, rows: usize) -> f64 {
        let (blocks, groups, size) = (self.blocks() as f64, self.groups() as f64, self.degree() as f64 / 2048.0);
        let products = match self.transforms() {
            true => size * (10.0 * blocks + 8.0 * groups + 1.5 * blocks * groups),
            false => size * 0.15 * blocks * groups * self.stride() as f64,
        };
        let outputs = 0.01 * (self.limb_rows(rows) * self.shape.outputs()) as f64 * blocks;
        products + outputs + size * (2.5 * blocks + 40.0 * groups)
    }

    /// The layouts of a model: for each of some numbers of rows the one that costs least per row.
    #[cfg(any(test, feature = "import"))]
    pub(crate) fn choose(shape: Shape) -> Vec<Layout> {
        let mut chosen = vec![];
        for rows in [1, 16, 256, shape.parameters.degree()] {
            let per_row = |packing: &Self| {
                let rows = rows.min(packing.capacity());
                packing.cost(rows) / rows as f64
            };
            let best = candidates(shape, rows).min_by(|one, other| per_row(one).total_cmp(&per_row(other)));
            chosen.extend(best.map(|packing| packing.layout).filter(|layout| !chosen.contains(layout)));
        }
        chosen
    }
}

/// The largest number up to `most` that passes, of a test that fails from some number on; zero if none does.
fn largest(most: usize, passes: impl Fn(usize) -> bool) -> usize {
    let (mut passing, mut failing) = (0, most + 1);
    while failing - passing > 1 {
        let middle = passing + (failing - passing) / 2;
        if passes(middle) { passing = middle } else { failing = middle }
    }
    passing
}

/// Every number of groups, and blocks of one feature or as few as hold the rows.
#[cfg(any(test, feature = "import"))]
fn candidates(shape: Shape, rows: usize) -> impl Iterator<Item = Packing> {
    let outputs = shape.outputs();
    let mut kappas: Vec<usize> = (1..=outputs).map(|groups| outputs.div_ceil(groups)).collect();
    kappas.dedup();
    kappas.into_iter().flat_map(move |kappa| {
        let room = shape.parameters.degree() / kappa / (rows * shape.limbs.features.count);
        let blocks = shape.features.div_ceil(room.clamp(1, shape.features));
        let balanced = shape.features.div_ceil(blocks);
        [balanced, 1].map(|features| Packing::new(shape, Layout { outputs: kappa, features })).into_iter().flatten()
    })
}

/// Terms of a correlation that take as long as a transform.
const TERMS_OF_A_TRANSFORM: usize = 64;

/// The most coefficients of transformed weights per layout: 20 bytes each, 80 MB.
const TRANSFORMED_WEIGHTS: usize = 1 << 22;

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::limbs::Digits;

    pub(crate) fn shape(features: usize, logits: usize, limbs: (usize, usize)) -> Shape {
        let limbs = Limbs { weights: Digits { bits: 8, count: limbs.1 }, features: Digits { bits: 8, count: limbs.0 } };
        Shape { parameters: ParameterSet::N2048TUniform17, features, logits, limbs, reply_bits: 30 }
    }

    fn packing(features: usize, logits: usize, layout: (usize, usize)) -> Option<Packing> {
        Packing::new(shape(features, logits, (1, 1)), Layout { outputs: layout.0, features: layout.1 })
    }

    #[test]
    fn a_row_must_fit() {
        assert!(packing(1024, 2, (2, 1024)).is_some());
        assert!(packing(1025, 2, (2, 1025)).is_none());
        assert!(packing(1025, 2, (2, 1024)).is_some(), "in two blocks");
        assert!(packing(usize::MAX, 2, (2, usize::MAX)).is_none());
        for layout in [(0, 1), (1, 0), (3, 1), (1, 5)] {
            assert!(packing(4, 2, layout).is_none(), "{layout:?}");
        }
    }

    /// The claim of the module's text, by brute force: whatever W·m adds into an output is that row's feature or a
    /// zero.
    #[test]
    fn outputs_meet_their_own_row_and_zeros_only() {
        for (features, outputs, layout) in [
            (4, 3, (3, 4)),
            (5, 7, (4, 3)),
            (2, 512, (512, 2)),
            (1024, 2, (2, 1024)),
            (1, 2048, (2048, 1)),
            (30, 5, (1, 7)),
            (9, 2, (1, 1)),
            (3, 682, (341, 2)),
        ] {
            let packing = packing(features, outputs, layout).unwrap();
            let (degree, kappa, capacity) = (packing.degree() as isize, packing.kappa(), packing.capacity());
            let block = 0..features.min(layout.1);
            let inputs: HashSet<usize> =
                (0..capacity).flat_map(|r| block.clone().map(move |j| packing.input(r, j).1)).collect();
            for (row, output) in (0..capacity).flat_map(|r| (0..kappa).map(move |c| (r, c))) {
                for (feature, other) in block.clone().flat_map(|j| (0..kappa).map(move |c| (j, c))) {
                    let exponent = (layout.1 - 1 - feature) * kappa + other;
                    let met = packing.output(row) as isize + output as isize - exponent as isize;
                    let window = -(packing.lead() as isize)..(capacity * packing.stride()) as isize;
                    assert!(window.contains(&met));
                    let met = met.rem_euclid(degree) as usize;
                    assert_eq!((0, met) == packing.input(row, feature), other == output);
                    assert!(other == output || !inputs.contains(&met));
                }
            }
        }
    }

    #[test]
    fn every_output_is_in_one_group_and_every_feature_in_one_block() {
        let packing = packing(10, 7, (3, 4)).unwrap();
        assert_eq!((packing.blocks(), packing.groups(), packing.stride()), (3, 3, 12));
        assert_eq!((0..3).map(|group| packing.outputs_of(group)).collect::<Vec<_>>(), [0..3, 3..6, 6..7]);
        assert_eq!(packing.input(5, 9), (2, 5 * 12 + 3));
        assert_eq!(packing.output(5), 5 * 12 + 9);
    }

    #[test]
    fn sizes_are_those_of_the_layout() {
        let iris = packing(4, 3, (3, 4)).unwrap();
        assert_eq!(iris.request_len(1), REQUEST_HEAD_LEN + 14 * 6);
        assert_eq!(iris.request_len(150), REQUEST_HEAD_LEN + 1802 * 6);
        assert_eq!(iris.reply_len(1), REPLY_HEAD_LEN + (2051 * 30_usize).div_ceil(8));
        let full = packing(1, 2, (2, 1)).unwrap();
        assert_eq!(full.request_len(full.capacity()), REQUEST_HEAD_LEN + 2048 * 6, "no coefficient travels twice");
    }

    #[test]
    fn no_message_exceeds_the_limit() {
        for shape in [shape(50_000, 20, (1, 1)), shape(50_000, 1, (3, 3)), shape(64, 1000, (2, 2))] {
            for layout in Packing::choose(shape) {
                let packing = Packing::new(shape, layout).unwrap();
                let rows = packing.capacity();
                assert!(packing.request_len(rows) <= MAX_MESSAGE_LEN && packing.reply_len(rows) <= MAX_MESSAGE_LEN);
            }
        }
    }

    #[test]
    fn few_rows_share_polynomials_and_many_rows_share_masks() {
        let layouts = Packing::choose(shape(64, 10, (1, 1)));
        assert_eq!(layouts[0], Layout { outputs: 10, features: 64 }, "one row is one ciphertext each way");
        assert_eq!(layouts[layouts.len() - 1], Layout { outputs: 1, features: 1 }, "2048 rows share 64 masks");
        let pixels = Packing::choose(shape(784, 10, (1, 1)));
        let one = Packing::new(shape(784, 10, (1, 1)), pixels[0]).unwrap();
        assert!(one.request_len(1) + one.reply_len(1) < 60_000, "{:?}", pixels[0]);
    }

    #[test]
    fn every_model_within_the_limits_has_a_layout() {
        for (features, outputs) in [(1, 1), (50_000, 1), (1, 1000), (4000, 1000), (50_000, 80), (2049, 1)] {
            for limbs in [(1, 1), (4, 4)] {
                assert!(!Packing::choose(shape(features, outputs, limbs)).is_empty(), "{features}×{outputs}");
            }
        }
    }
}
