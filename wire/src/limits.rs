//! Sizes and times that both ends keep.

use std::time::Duration;

/// Bytes of a client's nonce.
pub const NONCE_BYTES: usize = 32;
/// Largest request body. A full ciphertext of the one-polynomial parameter set is 16 kB.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;
/// Largest response body that a client reads.
pub const MAX_RESPONSE_BYTES: usize = 1024 * 1024;
/// Largest JSON part of an inference message.
pub const MAX_HEADER_BYTES: usize = 4096;
/// Longest `id` of an inference request, bytes.
pub const MAX_ID_BYTES: usize = 64;

/// From accept to a finished TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// From the first byte of a request's head to its last; also how long a kept connection may idle.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// For a request's body to arrive and its answer to be made.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// After this long on one connection a client asks for a new document before its next request.
pub const REATTEST_AFTER: Duration = Duration::from_secs(15 * 60);
