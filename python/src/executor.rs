//! Futures that a thread of Python waits for: others go on meanwhile, and signals are heard.

use std::{panic::resume_unwind, process, time::Duration};

use pyo3::prelude::*;
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinSet,
    time::timeout,
};

use crate::error::Failure;

/// How often signals are heard: often enough for whoever presses Ctrl-C, too seldom to cost anything.
const TICK: Duration = Duration::from_millis(100);

/// Threads of its own, of one process.
#[derive(Debug)]
pub(crate) struct Executor {
    /// Always there, until this is dropped.
    runtime: Option<Runtime>,
    process: u32,
}

impl Executor {
    pub(crate) fn new(threads: usize) -> PyResult<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
        Ok(Self { runtime: Some(runtime), process: process::id() })
    }

    /// Waits for `future`. `tick` is called now and then; if it fails, or a signal's handler does, the future is dropped.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        py: Python<'_>,
        future: impl Future<Output = T> + Send + 'static,
        mut tick: impl FnMut() -> PyResult<()>,
    ) -> PyResult<T> {
        let runtime = self.runtime.as_ref().filter(|_| self.is_here()).ok_or_else(forked)?;
        // Dropped, it ends what it holds.
        let mut tasks = JoinSet::new();
        tasks.spawn_on(future, runtime.handle());
        loop {
            let ended = py.detach(|| runtime.block_on(async { timeout(TICK, tasks.join_next()).await }));
            match ended.ok().flatten() {
                Some(Ok(output)) => return Ok(output),
                // Nobody cancels it before this is dropped.
                Some(Err(error)) => resume_unwind(error.into_panic()),
                None => py.check_signals().and_then(|()| tick())?,
            }
        }
    }

    fn is_here(&self) -> bool {
        self.process == process::id()
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        match self.is_here() {
            true => runtime.shutdown_background(),
            // A fork has no threads that could be told.
            false => std::mem::forget(runtime),
        }
    }
}

fn forked() -> Failure {
    Failure::bad_input(
        "forked",
        "this client is of another process: threads and secret keys do not go along with a fork",
        "Make a client in each process.",
    )
}
