//! The configuration in force: one pointer, replaced as a whole.
//!
//! The only place that reads configuration files. [`Live::open`] and [`Live::reload`] do the same things in the same
//! order: read, parse, compile, look names up, open the access log, and only then the one store that publishes the
//! result. A failure anywhere leaves everything as it was.

mod acceptors;
mod generation;
mod reloads;

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

pub(crate) use self::acceptors::{AcceptorError, Acceptors};
pub(crate) use self::generation::Generation;
pub(crate) use self::reloads::{Reload, Reloads};

use crate::config::Source;
use crate::problem::{Problems, Severity};
use crate::record::AccessLogger;
use crate::record::access_log::{OpenError, Opened};
use crate::report;
use crate::snapshot::{self, Loaded, LogTarget, Snapshot, StartupSettings};
use crate::source::watch::Look;
use crate::source::{ConfigSource, Files, Reading, SourceText, Unreadable};
use crate::terminal::Paint;

/// The configuration in force, and where it comes from.
#[derive(Debug)]
pub struct Live {
    source: ConfigSource,
    current: ArcSwap<Generation>,
    /// Those that were in force before, and may still serve somebody.
    retired: Mutex<Vec<Arc<Generation>>>,
    /// What the process was started with.
    started: StartupSettings,
    /// One reload at a time; with the files of the last one, whatever came of it.
    files: Mutex<Files>,
    reloads: Reloads,
    access_log: Arc<AccessLogger>,
}

/// A reload that was applied.
#[derive(Debug)]
pub struct Reloaded {
    /// The generation that is now in force.
    pub(crate) number: u64,
    /// What has changed in the file but needs a restart.
    pub(crate) needs_restart: Vec<&'static str>,
    /// Warnings, as `check` prints them; empty if there are none.
    pub(crate) remarks: String,
}

/// Why a configuration cannot be used.
#[derive(Debug)]
pub enum LoadError {
    /// The file cannot be read.
    Unreadable(Unreadable),
    /// The text has errors; they are written out as `check` prints them.
    Invalid(String),
    /// Its listeners cannot make handshakes.
    Listeners(AcceptorError),
    /// Its access log cannot be written.
    AccessLog(OpenError),
}

// === impl Live ===

impl Live {
    /// Loads the configuration of the process. Also returns the warnings that `check` would print.
    pub fn start(source: ConfigSource) -> Result<(Self, String), LoadError> {
        let reading = Reading::default();
        let (snapshot, written, remarks) = read(&source, &reading)?;
        let started = snapshot.startup().clone();
        let first = Generation::new(1, snapshot, written, None)?;
        let access_log = Arc::new(AccessLogger::default());
        let opened = open_log(&source, &access_log, &first.snapshot, &reading)?;
        access_log.activate(opened);
        let current = ArcSwap::from_pointee(first);
        let files = Mutex::new(reading.files());
        let (retired, reloads) = (Mutex::default(), Reloads::default());
        Ok((Live { source, current, retired, started, files, reloads, access_log }, remarks))
    }

    /// Where the configuration comes from.
    pub(crate) fn source(&self) -> &ConfigSource {
        &self.source
    }

    /// The configuration in force. Requests call this once.
    pub fn current(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// What the process was started with, and only a restart can change.
    pub(crate) fn started(&self) -> &StartupSettings {
        &self.started
    }

    /// The keys in which the configuration in force differs from what the process was started with, and which only a
    /// restart can put in force.
    pub(crate) fn needs_restart(&self) -> Vec<&'static str> {
        self.started.differences(self.current().snapshot.startup())
    }

    /// How reloads have gone.
    pub(crate) fn reloads(&self) -> &Reloads {
        &self.reloads
    }

    /// The access log that the configuration in force asks for.
    pub fn access_log(&self) -> &Arc<AccessLogger> {
        &self.access_log
    }

    /// Reads the file again and puts it in force, whole or not at all. Opens the file of the access log anew in any
    /// case. Blocks: on files and on name look-ups.
    pub fn reload(&self) -> Result<Reloaded, LoadError> {
        let mut files = self.lock_files();
        let reading = Reading::default();
        let result = read(&self.source, &reading).and_then(|(snapshot, written, remarks)| {
            let old = self.current();
            let needs_restart = self.started.differences(snapshot.startup());
            let new = Generation::new(old.number + 1, snapshot, written, Some(&old))?;
            let number = new.number;
            let log = open_log(&self.source, &self.access_log, &new.snapshot, &reading)?;
            let replaced = self.current.swap(Arc::new(new));
            self.lock_retired().push(replaced);
            self.access_log.activate(log);
            Ok(Reloaded { number, needs_restart, remarks })
        });
        *files = reading.files();
        if result.is_err() {
            // Whoever has renamed the file does not want to hear of mistakes in the configuration.
            self.access_log.reopen();
        }
        let count = if result.is_ok() { &self.reloads.applied } else { &self.reloads.refused };
        count.fetch_add(1, Ordering::Relaxed);
        self.reloads.last_refused.store(result.is_err(), Ordering::Relaxed);
        self.reloads.remember(match &result {
            Ok(reloaded) => Ok(reloaded.number),
            Err(refused) => Err(refused.to_string()),
        });
        result
    }

    /// Frees the configurations that nobody uses any more; true when some are left. To free 100,000 routes takes as long
    /// as many requests do, and without this the last request of a configuration would have to.
    pub fn free_retired(&self) -> bool {
        // What is only in the list can be handed to nobody any more.
        let retired = std::mem::take(&mut *self.lock_retired());
        let (unused, used): (Vec<_>, Vec<_>) =
            retired.into_iter().partition(|generation| Arc::strong_count(generation) == 1);
        drop(unused);
        let mut retired = self.lock_retired();
        retired.extend(used);
        !retired.is_empty()
    }

    /// Looks at the files that the last reading asked for. Blocks: on the file system, and while a reload runs.
    pub(crate) fn look(&self) -> Look {
        let read = self.lock_files().clone();
        let now = read.again();
        Look { read, now }
    }

    fn lock_retired(&self) -> MutexGuard<'_, Vec<Arc<Generation>>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A snapshot, its text, and the warnings about it.
fn read(source: &ConfigSource, reading: &Reading) -> Result<(Snapshot, SourceText, String), LoadError> {
    let (text, Loaded { snapshot, mut problems }) = source.read_and_load(reading).map_err(LoadError::Unreadable)?;
    // Hints are for the author of the file, not for the log of every reload.
    problems.retain(|problem| problem.kind.severity() > Severity::Hint);
    let written = |problems: &Problems| report::text(problems, &Source::new(&text.name, &text.text), Paint::Plain);
    match snapshot {
        Some(snapshot) => {
            let remarks = if problems.is_empty() { String::new() } else { written(&problems) };
            Ok((snapshot, text, remarks))
        }
        None => Err(LoadError::Invalid(written(&problems))),
    }
}

/// Opens the access log of a snapshot. Refuses a path that is a file of the configuration itself.
fn open_log(
    source: &ConfigSource,
    log: &AccessLogger,
    snapshot: &Snapshot,
    reading: &Reading,
) -> Result<Opened, LoadError> {
    if let Some(snapshot::AccessLog { to: LogTarget::File(path), .. }) = snapshot.access_log() {
        let path = source.folder().join(&**path);
        if reading.has(&path) {
            return Err(LoadError::AccessLog(OpenError::of_the_configuration(path)));
        }
    }
    log.open(snapshot.access_log(), source.folder()).map_err(LoadError::AccessLog)
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Unreadable(error) => error.fmt(f),
            LoadError::Invalid(problems) => f.write_str(problems.trim_end()),
            LoadError::Listeners(error) => error.fmt(f),
            LoadError::AccessLog(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LoadError {}
