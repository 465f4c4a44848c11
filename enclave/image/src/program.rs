//! `cloister-enclave-app`, built so that the same sources give the same bytes in any folder.
//!
//! Static, because the image holds no library; stripped, because symbols name folders; and with the paths of the checkout
//! and of cargo's folder replaced, in Rust and in the C of aws-lc. What still decides about the bytes is the toolchain
//! (`rust-toolchain.toml` pins rustc), the C compiler and the C library: [`Tools`] says which they were.

use std::{
    env,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// The only target so far: AWS's Graviton instances would need the kernel and measurements of their own.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";
const PACKAGE: &str = "cloister-enclave-app";
/// Separates flags in `CARGO_ENCODED_RUSTFLAGS`, so that paths may have spaces.
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
    /// For a checkout: its own target folder, and the cargo of whoever calls.
    pub fn of(workspace: &Path) -> Result<Self, ProgramError> {
        let workspace = workspace.canonicalize().map_err(ProgramError::at(workspace))?;
        let home = env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
        let cargo_home = home.ok_or(ProgramError::NoCargoHome)?;
        Ok(Self { target: workspace.join("target/image"), workspace, cargo_home })
    }
}

/// Builds the program.
///
/// Cargo's progress goes to stderr. Settings of the caller's environment that change what is built are not passed on.
pub fn build(folders: &Folders) -> Result<Vec<u8>, ProgramError> {
    let Folders { workspace, target, cargo_home } = folders;
    if let Some(folder) = [workspace, cargo_home].into_iter().find(|folder| has_space(folder)) {
        return Err(ProgramError::Space { folder: folder.clone() });
    }
    let remap = [(workspace, "/cloister"), (cargo_home, "/cargo")].map(|(from, to)| format!("{}={to}", from.display()));
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned(), "-Cstrip=symbols".to_owned()];
    flags.extend(remap.iter().map(|pair| format!("--remap-path-prefix={pair}")));
    let c_flags: Vec<String> = remap.iter().map(|pair| format!("-ffile-prefix-map={pair}")).collect();

    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--locked", "--message-format=json-render-diagnostics"]);
    cargo.args(["-p", PACKAGE, "--target", TARGET, "--target-dir"]).arg(target);
    for (name, _) in env::vars_os().filter(|(name, _)| changes_the_build(name)) {
        cargo.env_remove(name);
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join(SEPARATOR)).env("CFLAGS", c_flags.join(" "));
    cargo.env("CARGO_HOME", cargo_home);
    let output = run(cargo.current_dir(workspace).stderr(Stdio::inherit()))?;
    let executable = executable(&output.stdout).ok_or(ProgramError::Failed { command: "cargo build".to_owned() })?;
    fs::read(&executable).map_err(ProgramError::at(&executable))
}

/// CFLAGS is split at white space, and nothing quotes it.
fn has_space(folder: &Path) -> bool {
    folder.to_string_lossy().contains(char::is_whitespace)
}

/// Whether cargo, rustc or cc-rs would heed a variable of this name.
fn changes_the_build(name: &OsStr) -> bool {
    const PREFIXES: [&str; 8] =
        ["AR", "AWS_LC_", "CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "CC", "CXX", "RUSTC"];
    let Some(name) = name.to_str() else { return false };
    // cc-rs adds the target's name to either side of CFLAGS.
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || name.contains("FLAGS")
}

/// The path of the program, from cargo's messages.
fn executable(messages: &[u8]) -> Option<PathBuf> {
    let lines = messages.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    lines.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).next_back()
}

/// What decides about the bytes, beside the sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    /// `rustc --version`, of the pinned toolchain.
    pub rustc: String,
    /// The first line of `cc --version`.
    pub cc: String,
    /// `getconf GNU_LIBC_VERSION`.
    pub libc: String,
}

impl Tools {
    /// Those that [`build`] uses in `workspace`.
    pub fn of(workspace: &Path) -> Result<Self, ProgramError> {
        let line = |program: &str, argument: &str| {
            let output = run(Command::new(program).arg(argument).current_dir(workspace))?;
            let text = String::from_utf8_lossy(&output.stdout);
            Ok(text.lines().next().unwrap_or_default().to_owned())
        };
        Ok(Self {
            rustc: line("rustc", "--version")?,
            cc: line("cc", "--version")?,
            libc: line("getconf", "GNU_LIBC_VERSION")?,
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
    fn what_changes_a_build_is_not_passed_on() {
        for name in [
            "RUSTFLAGS",
            "CARGO_PROFILE_RELEASE_LTO",
            "CARGO_BUILD_RUSTFLAGS",
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER",
            "RUSTC_WRAPPER",
            "CC",
            "CC_x86_64_unknown_linux_gnu",
            "HOST_CFLAGS",
            "AWS_LC_SYS_CFLAGS",
        ] {
            assert!(changes_the_build(name.as_ref()), "{name}");
        }
        for name in ["PATH", "HOME", "CARGO_HOME", "CARGO_NET_RETRY", "CARGO_HTTP_PROXY", "RUSTUP_TOOLCHAIN"] {
            assert!(!changes_the_build(name.as_ref()), "{name}");
        }
    }
}
