//! The evaluation: request bytes in, reply bytes out, nothing learned.
//!
//! It protects the client's data, not the model: whoever gets enough logits, or studies their noise, can solve for the
//! weights.

use thiserror::Error;

use crate::bits::Packer;
use crate::bundle::Bundle;
use crate::mask;
use crate::message::{self, MessageError, MessageKind, RequestParts, leading_bits};
use crate::packing::Packing;
use crate::ring::{continue_below_zero, correlate};

/// A model, ready to evaluate. It holds no key and needs none.
#[derive(Clone)]
pub struct Evaluator {
    packing: Packing,
    reply_bits: u32,
    /// The coefficients of W(X), highest first, as [`correlate`] takes them: `taps[dK − 1 − e]` is W\[e\].
    taps: Vec<u64>,
    /// B.
    biases: Vec<u64>,
}

/// Buffers of an evaluation, kept from one to the next.
#[derive(Debug, Default)]
pub struct Scratch {
    mask: Vec<u64>,
    product: Vec<u64>,
    window: Vec<u64>,
    logits: Vec<u64>,
}

impl Evaluator {
    /// Lays the weights out for evaluation.
    pub fn new(bundle: &Bundle) -> Self {
        let packing = *bundle.description().packing();
        let mut taps = vec![0; packing.row()];
        for (class, weights) in bundle.model().weights.iter().enumerate() {
            for (feature, &weight) in weights.iter().enumerate() {
                taps[feature * packing.classes() + packing.lead() - class] = weight as u64;
            }
        }
        let biases = bundle.model().biases.iter().map(|&bias| bias as u64).collect();
        Self { packing, reply_bits: bundle.description().scale().reply, taps, biases }
    }

    /// Evaluates the model on every row of an encrypted request.
    ///
    /// 1. Parse, check the exact size.
    /// 2. a ← the mask of the seed; a' ← W·a.
    /// 3. b' ← W·b + B, on the outputs only.
    /// 4. Reply with the leading bits of a' and b'.
    pub fn evaluate(&self, request: &[u8], scratch: &mut Scratch) -> Result<Vec<u8>, EvaluateError> {
        let request = RequestParts::parse(request, &self.packing)?;
        let Scratch { mask, product, window, logits } = scratch;

        let lead = self.packing.row() - 1;
        mask.resize(lead + self.packing.degree(), 0);
        mask::expand(request.seed, &mut mask[lead..]);
        continue_below_zero(mask, lead);
        product.resize(self.packing.degree(), 0);
        correlate(mask, &self.taps, product, u64::wrapping_mul);

        self.read_window(&request, window);
        self.logits(window, request.rows, logits);

        Ok(self.reply(request.rows, product, logits))
    }

    /// Evaluates one row of zeros, so that whatever is made on first use is made before anybody waits for it.
    ///
    /// A linear model uses no transform, whose plans tfhe measures at their first use; one that does makes them here.
    pub fn rehearse(&self) {
        let mut request = message::header(MessageKind::Request, self.packing.parameters, 1).to_vec();
        request.resize(message::request_len(&self.packing, 1), 0);
        self.evaluate(&request, &mut Scratch::default()).expect("a request of one row has this size");
    }

    /// The body's window in its order, continued by X^N = −1 at both ends.
    fn read_window(&self, request: &RequestParts<'_>, window: &mut Vec<u64>) {
        let (lead, degree) = (self.packing.lead(), self.packing.degree());
        window.clear();
        window.extend(request.bodies.iter().map(|&[a, b, c, d, e, f]| u64::from_le_bytes([0, 0, a, b, c, d, e, f])));
        for body in &mut window[..lead] {
            *body = body.wrapping_neg();
        }
        for index in degree..self.packing.window(request.rows) {
            window.push(window[index - degree].wrapping_neg());
        }
    }

    /// W·p + B on the outputs, for the polynomial p whose window this is: the same code for a body and for plain
    /// integers.
    fn logits(&self, window: &[u64], rows: usize, logits: &mut Vec<u64>) {
        logits.resize(self.packing.logits(rows), 0);
        for (row, logits) in logits.chunks_exact_mut(self.packing.classes()).enumerate() {
            correlate(&window[row * self.packing.row()..], &self.taps, logits, u64::wrapping_mul);
            for (logit, &bias) in logits.iter_mut().zip(&self.biases) {
                *logit = logit.wrapping_add(bias);
            }
        }
    }

    fn reply(&self, rows: usize, mask: &[u64], logits: &[u64]) -> Vec<u8> {
        let bits = self.reply_bits;
        let header = message::header(MessageKind::Reply, self.packing.parameters, rows);
        let mut packer = Packer::new(&header, bits, mask.len() + logits.len());
        packer.extend(mask.iter().map(|&coefficient| leading_bits(coefficient, bits)));
        packer.extend(logits.iter().map(|&coefficient| leading_bits(coefficient, bits)));
        packer.finish()
    }
}

/// The weights stay out of logs.
impl std::fmt::Debug for Evaluator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Evaluator").field("packing", &self.packing).finish_non_exhaustive()
    }
}

/// The oracle: the evaluation on plain integers.
#[cfg(feature = "client")]
impl Evaluator {
    /// The integer logits of rows as [`Description::encode`](crate::Description::encode) makes them, by the very code
    /// that evaluates ciphertexts.
    pub fn evaluate_clear(&self, rows: &[impl AsRef<[i64]>]) -> Vec<Vec<i64>> {
        let mut window = vec![0; self.packing.window(rows.len())];
        for (r, row) in rows.iter().enumerate() {
            for (j, &x) in row.as_ref().iter().enumerate() {
                window[self.packing.lead() + self.packing.input(r, j)] = x as u64;
            }
        }
        let mut logits = vec![];
        self.logits(&window, rows.len(), &mut logits);
        logits.chunks(self.packing.classes()).map(|row| row.iter().map(|&logit| logit as i64).collect()).collect()
    }
}

/// Why a request was not evaluated.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// It is not a request to this model.
    #[error(transparent)]
    Request(#[from] MessageError),
}

impl EvaluateError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Request(error) => error.code(),
        }
    }

    /// What a person does about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Request(error) => error.remedy(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::tests::{sample, uniform};

    fn request(bundle: &Bundle, rows: usize) -> Vec<u8> {
        let packing = bundle.description().packing();
        let mut request = message::header(MessageKind::Request, packing.parameters, rows).to_vec();
        request.extend(uniform(bundle.request_len(rows), 5).iter().map(|&word| word as u8));
        request.truncate(bundle.request_len(rows));
        request
    }

    #[test]
    fn an_evaluation_is_a_function_of_the_request() {
        let bundle = sample(4, 3);
        let (evaluator, mut scratch) = (Evaluator::new(&bundle), Scratch::default());
        let reply = evaluator.evaluate(&request(&bundle, 2), &mut Scratch::default()).unwrap();
        // Whatever another model and other rows have left in the buffers.
        let other = sample(64, 10);
        for (evaluator, bundle, rows) in [(&Evaluator::new(&other), &other, 3), (&evaluator, &bundle, 170)] {
            evaluator.evaluate(&request(bundle, rows), &mut scratch).unwrap();
        }
        assert_eq!(evaluator.evaluate(&request(&bundle, 2), &mut scratch).unwrap(), reply);
    }

    #[test]
    fn no_truncated_or_longer_request_is_evaluated() {
        let bundle = sample(4, 3);
        let (evaluator, mut scratch) = (Evaluator::new(&bundle), Scratch::default());
        let whole = request(&bundle, 2);
        for len in 0..whole.len() {
            let error = evaluator.evaluate(&whole[..len], &mut scratch).unwrap_err();
            assert_eq!(error.code(), if len < 8 { "message_too_short" } else { "message_length" });
        }
        let longer = [&whole[..], &vec![0; 1 << 20]].concat();
        assert_eq!(evaluator.evaluate(&longer, &mut scratch).unwrap_err().code(), "message_length");
    }

    /// Each bit of the header is checked; the others are ciphertext, and none is as good as any.
    #[test]
    fn a_flipped_bit_is_refused_in_the_header_and_harmless_behind_it() {
        let bundle = sample(4, 3);
        let (evaluator, mut scratch) = (Evaluator::new(&bundle), Scratch::default());
        let whole = request(&bundle, 2);
        for bit in (0..64).chain((64..whole.len() * 8).step_by(37)) {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let code = evaluator.evaluate(&flipped, &mut scratch).map_err(|error| error.code());
            match (bit, code) {
                (0..32, code) => assert_eq!(code, Err("message_magic")),
                (32..40, code) => assert_eq!(code, Err("message_version")),
                (40..48, code) => assert_eq!(code, Err("message_parameters")),
                (48..64, code) => assert!(matches!(code, Err("message_rows" | "message_length")), "{code:?}"),
                (_, code) => assert_eq!(code.unwrap().len(), bundle.reply_len(2)),
            }
        }
    }
}
