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

/// What the file says, its float32 numbers as float64: logit_c = intercept_c + Σ_j coefficient_cj·scale_j·(x_j −
/// offset_j).
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
            "export with a FloatTensorType as input, so that skl2onnx writes a LinearClassifier"
        }
        "Slice" | "Reshape" => "export with the option zipmap=False",
        "SVMClassifier" | "TreeEnsembleClassifier" => {
            "train a LogisticRegression; other kinds of models are not supported yet"
        }
        "LinearRegressor" => "train a LogisticRegression; regressions are not supported yet",
        _ => "export StandardScaler and LogisticRegression, for three or more classes, with skl2onnx and no options",
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
            let found = other.unwrap_or("NONE").escape_debug();
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
        Label::Boolean(_) => DataType::BOOL,
        Label::Integer(_) => DataType::INT64,
        Label::Text(_) => DataType::STRING,
    };
    match to.and_then(|to| to.i) == Some(expected.0.into()) {
        true => Ok(()),
        false => Err(refused(node, format!("it changes the type of the labels, which are {expected}"))),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The Iris model as skl2onnx wrote it: Scaler, LinearClassifier, Identity, Normalizer, ZipMap.
    pub(crate) fn iris() -> Vec<u8> {
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/iris/iris.onnx")).unwrap()
    }

    /// The Iris model with one thing changed.
    pub(crate) fn changed(change: impl FnOnce(&mut GraphProto)) -> Vec<u8> {
        let mut model = ModelProto::parse_buf(&iris()).unwrap();
        change(model.graph.as_mut().unwrap());
        model.write_buf().unwrap()
    }

    fn node<'a>(graph: &'a mut GraphProto, op: &str) -> &'a mut NodeProto {
        graph.node.iter_mut().find(|node| super::op(node) == op).unwrap()
    }

    fn attribute<'a>(graph: &'a mut GraphProto, op: &str, name: &str) -> &'a mut AttributeProto {
        let attributes = &mut node(graph, op).attribute;
        attributes.iter_mut().find(|attribute| attribute.name.as_deref() == Some(name)).unwrap()
    }

    /// Takes a node out and joins its input to whoever read its output.
    pub(crate) fn bypass(graph: &mut GraphProto, op: &str) {
        let NodeProto { input, output, .. } = node(graph, op).clone();
        graph.node.retain(|node| super::op(node) != op);
        for name in graph.node.iter_mut().flat_map(|node| &mut node.input) {
            if *name == output[0] {
                name.clone_from(&input[0]);
            }
        }
        for name in graph.output.iter_mut().filter_map(|output| output.name.as_mut()) {
            if *name == output[0] {
                name.clone_from(&input[0]);
            }
        }
    }

    fn refusal(change: impl FnOnce(&mut GraphProto)) -> (String, String, String) {
        match Classifier::read(&changed(change)).unwrap_err() {
            ImportError::UnsupportedNode { node, op, reason, remedy } if !remedy.is_empty() => (node, op, reason),
            other => panic!("{other:?}"),
        }
    }

    fn graph_reason(change: impl FnOnce(&mut GraphProto)) -> String {
        match Classifier::read(&changed(change)).unwrap_err() {
            ImportError::Graph { reason, remedy } if !remedy.is_empty() => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_file_is_read_as_it_is() {
        let classifier = Classifier::read(&iris()).unwrap();
        assert_eq!(classifier.labels, ["setosa", "versicolor", "virginica"].map(|text| Label::Text(text.into())));
        assert_eq!((classifier.features(), classifier.coefficients.len()), (4, 3));
        assert_eq!(classifier.intercepts[0], f64::from(-0.204_638_97_f32));
        assert_eq!(classifier.coefficients[2][3], f64::from(2.639_275_6_f32));
        assert_eq!(classifier.scaler.unwrap().scale[0], f64::from(1.211_678_7_f32));
    }

    #[test]
    fn what_other_options_write_is_read_too() {
        let read = |change: fn(&mut GraphProto)| Classifier::read(&changed(change)).unwrap();
        let coefficients = Classifier::read(&iris()).unwrap().coefficients;
        assert!(read(|graph| bypass(graph, "Scaler")).scaler.is_none());
        let without_zip_map = read(|graph| {
            bypass(graph, "ZipMap");
            bypass(graph, "Identity");
        });
        assert_eq!(without_zip_map.coefficients, coefficients);
        assert_eq!(read(|graph| bypass(graph, "Normalizer")).coefficients, coefficients);
        let without_width = read(|graph| {
            let tensor = graph.input[0].r#type.as_mut().unwrap().tensor_type.as_mut().unwrap();
            tensor.shape = None;
        });
        assert_eq!(without_width.coefficients, coefficients);
    }

    #[test]
    fn integer_labels_are_read() {
        let integers = |attribute: &mut AttributeProto, name: &str| {
            attribute.name = Some(name.into());
            attribute.strings.clear();
            attribute.ints = vec![-1, 0, 7];
        };
        let bytes = changed(|graph| {
            integers(attribute(graph, "LinearClassifier", "classlabels_strings"), "classlabels_ints");
            integers(attribute(graph, "ZipMap", "classlabels_strings"), "classlabels_int64s");
            let label = node(graph, "Identity");
            label.op_type = Some("Cast".into());
            label.attribute = vec![AttributeProto { name: Some("to".into()), i: Some(7), ..Default::default() }];
        });
        assert_eq!(Classifier::read(&bytes).unwrap().labels, [-1, 0, 7].map(Label::Integer));
    }

    #[test]
    fn repeated_opset_entries_are_tolerated() {
        let mut model = ModelProto::parse_buf(&iris()).unwrap();
        model.opset_import.extend(ModelProto::parse_buf(&iris()).unwrap().opset_import);
        assert!(Classifier::read(&model.write_buf().unwrap()).is_ok());
    }

    #[test]
    fn other_operators_are_refused_by_name() {
        let (name, op, reason) = refusal(|graph| node(graph, "Scaler").op_type = Some("Sub".into()));
        assert_eq!((name.as_str(), op.as_str()), ("Scaler", "Sub"));
        assert_eq!(reason, "no linear classifier has this operator");
        for (op, domain) in [("TreeEnsembleClassifier", "ai.onnx.ml"), ("Scaler", "com.example"), ("ZipMap", "")] {
            let change = |graph: &mut GraphProto| {
                graph.node[0].op_type = Some(op.into());
                graph.node[0].domain = Some(domain.into());
            };
            assert_eq!(refusal(change).1, op);
        }
        let other = Classifier::read(&changed(|graph| node(graph, "Scaler").op_type = Some("MatMul".into())));
        assert!(other.unwrap_err().remedy().contains("FloatTensorType"));
    }

    #[test]
    fn nodes_out_of_place_are_refused() {
        let misplaced = "it is not where a linear classifier has it";
        let twice = refusal(|graph| graph.node.push(graph.node[0].clone()));
        assert_eq!((twice.1.as_str(), twice.2.as_str()), ("Scaler", misplaced));
        assert_eq!(refusal(|graph| node(graph, "ZipMap").input = vec!["X".into()]).2, misplaced);
        assert_eq!(refusal(|graph| node(graph, "Normalizer").input.push("X".into())).2, misplaced);
        assert_eq!(refusal(|graph| node(graph, "Scaler").output.clear()).2, "it has no output");
        let outputs = refusal(|graph| node(graph, "LinearClassifier").output.truncate(1));
        assert_eq!(outputs.2, "it has not two outputs, label and scores");
        let unread = |graph: &mut GraphProto| node(graph, "LinearClassifier").input = vec!["nothing".into()];
        assert_eq!(graph_reason(unread), "no LinearClassifier reads \"variable\"");
    }

    #[test]
    fn other_inputs_and_outputs_are_refused() {
        assert_eq!(graph_reason(|graph| graph.input.push(graph.input[0].clone())), "it has 2 inputs, not one");
        let double = |graph: &mut GraphProto| {
            let tensor = graph.input[0].r#type.as_mut().unwrap().tensor_type.as_mut().unwrap();
            tensor.elem_type = Some(DataType::DOUBLE);
        };
        assert_eq!(graph_reason(double), "its input is of type DOUBLE, not FLOAT");
        let wide = |graph: &mut GraphProto| {
            let tensor = graph.input[0].r#type.as_mut().unwrap().tensor_type.as_mut().unwrap();
            tensor.shape.as_mut().unwrap().dim[1].dim_value = Some(5);
        };
        assert_eq!(graph_reason(wide), "its input has 5 columns, its classifier 4");
        let more = |graph: &mut GraphProto| graph.output[0].name = Some("variable".into());
        assert_eq!(graph_reason(more), "it has an output \"variable\" besides label and probabilities");
    }

    #[test]
    fn attributes_must_be_those_of_a_multinomial_regression() {
        let reason = |change: fn(&mut GraphProto)| refusal(change).2;
        let post = |graph: &mut GraphProto, transform: &str| {
            attribute(graph, "LinearClassifier", "post_transform").s = Some(transform.into());
        };
        let logistic = refusal(|graph| post(graph, "LOGISTIC")).2;
        assert_eq!(logistic, "its scores go through LOGISTIC, where only SOFTMAX is supported");
        let steering = refusal(|graph| post(graph, "\u{1b}[2J")).2;
        assert_eq!(steering, "its scores go through \\u{1b}[2J, where only SOFTMAX is supported");
        let fewer = reason(|graph| attribute(graph, "LinearClassifier", "coefficients").floats.truncate(11));
        assert_eq!(fewer, "its coefficients are 11, where 9 are needed");
        let none = reason(|graph| attribute(graph, "LinearClassifier", "coefficients").floats.clear());
        assert_eq!(none, "it has fewer coefficients than classes");
        let one_label = reason(|graph| attribute(graph, "LinearClassifier", "classlabels_strings").strings.truncate(1));
        assert_eq!(one_label, "it has 1 class labels");
        let scaler = reason(|graph| attribute(graph, "Scaler", "offset").floats.truncate(1));
        assert_eq!(scaler, "its offset are 1, where 4 are needed");
        let repeated = reason(|graph| {
            let again = graph.node[0].attribute[0].clone();
            graph.node[0].attribute.push(again);
        });
        assert_eq!(repeated, "unexpected or repeated attribute \"offset\"");
        assert_eq!(
            reason(|graph| attribute(graph, "Normalizer", "norm").s = Some("MAX".into())),
            "its norm is \"MAX\", where L1 is expected"
        );
        let labels = reason(|graph| attribute(graph, "ZipMap", "classlabels_strings").strings.swap(0, 1));
        assert_eq!(labels, "its labels are not the classifier's");
    }

    #[test]
    fn parameters_must_be_numbers() {
        for (op, name) in
            [("Scaler", "scale"), ("LinearClassifier", "coefficients"), ("LinearClassifier", "intercepts")]
        {
            for value in [f32::NAN, f32::INFINITY] {
                let bytes = changed(|graph| attribute(graph, op, name).floats[2] = value);
                let error = Classifier::read(&bytes).unwrap_err();
                assert_eq!(error.to_string(), format!("number 2 of the {name} of {op} is {value}"));
            }
        }
    }

    /// What follows the graph in the file: two opset entries, which are not looked at.
    const OPSETS: usize = 22;

    #[test]
    fn no_bytes_make_it_panic() {
        let bytes = iris();
        for len in 0..bytes.len() - OPSETS {
            assert_eq!(Classifier::read(&bytes[..len]).unwrap_err().code(), "not_onnx", "{len} bytes");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Err(error) = Classifier::read(&flipped) {
                assert!(!error.code().is_empty() && !error.remedy().is_empty());
            }
        }
        assert_eq!(Classifier::read(&vec![0; MAX_LEN + 1]).unwrap_err().code(), "onnx_too_large");
        assert_eq!(Classifier::read(b"solver = lbfgs\n").unwrap_err().code(), "not_onnx");
        assert_eq!(Classifier::read(&[]).unwrap_err().code(), "not_onnx");
    }
}
