//! What is not linear in a model, brought to the columns themselves: the cuts of trees, the units of a hidden layer.
//!
//! Whatever is affine is folded in. Scalers before trees move their cuts, an average or a factor behind them changes
//! their leaves; scalers and decompositions before a hidden layer and all that follows it are in its two matrices.

use super::ImportError;
use super::chain::{Chain, Id, Operation, TooLarge};
use super::fold::{MAX_WORK, Slope};
use super::model::too_large;
use super::onnx::graph_refused_for;

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
        let is_nonlinear = matches!(operation, Operation::Ensemble { .. } | Operation::Activate { .. });
        layers[step] = before + usize::from(is_nonlinear);
        if is_nonlinear {
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
        let mut work = MAX_WORK;
        for logit in 0..width {
            let Slope { constant, columns, mut nonlinear } = Slope::of(chain, id, logit, &mut work)?;
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

    fn leaves(&self) -> usize {
        self.trees.iter().map(|tree| tree.nodes.len().div_ceil(2)).sum()
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

    /// Whether the logits are a probability for each of K labels: not below zero, and one in all, whatever leaf each
    /// tree reaches.
    pub(super) fn gives_probabilities(&self) -> bool {
        let leaves = |tree: &Tree| {
            tree.nodes
                .iter()
                .filter_map(|node| match node {
                    Node::Leaf { values } => Some(values.clone()),
                    Node::Branch { .. } => None,
                })
                .collect::<Vec<_>>()
        };
        let (mut least, mut low, mut high) = (self.base.clone(), 0.0, 0.0);
        for leaves in self.trees.iter().map(leaves) {
            let sums = || leaves.iter().map(|values| values.iter().sum::<f64>());
            low += sums().fold(f64::INFINITY, f64::min);
            high += sums().fold(f64::NEG_INFINITY, f64::max);
            for (logit, least) in least.iter_mut().enumerate() {
                *least += leaves.iter().map(|values| values[logit]).fold(f64::INFINITY, f64::min);
            }
        }
        let base: f64 = self.base.iter().sum();
        let is_one = |sum: f64| (sum - 1.0).abs() <= ONE_IN_FLOAT32;
        is_one(base + low) && is_one(base + high) && least.iter().all(|&least| least >= -ONE_IN_FLOAT32)
    }

    /// Whether two logits are always of opposite sign.
    pub(super) fn is_opposite(&self) -> bool {
        let leaf = |node: &Node| match node {
            Node::Leaf { values } => values[0] == -values[1],
            Node::Branch { .. } => true,
        };
        self.base[0] == -self.base[1] && self.trees.iter().flat_map(|tree| &tree.nodes).all(leaf)
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
            for unit in 0..chain.width(of) {
                let Slope { constant, columns, .. } = Slope::of(chain, of, unit, &mut work)?;
                bias.push(constant);
                hidden.push(columns);
            }
        }
        let output = slopes.into_iter().map(|slopes| slopes.concat()).collect();
        Ok(Self { activation, hidden, bias, output, output_bias: constants })
    }
}
