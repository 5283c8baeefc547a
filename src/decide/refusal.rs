//! Why the gateway refuses a request, and the code of each reason in logs and metrics. Status and text of the replies
//! are in [`super::local_reply`].

use http::{HeaderValue, StatusCode};

use super::RequestOutcome;
use super::local_reply::ReplyKind;
use crate::codes::coded_enum;
use crate::cors::Reason;

/// Why the gateway refuses a request.
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
    /// The service of `forward_auth` refuses the request. It chose the status.
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
    /// 429: `rate_limit` of the route has no request left for the key of this one.
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
        /// [`Refusal::BadHost`]
        BadHost = "bad_host",
        /// [`Refusal::BadTarget`]
        BadTarget = "bad_target",
        /// [`Refusal::AmbiguousPath`]
        AmbiguousPath = "ambiguous_path",
        /// [`Refusal::AmbiguousLength`]
        AmbiguousLength = "ambiguous_length",
        /// [`Refusal::ClientDenied`]
        ClientDenied = "client_denied",
        /// [`Refusal::AuthRefused`]
        AuthRefused = "auth_refused",
        /// [`Refusal::AuthUnavailable`]
        AuthUnavailable = "auth_unavailable",
        /// [`Refusal::UnknownHost`]
        UnknownHost = "unknown_host",
        /// [`Refusal::UnknownPath`]
        UnknownPath = "unknown_path",
        /// [`Refusal::MethodNotAllowed`]; `method_not_allowed` is a CORS reason.
        NoRouteForMethod = "no_route_for_method",
        /// [`Refusal::BodyTooLarge`]
        BodyTooLarge = "body_too_large",
        /// [`Refusal::UriTooLong`]
        UriTooLong = "uri_too_long",
        /// [`Refusal::Misdirected`]
        Misdirected = "misdirected",
        /// [`Refusal::ClientConnectionLimit`]
        ClientConnectionLimit = "client_connection_limit",
        /// [`Refusal::RateLimited`]
        RateLimited = "rate_limited",
        /// [`Refusal::ConnectionLimit`]
        ConnectionLimit = "connection_limit",
        /// [`Refusal::HeadersTooLarge`]
        HeadersTooLarge = "headers_too_large",
        /// [`Refusal::UpstreamFull`]
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
