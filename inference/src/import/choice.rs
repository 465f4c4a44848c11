//! Planning models that choose: grids, integers, gadget and scales.
//!
//! Grids come first: the model's own cuts if they may be public, or else as few bits for every feature as leave the
//! predictions on some data what they were. Integers are as large as there is room for, and noise is what is left to be
//! paid for: of the gadgets with the fewest levels, and so the shortest requests, the first is taken that keeps the
//! precision.

use super::nonlinear::{Activation, NetworkModel, Node, Source, Tree as SourceTree, TreeModel};
use super::plan::{Wish, decimals};
use super::{ImportError, ImportOptions, Quantisation, Thresholds, random_rows};
use crate::bits::MAX_BITS;
use crate::bound::{Scale, StatedErrors};
use crate::description::{Feature, Link};
use crate::parameters::ParameterSet;
use crate::selection::model::{Branch, Model, Network, Neuron, Tree, Trees};
use crate::selection::noise::Noise;
use crate::selection::{Check, Gadget, Grid, MAX_SELECTION_LEN, Selection, Shape};

/// A model in integers, and how it is asked.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) model: Model,
    pub(super) selection: Selection,
    pub(super) parameters: ParameterSet,
    pub(super) scale: Scale,
    pub(super) decimals: u32,
    pub(super) bound: f64,
    pub(super) limit: u64,
    pub(super) quantisation: Quantisation,
}

/// What a plan is made of.
pub(super) struct Task<'a> {
    pub(super) source: &'a Source,
    pub(super) features: &'a [Feature],
    /// Rows as the model gets them: after the client's steps.
    pub(super) rows: &'a [Vec<f64>],
    pub(super) link: Link,
    pub(super) is_classifier: bool,
    pub(super) thresholds: Thresholds,
    pub(super) wish: Wish,
}

impl Choice {
    pub(super) fn new(task: &Task<'_>) -> Result<Self, ImportError> {
        task.wish.check()?;
        let (grids, quantisation) = task.grids()?;
        let draft = Draft::new(task, &grids);
        let ready = draft.ready(&grids)?;
        let stated = task.stated();
        let found = ready.best(task.wish, stated)?;
        let found =
            found.ok_or_else(|| task.wish.refusal(stated, |wish| matches!(ready.best(wish, stated), Ok(Some(_)))))?;
        let Found { selection, parameters, scale, decimals, bound, limit } = found;
        Ok(Self { model: ready.model, selection, parameters, scale, decimals, bound, limit, quantisation })
    }
}

impl Task<'_> {
    /// The grids of all features, and what they cost.
    fn grids(&self) -> Result<(Vec<Grid>, Quantisation), ImportError> {
        match (self.source, self.thresholds) {
            (Source::Trees(trees), Thresholds::Public) => {
                let grids: Vec<Grid> = self.cuts(trees).into_iter().map(Grid::Cuts).collect();
                let quantisation = self.loss(&grids);
                Ok((grids, quantisation))
            }
            (_, Thresholds::Public) => Err(ImportError::NoThresholds),
            (_, Thresholds::Hidden) => {
                let uniform = |bits| vec![Grid::Uniform(bits); self.features.len()];
                let tried = (FEWEST_BITS..=MOST_BITS).map(|bits| (uniform(bits), self.loss(&uniform(bits))));
                let mut best: Option<(Vec<Grid>, Quantisation)> = None;
                for (grids, loss) in tried {
                    let is_better = best.as_ref().is_none_or(|(_, best)| loss.amount < best.amount);
                    let is_enough = loss.amount <= ENOUGH;
                    if is_better {
                        best = Some((grids, loss));
                    }
                    if is_enough {
                        break;
                    }
                }
                Ok(best.expect("at least one number of bits is tried"))
            }
        }
    }

    /// Every cut of each feature within its range, ascending.
    fn cuts(&self, trees: &TreeModel) -> Vec<Vec<f64>> {
        let mut cuts = vec![vec![]; self.features.len()];
        for node in trees.trees.iter().flat_map(|tree| &tree.nodes) {
            if let Node::Branch { column, cut, .. } = *node {
                let Feature { low, high, .. } = self.features[column];
                if cut > low && cut <= high {
                    cuts[column].push(cut);
                }
            }
        }
        for cuts in &mut cuts {
            cuts.sort_by(f64::total_cmp);
            cuts.dedup();
        }
        cuts
    }

    /// What rows say of the model on these grids, against the model itself.
    fn loss(&self, grids: &[Grid]) -> Quantisation {
        let bits = grids.iter().map(Grid::bits).sum();
        let rows: Vec<Vec<f64>> = match self.rows {
            [] => random_rows(self.features, ROWS_WITHOUT_DATA, [0; 48]).collect(),
            rows => rows.iter().take(ImportOptions::MOST_ROWS).cloned().collect(),
        };
        let draft = Draft::new(self, grids);
        let (mut labels_changed, mut largest, mut squares, mut values) = (0, 0.0_f64, 0.0, vec![]);
        for row in &rows {
            let (exact, quantised) = (self.source.logits(row), draft.logits(self.features, grids, row));
            labels_changed += usize::from(self.label(&exact) != self.label(&quantised));
            for (exact, quantised) in exact.iter().zip(&quantised) {
                largest = largest.max((exact - quantised).abs());
                squares += (exact - quantised).powi(2);
            }
            values.extend(exact);
        }
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        let spread: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let labels_changed = self.is_classifier.then_some(labels_changed);
        let amount = match labels_changed {
            Some(changed) => changed as f64 / rows.len().max(1) as f64,
            // The root mean square, over the standard deviation of what is predicted.
            None => (squares / spread.max(f64::MIN_POSITIVE)).sqrt() * REGRESSION_SHARE,
        };
        let from_data = !self.rows.is_empty();
        Quantisation { rows: rows.len(), from_data, labels_changed, largest_difference: largest, bits, amount }
    }

    /// The index of a classifier's label.
    fn label(&self, logits: &[f64]) -> usize {
        match (self.link, logits) {
            (Link::Probability, [p]) => usize::from(*p > 0.5),
            (_, [logit]) => usize::from(*logit > 0.0),
            _ => (1..logits.len()).fold(0, |first, c| if logits[c] > logits[first] { c } else { first }),
        }
    }
}

/// As many lie all over the ranges where no data is given.
const ROWS_WITHOUT_DATA: usize = 500;

/// The bits that are tried for every feature.
const FEWEST_BITS: u32 = 2;
const MOST_BITS: u32 = 8;

/// One label in five hundred.
const ENOUGH: f64 = 0.002;

/// A regression may be off by five times this share of its standard deviation: two hundredths.
const REGRESSION_SHARE: f64 = 0.1;

/// β for every ℓ: with larger ones the noise of bits and of float64 grows, with smaller ones that of what is left out.
const GADGETS: [Gadget; 4] = [
    Gadget { base: 23, levels: 1 },
    Gadget { base: 16, levels: 2 },
    Gadget { base: 12, levels: 3 },
    Gadget { base: 10, levels: 4 },
];

const TREE_CHECK: Check = Check { bits: 4, count: 16 };

/// A neuron's table has a place for it in each of its entries.
const NETWORK_CHECK: Check = Check { bits: 8, count: 2 };

/// Of trees, so that the check fits beside them.
const MOST_LOGITS: usize = 2048 - TREE_CHECK.count;

/// A model on grids, before its numbers have a scale.
struct Draft {
    numbers: Model<f64>,
    logits: usize,
    single: bool,
}

impl Draft {
    fn new(task: &Task<'_>, grids: &[Grid]) -> Self {
        match task.source {
            Source::Trees(model) => {
                let trees = model.trees.iter().map(|tree| on_levels(tree, task.features, grids)).collect();
                let base = model.base.clone();
                Self { logits: base.len(), numbers: Model::Trees(Trees { base, trees }), single: model.single }
            }
            Source::Network(model) => {
                let places = ParameterSet::N2048TUniform17.degree() / (model.output.len() + NETWORK_CHECK.count).max(1);
                let neurons = (0..model.hidden.len()).map(|unit| neuron(model, unit, places, task.features, grids));
                let (base, neurons) = (model.output_bias.clone(), neurons.collect());
                Self { logits: base.len(), numbers: Model::Network(Network { base, neurons }), single: false }
            }
            Source::Linear => unreachable!("linear models are planned as such"),
        }
    }

    fn check(&self) -> Check {
        match self.numbers {
            Model::Trees(_) => TREE_CHECK,
            Model::Network(_) => NETWORK_CHECK,
        }
    }

    /// The smallest ring that holds what it has to.
    fn parameters(&self) -> Option<ParameterSet> {
        let (small, large) = (ParameterSet::K4N512TUniform17, ParameterSet::N2048TUniform17);
        let outputs = self.logits + self.check().count;
        match self.numbers {
            Model::Trees(_) if outputs <= small.degree() => Some(small),
            Model::Trees(_) => (outputs <= large.degree()).then_some(large),
            // A table of fewer places would say nothing.
            Model::Network(_) => (outputs * 16 <= large.degree()).then_some(large),
        }
    }

    /// The logits of a row, on its levels.
    fn logits(&self, features: &[Feature], grids: &[Grid], row: &[f64]) -> Vec<f64> {
        let level = |(grid, (feature, &value)): (&Grid, (&Feature, &f64))| {
            let value = value.clamp(feature.low, feature.high);
            grid.level(if self.single { f64::from(value as f32) } else { value }, feature.low, feature.high)
        };
        let levels: Vec<u64> = grids.iter().zip(features.iter().zip(row)).map(level).collect();
        let mut sum = self.numbers.base().to_vec();
        match &self.numbers {
            Model::Trees(Trees { trees, .. }) => trees.iter().for_each(|tree| add(&mut sum, tree.leaf(&levels))),
            Model::Network(Network { neurons, .. }) => {
                let bits: Vec<u64> = grids
                    .iter()
                    .zip(&levels)
                    .flat_map(|(grid, level)| (0..grid.bits()).map(move |place| level >> place & 1))
                    .collect();
                neurons.iter().for_each(|neuron| add(&mut sum, neuron.entry(&bits, self.logits)));
            }
        }
        sum
    }

    /// No logit is larger.
    fn largest(&self) -> f64 {
        let most = |values: &mut dyn Iterator<Item = &f64>| values.map(|value| value.abs()).fold(0.0, f64::max);
        let summands: f64 = match &self.numbers {
            Model::Trees(Trees { trees, .. }) => trees.iter().map(|tree| most(&mut tree.leaves.iter().flatten())).sum(),
            Model::Network(Network { neurons, .. }) => {
                neurons.iter().map(|neuron| most(&mut neuron.table.iter())).sum()
            }
        };
        summands + most(&mut self.numbers.base().iter())
    }

    /// In integers, as large as there is room for.
    fn ready<'a>(&self, grids: &'a [Grid]) -> Result<Ready<'a>, ImportError> {
        let parameters = self.parameters();
        let parameters =
            parameters.ok_or(ImportError::TooWide { what: "logits", actual: self.logits, max: MOST_LOGITS })?;
        // A quarter of 2^63 is left to noise.
        let bits = (62.4 - self.largest().max(f64::MIN_POSITIVE).log2()).floor().clamp(2.0, 110.0) as i32;
        let scale = 2_f64.powi(bits);
        let model = self.numbers.map(|number| (number * scale).round_ties_even() as i64);
        let selection =
            Selection { check: self.check(), grids: grids.to_vec(), gadget: GADGETS[0], single: self.single };
        let depths = model.depths(&selection.ranges());
        Ok(Ready { grids, model, selection, parameters, bits, depths })
    }
}

/// A model in integers, of which gadget, flood and the bits of a reply are still open.
struct Ready<'a> {
    grids: &'a [Grid],
    model: Model,
    /// With any gadget.
    selection: Selection,
    parameters: ParameterSet,
    /// s: an integer L stands for L·2^−s.
    bits: i32,
    depths: Vec<usize>,
}

/// What keeps a wish.
struct Found {
    selection: Selection,
    parameters: ParameterSet,
    scale: Scale,
    decimals: u32,
    bound: f64,
    limit: u64,
}

impl Ready<'_> {
    /// The first gadget that fulfils the wish.
    fn best(&self, wish: Wish, stated: StatedErrors) -> Result<Option<Found>, ImportError> {
        let Some(decimals) = decimals(wish.precision) else { return Ok(None) };
        let mut fits = false;
        for gadget in GADGETS {
            let selection = Selection { gadget, ..self.selection.clone() };
            let logits = self.model.base().len();
            let Some(shape) = Shape::new(self.parameters, &selection, logits, MAX_BITS) else { continue };
            fits = true;
            if let Some(found) = self.finish(wish, stated, decimals, (selection, shape)) {
                return Ok(Some(found));
            }
        }
        match fits {
            true => Ok(None),
            false => {
                let bits = self.grids.iter().map(|grid| grid.bits() as usize).sum();
                let row = self.parameters.degree() * self.parameters.body_len();
                let len = bits * (self.parameters.dimension() + 1) * row;
                Err(ImportError::TooLong { len, max: MAX_SELECTION_LEN, bits })
            }
        }
    }

    /// Scale, flood and the bits of a reply, if all that is promised holds.
    fn finish(
        &self,
        wish: Wish,
        stated: StatedErrors,
        decimals: u32,
        (selection, shape): (Selection, Shape),
    ) -> Option<Found> {
        let Self { model, depths, bits, .. } = self;
        let mut scale = Scale { flood: 0, reply: MAX_BITS, shift: 0, weights: bits - 1, features: 1 };
        let quiet = Noise::new(&shape, depths.iter().copied(), 0);
        let room = wish.precision - quiet.ledger(scale.unit(), model.summands(), decimals, stated).total();
        if room <= 0.0 {
            return None;
        }
        // Most of what is left is for the flood, the rest for the reply's rounding.
        scale.flood = (0.8 * room / scale.unit()).log2().floor().clamp(0.0, 61.0) as u32;
        let fits = |reply: u32| {
            let shape = Shape { reply_bits: reply, ..shape };
            let noise = Noise::new(&shape, depths.iter().copied(), scale.flood);
            let limit = noise.limit(model.largest(), &shape)?;
            let ledger = noise.ledger(scale.unit(), model.summands(), decimals, stated);
            let is_private = wish.distance.is_none_or(|distance| noise.distance(&shape) <= distance);
            (ledger.total() <= wish.precision && is_private).then(|| (reply, ledger.total(), limit))
        };
        let (reply, bound, limit) = (1..=MAX_BITS).find_map(fits)?;
        scale.reply = reply;
        Some(Found { selection, parameters: self.parameters, scale, decimals, bound, limit })
    }
}

impl Task<'_> {
    /// What the file's float32 and the sums of float64 are off by, of numbers that are added up.
    pub(super) fn stated(&self) -> StatedErrors {
        let (largest, count) = self.source.size();
        let arithmetic = largest * (count as f64 + 8.0) * f64::EPSILON;
        StatedErrors { export: largest * f64::from(f32::EPSILON), arithmetic }
    }
}

fn add(sum: &mut [f64], values: &[f64]) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}

/// The tree over levels, without the branches that no level can take.
fn on_levels(tree: &SourceTree, features: &[Feature], grids: &[Grid]) -> Tree<f64> {
    let ranges = grids.iter().map(|grid| (0, 1_u64 << grid.bits())).collect();
    let mut builder = TreeBuilder { tree, features, grids, ranges, branches: vec![], leaves: vec![] };
    builder.add(0);
    let TreeBuilder { branches, leaves, .. } = builder;
    let number = |place| match place {
        Place::Branch(branch) => branch,
        Place::Leaf(leaf) => branches.len() + leaf,
    };
    let branches = branches.iter().map(|&(feature, level, below, above)| Branch {
        feature,
        level,
        below: number(below),
        above: number(above),
    });
    Tree { branches: branches.collect(), leaves }
}

#[derive(Clone, Copy)]
enum Place {
    Branch(usize),
    Leaf(usize),
}

struct TreeBuilder<'a> {
    tree: &'a SourceTree,
    features: &'a [Feature],
    grids: &'a [Grid],
    /// The levels that each feature can still have: from, to before.
    ranges: Vec<(u64, u64)>,
    branches: Vec<(usize, u64, Place, Place)>,
    leaves: Vec<Vec<f64>>,
}

impl TreeBuilder<'_> {
    /// Trees are no deeper than the reader allows.
    fn add(&mut self, node: usize) -> Place {
        let tree = self.tree;
        match &tree.nodes[node] {
            Node::Leaf { values } => {
                self.leaves.push(values.clone());
                Place::Leaf(self.leaves.len() - 1)
            }
            &Node::Branch { column, cut, below, above } => {
                let level = self.level(column, cut);
                let (from, to) = self.ranges[column];
                if level <= from {
                    return self.add(above);
                }
                if level >= to {
                    return self.add(below);
                }
                let index = self.branches.len();
                self.branches.push((column, level, Place::Leaf(0), Place::Leaf(0)));
                self.ranges[column] = (from, level);
                self.branches[index].2 = self.add(below);
                self.ranges[column] = (level, to);
                self.branches[index].3 = self.add(above);
                self.ranges[column] = (from, to);
                Place::Branch(index)
            }
        }
    }

    /// The least level of values that reach the cut.
    fn level(&self, column: usize, cut: f64) -> u64 {
        let Feature { low, high, .. } = self.features[column];
        match &self.grids[column] {
            Grid::Uniform(bits) => {
                let levels = (1_u64 << bits) as f64;
                ((cut - low) / (high - low) * levels).round().clamp(0.0, levels) as u64
            }
            Grid::Cuts(_) if cut <= low => 0,
            Grid::Cuts(cuts) => cuts.partition_point(|&other| other < cut) as u64 + 1,
        }
    }
}

/// z = zmin + p·h at place p; every bit of every feature turns by what it adds to z, in units of h.
fn neuron(model: &NetworkModel, unit: usize, places: usize, features: &[Feature], grids: &[Grid]) -> Neuron<f64> {
    let mut constant = model.bias[unit];
    let mut steps = vec![];
    for ((feature, grid), weight) in features.iter().zip(grids).zip(&model.hidden[unit]) {
        let width = (feature.high - feature.low) / (1_u64 << grid.bits()) as f64;
        // A level stands for the middle of its interval.
        constant += weight * (feature.low + 0.5 * width);
        steps.extend((0..grid.bits()).map(|place| weight * width * (1_u64 << place) as f64));
    }
    let span: f64 = steps.iter().map(|step| step.abs()).sum::<f64>().max(f64::MIN_POSITIVE);
    let mut unit_of_place = span / (places - 1) as f64;
    let turns = loop {
        let turns: Vec<i64> = steps.iter().map(|step| (step / unit_of_place).round() as i64).collect();
        if turns.iter().map(|turn| turn.unsigned_abs()).sum::<u64>() < places as u64 {
            break turns;
        }
        unit_of_place *= 1.0 + 1.0 / places as f64;
    };
    let start = -turns.iter().filter(|turn| **turn < 0).sum::<i64>();
    let entry = |place: usize| {
        let z = constant + (place as i64 - start) as f64 * unit_of_place;
        let activation = model.activation.apply(z);
        model.output.iter().map(move |row| row[unit] * activation)
    };
    Neuron { start, turns, table: (0..places).flat_map(entry).collect() }
}

impl Activation {
    fn apply(self, z: f64) -> f64 {
        match self {
            Self::Relu => z.max(0.0),
            Self::Sigmoid => 1.0 / (1.0 + (-z).exp()),
            Self::Tanh => z.tanh(),
        }
    }
}

impl Source {
    /// Its logits of a row.
    pub(super) fn logits(&self, row: &[f64]) -> Vec<f64> {
        match self {
            Self::Trees(TreeModel { trees, base, single }) => {
                let mut sum = base.clone();
                for tree in trees {
                    let mut at = 0;
                    let leaf = loop {
                        match &tree.nodes[at] {
                            Node::Leaf { values } => break values,
                            &Node::Branch { column, cut, below, above } => {
                                let value = if *single { f64::from(row[column] as f32) } else { row[column] };
                                at = if value < cut { below } else { above };
                            }
                        }
                    };
                    add(&mut sum, leaf);
                }
                sum
            }
            Self::Network(NetworkModel { activation, hidden, bias, output, output_bias }) => {
                let dot =
                    |weights: &Vec<f64>, values: &[f64]| weights.iter().zip(values).map(|(w, x)| w * x).sum::<f64>();
                let units: Vec<f64> =
                    hidden.iter().zip(bias).map(|(weights, bias)| activation.apply(bias + dot(weights, row))).collect();
                output.iter().zip(output_bias).map(|(weights, bias)| bias + dot(weights, &units)).collect()
            }
            Self::Linear => vec![],
        }
    }

    /// The most that the magnitudes of a logit's summands add up to, and how many there are.
    fn size(&self) -> (f64, usize) {
        let most = |values: &[f64]| values.iter().map(|value| value.abs()).fold(0.0, f64::max);
        match self {
            Self::Trees(TreeModel { trees, base, .. }) => {
                let reach = |tree: &SourceTree| {
                    let leaves = tree.nodes.iter().filter_map(|node| match node {
                        Node::Leaf { values } => Some(most(values)),
                        Node::Branch { .. } => None,
                    });
                    leaves.fold(0.0, f64::max)
                };
                (most(base) + trees.iter().map(reach).sum::<f64>(), trees.len())
            }
            Self::Network(NetworkModel { output, output_bias, hidden, .. }) => {
                let row = output.iter().map(|row| row.iter().map(|weight| weight.abs()).sum()).fold(0.0, f64::max);
                (most(output_bias) + row, hidden.len())
            }
            Self::Linear => (0.0, 0),
        }
    }
}
