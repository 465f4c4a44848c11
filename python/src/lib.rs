//! The native half of the Python package `cloister`: verification, encryption and the network. What Python programmers
//! expect of it (arrays, frames, labels, warnings) is in `python/cloister`.
//!
//! ```text
//! client   an evaluator that was verified, and rows for it
//! executor futures that Python waits for, and may interrupt
//! stored   evidence and documents, verified offline
//! bundle   models, made of ONNX
//! convert  what Python gets to see, as dictionaries
//! error    exceptions
//! ```
//!
//! Whatever takes time runs while other threads of Python go on.

mod bundle;
mod client;
mod convert;
mod error;
mod executor;
mod stored;

/// The module `cloister._native`.
#[pyo3::pymodule]
mod _native {
    #[pymodule_export]
    use super::{
        bundle::{Bundle, import_onnx},
        client::Client,
        stored::{Policy, verify_document, verify_evidence},
    };
}
