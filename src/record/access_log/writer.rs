//! Queue of access log lines, and the thread that writes them to the target.
//!
//! Buffers are reused. A request takes a spare buffer, formats its line and queues the buffer. The thread writes the
//! line and returns the buffer. So requests allocate memory only until there are enough buffers. If the target blocks,
//! the queue grows to [`MOST_QUEUED`] lines. Further lines are dropped and counted.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

use super::dropped_lines::DroppedLines;
use super::target::Target;
use super::wakeup::Wakeup;

/// Maximum number of lines in the queue. With [`LONGEST`](super::line::LONGEST) bytes per line, the queue has 32 MiB.
/// Common lines need a sixth of that.
pub(crate) const MOST_QUEUED: usize = 8192;
/// Initial capacity of a buffer in bytes, enough for nearly every line.
const LINE_CAPACITY: usize = 1024;
/// Time in which the thread collects lines before it writes them. Requests need not wake the thread in this time. A
/// wake-up costs a system call.
const BATCH_INTERVAL: Duration = Duration::from_millis(5);
/// Pause before the next write to a target that would block.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// Queued lines, and spare buffers.
#[derive(Debug)]
pub(super) struct Lines {
    queue: ArrayQueue<Vec<u8>>,
    spare: ArrayQueue<Vec<u8>>,
    /// The writer.
    wakeup: Wakeup,
    /// True if no more lines can be queued.
    closed: AtomicBool,
}

// === impl Lines ===

impl Lines {
    pub(super) fn new() -> Self {
        Lines {
            queue: ArrayQueue::new(MOST_QUEUED),
            spare: ArrayQueue::new(MOST_QUEUED),
            wakeup: Wakeup::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// Queues the line that `write` appends to a buffer. The error means that the queue is full.
    pub(super) fn push(&self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), ()> {
        if self.queue.is_full() {
            return Err(());
        }
        let mut line = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(LINE_CAPACITY));
        write(&mut line);
        if let Err(mut line) = self.queue.push(line) {
            line.clear();
            let _ = self.spare.push(line);
            return Err(());
        }
        self.wakeup.notify();
        Ok(())
    }

    /// Closes the queue. The writer ends after it has written all lines.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wakeup.notify_always();
    }

    /// Returns true if the queue is closed and empty.
    fn is_done(&self) -> bool {
        self.closed.load(Ordering::Acquire) && self.queue.is_empty()
    }

    /// Returns the number of queued lines.
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }
}

/// Writes lines until the queue is closed and empty.
pub(super) fn run(lines: &Lines, target: &Target, dropped_lines: &DroppedLines) {
    lines.wakeup.is_this_thread();
    let mut batch = Batch::default();
    loop {
        // `closed` is read before the queue, so the loop below finds every line that was queued before `close`.
        let closed = lines.closed.load(Ordering::Acquire);
        let mut wrote = false;
        while let Some(mut line) = lines.queue.pop() {
            if batch.bytes.len() + line.len() > target.max_write {
                batch.send(target, dropped_lines);
            }
            batch.bytes.extend_from_slice(&line);
            line.clear();
            let _ = lines.spare.push(line);
            wrote = true;
        }
        batch.send(target, dropped_lines);
        match (closed, wrote) {
            (true, _) => return,
            (false, true) => thread::park_timeout(BATCH_INTERVAL),
            (false, false) => {
                lines.wakeup.sleep(|| lines.queue.is_empty() && !lines.closed.load(Ordering::Relaxed));
            }
        }
    }
}

/// Complete lines for one write.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    /// True if the last write ended inside a line.
    torn: bool,
}

impl Batch {
    fn send(&mut self, target: &Target, dropped_lines: &DroppedLines) {
        if !self.bytes.is_empty() {
            let mut open = target.open.lock().unwrap_or_else(PoisonError::into_inner);
            self.send_to(&mut *open, dropped_lines);
        }
    }

    fn send_to(&mut self, target: &mut impl Write, dropped_lines: &DroppedLines) {
        if self.torn {
            // A line end separates the next line from the torn line.
            self.torn = write(target, b"\n").is_err();
        }
        let written = if self.torn { Err((0, io::ErrorKind::Other.into())) } else { write(target, &self.bytes) };
        if let Err((taken, error)) = written {
            let (taken, rest) = self.bytes.split_at(taken);
            self.torn |= taken.last().is_some_and(|last| *last != b'\n');
            dropped_lines.write_failed(rest.split(|b| *b == b'\n').count() - 1, error);
        }
        self.bytes.clear();
    }
}

/// Writes all bytes. The error has the number of written bytes.
fn write(target: &mut impl Write, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut taken = 0;
    while taken < bytes.len() {
        match target.write(&bytes[taken..]) {
            Ok(0) => return Err((taken, io::ErrorKind::WriteZero.into())),
            Ok(n) => taken += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The pipe is full, and another process has made the file description non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY_INTERVAL),
            Err(error) => return Err((taken, error)),
        }
    }
    Ok(())
}

/// Starts the thread that writes the lines. It first waits for the end of the `earlier` writers to the same target.
pub(super) fn start(
    lines: Arc<Lines>,
    target: Target,
    dropped_lines: Arc<DroppedLines>,
    earlier: Vec<Arc<JoinHandle<()>>>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("access-log".into()).spawn(move || {
        // If the log never became active, its queue is closed and empty, and the thread need not wait.
        while !earlier.iter().all(|thread| thread.is_finished()) && !lines.is_done() {
            thread::sleep(BATCH_INTERVAL);
        }
        drop(earlier);
        run(&lines, &target, &dropped_lines);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk that is full after `room` bytes.
    struct Disk {
        held: Vec<u8>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room - self.held.len());
            self.held.extend_from_slice(&bytes[..taken]);
            if taken == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(taken) }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_torn_by_a_full_disk_does_not_merge_with_the_next() {
        let (mut disk, dropped_lines) = (Disk { held: Vec::new(), room: 9 }, DroppedLines::default());
        let mut batch = Batch::default();
        let mut send = |disk: &mut Disk, bytes: &[u8]| {
            batch.bytes.extend_from_slice(bytes);
            batch.send_to(disk, &dropped_lines);
        };
        send(&mut disk, b"first\nsecond\nthird\n");
        send(&mut disk, b"fourth\n");
        assert_eq!(disk.held, b"first\nsec");
        assert_eq!(dropped_lines.lines(), 3);
        disk.room = 100;
        send(&mut disk, b"fifth\n");
        send(&mut disk, b"sixth\n");
        assert_eq!(disk.held, b"first\nsec\nfifth\nsixth\n");
        assert_eq!(dropped_lines.lines(), 3);
    }

    #[test]
    fn the_queue_has_a_bound() {
        let lines = Lines::new();
        for _ in 0..MOST_QUEUED {
            lines.push(|line| line.extend_from_slice(b"line\n")).unwrap();
        }
        assert_eq!(lines.push(|_| panic!("nothing is formatted for a full queue")), Err(()));
        assert_eq!(lines.queued(), MOST_QUEUED);
    }
}
