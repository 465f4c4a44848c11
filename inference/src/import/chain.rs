//! Vectors computed from the input columns, one from another: affine steps, and at most one that is not.
//!
//! Nothing is multiplied out here. A scaler of 50,000 columns stays 50,000 numbers, and a matrix is as large as in the
//! file.

use std::collections::HashMap;
use std::rc::Rc;

use super::nonlinear::{Activation, TreeModel};
use super::tensor::Parameters;

/// A vector of the chain, by its place in it.
pub(super) type Id = usize;

/// Vectors, each after those that it is computed from.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    stages: Vec<Stage>,
    selected: HashMap<(Id, Vec<usize>), Id>,
    elements: usize,
    features: usize,
}

/// How a vector is computed, and how many elements it has.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) width: usize,
    pub(super) operation: Operation,
    /// The columns that this is, each added to and multiplied by itself.
    scaled: Option<Id>,
}

/// A step of the chain. Parameters have the width of the result.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    /// Columns of a row, after some of the client's steps.
    Columns { columns: Vec<usize>, state: State },
    /// Those elements.
    Select { of: Id, elements: Vec<usize> },
    /// One after the other.
    Join(Vec<Id>),
    /// x + p.
    Add { to: Id, constants: Rc<Parameters> },
    /// x·p.
    Multiply { of: Id, by: Rc<Parameters> },
    /// x / p.
    Divide { of: Id, by: Rc<Parameters> },
    /// xM: row j of the matrix has what element j adds to each element of the result.
    Product { of: Id, matrix: Rc<Parameters> },
    /// Element by element.
    Sum(Vec<Id>),
    /// Trees whose columns are elements of a vector.
    Ensemble { of: Id, ensemble: Rc<TreeModel> },
    /// A hidden layer: of each element by itself.
    Activate { of: Id, activation: Activation },
}

/// What the client has done to columns before they enter the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing.
    Raw,
    /// Missing values are filled in.
    Imputed,
    /// All steps are done, and rows are over their norm.
    Normalized,
}

/// Elements of all vectors and matrices: as many as the largest file has, and as many again.
const MAX_ELEMENTS: usize = 1 << 25;

/// Too large a chain for any model that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

impl Chain {
    pub(super) fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// The elements of all vectors and matrices, at least one.
    pub(super) fn elements(&self) -> usize {
        self.elements.max(1)
    }

    /// As many columns as a row has.
    pub(super) fn features(&self) -> usize {
        self.features
    }

    pub(super) fn operation(&self, id: Id) -> &Operation {
        &self.stages[id].operation
    }

    pub(super) fn width(&self, id: Id) -> usize {
        self.stages[id].width
    }

    pub(super) fn push(&mut self, width: usize, operation: Operation) -> Result<Id, TooLarge> {
        let matrix = match &operation {
            Operation::Product { matrix, .. } => matrix.values.len(),
            _ => 0,
        };
        self.reserve(width.saturating_add(matrix))?;
        let id = self.stages.len();
        if let Operation::Columns { columns, .. } = &operation {
            self.features = columns.iter().fold(self.features, |features, column| features.max(column + 1));
        }
        let scaled = match &operation {
            Operation::Columns { .. } => Some(id),
            Operation::Add { to: of, .. } | Operation::Multiply { of, .. } | Operation::Divide { of, .. } => {
                self.stages[*of].scaled
            }
            _ => None,
        };
        self.stages.push(Stage { width, operation, scaled });
        Ok(id)
    }

    /// Whether a vector has that many columns in order, each added to and multiplied by itself.
    pub(super) fn is_scaled(&mut self, id: Id, columns: usize) -> Result<bool, TooLarge> {
        self.reserve(self.width(id))?;
        let Some(base) = self.stages[id].scaled else { return Ok(false) };
        Ok(
            matches!(self.operation(base), Operation::Columns { columns: own, .. } if own.iter().copied().eq(0..columns)),
        )
    }

    /// Counts elements that are to come, before there is memory for them.
    pub(super) fn reserve(&mut self, elements: usize) -> Result<(), TooLarge> {
        self.elements = self.elements.saturating_add(elements);
        if self.elements > MAX_ELEMENTS { Err(TooLarge) } else { Ok(()) }
    }

    /// Those elements of a vector; the same vector for the same elements. Every element is one of the vector's.
    pub(super) fn select(&mut self, of: Id, elements: Vec<usize>) -> Result<Id, TooLarge> {
        let parts = if let Operation::Join(parts) = self.operation(of) { parts.len() } else { 0 };
        self.reserve(elements.len().saturating_add(parts))?;
        if elements.iter().copied().eq(0..self.width(of)) {
            return Ok(of);
        }
        if let Some(&id) = self.selected.get(&(of, elements.clone())) {
            return Ok(id);
        }
        let operation = match self.operation(of) {
            Operation::Columns { columns, state } => Operation::Columns {
                columns: elements.iter().map(|&element| columns[element]).collect(),
                state: *state,
            },
            _ => match self.part(of, &elements) {
                Some(part) => return Ok(part),
                None => Operation::Select { of, elements: elements.clone() },
            },
        };
        let id = self.push(elements.len(), operation)?;
        self.selected.insert((of, elements), id);
        Ok(id)
    }

    /// The vector among those joined in `of` that has exactly these elements.
    fn part(&self, of: Id, elements: &[usize]) -> Option<Id> {
        let Operation::Join(parts) = self.operation(of) else { return None };
        let mut start = 0;
        parts.iter().copied().find(|&part| {
            let range = start..start + self.width(part);
            start = range.end;
            elements.iter().copied().eq(range)
        })
    }

    /// Vectors one after the other; those that make up another are that one again.
    pub(super) fn join(&mut self, parts: Vec<Id>) -> Result<Id, TooLarge> {
        if let [one] = parts[..] {
            return Ok(one);
        }
        let width = parts.iter().map(|&part| self.width(part)).fold(0, usize::saturating_add);
        self.reserve(width)?;
        if let Some(whole) = self.whole(&parts) {
            return Ok(whole);
        }
        let operation = self.joined_columns(&parts).unwrap_or(Operation::Join(parts));
        self.push(width, operation)
    }

    fn whole(&self, parts: &[Id]) -> Option<Id> {
        let Operation::Select { of, .. } = *self.operation(*parts.first()?) else { return None };
        let mut elements: Vec<usize> = vec![];
        for &part in parts {
            match self.operation(part) {
                Operation::Select { of: other, elements: more } if *other == of => elements.extend(more),
                _ => return None,
            }
        }
        elements.into_iter().eq(0..self.width(of)).then_some(of)
    }

    fn joined_columns(&self, parts: &[Id]) -> Option<Operation> {
        let Operation::Columns { state, .. } = *self.operation(*parts.first()?) else { return None };
        let mut joined = vec![];
        for &part in parts {
            match self.operation(part) {
                Operation::Columns { columns, state: other } if *other == state => joined.extend(columns),
                _ => return None,
            }
        }
        Some(Operation::Columns { columns: joined, state })
    }

    /// The one score that says all about two classes: the second of two scores of opposite sign, or a single one.
    pub(super) fn positive(&mut self, scores: Id) -> Result<Option<Id>, TooLarge> {
        match self.width(scores) {
            1 => Ok(Some(scores)),
            2 if self.is_opposite(scores) => self.select(scores, vec![1]).map(Some),
            _ => Ok(None),
        }
    }

    /// Whether the first of two elements is always the negative of the second, by the parameters that make them.
    fn is_opposite(&self, scores: Id) -> bool {
        let mut id = scores;
        loop {
            let (of, agree) = match self.operation(id) {
                Operation::Add { to, constants } => (*to, constants.values[0] == -constants.values[1]),
                Operation::Multiply { of, by } | Operation::Divide { of, by } => (*of, by.values[0] == by.values[1]),
                Operation::Product { matrix, .. } => return matrix.values.chunks(2).all(|pair| pair[0] == -pair[1]),
                Operation::Join(parts) => return matches!(parts[..], [one, other] if self.negated(one) == Some(other)),
                Operation::Ensemble { ensemble, .. } => return ensemble.is_opposite(),
                Operation::Columns { .. }
                | Operation::Select { .. }
                | Operation::Sum(_)
                | Operation::Activate { .. } => return false,
            };
            if !agree {
                return false;
            }
            id = of;
        }
    }

    /// Whether nothing on the way to a vector is other than affine.
    pub(super) fn is_affine(&self, id: Id) -> bool {
        let stages = self.stages.iter().zip(self.needed(id));
        stages.filter(|(_, needed)| *needed).all(|(stage, _)| stage.operation.is_affine())
    }

    /// The vector of which `id` is the negative.
    pub(super) fn negated(&self, id: Id) -> Option<Id> {
        match self.operation(id) {
            Operation::Multiply { of, by } if by.values.iter().all(|&value| value == -1.0) => Some(*of),
            _ => None,
        }
    }

    /// Whether each vector is needed for `id`.
    pub(super) fn needed(&self, id: Id) -> Vec<bool> {
        let mut needed = vec![false; self.stages.len()];
        needed[id] = true;
        for id in (0..=id).rev() {
            if needed[id] {
                self.operation(id).operands(|operand| needed[operand] = true);
            }
        }
        needed
    }
}

#[cfg(test)]
impl Chain {
    /// Changes every parameter.
    pub(super) fn change_parameters(&mut self, mut change: impl FnMut(&mut f64)) {
        for stage in &mut self.stages {
            if let Operation::Add { constants: parameters, .. }
            | Operation::Multiply { by: parameters, .. }
            | Operation::Divide { by: parameters, .. }
            | Operation::Product { matrix: parameters, .. } = &mut stage.operation
            {
                Rc::make_mut(parameters).values.iter_mut().for_each(&mut change);
            }
        }
    }
}

impl Operation {
    pub(super) fn is_affine(&self) -> bool {
        !matches!(self, Self::Ensemble { .. } | Self::Activate { .. })
    }

    /// The vectors that it reads.
    pub(super) fn operands(&self, mut visit: impl FnMut(Id)) {
        match self {
            Self::Columns { .. } => {}
            Self::Select { of, .. }
            | Self::Add { to: of, .. }
            | Self::Multiply { of, .. }
            | Self::Divide { of, .. }
            | Self::Product { of, .. }
            | Self::Ensemble { of, .. }
            | Self::Activate { of, .. } => visit(*of),
            Self::Join(parts) | Self::Sum(parts) => parts.iter().copied().for_each(visit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::tensor::Precision;

    fn parameters(values: &[f64]) -> Rc<Parameters> {
        Parameters { values: values.to_vec(), precision: Precision::Double }.into()
    }

    fn columns(chain: &mut Chain, columns: &[usize]) -> Id {
        chain.push(columns.len(), Operation::Columns { columns: columns.to_vec(), state: State::Raw }).unwrap()
    }

    fn scores(chain: &mut Chain, of: Id, matrix: &[f64]) -> Id {
        let width = matrix.len() / chain.width(of);
        chain.push(width, Operation::Product { of, matrix: parameters(matrix) }).unwrap()
    }

    #[test]
    fn selections_and_joins_come_down_to_what_is_there() {
        let mut chain = Chain::default();
        let (x, y) = (columns(&mut chain, &[0, 1, 2]), columns(&mut chain, &[5]));
        let reversed = chain.select(x, vec![2, 0]).unwrap();
        assert!(matches!(chain.operation(reversed), Operation::Columns { columns, .. } if columns == &[2, 0]));
        assert_eq!(chain.select(x, vec![0, 1, 2]), Ok(x));
        assert_eq!(chain.select(x, vec![2, 0]), Ok(reversed));
        let both = chain.join(vec![reversed, y]).unwrap();
        assert!(matches!(chain.operation(both), Operation::Columns { columns, .. } if columns == &[2, 0, 5]));
        let z = scores(&mut chain, x, &[1.0; 6]);
        let parts: Vec<_> = (0..2).map(|index| chain.select(z, vec![index]).unwrap()).collect();
        assert_eq!(chain.join(parts), Ok(z));
        let joined = chain.join(vec![z, x]).unwrap();
        assert_eq!(chain.select(joined, vec![2, 3, 4]), Ok(x));
        assert_eq!(chain.join(vec![z]), Ok(z));
    }

    #[test]
    fn opposite_scores_come_down_to_the_second() {
        let mut chain = Chain::default();
        let x = columns(&mut chain, &[0, 1]);
        let products = scores(&mut chain, x, &[-1.5, 1.5, 0.25, -0.25]);
        let add = |to, values: &[f64]| Operation::Add { to, constants: parameters(values) };
        let opposite = chain.push(2, add(products, &[3.0, -3.0])).unwrap();
        let positive = chain.positive(opposite).unwrap().unwrap();
        assert!(matches!(chain.operation(positive), Operation::Select { elements, .. } if elements == &[1]));
        assert_eq!(chain.positive(positive), Ok(Some(positive)));
        let others = [chain.push(2, add(products, &[3.0, -2.0])).unwrap(), x, scores(&mut chain, x, &[1.0; 4])];
        assert!(others.into_iter().all(|other| chain.positive(other) == Ok(None)));
        let single = scores(&mut chain, x, &[1.0, 2.0]);
        let negated = chain.push(1, Operation::Multiply { of: single, by: parameters(&[-1.0]) }).unwrap();
        let pair = chain.join(vec![negated, single]).unwrap();
        assert_eq!((chain.positive(pair), chain.negated(negated)), (Ok(Some(single)), Some(single)));
        let swapped = chain.join(vec![single, negated]).unwrap();
        assert_eq!(chain.positive(swapped), Ok(None), "the second label's score is not the negative one");
        assert_eq!(chain.positive(single), Ok(Some(single)));
    }

    #[test]
    fn only_what_is_needed_counts() {
        let mut chain = Chain::default();
        let (x, y) = (columns(&mut chain, &[0]), columns(&mut chain, &[1]));
        let z = scores(&mut chain, y, &[1.0]);
        assert_eq!(chain.needed(z), [false, true, true]);
        assert_eq!(chain.needed(x), [true, false, false]);
    }

    #[test]
    fn a_chain_has_an_end() {
        let mut chain = Chain::default();
        let x = columns(&mut chain, &[0; 1 << 15]);
        let joins = (0..).map(|_| chain.join(vec![x; 64])).take_while(Result::is_ok).count();
        assert!(joins < 16, "{joins}");
    }
}
