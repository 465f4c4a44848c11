//! Programs that run while a value lives.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, bail};

/// How long a program may take until it says where it listens.
const START: Duration = Duration::from_secs(60);

/// A running program. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// The first line that it wrote to stdout.
    pub first_line: String,
}

impl Process {
    /// Starts a program and waits for its first line on stdout.
    pub fn start(program: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let name = program.display();
        let mut child = Command::new(program)
            .args(arguments)
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
            Ok(Some(first_line)) => Ok(Self { child, first_line }),
            _ => {
                let _ = child.kill();
                let status = child.wait()?;
                bail!("{name} ended before it listened ({status}): {}", log.join().unwrap_or_default())
            }
        }
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
