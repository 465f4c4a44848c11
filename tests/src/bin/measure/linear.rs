//! The encrypted arithmetic alone, in one thread of this process.

use cloister_e2e::{
    hostile,
    iris::{self, Agreement, Iris},
};
use cloister_inference::{Bundle, Evaluator, Prediction, Scratch, Session};

use crate::{Figure, median, microseconds};

const REPETITIONS: usize = 2000;

pub(crate) fn measure() -> anyhow::Result<Vec<Figure>> {
    let data = Iris::load()?;
    let bundle = iris::import()?.bundle;
    let one = exchange(&bundle, &data.rows[..1])?;
    let all = exchange(&bundle, &data.rows)?;
    let key_bytes = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(hostile::key_bytes(&bundle, &data.rows))?;

    let mut session = Session::new(bundle.description());
    let request = session.encrypt(&data.rows)?;
    let reply = Evaluator::new(&bundle).evaluate(request.bytes(), &mut Scratch::default())?;
    let bound = bundle.description().bound();
    let predictions: Vec<Prediction> = session
        .decrypt(&request, &reply)?
        .into_iter()
        .map(|logits| Prediction::new(bundle.description(), logits))
        .collect();
    let agreement = Agreement::of(&predictions, &data, bound);

    let figure = |id, value, unit| Figure { id, value, unit };
    Ok(vec![
        figure("linear/iris-150/server_us", all.server_us, "us"),
        figure("linear/iris-1/server_us", one.server_us, "us"),
        figure("linear/iris-1/request_bytes", one.request_bytes, "bytes"),
        figure("linear/iris-1/reply_bytes", one.reply_bytes, "bytes"),
        figure("linear/iris-150/request_bytes", all.request_bytes, "bytes"),
        figure("linear/iris-150/reply_bytes", all.reply_bytes, "bytes"),
        figure("linear/iris-1/client_us", one.client_us, "us"),
        figure("linear/iris-150/client_us", all.client_us, "us"),
        figure("linear/iris/key_bytes", key_bytes as f64, "bytes"),
        figure("linear/iris/bound", bound, "logit"),
        figure("linear/iris/bound_violations", agreement.violations as f64, "logits"),
        figure("linear/iris/max_logit_error", agreement.max_logit_error, "logit"),
        figure("linear/iris/labels_equal", agreement.labels_equal as f64, "rows"),
    ])
}

struct Exchange {
    server_us: f64,
    client_us: f64,
    request_bytes: f64,
    reply_bytes: f64,
}

/// Encrypts, evaluates and decrypts `rows` many times.
fn exchange(bundle: &Bundle, rows: &[Vec<f64>]) -> anyhow::Result<Exchange> {
    let evaluator = Evaluator::new(bundle);
    let mut scratch = Scratch::default();
    let mut session = Session::new(bundle.description());
    let (mut server, mut client) = (Vec::new(), Vec::new());
    let (mut request_bytes, mut reply_bytes) = (0, 0);
    for _ in 0..REPETITIONS {
        let mut request = None;
        let encrypt = microseconds(|| request = Some(session.encrypt(rows)));
        let request = request.expect("set above")?;
        let mut reply = None;
        server.push(microseconds(|| reply = Some(evaluator.evaluate(request.bytes(), &mut scratch))));
        let reply = reply.expect("set above")?;
        let mut predictions = None;
        let decrypt = microseconds(|| predictions = Some(session.decrypt(&request, &reply)));
        predictions.expect("set above")?;
        client.push(encrypt + decrypt);
        (request_bytes, reply_bytes) = (request.bytes().len(), reply.len());
    }
    Ok(Exchange {
        server_us: median(server),
        client_us: median(client),
        request_bytes: request_bytes as f64,
        reply_bytes: reply_bytes as f64,
    })
}
