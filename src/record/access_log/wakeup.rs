//! Puts a thread to sleep while it has no work, and wakes it.
//!
//! A wake-up costs a system call. So it is skipped while the thread is busy, and while it waits for another reason.
//! `make loom` checks every order in which the threads can run (tests/loom).

use std::sync::OnceLock;

#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(loom))]
use std::thread::{self, Thread};

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(loom)]
use loom::thread::{self, Thread};

/// A thread that sleeps while it has no work.
#[derive(Debug, Default)]
pub(super) struct Wakeup {
    /// None until the thread has started.
    thread: OnceLock<Thread>,
    asleep: AtomicBool,
}

// === impl Wakeup ===

impl Wakeup {
    /// Makes the current thread the one that sleeps.
    pub(super) fn is_this_thread(&self) {
        let _ = self.thread.set(thread::current());
    }

    /// Wakes the thread if it sleeps. To be called after new work can be seen.
    #[inline]
    pub(super) fn notify(&self) {
        // This fence and the fence in `sleep` form a pair: this thread reads `asleep` as true, or the other one finds
        // the work before it sleeps.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Wakes the thread also from another pause.
    pub(super) fn notify_always(&self) {
        // The same fence as in `notify`.
        fence(Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        // A thread that has not started yet looks for work before it sleeps.
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Sleeps until [`Wakeup::notify`], unless there is work. May return without a cause.
    pub(super) fn sleep(&self, is_idle: impl FnOnce() -> bool) {
        // A store would do. loom does not order it against the swap of `notify`.
        self.asleep.swap(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if is_idle() {
            thread::park();
        }
        self.asleep.store(false, Ordering::Relaxed);
    }
}
