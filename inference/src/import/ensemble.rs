//! Trees as files have them: lists of nodes and leaves, in one of two layouts.
//!
//! | operator | where nodes are | where leaves are |
//! |---|---|---|
//! | TreeEnsembleClassifier, TreeEnsembleRegressor | by the numbers of tree and node; the first of a tree is its root | among the nodes |
//! | TreeEnsemble | by their place; `tree_roots` are the roots | in lists of their own |
//!
//! A classifier of two labels may give weights to one class number only, which then stands for the second label.

mod table;

use std::collections::BTreeSet;
use std::rc::Rc;

use rten_onnx::onnx::NodeProto;

use super::ImportError;
use super::chain::{Id, Operation};
use super::model::{Reader, Value, check_size, too_large};
use super::nonlinear::TreeModel;
use super::onnx::labels;
use super::refusal::{refused, refused_for};
use super::tail::Formula;
use table::{Entry, Lists, Table, Weight};
pub(super) use table::{MAX_NODES, MAX_TREES};

type Result<T> = std::result::Result<T, ImportError>;

/// Attributes of nodes that classifiers and regressors share. Hit rates say how the training data went.
const NODES: [&str; 11] = [
    "nodes_treeids",
    "nodes_nodeids",
    "nodes_featureids",
    "nodes_modes",
    "nodes_values",
    "nodes_values_as_tensor",
    "nodes_truenodeids",
    "nodes_falsenodeids",
    "nodes_missing_value_tracks_true",
    "nodes_hitrates",
    "nodes_hitrates_as_tensor",
];

const BASE: [&str; 3] = ["base_values", "base_values_as_tensor", "post_transform"];

/// Attributes of TreeEnsemble.
const PLACED: [&str; 16] = [
    "tree_roots",
    "nodes_featureids",
    "nodes_modes",
    "nodes_splits",
    "nodes_truenodeids",
    "nodes_falsenodeids",
    "nodes_trueleafs",
    "nodes_falseleafs",
    "nodes_missing_value_tracks_true",
    "nodes_hitrates",
    "leaf_targetids",
    "leaf_weights",
    "membership_values",
    "aggregate_function",
    "post_transform",
    "n_targets",
];

impl Reader {
    /// The label of the largest score, and the scores as they are or as their probabilities.
    pub(super) fn tree_classifier(&mut self, node: &NodeProto) -> Result<Vec<Value>> {
        let own = ["class_treeids", "class_nodeids", "class_ids", "class_weights", "class_weights_as_tensor"];
        let more = ["classlabels_strings", "classlabels_int64s"];
        let lists = Lists::of(node, &[&NODES, &BASE, &own, &more])?;
        let labels = labels(lists.get("classlabels_strings"), lists.get("classlabels_int64s"));
        if labels.len() < 2 {
            return Err(refused(node, format!("it has {} class labels", labels.len())));
        }
        let (of, width) = self.vector(node, 0)?;
        let table = lists.numbered_table(width, own, labels.len())?;
        let classes: BTreeSet<usize> = table.weights.iter().map(|weight| weight.to).collect();
        let is_second = labels.len() == 2 && classes.len() == 1;
        let transform = lists.text("post_transform", "NONE");
        let ensemble = self.grow(node, &table, !self.is_double(node), labels.len())?;
        let base = lists.numbers("base_values")?;
        let ensemble = match (is_second, &base[..]) {
            (true, []) => second(node, ensemble, 0.0, transform)?,
            (true, &[base]) => second(node, ensemble, base, transform)?,
            (false, base) if base.is_empty() || base.len() == labels.len() => with_base(ensemble, base),
            _ => return Err(refused(node, format!("it has {} base values", base.len()))),
        };
        let id = self.ensemble(of, ensemble)?;
        let label = Value::Label { of: Rc::new(Formula::Scores(id)), labels: Rc::new(labels) };
        Ok(vec![label, self.transformed(node, id, transform)?])
    }

    pub(super) fn tree_regressor(&mut self, node: &NodeProto) -> Result<Value> {
        let own = ["target_treeids", "target_nodeids", "target_ids", "target_weights", "target_weights_as_tensor"];
        let lists = Lists::of(node, &[&NODES, &BASE, &own, &["n_targets", "aggregate_function"]])?;
        let targets = lists.targets()?;
        let (of, width) = self.vector(node, 0)?;
        let table = lists.numbered_table(width, own, targets)?;
        let ensemble = self.grow(node, &table, !self.is_double(node), targets)?;
        let averages = match lists.text("aggregate_function", "SUM") {
            "SUM" => false,
            "AVERAGE" => true,
            other => return Err(aggregate_refused(node, &other.escape_debug().to_string())),
        };
        let ensemble = if averages { averaged(ensemble) } else { ensemble };
        let base = lists.numbers("base_values")?;
        if !base.is_empty() && base.len() != targets {
            return Err(refused(node, format!("it has {} base values", base.len())));
        }
        let id = self.ensemble(of, with_base(ensemble, &base))?;
        self.transformed(node, id, lists.text("post_transform", "NONE"))
    }

    /// The operator that replaces both.
    pub(super) fn tree_ensemble(&mut self, node: &NodeProto) -> Result<Value> {
        let lists = Lists::of(node, &[&PLACED])?;
        let targets = lists.targets()?;
        let (of, width) = self.vector(node, 0)?;
        let table = lists.placed_table(width, targets)?;
        let ensemble = self.grow(node, &table, !self.is_double(node), targets)?;
        let ensemble = match lists.integer("aggregate_function", 1) {
            0 => averaged(ensemble),
            1 => ensemble,
            2 => return Err(aggregate_refused(node, "MIN")),
            3 => return Err(aggregate_refused(node, "MAX")),
            other => return Err(aggregate_refused(node, &other.to_string())),
        };
        let transform = match lists.integer("post_transform", 0) {
            0 => "NONE",
            1 => "SOFTMAX",
            2 => "LOGISTIC",
            3 => "SOFTMAX_ZERO",
            4 => "PROBIT",
            _ => "an unknown function",
        };
        let id = self.ensemble(of, ensemble)?;
        self.transformed(node, id, transform)
    }

    fn ensemble(&mut self, of: Id, ensemble: TreeModel) -> Result<Id> {
        ensemble.check_columns(&self.chain, of)?;
        let width = ensemble.base.len();
        self.push(width, Operation::Ensemble { of, ensemble: ensemble.into() })
    }

    fn transformed(&mut self, node: &NodeProto, id: Id, transform: &str) -> Result<Value> {
        let (scores, width) = (Rc::new(Formula::Scores(id)), self.chain.width(id));
        if let Some(name) = node.output.last() {
            self.name(id, name);
        }
        match transform {
            "NONE" => Ok(Value::Vector { id, flat: false }),
            "SOFTMAX" => self.applied(node, "Softmax", [scores], width),
            "LOGISTIC" => self.applied(node, "Sigmoid", [scores], width),
            other => Err(refused(node, format!("its scores go through {}", other.escape_debug()))),
        }
    }

    /// Trees of a table, with K values in each leaf.
    fn grow(&mut self, node: &NodeProto, table: &Table, single: bool, width: usize) -> Result<TreeModel> {
        check_size("trees", table.roots.len(), MAX_TREES)?;
        check_size("nodes of trees", table.entries.len(), MAX_NODES)?;
        table.check_missing(node)?;
        // Every branch is reached once, so a leaf more than branches in each tree.
        let leaves = table.entries.len() + table.roots.len();
        self.chain.reserve(leaves.saturating_mul(width)).map_err(too_large)?;
        let mut values: Vec<Option<Vec<f64>>> = vec![None; table.entries.len()];
        for &Weight { at, to, value } in &table.weights {
            if matches!(table.entries[at], Entry::Branch(_)) {
                return Err(refused(node, format!("it gives a weight to its node {at}, which is no leaf")));
            }
            values[at].get_or_insert_with(|| vec![0.0; width])[to] += value;
        }
        let mut reached = vec![false; table.entries.len()];
        let grown = table.roots.iter().map(|&root| table.tree(node, root, single, &mut reached, &values, width));
        let trees = grown.collect::<Result<_>>()?;
        match reached.iter().position(|reached| !reached) {
            Some(lost) => Err(refused(node, format!("no tree reaches its node {lost}"))),
            None => Ok(TreeModel { trees, base: vec![0.0; width], single }),
        }
    }
}

fn aggregate_refused(node: &NodeProto, how: &str) -> ImportError {
    refused_for(
        node,
        format!("it takes the {how} of its trees, not their sum or average"),
        "export a forest or boosted trees, whose trees are added up or averaged",
    )
}

fn averaged(mut ensemble: TreeModel) -> TreeModel {
    let trees = ensemble.trees.len() as f64;
    ensemble.for_each_leaf(|values| values.iter_mut().for_each(|value| *value /= trees));
    ensemble
}

fn with_base(mut ensemble: TreeModel, base: &[f64]) -> TreeModel {
    ensemble.base.iter_mut().zip(base).for_each(|(to, base)| *to += base);
    ensemble
}

/// Two scores from that of the second label: of opposite sign; or the probabilities of both, as runtimes have it when
/// no weight is negative and nothing is to be made of the scores.
fn second(node: &NodeProto, mut ensemble: TreeModel, base: f64, transform: &str) -> Result<TreeModel> {
    if transform == "SOFTMAX" {
        return Err(refused(node, "it takes the softmax of a single score"));
    }
    let mut least = f64::INFINITY;
    ensemble.for_each_leaf(|values| {
        // All is in the one class that has weights.
        let score = values.iter().sum();
        least = least.min(score);
        *values = vec![-score, score];
    });
    let is_probability = transform == "NONE" && least >= 0.0;
    ensemble.base = if is_probability { vec![1.0 - base, base] } else { vec![-base, base] };
    match is_probability && !ensemble.gives_probabilities() {
        true => Err(refused_for(
            node,
            "none of its weights is negative, but they do not add up to probabilities",
            "export the classifier with its probabilities, not its raw scores",
        )),
        false => Ok(ensemble),
    }
}

#[cfg(test)]
mod tests {
    use rten_onnx::onnx::{DataType, TensorProto};

    use super::*;
    use crate::description::{Label, Link};
    use crate::import::clear;
    use crate::import::model::Model;
    use crate::import::nonlinear::{Node, Source, Tree};
    use crate::import::sample::{Sample, TreeNode, stump};

    /// The logits of some rows, by the folded trees and by the graph itself.
    fn logits(model: &Model, rows: &[&[f64]]) -> Vec<Vec<f64>> {
        let of_row = |row: &&[f64]| {
            let logits = model.source.logits(row);
            assert_eq!(logits, clear::logits(model, row), "two ways to the same");
            logits
        };
        rows.iter().map(of_row).collect()
    }

    fn regressed(sample: Sample, rows: &[&[f64]]) -> Vec<Vec<f64>> {
        let model = sample.read(&["y"]).unwrap();
        assert_eq!(model.link, Link::Identity);
        logits(&model, rows)
    }

    fn reason(sample: Sample) -> String {
        sample.refusal(&["y"]).1
    }

    const BELOW: f64 = 0.999_999_94;
    const ABOVE: f64 = 1.000_000_1;

    const MODES: [(&str, [f64; 3]); 4] = [
        ("BRANCH_LEQ", [-1.0, -1.0, 1.0]),
        ("BRANCH_LT", [-1.0, 1.0, 1.0]),
        ("BRANCH_GTE", [1.0, -1.0, -1.0]),
        ("BRANCH_GT", [1.0, 1.0, -1.0]),
    ];

    #[test]
    fn every_mode_decides_at_its_threshold() {
        for kind in [DataType::FLOAT, DataType::DOUBLE] {
            for (mode, expected) in MODES {
                let sample = Sample::default().input("X", kind, 1).stump("(X) -> y", mode, 1.0);
                assert_eq!(regressed(sample, &[&[BELOW], &[1.0], &[ABOVE]]).concat(), expected, "{mode}");
            }
        }
        let zero = Sample::new(1).stump("(X) -> y", "BRANCH_LEQ", -0.0);
        assert_eq!(regressed(zero, &[&[-1e-40], &[-0.0], &[0.0], &[1e-40]]).concat(), [-1.0, -1.0, -1.0, 1.0]);
    }

    /// What a double graph tells apart is one number to a float32 graph, and to a cast on the way.
    #[test]
    fn numbers_are_compared_as_the_graph_rounds_them() {
        let near: &[&[f64]] = &[&[1.0 + 1e-9]];
        let sample = |kind| Sample::default().input("X", kind, 1);
        let single = sample(DataType::FLOAT).stump("(X) -> y", "BRANCH_LEQ", 1.0);
        assert!(matches!(&single.clone().read(&["y"]).unwrap().source, Source::Trees(TreeModel { single: true, .. })));
        assert_eq!(regressed(single, near), [[-1.0]]);
        let double = sample(DataType::DOUBLE).stump("(X) -> y", "BRANCH_LEQ", 1.0);
        assert!(matches!(&double.clone().read(&["y"]).unwrap().source, Source::Trees(TreeModel { single: false, .. })));
        assert_eq!(regressed(double, near), [[1.0]]);
        let cast = |kind, to: DataType| {
            let cast = sample(kind).node("Cast(X) -> x").with_integer("to", to.0.into());
            regressed(cast.stump("(x) -> y", "BRANCH_LEQ", 1.0), near).concat()
        };
        assert_eq!(cast(DataType::DOUBLE, DataType::FLOAT), [-1.0]);
        let like = sample(DataType::DOUBLE).floats("one", &[1], &[1.0]).doubles("two", &[1], &[2.0]);
        let like =
            |name: &str| like.clone().node(&format!("CastLike(X, {name}) -> x")).stump("(x) -> y", "BRANCH_LEQ", 1.0);
        assert_eq!((regressed(like("one"), near), regressed(like("two"), near)), (vec![vec![-1.0]], vec![vec![1.0]]));
        let scaler = sample(DataType::DOUBLE).scaler("(X) -> x", &[0.0], &[1.0]);
        assert_eq!(regressed(scaler.stump("(x) -> y", "BRANCH_LEQ", 1.0), near), [[-1.0]], "its output is float32");
    }

    /// Two trees of two columns; the second goes two steps deep, and its leaves have several targets.
    fn two_trees() -> Vec<TreeNode<'static>> {
        let second = [
            ((7, 5), "BRANCH_GT", 1, 0.5, (3, 4)),
            ((7, 4), "LEAF", 0, 0.0, (0, 0)),
            ((7, 3), "BRANCH_LT", 0, -2.0, (8, 9)),
            ((7, 8), "LEAF", 0, 0.0, (0, 0)),
            ((7, 9), "LEAF", 0, 0.0, (0, 0)),
        ];
        stump(2, "BRANCH_LEQ", 0, 1.0).into_iter().chain(second).collect()
    }

    const TWO_TREES: [(i64, i64, i64, f32); 6] =
        [(2, 1, 0, 1.0), (2, 2, 1, 2.0), (7, 4, 0, 4.0), (7, 4, 1, 8.0), (7, 8, 0, 16.0), (7, 9, 1, 32.0)];

    const ROWS: [&[f64]; 3] = [&[0.0, 0.0], &[3.0, 1.0], &[-3.0, 1.0]];

    fn two_targets() -> Sample {
        let trees = Sample::new(2).node("TreeEnsembleRegressor(X) -> y").with_trees(&two_trees());
        trees.with_weights("target", &TWO_TREES).with_integer("n_targets", 2)
    }

    #[test]
    fn leaves_are_added_or_averaged_and_bases_are_added_last() {
        assert_eq!(regressed(two_targets(), &ROWS), [[5.0, 8.0], [0.0, 34.0], [17.0, 0.0]]);
        let averaged =
            two_targets().with_text("aggregate_function", "AVERAGE").with_floats("base_values", &[100.0, 0.5]);
        assert_eq!(regressed(averaged, &ROWS), [[102.5, 4.5], [100.0, 17.5], [108.5, 0.5]]);
        let twice = Sample::new(1).node("TreeEnsembleRegressor(X) -> y").with_trees(&stump(0, "BRANCH_LT", 0, 0.0));
        let twice = twice.with_weights("target", &[(0, 1, 0, 1.0), (0, 1, 0, 2.0)]);
        assert_eq!(regressed(twice, &[&[-1.0], &[1.0]]), [[3.0], [0.0]], "nothing is nothing");
        let leaf = Sample::new(1).node("TreeEnsembleRegressor(X) -> y");
        let leaf = leaf.with_trees(&[((0, 0), "LEAF", 0, 0.0, (0, 0))]).with_weights("target", &[(0, 0, 0, 7.0)]);
        assert_eq!(regressed(leaf, &[&[0.0]]), [[7.0]], "a tree may be a leaf");
    }

    #[test]
    fn lists_may_be_tensors() {
        let sample = Sample::default().input("X", DataType::DOUBLE, 1).node("TreeEnsembleRegressor(X) -> y");
        let nodes = stump(0, "BRANCH_LEQ", 0, 0.0);
        let sample = sample.with_trees(&nodes).with_doubles("nodes_values_as_tensor", &[0.1, 0.0, 0.0]);
        assert_eq!(reason(sample.clone()), "its nodes_values are given twice");
        let sample = sample
            .without("nodes_values")
            .with_weights("target", &[(0, 1, 0, 0.0), (0, 2, 0, 0.0)])
            .without("target_weights")
            .with_doubles("target_weights_as_tensor", &[1.0 / 3.0, 0.7])
            .with_doubles("base_values_as_tensor", &[0.1]);
        let rows: &[&[f64]] = &[&[0.1], &[0.1 + 1e-16], &[f64::from(0.1_f32)]];
        assert_eq!(regressed(sample, rows), [[1.0 / 3.0 + 0.1], [0.7 + 0.1], [0.7 + 0.1]]);
    }

    /// The same trees as one operator has them: branches, then leaves.
    fn placed(modes: &[i32]) -> Sample {
        let modes = TensorProto { int32_data: modes.to_vec(), ..Default::default() };
        let floats = |values: &[f32]| TensorProto { float_data: values.to_vec(), ..Default::default() };
        Sample::new(2)
            .node("TreeEnsemble(X) -> y")
            .with_integers("tree_roots", &[0, 1])
            .with_tensor("nodes_modes", DataType::UINT8, modes)
            .with_integers("nodes_featureids", &[0, 1, 0])
            .with_tensor("nodes_splits", DataType::FLOAT, floats(&[1.0, 0.5, -2.0]))
            .with_integers("nodes_truenodeids", &[0, 2, 3])
            .with_integers("nodes_trueleafs", &[1, 0, 1])
            .with_integers("nodes_falsenodeids", &[1, 2, 4])
            .with_integers("nodes_falseleafs", &[1, 1, 1])
            .with_integers("leaf_targetids", &[0, 1, 1, 0, 1])
            .with_tensor("leaf_weights", DataType::FLOAT, floats(&[1.0, 2.0, 8.0, 16.0, 32.0]))
            .with_integer("n_targets", 2)
    }

    #[test]
    fn one_operator_has_nodes_by_their_places() {
        let all: [&[f64]; 3] = [&[0.0, 0.0], &[3.0, 1.0], &[-3.0, 1.0]];
        assert_eq!(regressed(placed(&[0, 3, 1]), &all), [[1.0, 8.0], [0.0, 34.0], [17.0, 0.0]]);
        assert_eq!(regressed(placed(&[2, 3, 1]), &all), [[0.0, 10.0], [1.0, 32.0], [16.0, 2.0]]);
        let averaged = placed(&[0, 3, 1]).with_integer("aggregate_function", 0);
        assert_eq!(regressed(averaged, &all), [[0.5, 4.0], [0.0, 17.0], [8.5, 0.0]]);
        let leaf = placed(&[0, 3, 1]).without("nodes_falsenodeids").with_integers("nodes_falsenodeids", &[0, 2, 4]);
        assert_eq!(reason(leaf), "no tree reaches its node 4", "counted from the branches on");
        let tensor = |values: &[f32]| TensorProto { float_data: values.to_vec(), ..Default::default() };
        let alone = Sample::new(1)
            .node("TreeEnsemble(X) -> y")
            .with_integers("tree_roots", &[0])
            .with_tensor("nodes_modes", DataType::UINT8, TensorProto { int32_data: vec![0], ..Default::default() })
            .with_tensor("nodes_splits", DataType::FLOAT, tensor(&[0.0]))
            .with_tensor("leaf_weights", DataType::FLOAT, tensor(&[7.0]));
        let ones = ["nodes_trueleafs", "nodes_falseleafs"];
        let zeros = ["nodes_featureids", "nodes_truenodeids", "nodes_falsenodeids", "leaf_targetids"];
        let alone = ones.iter().fold(alone, |sample, name| sample.with_integers(name, &[1]));
        let alone = zeros.iter().fold(alone, |sample, name| sample.with_integers(name, &[0])).read(&["y"]).unwrap();
        let Source::Trees(model) = &alone.source else { panic!() };
        assert_eq!(model.trees, [Tree { nodes: vec![Node::Leaf { values: vec![7.0] }] }], "a leaf either way");
        for (mode, name) in [(4, "BRANCH_EQ"), (5, "BRANCH_NEQ"), (6, "BRANCH_MEMBER"), (9, "an unknown mode")] {
            let found = reason(placed(&[0, mode, 1]));
            assert_eq!(found, format!("some of its nodes are {name}, as those that sort categories are"));
        }
        for (how, name) in [(2, "MIN"), (3, "MAX"), (8, "8")] {
            let found = reason(placed(&[0, 3, 1]).with_integer("aggregate_function", how));
            assert_eq!(found, format!("it takes the {name} of its trees, not their sum or average"));
        }
        for (transform, name) in [(3, "SOFTMAX_ZERO"), (4, "PROBIT"), (-1, "an unknown function")] {
            let found = reason(placed(&[0, 3, 1]).with_integer("post_transform", transform));
            assert_eq!(found, format!("its scores go through {name}"));
        }
        let linked =
            placed(&[0, 3, 1]).with_integer("post_transform", 1).node("ArgMax(y) -> at").with_integer("axis", 1);
        let model = linked.read(&["at", "y"]).unwrap();
        assert_eq!((model.link, model.places.len()), (Link::Softmax, 2), "two scores of no opposite sign");
    }

    /// A single tree and its only column of weights.
    fn second(ids: i64, weights: [f32; 2], transform: &str) -> Sample {
        Sample::new(1)
            .node("TreeEnsembleClassifier(X) -> label, y")
            .with_trees(&stump(0, "BRANCH_LT", 0, 0.0))
            .with_weights("class", &[(0, 1, ids, weights[0]), (0, 2, ids, weights[1])])
            .with_texts("classlabels_strings", &["no", "yes"])
            .with_text("post_transform", transform)
    }

    fn classified(sample: Sample, rows: &[&[f64]]) -> (Link, Vec<f64>) {
        let model = sample.read(&["label", "y"]).unwrap();
        assert_eq!(model.labels, ["no", "yes"].map(|label| Label::Text(label.into())));
        assert_eq!(model.places, [("y".into(), 1)]);
        (model.link, logits(&model, rows).concat())
    }

    /// One column of weights is the second label's, whatever its number.
    #[test]
    fn a_single_score_is_that_of_the_second_label() {
        let rows: &[&[f64]] = &[&[-1.0], &[1.0]];
        for ids in [0, 1] {
            let link = |weights, transform| classified(second(ids, weights, transform), rows);
            assert_eq!(link([0.25, 0.75], "NONE"), (Link::Probability, vec![0.25, 0.75]));
            assert_eq!(link([-0.25, 0.75], "NONE"), (Link::Identity, vec![-0.25, 0.75]));
            assert_eq!(link([-0.25, 0.75], "LOGISTIC"), (Link::Sigmoid, vec![-0.25, 0.75]));
            assert_eq!(link([0.25, 0.75], "LOGISTIC"), (Link::Sigmoid, vec![0.25, 0.75]), "a logit, not a probability");
        }
        let base = second(0, [-0.25, 0.75], "LOGISTIC").with_floats("base_values", &[0.5]);
        assert_eq!(classified(base, rows), (Link::Sigmoid, vec![0.25, 1.25]));
        let base = second(0, [0.25, 0.5], "NONE").with_floats("base_values", &[0.25]);
        assert_eq!(classified(base, rows), (Link::Probability, vec![0.5, 0.75]));
        let reason = |sample: Sample| sample.refusal(&["label", "y"]).1;
        let neither = "none of its weights is negative, but they do not add up to probabilities";
        assert_eq!(reason(second(0, [0.25, 1.75], "NONE")), neither);
        assert_eq!(reason(second(0, [0.25, 0.75], "SOFTMAX")), "it takes the softmax of a single score");
        assert_eq!(reason(second(0, [0.25, 0.75], "PROBIT")), "its scores go through PROBIT");
        let two = second(0, [0.25, 0.75], "NONE").with_floats("base_values", &[0.5, 0.5]);
        assert_eq!(reason(two), "it has 2 base values");
    }

    fn of_labels(labels: &[i64], weights: &[(i64, i64, i64, f32)], transform: &str) -> Sample {
        Sample::new(1)
            .node("TreeEnsembleClassifier(X) -> label, y")
            .with_trees(&stump(0, "BRANCH_LT", 0, 0.0))
            .with_weights("class", weights)
            .with_integers("classlabels_int64s", labels)
            .with_text("post_transform", transform)
    }

    #[test]
    fn leaves_that_sum_up_to_one_are_probabilities() {
        let link = |labels: &[i64], weights: &[(i64, i64, i64, f32)], transform: &str| {
            let model = of_labels(labels, weights, transform).read(&["label", "y"]).unwrap();
            let found = logits(&model, &[&[-1.0]]).concat();
            (model.link, found)
        };
        let shares = [(0, 1, 0, 0.25), (0, 1, 2, 0.75), (0, 2, 1, 1.0)];
        assert_eq!(link(&[4, 5, 6], &shares, "NONE"), (Link::Probability, vec![0.25, 0.0, 0.75]));
        assert_eq!(link(&[4, 5, 6], &shares, "SOFTMAX"), (Link::Softmax, vec![0.25, 0.0, 0.75]));
        let scores = [(0, 1, 0, 0.25), (0, 1, 2, 1.75), (0, 2, 1, 1.0)];
        assert_eq!(link(&[4, 5, 6], &scores, "NONE"), (Link::Identity, vec![0.25, 0.0, 1.75]));
        let negative = [(0, 1, 0, -0.25), (0, 1, 2, 1.25), (0, 2, 1, 1.0)];
        assert_eq!(link(&[4, 5, 6], &negative, "NONE"), (Link::Identity, vec![-0.25, 0.0, 1.25]));
        let two = [(0, 1, 0, 0.25), (0, 1, 1, 0.75), (0, 2, 0, 1.0)];
        assert_eq!(link(&[4, 5], &two, "NONE"), (Link::Probability, vec![0.75]));
        assert_eq!(link(&[4, 5], &two, "SOFTMAX"), (Link::Softmax, vec![0.25, 0.75]));
        let opposite = [(0, 1, 0, -2.0), (0, 1, 1, 2.0), (0, 2, 0, 1.0), (0, 2, 1, -1.0)];
        assert_eq!(link(&[4, 5], &opposite, "NONE"), (Link::Identity, vec![2.0]));
        assert_eq!(link(&[4, 5], &opposite, "SOFTMAX"), (Link::Softmax, vec![-2.0, 2.0]), "not the sigmoid of one");
        let apart = of_labels(&[4, 5], &[(0, 1, 0, 0.5), (0, 2, 1, -1.0)], "NONE").refusal(&["label", "y"]);
        assert_eq!(apart.1, "the scores of its two labels are not of opposite sign");
        assert_eq!(of_labels(&[4], &[], "NONE").refusal(&["label", "y"]).1, "it has 1 class labels");
        let normalized = of_labels(&[4, 5], &two, "NONE").node("Normalizer(y) -> z").with_text("norm", "L1");
        assert_eq!(normalized.read(&["label", "z"]).unwrap().link, Link::Probability);
    }

    #[test]
    fn other_sums_and_functions_are_refused() {
        for how in ["MIN", "MAX"] {
            let found = reason(Sample::new(1).stump("(X) -> y", "BRANCH_LT", 0.0).with_text("aggregate_function", how));
            assert_eq!(found, format!("it takes the {how} of its trees, not their sum or average"));
        }
        let stump = || Sample::new(1).stump("(X) -> y", "BRANCH_LT", 0.0);
        assert_eq!(reason(stump().with_text("post_transform", "SOFTMAX_ZERO")), "its scores go through SOFTMAX_ZERO");
        assert_eq!(reason(stump().with_text("post_transform", "\u{1b}[2J")), "its scores go through \\u{1b}[2J");
        assert_eq!(reason(stump().with_integer("n_targets", 0)), "it has no targets");
        assert_eq!(reason(stump().with_integer("n_targets", -1)), "it has no targets");
        assert_eq!(reason(stump().with_floats("base_values", &[1.0, 2.0])), "it has 2 base values");
        assert_eq!(reason(stump().with_integer("nodes_more", 0)), "unexpected or repeated attribute \"nodes_more\"");
        let equal = |mode| reason(Sample::new(1).stump("(X) -> y", mode, 0.0));
        assert_eq!(equal("BRANCH_EQ"), "some of its nodes are BRANCH_EQ, as those that sort categories are");
        assert_eq!(equal("\u{7}"), "some of its nodes are \\u{7}, as those that sort categories are");
        let activated = Sample::new(1).floats("w", &[1, 1], &[1.0]).stump("(X) -> s", "BRANCH_LT", 0.0);
        let error = activated.node("Relu(s) -> r").node("MatMul(r, w) -> y").read(&["y"]).unwrap_err();
        assert!(error.to_string().contains("trees decide by what other trees or networks give"), "{error}");
    }
}
