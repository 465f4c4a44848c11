//! Messages by way of S3, in place of HTTP bodies.

use std::sync::Arc;

use aws_lc_rs::rand;
use bytes::Bytes;
use cloister_wire::limits::MAX_RESPONSE_BYTES;
use object_store::{
    ObjectStoreExt,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
};

use super::sagemaker::first_line;
use crate::{Error, ObjectLocation};

/// A place for objects.
#[derive(Clone, Debug)]
pub(crate) struct Objects {
    store: Arc<AmazonS3>,
    location: ObjectLocation,
}

/// The two objects of one request.
#[derive(Debug)]
pub(super) struct ObjectExchange<'a> {
    objects: &'a Objects,
    /// Unlike any other's: nobody who can guess it could do more with it than with a request that it saw.
    name: String,
}

impl Objects {
    pub(crate) fn new(location: &ObjectLocation) -> Result<Self, Error> {
        let store = AmazonS3Builder::from_env().with_bucket_name(&location.bucket).build().map_err(unusable)?;
        Ok(Self { store: store.into(), location: location.clone() })
    }

    pub(super) async fn put(&self, message: Bytes) -> Result<ObjectExchange<'_>, Error> {
        let mut name = [0; 16];
        rand::fill(&mut name).map_err(|_| Error::Objects { reason: "no random bytes".into() })?;
        let exchange = ObjectExchange { objects: self, name: hex::encode(name) };
        self.store.put(&exchange.path("request"), message.into()).await.map_err(unusable)?;
        Ok(exchange)
    }
}

impl ObjectExchange<'_> {
    /// Where the request lies.
    pub(super) fn input(&self) -> String {
        self.url("request")
    }

    /// Where the answer is to lie.
    pub(super) fn output(&self) -> String {
        self.url("response")
    }

    pub(super) async fn take(&self) -> Result<Bytes, Error> {
        let answer = self.objects.store.get(&self.path("response")).await.map_err(unusable)?;
        if answer.meta.size > MAX_RESPONSE_BYTES as u64 {
            return Err(Error::BadAnswer { reason: format!("it has {} bytes", answer.meta.size) });
        }
        answer.bytes().await.map_err(unusable)
    }

    /// Both objects, if they are there. What cannot be removed stays: it is encrypted.
    pub(super) async fn remove(self) {
        for end in ["request", "response"] {
            let _ = self.objects.store.delete(&self.path(end)).await;
        }
    }

    fn key(&self, end: &str) -> String {
        let prefix = &self.objects.location.prefix;
        let separator = if prefix.is_empty() { "" } else { "/" };
        format!("{prefix}{separator}{}.{end}", self.name)
    }

    fn path(&self, end: &str) -> Path {
        Path::parse(self.key(end)).expect("the prefix is a path, and the name is hexadecimal")
    }

    fn url(&self, end: &str) -> String {
        format!("s3://{}/{}", self.objects.location.bucket, self.key(end))
    }
}

fn unusable(error: object_store::Error) -> Error {
    Error::Objects { reason: first_line(&error) }
}
