//! Loads the newest state: accepts it, and remembers the versions that are in use.

use std::collections::HashSet;
use std::path::{Component, Path};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::accept::{self, Acceptance, Base, Known};
use super::address::Address;
use super::keys::{Key, Layout, Objects, Raw, State};
use super::value::Versions;
use super::{Applied, Etcd, Kept, KeyRefusal, Shared, apisix, lock};
use crate::config::{Document, RemoteSource, Source, environment};
use crate::logging::quoted;
use crate::problem::{At, ProblemKind, Problems, Severity};
use crate::report;
use crate::snapshot::{CompileEnv, Loaded};
use crate::source::{ConfigSource, Reading, SourceText};
use crate::terminal::Paint;

/// The service of a process that waits for its first configuration.
const WAITING: &str =
    r#"{"name":"waiting-for-etcd","respond":{"status":503,"body":"This gateway waits for its configuration.\n"}}"#;

/// The versions in use, and those that will be.
#[derive(Default)]
pub(super) struct VersionsInUse {
    /// All values of the last state, read.
    pub(super) read: Versions,
    /// The versions of the active snapshot.
    pub(super) good: Versions,
    /// The objects of APISIX of the active snapshot.
    pub(super) objects: Objects,
    pub(super) pending: Option<Pending>,
    /// A value of `settings` that could be compiled and not be used, and why.
    pub(super) unusable: Option<(Arc<Raw>, String)>,
}

/// The versions in a snapshot that is loaded and not yet active.
pub(super) struct Pending {
    used: Versions,
    objects: Objects,
    applied: Applied,
}

/// The values of the active snapshot, with their keys.
pub(super) struct InUse {
    pub(super) revision: i64,
    pub(super) values: Vec<(String, Arc<Raw>)>,
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

// === impl Etcd ===

impl Etcd {
    /// Accepts the newest state. `reading` remembers the files that were read.
    pub(in crate::source) fn load(&self, reading: &Reading) -> (SourceText, Loaded) {
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
            keys: acceptance.used.len().max(acceptance.objects.len()),
            cache,
        };
        versions.pending = Some(Pending { used: acceptance.used, objects: acceptance.objects, applied });
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
            keys: state.len(),
            refused: acceptance.refused,
            refused_count: acceptance.refused_count,
            warnings: acceptance.warnings,
            whole: acceptance.whole,
        })
    }

    /// The snapshot that was loaded last is in use.
    pub(in crate::source) fn published(&self) {
        let shared = &self.0;
        let mut versions = lock(&shared.versions);
        if let Some(Pending { used, objects, applied }) = versions.pending.take() {
            (versions.good, versions.objects) = (used, objects);
            lock(&shared.status).applied = applied;
        }
        drop(versions);
        // For `wait_until_applied`, which reads the status with this lock.
        drop(lock(&shared.seen));
        shared.seen_changed.notify_all();
        shared.record_changed.notify_one();
        shared.cache_due.notify_one();
    }

    /// The snapshot that was loaded last cannot be used because of the top-level key `section`. If `settings` in etcd has
    /// this key, its value is refused, and the next load uses the version before. Returns false if another load would fail
    /// too.
    pub(crate) fn refuse_settings(&self, section: &str, why: &str) -> bool {
        let mut versions = lock(&self.0.versions);
        let settings = Key::settings();
        let pending = versions.pending.as_ref().and_then(|pending| pending.used.get(&settings)).cloned();
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

    /// Lets the next load try a value again that could not be used.
    pub(crate) fn try_again(&self) {
        lock(&self.0.versions).unusable = None;
    }

    pub(super) fn accept(&self, state: &State, reading: &Reading) -> Result<Acceptance, Box<(SourceText, Loaded)>> {
        let base = self.base(reading, state)?;
        let known = {
            let versions = lock(&self.0.versions);
            Known {
                read: versions.read.clone(),
                good: versions.good.clone(),
                objects: versions.objects.clone(),
                unusable: versions.unusable.clone(),
            }
        };
        Ok(self.with_env(reading, |env| match state.layout() {
            Layout::Parts => accept::accept(&base, state, &known, env),
            Layout::Apisix => apisix::accept(&base, state, &known, env),
        }))
    }

    /// The settings of the file with `source`. Err: the file has errors. A command without such a file assumes listeners.
    pub(super) fn base(&self, reading: &Reading, state: &State) -> Result<Base, Box<(SourceText, Loaded)>> {
        let Some(path) = self.bootstrap() else {
            return Ok(match self.0.follows.load(Ordering::Relaxed) {
                true => Base::default(),
                false => Base::of_unknown_process(state),
            });
        };
        let source = ConfigSource::File(path.to_owned());
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
    pub(in crate::source) fn may_name(&self, name: &str) -> Result<(), String> {
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
    pub(super) fn with_env<T>(&self, reading: &Reading, load: impl FnOnce(CompileEnv<'_>) -> T) -> T {
        ConfigSource::Etcd(self.clone()).with_env(reading, load)
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
}

// === impl Shared ===

impl Shared {
    /// What runs. None before the first snapshot is in use, or if it is from the cache.
    pub(super) fn accepted(&self) -> Option<InUse> {
        let versions = lock(&self.versions);
        let values = match self.address.layout {
            Layout::Parts => versions.good.iter().map(|(key, good)| (key.to_string(), good.raw.clone())).collect(),
            Layout::Apisix => versions.objects.iter().map(|(key, raw)| (key.to_string(), raw.clone())).collect(),
        };
        drop(versions);
        let applied = lock(&self.status).applied.clone();
        (applied.cache.is_none() && !applied.is_none()).then_some(InUse { revision: applied.revision, values })
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
