//! The graph, node by node, as a chain and a tail.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use rten_onnx::onnx::{DataType, NodeProto};

use super::ImportError;
use super::chain::{Chain, Id, Operation, State, TooLarge};
use super::nonlinear::Source;
use super::onnx::{Graph, graph_refused, op};
use super::preparation::Preparation;
use super::refusal::{refused, refused_for};
use super::shaping::cast_type;
use super::tail::{self, Formula, Matched, Mismatch};
use super::tensor::Tensor;
use crate::description::{Label, Link};

/// A model as its file has it.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) graph: Graph,
    pub(super) chain: Chain,
    /// The vector of logits.
    pub(super) logits: Id,
    /// Where the graph has each of them: a value and its element.
    pub(super) places: Vec<(String, usize)>,
    pub(super) link: Link,
    /// None of a regression.
    pub(super) labels: Vec<Label>,
    pub(super) preparation: Preparation,
    /// How the logits come about.
    pub(super) source: Source,
}

/// A value of the graph, as far as it is understood.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Constant(Rc<Tensor>),
    /// A vector of the chain: rows of that width; or, if flat, single numbers one below the other.
    Vector {
        id: Id,
        flat: bool,
    },
    /// A function of scores, with rows of that width.
    Formula {
        formula: Rc<Formula>,
        width: usize,
    },
    /// The place of the largest.
    Largest {
        of: Rc<Formula>,
        width: usize,
    },
    /// The label at that place.
    Label {
        labels: Rc<Vec<Label>>,
        of: Rc<Formula>,
    },
    /// Scores by their labels.
    Map {
        labels: Rc<Vec<Label>>,
        scores: Box<Value>,
    },
}

/// What has been read so far.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) chain: Chain,
    values: HashMap<String, Value>,
    /// The first value of the graph that is this vector.
    names: HashMap<Id, String>,
    /// How many functions of scores each value is of, one inside the other.
    depths: HashMap<String, usize>,
    /// The values that are float64.
    doubles: HashSet<String>,
    pub(super) preparation: Preparation,
}

impl Model {
    /// Reads an ONNX file.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, ImportError> {
        Self::from_graph(Graph::read(bytes)?)
    }

    /// The columns of a row.
    pub(super) fn features(&self) -> usize {
        self.graph.columns()
    }

    fn from_graph(graph: Graph) -> Result<Self, ImportError> {
        check_size("features", graph.columns(), MAX_FEATURES)?;
        let mut reader = Reader::new(&graph)?;
        for node in &graph.nodes {
            let values = reader.node(node)?;
            if values.len() < node.output.len() {
                return Err(refused(node, format!("it has {} outputs", node.output.len())));
            }
            let depth = 1 + node.input.iter().filter_map(|name| reader.depths.get(name)).max().unwrap_or(&0);
            for (name, value) in node.output.iter().zip(values) {
                reader.count(node, &value)?;
                reader.deepen(node, name, &value, depth)?;
                reader.insert(name, value);
            }
            reader.keep_type(node);
        }
        reader.finish(graph)
    }
}

const MAX_FEATURES: usize = 50_000;
pub(super) const MAX_LOGITS: usize = 1000;
const MAX_WEIGHTS: usize = 1 << 22;

pub(super) fn check_size(what: &'static str, actual: usize, max: usize) -> Result<(), ImportError> {
    match actual {
        0 => Err(graph_refused(format!("it has no {what}"))),
        actual if actual > max => Err(ImportError::TooWide { what, actual, max }),
        _ => Ok(()),
    }
}

/// What looking a node up takes, in multiplications.
const ELEMENTS_OF_A_NODE: usize = 64;

/// Far deeper than any formula in the list of tails.
const MAX_DEPTH: usize = 64;

impl Reader {
    fn new(graph: &Graph) -> Result<Self, ImportError> {
        let mut reader = Self { preparation: Preparation::new(graph.columns()), ..Self::default() };
        for (name, constant) in &graph.constants {
            reader.insert(name, Value::Constant(constant.clone()));
            reader.doubles.extend(constant.is_double().then(|| name.clone()));
        }
        let mut first = 0;
        for input in &graph.inputs {
            let columns = (first..first + input.columns).collect();
            first += input.columns;
            let operation = Operation::Columns { columns, state: State::Raw };
            let id = reader.chain.push(input.columns, operation).map_err(too_large)?;
            reader.insert(&input.name, Value::Vector { id, flat: false });
            reader.doubles.extend(input.is_double.then(|| input.name.clone()));
        }
        Ok(reader)
    }

    /// The self-check runs every node, whatever it does, and keeps what it gives.
    fn count(&mut self, node: &NodeProto, value: &Value) -> Result<(), ImportError> {
        let width = match value {
            Value::Constant(constant) => constant.len(),
            Value::Vector { id, .. } => self.chain.width(*id),
            Value::Formula { .. } | Value::Largest { .. } | Value::Label { .. } | Value::Map { .. } => 0,
        };
        let elements = width.saturating_add(ELEMENTS_OF_A_NODE).saturating_add(node.input.len());
        self.chain.reserve(elements).map_err(too_large)
    }

    /// Formulas are read, written and dropped from the inside out: deep ones would overflow the stack.
    fn deepen(&mut self, node: &NodeProto, name: &str, value: &Value, depth: usize) -> Result<(), ImportError> {
        match value {
            Value::Constant(_) | Value::Vector { .. } => Ok(()),
            _ if depth > MAX_DEPTH => Err(refused(node, "no supported model makes so much of its scores")),
            _ => {
                self.depths.insert(name.to_owned(), depth);
                Ok(())
            }
        }
    }

    /// Operators of machine learning give float32 whatever they read; all others what they read, but for casts.
    fn keep_type(&mut self, node: &NodeProto) {
        let is_double = match op(node) {
            "Cast" => cast_type(node.attribute.first()) == DataType::DOUBLE,
            "CastLike" => node.input.get(1).is_some_and(|name| self.doubles.contains(name)),
            "Scaler" | "Normalizer" | "FeatureVectorizer" | "LinearClassifier" | "LinearRegressor" => false,
            _ => node.input.iter().any(|name| self.doubles.contains(name)),
        };
        if is_double {
            self.doubles.extend(node.output.iter().cloned());
        }
    }

    /// Whether a node reads float64 numbers first.
    pub(super) fn is_double(&self, node: &NodeProto) -> bool {
        node.input.first().is_some_and(|name| self.doubles.contains(name))
    }

    fn insert(&mut self, name: &str, value: Value) {
        if let Value::Vector { id, .. } = value {
            self.name(id, name);
        }
        self.values.insert(name.to_owned(), value);
    }

    /// Where the graph has a vector.
    pub(super) fn name(&mut self, id: Id, name: &str) {
        self.names.entry(id).or_insert_with(|| name.to_owned());
    }

    /// The value that a node reads at `index`, if it reads one there.
    pub(super) fn optional(&self, node: &NodeProto, index: usize) -> Option<&Value> {
        node.input.get(index).filter(|name| !name.is_empty()).and_then(|name| self.values.get(name))
    }

    /// The value that a node reads at `index`.
    pub(super) fn input(&self, node: &NodeProto, index: usize) -> Result<Value, ImportError> {
        match self.optional(node, index) {
            Some(value) => Ok(value.clone()),
            None => Err(refused(node, format!("it reads {} values", node.input.len()))),
        }
    }

    /// What a formula can be made of, and its width: scores, a function of them, or a number.
    pub(super) fn formula(&self, value: &Value) -> Option<(Rc<Formula>, usize)> {
        match value {
            Value::Vector { id, .. } => Some((Rc::new(Formula::Scores(*id)), self.chain.width(*id))),
            Value::Formula { formula, width } => Some((formula.clone(), *width)),
            Value::Constant(constant) => match constant.row()?.values[..] {
                [number] => Some((Rc::new(Formula::Number(number)), 1)),
                _ => None,
            },
            Value::Largest { .. } | Value::Label { .. } | Value::Map { .. } => None,
        }
    }

    fn finish(mut self, graph: Graph) -> Result<Model, ImportError> {
        let (Matched { logits, link }, labels) = self.outputs(&graph)?;
        let (features, width) = (graph.columns(), self.chain.width(logits));
        check_size("logits", width, MAX_LOGITS)?;
        check_size("weights", features * width, MAX_WEIGHTS)?;
        let places = self.places(logits).ok_or_else(|| graph_refused("its scores are in no one place"))?;
        self.preparation.check(&self.chain, logits)?;
        let Self { chain, preparation, .. } = self;
        let source = Source::of(&chain, logits)?;
        Ok(Model { graph, chain, logits, places, link, labels, preparation, source })
    }

    /// Matches the outputs against the list of tails.
    fn outputs(&mut self, graph: &Graph) -> Result<(Matched, Vec<Label>), ImportError> {
        let mut label = None;
        let mut scores = vec![];
        for name in &graph.outputs {
            match &self.values[name] {
                Value::Label { labels, of } if label.is_none() => label = Some((labels.clone(), of.clone())),
                // Labels that are their places.
                Value::Largest { of, width } if label.is_none() => {
                    let labels = (0..*width as i64).map(Label::Integer).collect();
                    label = Some((Rc::new(labels), of.clone()));
                }
                Value::Map { labels, scores: inner } => scores.push((name, (**inner).clone(), Some(labels.clone()))),
                other => scores.push((name, other.clone(), None)),
            }
        }
        let [(name, ..), ..] = scores[..] else { return Err(graph_refused("none of its outputs is a score")) };
        let refuse = |reason: String| match producer(graph, name) {
            Some(node) => refused_for(node, reason, REMEDY),
            None => graph_refused(reason),
        };
        let Some((labels, of)) = label else {
            let [(_, value, None)] = &scores[..] else { return Err(refuse("none of the outputs is a label".into())) };
            let (formula, _) = self.formula(value).ok_or_else(|| refuse(NO_SCORE.into()))?;
            return Ok((tail::regressor(&formula).ok_or_else(|| refuse(unlisted(&formula)))?, vec![]));
        };
        if scores.iter().any(|(.., map)| map.as_ref().is_some_and(|map| map != &labels)) {
            return Err(refuse("its labels are not the classifier's".into()));
        }
        let values: Vec<_> = scores.iter().map(|(_, value, _)| value.clone()).collect();
        let outputs = self.columns(&values, labels.len()).map_err(too_large)?.ok_or_else(|| refuse(NO_SCORE.into()))?;
        match tail::classifier(&mut self.chain, &outputs, &of, &labels) {
            Ok(matched) => Ok((matched, Rc::unwrap_or_clone(labels))),
            Err(Mismatch::Unlisted) => Err(refuse(unlisted(&outputs))),
            Err(Mismatch::NotOpposite) => Err(refuse("the scores of its two labels are not of opposite sign".into())),
            Err(Mismatch::TooLarge) => Err(too_large(TooLarge)),
        }
    }

    /// The one array that outputs are: alone, or its columns, one for each label.
    fn columns(&mut self, outputs: &[Value], labels: usize) -> Result<Option<Rc<Formula>>, TooLarge> {
        if let [output] = outputs {
            return Ok(self.formula(output).map(|(formula, _)| formula));
        }
        if outputs.len() != labels {
            return Ok(None);
        }
        if let Some(vectors) = outputs.iter().map(vector).collect::<Option<Vec<_>>>() {
            return Ok(Some(Rc::new(Formula::Scores(self.chain.join(vectors)?))));
        }
        let formulas: Option<Vec<_>> = outputs.iter().map(|output| self.formula(output)).collect();
        let columns: Vec<_> = formulas.into_iter().flatten().map(|(formula, _)| formula).collect();
        let whole = columns.iter().enumerate().map(|(index, column)| match &**column {
            Formula::Column(column, of) if *column == index => Some(of),
            _ => None,
        });
        Ok(match whole.collect::<Option<Vec<_>>>().as_deref() {
            Some([first, others @ ..]) if others.iter().all(|other| Rc::ptr_eq(first, other)) => Some((*first).clone()),
            _ => Formula::apply("Concat", columns),
        })
    }

    /// The value and the element of the graph that each logit is.
    fn places(&self, id: Id) -> Option<Vec<(String, usize)>> {
        if let Some(name) = self.names.get(&id) {
            return Some((0..self.chain.width(id)).map(|element| (name.clone(), element)).collect());
        }
        match self.chain.operation(id) {
            Operation::Select { of, elements } => {
                let name = self.names.get(of)?;
                Some(elements.iter().map(|&element| (name.clone(), element)).collect())
            }
            Operation::Join(parts) => {
                let places: Option<Vec<_>> = parts.iter().map(|&part| self.places(part)).collect();
                Some(places?.concat())
            }
            _ => None,
        }
    }
}

/// What to do about another tail.
pub(super) const REMEDY: &str = "export the model itself, not one that calibrates or combines several, with skl2onnx; for a classifier \
                      the option raw_scores=True makes the scores its output";

pub(super) const TOO_DEEP: &str = "no supported model makes so much of its scores";

const NO_SCORE: &str = "this output is no score of the label";

/// The node that gives a value.
fn producer<'a>(graph: &'a Graph, name: &str) -> Option<&'a NodeProto> {
    graph.nodes.iter().find(|node| node.output.iter().any(|output| output == name))
}

fn unlisted(outputs: &Formula) -> String {
    match outputs.write() {
        Some(written) => format!("no supported model has the output {} with these labels", written.text),
        None => TOO_DEEP.into(),
    }
}

pub(super) fn too_large(TooLarge: TooLarge) -> ImportError {
    graph_refused("its vectors, matrices and trees are larger than any model that is served")
}

fn vector(value: &Value) -> Option<Id> {
    match value {
        Value::Vector { id, .. } => Some(*id),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rten_onnx::onnx::DataType;

    use super::*;
    use crate::import::sample::{Sample, attribute, changed, iris, node};

    #[test]
    fn the_file_is_read_as_it_is() {
        let model = Model::read(&iris()).unwrap();
        assert_eq!(model.labels, ["setosa", "versicolor", "virginica"].map(|text| Label::Text(text.into())));
        assert_eq!((model.features(), model.chain.width(model.logits), model.link), (4, 3, Link::Softmax));
        assert!(model.preparation.steps().is_empty());
        let Operation::Add { to, constants } = model.chain.operation(model.logits) else { panic!() };
        assert_eq!(constants.values[0], f64::from(-0.204_638_97_f32));
        let Operation::Product { of, matrix } = model.chain.operation(*to) else { panic!() };
        assert_eq!(matrix.values[3 * 3 + 2], f64::from(2.639_275_6_f32));
        let Operation::Multiply { by, .. } = model.chain.operation(*of) else { panic!() };
        assert_eq!(by.values[0], f64::from(1.211_678_7_f32));
    }

    #[test]
    fn labels_are_of_the_type_that_they_end_up_with() {
        let relabelled = |labels: &[i64], to: Option<i64>| {
            let mut sample = Sample::new(2)
                .node("LinearClassifier(X) -> l, scores")
                .with_integers("classlabels_ints", labels)
                .with_floats("coefficients", &vec![1.0; 2 * labels.len()])
                .with_floats("intercepts", &vec![0.0; labels.len()]);
            sample = match to {
                Some(to) => sample.node("Cast(l) -> label").with_integer("to", to),
                None => sample.node("Identity(l) -> label"),
            };
            sample
        };
        let labels = |sample: Sample| sample.read(&["label", "scores"]).unwrap().labels;
        for to in [None, Some(DataType::INT64), Some(DataType::FLOAT)] {
            let sample = relabelled(&[-1, 0, 7], to.map(|to| to.0.into()));
            assert_eq!(labels(sample), [-1, 0, 7].map(Label::Integer));
        }
        let text = relabelled(&[-1, 0, 7], Some(DataType::STRING.0.into())).refusal(&["label", "scores"]);
        assert_eq!(text.1, "it turns its labels into STRING");
        let yes_or_no = Sample::new(1)
            .classifier("(X) -> l, scores", &[-1.0, 1.0], &[2.0, -2.0], "LOGISTIC")
            .node("Cast(l) -> label")
            .with_integer("to", DataType::BOOL.0.into());
        assert_eq!(labels(yes_or_no), [false, true].map(Label::Boolean));
    }

    #[test]
    fn two_labels_have_the_second_ones_score() {
        let sample = Sample::new(1).classifier("(X) -> label, scores", &[-1.0, 1.0], &[2.0, -2.0], "LOGISTIC");
        let model = sample.read(&["label", "scores"]).unwrap();
        assert_eq!((model.places, model.link), (vec![("scores".into(), 1)], Link::Sigmoid));
        let apart = Sample::new(1).classifier("(X) -> label, scores", &[-1.0, 1.5], &[2.0, -2.0], "LOGISTIC");
        let (op, reason) = apart.refusal(&["label", "scores"]);
        assert_eq!(
            (op.as_str(), reason.as_str()),
            ("LinearClassifier", "the scores of its two labels are not of opposite sign")
        );
    }

    #[test]
    fn outputs_are_a_label_and_its_scores() {
        let sample = || Sample::new(2).classifier("(X) -> label, scores", &[1.0; 6], &[0.0, 1.0, 2.0], "SOFTMAX");
        assert!(sample().read(&["label", "scores"]).is_ok());
        assert!(sample().read(&["scores", "label"]).is_ok());
        let reason = |sample: Sample, outputs: &[&str]| sample.refusal(outputs).1;
        assert_eq!(reason(sample(), &["label"]), "none of its outputs is a score");
        assert_eq!(reason(sample(), &[]), "none of its outputs is a score");
        assert_eq!(reason(sample(), &["scores"]), "no supported model has the output Softmax(S) with these labels");
        assert_eq!(reason(sample(), &["scores", "X"]), "none of the outputs is a label");
        assert_eq!(reason(sample(), &["label", "scores", "X"]), NO_SCORE);
        assert_eq!(reason(sample(), &["label", "label"]), NO_SCORE);
        let other = changed(|graph| attribute(graph, "ZipMap", "classlabels_strings").strings.swap(0, 1));
        let error = Model::read(&other).unwrap_err().to_string();
        assert!(error.ends_with("its labels are not the classifier's"), "{error}");
        let bypassed = changed(|graph| node(graph, "ZipMap").input = vec!["label".into()]);
        assert!(Model::read(&bypassed).is_err());
    }

    #[test]
    fn scores_may_be_an_output_for_each_label() {
        let sample = |order: [usize; 3]| {
            let start = Sample::new(2)
                .integers("at0", &[0])
                .integers("at1", &[1])
                .integers("at2", &[2])
                .integers("at3", &[3])
                .integers("flat", &[-1])
                .classifier("(X) -> label, p", &[1.0; 6], &[0.0, 1.0, 2.0], "SOFTMAX");
            order.into_iter().enumerate().fold(start, |sample, (index, column)| {
                let slice = format!("Slice(p, at{column}, at{}, at1) -> s{index}", column + 1);
                sample.node(&slice).node(&format!("Reshape(s{index}, flat) -> o{index}"))
            })
        };
        assert_eq!(sample([0, 1, 2]).read(&["label", "o0", "o1", "o2"]).unwrap().link, Link::Softmax);
        for (order, outputs) in [
            ([0, 2, 1], &["label", "o0", "o1", "o2"][..]),
            ([0, 1, 2], &["label", "o0", "o1"]),
            ([0, 0, 0], &["label", "o0", "o1", "o2"]),
        ] {
            assert_eq!(sample(order).refusal(outputs).0, "Reshape");
        }
    }

    /// Deeper than any stack: chains of steps and of functions.
    #[test]
    fn long_chains_come_to_an_end() {
        let chain = |step: &str| {
            let start = Sample::new(2).floats("c", &[], &[1.0]).node(&format!("{} -> x0", step.replace('@', "X")));
            (0..50_000)
                .fold(start, |sample, n| sample.node(&format!("{} -> x{}", step.replace('@', &format!("x{n}")), n + 1)))
        };
        assert!(chain("Mul(@, c)").read(&["x50000"]).is_ok());
        assert_eq!(chain("Exp(@)").refusal(&["x50000"]).1, TOO_DEEP);
    }

    #[test]
    fn sizes_have_limits() {
        let wide = Sample::new(50_001).node("Identity(X) -> y").read(&["y"]).unwrap_err();
        assert_eq!(wide, ImportError::TooWide { what: "features", actual: 50_001, max: 50_000 });
        let many = Sample::new(1001).node("Identity(X) -> y").read(&["y"]).unwrap_err();
        assert_eq!(many, ImportError::TooWide { what: "logits", actual: 1001, max: 1000 });
        let large = Sample::new(50_000)
            .integers("some", &[7; 84])
            .node("ArrayFeatureExtractor(X, some) -> y")
            .read(&["y"])
            .unwrap_err();
        assert_eq!(large, ImportError::TooWide { what: "weights", actual: 4_200_000, max: 1 << 22 });
    }
}
