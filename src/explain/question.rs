//! What is asked: a page's `fetch()`, or a request that really came.

use std::fmt;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use url::{Host, Url};

use super::exchange::Head;
use crate::cors::{OriginPattern, Scheme};
use crate::decide::RequestKind;
use crate::explain::fetch::{Credentials, Unsafe};
use crate::problem::ProblemKind;

/// A page's request, as far as it matters to CORS. Valid by construction.
///
/// ```
/// use corsgate::explain::fetch::Credentials;
/// use corsgate::explain::Question;
///
/// let question = Question::new("https://app.example", "https://api.example/orders?page=2")?
///     .method("PUT")?
///     .header("Content-Type: application/json")?
///     .credentials(Credentials::Include);
/// assert_eq!(question.to_string(), "PUT https://api.example/orders?page=2 with credentials, from a page of https://app.example");
///
/// let error = Question::new("https://app.example/", "https://api.example/orders").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "--origin: `https://app.example/` ends with a slash, but an origin never does; write `https://app.example`"
/// );
/// # Ok::<(), corsgate::explain::InvalidQuestion>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Question {
    pub(super) origins: Vec<Box<str>>,
    pub(super) url: Target,
    /// As the page writes it.
    pub(super) method: String,
    pub(super) headers: Vec<PageHeader>,
    pub(super) credentials: Credentials,
    pub(super) reads: Vec<String>,
    pub(super) upstream: Head,
    pub(super) given: Given,
}

/// What a question was made from.
#[derive(Debug, Clone)]
pub(super) enum Given {
    /// What a page would do.
    Page,
    /// A request that really came.
    Request,
    /// A preflight that really came: its fields, instead of those that a browser would send.
    Preflight(Vec<(&'static str, String)>),
}

/// A header that a page sets. None: its value is not known, and taken for one that has to be asked for.
#[derive(Debug, Clone)]
pub(super) struct PageHeader {
    pub(super) name: String,
    pub(super) value: Option<String>,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) scheme: Scheme,
    /// Host, and port unless it is the scheme's default, as a browser writes it into `Host`.
    pub(super) authority: String,
    /// Path and query.
    pub(super) path_and_query: String,
}

/// What is kept of a request that really came: the facts that [`Question::recorded`] needs.
#[derive(Debug, Clone, Copy)]
pub struct Recorded<'a> {
    /// What it was taken for.
    pub kind: RequestKind,
    /// How the client reached the gateway.
    pub scheme: Scheme,
    /// Host and port as the client wrote them.
    pub authority: &'a str,
    /// The path, with or without its query.
    pub path: &'a str,
    /// Its own method.
    pub method: &'a str,
    /// Its `Origin`; several fields are joined by a comma.
    pub origin: Option<&'a str>,
    /// `Access-Control-Request-Method`
    pub requested_method: Option<&'a str>,
    /// `Access-Control-Request-Headers`; several fields are joined by a comma.
    pub requested_headers: Option<&'a str>,
    /// Whether it came with a Cookie or the like.
    pub credentials: Credentials,
}

/// Why a question makes no sense: which argument, what is wrong with it, and what to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvalidQuestion {
    /// Not what a browser sends as an Origin.
    Origin(ProblemKind),
    /// A pattern, but a page has one origin.
    OriginPattern(String),
    /// Not an absolute URL.
    Url(String, String),
    /// Neither http nor https.
    UrlScheme(String),
    /// `fetch()` refuses a URL with a user part (Fetch, "new Request", step 5.5).
    UrlUserinfo(String),
    /// Not a token.
    Method(String),
    /// One that `fetch()` refuses (Fetch, "forbidden method").
    ForbiddenMethod(String),
    /// Not a name, or a value that no field can have.
    Header(String),
    /// One that browsers ignore when a page sets it (Fetch, "forbidden request-header").
    ForbiddenHeader(String),
    /// A field of the upstream that is none.
    UpstreamHeader(String),
    /// Not a status of a response.
    UpstreamStatus(u16),
    /// Not the name of a field.
    Reads(String),
}

// === impl Question ===

impl Question {
    /// What happens when a page of `origin` fetches `url`: with GET, without headers of its own and without
    /// credentials, unless said otherwise.
    pub fn new(origin: &str, url: &str) -> Result<Self, InvalidQuestion> {
        Ok(Question {
            origins: vec![page_origin(origin)?],
            url: Target::parse(url)?,
            method: "GET".into(),
            headers: Vec::new(),
            credentials: Credentials::Omit,
            reads: Vec::new(),
            upstream: Head::new(StatusCode::OK),
            given: Given::Page,
        })
    }

    /// One more `Origin` field. No browser sends two; what does is curl, or a proxy that adds one.
    pub(crate) fn and_origin(mut self, origin: &str) -> Result<Self, InvalidQuestion> {
        self.origins.push(page_origin(origin)?);
        Ok(self)
    }

    /// The method, as the page writes it.
    pub fn method(mut self, method: &str) -> Result<Self, InvalidQuestion> {
        if Method::from_bytes(method.as_bytes()).is_err() || method.len() > LONGEST_NAME {
            return Err(InvalidQuestion::Method(method.into()));
        }
        if ["CONNECT", "TRACE", "TRACK"].iter().any(|forbidden| method.eq_ignore_ascii_case(forbidden)) {
            return Err(InvalidQuestion::ForbiddenMethod(method.into()));
        }
        self.method = method.into();
        Ok(self)
    }

    /// A header that the page sets, as `Name: value`, or `Name` when the value is not known.
    pub fn header(mut self, line: &str) -> Result<Self, InvalidQuestion> {
        let (name, value) = match line.split_once(':') {
            Some((name, value)) => (name.trim(), Some(value.trim())),
            None => (line.trim(), None),
        };
        let valid = is_field_name(name) && value.is_none_or(|value| HeaderValue::from_str(value).is_ok());
        if !valid {
            return Err(InvalidQuestion::Header(line.into()));
        }
        if crate::cors::is_forbidden_request_header(name) {
            return Err(InvalidQuestion::ForbiddenHeader(name.into()));
        }
        self.headers.push(PageHeader { name: name.into(), value: value.map(str::to_owned) });
        Ok(self)
    }

    /// Whether cookies and the like go along.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// A response header that the page wants to read.
    pub fn reads(mut self, name: &str) -> Result<Self, InvalidQuestion> {
        if !is_field_name(name) {
            return Err(InvalidQuestion::Reads(name.into()));
        }
        self.reads.push(name.into());
        Ok(self)
    }

    /// The status of the upstream's response; 200 if it is not said.
    pub fn upstream_status(mut self, status: u16) -> Result<Self, InvalidQuestion> {
        let code = StatusCode::from_u16(status).ok().filter(|code| !code.is_informational());
        self.upstream.status = code.ok_or(InvalidQuestion::UpstreamStatus(status))?;
        Ok(self)
    }

    /// A field of the upstream's response, as `Name: value`.
    pub fn upstream_header(mut self, line: &str) -> Result<Self, InvalidQuestion> {
        let invalid = || InvalidQuestion::UpstreamHeader(line.into());
        let (name, value) = line.split_once(':').ok_or_else(invalid)?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| invalid())?;
        if !is_field_name(name.trim()) {
            return Err(invalid());
        }
        self.upstream.append(name.trim(), value);
        Ok(self)
    }

    /// The question behind a request that really came, whatever sent it. A preflight asks about the request that it
    /// announces; any other asks about itself.
    pub fn recorded(request: &Recorded<'_>) -> Self {
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
            given: Given::Request,
        };
        if request.kind == RequestKind::Preflight || request.requested_method.is_some() {
            question.method = request.requested_method.map_or("GET".into(), Into::into);
            let header = |name| PageHeader { name, value: None };
            question.headers = list(request.requested_headers).into_iter().map(header).collect();
            let fields = [
                ("Access-Control-Request-Method", request.requested_method),
                ("Access-Control-Request-Headers", request.requested_headers),
            ];
            let given = |(name, value): (_, Option<&str>)| Some((name, value?.to_owned()));
            question.given = Given::Preflight(fields.into_iter().filter_map(given).collect());
        }
        question
    }

    /// The name of a header as the page writes it, which is how it is usually written.
    pub(super) fn spelled(&self, name: &str) -> String {
        let as_page = self.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        as_page.map_or(name, |header| &header.name).to_owned()
    }

    /// Nothing is said of a value that is not known.
    pub(super) fn without_unknown_values(&self, why: Vec<Unsafe>) -> Vec<Unsafe> {
        let is_unknown = |name: &str| self.headers.iter().any(|header| header.name == name && header.value.is_none());
        why.into_iter()
            .map(|why| match why {
                Unsafe::Value { name, .. } if is_unknown(&name) => Unsafe::UnknownValue(name),
                other => other,
            })
            .collect()
    }

    /// The page's origin in one piece; several are joined as a list, which equals no origin.
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
            [] => f.write_str(", from no page"),
            [origin] => write!(f, ", from a page of {origin}"),
            several => write!(f, ", with the Origins {}", several.join(" and ")),
        }
    }
}

/// No browser sends an origin with a wildcard, and a pattern is a usual thing to copy out of a configuration.
fn page_origin(text: &str) -> Result<Box<str>, InvalidQuestion> {
    if text.contains('*') {
        return Err(InvalidQuestion::OriginPattern(text.into()));
    }
    OriginPattern::parse(text).map_err(InvalidQuestion::Origin)?;
    Ok(text.into())
}

/// As long as one may be configured.
const LONGEST_NAME: usize = 256;

fn is_field_name(name: &str) -> bool {
    name.len() <= LONGEST_NAME && HeaderName::from_bytes(name.as_bytes()).is_ok()
}

// === impl Target ===

impl Target {
    /// Reads a URL as browsers do (URL standard): dot segments, default ports and the like are gone afterwards.
    fn parse(text: &str) -> Result<Self, InvalidQuestion> {
        let bad = |why: String| InvalidQuestion::Url(text.into(), why);
        if let Some(c) = text.chars().find(|c| c.is_control() || c.is_whitespace()) {
            return Err(bad(format!("it has the character {c:?}")));
        }
        let url = Url::parse(text).map_err(|error| bad(error.to_string()))?;
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(InvalidQuestion::UrlScheme(text.into())),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidQuestion::UrlUserinfo(text.into()));
        }
        let host = match url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(host @ Host::Ipv6(_)) => host.to_string(),
            None => return Err(bad("it has no host".into())),
        };
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        Ok(Target { scheme, authority: host + &port, path_and_query: format!("{}{query}", url.path()) })
    }

    /// Where a `Location` leads from here; None when that is nowhere that http goes.
    pub(super) fn join(&self, location: &str) -> Option<Self> {
        let next = Url::parse(&self.to_string()).ok()?.join(location).ok()?;
        Self::parse(next.as_str()).ok()
    }

    /// The path, without its query.
    pub(super) fn path(&self) -> &str {
        self.path_and_query.split('?').next().unwrap_or_default()
    }

    /// Serialised, as a page there would send it.
    pub(super) fn origin(&self) -> String {
        format!("{}://{}", self.scheme_name(), self.authority)
    }

    pub(super) fn scheme_name(&self) -> &'static str {
        match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The port that a client connects to.
    pub(super) fn port(&self) -> u16 {
        let default = match self.scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        };
        crate::domain::split_port(&self.authority).1.and_then(|port| port.parse().ok()).unwrap_or(default)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.path_and_query)
    }
}

// === impl InvalidQuestion ===

impl fmt::Display for InvalidQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidQuestion::Origin(kind) => write!(f, "--origin: {}; {}", kind.fault(), kind.remedy()),
            InvalidQuestion::OriginPattern(text) => {
                write!(
                    f,
                    "--origin: `{text}` is a pattern; write the origin of one page, such as `https://app.example`"
                )
            }
            InvalidQuestion::Url(text, why) => {
                write!(f, "`{text}` is not a URL: {why}; write for example `https://api.example/orders`")
            }
            InvalidQuestion::UrlScheme(text) => {
                write!(f, "`{text}` is neither http nor https; write `https://` and the rest")
            }
            InvalidQuestion::UrlUserinfo(text) => {
                write!(f, "`{text}` has a user part, and fetch() refuses that; leave out what stands before the `@`")
            }
            InvalidQuestion::Method(text) => write!(f, "--method: `{text}` is not a method; write for example `PUT`"),
            InvalidQuestion::ForbiddenMethod(text) => {
                write!(f, "--method: no page can send `{text}`, fetch() refuses it; write another method")
            }
            InvalidQuestion::Header(text) => {
                write!(f, "--header: `{text}` is not a header; write `Name: value`, or `Name` alone")
            }
            InvalidQuestion::ForbiddenHeader(name) => match &*name.to_ascii_lowercase() {
                "cookie" => write!(f, "--header: a page cannot set `{name}`; write `--credentials` for cookies"),
                "origin" => write!(f, "--header: a page cannot set `{name}`; write `--origin`"),
                _ => write!(f, "--header: a page cannot set `{name}`, browsers ignore the attempt; leave it out"),
            },
            InvalidQuestion::UpstreamHeader(text) => {
                write!(f, "--upstream-header: `{text}` is not a header; write `Name: value`")
            }
            InvalidQuestion::UpstreamStatus(status) => {
                write!(f, "--upstream-status: {status} is no status of a response; write 200 to 999")
            }
            InvalidQuestion::Reads(text) => {
                write!(f, "--reads: `{text}` is not the name of a header; write `X-Total`, say")
            }
        }
    }
}

impl std::error::Error for InvalidQuestion {}
