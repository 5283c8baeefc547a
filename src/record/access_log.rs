//! The access log: one line for each request. No request waits for it.
//!
//! ```text
//! request --RequestRecord--> line --queue--> thread --batches--> target
//! ```
//!
//! A reload publishes a new [`Sink`] with its own queue, thread and target, even if the reload only reopens the file.
//! The thread of the old sink ends when its queue is empty. The thread of a new sink for the same target waits for the
//! end of the old thread, so the lines keep their order. Whether a request has a line, and its format, depend on the
//! configuration at the end of the request.

mod dropped_lines;
mod line;
mod target;
mod wakeup;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;

pub(crate) use self::target::OpenError;

use self::dropped_lines::DroppedLines;
use self::target::{Destination, Target};
use self::writer::Lines;
use super::RequestRecord;
use crate::cors::ReportOnly;
use crate::logging::quoted;
use crate::snapshot::{self, LogTarget};

/// The access log of a process.
#[derive(Debug, Default)]
pub struct AccessLogger {
    /// None without a configured access log.
    current: ArcSwapOption<Sink>,
    dropped_lines: Arc<DroppedLines>,
    /// The running writers, and the writers that have ended since the last start of a writer.
    writers: Mutex<Vec<Writer>>,
}

/// An open access log that is not active yet.
#[derive(Debug)]
pub(crate) struct Opened(Option<Arc<Sink>>);

/// An open access log. Dropping the last reference closes its queue, and its writer ends.
#[derive(Debug)]
struct Sink {
    settings: snapshot::AccessLog,
    /// Folder for relative paths.
    folder: PathBuf,
    place: Destination,
    target: Target,
    lines: Arc<Lines>,
}

#[derive(Debug)]
struct Writer {
    place: Destination,
    lines: Arc<Lines>,
    thread: Arc<JoinHandle<()>>,
}

/// Interval at which the shutdown checks whether all lines are written.
const END_POLL: Duration = Duration::from_millis(1);

// === impl AccessLogger ===

impl AccessLogger {
    /// Opens the access log of a configuration. Relative paths start at `folder`. The active access log does not
    /// change.
    ///
    /// If the file is already open and cannot be reopened, the access log continues in the open file, and the log gets
    /// a line. The configuration is not refused, because the reload may have another purpose.
    pub(crate) fn open(&self, settings: Option<&snapshot::AccessLog>, folder: &Path) -> Result<Opened, OpenError> {
        let Some(settings) = settings else { return Ok(Opened(None)) };
        let place = Destination::new(&settings.to, folder);
        let current = self.current.load_full();
        let same = current.as_ref().filter(|current| current.place == place);
        let target = match (same, &place) {
            (Some(same), Destination::Stdout) if same.settings == *settings => return Ok(Opened(current)),
            (Some(same), Destination::Stdout) => same.target.clone(),
            (Some(same), Destination::File(_)) => place.open().unwrap_or_else(|error| {
                log::error!("access log not reopened, still writing to the old file error={}", quoted(&error));
                same.target.clone()
            }),
            (None, _) => place.open()?,
        };
        let settings = settings.clone();
        let sink = Sink { settings, folder: folder.to_owned(), place, target, lines: Arc::new(Lines::new()) };
        self.start(&sink).map_err(|error| sink.place.open_error(error))?;
        Ok(Opened(Some(Arc::new(sink))))
    }

    fn start(&self, sink: &Sink) -> std::io::Result<()> {
        self.dropped_lines.start_reporter()?;
        let mut writers = self.writers();
        writers.retain(|writer| !writer.thread.is_finished());
        let earlier = writers.iter().filter(|writer| writer.place == sink.place).map(|writer| writer.thread.clone());
        let lines = sink.lines.clone();
        let thread = writer::start(lines.clone(), sink.target.clone(), self.dropped_lines.clone(), earlier.collect())?;
        writers.push(Writer { place: sink.place.clone(), lines, thread: Arc::new(thread) });
        Ok(())
    }

    /// Replaces the active access log.
    pub(crate) fn activate(&self, opened: Opened) {
        self.current.store(opened.0);
    }

    /// Reopens the file by its name. Log rotation needs it, because rotation renames the open file.
    pub(crate) fn reopen(&self) {
        let Some(current) = self.current.load_full() else { return };
        if let LogTarget::File(_) = current.settings.to {
            match self.open(Some(&current.settings), &current.folder) {
                Ok(opened) => self.activate(opened),
                Err(error) => log::error!("access log not reopened error={}", quoted(&error)),
            }
        }
    }

    /// Queues the line of a request if the configuration selects the request. It never waits.
    pub fn write(&self, record: &RequestRecord<'_>) {
        let sink = self.current.load();
        let Some(sink) = sink.as_ref().filter(|sink| sink.selects(record)) else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let format = sink.settings.format;
        if sink.lines.push(|line| line::append(format, record, millis, line)).is_err() {
            self.dropped_lines.queue_full();
        }
    }

    /// Returns the number of lines since the start that were not written, because the target was too slow or failed.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped_lines.lines()
    }

    /// Waits until all queued lines are written, at most for `within`, and ends the access log.
    pub(crate) fn finish(&self, within: Duration) {
        self.current.store(None);
        let end = Instant::now() + within;
        while self.writers().iter().any(|writer| !writer.thread.is_finished()) {
            if Instant::now() >= end {
                let lines: usize = self.writers().iter().map(|writer| writer.lines.queued()).sum();
                log::error!("access log lines dropped lines={lines} reason={}", quoted("process exits"));
                break;
            }
            thread::sleep(END_POLL);
        }
        self.dropped_lines.report();
    }

    fn writers(&self) -> MutexGuard<'_, Vec<Writer>> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Sink ===

impl Sink {
    /// Returns true if the request gets a line. Sampling uses a random number. With every n-th request, two alternating
    /// requests would give lines of only one of them. With a hash of request data, clients could choose not to be
    /// logged.
    fn selects(&self, record: &RequestRecord<'_>) -> bool {
        let snapshot::AccessLog { sample, refusals_only, .. } = self.settings;
        let failed = || record.status.is_some_and(|status| status.is_server_error());
        let would_be_refused = record.report_only.is_some_and(ReportOnly::would_refuse);
        record.refused
            || would_be_refused
            || (!refusals_only && (sample >= 1.0 || failed() || fastrand::f64() < sample))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.lines.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::LogFormat;

    /// Each reload starts a thread. The threads can start in any order.
    #[test]
    fn lines_keep_their_order_over_reloads_in_quick_succession() {
        const RELOADS: usize = 100;
        let folder = tempfile::tempdir().unwrap();
        let log = AccessLogger::default();
        let to = LogTarget::File("access.log".into());
        let settings = snapshot::AccessLog { to, format: LogFormat::Json, sample: 1.0, refusals_only: false };
        for n in 0..RELOADS {
            drop(log.open(Some(&settings), folder.path()).unwrap());
            log.activate(log.open(Some(&settings), folder.path()).unwrap());
            let sink = log.current.load_full().unwrap();
            sink.lines.push(|line| line.extend_from_slice(format!("{n}\n").as_bytes())).unwrap();
        }
        log.finish(Duration::from_secs(30));
        let written = std::fs::read_to_string(folder.path().join("access.log")).unwrap();
        let expected: String = (0..RELOADS).map(|n| format!("{n}\n")).collect();
        assert_eq!(written, expected);
        assert!(log.writers().iter().all(|writer| writer.thread.is_finished()), "no writer waits forever");
    }
}
