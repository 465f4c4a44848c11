//! Tree ensembles run as ONNX defines them, array by array: what the self-check holds the imported trees to.

use std::collections::HashMap;

use rten_onnx::onnx::{AttributeProto, DataType, NodeProto, TensorProto};

use super::clear::floats;

/// Versions 1 and 3: the sums of all outputs, before any transform. Two labels that share a number have one.
pub(super) fn listed(node: &NodeProto, row: &[f64]) -> Option<Vec<f64>> {
    let ints = |name: &str| attribute(node, name).map(|attribute| &attribute.ints[..]);
    let strings = |name: &str| attribute(node, name).map_or(0, |attribute| attribute.strings.len());
    let (trees, ids) = (ints("nodes_treeids")?, ints("nodes_nodeids")?);
    let places: HashMap<_, _> =
        trees.iter().zip(ids).enumerate().map(|(place, (&tree, &id))| ((tree, id), place)).collect();
    let (thresholds, is_single) = numbers(node, "nodes_values")?;
    let modes = &attribute(node, "nodes_modes")?.strings;
    let (yes, no, columns) = (ints("nodes_truenodeids")?, ints("nodes_falsenodeids")?, ints("nodes_featureids")?);

    let of_class = attribute(node, "class_ids").is_some();
    let prefix = if of_class { "class" } else { "target" };
    let named = |name: &str| format!("{prefix}_{name}");
    let outputs = ints(&named("ids"))?;
    let labels = strings("classlabels_strings") + ints("classlabels_int64s").map_or(0, <[i64]>::len);
    let shares = of_class && labels == 2 && outputs.iter().all(|id| id == &outputs[0]);
    let width = match (of_class, shares) {
        (true, true) => 1,
        (true, false) => labels,
        (false, _) => attribute(node, "n_targets").and_then(|targets| targets.i).unwrap_or(1) as usize,
    };
    let (weights, _) = numbers(node, &named("weights"))?;
    let mut leaves: HashMap<usize, Vec<(usize, f64)>> = HashMap::new();
    let keys = ints(&named("treeids"))?.iter().zip(ints(&named("nodeids"))?);
    for (((&tree, &id), &output), weight) in keys.zip(outputs).zip(weights) {
        let output = if shares { 0 } else { output as usize };
        leaves.entry(*places.get(&(tree, id))?).or_default().push((output, weight));
    }

    let mut sums = vec![0.0; width];
    let mut roots = 0;
    let mut seen = None;
    for (place, &tree) in trees.iter().enumerate() {
        if seen.replace(tree) == Some(tree) {
            continue;
        }
        roots += 1;
        let mut at = place;
        while modes[at] != "LEAF" {
            let holds = holds(&modes[at], row[columns[at] as usize], thresholds[at], is_single)?;
            at = *places.get(&(tree, if holds { yes[at] } else { no[at] }))?;
        }
        for &(output, weight) in leaves.get(&at).into_iter().flatten() {
            *sums.get_mut(output)? += weight;
        }
    }
    let is_average = attribute(node, "aggregate_function").is_some_and(|it| it.s.as_deref() == Some("AVERAGE"));
    finish(&mut sums, is_average.then_some(roots), numbers(node, "base_values").map(|(base, _)| base));
    Some(sums)
}

/// Version 5.
pub(super) fn linked(node: &NodeProto, row: &[f64]) -> Option<Vec<f64>> {
    let ints = |name: &str| attribute(node, name).map(|attribute| &attribute.ints[..]);
    let tensor = |name: &str| attribute(node, name).and_then(|attribute| attribute.t.as_ref());
    let (splits, is_single) = elements(tensor("nodes_splits")?)?;
    let (weights, _) = elements(tensor("leaf_weights")?)?;
    let modes = tensor("nodes_modes")?;
    let modes: Vec<i64> = match &modes.raw_data {
        Some(raw) => raw.borrow().iter().map(|&mode| mode.into()).collect(),
        None => modes.int32_data.iter().map(|&mode| mode.into()).collect(),
    };
    let (yes, no) = (ints("nodes_truenodeids")?, ints("nodes_falsenodeids")?);
    let (yes_leaf, no_leaf) = (ints("nodes_trueleafs")?, ints("nodes_falseleafs")?);
    let (columns, targets) = (ints("nodes_featureids")?, ints("leaf_targetids")?);
    let width = attribute(node, "n_targets").and_then(|targets| targets.i).unwrap_or(1) as usize;
    let (mut sums, roots) = (vec![0.0; width], ints("tree_roots")?);
    for &root in roots {
        let mut at = root as usize;
        let leaf = loop {
            let name = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT"].get(modes[at] as usize)?;
            let (next, is_leaf) = match holds(name, row[columns[at] as usize], splits[at], is_single)? {
                true => (yes[at], yes_leaf[at]),
                false => (no[at], no_leaf[at]),
            };
            at = next as usize;
            if is_leaf != 0 {
                break at;
            }
        };
        *sums.get_mut(targets[leaf] as usize)? += weights[leaf];
    }
    let is_average = attribute(node, "aggregate_function").and_then(|it| it.i) == Some(0);
    finish(&mut sums, is_average.then_some(roots.len()), None);
    Some(sums)
}

fn holds(mode: &str, x: f64, threshold: f64, is_single: bool) -> Option<bool> {
    let x = if is_single { f64::from(x as f32) } else { x };
    match mode {
        "BRANCH_LEQ" => Some(x <= threshold),
        "BRANCH_LT" => Some(x < threshold),
        "BRANCH_GTE" => Some(x >= threshold),
        "BRANCH_GT" => Some(x > threshold),
        _ => None,
    }
}

fn finish(sums: &mut [f64], average_of: Option<usize>, base: Option<Vec<f64>>) {
    if let Some(trees) = average_of {
        sums.iter_mut().for_each(|sum| *sum /= trees as f64);
    }
    let width = sums.len();
    let base = base.unwrap_or_default();
    for (index, sum) in sums.iter_mut().enumerate() {
        *sum += match base.len() {
            0 => 0.0,
            1 => base[0],
            // Of two base values, one score has the second's.
            len => base[len - width + index],
        };
    }
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))
}

fn numbers(node: &NodeProto, name: &str) -> Option<(Vec<f64>, bool)> {
    match attribute(node, name).filter(|attribute| !attribute.floats.is_empty()) {
        Some(attribute) => Some((floats(attribute).collect(), true)),
        None => elements(attribute(node, &format!("{name}_as_tensor"))?.t.as_ref()?),
    }
}

fn elements(tensor: &TensorProto) -> Option<(Vec<f64>, bool)> {
    let raw = tensor.raw_data.as_ref().map(|raw| raw.borrow());
    Some(match (tensor.data_type?, raw) {
        (DataType::FLOAT, Some(raw)) => {
            (raw.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes).into()).collect(), true)
        }
        (DataType::FLOAT, None) => (tensor.float_data.iter().copied().map(f64::from).collect(), true),
        (_, Some(raw)) => (raw.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect(), false),
        (_, None) => (tensor.double_data.clone(), false),
    })
}
