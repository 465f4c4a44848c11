//! `cargo demo`: 150 rows of Iris, classified under encryption by an evaluator that was verified first. In simulation.

use std::{
    env,
    fmt::Display,
    fs,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Parser;
use cloister_attestation::{Policy, Release, StepReport, Timestamp};
use cloister_client::{AttestedConnection, Exchanges, Prediction, Report, Timing, Verified};
use cloister_e2e::{
    hostile::{Cheat, Hostile, identity, key_bytes},
    iris::{self, Agreement, Iris},
    world::{Link, World},
};
use cloister_inference::{Bundle, Imported, PublicKey};
use cloister_simulated_enclave::{Authority, Identity};
use serde_json::{Value, json};

/// Classify 150 Iris rows under encryption, with a verified evaluator, in simulation
#[derive(Debug, Parser)]
#[command(name = "cargo demo --", version)]
struct Arguments {
    /// Write exactly one JSON object to stdout
    #[arg(long)]
    json: bool,
    /// Where the page about the run goes, instead of demo.html in the target folder
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match demo(&Story { silent: arguments.json }, arguments.report).await {
        Ok(summary) => {
            if arguments.json {
                println!("{summary}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What a person reads; nothing of it where JSON was asked for.
struct Story {
    silent: bool,
}

impl Story {
    fn say(&self, text: impl Display) {
        if !self.silent {
            println!("{text}");
        }
    }

    fn chapter(&self, title: &str) {
        self.say(format!("\n{title}"));
    }
}

const BANNER: &str = "\
+----------------------------------------------------------------------+
|  SIMULATED: no Nitro Enclave is involved. Every byte takes the real  |
|  path, but the documents are signed by an authority made for this    |
|  run, so they prove nothing about hardware.                          |
+----------------------------------------------------------------------+";

async fn demo(story: &Story, page: Option<PathBuf>) -> anyhow::Result<Value> {
    story.say(BANNER);
    eprintln!("building the simulated enclave and the proxy …");
    let started = Instant::now();
    tokio::task::spawn_blocking(World::build).await??;
    let build = started.elapsed();

    let started = Instant::now();
    let data = Iris::load()?;
    let Imported { bundle, report } = iris::import()?;
    let import = started.elapsed();
    let description = bundle.description();
    story.chapter("1. The model, from ONNX as skl2onnx exports it");
    story.say(format!(
        "   {} {}: {} features, {} logits; self-check against the ONNX graph: {:.1e}",
        bundle.name(),
        bundle.version(),
        description.features().len(),
        description.labels().len(),
        report.self_check.largest_difference
    ));
    story.say(format!("   proven bound: every decrypted logit within {:.3e} of the model's", description.bound()));

    let started = Instant::now();
    let world = tokio::task::spawn_blocking(|| World::start(Link::Unix)).await??;
    let start = started.elapsed();
    let policy = world.policy()?;

    let started = Instant::now();
    let mut connection = AttestedConnection::open(&world.endpoint, policy.clone()).await?;
    let connect = started.elapsed();
    story.chapter("2. Who is there? Verified before anything but a nonce was sent");
    let enclave = connection.enclave();
    for StepReport { step, expected: _, found } in enclave.steps() {
        story.say(format!("   {:>2}  ok  {:<13} {found}", step.number(), step.name()));
    }
    let verified = Verified::of(&connection);
    let accepted = enclave.model("iris")?.clone();
    story.say(format!("       ok  model         {} {}, {}", accepted.name, accepted.version, accepted.bundle));

    let mut model = connection.model("iris").await?;
    let answer = model.infer(&data.rows).await?;
    let evidence = connection.evidence();
    let receipts = evidence.first().context("there is evidence")?.verify(&policy, Timestamp::now())?;
    let agreement = Agreement::of(&answer.predictions, &data, description.bound());
    let rows = data.rows.len();
    let accuracy = agreement.right as f64 / rows as f64;
    story.chapter("3. 150 rows in one ciphertext");
    for row in [0, 50, 149] {
        story.say(format!("   {}", example(&data.rows[row], &answer.predictions[row], description.labels())));
    }
    story.say("   …");
    story.say(format!("   labels equal to scikit-learn's   {} of {rows}", agreement.labels_equal));
    story.say(format!("   labels certain despite the bound {} of {rows}", agreement.certain));
    story.say(format!("   accuracy                         {accuracy:.4}"));
    story.say(format!(
        "   largest logit difference         {:.2e}, proven bound {:.2e}",
        agreement.max_logit_error,
        description.bound()
    ));

    let key_bytes = key_bytes(&bundle, &data.rows).await?;
    story.chapter("4. What it cost");
    story.say(format!("   bytes up {}, down {}, evaluation keys {key_bytes}", answer.bytes.0, answer.bytes.1));
    let public_key = PublicKey::len(description.parameters());
    story.say(format!("   public key, once per connection, {public_key} bytes"));
    let Timing { encrypt, exchange, receipt, decrypt } = answer.timing;
    let phases = [
        ("build", build),
        ("import", import),
        ("start", start),
        ("connect", connect),
        ("encrypt", encrypt),
        ("exchange", exchange),
        ("receipt", receipt),
        ("decrypt", decrypt),
    ];
    for (name, duration) in phases {
        story.say(format!("   {name:<9} {:>10.3} ms", milliseconds(duration)));
    }
    story.say(format!("   {} receipt checked offline, as a third party would", receipts.receipts().len()));

    story.chapter("5. Attacks, refused before any data was sent");
    let refused = attacks(&world, &policy, &bundle).await?;
    for (attack, error) in &refused {
        let indented = error.to_string().replace('\n', "\n     ");
        story.say(format!("   {attack:<42} {}\n      {indented}", error.code()));
    }

    let simulated = verified.simulated;
    let mut exchanges = Exchanges::default();
    exchanges.count(&answer);
    let report = Report {
        verified,
        connect,
        attestations: 1,
        model: accepted,
        description: description.clone(),
        rows: rows as u64,
        resumed: 0,
        certain: agreement.certain as u64,
        right: Some(agreement.right as u64),
        exchanges,
        evidence: Vec::new(),
        written: Timestamp::now(),
    };
    let page = page.map_or_else(default_page, Ok)?;
    fs::write(&page, report.to_html()).with_context(|| format!("writing {}", page.display()))?;
    story.chapter("6. A page about all of that, to be opened in a browser and passed on");
    story.say(format!("   {}", page.display()));
    story.say(format!("\n{BANNER}"));

    Ok(json!({
        "simulated": simulated,
        "rows": rows,
        "labels_equal_to_sklearn": agreement.labels_equal,
        "labels_certain": agreement.certain,
        "accuracy": accuracy,
        "max_logit_error": agreement.max_logit_error,
        "bound": description.bound(),
        "bound_violations": agreement.violations,
        "bytes_up": answer.bytes.0,
        "bytes_down": answer.bytes.1,
        "key_bytes": key_bytes,
        "public_key_bytes": public_key,
        "ms": phases.iter().map(|(name, duration)| ((*name).to_owned(), json!(milliseconds(*duration)))).collect::<Value>(),
        "report": page,
        "refused": refused.iter().map(|(attack, error)| ((*attack).to_owned(), json!(error.code()))).collect::<Value>(),
    }))
}

fn example(row: &[f64], prediction: &Prediction, labels: &[cloister_client::Label]) -> String {
    let logits: Vec<String> =
        labels.iter().zip(&prediction.logits).map(|(label, logit)| format!("{label} {logit:+.3}")).collect();
    format!("{row:?} → {:<10}  logits {}", prediction.label_text(), logits.join(", "))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The target folder has one folder for each profile, and in it this program.
fn default_page() -> anyhow::Result<PathBuf> {
    let program = env::current_exe()?;
    Ok(program.ancestors().nth(2).context("a program lies in the target folder")?.join("demo.html"))
}

/// Runs attacks against a client and returns how it refused each.
async fn attacks(
    world: &World,
    policy: &Policy,
    bundle: &Bundle,
) -> anyhow::Result<Vec<(&'static str, cloister_client::Error)>> {
    let authority = Authority::open_or_create(&world.authority())?;
    let genuine = format!("{}:{}", world.endpoint.host(), world.endpoint.port()).parse()?;
    let middle =
        Hostile::start(authority.enclave(Identity::random()), identity()?, bundle, Cheat::Relay(genuine)).await?;
    let debug =
        Hostile::start(authority.enclave(Identity::random().debug()), identity()?, bundle, Cheat::Nothing).await?;
    let mut other = Policy::parse(&policy.to_toml())?;
    for release in policy.releases() {
        let mut pcrs = release.pcrs;
        pcrs[0] = [0x5a; 48];
        other.add_release(Release { pcrs, ..release.clone() })?;
    }
    let attempts = [
        ("man in the middle with his own TLS key", middle.endpoint()?, policy.clone()),
        ("enclave in debug mode", debug.endpoint()?, policy.clone()),
        ("another program than the policy's", world.endpoint.clone(), other),
    ];
    let mut refused = Vec::new();
    for (attack, endpoint, policy) in attempts {
        let Err(error) = AttestedConnection::open(&endpoint, policy).await else {
            anyhow::bail!("an attack succeeded: {attack}");
        };
        refused.push((attack, error));
    }
    Ok(refused)
}
