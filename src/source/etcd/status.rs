//! The state of the source, for operators and for the record of this instance.

use std::time::{SystemTime, UNIX_EPOCH};

use super::instance::{self, InstanceRecord, RefusedKey};
use super::{KeyRefusal, Shared, lock};

/// The state of etcd from which a snapshot was compiled.
#[derive(Debug, Clone, Default)]
pub(crate) struct Applied {
    pub(crate) revision: i64,
    /// SHA-256 of the keys with their revisions.
    pub(crate) state: String,
    /// SHA-256 of the text of the snapshot.
    pub(crate) sha256: String,
    pub(crate) keys: usize,
    /// When the state is from the cache: the time at which it was written.
    pub(crate) cache: Option<SystemTime>,
}

impl Applied {
    /// Whether no configuration was active yet.
    pub(crate) fn is_none(&self) -> bool {
        self.sha256.is_empty()
    }
}

/// The state of the source, for operators.
#[derive(Debug, Clone, Default)]
pub(crate) struct EtcdStatus {
    /// The member to which it is connected.
    pub(crate) endpoint: Option<String>,
    /// Why it is not connected.
    pub(crate) error: Option<String>,
    /// When it was last known to be up to date. None if never.
    pub(crate) disconnected_since: Option<SystemTime>,
    /// The state of the active snapshot.
    pub(crate) applied: Applied,
    /// At most 100.
    pub(crate) refused: Vec<KeyRefusal>,
    pub(crate) refused_count: usize,
    /// Why the newest state is refused as a whole.
    pub(crate) whole: Option<String>,
    /// Changes that a watch did not report, found by reading all keys. Should be 0.
    pub(crate) missed: u64,
    /// Warnings of the keys in use, as `check` prints them. At most 100.
    pub(super) warnings: Vec<String>,
    pub(super) started: Option<SystemTime>,
    /// Name of this instance.
    pub(crate) id: String,
}

// === impl Shared ===

impl Shared {
    pub(super) fn connected(&self, endpoint: &str) {
        let mut status = lock(&self.status);
        log::info!("following etcd endpoint={endpoint}");
        (status.endpoint, status.error, status.disconnected_since) = (Some(endpoint.to_owned()), None, None);
    }

    pub(super) fn disconnected(&self, error: &str) {
        let mut status = lock(&self.status);
        (status.endpoint, status.error) = (None, Some(error.to_owned()));
        status.disconnected_since.get_or_insert_with(SystemTime::now);
    }

    /// The name of this instance is in use. Takes another one.
    pub(super) fn rename(&self) {
        let mut status = lock(&self.status);
        status.id = format!("{}-{:04x}", instance::id(), fastrand::u16(..));
    }

    /// The record of this instance.
    pub(super) fn record(&self) -> InstanceRecord {
        let status = lock(&self.status);
        let refused = status.refused.iter().map(|refusal| RefusedKey {
            key: refusal.key.clone(),
            revision: refusal.revision,
            fault: refusal.text.lines().next().unwrap_or_default().chars().take(300).collect(),
        });
        let started = status.started.and_then(|started| started.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        InstanceRecord {
            started_unix: started.as_secs(),
            revision: status.applied.revision,
            state: status.applied.state.clone(),
            sha256: status.applied.sha256.clone(),
            from_cache: status.applied.cache.is_some(),
            refused: refused.collect(),
            refused_count: status.refused_count,
            error: status.whole.as_ref().map(|why| why.chars().take(1000).collect()),
            id: status.id.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }
}
