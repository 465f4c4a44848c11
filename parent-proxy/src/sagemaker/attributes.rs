//! The custom attributes of a request, which SageMaker passes on without a look.

use axum::http::{HeaderMap, HeaderName};

use crate::refusal::Refusal;

pub(crate) const CUSTOM_ATTRIBUTES: HeaderName = HeaderName::from_static("x-amzn-sagemaker-custom-attributes");
/// SageMaker's own limit.
const MAX_BYTES: usize = 1024;

/// `key=value`, separated by `;` or `,`; whatever else is there is not for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes<'a>(&'a str);

impl<'a> Attributes<'a> {
    pub(crate) fn of(headers: &'a HeaderMap) -> Result<Self, Refusal> {
        let Some(value) = headers.get(CUSTOM_ATTRIBUTES) else { return Ok(Self("")) };
        match value.to_str() {
            Ok(text) if text.len() <= MAX_BYTES => Ok(Self(text)),
            _ => Err(Refusal::bad_request(format!(
                "X-Amzn-SageMaker-Custom-Attributes has more than {MAX_BYTES} bytes, or some that are not visible ASCII"
            ))),
        }
    }

    pub(crate) fn value(self, key: &str) -> Option<&'a str> {
        let mut pairs = self.0.split([';', ',']).filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim())
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn attributes(value: &[u8]) -> HeaderMap {
        HeaderMap::from_iter([(CUSTOM_ATTRIBUTES, HeaderValue::from_bytes(value).unwrap())])
    }

    #[test]
    fn a_value_is_found_among_others() {
        for text in ["model=iris", "a=b;model=iris", "a, model = iris ,model=other", ";;=;model=iris"] {
            assert_eq!(Attributes::of(&attributes(text.as_bytes())).unwrap().value("model"), Some("iris"), "{text}");
        }
        assert_eq!(Attributes::of(&attributes(b"models=iris;c000b4f9-df62")).unwrap().value("model"), None);
        assert_eq!(Attributes::of(&HeaderMap::new()).unwrap().value("model"), None);
    }

    #[test]
    fn what_sagemaker_would_not_send_is_refused() {
        assert!(Attributes::of(&attributes(&[b'x'; MAX_BYTES])).is_ok());
        assert!(Attributes::of(&attributes(&[b'x'; MAX_BYTES + 1])).is_err());
        assert!(Attributes::of(&attributes("é".as_bytes())).is_err());
    }
}
