//! Upgrade of the binary: the Unix socket for the handover of the listening sockets.
//!
//! The new process (`--upgrade`) waits on a Unix socket. On SIGQUIT the old process connects to it and passes its
//! listening sockets. Another user who can create this socket could take the listening sockets, so only this user may
//! be able to write to its directory.

use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Path of the socket: the configured path, else a file in `RUNTIME_DIRECTORY`, else a file in a private directory
/// below the temporary directory of the system.
pub(crate) fn socket(configured: Option<&str>, config: &Path) -> io::Result<PathBuf> {
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
    // A user may run several instances with different files. The old and the new process of an instance have the same.
    let mut name = DefaultHasher::new();
    // Symbolic links are not resolved: a new release often changes the target.
    std::path::absolute(config).unwrap_or_else(|_| config.to_owned()).hash(&mut name);
    Ok(directory.join(format!("{:016x}.sock", name.finish())))
}

/// True if a process waits on the socket. Does not connect, because the process would take that for the handover.
pub(crate) fn is_waiting_at(socket: &Path) -> bool {
    const ACCEPTS: u32 = 0x0001_0000;
    let Ok(table) = fs::read_to_string("/proc/net/unix") else { return true };
    table.lines().skip(1).any(|line| {
        // Number, references, protocol, flags, type, state and inode. The rest of the line is the path, which may have
        // spaces.
        let mut columns = line.splitn(8, ' ').filter(|column| !column.is_empty());
        let flags = columns.nth(3).and_then(|flags| u32::from_str_radix(flags, 16).ok());
        let path = line.find('/').map(|begin| OsStr::new(&line[begin..]));
        flags.is_some_and(|flags| flags & ACCEPTS != 0) && path == Some(socket.as_os_str())
    })
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
        assert!(!is_waiting_at(&path));
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        assert!(is_waiting_at(&path));
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(listener);
        assert!(!is_waiting_at(&path), "a socket file without a process");
    }

    #[test]
    fn a_configured_place_must_be_check_private() {
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
