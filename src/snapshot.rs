//! A configuration, compiled: everything that requests read, and nothing that can still fail.
//!
//! [`load`] is the only way from text to a snapshot; start, reload and `check` all take it.
//! Nothing ever goes back from here to the [`Document`].

mod compile;
mod load;
mod settings;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use self::load::{CompileEnv, Loaded, load};
pub(crate) use self::settings::*;

use crate::config::{Cors, Document};
use crate::cors::Policy;
use crate::forwarded::TrustedProxies;
use crate::problem::{KeyPath, PathStep};
use crate::route::{HostPattern, RouteMatch, Routes};

/// A compiled configuration. Immutable; a reload makes a new one.
#[derive(Debug)]
pub struct Snapshot {
    table: Routes<RouteId, Option<Arc<Policy>>>,
    routes: Vec<Route>,
    upstreams: Vec<Upstream>,
    listeners: Vec<Arc<Listener>>,
    trusted_proxies: TrustedProxies,
    /// For hosts that no service has.
    default_policy: Option<Arc<Policy>>,
    limits: Limits,
    access_log: Option<AccessLog>,
    admin_hosts: Vec<HostPattern>,
    debug_header: bool,
    startup: StartupSettings,
}

/// A route, with all that was inherited.
#[derive(Debug, Clone)]
pub struct Route {
    /// `service/route`, for logs and metrics.
    pub(crate) name: Arc<str>,
    /// None: no CORS handling.
    pub(crate) policy: Option<Arc<Policy>>,
    /// Where requests go.
    pub(crate) upstream: UpstreamId,
    /// What is cut off the front of the path.
    pub(crate) strip_prefix: Option<Box<str>>,
    /// Where it stands in the file.
    pub(crate) place: RoutePlace,
    /// The nearest `cors`, which counts for it; None when there is none at any level.
    pub(crate) cors: Option<CorsPlace>,
}

/// Where a route stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RoutePlace {
    /// Position of the service.
    pub(crate) service: u32,
    /// Position of the route in it; None for the one that a service without routes has.
    pub(crate) route: Option<u32>,
}

/// Which `cors` counts for a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CorsPlace {
    /// Where the key stands.
    pub(crate) level: Level,
    /// The named policy that it chooses; None when it is written in place, or `false`.
    pub(crate) name: Option<Arc<str>>,
}

/// A place where `cors` can stand, from far to near.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// At the top of the file.
    Top,
    /// At a service.
    Service,
    /// At a route.
    Route,
}

/// Position of an upstream in [`Snapshot::upstreams`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UpstreamId(pub usize);

/// Position of a route in the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RouteId(pub(crate) u32);

/// What only a restart can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartupSettings {
    /// Where clients connect, at least one; and whether in TLS.
    pub listeners: Vec<(SocketAddr, bool)>,
    /// Where operators connect; None: nowhere.
    pub admin: Option<SocketAddr>,
    /// Threads that serve requests; 0 = one per core.
    pub(crate) threads: usize,
    /// The longest that SIGTERM waits.
    pub grace_period: Duration,
    /// How long SIGTERM goes on accepting.
    pub drain_delay: Duration,
    /// Where SIGQUIT hands the sockets over; None: a place that the process finds.
    pub(crate) upgrade_socket: Option<Box<str>>,
}

// === impl Snapshot ===

impl Snapshot {
    /// The routes of a path, and the policy of its host.
    pub(crate) fn find(&self, host: &str, path: &[u8]) -> RouteMatch<'_, RouteId, Option<Arc<Policy>>> {
        self.table.find(host, path)
    }

    /// The policy for responses of the gateway to a host that no service has.
    pub(crate) fn default_policy(&self) -> Option<&Policy> {
        self.default_policy.as_deref()
    }

    /// The policy for responses of the gateway to a host, when no route of the host is behind them.
    pub(crate) fn host_policy(&self, host: &str) -> Option<&Policy> {
        match self.table.carried(host) {
            Some(policy) => policy.as_deref(),
            None => self.default_policy(),
        }
    }

    /// Whether responses say in `X-Corsgate-Reason` how they were decided.
    pub(crate) fn debug_header(&self) -> bool {
        self.debug_header
    }

    /// A route by the position that a verdict gave.
    pub fn route(&self, index: u32) -> &Route {
        &self.routes[index as usize]
    }

    /// All routes, in the order of the file.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// All upstreams that some route uses.
    pub fn upstreams(&self) -> &[Upstream] {
        &self.upstreams
    }

    /// Where clients connect, in the order of the file.
    pub(crate) fn listeners(&self) -> &[Arc<Listener>] {
        &self.listeners
    }

    /// The listener behind a local address, which a listener on an unspecified address has many of.
    pub(crate) fn listener(&self, local: SocketAddr) -> Option<&Arc<Listener>> {
        let found = || self.listeners.iter().filter(|listener| listener.serves(local));
        found().find(|listener| !listener.address.ip().is_unspecified()).or_else(|| found().next())
    }

    /// Whose word about a client is believed.
    pub(crate) fn trusted_proxies(&self) -> &TrustedProxies {
        &self.trusted_proxies
    }

    /// What a client may do.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// One line for each request; None: none.
    pub(crate) fn access_log(&self) -> Option<&AccessLog> {
        self.access_log.as_ref()
    }

    /// Names by which the admin listener may be asked, beside addresses and `localhost`.
    pub(crate) fn admin_hosts(&self) -> &[HostPattern] {
        &self.admin_hosts
    }

    /// What only a restart can change.
    pub fn startup(&self) -> &StartupSettings {
        &self.startup
    }
}

// === impl StartupSettings, Route ===

impl StartupSettings {
    /// The keys in which two configurations differ that only a restart can change.
    pub(crate) fn differences(&self, new: &StartupSettings) -> Vec<&'static str> {
        let StartupSettings { listeners, admin, threads: _, grace_period: _, drain_delay: _, upgrade_socket: _ } = self;
        let mut keys = Vec::new();
        if *listeners != new.listeners {
            keys.push("listeners");
        }
        if *admin != new.admin {
            keys.push("admin");
        }
        let server = |settings: &StartupSettings| {
            (settings.threads, settings.grace_period, settings.drain_delay, settings.upgrade_socket.clone())
        };
        if server(self) != server(new) {
            keys.push("server");
        }
        keys
    }
}

impl Route {
    /// Where it stands: `services[0].routes[1]`.
    pub(crate) fn at(&self) -> KeyPath {
        self.place.at(Level::Route)
    }

    /// Where the `cors` stands that counts for it, be it a policy, the name of one, or `false`.
    pub(crate) fn cors_at(&self) -> Option<KeyPath> {
        let mut at = self.place.at(self.cors.as_ref()?.level);
        at.0.push(PathStep::Key("cors".into()));
        Some(at)
    }

    /// Where its policy is written; None without one.
    pub(crate) fn policy_at(&self) -> Option<KeyPath> {
        self.policy.as_ref()?;
        match &self.cors.as_ref()?.name {
            Some(name) => Some(KeyPath(vec![PathStep::Key("cors_policies".into()), PathStep::Key(name.to_string())])),
            None => self.cors_at(),
        }
    }
}

impl RoutePlace {
    /// The `cors` of a level, as a document has it for this route; None: there is none.
    pub(crate) fn cors(self, document: &Document, level: Level) -> Option<&Cors> {
        let service = || document.services.as_ref()?.get(self.service as usize);
        match level {
            Level::Top => document.cors.as_ref(),
            Level::Service => service()?.cors.as_ref(),
            Level::Route => service()?.routes.as_ref()?.get(self.route? as usize)?.cors.as_ref(),
        }
    }

    /// What of a level this route is in: the whole file, its service, or itself.
    pub(crate) fn at(self, level: Level) -> KeyPath {
        let RoutePlace { service, route } = self;
        let mut steps = Vec::new();
        if level >= Level::Service {
            steps.extend([PathStep::Key("services".into()), PathStep::Index(service as usize)]);
        }
        if let (Level::Route, Some(route)) = (level, route) {
            steps.extend([PathStep::Key("routes".into()), PathStep::Index(route as usize)]);
        }
        KeyPath(steps)
    }
}
