//! The cryptographic parameters, by name.

use std::fmt;

use serde::{Deserialize, Serialize};
use tfhe::core_crypto::prelude::{GlweDimension, PolynomialSize, TUniform};

/// A reviewed choice of ring, secret and noise: R = Z_q\[X\]/(X^N + 1) with q = 2^64, GLWE dimension k and a uniform
/// binary secret of k·N coefficients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ParameterSet {
    /// N = 2048, noise TUniform(17): 128 bits of security, as tfhe-rs states for its parameters.
    ///
    /// These are the GLWE parameters of tfhe-rs 1.8's `V1_8_PARAM_MESSAGE_2_CARRY_2_KS_PBS_TUNIFORM_2M128` (defined in
    /// `src/shortint/parameters/v1_4/classic/tuniform/p_fail_2_minus_128/ks_pbs.rs`), unchanged. The level is theirs, and
    /// not estimated anew here; to do so with the [lattice estimator](https://github.com/malb/lattice-estimator):
    ///
    /// ```python
    /// LWE.estimate(LWE.Parameters(n=2048, q=2**64, Xs=ND.Uniform(0, 1), Xe=ND.Uniform(-2**17, 2**17)))
    /// ```
    #[serde(rename = "n2048-tuniform17")]
    N2048TUniform17,
    /// N = 4096, noise TUniform(3): beyond 128 bits of security, for the noise is that of tfhe-rs at least.
    ///
    /// For this degree tfhe-rs has noise of standard deviation 2^−62·q = 4 (`v0_11/classic/gaussian/p_fail_2_minus_64/ks_pbs.rs`),
    /// its floor for every degree from 4096 on; that of TUniform(3), its floor in later versions, is 4.6. The Homomorphic
    /// Encryption Standard (2018, table 1) allows moduli of up to 109 bits for this degree, noise of 3.2 and 128 bits; q has 64.
    #[serde(rename = "n4096-tuniform3")]
    N4096TUniform3,
    /// k = 4, N = 512, noise TUniform(17): for what is evaluated by external products, which cost less in smaller rings.
    ///
    /// The secret has as many coefficients and the noise is the same as in [`N2048TUniform17`](Self::N2048TUniform17), and so
    /// is the level of security that the lattice estimator gives: it looks at k·N and knows no attack that a smaller ring
    /// makes better.
    #[serde(rename = "k4-n512-tuniform17")]
    K4N512TUniform17,
}

impl ParameterSet {
    /// Every set, in the order of [`id`](Self::id).
    pub const ALL: [Self; 3] = [Self::N2048TUniform17, Self::N4096TUniform3, Self::K4N512TUniform17];

    /// Those of linear models, with k = 1.
    #[cfg(feature = "import")]
    pub(crate) const LINEAR: [Self; 2] = [Self::N2048TUniform17, Self::N4096TUniform3];

    /// The byte that stands for the set in messages.
    pub const fn id(self) -> u8 {
        match self {
            Self::N2048TUniform17 => 1,
            Self::N4096TUniform3 => 2,
            Self::K4N512TUniform17 => 3,
        }
    }

    /// The text that stands for the set in descriptions and receipts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::N2048TUniform17 => "n2048-tuniform17",
            Self::N4096TUniform3 => "n4096-tuniform3",
            Self::K4N512TUniform17 => "k4-n512-tuniform17",
        }
    }

    /// The set of that [`name`](Self::name), if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.name() == name)
    }

    /// N, the degree of the ring.
    pub const fn polynomial_size(self) -> PolynomialSize {
        match self {
            Self::N2048TUniform17 => PolynomialSize(2048),
            Self::N4096TUniform3 => PolynomialSize(4096),
            Self::K4N512TUniform17 => PolynomialSize(512),
        }
    }

    /// The distribution of an encryption's noise. It is bounded, which is what makes every bound here a certainty.
    pub const fn noise(self) -> TUniform<u64> {
        match self {
            Self::N2048TUniform17 | Self::K4N512TUniform17 => TUniform::new(17),
            Self::N4096TUniform3 => TUniform::new(3),
        }
    }

    /// k, the polynomials of a secret key and of a ciphertext's mask.
    pub const fn glwe_dimension(self) -> GlweDimension {
        match self {
            Self::N2048TUniform17 | Self::N4096TUniform3 => GlweDimension(1),
            Self::K4N512TUniform17 => GlweDimension(4),
        }
    }

    /// N.
    pub(crate) const fn degree(self) -> usize {
        self.polynomial_size().0
    }

    /// k.
    pub(crate) const fn dimension(self) -> usize {
        self.glwe_dimension().0
    }

    /// k·N, the coefficients of a secret key and of a mask.
    pub(crate) const fn mask_len(self) -> usize {
        self.dimension() * self.degree()
    }

    /// The bytes of a body coefficient in a message: its leading bits, rounded. Where the noise is TUniform(17) 16 bits are left out,
    /// which cost 2^15, a quarter of the noise; where the noise is small, all 64 bits travel.
    pub(crate) const fn body_len(self) -> usize {
        match self {
            Self::N2048TUniform17 | Self::K4N512TUniform17 => 6,
            Self::N4096TUniform3 => 8,
        }
    }

    /// 2^t, the most that an encryption's noise is.
    pub(crate) const fn largest_noise(self) -> u64 {
        1 << self.noise().bound_log2()
    }

    /// The variance of an encryption's noise: (2^(2t+1) + 1)/6 (tfhe-rs, `TUniform`).
    pub(crate) fn noise_variance(self) -> f64 {
        let largest = self.largest_noise() as f64;
        (2.0 * largest * largest + 1.0) / 6.0
    }

    /// The most that one transmitted body coefficient differs from a·S + m: its noise, plus half of what is left out.
    pub(crate) const fn body_error(self) -> u64 {
        self.largest_noise() + (1 << (64 - 8 * self.body_len())) / 2
    }
}

impl fmt::Display for ParameterSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_names_are_distinct_and_resolve() {
        for (index, set) in ParameterSet::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(set.id()), index + 1);
            assert_eq!(ParameterSet::from_name(set.name()), Some(set));
        }
        assert_eq!(ParameterSet::from_name("n1024-tuniform43"), None);
    }

    #[test]
    fn a_body_is_off_by_at_most_its_noise_and_its_rounding() {
        assert_eq!(ParameterSet::N2048TUniform17.body_error(), (1 << 17) + (1 << 15));
        assert_eq!(ParameterSet::N4096TUniform3.body_error(), 1 << 3);
    }
}
