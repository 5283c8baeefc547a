//! Why the gateway refuses a request: the status, the code of logs and metrics, and the text for the client.

use http::{HeaderValue, StatusCode};

use super::Outcome;
use crate::codes::coded_enum;
use crate::cors::Reason;

/// Why the gateway refuses a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal<'s> {
    /// 400: no host, more than one, or one that cannot be read.
    BadHost,
    /// 400: a target that is no path.
    BadTarget,
    /// 400: a path that different servers understand differently.
    AmbiguousPath,
    /// 400: a body whose end different servers see in different places.
    AmbiguousLength,
    /// 403: the Origin is refused, and the policy says `disallowed_origins: reject`.
    OriginRejected(Reason),
    /// 404: no service has the host.
    UnknownHost,
    /// 404: the services of the host have no such path.
    UnknownPath,
    /// 405: the path has no route for the method. Holds the value of `Allow`.
    MethodNotAllowed(&'s HeaderValue),
    /// 413
    BodyTooLarge,
    /// 414
    UriTooLong,
    /// 421: the connection was made for another host.
    Misdirected,
    /// 429: one connection too many of this client.
    ClientConnectionLimit,
    /// 431
    HeadersTooLarge,
    /// 503: one connection too many in all.
    ConnectionLimit,
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
        /// [`Refusal::ConnectionLimit`]
        ConnectionLimit = "connection_limit",
        /// [`Refusal::HeadersTooLarge`]
        HeadersTooLarge = "headers_too_large",
    }
}

impl Refusal<'_> {
    /// The status that says it.
    pub fn status(&self) -> StatusCode {
        match self {
            Refusal::BadHost | Refusal::BadTarget | Refusal::AmbiguousPath | Refusal::AmbiguousLength => {
                StatusCode::BAD_REQUEST
            }
            Refusal::OriginRejected(_) => StatusCode::FORBIDDEN,
            Refusal::UnknownHost | Refusal::UnknownPath => StatusCode::NOT_FOUND,
            Refusal::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::UriTooLong => StatusCode::URI_TOO_LONG,
            Refusal::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Refusal::ClientConnectionLimit => StatusCode::TOO_MANY_REQUESTS,
            Refusal::ConnectionLimit => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        }
    }

    /// Code in logs, metrics and explanations.
    pub(crate) const fn code(&self) -> &'static str {
        self.outcome().code()
    }

    /// Result of a request that is refused in this way.
    pub(crate) const fn outcome(&self) -> Outcome {
        Outcome::Refused(match self {
            Refusal::OriginRejected(reason) => return Outcome::Cors(*reason),
            Refusal::BadHost => RefusalCode::BadHost,
            Refusal::BadTarget => RefusalCode::BadTarget,
            Refusal::AmbiguousPath => RefusalCode::AmbiguousPath,
            Refusal::AmbiguousLength => RefusalCode::AmbiguousLength,
            Refusal::UnknownHost => RefusalCode::UnknownHost,
            Refusal::UnknownPath => RefusalCode::UnknownPath,
            Refusal::MethodNotAllowed(_) => RefusalCode::NoRouteForMethod,
            Refusal::BodyTooLarge => RefusalCode::BodyTooLarge,
            Refusal::UriTooLong => RefusalCode::UriTooLong,
            Refusal::Misdirected => RefusalCode::Misdirected,
            Refusal::ClientConnectionLimit => RefusalCode::ClientConnectionLimit,
            Refusal::ConnectionLimit => RefusalCode::ConnectionLimit,
            Refusal::HeadersTooLarge => RefusalCode::HeadersTooLarge,
        })
    }

    /// One line for the client. Never holds anything that the client sent.
    pub(crate) fn explanation(&self) -> &'static str {
        match self {
            Refusal::BadHost => "The request does not name one valid host.\n",
            Refusal::BadTarget => "The request target is not a path.\n",
            Refusal::AmbiguousPath => {
                "The path has dot segments, encoded slashes, backslashes or NULs, which servers understand differently.\n"
            }
            Refusal::AmbiguousLength => {
                "The body needs one Content-Length, or Transfer-Encoding: chunked, and nothing beside it.\n"
            }
            Refusal::OriginRejected(Reason::OriginInvalid) => {
                "Cross-origin request refused: not exactly one well-formed Origin (origin_invalid).\n"
            }
            Refusal::OriginRejected(Reason::OriginNull) => {
                "Cross-origin request refused: the origin null is not allowed (origin_null).\n"
            }
            Refusal::OriginRejected(_) => {
                "Cross-origin request refused: the origin is not allowed (origin_not_allowed).\n"
            }
            Refusal::UnknownHost => "No service has this host.\n",
            Refusal::UnknownPath => "No route has this path.\n",
            Refusal::MethodNotAllowed(_) => "No route of this path takes this method.\n",
            Refusal::BodyTooLarge => "The request body is longer than allowed.\n",
            Refusal::UriTooLong => "The request target is longer than allowed.\n",
            Refusal::Misdirected => {
                "This connection was made for another host: its server name (SNI) and its certificate are not for this one.\n"
            }
            Refusal::ClientConnectionLimit => "This client has as many connections open as it may.\n",
            Refusal::ConnectionLimit => "As many connections are open as may be.\n",
            Refusal::HeadersTooLarge => "The request header is larger than allowed.\n",
        }
    }
}
