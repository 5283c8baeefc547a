//! Judges the responses of an audit. Allowed and refused origins are found with the checks of the simulated browser.

use http::HeaderMap;

use super::finding::{Finding, FindingKind, FindingSeverity};
use super::{FOREIGN_HEADER, Purpose, Sample};
use crate::explain::fetch::{Credentials, Fetch, NetworkError};
use crate::probe::remedy::{text, varies_by_origin};
use crate::probe::report::can_read;

/// The access of a page of the sample's origin to the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Access {
    None,
    WithoutCredentials,
    WithCredentials,
}

/// Returns true if the server allows a foreign origin.
pub(super) fn is_open(samples: &[Sample]) -> bool {
    samples.iter().any(|sample| sample.purpose == Purpose::Foreign && access(sample) > Access::None)
}

/// Returns the findings, and notes on the audit.
pub(super) fn judge(samples: &[Sample], trusted: Option<&str>) -> (Vec<Finding>, Vec<String>) {
    let mut findings = Vec::new();
    for (index, sample) in samples.iter().enumerate() {
        let mut add = |kind, severity, fault: String| findings.push(Finding { kind, severity, fault, sample: index });
        match sample.purpose {
            Purpose::Foreign => judge_foreign(sample, &mut add),
            Purpose::Null => judge_null(sample, is_open(samples), &mut add),
            Purpose::LookAlike(kind) => {
                let found = access(sample);
                if found > Access::None {
                    let fault = format!("The origin {} is allowed{}.", origin(sample), with(found));
                    add(kind.kind(), kind.severity(found == Access::WithCredentials), fault);
                }
            }
            Purpose::Trusted => judge_trusted(sample, &mut add),
            Purpose::TrustedPreflight => judge_preflight(sample, &mut add),
            Purpose::ForeignPreflight => {
                if access(sample) == Access::None && has(sample, "access-control-allow-methods") {
                    let fault = "The preflight of an origin that is not allowed gets `Access-Control-Allow-Methods`.";
                    add(FindingKind::HeadersOnRefusal, FindingSeverity::Info, fault.to_owned());
                }
                if access(sample) > Access::None && lists(sample, "access-control-allow-headers", FOREIGN_HEADER) {
                    let fault = format!("A preflight for the unknown header {FOREIGN_HEADER} is allowed.");
                    add(FindingKind::ReflectedHeaders, FindingSeverity::Info, fault);
                }
            }
            Purpose::OriginOptions | Purpose::PlainOptions => {
                let is_ok = sample.reply.head.status.is_success();
                if is_ok && has(sample, "access-control-allow-methods") {
                    let without = match sample.purpose {
                        Purpose::PlainOptions => "Origin",
                        _ => "Access-Control-Request-Method",
                    };
                    let fault =
                        format!("OPTIONS without `{without}` is not a preflight, but the server answers it as one.");
                    add(FindingKind::OptionsSwallowed, FindingSeverity::Info, fault);
                }
            }
            Purpose::NoOrigin => {}
        }
    }
    findings.extend(missing_vary(samples));
    findings.extend(malformed(samples));
    // Each kind has one finding: the most severe one. If several are equal, the first is kept.
    let mut kept: Vec<Finding> = Vec::new();
    for finding in findings {
        match kept.iter_mut().find(|other| other.kind == finding.kind) {
            Some(other) if finding.severity > other.severity => *other = finding,
            Some(_) => {}
            None => kept.push(finding),
        }
    }
    (kept, notes(samples, trusted))
}

fn judge_foreign(sample: &Sample, add: &mut impl FnMut(FindingKind, FindingSeverity, String)) {
    let allowed = text(headers(sample), "access-control-allow-origin");
    let credentials = text(headers(sample), "access-control-allow-credentials");
    match (access(sample), allowed.as_deref()) {
        (Access::WithCredentials, _) => add(
            FindingKind::ReflectedOrigin,
            FindingSeverity::High,
            "Every page can read responses with the user's credentials: the server allows any Origin by name.".into(),
        ),
        (Access::WithoutCredentials, Some("*")) if credentials.as_deref() == Some("true") => add(
            FindingKind::WildcardWithCredentials,
            FindingSeverity::Low,
            "`*` and `Access-Control-Allow-Credentials: true` together: pages get responses without credentials only."
                .into(),
        ),
        (Access::WithoutCredentials, Some("*")) => {
            add(
                FindingKind::AnyOrigin,
                FindingSeverity::Info,
                "Every page can read responses without credentials.".into(),
            );
        }
        (Access::WithoutCredentials, _) => add(
            FindingKind::ReflectedOrigin,
            FindingSeverity::Low,
            "Every page can read responses without credentials: the server allows any Origin by name.".into(),
        ),
        (Access::None, None) if credentials.is_some() || has(sample, "access-control-expose-headers") => add(
            FindingKind::HeadersOnRefusal,
            FindingSeverity::Low,
            "An origin that is not allowed gets CORS headers without `Access-Control-Allow-Origin`.".into(),
        ),
        (Access::None, Some(other)) => add(
            FindingKind::HeadersOnRefusal,
            FindingSeverity::Info,
            format!("The response to an origin that is not allowed contains an allowed origin: {other}."),
        ),
        (Access::None, None) => {}
    }
}

fn judge_null(sample: &Sample, is_open: bool, add: &mut impl FnMut(FindingKind, FindingSeverity, String)) {
    let is_named = text(headers(sample), "access-control-allow-origin").as_deref() == Some("null");
    match access(sample) {
        Access::WithCredentials => add(
            FindingKind::NullOrigin,
            FindingSeverity::High,
            "The origin `null` is allowed with credentials. Every site can get it.".into(),
        ),
        Access::WithoutCredentials if is_named && !is_open => add(
            FindingKind::NullOrigin,
            FindingSeverity::Medium,
            "The origin `null` is allowed without credentials. Every site can get it.".into(),
        ),
        Access::WithoutCredentials | Access::None => {}
    }
}

fn judge_trusted(sample: &Sample, add: &mut impl FnMut(FindingKind, FindingSeverity, String)) {
    if access(sample) == Access::None {
        let fault = format!(
            "The origin {} is not allowed, so the results for its look-alikes are not reliable.",
            origin(sample)
        );
        add(FindingKind::TrustedRefused, FindingSeverity::Low, fault);
    }
}

fn judge_preflight(sample: &Sample, add: &mut impl FnMut(FindingKind, FindingSeverity, String)) {
    let origin = origin(sample);
    let headers = headers(sample);
    let credentials = match access(sample) {
        Access::WithCredentials => Credentials::Include,
        _ => Credentials::Omit,
    };
    let fetch = Fetch { origin, method: "GET", headers: &[], credentials };
    match fetch.check_preflight(sample.reply.head.status, headers) {
        Ok(_) | Err(NetworkError::Method(_) | NetworkError::Header(_)) => {}
        Err(NetworkError::MalformedList(name)) => {
            add(FindingKind::MalformedList, FindingSeverity::Low, format!("`{name}` is not a list of names."));
        }
        Err(error) => add(
            FindingKind::PreflightRefused,
            FindingSeverity::Low,
            format!("The preflight of {origin} fails: {error}."),
        ),
    }
    let methods = entries(headers, "access-control-allow-methods");
    let in_lower_case = |name: &&String| name.chars().any(|c| c.is_ascii_lowercase()) && is_method_of_http(name);
    if let Some(method) = methods.iter().find(in_lower_case) {
        add(FindingKind::MethodCase, FindingSeverity::Low, format!("`Access-Control-Allow-Methods` has `{method}`."));
    }
    let names = entries(headers, "access-control-allow-headers");
    if credentials == Credentials::Include && methods.iter().chain(&names).any(|entry| entry == "*") {
        add(FindingKind::LiteralWildcard, FindingSeverity::Low, "`*` in a list, together with credentials.".into());
    }
    match text(headers, "access-control-max-age") {
        None => {}
        Some(age) => match age.parse::<u64>() {
            Err(_) if age == "-1" => {}
            Err(_) => {
                add(
                    FindingKind::MalformedMaxAge,
                    FindingSeverity::Low,
                    format!("`Access-Control-Max-Age` is `{age}`."),
                );
            }
            Ok(86401..) => {
                add(
                    FindingKind::LongMaxAge,
                    FindingSeverity::Info,
                    format!("`Access-Control-Max-Age` is {age} seconds."),
                );
            }
            Ok(_) => {}
        },
    }
}

/// Returns a finding if `Access-Control-Allow-Origin` differs between responses to GET, and one of them has no
/// `Vary: Origin`.
fn missing_vary(samples: &[Sample]) -> Option<Finding> {
    let gets = || samples.iter().enumerate().filter(|(_, sample)| sample.method == http::Method::GET);
    let allowed = |sample: &Sample| text(headers(sample), "access-control-allow-origin");
    let (_, first) = gets().next()?;
    let differs = gets().any(|(_, sample)| allowed(sample) != allowed(first));
    let lacking = || gets().filter(|(_, sample)| !varies_by_origin(headers(sample)));
    let of_allowed = || lacking().find(|(_, sample)| allowed(sample).is_some());
    let (sample, severity) = match of_allowed() {
        Some((index, _)) => (index, FindingSeverity::Medium),
        None => (lacking().next()?.0, FindingSeverity::Low),
    };
    let is_stored = text(headers(&samples[sample]), "cache-control").is_none_or(|value| !value.contains("no-store"));
    differs.then(|| Finding {
        kind: FindingKind::MissingVary,
        severity: if is_stored { severity } else { FindingSeverity::Info },
        fault: "The response depends on the Origin, but does not have `Vary: Origin`.".to_owned(),
        sample,
    })
}

/// Returns a finding for each header whose value no browser accepts.
fn malformed(samples: &[Sample]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, sample) in samples.iter().enumerate() {
        if let Some(value) = text(headers(sample), "access-control-allow-origin")
            && !is_allow_origin(&value)
        {
            let fault = format!("`Access-Control-Allow-Origin` is `{value}`, which no browser accepts.");
            findings.push(Finding {
                kind: FindingKind::MalformedAllowOrigin,
                severity: FindingSeverity::Low,
                fault,
                sample: index,
            });
        }
        if let Some(value) = text(headers(sample), "access-control-allow-credentials")
            && value != "true"
            && value != "false"
        {
            let fault = format!("`Access-Control-Allow-Credentials` is `{value}`, which no browser accepts.");
            findings.push(Finding {
                kind: FindingKind::MalformedAllowCredentials,
                severity: FindingSeverity::Low,
                fault,
                sample: index,
            });
        }
    }
    findings
}

fn notes(samples: &[Sample], trusted: Option<&str>) -> Vec<String> {
    let mut notes = Vec::new();
    if trusted.is_none() {
        notes.push(
            "Add `--origin ORIGIN` with an origin that the server trusts, to test the look-alikes of that origin too."
                .to_owned(),
        );
    }
    let statuses = || samples.iter().map(|sample| sample.reply.head.status.as_u16());
    if statuses().any(|status| status == 429) {
        notes.push(
            "The server limits the rate of requests (429), so the result is not complete. Pause with `--pause \
             MILLISECONDS`."
                .to_owned(),
        );
    }
    let redirect = samples.iter().find(|sample| sample.reply.head.status.is_redirection());
    if let Some(location) = redirect.and_then(|sample| text(headers(sample), "location")) {
        notes.push(format!("The server redirects to {location}. Audit that URL too."));
    }
    notes
}

fn headers(sample: &Sample) -> &HeaderMap {
    &sample.reply.head.headers
}

fn origin(sample: &Sample) -> &str {
    sample.origin.as_deref().unwrap_or_default()
}

fn access(sample: &Sample) -> Access {
    let can = |credentials| can_read(origin(sample), headers(sample), credentials);
    match (can(Credentials::Include), can(Credentials::Omit)) {
        (true, _) => Access::WithCredentials,
        (false, true) => Access::WithoutCredentials,
        (false, false) => Access::None,
    }
}

fn with(access: Access) -> &'static str {
    match access {
        Access::WithCredentials => " with credentials",
        Access::WithoutCredentials | Access::None => "",
    }
}

fn has(sample: &Sample, name: &str) -> bool {
    headers(sample).contains_key(name)
}

fn lists(sample: &Sample, name: &str, entry: &str) -> bool {
    entries(headers(sample), name).iter().any(|listed| listed.eq_ignore_ascii_case(entry))
}

fn entries(headers: &HeaderMap, name: &str) -> Vec<String> {
    let value = text(headers, name).unwrap_or_default();
    value.split(',').map(|entry| entry.trim().to_owned()).filter(|entry| !entry.is_empty()).collect()
}

fn is_method_of_http(name: &str) -> bool {
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"].iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Returns true if the value can match the Origin of a request. `value` has all `Access-Control-Allow-Origin` fields,
/// joined with commas.
fn is_allow_origin(value: &str) -> bool {
    match value {
        "*" | "null" => true,
        _ => {
            let rest = value.split_once("://").map(|(_, rest)| rest);
            rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', ',', ' ', '*']))
                && !value.contains(|c: char| c.is_ascii_uppercase())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_allow_origin;

    #[test]
    fn values_that_no_browser_accepts() {
        for (value, accepted) in [
            ("*", true),
            ("null", true),
            ("https://app.example", true),
            ("http://[::1]:8080", true),
            ("https://app.example/", false),
            ("https://App.example", false),
            ("https://app.example, https://other.example", false),
            ("https://*.example", false),
            ("app.example", false),
            ("", false),
        ] {
            assert_eq!(is_allow_origin(value), accepted, "{value}");
        }
    }
}
