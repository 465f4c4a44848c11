//! The commands, a file each, and how their values are written.

pub(crate) mod models;
pub(crate) mod serve;
mod value;
