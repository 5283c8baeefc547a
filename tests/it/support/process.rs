//! Child processes of a test, which are killed and reaped on drop, and functions that wait for an effect.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

/// Timeout of the start and of the end of a process.
pub const PROCESS_TIMEOUT: Duration = Duration::from_secs(20);

/// Pause between two polls.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Returns the folder of the programs that Debian does not have. `make test-tools` installs them.
pub fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools")
}

/// A child process, killed and reaped on drop.
pub struct Process(Child);

impl Process {
    /// Starts the command.
    ///
    /// # Panics
    ///
    /// If the program is missing.
    #[track_caller]
    pub fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| {
            let program = command.get_program().display();
            panic!("{program} does not start: {error}; `make test-tools` installs the programs of the tests")
        }))
    }

    /// Starts a server, and waits until it accepts connections at this address.
    ///
    /// # Panics
    ///
    /// If the program is missing or ends, or after a timeout.
    #[track_caller]
    pub fn spawn_server(command: &mut Command, address: SocketAddr) -> Self {
        let mut process = Self::spawn(command);
        let accepted = poll(PROCESS_TIMEOUT, || match process.try_exit() {
            Some(status) => panic!("{command:?} ended: {status}"),
            None => TcpStream::connect(address).ok(),
        });
        assert!(accepted.is_some(), "{command:?} does not accept connections at {address}");
        process
    }

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Its exit status, if it has ended.
    pub fn try_exit(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("ask for the status of a child")
    }

    /// Waits for its exit status; `None` after a timeout.
    pub fn exit(&mut self) -> Option<ExitStatus> {
        poll(PROCESS_TIMEOUT, || self.try_exit())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error here has no consequence for the test.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Calls `probe` until it returns a result, for `limit` at most.
pub fn poll<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        let found = probe();
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
        thread::sleep(POLL_INTERVAL);
    }
}
