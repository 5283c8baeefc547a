//! Upgrade of the binary: the Unix socket for the handover of the listening sockets.
//!
//! The new process (`--upgrade`) waits on a Unix socket. On SIGQUIT the old process connects to it and passes its
//! listening sockets. Another user who can create this socket could take the listening sockets, so only this user may
//! be able to write to its directory.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use crate::logging::quoted;

/// Time for which Pingora waits for the sockets of the running process.
pub(super) const UPGRADE_TIMEOUT: Duration = Duration::from_secs(6);
/// Maximum length of the path of a Unix-domain socket on Linux, in bytes. Pingora panics if a path is longer.
const MAX_PATH: usize = 107;

/// Returns the path of the socket. This is the configured path, or else a file in `RUNTIME_DIRECTORY`, or else a file
/// in a private directory below the temporary directory of the system.
pub(crate) fn socket(configured: Option<&str>, config: &Path) -> io::Result<PathBuf> {
    let path = choose_path(configured, config)?;
    match path.as_os_str().len() {
        0..=MAX_PATH => Ok(path),
        length => Err(io::Error::other(format!(
            "the path of the upgrade socket has {length} bytes, more than {MAX_PATH}: {}; set a shorter server.upgrade_socket",
            path.display()
        ))),
    }
}

fn choose_path(configured: Option<&str>, config: &Path) -> io::Result<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    if let Some(path) = configured {
        let path = PathBuf::from(path);
        check_private(path.parent().unwrap_or(Path::new("/")), user)?;
        return Ok(path);
    }
    // systemd creates the directory for the user of the service. It may name several.
    if let Some(directories) = std::env::var_os("RUNTIME_DIRECTORY") {
        let first = directories.to_string_lossy().split(':').next().unwrap_or_default().to_owned();
        if !first.is_empty() {
            return Ok(Path::new(&first).join("upgrade.sock"));
        }
    }
    let directory = std::env::temp_dir().join(format!("corsgate-{user}"));
    create_private(&directory, user)?;
    // Symbolic links are not resolved, because the target often changes with a new release.
    let config = std::path::absolute(config).unwrap_or_else(|_| config.to_owned());
    Ok(directory.join(file_name(&config)))
}

/// Returns the file name of the socket for a configuration file. A user may run several instances with different files.
/// The old and the new process of an instance have the same file, but are different programs. So the hash must not
/// depend on the version of Rust or of corsgate.
fn file_name(config: &Path) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, config.as_os_str().as_bytes());
    let mut name = String::new();
    for byte in &hash.as_ref()[..8] {
        // A write to a `String` cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name + ".sock"
}

/// Returns true if a process waits on the socket. It does not connect, because the process would start the handover.
/// Returns an error if the state is unknown, for example because /proc is not readable.
pub(crate) fn is_waiting_at(socket: &Path) -> io::Result<bool> {
    is_waiting_in("/proc/net/unix", socket)
}

fn is_waiting_in(table: &str, socket: &Path) -> io::Result<bool> {
    // The text may not be UTF-8, because of the names of other sockets.
    let text = fs::read(table).map_err(|error| io::Error::other(format!("{table}: {error}")))?;
    Ok(is_accepting(&String::from_utf8_lossy(&text), socket))
}

/// Returns true if the text of /proc/net/unix has a listening socket with this path.
fn is_accepting(table: &str, socket: &Path) -> bool {
    const ACCEPTS: u32 = 0x0001_0000;
    table.lines().skip(1).any(|line| {
        // Number, references, protocol, flags, type, state and inode. The rest of the line is the path, which may have
        // spaces.
        let mut columns = line.splitn(8, ' ').filter(|column| !column.is_empty());
        let flags = columns.nth(3).and_then(|flags| u32::from_str_radix(flags, 16).ok());
        let path = line.find('/').map(|begin| OsStr::new(&line[begin..]));
        flags.is_some_and(|flags| flags & ACCEPTS != 0) && path == Some(socket.as_os_str())
    })
}

/// Starts a thread that logs an error shortly before Pingora stops waiting for the sockets, because Pingora then ends
/// the process without a reason. Drop the returned value to cancel the error.
pub(super) fn explain_timeout(socket: PathBuf) -> Sender<std::convert::Infallible> {
    const MARGIN: Duration = Duration::from_millis(500);
    let (received, waiting) = channel();
    let wait = move || {
        if waiting.recv_timeout(UPGRADE_TIMEOUT.saturating_sub(MARGIN)) == Err(RecvTimeoutError::Timeout) {
            log::error!(
                "no process has handed over its listening sockets, exiting: send SIGQUIT to the running process within {UPGRADE_TIMEOUT:?}, which must have the same configuration file; if none is running, start without --upgrade socket={}",
                quoted(socket.display())
            );
        }
    };
    // If the thread cannot start, only this log line is missing.
    let _ = thread::Builder::new().name("upgrade".to_owned()).spawn(wait);
    received
}

/// Checks that only this user and root can write to a directory.
fn check_private(directory: &Path, user: u32) -> io::Result<()> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let explain = |error: io::Error| io::Error::other(format!("{}: {error}", directory.display()));
    let found = fs::metadata(directory).map_err(explain)?;
    match (found.uid() == user || found.uid() == 0) && found.mode() & 0o022 == 0 {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "{} can be written to by other users, who could take the listening sockets; write a directory that only you can write to",
            directory.display()
        ))),
    }
}

/// Creates a directory that only this user can access, or checks an existing one.
fn create_private(directory: &Path, user: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(directory)?;
    match found.is_dir() && found.uid() == user && found.mode() & 0o777 == 0o700 {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "{} is not a private directory of this user; remove it, or set server.upgrade_socket",
            directory.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_waiting_process_is_seen_without_being_disturbed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("an upgrade.sock");
        assert!(!is_waiting_at(&path).unwrap());
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        assert!(is_waiting_at(&path).unwrap());
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(listener);
        assert!(!is_waiting_at(&path).unwrap(), "a socket file without a process");
    }

    /// Without /proc, the state of other processes is unknown. Both true and false would be wrong for SIGQUIT and
    /// `--upgrade`.
    #[test]
    fn a_table_of_sockets_that_cannot_be_read_is_an_error() {
        let error = is_waiting_in("/missing/unix", Path::new("/run/upgrade.sock")).unwrap_err().to_string();
        assert!(error.contains("/missing/unix"), "{error}");
    }

    /// The old and the new binary must use the same socket, even with different compilers.
    #[test]
    fn the_name_of_the_socket_never_changes() {
        // `printf /etc/corsgate/corsgate.yaml | sha256sum`
        assert_eq!(file_name(Path::new("/etc/corsgate/corsgate.yaml")), "6dd6336c126e6495.sock");
    }

    #[test]
    fn a_path_that_is_too_long_for_a_socket_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("s".repeat(MAX_PATH));
        let error = socket(path.to_str(), Path::new("corsgate.yaml")).unwrap_err().to_string();
        assert!(error.contains("more than 107") && error.contains("server.upgrade_socket"), "{error}");
    }

    #[test]
    fn only_a_listening_socket_of_this_path_counts() {
        let table = "\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 25312 /run/a b/upgrade.sock
0000000000000000: 00000003 00000000 00000000 0001 03 25313 /run/connected.sock
0000000000000000: 00000002 00000000 00010000 0001 01 25314 @/run/abstract.sock
";
        for (path, waits) in [
            ("/run/a b/upgrade.sock", true),
            ("/run/a", false),
            ("/run/connected.sock", false),
            ("/run/other.sock", false),
        ] {
            assert_eq!(is_accepting(table, Path::new(path)), waits, "{path}");
        }
    }

    #[test]
    fn a_configured_directory_must_be_private() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("upgrade.sock");
        let place = || socket(path.to_str(), Path::new("corsgate.yaml"));
        assert_eq!(place().unwrap(), path);
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(place().unwrap_err().to_string().contains("can be written to by other users"));
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("corsgate");
        let user = rustix::process::geteuid().as_raw();
        create_private(&directory, user).unwrap();
        create_private(&directory, user).unwrap();
        assert!(create_private(&directory, user + 1).is_err(), "owned by another user");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(create_private(&directory, user).is_err(), "writable by all users");
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(&directory, &link).unwrap();
        assert!(create_private(&link, user).is_err(), "a symbolic link");
    }
}
