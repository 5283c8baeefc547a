//! The question that [`explain`](super::explain) answers: a page's `fetch()`, or a request that the gateway received.
//!
//! The parts of a question are checked when they are set, so every [`Question`] is one that can be simulated. The
//! error, [`InvalidQuestion`], names the part and not the command-line flag that set it.

mod invalid;
mod target;

pub use self::invalid::{InvalidQuestion, QuestionPart};
pub(super) use self::target::Target;

use std::fmt;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::exchange::Head;
use crate::cors::{OriginPattern, Scheme, fetch_names};
use crate::decide::RequestKind;
use crate::explain::fetch::{Credentials, PreflightReason};
use crate::problem::ProblemKind;

/// The parts of a page's request that matter to CORS, and the assumed response of the upstream.
///
/// ```
/// use corsgate::explain::fetch::Credentials;
/// use corsgate::explain::{Question, QuestionPart};
///
/// let question = Question::new("https://app.example", "https://api.example/orders?page=2")?
///     .method("PUT")?
///     .header("Content-Type: application/json")?
///     .credentials(Credentials::Include);
/// assert_eq!(question.to_string(), "PUT https://api.example/orders?page=2 with credentials, from a page of https://app.example");
///
/// let error = Question::new("https://app.example/", "https://api.example/orders").unwrap_err();
/// assert_eq!(error.part, QuestionPart::Origin);
/// assert_eq!(
///     error.to_string(),
///     "origin: `https://app.example/` ends with a slash, but an origin never does; write `https://app.example`"
/// );
/// # Ok::<(), corsgate::explain::InvalidQuestion>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Question {
    /// One entry per `Origin` field; empty if the request has none.
    pub(super) origins: Vec<Box<str>>,
    pub(super) url: Target,
    /// As the page writes it, not normalised.
    pub(super) method: String,
    pub(super) headers: Vec<PageHeader>,
    pub(super) credentials: Credentials,
    /// Response headers that the page reads.
    pub(super) reads: Vec<String>,
    /// The assumed response of the upstream.
    pub(super) upstream: Head,
    pub(super) source: QuestionSource,
}

/// What a question was made from.
#[derive(Debug, Clone)]
pub(super) enum QuestionSource {
    /// A page's `fetch()`.
    Page,
    /// A recorded request that is not a preflight.
    Request,
    /// A recorded preflight, with the `Access-Control-Request-*` fields that it had. They are used instead of those
    /// that a browser would send.
    Preflight(Vec<(&'static str, String)>),
}

/// A header that a page sets. Without a value it is assumed to need a preflight.
#[derive(Debug, Clone)]
pub(super) struct PageHeader {
    pub(super) name: String,
    pub(super) value: Option<String>,
}

/// A request that the gateway received, as the record of refused requests keeps it.
#[derive(Debug, Clone, Copy)]
pub struct RecordedRequest<'a> {
    /// How the gateway classified the request.
    pub kind: RequestKind,
    /// The scheme with which the client reached the gateway.
    pub scheme: Scheme,
    /// Host and port as the client wrote them.
    pub authority: &'a str,
    /// The path, with or without its query.
    pub path: &'a str,
    /// The method of the request itself; `OPTIONS` for a preflight.
    pub method: &'a str,
    /// The `Origin`; several fields are joined by a comma.
    pub origin: Option<&'a str>,
    /// `Access-Control-Request-Method`
    pub requested_method: Option<&'a str>,
    /// `Access-Control-Request-Headers`; several fields are joined by a comma.
    pub requested_headers: Option<&'a str>,
    /// `Include` if the request had cookies or other credentials.
    pub credentials: Credentials,
}

// === impl Question ===

impl Question {
    /// A page of `origin` fetches `url` with GET, without headers of its own and without credentials. The other methods
    /// change this. The upstream is assumed to respond with 200 and without headers.
    ///
    /// # Errors
    ///
    /// `origin` is not the serialised origin of one page, or `url` is not an absolute http or https URL that `fetch()`
    /// accepts.
    pub fn new(origin: &str, url: &str) -> Result<Self, InvalidQuestion> {
        Ok(Question {
            origins: vec![page_origin(origin)?],
            url: Target::parse(url)?,
            method: "GET".into(),
            headers: Vec::new(),
            credentials: Credentials::Omit,
            reads: Vec::new(),
            upstream: Head::new(StatusCode::OK),
            source: QuestionSource::Page,
        })
    }

    /// Adds another `Origin` field. No browser sends two; curl can, and a proxy can add one.
    pub(crate) fn and_origin(mut self, origin: &str) -> Result<Self, InvalidQuestion> {
        self.origins.push(page_origin(origin)?);
        Ok(self)
    }

    /// The method, as the page writes it.
    ///
    /// # Errors
    ///
    /// The method is not a token, or `fetch()` rejects it (Fetch, "forbidden method").
    pub fn method(mut self, method: &str) -> Result<Self, InvalidQuestion> {
        if Method::from_bytes(method.as_bytes()).is_err() || method.len() > LONGEST_NAME {
            let reason = format!("`{method}` is not a method; write for example `PUT`");
            return Err(InvalidQuestion::new(QuestionPart::Method, reason));
        }
        if fetch_names::is_forbidden_method(method) {
            let reason = format!("no page can send `{method}`, fetch() rejects it; write another method");
            return Err(InvalidQuestion::new(QuestionPart::Method, reason));
        }
        self.method = method.into();
        Ok(self)
    }

    /// A header that the page sets, as `Name: value`, or `Name` if the value is not known.
    ///
    /// # Errors
    ///
    /// The line is not a header field, or browsers ignore the header when a page sets it (Fetch, "forbidden
    /// request-header").
    pub fn header(mut self, line: &str) -> Result<Self, InvalidQuestion> {
        let (name, value) = match line.split_once(':') {
            Some((name, value)) => (name.trim(), Some(value.trim())),
            None => (line.trim(), None),
        };
        let valid = is_field_name(name) && value.is_none_or(|value| HeaderValue::from_str(value).is_ok());
        if !valid {
            let reason = format!("`{line}` is not a header; write `Name: value`, or `Name` alone");
            return Err(InvalidQuestion::new(QuestionPart::Header, reason));
        }
        if fetch_names::is_forbidden_request_header(name) {
            return Err(InvalidQuestion::forbidden_header(name));
        }
        self.headers.push(PageHeader { name: name.into(), value: value.map(str::to_owned) });
        Ok(self)
    }

    /// The credentials mode: whether the request has cookies.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// A response header that the page reads.
    ///
    /// # Errors
    ///
    /// `name` is not a field name.
    pub fn reads(mut self, name: &str) -> Result<Self, InvalidQuestion> {
        if !is_field_name(name) {
            let reason = format!("`{name}` is not the name of a header; write for example `X-Total`");
            return Err(InvalidQuestion::new(QuestionPart::Reads, reason));
        }
        self.reads.push(name.into());
        Ok(self)
    }

    /// The status of the upstream's response; default: 200.
    ///
    /// # Errors
    ///
    /// The status is below 200 or above 999.
    pub fn upstream_status(mut self, status: u16) -> Result<Self, InvalidQuestion> {
        let code = StatusCode::from_u16(status).ok().filter(|code| !code.is_informational());
        self.upstream.status = code.ok_or_else(|| {
            let reason = format!("{status} is not the status of a final response; write 200 to 999");
            InvalidQuestion::new(QuestionPart::UpstreamStatus, reason)
        })?;
        Ok(self)
    }

    /// A field of the upstream's response, as `Name: value`.
    ///
    /// # Errors
    ///
    /// The line is not a header field.
    pub fn upstream_header(mut self, line: &str) -> Result<Self, InvalidQuestion> {
        let invalid = || {
            let reason = format!("`{line}` is not a header; write `Name: value`");
            InvalidQuestion::new(QuestionPart::UpstreamHeader, reason)
        };
        let (name, value) = line.split_once(':').ok_or_else(invalid)?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| invalid())?;
        if !is_field_name(name.trim()) {
            return Err(invalid());
        }
        self.upstream.append(name.trim(), value);
        Ok(self)
    }

    /// The question about a request that the gateway received from any client. For a preflight it is about the request
    /// that the preflight announces.
    pub fn recorded(request: &RecordedRequest<'_>) -> Self {
        let list = |text: Option<&str>| -> Vec<String> {
            let parts = text.unwrap_or_default().split(',').map(str::trim);
            parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        let mut question = Question {
            origins: request.origin.into_iter().filter(|origin| !origin.is_empty()).map(Into::into).collect(),
            url: Target {
                scheme: request.scheme,
                authority: request.authority.to_owned(),
                path_and_query: request.path.to_owned(),
            },
            method: request.method.to_owned(),
            headers: Vec::new(),
            credentials: request.credentials,
            reads: Vec::new(),
            upstream: Head::new(StatusCode::OK),
            source: QuestionSource::Request,
        };
        if request.kind == RequestKind::Preflight || request.requested_method.is_some() {
            question.method = request.requested_method.map_or("GET".into(), Into::into);
            let header = |name| PageHeader { name, value: None };
            question.headers = list(request.requested_headers).into_iter().map(header).collect();
            let fields = [
                ("Access-Control-Request-Method", request.requested_method),
                ("Access-Control-Request-Headers", request.requested_headers),
            ];
            let present = |(name, value): (_, Option<&str>)| Some((name, value?.to_owned()));
            question.source = QuestionSource::Preflight(fields.into_iter().filter_map(present).collect());
        }
        question
    }

    /// A header name in the page's spelling, for a name that a preflight has in lower case.
    pub(super) fn page_spelling(&self, name: &str) -> String {
        let as_page = self.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        as_page.map_or(name, |header| &header.name).to_owned()
    }

    /// Replaces the placeholder value of headers whose value is not known.
    pub(super) fn without_placeholders(&self, reasons: Vec<PreflightReason>) -> Vec<PreflightReason> {
        let is_unknown = |name: &str| self.headers.iter().any(|header| header.name == name && header.value.is_none());
        reasons
            .into_iter()
            .map(|reason| match reason {
                PreflightReason::Value { name, .. } if is_unknown(&name) => PreflightReason::UnknownValue(name),
                other => other,
            })
            .collect()
    }

    /// The page's origin. Several are joined to a list, which is equal to no origin.
    pub(super) fn origin(&self) -> String {
        self.origins.join(", ")
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.url)?;
        if self.credentials == Credentials::Include {
            f.write_str(" with credentials")?;
        }
        match &*self.origins {
            [] => f.write_str(", without an Origin"),
            [origin] => write!(f, ", from a page of {origin}"),
            several => write!(f, ", with the Origins {}", several.join(" and ")),
        }
    }
}

fn page_origin(text: &str) -> Result<Box<str>, InvalidQuestion> {
    let invalid = |reason| InvalidQuestion::new(QuestionPart::Origin, reason);
    // Patterns are often copied from a configuration, and `OriginPattern` accepts them.
    if text.contains('*') {
        let reason = format!("`{text}` is a pattern; write the origin of one page, such as `https://app.example`");
        return Err(invalid(reason));
    }
    OriginPattern::parse(text).map_err(|kind| {
        let remedy = match &kind {
            // Their remedies are for a list of the configuration.
            ProblemKind::OriginSeveral { .. }
            | ProblemKind::OriginBadCharacter { .. }
            | ProblemKind::OriginEmptyHost { .. } => {
                "write the origin of one page, such as `https://app.example`".into()
            }
            _ => kind.remedy(),
        };
        invalid(format!("{}; {remedy}", kind.fault()))
    })?;
    Ok(text.into())
}

/// Bytes; the limit of the configuration for names of methods and headers.
const LONGEST_NAME: usize = 256;

fn is_field_name(name: &str) -> bool {
    name.len() <= LONGEST_NAME && HeaderName::from_bytes(name.as_bytes()).is_ok()
}
