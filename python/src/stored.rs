//! Evidence and documents, verified offline.

use cloister_attestation::{
    Archival, ArchivedEnclave, At, AuthenticDocument, Evidence, Pcrs, Root, Timestamp, UnverifiedDocument,
};
use pyo3::prelude::*;

use crate::{
    convert::{PassedStep, steps},
    error::Failure,
};

/// What a person accepts.
#[pyclass(frozen)]
pub(crate) struct Policy(pub(crate) cloister_attestation::Policy);

#[pymethods]
impl Policy {
    /// Reads the bytes of the file at `path`, which errors name.
    #[new]
    fn new(bytes: &[u8], path: &str) -> PyResult<Self> {
        let policy = cloister_attestation::Policy::from_bytes(bytes);
        Ok(Self(policy.map_err(|error| Failure::policy(path, &error))?))
    }
}

/// Who answered, and what was answered.
#[derive(IntoPyObject)]
struct Proven {
    release: String,
    module_id: String,
    region: String,
    time: String,
    simulated: bool,
    channel: &'static str,
    pcrs: Vec<(u8, Vec<u8>)>,
    steps: Vec<PassedStep>,
    receipts: Vec<Receipt>,
}

/// An answer that an enclave signed.
#[derive(IntoPyObject)]
struct Receipt {
    time: String,
    models: Vec<String>,
    digest: String,
    request: String,
    response: String,
    parameters: String,
}

/// Verifies one piece of evidence, and all of its receipts.
#[pyfunction]
pub(crate) fn verify_evidence(
    py: Python<'_>,
    evidence: &[u8],
    policy: &Policy,
) -> PyResult<impl for<'py> IntoPyObject<'py> + use<>> {
    let verified = py.detach(|| Evidence::from_cbor(evidence)?.verify(&policy.0, Timestamp::now()));
    Ok(proven(&verified.map_err(Failure::from)?))
}

fn proven(enclave: &ArchivedEnclave) -> Proven {
    let receipt = |receipt: &cloister_attestation::Receipt| Receipt {
        time: receipt.time.to_string(),
        models: enclave.models(receipt.bundle).into_iter().map(|model| model.name.clone()).collect(),
        digest: receipt.bundle.to_string(),
        request: receipt.request.to_string(),
        response: receipt.response.to_string(),
        parameters: receipt.parameters.clone(),
    };
    Proven {
        release: enclave.release().to_owned(),
        module_id: enclave.module_id().to_owned(),
        region: enclave.document().region().to_owned(),
        time: enclave.timestamp().to_string(),
        simulated: enclave.simulated(),
        channel: enclave.channel().name(),
        pcrs: measured(enclave.document().pcrs()),
        steps: steps(enclave.steps()),
        receipts: enclave.receipts().iter().map(receipt).collect(),
    }
}

/// What a document says.
#[derive(IntoPyObject)]
struct Document {
    release: Option<String>,
    module_id: String,
    region: String,
    time: String,
    simulated: bool,
    nonce: Option<Vec<u8>>,
    public_key: Option<Vec<u8>>,
    user_data: Option<Vec<u8>>,
    pcrs: Vec<(u8, Vec<u8>)>,
    steps: Vec<PassedStep>,
}

/// Verifies a document by the root of `policy`, or AWS's; `at` is `document`, `now` or an RFC 3339 time.
#[pyfunction]
#[pyo3(signature = (document, policy, nonce, at))]
pub(crate) fn verify_document(
    document: &[u8],
    policy: Option<&Policy>,
    nonce: Option<&[u8]>,
    at: &str,
) -> PyResult<impl for<'py> IntoPyObject<'py> + use<>> {
    let now = Timestamp::now();
    let at = match at {
        "document" => At::document_until(now),
        "now" => At::instant(now),
        time => At::instant(Timestamp::parse_rfc3339(time).map_err(|error| {
            Failure::bad_input("usage", error, "Give document, now, or a time such as 2026-11-22T12:00:00Z.")
        })?),
    };
    Ok(judged(document, policy, nonce, at, now)?)
}

fn judged(
    document: &[u8],
    policy: Option<&Policy>,
    nonce: Option<&[u8]>,
    at: At<Archival>,
    now: Timestamp,
) -> Result<Document, Failure> {
    let aws = Root::aws_nitro_g1();
    let root = policy.map_or(&aws, |policy| policy.0.root());
    let mut document = UnverifiedDocument::parse(document)?.authenticate(root, at)?;
    if let Some(nonce) = nonce {
        document = document.answers_nonce(nonce)?;
    }
    Ok(match policy {
        Some(policy) => {
            let accepted = document.require(&policy.0, now)?;
            Document { release: Some(accepted.release().to_owned()), ..told(accepted.document()) }
        }
        None => told(&document),
    })
}

fn told(document: &AuthenticDocument<Archival>) -> Document {
    let field = |field: Option<&[u8]>| field.map(<[u8]>::to_vec);
    Document {
        release: None,
        module_id: document.module_id().to_owned(),
        region: document.region().to_owned(),
        time: document.timestamp().to_string(),
        simulated: document.simulated(),
        nonce: field(document.nonce()),
        public_key: field(document.public_key()),
        user_data: field(document.user_data()),
        pcrs: measured(document.pcrs()),
        steps: steps(document.steps()),
    }
}

/// The registers into which something was measured.
fn measured(pcrs: &Pcrs) -> Vec<(u8, Vec<u8>)> {
    let some = pcrs.iter().filter(|(_, value)| value.iter().any(|byte| *byte != 0));
    some.map(|(index, value)| (index, value.to_vec())).collect()
}
