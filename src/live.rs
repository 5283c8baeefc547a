//! The active configuration: one pointer, replaced as a whole.
//!
//! [`Live::start`] and [`Live::reload`] run the same steps in the same order: read, parse, compile, look up new DNS
//! names, open the access log. Only then one atomic store publishes the result. An error in any step changes nothing.
//!
//! The [`resolver`] knows the addresses of DNS names, and outlives configurations. A reload waits only for names that
//! are new, and only for [`RELOAD_DNS_TIMEOUT`], so a name server that does not respond cannot block reloads.

mod acceptors;
mod generation;
mod publish;
mod reloads;
mod resolver;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

pub(crate) use self::acceptors::{AcceptorError, Acceptors};
pub(crate) use self::generation::{Generation, RouteParts};
pub(crate) use self::publish::{Candidate, PublishError};
pub(crate) use self::reloads::{Reload, Reloads};
use self::resolver::Resolver;
use crate::config::Source;
use crate::per_thread::{Local, Shared};
use crate::problem::{Problems, Severity};
use crate::record::AccessLogger;
use crate::record::access_log::{OpenError, Opened};
use crate::report;
use crate::snapshot::{self, Loaded, LogTarget, Snapshot, StartupSettings};
use crate::source::watch::Poll;
use crate::source::{ConfigSource, Files, Reading, SourceText, Unreadable};
use crate::terminal::Paint;

/// The active configuration, and its source.
#[derive(Debug)]
pub struct Live {
    source: ConfigSource,
    /// Read by every request. The fields behind it change with reloads only.
    current: ArcSwap<Shared<Generation>>,
    /// Previous generations that requests may still use, until their responses begin.
    retired: Mutex<Vec<Arc<Generation>>>,
    /// Settings that the process was started with.
    started: StartupSettings,
    /// Files of the last reload, applied or refused. The lock also serializes reloads.
    files: Mutex<Files>,
    reloads: Reloads,
    access_log: Arc<AccessLogger>,
    resolver: Resolver,
}

/// Maximum time that the start waits for DNS names. If the first of two nameservers is down, the resolver of the system
/// asks the second one after 5 s. Without an address, requests would get 503.
const START_DNS_TIMEOUT: Duration = Duration::from_secs(6);
/// Maximum time that a reload waits for names that the running configuration does not have.
const RELOAD_DNS_TIMEOUT: Duration = Duration::from_secs(2);

/// Result of an applied reload.
#[derive(Debug)]
pub struct Reloaded {
    /// Number of the new generation.
    pub(crate) number: u64,
    /// Keys that have changed and need a restart.
    pub(crate) needs_restart: Vec<&'static str>,
    /// Warnings as `check` prints them. Empty if there are none.
    pub(crate) warnings: String,
}

/// Why a configuration cannot be used.
#[derive(Debug)]
pub enum LoadError {
    /// The file cannot be read.
    Unreadable(Unreadable),
    /// The text has errors. Holds them as `check` prints them.
    Invalid(String),
    /// The TLS settings of a listener cannot be used.
    Listeners(AcceptorError),
    /// The access log cannot be opened.
    AccessLog(OpenError),
}

// === impl Live ===

impl Live {
    /// Loads the first configuration of the process. Also returns the warnings that `check` prints.
    pub fn start(source: ConfigSource) -> Result<(Self, String), LoadError> {
        Self::start_with(source, Resolver::system())
    }

    fn start_with(source: ConfigSource, resolver: Resolver) -> Result<(Self, String), LoadError> {
        let reading = Reading::default();
        let access_log = Arc::new(AccessLogger::default());
        let ((first, opened), warnings) = read_and_prepare(&source, &reading, |snapshot, written| {
            let first = Generation::new(1, snapshot, written, None)?;
            first.resolve_names(&resolver, START_DNS_TIMEOUT);
            let opened = open_log(&source, &access_log, &first.snapshot, &reading)?;
            Ok((first, opened))
        })?;
        let started = first.snapshot.startup().clone();
        access_log.activate(opened);
        let current = ArcSwap::from_pointee(Shared::new(Arc::new(first)));
        source.published();
        let files = Mutex::new(reading.files());
        let (retired, reloads) = (Mutex::default(), Reloads::default());
        Ok((Live { source, current, retired, started, files, reloads, access_log, resolver }, warnings))
    }

    /// A built-in configuration with another resolver.
    #[cfg(test)]
    pub(crate) fn with_lookup(
        text: &str,
        lookup: impl Fn(&str) -> std::io::Result<Vec<std::net::SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        let source = ConfigSource::BuiltIn(text.to_owned());
        Self::start_with(source, Resolver::new(lookup)).unwrap_or_else(|error| panic!("{error}")).0
    }

    #[cfg(test)]
    pub(crate) fn wait_for_lookups(&self) {
        self.resolver.wait_until_idle();
    }

    pub(crate) fn source(&self) -> &ConfigSource {
        &self.source
    }

    /// The active configuration, for services and tools.
    pub fn current(&self) -> Arc<Generation> {
        self.current.load().arc().clone()
    }

    /// The active configuration, for a request or a connection. A request calls this once and keeps the result.
    ///
    /// No thread keeps the configuration by itself: a replaced one is freed when its last request lets it go, however
    /// long other threads have been idle.
    pub fn for_request(&self) -> Local<Generation> {
        self.current.load().local()
    }

    /// Settings of the start, which only a restart can change.
    pub(crate) fn started(&self) -> &StartupSettings {
        &self.started
    }

    /// Keys of the active configuration that differ from the start and need a restart.
    pub(crate) fn needs_restart(&self) -> Vec<&'static str> {
        self.started.differences(self.current().snapshot.startup())
    }

    /// History of reloads.
    pub(crate) fn reloads(&self) -> &Reloads {
        &self.reloads
    }

    /// Access log of the active configuration.
    pub fn access_log(&self) -> &Arc<AccessLogger> {
        &self.access_log
    }

    /// Reads the file again. Publishes the new configuration, or changes nothing if it has errors. Reopens the file of
    /// the access log in both cases. Blocks on files, and on DNS lookups of new names.
    pub fn reload(&self) -> Result<Reloaded, LoadError> {
        let mut files = self.lock_files();
        let reading = Reading::default();
        let prepared = read_and_prepare(&self.source, &reading, |snapshot, written| {
            let old = self.current();
            let new = Generation::new(old.number + 1, snapshot, written, Some(&old))?;
            new.resolve_names(&self.resolver, RELOAD_DNS_TIMEOUT);
            let log = open_log(&self.source, &self.access_log, &new.snapshot, &reading)?;
            Ok((new, log))
        });
        let result = prepared.map(|((new, log), warnings)| {
            let needs_restart = self.started.differences(new.snapshot.startup());
            Reloaded { number: self.activate(new, log), needs_restart, warnings }
        });
        *files = reading.files();
        // This also removes the names of a refused configuration, so that a later one does not use their old addresses.
        self.resolver.keep_only(self.current().names());
        if result.is_err() {
            // Log rotation must work even if the configuration has errors.
            self.access_log.reopen();
        }
        if result.is_ok() {
            self.source.published();
        }
        self.reloads.count(match &result {
            Ok(reloaded) => Ok(reloaded.number),
            Err(refused) => Err(refused.to_string()),
        });
        result
    }

    /// Makes a generation the active one. Returns its number.
    fn activate(&self, new: Generation, log: Opened) -> u64 {
        let number = new.number;
        let replaced = self.current.swap(Arc::new(Shared::new(Arc::new(new))));
        self.lock_retired().push(replaced.arc().clone());
        // A DNS answer after the resolution of the names has changed only the old configuration.
        self.apply_names();
        self.access_log.activate(log);
        number
    }

    /// A reload has panicked. It has changed nothing, and counts as refused.
    pub(crate) fn reload_panicked(&self, error: String) {
        self.reloads.count(Err(error));
    }

    /// Starts to look up all DNS names again. Does not wait for answers.
    pub(crate) fn refresh_names(&self) {
        self.resolver.refresh(self.current().names());
    }

    /// Waits until the addresses of a DNS name have changed.
    pub(crate) async fn names_changed(&self) {
        self.resolver.changed().await;
    }

    /// Gives the upstreams the known addresses of their names.
    pub(crate) fn apply_names(&self) {
        self.current().apply_names(&self.resolver);
    }

    /// Frees the retired generations that no request uses. Returns true if some are still used. Without this, the last
    /// request of a generation would free it, which takes long for 100,000 routes.
    pub fn free_retired(&self) -> bool {
        let unused: Vec<_> = {
            let mut retired = self.lock_retired();
            // A generation that only this list refers to cannot get new users.
            retired.extract_if(.., |generation| Arc::strong_count(generation) == 1).collect()
        };
        drop(unused);
        !self.lock_retired().is_empty()
    }

    /// Number of retired generations in memory.
    pub(crate) fn retired(&self) -> usize {
        self.lock_retired().len()
    }

    /// Polls the files of the last reload. Blocks on the file system, and while a reload runs.
    pub(crate) fn poll_files(&self) -> Poll {
        let read = self.lock_files().clone();
        let now = read.stat_again();
        Poll { read, now }
    }

    fn lock_retired(&self) -> MutexGuard<'_, Vec<Arc<Generation>>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads and loads a snapshot, and prepares its parts. Also returns the warnings. If a value of etcd cannot be used, the
/// source gets the chance to continue without it.
fn read_and_prepare<T>(
    source: &ConfigSource,
    reading: &Reading,
    prepare: impl Fn(Snapshot, SourceText) -> Result<T, LoadError>,
) -> Result<(T, String), LoadError> {
    let attempt = || {
        let (snapshot, written, warnings) = read(source, reading)?;
        Ok((prepare(snapshot, written)?, warnings))
    };
    let error = match attempt() {
        Ok(prepared) => return Ok(prepared),
        Err(error) => error,
    };
    let section = match &error {
        LoadError::Listeners(_) => "listeners",
        LoadError::AccessLog(_) => "access_log",
        LoadError::Unreadable(_) | LoadError::Invalid(_) => return Err(error),
    };
    match source.etcd() {
        Some(etcd) if etcd.refuse_settings(section, &error.to_string()) => attempt(),
        _ => Err(error),
    }
}

/// Reads and loads a snapshot. Returns it with its text and its warnings.
fn read(source: &ConfigSource, reading: &Reading) -> Result<(Snapshot, SourceText, String), LoadError> {
    let (text, Loaded { snapshot, problems }) = source.read_and_load(reading).map_err(LoadError::Unreadable)?;
    let warnings = warnings_text(&text.name, &text.text, problems);
    match snapshot {
        Some(snapshot) => Ok((snapshot, text, warnings)),
        None => Err(LoadError::Invalid(warnings)),
    }
}

/// Errors and warnings as `check` prints them. Empty if there are none. Hints are for the author of the file, and would
/// repeat in the log with every reload.
fn warnings_text(name: &str, text: &str, mut problems: Problems) -> String {
    problems.retain(|problem| problem.kind.severity() > Severity::Hint);
    match problems.is_empty() {
        true => String::new(),
        false => report::text(&problems, &Source::new(name, text), Paint::Plain),
    }
}

/// Opens the access log of a snapshot. Refuses a path that is a file of the configuration itself.
fn open_log(
    source: &ConfigSource,
    log: &AccessLogger,
    snapshot: &Snapshot,
    reading: &Reading,
) -> Result<Opened, LoadError> {
    if let Some(snapshot::AccessLog { to: LogTarget::File(path), .. }) = snapshot.access_log() {
        let name = &**path;
        let path = source.folder().join(name);
        if let Err(why) = source.may_name(name) {
            return Err(LoadError::AccessLog(OpenError::is_refused(path, why)));
        }
        if reading.has(&path) {
            return Err(LoadError::AccessLog(OpenError::is_configuration(path)));
        }
    }
    log.open(snapshot.access_log(), source.folder()).map_err(LoadError::AccessLog)
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Unreadable(error) => error.fmt(f),
            LoadError::Invalid(problems) => f.write_str(problems.trim_end()),
            LoadError::Listeners(error) => error.fmt(f),
            LoadError::AccessLog(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LoadError {}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Sender, channel};
    use std::time::Instant;

    use super::*;
    use crate::snapshot::UpstreamId;

    /// A file with one upstream: a node of this name, and more keys of the upstream.
    fn write(path: &std::path::Path, name: &str, more: &str) {
        let text = format!(
            "
listeners: [{{ address: '127.0.0.1:1' }}]
services: [{{ name: api, upstream: {{ nodes: [{{ address: '{name}:80' }}]{more} }} }}]
"
        );
        std::fs::write(path, text).unwrap();
    }

    /// The address 10.0.0.1 for each name. After the first lookup, each takes one `()` of the channel.
    fn slow_resolver() -> (Resolver, Sender<()>) {
        let (go, gate) = channel::<()>();
        let (gate, first) = (Mutex::new(gate), AtomicBool::new(true));
        let resolver = Resolver::new(move |_| {
            if !first.swap(false, Ordering::SeqCst) {
                gate.lock().unwrap().recv().map_err(io::Error::other)?;
            }
            Ok(vec![SocketAddr::from(([10, 0, 0, 1], 0))])
        });
        (resolver, go)
    }

    fn nodes(live: &Live) -> Vec<SocketAddr> {
        let current = live.current();
        let statuses = current.upstreams().iter().flat_map(|upstream| upstream.statuses());
        statuses.map(|status| status.address.to_string().parse().unwrap()).collect()
    }

    #[test]
    fn a_resolver_that_does_not_answer_does_not_hold_up_a_reload_without_new_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("corsgate.yaml");
        write(&path, "api.test", "");
        let (resolver, _go) = slow_resolver();
        let (live, _) = Live::start_with(ConfigSource::File(path.clone()), resolver).unwrap();
        let node = [SocketAddr::from(([10, 0, 0, 1], 80))];
        assert_eq!(nodes(&live), node);
        live.refresh_names();
        let start = Instant::now();
        live.reload().unwrap();
        // Another upstream of the same name has the known address at once.
        write(&path, "api.test", ", retries: 2");
        live.reload().unwrap();
        assert_eq!(nodes(&live), node);
        assert!(start.elapsed() < RELOAD_DNS_TIMEOUT, "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn a_reload_waits_for_a_new_name_for_a_moment_and_uses_a_late_answer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("corsgate.yaml");
        write(&path, "api.test", "");
        let (resolver, go) = slow_resolver();
        let (live, _) = Live::start_with(ConfigSource::File(path.clone()), resolver).unwrap();
        live.names_changed().await;
        write(&path, "new.test", "");
        live.reload().unwrap();
        assert_eq!(nodes(&live), [], "no answer within the time");
        let start = Instant::now();
        live.reload().unwrap();
        assert!(start.elapsed() < RELOAD_DNS_TIMEOUT, "the name is not new any more");
        go.send(()).unwrap();
        live.names_changed().await;
        live.apply_names();
        assert_eq!(nodes(&live), [SocketAddr::from(([10, 0, 0, 1], 80))]);
        // With a resolver that answers, the reload waits for the answer.
        go.send(()).unwrap();
        write(&path, "another.test", "");
        live.reload().unwrap();
        assert_eq!(nodes(&live), [SocketAddr::from(([10, 0, 0, 1], 80))]);
    }

    #[test]
    fn a_reload_that_panics_counts_as_refused() {
        let text = "
listeners: [{ address: '127.0.0.1:1' }]
services: [{ name: api, upstream: { nodes: [{ address: '127.0.0.1:2' }] } }]
";
        let live = Live::with_lookup(text, |_| Ok(Vec::new()));
        live.reload_panicked("out of range".to_owned());
        let reloads = live.reloads();
        assert_eq!((reloads.applied.load(Ordering::Relaxed), reloads.refused.load(Ordering::Relaxed)), (0, 1));
        assert!(reloads.last_refused.load(Ordering::Relaxed));
        live.reload().unwrap();
        assert!(!reloads.last_refused.load(Ordering::Relaxed));
    }

    /// A thread that had requests and then has none must not keep the configuration of its last request.
    #[test]
    fn idle_threads_keep_no_replaced_configuration() {
        let text = "
listeners: [{ address: '127.0.0.1:1' }]
services: [{ name: api, upstream: { nodes: [{ address: '127.0.0.1:2' }] } }]
";
        let live = Live::with_lookup(text, |_| Ok(Vec::new()));
        let first = Arc::downgrade(&live.current());
        std::thread::scope(|scope| {
            let ((done, steps), mut next) = (channel(), Vec::new());
            for thread in 0..crate::per_thread::threads() {
                let (live, done, (go, step)) = (&live, done.clone(), channel::<()>());
                next.push(go);
                scope.spawn(move || {
                    let last = (0..1000).map(|_| live.for_request()).last().filter(|_| thread == 0);
                    // A response that has begun keeps only these.
                    let _parts = live.for_request().parts(0, UpstreamId(0));
                    let _ = (done.send(()), step.recv());
                    drop(last);
                    let _ = (done.send(()), step.recv());
                });
            }
            let all_done = || steps.iter().take(next.len()).for_each(drop);
            all_done();
            live.reload().unwrap();
            assert!(live.free_retired(), "a request still uses it");
            assert_eq!(live.for_request().number, 2);
            next.iter().for_each(|go| go.send(()).unwrap());
            all_done();
            assert!(!live.free_retired());
            assert!(first.upgrade().is_none());
        });
    }
}
