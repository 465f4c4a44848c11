//! The kernels that an image may have.
//!
//! PCR0 and PCR1 measure the kernel, but a measurement is only worth what is known of what was measured: so an image is
//! built with a kernel that this repository can build again, or with none.

use hex::ToHex;
use sha2::{Digest, Sha256};

/// A kernel, by the SHA-256 of its bzImage, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Its version, for people.
    pub name: &'static str,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: &'static str,
}

/// Every kernel that is accepted.
pub const PINNED: [Kernel; 1] = [Kernel {
    // enclave/image/kernel/build.sh on Debian 12, with gcc 12.2.0-14+deb12u1
    name: "Linux 6.12.107 (Debian 6.12.107-1)",
    sha256: "162e282b937c98cb28af854e5ae00dc18a7f6cf11b0d733e50c59597f47ea698",
}];

/// Which pinned kernel these bytes are.
pub fn identify(bytes: &[u8]) -> Result<Kernel, UnpinnedKernel> {
    let sha256: String = Sha256::digest(bytes).encode_hex();
    PINNED.into_iter().find(|kernel| kernel.sha256 == sha256).ok_or(UnpinnedKernel { sha256 })
}

/// A kernel that nobody put into this repository.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the kernel's SHA-256 is {sha256}, which is not pinned. Build the pinned one, {} ({}), with \
     enclave/image/kernel/build.sh; or review yours, and add its digest to enclave/image/src/kernel.rs",
    PINNED[0].name, PINNED[0].sha256
)]
pub struct UnpinnedKernel {
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_is_not_pinned_is_refused_with_its_digest() {
        let refused = identify(b"another kernel").unwrap_err();
        assert_eq!(refused.sha256, "cc5d2f8738eba981e833c5bc8b21d4f72cbbab680e4766ea3f713e0fd40f0fd4");
        assert!(refused.to_string().contains(PINNED[0].sha256));
    }
}
