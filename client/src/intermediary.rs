//! Who stands between a client and the enclave where TLS ends before it.

use std::{env, str::FromStr};

use object_store::path::Path;
use reqwest::Url;

/// Somebody who ends TLS, and sees sizes and times. Confidentiality rests on encryption then, and honesty on receipts.
#[derive(Clone, Debug)]
pub enum Intermediary {
    /// A load balancer, reverse proxy or API gateway in front of `cloister-parent-proxy serve --http`.
    Gateway {
        /// Its URL, with a path if the service lies below one.
        url: Url,
        /// Where messages lie, if they are not to travel in bodies.
        objects: Option<ObjectLocation>,
    },
    /// The SageMaker runtime in front of a container that speaks its contract.
    SageMaker {
        /// Which endpoint.
        endpoint: SageMakerEndpoint,
        /// Where messages lie, if they are not to travel in bodies.
        objects: Option<ObjectLocation>,
    },
}

/// An endpoint of the SageMaker runtime.
#[derive(Clone, Debug)]
pub struct SageMakerEndpoint {
    /// Its name.
    pub name: String,
    /// The region that signatures are for.
    pub region: String,
    /// Where the runtime is.
    pub url: Url,
}

impl SageMakerEndpoint {
    /// The endpoint `name` of the runtime of `region`; of the one at `url` if it is given, as
    /// `AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME` does for AWS's own programs.
    pub fn new(name: &str, region: &str, url: Option<&str>) -> Result<Self, IntermediaryError> {
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
        if !plain(name) || name.len() > 63 {
            return Err(IntermediaryError::SageMaker(name.to_owned()));
        }
        if !plain(region) {
            return Err(IntermediaryError::Region(region.to_owned()));
        }
        let of_region = format!("https://runtime.sagemaker.{region}.amazonaws.com");
        Ok(Self { name: name.to_owned(), region: region.to_owned(), url: gateway_url(url.unwrap_or(&of_region))? })
    }

    /// The endpoint `name`, by the environment variables that tell AWS's own programs where to go.
    pub fn from_environment(name: &str) -> Result<Self, IntermediaryError> {
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION")).unwrap_or_default();
        let url = variable("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME").or_else(|| variable("AWS_ENDPOINT_URL"));
        Self::new(name, &region, url.as_deref())
    }
}

/// A place in S3: `s3://BUCKET` or `s3://BUCKET/PREFIX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectLocation {
    pub(crate) bucket: String,
    pub(crate) prefix: String,
}

impl FromStr for ObjectLocation {
    type Err = IntermediaryError;

    fn from_str(text: &str) -> Result<Self, IntermediaryError> {
        let wrong = || IntermediaryError::Objects(text.to_owned());
        let rest = text.strip_prefix("s3://").ok_or_else(wrong)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = bucket.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.'));
        let prefix = prefix.trim_end_matches('/');
        // What the store would write in another way would be another key than the one that is told.
        let same = Path::parse(prefix).is_ok_and(|path| path.as_ref() == prefix);
        if !(3..=63).contains(&bucket.len()) || !plain || !same {
            return Err(wrong());
        }
        Ok(Self { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

/// `http://` is allowed for networks that are trusted with sizes and times: what travels is encrypted and signed by itself.
pub fn gateway_url(text: &str) -> Result<Url, IntermediaryError> {
    let wrong = || IntermediaryError::Gateway(text.to_owned());
    let url: Url = text.parse().map_err(|_| wrong())?;
    let plain = matches!(url.scheme(), "https" | "http") && url.has_host() && url.query().is_none();
    let bare = url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
    if plain && bare { Ok(url) } else { Err(wrong()) }
}

/// Not an intermediary.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IntermediaryError {
    /// Not a URL of a gateway.
    #[error("{0:?} is not a gateway: write https://HOST[:PORT][/PATH]; http:// where nobody ends TLS")]
    Gateway(String),
    /// Not a name of an endpoint.
    #[error("{0:?} is not the name of a SageMaker endpoint: 1 to 63 letters, digits and hyphens")]
    SageMaker(String),
    /// Not a region.
    #[error("{} is no AWS region: set AWS_REGION, as in eu-central-1", or_nothing(.0))]
    Region(String),
    /// Not a place in S3.
    #[error(
        "{0:?} is not a place for objects: write s3://BUCKET or s3://BUCKET/PREFIX, the bucket 3 to 63 of a-z 0-9 . -"
    )]
    Objects(String),
}

fn or_nothing(text: &str) -> String {
    if text.is_empty() { "nothing".to_owned() } else { format!("{text:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_are_urls_without_credentials() {
        for good in ["https://a.example", "http://127.0.0.1:8080/", "https://a.example:8443/prod"] {
            assert!(gateway_url(good).is_ok(), "{good}");
        }
        for bad in ["", "a.example", "ftp://a.example", "https://u:p@a.example", "https://a.example/?q", "https://a/#f"]
        {
            assert_eq!(gateway_url(bad), Err(IntermediaryError::Gateway(bad.to_owned())));
        }
    }

    #[test]
    fn endpoints_have_a_name_and_a_region() {
        let endpoint = SageMakerEndpoint::new("iris", "eu-central-1", None).unwrap();
        assert_eq!(endpoint.url.as_str(), "https://runtime.sagemaker.eu-central-1.amazonaws.com/");
        for (name, region) in [("", "eu-central-1"), ("a/b", "eu-central-1"), ("iris", ""), ("iris", "x.example/")] {
            assert!(SageMakerEndpoint::new(name, region, None).is_err(), "{name} {region}");
        }
    }

    #[test]
    fn objects_lie_in_buckets() {
        let place: ObjectLocation = "s3://my-bucket/a/b/".parse().unwrap();
        assert_eq!((place.bucket.as_str(), place.prefix.as_str()), ("my-bucket", "a/b"));
        assert_eq!("s3://my-bucket".parse::<ObjectLocation>().unwrap().prefix, "");
        for bad in [
            "",
            "my-bucket",
            "s3://",
            "s3://My_Bucket",
            "https://my-bucket/a",
            "s3://my-bucket/a//b",
            "s3://my-bucket/../a",
        ] {
            assert!(bad.parse::<ObjectLocation>().is_err(), "{bad}");
        }
    }
}
