//! The constants of a graph.

use std::rc::Rc;

use rten_onnx::onnx::{DataLocation, DataType, TensorProto};

use super::ImportError;

/// A constant: its shape, and as many values as that has.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub(super) dims: Vec<usize>,
    pub(super) data: Data,
}

/// The values of a constant, in row-major order.
#[derive(Clone, Debug)]
pub(super) enum Data {
    Numbers(Rc<Parameters>),
    /// Indices, shapes, or labels; booleans are 0 and 1.
    Integers(Vec<i64>),
    Texts(Vec<String>),
}

/// Finite numbers, and how near they are to scikit-learn's.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parameters {
    pub(super) values: Vec<f64>,
    pub(super) precision: Precision,
}

/// How near a number of the file is to what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Precision {
    /// It is no parameter: the −1 of a negation.
    Exact,
    /// Scikit-learn's float64, give or take the roundings of an expression.
    Double,
    /// The same, rounded to float32.
    Single,
}

impl Parameters {
    /// The finite float32 numbers of an attribute or tensor; `what` names them.
    pub(super) fn single(floats: &[f32], what: impl FnOnce() -> String) -> Result<Self, ImportError> {
        Self::new(floats.iter().copied().map(f64::from).collect(), Precision::Single, what)
    }

    fn new(values: Vec<f64>, precision: Precision, what: impl FnOnce() -> String) -> Result<Self, ImportError> {
        match values.iter().position(|value| !value.is_finite()) {
            Some(index) => Err(ImportError::NotFinite { what: what(), index, value: values[index] }),
            None => Ok(Self { values, precision }),
        }
    }

    pub(super) fn exact(value: f64) -> Self {
        Self { values: vec![value], precision: Precision::Exact }
    }

    /// As many values, a single one repeated; `None` if it has some other number of them.
    pub(super) fn spread(self, width: usize) -> Option<Self> {
        match self.values.len() {
            len if len == width => Some(self),
            1 => Some(Self { values: vec![self.values[0]; width], ..self }),
            _ => None,
        }
    }

    /// The roundings of float64 in each of them: those of an expression that an exporter may have computed.
    pub(super) fn roundings(&self) -> f64 {
        match self.precision {
            Precision::Exact | Precision::Single => 0.0,
            Precision::Double => 8.0,
        }
    }

    pub(super) fn map(&self, change: impl Fn(f64) -> f64) -> Self {
        Self { values: self.values.iter().copied().map(change).collect(), precision: self.precision }
    }
}

impl Tensor {
    /// Reads a tensor, of which the reader has left out the texts.
    pub(super) fn read(tensor: &TensorProto, texts: Option<Vec<String>>) -> Result<Self, ImportError> {
        let name = tensor.name.as_deref().unwrap_or_default();
        let refuse = |reason: String| ImportError::Graph {
            reason: format!("its constant {name:?} {reason}"),
            remedy: "export the model again, with its constants inside the file".into(),
        };
        if !tensor.external_data.is_empty() || tensor.data_location.is_some_and(|place| place != DataLocation::DEFAULT)
        {
            return Err(refuse("is in another file".into()));
        }
        let len = len(&tensor.dims).ok_or_else(|| refuse(format!("has the shape {:?}", tensor.dims)))?;
        let kind = tensor.data_type.unwrap_or(DataType(0));
        if let Some(bytes) = tensor.raw_data.as_ref().map(|raw| raw.borrow().len())
            && Some(bytes) != size(kind).and_then(|size| len.checked_mul(size))
        {
            return Err(refuse(format!("of type {kind} has {bytes} bytes for {len} values")));
        }
        let data = match kind {
            DataType::FLOAT => {
                let floats = raw(tensor, f32::from_le_bytes).unwrap_or_else(|| tensor.float_data.clone());
                Data::Numbers(Parameters::single(&floats, || format!("the constant {name:?}"))?.into())
            }
            DataType::DOUBLE => {
                let doubles = raw(tensor, f64::from_le_bytes).unwrap_or_else(|| tensor.double_data.clone());
                let parameters = Parameters::new(doubles, Precision::Double, || format!("the constant {name:?}"))?;
                Data::Numbers(parameters.into())
            }
            DataType::INT64 => {
                Data::Integers(raw(tensor, i64::from_le_bytes).unwrap_or_else(|| tensor.int64_data.clone()))
            }
            DataType::INT32 => Data::Integers(small(tensor, raw(tensor, i32::from_le_bytes))),
            DataType::BOOL | DataType::UINT8 => Data::Integers(small(tensor, raw(tensor, |[byte]| i32::from(byte)))),
            DataType::STRING => Data::Texts(texts.unwrap_or_default()),
            _ => return Err(refuse(format!("is of type {kind}"))),
        };
        match data.len() {
            found if found == len => Ok(Self { dims: tensor.dims.iter().map(|&dim| dim as usize).collect(), data }),
            found => Err(refuse(format!("has {found} values, its shape asks for {len}"))),
        }
    }

    /// As many values as it has.
    pub(super) fn len(&self) -> usize {
        self.data.len()
    }

    /// Numbers.
    pub(super) fn numbers(&self) -> Option<&Rc<Parameters>> {
        match &self.data {
            Data::Numbers(parameters) => Some(parameters),
            _ => None,
        }
    }

    /// Whether it has float64 numbers.
    pub(super) fn is_double(&self) -> bool {
        self.numbers().is_some_and(|numbers| numbers.precision == Precision::Double)
    }

    /// Integers.
    pub(super) fn integers(&self) -> Option<&[i64]> {
        match &self.data {
            Data::Integers(integers) => Some(integers),
            _ => None,
        }
    }

    /// The numbers of one row, which every row of features meets alike: a scalar, a list, or a matrix of one row.
    pub(super) fn row(&self) -> Option<&Rc<Parameters>> {
        let is_row = self.dims.iter().rev().skip(1).all(|&dim| dim == 1) && self.dims.len() <= 2;
        self.numbers().filter(|_| is_row)
    }
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Self::Numbers(parameters) => parameters.values.len(),
            Self::Integers(integers) => integers.len(),
            Self::Texts(texts) => texts.len(),
        }
    }
}

/// The product of the dimensions, if it is one of a tensor that fits.
fn len(dims: &[i64]) -> Option<usize> {
    dims.iter().try_fold(1_usize, |product, &dim| product.checked_mul(usize::try_from(dim).ok()?))
}

/// The bytes of one value in `raw_data`.
fn size(kind: DataType) -> Option<usize> {
    match kind {
        DataType::BOOL | DataType::UINT8 => Some(1),
        DataType::FLOAT | DataType::INT32 => Some(4),
        DataType::DOUBLE | DataType::INT64 => Some(8),
        _ => None,
    }
}

/// The numbers of `raw_data`, if there is some.
fn raw<T, const N: usize>(tensor: &TensorProto, read: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
    let bytes = tensor.raw_data.as_ref()?.borrow();
    Some(bytes.as_chunks().0.iter().copied().map(read).collect())
}

fn small(tensor: &TensorProto, raw: Option<Vec<i32>>) -> Vec<i64> {
    raw.unwrap_or_else(|| tensor.int32_data.clone()).into_iter().map(i64::from).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn tensor(kind: DataType, dims: &[i64]) -> TensorProto {
        TensorProto { dims: dims.to_vec(), data_type: Some(kind), name: Some("w".into()), ..Default::default() }
    }

    fn raw_data(bytes: &[u8]) -> Option<RefCell<Vec<u8>>> {
        Some(RefCell::new(bytes.to_vec()))
    }

    fn reason(tensor: TensorProto) -> String {
        Tensor::read(&tensor, None).unwrap_err().to_string()
    }

    #[test]
    fn numbers_are_read_exactly_from_either_place() {
        let third = 1.0 / 3.0;
        let double = TensorProto { double_data: vec![third, -0.1], ..tensor(DataType::DOUBLE, &[2, 1]) };
        let bytes = [third.to_le_bytes(), (-0.1_f64).to_le_bytes()].concat();
        let raw = TensorProto { raw_data: raw_data(&bytes), ..tensor(DataType::DOUBLE, &[2, 1]) };
        for tensor in [double, raw] {
            let numbers = Tensor::read(&tensor, None).unwrap();
            let expected = Parameters { values: vec![third, -0.1], precision: Precision::Double };
            assert_eq!(**numbers.numbers().unwrap(), expected);
            assert!(numbers.row().is_none(), "a column is no row");
        }
        let single = TensorProto { float_data: vec![0.1], ..tensor(DataType::FLOAT, &[]) };
        let expected = Parameters { values: vec![f64::from(0.1_f32)], precision: Precision::Single };
        assert_eq!(**Tensor::read(&single, None).unwrap().row().unwrap(), expected);
        let integers = TensorProto { raw_data: raw_data(&[0xff; 12]), ..tensor(DataType::INT32, &[3]) };
        assert_eq!(Tensor::read(&integers, None).unwrap().integers().unwrap(), [-1; 3]);
        let booleans = TensorProto { int32_data: vec![0, 1], ..tensor(DataType::BOOL, &[2]) };
        assert_eq!(Tensor::read(&booleans, None).unwrap().integers().unwrap(), [0, 1]);
    }

    #[test]
    fn shape_and_values_must_agree() {
        let shape = "the graph is no supported model: its constant \"w\" has";
        assert_eq!(reason(tensor(DataType::FLOAT, &[2])), format!("{shape} 0 values, its shape asks for 2"));
        assert_eq!(reason(tensor(DataType::STRING, &[3])), format!("{shape} 0 values, its shape asks for 3"));
        let half = TensorProto { raw_data: raw_data(&[0; 12]), ..tensor(DataType::DOUBLE, &[1]) };
        assert!(reason(half).ends_with("of type DOUBLE has 12 bytes for 1 values"));
        let text = TensorProto { raw_data: raw_data(&[0; 3]), ..tensor(DataType::STRING, &[3]) };
        assert!(reason(text).ends_with("of type STRING has 3 bytes for 3 values"));
        assert_eq!(reason(tensor(DataType::FLOAT, &[-1])), format!("{shape} the shape [-1]"));
        let endless = [i64::MAX, i64::MAX];
        assert_eq!(reason(tensor(DataType::FLOAT, &endless)), format!("{shape} the shape {endless:?}"));
    }

    #[test]
    fn other_constants_are_refused() {
        assert!(reason(tensor(DataType::FLOAT16, &[0])).ends_with("is of type FLOAT16"));
        let elsewhere = TensorProto { data_location: Some(DataLocation::EXTERNAL), ..tensor(DataType::FLOAT, &[0]) };
        assert!(reason(elsewhere).ends_with("is in another file"));
        let nan = TensorProto { double_data: vec![0.0, f64::NAN], ..tensor(DataType::DOUBLE, &[2]) };
        assert_eq!(reason(nan), "number 1 of the constant \"w\" is NaN");
    }
}
