//! Products in Z_{2^64}\[X\]/(X^N + 1), as sliding sums.
//!
//! Continue a polynomial p below zero by X^N = −1, that is p\[i − N\] = −p\[i\]. Then the coefficient i of W·p for a W
//! of degree below T is Σ_e W\[e\]·p\[i − e\] with no case left: a correlation of the continued p with W reversed. The
//! evaluator, the integer oracle and the client's decryption all are this one sum.

/// `out[k] = Σ_t term(signal[k + t], taps[t])` in Z_{2^64}.
///
/// Runs in a time that depends on the lengths alone, provided that `term` does.
///
/// # Panics
///
/// If `signal` is shorter than `out` and `taps` together, less one.
pub(crate) fn correlate(signal: &[u64], taps: &[u64], out: &mut [u64], term: impl Fn(u64, u64) -> u64 + Copy) {
    assert!(signal.len() + 1 >= out.len() + taps.len(), "a signal covers every sum");
    let (blocks, rest) = out.as_chunks_mut::<LANES>();
    let done = blocks.len() * LANES;
    for (block, start) in blocks.iter_mut().zip((0..).step_by(LANES)) {
        let mut sums = [0u64; LANES];
        for (window, &tap) in signal[start..].windows(LANES).zip(taps) {
            for (sum, &x) in sums.iter_mut().zip(window) {
                *sum = sum.wrapping_add(term(x, tap));
            }
        }
        *block = sums;
    }
    for (sum, start) in rest.iter_mut().zip(done..) {
        *sum = signal[start..].iter().zip(taps).fold(0, |sum, (&x, &tap)| sum.wrapping_add(term(x, tap)));
    }
}

/// Sums that are kept in registers at once: two vectors of AVX2, four of SSE2.
const LANES: usize = 8;

/// Fills the `lead` places before a polynomial, which starts at `polynomial[lead]`, with its negacyclic continuation.
pub(crate) fn continue_below_zero(polynomial: &mut [u64], lead: usize) {
    let degree = polynomial.len() - lead;
    for index in 0..lead {
        polynomial[index] = polynomial[index + degree].wrapping_neg();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// p·w in the ring, from the definition.
    fn product(p: &[u64], w: &[u64]) -> Vec<u64> {
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
        for (degree, taps) in [(64, 1), (64, 12), (64, 64), (37, 5), (16, 16), (1, 1)] {
            let p: Vec<u64> = (1..=degree as u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
            let w: Vec<u64> = (1..=taps as u64).map(|i| i.wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_neg()).collect();
            let mut continued = [vec![0; taps - 1], p.clone()].concat();
            continue_below_zero(&mut continued, taps - 1);
            let reversed: Vec<u64> = w.iter().rev().copied().collect();
            let mut out = vec![0; degree];
            correlate(&continued, &reversed, &mut out, u64::wrapping_mul);
            assert_eq!(out, product(&p, &w));
        }
    }

    #[test]
    #[should_panic(expected = "a signal covers every sum")]
    fn a_short_signal_is_a_bug() {
        correlate(&[1, 2], &[1, 2], &mut [0, 0], u64::wrapping_mul);
    }
}
