//! Responses: the gateway's own replies as Pingora writes them, errors as replies, and the upstream's response header
//! made fit for the client's connection. CORS header fields are not set here.

use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_proxy::Session;

use crate::decide::Refusal;
use crate::decide::local_reply::{LocalReply, ReplyKind};
use crate::upstream::failure::is_write_timeout;

/// The replies for which this crate makes an error with [`fail`]. Pingora's errors have no room for more than a status,
/// so the statuses must differ.
const FAILURES: [ReplyKind<'static>; 5] = [
    ReplyKind::RequestTimeout,
    ReplyKind::Refused(Refusal::BodyTooLarge),
    ReplyKind::UpstreamFailed,
    ReplyKind::NoNodeAvailable,
    ReplyKind::UpstreamTimeout,
];

/// The header of a local reply.
pub(super) fn local_reply_header(reply: &LocalReply) -> Result<ResponseHeader> {
    let mut response = ResponseHeader::build(reply.status, Some(12))?;
    reply.fields().try_for_each(|(name, value)| response.insert_header(name, value))?;
    Ok(response)
}

/// Sends a header that ends an HTTP/2 response. gRPC clients read `grpc-status` only from a header that ends the stream;
/// Pingora would end it with a DATA frame. Returns false for HTTP/1.
pub(super) fn end_with_header(session: &mut ServerSession, response: &ResponseHeader) -> Result<bool> {
    match session {
        ServerSession::H2(http2) => http2.write_response_header_ref(response, true).map(|()| true),
        _ => Ok(false),
    }
}

/// Whether a local reply is sent without a body. With HTTP/2, Pingora would send the body of a response to HEAD, and the
/// client would reset the stream.
pub(super) fn is_bodyless(reply: &LocalReply, session: &Session) -> bool {
    reply.text.is_empty() || session.req_header().method == Method::HEAD
}

/// Whether a response comes before the final one (100, 103). 101 is final: after it the connection is no HTTP any more.
pub(super) fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// Ends the request with an error that [`local_reply_to_error`] turns into this reply. `kind` is one of [`FAILURES`].
pub(super) fn fail<T>(kind: ReplyKind<'static>, source: ErrorSource, why: &'static str) -> Result<T> {
    debug_assert!(FAILURES.contains(&kind), "{kind:?} is not in FAILURES");
    let mut error = Error::explain(ErrorType::HTTPStatus(kind.status().as_u16()), why);
    error.esource = source;
    Err(error)
}

/// The upstream's response cannot be passed on.
pub(super) fn reject_response<T>(why: &'static str) -> Result<T> {
    fail(ReplyKind::UpstreamFailed, ErrorSource::Upstream, why)
}

/// The reply to an error. None if the client is gone.
pub(super) fn local_reply_to_error(e: &Error) -> Option<ReplyKind<'static>> {
    use ErrorType::*;
    let kind = match (e.etype(), e.esource()) {
        (HTTPStatus(status), _) => {
            FAILURES.into_iter().find(|kind| kind.status() == *status).unwrap_or(ReplyKind::GatewayError)
        }
        (ConnectTimedout | ReadTimedout | WriteTimedout | TLSHandshakeTimedout, ErrorSource::Upstream) => {
            ReplyKind::UpstreamTimeout
        }
        (_, ErrorSource::Upstream) if is_write_timeout(e) => ReplyKind::UpstreamTimeout,
        (_, ErrorSource::Upstream) => ReplyKind::UpstreamFailed,
        (WriteError | ReadError | ConnectionClosed, ErrorSource::Downstream) => return None,
        (ReadTimedout, ErrorSource::Downstream) => ReplyKind::RequestTimeout,
        (_, ErrorSource::Downstream) => ReplyKind::MalformedRequest,
        (_, ErrorSource::Internal | ErrorSource::Unset) => ReplyKind::GatewayError,
    };
    Some(kind)
}

/// Makes the length of the response body unambiguous (RFC 9112 section 6.3), or rejects the response. Clients interpret
/// contradicting lengths differently, and HTTP/2 clients reset the stream.
pub(super) fn normalize_framing(response: &mut ResponseHeader) -> Result<()> {
    if response.status == StatusCode::NO_CONTENT {
        response.remove_header("content-length");
        response.remove_header("transfer-encoding");
        return Ok(());
    }
    let mut codings = response.headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if codings.next().is_some() || !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
            return reject_response("the upstream sends a transfer coding that is not chunked");
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
        return reject_response("the upstream gives several lengths for one body");
    }
    let length = HeaderValue::from_bytes(&first).unwrap_or(HeaderValue::from_static("0"));
    response.insert_header("Content-Length", length)
}

/// Removes hop-by-hop fields, and the fields that `Connection` lists (RFC 9110 section 7.6.1). `Connection` and
/// `Transfer-Encoding` stay: Pingora replaces them with its own. A 101 keeps `Upgrade`.
pub(super) fn remove_hop_by_hop(response: &mut ResponseHeader) {
    let upgraded = response.status == StatusCode::SWITCHING_PROTOCOLS;
    let is_hop_by_hop = |name: &HeaderName| match name.as_str() {
        "keep-alive" | "proxy-connection" | "proxy-authenticate" | "te" | "trailer" => true,
        "upgrade" => !upgraded,
        _ => false,
    };
    // One pass over the names is cheaper than a lookup of each field that is nearly always missing.
    while let Some(name) = response.headers.keys().find(|name| is_hop_by_hop(name)).cloned() {
        response.remove_header(&name);
    }
    let lists_nothing = |value: &HeaderValue| {
        [&b"keep-alive"[..], b"close"].iter().any(|plain| value.as_bytes().eq_ignore_ascii_case(plain))
    };
    if !response.headers.get_all(header::CONNECTION).iter().all(lists_nothing) {
        let listed: Vec<HeaderName> = (response.headers.get_all(header::CONNECTION).iter())
            .flat_map(|value| value.as_bytes().split(|b| *b == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            .filter(|name| !is_framing(name))
            .collect();
        for name in listed {
            response.remove_header(&name);
        }
    }
}

/// Fields that `Connection` cannot remove: the response would have another length or protocol.
fn is_framing(name: &HeaderName) -> bool {
    [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::UPGRADE, header::CONNECTION].contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_gets_its_own_reply() {
        for kind in FAILURES {
            let error = fail::<()>(kind, ErrorSource::Upstream, "a test").unwrap_err();
            assert_eq!(local_reply_to_error(&error), Some(kind));
        }
    }
}
