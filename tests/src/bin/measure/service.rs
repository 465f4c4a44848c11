//! The whole service over loopback: client, proxy and simulated enclave, each a process.

use std::time::Instant;

use cloister_client::AttestedConnection;
use cloister_e2e::{
    iris::Iris,
    world::{Link, World},
};

use crate::{Figure, median, plaintext::Baseline};

const REQUESTS: usize = 1000;
const CONNECTIONS: usize = 100;
const WARM_UP: usize = 50;
/// The published example's batch.
const BATCH: usize = 140;

pub(crate) fn measure() -> anyhow::Result<Vec<Figure>> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(figures())
}

async fn figures() -> anyhow::Result<Vec<Figure>> {
    let data = Iris::load()?;
    let world = World::start(Link::Tcp)?;
    let policy = world.policy()?;

    let mut connects = Vec::new();
    for _ in 0..CONNECTIONS {
        let started = Instant::now();
        AttestedConnection::open(&world.endpoint, policy.clone()).await?;
        connects.push(started.elapsed().as_secs_f64() * 1e6);
    }

    let mut connection = AttestedConnection::open(&world.endpoint, policy).await?;
    let mut model = connection.model("iris").await?;
    let mut baseline = Baseline::start().await?;
    let (mut encrypted, mut plain, mut batches) = (Vec::new(), Vec::new(), Vec::new());
    // In turn, so that both see the same weather.
    for request in 0..WARM_UP + REQUESTS {
        let row = request % data.rows.len();
        let started = Instant::now();
        model.infer(&data.rows[row..=row]).await?;
        let with_encryption = started.elapsed().as_secs_f64() * 1e6;
        let started = Instant::now();
        baseline.infer(&data.rows[row..=row]).await?;
        let without = started.elapsed().as_secs_f64() * 1e6;
        if request >= WARM_UP {
            encrypted.push(with_encryption);
            plain.push(without);
        }
    }
    for _ in 0..CONNECTIONS {
        let started = Instant::now();
        model.infer(&data.rows[..BATCH]).await?;
        batches.push(started.elapsed().as_secs_f64() * 1e6);
    }

    let (encrypted, plain) = (median(encrypted), median(plain));
    let figure = |id: &str, value, unit| Figure { id: id.into(), value, unit };
    Ok(vec![
        figure("service/iris-1/p50_us", encrypted, "us"),
        figure("service/iris-140/e2e_us", median(batches), "us"),
        figure("service/iris-1/plaintext_p50_us", plain, "us"),
        figure("service/iris-1/over_plaintext", encrypted / plain, "ratio"),
        figure("service/connect/p50_us", median(connects), "us"),
    ])
}
