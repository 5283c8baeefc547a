//! Detects changes of the files of a configuration.
//!
//! Files are polled with `stat`, not watched with inotify. A poll follows symbolic links and works on every file
//! system: Kubernetes volumes, which replace a link above the files, network mounts, overlays, and editors that rename.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::file::Files;

/// Time after which a missing file counts as changed. Some tools delete a file before they write the new one.
const MISSING_TIMEOUT: Duration = Duration::from_secs(5);

/// Metadata of the same files at two points in time.
#[derive(Debug)]
pub(crate) struct Poll {
    /// Metadata at the last read of the files.
    pub(crate) read: Files,
    /// Metadata at the poll.
    pub(crate) now: Files,
}

/// Decides when a change is complete. The caller polls the files; the watcher keeps only the last poll.
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    last: Files,
    missing_since: Option<Instant>,
}

// === impl Watcher ===

impl Watcher {
    /// Returns the files that differ from the last read, after two equal polls in a row. Before that, a write may be in
    /// progress. A missing file counts as changed after [`MISSING_TIMEOUT`].
    pub(crate) fn changed(&mut self, poll: Poll, at: Instant) -> Option<Vec<PathBuf>> {
        let Poll { read, now } = poll;
        let differ = || read.0.iter().zip(now.0.values()).filter(|((_, then), now)| then != now);
        let is_missing = differ().any(|(_, now)| now.is_none());
        let missing_for = match is_missing {
            true => at - *self.missing_since.get_or_insert(at),
            false => {
                self.missing_since = None;
                MISSING_TIMEOUT
            }
        };
        let changed: Vec<PathBuf> = differ().map(|((path, _), _)| path.clone()).collect();
        let settled = std::mem::replace(&mut self.last, now.clone()) == now && missing_for >= MISSING_TIMEOUT;
        (settled && !changed.is_empty()).then_some(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::Stamp;
    use super::*;

    /// Returns files `0`, `1`, … with these contents. 0 means that the file does not exist.
    fn files(contents: &[u64]) -> Files {
        let stamp = |size| Stamp { device: 1, inode: 1, size, modified: (0, 0), changed: (0, 0) };
        let entry = |(i, size): (usize, &u64)| (PathBuf::from(i.to_string()), (*size > 0).then(|| stamp(*size)));
        Files(contents.iter().enumerate().map(entry).collect())
    }

    /// Polls in sequence: seconds since the start, contents of the files, and the files that are reported as changed.
    #[track_caller]
    fn check(read: &[u64], polls: &[(u64, &[u64], &[&str])]) {
        let (mut watcher, begin) = (Watcher::default(), Instant::now());
        for (second, now, expected) in polls {
            let poll = Poll { read: files(read), now: files(now) };
            let changed = watcher.changed(poll, begin + Duration::from_secs(*second)).unwrap_or_default();
            assert_eq!(changed, expected.iter().map(PathBuf::from).collect::<Vec<_>>(), "second {second}: {now:?}");
        }
    }

    #[test]
    fn a_change_counts_once_it_is_over() {
        check(&[1], &[(1, &[1], &[]), (2, &[1], &[]), (3, &[2], &[]), (4, &[2], &["0"])]);
        // A long write.
        check(&[1], &[(1, &[2], &[]), (2, &[3], &[]), (3, &[4], &[]), (4, &[4], &["0"])]);
        // A change that is reverted.
        check(&[1], &[(1, &[2], &[]), (2, &[1], &[]), (3, &[1], &[])]);
        check(&[1, 1, 1], &[(1, &[1, 2, 1], &[]), (2, &[1, 2, 2], &[]), (3, &[1, 2, 2], &["1", "2"])]);
    }

    #[test]
    fn a_file_that_is_missing_is_waited_for() {
        check(&[1], &[(1, &[0], &[]), (2, &[0], &[]), (3, &[1], &[]), (4, &[1], &[])]);
        check(&[1], &[(1, &[0], &[]), (2, &[0], &[]), (3, &[2], &[]), (4, &[2], &["0"])]);
        check(&[1], &[(1, &[0], &[]), (4, &[0], &[]), (5, &[0], &[]), (6, &[0], &["0"])]);
        check(&[1, 1], &[(1, &[2, 0], &[]), (2, &[2, 0], &[]), (5, &[2, 0], &[]), (6, &[2, 0], &["0", "1"])]);
        // Missing twice, each time for less than the timeout.
        check(&[1], &[(1, &[0], &[]), (4, &[2], &[]), (5, &[0], &[]), (9, &[0], &[]), (10, &[0], &["0"])]);
        // A file that was missing when the configuration was read.
        check(&[1, 0], &[(1, &[1, 0], &[]), (9, &[1, 0], &[]), (10, &[1, 1], &[]), (11, &[1, 1], &["1"])]);
    }
}
