//! Encrypted linear models: exact to a proven bound, without an evaluation key, in microseconds.
//!
//! A client encrypts rows of features under a key of its own; an evaluator computes every class's logit on the
//! ciphertext; the client decrypts, and gets logits that differ from the original float64 model by at most a bound that
//! was proven when the model was imported. Decryption never fails.
//!
//! # The paved path
//!
//! ```
//! # #[cfg(feature = "import")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use cloister_inference::{Bundle, Description, Evaluator, ImportOptions, Prediction, Scratch, Session, import};
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
//! // A client encrypts,
//! let description = Description::from_bytes(&description)?;
//! let mut session = Session::new(&description);
//! let request = session.encrypt(&[[5.1, 3.5, 1.4, 0.2]])?;
//! // the evaluator answers without seeing anything,
//! let reply = evaluator.evaluate(request.bytes(), &mut Scratch::default())?;
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
//! | `parameters` | ring, secret and noise, and where they come from | all |
//! | `packing` | which coefficient is what | all |
//! | `ring`, `mask`, `bits` | products in the ring, masks from seeds, b-bit numbers | all |
//! | `message` | the layout of requests and replies | all |
//! | `bound` | the error ledger, and why decryption cannot fail | all |
//! | `cbor`, `description`, `bundle` | the two files, and their checks | all |
//! | `steps` | what a client does to a row in clear | all |
//! | `evaluator` | the evaluation | the enclave |
//! | `client` | secret key, encryption, decryption, predictions | feature `client` |
//! | `import` | ONNX, folding, planning, the self-check | feature `import` |
//!
//! Without features the crate can hold no secret key: an evaluator is built so.

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
mod mask;
mod message;
mod packing;
mod parameters;
mod ring;
mod steps;

pub use bound::{ErrorLedger, Scale};
pub use bundle::{Bundle, BundleError};
pub use cbor::FormatError;
#[cfg(feature = "client")]
pub use client::{DecryptError, EncryptError, Prediction, Request, Session};
pub use description::{Description, DescriptionError, Feature, Label, Link};
pub use evaluator::{EvaluateError, Evaluator, Scratch};
#[cfg(feature = "import")]
pub use import::{FeatureRange, ImportError, ImportOptions, ImportReport, Imported, SelfCheck, import};
pub use message::{MessageError, MessageKind};
pub use parameters::ParameterSet;
pub use steps::{Norm, Step};
