//! How long a client may take for its request and its response, as far as Pingora's sessions and the guard see to it.
//! The connection itself watches over headers, and over what HTTP/1 sends.

use std::time::{Duration, Instant};

use pingora::protocols::http::ServerSession;
use pingora::{ErrorSource, Result};

use super::response::fail;
use crate::decide::Refusal;
use crate::decide::local_reply::ReplyKind;
use crate::read::{Client, watchdog};
use crate::snapshot::{Limits, Timeouts};

/// What a KiB of a request body may take on top of `body_timeout`.
const TIME_PER_KIB: Duration = Duration::from_secs(1);

/// The body of a request, as it comes in.
#[derive(Debug, Default)]
pub(super) struct Body {
    /// Of this attempt.
    bytes: u64,
    /// When the first of it came.
    begin: Option<Instant>,
}

/// The header of a request is there.
pub(super) fn request_begins(session: &mut ServerSession, limits: &Limits) {
    if let Some(client) = Client::of(session) {
        client.on_request_header();
    }
    // Pingora would keep an idle connection for ever. A connection that is to be closed must stay so.
    if session.get_keepalive().is_some() {
        session.set_keepalive(Some(limits.keepalive.as_secs().max(1)));
    }
    match session.is_http2() {
        // A client that takes nothing of one stream may well take others.
        true => session.set_write_timeout(Some(limits.send_timeout)),
        false => session.set_read_timeout(Some(limits.body_timeout)),
    }
}

/// A request is forwarded, maybe while its body still comes. HTTP/1 has a timeout for each read; on HTTP/2 it can only be
/// seen that nothing moves.
pub(super) fn request_goes_on(session: &mut ServerSession, limits: &Limits, timeouts: &Timeouts) {
    if session.is_http2() && !session.is_body_done() {
        watchdog::set_idle(Some(limits.body_timeout.max(timeouts.connect)));
    }
}

/// The body is complete, or the upstream answers: from there on the two are talking, and both may think.
pub(super) fn request_is_answered(session: &ServerSession, limits: &Limits) {
    if session.is_http2() {
        watchdog::set_idle(Some(limits.stream_idle));
    }
}

/// The connection is a WebSocket from here on.
pub(super) fn becomes_websocket(session: &mut ServerSession, timeouts: &Timeouts) {
    session.set_read_timeout(None);
    watchdog::set_deadline(None);
    watchdog::set_idle(Some(timeouts.websocket));
}

// === impl Body ===

impl Body {
    /// It begins anew, for another attempt. So does its time: what comes is what was kept, and what took so long was
    /// the node that the first attempt went to.
    pub(super) fn restart(&mut self) {
        *self = Body::default();
    }

    /// Some of it has come.
    pub(super) fn take(&mut self, bytes: usize, limits: &Limits) -> Result<()> {
        // Most requests have no body, and nothing to be late with.
        if bytes == 0 {
            return Ok(());
        }
        self.bytes += bytes as u64;
        if limits.body.is_some_and(|limit| self.bytes > limit) {
            let kind = ReplyKind::Refused(Refusal::BodyTooLarge);
            return fail(kind, ErrorSource::Downstream, "request body longer than limits.body");
        }
        let begin = *self.begin.get_or_insert_with(Instant::now);
        if self.is_late(begin.elapsed(), limits.body_timeout) {
            let why = "request body slower than limits.body_timeout allows";
            return fail(ReplyKind::RequestTimeout, ErrorSource::Downstream, why);
        }
        Ok(())
    }

    fn is_late(&self, elapsed: Duration, timeout: Duration) -> bool {
        let kib = u32::try_from(self.bytes / 1024).unwrap_or(u32::MAX);
        elapsed > timeout.saturating_add(TIME_PER_KIB.saturating_mul(kib))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_attempt_has_its_own_time() {
        let mut body = Body { bytes: 7, begin: Instant::now().checked_sub(Duration::from_secs(60)) };
        body.restart();
        assert_eq!((body.bytes, body.begin), (0, None));
    }

    #[test]
    fn a_body_has_a_second_more_for_each_kib() {
        let late =
            |bytes, seconds| Body { bytes, begin: None }.is_late(Duration::from_secs(seconds), Duration::from_secs(30));
        assert!(!late(0, 30) && late(0, 31));
        assert!(!late(1023, 30) && late(1023, 31));
        assert!(!late(10 * 1024, 40) && late(10 * 1024, 41));
        assert!(!late(u64::MAX, u64::from(u32::MAX)));
    }
}
