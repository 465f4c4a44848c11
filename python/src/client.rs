//! An evaluator that was verified, and rows for it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use cloister_attestation::{Evidence, VerifiedEnclave};
use cloister_client::{
    Answer, AttestedConnection, Description, Endpoint, Error, Evaluator, Intermediary, Pool, SageMakerEndpoint, Timing,
    Token, gateway_url,
};
use pyo3::{buffer::PyBuffer, prelude::*};
use tokio::sync::Mutex;

use crate::{
    convert::{Described, PassedStep, described, steps, width},
    error::Failure,
    executor::Executor,
    stored::Policy,
};

/// A verified evaluator.
#[pyclass(frozen)]
pub(crate) struct Client {
    executor: Executor,
    shared: Arc<Shared>,
}

struct Shared {
    evaluator: Arc<Evaluator>,
    connections: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The connection that was verified first, until a model needs it.
    first: Option<AttestedConnection>,
    pools: BTreeMap<String, Pool>,
    /// Of pools that have ended.
    evidence: Vec<Evidence>,
    closed: bool,
}

#[pymethods]
impl Client {
    /// Connects to an evaluator and verifies it. Also gives what was verified.
    #[staticmethod]
    #[pyo3(signature = (policy, endpoint, gateway, sagemaker, objects, token, connections))]
    #[expect(clippy::too_many_arguments, reason = "those of Python's Client")]
    fn connect(
        py: Python<'_>,
        policy: &Policy,
        endpoint: Option<&str>,
        gateway: Option<&str>,
        sagemaker: Option<&str>,
        objects: Option<&str>,
        token: Option<&str>,
        connections: usize,
    ) -> PyResult<(Self, Verified)> {
        let evaluator = evaluator(policy.0.clone(), endpoint, gateway, sagemaker, objects, token)?;
        let evaluator = Arc::new(evaluator.with_remarks(log));
        let executor = Executor::new(connections)?;
        let connecting = evaluator.clone();
        let first = executor.run(py, async move { connecting.connect().await }, || Ok(()))?.map_err(Failure::from)?;
        let verified = verified(first.enclave());
        let state = Mutex::new(State { first: Some(first), ..State::default() });
        Ok((Self { executor, shared: Arc::new(Shared { evaluator, connections, state }) }, verified))
    }

    /// What a model takes, gives and promises.
    fn description(&self, py: Python<'_>, model: String) -> PyResult<Described> {
        let pool = self.pool(py, model)?;
        Ok(described(pool.description(), pool.model().bundle))
    }

    /// Has a matrix of rows answered. `progress` hears now and then how many are.
    #[pyo3(signature = (model, rows, clip, progress))]
    fn infer(
        &self,
        py: Python<'_>,
        model: String,
        rows: PyBuffer<f64>,
        clip: bool,
        progress: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Answered> {
        let pool = self.pool(py, model)?;
        let width = width(&rows);
        let values = rows.to_vec(py)?;
        let done = Arc::new(AtomicUsize::new(0));
        let (counter, asked) = (done.clone(), pool.clone());
        let inference = async move {
            let mut rows: Vec<Vec<f64>> = values.chunks(width).map(<[f64]>::to_vec).collect();
            drop(values);
            let moved: Vec<bool> = rows.iter_mut().map(|row| clip && asked.description().clip(row)).collect();
            let answers = asked.infer(rows, |rows| counter.store(rows, Ordering::Relaxed)).await?;
            Ok(answered(&answers, &moved, asked.description()))
        };
        let tick = || match &progress {
            Some(progress) => progress.call1((done.load(Ordering::Relaxed),)).map(drop),
            None => Ok(()),
        };
        let outcome: Result<Answered, Error> = self.executor.run(py, inference, tick)?;
        Ok(outcome.map_err(Failure::from)?)
    }

    /// Evidence of all answers so far, a piece for each attestation.
    fn evidence(&self, py: Python<'_>) -> PyResult<Vec<Vec<u8>>> {
        let shared = self.shared.clone();
        self.executor.run(py, async move { shared.state.lock().await.evidence() }, || Ok(()))
    }

    /// Ends all connections, once each has the answer that is under way.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let shared = self.shared.clone();
        self.executor.run(py, async move { shared.close().await }, || Ok(()))
    }
}

impl Client {
    fn pool(&self, py: Python<'_>, model: String) -> PyResult<Pool> {
        let shared = self.shared.clone();
        self.executor.run(py, async move { shared.pool(&model).await }, || Ok(()))?.map_err(PyErr::from)
    }
}

fn evaluator(
    policy: cloister_attestation::Policy,
    endpoint: Option<&str>,
    gateway: Option<&str>,
    sagemaker: Option<&str>,
    objects: Option<&str>,
    token: Option<&str>,
) -> Result<Evaluator, Failure> {
    let objects = objects.map(str::parse).transpose().map_err(usage)?;
    match (endpoint, gateway, sagemaker) {
        (Some(endpoint), None, None) if objects.is_none() => {
            let no_token = |error| Failure::bad_input("token", error, "`cloister token FILE` makes one.");
            let token = token.map(Token::parse).transpose().map_err(no_token)?;
            Ok(Evaluator::new(endpoint.parse::<Endpoint>().map_err(usage)?, token, policy))
        }
        (Some(_), None, None) => Err(usage("objects are for what stands behind a gateway or SageMaker")),
        (None, Some(_), None) | (None, None, Some(_)) if token.is_some() => Err(Error::TokenWithoutChannel.into()),
        (None, Some(url), None) => {
            let url = gateway_url(url).map_err(usage)?;
            Ok(Evaluator::behind(Intermediary::Gateway { url, objects }, policy))
        }
        (None, None, Some(name)) => {
            let endpoint = SageMakerEndpoint::from_environment(name).map_err(usage)?;
            Ok(Evaluator::behind(Intermediary::SageMaker { endpoint, objects }, policy))
        }
        _ => Err(usage("not one evaluator is named")),
    }
}

fn usage(what: impl std::fmt::Display) -> Failure {
    Failure::bad_input(
        "usage",
        what,
        "Give an endpoint, https://HOST:PORT; or else gateway=URL or sagemaker=NAME, and with these objects=S3_URL.",
    )
}

/// To whoever listens to Python's logger of this name; without one, to stderr.
fn log(text: &str) {
    // Not while the interpreter ends.
    let _ = Python::try_attach(|py| -> PyResult<()> {
        let logger = py.import("logging")?.call_method1("getLogger", ("cloister",))?;
        logger.call_method1("warning", ("%s", text)).map(drop)
    });
}

impl Shared {
    async fn pool(&self, model: &str) -> Result<Pool, Failure> {
        let mut state = self.state.lock().await;
        if state.closed {
            return Err(Failure::bad_input("closed", "the client is closed", "Make another one."));
        }
        if let Some(pool) = state.pools.get(model) {
            return Ok(pool.clone());
        }
        let pool = self.start(state.first.take(), model).await?;
        state.pools.insert(model.to_owned(), pool.clone());
        Ok(pool)
    }

    /// On the connection that is there, if the service has not ended it for having been idle.
    async fn start(&self, first: Option<AttestedConnection>, model: &str) -> Result<Pool, Error> {
        let start = async |connection| Pool::start(self.evaluator.clone(), connection, model, self.connections).await;
        if let Some(connection) = first {
            match start(connection).await {
                Err(Error::ConnectionLost { .. }) => {}
                started => return started,
            }
        }
        start(self.evaluator.connect().await?).await
    }

    async fn close(&self) {
        let mut state = self.state.lock().await;
        state.closed = true;
        state.first = None;
        // Whoever interrupts this loses no evidence.
        while let Some(pool) = state.pools.values().next().cloned() {
            let evidence = pool.close().await;
            state.evidence.extend(evidence);
            state.pools.pop_first();
        }
    }
}

impl State {
    fn evidence(&self) -> Vec<Vec<u8>> {
        let open = self.pools.values().flat_map(Pool::evidence);
        self.evidence.iter().map(Evidence::to_cbor).chain(open.map(|piece| piece.to_cbor())).collect()
    }
}

/// What was verified of an enclave.
#[derive(IntoPyObject)]
struct Verified {
    release: String,
    module_id: String,
    time: String,
    simulated: bool,
    channel: &'static str,
    steps: Vec<PassedStep>,
    models: Vec<Served>,
}

/// A model of the manifest, and whether the policy accepts it.
#[derive(IntoPyObject)]
struct Served {
    name: String,
    version: String,
    digest: String,
    accepted: bool,
}

fn verified(enclave: &VerifiedEnclave) -> Verified {
    let models = enclave.manifest().models.iter().map(|model| Served {
        name: model.name.clone(),
        version: model.version.clone(),
        digest: model.bundle.to_string(),
        accepted: enclave.accept(model).is_ok(),
    });
    Verified {
        release: enclave.release().to_owned(),
        module_id: enclave.module_id().to_owned(),
        time: enclave.timestamp().to_string(),
        simulated: enclave.simulated(),
        channel: enclave.channel().name(),
        steps: steps(enclave.steps()),
        models: models.collect(),
    }
}

/// The answers to all rows: numbers as arrays have them in memory.
#[derive(IntoPyObject)]
struct Answered {
    /// Which of the labels, as int64; nothing of a regression.
    classes: Vec<u8>,
    /// As bool.
    certain: Vec<u8>,
    /// As float64, row by row.
    logits: Vec<u8>,
    /// As float64, row by row.
    outputs: Vec<u8>,
    bytes: (usize, usize),
    /// Seconds.
    timing: (f64, f64, f64, f64),
}

/// What was `moved` is never certain: the label of what was sent says nothing sure about what was given.
fn answered(answers: &[Answer], moved: &[bool], description: &Description) -> Answered {
    let places: HashMap<_, _> = description.labels().iter().zip(0_i64..).collect();
    let predictions = || answers.iter().flat_map(|answer| &answer.predictions);
    let numbers = |numbers: &[f64]| numbers.iter().flat_map(|number| number.to_ne_bytes()).collect::<Vec<_>>();
    let seconds = |part: fn(&Timing) -> Duration| {
        answers.iter().map(|answer| part(&answer.timing)).sum::<Duration>().as_secs_f64()
    };
    Answered {
        classes: predictions()
            .filter_map(|prediction| places.get(prediction.label.as_ref()?))
            .flat_map(|place| place.to_ne_bytes())
            .collect(),
        certain: predictions().zip(moved).map(|(prediction, moved)| u8::from(prediction.certain && !moved)).collect(),
        logits: predictions().flat_map(|prediction| numbers(&prediction.logits)).collect(),
        outputs: predictions().flat_map(|prediction| numbers(&prediction.outputs)).collect(),
        bytes: answers.iter().fold((0, 0), |(up, down), answer| (up + answer.bytes.0, down + answer.bytes.1)),
        timing: (seconds(|t| t.encrypt), seconds(|t| t.exchange), seconds(|t| t.receipt), seconds(|t| t.decrypt)),
    }
}
