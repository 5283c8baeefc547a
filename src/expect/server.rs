//! Results of expectations against a running server. The caller sends the requests.
//!
//! A response of a server shows less than a configuration. If the page cannot read a response, the response may come
//! from the gateway or from the upstream, and it has no reason. So `refused` also holds for a response that the page
//! cannot read if its status is an error, and `reason` is not compared.

use super::failure::Failure;
use super::judge::judge;
use super::parse::Entry;
use super::suite::TestResult;
use crate::config::ExpectedResult;

/// The response of a server to the request of an expectation.
#[derive(Debug)]
pub(crate) struct ServerAnswer {
    pub(crate) outcome: ServerOutcome,
    /// Code of the outcome.
    pub(crate) code: &'static str,
    /// The reason why the browser refuses, as a phrase without a full stop.
    pub(crate) cause: Option<String>,
    /// A change of the server, as a phrase in the imperative without a full stop.
    pub(crate) remedy: Option<String>,
    /// A command that shows the requests and the responses.
    pub(crate) command: String,
}

/// The way in which the browser handles the response of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServerOutcome {
    /// The page gets the response.
    Allowed,
    /// The preflight fails, so the browser does not send the request.
    PreflightFailed,
    /// The page cannot read the response.
    Unreadable {
        /// True if the status is 400 or above.
        is_error: bool,
    },
    /// A redirect leads to another server, which gets no request.
    RedirectAway { url: String },
    /// The request was not sent. The preflight passed or was not needed.
    NotSent { method: String },
}

/// Compares a response with an expectation.
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
