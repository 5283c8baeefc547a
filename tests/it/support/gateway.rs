//! The real `corsgate` process, as a user runs it.
//!
//! A [`Gateway`] is a serving process with its own configuration, killed and reaped on drop. [`run`] runs a command to
//! its end. Both write their output to files, because a full pipe would block the process. If a test fails, the output
//! of its gateways is printed.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::client::fetch;
use crate::support::process::{PROCESS_TIMEOUT, Process, poll};

/// Timeout of a line in the log.
const LOG_TIMEOUT: Duration = Duration::from_secs(10);

/// Placeholders for addresses in a configuration.
const PLACEHOLDERS: [&str; 4] = ["{listen}", "{admin}", "{listen2}", "{listen3}"];

/// The names of the files in the directory of a gateway.
const CONFIG: &str = "corsgate.yaml";
const STDOUT: &str = "stdout";
const STDERR: &str = "stderr";
/// The name of the access log, for configurations with `access_log: { to: access.log }`.
pub const ACCESS_LOG: &str = "access.log";

/// A serving process.
pub struct Gateway {
    process: Process,
    dir: TempDir,
    /// The directory of the configuration: `dir`, or that of the process from which this one takes over.
    home: PathBuf,
    addresses: Addresses,
    /// The addresses on which it listens after the start.
    listeners: Vec<SocketAddr>,
}

impl Gateway {
    /// Starts `corsgate run` and waits until it accepts connections.
    ///
    /// `{listen}`, `{listen2}`, `{listen3}` and `{admin}` in the configuration are placeholders for free addresses,
    /// such as `127.0.0.1:20001`. The gateway keeps them for its lifetime.
    ///
    /// # Panics
    ///
    /// If the process ends instead, or after a timeout.
    pub fn start(config: &str) -> Self {
        Self::start_with_files(config, &[])
    }

    /// Like [`start`](Self::start), with these files in the directory of the configuration: relative path and contents.
    pub fn start_with_files(config: &str, files: &[(String, String)]) -> Self {
        let mut gateway = Self::spawn_with_files(config, files);
        gateway.wait_until_it_accepts();
        gateway
    }

    /// Like [`start_with_files`](Self::start_with_files), with `--watch`.
    pub fn start_watching(config: &str, files: &[(String, String)]) -> Self {
        let mut gateway = Self::spawn_with(config, files, |command| {
            command.arg("--watch");
        });
        gateway.wait_until_it_accepts();
        gateway
    }

    /// Like [`start`](Self::start), with another stdout than a file.
    pub fn start_with_stdout(config: &str, stdout: impl Into<Stdio>) -> Self {
        let mut gateway = Self::spawn_with(config, &[], |command| {
            command.stdout(stdout);
        });
        gateway.wait_until_it_accepts();
        gateway
    }

    /// Like [`start`](Self::start), but does not wait.
    pub fn spawn(config: &str) -> Self {
        Self::spawn_with_files(config, &[])
    }

    /// Like [`spawn`](Self::spawn), with these files in the directory of the configuration.
    pub fn spawn_with_files(config: &str, files: &[(String, String)]) -> Self {
        Self::spawn_with(config, files, |_| ())
    }

    /// Like [`spawn_with_files`](Self::spawn_with_files), on a machine whose root certificates are in this file.
    pub fn spawn_with_roots(config: &str, files: &[(String, String)], roots: &str) -> Self {
        Self::spawn_with(config, files, |command| {
            command.env("SSL_CERT_FILE", roots).env_remove("SSL_CERT_DIR");
        })
    }

    fn spawn_with(config: &str, files: &[(String, String)], change: impl FnOnce(&mut Command)) -> Self {
        assert!(config.contains("{listen}"), "a configuration that listens at {{listen}}");
        let dir = TempDir::with_prefix("corsgate-").expect("make a directory");
        let addresses = Addresses::free();
        write_files(dir.path(), files);
        write_file(dir.path(), CONFIG, &addresses.fill_in(config));
        let mut command = corsgate();
        output_to_files(command.arg("run").arg("--config").arg(dir.path().join(CONFIG)), dir.path());
        change(&mut command);
        let process = Process::spawn(&mut command);
        let (home, listeners) = (dir.path().to_owned(), addresses.named_in(config));
        Self { process, dir, home, addresses, listeners }
    }

    /// Starts a second process with the same configuration, which will take over the sockets of this one, and waits
    /// until it is ready to. Keep this gateway until the other one has ended: the configuration is in its directory.
    ///
    /// # Panics
    ///
    /// After a timeout.
    #[track_caller]
    pub fn successor(&self) -> Self {
        let dir = TempDir::with_prefix("corsgate-").expect("make a directory");
        let arguments = ["run", "--upgrade", "--config"];
        let process = serving(corsgate().args(arguments).arg(self.home.join(CONFIG)), dir.path());
        let (home, listeners) = (self.home.clone(), self.listeners.clone());
        let successor = Self { process, dir, home, addresses: self.addresses, listeners };
        successor.wait_for_log("waiting for listening sockets, ");
        let socket = successor.stderr();
        let socket = socket.split(" socket=\"").nth(1).and_then(|rest| rest.split('"').next());
        let socket = socket.expect("the log names the socket").to_owned();
        let waits = || fs::read_to_string("/proc/net/unix").is_ok_and(|table| table.contains(&socket));
        assert!(poll(PROCESS_TIMEOUT, || waits().then_some(())).is_some(), "nobody waits at {socket}");
        successor
    }

    /// Starts `corsgate demo` on a free port, and waits until it accepts connections.
    ///
    /// # Panics
    ///
    /// If the process ends, or after a timeout.
    pub fn start_demo() -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let dir = TempDir::with_prefix("corsgate-").expect("make a directory");
        let process = serving(corsgate().args(["demo", "--port", &listen.port().to_string()]), dir.path());
        let (home, addresses) = (dir.path().to_owned(), Addresses([listen; PLACEHOLDERS.len()]));
        let mut gateway = Self { process, dir, home, addresses, listeners: vec![listen] };
        // It prints the introduction after it has bound the address.
        let ended = poll(PROCESS_TIMEOUT, || match gateway.process.try_exit() {
            None if gateway.stdout().is_empty() => None,
            ended => Some(ended),
        });
        assert!(matches!(ended, Some(None)), "the demo does not start: {ended:?}\n{}", gateway.stderr());
        gateway.wait_until_it_accepts();
        // The upstream of the demo starts a moment later.
        let host = [("Host", "cloud.httpbin.org")];
        let reaches = || (fetch(listen, "GET", "/v1/json", &host).status != 502).then_some(());
        assert!(poll(PROCESS_TIMEOUT, reaches).is_some(), "the demo's upstream does not start");
        gateway
    }

    /// Waits until the process accepts connections at all its addresses.
    ///
    /// # Panics
    ///
    /// If the process ends instead, or after a timeout.
    pub fn wait_until_it_accepts(&mut self) {
        for address in self.listeners.clone() {
            let accepted = poll(PROCESS_TIMEOUT, || {
                if let Some(status) = self.process.try_exit() {
                    panic!("the gateway ended instead of serving: {status}");
                }
                TcpStream::connect_timeout(&address, PROCESS_TIMEOUT).ok()
            });
            assert!(accepted.is_some(), "nothing listens at {address} after {PROCESS_TIMEOUT:?}");
        }
    }

    /// The address of `{listen}`.
    pub fn address(&self) -> SocketAddr {
        self.addresses.of("{listen}")
    }

    /// The address of `{listen2}`.
    pub fn address2(&self) -> SocketAddr {
        self.addresses.of("{listen2}")
    }

    /// The address of `{listen3}`.
    pub fn address3(&self) -> SocketAddr {
        self.addresses.of("{listen3}")
    }

    /// The address of `{admin}`.
    pub fn admin(&self) -> SocketAddr {
        self.addresses.of("{admin}")
    }

    /// The id of the process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The resident memory of the process in KiB. Linux only.
    ///
    /// # Panics
    ///
    /// If the process has ended.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the status of the process");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process that still runs");
        resident.trim().trim_end_matches(" kB").parse().expect("a number of kibibytes")
    }

    /// The directory of its configuration, to which paths in the configuration are relative.
    pub fn dir(&self) -> &Path {
        &self.home
    }

    /// Creates a file in the directory of the configuration, or replaces it atomically.
    pub fn replace(&self, name: &str, contents: &str) {
        write_file(&self.home, name, contents);
    }

    /// Replaces files in the directory of the configuration, one after the other.
    pub fn replace_all(&self, files: &[(String, String)]) {
        write_files(&self.home, files);
    }

    /// Replaces the configuration file atomically, with the same addresses for the placeholders.
    pub fn write(&self, config: &str) {
        self.replace(CONFIG, &self.addresses.fill_in(config));
    }

    /// The text that [`write`](Self::write) would write.
    pub fn filled_in(&self, config: &str) -> String {
        self.addresses.fill_in(config)
    }

    /// Replaces the configuration file and sends SIGHUP.
    ///
    /// It does not wait for the reload; the result is in the log.
    pub fn reload_with(&self, config: &str) {
        self.write(config);
        self.signal(Signal::Hup);
    }

    /// Sends a signal to the process as soon as it has a handler; without a handler the signal would kill it.
    ///
    /// # Panics
    ///
    /// After a timeout.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let handled = poll(PROCESS_TIMEOUT, || self.handles(signal).then_some(()));
        assert!(handled.is_some(), "no handler for {signal:?} after {PROCESS_TIMEOUT:?}");
        // `kill` is built into the shell, and not every system has a program of that name.
        let command = format!("kill -s {} {}", signal.name(), self.pid());
        let status = Command::new("sh").arg("-c").arg(&command).status().expect("run sh");
        assert!(status.success(), "{command}: {status}");
    }

    /// Whether the process has a handler for the signal. Linux only.
    fn handles(&self, signal: Signal) -> bool {
        let Ok(status) = fs::read_to_string(format!("/proc/{}/status", self.pid())) else { return true };
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).expect("a mask of signals");
        caught & (1 << (signal.number() - 1)) != 0
    }

    /// Its configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.home.join(CONFIG)
    }

    /// The stdout of the process so far.
    pub fn stdout(&self) -> String {
        self.output(STDOUT)
    }

    /// The log of the process (its stderr) so far.
    pub fn stderr(&self) -> String {
        self.output(STDERR)
    }

    fn output(&self, name: &str) -> String {
        let bytes = fs::read(self.dir.path().join(name)).expect("read the output of the gateway");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until the log contains `needle`.
    ///
    /// # Panics
    ///
    /// After a timeout.
    #[track_caller]
    pub fn wait_for_log(&self, needle: &str) {
        self.wait_for_log_count(needle, 1);
    }

    /// Waits until the log contains `needle` at least `n` times.
    ///
    /// # Panics
    ///
    /// After a timeout.
    #[track_caller]
    pub fn wait_for_log_count(&self, needle: &str, n: usize) {
        let count = || self.stderr().matches(needle).count();
        let found = poll(LOG_TIMEOUT, || (count() >= n).then_some(()));
        assert!(found.is_some(), "{needle:?} is in the log {} of {n} times after {LOG_TIMEOUT:?}", count());
    }

    /// The complete lines of the file [`ACCESS_LOG`] so far; empty if the file does not exist.
    pub fn access_log(&self) -> Vec<String> {
        let text = fs::read(self.home.join(ACCESS_LOG)).unwrap_or_default();
        let text = String::from_utf8(text).expect("a log of UTF-8");
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(str::to_owned).collect()
    }

    /// Waits until the access log has `n` lines.
    ///
    /// # Panics
    ///
    /// If there are more, or after a timeout.
    #[track_caller]
    pub fn wait_for_access_log(&self, n: usize) -> Vec<String> {
        let found = poll(LOG_TIMEOUT, || Some(self.access_log()).filter(|lines| lines.len() >= n));
        let lines = found.unwrap_or_else(|| self.access_log());
        assert_eq!(lines.len(), n, "{lines:#?}");
        lines
    }

    /// Waits until the access log has a line with this text.
    ///
    /// # Panics
    ///
    /// After a timeout.
    #[track_caller]
    pub fn wait_for_access_log_line(&self, text: &str) {
        let found = poll(LOG_TIMEOUT, || self.access_log().iter().any(|line| line.contains(text)).then_some(()));
        assert!(found.is_some(), "no line with {text} in\n{:#?}", self.access_log());
    }

    /// The text of `/metrics` at the address of `{admin}`.
    pub fn metrics(&self) -> String {
        fetch(self.admin(), "GET", "/metrics", &[("Host", "localhost")]).text().to_owned()
    }

    /// The value of a metric. `name` has the labels, as in `/metrics`.
    ///
    /// # Panics
    ///
    /// If there is no such metric.
    #[track_caller]
    pub fn metric(&self, name: &str) -> u64 {
        let metrics = self.metrics();
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no number {name} in {metrics}"))
    }

    /// Waits until the process has ended.
    ///
    /// # Panics
    ///
    /// After a timeout.
    #[track_caller]
    pub fn exit(&mut self) -> ExitStatus {
        match self.process.exit() {
            Some(status) => status,
            None => panic!("the gateway still runs after {PROCESS_TIMEOUT:?}"),
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if thread::panicking() {
            for name in [STDOUT, STDERR] {
                eprintln!("--- {name} of the gateway at {} ---\n{}", self.address(), self.output(name));
            }
        }
    }
}

/// A signal that the gateway handles.
#[derive(Clone, Copy, Debug)]
pub enum Signal {
    /// Reload.
    Hup,
    /// Drain, then exit.
    Term,
    /// Exit at once.
    Int,
    /// Hand over the sockets, drain, then exit.
    Quit,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Hup => "HUP",
            Self::Term => "TERM",
            Self::Int => "INT",
            Self::Quit => "QUIT",
        }
    }

    fn number(self) -> u32 {
        match self {
            Self::Hup => 1,
            Self::Int => 2,
            Self::Quit => 3,
            Self::Term => 15,
        }
    }
}

/// The result of a command.
#[derive(Debug)]
pub struct Output {
    /// The exit code.
    pub code: i32,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

/// Runs `corsgate` with these arguments to its end, in the root of the package.
///
/// # Panics
///
/// After a timeout, or if a signal ends the process.
#[track_caller]
pub fn run(args: &[&str]) -> Output {
    run_in(Path::new(env!("CARGO_MANIFEST_DIR")), args)
}

/// Like [`run`], in the directory `dir`.
#[track_caller]
pub fn run_in(dir: &Path, args: &[&str]) -> Output {
    let [mut stdout, mut stderr] = [(); 2].map(|()| tempfile::tempfile().expect("create a file for output"));
    let handle = |file: &File| file.try_clone().expect("duplicate a file handle");
    let mut process =
        Process::spawn(corsgate().current_dir(dir).args(args).stdout(handle(&stdout)).stderr(handle(&stderr)));
    let status = process.exit();
    let [stdout, stderr] = [&mut stdout, &mut stderr].map(read_from_start);
    match status.map(|status| status.code()) {
        Some(Some(code)) => Output { code, stdout, stderr },
        Some(None) => panic!("corsgate {args:?} died of a signal\n{stdout}\n{stderr}"),
        None => {
            panic!("corsgate {args:?} still runs after {PROCESS_TIMEOUT:?}\n{stdout}\n{stderr}")
        }
    }
}

/// Runs `corsgate check` on this configuration, with these files in its directory. The file is `corsgate.yaml`, and its
/// placeholders are free addresses.
///
/// # Panics
///
/// After a timeout, or if a signal ends the process.
#[track_caller]
pub fn check(config: &str, files: &[(String, String)]) -> Output {
    let dir = TempDir::with_prefix("corsgate-").expect("make a directory");
    write_files(dir.path(), files);
    write_file(dir.path(), CONFIG, &Addresses::free().fill_in(config));
    run_in(dir.path(), &["check", "--config", CONFIG])
}

/// A free port of 127.0.0.1, never the same twice in a process.
///
/// It is below the range of ephemeral ports. So neither a connection nor an [upstream](crate::support::upstream) of the
/// tests can take it in the meantime.
///
/// # Panics
///
/// If no port is left.
pub fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static TRIED: AtomicU16 = AtomicU16::new(0);

    // Parallel processes start at different ports.
    let start = process::id().wrapping_mul(61) % u32::from(COUNT);
    loop {
        let tried = TRIED.fetch_add(1, Ordering::Relaxed);
        assert!(tried < COUNT, "no free port left");
        let offset = (start + u32::from(tried)) % u32::from(COUNT);
        let port = FIRST + u16::try_from(offset).expect("an offset below COUNT");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

/// The addresses of the placeholders, in their order.
#[derive(Clone, Copy)]
struct Addresses([SocketAddr; PLACEHOLDERS.len()]);

impl Addresses {
    fn free() -> Self {
        Self(PLACEHOLDERS.map(|_| free_address()))
    }

    fn of(&self, placeholder: &str) -> SocketAddr {
        self.0[PLACEHOLDERS.iter().position(|known| *known == placeholder).expect("a placeholder")]
    }

    /// The addresses that a configuration uses.
    fn named_in(&self, config: &str) -> Vec<SocketAddr> {
        PLACEHOLDERS.iter().filter(|name| config.contains(**name)).map(|name| self.of(name)).collect()
    }

    fn fill_in(&self, config: &str) -> String {
        PLACEHOLDERS.iter().fold(config.to_owned(), |text, name| text.replace(name, &self.of(name).to_string()))
    }
}

/// Writes the file under another name and renames it, so that no reader can read a part of it.
fn write_file(dir: &Path, name: &str, contents: &str) {
    let (place, draft) = (dir.join(name), dir.join(format!("{name}.draft")));
    fs::create_dir_all(place.parent().expect("a place in a directory")).expect("make a directory");
    fs::write(&draft, contents).expect("write a file");
    fs::rename(draft, place).expect("replace a file");
}

fn write_files(dir: &Path, files: &[(String, String)]) {
    files.iter().for_each(|(name, contents)| write_file(dir, name, contents));
}

fn read_from_start(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("read the output of corsgate");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Starts a process that writes its output to files in `dir`.
fn serving(command: &mut Command, dir: &Path) -> Process {
    Process::spawn(output_to_files(command, dir))
}

fn output_to_files<'c>(command: &'c mut Command, dir: &Path) -> &'c mut Command {
    let file = |name| File::create(dir.join(name)).expect("create a file for output");
    command.stdout(file(STDOUT)).stderr(file(STDERR))
}

/// The binary under test, without input.
fn corsgate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corsgate"));
    command.stdin(Stdio::null());
    command
}
