//! The data owner's half: everything that sees a secret key, a feature or a logit.

mod chooser;
mod encoding;
mod error;
mod prediction;
mod secret_key;
mod session;

pub use error::{DecryptError, EncryptError};
pub use prediction::Prediction;
pub use session::{Request, Session};
