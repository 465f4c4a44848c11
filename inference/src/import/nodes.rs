//! What each operator makes of what it reads.

use std::ops::RangeInclusive;
use std::rc::Rc;

use rten_onnx::onnx::{AttributeProto, NodeProto};

use super::ImportError;
use super::chain::{Id, Operation};
use super::model::{REMEDY, Reader, Value, too_large};
use super::nonlinear::Activation;
use super::onnx::{attributes, labels, numbers, op};
use super::refusal::{refused, refused_for};
use super::tail::Formula;
use super::tensor::{Data, Parameters, Tensor};
use crate::steps::Norm;

type Result<T> = std::result::Result<T, ImportError>;

impl Reader {
    /// The values that a node gives.
    pub(super) fn node(&mut self, node: &NodeProto) -> Result<Vec<Value>> {
        if !inputs(op(node)).contains(&node.input.len()) {
            return Err(refused(node, format!("it reads {} values", node.input.len())));
        }
        let value = match op(node) {
            "Add" | "Sub" | "Mul" | "Div" => self.arithmetic(node)?,
            "MatMul" => self.mat_mul(node)?,
            "Gemm" => self.gemm(node)?,
            "Neg" => self.negation(node)?,
            "Sum" => self.sum(node)?,
            "Sqrt" => self.root(node)?,
            "Scaler" => self.scaler(node)?,
            "LinearRegressor" => self.regressor(node)?,
            "LinearClassifier" => return self.classifier(node),
            "TreeEnsembleClassifier" => return self.tree_classifier(node),
            "TreeEnsembleRegressor" => self.tree_regressor(node)?,
            "TreeEnsemble" => self.tree_ensemble(node)?,
            "Imputer" => self.imputer(node)?,
            "Normalizer" | "LpNormalization" => self.normalizer(node)?,
            "Concat" | "FeatureVectorizer" => self.concat(node)?,
            "ArrayFeatureExtractor" | "Gather" => self.gather(node)?,
            "Slice" => self.slice(node)?,
            "Reshape" | "Flatten" => self.reshape(node)?,
            "Cast" => self.cast(node)?,
            "Identity" | "CastLike" => {
                attributes(node, [])?;
                self.input(node, 0)?
            }
            "ZipMap" => self.zip_map(node)?,
            "ArgMax" => self.arg_max(node)?,
            "ReduceSum" | "ReduceSumSquare" => self.row_sum(node)?,
            "Softmax" => self.softmax(node)?,
            "Abs" => self.function(node, "Abs")?,
            "Exp" => self.function(node, "Exp")?,
            "Not" => self.function(node, "Not")?,
            "Reciprocal" => self.function(node, "Reciprocal")?,
            "Sigmoid" => self.function(node, "Sigmoid")?,
            "Relu" => self.function(node, "Relu")?,
            "Tanh" => self.function(node, "Tanh")?,
            _ => return Err(refused(node, "no supported model has this operator")),
        };
        Ok(vec![value])
    }

    pub(super) fn push(&mut self, width: usize, operation: Operation) -> Result<Id> {
        self.chain.push(width, operation).map_err(too_large)
    }

    /// A vector that is not flat, and its width.
    pub(super) fn vector(&self, node: &NodeProto, index: usize) -> Result<(Id, usize)> {
        match self.input(node, index)? {
            Value::Vector { id, flat: false } => Ok((id, self.chain.width(id))),
            _ => Err(refused(node, NOT_LINEAR)),
        }
    }

    /// The same, or a hidden layer: until a matrix follows, an activation is a function of scores.
    fn layer(&mut self, node: &NodeProto) -> Result<(Id, usize)> {
        let Value::Formula { formula, width } = self.input(node, 0)? else { return self.vector(node, 0) };
        let Formula::Apply(function, arguments, _) = &*formula else { return Err(refused(node, NOT_LINEAR)) };
        match (Activation::named(function), &arguments[..]) {
            (Some(activation), [scores]) if let Formula::Scores(of) = **scores => {
                Ok((self.push(width, Operation::Activate { of, activation })?, width))
            }
            _ => Err(refused(node, NOT_LINEAR)),
        }
    }

    pub(super) fn constant(&self, node: &NodeProto, index: usize) -> Result<Rc<Tensor>> {
        match self.input(node, index)? {
            Value::Constant(constant) => Ok(constant),
            _ => Err(refused(node, "what it reads is not constant")),
        }
    }

    fn arithmetic(&mut self, node: &NodeProto) -> Result<Value> {
        attributes(node, [])?;
        let (left, right) = (self.input(node, 0)?, self.input(node, 1)?);
        match (&left, &right) {
            (Value::Vector { id, flat }, Value::Constant(constant)) if self.fits(*id, *flat, constant) => {
                let id = self.with_constant(node, *id, constant, false)?;
                Ok(Value::Vector { id, flat: *flat })
            }
            (Value::Constant(constant), Value::Vector { id, flat }) if self.fits(*id, *flat, constant) => {
                let id = self.with_constant(node, *id, constant, true)?;
                Ok(Value::Vector { id, flat: *flat })
            }
            (Value::Vector { id: left, flat: false }, Value::Vector { id: right, flat: false }) => {
                self.of_vectors(node, *left, *right)
            }
            // So onnxmltools writes the probabilities of LightGBM.
            (Value::Formula { .. }, Value::Constant(one)) if op(node) == "Mul" && is_one(one) => Ok(left),
            (Value::Vector { id, flat: false }, Value::Formula { formula, .. }) if op(node) == "Div" => {
                match formula.write().filter(|written| written.scores == [*id]) {
                    Some(written) if written.text == "Sqrt(RowSquareSum(S))" => self.normalize(node, *id, Norm::L2),
                    Some(written) if written.text == "RowSum(Abs(S))" && self.is_prepared(*id)? => {
                        self.normalize(node, *id, Norm::L1)
                    }
                    _ => self.of_formulas(node, &left, &right),
                }
            }
            _ => self.of_formulas(node, &left, &right),
        }
    }

    /// Numbers one below the other take a single constant.
    fn fits(&self, id: Id, flat: bool, constant: &Tensor) -> bool {
        !flat || self.chain.width(id) == 1 || constant.len() == 1
    }

    /// x + p, x − p, p − x, x·p or x/p.
    fn with_constant(&mut self, node: &NodeProto, id: Id, constant: &Tensor, constant_first: bool) -> Result<Id> {
        let width = self.chain.width(id);
        self.chain.reserve(width).map_err(too_large)?;
        let row = constant.row().and_then(|row| (**row).clone().spread(width));
        let row = row.ok_or_else(|| refused(node, format!("its constant is no row of {width} numbers")))?;
        match (op(node), constant_first) {
            ("Add", _) => self.push(width, Operation::Add { to: id, constants: row.into() }),
            ("Sub", false) => self.push(width, Operation::Add { to: id, constants: row.map(|value| -value).into() }),
            ("Sub", true) => {
                let negative = self.negative(id)?;
                self.push(width, Operation::Add { to: negative, constants: row.into() })
            }
            ("Mul", _) => self.push(width, Operation::Multiply { of: id, by: row.into() }),
            ("Div", false) => match row.values.iter().position(|&value| value == 0.0) {
                Some(index) => Err(refused(node, format!("it divides column {index} by zero"))),
                None => self.push(width, Operation::Divide { of: id, by: row.into() }),
            },
            _ => Err(refused(node, "it divides by features")),
        }
    }

    fn negative(&mut self, id: Id) -> Result<Id> {
        let width = self.chain.width(id);
        let minus_one = Parameters { values: vec![-1.0; width], ..Parameters::exact(-1.0) };
        self.push(width, Operation::Multiply { of: id, by: minus_one.into() })
    }

    fn of_vectors(&mut self, node: &NodeProto, left: Id, right: Id) -> Result<Value> {
        let width = self.chain.width(left);
        if width != self.chain.width(right) {
            return Err(refused(node, "it combines vectors of different widths"));
        }
        let right = match op(node) {
            "Add" => right,
            "Sub" => self.negative(right)?,
            _ => return Err(refused(node, "it multiplies or divides features by features")),
        };
        let id = self.push(width, Operation::Sum(vec![left, right]))?;
        Ok(Value::Vector { id, flat: false })
    }

    fn of_formulas(&mut self, node: &NodeProto, left: &Value, right: &Value) -> Result<Value> {
        let (Some((left, left_width)), Some((right, right_width))) = (self.formula(left), self.formula(right)) else {
            return Err(refused(node, "what it reads is neither linear in the features nor a function of scores"));
        };
        if left_width != right_width && left_width != 1 && right_width != 1 {
            return Err(refused(node, "it combines scores of different widths"));
        }
        let function = match op(node) {
            "Add" => "Add",
            "Sub" => "Sub",
            "Mul" => "Mul",
            _ => "Div",
        };
        self.applied(node, function, [left, right], left_width.max(right_width))
    }

    fn mat_mul(&mut self, node: &NodeProto) -> Result<Value> {
        attributes(node, [])?;
        let ((of, width), constant) = (self.layer(node)?, self.constant(node, 1)?);
        let (id, flat) = match (&constant.dims[..], constant.numbers()) {
            (&[rows], Some(matrix)) if rows == width => (self.product(of, 1, matrix.clone())?, true),
            (&[rows, columns], Some(matrix)) if rows == width && columns > 0 => {
                (self.product(of, columns, matrix.clone())?, false)
            }
            _ => return Err(refused(node, format!("its constant is no matrix of {width} rows"))),
        };
        Ok(Value::Vector { id, flat })
    }

    fn product(&mut self, of: Id, width: usize, matrix: Rc<Parameters>) -> Result<Id> {
        self.push(width, Operation::Product { of, matrix })
    }

    /// The product with the transpose of a matrix whose rows are those of the result.
    fn transposed(&mut self, of: Id, width: usize, rows: &Parameters) -> Result<Id> {
        self.chain.reserve(rows.values.len()).map_err(too_large)?;
        let from = self.chain.width(of);
        let values = (0..from).flat_map(|column| (0..width).map(move |row| rows.values[row * from + column])).collect();
        self.product(of, width, Parameters { values, ..*rows }.into())
    }

    fn gemm(&mut self, node: &NodeProto) -> Result<Value> {
        let [alpha, beta, trans_a, trans_b] = attributes(node, ["alpha", "beta", "transA", "transB"])?;
        let factor = |attribute: Option<&AttributeProto>| attribute.and_then(|a| a.f).unwrap_or(1.0);
        let flag = |attribute: Option<&AttributeProto>| attribute.and_then(|a| a.i).unwrap_or(0);
        if factor(alpha) != 1.0 || factor(beta) != 1.0 || flag(trans_a) != 0 {
            return Err(refused(node, "its factors are not 1, or it transposes the features"));
        }
        let ((of, width), constant) = (self.layer(node)?, self.constant(node, 1)?);
        let id = match (&constant.dims[..], constant.numbers(), flag(trans_b)) {
            (&[rows, columns], Some(matrix), 0) if rows == width && columns > 0 => {
                self.product(of, columns, matrix.clone())?
            }
            (&[rows, columns], Some(matrix), 1) if columns == width && rows > 0 => self.transposed(of, rows, matrix)?,
            _ => return Err(refused(node, format!("its constant is no matrix for {width} columns"))),
        };
        if self.optional(node, 2).is_none() {
            return Ok(Value::Vector { id, flat: false });
        }
        let width = self.chain.width(id);
        let constants = self.constant(node, 2)?.row().and_then(|row| (**row).clone().spread(width));
        let constants = constants.ok_or_else(|| refused(node, format!("it adds no row of {width} numbers")))?;
        let id = self.push(width, Operation::Add { to: id, constants: constants.into() })?;
        Ok(Value::Vector { id, flat: false })
    }

    fn negation(&mut self, node: &NodeProto) -> Result<Value> {
        attributes(node, [])?;
        let (id, _) = self.vector(node, 0)?;
        Ok(Value::Vector { id: self.negative(id)?, flat: false })
    }

    fn sum(&mut self, node: &NodeProto) -> Result<Value> {
        attributes(node, [])?;
        if let Some(Value::Formula { .. }) = self.optional(node, 0) {
            let reason = "it adds functions of scores, as a model does that calibrates or combines several";
            return Err(refused_for(node, reason, REMEDY));
        }
        let parts: Vec<_> = (0..node.input.len()).map(|index| self.vector(node, index)).collect::<Result<_>>()?;
        let Some(&(_, width)) = parts.first() else { return Err(refused(node, "it adds nothing")) };
        if parts.iter().any(|&(_, other)| other != width) {
            return Err(refused(node, "it adds vectors of different widths"));
        }
        self.chain.reserve(width.saturating_mul(parts.len())).map_err(too_large)?;
        let id = self.push(width, Operation::Sum(parts.into_iter().map(|(id, _)| id).collect()))?;
        Ok(Value::Vector { id, flat: false })
    }

    /// The root of constants, or of a norm.
    fn root(&mut self, node: &NodeProto) -> Result<Value> {
        attributes(node, [])?;
        let constant = match self.input(node, 0)? {
            Value::Constant(constant) => constant,
            Value::Formula { .. } => return self.function(node, "Sqrt"),
            _ => return Err(refused(node, "it takes roots of features")),
        };
        let Some(numbers) = constant.numbers() else { return Err(refused(node, "its constant is not of numbers")) };
        self.chain.reserve(numbers.values.len()).map_err(too_large)?;
        // Where float32 has its full precision the root is nearer to scikit-learn's than the number itself.
        match numbers.values.iter().position(|&value| value < f64::from(f32::MIN_POSITIVE)) {
            Some(index) => Err(refused(node, format!("number {index} of its constant is not above zero"))),
            None => {
                let data = Data::Numbers(numbers.map(f64::sqrt).into());
                Ok(Value::Constant(Tensor { dims: constant.dims.clone(), data }.into()))
            }
        }
    }

    /// (x − offset)·scale.
    fn scaler(&mut self, node: &NodeProto) -> Result<Value> {
        let [offset, scale] = attributes(node, ["offset", "scale"])?;
        let (of, width) = self.vector(node, 0)?;
        let offset = numbers(node, "offset", offset, width)?.map(|value| -value);
        let scale = numbers(node, "scale", scale, width)?;
        let centred = self.push(width, Operation::Add { to: of, constants: offset.into() })?;
        let id = self.push(width, Operation::Multiply { of: centred, by: scale.into() })?;
        Ok(Value::Vector { id, flat: false })
    }

    fn regressor(&mut self, node: &NodeProto) -> Result<Value> {
        let [coefficients, intercepts, targets, transform] =
            attributes(node, ["coefficients", "intercepts", "targets", "post_transform"])?;
        if let Some(other) = transform.and_then(|attribute| attribute.s.as_deref()).filter(|&text| text != "NONE") {
            return Err(refused(node, format!("its values go through {}", other.escape_debug())));
        }
        let targets = targets.and_then(|targets| targets.i).unwrap_or(1);
        let targets = usize::try_from(targets).ok().filter(|&targets| targets > 0);
        let targets = targets.ok_or_else(|| refused(node, "it has no targets"))?;
        let (of, width) = self.vector(node, 0)?;
        let coefficients = numbers(node, "coefficients", coefficients, width.saturating_mul(targets))?;
        let mut id = self.transposed(of, targets, &coefficients)?;
        if intercepts.is_some() {
            let constants = numbers(node, "intercepts", intercepts, targets)?.into();
            id = self.push(targets, Operation::Add { to: id, constants })?;
        }
        Ok(Value::Vector { id, flat: false })
    }

    /// The label of the largest score, and the scores as they are or as their probabilities.
    fn classifier(&mut self, node: &NodeProto) -> Result<Vec<Value>> {
        let [strings, integers, coefficients, intercepts, _multi_class, transform] = attributes(
            node,
            ["classlabels_strings", "classlabels_ints", "coefficients", "intercepts", "multi_class", "post_transform"],
        )?;
        let labels = labels(strings, integers);
        if labels.len() < 2 {
            return Err(refused(node, format!("it has {} class labels", labels.len())));
        }
        let (of, width) = self.vector(node, 0)?;
        let coefficients = numbers(node, "coefficients", coefficients, width.saturating_mul(labels.len()))?;
        let constants = numbers(node, "intercepts", intercepts, labels.len())?.into();
        let products = self.transposed(of, labels.len(), &coefficients)?;
        let id = self.push(labels.len(), Operation::Add { to: products, constants })?;
        if let Some(name) = node.output.get(1) {
            self.name(id, name);
        }
        let scores = Rc::new(Formula::Scores(id));
        let width = labels.len();
        let label = Value::Label { labels: Rc::new(labels), of: scores.clone() };
        let scores = match transform.and_then(|attribute| attribute.s.as_deref()).unwrap_or("NONE") {
            "NONE" => Value::Vector { id, flat: false },
            "SOFTMAX" => self.applied(node, "Softmax", [scores], width)?,
            "LOGISTIC" => self.applied(node, "Sigmoid", [scores], width)?,
            other => return Err(refused(node, format!("its scores go through {}", other.escape_debug()))),
        };
        Ok(vec![label, scores])
    }
}

fn is_one(constant: &Tensor) -> bool {
    constant.row().is_some_and(|row| row.values == [1.0])
}

const NOT_LINEAR: &str = "what it reads is not linear in the features";

/// As many values as an operator reads.
fn inputs(op: &str) -> RangeInclusive<usize> {
    match op {
        "Concat" | "FeatureVectorizer" | "Sum" => 1..=usize::MAX,
        "Add" | "Sub" | "Mul" | "Div" | "MatMul" | "ArrayFeatureExtractor" | "Gather" | "CastLike" | "Reshape" => 2..=2,
        "Gemm" => 2..=3,
        "ReduceSum" | "ReduceSumSquare" => 1..=2,
        "Slice" => 1..=5,
        _ => 1..=1,
    }
}

#[cfg(test)]
mod tests {
    use crate::description::Link;
    use crate::import::clear;
    use crate::import::fold::tests::logits;
    use crate::import::sample::Sample;

    /// A regression of what the nodes make: y at some rows, by the chain and by the graph itself.
    fn values(sample: Sample, rows: &[&[f64]]) -> Vec<Vec<f64>> {
        let model = sample.read(&["y"]).unwrap();
        assert_eq!(model.link, Link::Identity);
        let of_row = |row: &&[f64]| {
            let values = logits(&model, row);
            assert_eq!(values, clear::logits(&model, row), "two ways to the same");
            values
        };
        rows.iter().map(of_row).collect()
    }

    fn reason(sample: Sample) -> String {
        sample.refusal(&["y"]).1
    }

    /// X of two columns, a = [2, 4], s = 8, M = [[1, 2, 3], [4, 5, 6]].
    fn sample() -> Sample {
        Sample::new(2)
            .floats("a", &[2], &[2.0, 4.0])
            .floats("r", &[1, 2], &[2.0, 4.0])
            .floats("s", &[], &[8.0])
            .floats("z", &[2], &[1.0, 0.0])
            .floats("M", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
            .floats("v", &[2], &[1.0, -1.0])
            .floats("b", &[3], &[10.0, 20.0, 30.0])
    }

    #[test]
    fn constants_are_added_and_multiplied_on_either_side() {
        for (node, expected) in [
            ("Add(X, a) -> y", [3.0, -2.0]),
            ("Add(r, X) -> y", [3.0, -2.0]),
            ("Add(X, s) -> y", [9.0, 2.0]),
            ("Sub(X, a) -> y", [-1.0, -10.0]),
            ("Sub(a, X) -> y", [1.0, 10.0]),
            ("Mul(X, a) -> y", [2.0, -24.0]),
            ("Mul(s, X) -> y", [8.0, -48.0]),
            ("Div(X, r) -> y", [0.5, -1.5]),
            ("Neg(X) -> y", [-1.0, 6.0]),
            ("Sum(X, X, X) -> y", [3.0, -18.0]),
            ("Add(X, X) -> y", [2.0, -12.0]),
            ("Sub(X, X) -> y", [0.0, 0.0]),
        ] {
            assert_eq!(values(sample().node(node), &[&[1.0, -6.0]]), [expected], "{node}");
        }
    }

    #[test]
    fn matrices_are_read_either_way() {
        let product = [[1.0 - 8.0, 2.0 - 10.0, 3.0 - 12.0]];
        assert_eq!(values(sample().node("MatMul(X, M) -> y"), &[&[1.0, -2.0]]), product);
        assert_eq!(values(sample().node("Gemm(X, M) -> y"), &[&[1.0, -2.0]]), product);
        let shifted = sample().node("Gemm(X, M, b) -> y");
        assert_eq!(values(shifted, &[&[0.0, 1.0]]), [[14.0, 25.0, 36.0]]);
        let transposed = sample().floats("T", &[1, 2], &[5.0, 7.0]).node("Gemm(X, T) -> y").with_integer("transB", 1);
        assert_eq!(values(transposed, &[&[1.0, 2.0]]), [[19.0]]);
        let flat = sample().integers("column", &[-1, 1]).node("MatMul(X, v) -> f").node("Reshape(f, column) -> y");
        assert_eq!(values(flat, &[&[3.0, 1.0]]), [[2.0]]);
        let regressor = sample()
            .node("LinearRegressor(X) -> y")
            .with_floats("coefficients", &[1.0, 2.0, 3.0, 4.0])
            .with_floats("intercepts", &[0.5, 0.25])
            .with_integer("targets", 2);
        assert_eq!(values(regressor, &[&[1.0, 10.0]]), [[21.5, 43.25]]);
        let scaled = sample().scaler("(X) -> y", &[1.0, 2.0], &[4.0, 0.5]);
        assert_eq!(values(scaled, &[&[3.0, 3.0]]), [[8.0, 0.5]]);
        let root = sample().node("Sqrt(a) -> root").node("Mul(root, X) -> y");
        assert_eq!(values(root, &[&[0.0, 3.0]]), [[0.0, 6.0]]);
    }

    #[test]
    fn columns_are_selected_joined_and_reshaped() {
        let sample = || sample().integers("i", &[1, 0, 1]).integers("one", &[1]).integers("two", &[2]);
        let rows: &[&[f64]] = &[&[3.0, 5.0]];
        for nodes in [
            &["ArrayFeatureExtractor(X, i) -> y"][..],
            &["Slice(X, one, two, one) -> last", "Concat(last, X) -> y"],
            &["ArrayFeatureExtractor(X, one) -> last", "Concat(last, X) -> both", "Flatten(both) -> y"],
        ] {
            let mut graph = sample();
            for node in nodes {
                graph = graph.node(node);
                graph = if node.starts_with("Concat") { graph.with_integer("axis", 1) } else { graph };
            }
            assert_eq!(values(graph, rows), [[5.0, 3.0, 5.0]], "{nodes:?}");
        }
        let gathered = sample().node("Gather(X, i) -> y").with_integer("axis", 1);
        assert_eq!(values(gathered, rows), [[5.0, 3.0, 5.0]]);
        let vector = sample().node("FeatureVectorizer(X, X) -> y").with_integers("inputdimensions", &[2, 2]);
        assert_eq!(values(vector, rows), [[3.0, 5.0, 3.0, 5.0]]);
    }

    #[test]
    fn probabilities_times_one_are_probabilities() {
        let times = |factor| {
            let classifier = Sample::new(3).node("Softmax(X) -> p").node("ArgMax(X) -> label").with_integer("axis", 1);
            classifier.floats("factor", &[1], &[factor]).node("Mul(p, factor) -> q")
        };
        assert_eq!(times(1.0).read(&["label", "q"]).unwrap().link, Link::Softmax);
        let unlisted = "no supported model has the output Mul(Softmax(S),2) with these labels";
        assert_eq!(times(2.0).refusal(&["label", "q"]).1, unlisted);
    }

    #[test]
    fn what_is_not_linear_is_refused() {
        let nonlinear = "what it reads is not linear in the features";
        assert_eq!(reason(sample().node("Mul(X, X) -> y")), "it multiplies or divides features by features");
        assert_eq!(reason(sample().node("Div(s, X) -> y")), "it divides by features");
        assert_eq!(reason(sample().node("Div(X, z) -> y")), "it divides column 1 by zero");
        assert_eq!(reason(sample().node("Sqrt(X) -> y")), "it takes roots of features");
        assert_eq!(
            reason(sample().node("Sqrt(z) -> root").node("Add(X, root) -> y")),
            "number 1 of its constant is not above zero"
        );
        assert_eq!(reason(sample().node("MatMul(X, X) -> y")), "what it reads is not constant");
        assert_eq!(reason(sample().node("Exp(X) -> e").node("MatMul(e, M) -> y")), nonlinear);
        assert_eq!(reason(sample().node("Sigmoid(X) -> e").scaler("(e) -> y", &[0.0; 2], &[1.0; 2])), nonlinear);
        assert_eq!(
            reason(sample().node("MatMul(X, v) -> f").node("MatMul(f, v) -> y")),
            nonlinear,
            "rows are no matrix"
        );
    }

    #[test]
    fn shapes_must_fit() {
        assert_eq!(reason(sample().node("Add(X, b) -> y")), "its constant is no row of 2 numbers");
        assert_eq!(reason(sample().node("Add(X, M) -> y")), "its constant is no row of 2 numbers");
        assert_eq!(reason(sample().node("MatMul(X, b) -> y")), "its constant is no matrix of 2 rows");
        assert_eq!(reason(sample().node("MatMul(X, s) -> y")), "its constant is no matrix of 2 rows");
        assert_eq!(reason(sample().node("Gemm(X, M, a) -> y")), "it adds no row of 3 numbers");
        assert_eq!(
            reason(sample().node("Gemm(X, M) -> y").with_integer("transB", 1)),
            "its constant is no matrix for 2 columns"
        );
        let halved = rten_onnx::onnx::AttributeProto { f: Some(0.5), ..Default::default() };
        let factors = "its factors are not 1, or it transposes the features";
        assert_eq!(reason(sample().node("Gemm(X, M) -> y").with("alpha", halved)), factors);
        assert_eq!(
            reason(sample().node("MatMul(X, M) -> p").node("Add(p, X) -> y")),
            "it combines vectors of different widths"
        );
        assert_eq!(
            reason(sample().node("MatMul(X, M) -> p").node("Sum(p, X) -> y")),
            "it adds vectors of different widths"
        );
        assert_eq!(reason(sample().node("Add(X) -> y")), "it reads 1 values");
        assert_eq!(reason(sample().node("Neg(X, a) -> y")), "it reads 2 values", "no value is left out");
        let regressor = |targets: i64| sample().node("LinearRegressor(X) -> y").with_integer("targets", targets);
        assert_eq!(reason(regressor(0)), "it has no targets");
        assert_eq!(reason(regressor(i64::MAX)), "its coefficients are 0, where 18446744073709551614 are needed");
    }

    #[test]
    fn transforms_of_scores_are_those_of_linear_models() {
        let classifier =
            |transform: &str| Sample::new(1).classifier("(X) -> label, y", &[-1.0, 1.0], &[0.0; 2], transform);
        assert_eq!(reason(classifier("PROBIT")), "its scores go through PROBIT");
        assert_eq!(reason(classifier("\u{1b}[2J")), "its scores go through \\u{1b}[2J");
        let regressor = Sample::new(1).node("LinearRegressor(X) -> y").with_text("post_transform", "PROBIT");
        assert_eq!(reason(regressor), "its values go through PROBIT");
        let single = Sample::new(1).classifier("(X) -> label, y", &[1.0], &[0.0], "NONE");
        assert_eq!(reason(single), "it has 1 class labels");
    }
}
