//! Bits as GGSW ciphertexts: from bytes to their Fourier transforms, and products with them.
//!
//! The ciphertext of a bit is (k+1)·ℓ GLWE ciphertexts, level ℓ first: row i < k of level j holds −S_i·bit·2^(64−βj), the last one
//! bit·2^(64−βj). Only bodies travel; the masks are the keystream of the request's seed, in the order of the rows.

use tfhe::core_crypto::fft_impl::fft64::crypto::ggsw::{FourierGgswCiphertextMutView, FourierGgswCiphertextView};
use tfhe::core_crypto::prelude::{
    CiphertextModulus, ComputationBuffers, Fft, FourierLweBootstrapKey, FourierLweBootstrapKeyOwned, GgswCiphertext,
    GgswCiphertextOwned, GlweCiphertext, GlweSize, LweDimension, add_external_product_assign_mem_optimized,
    add_external_product_assign_mem_optimized_requirement, convert_standard_ggsw_ciphertext_to_fourier_mem_optimized,
    convert_standard_ggsw_ciphertext_to_fourier_mem_optimized_requirement,
};

use super::Shape;
use super::machine::Machine;
use crate::mask::Keystream;
use crate::message;

/// Bits, ready for products: a list of GGSW ciphertexts, as a bootstrapping key is.
pub(crate) type Bits = FourierLweBootstrapKeyOwned;

/// Products in one ring, with one gadget.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    shape: Shape,
    fft: Fft,
}

/// Memory of one thread.
pub(crate) struct GateBuffers {
    ggsw: GgswCiphertextOwned<u64>,
    bodies: Vec<u64>,
    /// What is decomposed.
    value: Vec<u64>,
    computation: ComputationBuffers,
}

impl Gate {
    /// The first one of a ring in a process takes a moment: its transforms are made.
    pub(crate) fn new(shape: Shape) -> Self {
        Self { shape, fft: Fft::new(shape.parameters.polynomial_size()) }
    }

    fn glwe_size(&self) -> GlweSize {
        self.shape.parameters.glwe_dimension().to_glwe_size()
    }

    /// So many ciphertexts to [`expand`](Self::expand) into.
    pub(crate) fn empty(&self, bits: usize) -> Bits {
        let Shape { parameters, gadget, .. } = self.shape;
        FourierLweBootstrapKey::new(
            LweDimension(bits),
            self.glwe_size(),
            parameters.polynomial_size(),
            gadget.base_log(),
            gadget.level_count(),
        )
    }

    /// The bytes that one takes.
    pub(crate) fn bytes(shape: &Shape) -> usize {
        (shape.parameters.dimension() + 1) * shape.rows() * shape.parameters.degree() * size_of::<f64>()
    }

    pub(crate) fn buffers(&self) -> GateBuffers {
        let Shape { parameters, gadget, .. } = self.shape;
        let (size, degree, fft) = (self.glwe_size(), parameters.polynomial_size(), self.fft.as_view());
        let product = add_external_product_assign_mem_optimized_requirement::<u64>(size, degree, fft);
        let conversion = convert_standard_ggsw_ciphertext_to_fourier_mem_optimized_requirement(fft);
        let mut computation = ComputationBuffers::new();
        computation.resize(product.or(conversion).unaligned_bytes_required());
        let (base, levels, modulus) = (gadget.base_log(), gadget.level_count(), CiphertextModulus::new_native());
        let ggsw = GgswCiphertext::new(0, size, degree, base, levels, modulus);
        GateBuffers { ggsw, bodies: vec![], value: vec![], computation }
    }

    /// `out` ← the `index`-th bit of a request: its bodies, and masks from the seed's keystream, of which the first polynomials
    /// are those of the check.
    pub(crate) fn expand(
        &self,
        stream: &mut Keystream,
        index: usize,
        bodies: &[u8],
        out: &mut FourierGgswCiphertextMutView<'_>,
        GateBuffers { ggsw, bodies: words, computation, value: _ }: &mut GateBuffers,
    ) {
        let parameters = self.shape.parameters;
        let (rows, degree, mask) = (self.shape.rows(), parameters.degree(), parameters.mask_len());
        words.clear();
        message::read_bodies(bodies, parameters, words);
        let glwes = ggsw.as_mut().chunks_exact_mut(mask + degree).zip(words.chunks_exact(degree));
        for (row, (glwe, body)) in glwes.enumerate() {
            stream.fill_at(1 + index * rows + row, &mut glwe[..mask]);
            glwe[mask..].copy_from_slice(body);
        }
        convert_standard_ggsw_ciphertext_to_fourier_mem_optimized(ggsw, out, self.fft.as_view(), computation.stack());
    }
}

/// Bits that are encrypted, by their number; those that the model does not read are missing.
pub(crate) struct Encrypted<'a> {
    pub(crate) gate: &'a Gate,
    pub(crate) bits: &'a [FourierGgswCiphertextView<'a>],
    /// For each bit its place among `bits`.
    pub(crate) places: &'a [u32],
    pub(crate) buffers: &'a mut GateBuffers,
}

impl Machine for Encrypted<'_> {
    fn add_product(&mut self, bit: usize, polynomials: &[u64], to: &mut [u64]) {
        let (degree, modulus) = (self.gate.shape.parameters.polynomial_size(), CiphertextModulus::new_native());
        let GateBuffers { value, computation, .. } = &mut *self.buffers;
        // Products in float64 are multiples of a power of two, so that halves of what digits count are common. The
        // decomposition rounds all of them up, which a binary secret adds up; less one, negative ones are rounded down.
        value.clear();
        value.extend(polynomials.iter().map(|&word| word.wrapping_sub(word >> 63)));
        let from = GlweCiphertext::from_container(&value[..], degree, modulus);
        let mut to = GlweCiphertext::from_container(to, degree, modulus);
        let (ggsw, fft) = (&self.bits[self.places[bit] as usize], self.gate.fft.as_view());
        add_external_product_assign_mem_optimized(&mut to, ggsw, &from, fft, computation.stack());
    }
}
