//! The keys that were read from the cluster, and their changes.

use std::sync::Arc;
use std::time::SystemTime;

use super::accept::Base;
use super::keys::{Key, Raw, State};
use super::value::Version;
use super::wire::Event;
use super::{Shared, cache, lock};
use crate::logging::quoted;

/// What was read from the cluster.
#[derive(Default)]
pub(super) struct Seen {
    /// None until the first reading.
    pub(super) state: Option<Arc<State>>,
    /// Number of changes.
    pub(super) number: u64,
    /// When the state is from the cache: the time at which it was written.
    pub(super) cache: Option<SystemTime>,
}

// === impl Shared ===

impl Shared {
    /// All keys were read.
    pub(super) fn replace(&self, new: State) {
        let mut seen = lock(&self.seen);
        let Some(old) = seen.state.clone().filter(|_| seen.cache.is_none()) else {
            drop(seen);
            self.set(Arc::new(new));
            return;
        };
        let is_behind = new.revision < old.revision;
        let missed = match is_behind {
            true => 0,
            false => new.missed_by(&old),
        };
        if is_behind {
            log::warn!("etcd has an older revision than before old={} new={}", old.revision, new.revision);
        }
        if missed > 0 {
            log::warn!("etcd watch missed changes, found by reading all keys keys={missed}");
            lock(&self.status).missed += missed as u64;
        }
        if new.is_same(&old) {
            if let Some(state) = &mut seen.state {
                Arc::make_mut(state).revision = new.revision;
            }
            return;
        }
        drop(seen);
        self.set(Arc::new(new));
    }

    /// Changes of a watch. False if all keys must be read again.
    pub(super) fn apply(&self, events: Vec<Event>, revision: i64) -> bool {
        let prefix = format!("{}/", self.address.prefix).into_bytes();
        let mut seen = lock(&self.seen);
        let Some(state) = &mut seen.state else { return false };
        let state = Arc::make_mut(state);
        let was_too_large = state.is_too_large();
        let mut changed = false;
        for Event { kind, kv } in events {
            let Some(kv) = kv else { continue };
            let Some(name) = kv.key.strip_prefix(&*prefix) else { continue };
            changed |= match kind {
                0 => state.put(name, kv.mod_revision, kv.value),
                _ => state.delete(name),
            };
        }
        state.revision = state.revision.max(revision);
        let complete = !was_too_large || state.is_too_large();
        if changed {
            self.signal(&mut seen);
        }
        complete
    }

    fn set(&self, state: Arc<State>) {
        let mut seen = lock(&self.seen);
        (seen.state, seen.cache) = (Some(state), None);
        self.signal(&mut seen);
    }

    fn signal(&self, seen: &mut Seen) {
        seen.number += 1;
        self.seen_changed.notify_all();
        self.changed.notify_one();
    }

    /// Reads the cache. Its versions are the last good ones, also if etcd can be reached.
    pub(super) fn read_cache(&self) -> Option<cache::Cached> {
        let path = cache::path(&self.address)?;
        let cached = match cache::read(&path, &self.address) {
            Ok(cached) => cached?,
            Err(error) => {
                log::warn!("cannot use the cache of etcd file={} error={}", quoted(path.display()), quoted(error));
                return None;
            }
        };
        let read = |(key, raw): (&Key, &Arc<Raw>)| (key.clone(), Version::read(&Base::default(), key, raw));
        let usable = cached.state.keys.iter().map(read).filter(|(_, version)| version.is_usable());
        let mut versions = lock(&self.versions);
        versions.good = usable.collect();
        versions.objects.clone_from(&cached.state.objects);
        drop(versions);
        Some(cached)
    }

    pub(super) fn use_cache(&self, cached: cache::Cached) {
        let mut seen = lock(&self.seen);
        if seen.state.is_none() {
            (seen.state, seen.cache) = (Some(Arc::new(cached.state)), Some(cached.saved));
            self.signal(&mut seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Etcd;

    /// Reading all keys finds a change that the watch did not report.
    #[test]
    fn a_full_reading_counts_missed_changes() {
        let etcd = Etcd::of_url("etcd://127.0.0.1:1/edge").unwrap().unwrap();
        let state = |revision, keys: &[(&str, i64)]| {
            let mut state = State::of(revision, std::collections::BTreeMap::new());
            for (name, revision) in keys {
                state.put(name.as_bytes(), *revision, b"{}".to_vec());
            }
            state
        };
        let missed = || etcd.status().missed;
        etcd.0.replace(state(10, &[("services/a", 3), ("services/b", 10)]));
        let first = etcd.changes();
        // The same keys, and a key that is newer than the watch.
        etcd.0.replace(state(12, &[("services/a", 3), ("services/b", 10)]));
        assert_eq!((missed(), etcd.changes()), (0, first), "nothing has changed");
        etcd.0.replace(state(14, &[("services/a", 3), ("services/b", 10), ("services/c", 13)]));
        assert_eq!((missed(), etcd.changes()), (0, first + 1));
        // Changes up to revision 14 should have been seen.
        etcd.0.replace(state(15, &[("services/a", 9), ("services/b", 10), ("services/c", 13), ("services/d", 14)]));
        assert_eq!((missed(), etcd.changes()), (2, first + 2));
        // A deleted key.
        etcd.0.replace(state(16, &[("services/a", 9)]));
        assert_eq!(etcd.changes(), first + 3);
        // A cluster that was restored from a backup.
        etcd.0.replace(state(5, &[("services/a", 3)]));
        assert_eq!((missed(), etcd.changes()), (2, first + 4));
    }
}
