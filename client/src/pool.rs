//! Connections that answer requests for one model side by side: one carries one request at a time.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use cloister_attestation::{Evidence, ManifestModel};
use cloister_inference::Description;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinError, JoinHandle},
};

use crate::{Answer, AttestedConnection, Error, ErrorKind, Evaluator, model::OpenModel};

/// A service keeps an idle connection for a minute: one that was idle for half of it is not relied on.
const MAX_IDLE: Duration = Duration::from_secs(30);

/// For so long, a service may ask for patience before it is believed to have no time at all.
const MAX_PATIENCE: Duration = Duration::from_secs(5 * 60);
/// After a connection through a gateway broke.
const LOST_WAIT: Duration = Duration::from_secs(5);
const MIN_WAIT: Duration = Duration::from_millis(200);

/// Requests that are under way or wait, for each connection: it has the next one when it is done with one.
const REQUESTS_PER_CONNECTION: usize = 2;

/// Fewer rows are not worth another connection: it takes as long as these do.
const ROWS_PER_CONNECTION: usize = 256;

const NEVER_CLOSED: &str = "nobody closes the semaphore";

/// Numbers of one request: 8 MiB, however wide the rows are.
const MAX_NUMBERS: usize = 1 << 20;

/// Several attested connections, each verified by itself, with a secret key of its own, and to the very same model.
///
/// They are opened once there is work for them. One that broke is replaced, and so is one that was idle for long. A service that has
/// no time is waited for, up to five minutes.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    evaluator: Arc<Evaluator>,
    entry: ManifestModel,
    description: Description,
    connections: usize,
    /// One for each connection that may be in use.
    places: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Open>,
    /// Connections that are open, idle or not.
    open: usize,
    /// Set when no further request is to be sent.
    closing: bool,
    /// Places that are not given out, because the service has no more for us.
    withheld: usize,
    /// Of connections that have ended.
    evidence: Vec<Evidence>,
}

/// An open connection.
#[derive(Debug)]
struct Open {
    connection: AttestedConnection,
    model: OpenModel,
    answered: usize,
    used: Instant,
}

impl Pool {
    /// At most `connections` to the model `name`, the first of which is open already.
    pub async fn start(
        evaluator: Arc<Evaluator>,
        mut first: AttestedConnection,
        name: &str,
        connections: usize,
    ) -> Result<Self, Error> {
        let model = first.open_model(name).await?;
        let first = Open::new(first, model);
        Ok(Self(Arc::new(Shared {
            evaluator,
            entry: first.model.entry().clone(),
            description: first.model.description().clone(),
            connections,
            places: Arc::new(Semaphore::new(connections)),
            state: Mutex::new(State { idle: vec![first], open: 1, ..State::default() }),
        })))
    }

    /// What the model takes and gives.
    pub fn description(&self) -> &Description {
        &self.0.description
    }

    /// What the manifest says of the model.
    pub fn model(&self) -> &ManifestModel {
        &self.0.entry
    }

    /// Has the rows of one request answered by the next connection that is free, in the order of these calls. Whoever drops the
    /// reply takes the request back.
    pub fn send(&self, rows: Vec<Vec<f64>>) -> Reply {
        let shared = self.0.clone();
        let mut place = Box::pin(shared.places.clone().acquire_owned());
        // It stands in the queue from now on, and not from when the task happens to run.
        let at_once = place.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        Reply(tokio::spawn(async move {
            let place = match at_once {
                Poll::Ready(place) => place,
                Poll::Pending => place.await,
            };
            shared.infer(&rows, place.expect(NEVER_CLOSED)).await
        }))
    }

    /// Has any number of rows answered, in their order. All of them are checked before the first is sent; `answered` hears how
    /// many have their answer.
    pub async fn infer(&self, rows: Vec<Vec<f64>>, mut answered: impl FnMut(usize)) -> Result<Vec<Answer>, Error> {
        let size = self.portion(Some(rows.len() as u64));
        for (index, rows) in rows.chunks(size).enumerate() {
            self.description().encode(rows).map_err(|error| error.after(index * size))?;
        }
        let (mut rows, mut waiting) = (rows.into_iter(), VecDeque::new());
        let (mut answers, mut done) = (Vec::new(), 0);
        loop {
            while rows.len() > 0 && waiting.len() < self.window() {
                waiting.push_back(self.send(rows.by_ref().take(size).collect()));
            }
            let Some(reply) = waiting.pop_front() else { return Ok(answers) };
            let answer = reply.await?;
            done += answer.predictions.len();
            answered(done);
            answers.push(answer);
        }
    }

    /// The most requests that are worth having under way at once.
    pub fn window(&self) -> usize {
        self.0.connections * REQUESTS_PER_CONNECTION
    }

    /// Rows of one request, out of so many; of a stream nobody knows.
    pub fn portion(&self, rows: Option<u64>) -> usize {
        portion(rows, rows_at_once(self.description()), self.0.connections)
    }

    /// Evidence of connections that have ended since the last time.
    pub fn take_evidence(&self) -> Vec<Evidence> {
        std::mem::take(&mut self.0.state().evidence)
    }

    /// Evidence of all that was answered and not taken, but for what is under way.
    pub fn evidence(&self) -> Vec<Evidence> {
        let state = self.0.state();
        let idle = state.idle.iter().flat_map(Open::evidence);
        state.evidence.iter().cloned().chain(idle).collect()
    }

    /// Ends all connections, once each has the answer that is under way, and gives the evidence that was not taken. Requests that
    /// wait are not sent any more.
    pub async fn close(&self) -> Vec<Evidence> {
        let in_use = {
            let mut state = self.0.state();
            state.closing = true;
            self.0.connections - state.withheld
        };
        let _places = self.0.places.acquire_many(u32::try_from(in_use).unwrap_or(u32::MAX)).await;
        let mut state = self.0.state();
        for open in std::mem::take(&mut state.idle) {
            self.0.end(&mut state, open.evidence());
        }
        std::mem::take(&mut state.evidence)
    }
}

/// The most rows that are worth being in memory at once, of which one request may hold fewer.
fn rows_at_once(description: &Description) -> usize {
    (MAX_NUMBERS / description.features().len().max(1)).clamp(1, description.rows_per_request())
}

/// Requests are as large as they may be, and yet so many that connections are kept busy.
fn portion(rows: Option<u64>, at_once: usize, connections: usize) -> usize {
    let Some(rows) = rows.and_then(|rows| usize::try_from(rows).ok()) else { return at_once };
    let requests = rows.div_ceil(at_once).max((rows / ROWS_PER_CONNECTION).min(connections)).max(1);
    rows.div_ceil(requests).max(1)
}

/// An answer to come.
#[derive(Debug)]
pub struct Reply(JoinHandle<Result<Answer, Error>>);

impl Future for Reply {
    type Output = Result<Answer, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.0).poll(context));
        match answer.map_err(JoinError::try_into_panic) {
            Ok(answer) => Poll::Ready(answer),
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // The runtime ends, and whoever waits with it.
            Err(Err(_)) => Poll::Pending,
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Shared {
    /// Nothing that panics holds it for longer than a list takes to change.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn infer(&self, rows: &[Vec<f64>], place: OwnedSemaphorePermit) -> Result<Answer, Error> {
        let mut place = Some(place);
        loop {
            let mut lease = self.lease(place.take()).await?;
            match self.patiently(lease.open(), rows).await {
                Ok(answer) => {
                    lease.keep();
                    return Ok(answer);
                }
                Err(error @ Error::ConnectionLost { .. }) if lease.open().answered > 0 => {
                    self.evaluator.remark(&format!("{error}: connecting anew"));
                }
                Err(error) => return Err(lease.fail(error)),
            }
        }
    }

    /// Asks again for as long as the service says that time is all it takes, up to [`MAX_PATIENCE`]. Through a gateway each
    /// request stands alone, so that one whose connection broke may come again, too.
    async fn patiently(&self, open: &mut Open, rows: &[Vec<f64>]) -> Result<Answer, Error> {
        let began = Instant::now();
        loop {
            let error = match open.model.infer(&mut open.connection, rows).await {
                Err(error) => error,
                answer => return answer,
            };
            let lost = matches!(error, Error::Unreachable { .. } | Error::ConnectionLost { .. });
            let wait = error.retry_after().or((self.evaluator.is_relayed() && lost).then_some(LOST_WAIT));
            let Some(wait) = wait.filter(|_| began.elapsed() < MAX_PATIENCE) else { return Err(error) };
            self.evaluator.pause(&error, wait.clamp(MIN_WAIT, MAX_IDLE)).await;
        }
    }

    /// A connection that nobody else uses. A service whose places are all taken lets further connections wait.
    async fn lease(&self, mut place: Option<OwnedSemaphorePermit>) -> Result<Lease<'_>, Error> {
        loop {
            let place = match place.take() {
                Some(place) => place,
                None => self.places.clone().acquire_owned().await.expect(NEVER_CLOSED),
            };
            if self.state().closing {
                return Err(Error::Closed);
            }
            let error = match self.idle_or_new().await {
                Ok(open) => return Ok(Lease { shared: self, open: Some(open), _place: place }),
                Err(error) => error,
            };
            let mut state = self.state();
            if !matches!(error, Error::Unreachable { .. }) || state.open == 0 || state.closing {
                return Err(error);
            }
            self.evaluator.remark(&format!("{error}: going on with fewer connections"));
            state.withheld += 1;
            place.forget();
        }
    }

    async fn idle_or_new(&self) -> Result<Open, Error> {
        if let Some(open) = self.idle() {
            return Ok(open);
        }
        let mut connection = self.evaluator.connect().await?;
        match self.open(&mut connection).await {
            Ok(model) => {
                self.state().open += 1;
                Ok(Open::new(connection, model))
            }
            Err(error) => {
                self.state().evidence.extend(connection.evidence());
                Err(error)
            }
        }
    }

    fn idle(&self) -> Option<Open> {
        let mut state = self.state();
        loop {
            match state.idle.pop()? {
                open if open.used.elapsed() < MAX_IDLE => return Some(open),
                open => self.end(&mut state, open.evidence()),
            }
        }
    }

    /// Behind one address there may be several enclaves, and a policy may accept several models of one name.
    async fn open(&self, connection: &mut AttestedConnection) -> Result<OpenModel, Error> {
        let model = connection.open_model(&self.entry.name).await?;
        if *model.entry() == self.entry {
            return Ok(model);
        }
        Err(Error::ModelChanged { expected: self.entry.clone().into(), actual: model.entry().clone().into() })
    }

    /// Keeps the evidence, and makes room for others.
    fn end(&self, state: &mut State, evidence: Vec<Evidence>) {
        state.open -= 1;
        state.evidence.extend(evidence);
        self.places.add_permits(std::mem::take(&mut state.withheld));
    }
}

impl Open {
    fn new(connection: AttestedConnection, model: OpenModel) -> Self {
        Self { connection, model, answered: 0, used: Instant::now() }
    }

    /// Of its answers, if it gave any.
    fn evidence(&self) -> Vec<Evidence> {
        self.connection.evidence().into_iter().filter(|piece| !piece.receipts.is_empty()).collect()
    }
}

/// A connection in use. It ends with the lease, unless it is kept.
struct Lease<'a> {
    shared: &'a Shared,
    open: Option<Open>,
    _place: OwnedSemaphorePermit,
}

impl Lease<'_> {
    fn open(&mut self) -> &mut Open {
        self.open.as_mut().expect("it is there until it is kept")
    }

    /// After an answer. What has as many receipts as one piece of evidence holds is not used again.
    fn keep(mut self) {
        let Some(mut open) = self.open.take() else { return };
        (open.answered, open.used) = (open.answered + 1, Instant::now());
        let mut state = self.shared.state();
        match open.answered < Evidence::MAX_RECEIPTS {
            true => state.idle.push(open),
            false => self.shared.end(&mut state, open.evidence()),
        }
    }

    /// After an error. Of a dishonest answer, what it is that answered is kept, though it has no receipt.
    fn fail(mut self, error: Error) -> Error {
        if let Some(open) = self.open.take_if(|_| error.kind() == ErrorKind::NotVerified) {
            self.shared.end(&mut self.shared.state(), open.connection.evidence());
        }
        error
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            self.shared.end(&mut self.shared.state(), open.evidence());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_as_large_as_keeps_connections_busy() {
        for (rows, at_once, connections, expected) in [
            (Some(0), 170, 2, 1),
            (Some(1), 170, 2, 1),
            (Some(150), 170, 2, 150),
            (Some(300), 170, 2, 150),
            (Some(1_000_000), 170, 16, 170),
            (Some(300), 10_000, 2, 300),
            (Some(2000), 10_000, 2, 1000),
            (Some(2000), 10_000, 16, 286),
            (Some(100_000), 10_000, 2, 10_000),
            (None, 170, 3, 170),
        ] {
            assert_eq!(portion(rows, at_once, connections), expected, "{rows:?} {at_once} {connections}");
        }
    }
}
