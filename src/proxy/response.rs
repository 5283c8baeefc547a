//! Responses: the gateway's own, and what of the upstream's is about another connection than the client's.

use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorSource, ErrorType, Result};

use super::request::on_https;
use crate::snapshot::Refusal;

/// What the gateway answers by itself, without the edits of the request.
pub(super) struct Own {
    pub(super) status: StatusCode,
    /// One line for people; empty for none.
    pub(super) text: &'static str,
    /// One more field.
    pub(super) field: Option<(&'static str, HeaderValue)>,
}

impl Own {
    pub(super) fn refusal(refusal: Refusal<'_>) -> Self {
        let field = match refusal {
            Refusal::MethodNotAllowed(allow) => Some(("Allow", allow.clone())),
            // Connections end when they end; soon is as good a guess as any, and keeps clients from hammering.
            Refusal::Crowded | Refusal::ClientCrowded => Some(("Retry-After", HeaderValue::from_static("1"))),
            _ => None,
        };
        Own { status: refusal.status(), text: refusal.explanation(), field }
    }

    /// The same on https, with the same method (RFC 9110 section 15.4.9).
    pub(super) fn redirect(request: &RequestHeader, port: u16) -> Self {
        match on_https(request, port) {
            Some(location) => Own {
                status: StatusCode::PERMANENT_REDIRECT,
                text: "This is served on https.\n",
                field: Some(("Location", location)),
            },
            None => Own::refusal(Refusal::BadHost),
        }
    }
}

/// A response of the gateway's own, complete but for the request's edits.
pub(super) fn own_response(status: StatusCode, text: &str) -> Result<ResponseHeader> {
    let mut response = ResponseHeader::build(status, Some(12))?;
    if !text.is_empty() {
        response.insert_header("Content-Type", HeaderValue::from_static("text/plain; charset=utf-8"))?;
        response.insert_header("Cache-Control", HeaderValue::from_static("no-store"))?;
    }
    // A 204 must not have a length (RFC 9110 section 8.6); any other status without one would end the connection.
    if status != StatusCode::NO_CONTENT {
        response.insert_header("Content-Length", HeaderValue::from(text.len()))?;
    }
    Ok(response)
}

/// What the client is told. None when there is nobody to tell.
pub(super) fn status_of(e: &Error) -> Option<StatusCode> {
    use ErrorType::*;
    let status = match (e.etype(), e.esource()) {
        (HTTPStatus(code), _) => StatusCode::from_u16(*code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        (ConnectTimedout | ReadTimedout | WriteTimedout | TLSHandshakeTimedout, ErrorSource::Upstream) => {
            StatusCode::GATEWAY_TIMEOUT
        }
        (_, ErrorSource::Upstream) => StatusCode::BAD_GATEWAY,
        (WriteError | ReadError | ConnectionClosed, ErrorSource::Downstream) => return None,
        (ReadTimedout, ErrorSource::Downstream) => StatusCode::REQUEST_TIMEOUT,
        (_, ErrorSource::Downstream) => StatusCode::BAD_REQUEST,
        (_, ErrorSource::Internal | ErrorSource::Unset) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Some(status)
}

pub(super) fn error_text(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_GATEWAY => "The upstream could not be reached or broke off.\n",
        StatusCode::SERVICE_UNAVAILABLE => "No node of the upstream is available.\n",
        StatusCode::GATEWAY_TIMEOUT => "The upstream took too long.\n",
        StatusCode::REQUEST_TIMEOUT => "The request took too long to arrive.\n",
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::BodyTooLarge.explanation(),
        status if status.is_client_error() => "The request could not be understood.\n",
        _ => "The gateway failed.\n",
    }
}

/// How long the body is, a response must say once and clearly (RFC 9112 section 6.3): clients differ in what they make of
/// anything else, and over HTTP/2 they break off.
pub(super) fn settle_length(response: &mut ResponseHeader) -> Result<()> {
    if response.status == StatusCode::NO_CONTENT {
        response.remove_header("content-length");
        response.remove_header("transfer-encoding");
        return Ok(());
    }
    let mut codings = response.headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if codings.next().is_some() || !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
            return refused("the upstream sends a transfer coding that is not chunked");
        }
        response.remove_header("content-length");
        return Ok(());
    }
    let mut lengths = response.headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return Ok(()) };
    if lengths.next().is_none() && !first.as_bytes().contains(&b',') {
        return Ok(());
    }
    let all = response.headers.get_all(header::CONTENT_LENGTH).iter().flat_map(|v| v.as_bytes().split(|b| *b == b','));
    let mut all = all.map(<[u8]>::trim_ascii);
    let first = all.next().unwrap_or_default().to_vec();
    if !all.all(|length| length == first) {
        return refused("the upstream gives several lengths for one body");
    }
    let length = HeaderValue::from_bytes(&first).unwrap_or(HeaderValue::from_static("0"));
    response.insert_header("Content-Length", length)
}

/// A response that cannot be passed on.
pub(super) fn refused<T>(why: &'static str) -> Result<T> {
    let mut error = Error::explain(ErrorType::HTTPStatus(502), why);
    error.esource = ErrorSource::Upstream;
    Err(error)
}

/// Fields about the connection to the upstream, and those that it names as such (RFC 9110 section 7.6.1). `Connection`
/// and `Transfer-Encoding` are Pingora's, which writes its own; an upgrade needs both of its fields.
pub(super) fn remove_hop_by_hop(response: &mut ResponseHeader) {
    static HOP_BY_HOP: [HeaderName; 6] = [
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        header::PROXY_AUTHENTICATE,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
    ];
    let upgraded = response.status == StatusCode::SWITCHING_PROTOCOLS;
    // Most responses have none of them, and one look at the names is cheaper than looking each of them up.
    if response.headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        for name in HOP_BY_HOP.iter().filter(|name| !upgraded || **name != header::UPGRADE) {
            response.remove_header(name);
        }
    }
    let names_nothing = |value: &HeaderValue| {
        [&b"keep-alive"[..], b"close"].iter().any(|plain| value.as_bytes().eq_ignore_ascii_case(plain))
    };
    if !response.headers.get_all(header::CONNECTION).iter().all(names_nothing) {
        let named: Vec<HeaderName> = (response.headers.get_all(header::CONNECTION).iter())
            .flat_map(|value| value.as_bytes().split(|b| *b == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            .filter(|name| !is_framing(name))
            .collect();
        for name in named {
            response.remove_header(&name);
        }
    }
}

/// Fields that `Connection` cannot take away: a response without them would be another one.
fn is_framing(name: &HeaderName) -> bool {
    [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::UPGRADE, header::CONNECTION].contains(name)
}
