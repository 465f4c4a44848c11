//! Carries bytes between clients on the network and the enclaves of this EC2 instance.
//!
//! An enclave has no network: vsock, to its parent instance, is its only way out. This proxy accepts TCP and forwards
//! to vsock, and that is all. It holds no key, ends no TLS session and looks at no byte, so whoever controls it can
//! refuse service and watch sizes and timing, nothing more.
//!
//! ```no_run
//! use cloister_parent_proxy::{Address, Limits, Shutdown, run};
//! use tokio::{net::TcpListener, sync::watch};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let listener = TcpListener::bind("0.0.0.0:8443").await?;
//! let enclaves: Vec<Address> = vec!["vsock:16:5000".parse()?, "vsock:17:5000".parse()?];
//! let (shutdown, asked) = watch::channel(Shutdown::NotAsked);
//! let proxy = tokio::spawn(run(listener, enclaves, Limits::default(), asked));
//!
//! shutdown.send(Shutdown::Drain)?;
//! println!("{}", proxy.await?);
//! # Ok(())
//! # }
//! ```
//!
//! | module | noun |
//! |---|---|
//! | `address` | where an enclave listens |
//! | `enclaves` | all of them, and whose turn it is |
//! | `relay` | two byte streams joined, with half-close and idle timeout |
//! | `connection` | one client's visit, from its acceptance to the line in the log |
//! | `server` | accepting, the cap, draining |
//! | `log` | lines on stderr that never slow the bytes |
//!
//! What a client and an enclave can rely on:
//!
//! - **An end is an end and an abort is an abort.** Half-close is passed on in both directions. A connection that breaks,
//!   times out or is cut resets its client, rather than show it a clean end of stream after half an answer. vsock has no
//!   reset, and the kernel of a program that dies may end its streams in order: so neither side may take the end of a
//!   stream for the end of a message, and with HTTP or TLS on top neither does.
//! - **Nothing grows.** A connection costs two buffers of 64 KiB; a slow reader slows its writer; connections over the
//!   cap are reset at once rather than queued; log lines that nobody reads are dropped and counted.

mod address;
mod connection;
mod enclaves;
mod log;
mod relay;
mod server;

pub use address::{Address, AddressError};
pub use log::{LogGuard, log_to_stderr};
pub use server::{Limits, Shutdown, Summary, run};
