//! etcd as the source of a configuration.
//!
//! A thread follows the keys ([`follow`]). When they have changed, the process reloads: [`Etcd::load`] accepts the state
//! ([`accept`]), with the last good version of each key that has an error. What was published is written to a cache file
//! and to the record of this instance.

mod accept;
mod address;
mod cache;
mod client;
mod fleet;
mod follow;
mod instance;
mod keys;
mod plan;
mod wire;
mod write;

use std::collections::HashSet;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use self::accept::{Acceptance, Base, Known, Version, Versions};
pub(crate) use self::accept::{Kept, KeyRefusal};
use self::address::Address;
use self::client::Client;
pub(crate) use self::fleet::{Fleet, Member};
use self::instance::{InstanceRecord, RefusedKey};
use self::keys::{Key, Raw, State};
use self::wire::Event;
pub(crate) use self::write::Transaction;
use super::{Reading, SourceText};
use crate::config::{Document, RemoteSource, Source, environment};
use crate::logging::quoted;
use crate::problem::{At, ProblemKind, Problems, Severity};
use crate::report;
use crate::snapshot::{CompileEnv, Loaded};
use crate::terminal::Paint;

/// The service of a process that waits for its first configuration.
const WAITING: &str =
    r#"{"name":"waiting-for-etcd","respond":{"status":503,"body":"This gateway waits for its configuration.\n"}}"#;

/// How long a start waits for etcd before it uses the cache.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// An etcd cluster and the values read from it. Clones share them.
#[derive(Clone)]
pub struct Etcd(Arc<Shared>);

struct Shared {
    address: Address,
    /// The file with `source`. None if the configuration was named by a URL.
    bootstrap: Option<PathBuf>,
    /// Whether the keys are followed. Otherwise they are read once for each load.
    follows: AtomicBool,
    seen: Mutex<Seen>,
    /// Signals changes of `seen` to the start, which waits on a thread.
    seen_changed: Condvar,
    /// Signals changes of `seen` to the service that reloads.
    changed: Notify,
    /// [`Seen::number`] at the last load.
    loaded: AtomicU64,
    versions: Mutex<VersionsInUse>,
    status: Mutex<EtcdStatus>,
    /// Texts of the file with `source`. It can name every file.
    base_texts: Mutex<HashSet<String>>,
    record_changed: Notify,
    cache_due: Notify,
}

/// What was read from the cluster.
#[derive(Default)]
struct Seen {
    /// None until the first reading.
    state: Option<Arc<State>>,
    /// Number of changes.
    number: u64,
    /// When the state is from the cache: the time at which it was written.
    cache: Option<SystemTime>,
}

#[derive(Default)]
struct VersionsInUse {
    /// All values of the last state, read.
    read: Versions,
    /// The versions of the active snapshot.
    good: Versions,
    /// The versions of the keys in a snapshot that is loaded and not yet active.
    pending: Option<(Versions, Applied)>,
    /// A value of `settings` that could be compiled and not be used, and why.
    unusable: Option<(Arc<Raw>, String)>,
}

/// The state of etcd from which a snapshot was compiled.
#[derive(Debug, Clone, Default)]
pub(crate) struct Applied {
    pub(crate) revision: i64,
    /// SHA-256 of the keys with their revisions.
    pub(crate) state: String,
    /// SHA-256 of the text of the snapshot.
    pub(crate) sha256: String,
    pub(crate) keys: usize,
    /// When the state is from the cache: the time at which it was written.
    pub(crate) cache: Option<SystemTime>,
}

impl Applied {
    /// Whether no configuration was active yet.
    pub(crate) fn is_none(&self) -> bool {
        self.sha256.is_empty()
    }
}

/// The state of the source, for operators.
#[derive(Debug, Clone, Default)]
pub(crate) struct EtcdStatus {
    /// The member to which it is connected.
    pub(crate) endpoint: Option<String>,
    /// Why it is not connected.
    pub(crate) error: Option<String>,
    /// When it was last known to be up to date. None if never.
    pub(crate) disconnected_since: Option<SystemTime>,
    /// The state of the active snapshot.
    pub(crate) applied: Applied,
    /// At most 100.
    pub(crate) refused: Vec<KeyRefusal>,
    pub(crate) refused_count: usize,
    /// Why the newest state is refused as a whole.
    pub(crate) whole: Option<String>,
    /// Changes that a watch did not report, found by reading all keys. Should be 0.
    pub(crate) missed: u64,
    /// Warnings of the keys in use, as `check` prints them. At most 100.
    warnings: Vec<String>,
    started: Option<SystemTime>,
    /// Name of this instance.
    pub(crate) id: String,
}

/// The value of `--config` is not a valid etcd URL.
#[derive(Debug)]
pub(crate) struct BadAddress {
    pub(crate) name: String,
    pub(crate) why: String,
}

// === impl Etcd ===

impl Etcd {
    /// The source that a value of `--config` names. None if it is no URL of etcd.
    pub(crate) fn of_url(url: &str) -> Option<Result<Self, BadAddress>> {
        let address = Address::is_url(url).then(|| Address::of_url(url))?;
        // Without a password and without the query, because it may have anything.
        let (scheme, rest) = url.split('?').next().unwrap_or(url).split_once("://")?;
        let name = format!("{scheme}://{}", rest.rsplit('@').next().unwrap_or(rest));
        Some(address.map(|address| Etcd::new(address, None)).map_err(|why| BadAddress { name, why }))
    }

    /// The source that a file names with `source`. None if it names none. If the key has an error,
    /// [`Etcd::file_problems`] reports it.
    pub(crate) fn of_file(path: &Path, text: &str) -> Option<Self> {
        let mut problems = Problems::default();
        let variable = |name: &str| std::env::var(name).ok();
        let filled = environment::fill(text, &variable, &mut problems);
        let document = Document::parse(filled.as_ref().map_or(text, |filled| &filled.text), &mut problems)?;
        let RemoteSource { etcd: settings } = document.source?;
        let settings = settings.unwrap_or_default();
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut problems = Problems::default();
        let address = Address::of(&settings, folder, &At::root(), &mut problems);
        Some(Etcd::new(address.unwrap_or_else(Address::unknown), Some(path.to_owned())))
    }

    fn new(address: Address, bootstrap: Option<PathBuf>) -> Self {
        Etcd(Arc::new(Shared {
            address,
            bootstrap,
            follows: AtomicBool::new(false),
            seen: Mutex::default(),
            seen_changed: Condvar::new(),
            changed: Notify::new(),
            loaded: AtomicU64::new(0),
            versions: Mutex::default(),
            status: Mutex::new(EtcdStatus {
                started: Some(SystemTime::now()),
                id: instance::id(),
                ..EtcdStatus::default()
            }),
            base_texts: Mutex::default(),
            record_changed: Notify::new(),
            cache_due: Notify::new(),
        }))
    }

    /// Errors of the file with `source`, as `check` prints them. None if it has none.
    pub(crate) fn file_problems(&self) -> Option<String> {
        let refused = self.base(&Reading::default(), &State::default()).err()?;
        let (text, loaded) = *refused;
        Some(report::text(&loaded.problems, &Source::new(&text.name, &text.text), Paint::Plain))
    }

    /// Where the keys are.
    pub(crate) fn name(&self) -> String {
        self.0.address.name()
    }

    /// The file with `source`. None if the configuration was named by a URL.
    pub(super) fn bootstrap(&self) -> Option<&Path> {
        self.0.bootstrap.as_deref()
    }

    /// The state of the source, for operators.
    pub(crate) fn status(&self) -> EtcdStatus {
        lock(&self.0.status).clone()
    }

    /// Begins to follow the keys, and waits for the first state: from etcd, or else from the cache. Without both, and
    /// without a file of the process, it waits until etcd can be reached.
    pub(crate) fn follow(&self) -> std::io::Result<()> {
        let shared = &self.0;
        shared.follows.store(true, Ordering::Relaxed);
        let cached = shared.read_cache();
        follow::run(shared)?;
        if self.wait_for_change(0, START_TIMEOUT) > 0 {
            return Ok(());
        }
        let why = lock(&shared.status).error.clone().unwrap_or_else(|| "no answer".into());
        if let Some(cached) = cached {
            let age = cached.saved.elapsed().unwrap_or_default().as_secs();
            log::warn!(
                "etcd cannot be reached, using the cache revision={} age={age}s error={}",
                cached.revision,
                quoted(&why)
            );
            shared.use_cache(cached);
            return Ok(());
        }
        log::warn!("etcd cannot be reached and there is no cache, waiting, not ready error={}", quoted(&why));
        if self.bootstrap().is_some() {
            return Ok(());
        }
        while self.wait_for_change(0, Duration::from_secs(60)) == 0 {}
        Ok(())
    }

    /// Waits until there were more changes than `number`, on this thread. Returns their number.
    pub(crate) fn wait_for_change(&self, number: u64, most: Duration) -> u64 {
        let until = Instant::now() + most;
        let mut seen = lock(&self.0.seen);
        while seen.number <= number {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            seen = self.0.seen_changed.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        seen.number
    }

    /// Number of changes so far.
    pub(crate) fn changes(&self) -> u64 {
        lock(&self.0.seen).number
    }

    /// Waits for a change that was not loaded yet.
    pub(crate) async fn changed(&self) {
        while self.changes() <= self.0.loaded.load(Ordering::Relaxed) {
            self.0.changed.notified().await;
        }
    }

    /// Accepts the newest state. `reading` remembers the files that were read.
    pub(super) fn load(&self, reading: &Reading) -> (SourceText, Loaded) {
        let shared = &self.0;
        // Of an earlier snapshot that could not be published.
        lock(&shared.versions).pending = None;
        let read = SystemTime::now();
        let refused = |why: String, text: String| {
            let kind = ProblemKind::Unreadable { why, remedy: "correct the keys; nothing has changed" };
            let problems = std::iter::once(crate::problem::Problem { at: At::root().path(), kind }).collect();
            (SourceText::new(self.name(), text, read), Loaded { snapshot: None, problems })
        };
        if let Err(refused) = self.base(reading, &State::default()) {
            return *refused;
        }
        if let Err(error) = self.read_once() {
            return refused(error, String::new());
        }
        let (state, cache) = {
            let seen = lock(&shared.seen);
            shared.loaded.store(seen.number, Ordering::Relaxed);
            (seen.state.clone(), seen.cache)
        };
        let Some(state) = state else {
            let why = lock(&shared.status).error.clone().unwrap_or_else(|| "etcd was not reached yet".into());
            return self.waiting(&State::default(), reading).unwrap_or_else(|| refused(why, String::new()));
        };
        let acceptance = match self.accept(&state, reading) {
            Ok(acceptance) => acceptance,
            Err(loaded) => return *loaded,
        };
        self.note(&acceptance);
        let mut versions = lock(&shared.versions);
        versions.read = acceptance.read;
        if let Some(why) = acceptance.whole {
            drop(versions);
            shared.record_changed.notify_one();
            let Some(waiting) = self.waiting(&state, reading) else {
                return refused(why.trim_end().to_owned(), acceptance.text);
            };
            log::error!("waiting for a configuration that can be used, not ready:\n{}", why.trim_end());
            return waiting;
        }
        let text = SourceText::new(self.name(), acceptance.text, read);
        let applied = Applied {
            revision: state.revision,
            state: state.digest(),
            sha256: text.hash.clone(),
            keys: acceptance.used.len(),
            cache,
        };
        versions.pending = Some((acceptance.used, applied));
        (text, Loaded { snapshot: acceptance.snapshot, problems: Problems::default() })
    }

    /// The configuration of a process that has none yet: its own settings, and 503 for all requests. So its liveness and
    /// the reason can be asked, and nothing restarts it. None once it has had a configuration, or without a file of its own.
    fn waiting(&self, state: &State, reading: &Reading) -> Option<(SourceText, Loaded)> {
        self.bootstrap()?;
        let is_process = self.0.follows.load(Ordering::Relaxed);
        if !is_process || !lock(&self.0.status).applied.is_none() {
            return None;
        }
        let text = self.base(reading, state).ok()?.text_with_service(WAITING);
        let loaded = self.with_env(reading, |env| crate::snapshot::load(&text, env));
        loaded.snapshot.as_ref()?;
        Some((SourceText::new(self.name(), text, SystemTime::now()), loaded))
    }

    /// Problems of all keys, for `check`: the texts and the JSON. The flags say whether there are errors and warnings.
    pub(crate) fn check(&self) -> Result<EtcdCheck, String> {
        self.read_once()?;
        let state = lock(&self.0.seen).state.clone().unwrap_or_default();
        let reading = Reading::default();
        let acceptance = match self.accept(&state, &reading) {
            Ok(acceptance) => acceptance,
            Err(refused) => {
                let (text, loaded) = *refused;
                return Err(report::text(&loaded.problems, &Source::new(&text.name, &text.text), Paint::Plain));
            }
        };
        Ok(EtcdCheck {
            name: self.name(),
            revision: state.revision,
            keys: state.keys.len(),
            refused: acceptance.refused,
            refused_count: acceptance.refused_count,
            warnings: acceptance.warnings,
            whole: acceptance.whole,
        })
    }

    /// The snapshot that was loaded last is in use.
    pub(super) fn published(&self) {
        let shared = &self.0;
        let mut versions = lock(&shared.versions);
        if let Some((used, applied)) = versions.pending.take() {
            versions.good = used;
            lock(&shared.status).applied = applied;
        }
        drop(versions);
        // For `wait_until_applied`, which reads the status with this lock.
        drop(lock(&shared.seen));
        shared.seen_changed.notify_all();
        shared.record_changed.notify_one();
        shared.cache_due.notify_one();
    }

    /// The snapshot that was loaded last cannot be used because of this key of the file. If the key is in `settings`,
    /// that value is refused from now on, and another load uses the one before. False if the error stays.
    pub(crate) fn refuse_settings(&self, section: &str, why: &str) -> bool {
        let mut versions = lock(&self.0.versions);
        let settings = Key::settings();
        let pending = versions.pending.as_ref().and_then(|(used, _)| used.get(&settings)).cloned();
        let Some(version) = pending.filter(|version| version.sets(section)) else { return false };
        if versions.good.get(&settings).is_some_and(|good| good.raw.value == version.raw.value) {
            // It was in use. Only a process that starts continues without it.
            if !lock(&self.0.status).applied.is_none() {
                lock(&self.0.status).whole = Some(format!("settings: {why}"));
                return false;
            }
            versions.good.remove(&settings);
        }
        versions.unusable = Some((version.raw.clone(), why.to_owned()));
        true
    }

    /// Tries a value again that could not be used.
    pub(crate) fn try_again(&self) {
        lock(&self.0.versions).unusable = None;
    }

    fn accept(&self, state: &State, reading: &Reading) -> Result<Acceptance, Box<(SourceText, Loaded)>> {
        let base = self.base(reading, state)?;
        let known = {
            let versions = lock(&self.0.versions);
            Known { read: versions.read.clone(), good: versions.good.clone(), unusable: versions.unusable.clone() }
        };
        Ok(self.with_env(reading, |env| accept::accept(&base, state, &known, env)))
    }

    /// The settings of the file with `source`. Err: the file has errors. A command without such a file assumes listeners.
    fn base(&self, reading: &Reading, state: &State) -> Result<Base, Box<(SourceText, Loaded)>> {
        let Some(path) = self.bootstrap() else {
            return Ok(match self.0.follows.load(Ordering::Relaxed) {
                true => Base::default(),
                false => Base::of_unknown_process(state),
            });
        };
        let source = super::ConfigSource::File(path.to_owned());
        let name = path.to_string_lossy().into_owned();
        let text = match source.read(reading) {
            Ok(text) => text,
            Err(unreadable) => {
                let kind = ProblemKind::Unreadable { why: unreadable.error.to_string(), remedy: unreadable.remedy() };
                let problems = std::iter::once(crate::problem::Problem { at: At::root().path(), kind }).collect();
                let text = SourceText::new(name, String::new(), SystemTime::now());
                return Err(Box::new((text, Loaded { snapshot: None, problems })));
            }
        };
        let mut problems = Problems::default();
        let variable = |name: &str| std::env::var(name).ok();
        let filled = environment::fill(&text.text, &variable, &mut problems);
        let whole = filled.as_ref().map_or(&*text.text, |filled| &filled.text);
        let document = Document::parse(whole, &mut problems).unwrap_or_default();
        self.check_base(&document, &mut problems);
        match problems.any_errors() {
            true => Err(Box::new((text, Loaded { snapshot: None, problems }))),
            false => {
                let mut texts = lock(&self.0.base_texts);
                texts.clear();
                collect_texts(&serde_json::to_value(&document).unwrap_or_default(), &mut texts);
                Ok(Base::new(Some((name, text.text)), document))
            }
        }
    }

    /// Whether the configuration may name this file. A value of etcd names only files below the folder of the file with
    /// `source`, so that whoever can write to etcd cannot open every file of the machine.
    pub(super) fn may_name(&self, name: &str) -> Result<(), String> {
        let is_below =
            Path::new(name).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        match self.bootstrap() {
            _ if lock(&self.0.base_texts).contains(name) => Ok(()),
            Some(_) if is_below => Ok(()),
            Some(_) => Err("a value of etcd names only files below the directory of the configuration file, by a \
                            relative path without `..`"
                .into()),
            None => {
                Err("a value of etcd names files only if this process has a configuration file, with `source`".into())
            }
        }
    }

    /// Keys that the file with `source` cannot have.
    fn check_base(&self, document: &Document, problems: &mut Problems) {
        let root = At::root();
        for key in document.keys_set() {
            let other = match &*key {
                "services" => "services",
                "upstreams" => "upstreams",
                "cors_policies" => "cors_policies",
                "origin_sets" => "origin_sets",
                "expect" => "expect",
                "expect_files" => "expect_files",
                _ => continue,
            };
            problems.add(&root.key(&key), ProblemKind::ExclusiveKeys { one: "source", other });
        }
        match &document.source {
            Some(RemoteSource { etcd }) => {
                let settings = &etcd.clone().unwrap_or_default();
                let source = root.key("source");
                let folder = self.bootstrap().and_then(Path::parent).unwrap_or(Path::new(""));
                let address = Address::of(settings, folder, &source.key("etcd"), problems);
                if address.is_some_and(|address| address != self.0.address) {
                    log::warn!("change needs a restart key=source");
                }
            }
            None => log::warn!("change needs a restart key=source"),
        }
    }

    /// Calls `load` with the files and the time of this machine.
    fn with_env<T>(&self, reading: &Reading, load: impl FnOnce(CompileEnv<'_>) -> T) -> T {
        super::ConfigSource::Etcd(self.clone()).with_env(reading, load)
    }

    /// Updates the status, and logs the keys that are refused or accepted now and were not before.
    fn note(&self, acceptance: &Acceptance) {
        let mut status = lock(&self.0.status);
        for refusal in &acceptance.refused {
            if !status.refused.contains(refusal) {
                let kept = match refusal.kept {
                    Kept::Revision(revision) => format!("revision {revision} stays"),
                    Kept::Nothing => "it is left out".into(),
                };
                log::error!(
                    "etcd key refused, {kept} key={} revision={}\n{}",
                    quoted(&refusal.key),
                    refusal.revision,
                    refusal.text.trim_end()
                );
            }
        }
        for known in &status.refused {
            if !acceptance.refused.iter().any(|refusal| refusal.key == known.key) {
                log::info!("etcd key accepted again or deleted key={}", quoted(&known.key));
            }
        }
        let warnings = acceptance.warnings.iter().filter(|(severity, _, _)| *severity == Severity::Warning);
        let warnings: Vec<String> = warnings.map(|(_, text, _)| text.clone()).collect();
        for text in warnings.iter().filter(|text| !status.warnings.contains(text)) {
            log::warn!("an etcd key has warnings:\n{}", text.trim_end());
        }
        status.warnings = warnings;
        status.refused.clone_from(&acceptance.refused);
        status.refused_count = acceptance.refused_count;
        status.whole.clone_from(&acceptance.whole);
    }

    /// Reads all keys now, for a command.
    fn read_state(&self) -> Result<Arc<State>, String> {
        self.read_once()?;
        Ok(lock(&self.0.seen).state.clone().unwrap_or_default())
    }

    /// Reads all keys, unless they are followed.
    fn read_once(&self) -> Result<(), String> {
        if self.0.follows.load(Ordering::Relaxed) {
            return Ok(());
        }
        let state = self.ask(&async |client, prefix| client.read_all(prefix).await)?;
        self.0.replace(state);
        Ok(())
    }

    /// Asks the members one after the other, until one answers.
    fn ask<T>(&self, question: &impl AsyncFn(&Client, &[u8]) -> Result<T, client::ClientError>) -> Result<T, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let address = &self.0.address;
        let prefix = format!("{}/", address.prefix).into_bytes();
        runtime.block_on(async {
            let mut last = String::new();
            for endpoint in &address.endpoints {
                let answer = match Client::connect(address, endpoint).await {
                    Ok(client) => question(&client, &prefix).await,
                    Err(error) => Err(error),
                };
                match answer {
                    Ok(answer) => return Ok(answer),
                    Err(error) => last = error.to_string(),
                }
            }
            Err(last)
        })
    }
}

/// All problems of a state.
#[derive(Debug)]
pub(crate) struct EtcdCheck {
    pub(crate) name: String,
    pub(crate) revision: i64,
    pub(crate) keys: usize,
    pub(crate) refused: Vec<KeyRefusal>,
    pub(crate) refused_count: usize,
    /// Severity, text and JSON of each key with warnings or hints.
    pub(crate) warnings: Vec<(Severity, String, serde_json::Value)>,
    /// Errors that are of no key.
    pub(crate) whole: Option<String>,
}

// === impl Shared ===

impl Shared {
    /// All keys were read.
    fn replace(&self, new: State) {
        let mut seen = lock(&self.seen);
        let Some(old) = seen.state.clone().filter(|_| seen.cache.is_none()) else {
            drop(seen);
            self.set(Arc::new(new));
            return;
        };
        let is_behind = new.revision < old.revision;
        let missed = match is_behind {
            true => 0,
            false => {
                let was_there = |(key, raw): &(&keys::Key, &Arc<keys::Raw>)| {
                    raw.revision > old.revision || old.keys.get(*key).is_some_and(|old| old.revision == raw.revision)
                };
                new.keys.iter().filter(|entry| !was_there(entry)).count()
            }
        };
        if is_behind {
            log::warn!("etcd has an older revision than before old={} new={}", old.revision, new.revision);
        }
        if missed > 0 {
            log::warn!("etcd watch missed changes, found by reading all keys keys={missed}");
            lock(&self.status).missed += missed as u64;
        }
        let same = new.keys == old.keys && new.strangers == old.strangers;
        if same {
            if let Some(state) = &mut seen.state {
                Arc::make_mut(state).revision = new.revision;
            }
            return;
        }
        drop(seen);
        self.set(Arc::new(new));
    }

    /// Changes of a watch. False if all keys must be read again.
    fn apply(&self, events: Vec<Event>, revision: i64) -> bool {
        let prefix = format!("{}/", self.address.prefix).into_bytes();
        let mut seen = lock(&self.seen);
        let Some(state) = &mut seen.state else { return false };
        let state = Arc::make_mut(state);
        let was_too_large = state.is_too_large();
        let mut changed = false;
        for Event { kind, kv } in events {
            let Some(kv) = kv else { continue };
            let Some(name) = kv.key.strip_prefix(&*prefix) else { continue };
            changed |= match kind {
                0 => state.put(name, kv.mod_revision, kv.value),
                _ => state.delete(name),
            };
        }
        state.revision = state.revision.max(revision);
        let complete = !was_too_large || state.is_too_large();
        if changed {
            self.signal(&mut seen);
        }
        complete
    }

    fn set(&self, state: Arc<State>) {
        let mut seen = lock(&self.seen);
        (seen.state, seen.cache) = (Some(state), None);
        self.signal(&mut seen);
    }

    fn signal(&self, seen: &mut Seen) {
        seen.number += 1;
        self.seen_changed.notify_all();
        self.changed.notify_one();
    }

    /// Reads the cache. Its versions are the last good ones, also if etcd can be reached.
    fn read_cache(&self) -> Option<cache::Cached> {
        let path = cache::path(&self.address)?;
        let cached = match cache::read(&path, &self.address) {
            Ok(cached) => cached?,
            Err(error) => {
                log::warn!("cannot use the cache of etcd file={} error={}", quoted(path.display()), quoted(error));
                return None;
            }
        };
        let versions = cached.keys.iter().map(|(key, raw)| (key.clone(), Version::read(&Base::default(), key, raw)));
        let usable = versions.filter(|(_, version)| version.is_usable());
        lock(&self.versions).good = usable.collect();
        Some(cached)
    }

    fn use_cache(&self, cached: cache::Cached) {
        let mut seen = lock(&self.seen);
        if seen.state.is_none() {
            let state = Arc::new(State::of(cached.revision, cached.keys));
            (seen.state, seen.cache) = (Some(state), Some(cached.saved));
            self.signal(&mut seen);
        }
    }

    /// What runs: revision and versions. None before the first snapshot is in use, or if it is from the cache.
    fn accepted(&self) -> Option<(i64, Versions)> {
        let good = lock(&self.versions).good.clone();
        let applied = lock(&self.status).applied.clone();
        (applied.cache.is_none() && !applied.sha256.is_empty()).then_some((applied.revision, good))
    }

    fn connected(&self, endpoint: &str) {
        let mut status = lock(&self.status);
        log::info!("following etcd endpoint={endpoint}");
        (status.endpoint, status.error, status.disconnected_since) = (Some(endpoint.to_owned()), None, None);
    }

    fn disconnected(&self, error: &str) {
        let mut status = lock(&self.status);
        (status.endpoint, status.error) = (None, Some(error.to_owned()));
        status.disconnected_since.get_or_insert_with(SystemTime::now);
    }

    /// The name of this instance is in use. Takes another one.
    fn rename(&self) {
        let mut status = lock(&self.status);
        status.id = format!("{}-{:04x}", instance::id(), fastrand::u16(..));
    }

    /// The record of this instance.
    fn record(&self) -> InstanceRecord {
        let status = lock(&self.status);
        let refused = status.refused.iter().map(|refusal| RefusedKey {
            key: refusal.key.clone(),
            revision: refusal.revision,
            fault: refusal.text.lines().next().unwrap_or_default().chars().take(300).collect(),
        });
        let started = status.started.and_then(|started| started.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        InstanceRecord {
            started_unix: started.as_secs(),
            revision: status.applied.revision,
            state: status.applied.state.clone(),
            sha256: status.applied.sha256.clone(),
            from_cache: status.applied.cache.is_some(),
            refused: refused.collect(),
            refused_count: status.refused_count,
            error: status.whole.as_ref().map(|why| why.chars().take(1000).collect()),
            id: status.id.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }
}

fn collect_texts(value: &serde_json::Value, texts: &mut HashSet<String>) {
    match value {
        serde_json::Value::String(text) => drop(texts.insert(text.clone())),
        serde_json::Value::Array(entries) => entries.iter().for_each(|entry| collect_texts(entry, texts)),
        serde_json::Value::Object(entries) => entries.values().for_each(|entry| collect_texts(entry, texts)),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {}
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Etcd").field(&self.name()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reading of all keys finds a change that the watch has not reported.
    #[test]
    fn a_full_reading_counts_missed_changes() {
        let etcd = Etcd::of_url("etcd://127.0.0.1:1/edge").unwrap().unwrap();
        let state = |revision, keys: &[(&str, i64)]| {
            let mut state = State::of(revision, std::collections::BTreeMap::new());
            for (name, revision) in keys {
                state.put(name.as_bytes(), *revision, b"{}".to_vec());
            }
            state
        };
        let missed = || etcd.status().missed;
        etcd.0.replace(state(10, &[("services/a", 3), ("services/b", 10)]));
        let first = etcd.changes();
        // The same keys, and a key that is newer than the watch.
        etcd.0.replace(state(12, &[("services/a", 3), ("services/b", 10)]));
        assert_eq!((missed(), etcd.changes()), (0, first), "nothing has changed");
        etcd.0.replace(state(14, &[("services/a", 3), ("services/b", 10), ("services/c", 13)]));
        assert_eq!((missed(), etcd.changes()), (0, first + 1));
        // Changes up to revision 14 should have been seen.
        etcd.0.replace(state(15, &[("services/a", 9), ("services/b", 10), ("services/c", 13), ("services/d", 14)]));
        assert_eq!((missed(), etcd.changes()), (2, first + 2));
        // A deleted key.
        etcd.0.replace(state(16, &[("services/a", 9)]));
        assert_eq!(etcd.changes(), first + 3);
        // A cluster that was restored from a backup.
        etcd.0.replace(state(5, &[("services/a", 3)]));
        assert_eq!((missed(), etcd.changes()), (2, first + 4));
    }
}
