//! SIMULATED enclaves for development and tests: an authority of their own, and enclave-app's service without hardware.
//!
//! An [`Authority`] stands in for AWS: its root issues chains of the very shape that AWS issues, with subjects that say
//! SIMULATED. A [`SimulatedNsm`] signs documents under it that only a verifier who was given that root accepts, and which
//! it then calls simulated. Clients run the same code as against hardware; this crate is the only place that knows how to
//! simulate, and nothing that ships depends on it.
//!
//! ```
//! use cloister_attestation::{At, Live, Timestamp, UnverifiedDocument};
//! use cloister_enclave::{Attester, Claims};
//! use cloister_simulated_enclave::{Authority, Identity};
//!
//! let authority = Authority::ephemeral();
//! let enclave = authority.enclave(Identity::random());
//! let document = enclave.attest(&Claims { nonce: &[7; 32], public_key: b"key", user_data: b"data" })?;
//! let document = UnverifiedDocument::parse(&document)?.authenticate(&authority.root(), At::<Live>::now(Timestamp::now()))?;
//! assert!(document.simulated());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! ```text
//! authority   the root, kept in a folder
//! identity    who is simulated, and its measurements
//! chain       the certificates under the root
//! document    documents, in pieces
//! nsm         what signs them: a cloister_enclave::Attester
//! policy      what accepts them
//! forge       documents that are wrong in one way
//! listen      listeners that never leave this machine
//! ```

mod authority;
mod chain;
mod document;
pub mod forge;
mod identity;
mod listen;
mod nsm;
mod policy;

pub use authority::{Authority, AuthorityError, Credentials};
pub use identity::Identity;
pub use listen::{AddressError, LocalAddress, LocalListener, LocalStream};
pub use nsm::SimulatedNsm;
pub use policy::policy;
