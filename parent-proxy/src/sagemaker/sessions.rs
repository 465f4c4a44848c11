//! Clients that stay with one enclave: its receipt key, and the public keys that it keeps, are what they count on.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
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
/// Sessions at a time; the oldest go.
const MAX_SESSIONS: usize = 10_000;

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

/// All sessions.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<Table>);

#[derive(Default)]
struct Table {
    enclaves: HashMap<String, Address>,
    /// When they expire, the oldest first.
    order: VecDeque<(SystemTime, String)>,
}

impl Sessions {
    /// Opens a session with an enclave: its id and expiry as the header says them. `None` without randomness for an id.
    pub(crate) fn open(&self, enclave: Address, now: SystemTime) -> Option<String> {
        let mut random = [0; 16];
        getrandom::getrandom(&mut random).ok()?;
        let id = format!("{:032x}", u128::from_be_bytes(random));
        let expires = now + LIFETIME;
        let mut table = self.table(now);
        if table.order.len() >= MAX_SESSIONS {
            table.drop_oldest();
        }
        table.enclaves.insert(id.clone(), enclave);
        table.order.push_back((expires, id.clone()));
        Some(format!("{id}; Expires={}", timestamp(expires)?))
    }

    pub(crate) fn close(&self, id: &str) {
        self.table(SystemTime::now()).enclaves.remove(id);
    }

    fn enclave(&self, id: &str, now: SystemTime) -> Option<Address> {
        self.table(now).enclaves.get(id).cloned()
    }

    /// The sessions that have not expired.
    fn table(&self, now: SystemTime) -> std::sync::MutexGuard<'_, Table> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while table.order.front().is_some_and(|(expires, _)| *expires <= now) {
            table.drop_oldest();
        }
        table
    }
}

impl Table {
    fn drop_oldest(&mut self) {
        if let Some((_, id)) = self.order.pop_front() {
            self.enclaves.remove(&id);
        }
    }
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

    fn id(header: &str) -> &str {
        header.split(';').next().unwrap()
    }

    #[test]
    fn a_session_lasts_its_time_and_no_longer() {
        let (sessions, now) = (Sessions::default(), SystemTime::UNIX_EPOCH);
        let header = sessions.open(enclave(1), now).unwrap();
        assert!(header.ends_with("; Expires=1970-01-01T00:15:00Z"), "{header}");
        assert!(id(&header).bytes().all(|c| c.is_ascii_alphanumeric()));
        assert_eq!(sessions.enclave(id(&header), now + LIFETIME - Duration::from_secs(1)), Some(enclave(1)));
        assert_eq!(sessions.enclave(id(&header), now + LIFETIME), None);
        assert!(sessions.0.lock().unwrap().order.is_empty());
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let (sessions, now) = (Sessions::default(), SystemTime::UNIX_EPOCH);
        let headers: Vec<_> = (0..=MAX_SESSIONS).map(|_| sessions.open(enclave(1), now).unwrap()).collect();
        assert_eq!(sessions.enclave(id(&headers[0]), now), None);
        assert!(sessions.enclave(id(&headers[1]), now).is_some());
        assert!(sessions.enclave(id(&headers[MAX_SESSIONS]), now).is_some());
        assert_eq!(sessions.0.lock().unwrap().order.len(), MAX_SESSIONS);
    }

    #[test]
    fn a_closed_session_is_no_session() {
        let (sessions, now) = (Sessions::default(), SystemTime::now());
        let header = sessions.open(enclave(1), now).unwrap();
        sessions.close(id(&header));
        assert_eq!(sessions.enclave(id(&header), now), None);
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
