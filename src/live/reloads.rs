//! The history of reloads.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// How reloads have gone.
#[derive(Debug, Default)]
pub(crate) struct Reloads {
    /// Those that were applied.
    pub(crate) applied: AtomicU64,
    /// Those that were refused.
    pub(crate) refused: AtomicU64,
    /// The newest was refused: the file is not what is in force.
    pub(crate) last_refused: AtomicBool,
    past: Mutex<VecDeque<Reload>>,
}

/// A reload that was tried.
#[derive(Debug, Clone)]
pub(crate) struct Reload {
    /// When.
    pub(crate) at: SystemTime,
    /// The generation that came of it, or what was wrong, as the log has it.
    pub(crate) result: Result<u64, String>,
}

/// How many reloads are remembered.
const MOST_RELOADS: usize = 10;

impl Reloads {
    /// The newest ones, newest first.
    pub(crate) fn past(&self) -> Vec<Reload> {
        self.lock().iter().rev().cloned().collect()
    }

    pub(super) fn remember(&self, result: Result<u64, String>) {
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
