//! Plaintext messages of the Open Inference Protocol, tensors in JSON or in the binary extension.

use std::{borrow::Cow, fmt};

use cloister_client::{Description, Label, Prediction};
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Unexpected, Visitor},
};
use serde_json::{Value, json};

use super::super::output::foreign;

/// The input in a model's metadata. A request may call it as it likes, or give a tensor for each column, by its name.
const INPUT: &str = "input";

const LABEL: &str = "label";
const CERTAIN: &str = "certain";
const LOGITS: &str = "logits";
const PROBABILITIES: &str = "probabilities";
const PREDICTIONS: &str = "predictions";

/// Longest `id` of a request, bytes.
const MAX_ID_BYTES: usize = 256;

/// What a client asks for.
#[derive(Debug, PartialEq)]
pub(super) struct InferRequest {
    id: Option<String>,
    pub(super) rows: Vec<Vec<f64>>,
    /// Whether values are moved to the edges of their ranges.
    pub(super) clip: bool,
    outputs: Vec<Requested>,
}

/// An output that is wanted, and in which form.
#[derive(Debug, PartialEq)]
struct Requested {
    name: &'static str,
    binary: bool,
}

/// Why a request is not answered.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum TensorError {
    #[error("the JSON header cannot be read: {0}")]
    Json(String),
    #[error("the id has more than {MAX_ID_BYTES} bytes")]
    LongId,
    #[error("the message is shorter than its lengths say")]
    Truncated,
    #[error("bytes follow the last tensor")]
    Trailing,
    #[error("tensor {tensor:?} has datatype {datatype:?}: give FP64, FP32, INT64 or INT32")]
    Datatype { tensor: String, datatype: String },
    #[error("tensor {tensor:?} has shape {shape:?}: {expected}")]
    Shape { tensor: String, shape: Vec<u64>, expected: String },
    #[error("tensor {tensor:?} has {found} values, its shape says {expected}")]
    Values { tensor: String, found: usize, expected: u64 },
    #[error(
        "the inputs are {found}: give one tensor of shape [rows, {columns}], whatever its name, or one of shape [rows, 1] for each \
         of the columns {names}"
    )]
    Inputs { found: String, columns: usize, names: String },
    #[error("there is no output {name:?} of this model: {known}")]
    Output { name: String, known: String },
    #[error("output {0:?} is asked for twice")]
    Repeated(&'static str),
    #[error("{0:?} of an output is not done here: ask for probabilities")]
    Parameter(&'static str),
    #[error("tensor {tensor:?} has its values twice: in JSON and in binary")]
    Twice { tensor: String },
    #[error("tensor {tensor:?} has datatype {datatype}, and values that are no integers")]
    Fraction { tensor: String, datatype: String },
}

impl InferRequest {
    /// Reads a request. `header_length` is `None` where the HTTP header was absent and the body is JSON alone.
    pub(super) fn parse(
        header_length: Option<usize>,
        body: &[u8],
        description: &Description,
    ) -> Result<Self, TensorError> {
        let (header, mut tensors) =
            body.split_at_checked(header_length.unwrap_or(body.len())).ok_or(TensorError::Truncated)?;
        let header: RequestHeader<'_> =
            serde_json::from_slice(header).map_err(|error| TensorError::Json(error.to_string()))?;
        if header.id.as_ref().is_some_and(|id| id.len() > MAX_ID_BYTES) {
            return Err(TensorError::LongId);
        }
        let inputs = header.inputs.into_iter().map(|input| input.read(&mut tensors));
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        if !tensors.is_empty() {
            return Err(TensorError::Trailing);
        }
        let outputs = requested(&header.outputs, header.parameters.binary_data_output, description)?;
        Ok(Self { id: header.id, rows: rows(inputs, description)?, clip: header.parameters.clip, outputs })
    }

    /// The answer, and how long its JSON header is if tensors follow.
    pub(super) fn answer(&self, model: (&str, &str), predictions: &[Prediction]) -> (Option<usize>, Vec<u8>) {
        let (mut outputs, mut tensors) = (Vec::new(), Vec::new());
        for Requested { name, binary } in &self.outputs {
            let data = Data::of(name, predictions);
            let shape = data.shape(predictions.len(), is_column(name));
            let mut output = json!({"name": name, "datatype": data.datatype(), "shape": shape});
            if *binary {
                let start = tensors.len();
                data.write(&mut tensors);
                output["parameters"] = json!({"binary_data_size": tensors.len() - start});
            } else {
                output["data"] = data.json();
            }
            outputs.push(output);
        }
        let (name, version) = model;
        let mut header = json!({"model_name": name, "model_version": version, "outputs": outputs});
        if let Some(id) = &self.id {
            header["id"] = id.as_str().into();
        }
        let mut body = header.to_string().into_bytes();
        let header_length = self.outputs.iter().any(|output| output.binary).then_some(body.len());
        body.append(&mut tensors);
        (header_length, body)
    }
}

/// What `GET /v2/models/M` says of tensors: inputs and outputs.
pub(super) fn metadata(description: &Description) -> (Value, Value) {
    let columns = description.features().len();
    let input = json!([{"name": INPUT, "datatype": "FP64", "shape": [-1, columns]}]);
    let outputs = outputs(description).into_iter().map(|name| {
        let (datatype, width) = match name {
            LABEL => (Data::labels(description.labels().iter()).datatype(), None),
            CERTAIN => ("BOOL", None),
            PROBABILITIES => ("FP64", Some(description.labels().len())),
            _ => ("FP64", Some(description.logits())),
        };
        let shape = width.map_or_else(|| json!([-1]), |width| json!([-1, width]));
        json!({"name": name, "datatype": datatype, "shape": shape})
    });
    (input, outputs.collect())
}

/// What a model gives, in this order.
fn outputs(description: &Description) -> Vec<&'static str> {
    let classifies = !description.labels().is_empty();
    let linked = match classifies {
        true => description.link().gives_probabilities().then_some(PROBABILITIES),
        false => Some(PREDICTIONS),
    };
    let label = classifies.then_some(LABEL);
    label.into_iter().chain(linked).chain([LOGITS, CERTAIN]).collect()
}

fn is_column(output: &str) -> bool {
    matches!(output, LABEL | CERTAIN)
}

fn requested(
    asked: &[RequestedOutput<'_>],
    binary: bool,
    description: &Description,
) -> Result<Vec<Requested>, TensorError> {
    let known = outputs(description);
    if asked.is_empty() {
        return Ok(known.into_iter().map(|name| Requested { name, binary }).collect());
    }
    let find = |RequestedOutput { name, parameters }: &RequestedOutput<'_>| {
        if parameters.classification.is_some() {
            return Err(TensorError::Parameter("classification"));
        }
        let same = known.iter().find(|known| *known == name);
        let unknown = || TensorError::Output { name: foreign(name), known: known.join(", ") };
        Ok(Requested { name: same.ok_or_else(unknown)?, binary: parameters.binary_data.unwrap_or(binary) })
    };
    let outputs = asked.iter().map(find).collect::<Result<Vec<_>, _>>()?;
    for (index, Requested { name, .. }) in outputs.iter().enumerate() {
        // There are four of them, so that this ends soon.
        if outputs[..index].iter().any(|earlier| earlier.name == *name) {
            return Err(TensorError::Repeated(name));
        }
    }
    Ok(outputs)
}

/// Rows of features, in the order of the model's columns.
fn rows(inputs: Vec<Input>, description: &Description) -> Result<Vec<Vec<f64>>, TensorError> {
    let features = description.features();
    let columns = features.len();
    let wrong = |inputs: &[Input]| {
        let quoted = |name: &str| format!("{:?}", foreign(name));
        let found = inputs.iter().take(8).map(|input| quoted(&input.name)).collect::<Vec<_>>().join(", ");
        let names = features.iter().take(8).map(|feature| quoted(&feature.name)).collect::<Vec<_>>().join(", ");
        let more = |count: usize, text: String| match count {
            0 => "none".to_owned(),
            1..=8 => text,
            _ => text + ", …",
        };
        TensorError::Inputs { found: more(inputs.len(), found), columns, names: more(columns, names) }
    };
    if let [input] = &inputs[..]
        && (columns != 1 || input.shape.len() == 2)
    {
        let &[rows, width] = &input.shape[..] else {
            return Err(input.bad_shape(format!("expected [rows, {columns}]")));
        };
        if width != columns as u64 {
            return Err(input.bad_shape(format!("the model has {columns} columns")));
        }
        input.check_rows(rows)?;
        return Ok(input.values.chunks_exact(columns).map(<[f64]>::to_vec).collect());
    }
    if inputs.len() != columns {
        return Err(wrong(&inputs));
    }
    let count = inputs[0].shape.first().copied().unwrap_or(0);
    let mut rows = vec![Vec::new(); inputs[0].values.len()];
    for feature in features {
        let Some(input) = inputs.iter().find(|input| input.name == feature.name) else { return Err(wrong(&inputs)) };
        if input.shape != [count] && input.shape != [count, 1] {
            return Err(input.bad_shape(format!("expected [{count}, 1], as other columns have")));
        }
        input.check_rows(count)?;
        for (row, value) in rows.iter_mut().zip(&input.values) {
            row.push(*value);
        }
    }
    Ok(rows)
}

/// A tensor of numbers, as many as its shape says.
#[derive(Debug)]
struct Input {
    name: String,
    shape: Vec<u64>,
    values: Vec<f64>,
}

impl Input {
    fn bad_shape(&self, expected: String) -> TensorError {
        TensorError::Shape { tensor: foreign(&self.name), shape: self.shape.clone(), expected }
    }

    fn check_rows(&self, rows: u64) -> Result<(), TensorError> {
        if rows == 0 { Err(self.bad_shape("it has no rows".to_owned())) } else { Ok(()) }
    }
}

#[derive(Deserialize)]
struct RequestHeader<'a> {
    id: Option<String>,
    #[serde(borrow)]
    inputs: Vec<TensorHeader<'a>>,
    #[serde(borrow, default)]
    outputs: Vec<RequestedOutput<'a>>,
    #[serde(default)]
    parameters: RequestParameters,
}

#[derive(Default, Deserialize)]
struct RequestParameters {
    #[serde(default)]
    binary_data_output: bool,
    #[serde(default)]
    clip: bool,
}

#[derive(Deserialize)]
struct TensorHeader<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    shape: Vec<u64>,
    #[serde(default)]
    parameters: TensorParameters,
    data: Option<Numbers>,
}

#[derive(Default, Deserialize)]
struct TensorParameters {
    binary_data_size: Option<usize>,
}

#[derive(Deserialize)]
struct RequestedOutput<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default)]
    parameters: OutputParameters,
}

#[derive(Default, Deserialize)]
struct OutputParameters {
    binary_data: Option<bool>,
    classification: Option<Value>,
}

impl TensorHeader<'_> {
    /// Takes the tensor's values from the header, or from the front of what follows it.
    fn read(self, tensors: &mut &[u8]) -> Result<Input, TensorError> {
        let Self { name, datatype, shape, parameters, data } = self;
        let (tensor, expected) = (|| foreign(&name), shape.iter().copied().fold(1, u64::saturating_mul));
        let number: fn(&[u8]) -> Option<Vec<f64>> = match &*datatype {
            "FP64" => |bytes| values(bytes, f64::from_le_bytes),
            "FP32" => |bytes| values(bytes, |bytes| f32::from_le_bytes(bytes).into()),
            "INT64" => |bytes| values(bytes, |bytes| i64::from_le_bytes(bytes) as f64),
            "INT32" => |bytes| values(bytes, |bytes| i32::from_le_bytes(bytes).into()),
            other => return Err(TensorError::Datatype { tensor: tensor(), datatype: foreign(other) }),
        };
        let values = match (data, parameters.binary_data_size) {
            (Some(_), Some(_)) => return Err(TensorError::Twice { tensor: tensor() }),
            (Some(Numbers { values, width }), None) => {
                if width.is_some_and(|width| shape.last() != Some(&(width as u64))) {
                    let expected = "lists of another length are in it".to_owned();
                    return Err(TensorError::Shape { tensor: tensor(), shape, expected });
                }
                if datatype.starts_with("INT") && values.iter().any(|value| value.fract() != 0.0) {
                    return Err(TensorError::Fraction { tensor: tensor(), datatype: datatype.into_owned() });
                }
                values
            }
            (None, Some(size)) => {
                let (bytes, rest) = tensors.split_at_checked(size).ok_or(TensorError::Truncated)?;
                *tensors = rest;
                number(bytes).ok_or(TensorError::Truncated)?
            }
            (None, None) => Vec::new(),
        };
        if values.len() as u64 != expected {
            return Err(TensorError::Values { tensor: tensor(), found: values.len(), expected });
        }
        Ok(Input { name: name.into_owned(), shape, values })
    }
}

/// Little-endian numbers, if nothing is left over at the end.
fn values<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f64) -> Option<Vec<f64>> {
    let (chunks, rest) = bytes.as_chunks();
    rest.is_empty().then(|| chunks.iter().map(|bytes| number(*bytes)).collect())
}

/// Numbers in row-major order, flat or in lists of the same `width`. `null` is a value that is missing.
#[derive(Debug, Default)]
struct Numbers {
    values: Vec<f64>,
    width: Option<usize>,
}

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Self::default())
    }
}

impl<'de> Visitor<'de> for Numbers {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers, or lists of as many numbers each")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut sequence: A) -> Result<Self, A::Error> {
        let mut is_first = true;
        while let Some(element) = sequence.next_element()? {
            let width = match element {
                Element::Number(value) => {
                    self.values.push(value.unwrap_or(f64::NAN));
                    None
                }
                Element::List(values) => {
                    self.values.extend(values.iter().map(|value| value.unwrap_or(f64::NAN)));
                    Some(values.len())
                }
            };
            if !is_first && width != self.width {
                return Err(A::Error::invalid_type(Unexpected::Seq, &self));
            }
            (is_first, self.width) = (false, width);
        }
        Ok(self)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Element {
    Number(Option<f64>),
    List(Vec<Option<f64>>),
}

/// The values of an output.
enum Data<'a> {
    Texts(Vec<&'a str>),
    Integers(Vec<i64>),
    Booleans(Vec<bool>),
    Numbers(Vec<f64>),
}

impl<'a> Data<'a> {
    fn of(output: &str, predictions: &'a [Prediction]) -> Self {
        match output {
            LABEL => Self::labels(predictions.iter().filter_map(|prediction| prediction.label.as_ref())),
            CERTAIN => Self::Booleans(predictions.iter().map(|prediction| prediction.certain).collect()),
            LOGITS => Self::Numbers(predictions.iter().flat_map(|prediction| prediction.logits.clone()).collect()),
            _ => Self::Numbers(predictions.iter().flat_map(|prediction| prediction.outputs.clone()).collect()),
        }
    }

    /// Of one model, all of one kind.
    fn labels(labels: impl Iterator<Item = &'a Label>) -> Self {
        let (mut texts, mut integers, mut booleans) = (Vec::new(), Vec::new(), Vec::new());
        for label in labels {
            match label {
                Label::Text(text) => texts.push(text.as_str()),
                Label::Integer(number) => integers.push(*number),
                Label::Boolean(boolean) => booleans.push(*boolean),
            }
        }
        match (integers.is_empty(), booleans.is_empty()) {
            (false, _) => Self::Integers(integers),
            (_, false) => Self::Booleans(booleans),
            _ => Self::Texts(texts),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Integers(integers) => integers.len(),
            Self::Booleans(booleans) => booleans.len(),
            Self::Numbers(numbers) => numbers.len(),
        }
    }

    fn shape(&self, rows: usize, column: bool) -> Vec<usize> {
        if column { vec![rows] } else { vec![rows, self.len() / rows.max(1)] }
    }

    fn datatype(&self) -> &'static str {
        match self {
            Self::Texts(_) => "BYTES",
            Self::Integers(_) => "INT64",
            Self::Booleans(_) => "BOOL",
            Self::Numbers(_) => "FP64",
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Texts(texts) => json!(texts),
            Self::Integers(integers) => json!(integers),
            Self::Booleans(booleans) => json!(booleans),
            Self::Numbers(numbers) => json!(numbers),
        }
    }

    /// As the binary extension has it: little-endian numbers, a byte for a boolean, a text after its length in four bytes.
    fn write(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Texts(texts) => {
                for text in texts {
                    let length = u32::try_from(text.len()).expect("a label is shorter than 4 GiB");
                    bytes.extend(length.to_le_bytes());
                    bytes.extend(text.as_bytes());
                }
            }
            Self::Integers(integers) => bytes.extend(integers.iter().flat_map(|number| number.to_le_bytes())),
            Self::Booleans(booleans) => bytes.extend(booleans.iter().map(|boolean| u8::from(*boolean))),
            Self::Numbers(numbers) => bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures::description;

    /// Two rows, a column each in another datatype and order.
    fn columns() -> (usize, Vec<u8>) {
        let tensor = |name: &str, datatype: &str, size: usize| json!({"name": name, "shape": [2, 1], "datatype": datatype, "parameters": {"binary_data_size": size}});
        let inputs =
            [tensor("d", "FP64", 16), tensor("c", "FP32", 8), tensor("b", "INT64", 16), tensor("a", "INT32", 8)];
        let mut body = json!({"inputs": inputs, "parameters": {"binary_data_output": true}}).to_string().into_bytes();
        let header_length = body.len();
        body.extend([0.25f64, 8.0].map(f64::to_le_bytes).concat());
        body.extend([0.5f32, 7.0].map(f32::to_le_bytes).concat());
        body.extend([3i64, 4].map(i64::to_le_bytes).concat());
        body.extend([1i32, 2].map(i32::to_le_bytes).concat());
        (header_length, body)
    }

    #[test]
    fn columns_are_found_by_name_in_every_datatype() {
        let (header_length, body) = columns();
        let request = InferRequest::parse(Some(header_length), &body, &description()).unwrap();
        assert_eq!(request.rows, [[1.0, 3.0, 0.5, 0.25], [2.0, 4.0, 7.0, 8.0]]);
        assert!(request.outputs.iter().map(|output| output.name).eq([LABEL, PROBABILITIES, LOGITS, CERTAIN]));
        assert!(request.outputs.iter().all(|output| output.binary));
    }

    #[test]
    fn what_is_cut_short_or_altered_is_refused_or_read_but_never_panics() {
        let ((header_length, body), description) = (columns(), description());
        let parse = |length, body: &[u8]| InferRequest::parse(length, body, &description);
        for length in 0..body.len() {
            assert!(parse(Some(header_length), &body[..length]).is_err(), "{length}");
            let _ = parse(Some(length), &body);
        }
        assert_eq!(parse(Some(header_length), &[&body[..], &[0]].concat()), Err(TensorError::Trailing));
        assert_eq!(parse(Some(usize::MAX), &body), Err(TensorError::Truncated));
        for index in 0..body.len() {
            for flip in [0x01, 0x10, 0x80, 0xff] {
                let mut altered = body.clone();
                altered[index] ^= flip;
                let _ = parse(Some(header_length), &altered);
            }
        }
    }

    #[test]
    fn answers_have_the_outputs_that_were_asked_for() {
        let asked = |outputs: Value| {
            let request = json!({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP64", "data": [1, 2, 3, 4]}], "outputs": outputs});
            InferRequest::parse(None, request.to_string().as_bytes(), &description()).unwrap()
        };
        let predictions = [Prediction::new(&description(), vec![1.0, 3.0, 2.0])];
        let (header_length, body) = asked(json!([{"name": "label"}])).answer(("iris", "1"), &predictions);
        assert_eq!(header_length, None);
        let label = json!([{"name": "label", "datatype": "BYTES", "shape": [1], "data": ["versicolor"]}]);
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["outputs"], label);

        let binary = json!([{"name": "logits", "parameters": {"binary_data": true}}, {"name": "certain"}]);
        let (header_length, body) = asked(binary).answer(("iris", "1"), &predictions);
        let (header, tensors) = body.split_at(header_length.unwrap());
        assert_eq!(tensors, [1.0f64, 3.0, 2.0].map(f64::to_le_bytes).concat());
        let header: Value = serde_json::from_slice(header).unwrap();
        assert_eq!(header["outputs"][0]["parameters"], json!({"binary_data_size": 24}));
        assert_eq!(header["outputs"][1]["data"], json!([true]));
    }
}
