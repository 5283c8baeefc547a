//! The gateway as the server of a page's requests. A snapshot determines the responses.

use std::convert::Infallible;

use http::{StatusCode, Version};

use super::{Interrupted, PageRun, PageServer, PageStep, Reply, ResponseKind, SentRequest, browse};
use crate::decide::{Action, ConnectionFacts, Framing, Request};
use crate::domain::OwnOrigin;
use crate::explain::exchange::{Exchange, Head};
use crate::explain::listener::{self, Reached};
use crate::explain::question::{PageUrl, Question, QuestionSource};
use crate::snapshot::Snapshot;

/// The simulation of a page's requests to the gateway.
pub(in crate::explain) type Simulation<'s> = PageRun<Exchange<'s>>;

/// One step of the simulation, with the gateway's response.
pub(in crate::explain) type Step<'s> = PageStep<Exchange<'s>>;

/// The gateway with one configuration.
struct Gateway<'q, 's> {
    question: &'q Question,
    snapshot: &'s Snapshot,
}

impl<'s> Simulation<'s> {
    pub(in crate::explain) fn of(question: &Question, snapshot: &'s Snapshot) -> Self {
        match browse(question, &mut Gateway { question, snapshot }) {
            Ok(run) => run,
            Err(Interrupted { error, .. }) => match error {},
        }
    }
}

impl Step<'_> {
    /// Returns the gateway's own origin, according to the request that it receives.
    pub(in crate::explain) fn own_origin(&self) -> OwnOrigin<'_> {
        OwnOrigin::of(self.exchange.scheme, &self.url.authority)
    }
}

impl<'s> PageServer for Gateway<'_, 's> {
    type Reply = Exchange<'s>;
    type Error = Infallible;

    fn exchange(&mut self, sent: &SentRequest<'_>) -> Result<Exchange<'s>, Infallible> {
        let (question, snapshot, url) = (self.question, self.snapshot, sent.url);
        let reached = Reached::of(snapshot, url);
        let scheme = match question.source {
            // A recorded request has the scheme that the gateway saw.
            QuestionSource::Request | QuestionSource::Preflight(_) if sent.redirects == 0 => url.scheme,
            _ => reached.scheme(snapshot, url),
        };
        let request = Request {
            method: sent.method,
            path: url.path().as_bytes(),
            target_length: url.path_and_query.len(),
            version: Version::HTTP_11,
            own_origin: OwnOrigin::of(scheme, &url.authority),
            authority: Some(&url.authority),
            headers: sent.headers,
            framing: Framing::Clear,
            connection: ConnectionFacts {
                redirect: reached.redirect(),
                clients: reached.clients(),
                client: question.client,
                ..ConnectionFacts::default()
            },
        };
        let upstream = || match sent.has_followed {
            true => Head::new(StatusCode::OK),
            false => question.upstream.clone(),
        };
        Ok(Exchange::of(snapshot, &request, &url.path_and_query, upstream))
    }

    fn serves(&self, from: &PageUrl, to: &PageUrl) -> bool {
        listener::serves(self.snapshot, from, to)
    }

    /// Returns true if a route rejects requests by `Sec-Fetch-Site`.
    fn reads_fetch_site(&self) -> bool {
        self.snapshot.routes().iter().any(|route| {
            let mut policies = route.policy.iter().chain(&route.report_only);
            policies.any(|policy| policy.rejects_cross_site())
        })
    }
}

impl Reply for Exchange<'_> {
    fn head(&self) -> &Head {
        &self.response
    }

    fn kind(&self) -> ResponseKind {
        match self.verdict.action {
            Action::RedirectToHttps(_) => ResponseKind::RedirectToItself,
            Action::Refuse(_) => ResponseKind::Rejection,
            Action::Forward(_) | Action::Answer(_) | Action::AnswerPreflight(_) | Action::AnswerOptions(_) => {
                ResponseKind::Ordinary
            }
        }
    }
}
