//! The secret key S of a session, and products with it.

use std::fmt;

use zeroize::Zeroizing;

use super::random;
use crate::parameters::ParameterSet;
use crate::ring::{continue_below_zero, correlate};

/// A uniform binary secret of N coefficients. It cannot be copied, written or printed, and is erased when dropped.
pub(crate) struct SecretKey {
    /// S, highest coefficient first as [`correlate`] takes it, each 0 or 2^64 − 1 so that a product is an AND.
    words: Zeroizing<Vec<u64>>,
}

impl SecretKey {
    /// N bits of the operating system's randomness. No generator stands between that could be found in memory later.
    pub(crate) fn generate(parameters: ParameterSet) -> Self {
        let degree = parameters.polynomial_size().0;
        let mut bytes = Zeroizing::new(vec![0u8; degree / 8]);
        random::fill(&mut bytes);
        let mut words = Zeroizing::new(Vec::with_capacity(degree));
        words.extend((0..degree).map(|index| u64::from(bytes[index / 8] >> (index % 8) & 1).wrapping_neg()));
        Self { words }
    }

    /// `out` ← the coefficients `first`, `first` + 1, … of a·S, in a time that depends on none of the key's bits.
    pub(crate) fn multiply(&self, mask: &ContinuedMask, first: usize, out: &mut [u64]) {
        correlate(&mask.0[first..], &self.words, out, |x, s| x & s);
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

/// A mask a, continued to its coefficients −(N − 1) … N − 1.
pub(crate) struct ContinuedMask(Vec<u64>);

impl ContinuedMask {
    /// `fill` writes the N coefficients of a.
    pub(crate) fn new(parameters: ParameterSet, fill: impl FnOnce(&mut [u64])) -> Self {
        let degree = parameters.polynomial_size().0;
        let mut coefficients = vec![0; 2 * degree - 1];
        fill(&mut coefficients[degree - 1..]);
        continue_below_zero(&mut coefficients, degree - 1);
        Self(coefficients)
    }
}

#[cfg(test)]
impl SecretKey {
    /// The same key as tfhe has it.
    pub(crate) fn to_tfhe(&self) -> tfhe::core_crypto::prelude::GlweSecretKeyOwned<u64> {
        let bits = self.words.iter().rev().map(|word| word & 1).collect::<Vec<_>>();
        let size = tfhe::core_crypto::prelude::PolynomialSize(bits.len());
        tfhe::core_crypto::prelude::GlweSecretKey::from_container(bits, size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_binary_balanced_and_fresh() {
        let generate = || SecretKey::generate(ParameterSet::N2048TUniform17);
        let (one, other) = (generate(), generate());
        assert!(one.words.iter().all(|&word| word == 0 || word == u64::MAX));
        let weight = one.words.iter().filter(|&&word| word != 0).count();
        assert!((800..1250).contains(&weight), "{weight} ones among 2048 are ten standard deviations off");
        assert_ne!(*one.words, *other.words);
    }

    #[test]
    fn a_key_is_never_printed() {
        let key = SecretKey::generate(ParameterSet::N2048TUniform17);
        assert_eq!(format!("{key:?}"), "SecretKey(…)");
    }
}
