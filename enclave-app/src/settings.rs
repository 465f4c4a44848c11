//! The measured settings: `/etc/cloister.json`, in the first ramdisk of an image.

use std::{fs, io, path::PathBuf};

use serde::Deserialize;

/// What an image's author decides. It is few, and nothing of it weakens.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The format; 1.
    v: u8,
    /// Connections that are served at once; further ones wait. 1 to 900.
    pub max_connections: u16,
}

const VERSION: u8 = 1;
/// The kernel's first process may open 1024 files, and not all of them are connections.
const MAX_CONNECTIONS: u16 = 900;

impl Default for Settings {
    fn default() -> Self {
        Self { v: VERSION, max_connections: 256 }
    }
}

impl Settings {
    /// Reads the file at `path`.
    pub fn read(path: PathBuf) -> Result<Self, SettingsError> {
        match fs::read(&path).map_err(Reason::Read).and_then(|bytes| Self::parse(&bytes)) {
            Ok(settings) => Ok(settings),
            Err(reason) => Err(SettingsError { path, reason }),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, Reason> {
        #[derive(Deserialize)]
        struct Format {
            v: u8,
        }
        // Another format has other keys: it is asked for first.
        let Format { v } = serde_json::from_slice(bytes).map_err(Reason::Malformed)?;
        if v != VERSION {
            return Err(Reason::Version(v));
        }
        let settings: Self = serde_json::from_slice(bytes).map_err(Reason::Malformed)?;
        match settings.max_connections {
            1..=MAX_CONNECTIONS => Ok(settings),
            number => Err(Reason::Connections(number)),
        }
    }
}

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct SettingsError {
    path: PathBuf,
    reason: Reason,
}

#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error("{0}")]
    Read(#[source] io::Error),
    #[error("{0}")]
    Malformed(#[source] serde_json::Error),
    #[error("format {0}, made by another version of Cloister: this one reads format {VERSION}")]
    Version(u8),
    #[error("max_connections is {0}: accepted are 1 to {MAX_CONNECTIONS}")]
    Connections(u16),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cloister.json");
        fs::write(&path, text).unwrap();
        Settings::read(path).map_err(|error| error.to_string())
    }

    #[test]
    fn the_file_is_read_to_the_letter() {
        assert_eq!(read(r#"{"v":1,"max_connections":256}"#), Ok(Settings::default()));
        assert_eq!(read(r#"{"max_connections":7,"v":1}"#).unwrap().max_connections, 7);
        for (text, reason) in [
            ("", "EOF"),
            ("{}", "missing field `v`"),
            (r#"{"v":1}"#, "missing field `max_connections`"),
            (r#"{"v":1,"max_connections":0}"#, "max_connections is 0: accepted are 1 to 900"),
            (r#"{"v":1,"max_connections":901}"#, "accepted are 1 to 900"),
            (r#"{"v":1,"max_connections":65536}"#, "65536"),
            (r#"{"v":1,"max_connections":1,"max_connections":2}"#, "duplicate field"),
            (r#"{"v":1,"max_connections":1,"debug":true}"#, "unknown field `debug`"),
            (r#"{"v":2,"other":1}"#, "format 2, made by another version of Cloister"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let missing = Settings::read("/nowhere/cloister.json".into()).unwrap_err();
        assert!(missing.to_string().starts_with("/nowhere/cloister.json: "), "{missing}");
    }
}
