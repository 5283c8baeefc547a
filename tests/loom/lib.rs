//! Runs threads in every order that the memory model allows: the writer of the access log with requests, and requests
//! that wait for a place at a node. A lost wake-up is a deadlock, which loom reports.

#![cfg(loom)]
#![cfg(test)]

mod counter;
mod upstream;
#[path = "../../src/record/access_log/wakeup.rs"]
mod wakeup;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;

use self::wakeup::Wakeup;

/// The queue of the access log without its lines. Its operations order as little as possible.
struct Log {
    wakeup: Wakeup,
    queued: AtomicUsize,
    closed: AtomicBool,
}

impl Log {
    fn new() -> Arc<Self> {
        Arc::new(Log { wakeup: Wakeup::default(), queued: AtomicUsize::new(0), closed: AtomicBool::new(false) })
    }

    fn push(&self) {
        self.queued.fetch_add(1, Ordering::Release);
        self.wakeup.notify();
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wakeup.notify_always();
    }

    /// Writes until the queue is closed, or `most` lines are written. Returns their number.
    fn run(&self, most: usize) -> usize {
        self.wakeup.is_this_thread();
        let mut written = 0;
        loop {
            let closed = self.closed.load(Ordering::Acquire);
            let lines = self.queued.swap(0, Ordering::Acquire);
            written += lines;
            if closed || written == most {
                return written;
            }
            if lines == 0 {
                self.wakeup.sleep(|| {
                    self.queued.load(Ordering::Relaxed) == 0 && !self.closed.load(Ordering::Relaxed)
                });
            }
        }
    }
}

/// Nobody closes the queue, so the writer ends only if it finds both lines.
#[test]
fn the_writer_finds_every_line() {
    loom::model(|| {
        let log = Log::new();
        let requests = [(); 2].map(|()| {
            let log = log.clone();
            thread::spawn(move || log.push())
        });
        assert_eq!(log.run(2), 2);
        requests.into_iter().for_each(|request| request.join().unwrap());
    });
}

#[test]
fn the_writer_ends_after_the_queue_is_closed_and_has_all_lines() {
    loom::model(|| {
        let log = Log::new();
        let closing = log.clone();
        let closer = thread::spawn(move || {
            closing.push();
            closing.close();
        });
        assert_eq!(log.run(usize::MAX), 1);
        closer.join().unwrap();
    });
}
