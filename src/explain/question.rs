//! The question that [`explain`](super::explain) answers: a request of a page, or a request that the gateway received.
//!
//! Each part of a question is checked when it is set, so every [`Question`] can be simulated. The error is
//! [`InvalidQuestion`]. It has the part of the question, but not the command-line flag of this part.

mod initiator;
mod invalid;
mod written;
mod target;

pub use self::initiator::Initiator;
pub(super) use self::initiator::Mode;
pub use self::invalid::{InvalidQuestion, QuestionPart};
pub(crate) use self::target::PageUrl;

use std::fmt;
use std::net::IpAddr;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::exchange::Head;
use crate::behavior::clients::ClientAddress;
use crate::cors::{OriginPattern, fetch_names};
use crate::decide::RequestKind;
use crate::domain::Scheme;
use crate::explain::fetch::{self, Credentials, Fetch};
use crate::problem::ProblemKind;

/// The CORS-relevant parts of a page's request, and the assumed response of the upstream.
///
/// ```
/// use corsgate::explain::fetch::Credentials;
/// use corsgate::explain::{Question, QuestionPart};
///
/// let question = Question::new("https://app.example", "https://api.example/orders?page=2")?
///     .method("PUT")?
///     .header("Content-Type: application/json")?
///     .credentials(Credentials::Include)?;
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
    /// One entry for each `Origin` field. Empty if the request has no `Origin` field.
    pub(super) origins: Vec<Box<str>>,
    /// The requests of the page in their order. There is at least one.
    pub(super) requests: Vec<PageRequest>,
    pub(super) initiator: Initiator,
    pub(super) credentials: Credentials,
    /// Response headers that the page wants to read.
    pub(super) reads: Vec<String>,
    /// The assumed response of the upstream.
    pub(super) upstream: Head,
    pub(super) source: QuestionSource,
    /// The recorded `Sec-Fetch-Site`.
    pub(super) fetch_site: Option<String>,
    /// The client that sends the requests.
    pub(super) client: ClientAddress,
    /// The value of `Cookie` in requests with credentials. None sends no cookie.
    pub(super) cookie: Option<String>,
}

/// One request of the page.
#[derive(Debug, Clone)]
pub(super) struct PageRequest {
    pub(super) url: PageUrl,
    /// The method in the page's code, before normalisation.
    pub(super) method: String,
    pub(super) headers: Vec<PageHeader>,
}

/// The source of a question.
#[derive(Debug, Clone)]
pub(super) enum QuestionSource {
    /// A request of a page, from the user.
    Page,
    /// A recorded request that is not a preflight.
    Request,
    /// A recorded preflight, with its `Access-Control-Request-*` fields. The simulation sends these fields instead of
    /// the fields of a browser.
    Preflight(Vec<(&'static str, String)>),
}

/// A header that a page sets. A header without a value is assumed to need a preflight.
#[derive(Debug, Clone)]
pub(super) struct PageHeader {
    pub(super) name: String,
    pub(super) value: Option<String>,
}

/// A request from the list of refused requests, with the fields that the gateway recorded.
#[derive(Debug, Clone, Copy)]
pub struct RecordedRequest<'a> {
    /// The gateway's classification of the request.
    pub kind: RequestKind,
    /// The address of the client.
    pub client: IpAddr,
    /// The scheme with which the client reached the gateway.
    pub scheme: Scheme,
    /// Host and port, as the client sent them.
    pub authority: &'a str,
    /// The path, with or without its query.
    pub path: &'a str,
    /// The method of the request. It is `OPTIONS` for a preflight.
    pub method: &'a str,
    /// The `Origin` field. Several fields are joined by a comma.
    pub origin: Option<&'a str>,
    /// The field `Access-Control-Request-Method`.
    pub requested_method: Option<&'a str>,
    /// The field `Access-Control-Request-Headers`. Several fields are joined by a comma.
    pub requested_headers: Option<&'a str>,
    /// [`Credentials::Include`] if the request had cookies or other credentials.
    pub credentials: Credentials,
    /// The field `Sec-Fetch-Mode`, or `websocket` for every WebSocket.
    pub fetch_mode: Option<&'a str>,
    /// The field `Sec-Fetch-Site`. Several fields are joined by a comma.
    pub fetch_site: Option<&'a str>,
}

// === impl Question ===

impl Question {
    /// Creates the question about a `fetch()` of `url` by a page of `origin`, with GET, without headers and without
    /// credentials. Other methods of this type change these parts. The assumed response of the upstream has the status
    /// 200 and no headers.
    ///
    /// # Errors
    ///
    /// `origin` is not the serialised origin of one page, or `url` is not an absolute http or https URL that `fetch()`
    /// accepts.
    pub fn new(origin: &str, url: &str) -> Result<Self, InvalidQuestion> {
        Self::of(Initiator::Fetch, origin, url)
    }

    /// Like [`Question::new`], but for another part of the page than `fetch()`.
    ///
    /// # Errors
    ///
    /// The errors of [`Question::new`]. The URL of a WebSocket can also have the scheme `ws` or `wss`.
    pub fn of(initiator: Initiator, origin: &str, url: &str) -> Result<Self, InvalidQuestion> {
        Ok(Question {
            origins: vec![page_origin(origin)?],
            requests: vec![PageRequest {
                url: PageUrl::parse(url, initiator)?,
                method: "GET".into(),
                headers: Vec::new(),
            }],
            initiator,
            credentials: Credentials::Omit,
            reads: Vec::new(),
            upstream: Head::new(initiator.usual_status()),
            source: QuestionSource::Page,
            fetch_site: None,
            client: ClientAddress::Accepted,
            cookie: Some(UNKNOWN_COOKIE.into()),
        })
    }

    /// Adds a later request of the page, with GET and without headers. Later calls of [`Question::method`] and
    /// [`Question::header`] change this request.
    ///
    /// # Errors
    ///
    /// `url` is not valid, as in [`Question::new`].
    pub fn then(mut self, url: &str) -> Result<Self, InvalidQuestion> {
        let url = PageUrl::parse(url, self.initiator)?;
        self.requests.push(PageRequest { url, method: "GET".into(), headers: Vec::new() });
        Ok(self)
    }

    /// Adds another `Origin` field. Browsers send only one, but curl can send several, and a proxy can add one.
    pub(crate) fn and_origin(mut self, origin: &str) -> Result<Self, InvalidQuestion> {
        self.origins.push(page_origin(origin)?);
        Ok(self)
    }

    /// Sets the method, as in the page's code.
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
        let choices = self.initiator.methods();
        if !choices.is_empty() && !choices.iter().any(|choice| choice.eq_ignore_ascii_case(method)) {
            let (phrase, choices) = (self.initiator.phrase(), choices.join(" or "));
            let reason = format!("a page cannot send `{method}`{phrase}; write {choices}");
            return Err(InvalidQuestion::new(QuestionPart::Method, reason));
        }
        self.newest().method = method.into();
        Ok(self)
    }

    /// Adds a header of the page's request, as `Name: value`, or `Name` if the value is not known.
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
        if fetch_names::is_dropped_request_header(name, value.unwrap_or_default()) {
            let reason = format!("a page cannot set `{line}`, browsers drop it because of its value; leave it out");
            return Err(InvalidQuestion::new(QuestionPart::Header, reason));
        }
        let phrase = self.initiator.phrase();
        let reason = match self.initiator {
            Initiator::Fetch | Initiator::XhrUpload => None,
            Initiator::NoCors if fetch::is_no_cors_safelisted(name, value) => None,
            Initiator::NoCors => Some(format!(
                "browsers drop `{line}`{phrase}: only Accept, Accept-Language, Content-Language and Content-Type with a \
                 safelisted value are sent; leave it out"
            )),
            _ => Some(format!("a page cannot set headers{phrase}; leave `{line}` out")),
        };
        if let Some(reason) = reason {
            return Err(InvalidQuestion::new(QuestionPart::Header, reason));
        }
        self.newest().headers.push(PageHeader { name: name.into(), value: value.map(str::to_owned) });
        Ok(self)
    }

    /// Sets the credentials mode, which decides whether the requests have cookies.
    ///
    /// # Errors
    ///
    /// This part of the page never sends cookies to another origin.
    pub fn credentials(mut self, credentials: Credentials) -> Result<Self, InvalidQuestion> {
        if (self.initiator, credentials) == (Initiator::Font, Credentials::Include) {
            let reason = "browsers load the fonts of another origin without cookies; leave it out".to_owned();
            return Err(InvalidQuestion::new(QuestionPart::Credentials, reason));
        }
        self.credentials = credentials;
        Ok(self)
    }

    /// Sets the address of the client, for `clients`. Without it, every list is assumed to accept the client.
    pub fn client(mut self, address: IpAddr) -> Self {
        self.client = ClientAddress::Known(address);
        self
    }

    /// Adds a response header that the page wants to read.
    ///
    /// # Errors
    ///
    /// `name` is not a field name.
    pub fn reads(mut self, name: &str) -> Result<Self, InvalidQuestion> {
        if !is_field_name(name) {
            let reason = format!("`{name}` is not the name of a header; write for example `X-Total`");
            return Err(InvalidQuestion::new(QuestionPart::Reads, reason));
        }
        if !self.initiator.reads_headers() {
            let phrase = self.initiator.phrase();
            let reason = format!("a page cannot read headers of the response{phrase}; leave `{name}` out");
            return Err(InvalidQuestion::new(QuestionPart::Reads, reason));
        }
        self.reads.push(name.into());
        Ok(self)
    }

    /// Sets the status of the upstream's response. The default is 200.
    ///
    /// # Errors
    ///
    /// The status is below 200 or above 999. The answer to a WebSocket can be 101.
    pub fn upstream_status(mut self, status: u16) -> Result<Self, InvalidQuestion> {
        let may_switch = self.initiator == Initiator::WebSocket;
        let is_final =
            |code: &StatusCode| !code.is_informational() || (may_switch && *code == StatusCode::SWITCHING_PROTOCOLS);
        let code = StatusCode::from_u16(status).ok().filter(is_final);
        self.upstream.status = code.ok_or_else(|| {
            let reason = format!("{status} is not the status of a final response; write 200 to 999");
            InvalidQuestion::new(QuestionPart::UpstreamStatus, reason)
        })?;
        Ok(self)
    }

    /// Adds a field of the upstream's response, as `Name: value`.
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

    /// Creates the question about a request that the gateway received from any client. A preflight becomes a question
    /// about the request that follows it.
    pub fn recorded(request: &RecordedRequest<'_>) -> Self {
        let list = |text: Option<&str>| -> Vec<String> {
            let parts = text.unwrap_or_default().split(',').map(str::trim);
            parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        let mut asked = PageRequest {
            url: PageUrl {
                scheme: request.scheme,
                authority: request.authority.to_owned(),
                path_and_query: request.path.to_owned(),
            },
            method: request.method.to_owned(),
            headers: Vec::new(),
        };
        let mut source = QuestionSource::Request;
        if request.kind == RequestKind::Preflight || request.requested_method.is_some() {
            asked.method = request.requested_method.map_or("GET".into(), Into::into);
            let header = |name| PageHeader { name, value: None };
            asked.headers = list(request.requested_headers).into_iter().map(header).collect();
            let fields = [
                ("Access-Control-Request-Method", request.requested_method),
                ("Access-Control-Request-Headers", request.requested_headers),
            ];
            let present = |(name, value): (_, Option<&str>)| Some((name, value?.to_owned()));
            source = QuestionSource::Preflight(fields.into_iter().filter_map(present).collect());
        }
        let initiator = Initiator::of_mode(request.fetch_mode);
        Question {
            origins: request.origin.into_iter().filter(|origin| !origin.is_empty()).map(Into::into).collect(),
            requests: vec![asked],
            initiator,
            credentials: request.credentials,
            reads: Vec::new(),
            upstream: Head::new(initiator.usual_status()),
            source,
            fetch_site: request.fetch_site.map(str::to_owned),
            client: ClientAddress::Known(request.client),
            cookie: Some(UNKNOWN_COOKIE.into()),
        }
    }

    /// Sets the cookies of requests with credentials. Without this call, the value is unknown, and printed as `...`.
    pub(crate) fn cookie(self, cookie: Option<&str>) -> Self {
        Question { cookie: cookie.map(str::to_owned), ..self }
    }

    /// Returns the URL of the first request.
    pub(crate) fn url(&self) -> &PageUrl {
        &self.requests[0].url
    }

    /// Returns the method of the first request, as the browser sends it.
    pub(crate) fn normalised_method(&self) -> String {
        let method = &self.requests[0].method;
        Fetch { origin: "", method, headers: &[], credentials: self.credentials }.normalised_method()
    }

    fn newest(&mut self) -> &mut PageRequest {
        self.requests.last_mut().expect("a question has at least one request")
    }

    /// Returns a header name in the page's spelling. `name` comes from a preflight, in lower case.
    pub(super) fn page_spelling(&self, name: &str) -> String {
        let mut headers = self.requests.iter().flat_map(|request| &request.headers);
        let as_page = headers.find(|header| header.name.eq_ignore_ascii_case(name));
        as_page.map_or(name, |header| &header.name).to_owned()
    }

    /// Returns the page's origin. Several origins are joined to a list, which equals no origin.
    pub(crate) fn origin(&self) -> String {
        self.origins.join(", ")
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = self.requests.iter().map(|request| format!("{} {}", request.method, request.url));
        f.write_str(&requests.collect::<Vec<_>>().join(", then "))?;
        f.write_str(self.initiator.phrase())?;
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

/// Placeholder for unknown cookies in the output.
const UNKNOWN_COOKIE: &str = "...";

fn page_origin(text: &str) -> Result<Box<str>, InvalidQuestion> {
    let invalid = |reason| InvalidQuestion::new(QuestionPart::Origin, reason);
    // Users often copy patterns from a configuration, and `OriginPattern` accepts them.
    if text.contains(['*', '{']) {
        let reason = format!("`{text}` is a pattern; write the origin of one page, such as `https://app.example`");
        return Err(invalid(reason));
    }
    OriginPattern::parse(text).map_err(|kind| {
        let remedy = match &kind {
            // The remedies of these problems are about a list in the configuration.
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

/// Maximum length of names of methods and headers in bytes. The configuration has the same limit.
const LONGEST_NAME: usize = 256;

fn is_field_name(name: &str) -> bool {
    name.len() <= LONGEST_NAME && HeaderName::from_bytes(name.as_bytes()).is_ok()
}
