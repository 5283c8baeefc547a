//! Reads lines of the access log in its JSON format.

use std::borrow::Cow;

use serde::Deserialize;

use super::{Asked, PoliciesInForce, Sighting, Tally};
use crate::cors::{MAX_ORIGIN, Reason};
use crate::domain::{OwnOrigin, Scheme};

/// The fields that this module reads. Other fields are ignored.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    scheme: Cow<'a, str>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    host: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    forwarded_host: Option<Cow<'a, str>>,
    #[serde(borrow)]
    route: Option<Cow<'a, str>>,
    #[serde(borrow)]
    cors: Cow<'a, str>,
    #[serde(borrow)]
    origin: Option<Cow<'a, str>>,
    #[serde(borrow)]
    reason: Cow<'a, str>,
}

/// Kind of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineKind {
    /// Not a JSON line of the access log.
    Malformed,
    /// A valid line. It is not counted if it has no Origin or no policy, or if the request was refused for another
    /// reason than CORS.
    Read,
    /// A cross-origin request whose route does not exist in this configuration, or has no policy in it.
    UnknownRoute,
}

/// Parses a line and counts its request.
pub(crate) fn count(line: &str, policies: &PoliciesInForce, tally: &mut Tally) -> LineKind {
    let Ok(line) = serde_json::from_str::<Line<'_>>(line) else { return LineKind::Malformed };
    let is_preflight = line.cors == "preflight";
    let (Some(scheme), true) = (Scheme::parse(&line.scheme), is_preflight || line.cors == "actual") else {
        return LineKind::Malformed;
    };
    // None for the codes of refusals that are not about CORS.
    let reason = Reason::ALL.into_iter().find(|reason| reason.code() == line.reason);
    let (Some(reason), Some(route), Some(origin)) = (reason, &line.route, &line.origin) else { return LineKind::Read };
    if matches!(reason, Reason::NoPolicy | Reason::NoOrigin) {
        return LineKind::Read;
    }
    let Some(policy) = policies.position(route) else { return LineKind::UnknownRoute };
    let authority = line.forwarded_host.as_deref().or(line.host.as_deref()).unwrap_or_default();
    let is_plain = origin.len() <= MAX_ORIGIN && origin.bytes().all(|b| b.is_ascii_graphic() && b != b',');
    let is_own = OwnOrigin::of(scheme, authority).is(origin);
    let sighting = Sighting {
        policy,
        origin: Some(&**origin).filter(|_| is_plain),
        asked: if is_preflight { Asked::Preflight(None) } else { Asked::Actual(line.method.as_deref()) },
        reason: if is_own { Reason::SameOrigin } else { reason },
        cookies: false,
        authorization: false,
        needs_permission: true,
    };
    tally.count(&sighting, std::iter::empty());
    LineKind::Read
}
