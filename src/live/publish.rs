//! Publishes a configuration that was made in this process, and writes it to the source.

use std::fmt;
use std::time::SystemTime;

use super::{Generation, Live, LoadError, RELOAD_DNS_TIMEOUT, Reloaded, open_log, warnings_text};
use crate::problem::Problems;
use crate::snapshot::{Loaded, Snapshot};
use crate::source::{Reading, SourceText, StoreError};

/// A configuration that is to replace the active one.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) text: String,
    pub(crate) snapshot: Snapshot,
    /// Problems of the text. None of them is an error.
    pub(crate) problems: Problems,
    /// The files that were read for it.
    pub(crate) reading: Reading,
}

/// Why a configuration is not published. Neither the active configuration nor its source has changed.
#[derive(Debug)]
pub(crate) enum PublishError {
    /// Another configuration was published since the candidate was made.
    Stale,
    /// This process cannot write the source of its configuration.
    NoStore,
    Store(StoreError),
    /// A part of the configuration cannot be used, such as the access log.
    Unusable(LoadError),
}

impl Live {
    /// Loads a text as if it were the text of the source, with its expectations. `reading` remembers the files.
    pub(crate) fn load_candidate(&self, reading: &Reading, text: &str) -> Loaded {
        self.source.load_candidate(reading, text)
    }

    /// Checks that the source still has the text of a generation, and can be written.
    pub(crate) fn check_store(&self, of: &Generation) -> Result<(), PublishError> {
        let store = self.source.store().ok_or(PublishError::NoStore)?;
        store.check(&of.written.text).map_err(PublishError::Store)
    }

    /// Replaces `base`, if it is still the active configuration. The source is written last, when nothing else can fail.
    pub(crate) fn publish(&self, base: &Generation, candidate: Candidate) -> Result<Reloaded, PublishError> {
        let mut files = self.lock_files();
        let old = self.current();
        if old.number != base.number {
            return Err(PublishError::Stale);
        }
        let store = self.source.store().ok_or(PublishError::NoStore)?;
        let Candidate { text, snapshot, problems, reading } = candidate;
        let warnings = warnings_text(&old.written.name, &text, problems);
        let needs_restart = self.started.differences(snapshot.startup());
        let publish = || {
            let written = SourceText::new(old.written.name.clone(), text.clone(), SystemTime::now());
            let new = Generation::new(old.number + 1, snapshot, written, Some(&old)).map_err(PublishError::Unusable)?;
            new.resolve_names(&self.resolver, RELOAD_DNS_TIMEOUT);
            let log = open_log(&self.source, &self.access_log, &new.snapshot, &reading);
            let log = log.map_err(PublishError::Unusable)?;
            store.replace(&old.written.text, &text, &reading).map_err(PublishError::Store)?;
            Ok(self.activate(new, log))
        };
        let result = publish();
        // Also names of a candidate that was not published: a later one must not use their old answers.
        self.resolver.keep_only(self.current().names());
        let number = result?;
        *files = reading.files();
        self.reloads.count(Ok(number));
        Ok(Reloaded { number, needs_restart, warnings })
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishError::Stale => f.write_str("another change was made at the same time; read the object again"),
            PublishError::NoStore => f.write_str(
                "the configuration is built into the program, or it comes from etcd: write the key with `etcdctl put`",
            ),
            PublishError::Store(StoreError::Changed) => f.write_str(
                "the configuration file has changed since it was loaded; reload it (`kill -HUP`) and read the object again",
            ),
            PublishError::Store(StoreError::ReadOnly { path, why }) => {
                write!(f, "the configuration file {} cannot be written: {why}", path.display())
            }
            PublishError::Store(StoreError::Failed { path, error }) => {
                write!(f, "the configuration file {} was not written: {error}", path.display())
            }
            PublishError::Unusable(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PublishError {}
