//! The key that signs receipts: ECDSA with P-256 and SHA-256, made at every boot.

use std::fmt;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, ParsedPublicKey,
        UnparsedPublicKey,
    },
};

/// What precedes the uncompressed point in the DER of a P-256 SubjectPublicKeyInfo (RFC 5480 §2): id-ecPublicKey,
/// secp256r1, and the head of a 66-byte bit string.
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The enclave's half: signs, never leaves the process, and has no serialisation.
pub struct ReceiptKey {
    pair: EcdsaKeyPair,
    spki: Vec<u8>,
}

impl ReceiptKey {
    /// Makes a new key.
    pub fn generate() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .expect("key generation fails only without randomness, and then aws-lc aborts");
        let spki = [&SPKI_PREFIX, pair.public_key().as_ref()].concat();
        Self { pair, spki }
    }

    /// The public half, a SubjectPublicKeyInfo in DER.
    pub fn public_key(&self) -> &[u8] {
        &self.spki
    }

    /// `r ‖ s` over `message`.
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature = self.pair.sign(&SystemRandom::new(), message);
        signature.expect("signing fails only without randomness, and then aws-lc aborts").as_ref().to_vec()
    }
}

impl fmt::Debug for ReceiptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiptKey").finish_non_exhaustive()
    }
}

/// The verifier's half: a point that is on the curve.
#[derive(Clone, PartialEq, Eq)]
pub struct ReceiptPublicKey {
    spki: Vec<u8>,
}

impl ReceiptPublicKey {
    /// Reads a SubjectPublicKeyInfo in DER: exactly 91 bytes, with an uncompressed point of P-256.
    pub fn from_spki(spki: &[u8]) -> Result<Self, ReceiptKeyError> {
        let point = spki.strip_prefix(&SPKI_PREFIX).filter(|point| point.len() == 65).ok_or(ReceiptKeyError)?;
        ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).map_err(|_| ReceiptKeyError)?;
        Ok(Self { spki: spki.to_vec() })
    }

    /// The SubjectPublicKeyInfo, DER.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Whether `signature` (`r ‖ s`) over `message` is by this key.
    pub(crate) fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let point = &self.spki[SPKI_PREFIX.len()..];
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
    }
}

impl fmt::Debug for ReceiptPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReceiptPublicKey").field(&hex::encode(&self.spki[SPKI_PREFIX.len()..])).finish()
    }
}

/// Bytes are not a [`ReceiptPublicKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the receipt key is not the SubjectPublicKeyInfo of a P-256 key")]
pub struct ReceiptKeyError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_half_verifies_what_the_secret_half_signs() {
        let key = ReceiptKey::generate();
        let public = ReceiptPublicKey::from_spki(key.public_key()).unwrap();
        let signature = key.sign(b"message");
        assert!(public.signed(b"message", &signature));
        assert!(!public.signed(b"another", &signature));
        let other = ReceiptPublicKey::from_spki(ReceiptKey::generate().public_key()).unwrap();
        assert!(!other.signed(b"message", &signature));
    }

    #[test]
    fn other_keys_are_refused() {
        let spki = ReceiptKey::generate().public_key().to_vec();
        let mut off_curve = spki.clone();
        off_curve[90] ^= 1;
        let mut secp256k1 = spki.clone();
        secp256k1[22] ^= 1;
        for key in [&[][..], &spki[..90], &[&spki[..], &[0]].concat(), &off_curve, &secp256k1] {
            assert_eq!(ReceiptPublicKey::from_spki(key), Err(ReceiptKeyError));
        }
    }

    #[test]
    fn the_secret_half_is_not_shown() {
        assert_eq!(format!("{:?}", ReceiptKey::generate()), "ReceiptKey { .. }");
    }
}
