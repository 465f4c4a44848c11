//! What the end-to-end tests, the demo and the measurements share.
//!
//! ```text
//! build        shipped programs, built one package at a time as they are shipped
//! process      programs that run while a value lives
//! world        a simulated enclave behind a proxy, both separate processes
//! image        images of the enclave, as `cargo image` builds them
//! qemu         an enclave that boots from one, in a virtual machine
//! nginx        a balancer before the proxy, that ends TLS
//! python       programs in Python: AWS's models of its APIs, an S3 server, other clients
//! cli          the command line, run as a person runs it
//! documents    documents, and sessions in which their commands are run as a reader runs them
//! tasks        the tasks on which Cloister is compared with other systems
//! iris         the Iris data, its model and what scikit-learn says of it
//! linear       real pipelines of scikit-learn, and what it says of every row
//! hostile      evaluators, parents and TLS servers that cheat
//! clock        a clock that a test turns by hand
//! sagemaker    the SageMaker runtime, as far as time goes
//! service      the service in this process, with settings of its own
//! raw          a client that verifies nothing, for attacks
//! ```

pub mod build;
pub mod cli;
pub mod clock;
pub mod documents;
pub mod hostile;
pub mod image;
pub mod iris;
pub mod linear;
pub mod nginx;
pub mod process;
pub mod python;
pub mod qemu;
pub mod raw;
pub mod sagemaker;
pub mod service;
pub mod tasks;
pub mod trees;
pub mod world;
