//! What an enclave that boots from an image measures, before it runs a line of it.
//!
//! | register | extended with the SHA-384 of |
//! |---|---|
//! | PCR0 | kernel ‖ command line ‖ every ramdisk |
//! | PCR1 | kernel ‖ command line ‖ the first ramdisk |
//! | PCR2 | the ramdisks after the first |
//!
//! A register starts as 48 zero bytes and is extended once: PCR = SHA-384(zeros ‖ SHA-384(…)). Source: AWS's "Cryptographic
//! attestation" in the Nitro Enclaves user guide, and the crate `aws-nitro-enclaves-image-format`, `EifHasher`. That it
//! is so is checked against what a running machine reports: `tests/tests/qemu.rs`.

use serde_json::{Value, json};
use sha2::{Digest, Sha384};

use crate::eif::Parts;

/// PCR0, PCR1 and PCR2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measurements(pub [[u8; 48]; 3]);

impl Measurements {
    /// Those of an image of these parts.
    pub fn of(parts: &Parts<'_>) -> Self {
        let Parts { kernel, command_line, ramdisks, metadata: _ } = *parts;
        let boot = [kernel, command_line.as_bytes()];
        let ramdisks = ramdisks.iter().map(Vec::as_slice);
        let pcr0 = extended(boot.into_iter().chain(ramdisks.clone()));
        let pcr1 = extended(boot.into_iter().chain(ramdisks.clone().take(1)));
        Self([pcr0, pcr1, extended(ramdisks.skip(1))])
    }

    /// The object `Measurements` as nitro-cli writes it.
    pub fn to_json(&self) -> Value {
        let [pcr0, pcr1, pcr2] = self.0.map(hex::encode);
        json!({ "HashAlgorithm": "Sha384 { ... }", "PCR0": pcr0, "PCR1": pcr1, "PCR2": pcr2 })
    }
}

fn extended<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> [u8; 48] {
    let digest = pieces.into_iter().fold(Sha384::new(), Sha384::chain_update).finalize();
    Sha384::new_with_prefix([0; 48]).chain_update(digest).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ramdisks: &[&str]) -> [[u8; 48]; 3] {
        let ramdisks: Vec<Vec<u8>> = ramdisks.iter().map(|text| text.as_bytes().to_vec()).collect();
        Measurements::of(&Parts { kernel: b"kernel", command_line: "quiet", ramdisks: &ramdisks, metadata: "{}" }).0
    }

    #[test]
    fn each_register_covers_what_it_should_and_nothing_else() {
        let [pcr0, pcr1, pcr2] = of(&["program", "models"]);
        let program = of(&["another program", "models"]);
        assert!(program[0] != pcr0 && program[1] != pcr1 && program[2] == pcr2);
        let models = of(&["program", "other models"]);
        assert!(models[0] != pcr0 && models[1] == pcr1 && models[2] != pcr2);
        let ramdisks = [b"program".to_vec(), b"models".to_vec()];
        let other = Parts { kernel: b"kernel", command_line: "quiet", ramdisks: &ramdisks, metadata: "{}" };
        let registers = |parts| Measurements::of(&parts).0;
        assert_eq!(registers(Parts { metadata: "other", ..other }), [pcr0, pcr1, pcr2]);
        let kernel = registers(Parts { kernel: b"linux", ..other });
        assert!(kernel[0] != pcr0 && kernel[1] != pcr1 && kernel[2] == pcr2);
        let command_line = registers(Parts { command_line: "debug", ..other });
        assert!(command_line[0] != pcr0 && command_line[1] != pcr1 && command_line[2] == pcr2);
    }

    #[test]
    fn without_a_second_ramdisk_pcr2_is_that_of_nothing() {
        // As every published example of an image with one ramdisk shows it.
        let nothing =
            "21b9efbc184807662e966d34f390821309eeac6802309798826296bf3e8bec7c10edb30948c90ba67310f7b964fc500a";
        assert_eq!(hex::encode(of(&["program"])[2]), nothing);
    }
}
