//! From scores to outputs: the tails that skl2onnx gives its models, each matched as a whole.
//!
//! What a graph computes from its scores S is written down as a formula, and compared with this list. K is the number
//! of labels, σ(S) stands for any way to write the logistic function, L1(x) is x over the sum of its magnitudes, and
//! Each(f) is f of K scores, each for itself, side by side. Two labels have two scores of opposite sign, or one; the
//! logit is the second label's.
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
//! | OneVsRestClassifier, K = 2 | L1(1 − σ(S), σ(S)) | 1 − σ(S), σ(S) | sigmoid |
//! | OneVsRestClassifier, K > 2 | L1(Each(σ(S))) | Each(σ(S)) | one-vs-rest |
//! | linear regressions, PLSRegression, VotingRegressor of them | S | none | identity |
//! | decision trees, forests, averages of them | S, L1(S) | S | probability |
//! | boosted trees, K > 2 | Softmax(S) | S, Softmax(S) | softmax |
//! | boosted trees, K = 2 | σ(S) | S | sigmoid |
//! | MLPClassifier, K > 2 | Softmax(S) | Softmax(S) | softmax |
//! | MLPClassifier, K = 2 | 1 − σ(S), σ(S) | the same | sigmoid |
//! | trees and networks that regress | S | none | identity |
//! | PoissonRegressor, GammaRegressor, TweedieRegressor with a logarithm | Exp(S) | none | exp |
//!
//! The scores may come as one array, through a ZipMap, or as one output per label (zipmap=False, True, "columns").
//!
//! Probabilities are scores of trees whose leaves are above zero and sum up to one.
//!
//! The softmax of two scores −d and d is the logistic function of 2d. That is how skl2onnx writes
//! LinearDiscriminantAnalysis, whose probability is the logistic function of d; the link says what scikit-learn does.
//! LogisticRegression(multi_class="multinomial") of two labels, which scikit-learn no longer has, was written alike and
//! did mean 2d: its labels and logits are right here, its probabilities are not. The softmax of two scores of trees or a
//! network is what it says, whatever their signs.

use std::rc::Rc;

use super::chain::{Chain, Id, TooLarge};
use super::nonlinear::gives_probabilities;
use crate::description::{Label, Link};

/// What a graph makes of scores.
#[derive(Clone, Debug)]
pub(super) enum Formula {
    Scores(Id),
    Number(f64),
    /// One element of each row.
    Column(usize, Rc<Formula>),
    /// A function, and how deep its arguments are nested.
    Apply(&'static str, Vec<Rc<Formula>>, usize),
}

/// Three times as deep as any tail of the list. What is deeper could not even be dropped without a deep stack.
const MAX_DEPTH: usize = 32;

impl Formula {
    /// A function of formulas; `None` if it is nested deeper than any in the list.
    pub(super) fn apply(function: &'static str, arguments: impl Into<Vec<Rc<Self>>>) -> Option<Rc<Self>> {
        let arguments = arguments.into();
        if let ("Concat", [one]) = (function, &arguments[..]) {
            return Some(one.clone());
        }
        let depth = 1 + arguments.iter().map(|argument| argument.depth()).max().unwrap_or(0);
        (depth <= MAX_DEPTH).then(|| Rc::new(Self::Apply(function, arguments, depth)))
    }

    fn depth(&self) -> usize {
        match self {
            Self::Scores(_) | Self::Number(_) => 0,
            // A column has no columns.
            Self::Column(_, of) => 1 + of.depth(),
            Self::Apply(_, _, depth) => *depth,
        }
    }

    /// One of `width` elements; of columns side by side, that column.
    pub(super) fn column(of: &Rc<Self>, index: usize, width: usize) -> Rc<Self> {
        match &**of {
            Self::Apply("Concat", parts, _) if parts.len() == width => parts[index].clone(),
            _ if width == 1 => of.clone(),
            _ => Rc::new(Self::Column(index, of.clone())),
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
            Self::Apply("Concat", parts, _) => match Self::each(parts, scores, terms) {
                Some(each) => each,
                None => Self::call("Concat", parts, scores, terms)?,
            },
            Self::Apply(function, arguments, _) => Self::call(function, arguments, scores, terms)?,
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
    /// Probabilities from trees: of two labels, the second's.
    Probabilities,
    /// Both scores of two labels, from trees or a network.
    Pair,
    /// The one that two scores of opposite sign come down to.
    Positive,
    /// The only score of two labels.
    Single,
    /// Minus the only score of two labels.
    Negated,
    /// Minus the scores of more than two labels.
    NegatedSeveral,
    /// For each label the only score, or the second of two of opposite sign.
    Each,
    /// Minus the only score, for each label.
    EachNegated,
    /// The values of a regression.
    Values,
}

const SIGMOID: &str = "Sigmoid(S)";
const NEGATED: &str = "Reciprocal(Add(Exp(S),1))";
const SECOND: &str = "Column1(Sigmoid(S))";
const SECOND_SHARE: &str = "Column1(L1(Sigmoid(S)))";
const TWO: &str = "Concat(Sub(1,P),P)";
const ONE_VS_REST_OF_TWO: &str = "L1(Concat(Sub(1,P),P))";
const SHARES: &str = "Div(Add(P,Not(Bool(RowSum(P)))),Add(RowSum(P),Mul(Not(Bool(RowSum(P))),K)))";

const fn tail(outputs: &'static str, label: &'static str, p: &'static str, logits: Logits, link: Link) -> Tail {
    Tail { outputs, label: Some(label), p, logits, link }
}

const fn regression(outputs: &'static str, link: Link) -> Tail {
    Tail { outputs, label: None, p: "", logits: Logits::Values, link }
}

/// The list above; the scores of two labels without probabilities are in [`plain_scores`].
const TAILS: [Tail; 27] = [
    tail("S", "S", "", Logits::Probabilities, Link::Probability),
    tail("L1(S)", "S", "", Logits::Probabilities, Link::Probability),
    tail("Softmax(S)", "S", "", Logits::Pair, Link::Softmax),
    tail("Softmax(S)", "Softmax(S)", "", Logits::Pair, Link::Softmax),
    tail("Softmax(S)", "Softmax(S)", "", Logits::Several, Link::Softmax),
    tail("S", "S", "", Logits::Several, Link::Identity),
    tail("L1(S)", "S", "", Logits::Several, Link::Identity),
    tail("Softmax(S)", "S", "", Logits::Several, Link::Softmax),
    tail("L1(Softmax(S))", "S", "", Logits::Several, Link::Softmax),
    tail("Softmax(S)", "S", "", Logits::Positive, Link::Sigmoid),
    tail("L1(Softmax(S))", "S", "", Logits::Positive, Link::Sigmoid),
    tail("P", "S", SIGMOID, Logits::Positive, Link::Sigmoid),
    tail("L1(P)", "S", SIGMOID, Logits::Positive, Link::Sigmoid),
    tail("L1(P)", "S", SIGMOID, Logits::Several, Link::OneVsRest),
    tail(TWO, TWO, SIGMOID, Logits::Single, Link::Sigmoid),
    tail(TWO, TWO, NEGATED, Logits::Negated, Link::Sigmoid),
    tail(SHARES, SHARES, NEGATED, Logits::NegatedSeveral, Link::OneVsRest),
    tail(ONE_VS_REST_OF_TWO, TWO, SIGMOID, Logits::Single, Link::Sigmoid),
    tail(ONE_VS_REST_OF_TWO, TWO, NEGATED, Logits::Negated, Link::Sigmoid),
    tail(ONE_VS_REST_OF_TWO, TWO, SECOND, Logits::Positive, Link::Sigmoid),
    tail(ONE_VS_REST_OF_TWO, TWO, SECOND_SHARE, Logits::Positive, Link::Sigmoid),
    tail("L1(Each(P))", "Each(P)", SIGMOID, Logits::Each, Link::OneVsRest),
    tail("L1(Each(P))", "Each(P)", NEGATED, Logits::EachNegated, Link::OneVsRest),
    tail("L1(Each(P))", "Each(P)", SECOND, Logits::Each, Link::OneVsRest),
    tail("L1(Each(P))", "Each(P)", SECOND_SHARE, Logits::Each, Link::OneVsRest),
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
    let mut mismatch = Mismatch::Unlisted;
    if (&outputs.text[..], &label.text[..], labels.len()) == ("S", "S", 2) {
        match plain_scores(chain, outputs.scores[0], label.scores[0]) {
            Err(Mismatch::NotOpposite) if outputs.scores == label.scores => mismatch = Mismatch::NotOpposite,
            found => return found,
        }
    }
    if outputs.scores != label.scores {
        return Err(Mismatch::Unlisted);
    }
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
            (Self::Probabilities, &[scores], _)
                if chain.width(scores) == labels && gives_probabilities(chain, scores) =>
            {
                match labels {
                    2 => Ok(chain.select(scores, vec![1])?),
                    _ => Ok(scores),
                }
            }
            (Self::Pair, &[scores], 2) if chain.width(scores) == 2 && !chain.is_affine(scores) => Ok(scores),
            (Self::Several, &[scores], 3..) if chain.width(scores) == labels => Ok(scores),
            (Self::Single, &[scores], 2) if chain.width(scores) == 1 => Ok(scores),
            (Self::Negated, &[scores], 2) if chain.width(scores) == 1 => {
                chain.negated(scores).ok_or(Mismatch::Unlisted)
            }
            (Self::NegatedSeveral, &[scores], 3..) if chain.width(scores) == labels => {
                chain.negated(scores).ok_or(Mismatch::Unlisted)
            }
            (Self::Each | Self::EachNegated, scores, 3..) if scores.len() == labels => {
                let logits = scores.iter().map(|&score| match self {
                    Self::Each => chain.positive(score)?.ok_or(Mismatch::NotOpposite),
                    _ => chain.negated(score).ok_or(Mismatch::Unlisted),
                });
                let logits = logits.collect::<Result<_, _>>()?;
                Ok(chain.join(logits)?)
            }
            _ => Err(Mismatch::Unlisted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::chain::{Operation, State};
    use crate::import::tensor::{Parameters, Precision};

    /// Scores S of a chain, by their width and their kind.
    struct Scores(Chain);

    impl Scores {
        fn new() -> Self {
            let mut chain = Chain::default();
            chain.push(1, Operation::Columns { columns: vec![0], state: State::Raw }).unwrap();
            Self(chain)
        }

        fn product(&mut self, matrix: &[f64]) -> Id {
            let width = matrix.len();
            let matrix = Parameters { values: matrix.to_vec(), precision: Precision::Double }.into();
            self.0.push(width, Operation::Product { of: 0, matrix }).unwrap()
        }

        fn negative(&mut self, of: Id) -> Id {
            let width = self.0.width(of);
            let by = Parameters { values: vec![-1.0; width], precision: Precision::Single }.into();
            self.0.push(width, Operation::Multiply { of, by }).unwrap()
        }
    }

    fn labels(count: i64) -> Vec<Label> {
        (0..count).map(Label::Integer).collect()
    }

    fn s(id: Id) -> Rc<Formula> {
        Rc::new(Formula::Scores(id))
    }

    fn number(value: f64) -> Rc<Formula> {
        Rc::new(Formula::Number(value))
    }

    fn f(function: &'static str, arguments: &[&Rc<Formula>]) -> Rc<Formula> {
        Formula::apply(function, arguments.iter().map(|&argument| argument.clone()).collect::<Vec<_>>()).unwrap()
    }

    fn sigmoid(of: &Rc<Formula>) -> Rc<Formula> {
        f("Sigmoid", &[of])
    }

    /// 1/(1 + exp(x)).
    fn logistic_of_negated(x: &Rc<Formula>) -> Rc<Formula> {
        f("Reciprocal", &[&f("Add", &[&f("Exp", &[x]), &number(1.0)])])
    }

    fn two(p: &Rc<Formula>) -> Rc<Formula> {
        f("Concat", &[&f("Sub", &[&number(1.0), p]), p])
    }

    fn share(x: &Rc<Formula>) -> Rc<Formula> {
        f("Div", &[x, &f("RowSum", &[&f("Abs", &[x])])])
    }

    fn matched(scores: &mut Scores, outputs: &Formula, label: &Formula, count: i64) -> Result<(Id, Link), Mismatch> {
        classifier(&mut scores.0, outputs, label, &labels(count)).map(|Matched { logits, link }| (logits, link))
    }

    #[test]
    fn tails_of_several_labels() {
        let mut scores = Scores::new();
        let three = scores.product(&[1.0, 2.0, 3.0]);
        let x = s(three);
        let softmax = f("Softmax", &[&x]);
        for (outputs, link) in [
            (x.clone(), Link::Identity),
            (f("L1", &[&x]), Link::Identity),
            (softmax.clone(), Link::Softmax),
            (f("L1", &[&softmax]), Link::Softmax),
            (f("L1", &[&sigmoid(&x)]), Link::OneVsRest),
            (share(&sigmoid(&x)), Link::OneVsRest),
        ] {
            assert_eq!(matched(&mut scores, &outputs, &x, 3), Ok((three, link)), "{outputs:?}");
        }
        for outputs in [sigmoid(&x), f("Exp", &[&x]), two(&x), f("RowSum", &[&x])] {
            assert_eq!(matched(&mut scores, &outputs, &x, 3), Err(Mismatch::Unlisted), "{outputs:?}");
        }
        assert_eq!(matched(&mut scores, &x, &softmax, 3), Err(Mismatch::Unlisted));
        assert_eq!(matched(&mut scores, &x, &x, 4), Err(Mismatch::Unlisted));
    }

    #[test]
    fn tails_of_two_labels_have_one_logit() {
        let mut scores = Scores::new();
        let pair = scores.product(&[-2.0, 2.0]);
        let positive = scores.0.select(pair, vec![1]).unwrap();
        let x = s(pair);
        for (outputs, link) in [
            (x.clone(), Link::Identity),
            (s(positive), Link::Identity),
            (f("Softmax", &[&x]), Link::Sigmoid),
            (sigmoid(&x), Link::Sigmoid),
            (share(&sigmoid(&x)), Link::Sigmoid),
        ] {
            assert_eq!(matched(&mut scores, &outputs, &x, 2), Ok((positive, link)), "{outputs:?}");
        }
        assert_eq!(matched(&mut scores, &x, &s(positive), 2), Err(Mismatch::Unlisted), "the argmax of one score");
        let negative = scores.0.select(pair, vec![0]).unwrap();
        assert_eq!(matched(&mut scores, &s(negative), &x, 2), Err(Mismatch::Unlisted), "the other label's score");
        let apart = scores.product(&[-2.0, 1.0]);
        let x = s(apart);
        for outputs in [x.clone(), f("Softmax", &[&x]), sigmoid(&x)] {
            assert_eq!(matched(&mut scores, &outputs, &x, 2), Err(Mismatch::NotOpposite), "{outputs:?}");
        }
    }

    #[test]
    fn tails_of_stochastic_gradient_descent() {
        let mut scores = Scores::new();
        let single = scores.product(&[1.0]);
        let negative = scores.negative(single);
        let hinge = s(scores.0.join(vec![negative, single]).unwrap());
        assert_eq!(matched(&mut scores, &hinge, &hinge, 2), Ok((single, Link::Identity)));
        for p in [sigmoid(&s(single)), logistic_of_negated(&s(negative))] {
            assert_eq!(matched(&mut scores, &two(&p), &two(&p), 2), Ok((single, Link::Sigmoid)));
        }
        let wrong = two(&logistic_of_negated(&s(single)));
        assert_eq!(matched(&mut scores, &wrong, &wrong, 2), Err(Mismatch::Unlisted), "not of a negated score");
        let three = scores.product(&[1.0, 2.0, 3.0]);
        let negated = scores.negative(three);
        let shares = |count| {
            let p = logistic_of_negated(&s(negated));
            let sum = f("RowSum", &[&p]);
            let none = f("Not", &[&f("Bool", &[&sum])]);
            let all = f("Add", &[&sum, &f("Mul", &[&none, &number(count)])]);
            f("Div", &[&f("Add", &[&p, &none]), &all])
        };
        assert_eq!(matched(&mut scores, &shares(3.0), &shares(3.0), 3), Ok((three, Link::OneVsRest)));
        assert_eq!(matched(&mut scores, &shares(2.0), &shares(2.0), 3), Err(Mismatch::Unlisted));
    }

    #[test]
    fn tails_of_one_against_the_rest() {
        let mut scores = Scores::new();
        let pairs: Vec<_> = [1.0, 2.0, 3.0].iter().map(|&w| scores.product(&[-w, w])).collect();
        for share_first in [false, true] {
            let column = |pair: &Id| {
                let p = sigmoid(&s(*pair));
                Formula::column(&if share_first { share(&p) } else { p }, 1, 2)
            };
            let all = Formula::apply("Concat", pairs.iter().map(column).collect::<Vec<_>>()).unwrap();
            let (logits, link) = matched(&mut scores, &f("L1", &[&all]), &all, 3).unwrap();
            assert!(matches!(scores.0.operation(logits), Operation::Join(parts) if parts.len() == 3));
            assert_eq!(link, Link::OneVsRest);
            let merged = two(&column(&pairs[0]));
            let positive = scores.0.select(pairs[0], vec![1]).unwrap();
            assert_eq!(matched(&mut scores, &f("L1", &[&merged]), &merged, 2), Ok((positive, Link::Sigmoid)));
            let twice = Formula::apply("Concat", [&pairs[0], &pairs[0], &pairs[1]].map(column)).unwrap();
            assert_eq!(matched(&mut scores, &f("L1", &[&twice]), &twice, 3), Err(Mismatch::Unlisted));
        }
        let apart = scores.product(&[1.0, 1.0]);
        let column = |pair: &Id| Formula::column(&sigmoid(&s(*pair)), 1, 2);
        let all = Formula::apply("Concat", [&pairs[0], &pairs[1], &apart].map(column)).unwrap();
        assert_eq!(matched(&mut scores, &f("L1", &[&all]), &all, 3), Err(Mismatch::NotOpposite));
    }

    #[test]
    fn regressions_have_values() {
        let link = |formula: &Formula| regressor(formula).map(|matched| matched.link);
        assert_eq!(link(&s(0)), Some(Link::Identity));
        assert_eq!(link(&f("Exp", &[&s(0)])), Some(Link::Exp));
        assert_eq!(link(&sigmoid(&s(0))), None);
        assert_eq!(link(&number(1.0)), None);
    }

    /// Thirty doublings make a formula of a billion terms.
    #[test]
    fn endless_formulas_are_not_written_down() {
        let endless = (0..30).fold(s(0), |x, _| f("Add", &[&x, &x]));
        assert_eq!(endless.write(), None);
        assert!(regressor(&endless).is_none());
        let deep = (0..).try_fold(s(0), |x, depth| Formula::apply("Exp", [x]).ok_or(depth));
        assert_eq!(deep.unwrap_err(), MAX_DEPTH);
    }
}
