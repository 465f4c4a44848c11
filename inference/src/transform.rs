//! Products in Z_{2^64}\[X\]/(X^N + 1) through number-theoretic transforms, for polynomials with many coefficients.
//!
//! Coefficients are taken modulo five primes whose product is 2^149.9, so that every sum below half of that comes out
//! exact. One factor has words below 2^64; the other has weights or bits, taken with their sign: of those that touch an
//! output, at most 2^12 logits', the sum of absolute values is below 2^63 for each logit, or decryption would not be
//! certain. That makes 2^139. A transform costs about as much as sixty-four terms of a [correlation](crate::ring).

use std::sync::LazyLock;

use tfhe_ntt::native64::Plan32;
use tfhe_ntt::prime32;
use zeroize::Zeroizing;

use crate::parameters::ParameterSet;

/// The transform of a polynomial: its values modulo each prime. Erased when dropped, since some are secret.
#[derive(Clone)]
pub(crate) struct Spectrum(Zeroizing<Vec<u32>>);

const PRIMES: usize = 5;

impl Spectrum {
    pub(crate) fn zero(degree: usize) -> Self {
        Self(Zeroizing::new(vec![0; PRIMES * degree]))
    }

    /// The memory that one of that degree takes.
    pub(crate) fn bytes(degree: usize) -> usize {
        PRIMES * degree * size_of::<u32>()
    }

    /// Memory for one of that degree, made anew if there is none or it was for another.
    pub(crate) fn of_degree(memory: &mut Option<Self>, degree: usize) -> &mut Self {
        let fitting = memory.take().filter(|spectrum| spectrum.degree() == degree);
        memory.insert(fitting.unwrap_or_else(|| Self::zero(degree)))
    }

    pub(crate) fn degree(&self) -> usize {
        self.0.len() / PRIMES
    }

    pub(crate) fn clear(&mut self) {
        self.0.fill(0);
    }

    fn residues(&mut self) -> [&mut [u32]; PRIMES] {
        let degree = self.degree();
        let mut rest = &mut self.0[..];
        std::array::from_fn(|_| {
            let (residues, after) = std::mem::take(&mut rest).split_at_mut(degree);
            rest = after;
            residues
        })
    }
}

/// The transforms of one degree.
pub(crate) struct Transform(Plan32);

impl Transform {
    /// Made once per degree and process, in less than a millisecond.
    pub(crate) fn of(parameters: ParameterSet) -> &'static Self {
        static N2048: LazyLock<Transform> = LazyLock::new(|| Transform::new(2048));
        static N4096: LazyLock<Transform> = LazyLock::new(|| Transform::new(4096));
        static N512: LazyLock<Transform> = LazyLock::new(|| Transform::new(512));
        match parameters {
            ParameterSet::N2048TUniform17 => &N2048,
            ParameterSet::N4096TUniform3 => &N4096,
            ParameterSet::K4N512TUniform17 => &N512,
        }
    }

    fn new(degree: usize) -> Self {
        Self(Plan32::try_new(degree).expect("there are plans for all powers of two from 32 on"))
    }

    fn primes(&self) -> [&prime32::Plan; PRIMES] {
        [self.0.ntt_0(), self.0.ntt_1(), self.0.ntt_2(), self.0.ntt_3(), self.0.ntt_4()]
    }

    /// `out` ← the transform of `polynomial`.
    pub(crate) fn forward(&self, polynomial: &[u64], out: &mut Spectrum) {
        let [p0, p1, p2, p3, p4] = out.residues();
        self.0.fwd(polynomial, p0, p1, p2, p3, p4);
    }

    /// The transform of a polynomial whose words are signed, over N: the other factor of every product.
    pub(crate) fn forward_signed(&self, polynomial: &[u64]) -> Spectrum {
        self.forward_residues(polynomial, |word, modulus| (word as i64).rem_euclid(modulus) as u32)
    }

    /// The same for a polynomial of bits, each its own residue.
    pub(crate) fn forward_bits(&self, polynomial: &[u64]) -> Spectrum {
        self.forward_residues(polynomial, |bit, _| bit as u32)
    }

    fn forward_residues(&self, polynomial: &[u64], residue: impl Fn(u64, i64) -> u32) -> Spectrum {
        let mut spectrum = Spectrum::zero(polynomial.len());
        for (prime, residues) in self.primes().into_iter().zip(spectrum.residues()) {
            let modulus = prime.modulus().into();
            residues.iter_mut().zip(polynomial).for_each(|(to, &word)| *to = residue(word, modulus));
            prime.fwd(residues);
            prime.normalize(residues);
        }
        spectrum
    }

    /// `sum` += `one`·`other`.
    pub(crate) fn multiply_add(&self, one: &Spectrum, other: &Spectrum, sum: &mut Spectrum) {
        let degree = self.0.ntt_size();
        let factors = one.0.chunks_exact(degree).zip(other.0.chunks_exact(degree));
        for ((prime, sum), (one, other)) in self.primes().into_iter().zip(sum.residues()).zip(factors) {
            prime.mul_accumulate(sum, one, other);
        }
    }

    /// `sum` += `other`.
    pub(crate) fn add(&self, other: &Spectrum, sum: &mut Spectrum) {
        let others = other.0.chunks_exact(self.0.ntt_size());
        for ((prime, sum), other) in self.primes().into_iter().zip(sum.residues()).zip(others) {
            let modulus = prime.modulus();
            for (sum, &other) in sum.iter_mut().zip(other) {
                *sum = ((u64::from(*sum) + u64::from(other)) % u64::from(modulus)) as u32;
            }
        }
    }

    /// `out` ← the polynomial whose transform `spectrum` is; that is used up.
    pub(crate) fn backward(&self, spectrum: &mut Spectrum, out: &mut [u64]) {
        let [p0, p1, p2, p3, p4] = spectrum.residues();
        self.0.inv(out, p0, p1, p2, p3, p4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::tests::uniform;
    use crate::ring::tests::product;

    /// Whatever the coefficients: sums of products of full words too.
    #[test]
    fn a_product_of_transforms_is_the_product() {
        for set in ParameterSet::ALL {
            let (degree, transform) = (set.polynomial_size().0, Transform::of(set));
            let (mut sum, mut expected) = (Spectrum::zero(degree), vec![0u64; degree]);
            let mut one = Spectrum::zero(degree);
            for seed in 0..3 {
                let (p, w) = (uniform(degree, seed), uniform(degree, seed + 7));
                transform.forward(&p, &mut one);
                transform.multiply_add(&one, &transform.forward_signed(&w), &mut sum);
                expected = expected.iter().zip(product(&p, &w)).map(|(x, y)| x.wrapping_add(y)).collect();
            }
            let mut out = vec![0; degree];
            transform.backward(&mut sum, &mut out);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn the_largest_coefficients_do_not_wrap() {
        let (set, degree) = (ParameterSet::N4096TUniform3, 4096);
        let transform = Transform::of(set);
        let (mut one, mut sum) = (Spectrum::zero(degree), Spectrum::zero(degree));
        transform.forward(&vec![u64::MAX; degree], &mut one);
        let other = transform.forward_signed(&vec![1 << 62; degree]);
        let negative = transform.forward_signed(&vec![(1_u64 << 62).wrapping_neg(); degree]);
        for _ in 0..1000 {
            transform.multiply_add(&one, &other, &mut sum);
        }
        transform.multiply_add(&one, &negative, &mut sum);
        let mut out = vec![0; degree];
        transform.backward(&mut sum, &mut out);
        // −2^62 at coefficient i, i + 1 times with a plus and N − 1 − i times with a minus, 999 times.
        for (index, &coefficient) in out.iter().enumerate() {
            let times = (2 * index as u64 + 2).wrapping_sub(degree as u64).wrapping_mul(999);
            assert_eq!(coefficient, times.wrapping_mul((1_u64 << 62).wrapping_neg()));
        }
    }
}
