//! The expectations of a configuration file and of the files that it names.

use std::borrow::Cow;
use std::path::Path;

use super::failure::{Depth, Failure};
use super::judge::Mismatch;
use super::parse::{Entry, entries};
use super::server::{ServerAnswer, result_of_answer};
use crate::config::{Document, ExpectationFile, Place, Source};
use crate::explain::{Configuration, Question};
use crate::notation::List;
use crate::problem::{At, KeyPath, OtherFile, PathStep, Problem, ProblemKind, Problems};
use crate::report;
use crate::snapshot::CompileEnv;

/// Maximum number of failed expectations for which a fix is searched. Each search loads edited texts.
const MOST_EXPLAINED: usize = 10;
/// Maximum number of bytes of all texts that are loaded in searches. There is at least one search.
const MOST_EXPLAINED_BYTES: usize = 1 << 20;
/// Maximum number of failed expectations that are reported separately, with their causes.
const MOST_REPORTED: usize = 100;

/// All expectations of a configuration.
#[derive(Debug)]
pub(crate) struct Suite<'t> {
    files: Vec<SuiteFile<'t>>,
}

/// A file with its expectations.
#[derive(Debug)]
struct SuiteFile<'t> {
    name: Cow<'t, str>,
    text: Cow<'t, str>,
    entries: Vec<Entry>,
    /// The place in the configuration that names this file. None for the configuration file.
    named_at: Option<KeyPath>,
}

/// An expectation with its result.
#[derive(Debug)]
pub(crate) struct Tested<'s> {
    file: &'s SuiteFile<'s>,
    pub(super) entry: &'s Entry,
    pub(super) result: TestResult,
}

/// The result of an expectation.
#[derive(Debug)]
pub(super) enum TestResult {
    Holds,
    Fails(Failure),
    /// The expectation was not tested. The text is the reason, a phrase without a full stop.
    NotTested(String),
}

impl<'t> Suite<'t> {
    /// Creates a suite without expectations, for [`Suite::add`].
    pub(crate) fn new() -> Self {
        Suite { files: Vec::new() }
    }

    /// Reads the expectations of a text and of its `expect_files`. Also returns the problems of these files.
    pub(crate) fn of(name: &'t str, text: &'t str, document: &Document, env: CompileEnv<'_>) -> (Self, Problems) {
        let mut problems = Problems::default();
        let root = At::root();
        let entries = entries(document.expect.as_deref(), &root.key("expect"), &mut problems);
        let own = SuiteFile { name: name.into(), text: text.into(), entries, named_at: None };
        let mut suite = Suite { files: vec![own] };
        let at = root.key("expect_files");
        if document.expect_files.as_ref().is_some_and(|files| files.entries().is_empty()) {
            problems.add(&at, ProblemKind::EmptyList { required: false });
        }
        let folder = Path::new(name).parent().unwrap_or(Path::new(""));
        for (i, path) in document.expect_files.iter().flat_map(List::entries).enumerate() {
            let at = at.index(i);
            if path.is_empty() {
                problems.add(&at, ProblemKind::EmptyEntry);
                continue;
            }
            let read = (env.file)(path)
                .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned()));
            match read {
                Ok(text) => suite.add(folder.join(path).to_string_lossy().into_owned(), text, at.path(), &mut problems),
                Err(why) => problems.add(&at, ProblemKind::FileUnreadable { path: path.clone(), why }),
            }
        }
        (suite, problems)
    }

    /// Adds the expectations of another file. `named_at` is the place in the configuration that names the file.
    pub(crate) fn add(&mut self, name: String, text: String, named_at: KeyPath, problems: &mut Problems) {
        let mut found = Problems::default();
        let file = ExpectationFile::parse(&text, &mut found);
        let (root, mut list) = (At::root(), Vec::new());
        if let Some(file) = file {
            let at = root.key("expect");
            let mut of_entries = Problems::default();
            if file.expect.is_none() {
                of_entries.add(&at, ProblemKind::Missing { example: "expect: [{ page: https://app.example, url: https://api.example/orders, result: allowed }]" });
            }
            list = entries(file.expect.as_deref(), &at, &mut of_entries);
            crate::snapshot::extend_with_causes(&mut found, of_entries);
        }
        let file = SuiteFile { name: name.into(), text: text.into(), entries: list, named_at: Some(named_at) };
        problems.extend(file.problems(found));
        self.files.push(file);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.files.iter().all(|file| file.entries.is_empty())
    }

    /// Checks all expectations. `document` must belong to the configuration.
    pub(crate) fn run<'s>(
        &'s self,
        configuration: &Configuration<'_>,
        document: &Document,
        depth: Depth,
    ) -> Vec<Tested<'s>> {
        let source = Source::new(configuration.name(), configuration.text());
        let explained = (MOST_EXPLAINED_BYTES / configuration.text().len().max(1)).clamp(1, MOST_EXPLAINED);
        let mut failed = 0;
        let mut test = |file, entry| {
            let depth = match depth {
                Depth::Explained if failed < explained => Depth::Explained,
                Depth::Explained | Depth::Cause if failed < MOST_REPORTED => Depth::Cause,
                _ => Depth::Verdict,
            };
            let result = match Failure::find(entry, configuration, &source, document, depth) {
                None => TestResult::Holds,
                Some(failure) => TestResult::Fails(failure),
            };
            failed += usize::from(matches!(result, TestResult::Fails(_)));
            Tested { file, entry, result }
        };
        self.entries().map(|(file, entry)| test(file, entry)).collect()
    }

    /// Checks all expectations against a server. `ask` sends the requests of a question and returns the result.
    ///
    /// # Errors
    ///
    /// Returns the first error of `ask`. The requests after it are not sent.
    pub(crate) fn run_against<E>(
        &self,
        mut ask: impl FnMut(&Question) -> Result<ServerAnswer, E>,
    ) -> Result<Vec<Tested<'_>>, E> {
        self.entries()
            .map(|(file, entry)| {
                let result = match entry.question.for_any_server() {
                    Ok(()) => result_of_answer(entry, ask(&entry.question)?),
                    Err(why) => TestResult::NotTested(why.to_owned()),
                };
                Ok(Tested { file, entry, result })
            })
            .collect()
    }

    /// Returns the questions of all expectations.
    pub(crate) fn questions(&self) -> impl Iterator<Item = &Question> {
        self.entries().map(|(_, entry)| &entry.question)
    }

    fn entries(&self) -> impl Iterator<Item = (&SuiteFile<'t>, &Entry)> {
        self.files.iter().flat_map(|file| file.entries.iter().map(move |entry| (file, entry)))
    }

    /// Returns the failed expectations as problems of the configuration.
    pub(super) fn problems(&self, tested: &[Tested<'_>]) -> Problems {
        let mut problems = Problems::default();
        let failed: Vec<_> = tested.iter().filter_map(|tested| Some((tested, tested.failure()?))).collect();
        for file in &self.files {
            let shown = failed.iter().take(MOST_REPORTED).filter(|(tested, _)| std::ptr::eq(tested.file, file));
            let of_file = shown.map(|(Tested { entry, .. }, failure)| {
                let key = match failure.mismatch {
                    Mismatch::Result => "result",
                    Mismatch::Reason => "reason",
                };
                let mut at = entry.at.clone();
                at.0.push(PathStep::Key(key.into()));
                Problem { at, kind: failure.problem(entry) }
            });
            problems.extend(file.problems(of_file.collect()));
        }
        if let count @ 1.. = failed.len().saturating_sub(MOST_REPORTED) {
            problems.add(&At::root().key("expect"), ProblemKind::MoreExpectationsFailed { count });
        }
        problems
    }
}

impl SuiteFile<'_> {
    /// Converts problems of this file to problems of the configuration.
    fn problems(&self, problems: Problems) -> Problems {
        let Some(named_at) = &self.named_at else { return problems };
        let source = Source::new(&self.name, &self.text);
        let in_file = |problem: Problem| {
            let place = report::place(&problem, &source);
            let (line, column) = place.as_ref().map_or((1, 1), |place| (place.line, place.column));
            let (width, excerpt) = place.map_or((1, String::new()), |place| (place.width, place.excerpt.to_owned()));
            let Problem { at, kind } = problem;
            let file = OtherFile { name: self.name.to_string(), at, line, column, width, excerpt, kind };
            Problem { at: named_at.clone(), kind: ProblemKind::InOtherFile(Box::new(file)) }
        };
        problems.into_iter().map(in_file).collect()
    }
}

impl Tested<'_> {
    pub(crate) fn fails(&self) -> bool {
        self.failure().is_some()
    }

    pub(super) fn failure(&self) -> Option<&Failure> {
        match &self.result {
            TestResult::Fails(failure) => Some(failure),
            TestResult::Holds | TestResult::NotTested(_) => None,
        }
    }

    /// Returns the name of the file with the expectation.
    pub(super) fn file(&self) -> &str {
        &self.file.name
    }
}

/// Finds the places of tested expectations. It reads each text once.
pub(super) struct Places<'s> {
    file: Option<(&'s SuiteFile<'s>, Source<'s>)>,
}

impl<'s> Places<'s> {
    pub(super) fn new() -> Self {
        Places { file: None }
    }

    /// Returns the place of an expectation. It is fast if the expectations of a file come in sequence.
    pub(super) fn of(&mut self, tested: &Tested<'s>) -> Place<'s> {
        let file = tested.file;
        let source = match self.file.take() {
            Some((known, source)) if std::ptr::eq(known, file) => source,
            _ => Source::new(&file.name, &file.text),
        };
        let place = source.place(&tested.entry.at);
        self.file = Some((file, source));
        place
    }
}
