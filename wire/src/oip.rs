//! Open Inference Protocol (KServe v2) messages with the binary tensor extension.
//!
//! A message is a JSON header, whose length the HTTP header [`HEADER_LENGTH`](crate::HEADER_LENGTH) gives, followed by
//! each tensor's bytes in the header's order. An element of a `BYTES` tensor is its length as four little-endian bytes,
//! then the bytes.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{error::ErrorCode, limits};

/// The request tensor that carries the public key of the session, where the service does not have it yet.
pub const PUBLIC_KEY: &str = "public_key";
/// The tensor that carries a ciphertext, in requests and responses.
pub const CIPHERTEXT: &str = "ciphertext";
/// The response tensor that carries the signed receipt.
pub const RECEIPT: &str = "receipt";
const BYTES: &str = "BYTES";

/// A message as HTTP carries it.
#[derive(Clone, Debug)]
pub struct Framed {
    /// Length of the JSON header at the front of `body`.
    pub header_length: usize,
    /// Header and tensors.
    pub body: Vec<u8>,
}

/// An inference request with one ciphertext.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InferRequest<'a> {
    /// The caller's own name for this request, echoed in the answer.
    pub id: Option<Cow<'a, str>>,
    /// The public key's message of `cloister-inference`: once per connection.
    pub public_key: Option<&'a [u8]>,
    /// The ciphertext message of `cloister-inference`.
    pub ciphertext: &'a [u8],
    /// Who and what must answer, or nobody does.
    pub expected: Expected<'a>,
}

/// What a request expects of whoever answers: `parameters` of its header, digests as text. A service that is another one
/// refuses with [`Misdirected`](ErrorCode::Misdirected) or [`ModelChanged`](ErrorCode::ModelChanged), instead of giving an answer
/// that the client will not accept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected<'a> {
    /// The digest of the bundle.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<&'a str>,
    /// The digest of the key that signs the receipt: between them the two ends may have a balancer before several enclaves.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub receipt_key: Option<&'a str>,
}

impl Expected<'_> {
    fn is_anything(&self) -> bool {
        *self == Self::default()
    }
}

impl<'a> InferRequest<'a> {
    /// The request as it is sent.
    pub fn to_framed(&self) -> Framed {
        let key = self.public_key.map(|key| (PUBLIC_KEY, key));
        let (names, tensors): (Vec<_>, Vec<_>) = key.into_iter().chain([(CIPHERTEXT, self.ciphertext)]).unzip();
        let header = RequestHeader {
            id: self.id.clone(),
            inputs: names.into_iter().zip(&tensors).map(|(name, tensor)| TensorHeader::bytes(name, tensor)).collect(),
            outputs: [CIPHERTEXT, RECEIPT].map(RequestedOutput::binary).into(),
            parameters: self.expected,
        };
        frame(&header, &tensors)
    }

    /// Reads a request. `header_length` is `None` where the HTTP header was absent and the body is JSON alone.
    pub fn parse(header_length: Option<usize>, body: &'a [u8]) -> Result<Self, MessageError> {
        let (header, tensors) = split(header_length, body)?;
        let header: RequestHeader<'a> = serde_json::from_slice(header)?;
        if header.id.as_ref().is_some_and(|id| id.len() > limits::MAX_ID_BYTES) {
            return Err(MessageError::LongId);
        }
        for input in &header.inputs {
            if input.datatype != BYTES {
                return Err(MessageError::Plaintext {
                    tensor: excerpt(&input.name),
                    datatype: excerpt(&input.datatype),
                });
            }
        }
        let (public_key, ciphertext) = match header.inputs.len() {
            2 => elements(&header.inputs, tensors, [PUBLIC_KEY, CIPHERTEXT]).map(|[key, text]| (Some(key), text))?,
            _ => elements(&header.inputs, tensors, [CIPHERTEXT]).map(|[text]| (None, text))?,
        };
        Ok(Self { id: header.id, public_key, ciphertext, expected: header.parameters })
    }
}

/// An inference response: the ciphertext of the logits and its receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InferResponse<'a> {
    /// The model that answered.
    pub model_name: &'a str,
    /// Its version.
    pub model_version: &'a str,
    /// The request's `id`.
    pub id: Option<Cow<'a, str>>,
    /// The ciphertext message of `cloister-inference`.
    pub ciphertext: &'a [u8],
    /// The COSE_Sign1 receipt.
    pub receipt: &'a [u8],
}

impl<'a> InferResponse<'a> {
    /// The response as it is sent.
    pub fn to_framed(&self) -> Framed {
        let header = ResponseHeader {
            model_name: self.model_name,
            model_version: self.model_version,
            id: self.id.clone(),
            outputs: vec![TensorHeader::bytes(CIPHERTEXT, self.ciphertext), TensorHeader::bytes(RECEIPT, self.receipt)],
        };
        frame(&header, &[self.ciphertext, self.receipt])
    }

    /// Reads a response.
    pub fn parse(header_length: Option<usize>, body: &'a [u8]) -> Result<Self, MessageError> {
        let (header, tensors) = split(header_length, body)?;
        let header: ResponseHeader<'a> = serde_json::from_slice(header)?;
        let [ciphertext, receipt] = elements(&header.outputs, tensors, [CIPHERTEXT, RECEIPT])?;
        let ResponseHeader { model_name, model_version, id, outputs: _ } = header;
        Ok(Self { model_name, model_version, id, ciphertext, receipt })
    }
}

/// What `GET /v2` answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerMetadata {
    /// The program.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Protocol extensions it speaks.
    pub extensions: Vec<String>,
}

/// What `GET /v2/health/live` and `…/ready` answer: both fields, since clients read one or the other.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Health {
    /// The process serves.
    pub live: bool,
    /// Its models are loaded.
    pub ready: bool,
}

/// What `GET /v2/models/M/ready` answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelReady {
    /// The model.
    pub name: String,
    /// It is served: what is not is not found.
    pub ready: bool,
}

/// What `GET /v2/models/M` answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelMetadata {
    /// The model.
    pub name: String,
    /// Its versions.
    pub versions: Vec<String>,
    /// What evaluates it.
    pub platform: String,
    /// A public key, once per connection, and a ciphertext.
    pub inputs: Vec<TensorMetadata>,
    /// A ciphertext and a receipt.
    pub outputs: Vec<TensorMetadata>,
    /// What a client needs to encrypt.
    pub parameters: ModelParameters,
}

/// A model of the repository, as `POST /v2/repository/index` lists it and `POST /v2/repository/load` answers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryModel {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `READY`: what cannot be served is not listed.
    pub state: String,
    /// The digest of its bundle, `sha384:…`.
    pub digest: String,
}

/// Our part of a model's metadata.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelParameters {
    /// The model's description (deterministic CBOR, base64), whose SHA-384 stands in the attested manifest.
    pub cloister_description: String,
}

/// A tensor's place in a model's metadata.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TensorMetadata {
    /// Its name.
    pub name: String,
    /// Always `BYTES`.
    pub datatype: String,
    /// Always `[1]`.
    pub shape: Vec<u64>,
}

impl ModelMetadata {
    /// The metadata of an encrypted model.
    pub fn new(name: &str, versions: Vec<String>, platform: &str, description_base64: String) -> Self {
        let tensor = |name: &str| TensorMetadata { name: name.into(), datatype: BYTES.into(), shape: vec![1] };
        Self {
            name: name.into(),
            versions,
            platform: platform.into(),
            inputs: vec![tensor(PUBLIC_KEY), tensor(CIPHERTEXT)],
            outputs: vec![tensor(CIPHERTEXT), tensor(RECEIPT)],
            parameters: ModelParameters { cloister_description: description_base64 },
        }
    }
}

#[derive(Serialize, Deserialize)]
struct RequestHeader<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    inputs: Vec<TensorHeader<'a>>,
    #[serde(borrow, default)]
    outputs: Vec<RequestedOutput<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Expected::is_anything")]
    parameters: Expected<'a>,
}

#[derive(Serialize, Deserialize)]
struct ResponseHeader<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    outputs: Vec<TensorHeader<'a>>,
}

#[derive(Serialize, Deserialize)]
struct TensorHeader<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    shape: Vec<u64>,
    #[serde(default)]
    parameters: TensorParameters,
}

impl<'a> TensorHeader<'a> {
    fn bytes(name: &'a str, element: &[u8]) -> Self {
        let parameters = TensorParameters { binary_data_size: Some(element.len() + LENGTH_BYTES) };
        Self { name: name.into(), datatype: BYTES.into(), shape: vec![1], parameters }
    }
}

#[derive(Default, Serialize, Deserialize)]
struct TensorParameters {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    binary_data_size: Option<usize>,
}

#[derive(Serialize, Deserialize)]
struct RequestedOutput<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default)]
    parameters: OutputParameters,
}

impl<'a> RequestedOutput<'a> {
    fn binary(name: &'a str) -> Self {
        Self { name: name.into(), parameters: OutputParameters { binary_data: true } }
    }
}

#[derive(Default, Serialize, Deserialize)]
struct OutputParameters {
    #[serde(default)]
    binary_data: bool,
}

/// Bytes of the length in front of an element of a `BYTES` tensor.
const LENGTH_BYTES: usize = 4;

fn frame(header: &impl Serialize, tensors: &[&[u8]]) -> Framed {
    let mut body = serde_json::to_vec(header).expect("headers are plain structs with text keys");
    let header_length = body.len();
    body.reserve(tensors.iter().map(|tensor| LENGTH_BYTES + tensor.len()).sum());
    for tensor in tensors {
        let length = u32::try_from(tensor.len()).expect("tensors are limited to less than 4 GiB");
        body.extend_from_slice(&length.to_le_bytes());
        body.extend_from_slice(tensor);
    }
    Framed { header_length, body }
}

/// Where the JSON header of a message ends, found in the message itself: JSON says where it ends, and tensors follow.
pub fn header_length(body: &[u8]) -> Result<usize, MessageError> {
    let read = &body[..body.len().min(limits::MAX_HEADER_BYTES)];
    let mut header = serde_json::Deserializer::from_slice(read).into_iter::<serde::de::IgnoredAny>();
    match header.next() {
        Some(Ok(_)) => Ok(header.byte_offset()),
        Some(Err(error)) if error.is_eof() && read.len() < body.len() => {
            Err(MessageError::LongHeader { length: body.len() })
        }
        Some(Err(error)) => Err(error.into()),
        None => Err(MessageError::Truncated),
    }
}

fn split(header_length: Option<usize>, body: &[u8]) -> Result<(&[u8], &[u8]), MessageError> {
    let length = header_length.unwrap_or(body.len());
    let (header, tensors) = body.split_at_checked(length).ok_or(MessageError::Truncated)?;
    // A JSON request without binary tensors is never valid, but read far enough to say why.
    if header_length.is_some() && header.len() > limits::MAX_HEADER_BYTES {
        return Err(MessageError::LongHeader { length });
    }
    Ok((header, tensors))
}

/// The one element of each expected tensor: exactly these, in this order, nothing between and nothing after.
fn elements<'a, const N: usize>(
    headers: &[TensorHeader<'_>],
    mut tensors: &'a [u8],
    expected: [&'static str; N],
) -> Result<[&'a [u8]; N], MessageError> {
    if headers.len() != N || headers.iter().zip(expected).any(|(header, name)| header.name != name) {
        return Err(MessageError::Tensors { expected: expected.join(", ") });
    }
    let mut found = [&[][..]; N];
    for (header, element) in headers.iter().zip(&mut found) {
        let size = header.parameters.binary_data_size.ok_or(MessageError::NotBinary)?;
        if header.shape != [1] {
            return Err(MessageError::Shape { tensor: excerpt(&header.name) });
        }
        let (tensor, rest) = tensors.split_at_checked(size).ok_or(MessageError::Truncated)?;
        let (length, bytes) = tensor.split_first_chunk::<LENGTH_BYTES>().ok_or(MessageError::Truncated)?;
        if u32::from_le_bytes(*length) as usize != bytes.len() {
            return Err(MessageError::Truncated);
        }
        (*element, tensors) = (bytes, rest);
    }
    if !tensors.is_empty() {
        return Err(MessageError::Trailing);
    }
    Ok(found)
}

/// Enough of a peer's text for an error message, never more.
fn excerpt(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic()).take(32).collect()
}

/// A message that is not what the protocol says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// A plaintext tensor, refused unread.
    #[error(
        "tensor {tensor:?} has datatype {datatype}, but this model accepts only ciphertexts (datatype BYTES), and nothing in \
         the clear: encrypt with a Cloister client, which verifies this enclave first"
    )]
    Plaintext {
        /// The tensor's name.
        tensor: String,
        /// Its datatype.
        datatype: String,
    },
    /// The JSON header cannot be read.
    #[error("the JSON header cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// The JSON header is too long.
    #[error("the JSON header has up to {length} bytes, at most {} are read", limits::MAX_HEADER_BYTES)]
    LongHeader {
        /// Its length, or that of the message in which no end of it was found.
        length: usize,
    },
    /// The request's id is too long.
    #[error("the id has more than {} bytes", limits::MAX_ID_BYTES)]
    LongId,
    /// Not the tensors of this protocol.
    #[error("expected exactly these tensors, in this order: {expected}")]
    Tensors {
        /// Their names.
        expected: String,
    },
    /// A tensor of another shape.
    #[error("tensor {tensor:?} must have shape [1]")]
    Shape {
        /// The tensor's name.
        tensor: String,
    },
    /// Data in JSON instead of the binary extension.
    #[error(
        "ciphertexts travel as binary tensors: set binary_data_size and the Inference-Header-Content-Length header"
    )]
    NotBinary,
    /// Fewer bytes than the lengths say.
    #[error("the message is shorter than its lengths say")]
    Truncated,
    /// More bytes than the lengths say.
    #[error("bytes follow the last tensor")]
    Trailing,
}

impl MessageError {
    /// The code that a peer gets.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Plaintext { .. } => ErrorCode::PlaintextRefused,
            _ => ErrorCode::BadRequest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Framed {
        InferRequest {
            id: Some("r-1".into()),
            public_key: Some(b"key"),
            ciphertext: b"cipher",
            expected: Expected { bundle: Some("sha384:01"), receipt_key: Some("sha384:02") },
        }
        .to_framed()
    }

    #[test]
    fn requests_and_responses_round_trip() {
        let framed = request();
        let parsed = InferRequest::parse(Some(framed.header_length), &framed.body).unwrap();
        assert_eq!((parsed.id.as_deref(), parsed.public_key), (Some("r-1"), Some(&b"key"[..])));
        assert_eq!(parsed.ciphertext, b"cipher");
        assert_eq!(parsed.expected, Expected { bundle: Some("sha384:01"), receipt_key: Some("sha384:02") });
        let without = InferRequest { public_key: None, expected: Expected::default(), ..parsed };
        let framed = without.to_framed();
        assert_eq!(InferRequest::parse(Some(framed.header_length), &framed.body).unwrap(), without);

        let response = InferResponse {
            model_name: "iris",
            model_version: "1",
            id: None,
            ciphertext: b"logits",
            receipt: b"signed",
        };
        let framed = response.to_framed();
        assert_eq!(InferResponse::parse(Some(framed.header_length), &framed.body).unwrap(), response);
    }

    #[test]
    fn an_id_is_any_text() {
        let id = "a \"quoted\" id, with \u{e9} and \n";
        let request =
            InferRequest { id: Some(id.into()), public_key: None, ciphertext: b"", expected: Expected::default() };
        let Framed { header_length, body } = request.to_framed();
        assert_eq!(InferRequest::parse(Some(header_length), &body).unwrap().id.as_deref(), Some(id));
        let long = InferRequest { id: Some("x".repeat(limits::MAX_ID_BYTES + 1).into()), ..request };
        let Framed { header_length, body } = long.to_framed();
        assert!(matches!(InferRequest::parse(Some(header_length), &body), Err(MessageError::LongId)));
    }

    #[test]
    fn a_message_says_itself_where_its_header_ends() {
        let Framed { header_length: length, body } = request();
        assert_eq!(header_length(&body).unwrap(), length);
        assert!(header_length(&body[..length - 1]).is_err());
        assert!(matches!(header_length(b""), Err(MessageError::Truncated)));
        let endless = [b"[\"".to_vec(), vec![b'x'; limits::MAX_HEADER_BYTES]].concat();
        assert!(matches!(header_length(&endless), Err(MessageError::LongHeader { .. })));
    }

    #[test]
    fn plaintext_is_refused_with_its_datatype_in_both_encodings() {
        let json = br#"{"inputs":[{"name":"X","datatype":"FP32","shape":[1,4],"data":[5.1,3.5,1.4,0.2]}]}"#;
        let error = InferRequest::parse(None, json).unwrap_err();
        assert!(matches!(&error, MessageError::Plaintext { tensor, datatype } if tensor == "X" && datatype == "FP32"));
        assert_eq!(error.code(), ErrorCode::PlaintextRefused);

        let mut binary =
            br#"{"inputs":[{"name":"X","datatype":"FP32","shape":[1,4],"parameters":{"binary_data_size":16}}]}"#
                .to_vec();
        let header_length = binary.len();
        binary.extend([0; 16]);
        assert!(matches!(InferRequest::parse(Some(header_length), &binary), Err(MessageError::Plaintext { .. })));
    }

    #[test]
    fn every_truncation_and_any_addition_is_refused() {
        let Framed { header_length, body } = request();
        for length in 0..body.len() {
            assert!(InferRequest::parse(Some(header_length), &body[..length]).is_err(), "{length}");
        }
        let longer = [&body[..], b"x"].concat();
        assert!(matches!(InferRequest::parse(Some(header_length), &longer), Err(MessageError::Trailing)));
        assert!(InferRequest::parse(Some(usize::MAX), &body).is_err());
    }

    #[test]
    fn a_ciphertext_in_json_is_pointed_to_the_binary_extension() {
        let json = br#"{"inputs":[{"name":"ciphertext","datatype":"BYTES","shape":[1],"data":["AAAA"]}]}"#;
        assert!(matches!(InferRequest::parse(None, json), Err(MessageError::NotBinary)));
    }

    #[test]
    fn a_peers_text_never_reaches_an_error_at_length() {
        let json = format!(r#"{{"inputs":[{{"name":"{}","datatype":"FP64","shape":[1]}}]}}"#, "x".repeat(500));
        let error = InferRequest::parse(None, json.as_bytes()).unwrap_err();
        assert!(matches!(error, MessageError::Plaintext { tensor, .. } if tensor.len() == 32));
    }
}
