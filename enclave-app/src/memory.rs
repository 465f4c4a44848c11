//! What requests under way take of the enclave's memory.

use std::{sync::Arc, time::Duration};

use axum::body::{Body, Bytes};
use cloister_wire::error::ErrorCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::refusal::Refusal;

/// Memory for bodies and answers, in KiB.
#[derive(Debug)]
pub(crate) struct Memory {
    free: Arc<Semaphore>,
    total: u32,
}

/// Some of it, until dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    _permit: OwnedSemaphorePermit,
    /// Of another memory, for the same.
    _also: Option<Box<Reserved>>,
}

impl Reserved {
    /// This and that, until both are dropped.
    pub(crate) fn and(self, also: Self) -> Self {
        Self { _also: Some(Box::new(also)), ..self }
    }

    /// An answer that keeps its memory until it is sent.
    pub(crate) fn until_sent(self, answer: Vec<u8>) -> Body {
        struct Answer {
            bytes: Vec<u8>,
            _reserved: Reserved,
        }
        impl AsRef<[u8]> for Answer {
            fn as_ref(&self) -> &[u8] {
                &self.bytes
            }
        }
        Bytes::from_owner(Answer { bytes: answer, _reserved: self }).into()
    }
}

impl Memory {
    pub(crate) fn new(mib: u32) -> Self {
        let total = mib.saturating_mul(1024);
        Self { free: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// So many bytes, now or not at all. What is larger than everything gets everything, so that it can go alone.
    pub(crate) fn reserve(&self, bytes: usize) -> Result<Reserved, Refusal> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(self.total);
        match self.free.clone().try_acquire_many_owned(kib) {
            Ok(permit) => Ok(Reserved { _permit: permit, _also: None }),
            Err(_) => Err(Refusal::new(ErrorCode::Overloaded, "requests under way take all the memory that they may")
                .until(Duration::from_secs(1))),
        }
    }

    /// KiB that are taken.
    pub(crate) fn taken(&self) -> usize {
        self.total as usize - self.free.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_taken_and_given_back() {
        let memory = Memory::new(1);
        let half = memory.reserve(512 * 1024).unwrap();
        assert!(memory.reserve(513 * 1024).is_err());
        assert_eq!(memory.taken(), 512);
        drop(half);
        let all = memory.reserve(usize::MAX).unwrap();
        assert!(memory.reserve(1).is_err());
        drop(all);
        assert_eq!(memory.taken(), 0);
    }
}
