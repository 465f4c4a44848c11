//! `cargo measure`: every figure that the project quotes. A table for people, or one JSON object a line.

mod attestation;
mod image;
mod limits;
mod linear;
mod machine;
mod plaintext;
mod service;
mod serving;
mod trees;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use serde_json::json;

/// Measure Cloister: every figure that the project quotes comes from here
#[derive(Debug, Parser)]
#[command(
    name = "cargo measure --",
    version,
    after_help = "Groups: attestation, image, limits, linear, service, serving, trees. Without any, all of them. Group image builds a second time, for minutes."
)]
struct Arguments {
    /// One JSON object a line on stdout: id, value, unit, machine
    #[arg(long)]
    json: bool,
    /// What to measure
    #[arg(value_name = "GROUP")]
    groups: Vec<String>,
    /// Serve plain floats: the baseline that encrypted requests are compared with
    #[arg(long, hide = true)]
    plaintext_service: bool,
    /// Be a client through an intermediary: a policy, a kind and a URL
    #[arg(long, hide = true, num_args = 3)]
    relayed_client: Vec<String>,
}

const GROUPS: [&str; 7] = ["attestation", "image", "limits", "linear", "service", "serving", "trees"];
const USAGE: u8 = 2;

/// One figure.
#[derive(Clone, Debug)]
struct Figure {
    id: String,
    value: f64,
    unit: &'static str,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(unknown) = arguments.groups.iter().find(|group| !GROUPS.contains(&group.as_str())) {
        eprintln!("error: there is no group {unknown:?}; groups: {}", GROUPS.join(", "));
        return ExitCode::from(USAGE);
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.plaintext_service {
        return plaintext::serve();
    }
    if !arguments.relayed_client.is_empty() {
        return serving::run_client(&arguments.relayed_client);
    }
    let machine = machine::describe();
    if !arguments.json {
        println!("{}, {} core used, {}, commit {}", machine.cpu, machine.cores_used, machine.rustc, machine.commit);
    }
    for group in GROUPS {
        if !arguments.groups.is_empty() && !arguments.groups.iter().any(|asked| asked == group) {
            continue;
        }
        eprintln!("measuring {group} …");
        let figures = match group {
            "attestation" => attestation::measure()?,
            "image" => image::measure()?,
            "limits" => limits::measure()?,
            "linear" => linear::measure()?,
            "service" => service::measure()?,
            "serving" => serving::measure()?,
            _ => trees::measure()?,
        };
        for Figure { id, value, unit } in figures {
            if arguments.json {
                println!("{}", json!({"id": id, "value": value, "unit": unit, "machine": machine.to_json()}));
            } else {
                println!("{id:<36} {value:>14.6} {unit}");
            }
        }
    }
    Ok(())
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Microseconds that `work` takes.
fn microseconds<T>(work: impl FnOnce() -> T) -> f64 {
    let started = Instant::now();
    std::hint::black_box(work());
    started.elapsed().as_secs_f64() * 1e6
}

/// The median of samples; the upper one of two.
fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
