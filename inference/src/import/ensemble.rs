//! Tree ensembles: the three operators of `ai.onnx.ml`, in their versions 1, 3 and 5.
//!
//! Versions 1 and 3 list nodes in parallel arrays, each with the number of its tree and its own; version 5 lists branches and
//! leaves apart, and trees by their roots. Either becomes trees whose children come after their parents.

use std::collections::HashMap;
use std::rc::Rc;

use rten_onnx::onnx::{AttributeProto, NodeProto};

use super::ImportError;
use super::chain::Operation;
use super::model::{Reader, Value};
use super::nonlinear::{Node, Tree, TreeModel};
use super::onnx::{attributes, labels, op};
use super::refusal::{refused, refused_for};
use super::tail::Formula;
use super::tensor::Tensor;
use crate::description::Label;
use crate::selection::model::{MAX_NODES, MAX_TREES};

type Result<T> = std::result::Result<T, ImportError>;

/// Far deeper than trees whose answers anybody waits for.
const MAX_DEPTH: usize = 64;

const V1: [&str; 23] = [
    "nodes_treeids",
    "nodes_nodeids",
    "nodes_featureids",
    "nodes_modes",
    "nodes_truenodeids",
    "nodes_falsenodeids",
    "nodes_values",
    "nodes_values_as_tensor",
    "nodes_hitrates",
    "nodes_hitrates_as_tensor",
    "nodes_missing_value_tracks_true",
    "base_values",
    "base_values_as_tensor",
    "post_transform",
    "aggregate_function",
    "n_targets",
    "classlabels_strings",
    "classlabels_int64s",
    "ids",
    "nodeids",
    "treeids",
    "weights",
    "weights_as_tensor",
];

impl Reader {
    /// Scores, and with labels the label of the largest or the one that a single score decides for.
    pub(super) fn ensemble(&mut self, node: &NodeProto) -> Result<Vec<Value>> {
        let (of, width) = self.vector(node, 0)?;
        match op(node) {
            "TreeEnsembleClassifier" => self.tree_classifier(node, of, width),
            "TreeEnsembleRegressor" => {
                let arrays = Arrays::read(node, "target_")?;
                let targets = arrays.targets.unwrap_or(1);
                let targets = usize::try_from(targets).ok().filter(|targets| (1..=MAX_OUTPUTS).contains(targets));
                let targets = targets.ok_or_else(|| refused_trees(node, "it has no targets, or too many"))?;
                let model = arrays.model(node, width, targets, None)?;
                self.scores_of(node, of, model, targets, arrays.transform).map(|value| vec![value])
            }
            _ => {
                let five = Five::read(node)?;
                let targets = five.targets;
                let model = five.model(node, width)?;
                self.scores_of(node, of, model, targets, five.transform).map(|value| vec![value])
            }
        }
    }

    fn scores_of(
        &mut self,
        node: &NodeProto,
        of: usize,
        model: TreeModel,
        width: usize,
        transform: Transform,
    ) -> Result<Value> {
        let id = self.push(width, Operation::Ensemble { of, ensemble: Rc::new(model) })?;
        if let Some(name) = node.output.last() {
            self.name(id, name);
        }
        match transform.function() {
            None => Ok(Value::Vector { id, flat: false }),
            Some(function) => self.applied(node, function, [Rc::new(Formula::Scores(id))], width),
        }
    }

    fn tree_classifier(&mut self, node: &NodeProto, of: usize, width: usize) -> Result<Vec<Value>> {
        let arrays = Arrays::read(node, "class_")?;
        let labels: Vec<Label> = arrays.labels.clone();
        if labels.len() < 2 {
            return Err(refused_trees(node, format!("it has {} class labels", labels.len())));
        }
        let first = arrays.ids.first().copied();
        let is_single = labels.len() == 2 && arrays.ids.iter().all(|id| Some(*id) == first);
        // Whatever number all weights of two labels have, they are the second's score.
        let model = match is_single {
            true => arrays.model(node, width, 1, Some(0))?,
            false => arrays.model(node, width, labels.len(), None)?,
        };
        let count = if is_single { 1 } else { labels.len() };
        let gives_shares = !is_single && count == 2 && model.gives_probabilities();
        let model = if gives_shares { model.second() } else { model };
        let has_share = gives_shares || is_single && model.is_share();
        let id = self.push(model.base.len(), Operation::Ensemble { of, ensemble: Rc::new(model) })?;
        if let Some(name) = node.output.get(1) {
            self.name(id, name);
        }
        let scores = Rc::new(Formula::Scores(id));
        let labels = Rc::new(labels);
        if !is_single && !gives_shares {
            let label = Value::Label { labels, of: scores.clone() };
            let scores = match arrays.transform.function() {
                None => Value::Vector { id, flat: false },
                Some(function) => self.applied(node, function, [scores], count)?,
            };
            return Ok(vec![label, scores]);
        }
        let positive = match arrays.transform {
            Transform::None if has_share => scores,
            Transform::Logistic => Formula::apply("Sigmoid", [scores]).ok_or_else(|| refused(node, "too deep"))?,
            _ => {
                return Err(refused_trees(
                    node,
                    "its two labels have one score that is neither a share nor goes through LOGISTIC",
                ));
            }
        };
        let one = Rc::new(Formula::Number(1.0));
        let negative = Formula::apply("Sub", [one, positive.clone()]).ok_or_else(|| refused(node, "too deep"))?;
        let Value::Formula { formula, width } = self.applied(node, "Concat", [negative, positive], 2)? else {
            unreachable!("functions are formulas")
        };
        Ok(vec![Value::Label { labels, of: formula.clone() }, Value::Formula { formula, width }])
    }
}

const MAX_OUTPUTS: usize = 1000;

/// What becomes of sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transform {
    None,
    Logistic,
    Softmax,
}

impl Transform {
    fn read(node: &NodeProto, attribute: Option<&AttributeProto>) -> Result<Self> {
        match attribute.and_then(|attribute| attribute.s.as_deref()).unwrap_or("NONE") {
            "NONE" => Ok(Self::None),
            "LOGISTIC" => Ok(Self::Logistic),
            "SOFTMAX" => Ok(Self::Softmax),
            other => Err(refused_trees(node, format!("its scores go through {}", other.escape_debug()))),
        }
    }

    fn function(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Logistic => Some("Sigmoid"),
            Self::Softmax => Some("Softmax"),
        }
    }
}

fn refused_trees(node: &NodeProto, reason: impl Into<String>) -> ImportError {
    refused_for(node, reason, "export the trees again with skl2onnx or onnxmltools, unchanged")
}

/// Versions 1 and 3.
struct Arrays {
    trees: Vec<i64>,
    nodes: Vec<i64>,
    features: Vec<i64>,
    modes: Vec<Mode>,
    yes: Vec<i64>,
    no: Vec<i64>,
    values: Vec<f64>,
    single: bool,
    base: Vec<f64>,
    transform: Transform,
    average: bool,
    targets: Option<i64>,
    labels: Vec<Label>,
    /// For each weight its tree, its node, and the class or target that it is for.
    weight_trees: Vec<i64>,
    weight_nodes: Vec<i64>,
    ids: Vec<i64>,
    weights: Vec<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    AtMost,
    Below,
    AtLeast,
    Above,
    Leaf,
}

impl Mode {
    fn named(node: &NodeProto, name: &str) -> Result<Self> {
        match name {
            "BRANCH_LEQ" => Ok(Self::AtMost),
            "BRANCH_LT" => Ok(Self::Below),
            "BRANCH_GTE" => Ok(Self::AtLeast),
            "BRANCH_GT" => Ok(Self::Above),
            "LEAF" => Ok(Self::Leaf),
            other => Err(categorical(node, other)),
        }
    }

    /// The branch by `x < cut`, of one that leads to `yes` if the mode holds.
    fn branch(self, column: usize, value: f64, single: bool, yes: usize, no: usize) -> Node {
        let next = if single { f64::from((value as f32).next_up()) } else { value.next_up() };
        match self {
            Self::AtMost => Node::Branch { column, cut: next, below: yes, above: no },
            Self::Below => Node::Branch { column, cut: value, below: yes, above: no },
            Self::AtLeast => Node::Branch { column, cut: value, below: no, above: yes },
            Self::Above | Self::Leaf => Node::Branch { column, cut: next, below: no, above: yes },
        }
    }
}

fn categorical(node: &NodeProto, mode: &str) -> ImportError {
    refused_for(
        node,
        format!("it has a categorical split ({})", mode.escape_debug()),
        "encode categories as columns of 0 and 1 before training, and train without categorical features",
    )
}

impl Arrays {
    fn read(node: &NodeProto, prefix: &'static str) -> Result<Self> {
        let names: Vec<String> = V1
            .iter()
            .map(|name| match *name {
                "ids" | "nodeids" | "treeids" | "weights" | "weights_as_tensor" => format!("{prefix}{name}"),
                name => name.to_owned(),
            })
            .collect();
        let names: [&str; V1.len()] = std::array::from_fn(|index| names[index].as_str());
        let found = attributes(node, names)?;
        let [
            trees,
            nodes,
            features,
            modes,
            yes,
            no,
            values,
            values_tensor,
            _hitrates,
            _hitrates_tensor,
            missing,
            base,
            base_tensor,
            transform,
            aggregate,
            targets,
            strings,
            integers,
            ids,
            weight_nodes,
            weight_trees,
            weights,
            weights_tensor,
        ] = found;
        let ints = |attribute: Option<&AttributeProto>| attribute.map(|a| a.ints.clone()).unwrap_or_default();
        let modes = modes.map_or(&[][..], |modes| &modes.strings).iter().map(|mode| Mode::named(node, mode));
        let (values, single) = numbers(node, "thresholds", values, values_tensor)?;
        let arrays = Self {
            trees: ints(trees),
            nodes: ints(nodes),
            features: ints(features),
            modes: modes.collect::<Result<_>>()?,
            yes: ints(yes),
            no: ints(no),
            values,
            single,
            base: numbers(node, "base values", base, base_tensor)?.0,
            transform: Transform::read(node, transform)?,
            average: is_average(node, aggregate.and_then(|aggregate| aggregate.s.as_deref()).unwrap_or("SUM"))?,
            targets: targets.and_then(|targets| targets.i),
            labels: labels(strings, integers),
            weight_trees: ints(weight_trees),
            weight_nodes: ints(weight_nodes),
            ids: ints(ids),
            weights: numbers(node, "weights", weights, weights_tensor)?.0,
        };
        arrays.check(node, &ints(missing))?;
        Ok(arrays)
    }

    /// Arrays of one length, and nothing that looks at missing values.
    fn check(&self, node: &NodeProto, missing: &[i64]) -> Result<()> {
        let count = self.nodes.len();
        let lengths =
            [self.trees.len(), self.features.len(), self.modes.len(), self.yes.len(), self.no.len(), self.values.len()];
        let weights = [self.weight_trees.len(), self.weight_nodes.len(), self.ids.len()];
        if lengths.iter().any(|&len| len != count) || weights.iter().any(|&len| len != self.weights.len()) {
            return Err(refused_trees(node, "its arrays are not of one length"));
        }
        within("nodes of trees", count, MAX_NODES)?;
        // A default direction that is the one of zero is what LightGBM writes for trees that met no missing value; none is
        // what the others write. No missing value is ever encrypted, so that either is harmless.
        let branches = missing.iter().zip(&self.modes).zip(&self.values).filter(|((_, mode), _)| **mode != Mode::Leaf);
        let tracked = || branches.clone().filter(|((missing, _), _)| **missing != 0);
        let by_zero = branches.clone().all(|((missing, _), value)| (*missing != 0) == (*value >= 0.0));
        match tracked().count() {
            0 => Ok(()),
            _ if by_zero => Ok(()),
            count => Err(refused_for(
                node,
                format!("{count} of its branches say where missing values go"),
                "fill missing values in with a SimpleImputer before the trees, and train without NaN",
            )),
        }
    }

    fn model(&self, node: &NodeProto, width: usize, outputs: usize, only: Option<usize>) -> Result<TreeModel> {
        let mut places: HashMap<(i64, i64), usize> = HashMap::with_capacity(self.nodes.len());
        for (index, key) in self.trees.iter().copied().zip(self.nodes.iter().copied()).enumerate() {
            if places.insert(key, index).is_some() {
                return Err(refused_trees(node, format!("tree {} has two nodes {}", key.0, key.1)));
            }
        }
        let mut leaves: HashMap<usize, Vec<f64>> = HashMap::new();
        let keys = self.weight_trees.iter().copied().zip(self.weight_nodes.iter().copied());
        for ((key, &id), &weight) in keys.zip(&self.ids).zip(&self.weights) {
            let place = places.get(&key).copied().filter(|&place| self.modes[place] == Mode::Leaf);
            let place = place.ok_or_else(|| refused_trees(node, "a weight belongs to no leaf"))?;
            let output = only.or(usize::try_from(id).ok()).filter(|&output| output < outputs);
            let output = output.ok_or_else(|| refused_trees(node, format!("a weight is for output {id}")))?;
            leaves.entry(place).or_insert_with(|| vec![0.0; outputs])[output] += weight;
        }
        let roots = self.roots(node, &places)?;
        within("trees", roots.len(), MAX_TREES)?;
        let factor = if self.average { 1.0 / roots.len() as f64 } else { 1.0 };
        let mut used = vec![false; self.nodes.len()];
        let visit = |index: usize| {
            if self.modes[index] == Mode::Leaf {
                let values = leaves.get(&index).cloned().unwrap_or_else(|| vec![0.0; outputs]);
                return Ok(Visited::Leaf(values.into_iter().map(|value| value * factor).collect()));
            }
            let column = usize::try_from(self.features[index]).ok().filter(|&column| column < width);
            let column = column.ok_or_else(|| refused_trees(node, "a branch asks for a column that is none"))?;
            let child = |id: i64| places.get(&(self.trees[index], id)).copied();
            match (child(self.yes[index]), child(self.no[index])) {
                (Some(yes), Some(no)) => {
                    Ok(Visited::Branch { mode: self.modes[index], column, value: self.values[index], yes, no })
                }
                _ => Err(refused_trees(node, "a branch leads to no node")),
            }
        };
        let trees = roots.iter().map(|&root| tree(node, root, &mut used, self.single, &visit));
        let trees = trees.collect::<Result<_>>()?;
        if used.iter().any(|used| !used) {
            return Err(refused_trees(node, "some of its nodes are in no tree"));
        }
        let base = base(node, &self.base, outputs)?;
        Ok(TreeModel { trees, base, single: self.single })
    }

    /// The node of each tree that no other leads to.
    fn roots(&self, node: &NodeProto, places: &HashMap<(i64, i64), usize>) -> Result<Vec<usize>> {
        let mut is_child = vec![false; self.nodes.len()];
        for index in (0..self.nodes.len()).filter(|&index| self.modes[index] != Mode::Leaf) {
            for id in [self.yes[index], self.no[index]] {
                if let Some(&child) = places.get(&(self.trees[index], id)) {
                    is_child[child] = true;
                }
            }
        }
        let roots: Vec<usize> = (0..self.nodes.len()).filter(|&index| !is_child[index]).collect();
        let mut seen = HashMap::new();
        let twice = roots.iter().find(|&&root| seen.insert(self.trees[root], root).is_some());
        match (twice, roots.is_empty()) {
            (None, false) => Ok(roots),
            (Some(&root), _) => Err(refused_trees(node, format!("tree {} has several roots", self.trees[root]))),
            (None, true) => Err(refused_trees(node, "it has no trees")),
        }
    }
}

fn is_average(node: &NodeProto, function: &str) -> Result<bool> {
    match function {
        "SUM" => Ok(false),
        "AVERAGE" => Ok(true),
        other => Err(refused_for(
            node,
            format!("it takes the {} of its trees", other.escape_debug()),
            "train an ensemble whose trees are added up or averaged",
        )),
    }
}

fn within(what: &'static str, actual: usize, max: usize) -> Result<()> {
    match actual > max {
        true => Err(ImportError::TooWide { what, actual, max }),
        false => Ok(()),
    }
}

/// As many base values as outputs, one for all, or none.
fn base(node: &NodeProto, values: &[f64], outputs: usize) -> Result<Vec<f64>> {
    match values {
        [] => Ok(vec![0.0; outputs]),
        &[value] => Ok(vec![value; outputs]),
        // Two labels with one score have the second's base value last.
        &[_, value] if outputs == 1 => Ok(vec![value]),
        values if values.len() == outputs => Ok(values.to_vec()),
        values => Err(refused_trees(node, format!("it has {} base values for {outputs} outputs", values.len()))),
    }
}

/// The finite numbers of an attribute or of its tensor, and whether they are float32.
fn numbers(
    node: &NodeProto,
    what: &'static str,
    floats: Option<&AttributeProto>,
    tensor: Option<&AttributeProto>,
) -> Result<(Vec<f64>, bool)> {
    let (values, single) = match (floats.filter(|floats| !floats.floats.is_empty()), tensor) {
        (Some(floats), None) => (floats.floats.iter().copied().map(f64::from).collect(), true),
        (None, Some(tensor)) => {
            let tensor = tensor.t.as_ref().ok_or_else(|| refused_trees(node, format!("its {what} are no tensor")))?;
            let is_single = tensor.data_type == Some(rten_onnx::onnx::DataType::FLOAT);
            let read = Tensor::read(tensor, None)?;
            let values = read.numbers().ok_or_else(|| refused_trees(node, format!("its {what} are no numbers")))?;
            (values.values.clone(), is_single)
        }
        (None, None) => (vec![], true),
        (Some(_), Some(_)) => return Err(refused_trees(node, format!("it has its {what} twice"))),
    };
    match values.iter().position(|value: &f64| !value.is_finite()) {
        Some(index) => {
            Err(ImportError::NotFinite { what: format!("the {what} of {}", op(node)), index, value: values[index] })
        }
        None => Ok((values, single)),
    }
}

/// A node of a file.
enum Visited {
    Branch { mode: Mode, column: usize, value: f64, yes: usize, no: usize },
    Leaf(Vec<f64>),
}

/// The tree below a root, every node once.
fn tree(
    node: &NodeProto,
    root: usize,
    used: &mut [bool],
    single: bool,
    visit: &impl Fn(usize) -> Result<Visited>,
) -> Result<Tree> {
    let mut nodes: Vec<Node> = vec![];
    // A node, its depth, and the branch and side that it is on.
    let mut open = vec![(root, 0, None)];
    while let Some((index, depth, parent)) = open.pop() {
        if depth > MAX_DEPTH {
            return Err(ImportError::TooWide { what: "levels of a tree", actual: depth, max: MAX_DEPTH });
        }
        if std::mem::replace(&mut used[index], true) {
            return Err(refused_trees(node, "a node of its trees is reached twice"));
        }
        let here = nodes.len();
        match visit(index)? {
            Visited::Leaf(values) => nodes.push(Node::Leaf { values }),
            Visited::Branch { mode, column, value, yes, no } => {
                nodes.push(mode.branch(column, value, single, YES, NO));
                open.push((no, depth + 1, Some((here, NO))));
                open.push((yes, depth + 1, Some((here, YES))));
            }
        }
        if let Some((parent, side)) = parent
            && let Node::Branch { below, above, .. } = &mut nodes[parent]
        {
            let child = if *below == side { below } else { above };
            *child = here;
        }
    }
    Ok(Tree { nodes })
}

/// Children that are still to come.
const YES: usize = usize::MAX;
const NO: usize = usize::MAX - 1;

/// Version 5.
struct Five {
    splits: Vec<f64>,
    single: bool,
    features: Vec<i64>,
    modes: Vec<Mode>,
    children: [Vec<i64>; 2],
    leaf: [Vec<i64>; 2],
    roots: Vec<i64>,
    leaf_targets: Vec<i64>,
    leaf_weights: Vec<f64>,
    average: bool,
    targets: usize,
    transform: Transform,
}

impl Five {
    fn read(node: &NodeProto) -> Result<Self> {
        let [
            splits,
            features,
            modes,
            yes,
            no,
            yes_leaf,
            no_leaf,
            roots,
            leaf_targets,
            leaf_weights,
            aggregate,
            transform,
            targets,
            _hitrates,
            missing,
            members,
        ] = attributes(
            node,
            [
                "nodes_splits",
                "nodes_featureids",
                "nodes_modes",
                "nodes_truenodeids",
                "nodes_falsenodeids",
                "nodes_trueleafs",
                "nodes_falseleafs",
                "tree_roots",
                "leaf_targetids",
                "leaf_weights",
                "aggregate_function",
                "post_transform",
                "n_targets",
                "nodes_hitrates",
                "nodes_missing_value_tracks_true",
                "membership_values",
            ],
        )?;
        if members.is_some() {
            return Err(categorical(node, "BRANCH_MEMBER"));
        }
        let ints = |attribute: Option<&AttributeProto>| attribute.map(|a| a.ints.clone()).unwrap_or_default();
        let (splits, single) = numbers(node, "thresholds", None, splits)?;
        let modes = modes.and_then(|modes| modes.t.as_ref()).map(small_integers).unwrap_or_default();
        let modes = modes.iter().map(|mode| match mode {
            0 => Ok(Mode::AtMost),
            1 => Ok(Mode::Below),
            2 => Ok(Mode::AtLeast),
            3 => Ok(Mode::Above),
            4 => Err(categorical(node, "BRANCH_EQ")),
            5 => Err(categorical(node, "BRANCH_NEQ")),
            6 => Err(categorical(node, "BRANCH_MEMBER")),
            _ => Err(refused_trees(node, "a branch has a mode that is none")),
        });
        let modes = modes.collect::<Result<Vec<_>>>()?;
        let number = |attribute: Option<&AttributeProto>, default| attribute.and_then(|a| a.i).unwrap_or(default);
        let transform = match number(transform, 0) {
            0 => Transform::None,
            1 => Transform::Softmax,
            2 => Transform::Logistic,
            other => return Err(refused_trees(node, format!("its scores go through transform {other}"))),
        };
        let average = match number(aggregate, 1) {
            0 => true,
            1 => false,
            _ => is_average(node, "least or greatest")?,
        };
        let targets = usize::try_from(number(targets, 1)).ok().filter(|targets| (1..=MAX_OUTPUTS).contains(targets));
        if ints(missing).iter().any(|&tracks| tracks != 0) {
            return Err(refused_for(
                node,
                "its branches say where missing values go",
                "fill missing values in with a SimpleImputer before the trees, and train without NaN",
            ));
        }
        let five = Self {
            splits,
            single,
            features: ints(features),
            modes,
            children: [ints(yes), ints(no)],
            leaf: [ints(yes_leaf), ints(no_leaf)],
            roots: ints(roots),
            leaf_targets: ints(leaf_targets),
            leaf_weights: numbers(node, "leaf weights", None, leaf_weights)?.0,
            average,
            targets: targets.ok_or_else(|| refused_trees(node, "it has no targets, or too many"))?,
            transform,
        };
        let count = five.splits.len();
        let lengths = [five.features.len(), five.modes.len()]
            .into_iter()
            .chain(five.children.iter().chain(&five.leaf).map(Vec::len));
        if lengths.clone().any(|len| len != count) || five.leaf_targets.len() != five.leaf_weights.len() {
            return Err(refused_trees(node, "its arrays are not of one length"));
        }
        within("nodes of trees", count + five.leaf_weights.len(), MAX_NODES)?;
        within("trees", five.roots.len(), MAX_TREES)?;
        match five.roots.is_empty() {
            true => Err(refused_trees(node, "it has no trees")),
            false => Ok(five),
        }
    }

    /// Branches come first, leaves after them.
    fn model(&self, node: &NodeProto, width: usize) -> Result<TreeModel> {
        let branches = self.splits.len();
        let factor = if self.average { 1.0 / self.roots.len() as f64 } else { 1.0 };
        let mut used = vec![false; branches + self.leaf_weights.len()];
        let visit = |index: usize| {
            if let Some(leaf) = index.checked_sub(branches) {
                let target = usize::try_from(self.leaf_targets[leaf]).ok().filter(|&target| target < self.targets);
                let target = target.ok_or_else(|| refused_trees(node, "a leaf is for an output that is none"))?;
                let mut values = vec![0.0; self.targets];
                values[target] = self.leaf_weights[leaf] * factor;
                return Ok(Visited::Leaf(values));
            }
            let column = usize::try_from(self.features[index]).ok().filter(|&column| column < width);
            let column = column.ok_or_else(|| refused_trees(node, "a branch asks for a column that is none"))?;
            let child = |side: usize| {
                let (offset, limit) = match self.leaf[side][index] {
                    0 => (0, branches),
                    _ => (branches, self.leaf_weights.len()),
                };
                let child = usize::try_from(self.children[side][index]).ok().filter(|&child| child < limit);
                child.map(|child| offset + child).ok_or_else(|| refused_trees(node, "a branch leads to no node"))
            };
            let (yes, no) = (child(0)?, child(1)?);
            Ok(Visited::Branch { mode: self.modes[index], column, value: self.splits[index], yes, no })
        };
        let root = |&root: &i64| {
            let root = usize::try_from(root).ok().filter(|&root| root < branches);
            root.ok_or_else(|| refused_trees(node, "a tree has no root"))
        };
        let roots = self.roots.iter().map(root).collect::<Result<Vec<_>>>()?;
        let trees = roots.iter().map(|&root| {
            // A branch whose two sides are one leaf is how a tree of a single leaf is written.
            match (self.leaf[0][root] != 0 && self.leaf[1][root] != 0, self.children[0][root] == self.children[1][root])
            {
                (true, true) => {
                    used[root] = true;
                    let leaf = usize::try_from(self.children[0][root]).ok().filter(|&l| l < self.leaf_weights.len());
                    let leaf = leaf.ok_or_else(|| refused_trees(node, "a branch leads to no node"))?;
                    tree(node, branches + leaf, &mut used, self.single, &visit)
                }
                _ => tree(node, root, &mut used, self.single, &visit),
            }
        });
        let trees = trees.collect::<Result<_>>()?;
        Ok(TreeModel { trees, base: vec![0.0; self.targets], single: self.single })
    }
}

/// The elements of a tensor of bytes.
fn small_integers(tensor: &rten_onnx::onnx::TensorProto) -> Vec<i64> {
    match &tensor.raw_data {
        Some(raw) => raw.borrow().iter().map(|&byte| i64::from(byte)).collect(),
        None => tensor.int32_data.iter().map(|&value| i64::from(value)).collect(),
    }
}

impl TreeModel {
    /// Of two outputs the second.
    fn second(self) -> Self {
        let node = |node: Node| match node {
            Node::Leaf { values } => Node::Leaf { values: vec![values[1]] },
            branch => branch,
        };
        let trees = self.trees.into_iter().map(|tree| Tree { nodes: tree.nodes.into_iter().map(node).collect() });
        Self { trees: trees.collect(), base: vec![self.base[1]], single: self.single }
    }

    /// Whether its only output is a share of one, whatever leaf each tree reaches.
    fn is_share(&self) -> bool {
        let mut range = (self.base[0], self.base[0]);
        for tree in &self.trees {
            let leaves = || {
                tree.nodes.iter().filter_map(|node| match node {
                    Node::Leaf { values } => Some(values[0]),
                    Node::Branch { .. } => None,
                })
            };
            range.0 += leaves().fold(f64::INFINITY, f64::min);
            range.1 += leaves().fold(f64::NEG_INFINITY, f64::max);
        }
        range.0 >= -1e-5 && range.1 <= 1.0 + 1e-5
    }
}
