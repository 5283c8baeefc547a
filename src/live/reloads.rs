//! History of reloads, for metrics and the status page.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Counts of reloads, and the last reloads.
#[derive(Debug, Default)]
pub(crate) struct Reloads {
    pub(crate) applied: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// True if the last reload was refused. The active configuration then differs from the file.
    pub(crate) last_refused: AtomicBool,
    past: Mutex<VecDeque<Reload>>,
}

/// A reload that was applied or refused.
#[derive(Debug, Clone)]
pub(crate) struct Reload {
    pub(crate) at: SystemTime,
    /// Number of the new generation, or the errors as in the log.
    pub(crate) result: Result<u64, String>,
}

/// Maximum number of stored reloads.
const MOST_RELOADS: usize = 10;

impl Reloads {
    /// Returns the last reloads, newest first.
    pub(crate) fn past(&self) -> Vec<Reload> {
        self.lock().iter().rev().cloned().collect()
    }

    /// Records the end of a reload. `result` is the number of the new generation, or the error.
    pub(super) fn count(&self, result: Result<u64, String>) {
        let count = if result.is_ok() { &self.applied } else { &self.refused };
        count.fetch_add(1, Ordering::Relaxed);
        self.last_refused.store(result.is_err(), Ordering::Relaxed);
        let mut past = self.lock();
        if past.len() == MOST_RELOADS {
            past.pop_front();
        }
        past.push_back(Reload { at: SystemTime::now(), result });
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Reload>> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
