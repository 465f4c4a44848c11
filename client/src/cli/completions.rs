//! `cloister completions`

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Arguments, output::Output};

/// Write the script by which a shell completes commands, options and files
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  cloister completions bash > ~/.local/share/bash-completion/completions/cloister
  cloister completions fish > ~/.config/fish/completions/cloister.fish
  cloister completions elvish >> ~/.config/elvish/rc.elv
  cloister completions powershell >> $PROFILE
  cloister completions zsh > ~/.zfunc/_cloister
      (~/.zshrc then says `fpath+=~/.zfunc`, before it calls `compinit`)";

impl Completions {
    pub(crate) fn run(&self, output: &mut Output) {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "cloister", &mut script);
        output.verbatim("script", &String::from_utf8_lossy(&script));
    }
}
