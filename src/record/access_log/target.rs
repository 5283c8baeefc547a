//! Targets of the access log: stdout or a file. Only this file opens them.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::snapshot::LogTarget;

use super::line;

/// The place to which lines are written. A path starts with the folder of the configuration, unless it is absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    Stdout,
    File(PathBuf),
}

/// An open target. After a reload, the next writer may share it. That writer waits until the previous writer has ended,
/// so the lock is never contended.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) open: Arc<Mutex<File>>,
    /// Maximum size of one write, in bytes. Writes of other processes to the same target are not mixed with a write of
    /// this size. A file that is open for appending accepts any size, a pipe accepts `PIPE_BUF`.
    pub(super) max_write: usize,
}

/// The error of an access log that cannot be opened.
#[derive(Debug)]
pub struct OpenError {
    /// Path of the file, including the folder of the configuration. None for stdout.
    path: Option<PathBuf>,
    error: io::Error,
}

/// Maximum size of one write to a file, in bytes.
const FILE_WRITE: usize = 64 * 1024;
/// Mode of a new file. Access log lines contain personal data, so only owner and group can read the file.
const MODE: u32 = 0o640;

// === impl Destination, Target ===

impl Destination {
    pub(super) fn new(target: &LogTarget, folder: &Path) -> Self {
        match target {
            LogTarget::Stdout => Destination::Stdout,
            LogTarget::File(path) => Destination::File(folder.join(&**path)),
        }
    }

    /// Opens the target. A file is opened for appending, and created if it does not exist.
    pub(super) fn open(&self) -> Result<Target, OpenError> {
        let opened = match self {
            Destination::Stdout => io::stdout().as_fd().try_clone_to_owned().map(File::from),
            Destination::File(path) => open_file(path),
        };
        let target = opened.and_then(|file| {
            let max_write = if file.metadata()?.is_file() { FILE_WRITE } else { line::LONGEST };
            Ok(Target { open: Arc::new(Mutex::new(file)), max_write })
        });
        target.map_err(|error| self.open_error(error))
    }

    pub(super) fn open_error(&self, error: io::Error) -> OpenError {
        let path = match self {
            Destination::Stdout => None,
            Destination::File(path) => Some(path.clone()),
        };
        OpenError { path, error }
    }
}

/// Opens a file. Refuses a pipe, because the call would block until another process opens the pipe for reading.
fn open_file(path: &Path) -> io::Result<File> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() && !found.file_type().is_char_device() => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
        }
        _ => OpenOptions::new().append(true).create(true).mode(MODE).open(path),
    }
}

// === impl OpenError ===

impl OpenError {
    /// Creates the error for a path that is a file of the configuration. Log lines would destroy the file.
    pub(crate) fn is_configuration(path: PathBuf) -> Self {
        OpenError { path: Some(path), error: io::Error::other("it is a file of the configuration itself") }
    }

    /// For a path that the configuration must not name.
    pub(crate) fn is_refused(path: PathBuf, why: String) -> Self {
        OpenError { path: Some(path), error: io::Error::other(why) }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OpenError { path, error } = self;
        let Some(path) = path else { return write!(f, "access_log.to: cannot write to stdout: {error}") };
        write!(f, "access_log.to: cannot open {}: {error}; ", path.display())?;
        match error.kind() {
            io::ErrorKind::NotFound => {
                let folder = path.parent().unwrap_or(path).display();
                write!(f, "create the folder {folder}, or write another path or `stdout`")
            }
            io::ErrorKind::PermissionDenied => {
                let user = rustix::process::geteuid().as_raw();
                write!(f, "let user {user} write there, or write another path or `stdout`")
            }
            _ => write!(f, "write the path of a file that this process can append to, or `stdout`"),
        }
    }
}

impl std::error::Error for OpenError {}
