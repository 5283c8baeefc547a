//! Timeouts of a request. The tables show where each timeout is enforced. This module sets the timeouts in the hooks,
//! and enforces the limit for slow request bodies.
//!
//! Timeouts of the client, from `limits`:
//!
//! | key | from | HTTP/1 | HTTP/2 |
//! |---|---|---|---|
//! | `header_timeout` | accept: PROXY header and TLS handshake | `accept` closes | `accept` closes |
//! | | accept: first header | `read::connection` sends 408 | `read::connection` closes |
//! | | first byte of a later header | `read::connection` sends 408 | - |
//! | `keepalive` | last response | `read::connection` closes, through the watchdog's deadline | Pingora's `h2_idle_timeout` |
//! | `body_timeout` | each read of the body | Pingora's read timeout, set in [`on_request_header`]: 408 | the watchdog's idle timeout, set in [`on_forward`]: reset |
//! | | first byte of the body, plus 1 s per KiB received; the bytes between chunks do not count | [`RequestBody::add`]: 408 | [`RequestBody::add`]: 408 |
//! | `send_timeout` | a write that waits | `read::stream` closes | Pingora's write timeout, set in [`on_request_header`]: reset |
//! | `stream_idle` | last activity of the stream | - | the watchdog's idle timeout, set in `read::connection` and [`on_response`]: reset |
//!
//! Timeouts of the upstream, from `timeouts`:
//!
//! | key | from | where |
//! |---|---|---|
//! | `connect`, `read`, `write`, `idle` | each connect, read, write, end of use | Pingora's peer options, set in `upstream::peer`. `read` also runs while the request body arrives: then it is the client's timeout, and `attempts` makes it a 408 |
//! | `total` | first attempt | `attempts` shortens the timeouts of each attempt to the time left: 504. `forward` sets the watchdog's deadline 100 ms later, for what still runs then |
//! | `websocket` | last activity of the WebSocket | Pingora's peer options, set in `attempts`; the watchdog's idle timeout, set in [`on_websocket`] |
//! | `connect` + `read` | first attempt of a WebSocket without `total`, until its 101 | as `total` |
//!
//! At shutdown, [`crate::accept::IDLE_CLOSE_DELAY`] closes connections without a request, and `server.grace_period`
//! ends the process (`process::drain`).

use std::time::{Duration, Instant};

use pingora::protocols::http::ServerSession;
use pingora::{ErrorSource, Result};

use super::response::fail;
use crate::decide::Refusal;
use crate::decide::local_reply::ReplyKind;
use crate::read::{Client, watchdog};
use crate::snapshot::{Limits, Timeouts};

/// Time that is added to `body_timeout` for each received KiB of a request body.
const TIME_PER_KIB: Duration = Duration::from_secs(1);

/// Size and time of a request body, for `limits.body` and `body_timeout`.
#[derive(Debug, Default)]
pub(super) struct RequestBody {
    /// Number of bytes that were received, or replayed for this attempt.
    bytes: u64,
    /// Time of the first received byte, which may be a part of a chunk's size line.
    started_at: Option<Instant>,
}

/// Sets the timeouts after Pingora has parsed the header of a request.
pub(super) fn on_request_header(session: &mut ServerSession, limits: &Limits) {
    if let Some(client) = Client::of(session) {
        client.on_request_header();
    }
    // By default, Pingora has no timeout here. None means that the connection is closed after the response, and this
    // must not change.
    if session.get_keepalive().is_some() {
        session.set_keepalive(Some(limits.keepalive.as_secs().max(1)));
    }
    match session.is_http2() {
        // `read::stream` cannot measure this: a client that receives nothing of one stream may receive other streams.
        true => session.set_write_timeout(Some(limits.send_timeout)),
        false => session.set_read_timeout(Some(limits.body_timeout)),
    }
}

/// Sets the timeouts of a forwarded request. Its body may still be arriving. Pingora has a read timeout for the body
/// only with HTTP/1. The idle timeout also covers the time to connect, in which no body is read.
pub(super) fn on_forward(session: &mut ServerSession, limits: &Limits, timeouts: &Timeouts) {
    if session.is_http2() && !session.is_body_done() {
        watchdog::set_idle(Some(limits.body_timeout.max(timeouts.connect)));
    }
}

/// Sets the timeouts of a request that waits for a node. `longest` is the maximum waiting time.
pub(super) fn on_wait(session: &ServerSession, limits: &Limits, longest: Duration) {
    if session.is_http2() {
        watchdog::set_idle(Some(limits.stream_idle.max(limits.body_timeout).saturating_add(longest)));
    }
}

/// Sets the timeouts after the end of a request. The next bytes of an HTTP/1 connection belong to the next request.
pub(super) fn on_complete_request(session: &ServerSession) {
    if let Some(client) = Client::of(session).filter(|_| !session.is_http2()) {
        client.on_complete_request();
    }
}

/// Sets the timeouts after the end of the request body, or after the arrival of the response header. The client need
/// not send anything any more.
pub(super) fn on_response(session: &ServerSession, limits: &Limits) {
    if session.is_http2() {
        watchdog::set_idle(Some(limits.stream_idle));
    }
}

/// Sets the timeouts after the upstream has accepted the WebSocket. The connection then has no deadline, only an idle
/// timeout.
pub(super) fn on_websocket(session: &mut ServerSession, timeouts: &Timeouts) {
    if let Some(client) = Client::of(session) {
        client.on_websocket();
    }
    session.set_read_timeout(None);
    watchdog::set_deadline(None);
    watchdog::set_idle(Some(timeouts.websocket));
}

// === impl RequestBody ===

impl RequestBody {
    /// Restarts the count for another attempt, because Pingora replays the body from its retry buffer. The time
    /// restarts too, because the node of the first attempt used it, not the client.
    pub(super) fn restart(&mut self) {
        *self = RequestBody::default();
    }

    /// Counts a piece of the body. Fails if the body is too large or too slow. An empty piece is a part of a chunk's
    /// size line or of a trailer. It is not progress, but it can exceed the time.
    pub(super) fn add(&mut self, bytes: usize, limits: &Limits) -> Result<()> {
        self.bytes += bytes as u64;
        if limits.body.is_some_and(|limit| self.bytes > limit) {
            let kind = ReplyKind::Refused(Refusal::BodyTooLarge);
            return fail(kind, ErrorSource::Downstream, "request body longer than limits.body");
        }
        let started_at = *self.started_at.get_or_insert_with(Instant::now);
        if self.is_late(started_at.elapsed(), limits.body_timeout) {
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
    fn another_attempt_restarts_the_count_and_the_time() {
        let mut body = RequestBody { bytes: 7, started_at: Instant::now().checked_sub(Duration::from_secs(60)) };
        body.restart();
        assert_eq!((body.bytes, body.started_at), (0, None));
    }

    #[test]
    fn each_kib_of_a_body_adds_one_second() {
        let late = |bytes, seconds| {
            let body = RequestBody { bytes, started_at: None };
            body.is_late(Duration::from_secs(seconds), Duration::from_secs(30))
        };
        assert!(!late(0, 30) && late(0, 31));
        assert!(!late(1023, 30) && late(1023, 31));
        assert!(!late(10 * 1024, 40) && late(10 * 1024, 41));
        assert!(!late(u64::MAX, u64::from(u32::MAX)));
    }
}
