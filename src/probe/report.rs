//! The result of a page's request to a server: what the page gets, why, and how to change it.

use super::remedy::{Advice, advice_on_error, advice_on_unreadable, notes};
use super::{Exchanges, NoReply, WireReply};
use crate::explain::fetch::{Credentials, Fetch, NetworkError, Stage};
use crate::explain::{Interrupted, NextRequest, Outcome, PageResult, PageRun, Preflight, Question};

/// The result of a page's request to a server.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) origin: String,
    /// The normalised method.
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) credentials: Credentials,
    pub(crate) verdict: ProbeVerdict,
    /// The message of the browser's console.
    pub(crate) console: Option<String>,
    /// Why the browser refuses, and what the server can do.
    pub(crate) advice: Option<Advice>,
    pub(crate) preflight: Preflight,
    pub(crate) preflight_max_age: Option<u64>,
    pub(crate) steps: Vec<ReportStep>,
    pub(crate) readable: Vec<String>,
    /// Response headers that the page reads, but cannot read.
    pub(crate) unreadable: Vec<String>,
    /// Further facts, as whole sentences.
    pub(crate) notes: Vec<String>,
}

/// Whether the page gets the response.
#[derive(Debug)]
pub(crate) enum ProbeVerdict {
    Allowed,
    Refused,
    /// A redirect to a server that the user has not named.
    RedirectAway(NextRequest),
    /// The request was not sent; the preflight passed or was not needed.
    NotSent {
        method: String,
    },
    /// There is no response.
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
    /// Method and target.
    pub(crate) request: String,
    /// The fields that matter to CORS.
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
            // Only corsgate rejects requests in a way that this browser knows.
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

    /// The code of the verdict.
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

    /// The verdict as `explain` has it. None if there was trouble.
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

/// The code of an error.
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

/// Whether a page of an origin can read a response, without and with credentials.
pub(super) fn can_read(origin: &str, headers: &http::HeaderMap, credentials: Credentials) -> bool {
    Fetch { origin, method: "GET", headers: &[], credentials }.check(headers).is_ok()
}
