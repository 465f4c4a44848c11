//! The measured settings: `/etc/cloister.json`, in the first ramdisk of an image.

use std::{fs, io, num::NonZeroU16, path::PathBuf};

use serde::Deserialize;

/// What an image's author decides. It is few, and nothing of it weakens.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The format; 1.
    v: u8,
    /// Connections that are served at once; further ones wait.
    pub max_connections: NonZeroU16,
}

const VERSION: u8 = 1;

impl Default for Settings {
    fn default() -> Self {
        Self { v: VERSION, max_connections: NonZeroU16::new(256).expect("256 is not zero") }
    }
}

impl Settings {
    /// Reads the file at `path`.
    pub fn read(path: PathBuf) -> Result<Self, SettingsError> {
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(source) => return Err(SettingsError::Read { path, source }),
        };
        let settings: Self = match serde_json::from_slice(&bytes) {
            Ok(settings) => settings,
            Err(source) => return Err(SettingsError::Malformed { path, source }),
        };
        match settings.v {
            VERSION => Ok(settings),
            version => Err(SettingsError::Version { path, version }),
        }
    }
}

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// There is no file that can be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not the JSON object that it should be.
    #[error("{}: {source}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// It is of another version.
    #[error("{}: format {version}, made by a newer Cloister: update (this one reads format {VERSION})", path.display())]
    Version {
        /// Which.
        path: PathBuf,
        /// Its format.
        version: u8,
    },
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
        assert_eq!(read(r#"{"max_connections":7,"v":1}"#).unwrap().max_connections.get(), 7);
        for (text, reason) in [
            ("", "EOF"),
            ("{}", "missing field `v`"),
            (r#"{"v":1}"#, "missing field `max_connections`"),
            (r#"{"v":1,"max_connections":0}"#, "nonzero"),
            (r#"{"v":1,"max_connections":65536}"#, "65536"),
            (r#"{"v":1,"max_connections":1,"max_connections":2}"#, "duplicate field"),
            (r#"{"v":1,"max_connections":1,"debug":true}"#, "unknown field `debug`"),
            (r#"{"v":2,"max_connections":1}"#, "format 2, made by a newer Cloister"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let missing = Settings::read("/nowhere/cloister.json".into()).unwrap_err();
        assert!(missing.to_string().starts_with("/nowhere/cloister.json: "), "{missing}");
    }
}
