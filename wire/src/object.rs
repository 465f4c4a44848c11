//! Messages that lie in an object store, in place of HTTP bodies.

use serde::{Deserialize, Serialize};

/// Names the object that holds an inference request, and the one that is to hold the response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectRequest {
    /// `s3://BUCKET/KEY`: an [inference message](crate::INFER_MEDIA_TYPE).
    pub input: String,
    /// `s3://BUCKET/KEY`. Without it the response comes as a body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

/// Says where the response lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectResponse {
    /// The `output` that was asked for.
    pub output: String,
}
