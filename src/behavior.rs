//! Behaviors: the changes and checks of a route besides routing and CORS.
//!
//! Each behavior has one file. The file has the keys of the configuration, then the compiled form, then the changes of
//! a header. A new behavior needs a new file here, a field of [`Behaviors`], a key of `config::Service` and
//! `config::Route`, a line in `snapshot::compile::behaviors`, and a row in `tests/it/matrix.rs`. That row tests the
//! behavior together with CORS and with each other behavior.
//!
//! This module is pure. It never writes CORS header fields, because the edits of [`crate::cors`] come last.

pub(crate) mod answer;
pub(crate) mod clients;
pub(crate) mod compression;
pub(crate) mod forward_auth;
pub(crate) mod headers;
pub(crate) mod rate_limit;
pub(crate) mod rewrite;
pub(crate) mod split;
mod template;

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

use self::clients::Clients;
use self::compression::Compression;
use self::forward_auth::{ForwardAuth, PassedOn};
use self::headers::HeaderEdits;
use self::rate_limit::{RateCheck, RateLimit};
use self::rewrite::{Rewrite, UpstreamHost};
use crate::domain::OwnOrigin;

/// All behaviors of a route. The default does nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Behaviors {
    /// Clients that may send requests.
    pub(crate) clients: Option<Arc<Clients>>,
    /// Limit of the number of requests. The routes of a service that inherit the limit share it.
    pub(crate) rate_limit: Option<Arc<RateLimit>>,
    /// The service that decides whether a request continues, and the fields that only this service may set.
    pub(crate) forward_auth: Option<Arc<ForwardAuth>>,
    /// Changes of the path for the upstream.
    pub(crate) rewrite: Option<Arc<Rewrite>>,
    /// The `Host` field for the upstream. None keeps the client's field.
    pub(crate) upstream_host: Option<UpstreamHost>,
    /// Edits of the request header for the upstream.
    pub(crate) request_headers: Option<Arc<HeaderEdits>>,
    /// Edits of each response header.
    pub(crate) response_headers: Option<Arc<HeaderEdits>>,
    /// Compression of the upstream's responses.
    pub(crate) compression: Option<Arc<Compression>>,
}

/// Facts of a request that header values may contain.
pub(crate) trait RequestFacts {
    /// Returns the client's address. Returns None if the address is not known: a Unix-domain socket without PROXY
    /// header.
    fn client_ip(&self) -> Option<IpAddr>;
    /// Returns the origin of the client's URL.
    fn own_origin(&self) -> OwnOrigin<'_>;
    /// Returns the name of the route.
    fn route(&self) -> &str;
    /// Returns the value of `X-Request-Id`.
    fn request_id(&self) -> HeaderValue;
    /// Returns the result of the rate limit. Returns None if the limit was not checked.
    fn rate_check(&self) -> Option<RateCheck> {
        None
    }
    /// Returns the fields that the service of `forward_auth` adds.
    fn passed_on(&self) -> Option<&PassedOn> {
        None
    }
}

/// The sender of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResponseSource {
    Upstream,
    Gateway,
}

impl Behaviors {
    /// Returns true if the route has no behavior.
    pub(crate) fn is_empty(&self) -> bool {
        self.differences(&Behaviors::default(), &|_, _| true).is_empty()
    }

    /// Returns the behaviors that a client must not avoid with another spelling of the path: `clients`, `rate_limit`
    /// and `forward_auth`. Routes that inherit a behavior return the same pointer.
    pub(crate) fn guards(&self) -> [Option<*const ()>; 3] {
        fn identity<T>(guard: Option<&Arc<T>>) -> Option<*const ()> {
            guard.map(|guard| Arc::as_ptr(guard).cast())
        }
        [identity(self.clients.as_ref()), identity(self.rate_limit.as_ref()), identity(self.forward_auth.as_ref())]
    }

    /// Returns the keys of the behaviors that differ. `same_upstream` compares two indices of upstreams, because the
    /// behaviors may belong to two snapshots.
    pub(crate) fn differences(&self, other: &Self, same_upstream: &dyn Fn(usize, usize) -> bool) -> Vec<&'static str> {
        let Behaviors {
            clients,
            rate_limit,
            forward_auth,
            rewrite,
            upstream_host,
            request_headers,
            response_headers,
            compression,
        } = self;
        let same_auth = match (forward_auth, &other.forward_auth) {
            (Some(auth), Some(other)) => auth.is_same(other, same_upstream),
            (auth, other) => auth.is_none() && other.is_none(),
        };
        let differs = [
            ("clients", *clients != other.clients),
            ("rate_limit", *rate_limit != other.rate_limit),
            ("forward_auth", !same_auth),
            ("path", *rewrite != other.rewrite),
            ("upstream_host", *upstream_host != other.upstream_host),
            ("request_headers", *request_headers != other.request_headers),
            ("response_headers", *response_headers != other.response_headers),
            ("compression", *compression != other.compression),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }

    /// Edits a response header. The CORS edits must come after this call.
    pub(crate) fn edit_response(&self, headers: &mut HeaderMap, source: ResponseSource, facts: &impl RequestFacts) {
        if source == ResponseSource::Upstream
            && let Some(rewrite) = &self.rewrite
        {
            rewrite.restore_prefix(headers, facts.own_origin());
        }
        // These cookies are not the upstream's, so they are added after the paths of the upstream's cookies are
        // restored.
        if let Some(passed_on) = facts.passed_on() {
            passed_on.add_to_response(headers);
        }
        if let (Some(limit), Some(check)) = (&self.rate_limit, facts.rate_check()) {
            limit.add_fields(check, headers);
        }
        if let Some(edits) = &self.response_headers {
            edits.apply(headers, facts);
        }
    }
}
