//! Images of the enclave, as `cargo image` builds them.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

use anyhow::{Context, ensure};
use cloister_attestation::{Policy, PolicyModel, Release, Sha384, Timestamp};
use cloister_image::{
    Measurements,
    program::{self, Folders, Tools},
};
use cloister_inference::Bundle;
use cloister_simulated_enclave::Authority;
use tempfile::TempDir;

use crate::{build, cli::DAY, hostile::BUNDLE};

/// An image in a folder of its own.
#[derive(Debug)]
pub struct BuiltImage {
    folder: TempDir,
}

impl BuiltImage {
    /// Runs `cargo image`.
    pub fn build(kernel: &Path, models: &[&Bundle]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(build::executable("cloister-image")?);
        command.arg("--kernel").arg(kernel).arg("--out").arg(folder.path()).arg("--model");
        for (index, model) in models.iter().enumerate() {
            let path = folder.path().join(format!("{index}.cloister"));
            fs::write(&path, model.to_bytes())?;
            command.arg(path);
        }
        let output = command.stderr(Stdio::inherit()).output().context("running cargo image")?;
        ensure!(output.status.success(), "cargo image failed");
        Ok(Self { folder })
    }

    /// The image.
    pub fn eif(&self) -> PathBuf {
        self.folder.path().join("cloister.eif")
    }

    /// `measurements.json`.
    pub fn measurements(&self) -> PathBuf {
        self.folder.path().join("measurements.json")
    }
}

/// The program of every image, built in this checkout as `cargo image` does.
pub static PROGRAM: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let folders = folders().expect("there are tools, and cargo has a home");
    program::build(&folders).expect("the program builds")
});

/// A policy for a day that accepts these registers of enclaves of `authority`, and the Iris model.
pub fn accepting(authority: &Authority, Measurements(pcrs): Measurements) -> Policy {
    let mut policy = Policy::new(Timestamp::now().plus(DAY)).with_root(authority.root());
    let release = Release { name: "1.0.0".to_owned(), pcrs, not_after: None, revoked: None };
    policy.add_release(release).expect("a digest is not all zeros");
    let model = PolicyModel { name: BUNDLE.name().to_owned(), digest: Sha384(BUNDLE.digest()) };
    policy.add_model(model).expect("the first of its name");
    policy
}

/// The program once more, built from a copy of this checkout in another folder, with cargo's folder under another name.
/// It shares the tools and the sources of dependencies with the first build, and nothing that was built.
pub fn program_from_elsewhere() -> anyhow::Result<Vec<u8>> {
    let here = folders()?;
    let folder = tempfile::Builder::new().prefix("another-checkout-in-a-folder-of-another-length-").tempdir()?;
    let elsewhere = Folders {
        workspace: folder.path().join("cloister"),
        target: folder.path().join("build"),
        cargo_home: folder.path().join("home"),
    };
    copy(&here.workspace, &elsewhere.workspace)?;
    symlink(&here.cargo_home, &elsewhere.cargo_home)?;
    Ok(program::build(&elsewhere)?)
}

fn folders() -> anyhow::Result<Folders> {
    let workspace = build::workspace();
    Ok(Folders::of(&workspace, &Tools::of(&workspace)?)?)
}

/// Copies a checkout, without what was built in it and without its history.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        if name == "target" || name == ".git" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            copy(&path, &to.join(name))?;
        } else {
            fs::copy(&path, to.join(name)).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}
