//! `InvokeEndpoint` of the SageMaker runtime (API reference, version 2017-05-13), signed with AWS Signature Version 4.

use std::time::Duration;

use bytes::Bytes;
use hyper::header::HeaderMap;
use object_store::{
    RetryConfig,
    aws::{AmazonS3Builder, AwsAuthorizer, AwsCredentialProvider},
    client::HttpRequest,
};
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use serde::Deserialize;

use super::{printable, relayed::refused};
use crate::{Error, SageMakerEndpoint};

/// The service's name in signatures.
const SERVICE: &str = "sagemaker";

/// An endpoint, and who asks it. The signature tells AWS who pays; the enclave never sees it.
pub(super) struct SageMaker {
    name: String,
    invocations: Url,
    region: String,
    credentials: AwsCredentialProvider,
}

impl SageMaker {
    pub(super) fn new(endpoint: &SageMakerEndpoint) -> Result<Self, Error> {
        let SageMakerEndpoint { name, region, url } = endpoint;
        let mut invocations = url.clone();
        invocations.set_path(&format!("{}/endpoints/{name}/invocations", url.path().trim_end_matches('/')));
        let credentials = credentials(region)?;
        Ok(Self { name: name.clone(), invocations, region: region.clone(), credentials })
    }

    pub(super) fn name(&self) -> String {
        format!("SageMaker endpoint {} in {}", self.name, self.region)
    }

    pub(super) async fn request(
        &self,
        client: &Client,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<RequestBuilder, Error> {
        let no_credentials = |error: object_store::Error| Error::Credentials {
            reason: match std::env::var_os("AWS_ACCESS_KEY_ID") {
                Some(_) => first_line(&error),
                None => "AWS_ACCESS_KEY_ID is not set, and no role of a container or an instance answers".into(),
            },
        };
        let credential = self.credentials.get_credential().await.map_err(no_credentials)?;
        let mut request = hyper::Request::post(self.invocations.as_str())
            .body(object_store::client::HttpRequestBody::from(body.clone()))
            .map_err(|error| Error::Intermediary { reason: error.to_string() })?;
        *request.headers_mut() = headers;
        self.sign(&credential, &mut request)?;
        Ok(client.post(self.invocations.clone()).headers(std::mem::take(request.headers_mut())).body(body))
    }

    fn sign(&self, credential: &object_store::aws::AwsCredential, request: &mut HttpRequest) -> Result<(), Error> {
        AwsAuthorizer::new(credential, SERVICE, &self.region)
            .try_authorize(request, None)
            .map_err(|error| Error::Credentials { reason: first_line(&error) })
    }

    /// What SageMaker says when the container refused, or when it refuses by itself.
    pub(super) fn refusal(&self, status: StatusCode, wait: Option<Duration>, body: &[u8]) -> Error {
        /// ModelError: the container's own answer is in it.
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct ModelError {
            original_status_code: u16,
            original_message: String,
        }
        #[derive(Deserialize)]
        struct Message {
            #[serde(alias = "Message")]
            message: String,
        }
        if let Ok(ModelError { original_status_code, original_message }) = serde_json::from_slice(body) {
            let status = StatusCode::from_u16(original_status_code).unwrap_or(status);
            return refused(status, wait, original_message.as_bytes());
        }
        match (serde_json::from_slice::<Message>(body), status) {
            (Ok(Message { message }), status)
                if !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) =>
            {
                let message = printable(&message);
                Error::Intermediary { reason: format!("SageMaker answered HTTP status {status}: {message}") }
            }
            _ => refused(status, wait, body),
        }
    }
}

impl std::fmt::Debug for SageMaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SageMaker").field("endpoint", &self.invocations.as_str()).finish_non_exhaustive()
    }
}

/// From the environment, a container's or an instance's role.
fn credentials(region: &str) -> Result<AwsCredentialProvider, Error> {
    let quick = RetryConfig { max_retries: 1, retry_timeout: Duration::from_secs(5), ..RetryConfig::default() };
    let store = AmazonS3Builder::from_env().with_region(region).with_bucket_name("none").with_retry(quick).build();
    let store = store.map_err(|error| Error::Credentials { reason: first_line(&error) })?;
    Ok(store.credentials().clone())
}

/// More may repeat what a server said.
pub(super) fn first_line(error: &dyn std::fmt::Display) -> String {
    printable(error.to_string().lines().next().unwrap_or_default())
}
