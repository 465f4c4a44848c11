//! Masks of ciphertexts from a seed, and the generator behind everything else that is random here.
//!
//! The mask a of a GLWE ciphertext (a, a·S + e + m) is uniform and public. So it may be the output of a public function
//! of a seed that the sender chose uniformly: whoever tells the pair from one with a truly uniform mask tells the
//! function's output from random. Kyber-90s expands its matrix with AES-256-CTR from a public seed, and tfhe-rs its
//! seeded ciphertexts with AES-128-CTR, on the same ground. A seed chosen badly harms only the one who chose it.

use aes::Aes256;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};

/// The length of a seed in bytes.
pub(crate) const SEED_LEN: usize = 32;

/// The AES-256-CTR keystream under the key `seed` from the counter 0 on (NIST SP 800-38A, big-endian counter), read as
/// little-endian words. Its state is erased when dropped.
pub(crate) struct Keystream(Ctr128BE<Aes256>);

impl Keystream {
    pub(crate) fn new(seed: &[u8; SEED_LEN]) -> Self {
        Self(Ctr128BE::new(seed.into(), &[0; 16].into()))
    }

    /// `out` ← the next words.
    pub(crate) fn fill(&mut self, out: &mut [u64]) {
        out.fill(0);
        self.0.apply_keystream(bytemuck::cast_slice_mut(out));
        out.iter_mut().for_each(|word| *word = u64::from_le(*word));
    }

    /// `out` ← the `index`-th polynomial of that length.
    pub(crate) fn fill_at(&mut self, index: usize, out: &mut [u64]) {
        self.0.seek(index as u64 * 8 * out.len() as u64);
        self.fill(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(seed: u8, count: usize) -> Vec<u64> {
        let mut words = vec![0; count];
        Keystream::new(&[seed; SEED_LEN]).fill(&mut words);
        words
    }

    /// AES-256 of the counters 0 and 1 under the zero key: NIST's AESAVS zero-key vector and its successor, also
    /// `openssl enc -aes-256-ctr -K 0…0 -iv 0…0 < /dev/zero`.
    #[test]
    fn it_is_aes_256_in_counter_mode() {
        let bytes: Vec<u8> = words(0, 4).iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(bytes[..16], 0xdc95c078a2408989ad48a21492842087_u128.to_be_bytes());
        assert_eq!(bytes[16..], 0x530f8afbc74536b9a963b4f1c4cb738b_u128.to_be_bytes());
    }

    #[test]
    fn polynomials_follow_each_other_in_one_stream() {
        let whole = words(7, 3 * 257);
        let mut stream = Keystream::new(&[7; SEED_LEN]);
        for index in [2, 0, 1] {
            let mut polynomial = vec![0; 257];
            stream.fill_at(index, &mut polynomial);
            assert_eq!(polynomial, whole[index * 257..][..257]);
        }
        let (mut one, mut other) = (vec![0; 100], vec![0; 157]);
        let mut stream = Keystream::new(&[7; SEED_LEN]);
        stream.fill(&mut one);
        stream.fill(&mut other);
        assert_eq!([one, other].concat(), whole[..257]);
    }
}
