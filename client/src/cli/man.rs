//! `cloister man`

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Args, Command, CommandFactory, ValueHint};
use clap_mangen::{
    Man as Page,
    roff::{Roff, roman},
};
use serde_json::Value;

use super::{Arguments, failure::Failure, output::Output};

/// Write manual pages, one for each command
///
/// Without a folder, the page of `cloister` goes to stdout.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Man {
    /// The folder for all pages; those that are there are written anew
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    folder: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  cloister man | man -l -
  cloister man ~/.local/share/man/man1        (then: man cloister-infer)";

impl Man {
    pub(crate) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let mut top = Arguments::command().disable_help_subcommand(true);
        top.build();
        let Some(folder) = &self.folder else {
            let page = page(&top).map_err(|error| Failure::internal(&error))?;
            output.verbatim("page", &String::from_utf8_lossy(&page));
            return Ok(());
        };
        fs::create_dir_all(folder).map_err(|error| Failure::file(folder, &error))?;
        let mut written = Vec::new();
        write_all(&top, folder, &mut written)?;
        for path in &written {
            output.line(path.display());
        }
        output.set("pages", written.iter().map(|path| path.display().to_string()).collect::<Value>());
        Ok(())
    }
}

/// Writes the page of a command, and those of the commands below it.
fn write_all(command: &Command, folder: &Path, written: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let path = folder.join(Page::new(command.clone()).get_filename());
    let page = page(command).map_err(|error| Failure::internal(&error))?;
    fs::write(&path, page).map_err(|error| Failure::file(&path, &error))?;
    written.push(path);
    command.get_subcommands().try_for_each(|below| write_all(below, folder, written))
}

/// The page of a command: what its help says, section by section.
fn page(command: &Command) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let source = format!("cloister {}", env!("CARGO_PKG_VERSION"));
    let page = Page::new(command.clone()).source(source).manual("Cloister");
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if command.has_subcommands() {
        page.render_subcommands_section(&mut text)?;
    }
    let further = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    for (heading, lines) in further.split("\n\n").filter_map(|block| block.split_once(":\n")) {
        section(heading, lines).to_writer(&mut text)?;
    }
    if command.get_name() != "cloister" {
        section("See also", "cloister(1): exit codes, configuration").to_writer(&mut text)?;
    }
    Ok(text)
}

/// A block of the help's end. Its lines are laid out already.
fn section(heading: &str, lines: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [heading.to_uppercase().as_str()]).control("nf", []);
    for line in lines.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    roff
}
