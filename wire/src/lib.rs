//! What crosses the network between client and enclave, and nothing of what it means.
//!
//! ```text
//! paths     where things are, as the Open Inference Protocol (KServe v2) names them
//! limits    sizes and times that both ends keep
//! error     stable codes with their HTTP status
//! oip       metadata and inference messages, with the binary tensor extension
//! object    messages that lie in an object store
//! ```
//!
//! Ciphertexts travel as one `BYTES` tensor; any other datatype is refused, because an encrypted model has no use for a
//! plaintext and no business seeing one.

pub mod error;
pub mod limits;
pub mod object;
pub mod oip;
pub mod paths;

/// Content type of a nonce on its way up and of the presentation that answers it.
pub const ATTESTATION_MEDIA_TYPE: &str = "application/vnd.cloister.attestation";
/// Content type of an inference message that says itself where its JSON part ends ([`oip::header_length`]). It needs no HTTP
/// header of ours, so that it survives gateways and lies in object stores as it is.
pub const INFER_MEDIA_TYPE: &str = "application/vnd.cloister.infer";
/// Content type of a question for a model's metadata, where one verb is all there is; the body is empty or ignored.
pub const METADATA_MEDIA_TYPE: &str = "application/vnd.cloister.metadata";
/// Content type of a request that names objects instead of carrying a message: [`object::ObjectRequest`].
pub const OBJECT_MEDIA_TYPE: &str = "application/vnd.cloister.object+json";
/// Content type of Open Inference Protocol messages with binary tensors.
pub const BINARY_MEDIA_TYPE: &str = "application/octet-stream";
/// Header that gives the length of the JSON part in front of binary tensors (Open Inference Protocol, binary extension).
pub const HEADER_LENGTH: &str = "inference-header-content-length";
