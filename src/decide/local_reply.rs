//! The gateway's own replies: status, text and header fields.
//!
//! [`ReplyKind::status_and_text`] is the only table of statuses and texts: to change the text of a 503, change it
//! there. No CORS header field is set here. A reply to a request gets them as every other response does, from the
//! `Edits` of the request's verdict.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::{Action, Refusal};
use crate::behavior::answer::{Answer, path_and_query};
use crate::cors::Reason;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Kind of a reply of the gateway, except answers to preflights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyKind<'s> {
    /// The listener redirects plain HTTP to https.
    UseHttps,
    /// The verdict refuses the request.
    Refused(Refusal<'s>),
    /// The client sent a header or a body that is not valid HTTP.
    MalformedRequest,
    /// The request is a CONNECT, which the gateway does not support.
    ConnectRefused,
    /// The request has the version of HTTP/2 or later.
    VersionNotSupported,
    /// The header or the body of the request did not arrive in time.
    RequestTimeout,
    /// An internal error.
    GatewayError,
    /// No connection to a node, a connection that broke off, or a response that is not valid HTTP.
    UpstreamFailed,
    /// All nodes are unhealthy, ejected or already tried, or the upstream's name has no address.
    NoNodeAvailable,
    /// A timeout of the upstream expired, `timeouts.total` included.
    UpstreamTimeout,
}

/// A response of the gateway, complete except for the edits of the request's verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LocalReply {
    pub(crate) status: StatusCode,
    /// The body. It is one line for a reply of [`ReplyKind`].
    pub(crate) body: Bytes,
    /// Header fields that only some replies have.
    extra_fields: Vec<(HeaderName, HeaderValue)>,
    content: Content,
}

/// Kind of the body of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// No body, or a body whose type is in the extra fields.
    Own,
    /// A text of the gateway.
    Text,
    /// An error for a gRPC call, without body.
    Grpc(GrpcError),
}

/// The error as gRPC clients expect it: in the header of a 200 without a body ("Trailers-Only").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct GrpcError {
    content_type: &'static str,
    status: &'static str,
    message: &'static str,
}

// === impl ReplyKind ===

impl ReplyKind<'_> {
    /// Status and body of the reply. No text contains anything that the client sent.
    const fn status_and_text(self) -> (StatusCode, &'static str) {
        match self {
            ReplyKind::UseHttps => (StatusCode::PERMANENT_REDIRECT, "Use https.\n"),
            ReplyKind::Refused(refusal) => match refusal {
                Refusal::BadHost => (StatusCode::BAD_REQUEST, "The request needs exactly one valid host.\n"),
                Refusal::BadTarget => {
                    (StatusCode::BAD_REQUEST, "The request target is neither a path nor an http URL.\n")
                }
                Refusal::AmbiguousPath => (
                    StatusCode::BAD_REQUEST,
                    "The path is ambiguous: dot segments, encoded slashes, backslashes and NULs are not allowed.\n",
                ),
                Refusal::AmbiguousLength => (
                    StatusCode::BAD_REQUEST,
                    "The body length is ambiguous: send one Content-Length, or Transfer-Encoding: chunked, not both.\n",
                ),
                Refusal::OriginRejected(Reason::OriginInvalid) => (
                    StatusCode::FORBIDDEN,
                    "Cross-origin request refused: not exactly one well-formed Origin (origin_invalid).\n",
                ),
                Refusal::OriginRejected(Reason::OriginNull) => (
                    StatusCode::FORBIDDEN,
                    "Cross-origin request refused: the origin null is not allowed (origin_null).\n",
                ),
                Refusal::OriginRejected(Reason::CrossSite) => (
                    StatusCode::FORBIDDEN,
                    "Cross-site request refused: only pages of this site and of allowed origins may send it (cross_site).\n",
                ),
                Refusal::OriginRejected(_) => (
                    StatusCode::FORBIDDEN,
                    "Cross-origin request refused: the origin is not allowed (origin_not_allowed).\n",
                ),
                Refusal::ClientDenied => (StatusCode::FORBIDDEN, "This client may not send requests here.\n"),
                // The client gets the response of the service instead.
                Refusal::AuthRefused(status) => (status, "The authentication service refuses the request.\n"),
                Refusal::AuthUnavailable => {
                    (StatusCode::SERVICE_UNAVAILABLE, "The authentication service gave no answer.\n")
                }
                Refusal::UnknownHost => (StatusCode::NOT_FOUND, "No service has this host.\n"),
                Refusal::UnknownPath => (StatusCode::NOT_FOUND, "No route has this path.\n"),
                Refusal::MethodNotAllowed(_) => {
                    (StatusCode::METHOD_NOT_ALLOWED, "No route of this path has this method.\n")
                }
                Refusal::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "The request body is too large.\n"),
                Refusal::UriTooLong => (StatusCode::URI_TOO_LONG, "The request target is too long.\n"),
                Refusal::Misdirected => (
                    StatusCode::MISDIRECTED_REQUEST,
                    "Wrong connection: its TLS server name and certificate are for another host.\n",
                ),
                Refusal::ClientConnectionLimit => {
                    (StatusCode::TOO_MANY_REQUESTS, "Too many connections from this client.\n")
                }
                Refusal::RateLimited => {
                    (StatusCode::TOO_MANY_REQUESTS, "Too many requests: Retry-After has the seconds to wait.\n")
                }
                Refusal::HeadersTooLarge => {
                    (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "The request header is too large.\n")
                }
                Refusal::ConnectionLimit => (StatusCode::SERVICE_UNAVAILABLE, "Too many connections.\n"),
                Refusal::UpstreamFull => {
                    (StatusCode::SERVICE_UNAVAILABLE, "Too many requests at the upstream. Try again later.\n")
                }
            },
            ReplyKind::MalformedRequest => (StatusCode::BAD_REQUEST, "The request is malformed.\n"),
            ReplyKind::ConnectRefused => (StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not supported.\n"),
            ReplyKind::VersionNotSupported => {
                (StatusCode::HTTP_VERSION_NOT_SUPPORTED, "Send HTTP/1.1, or negotiate HTTP/2 with TLS (ALPN).\n")
            }
            ReplyKind::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "The request took too long to arrive.\n"),
            ReplyKind::GatewayError => (StatusCode::INTERNAL_SERVER_ERROR, "Internal gateway error.\n"),
            ReplyKind::UpstreamFailed => (StatusCode::BAD_GATEWAY, "No valid response from the upstream.\n"),
            ReplyKind::NoNodeAvailable => (StatusCode::SERVICE_UNAVAILABLE, "No node of the upstream is available.\n"),
            ReplyKind::UpstreamTimeout => (StatusCode::GATEWAY_TIMEOUT, "The upstream took too long.\n"),
        }
    }

    pub(crate) const fn status(self) -> StatusCode {
        self.status_and_text().0
    }

    /// Body of the reply: one line, with its line feed.
    pub(crate) const fn text(self) -> &'static str {
        self.status_and_text().1
    }
}

// === impl GrpcError ===

impl GrpcError {
    /// Returns the error for a gRPC call. None if the request is no gRPC call.
    fn new(kind: ReplyKind<'_>, request: &HeaderMap) -> Option<Self> {
        let subtype = request.get(header::CONTENT_TYPE)?.as_bytes().split_at_checked(b"application/grpc".len());
        let (_, subtype) = subtype.filter(|(start, _)| start.eq_ignore_ascii_case(b"application/grpc"))?;
        let has_prefix = |prefix: &[u8]| {
            subtype.split_at_checked(prefix.len()).is_some_and(|(start, rest)| {
                start.eq_ignore_ascii_case(prefix) && matches!(rest, [] | [b'+' | b';' | b' ' | b'\t', ..])
            })
        };
        let content_type = if has_prefix(b"") {
            "application/grpc"
        } else if has_prefix(b"-web") {
            "application/grpc-web+proto"
        } else if has_prefix(b"-web-text") {
            "application/grpc-web-text+proto"
        } else {
            return None;
        };
        // gRPC, "HTTP to gRPC Status Code Mapping".
        let status = match kind.status().as_u16() {
            400 => "13",                   // INTERNAL
            401 => "16",                   // UNAUTHENTICATED
            403 => "7",                    // PERMISSION_DENIED
            404 => "12",                   // UNIMPLEMENTED
            429 | 502 | 503 | 504 => "14", // UNAVAILABLE
            _ => "2",                      // UNKNOWN
        };
        Some(GrpcError { content_type, status, message: kind.text().trim_ascii_end() })
    }

    /// The message as a field value (gRPC over HTTP2, "Responses": Percent-Encoded).
    fn encoded_message(self) -> HeaderValue {
        // Printable ASCII stays as it is, except for `%`.
        const ENCODED: &AsciiSet = &CONTROLS.add(b'%');
        let message = utf8_percent_encode(self.message, ENCODED).to_string();
        HeaderValue::try_from(message).unwrap_or(HeaderValue::from_static(""))
    }
}

// === impl LocalReply ===

impl LocalReply {
    pub(crate) fn new(kind: ReplyKind<'_>) -> Self {
        let extra_field = match kind {
            ReplyKind::Refused(Refusal::MethodNotAllowed(allow)) => Some((header::ALLOW, allow.clone())),
            // A 405 must have `Allow` (RFC 9110 section 15.5.6). It is empty, because no method is allowed for such a
            // target.
            ReplyKind::ConnectRefused => Some((header::ALLOW, HeaderValue::from_static(""))),
            // The time until a connection or a node is free is unknown. One second prevents immediate retries.
            ReplyKind::Refused(Refusal::ConnectionLimit | Refusal::ClientConnectionLimit | Refusal::UpstreamFull) => {
                Some((header::RETRY_AFTER, HeaderValue::from_static("1")))
            }
            _ => None,
        };
        let body = Bytes::from_static(kind.text().as_bytes());
        LocalReply {
            status: kind.status(),
            body,
            extra_fields: extra_field.into_iter().collect(),
            content: Content::Text,
        }
    }

    /// Returns the reply to a request with these header fields. For a gRPC call it is a 200 with `grpc-status`.
    pub(crate) fn to(request: &HeaderMap, kind: ReplyKind<'_>) -> Self {
        let reply = Self::new(kind);
        match GrpcError::new(kind, request) {
            Some(error) => {
                LocalReply { status: StatusCode::OK, body: Bytes::new(), content: Content::Grpc(error), ..reply }
            }
            None => reply,
        }
    }

    /// Returns the reply for an action. None if the request is forwarded. `request` has the header fields of the
    /// request. `host_and_target` returns the host of the client's URL, without its port, and the request target; it is
    /// called only for a redirect.
    pub(crate) fn for_action<'a>(
        action: Action<'_>,
        request: &HeaderMap,
        host_and_target: impl FnOnce() -> (&'a str, &'a [u8]),
    ) -> Option<Self> {
        match action {
            Action::Forward(_) => None,
            Action::AnswerPreflight(status) => Some(Self::without_body(status)),
            Action::AnswerOptions(allow) => {
                let extra_fields = vec![(header::ALLOW, allow.clone())];
                Some(LocalReply { extra_fields, ..Self::without_body(StatusCode::NO_CONTENT) })
            }
            Action::RedirectToHttps(port) => {
                let (host, target) = host_and_target();
                Some(Self::redirect_to_https(host, target, port))
            }
            Action::Answer(answer) => Some(Self::answer(answer, host_and_target)),
            Action::Refuse(refusal) => Some(Self::to(request, ReplyKind::Refused(refusal))),
        }
    }

    fn without_body(status: StatusCode) -> Self {
        LocalReply { status, body: Bytes::new(), extra_fields: Vec::new(), content: Content::Own }
    }

    /// Returns the reply in HTTP/1.1 syntax with `Connection: close`, for a connection without a session.
    pub(crate) fn http1(&self) -> Vec<u8> {
        let mut response = format!("HTTP/1.1 {}\r\n", self.status).into_bytes();
        for (name, value) in self.fields() {
            response.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        response.extend([b"Connection: close\r\n\r\n", &*self.body].concat());
        response
    }

    /// The header fields, in the order in which they are sent.
    pub(crate) fn fields(&self) -> Vec<(HeaderName, HeaderValue)> {
        let mut fields = Vec::new();
        self.each_field(|name, value| fields.push((name, value)));
        fields
    }

    /// Calls `add` for each header field, in the order in which the fields are sent. Most replies have one field, so
    /// this costs less than a chain of iterators.
    pub(crate) fn each_field(&self, mut add: impl FnMut(HeaderName, HeaderValue)) {
        let content_type = match self.content {
            Content::Own => None,
            Content::Text => Some("text/plain; charset=utf-8"),
            Content::Grpc(error) => Some(error.content_type),
        };
        if let Some(content_type) = content_type {
            add(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
            add(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        // A 204 or 304 must not have a length (RFC 9110 section 8.6); any other status without one would end the
        // connection.
        if self.status != StatusCode::NO_CONTENT && self.status != StatusCode::NOT_MODIFIED {
            let length = match self.body.len() {
                // A static value, because formatting a number allocates and every preflight needs this one.
                0 => HeaderValue::from_static("0"),
                length => HeaderValue::from(length),
            };
            add(header::CONTENT_LENGTH, length);
        }
        if let Content::Grpc(error) = self.content {
            add(GRPC_STATUS, HeaderValue::from_static(error.status));
            add(GRPC_MESSAGE, error.encoded_message());
        }
        for (name, value) in &self.extra_fields {
            add(name.clone(), value.clone());
        }
    }

    /// Returns the reply for an answer of the configuration.
    fn answer<'a>(answer: &Answer, host_and_target: impl FnOnce() -> (&'a str, &'a [u8])) -> Self {
        let mut reply = Self::without_body(answer.status);
        reply.extra_fields.extend(answer.fields());
        if answer.is_redirect() {
            let (host, target) = host_and_target();
            match answer.location(host, target) {
                Some(location) => reply.extra_fields.push((header::LOCATION, location)),
                // A request of HTTP/1.0 may have no host, so there is no URL to redirect to.
                None => return Self::new(ReplyKind::Refused(Refusal::BadHost)),
            }
        }
        // A copy costs less than a reference count that all threads change.
        reply.body = Bytes::copy_from_slice(&answer.body);
        reply
    }

    /// Redirects to the same host and target on https. 308 keeps the method (RFC 9110 section 15.4.9). Only
    /// requests with a route are redirected.
    fn redirect_to_https(host: &str, target: &[u8], port: u16) -> Self {
        // A request of HTTP/1.0 may have no host, so there is no URL to redirect to.
        let location = Some(host).filter(|host| !host.is_empty()).and_then(|host| {
            let [slash, target] = path_and_query(target);
            let port = if port == 443 { String::new() } else { format!(":{port}") };
            HeaderValue::from_bytes(&[b"https://", host.as_bytes(), port.as_bytes(), slash, target].concat()).ok()
        });
        match location {
            Some(location) => {
                LocalReply { extra_fields: vec![(header::LOCATION, location)], ..Self::new(ReplyKind::UseHttps) }
            }
            None => Self::new(ReplyKind::Refused(Refusal::BadHost)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(content_type: &str, kind: ReplyKind<'_>) -> LocalReply {
        let value = HeaderValue::from_str(content_type).unwrap();
        LocalReply::to(&HeaderMap::from_iter([(header::CONTENT_TYPE, value)]), kind)
    }

    #[test]
    fn a_grpc_call_gets_the_status_of_the_mapping_in_its_own_content_type() {
        let statuses = [
            (ReplyKind::MalformedRequest, "13"),
            (ReplyKind::Refused(Refusal::OriginRejected(Reason::OriginNotAllowed)), "7"),
            (ReplyKind::Refused(Refusal::UnknownPath), "12"),
            (ReplyKind::Refused(Refusal::BodyTooLarge), "2"),
            (ReplyKind::Refused(Refusal::ClientConnectionLimit), "14"),
            (ReplyKind::GatewayError, "2"),
            (ReplyKind::UpstreamFailed, "14"),
            (ReplyKind::NoNodeAvailable, "14"),
            (ReplyKind::UpstreamTimeout, "14"),
        ];
        for (kind, status) in statuses {
            let types = [
                ("application/grpc", "application/grpc"),
                ("Application/gRPC+json", "application/grpc"),
                ("application/grpc; charset=utf-8", "application/grpc"),
                ("application/grpc-web", "application/grpc-web+proto"),
                ("application/grpc-web+proto", "application/grpc-web+proto"),
                ("application/grpc-web-text", "application/grpc-web-text+proto"),
            ];
            for (requested, sent) in types {
                let reply = reply(requested, kind);
                let fields = reply.fields();
                let value =
                    |name| fields.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_str().unwrap());
                assert_eq!((reply.status, &*reply.body), (StatusCode::OK, &b""[..]));
                assert_eq!(value("content-type"), Some(sent), "{requested}");
                assert_eq!(value("grpc-status"), Some(status), "{kind:?}");
                assert_eq!(value("grpc-message"), Some(kind.text().trim_end()));
                assert_eq!(value("content-length"), Some("0"));
            }
            for other in ["application/grpcx", "application/grpc-webx", "application/grp", "text/application/grpc", ""]
            {
                assert_eq!(reply(other, kind), LocalReply::new(kind), "{other}");
            }
        }
    }

    #[test]
    fn a_grpc_message_is_percent_encoded() {
        for (message, sent) in [
            ("The upstream took too long.", "The upstream took too long."),
            ("nö 100%\r\n~", "n%C3%B6 100%25%0D%0A~"),
            ("", ""),
        ] {
            let error = GrpcError { content_type: "application/grpc", status: "2", message };
            assert_eq!(error.encoded_message(), sent);
        }
    }

    #[test]
    fn a_redirect_needs_a_host() {
        let location = |host: &'static str, target: &'static [u8]| {
            let reply =
                LocalReply::for_action(Action::RedirectToHttps(8443), &HeaderMap::new(), || (host, target)).unwrap();
            let location = reply.fields().into_iter().find(|(name, _)| *name == header::LOCATION);
            (reply.status.as_u16(), location.map(|(_, value)| value.to_str().unwrap().to_owned()))
        };
        assert_eq!(location("a.test", b"/x?y"), (308, Some("https://a.test:8443/x?y".into())));
        assert_eq!(location("a.test", b"*"), (308, Some("https://a.test:8443/".into())));
        assert_eq!(location("a.test", b"?y"), (308, Some("https://a.test:8443/?y".into())));
        assert_eq!(location("", b"/x"), (400, None), "a request of HTTP/1.0 without Host");
    }

    #[test]
    fn a_reply_without_a_session_is_a_whole_response() {
        let methods = HeaderValue::from_static("GET, HEAD");
        for (kind, response) in [
            (
                ReplyKind::MalformedRequest,
                "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncache-control: no-store\r\n\
                 content-length: 26\r\nConnection: close\r\n\r\nThe request is malformed.\n",
            ),
            (
                ReplyKind::Refused(Refusal::MethodNotAllowed(&methods)),
                "HTTP/1.1 405 Method Not Allowed\r\ncontent-type: text/plain; charset=utf-8\r\ncache-control: no-store\r\n\
                 content-length: 39\r\nallow: GET, HEAD\r\nConnection: close\r\n\r\nNo route of this path has this method.\n",
            ),
        ] {
            assert_eq!(String::from_utf8(LocalReply::new(kind).http1()).unwrap(), response);
        }
    }

    /// RFC 9110 section 9.3.7.
    #[test]
    fn an_answer_to_options_has_the_methods() {
        let methods = HeaderValue::from_static("GET, HEAD");
        let reply = LocalReply::for_action(Action::AnswerOptions(&methods), &HeaderMap::new(), || ("", b""));
        let reply = reply.unwrap();
        assert_eq!((reply.status, reply.fields()), (StatusCode::NO_CONTENT, vec![(header::ALLOW, methods.clone())]));
    }

    /// RFC 9110 section 8.6: 204 and 304 have no `Content-Length`.
    #[test]
    fn a_reply_without_content_has_a_length_unless_its_status_forbids_it() {
        for (status, length) in [(200, Some("0")), (204, None), (304, None), (403, Some("0"))] {
            let fields = LocalReply::without_body(StatusCode::from_u16(status).unwrap()).fields();
            let found = fields.iter().find(|(name, _)| *name == header::CONTENT_LENGTH);
            assert_eq!(found.map(|(_, value)| value.to_str().unwrap()), length, "{status}");
        }
    }
}
