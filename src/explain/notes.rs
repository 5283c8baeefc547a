//! Notes of an explanation: facts beside the cause that the reader needs to know.

use super::cause::{Cause, case_advice, is_own_behind_tls, known_in_other_case};
use super::fetch::{Credentials, NetworkError, PreflightCacheEntry, Stage};
use super::listener::https_port;
use super::question::{Question, QuestionSource};
use super::simulation::{PageResult, Simulation};
use crate::cors::{Headers as _, Reason, Scheme};
use crate::decide::Action;
use crate::domain::{is_loopback_host, split_port};
use crate::snapshot::Snapshot;

/// All notes, as whole sentences.
pub(super) fn notes(
    question: &Question,
    simulation: &Simulation<'_>,
    snapshot: &Snapshot,
    cause: Option<&Cause>,
) -> Vec<String> {
    let mut notes = Vec::new();
    let last = simulation.last();
    if question.origins.len() > 1 {
        notes.push(
            "No browser sends more than one Origin: the client is not a browser, or a proxy adds an Origin.".to_owned(),
        );
    }
    let is_in_advice = matches!(
        cause,
        Some(Cause::MethodNotAllowed { other_case: Some(_), .. } | Cause::NoRouteForMethod { other_case: Some(_), .. })
    );
    let other_case = known_in_other_case(&question.method, std::iter::empty());
    if let Some(other_case) = other_case.filter(|_| !is_in_advice) {
        notes.push(format!("{}.", case_advice(&question.method, &other_case)));
    }
    if question.origins.is_empty() {
        notes.push(
            "The request has no Origin, so CORS does not apply to it: if it was refused, CORS was not the reason."
                .to_owned(),
        );
    }
    if is_mixed_content(question) {
        let instead = match https_port(snapshot, &question.url) {
            Some(443) => format!("use https://{}", split_port(&question.url.authority).0),
            Some(port) => format!("use https://{}:{port}", split_port(&question.url.authority).0),
            None => "no listener of this file has TLS".to_owned(),
        };
        notes.push(format!(
            "Browsers block a request to `http:` from a page on https as mixed content, before they check CORS; \
             {instead}."
        ));
    }
    notes.extend(note_on_port(snapshot, question));
    let is_foreign = last.exchange.verdict.outcome.reason() == Some(Reason::OriginNotAllowed);
    if is_foreign && cause.is_none() && is_own_behind_tls(question, last) {
        notes.push(
            "TLS ends in front of corsgate, which sees plain http and so takes the site's own origin for a foreign one: \
             set `trusted_proxies`, and let that component send `X-Forwarded-Proto: https`. With \
             `disallowed_origins: reject` corsgate would refuse this request."
                .to_owned(),
        );
    }
    if let (PageResult::Blocked(_), Action::Forward(_), Stage::Request) =
        (&simulation.result, last.exchange.verdict.action, last.stage)
    {
        notes
            .push("The upstream still gets this request: the browser blocks the response, not the request.".to_owned());
    }
    if let (Some(Cause::HeadersNotAllowed { star: true, .. }), PageResult::Blocked(NetworkError::Header(_))) =
        (cause, &simulation.result)
        && question.credentials == Credentials::Omit
        && last.exchange.response.map().get(http::header::ACCESS_CONTROL_ALLOW_HEADERS).is_some_and(|list| list == "*")
    {
        notes.push(
            "Chromium still accepts `*` for Authorization, against the Fetch standard. Do not rely on that: list \
             Authorization."
                .to_owned(),
        );
    }
    let is_answered_options =
        last.stage == Stage::Request && matches!(last.exchange.verdict.action, Action::AnswerPreflight(_));
    if is_answered_options {
        notes.push(
            "The gateway treats the page's own OPTIONS as a preflight and answers it. With \
             `preflight: { match: standard }` the upstream gets it."
                .to_owned(),
        );
    }
    if let Some(seconds) = simulation.preflight_max_age.filter(|seconds| *seconds > PreflightCacheEntry::CHROMIUM_LIMIT)
    {
        let limit = PreflightCacheEntry::CHROMIUM_LIMIT;
        notes.push(format!("Chromium caches a preflight for at most {limit} s, not for {seconds} s."));
    }
    if let (Action::Forward(_), true) = (last.exchange.verdict.action, last.exchange.response.status.is_redirection())
        && last.stage == Stage::Request
        && matches!(simulation.result, PageResult::Response)
    {
        notes.push(
            "The browser follows the upstream's redirect: explain the URL of its Location too. If the redirect leads from one \
             foreign origin to another, the browser sends the origin null."
                .to_owned(),
        );
    }
    notes
}

/// Mixed Content, "should fetching request be blocked". Browsers do not block requests to the same machine. A recorded
/// request was not blocked.
fn is_mixed_content(question: &Question) -> bool {
    let host = split_port(&question.url.authority).0;
    matches!(question.source, QuestionSource::Page)
        && question.url.scheme == Scheme::Http
        && question.origin().starts_with("https://")
        && !is_loopback_host(host)
}

/// Warns if the URL names a port that no listener has. Not for recorded requests, which did arrive, nor for default
/// ports.
fn note_on_port(snapshot: &Snapshot, question: &Question) -> Option<String> {
    if !matches!(question.source, QuestionSource::Page) {
        return None;
    }
    let port = split_port(&question.url.authority).1?.parse::<u16>().ok()?;
    let listeners = || snapshot.listeners().iter().filter(|listener| listener.address.port() == port);
    let is_tls = question.url.scheme == Scheme::Https;
    if listeners().any(|listener| listener.tls.is_some() == is_tls) {
        return None;
    }
    Some(match (listeners().next(), question.url.scheme) {
        (None, _) => {
            format!(
                "No listener of this file has port {port}. Use this port only if a component in front of corsgate has it."
            )
        }
        (Some(_), Scheme::Https) => format!(
            "The listener with port {port} has no TLS. Use https on this port only if a component in front of corsgate \
             terminates TLS."
        ),
        (Some(_), Scheme::Http) => format!(
            "The listener with port {port} accepts only TLS. Use http on this port only if a component in front of \
             corsgate accepts plain HTTP."
        ),
    })
}
