//! A compiled configuration: all settings that requests read. A request cannot fail because of an invalid setting.
//!
//! Only [`load`] makes a snapshot from a text; start, reload and `check` use it. No code converts a snapshot back to a
//! [`Document`].

mod compile;
mod load;
mod settings;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use self::load::{CompileEnv, Loaded, load};
pub(crate) use self::load::{extend_with_causes, load_with_document};
pub use self::settings::Address;
pub(crate) use self::settings::*;

use crate::behavior::Behaviors;
use crate::behavior::answer::Answer;
use crate::behavior::split::Split;
use crate::config::environment::FilledText;
use crate::config::{Cors, Document};
use crate::cors::Policy;
use crate::problem::{KeyPath, PathStep};
use crate::route::{HostPattern, RouteMatch, Routes};
use crate::trusted_proxies::TrustedProxies;

/// A compiled configuration. It is immutable; a reload makes a new one.
#[derive(Debug)]
pub struct Snapshot {
    table: Routes<RouteId, Option<Arc<Policy>>>,
    routes: Vec<Route>,
    upstreams: Vec<Upstream>,
    listeners: Vec<Arc<Listener>>,
    trusted_proxies: TrustedProxies,
    underscores_in_headers: UnderscoresInHeaders,
    /// The policy for hosts that no service has.
    default_policy: Option<Arc<Policy>>,
    limits: Arc<Limits>,
    access_log: Option<AccessLog>,
    admin_hosts: Vec<HostPattern>,
    admin_write: Option<AdminWrite>,
    debug_header: bool,
    has_guards: bool,
    startup: StartupSettings,
    /// The text with the values of its variables. None if it has no variables.
    filled: Option<FilledText>,
}

/// A route with all inherited settings.
#[derive(Debug, Clone)]
pub struct Route {
    /// `service/route`, for logs and metrics.
    pub(crate) name: Arc<str>,
    /// The policy in force. None: no CORS handling.
    pub(crate) policy: Option<Arc<Policy>>,
    /// A policy that is compared with `policy` and never applied. It is separate from `policy`, so that routes with the
    /// same policy give the same answers to preflights, with or without `report_only`.
    pub(crate) report_only: Option<Arc<Policy>>,
    pub(crate) end: End,
    /// Behaviors besides routing and CORS. None if there are none. Routes without own behaviors share those of their
    /// service.
    pub(crate) behaviors: Option<Arc<Behaviors>>,
    pub(crate) place: RoutePlace,
    /// The `cors` key that applies: the nearest one. None if no level has one.
    pub(crate) cors: Option<CorsPlace>,
    /// Whether the methods of the route include HEAD on one of its paths: listed, or implied by GET.
    pub(crate) takes_head: bool,
}

/// Destination of the requests of a route.
#[derive(Debug, Clone)]
pub(crate) enum End {
    Upstream(UpstreamId),
    /// Several upstreams share the requests.
    Split(Arc<SplitEnd>),
    /// The gateway answers the requests.
    Answer(Arc<Answer>),
}

/// Several upstreams that share the requests of a route.
#[derive(Debug)]
pub(crate) struct SplitEnd {
    pub(crate) split: Split<UpstreamId>,
    /// Property of a request: requests with the same value go to the same upstream. None: the upstream of each request
    /// is random.
    pub(crate) sticky: Option<HashOn>,
}

/// The place of a route in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RoutePlace {
    /// Index of the service.
    pub(crate) service: u32,
    /// Index of the route in the service. None for the only route of a service without `routes`.
    pub(crate) route: Option<u32>,
}

/// The `cors` key that applies to a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CorsPlace {
    /// The level at which the key is.
    pub(crate) level: Level,
    /// The name of the policy; None for an inline policy and for `false`.
    pub(crate) name: Option<Arc<str>>,
}

/// A level at which `cors` can be set. Later variants have precedence over earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The top level of the file: the key is for all services.
    Top,
    /// A service: the key is for all its routes.
    Service,
    /// A route: the key is for this route only.
    Route,
}

/// Index in [`Snapshot::upstreams`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct UpstreamId(pub usize);

/// Index in [`Snapshot::routes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RouteId(pub(crate) u32);

/// Settings that only a restart can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartupSettings {
    /// The listeners. At least one.
    pub listeners: Vec<StartupListener>,
    /// Address of the admin listener; None for no admin listener.
    pub admin: Option<SocketAddr>,
    /// Threads that serve requests; 0 means one per core.
    pub(crate) threads: usize,
    /// After SIGTERM: the longest time to wait for requests in progress.
    pub grace_period: Duration,
    /// After SIGTERM: the time in which connections are still accepted.
    pub drain_delay: Duration,
    /// Path of the socket for upgrades; None for the default path.
    pub(crate) upgrade_socket: Option<Box<str>>,
}

/// The settings of a listener that only a restart can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartupListener {
    /// Address on which the listener accepts connections.
    pub address: Address,
    /// Permissions of the file, if the address is a Unix-domain socket.
    pub(crate) mode: u32,
    /// Whether the listener has TLS.
    pub tls: bool,
}

// === impl Snapshot ===

impl Snapshot {
    /// The routes of a path, and the policy of the host.
    pub(crate) fn find(&self, host: &str, path: &[u8]) -> RouteMatch<'_, RouteId, Option<Arc<Policy>>> {
        self.table.find(host, path)
    }

    /// The routing table. The data of a host is the policy for local replies if no route was found.
    pub(crate) fn table(&self) -> &Routes<RouteId, Option<Arc<Policy>>> {
        &self.table
    }

    /// Whether a service lists the host, itself or with a wildcard.
    pub(crate) fn lists_host(&self, host: &str) -> bool {
        self.table.lists_host(host)
    }

    /// The policy for local replies to a host that no service has.
    pub(crate) fn default_policy(&self) -> Option<&Policy> {
        self.default_policy.as_deref()
    }

    /// The policy for local replies to a host if no route was found.
    pub(crate) fn host_policy(&self, host: &str) -> Option<&Policy> {
        match self.table.host_data(host) {
            Some(policy) => policy.as_deref(),
            None => self.default_policy(),
        }
    }

    /// Returns the text of this snapshot with the values of its variables. `text` is the text of the file.
    pub(crate) fn filled<'t>(&'t self, text: &'t str) -> &'t str {
        self.filled.as_ref().map_or(text, |filled| &filled.text)
    }

    /// Returns the text of this snapshot for output, with the names of its variables. `text` is the text of the file.
    pub(crate) fn redacted<'t>(&'t self, text: &'t str) -> &'t str {
        self.filled.as_ref().map_or(text, |filled| &filled.redacted)
    }

    /// Whether a route has a guard.
    pub(crate) fn has_guards(&self) -> bool {
        self.has_guards
    }

    /// Whether responses get `X-Corsgate-Reason` and `X-Request-Id`.
    pub(crate) fn debug_header(&self) -> bool {
        self.debug_header
    }

    /// Returns a route by its index. Panics if there is no such route.
    pub fn route(&self, index: u32) -> &Route {
        &self.routes[index as usize]
    }

    /// Returns all routes, in the order of the file.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Returns all upstreams: the named ones, and those inside services and routes.
    pub fn upstreams(&self) -> &[Upstream] {
        &self.upstreams
    }

    /// The listeners, in the order of the file.
    pub(crate) fn listeners(&self) -> &[Arc<Listener>] {
        &self.listeners
    }

    pub(crate) fn trusted_proxies(&self) -> &TrustedProxies {
        &self.trusted_proxies
    }

    pub(crate) fn underscores_in_headers(&self) -> UnderscoresInHeaders {
        self.underscores_in_headers
    }

    pub(crate) fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// None: no access log.
    pub(crate) fn access_log(&self) -> Option<&AccessLog> {
        self.access_log.as_ref()
    }

    /// Host names that the admin listener accepts, in addition to IP addresses and `localhost`.
    pub(crate) fn admin_hosts(&self) -> &[HostPattern] {
        &self.admin_hosts
    }

    /// Who may use the write API of the admin listener. None: there is no write API.
    pub(crate) fn admin_write(&self) -> Option<&AdminWrite> {
        self.admin_write.as_ref()
    }

    /// Settings that only a restart can change.
    pub fn startup(&self) -> &StartupSettings {
        &self.startup
    }
}

// === impl StartupSettings, Route ===

impl StartupSettings {
    /// Returns the top-level keys that differ and that only a restart can change.
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
    /// Whether the route has the same guards as another route.
    pub(crate) fn has_guards_of(&self, other: &Route) -> bool {
        let guards = |route: &Route| route.behaviors.as_deref().map_or([None; 3], Behaviors::guards);
        guards(self) == guards(other)
    }

    /// The place of the route: `services[0].routes[1]`.
    pub(crate) fn at(&self) -> KeyPath {
        self.place.at(Level::Route)
    }

    /// The place of the `cors` key that applies: a policy, the name of one, or `false`.
    pub(crate) fn cors_at(&self) -> Option<KeyPath> {
        let mut at = self.place.at(self.cors.as_ref()?.level);
        at.0.push(PathStep::Key("cors".into()));
        Some(at)
    }

    /// The place where the policy is defined. None without a policy.
    pub(crate) fn policy_at(&self) -> Option<KeyPath> {
        self.policy.as_ref()?;
        match &self.cors.as_ref()?.name {
            Some(name) => Some(KeyPath(vec![PathStep::Key("cors_policies".into()), PathStep::Key(name.to_string())])),
            None => self.cors_at(),
        }
    }
}

impl End {
    /// The upstreams that can get a request. None if the gateway answers.
    pub(crate) fn upstreams(&self) -> Vec<UpstreamId> {
        match self {
            End::Upstream(id) => vec![*id],
            End::Split(split) => split.split.shares().map(|(id, _)| id).collect(),
            End::Answer(_) => Vec::new(),
        }
    }
}

impl RoutePlace {
    /// The `cors` of this route at a level of the document.
    pub(crate) fn cors(self, document: &Document, level: Level) -> Option<&Cors> {
        let service = || document.services.as_ref()?.get(self.service as usize);
        match level {
            Level::Top => document.cors.as_ref(),
            Level::Service => service()?.cors.as_ref(),
            Level::Route => service()?.routes.as_ref()?.get(self.route? as usize)?.cors.as_ref(),
        }
    }

    /// The place of a level: the whole file, the service, or the route.
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
