//! Encrypted linear models: exact to a proven bound, without an evaluation key, in microseconds.
//!
//! A client encrypts rows of features under a key of its own; an evaluator computes every class's logit on the
//! ciphertext; the client decrypts, and gets logits that differ from the original float64 model by at most a bound that
//! was proven when the model was imported. Decryption never fails.
//!
//! Trees and small networks are evaluated on encrypted bits, by the same types: an evaluator, a session, a bundle.
//!
//! # The paved path
//!
//! ```
//! # #[cfg(feature = "import")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use cloister_inference::{
//!     Bundle, Description, Evaluator, ImportOptions, Prediction, PublicKey, Scratch, Session, import,
//! };
//!
//! // The model's owner turns an ONNX file into a bundle.
//! let onnx = std::fs::read("../tests/data/iris/iris.onnx")?;
//! let bytes = import(&onnx, &ImportOptions::new("iris", "1.0"))?.bundle.to_bytes();
//!
//! // The evaluator loads it, and gives its description to whoever asks.
//! let bundle = Bundle::from_bytes(&bytes)?;
//! let evaluator = Evaluator::new(&bundle);
//! let description = bundle.description().to_bytes();
//!
//! // A client encrypts under a key of its own, and says with what replies are to be made anew,
//! let description = Description::from_bytes(&description)?;
//! let mut session = Session::new(&description);
//! let key = PublicKey::from_bytes(session.public_key())?;
//! let request = session.encrypt(&[[5.1, 3.5, 1.4, 0.2]])?;
//! // the evaluator answers without seeing anything,
//! let reply = evaluator.evaluate(request.bytes(), &key, &mut Scratch::default())?;
//! // and only the client can read the answer.
//! let logits = session.decrypt(&request, &reply)?.remove(0);
//! let prediction = Prediction::new(&description, logits);
//! assert_eq!(prediction.label_text(), "setosa");
//! assert!(prediction.certain);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "import"))]
//! # fn main() {}
//! ```
//!
//! # Layout
//!
//! | module | what lives there | for whom |
//! |---|---|---|
//! | `parameters` | rings, secrets and noise, and where they come from | all |
//! | `packing`, `limbs` | which coefficient is what; integers as digits | all |
//! | `ring`, `transform`, `binary` | products in the ring: short, long, and with secret bits | all |
//! | `mask`, `random`, `bits` | masks from seeds, noise, b-bit numbers | all |
//! | `message` | the layout of public keys, requests and replies | all |
//! | `bound` | the error ledger, why decryption cannot fail, and what noise gives away | all |
//! | `cbor`, `description`, `bundle` | the two files, and their checks | all |
//! | `steps` | what a client does to a row in clear | all |
//! | `evaluator`, `linear`, `public_key` | the evaluation, and replies made anew | the enclave |
//! | `selection` | trees and networks: bits, decision diagrams, tables that turn, their noise | all |
//! | `client` | secret key, encryption, decryption, predictions | feature `client` |
//! | `import` | ONNX, folding, planning, the self-check | feature `import` |
//!
//! Without features the crate can hold no secret key: an evaluator is built so.

#[cfg(all(test, feature = "client"))]
mod attacks;
mod binary;
mod bits;
mod bound;
mod bundle;
mod cbor;
#[cfg(feature = "client")]
mod client;
mod description;
mod evaluator;
#[cfg(feature = "import")]
mod import;
mod limbs;
mod linear;
mod mask;
mod message;
mod packing;
mod parameters;
mod public_key;
mod random;
mod ring;
mod selection;
mod steps;
mod transform;

pub use bound::{ErrorLedger, Scale};
pub use bundle::{Bundle, BundleError};
pub use cbor::FormatError;
#[cfg(feature = "client")]
pub use client::{DecryptError, EncryptError, Prediction, Request, Session};
pub use description::{Description, DescriptionError, Feature, Label, Link, MAX_FEATURES, MAX_LOGITS, MAX_WEIGHTS};
pub use evaluator::{Asked, EvaluateError, Evaluator, Scratch};
#[cfg(feature = "import")]
pub use import::{
    FeatureRange, ImportError, ImportOptions, ImportReport, Imported, Quantisation, SelfCheck, Thresholds, import,
};
pub use limbs::{Digits, Limbs};
pub use message::{MAX_MESSAGE_LEN, MessageError, MessageKind};
pub use packing::Layout;
pub use parameters::ParameterSet;
pub use public_key::{KeyId, PublicKey};
pub use selection::model::{MAX_NEURONS, MAX_NODES, MAX_TREES, ModelError};
pub use selection::{Check, Gadget, Grid, MAX_SELECTION_LEN, Selection};
pub use steps::{Norm, Step};
