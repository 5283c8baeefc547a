//! Acceptance of a state: which version of each key is used.
//!
//! A key with an error keeps its last good version, or is left out if it has none. All other keys are used. A policy,
//! upstream or origin set that was deleted stays as long as a service that is in use needs it. The rules are applied with
//! the compiler of the file: compile, put the fault on a key, use its last good version, and compile again.
//!
//! A value is parsed once ([`super::value`]). Its result is kept as long as the value does not change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::keys::{Key, Objects, Raw, RawValue, State};
use super::refusal::{Kept, KeyRefusal, refusal, self_fault};
use super::value::{Version, Versions, version};
use crate::config::{Document, Part, PartKind, Source};
use crate::notation::Named;
use crate::problem::{KeyPath, PathStep, Problem, ProblemKind, Problems, Severity};
use crate::report;
use crate::snapshot::{CompileEnv, Snapshot};
use crate::terminal::Paint;

/// The most compilations for one state. The last one uses only good versions.
const MOST_ROUNDS: usize = 20;
const ASSUMED_LISTENERS: &str = "listeners: [{ address: '127.0.0.1:9080' }]";
/// The most refused keys that are described. All are counted.
pub(super) const MOST_DESCRIBED: usize = 100;

/// The settings that are not in etcd.
#[derive(Debug, Default)]
pub(super) struct Base {
    /// Name and text of the file. None if there is no file.
    pub(super) file: Option<(String, String)>,
    document: Document,
    /// The keys that it sets.
    pub(super) keys: Vec<String>,
}

/// What is known of earlier states.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The values of an earlier state.
    pub(super) read: Versions,
    /// The versions in use.
    pub(super) good: Versions,
    /// The objects of APISIX from which they were made.
    pub(super) objects: Objects,
    /// A value of `settings` that cannot be used by this process, and why.
    pub(super) unusable: Option<(Arc<Raw>, String)>,
}

/// The result for one state.
#[derive(Debug, Default)]
pub(super) struct Acceptance {
    /// None: the running configuration stays; `whole` says why.
    pub(super) snapshot: Option<Snapshot>,
    /// Text of the snapshot.
    pub(super) text: String,
    /// All values of the state, read.
    pub(super) read: Versions,
    /// The versions that the snapshot uses.
    pub(super) used: Versions,
    /// The objects of APISIX from which they were made.
    pub(super) objects: Objects,
    /// At most [`MOST_DESCRIBED`].
    pub(super) refused: Vec<KeyRefusal>,
    pub(super) refused_count: usize,
    /// Warnings and hints of the used versions, as `check` prints them.
    pub(super) warnings: Vec<(Severity, String, Value)>,
    /// Errors that belong to no key.
    pub(super) whole: Option<String>,
}

/// Accepts a state.
pub(super) fn accept(base: &Base, state: &State, known: &Known, env: CompileEnv<'_>) -> Acceptance {
    let Known { read, good, unusable, .. } = known;
    let mut acceptance = Acceptance {
        read: state.keys.iter().map(|(key, raw)| (key.clone(), version(base, key, raw, read))).collect(),
        ..Acceptance::default()
    };
    if let Some(why) = state.too_large() {
        acceptance.whole = Some(why);
        return acceptance;
    }
    let mut round = Round { base, good, refused: BTreeMap::new(), deleted: BTreeSet::new(), faults: BTreeMap::new() };
    for (key, version) in &acceptance.read {
        if let Err(refusal) = &version.content {
            round.refused.insert(key.clone(), vec![]);
            round.faults.insert(key.clone(), refusal.clone());
        }
    }
    if let Some((raw, why)) = unusable
        && let Some(version) = acceptance.read.get(&Key::settings())
        && version.raw == *raw
    {
        let remedy = "correct the value, or what it names, and send SIGHUP";
        let fault = self_fault("settings", raw.revision, "etcd-setting-unusable", why, remedy);
        round.refused.insert(Key::settings(), vec![]);
        round.faults.insert(Key::settings(), Box::new(fault));
    }
    for number in 1..=MOST_ROUNDS {
        let used = round.used(&acceptance.read);
        let order: Vec<&Key> = used.keys().filter(|key| key.kind == PartKind::Service).collect();
        let document = document(base, &used);
        let mut problems = Problems::default();
        let snapshot = Snapshot::compile(&document, env, &mut problems);
        let errors: Vec<Problem> =
            problems.iter().filter(|problem| problem.kind.severity() == Severity::Error).cloned().collect();
        if let (Some(snapshot), true) = (snapshot, errors.is_empty()) {
            acceptance.text = document.text_with(used.iter().filter_map(|(key, version)| {
                let content = version.content.as_ref().ok()?;
                Some((key.kind, &*key.name, &*content.json))
            }));
            acceptance.snapshot = Some(snapshot);
            acceptance.warnings = warnings(base, &used, &order, &problems);
            acceptance.used = used;
            break;
        }
        let progress = number < MOST_ROUNDS - 1 && round.blame(&errors, &used, &order);
        if !progress && (number == MOST_ROUNDS || !round.refuse_all_new(&errors, &used, &order)) {
            acceptance.whole = Some(round.whole(&errors, &used, &order));
            break;
        }
    }
    round.describe(state, &mut acceptance);
    acceptance
}

/// The versions of one attempt.
struct Round<'a> {
    base: &'a Base,
    good: &'a Versions,
    /// Keys whose newest version is not used, with the errors.
    refused: BTreeMap<Key, Vec<Problem>>,
    /// Deleted keys that stay in use.
    deleted: BTreeSet<Key>,
    /// Descriptions of refused keys that were not compiled.
    faults: BTreeMap<Key, Box<KeyRefusal>>,
}

impl Round<'_> {
    fn used(&self, read: &Versions) -> Versions {
        let mut used = Versions::new();
        for (key, version) in read {
            match self.refused.contains_key(key) {
                false => drop(used.insert(key.clone(), version.clone())),
                true => drop(self.good.get(key).map(|good| used.insert(key.clone(), good.clone()))),
            }
        }
        for key in &self.deleted {
            if let Some(good) = self.good.get(key) {
                used.insert(key.clone(), good.clone());
            }
        }
        used
    }

    /// Whether a version is not in use yet.
    fn is_new(&self, key: &Key, used: &Versions) -> bool {
        match (used.get(key), self.good.get(key)) {
            (Some(used), Some(good)) => used.raw.value != good.raw.value,
            (used, _) => used.is_some(),
        }
    }

    /// Refuses the keys with these errors, or restores the versions that other keys need. False if no key changed.
    fn blame(&mut self, errors: &[Problem], used: &Versions, order: &[&Key]) -> bool {
        let mut progress = false;
        for error in errors {
            let Some((key, inside)) = self.owner(&error.at, order) else { continue };
            let other = match &error.kind {
                ProblemKind::RouteTwice { other, .. } => self.owner(other, order).map(|(key, _)| key),
                _ => None,
            };
            // Of two services with the same route the older one stays.
            if let Some(other) = other
                && other != key
            {
                let age = |key: &Key| (self.is_new(key, used), used.get(key).map(|version| version.raw.revision));
                let newer = if age(&other) > age(&key) { &other } else { &key };
                if self.is_new(newer, used) {
                    let at = if *newer == key { inside } else { KeyPath::default() };
                    let mut problem = Problem { at, kind: error.kind.clone() };
                    if let ProblemKind::RouteTwice { other: place, .. } = &mut problem.kind {
                        let twin = if *newer == key { &other } else { &key };
                        let path = if *newer == key { place.clone() } else { error.at.clone() };
                        *place = named(twin, &path);
                    }
                    let newer = newer.clone();
                    self.refuse(newer, problem);
                    progress = true;
                }
                continue;
            }
            if self.is_new(&key, used) {
                self.refuse(key, Problem { at: inside, kind: error.kind.clone() });
                progress = true;
                continue;
            }
            // A version that was in use has an error: what it needs was deleted or has changed.
            if let ProblemKind::UnknownName { what, name, .. } = &error.kind {
                let kind = match *what {
                    "upstream" => PartKind::Upstream,
                    "policy" => PartKind::Policy,
                    _ => PartKind::OriginSet,
                };
                let needed = Key::new(kind, name);
                if self.good.contains_key(&needed) && !used.contains_key(&needed) {
                    progress |= self.deleted.insert(needed);
                    continue;
                }
            }
            let json = used.get(&key).and_then(|version| version.content.as_ref().ok()).map(|content| &*content.json);
            let shared: Vec<Key> = used
                .keys()
                .filter(|shared| shared.kind != PartKind::Service && self.is_new(shared, used))
                .filter(|shared| json.is_some_and(|json| json.contains(&format!("\"{}\"", shared.name))))
                .cloned()
                .collect();
            for shared in shared {
                let place = Problem { at: KeyPath::default(), kind: error.kind.clone() };
                self.refuse(shared, place);
                progress = true;
            }
        }
        progress
    }

    /// Refuses all new versions. False if there are none, or if an error is of none of them: a missing key, or the file.
    fn refuse_all_new(&mut self, errors: &[Problem], used: &Versions, order: &[&Key]) -> bool {
        let is_used = |error: &Problem| self.owner(&error.at, order).is_some_and(|(key, _)| used.contains_key(&key));
        let of_base = !errors.iter().all(is_used);
        let new: Vec<Key> = used.keys().filter(|key| self.is_new(key, used)).cloned().collect();
        if of_base || new.is_empty() {
            return false;
        }
        for key in new {
            if let Some(error) = errors.first() {
                self.refuse(key, Problem { at: KeyPath::default(), kind: error.kind.clone() });
            }
        }
        true
    }

    fn refuse(&mut self, key: Key, problem: Problem) {
        let problems = self.refused.entry(key).or_default();
        // Each description searches the text, and a value of 1 MiB can have 100,000 errors.
        if problems.len() < MOST_DESCRIBED && !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    /// The key that has a place of the document, and the place inside of its value.
    fn owner(&self, at: &KeyPath, order: &[&Key]) -> Option<(Key, KeyPath)> {
        let rest = |n: usize| KeyPath(at.0[n..].to_vec());
        let kind = match at.0.first() {
            Some(PathStep::Key(key)) => match &**key {
                "services" => PartKind::Service,
                "upstreams" => PartKind::Upstream,
                "cors_policies" => PartKind::Policy,
                "origin_sets" => PartKind::OriginSet,
                key => {
                    let settings = Key::settings();
                    let is_here = !self.base.keys.iter().any(|set| set == key);
                    return is_here.then(|| (settings, at.clone()));
                }
            },
            _ => return None,
        };
        match at.0.get(1)? {
            PathStep::Index(index) if kind == PartKind::Service => Some(((*order.get(*index)?).clone(), rest(2))),
            PathStep::Key(name) if kind != PartKind::Service => Some((Key::new(kind, name), rest(2))),
            _ => None,
        }
    }

    /// The text of errors that belong to no key.
    fn whole(&self, errors: &[Problem], used: &Versions, order: &[&Key]) -> String {
        if order.is_empty() {
            return "no service can be used; add a key services/NAME".to_owned();
        }
        let (mut of_base, mut of_keys) = (Problems::default(), String::new());
        for error in errors.iter().take(MOST_DESCRIBED) {
            match self.owner(&error.at, order) {
                Some((key, inside)) => {
                    let text = used.get(&key).map(|version| version.text()).unwrap_or_default();
                    let problem = [Problem { at: inside, kind: error.kind.clone() }].into_iter().collect();
                    of_keys.push_str(&report::text(&problem, &Source::new(&key.to_string(), text), Paint::Plain));
                }
                None => of_base.push(error.clone()),
            }
        }
        if !of_base.is_empty() {
            let (name, text) = self.base.file.as_ref().map_or(("settings", ""), |(name, text)| (name, text));
            of_keys.push_str(&report::text(&of_base, &Source::new(name, text), Paint::Plain));
        }
        of_keys
    }

    /// Describes the refused keys.
    fn describe(self, state: &State, acceptance: &mut Acceptance) {
        let kept = |key: &Key| match self.good.get(key) {
            Some(good) => Kept::Revision(good.raw.revision),
            None => Kept::Nothing,
        };
        let mut refused = Vec::new();
        acceptance.refused_count = self.refused.len() + self.deleted.len() + state.strangers.len();
        for (key, problems) in self.refused.into_iter().take(MOST_DESCRIBED) {
            if let Some(fault) = self.faults.get(&key) {
                refused.push(KeyRefusal { kept: kept(&key), ..(**fault).clone() });
            } else if let Some(version) = acceptance.read.get(&key) {
                let problems: Problems = problems.into_iter().collect();
                refused.push(KeyRefusal {
                    kept: kept(&key),
                    ..refusal(&key, version.raw.revision, version.text(), &problems)
                });
            }
        }
        for key in self.deleted {
            let fault = "is deleted, but a service that is in use needs it; its last version is kept";
            let fault =
                self_fault(&key.to_string(), state.revision, "etcd-key-needed", fault, "change that service first");
            refused.push(KeyRefusal { kept: kept(&key), ..fault });
        }
        for (name, (revision, why)) in &state.strangers {
            let (fault, remedy) = why.split_once("; ").unwrap_or((why, ""));
            let name: String = String::from_utf8_lossy(name).chars().take(200).collect();
            refused.push(self_fault(&crate::terminal::printable(&name), *revision, "etcd-key-unknown", fault, remedy));
        }
        refused.truncate(MOST_DESCRIBED);
        acceptance.refused = refused;
    }
}

fn document(base: &Base, used: &Versions) -> Document {
    let content = |version: &Arc<Version>| version.content.as_ref().ok().map(|content| content.part.clone());
    let settings = used.get(&Key::settings()).and_then(content);
    let mut document = match settings {
        Some(Part::Settings(settings)) => base.document.or(&settings),
        _ => base.document.or(&Document::default()),
    };
    document.source = None;
    let mut services = Vec::new();
    let (mut upstreams, mut policies, mut sets) = (Vec::new(), Vec::new(), Vec::new());
    for (key, version) in used {
        let name = || key.name.to_string();
        match content(version) {
            Some(Part::Service(service)) => services.push(*service),
            Some(Part::Upstream(upstream)) => upstreams.push((name(), *upstream)),
            Some(Part::Policy(policy)) => policies.push((name(), *policy)),
            Some(Part::OriginSet(set)) => sets.push((name(), set)),
            Some(Part::Settings(_)) | None => {}
        }
    }
    document.upstreams = Named(upstreams);
    document.cors_policies = Named(policies);
    document.origin_sets = Named(sets);
    document.services = Some(services);
    document
}

/// Warnings and hints by key.
fn warnings(base: &Base, used: &Versions, order: &[&Key], problems: &Problems) -> Vec<(Severity, String, Value)> {
    let round = Round { base, good: used, refused: BTreeMap::new(), deleted: BTreeSet::new(), faults: BTreeMap::new() };
    let mut by_key: BTreeMap<Option<Key>, Problems> = BTreeMap::new();
    for problem in problems.iter().take(MOST_DESCRIBED) {
        match round.owner(&problem.at, order) {
            Some((key, at)) if used.contains_key(&key) => {
                by_key.entry(Some(key)).or_default().push(Problem { at, kind: problem.kind.clone() });
            }
            _ => by_key.entry(None).or_default().push(problem.clone()),
        }
    }
    let described = by_key.into_iter().map(|(key, problems)| {
        let severity = problems.iter().map(|problem| problem.kind.severity()).max().unwrap_or(Severity::Hint);
        let (name, text) = match &key {
            Some(key) => (key.to_string(), used.get(key).map(|version| version.text()).unwrap_or_default()),
            None => base.file.as_ref().map_or(("settings".to_owned(), ""), |(name, text)| (name.clone(), text)),
        };
        let source = Source::new(&name, text);
        (severity, report::text(&problems, &source, Paint::Plain), report::problems_json(&problems, &source))
    });
    described.collect()
}

/// The place of another service, with its key in place of its position.
fn named(key: &Key, at: &KeyPath) -> KeyPath {
    let inside = at.0.iter().skip(2).cloned();
    KeyPath(std::iter::once(PathStep::Key(key.to_string())).chain(inside).collect())
}

impl Base {
    /// For a check without the file of a process: it has the listeners, if `settings` does not.
    pub(super) fn of_unknown_process(state: &State) -> Self {
        let settings = state.keys.get(&Key::settings()).map(|raw| &raw.value);
        let text = match settings {
            Some(RawValue::Bytes(bytes)) => std::str::from_utf8(bytes).unwrap_or_default(),
            Some(RawValue::TooLarge(_)) | None => "",
        };
        let mut problems = Problems::default();
        let has_listeners = Document::parse(text, &mut problems).is_some_and(|settings| settings.listeners.is_some());
        let assumed = if has_listeners { "" } else { ASSUMED_LISTENERS };
        Base::new(None, Document::parse(assumed, &mut problems).unwrap_or_default())
    }

    /// The settings with one service, as a text.
    pub(super) fn text_with_service(&self, json: &str) -> String {
        self.document.text_with(std::iter::once((PartKind::Service, "", json)))
    }

    pub(super) fn new(file: Option<(String, String)>, document: Document) -> Self {
        Base { file, keys: document.keys_set(), document }
    }
}
