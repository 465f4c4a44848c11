//! Products in Z_{2^64}\[X\]/(X^N + 1), as sliding sums.
//!
//! Continue a polynomial p below zero by X^N = −1, that is p\[i − N\] = −p\[i\]. Then the coefficient i of W·p for a W
//! of degree below T is Σ_e W\[e\]·p\[i − e\] with no case left: a correlation of the continued p with W reversed. The
//! evaluator, the integer oracle and the client's decryption all are this one sum; long ones go through
//! [`transform`](crate::transform).
//!
//! The loops are written so that the compiler makes vectors of them, and run in whatever vectors the processor has:
//! `pulp` compiles each for the levels of x86-64 and picks one at run time.

use pulp::{Arch, Simd, WithSimd};

/// `out[k] += Σ_t signal[k + t]·taps[t]` in Z_{2^64}.
///
/// # Panics
///
/// If `signal` is shorter than `out` and `taps` together, less one.
pub(crate) fn correlate(signal: &[u64], taps: &[u64], out: &mut [u64]) {
    dispatch(Correlate { signal, taps, out, term: u64::wrapping_mul });
}

/// `out[k] += Σ_t signal[k + t] & taps[t]`: a product with bits, each 0 or 2^64 − 1, in a time that depends on the
/// lengths alone.
///
/// # Panics
///
/// As [`correlate`].
pub(crate) fn correlate_bits(signal: &[u64], taps: &[u64], out: &mut [u64]) {
    dispatch(Correlate { signal, taps, out, term: |x, bit| x & bit });
}

/// `out[r·κ + c] += Σ_t signal[r·stride + c + t]·taps[t]` for c below κ: one short correlation per row.
///
/// # Panics
///
/// If `signal` is shorter than the last row needs.
pub(crate) fn correlate_rows(signal: &[u64], stride: usize, taps: &[u64], kappa: usize, out: &mut [u64]) {
    dispatch(CorrelateRows { signal, stride, taps, kappa, out });
}

/// `out[k] += Σ_t columns[t·len + k]·taps[t]`, with the length of `out`: scalar products of rows that are given column by
/// column.
///
/// # Panics
///
/// If there are fewer columns than taps.
pub(crate) fn combine_columns(columns: &[u64], taps: &[u64], out: &mut [u64]) {
    dispatch(CombineColumns { columns, taps, out });
}

fn dispatch(loops: impl WithSimd<Output = ()>) {
    Arch::new().dispatch(loops);
}

struct Correlate<'a, F> {
    signal: &'a [u64],
    taps: &'a [u64],
    out: &'a mut [u64],
    term: F,
}

impl<F: Fn(u64, u64) -> u64 + Copy> WithSimd for Correlate<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { signal, taps, out, term } = self;
        assert!(signal.len() + 1 >= out.len() + taps.len(), "a signal covers every sum");
        let (blocks, rest) = out.as_chunks_mut();
        let done = correlate_blocks::<WIDE, _>(signal, taps, blocks, term);
        let (blocks, rest) = rest.as_chunks_mut();
        let done = done + correlate_blocks::<NARROW, _>(&signal[done..], taps, blocks, term);
        for (sum, start) in rest.iter_mut().zip(done..) {
            *sum = dot(&signal[start..], taps, *sum, term);
        }
    }
}

/// Sums that are kept in registers at once: eight vectors of AVX-512, sixteen of AVX2.
const WIDE: usize = 64;

/// And for what is left.
const NARROW: usize = 8;

/// The places of `out` that these blocks are.
#[inline(always)]
fn correlate_blocks<const LANES: usize, F: Fn(u64, u64) -> u64 + Copy>(
    signal: &[u64],
    taps: &[u64],
    blocks: &mut [[u64; LANES]],
    term: F,
) -> usize {
    for (block, start) in blocks.iter_mut().zip((0..).step_by(LANES)) {
        let mut sums = *block;
        for (window, &tap) in signal[start..].windows(LANES).zip(taps) {
            for (sum, &x) in sums.iter_mut().zip(window) {
                *sum = sum.wrapping_add(term(x, tap));
            }
        }
        *block = sums;
    }
    blocks.len() * LANES
}

#[inline(always)]
fn dot(signal: &[u64], taps: &[u64], start: u64, term: impl Fn(u64, u64) -> u64) -> u64 {
    signal.iter().zip(taps).fold(start, |sum, (&x, &tap)| sum.wrapping_add(term(x, tap)))
}

struct CorrelateRows<'a> {
    signal: &'a [u64],
    stride: usize,
    taps: &'a [u64],
    kappa: usize,
    out: &'a mut [u64],
}

impl WithSimd for CorrelateRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { signal, stride, taps, kappa, out } = self;
        for (row, out) in out.chunks_exact_mut(kappa).enumerate() {
            let signal = &signal[row * stride..];
            assert!(signal.len() + 1 >= kappa + taps.len(), "a signal covers every sum");
            let (blocks, rest) = out.as_chunks_mut();
            let done = correlate_blocks::<NARROW, _>(signal, taps, blocks, u64::wrapping_mul);
            for (sum, start) in rest.iter_mut().zip(done..) {
                *sum = dot(&signal[start..], taps, *sum, u64::wrapping_mul);
            }
        }
    }
}

struct CombineColumns<'a> {
    columns: &'a [u64],
    taps: &'a [u64],
    out: &'a mut [u64],
}

impl WithSimd for CombineColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { columns, taps, out } = self;
        assert!(columns.len() >= taps.len() * out.len(), "there is a column for every tap");
        let len = out.len();
        let (blocks, rest) = out.as_chunks_mut::<WIDE>();
        for (block, start) in blocks.iter_mut().zip((0..).step_by(WIDE)) {
            let mut sums = *block;
            for (column, &tap) in columns.chunks_exact(len).zip(taps) {
                for (sum, &x) in sums.iter_mut().zip(&column[start..start + WIDE]) {
                    *sum = sum.wrapping_add(x.wrapping_mul(tap));
                }
            }
            *block = sums;
        }
        for (column, &tap) in columns.chunks_exact(len.max(1)).zip(taps) {
            for (sum, &x) in rest.iter_mut().zip(&column[len - len % WIDE..]) {
                *sum = sum.wrapping_add(x.wrapping_mul(tap));
            }
        }
    }
}

/// Fills the `lead` places before a polynomial, which starts at `polynomial[lead]`, with its negacyclic continuation.
pub(crate) fn continue_below_zero(polynomial: &mut [u64], lead: usize) {
    let degree = polynomial.len() - lead;
    for index in 0..lead {
        polynomial[index] = polynomial[index + degree].wrapping_neg();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::bundle::tests::uniform;

    /// p·w in the ring, from the definition.
    pub(crate) fn product(p: &[u64], w: &[u64]) -> Vec<u64> {
        let mut out = vec![0u64; p.len()];
        for (i, &x) in p.iter().enumerate() {
            for (e, &y) in w.iter().enumerate() {
                let term = x.wrapping_mul(y);
                match i + e < p.len() {
                    true => out[i + e] = out[i + e].wrapping_add(term),
                    false => out[i + e - p.len()] = out[i + e - p.len()].wrapping_sub(term),
                }
            }
        }
        out
    }

    #[test]
    fn a_correlation_of_the_continued_polynomial_is_the_product() {
        for (degree, taps) in [(64, 1), (64, 12), (64, 64), (37, 5), (16, 16), (1, 1), (200, 33)] {
            let (p, w) = (uniform(degree, 1), uniform(taps, 2));
            let mut continued = [vec![0; taps - 1], p.clone()].concat();
            continue_below_zero(&mut continued, taps - 1);
            let reversed: Vec<u64> = w.iter().rev().copied().collect();
            let mut out = vec![0; degree];
            correlate(&continued, &reversed, &mut out);
            assert_eq!(out, product(&p, &w));
            correlate(&continued, &reversed, &mut out);
            assert_eq!(out, product(&p, &w).iter().map(|x| x.wrapping_mul(2)).collect::<Vec<_>>(), "it adds up");

            let bits: Vec<u64> = w.iter().map(|word| (word & 1).wrapping_neg()).collect();
            let mut out = vec![0; degree];
            correlate_bits(&continued, &bits.iter().rev().copied().collect::<Vec<_>>(), &mut out);
            assert_eq!(out, product(&p, &bits.iter().map(|bit| bit & 1).collect::<Vec<_>>()));
        }
    }

    #[test]
    fn rows_are_correlations_of_their_own() {
        for (rows, stride, taps, kappa) in [(5, 12, 12, 3), (1, 40, 40, 20), (7, 1, 1, 1), (3, 9, 4, 9)] {
            let signal = uniform(rows * stride + kappa + taps, 3);
            let (taps, mut out) = (uniform(taps, 4), vec![1; rows * kappa]);
            correlate_rows(&signal, stride, &taps, kappa, &mut out);
            for (row, out) in out.chunks(kappa).enumerate() {
                let mut alone = vec![1; kappa];
                correlate(&signal[row * stride..], &taps, &mut alone);
                assert_eq!(out, alone);
            }
        }
    }

    #[test]
    fn columns_give_the_same_scalar_products_as_rows() {
        for (rows, features) in [(1, 1), (5, 3), (64, 7), (200, 12)] {
            let (signal, taps) = (uniform(rows * features, 5), uniform(features, 6));
            let columns: Vec<u64> = (0..features)
                .flat_map(|t| (0..rows).map(move |r| (t, r)))
                .map(|(t, r)| signal[r * features + t])
                .collect();
            let (mut by_rows, mut by_columns) = (vec![3; rows], vec![3; rows]);
            correlate_rows(&signal, features, &taps, 1, &mut by_rows);
            combine_columns(&columns, &taps, &mut by_columns);
            assert_eq!(by_rows, by_columns);
        }
    }

    #[test]
    #[should_panic(expected = "a signal covers every sum")]
    fn a_short_signal_is_a_bug() {
        correlate(&[1, 2], &[1, 2], &mut [0, 0]);
    }
}
