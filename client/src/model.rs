//! A model that is evaluated under encryption.

use std::{
    ops::AddAssign,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use cloister_attestation::{Channel, ManifestModel, Receipt, Sha384};
use cloister_inference::{Description, Prediction, Request, Session};
use cloister_wire::{
    error::ErrorCode,
    oip::{Expected, InferRequest, InferResponse, ModelMetadata},
};

use crate::{AttestedConnection, Error, transport};

/// A model of an attested connection. Its secret key is made here, never leaves, and dies with it.
#[derive(Debug)]
pub struct RemoteModel<'connection> {
    connection: &'connection mut AttestedConnection,
    model: OpenModel,
}

/// A model of whichever connection it was opened on, with its secret key.
#[derive(Debug)]
pub(crate) struct OpenModel {
    entry: ManifestModel,
    session: Session,
    /// Whether the evaluator has the session's public key.
    key_sent: bool,
    /// Set while an answer is judged: after a dishonest one the key has been used for the last time.
    spent: bool,
}

/// So many enclaves behind one balancer, each in its turn, are found without another attestation.
const MISDIRECTED_IN_A_ROW: u32 = 4;
/// After so many it is given up.
const MAX_MISDIRECTED: u32 = 4 * MISDIRECTED_IN_A_ROW;

/// The answer to one request.
#[derive(Debug)]
pub struct Answer {
    /// One per row.
    pub predictions: Vec<Prediction>,
    /// Bytes of the ciphertext messages, up and down.
    pub bytes: (usize, usize),
    /// Bytes of the public key that went with the request; 0 if the evaluator had it.
    pub public_key: usize,
    /// What the enclave signed for this answer.
    pub receipt: Receipt,
    /// Where the time went.
    pub timing: Timing,
}

/// Where the time of one answer went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// Quantising and encrypting.
    pub encrypt: Duration,
    /// From the first byte sent to the last received.
    pub exchange: Duration,
    /// Checking the receipt.
    pub receipt: Duration,
    /// Decrypting and decoding.
    pub decrypt: Duration,
}

impl AddAssign for Timing {
    fn add_assign(&mut self, Self { encrypt, exchange, receipt, decrypt }: Self) {
        self.encrypt += encrypt;
        self.exchange += exchange;
        self.receipt += receipt;
        self.decrypt += decrypt;
    }
}

impl<'connection> RemoteModel<'connection> {
    pub(crate) fn new(connection: &'connection mut AttestedConnection, model: OpenModel) -> Self {
        Self { connection, model }
    }

    /// What the model takes and gives.
    pub fn description(&self) -> &Description {
        self.model.description()
    }

    /// The connection it belongs to.
    pub fn connection(&self) -> &AttestedConnection {
        self.connection
    }

    /// Encrypts at most [`Description::rows_per_request`] rows, has them evaluated, and decrypts the answer after its
    /// receipt was checked.
    ///
    /// After an answer whose receipt or decryption failed, the session answers only [`Error::SessionSpent`]: a malicious
    /// evaluator learns at most that its answer was refused, once.
    pub async fn infer(&mut self, rows: &[Vec<f64>]) -> Result<Answer, Error> {
        self.model.infer(self.connection, rows).await
    }
}

impl OpenModel {
    /// Every call for this model has to be with this connection.
    pub(crate) async fn open(connection: &mut AttestedConnection, entry: ManifestModel) -> Result<Self, Error> {
        let answer = connection.transport.describe(&entry).await?;
        let bad = |reason: &str| Error::BadAnswer { reason: reason.to_owned() };
        let metadata: ModelMetadata =
            serde_json::from_slice(&answer).map_err(|_| bad("the model's metadata cannot be read"))?;
        let description = STANDARD
            .decode(&metadata.parameters.cloister_description)
            .map_err(|_| bad("the model's description is not base64"))?;
        // Ranges, scales, columns and labels are the attested ones, or whoever relays could permute the labels.
        let actual = Sha384::of(&description);
        if actual != entry.description {
            return Err(Error::DescriptionMismatch { name: entry.name, expected: entry.description, actual });
        }
        let session = Session::new(&Description::from_bytes(&description)?);
        Ok(Self { entry, session, key_sent: false, spent: false })
    }

    pub(crate) fn description(&self) -> &Description {
        self.session.description()
    }

    pub(crate) fn entry(&self) -> &ManifestModel {
        &self.entry
    }

    /// As [`RemoteModel::infer`].
    pub(crate) async fn infer(
        &mut self,
        connection: &mut AttestedConnection,
        rows: &[Vec<f64>],
    ) -> Result<Answer, Error> {
        if self.spent {
            return Err(Error::SessionSpent);
        }
        connection.refresh(&self.entry).await?;

        let started = Instant::now();
        let request = self.session.encrypt(rows)?;
        let encrypt = started.elapsed();

        let started = Instant::now();
        let public_key = if self.key_sent { 0 } else { self.session.public_key().len() };
        let answer = self.ask(connection, &request).await?;
        let exchange = started.elapsed();

        self.spent = true;
        let started = Instant::now();
        let response = InferResponse::parse(answer.header_length, &answer.body)
            .map_err(|error| Error::BadAnswer { reason: error.to_string() })?;
        let receipt = connection.enclave().check_receipt(
            response.receipt,
            Sha384::of(request.bytes()),
            Sha384::of(response.ciphertext),
            self.entry.bundle,
            self.description().parameters().name(),
        )?;
        connection.keep_receipt(response.receipt.to_vec());
        let checked = started.elapsed();

        let started = Instant::now();
        let logits = self.session.decrypt(&request, response.ciphertext)?;
        let predictions = logits.into_iter().map(|logits| Prediction::new(self.description(), logits)).collect();
        self.spent = false;
        let bytes = (request.bytes().len(), response.ciphertext.len());
        let timing = Timing { encrypt, exchange, receipt: checked, decrypt: started.elapsed() };
        Ok(Answer { predictions, bytes, public_key, receipt, timing })
    }

    /// Sends a request until it has come to the enclave that was verified, and to one that has the public key.
    async fn ask(
        &mut self,
        connection: &mut AttestedConnection,
        request: &Request,
    ) -> Result<transport::Answer, Error> {
        let mut misdirected = 0;
        loop {
            let error = match self.post(connection, request).await {
                Err(error) => error,
                answer => return answer,
            };
            let Error::Refused { code, .. } = error else { return Err(error) };
            match code {
                // Later sessions of this connection have displaced it.
                ErrorCode::PublicKeyMissing if self.key_sent => self.key_sent = false,
                // A balancer has sent it to another enclave than the nonce. The next may come to the right one; if none does, it is
                // the other one's turn to be verified.
                ErrorCode::Misdirected if misdirected < MAX_MISDIRECTED => {
                    misdirected += 1;
                    if misdirected % MISDIRECTED_IN_A_ROW == 0 {
                        connection.reattest(&self.entry).await?;
                    }
                }
                // Whoever relays can say so, too: what is served now, the enclave attests.
                ErrorCode::ModelChanged => {
                    connection.reattest(&self.entry).await?;
                    return Err(error);
                }
                _ => return Err(error),
            }
        }
    }

    /// Sends a request, and before the evaluator has it, the public key. Without a channel nobody keeps it.
    async fn post(
        &mut self,
        connection: &mut AttestedConnection,
        request: &Request,
    ) -> Result<transport::Answer, Error> {
        let has_channel = connection.transport.channel() != Channel::None;
        let bundle = self.entry.bundle.to_string();
        let receipt_key = (!has_channel).then(|| connection.enclave().receipt_key_digest().to_string());
        let expected = Expected { bundle: Some(&bundle), receipt_key: receipt_key.as_deref() };
        let public_key = (!self.key_sent).then_some(self.session.public_key());
        let framed = InferRequest { id: None, public_key, ciphertext: request.bytes(), expected }.to_framed();
        let answer = connection.transport.infer(&self.entry, framed).await?;
        self.key_sent = has_channel;
        Ok(answer)
    }
}
