//! Remedies for refusals. The server is unknown, so a remedy names header fields and no settings of a product.

use http::{HeaderMap, StatusCode, header};

use super::WireReply;
use super::report::{ProbeVerdict, can_read, code};
use crate::domain::{Scheme, is_loopback_host, split_port};
use crate::explain::fetch::{Credentials, NetworkError, PreflightAnswer, Stage};
use crate::explain::{PageRun, Preflight, Question};

/// The reason for a refusal, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Advice {
    pub(crate) code: &'static str,
    /// The reason, as one sentence.
    pub(crate) cause: String,
    /// The remedy, as one or more sentences.
    pub(crate) remedy: String,
}

/// Returns the advice on the error that ended a run.
pub(super) fn advice_on_error(error: &NetworkError, run: &PageRun<WireReply>) -> Advice {
    let last = run.last();
    let (status, headers, stage) = (last.exchange.head.status, &last.exchange.head.headers, last.stage);
    let origin = &last.origin;
    let includes = run.credentials == Credentials::Include;
    let response = match stage {
        Stage::Preflight => "the response to OPTIONS",
        Stage::Request => "this response",
    };
    let credentials = if includes { " and `Access-Control-Allow-Credentials: true`" } else { "" };
    let remedy = match error {
        NetworkError::NoAllowOrigin => {
            let add = format!("Add `Access-Control-Allow-Origin: {origin}`{credentials} to {response}.");
            match stage {
                Stage::Preflight => {
                    preflight_status_remedy(status).map_or(add.clone(), |status| format!("{status} {add}"))
                }
                Stage::Request if status.is_client_error() || status.is_server_error() => format!(
                    "The response is an error ({}). Find the reason of the error first. Many servers and proxies add \
                     CORS headers to successful responses only: add them to errors too, so that the page can read the \
                     error. {add}",
                    status.as_u16()
                ),
                Stage::Request if status.is_redirection() => format!(
                    "The response is a redirect ({}), and redirects need CORS headers too. Let the page use the final \
                     URL, or: {add}",
                    status.as_u16()
                ),
                Stage::Request => add,
            }
        }
        NetworkError::AllowOriginMismatch(value) => mismatch_remedy(value, origin, response, headers),
        NetworkError::WildcardWithCredentials => format!(
            "Send `Access-Control-Allow-Origin: {origin}` instead of `*`, with `Vary: Origin`, and only for origins that \
             you trust. Or let the page make the request without credentials."
        ),
        NetworkError::NoAllowCredentials => match text(headers, "access-control-allow-credentials") {
            Some(value) => format!(
                "Send `Access-Control-Allow-Credentials: true` once, with `true` in lower case; the value is `{value}`."
            ),
            None => format!(
                "Add `Access-Control-Allow-Credentials: true` to {response}, or let the page make the request without credentials."
            ),
        },
        NetworkError::PreflightStatus(_) => preflight_status_remedy(status)
            .unwrap_or_else(|| "Answer OPTIONS for this URL with a status of 200 to 299.".to_owned()),
        NetworkError::PreflightRedirect(_) => {
            let to = text(headers, "location").map(|to| format!(" (`{to}`)")).unwrap_or_default();
            format!(
                "Let the page use the URL to which the server redirects{to}. Usual reasons: http instead of https, a \
                 slash at the end of the path, a login. Or answer OPTIONS before the redirect."
            )
        }
        NetworkError::MalformedList(name) => {
            format!("Write `{name}` as a list of names, separated by commas.")
        }
        NetworkError::Method(method) => {
            let listed = text(headers, "access-control-allow-methods").unwrap_or_default();
            let hint = if listed.split(',').any(|entry| entry.trim() == "*") {
                " With credentials, browsers treat `*` as the name of a method."
            } else if listed.split(',').any(|entry| entry.trim().eq_ignore_ascii_case(method)) {
                " The names of methods are case-sensitive: the page and the server must write the same."
            } else {
                ""
            };
            format!("Add `{method}` to `Access-Control-Allow-Methods` of the response to OPTIONS.{hint}")
        }
        NetworkError::Header(name) => {
            let listed = text(headers, "access-control-allow-headers").unwrap_or_default();
            let hint = match listed.split(',').any(|entry| entry.trim() == "*") {
                true if includes => " With credentials, browsers treat `*` as the name of a header.",
                true => " `*` does not cover Authorization.",
                false => "",
            };
            format!("Add `{name}` to `Access-Control-Allow-Headers` of the response to OPTIONS.{hint}")
        }
        NetworkError::ResourcePolicy(_) => {
            "Send `Cross-Origin-Resource-Policy: cross-origin`, or remove the field, if other sites may load the response."
                .to_owned()
        }
        NetworkError::TooManyRedirects => "Let the page use the final URL, or end the redirect loop.".to_owned(),
        NetworkError::RedirectToUserPart => "Redirect to a URL without a user name and a password.".to_owned(),
        NetworkError::RedirectToNoUrl(_) => "Redirect to an http or https URL.".to_owned(),
        NetworkError::NotSwitched(_) => "Answer with the status 101.".to_owned(),
    };
    Advice { code: code(error), cause: sentence(&error.to_string()), remedy }
}

/// Returns the advice on response headers that the page cannot read.
pub(super) fn advice_on_unreadable(names: &[String], credentials: Credentials) -> Advice {
    let list = names.join(", ");
    let hint = match credentials {
        Credentials::Include => " With credentials, browsers treat `*` in it as the name of a header.",
        Credentials::Omit => "",
    };
    Advice {
        code: "header_not_exposed",
        cause: format!("Access-Control-Expose-Headers does not list {list}."),
        remedy: format!("Add `Access-Control-Expose-Headers: {list}` to this response.{hint}"),
    }
}

/// Returns the remedy for a preflight whose status is not 200 to 299. Returns None for statuses without a special
/// remedy.
fn preflight_status_remedy(status: StatusCode) -> Option<String> {
    let code = status.as_u16();
    match code {
        401 | 403 | 407 => Some(format!(
            "The server refuses OPTIONS with {code}. A preflight never has credentials: answer it before the \
             authentication."
        )),
        404 | 405 | 501 => Some(format!(
            "The server does not handle OPTIONS for this URL ({code}). Answer it with 204, before the routes of the \
             application."
        )),
        300..=399 => Some(format!(
            "The server redirects OPTIONS ({code}), which browsers do not follow. Let the page use the final URL."
        )),
        400..=599 => Some(format!("The server answers OPTIONS with an error ({code}). It must be 200 to 299.")),
        _ => None,
    }
}

fn mismatch_remedy(value: &str, origin: &str, response: &str, headers: &HeaderMap) -> String {
    let fields = headers.get_all(header::ACCESS_CONTROL_ALLOW_ORIGIN).iter().count();
    if fields > 1 {
        return format!(
            "{response} has `Access-Control-Allow-Origin` {fields} times: two components add it, such as the application \
             and a proxy. Let only one of them add it.",
            response = sentence(response).trim_end_matches('.')
        );
    }
    if value.contains([',', ' ']) {
        return "The header can have one origin only, not a list. Compare the request's Origin with the list, and send \
                that origin alone, with `Vary: Origin`."
            .to_owned();
    }
    if value.trim_end_matches('/').eq_ignore_ascii_case(origin) {
        return format!("Write the origin exactly as the browser does: `{origin}`, without a slash and in lower case.");
    }
    if value.contains('*') {
        return format!(
            "Browsers do not accept patterns in this header. Let the server compare the Origin with the pattern, and send \
             `Access-Control-Allow-Origin: {origin}`."
        );
    }
    let without_scheme = |origin: &str| origin.split_once("://").map(|(_, rest)| rest.to_owned());
    if without_scheme(value).is_some() && without_scheme(value) == without_scheme(origin) {
        return format!("The schemes differ. To allow both, let the server allow `{origin}` too, with `Vary: Origin`.");
    }
    format!(
        "Let the server allow `{origin}`. To allow several origins, send the request's Origin, with `Vary: Origin`. If the \
         server does allow it, a cache may have stored the response for another origin: `Vary: Origin` prevents that."
    )
}

/// Returns further facts about the exchange, as whole sentences.
pub(super) fn notes(question: &Question, run: &PageRun<WireReply>, verdict: &ProbeVerdict) -> Vec<String> {
    let mut notes = Vec::new();
    let origin = question.origin();
    let url = question.url();
    let host = split_port(&url.authority).0;
    if url.scheme == Scheme::Http && origin.starts_with("https://") && !is_loopback_host(host) {
        notes.push(
            "Browsers block a request to `http:` from a page on https as mixed content, before they check CORS."
                .to_owned(),
        );
    }
    match verdict {
        ProbeVerdict::NotSent { method } => {
            let preflight = match &run.preflight {
                Preflight::Needed(_) => "The preflight passes, so the browser sends the request.",
                _ => "The browser sends the request without a preflight.",
            };
            notes.push(format!(
                "{preflight} The probe did not send it, so the response to {method} is not known. `--send` sends it."
            ));
        }
        ProbeVerdict::Refused if run.steps.last().is_some_and(|step| step.stage == Stage::Request) => {
            notes.push("The server got this request: the browser blocks the response, not the request.".to_owned());
        }
        _ => {}
    }
    if let Some(seconds) = run.preflight_max_age.filter(|seconds| *seconds > PreflightAnswer::CHROMIUM_LIMIT) {
        let limit = PreflightAnswer::CHROMIUM_LIMIT;
        notes.push(format!("Chromium caches a preflight for at most {limit} s, not for {seconds} s."));
    }
    if let Some(last) = run.steps.last().filter(|step| step.stage == Stage::Request) {
        let headers = &last.exchange.head.headers;
        let reflects = text(headers, "access-control-allow-origin").is_some_and(|value| value == last.origin);
        if reflects && can_read(&last.origin, headers, Credentials::Omit) && !varies_by_origin(headers) {
            notes.push(
                "The response names the origin, but has no `Vary: Origin`. A cache can then send it to pages of other origins, \
                 and send their responses to this page."
                    .to_owned(),
            );
        }
    }
    notes
}

/// Returns true if `Vary` has `Origin` or `*`.
pub(super) fn varies_by_origin(headers: &HeaderMap) -> bool {
    let names = text(headers, "vary").unwrap_or_default();
    names.split(',').map(str::trim).any(|name| name == "*" || name.eq_ignore_ascii_case("origin"))
}

/// Returns all fields of a name as one value, joined with commas.
pub(super) fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let values: Vec<String> = values.collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// Turns a phrase into a sentence: with a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_ascii_uppercase().to_string() + characters.as_str() + ".",
        None => String::new(),
    }
}
