//! Files of a configuration: reads them, and remembers their metadata, so that a change can be seen.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// More bytes than this no configuration has: that of a million routes has a third of it.
const LARGEST: u64 = 512 << 20;

/// Files, each as it was at one time; None: not there, or not to be looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Files(pub(super) BTreeMap<PathBuf, Option<Stamp>>);

/// What differs when a file is another one, or has been written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    /// Seconds and nanoseconds.
    pub(super) modified: (i64, i64),
    /// When its contents, its owner or its permissions changed: what can be read may differ, too.
    pub(super) changed: (i64, i64),
}

/// The files that one reading has asked for.
#[derive(Debug, Default)]
pub(crate) struct Reading(RefCell<Files>);

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
