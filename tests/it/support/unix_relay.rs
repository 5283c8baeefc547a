//! A Unix-domain socket in front of a TCP server: every connection to it is passed on to one of the server.

use std::io::{ErrorKind, copy};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// A running relay. Its socket is removed on drop. Open connections end when one of their sides closes them.
pub struct UnixRelay {
    path: PathBuf,
    accepted: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
}

impl UnixRelay {
    /// Listens at the path.
    pub fn start(path: impl Into<PathBuf>, server: SocketAddr) -> Self {
        let (path, accepted, stopping) = (path.into(), Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let listener = UnixListener::bind(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (count, stop) = (accepted.clone(), stopping.clone());
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                count.fetch_add(1, Ordering::SeqCst);
                // A server that has stopped closes the connections of its clients.
                let Ok(server) = TcpStream::connect(server) else { continue };
                server.set_nodelay(true).expect("a TCP socket");
                relay(&client, &server);
            }
        });
        UnixRelay { path, accepted, stopping }
    }

    /// The path of its socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of connections so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for UnixRelay {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // `accept` has no timeout; one more connection ends it.
        drop(UnixStream::connect(&self.path));
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => panic!("{}: {error}", self.path.display()),
            _ => {}
        }
    }
}

/// Copies the bytes in both directions, each in its own thread.
fn relay(client: &UnixStream, server: &TcpStream) {
    let clone = || (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
    let ((mut from_client, mut to_server), (mut to_client, mut from_server)) = (clone(), clone());
    thread::spawn(move || {
        let _ = copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    thread::spawn(move || {
        let _ = copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
        let _ = from_server.shutdown(Shutdown::Both);
    });
}
