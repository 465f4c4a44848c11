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

/// The enclaves that answer for one another, each in its turn; `W` is the way to one.
pub(crate) struct Enclaves<W> {
    members: Vec<Enclave<W>>,
    turn: AtomicUsize,
}

pub(crate) struct Enclave<W> {
    pub(crate) way: W,
    failed: Mutex<Option<Instant>>,
}

/// No enclave could be reached within the budget.
pub(crate) struct Unreachable;

impl<W> Enclaves<W> {
    pub(crate) fn new(ways: impl IntoIterator<Item = W>) -> Self {
        let members = ways.into_iter().map(|way| Enclave { way, failed: Mutex::new(None) }).collect();
        Self { members, turn: AtomicUsize::new(0) }
    }

    /// Every enclave once, in the order of the command line.
    pub(crate) fn all(&self) -> &[Enclave<W>] {
        &self.members
    }

    /// Every enclave once, those that failed a moment ago last.
    pub(crate) fn in_turn(&self, now: Instant) -> Vec<&Enclave<W>> {
        let mut order: Vec<_> = self.members.iter().collect();
        if !order.is_empty() {
            let first = self.turn.fetch_add(1, Ordering::Relaxed) % order.len();
            order.rotate_left(first);
        }
        order.sort_by_key(|enclave| enclave.rests(now));
        order
    }
}

impl Enclaves<Address> {
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
                Ok(stream) => return Ok((&enclave.way, stream)),
                Err(error) => log_unreachable(&enclave.way, &error.to_string()),
            }
            untried -= 1;
        }
        Err(Unreachable)
    }
}

pub(crate) fn log_unreachable(address: &Address, error: &str) {
    log(format_args!("event=unreachable enclave={address} error={error:?}"));
}

impl Enclave<Address> {
    async fn connect(&self, limit: Duration) -> io::Result<Box<dyn Stream>> {
        let result = timeout(limit, self.way.connect()).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        self.note(result.is_err().then(Instant::now));
        result
    }
}

impl<W> Enclave<W> {
    /// Remembers when it failed, or that it did not.
    pub(crate) fn note(&self, failed: Option<Instant>) {
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

    fn three() -> Enclaves<u32> {
        Enclaves::new(16..19)
    }

    fn cids(enclaves: &Enclaves<u32>, now: Instant) -> Vec<u32> {
        enclaves.in_turn(now).into_iter().map(|enclave| enclave.way).collect()
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
        assert!(cids(&Enclaves::new([]), Instant::now()).is_empty());
    }
}
