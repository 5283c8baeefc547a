//! The files of Unix-domain sockets on which the process listens.
//!
//! After a crash, the socket file stays in its directory. Before Pingora listens, it removes any file at the path. This
//! can be a file that is not a socket, or the socket of another process, whose clients would then reach this process.
//! So this module checks the path first. It also removes the file at the end of the process, because Pingora does not.

use std::fmt;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use pingora::listeners::ListenerConfig;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::Sockets;
use crate::logging::quoted;
use crate::snapshot::{Address, Listener, StartupListener};

/// The reason why the process cannot listen on a path.
#[derive(Debug)]
pub(crate) enum SocketFault {
    /// The path has a file that is not a socket.
    OtherFile,
    /// Another process listens on the socket.
    InUse,
    /// It is not known whether a process listens on the socket.
    Unknown(io::Error),
    /// The socket cannot be created.
    Create(io::Error),
}

/// The files that this process removes when it ends.
#[derive(Debug)]
pub(super) struct SocketFiles(Vec<PathBuf>);

/// Adds the permissions of the socket file, if the listener is a Unix-domain socket.
pub(super) fn with_mode(config: ListenerConfig, listener: &Listener) -> ListenerConfig {
    match listener.address {
        Address::Ip(_) => config,
        Address::Unix(_) => config.permissions(Permissions::from_mode(listener.mode)),
    }
}

/// Checks that Pingora may replace the file at `path`, and can create the socket.
pub(super) fn check(path: &Path, sockets: Sockets) -> Result<(), SocketFault> {
    let exists = match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => true,
        Ok(_) => return Err(SocketFault::OtherFile),
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(SocketFault::Create(error)),
    };
    // The running process listens on this socket, and hands it over.
    if sockets == Sockets::Inherited {
        return Ok(());
    }
    if exists {
        check_abandoned(path)?;
        fs::remove_file(path).map_err(SocketFault::Create)?;
    }
    // The check creates a socket and removes it, to detect errors of the directory. Clients get no connection, because
    // the socket is removed before it accepts one.
    UnixListener::bind(path).and_then(|_| fs::remove_file(path)).map_err(SocketFault::Create)
}

/// Checks that no process listens on a socket.
fn check_abandoned(path: &Path) -> Result<(), SocketFault> {
    let unknown = |error: Errno| SocketFault::Unknown(error.into());
    let address = SocketAddrUnix::new(path).map_err(unknown)?;
    // The socket is non-blocking, so that the check does not wait for a process whose queue is full.
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(unknown)?;
    match connect(&socket, &address) {
        Err(Errno::CONNREFUSED) => Ok(()),
        // These errors mean that the queue is full, or that the socket is a datagram socket.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => Err(SocketFault::InUse),
        Err(error) => Err(unknown(error)),
    }
}

// === impl SocketFiles ===

impl SocketFiles {
    pub(super) fn of(listeners: &[StartupListener]) -> Self {
        let path = |listener: &StartupListener| match &listener.address {
            Address::Ip(_) => None,
            Address::Unix(path) => Some(PathBuf::from(&**path)),
        };
        SocketFiles(listeners.iter().filter_map(path).collect())
    }

    /// Removes the files. Call it while the process still listens, because no other process can have replaced the files
    /// yet. A process that starts later creates its own files.
    pub(super) fn remove(&self) {
        for path in &self.0 {
            // An operator may have removed the socket and created another file at the path.
            let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
            if is_socket && let Err(error) = fs::remove_file(path) {
                log::warn!("socket not removed path={} error={}", quoted(path.display()), quoted(error));
            }
        }
    }
}

// === impl SocketFault ===

impl fmt::Display for SocketFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketFault::OtherFile => {
                write!(f, "the file at this path is not a socket; remove the file, or write another path")
            }
            SocketFault::InUse => {
                write!(f, "another process listens there; stop it, or write another path")
            }
            SocketFault::Unknown(error) => {
                write!(f, "another process may listen there ({error}); remove the socket, or write another path")
            }
            SocketFault::Create(error) if error.kind() == ErrorKind::NotFound => {
                write!(f, "{error}; create the directory")
            }
            SocketFault::Create(error) => {
                write!(f, "{error}; write a path in a directory that this user can write to")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn only_a_socket_that_nobody_listens_on_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let fault = |name: &str, sockets| check(&at(name), sockets).err().map(|fault| fault.to_string());
        assert_eq!(fault("new.sock", Sockets::Own), None);
        assert!(!at("new.sock").exists(), "the check leaves no file");

        drop(UnixListener::bind(at("stale.sock")).unwrap());
        assert_eq!(fault("stale.sock", Sockets::Own), None);

        let live = UnixListener::bind(at("live.sock")).unwrap();
        assert!(fault("live.sock", Sockets::Own).unwrap().contains("another process listens there"));
        assert_eq!(fault("live.sock", Sockets::Inherited), None);
        drop(live.accept().unwrap());
        assert!(at("live.sock").exists());

        let _datagrams = UnixDatagram::bind(at("log.sock")).unwrap();
        assert!(fault("log.sock", Sockets::Own).unwrap().contains("another process listens there"));

        fs::write(at("file"), "data").unwrap();
        fs::create_dir(at("folder")).unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        std::os::unix::fs::symlink(at("live.sock"), at("link.sock")).unwrap();
        for other in ["file", "folder", "link", "link.sock"] {
            for sockets in [Sockets::Own, Sockets::Inherited] {
                assert!(fault(other, sockets).unwrap().contains("is not a socket"), "{other}");
            }
            assert!(fs::symlink_metadata(at(other)).is_ok());
        }
        assert_eq!(fs::read_to_string(at("file")).unwrap(), "data");
        let missing = fault("missing/edge.sock", Sockets::Own).unwrap();
        assert!(missing.ends_with("create the directory"), "{missing}");
    }

    /// A process that accepts no connections has a full queue after the connections of the backlog.
    #[test]
    fn a_full_queue_does_not_block_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("busy.sock");
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        socket.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
        socket.listen(0).unwrap();
        let _waiting = std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert!(matches!(check(&path, Sockets::Own), Err(SocketFault::InUse)));
    }

    #[test]
    fn at_the_end_only_sockets_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["edge.sock", "file", "missing.sock"].map(|name| folder.path().join(name));
        let _listener = UnixListener::bind(&paths[0]).unwrap();
        fs::write(&paths[1], "data").unwrap();
        SocketFiles(paths.to_vec()).remove();
        assert_eq!(paths.map(|path| path.exists()), [false, true, false]);
    }
}
