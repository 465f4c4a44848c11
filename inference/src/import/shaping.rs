//! The operators that move values around without computing any, and those of the tail.

use std::rc::Rc;

use rten_onnx::onnx::{AttributeProto, DataType, NodeProto};

use super::ImportError;
use super::model::{Reader, TOO_DEEP, Value, too_large};
use super::onnx::{attributes, labels, op};
use super::refusal::refused;
use super::tail::Formula;
use super::tensor::{Data, Tensor};
use crate::description::Label;

type Result<T> = std::result::Result<T, ImportError>;

impl Reader {
    /// Columns side by side: of features, of vectors, or of scores.
    pub(super) fn concat(&mut self, node: &NodeProto) -> Result<Value> {
        let [axis, widths] = attributes(node, ["axis", "inputdimensions"])?;
        let is_vectorizer = op(node) == "FeatureVectorizer";
        if !is_vectorizer && !is_columns(axis) {
            return Err(refused(node, "it joins rows, not columns"));
        }
        let values: Vec<_> = (0..node.input.len()).map(|index| self.input(node, index)).collect::<Result<_>>()?;
        let vector = |value: &Value| match value {
            Value::Vector { id, flat: false } => Some(*id),
            _ => None,
        };
        if let Some(vectors) = values.iter().map(vector).collect::<Option<Vec<_>>>().filter(|ids| !ids.is_empty()) {
            let found = vectors.iter().map(|&id| self.chain.width(id) as i64);
            if is_vectorizer && !widths.is_some_and(|widths| widths.ints.iter().copied().eq(found)) {
                return Err(refused(node, "its input dimensions are not those of its inputs"));
            }
            let id = self.chain.join(vectors).map_err(too_large)?;
            return Ok(Value::Vector { id, flat: false });
        }
        let formulas: Option<Vec<_>> = values.iter().map(|value| self.formula(value)).collect();
        match formulas.filter(|formulas| !formulas.is_empty()) {
            Some(formulas) => {
                let width = formulas.iter().map(|(_, width)| width).sum();
                let parts: Vec<_> = formulas.into_iter().map(|(formula, _)| formula).collect();
                self.applied(node, "Concat", parts, width)
            }
            None => Err(refused(node, "it joins other things than columns")),
        }
    }

    /// Columns by their numbers; or the label at a place.
    pub(super) fn gather(&mut self, node: &NodeProto) -> Result<Value> {
        let [axis] = attributes(node, ["axis"])?;
        let indices = match (self.input(node, 0)?, self.input(node, 1)?) {
            (Value::Constant(labels), Value::Largest { of, width }) => {
                return label(&labels, of, width)
                    .ok_or_else(|| refused(node, format!("its constants are not the labels of {width} scores")));
            }
            (_, Value::Constant(indices)) => indices,
            _ => return Err(refused(node, "it selects by something that depends on the row")),
        };
        if op(node) == "Gather" && !is_columns(axis) {
            return Err(refused(node, "it selects rows, not columns"));
        }
        let indices = indices.integers().filter(|_| indices.dims.len() <= 1 || op(node) != "Gather");
        let indices = indices.ok_or_else(|| refused(node, "its indices are no list of integers"))?;
        // A scalar index leaves no dimension of columns, except in machine learning's operator.
        let is_list = op(node) != "Gather" || self.optional(node, 1).is_some_and(is_list);
        match is_list {
            true => self.select(node, indices.iter().map(|&index| usize::try_from(index).ok()).collect()),
            false => Err(refused(node, "its index is a scalar, which leaves no column")),
        }
    }

    pub(super) fn slice(&mut self, node: &NodeProto) -> Result<Value> {
        let [starts, ends, axes] = attributes(node, ["starts", "ends", "axes"])?;
        let (_, width) = self.scores(node)?;
        let list = |index: usize, attribute: Option<&AttributeProto>| match (self.optional(node, index), attribute) {
            (Some(Value::Constant(constant)), None) => constant.integers().map(<[i64]>::to_vec),
            (None, Some(attribute)) => Some(attribute.ints.clone()),
            _ => None,
        };
        let steps = self.optional(node, 4).is_none() || list(4, None).is_some_and(|steps| steps == [1]);
        let range = match (list(1, starts).as_deref(), list(2, ends).as_deref(), list(3, axes).as_deref()) {
            (Some(&[start]), Some(&[end]), Some(&[1 | -1])) if steps && start >= 0 && end > start => start..end,
            _ => return Err(refused(node, "it is no constant range of columns")),
        };
        // An end beyond the last column means the last.
        let range = range.start..range.end.min(width as i64);
        self.select(node, range.map(|index| usize::try_from(index).ok()).collect())
    }

    /// The vector or scores that a node reads first.
    fn scores(&self, node: &NodeProto) -> Result<(Value, usize)> {
        let value = self.input(node, 0)?;
        match (&value, self.formula(&value)) {
            (Value::Vector { flat: false, .. } | Value::Formula { .. }, Some((_, width))) => Ok((value, width)),
            _ => Err(refused(node, "what it reads is neither linear in the features nor a function of scores")),
        }
    }

    fn select(&mut self, node: &NodeProto, columns: Option<Vec<usize>>) -> Result<Value> {
        let (value, width) = self.scores(node)?;
        let columns = columns.filter(|columns| !columns.is_empty() && columns.iter().all(|&column| column < width));
        let columns = columns
            .ok_or_else(|| refused(node, format!("it selects other columns than the {width} that there are")))?;
        match value {
            Value::Vector { id, .. } => {
                let id = self.chain.select(id, columns).map_err(too_large)?;
                Ok(Value::Vector { id, flat: false })
            }
            Value::Formula { formula, .. } if columns.len() == 1 => {
                Ok(Value::Formula { formula: Formula::column(&formula, columns[0], width), width: 1 })
            }
            _ => Err(refused(node, "it selects several scores")),
        }
    }

    /// Shapes that leave rows and columns what they are.
    pub(super) fn reshape(&mut self, node: &NodeProto) -> Result<Value> {
        let [axis, _allow_zero] = attributes(node, ["axis", "allowzero"])?;
        let value = self.input(node, 0)?;
        let width = match &value {
            Value::Vector { .. } | Value::Formula { .. } => self.formula(&value).map_or(0, |(_, width)| width),
            Value::Largest { .. } | Value::Label { .. } => 1,
            Value::Constant(_) | Value::Map { .. } => return Err(refused(node, "it changes the shape of a constant")),
        };
        let shape = match op(node) {
            "Flatten" if axis.and_then(|axis| axis.i).unwrap_or(1) == 1 => vec![-1, width as i64],
            "Flatten" => vec![],
            _ => self.constant(node, 1)?.integers().map(<[i64]>::to_vec).unwrap_or_default(),
        };
        let flat = match (&shape[..], width) {
            (&[-1], 1) => true,
            // So the several values of a network's row come, one below the other.
            (&[-1, 1], 2..) if matches!(value, Value::Vector { .. }) => true,
            (&[-1, columns], width) if columns == width as i64 => false,
            _ => return Err(refused(node, format!("it makes {shape:?} of {width} columns"))),
        };
        Ok(match value {
            Value::Vector { id, .. } => Value::Vector { id, flat },
            other => other,
        })
    }

    /// Other types of the same numbers or labels.
    pub(super) fn cast(&mut self, node: &NodeProto) -> Result<Value> {
        let [to] = attributes(node, ["to"])?;
        let to = cast_type(to);
        let is_float = matches!(to, DataType::FLOAT | DataType::DOUBLE);
        match self.input(node, 0)? {
            value @ (Value::Vector { .. } | Value::Formula { .. }) if is_float => Ok(value),
            Value::Formula { formula, width } if to == DataType::BOOL => self.applied(node, "Bool", [formula], width),
            Value::Label { labels, of } => match cast_labels(&labels, to) {
                Some(labels) => Ok(Value::Label { labels, of }),
                None => Err(refused(node, format!("it turns its labels into {to}"))),
            },
            _ => Err(refused(node, format!("it turns what it reads into {to}"))),
        }
    }

    pub(super) fn zip_map(&mut self, node: &NodeProto) -> Result<Value> {
        let [strings, integers] = attributes(node, ["classlabels_strings", "classlabels_int64s"])?;
        let (scores, _) = self.scores(node)?;
        Ok(Value::Map { labels: Rc::new(labels(strings, integers)), scores: Box::new(scores) })
    }

    pub(super) fn arg_max(&mut self, node: &NodeProto) -> Result<Value> {
        let [axis, _keep_dims, last] = attributes(node, ["axis", "keepdims", "select_last_index"])?;
        let (value, width) = self.scores(node)?;
        match (self.formula(&value), is_columns(axis) && last.and_then(|last| last.i).unwrap_or(0) == 0) {
            (Some((of, _)), true) => Ok(Value::Largest { of, width }),
            _ => Err(refused(node, "it is not the first largest of each row")),
        }
    }

    /// Sums of rows, kept as columns.
    pub(super) fn row_sum(&mut self, node: &NodeProto) -> Result<Value> {
        let [axes, keep_dims, _no_op] = attributes(node, ["axes", "keepdims", "noop_with_empty_axes"])?;
        let listed = match (self.optional(node, 1), axes) {
            (Some(Value::Constant(constant)), None) => constant.integers().map(<[i64]>::to_vec),
            (None, Some(axes)) => Some(axes.ints.clone()),
            _ => None,
        };
        let keeps = keep_dims.and_then(|keep| keep.i).unwrap_or(1) == 1;
        if !keeps || !matches!(listed.as_deref(), Some(&[1 | -1])) {
            return Err(refused(node, "it is no sum of each row"));
        }
        let function = if op(node) == "ReduceSum" { "RowSum" } else { "RowSquareSum" };
        let Value::Formula { formula, .. } = self.function(node, function)? else {
            unreachable!("functions are formulas")
        };
        Ok(Value::Formula { formula, width: 1 })
    }

    pub(super) fn softmax(&mut self, node: &NodeProto) -> Result<Value> {
        let [axis] = attributes(node, ["axis"])?;
        match axis.is_none() || is_columns(axis) {
            true => self.apply(node, "Softmax"),
            false => Err(refused(node, "it is not over each row")),
        }
    }

    /// A function without attributes.
    pub(super) fn function(&mut self, node: &NodeProto, function: &'static str) -> Result<Value> {
        if !function.starts_with("Row") {
            attributes(node, [])?;
        }
        self.apply(node, function)
    }

    /// A function of formulas, if it is not nested too deeply.
    pub(super) fn applied(
        &self,
        node: &NodeProto,
        function: &'static str,
        arguments: impl Into<Vec<Rc<Formula>>>,
        width: usize,
    ) -> Result<Value> {
        match Formula::apply(function, arguments) {
            Some(formula) => Ok(Value::Formula { formula, width }),
            None => Err(refused(node, TOO_DEEP)),
        }
    }

    /// A function of what a node reads first.
    pub(super) fn apply(&mut self, node: &NodeProto, function: &'static str) -> Result<Value> {
        let value = self.input(node, 0)?;
        match self.formula(&value) {
            Some((formula, width)) => self.applied(node, function, [formula], width),
            None => Err(refused(node, "what it reads is neither linear in the features nor a function of scores")),
        }
    }
}

/// The type that a cast makes.
pub(super) fn cast_type(to: Option<&AttributeProto>) -> DataType {
    DataType(to.and_then(|to| to.i).and_then(|to| i32::try_from(to).ok()).unwrap_or(0))
}

/// Whether an axis is that of columns, the last of two.
fn is_columns(axis: Option<&AttributeProto>) -> bool {
    matches!(axis.and_then(|axis| axis.i), Some(1 | -1))
}

fn is_list(value: &Value) -> bool {
    matches!(value, Value::Constant(constant) if constant.dims.len() == 1)
}

fn label(labels: &Tensor, of: Rc<Formula>, width: usize) -> Option<Value> {
    let labels: Vec<Label> = match &labels.data {
        Data::Integers(integers) => integers.iter().copied().map(Label::Integer).collect(),
        Data::Texts(texts) => texts.iter().cloned().map(Label::Text).collect(),
        Data::Numbers(_) => return None,
    };
    (labels.len() == width && width > 1).then(|| Value::Label { labels: Rc::new(labels), of })
}

/// Integers stay what they are as floats; as booleans, 0 and 1 become what they mean.
fn cast_labels(labels: &Rc<Vec<Label>>, to: DataType) -> Option<Rc<Vec<Label>>> {
    let all = |is: fn(&Label) -> bool| labels.iter().all(is);
    let (integers, texts) =
        (all(|label| matches!(label, Label::Integer(_))), all(|label| matches!(label, Label::Text(_))));
    match to {
        DataType::INT64 | DataType::INT32 | DataType::FLOAT | DataType::DOUBLE if integers => Some(labels.clone()),
        DataType::STRING if texts => Some(labels.clone()),
        DataType::BOOL if labels[..] == [Label::Integer(0), Label::Integer(1)] => {
            Some(Rc::new(vec![Label::Boolean(false), Label::Boolean(true)]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::description::{Label, Link};
    use crate::import::clear;
    use crate::import::sample::Sample;

    /// X of three columns and p, the probabilities of three labels.
    fn sample() -> Sample {
        Sample::new(3)
            .integers("i0", &[0])
            .integers("i1", &[1])
            .integers("i2", &[2])
            .integers("i9", &[9])
            .integers("pair", &[0, 1])
            .integers("rows", &[3, -1])
            .floats("half", &[1], &[0.5])
            .classifier("(X) -> label, p", &[1.0; 9], &[0.0, 1.0, 2.0], "SOFTMAX")
    }

    fn reason(sample: Sample) -> String {
        sample.refusal(&["label", "y"]).1
    }

    #[test]
    fn only_columns_are_joined() {
        assert_eq!(reason(sample().node("Concat(X, X) -> y").with_integer("axis", 0)), "it joins rows, not columns");
        assert_eq!(
            reason(sample().node("Concat(X, label) -> y").with_integer("axis", 1)),
            "it joins other things than columns"
        );
        let vectorizer =
            |widths: &[i64]| sample().node("FeatureVectorizer(X, X) -> y").with_integers("inputdimensions", widths);
        assert_eq!(reason(vectorizer(&[3, 2])), "its input dimensions are not those of its inputs");
    }

    #[test]
    fn only_constant_columns_are_selected() {
        let beyond = "it selects other columns than the 3 that there are";
        assert_eq!(reason(sample().node("ArrayFeatureExtractor(X, i9) -> y")), beyond);
        assert_eq!(reason(sample().node("ArrayFeatureExtractor(X, half) -> y")), "its indices are no list of integers");
        assert_eq!(reason(sample().node("ArrayFeatureExtractor(p, pair) -> y")), "it selects several scores");
        assert_eq!(
            reason(sample().node("ArrayFeatureExtractor(X, X) -> y")),
            "it selects by something that depends on the row"
        );
        assert_eq!(reason(sample().node("Gather(X, i0) -> y")), "it selects rows, not columns");
        let slice = "it is no constant range of columns";
        for call in ["Slice(X, i0, i0, i1)", "Slice(X, i0, i1, i0)", "Slice(X, X, i1, i1)", "Slice(X, i0, i1, i1, i2)"]
        {
            assert_eq!(reason(sample().node(&format!("{call} -> y"))), slice, "{call}");
        }
        assert_eq!(reason(sample().node("Slice(X, i9, i9, i1) -> y")), slice);
        let nothing = sample().integers("i10", &[10]).node("Slice(X, i9, i10, i1) -> y");
        assert_eq!(reason(nothing), beyond);
    }

    #[test]
    fn shapes_keep_rows_and_columns() {
        assert_eq!(reason(sample().node("Reshape(X, rows) -> y")), "it makes [3, -1] of 3 columns");
        let below = || sample().integers("below", &[-1, 1]).node("Reshape(X, below) -> z");
        let values = below().node("Mul(z, half) -> y").read(&["y"]).unwrap();
        assert_eq!(clear::logits(&values, &[2.0, 4.0, 6.0]), [1.0, 2.0, 3.0]);
        let row = below().floats("row", &[3], &[1.0; 3]).node("Mul(z, row) -> y");
        assert_eq!(reason(row), "what it reads is neither linear in the features nor a function of scores");
        assert_eq!(reason(sample().node("Reshape(half, i1) -> y")), "it changes the shape of a constant");
        assert_eq!(reason(sample().node("Flatten(X) -> y").with_integer("axis", 0)), "it makes [] of 3 columns");
    }

    #[test]
    fn labels_come_from_an_argmax() {
        let labelled = |constants: &[i64]| {
            let sample = sample().integers("classes", constants).node("ArgMax(p) -> at").with_integer("axis", 1);
            sample.node("ArrayFeatureExtractor(classes, at) -> l")
        };
        assert_eq!(labelled(&[5, 6]).refusal(&["l", "p"]).1, "its constants are not the labels of 3 scores");
        assert_eq!(
            labelled(&[5, 6, 7]).node("Exp(p) -> e").refusal(&["l", "e"]).1,
            "no supported model has the output Exp(Softmax(S)) with these labels"
        );
        let model = labelled(&[5, 6, 7]).read(&["l", "p"]).unwrap();
        assert_eq!((model.labels, model.link), ([5, 6, 7].map(Label::Integer).into(), Link::Softmax));
        let places = sample().node("ArgMax(p) -> at").with_integer("axis", 1).read(&["at", "p"]).unwrap();
        assert_eq!(places.labels, [0, 1, 2].map(Label::Integer), "labels that are their places");
        let last = sample().node("ArgMax(p) -> y").with_integer("axis", 1).with_integer("select_last_index", 1);
        assert_eq!(reason(last), "it is not the first largest of each row");
        assert_eq!(reason(sample().node("ArgMax(p) -> y")), "it is not the first largest of each row");
    }

    #[test]
    fn other_types_and_sums_are_refused() {
        assert_eq!(reason(sample().node("Cast(p) -> y").with_integer("to", 7)), "it turns what it reads into INT64");
        assert_eq!(reason(sample().node("Cast(X) -> y").with_integer("to", 9)), "it turns what it reads into BOOL");
        assert_eq!(reason(sample().node("Cast(X) -> y")), "it turns what it reads into 0");
        assert_eq!(reason(sample().node("ReduceSum(p) -> y")), "it is no sum of each row");
        assert_eq!(
            reason(sample().node("ReduceSum(p, i1) -> y").with_integer("keepdims", 0)),
            "it is no sum of each row"
        );
        assert_eq!(reason(sample().node("Softmax(X) -> y").with_integer("axis", 0)), "it is not over each row");
    }
}
