//! `cloister verify-receipt`

use std::path::PathBuf;

use clap::Args;
use cloister_attestation::{ArchivedEnclave, Channel, Evidence, Policy, Receipt, Timestamp};
use serde_json::{Value, json};

use super::{
    EvaluatorArguments,
    configuration::Settings,
    failure::Failure,
    files,
    output::{Detail, Output, foreign, label},
    text::wrapped,
};

/// Verify the receipts in an evidence file, offline
///
/// Says which image and which model answered which request, when and where; and what that does not prove. The steps are
/// numbered as in attestation/VERIFICATION.md.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VerifyReceipt {
    /// Evidence, as `cloister infer --evidence` writes it
    evidence: PathBuf,
    /// The policy that the enclave must satisfy
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    #[command(flatten)]
    detail: Detail,
}

const EXAMPLES: &str = "\
Examples:
  cloister verify-receipt evidence.cbor --policy policy.toml
  cloister verify-receipt evidence.cbor --policy policy.toml -v
  cloister verify-receipt evidence.cbor --policy policy.toml --json | jq .receipts";

impl VerifyReceipt {
    pub(crate) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        output.detail(self.detail);
        let arguments = EvaluatorArguments { policy: self.policy.clone(), ..EvaluatorArguments::default() };
        let settings = Settings::load(&arguments)?;
        settings.show(output);
        let policy = settings.policy()?;
        let bytes = files::read(&self.evidence)?;
        let evidence = Evidence::from_cbor(&bytes)?;
        let enclave = evidence.verify(&policy, Timestamp::now())?;

        output.simulated(enclave.simulated());
        output.set("verified", true);
        output.steps(enclave.steps());
        let simulated = label(enclave.simulated());
        let count = match enclave.receipts().len() {
            1 => "1 receipt".to_owned(),
            more => format!("{more} receipts"),
        };
        output.line(format!("\n{simulated}VERIFIED: {count}\n\nThis enclave"));
        show_enclave(&enclave, &policy, output);
        output.line("answered");
        show_receipts(&enclave, output);
        show_limits(&enclave, output);
        Ok(())
    }
}

/// Who answered: the image, where it ran, and how it was reached.
fn show_enclave(enclave: &ArchivedEnclave, policy: &Policy, output: &mut Output) {
    let (module_id, region) = (enclave.module_id(), enclave.document().region());
    let time = enclave.timestamp().to_string();
    let channel = match enclave.channel() {
        Channel::TlsExporter(_) => "TLS that ended in the enclave",
        Channel::None => "none: TLS ended before the enclave",
    };
    output.line(format!("  release   {}", enclave.release()));
    let mut pcrs = json!({});
    for (index, value) in enclave.document().pcrs().iter().take_while(|(index, _)| *index <= 2) {
        let value = hex::encode(value);
        output.line(format!("  PCR{index}\n    {value}"));
        pcrs[format!("pcr{index}")] = value.into();
    }
    let (id, place) = (foreign(module_id), foreign(region));
    output.line(format!("  enclave   {id}\n  region    {place}\n  attested  {time}\n  channel   {channel}"));
    let same = enclave.recorded_policy() == policy.digest();
    output.line(format!("  client's policy, by its own word: {}", if same { "this one" } else { "another" }));

    output.set("release", enclave.release());
    output.set("pcrs", pcrs);
    output.set("module_id", module_id);
    output.set("region", region);
    output.set("document_time", time);
    output.set("channel", enclave.channel().name());
    output.set("recorded_policy", enclave.recorded_policy().to_string());
    output.set("recorded_policy_is_this", same);
}

/// What was answered, by which model, when; numbered as errors number them.
fn show_receipts(enclave: &ArchivedEnclave, output: &mut Output) {
    let mut receipts: Vec<Value> = Vec::new();
    for (index, receipt) in enclave.receipts().iter().enumerate() {
        let Receipt { request, response, bundle, parameters, module_id: _, time } = receipt;
        let models: Vec<&str> = enclave.models(*bundle).into_iter().map(|model| model.name.as_str()).collect();
        let names: Vec<String> = models.iter().copied().map(foreign).collect();
        output.line(format!(
            "  receipt {index}, {time}\n  model     {}, parameters {}\n    {bundle}\n  request\n    {request}\n  \
             response\n    {response}",
            names.join(" = "),
            foreign(parameters)
        ));
        receipts.push(json!({
            "time": time.to_string(),
            "models": models,
            "request": request.to_string(),
            "response": response.to_string(),
            "bundle": bundle.to_string(),
            "parameters": parameters,
        }));
    }
    output.set("receipts", receipts);
}

/// What nobody should read into a receipt.
fn show_limits(enclave: &ArchivedEnclave, output: &mut Output) {
    let limits = not_proved(enclave);
    output.line("\nThis does not prove");
    for limit in &limits {
        output.line(wrapped("  - ", limit));
    }
    output.set("not_proved", limits);
}

fn not_proved(enclave: &ArchivedEnclave) -> Vec<&'static str> {
    let mut limits = vec![
        "that the data was true, or what it was: the digests are of ciphertexts, which only the client can tie to values",
        "who asked",
        "that no other answer was given, to this request or another",
        "that the receipts are of one connection: the enclave signs all answers of one boot with the same key",
        "that an answer is fresh: the nonce was for the client that connected, and is not compared here",
        "that the policy was in force when the answer was given: it is judged now",
    ];
    if enclave.channel() == Channel::None {
        limits.push("that TLS ended in the enclave: the client asked for a connection without an attested channel");
    }
    if enclave.simulated() {
        limits.push("anything about hardware: the enclave is SIMULATED");
    }
    limits
}
