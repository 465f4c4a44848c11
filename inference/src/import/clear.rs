//! The graph itself, run on one row in float64: what the self-check holds the folded integers to.
//!
//! It reads the nodes as ONNX defines them, and shares no code with the chain that was folded. Only what leads to
//! scores is run.

use std::collections::HashMap;
use std::rc::Rc;

use rten_onnx::onnx::{AttributeProto, NodeProto};

use super::model::Model;
use super::onnx::op;
use super::tensor::Tensor;
use super::trees;

/// A value of one row, or a constant as it lies.
#[derive(Clone)]
enum Clear<'a> {
    Row(Rc<Vec<f64>>),
    Constant(&'a Tensor),
}

/// The logits of a row that has had the client's steps.
pub(super) fn logits(model: &Model, row: &[f64]) -> Vec<f64> {
    let mut values = HashMap::new();
    for (name, constant) in &model.graph.constants {
        values.insert(&name[..], Clear::Constant(constant));
    }
    match model.preparation.normalized() {
        Some(name) => {
            values.insert(name, Clear::Row(Rc::new(row.to_vec())));
        }
        None => {
            let mut rest = row;
            for input in &model.graph.inputs {
                let (own, others) = rest.split_at(input.columns);
                values.insert(&input.name, Clear::Row(Rc::new(own.to_vec())));
                rest = others;
            }
        }
    }
    for node in &model.graph.nodes {
        let Some(row) = run(node, &values) else { continue };
        // A classifier gives the label first.
        if let Some(name) = node.output.last() {
            values.entry(name).or_insert(Clear::Row(Rc::new(row)));
        }
    }
    let place = |(name, index): &(String, usize)| match values.get(&name[..]) {
        Some(Clear::Row(row)) => row.get(*index).copied().unwrap_or(f64::NAN),
        _ => f64::NAN,
    };
    model.places.iter().map(place).collect()
}

/// What a node makes of its inputs, if all of them are there and it is one of those that lead to scores.
fn run(node: &NodeProto, values: &HashMap<&str, Clear<'_>>) -> Option<Vec<f64>> {
    let inputs: Vec<_> =
        node.input.iter().filter(|name| !name.is_empty()).map(|name| values.get(&name[..])).collect::<Option<_>>()?;
    let row = |index: usize| match inputs.get(index)? {
        Clear::Row(row) => Some(&row[..]),
        Clear::Constant(constant) => constant.row().map(|row| &row.values[..]),
    };
    let constant = |index: usize| match inputs.get(index)? {
        Clear::Constant(constant) => Some(*constant),
        Clear::Row(_) => None,
    };
    let attribute = |name: &str| node.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name));
    Some(match op(node) {
        "Identity" | "Cast" | "CastLike" | "Reshape" | "Flatten" | "Imputer" => row(0)?.to_vec(),
        "Neg" => row(0)?.iter().map(|x| -x).collect(),
        "Sqrt" => constant(0)?.numbers()?.values.iter().map(|x| x.sqrt()).collect(),
        "Add" => broadcast(row(0)?, row(1)?, |x, y| x + y),
        "Sub" => broadcast(row(0)?, row(1)?, |x, y| x - y),
        "Mul" => broadcast(row(0)?, row(1)?, |x, y| x * y),
        "Div" => broadcast(row(0)?, row(1)?, |x, y| x / y),
        "Sum" => (1..inputs.len())
            .try_fold(row(0)?.to_vec(), |sum, index| Some(broadcast(&sum, row(index)?, |x, y| x + y)))?,
        "Concat" | "FeatureVectorizer" => (0..inputs.len()).map(row).collect::<Option<Vec<_>>>()?.concat(),
        "ArrayFeatureExtractor" | "Gather" => {
            let x = row(0)?;
            constant(1)?.integers()?.iter().map(|&index| x.get(index as usize).copied()).collect::<Option<_>>()?
        }
        "Slice" => {
            let bound = |index: usize, name| match constant(index) {
                Some(constant) => constant.integers()?.first().copied(),
                None => attribute(name)?.ints.first().copied(),
            };
            let (start, end) = (bound(1, "starts")? as usize, bound(2, "ends")? as usize);
            let x = row(0)?;
            x.get(start..end.min(x.len()))?.to_vec()
        }
        "Scaler" => {
            let (offset, scale) = (floats(attribute("offset")?), floats(attribute("scale")?));
            row(0)?.iter().zip(offset.zip(scale)).map(|(x, (offset, scale))| (x - offset) * scale).collect()
        }
        "MatMul" => multiply(row(0)?, constant(1)?, false),
        "Gemm" => {
            let transposed = attribute("transB").and_then(|flag| flag.i).unwrap_or(0) == 1;
            let product = multiply(row(0)?, constant(1)?, transposed);
            match inputs.len() {
                2 => product,
                _ => broadcast(&product, row(2)?, |x, y| x + y),
            }
        }
        "LinearClassifier" | "LinearRegressor" => {
            let x = row(0)?;
            let coefficients: Vec<f64> = floats(attribute("coefficients")?).collect();
            let dot = |row: &[f64]| row.iter().zip(x).map(|(w, x)| w * x).sum();
            let products: Vec<f64> = coefficients.chunks(x.len()).map(dot).collect();
            match attribute("intercepts") {
                Some(intercepts) => floats(intercepts).zip(products).map(|(b, product)| b + product).collect(),
                None => products,
            }
        }
        "Relu" => row(0)?.iter().map(|x| x.max(0.0)).collect(),
        "Tanh" => row(0)?.iter().map(|x| x.tanh()).collect(),
        "Sigmoid" => row(0)?.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
        "TreeEnsembleClassifier" | "TreeEnsembleRegressor" => trees::listed(node, row(0)?)?,
        "TreeEnsemble" => trees::linked(node, row(0)?)?,
        _ => return None,
    })
}

pub(super) fn floats(attribute: &AttributeProto) -> impl Iterator<Item = f64> {
    attribute.floats.iter().copied().map(f64::from)
}

/// Element by element, where either side may be a single number.
fn broadcast(left: &[f64], right: &[f64], of: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let at = |values: &[f64], index: usize| values[if values.len() == 1 { 0 } else { index }];
    let width = if left.len() == 1 { right.len() } else { left.len() };
    (0..width).map(|index| of(at(left, index), at(right, index))).collect()
}

/// x·M, or x·Mᵀ; a vector is a matrix of one column.
fn multiply(x: &[f64], matrix: &Tensor, transposed: bool) -> Vec<f64> {
    let values = matrix.numbers().map_or(&[][..], |numbers| &numbers.values);
    let width = values.len() / x.len();
    let dot = |to: usize| {
        let element = |from: usize| if transposed { values[to * x.len() + from] } else { values[from * width + to] };
        x.iter().enumerate().map(|(from, x)| x * element(from)).sum()
    };
    (0..width).map(dot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::sample::Sample;

    /// The nodes one after the other, with numbers that a person can follow.
    #[test]
    fn the_graph_is_run_as_it_stands() {
        let sample = Sample::new(2)
            .floats("m", &[2, 2], &[1.0, 2.0, 3.0, 4.0])
            .scaler("(X) -> z", &[1.0, 2.0], &[10.0, 100.0])
            .node("MatMul(z, m) -> p")
            .node("Concat(z, p) -> union")
            .with_integer("axis", 1)
            .classifier(
                "(union) -> label, y",
                &[1.0, 0.0, 0.0, 0.5, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0],
                &[7.0, 8.0, 9.0],
                "SOFTMAX",
            );
        let model = sample.read(&["label", "y"]).unwrap();
        // z = (20, 300), p = (920, 1240).
        assert_eq!(logits(&model, &[3.0, 5.0]), [20.0 + 620.0 + 7.0, 300.0 + 8.0, 920.0 + 9.0]);
    }

    /// Rows of a model with a norm begin after it.
    #[test]
    fn rows_have_had_their_steps() {
        let sample =
            Sample::new(2).node("Normalizer(X) -> n").with_text("norm", "L2").scaler("(n) -> y", &[0.5; 2], &[4.0; 2]);
        assert_eq!(logits(&sample.read(&["y"]).unwrap(), &[0.75, 1.0]), [1.0, 2.0]);
    }
}
