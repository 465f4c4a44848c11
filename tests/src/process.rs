//! Programs that run while a value lives.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, bail};

/// How long a program may take until it says where it listens.
const START: Duration = Duration::from_secs(60);

/// A running program. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: Option<JoinHandle<String>>,
    /// The first line that it wrote to stdout.
    pub first_line: String,
}

impl Process {
    /// Starts a program and waits for its first line on stdout.
    pub fn start(program: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start_with(program, arguments, &[])
    }

    /// As [`start`](Self::start), with further environment variables.
    pub fn start_with(program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let name = program.display();
        let mut child = Command::new(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let (sender, first) = mpsc::channel();
        thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines();
            let _ = sender.send(lines.next().and_then(Result::ok));
            // Reads on, so that the program never blocks on a full pipe.
            lines.for_each(drop);
        });
        let mut stderr = child.stderr.take().context("stderr is piped")?;
        let log = thread::spawn(move || {
            let mut log = Vec::new();
            let _ = stderr.read_to_end(&mut log);
            String::from_utf8_lossy(&log).into_owned()
        });
        match first.recv_timeout(START) {
            Ok(Some(first_line)) => Ok(Self { child, first_line, log: Some(log) }),
            _ => {
                let _ = child.kill();
                let status = child.wait()?;
                bail!("{name} ended before it listened ({status}): {}", log.join().unwrap_or_default())
            }
        }
    }

    /// Where it said that it listens, under a name: `NAME tcp:…` between the commas of its first line.
    pub fn place(&self, name: &str) -> anyhow::Result<String> {
        let mut places = self.first_line.split(", ");
        let place = places.find_map(|place| place.strip_prefix(name)?.strip_prefix(' '));
        place.map(str::to_owned).with_context(|| format!("no {name} in {:?}", self.first_line))
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills the program, and gives all that it wrote to stderr.
    pub fn end(mut self) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.log.take().and_then(|log| log.join().ok()).unwrap_or_default()
    }

    /// Asks the program to end, as an operator does, and gives its exit code once it has.
    pub fn terminate(mut self) -> anyhow::Result<Option<i32>> {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().context("running kill")?;
        Ok(self.child.wait()?.code())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
