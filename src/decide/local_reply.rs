//! What the gateway answers by itself: status, one line for people, and the fields that go with it. Nothing of CORS is
//! here: every response gets that alike, from the edits of its request.

use http::{HeaderValue, StatusCode};

use super::{Action, Refusal};
use crate::domain::split_port;

/// A response of the gateway's own, complete but for the edits of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LocalReply {
    /// Its status.
    pub(crate) status: StatusCode,
    /// The body, one line for people; empty for none.
    pub(crate) text: &'static str,
    /// One field that only some have.
    more: Option<(&'static str, HeaderValue)>,
}

impl LocalReply {
    /// What an action answers; None when the upstream does. `asked` gives authority and target of the request, as the
    /// client wrote them.
    pub(crate) fn to<'a>(action: Action<'_>, asked: impl FnOnce() -> (&'a [u8], &'a [u8])) -> Option<Self> {
        match action {
            Action::Forward(_) => None,
            Action::AnswerPreflight(status) => Some(LocalReply { status, text: "", more: None }),
            Action::Redirect(port) => {
                let (authority, target) = asked();
                Some(Self::redirect(authority, target, port))
            }
            Action::Refuse(refusal) => Some(Self::refusal(refusal)),
        }
    }

    /// For a request that cannot be served after all, mostly because of its upstream.
    pub(crate) fn failure(status: StatusCode) -> Self {
        let text = match status {
            StatusCode::BAD_GATEWAY => "The upstream could not be reached or broke off.\n",
            StatusCode::SERVICE_UNAVAILABLE => "No node of the upstream is available.\n",
            StatusCode::GATEWAY_TIMEOUT => "The upstream took too long.\n",
            StatusCode::REQUEST_TIMEOUT => "The request took too long to arrive.\n",
            StatusCode::PAYLOAD_TOO_LARGE => Refusal::BodyTooLarge.explanation(),
            status if status.is_client_error() => "The request could not be understood.\n",
            _ => "The gateway failed.\n",
        };
        LocalReply { status, text, more: None }
    }

    /// Its fields, in their order.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'static str, HeaderValue)> {
        let text = (!self.text.is_empty()).then_some([
            ("Content-Type", HeaderValue::from_static("text/plain; charset=utf-8")),
            ("Cache-Control", HeaderValue::from_static("no-store")),
        ]);
        // A 204 must not have a length (RFC 9110 section 8.6); any other status without one would end the connection.
        let length = match self.text.len() {
            // That of every preflight.
            0 => HeaderValue::from_static("0"),
            length => HeaderValue::from(length),
        };
        let length = (self.status != StatusCode::NO_CONTENT).then_some(("Content-Length", length));
        text.into_iter().flatten().chain(length).chain(self.more.clone())
    }

    fn refusal(refusal: Refusal<'_>) -> Self {
        let more = match refusal {
            Refusal::MethodNotAllowed(allow) => Some(("Allow", allow.clone())),
            // Connections end when they end; soon is as good a guess as any, and keeps clients from hammering.
            Refusal::ConnectionLimit | Refusal::ClientConnectionLimit => {
                Some(("Retry-After", HeaderValue::from_static("1")))
            }
            _ => None,
        };
        LocalReply { status: refusal.status(), text: refusal.explanation(), more }
    }

    /// The same on https, with the same method (RFC 9110 section 15.4.9). The host is one that a route has.
    fn redirect(authority: &[u8], target: &[u8], port: u16) -> Self {
        let location = std::str::from_utf8(authority).ok().and_then(|authority| {
            let (host, _) = split_port(authority);
            let target = if target.starts_with(b"/") { target } else { b"/" };
            let port = if port == 443 { String::new() } else { format!(":{port}") };
            HeaderValue::from_bytes(&[b"https://", host.as_bytes(), port.as_bytes(), target].concat()).ok()
        });
        match location {
            Some(location) => LocalReply {
                status: StatusCode::PERMANENT_REDIRECT,
                text: "This is served on https.\n",
                more: Some(("Location", location)),
            },
            None => Self::refusal(Refusal::BadHost),
        }
    }
}
