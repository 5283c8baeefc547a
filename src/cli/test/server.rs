//! `corsgate test --server`: sends the requests of expectations to a running server.

use std::time::Duration;

use crate::cli::probe::NetworkArguments;
use crate::client::HttpClient;
use crate::expect::{ServerAnswer, ServerOutcome, Suite};
use crate::explain::fetch::Stage;
use crate::explain::{PageUrl, Question};
use crate::probe::{self, ProbeVerdict, Report, Scope, Sending};

/// A server that gets the requests of a suite.
pub(super) struct Server {
    client: HttpClient,
    /// The URL of the server from the command line.
    url: PageUrl,
    sending: Sending,
    /// The servers of all URLs in the suite.
    scope: Scope,
}

impl Server {
    /// Creates the client.
    ///
    /// # Errors
    ///
    /// The client cannot be created, for example because the CA file cannot be read.
    pub(super) fn new(
        url: &PageUrl,
        sending: Sending,
        network: &NetworkArguments,
        suite: &Suite<'_>,
    ) -> Result<Self, String> {
        let scope = suite.questions().map(Question::url).collect();
        let client = network.client(Some(url.clone()), Duration::ZERO)?;
        Ok(Server { client, url: url.clone(), sending, scope })
    }

    /// Sends the requests of a question, and returns the result.
    ///
    /// # Errors
    ///
    /// There is no response.
    pub(super) fn ask(&mut self, question: &Question) -> Result<ServerAnswer, String> {
        let report = Report::of(question, probe::exchange(question, &self.scope, self.sending, &mut self.client));
        let code = report.code();
        let last = report.steps.last();
        let outcome = match report.verdict {
            ProbeVerdict::Allowed => ServerOutcome::Allowed,
            ProbeVerdict::Refused => match last {
                Some(step) if step.stage == Stage::Preflight => ServerOutcome::PreflightFailed,
                _ => {
                    let status = last.map(|step| step.reply.head.status);
                    let is_error = status.is_some_and(|status| status.is_client_error() || status.is_server_error());
                    ServerOutcome::Unreadable { is_error }
                }
            },
            ProbeVerdict::RedirectAway(next) => ServerOutcome::RedirectAway { url: next.url },
            ProbeVerdict::NotSent { method } => ServerOutcome::NotSent { method },
            ProbeVerdict::Trouble { trouble, .. } => {
                return Err(format!("no response to {question}: {trouble}"));
            }
        };
        Ok(ServerAnswer {
            outcome,
            code,
            cause: report.advice.as_ref().map(|advice| advice.cause.trim_end_matches('.').to_owned()),
            remedy: report.advice.as_ref().map(|advice| phrase(&advice.remedy)),
            command: question.probe_command(&self.url.origin()),
        })
    }
}

/// Converts a sentence to a phrase: without its first capital and its full stop.
fn phrase(sentence: &str) -> String {
    let mut letters = sentence.trim_end_matches('.').chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}
