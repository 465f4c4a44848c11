//! A simulated Nitro Secure Module.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use cloister_attestation::Timestamp;
use cloister_enclave::{AttestError, Attester, Claims};

use crate::{
    Authority, Identity,
    chain::{Chain, Templates},
    document::{Envelope, Fields, Payload, array},
};

/// The NSM API's limits.
const MAX_NONCE: usize = 512;
const MAX_USER_DATA: usize = 512;
const MAX_PUBLIC_KEY: usize = 1024;

/// Signs documents like the NSM of a Nitro Enclave, under a simulated root.
pub struct SimulatedNsm {
    authority: Authority,
    identity: Identity,
    module_id: String,
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    chain: Mutex<Option<Chain>>,
}

impl SimulatedNsm {
    pub(crate) fn new(authority: Authority, identity: Identity) -> Self {
        let module_id = identity.module_id();
        Self { authority, identity, module_id, clock: Box::new(Timestamp::now), chain: Mutex::default() }
    }

    /// Takes the time from `clock` in place of this machine.
    pub fn with_clock(self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self { clock: Box::new(clock), ..self }
    }

    /// Who is simulated.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// A document with these fields. The leaf is renewed when less than an hour of its three is left.
    pub fn document(
        &self,
        nonce: Option<&[u8]>,
        public_key: Option<&[u8]>,
        user_data: Option<&[u8]>,
    ) -> Result<Vec<u8>, AttestError> {
        let limits = [
            ("nonce", nonce, MAX_NONCE),
            ("public_key", public_key, MAX_PUBLIC_KEY),
            ("user_data", user_data, MAX_USER_DATA),
        ];
        for (name, field, limit) in limits {
            if field.is_some_and(|bytes| bytes.len() > limit) {
                return Err(AttestError(format!("{name} has more than {limit} bytes")));
            }
        }
        let [nonce, public_key, user_data] = [nonce, public_key, user_data].map(|field| field.map(<[u8]>::to_vec));
        let now = (self.clock)();
        let mut cached = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        let chain = match cached.take() {
            Some(chain) if chain.lasts(now) => cached.insert(chain),
            _ => cached.insert(self.issue(now)?),
        };
        let payload = Payload::new(&self.identity, chain, Fields { nonce, public_key, user_data }, now);
        Ok(array(&Envelope::new(&payload).sign(chain)))
    }

    fn issue(&self, now: Timestamp) -> Result<Chain, AttestError> {
        Chain::issue(&self.authority, Templates::new(&self.identity, now))
            .map_err(|error| AttestError(error.to_string()))
    }
}

impl Attester for SimulatedNsm {
    fn module_id(&self) -> &str {
        &self.module_id
    }

    fn attest(&self, claims: &Claims<'_>) -> Result<Vec<u8>, AttestError> {
        let Claims { nonce, public_key, user_data } = *claims;
        self.document(Some(nonce), Some(public_key), Some(user_data))
    }
}

impl fmt::Debug for SimulatedNsm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedNsm").field("identity", &self.identity).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use cloister_attestation::{Archival, At, AuthenticDocument, UnverifiedDocument};

    use super::*;

    fn authentic(authority: &Authority, document: &[u8]) -> AuthenticDocument<Archival> {
        UnverifiedDocument::parse(document).unwrap().authenticate(&authority.root(), At::document()).unwrap()
    }

    #[test]
    fn documents_are_authentic_under_the_simulated_root_only() {
        let authority = Authority::ephemeral();
        let nsm = authority.enclave(Identity::random());
        let claims = Claims { nonce: &[1; 32], public_key: &[2; 91], user_data: &[3; 49] };
        let bytes = nsm.attest(&claims).unwrap();
        let document = authentic(&authority, &bytes);
        assert!(document.simulated());
        assert_eq!(document.module_id(), nsm.module_id());
        assert_eq!(document.region(), "simulated-1");
        assert_eq!(document.nonce(), Some(claims.nonce));
        assert_eq!(document.public_key(), Some(claims.public_key));
        assert_eq!(document.user_data(), Some(claims.user_data));
        let foreign = UnverifiedDocument::parse(&bytes).unwrap();
        assert!(foreign.authenticate(&Authority::ephemeral().root(), At::document()).is_err());
    }

    #[test]
    fn a_leaf_is_kept_until_its_last_hour() {
        let start = Timestamp::now().millis();
        let clock = Arc::new(AtomicU64::new(start));
        let authority = Authority::ephemeral();
        let shown = clock.clone();
        let nsm = authority
            .enclave(Identity::random())
            .with_clock(move || Timestamp::from_millis(shown.load(Ordering::Relaxed)));
        let leaf = |minutes: u64| {
            clock.store(start + 60_000 * minutes, Ordering::Relaxed);
            authentic(&authority, &nsm.document(None, None, None).unwrap());
            nsm.chain.lock().unwrap().as_ref().unwrap().certificate.clone()
        };
        let first = leaf(0);
        assert_eq!(leaf(119), first);
        let second = leaf(121);
        assert_ne!(second, first);
        assert_ne!(leaf(0), second, "a clock that is set back needs another leaf, too");
    }

    #[test]
    fn fields_beyond_the_limits_of_an_nsm_are_refused() {
        let nsm = Authority::ephemeral().enclave(Identity::random());
        assert!(nsm.document(Some(&[0; 513]), None, None).is_err());
        assert!(nsm.document(None, Some(&[0; 1025]), None).is_err());
        assert!(nsm.document(None, None, Some(&[0; 513])).is_err());
        assert!(nsm.document(Some(&[0; 512]), Some(&[0; 1024]), Some(&[0; 512])).is_ok());
    }
}
