//! Connections that answer requests side by side: one carries one request at a time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cloister_attestation::{Evidence, ManifestModel};
use cloister_client::{Answer, AttestedConnection, Error, RemoteModel};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::timeout,
};

use super::super::{
    evaluator::{Way, pause},
    output::remark,
};

/// A service keeps an idle connection for a minute: one that was idle for half of it is not relied on.
const MAX_IDLE: Duration = Duration::from_secs(30);

/// For so long, a service may ask for patience before it is believed to have no time at all.
const MAX_PATIENCE: Duration = Duration::from_secs(5 * 60);
/// After a connection through a gateway broke.
const LOST_WAIT: Duration = Duration::from_secs(5);
const MIN_WAIT: Duration = Duration::from_millis(200);

/// The way of every connection, at whose end each is verified by itself, and the one model that all must serve.
#[derive(Debug)]
pub(super) struct Goal {
    pub(super) way: Way,
    pub(super) model: ManifestModel,
}

/// Several attested connections, each with a secret key of its own.
#[derive(Debug)]
pub(super) struct Pool {
    jobs: mpsc::UnboundedSender<Job>,
    evidence: mpsc::UnboundedReceiver<Evidence>,
}

/// Rows that wait for a connection.
#[derive(Debug)]
struct Job {
    rows: Vec<Vec<f64>>,
    reply: oneshot::Sender<Result<Answer, Error>>,
}

/// An answer to come.
pub(super) type Reply = oneshot::Receiver<Result<Answer, Error>>;

impl Pool {
    /// Makes ready as many connections as are wanted: `first`, which is open and was used then, and others that are opened once
    /// there is work for them.
    pub(super) fn start(goal: Goal, first: (AttestedConnection, Instant), connections: usize) -> Self {
        let (jobs, queue) = mpsc::unbounded_channel();
        let (pieces, evidence) = mpsc::unbounded_channel();
        let (goal, queue) = (Arc::new(goal), Arc::new(Mutex::new(queue)));
        let mut first = Some(first);
        for _ in 0..connections {
            let first = first.take();
            let spare = first.is_none().then(|| jobs.downgrade());
            let worker = Worker { goal: goal.clone(), queue: queue.clone(), evidence: pieces.clone(), spare };
            tokio::spawn(worker.work(first));
        }
        Self { jobs, evidence }
    }

    /// Has these rows answered by the next connection that is free. Whoever drops the reply takes back what was not sent yet.
    pub(super) fn send(&self, rows: Vec<Vec<f64>>) -> Reply {
        let (reply, answer) = oneshot::channel();
        // If nobody takes it any more, the reply says so.
        let _ = self.jobs.send(Job { rows, reply });
        answer
    }

    /// Evidence of connections that have ended so far.
    pub(super) fn evidence(&mut self) -> Option<Evidence> {
        self.evidence.try_recv().ok()
    }

    /// Ends all connections, and gives the evidence of what they did.
    pub(super) async fn close(mut self) -> Vec<Evidence> {
        drop(self.jobs);
        let mut pieces = Vec::new();
        while let Some(evidence) = self.evidence.recv().await {
            pieces.push(evidence);
        }
        pieces
    }
}

/// Works over one connection after the other.
struct Worker {
    goal: Arc<Goal>,
    queue: Arc<Mutex<mpsc::UnboundedReceiver<Job>>>,
    evidence: mpsc::UnboundedSender<Evidence>,
    /// Where the job goes back to if this connection cannot be opened, and the others do without it.
    spare: Option<mpsc::WeakUnboundedSender<Job>>,
}

impl Worker {
    /// Answers jobs until there are no more, or one fails.
    async fn work(mut self, mut open: Option<(AttestedConnection, Instant)>) {
        while let Some(job) = self.job().await {
            let kept = open.take().filter(|(_, since)| since.elapsed() < MAX_IDLE);
            let connection = match kept {
                Some((connection, _)) => Ok(connection),
                None => self.goal.way.open().await,
            };
            let ended = match connection {
                Ok(connection) => {
                    self.spare = None;
                    self.serve(connection, job).await
                }
                Err(error) => self.unopened(job, error),
            };
            if ended {
                return;
            }
        }
    }

    /// What becomes of a job for which no connection could be opened. A service whose places are all taken lets further
    /// connections wait.
    fn unopened(&mut self, job: Job, error: Error) -> bool {
        let unreachable = matches!(error, Error::Unreachable { .. });
        match self.spare.take().filter(|_| unreachable).and_then(|jobs| jobs.upgrade()) {
            Some(jobs) => {
                remark(format!("{error}: going on with fewer connections"));
                let _ = jobs.send(job);
                true
            }
            None => job.fail(error),
        }
    }

    /// Answers jobs over one connection until it idles or has as many receipts as one piece of evidence holds; whether it failed.
    async fn serve(&self, mut connection: AttestedConnection, job: Job) -> bool {
        let (failed, answered) = self.answer(&mut connection, job).await;
        // Of a dishonest answer, what it is that answered.
        if failed || answered > 0 {
            for piece in connection.evidence() {
                let _ = self.evidence.send(piece);
            }
        }
        failed
    }

    async fn answer(&self, connection: &mut AttestedConnection, job: Job) -> (bool, usize) {
        let Goal { model: expected, .. } = &*self.goal;
        let mut model = match connection.model(&expected.name).await {
            Ok(model) => model,
            Err(error) => return (job.fail(error), 0),
        };
        // Behind one address there may be several enclaves, and a policy may accept several models of one name.
        match model.connection().enclave().model(&expected.name) {
            Ok(actual) if actual == expected => {}
            Ok(actual) => {
                let (expected, actual) = (expected.clone().into(), actual.clone().into());
                return (job.fail(Error::ModelChanged { expected, actual }), 0);
            }
            Err(error) => return (job.fail(error.into()), 0),
        }
        let (mut job, mut answered) = (job, 0);
        loop {
            match patiently(&mut model, &job.rows, self.goal.way.is_relayed()).await {
                Ok(answer) => drop(job.reply.send(Ok(answer))),
                Err(error) => return (job.fail(error), answered),
            }
            answered += 1;
            if answered == Evidence::MAX_RECEIPTS {
                return (false, answered);
            }
            match timeout(MAX_IDLE, self.job()).await {
                Ok(Some(next)) => job = next,
                Ok(None) | Err(_) => return (false, answered),
            }
        }
    }

    /// The next job that somebody still waits for.
    async fn job(&self) -> Option<Job> {
        let mut queue = self.queue.lock().await;
        loop {
            match queue.recv().await? {
                job if job.reply.is_closed() => {}
                job => return Some(job),
            }
        }
    }
}

/// Asks again for as long as the service says that time is all it takes, up to [`MAX_PATIENCE`]. Through a gateway each request
/// stands alone, so that one whose connection broke may come again, too.
async fn patiently(model: &mut RemoteModel<'_>, rows: &[Vec<f64>], relayed: bool) -> Result<Answer, Error> {
    let began = Instant::now();
    loop {
        let error = match model.infer(rows).await {
            Err(error) => error,
            answer => return answer,
        };
        let lost = matches!(error, Error::Unreachable { .. } | Error::ConnectionLost { .. });
        let wait = error.retry_after().or((relayed && lost).then_some(LOST_WAIT));
        let Some(wait) = wait.filter(|_| began.elapsed() < MAX_PATIENCE) else { return Err(error) };
        pause(&error, wait.clamp(MIN_WAIT, MAX_IDLE)).await;
    }
}

impl Job {
    fn fail(self, error: Error) -> bool {
        let _ = self.reply.send(Err(error));
        true
    }
}
