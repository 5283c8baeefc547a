//! When the files of a configuration have changed.
//!
//! Files are polled with `stat`, not watched by the kernel. A poll follows symbolic links, and it means the same on every
//! file system: a Kubernetes volume, where one link above the files is exchanged, network mounts, overlays, and editors
//! that rename.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::file::Files;

/// How long a file may be away before its absence is taken for a change: whoever replaces one may take it away first.
const AWAY: Duration = Duration::from_secs(5);

/// Two looks at the same files.
#[derive(Debug)]
pub(crate) struct Look {
    /// As they were read.
    pub(crate) read: Files,
    /// As they are.
    pub(crate) now: Files,
}

/// Says when a change is over. It remembers the last look, and does not look itself.
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    last: Files,
    away_since: Option<Instant>,
}

// === impl Watcher ===

impl Watcher {
    /// The files that differ from what was read, once they are the same for two looks in a row: until then somebody
    /// still writes. One that has gone is waited for, and then counts as changed.
    pub(crate) fn see(&mut self, look: Look, at: Instant) -> Option<Vec<PathBuf>> {
        let Look { read, now } = look;
        let differ = || read.0.iter().zip(now.0.values()).filter(|((_, then), now)| then != now);
        let has_gone = differ().any(|(_, now)| now.is_none());
        let away = match has_gone {
            true => at - *self.away_since.get_or_insert(at),
            false => {
                self.away_since = None;
                AWAY
            }
        };
        let changed: Vec<PathBuf> = differ().map(|((path, _), _)| path.clone()).collect();
        let settled = std::mem::replace(&mut self.last, now.clone()) == now && away >= AWAY;
        (settled && !changed.is_empty()).then_some(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::Stamp;
    use super::*;

    /// Files `0`, `1`, … with contents of these numbers; 0: not there.
    fn files(contents: &[u64]) -> Files {
        let stamp = |size| Stamp { device: 1, inode: 1, size, modified: (0, 0), changed: (0, 0) };
        let entry = |(i, size): (usize, &u64)| (PathBuf::from(i.to_string()), (*size > 0).then(|| stamp(*size)));
        Files(contents.iter().enumerate().map(entry).collect())
    }

    /// Looks one after the other, each with the seconds since the beginning; which files are said to have changed.
    #[track_caller]
    fn check(read: &[u64], looks: &[(u64, &[u64], &[&str])]) {
        let (mut watcher, begin) = (Watcher::default(), Instant::now());
        for (second, now, expected) in looks {
            let look = Look { read: files(read), now: files(now) };
            let changed = watcher.see(look, begin + Duration::from_secs(*second)).unwrap_or_default();
            assert_eq!(changed, expected.iter().map(PathBuf::from).collect::<Vec<_>>(), "second {second}: {now:?}");
        }
    }

    #[test]
    fn a_change_counts_once_it_is_over() {
        check(&[1], &[(1, &[1], &[]), (2, &[1], &[]), (3, &[2], &[]), (4, &[2], &["0"])]);
        // Somebody writes for long.
        check(&[1], &[(1, &[2], &[]), (2, &[3], &[]), (3, &[4], &[]), (4, &[4], &["0"])]);
        // There and back, as by an editor that saves twice, or by hand.
        check(&[1], &[(1, &[2], &[]), (2, &[1], &[]), (3, &[1], &[])]);
        check(&[1, 1, 1], &[(1, &[1, 2, 1], &[]), (2, &[1, 2, 2], &[]), (3, &[1, 2, 2], &["1", "2"])]);
    }

    #[test]
    fn a_file_that_has_gone_is_waited_for() {
        check(&[1], &[(1, &[0], &[]), (2, &[0], &[]), (3, &[1], &[]), (4, &[1], &[])]);
        check(&[1], &[(1, &[0], &[]), (2, &[0], &[]), (3, &[2], &[]), (4, &[2], &["0"])]);
        check(&[1], &[(1, &[0], &[]), (4, &[0], &[]), (5, &[0], &[]), (6, &[0], &["0"])]);
        check(&[1, 1], &[(1, &[2, 0], &[]), (2, &[2, 0], &[]), (5, &[2, 0], &[]), (6, &[2, 0], &["0", "1"])]);
        // Away twice, and never for long.
        check(&[1], &[(1, &[0], &[]), (4, &[2], &[]), (5, &[0], &[]), (9, &[0], &[]), (10, &[0], &["0"])]);
        // It was not there when the file was read.
        check(&[1, 0], &[(1, &[1, 0], &[]), (9, &[1, 0], &[]), (10, &[1, 1], &[]), (11, &[1, 1], &["1"])]);
    }
}
