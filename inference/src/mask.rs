//! A ciphertext's mask from a seed.
//!
//! The mask a of a GLWE ciphertext (a, a·S + e + m) is uniform and public. So it may be the output of a public function
//! of a seed that the sender chose uniformly: whoever tells the pair from one with a truly uniform mask tells the
//! function's output from random. Kyber-90s expands its matrix with AES-256-CTR from a public seed, and tfhe-rs its
//! seeded ciphertexts with AES-128-CTR, on the same ground. A seed chosen badly harms only the one who chose it.

use aes::Aes256;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};

/// The length of a seed in bytes.
pub(crate) const SEED_LEN: usize = 32;

/// Fills `mask` with the AES-256-CTR keystream under the key `seed` and the counter 0 (NIST SP 800-38A, big-endian
/// counter), read as little-endian words.
pub(crate) fn expand(seed: &[u8; SEED_LEN], mask: &mut [u64]) {
    let mut cipher = Ctr128BE::<Aes256>::new(seed.into(), &[0; 16].into());
    for words in mask.chunks_mut(CHUNK_LEN / 8) {
        let mut keystream = [0; CHUNK_LEN];
        cipher.apply_keystream(&mut keystream);
        for (word, bytes) in words.iter_mut().zip(keystream.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
    }
}

/// Large enough for the widest AES pipeline, small enough for the stack.
const CHUNK_LEN: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    /// AES-256 of the counters 0 and 1 under the zero key: NIST's AESAVS zero-key vector and its successor, also
    /// `openssl enc -aes-256-ctr -K 0…0 -iv 0…0 < /dev/zero`.
    #[test]
    fn it_is_aes_256_in_counter_mode() {
        let mut mask = [0; 4];
        expand(&[0; SEED_LEN], &mut mask);
        let bytes: Vec<u8> = mask.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(bytes[..16], 0xdc95c078a2408989ad48a21492842087_u128.to_be_bytes());
        assert_eq!(bytes[16..], 0x530f8afbc74536b9a963b4f1c4cb738b_u128.to_be_bytes());
    }

    #[test]
    fn a_longer_mask_starts_with_the_shorter() {
        let (mut short, mut long) = ([0; 257], [0; 2048]);
        expand(&[7; SEED_LEN], &mut short);
        expand(&[7; SEED_LEN], &mut long);
        assert_eq!(short, long[..257]);
    }
}
