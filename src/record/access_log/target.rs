//! Where the lines go: opened here, and nowhere else.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::snapshot::LogTarget;

use super::line;

/// What is opened. Paths are complete here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Stdout,
    File(PathBuf),
}

/// Something open that lines are written to. After a reload the next writer has it too, and waits for the one before it:
/// nobody ever waits for its lock.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) open: Arc<Mutex<File>>,
    /// Bytes that are written at once, at most. Other processes may write to the same place, and what is written at
    /// once is not mixed with theirs: to the end of a file any number, to anything else what a pipe takes whole.
    pub(super) at_once: usize,
}

/// Why an access log cannot be written.
#[derive(Debug)]
pub struct OpenError {
    /// `access_log.to`, as a complete path; None: stdout.
    path: Option<PathBuf>,
    error: io::Error,
}

/// Enough for the next lines to come while one write goes on.
const OF_A_FILE: usize = 64 * 1024;
/// Lines hold what people have asked for: their owner and group may read, nobody else.
const MODE: u32 = 0o640;

// === impl Place, Target ===

impl Place {
    pub(super) fn new(target: &LogTarget, folder: &Path) -> Self {
        match target {
            LogTarget::Stdout => Place::Stdout,
            LogTarget::File(path) => Place::File(folder.join(&**path)),
        }
    }

    /// Opens it, a file for appending; one that is not there is made.
    pub(super) fn open(&self) -> Result<Target, OpenError> {
        let opened = match self {
            Place::Stdout => io::stdout().as_fd().try_clone_to_owned().map(File::from),
            Place::File(path) => open_file(path),
        };
        let target = opened.and_then(|file| {
            let at_once = if file.metadata()?.is_file() { OF_A_FILE } else { line::LONGEST };
            Ok(Target { open: Arc::new(Mutex::new(file)), at_once })
        });
        target.map_err(|error| self.open_error(error))
    }

    pub(super) fn open_error(&self, error: io::Error) -> OpenError {
        let path = match self {
            Place::Stdout => None,
            Place::File(path) => Some(path.clone()),
        };
        OpenError { path, error }
    }
}

/// Opening a pipe waits for somebody who reads it, perhaps for ever.
fn open_file(path: &Path) -> io::Result<File> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() && !found.file_type().is_char_device() => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))
        }
        _ => OpenOptions::new().append(true).create(true).mode(MODE).open(path),
    }
}

// === impl OpenError ===

impl OpenError {
    /// For a path that leads to a file of the configuration, which lines would spoil.
    pub(crate) fn of_the_configuration(path: PathBuf) -> Self {
        OpenError { path: Some(path), error: io::Error::other("it is a file of the configuration itself") }
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
                write!(f, "make the folder {folder}, or write another path or `stdout`")
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
