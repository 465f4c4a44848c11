//! Where things are.

/// `POST` a nonce, get a presentation: document, receipt key and manifest.
pub const ATTESTATION: &str = "/v1/attestation";
/// `GET` server metadata.
pub const SERVER: &str = "/v2";
/// `GET` liveness.
pub const LIVE: &str = "/v2/health/live";
/// `GET` readiness.
pub const READY: &str = "/v2/health/ready";
/// `GET` model metadata; the service's route pattern.
pub const MODEL: &str = "/v2/models/{model}";
/// `GET` model readiness; the service's route pattern.
pub const MODEL_READY: &str = "/v2/models/{model}/ready";
/// `POST` an inference request; the service's route pattern.
pub const INFER: &str = "/v2/models/{model}/infer";

/// [`MODEL`] for one model. Names need no escaping: see [`is_model_name`].
pub fn model(name: &str) -> String {
    MODEL.replace("{model}", name)
}

/// [`INFER`] for one model.
pub fn infer(name: &str) -> String {
    INFER.replace("{model}", name)
}

/// Whether a name can stand in a path: 1 to 64 of `A-Z a-z 0-9 . _ -`, not starting with a dot.
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
        assert_eq!(infer("iris"), "/v2/models/iris/infer");
    }
}
