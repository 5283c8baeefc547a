//! Results of expectations against a running server. The caller sends the requests.
//!
//! The responses show less than a configuration: a response that the page cannot read may come from the gateway or from
//! the upstream, and the reason is not in it. So `refused` also holds for an unreadable response with an error status, and
//! `reason` is not compared.

use super::failure::Failure;
use super::judge::judge;
use super::parse::Entry;
use super::suite::TestResult;
use crate::config::ExpectedResult;

/// The response of a server to the request of an expectation.
#[derive(Debug)]
pub(crate) struct ServerAnswer {
    pub(crate) outcome: ServerOutcome,
    /// The code of the outcome.
    pub(crate) code: &'static str,
    /// Why the browser refuses, as a phrase without a full stop.
    pub(crate) cause: Option<String>,
    /// What to change at the server, as a phrase in the imperative without a full stop.
    pub(crate) remedy: Option<String>,
    /// The command that shows the exchange.
    pub(crate) command: String,
}

/// What the browser does with the response of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServerOutcome {
    /// The page gets the response.
    Allowed,
    /// The preflight fails, so the browser does not send the request.
    PreflightFailed,
    /// The page cannot read the response.
    Unreadable {
        /// The status is 400 or above.
        is_error: bool,
    },
    /// A redirect leads to another server, which was not asked.
    RedirectAway { url: String },
    /// The preflight passed or was not needed, and the request was not sent.
    NotSent { method: String },
}

/// Compares an answer with an expectation.
pub(super) fn result_of_answer(entry: &Entry, answer: ServerAnswer) -> TestResult {
    let result = match &answer.outcome {
        ServerOutcome::Allowed => Some(ExpectedResult::Allowed),
        ServerOutcome::PreflightFailed => Some(ExpectedResult::Refused),
        ServerOutcome::Unreadable { is_error: true } if entry.result == ExpectedResult::Refused => {
            Some(ExpectedResult::Refused)
        }
        ServerOutcome::Unreadable { .. } => Some(ExpectedResult::Unreadable),
        ServerOutcome::RedirectAway { .. } => None,
        ServerOutcome::NotSent { method } => {
            return TestResult::NotTested(format!("{method} is only sent with `--send`: it can change data"));
        }
    };
    match judge(entry.result, None, result, || answer.code) {
        Ok(()) => TestResult::Holds,
        Err(mismatch) => TestResult::Fails(Failure::of_answer(mismatch, result, answer)),
    }
}
