//! Carries bytes between clients on the network and the enclaves of this EC2 instance.
//!
//! An enclave has no network: vsock, to its parent instance, is its only way out. This proxy is what stands at the other end.
//! It holds no key and looks at no ciphertext, so whoever controls it can refuse service and watch sizes and timing, and
//! what is decided about an answer is decided by the client and the enclave: nothing that the proxy says is believed.
//!
//! Where TLS ends in the enclave it accepts TCP and forwards to vsock, and that is all:
//!
//! ```no_run
//! use cloister_parent_proxy::{Address, Limits, Metrics, Shutdown, run};
//! use tokio::{net::TcpListener, sync::watch};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let listener = TcpListener::bind("0.0.0.0:8443").await?;
//! let enclaves: Vec<Address> = vec!["vsock:16:5000".parse()?, "vsock:17:5000".parse()?];
//! let (shutdown, asked) = watch::channel(Shutdown::NotAsked);
//! let proxy = tokio::spawn(run(listener, enclaves, Limits::default(), Metrics::default(), asked));
//!
//! shutdown.send(Shutdown::Drain)?;
//! println!("{}", proxy.await?);
//! # Ok(())
//! # }
//! ```
//!
//! Where TLS ends before this instance, at a load balancer, an API gateway or SageMaker, it answers HTTP with what the
//! enclaves' plain ports say: the Open Inference Protocol as it is, and SageMaker's contract for containers.
//!
//! ```no_run
//! use cloister_parent_proxy::{FrontSettings, Limits, Metrics, Shutdown, serve_http};
//! use tokio::{net::TcpListener, sync::watch};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let listener = TcpListener::bind("0.0.0.0:8080").await?;
//! let settings = FrontSettings {
//!     enclaves: vec!["vsock:16:5001".parse()?, "vsock:17:5001".parse()?],
//!     default_model: Some("iris".parse()?),
//!     ..FrontSettings::default()
//! };
//! let (_shutdown, asked) = watch::channel(Shutdown::NotAsked);
//! serve_http(listener, settings, Limits::default(), Metrics::default(), asked).await;
//! # Ok(())
//! # }
//! ```
//!
//! | path | what it does |
//! |---|---|
//! | `POST /v1/attestation`, `GET /v2…`, `POST /v2/models/M/infer` | relayed as they are |
//! | `GET /v2/health/live` | 200 while this process lives, whatever the enclaves do |
//! | `GET /ping` | 200 while an enclave is ready and attests |
//! | `POST /invocations` | the same by content type: `application/vnd.cloister.attestation`, `….metadata`, `….infer`, `….object+json` (messages in S3), `application/jsonlines` (a message in each line) |
//! | `GET /execution-parameters` | how a batch transform sends its lines |
//! | `/models…` | the verbs of a multi-model endpoint, if [`MultiModel`] says where models come from |
//!
//! | module | noun |
//! |---|---|
//! | `address` | where an enclave listens |
//! | `enclaves` | all of them, and whose turn it is |
//! | `relay` | two byte streams joined, with half-close and idle timeout |
//! | `connection` | one client's visit to the relay, from its acceptance to the line in the log |
//! | `server` | accepting, the cap, draining |
//! | `limits` | what nothing exceeds |
//! | `peers` | how many connections each address has |
//! | `http`, `linger` | the same for HTTP connections, and their end |
//! | `exchange` | a request and its answer, until that is sent |
//! | `front` | which HTTP requests are let in, and what answers them |
//! | `pool`, `upstream` | questions to one enclave, and to whichever answers |
//! | `health` | whether enclaves are ready and attest |
//! | `oip` | the Open Inference Protocol |
//! | `sagemaker` | the contract of a container |
//! | `model` | which model a request is for |
//! | `objects` | messages that lie in an object store |
//! | `repository`, `bundle` | what enclaves serve, and how that is changed |
//! | `refusal` | an answer that says no |
//! | `events` | what enclaves log |
//! | `metrics` | numbers for those who watch |
//! | `log` | lines on stderr that never slow the bytes |
//!
//! What a client and an enclave can rely on:
//!
//! - **An end is an end and an abort is an abort.** Half-close is passed on in both directions. A connection that breaks,
//!   times out or is cut resets its client, rather than show it a clean end of stream after half an answer. vsock has no
//!   reset, and the kernel of a program that dies may end its streams in order: so neither side may take the end of a
//!   stream for the end of a message, and with HTTP or TLS on top neither does.
//! - **Nothing grows.** A forwarded connection costs two buffers of 64 KiB; a slow reader slows its writer. An HTTP request
//!   costs its body and its answer, a batch four times as much as a body may have, and so many are in work at a time, each
//!   until its answer is sent; one over it is refused. Connections over the cap are reset at once rather than queued, but
//!   those on which nothing is asked make room for HTTP; log lines that nobody reads are dropped and counted.
//! - **No credential passes where TLS has ended.** Of a request's headers an enclave gets its content type and the length
//!   of its JSON part. A bearer token is for the TLS port.
//! - **A question may be asked twice.** When an enclave gives no answer, another one is asked, and one that says that the
//!   request expects another (`misdirected`) is passed over.

mod address;
mod bundle;
mod connection;
mod enclaves;
mod events;
mod exchange;
mod front;
mod health;
mod http;
mod limits;
mod linger;
mod log;
mod metrics;
mod model;
mod objects;
mod oip;
mod peers;
mod pool;
mod refusal;
mod relay;
mod repository;
mod sagemaker;
mod server;
mod upstream;

pub use address::{Address, AddressError};
pub use events::{EventListener, hear_events};
pub use front::{FrontSettings, MultiModel, serve_http, serve_metrics};
pub use limits::Limits;
pub use log::{LogGuard, log_to_stderr};
pub use metrics::Metrics;
pub use model::{Model, ModelError};
pub use objects::{Bucket, BucketError};
pub use pool::Unanswered;
pub use repository::{MAX_BUNDLE_BYTES, Repository, RepositoryError};
pub use server::{Shutdown, Summary, run};
