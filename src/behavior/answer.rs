//! `respond` and `redirect`: the gateway answers the requests of a route without an upstream.

use http::{HeaderName, HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::headers::{Side, field_name, field_value};
use super::template::{self, TemplatePart};
use crate::notation::{Named, forms, given};
use crate::per_thread::{FinishedName, FinishedValue};
use crate::problem::{At, ProblemKind, Problems};

/// A fixed response. It gets the CORS headers of the route, as any response does.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Fixed response")]
pub(crate) struct RespondSettings {
    /// The status, from 200 to 599.
    #[schemars(range(min = 200, max = 599))]
    pub(crate) status: u16,
    /// The body. Without this key the response has none.
    #[schemars(with = "forms::PlainText")]
    pub(crate) body: String,
    /// Fields with their values. Without `Content-Type` a body has `text/plain; charset=utf-8`.
    #[schemars(with = "Named<forms::FieldValue>")]
    pub(crate) headers: Named<String>,
}

/// Redirects the client to another URL. The request is not forwarded.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Redirect", extend("required" = ["to"]))]
pub(crate) struct RedirectSettings {
    /// An http URL, or a path. `{host}` stands for the host of the request, `{uri}` for its path and query.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::RedirectTarget")]
    pub(crate) to: Option<String>,
    /// 301, 302, 303, 307 or 308. With 307 and 308, clients keep the method and the body; 301 and 308 are permanent,
    /// and browsers remember them.
    #[schemars(extend("enum" = [301, 302, 303, 307, 308]))]
    pub(crate) status: u16,
}

/// The compiled form of `respond` and `redirect`.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// Status of the response.
    pub status: StatusCode,
    pub(crate) body: Box<[u8]>,
    /// Header fields without `Location`.
    fields: Vec<(FinishedName, FinishedValue)>,
    location: Option<Vec<TemplatePart<LocationVariable>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LocationVariable {
    Host,
    /// Path and query.
    Uri,
}

// === compile ===

impl Answer {
    pub(crate) fn respond(settings: &RespondSettings, at: &At<'_>, problems: &mut Problems) -> Option<Self> {
        let RespondSettings { status, body, headers } = settings;
        let code = StatusCode::from_u16(*status).ok().filter(|status| status.as_u16() >= 200 && status.as_u16() < 600);
        if code.is_none() {
            let range = "a status from 200 to 599".to_owned();
            problems.add(
                &at.key("status"),
                ProblemKind::OutOfRange { value: status.to_string(), range, write: "`200`".into() },
            );
        }
        // RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5.
        if [204, 205, 304].contains(status) && !body.is_empty() {
            problems.add(&at.key("body"), ProblemKind::StatusWithoutBody { status: *status });
        }
        let at_headers = at.key("headers");
        let mut fields = Vec::with_capacity(headers.0.len() + 1);
        for (name, value) in &headers.0 {
            let at = at_headers.key(name);
            let name = field_name(name, Side::Response, &at, problems);
            let value = field_value(value, &at, problems);
            if let (Some(name), Some(value)) = (name, value) {
                fields.push((FinishedName::new(name), FinishedValue::new(value)));
            }
        }
        if !body.is_empty() && !fields.iter().any(|(name, _)| **name == header::CONTENT_TYPE) {
            let text = FinishedValue::new(HeaderValue::from_static("text/plain; charset=utf-8"));
            fields.push((FinishedName::new(header::CONTENT_TYPE), text));
        }
        Some(Answer { status: code?, body: body.as_bytes().into(), fields, location: None })
    }

    pub(crate) fn redirect(settings: &RedirectSettings, at: &At<'_>, problems: &mut Problems) -> Option<Self> {
        let RedirectSettings { to, status } = settings;
        let code = StatusCode::from_u16(*status).ok().filter(|_| [301, 302, 303, 307, 308].contains(status));
        if code.is_none() {
            problems.add(&at.key("status"), ProblemKind::BadRedirectStatus { value: *status });
        }
        let at = at.key("to");
        let Some(to) = to else {
            problems.add(&at, ProblemKind::Missing { example: "to: https://www.example{uri}" });
            return None;
        };
        let location = location(to, &at, problems)?;
        Some(Answer { status: code?, body: Box::default(), fields: Vec::new(), location: Some(location) })
    }
}

fn location(to: &str, at: &At<'_>, problems: &mut Problems) -> Option<Vec<TemplatePart<LocationVariable>>> {
    let rest = to.strip_prefix("https://").or_else(|| to.strip_prefix("http://"));
    let why = match rest {
        _ if to.bytes().any(|b| !b.is_ascii_graphic()) => Some("it has a character that a URL cannot have"),
        Some(rest) if rest.is_empty() || rest.starts_with(['/', '?', '#']) => Some("it has no host"),
        Some(rest) if rest.starts_with("{uri}") => Some("it has no host"),
        None if !to.starts_with('/') => Some("it is neither an http URL nor a path"),
        // A browser reads `//host/path` as a URL of another host, and the client chooses the value of `{uri}`.
        None if to.starts_with("//") || to.starts_with("/{") => {
            Some("a path must not begin with `//` or with a variable")
        }
        _ => None,
    };
    if let Some(why) = why {
        problems.add(at, ProblemKind::BadRedirect { text: to.to_owned(), why });
        return None;
    }
    template::parse(to, &[("host", LocationVariable::Host), ("uri", LocationVariable::Uri)], at, problems)
}

impl Default for RespondSettings {
    fn default() -> Self {
        RespondSettings { status: 200, body: String::new(), headers: Named::default() }
    }
}

impl Default for RedirectSettings {
    fn default() -> Self {
        RedirectSettings { to: None, status: 307 }
    }
}

// === the answer to a request ===

impl Answer {
    /// Returns the value of `Location` for a request with this host and target. Returns None without a redirect, and if
    /// the URL needs a host but the request has none.
    pub(crate) fn location(&self, host: &str, target: &[u8]) -> Option<HeaderValue> {
        let mut location = Vec::new();
        for part in self.location.as_ref()? {
            match part {
                TemplatePart::Text(text) => location.extend_from_slice(text.as_bytes()),
                TemplatePart::Variable(LocationVariable::Host) if host.is_empty() => return None,
                TemplatePart::Variable(LocationVariable::Host) => location.extend_from_slice(host.as_bytes()),
                TemplatePart::Variable(LocationVariable::Uri) => {
                    for part in path_and_query(target) {
                        location.extend_from_slice(part);
                    }
                }
            }
        }
        HeaderValue::from_maybe_shared(bytes::Bytes::from(location)).ok()
    }

    /// Returns the header fields, without `Location`.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        self.fields.iter().map(|(name, value)| (name.for_message(), value.for_message()))
    }

    pub(crate) fn is_redirect(&self) -> bool {
        self.location.is_some()
    }
}

/// Returns path and query of a request target for a URL, in two parts. `OPTIONS *` has no path, and a target in
/// absolute form may have only a query: `http://host?query`.
pub(crate) fn path_and_query(target: &[u8]) -> [&[u8]; 2] {
    match target.first() {
        Some(b'/') => [b"", target],
        Some(b'?') => [b"/", target],
        _ => [b"/", b""],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_has_the_host_and_the_target_of_the_request() {
        #[rustfmt::skip]
        let cases = [
            ("https://www.example{uri}",      "a.example", "/x?y", Some("https://www.example/x?y")),
            ("https://www.{host}/new{uri}",   "a.example", "/x",   Some("https://www.a.example/new/x")),
            ("/new{uri}",                     "a.example", "//x",  Some("/new//x")),
            ("/fixed",                        "",          "/x",   Some("/fixed")),
            ("https://{host}/",               "",          "/x",   None),
            ("https://www.example{uri}",      "a.example", "*",    Some("https://www.example/")),
            ("https://www.example{uri}",      "a.example", "?y",   Some("https://www.example/?y")),
        ];
        for (to, host, target, location) in cases {
            let mut problems = Problems::default();
            let settings = RedirectSettings { to: Some(to.into()), status: 308 };
            let answer = Answer::redirect(&settings, &At::root(), &mut problems).unwrap();
            assert!(problems.is_empty(), "{problems}");
            let found = answer.location(host, target.as_bytes());
            assert_eq!(found.as_ref().map(|value| value.to_str().unwrap()), location, "{to}");
        }
    }
}
