//! Lines on stderr that never slow the bytes.
//!
//! A write to a full pipe blocks, and whoever reads the log may be slow or stuck. So events wait in a bounded queue for
//! a thread of their own. One that finds the queue full is dropped, and the next line that fits is followed by how many
//! were. A line is `key=value` pairs: what happened and how much, never a byte that was relayed.

use std::{
    fmt::{Arguments, Write as _},
    io::{self, Write},
    mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, SystemTime},
};

/// Bytes of log that may wait for their reader.
const CAPACITY: usize = 256 * 1024;
/// How long the end of the program waits for their reader.
const PATIENCE: Duration = Duration::from_secs(1);

static LOG: Log = Log::new();

/// Starts the log, for as long as the program runs; without this call events are silent.
///
/// # Errors
///
/// When the operating system refuses another thread.
pub fn log_to_stderr() -> io::Result<LogGuard> {
    thread::Builder::new().name("log".into()).spawn(|| {
        loop {
            LOG.write_waiting(&mut io::stderr());
        }
    })?;
    LOG.queue().open = true;
    Ok(LogGuard(()))
}

/// Waits, when it is dropped, until what was logged is written, but for a second at most.
#[must_use = "the last lines are lost if nothing waits for them"]
pub struct LogGuard(());

impl Drop for LogGuard {
    fn drop(&mut self) {
        LOG.flush(PATIENCE);
    }
}

/// Logs one event, given as `event=name key=value…`.
pub(crate) fn log(event: Arguments<'_>) {
    LOG.line(event);
}

struct Log {
    queue: Mutex<Queue>,
    changed: Condvar,
}

struct Queue {
    open: bool,
    waiting: String,
    dropped: u64,
    writing: bool,
}

impl Log {
    const fn new() -> Self {
        let queue = Queue { open: false, waiting: String::new(), dropped: 0, writing: false };
        Self { queue: Mutex::new(queue), changed: Condvar::new() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, event: Arguments<'_>) {
        let mut queue = self.queue();
        if queue.open {
            queue.push(event);
            self.changed.notify_all();
        }
    }

    /// Waits for lines and writes them. If they cannot be written they are lost: there is nowhere to say so.
    fn write_waiting(&self, out: &mut impl Write) {
        let mut queue = self
            .changed
            .wait_while(self.queue(), |queue| queue.waiting.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        let lines = mem::take(&mut queue.waiting);
        queue.writing = true;
        drop(queue);
        let _ = out.write_all(lines.as_bytes());
        self.queue().writing = false;
        self.changed.notify_all();
    }

    fn flush(&self, patience: Duration) {
        let unwritten = |queue: &mut Queue| queue.writing || !queue.waiting.is_empty();
        drop(self.changed.wait_timeout_while(self.queue(), patience, unwritten));
    }
}

impl Queue {
    fn push(&mut self, event: Arguments<'_>) {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let line = format!("time={}.{:03} {event}\n", now.as_secs(), now.subsec_millis());
        if self.waiting.len() + line.len() > CAPACITY {
            self.dropped += 1;
            return;
        }
        self.waiting.push_str(&line);
        if self.dropped > 0 {
            let _ = writeln!(self.waiting, "event=log_dropped lines={}", mem::take(&mut self.dropped));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Log {
        let log = Log::new();
        log.queue().open = true;
        log
    }

    fn written(log: &Log) -> String {
        let mut out = Vec::new();
        log.write_waiting(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_come_out_in_order_with_their_time() {
        let log = open();
        log.line(format_args!("event=one"));
        log.line(format_args!("event=two bytes=2"));
        let text = written(&log);
        let (one, two) = text.split_once('\n').unwrap();
        assert!(one.starts_with("time=") && one.ends_with(" event=one"), "{one}");
        assert!(two.ends_with(" event=two bytes=2\n"), "{two}");
    }

    #[test]
    fn a_reader_that_is_stuck_costs_lines_and_never_the_caller() {
        let log = open();
        let long = "x".repeat(1000);
        for _ in 0..2 * CAPACITY / long.len() {
            log.line(format_args!("event={long}"));
        }
        let dropped = log.queue().dropped;
        assert!(dropped > 0);
        assert!(written(&log).len() <= CAPACITY);

        log.line(format_args!("event=after"));
        assert!(written(&log).ends_with(&format!(" event=after\nevent=log_dropped lines={dropped}\n")));
    }

    #[test]
    fn silent_until_it_is_started() {
        let log = Log::new();
        log.line(format_args!("event=early"));
        assert!(log.queue().waiting.is_empty());
        log.flush(Duration::MAX);
    }

    #[test]
    fn the_end_waits_for_the_last_line() {
        let (log, out) = (open(), Mutex::new(Vec::new()));
        log.line(format_args!("event=last"));
        thread::scope(|scope| {
            scope.spawn(|| log.write_waiting(&mut *out.lock().unwrap()));
            log.flush(Duration::MAX);
            assert!(out.lock().unwrap().ends_with(b" event=last\n"));
        });
    }

    #[test]
    fn the_end_waits_for_a_stuck_reader_only_so_long() {
        let log = open();
        log.line(format_args!("event=unread"));
        log.flush(Duration::from_millis(1));
    }
}
