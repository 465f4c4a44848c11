//! Choosing parameters, scales, limbs and layouts: the cheapest that keep the promise.
//!
//! Two modes compete. In *interval* mode one product holds a logit with its noise, and the scales are the most precise
//! that fit into 64 bits. In *exact* mode features and weights are as coarse as the precision allows, split into as many
//! digits as leave room for rounding all noise away. For each ring and each number of digits there is one candidate; of
//! those that keep the promise, the one of the least [cost](Packing::cost) is taken, counting one row that comes alone and
//! eight that come among 256.

use super::ImportError;
use super::fold::FoldedModel;
use crate::bits::MAX_BITS;
use crate::bound::{
    ErrorLedger, IntegerModel, MAX_DECIMALS, Noise, Norms, Scale, StatedErrors, power_of_ten, power_of_two,
    publication_error, switch_error,
};
use crate::description::{Feature, LOGIT_BITS, MAX_FEATURE_BITS, WEIGHT_BITS};
use crate::limbs::{Digits, Limbs};
use crate::packing::{Layout, Packing, Shape};
use crate::parameters::ParameterSet;

/// A quantised model and how precise it is.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) model: IntegerModel,
    /// With the grids that were declared, if the plan makes use of them.
    pub(super) features: Vec<Feature>,
    pub(super) parameters: ParameterSet,
    pub(super) scale: Scale,
    pub(super) limbs: Limbs,
    pub(super) layouts: Vec<Layout>,
    pub(super) decimals: u32,
    pub(super) bound: f64,
    pub(super) limit: u64,
    /// Microseconds, by [`Packing::cost`].
    pub(super) cost: f64,
}

/// What is asked of a plan.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    /// ε, the most by which published logits may be off.
    pub(super) precision: f64,
    /// The most that [`Noise::distance`] may be.
    pub(super) distance: Option<f64>,
}

/// Logits are published in so many decimals at most that a finer precision would be none.
const FINEST: f64 = 1e-9;

impl Plan {
    /// The cheapest plan that fulfils the wish.
    pub(super) fn new(folded: &FoldedModel, features: &[Feature], wish: Wish) -> Result<Self, ImportError> {
        wish.check()?;
        let find = |wish| Planner { folded, features, wish }.best();
        let plan = (wish.precision >= FINEST).then(|| find(wish)).flatten();
        plan.ok_or_else(|| wish.refusal(folded.errors, |wish| find(wish).is_some()))
    }
}

impl Wish {
    /// Whether they are numbers that can be kept.
    pub(super) fn check(&self) -> Result<(), ImportError> {
        let Self { precision, distance } = *self;
        if !(precision.is_finite() && precision > 0.0) {
            return Err(ImportError::NoPrecision { precision });
        }
        match distance.filter(|distance| !(*distance > 0.0 && *distance < 1.0)) {
            Some(distance) => Err(ImportError::NoDistance { distance }),
            None => Ok(()),
        }
    }

    /// Which of the two is out of reach, and what is not: `found` says of a wish whether there is a plan.
    pub(super) fn refusal(&self, errors: StatedErrors, found: impl Fn(Self) -> bool) -> ImportError {
        let without = Self { distance: None, ..*self };
        if let Some(distance) = self.distance.filter(|_| found(without)) {
            let steps = (1..64).map(|bits| power_of_two(-bits)).take_while(|&step| step > distance);
            let reachable =
                steps.collect::<Vec<_>>().into_iter().rev().find(|&step| found(Self { distance: Some(step), ..*self }));
            return ImportError::Distance { asked: distance, reachable };
        }
        let steps = (-6..=MAX_DECIMALS as i32).rev().flat_map(|k| [1.0, 2.0, 5.0].map(|digit| digit / 10_f64.powi(k)));
        let least = self.precision.max(floor(errors));
        let coarser = steps.filter(|&precision| precision >= FINEST && precision > least);
        let reachable = coarser.into_iter().find(|&precision| found(Self { precision, ..without }));
        ImportError::Precision { asked: self.precision, export: errors.export, reachable }
    }
}

/// What no plan can undercut.
fn floor(errors: StatedErrors) -> f64 {
    errors.export + errors.arithmetic
}

struct Planner<'a> {
    folded: &'a FoldedModel,
    features: &'a [Feature],
    wish: Wish,
}

/// Integers and their scales, before anything is known of the ring. Many are drawn up of one model, and few become plans.
#[derive(Clone, Copy)]
struct Draft<'a> {
    model: &'a IntegerModel,
    features: &'a [Feature],
    norms: &'a Norms,
    scale: Scale,
    limbs: Limbs,
}

impl Planner<'_> {
    fn best(&self) -> Option<Plan> {
        let decimals = decimals(self.wish.precision)?;
        let room = self.wish.precision - floor(self.folded.errors) - publication_error(decimals);
        if room <= 0.0 {
            return None;
        }
        let plans = self.interval(decimals, room).into_iter().chain(self.exact(decimals, room));
        plans.min_by(|one, other| one.cost.total_cmp(&other.cost))
    }

    /// One product per logit, its noise included; half of the room is for the flood, or none if that is too much.
    fn interval(&self, decimals: u32, room: f64) -> Vec<Plan> {
        let floods = |parameters| [0.5, 0.0].into_iter().find_map(|s| self.interval_in(parameters, decimals, room * s));
        ParameterSet::LINEAR.into_iter().filter_map(floods).collect()
    }

    fn interval_in(&self, parameters: ParameterSet, decimals: u32, flood: f64) -> Option<Plan> {
        // Noise hides what the grid's points would be.
        let features: Vec<_> = self.features.iter().map(|feature| Feature { step: None, ..feature.clone() }).collect();
        let plans = self.interval_scales(parameters).filter_map(|scale| {
            let model =
                IntegerModel { weights: self.weights(&features, scale)?, biases: self.biases(scale, Limbs::WHOLE)? };
            let norms = Norms::new(&model, Limbs::WHOLE, &reaches(&features, scale));
            let draft = Draft { model: &model, features: &features, norms: &norms, scale, limbs: Limbs::WHOLE };
            let bits = (flood / scale.unit()).log2().floor().clamp(0.0, 61.0) as u32;
            self.finish(draft, parameters, decimals, |_| bits)
        });
        plans.min_by(|one, other| one.cost.total_cmp(&other.cost))
    }

    /// A weight's rounding costs ½·d·2^−w, the noise C·2^w: the least sum is near 2^w = √(d/2C).
    fn interval_scales(&self, parameters: ParameterSet) -> impl Iterator<Item = Scale> {
        let largest = self.largest_logit() + 2.0 * self.wish.precision;
        let logit_bits = (62.99 - largest.log2()).floor();
        let noise = self.folded.weights.iter().flatten().map(|weight| weight.abs()).sum::<f64>()
            * parameters.body_error() as f64
            / power_of_two(logit_bits as i32);
        let best = (0.5 * self.features.len() as f64 / noise.max(f64::MIN_POSITIVE)).log2() * 0.5;
        let best = best.clamp(f64::from(*WEIGHT_BITS.start()), f64::from(*WEIGHT_BITS.end())) as i32;
        (best - 1..=best + 1).filter_map(move |weights| {
            let features = (logit_bits as i32 - weights).min(MAX_FEATURE_BITS as i32);
            let features = u32::try_from(features).ok().filter(|bits| *bits > 0)?;
            let scale = Scale { flood: 0, reply: MAX_BITS, shift: 0, weights, features };
            LOGIT_BITS.contains(&scale.logit_bits()).then_some(scale)
        })
    }

    /// max_c Σ_j |V_cj| + |β_c|.
    fn largest_logit(&self) -> f64 {
        let sum = |(row, bias): (&Vec<f64>, &f64)| row.iter().map(|weight| weight.abs()).sum::<f64>() + bias.abs();
        self.folded.weights.iter().zip(&self.folded.biases).map(sum).fold(f64::MIN_POSITIVE, f64::max)
    }

    /// Features and weights as coarse as the room allows, in every number of digits.
    fn exact(&self, decimals: u32, room: f64) -> Option<Plan> {
        let count: usize = self.folded.weights.iter().map(Vec::len).sum();
        let finer = if count > MANY_WEIGHTS { 0..=0 } else { 0..=2 };
        let mut best: Option<Plan> = None;
        for scale in finer.filter_map(|finer| self.exact_scale(room, finer)) {
            let Some(weights) = self.weights(self.features, scale) else { continue };
            let reaches = reaches(self.features, scale);
            let (of_features, of_weights) = (feature_bits(&reaches), weight_bits(&weights));
            for (features, digits) in (1..=MOST_DIGITS).flat_map(|x| (1..=MOST_DIGITS).map(move |w| (x, w))) {
                let limbs = Limbs {
                    weights: Digits::holding(of_weights, digits),
                    features: Digits::holding(of_features, features),
                };
                let Some(biases) = self.biases(scale, limbs) else { continue };
                let model = IntegerModel { weights: weights.clone(), biases };
                let norms = Norms::new(&model, limbs, &reaches);
                let draft = Draft { model: &model, features: self.features, norms: &norms, scale, limbs };
                // Of a wide model all of them together are hundreds of megabytes.
                let found = best.into_iter().chain(self.exact_in(draft, decimals));
                best = found.min_by(|one, other| one.cost.total_cmp(&other.cost));
            }
        }
        best
    }

    /// m such that rounding features takes half of the room at most (or a quarter, or an eighth), and s such that the
    /// weights take the rest.
    fn exact_scale(&self, room: f64, finer: i32) -> Option<Scale> {
        let free = |row: &Vec<f64>| {
            let free = row.iter().zip(self.features).filter(|(_, feature)| feature.step.is_none());
            free.map(|(weight, _)| weight.abs()).sum::<f64>()
        };
        let free = self.folded.weights.iter().map(free).fold(0.0, f64::max);
        let bits = (free / room).log2().ceil().max(1.0) as i32 + finer;
        let features = u32::try_from(bits).ok().filter(|bits| *bits <= MAX_FEATURE_BITS)?;
        // One part in a hundred is for values that are off their grid, and for the rounding of weights in this estimate.
        let rest = (room - 0.5 * free * power_of_two(-bits)) * 0.99;
        let reaches: f64 = self.features.iter().map(|feature| feature.reach(features) as f64).sum();
        let logit_bits = ((reaches + 1.0) / (2.0 * rest)).log2().ceil() as i32;
        let scale = Scale { flood: 0, reply: MAX_BITS, shift: 1, weights: logit_bits - bits, features };
        (LOGIT_BITS.contains(&logit_bits) && WEIGHT_BITS.contains(&scale.weights)).then_some(scale)
    }

    fn exact_in(&self, draft: Draft<'_>, decimals: u32) -> Vec<Plan> {
        // P·2^δ and a half of 2^δ stay below 2^63.
        let shift = 62_u32.checked_sub(draft.norms.largest().max(1).ilog2() + 1).filter(|shift| *shift > 0);
        let Some(shift) = shift else { return vec![] };
        let draft = Draft { scale: Scale { shift, ..draft.scale }, ..draft };
        let plans = ParameterSet::LINEAR.into_iter().filter_map(|parameters| {
            // Half of what the noise leaves is for the flood, the rest for the reply's rounding.
            self.finish(draft, parameters, decimals, |noise| {
                let room = (1_u128 << (shift - 1)).saturating_sub(noise.encryption + noise.rerandomisation);
                (room / 2).checked_ilog2().unwrap_or(0)
            })
        });
        plans.collect()
    }

    fn shape(&self, parameters: ParameterSet, limbs: Limbs, reply_bits: u32) -> Shape {
        Shape { parameters, features: self.features.len(), logits: self.folded.weights.len(), limbs, reply_bits }
    }

    /// ω_cj = round(V_cj/M_j·2^s), if all fit.
    fn weights(&self, features: &[Feature], scale: Scale) -> Option<Vec<Vec<i64>>> {
        let per_logit = power_of_two(scale.logit_bits());
        let factors: Vec<f64> =
            features.iter().map(|feature| per_logit / feature.reach(scale.features) as f64).collect();
        let round = |(weight, factor): (&f64, &f64)| {
            let scaled = (weight * factor).round_ties_even();
            (scaled.abs() < power_of_two(62)).then_some(scaled as i64)
        };
        self.folded.weights.iter().map(|row| row.iter().zip(&factors).map(round).collect()).collect()
    }

    /// B_c = round(β_c·2^s), in digits, if all fit.
    fn biases(&self, scale: Scale, limbs: Limbs) -> Option<Vec<Vec<i64>>> {
        let per_logit = power_of_two(scale.logit_bits());
        let round = |bias: &f64| {
            let scaled = (bias * per_logit).round_ties_even();
            limbs.split((scaled.abs() < power_of_two(120)).then_some(scaled as i128)?)
        };
        self.folded.biases.iter().map(round).collect()
    }

    /// Layouts, flood and the bits of a reply, if all that is promised holds. `flood` gives φ, of the noise without it.
    fn finish(
        &self,
        draft: Draft<'_>,
        parameters: ParameterSet,
        decimals: u32,
        flood: impl Fn(&Noise) -> u32,
    ) -> Option<Plan> {
        let Draft { model, features, norms, mut scale, limbs } = draft;
        let guess = self.shape(parameters, limbs, typical_reply_bits(scale, self.wish.precision));
        let layouts = Packing::choose(guess);
        let packed = |reply_bits| -> Option<Vec<Packing>> {
            let shape = Shape { reply_bits, ..guess };
            layouts.iter().map(|&layout| Packing::new(shape, layout)).collect()
        };
        let packings = packed(guess.reply_bits)?;
        scale.flood = flood(&Noise::new(norms, scale, &packings));
        let noise = Noise::new(norms, scale, &packings);
        if self.wish.distance.is_some_and(|distance| noise.distance(&guess) > distance) {
            return None;
        }
        let fits = |reply: u32| {
            let (scale, noise) = (Scale { reply, ..scale }, Noise { switch: switch_error(reply, parameters), ..noise });
            let limit = noise.limit(norms.largest(), scale).ok()?;
            let ledger = ErrorLedger::new(model, features, scale, &noise, decimals, self.folded.errors);
            (ledger.total() <= self.wish.precision).then_some((scale, ledger.total(), limit))
        };
        let (scale, bound, limit) = (1..=MAX_BITS).find_map(fits)?;
        let cost = cost(&packed(scale.reply)?);
        let (model, features) = (model.clone(), features.to_vec());
        Some(Plan { model, features, parameters, scale, limbs, layouts, decimals, bound, limit, cost })
    }
}

/// Of one row that comes alone, and of eight that come among 256.
fn cost(packings: &[Packing]) -> f64 {
    let per_row = |rows: usize| {
        let costs = packings.iter().map(|packing| {
            let rows = rows.min(packing.capacity());
            packing.cost(rows) / rows as f64
        });
        costs.fold(f64::INFINITY, f64::min)
    };
    per_row(1) + 8.0 * per_row(256)
}

/// As many as a reply will need, roughly: layouts are chosen before this is known.
fn typical_reply_bits(scale: Scale, precision: f64) -> u32 {
    let room = match scale.is_exact() {
        true => f64::from(scale.shift) - 2.0,
        false => (precision / scale.unit()).log2() - 2.0,
    };
    (75.0 - room).clamp(1.0, f64::from(MAX_BITS)) as u32
}

/// M_j of every feature.
fn reaches(features: &[Feature], scale: Scale) -> Vec<u64> {
    features.iter().map(|feature| feature.reach(scale.features)).collect()
}

/// The bits of the largest integer of a feature.
fn feature_bits(reaches: &[u64]) -> u32 {
    reaches.iter().max().unwrap_or(&1).next_power_of_two().ilog2()
}

fn weight_bits(weights: &[Vec<i64>]) -> u32 {
    let largest = weights.iter().flatten().map(|weight| weight.unsigned_abs()).max().unwrap_or(1);
    largest.max(1).next_power_of_two().ilog2()
}

/// More digits than this never cost less than a larger ring.
const MOST_DIGITS: usize = 5;

/// From so many weights on, one choice of m is tried.
const MANY_WEIGHTS: usize = 100_000;

/// The least k with 10^−k ≤ `precision`: publishing k decimals costs no more than half of it.
pub(super) fn decimals(precision: f64) -> Option<u32> {
    (0..=MAX_DECIMALS).find(|&k| 1.0 / power_of_ten(k) as f64 <= precision)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bound::StatedErrors;
    use crate::bundle::tests::uniform;
    use crate::description::tests::feature;

    /// Weights that look random in ±2·`size` and biases in ±`size`, of a model of that shape.
    fn folded(features: usize, logits: usize, size: f64) -> (FoldedModel, Vec<Feature>) {
        let number = |word: u64| word as i64 as f64 / i64::MAX as f64 * size;
        let weights: Vec<f64> = uniform(features * logits, 6).into_iter().map(|word| 2.0 * number(word)).collect();
        let folded = FoldedModel {
            weights: weights.chunks(features).map(<[f64]>::to_vec).collect(),
            biases: uniform(logits, 7).into_iter().map(number).collect(),
            errors: StatedErrors { export: 0.0, arithmetic: 1e-14 * size },
        };
        (folded, (0..features).map(|j| feature(&format!("x{j}"), -1.0, 1.0)).collect())
    }

    fn plan((folded, features): &(FoldedModel, Vec<Feature>), precision: f64) -> Result<Plan, ImportError> {
        Plan::new(folded, features, Wish { precision, distance: None })
    }

    #[test]
    fn every_precision_down_to_1e_9_is_kept() {
        for (features, logits, size) in
            [(4, 3, 1.0), (30, 1, 1.0), (64, 10, 0.3), (1, 2, 1e-9), (10, 5, 1e3), (2500, 2, 0.1)]
        {
            let model = folded(features, logits, size);
            for precision in [1e-1, 1e-3, 1e-5, 1e-6, 1e-9].map(|precision| precision * size.max(1.0)) {
                let plan = plan(&model, precision).unwrap();
                assert!(plan.bound <= precision, "{features}×{logits}");
                assert!(!plan.layouts.is_empty() && plan.cost > 0.0);
            }
        }
    }

    #[test]
    fn coarse_promises_are_intervals_and_fine_ones_exact() {
        let model = folded(4, 3, 3.0);
        assert!(!plan(&model, 1e-3).unwrap().scale.is_exact());
        let fine = plan(&model, 1e-6).unwrap();
        assert!(fine.scale.is_exact() && fine.limbs != Limbs::WHOLE, "{:?}", fine.limbs);
    }

    #[test]
    fn a_finer_promise_never_costs_less() {
        let model = folded(30, 2, 1.0);
        let costs = [1e-2, 1e-4, 1e-6, 1e-8].map(|precision| plan(&model, precision).unwrap().cost);
        assert!(costs.is_sorted(), "{costs:?}");
    }

    /// Pixels of 0 to 16 need five bits, whatever the precision.
    #[test]
    fn a_declared_grid_saves_digits() {
        let free = folded(64, 10, 0.3);
        let mut pixels = free.clone();
        pixels.1.iter_mut().for_each(|feature| feature.step = Some(0.125));
        let (free, pixels) = (plan(&free, 1e-7).unwrap(), plan(&pixels, 1e-7).unwrap());
        assert!(pixels.cost < free.cost, "{} {}", pixels.cost, free.cost);
        assert_eq!(pixels.limbs.features.count, 1);
    }

    #[test]
    fn a_reply_has_no_bit_too_many() {
        for precision in [1e-3, 1e-7] {
            let (folded, features) = folded(30, 2, 1.0);
            let Plan { model, scale, limbs, parameters, layouts, limit, .. } =
                Plan::new(&folded, &features, Wish { precision, distance: None }).unwrap();
            assert!(u128::from(limit) < crate::bound::LOGIT_ROOM);
            let reply = scale.reply - 1;
            let shape = Shape { parameters, features: 30, logits: 2, limbs, reply_bits: reply };
            let packings: Vec<_> = layouts.iter().map(|&layout| Packing::new(shape, layout).unwrap()).collect();
            let norms = Norms::new(&model, limbs, &reaches(&features, scale));
            let smaller = Scale { reply, ..scale };
            let noise = Noise::new(&norms, smaller, &packings);
            let ledger =
                ErrorLedger::new(&model, &features, smaller, &noise, decimals(precision).unwrap(), folded.errors);
            assert!(noise.limit(norms.largest(), smaller).is_err() || ledger.total() > precision);
        }
    }

    #[test]
    fn model_privacy_is_bought_with_digits() {
        let (folded, features) = folded(4, 3, 3.0);
        let asked = |distance| Plan::new(&folded, &features, Wish { precision: 1e-3, distance });
        let free = asked(None).unwrap();
        let dear = asked(Some(power_of_two(-30))).unwrap();
        assert!(dear.scale.is_exact() && dear.cost > free.cost);
        let ImportError::Distance { reachable: Some(reachable), .. } = asked(Some(power_of_two(-60))).unwrap_err()
        else {
            panic!("nothing hides a model so well");
        };
        assert!(asked(Some(reachable)).is_ok() && asked(Some(reachable / 2.0)).is_err(), "{reachable:e}");
        for distance in [0.0, 1.0, -1.0, f64::NAN] {
            assert_eq!(asked(Some(distance)).unwrap_err().code(), "no_distance");
        }
    }

    #[test]
    fn decimals_cost_at_most_half_the_precision() {
        for (precision, expected) in [(1e-3, 3), (9.9e-4, 4), (5e-2, 2), (1.0, 0), (1e6, 0), (1e-15, 15)] {
            assert_eq!(decimals(precision), Some(expected));
        }
        assert_eq!(decimals(9e-16), None);
    }

    /// What float32 has lost, no digits bring back.
    #[test]
    fn what_is_out_of_reach_is_refused_with_what_is_not() {
        let mut model = folded(64, 10, 0.3);
        model.0.errors.export = 3e-6;
        let error = plan(&model, 1e-6).unwrap_err();
        let ImportError::Precision { asked: 1e-6, reachable: Some(reachable), .. } = error else { panic!("{error}") };
        assert_eq!(reachable, 5e-6);
        assert!(plan(&model, reachable).is_ok());
        assert!(error.to_string().contains(&format!("{reachable:e}")));
    }

    #[test]
    fn a_precision_is_a_positive_number() {
        for precision in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(plan(&folded(4, 3, 1.0), precision).unwrap_err().code(), "no_precision");
        }
    }

    #[test]
    fn weights_of_zero_are_a_model_too() {
        let (mut model, features) = folded(4, 3, 1.0);
        model.weights = vec![vec![0.0; 4]; 3];
        for precision in [1e-3, 1e-8] {
            assert!(plan(&(model.clone(), features.clone()), precision).unwrap().bound <= precision);
        }
    }
}
