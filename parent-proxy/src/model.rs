//! Which model a request is for.

use std::{fmt, str::FromStr};

use cloister_wire::paths;

/// A model, or one of its versions: `NAME` or `NAME/VERSION`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Model {
    name: String,
    version: Option<String>,
}

/// A text that names no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} names no model: accepted are NAME and NAME/VERSION, each 1 to 64 of A-Z a-z 0-9 . _ - and no dot first"
)]
pub struct ModelError {
    /// The text, or its beginning.
    pub given: String,
}

impl Model {
    /// A version of a model, as an enclave calls it.
    pub(crate) fn of(name: &str, version: &str) -> Result<Self, ModelError> {
        format!("{name}/{version}").parse()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version, if it says one.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Where its metadata is.
    pub(crate) fn path(&self) -> String {
        paths::model(self.name(), self.version())
    }

    /// Where inference requests go.
    pub(crate) fn infer_path(&self) -> String {
        paths::infer(self.name(), self.version())
    }
}

impl FromStr for Model {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        let (name, version) = match text.split_once('/') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        if !paths::is_model_name(name) || !version.is_none_or(paths::is_model_name) {
            return Err(ModelError { given: text.chars().take(130).collect() });
        }
        Ok(Self { name: name.into(), version: version.map(Into::into) })
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{}/{version}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_written_as_it_is_read() {
        for text in ["iris", "iris/2", "a.b-c_d/1.0"] {
            assert_eq!(text.parse::<Model>().unwrap().to_string(), text);
        }
        let model: Model = "iris/2".parse().unwrap();
        assert_eq!(
            (model.path(), model.infer_path()),
            ("/v2/models/iris/versions/2".into(), "/v2/models/iris/versions/2/infer".into())
        );
    }

    #[test]
    fn nothing_else_reaches_a_path() {
        for text in ["", "/", "iris/", "/2", "iris/2/3", "../x", "iris/..", "a b", "a%2fb", "é", &"x".repeat(65)] {
            assert!(text.parse::<Model>().is_err(), "{text:?}");
        }
    }
}
