//! Compiles a [`Document`] to a [`Snapshot`]. This module has all checks of a configuration. All problems are reported
//! at once.

mod behaviors;
mod process;
mod shared_paths;
mod upstreams;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{CompileEnv, CorsPlace, Level, Route, RouteId, RoutePlace, Snapshot, Upstream, UpstreamId};
use crate::behavior::Behaviors;
use crate::config::{self, Cors, Document};
use crate::cors::{OriginSets, Origins, Policy, Settings};
use crate::notation::{List, Named, Use};
use crate::problem::{At, KeyPath, Known, Problem, ProblemKind, Problems};
use crate::route::{Conflict, HostPattern, Path, PathPattern, RouteEntry, RouteMethods, Routes};

impl Snapshot {
    /// Compiles a document. Adds all problems to `problems`. None if one of them is an error.
    pub fn compile(document: &Document, env: CompileEnv<'_>, problems: &mut Problems) -> Option<Self> {
        let mut found = Problems::default();
        let snapshot = Compiler::new(document, env, &mut found).run();
        let usable = !found.any_errors();
        problems.extend(found);
        snapshot.filter(|_| usable)
    }
}

struct Compiler<'d> {
    document: &'d Document,
    env: CompileEnv<'d>,
    problems: &'d mut Problems,
    origin_sets: OriginSets,
    /// The named policies. None for a policy that has errors.
    policies: HashMap<&'d str, Option<Effective>>,
    /// Each policy with its problems. Their places are relative to the policy.
    compiled_policies: HashMap<Cow<'d, Settings>, (Option<Arc<Policy>>, Problems)>,
    upstream_ids: HashMap<&'d str, Option<UpstreamId>>,
    upstreams: Vec<Upstream>,
    routes: Vec<Route>,
}

/// A policy, and the report-only policy that is compared with it.
#[derive(Clone)]
struct Effective {
    policy: Arc<Policy>,
    report_only: Option<Arc<Policy>>,
}

/// The policy that applies at a place of the file, set there or inherited.
#[derive(Clone, Default)]
struct Inherited {
    /// None: no CORS handling.
    effective: Option<Effective>,
    /// The `cors` key that sets the policy. None if no level has the key.
    place: Option<CorsPlace>,
}

/// The place of a path in the file, to report two routes with the same requests.
struct RouteLocation {
    service: usize,
    /// Indices of route and path. None for the only route of a service without `routes`.
    path: Option<(usize, usize)>,
}

impl<'d> Compiler<'d> {
    fn new(document: &'d Document, env: CompileEnv<'d>, problems: &'d mut Problems) -> Self {
        Compiler {
            document,
            env,
            problems,
            origin_sets: HashMap::new(),
            policies: HashMap::new(),
            compiled_policies: HashMap::new(),
            upstream_ids: HashMap::new(),
            upstreams: Vec::new(),
            routes: Vec::new(),
        }
    }

    fn run(mut self) -> Option<Snapshot> {
        let (root, document) = (At::root(), self.document);
        let trusted_proxies = self.trusted_proxies(&root.key("trusted_proxies"));
        let listeners = self.listeners(&trusted_proxies, &root.key("listeners"));
        let startup = self.startup(&listeners);
        let limits = self.limits(&root.key("limits"));
        let access_log = self.access_log(&root.key("access_log"));
        let admin = document.admin.as_ref();
        let admin_hosts = self.hosts(admin.and_then(|admin| admin.hosts.as_ref()), &root.key("admin").key("hosts"));
        let admin_write = self.admin_write(&root.key("admin"));
        if document.debug_header {
            self.problems.add(&root.key("debug_header"), ProblemKind::DebugHeader);
        }

        let at = root.key("origin_sets");
        self.names(&document.origin_sets, "origin set", &at);
        for (name, list) in &document.origin_sets.0 {
            let origins = Origins::compile(list, &at.key(name), self.problems);
            self.origin_sets.insert(name.clone(), origins.map(Arc::new));
        }
        let at = root.key("cors_policies");
        self.names(&document.cors_policies, "policy", &at);
        for (name, settings) in &document.cors_policies.0 {
            let policy = self.policy(settings, &at.key(name));
            self.policies.insert(name, policy);
        }
        let at = root.key("upstreams");
        self.names(&document.upstreams, "upstream", &at);
        for (name, upstream) in &document.upstreams.0 {
            let id = self.upstream(name, upstream, &at.key(name));
            self.upstream_ids.insert(name, id);
        }
        let default = self.cors(document.cors.as_ref(), Level::Top, &Inherited::default(), &root.key("cors"));

        let mut table = Routes::<RouteId, ()>::builder();
        let mut policies = Vec::new();
        let mut locations = Vec::new();
        let at = root.key("services");
        let services = document.services.as_deref().unwrap_or_default();
        match &document.services {
            None => {
                self.problems.add(&at, ProblemKind::Missing { example: "services: [{ name: api, upstream: api }]" });
            }
            Some(services) if services.is_empty() => self.problems.add(&at, ProblemKind::EmptyList { required: true }),
            Some(_) => {}
        }
        let mut names = HashSet::new();
        for (i, service) in services.iter().enumerate() {
            let at = at.index(i);
            self.required_name(service.name.as_deref(), "service", &mut names, &at);
            let inherited = self.cors(service.cors.as_ref(), Level::Service, &default, &at.key("cors"));
            let hosts = self.hosts(service.hosts.as_ref(), &at.key("hosts"));
            let (entries, service_locations) = self.service_routes(i, service, &inherited, &at);
            table.service(hosts, entries);
            policies.push(inherited);
            locations.push(service_locations);
        }

        let default_policy = default.effective.map(|effective| effective.policy);
        let common = |services: &[usize]| {
            let mut all = services.iter().map(|service| policies[*service].effective.as_ref());
            let first = all.next().flatten();
            let policy = |effective: &Effective| Arc::as_ptr(&effective.policy);
            let same = |other: Option<&Effective>| first.map(policy) == other.map(policy);
            match all.all(same) {
                true => first.map(|effective| effective.policy.clone()),
                false => default_policy.clone(),
            }
        };
        let table = match table.build(common) {
            Ok(table) => table,
            Err(conflicts) => {
                self.report(&conflicts, &locations);
                return None;
            }
        };
        for id in table.paths().iter().filter_map(Path::route_with_head) {
            self.routes[id.0 as usize].takes_head = true;
        }
        self.hint_paths_with_several_policies(&table);
        let behaviors = self.routes.iter().filter_map(|route| route.behaviors.as_deref());
        let has_guards = behaviors.flat_map(Behaviors::guards).any(|guard| guard.is_some());
        Some(Snapshot {
            table,
            routes: self.routes,
            upstreams: self.upstreams,
            listeners,
            trusted_proxies,
            underscores_in_headers: document.underscores_in_headers,
            default_policy,
            limits: Arc::new(limits?),
            access_log,
            admin_hosts,
            admin_write,
            debug_header: document.debug_header,
            has_guards,
            startup: startup?,
            filled: None,
        })
    }

    // --- services and routes

    /// Returns the table entries of a service. A service without `routes` gets one entry for every path.
    fn service_routes(
        &mut self,
        index: usize,
        service: &'d config::Service,
        inherited: &Inherited,
        at: &At<'_>,
    ) -> (Vec<RouteEntry<RouteId>>, Vec<RouteLocation>) {
        let count = service.routes.as_ref().map_or(1, Vec::len);
        let (mut entries, mut locations) = (Vec::with_capacity(count), Vec::with_capacity(count));
        self.routes.reserve(count);
        let name = service.name.as_deref().unwrap_or("unnamed");
        let routes = service.routes.as_deref();
        let end = self.end(&service.ends(), name, at);
        let every_route_has_an_end = routes.is_some_and(|routes| routes.iter().all(|route| route.ends().any()));
        if !service.ends().any() && !every_route_has_an_end {
            self.problems.add(&at.key("upstream"), ProblemKind::Missing { example: "upstream: api" });
        }
        let mut behaviors = Behaviors::compile(&service.behaviors(), name, &Behaviors::default(), at, self.problems);
        self.warn_about_rate_key(&behaviors, &service.behaviors(), at);
        self.forward_auth(&mut behaviors, &service.behaviors(), name, at);
        let shared = behaviors.some();
        let Some(routes) = routes else {
            if let Some(end) = end {
                self.check_strip_prefix(&behaviors, &[(0, PathPattern::any())], None, at);
                let id = self.push_route(Route {
                    name: name.into(),
                    policy: inherited.policy(),
                    report_only: inherited.report_only(),
                    end,
                    behaviors: shared,
                    place: RoutePlace { service: index_u32(index), route: None },
                    cors: inherited.place.clone(),
                    takes_head: false,
                });
                let path = PathPattern::any();
                entries.push(RouteEntry { path, methods: None, get_implies_head: true, route: id });
                locations.push(RouteLocation { service: index, path: None });
            }
            return (entries, locations);
        };
        let at_service = at;
        let at_routes = at.key("routes");
        if routes.is_empty() {
            self.problems.add(&at_routes, ProblemKind::EmptyList { required: false });
        }
        let mut names = HashSet::with_capacity(count);
        for (i, route) in routes.iter().enumerate() {
            let at = at_routes.index(i);
            if let Some(name) = route.name.as_deref() {
                self.name(name, "route", &mut names, &at.key("name"));
            }
            let own = self.cors(route.cors.as_ref(), Level::Route, inherited, &at.key("cors"));
            let paths = self.paths(route.paths.as_ref(), &at.key("paths"));
            let methods = self.methods(route.methods.as_ref(), &at);
            let name = match (&route.name, paths.first()) {
                (Some(own), _) => format!("{name}/{own}"),
                (None, Some((_, first))) => format!("{name}/{first}"),
                (None, None) => format!("{name}/"),
            };
            let own_behaviors = route.behaviors().any().then(|| {
                let mut own = Behaviors::compile(&route.behaviors(), &name, &behaviors, &at, self.problems);
                self.warn_about_rate_key(&own, &route.behaviors(), &at);
                self.forward_auth(&mut own, &route.behaviors(), &name, &at);
                self.check_strip_prefix(&own, &paths, Some(&route.behaviors()), &at);
                own.some()
            });
            if own_behaviors.is_none() {
                self.check_strip_prefix(&behaviors, &paths, None, at_service);
            }
            let end = match route.ends().any() {
                true => self.end(&route.ends(), &name, &at),
                false => end.clone(),
            };
            let Some(end) = end else { continue };
            let id = self.push_route(Route {
                name: name.into(),
                policy: own.policy(),
                report_only: own.report_only(),
                end,
                behaviors: own_behaviors.unwrap_or_else(|| shared.clone()),
                place: RoutePlace { service: index_u32(index), route: Some(index_u32(i)) },
                cors: own.place,
                takes_head: false,
            });
            for (number, path) in paths {
                let get_implies_head = route.get_implies_head.unwrap_or(true);
                entries.push(RouteEntry { path, methods: methods.clone(), get_implies_head, route: id });
                locations.push(RouteLocation { service: index, path: Some((i, number)) });
            }
        }
        (entries, locations)
    }

    fn push_route(&mut self, route: Route) -> RouteId {
        self.routes.push(route);
        RouteId(index_u32(self.routes.len() - 1))
    }

    fn hosts(&mut self, list: Option<&List>, at: &At<'_>) -> Vec<HostPattern> {
        let mut known = HashSet::new();
        let mut hosts = self.parsed(list, false, at, HostPattern::parse);
        // Removes duplicate hosts. Otherwise each route would conflict with itself.
        hosts.retain(|(i, host)| {
            let is_new = known.insert(host.clone());
            if !is_new {
                self.problems.add(&at.index(*i), ProblemKind::HostTwice { host: host.to_string() });
            }
            is_new
        });
        hosts.into_iter().map(|(_, host)| host).collect()
    }

    fn paths(&mut self, list: Option<&List>, at: &At<'_>) -> Vec<(usize, PathPattern)> {
        if list.is_none() {
            self.problems.add(at, ProblemKind::Missing { example: "paths: [/v1/*]" });
        }
        self.parsed(list, true, at, PathPattern::parse)
    }

    /// Returns the entries that can be parsed, with their indices.
    fn parsed<T>(
        &mut self,
        list: Option<&List>,
        required: bool,
        at: &At<'_>,
        parse: impl Fn(&str) -> Result<T, ProblemKind>,
    ) -> Vec<(usize, T)> {
        let entries = list.map(List::entries).unwrap_or_default();
        if list.is_some() && entries.is_empty() {
            self.problems.add(at, ProblemKind::EmptyList { required });
        }
        let mut parsed = Vec::with_capacity(entries.len());
        for (i, entry) in entries.iter().enumerate() {
            match parse(entry) {
                Ok(value) => parsed.push((i, value)),
                Err(kind) => self.problems.add(&at.index(i), kind),
            }
        }
        parsed
    }

    fn methods(&mut self, list: Option<&List>, at: &At<'_>) -> Option<RouteMethods> {
        let at_methods = at.key("methods");
        let parse = |text: &str| match http::Method::from_bytes(text.as_bytes()) {
            _ if text.is_empty() => Err(ProblemKind::EmptyEntry),
            // `*` is a valid token, but no request has this method.
            _ if text == "*" => Err(ProblemKind::AnyMethodInRoute),
            // Methods are case-sensitive (RFC 9110 section 9.1), and no client sends these in lower case.
            Ok(method) if text != text.to_ascii_uppercase() => {
                let known = Known::instead_of(text, vec![text.to_ascii_uppercase()]);
                Err(ProblemKind::UnknownWord { word: method.to_string(), known })
            }
            Ok(method) => Ok(method),
            Err(_) => Err(ProblemKind::BadMethod { text: text.to_owned() }),
        };
        let methods = self.parsed(list, false, &at_methods, parse);
        if !methods.is_empty() && methods.iter().all(|(_, method)| *method == http::Method::CONNECT) {
            self.problems.add(&at_methods, ProblemKind::NeverReached);
        }
        list.map(|_| methods.into_iter().map(|(_, method)| method.as_str().into()).collect())
    }

    fn report(&mut self, conflicts: &[Conflict], locations: &[Vec<RouteLocation>]) {
        let mut reported = HashSet::new();
        for conflict in conflicts {
            let path = |(service, entry): (usize, usize)| locations[service][entry].path();
            // Two routes conflict under every host that they share. One report is enough.
            if reported.insert((conflict.first, conflict.second)) {
                self.problems.push(Problem {
                    at: path(conflict.second),
                    kind: ProblemKind::RouteTwice {
                        host: conflict.host.clone(),
                        path: conflict.path.clone(),
                        other: path(conflict.first),
                    },
                });
            }
        }
    }

    // --- policies

    /// Returns the policy at a place: that of `cors` if the key is set, else the inherited policy.
    fn cors(&mut self, cors: Option<&'d Cors>, level: Level, above: &Inherited, at: &At<'_>) -> Inherited {
        let Some(cors) = cors else { return above.clone() };
        let mut place = CorsPlace { level, name: None };
        let effective = match cors {
            Cors::Off => None,
            Cors::On => {
                self.problems.add(at, ProblemKind::CorsTrue);
                None
            }
            Cors::Policy(Use::Inline(settings)) => self.policy(settings, at),
            Cors::Policy(Use::Named(name)) => {
                place.name = Some(name.as_str().into());
                match self.policies.get(name.as_str()) {
                    Some(policy) => policy.clone(),
                    None => {
                        self.unknown("policy", name, &self.document.cors_policies, at);
                        None
                    }
                }
            }
        };
        Inherited { effective, place: Some(place) }
    }

    /// Compiles a policy, and the report-only policy that is compared with it.
    fn policy(&mut self, settings: &'d Settings, at: &At<'_>) -> Option<Effective> {
        let at_report_only = at.key("report_only");
        let reported = settings.report_only.as_ref();
        let report_only = reported.and_then(|reported| self.report_only(reported, &at_report_only));
        let policy = self.policy_itself(settings, Some(at))?;
        if report_only.as_ref().is_some_and(|report_only| Arc::ptr_eq(report_only, &policy)) {
            self.problems.add(&at_report_only, ProblemKind::ReportsNothing);
        }
        Some(Effective { policy, report_only })
    }

    fn report_only(&mut self, reported: &'d Use<Settings>, at: &At<'_>) -> Option<Arc<Policy>> {
        match reported {
            Use::Inline(settings) => {
                if settings.report_only.is_some() {
                    self.problems.add(&at.key("report_only"), ProblemKind::NestedReportOnly);
                }
                self.policy_itself(settings, Some(at))
            }
            Use::Named(name) => {
                let named = &self.document.cors_policies;
                let Some((_, settings)) = named.0.iter().find(|(known, _)| known == name) else {
                    self.unknown("policy", name, named, at);
                    return None;
                };
                if settings.report_only.is_some() {
                    self.problems.add(at, ProblemKind::NestedReportOnly);
                }
                self.policy_itself(settings, None)
            }
        }
    }

    /// Compiles a policy without its `report_only`. Problems are reported at `at`. If `at` is None, they are reported
    /// at another place. Equal settings are compiled once, and their routes share the policy, because programs write
    /// the same policy into each route.
    fn policy_itself(&mut self, settings: &'d Settings, at: Option<&At<'_>>) -> Option<Arc<Policy>> {
        let origin_sets = &self.origin_sets;
        let (policy, problems) = self.compiled_policies.entry(settings.without_report_only()).or_insert_with(|| {
            let mut problems = Problems::default();
            let policy = Policy::compile(settings, origin_sets, &At::root(), &mut problems);
            (policy.map(Arc::new), problems)
        });
        let Some(at) = at else { return policy.clone() };
        for problem in &*problems {
            let mut path = at.path();
            path.0.extend_from_slice(&problem.at.0);
            self.problems.push(Problem { at: path, kind: problem.kind.clone() });
        }
        let policy = policy.clone()?;
        for (i, name) in settings.allow_headers.iter().flat_map(List::entries).enumerate() {
            self.warn_if_removed(name, &at.key("allow_headers").index(i));
        }
        Some(policy)
    }

    // --- names

    fn names<T>(&mut self, named: &'d Named<T>, what: &'static str, at: &At<'_>) {
        let mut names = HashSet::new();
        for (name, _) in &named.0 {
            self.name(name, what, &mut names, &at.key(name));
        }
    }

    fn required_name(&mut self, name: Option<&'d str>, what: &'static str, names: &mut HashSet<&'d str>, at: &At<'_>) {
        match name {
            Some(name) => self.name(name, what, names, &at.key("name")),
            None => self.problems.add(&at.key("name"), ProblemKind::Missing { example: "name: api" }),
        }
    }

    fn name(&mut self, name: &'d str, what: &'static str, names: &mut HashSet<&'d str>, at: &At<'_>) {
        let usable = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 128 || !name.bytes().all(usable) {
            self.problems.add(at, ProblemKind::BadName { what, name: name.to_owned() });
        }
        if !names.insert(name) {
            self.problems.add(at, ProblemKind::NameTwice { what, name: name.to_owned() });
        }
    }

    fn unknown<T>(&mut self, what: &'static str, name: &str, among: &Named<T>, at: &At<'_>) {
        let known = Known::instead_of(name, among.0.iter().map(|(name, _)| name.clone()).collect());
        self.problems.add(at, ProblemKind::UnknownName { what, name: name.to_owned(), known });
    }
}

impl Inherited {
    fn policy(&self) -> Option<Arc<Policy>> {
        self.effective.as_ref().map(|effective| effective.policy.clone())
    }

    fn report_only(&self) -> Option<Arc<Policy>> {
        self.effective.as_ref()?.report_only.clone()
    }
}

/// The index of a service or route.
fn index_u32(index: usize) -> u32 {
    u32::try_from(index).expect("fewer than 2^32 services and routes")
}

impl RouteLocation {
    fn path(&self) -> KeyPath {
        let (root, service) = (At::root(), self.service);
        let services = root.key("services");
        let service = services.index(service);
        let Some((route, path)) = self.path else { return service.path() };
        let routes = service.key("routes");
        let route = routes.index(route);
        let paths = route.key("paths");
        paths.index(path).path()
    }
}
