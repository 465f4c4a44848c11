//! A client's public key at the evaluator: an encryption of zero, with which replies are made anew.
//!
//! It is (a′, b′ = a′·S + e′) under the client's key S, sent once per connection, and no evaluation key: nothing is
//! evaluated with it. With bits u and noise e₁, e₂ of the evaluator's, (a′·u + e₁, b′·u + e₂) is another encryption of
//! zero; added to a reply, it hides how the reply's mask came about. a′ comes from a seed, so that no client can choose
//! it: a chosen one reads u off the reply.
//!
//! Where a key has k polynomials, a′ is a matrix of k·k: k encryptions of zero, and u has k polynomials, too. What hides
//! the reply's mask is then module-LWE of the same dimension k·N.

use sha2::{Digest, Sha256};

use crate::binary::{Binary, Buffers, Factor};
use crate::mask::Keystream;
use crate::message::{self, KEY_ID_LEN, MessageError};
use crate::parameters::ParameterSet;
use crate::random::Noise;

/// What names a public key in a request: the first 16 bytes of SHA-256 over its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(pub(crate) [u8; KEY_ID_LEN]);

impl KeyId {
    pub(crate) fn of(message: &[u8]) -> Self {
        let digest = Sha256::digest(message);
        Self(*digest.first_chunk().expect("a digest is longer"))
    }
}

/// A public key, ready for use.
pub struct PublicKey {
    id: KeyId,
    parameters: ParameterSet,
    /// By the encryptions' polynomials: for the j-th of a mask, those of all k encryptions.
    mask: Vec<Vec<Factor>>,
    body: Vec<Factor>,
}

impl PublicKey {
    /// Reads the message that a client's session made.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MessageError> {
        let parameters = message::parameters_of(bytes).unwrap_or(ParameterSet::N2048TUniform17);
        let (seed, bodies) = message::public_key(bytes, parameters)?;
        let (k, mut stream) = (parameters.dimension(), Keystream::new(seed));
        let mut mask: Vec<Vec<Factor>> = (0..k).map(|_| Vec::with_capacity(k)).collect();
        for _ in 0..k {
            for mask in &mut mask {
                mask.push(Factor::new(parameters, |words| stream.fill(words)).into_transform(parameters));
            }
        }
        let body = bodies.chunks(parameters.degree() * size_of::<u64>()).map(|bodies| {
            let words = bodies.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
            Factor::new(parameters, |body| body.iter_mut().zip(words).for_each(|(to, from)| *to = from))
                .transformed(parameters)
        });
        Ok(Self { id: KeyId::of(bytes), parameters, mask, body: body.collect() })
    }

    /// The exact bytes of a public key's message under these parameters.
    pub fn len(parameters: ParameterSet) -> usize {
        message::public_key_len(parameters)
    }

    /// What requests name it by.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The parameters that it is for.
    pub fn parameters(&self) -> ParameterSet {
        self.parameters
    }

    /// Adds an encryption of zero, made for this call: a′·u + e₁ to `mask`, and b′·u + e₂ to the outputs, which are those
    /// of rows of κ from coefficient `first` on.
    pub(crate) fn rerandomise(
        &self,
        mask: &mut [u64],
        (first, rows, outputs): (usize, (usize, usize), &mut [u64]),
        noise: &mut Noise,
        buffers: &mut Buffers,
    ) {
        let polynomial = |_| Binary::new(self.parameters, |words| noise.fill_bits(words));
        let u: Vec<Binary> = (0..self.parameters.dimension()).map(polynomial).collect();
        for (mask, factors) in mask.chunks_exact_mut(self.parameters.degree()).zip(&self.mask) {
            Binary::multiply(&u, factors, 0, mask, buffers);
        }
        noise.add_t_uniform(self.parameters.noise(), mask);
        Binary::multiply_rows(&u, &self.body, first, rows, outputs, buffers);
        noise.add_t_uniform(self.parameters.noise(), outputs);
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublicKey").field("id", &self.id).field("parameters", &self.parameters).finish_non_exhaustive()
    }
}
