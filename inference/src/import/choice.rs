//! Planning models that choose: grids, integers, gadget and scales.
//!
//! Grids come first: the model's own cuts if they may be public, or else as few bits for every feature as leave the
//! predictions on some data what they were. Integers are as large as there is room for, and noise is what is left to be
//! paid for: of the gadgets with the fewest levels, and so the shortest requests, the first is taken that keeps the
//! precision.

use super::levels::Levelled;
use super::nonlinear::{NetworkModel, Node, Source, Tree, TreeModel};
use super::plan::{Wish, decimals};
use super::{ImportError, Quantisation, Thresholds, random_rows};
use crate::bits::MAX_BITS;
use crate::bound::{Scale, StatedErrors};
use crate::description::{Feature, Link};
use crate::parameters::ParameterSet;
use crate::selection::model::Model;
use crate::selection::noise::Noise;
use crate::selection::{Check, Gadget, Grid, MAX_SELECTION_LEN, Selection, Shape};

/// A model in integers, and how it is asked.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) model: Model,
    pub(super) selection: Selection,
    pub(super) parameters: ParameterSet,
    pub(super) scale: Scale,
    pub(super) decimals: u32,
    pub(super) bound: f64,
    pub(super) limit: u64,
    pub(super) quantisation: Quantisation,
}

/// What a plan is made of.
pub(super) struct Task<'a> {
    pub(super) source: &'a Source,
    pub(super) features: &'a [Feature],
    /// Rows as the model gets them: after the client's steps.
    pub(super) rows: &'a [Vec<f64>],
    pub(super) link: Link,
    /// Whether rows have labels.
    pub(super) is_classifier: bool,
    pub(super) thresholds: Thresholds,
    pub(super) wish: Wish,
}

impl Choice {
    pub(super) fn new(task: &Task<'_>) -> Result<Self, ImportError> {
        task.wish.check()?;
        let (grids, quantisation) = task.grids()?;
        let ready = Ready::new(&task.levelled(&grids), &grids)?;
        let stated = task.stated();
        let found = ready.best(task.wish, stated)?;
        let found =
            found.ok_or_else(|| task.wish.refusal(stated, |wish| matches!(ready.best(wish, stated), Ok(Some(_)))))?;
        let Found { selection, parameters, scale, decimals, bound, limit } = found;
        Ok(Self { model: ready.model, selection, parameters, scale, decimals, bound, limit, quantisation })
    }
}

impl Task<'_> {
    /// The grids of all features, and what they cost.
    fn grids(&self) -> Result<(Vec<Grid>, Quantisation), ImportError> {
        match (self.source, self.thresholds) {
            (Source::Trees(trees), Thresholds::Public) => {
                let grids: Vec<Grid> = self.cuts(trees).into_iter().map(Grid::Cuts).collect();
                let quantisation = self.loss(&grids);
                Ok((grids, quantisation))
            }
            (_, Thresholds::Public) => Err(ImportError::NoThresholds),
            (_, Thresholds::Hidden) => {
                let uniform = |bits| vec![Grid::Uniform(bits); self.features.len()];
                let tried = (FEWEST_BITS..=MOST_BITS).map(|bits| (uniform(bits), self.loss(&uniform(bits))));
                let mut best: Option<(Vec<Grid>, Quantisation)> = None;
                for (grids, loss) in tried {
                    let is_better = best.as_ref().is_none_or(|(_, best)| loss.amount < best.amount);
                    let is_enough = loss.amount <= ENOUGH;
                    if is_better {
                        best = Some((grids, loss));
                    }
                    if is_enough {
                        break;
                    }
                }
                Ok(best.expect("at least one number of bits is tried"))
            }
        }
    }

    /// Every cut of each feature within its range, ascending.
    fn cuts(&self, trees: &TreeModel) -> Vec<Vec<f64>> {
        let mut cuts = vec![vec![]; self.features.len()];
        for node in trees.trees.iter().flat_map(|tree| &tree.nodes) {
            if let Node::Branch { column, cut, .. } = *node {
                let Feature { low, high, .. } = self.features[column];
                if cut > low && cut <= high {
                    cuts[column].push(cut);
                }
            }
        }
        for cuts in &mut cuts {
            cuts.sort_by(f64::total_cmp);
            cuts.dedup();
        }
        cuts
    }

    fn levelled<'b>(&'b self, grids: &'b [Grid]) -> Levelled<'b> {
        let logits = match self.source {
            Source::Network(network) => network.output.len(),
            _ => 0,
        };
        let places = ParameterSet::N2048TUniform17.degree() / (logits + NETWORK_CHECK.count);
        Levelled::new(self.source, self.features, grids, self.rows, places)
    }

    /// What rows say of the model on these grids, against the model itself.
    fn loss(&self, grids: &[Grid]) -> Quantisation {
        let bits = grids.iter().map(Grid::bits).sum();
        let rows: Vec<Vec<f64>> = match self.rows {
            [] => random_rows(self.features, ROWS_WITHOUT_DATA, [0; 48]).collect(),
            rows => rows.to_vec(),
        };
        let levelled = self.levelled(grids);
        let (mut labels_changed, mut largest, mut squares, mut values) = (0, 0.0_f64, 0.0, vec![]);
        for row in &rows {
            let (exact, quantised) = (self.source.logits(row), levelled.logits(row));
            labels_changed += usize::from(self.label(&exact) != self.label(&quantised));
            for (exact, quantised) in exact.iter().zip(&quantised) {
                largest = largest.max((exact - quantised).abs());
                squares += (exact - quantised).powi(2);
            }
            values.extend(exact);
        }
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        let spread: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let labels_changed = self.is_classifier.then_some(labels_changed);
        let amount = match labels_changed {
            Some(changed) => changed as f64 / rows.len().max(1) as f64,
            // The root mean square, over the standard deviation of what is predicted.
            None => (squares / spread.max(f64::MIN_POSITIVE)).sqrt() * REGRESSION_SHARE,
        };
        let from_data = !self.rows.is_empty();
        Quantisation { rows: rows.len(), from_data, labels_changed, largest_difference: largest, bits, amount }
    }

    /// The index of a classifier's label.
    fn label(&self, logits: &[f64]) -> usize {
        match (self.link, logits) {
            (Link::Probability, [p]) => usize::from(*p > 0.5),
            (_, [logit]) => usize::from(*logit > 0.0),
            _ => (1..logits.len()).fold(0, |first, c| if logits[c] > logits[first] { c } else { first }),
        }
    }
}

/// As many lie all over the ranges where no data is given.
const ROWS_WITHOUT_DATA: usize = 500;

/// The bits that are tried for every feature.
const FEWEST_BITS: u32 = 2;
const MOST_BITS: u32 = 8;

/// One label in two hundred.
const ENOUGH: f64 = 0.005;

/// What a regression is off by, in deviations of what it predicts, counts as so many labels: it may be a twentieth.
const REGRESSION_SHARE: f64 = 0.1;

/// β for every ℓ: with larger ones the noise of bits and of float64 grows, with smaller ones that of what is left out.
const GADGETS: [Gadget; 4] = [
    Gadget { base: 23, levels: 1 },
    Gadget { base: 16, levels: 2 },
    Gadget { base: 12, levels: 3 },
    Gadget { base: 10, levels: 4 },
];

const TREE_CHECK: Check = Check { bits: 4, count: 16 };

/// A neuron's table has a place for it in each of its entries.
const NETWORK_CHECK: Check = Check { bits: 8, count: 2 };

const FEWEST_PLACES: usize = 16;

/// A model in integers, of which gadget, flood and the bits of a reply are still open.
struct Ready<'a> {
    grids: &'a [Grid],
    model: Model,
    /// With any gadget.
    selection: Selection,
    parameters: ParameterSet,
    /// s: an integer L stands for L·2^−s.
    bits: i32,
    depths: Vec<usize>,
}

/// What keeps a wish.
struct Found {
    selection: Selection,
    parameters: ParameterSet,
    scale: Scale,
    decimals: u32,
    bound: f64,
    limit: u64,
}

impl<'a> Ready<'a> {
    /// In integers, as large as there is room for, in the smallest ring that holds what it has to.
    fn new(levelled: &Levelled<'_>, grids: &'a [Grid]) -> Result<Self, ImportError> {
        let (small, large) = (ParameterSet::K4N512TUniform17, ParameterSet::N2048TUniform17);
        let logits = levelled.model.base().len();
        let (check, rings, most) = match levelled.model {
            Model::Trees(_) => (TREE_CHECK, &[small, large][..], large.degree() - TREE_CHECK.count),
            // A table of fewer places would say nothing.
            Model::Network(_) => (NETWORK_CHECK, &[large][..], large.degree() / FEWEST_PLACES - NETWORK_CHECK.count),
        };
        if logits > most {
            return Err(ImportError::TooWide { what: "logits", actual: logits, max: most });
        }
        let holds = |ring: &&ParameterSet| logits + check.count <= ring.degree();
        let parameters = *rings.iter().find(holds).expect("the largest ring holds the most logits");
        // A quarter of 2^63 is left to noise.
        let bits = (62.4 - levelled.largest().max(f64::MIN_POSITIVE).log2()).floor().clamp(2.0, 110.0) as i32;
        let scale = 2_f64.powi(bits);
        let model = levelled.model.map(|number| (number * scale).round_ties_even() as i64);
        let selection = Selection { check, grids: grids.to_vec(), gadget: GADGETS[0], single: levelled.single };
        let depths = model.depths(&selection.ranges());
        Ok(Self { grids, model, selection, parameters, bits, depths })
    }

    /// The first gadget that fulfils the wish.
    fn best(&self, wish: Wish, stated: StatedErrors) -> Result<Option<Found>, ImportError> {
        // Every digit of noise that a gadget may have saves bytes: publishing costs a tenth of the precision at most.
        let Some(decimals) = decimals(wish.precision / 5.0) else { return Ok(None) };
        let mut fits = false;
        for gadget in GADGETS {
            let selection = Selection { gadget, ..self.selection.clone() };
            let logits = self.model.base().len();
            let Some(shape) = Shape::new(self.parameters, &selection, logits, MAX_BITS) else { continue };
            fits = true;
            if let Some(found) = self.finish(wish, stated, decimals, (selection, shape)) {
                return Ok(Some(found));
            }
        }
        match fits {
            true => Ok(None),
            false => {
                let bits = self.grids.iter().map(|grid| grid.bits() as usize).sum();
                let row = self.parameters.degree() * self.parameters.body_len();
                let len = bits * (self.parameters.dimension() + 1) * row;
                Err(ImportError::TooLong { len, max: MAX_SELECTION_LEN, bits })
            }
        }
    }

    /// Scale, flood and the bits of a reply, if all that is promised holds.
    fn finish(
        &self,
        wish: Wish,
        stated: StatedErrors,
        decimals: u32,
        (selection, shape): (Selection, Shape),
    ) -> Option<Found> {
        let Self { model, depths, bits, .. } = self;
        let mut scale = Scale { flood: 0, reply: MAX_BITS, shift: 0, weights: bits - 1, features: 1 };
        let quiet = Noise::new(&shape, depths.iter().copied(), 0);
        let room = wish.precision - quiet.ledger(scale.unit(), model.summands(), decimals, stated).total();
        if room <= 0.0 {
            return None;
        }
        // Most of what is left is for the flood, the rest for the reply's rounding; the check has to come through both.
        let most = f64::from(61 - shape.check.bits);
        scale.flood = (0.8 * room / scale.unit()).log2().floor().clamp(0.0, most) as u32;
        let fits = |reply: u32| {
            let shape = Shape { reply_bits: reply, ..shape };
            let noise = Noise::new(&shape, depths.iter().copied(), scale.flood);
            let limit = noise.limit(model.largest(), &shape)?;
            let ledger = noise.ledger(scale.unit(), model.summands(), decimals, stated);
            let is_private = wish.distance.is_none_or(|distance| noise.distance(&shape) <= distance);
            (ledger.total() <= wish.precision && is_private).then(|| (reply, ledger.total(), limit))
        };
        let (reply, bound, limit) = (1..=MAX_BITS).find_map(fits)?;
        scale.reply = reply;
        Some(Found { selection, parameters: self.parameters, scale, decimals, bound, limit })
    }
}

impl Task<'_> {
    /// What the file's float32 and the sums of float64 are off by, of numbers that are added up.
    pub(super) fn stated(&self) -> StatedErrors {
        let (largest, count) = self.source.size();
        let arithmetic = largest * (count as f64 + 8.0) * f64::EPSILON;
        StatedErrors { export: largest * f64::from(f32::EPSILON), arithmetic }
    }
}

impl Source {
    /// The most that the magnitudes of a logit's summands add up to, and how many there are.
    fn size(&self) -> (f64, usize) {
        let most = |values: &[f64]| values.iter().map(|value| value.abs()).fold(0.0, f64::max);
        match self {
            Self::Trees(TreeModel { trees, base, .. }) => {
                let reach = |tree: &Tree| {
                    let leaves = tree.nodes.iter().filter_map(|node| match node {
                        Node::Leaf { values } => Some(most(values)),
                        Node::Branch { .. } => None,
                    });
                    leaves.fold(0.0, f64::max)
                };
                (most(base) + trees.iter().map(reach).sum::<f64>(), trees.len())
            }
            Self::Network(NetworkModel { output, output_bias, hidden, .. }) => {
                let row = output.iter().map(|row| row.iter().map(|weight| weight.abs()).sum()).fold(0.0, f64::max);
                (most(output_bias) + row, hidden.len())
            }
            Self::Linear => (0.0, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::tests::uniform;
    use crate::description::tests::feature;
    use crate::import::nonlinear::Activation;

    /// One branch for every cut of one feature: the logit is how many a value reaches.
    fn staircase(cuts: &[f64]) -> Source {
        let tree = |&cut: &f64| {
            let leaf = |value| Node::Leaf { values: vec![value] };
            Tree { nodes: vec![Node::Branch { column: 0, cut, below: 1, above: 2 }, leaf(0.0), leaf(1.0)] }
        };
        Source::Trees(TreeModel { trees: cuts.iter().map(tree).collect(), base: vec![-0.5], single: false })
    }

    fn network(units: usize, logits: usize) -> Source {
        let mut numbers = uniform(units * (logits + 3) + logits, 9).into_iter().map(|word| word as i64 as f64 / 2e18);
        let mut take = |count: usize| numbers.by_ref().take(count).collect::<Vec<_>>();
        Source::Network(NetworkModel {
            activation: Activation::Tanh,
            hidden: (0..units).map(|_| take(2)).collect(),
            bias: take(units),
            output: (0..logits).map(|_| take(units)).collect(),
            output_bias: take(logits),
        })
    }

    fn task<'a>(source: &'a Source, features: &'a [Feature], rows: &'a [Vec<f64>]) -> Task<'a> {
        Task {
            source,
            features,
            rows,
            link: Link::Sigmoid,
            is_classifier: true,
            thresholds: Thresholds::Hidden,
            wish: Wish { precision: 1e-2, distance: None },
        }
    }

    #[test]
    fn bits_are_as_few_as_keep_the_labels_of_the_data() {
        let (source, features) = (staircase(&[0.5]), [feature("x", 0.0, 1.0)]);
        let rows: Vec<Vec<f64>> = (0..200).map(|i| vec![f64::from(i) / 199.0]).collect();
        let bits = |source: &Source, rows: &[Vec<f64>]| Choice::new(&task(source, &features, rows)).unwrap();
        let halves = bits(&source, &rows);
        assert_eq!((halves.selection.grids, halves.quantisation.labels_changed), (vec![Grid::Uniform(2)], Some(0)));
        // The ends of few intervals are far from this cut, but nothing of the data is between.
        let gap: Vec<Vec<f64>> = rows.iter().filter(|row| row[0] < 0.25 || row[0] > 0.45).cloned().collect();
        assert_eq!(bits(&staircase(&[0.44]), &gap).selection.grids, [Grid::Uniform(2)]);
        let dense = bits(&staircase(&[0.44]), &rows);
        assert!(dense.selection.grids[0].bits() > 2 && dense.quantisation.amount <= ENOUGH, "{:?}", dense.quantisation);
        // Rows all over the range stand in for data.
        let blind = bits(&staircase(&[0.44]), &[]).quantisation;
        assert_eq!((blind.rows, blind.from_data), (ROWS_WITHOUT_DATA, false));
    }

    #[test]
    fn public_thresholds_change_nothing() {
        let (source, features) = (staircase(&[0.1, 0.44, 0.44, 2.0]), [feature("x", 0.0, 1.0)]);
        let choice = Choice::new(&Task { thresholds: Thresholds::Public, ..task(&source, &features, &[]) }).unwrap();
        assert_eq!(choice.selection.grids, [Grid::Cuts(vec![0.1, 0.44])], "the last is out of range");
        assert_eq!((choice.quantisation.labels_changed, choice.quantisation.largest_difference), (Some(0), 0.0));
    }

    #[test]
    fn a_regression_counts_deviations() {
        let cuts: Vec<f64> = (1..64).map(|i| f64::from(i) / 64.0).collect();
        let (source, features) = (staircase(&cuts), [feature("x", 0.0, 1.0)]);
        let choice = Choice::new(&Task { is_classifier: false, link: Link::Identity, ..task(&source, &features, &[]) });
        let Quantisation { labels_changed, amount, largest_difference, bits, .. } = choice.unwrap().quantisation;
        assert!(
            labels_changed.is_none() && amount <= ENOUGH && largest_difference >= 1.0,
            "{amount} {largest_difference}"
        );
        assert!((3..6).contains(&bits), "{bits} bits for 63 cuts");
    }

    /// Shorter requests come first, and those that a precision asks for only then.
    #[test]
    fn levels_of_the_gadget_grow_with_the_precision() {
        let (source, features) = (network(8, 3), [feature("x", -1.0, 1.0), feature("y", -1.0, 1.0)]);
        let found = |precision| {
            let wish = Wish { precision, distance: None };
            let choice = Choice::new(&Task { wish, ..task(&source, &features, &[]) }).unwrap();
            assert!(choice.bound <= precision, "{} of {precision}", choice.bound);
            choice.selection.gadget.levels
        };
        let levels = [1.0, 1e-2, 1e-4].map(found);
        assert!(levels[0] < levels[2] && levels.is_sorted(), "{levels:?}");
    }

    #[test]
    fn what_cannot_be_kept_is_refused_with_what_can() {
        let features = [feature("x", 0.0, 1.0), feature("y", 0.0, 1.0)];
        let source = staircase(&[0.5]);
        let refusal = |source: &Source, change: fn(&mut Task<'_>)| {
            let mut task = task(source, &features, &[]);
            change(&mut task);
            Choice::new(&task).unwrap_err()
        };
        let ImportError::Precision { reachable: Some(reachable), .. } =
            refusal(&source, |task| task.wish.precision = 1e-14)
        else {
            panic!("float64 is not so fine");
        };
        let wish = Wish { precision: reachable, distance: None };
        assert!(Choice::new(&Task { wish, ..task(&source, &features, &[]) }).is_ok());
        let hidden = refusal(&source, |task| task.wish.distance = Some(2_f64.powi(-60)));
        assert_eq!(hidden.code(), "distance");
        assert_eq!(refusal(&source, |task| task.wish.precision = 0.0).code(), "no_precision");
        assert_eq!(refusal(&network(1, 1), |task| task.thresholds = Thresholds::Public).code(), "no_thresholds");
        let wide = refusal(&network(1, 200), |_| ());
        assert_eq!(wide, ImportError::TooWide { what: "logits", actual: 200, max: 126 });
    }

    /// 2000 columns of two bits are more than a request holds.
    #[test]
    fn more_bits_than_a_request_holds_are_refused() {
        let features: Vec<Feature> = (0..2000).map(|j| feature(&format!("x{j}"), 0.0, 1.0)).collect();
        let error = Choice::new(&task(&staircase(&[0.5]), &features, &[])).unwrap_err();
        assert_eq!(error, ImportError::TooLong { bits: 4000, len: 4000 * 5 * 512 * 6, max: MAX_SELECTION_LEN });
    }
}
