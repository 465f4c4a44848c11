//! How far a long piece of work is: a bar on a terminal, and a line now and then elsewhere.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

use super::output::Output;

/// From one plain line to the next; work that is done sooner has none.
const EVERY: Duration = Duration::from_secs(5);

const BAR: &str = "{msg} {bar:30} {human_pos} of {human_len} rows  {per_sec}  {eta} to go";
const COUNT: &str = "{msg} {human_pos} rows  {per_sec}";

/// Counts rows for whoever watches. A bar is gone with it.
#[derive(Debug)]
pub(crate) struct Progress {
    done: &'static str,
    total: Option<u64>,
    start: (u64, Instant),
    told: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Rows will be `done`: `from` are already, of `total` if that is known.
    pub(crate) fn new(done: &'static str, total: Option<u64>, from: u64) -> Self {
        let now = Instant::now();
        let bar = stderr().is_terminal().then(|| bar(done, total, from));
        Self { done, total, start: (from, now), told: now, bar }
    }

    /// So many rows are done.
    pub(crate) fn reach(&mut self, rows: u64, output: &Output) {
        if let Some(bar) = &self.bar {
            bar.set_position(rows);
        } else if self.told.elapsed() >= EVERY {
            self.told = Instant::now();
            output.note(self.line(rows));
        }
    }

    fn line(&self, rows: u64) -> String {
        let (from, start) = self.start;
        let rate = (rows - from) as f64 / start.elapsed().as_secs_f64();
        let done = self.done;
        match self.total {
            Some(total) => {
                let left = total.saturating_sub(rows) as f64 / rate;
                format!("{done} {rows} of {total} rows, {rate:.0} rows/s, {left:.0} s to go")
            }
            None => format!("{done} {rows} rows, {rate:.0} rows/s"),
        }
    }
}

fn bar(done: &'static str, total: Option<u64>, from: u64) -> ProgressBar {
    let template = if total.is_some() { BAR } else { COUNT };
    let style = ProgressStyle::with_template(template).expect("the template is valid");
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr())
        .with_style(style)
        .with_message(done)
        .with_position(from)
        .with_finish(ProgressFinish::AndClear);
    bar.reset_eta();
    bar
}
