//! Who asks, and what they may still ask for.
//!
//! A client is known by a bearer token (RFC 6750), of which the measured settings have the digest. It is sent inside the attested
//! channel only: where TLS ends before the enclave, nobody is known.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use cloister_attestation::Sha384;

use crate::{
    memory::Memory,
    settings::{Budget, Client},
};

/// Everybody who may ask.
#[derive(Debug)]
pub(crate) struct Clients {
    known: Vec<(Sha384, Account)>,
    /// Of all others together, if there may be any.
    anonymous: Option<Account>,
}

/// One that may ask, and by what number it is told from others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller<'a> {
    pub(crate) account: &'a Account,
    /// None: one of those whom nothing tells apart but their connections.
    pub(crate) number: Option<u64>,
}

impl Clients {
    /// With `memory_mib` for the requests of all of them.
    pub(crate) fn new(clients: Option<&[Client]>, anonymous: Option<Budget>, memory_mib: u32) -> Self {
        let anonymous = anonymous.or(clients.is_none().then(Budget::default));
        let clients = clients.unwrap_or_default();
        // One alone may have all of it; of several none may keep the others out.
        let share = if clients.is_empty() { memory_mib } else { memory_mib.div_ceil(2) };
        let account = |client: &Client| (client.token, Account::new(client.budget, share));
        let known = clients.iter().map(account).collect();
        Self { known, anonymous: anonymous.map(|budget| Account::new(budget, share)) }
    }

    /// Whether anybody is told from others by a token.
    pub(crate) fn are_known(&self) -> bool {
        !self.known.is_empty()
    }

    /// Whose token this is. It takes as long for one token as for any other: all digests are compared, each in constant time.
    pub(crate) fn by_token(&self, token: &[u8]) -> Option<Caller<'_>> {
        let digest = Sha384::of(token);
        let mut found = None;
        for (index, (expected, account)) in self.known.iter().enumerate() {
            if verify_slices_are_equal(&expected.0, &digest.0).is_ok() {
                found = Some(Caller { account, number: Some(index as u64) });
            }
        }
        found
    }

    /// Whoever has no token.
    pub(crate) fn anonymous(&self) -> Option<Caller<'_>> {
        self.anonymous.as_ref().map(|account| Caller { account, number: None })
    }
}

/// What is left of a budget.
#[derive(Debug)]
pub(crate) struct Account {
    /// What its requests may take at a time.
    pub(crate) memory: Memory,
    rates: Mutex<[Option<Bucket>; 3]>,
    logits: Option<AtomicU64>,
}

/// What a request, or a part of what it does, takes of a budget.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Charge {
    pub(crate) requests: u32,
    pub(crate) bytes: usize,
    pub(crate) compute: Duration,
}

impl Account {
    fn new(budget: Budget, memory_mib: u32) -> Self {
        let Budget { requests_per_minute, bytes_per_minute, compute_ms_per_minute, logits } = budget;
        let limits = [requests_per_minute.map(u64::from), bytes_per_minute, compute_ms_per_minute];
        let now = Instant::now();
        Self {
            memory: Memory::new(memory_mib),
            rates: Mutex::new(limits.map(|limit| Some(Bucket::new(limit?, now)))),
            logits: logits.map(AtomicU64::new),
        }
    }

    /// Takes what a request needs of every rate, or nothing at all and says when to come again.
    pub(crate) fn spend(&self, charge: Charge, now: Instant) -> Result<(), Duration> {
        let needs = charge.needs();
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buckets: Vec<_> =
            rates.iter_mut().zip(needs).filter_map(|(bucket, need)| Some((bucket.as_mut()?, need))).collect();
        let wait = buckets.iter_mut().map(|(bucket, need)| bucket.wait(*need, now)).max().unwrap_or_default();
        if wait > Duration::ZERO {
            return Err(wait);
        }
        buckets.iter_mut().for_each(|(bucket, need)| bucket.level -= *need);
        Ok(())
    }

    /// Gives back what was not used after all.
    pub(crate) fn refund(&self, charge: Charge) {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        for (bucket, need) in rates.iter_mut().zip(charge.needs()) {
            if let Some(bucket) = bucket {
                bucket.level = bucket.capacity.min(bucket.level + need);
            }
        }
    }

    /// Takes so many logits, or says how many are left.
    pub(crate) fn spend_logits(&self, logits: u64) -> Result<(), u64> {
        match &self.logits {
            Some(left) if !take(left, logits) => Err(left.load(Ordering::Relaxed)),
            _ => Ok(()),
        }
    }

    /// Gives back logits that were not returned after all.
    pub(crate) fn refund_logits(&self, logits: u64) {
        if let Some(left) = &self.logits {
            left.fetch_add(logits, Ordering::Relaxed);
        }
    }
}

impl Charge {
    /// In the order of the rates.
    fn needs(self) -> [f64; 3] {
        [f64::from(self.requests), self.bytes as f64, self.compute.as_secs_f64() * 1e3]
    }
}

/// Takes `amount` of what is left, or nothing; whether it was there.
pub(crate) fn take(left: &AtomicU64, amount: u64) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(amount)).is_ok()
}

/// A rate: it fills up within a minute, and holds no more than one.
#[derive(Debug)]
struct Bucket {
    capacity: f64,
    level: f64,
    filled: Instant,
}

const MINUTE: Duration = Duration::from_secs(60);

impl Bucket {
    fn new(per_minute: u64, now: Instant) -> Self {
        Self { capacity: per_minute as f64, level: per_minute as f64, filled: now }
    }

    /// How long until `need` is there. What needs more than a minute's worth waits for all of it, and leaves a debt.
    fn wait(&mut self, need: f64, now: Instant) -> Duration {
        let minutes = now.saturating_duration_since(self.filled).as_secs_f64() / MINUTE.as_secs_f64();
        self.level = self.capacity.min(self.level + minutes * self.capacity);
        self.filled = now;
        let missing = need.min(self.capacity) - self.level;
        if need <= 0.0 || missing <= 0.0 && self.capacity > 0.0 {
            return Duration::ZERO;
        }
        // A budget of nothing is never there, and a minute is as good an answer as any.
        MINUTE.mul_f64((missing / self.capacity.max(1.0)).clamp(1e-3, 60.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(anonymous: Option<Budget>) -> Clients {
        let client = |name: &str| Client {
            name: name.to_owned(),
            token: Sha384::of(format!("token of {name}").as_bytes()),
            budget: Budget::default(),
        };
        Clients::new(Some(&[client("a"), client("b")]), anonymous, 1)
    }

    #[test]
    fn a_client_is_who_has_the_token() {
        let clients = clients(None);
        let number = |token: &str| clients.by_token(token.as_bytes()).map(|caller| caller.number);
        assert_eq!(number("token of a"), Some(Some(0)));
        assert_eq!(number("token of b"), Some(Some(1)));
        for wrong in ["", "token of c", "token of a ", "Token of a"] {
            assert_eq!(number(wrong), None);
        }
    }

    #[test]
    fn others_may_ask_if_nobody_is_listed_or_the_settings_say_so() {
        assert!(clients(None).anonymous().is_none());
        assert!(clients(Some(Budget::default())).anonymous().is_some());
        assert!(Clients::new(None, None, 1).anonymous().is_some());
        assert!(Clients::new(Some(&[]), None, 1).anonymous().is_none(), "a list of nobody is one");
    }

    fn account(budget: Budget) -> Account {
        Account::new(budget, 1)
    }

    fn spent(account: &Account, charges: usize, bytes: usize, now: Instant) -> Vec<bool> {
        let charge = Charge { requests: 1, bytes, compute: Duration::from_millis(1) };
        (0..charges).map(|_| account.spend(charge, now).is_ok()).collect()
    }

    #[test]
    fn a_rate_is_kept_and_comes_back() {
        let account = account(Budget { requests_per_minute: Some(2), ..Budget::default() });
        let now = Instant::now();
        assert_eq!(spent(&account, 3, 1, now), [true, true, false]);
        let wait = account.spend(Charge { requests: 1, ..Charge::default() }, now).unwrap_err();
        assert!((29..=31).contains(&wait.as_secs()), "{wait:?}");
        assert_eq!(spent(&account, 2, 1, now + MINUTE / 2), [true, false]);
        assert_eq!(
            spent(&account, 3, 1, now + 10 * MINUTE),
            [true, true, false],
            "no more than a minute's worth is kept"
        );
    }

    #[test]
    fn what_is_refused_by_one_rate_takes_nothing_of_the_others() {
        let account = account(Budget {
            requests_per_minute: Some(2),
            bytes_per_minute: Some(1000),
            compute_ms_per_minute: Some(60_000),
            ..Budget::default()
        });
        let now = Instant::now();
        assert_eq!(spent(&account, 2, 900, now), [true, false]);
        assert_eq!(spent(&account, 2, 50, now), [true, false]);
        let slow = Charge { compute: 2 * MINUTE, ..Charge::default() };
        assert!(account.spend(slow, now + MINUTE).is_ok(), "more than a minute's worth goes once all is there");
        assert!(account.spend(slow, now + 2 * MINUTE).is_err(), "and is paid off after that");
    }

    #[test]
    fn what_was_not_used_is_given_back_and_no_more() {
        let account = account(Budget { requests_per_minute: Some(1), ..Budget::default() });
        let (now, one) = (Instant::now(), Charge { requests: 1, ..Charge::default() });
        assert!(account.spend(one, now).is_ok());
        (0..3).for_each(|_| account.refund(one));
        assert!(account.spend(one, now).is_ok() && account.spend(one, now).is_err());
    }

    #[test]
    fn a_budget_of_nothing_lets_nothing_through() {
        let account = account(Budget { requests_per_minute: Some(0), logits: Some(0), ..Budget::default() });
        assert_eq!(spent(&account, 1, 1, Instant::now()), [false]);
        assert_eq!(account.spend_logits(1), Err(0));
    }

    #[test]
    fn logits_are_counted_to_the_last() {
        let account = account(Budget { logits: Some(5), ..Budget::default() });
        assert_eq!([3, 3, 2].map(|logits| account.spend_logits(logits)), [Ok(()), Err(2), Ok(())]);
        account.refund_logits(2);
        assert_eq!(account.spend_logits(2), Ok(()));
    }
}
