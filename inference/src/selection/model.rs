//! Models that choose, in integers: what a bundle holds of them.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Grid, Shape};

/// What becomes of a row's levels. Numbers are integers, except where a model is still being planned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Model<N = i64> {
    Trees(Trees<N>),
    Network(Network<N>),
}

/// Logit c is base_c + Σ over trees of what the leaf that is reached has for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trees<N = i64> {
    pub(crate) base: Vec<N>,
    pub(crate) trees: Vec<Tree<N>>,
}

/// A tree over levels. Its root is the first branch, or the only leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tree<N = i64> {
    /// For each leaf, summands of all K logits.
    pub(crate) leaves: Vec<Vec<N>>,
    /// Each before those that it leads to.
    pub(crate) branches: Vec<Branch>,
}

/// x̃ < level ? below : above. Children below the number of branches are branches, the others leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(usize, u64, usize, usize)", into = "(usize, u64, usize, usize)")]
pub(crate) struct Branch {
    pub(crate) feature: usize,
    pub(crate) level: u64,
    pub(crate) below: usize,
    pub(crate) above: usize,
}

impl From<(usize, u64, usize, usize)> for Branch {
    fn from((feature, level, below, above): (usize, u64, usize, usize)) -> Self {
        Self { feature, level, below, above }
    }
}

impl From<Branch> for (usize, u64, usize, usize) {
    fn from(Branch { feature, level, below, above }: Branch) -> Self {
        (feature, level, below, above)
    }
}

/// What a number of a [`Branch`] leads to.
pub(crate) enum Child {
    Branch(usize),
    Leaf(usize),
}

impl<N> Tree<N> {
    pub(crate) fn child(&self, number: usize) -> Child {
        match number.checked_sub(self.branches.len()) {
            Some(leaf) => Child::Leaf(leaf),
            None => Child::Branch(number),
        }
    }

    /// The summands of the leaf that a row comes to.
    #[cfg(any(all(test, feature = "client"), feature = "import"))]
    pub(crate) fn leaf(&self, levels: &[u64]) -> &[N] {
        let mut at = 0;
        while let Some(&Branch { feature, level, below, above }) = self.branches.get(at) {
            at = if levels[feature] < level { below } else { above };
        }
        &self.leaves[at - self.branches.len()]
    }
}

impl Tree {
    fn check(&self, grids: &[Grid], logits: usize) -> Result<(), ModelError> {
        let children = self.branches.len() + self.leaves.len();
        if self.leaves.len() != self.branches.len() + 1 || self.leaves.iter().any(|leaf| leaf.len() != logits) {
            return Err(ModelError::Tree { why: "has other leaves than its branches and logits ask for" });
        }
        // Every child once, after its parent: no cycles, and no more paths than leaves.
        let mut reached = vec![false; children];
        for (index, &Branch { feature, level, below, above }) in self.branches.iter().enumerate() {
            let grid = grids.get(feature).ok_or(ModelError::Tree { why: "asks for a feature that is none" })?;
            if level == 0 || level >> grid.bits() != 0 {
                return Err(ModelError::Tree { why: "cuts where no level is" });
            }
            for child in [below, above] {
                let is_new = child > index && child < children && !std::mem::replace(&mut reached[child], true);
                if !is_new {
                    return Err(ModelError::Tree { why: "has a branch that leads nowhere new" });
                }
            }
        }
        Ok(())
    }

    /// The most that it adds to any logit, either way.
    fn reach(&self) -> u128 {
        self.leaves.iter().flatten().map(|value| value.unsigned_abs().into()).max().unwrap_or(0)
    }
}

/// Logit c is base_c + Σ over neurons of what their tables have for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Network<N = i64> {
    pub(crate) base: Vec<N>,
    pub(crate) neurons: Vec<Neuron<N>>,
}

/// A neuron's pre-activation is a place in its table: `start`, and `turns[i]` further for every bit i that is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Neuron<N = i64> {
    pub(crate) start: i64,
    /// Place by place, summands of all K logits: activations times output weights.
    pub(crate) table: Vec<N>,
    pub(crate) turns: Vec<i64>,
}

#[cfg(feature = "import")]
impl<N> Neuron<N> {
    /// The summands of `logits` logits at the place that bits say.
    pub(crate) fn entry(&self, bits: &[u64], logits: usize) -> &[N] {
        let turned: i64 = self.turns.iter().zip(bits).map(|(turn, &bit)| turn * bit as i64).sum();
        &self.table[(self.start + turned) as usize * logits..][..logits]
    }
}

#[cfg(feature = "import")]
impl<N> Model<N> {
    /// The same model of other numbers.
    pub(crate) fn map<M>(&self, number: impl Fn(&N) -> M) -> Model<M> {
        let all = |numbers: &Vec<N>| numbers.iter().map(&number).collect::<Vec<M>>();
        match self {
            Self::Trees(Trees { base, trees }) => {
                let tree = |Tree { leaves, branches }: &Tree<N>| Tree {
                    leaves: leaves.iter().map(all).collect(),
                    branches: branches.clone(),
                };
                Model::Trees(Trees { base: all(base), trees: trees.iter().map(tree).collect() })
            }
            Self::Network(Network { base, neurons }) => {
                let neuron = |Neuron { start, table, turns }: &Neuron<N>| Neuron {
                    start: *start,
                    table: all(table),
                    turns: turns.clone(),
                };
                Model::Network(Network { base: all(base), neurons: neurons.iter().map(neuron).collect() })
            }
        }
    }
}

impl<N> Model<N> {
    pub(crate) fn base(&self) -> &[N] {
        match self {
            Self::Trees(Trees { base, .. }) | Self::Network(Network { base, .. }) => base,
        }
    }
}

impl Neuron {
    /// Whatever the bits, the place is in the table, and the table fits into a polynomial.
    fn check(&self, shape: &Shape) -> Result<(), ModelError> {
        let Self { start, table, turns } = self;
        let places = table.len() / shape.logits.max(1);
        if places * shape.logits != table.len() || places * shape.outputs() > shape.parameters.degree() {
            return Err(ModelError::Neuron { why: "has a table that does not fit" });
        }
        if turns.len() != shape.bits {
            return Err(ModelError::Neuron { why: "has other turns than bits" });
        }
        let sum = |sign: i64| -> i128 {
            turns.iter().filter(|turn| turn.signum() == sign).map(|&turn| i128::from(turn)).sum()
        };
        let (least, most) = (i128::from(*start) + sum(-1), i128::from(*start) + sum(1));
        match least >= 0 && most < places as i128 {
            true => Ok(()),
            false => Err(ModelError::Neuron { why: "turns beyond the ends of its table" }),
        }
    }

    fn reach(&self) -> u128 {
        self.table.iter().map(|value| value.unsigned_abs().into()).max().unwrap_or(0)
    }
}

impl From<Trees> for Model {
    fn from(trees: Trees) -> Self {
        Self::Trees(trees)
    }
}

impl From<Network> for Model {
    fn from(network: Network) -> Self {
        Self::Network(network)
    }
}

impl Model {
    /// Whether it is of that shape, and within the limits.
    pub(crate) fn check(&self, shape: &Shape, grids: &[Grid]) -> Result<(), ModelError> {
        if self.base().len() != shape.logits {
            return Err(ModelError::Logits { expected: shape.logits, actual: self.base().len() });
        }
        match self {
            Self::Trees(Trees { trees, .. }) => {
                let nodes = trees.iter().map(|tree| tree.branches.len() + tree.leaves.len()).sum();
                within("trees", trees.len(), MAX_TREES)?;
                within("nodes", nodes, MAX_NODES)?;
                trees.iter().try_for_each(|tree| tree.check(grids, shape.logits))
            }
            Self::Network(Network { neurons, .. }) => {
                within("neurons", neurons.len(), MAX_NEURONS)?;
                neurons.iter().try_for_each(|neuron| neuron.check(shape))
            }
        }
    }

    /// P: no logit is larger.
    pub(crate) fn largest(&self) -> u128 {
        let summands: u128 = match self {
            Self::Trees(Trees { trees, .. }) => trees.iter().map(Tree::reach).sum(),
            Self::Network(Network { neurons, .. }) => neurons.iter().map(Neuron::reach).sum(),
        };
        summands + self.base().iter().map(|base| u128::from(base.unsigned_abs())).max().unwrap_or(0)
    }

    /// The integers that a logit is a sum of.
    pub(crate) fn summands(&self) -> usize {
        1 + match self {
            Self::Trees(Trees { trees, .. }) => trees.len(),
            Self::Network(Network { neurons, .. }) => neurons.len(),
        }
    }
}

fn within(what: &'static str, actual: usize, max: usize) -> Result<(), ModelError> {
    match actual {
        0 => Err(ModelError::Logits { expected: 1, actual: 0 }),
        actual if actual > max => Err(ModelError::TooLarge { what, actual, max }),
        _ => Ok(()),
    }
}

/// The most trees of a model.
pub const MAX_TREES: usize = 2000;

/// The most branches and leaves of all its trees.
pub const MAX_NODES: usize = 1 << 17;

/// The most neurons of a hidden layer.
pub const MAX_NEURONS: usize = 512;

/// Why integers are no such model.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Logits that are not those of the description.
    #[error("{actual} logits, where the description has {expected}")]
    Logits {
        /// The description's.
        expected: usize,
        /// The model's.
        actual: usize,
    },
    /// More than is served.
    #[error("{actual} {what}, where at most {max} are possible")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// As many as there are.
        actual: usize,
        /// As many as may be.
        max: usize,
    },
    /// A tree that is none.
    #[error("a tree {why}")]
    Tree {
        /// What is wrong with it.
        why: &'static str,
    },
    /// A neuron that is none.
    #[error("a neuron {why}")]
    Neuron {
        /// What is wrong with it.
        why: &'static str,
    },
}

#[cfg(all(test, feature = "client"))]
pub(crate) mod tests {
    use std::ops::Range;

    use super::*;
    use crate::bundle::tests::uniform;

    /// Trees that look random over features of one to five bits, and where their bits are.
    pub(crate) fn forest(seed: u64, count: usize, logits: usize) -> (Trees, Vec<Range<u32>>) {
        let mut words = uniform(4000, seed as u8).into_iter();
        let mut next = move || words.next().expect("there are words enough") >> 8;
        let mut end = 0;
        let bits: Vec<Range<u32>> = (0..6)
            .map(|_| {
                let start = end;
                end += 1 + (next() % 5) as u32;
                start..end
            })
            .collect();
        let trees = (0..count).map(|_| {
            let branches_count = 1 + (next() % 12) as usize;
            // Each child goes to a free place of a branch before it.
            let mut places: Vec<(usize, bool)> = vec![];
            let mut branches: Vec<Branch> = vec![];
            for index in 0..branches_count {
                if index > 0 {
                    let (parent, above) = places.swap_remove((next() % places.len() as u64) as usize);
                    if above { branches[parent].above = index } else { branches[parent].below = index }
                }
                let feature = (next() % 6) as usize;
                let levels = 1 << bits[feature].len();
                branches.push(Branch { feature, level: 1 + next() % (levels - 1).max(1), below: 0, above: 0 });
                places.extend([(index, false), (index, true)]);
            }
            let mut leaves = vec![];
            for (parent, above) in places {
                let child = branches_count + leaves.len();
                if above {
                    branches[parent].above = child
                } else {
                    branches[parent].below = child
                }
                leaves.push((0..logits).map(|_| (next() % 2000) as i64 - 1000).collect());
            }
            Tree { leaves, branches }
        });
        (Trees { base: vec![0; logits], trees: trees.collect() }, bits)
    }

    impl Model {
        /// Changes every summand.
        pub(crate) fn change(&mut self, change: impl FnMut(&mut i64)) {
            match self {
                Self::Trees(Trees { base, trees }) => {
                    let leaves = trees.iter_mut().flat_map(|tree| tree.leaves.iter_mut().flatten());
                    base.iter_mut().chain(leaves).for_each(change);
                }
                Self::Network(Network { base, neurons }) => {
                    base.iter_mut().chain(neurons.iter_mut().flat_map(|neuron| &mut neuron.table)).for_each(change);
                }
            }
        }
    }

    /// A network of four features of six bits.
    pub(crate) fn network(count: usize, logits: usize) -> Network {
        let places = 2048 / (logits + 2);
        let neurons = (0..count).map(|neuron| {
            let words = uniform(24 + places * logits, neuron as u8 + 7);
            let turns: Vec<i64> = words[..24].iter().map(|&word| (word >> 8) as i64 % 17 - 8).collect();
            let start = -turns.iter().filter(|turn| **turn < 0).sum::<i64>();
            Neuron { start, table: words[24..].iter().map(|&word| (word >> 8) as i64 % 2000 - 1000).collect(), turns }
        });
        Network { base: vec![5; logits], neurons: neurons.collect() }
    }

    /// A level for each feature.
    pub(crate) fn levels(seed: u64, bits: &[Range<u32>]) -> Vec<u64> {
        let words = uniform(bits.len(), seed as u8 ^ 0x5a);
        words.into_iter().zip(bits).map(|(word, bits)| (word >> 8) % (1 << bits.len())).collect()
    }

    fn tree() -> Tree {
        let branch = |feature, level, below, above| Branch { feature, level, below, above };
        Tree { branches: vec![branch(0, 3, 2, 1), branch(1, 1, 3, 4)], leaves: vec![vec![1], vec![2], vec![3]] }
    }

    #[test]
    fn rows_come_to_leaves() {
        let tree = tree();
        tree.check(&[Grid::Uniform(2), Grid::Uniform(1)], 1).unwrap();
        let leaf = |levels: [u64; 2]| tree.leaf(&levels)[0];
        assert_eq!([leaf([2, 1]), leaf([3, 0]), leaf([3, 1])], [1, 2, 3]);
        assert_eq!(tree.reach(), 3);
    }

    #[test]
    fn what_is_no_tree_is_refused() {
        let refused = |change: fn(&mut Tree)| {
            let mut tree = tree();
            change(&mut tree);
            tree.check(&[Grid::Uniform(2), Grid::Uniform(1)], 1).unwrap_err().to_string()
        };
        for change in [
            (|tree| tree.branches[0].above = 0) as fn(&mut Tree),
            |tree| tree.branches[1].above = 1,
            |tree| tree.branches[1].above = 2,
            |tree| tree.branches[1].below = 5,
            |tree| tree.branches[1].below = usize::MAX,
        ] {
            assert_eq!(refused(change), "a tree has a branch that leads nowhere new");
        }
        assert_eq!(refused(|tree| tree.branches[0].level = 4), "a tree cuts where no level is");
        assert_eq!(refused(|tree| tree.branches[0].level = 0), "a tree cuts where no level is");
        assert_eq!(refused(|tree| tree.branches[0].feature = 2), "a tree asks for a feature that is none");
        let leaves = "a tree has other leaves than its branches and logits ask for";
        assert_eq!(refused(|tree| tree.leaves.truncate(2)), leaves);
        assert_eq!(refused(|tree| tree.leaves[1].push(1)), leaves);
        assert_eq!(refused(|tree| tree.branches.clear()), leaves);
    }
}
