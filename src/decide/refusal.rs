//! Reasons for which the gateway refuses a request, with their codes in logs and metrics. [`super::local_reply`] has
//! the statuses and texts of the replies.

use http::{HeaderValue, StatusCode};

use super::RequestOutcome;
use super::local_reply::ReplyKind;
use crate::codes::coded_enum;
use crate::cors::Reason;

/// Reason for which the gateway refuses a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal<'s> {
    /// 400: no host, more than one host, or an invalid one (RFC 9112 section 3.2).
    BadHost,
    /// 400: the request target is neither a path nor an http URL (RFC 9112 section 3.2).
    BadTarget,
    /// 400: servers interpret the path differently: dot segments, encoded slashes, backslashes, NULs.
    AmbiguousPath,
    /// 400: servers disagree about where the body ends (RFC 9112 section 6.3).
    AmbiguousLength,
    /// 403: the policy does not allow the Origin and has `disallowed_origins: reject` or `cross_site: reject`.
    OriginRejected(Reason),
    /// 403: `clients` of the listener or of the route does not accept the client's address.
    ClientDenied,
    /// The service of `forward_auth` refuses the request, with this status.
    AuthRefused(StatusCode),
    /// 503: the service of `forward_auth` gave no usable answer.
    AuthUnavailable,
    /// 404: no service has the host.
    UnknownHost,
    /// 404: no route of the host has the path.
    UnknownPath,
    /// 405: the path has no route for the method. Contains the value of `Allow`.
    MethodNotAllowed(&'s HeaderValue),
    /// 413: the body is longer than `limits.body`.
    BodyTooLarge,
    /// 414: the request target is longer than `limits.uri`.
    UriTooLong,
    /// 421: the TLS server name and the certificate of the connection are for another host (RFC 9110 section 7.4).
    Misdirected,
    /// 429: the client has more connections than `limits.connections_per_client`.
    ClientConnectionLimit,
    /// 429: the budget of the request's key in `rate_limit` is empty.
    RateLimited,
    /// 431: the header exceeds `limits.headers` or `limits.header_count`.
    HeadersTooLarge,
    /// 503: more connections than `limits.connections`.
    ConnectionLimit,
    /// 503: every node of the upstream has `max_connections` requests.
    UpstreamFull,
}

coded_enum! {
    /// Code of a [`Refusal`] that is not a CORS decision: the label `code` of `corsgate_refused_requests_total`.
    pub enum RefusalCode {
        /// The request has no valid host: [`Refusal::BadHost`].
        BadHost = "bad_host",
        /// The request target is not valid: [`Refusal::BadTarget`].
        BadTarget = "bad_target",
        /// Servers read the path differently: [`Refusal::AmbiguousPath`].
        AmbiguousPath = "ambiguous_path",
        /// Servers read the end of the body differently: [`Refusal::AmbiguousLength`].
        AmbiguousLength = "ambiguous_length",
        /// The client's address is not accepted: [`Refusal::ClientDenied`].
        ClientDenied = "client_denied",
        /// The authentication service refuses the request: [`Refusal::AuthRefused`].
        AuthRefused = "auth_refused",
        /// The authentication service gave no usable answer: [`Refusal::AuthUnavailable`].
        AuthUnavailable = "auth_unavailable",
        /// No service has the host: [`Refusal::UnknownHost`].
        UnknownHost = "unknown_host",
        /// No route has the path: [`Refusal::UnknownPath`].
        UnknownPath = "unknown_path",
        /// The path has no route for the method: [`Refusal::MethodNotAllowed`]. The code `method_not_allowed` is a CORS
        /// reason.
        NoRouteForMethod = "no_route_for_method",
        /// The body is longer than the limit: [`Refusal::BodyTooLarge`].
        BodyTooLarge = "body_too_large",
        /// The request target is longer than the limit: [`Refusal::UriTooLong`].
        UriTooLong = "uri_too_long",
        /// The connection is for another host: [`Refusal::Misdirected`].
        Misdirected = "misdirected",
        /// The client has too many connections: [`Refusal::ClientConnectionLimit`].
        ClientConnectionLimit = "client_connection_limit",
        /// The rate limit has no request left: [`Refusal::RateLimited`].
        RateLimited = "rate_limited",
        /// All clients together have too many connections: [`Refusal::ConnectionLimit`].
        ConnectionLimit = "connection_limit",
        /// The header exceeds a limit: [`Refusal::HeadersTooLarge`].
        HeadersTooLarge = "headers_too_large",
        /// Every node of the upstream is full: [`Refusal::UpstreamFull`].
        UpstreamFull = "upstream_full",
    }
}

impl Refusal<'_> {
    /// The status of the reply.
    pub fn status(&self) -> StatusCode {
        ReplyKind::Refused(*self).status()
    }

    /// Code in logs, metrics and explanations.
    pub(crate) const fn code(&self) -> &'static str {
        self.outcome().code()
    }

    /// Result of a request that is refused in this way.
    pub(crate) const fn outcome(&self) -> RequestOutcome {
        RequestOutcome::Refused(match self {
            Refusal::OriginRejected(reason) => return RequestOutcome::Cors(*reason),
            Refusal::BadHost => RefusalCode::BadHost,
            Refusal::BadTarget => RefusalCode::BadTarget,
            Refusal::AmbiguousPath => RefusalCode::AmbiguousPath,
            Refusal::AmbiguousLength => RefusalCode::AmbiguousLength,
            Refusal::ClientDenied => RefusalCode::ClientDenied,
            Refusal::AuthRefused(_) => RefusalCode::AuthRefused,
            Refusal::AuthUnavailable => RefusalCode::AuthUnavailable,
            Refusal::UnknownHost => RefusalCode::UnknownHost,
            Refusal::UnknownPath => RefusalCode::UnknownPath,
            Refusal::MethodNotAllowed(_) => RefusalCode::NoRouteForMethod,
            Refusal::BodyTooLarge => RefusalCode::BodyTooLarge,
            Refusal::UriTooLong => RefusalCode::UriTooLong,
            Refusal::Misdirected => RefusalCode::Misdirected,
            Refusal::ClientConnectionLimit => RefusalCode::ClientConnectionLimit,
            Refusal::ConnectionLimit => RefusalCode::ConnectionLimit,
            Refusal::RateLimited => RefusalCode::RateLimited,
            Refusal::HeadersTooLarge => RefusalCode::HeadersTooLarge,
            Refusal::UpstreamFull => RefusalCode::UpstreamFull,
        })
    }

    /// The body of the reply: one line, with its line feed.
    pub(crate) fn explanation(&self) -> &'static str {
        ReplyKind::Refused(*self).text()
    }
}
