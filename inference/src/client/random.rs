//! Randomness from the operating system, for all that is secret or must never repeat.

/// Fills `bytes`.
///
/// # Panics
///
/// If the operating system has no randomness to give.
pub(super) fn fill(bytes: &mut [u8]) {
    getrandom::getrandom(bytes).expect("the operating system gives random bytes");
}
