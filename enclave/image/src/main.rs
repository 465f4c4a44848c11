//! `cargo image`: builds an enclave's image and says what it measures.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, bail};
use clap::Parser;
use cloister_image::{
    COMMAND_LINE, Image, Settings, kernel,
    program::{self, Folders, Tools},
};
use cloister_inference::Bundle;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Build the image of an enclave that serves these models, and its measurements
///
/// Writes to the folder OUT: cloister.eif, which nitro-cli and QEMU boot; measurements.json, which `cloister policy add`
/// reads; and cloister-enclave-app, the program that is in the image. The same sources, kernel, models and tools give
/// the same bytes in any folder: measurements.json names the tools.
#[derive(Debug, Parser)]
#[command(name = "cargo image --", version, after_help = EXAMPLE)]
struct Arguments {
    /// The kernel, a bzImage that this repository pins; enclave/image/kernel/build.sh builds it
    #[arg(long, value_name = "BZIMAGE")]
    kernel: PathBuf,
    /// Model bundles to serve
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    model: Vec<PathBuf>,
    /// The folder to write to; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The settings of the enclave's program, JSON; measured. Without them: {"v":1,"max_connections":256}
    #[arg(long, value_name = "FILE", conflicts_with = "max_connections")]
    settings: Option<PathBuf>,
    /// Connections that the enclave serves at once, 1 to 900; measured
    #[arg(long, value_name = "NUMBER", default_value_t = 256,
        value_parser = clap::value_parser!(u16).range(1..=i64::from(Settings::MAX_CONNECTIONS)))]
    max_connections: u16,
}

const EXAMPLE: &str = "\
Example:
  cargo image -- --kernel bzImage --model iris.cloister --out image
  cloister policy add policy.toml --measurements image/measurements.json --name 1.0.0 --model iris.cloister";

fn main() -> ExitCode {
    match build(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn build(Arguments { kernel, model, out, settings, max_connections }: &Arguments) -> anyhow::Result<()> {
    // What is quick to refuse is read before minutes of compilation.
    let models = models(model)?;
    let kernel_bytes = read(kernel)?;
    let text = settings.as_ref().map(|file| fs::read_to_string(file).with_context(|| file.display().to_string()));
    let image_settings = text.transpose()?.map_or_else(|| Settings::with_connections(*max_connections), Settings);
    let pinned = kernel::identify(&kernel_bytes).with_context(|| kernel.display().to_string())?;
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;

    eprintln!("building cloister-enclave-app; the first time takes some minutes …");
    let workspace = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let tools = Tools::of(workspace)?;
    let program = program::build(&Folders::of(workspace, &tools)?)?;
    let program_file = out.join("cloister-enclave-app");
    write(&program_file, &program)?;
    fs::set_permissions(&program_file, Permissions::from_mode(0o755))
        .with_context(|| program_file.display().to_string())?;
    if let Some(file) = settings {
        check(&program_file, file, out)?;
    }
    let image = Image::assemble(&kernel_bytes, &program, &image_settings, &models.iter().collect::<Vec<_>>());

    let measurements = json!({
        "Measurements": image.measurements.to_json(),
        "Build": {
            "kernel": pinned.name,
            "kernel_sha256": pinned.sha256,
            "command_line": COMMAND_LINE,
            "program_sha256": sha256(&program),
            "settings": image_settings.0,
            "models": models.iter().map(named).collect::<Vec<_>>(),
            "eif_sha256": sha256(&image.eif),
            "rustc": tools.rustc,
            "cc": tools.cc,
            "ld": tools.ld,
            "libc": tools.libc,
            "libc_sha256": tools.libc_sha256,
        },
    });
    let (eif_file, measurements_file) = (out.join("cloister.eif"), out.join("measurements.json"));
    write(&eif_file, &image.eif)?;
    write(&measurements_file, format!("{measurements:#}\n").as_bytes())?;

    println!("{}  {} bytes", eif_file.display(), image.eif.len());
    println!("{}", measurements_file.display());
    for (index, pcr) in image.measurements.0.iter().enumerate() {
        println!("PCR{index}  {}", hex::encode(pcr));
    }
    Ok(())
}

/// Has the program say whether it could serve with these settings, before an enclave does by ending.
fn check(program: &Path, settings: &Path, folder: &Path) -> anyhow::Result<()> {
    let mut run = Command::new(program);
    run.arg("--check").arg("--settings").arg(settings).arg("--models").arg(folder);
    let output = run.output().with_context(|| program.display().to_string())?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim().trim_start_matches("error: "));
    }
    Ok(())
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn named(model: &Bundle) -> Value {
    json!({ "name": model.name(), "version": model.version(), "digest": format!("sha384:{}", hex::encode(model.digest())) })
}

/// Reads the bundles. Two of one name and version would be one file in the image.
fn models(paths: &[PathBuf]) -> anyhow::Result<Vec<Bundle>> {
    let mut models: Vec<Bundle> = Vec::new();
    for path in paths {
        let model = Bundle::from_bytes(&read(path)?).with_context(|| path.display().to_string())?;
        if models.iter().any(|other| (other.name(), other.version()) == (model.name(), model.version())) {
            let (path, version, name) = (path.display(), model.version(), model.name());
            bail!("{path}: another bundle is version {version:?} of {name:?}, too: import one with another --version");
        }
        models.push(model);
    }
    models.sort_by(|one, other| (one.name(), one.version()).cmp(&(other.name(), other.version())));
    Ok(models)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    fs::write(path, bytes).with_context(|| path.display().to_string())
}
