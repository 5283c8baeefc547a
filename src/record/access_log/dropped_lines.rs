//! Lines that were not written: counted, and told of in the log once in a while.
//!
//! A thread of its own does the telling. The one that writes may be stuck, and a request must not wait for the log, which
//! may well be the same pipe that nobody reads.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

/// How often the log says that lines were dropped.
const EVERY: Duration = Duration::from_secs(10);

/// Lines that were not written.
#[derive(Debug, Default)]
pub(super) struct DroppedLines {
    /// There was no room in the queue.
    queue_full: AtomicU64,
    /// The target did not take them.
    refused: AtomicU64,
    /// The newest reason for that which the log has not heard of.
    why: Mutex<Option<io::Error>>,
    /// There is something to tell.
    unreported: AtomicBool,
    told: Mutex<Reported>,
    reporter: OnceLock<Thread>,
}

/// What the log has heard of.
#[derive(Debug, Default)]
struct Reported {
    queue_full: u64,
    refused: u64,
}

// === impl DroppedLines ===

impl DroppedLines {
    /// All of them, since the start.
    pub(super) fn lines(&self) -> u64 {
        self.queue_full.load(Ordering::Relaxed) + self.refused.load(Ordering::Relaxed)
    }

    /// A line had no room in the queue. Never waits.
    pub(super) fn queue_full(&self) {
        self.queue_full.fetch_add(1, Ordering::Relaxed);
        self.tell();
    }

    /// The target did not take so many lines.
    pub(super) fn refused_by_target(&self, lines: usize, error: io::Error) {
        self.refused.fetch_add(lines as u64, Ordering::Relaxed);
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        self.tell();
    }

    fn tell(&self) {
        if !self.unreported.load(Ordering::Relaxed) && !self.unreported.swap(true, Ordering::AcqRel) {
            // PickError writes before it is there.
            if let Some(reporter) = self.reporter.get() {
                reporter.unpark();
            }
        }
    }

    /// Starts the thread that tells of them, unless it runs.
    pub(super) fn start_telling(self: &Arc<Self>) -> io::Result<()> {
        if self.reporter.get().is_some() {
            return Ok(());
        }
        let dropped_lines = self.clone();
        let telling =
            thread::Builder::new().name("access-log-dropped_lines".into()).spawn(move || dropped_lines.run())?;
        let _ = self.reporter.set(telling.thread().clone());
        Ok(())
    }

    fn run(&self) {
        loop {
            if self.unreported.swap(false, Ordering::AcqRel) {
                self.say();
                thread::sleep(EVERY);
            } else {
                thread::park();
            }
        }
    }

    /// Tells what has not been told.
    pub(super) fn say(&self) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Reported {
            queue_full: self.queue_full.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        };
        if let lines @ 1.. = now.queue_full - told.queue_full {
            log::warn!("access log lines dropped lines={lines} because=\"its target takes them too slowly\"");
        }
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (lines @ 1.., Some(error)) = (now.refused - told.refused, why) {
            log::error!("access log lines dropped lines={lines} because=\"{error}\"");
        }
        *told = now;
    }
}
