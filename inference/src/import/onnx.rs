//! Linear classifiers as skl2onnx writes them.
//!
//! ```text
//! X ─ [Scaler] ─ LinearClassifier(SOFTMAX) ┬─ scores ─ [Normalizer(L1)] ─ [ZipMap] ─ probabilities
//!                                          └─ label ── [Identity | Cast] ─ label
//! ```
//!
//! The whole graph must be this, with the nodes in brackets optional; whatever else it has is refused.

use std::collections::HashSet;

use rten_onnx::onnx::{AttributeProto, DataType, GraphProto, ModelProto, NodeProto, ValueInfoProto};

use super::{ImportError, guard};
use crate::description::Label;

/// What the file says, its float32 numbers as float64: logit_c = intercept_c + Σ_j coefficient_cj·scale_j·(x_j − offset_j).
#[derive(Clone, Debug)]
pub(super) struct Classifier {
    pub(super) scaler: Option<Scaler>,
    /// One row per class.
    pub(super) coefficients: Vec<Vec<f64>>,
    pub(super) intercepts: Vec<f64>,
    pub(super) labels: Vec<Label>,
}

/// z_j = scale_j·(x_j − offset_j).
#[derive(Clone, Debug)]
pub(super) struct Scaler {
    pub(super) offset: Vec<f64>,
    pub(super) scale: Vec<f64>,
}

impl Classifier {
    pub(super) fn features(&self) -> usize {
        self.coefficients[0].len()
    }

    /// Reads an ONNX file.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, ImportError> {
        if bytes.len() > MAX_LEN {
            return Err(ImportError::TooLarge { len: bytes.len(), max: MAX_LEN });
        }
        guard::check(bytes).map_err(|reason| ImportError::NotOnnx { reason: reason.into() })?;
        let model = ModelProto::parse_buf(bytes).map_err(|error| ImportError::NotOnnx { reason: error.to_string() })?;
        match model.graph {
            Some(graph) => Self::from_graph(graph),
            None => Err(ImportError::NotOnnx { reason: "it has no graph".into() }),
        }
    }

    fn from_graph(graph: GraphProto) -> Result<Self, ImportError> {
        refuse_unknown_operators(&graph.node)?;
        let (input, width) = single_input(&graph.input)?;
        let mut nodes = Nodes(graph.node);

        let scaler = nodes.take("Scaler", &input)?;
        let scaled = scaler.as_ref().map_or(&input, |node| &node.output[0]);
        let classifier = nodes.take("LinearClassifier", scaled)?.ok_or_else(|| ImportError::Graph {
            reason: format!("no LinearClassifier reads {scaled:?}"),
            remedy: "export a LogisticRegression, alone or after a StandardScaler".into(),
        })?;
        let [label, scores] = classifier.output.as_slice() else {
            return Err(refused(&classifier, "it has not two outputs, label and scores"));
        };
        let normalizer = nodes.take("Normalizer", scores)?;
        let probabilities = normalizer.as_ref().map_or(scores, |node| &node.output[0]);
        let zip = nodes.take("ZipMap", probabilities)?;
        let probabilities = zip.as_ref().map_or(probabilities, |node| &node.output[0]);
        let same = nodes.take("Identity", label)?;
        let cast = nodes.take("Cast", label)?;
        let label = same.as_ref().or(cast.as_ref()).map_or(label, |node| &node.output[0]);
        nodes.refuse_rest()?;
        check_outputs(&graph.output, &[label, probabilities])?;

        let classifier = read_classifier(&classifier)?;
        let scaler = scaler.map(|node| read_scaler(&node, classifier.features())).transpose()?;
        normalizer.map_or(Ok(()), |node| check_normalizer(&node))?;
        zip.map_or(Ok(()), |node| check_zip_map(&node, &classifier.labels))?;
        same.map_or(Ok(()), |node| attributes(&node, []).map(|[]| ()))?;
        cast.map_or(Ok(()), |node| check_cast(&node, &classifier.labels))?;
        check_width(width, classifier.features())?;
        Ok(Self { scaler, ..classifier })
    }
}

/// Room for the widest model of one polynomial, and then some.
const MAX_LEN: usize = 1 << 20;

const MACHINE_LEARNING: &str = "ai.onnx.ml";

/// The operators of the picture above, and where they are defined.
const OPERATORS: [(&str, &str); 6] = [
    ("Scaler", MACHINE_LEARNING),
    ("LinearClassifier", MACHINE_LEARNING),
    ("Normalizer", MACHINE_LEARNING),
    ("ZipMap", MACHINE_LEARNING),
    ("Identity", ""),
    ("Cast", ""),
];

fn refuse_unknown_operators(nodes: &[NodeProto]) -> Result<(), ImportError> {
    let known = |node: &&NodeProto| {
        let domain = node.domain.as_deref().unwrap_or_default();
        OPERATORS.contains(&(op(node), if domain == "ai.onnx" { "" } else { domain }))
    };
    match nodes.iter().find(|node| !known(node)) {
        Some(node) => Err(refused(node, "no linear classifier has this operator")),
        None => Ok(()),
    }
}

fn op(node: &NodeProto) -> &str {
    node.op_type.as_deref().unwrap_or_default()
}

/// Refuses a node, with what to do about it.
fn refused(node: &NodeProto, reason: impl Into<String>) -> ImportError {
    let remedy = match op(node) {
        "Sub" | "Div" | "Mul" | "Add" | "MatMul" | "Gemm" | "ArgMax" => {
            "export with initial_types=[(\"X\", FloatTensorType([None, features]))], so that skl2onnx writes a LinearClassifier"
        }
        "Slice" | "Reshape" => "export with the option zipmap=False",
        "SVMClassifier" | "TreeEnsembleClassifier" => {
            "train a LogisticRegression; other kinds of models are not supported yet"
        }
        "LinearRegressor" => "train a LogisticRegression; regressions are not supported yet",
        _ => {
            "export make_pipeline(StandardScaler(), LogisticRegression()) for three or more classes with skl2onnx, without options"
        }
    };
    ImportError::UnsupportedNode {
        node: node.name.clone().unwrap_or_default(),
        op: op(node).into(),
        reason: reason.into(),
        remedy: remedy.into(),
    }
}

/// The input's name and, if stated, its number of columns.
fn single_input(inputs: &[ValueInfoProto]) -> Result<(String, Option<i64>), ImportError> {
    let refuse = |reason: String| ImportError::Graph {
        reason,
        remedy: "export with initial_types=[(\"X\", FloatTensorType([None, features]))]".into(),
    };
    let [input] = inputs else {
        return Err(refuse(format!("it has {} inputs, not one", inputs.len())));
    };
    let tensor = input.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
    match tensor.and_then(|tensor| tensor.elem_type) {
        Some(DataType::FLOAT) => {}
        other => return Err(refuse(format!("its input is of type {}, not FLOAT", other.unwrap_or(DataType(0))))),
    }
    let shape = tensor.and_then(|tensor| tensor.shape.as_ref());
    let width = shape.and_then(|shape| shape.dim.get(1)).and_then(|columns| columns.dim_value);
    Ok((input.name.clone().unwrap_or_default(), width))
}

/// The nodes that have not found their place yet.
struct Nodes(Vec<NodeProto>);

impl Nodes {
    /// Removes the node `op` that reads `input` and nothing else, if there is one.
    fn take(&mut self, op: &str, input: &str) -> Result<Option<NodeProto>, ImportError> {
        let found = self.0.iter().position(|node| self::op(node) == op && node.input == [input]);
        match found.map(|index| self.0.remove(index)) {
            Some(node) if node.output.is_empty() => Err(refused(&node, "it has no output")),
            node => Ok(node),
        }
    }

    fn refuse_rest(self) -> Result<(), ImportError> {
        match self.0.first() {
            Some(node) => Err(refused(node, "it is not where a linear classifier has it")),
            None => Ok(()),
        }
    }
}

fn check_outputs(outputs: &[ValueInfoProto], expected: &[&String]) -> Result<(), ImportError> {
    match outputs.iter().find(|output| !output.name.as_ref().is_some_and(|name| expected.contains(&name))) {
        None => Ok(()),
        Some(output) => Err(ImportError::Graph {
            reason: format!(
                "it has an output {:?} besides label and probabilities",
                output.name.as_deref().unwrap_or_default()
            ),
            remedy: "export the classifier without further outputs".into(),
        }),
    }
}

fn check_width(stated: Option<i64>, features: usize) -> Result<(), ImportError> {
    match stated {
        Some(width) if width != features as i64 => Err(ImportError::Graph {
            reason: format!("its input has {width} columns, its classifier {features}"),
            remedy: "export the model again".into(),
        }),
        _ => Ok(()),
    }
}

/// The attributes of those names, each at most once, and no others.
fn attributes<'a, const N: usize>(
    node: &'a NodeProto,
    names: [&str; N],
) -> Result<[Option<&'a AttributeProto>; N], ImportError> {
    let name = |attribute: &'a AttributeProto| attribute.name.as_deref().unwrap_or_default();
    let mut seen = HashSet::new();
    match node.attribute.iter().find(|attribute| !names.contains(&name(attribute)) || !seen.insert(name(attribute))) {
        Some(attribute) => Err(refused(node, format!("unexpected or repeated attribute {:?}", name(attribute)))),
        None => Ok(names.map(|wanted| node.attribute.iter().find(|attribute| name(attribute) == wanted))),
    }
}

fn read_classifier(node: &NodeProto) -> Result<Classifier, ImportError> {
    let [strings, integers, coefficients, intercepts, _multi_class, transform] = attributes(
        node,
        ["classlabels_strings", "classlabels_ints", "coefficients", "intercepts", "multi_class", "post_transform"],
    )?;
    match transform.and_then(|transform| transform.s.as_deref()) {
        Some("SOFTMAX") => {}
        other => {
            let found = other.unwrap_or("NONE");
            return Err(refused(node, format!("its scores go through {found}, where only SOFTMAX is supported")));
        }
    }
    let labels = read_labels(strings, integers);
    if labels.len() < 2 {
        return Err(refused(node, format!("it has {} class labels", labels.len())));
    }
    let intercepts = numbers(node, "intercepts", intercepts, labels.len())?;
    let width = coefficients.map_or(0, |attribute| attribute.floats.len()) / labels.len();
    if width == 0 {
        return Err(refused(node, "it has fewer coefficients than classes"));
    }
    let coefficients = numbers(node, "coefficients", coefficients, width * labels.len())?;
    let coefficients = coefficients.chunks(width).map(<[f64]>::to_vec).collect();
    Ok(Classifier { scaler: None, coefficients, intercepts, labels })
}

fn read_labels(strings: Option<&AttributeProto>, integers: Option<&AttributeProto>) -> Vec<Label> {
    let strings = strings.into_iter().flat_map(|attribute| attribute.strings.iter().cloned().map(Label::Text));
    let integers = integers.into_iter().flat_map(|attribute| attribute.ints.iter().copied().map(Label::Integer));
    strings.chain(integers).collect()
}

fn read_scaler(node: &NodeProto, features: usize) -> Result<Scaler, ImportError> {
    let [offset, scale] = attributes(node, ["offset", "scale"])?;
    let (offset, scale) = (numbers(node, "offset", offset, features)?, numbers(node, "scale", scale, features)?);
    Ok(Scaler { offset, scale })
}

/// The finite numbers of an attribute of the expected length.
fn numbers(
    node: &NodeProto,
    name: &'static str,
    attribute: Option<&AttributeProto>,
    expected: usize,
) -> Result<Vec<f64>, ImportError> {
    let floats = attribute.map_or(&[][..], |attribute| &attribute.floats);
    if floats.len() != expected {
        return Err(refused(node, format!("its {name} are {}, where {expected} are needed", floats.len())));
    }
    match floats.iter().position(|float| !float.is_finite()) {
        Some(index) => {
            Err(ImportError::NotFinite { op: op(node).into(), attribute: name, index, value: floats[index] })
        }
        None => Ok(floats.iter().copied().map(f64::from).collect()),
    }
}

/// Softmax sums up to one already: normalising it by the L1 norm changes nothing.
fn check_normalizer(node: &NodeProto) -> Result<(), ImportError> {
    let [norm] = attributes(node, ["norm"])?;
    match norm.and_then(|norm| norm.s.as_deref()) {
        Some("L1") => Ok(()),
        other => Err(refused(node, format!("its norm is {:?}, where L1 is expected", other.unwrap_or_default()))),
    }
}

fn check_zip_map(node: &NodeProto, labels: &[Label]) -> Result<(), ImportError> {
    let [strings, integers] = attributes(node, ["classlabels_strings", "classlabels_int64s"])?;
    match read_labels(strings, integers) == labels {
        true => Ok(()),
        false => Err(refused(node, "its labels are not the classifier's")),
    }
}

/// Labels become what they are already.
fn check_cast(node: &NodeProto, labels: &[Label]) -> Result<(), ImportError> {
    let [to] = attributes(node, ["to"])?;
    let expected = match labels[0] {
        Label::Integer(_) => DataType::INT64,
        Label::Text(_) => DataType::STRING,
    };
    match to.and_then(|to| to.i) == Some(expected.0.into()) {
        true => Ok(()),
        false => Err(refused(node, format!("it changes the type of the labels, which are {expected}"))),
    }
}
