//! Keeps or closes the connection of an HTTP/1 client after an early response of an HTTP/2 upstream. A response is
//! early if the upstream sends it before it has the whole request body.
//!
//! The upstream may end the stream with RST_STREAM(NO_ERROR) after its response (RFC 9113 section 8.1). Pingora 0.9.1
//! (`bidirection_down_to_up`) then fails to send the rest of the body. It closes the client's connection after the
//! response without `Connection: close`, so the next request of the client is lost. Pingora calls no hook for this
//! failure. So this module finishes the connection after each early response.

use std::io::Cursor;
use std::mem;

use pingora::apps::{HttpPersistentSettings, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v1::server::HttpSession;
use pingora::time::timeout;
use pingora_proxy::Session;

use crate::read::{Client, LINGERING_CLOSE_BYTES, LINGERING_CLOSE_TIMEOUT};

/// Keeps or closes the client's connection after a complete response of an HTTP/2 upstream.
pub(super) async fn finish_connection(session: &mut Session) {
    let ServerSession::H1(http1) = session.as_downstream_mut() else { return };
    if http1.was_upgraded() || http1.is_body_empty() {
        return;
    }
    if !http1.is_body_done() {
        // The response has `Connection: close`.
        let _ = timeout(LINGERING_CLOSE_TIMEOUT, discard_body(http1)).await;
        return;
    }
    if !http1.will_keepalive() {
        return;
    }
    let Some(client) = Client::of(session.as_downstream()).cloned() else { return };
    let settings = HttpPersistentSettings::for_session(session.as_downstream());
    // Pingora finishes this placeholder instead, and does not reuse it.
    let placeholder = ServerSession::new_http1(Box::new(Cursor::new(Vec::new())));
    let finished = mem::replace(session.as_downstream_mut(), placeholder);
    if let Ok(Some(stream)) = finished.finish().await {
        client.keep(ReusedHttpStream::from_reusable_stream(stream, settings));
    }
}

/// Lingering close: reads and discards the rest of the request body.
async fn discard_body(session: &mut HttpSession) {
    session.shutdown().await;
    let mut left = LINGERING_CLOSE_BYTES;
    while let Ok(Some(read)) = session.read_body_bytes().await {
        match left.checked_sub(read.len()) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
