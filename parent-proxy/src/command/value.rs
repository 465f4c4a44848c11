//! Addresses, times and sizes on a command line.

use std::time::Duration;

use cloister_parent_proxy::Address;

pub(crate) fn tcp(text: &str) -> Result<(String, u16), String> {
    match text.parse() {
        Ok(Address::Tcp { host, port }) => Ok((host, port)),
        Ok(_) => Err(format!("clients arrive by TCP, not at {text:?}; accepted is tcp:HOST:PORT")),
        Err(error) => Err(error.to_string()),
    }
}

/// A time in which something must happen.
pub(crate) fn limit(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err(format!("{text:?} leaves no time at all; accepted are 1ms and more")),
        time => Ok(time),
    }
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match number_and_unit(text) {
        Some((number, "ms")) => Ok(Duration::from_millis(number.into())),
        Some((number, "s")) => Ok(Duration::from_secs(number.into())),
        Some((number, "m")) => Ok(Duration::from_secs(60 * u64::from(number))),
        _ => Err(format!("{text:?} is not a time; accepted is a whole number with a unit, as in 500ms, 5s or 2m")),
    }
}

/// Bytes.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    let bytes = number_and_unit(text).and_then(|(number, unit)| match unit {
        "" => Some(number as usize),
        "KiB" => (number as usize).checked_mul(1 << 10),
        "MiB" => (number as usize).checked_mul(1 << 20),
        _ => None,
    });
    let form = || {
        format!("{text:?} is not a size; accepted is a whole number of bytes, KiB or MiB, as in 65536, 64KiB or 6MiB")
    };
    bytes.filter(|bytes| *bytes > 0).ok_or_else(form)
}

fn number_and_unit(text: &str) -> Option<(u32, &str)> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    Some((number.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("4294967295m"), Ok(Duration::from_secs(60 * u64::from(u32::MAX))));
        for text in ["", "5", "s", "5 s", "-5s", "0.5s", "5h", "5sec", "4294967296s", "٣s"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_bytes_or_have_a_unit() {
        assert_eq!(size("1"), Ok(1));
        assert_eq!(size("64KiB"), Ok(64 << 10));
        assert_eq!(size("6MiB"), Ok(6_291_456));
        for text in ["", "0", "0MiB", "6MB", "6 MiB", "MiB", "-1", "4294967296"] {
            assert!(size(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn clients_arrive_by_tcp() {
        assert_eq!(tcp("tcp:[::1]:8443"), Ok(("::1".into(), 8443)));
        assert!(tcp("unix:/run/proxy.sock").unwrap_err().ends_with("accepted is tcp:HOST:PORT"));
        assert!(tcp("8443").unwrap_err().contains("tcp:HOST:PORT"));
    }
}
