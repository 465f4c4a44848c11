//! ONNX files, and the bundles and descriptions that are made of them.

use ciborium::Value;
use cloister_inference::{Bundle, BundleError, FeatureRange, ImportOptions, Thresholds, import};
use rten_onnx::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto};

use crate::{Corpus, at, replaced, set};

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

macro_rules! choosing {
    ($name:literal) => {
        ($name, include_bytes!(concat!("../../../tests/data/trees/", $name, ".onnx")) as &[u8])
    };
}

/// Those with scalers, which say where columns lie.
const CHOOSING: [(&str, &[u8]); 3] =
    [choosing!("cancer-tree-scaled"), choosing!("iris-boosting-scaled"), choosing!("iris-network")];

const TREE: &[u8] = choosing!("linnerud-tree").1;
const NETWORK: &[u8] = choosing!("diabetes-network").1;

/// Returns the bundle of the Iris model, one for the larger ring, and those that [`choosers`] makes.
pub(crate) fn write() -> (Bundle, Bundle, [Bundle; 3]) {
    onnx();
    let bundle = imported(IRIS, ImportOptions::new("iris", "1.0"));
    let models = Models::new();
    bundles(&bundle, &models);
    descriptions(&bundle, &models);
    (bundle, models.larger_ring, models.choosers)
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
    CHOOSING.iter().for_each(|(name, onnx)| corpus.valid(name, onnx));
    corpus.valid("network", network());

    corpus.refused("no_ranges", changed(|graph| bypass(graph, "Scaler")));
    corpus.refused("no_ranges-regression", REGRESSION);
    corpus.refused("no_ranges-tree", TREE);
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
    changed_of(IRIS, change)
}

fn changed_of(onnx: &[u8], change: impl FnOnce(&mut GraphProto)) -> Vec<u8> {
    let mut model = ModelProto::parse_buf(onnx).expect("the file is ONNX");
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

/// A tree of one column, whose requests are short.
fn tree() -> Vec<u8> {
    changed_of(TREE, |graph| {
        columns(graph, 1);
        attribute(graph, "TreeEnsembleRegressor", "nodes_featureids").ints.fill(0);
        let cuts = [1.5, 0.0, 6.0, 3.0, 0.0, 0.0, 9.0, 0.0, 0.0];
        floats(graph, "TreeEnsembleRegressor", "nodes_values").copy_from_slice(&cuts);
    })
}

/// A network of one column and two units.
fn network() -> Vec<u8> {
    changed_of(NETWORK, |graph| {
        columns(graph, 1);
        *floats(graph, "Scaler", "offset") = vec![0.5];
        *floats(graph, "Scaler", "scale") = vec![2.0];
        initializer(graph, "coefficient", &[1, 2], &[0.7, -0.4]);
        initializer(graph, "intercepts", &[1, 2], &[0.1, 0.3]);
        initializer(graph, "coefficient1", &[2, 1], &[1.5, -0.8]);
        initializer(graph, "intercepts1", &[1, 1], &[0.2]);
    })
}

fn initializer(graph: &mut GraphProto, name: &str, dims: &[i64], values: &[f32]) {
    let tensor = graph.initializer.iter_mut().find(|tensor| tensor.name.as_deref() == Some(name));
    let tensor = tensor.expect("the graph has one");
    (tensor.dims, tensor.float_data, tensor.raw_data) = (dims.into(), values.into(), None);
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
    choosers: [Bundle; 3],
}

/// By the numbers that `cloister_fuzz::choosers` gives them.
const CHOOSERS: [&str; 3] = ["tree-hidden", "tree-public", "network"];

fn choosers() -> [Bundle; 3] {
    let options = |name: &str, precision, thresholds| ImportOptions {
        precision,
        thresholds,
        ranges: Some(ranges(&["chins"], (1.0, 11.0), None)),
        ..ImportOptions::new(name, "1")
    };
    // Two bits tell these rows from each other.
    let rows = [1.5, 4.5, 7.5, 10.5].map(|x| vec![x]).to_vec();
    [
        imported(&tree(), options("tree-hidden", 1.0, Thresholds::Hidden)),
        imported(&tree(), options("tree-public", 1.0, Thresholds::Public)),
        imported(&network(), ImportOptions { rows, ..options("network", 0.05, Thresholds::Hidden) }),
    ]
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
        Self {
            named,
            exact,
            grid,
            normalized: imported(NORMALIZED, options("normalized", 1e-3)),
            larger_ring,
            choosers: choosers(),
        }
    }

    fn all(&self) -> impl Iterator<Item = (&str, &Bundle)> {
        let Self { named, exact, grid, normalized, larger_ring, choosers } = self;
        let own = [("exact", exact), ("grid", grid), ("normalized", normalized), ("larger-ring", larger_ring)];
        named.iter().map(|(name, bundle)| (*name, bundle)).chain(own).chain(CHOOSERS.into_iter().zip(choosers))
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
    corpus.refused("kind-a-ring-of-trees", described(iris, "parameters", "k4-n512-tuniform17"));
    trees_and_networks(&corpus, &models.choosers);
}

fn trees_and_networks(corpus: &Corpus, [hidden, public, network]: &[Bundle; 3]) {
    let tree = hidden.to_bytes();
    corpus.valid("tree-lone-leaf", limited(&set(&tree, "model/trees/trees", trees(vec![vec![7.into(); 3]], vec![]))));
    let larger_ring = described_in(&described(hidden, "parameters", "n4096-tuniform3"), "bound", 2.0);
    corpus.valid("tree-larger-ring", limited(&larger_ring));
    corpus.valid("tree-two-levels", limited(&described(hidden, "selection/gadget/levels", 2)));
    for (name, path, value) in [
        ("feature", "0", 1),
        ("no-cut", "1", 0),
        ("cut-beyond", "1", 8),
        ("itself", "2", 0),
        ("the-same-twice", "2", 1),
        ("nowhere", "3", i64::MAX),
    ] {
        let path = format!("model/trees/trees/0/branches/0/{path}");
        corpus.refused(&format!("bundle_model-{name}"), set(&tree, &path, value));
    }
    corpus.refused("bundle_model-no-trees", set(&tree, "model/trees/trees", Value::Array(vec![])));
    corpus.refused("bundle_model-no-leaf", set(&tree, "model/trees/trees", trees(vec![], vec![])));
    corpus.refused("bundle_model-base", set(&tree, "model/trees/base", Value::Array(vec![])));
    corpus.refused("bundle_model-leaf-of-none", set(&tree, "model/trees/trees/0/leaves/0", Value::Array(vec![])));
    corpus.refused("bundle_uncertain-leaf", set(&tree, "model/trees/trees/0/leaves/0/0", i64::MIN));
    corpus.refused("bundle_uncertain-check", described(public, "selection/check/bits", 16));
    corpus.refused("bundle_limit-tree", described(hidden, "limit", 1));
    corpus.refused("bundle_bound-tree", set(&tree, "export", 1.0));
    corpus.refused("bundle_kind-neither", set(&tree, "v", 1));
    corpus.refused("kind-a-shift", described(hidden, "scale/shift", 8));

    let network = network.to_bytes();
    for (name, path, value) in [
        ("starts-before", "start", -1),
        ("starts-behind", "start", i64::MAX),
        ("turns-before", "turns/0", i64::MIN),
        ("turns-behind", "turns/0", i64::MAX),
    ] {
        let path = format!("model/network/neurons/0/{path}");
        corpus.refused(&format!("bundle_model-{name}"), set(&network, &path, value));
    }
    let neuron = |path: &str| set(&network, &format!("model/network/neurons/0/{path}"), Value::Array(vec![]));
    corpus.refused("bundle_model-no-table", neuron("table"));
    corpus.refused("bundle_model-no-turns", neuron("turns"));
}

fn trees(leaves: Vec<Vec<Value>>, branches: Vec<Value>) -> Value {
    let leaves = leaves.into_iter().map(Value::Array).collect();
    let tree = vec![("leaves".into(), Value::Array(leaves)), ("branches".into(), Value::Array(branches))];
    Value::Array(vec![Value::Map(tree)])
}

/// The bundle with something else in its description.
fn described(bundle: &Bundle, path: &str, value: impl Into<Value>) -> Vec<u8> {
    described_in(&bundle.to_bytes(), path, value)
}

fn described_in(bundle: &[u8], path: &str, value: impl Into<Value>) -> Vec<u8> {
    let mut document: Value = ciborium::from_reader(bundle).expect("the bundle is CBOR");
    let description = at(&mut document, "description").as_bytes().expect("the description is bytes").clone();
    set(bundle, "description", set(&description, path, value))
}

/// With the limit that its integers have.
fn limited(bundle: &[u8]) -> Vec<u8> {
    match Bundle::from_bytes(bundle) {
        Err(BundleError::Limit { actual, .. }) => {
            described_in(bundle, "limit", u64::try_from(actual).expect("logits are words"))
        }
        other => panic!("{other:?} has a limit of its own"),
    }
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
    corpus.refused("kind-a-ring-of-trees", set(&bytes, "parameters", "k4-n512-tuniform17"));
    selections(&corpus, &models.choosers);
    logits_and_layouts(&corpus, &bytes);
    scales(&corpus, &bytes, &exact);
}

/// What is said of bits, their gadget and their check.
fn selections(corpus: &Corpus, [hidden, public, _]: &[Bundle; 3]) {
    let [hidden, public] = [hidden, public].map(|bundle| bundle.description().to_bytes());
    let cuts = |cuts: &[f64]| Value::Array(cuts.iter().map(|&cut| cut.into()).collect());
    corpus.valid("no-bits", set(&public, "selection/grids/0/cuts", cuts(&[])));
    corpus.valid("twelve-bits", set(&hidden, "selection/grids/0/uniform", 12));
    corpus.refused("kind-a-shift", set(&hidden, "scale/shift", 8));
    corpus.refused("kind-layouts", set(&hidden, "v", 1));
    for (name, path, value) in [
        ("no-uniform-bits", "grids/0/uniform", 0),
        ("thirteen-bits", "grids/0/uniform", 13),
        ("no-check", "check/count", 0),
        ("long-check", "check/count", 65),
        ("endless-check", "check/count", i64::MAX),
        ("check-of-no-bits", "check/bits", 0),
        ("check-of-words", "check/bits", 17),
        ("no-levels", "gadget/levels", 0),
        ("five-levels", "gadget/levels", 5),
        ("digits-of-a-bit", "gadget/base", 1),
        ("digits-of-a-word", "gadget/base", 33),
        ("more-digits-than-a-float-has", "gadget/levels", 3),
    ] {
        corpus.refused(&format!("selection-{name}"), set(&hidden, &format!("selection/{path}"), value));
    }
    corpus.refused("selection-no-grids", set(&hidden, "selection/grids", Value::Array(vec![])));
    for (name, values) in [("not-ascending", [3.0, 1.5]), ("twice", [3.0, 3.0]), ("endless", [3.0, f64::INFINITY])] {
        corpus.refused(&format!("selection-cuts-{name}"), set(&public, "selection/grids/0/cuts", cuts(&values)));
    }
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
