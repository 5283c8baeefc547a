//! Responses: the gateway's own replies, replies to errors, and changes of the upstream's response header for the
//! client's connection.

use std::mem;

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_proxy::Session;

use super::auth::AuthResponse;
use crate::behavior::forward_auth::adapt_refusal;
use crate::decide::Refusal;
use crate::decide::local_reply::{LocalReply, ReplyKind};
use crate::upstream::failure::is_write_timeout;

/// The replies for which [`fail`] makes an error. A Pingora error can only carry a status, so these replies have
/// different statuses.
const FAILURES: [ReplyKind<'static>; 5] = [
    ReplyKind::RequestTimeout,
    ReplyKind::Refused(Refusal::BodyTooLarge),
    ReplyKind::UpstreamFailed,
    ReplyKind::NoNodeAvailable,
    ReplyKind::UpstreamTimeout,
];

/// A reply of the gateway as Pingora sends it. It contains the header edits for its request.
pub(super) struct LocalResponse {
    header: ResponseHeader,
    body: Bytes,
}

impl LocalResponse {
    /// Builds a reply. `edit` applies the header edits for the request.
    pub(super) fn new(reply: LocalReply, edit: impl FnOnce(&mut HeaderMap)) -> Self {
        let mut header = http::Response::new(()).into_parts().0;
        header.status = reply.status;
        // The number includes the fields that Pingora adds.
        header.headers.reserve(12);
        reply.each_field(|name, value| drop(header.headers.insert(name, value)));
        edit(&mut header.headers);
        LocalResponse { header: header.into(), body: reply.body }
    }

    /// Builds a refusal of the service of `forward_auth`. `edit` applies the header edits for the request.
    pub(super) fn of_service(refusal: AuthResponse, edit: impl FnOnce(&mut HeaderMap)) -> Self {
        let AuthResponse { mut header, body, .. } = refusal;
        header.version = Version::HTTP_11;
        header.headers.remove(header::CONNECTION);
        header.headers.remove(header::TRANSFER_ENCODING);
        header.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        adapt_refusal(&mut header.headers);
        edit(&mut header.headers);
        LocalResponse { header: header.into(), body }
    }

    /// Sends the reply to the client.
    pub(super) async fn send(self, session: &mut Session) -> Result<()> {
        let bodyless = self.is_bodyless(session);
        if bodyless && end_with_header(session.as_downstream_mut(), &self.header)? {
            return Ok(());
        }
        session.write_response_header(Box::new(self.header), bodyless).await?;
        match bodyless {
            true => Ok(()),
            false => session.write_response_body(Some(self.body), true).await,
        }
    }

    /// Sends the reply after a failure. Pingora closes an HTTP/1 connection if it has not read the whole request.
    pub(super) async fn send_error(self, session: &mut Session) -> Result<()> {
        let bodyless = self.is_bodyless(session);
        let session = session.as_downstream_mut();
        if bodyless && end_with_header(session, &self.header)? {
            return Ok(());
        }
        let body = if bodyless { Bytes::new() } else { self.body };
        session.write_error_response(self.header, body).await
    }

    /// Returns true if the reply is sent without a body. With HTTP/2, Pingora would send the body of a response to
    /// HEAD, and the client would reset the stream.
    fn is_bodyless(&self, session: &Session) -> bool {
        self.body.is_empty() || session.req_header().method == Method::HEAD
    }
}

/// Sends a header that ends an HTTP/2 response. Pingora would end the stream with a DATA frame, but gRPC clients read
/// `grpc-status` only from a header that ends the stream. Returns false for HTTP/1.
fn end_with_header(session: &mut ServerSession, response: &ResponseHeader) -> Result<bool> {
    match session {
        ServerSession::H2(http2) => http2.write_response_header_ref(response, true).map(|()| true),
        _ => Ok(false),
    }
}

/// Changes a response header of the upstream. The methods of Pingora also update a second map with the case of the
/// names, which is as large as the upstream's header. The response loses that map here, so its names are sent in lower
/// case, as in HTTP/2 (RFC 9113 section 8.2.1). Only a few names are sent in the case that Pingora chooses.
pub(super) fn change_response(
    response: &mut ResponseHeader,
    change: impl FnOnce(&mut Parts) -> Result<()>,
) -> Result<()> {
    let reason = response.get_reason_phrase().filter(|reason| Some(*reason) != response.status.canonical_reason());
    let reason = reason.map(str::to_owned);
    let empty = ResponseHeader::from(http::Response::new(()).into_parts().0);
    let mut parts = Parts::from(mem::replace(response, empty));
    let result = change(&mut parts);
    *response = parts.into();
    if reason.is_some() {
        response.set_reason_phrase(reason.as_deref())?;
    }
    result
}

/// Returns true for a response before the final one (100, 103). 101 is final, because the connection uses another
/// protocol after it.
pub(super) fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// Ends the request with an error that [`local_reply_to_error`] converts to this reply. `kind` must be in [`FAILURES`].
pub(super) fn fail<T>(kind: ReplyKind<'static>, source: ErrorSource, why: &'static str) -> Result<T> {
    debug_assert!(FAILURES.contains(&kind), "{kind:?} is not in FAILURES");
    let mut error = Error::explain(ErrorType::HTTPStatus(kind.status().as_u16()), why);
    error.esource = source;
    Err(error)
}

/// Ends the request because every node has `max_connections` requests.
pub(super) fn refuse_full<T>(why: &'static str) -> Result<T> {
    let status = ReplyKind::Refused(Refusal::UpstreamFull).status().as_u16();
    // Without this type, the error would mean [`ReplyKind::NoNodeAvailable`], which has the same status.
    let mut error = Error::explain(ErrorType::CustomCode("UpstreamFull", status), why);
    error.esource = ErrorSource::Upstream;
    Err(error)
}

/// Ends the request because the upstream's response cannot be forwarded.
pub(super) fn reject_response<T>(why: &'static str) -> Result<T> {
    fail(ReplyKind::UpstreamFailed, ErrorSource::Upstream, why)
}

/// Returns the reply to an error. Returns None if the client has closed its connection.
pub(super) fn local_reply_to_error(e: &Error) -> Option<ReplyKind<'static>> {
    use ErrorType::*;
    let kind = match (e.etype(), e.esource()) {
        (HTTPStatus(status), _) => {
            FAILURES.into_iter().find(|kind| kind.status() == *status).unwrap_or(ReplyKind::GatewayError)
        }
        (CustomCode(..), _) => ReplyKind::Refused(Refusal::UpstreamFull),
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
/// contradictory lengths differently, and HTTP/2 clients reset the stream.
pub(super) fn normalize_framing(response: &mut Parts) -> Result<()> {
    if response.status == StatusCode::NO_CONTENT {
        response.headers.remove(header::CONTENT_LENGTH);
        response.headers.remove(header::TRANSFER_ENCODING);
        return Ok(());
    }
    let mut codings = response.headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if codings.next().is_some() || !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
            return reject_response("the upstream sends a transfer coding that is not chunked");
        }
        response.headers.remove(header::CONTENT_LENGTH);
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
    response.headers.insert(header::CONTENT_LENGTH, length);
    Ok(())
}

/// Removes hop-by-hop fields, and the fields that `Connection` lists (RFC 9110 section 7.6.1). `Connection` and
/// `Transfer-Encoding` stay, because Pingora replaces them. `Upgrade` stays in a 101.
pub(super) fn remove_hop_by_hop(response: &mut Parts) {
    let upgraded = response.status == StatusCode::SWITCHING_PROTOCOLS;
    let is_hop_by_hop = |name: &HeaderName| match name.as_str() {
        "keep-alive" | "proxy-connection" | "proxy-authenticate" | "te" | "trailer" => true,
        "upgrade" => !upgraded,
        _ => false,
    };
    // One pass over the names is faster than a lookup of each field, because nearly all of these fields are missing.
    while let Some(name) = response.headers.keys().find(|name| is_hop_by_hop(name)).cloned() {
        response.headers.remove(&name);
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
            response.headers.remove(&name);
        }
    }
}

/// Returns true for fields that `Connection` cannot remove, because the response would get another length or protocol.
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
