//! The configuration that a request uses: all of it until the response begins, then only a small part.

use std::sync::Arc;

use crate::live::Generation;
use crate::record::RouteSlot;
use crate::snapshot::{Limits, Route};
use crate::upstream::RunningUpstream;

/// The configuration of one request. A WebSocket or another response can last for days, and reloads may come every
/// minute: if each kept its whole configuration, the memory would have no bound.
pub(super) enum RequestConfig {
    Complete {
        generation: Arc<Generation>,
        /// Position of the route in the snapshot.
        route: Option<u32>,
        /// Whether the request is forwarded. If so, it has a route.
        forwarded: bool,
    },
    /// What is needed after the response has begun: for the rest of the request body, for the log and for metrics.
    Reduced {
        generation: u64,
        has_route: bool,
        metrics: Arc<RouteSlot>,
        /// None if the request is not forwarded.
        upstream: Option<Arc<RunningUpstream>>,
        limits: Arc<Limits>,
    },
}

impl RequestConfig {
    /// The response has begun.
    pub(super) fn reduce(&mut self) {
        if let RequestConfig::Complete { generation, route, .. } = self {
            *self = RequestConfig::Reduced {
                generation: generation.number,
                has_route: route.is_some(),
                metrics: generation.route_metrics().slot(*route).clone(),
                upstream: self.upstream().cloned(),
                limits: self.limits().clone(),
            };
        }
    }

    /// Number of the configuration.
    pub(super) fn number(&self) -> u64 {
        match self {
            RequestConfig::Complete { generation, .. } => generation.number,
            RequestConfig::Reduced { generation, .. } => *generation,
        }
    }

    pub(super) fn limits(&self) -> &Arc<Limits> {
        match self {
            RequestConfig::Complete { generation, .. } => generation.snapshot.limits(),
            RequestConfig::Reduced { limits, .. } => limits,
        }
    }

    /// Route of a forwarded request. None after the response has begun.
    pub(super) fn forwarded_route(&self) -> Option<&Route> {
        match self {
            RequestConfig::Complete { generation, route, forwarded: true } => {
                Some(generation.snapshot.route((*route)?))
            }
            _ => None,
        }
    }

    /// Upstream of a forwarded request.
    pub(super) fn upstream(&self) -> Option<&Arc<RunningUpstream>> {
        match self {
            RequestConfig::Complete { generation, .. } => {
                self.forwarded_route().map(|route| generation.upstream(route.upstream))
            }
            RequestConfig::Reduced { upstream, .. } => upstream.as_ref(),
        }
    }

    /// Name of the route; None if the request was refused before a route was chosen.
    pub(super) fn route_name(&self) -> Option<&str> {
        match self {
            RequestConfig::Complete { generation, route, .. } => {
                route.map(|route| &*generation.snapshot.route(route).name)
            }
            RequestConfig::Reduced { metrics, has_route, .. } => has_route.then(|| metrics.name()),
        }
    }

    /// Metrics of the route, or those of requests without a route.
    pub(super) fn metrics(&self) -> &RouteSlot {
        match self {
            RequestConfig::Complete { generation, route, .. } => generation.route_metrics().slot(*route),
            RequestConfig::Reduced { metrics, .. } => metrics,
        }
    }
}
