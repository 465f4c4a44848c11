//! What each operator makes of what it reads.

use std::rc::Rc;

use rten_onnx::onnx::{AttributeProto, NodeProto};

use super::ImportError;
use super::chain::{Id, Operation};
use super::model::{Reader, Value, too_large};
use super::onnx::{attributes, labels, numbers, op};
use super::refusal::refused;
use super::tail::Formula;
use super::tensor::{Data, Parameters, Tensor};
use crate::steps::Norm;

type Result<T> = std::result::Result<T, ImportError>;

impl Reader {
    /// The values that a node gives.
    pub(super) fn node(&mut self, node: &NodeProto) -> Result<Vec<Value>> {
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
            _ => return Err(refused(node, "no linear model has this operator")),
        };
        Ok(vec![value])
    }

    pub(super) fn push(&mut self, width: usize, operation: Operation) -> Result<Id> {
        self.chain.push(width, operation).map_err(too_large)
    }

    /// A vector with a width, [N, width].
    pub(super) fn vector(&self, node: &NodeProto, index: usize) -> Result<(Id, usize)> {
        match self.input(node, index)? {
            Value::Vector { id, flat: false } => Ok((id, self.chain.width(id))),
            _ => Err(refused(node, "what it reads is not linear in the features")),
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
            (Value::Vector { id, flat }, Value::Constant(constant)) => {
                let id = self.with_constant(node, *id, constant, false)?;
                Ok(Value::Vector { id, flat: *flat })
            }
            (Value::Constant(constant), Value::Vector { id, flat }) => {
                let id = self.with_constant(node, *id, constant, true)?;
                Ok(Value::Vector { id, flat: *flat })
            }
            (Value::Vector { id: left, flat: false }, Value::Vector { id: right, flat: false }) => {
                self.of_vectors(node, *left, *right)
            }
            (Value::Vector { id, flat: false }, Value::Formula { formula, .. }) if op(node) == "Div" => {
                match formula.write().filter(|written| written.scores == [*id]) {
                    Some(written) if written.text == "Sqrt(RowSquareSum(S))" => self.normalize(node, *id, Norm::L2),
                    Some(written) if written.text == "RowSum(Abs(S))" && self.is_prepared(*id) => {
                        self.normalize(node, *id, Norm::L1)
                    }
                    _ => self.of_formulas(node, &left, &right),
                }
            }
            _ => self.of_formulas(node, &left, &right),
        }
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
        Ok(Value::Formula { formula: Formula::apply(function, [left, right]), width: left_width.max(right_width) })
    }

    fn mat_mul(&mut self, node: &NodeProto) -> Result<Value> {
        attributes(node, [])?;
        let ((of, width), constant) = (self.vector(node, 0)?, self.constant(node, 1)?);
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
        let ((of, width), constant) = (self.vector(node, 0)?, self.constant(node, 1)?);
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
        let function = match transform.and_then(|attribute| attribute.s.as_deref()).unwrap_or("NONE") {
            "NONE" => None,
            "SOFTMAX" => Some("Softmax"),
            "LOGISTIC" => Some("Sigmoid"),
            other => return Err(refused(node, format!("its scores go through {}", other.escape_debug()))),
        };
        let label = Value::Label { labels: Rc::new(labels), of: scores.clone() };
        Ok(vec![
            label,
            match function {
                None => Value::Vector { id, flat: false },
                Some(function) => {
                    Value::Formula { formula: Formula::apply(function, [scores]), width: self.chain.width(id) }
                }
            },
        ])
    }
}
