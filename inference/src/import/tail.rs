//! From scores to outputs: the tails that skl2onnx gives its models, each matched as a whole.
//!
//! What a graph computes from its scores S is written down as a formula, and compared with this list. K is the number
//! of labels, Each(f) is f of K pairs of scores side by side, σ(S) stands for any way to write the logistic function,
//! L1(x) is x over the sum of its magnitudes. Two labels have two scores of opposite sign, or one; the logit is the
//! second label's.
//!
//! | model | scores output | label: argmax of | link |
//! |---|---|---|---|
//! | LinearSVC, RidgeClassifier, Perceptron, SGDClassifier (hinge and others without probabilities), PassiveAggressive, any with raw_scores | S | S | identity |
//! | OneVsRestClassifier of classifiers without probabilities | L1(S) | S | identity |
//! | LogisticRegression, LinearDiscriminantAnalysis, K > 2 | Softmax(S), L1(Softmax(S)) | S | softmax |
//! | LinearDiscriminantAnalysis, K = 2 | Softmax(S) | S | sigmoid |
//! | LogisticRegression, K = 2 | σ(S), L1(σ(S)) | S | sigmoid |
//! | LogisticRegression one against the rest, K > 2 | L1(σ(S)) | S | one-vs-rest |
//! | SGDClassifier(loss="log_loss"), K = 2 | 1 − σ(S), σ(S) | the same | sigmoid |
//! | SGDClassifier(loss="log_loss"), K > 2 | σ(S) over its sum, 1/K if that is zero | the same | one-vs-rest |
//! | OneVsRestClassifier, K = 2 | L1(1 − σ(S)₁, σ(S)₁) | 1 − σ(S)₁, σ(S)₁ | sigmoid |
//! | OneVsRestClassifier, K > 2 | L1(Each(σ(S)₁)) | Each(σ(S)₁) | one-vs-rest |
//! | linear regressions, PLSRegression, VotingRegressor of them | S | none | identity |
//! | PoissonRegressor, GammaRegressor, TweedieRegressor with a logarithm | Exp(S) | none | exp |
//!
//! The scores may come as one array, through a ZipMap, or as one output per label (zipmap=False, True, "columns").
//!
//! The softmax of two scores −d and d is the logistic function of 2d. That is how skl2onnx writes
//! LinearDiscriminantAnalysis, whose probability is the logistic function of d; the link says what scikit-learn does.

use std::rc::Rc;

use super::chain::{Chain, Id, TooLarge};
use crate::description::{Label, Link};

/// What a graph makes of scores.
#[derive(Clone, Debug)]
pub(super) enum Formula {
    Scores(Id),
    Number(f64),
    /// One element of each row.
    Column(usize, Rc<Formula>),
    Apply(&'static str, Vec<Rc<Formula>>),
}

impl Formula {
    pub(super) fn apply(function: &'static str, arguments: impl Into<Vec<Rc<Self>>>) -> Rc<Self> {
        match (function, arguments.into()) {
            ("Concat", arguments) if arguments.len() == 1 => arguments[0].clone(),
            (function, arguments) => Rc::new(Self::Apply(function, arguments)),
        }
    }

    /// The formula in writing, with S for its scores, and which those are. `None` if it is longer than any in the list.
    pub(super) fn write(&self) -> Option<Written> {
        let mut scores = vec![];
        let text = self.write_to(&mut scores, &mut { MAX_TERMS })?;
        Some(Written { text, scores })
    }

    fn write_to(&self, scores: &mut Vec<Id>, terms: &mut usize) -> Option<String> {
        *terms = terms.checked_sub(1)?;
        Some(match self {
            Self::Scores(id) => match position(scores, *id) {
                0 => "S".into(),
                other => format!("S{other}"),
            },
            Self::Number(number) => number.to_string(),
            Self::Column(column, of) => format!("Column{column}({})", of.write_to(scores, terms)?),
            Self::Apply("Concat", parts) => match Self::each(parts, scores, terms) {
                Some(each) => each,
                None => Self::call("Concat", parts, scores, terms)?,
            },
            Self::Apply(function, arguments) => Self::call(function, arguments, scores, terms)?,
        })
    }

    fn call(function: &'static str, arguments: &[Rc<Self>], scores: &mut Vec<Id>, terms: &mut usize) -> Option<String> {
        let arguments: Vec<_> =
            arguments.iter().map(|argument| argument.write_to(scores, terms)).collect::<Option<_>>()?;
        let is_share = |x: &str, sum: &str| function == "Div" && sum == format!("RowSum(Abs({x}))");
        let text = match &arguments[..] {
            [x, sum] if is_share(x, sum) => format!("L1({x})"),
            _ => format!("{function}({})", arguments.join(",")),
        };
        (text.len() <= MAX_TEXT).then_some(text)
    }

    /// The same formula of several scores, side by side.
    fn each(parts: &[Rc<Self>], scores: &mut Vec<Id>, terms: &mut usize) -> Option<String> {
        let written: Vec<_> = parts.iter().map(|part| part.write_with(terms)).collect::<Option<_>>()?;
        let alike = written.iter().all(|one| one.text == written[0].text && one.scores.len() == 1);
        if !alike
            || parts.len() < 2
            || !scores.is_empty() && !scores.iter().eq(written.iter().map(|one| &one.scores[0]))
        {
            return None;
        }
        *scores = written.iter().map(|one| one.scores[0]).collect();
        let distinct = scores.iter().collect::<std::collections::HashSet<_>>().len() == scores.len();
        distinct.then(|| format!("Each({})", written[0].text))
    }

    fn write_with(&self, terms: &mut usize) -> Option<Written> {
        let mut scores = vec![];
        let text = self.write_to(&mut scores, terms)?;
        Some(Written { text, scores })
    }
}

/// A formula in writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) text: String,
    pub(super) scores: Vec<Id>,
}

/// Twenty for each of a thousand labels.
const MAX_TERMS: usize = 20_000;

const MAX_TEXT: usize = 1000;

fn position(scores: &mut Vec<Id>, id: Id) -> usize {
    scores.iter().position(|&other| other == id).unwrap_or_else(|| {
        scores.push(id);
        scores.len() - 1
    })
}

/// A line of the list.
struct Tail {
    outputs: &'static str,
    /// The argmax of this is the label; without it there is none.
    label: Option<&'static str>,
    /// What P stands for in both.
    p: &'static str,
    logits: Logits,
    link: Link,
}

/// Where the logits are among the scores.
#[derive(Clone, Copy, PartialEq)]
enum Logits {
    /// The scores of more than two labels.
    Several,
    /// The one that two scores of opposite sign come down to.
    Positive,
    /// The only score of two labels.
    Single,
    /// Minus the only score of two labels.
    Negated,
    /// Minus the scores of more than two labels.
    NegatedSeveral,
    /// The second of two scores of opposite sign, for each label.
    Each,
    /// The values of a regression.
    Values,
}

const SIGMOID: &str = "Sigmoid(S)";
const NEGATED: &str = "Reciprocal(Add(Exp(S),1))";
const SECOND: &str = "Column1(Sigmoid(S))";
const SECOND_SHARE: &str = "Column1(L1(Sigmoid(S)))";
const TWO: &str = "Concat(Sub(1,P),P)";
const SHARES: &str = "Div(Add(P,Not(Bool(RowSum(P)))),Add(RowSum(P),Mul(Not(Bool(RowSum(P))),K)))";

const fn tail(outputs: &'static str, label: &'static str, p: &'static str, logits: Logits, link: Link) -> Tail {
    Tail { outputs, label: Some(label), p, logits, link }
}

const fn regression(outputs: &'static str, link: Link) -> Tail {
    Tail { outputs, label: None, p: "", logits: Logits::Values, link }
}

/// The list above; the scores of two labels without probabilities are in [`plain_scores`].
const TAILS: [Tail; 18] = [
    tail("S", "S", "", Logits::Several, Link::Identity),
    tail("L1(S)", "S", "", Logits::Several, Link::Identity),
    tail("Softmax(S)", "S", "", Logits::Several, Link::Softmax),
    tail("L1(Softmax(S))", "S", "", Logits::Several, Link::Softmax),
    tail("Softmax(S)", "S", "", Logits::Positive, Link::Sigmoid),
    tail("P", "S", SIGMOID, Logits::Positive, Link::Sigmoid),
    tail("L1(P)", "S", SIGMOID, Logits::Positive, Link::Sigmoid),
    tail("L1(P)", "S", SIGMOID, Logits::Several, Link::OneVsRest),
    tail(TWO, TWO, SIGMOID, Logits::Single, Link::Sigmoid),
    tail(TWO, TWO, NEGATED, Logits::Negated, Link::Sigmoid),
    tail(SHARES, SHARES, NEGATED, Logits::NegatedSeveral, Link::OneVsRest),
    tail("L1(Concat(Sub(1,P),P))", TWO, SECOND, Logits::Positive, Link::Sigmoid),
    tail("L1(Concat(Sub(1,P),P))", TWO, SECOND_SHARE, Logits::Positive, Link::Sigmoid),
    tail("L1(Each(P))", "Each(P)", SECOND, Logits::Each, Link::OneVsRest),
    tail("L1(Each(P))", "Each(P)", SECOND_SHARE, Logits::Each, Link::OneVsRest),
    tail("L1(Softmax(S))", "S", "", Logits::Positive, Link::Sigmoid),
    regression("S", Link::Identity),
    regression("Exp(S)", Link::Exp),
];

/// What a model's logits are, and what becomes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Matched {
    pub(super) logits: Id,
    pub(super) link: Link,
}

/// Why a tail is none of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// No line has these formulas for so many labels.
    Unlisted,
    /// A line has, but the scores of two labels are not of opposite sign.
    NotOpposite,
    TooLarge,
}

impl From<TooLarge> for Mismatch {
    fn from(TooLarge: TooLarge) -> Self {
        Self::TooLarge
    }
}

/// Finds a classifier in the list: what its scores output is, what its label is the argmax of.
pub(super) fn classifier(
    chain: &mut Chain,
    outputs: &Formula,
    label: &Formula,
    labels: &[Label],
) -> Result<Matched, Mismatch> {
    let outputs = outputs.write().ok_or(Mismatch::Unlisted)?;
    let label = label.write().ok_or(Mismatch::Unlisted)?;
    if (&outputs.text[..], &label.text[..], labels.len()) == ("S", "S", 2) {
        return plain_scores(chain, outputs.scores[0], label.scores[0]);
    }
    if outputs.scores != label.scores {
        return Err(Mismatch::Unlisted);
    }
    let mut mismatch = Mismatch::Unlisted;
    for tail in TAILS.iter().filter(|tail| tail.reads(&outputs.text, Some(&label.text), labels.len())) {
        match tail.logits.find(chain, &outputs.scores, labels.len()) {
            Ok(logits) => return Ok(Matched { logits, link: tail.link }),
            Err(Mismatch::Unlisted) => {}
            Err(other) => mismatch = other,
        }
    }
    Err(mismatch)
}

/// Finds a regression in the list.
pub(super) fn regressor(outputs: &Formula) -> Option<Matched> {
    let Written { text, scores } = outputs.write()?;
    let tail = TAILS.iter().find(|tail| tail.reads(&text, None, 0))?;
    Some(Matched { logits: scores[0], link: tail.link })
}

/// Two labels, the argmax of two scores, of which the output is both or the second.
fn plain_scores(chain: &mut Chain, outputs: Id, label: Id) -> Result<Matched, Mismatch> {
    if chain.width(label) != 2 {
        return Err(Mismatch::Unlisted);
    }
    let logits = chain.positive(label)?.ok_or(Mismatch::NotOpposite)?;
    match chain.positive(outputs)? {
        Some(output) if output == logits => Ok(Matched { logits, link: Link::Identity }),
        _ => Err(Mismatch::Unlisted),
    }
}

impl Tail {
    fn reads(&self, outputs: &str, label: Option<&str>, labels: usize) -> bool {
        let spell = |pattern: &str| pattern.replace('P', self.p).replace('K', &labels.to_string());
        match (self.label, label) {
            (None, None) => spell(self.outputs) == outputs,
            (Some(expected), Some(label)) => spell(self.outputs) == outputs && spell(expected) == label,
            _ => false,
        }
    }
}

impl Logits {
    fn find(self, chain: &mut Chain, scores: &[Id], labels: usize) -> Result<Id, Mismatch> {
        match (self, scores, labels) {
            (Self::Positive, &[scores], 2) if chain.width(scores) == 2 => {
                chain.positive(scores)?.ok_or(Mismatch::NotOpposite)
            }
            (Self::Several, &[scores], 3..) if chain.width(scores) == labels => Ok(scores),
            (Self::Single, &[scores], 2) if chain.width(scores) == 1 => Ok(scores),
            (Self::Negated, &[scores], 2) if chain.width(scores) == 1 => {
                chain.negated(scores).ok_or(Mismatch::Unlisted)
            }
            (Self::NegatedSeveral, &[scores], 3..) if chain.width(scores) == labels => {
                chain.negated(scores).ok_or(Mismatch::Unlisted)
            }
            (Self::Each, scores, 3..) if scores.len() == labels => {
                let positive = |&pair: &Id| match chain.width(pair) {
                    2 => chain.positive(pair)?.ok_or(Mismatch::NotOpposite),
                    _ => Err(Mismatch::Unlisted),
                };
                let logits = scores.iter().map(positive).collect::<Result<_, _>>()?;
                Ok(chain.join(logits)?)
            }
            _ => Err(Mismatch::Unlisted),
        }
    }
}
