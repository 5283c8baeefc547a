//! The configuration of a request. The request uses all of it until the response begins, and then only a small part.

use std::sync::Arc;

use crate::behavior::forward_auth::AuthService;
use crate::live::{Generation, RouteParts};
use crate::per_thread::Local;
use crate::record::RouteSlot;
use crate::snapshot::{End, Limits, Route, UpstreamId};
use crate::upstream::RunningUpstream;

/// The configuration of one request. A WebSocket or another response can last for days, and reloads may come every
/// minute. If each response kept its whole configuration, the memory would have no bound.
pub(super) enum RequestConfig {
    Complete {
        generation: Local<Generation>,
        /// Position of the route in the snapshot.
        route: Option<u32>,
        /// The upstream of a forwarded request, which always has a route. None if the gateway answers.
        upstream: Option<UpstreamId>,
    },
    /// The part that remains after the response of a forwarded request has begun.
    Reduced(Local<RouteParts>),
}

impl RequestConfig {
    /// Keeps only the part that is needed after the response has begun.
    pub(super) fn reduce(&mut self) {
        if let RequestConfig::Complete { generation, route: Some(route), upstream: Some(upstream) } = self
            && let Some(parts) = generation.parts(*route, *upstream)
        {
            *self = RequestConfig::Reduced(parts);
        }
    }

    /// Removes the upstream, because the gateway refuses the request.
    pub(super) fn refuse(&mut self) {
        if let RequestConfig::Complete { upstream, .. } = self {
            *upstream = None;
        }
    }

    /// Returns the service that decides whether the request continues, and its upstream.
    pub(super) fn auth_service(&self) -> Option<(&AuthService, &Arc<RunningUpstream>)> {
        let RequestConfig::Complete { generation, .. } = self else { return None };
        let service = self.route()?.behaviors.as_ref()?.forward_auth.as_ref()?.service.as_ref()?;
        Some((service, generation.upstream(UpstreamId(service.upstream))))
    }

    /// Returns the number of the configuration.
    pub(super) fn number(&self) -> u64 {
        match self {
            RequestConfig::Complete { generation, .. } => generation.number,
            RequestConfig::Reduced(parts) => parts.number,
        }
    }

    pub(super) fn limits(&self) -> &Arc<Limits> {
        match self {
            RequestConfig::Complete { generation, .. } => generation.snapshot.limits(),
            RequestConfig::Reduced(parts) => &parts.limits,
        }
    }

    /// Returns the route. Returns None if no route was found, or after the response of a forwarded request has begun.
    pub(super) fn route(&self) -> Option<&Route> {
        match self {
            RequestConfig::Complete { generation, route, .. } => Some(generation.snapshot.route((*route)?)),
            RequestConfig::Reduced(_) => None,
        }
    }

    /// Returns the upstream of a forwarded request.
    pub(super) fn upstream(&self) -> Option<&Arc<RunningUpstream>> {
        match self {
            RequestConfig::Complete { generation, upstream, .. } => upstream.map(|id| generation.upstream(id)),
            RequestConfig::Reduced(parts) => Some(&parts.upstream),
        }
    }

    /// Returns the upstream of a forwarded request, if its route has several upstreams.
    pub(super) fn split_upstream(&self) -> Option<&RunningUpstream> {
        let is_split = match self {
            RequestConfig::Complete { .. } => self.route().is_some_and(|route| matches!(route.end, End::Split(_))),
            RequestConfig::Reduced(parts) => parts.is_split,
        };
        self.upstream().filter(|_| is_split).map(|upstream| &**upstream)
    }

    /// Returns the name of the route. Returns None if the request was refused before a route was chosen.
    pub(super) fn route_name(&self) -> Option<&str> {
        match self {
            RequestConfig::Complete { generation, route, .. } => {
                route.map(|route| &*generation.snapshot.route(route).name)
            }
            RequestConfig::Reduced(parts) => Some(parts.slot.name()),
        }
    }

    /// Returns the metrics of the route, or the metrics of requests without a route.
    pub(super) fn metrics(&self) -> &RouteSlot {
        match self {
            RequestConfig::Complete { generation, route, .. } => generation.route_metrics().slot(*route),
            RequestConfig::Reduced(parts) => &parts.slot,
        }
    }
}
