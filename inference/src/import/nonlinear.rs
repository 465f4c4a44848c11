//! What is not linear in a model, brought to the columns themselves: the cuts of trees, the units of a hidden layer.
//!
//! Whatever is affine is folded in. Scalers before trees move their cuts, an average or a factor behind them changes
//! their leaves; scalers and decompositions before a hidden layer and all that follows it are in its two matrices.

use super::ImportError;
use super::chain::{Chain, Id, Operation, TooLarge};
use super::ensemble::{MAX_NODES, MAX_TREES};
use super::fold::{MAX_WORK, Slope};
use super::model::{check_size, too_large};
use super::refusal::graph_refused_for;

/// What a model computes of its columns, apart from preparation and link.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Nothing but sums of multiples.
    Linear,
    /// Trees that are added up.
    Trees(TreeModel),
    /// A network of one hidden layer.
    Network(NetworkModel),
}

/// logit_c = base[c] + Σ over trees of the leaf reached.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TreeModel {
    pub(super) trees: Vec<Tree>,
    /// One for each of K logits.
    pub(super) base: Vec<f64>,
    /// Whether columns are rounded to float32 before they are compared.
    pub(super) single: bool,
}

/// The root is the first node, children come after their parent, and every node is reached once.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
}

/// A decision, or its outcome.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// x < cut goes to `below`, x ≥ cut to `above`.
    Branch { column: usize, cut: f64, below: usize, above: usize },
    /// Summands for each of K logits.
    Leaf { values: Vec<f64> },
}

/// logit_c = output_bias[c] + Σ_u output[c][u]·activation(bias[u] + Σ_j hidden[u][j]·x_j).
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NetworkModel {
    pub(super) activation: Activation,
    pub(super) hidden: Vec<Vec<f64>>,
    pub(super) bias: Vec<f64>,
    pub(super) output: Vec<Vec<f64>>,
    pub(super) output_bias: Vec<f64>,
}

/// What a hidden unit makes of its sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    Relu,
    Sigmoid,
    Tanh,
}

impl Activation {
    /// By the name of its operator.
    pub(super) fn named(op: &str) -> Option<Self> {
        match op {
            "Relu" => Some(Self::Relu),
            "Sigmoid" => Some(Self::Sigmoid),
            "Tanh" => Some(Self::Tanh),
            _ => None,
        }
    }

    /// Of one unit's sum.
    pub(super) fn apply(self, z: f64) -> f64 {
        match self {
            Self::Relu => z.max(0.0),
            Self::Sigmoid => 1.0 / (1.0 + (-z).exp()),
            Self::Tanh => z.tanh(),
        }
    }
}

/// Whether a vector is a probability for each of several labels, as trees give it.
pub(super) fn gives_probabilities(chain: &Chain, id: Id) -> bool {
    matches!(Source::of(chain, id), Ok(Source::Trees(model)) if model.gives_probabilities())
}

impl Source {
    /// How a vector is computed.
    pub(super) fn of(chain: &Chain, id: Id) -> Result<Self, ImportError> {
        let steps = nonlinear_steps(chain, id)?;
        if steps.is_empty() {
            return Ok(Self::Linear);
        }
        let behind = Behind::of(chain, id, &steps)?;
        let activations: Vec<_> = steps
            .iter()
            .filter_map(|&step| match chain.operation(step) {
                Operation::Activate { activation, .. } => Some(*activation),
                _ => None,
            })
            .collect();
        match activations[..] {
            [] => TreeModel::new(chain, &steps, behind).map(Self::Trees),
            [first, ..] if activations.len() == steps.len() && activations.iter().all(|&other| other == first) => {
                NetworkModel::new(chain, &steps, first, behind).map(Self::Network)
            }
            [..] => Err(graph_refused_for(
                format!("it adds up {} parts of different kinds, such as trees and networks", steps.len()),
                "export a single model, or one that averages models of one kind",
            )),
        }
    }

    /// The logits of a row of columns, of trees or a network.
    pub(super) fn logits(&self, row: &[f64]) -> Vec<f64> {
        match self {
            Self::Linear => unreachable!("a linear model is folded"),
            Self::Trees(model) => model.logits(row),
            Self::Network(model) => model.logits(row),
        }
    }
}

/// The steps on the way to `id` that are not affine, none of which comes after another.
fn nonlinear_steps(chain: &Chain, id: Id) -> Result<Vec<Id>, ImportError> {
    let needed = chain.needed(id);
    let mut layers = vec![0_usize; id + 1];
    let mut steps = vec![];
    for step in (0..=id).filter(|&step| needed[step]) {
        let operation = chain.operation(step);
        let mut before = 0;
        operation.operands(|operand| before = before.max(layers[operand]));
        layers[step] = before + usize::from(!operation.is_affine());
        if !operation.is_affine() {
            steps.push(step);
        }
    }
    let is_ensemble = |&step: &Id| matches!(chain.operation(step), Operation::Ensemble { .. });
    match layers[id] {
        0 | 1 => Ok(steps),
        _ if steps.iter().any(is_ensemble) => Err(graph_refused_for(
            "its trees decide by what other trees or networks give, or something decides by them",
            "train the trees on the columns themselves, without stacking",
        )),
        layers => Err(graph_refused_for(
            format!("it has {layers} hidden layers, where one is supported"),
            "train with one hidden layer, such as hidden_layer_sizes=(16,)",
        )),
    }
}

/// How logits depend on the steps that are not affine.
struct Behind {
    constants: Vec<f64>,
    /// For each logit and each step, how much it changes with each element of the step.
    slopes: Vec<Vec<Vec<f64>>>,
}

impl Behind {
    fn of(chain: &Chain, id: Id, steps: &[Id]) -> Result<Self, ImportError> {
        let width = chain.width(id);
        let elements: usize = steps.iter().map(|&step| chain.width(step)).sum();
        check_elements(elements.saturating_mul(width))?;
        let mut behind = Self { constants: vec![], slopes: vec![] };
        let (needed, mut work) = (chain.needed(id), MAX_WORK);
        for logit in 0..width {
            let Slope { constant, columns, mut nonlinear } = Slope::of(chain, id, logit, &needed, &mut work)?;
            if columns.iter().any(|&slope| slope != 0.0) {
                return Err(graph_refused_for(
                    "its scores depend on columns by themselves as well as through trees or a hidden layer",
                    "export a single model, or one that averages models of one kind",
                ));
            }
            behind.constants.push(constant);
            behind.slopes.push(steps.iter().map(|step| nonlinear.remove(step).unwrap_or_default()).collect());
        }
        Ok(behind)
    }
}

/// As many numbers as the largest chain has.
fn check_elements(elements: usize) -> Result<(), ImportError> {
    match elements {
        0..=MAX_ELEMENTS => Ok(()),
        _ => Err(too_large(TooLarge)),
    }
}

const MAX_ELEMENTS: usize = 1 << 24;

impl TreeModel {
    /// The trees of several ensembles, by the columns that their vectors are.
    fn new(chain: &Chain, steps: &[Id], Behind { constants: mut base, slopes }: Behind) -> Result<Self, ImportError> {
        let ensembles: Vec<_> = steps
            .iter()
            .filter_map(|&step| match chain.operation(step) {
                Operation::Ensemble { of, ensemble } => Some((*of, ensemble)),
                _ => None,
            })
            .collect();
        let trees: usize = ensembles.iter().map(|(_, ensemble)| ensemble.trees.len()).sum();
        check_size("trees", trees, MAX_TREES)?;
        let nodes = ensembles.iter().flat_map(|(_, ensemble)| &ensemble.trees).map(|tree| tree.nodes.len()).sum();
        check_size("nodes of trees", nodes, MAX_NODES)?;
        let leaves: usize = ensembles.iter().map(|(_, ensemble)| ensemble.leaves()).sum();
        check_elements(leaves.saturating_mul(base.len()))?;
        let paths: Vec<Vec<Option<Path>>> =
            ensembles.iter().map(|(of, ensemble)| ensemble.paths(chain, *of)).collect::<Result<_, _>>()?;
        let is_single = ensembles.iter().all(|(_, ensemble)| ensemble.single);
        // Columns without a scaler are rounded as they are; what a scaler gives is rounded by where its cut is.
        let single = is_single && paths.iter().flatten().flatten().all(|path| path.steps.is_empty());
        let mut trees = vec![];
        for (index, ((_, ensemble), paths)) in ensembles.iter().zip(&paths).enumerate() {
            let mix = |values: &[f64]| {
                let logit = |slopes: &Vec<Vec<f64>>| slopes[index].iter().zip(values).map(|(a, v)| a * v).sum::<f64>();
                slopes.iter().map(logit).collect::<Vec<_>>()
            };
            base.iter_mut().zip(mix(&ensemble.base)).for_each(|(base, more)| *base += more);
            let rounded = ensemble.single && !single;
            let moved = |node: &Node| match node {
                Node::Leaf { values } => Ok(Node::Leaf { values: mix(values) }),
                Node::Branch { column, cut, below, above } => {
                    let path = paths[*column].as_ref().ok_or_else(mixed)?;
                    path.branch(*cut, *below, *above, rounded)
                }
            };
            for tree in &ensemble.trees {
                trees.push(Tree { nodes: tree.nodes.iter().map(moved).collect::<Result<_, _>>()? });
            }
        }
        let model = Self { trees, base, single };
        model.check_numbers()?;
        Ok(model)
    }

    fn logits(&self, row: &[f64]) -> Vec<f64> {
        let mut logits = self.base.clone();
        for tree in &self.trees {
            let mut at = 0;
            let leaf = loop {
                match &tree.nodes[at] {
                    Node::Leaf { values } => break values,
                    &Node::Branch { column, cut, below, above } => {
                        let x = if self.single { f64::from(row[column] as f32) } else { row[column] };
                        at = if x < cut { below } else { above };
                    }
                }
            };
            logits.iter_mut().zip(leaf).for_each(|(logit, value)| *logit += value);
        }
        logits
    }

    fn leaves(&self) -> usize {
        self.trees.iter().map(|tree| tree.nodes.len().div_ceil(2)).sum()
    }

    /// Refuses trees that decide by anything but columns.
    pub(super) fn check_columns(&self, chain: &Chain, of: Id) -> Result<(), ImportError> {
        match chain.is_affine(of) {
            true => self.paths(chain, of).map(drop),
            // Refused as a whole, with the model.
            false => Ok(()),
        }
    }

    /// For each element that decides anything, the column that it is.
    fn paths(&self, chain: &Chain, of: Id) -> Result<Vec<Option<Path>>, ImportError> {
        let mut paths: Vec<Option<Path>> = (0..chain.width(of)).map(|_| None).collect();
        for node in self.trees.iter().flat_map(|tree| &tree.nodes) {
            if let Node::Branch { column, .. } = node
                && paths[*column].is_none()
            {
                paths[*column] = Some(Path::of(chain, of, *column).ok_or_else(mixed)?);
            }
        }
        Ok(paths)
    }

    fn check_numbers(&self) -> Result<(), ImportError> {
        let numbers = |tree: &Tree| tree.nodes.iter().all(Node::is_finite);
        match self.trees.iter().all(numbers) && self.base.iter().all(|value| value.is_finite()) {
            true => Ok(()),
            false => Err(graph_refused_for(
                "what follows its trees makes their leaves overflow",
                "train the model again, on a target of moderate size",
            )),
        }
    }

    pub(super) fn for_each_leaf(&mut self, mut change: impl FnMut(&mut Vec<f64>)) {
        for node in self.trees.iter_mut().flat_map(|tree| &mut tree.nodes) {
            if let Node::Leaf { values } = node {
                change(values);
            }
        }
    }

    /// Whether the logits are a probability for each of K labels: not below zero, and one in all, whatever leaf each
    /// tree reaches.
    pub(super) fn gives_probabilities(&self) -> bool {
        let (mut least, mut low, mut high) = (self.base.clone(), 0.0, 0.0);
        for tree in &self.trees {
            let sums = || tree.leaves().map(|values| values.iter().sum::<f64>());
            low += sums().fold(f64::INFINITY, f64::min);
            high += sums().fold(f64::NEG_INFINITY, f64::max);
            for (logit, least) in least.iter_mut().enumerate() {
                *least += tree.leaves().map(|values| values[logit]).fold(f64::INFINITY, f64::min);
            }
        }
        let base: f64 = self.base.iter().sum();
        let is_one = |sum: f64| (sum - 1.0).abs() <= ONE_IN_FLOAT32;
        is_one(base + low) && is_one(base + high) && least.iter().all(|&least| least >= -ONE_IN_FLOAT32)
    }

    /// Whether two logits are always of opposite sign.
    pub(super) fn is_opposite(&self) -> bool {
        let mut all = self.trees.iter().flat_map(Tree::leaves).chain([&self.base[..]]);
        all.all(|values| values[0] == -values[1])
    }
}

/// What float32 makes of shares that sum up to one.
const ONE_IN_FLOAT32: f64 = 1e-5;

fn mixed() -> ImportError {
    graph_refused_for(
        "its trees decide by mixtures of columns, as a decomposition gives them",
        "export without the decomposition, or train the trees on the columns themselves",
    )
}

impl Tree {
    fn leaves(&self) -> impl Iterator<Item = &[f64]> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Leaf { values } => Some(&values[..]),
            Node::Branch { .. } => None,
        })
    }
}

impl Node {
    fn is_finite(&self) -> bool {
        match self {
            Self::Branch { cut, .. } => cut.is_finite(),
            Self::Leaf { values } => values.iter().all(|value| value.is_finite()),
        }
    }
}

/// From a column to an element that is this column, moved and multiplied.
struct Path {
    column: usize,
    /// In order.
    steps: Vec<Step>,
}

#[derive(Clone, Copy)]
enum Step {
    Add(f64),
    Multiply(f64),
    Divide(f64),
}

impl Path {
    /// `None` of an element that several columns make.
    fn of(chain: &Chain, mut id: Id, mut element: usize) -> Option<Self> {
        let mut steps = vec![];
        loop {
            id = match chain.operation(id) {
                Operation::Columns { columns, .. } => {
                    steps.reverse();
                    return Some(Self { column: columns[element], steps });
                }
                Operation::Select { of, elements } => {
                    element = elements[element];
                    *of
                }
                Operation::Join(parts) => *parts.iter().find(|&&part| {
                    let width = chain.width(part);
                    let is_here = element < width;
                    element -= if is_here { 0 } else { width };
                    is_here
                })?,
                Operation::Add { to, constants } => {
                    steps.push(Step::Add(constants.values[element]));
                    *to
                }
                Operation::Multiply { of, by } => {
                    steps.push(Step::Multiply(by.values[element]));
                    *of
                }
                Operation::Divide { of, by } => {
                    steps.push(Step::Divide(by.values[element]));
                    *of
                }
                Operation::Product { .. }
                | Operation::Sum(_)
                | Operation::Ensemble { .. }
                | Operation::Activate { .. } => return None,
            };
        }
    }

    /// The branch by the column that decides as one by the element does, for every float64 number.
    fn branch(&self, cut: f64, below: usize, above: usize, rounded: bool) -> Result<Node, ImportError> {
        let column = self.column;
        if self.steps.is_empty() && !rounded {
            return Ok(Node::Branch { column, cut, below, above });
        }
        let is_above = |x: f64| {
            let x = self.steps.iter().fold(x, |x, step| step.apply(x));
            (if rounded { f64::from(x as f32) } else { x }) >= cut
        };
        let first = is_above(-f64::MAX);
        let cut = first_that(|x| is_above(x) != first).ok_or_else(|| {
            graph_refused_for(
                format!("no value of column {column} passes a threshold of its trees"),
                "train the model again, without the columns that never change",
            )
        })?;
        Ok(match first {
            false => Node::Branch { column, cut, below, above },
            true => Node::Branch { column, cut, below: above, above: below },
        })
    }
}

impl Step {
    fn apply(self, x: f64) -> f64 {
        match self {
            Self::Add(constant) => x + constant,
            Self::Multiply(by) => x * by,
            Self::Divide(by) => x / by,
        }
    }
}

/// The least finite number that passes, where all above one that passes do so too.
fn first_that(passes: impl Fn(f64) -> bool) -> Option<f64> {
    // Bits in the order of the numbers; turning them over is its own inverse.
    let turned = |bits: i64| bits ^ ((bits >> 63) & i64::MAX);
    let number = |key: i64| f64::from_bits(turned(key) as u64);
    let (mut low, mut high) = (turned((-f64::MAX).to_bits() as i64), turned(f64::MAX.to_bits() as i64));
    if !passes(number(high)) {
        return None;
    }
    while low < high {
        let middle = low.midpoint(high).min(high - 1);
        match passes(number(middle)) {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    // No zero has a sign.
    Some(number(high) + 0.0)
}

impl NetworkModel {
    /// The units of several hidden layers side by side.
    fn new(
        chain: &Chain,
        steps: &[Id],
        activation: Activation,
        Behind { constants, slopes }: Behind,
    ) -> Result<Self, ImportError> {
        let units: usize = steps.iter().map(|&step| chain.width(step)).sum();
        check_elements(units.saturating_mul(chain.features()))?;
        let (mut hidden, mut bias) = (vec![], vec![]);
        let mut work = MAX_WORK;
        for &step in steps {
            let Operation::Activate { of, .. } = *chain.operation(step) else { continue };
            let needed = chain.needed(of);
            for unit in 0..chain.width(of) {
                let Slope { constant, columns, .. } = Slope::of(chain, of, unit, &needed, &mut work)?;
                bias.push(constant);
                hidden.push(columns);
            }
        }
        let output = slopes.into_iter().map(|slopes| slopes.concat()).collect();
        Ok(Self { activation, hidden, bias, output, output_bias: constants })
    }

    fn logits(&self, row: &[f64]) -> Vec<f64> {
        let dot = |weights: &[f64], x: &[f64]| weights.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
        let unit = |(weights, bias): (&Vec<f64>, &f64)| self.activation.apply(bias + dot(weights, row));
        let units: Vec<_> = self.hidden.iter().zip(&self.bias).map(unit).collect();
        self.output.iter().zip(&self.output_bias).map(|(weights, bias)| bias + dot(weights, &units)).collect()
    }
}

#[cfg(test)]
mod tests {
    use rten_onnx::onnx::DataType;

    use super::*;
    use crate::description::Link;
    use crate::import::clear;
    use crate::import::model::Model;
    use crate::import::sample::{Sample, TreeNode, numbers, stump};

    fn read(sample: Sample) -> Model {
        sample.read(&["y"]).unwrap()
    }

    fn reason(sample: Sample) -> String {
        match sample.read(&["y"]).unwrap_err() {
            ImportError::Graph { reason, remedy } if !remedy.is_empty() => reason,
            other => panic!("{other:?}"),
        }
    }

    fn trees(model: &Model) -> &TreeModel {
        match &model.source {
            Source::Trees(trees) => trees,
            other => panic!("{other:?}"),
        }
    }

    /// Rows all over ±4, and the neighbours of every cut.
    fn rows(model: &Model) -> Vec<Vec<f64>> {
        let mut number = numbers();
        let mut rows: Vec<Vec<f64>> =
            (0..500).map(|_| (0..model.features()).map(|_| 4.0 * number()).collect()).collect();
        for node in trees(model).trees.iter().flat_map(|tree| &tree.nodes) {
            let Node::Branch { column, cut, .. } = *node else { continue };
            for x in [cut.next_down(), cut, cut.next_up(), f64::from(cut as f32)] {
                let mut row = rows[0].clone();
                row[column] = x;
                rows.push(row);
            }
        }
        rows
    }

    /// The folded trees and the graph itself agree to the last bit.
    fn assert_same(model: &Model) {
        for row in rows(model) {
            assert_eq!(model.source.logits(&row), clear::logits(model, &row), "{row:?}");
        }
    }

    /// Full trees of three columns, with all modes, and two values in each leaf.
    fn forest(call: &str) -> impl Fn(Sample) -> Sample {
        const MODES: [&str; 4] = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT"];
        move |sample| {
            let mut number = numbers();
            let (mut nodes, mut weights): (Vec<TreeNode<'_>>, Vec<_>) = (vec![], vec![]);
            for (tree, place) in (0..6).flat_map(|tree| (0..15).map(move |place| (tree, place))) {
                if place < 7 {
                    let (mode, children) = (MODES[((tree + place) % 4) as usize], (2 * place + 1, 2 * place + 2));
                    nodes.push(((tree, place), mode, (tree * 7 + place) % 3, number() as f32, children));
                } else {
                    nodes.push(((tree, place), "LEAF", 0, 0.0, (0, 0)));
                    weights.extend([0, 1].map(|target| (tree, place, target, (number() * 8.0).round() as f32)));
                }
            }
            let sample = sample.node(&format!("TreeEnsembleRegressor{call}")).with_trees(&nodes);
            sample.with_weights("target", &weights).with_integer("n_targets", 2)
        }
    }

    fn three(kind: DataType) -> Sample {
        Sample::default()
            .input("X", kind, 3)
            .floats("m", &[3], &[0.3, -0.7, 0.1])
            .floats("s", &[3], &[0.37, -1.9, 5.3])
            .integers("i", &[2, 0, 1])
    }

    #[test]
    fn scalers_in_front_move_the_cuts_and_nothing_else() {
        for kind in [DataType::FLOAT, DataType::DOUBLE] {
            let plain = read(forest("(X) -> y")(three(kind)));
            assert_eq!(trees(&plain).single, kind == DataType::FLOAT);
            assert_same(&plain);
            for scaler in [
                &["Sub(X, m) -> c", "Div(c, s) -> z"][..],
                &["Mul(X, s) -> c", "Add(c, m) -> z"],
                &["Sub(m, X) -> z"],
                &["Neg(X) -> z"],
                &["ArrayFeatureExtractor(X, i) -> c", "Mul(c, s) -> z"],
                &["ArrayFeatureExtractor(X, i) -> c", "Concat(c, X) -> z"],
            ] {
                let scaled = scaler.iter().fold(three(kind), |sample, node| sample.node(node));
                let scaled = if scaler[1..].iter().any(|node| node.starts_with("Concat")) {
                    scaled.with_integer("axis", 1)
                } else {
                    scaled
                };
                let model = read(forest("(z) -> y")(scaled));
                assert_same(&model);
            }
        }
        let scaled = read(forest("(z) -> y")(three(DataType::FLOAT).scaler("(X) -> z", &[0.5, -0.25, 8.0], &[2.0; 3])));
        assert!(!trees(&scaled).single, "the rounding is in the cuts");
    }

    /// The plain cut of a float32 graph is a float32 number; a scaler's is where its result is rounded.
    #[test]
    fn cuts_are_in_the_unit_of_their_column() {
        let cut = |sample: Sample| match trees(&read(sample)).trees[0].nodes[0] {
            Node::Branch { cut, below, above, .. } => (cut, below, above),
            Node::Leaf { .. } => panic!(),
        };
        let next = f64::from(1.0_f32.next_up());
        assert_eq!(cut(Sample::new(1).stump("(X) -> y", "BRANCH_LEQ", 1.0)), (next, 1, 2));
        let scaled = |scale: f32| {
            let sample = Sample::new(1).floats("s", &[1], &[scale]).node("Mul(X, s) -> z");
            cut(sample.stump("(z) -> y", "BRANCH_LEQ", 1.0))
        };
        // Half way to the next float32 number rounds to the even one, which is 1.
        let middle = 0.5 * (1.0 + next);
        assert_eq!(scaled(2.0), (0.5 * middle.next_up(), 1, 2));
        assert_eq!(scaled(-2.0), ((-0.5 * middle), 2, 1), "the children are swapped");
    }

    #[test]
    fn steps_behind_change_leaves_and_base() {
        let behind = [
            &["Mul(t, f) -> u", "Add(u, b) -> y"][..],
            &["Div(t, f) -> u", "Sub(b, u) -> y"],
            &["MatMul(t, M) -> u", "Add(u, b3) -> y"],
            &["ArrayFeatureExtractor(t, last) -> y"],
            &["Sum(t, t) -> y"],
        ];
        for steps in behind {
            let sample = three(DataType::FLOAT)
                .floats("f", &[2], &[0.5, -4.0])
                .floats("b", &[2], &[8.0, 0.25])
                .floats("M", &[2, 3], &[1.0, -2.0, 0.5, 0.0, 4.0, 1.0])
                .floats("b3", &[3], &[1.0, 2.0, 3.0])
                .integers("last", &[1]);
            let sample = steps.iter().fold(forest("(X) -> t")(sample), |sample, node| sample.node(node));
            assert_same(&read(sample));
        }
    }

    /// As a VotingRegressor or a soft VotingClassifier has them.
    #[test]
    fn several_forests_are_one() {
        let sample = three(DataType::FLOAT).floats("w", &[1], &[0.5]).scaler("(X) -> z", &[0.5; 3], &[4.0; 3]);
        let sample = forest("(z) -> b")(forest("(X) -> a")(sample)).node("Mul(a, w) -> c").node("Mul(b, w) -> d");
        let model = read(sample.node("Sum(c, d) -> y"));
        assert_eq!((trees(&model).trees.len(), trees(&model).single), (12, false));
        assert_same(&model);
    }

    #[test]
    fn probabilities_may_be_averaged() {
        let labelled = |sample: Sample, call: &str, mode| {
            sample
                .node(&format!("TreeEnsembleClassifier{call}"))
                .with_trees(&stump(0, mode, 0, 0.0))
                .with_weights("class", &[(0, 1, 0, 0.25), (0, 2, 0, 1.0)])
                .with_integers("classlabels_int64s", &[0, 1])
        };
        let sample = Sample::new(1).floats("w", &[1], &[0.5]).integers("classes", &[5, 7]);
        let both = labelled(labelled(sample, "(X) -> la, a", "BRANCH_LEQ"), "(X) -> lb, b", "BRANCH_LT");
        let both = both.node("Mul(a, w) -> c").node("Mul(b, w) -> d").node("Sum(c, d) -> y");
        let both = both.node("ArgMax(y) -> at").with_integer("axis", 1);
        let model = both.node("ArrayFeatureExtractor(classes, at) -> l").read(&["l", "y"]).unwrap();
        assert_eq!((model.link, &model.places[..]), (Link::Probability, &[("y".into(), 1)][..]));
        let at = |x: f64| (model.source.logits(&[x]), clear::logits(&model, &[x]));
        assert_eq!(at(0.0), (vec![0.625], vec![0.625]));
        assert_eq!(at(-1.0), (vec![0.25], vec![0.25]));
    }

    #[test]
    fn trees_decide_by_columns_alone() {
        let mixed = "its trees decide by mixtures of columns, as a decomposition gives them";
        let sample = || Sample::new(2).floats("m", &[2, 1], &[1.0; 2]).floats("z", &[2], &[0.0, 1.0]);
        let stump = |sample: Sample, of: &str| sample.stump(&format!("({of}) -> y"), "BRANCH_LT", 0.5);
        assert_eq!(reason(stump(sample().node("MatMul(X, m) -> p"), "p")), mixed);
        assert_eq!(reason(stump(sample().node("Add(X, X) -> p"), "p")), mixed);
        let unread = sample().node("MatMul(X, m) -> p").node("Concat(X, p) -> q").with_integer("axis", 1);
        assert!(stump(unread, "q").read(&["y"]).is_ok(), "what no tree reads is no matter");
        let constant = stump(sample().node("Mul(X, z) -> p"), "p");
        assert_eq!(reason(constant), "no value of column 0 passes a threshold of its trees");
    }

    #[test]
    fn parts_of_different_kinds_are_refused() {
        let sample = || Sample::new(1).floats("w", &[1, 1], &[2.0]).stump("(X) -> t", "BRANCH_LT", 0.5);
        let linear = sample().node("Add(t, X) -> y");
        let besides = "its scores depend on columns by themselves as well as through trees or a hidden layer";
        assert_eq!(reason(linear), besides);
        let network = sample().node("Relu(X) -> r").node("MatMul(r, w) -> n").node("Add(t, n) -> y");
        assert_eq!(reason(network), "it adds up 2 parts of different kinds, such as trees and networks");
        let stacked = sample().stump("(t) -> y", "BRANCH_LT", 0.0);
        let reasons = "its trees decide by what other trees or networks give, or something decides by them";
        assert_eq!(reason(stacked), reasons);
        let activations = Sample::new(1).floats("w", &[1, 1], &[2.0]).node("Relu(X) -> r").node("Tanh(X) -> t");
        let activations = activations.node("MatMul(r, w) -> a").node("MatMul(t, w) -> b").node("Add(a, b) -> y");
        assert_eq!(reason(activations), "it adds up 2 parts of different kinds, such as trees and networks");
        let huge = Sample::default().input("X", DataType::DOUBLE, 1).doubles("w", &[1], &[1e99]);
        let huge = huge.stump("(X) -> t", "BRANCH_LT", 0.5).node("Mul(t, w) -> u").node("Mul(u, w) -> y");
        assert!(reason(huge).starts_with("some of its numbers exceed"));
    }

    fn network(sample: Sample, activation: &str) -> Sample {
        let mut number = numbers();
        let mut floats = |count| (0..count).map(|_| number() as f32).collect::<Vec<_>>();
        sample
            .floats("W", &[3, 5], &floats(15))
            .floats("b", &[1, 5], &floats(5))
            .floats("V", &[5, 2], &floats(10))
            .floats("c", &[2], &floats(2))
            .node("MatMul(z, W) -> p")
            .node("Add(p, b) -> q")
            .node(&format!("{activation}(q) -> a"))
            .node("MatMul(a, V) -> r")
            .node("Add(r, c) -> o")
    }

    fn assert_near(model: &Model) {
        let mut number = numbers();
        for _ in 0..200 {
            let row: Vec<_> = (0..model.features()).map(|_| 4.0 * number()).collect();
            for (folded, clear) in model.source.logits(&row).into_iter().zip(clear::logits(model, &row)) {
                assert!((folded - clear).abs() <= 1e-12 * clear.abs().max(1.0), "{folded} for {clear}");
            }
        }
    }

    #[test]
    fn networks_have_what_is_affine_folded_in() {
        for (name, activation) in
            [("Relu", Activation::Relu), ("Sigmoid", Activation::Sigmoid), ("Tanh", Activation::Tanh)]
        {
            let scaled = three(DataType::FLOAT).scaler("(X) -> z", &[1.0, -2.0, 0.5], &[0.5, 3.0, -1.0]);
            let model = read(network(scaled, name).floats("f", &[2], &[2.0, -3.0]).node("Mul(o, f) -> y"));
            let Source::Network(found) = &model.source else { panic!() };
            assert_eq!((found.activation, found.hidden.len(), found.hidden[0].len()), (activation, 5, 3));
            assert_eq!((found.output.len(), found.output[0].len(), model.link), (2, 5, Link::Identity));
            assert_near(&model);
        }
        let gemm = Sample::new(2).floats("W", &[3, 2], &[1.0, 2.0, -3.0, 4.0, 5.0, -6.0]).floats("b", &[3], &[0.5; 3]);
        let gemm = gemm.node("Gemm(X, W, b) -> p").with_integer("transB", 1).node("Tanh(p) -> a");
        assert_near(&read(gemm.floats("V", &[3, 1], &[1.0, -1.0, 2.0]).node("Gemm(a, V) -> y")));
        let linear = network(three(DataType::FLOAT).node("Identity(X) -> z"), "Identity").node("Identity(o) -> y");
        assert!(matches!(read(linear).source, Source::Linear));
    }

    #[test]
    fn networks_side_by_side_are_one() {
        let sample = three(DataType::FLOAT).node("Identity(X) -> z");
        let sample = network(sample, "Tanh").node("Tanh(X) -> h").floats("U", &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let model = read(sample.node("MatMul(h, U) -> u").node("Add(o, u) -> y"));
        let Source::Network(NetworkModel { hidden, .. }) = &model.source else { panic!() };
        assert_eq!(hidden.len(), 8);
        assert_near(&model);
    }

    /// As MLPClassifier has them: probabilities, and the largest of these.
    #[test]
    fn networks_classify() {
        let softmax = network(three(DataType::DOUBLE).node("Identity(X) -> z"), "Relu").node("Softmax(o) -> y");
        let model = softmax.node("ArgMax(y) -> at").with_integer("axis", 1).read(&["at", "y"]).unwrap();
        assert_eq!((model.link, model.places.len()), (Link::Softmax, 2));
        assert_near(&model);
        let single = network(three(DataType::FLOAT).node("Identity(X) -> z"), "Relu")
            .floats("one", &[], &[1.0])
            .integers("last", &[1])
            .node("ArrayFeatureExtractor(o, last) -> t")
            .node("Sigmoid(t) -> yes")
            .node("Sub(one, yes) -> no")
            .node("Concat(no, yes) -> y")
            .with_integer("axis", 1)
            .node("ArgMax(y) -> at")
            .with_integer("axis", 1);
        let model = single.read(&["at", "y"]).unwrap();
        assert_eq!((model.link, model.places.len()), (Link::Sigmoid, 1));
        assert_near(&model);
    }

    #[test]
    fn networks_have_one_hidden_layer() {
        let deep = network(three(DataType::FLOAT).node("Identity(X) -> z"), "Relu");
        let deep = deep.floats("U", &[2, 2], &[1.0; 4]).node("Sigmoid(o) -> d").node("MatMul(d, U) -> y");
        assert_eq!(reason(deep), "it has 2 hidden layers, where one is supported");
        let skipped = network(three(DataType::FLOAT).node("Identity(X) -> z"), "Relu").floats("U", &[3, 2], &[1.0; 6]);
        let skipped = skipped.node("MatMul(X, U) -> u").node("Add(o, u) -> y");
        assert!(reason(skipped).starts_with("its scores depend on columns by themselves"));
        let (op, reason) = Sample::new(1).node("Relu(X) -> y").refusal(&["y"]);
        assert_eq!((&op[..], &reason[..]), ("Relu", "no supported model has the output Relu(S) with these labels"));
    }

    #[test]
    fn the_least_number_that_passes_is_found() {
        for cut in [0.0, -0.0, 1.0, -1.0, f64::from_bits(1), -f64::from_bits(1), 1e300, -1e300, f64::MAX, -f64::MAX] {
            assert_eq!(first_that(|x| x >= cut), Some(cut + 0.0), "{cut:e}");
        }
        assert_eq!(first_that(|_| false), None);
    }
}
