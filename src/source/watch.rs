//! When the files of a configuration have changed: what they were like when they were read, and what they are like now.
//!
//! They are looked at again and again rather than watched by the kernel. A look is a `stat` of a few files, it follows
//! symbolic links, and it means the same on every file system: a Kubernetes volume, where one link above the files is
//! exchanged and nothing happens to the files themselves, network mounts, overlays, and editors that rename.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a file may be away before its absence is taken for a change: whoever replaces one may take it away first.
const AWAY: Duration = Duration::from_secs(5);

/// More bytes than this no configuration has: that of a million routes has a third of it.
const LARGEST: u64 = 512 << 20;

/// Files, each as it was at one time; None: not there, or not to be looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<PathBuf, Option<Stamp>>);

/// What differs when a file is another one, or has been written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// When its contents, its owner or its permissions changed: what can be read may differ, too.
    changed: (i64, i64),
}

/// The files that one reading has asked for.
#[derive(Debug, Default)]
pub(crate) struct Reading(RefCell<Files>);

/// Two looks at the same files.
#[derive(Debug)]
pub struct Look {
    /// As they were read.
    pub read: Files,
    /// As they are.
    pub now: Files,
}

/// Says when a change is over. It remembers the last look, and does not look itself.
#[derive(Debug, Default)]
pub struct Watcher {
    last: Files,
    away_since: Option<Instant>,
}

// === impl Reading, Files ===

impl Reading {
    /// Reads a file, and notes what it was like just before: what is written later shows as a change.
    pub(crate) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let found = std::fs::metadata(path);
        self.0.borrow_mut().0.insert(path.to_owned(), found.as_ref().ok().map(Stamp::of));
        let found = found?;
        // Reading a pipe or a device could wait for ever, and every later reload with it.
        if !found.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        // What was put there by mistake must not take the memory of the requests.
        if found.len() > LARGEST {
            return Err(io::Error::other(format!(
                "it has {} MiB, and none of a configuration may have more than {}",
                found.len() >> 20,
                LARGEST >> 20
            )));
        }
        std::fs::read(path)
    }

    /// Whether a path leads to one of the files that were read, by whatever name; also when that was replaced since.
    pub(crate) fn has(&self, path: &Path) -> bool {
        let place = |path: &Path| std::fs::canonicalize(path).ok();
        let Some(found) = place(path) else { return false };
        self.0.borrow().0.keys().any(|read| place(read).as_ref() == Some(&found))
    }

    /// What was asked for.
    pub(crate) fn files(self) -> Files {
        self.0.into_inner()
    }
}

impl Files {
    /// The same files as they are now.
    pub(crate) fn again(&self) -> Files {
        let stamp = |path: &PathBuf| std::fs::metadata(path).ok().as_ref().map(Stamp::of);
        Files(self.0.keys().map(|path| (path.clone(), stamp(path))).collect())
    }
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

// === impl Watcher ===

impl Watcher {
    /// The files that differ from what was read, once they are the same for two looks in a row: until then somebody
    /// still writes. One that has gone is waited for, and then counts as changed.
    pub fn see(&mut self, look: Look, at: Instant) -> Option<Vec<PathBuf>> {
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
