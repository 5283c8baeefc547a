//! The report of an import as text and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use super::finding::{Finding, Outcome, Place};
use super::model::{Cors, Key, Model, Policy};
use super::witness::{Answer, Witness};
use super::{SourceFile, SourceFormat};
use crate::snapshot::Snapshot;
use crate::terminal::{Paint, Width, printable};

/// The report of what an import kept, changed and dropped, for people and for programs.
#[derive(Debug)]
pub struct ImportReport {
    format: SourceFormat,
    files: Vec<String>,
    policies: Vec<PolicyReport>,
    /// Findings about routes, services and the whole source.
    others: Vec<Entry>,
}

/// The report about one policy.
#[derive(Debug)]
struct PolicyReport {
    name: String,
    place: Place,
    /// The keys that the import did not change.
    kept: Vec<&'static str>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    finding: Finding,
    /// All places with the same finding.
    places: Vec<Place>,
    /// corsgate's answer to the witness, with the imported file.
    after: Option<Answer>,
}

impl ImportReport {
    pub(super) fn new(model: &Model, format: SourceFormat, files: &[SourceFile<'_>], snapshot: &Snapshot) -> Self {
        let entry = |finding: &Finding| Entry {
            places: vec![finding.at],
            after: finding.witness.as_ref().and_then(|witness| witness.answer(snapshot)),
            finding: finding.clone(),
        };
        let mut policies = Vec::new();
        let mut others: Vec<Entry> = model.findings.iter().map(entry).collect();
        let mut add = |policy: &Policy| {
            let has_changed = |key: Key| {
                let mut about = policy.findings.iter().filter(|(of, _)| *of == key);
                about.any(|(_, finding)| finding.kind.outcome() > Outcome::Kept)
            };
            let findings = policy.findings.iter().map(|(_, finding)| entry(finding)).collect();
            policies.push(PolicyReport {
                name: policy.name.clone(),
                place: policy.at,
                kept: Key::SETTINGS.into_iter().filter(|key| !has_changed(*key)).map(Key::word).collect(),
                entries: findings,
            });
        };
        model.cors.iter().for_each(&mut add);
        for service in &model.services {
            others.extend(service.findings.iter().map(entry));
            let routes = service.routes.iter();
            others.extend(routes.clone().flat_map(|route| &route.findings).map(entry));
            for cors in [&service.cors].into_iter().chain(routes.map(|route| &route.cors)) {
                if let Cors::Policy(policy) = cors {
                    add(policy);
                }
            }
        }
        let mut report =
            ImportReport { format, files: files.iter().map(|file| file.name.to_owned()).collect(), policies, others };
        report.join();
        report
    }

    /// Returns the report about a source from which nothing can be imported.
    pub(super) fn of_nothing(model: &Model, format: SourceFormat, files: &[SourceFile<'_>]) -> Self {
        let entries = model.findings.iter();
        let others =
            entries.map(|finding| Entry { places: vec![finding.at], after: None, finding: finding.clone() }).collect();
        let mut report = ImportReport {
            format,
            files: files.iter().map(|file| file.name.to_owned()).collect(),
            policies: Vec::new(),
            others,
        };
        report.join();
        report
    }

    /// Joins equal entries. General findings are reported once with all their places, and each policy is reported once.
    fn join(&mut self) {
        let mut joined: Vec<Entry> = Vec::new();
        let mut once = |entry: Entry| {
            let same = joined.iter_mut().find(|known| {
                known.finding.kind == entry.finding.kind
                    && (entry.finding.kind.is_reported_once() || known.places == entry.places)
            });
            match same {
                Some(same) => entry.places.into_iter().for_each(|place| {
                    if !same.places.contains(&place) {
                        same.places.push(place);
                    }
                }),
                None => joined.push(entry),
            }
        };
        let mut policies: Vec<PolicyReport> = Vec::new();
        for policy in std::mem::take(&mut self.policies) {
            let (general, own): (Vec<_>, Vec<_>) =
                policy.entries.into_iter().partition(|entry| entry.finding.kind.is_reported_once());
            general.into_iter().for_each(&mut once);
            let is_known = policies.iter().any(|known| known.name == policy.name && known.place == policy.place);
            if !is_known {
                let mut entries: Vec<Entry> = Vec::new();
                for entry in own {
                    let is_new =
                        |known: &Entry| known.finding.kind != entry.finding.kind || known.places != entry.places;
                    if entries.iter().all(is_new) {
                        entries.push(entry);
                    }
                }
                policies.push(PolicyReport { entries, ..policy });
            }
        }
        std::mem::take(&mut self.others).into_iter().for_each(&mut once);
        policies.iter_mut().for_each(|policy| policy.entries.sort_by_key(|entry| entry.finding.kind.outcome()));
        joined.sort_by_key(|entry| entry.finding.kind.outcome());
        (self.policies, self.others) = (policies, joined);
    }

    /// What is left out or unsafe, as sentences.
    pub(crate) fn losses(&self) -> Vec<String> {
        let own = self.policies.iter().flat_map(|policy| &policy.entries);
        let is_loss = |entry: &&Entry| matches!(entry.finding.kind.outcome(), Outcome::Dropped | Outcome::Unsafe);
        let all = own.chain(&self.others).filter(is_loss);
        all.map(|entry| entry.finding.kind.describe(self.format).text.into_owned()).collect()
    }

    /// File, outcome, code and text of all that is not kept, for each place.
    pub(super) fn changes(&self) -> impl Iterator<Item = (&str, &'static str, &'static str, String)> {
        let is_change = |entry: &&Entry| entry.finding.kind.outcome() > Outcome::Kept;
        self.entries().filter(is_change).flat_map(|entry| {
            entry.places.iter().map(|place| {
                let described = entry.finding.kind.describe(self.format);
                let file = self.files.get(place.file).map(String::as_str).unwrap_or_default();
                (file, described.outcome.word(), described.code, described.text.into_owned())
            })
        })
    }

    /// Whether some requests get different answers, or something is unsafe or left out.
    pub fn has_changes(&self) -> bool {
        self.entries().any(|entry| entry.finding.kind.outcome() > Outcome::Kept)
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.policies.iter().flat_map(|policy| &policy.entries).chain(&self.others)
    }

    /// Returns the report as text for people.
    pub fn text(&self, paint: Paint, width: Width) -> String {
        let mut out = String::new();
        for policy in &self.policies {
            let _ = writeln!(out, "{} ({})", paint.bold(&printable(&policy.name)), self.place(policy.place));
            if !policy.kept.is_empty() {
                let kept = width.wrap("  kept     ", &policy.kept.join(", "));
                let _ = writeln!(out, "{}", painted(&kept, Outcome::Kept, paint));
            }
            policy.entries.iter().for_each(|entry| self.entry(entry, &mut out, paint, width));
        }
        if !self.others.is_empty() {
            let _ = writeln!(out, "{}", paint.bold("Routes, services and the rest"));
            self.others.iter().for_each(|entry| self.entry(entry, &mut out, paint, width));
        }
        out + &self.summary()
    }

    fn entry(&self, entry: &Entry, out: &mut String, paint: Paint, width: Width) {
        let described = entry.finding.kind.describe(self.format);
        let places: Vec<String> = entry.places.iter().map(|place| self.place(*place)).collect();
        let beginning = format!("  {:8} ", described.outcome.word());
        let text = printable(&format!("{}: {}", places.join(", "), described.text));
        let _ = writeln!(out, "{}", painted(&width.wrap(&beginning, &text), described.outcome, paint));
        if let Some(witness) = &entry.finding.witness {
            let _ = writeln!(out, "{}", width.wrap("           ", &printable(&witness.line())));
            let _ = writeln!(out, "             {}: {}", self.format.engine(), witness.before);
            if let Some(after) = entry.after {
                let _ = writeln!(out, "             corsgate: {after}");
            }
        }
    }

    /// Returns a place as text. If there is only one file, the place has no file name, because the last line of the
    /// report names the file.
    fn place(&self, place: Place) -> String {
        match self.files.len() {
            1 => format!("line {}", place.line),
            _ => printable(&self.place_with_file(place)),
        }
    }

    fn place_with_file(&self, place: Place) -> String {
        let file = self.files.get(place.file).map(String::as_str).unwrap_or_default();
        format!("{file}:{}", place.line)
    }

    /// Returns the last line: the files, the format, and the numbers of policies and findings.
    fn summary(&self) -> String {
        let count = |outcome: Outcome| self.entries().filter(|entry| entry.finding.kind.outcome() == outcome).count();
        let policies = match self.policies.len() {
            0 => "no policy".to_owned(),
            1 => "1 policy".to_owned(),
            n => format!("{n} policies"),
        };
        let counts =
            [Outcome::Unsafe, Outcome::Changed, Outcome::Dropped].map(|o| format!("{} {}", count(o), o.word()));
        format!("{}: {}, {policies}, {}\n", self.files.join(", "), self.format.word(), counts.join(", "))
    }

    /// Returns the report as JSON for programs.
    pub fn json(&self) -> String {
        let policies: Vec<Json> = self
            .policies
            .iter()
            .map(|policy| {
                json!({
                    "name": policy.name,
                    "place": self.place_with_file(policy.place),
                    "kept": policy.kept,
                    "findings": policy.entries.iter().map(|entry| self.entry_json(entry)).collect::<Vec<_>>(),
                })
            })
            .collect();
        let others: Vec<Json> = self.others.iter().map(|entry| self.entry_json(entry)).collect();
        let report = json!({
            "format": self.format.word(),
            "files": self.files,
            "policies": policies,
            "findings": others,
            "changes": self.has_changes(),
        });
        format!("{report:#}\n")
    }

    fn entry_json(&self, entry: &Entry) -> Json {
        let described = entry.finding.kind.describe(self.format);
        let witness = entry.finding.witness.as_ref().map(|witness: &Witness| {
            json!({
                "method": witness.method,
                "host": witness.host,
                "path": witness.path,
                "origin": witness.origin,
                "headers": witness.fields.iter().cloned().collect::<BTreeMap<_, _>>(),
                "requested_method": witness.asks_for.as_ref().map(|(method, _)| method),
                "requested_headers": witness.asks_for.as_ref().map(|(_, headers)| headers),
                "curl": witness.curl(),
                "before": witness.before.to_string(),
                "after": entry.after.map(|after| after.to_string()),
            })
        });
        json!({
            "outcome": described.outcome.word(),
            "code": described.code,
            "places": entry.places.iter().map(|place| self.place_with_file(*place)).collect::<Vec<_>>(),
            "text": described.text,
            "witness": witness,
        })
    }

    /// For tests: returns the codes of all findings.
    #[cfg(test)]
    pub(super) fn codes(&self) -> Vec<&'static str> {
        self.entries().map(|entry| entry.finding.kind.describe(self.format).code).collect()
    }

    /// For tests: returns the witnesses that contradict their findings. A changed outcome needs a different answer. A
    /// kept or unsafe outcome needs the same answer.
    #[cfg(test)]
    pub(super) fn contradictions(&self) -> Vec<String> {
        let contradicts = |entry: &&Entry| {
            let Some(witness) = &entry.finding.witness else { return false };
            let is_same = entry.after == Some(witness.before);
            match entry.finding.kind.outcome() {
                Outcome::Changed => is_same,
                Outcome::Kept | Outcome::Unsafe => !is_same,
                Outcome::Dropped => false,
            }
        };
        let line = |entry: &Entry| {
            let witness = entry.finding.witness.as_ref().map(Witness::line).unwrap_or_default();
            format!("{:?}: {witness}: {:?}", entry.finding.kind, entry.after)
        };
        self.entries().filter(contradicts).map(line).collect()
    }
}

/// Colours the word of the outcome in a line.
fn painted(line: &str, outcome: Outcome, paint: Paint) -> String {
    let colour = match outcome {
        Outcome::Kept => "32",
        Outcome::Unsafe => "31",
        Outcome::Changed => "33",
        Outcome::Dropped => "36",
    };
    line.replacen(outcome.word(), &paint.with(colour, outcome.word()), 1)
}
