//! The public keys of one connection's client, with which its replies are made anew.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use cloister_inference::{KeyId, MessageError, PublicKey};
use cloister_wire::limits::KEYS_PER_CONNECTION;

/// What a connection has sent of them, the latest few.
#[derive(Clone, Debug, Default)]
pub(crate) struct PublicKeys(Arc<Mutex<VecDeque<Arc<PublicKey>>>>);

impl PublicKeys {
    /// The key of that name: the one that came with the request, which is kept, or one that came before.
    pub(crate) fn find(&self, named: KeyId, sent: Option<&[u8]>) -> Result<Option<Arc<PublicKey>>, MessageError> {
        if let Some(sent) = sent {
            self.keep(PublicKey::from_bytes(sent)?);
        }
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(keys.iter().find(|key| key.id() == named).cloned())
    }

    fn keep(&self, key: PublicKey) {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|kept| kept.id() != key.id());
        keys.truncate(KEYS_PER_CONNECTION - 1);
        keys.push_front(Arc::new(key));
    }
}
