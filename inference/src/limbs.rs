//! Integers as balanced digits, so that exact sums of large numbers are sums of small ones.
//!
//! x = Σ_i x_i·2^(β·i) with −2^(β−1) ≤ x_i < 2^(β−1), but for the last digit, which takes what is left. A product of two
//! such numbers is the sum of all products of digits, each at its place: Σ_i Σ_k x_i·w_k·2^(β_x·i + β_w·k).

use serde::{Deserialize, Serialize};

/// The digits of one kind of number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Digits {
    /// β, the bits of a digit.
    pub bits: u32,
    /// How many there are.
    pub count: usize,
}

/// How features and weights are split: a row of features is as many rows as they have limbs, and a class as many
/// outputs as weights have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limbs {
    /// Of weights.
    pub weights: Digits,
    /// Of features.
    pub features: Digits,
}

impl Digits {
    /// The number is its own only digit.
    pub(crate) const WHOLE: Self = Self { bits: MAX_DIGIT_BITS, count: 1 };

    /// As few bits per digit as hold every number of −2^`bits` … 2^`bits` in `count` digits.
    #[cfg(any(test, feature = "import"))]
    pub(crate) fn holding(bits: u32, count: usize) -> Self {
        match count {
            1 => Self::WHOLE,
            _ => Self { bits: (bits + 1).div_ceil(count as u32).max(1), count },
        }
    }

    /// Whether there are digits, of a size that makes sense.
    pub(crate) fn is_sane(self) -> bool {
        (1..=MAX_COUNT).contains(&self.count) && (1..=MAX_DIGIT_BITS).contains(&self.bits)
    }

    /// The digits of `value`, lowest first.
    pub(crate) fn of(self, value: i128) -> impl Iterator<Item = i128> {
        let mut rest = value;
        (0..self.count).map(move |index| {
            if index + 1 == self.count {
                return rest;
            }
            let digit = rest << (128 - self.bits) >> (128 - self.bits);
            rest = (rest - digit) >> self.bits;
            digit
        })
    }

    /// The digits of a number of 64 bits.
    pub(crate) fn of_word(self, value: i64) -> impl Iterator<Item = i64> {
        self.of(value.into()).map(|digit| digit as i64)
    }

    /// The most that digit `index` of any number of −`most` … `most` is.
    pub(crate) fn largest(self, index: usize, most: u64) -> u64 {
        let shifted = most >> (self.bits * index as u32).min(63);
        match index + 1 == self.count {
            _ if index == 0 && self.count == 1 => most,
            true => shifted + 1,
            false => (1 << (self.bits - 1)).min(shifted + u64::from(index > 0)),
        }
    }

    /// The bits at which digit `index` stands.
    pub(crate) fn place(self, index: usize) -> u32 {
        self.bits * index as u32
    }
}

impl Limbs {
    /// Numbers as they are.
    pub(crate) const WHOLE: Self = Self { weights: Digits::WHOLE, features: Digits::WHOLE };

    /// What a row's outputs add up to: `outputs` holds, for each limb of the features, those of every logit and limb of
    /// the weights.
    #[cfg(any(test, feature = "client"))]
    pub(crate) fn recombine(self, outputs: &[i64]) -> Vec<i128> {
        let weights = self.weights.count;
        let mut logits = vec![0; outputs.len() / weights / self.features.count];
        for (l, outputs) in outputs.chunks_exact(logits.len() * weights).enumerate() {
            for (logit, digits) in logits.iter_mut().zip(outputs.chunks_exact(weights)) {
                for (k, &digit) in digits.iter().enumerate() {
                    *logit += i128::from(digit) << (self.features.place(l) + self.weights.place(k));
                }
            }
        }
        logits
    }

    /// An integer added to a logit as the digits that are added to its outputs: for each limb of the features those of
    /// every limb of the weights. `None` if a digit exceeds 63 bits.
    #[cfg(any(test, feature = "import"))]
    pub(crate) fn split(self, bias: i128) -> Option<Vec<i64>> {
        self.features.of(bias).flat_map(|limb| self.weights.of(limb)).map(|digit| i64::try_from(digit).ok()).collect()
    }

    /// The bits at which the product of the last digits stands.
    pub(crate) fn last_place(self) -> u32 {
        self.weights.place(self.weights.count - 1) + self.features.place(self.features.count - 1)
    }
}

/// More limbs would cost more than a larger ring.
pub(crate) const MAX_COUNT: usize = 8;

const MAX_DIGIT_BITS: u32 = 62;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_balanced_and_make_up_the_number() {
        for (bits, count) in [(1, 8), (4, 3), (12, 3), (20, 2), (31, 2), (62, 1)] {
            let digits = Digits { bits, count };
            for value in [0, 1, -1, 7, -8, 8, 2047, -2048, 123_456_789, -(1i64 << 40), (1 << 61) - 1] {
                let parts: Vec<i64> = digits.of_word(value).collect();
                assert_eq!(parts.len(), count);
                let sum: i128 = parts.iter().enumerate().map(|(i, &d)| i128::from(d) << digits.place(i)).sum();
                assert_eq!(sum, value.into(), "{digits:?}");
                assert!(parts[..count - 1].iter().all(|d| (-(1 << (bits - 1))..1 << (bits - 1)).contains(d)));
            }
        }
    }

    #[test]
    fn the_largest_digit_is_not_exceeded_and_nearly_reached() {
        for digits in
            [Digits { bits: 3, count: 3 }, Digits { bits: 5, count: 2 }, Digits::WHOLE, Digits { bits: 2, count: 4 }]
        {
            for most in [0u64, 1, 3, 4, 17, 100, 255] {
                for index in 0..digits.count {
                    let reached = (-(most as i64)..=most as i64)
                        .map(|value| digits.of_word(value).nth(index).unwrap().unsigned_abs())
                        .max();
                    let (bound, reached) = (digits.largest(index, most), reached.unwrap());
                    assert!(reached <= bound && bound <= reached + 1, "{digits:?} {most} {index}: {reached} {bound}");
                }
            }
        }
    }

    #[test]
    fn a_product_of_digits_recombines_to_the_product() {
        let limbs = Limbs { weights: Digits { bits: 9, count: 3 }, features: Digits { bits: 11, count: 2 } };
        let (weights, feature, bias) = ([123_456_789_i64, -77_777_777], -1_000_003_i64, -(1_i128 << 50) + 12345);
        let biases = limbs.split(bias).unwrap();
        let outputs: Vec<i64> = limbs
            .features
            .of_word(feature)
            .zip(biases.chunks(3))
            .flat_map(|(x, biases)| {
                let digits = weights.map(|w| limbs.weights.of_word(w).zip(biases).map(move |(w, b)| w * x + b));
                digits.into_iter().flatten().collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(limbs.recombine(&outputs), weights.map(|w| i128::from(w) * i128::from(feature) + bias));
    }

    #[test]
    fn numbers_of_so_many_bits_fit() {
        for bits in [1, 2, 10, 33, 60] {
            for count in 2..=4 {
                let digits = Digits::holding(bits, count);
                let last = digits.largest(count - 1, 1 << bits);
                assert!(last <= (1 << (digits.bits - 1)) + 1, "{bits} {count}");
                assert!(digits.is_sane());
            }
        }
    }
}
