//! Everything that is drawn: keys and seeds from the operating system, noise from a keystream under such a seed.

use tfhe::core_crypto::prelude::TUniform;
use zeroize::Zeroizing;

use crate::mask::{Keystream, SEED_LEN};

/// Fills `bytes` from the operating system.
///
/// # Panics
///
/// If it has no randomness to give.
pub(crate) fn fill(bytes: &mut [u8]) {
    getrandom::getrandom(bytes).expect("the operating system gives random bytes");
}

/// 32 bytes that were never used before.
pub(crate) fn seed() -> [u8; SEED_LEN] {
    let mut seed = [0; SEED_LEN];
    fill(&mut seed);
    seed
}

/// A generator of noise: AES-256-CTR under a key from the operating system. Its state is erased when dropped.
pub(crate) struct Noise {
    stream: Keystream,
    words: Zeroizing<Vec<u64>>,
}

impl Noise {
    pub(crate) fn new() -> Self {
        Self { stream: Keystream::new(&Zeroizing::new(seed())), words: Zeroizing::default() }
    }

    fn words(&mut self, count: usize) -> &[u64] {
        self.words.resize(count, 0);
        self.stream.fill(&mut self.words);
        &self.words
    }

    /// Adds an independent sample of TUniform(t) to each coefficient: uniform on −2^t … 2^t, the two ends with half the
    /// weight (tfhe-rs, `TUniform`). Of t + 2 uniform bits r it is ⌊(r + 1)/2⌋ − 2^t.
    pub(crate) fn add_t_uniform(&mut self, distribution: TUniform<u64>, coefficients: &mut [u64]) {
        let (t, mask) = (distribution.bound_log2(), (1 << (distribution.bound_log2() + 2)) - 1);
        let words = self.words(coefficients.len().div_ceil(2));
        let sample = |half: u64| (((half & mask) + 1) >> 1).wrapping_sub(1 << t);
        let (pairs, last) = coefficients.as_chunks_mut::<2>();
        for (pair, word) in pairs.iter_mut().zip(words) {
            *pair = [pair[0].wrapping_add(sample(*word)), pair[1].wrapping_add(sample(word >> 32))];
        }
        for (coefficient, word) in last.iter_mut().zip(words.last()) {
            *coefficient = coefficient.wrapping_add(sample(*word));
        }
    }

    /// Adds to each coefficient an independent and uniform integer of −2^`bits` … 2^`bits` − 1.
    pub(crate) fn add_flood(&mut self, bits: u32, coefficients: &mut [u64]) {
        let words = self.words(coefficients.len());
        for (coefficient, word) in coefficients.iter_mut().zip(words) {
            *coefficient = coefficient.wrapping_add(word >> (63 - bits)).wrapping_sub(1 << bits);
        }
    }

    /// `out` ← independent and uniform bits, each 0 or 2^64 − 1.
    pub(crate) fn fill_bits(&mut self, out: &mut [u64]) {
        let words = self.words(out.len().div_ceil(64));
        for (index, out) in out.iter_mut().enumerate() {
            *out = (words[index / 64] >> (index % 64) & 1).wrapping_neg();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every value within the bounds comes up, none beyond, and the ends half as often as the others.
    #[test]
    fn noise_is_t_uniform() {
        let mut counts = [0u32; 9];
        let mut samples = vec![0; 99_999];
        Noise::new().add_t_uniform(TUniform::new(2), &mut samples);
        for sample in samples {
            counts[(sample as i64 + 4) as usize] += 1;
        }
        let expected = 99_999.0 / 8.0;
        for (value, count) in counts.into_iter().enumerate() {
            let expected = if value % 8 == 0 { expected / 2.0 } else { expected };
            // Eight standard deviations: once in 10^15 runs.
            assert!((f64::from(count) - expected).abs() < 8.0 * expected.sqrt(), "{value}: {count}");
        }
    }

    #[test]
    fn a_flood_fills_its_interval() {
        for bits in [0, 5, 40, 62] {
            let mut samples = vec![0; 4096];
            Noise::new().add_flood(bits, &mut samples);
            let (least, most) = (samples.iter().map(|&x| x as i64).min(), samples.iter().map(|&x| x as i64).max());
            let end = 1i64 << bits;
            assert!((-end..-end / 2 - end % 2).contains(&least.unwrap()) || bits == 0, "{least:?}");
            assert!((end / 2..end).contains(&most.unwrap()) || bits == 0, "{most:?}");
            assert!(bits > 0 || (least, most) == (Some(-1), Some(0)));
        }
    }

    #[test]
    fn bits_are_words_of_zeros_or_ones() {
        let mut bits = vec![7; 1000];
        Noise::new().fill_bits(&mut bits);
        let ones = bits.iter().filter(|&&bit| bit == u64::MAX).count();
        assert!(bits.iter().all(|&bit| bit == 0 || bit == u64::MAX) && (300..700).contains(&ones));
    }

    #[test]
    fn no_two_generators_agree() {
        let draw = || {
            let mut samples = vec![0; 32];
            Noise::new().add_flood(60, &mut samples);
            samples
        };
        assert_ne!(draw(), draw());
    }
}
