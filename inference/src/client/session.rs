//! One client's dealings with one model, under one key.

use std::fmt;

use tfhe::core_crypto::commons::math::random::RandomGenerator;
use tfhe::core_crypto::prelude::{DefaultRandomGenerator, new_seeder};
use thiserror::Error;
use zeroize::Zeroizing;

use super::secret_key::{ContinuedMask, SecretKey};
use crate::bits::unpack;
use crate::description::Description;
use crate::mask::{self, SEED_LEN};
use crate::message::{self, BODY_LEN, MessageError, MessageKind, leading_bits};
use crate::packing::Packing;
use crate::parameters::BODY_BITS;

/// Encrypts rows and decrypts answers under a secret key of its own, which is made with it and dies with it.
///
/// Make one per connection. The key, encoded features and all that would reveal them are erased from memory after use; the
/// state of tfhe's noise generator is not, as it offers no way to.
pub struct Session {
    description: Description,
    key: SecretKey,
    noise: RandomGenerator<DefaultRandomGenerator>,
}

/// An encrypted request, and what is needed to read its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    bytes: Vec<u8>,
    rows: usize,
}

impl Request {
    /// What to send.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The rows in it.
    pub fn rows(&self) -> usize {
        self.rows
    }
}

impl Session {
    /// A session with a fresh secret key.
    ///
    /// # Panics
    ///
    /// If the machine has no source of entropy.
    pub fn new(description: &Description) -> Self {
        let mut seeder = new_seeder();
        Self {
            description: description.clone(),
            key: SecretKey::generate(description.parameters(), seeder.as_mut()),
            noise: RandomGenerator::new(seeder.seed()),
        }
    }

    /// What the session was made for.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Encrypts rows of features, each in the order of the description.
    ///
    /// 1. Encode: m ← the x̃ of the rows on their coefficients.
    /// 2. a ← the mask of a fresh seed.
    /// 3. b ← a·S + e + m on the window, e from TUniform(t).
    /// 4. Send the seed and the leading 48 bits of b.
    pub fn encrypt(&mut self, rows: &[impl AsRef<[f64]>]) -> Result<Request, EncryptError> {
        let packing = *self.description.packing();
        if !(1..=packing.capacity()).contains(&rows.len()) {
            return Err(EncryptError::TooManyRows { rows: rows.len(), capacity: packing.capacity() });
        }
        let mut bodies = Zeroizing::new(vec![0; packing.bodies(rows.len())]);
        let encoded = self.description.encode(rows)?;

        let seed = fresh_seed();
        self.mask_bodies(&seed, &packing, &mut bodies);
        self.noise.unsigned_integer_slice_wrapping_add_random_from_distribution_assign(
            &mut bodies,
            packing.parameters.noise(),
        );
        for (r, row) in encoded.iter().enumerate() {
            for (j, &x) in row.iter().enumerate() {
                let body = &mut bodies[packing.lead() + packing.input(r, j)];
                *body = body.wrapping_add(x as u64);
            }
        }

        Ok(Request { bytes: write_request(&packing, rows.len(), &seed, &bodies), rows: rows.len() })
    }

    /// `bodies` ← a·S on the window: its coefficients below zero are the last of the polynomial.
    fn mask_bodies(&self, seed: &[u8; SEED_LEN], packing: &Packing, bodies: &mut [u64]) {
        let mask = ContinuedMask::new(packing.parameters, |a| mask::expand(seed, a));
        let (below_zero, above) = bodies.split_at_mut(packing.lead());
        self.key.multiply(&mask, packing.degree() - packing.lead(), below_zero);
        self.key.multiply(&mask, 0, above);
    }

    /// The published logits of each row of a request, from the reply to it.
    ///
    /// An error means that the evaluator is not what it should be. Do not send the same rows again under this session.
    pub fn decrypt(&self, request: &Request, reply: &[u8]) -> Result<Vec<Vec<f64>>, DecryptError> {
        let logits = self.decrypt_integers(request, reply)?;
        let limit = self.description.limit();
        if logits.iter().any(|logit| logit.unsigned_abs() > limit) {
            return Err(DecryptError::OutOfBound);
        }
        let publish = |row: &[i64]| row.iter().map(|&logit| self.description.publish(logit)).collect();
        Ok(logits.chunks(self.description.packing().classes()).map(publish).collect())
    }

    /// L + e ← b' − a'·S on the outputs.
    fn decrypt_integers(&self, request: &Request, reply: &[u8]) -> Result<Zeroizing<Vec<i64>>, DecryptError> {
        let (packing, bits) = (self.description.packing(), self.description.scale().reply);
        let (rows, payload) = message::reply_payload(reply, packing, bits)?;
        if rows != request.rows {
            return Err(DecryptError::Rows { expected: request.rows, actual: rows });
        }
        let mut coefficients = unpack(payload, bits).map(|leading| leading << (64 - bits));
        let mask = ContinuedMask::new(packing.parameters, |a| {
            a.iter_mut().zip(&mut coefficients).for_each(|(a, coefficient)| *a = coefficient)
        });
        let mut products = Zeroizing::new(vec![0; packing.logits(rows)]);
        for (row, products) in products.chunks_exact_mut(packing.classes()).enumerate() {
            self.key.multiply(&mask, packing.output(row), products);
        }
        let phases = coefficients.zip(products.iter()).map(|(body, product)| body.wrapping_sub(*product) as i64);
        let mut logits = Zeroizing::new(Vec::with_capacity(packing.logits(rows)));
        logits.extend(phases);
        Ok(logits)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("description", &self.description)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// 32 bytes for a mask, never used before.
fn fresh_seed() -> [u8; SEED_LEN] {
    let mut seeder = new_seeder();
    let mut seed = [0; SEED_LEN];
    let (low, high) = seed.split_at_mut(SEED_LEN / 2);
    low.copy_from_slice(&seeder.seed().0.to_le_bytes());
    high.copy_from_slice(&seeder.seed().0.to_le_bytes());
    seed
}

fn write_request(packing: &Packing, rows: usize, seed: &[u8; SEED_LEN], bodies: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message::request_len(packing, rows));
    bytes.extend(message::header(MessageKind::Request, packing.parameters, rows));
    bytes.extend(seed);
    for &body in bodies {
        bytes.extend(&leading_bits(body, BODY_BITS).to_le_bytes()[..BODY_LEN]);
    }
    bytes
}

/// Why rows were not encrypted. Nothing has been sent.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum EncryptError {
    /// No rows, or more than one request holds.
    #[error("{rows} rows, where one request holds 1 to {capacity}")]
    TooManyRows {
        /// As many as given.
        rows: usize,
        /// As many as fit.
        capacity: usize,
    },
    /// A row with another number of values than the model has columns.
    #[error("row {row} has {found} values, the model has {expected} columns")]
    WrongWidth {
        /// Counted from 0.
        row: usize,
        /// The model's columns.
        expected: usize,
        /// The row's values.
        found: usize,
    },
    /// A value that is no number.
    #[error("row {row}, column {column:?}: {value} is not a number that can be encrypted")]
    NotFinite {
        /// Counted from 0.
        row: usize,
        /// The column's name.
        column: String,
        /// NaN or an infinity.
        value: f64,
    },
    /// A value for which the bound does not hold.
    #[error(
        "row {row}, column {column:?}: {value} is outside {low} to {high}, the range for which the model promises its precision"
    )]
    OutOfRange {
        /// Counted from 0.
        row: usize,
        /// The column's name.
        column: String,
        /// The value.
        value: f64,
        /// The least that is accepted.
        low: f64,
        /// The greatest.
        high: f64,
    },
}

impl EncryptError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooManyRows { .. } => "too_many_rows",
            Self::WrongWidth { .. } => "wrong_width",
            Self::NotFinite { .. } => "not_finite",
            Self::OutOfRange { .. } => "out_of_range",
        }
    }

    /// What a person does about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::TooManyRows { capacity, .. } => format!("send at least one row, and at most {capacity} at a time"),
            Self::WrongWidth { .. } => "give one value per column, in the order of the model's description".into(),
            Self::NotFinite { .. } => "fill in missing values as the model was trained, or leave the row out".into(),
            Self::OutOfRange { low, high, .. } => {
                format!(
                    "check the value and its unit, clip it to {low} or {high}, or ask for a model with a wider range"
                )
            }
        }
    }
}

/// Why a reply gave no logits. It never says anything about what was decrypted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecryptError {
    /// It is not a reply from this model.
    #[error(transparent)]
    Reply(#[from] MessageError),
    /// It answers another request.
    #[error("the reply is about {actual} rows, the request had {expected}")]
    Rows {
        /// The request's.
        expected: usize,
        /// The reply's.
        actual: usize,
    },
    /// It decrypts to what no honest evaluation gives.
    #[error(
        "the reply does not decrypt within the model's proven bound: this is not an honest evaluation of the request"
    )]
    OutOfBound,
}

impl DecryptError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Reply(error) => error.code(),
            Self::Rows { .. } => "reply_rows",
            Self::OutOfBound => "reply_out_of_bound",
        }
    }

    /// What a person does about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Reply(error) => error.remedy(),
            Self::Rows { .. } | Self::OutOfBound => {
                "do not send the data again; keep the reply and its receipt, and report the evaluator".into()
            }
        }
    }
}
