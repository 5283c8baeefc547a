//! The result of a page's request to a server: the verdict, its reason, and the remedy.

use super::remedy::{Advice, advice_on_error, advice_on_unreadable, notes};
use super::{Exchanges, NoReply, WireReply};
use crate::explain::fetch::{Credentials, Fetch, NetworkError, Stage};
use crate::explain::{Interrupted, NextRequest, Outcome, PageResult, PageRun, Preflight, Question};

/// The result of a page's request to a server.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) origin: String,
    /// The method after normalisation (Fetch: `get` becomes `GET`).
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) credentials: Credentials,
    pub(crate) verdict: ProbeVerdict,
    /// The message in the browser's console. None if the browser prints none.
    pub(crate) console: Option<String>,
    /// The reason for a refusal, and the remedy. None if the browser does not refuse.
    pub(crate) advice: Option<Advice>,
    pub(crate) preflight: Preflight,
    pub(crate) preflight_max_age: Option<u64>,
    pub(crate) steps: Vec<ReportStep>,
    pub(crate) readable: Vec<String>,
    /// Response headers that the page wants to read, but that are not exposed to it.
    pub(crate) unreadable: Vec<String>,
    /// Further facts, as whole sentences for the user.
    pub(crate) notes: Vec<String>,
}

/// The verdict of a probe.
#[derive(Debug)]
pub(crate) enum ProbeVerdict {
    Allowed,
    Refused,
    /// The response redirects to a server that the command line does not name.
    RedirectAway(NextRequest),
    /// The request was not sent; the preflight passed or was not needed.
    NotSent {
        method: String,
    },
    /// The request failed, so there is no response.
    Trouble {
        stage: Stage,
        url: String,
        trouble: super::Trouble,
    },
}

/// A request with its response.
#[derive(Debug)]
pub(crate) struct ReportStep {
    pub(crate) stage: Stage,
    /// The method and the target.
    pub(crate) request: String,
    /// The header fields of the request.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) reply: WireReply,
}

impl Report {
    pub(crate) fn of(question: &Question, exchanges: Exchanges) -> Self {
        let (run, no_reply) = match exchanges {
            Ok(run) => (run, None),
            Err(Interrupted { run, error }) => (*run, Some(error)),
        };
        let mut report = Report {
            origin: question.origin(),
            method: question.normalised_method(),
            url: question.url().to_string(),
            credentials: run.credentials,
            verdict: ProbeVerdict::Allowed,
            console: None,
            advice: None,
            preflight: run.preflight.clone(),
            preflight_max_age: run.preflight_max_age,
            notes: Vec::new(),
            readable: run.readable.clone(),
            unreadable: Vec::new(),
            steps: Vec::new(),
        };
        match no_reply {
            Some(NoReply::NotSent { method }) => report.verdict = ProbeVerdict::NotSent { method },
            Some(NoReply::Trouble { stage, url, trouble }) => {
                report.verdict = ProbeVerdict::Trouble { stage, url, trouble };
            }
            None => report.judge(question, &run),
        }
        report.notes = notes(question, &run, &report.verdict);
        report.steps = run.steps.into_iter().map(ReportStep::of).collect();
        report
    }

    fn judge(&mut self, question: &Question, run: &PageRun<WireReply>) {
        self.console = run.console(question);
        match &run.result {
            // The kind of a `WireReply` is never a rejection, so `Rejected` does not occur.
            PageResult::Response | PageResult::Rejected => {}
            PageResult::RedirectAway(next) => self.verdict = ProbeVerdict::RedirectAway(next.clone()),
            PageResult::Blocked(error) => {
                self.verdict = ProbeVerdict::Refused;
                self.advice = Some(advice_on_error(error, run));
            }
            PageResult::Unreadable(names) => {
                self.verdict = ProbeVerdict::Refused;
                self.unreadable.clone_from(names);
                self.advice = Some(advice_on_unreadable(names, self.credentials));
            }
        }
    }

    /// Returns the code of the verdict in the output.
    pub(crate) fn code(&self) -> &'static str {
        match &self.verdict {
            ProbeVerdict::Allowed if self.preflight == Preflight::SameOrigin => "same_origin",
            ProbeVerdict::Allowed => "allowed",
            ProbeVerdict::Refused => self.advice.as_ref().map_or("refused", |advice| advice.code),
            ProbeVerdict::RedirectAway(_) => "redirect_away",
            ProbeVerdict::NotSent { .. } => "not_sent",
            ProbeVerdict::Trouble { trouble, .. } => trouble.kind.code(),
        }
    }

    /// Returns the verdict in the terms of `explain`. Returns None if the request failed.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        match self.verdict {
            ProbeVerdict::Allowed => Some(Outcome::Allowed),
            ProbeVerdict::Refused => Some(Outcome::Refused),
            ProbeVerdict::RedirectAway(_) | ProbeVerdict::NotSent { .. } => Some(Outcome::Undecided),
            ProbeVerdict::Trouble { .. } => None,
        }
    }
}

impl ReportStep {
    fn of(step: crate::explain::PageStep<WireReply>) -> Self {
        ReportStep {
            stage: step.stage,
            request: format!("{} {}", step.method, step.url.path_and_query),
            fields: step.fields,
            reply: step.exchange,
        }
    }
}

/// Returns the code of an error in the output.
pub(super) fn code(error: &NetworkError) -> &'static str {
    match error {
        NetworkError::NoAllowOrigin => "no_allow_origin",
        NetworkError::AllowOriginMismatch(_) => "allow_origin_mismatch",
        NetworkError::WildcardWithCredentials => "wildcard_with_credentials",
        NetworkError::NoAllowCredentials => "no_allow_credentials",
        NetworkError::PreflightStatus(_) => "preflight_status",
        NetworkError::PreflightRedirect(_) => "preflight_redirect",
        NetworkError::MalformedList(_) => "malformed_list",
        NetworkError::Method(_) => "method_not_allowed",
        NetworkError::Header(_) => "header_not_allowed",
        NetworkError::ResourcePolicy(_) => "resource_policy",
        NetworkError::TooManyRedirects => "too_many_redirects",
        NetworkError::RedirectToUserPart => "redirect_to_user_part",
        NetworkError::RedirectToNoUrl(_) => "redirect_to_no_url",
        NetworkError::NotSwitched(_) => "not_switched",
    }
}

/// Returns true if a page of an origin can read a response, with the given credentials mode.
pub(super) fn can_read(origin: &str, headers: &http::HeaderMap, credentials: Credentials) -> bool {
    Fetch { origin, method: "GET", headers: &[], credentials }.check(headers).is_ok()
}
