//! What stands behind the gateway: a verified evaluator, and connections to its models.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cloister_attestation::{Evidence, ManifestModel, Timestamp};
use cloister_client::{Answer, AttestedConnection, Error, ErrorKind, Evaluator, Pool};
use serde_json::{Value, json};
use tokio::{
    signal::unix::Signal,
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::{
    super::{
        configuration::Settings,
        failure::Failure,
        infer::EvidenceFiles,
        output::{Output, passed, remark},
    },
    Gateway,
};

/// Requests that are answered or wait at a time: what waits behind a slow service takes memory.
const MAX_REQUESTS: usize = 64;

/// Evidence of connections that ended is kept, the newest of it, up to so many bytes.
const MAX_EVIDENCE: usize = 64 << 20;

/// A verified evaluator, and connections to its models.
#[derive(Debug)]
pub(super) struct Evaluations {
    /// Of a request, bytes.
    pub(super) max_body: usize,
    settings: Settings,
    places: Semaphore,
    backing: Mutex<Backing>,
    seen: Mutex<Seen>,
    ended: Mutex<Ended>,
}

/// By which policy, and what was opened by it.
#[derive(Debug)]
struct Backing {
    evaluator: Arc<Evaluator>,
    pools: HashMap<String, Pool>,
}

/// What the last verification found.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) simulated: bool,
    /// Models of the manifest that the policy accepts.
    pub(super) models: Vec<ManifestModel>,
    /// In words, for whoever asks; of a failure, why.
    pub(super) report: Value,
    pub(super) verified: bool,
}

/// Evidence of connections that have ended.
#[derive(Debug)]
struct Ended {
    files: EvidenceFiles,
    /// Each in CBOR, with the number of its receipts.
    pieces: VecDeque<(usize, Vec<u8>)>,
    /// How many were kept and are so no longer.
    dropped: usize,
}

impl Evaluations {
    pub(super) fn new(
        arguments: &Gateway,
        settings: Settings,
        evaluator: Evaluator,
        verified: &AttestedConnection,
    ) -> Self {
        let files = EvidenceFiles::new(arguments.evidence.as_deref(), true);
        Self {
            max_body: usize::from(arguments.max_body) << 20,
            settings,
            places: Semaphore::new(MAX_REQUESTS),
            backing: Mutex::new(Backing { evaluator: Arc::new(evaluator), pools: HashMap::new() }),
            seen: Mutex::new(Seen::verified(verified)),
            ended: Mutex::new(Ended { files, pieces: VecDeque::new(), dropped: 0 }),
        }
    }

    /// What the last verification found.
    pub(super) fn seen(&self) -> Seen {
        locked(&self.seen).clone()
    }

    /// Room for a request, if there is any.
    pub(super) fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.places.try_acquire().ok()
    }

    /// Connections to a model, the first of which is open.
    pub(super) async fn model(&self, name: &str) -> Result<Pool, Error> {
        loop {
            let evaluator = {
                let backing = locked(&self.backing);
                match backing.pools.get(name) {
                    Some(pool) => return Ok(pool.clone()),
                    None => backing.evaluator.clone(),
                }
            };
            let connection = self.connect(&evaluator).await?;
            let pool = Pool::start(evaluator.clone(), connection, name, self.settings.connections()).await?;
            let mut backing = locked(&self.backing);
            // What was opened by a policy that has changed meanwhile is not used.
            if Arc::ptr_eq(&evaluator, &backing.evaluator) {
                return Ok(backing.pools.entry(name.to_owned()).or_insert(pool).clone());
            }
        }
    }

    /// Answers rows. A model that is not what it was is opened anew by whoever asks next.
    pub(super) async fn infer(self: &Arc<Self>, pool: &Pool, rows: Vec<Vec<f64>>) -> Result<Vec<Answer>, Error> {
        let answers = pool.infer(rows, |_| ()).await;
        self.keep(pool.take_evidence());
        if answers.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotVerified) {
            let removed = locked(&self.backing).pools.extract_if(|_, other| other.model() == pool.model()).collect();
            self.retire(removed);
        }
        answers
    }

    /// Keeps the evidence of connections that are not to be used any more, once they have the answers that are under way.
    fn retire(self: &Arc<Self>, pools: Vec<(String, Pool)>) {
        for (_, pool) in pools {
            let evaluations = self.clone();
            tokio::spawn(async move { evaluations.keep(pool.close().await) });
        }
    }

    /// Verifies now and then, and when SIGHUP asks for it.
    pub(super) async fn verify_for_ever(self: Arc<Self>, every: Duration, mut asked: Signal) {
        loop {
            let _ = timeout(every, asked.recv()).await;
            if let Err(failure) = self.verify().await {
                remark(format!("{}; {}", failure.message, failure.remedy));
            }
        }
    }

    /// Reads the policy anew, and verifies by it.
    async fn verify(self: &Arc<Self>) -> Result<(), Failure> {
        let evaluator = self.reread().inspect_err(|Failure { code, message, remedy, .. }| {
            *locked(&self.seen) = Seen::failed(code, message, remedy);
        })?;
        self.connect(&evaluator).await?;
        Ok(())
    }

    /// The evaluator under the policy of now; what another policy has opened is not used any more.
    fn reread(self: &Arc<Self>) -> Result<Arc<Evaluator>, Failure> {
        let policy = self.settings.policy()?;
        let current = locked(&self.backing).evaluator.clone();
        if current.policy().digest() == policy.digest() {
            return Ok(current);
        }
        remark("the policy has changed: connecting anew");
        let evaluator = Arc::new(self.settings.evaluator()?);
        let outdated = {
            let mut backing = locked(&self.backing);
            backing.evaluator = evaluator.clone();
            backing.pools.drain().collect()
        };
        self.retire(outdated);
        Ok(evaluator)
    }

    /// Connects, and notes what the verification found, if it was by the policy of now.
    async fn connect(&self, evaluator: &Arc<Evaluator>) -> Result<AttestedConnection, Error> {
        let connection = evaluator.connect().await;
        let seen = match &connection {
            Ok(connection) => Seen::verified(connection),
            Err(error) => Seen::failed(error.code(), &error.to_string(), &error.remedy()),
        };
        if Arc::ptr_eq(evaluator, &locked(&self.backing).evaluator) {
            *locked(&self.seen) = seen;
        }
        connection
    }

    /// Evidence, the oldest first: the number of the first piece, and each with how many receipts it has.
    pub(super) fn evidence(&self) -> (usize, Vec<(usize, Vec<u8>)>) {
        let pools: Vec<Pool> = locked(&self.backing).pools.values().cloned().collect();
        let open = pools.iter().flat_map(Pool::evidence).map(|piece| (piece.receipts.len(), piece.to_cbor()));
        let open: Vec<_> = open.collect();
        let ended = locked(&self.ended);
        (ended.dropped + 1, ended.pieces.iter().cloned().chain(open).collect())
    }

    fn keep(&self, evidence: Vec<Evidence>) {
        let mut ended = locked(&self.ended);
        for piece in evidence {
            // What cannot be written is still to be had from here.
            if let Err(failure) = ended.files.write(&piece, &Output::new(false)) {
                remark(format!("{}; {}", failure.message, failure.remedy));
            }
            ended.pieces.push_back((piece.receipts.len(), piece.to_cbor()));
        }
        while ended.pieces.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > MAX_EVIDENCE {
            ended.pieces.pop_front();
            ended.dropped += 1;
        }
    }

    /// Ends all connections.
    pub(super) async fn close(&self) {
        let pools = std::mem::take(&mut locked(&self.backing).pools);
        for pool in pools.into_values() {
            self.keep(pool.close().await);
        }
    }
}

impl Seen {
    fn verified(connection: &AttestedConnection) -> Self {
        let enclave = connection.enclave();
        let accepted = |model: &&ManifestModel| enclave.accept(model).is_ok();
        let models: Vec<ManifestModel> = enclave.manifest().models.iter().filter(accepted).cloned().collect();
        let told = |model: &ManifestModel| json!({"name": model.name, "version": model.version, "digest": model.bundle.to_string()});
        let report = json!({
            "verified": true,
            "simulated": enclave.simulated(),
            "at": Timestamp::now().to_string(),
            "release": enclave.release(),
            "module_id": enclave.module_id(),
            "document_time": enclave.timestamp().to_string(),
            "channel": enclave.channel().name(),
            "models": models.iter().map(told).collect::<Vec<_>>(),
            "steps": enclave.steps().iter().map(passed).collect::<Vec<_>>(),
        });
        Self { simulated: enclave.simulated(), models, report, verified: true }
    }

    fn failed(code: &str, message: &str, remedy: &str) -> Self {
        let report = json!({
            "verified": false,
            "at": Timestamp::now().to_string(),
            "error": {"code": code, "message": message, "remedy": remedy},
        });
        Self { simulated: false, models: Vec::new(), report, verified: false }
    }
}

/// Nothing that panics holds one of these for longer than a value takes to change.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
