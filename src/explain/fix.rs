//! The smallest edit of the file that allows a request.
//!
//! The search tries edits instead of deriving them. Each cause has a few candidates. The search applies a candidate to
//! the text, loads the text, and simulates the question again. The result is that the request is allowed, or that
//! another cause remains. So each offered edit works together with the rest of the file.

mod candidates;
mod widening;

pub(crate) use self::widening::Widening;

use self::candidates::{Candidate, FixContext};
use super::cause::{Cause, Diagnosis};
use super::question::Question;
use super::simulation::Simulation;
use super::{Analysis, Configuration, FilePosition, Hunk};
use crate::config::{Document, Source, hunks};
use crate::problem::{KeyPath, Problem, ProblemKind, Problems, Replacement, Severity};
use crate::snapshot::{Loaded, Snapshot};

/// An edit of the file that allows the request. The edit was applied and simulated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    /// The name of the file.
    pub(crate) file: String,
    /// The steps of the edit, such as ``add `DELETE` to allow_methods``.
    pub(crate) steps: Vec<String>,
    /// The changed lines of the file.
    pub(crate) hunks: Vec<Hunk>,
    /// Effects of the edit on other requests.
    pub(crate) widens: Vec<Widening>,
}

/// An edit that removes the cause of the refusal, but makes the file invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RejectedFix {
    /// The steps of the edit, such as ``add `DELETE` to allow_methods``.
    pub(crate) steps: Vec<String>,
    /// The errors of the edited file.
    pub(crate) errors: Vec<EditError>,
}

/// An error of an edited file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EditError {
    /// The place in the file without the edit.
    pub(crate) at: FilePosition,
    pub(crate) kind: ProblemKind,
}

/// The result of the search for an edit.
pub(super) enum FixResult {
    Fix(Fix),
    /// No usable edit was found. This edit makes the file invalid, with the fewest errors.
    Rejected(RejectedFix),
    NotFound,
}

/// Maximum number of causes that are removed one after the other.
const MAX_STEPS: usize = 8;
/// Maximum number of edited texts that are loaded.
const MAX_LOADS: usize = 32;
/// Maximum size of all loaded texts together in bytes. At least one text is loaded. A file of 50 MiB takes seconds.
const MAX_LOADED_BYTES: usize = 32 << 20;

/// Searches for an edit that allows the request. `analysis` belongs to the text without an edit.
pub(super) fn find(question: &Question, configuration: &Configuration<'_>, analysis: &Analysis<'_>) -> FixResult {
    let mut attempt = Attempt::of(configuration.text);
    let passing = match attempt.proceed(question, configuration, Some(analysis)) {
        Ok(passing) => passing,
        Err(NoFix::Rejected(problems)) => {
            let error = |problem: &Problem| EditError {
                at: FilePosition::of(&analysis.source, &problem.at),
                kind: problem.kind.clone(),
            };
            let errors = problems.iter().map(error).collect();
            return FixResult::Rejected(RejectedFix { steps: attempt.steps, errors });
        }
        Err(NoFix::NotFound) => return FixResult::NotFound,
    };
    let others = widening::newly_passing_routes(question, configuration.snapshot, &passing);
    if !others.is_empty() {
        attempt.widens.insert(0, Widening::Routes(others));
    }
    FixResult::Fix(attempt.fix(configuration.name, configuration.text))
}

/// Returns the edit that makes an invalid text valid. The edit also allows the request, if such an edit is found.
/// Returns None if one of the errors can be fixed in more than one way.
pub(super) fn repair(
    question: &Question,
    name: &str,
    text: &str,
    problems: &Problems,
    load: super::Load<'_>,
) -> Option<Fix> {
    let mut attempt = Attempt::of(text);
    let mut problems = problems.clone();
    let mut usable = None;
    for _ in 0..MAX_STEPS {
        attempt.repair(question, &problems)?;
        let Loaded { snapshot, problems: remaining } = load(&attempt.text);
        if snapshot.is_some() || remaining == problems {
            usable = snapshot;
            break;
        }
        problems = remaining;
    }
    let usable = usable?;
    let repaired = attempt.text.clone();
    let configuration = Configuration::new(name, &repaired, &usable, load);
    if Simulation::of(question, &usable).is_refused() {
        // The repaired file is useful even if no edit allows the request.
        let mut passing = attempt.clone();
        if passing.proceed(question, &configuration, None).is_ok() {
            attempt = passing;
        }
    }
    Some(attempt.fix(name, text))
}

/// The reason why an attempt fails.
enum NoFix {
    /// The last step makes the file invalid, with these errors.
    Rejected(Vec<Problem>),
    /// No candidate removes the cause.
    NotFound,
}

/// The text after the edits until now.
#[derive(Clone)]
struct Attempt {
    text: String,
    steps: Vec<String>,
    widens: Vec<Widening>,
}

impl Attempt {
    fn of(text: &str) -> Self {
        Attempt { text: text.to_owned(), steps: Vec::new(), widens: Vec::new() }
    }

    fn fix(self, name: &str, original: &str) -> Fix {
        let hunks = hunks(original, &self.text);
        Fix { file: name.to_owned(), steps: self.steps, hunks, widens: self.widens }
    }

    /// Removes one cause after the other until the request is allowed. Returns the snapshot of the last text.
    fn proceed(
        &mut self,
        question: &Question,
        configuration: &Configuration<'_>,
        first: Option<&Analysis<'_>>,
    ) -> Result<Snapshot, NoFix> {
        let mut newest: Option<Snapshot> = None;
        let (mut causes, mut loads) = (Vec::new(), 0);
        let max_loads = (MAX_LOADED_BYTES / self.text.len().max(1)).clamp(1, MAX_LOADS);
        for step in 0..MAX_STEPS {
            if loads >= max_loads {
                break;
            }
            let snapshot = newest.as_ref().unwrap_or(configuration.snapshot);
            let own;
            let analysis = match first.filter(|_| step == 0) {
                Some(first) => first,
                None => {
                    own = Analysis::of(question, &Configuration::new("", &self.text, snapshot, configuration.load));
                    &own
                }
            };
            let Analysis { source, document, simulation, diagnosis } = analysis;
            let cause = diagnosis.cause.clone().ok_or(NoFix::NotFound)?;
            let context = FixContext { question, simulation, snapshot, document };
            let candidates = context.candidates(&cause);
            // Candidates for routing are sorted by similarity, so the first candidate that removes the cause is the
            // best.
            let is_about_routing = matches!(cause, Cause::UnknownHost { .. } | Cause::UnknownPath { .. });
            causes.push(cause);
            let mut best: Option<(Candidate, String, Snapshot, bool)> = None;
            let mut rejected: Option<(String, Vec<Problem>)> = None;
            for candidate in candidates {
                let Some(edited) = candidate.apply(source) else { continue };
                if loads == max_loads {
                    break;
                }
                loads += 1;
                let Loaded { snapshot, problems } = (configuration.load)(&edited);
                let Some(snapshot) = snapshot else {
                    // The candidate with the fewest errors is the best. Its errors are not repaired here. An edit of a
                    // valid file can only cause an error about an allowed origin, and the operator must decide about
                    // this origin.
                    let errors: Vec<Problem> = errors(&problems).cloned().collect();
                    if rejected.as_ref().is_none_or(|(_, fewest)| errors.len() < fewest.len()) {
                        rejected = Some((candidate.step, errors));
                    }
                    continue;
                };
                let passes = !Simulation::of(question, &snapshot).is_refused();
                let is_progress = passes || is_new_cause(question, &edited, &snapshot, &causes);
                if passes || (is_progress && best.is_none()) {
                    best = Some((candidate, edited, snapshot, passes));
                }
                if passes || (is_progress && is_about_routing) {
                    break;
                }
            }
            let Some((candidate, edited, snapshot, passes)) = best else {
                let Some((step, problems)) = rejected else { return Err(NoFix::NotFound) };
                self.steps.push(step);
                return Err(NoFix::Rejected(problems));
            };
            self.steps.push(candidate.step);
            candidate.widens.into_iter().for_each(|widening| widening.add_to(&mut self.widens));
            self.text = edited;
            if passes {
                return Ok(snapshot);
            }
            newest = Some(snapshot);
        }
        Err(NoFix::NotFound)
    }

    /// Applies the replacements that the errors propose. Returns None if an error has no replacement, or several.
    fn repair(&mut self, question: &Question, problems: &Problems) -> Option<()> {
        let mut edits: Vec<(KeyPath, Replacement)> = Vec::new();
        for problem in errors(problems) {
            let replacement = match &problem.kind {
                // The list of origins is not known, except for the origin of the question.
                ProblemKind::AnyOriginWithCredentials => {
                    Widening::OthersRefused.add_to(&mut self.widens);
                    Replacement::Text(question.origin())
                }
                kind => kind.replacement()?,
            };
            let at = &problem.at;
            self.steps.push(match &replacement {
                Replacement::Text(text) => format!("write `{text}` at {at}"),
                Replacement::Literal(word) => format!("write `{word}` at {at}"),
                Replacement::Key(name) => format!("write `{name}` at {at}"),
                Replacement::Nothing => format!("remove {at}"),
            });
            edits.push((problem.at.clone(), replacement));
        }
        // The edits are applied from the last place to the first, so that a removed entry does not change the index of
        // another edit. Names of keys are replaced last, because the paths of other edits contain them.
        edits.sort_by(|(a, _), (b, _)| b.cmp(a));
        edits.sort_by_key(|(_, replacement)| matches!(replacement, Replacement::Key(_)));
        for (at, replacement) in &edits {
            self.text = Source::new("", &self.text).with_replacement(at, replacement)?;
        }
        (!edits.is_empty()).then_some(())
    }
}

fn errors(problems: &Problems) -> impl Iterator<Item = &Problem> {
    problems.iter().filter(|problem| problem.kind.severity() == Severity::Error)
}

fn is_new_cause(question: &Question, text: &str, snapshot: &Snapshot, causes: &[Cause]) -> bool {
    let Some(document) = Document::parse(snapshot.filled(text), &mut Problems::default()) else { return false };
    let next = Diagnosis::of(question, &Simulation::of(question, snapshot), snapshot, &document).cause;
    next.is_some_and(|next| !causes.contains(&next))
}
