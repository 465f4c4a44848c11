//! Proof that randomness was checked before any key is made.
//!
//! An enclave boots without disk, network or history, so a kernel that is not fed by the NSM could hand out predictable
//! keys. AWS therefore asks programs to check that `nsm-hwrng` is the kernel's current hardware generator.

use std::{fs, io, io::Write};

use crate::{NitroSecureModule, NsmError};

const CURRENT_GENERATOR: &str = "/sys/class/misc/hw_random/rng_current";
const NSM_GENERATOR: &str = "nsm-hwrng";
/// Two draws of this many bytes must differ; an honest generator repeats with probability 2^-256.
const DRAW: usize = 32;

/// Randomness was checked. Whatever makes a key asks for this.
#[derive(Clone, Copy, Debug)]
pub struct Entropy(());

impl Entropy {
    /// In an enclave: the kernel draws from the NSM, the NSM is not stuck, and its bytes are mixed into the kernel's pool.
    pub fn from_nsm(nsm: &NitroSecureModule) -> Result<Self, EntropyError> {
        let current = fs::read_to_string(CURRENT_GENERATOR).map_err(EntropyError::NoGenerator)?;
        if current.trim() != NSM_GENERATOR {
            return Err(EntropyError::ForeignGenerator { current: current.trim().to_owned() });
        }
        let (first, second) = (nsm.random()?, nsm.random()?);
        check_draws(&first, &second)?;
        mix(&first).and_then(|()| mix(&second)).map_err(EntropyError::Kernel)?;
        Self::from_kernel()
    }

    /// On an ordinary machine: the kernel's generator is seeded. `/dev/random` blocks until it is.
    pub fn from_kernel() -> Result<Self, EntropyError> {
        let mut draws = [[0; DRAW]; 2];
        for draw in &mut draws {
            fs::File::open("/dev/random")
                .and_then(|mut device| io::Read::read_exact(&mut device, draw))
                .map_err(EntropyError::Kernel)?;
        }
        check_draws(&draws[0], &draws[1])?;
        Ok(Self(()))
    }
}

fn check_draws(first: &[u8], second: &[u8]) -> Result<(), EntropyError> {
    let stuck = |draw: &[u8]| draw.iter().all(|byte| *byte == draw[0]);
    if first.len() < DRAW || second.len() < DRAW || first == second || stuck(first) || stuck(second) {
        return Err(EntropyError::Stuck);
    }
    Ok(())
}

/// Writing to `/dev/urandom` mixes bytes into the pool and credits none: it can only help (random(4)).
fn mix(bytes: &[u8]) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open("/dev/urandom")?.write_all(bytes)
}

/// There is no randomness that keys could be made from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntropyError {
    /// The kernel names no hardware generator.
    #[error("{CURRENT_GENERATOR} cannot be read: /sys is not mounted, or the kernel lacks the NSM's generator: {0}")]
    NoGenerator(#[source] io::Error),
    /// The kernel draws from another generator than the NSM's.
    #[error("the kernel's hardware generator is {current:?}, expected {NSM_GENERATOR:?}")]
    ForeignGenerator {
        /// What the kernel uses.
        current: String,
    },
    /// Two draws were equal, constant, or too short.
    #[error("the random generator repeats itself: no key is made from it")]
    Stuck,
    /// The kernel's generator cannot be read or written.
    #[error("the kernel's random generator fails: {0}")]
    Kernel(#[source] io::Error),
    /// The NSM gave no random bytes.
    #[error(transparent)]
    Nsm(#[from] NsmError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_of_this_machine_is_seeded() {
        Entropy::from_kernel().unwrap();
    }

    #[test]
    fn a_stuck_generator_is_refused() {
        let good: Vec<u8> = (0..32).collect();
        let other: Vec<u8> = (1..33).collect();
        assert!(check_draws(&good, &other).is_ok());
        for (first, second) in
            [(&good[..], &good[..]), (&[7; 32], &good), (&good, &[0; 32]), (&good[..16], &other), (&[], &good)]
        {
            assert!(matches!(check_draws(first, second), Err(EntropyError::Stuck)));
        }
    }
}
