//! Counts access log lines that were not written, and reports them in the log.
//!
//! A separate thread writes the reports, because the writer of the access log may be blocked. A request must not write
//! them either: the log and the access log may go to the same full pipe.

use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

use super::wakeup::Wakeup;
use crate::logging::{LOG_INTERVAL, LogThrottle, quoted};

/// Counts of lines that were not written, by cause.
#[derive(Debug, Default)]
pub(super) struct DroppedLines {
    queue_full: LogThrottle,
    write_failed: LogThrottle,
    last_error: Mutex<Option<io::Error>>,
    /// The reporter.
    wakeup: Wakeup,
    reporter: OnceLock<JoinHandle<()>>,
}

// === impl DroppedLines ===

impl DroppedLines {
    /// Returns the number of dropped lines since the start.
    pub(super) fn lines(&self) -> u64 {
        self.queue_full.total() + self.write_failed.total()
    }

    /// Counts a line that did not fit into the queue. It never waits.
    pub(super) fn queue_full(&self) {
        self.queue_full.count(1);
        self.wakeup.notify();
    }

    /// Counts lines that the target did not accept.
    pub(super) fn write_failed(&self, lines: usize, error: io::Error) {
        // The error is stored before the count changes, so a report of these lines has an error.
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        self.write_failed.count(lines as u64);
        self.wakeup.notify();
    }

    /// Starts the thread that reports dropped lines, unless it is running.
    pub(super) fn start_reporter(self: &Arc<Self>) -> io::Result<()> {
        if self.reporter.get().is_some() {
            return Ok(());
        }
        let dropped_lines = self.clone();
        let reporter = thread::Builder::new().name("access-log-drops".into()).spawn(move || dropped_lines.run())?;
        let _ = self.reporter.set(reporter);
        Ok(())
    }

    fn run(&self) {
        self.wakeup.is_this_thread();
        loop {
            self.wakeup.sleep(|| self.is_reported());
            if !self.is_reported() {
                self.report();
                thread::sleep(LOG_INTERVAL);
            }
        }
    }

    fn is_reported(&self) -> bool {
        [&self.queue_full, &self.write_failed].iter().all(|lines| lines.is_reported())
    }

    /// Logs the number of lines dropped since the last report. Also called when the process exits.
    pub(super) fn report(&self) {
        if let Some(lines) = self.queue_full.rest() {
            log::warn!("access log lines dropped lines={lines} reason={}", quoted("target too slow"));
        }
        if let Some(lines) = self.write_failed.rest() {
            let error = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
            let error = error.as_ref().map_or_else(String::new, ToString::to_string);
            log::error!("access log lines dropped lines={lines} error={}", quoted(error));
        }
    }
}
