//! Where things are.

/// `POST` a nonce, get a presentation: document, receipt key and manifest.
pub const ATTESTATION: &str = "/v1/attestation";
/// `GET` server metadata.
pub const SERVER: &str = "/v2";
/// `GET` liveness.
pub const LIVE: &str = "/v2/health/live";
/// `GET` readiness.
pub const READY: &str = "/v2/health/ready";
/// `GET` a model's metadata, `GET …/ready` its readiness, `POST …/infer` an inference request: the path to a model, or to one
/// of its versions. Names need no escaping: see [`is_model_name`].
pub fn model(name: &str, version: Option<&str>) -> String {
    match version {
        Some(version) => format!("/v2/models/{name}/versions/{version}"),
        None => format!("/v2/models/{name}"),
    }
}

/// Under [`model`]: whether it is ready.
pub const MODEL_READY: &str = "/ready";
/// Under [`model`]: inference.
pub const MODEL_INFER: &str = "/infer";

/// `POST` an inference request to a model, or to one of its versions.
pub fn infer(name: &str, version: Option<&str>) -> String {
    model(name, version) + MODEL_INFER
}

/// `POST` for a list of what is served. This and the other paths of the model repository are on a port of their own, which only
/// the parent reaches.
pub const REPOSITORY_INDEX: &str = "/v2/repository/index";
/// `POST` a bundle, which is served from then on under the name and version that stand in it.
pub const REPOSITORY_LOAD: &str = "/v2/repository/load";

/// `POST` to serve a model, or one of its versions, no longer.
pub fn repository_unload(name: &str, version: Option<&str>) -> String {
    model(name, version).replacen("/v2/", "/v2/repository/", 1) + REPOSITORY_UNLOAD
}

/// The end of [`repository_unload`].
pub const REPOSITORY_UNLOAD: &str = "/unload";

/// Whether a name or a version can stand in a path: 1 to 64 of `A-Z a-z 0-9 . _ -`, not starting with a dot.
pub fn is_model_name(name: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    (1..=64).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_reach_a_path() {
        assert!(is_model_name("iris-1.2_b"));
        for bad in ["", ".", "..", "a/b", "a b", "a%2f", "é", &"x".repeat(65)] {
            assert!(!is_model_name(bad), "{bad:?}");
        }
        assert_eq!(infer("iris", None), "/v2/models/iris/infer");
        assert_eq!(infer("iris", Some("2")), "/v2/models/iris/versions/2/infer");
        assert_eq!(repository_unload("iris", Some("2")), "/v2/repository/models/iris/versions/2/unload");
    }
}
