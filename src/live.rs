//! The configuration in force: one pointer, replaced as a whole.
//!
//! The only place that reads configuration files. [`Live::open`] and [`Live::reload`] do the same things in the same
//! order: read, parse, compile, look names up, open the access log, and only then the one store that publishes the
//! result. A failure anywhere leaves everything as it was.

mod acceptors;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;

pub use self::acceptors::{AcceptorError, Acceptors};
use crate::config::Source;
use crate::problem::{Problems, Severity};
use crate::record::access_log::{Opened, Unopened};
use crate::record::{AccessLog, Tallies};
use crate::report;
use crate::snapshot::{self, Fixed, LogTarget, Snapshot, Surroundings, UpstreamId};
use crate::source::watch::{Files, Look, Reading};
use crate::terminal::Paint;
use crate::upstream::{Upstream, resolve};

/// The configuration in force, and where it comes from.
#[derive(Debug)]
pub struct Live {
    file: Origin,
    current: ArcSwap<Generation>,
    /// Those that were in force before, and may still serve somebody.
    retired: Mutex<Vec<Arc<Generation>>>,
    /// What the process was started with.
    started: Fixed,
    /// One reload at a time; with the files of the last one, whatever came of it.
    files: Mutex<Files>,
    reloads: Reloads,
    access_log: Arc<AccessLog>,
}

/// One configuration with what runs for it. Requests keep the one they began with.
#[derive(Debug)]
pub struct Generation {
    /// 1 for the one that the process started with.
    pub number: u64,
    /// The configuration.
    pub snapshot: Snapshot,
    /// What it was compiled from.
    pub written: Written,
    upstreams: Vec<Arc<Upstream>>,
    acceptors: Acceptors,
    tallies: Tallies,
}

/// The text of a configuration.
#[derive(Debug)]
pub struct Written {
    /// The name of its file, as the process was started with.
    pub name: String,
    /// As it was read.
    pub text: String,
    /// SHA-256 of the text in hexadecimal digits, as `sha256sum` prints it.
    pub hash: String,
    /// When it was read.
    pub read: SystemTime,
}

/// How reloads have gone.
#[derive(Debug, Default)]
pub struct Reloads {
    /// Those that were applied.
    pub applied: AtomicU64,
    /// Those that were refused.
    pub refused: AtomicU64,
    /// The newest was refused: the file is not what is in force.
    pub last_refused: AtomicBool,
    past: Mutex<VecDeque<Reload>>,
}

/// A reload that was tried.
#[derive(Debug, Clone)]
pub struct Reload {
    /// When.
    pub at: SystemTime,
    /// The generation that came of it, or what was wrong, as the log has it.
    pub result: Result<u64, String>,
}

/// How many reloads are remembered.
const MOST_RELOADS: usize = 10;

/// A reload that was applied.
#[derive(Debug)]
pub struct Reloaded {
    /// The generation that is now in force.
    pub number: u64,
    /// What has changed in the file but needs a restart.
    pub needs_restart: Vec<&'static str>,
    /// Warnings, as `check` prints them; empty if there are none.
    pub remarks: String,
}

/// Why a configuration cannot be used.
#[derive(Debug)]
pub enum Refused {
    /// The file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// The text has errors; they are written out as `check` prints them.
    Invalid(String),
    /// Its listeners cannot make handshakes.
    Listeners(AcceptorError),
    /// Its access log cannot be written.
    AccessLog(Unopened),
}

#[derive(Debug)]
enum Origin {
    File(PathBuf),
    /// Compiled in: the demo.
    Text(String),
}

// === impl Live ===

impl Live {
    /// Reads a file. Also gives the warnings that `check` would print.
    pub fn open(path: &Path) -> Result<(Self, String), Refused> {
        Self::start(Origin::File(path.to_owned()))
    }

    /// A configuration that is part of the program.
    pub fn from_text(text: String) -> Result<(Self, String), Refused> {
        Self::start(Origin::Text(text))
    }

    fn start(file: Origin) -> Result<(Self, String), Refused> {
        let reading = Reading::default();
        let (snapshot, written, remarks) = file.read(&reading)?;
        let started = snapshot.fixed().clone();
        let first = Generation::new(1, snapshot, written, None)?;
        let access_log = Arc::new(AccessLog::default());
        let opened = file.open_log(&access_log, &first.snapshot, &reading)?;
        access_log.follow(opened);
        let current = ArcSwap::from_pointee(first);
        let files = Mutex::new(reading.files());
        let (retired, reloads) = (Mutex::default(), Reloads::default());
        Ok((Live { file, current, retired, started, files, reloads, access_log }, remarks))
    }

    /// The configuration file, if there is one.
    pub fn file(&self) -> Option<&Path> {
        match &self.file {
            Origin::File(path) => Some(path),
            Origin::Text(_) => None,
        }
    }

    /// The configuration in force. Requests call this once.
    pub fn current(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// What the process was started with, and only a restart can change.
    pub fn started(&self) -> &Fixed {
        &self.started
    }

    /// The keys in which the configuration in force differs from what the process was started with, and which only a
    /// restart can put in force.
    pub fn needs_restart(&self) -> Vec<&'static str> {
        self.started.differences(self.current().snapshot.fixed())
    }

    /// How reloads have gone.
    pub fn reloads(&self) -> &Reloads {
        &self.reloads
    }

    /// The access log that the configuration in force asks for.
    pub fn access_log(&self) -> &Arc<AccessLog> {
        &self.access_log
    }

    /// Reads the file again and puts it in force, whole or not at all. Opens the file of the access log anew in any
    /// case. Blocks: on files and on name look-ups.
    pub fn reload(&self) -> Result<Reloaded, Refused> {
        let mut files = self.lock_files();
        let reading = Reading::default();
        let result = self.file.read(&reading).and_then(|(snapshot, written, remarks)| {
            let old = self.current();
            let needs_restart = self.started.differences(snapshot.fixed());
            let new = Generation::new(old.number + 1, snapshot, written, Some(&old))?;
            let number = new.number;
            let log = self.file.open_log(&self.access_log, &new.snapshot, &reading)?;
            let replaced = self.current.swap(Arc::new(new));
            self.lock_retired().push(replaced);
            self.access_log.follow(log);
            Ok(Reloaded { number, needs_restart, remarks })
        });
        *files = reading.files();
        if result.is_err() {
            // Whoever has renamed the file does not want to hear of mistakes in the configuration.
            self.access_log.reopen();
        }
        let count = if result.is_ok() { &self.reloads.applied } else { &self.reloads.refused };
        count.fetch_add(1, Ordering::Relaxed);
        self.reloads.last_refused.store(result.is_err(), Ordering::Relaxed);
        self.reloads.remember(match &result {
            Ok(reloaded) => Ok(reloaded.number),
            Err(refused) => Err(refused.to_string()),
        });
        result
    }

    /// Frees the configurations that nobody uses any more; true when some are left. To free 100,000 routes takes as long
    /// as many requests do, and without this the last request of a configuration would have to.
    pub fn free_retired(&self) -> bool {
        // What is only in the list can be handed to nobody any more.
        let retired = std::mem::take(&mut *self.lock_retired());
        let (unused, used): (Vec<_>, Vec<_>) =
            retired.into_iter().partition(|generation| Arc::strong_count(generation) == 1);
        drop(unused);
        let mut retired = self.lock_retired();
        retired.extend(used);
        !retired.is_empty()
    }

    /// Looks at the files that the last reading asked for. Blocks: on the file system, and while a reload runs.
    pub fn look(&self) -> Look {
        let read = self.lock_files().clone();
        let now = read.again();
        Look { read, now }
    }

    fn lock_retired(&self) -> MutexGuard<'_, Vec<Arc<Generation>>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compiles another text as if it were that of the file, beside the same files. Changes nothing.
    pub fn compile(&self, text: &str) -> (Option<Snapshot>, Problems) {
        match &self.file {
            Origin::Text(_) => Snapshot::read(text, Surroundings::NONE),
            Origin::File(path) => read_beside(path, text, &Reading::default()),
        }
    }
}

impl Reloads {
    /// The newest ones, newest first.
    pub fn past(&self) -> Vec<Reload> {
        self.lock().iter().rev().cloned().collect()
    }

    fn remember(&self, result: Result<u64, String>) {
        let mut past = self.lock();
        if past.len() == MOST_RELOADS {
            past.pop_front();
        }
        past.push_back(Reload { at: SystemTime::now(), result });
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Reload>> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Origin {
    /// What paths in it are relative to.
    fn folder(&self) -> &Path {
        match self {
            Origin::File(path) => path.parent().unwrap_or(Path::new("")),
            Origin::Text(_) => Path::new(""),
        }
    }

    /// Opens the access log that a snapshot asks for, unless its lines would go into the configuration itself.
    fn open_log(&self, log: &AccessLog, snapshot: &Snapshot, reading: &Reading) -> Result<Opened, Refused> {
        if let Some(snapshot::AccessLog { to: LogTarget::File(path), .. }) = snapshot.access_log() {
            let path = self.folder().join(&**path);
            if reading.has(&path) {
                return Err(Refused::AccessLog(Unopened::of_the_configuration(path)));
            }
        }
        log.open(snapshot.access_log(), self.folder()).map_err(Refused::AccessLog)
    }

    /// A snapshot, its text, and the warnings about it.
    fn read(&self, reading: &Reading) -> Result<(Snapshot, Written, String), Refused> {
        let read = SystemTime::now();
        let (name, text, (snapshot, problems)) = match self {
            Origin::Text(text) => {
                ("built-in configuration".to_owned(), text.clone(), Snapshot::read(text, Surroundings::NONE))
            }
            Origin::File(path) => {
                let (text, result) = read_file(path, reading)?;
                (path.to_string_lossy().into_owned(), text, result)
            }
        };
        let (snapshot, remarks) = usable(&name, &text, (snapshot, problems))?;
        let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        let hash = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok((snapshot, Written { name, text, hash, read }, remarks))
    }
}

/// Reads a configuration file and what it refers to: the text, and what came of it.
pub fn inspect(path: &Path) -> Result<(String, (Option<Snapshot>, Problems)), Refused> {
    read_file(path, &Reading::default())
}

/// What would come of a configuration file if this were its text.
pub fn inspect_text(path: &Path, text: &str) -> (Option<Snapshot>, Problems) {
    read_beside(path, text, &Reading::default())
}

fn read_file(path: &Path, reading: &Reading) -> Result<(String, (Option<Snapshot>, Problems)), Refused> {
    let text = (reading.read(path))
        .and_then(|bytes| String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8 text")))
        .map_err(|error| Refused::Unreadable(path.to_owned(), error))?;
    let read = read_beside(path, &text, reading);
    Ok((text, read))
}

/// Compiles a text as that of a configuration file.
fn read_beside(path: &Path, text: &str, reading: &Reading) -> (Option<Snapshot>, Problems) {
    let folder = path.parent().unwrap_or(Path::new(""));
    let file = |name: &str| reading.read(&folder.join(name)).map_err(|error| error.to_string());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let has_folder =
        |name: &str| folder.join(name).parent().is_some_and(|folder| folder == Path::new("") || folder.is_dir());
    Snapshot::read(
        text,
        Surroundings { file: &file, has_folder: &has_folder, now: i64::try_from(now).unwrap_or(i64::MAX) },
    )
}

fn usable(name: &str, text: &str, read: (Option<Snapshot>, Problems)) -> Result<(Snapshot, String), Refused> {
    let (snapshot, mut problems) = read;
    // Hints are for whoever writes the file, not for the log of every reload.
    problems.retain(|problem| problem.kind.severity() > Severity::Hint);
    let written = |problems: &Problems| report::text(problems, &Source::new(name, text), Paint::Plain);
    match snapshot {
        Some(snapshot) if problems.is_empty() => Ok((snapshot, String::new())),
        Some(snapshot) => Ok((snapshot, written(&problems))),
        None => Err(Refused::Invalid(written(&problems))),
    }
}

// === impl Generation ===

impl Generation {
    /// What runs for an upstream that is the same as before goes on running.
    fn new(number: u64, snapshot: Snapshot, written: Written, old: Option<&Generation>) -> Result<Self, Refused> {
        let acceptors = Acceptors::new(snapshot.listeners(), old.map(|old| &old.acceptors));
        let acceptors = acceptors.map_err(Refused::Listeners)?;
        // One that is written inline may have the name of another one.
        let mut running: HashMap<&str, Vec<&Arc<Upstream>>> = HashMap::new();
        for upstream in old.iter().flat_map(|old| &old.upstreams) {
            running.entry(&*upstream.spec().name).or_default().push(upstream);
        }
        let mut take = |spec: &crate::snapshot::Upstream| {
            let namesakes = running.get_mut(&*spec.name)?;
            let same = namesakes.iter().position(|upstream| upstream.spec() == spec)?;
            Some(namesakes.swap_remove(same).clone())
        };
        let upstreams = snapshot
            .upstreams()
            .iter()
            .map(|spec| take(spec).unwrap_or_else(|| Arc::new(Upstream::new(spec.clone()))))
            .collect();
        let tallies = Tallies::new(snapshot.routes(), old.map(|old| (old.snapshot.routes(), &old.tallies)));
        let generation = Generation { number, snapshot, written, upstreams, acceptors, tallies };
        generation.refresh_names();
        Ok(generation)
    }

    /// What its listeners need for handshakes.
    pub fn acceptors(&self) -> &Acceptors {
        &self.acceptors
    }

    /// What was counted of the requests to its routes.
    pub fn tallies(&self) -> &Tallies {
        &self.tallies
    }

    /// What runs for an upstream of the snapshot.
    pub fn upstream(&self, id: UpstreamId) -> &Upstream {
        &self.upstreams[id.0]
    }

    /// What runs for all upstreams of the snapshot, in its order.
    pub fn upstreams(&self) -> &[Arc<Upstream>] {
        &self.upstreams
    }

    /// Whether some upstream has names to look up.
    pub fn has_names(&self) -> bool {
        self.upstreams.iter().any(|upstream| upstream.has_names())
    }

    /// Looks up the names of all upstreams, all at the same time. Blocks until the resolver has answered.
    pub fn refresh_names(&self) {
        std::thread::scope(|scope| {
            for upstream in self.upstreams.iter().filter(|upstream| upstream.has_names()) {
                scope.spawn(|| {
                    for (name, error) in upstream.refresh(Instant::now(), resolve) {
                        log::warn!("cannot look up name={name} upstream={} error=\"{error}\"", upstream.spec().name);
                    }
                });
            }
        });
    }
}

// === impl Fixed, Refused ===

impl Fixed {
    /// The keys in which two configurations differ that only a restart can change.
    fn differences(&self, new: &Fixed) -> Vec<&'static str> {
        let Fixed { listeners, admin, threads: _, grace_period: _, drain_delay: _, upgrade_socket: _ } = self;
        let mut keys = Vec::new();
        if *listeners != new.listeners {
            keys.push("listeners");
        }
        if *admin != new.admin {
            keys.push("admin");
        }
        let server =
            |fixed: &Fixed| (fixed.threads, fixed.grace_period, fixed.drain_delay, fixed.upgrade_socket.clone());
        if server(self) != server(new) {
            keys.push("server");
        }
        keys
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Unreadable(path, error) => {
                write!(f, "cannot read {}: {error}; name the file with `--config FILE`", path.display())
            }
            Refused::Invalid(problems) => f.write_str(problems.trim_end()),
            Refused::Listeners(error) => error.fmt(f),
            Refused::AccessLog(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Refused {}
