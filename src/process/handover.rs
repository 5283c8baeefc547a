//! Replacing the running binary: where the listening sockets change hands.
//!
//! The new process waits at a socket of its own in the file system (`--upgrade`), and the old one, on SIGQUIT, connects
//! there and hands over what it listens on. Whoever can wait there instead could take the sockets, so the place must be
//! one that only this user can write to.

use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The socket for a configuration file: the one that is configured, else the service manager's runtime directory, else
/// a private directory below the system's temporary one.
pub(crate) fn socket(configured: Option<&str>, config: &Path) -> io::Result<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    if let Some(path) = configured {
        let path = PathBuf::from(path);
        closed_to_others(path.parent().unwrap_or(Path::new("/")), user)?;
        return Ok(path);
    }
    // systemd creates it for the user of the service, and may name several.
    if let Some(directories) = std::env::var_os("RUNTIME_DIRECTORY") {
        let first = directories.to_string_lossy().split(':').next().unwrap_or_default().to_owned();
        if !first.is_empty() {
            return Ok(Path::new(&first).join("upgrade.sock"));
        }
    }
    let directory = std::env::temp_dir().join(format!("corsgate-{user}"));
    private(&directory, user)?;
    // Two instances of one user have two files; the old and the new process of one instance have the same.
    let mut name = DefaultHasher::new();
    // As it is named, not what it is a link to: a new release often comes with another target.
    std::path::absolute(config).unwrap_or_else(|_| config.to_owned()).hash(&mut name);
    Ok(directory.join(format!("{:016x}.sock", name.finish())))
}

/// Whether a process waits at the socket. Connecting would tell, but would be taken for the handing over.
pub(crate) fn someone_waits_at(socket: &Path) -> bool {
    const ACCEPTS: u32 = 0x0001_0000;
    let Ok(table) = fs::read_to_string("/proc/net/unix") else { return true };
    table.lines().skip(1).any(|line| {
        // Number, references, protocol, flags, type, state, inode; and the rest of the line, spaces and all, is the path.
        let mut columns = line.splitn(8, ' ').filter(|column| !column.is_empty());
        let flags = columns.nth(3).and_then(|flags| u32::from_str_radix(flags, 16).ok());
        let path = line.find('/').map(|begin| OsStr::new(&line[begin..]));
        flags.is_some_and(|flags| flags & ACCEPTS != 0) && path == Some(socket.as_os_str())
    })
}

/// Whether nobody but this user and root can put something into a directory.
fn closed_to_others(directory: &Path, user: u32) -> io::Result<()> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let explain = |error: io::Error| io::Error::other(format!("{}: {error}", directory.display()));
    let found = fs::metadata(directory).map_err(explain)?;
    match (found.uid() == user || found.uid() == 0) && found.mode() & 0o022 == 0 {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "{} can be written to by others, who could take the listening sockets; name a directory of your own",
            directory.display()
        ))),
    }
}

/// Makes a directory that is this user's alone, or makes sure that it is.
fn private(directory: &Path, user: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(directory)?;
    match found.is_dir() && found.uid() == user && found.mode() & 0o777 == 0o700 {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "{} is not a directory of this user alone; remove it, or write server.upgrade_socket",
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
        assert!(!someone_waits_at(&path));
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        assert!(someone_waits_at(&path));
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(listener);
        assert!(!someone_waits_at(&path), "a file that was left behind is nobody");
    }

    #[test]
    fn a_configured_place_must_be_closed_to_others() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("upgrade.sock");
        let place = || socket(path.to_str(), Path::new("corsgate.yaml"));
        assert_eq!(place().unwrap(), path);
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(place().unwrap_err().to_string().contains("can be written to by others"));
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("corsgate");
        let user = rustix::process::geteuid().as_raw();
        private(&directory, user).unwrap();
        private(&directory, user).unwrap();
        assert!(private(&directory, user + 1).is_err(), "another user's");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(private(&directory, user).is_err(), "everybody's");
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(&directory, &link).unwrap();
        assert!(private(&link, user).is_err(), "a link to somewhere");
    }
}
