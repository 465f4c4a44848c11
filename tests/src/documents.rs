//! Documents, and sessions in which their commands are run as a reader runs them.

use std::{
    collections::BTreeMap,
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

use crate::{
    build::{executable, workspace},
    process::Process,
};

/// A document in Markdown, as far as these tests read it.
#[derive(Debug, Default)]
pub struct Document {
    /// What is no code.
    pub prose: String,
    /// What is, block by block.
    pub blocks: Vec<Block>,
}

/// A block of code in a document.
#[derive(Debug)]
pub struct Block {
    /// What its fence says that it is; nothing of one that is indented.
    pub language: Option<String>,
    /// What it says, without the indentation.
    pub text: String,
}

impl Document {
    /// Reads one of this repository.
    pub fn read(path: &str) -> anyhow::Result<Self> {
        Ok(Self::parse(&fs::read_to_string(workspace().join(path)).with_context(|| path.to_owned())?))
    }

    /// Tells code from text: fenced, or indented after an empty line or a heading.
    pub fn parse(markdown: &str) -> Self {
        let mut document = Self::default();
        let mut open: Option<Block> = None;
        let mut after_gap = true;
        for line in markdown.lines() {
            let fence = line.strip_prefix("```");
            let indented = line.strip_prefix("    ");
            match (&mut open, fence, indented) {
                (Some(Block { language: Some(_), .. }), Some(_), _) => document.blocks.extend(open.take()),
                (Some(block @ Block { language: Some(_), .. }), None, _) => block.push(line),
                (Some(block), _, Some(code)) => block.push(code),
                (_, Some(language), _) => document.blocks.extend(open.replace(Block::new(Some(language)))),
                // What is indented right under a line of text goes on with it.
                (None, None, Some(code)) if after_gap => open.insert(Block::new(None)).push(code),
                _ => {
                    document.blocks.extend(open.take());
                    document.prose += &format!("{line}\n");
                }
            }
            after_gap = line.is_empty() || line.starts_with('#');
        }
        document.blocks.extend(open);
        document
    }

    /// Its commands.
    pub fn commands(&self) -> Vec<String> {
        self.blocks.iter().flat_map(Block::commands).collect()
    }

    /// What it names as code within its text.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.prose.split('`').skip(1).step_by(2)
    }

    /// Where its links lead, in this repository or on the network.
    pub fn links(&self) -> Vec<&str> {
        let beside = self.prose.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
        let below = self.prose.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: "));
        // A footnote is no link.
        beside.chain(below.map(|(_, target)| target).filter(|target| !target.contains(' '))).collect()
    }

    /// The names by which links reach its headings, as GitHub makes them.
    pub fn anchors(&self) -> Vec<String> {
        let headings = self.prose.lines().filter(|line| line.starts_with('#'));
        headings.fold(Vec::new(), |mut anchors: Vec<String>, heading| {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
            let anchor: String = kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect();
            let mut numbered = (1..).map(|number| format!("{anchor}-{number}"));
            let free = |name: &String| !anchors.contains(name);
            let unique = Some(anchor.clone()).filter(free).or_else(|| numbered.find(free));
            anchors.extend(unique);
            anchors
        })
    }
}

impl Block {
    fn new(language: Option<&str>) -> Self {
        Self { language: language.map(str::to_owned), text: String::new() }
    }

    fn push(&mut self, line: &str) {
        self.text += &format!("{line}\n");
    }

    /// Its commands; none if its fence names another language than the shell's. A command goes on after `\`, and up to the
    /// end of what it is given to read (`<<END`).
    fn commands(&self) -> Vec<String> {
        if self.language.as_deref().is_some_and(|language| language != "sh") {
            return Vec::new();
        }
        let mut commands = Vec::new();
        let mut lines = self.text.lines();
        while let Some(line) = lines.next() {
            let mut command = line.to_owned();
            let end = line.split_once("<<").map(|(_, end)| end);
            while command.ends_with('\\') || end.is_some_and(|end| command.lines().next_back() != Some(end)) {
                let Some(line) = lines.next() else { break };
                command += &format!("\n{line}");
            }
            commands.push(command);
        }
        commands
    }
}

/// What a reader has in front of him: a folder that looks like this repository, a shell, and servers in other terminals.
#[derive(Debug)]
pub struct Session {
    folder: TempDir,
    ports: BTreeMap<String, u16>,
    servers: Vec<Process>,
}

impl Session {
    /// Folders of the repository that commands read.
    const READ: [&str; 3] = ["tests", "enclave", "fuzz/corpus"];

    /// A session that has seen no command yet.
    pub fn new() -> anyhow::Result<Self> {
        let session = Self { folder: tempfile::tempdir()?, ports: BTreeMap::new(), servers: Vec::new() };
        let program = executable("cloister-client")?;
        session.link("target/debug", program.parent().context("a program is in a folder")?)?;
        for folder in Self::READ {
            session.link(folder, &workspace().join(folder))?;
        }
        Ok(session)
    }

    /// Provides a file that a document takes for granted.
    pub fn provide(&self, path: &str, content: &str) -> anyhow::Result<()> {
        Ok(fs::write(self.place(path)?, content)?)
    }

    /// Runs a command to its end, which has to be a good one.
    pub fn run(&mut self, command: &str) -> anyhow::Result<()> {
        let shell = self.shell()?;
        let script = format!("{shell}\n{}\nexport -p > ~/.environment", self.with_free_ports(command)?);
        let output = Command::new("bash").args(["-c", &script]).output().context("running bash")?;
        let said = [output.stdout, output.stderr].concat();
        ensure!(output.status.success(), "{command}\n{}\n{}", output.status, String::from_utf8_lossy(&said));
        Ok(())
    }

    /// Starts a command that stays until the session ends, and waits for its first line.
    pub fn serve(&mut self, command: &str) -> anyhow::Result<()> {
        let shell = self.shell()?;
        let script = format!("{shell}\nexec {}", self.with_free_ports(command)?);
        let server = Process::start(Path::new("bash"), &["-c", &script]).with_context(|| command.to_owned())?;
        self.servers.push(server);
        Ok(())
    }

    /// Asserts that the program of ours in this command knows each of its options and can read their values.
    ///
    /// Programs read from left to right, so `--help` at the end is reached only if they could read all before.
    pub fn read_options(&mut self, command: &str) -> anyhow::Result<()> {
        let Some(command) = ours(command) else { return Ok(()) };
        self.run(&format!("{command} --help"))
    }

    /// What comes before each command: nobody's settings, and the environment that the commands before left. Cargo runs where
    /// its workspace is, with the tools of whoever runs these tests.
    fn shell(&self) -> anyhow::Result<String> {
        let folder = self.folder.path().display();
        let tools = env::var("HOME").context("HOME")?;
        Ok(format!(
            "unset ${{!CLOISTER_@}} ${{!AWS_@}} XDG_CONFIG_HOME
             set -euo pipefail
             export HOME={folder}
             cargo() {{ (cd '{}' && HOME='{tools}' command cargo \"$@\"); }}
             cd {folder}
             if [[ -e .environment ]]; then source .environment; fi",
            workspace().display()
        ))
    }

    /// The command with a port of this session's in place of each on loopback, so that sessions run side by side.
    fn with_free_ports(&mut self, command: &str) -> anyhow::Result<String> {
        const HOST: &str = "127.0.0.1:";
        let mut parts = command.split(HOST);
        let mut replaced = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (port, rest) = part.split_at(part.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(part.len()));
            if !self.ports.contains_key(port) {
                self.ports.insert(port.to_owned(), free_port()?);
            }
            replaced += &format!("{HOST}{}{rest}", self.ports[port]);
        }
        Ok(replaced)
    }

    fn link(&self, path: &str, target: &Path) -> anyhow::Result<()> {
        Ok(std::os::unix::fs::symlink(target.canonicalize()?, self.place(path)?)?)
    }

    /// A path in the session's folder, whose folders are made.
    fn place(&self, path: &str) -> anyhow::Result<PathBuf> {
        let place = self.folder.path().join(path);
        fs::create_dir_all(place.parent().context("it is in the session's folder")?)?;
        Ok(place)
    }
}

/// The part of a command that runs a program of ours with arguments that it reads at once.
fn ours(command: &str) -> Option<&str> {
    const PROGRAMS: [&str; 4] = ["cloister", "cloister-parent-proxy", "cloister-simulated-enclave", "cargo image --"];
    let parts = command.split('|').map(|part| {
        let end = [" > ", " >> ", "  (", " #"].iter().filter_map(|end| part.find(end)).min();
        part[..end.unwrap_or(part.len())].trim()
    });
    let runs_ours = |part: &&str| {
        let program = part.split_inclusive(' ').skip_while(|word| word.contains('=')).collect::<String>();
        PROGRAMS.iter().any(|name| program.starts_with(&format!("{name} ")))
    };
    parts.into_iter().find(runs_ours)
}

/// A port below those that the system gives out, so that nobody gets it before the server that it is for.
fn free_port() -> anyhow::Result<u16> {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 10_000;
    // Two runs of the tests at a time begin at different ones.
    let start = u16::try_from(std::process::id() % u32::from(COUNT))?;
    for _ in 0..COUNT {
        let port = FIRST + (start + TAKEN.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port is free")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "\
# A `heading`, twice

text[^1]

    one \\
        --option

    two
and [text](file.md#part)

```sh
cat > file <<END
# A file
END
three # a comment
```

```toml
key = 1
```

[^1]: A note that goes
    on.

## A heading, twice

[below]: other.md
";

    #[test]
    fn commands_are_told_from_text_and_from_other_code() {
        let document = Document::parse(DOCUMENT);
        let languages: Vec<_> = document.blocks.iter().map(|block| block.language.as_deref()).collect();
        assert_eq!(languages, [None, None, Some("sh"), Some("toml")]);
        let expected = ["one \\\n    --option", "two", "cat > file <<END\n# A file\nEND", "three # a comment"];
        assert_eq!(document.commands(), expected);
    }

    #[test]
    fn links_headings_and_names_are_those_of_the_text() {
        let document = Document::parse(DOCUMENT);
        assert_eq!(document.links(), ["file.md#part", "other.md"]);
        assert_eq!(document.anchors(), ["a-heading-twice", "a-heading-twice-1"]);
        assert!(document.names().eq(["heading"]));
    }

    #[test]
    fn programs_of_ours_are_found_in_a_command() {
        assert_eq!(ours("cat rows | cloister infer --in - > rows.csv"), Some("cloister infer --in -"));
        assert_eq!(ours("A=1 cloister verify   # for A"), Some("A=1 cloister verify"));
        assert_eq!(ours("cargo image -- --out image"), Some("cargo image -- --out image"));
        assert_eq!(ours("jq . cloister.json"), None);
    }
}
