//! Through an intermediary that ends TLS: a load balancer, an API gateway, SageMaker.

use std::time::Duration;

use bytes::Bytes;
use cloister_attestation::ManifestModel;
use cloister_wire::{
    ATTESTATION_MEDIA_TYPE, INFER_MEDIA_TYPE, METADATA_MEDIA_TYPE, OBJECT_MEDIA_TYPE,
    error::ErrorCode,
    limits::MAX_RESPONSE_BYTES,
    object::{ObjectRequest, ObjectResponse},
    oip::header_length,
    paths,
};
use hyper::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url, redirect};

use super::{
    ANSWER_TIMEOUT, Answer, CONNECT_TIMEOUT, Objects, refusal, retry_after, sagemaker::SageMaker, session::causes,
};
use crate::{Error, Intermediary};

/// How SageMaker, and whoever speaks its contract, is told which model is asked for.
pub(super) const CUSTOM_ATTRIBUTES: &str = "x-amzn-sagemaker-custom-attributes";

/// Requests over somebody else's connections, one for each.
#[derive(Debug)]
pub(crate) struct Relayed {
    client: Client,
    route: Route,
    objects: Option<Objects>,
}

#[derive(Debug)]
enum Route {
    /// The paths of the service, under this one.
    Gateway(Url),
    SageMaker(SageMaker),
}

impl Relayed {
    /// Names the way; nothing is sent yet.
    pub(crate) fn new(intermediary: &Intermediary) -> Result<Self, Error> {
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            // An intermediary that sends elsewhere would take requests where nobody asked for.
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|error| Error::Intermediary { reason: causes(&error) })?;
        let (route, objects) = match intermediary {
            Intermediary::Gateway { url, objects } => (Route::Gateway(url.clone()), objects),
            Intermediary::SageMaker { endpoint, objects } => (Route::SageMaker(SageMaker::new(endpoint)?), objects),
        };
        let objects = objects.as_ref().map(Objects::new).transpose()?;
        Ok(Self { client, route, objects })
    }

    pub(super) async fn present(&self, nonce: &[u8]) -> Result<Bytes, Error> {
        let nonce = Bytes::copy_from_slice(nonce);
        match &self.route {
            Route::Gateway(base) => {
                let request = self.client.post(under(base, paths::ATTESTATION));
                self.exchange(request.header(CONTENT_TYPE, ATTESTATION_MEDIA_TYPE).body(nonce)).await
            }
            Route::SageMaker(_) => self.invoke(ATTESTATION_MEDIA_TYPE, None, nonce).await,
        }
    }

    pub(super) async fn describe(&self, model: &ManifestModel) -> Result<Bytes, Error> {
        match &self.route {
            Route::Gateway(base) => {
                let path = paths::model(&model.name, Some(&model.version));
                self.exchange(self.client.get(under(base, &path))).await
            }
            // Not empty: there are gateways that refuse a body of nothing.
            Route::SageMaker(_) => self.invoke(METADATA_MEDIA_TYPE, Some(model), Bytes::from_static(b"{}")).await,
        }
    }

    pub(super) async fn infer(&self, model: &ManifestModel, message: Bytes) -> Result<Answer, Error> {
        let body = match (&self.objects, &self.route) {
            (Some(objects), _) => self.infer_by_objects(objects, model, message).await?,
            (None, Route::Gateway(base)) => {
                let request = self.client.post(under(base, &paths::infer(&model.name, Some(&model.version))));
                self.exchange(request.header(CONTENT_TYPE, INFER_MEDIA_TYPE).body(message)).await?
            }
            (None, Route::SageMaker(_)) => self.invoke(INFER_MEDIA_TYPE, Some(model), message).await?,
        };
        // HTTP headers of ours may be lost on the way, so the message says it itself.
        let header_length = header_length(&body).map_err(|error| Error::BadAnswer { reason: error.to_string() })?;
        Ok(Answer { header_length: Some(header_length), body })
    }

    async fn infer_by_objects(&self, objects: &Objects, model: &ManifestModel, message: Bytes) -> Result<Bytes, Error> {
        let exchange = objects.put(message).await?;
        let request = ObjectRequest { input: exchange.input(), output: Some(exchange.output()) };
        let request = serde_json::to_vec(&request).expect("two texts are JSON");
        let said = self.invoke(OBJECT_MEDIA_TYPE, Some(model), request.into()).await;
        let answer = match said.map(|said| serde_json::from_slice::<ObjectResponse>(&said)) {
            Ok(Ok(ObjectResponse { output })) if output == exchange.output() => exchange.take().await,
            Ok(_) => Err(Error::BadAnswer { reason: "it names another object than it was asked for".into() }),
            Err(error) => Err(error),
        };
        exchange.remove().await;
        answer
    }

    /// The one verb of SageMaker's container contract.
    async fn invoke(
        &self,
        media_type: &'static str,
        model: Option<&ManifestModel>,
        body: Bytes,
    ) -> Result<Bytes, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, media_type.parse().expect("media types are plain"));
        if let Some(ManifestModel { name, version, .. }) = model {
            let attributes = format!("model={name}/{version}");
            let attributes =
                attributes.parse().map_err(|_| Error::BadAnswer { reason: "a model's name is none".into() })?;
            headers.insert(CUSTOM_ATTRIBUTES, attributes);
        }
        match &self.route {
            Route::Gateway(base) => {
                self.exchange(self.client.post(under(base, "/invocations")).headers(headers).body(body)).await
            }
            Route::SageMaker(sagemaker) => {
                let response = self.send(sagemaker.request(&self.client, headers, body).await?).await?;
                let status = response.status();
                let (wait, body) = (retry_after(response.headers()), self.read(response).await?);
                if status == StatusCode::OK { Ok(body) } else { Err(sagemaker.refusal(status, wait, &body)) }
            }
        }
    }

    async fn exchange(&self, request: RequestBuilder) -> Result<Bytes, Error> {
        let response = self.send(request).await?;
        let status = response.status();
        let (wait, body) = (retry_after(response.headers()), self.read(response).await?);
        if status == StatusCode::OK { Ok(body) } else { Err(refused(status, wait, &body)) }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        request.send().await.map_err(|error| {
            let (connect, error) = (error.is_connect(), error.without_url());
            let reason = causes(&error);
            match connect {
                true => Error::Unreachable { endpoint: self.name(), reason },
                false => Error::ConnectionLost { reason },
            }
        })
    }

    async fn read(&self, mut response: Response) -> Result<Bytes, Error> {
        let lost = |error: reqwest::Error| Error::ConnectionLost { reason: causes(&error.without_url()) };
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            if body.len() + chunk.len() > MAX_RESPONSE_BYTES {
                return Err(Error::BadAnswer { reason: format!("it has more than {MAX_RESPONSE_BYTES} bytes") });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.into())
    }

    fn name(&self) -> String {
        match &self.route {
            Route::Gateway(base) => base.to_string(),
            Route::SageMaker(sagemaker) => sagemaker.name(),
        }
    }
}

/// As the service refuses, or whoever stands before it: that one may ask for patience in the language of HTTP.
pub(super) fn refused(status: StatusCode, wait: Option<Duration>, body: &[u8]) -> Error {
    match (refusal(status, wait, body), status) {
        (Error::BadAnswer { .. }, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => Error::Refused {
            code: ErrorCode::Overloaded,
            message: format!("HTTP status {status}"),
            retry_after: Some(wait.unwrap_or(Duration::from_secs(1))),
        },
        (error, _) => error,
    }
}

/// A path of the service below that of a gateway, which may have one of its own.
fn under(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&(base.path().trim_end_matches('/').to_owned() + path));
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_may_have_a_path_of_its_own() {
        for (base, expected) in [
            ("https://gateway.example", "https://gateway.example/v2/models/iris"),
            ("https://gateway.example/", "https://gateway.example/v2/models/iris"),
            ("https://gateway.example/prod/", "https://gateway.example/prod/v2/models/iris"),
        ] {
            assert_eq!(under(&base.parse().unwrap(), "/v2/models/iris").as_str(), expected);
        }
    }
}
