//! Publishes a configuration that was made in this process, and writes it to the source.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Generation, Live, LoadError, RELOAD_DNS_TIMEOUT, Reloaded, open_log, warnings_text};
use crate::config::part_changes;
use crate::problem::Problems;
use crate::snapshot::{Loaded, Snapshot};
use crate::source::{Etcd, Reading, SourceText, Store, StoreError, replace_file};

/// Maximum time from a change in etcd until it is active in this process.
const ETCD_TIMEOUT: Duration = Duration::from_secs(10);

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

/// Why a configuration is not published. Neither the active configuration nor its source has changed, except with
/// `NotApplied` and [`StoreError::Unanswered`].
#[derive(Debug)]
pub(crate) enum PublishError {
    /// Another configuration was published since the candidate was made.
    Stale,
    /// This process cannot write the source of its configuration.
    NoStore,
    Store(StoreError),
    /// The change is not one of services, upstreams, policies and origin sets, which have keys in etcd.
    NoKey,
    /// etcd has the change as this revision, and this process has not applied it. `refused` are the errors of its keys.
    NotApplied {
        revision: i64,
        refused: Option<String>,
    },
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

    /// Replaces `base`, if it is still the active configuration.
    pub(crate) fn publish(&self, base: &Generation, candidate: Candidate) -> Result<Reloaded, PublishError> {
        match self.source.store().ok_or(PublishError::NoStore)? {
            Store::File(path) => self.publish_file(path, base, candidate),
            Store::Etcd(etcd) => self.publish_etcd(etcd, base, candidate),
        }
    }

    /// Writes the changed keys, and waits until the change comes back from etcd, as all other changes do.
    fn publish_etcd(&self, etcd: &Etcd, base: &Generation, candidate: Candidate) -> Result<Reloaded, PublishError> {
        let Candidate { text, snapshot, problems, .. } = candidate;
        let changes = part_changes(&base.written.text, &text).ok_or(PublishError::NoKey)?;
        let transaction = {
            // A reload that has just activated `base` is not at its end: the versions of the transaction come last.
            let _no_reload = self.lock_files();
            // The versions are those of the active configuration, so it must still be `base`.
            if self.current().number != base.number {
                return Err(PublishError::Stale);
            }
            etcd.prepare(&changes).map_err(PublishError::Store)?
        };
        let revision = etcd.commit(&transaction).map_err(PublishError::Store)?;
        let is_applied = etcd.wait_until_applied(revision, ETCD_TIMEOUT);
        let refused: String =
            etcd.status().refused.into_iter().filter(|key| key.revision == revision).map(|key| key.text).collect();
        if !is_applied || !refused.is_empty() {
            let refused = (!refused.is_empty()).then_some(refused);
            return Err(PublishError::NotApplied { revision, refused });
        }
        let warnings = warnings_text(&base.written.name, &text, problems);
        let needs_restart = self.started.differences(snapshot.startup());
        Ok(Reloaded { number: self.current().number, needs_restart, warnings })
    }

    /// The file is written last, when nothing else can fail.
    fn publish_file(&self, path: &Path, base: &Generation, candidate: Candidate) -> Result<Reloaded, PublishError> {
        let mut files = self.lock_files();
        let old = self.current();
        if old.number != base.number {
            return Err(PublishError::Stale);
        }
        let Candidate { text, snapshot, problems, reading } = candidate;
        let warnings = warnings_text(&old.written.name, &text, problems);
        let needs_restart = self.started.differences(snapshot.startup());
        let publish = || {
            let written = SourceText::new(old.written.name.clone(), text.clone(), SystemTime::now());
            let new = Generation::new(old.number + 1, snapshot, written, Some(&old)).map_err(PublishError::Unusable)?;
            new.resolve_names(&self.resolver, RELOAD_DNS_TIMEOUT);
            let log = open_log(&self.source, &self.access_log, &new.snapshot, &reading);
            let log = log.map_err(PublishError::Unusable)?;
            replace_file(path, &old.written.text, &text, &reading).map_err(PublishError::Store)?;
            Ok(self.activate(new, log))
        };
        let result = publish();
        // This also removes the names of a candidate that was not published, so that a later one does not use their old
        // addresses.
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
            PublishError::NoStore => f.write_str("the configuration is built into the program"),
            PublishError::Store(error) => error.fmt(f),
            PublishError::NoKey => {
                f.write_str("only services, upstreams, cors_policies and origin_sets have keys in etcd")
            }
            PublishError::NotApplied { revision, refused: None } => {
                write!(f, "etcd has the change as revision {revision}, and this process has not applied it yet")
            }
            PublishError::NotApplied { revision, refused: Some(text) } => write!(
                f,
                "etcd has the change as revision {revision}, and it is refused because of another change:\n{}",
                text.trim_end()
            ),
            PublishError::Unusable(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PublishError {}
