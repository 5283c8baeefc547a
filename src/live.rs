//! The active configuration: one pointer, replaced as a whole.
//!
//! [`Live::start`] and [`Live::reload`] run the same steps in the same order: read, parse, compile, look up DNS names,
//! open the access log. Only then one atomic store publishes the result. An error in any step changes nothing.

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
use crate::source::watch::Poll;
use crate::source::{ConfigSource, Files, Reading, SourceText, Unreadable};
use crate::terminal::Paint;

/// The active configuration, and its source.
#[derive(Debug)]
pub struct Live {
    source: ConfigSource,
    current: ArcSwap<Generation>,
    /// Previous generations that running requests may still use.
    retired: Mutex<Vec<Arc<Generation>>>,
    /// Settings that the process was started with.
    started: StartupSettings,
    /// Files of the last reload, applied or refused. The lock also serializes reloads.
    files: Mutex<Files>,
    reloads: Reloads,
    access_log: Arc<AccessLogger>,
}

/// Result of an applied reload.
#[derive(Debug)]
pub struct Reloaded {
    /// Number of the new generation.
    pub(crate) number: u64,
    /// Keys that have changed and need a restart.
    pub(crate) needs_restart: Vec<&'static str>,
    /// Warnings as `check` prints them. Empty if there are none.
    pub(crate) warnings: String,
}

/// Why a configuration cannot be used.
#[derive(Debug)]
pub enum LoadError {
    /// The file cannot be read.
    Unreadable(Unreadable),
    /// The text has errors. Holds them as `check` prints them.
    Invalid(String),
    /// The TLS settings of a listener cannot be used.
    Listeners(AcceptorError),
    /// The access log cannot be opened.
    AccessLog(OpenError),
}

// === impl Live ===

impl Live {
    /// Loads the first configuration of the process. Also returns the warnings that `check` prints.
    pub fn start(source: ConfigSource) -> Result<(Self, String), LoadError> {
        let reading = Reading::default();
        let (snapshot, written, warnings) = read(&source, &reading)?;
        let started = snapshot.startup().clone();
        let first = Generation::new(1, snapshot, written, None)?;
        let access_log = Arc::new(AccessLogger::default());
        let opened = open_log(&source, &access_log, &first.snapshot, &reading)?;
        access_log.activate(opened);
        let current = ArcSwap::from_pointee(first);
        let files = Mutex::new(reading.files());
        let (retired, reloads) = (Mutex::default(), Reloads::default());
        Ok((Live { source, current, retired, started, files, reloads, access_log }, warnings))
    }

    pub(crate) fn source(&self) -> &ConfigSource {
        &self.source
    }

    /// The active configuration. A request calls this once and keeps the result.
    pub fn current(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// Settings of the start, which only a restart can change.
    pub(crate) fn started(&self) -> &StartupSettings {
        &self.started
    }

    /// Keys of the active configuration that differ from the start and need a restart.
    pub(crate) fn needs_restart(&self) -> Vec<&'static str> {
        self.started.differences(self.current().snapshot.startup())
    }

    /// History of reloads.
    pub(crate) fn reloads(&self) -> &Reloads {
        &self.reloads
    }

    /// Access log of the active configuration.
    pub fn access_log(&self) -> &Arc<AccessLogger> {
        &self.access_log
    }

    /// Reads the file again. Publishes the new configuration, or changes nothing if it has errors. Reopens the file of
    /// the access log in both cases. Blocks on files and DNS lookups.
    pub fn reload(&self) -> Result<Reloaded, LoadError> {
        let mut files = self.lock_files();
        let reading = Reading::default();
        let result = read(&self.source, &reading).and_then(|(snapshot, written, warnings)| {
            let old = self.current();
            let needs_restart = self.started.differences(snapshot.startup());
            let new = Generation::new(old.number + 1, snapshot, written, Some(&old))?;
            let number = new.number;
            let log = open_log(&self.source, &self.access_log, &new.snapshot, &reading)?;
            let replaced = self.current.swap(Arc::new(new));
            self.lock_retired().push(replaced);
            self.access_log.activate(log);
            Ok(Reloaded { number, needs_restart, warnings })
        });
        *files = reading.files();
        if result.is_err() {
            // Log rotation must work even if the configuration has errors.
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

    /// Frees the retired generations that no request uses. Returns true if some are still used. Without this, the last
    /// request of a generation would free it, which takes long for 100,000 routes.
    pub fn free_retired(&self) -> bool {
        // A generation that only this list refers to cannot get new users.
        let retired = std::mem::take(&mut *self.lock_retired());
        let (unused, used): (Vec<_>, Vec<_>) =
            retired.into_iter().partition(|generation| Arc::strong_count(generation) == 1);
        drop(unused);
        let mut retired = self.lock_retired();
        retired.extend(used);
        !retired.is_empty()
    }

    /// Polls the files of the last reload. Blocks on the file system, and while a reload runs.
    pub(crate) fn poll_files(&self) -> Poll {
        let read = self.lock_files().clone();
        let now = read.stat_again();
        Poll { read, now }
    }

    fn lock_retired(&self) -> MutexGuard<'_, Vec<Arc<Generation>>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads and loads a snapshot. Returns it with its text and its warnings.
fn read(source: &ConfigSource, reading: &Reading) -> Result<(Snapshot, SourceText, String), LoadError> {
    let (text, Loaded { snapshot, mut problems }) = source.read_and_load(reading).map_err(LoadError::Unreadable)?;
    // Hints are for the author of the file, and would repeat in the log with every reload.
    problems.retain(|problem| problem.kind.severity() > Severity::Hint);
    let written = |problems: &Problems| report::text(problems, &Source::new(&text.name, &text.text), Paint::Plain);
    match snapshot {
        Some(snapshot) => {
            let warnings = if problems.is_empty() { String::new() } else { written(&problems) };
            Ok((snapshot, text, warnings))
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
            return Err(LoadError::AccessLog(OpenError::is_configuration(path)));
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
