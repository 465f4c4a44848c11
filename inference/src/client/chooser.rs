//! Requests to models that choose, and their replies.

use zeroize::Zeroizing;

use super::error::DecryptError;
use super::session::{Request, Session};
use crate::binary::Factor;
use crate::bits::unpack;
use crate::mask::Keystream;
use crate::message::{self, MessageKind};
use crate::public_key::KeyId;
use crate::random;
use crate::selection::Shape;

impl Session {
    /// Encrypts the bits of one row, each 0 or 1.
    ///
    /// 1. Draw a number for the check, and a seed.
    /// 2. The check: b ← a·S + e + m on K + E coefficients, the number's parts on the last E.
    /// 3. For each bit, for each level j of the gadget: rows b ← a·S + e − S_i·bit·2^(64−βj), and the last one
    ///    b ← a·S + e + bit·2^(64−βj).
    /// 4. Send the seed and the leading bits of every b.
    pub(super) fn encrypt_bits(&mut self, bits: &[u64], shape: &Shape) -> Request {
        let (seed, parameters) = (random::seed(), shape.parameters);
        let mut bytes = Vec::with_capacity(shape.request_len());
        bytes.extend(message::header(MessageKind::Request, parameters, 0, 1));
        bytes.extend(KeyId::of(&self.public_key).0);
        bytes.extend(seed);
        let mut stream = Keystream::new(&seed);

        let check = draw_check(shape);
        let mut bodies = Zeroizing::new(vec![0; shape.outputs()]);
        bodies[shape.logits..].copy_from_slice(&check);
        self.write_glwe(&mut stream, &mut bodies, &mut bytes);
        let mut bodies = Zeroizing::new(vec![0; parameters.degree()]);
        for &bit in bits {
            for level in (1..=shape.gadget.levels).rev() {
                let factor = shape.gadget.factor(level) & bit.wrapping_neg();
                for row in 0..=parameters.dimension() {
                    bodies.fill(0);
                    match self.key.polynomials().get(row) {
                        Some(polynomial) => polynomial.add_multiple(factor.wrapping_neg(), &mut bodies),
                        None => bodies[0] = factor,
                    }
                    self.write_glwe(&mut stream, &mut bodies, &mut bytes);
                }
            }
        }
        Request { bytes, layout: 0, rows: 1, check }
    }

    /// Encrypts the message in `bodies` under the next mask, and appends the leading bits.
    fn write_glwe(&mut self, stream: &mut Keystream, bodies: &mut [u64], bytes: &mut Vec<u8>) {
        let parameters = self.description.parameters();
        self.masks.iter_mut().for_each(|mask| mask.refill(parameters, |words| stream.fill(words)));
        self.key.multiply(&self.masks, 0, bodies, &mut self.buffers);
        self.noise.add_t_uniform(parameters.noise(), bodies);
        message::write_bodies(bodies, parameters, bytes);
    }

    /// The integer logits of the reply to a request, with their noise, once the check has come back.
    pub(crate) fn decrypt_chosen(
        &mut self,
        request: &Request,
        reply: &[u8],
        shape: &Shape,
    ) -> Result<Zeroizing<Vec<i64>>, DecryptError> {
        let payload = message::selection_reply(reply, shape)?;
        let mut coefficients = unpack(payload, shape.reply_bits).map(|leading| leading << (64 - shape.reply_bits));
        for mask in &mut self.masks {
            refill(mask, shape, &mut coefficients);
        }
        let mut products = Zeroizing::new(vec![0; shape.outputs()]);
        self.key.multiply(&self.masks, 0, &mut products, &mut self.buffers);
        let mut decrypted = Zeroizing::new(Vec::with_capacity(shape.outputs()));
        decrypted.extend(products.iter().zip(coefficients).map(|(product, body)| body.wrapping_sub(*product) as i64));
        let half = 1 << (63 - shape.check.bits);
        let is_ours = |(&sent, &came): (&u64, &i64)| {
            (came as u64).wrapping_sub(sent).wrapping_add(half) >> (64 - shape.check.bits) == 0
        };
        if !request.check.iter().zip(&decrypted[shape.logits..]).all(is_ours) {
            return Err(DecryptError::Foreign);
        }
        decrypted.truncate(shape.logits);
        Ok(decrypted)
    }
}

fn refill(mask: &mut Factor, shape: &Shape, coefficients: &mut impl Iterator<Item = u64>) {
    mask.refill(shape.parameters, |words| words.iter_mut().zip(coefficients).for_each(|(word, a)| *word = a));
}

/// Independent and uniform leading bits for every coefficient of the check.
fn draw_check(shape: &Shape) -> Vec<u64> {
    let mut bytes = vec![0; shape.check.count * size_of::<u64>()];
    random::fill(&mut bytes);
    let words = bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
    words.map(|word| word >> (64 - shape.check.bits) << (64 - shape.check.bits)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Bundle;
    use crate::bundle::tests::{chooser, uniform};
    use crate::evaluator::{Evaluator, Scratch};
    use crate::message::{KEY_ID_LEN, REPLY_HEAD_LEN};
    use crate::parameters::ParameterSet;
    use crate::public_key::PublicKey;
    use crate::selection::Gadget;
    use crate::selection::model::Model;
    use crate::selection::model::tests::{forest, network};
    use crate::selection::noise::Noise;

    /// Every ring and number of levels that is planned with, of trees and of a network.
    fn bundles() -> Vec<Bundle> {
        let gadget = |base, levels| Gadget { base, levels };
        let k4 = ParameterSet::K4N512TUniform17;
        let k1 = ParameterSet::N2048TUniform17;
        let trees = |set, gadget, seed| {
            let (trees, bits) = forest(seed, 6, 3);
            chooser(set, gadget, trees, &bits.iter().map(|bits| bits.len() as u32).collect::<Vec<_>>())
        };
        vec![
            trees(k4, gadget(23, 1), 1),
            trees(k4, gadget(16, 2), 2),
            trees(k4, gadget(12, 3), 3),
            trees(k1, gadget(23, 1), 4),
            trees(k1, gadget(16, 2), 5),
            chooser(k1, gadget(16, 2), network(5, 3), &[6; 4]),
            chooser(k1, gadget(23, 1), network(2, 1), &[6; 4]),
        ]
    }

    fn row(bundle: &Bundle, seed: u8) -> Vec<f64> {
        let words = uniform(bundle.description().features().len(), seed);
        words.into_iter().map(|word| word as i64 as f64 / i64::MAX as f64).collect()
    }

    /// Decrypted = oracle + e, with e within the proven bound, on one thread and on several.
    #[test]
    fn what_is_decrypted_is_what_the_oracle_says() {
        for bundle in bundles() {
            let description = bundle.description();
            let (shape, selection) = (description.selection_shape().unwrap(), description.selection().unwrap());
            let evaluator = Evaluator::new(&bundle);
            let model = bundle.chooses();
            let noise = Noise::new(&shape, model.depths(&selection.ranges()), description.scale().flood);
            let mut session = Session::new(description);
            let key = PublicKey::from_bytes(session.public_key()).unwrap();
            for (seed, threads) in [(1, 1), (2, 1), (3, 3)] {
                let row = row(&bundle, seed);
                let expected = evaluator.evaluate_clear(&description.encode(&[&row]).unwrap()).remove(0);
                let request = session.encrypt(&[&row]).unwrap();
                assert_eq!(request.bytes().len(), bundle.request_len(1));
                let reply = evaluator.evaluate(request.bytes(), &key, &mut Scratch::with_threads(threads)).unwrap();
                assert_eq!(reply.len(), bundle.reply_len(1));
                let decrypted = session.decrypt_chosen(&request, &reply, &shape).unwrap();
                for (decrypted, expected) in decrypted.iter().zip(&expected) {
                    let error = (i128::from(*decrypted) - expected).unsigned_abs() as f64;
                    assert!(error <= noise.total(), "2^{:.1} over 2^{:.1}", error.log2(), noise.total().log2());
                }
                let published = session.decrypt(&request, &reply).unwrap().remove(0);
                for (published, expected) in published.iter().zip(&expected) {
                    assert!((published - description.scale().unit() * *expected as f64).abs() <= bundle.bound());
                }
            }
        }
    }

    /// Another session's key, another request's reply, and bytes that were changed.
    #[test]
    fn a_wrong_key_and_a_foreign_reply_are_noticed() {
        for bundle in bundles() {
            let (evaluator, mut scratch) = (Evaluator::new(&bundle), Scratch::default());
            let row = row(&bundle, 1);
            let (mut ours, mut theirs) = (Session::new(bundle.description()), Session::new(bundle.description()));
            let key = PublicKey::from_bytes(ours.public_key()).unwrap();
            let (request, other) = (ours.encrypt(&[&row]).unwrap(), ours.encrypt(&[&row]).unwrap());
            let reply = evaluator.evaluate(request.bytes(), &key, &mut scratch).unwrap();
            assert!(ours.decrypt(&request, &reply).is_ok());
            assert_eq!(ours.decrypt(&other, &reply), Err(DecryptError::Foreign), "another request");
            assert_eq!(theirs.decrypt(&request, &reply), Err(DecryptError::Foreign), "another key");
            let mut changed = reply.clone();
            changed[500..600].iter_mut().zip(uniform(100, 9)).for_each(|(byte, word)| *byte ^= word as u8);
            assert_eq!(ours.decrypt(&request, &changed), Err(DecryptError::Foreign), "a mask that was changed");
            let (_, wrong) = (theirs.encrypt(&[&row]).unwrap(), PublicKey::from_bytes(theirs.public_key()).unwrap());
            assert!(evaluator.evaluate(request.bytes(), &wrong, &mut scratch).is_err());
        }
    }

    /// The check ties a reply to its request and to the key, and to no model: which one it was is for attestation and
    /// receipts to say.
    #[test]
    fn a_reply_of_another_model_is_noticed_only_if_it_is_to_another_request() {
        let gadget = Gadget { base: 16, levels: 2 };
        let [bundle, negative] = [1, -1].map(|sign| {
            let (trees, bits) = forest(1, 6, 3);
            let (mut model, bits) = (Model::from(trees), bits.iter().map(|bits| bits.len() as u32));
            model.change(|value| *value *= sign);
            chooser(ParameterSet::K4N512TUniform17, gadget, model, &bits.collect::<Vec<_>>())
        });
        let mut session = Session::new(bundle.description());
        let key = PublicKey::from_bytes(session.public_key()).unwrap();
        let row = row(&bundle, 1);
        let (request, other) = (session.encrypt(&[&row]).unwrap(), session.encrypt(&[&row]).unwrap());
        let [own, theirs] = [&bundle, &negative]
            .map(|bundle| Evaluator::new(bundle).evaluate(request.bytes(), &key, &mut Scratch::default()).unwrap());
        assert_eq!(session.decrypt(&other, &theirs), Err(DecryptError::Foreign));
        let [own, theirs] = [own, theirs].map(|reply| session.decrypt(&request, &reply).unwrap().remove(0));
        assert!(own.iter().zip(theirs).all(|(own, theirs)| (own + theirs).abs() <= 2.0 * bundle.bound()));
    }

    /// The check is no signature: it notices what meets it. A mask's coefficient meets each of the check's if a bit of
    /// the secret is set, a logit's body none.
    #[test]
    fn a_change_is_noticed_where_it_meets_the_check() {
        let bundle = &bundles()[0];
        let shape = bundle.description().selection_shape().unwrap();
        let mut session = Session::new(bundle.description());
        let request = session.encrypt(&[row(bundle, 1)]).unwrap();
        let reply = Evaluator::new(bundle).evaluate_bare(request.bytes(), &mut Scratch::default()).unwrap();
        let width = shape.reply_bits as usize / 8;
        let mut changed = |coefficient: usize, bit: u8| {
            let mut reply = reply.clone();
            reply[9 + (coefficient + 1) * width - 1] ^= bit;
            session.decrypt_chosen(&request, &reply, &shape)
        };
        let bodies = shape.parameters.mask_len();
        for check in bodies + shape.logits..bodies + shape.outputs() {
            assert_eq!(changed(check, 0x80), Err(DecryptError::Foreign));
        }
        for logit in bodies..bodies + shape.logits {
            assert!(changed(logit, 0x80).is_ok());
        }
        // 3/4 of 200, for a check of two coefficients, and eight standard deviations.
        let noticed = (0..2000).step_by(10).filter(|&mask| changed(mask, 0x80).is_err()).count();
        assert!((101..199).contains(&noticed), "{noticed}");
    }

    /// What differs between the messages for any two rows is encrypted.
    #[test]
    fn messages_of_all_rows_look_alike() {
        for bundle in bundles() {
            let (evaluator, mut session) = (Evaluator::new(&bundle), Session::new(bundle.description()));
            let features = bundle.description().features().len();
            let mut heads = [row(&bundle, 1), row(&bundle, 2), vec![-1.0; features], vec![1.0; features]].map(|row| {
                let request = session.encrypt(&[row]).unwrap();
                let reply = evaluator.evaluate_bare(request.bytes(), &mut Scratch::default()).unwrap();
                let (header, key) = (REPLY_HEAD_LEN, REPLY_HEAD_LEN + KEY_ID_LEN);
                (request.bytes().len(), request.bytes()[..key].to_vec(), reply.len(), reply[..header].to_vec())
            });
            heads.sort();
            assert_eq!(heads.first(), heads.last());
        }
    }

    #[test]
    fn messages_have_exactly_one_size() {
        let bundle = &bundles()[0];
        let (evaluator, mut scratch) = (Evaluator::new(bundle), Scratch::default());
        let mut session = Session::new(bundle.description());
        let request = session.encrypt(&[row(bundle, 1)]).unwrap();
        let code = |bytes: &[u8], scratch: &mut Scratch| evaluator.evaluate_bare(bytes, scratch).unwrap_err().code();
        for len in [0, 8, 9, 60, request.bytes().len() - 1] {
            assert!(["message_too_short", "message_length"].contains(&code(&request.bytes()[..len], &mut scratch)));
        }
        assert_eq!(code(&[request.bytes(), &[0]].concat(), &mut scratch), "message_length");
        for (index, expected) in
            [(6, "message_layout"), (7, "message_rows"), (8, "message_rows"), (5, "message_parameters")]
        {
            let mut changed = request.bytes().to_vec();
            changed[index] ^= 3;
            assert_eq!(code(&changed, &mut scratch), expected);
        }
        assert_eq!(session.encrypt(&[row(bundle, 1), row(bundle, 2)]).unwrap_err().code(), "too_many_rows");
        let reply = evaluator.evaluate_bare(request.bytes(), &mut scratch).unwrap();
        assert_eq!(session.decrypt(&request, &reply[1..]).unwrap_err().code(), "message_magic");
        assert_eq!(session.decrypt(&request, &reply[..reply.len() - 1]).unwrap_err().code(), "message_length");
    }

    /// What the analysis says of the noise is no less than what is there, and no more than ten bits more.
    #[test]
    fn the_noise_is_what_the_analysis_says() {
        for bundle in bundles() {
            let description = bundle.description();
            let (shape, selection) = (description.selection_shape().unwrap(), description.selection().unwrap());
            let evaluator = Evaluator::new(&bundle);
            let model = bundle.chooses();
            let noise = Noise::new(&shape, model.depths(&selection.ranges()), 0);
            let mut session = Session::new(description);
            let mut squares = vec![];
            for seed in 0..6 {
                let row = row(&bundle, seed);
                let expected = evaluator.evaluate_clear(&description.encode(&[&row]).unwrap()).remove(0);
                let request = session.encrypt(&[&row]).unwrap();
                let reply = evaluator.evaluate_bare(request.bytes(), &mut Scratch::default()).unwrap();
                let decrypted = session.decrypt_chosen(&request, &reply, &shape).unwrap();
                squares.extend(
                    decrypted.iter().zip(&expected).map(|(one, other)| (i128::from(*one) - other).pow(2) as f64),
                );
            }
            let measured = (squares.iter().sum::<f64>() / squares.len() as f64).sqrt();
            let deviation = noise.selection / 13.4 + noise.switch;
            println!(
                "{:?} {:?}: measured 2^{:.1}, analysed 2^{:.1}",
                shape.parameters,
                shape.gadget,
                measured.log2(),
                deviation.log2()
            );
            assert!(measured <= deviation && deviation <= 1024.0 * measured);
        }
    }
}
