//! From the requests to the target: a queue that never makes a request wait, and a thread that empties it.
//!
//! Buffers go round: a request takes one, fills it and queues it; the thread writes what it holds and gives it back. Once
//! there are as many as requests need, nothing is allocated any more. When the target takes nothing, the queue fills up
//! to its bound, and further lines are dropped and counted.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

use super::dropped_lines::DroppedLines;
use super::target::Target;

/// Lines that can wait to be written. With [`LONGEST`](super::LONGEST) that is 32 MiB; ordinary lines need a sixth of that.
pub(crate) const MOST_QUEUED: usize = 8192;
/// The room of a buffer to begin with, enough for nearly every line.
const ORDINARY: usize = 1024;
/// How long the thread lets lines come together before it writes them. Only a thread that has slept for longer than
/// this, because nothing came, has to be woken, which costs a request a system call.
const NAP: Duration = Duration::from_millis(5);
/// How long until a target that takes nothing at the moment is asked again.
const AGAIN: Duration = Duration::from_millis(5);

/// The lines that wait to be written, and the buffers for the next ones.
#[derive(Debug)]
pub(super) struct Lines {
    queued: ArrayQueue<Vec<u8>>,
    spare: ArrayQueue<Vec<u8>>,
    writer: OnceLock<Thread>,
    /// The writer must be woken.
    asleep: AtomicBool,
    /// No more lines will come.
    closed: AtomicBool,
}

// === impl Lines ===

impl Lines {
    pub(super) fn new() -> Self {
        Lines {
            queued: ArrayQueue::new(MOST_QUEUED),
            spare: ArrayQueue::new(MOST_QUEUED),
            writer: OnceLock::new(),
            asleep: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// Queues the line that `write` appends to a buffer. Err: there is no room, and nothing was written.
    pub(super) fn push(&self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), ()> {
        if self.queued.is_full() {
            return Err(());
        }
        let mut line = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(ORDINARY));
        write(&mut line);
        if let Err(mut line) = self.queued.push(line) {
            line.clear();
            let _ = self.spare.push(line);
            return Err(());
        }
        // Either this sees that the writer sleeps, or the writer sees the line before it does.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            self.wake();
        }
        Ok(())
    }

    /// Says that all lines have been queued. The writer ends when it has written them.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        // As above: either it is seen, or the writer can be woken.
        fence(Ordering::SeqCst);
        self.wake();
    }

    /// Whether there is nothing to write, and never will be.
    fn is_done(&self) -> bool {
        self.closed.load(Ordering::Acquire) && self.queued.is_empty()
    }

    /// Lines that nobody has taken.
    pub(super) fn waiting(&self) -> usize {
        self.queued.len()
    }

    fn wake(&self) {
        // A writer that has not begun yet looks before it sleeps.
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    fn sleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.queued.is_empty() && !self.closed.load(Ordering::Relaxed) {
            thread::park();
        }
        self.asleep.store(false, Ordering::Relaxed);
    }
}

/// Writes lines until there will be no more.
pub(super) fn run(lines: &Lines, target: &Target, dropped_lines: &DroppedLines) {
    let _ = lines.writer.set(thread::current());
    let mut batch = Batch::default();
    loop {
        // Read first: whatever was queued before it was closed is found below.
        let closed = lines.closed.load(Ordering::Acquire);
        let mut wrote = false;
        while let Some(mut line) = lines.queued.pop() {
            if batch.bytes.len() + line.len() > target.at_once {
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
            (false, true) => thread::park_timeout(NAP),
            (false, false) => lines.sleep(),
        }
    }
}

/// Whole lines that are written at once.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    /// The target has the beginning of a line whose rest it did not take.
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
            // What follows must not be taken for the rest of the torn line.
            self.torn = write(target, b"\n").is_err();
        }
        let written = if self.torn { Err((0, io::ErrorKind::Other.into())) } else { write(target, &self.bytes) };
        if let Err((taken, error)) = written {
            let (taken, rest) = self.bytes.split_at(taken);
            self.torn |= taken.last().is_some_and(|last| *last != b'\n');
            dropped_lines.refused_by_target(rest.split(|b| *b == b'\n').count() - 1, error);
        }
        self.bytes.clear();
    }
}

/// Writes everything; or says how much was written, and why no more.
fn write(target: &mut impl Write, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut taken = 0;
    while taken < bytes.len() {
        match target.write(&bytes[taken..]) {
            Ok(0) => return Err((taken, io::ErrorKind::WriteZero.into())),
            Ok(n) => taken += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Somebody has made it non-blocking, and nobody reads.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(AGAIN),
            Err(error) => return Err((taken, error)),
        }
    }
    Ok(())
}

/// Starts the thread that writes the lines, when those that have written to the same place before have ended.
pub(super) fn start(
    lines: Arc<Lines>,
    target: Target,
    dropped_lines: Arc<DroppedLines>,
    earlier: Vec<Arc<JoinHandle<()>>>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("access-log".into()).spawn(move || {
        // A log that was opened and never put in force is closed with nothing to write, and need not wait.
        while !earlier.iter().all(|thread| thread.is_finished()) && !lines.is_done() {
            thread::sleep(NAP);
        }
        drop(earlier);
        run(&lines, &target, &dropped_lines);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, then fails until it is given room.
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
    fn a_line_that_a_full_disk_tore_stays_alone() {
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
    fn a_queue_that_nobody_empties_has_a_bound() {
        let lines = Lines::new();
        for _ in 0..MOST_QUEUED {
            lines.push(|line| line.extend_from_slice(b"line\n")).unwrap();
        }
        assert_eq!(lines.push(|_| panic!("nothing is formatted for a full queue")), Err(()));
        assert_eq!(lines.waiting(), MOST_QUEUED);
    }
}
