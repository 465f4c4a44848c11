//! One client's dealings with one model, under one key.

use std::fmt;

use tfhe::core_crypto::commons::math::random::{RandomGenerator, Seed};
use tfhe::core_crypto::prelude::DefaultRandomGenerator;
use zeroize::Zeroizing;

use super::error::{DecryptError, EncryptError};
use super::random;
use super::secret_key::{ContinuedMask, SecretKey};
use crate::bits::unpack;
use crate::description::Description;
use crate::mask::{self, SEED_LEN};
use crate::message::{self, BODY_LEN, MessageKind, leading_bits};
use crate::packing::Packing;
use crate::parameters::BODY_BITS;

/// Encrypts rows and decrypts answers under a secret key of its own, which is made with it and dies with it.
///
/// Make one per connection. The key, encoded features and all that would reveal them are erased from memory after use;
/// the state of tfhe's noise generator is not, as it offers no way to. There is no copy of a session, and no file of
/// it:
///
/// ```compile_fail,E0277
/// fn copy<T: Clone>() {}
/// copy::<cloister_inference::Session>();
/// ```
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
        Self {
            description: description.clone(),
            key: SecretKey::generate(description.parameters()),
            noise: noise_generator(),
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
    let mut seed = [0; SEED_LEN];
    random::fill(&mut seed);
    seed
}

/// tfhe's generator of noise, from 128 bits of the operating system's randomness.
fn noise_generator() -> RandomGenerator<DefaultRandomGenerator> {
    let mut seed = Zeroizing::new([0; 16]);
    random::fill(&mut *seed);
    RandomGenerator::new(Seed(u128::from_le_bytes(*seed)))
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tfhe::core_crypto::prelude::{
        CiphertextModulus, GlweCiphertext, GlweCiphertextOwned, PlaintextCount, PlaintextList, decrypt_glwe_ciphertext,
    };

    use super::*;
    use crate::bound::switch_error;
    use crate::bundle::Bundle;
    use crate::bundle::tests::{sample, uniform};
    use crate::evaluator::{Evaluator, Scratch};

    /// Small, wide, many classes, one row that fills the polynomial, and many that do, so that the window wraps.
    const SHAPES: [(usize, usize); 10] =
        [(4, 3), (1, 2), (2, 2), (5, 7), (64, 10), (7, 292), (1, 2048), (1024, 2), (64, 32), (3, 682)];

    /// Those, and some that look random.
    fn shapes() -> impl Iterator<Item = (usize, usize)> {
        let random = uniform(20, 8).into_iter().map(|word| {
            let classes = 2 + word as usize % 60;
            (1 + (word >> 32) as usize % (2048 / classes), classes)
        });
        SHAPES.into_iter().chain(random)
    }

    fn rows(bundle: &Bundle, count: usize, seed: u8) -> Vec<Vec<f64>> {
        let features = bundle.description().features().len();
        let values = uniform(count * features, seed).into_iter().map(|word| match word % 5 {
            0 => -1.0,
            1 => 1.0,
            _ => word as i64 as f64 / i64::MAX as f64,
        });
        values.collect::<Vec<_>>().chunks(features).map(<[f64]>::to_vec).collect()
    }

    /// Σ_j ω_cj x̃_j + B_c, one by one.
    fn naive(bundle: &Bundle, encoded: &[Zeroizing<Vec<i64>>]) -> Vec<Vec<i64>> {
        let logit = |row: &[i64], (weights, &bias): (&Vec<i64>, &i64)| {
            let products = weights.iter().zip(row).map(|(&w, &x)| i128::from(w) * i128::from(x));
            i64::try_from(i128::from(bias) + products.sum::<i128>()).unwrap()
        };
        let model = bundle.model();
        encoded
            .iter()
            .map(|row| model.weights.iter().zip(&model.biases).map(|class| logit(row, class)).collect())
            .collect()
    }

    /// For every shape and from one row to as many as fit: decrypted = oracle + e with |e| within the proven bound, and
    /// the oracle is what a plain sum gives.
    #[test]
    fn decrypted_is_the_oracle_up_to_the_proven_noise() {
        for (index, (features, classes)) in shapes().enumerate() {
            let bundle = sample(features, classes);
            let (evaluator, mut scratch) = (Evaluator::new(&bundle), Scratch::default());
            let mut session = Session::new(bundle.description());
            let capacity = bundle.rows_per_request();
            for count in HashSet::from([1, capacity.div_ceil(2), capacity]) {
                let rows = rows(&bundle, count, index as u8);
                let request = session.encrypt(&rows).unwrap();
                assert_eq!(request.bytes().len(), bundle.request_len(count));
                let reply = evaluator.evaluate(request.bytes(), &mut scratch).unwrap();
                assert_eq!(reply.len(), bundle.reply_len(count));

                let encoded = bundle.description().encode(&rows).unwrap();
                let oracle = evaluator.evaluate_clear(&encoded);
                assert_eq!(oracle, naive(&bundle, &encoded));
                let decrypted = session.decrypt_integers(&request, &reply).unwrap();
                let parameters = bundle.parameters();
                let bound =
                    bundle.model().noise(parameters) + switch_error(bundle.description().scale().reply, parameters);
                for (logit, oracle) in decrypted.iter().zip(oracle.iter().flatten()) {
                    let noise = u128::from(logit.abs_diff(*oracle));
                    assert!(noise <= bound, "{features}×{classes}, {count} rows: {noise} > {bound}");
                }

                let published = session.decrypt(&request, &reply).unwrap();
                for (published, oracle) in published.iter().flatten().zip(oracle.iter().flatten()) {
                    let clear = *oracle as f64 * bundle.description().scale().unit();
                    assert!((published - clear).abs() <= bundle.bound(), "{published} for {clear}");
                }
            }
        }
    }

    /// The ciphertext of a request whose window is the whole polynomial, as tfhe has it.
    fn to_tfhe(packing: &Packing, request: &[u8]) -> GlweCiphertextOwned<u64> {
        let parts = message::RequestParts::parse(request, packing).unwrap();
        assert_eq!(parts.bodies.len(), packing.degree());
        let mut words = vec![0; 2 * packing.degree()];
        mask::expand(parts.seed, &mut words[..packing.degree()]);
        for (index, &[a, b, c, d, e, f]) in parts.bodies.iter().enumerate() {
            let coefficient = (index + packing.degree() - packing.lead()) % packing.degree();
            words[packing.degree() + coefficient] = u64::from_le_bytes([0, 0, a, b, c, d, e, f]);
        }
        GlweCiphertext::from_container(words, packing.parameters.polynomial_size(), CiphertextModulus::new_native())
    }

    fn decrypt_with_tfhe(session: &Session, ciphertext: &GlweCiphertextOwned<u64>) -> Vec<u64> {
        let mut plain = PlaintextList::new(0, PlaintextCount(ciphertext.polynomial_size().0));
        decrypt_glwe_ciphertext(&session.key.to_tfhe(), ciphertext, &mut plain);
        plain.into_container()
    }

    #[test]
    fn a_request_is_a_ciphertext_that_tfhe_decrypts() {
        let bundle = sample(1, 2);
        let packing = bundle.description().packing();
        let mut session = Session::new(bundle.description());
        let rows = rows(&bundle, bundle.rows_per_request(), 9);
        let request = session.encrypt(&rows).unwrap();
        let plain = decrypt_with_tfhe(&session, &to_tfhe(packing, request.bytes()));

        let mut expected = vec![0; packing.degree()];
        for (r, row) in bundle.description().encode(&rows).unwrap().iter().enumerate() {
            expected[packing.input(r, 0)] = row[0] as u64;
        }
        let errors: Vec<i64> = plain.iter().zip(expected).map(|(x, y)| x.wrapping_sub(y) as i64).collect();
        let bound = packing.parameters.body_error();
        assert!(errors.iter().all(|error| error.unsigned_abs() <= bound));
        // The noise is there: uniform on ±2^17, 2048 times, it gets past half of that.
        assert!(errors.iter().any(|&error| error > 1 << 16) && errors.iter().any(|&error| error < -(1 << 16)));
        assert!(errors.iter().filter(|error| error.unsigned_abs() < 1 << 14).count() < 600);
    }

    #[test]
    fn a_reply_decrypts_to_the_same_with_tfhe() {
        let bundle = sample(4, 3);
        let (packing, bits) = (bundle.description().packing(), bundle.description().scale().reply);
        let mut session = Session::new(bundle.description());
        let request = session.encrypt(&rows(&bundle, 150, 4)).unwrap();
        let reply = Evaluator::new(&bundle).evaluate(request.bytes(), &mut Scratch::default()).unwrap();

        let (count, payload) = message::reply_payload(&reply, packing, bits).unwrap();
        let mut coefficients = unpack(payload, bits).map(|leading| leading << (64 - bits));
        let mut words: Vec<u64> = coefficients.by_ref().take(packing.degree()).collect();
        words.resize(2 * packing.degree(), 0);
        for (row, class) in (0..count).flat_map(|row| (0..3).map(move |class| (row, class))) {
            words[packing.degree() + packing.output(row) + class] = coefficients.next().unwrap();
        }
        let size = packing.parameters.polynomial_size();
        let plain =
            decrypt_with_tfhe(&session, &GlweCiphertext::from_container(words, size, CiphertextModulus::new_native()));
        let decrypted = session.decrypt_integers(&request, &reply).unwrap();
        for (row, logits) in decrypted.chunks(3).enumerate() {
            let theirs = &plain[packing.output(row)..][..3];
            assert_eq!(logits, theirs.iter().map(|&logit| logit as i64).collect::<Vec<_>>());
        }
    }

    #[test]
    fn nothing_is_used_twice() {
        let bundle = sample(4, 3);
        let mut session = Session::new(bundle.description());
        let row = [[0.25; 4]];
        let seed = |request: Request| request.bytes()[8..40].to_vec();
        assert_ne!(seed(session.encrypt(&row).unwrap()), seed(session.encrypt(&row).unwrap()));
        let other = Session::new(bundle.description());
        assert_ne!(session.key.to_tfhe(), other.key.to_tfhe());
    }

    #[test]
    fn too_few_and_too_many_rows_are_refused() {
        let bundle = sample(4, 3);
        let mut session = Session::new(bundle.description());
        let error = |session: &mut Session, rows| session.encrypt(&vec![[0.0; 4]; rows]).unwrap_err();
        assert_eq!(error(&mut session, 0), EncryptError::TooManyRows { rows: 0, capacity: 170 });
        assert_eq!(error(&mut session, 171), EncryptError::TooManyRows { rows: 171, capacity: 170 });
    }

    #[test]
    fn a_reply_that_is_none_is_refused() {
        let bundle = sample(4, 3);
        let evaluator = Evaluator::new(&bundle);
        let mut session = Session::new(bundle.description());
        let (one, two) = (session.encrypt(&[[0.5; 4]]).unwrap(), session.encrypt(&[[0.5; 4], [0.1; 4]]).unwrap());
        let reply = evaluator.evaluate(one.bytes(), &mut Scratch::default()).unwrap();
        assert_eq!(session.decrypt(&two, &reply), Err(DecryptError::Rows { expected: 2, actual: 1 }));
        for len in 0..reply.len() {
            assert!(matches!(session.decrypt(&one, &reply[..len]), Err(DecryptError::Reply(_))));
        }
        let longer = [&reply[..], &[0]].concat();
        assert_eq!(session.decrypt(&one, &longer).unwrap_err().code(), "message_length");

        // The sample's logits stay under 2^60 or so: of random phases, nearly all are out of bound.
        let mut other = Session::new(bundle.description());
        let batch = vec![[0.5; 4]; 100];
        let (mine, theirs) = (session.encrypt(&batch).unwrap(), other.encrypt(&batch).unwrap());
        let reply = evaluator.evaluate(theirs.bytes(), &mut Scratch::default()).unwrap();
        assert_eq!(session.decrypt(&mine, &reply), Err(DecryptError::OutOfBound));
        assert!(other.decrypt(&theirs, &reply).is_ok());
    }

    #[test]
    fn a_session_may_move_between_threads_and_hides_its_key() {
        fn is_send<T: Send>(value: T) -> T {
            value
        }
        let session = is_send(Session::new(sample(4, 3).description()));
        assert!(format!("{session:?}").contains("key: SecretKey(…)"));
    }
}
