//! Reads the files of a configuration, and keeps their metadata to detect changes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Maximum size of a file: 64 MiB. Configurations with a million hosts or 100,000 routes have about 20 MiB.
const LARGEST: u64 = 64 << 20;

/// Metadata of files at one point in time. None: the file does not exist, or cannot be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Files(pub(super) BTreeMap<PathBuf, Option<Stamp>>);

/// Metadata that differs when a file was replaced or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    /// Seconds and nanoseconds.
    pub(super) modified: (i64, i64),
    /// Seconds and nanoseconds of the last change of contents, owner or permissions. Permissions decide whether the
    /// file can be read.
    pub(super) changed: (i64, i64),
}

/// The files that were read for one configuration.
#[derive(Debug, Default)]
pub(crate) struct Reading(RefCell<Files>);

// === impl Reading, Files ===

impl Reading {
    /// Reads a file. Its metadata is taken before, so that a write during the read is seen as a change.
    pub(crate) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let found = std::fs::metadata(path);
        self.0.borrow_mut().0.insert(path.to_owned(), found.as_ref().ok().map(Stamp::of));
        let found = found?;
        // Reading a pipe or a device could block forever, and with it every later reload.
        if !found.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        // A huge file, named by mistake, must not exhaust the memory of the running process.
        if found.len() > LARGEST {
            return Err(io::Error::other(format!(
                "it has {} MiB; the maximum for a file of a configuration is {} MiB",
                found.len() >> 20,
                LARGEST >> 20
            )));
        }
        std::fs::read(path)
    }

    /// Remembers a file that this process has written.
    pub(crate) fn record(&self, path: &Path, metadata: &std::fs::Metadata) {
        self.0.borrow_mut().0.insert(path.to_owned(), Some(Stamp::of(metadata)));
    }

    /// True if a path refers to one of the files that were read, also through links or under another name.
    pub(crate) fn has(&self, path: &Path) -> bool {
        let place = |path: &Path| std::fs::canonicalize(path).ok();
        let Some(found) = place(path) else { return false };
        self.0.borrow().0.keys().any(|read| place(read).as_ref() == Some(&found))
    }

    /// The files that were read, with their metadata.
    pub(crate) fn files(self) -> Files {
        self.0.into_inner()
    }
}

impl Files {
    /// Current metadata of the same files.
    pub(crate) fn stat_again(&self) -> Files {
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
