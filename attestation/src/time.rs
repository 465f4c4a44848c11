//! Instants, in the unit of attestation documents.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// Milliseconds since the Unix epoch; RFC 3339 in UTC as text.
///
/// Verification never asks the system for the time: callers pass it in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The clock of this machine. A clock before 1970 reads as 1970, at which every document is from the future.
    pub fn now() -> Self {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self(elapsed.as_millis().try_into().unwrap_or(u64::MAX))
    }

    /// `millis` milliseconds after the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Reads `2026-11-22T07:30:00Z` and the like (RFC 3339, any offset, from 1970 to 9999 in UTC).
    pub fn parse_rfc3339(text: &str) -> Result<Self, ParseTimestampError> {
        let parse = || {
            // An offset may lead beyond the year 9999, of which nothing could be written again.
            let instant = OffsetDateTime::parse(text, &Rfc3339).ok()?.checked_to_offset(UtcOffset::UTC)?;
            instant.unix_timestamp_nanos().div_euclid(1_000_000).try_into().ok()
        };
        parse().map(Self).ok_or_else(|| ParseTimestampError(text.to_owned()))
    }

    /// `duration` later, at most the end of time.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// `duration` earlier, at least 1970.
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .ok()
            .and_then(|instant| instant.format(&Rfc3339).ok());
        match text {
            Some(text) => f.write_str(&text),
            None => write!(f, "{} ms after 1970 (beyond the year 9999)", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is not a [`Timestamp`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time such as 2026-11-22T07:30:00Z (RFC 3339)")]
pub struct ParseTimestampError(String);

/// A duration as people say it: the two largest units that it has.
pub(crate) fn spoken(duration: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
    let mut seconds = duration.as_secs();
    let mut parts = Vec::new();
    for (length, name) in UNITS {
        let count = seconds / length;
        seconds %= length;
        if count > 0 && parts.len() < 2 {
            parts.push(format!("{count} {name}{}", if count == 1 { "" } else { "s" }));
        }
    }
    if parts.is_empty() { "under a second".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        let instant = Timestamp::from_millis(1_766_668_537_578);
        assert_eq!(instant.to_string(), "2025-12-25T13:15:37.578Z");
        assert_eq!(Timestamp::parse_rfc3339(&instant.to_string()), Ok(instant));
        assert_eq!(Timestamp::parse_rfc3339("2025-12-25T14:15:37.578+01:00"), Ok(instant));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "yesterday", "2025-12-25", "2025-12-25T13:15:37", "1969-12-31T23:59:59.9999Z"] {
            assert!(Timestamp::parse_rfc3339(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_offset_leads_neither_before_1970_nor_beyond_9999() {
        for text in ["1970-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01"] {
            assert!(Timestamp::parse_rfc3339(text).is_err(), "{text}");
        }
        let last = Timestamp::parse_rfc3339("9999-12-31T23:59:59.999999Z").unwrap();
        assert_eq!(Timestamp::parse_rfc3339(&last.to_string()), Ok(last));
    }

    #[test]
    fn no_instant_panics() {
        for millis in [0, 253_402_300_800_000, u64::MAX] {
            assert!(!Timestamp::from_millis(millis).to_string().is_empty());
        }
        assert_eq!(Timestamp::from_millis(u64::MAX).plus(Duration::MAX), Timestamp::from_millis(u64::MAX));
        assert_eq!(Timestamp::from_millis(1).minus(Duration::MAX), Timestamp::from_millis(0));
    }

    #[test]
    fn durations_are_said_in_two_units() {
        assert_eq!(spoken(Duration::from_millis(900)), "under a second");
        assert_eq!(spoken(Duration::from_secs(61)), "1 minute 1 second");
        assert_eq!(spoken(Duration::from_secs(332 * 86_400 + 18 * 3_600 + 5)), "332 days 18 hours");
    }
}
