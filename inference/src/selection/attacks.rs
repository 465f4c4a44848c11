//! Attacks on trees and networks by their own clients, with and without each defence, as [`crate::attacks`] has them on linear
//! models. SECURITY.md says what follows.
//!
//! The client follows the protocol and knows its key. It looks for what replies say beside their logits: which path a tree
//! took, and at which thresholds it turns.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use super::Gadget;
use super::model::{Branch, Network, Neuron, Tree, Trees};
use super::noise::Noise;
use crate::bundle::Bundle;
use crate::bundle::tests::{chooser, uniform};
use crate::client::{Request, Session};
use crate::evaluator::{Defences, Evaluator, Scratch};
use crate::parameters::ParameterSet;
use crate::public_key::PublicKey;

/// Which defences are on.
#[derive(Clone, Copy, Debug)]
enum Defence {
    None,
    Rerandomised,
    /// And flooded by so many bits.
    Flooded(u32),
}

/// A client of a model, and the model.
struct Client {
    bundle: Bundle,
    evaluator: Evaluator,
    session: Session,
    key: PublicKey,
    scratch: Scratch,
}

impl Client {
    fn of(bundle: Bundle) -> Self {
        let (evaluator, session) = (Evaluator::new(&bundle), Session::new(bundle.description()));
        let key = PublicKey::from_bytes(session.public_key()).unwrap();
        Self { bundle, evaluator, session, key, scratch: Scratch::default() }
    }

    fn reply(&mut self, request: &Request, defence: Defence) -> Vec<u8> {
        let (key, flood) = match defence {
            Defence::None => (None, None),
            Defence::Rerandomised => (Some(&self.key), None),
            Defence::Flooded(bits) => (Some(&self.key), Some(bits)),
        };
        self.evaluator.evaluate_with(request.bytes(), Defences { key, flood }, &mut self.scratch).unwrap()
    }

    /// What a reply decrypts to, with its noise.
    fn decrypted(&mut self, request: &Request, reply: &[u8]) -> Vec<f64> {
        let shape = self.bundle.description().selection_shape().unwrap();
        let decrypted = self.session.decrypt_chosen(request, reply, &shape).unwrap();
        decrypted.iter().map(|&logit| logit as f64).collect()
    }

    /// How far the logits of some requests of the same row are off.
    fn errors(&mut self, row: &[f64], defence: Defence, requests: usize) -> Vec<f64> {
        let encoded = self.bundle.description().encode(&[row]).unwrap();
        let logits = self.evaluator.evaluate_clear(&encoded).remove(0);
        let mut errors = vec![];
        for _ in 0..requests {
            let request = self.session.encrypt(&[row]).unwrap();
            let reply = self.reply(&request, defence);
            let decrypted = self.decrypted(&request, &reply);
            errors.extend(decrypted.iter().zip(&logits).map(|(decrypted, &logit)| decrypted - logit as f64));
        }
        errors
    }

    /// How far the logits of replies are from those of another model's bare replies to the same requests: what is left if
    /// it is the same model is the defences alone.
    fn residuals(&mut self, other: &Evaluator, row: &[f64], defence: Defence, requests: usize) -> Vec<f64> {
        let mut residuals = vec![];
        for _ in 0..requests {
            let request = self.session.encrypt(&[row]).unwrap();
            let guessed = other.evaluate_bare(request.bytes(), &mut self.scratch).unwrap();
            let reply = self.reply(&request, defence);
            let (own, guessed) = (self.decrypted(&request, &reply), self.decrypted(&request, &guessed));
            residuals.extend(own.iter().zip(guessed).map(|(own, guessed)| own - guessed));
        }
        residuals
    }

    /// The statistical distance that is promised of one output that is flooded by so many bits.
    fn promised(&self, flood: u32) -> f64 {
        let description = self.bundle.description();
        let (shape, selection) = (description.selection_shape().unwrap(), description.selection().unwrap());
        let noise = Noise::new(&shape, self.bundle.chooses().depths(&selection.ranges()), flood);
        noise.distance(&shape) / shape.outputs() as f64
    }

    /// The bits of the noise that is promised not to be exceeded in the mean.
    fn noise_bits(&self) -> u32 {
        (self.promised(0) * 2.0).log2().ceil() as u32
    }
}

/// Each logit is a sample of the noise.
const LOGITS: usize = 500;

/// The first gadget that is planned with.
const GADGET: Gadget = Gadget { base: 23, levels: 1 };

/// A tree with one question after another, which ends where an answer is no. The first and the last of its leaves are the
/// same, so that logits do not tell a path of one step from one of all.
fn ladder(depth: usize, gadget: Gadget) -> Bundle {
    let mut leaves: Vec<Vec<i64>> = (0..=depth).map(|leaf| summands(leaf as u8)).collect();
    leaves[depth] = leaves[0].clone();
    let branches = (0..depth).map(|feature| {
        let above = if feature + 1 < depth { feature + 1 } else { 2 * depth };
        Branch { feature, level: 1, below: depth + feature, above }
    });
    of_trees(Tree { branches: branches.collect(), leaves }, gadget, &vec![1; depth])
}

/// Rows that take the path of one step, and that of eight.
const SHALLOW: [f64; 8] = [-1.0; 8];
const DEEP: [f64; 8] = [1.0; 8];

/// A tree of one question, with the threshold at that one of sixteen levels.
fn stump(level: u64) -> Bundle {
    let branch = Branch { feature: 0, level, below: 1, above: 2 };
    of_trees(Tree { branches: vec![branch], leaves: vec![summands(1), summands(2)] }, GADGET, &[4])
}

/// Below every threshold that is tried.
const BELOW: [f64; 1] = [-1.0];

/// A table with a place for each of four levels.
fn neuron() -> Bundle {
    let table = (0..4).flat_map(summands).collect();
    let network = Network { base: vec![0; LOGITS], neurons: vec![Neuron { start: 0, table, turns: vec![1, 2] }] };
    chooser(ParameterSet::N2048TUniform17, GADGET, network, &[2])
}

fn of_trees(tree: Tree, gadget: Gadget, bits: &[u32]) -> Bundle {
    let trees = Trees { base: vec![0; LOGITS], trees: vec![tree] };
    chooser(ParameterSet::K4N512TUniform17, gadget, trees, bits)
}

fn summands(seed: u8) -> Vec<i64> {
    uniform(LOGITS, seed).into_iter().map(|word| (word >> 8) as i64 % 2000 - 1000).collect()
}

fn mean_square(samples: &[f64]) -> f64 {
    samples.iter().map(|sample| sample * sample).sum::<f64>() / samples.len() as f64
}

/// The Kolmogorov–Smirnov distance of samples from the flood alone, which is no more than their statistical distance, but
/// for [`sampling`].
fn from_flood(mut samples: Vec<f64>, flood: u32) -> f64 {
    samples.sort_by(f64::total_cmp);
    let (count, end) = (samples.len() as f64, f64::from(flood).exp2());
    let expected = |sample: f64| ((sample + end) / (2.0 * end)).clamp(0.0, 1.0);
    let off = |(index, &sample): (usize, &f64)| {
        let (before, after) = (index as f64 / count, (index + 1) as f64 / count);
        (expected(sample) - before).abs().max((after - expected(sample)).abs())
    };
    samples.iter().enumerate().map(off).fold(0.0, f64::max)
}

/// What the distance of so many samples is beyond their distribution's at most, but for once in 10^9 runs: 2·exp(−2nt²)
/// bounds the probability of t (Massart, Annals of Probability 1990).
fn sampling(count: usize) -> f64 {
    (2e9_f64.ln() / (2.0 * count as f64)).sqrt()
}

/// A long path has the noise of more products than a short one: replies to the same logits tell them apart, made anew or
/// not.
#[test]
fn paths_show_in_replies_that_are_not_flooded() {
    let mut client = Client::of(ladder(8, GADGET));
    for defence in [Defence::None, Defence::Rerandomised] {
        let [deep, shallow] = [DEEP, SHALLOW].map(|row| mean_square(&client.errors(&row, defence, 4)));
        assert!(deep > 3.0 * shallow, "{defence:?}: {deep:e} and {shallow:e}");
    }
}

/// Flooded by seven bits more than the noise has, both paths are alike to the variance of 20000 samples, where an addition
/// of a tenth would be seen.
#[test]
fn paths_do_not_show_in_flooded_replies() {
    let mut client = Client::of(ladder(8, GADGET));
    let flood = client.noise_bits() + 7;
    let [deep, shallow] = [DEEP, SHALLOW].map(|row| client.errors(&row, Defence::Flooded(flood), 40));
    let looks_alike = |one: &[f64], other: &[f64]| (mean_square(one) / mean_square(other) - 1.0).abs() < 0.06;
    assert!(looks_alike(&deep, &shallow), "{:e} and {:e}", mean_square(&deep), mean_square(&shallow));
    let louder: Vec<f64> = deep.iter().map(|error| 1.1 * error).collect();
    assert!(!looks_alike(&louder, &shallow));
}

/// The number that is promised of a model bounds what can be measured of its replies, whatever the flood; where the flood is
/// no wider than the noise, the measurement sees that it is not alone.
#[test]
fn flooded_noise_is_no_farther_from_the_flood_alone_than_is_promised() {
    for (bundle, rows) in [(ladder(8, GADGET), vec![DEEP.to_vec(), SHALLOW.to_vec()]), (neuron(), vec![vec![1.0]])] {
        let mut client = Client::of(bundle);
        for (row, more) in rows.iter().flat_map(|row| [0, 2, 5].map(|more| (row, more))) {
            let flood = client.noise_bits() + more;
            let errors = client.errors(row, Defence::Flooded(flood), 40);
            let (promised, sampling) = (client.promised(flood), sampling(errors.len()));
            let measured = from_flood(errors, flood);
            assert!(measured <= promised + sampling, "{row:?}: {measured} of {promised} and {sampling}");
            // The short path has less noise than the flood even so.
            assert!(more > 0 || measured > sampling || row[..] == SHALLOW, "{row:?}: {measured}");
        }
    }
}

/// An evaluation repeats itself: a client that guesses a threshold sees in the mask whether it is the model's, although the
/// logits are the same.
#[test]
fn a_bare_reply_says_which_threshold_a_tree_has() {
    let mut client = Client::of(stump(11));
    let request = client.session.encrypt(&[BELOW]).unwrap();
    let reply = client.reply(&request, Defence::None);
    for level in 8..16 {
        let guessed = Evaluator::new(&stump(level)).evaluate_bare(request.bytes(), &mut Scratch::default()).unwrap();
        assert_eq!(guessed == reply, level == 11, "{level}");
    }
}

/// Made anew, a reply has another mask; its noise is that of the right guess all the same, to a thousandth.
#[test]
fn a_rerandomised_reply_still_says_which_threshold_a_tree_has() {
    let mut client = Client::of(stump(11));
    let [right, wrong] = [11, 13].map(|level| {
        mean_square(&client.residuals(&Evaluator::new(&stump(level)), &BELOW, Defence::Rerandomised, 2)).sqrt()
    });
    assert!(wrong > 1000.0 * right, "{wrong:e} and {right:e}");
}

/// Flooded, it fits the wrong guess as well as the right one.
#[test]
fn a_flooded_reply_does_not_say_which_threshold_a_tree_has() {
    let mut client = Client::of(stump(11));
    let flood = client.noise_bits() + 7;
    let [right, wrong] = [11, 13].map(|level| {
        let residuals = client.residuals(&Evaluator::new(&stump(level)), &BELOW, Defence::Flooded(flood), 40);
        let sampling = sampling(residuals.len());
        (from_flood(residuals, flood), client.promised(flood) + sampling)
    });
    for (measured, most) in [right, wrong] {
        assert!(measured <= most, "{right:?} and {wrong:?}");
    }
}

/// Products on the longest of paths add up as they should, and no rounding leans to one side: that would add up with the
/// secret, step by step.
#[test]
fn the_longest_path_has_no_more_noise_than_is_promised() {
    for (base, levels) in [(23, 1), (16, 2), (12, 3), (10, 4)] {
        let mut client = Client::of(ladder(64, Gadget { base, levels }));
        let promised = client.promised(0) * 2.0;
        let measured = mean_square(&client.errors(&[1.0; 64], Defence::None, 1)).sqrt();
        assert!(measured <= promised, "{base} bits, {levels} levels: {measured:e} of {promised:e}");
    }
}
