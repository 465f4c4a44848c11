//! Reading an ONNX file: its inputs, constants and nodes, each checked to be in its place.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use rten_onnx::onnx::{AttributeProto, DataType, GraphProto, ModelProto, NodeProto, ValueInfoProto};

use super::refusal::{self, refused};
use super::tensor::{Parameters, Tensor};
use super::{ImportError, guard};
use crate::description::Label;

/// A graph whose nodes come after what they read.
#[derive(Clone, Debug)]
pub(super) struct Graph {
    pub(super) inputs: Vec<Input>,
    pub(super) constants: HashMap<String, Rc<Tensor>>,
    pub(super) nodes: Vec<NodeProto>,
    pub(super) outputs: Vec<String>,
}

/// An input of the graph: one or more columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Input {
    pub(super) name: String,
    pub(super) columns: usize,
    /// Whether its numbers are float64.
    pub(super) is_double: bool,
}

impl Graph {
    /// Reads an ONNX file.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, ImportError> {
        if bytes.len() > MAX_LEN {
            return Err(ImportError::TooLarge { len: bytes.len(), max: MAX_LEN });
        }
        let texts = guard::check(bytes).map_err(|reason| ImportError::NotOnnx { reason: reason.into() })?;
        let model = ModelProto::parse_buf(bytes).map_err(|error| ImportError::NotOnnx { reason: error.to_string() })?;
        match model.graph {
            Some(graph) => Self::from_proto(graph, texts),
            None => Err(ImportError::NotOnnx { reason: "it has no graph".into() }),
        }
    }

    fn from_proto(proto: GraphProto, mut texts: guard::Texts) -> Result<Self, ImportError> {
        refusal::check_operators(&proto.node)?;
        let mut constants = HashMap::new();
        for tensor in &proto.initializer {
            let name = tensor.name.clone().unwrap_or_default();
            let texts = texts.remove(&name);
            constants.insert(name, Rc::new(Tensor::read(tensor, texts)?));
        }
        // Older files list their constants among the inputs as well.
        let inputs = proto.input.iter().filter(|input| !constants.contains_key(name(&input.name)));
        let inputs = inputs.map(|input| read_input(input, &proto.node, &constants)).collect::<Result<Vec<_>, _>>()?;
        let outputs = proto.output.iter().map(|output| name(&output.name).to_owned()).collect();
        let graph = Self { inputs, constants, nodes: proto.node, outputs };
        graph.check_order()?;
        Ok(graph)
    }

    /// As many columns as all inputs have.
    pub(super) fn columns(&self) -> usize {
        self.inputs.iter().map(|input| input.columns).fold(0, usize::saturating_add)
    }

    /// Every name is given once, and before it is read.
    fn check_order(&self) -> Result<(), ImportError> {
        let mut known: HashSet<&str> = self.constants.keys().map(String::as_str).collect();
        if let Some(Input { name, .. }) = self.inputs.iter().find(|input| !known.insert(&input.name)) {
            return Err(graph_refused(format!("it has two inputs {name:?}")));
        }
        for node in &self.nodes {
            if let Some(name) = node.input.iter().find(|name| !name.is_empty() && !known.contains(name.as_str())) {
                let node = node.name.as_deref().unwrap_or_default();
                return Err(graph_refused(format!("its node {node:?} reads {name:?}, which nothing before it gives")));
            }
            if node.output.is_empty() {
                return Err(refused(node, "it has no output"));
            }
            if let Some(name) = node.output.iter().find(|name| !name.is_empty() && !known.insert(name)) {
                return Err(refused(node, format!("it gives {name:?}, as something before it does")));
            }
        }
        match self.outputs.iter().find(|name| !known.contains(name.as_str())) {
            Some(name) => Err(graph_refused(format!("nothing gives its output {name:?}"))),
            None => Ok(()),
        }
    }
}

/// Room for 4,194,304 coefficients of 8 bytes and the matrix of a decomposition of that size.
const MAX_LEN: usize = 64 << 20;

/// What is in the way of a whole graph, not of one node.
pub(super) fn graph_refused(reason: impl Into<String>) -> ImportError {
    let remedy = "export a linear model, trees or a network of one hidden layer with skl2onnx, from a FloatTensorType or \
                  DoubleTensorType";
    refusal::graph_refused_for(reason, remedy)
}

fn name(name: &Option<String>) -> &str {
    name.as_deref().unwrap_or_default()
}

fn read_input(
    input: &ValueInfoProto,
    nodes: &[NodeProto],
    constants: &HashMap<String, Rc<Tensor>>,
) -> Result<Input, ImportError> {
    let name = name(&input.name).to_owned();
    let refuse = |reason: String| ImportError::Graph {
        reason: format!("its input {name:?} {reason}"),
        remedy: "export with initial_types=[(\"X\", FloatTensorType([None, features]))], or DoubleTensorType".into(),
    };
    let tensor = input.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
    let is_double = match tensor.and_then(|tensor| tensor.elem_type) {
        Some(DataType::FLOAT) => false,
        Some(DataType::DOUBLE) => true,
        other => return Err(refuse(format!("is of type {}, not FLOAT or DOUBLE", other.unwrap_or(DataType(0))))),
    };
    let shape = tensor.and_then(|tensor| tensor.shape.as_ref());
    if let Some(shape) = shape
        && shape.dim.len() != 2
    {
        return Err(refuse(format!("has {} dimensions, not rows and columns", shape.dim.len())));
    }
    let stated = shape.and_then(|shape| shape.dim[1].dim_value).and_then(|columns| usize::try_from(columns).ok());
    let reader = || nodes.iter().find_map(|node| columns_read(node, &name, constants));
    match stated.filter(|&columns| columns > 0).or_else(reader) {
        Some(columns) => Ok(Input { name, columns, is_double }),
        None => Err(refuse("states no number of columns".into())),
    }
}

/// The columns that a node asks of the input `name`, which does not say how many it has.
fn columns_read(node: &NodeProto, name: &str, constants: &HashMap<String, Rc<Tensor>>) -> Option<usize> {
    if node.input.first().is_none_or(|input| input != name) {
        return None;
    }
    let attribute = |wanted: &str| node.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(wanted));
    let floats = |name: &str| attribute(name).map_or(0, |attribute| attribute.floats.len());
    let constant = || node.input.get(1).and_then(|name| constants.get(name));
    let columns = match op(node) {
        "Scaler" => floats("offset"),
        "Imputer" => floats("imputed_value_floats"),
        "LinearClassifier" => floats("coefficients").checked_div(floats("intercepts"))?,
        "LinearRegressor" => {
            let targets = attribute("targets").and_then(|targets| targets.i).unwrap_or(1);
            floats("coefficients").checked_div(usize::try_from(targets).ok()?)?
        }
        "MatMul" => *constant()?.dims.first()?,
        "Gemm" if attribute("transB").and_then(|flag| flag.i) == Some(1) => *constant()?.dims.last()?,
        "Gemm" => *constant()?.dims.first()?,
        "Sub" | "Mul" | "Add" | "Div" => *constant()?.dims.last()?,
        _ => 0,
    };
    (columns > 0).then_some(columns)
}

pub(super) fn op(node: &NodeProto) -> &str {
    node.op_type.as_deref().unwrap_or_default()
}

/// The attributes of those names, each at most once, and no others.
pub(super) fn attributes<'a, const N: usize>(
    node: &'a NodeProto,
    names: [&str; N],
) -> Result<[Option<&'a AttributeProto>; N], ImportError> {
    let named = named(node, &names)?;
    Ok(names.map(|name| named.get(name).copied()))
}

/// The same, by their names.
pub(super) fn named<'a>(
    node: &'a NodeProto,
    names: &[&str],
) -> Result<HashMap<&'a str, &'a AttributeProto>, ImportError> {
    let mut found = HashMap::new();
    for attribute in &node.attribute {
        let name = name(&attribute.name);
        if !names.contains(&name) || found.insert(name, attribute).is_some() {
            return Err(refused(node, format!("unexpected or repeated attribute {name:?}")));
        }
    }
    Ok(found)
}

/// The finite numbers of an attribute, of which there are `expected`.
pub(super) fn numbers(
    node: &NodeProto,
    name: &str,
    attribute: Option<&AttributeProto>,
    expected: usize,
) -> Result<Parameters, ImportError> {
    let floats = attribute.map_or(&[][..], |attribute| &attribute.floats);
    match floats.len() {
        len if len == expected => Parameters::single(floats, || format!("the {name} of {}", op(node))),
        len => Err(refused(node, format!("its {name} are {len}, where {expected} are needed"))),
    }
}

/// The labels of a classifier or ZipMap, of either type.
pub(super) fn labels(strings: Option<&AttributeProto>, integers: Option<&AttributeProto>) -> Vec<Label> {
    let strings = strings.into_iter().flat_map(|attribute| attribute.strings.iter().cloned().map(Label::Text));
    let integers = integers.into_iter().flat_map(|attribute| attribute.ints.iter().copied().map(Label::Integer));
    strings.chain(integers).collect()
}

#[cfg(test)]
mod tests {
    use super::super::model::Model;
    use super::super::sample::{Sample, attribute, bypass, changed, iris, node};
    use super::*;

    fn refusal(change: impl FnOnce(&mut GraphProto)) -> (String, String, String) {
        match Model::read(&changed(change)).unwrap_err() {
            ImportError::UnsupportedNode { node, op, reason, remedy } if !remedy.is_empty() => (node, op, reason),
            other => panic!("{other:?}"),
        }
    }

    fn graph_reason(change: impl FnOnce(&mut GraphProto)) -> String {
        match Model::read(&changed(change)).unwrap_err() {
            ImportError::Graph { reason, remedy } if !remedy.is_empty() => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_other_options_write_is_read_too() {
        let places = |change: fn(&mut GraphProto)| Model::read(&changed(change)).unwrap().places;
        let all = places(|_| {});
        assert_eq!(all.iter().map(|(_, index)| *index).collect::<Vec<_>>(), [0, 1, 2]);
        let without_zip_map = |graph: &mut GraphProto| {
            bypass(graph, "ZipMap");
            bypass(graph, "Identity");
        };
        let without_width = |graph: &mut GraphProto| {
            graph.input[0].r#type.as_mut().unwrap().tensor_type.as_mut().unwrap().shape = None;
        };
        assert_eq!(places(|graph| bypass(graph, "Scaler")), all);
        assert_eq!(places(without_zip_map), all);
        assert_eq!(places(|graph| bypass(graph, "Normalizer")), all);
        assert_eq!(places(without_width), all);
    }

    #[test]
    fn the_width_may_be_left_to_whoever_reads_the_input() {
        let sample = || Sample::new(0).floats("w", &[3, 1], &[1.0; 3]).floats("b", &[3], &[1.0; 3]);
        let features = |sample: Sample| sample.read(&["y"]).unwrap().features();
        assert_eq!(features(sample().node("MatMul(X, w) -> y")), 3);
        assert_eq!(features(sample().node("Sub(X, b) -> z").node("MatMul(z, w) -> y")), 3);
        let regressor = sample().node("LinearRegressor(X) -> y").with_floats("coefficients", &[1.0; 6]);
        assert_eq!(features(regressor.with_integer("targets", 3)), 2);
        assert_eq!(sample().node("Identity(X) -> y").refusal(&["y"]).1, "its input \"X\" states no number of columns");
    }

    #[test]
    fn repeated_opset_entries_are_tolerated() {
        let mut model = ModelProto::parse_buf(&iris()).unwrap();
        model.opset_import.extend(ModelProto::parse_buf(&iris()).unwrap().opset_import);
        assert!(Model::read(&model.write_buf().unwrap()).is_ok());
    }

    #[test]
    fn nodes_out_of_order_are_refused() {
        let twice = refusal(|graph| graph.node.push(graph.node[0].clone()));
        assert_eq!(
            (twice.1.as_str(), twice.2.as_str()),
            ("Scaler", "it gives \"variable\", as something before it does")
        );
        let unread = graph_reason(|graph| node(graph, "LinearClassifier").input = vec!["nothing".into()]);
        assert_eq!(unread, "its node \"LinearClassifier\" reads \"nothing\", which nothing before it gives");
        let reversed = graph_reason(|graph| graph.node.reverse());
        assert!(reversed.starts_with("its node \"ZipMap\" reads"), "{reversed}");
        assert_eq!(refusal(|graph| node(graph, "Scaler").output.clear()).2, "it has no output");
        assert_eq!(refusal(|graph| node(graph, "Scaler").output.push("more".into())).2, "it has 2 outputs");
    }

    #[test]
    fn other_inputs_and_outputs_are_refused() {
        assert_eq!(graph_reason(|graph| graph.input.push(graph.input[0].clone())), "it has two inputs \"X\"");
        let empty = |graph: &mut GraphProto| *graph = GraphProto::default();
        assert_eq!(graph_reason(empty), "it has no features");
        let whole = |graph: &mut GraphProto| {
            let tensor = graph.input[0].r#type.as_mut().unwrap().tensor_type.as_mut().unwrap();
            tensor.elem_type = Some(DataType::INT64);
        };
        assert_eq!(graph_reason(whole), "its input \"X\" is of type INT64, not FLOAT or DOUBLE");
        let flat = |graph: &mut GraphProto| {
            let tensor = graph.input[0].r#type.as_mut().unwrap().tensor_type.as_mut().unwrap();
            tensor.shape.as_mut().unwrap().dim.truncate(1);
        };
        assert_eq!(graph_reason(flat), "its input \"X\" has 1 dimensions, not rows and columns");
        let nowhere = |graph: &mut GraphProto| graph.output[0].name = Some("nowhere".into());
        assert_eq!(graph_reason(nowhere), "nothing gives its output \"nowhere\"");
        let wide = |graph: &mut GraphProto| {
            let tensor = graph.input[0].r#type.as_mut().unwrap().tensor_type.as_mut().unwrap();
            tensor.shape.as_mut().unwrap().dim[1].dim_value = Some(5);
        };
        assert_eq!(refusal(wide).2, "its offset are 4, where 5 are needed");
    }

    #[test]
    fn attributes_are_those_of_their_node() {
        let repeated = refusal(|graph| {
            let again = graph.node[0].attribute[0].clone();
            graph.node[0].attribute.push(again);
        });
        assert_eq!(repeated.2, "unexpected or repeated attribute \"offset\"");
        let fewer = refusal(|graph| attribute(graph, "LinearClassifier", "coefficients").floats.truncate(11));
        assert_eq!(fewer.2, "its coefficients are 11, where 12 are needed");
    }

    #[test]
    fn parameters_must_be_numbers() {
        for (op, name) in
            [("Scaler", "scale"), ("LinearClassifier", "coefficients"), ("LinearClassifier", "intercepts")]
        {
            for value in [f32::NAN, f32::INFINITY] {
                let bytes = changed(|graph| attribute(graph, op, name).floats[2] = value);
                let error = Model::read(&bytes).unwrap_err();
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
            assert_eq!(Model::read(&bytes[..len]).unwrap_err().code(), "not_onnx", "{len} bytes");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Err(error) = Model::read(&flipped) {
                assert!(!error.code().is_empty() && !error.remedy().is_empty());
            }
        }
        assert_eq!(Model::read(&vec![0; MAX_LEN + 1]).unwrap_err().code(), "onnx_too_large");
        assert_eq!(Model::read(b"solver = lbfgs\n").unwrap_err().code(), "not_onnx");
        assert_eq!(Model::read(&[]).unwrap_err().code(), "not_onnx");
    }
}
