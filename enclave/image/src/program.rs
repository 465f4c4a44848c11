//! `cloister-enclave-app`, built so that the same sources give the same bytes in any folder.
//!
//! Static, because the image holds no library; stripped, because symbols name folders; with the paths of the checkout and of
//! cargo's folder replaced, in Rust and in the C of aws-lc; with next to nothing of the caller's environment; and with no
//! configuration of cargo's that changes what is built. What still decides about the bytes is the Rust toolchain, the C
//! compiler, the linker and the C library: [`Tools`] says which they were, and each set of them has a target folder of its own.

use std::{
    env,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The only target so far: AWS's Graviton instances would need the kernel and measurements of their own.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";
const PACKAGE: &str = "cloister-enclave-app";
/// Separates flags in `CARGO_ENCODED_RUSTFLAGS`, which cargo takes before every other source of them.
const SEPARATOR: &str = "\u{1f}";

/// Where a build takes place. None of it shows in the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// The checkout.
    pub workspace: PathBuf,
    /// Cargo's target folder.
    pub target: PathBuf,
    /// Where cargo keeps the sources of dependencies.
    pub cargo_home: PathBuf,
}

impl Folders {
    /// For a checkout: a folder of its own target folder for these tools, and the cargo of whoever calls.
    pub fn of(workspace: &Path, tools: &Tools) -> Result<Self, ProgramError> {
        let workspace = workspace.canonicalize().map_err(ProgramError::at(workspace))?;
        let home = env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
        let cargo_home = home.ok_or(ProgramError::NoCargoHome)?;
        // Cargo does not build C again when its compiler has changed.
        let digest = Sha256::digest(format!("{tools:?}"));
        Ok(Self { target: workspace.join("target/image").join(hex::encode(&digest[..6])), workspace, cargo_home })
    }
}

/// What a build sees of the caller's environment: where things are, and how to reach crates.io.
const ENVIRONMENT: [&str; 3] = ["HOME", "PATH", "TMPDIR"];
const ENVIRONMENT_FAMILIES: [&str; 3] = ["CARGO_HTTP_", "CARGO_NET_", "RUSTUP_"];

/// Builds the program. Cargo's progress goes to stderr.
pub fn build(folders: &Folders) -> Result<Vec<u8>, ProgramError> {
    let Folders { workspace, target, cargo_home } = folders;
    if let Some(folder) = [workspace, cargo_home].into_iter().find(|folder| has_space(folder)) {
        return Err(ProgramError::Space { folder: folder.clone() });
    }
    check_configuration(workspace, cargo_home)?;
    let remap = [(workspace, "/cloister"), (cargo_home, "/cargo")].map(|(from, to)| format!("{}={to}", from.display()));
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned(), "-Cstrip=symbols".to_owned()];
    flags.extend(remap.iter().map(|pair| format!("--remap-path-prefix={pair}")));
    let c_flags: Vec<String> = remap.iter().map(|pair| format!("-ffile-prefix-map={pair}")).collect();

    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--locked", "--message-format=json-render-diagnostics"]);
    cargo.args(["-p", PACKAGE, "--target", TARGET, "--target-dir"]).arg(target);
    cargo.env_clear().envs(env::vars_os().filter(|(name, _)| is_passed_on(name)));
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join(SEPARATOR)).env("CFLAGS", c_flags.join(" "));
    cargo.env("CARGO_HOME", cargo_home);
    let output = run(cargo.current_dir(workspace).stderr(Stdio::inherit()))?;
    let executable = executable(&output.stdout).ok_or(ProgramError::Failed { command: "cargo build".to_owned() })?;
    fs::read(&executable).map_err(ProgramError::at(&executable))
}

fn is_passed_on(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    // curl's and git's, which cargo fetches with.
    let proxy = name.to_ascii_lowercase().ends_with("_proxy");
    proxy || ENVIRONMENT.contains(&name) || ENVIRONMENT_FAMILIES.iter().any(|family| name.starts_with(family))
}

/// Refuses configuration that changes what is built: cargo reads it in its own folder, in the checkout and above it.
fn check_configuration(workspace: &Path, cargo_home: &Path) -> Result<(), ProgramError> {
    // A mirror of crates.io (source) gives what Cargo.lock has digests of.
    const HARMLESS: [&str; 9] =
        ["alias", "cargo-new", "future-incompat-report", "http", "net", "registries", "registry", "source", "term"];
    let above = workspace.ancestors().map(|folder| folder.join(".cargo"));
    for folder in above.chain([cargo_home.to_owned()]) {
        for file in ["config", "config.toml"].map(|name| folder.join(name)) {
            let Ok(text) = fs::read_to_string(&file) else { continue };
            // What is not TOML, cargo refuses itself.
            let table: toml::Table = text.parse().unwrap_or_default();
            if let Some(key) = table.keys().find(|key| !HARMLESS.contains(&key.as_str())) {
                return Err(ProgramError::Configured { file, key: key.clone() });
            }
        }
    }
    Ok(())
}

/// CFLAGS is split at white space, and nothing quotes it.
fn has_space(folder: &Path) -> bool {
    folder.to_string_lossy().contains(char::is_whitespace)
}

/// The path of the program, from cargo's messages.
fn executable(messages: &[u8]) -> Option<PathBuf> {
    let lines = messages.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    lines.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).next_back()
}

/// What decides about the bytes, beside the sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    /// `rustc --version`; `rust-toolchain.toml` says which, unless rustup is told otherwise.
    pub rustc: String,
    /// The first line of `cc --version`.
    pub cc: String,
    /// The first line of `ld --version`.
    pub ld: String,
    /// `getconf GNU_LIBC_VERSION`.
    pub libc: String,
    /// SHA-256 of the C library that is linked in: distributions change it without another version.
    pub libc_sha256: String,
}

impl Tools {
    /// Those that [`build`] uses in `workspace`.
    pub fn of(workspace: &Path) -> Result<Self, ProgramError> {
        let line = |program: &str, argument: &str| {
            let output = run(Command::new(program).arg(argument).current_dir(workspace))?;
            let text = String::from_utf8_lossy(&output.stdout);
            Ok(text.lines().next().unwrap_or_default().to_owned())
        };
        let libc = PathBuf::from(line("cc", "-print-file-name=libc.a")?);
        Ok(Self {
            rustc: line("rustc", "--version")?,
            cc: line("cc", "--version")?,
            ld: line("ld", "--version")?,
            libc: line("getconf", "GNU_LIBC_VERSION")?,
            libc_sha256: hex::encode(Sha256::digest(fs::read(&libc).map_err(ProgramError::at(&libc))?)),
        })
    }
}

fn run(command: &mut Command) -> Result<Output, ProgramError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(ProgramError::at(Path::new(&name)))?;
    if output.status.success() { Ok(output) } else { Err(ProgramError::Failed { command: name }) }
}

/// The program was not built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// A file or program cannot be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A tool ended with an error, which it told itself.
    #[error("{command} failed")]
    Failed {
        /// Which.
        command: String,
    },
    /// A configuration file of cargo's would change the program.
    #[error("{} sets {key:?}, which may change what is built: move it away, or set CARGO_HOME to another folder", file.display())]
    Configured {
        /// Which.
        file: PathBuf,
        /// What it sets.
        key: String,
    },
    /// A folder that flags of the C compiler cannot name.
    #[error("{} has white space in its path, which CFLAGS cannot carry: use another folder", folder.display())]
    Space {
        /// Which.
        folder: PathBuf,
    },
    /// The sources of dependencies are nowhere.
    #[error(
        "neither CARGO_HOME nor a home folder is set: where cargo keeps its sources has to be known, to be left out"
    )]
    NoCargoHome,
}

impl ProgramError {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cflags_cannot_name_is_refused() {
        let [workspace, target, cargo_home] = ["/my code", "/target", "/cargo"].map(PathBuf::from);
        let refused = build(&Folders { workspace, target, cargo_home });
        assert!(matches!(refused, Err(ProgramError::Space { folder }) if folder == Path::new("/my code")));
    }

    #[test]
    fn next_to_nothing_of_the_environment_is_passed_on() {
        for name in ["PATH", "HOME", "CARGO_NET_RETRY", "CARGO_HTTP_TIMEOUT", "https_proxy", "RUSTUP_TOOLCHAIN"] {
            assert!(is_passed_on(name.as_ref()), "{name}");
        }
        for name in [
            "RUSTFLAGS",
            "CARGO_INCREMENTAL",
            "CARGO_PROFILE_RELEASE_LTO",
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER",
            "RUSTC_WRAPPER",
            "HOST_CC",
            "CPATH",
            "AWS_LC_SYS_CFLAGS",
            "LANG",
        ] {
            assert!(!is_passed_on(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn configuration_that_changes_a_build_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (workspace, cargo_home) = (folder.path().join("a/checkout"), folder.path().join("home"));
        fs::create_dir_all(folder.path().join("a/.cargo")).unwrap();
        fs::create_dir_all(&cargo_home).unwrap();
        let checked = || check_configuration(&workspace, &cargo_home);
        fs::write(cargo_home.join("config.toml"), "[net]\nretry = 9\n[source.crates-io]\nreplace-with = 'mirror'")
            .unwrap();
        checked().unwrap();
        fs::write(cargo_home.join("config.toml"), "[profile.release]\nlto = false").unwrap();
        assert!(matches!(checked(), Err(ProgramError::Configured { key, .. }) if key == "profile"));
        fs::remove_file(cargo_home.join("config.toml")).unwrap();
        fs::write(folder.path().join("a/.cargo/config"), "[env]\nCC = 'clang'").unwrap();
        assert!(matches!(checked(), Err(ProgramError::Configured { key, .. }) if key == "env"));
    }
}
