//! The reason why an expectation fails, and a remedy.

use super::judge::{Mismatch, judge, result_of};
use super::parse::Entry;
use super::server::{ServerAnswer, ServerOutcome};
use crate::config::{Document, ExpectedResult, Source};
use crate::explain::{Cause, Configuration, Explanation, FilePosition, Prediction, explain, policy_of};
use crate::problem::ProblemKind;

/// Depth of the analysis of a failed expectation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Only the result.
    Verdict,
    /// The result and the cause.
    Cause,
    /// The cause, and the smallest edit of the file that allows the request.
    Explained,
}

/// A failed expectation.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) mismatch: Mismatch,
    /// The result that was found. None if another server decides.
    pub(super) result: Option<ExpectedResult>,
    /// The code of the cause. Without a cause, it is the code of the gateway.
    pub(super) code: &'static str,
    /// The cause in a sentence without a full stop, with its place in the file.
    pub(super) cause: Option<String>,
    /// The remedy, in the imperative.
    pub(super) advice: String,
    /// A command that prints the whole explanation.
    pub(super) command: String,
    pub(super) explanation: Option<Box<Explanation>>,
}

impl Failure {
    /// Checks an entry. Returns None if it holds. `source` and `document` must belong to the configuration.
    pub(super) fn find(
        entry: &Entry,
        configuration: &Configuration<'_>,
        source: &Source<'_>,
        document: &Document,
        depth: Depth,
    ) -> Option<Self> {
        let prediction = Prediction::of(&entry.question, configuration.snapshot());
        let result = result_of(prediction.outcome(), prediction.reaches_upstream());
        let mismatch = judge(entry.result, entry.reason, result, || prediction.code(document)).err()?;
        let explanation = (depth == Depth::Explained).then(|| Box::new(explain(&entry.question, configuration)));
        let known = match depth {
            Depth::Verdict => None,
            Depth::Cause | Depth::Explained => prediction.cause(document, source),
        };
        let code = known.as_ref().map_or_else(|| prediction.code(document), |(cause, _)| cause.code());
        Some(Failure {
            mismatch,
            result,
            code,
            cause: match &known {
                Some((cause, place)) => Some(cause_text(cause, place.as_ref(), source)),
                None => explanation.as_deref().and_then(decided_by),
            },
            advice: advice(entry, mismatch, result, code, explanation.as_deref()),
            command: entry.question.command(source.name()),
            explanation,
        })
    }

    /// Returns the failure of an expectation against a server.
    pub(super) fn of_answer(mismatch: Mismatch, result: Option<ExpectedResult>, answer: ServerAnswer) -> Self {
        let ServerAnswer { outcome, code, cause, remedy, command } = answer;
        let cause = match outcome {
            ServerOutcome::RedirectAway { url } => Some(format!("the redirect leads to {url}")),
            _ => cause,
        };
        let advice = match remedy {
            Some(remedy) => format!("{remedy}, or correct the expectation"),
            None => "correct the policy of the server, or the expectation".to_owned(),
        };
        Failure { mismatch, result, code, cause, advice, command, explanation: None }
    }

    /// Returns the failure as a problem of the configuration.
    pub(super) fn problem(&self, entry: &Entry) -> ProblemKind {
        ProblemKind::ExpectationFailed {
            request: entry.question.to_string(),
            expected: self.expected(entry),
            found: self.found(),
            cause: self.cause.clone(),
            remedy: format!("{}; `{}` shows the exchange", self.advice, self.command),
        }
    }

    pub(super) fn expected(&self, entry: &Entry) -> String {
        match (self.mismatch, entry.reason) {
            (Mismatch::Reason, Some(reason)) => format!("the reason `{reason}`"),
            _ => format!("`{}`", entry.result.word()),
        }
    }

    pub(super) fn found(&self) -> String {
        match (self.mismatch, self.result) {
            (Mismatch::Reason, _) => format!("`{}`", self.code),
            (Mismatch::Result, Some(result)) => format!("`{}` ({})", result.word(), self.code),
            (Mismatch::Result, None) => "a redirect to another server".to_owned(),
        }
    }
}

fn cause_text(cause: &Cause, place: Option<&FilePosition>, source: &Source<'_>) -> String {
    let place = place.map(|place| format!(" ({}:{}:{})", source.name(), place.line, place.column));
    cause.fault() + &place.unwrap_or_default()
}

/// Returns the policy that allows the request, or the URL of the server that decides.
fn decided_by(explanation: &Explanation) -> Option<String> {
    if let Some(next) = &explanation.next {
        return Some(format!("the redirect leads to {}", next.url));
    }
    let route = explanation.route.as_ref()?;
    Some(format!("the route is {}, and its policy is {}", route.name, policy_of(explanation)?))
}

fn advice(
    entry: &Entry,
    mismatch: Mismatch,
    result: Option<ExpectedResult>,
    code: &str,
    explanation: Option<&Explanation>,
) -> String {
    use ExpectedResult::{Allowed, Refused, Unreadable};
    let fix = explanation.and_then(|explanation| explanation.fix.as_ref());
    match (mismatch, entry.result, result) {
        (Mismatch::Reason, ..) => format!("write `reason: {code}`, or correct the request or the policy"),
        (Mismatch::Result, _, None) => "remove the expectation: that server decides".to_owned(),
        (Mismatch::Result, Refused, Some(Unreadable)) => match code.starts_with("origin_") {
            true => {
                "write `result: unreadable`, or let the policy reject the request with `disallowed_origins: reject`"
            }
            false => "write `result: unreadable`, because the upstream gets the request",
        }
        .to_owned(),
        (Mismatch::Result, Unreadable, Some(Refused)) => {
            "write `result: refused`, because the upstream does not get the request".to_owned()
        }
        (Mismatch::Result, Allowed, Some(_)) if let Some(fix) = fix => {
            let line = fix.hunks.first().map(|hunk| format!(" (line {})", hunk.line)).unwrap_or_default();
            format!("{}{line}, or correct the expectation", fix.steps.join("; "))
        }
        (Mismatch::Result, ..) => "correct the policy or the expectation".to_owned(),
    }
}
