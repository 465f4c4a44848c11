//! Graphs for the tests: the real Iris model with something changed, and small ones made by hand.

use rten_onnx::onnx::{
    AttributeProto, DataType, Dimension, GraphProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, TypeProto,
    TypeProtoTensor, ValueInfoProto,
};

use super::model::Model;
use super::onnx::op;
use super::{FeatureRange, ImportError};

/// The Iris model as skl2onnx wrote it: Scaler, LinearClassifier, Identity, Normalizer, ZipMap.
pub(super) fn iris() -> Vec<u8> {
    std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/iris/iris.onnx")).unwrap()
}

pub(super) fn range(name: &str, low: f64, high: f64) -> FeatureRange {
    FeatureRange { name: name.into(), low, high, step: None }
}

/// Of the Iris model's columns.
pub(super) fn ranges() -> Vec<FeatureRange> {
    vec![range("a", 4.0, 8.0), range("b", 2.0, 4.5), range("c", 1.0, 7.0), range("d", 0.0, 2.5)]
}

/// The Iris model with one thing changed.
pub(super) fn changed(change: impl FnOnce(&mut GraphProto)) -> Vec<u8> {
    let mut model = ModelProto::parse_buf(&iris()).unwrap();
    change(model.graph.as_mut().unwrap());
    model.write_buf().unwrap()
}

pub(super) fn node<'a>(graph: &'a mut GraphProto, op: &str) -> &'a mut NodeProto {
    graph.node.iter_mut().find(|node| super::onnx::op(node) == op).unwrap()
}

pub(super) fn attribute<'a>(graph: &'a mut GraphProto, op: &str, name: &str) -> &'a mut AttributeProto {
    let attributes = &mut node(graph, op).attribute;
    attributes.iter_mut().find(|attribute| attribute.name.as_deref() == Some(name)).unwrap()
}

/// Takes a node out and joins its input to whoever read its output.
pub(super) fn bypass(graph: &mut GraphProto, wanted: &str) {
    let NodeProto { input, output, .. } = node(graph, wanted).clone();
    graph.node.retain(|node| op(node) != wanted);
    let readers = graph.node.iter_mut().flat_map(|node| &mut node.input);
    for name in readers.chain(graph.output.iter_mut().filter_map(|output| output.name.as_mut())) {
        if *name == output[0] {
            name.clone_from(&input[0]);
        }
    }
}

/// A node of a tree: its tree and number, mode, feature, threshold, and where yes and no lead.
pub(super) type TreeNode<'a> = ((i64, i64), &'a str, i64, f32, (i64, i64));

/// A tree of one decision, with the leaves 1 and 2.
pub(super) fn stump(tree: i64, mode: &str, feature: i64, threshold: f32) -> [TreeNode<'_>; 3] {
    let leaf = |number| ((tree, number), "LEAF", 0, 0.0, (0, 0));
    [((tree, 0), mode, feature, threshold, (1, 2)), leaf(1), leaf(2)]
}

/// Numbers between −1 and 1, the same in every run.
pub(super) fn numbers() -> impl FnMut() -> f64 {
    let mut state = 1_u64;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}

/// A graph made by hand, line by line.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample(GraphProto);

impl Sample {
    /// A graph with the float32 input X.
    pub(super) fn new(columns: i64) -> Self {
        Self::default().input("X", DataType::FLOAT, columns)
    }

    pub(super) fn input(mut self, name: &str, kind: DataType, columns: i64) -> Self {
        let dim = vec![Dimension::default(), Dimension { dim_value: Some(columns), ..Dimension::default() }];
        let tensor = TypeProtoTensor { elem_type: Some(kind), shape: Some(TensorShapeProto { dim }) };
        let kind = TypeProto { tensor_type: Some(tensor), ..Default::default() };
        self.0.input.push(ValueInfoProto { name: Some(name.into()), r#type: Some(kind) });
        self
    }

    fn constant(mut self, tensor: TensorProto, name: &str, dims: &[i64]) -> Self {
        self.0.initializer.push(TensorProto { name: Some(name.into()), dims: dims.to_vec(), ..tensor });
        self
    }

    pub(super) fn floats(self, name: &str, dims: &[i64], values: &[f32]) -> Self {
        let data_type = Some(DataType::FLOAT);
        self.constant(TensorProto { data_type, float_data: values.to_vec(), ..Default::default() }, name, dims)
    }

    pub(super) fn doubles(self, name: &str, dims: &[i64], values: &[f64]) -> Self {
        let data_type = Some(DataType::DOUBLE);
        self.constant(TensorProto { data_type, double_data: values.to_vec(), ..Default::default() }, name, dims)
    }

    /// A list of integers.
    pub(super) fn integers(self, name: &str, values: &[i64]) -> Self {
        let tensor =
            TensorProto { data_type: Some(DataType::INT64), int64_data: values.to_vec(), ..Default::default() };
        self.constant(tensor, name, &[values.len() as i64])
    }

    /// A node in writing, such as `"Add(X, b) -> y"`, of either domain.
    pub(super) fn node(mut self, text: &str) -> Self {
        let names = |text: &str| text.split(',').map(|name| name.trim().to_owned()).collect();
        let (call, output) = text.split_once("->").unwrap();
        let (op, input) = call.trim().trim_end_matches(')').split_once('(').unwrap();
        self.0.node.push(NodeProto {
            op_type: Some(op.into()),
            domain: Some(domain(op).into()),
            input: names(input),
            output: names(output),
            ..Default::default()
        });
        self
    }

    /// An attribute of the last node.
    pub(super) fn with(mut self, name: &str, attribute: AttributeProto) -> Self {
        let attributes = &mut self.0.node.last_mut().unwrap().attribute;
        attributes.push(AttributeProto { name: Some(name.into()), ..attribute });
        self
    }

    /// The last node without an attribute.
    pub(super) fn without(mut self, name: &str) -> Self {
        self.0.node.last_mut().unwrap().attribute.retain(|attribute| attribute.name.as_deref() != Some(name));
        self
    }

    pub(super) fn with_floats(self, name: &str, floats: &[f32]) -> Self {
        self.with(name, AttributeProto { floats: floats.to_vec(), ..Default::default() })
    }

    pub(super) fn with_text(self, name: &str, text: &str) -> Self {
        self.with(name, AttributeProto { s: Some(text.into()), ..Default::default() })
    }

    pub(super) fn with_integer(self, name: &str, integer: i64) -> Self {
        self.with(name, AttributeProto { i: Some(integer), ..Default::default() })
    }

    pub(super) fn with_integers(self, name: &str, integers: &[i64]) -> Self {
        self.with(name, AttributeProto { ints: integers.to_vec(), ..Default::default() })
    }

    pub(super) fn with_texts(self, name: &str, texts: &[&str]) -> Self {
        let strings = texts.iter().map(|&text| text.into()).collect();
        self.with(name, AttributeProto { strings, ..Default::default() })
    }

    pub(super) fn with_tensor(self, name: &str, kind: DataType, tensor: TensorProto) -> Self {
        let TensorProto { float_data, double_data, int32_data, .. } = &tensor;
        let len = float_data.len() + double_data.len() + int32_data.len();
        let tensor = TensorProto { data_type: Some(kind), dims: vec![len as i64], ..tensor };
        self.with(name, AttributeProto { t: Some(tensor), ..Default::default() })
    }

    pub(super) fn with_doubles(self, name: &str, values: &[f64]) -> Self {
        let tensor = TensorProto { double_data: values.to_vec(), ..Default::default() };
        self.with_tensor(name, DataType::DOUBLE, tensor)
    }

    /// The nodes of trees, of the last node of the graph.
    pub(super) fn with_trees(self, nodes: &[TreeNode]) -> Self {
        let list = |of: fn(&TreeNode) -> i64| nodes.iter().map(of).collect::<Vec<_>>();
        let values: Vec<_> = nodes.iter().map(|node| node.3).collect();
        let modes: Vec<_> = nodes.iter().map(|node| node.1).collect();
        self.with_integers("nodes_treeids", &list(|node| node.0.0))
            .with_integers("nodes_nodeids", &list(|node| node.0.1))
            .with_texts("nodes_modes", &modes)
            .with_integers("nodes_featureids", &list(|node| node.2))
            .with_floats("nodes_values", &values)
            .with_integers("nodes_truenodeids", &list(|node| node.4.0))
            .with_integers("nodes_falsenodeids", &list(|node| node.4.1))
    }

    /// What leaves add, each with its tree, its node and the number of a class or target.
    pub(super) fn with_weights(self, of: &str, weights: &[(i64, i64, i64, f32)]) -> Self {
        let list = |of: fn(&(i64, i64, i64, f32)) -> i64| weights.iter().map(of).collect::<Vec<_>>();
        let values: Vec<_> = weights.iter().map(|weight| weight.3).collect();
        self.with_integers(&format!("{of}_treeids"), &list(|weight| weight.0))
            .with_integers(&format!("{of}_nodeids"), &list(|weight| weight.1))
            .with_integers(&format!("{of}_ids"), &list(|weight| weight.2))
            .with_floats(&format!("{of}_weights"), &values)
    }

    /// A regressor of one decision about column 0: −1 for yes, 1 for no.
    pub(super) fn stump(self, call: &str, mode: &str, threshold: f32) -> Self {
        self.node(&format!("TreeEnsembleRegressor{call}"))
            .with_trees(&stump(0, mode, 0, threshold))
            .with_weights("target", &[(0, 1, 0, -1.0), (0, 2, 0, 1.0)])
    }

    /// (x − offset)·scale.
    pub(super) fn scaler(self, call: &str, offset: &[f32], scale: &[f32]) -> Self {
        self.node(&format!("Scaler{call}")).with_floats("offset", offset).with_floats("scale", scale)
    }

    /// The labels 0, 1, … of scores with float32 coefficients.
    pub(super) fn classifier(self, call: &str, coefficients: &[f32], intercepts: &[f32], transform: &str) -> Self {
        let labels: Vec<_> = (0..intercepts.len() as i64).collect();
        self.node(&format!("LinearClassifier{call}"))
            .with_integers("classlabels_ints", &labels)
            .with_floats("coefficients", coefficients)
            .with_floats("intercepts", intercepts)
            .with_text("post_transform", transform)
    }

    /// The file, with these outputs.
    pub(super) fn file(mut self, outputs: &[&str]) -> Vec<u8> {
        let output = |name: &&str| ValueInfoProto { name: Some((*name).into()), ..Default::default() };
        self.0.output = outputs.iter().map(output).collect();
        ModelProto { graph: Some(self.0), ..Default::default() }.write_buf().unwrap()
    }

    pub(super) fn read(self, outputs: &[&str]) -> Result<Model, ImportError> {
        Model::read(&self.file(outputs))
    }

    /// Why a node is refused: its operator, the reason.
    pub(super) fn refusal(self, outputs: &[&str]) -> (String, String) {
        match self.read(outputs).unwrap_err() {
            ImportError::UnsupportedNode { op, reason, remedy, .. } if !remedy.is_empty() => (op, reason),
            ImportError::Graph { reason, remedy } if !remedy.is_empty() => ("graph".into(), reason),
            other => panic!("{other:?}"),
        }
    }
}

fn domain(op: &str) -> &'static str {
    let own =
        ["Scaler", "Linear", "ZipMap", "Normalizer", "Imputer", "ArrayFeature", "FeatureVectorizer", "TreeEnsemble"];
    if own.iter().any(|start| op.starts_with(start)) { "ai.onnx.ml" } else { "" }
}
