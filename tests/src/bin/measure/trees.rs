//! Trees and networks alone, from bytes to bytes: each end in one thread of this process.

use std::time::Instant;

use anyhow::ensure;
use cloister_e2e::{hostile, trees::Case};
use cloister_inference::{Bundle, Evaluator, Prediction, PublicKey, Scratch, Session, Thresholds};

use crate::{Figure, median, microseconds};

/// What is measured: its id, the case, the precision that is asked for, and whether thresholds are public.
const TASKS: [(&str, &str, f64, Thresholds); 8] = [
    ("trees/iris-dt", "iris-dt", 1e-2, Thresholds::Public),
    ("trees/iris-xgb", "iris-xgb", 1e-2, Thresholds::Public),
    ("trees/bc-rf", "bc-rf", 1e-2, Thresholds::Public),
    ("trees/bc-xgb", "bc-xgb", 5e-2, Thresholds::Public),
    ("trees/bc-xgb-hidden", "bc-xgb", 1e-1, Thresholds::Hidden),
    ("trees/digits-xgb", "digits-xgb", 5e-2, Thresholds::Public),
    ("network/iris-16", "iris-16", 1e-2, Thresholds::Hidden),
    ("network/bc", "bc-network", 1e-1, Thresholds::Hidden),
];

/// Rows that are asked in earnest: each takes as long as it takes.
const MOST_ROWS: usize = 400;

pub(crate) fn measure() -> anyhow::Result<Vec<Figure>> {
    let mut figures = vec![];
    for (id, name, precision, thresholds) in TASKS {
        let case = Case::named(name)?;
        let bundle = case.import(precision, thresholds)??.bundle;
        let rows: Vec<Vec<f64>> = case.rows()?.into_iter().take(MOST_ROWS).collect();
        let asked = Asked::new(&bundle, &rows)?;
        let comparison = case.compare(&asked.predictions)?;
        let key_bytes = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(hostile::key_bytes(&bundle, &rows[..1]))?;
        ensure!(comparison.rows == rows.len(), "every row has an answer");
        let share = |labels: usize| labels as f64 / rows.len() as f64;
        let figure = |what: &str, value: f64, unit| Figure { id: format!("{id}/{what}"), value, unit };
        figures.extend([
            figure("server_us", asked.server_us, "us"),
            figure("estimated_us", asked.estimated_us, "us"),
            figure("client_us", asked.client_us, "us"),
            figure("request_bytes", bundle.request_len(1) as f64, "bytes"),
            figure("reply_bytes", bundle.reply_len(1) as f64, "bytes"),
            figure("public_key_bytes", PublicKey::len(bundle.parameters()) as f64, "bytes"),
            figure("key_bytes", key_bytes as f64, "bytes"),
            figure("rows", rows.len() as f64, "rows"),
            figure("accuracy_float", share(comparison.right_before), "of 1"),
            figure("accuracy_encrypted", share(comparison.right), "of 1"),
            figure("max_logit_error", asked.largest_error, "logit"),
            figure("bound", bundle.bound(), "logit"),
            figure("bound_violations", asked.violations as f64, "logits"),
            figure("path_mismatches", asked.mismatches as f64, "rows"),
        ]);
    }
    Ok(figures)
}

/// Every row, encrypted, evaluated and decrypted.
struct Asked {
    server_us: f64,
    /// The server's, as admission estimates it before it starts.
    estimated_us: f64,
    client_us: f64,
    predictions: Vec<Prediction>,
    largest_error: f64,
    /// Logits further from the oracle's than the bound.
    violations: usize,
    /// Rows so far from the oracle's logits that no noise within the bound explains it.
    mismatches: usize,
}

impl Asked {
    fn new(bundle: &Bundle, rows: &[Vec<f64>]) -> anyhow::Result<Self> {
        let (description, evaluator) = (bundle.description(), Evaluator::new(bundle));
        evaluator.rehearse();
        let (mut session, mut scratch) = (Session::new(description), Scratch::default());
        let key = PublicKey::from_bytes(session.public_key())?;
        let scale = description.scale();
        let unit = 2_f64.powi(-(scale.features as i32 + scale.weights));
        let (mut server, mut client) = (vec![], vec![]);
        let mut asked = Self {
            server_us: 0.0,
            estimated_us: 0.0,
            client_us: 0.0,
            predictions: vec![],
            largest_error: 0.0,
            violations: 0,
            mismatches: 0,
        };
        for row in rows {
            let started = Instant::now();
            let request = session.encrypt(&[row])?;
            client.push(started.elapsed().as_secs_f64() * 1e6);
            asked.estimated_us = evaluator.check(request.bytes())?.cost.as_secs_f64() * 1e6;
            let mut reply = Ok(vec![]);
            server.push(microseconds(|| reply = evaluator.evaluate(request.bytes(), &key, &mut scratch)));
            let logits = session.decrypt(&request, &reply?)?.remove(0);
            let oracle = evaluator.evaluate_clear(&description.encode(&[row])?).remove(0);
            let errors = logits.iter().zip(oracle).map(|(logit, oracle)| (logit - oracle as f64 * unit).abs());
            let errors: Vec<f64> = errors.collect();
            let largest = errors.iter().copied().fold(0.0, f64::max);
            asked.largest_error = asked.largest_error.max(largest);
            asked.violations += errors.iter().filter(|error| **error > bundle.bound()).count();
            asked.mismatches += usize::from(largest > bundle.bound());
            asked.predictions.push(Prediction::new(description, logits));
        }
        (asked.server_us, asked.client_us) = (median(server), median(client));
        Ok(asked)
    }
}
