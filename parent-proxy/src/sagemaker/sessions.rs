//! Clients that stay with one enclave: its receipt key, and the public keys that it keeps, are what they count on.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use aws_lc_rs::{
    hmac::{self, HMAC_SHA256, Key},
    rand::SystemRandom,
};
use axum::http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{address::Address, refusal::Refusal, upstream::Pin};

const SESSION_ID: HeaderName = HeaderName::from_static("x-amzn-sagemaker-session-id");
pub(crate) const NEW_SESSION_ID: HeaderName = HeaderName::from_static("x-amzn-sagemaker-new-session-id");
pub(crate) const CLOSED_SESSION_ID: HeaderName = HeaderName::from_static("x-amzn-sagemaker-closed-session-id");
/// What a client says in place of an id that it does not have yet.
const NEW_SESSION: &str = "NEW_SESSION";

/// As long as a client may go without another attestation document.
const LIFETIME: Duration = Duration::from_secs(15 * 60);
/// Closed sessions that are remembered.
const MAX_CLOSED: usize = 10_000;

/// What a request says of its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    None,
    New,
    Bound { id: String, enclave: Address },
}

/// What a body asks for that is about its session alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "requestType", rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
pub(crate) enum SessionRequest {
    NewSession,
    Close,
}

impl Session {
    pub(crate) fn of(headers: &HeaderMap, sessions: &Sessions) -> Result<Self, Refusal> {
        let Some(value) = headers.get(SESSION_ID) else { return Ok(Self::None) };
        let id = value.to_str().unwrap_or_default();
        if id == NEW_SESSION {
            return Ok(Self::New);
        }
        match sessions.enclave(id, SystemTime::now()) {
            Some(enclave) => Ok(Self::Bound { id: id.into(), enclave }),
            None => Err(Refusal::bad_request("the session has expired or never was: start a new one with NEW_SESSION")),
        }
    }

    pub(crate) fn pin(&self) -> Pin {
        match self {
            Self::None => Pin::Free,
            Self::New => Pin::Wanted,
            Self::Bound { enclave, .. } => Pin::To(enclave.clone()),
        }
    }
}

/// All sessions. None is kept: an id says its enclave and its expiry, under a MAC that only this process makes, so nobody's
/// sessions push out another's.
pub(crate) struct Sessions {
    enclaves: Vec<Address>,
    /// `None` without randomness for a key: then there are no sessions.
    key: Option<Key>,
    /// Those that were closed before they expired, the first to expire first.
    closed: Mutex<BTreeSet<Content>>,
}

/// What an id says: its expiry in seconds since 1970, a number that sets it apart, and the place of its enclave among all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Content {
    expires: u64,
    number: u64,
    enclave: u32,
}

/// Of an id's hexadecimal digits these are the content, and what follows is the MAC.
const CONTENT_BYTES: usize = 20;

impl Sessions {
    /// Sessions with any of these.
    pub(crate) fn new(enclaves: Vec<Address>) -> Self {
        Self { enclaves, key: Key::generate(HMAC_SHA256, &SystemRandom::new()).ok(), closed: Mutex::default() }
    }

    /// Opens a session with an enclave: its id and expiry as the header says them. `None` without randomness for an id.
    pub(crate) fn open(&self, enclave: &Address, now: SystemTime) -> Option<String> {
        let mut number = [0; 8];
        getrandom::getrandom(&mut number).ok()?;
        let expires = now + LIFETIME;
        let content = Content {
            expires: seconds(expires),
            number: u64::from_be_bytes(number),
            enclave: self.enclaves.iter().position(|other| other == enclave)?.try_into().ok()?,
        };
        Some(format!("{}; Expires={}", content.id(self.key.as_ref()?), timestamp(expires)?))
    }

    /// Refuses the session from now on. That is remembered until it expires, but of [`MAX_CLOSED`] sessions only; beyond
    /// that one that was closed may be used again, by whoever knows its id, for what is left of its time.
    pub(crate) fn close(&self, id: &str) {
        let Some(content) = self.content(id, SystemTime::now()) else { return };
        let mut closed = self.closed();
        closed.insert(content);
        while closed.len() > MAX_CLOSED {
            closed.pop_first();
        }
    }

    fn enclave(&self, id: &str, now: SystemTime) -> Option<Address> {
        let content = self.content(id, now)?;
        let mut closed = self.closed();
        while closed.first().is_some_and(|first| first.expires <= seconds(now)) {
            closed.pop_first();
        }
        let open = !closed.contains(&content);
        self.enclaves.get(content.enclave as usize).filter(|_| open).cloned()
    }

    /// What an id says, if it is one of ours and has not expired.
    fn content(&self, id: &str, now: SystemTime) -> Option<Content> {
        Content::of(id, self.key.as_ref()?).filter(|content| seconds(now) < content.expires)
    }

    fn closed(&self) -> MutexGuard<'_, BTreeSet<Content>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn id(self, key: &Key) -> String {
        let Self { expires, number, enclave } = self;
        let mut bytes = [&expires.to_be_bytes()[..], &number.to_be_bytes(), &enclave.to_be_bytes()].concat();
        let tag = hmac::sign(key, &bytes);
        bytes.extend_from_slice(tag.as_ref());
        hex::encode(bytes)
    }

    /// Reads an id. The MAC is compared in constant time, so that it cannot be guessed byte by byte.
    fn of(id: &str, key: &Key) -> Option<Self> {
        let bytes = hex::decode(id).ok()?;
        let (content, tag) = bytes.split_at_checked(CONTENT_BYTES)?;
        hmac::verify(key, content, tag).ok()?;
        let (expires, rest) = content.split_first_chunk()?;
        let (number, enclave) = rest.split_first_chunk()?;
        Some(Self {
            expires: u64::from_be_bytes(*expires),
            number: u64::from_be_bytes(*number),
            enclave: u32::from_be_bytes(enclave.try_into().ok()?),
        })
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn timestamp(time: SystemTime) -> Option<String> {
    OffsetDateTime::from(time).replace_nanosecond(0).ok()?.format(&Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enclave(port: u16) -> Address {
        Address::Tcp { host: "enclave".into(), port }
    }

    fn sessions() -> Sessions {
        Sessions::new(vec![enclave(1), enclave(2)])
    }

    fn opened(sessions: &Sessions, now: SystemTime) -> String {
        sessions.open(&enclave(2), now).unwrap().split(';').next().unwrap().into()
    }

    #[test]
    fn a_session_lasts_its_time_and_no_longer() {
        let (sessions, now) = (sessions(), SystemTime::UNIX_EPOCH);
        let header = sessions.open(&enclave(2), now).unwrap();
        assert!(header.ends_with("; Expires=1970-01-01T00:15:00Z"), "{header}");
        let id = header.split(';').next().unwrap();
        assert!(id.bytes().all(|c| c.is_ascii_alphanumeric()) && id.len() <= 256, "{id}");
        assert_eq!(sessions.enclave(id, now + LIFETIME - Duration::from_secs(1)), Some(enclave(2)));
        assert_eq!(sessions.enclave(id, now + LIFETIME), None);
    }

    #[test]
    fn nobodys_sessions_push_out_anothers() {
        let (sessions, now) = (sessions(), SystemTime::now());
        let first = opened(&sessions, now);
        for _ in 0..2 * MAX_CLOSED {
            sessions.close(&opened(&sessions, now));
        }
        assert_eq!(sessions.closed().len(), MAX_CLOSED);
        assert_eq!(sessions.enclave(&first, now), Some(enclave(2)));
    }

    #[test]
    fn an_id_that_was_not_given_out_is_none() {
        let (sessions, now) = (sessions(), SystemTime::now());
        let id = opened(&sessions, now);
        for at in 0..id.len() {
            let other = if id.as_bytes()[at] == b'0' { "1" } else { "0" };
            let forged = format!("{}{other}{}", &id[..at], &id[at + 1..]);
            assert_eq!(sessions.enclave(&forged, now), None, "{forged}");
        }
        let faulty = ["", "0", "0123456789abcdef", "é", &id[..id.len() - 2], &id[..40], &format!("{id}00")];
        for faulty in faulty {
            assert_eq!(sessions.enclave(faulty, now), None, "{faulty}");
        }
        assert_eq!(super::Sessions::new(vec![enclave(1), enclave(2)]).enclave(&id, now), None, "another process");
    }

    #[test]
    fn a_closed_session_is_no_session_until_it_would_have_expired() {
        let (sessions, now) = (sessions(), SystemTime::now());
        let (id, other) = (opened(&sessions, now), opened(&sessions, now));
        sessions.close(&id);
        assert_eq!(sessions.enclave(&id, now), None);
        assert_eq!(sessions.enclave(&other, now), Some(enclave(2)));
        assert_eq!(sessions.enclave(&other, now + LIFETIME), None);
        let later = opened(&sessions, now + LIFETIME);
        assert!(sessions.enclave(&later, now + LIFETIME).is_some());
        assert!(sessions.closed().is_empty());
    }

    #[test]
    fn a_request_about_the_session_is_that_and_nothing_else() {
        let read = |text: &str| serde_json::from_str::<SessionRequest>(text).ok();
        assert_eq!(read(r#"{"requestType":"CLOSE"}"#), Some(SessionRequest::Close));
        assert_eq!(read(r#"{"requestType":"NEW_SESSION"}"#), Some(SessionRequest::NewSession));
        assert_eq!(read(r#"{"requestType":"OPEN"}"#), None);
        assert_eq!(read(r#"{"instances":[[5.1,3.5]]}"#), None);
    }
}
