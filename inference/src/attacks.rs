//! Attacks on a model by its own client, with and without each defence, and what each yields. SECURITY.md says what
//! follows.
//!
//! The client follows the protocol, keeps all that it knows (its key, its noise, its masks), and looks at one reply. Of
//! replies all but the last bits are kept here, so that the modulus switch hides nothing that the defences should.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use crate::bundle::Bundle;
use crate::bundle::tests::{attacked_sample, uniform};
use crate::client::{Request, Session};
use crate::evaluator::{Defences, Evaluator, Scratch};
use crate::packing::Packing;
use crate::public_key::PublicKey;

/// A client of a model, with the answer to one request.
struct Client {
    bundle: Bundle,
    session: Session,
    request: Request,
    rows: Vec<Vec<f64>>,
    reply: Vec<u8>,
}

/// Which defences are on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Defence {
    None,
    Rerandomised,
    RerandomisedAndFlooded,
}

impl Client {
    fn of(bundle: Bundle, count: usize, defence: Defence) -> Self {
        let features = bundle.description().features().len();
        let values = uniform(count * features, 11).into_iter().map(|word| word as i64 as f64 / i64::MAX as f64);
        let rows: Vec<Vec<f64>> = values.collect::<Vec<_>>().chunks(features).map(<[f64]>::to_vec).collect();
        let mut session = Session::new(bundle.description());
        let (request, key) = (session.encrypt(&rows).unwrap(), PublicKey::from_bytes(session.public_key()).unwrap());
        let defences = Defences {
            key: (defence != Defence::None).then_some(&key),
            flood: (defence == Defence::RerandomisedAndFlooded).then_some(bundle.description().scale().flood),
        };
        let evaluator = Evaluator::new(&bundle);
        let reply = evaluator.evaluate_with(request.bytes(), defences, &mut Scratch::default()).unwrap();
        Self { bundle, session, request, rows, reply }
    }

    fn packing(&self) -> Packing {
        *self.bundle.description().packing_for(self.rows.len()).1
    }

    /// For a group of outputs the digits of their weights as one polynomial has them, highest coefficient first: what the
    /// attacker is after.
    fn taps(&self, group: usize) -> Vec<i64> {
        let (packing, model) = (self.packing(), self.bundle.linear());
        let digits: Vec<Vec<i64>> = model.outputs(packing.shape.limbs.weights).collect();
        let outputs = &digits[packing.outputs_of(group)];
        let feature = |j: usize| (0..packing.kappa()).rev().map(move |c| outputs.get(c).map_or(0, |digits| digits[j]));
        (0..packing.shape.features).flat_map(feature).collect()
    }
}

/// The mask of a bare reply is W·a for a mask a that the client made: its coefficients, known up to their last bits, are
/// linear equations for the weights, and lattice reduction solves them.
#[test]
fn a_bare_replys_mask_gives_every_weight_away() {
    let mut client = Client::of(attacked_sample(2, 1), 1, Defence::None);
    assert_eq!(weights_from_mask(&mut client), client.taps(0));
}

/// The same equations, for a reply that was made anew: the attack finds other weights, because not even the true ones
/// fulfil them.
#[test]
fn a_rerandomised_replys_mask_says_nothing() {
    let mut client = Client::of(attacked_sample(2, 1), 1, Defence::Rerandomised);
    assert_ne!(weights_from_mask(&mut client), client.taps(0));
    let (taps, mask) = (client.taps(0), client.session.masks_of(&client.request).remove(0));
    let reply = client.session.masks_of_reply(&client.request, &client.reply);
    let residuals: Vec<u64> = (taps.len()..mask.len())
        .map(|i| {
            let explained = (0..taps.len()).map(|t| mask[i + 1 + t - taps.len()].wrapping_mul(taps[t] as u64));
            reply[i].wrapping_sub(explained.fold(0, u64::wrapping_add))
        })
        .collect();
    // Of uniform words a quarter has each of the two leading bits; 2042 of them are within ten standard deviations.
    let mut quarters = [0; 4];
    residuals.iter().for_each(|residual| quarters[(residual >> 62) as usize] += 1);
    assert!(quarters.iter().all(|count| (310..710).contains(count)), "{quarters:?}");
}

/// The bodies of a bare reply hold the client's own noise, weighted: 80 rows are enough to solve for every weight.
#[test]
fn bare_bodies_give_every_weight_away() {
    let error = rms_error_from_bodies(Defence::None);
    assert!(error < 0.5, "{error}: rounding to integers gives the weights");
}

/// Re-randomisation hides the mask, and the bodies not well enough: the estimates are off by a few of 64.
#[test]
fn rerandomised_bodies_still_give_weights_away_roughly() {
    let error = rms_error_from_bodies(Defence::Rerandomised);
    assert!((0.5..20.0).contains(&error), "{error}");
}

/// Flooded as well, they yield estimates that are off by a thousand times the largest weight. One session's error varies by a
/// tenth or more, that of eight by a few hundredths.
#[test]
fn flooded_bodies_give_nothing_away() {
    let squares = (0..8).map(|_| rms_error_from_bodies(Defence::RerandomisedAndFlooded).powi(2));
    let error = f64::sqrt(squares.sum::<f64>() / 8.0);
    assert!(error > 64_000.0, "{error}");
}

/// No defence hides what the logits themselves say: d + 1 rows are as many equations as a class has unknowns. Only a budget
/// of logits stands against it.
#[test]
fn a_few_logits_give_every_weight_away_whatever_the_defences() {
    let mut client = Client::of(attacked_sample(4, 3), 5, Defence::RerandomisedAndFlooded);
    let published = client.session.decrypt(&client.request, &client.reply).unwrap();
    let (scale, model) = (client.bundle.description().scale(), client.bundle.linear());
    // Features lie in ±1, so that a weight's integer ω stands for ω·M·2^−s.
    let per_integer = scale.unit() * f64::from(1 << scale.features);
    for (class, weights) in model.weights.iter().enumerate() {
        let mut equations = Equations::of(weights.len() + 1);
        for (row, logits) in client.rows.iter().zip(&published) {
            equations.add(&[&row[..], &[1.0]].concat(), logits[class]);
        }
        for (found, &weight) in equations.solve().into_iter().zip(weights) {
            assert!((found - weight as f64 * per_integer).abs() < 20.0 * client.bundle.bound(), "{found} for {weight}");
        }
    }
}

/// The weights that fulfil a' = W·a best, for the mask a that was sent and the mask a' that came back.
///
/// Of the rows (unit vector scaled, coefficients of a), (0, 2^64) and (constant, coefficients of −a'), an integer
/// combination is short if it is the weights': it leaves nothing of the coefficients but their rounding.
fn weights_from_mask(client: &mut Client) -> Vec<i64> {
    let (unknowns, equations) = (client.taps(0).len(), 2 * client.taps(0).len());
    let mask = client.session.masks_of(&client.request).remove(0);
    let reply = client.session.masks_of_reply(&client.request, &client.reply);
    let columns = unknowns + equations + 1;
    let row = |entries: Vec<(usize, i128)>| {
        let mut row = vec![0; columns];
        entries.into_iter().for_each(|(column, entry)| row[column] = entry);
        row
    };
    // Digits are below 2^7 and roundings of 56 bits are 2^7: a scale of 1 makes both alike.
    let at = |equation: usize| 100 + 3 * equation;
    let mut basis: Vec<Vec<i128>> = vec![];
    for t in 0..unknowns {
        let coefficients = (0..equations).map(|k| (unknowns + k, i128::from(mask[at(k) + 1 + t - unknowns])));
        basis.push(row(coefficients.chain([(t, 1)]).collect()));
    }
    basis.extend((0..equations).map(|k| row(vec![(unknowns + k, 1 << 64)])));
    let target = (0..equations).map(|k| (unknowns + k, -i128::from(reply[at(k)])));
    basis.push(row(target.chain([(columns - 1, 1 << 7)]).collect()));
    reduce(&mut basis);
    let found = basis.iter().filter(|row| row[columns - 1] != 0).min_by_key(|row| row.iter().map(|x| x.abs()).max());
    let found = found.expect("the rows span the last column");
    let sign = found[columns - 1].signum();
    found[..unknowns].iter().map(|&x| (x * sign) as i64).collect()
}

/// Lenstra, Lenstra and Lovász's reduction (1982) with δ = 3/4: integers exact, orthogonalisation in float64.
fn reduce(basis: &mut [Vec<i128>]) {
    let mut k = 1;
    while k < basis.len() {
        for j in (0..k).rev() {
            let factor = orthogonal(basis, k).1[j].round() as i128;
            let (lower, upper) = basis.split_at_mut(k);
            upper[0].iter_mut().zip(&lower[j]).for_each(|(x, y)| *x -= factor * y);
        }
        let (norms, factors) = orthogonal(basis, k);
        if norms[k] >= (0.75 - factors[k - 1] * factors[k - 1]) * norms[k - 1] {
            k += 1;
        } else {
            basis.swap(k, k - 1);
            k = (k - 1).max(1);
        }
    }
}

/// Squared norms of the first k + 1 orthogonalised rows, and the factors of row k.
fn orthogonal(basis: &[Vec<i128>], k: usize) -> (Vec<f64>, Vec<f64>) {
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let (mut rows, mut norms, mut factors): (Vec<Vec<f64>>, Vec<f64>, Vec<f64>) = (vec![], vec![], vec![]);
    for row in &basis[..=k] {
        let row: Vec<f64> = row.iter().map(|&x| x as f64).collect();
        let mut rest = row.clone();
        factors = rows.iter().zip(&norms).map(|(other, norm)| dot(&row, other) / norm).collect();
        for (other, factor) in rows.iter().zip(&factors) {
            rest.iter_mut().zip(other).for_each(|(x, y)| *x -= factor * y);
        }
        norms.push(dot(&rest, &rest).max(f64::MIN_POSITIVE));
        rows.push(rest);
    }
    (norms, factors)
}

/// How far off the weights are, in the mean, that fit the noise of 80 rows' outputs best, by least squares: each output
/// deviates from its integer logit by the client's noise times the weights.
fn rms_error_from_bodies(defence: Defence) -> f64 {
    let mut client = Client::of(attacked_sample(4, 3), 80, defence);
    let (packing, shift) = (client.packing(), client.bundle.description().scale().shift);
    let noise = client.session.noise_of(&client.request, &client.rows).remove(0);
    let outputs = client.session.decrypt_outputs(&client.request, &client.reply).unwrap();
    let (rows, all) = (packing.limb_rows(client.rows.len()), packing.shape.outputs());
    let mut squares = (0.0, 0.0);
    for group in 0..packing.groups() {
        let truth = client.taps(group);
        let mut equations = Equations::of(truth.len());
        for (row, output) in (0..rows).flat_map(|row| packing.outputs_of(group).map(move |output| (row, output))) {
            let phase = outputs[row * all + output];
            let rounded = (phase + (1 << (shift - 1))) >> shift << shift;
            let from = row * packing.stride() + output - group * packing.kappa();
            let window: Vec<f64> = (from..from + truth.len()).map(|index| noise[index] as f64).collect();
            equations.add(&window, (phase - rounded) as f64);
        }
        for (found, truth) in equations.solve().into_iter().zip(truth) {
            squares = (squares.0 + (found - truth as f64).powi(2), squares.1 + 1.0);
        }
    }
    f64::sqrt(squares.0 / squares.1)
}

/// Normal equations of a least-squares fit.
struct Equations {
    matrix: Vec<Vec<f64>>,
}

impl Equations {
    fn of(unknowns: usize) -> Self {
        Self { matrix: vec![vec![0.0; unknowns + 1]; unknowns] }
    }

    fn add(&mut self, factors: &[f64], value: f64) {
        for (row, factor) in self.matrix.iter_mut().zip(factors) {
            row.iter_mut().zip(factors.iter().chain([&value])).for_each(|(sum, other)| *sum += factor * other);
        }
    }

    /// Gauss's elimination, with the largest pivot.
    fn solve(mut self) -> Vec<f64> {
        let matrix = &mut self.matrix;
        for k in 0..matrix.len() {
            let pivot = (k..matrix.len()).max_by(|&i, &j| matrix[i][k].abs().total_cmp(&matrix[j][k].abs())).unwrap();
            matrix.swap(k, pivot);
            let row = matrix[k].clone();
            for (index, other) in matrix.iter_mut().enumerate().filter(|(index, _)| *index != k) {
                let factor = other[k] / row[k];
                assert!(factor.is_finite(), "row {index} is solvable");
                other.iter_mut().zip(&row).for_each(|(x, y)| *x -= factor * y);
            }
        }
        matrix.iter().enumerate().map(|(k, row)| row[row.len() - 1] / row[k]).collect()
    }
}
