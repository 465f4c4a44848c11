//! ONNX files, and the bundles and descriptions that are made of them.

use cloister_inference::{Bundle, FeatureRange, ImportOptions, import};
use rten_onnx::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto};

use crate::{Corpus, replaced};

const IRIS: &[u8] = include_bytes!("../../../tests/data/iris/iris.onnx");

/// Returns the bundle of the Iris model.
pub(crate) fn write() -> Bundle {
    onnx();
    let bundle = imported(IRIS, ImportOptions::new("iris", "1.0"));
    bundles(&bundle);
    descriptions(&bundle);
    bundle
}

fn imported(onnx: &[u8], options: ImportOptions) -> Bundle {
    import(onnx, &options).expect("the model is one that can be imported").bundle
}

fn onnx() {
    let corpus = Corpus::new("onnx");
    corpus.valid("iris", IRIS);
    corpus.valid("integer-labels", changed(integer_labels));
    corpus.valid("wide", changed(|graph| reshape(graph, 16, 5)));
    corpus.valid("no-zip-map", changed(|graph| bypass(graph, "ZipMap")));

    corpus.refused("no_ranges", changed(|graph| bypass(graph, "Scaler")));
    corpus.refused("range", changed(|graph| floats(graph, "Scaler", "scale")[0] = 0.0));
    corpus.refused("precision", changed(|graph| floats(graph, "LinearClassifier", "coefficients")[0] = 1e30));
    corpus.refused("onnx_not_finite", changed(|graph| floats(graph, "Scaler", "offset")[1] = f32::NAN));
    corpus.refused("onnx_node", changed(|graph| node(graph, "Scaler").op_type = Some("MatMul".into())));
    corpus.refused("onnx_node-escape", replaced(IRIS, b"SOFTMAX", b"SOFT\x1b[2"));
    corpus.refused("onnx_graph-no-classifier", changed(|graph| bypass(graph, "LinearClassifier")));
    corpus.refused("onnx_graph-two-inputs", changed(|graph| graph.input.push(graph.input[0].clone())));
    corpus.refused("too_wide", changed(|graph| reshape(graph, 410, 5)));
    corpus.refused("not_onnx-truncated", &IRIS[..IRIS.len() - 1]);
    corpus.refused("not_onnx-empty", []);
    corpus.refused("not_onnx-too-long-a-name", [0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
}

fn changed(change: impl FnOnce(&mut GraphProto)) -> Vec<u8> {
    let mut model = ModelProto::parse_buf(IRIS).expect("the file is ONNX");
    change(model.graph.as_mut().expect("the file has a graph"));
    model.write_buf().expect("a Vec takes every byte")
}

fn node<'a>(graph: &'a mut GraphProto, op: &str) -> &'a mut NodeProto {
    graph.node.iter_mut().find(|node| node.op_type.as_deref() == Some(op)).expect("the graph has one")
}

fn attribute<'a>(graph: &'a mut GraphProto, op: &str, name: &str) -> &'a mut AttributeProto {
    let attributes = &mut node(graph, op).attribute;
    attributes.iter_mut().find(|attribute| attribute.name.as_deref() == Some(name)).expect("the node has one")
}

fn floats<'a>(graph: &'a mut GraphProto, op: &str, name: &str) -> &'a mut Vec<f32> {
    &mut attribute(graph, op, name).floats
}

/// Takes a node out, and joins its input to whoever read its last output.
fn bypass(graph: &mut GraphProto, op: &str) {
    let NodeProto { input, output, .. } = node(graph, op).clone();
    graph.node.retain(|node| node.op_type.as_deref() != Some(op));
    let (from, to) = (&output[output.len() - 1], &input[0]);
    let read = graph.node.iter_mut().flat_map(|node| &mut node.input);
    let outputs = graph.output.iter_mut().filter_map(|output| output.name.as_mut());
    for name in read.chain(outputs).filter(|name| *name == from) {
        name.clone_from(to);
    }
}

/// Another number of columns and classes.
fn reshape(graph: &mut GraphProto, features: usize, classes: usize) {
    let wave = |length: usize| (0..length).map(|index| (index as f32).sin()).collect::<Vec<_>>();
    let labels: Vec<String> = (0..classes).map(|class| format!("class {class}")).collect();
    let tensor = graph.input[0].r#type.as_mut().and_then(|kind| kind.tensor_type.as_mut());
    tensor.expect("the input is a tensor").shape = None;
    *floats(graph, "Scaler", "offset") = wave(features);
    *floats(graph, "Scaler", "scale") = vec![1.0; features];
    *floats(graph, "LinearClassifier", "coefficients") = wave(features * classes);
    *floats(graph, "LinearClassifier", "intercepts") = wave(classes);
    for op in ["LinearClassifier", "ZipMap"] {
        attribute(graph, op, "classlabels_strings").strings.clone_from(&labels);
    }
}

fn integer_labels(graph: &mut GraphProto) {
    for (op, name) in [("LinearClassifier", "classlabels_ints"), ("ZipMap", "classlabels_int64s")] {
        let labels = attribute(graph, op, "classlabels_strings");
        labels.name = Some(name.into());
        labels.strings.clear();
        labels.ints = vec![-1, 0, 7];
    }
    let label = node(graph, "Identity");
    label.op_type = Some("Cast".into());
    label.attribute = vec![AttributeProto { name: Some("to".into()), i: Some(7), ..Default::default() }];
}

fn bundles(iris: &Bundle) {
    let corpus = Corpus::new("bundle");
    corpus.valid("iris", iris.to_bytes());
    let range = |name: &str| FeatureRange { name: name.into(), low: -1.0, high: 8.0 };
    let ranges = ["sepal length", "sepal width", "petal length", "Blütenblattbreite"].map(range).into();
    let options = ImportOptions { precision: 0.5, ranges: Some(ranges), ..ImportOptions::new("coarse", "2") };
    corpus.valid("coarse", imported(IRIS, options).to_bytes());
    let wide = changed(|graph| reshape(graph, 16, 5));
    corpus.valid(
        "wide",
        imported(&wide, ImportOptions { precision: 0.01, ..ImportOptions::new("wide", "1") }).to_bytes(),
    );

    let bytes = iris.to_bytes();
    corpus.refused("format_malformed-truncated", &bytes[..bytes.len() - 1]);
    corpus.refused("format_not_deterministic-trailing-byte", [&bytes[..], &[0]].concat());
    corpus.refused("format_version", replaced(&bytes, b"\x61v\x01", b"\x61v\x02"));
    corpus.refused("format_domain", replaced(&bytes, b"cloister/bundle", b"cloister/Bundle"));
    corpus.refused("bundle_stated_error", replaced(&bytes, b"\x66export\xfb\x3e", b"\x66export\xfb\xbe"));
    corpus.refused("bundle_shape", replaced(&bytes, b"\x61v\x01\x66biases\x83", b"\x61v\x01\x66biases\x84\x00"));
    corpus.refused("bundle_limit", replaced(&bytes, b"\x65limit\x1b\x67", b"\x65limit\x1b\x66"));
}

fn descriptions(iris: &Bundle) {
    let corpus = Corpus::new("description");
    let bytes = iris.description().to_bytes();
    corpus.valid("iris", &bytes);
    let integers = changed(integer_labels);
    let integers = imported(&integers, ImportOptions::new("integers", "1")).description().to_bytes();
    corpus.valid("integer-labels", integers);
    corpus.refused("format_malformed-truncated", &bytes[..bytes.len() - 1]);
    corpus.refused("format_not_deterministic-long-form", replaced(&bytes, b"\x61v\x01", b"\x61v\x18\x01"));
    corpus.refused("identifier", replaced(&bytes, b"\x64iris", b"\x64../i"));
    corpus.refused("text", replaced(&bytes, b"\x62x0", b"\x62\x1b0"));
    corpus.refused("duplicate", replaced(&bytes, b"\x62x1", b"\x62x0"));
    corpus.refused("decimals", replaced(&bytes, b"decimals\x03", b"decimals\x10"));
    corpus.refused("scale", replaced(&bytes, b"\x65reply\x18\x1d", b"\x65reply\x18\x7f"));
}
