//! Which enclave is simulated.

use std::collections::BTreeMap;

use aws_lc_rs::rand;
use cloister_attestation::Sha384;

/// How many registers a document usually shows.
const REGISTERS: u8 = 16;

/// A region that AWS does not have.
const REGION: &str = "simulated-1";

/// Who the simulated enclave is, and what was measured of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The parent instance, `i-…`.
    pub instance_id: String,
    /// The enclave on it, `enc…`.
    pub enclave_id: String,
    /// The AWS region.
    pub region: String,
    /// The registers, by index.
    pub pcrs: BTreeMap<u8, [u8; 48]>,
}

impl Identity {
    /// A new enclave on a new instance, with the [measurements](Self::measurements) that all simulated enclaves share.
    pub fn random() -> Self {
        let instance_id = format!("i-{}", hex_digits(17));
        let mut pcrs: BTreeMap<_, _> = (0..REGISTERS).map(|index| (index, [0; 48])).collect();
        pcrs.extend((0..).zip(Self::measurements()));
        pcrs.insert(3, extended(b"SIMULATED role"));
        pcrs.insert(4, extended(instance_id.as_bytes()));
        Self { instance_id, enclave_id: format!("enc{}", hex_digits(16)), region: REGION.to_owned(), pcrs }
    }

    /// PCR0, 1 and 2 of every simulated enclave. They measure nothing.
    pub fn measurements() -> [[u8; 48]; 3] {
        ["SIMULATED image", "SIMULATED kernel and program", "SIMULATED models"]
            .map(|label| Sha384::of(label.as_bytes()).0)
    }

    /// The same enclave, started in debug mode, which zeroes PCR0, 1 and 2.
    pub fn debug(mut self) -> Self {
        self.pcrs.extend((0..3).map(|index| (index, [0; 48])));
        self
    }

    /// What its documents call it, `i-…-enc…`.
    pub fn module_id(&self) -> String {
        format!("{}-{}", self.instance_id, self.enclave_id)
    }
}

/// A fresh register, extended once.
fn extended(value: &[u8]) -> [u8; 48] {
    Sha384::of(&[&[0; 48], value].concat()).0
}

fn hex_digits(count: usize) -> String {
    let mut bytes = vec![0; count];
    rand::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes.iter().map(|byte| char::from(b"0123456789abcdef"[usize::from(byte & 15)])).collect()
}
