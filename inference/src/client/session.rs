//! One client's dealings with one model, under one key.

use std::fmt;

use zeroize::Zeroizing;

use super::error::{DecryptError, EncryptError};
use super::secret_key::SecretKey;
use crate::binary::{Buffers, Factor};
use crate::bits::unpack;
use crate::description::Description;
use crate::mask::Keystream;
use crate::message::{self, MessageKind};
use crate::packing::Packing;
use crate::parameters::ParameterSet;
use crate::public_key::KeyId;
use crate::random::{self, Noise};

/// Encrypts rows and decrypts answers under a secret key of its own, which is made with it and dies with it.
///
/// Make one per connection. The key, encoded features, the state of the noise's generator and all else that would reveal
/// them are erased from memory after use. There is no copy of a session, and no file of it:
///
/// ```compile_fail,E0277
/// fn copy<T: Clone>() {}
/// copy::<cloister_inference::Session>();
/// ```
pub struct Session {
    pub(super) description: Description,
    pub(super) key: SecretKey,
    pub(super) public_key: Vec<u8>,
    pub(super) noise: Noise,
    /// The mask at work, k polynomials.
    pub(super) masks: Vec<Factor>,
    pub(super) buffers: Buffers,
}

/// An encrypted request, and what is needed to read its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub(super) bytes: Vec<u8>,
    pub(super) layout: u8,
    pub(super) rows: usize,
    /// What has to come back of the check, of a model that chooses.
    pub(super) check: Vec<u64>,
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
        let parameters = description.parameters();
        let mut session = Self {
            description: description.clone(),
            key: SecretKey::generate(parameters),
            public_key: vec![],
            noise: Noise::new(),
            masks: (0..parameters.dimension()).map(|_| Factor::new(parameters, |_| ())).collect(),
            buffers: Buffers::default(),
        };
        session.public_key = session.encrypt_zero(parameters);
        session
    }

    /// The public key's message: seed and body of an encryption of zero, with which the evaluator makes replies anew. To
    /// be sent before the first request, or with it.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    fn encrypt_zero(&mut self, parameters: ParameterSet) -> Vec<u8> {
        let mut bodies = Zeroizing::new(vec![0; parameters.mask_len()]);
        let seed = random::seed();
        let mut stream = Keystream::new(&seed);
        for body in bodies.chunks_exact_mut(parameters.degree()) {
            self.masks.iter_mut().for_each(|mask| mask.refill(parameters, |mask| stream.fill(mask)));
            self.key.multiply(&self.masks, 0, body, &mut self.buffers);
        }
        self.noise.add_t_uniform(parameters.noise(), &mut bodies);
        let mut bytes = message::header(MessageKind::PublicKey, parameters, 0, 0).to_vec();
        bytes.extend(seed);
        bytes.extend(bodies.iter().flat_map(|body| body.to_le_bytes()));
        bytes
    }

    /// What the session was made for.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Encrypts rows of features, each in the order of the description.
    ///
    /// 1. Encode: the x̃ of the rows, and their digits; choose a layout.
    /// 2. For each block of features: m ← 2^δ·x̃ on their coefficients; a ← the next mask of a fresh seed.
    /// 3. b ← a·S + e + m on the window, e from TUniform(t).
    /// 4. Send the seed and the leading bits of every b.
    pub fn encrypt(&mut self, rows: &[impl AsRef<[f64]>]) -> Result<Request, EncryptError> {
        let capacity = self.description.rows_per_request();
        if !(1..=capacity).contains(&rows.len()) {
            return Err(EncryptError::TooManyRows { rows: rows.len(), capacity });
        }
        let encoded = self.description.encode(rows)?;
        if let (Some(selection), Some(shape)) = (self.description.selection(), self.description.selection_shape()) {
            let mut bits = Zeroizing::new(Vec::with_capacity(shape.bits));
            bits.extend(selection.bits_of(&encoded[0]));
            return Ok(self.encrypt_bits(&bits, &shape));
        }
        let (layout, &packing) = self.description.packing_for(rows.len());
        let mut plain = self.place(&packing, &encoded);

        let (seed, parameters) = (random::seed(), packing.shape.parameters);
        let mut bytes = Vec::with_capacity(packing.request_len(rows.len()));
        bytes.extend(message::header(MessageKind::Request, parameters, layout, rows.len()));
        bytes.extend(KeyId::of(&self.public_key).0);
        bytes.extend(seed);
        let mut stream = Keystream::new(&seed);
        for bodies in plain.chunks_exact_mut(packing.bodies(rows.len())) {
            self.masks[0].refill(parameters, |mask| stream.fill(mask));
            self.add_masks(&packing, bodies);
            self.noise.add_t_uniform(parameters.noise(), bodies);
            message::write_bodies(bodies, parameters, &mut bytes);
        }
        Ok(Request { bytes, layout, rows: rows.len(), check: vec![] })
    }

    /// m of every block, one after the other.
    fn place(&self, packing: &Packing, encoded: &[Zeroizing<Vec<i64>>]) -> Zeroizing<Vec<u64>> {
        let (bodies, shift) = (packing.bodies(encoded.len()), self.description.scale().shift);
        let digits = self.description.limbs().features;
        let mut plain = Zeroizing::new(vec![0; packing.blocks() * bodies]);
        for (row, features) in encoded.iter().enumerate() {
            for (feature, &x) in features.iter().enumerate() {
                for (limb, digit) in digits.of_word(x).enumerate() {
                    let (block, at) = packing.input(packing.limb_rows(row) + limb, feature);
                    plain[block * bodies + packing.lead() + at] = (digit as u64) << shift;
                }
            }
        }
        plain
    }

    /// `bodies` += a·S on the window: its coefficients below zero are the last of the polynomial.
    fn add_masks(&mut self, packing: &Packing, bodies: &mut [u64]) {
        let (below_zero, above) = bodies.split_at_mut(packing.lead());
        self.key.multiply(&self.masks, packing.degree() - packing.lead(), below_zero, &mut self.buffers);
        self.key.multiply(&self.masks, 0, above, &mut self.buffers);
    }

    /// The published logits of each row of a request, from the reply to it.
    ///
    /// An error means that the evaluator is not what it should be. Do not send the same rows again under this session.
    pub fn decrypt(&mut self, request: &Request, reply: &[u8]) -> Result<Vec<Vec<f64>>, DecryptError> {
        let outputs = match self.description.selection_shape() {
            Some(shape) => self.decrypt_chosen(request, reply, &shape)?,
            None => self.decrypt_outputs(request, reply)?,
        };
        let limit = self.description.limit();
        if outputs.iter().any(|output| output.unsigned_abs() > limit) {
            return Err(DecryptError::OutOfBound);
        }
        let shift = self.description.scale().shift;
        let half = (1 << shift) >> 1;
        let rounded: Zeroizing<Vec<i64>> =
            Zeroizing::new(outputs.iter().map(|output| (output + half) >> shift).collect());
        let publish = |row: &[i64]| {
            let logits = self.description.limbs().recombine(row);
            logits.into_iter().map(|logit| self.description.publish(logit)).collect()
        };
        Ok(rounded.chunks_exact(rounded.len() / request.rows).map(publish).collect())
    }

    /// 2^δ·L + e ← b' − a'·S on the outputs: for every row and limb of its features, those of every logit and limb of the
    /// weights.
    pub(crate) fn decrypt_outputs(
        &mut self,
        request: &Request,
        reply: &[u8],
    ) -> Result<Zeroizing<Vec<i64>>, DecryptError> {
        let Self { description, key, masks, buffers, .. } = self;
        let (packings, bits) = (description.packings(), description.scale().reply);
        let payload = message::reply_payload(reply, packings, (request.layout, request.rows))?;
        let payload = payload.ok_or(DecryptError::OtherRequest)?;
        let packing = &packings[usize::from(request.layout)];
        let (rows, outputs, kappa) = (packing.limb_rows(request.rows), packing.shape.outputs(), packing.kappa());

        let mut coefficients = unpack(payload, bits).map(|leading| leading << (64 - bits));
        let mut phases = Zeroizing::new(vec![0u64; rows * outputs]);
        let mut products = Zeroizing::new(vec![0; rows * kappa]);
        for group in 0..packing.groups() {
            masks[0].refill(packing.shape.parameters, |mask| {
                mask.iter_mut().zip(&mut coefficients).for_each(|(a, coefficient)| *a = coefficient);
            });
            products.fill(0);
            key.multiply_rows(masks, packing.output(0), (packing.stride(), kappa), &mut products, buffers);
            for (phases, products) in phases.chunks_exact_mut(outputs).zip(products.chunks_exact(kappa)) {
                let phases = &mut phases[packing.outputs_of(group)];
                phases.iter_mut().zip(products).for_each(|(phase, product)| *phase = product.wrapping_neg());
            }
        }
        let mut decrypted = Zeroizing::new(Vec::with_capacity(phases.len()));
        decrypted.extend(phases.iter().zip(coefficients).map(|(phase, body)| phase.wrapping_add(body) as i64));
        Ok(decrypted)
    }
}

/// What a client that wants to know the model has at hand.
#[cfg(test)]
impl Session {
    /// The noise in each body coefficient of a request, rounding included: for every block its window.
    pub(crate) fn noise_of(&mut self, request: &Request, rows: &[Vec<f64>]) -> Vec<Vec<i64>> {
        let packing = self.description.packings()[usize::from(request.layout)];
        let encoded = self.description.encode(rows).unwrap();
        let plain = self.place(&packing, &encoded);
        let parts = message::RequestParts::parse(&request.bytes, self.description.packings()).unwrap();
        let mut stream = Keystream::new(parts.seed);
        let mut bodies = vec![];
        message::read_bodies(parts.bodies, packing.shape.parameters, &mut bodies);
        let blocks =
            bodies.chunks_exact(packing.bodies(rows.len())).zip(plain.chunks_exact(packing.bodies(rows.len())));
        let noise = blocks.map(|(bodies, plain)| {
            self.masks[0].refill(packing.shape.parameters, |mask| stream.fill(mask));
            let mut masked = plain.to_vec();
            self.add_masks(&packing, &mut masked);
            bodies.iter().zip(masked).map(|(body, masked)| body.wrapping_sub(masked) as i64).collect()
        });
        noise.collect()
    }

    /// The masks of a request's blocks.
    pub(crate) fn masks_of(&self, request: &Request) -> Vec<Vec<u64>> {
        let packing = self.description.packings()[usize::from(request.layout)];
        let parts = message::RequestParts::parse(&request.bytes, self.description.packings()).unwrap();
        let mut stream = Keystream::new(parts.seed);
        let mask = |_| {
            let mut mask = vec![0; packing.degree()];
            stream.fill(&mut mask);
            mask
        };
        (0..packing.blocks()).map(mask).collect()
    }

    /// The mask coefficients of a reply, as far as they travel.
    pub(crate) fn masks_of_reply(&self, request: &Request, reply: &[u8]) -> Vec<u64> {
        let packings = self.description.packings();
        let payload = message::reply_payload(reply, packings, (request.layout, request.rows)).unwrap().unwrap();
        let (bits, packing) = (self.description.scale().reply, packings[usize::from(request.layout)]);
        unpack(payload, bits).take(packing.groups() * packing.degree()).map(|bits_of| bits_of << (64 - bits)).collect()
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tfhe::core_crypto::prelude::{
        CiphertextModulus, GlweCiphertext, GlweCiphertextOwned, PlaintextCount, PlaintextList, decrypt_glwe_ciphertext,
    };

    use super::*;
    use crate::bound::{Noise as Bound, Norms};
    use crate::bundle::Bundle;
    use crate::bundle::tests::{exact_sample, sample, uniform};
    use crate::evaluator::{Evaluator, Scratch};
    use crate::public_key::PublicKey;

    /// Small, wide, many classes, one row that fills the polynomial, many that do, so that the window wraps, and models
    /// of several blocks and groups.
    const SHAPES: [(usize, usize); 12] = [
        (4, 3),
        (1, 2),
        (2, 2),
        (5, 7),
        (64, 10),
        (7, 292),
        (1, 1000),
        (1024, 2),
        (64, 32),
        (3, 682),
        (2500, 3),
        (30, 1),
    ];

    /// Those, and some that look random.
    fn shapes() -> impl Iterator<Item = (usize, usize)> {
        let random = uniform(20, 8).into_iter().map(|word| {
            let classes = 1 + word as usize % 60;
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
    fn naive(bundle: &Bundle, encoded: &[Zeroizing<Vec<i64>>]) -> Vec<Vec<i128>> {
        let (model, limbs) = (bundle.linear(), bundle.description().limbs());
        let bias = |digits: &Vec<i64>| limbs.recombine(digits)[0];
        let logit = |row: &[i64], (weights, digits): (&Vec<i64>, &Vec<i64>)| {
            let products = weights.iter().zip(row).map(|(&w, &x)| i128::from(w) * i128::from(x));
            bias(digits) + products.sum::<i128>()
        };
        let classes = || model.weights.iter().zip(&model.biases);
        encoded.iter().map(|row| classes().map(|class| logit(row, class)).collect()).collect()
    }

    /// Encrypts, evaluates as a service does, and gives all that came of it.
    fn exchange(bundle: &Bundle, session: &mut Session, rows: &[Vec<f64>]) -> (Request, Vec<u8>) {
        let key = PublicKey::from_bytes(session.public_key()).unwrap();
        let request = session.encrypt(rows).unwrap();
        assert_eq!(request.bytes().len(), bundle.request_len(rows.len()));
        let reply = Evaluator::new(bundle).evaluate(request.bytes(), &key, &mut Scratch::default()).unwrap();
        assert_eq!(reply.len(), bundle.reply_len(rows.len()));
        (request, reply)
    }

    /// The largest noise that an output of this bundle may have.
    fn largest_noise(bundle: &Bundle) -> u128 {
        let description = bundle.description();
        let (packings, scale) = (description.packings(), description.scale());
        let norms = Norms::new(bundle.linear(), description.limbs(), &vec![0; description.features().len()]);
        Bound::new(&norms, scale, packings).total()
    }

    /// For every shape and from one row to as many as fit, which takes every layout: decrypted = oracle + e with |e|
    /// within the proven bound, and the oracle is what a plain sum gives.
    #[test]
    fn decrypted_is_the_oracle_up_to_the_proven_noise() {
        for (index, (features, classes)) in shapes().enumerate() {
            let bundle = sample(features, classes);
            let evaluator = Evaluator::new(&bundle);
            let mut session = Session::new(bundle.description());
            let (bound, capacity) = (largest_noise(&bundle), bundle.rows_per_request());
            let counts = [1, 16, capacity.div_ceil(2), capacity].map(|count| count.min(capacity));
            for count in HashSet::from(counts) {
                let rows = rows(&bundle, count, index as u8);
                let (request, reply) = exchange(&bundle, &mut session, &rows);
                let encoded = bundle.description().encode(&rows).unwrap();
                let oracle = evaluator.evaluate_clear(&encoded);
                assert_eq!(oracle, naive(&bundle, &encoded));
                let decrypted = session.decrypt_outputs(&request, &reply).unwrap();
                for (logit, oracle) in decrypted.iter().zip(oracle.iter().flatten()) {
                    let noise = (i128::from(*logit) - oracle).unsigned_abs();
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

    /// With limbs every logit is the oracle's to the last bit, through re-randomisation, flood and rounding.
    #[test]
    fn exact_logits_are_the_oracle() {
        for (index, (features, classes)) in [(4, 3), (30, 1), (64, 10), (1000, 4), (5, 7)].into_iter().enumerate() {
            let bundle = exact_sample(features, classes);
            let (evaluator, description) = (Evaluator::new(&bundle), bundle.description());
            let mut session = Session::new(description);
            for count in [1, 7, bundle.rows_per_request()].map(|count| count.min(bundle.rows_per_request())) {
                let rows = rows(&bundle, count, index as u8);
                let (request, reply) = exchange(&bundle, &mut session, &rows);
                let encoded = description.encode(&rows).unwrap();
                let oracle = evaluator.evaluate_clear(&encoded);
                assert_eq!(oracle, naive(&bundle, &encoded));
                let expected = oracle.iter().map(|row| row.iter().map(|&logit| description.publish(logit)).collect());
                assert_eq!(session.decrypt(&request, &reply).unwrap(), expected.collect::<Vec<Vec<f64>>>());
            }
        }
    }

    /// The buffers' contents and the number of threads do not matter.
    #[test]
    fn an_evaluation_is_a_function_of_the_request() {
        let bundles = [sample(64, 10), sample(2500, 3), exact_sample(30, 40)];
        let mut scratches = [Scratch::default(), Scratch::with_threads(2), Scratch::with_threads(5)];
        for bundle in &bundles {
            let evaluator = Evaluator::new(bundle);
            let mut session = Session::new(bundle.description());
            for count in [1, bundle.rows_per_request()] {
                let request = session.encrypt(&rows(bundle, count, 3)).unwrap();
                let fresh = evaluator.evaluate_bare(request.bytes(), &mut Scratch::default()).unwrap();
                for scratch in &mut scratches {
                    assert!(evaluator.evaluate_bare(request.bytes(), scratch).unwrap() == fresh);
                }
            }
        }
    }

    fn to_tfhe(set: ParameterSet, words: Vec<u64>) -> GlweCiphertextOwned<u64> {
        GlweCiphertext::from_container(words, set.polynomial_size(), CiphertextModulus::new_native())
    }

    fn decrypt_with_tfhe(session: &Session, ciphertext: &GlweCiphertextOwned<u64>) -> Vec<u64> {
        let mut plain = PlaintextList::new(0, PlaintextCount(ciphertext.polynomial_size().0));
        decrypt_glwe_ciphertext(&session.key.to_tfhe(), ciphertext, &mut plain);
        plain.into_container()
    }

    /// The noise is there and within its bounds: uniform on ±2^17, 2048 times, it gets past half of that.
    fn assert_noise(set: ParameterSet, errors: &[u64]) {
        let errors: Vec<i64> = errors.iter().map(|&error| error as i64).collect();
        let half = set.largest_noise() as i64 / 2;
        assert!(errors.iter().all(|error| error.unsigned_abs() <= set.body_error()));
        assert!(errors.iter().any(|&error| error > half) && errors.iter().any(|&error| error < -half));
        assert!(errors.iter().filter(|error| error.abs() < half / 4).count() < errors.len() / 3);
    }

    #[test]
    fn a_request_is_a_ciphertext_that_tfhe_decrypts() {
        let bundle = sample(1, 1);
        let (count, degree) = (bundle.rows_per_request(), 2048);
        assert_eq!(count, degree, "every body coefficient travels");
        let mut session = Session::new(bundle.description());
        let rows = rows(&bundle, count, 9);
        let request = session.encrypt(&rows).unwrap();
        let parts = message::RequestParts::parse(request.bytes(), bundle.description().packings()).unwrap();
        let set = bundle.parameters();
        let mut words = vec![0; degree];
        Keystream::new(parts.seed).fill(&mut words);
        message::read_bodies(parts.bodies, set, &mut words);
        let plain = decrypt_with_tfhe(&session, &to_tfhe(set, words));
        let encoded = bundle.description().encode(&rows).unwrap();
        let errors: Vec<u64> = plain.iter().zip(&encoded).map(|(x, y)| x.wrapping_sub(y[0] as u64)).collect();
        assert_noise(set, &errors);
    }

    #[test]
    fn a_public_key_is_an_encryption_of_zero() {
        let bundle = sample(4, 3);
        let (session, set) = (Session::new(bundle.description()), bundle.parameters());
        assert_eq!(session.public_key().len(), PublicKey::len(set));
        let (seed, bodies) = message::public_key(session.public_key(), set).unwrap();
        let mut words = vec![0; set.degree()];
        Keystream::new(seed).fill(&mut words);
        words.extend(bodies.as_chunks().0.iter().map(|body| u64::from_le_bytes(*body)));
        assert_noise(set, &decrypt_with_tfhe(&session, &to_tfhe(set, words)));
    }

    #[test]
    fn a_reply_decrypts_to_the_same_with_tfhe() {
        let bundle = sample(4, 3);
        let (set, bits) = (bundle.parameters(), bundle.description().scale().reply);
        let mut session = Session::new(bundle.description());
        let (request, reply) = exchange(&bundle, &mut session, &rows(&bundle, 150, 4));
        let packing = &bundle.description().packings()[usize::from(request.layout)];
        assert_eq!(packing.groups(), 1, "one ciphertext");

        let payload = message::reply_payload(&reply, bundle.description().packings(), (request.layout, 150));
        let mut coefficients = unpack(payload.unwrap().unwrap(), bits).map(|leading| leading << (64 - bits));
        let mut words: Vec<u64> = coefficients.by_ref().take(set.degree()).collect();
        words.resize(2 * set.degree(), 0);
        for (row, class) in (0..150).flat_map(|row| (0..3).map(move |class| (row, class))) {
            words[set.degree() + packing.output(row) + class] = coefficients.next().unwrap();
        }
        let plain = decrypt_with_tfhe(&session, &to_tfhe(set, words));
        let decrypted = session.decrypt_outputs(&request, &reply).unwrap();
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
        let mut seed = || {
            let request = session.encrypt(&row).unwrap();
            *message::RequestParts::parse(request.bytes(), bundle.description().packings()).unwrap().seed
        };
        assert_ne!(seed(), seed());
        let other = Session::new(bundle.description());
        assert_ne!(session.key.to_tfhe(), other.key.to_tfhe());
        assert_ne!(session.public_key(), other.public_key());
    }

    /// Two evaluations of one request have nothing in common: the mask is another one each time.
    #[test]
    fn replies_are_made_anew() {
        let bundle = sample(4, 3);
        let mut session = Session::new(bundle.description());
        let key = PublicKey::from_bytes(session.public_key()).unwrap();
        let (request, evaluator) = (session.encrypt(&rows(&bundle, 1, 1)).unwrap(), Evaluator::new(&bundle));
        let reply = || evaluator.evaluate(request.bytes(), &key, &mut Scratch::default()).unwrap();
        let (one, other) = (reply(), reply());
        let equal = one.iter().zip(&other).filter(|(x, y)| x == y).count();
        assert!(equal < one.len() / 64, "{equal} of {} bytes are equal", one.len());
    }

    #[test]
    fn a_request_is_answered_under_its_own_public_key_only() {
        let bundle = sample(4, 3);
        let (mut session, other) = (Session::new(bundle.description()), Session::new(bundle.description()));
        let request = session.encrypt(&rows(&bundle, 1, 1)).unwrap();
        let key = PublicKey::from_bytes(other.public_key()).unwrap();
        let refused = Evaluator::new(&bundle).evaluate(request.bytes(), &key, &mut Scratch::default());
        assert_eq!(refused, Err(crate::EvaluateError::Key));
        let named = Evaluator::new(&bundle).check(request.bytes()).unwrap().key;
        assert_eq!(named, KeyId::of(session.public_key()));
        assert_ne!(named, key.id());
    }

    #[test]
    fn too_few_and_too_many_rows_are_refused() {
        let bundle = sample(4, 3);
        let mut session = Session::new(bundle.description());
        let capacity = bundle.rows_per_request();
        let error = |session: &mut Session, rows| session.encrypt(&vec![[0.0; 4]; rows]).unwrap_err();
        assert_eq!(error(&mut session, 0), EncryptError::TooManyRows { rows: 0, capacity });
        assert_eq!(error(&mut session, capacity + 1), EncryptError::TooManyRows { rows: capacity + 1, capacity });
    }

    #[test]
    fn a_reply_that_is_none_is_refused() {
        let bundle = sample(4, 3);
        let mut session = Session::new(bundle.description());
        let two = session.encrypt(&[[0.5; 4], [0.1; 4]]).unwrap();
        let (one, reply) = exchange(&bundle, &mut session, &[vec![0.5; 4]]);
        assert_eq!(session.decrypt(&two, &reply), Err(DecryptError::OtherRequest));
        for len in 0..reply.len() {
            assert!(matches!(session.decrypt(&one, &reply[..len]), Err(DecryptError::Reply(_))));
        }
        let longer = [&reply[..], &[0]].concat();
        assert_eq!(session.decrypt(&one, &longer).unwrap_err().code(), "message_length");

        // The sample's logits stay under 2^60 or so: of random phases, nearly all are out of bound.
        let mut other = Session::new(bundle.description());
        let batch = vec![vec![0.5; 4]; 100];
        let mine = session.encrypt(&batch).unwrap();
        let (theirs, reply) = exchange(&bundle, &mut other, &batch);
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
