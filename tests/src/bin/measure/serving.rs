//! Where TLS ends before the enclave: through the SageMaker runtime's place to the container, and by way of S3. And where plain
//! requests begin behind it: through the gateway on the client's machine.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, ensure};
use cloister_client::{AttestedConnection, Intermediary, Policy, SageMakerEndpoint, gateway_url};
use cloister_e2e::{
    cli::CLOISTER,
    hostile::BUNDLE,
    iris::Iris,
    process::Process,
    python::Python,
    sagemaker,
    world::{HttpOptions, HttpWorld, Link, World},
};
use serde_json::json;

use crate::{Figure, median};

const INVOCATIONS: usize = 300;
const EXCHANGES: usize = 50;
const WARM_UP: usize = 20;

/// The published example's own time for its 140 rows, end to end, in microseconds: its recipe (Pyfhel, N = 16384) as
/// `pyfhel_seed.py` ran it in 2026-11 on a machine of two cores. It is cited; Pyfhel cannot be built here.
const PUBLISHED_US: f64 = 33.8e6;

pub(crate) fn measure() -> anyhow::Result<Vec<Figure>> {
    let figure = |id: &str, value, unit| Figure { id: id.into(), value, unit };
    let runtime = tokio::runtime::Runtime::new()?;
    let world = HttpWorld::start(std::slice::from_ref(&BUNDLE), &HttpOptions::default())?;
    let address = runtime.block_on(sagemaker::start(&world.url))?;
    let invocations = client(&world.policy_file(), &["sagemaker", &format!("http://{address}")], &[])?;
    let mut figures = vec![figure("sagemaker/iris-150/p50_us", invocations, "us")];

    if let Some(python) = Python::find()? {
        let (_s3, url) = python.serve("s3.py", &[])?;
        let environment = [("AWS_ENDPOINT_URL", url.as_str()), ("AWS_ALLOW_HTTP", "true")];
        let environment = [&KEY[..], &environment].concat();
        let options = HttpOptions { settings: None, proxy: &["--s3-bucket", "payloads"], environment: &environment };
        let world = HttpWorld::start(std::slice::from_ref(&BUNDLE), &options)?;
        let exchanges = client(&world.policy_file(), &["s3", &world.url], &environment)?;
        figures.push(figure("s3/iris-150/p50_us", exchanges, "us"));
    }
    for (id, rows) in [("gateway/iris-1/p50_us", 1), ("gateway/iris-150/p50_us", 150)] {
        figures.push(figure(id, runtime.block_on(gateway(rows))?, "us"));
    }
    figures.push(figure("published/iris-140/e2e_us", PUBLISHED_US, "us, cited"));
    Ok(figures)
}

/// The median time of a request in plain JSON for so many rows of Iris, in microseconds: through `cloister gateway`, proxy and
/// simulated enclave to labels, probabilities and logits.
async fn gateway(rows: usize) -> anyhow::Result<f64> {
    let world = World::start(Link::Tcp)?;
    let (endpoint, policy) = (world.endpoint.to_string(), world.policy_file().display().to_string());
    let arguments = ["gateway", &endpoint, "--policy", &policy, "--listen", "127.0.0.1:0"];
    let gateway = Process::start_with(&CLOISTER, &arguments, &[("CLOISTER_CONFIG", "/dev/null")])?;
    let url = gateway.first_line.strip_prefix("listening on ").context("it says where")?;
    let data = &Iris::load()?.rows[..rows];
    let input = json!({"name": "X", "shape": [rows, data[0].len()], "datatype": "FP64", "data": data});
    let (body, client) = (json!({"inputs": [input]}).to_string(), reqwest::Client::new());
    let mut times = Vec::new();
    for request in 0..WARM_UP + INVOCATIONS {
        let started = Instant::now();
        let answer = client.post(format!("{url}/v2/models/iris/infer")).body(body.clone()).send().await?;
        answer.error_for_status()?.bytes().await?;
        if request >= WARM_UP {
            times.push(started.elapsed().as_secs_f64() * 1e6);
        }
    }
    Ok(median(times))
}

const KEY: [(&str, &str); 3] =
    [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_REGION", "us-east-1")];

/// Has this program be a client in a process of its own, since AWS's credentials come from the environment.
fn client(policy: &Path, way: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<f64> {
    let output = Command::new(std::env::current_exe()?)
        .arg("--relayed-client")
        .arg(policy)
        .args(way)
        .envs(KEY)
        .envs(environment.iter().copied())
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the client failed");
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// Prints the median time of a request for all of Iris, in microseconds: from floats to verified logits.
pub(crate) fn run_client(arguments: &[String]) -> anyhow::Result<()> {
    let [policy, kind, url] = arguments else { anyhow::bail!("a policy, a kind and a URL") };
    let url = gateway_url(url)?;
    let (intermediary, requests) = match kind.as_str() {
        "s3" => (Intermediary::Gateway { url, objects: Some("s3://payloads/cloister".parse()?) }, EXCHANGES),
        _ => {
            let endpoint = SageMakerEndpoint::new(sagemaker::ENDPOINT, "us-east-1", Some(url.as_str()))?;
            (Intermediary::SageMaker { endpoint, objects: None }, INVOCATIONS)
        }
    };
    let policy = Policy::parse(&std::fs::read_to_string(policy).context("the policy")?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let rows = Iris::load()?.rows;
        let mut connection = AttestedConnection::open_without_channel(&intermediary, policy).await?;
        let mut model = connection.model("iris").await?;
        let mut times = Vec::new();
        for request in 0..WARM_UP + requests {
            let started = Instant::now();
            model.infer(&rows).await?;
            if request >= WARM_UP {
                times.push(started.elapsed().as_secs_f64() * 1e6);
            }
        }
        println!("{}", median(times));
        Ok(())
    })
}
