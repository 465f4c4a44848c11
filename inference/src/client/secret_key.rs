//! The secret key S of a session, and products with it.

use std::fmt;

use zeroize::Zeroizing;

use crate::binary::{Binary, Buffers, Factor};
use crate::parameters::ParameterSet;
use crate::random;

/// A uniform binary secret: k polynomials of N coefficients. It cannot be copied, written or printed, and is erased when
/// dropped.
pub(crate) struct SecretKey(Vec<Binary>);

impl SecretKey {
    /// k·N bits of the operating system's randomness. No generator stands between that could be found in memory later.
    pub(crate) fn generate(parameters: ParameterSet) -> Self {
        let mut bytes = Zeroizing::new(vec![0u8; parameters.mask_len() / 8]);
        random::fill(&mut bytes);
        let polynomial = |bytes: &[u8]| {
            Binary::new(parameters, |words| {
                for (index, word) in words.iter_mut().enumerate() {
                    *word = u64::from(bytes[index / 8] >> (index % 8) & 1).wrapping_neg();
                }
            })
        };
        Self(bytes.chunks(parameters.degree() / 8).map(polynomial).collect())
    }

    /// As [`Binary::multiply`].
    pub(crate) fn multiply(&self, mask: &[Factor], first: usize, out: &mut [u64], buffers: &mut Buffers) {
        Binary::multiply(&self.0, mask, first, out, buffers);
    }

    /// Its polynomials.
    pub(crate) fn polynomials(&self) -> &[Binary] {
        &self.0
    }

    /// As [`Binary::multiply_rows`].
    pub(crate) fn multiply_rows(
        &self,
        mask: &[Factor],
        first: usize,
        rows: (usize, usize),
        out: &mut [u64],
        buffers: &mut Buffers,
    ) {
        Binary::multiply_rows(&self.0, mask, first, rows, out, buffers);
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

#[cfg(test)]
impl SecretKey {
    /// The same key as tfhe has it.
    pub(crate) fn to_tfhe(&self) -> tfhe::core_crypto::prelude::GlweSecretKeyOwned<u64> {
        let size = tfhe::core_crypto::prelude::PolynomialSize(self.0[0].bits().len());
        let bits: Vec<u64> = self.0.iter().flat_map(Binary::bits).collect();
        tfhe::core_crypto::prelude::GlweSecretKey::from_container(bits, size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_bits_and_no_two_are_equal() {
        for set in ParameterSet::ALL {
            let (one, other) = (SecretKey::generate(set), SecretKey::generate(set));
            let bits = |key: &SecretKey| key.0.iter().flat_map(Binary::bits).collect::<Vec<_>>();
            let (one, other) = (bits(&one), bits(&other));
            assert_eq!(one.len(), set.mask_len());
            assert!(one.iter().all(|&bit| bit <= 1));
            let ones = one.iter().sum::<u64>() as usize;
            // Twelve standard deviations of 2048 bits.
            assert!(ones.abs_diff(set.mask_len() / 2) < 12 * 32, "{ones}");
            assert_ne!(one, other);
        }
    }

    #[test]
    fn it_does_not_print() {
        assert_eq!(format!("{:?}", SecretKey::generate(ParameterSet::N2048TUniform17)), "SecretKey(…)");
    }
}
