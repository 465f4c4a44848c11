//! All enclaves, and whose turn it is.

use std::{
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::time::timeout;

use crate::{
    address::{Address, Stream},
    log::log,
};

/// How long an enclave that could not be reached is tried last, so that a dead one of many delays few clients.
const REST: Duration = Duration::from_secs(5);

/// The enclaves that answer for one another, each in its turn.
pub(crate) struct Enclaves {
    members: Vec<Enclave>,
    turn: AtomicUsize,
}

struct Enclave {
    address: Address,
    failed: Mutex<Option<Instant>>,
}

/// No enclave could be reached within the budget.
pub(crate) struct Unreachable;

impl Enclaves {
    pub(crate) fn new(addresses: Vec<Address>) -> Self {
        let members = addresses.into_iter().map(|address| Enclave { address, failed: Mutex::new(None) }).collect();
        Self { members, turn: AtomicUsize::new(0) }
    }

    /// Connects to the next enclave in turn, or else to another one, within `budget` for all tries together.
    ///
    /// A try may take an equal share of the time that is left: an enclave that is silent cannot use up the others'
    /// chance, and what a prompt refusal leaves goes to those that follow.
    pub(crate) async fn connect(&self, budget: Duration) -> Result<(&Address, Box<dyn Stream>), Unreachable> {
        let began = Instant::now();
        let mut untried = self.members.len() as u32;
        for enclave in self.in_turn(began) {
            let share = budget.saturating_sub(began.elapsed()) / untried;
            match enclave.connect(share).await {
                Ok(stream) => return Ok((&enclave.address, stream)),
                Err(error) => {
                    log(format_args!("event=unreachable enclave={} error={:?}", enclave.address, error.to_string()));
                }
            }
            untried -= 1;
        }
        Err(Unreachable)
    }

    /// Every enclave once, those that failed a moment ago last.
    fn in_turn(&self, now: Instant) -> Vec<&Enclave> {
        let mut order: Vec<_> = self.members.iter().collect();
        if !order.is_empty() {
            let first = self.turn.fetch_add(1, Ordering::Relaxed) % order.len();
            order.rotate_left(first);
        }
        order.sort_by_key(|enclave| enclave.rests(now));
        order
    }
}

impl Enclave {
    async fn connect(&self, limit: Duration) -> io::Result<Box<dyn Stream>> {
        let result =
            timeout(limit, self.address.connect()).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        self.note(result.is_err().then(Instant::now));
        result
    }

    fn note(&self, failed: Option<Instant>) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = failed;
    }

    fn rests(&self, now: Instant) -> bool {
        let failed = *self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.is_some_and(|failed| now.saturating_duration_since(failed) < REST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Enclaves {
        Enclaves::new((16..19).map(|cid| Address::Vsock { cid, port: 5000 }).collect())
    }

    fn cids(enclaves: &Enclaves, now: Instant) -> Vec<u32> {
        let cid = |enclave: &Enclave| match enclave.address {
            Address::Vsock { cid, .. } => cid,
            _ => unreachable!("three() makes vsock addresses only"),
        };
        enclaves.in_turn(now).into_iter().map(cid).collect()
    }

    #[test]
    fn each_is_first_in_its_turn() {
        let (enclaves, now) = (three(), Instant::now());
        assert_eq!(cids(&enclaves, now), [16, 17, 18]);
        assert_eq!(cids(&enclaves, now), [17, 18, 16]);
        assert_eq!(cids(&enclaves, now), [18, 16, 17]);
        assert_eq!(cids(&enclaves, now), [16, 17, 18]);
    }

    #[test]
    fn one_that_failed_is_last_until_it_has_rested_or_answered() {
        let (enclaves, now) = (three(), Instant::now());
        enclaves.members[1].note(Some(now));
        assert_eq!(cids(&enclaves, now), [16, 18, 17]);
        assert_eq!(cids(&enclaves, now), [18, 16, 17]);
        assert_eq!(cids(&enclaves, now), [18, 16, 17]);
        assert_eq!(cids(&enclaves, now + REST), [16, 17, 18]);
        enclaves.members[1].note(None);
        assert_eq!(cids(&enclaves, now), [17, 18, 16]);
    }

    #[test]
    fn with_all_at_rest_all_are_tried() {
        let (enclaves, now) = (three(), Instant::now());
        enclaves.members.iter().for_each(|enclave| enclave.note(Some(now)));
        assert_eq!(cids(&enclaves, now), [16, 17, 18]);
    }

    #[test]
    fn none_at_all_is_no_panic() {
        assert!(cids(&Enclaves::new(Vec::new()), Instant::now()).is_empty());
    }
}
