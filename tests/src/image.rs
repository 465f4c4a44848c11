//! Images of the enclave, as `cargo image` builds them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, ensure};
use cloister_image::program::{self, Folders};
use cloister_inference::Bundle;
use tempfile::TempDir;

use crate::build;

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
pub fn program() -> anyhow::Result<Vec<u8>> {
    // Tests of one process that build at a time would wait for each other in cargo, and say so.
    static BUILDING: Mutex<()> = Mutex::new(());
    let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(program::build(&Folders::of(&build::workspace())?)?)
}
