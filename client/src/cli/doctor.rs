//! `cloister doctor`

mod network;
mod report;

use std::time::{Duration, Instant};

use clap::{Args, ValueHint};
use cloister_attestation::{Channel, ManifestModel, Policy, Refusal, Step, StepReport, Timestamp, VerifiedEnclave};
use cloister_client::{AttestedConnection, Description, Error, RemoteModel, Timing};
use cloister_wire::error::ErrorCode;

use self::report::Report;
use super::{
    EvaluatorArguments,
    configuration::{Settings, usual_file},
    evaluator::{Route, tell},
    failure::Failure,
    models::verdict,
    output::{Output, foreign},
    policy::{in_force, warn},
};

/// Say what is wrong on the way to an evaluator, step by step, and what to do about it
///
/// Each check is a line: `ok`, `FAIL` with its remedy below, or `--` where it was not made. What still makes sense after a failure
/// is checked as well, so begin with the first one. Its exit code is that of the command.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {
    #[command(flatten)]
    evaluator: EvaluatorArguments,
    /// A model that has to be served and accepted; without it, any
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Other)]
    model: Option<String>,
    /// Also have --model evaluate one row, encrypted as any other: the middle of each feature's range. It costs budget
    #[arg(long = "try", requires = "model")]
    try_row: bool,
}

const EXAMPLES: &str = "\
Examples:
  cloister doctor
  cloister doctor https://evaluator.example:8443 --policy policy.toml
  cloister doctor --gateway https://gateway.example --policy policy.toml --model iris --try
  cloister doctor --json | jq '.checks[] | select(.ok == false)'";

impl Doctor {
    pub(crate) async fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let mut report = Report::new(output);
        let (route, policy) = match Settings::load(&self.evaluator) {
            Ok(settings) => configured(&settings, &mut report),
            Err(failure) => {
                report.fail("configuration", failure);
                report.not_reached(&["policy"]);
                (None, None)
            }
        };
        let reached = match &route {
            Some(route) => network::reach(route, &mut report).await,
            None => {
                report.not_reached(&["name", "connection"]);
                false
            }
        };
        let has_token = route.as_ref().is_some_and(Route::has_token);
        let connection = match (route, policy) {
            (Some(route), Some(policy)) if reached => verify(route, policy, &mut report).await,
            _ => {
                report.not_reached(&["tls", "attestation", "clock", "verification"]);
                None
            }
        };
        match connection {
            Some(connection) => self.examine(connection, has_token, &mut report).await,
            None => report.not_reached(&["channel", "hardware", "models", "client", "description", "round trip"]),
        }
        report.finish()
    }

    /// What an enclave that was verified is and serves, and whether it serves this client.
    async fn examine(&self, mut connection: AttestedConnection, has_token: bool, report: &mut Report<'_>) {
        tell(&connection, report.output);
        let enclave = connection.enclave();
        let channel = match enclave.channel() {
            Channel::TlsExporter(_) => "TLS ends in the enclave",
            Channel::None => "none: TLS ends before the enclave",
        };
        report.ok("channel", channel);
        let hardware = if enclave.simulated() { "SIMULATED: it proves nothing of any" } else { "a Nitro Enclave" };
        report.ok("hardware", hardware);
        let Some(ManifestModel { name, version, .. }) = report.check("models", self.served(enclave)).flatten() else {
            return report.not_reached(&["client", "description", "round trip"]);
        };
        // The first question that an enclave answers to known clients only.
        let mut model = match connection.model(&name).await {
            Ok(model) => model,
            Err(error @ Error::Refused { code: ErrorCode::Unauthorized, .. }) => {
                report.fail("client", error.into());
                return report.not_reached(&["description", "round trip"]);
            }
            Err(error) => {
                report.not_reached(&["client"]);
                report.fail("description", error.into());
                return report.not_reached(&["round trip"]);
            }
        };
        report.ok("client", if has_token { "served with its token" } else { "served without a token" });
        report.ok("description", format!("{} {}: {}", foreign(&name), foreign(&version), shape(model.description())));
        match self.try_row {
            true => {
                let told = round_trip(&mut model).await.map(|told| ((), told));
                report.check("round trip", told);
            }
            false => report.passed_over("round trip", "not asked for: --model NAME --try"),
        }
    }

    /// What the policy says of each model that is served, and the one to go on with.
    fn served(&self, enclave: &VerifiedEnclave) -> Result<(Option<ManifestModel>, String), Failure> {
        let served = &enclave.manifest().models;
        let accepted = served.iter().find(|model| enclave.accept(model).is_ok());
        let wanted = self.model.as_ref().or(accepted.or(served.first()).map(|model| &model.name));
        let model = wanted.map(|name| enclave.model(name)).transpose().map_err(Error::from)?;
        let one = |model: &ManifestModel| {
            format!("{} {} {}", foreign(&model.name), foreign(&model.version), verdict(&enclave.accept(model)))
        };
        let told = match served.as_slice() {
            [] => "none is served".to_owned(),
            served => served.iter().map(one).collect::<Vec<_>>().join("; "),
        };
        Ok((model.cloned(), told))
    }
}

/// Where the evaluator is, and what it must prove: each may be sound where the other is not.
fn configured(settings: &Settings, report: &mut Report<'_>) -> (Option<Route>, Option<Policy>) {
    settings.show(report.output);
    report.policy_file = settings.policy.as_ref().map(|setting| setting.value.clone());
    let route = report.check("configuration", settings.route().map(|route| (route, described(settings))));
    let policy = match settings.policy() {
        Ok(policy) => policy,
        Err(failure) => {
            report.fail("policy", failure);
            return (route, None);
        }
    };
    let now = Timestamp::now();
    match in_force(&policy, now) {
        Ok(names) => report.ok("policy", format!("in force until {}: accepts {}", policy.expires(), names.join(", "))),
        Err(failure) => report.fail("policy", failure),
    }
    warn(&policy, now, report.output);
    (route, Some(policy))
}

/// Which file was read, and each setting with where it came from.
fn described(settings: &Settings) -> String {
    let file = match (&settings.file, usual_file()) {
        (Some(path), _) => format!("read {}", path.display()),
        (None, Some(path)) => format!("no file at {}", path.display()),
        (None, None) => "no file, and no home to look for one".to_owned(),
    };
    let told = settings.told().into_iter().map(|(key, value, source)| format!("\n{key} {value} (from {source})"));
    file + &told.collect::<String>()
}

/// Connects as every command does, and takes the outcome apart.
async fn verify(route: Route, policy: Policy, report: &mut Report<'_>) -> Option<AttestedConnection> {
    let endpoint = match &route {
        Route::Channel { endpoint, .. } => Some(endpoint.clone()),
        Route::Relayed(_) => None,
    };
    let started = Instant::now();
    let outcome = route.evaluator(policy).connect().await;
    let took = started.elapsed();
    match (&outcome, endpoint) {
        (Err(error @ Error::Unreachable { .. }), Some(endpoint)) => {
            report.fail("tls", network::explain(&endpoint, error).await);
            report.not_reached(&["attestation", "clock", "verification"]);
            return None;
        }
        (_, Some(_)) => report.ok("tls", "1.3"),
        (_, None) => report.passed_over("tls", "it ends before the enclave, so it proves nothing of it"),
    }
    match outcome {
        Ok(connection) => {
            let enclave = connection.enclave();
            report.ok("attestation", format!("a document came and was judged, in {} with the connection", ms(took)));
            report.ok("clock", time_found(enclave.steps()));
            let (count, release) = (enclave.steps().len(), enclave.release());
            let id = foreign(enclave.module_id());
            report.ok("verification", format!("all {count} steps passed: {id} runs release {release}"));
            Some(connection)
        }
        Err(Error::NotVerified(refusal)) => {
            refused(refusal, report);
            None
        }
        Err(error) => {
            report.fail("attestation", error.into());
            report.not_reached(&["clock", "verification"]);
            None
        }
    }
}

/// How far a document came.
fn refused(refusal: Refusal, report: &mut Report<'_>) {
    let step = refusal.step();
    match refusal.passed.is_empty() && step == Step::Policy {
        // Nobody was asked for one.
        true => report.not_reached(&["attestation"]),
        false => report.ok("attestation", "a document came"),
    }
    if step == Step::Time {
        report.fail("clock", refusal.into());
        return report.not_reached(&["verification"]);
    }
    match time_found(&refusal.passed) {
        "" => report.not_reached(&["clock"]),
        found => report.ok("clock", found),
    }
    report.refuse("verification", refusal);
}

/// What the step found that compares the document's time with this machine's.
fn time_found(steps: &[StepReport]) -> &str {
    steps.iter().find(|report| report.step == Step::Time).map_or("", |report| &report.found)
}

fn shape(description: &Description) -> String {
    let (features, logits) = (description.features().len(), description.logits());
    let (up, down) = (description.request_len(1), description.reply_len(1));
    format!("{features} features, {logits} logits; a row is {up} bytes up, {down} down")
}

/// Has one row evaluated that is nobody's.
async fn round_trip(model: &mut RemoteModel<'_>) -> Result<String, Failure> {
    let row = middle(model.description());
    let answer = model.infer(&[row]).await?;
    let Timing { encrypt, exchange, receipt, decrypt } = answer.timing;
    let [encrypted, exchanged, checked, decrypted] = [encrypt, exchange, receipt, decrypt].map(ms);
    let (up, down) = answer.bytes;
    Ok(format!(
        "one row: encrypted in {encrypted}, answered in {exchanged}, receipt checked in {checked}, decrypted in {decrypted}; \
         {up} bytes up, {down} down"
    ))
}

/// The middle of each feature's range, which is on its grid if it has one.
fn middle(description: &Description) -> Vec<f64> {
    description.features().iter().map(|feature| f64::midpoint(feature.low, feature.high)).collect()
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
