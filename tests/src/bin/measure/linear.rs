//! The encrypted arithmetic alone, from bytes to bytes: each end in one thread of this process.

use std::time::{Duration, Instant};

use cloister_e2e::{
    hostile,
    iris::{self, Agreement, Iris},
    tasks::Task,
};
use cloister_inference::{Bundle, Evaluator, Prediction, PublicKey, Request, Scratch, Session};

use crate::{Figure, median, microseconds};

/// Each task is repeated for about this long, and no more often than this.
const TIME: Duration = Duration::from_secs(2);
const REPETITIONS: usize = 2000;

/// A comparison: its name, the task and how many of its rows, and the precision that is asked for, so that no logit is
/// further off than with the fastest system that the task is compared with (`tests/peers`); `-fine` than with any.
pub(crate) const TASKS: [(&str, &str, usize, f64); 11] = [
    ("iris-1", "iris", 1, 1e-3),
    ("iris-1-fine", "iris", 1, 5e-6),
    ("iris-150", "iris", 150, 2e-5),
    ("iris-exact", "iris", 150, 1e-6),
    ("bc-1", "bc", 1, 1e-3),
    ("bc-1-fine", "bc", 1, 5e-6),
    ("bc-143", "bc", 143, 3e-6),
    ("digits-1", "digits", 1, 4e-5),
    ("digits-360", "digits", 360, 1.5e-6),
    ("wide784-1", "wide784", 1, 2e-4),
    ("wide784-500", "wide784", 500, 1e-6),
];

pub(crate) fn measure() -> anyhow::Result<Vec<Figure>> {
    let mut figures = vec![];
    for (id, name, count, precision) in TASKS {
        let mut task = Task::load(name)?;
        let bundle = task.import(precision)?;
        task.rows.truncate(count);
        let exchange = Exchange::new(&bundle, &task)?;
        let figure = |what: &str, value: f64, unit| Figure { id: format!("linear/{id}/{what}"), value, unit };
        figures.extend([
            figure("bare_server_us", exchange.bare_server_us, "us"),
            figure("server_us", exchange.server_us, "us"),
            figure("client_us", exchange.client_us, "us"),
            figure("public_key_bytes", PublicKey::len(bundle.parameters()) as f64, "bytes"),
            figure("request_bytes", exchange.request_bytes as f64, "bytes"),
            figure("reply_bytes", exchange.reply_bytes as f64, "bytes"),
            figure("max_logit_error", exchange.max_logit_error, "logit"),
            figure("bound", bundle.bound(), "logit"),
            figure("labels_equal", exchange.labels_equal as f64, "rows"),
            figure("rows", task.rows.len() as f64, "rows"),
            figure("exact", u8::from(bundle.description().scale().is_exact()).into(), "of 1"),
        ]);
        if id == "iris-exact" {
            figures.push(figure("oracle_mismatches", oracle_mismatches(&bundle, &task)? as f64, "logits"));
        }
        if id == "wide784-500" {
            figures.push(figure("two_threads_us", two_threads_us(&bundle, &task)?, "us"));
        }
    }
    figures.extend(of_the_service()?);
    Ok(figures)
}

/// What the model that the service is measured with sends and promises.
fn of_the_service() -> anyhow::Result<Vec<Figure>> {
    let (data, bundle) = (Iris::load()?, iris::import()?.bundle);
    let key_bytes = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(hostile::key_bytes(&bundle, &data.rows))?;
    let mut session = Session::new(bundle.description());
    let predictions = Requests::encrypt(&mut session, &data.rows)?.infer(&mut session, &Evaluator::new(&bundle))?;
    let agreement = Agreement::of(&predictions, &data, bundle.bound());
    let figure = |id: &str, value, unit| Figure { id: format!("linear/iris/{id}"), value, unit };
    Ok(vec![
        figure("public_key_bytes", session.public_key().len() as f64, "bytes"),
        figure("public_key_us", repeated(|| Ok(PublicKey::from_bytes(session.public_key())?))?, "us"),
        figure("session_us", repeated(|| Ok(Session::new(bundle.description())))?, "us"),
        figure("key_bytes", key_bytes as f64, "bytes"),
        figure("bound", bundle.bound(), "logit"),
        figure("bound_violations", agreement.violations as f64, "logits"),
        figure("max_logit_error", agreement.max_logit_error, "logit"),
        figure("labels_equal", agreement.labels_equal as f64, "rows"),
    ])
}

struct Exchange {
    bare_server_us: f64,
    server_us: f64,
    client_us: f64,
    request_bytes: usize,
    reply_bytes: usize,
    max_logit_error: f64,
    labels_equal: usize,
}

impl Exchange {
    /// Encrypts, evaluates and decrypts all rows many times; every answer is looked at.
    fn new(bundle: &Bundle, task: &Task) -> anyhow::Result<Self> {
        let (evaluator, mut scratch) = (Evaluator::new(bundle), Scratch::default());
        let mut session = Session::new(bundle.description());
        let key = PublicKey::from_bytes(session.public_key())?;
        let (mut bare, mut server, mut client) = (vec![], vec![], vec![]);
        let mut exchange = Self {
            bare_server_us: 0.0,
            server_us: 0.0,
            client_us: 0.0,
            request_bytes: 0,
            reply_bytes: 0,
            max_logit_error: 0.0,
            labels_equal: usize::MAX,
        };
        let started = Instant::now();
        while server.len() < REPETITIONS && (server.len() < 3 || started.elapsed() < TIME) {
            let (encrypting, requests) = timed(|| Requests::encrypt(&mut session, &task.rows))?;
            let (bare_us, _) =
                timed(|| requests.each(|request| Ok(evaluator.evaluate_bare(request.bytes(), &mut scratch)?)))?;
            let (server_us, replies) =
                timed(|| requests.each(|request| Ok(evaluator.evaluate(request.bytes(), &key, &mut scratch)?)))?;
            let (decrypting, predictions) = timed(|| requests.decrypt(&mut session, &replies))?;
            let (error, equal) = task.compare(&predictions);
            exchange.max_logit_error = exchange.max_logit_error.max(error);
            exchange.labels_equal = exchange.labels_equal.min(equal);
            exchange.request_bytes = requests.0.iter().map(|request| request.bytes().len()).sum();
            exchange.reply_bytes = replies.iter().map(Vec::len).sum();
            bare.push(bare_us);
            server.push(server_us);
            client.push(encrypting + decrypting);
        }
        (exchange.bare_server_us, exchange.server_us) = (median(bare), median(server));
        exchange.client_us = median(client);
        Ok(exchange)
    }
}

/// As many requests as the rows need.
struct Requests(Vec<Request>);

impl Requests {
    fn encrypt(session: &mut Session, rows: &[Vec<f64>]) -> anyhow::Result<Self> {
        let capacity = session.description().rows_per_request();
        let requests = rows.chunks(capacity).map(|rows| Ok(session.encrypt(rows)?));
        Ok(Self(requests.collect::<anyhow::Result<_>>()?))
    }

    fn each(&self, evaluate: impl FnMut(&Request) -> anyhow::Result<Vec<u8>>) -> anyhow::Result<Vec<Vec<u8>>> {
        self.0.iter().map(evaluate).collect()
    }

    fn decrypt(&self, session: &mut Session, replies: &[Vec<u8>]) -> anyhow::Result<Vec<Prediction>> {
        let mut predictions = vec![];
        for (request, reply) in self.0.iter().zip(replies) {
            let logits = session.decrypt(request, reply)?;
            predictions.extend(logits.into_iter().map(|logits| Prediction::new(session.description(), logits)));
        }
        Ok(predictions)
    }

    fn infer(&self, session: &mut Session, evaluator: &Evaluator) -> anyhow::Result<Vec<Prediction>> {
        let (key, mut scratch) = (PublicKey::from_bytes(session.public_key())?, Scratch::default());
        let replies = self.each(|request| Ok(evaluator.evaluate(request.bytes(), &key, &mut scratch)?))?;
        self.decrypt(session, &replies)
    }
}

/// Decrypted logits that are not to the last bit those of the same integers in the clear.
fn oracle_mismatches(bundle: &Bundle, task: &Task) -> anyhow::Result<usize> {
    let (evaluator, description) = (Evaluator::new(bundle), bundle.description());
    let mut session = Session::new(description);
    let predictions = Requests::encrypt(&mut session, &task.rows)?.infer(&mut session, &evaluator)?;
    let clear = evaluator.evaluate_clear(&description.encode(&task.rows)?);
    let pairs = predictions.iter().zip(&clear).flat_map(|(row, clear)| row.logits.iter().zip(clear));
    Ok(pairs.filter(|(logit, clear)| logit.to_bits() != description.publish(**clear).to_bits()).count())
}

fn two_threads_us(bundle: &Bundle, task: &Task) -> anyhow::Result<f64> {
    let (evaluator, mut scratch) = (Evaluator::new(bundle), Scratch::with_threads(2));
    let mut session = Session::new(bundle.description());
    let (key, requests) = (PublicKey::from_bytes(session.public_key())?, Requests::encrypt(&mut session, &task.rows)?);
    repeated(|| requests.each(|request| Ok(evaluator.evaluate(request.bytes(), &key, &mut scratch)?)))
}

/// The median of many calls, in microseconds.
fn repeated<T>(mut work: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<f64> {
    let (mut times, started) = (vec![], Instant::now());
    while times.len() < REPETITIONS && (times.len() < 3 || started.elapsed() < TIME) {
        times.push(timed(&mut work)?.0);
    }
    Ok(median(times))
}

/// What `work` gives, and how many microseconds it took.
fn timed<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(f64, T)> {
    let mut result = None;
    let us = microseconds(|| result = Some(work()));
    Ok((us, result.expect("set above")?))
}
