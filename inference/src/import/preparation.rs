//! What the client does before the affine chain begins, and how exactly it can be known.

use rten_onnx::onnx::NodeProto;

use super::ImportError;
use super::chain::{Chain, Id, Operation, State};
use super::fold::ulp32;
use super::model::{Reader, Value, too_large};
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
            (Value::Vector { id, flat: false }, _) if self.is_prepared(*id)? => self.normalize(node, *id, norm),
            (_, Norm::L1) => self.apply(node, "L1"),
            _ => Err(refused(node, "it comes after a step that mixes or leaves out columns")),
        }
    }

    /// Whether a vector has all columns in order, each scaled by itself.
    pub(super) fn is_prepared(&mut self, id: Id) -> Result<bool, ImportError> {
        self.chain.is_scaled(id, self.preparation.imputed.len()).map_err(too_large)
    }

    /// All columns over their norm.
    ///
    /// A norm amplifies errors as far as it is small, and nothing says how small. Only relative errors pass: those of
    /// factors, not those of what was added. So x − offset has to be scikit-learn's to the last bit, a subtraction of a
    /// float64 number from the column itself; then each element is within a factor 1 ± ρ, and the results, which do not
    /// exceed 1, within 2ρ/(1 − ρ).
    pub(super) fn normalize(&mut self, node: &NodeProto, id: Id, norm: Norm) -> Result<Value, ImportError> {
        let columns = self.preparation.imputed.len();
        if !self.is_prepared(id)? || self.preparation.normalized.is_some() {
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
                    let is_near = constants.values.iter().all(|value| value.abs() <= 1e30);
                    if !is_column || !is_near || constants.precision == Precision::Single {
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

#[cfg(test)]
mod tests {
    use rten_onnx::onnx::{AttributeProto, DataType};

    use super::*;
    use crate::import::sample::Sample;

    fn imputer(sample: Sample, call: &str, values: &[f32]) -> Sample {
        let nan = AttributeProto { f: Some(f32::NAN), ..Default::default() };
        sample
            .node(&format!("Imputer{call}"))
            .with_floats("imputed_value_floats", values)
            .with("replaced_value_float", nan)
    }

    fn normalizer(sample: Sample, call: &str, norm: &str) -> Sample {
        sample.node(&format!("Normalizer{call}")).with_text("norm", norm)
    }

    fn classifier(sample: Sample, of: &str, columns: usize) -> Sample {
        sample.classifier(&format!("({of}) -> label, y"), &vec![1.0; 3 * columns], &[0.0, 1.0, 2.0], "NONE")
    }

    fn steps(sample: Sample) -> Vec<Step> {
        sample.read(&["label", "y"]).unwrap().preparation.steps()
    }

    fn reason(sample: Sample) -> String {
        sample.refusal(&["label", "y"]).1
    }

    #[test]
    fn missing_values_are_filled_in_at_the_client() {
        let all = classifier(imputer(Sample::new(2), "(X) -> x", &[1.5, -2.0]), "x", 2);
        let model = all.read(&["label", "y"]).unwrap();
        assert_eq!(model.preparation.steps(), [Step::Impute { values: vec![Some(1.5), Some(-2.0)] }]);
        assert_eq!(model.preparation.error(0), InputError { export: ulp32(1.5), roundings: 0.0 });
        let one = classifier(imputer(Sample::new(2), "(X) -> x", &[7.0]), "x", 2);
        assert_eq!(steps(one), [Step::Impute { values: vec![Some(7.0); 2] }]);
        let some = imputer(
            Sample::new(2).integers("i", &[1]).integers("o", &[0]).node("ArrayFeatureExtractor(X, i) -> some"),
            "(some) -> x",
            &[3.0],
        );
        let some = some.node("ArrayFeatureExtractor(X, o) -> other").node("Concat(x, other) -> all");
        let some = classifier(some.with_integer("axis", 1), "all", 2);
        assert_eq!(steps(some), [Step::Impute { values: vec![None, Some(3.0)] }]);
    }

    #[test]
    fn imputers_come_first_and_for_all() {
        let scaled = Sample::new(2).scaler("(X) -> z", &[0.0; 2], &[1.0; 2]);
        assert_eq!(reason(classifier(imputer(scaled, "(z) -> x", &[1.0; 2]), "x", 2)), "it is not the first step");
        let around = imputer(Sample::new(2), "(X) -> x", &[1.0; 2]).node("Add(x, X) -> both");
        let bypass = "some of its columns go around the imputer or normaliser of others";
        assert_eq!(reason(classifier(around, "both", 2)), bypass);
        let dead = imputer(Sample::new(2), "(X) -> x", &[1.0; 2]);
        assert_eq!(reason(classifier(dead, "X", 2)), bypass);
        let twice = imputer(imputer(Sample::new(2), "(X) -> x", &[1.0; 2]), "(X) -> z", &[1.0, 2.0]);
        assert_eq!(reason(classifier(twice, "z", 2)), "column 1 has another imputed value before");
        let zero = AttributeProto { f: Some(0.0), ..Default::default() };
        let other = Sample::new(1).node("Imputer(X) -> x").with_floats("imputed_value_floats", &[1.0]);
        assert_eq!(
            reason(classifier(other.with("replaced_value_float", zero), "x", 1)),
            "it replaces another value than NaN"
        );
    }

    #[test]
    fn norms_are_taken_at_the_client() {
        for (name, norm) in [("L1", Norm::L1), ("L2", Norm::L2), ("MAX", Norm::Max)] {
            let model = classifier(normalizer(Sample::new(2), "(X) -> n", name), "n", 2).read(&["label", "y"]).unwrap();
            assert_eq!(model.preparation.steps(), [Step::Normalize(norm)]);
            assert_eq!((model.preparation.normalized(), model.preparation.error(1).export), (Some("n"), 0.0));
        }
        let scaled = Sample::new(2).scaler("(X) -> z", &[0.0; 2], &[0.5, 2.0]);
        let model = classifier(normalizer(scaled, "(z) -> n", "L2"), "n", 2).read(&["label", "y"]).unwrap();
        let scale = Step::Scale { scale: vec![0.5, 2.0], offset: vec![0.0; 2] };
        assert_eq!(model.preparation.steps(), [scale, Step::Normalize(Norm::L2)]);
        let error = model.preparation.error(0).export;
        assert!(error > 2.0 * power_of_two(-23) && error < 2.01 * power_of_two(-23), "{error:e}");
    }

    #[test]
    fn float64_exports_write_norms_out() {
        let sample = || Sample::default().input("X", DataType::DOUBLE, 2).integers("axis", &[1]);
        let l2 = sample().node("ReduceSumSquare(X, axis) -> q").node("Sqrt(q) -> r").node("Div(X, r) -> n");
        assert_eq!(steps(classifier(l2, "n", 2)), [Step::Normalize(Norm::L2)]);
        let l1 = sample().node("Abs(X) -> a").node("ReduceSum(a, axis) -> r").node("Div(X, r) -> n");
        assert_eq!(steps(classifier(l1, "n", 2)), [Step::Normalize(Norm::L1)]);
        let moved = sample().doubles("mean", &[2], &[1.5, -1.0]).doubles("deviation", &[2], &[2.0, 4.0]);
        let moved = moved.node("Sub(X, mean) -> c").node("Div(c, deviation) -> z").node("LpNormalization(z) -> n");
        let scale = Step::Scale { scale: vec![0.5, 0.25], offset: vec![1.5, -1.0] };
        assert_eq!(steps(classifier(moved, "n", 2)), [scale, Step::Normalize(Norm::L2)]);
        let other = sample().node("ReduceSumSquare(X, axis) -> r").node("Div(X, r) -> n");
        assert_eq!(reason(classifier(other, "n", 2)), "what it reads is not linear in the features");
    }

    #[test]
    fn norms_without_a_bound_are_refused() {
        let unbounded = "no bound can be proven for the norm of columns that are moved by rounded numbers";
        let moved = Sample::new(2).scaler("(X) -> z", &[1.0, 0.0], &[1.0; 2]);
        assert_eq!(reason(classifier(normalizer(moved, "(z) -> n", "L2"), "n", 2)), unbounded);
        let tiny = Sample::new(2).scaler("(X) -> z", &[0.0; 2], &[1e-37, 1.0]);
        assert_eq!(reason(classifier(normalizer(tiny, "(z) -> n", "L2"), "n", 2)), unbounded);
        let imputed = imputer(Sample::new(2), "(X) -> x", &[1.0; 2]);
        let imputed = imputed.doubles("mean", &[2], &[1.0, 2.0]).node("Sub(x, mean) -> z");
        assert_eq!(reason(classifier(normalizer(imputed, "(z) -> n", "L2"), "n", 2)), unbounded);
        let mixed = "it comes after a step that mixes or leaves out columns";
        let rotated = Sample::new(2).floats("m", &[2, 2], &[1.0; 4]).node("MatMul(X, m) -> z");
        assert_eq!(reason(classifier(normalizer(rotated, "(z) -> n", "L2"), "n", 2)), mixed);
        let twice = normalizer(normalizer(Sample::new(2), "(X) -> m", "L1"), "(m) -> n", "L2");
        assert_eq!(reason(classifier(twice, "n", 2)), format!("{mixed}, or after another norm"));
        assert_eq!(reason(classifier(normalizer(Sample::new(2), "(X) -> n", "L3"), "n", 2)), "its norm is L3");
        let around = normalizer(Sample::new(2), "(X) -> n", "L2").node("Add(n, X) -> both");
        assert!(reason(classifier(around, "both", 2)).starts_with("some of its columns go around"));
    }
}
