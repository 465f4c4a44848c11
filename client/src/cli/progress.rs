//! How far a long piece of work is: a bar on a terminal, and a line now and then elsewhere.

use std::{
    fmt,
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressState, ProgressStyle};

use super::output::Output;

/// From one plain line to the next; work that is done sooner has none.
const EVERY: Duration = Duration::from_secs(5);

const BAR: &str = "{msg} {wide_bar} {human_pos} of {human_len} rows, {rate}, {eta} to go";
const COUNT: &str = "{msg} {human_pos} rows, {rate}";

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
    let style = ProgressStyle::with_template(template).expect("the template is valid").with_key(
        "rate",
        |state: &ProgressState, text: &mut dyn fmt::Write| {
            let _ = write!(text, "{:.0} rows/s", state.per_sec());
        },
    );
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr())
        .with_style(style)
        .with_message(done)
        .with_position(from)
        .with_finish(ProgressFinish::AndClear);
    bar.reset_eta();
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_fast_and_how_long() {
        let start = (100, Instant::now().checked_sub(Duration::from_secs(10)).unwrap());
        let progress = |total| Progress { done: "answered", total, start, told: start.1, bar: None };
        assert_eq!(progress(Some(2100)).line(1100), "answered 1100 of 2100 rows, 100 rows/s, 10 s to go");
        assert_eq!(progress(None).line(1100), "answered 1100 rows, 100 rows/s");
    }
}
