//! The upstream of all policies.

use base64::Engine as _;

use super::request::{Responder, redirected};
use crate::support::upstream::{Received, Reply};

/// An image of one pixel, and a font with an empty character.
const PIXEL: &str = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";
const FONT: &str = "\
    d09GRgABAAAAAAHwAAoAAAAAAiQAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAABPUy8yAAABWAAAACMAAABgQVg/5WNtYXAAAAGAAAAAKQAAADQACwC0\
    Z2x5ZgAAAbAAAAABAAAAAQAAAABoZWFkAAAA9AAAADYAAAA2LXapuGhoZWEAAAEsAAAAGAAAACQAQQBCaG10eAAAAXwAAAAEAAAABABAAABsb2Nh\
    AAABrAAAAAQAAAAEAAAAAG1heHAAAAFEAAAAEwAAACAAAgACbmFtZQAAAbQAAAAtAAAAPACrbwhwb3N0AAAB5AAAAAwAAAAgAAMAAAABAAAAAQAA\
    xYHqWl8PPPUAAwBAAAAAAOcwNkAAAAAA5zA2QAAAAAAAAAAAAAAAAwACAAAAAAAAeJxjYGRgYHBgYICTDAyMDKiAEQAOWQCEeJxjYGRgYABhCGBi\
    QAMAAHwABQB4nGNgZnBgnMDAysDCQBgwInPsgQBIJQIhLqDAwAAAip8CvQAAQAAAeJxjYGBgYmBgYAZiESDJCKZZGBSANAsQgviJ//9DyP/zwXwG\
    AFUwBrwAAAAAAAAAAAAAAHicY2BgYGEwY2BkAAFGMA1hM4F5zAyMLJxAmgkIIWwQiyWtiCGNoQgAF5ECIgAAAHicY2BmwAsAAH0ABA==";

/// Returns the response to a request, by the first folder of its path.
pub(super) fn respond(request: &Received) -> Reply {
    let decoded = |text: &str| base64::prelude::BASE64_STANDARD.decode(text).unwrap();
    if let Some(key) = request.header("Sec-WebSocket-Key") {
        let accept = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
        let accept = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, accept.as_bytes());
        let accept = base64::prelude::BASE64_STANDARD.encode(accept);
        // Firefox opens no WebSocket whose connection ends at once.
        return Reply::switch(format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        ));
    }
    let folder = request.target.split('/').nth(1);
    let (kind, body) = match folder {
        Some("image") => ("image/gif", decoded(PIXEL)),
        Some("font") => ("font/woff", decoded(FONT)),
        Some("module") => ("text/javascript", b"0".to_vec()),
        Some("eventsource") => ("text/event-stream", b"data: 1\n\n".to_vec()),
        _ => ("text/plain", b"text".to_vec()),
    };
    for responder in [Responder::Redirect, Responder::RedirectAway] {
        if responder.folder() == folder {
            let (scheme, host) = (request.header("X-Forwarded-Proto").unwrap(), request.header("Host").unwrap());
            let url = format!("{scheme}://{host}{}", request.target);
            return Reply::new(307).header("Location", &redirected(&url, responder));
        }
    }
    if folder == Some("moved") {
        return Reply::new(200);
    }
    let status = if folder == Some("failing") { 500 } else { 200 };
    Reply::new(status).header("Content-Type", kind).header("X-Total", "7").body(body)
}
