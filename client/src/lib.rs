//! The data owner's side of Cloister: verify the evaluator, encrypt, have it evaluated, decrypt, keep evidence.
//!
//! ```text
//! endpoint     where a service is
//! intermediary who ends TLS before the enclave, where somebody does
//! connection   AttestedConnection: TLS to an enclave that satisfied the policy
//! token        by which an enclave knows its client
//! clock        where its time comes from
//! model        RemoteModel: rows in, predictions out, the secret key in between
//! evaluator    all that a further connection needs
//! pool         any number of rows, over several connections
//! table        rows from CSV, all at once or one by one
//! report       a run as a page that explains it
//! words        what terminal and page say alike
//! error        what went wrong, whose fault it is, what to do
//! ```
//!
//! The paved path:
//!
//! ```no_run
//! use cloister_client::{AttestedConnection, Policy};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let policy = Policy::parse(&std::fs::read_to_string("policy.toml")?)?;
//! let mut connection = AttestedConnection::open(&"https://127.0.0.1:8443".parse()?, policy).await?;
//! let mut iris = connection.model("iris").await?;
//! let answer = iris.infer(&[vec![5.1, 3.5, 1.4, 0.2]]).await?;
//! println!("{}", answer.predictions[0].label_text());
//! # Ok(())
//! # }
//! ```
//!
//! [`AttestedConnection::open`], with this machine's clock or another, is the only way to a connection, and nothing but a nonce
//! is sent before it returns. Where a load balancer, an API gateway or SageMaker ends TLS,
//! [`open_without_channel`](AttestedConnection::open_without_channel) says what is lost and what stays.

mod clock;
mod connection;
mod endpoint;
mod error;
mod evaluator;
mod intermediary;
mod model;
mod pool;
mod report;
mod table;
mod token;
mod transport;
pub mod words;

pub use clock::{Clock, SystemClock};
pub use cloister_attestation::Policy;
pub use cloister_inference::{Description, Label, Prediction};
pub use connection::AttestedConnection;
pub use endpoint::{Endpoint, EndpointError};
pub use error::{Error, ErrorKind};
pub use evaluator::Evaluator;
pub use intermediary::{Intermediary, IntermediaryError, ObjectLocation, SageMakerEndpoint, gateway_url};
pub use model::{Answer, RemoteModel, Timing};
pub use pool::{Pool, Reply};
pub use report::{Exchanges, Report, Verified};
pub use table::{Header, Row, Table, TableError, TableReader};
pub use token::{Token, TokenError};
