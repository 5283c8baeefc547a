//! The access log: a line for each request, which no request waits for.
//!
//! ```text
//! request --RequestRecord--> line --queue--> thread --batches--> target
//! ```
//!
//! A reload puts another [`Sink`] in force, with a queue, a thread and a target of its own, also when only the file has
//! to be opened anew. Requests that have ended by then have their lines in the old one, and its thread ends when it has
//! written them; the next one for the same place waits for that, so that lines stand in the order of their requests.
//! What is written of a request, and how, says the configuration that is in force when it ends.

mod dropped_lines;
mod line;
mod target;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;

pub(crate) use self::target::OpenError;

use self::dropped_lines::DroppedLines;
use self::target::{Place, Target};
use self::writer::Lines;
use super::RequestRecord;
use crate::snapshot::{self, LogTarget};

/// The access log of a process.
#[derive(Debug, Default)]
pub struct AccessLogger {
    /// None: nothing is written.
    current: ArcSwapOption<Sink>,
    dropped_lines: Arc<DroppedLines>,
    /// The threads that write or have written.
    writers: Mutex<Vec<Writer>>,
}

/// A log that is open, and not in force yet.
#[derive(Debug)]
pub(crate) struct Opened(Option<Arc<Sink>>);

/// What is written, and where it goes. When the last one who has it is done with it, its writer finishes.
#[derive(Debug)]
struct Sink {
    settings: snapshot::AccessLog,
    /// What the path of a file is relative to.
    folder: PathBuf,
    place: Place,
    target: Target,
    lines: Arc<Lines>,
}

#[derive(Debug)]
struct Writer {
    place: Place,
    lines: Arc<Lines>,
    thread: Arc<JoinHandle<()>>,
}

/// How often the end looks whether everything is written.
const END_POLL: Duration = Duration::from_millis(1);

// === impl AccessLogger ===

impl AccessLogger {
    /// Opens what a configuration says; paths are relative to its folder. What is in force stays in force.
    ///
    /// The file that is open already may not be there to be opened anew. That is no reason to refuse a configuration,
    /// which may be about something else entirely: then it goes on where it is, and the log says so.
    pub(crate) fn open(&self, settings: Option<&snapshot::AccessLog>, folder: &Path) -> Result<Opened, OpenError> {
        let Some(settings) = settings else { return Ok(Opened(None)) };
        let place = Place::new(&settings.to, folder);
        let current = self.current.load_full();
        let same = current.as_ref().filter(|current| current.place == place);
        let target = match (same, &place) {
            (Some(same), Place::Stdout) if same.settings == *settings => return Ok(Opened(current)),
            (Some(same), Place::Stdout) => same.target.clone(),
            (Some(same), Place::File(_)) => place.open().unwrap_or_else(|error| {
                log::error!("the access log goes on in the file that is open, which may have been renamed: {error}");
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
        self.dropped_lines.start_telling()?;
        let mut writers = self.writers();
        writers.retain(|writer| !writer.thread.is_finished());
        let earlier = writers.iter().filter(|writer| writer.place == sink.place).map(|writer| writer.thread.clone());
        let lines = sink.lines.clone();
        let thread = writer::start(lines.clone(), sink.target.clone(), self.dropped_lines.clone(), earlier.collect())?;
        writers.push(Writer { place: sink.place.clone(), lines, thread: Arc::new(thread) });
        Ok(())
    }

    /// Puts what was opened in force.
    pub(crate) fn activate(&self, opened: Opened) {
        self.current.store(opened.0);
    }

    /// Opens the file that is written to anew: after it was renamed, there is another one of its name.
    pub(crate) fn reopen(&self) {
        let Some(current) = self.current.load_full() else { return };
        if let LogTarget::File(_) = current.settings.to {
            match self.open(Some(&current.settings), &current.folder) {
                Ok(opened) => self.activate(opened),
                Err(error) => log::error!("the access log could not be opened anew: {error}"),
            }
        }
    }

    /// Writes a line for a request, or not, as the configuration says. Waits for nothing.
    pub fn write(&self, record: &RequestRecord<'_>) {
        let sink = self.current.load();
        let Some(sink) = sink.as_ref().filter(|sink| sink.takes(record)) else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let format = sink.settings.format;
        if sink.lines.push(|line| line::append(format, record, millis, line)).is_err() {
            self.dropped_lines.queue_full();
        }
    }

    /// Lines that were not written since the start, because the target was too slow, or did not take them.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped_lines.lines()
    }

    /// Ends the log: waits until all lines are written that are queued, but no longer than this.
    pub(crate) fn finish(&self, within: Duration) {
        self.current.store(None);
        let end = Instant::now() + within;
        while self.writers().iter().any(|writer| !writer.thread.is_finished()) {
            if Instant::now() >= end {
                let lines: usize = self.writers().iter().map(|writer| writer.lines.waiting()).sum();
                return log::error!("access log lines dropped lines={lines} because=\"the process ends\"");
            }
            thread::sleep(END_POLL);
        }
        self.dropped_lines.say();
    }

    fn writers(&self) -> MutexGuard<'_, Vec<Writer>> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Sink ===

impl Sink {
    /// Whether a request has a line. Chance is asked last, and a generator of the thread's own: an even pace would see
    /// the same one of two requests that take turns, and anything that clients have a say in would let them hide.
    fn takes(&self, record: &RequestRecord<'_>) -> bool {
        let snapshot::AccessLog { sample, refusals_only, .. } = self.settings;
        let failed = || record.status.is_some_and(|status| status.is_server_error());
        record.refused || (!refusals_only && (sample >= 1.0 || failed() || fastrand::f64() < sample))
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

    /// Each of them gets a thread, and which of these begins first is chance.
    #[test]
    fn however_soon_one_reload_follows_another_lines_stand_in_order() {
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
        assert!(log.writers().iter().all(|writer| writer.thread.is_finished()), "none waits for ever");
    }
}
