//! The Python package, as its users get it: built into a wheel, installed, and held to its own tests in `python/tests`.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use cloister_e2e::{
    build::{executable, workspace},
    python::Python,
    world::{Link, World},
};
use tempfile::TempDir;

/// The package, installed into a folder of its own.
struct Package {
    python: Python,
    folder: TempDir,
}

impl Package {
    fn install(python: Python) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let wheels = folder.path().join("wheels");
        let mut maturin = python.command();
        maturin.args([
            "-m",
            "maturin",
            "build",
            "--quiet",
            "--locked",
            "--manifest-path",
            "python/Cargo.toml",
            "--out",
        ]);
        if !cfg!(debug_assertions) {
            maturin.arg("--release");
        }
        run(maturin.arg(&wheels).current_dir(workspace()));
        let wheel = only_file(&wheels);
        assert!(wheel.to_string_lossy().contains("-cp311-abi3-"), "{}: for every Python from 3.11 on", wheel.display());
        let package = Self { python, folder };
        let pip = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target"];
        run(package.python.command().args(pip).arg(package.site()).arg(wheel));
        package
    }

    fn site(&self) -> PathBuf {
        self.folder.path().join("site")
    }

    /// A command of a Python that finds the package, and writes nothing beside its sources.
    fn command(&self) -> Command {
        let mut command = self.python.command();
        command.env("PYTHONPATH", self.site()).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

fn only_file(folder: &Path) -> PathBuf {
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

/// Runs a command to its end, and gives what it wrote to stdout.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{command:?}\n{stdout}{stderr}");
    stdout
}

#[test]
fn the_package_passes_its_tests_and_needs_numpy_alone() {
    let Some(python) = Python::find().unwrap() else { return };
    let package = Package::install(python);
    let [enclave, proxy] =
        ["cloister-simulated-enclave", "cloister-parent-proxy"].map(|name| executable(name).unwrap());
    let tests = package
        .command()
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "python/tests"])
        .envs([("CLOISTER_TEST_ENCLAVE", enclave), ("CLOISTER_TEST_PROXY", proxy)])
        .current_dir(workspace())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&tests.stdout).into_owned();
    assert!(tests.status.success(), "{told}{}", String::from_utf8_lossy(&tests.stderr));
    assert!(told.contains(" passed") && !told.contains("skipped"), "{told}");

    // Beside it and the standard library, nothing but numpy is to be found.
    let numpy = run(package.command().args(["-c", "import numpy; print(numpy.__path__[0])"]));
    let numpy = Path::new(numpy.trim());
    for folder in [numpy, &numpy.with_file_name("numpy.libs")] {
        let name = folder.file_name().and_then(OsStr::to_str).unwrap();
        std::os::unix::fs::symlink(folder, package.site().join(name)).unwrap();
    }
    let world = World::start(Link::Tcp).unwrap();
    let lines = "import sys, cloister\n\
                 client = cloister.Client(sys.argv[1], policy=sys.argv[2])\n\
                 print(*client.predict([[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]]))";
    let session = [world.endpoint.to_string(), world.policy_file().display().to_string()];
    let labels = run(package.command().args(["-S", "-c", lines]).args(session));
    assert_eq!(labels.trim(), "setosa virginica");
}

#[test]
fn the_notebook_runs_with_the_package() {
    let Some(python) = Python::find().unwrap() else { return };
    let package = Package::install(python);
    let programs = ["cloister-simulated-enclave", "cloister-parent-proxy"].map(|name| executable(name).unwrap());
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = programs.iter().filter_map(|program| program.parent()).map(Path::to_owned);
    let path = env::join_paths(folders.chain(env::split_paths(&path))).unwrap();
    let told =
        run(package.command().args(["python/examples/rerun.py", "--check"]).env("PATH", path).current_dir(workspace()));
    assert!(told.contains("cells ran"), "{told}");
}
