//! Messages that lie in an object store.

use std::{
    collections::HashMap,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use cloister_wire::{error::ErrorCode, object::ObjectRequest};
use object_store::{
    Error, ObjectStore, ObjectStoreExt, PutMode, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut},
    path::Path,
};
use tokio::time::{Instant, timeout_at};

use crate::{
    log::log,
    metrics::{Direction, Metrics},
    refusal::Refusal,
};

/// From the first byte that is fetched to the last that is stored.
const PATIENCE: Duration = Duration::from_secs(30);
/// Tries of one request to the store, after the first.
const RETRIES: usize = 2;
/// S3's own limit.
const MAX_KEY_BYTES: usize = 1024;

/// Where objects may lie: a bucket, or a folder in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    name: String,
    /// Ends with `/`, or is empty.
    prefix: String,
}

/// A text that names no bucket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a bucket: accepted are NAME and NAME/PREFIX, the name 3 to 63 of a-z 0-9 . -")]
pub struct BucketError {
    /// The text.
    pub given: String,
}

impl FromStr for Bucket {
    type Err = BucketError;

    fn from_str(text: &str) -> Result<Self, BucketError> {
        let (name, prefix) = text.split_once('/').unwrap_or((text, ""));
        let prefix = prefix.trim_end_matches('/');
        if !is_bucket_name(name) || !prefix.is_empty() && plain_key(prefix).is_none() {
            return Err(BucketError { given: text.into() });
        }
        Ok(Self { name: name.into(), prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") } })
    }
}

fn is_bucket_name(name: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'-');
    (3..=63).contains(&name.len()) && name.bytes().all(plain)
}

/// A key that the store takes as it is: no `.` or `..` between slashes, nothing empty between them, no control characters.
fn plain_key(key: &str) -> Option<Path> {
    let path = Path::parse(key).ok().filter(|_| (1..=MAX_KEY_BYTES).contains(&key.len()))?;
    (path.as_ref() == key).then_some(path)
}

impl Bucket {
    fn holds(&self, location: &Location) -> bool {
        self.name == location.bucket && location.key.as_ref().starts_with(&self.prefix)
    }
}

/// An object in a place that is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    bucket: String,
    key: Path,
}

impl Location {
    fn parse(url: &str) -> Result<Self, Refusal> {
        let parts = url.strip_prefix("s3://").and_then(|rest| rest.split_once('/'));
        let location = parts.and_then(|(bucket, key)| {
            Some(Self { bucket: is_bucket_name(bucket).then(|| bucket.into())?, key: plain_key(key)? })
        });
        location.ok_or_else(|| {
            let form =
                "an object is named s3://BUCKET/KEY, the key of at most 1024 bytes and without empty, . and .. parts";
            Refusal::bad_request(form)
        })
    }
}

/// The object store, as far as it is allowed.
pub(crate) struct Objects {
    buckets: Vec<Bucket>,
    stores: Mutex<HashMap<String, Arc<AmazonS3>>>,
    metrics: Metrics,
}

/// An exchange by way of the object store, begun and not over.
pub(crate) struct Exchange<'a> {
    objects: &'a Objects,
    input: Location,
    output: Option<Location>,
    deadline: Instant,
}

impl Objects {
    pub(crate) fn new(buckets: Vec<Bucket>, metrics: Metrics) -> Self {
        Self { buckets, stores: Mutex::default(), metrics }
    }

    /// Begins an exchange, if both its ends are allowed.
    pub(crate) fn exchange(&self, request: &ObjectRequest) -> Result<Exchange<'_>, Refusal> {
        let input = self.allowed(&request.input)?;
        let output = request.output.as_deref().map(|url| self.allowed(url)).transpose()?;
        Ok(Exchange { objects: self, input, output, deadline: Instant::now() + PATIENCE })
    }

    fn allowed(&self, url: &str) -> Result<Location, Refusal> {
        if self.buckets.is_empty() {
            let error = "this service reads and writes no objects: send the message itself as the body";
            return Err(Refusal::new(ErrorCode::ObjectRefused, error));
        }
        let location = Location::parse(url)?;
        if !self.buckets.iter().any(|bucket| bucket.holds(&location)) {
            let error = "the object lies outside the buckets and prefixes that this service may use";
            return Err(Refusal::new(ErrorCode::ObjectRefused, error));
        }
        Ok(location)
    }

    /// The store of a bucket; its settings and credentials come from the `AWS_*` variables or from the instance.
    fn store(&self, bucket: &str) -> Result<Arc<AmazonS3>, Error> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.get(bucket) {
            return Ok(store.clone());
        }
        let retry = RetryConfig { max_retries: RETRIES, retry_timeout: PATIENCE, ..RetryConfig::default() };
        let builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry);
        // Whatever the variables say: without it an object could be replaced.
        let store = Arc::new(builder.with_conditional_put(S3ConditionalPut::ETagMatch).build()?);
        stores.insert(bucket.into(), store.clone());
        Ok(store)
    }
}

impl Exchange<'_> {
    /// Fetches the input, unless it has more than `max` bytes.
    pub(crate) async fn fetch(&self, max: usize) -> Result<Bytes, Refusal> {
        let fetching = async {
            let object = self.objects.store(&self.input.bucket)?.get(&self.input.key).await?;
            match object.meta.size {
                size if size > max as u64 => Ok(None),
                _ => object.bytes().await.map(Some),
            }
        };
        self.transfer(Direction::Up, fetching).await?.ok_or_else(|| {
            Refusal::new(ErrorCode::TooLarge, format!("the object has more than the {max} bytes allowed"))
        })
    }

    /// Stores the answer where the output is to be, if it is to be anywhere and nothing is there: what a client names may be
    /// another's.
    pub(crate) async fn store(&self, answer: Bytes) -> Result<(), Refusal> {
        let Some(output) = &self.output else { return Ok(()) };
        let storing = async {
            let store = self.objects.store(&output.bucket)?;
            store.put_opts(&output.key, answer.into(), PutMode::Create.into()).await
        };
        self.transfer(Direction::Down, storing).await.map(drop)
    }

    /// What the store says may hold what is not for clients, so they learn that it failed and the log in which way.
    async fn transfer<T>(
        &self,
        direction: Direction,
        transfer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Refusal> {
        let result = match timeout_at(self.deadline, transfer).await {
            Ok(result) => result.map_err(|error| kind(&error)),
            Err(_) => Err("timeout"),
        };
        self.objects.metrics.transferred(direction, result.is_ok());
        result.map_err(|kind| {
            let (verb, end) = match direction {
                Direction::Up => ("fetched", "input"),
                Direction::Down => ("stored", "output"),
            };
            log(format_args!("event=object_failed end={end} error={kind}"));
            if kind == EXISTS {
                let error = "an object is where the output is to be, and none is replaced: name another output";
                return Refusal::new(ErrorCode::ObjectRefused, error);
            }
            let error = format!("the {end} could not be {verb}: see that it exists and that this service may use it");
            Refusal::new(ErrorCode::ObjectUnavailable, error)
        })
    }
}

const EXISTS: &str = "already_exists";

fn kind(error: &Error) -> &'static str {
    match error {
        Error::AlreadyExists { .. } => EXISTS,
        Error::NotFound { .. } => "not_found",
        Error::PermissionDenied { .. } => "permission_denied",
        Error::Unauthenticated { .. } => "unauthenticated",
        Error::InvalidPath { .. } => "invalid_path",
        Error::Precondition { .. } | Error::NotModified { .. } => "precondition",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(buckets: &[&str]) -> Objects {
        Objects::new(buckets.iter().map(|bucket| bucket.parse().unwrap()).collect(), Metrics::default())
    }

    fn refused(objects: &Objects, input: &str, output: Option<&str>) -> Option<ErrorCode> {
        let request = ObjectRequest { input: input.into(), output: output.map(Into::into) };
        objects.exchange(&request).err().map(|refusal| refusal.body.code)
    }

    #[test]
    fn only_what_is_allowed_is_touched() {
        let objects = objects(&["whole", "part/in"]);
        for url in ["s3://whole/a", "s3://whole/a/b", "s3://part/in/a", "s3://part/in/a/b c"] {
            assert_eq!(refused(&objects, url, None), None, "{url}");
            assert_eq!(refused(&objects, "s3://whole/a", Some(url)), None, "{url}");
        }
        for url in ["s3://other/a", "s3://part/a", "s3://part/input", "s3://part/in", "s3://whol/a"] {
            assert_eq!(refused(&objects, url, None), Some(ErrorCode::ObjectRefused), "{url}");
            assert_eq!(refused(&objects, "s3://whole/a", Some(url)), Some(ErrorCode::ObjectRefused), "{url}");
        }
    }

    #[test]
    fn a_key_that_climbs_or_is_ambiguous_is_no_key() {
        let objects = objects(&["part/in"]);
        let long = format!("s3://part/in/{}", "x".repeat(MAX_KEY_BYTES));
        for url in [
            "s3://part/in/../out",
            "s3://part/in/./a",
            "s3://part/in//a",
            "s3://part//in/a",
            "s3://part/in/a/",
            "s3://part/in/a\n",
            "s3://part/",
            "s3://part",
            "s3:///in/a",
            "https://part/in/a",
            "",
            &long,
        ] {
            assert_eq!(refused(&objects, url, None), Some(ErrorCode::BadRequest), "{url}");
        }
        // Not decoded, so not a way out either.
        assert_eq!(Location::parse("s3://part/in/%2e%2e/a").unwrap().key.as_ref(), "in/%2e%2e/a");
    }

    #[test]
    fn without_buckets_there_are_no_objects() {
        assert_eq!(refused(&objects(&[]), "s3://whole/a", None), Some(ErrorCode::ObjectRefused));
    }

    #[test]
    fn a_bucket_is_a_name_and_perhaps_a_folder() {
        for text in ["", "ab", "Upper", "a b", "name/../x", "name//x", &"x".repeat(64)] {
            assert!(text.parse::<Bucket>().is_err(), "{text:?}");
        }
        assert_eq!("name".parse::<Bucket>(), "name/".parse());
        assert_eq!("name/in".parse::<Bucket>(), "name/in/".parse());
    }
}
