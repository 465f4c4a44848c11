//! A model on the levels of its features, in float64.
//!
//! On a grid of intervals a tree's cuts move to their ends, and a neuron takes a level for the middle of its interval. On a
//! grid of the trees' own cuts nothing changes.

use super::nonlinear::{NetworkModel, Node, Source, Tree as SourceTree};
use crate::description::Feature;
use crate::selection::Grid;
use crate::selection::model::{Branch, Model, Network, Neuron, Tree, Trees};

/// A model on grids, before its numbers have a scale.
pub(super) struct Levelled<'a> {
    pub(super) model: Model<f64>,
    features: &'a [Feature],
    grids: &'a [Grid],
    /// Whether values are rounded to float32 before they are compared.
    pub(super) single: bool,
}

impl<'a> Levelled<'a> {
    /// `rows`: some data, by which cuts move; `places`: those of a neuron's table.
    pub(super) fn new(
        source: &Source,
        features: &'a [Feature],
        grids: &'a [Grid],
        rows: &[Vec<f64>],
        places: usize,
    ) -> Self {
        let (model, single) = match source {
            Source::Trees(trees) => {
                let columns = columns(features.len(), rows, trees.single);
                let on_levels = |tree| on_levels(tree, features, grids, &columns);
                let (base, single) = (trees.base.clone(), trees.single);
                (Model::Trees(Trees { base, trees: trees.trees.iter().map(on_levels).collect() }), single)
            }
            Source::Network(network) => {
                let neurons = (0..network.hidden.len()).map(|unit| neuron(network, unit, places, features, grids));
                (Model::Network(Network { base: network.output_bias.clone(), neurons: neurons.collect() }), false)
            }
            Source::Linear => unreachable!("linear models are planned as such"),
        };
        Self { model, features, grids, single }
    }

    /// The logits of a row, on its levels.
    pub(super) fn logits(&self, row: &[f64]) -> Vec<f64> {
        let level = |(grid, (feature, &value)): (&Grid, (&Feature, &f64))| {
            let value = value.clamp(feature.low, feature.high);
            grid.level(if self.single { f64::from(value as f32) } else { value }, feature.low, feature.high)
        };
        let levels: Vec<u64> = self.grids.iter().zip(self.features.iter().zip(row)).map(level).collect();
        let mut sum = self.model.base().to_vec();
        match &self.model {
            Model::Trees(Trees { trees, .. }) => trees.iter().for_each(|tree| add(&mut sum, tree.leaf(&levels))),
            Model::Network(Network { neurons, .. }) => {
                let pairs = self.grids.iter().zip(levels);
                let bits: Vec<u64> = pairs.flat_map(|(grid, level)| grid.bits_of(level)).collect();
                let logits = sum.len();
                neurons.iter().for_each(|neuron| add(&mut sum, neuron.entry(&bits, logits)));
            }
        }
        sum
    }

    /// No logit is larger.
    pub(super) fn largest(&self) -> f64 {
        let most = |values: &mut dyn Iterator<Item = &f64>| values.map(|value| value.abs()).fold(0.0, f64::max);
        let summands: f64 = match &self.model {
            Model::Trees(Trees { trees, .. }) => trees.iter().map(|tree| most(&mut tree.leaves.iter().flatten())).sum(),
            Model::Network(Network { neurons, .. }) => {
                neurons.iter().map(|neuron| most(&mut neuron.table.iter())).sum()
            }
        };
        summands + most(&mut self.model.base().iter())
    }
}

/// What the data has of every feature, ascending, as trees compare it.
fn columns(features: usize, rows: &[Vec<f64>], single: bool) -> Vec<Vec<f64>> {
    let column = |place: usize| {
        let compared = |row: &Vec<f64>| if single { f64::from(row[place] as f32) } else { row[place] };
        let mut values: Vec<f64> = rows.iter().map(compared).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    (0..features).map(column).collect()
}

fn add(sum: &mut [f64], values: &[f64]) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}

/// The tree over levels, without the branches that no level can take. `columns`: some values of every feature.
fn on_levels(tree: &SourceTree, features: &[Feature], grids: &[Grid], columns: &[Vec<f64>]) -> Tree<f64> {
    let ranges = grids.iter().map(|grid| (0, 1_u64 << grid.bits())).collect();
    let mut builder = TreeBuilder { tree, features, grids, columns, ranges, branches: vec![], leaves: vec![] };
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
    /// Ascending.
    columns: &'a [Vec<f64>],
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
                let place = ((cut - low) / (high - low) * levels).clamp(0.0, levels);
                let below = |value: f64| self.columns[column].partition_point(|&other| other < value);
                // Of the two levels around the one that moves fewer values to the other side, or else the nearer.
                let cost = |level: f64| {
                    let moved = below(low + level * (high - low) / levels).abs_diff(below(cut));
                    (moved, (level - place).abs())
                };
                let (down, up) = (place.floor(), place.ceil());
                (if cost(up) < cost(down) { up } else { down }) as u64
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::tests::uniform;
    use crate::description::tests::feature;
    use crate::import::nonlinear::{Activation, TreeModel};

    fn branch(column: usize, cut: f64, below: usize, above: usize) -> Node {
        Node::Branch { column, cut, below, above }
    }

    fn leaf(value: f64) -> Node {
        Node::Leaf { values: vec![value] }
    }

    fn trees(nodes: Vec<Node>) -> Source {
        Source::Trees(TreeModel { trees: vec![SourceTree { nodes }], base: vec![0.0], single: false })
    }

    fn tree<'a>(levelled: &'a Levelled<'_>) -> &'a Tree<f64> {
        match &levelled.model {
            Model::Trees(trees) => &trees.trees[0],
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn cuts_move_to_the_end_that_moves_fewer_rows() {
        let (features, grids) = ([feature("x", 0.0, 4.0)], [Grid::Uniform(2)]);
        let source = trees(vec![branch(0, 1.6, 1, 2), leaf(0.0), leaf(1.0)]);
        let level = |values: &[f64]| {
            let rows: Vec<Vec<f64>> = values.iter().map(|&value| vec![value]).collect();
            tree(&Levelled::new(&source, &features, &grids, &rows, 0)).branches[0].level
        };
        assert_eq!(level(&[]), 2, "the nearer");
        assert_eq!(level(&[1.7, 1.9, 3.0]), 1);
        assert_eq!(level(&[1.1, 1.2, 1.7]), 2);
        assert_eq!(level(&[1.5, 1.6]), 2, "one on either side");
    }

    /// Exactly where values are: float32 rounds a value and its threshold alike.
    #[test]
    fn columns_are_what_trees_compare() {
        let (single, double) = (columns(1, &[vec![0.1], vec![-3.0]], true), columns(1, &[vec![0.1]], false));
        assert_eq!((single, double), (vec![vec![-3.0, f64::from(0.1_f32)]], vec![vec![0.1]]));
    }

    #[test]
    fn branches_that_no_level_can_take_are_left_out() {
        let features = [feature("x", 0.0, 4.0)];
        // Below 2 nothing reaches 3, and nothing is below −1.
        let nodes = vec![
            branch(0, 2.0, 1, 2),
            branch(0, 3.0, 3, 4),
            branch(0, -1.0, 5, 6),
            leaf(10.0),
            leaf(11.0),
            leaf(12.0),
            leaf(13.0),
        ];
        let source = trees(nodes);
        for grids in [[Grid::Uniform(2)], [Grid::Cuts(vec![2.0, 3.0])]] {
            let levelled = Levelled::new(&source, &features, &grids, &[], 0);
            assert_eq!(
                (tree(&levelled).branches.len(), &tree(&levelled).leaves[..]),
                (1, &[vec![10.0], vec![13.0]][..])
            );
            for x in [0.0, 1.9, 2.0, 4.0] {
                assert_eq!(levelled.logits(&[x]), source.logits(&[x]), "{x}");
            }
        }
    }

    /// The more bits and places, the closer; and no set of bits turns a table beyond its ends.
    #[test]
    fn tables_hold_what_neurons_give() {
        let features = [feature("x", -1.0, 2.0), feature("y", 0.0, 1.0)];
        let network = NetworkModel {
            activation: Activation::Sigmoid,
            hidden: vec![vec![1.5, -2.0], vec![0.0, 0.0]],
            bias: vec![-0.25, 3.0],
            output: vec![vec![2.0, 1.0], vec![-1.0, 0.5]],
            output_bias: vec![0.5, 0.0],
        };
        let source = Source::Network(network);
        let furthest = |bits, places| {
            let grids = vec![Grid::Uniform(bits); 2];
            let levelled = Levelled::new(&source, &features, &grids, &[], places);
            let Model::Network(Network { neurons, .. }) = &levelled.model else { panic!("it is a network") };
            for neuron in neurons {
                let most: i64 = neuron.turns.iter().map(|turn| turn.max(&0)).sum();
                let least: i64 = neuron.turns.iter().map(|turn| turn.min(&0)).sum();
                assert!(neuron.start + least >= 0 && neuron.start + most < places as i64, "{neuron:?}");
            }
            let points = uniform(200, 4).into_iter().map(|word| word as f64 / u64::MAX as f64).collect::<Vec<_>>();
            let off = points.chunks(2).map(|point| {
                let row = [3.0 * point[0] - 1.0, point[1]];
                let pairs = levelled.logits(&row).into_iter().zip(source.logits(&row));
                pairs.map(|(found, exact)| (found - exact).abs()).fold(0.0, f64::max)
            });
            off.fold(0.0, f64::max)
        };
        let (coarse, fine) = (furthest(3, 50), furthest(7, 1000));
        assert!(coarse < 0.5 && fine < 0.05 && fine < 0.2 * coarse, "{coarse} {fine}");
    }

    #[test]
    fn no_logit_is_larger_than_it_can_be() {
        let features = [feature("x", 0.0, 4.0)];
        let source = trees(vec![branch(0, 2.0, 1, 2), leaf(-7.0), leaf(3.0)]);
        assert_eq!(Levelled::new(&source, &features, &[Grid::Uniform(2)], &[], 0).largest(), 7.0);
    }
}
