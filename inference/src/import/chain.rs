//! The affine part of a model: vectors computed from the input columns, one from another.
//!
//! Nothing is multiplied out here. A scaler of 50,000 columns stays 50,000 numbers, and a matrix is as large as in the
//! file.

use std::collections::HashMap;
use std::rc::Rc;

use super::tensor::Parameters;

/// A vector of the chain, by its place in it.
pub(super) type Id = usize;

/// Vectors, each after those that it is computed from.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    stages: Vec<Stage>,
    selected: HashMap<(Id, Vec<usize>), Id>,
    elements: usize,
}

/// How a vector is computed, and how many elements it has.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) width: usize,
    pub(super) operation: Operation,
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
        self.stages.push(Stage { width, operation });
        Ok(self.stages.len() - 1)
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
    fn is_opposite(&self, mut scores: Id) -> bool {
        let columns =
            |values: &[f64], agree: fn(f64, f64) -> bool| values.chunks(2).all(|pair| agree(pair[0], pair[1]));
        let opposite = |one: f64, other: f64| one == -other;
        loop {
            scores = match self.operation(scores) {
                Operation::Add { to, constants } if columns(&constants.values, opposite) => *to,
                Operation::Multiply { of, by } | Operation::Divide { of, by }
                    if columns(&by.values, |one, other| one == other) =>
                {
                    *of
                }
                Operation::Product { matrix, .. } => return columns(&matrix.values, opposite),
                Operation::Join(parts) => return matches!(parts[..], [one, other] if self.negated(one) == Some(other)),
                _ => return false,
            }
        }
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

impl Operation {
    fn operands(&self, mut visit: impl FnMut(Id)) {
        match self {
            Self::Columns { .. } => {}
            Self::Select { of, .. }
            | Self::Add { to: of, .. }
            | Self::Multiply { of, .. }
            | Self::Divide { of, .. }
            | Self::Product { of, .. } => visit(*of),
            Self::Join(parts) | Self::Sum(parts) => parts.iter().copied().for_each(visit),
        }
    }
}
