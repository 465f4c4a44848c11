//! The measured settings: `/etc/cloister.json`, in the first ramdisk of an image.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use cloister_attestation::{Loadable, Sha384};
use serde::{Deserialize, Deserializer, de};

/// What an image's author decides. It is few, and nothing of it weakens.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The format; 1.
    pub v: u8,
    /// Connections that are served at once, of both ports together; further ones wait. 1 to 900.
    pub max_connections: u16,
    /// Which bundles are taken from the parent at run time: `"none"`, `"any"`, or a list of digests. The manifest says it too.
    #[serde(default, deserialize_with = "loadable")]
    pub loadable: Loadable,
    /// Who may ask. With a list, be it empty, others may only as far as `anonymous` lets them.
    #[serde(default)]
    pub clients: Option<Vec<Client>>,
    /// What those without a token may ask for, all of them together. Without it and without a list of clients: everything.
    #[serde(default)]
    pub anonymous: Option<Budget>,
    /// What requests and models may take of the enclave's memory.
    #[serde(default)]
    pub memory: Memory,
}

/// A client that is known by a bearer token.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// For those who review the settings. No service logs it.
    pub name: String,
    /// The digest of the token: `sha384:` and 96 hexadecimal digits. `cloister token` makes both.
    #[serde(deserialize_with = "digest")]
    pub token: Sha384,
    /// What it may ask for.
    #[serde(default)]
    pub budget: Budget,
}

/// What may be asked for. What is absent has no limit.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Inference requests per minute.
    pub requests_per_minute: Option<u32>,
    /// Bytes of inference requests per minute.
    pub bytes_per_minute: Option<u64>,
    /// Milliseconds of evaluation per minute, as estimated before each.
    pub compute_ms_per_minute: Option<u64>,
    /// Logits from boot to end.
    pub logits: Option<u64>,
}

/// Limits of memory, in MiB.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Memory {
    /// For the bodies of requests under way, and their answers.
    pub requests_mib: u32,
    /// For the weights of models, those of the image included; what would take more is not loaded.
    pub models_mib: u32,
}

impl Default for Memory {
    fn default() -> Self {
        Self { requests_mib: 64, models_mib: 1024 }
    }
}

const VERSION: u8 = 1;
/// The kernel's first process may open 1024 files, and not all of them are connections.
const MAX_CONNECTIONS: u16 = 900;
/// More lists of digests and tokens than any image has.
const MAX_ENTRIES: usize = 1000;

impl Default for Settings {
    fn default() -> Self {
        Self {
            v: VERSION,
            max_connections: 256,
            loadable: Loadable::None,
            clients: None,
            anonymous: None,
            memory: Memory::default(),
        }
    }
}

impl Settings {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let parsed = fs::read(path).map_err(Reason::Read).and_then(|bytes| Self::parse(&bytes));
        parsed.map_err(|reason| SettingsError { path: path.to_owned(), reason })
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
        settings.check().map(|()| settings)
    }

    fn check(&self) -> Result<(), Reason> {
        if !(1..=MAX_CONNECTIONS).contains(&self.max_connections) {
            return Err(Reason::Connections(self.max_connections));
        }
        if self.memory.requests_mib == 0 {
            return Err(Reason::NoMemory);
        }
        let clients = self.clients.as_deref().unwrap_or_default();
        if clients.len() > MAX_ENTRIES {
            return Err(Reason::Entries { what: "clients" });
        }
        if matches!(&self.loadable, Loadable::Listed(digests) if digests.len() > MAX_ENTRIES) {
            return Err(Reason::Entries { what: "loadable" });
        }
        let (mut names, mut tokens) = (BTreeSet::new(), BTreeSet::new());
        match clients.iter().find(|client| !names.insert(&client.name) || !tokens.insert(client.token)) {
            Some(client) => Err(Reason::Client(client.name.clone())),
            None => Ok(()),
        }
    }
}

fn digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Sha384, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

fn loadable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Loadable, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Text {
        Word(String),
        Digests(Vec<String>),
    }
    match Text::deserialize(deserializer)? {
        Text::Word(word) if word == "none" => Ok(Loadable::None),
        Text::Word(word) if word == "any" => Ok(Loadable::Any),
        Text::Word(_) => Err(de::Error::custom("loadable is \"none\", \"any\" or a list of digests")),
        Text::Digests(digests) => {
            let digests: Result<Vec<_>, _> = digests.iter().map(|digest| digest.parse()).collect();
            digests.map(Loadable::Listed).map_err(de::Error::custom)
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
    #[error("memory.requests_mib is 0: no request could be taken")]
    NoMemory,
    #[error("{what} has more than {MAX_ENTRIES} entries")]
    Entries { what: &'static str },
    #[error("client {0:?} has the name or the token of another one")]
    Client(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cloister.json");
        fs::write(&path, text).unwrap();
        Settings::read(&path).map_err(|error| error.to_string())
    }

    fn with(rest: &str) -> Result<Settings, String> {
        read(&format!(r#"{{"v":1,"max_connections":7,{rest}}}"#))
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
        let missing = Settings::read(Path::new("/nowhere/cloister.json")).unwrap_err();
        assert!(missing.to_string().starts_with("/nowhere/cloister.json: "), "{missing}");
    }

    #[test]
    fn what_may_be_loaded_is_none_any_or_a_list() {
        let digest = Sha384::of(b"bundle");
        assert_eq!(with(r#""loadable":"none""#).unwrap().loadable, Loadable::None);
        assert_eq!(with(r#""loadable":"any""#).unwrap().loadable, Loadable::Any);
        assert_eq!(with(&format!(r#""loadable":["{digest}"]"#)).unwrap().loadable, Loadable::Listed(vec![digest]));
        assert!(with(r#""loadable":"all""#).unwrap_err().contains("\"none\", \"any\" or a list"));
        assert!(with(r#""loadable":["sha384:00"]"#).unwrap_err().contains("96 hexadecimal digits"));
    }

    #[test]
    fn clients_have_names_and_tokens_of_their_own() {
        let (one, other) = (Sha384::of(b"one"), Sha384::of(b"other"));
        let client = |name: &str, token: Sha384| format!(r#"{{"name":"{name}","token":"{token}"}}"#);
        let both = |first: String, second: String| with(&format!(r#""clients":[{first},{second}]"#));
        assert_eq!(both(client("a", one), client("b", other)).unwrap().clients.unwrap().len(), 2);
        assert!(both(client("a", one), client("a", other)).unwrap_err().contains("of another one"));
        assert!(both(client("a", one), client("b", one)).unwrap_err().contains("of another one"));
        let limited = format!(r#"{{"name":"a","token":"{one}","budget":{{"requests_per_minute":60,"logits":9}}}}"#);
        let budget = with(&format!(r#""clients":[{limited}]"#)).unwrap().clients.unwrap()[0].budget;
        assert_eq!((budget.requests_per_minute, budget.logits, budget.bytes_per_minute), (Some(60), Some(9), None));
        assert!(with(r#""clients":[{"name":"a","token":"secret"}]"#).unwrap_err().contains("sha384:"));
        assert!(with(r#""memory":{"requests_mib":0}"#).unwrap_err().contains("no request could be taken"));
        assert!(with(r#""anonymous":{"requests_per_hour":1}"#).unwrap_err().contains("unknown field"));
    }
}
