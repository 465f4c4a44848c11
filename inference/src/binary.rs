//! Products with a polynomial of bits, which is a secret: a key S, or the u of a re-randomised reply.

use std::sync::OnceLock;

use zeroize::Zeroizing;

use crate::parameters::ParameterSet;
use crate::ring::{continue_below_zero, correlate_bits};
use crate::transform::{Spectrum, Transform};

/// N bits. They cannot be copied, written or printed, and are erased when dropped.
pub(crate) struct Binary {
    parameters: ParameterSet,
    /// Highest coefficient first as [`correlate_bits`] takes them, each 0 or 2^64 − 1.
    words: Zeroizing<Vec<u64>>,
    /// Of the bits, over N.
    spectrum: OnceLock<Spectrum>,
}

impl Binary {
    /// `fill` writes N words, each 0 or 2^64 − 1, in any order that is as uniform as any other.
    pub(crate) fn new(parameters: ParameterSet, fill: impl FnOnce(&mut [u64])) -> Self {
        let mut words = Zeroizing::new(vec![0; parameters.degree()]);
        fill(&mut words);
        Self { parameters, words, spectrum: OnceLock::new() }
    }

    /// `out` += the coefficients `first`, `first` + 1, … of Σ_i p_i·S_i, in a time that depends on none of the bits.
    pub(crate) fn multiply(bits: &[Self], p: &[Factor], first: usize, out: &mut [u64], buffers: &mut Buffers) {
        let len = out.len();
        Self::multiply_rows(bits, p, first, (len, len), out, buffers);
    }

    /// `out[r·κ + c]` += coefficient `first` + r·stride + c of Σ_i p_i·S_i, for every c below κ.
    pub(crate) fn multiply_rows(
        bits: &[Self],
        p: &[Factor],
        first: usize,
        (stride, kappa): (usize, usize),
        out: &mut [u64],
        buffers: &mut Buffers,
    ) {
        let starts = (first..).step_by(stride.max(1));
        if out.len() < FEW {
            return out.chunks_mut(kappa.max(1)).zip(starts).for_each(|(out, first)| {
                let pairs = bits.iter().zip(p);
                pairs.for_each(|(bits, p)| correlate_bits(&p.continued[first..], &bits.words, out));
            });
        }
        let product = Self::product(bits, p, buffers);
        for (out, first) in out.chunks_mut(kappa).zip(starts) {
            out.iter_mut().zip(&product[first..]).for_each(|(out, product)| *out = out.wrapping_add(*product));
        }
    }

    /// Σ_i p_i·S_i.
    fn product<'a>(bits: &[Self], p: &[Factor], buffers: &'a mut Buffers) -> &'a [u64] {
        let parameters = bits[0].parameters;
        let transform = Transform::of(parameters);
        let Parts { product, spectrum, sum } = buffers.sized(parameters.degree());
        sum.clear();
        for (bits, p) in bits.iter().zip(p) {
            let p = match &p.spectrum {
                Some(p) => p,
                None => {
                    transform.forward(p.polynomial(), spectrum);
                    &*spectrum
                }
            };
            transform.multiply_add(p, bits.spectrum(), sum);
        }
        transform.backward(sum, product);
        product
    }

    /// `out` += factor·S, in a time that depends on none of the bits.
    #[cfg(feature = "client")]
    pub(crate) fn add_multiple(&self, factor: u64, out: &mut [u64]) {
        let words = self.words.iter().rev();
        out.iter_mut().zip(words).for_each(|(out, word)| *out = out.wrapping_add(word & factor));
    }

    fn spectrum(&self) -> &Spectrum {
        self.spectrum.get_or_init(|| {
            let bits = Zeroizing::new(self.words.iter().rev().map(|word| word & 1).collect::<Vec<_>>());
            Transform::of(self.parameters).forward_bits(&bits)
        })
    }

    #[cfg(test)]
    pub(crate) fn bits(&self) -> Vec<u64> {
        self.words.iter().rev().map(|word| word & 1).collect()
    }
}

/// As few coefficients cost less by themselves than two transforms do.
const FEW: usize = 192;

/// A polynomial to multiply by bits, known to all: a mask, or the body of a public key.
pub(crate) struct Factor {
    /// The coefficients −(N − 1) … N − 1.
    continued: Vec<u64>,
    spectrum: Option<Spectrum>,
}

impl Factor {
    /// `fill` writes the N coefficients.
    pub(crate) fn new(parameters: ParameterSet, fill: impl FnOnce(&mut [u64])) -> Self {
        let mut factor = Self { continued: vec![], spectrum: None };
        factor.refill(parameters, fill);
        factor
    }

    /// As [`new`](Self::new), in the same memory.
    pub(crate) fn refill(&mut self, parameters: ParameterSet, fill: impl FnOnce(&mut [u64])) {
        let degree = parameters.degree();
        self.continued.resize(2 * degree - 1, 0);
        fill(&mut self.continued[degree - 1..]);
        continue_below_zero(&mut self.continued, degree - 1);
        self.spectrum = None;
    }

    /// For many products: its transform is made once.
    pub(crate) fn transformed(mut self, parameters: ParameterSet) -> Self {
        let mut spectrum = Spectrum::zero(parameters.degree());
        Transform::of(parameters).forward(self.polynomial(), &mut spectrum);
        self.spectrum = Some(spectrum);
        self
    }

    /// As [`transformed`](Self::transformed), for whole products alone: of the two the transform is kept.
    pub(crate) fn into_transform(self, parameters: ParameterSet) -> Self {
        Self { continued: vec![], ..self.transformed(parameters) }
    }

    fn polynomial(&self) -> &[u64] {
        &self.continued[self.continued.len() / 2..]
    }
}

/// Memory for a product, kept from one to the next. Erased when dropped.
#[derive(Default)]
pub(crate) struct Buffers {
    product: Zeroizing<Vec<u64>>,
    spectra: Option<(Spectrum, Spectrum)>,
}

struct Parts<'a> {
    product: &'a mut [u64],
    spectrum: &'a mut Spectrum,
    sum: &'a mut Spectrum,
}

impl Buffers {
    fn sized(&mut self, degree: usize) -> Parts<'_> {
        if self.product.len() != degree {
            self.product = Zeroizing::new(vec![0; degree]);
            self.spectra = None;
        }
        let (spectrum, sum) = self.spectra.get_or_insert_with(|| (Spectrum::zero(degree), Spectrum::zero(degree)));
        Parts { product: &mut self.product, spectrum, sum }
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;
    use crate::bundle::tests::uniform;
    use crate::random::Noise;
    use crate::ring::tests::product;

    #[test]
    fn few_and_many_coefficients_are_those_of_the_product() {
        for set in ParameterSet::ALL {
            let degree = set.degree();
            let p = uniform(degree, 5);
            let bits = Binary::new(set, |words| Noise::new().fill_bits(words));
            let expected = product(&p, &bits.bits());
            let factor = Factor::new(set, |words| words.copy_from_slice(&p));
            let transformed = Factor::new(set, |words| words.copy_from_slice(&p)).transformed(set);
            let mut buffers = Buffers::default();
            for (first, count) in [(0, 3), (7, 100), (degree - 150, 150), (0, degree), (100, 300)] {
                for factor in [&factor, &transformed] {
                    let mut out = vec![1; count];
                    Binary::multiply(from_ref(&bits), from_ref(factor), first, &mut out, &mut buffers);
                    let sum = expected[first..][..count].iter().map(|x| x.wrapping_add(1));
                    assert!(out.iter().copied().eq(sum));
                }
            }
        }
    }
}
