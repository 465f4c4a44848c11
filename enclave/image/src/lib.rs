//! Builds the image that a Nitro Enclave boots, and says beforehand what the enclave will measure.
//!
//! ```text
//! program       cloister-enclave-app, static, the same bytes from the same sources
//! kernel        the Linux kernels that are pinned
//! ramdisk       deterministic archives: first the program and its settings, then the models
//! eif           the Enclave Image Format
//! measurements  PCR0, PCR1 and PCR2
//! image         all of it put together
//! ```
//!
//! It runs on the machine of whoever publishes or reviews a release, and nothing of it is in the image. No container
//! tool and nothing of AWS's is needed:
//!
//! ```
//! use cloister_image::{Image, Measurements, Settings};
//!
//! let image = Image::assemble(b"a kernel", b"a program", &Settings::default(), &[]);
//! let again = Image::assemble(b"a kernel", b"a program", &Settings::default(), &[]);
//! assert_eq!(image.eif, again.eif);
//! assert_eq!(image.measurements, again.measurements);
//! ```

pub mod eif;
mod image;
pub mod kernel;
mod measurements;
pub mod program;
pub mod ramdisk;

pub use image::{COMMAND_LINE, Image, Settings, first_ramdisk, second_ramdisk};
pub use measurements::Measurements;
