//! The graph itself, run on one row in float64: what the self-check holds the folded integers to.
//!
//! It reads the nodes as ONNX defines them, and shares no code with the chain that was folded, nor with the trees. Only
//! what leads to scores is run.

mod forest;

use std::collections::HashMap;
use std::rc::Rc;

use rten_onnx::onnx::{AttributeProto, NodeProto};

use super::model::Model;
use super::onnx::{Input, op};
use super::tensor::Tensor;
use forest::Forest;

/// A graph, made ready for many rows.
pub(super) struct Interpreter<'a> {
    model: &'a Model,
    /// By the place of their node.
    forests: HashMap<usize, Forest<'a>>,
}

/// A value of one row, or a constant as it lies.
#[derive(Clone)]
enum Clear<'a> {
    Row {
        values: Rc<Vec<f64>>,
        /// Whether the graph has them as float64. Only trees look at it: they compare what has been rounded.
        is_double: bool,
    },
    Constant(&'a Tensor),
}

/// The logits of a row that has had the client's steps.
#[cfg(test)]
pub(super) fn logits(model: &Model, row: &[f64]) -> Vec<f64> {
    Interpreter::new(model).logits(row)
}

impl<'a> Interpreter<'a> {
    pub(super) fn new(model: &'a Model) -> Self {
        let forest = |(place, node)| Forest::of(node).map(|forest| (place, forest));
        Self { model, forests: model.graph.nodes.iter().enumerate().filter_map(forest).collect() }
    }

    /// The logits of a row that has had the client's steps.
    pub(super) fn logits(&self, row: &[f64]) -> Vec<f64> {
        let model = self.model;
        let mut values = HashMap::new();
        for (name, constant) in &model.graph.constants {
            values.insert(&name[..], Clear::Constant(constant));
        }
        match model.preparation.normalized() {
            Some(name) => {
                values.insert(name, Clear::Row { values: Rc::new(row.to_vec()), is_double: self.norm_is_double(name) });
            }
            None => {
                let mut rest = row;
                for Input { name, columns, is_double } in &model.graph.inputs {
                    let (own, others) = rest.split_at(*columns);
                    values.insert(name, Clear::Row { values: Rc::new(own.to_vec()), is_double: *is_double });
                    rest = others;
                }
            }
        }
        for (place, node) in model.graph.nodes.iter().enumerate() {
            let Some((row, is_double)) = run(node, &values, self.forests.get(&place)) else { continue };
            // A classifier gives the label first.
            if let Some(name) = node.output.last() {
                values.entry(name).or_insert(Clear::Row { values: Rc::new(row), is_double });
            }
        }
        let place = |(name, index): &(String, usize)| match values.get(&name[..]) {
            Some(Clear::Row { values, .. }) => values.get(*index).copied().unwrap_or(f64::NAN),
            _ => f64::NAN,
        };
        model.places.iter().map(place).collect()
    }

    /// The operator of machine learning gives float32.
    fn norm_is_double(&self, name: &str) -> bool {
        let graph = &self.model.graph;
        let gives = |node: &&NodeProto| node.output.iter().any(|output| output == name);
        graph.nodes.iter().find(gives).is_some_and(|node| op(node) != "Normalizer")
            && graph.inputs.iter().any(|input| input.is_double)
    }
}

/// What a node makes of its inputs, if all of them are there and it is one of those that lead to scores; and whether
/// that is float64.
fn run(node: &NodeProto, values: &HashMap<&str, Clear<'_>>, forest: Option<&Forest<'_>>) -> Option<(Vec<f64>, bool)> {
    let double = |name: &String| match values.get(&name[..]) {
        Some(Clear::Row { is_double, .. }) => *is_double,
        Some(Clear::Constant(constant)) => constant.is_double(),
        None => false,
    };
    let reads_double = node.input.iter().any(double);
    let is_double = match op(node) {
        "Cast" => attribute(node, "to").and_then(|to| to.i) == Some(DOUBLE),
        "CastLike" => node.input.last().is_some_and(double),
        "Scaler" | "FeatureVectorizer" | "LinearClassifier" | "LinearRegressor" => false,
        _ => reads_double,
    };
    if let Some(forest) = forest {
        let Some(Clear::Row { values, .. }) = values.get(&node.input.first()?[..]) else { return None };
        return Some((forest.scores(values, reads_double), is_double));
    }
    Some((row(node, values)?, is_double))
}

/// The number of the type in ONNX.
const DOUBLE: i64 = 11;

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))
}

fn row(node: &NodeProto, values: &HashMap<&str, Clear<'_>>) -> Option<Vec<f64>> {
    let inputs: Vec<_> =
        node.input.iter().filter(|name| !name.is_empty()).map(|name| values.get(&name[..])).collect::<Option<_>>()?;
    let row = |index: usize| match inputs.get(index)? {
        Clear::Row { values, .. } => Some(&values[..]),
        Clear::Constant(constant) => constant.row().map(|row| &row.values[..]),
    };
    let constant = |index: usize| match inputs.get(index)? {
        Clear::Constant(constant) => Some(*constant),
        Clear::Row { .. } => None,
    };
    let attribute = |name: &str| attribute(node, name);
    Some(match op(node) {
        "Identity" | "Cast" | "CastLike" | "Reshape" | "Flatten" | "Imputer" => row(0)?.to_vec(),
        "Relu" => row(0)?.iter().map(|x| x.max(0.0)).collect(),
        "Sigmoid" => row(0)?.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
        "Tanh" => row(0)?.iter().map(|x| x.tanh()).collect(),
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
        _ => return None,
    })
}

fn floats(attribute: &AttributeProto) -> impl Iterator<Item = f64> {
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
    use rten_onnx::onnx::DataType;

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

    /// Node by node, as a person would; float32 graphs compare rounded numbers.
    #[test]
    fn trees_are_decided_as_they_stand() {
        let sample = |kind| {
            Sample::default()
                .input("X", kind, 1)
                .scaler("(X) -> z", &[1.0], &[2.0])
                .node("Cast(X) -> x")
                .with_integer("to", 11)
                .stump("(z) -> scaled", "BRANCH_LEQ", 4.0)
                .stump("(x) -> plain", "BRANCH_GTE", 3.5)
        };
        let at = |of: &str, x: f64| {
            let model = sample(DataType::DOUBLE).node(&format!("Identity({of}) -> y")).read(&["y"]).unwrap();
            logits(&model, &[x])[0]
        };
        assert_eq!([at("scaled", 3.0), at("scaled", 3.0 + 1e-9), at("scaled", 3.1)], [-1.0, -1.0, 1.0]);
        assert_eq!([at("plain", 3.5), at("plain", 3.5 - 1e-9), at("plain", 3.6)], [-1.0, 1.0, -1.0]);
    }

    #[test]
    fn hidden_layers_are_run() {
        let sample = Sample::new(1).floats("w", &[1, 3], &[1.0, -2.0, 0.0]).floats("v", &[3, 1], &[1.0, 10.0, 100.0]);
        let layer = |name: &str| {
            let sample = sample.clone().node("MatMul(X, w) -> p").node(&format!("{name}(p) -> a"));
            logits(&sample.node("MatMul(a, v) -> y").read(&["y"]).unwrap(), &[-3.0])[0]
        };
        assert_eq!(layer("Relu"), 60.0);
        assert_eq!(layer("Tanh"), -3.0_f64.tanh() + 10.0 * 6.0_f64.tanh());
        let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
        assert_eq!(layer("Sigmoid"), logistic(-3.0) + 10.0 * logistic(6.0) + 50.0);
    }

    /// Rows of a model with a norm begin after it.
    #[test]
    fn rows_have_had_their_steps() {
        let sample =
            Sample::new(2).node("Normalizer(X) -> n").with_text("norm", "L2").scaler("(n) -> y", &[0.5; 2], &[4.0; 2]);
        assert_eq!(logits(&sample.read(&["y"]).unwrap(), &[0.75, 1.0]), [1.0, 2.0]);
    }
}
