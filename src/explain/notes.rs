//! Notes of an explanation: further facts that the reader needs besides the cause.

use super::cause::{Cause, case_advice, is_own_behind_tls, known_in_other_case};
use super::fetch::{Credentials, NetworkError, PreflightAnswer, Stage};
use super::listener::https_port;
use super::question::{Initiator, PageRequest, Question, QuestionSource};
use super::simulation::{PageResult, Simulation};
use super::site::{AddressSpace, is_same_site};
use crate::behavior::Behaviors;
use crate::behavior::clients::ClientAddress;
use crate::behavior::rewrite::UpstreamHost;
use crate::cors::fetch_names::is_response_header;
use crate::cors::{Reason, ReportOnly, ReportedChange};
use crate::decide::Action;
use crate::domain::{Scheme, is_loopback_host, split_port};
use crate::snapshot::Snapshot;

/// Returns all notes, as whole sentences.
pub(super) fn notes(
    question: &Question,
    simulation: &Simulation<'_>,
    snapshot: &Snapshot,
    cause: Option<&Cause>,
) -> Vec<String> {
    let mut notes = Vec::new();
    let last = simulation.last();
    let asked = &question.requests[simulation.request];
    if question.origins.len() > 1 {
        notes.push(
            "No browser sends more than one Origin: the client is not a browser, or a proxy adds an Origin.".to_owned(),
        );
    }
    let is_in_advice = matches!(
        cause,
        Some(Cause::MethodNotAllowed { other_case: Some(_), .. } | Cause::NoRouteForMethod { other_case: Some(_), .. })
    );
    let other_case = known_in_other_case(&asked.method, std::iter::empty());
    if let Some(other_case) = other_case.filter(|_| !is_in_advice) {
        notes.push(format!("{}.", case_advice(&asked.method, &other_case)));
    }
    if question.origins.is_empty() {
        notes.push(
            "The request has no Origin, so CORS does not apply to it: if it was refused, CORS was not the reason."
                .to_owned(),
        );
    }
    if is_mixed_content(question, asked) {
        let (plain, tls) = match question.initiator {
            Initiator::WebSocket => ("ws", "wss"),
            _ => ("http", "https"),
        };
        let host = split_port(&asked.url.authority).0;
        let instead = match https_port(snapshot, &asked.url) {
            Some(443) => format!("use {tls}://{host}"),
            Some(port) => format!("use {tls}://{host}:{port}"),
            None => "no listener of this file has TLS".to_owned(),
        };
        notes.push(format!(
            "Browsers block a request to `{plain}:` from a page on https as mixed content, before they check CORS; \
             {instead}."
        ));
    }
    notes.extend(note_on_port(snapshot, question, asked));
    let depends_on_origin =
        matches!(last.exchange.verdict.outcome.reason(), Some(Reason::OriginNotAllowed | Reason::NoOrigin));
    if depends_on_origin && cause.is_none() && is_own_behind_tls(question, last) {
        notes.push(
            "TLS ends in front of corsgate, which sees plain http and so takes the Origin of the site's own pages for a \
             foreign one: set `trusted_proxies`, and let that component send `X-Forwarded-Proto: https`. Without it, \
             `disallowed_origins: reject` refuses the site's own POST requests."
                .to_owned(),
        );
    }
    if let (PageResult::Blocked(_), Action::Forward(_), Stage::Request) =
        (&simulation.result, last.exchange.verdict.action, last.stage)
    {
        notes
            .push("The upstream still gets this request: the browser blocks the response, not the request.".to_owned());
    }
    let report = simulation.last_steps().find_map(|step| Some((step.stage, step.exchange.verdict.report_only?)));
    if let Some((stage, ReportOnly { change, reason })) = report {
        let would = match change {
            ReportedChange::WouldRefuse => "refuse",
            ReportedChange::WouldAllow => "allow",
        };
        let what = match stage {
            Stage::Preflight => "preflight",
            Stage::Request => "request",
        };
        notes.push(format!("The `report_only` policy would {would} this {what} ({}).", reason.code()));
    }
    if last.stage == Stage::Request && last.exchange.verdict.asks_a_service() {
        notes.push(
            "corsgate asks the service of `forward_auth` about this request, and never about its preflight. The service \
             can refuse it; this is the result if it does not."
                .to_owned(),
        );
    }
    if let (Some(Cause::HeadersNotAllowed { star: true, .. }), PageResult::Blocked(NetworkError::Header(_))) =
        (cause, &simulation.result)
        && question.credentials == Credentials::Omit
        && last
            .exchange
            .response
            .headers
            .get(http::header::ACCESS_CONTROL_ALLOW_HEADERS)
            .is_some_and(|list| list == "*")
    {
        notes.push(
            "Chromium and Firefox still accept `*` for Authorization, against the Fetch standard. Do not rely on that: \
             list Authorization."
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
    if let Some(seconds) = simulation.preflight_max_age.filter(|seconds| *seconds > PreflightAnswer::CHROMIUM_LIMIT) {
        let limit = PreflightAnswer::CHROMIUM_LIMIT;
        notes.push(format!("Chromium caches a preflight for at most {limit} s, not for {seconds} s."));
    }
    notes.extend(note_on_address_space(question, asked));
    notes.extend(note_on_cookies(question, asked));
    notes.extend(note_on_response_headers(asked, cause));
    notes.extend(note_on_initiator(question, simulation));
    notes.extend(notes_on_behaviors(question, simulation));
    notes
}

/// Returns notes on the behaviors of the route.
fn notes_on_behaviors(question: &Question, simulation: &Simulation<'_>) -> Vec<String> {
    let last = simulation.last();
    let verdict = &last.exchange.verdict;
    let mut notes = Vec::new();
    if let Action::Answer(answer) = verdict.action {
        let kind = if answer.is_redirect() { "redirects" } else { "answers" };
        notes.push(format!("The route {kind} itself, with {}: it has no upstream.", answer.status.as_u16()));
    }
    let Some(behaviors) = verdict.route.and_then(|found| found.route.behaviors.as_deref()) else { return notes };
    // The pattern has no `..`, so that a new behavior does not compile until it is considered here. Edits of headers
    // need no note, because the response shows them.
    let Behaviors {
        clients,
        rate_limit,
        // The note on `forward_auth` is above, because it depends on the action too.
        forward_auth: _,
        rewrite,
        upstream_host,
        request_headers: _,
        response_headers: _,
        compression,
    } = behaviors;
    if clients.is_some() && question.client == ClientAddress::Accepted {
        notes.push("The route accepts some clients only (`clients`): `--client ADDRESS` checks one.".to_owned());
    }
    // Only the running gateway has the rest of the budget.
    if let Some(limit) = rate_limit {
        notes.push(format!(
            "The rate limit of `{}` accepts {limit}. A request above it gets 429 (rate_limited); this explanation assumes \
             that it is not reached.",
            limit.name
        ));
    }
    if !matches!(verdict.action, Action::Forward(_)) {
        return notes;
    }
    if let Some(path) = rewrite.as_ref().and_then(|rewrite| rewrite.path(last.url.path().as_bytes())) {
        notes.push(format!("The upstream gets the path `{}`.", String::from_utf8_lossy(&path)));
    }
    match upstream_host {
        None => {}
        Some(UpstreamHost::Node) => notes.push("The upstream gets the address of its node as `Host`.".to_owned()),
        Some(UpstreamHost::Name(name)) => {
            notes.push(format!("The upstream gets `Host: {}`.", String::from_utf8_lossy(name.as_bytes())));
        }
    }
    if compression.is_some() {
        notes.push(
            "The route compresses responses: `Vary` has `Accept-Encoding` too, if the type is one of `types`."
                .to_owned(),
        );
    }
    notes
}

/// Local Network Access: Chromium asks the user for permission before a page reaches an address in a nearer address
/// space. Navigations are exempt. Recorded requests have no note, because they reached the gateway.
fn note_on_address_space(question: &Question, asked: &PageRequest) -> Option<String> {
    let is_checked = matches!(question.source, QuestionSource::Page) && question.initiator != Initiator::Navigation;
    let origin = question.origin();
    let (_, page) = origin.split_once("://").filter(|_| is_checked)?;
    let space = AddressSpace::of(&asked.url.authority);
    let word = space.word();
    (space < AddressSpace::of(page)).then(|| {
        format!(
            "The URL has a {word} address. Unless the page is too, Chromium since 142 asks the user for permission, and \
             without it blocks the request: \"Permission was denied for this request to access the `{word}` address \
             space\". `allow_private_network` does not help."
        )
    })
}

/// Browsers send cookies according to `SameSite`, which is independent of CORS.
fn note_on_cookies(question: &Question, asked: &PageRequest) -> Option<String> {
    let is_asked = matches!(question.source, QuestionSource::Page) && question.credentials == Credentials::Include;
    if !is_asked || is_same_site(&question.origin(), &asked.url) {
        return None;
    }
    let lax = match question.initiator == Initiator::Navigation && asked.method.eq_ignore_ascii_case("GET") {
        true => " or `SameSite=Lax`",
        false => "",
    };
    let blocked = match question.initiator {
        Initiator::Navigation => "",
        _ => ", and none where third-party cookies are blocked",
    };
    Some(format!(
        "The page and the URL belong to different sites: browsers send only cookies with `SameSite=None; Secure`{lax}{blocked}."
    ))
}

fn note_on_response_headers(asked: &PageRequest, cause: Option<&Cause>) -> Option<String> {
    if matches!(cause, Some(Cause::ResponseHeaders(_))) {
        return None;
    }
    let names = asked.headers.iter().map(|header| header.name.as_str()).filter(|name| is_response_header(name));
    let names: Vec<&str> = names.collect();
    (!names.is_empty()).then(|| {
        format!(
            "{}: a response header, which has no effect in a request. Delete it from the page's request.",
            names.join(", ")
        )
    })
}

fn note_on_initiator(question: &Question, simulation: &Simulation<'_>) -> Option<String> {
    let verdict = &simulation.last().exchange.verdict;
    let is_forwarded = matches!(verdict.action, Action::Forward(_));
    match question.initiator {
        Initiator::EventSource => Some(
            "An EventSource also needs the status 200 and `Content-Type: text/event-stream`. When it reconnects, it sends \
             Last-Event-ID without a preflight."
                .to_owned(),
        ),
        Initiator::WebSocket if is_forwarded => match verdict.outcome.reason() {
            Some(Reason::NoPolicy) => Some(
                "CORS does not apply to WebSockets: pages of every origin can open this one, with the user's cookies. Let \
                 the upstream check the Origin, or give the route a policy with `disallowed_origins: reject`."
                    .to_owned(),
            ),
            Some(reason) if reason.is_refusal() => Some(
                "The policy does not allow this origin, but CORS does not apply to WebSockets: pages of every origin can \
                 open this one, with the user's cookies. With `disallowed_origins: reject` corsgate refuses them."
                    .to_owned(),
            ),
            _ => None,
        },
        _ => None,
    }
}

/// Mixed Content, "should fetching request be blocked". Browsers do not block navigations, and requests to the same
/// machine. Recorded requests were not blocked, because they reached the gateway.
fn is_mixed_content(question: &Question, asked: &PageRequest) -> bool {
    let host = split_port(&asked.url.authority).0;
    matches!(question.source, QuestionSource::Page)
        && question.initiator != Initiator::Navigation
        && asked.url.scheme == Scheme::Http
        && question.origin().starts_with("https://")
        && !is_loopback_host(host)
}

/// Returns a warning if no listener has the port of the URL. Default ports have no warning. Recorded requests have none
/// either, because they reached the gateway.
fn note_on_port(snapshot: &Snapshot, question: &Question, asked: &PageRequest) -> Option<String> {
    if !matches!(question.source, QuestionSource::Page) {
        return None;
    }
    let port = split_port(&asked.url.authority).1?.parse::<u16>().ok()?;
    let listeners = || snapshot.listeners().iter().filter(|listener| listener.address.port() == Some(port));
    let is_tls = asked.url.scheme == Scheme::Https;
    if listeners().any(|listener| listener.tls.is_some() == is_tls) {
        return None;
    }
    Some(match (listeners().next(), asked.url.scheme) {
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
