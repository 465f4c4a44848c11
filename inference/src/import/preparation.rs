//! What the client does before the affine chain begins, and how exactly it can be known.

use rten_onnx::onnx::NodeProto;

use super::ImportError;
use super::chain::{Chain, Id, Operation, State};
use super::fold::ulp32;
use super::model::{Reader, Value};
use super::onnx::{attributes, graph_refused, numbers, op};
use super::refusal::{refused, refused_for};
use super::tensor::{Parameters, Precision};
use crate::bound::power_of_two;
use crate::steps::{Norm, Step};

/// The client's steps, as they are found.
#[derive(Clone, Debug, Default)]
pub(super) struct Preparation {
    /// What a missing value becomes, for each column.
    imputed: Vec<Option<f64>>,
    normalized: Option<Normalized>,
}

/// Rows over their norm.
#[derive(Clone, Debug)]
struct Normalized {
    /// The value of the graph.
    name: String,
    scale: Option<Step>,
    norm: Norm,
    /// What each of the results, all within ±1, may be off.
    error: InputError,
}

/// How far a column, as the chain gets it, may be from scikit-learn's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct InputError {
    /// Because of float32 parameters.
    pub(super) export: f64,
    /// As many roundings of float64, each relative to the largest value of the column.
    pub(super) roundings: f64,
}

impl Preparation {
    pub(super) fn new(columns: usize) -> Self {
        Self { imputed: vec![None; columns], normalized: None }
    }

    /// The steps of the client.
    pub(super) fn steps(&self) -> Vec<Step> {
        let impute = self.imputed.iter().any(Option::is_some).then(|| Step::Impute { values: self.imputed.clone() });
        let scale = self.normalized.as_ref().and_then(|normalized| normalized.scale.clone());
        let normalize = self.normalized.as_ref().map(|normalized| Step::Normalize(normalized.norm));
        impute.into_iter().chain(scale).chain(normalize).collect()
    }

    /// What a missing value in a column becomes.
    pub(super) fn imputed(&self, column: usize) -> Option<f64> {
        self.imputed[column]
    }

    /// The value of the graph that holds rows over their norm.
    pub(super) fn normalized(&self) -> Option<&str> {
        self.normalized.as_ref().map(|normalized| &normalized.name[..])
    }

    /// How far a column of the chain may be off.
    pub(super) fn error(&self, column: usize) -> InputError {
        match (&self.normalized, self.imputed[column]) {
            (Some(normalized), _) => normalized.error,
            (None, Some(value)) => InputError { export: ulp32(value), roundings: 0.0 },
            (None, None) => InputError::default(),
        }
    }

    /// All columns that `logits` come from have had all steps.
    pub(super) fn check(&self, chain: &Chain, logits: Id) -> Result<(), ImportError> {
        let needed = chain.needed(logits);
        let stages = chain.stages().iter().zip(needed).filter(|(_, needed)| *needed);
        for (stage, _) in stages {
            let Operation::Columns { columns, state } = &stage.operation else { continue };
            let complete = match (state, &self.normalized) {
                (State::Normalized, Some(_)) | (State::Imputed, None) => true,
                (State::Raw, None) => columns.iter().all(|&column| self.imputed[column].is_none()),
                _ => false,
            };
            if !complete {
                return Err(graph_refused("some of its columns go around the imputer or normaliser of others"));
            }
        }
        Ok(())
    }
}

impl Reader {
    pub(super) fn imputer(&mut self, node: &NodeProto) -> Result<Value, ImportError> {
        let [values, replaced] = attributes(node, ["imputed_value_floats", "replaced_value_float"])?;
        if !replaced.and_then(|replaced| replaced.f).is_some_and(f32::is_nan) {
            return Err(refused(node, "it replaces another value than NaN"));
        }
        let (id, width) = self.vector(node, 0)?;
        let Operation::Columns { columns, state: State::Raw } = self.chain.operation(id) else {
            return Err(refused(node, "it is not the first step"));
        };
        let columns = columns.clone();
        let count = if values.is_some_and(|values| values.floats.len() == 1) { 1 } else { width };
        let values = numbers(node, "imputed_value_floats", values, count)?.spread(width);
        for (&column, value) in columns.iter().zip(values.map(|values| values.values).unwrap_or_default()) {
            match self.preparation.imputed[column].replace(value) {
                Some(other) if other != value => {
                    return Err(refused(node, format!("column {column} has another imputed value before")));
                }
                _ => {}
            }
        }
        let id = self.push(width, Operation::Columns { columns, state: State::Imputed })?;
        Ok(Value::Vector { id, flat: false })
    }

    /// A norm of each row: of features, which the client takes, or of scores, which belongs to the tail.
    pub(super) fn normalizer(&mut self, node: &NodeProto) -> Result<Value, ImportError> {
        let norm = match op(node) {
            "Normalizer" => {
                let [norm] = attributes(node, ["norm"])?;
                match norm.and_then(|norm| norm.s.as_deref()).unwrap_or("MAX") {
                    "L1" => Norm::L1,
                    "L2" => Norm::L2,
                    "MAX" => Norm::Max,
                    other => return Err(refused(node, format!("its norm is {}", other.escape_debug()))),
                }
            }
            _ => {
                let [axis, p] = attributes(node, ["axis", "p"])?;
                match (axis.and_then(|axis| axis.i).unwrap_or(-1), p.and_then(|p| p.i).unwrap_or(2)) {
                    (1 | -1, 1) => Norm::L1,
                    (1 | -1, 2) => Norm::L2,
                    _ => return Err(refused(node, "it is no norm of each row")),
                }
            }
        };
        let input = self.input(node, 0)?;
        match (&input, norm) {
            (Value::Vector { id, flat: false }, _) if self.is_prepared(*id) => self.normalize(node, *id, norm),
            (_, Norm::L1) => self.apply(node, "L1"),
            _ => Err(refused(node, "it comes after a step that mixes or leaves out columns")),
        }
    }

    /// Whether a vector has all columns in order, each scaled by itself.
    pub(super) fn is_prepared(&self, mut id: Id) -> bool {
        loop {
            id = match self.chain.operation(id) {
                Operation::Columns { columns, .. } => {
                    return columns.iter().copied().eq(0..self.preparation.imputed.len());
                }
                Operation::Add { to: of, .. } | Operation::Multiply { of, .. } | Operation::Divide { of, .. } => *of,
                _ => return false,
            }
        }
    }

    /// All columns over their norm.
    ///
    /// A norm amplifies errors as far as it is small, and nothing says how small. Only relative errors pass: those of
    /// factors, not those of what was added. So x − offset has to be scikit-learn's to the last bit, a subtraction of a
    /// float64 number from the column itself; then each element is within a factor 1 ± ρ, and the results, which do not
    /// exceed 1, within 2ρ/(1 − ρ).
    pub(super) fn normalize(&mut self, node: &NodeProto, id: Id, norm: Norm) -> Result<Value, ImportError> {
        let columns = self.preparation.imputed.len();
        if !self.is_prepared(id) || self.preparation.normalized.is_some() {
            return Err(refused(node, "it comes after a step that mixes or leaves out columns, or after another norm"));
        }
        let affine = Affine::of(&self.chain, id, columns).ok_or_else(|| {
            refused_for(
                node,
                "no bound can be proven for the norm of columns that are moved by rounded numbers",
                "leave out the scaler before Normalizer, or use a StandardScaler and export from a DoubleTensorType",
            )
        })?;
        let rho = affine.singles * power_of_two(-23) * (1.0 + power_of_two(-20));
        let roundings = 2.0 * (affine.roundings + 2.0) + columns as f64 + 8.0;
        let error = InputError { export: 2.0 * rho / (1.0 - rho), roundings };
        let name = node.output[0].clone();
        self.preparation.normalized = Some(Normalized { name, scale: affine.step, norm, error });
        let operation = Operation::Columns { columns: (0..columns).collect(), state: State::Normalized };
        let id = self.push(columns, operation)?;
        Ok(Value::Vector { id, flat: false })
    }
}

/// (x − offset)·scale for each column, and how it was made.
struct Affine {
    step: Option<Step>,
    /// Factors that are float32.
    singles: f64,
    /// Roundings of float64, in it and in its parameters.
    roundings: f64,
}

impl Affine {
    fn of(chain: &Chain, mut id: Id, columns: usize) -> Option<Self> {
        let (mut scale, mut offset) = (vec![1.0; columns], vec![0.0; columns]);
        let mut affine = Self { step: None, singles: 0.0, roundings: 0.0 };
        let mut is_moved = false;
        loop {
            let stage = match chain.operation(id) {
                Operation::Multiply { of, by } => {
                    scale.iter_mut().zip(&by.values).for_each(|(scale, by)| *scale *= by);
                    affine.count(by)?;
                    *of
                }
                Operation::Divide { of, by } => {
                    scale.iter_mut().zip(&by.values).for_each(|(scale, by)| *scale /= by);
                    affine.count(by)?;
                    *of
                }
                Operation::Add { to, constants } if constants.values.iter().all(|&value| value == 0.0) => *to,
                Operation::Add { to, constants } => {
                    let is_column = matches!(chain.operation(*to), Operation::Columns { state: State::Raw, .. });
                    if !is_column || constants.precision == Precision::Single {
                        return None;
                    }
                    offset.iter_mut().zip(&constants.values).for_each(|(offset, value)| *offset = -value);
                    is_moved = true;
                    *to
                }
                Operation::Columns { state, .. } => {
                    // Imputed values are float32 in every export.
                    affine.singles += f64::from(u8::from(*state == State::Imputed));
                    break;
                }
                _ => return None,
            };
            id = stage;
        }
        let is_scaled = is_moved || scale.iter().any(|&scale| scale != 1.0);
        affine.step = is_scaled.then_some(Step::Scale { scale, offset });
        Some(affine)
    }

    fn count(&mut self, by: &Parameters) -> Option<()> {
        let is_normal = |value: &f64| *value == 0.0 || (1e-30..=1e30).contains(&value.abs());
        self.singles += f64::from(u8::from(by.precision == Precision::Single));
        self.roundings += 1.0 + by.roundings();
        by.values.iter().all(is_normal).then_some(())
    }
}
