//! What Python gets to see, as dictionaries: the dataclasses of `python/cloister` have the same fields.

use cloister_attestation::{Sha384, StepReport};
use cloister_client::Label;
use cloister_inference::{Description, Feature, Link};
use pyo3::{buffer::PyBuffer, prelude::*};

/// A verification step that was passed.
#[derive(IntoPyObject)]
pub(crate) struct PassedStep {
    number: u8,
    name: &'static str,
    expected: String,
    found: String,
}

pub(crate) fn step(StepReport { step, expected, found }: &StepReport) -> PassedStep {
    PassedStep { number: step.number(), name: step.name(), expected: expected.clone(), found: found.clone() }
}

pub(crate) fn steps(steps: &[StepReport]) -> Vec<PassedStep> {
    steps.iter().map(step).collect()
}

/// What a model takes, gives and promises.
#[derive(IntoPyObject)]
pub(crate) struct Described {
    name: String,
    version: String,
    digest: String,
    features: Vec<Column>,
    labels: Vec<Class>,
    logit_names: Vec<String>,
    has_probabilities: bool,
    has_decision_function: bool,
    bound: f64,
    decimals: u32,
    rows_per_request: usize,
    budget: Option<u64>,
    parameters: &'static str,
    request_bytes: usize,
    reply_bytes: usize,
}

#[derive(IntoPyObject)]
struct Column {
    name: String,
    low: f64,
    high: f64,
    step: Option<f64>,
    imputed: bool,
}

#[derive(IntoPyObject)]
enum Class {
    Boolean(bool),
    Integer(i64),
    Text(String),
}

/// A model whose bundle has this digest.
pub(crate) fn described(description: &Description, digest: Sha384) -> Described {
    let column = |(index, feature): (usize, &Feature)| {
        let Feature { low, high, name, step } = feature.clone();
        Column { name, low, high, step, imputed: description.imputes(index) }
    };
    Described {
        name: description.name().to_owned(),
        version: description.version().to_owned(),
        digest: digest.to_string(),
        features: description.features().iter().enumerate().map(column).collect(),
        labels: description.labels().iter().map(class).collect(),
        logit_names: description.logit_names(),
        has_probabilities: description.link().gives_probabilities(),
        has_decision_function: !description.labels().is_empty() && description.link() != Link::Probability,
        bound: description.bound(),
        decimals: description.decimals(),
        rows_per_request: description.rows_per_request(),
        budget: description.budget(),
        parameters: description.parameters().name(),
        request_bytes: description.request_len(1),
        reply_bytes: description.reply_len(1),
    }
}

fn class(label: &Label) -> Class {
    match label {
        Label::Boolean(label) => Class::Boolean(*label),
        Label::Integer(label) => Class::Integer(*label),
        Label::Text(label) => Class::Text(label.clone()),
    }
}

/// How many columns a matrix has.
pub(crate) fn width(matrix: &PyBuffer<f64>) -> usize {
    matrix.shape().last().copied().unwrap_or_default().max(1)
}
