//! Nodes and leaves in either layout, and the trees that they are.

use std::collections::HashMap;

use rten_onnx::onnx::{AttributeProto, NodeProto};

use super::Result;
use crate::import::ImportError;
use crate::import::model::{MAX_LOGITS, check_size};
use crate::import::nonlinear::{Node, Tree};
use crate::import::onnx::{named, op};
use crate::import::refusal::{refused, refused_for};
use crate::import::tensor::{Data, Parameters, Tensor};

/// The most trees of a model.
pub(in crate::import) const MAX_TREES: usize = 2000;

/// The most nodes of all its trees together.
pub(in crate::import) const MAX_NODES: usize = 1 << 17;

/// The most decisions from a root to a leaf.
const MAX_DEPTH: usize = 64;

/// What a node's attributes list.
pub(super) struct Lists<'a> {
    node: &'a NodeProto,
    attributes: HashMap<&'a str, &'a AttributeProto>,
}

impl<'a> Lists<'a> {
    pub(super) fn of(node: &'a NodeProto, names: &[&[&str]]) -> Result<Self> {
        Ok(Self { node, attributes: named(node, &names.concat())? })
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a AttributeProto> {
        self.attributes.get(name).copied()
    }

    pub(super) fn text(&self, name: &str, default: &'a str) -> &'a str {
        self.get(name).and_then(|attribute| attribute.s.as_deref()).unwrap_or(default)
    }

    pub(super) fn integer(&self, name: &str, default: i64) -> i64 {
        self.get(name).and_then(|attribute| attribute.i).unwrap_or(default)
    }

    fn refuse(&self, reason: impl Into<String>) -> ImportError {
        refused(self.node, reason)
    }

    pub(super) fn targets(&self) -> Result<usize> {
        let targets = usize::try_from(self.integer("n_targets", 1)).unwrap_or(0);
        match targets {
            0 => Err(self.refuse("it has no targets")),
            _ => check_size("logits", targets, MAX_LOGITS).map(|()| targets),
        }
    }

    /// As many integers.
    fn integers(&self, name: &str, expected: usize) -> Result<&'a [i64]> {
        let integers = self.get(name).map_or(&[][..], |attribute| &attribute.ints);
        self.check_len(name, integers.len(), expected).map(|()| integers)
    }

    /// As many flags; none set if there are none.
    fn flags(&self, name: &str, expected: usize) -> Result<Vec<bool>> {
        match self.get(name).is_some_and(|attribute| !attribute.ints.is_empty()) {
            true => Ok(self.integers(name, expected)?.iter().map(|&flag| flag != 0).collect()),
            false => Ok(vec![false; expected]),
        }
    }

    /// Finite numbers: a list, or a tensor of that name or the longer one.
    pub(super) fn numbers(&self, name: &str) -> Result<Vec<f64>> {
        let what = || format!("the {name} of {}", op(self.node));
        let tensor = self.get(&format!("{name}_as_tensor"));
        let list = self.get(name);
        match (list.and_then(|list| list.t.as_ref()), tensor.and_then(|tensor| tensor.t.as_ref())) {
            (Some(tensor), None) | (None, Some(tensor)) if list.is_none_or(|list| list.floats.is_empty()) => {
                match Tensor::read(tensor, None)?.data {
                    Data::Numbers(numbers) => Ok(numbers.values.clone()),
                    _ => Err(self.refuse(format!("its {name} are not of numbers"))),
                }
            }
            (None, None) => Ok(Parameters::single(list.map_or(&[][..], |list| &list.floats), what)?.values),
            _ => Err(self.refuse(format!("its {name} are given twice"))),
        }
    }

    fn check_len(&self, name: &str, found: usize, expected: usize) -> Result<()> {
        match found == expected {
            true => Ok(()),
            false => Err(self.refuse(format!("its {name} are {found}, where {expected} are needed"))),
        }
    }

    /// An index below `limit`.
    fn index(&self, name: &str, index: i64, limit: usize) -> Result<usize> {
        let found = usize::try_from(index).ok().filter(|&index| index < limit);
        found.ok_or_else(|| self.refuse(format!("one of its {name} is {index}, where {limit} are there")))
    }

    /// The layout in which nodes have numbers. `own` are the names of the weights' attributes.
    pub(super) fn numbered_table(&self, width: usize, own: [&str; 5], targets: usize) -> Result<Table> {
        let tree_numbers = self.get("nodes_treeids").map_or(&[][..], |attribute| &attribute.ints);
        let count = tree_numbers.len();
        check_size("nodes of trees", count, MAX_NODES)?;
        let numbers = self.integers("nodes_nodeids", count)?;
        let mut places = HashMap::new();
        let mut roots = vec![];
        for (place, (&tree, &number)) in tree_numbers.iter().zip(numbers).enumerate() {
            if place == 0 || tree != tree_numbers[place - 1] {
                roots.push(place);
            }
            if places.insert((tree, number), place).is_some() {
                return Err(self.refuse(format!("its tree {tree} has two nodes {number}")));
            }
        }
        let place = |tree: i64, number: i64| {
            let place = places.get(&(tree, number)).copied();
            place.ok_or_else(|| self.refuse(format!("its tree {tree} has no node {number}")))
        };
        let features = self.integers("nodes_featureids", count)?;
        let modes = self.get("nodes_modes").map_or(&[][..], |attribute| &attribute.strings);
        self.check_len("nodes_modes", modes.len(), count)?;
        let thresholds = self.numbers("nodes_values")?;
        self.check_len("nodes_values", thresholds.len(), count)?;
        let (yes, no) = (self.integers("nodes_truenodeids", count)?, self.integers("nodes_falsenodeids", count)?);
        let missing = self.flags("nodes_missing_value_tracks_true", count)?;
        let entry = |at: usize| {
            if modes[at] == "LEAF" {
                return Ok(Entry::Leaf);
            }
            let mode = Mode::named(&modes[at]).ok_or_else(|| mode_refused(self.node, &modes[at]))?;
            let feature = self.index("nodes_featureids", features[at], width)?;
            let (yes, no) = (place(tree_numbers[at], yes[at])?, place(tree_numbers[at], no[at])?);
            Ok(Entry::Branch(Branch { feature, threshold: thresholds[at], mode, yes, no, missing: missing[at] }))
        };
        let entries = (0..count).map(entry).collect::<Result<_>>()?;
        let [tree_name, node_name, target_name, weight_name, _] = own;
        let values = self.numbers(weight_name)?;
        let trees = self.integers(tree_name, values.len())?.iter().zip(self.integers(node_name, values.len())?);
        let targets_of = self.integers(target_name, values.len())?;
        let weight = |(((&tree, &number), &target), value): (((&i64, &i64), &i64), f64)| {
            Ok(Weight { at: place(tree, number)?, to: self.index(target_name, target, targets)?, value })
        };
        let weights = trees.zip(targets_of).zip(values).map(weight).collect::<Result<_>>()?;
        Ok(Table { roots, entries, weights })
    }

    /// The layout in which nodes are known by their places; leaves come after all of them.
    pub(super) fn placed_table(&self, width: usize, targets: usize) -> Result<Table> {
        let modes = match self.get("nodes_modes").and_then(|attribute| attribute.t.as_ref()) {
            Some(tensor) => Tensor::read(tensor, None)?.integers().map(<[i64]>::to_vec).unwrap_or_default(),
            None => vec![],
        };
        let (count, values) = (modes.len(), self.numbers("leaf_weights")?);
        check_size("nodes of trees", count.saturating_add(values.len()), MAX_NODES)?;
        let features = self.integers("nodes_featureids", count)?;
        let thresholds = self.numbers("nodes_splits")?;
        self.check_len("nodes_splits", thresholds.len(), count)?;
        let yes = (self.integers("nodes_truenodeids", count)?, self.integers("nodes_trueleafs", count)?);
        let no = (self.integers("nodes_falsenodeids", count)?, self.integers("nodes_falseleafs", count)?);
        let missing = self.flags("nodes_missing_value_tracks_true", count)?;
        let child = |(places, are_leaves): (&[i64], &[i64]), at: usize| match are_leaves[at] {
            0 => self.index("nodes", places[at], count),
            _ => self.index("leaves", places[at], values.len()).map(|place| count + place),
        };
        let branch = |at: usize| {
            let name =
                MODES.get(usize::try_from(modes[at]).unwrap_or(usize::MAX)).copied().unwrap_or("an unknown mode");
            let mode = Mode::named(name).ok_or_else(|| mode_refused(self.node, name))?;
            let feature = self.index("nodes_featureids", features[at], width)?;
            let (yes, no) = (child(yes, at)?, child(no, at)?);
            Ok(Entry::Branch(Branch { feature, threshold: thresholds[at], mode, yes, no, missing: missing[at] }))
        };
        let mut entries = (0..count).map(branch).collect::<Result<Vec<_>>>()?;
        entries.extend(values.iter().map(|_| Entry::Leaf));
        let roots = self.get("tree_roots").map_or(&[][..], |attribute| &attribute.ints);
        let roots = roots.iter().map(|&root| self.index("tree_roots", root, count)).collect::<Result<_>>()?;
        let targets_of = self.integers("leaf_targetids", values.len())?;
        let weight = |((place, &value), &target): ((usize, &f64), &i64)| {
            Ok(Weight { at: count + place, to: self.index("leaf_targetids", target, targets)?, value })
        };
        let weights = values.iter().enumerate().zip(targets_of).map(weight).collect::<Result<_>>()?;
        Ok(Table { roots, entries, weights })
    }
}

/// Modes by their numbers in TreeEnsemble.
const MODES: [&str; 7] =
    ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER"];

fn mode_refused(node: &NodeProto, mode: &str) -> ImportError {
    let reason = format!("some of its nodes are {}, as those that sort categories are", mode.escape_debug());
    refused_for(
        node,
        reason,
        "one-hot encode categories before training, and train without categorical_feature or enable_categorical",
    )
}

/// Nodes of all trees, by their places.
pub(super) struct Table {
    pub(super) roots: Vec<usize>,
    pub(super) entries: Vec<Entry>,
    pub(super) weights: Vec<Weight>,
}

pub(super) enum Entry {
    Branch(Branch),
    Leaf,
}

pub(super) struct Branch {
    feature: usize,
    threshold: f64,
    mode: Mode,
    yes: usize,
    no: usize,
    /// Whether a missing value counts as yes.
    missing: bool,
}

/// What a leaf adds to a score.
pub(super) struct Weight {
    pub(super) at: usize,
    pub(super) to: usize,
    pub(super) value: f64,
}

/// What a branch asks: x ≤ t, x < t, x ≥ t, x > t.
#[derive(Clone, Copy)]
pub(super) enum Mode {
    Leq,
    Lt,
    Gte,
    Gt,
}

impl Mode {
    fn named(name: &str) -> Option<Self> {
        match name {
            "BRANCH_LEQ" => Some(Self::Leq),
            "BRANCH_LT" => Some(Self::Lt),
            "BRANCH_GTE" => Some(Self::Gte),
            "BRANCH_GT" => Some(Self::Gt),
            _ => None,
        }
    }

    fn asks(self, x: f64, threshold: f64) -> bool {
        match self {
            Self::Leq => x <= threshold,
            Self::Lt => x < threshold,
            Self::Gte => x >= threshold,
            Self::Gt => x > threshold,
        }
    }
}

impl Branch {
    /// As x < cut; the branches below and at or above it.
    fn cut(&self, single: bool) -> (f64, [usize; 2]) {
        let cut = match self.mode {
            Mode::Lt | Mode::Gte => self.threshold,
            Mode::Leq | Mode::Gt => self.threshold.next_up(),
        };
        let children = match self.mode {
            Mode::Leq | Mode::Lt => [self.yes, self.no],
            Mode::Gte | Mode::Gt => [self.no, self.yes],
        };
        (if single { next_single(cut) } else { cut }, children)
    }
}

/// The least float32 number that is not below `cut`.
fn next_single(cut: f64) -> f64 {
    let rounded = cut as f32;
    f64::from(if f64::from(rounded) < cut { rounded.next_up() } else { rounded })
}

impl Table {
    /// Missing values are refused before they are encrypted, so where they would go matters to no answer. But where it
    /// differs from node to node it was learned, and the model means to be asked with some missing.
    ///
    /// Exporters mark all branches alike; or, for LightGBM, those at which zero counts as yes, since that is what a
    /// missing value counts as in a model that has seen none.
    pub(super) fn check_missing(&self, node: &NodeProto) -> Result<()> {
        let branches =
            || self.entries.iter().filter_map(|entry| if let Entry::Branch(b) = entry { Some(b) } else { None });
        let (count, yes) = (branches().count(), branches().filter(|branch| branch.missing).count());
        let as_zero = branches().all(|branch| branch.missing == branch.mode.asks(0.0, branch.threshold));
        match yes == 0 || yes == count || as_zero {
            true => Ok(()),
            false => Err(refused_for(
                node,
                format!("it has learned where missing values go: one way at {yes} of its {count} branches"),
                "fill missing values in with a SimpleImputer before the trees, and train on data without NaN",
            )),
        }
    }

    /// The leaf of a branch that leads to it either way: so a tree that is a leaf alone is written.
    fn leaf_either_way(&self, place: usize, reached: &mut [bool]) -> Option<usize> {
        let Entry::Branch(Branch { yes, no, .. }) = self.entries[place] else { return None };
        let is_leaf = yes == no && matches!(self.entries[yes], Entry::Leaf);
        is_leaf.then(|| {
            reached[place] = true;
            yes
        })
    }

    /// The tree at a root, from the top down.
    pub(super) fn tree(
        &self,
        node: &NodeProto,
        root: usize,
        single: bool,
        reached: &mut [bool],
        values: &[Option<Vec<f64>>],
        width: usize,
    ) -> Result<Tree> {
        let mut nodes = vec![];
        let mut places = vec![(root, 0)];
        while let Some(&(place, depth)) = places.get(nodes.len()) {
            let place = self.leaf_either_way(place, reached).unwrap_or(place);
            let was_reached = std::mem::replace(&mut reached[place], true);
            let Entry::Branch(branch) = &self.entries[place] else {
                nodes.push(Node::Leaf { values: values[place].clone().unwrap_or_else(|| vec![0.0; width]) });
                continue;
            };
            let Branch { feature: column, threshold, .. } = *branch;
            if was_reached {
                let reason = format!("two ways lead to its node {place}, at {threshold} of column {column}");
                return Err(refused(node, reason));
            }
            let (cut, children) = branch.cut(single);
            if !cut.is_finite() {
                return Err(refused(node, format!("its threshold {threshold} is out of range")));
            }
            let (below, above) = (places.len(), places.len() + 1);
            places.extend(children.map(|child| (child, depth + 1)));
            nodes.push(Node::Branch { column, cut, below, above });
        }
        // The last is among the deepest.
        match places.last() {
            Some(&(_, actual)) if actual > MAX_DEPTH => {
                Err(ImportError::TooWide { what: DEPTH, actual, max: MAX_DEPTH })
            }
            _ => Ok(Tree { nodes }),
        }
    }
}

/// What there are too many of in a deep tree.
const DEPTH: &str = "decisions one after the other";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::sample::{Sample, TreeNode, stump};

    fn reason(sample: Sample) -> String {
        sample.refusal(&["y"]).1
    }

    /// Marks of an exporter pass, learned directions do not.
    #[test]
    fn where_missing_values_go_must_not_be_learned() {
        let nodes = [
            ((0, 0), "BRANCH_LEQ", 0, 1.0, (1, 2)),
            ((0, 1), "BRANCH_LEQ", 0, -1.0, (3, 4)),
            ((0, 2), "LEAF", 0, 0.0, (0, 0)),
            ((0, 3), "LEAF", 0, 0.0, (0, 0)),
            ((0, 4), "LEAF", 0, 0.0, (0, 0)),
        ];
        let marked = |flags: [i64; 2]| {
            let flags = [&flags[..], &[0; 3]].concat();
            let sample = Sample::new(1).node("TreeEnsembleRegressor(X) -> y").with_trees(&nodes);
            sample.with_integers("nodes_missing_value_tracks_true", &flags)
        };
        for flags in [[0, 0], [1, 1], [1, 0]] {
            assert!(marked(flags).read(&["y"]).is_ok(), "{flags:?}: none, all, or as zero goes");
        }
        let learned = "it has learned where missing values go: one way at 1 of its 2 branches";
        assert_eq!(reason(marked([0, 1])), learned);
    }

    #[test]
    fn nodes_that_are_no_tree_are_refused() {
        let trees = |nodes: &[TreeNode<'_>]| Sample::new(1).node("TreeEnsembleRegressor(X) -> y").with_trees(nodes);
        let changed = |change: fn(&mut [TreeNode<'_>; 3])| {
            let mut nodes = stump(0, "BRANCH_LT", 0, 0.0);
            change(&mut nodes);
            reason(trees(&nodes))
        };
        assert_eq!(changed(|nodes| nodes[0].4.0 = 0), "two ways lead to its node 0, at 0 of column 0");
        assert_eq!(changed(|nodes| nodes[0].4.1 = 9), "its tree 0 has no node 9");
        assert_eq!(changed(|nodes| nodes[0].4.1 = i64::MIN), format!("its tree 0 has no node {}", i64::MIN));
        assert_eq!(changed(|nodes| nodes[2].0.1 = 1), "its tree 0 has two nodes 1");
        assert_eq!(changed(|nodes| nodes[0].2 = 1), "one of its nodes_featureids is 1, where 1 are there");
        assert_eq!(changed(|nodes| nodes[0].2 = -1), "one of its nodes_featureids is -1, where 1 are there");
        assert_eq!(changed(|nodes| nodes[0].4.1 = 1), "no tree reaches its node 2");
        assert_eq!(changed(|nodes| nodes.swap(0, 1)), "no tree reaches its node 1", "a leaf comes first");
        let stump = || trees(&stump(0, "BRANCH_LT", 0, 0.0));
        assert_eq!(reason(stump().without("nodes_modes")), "its nodes_modes are 0, where 3 are needed");
        assert_eq!(reason(stump().without("nodes_values")), "its nodes_values are 0, where 3 are needed");
        let weight = |weight| reason(stump().with_weights("target", &[weight]));
        assert_eq!(weight((0, 0, 0, 1.0)), "it gives a weight to its node 0, which is no leaf");
        assert_eq!(weight((0, 5, 0, 1.0)), "its tree 0 has no node 5");
        assert_eq!(weight((0, 1, 1, 1.0)), "one of its target_ids is 1, where 1 are there");
        let short = stump().with_weights("target", &[(0, 1, 0, 1.0)]).without("target_ids");
        assert_eq!(reason(short), "its target_ids are 0, where 1 are needed");
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        for value in [f32::NAN, f32::INFINITY] {
            let error = Sample::new(1).stump("(X) -> y", "BRANCH_LT", value).read(&["y"]).unwrap_err();
            assert_eq!(error.to_string(), format!("number 0 of the nodes_values of TreeEnsembleRegressor is {value}"));
            let sample =
                Sample::new(1).node("TreeEnsembleRegressor(X) -> y").with_trees(&stump(0, "BRANCH_LT", 0, 0.0));
            let error = sample.with_weights("target", &[(0, 1, 0, value)]).read(&["y"]).unwrap_err();
            assert_eq!(error.code(), "onnx_not_finite");
        }
        let largest = Sample::new(1).stump("(X) -> y", "BRANCH_LEQ", f32::MAX);
        assert_eq!(reason(largest), format!("its threshold {} is out of range", f64::from(f32::MAX)));
    }

    #[test]
    fn sizes_have_limits() {
        let leaf = |tree| ((tree, 0), "LEAF", 0, 0.0, (0, 0));
        let refusal = |nodes: &[TreeNode<'_>]| {
            let sample = Sample::new(1).node("TreeEnsembleRegressor(X) -> y").with_trees(nodes);
            match sample.read(&["y"]) {
                Err(ImportError::TooWide { what, actual, max }) => Some((what, actual, max)),
                other => other.map(|_| None).unwrap(),
            }
        };
        let trees = |count| (0..count).map(leaf).collect::<Vec<_>>();
        assert_eq!(refusal(&trees(2000)), None);
        assert_eq!(refusal(&trees(2001)), Some(("trees", 2001, 2000)));
        let nodes: Vec<_> = (0..=1 << 17).map(|number| ((0, number), "LEAF", 0, 0.0, (0, 0))).collect();
        assert_eq!(refusal(&nodes), Some(("nodes of trees", (1 << 17) + 1, 1 << 17)));
        let chain = |depth: i64| {
            let branch = |n: i64| [((0, 2 * n), "BRANCH_LT", 0, n as f32, (2 * n + 1, 2 * n + 2)), at(2 * n + 1)];
            (0..depth).flat_map(branch).chain([at(2 * depth)]).collect::<Vec<_>>()
        };
        assert_eq!(refusal(&chain(64)), None);
        assert_eq!(refusal(&chain(65)), Some(("decisions one after the other", 65, 64)));
        assert_eq!(
            refusal(&chain(60_000)),
            Some(("decisions one after the other", 60_000, 64)),
            "no stack is that deep"
        );
        let wide = Sample::new(1).stump("(X) -> y", "BRANCH_LT", 0.0).with_integer("n_targets", 1001);
        let error = wide.read(&["y"]).unwrap_err();
        assert_eq!(error, ImportError::TooWide { what: "logits", actual: 1001, max: 1000 });
    }

    /// A leaf of the first tree.
    fn at(number: i64) -> TreeNode<'static> {
        ((0, number), "LEAF", 0, 0.0, (0, 0))
    }
}
