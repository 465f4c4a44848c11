//! Trees, decided node by node as ONNX defines them.

use std::collections::HashMap;

use rten_onnx::onnx::{AttributeProto, NodeProto};

use crate::import::onnx::op;
use crate::import::tensor::{Data, Tensor};

/// The trees of one node of a graph.
pub(super) struct Forest<'a> {
    roots: Vec<usize>,
    nodes: Vec<Node<'a>>,
    base: Vec<f64>,
    averages: bool,
    /// A classifier of two labels with one score, and whether it is a probability.
    second: Option<bool>,
}

enum Node<'a> {
    Branch {
        mode: &'a str,
        feature: usize,
        threshold: f64,
        yes: usize,
        no: usize,
    },
    /// Scores and what they get.
    Leaf(Vec<(usize, f64)>),
}

impl<'a> Forest<'a> {
    /// `None` of another operator. What is read here has been found to be in order.
    pub(super) fn of(node: &'a NodeProto) -> Option<Self> {
        match op(node) {
            "TreeEnsemble" => Self::placed(node),
            "TreeEnsembleClassifier" | "TreeEnsembleRegressor" => Self::numbered(node),
            _ => None,
        }
    }

    fn numbered(node: &'a NodeProto) -> Option<Self> {
        let (trees, numbers) = (ints(node, "nodes_treeids"), ints(node, "nodes_nodeids"));
        let place: HashMap<_, _> = trees.iter().zip(numbers).enumerate().map(|(place, id)| (id, place)).collect();
        let modes = &attribute(node, "nodes_modes")?.strings;
        let (yes, no) = (ints(node, "nodes_truenodeids"), ints(node, "nodes_falsenodeids"));
        let (features, thresholds) = (ints(node, "nodes_featureids"), reals(node, "nodes_values"));
        let read = |at: usize| match &modes[at][..] {
            "LEAF" => Some(Node::Leaf(vec![])),
            mode => Some(Node::Branch {
                mode,
                feature: features[at] as usize,
                threshold: thresholds[at],
                yes: *place.get(&(&trees[at], &yes[at]))?,
                no: *place.get(&(&trees[at], &no[at]))?,
            }),
        };
        let mut nodes = (0..trees.len()).map(read).collect::<Option<Vec<_>>>()?;
        let is_classifier = op(node) == "TreeEnsembleClassifier";
        let of = |what: &str| format!("{}_{what}", if is_classifier { "class" } else { "target" });
        let (in_trees, at_nodes) = (ints(node, &of("treeids")), ints(node, &of("nodeids")));
        let (scores, weights) = (ints(node, &of("ids")), reals(node, &of("weights")));
        for (index, &weight) in weights.iter().enumerate() {
            if let Node::Leaf(leaf) = &mut nodes[*place.get(&(&in_trees[index], &at_nodes[index]))?] {
                leaf.push((scores[index] as usize, weight));
            }
        }
        let labels = |name| attribute(node, name).map_or(0, |labels| labels.ints.len() + labels.strings.len());
        let width = match is_classifier {
            true => labels("classlabels_int64s") + labels("classlabels_strings"),
            false => attribute(node, "n_targets").and_then(|targets| targets.i).unwrap_or(1) as usize,
        };
        let is_single = is_classifier && width == 2 && scores.iter().all(|score| *score == scores[0]);
        let is_plain = text(node, "post_transform").is_none_or(|transform| transform == "NONE");
        let second = is_single.then(|| is_plain && weights.iter().all(|&weight| weight >= 0.0));
        let mut base = reals(node, "base_values");
        base.resize(width, 0.0);
        Some(Self {
            roots: (0..trees.len()).filter(|&at| at == 0 || trees[at] != trees[at - 1]).collect(),
            nodes,
            base,
            averages: text(node, "aggregate_function") == Some("AVERAGE"),
            second,
        })
    }

    fn placed(node: &'a NodeProto) -> Option<Self> {
        let modes = Tensor::read(attribute(node, "nodes_modes")?.t.as_ref()?, None).ok()?;
        let (modes, weights) = (modes.integers()?.to_vec(), reals(node, "leaf_weights"));
        let (features, thresholds) = (ints(node, "nodes_featureids"), reals(node, "nodes_splits"));
        let child = |side: &str, at: usize| {
            let place = ints(node, &format!("nodes_{side}nodeids"))[at] as usize;
            let is_leaf = ints(node, &format!("nodes_{side}leafs"))[at] != 0;
            if is_leaf { modes.len() + place } else { place }
        };
        let branch = |at: usize| Node::Branch {
            mode: ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT"][modes[at] as usize],
            feature: features[at] as usize,
            threshold: thresholds[at],
            yes: child("true", at),
            no: child("false", at),
        };
        let leaves = ints(node, "leaf_targetids").iter().zip(&weights);
        let leaves = leaves.map(|(&target, &weight)| Node::Leaf(vec![(target as usize, weight)]));
        let integer = |name, default| attribute(node, name).and_then(|attribute| attribute.i).unwrap_or(default);
        Some(Self {
            roots: ints(node, "tree_roots").iter().map(|&root| root as usize).collect(),
            nodes: (0..modes.len()).map(branch).chain(leaves).collect(),
            base: vec![0.0; integer("n_targets", 1) as usize],
            averages: integer("aggregate_function", 1) == 0,
            second: None,
        })
    }

    /// The scores of a row, before anything is made of them. `double` says whether they are compared as float64.
    pub(super) fn scores(&self, row: &[f64], double: bool) -> Vec<f64> {
        let mut sums = vec![0.0; self.base.len()];
        for &root in &self.roots {
            for &(score, weight) in self.leaf(root, row, double) {
                // A single score has the number of either label.
                sums[if self.second.is_some() { 0 } else { score }] += weight;
            }
        }
        let count = if self.averages { self.roots.len() as f64 } else { 1.0 };
        let scores: Vec<f64> = sums.iter().zip(&self.base).map(|(sum, base)| sum / count + base).collect();
        match self.second {
            Some(true) => vec![1.0 - scores[0], scores[0]],
            Some(false) => vec![-scores[0], scores[0]],
            None => scores,
        }
    }

    fn leaf(&self, root: usize, row: &[f64], double: bool) -> &[(usize, f64)] {
        let mut at = root;
        loop {
            match &self.nodes[at] {
                Node::Leaf(weights) => return weights,
                &Node::Branch { mode, feature, threshold, yes, no } => {
                    let x = if double { row[feature] } else { f64::from(row[feature] as f32) };
                    let is_so = match mode {
                        "BRANCH_LEQ" => x <= threshold,
                        "BRANCH_LT" => x < threshold,
                        "BRANCH_GTE" => x >= threshold,
                        _ => x > threshold,
                    };
                    at = if is_so { yes } else { no };
                }
            }
        }
    }
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))
}

fn ints<'a>(node: &'a NodeProto, name: &str) -> &'a [i64] {
    attribute(node, name).map_or(&[][..], |attribute| &attribute.ints)
}

fn text<'a>(node: &'a NodeProto, name: &str) -> Option<&'a str> {
    attribute(node, name)?.s.as_deref()
}

/// Numbers, whether they are a list or a tensor.
fn reals(node: &NodeProto, name: &str) -> Vec<f64> {
    let tensor = attribute(node, &format!("{name}_as_tensor")).or_else(|| attribute(node, name));
    match tensor.and_then(|attribute| attribute.t.as_ref()).and_then(|tensor| Tensor::read(tensor, None).ok()) {
        Some(Tensor { data: Data::Numbers(numbers), .. }) => numbers.values.clone(),
        _ => attribute(node, name).into_iter().flat_map(|list| &list.floats).copied().map(f64::from).collect(),
    }
}
