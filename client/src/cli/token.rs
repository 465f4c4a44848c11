//! `cloister token`

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use clap::Args;

use super::{failure::Failure, output::Output};

/// Make a bearer token, by which an enclave knows its client
///
/// Writes the token to a new file that nobody else may read, and prints its digest. The operator puts the digest, and never the
/// token, into the settings that the enclave's image measures:
///
///   "clients": [{"name": "hospital-a", "token": "sha384:…", "budget": {"requests_per_minute": 600}}]
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, verbatim_doc_comment)]
pub(crate) struct Token {
    /// The file to write; an existing one is not overwritten
    file: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  cloister token token.txt
  cloister infer https://evaluator.example:8443 --policy policy.toml --token-file token.txt \\
      --model iris --in rows.csv";

impl Token {
    pub(crate) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let token = cloister_client::Token::generate();
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&self.file);
        file.and_then(|mut file| writeln!(file, "{}", token.text())).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => Failure::bad_input(
                "file",
                format!("{} exists, and is not overwritten", self.file.display()),
                "Choose another name.",
            ),
            _ => Failure::file(&self.file, &error),
        })?;
        let digest = token.digest().to_string();
        output.line(format!("{}: keep it secret. For the enclave's settings:\n  {digest}", self.file.display()));
        output.set("token_digest", digest);
        Ok(())
    }
}
