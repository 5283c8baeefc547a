//! Responses: the gateway's own, and what of the upstream's is about another connection than the client's.

use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora::http::ResponseHeader;
use pingora::{Error, ErrorSource, ErrorType, Result};

use crate::decide::local_reply::LocalReply;

/// An answer of the gateway's own, as Pingora writes it.
pub(super) fn own_response(answer: &LocalReply) -> Result<ResponseHeader> {
    let mut response = ResponseHeader::build(answer.status, Some(12))?;
    for (name, value) in answer.fields() {
        response.insert_header(name, value)?;
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

/// How long the body is, a response must say once and clearly (RFC 9112 section 6.3): clients differ in what they make of
/// anything else, and over HTTP/2 they break off.
pub(super) fn normalize_framing(response: &mut ResponseHeader) -> Result<()> {
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
    let upgraded = response.status == StatusCode::SWITCHING_PROTOCOLS;
    let is_hop_by_hop = |name: &HeaderName| match name.as_str() {
        "keep-alive" | "proxy-connection" | "proxy-authenticate" | "te" | "trailer" => true,
        "upgrade" => !upgraded,
        _ => false,
    };
    // One look at each name is cheaper than looking up the ones that nearly no response has.
    while let Some(name) = response.headers.keys().find(|name| is_hop_by_hop(name)).cloned() {
        response.remove_header(&name);
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
