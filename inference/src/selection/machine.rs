//! What every evaluation here comes down to: add something to a value if a bit is set.
//!
//! A value is a ciphertext, k mask polynomials and a body, or a body alone: models evaluate on both by the same code, and
//! the latter is the oracle.

use std::sync::atomic::{AtomicBool, Ordering};

/// Where bits are known, or encrypted.
pub(crate) trait Machine {
    /// `to` += bit·`polynomials`.
    fn add_product(&mut self, bit: usize, polynomials: &[u64], to: &mut [u64]);
}

/// The shape of a value, and when to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space<'a> {
    /// N.
    pub(crate) degree: usize,
    /// k of a ciphertext, 0 of a body alone.
    pub(crate) masks: usize,
    pub(crate) cancelled: &'a AtomicBool,
}

impl Space<'_> {
    /// The coefficients of a value.
    pub(crate) fn len(&self) -> usize {
        (self.masks + 1) * self.degree
    }

    /// The coefficients before the body's.
    pub(crate) fn body(&self) -> usize {
        self.masks * self.degree
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// `out` ← X^−e · `value`, polynomial by polynomial, for e in −N … N.
    pub(crate) fn rotate(&self, value: &[u64], exponent: i64, out: &mut [u64]) {
        let by = exponent.rem_euclid(2 * self.degree as i64) as usize;
        let (shift, negated) = (by % self.degree, by >= self.degree);
        let sign = |word: u64, negative: bool| if negative { word.wrapping_neg() } else { word };
        for (value, out) in value.chunks_exact(self.degree).zip(out.chunks_exact_mut(self.degree)) {
            let (wrapped, kept) = value.split_at(shift);
            let (front, back) = out.split_at_mut(kept.len());
            front.iter_mut().zip(kept).for_each(|(out, &word)| *out = sign(word, negated));
            back.iter_mut().zip(wrapped).for_each(|(out, &word)| *out = sign(word, !negated));
        }
    }
}

/// `to` += `value`.
pub(crate) fn add(value: &[u64], to: &mut [u64]) {
    to.iter_mut().zip(value).for_each(|(to, value)| *to = to.wrapping_add(*value));
}

/// `to` −= `value`.
pub(crate) fn subtract(value: &[u64], to: &mut [u64]) {
    to.iter_mut().zip(value).for_each(|(to, value)| *to = to.wrapping_sub(*value));
}

/// Bits that are known.
#[cfg(feature = "client")]
#[derive(Clone, Debug)]
pub(crate) struct Clear(pub(crate) Vec<bool>);

#[cfg(feature = "client")]
impl Machine for Clear {
    fn add_product(&mut self, bit: usize, polynomials: &[u64], to: &mut [u64]) {
        if self.0[bit] {
            add(polynomials, to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::tests::uniform;
    use crate::ring::tests::product;

    #[test]
    fn rotations_are_products_with_monomials() {
        let space = Space { degree: 16, masks: 1, cancelled: &AtomicBool::new(false) };
        let value = uniform(space.len(), 3);
        for exponent in -16..=16_i64 {
            let mut monomial = vec![0; 16];
            // X^−e is X^(32−e), and X^16 is −1.
            let power = (-exponent).rem_euclid(32) as usize;
            monomial[power % 16] = if power < 16 { 1 } else { 1_u64.wrapping_neg() };
            let mut rotated = vec![0; space.len()];
            space.rotate(&value, exponent, &mut rotated);
            let expected: Vec<u64> = value.chunks(16).flat_map(|part| product(part, &monomial)).collect();
            assert_eq!(rotated, expected, "{exponent}");
        }
    }
}
