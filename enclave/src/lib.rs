//! The Nitro Enclave platform as a program inside it sees it.
//!
//! ```text
//! attester    what signs attestation documents: the seam between hardware and simulation
//! nsm         the Nitro Secure Module behind /dev/nsm
//! entropy     proof that randomness was checked, which every key asks for
//! identity    the TLS key of this boot, and the attested channel it accepts
//! listen      where connections come from; vsock is the only transport in this crate
//! parent      the instance on the other side of vsock: its heartbeat, and connections to it
//! init        what the first process of a kernel has to do
//! ```
//!
//! The paved path is that of `cloister-enclave-app`: open the [`NitroSecureModule`] (which locks every PCR), obtain
//! [`Entropy`] from it, make a [`TlsIdentity`], and accept from a [`VsockListener`].

mod attester;
mod entropy;
mod identity;
mod init;
mod listen;
mod nsm;
pub mod parent;

pub use attester::{AttestError, Attester, Claims};
pub use entropy::{Entropy, EntropyError};
pub use identity::{AcceptError, IdentityError, TlsIdentity};
pub use init::{Init, MountError};
pub use listen::{Listener, VsockListener};
pub use nsm::{NitroSecureModule, NsmError};
