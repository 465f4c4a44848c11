//! ONNX files, and the bundles and descriptions that are made of them.

use ciborium::Value;
use cloister_inference::{Bundle, FeatureRange, ImportOptions, import};
use rten_onnx::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto};

use crate::{Corpus, replaced, set};

const IRIS: &[u8] = include_bytes!("../../../tests/data/iris/iris.onnx");

macro_rules! linear {
    ($name:literal) => {
        ($name, include_bytes!(concat!("../../../tests/data/linear/", $name, ".onnx")) as &[u8])
    };
}

/// Real files of different tails, types and preparations, whose scalers say where their columns lie.
const LINEAR: [(&str, &[u8]); 15] = [
    linear!("cancer-lda"),
    linear!("cancer-logistic-bool"),
    linear!("cancer-one-vs-rest"),
    linear!("cancer-raw-scores"),
    linear!("cancer-ridge-raw"),
    linear!("diabetes-gamma"),
    linear!("diabetes-linear-double"),
    linear!("iris-logistic-columns"),
    linear!("iris-logistic-odd-labels"),
    linear!("iris-named-groups"),
    linear!("iris-normalizer-double"),
    linear!("iris-one-vs-rest"),
    linear!("iris-sgd-log"),
    linear!("wine-pca"),
    linear!("wine-logistic-zipmap"),
];

const NORMALIZED: &[u8] = linear!("iris-normalizer-double").1;
const IMPUTED: &[u8] = linear!("iris-imputer").1;
const REGRESSION: &[u8] = linear!("linnerud-linear").1;
const PIXELS: &[u8] = linear!("digits-sgd-hinge").1;
const NAMED: &[u8] = linear!("iris-named").1;

/// Returns the bundle of the Iris model, and one for the larger ring.
pub(crate) fn write() -> (Bundle, Bundle) {
    onnx();
    let bundle = imported(IRIS, ImportOptions::new("iris", "1.0"));
    let models = Models::new();
    bundles(&bundle, &models);
    descriptions(&bundle, &models);
    (bundle, models.larger_ring)
}

fn imported(onnx: &[u8], options: ImportOptions) -> Bundle {
    import(onnx, &options).unwrap_or_else(|error| panic!("{}: {error}", options.name)).bundle
}

fn onnx() {
    let corpus = Corpus::new("onnx");
    corpus.valid("iris", IRIS);
    corpus.valid("integer-labels", changed(integer_labels));
    corpus.valid("wide", changed(|graph| reshape(graph, 16, 5)));
    corpus.valid("no-zip-map", changed(|graph| bypass(graph, "ZipMap")));
    corpus.valid(
        "more-features-than-a-polynomial-holds",
        changed(|graph| {
            reshape(graph, 410, 5);
            floats(graph, "LinearClassifier", "coefficients").iter_mut().for_each(|weight| *weight *= 0.01);
        }),
    );
    LINEAR.iter().for_each(|(name, onnx)| corpus.valid(name, onnx));
    corpus.valid("iris-imputer", IMPUTED);

    corpus.refused("no_ranges", changed(|graph| bypass(graph, "Scaler")));
    corpus.refused("no_ranges-regression", REGRESSION);
    corpus.refused("range", changed(|graph| floats(graph, "Scaler", "scale")[0] = 0.0));
    corpus.refused("text-escape", escaped_everywhere(NAMED));
    corpus.refused("precision", changed(|graph| floats(graph, "LinearClassifier", "coefficients")[0] = 1e30));
    corpus.refused("onnx_not_finite", changed(|graph| floats(graph, "Scaler", "offset")[1] = f32::NAN));
    corpus.refused("onnx_node", changed(|graph| node(graph, "Scaler").op_type = Some("MatMul".into())));
    corpus.refused("onnx_node-tree", changed(|graph| node(graph, "Scaler").op_type = Some("TreeEnsemble".into())));
    corpus.refused("onnx_node-escape", replaced(IRIS, b"SOFTMAX", b"SOFT\x1b[2"));
    corpus.refused("onnx_graph-no-classifier", changed(|graph| bypass(graph, "LinearClassifier")));
    corpus.refused("onnx_graph-no-outputs", changed(|graph| graph.output.clear()));
    corpus.refused("onnx_graph-two-inputs", changed(|graph| graph.input.push(graph.input[0].clone())));
    corpus.refused("onnx_too_wide-features", changed(|graph| columns(graph, 50_001)));
    corpus.refused("onnx_too_wide-endless", changed(|graph| columns(graph, i64::MAX)));
    corpus.refused("onnx_too_wide-labels", changed(|graph| reshape(graph, 1, 1001)));
    corpus.refused("not_onnx-truncated", &IRIS[..IRIS.len() - 1]);
    corpus.refused("not_onnx-empty", []);
    corpus.refused("not_onnx-too-long-a-name", [0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
}

fn changed(change: impl FnOnce(&mut GraphProto)) -> Vec<u8> {
    let mut model = ModelProto::parse_buf(IRIS).expect("the file is ONNX");
    change(model.graph.as_mut().expect("the file has a graph"));
    model.write_buf().expect("a Vec takes every byte")
}

/// With a control character in the names of columns, wherever they are.
fn escaped_everywhere(onnx: &[u8]) -> Vec<u8> {
    let places = (0..onnx.len()).filter(|&place| onnx[place..].starts_with(b"sepal"));
    let mut escaped = onnx.to_vec();
    places.for_each(|place| escaped[place..place + 4].copy_from_slice(b"\x1b[2J"));
    escaped
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
    *floats(graph, "Scaler", "scale") = vec![0.5; features];
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

/// What the only input says of its columns.
fn columns(graph: &mut GraphProto, columns: i64) {
    let tensor = graph.input[0].r#type.as_mut().and_then(|kind| kind.tensor_type.as_mut());
    let shape = tensor.and_then(|tensor| tensor.shape.as_mut()).expect("the input is a tensor with a shape");
    shape.dim[1].dim_value = Some(columns);
}

/// Bundles of all kinds.
struct Models {
    named: Vec<(&'static str, Bundle)>,
    exact: Bundle,
    grid: Bundle,
    normalized: Bundle,
    larger_ring: Bundle,
}

impl Models {
    fn new() -> Self {
        let options = |name: &str, precision| ImportOptions { precision, ..ImportOptions::new(name, "1") };
        let with_ranges = |options: ImportOptions, ranges| ImportOptions { ranges: Some(ranges), ..options };
        let coarse = ["sepal length", "sepal width", "petal length", "Blütenblattbreite"];
        let coarse = with_ranges(options("coarse", 0.5), ranges(&coarse, (-1.0, 8.0), None));
        let exercises = ["chins", "sit-ups", "jumps"];
        let regression = with_ranges(options("regression", 1e-2), ranges(&exercises, (1.0, 300.0), None));
        let grid = with_ranges(options("grid", 1e-9), ranges(&exercises, (1.0, 300.0), Some(0.5)));
        let pixels: Vec<_> = (0..64).map(|pixel| format!("p{pixel}")).collect();
        let pixels: Vec<_> = pixels.iter().map(String::as_str).collect();
        let pixels = with_ranges(options("pixels", 1e-6), ranges(&pixels, (0.0, 16.0), Some(1.0)));
        // Privacy and a budget, which only the larger ring has room for.
        let hidden =
            ImportOptions { model_privacy: Some(2_f64.powi(-30)), budget: Some(10_000), ..options("hidden", 1e-3) };
        let wide = changed(|graph| reshape(graph, 16, 5));
        let exact = imported(NORMALIZED, options("exact", 1e-9));
        let grid = imported(REGRESSION, grid);
        let larger_ring = imported(IRIS, hidden);
        assert!([&exact, &grid, &larger_ring].iter().all(|bundle| bundle.description().scale().is_exact()));
        assert!(grid.description().features()[0].step.is_some());
        assert_eq!(larger_ring.parameters().name(), "n4096-tuniform3");
        let named = vec![
            ("coarse", imported(IRIS, coarse)),
            ("wide", imported(&wide, options("wide", 0.01))),
            ("regression", imported(REGRESSION, regression)),
            ("imputer", imported(IMPUTED, options("imputer", 1e-3))),
            ("one-logit", imported(linear!("cancer-ridge-raw").1, options("one-logit", 1e-6))),
            ("pixels", imported(PIXELS, pixels)),
        ];
        Self { named, exact, grid, normalized: imported(NORMALIZED, options("normalized", 1e-3)), larger_ring }
    }

    fn all(&self) -> impl Iterator<Item = (&str, &Bundle)> {
        let Self { named, exact, grid, normalized, larger_ring } = self;
        let own = [("exact", exact), ("grid", grid), ("normalized", normalized), ("larger-ring", larger_ring)];
        named.iter().map(|(name, bundle)| (*name, bundle)).chain(own)
    }
}

fn ranges(names: &[&str], (low, high): (f64, f64), step: Option<f64>) -> Vec<FeatureRange> {
    names.iter().map(|&name| FeatureRange { name: name.into(), low, high, step }).collect()
}

fn bundles(iris: &Bundle, models: &Models) {
    let corpus = Corpus::new("bundle");
    corpus.valid("iris", iris.to_bytes());
    for (name, bundle) in models.all() {
        corpus.valid(name, bundle.to_bytes());
    }

    let bytes = iris.to_bytes();
    corpus.refused("format_malformed-truncated", &bytes[..bytes.len() - 1]);
    corpus.refused("format_malformed-description", set(&bytes, "description", "none"));
    corpus.refused("format_not_deterministic-trailing-byte", [&bytes[..], &[0]].concat());
    corpus.refused("format_version", set(&bytes, "v", 3));
    corpus.refused("format_domain", set(&bytes, "domain", "cloister/Bundle"));
    corpus.refused("format_domain-inside", described(iris, "domain", "cloister/bundle"));
    corpus.refused("bundle_stated_error", set(&bytes, "export", -1e-9));
    corpus.refused("bundle_stated_error-nan", set(&bytes, "arithmetic", f64::NAN));
    corpus.refused("bundle_shape-biases", set(&bytes, "biases", Value::Array(vec![])));
    corpus.refused("bundle_shape-weights", set(&bytes, "weights/1", Value::Array(vec![])));
    corpus.refused("bundle_shape-digits", set(&bytes, "biases/0", Value::Array(vec![0.into(), 0.into()])));
    corpus.refused("bundle_limit", described(iris, "limit", 1));
    corpus.refused("bundle_bound", described(iris, "bound", 6e-4));
    corpus.refused("bundle_bound-stated", set(&bytes, "export", 1e-2));
    corpus.refused("bundle_uncertain-weight", set(&bytes, "weights/0/0", i64::MIN));
    corpus.refused("bundle_uncertain-bias", set(&bytes, "biases/0/0", i64::MAX));
    corpus.refused("bundle_uncertain-reply", described(iris, "scale/reply", 10));
    corpus.refused("bundle_uncertain-flood", described(iris, "scale/flood", 62));
    corpus.refused("bundle_uncertain-noise-is-not-rounded-away", described(&models.exact, "scale/flood", 41));
    corpus.refused("format_not_deterministic-no-layouts", described(iris, "layouts", Value::Array(vec![])));
    corpus.refused("scale-limbs", described(&models.exact, "limbs/features/count", 9));
}

/// The bundle with something else in its description.
fn described(bundle: &Bundle, path: &str, value: impl Into<Value>) -> Vec<u8> {
    set(&bundle.to_bytes(), "description", set(&bundle.description().to_bytes(), path, value))
}

fn descriptions(iris: &Bundle, models: &Models) {
    let corpus = Corpus::new("description");
    let bytes = iris.description().to_bytes();
    corpus.valid("iris", &bytes);
    let integers = changed(integer_labels);
    let integers = imported(&integers, ImportOptions::new("integers", "1")).description().to_bytes();
    corpus.valid("integer-labels", integers);
    for (name, bundle) in models.all() {
        corpus.valid(name, bundle.description().to_bytes());
    }
    for link in ["identity", "one-vs-rest"] {
        corpus.valid(link, set(&bytes, "link", link));
    }
    let [exact, grid, normalized] =
        [&models.exact, &models.grid, &models.normalized].map(|bundle| bundle.description().to_bytes());

    corpus.refused("format_malformed-truncated", &bytes[..bytes.len() - 1]);
    corpus.refused("format_malformed-link", set(&bytes, "link", "probit"));
    corpus.refused("format_malformed-parameters", set(&bytes, "parameters", "n8192"));
    corpus.refused("format_malformed-step", set(&normalized, "steps/0", "sort"));
    corpus.refused("format_not_deterministic-long-form", replaced(&bytes, b"\x61v\x01", b"\x61v\x18\x01"));
    corpus.refused("format_version", set(&bytes, "v", 3));
    corpus.refused("format_domain", set(&bytes, "domain", "cloister/bundle"));
    corpus.refused("identifier", set(&bytes, "name", "../i"));
    corpus.refused("identifier-version", set(&bytes, "version", ""));
    corpus.refused("text", set(&bytes, "features/0/name", "\x1b0"));
    corpus.refused("text-label", set(&bytes, "labels/0", "\x1b[2J"));
    corpus.refused("duplicate", set(&bytes, "features/1/name", "x0"));
    corpus.refused("duplicate-label", set(&bytes, "labels", labels(["1".into(), 1.into(), "2".into()])));
    corpus.refused("decimals", set(&bytes, "decimals", 16));
    corpus.refused("bound", set(&bytes, "bound", 1e-4));
    corpus.refused("bound-nan", set(&bytes, "bound", f64::NAN));
    corpus.refused("limit", set(&bytes, "limit", 1_u64 << 63));
    corpus.refused("empty_model", set(&bytes, "features", Value::Array(vec![])));
    corpus.refused("range", set(&bytes, "features/0/high", -1e3));
    corpus.refused("range-infinite", set(&bytes, "features/0/high", f64::INFINITY));
    for (name, step) in [("", 0.7), ("-zero", 0.0), ("-negative", -0.5), ("-nan", f64::NAN), ("-too-fine", 1e-12)] {
        corpus.refused(&format!("grid{name}"), set(&grid, "features/0/step", step));
    }
    corpus.refused("step", set(&normalized, "steps", steps("impute", "values", vec![Value::Null])));
    corpus
        .refused("step-infinite", set(&normalized, "steps", steps("impute", "values", vec![f64::INFINITY.into(); 4])));
    logits_and_layouts(&corpus, &bytes);
    scales(&corpus, &bytes, &exact);
}

fn labels<const N: usize>(labels: [Value; N]) -> Value {
    Value::Array(labels.into())
}

fn steps(step: &str, parameter: &str, values: Vec<Value>) -> Value {
    let parameters = Value::Map(vec![(parameter.into(), Value::Array(values))]);
    Value::Array(vec![Value::Map(vec![(step.into(), parameters)])])
}

fn logits_and_layouts(corpus: &Corpus, bytes: &[u8]) {
    corpus.refused("logits", set(bytes, "logits", 2));
    corpus.refused("logits-of-a-regression", set(bytes, "link", "exp"));
    corpus.refused("logits-sigmoid-of-three", set(bytes, "link", "sigmoid"));
    let regression = set(&set(bytes, "labels", labels([])), "link", "exp");
    corpus.valid("exp", &regression);
    corpus.refused("logits-none", set(&regression, "logits", 0));
    corpus.refused("too_wide", set(&regression, "logits", 1001));
    corpus.refused("too_wide-endless", set(&regression, "logits", u64::MAX));

    let layout = |outputs: u64, features: u64| {
        Value::Map(vec![("outputs".into(), outputs.into()), ("features".into(), features.into())])
    };
    let layouts = |layouts: Vec<Value>| set(bytes, "layouts", Value::Array(layouts));
    corpus.valid("three-layouts", layouts(vec![layout(3, 4), layout(1, 4), layout(2, 3)]));
    corpus.refused("format_not_deterministic-no-layouts", layouts(vec![]));
    corpus.refused("layout-nine", layouts(vec![layout(3, 4); 9]));
    corpus.refused("layout-twice", layouts(vec![layout(3, 4), layout(1, 4), layout(3, 4)]));
    corpus.refused("layout-no-outputs", layouts(vec![layout(0, 4)]));
    corpus.refused("layout-no-features", layouts(vec![layout(3, 0)]));
    corpus.refused("layout-more-outputs", layouts(vec![layout(4, 4)]));
    corpus.refused("layout-endless", layouts(vec![layout(u64::MAX, u64::MAX)]));
}

fn scales(corpus: &Corpus, bytes: &[u8], exact: &[u8]) {
    for (name, path, value) in [
        ("-no-bits", "scale/reply", 0),
        ("", "scale/reply", 127),
        ("-no-feature", "scale/features", 0),
        ("-features", "scale/features", 52),
        ("-weights", "scale/weights", 111),
        ("-coarsest", "scale/weights", i64::from(i32::MIN)),
        ("-flood", "scale/flood", 63),
        ("-shift", "scale/shift", 63),
        ("-longer-than-a-word", "scale/shift", 65),
        ("-digits-of-an-interval", "limbs/weights/count", 2),
    ] {
        corpus.refused(&format!("scale{name}"), set(bytes, path, value));
    }
    for (name, path, value) in [
        ("no-digits", "limbs/weights/count", 0),
        ("nine-digits", "limbs/weights/count", 9),
        ("no-bits-of-a-digit", "limbs/features/bits", 0),
        ("long-digits", "limbs/features/bits", 63),
        ("exact-shift", "scale/shift", i64::from(u32::MAX)),
    ] {
        corpus.refused(&format!("scale-{name}"), set(exact, path, value));
    }
    corpus.refused("scale-far-apart", set(&set(exact, "limbs/features/bits", 62), "limbs/features/count", 8));
}
