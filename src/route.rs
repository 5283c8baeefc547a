//! Finds the route for a host and a path.
//!
//! The tables are generic over the data of a route and of a host. They do not depend on CORS or on an HTTP server. A
//! lookup first selects the host: an exact name, then the longest `*.suffix`, then the services without hosts. Then it
//! selects the path among the routes of that host, one segment at a time: a literal, then `{parameter}`, then `*` for
//! the rest. It selects the method last.
//!
//! Every step is one hash lookup in a table for all hosts, so the cost of a request does not depend on the number of
//! hosts. A lookup allocates nothing.
//!
//! ```
//! use corsgate::domain::HostName;
//! use corsgate::route::{RouteEntry, RouteMatch, HostPattern, PathPattern, Routes};
//!
//! let mut routes = Routes::<&str, ()>::builder();
//! let entry = |path, route| RouteEntry { path: PathPattern::parse(path).unwrap(), methods: None, get_implies_head: true, route };
//! routes.service(
//!     vec![HostPattern::parse("*.example").unwrap()],
//!     vec![entry("/users/{id}", "one user"), entry("/*", "all the rest")],
//! );
//! let routes = routes.build(|_services| ()).unwrap();
//!
//! let route = |authority, path: &str| match routes.find(HostName::parse(authority)?.as_str(), path.as_bytes()) {
//!     RouteMatch::Path(path, _) => path.route("GET").copied(),
//!     _ => None,
//! };
//! assert_eq!(route("api.example:8080", "/users/7"), Some("one user"));
//! assert_eq!(route("API.example.", "/users/7/mail"), Some("all the rest"));
//! assert_eq!(route("example", "/users/7"), None);
//! ```

pub(crate) mod classes;
mod pattern;

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{BTreeMap, HashMap as StdHashMap};

use hashbrown::{Equivalent, HashMap};
use http::HeaderValue;

pub(crate) use self::pattern::plain_path;
pub use self::pattern::{HostPattern, PathPattern, is_ambiguous};
use self::pattern::{Segment, Tail};
use crate::domain::{LabelCounts, are_labels};

/// The compiled routing tables. `R` is the data of a route. `H` is the data of a host, for requests that match no
/// route.
#[derive(Debug)]
pub struct Routes<R, H> {
    /// Hosts with an exact name, such as `api.example`.
    exact: HashMap<Box<str>, HostId>,
    /// Hosts below a wildcard. The key for `*.example` is `.example`.
    below: HashMap<Box<str>, HostId>,
    label_counts: LabelCounts,
    /// The services without `hosts`, which match all other hosts.
    any: Option<HostId>,
    hosts: Vec<Host<H>>,
    nodes: Vec<Node>,
    /// Edges of the path trees of all hosts: from a node, with a literal segment, to the next node.
    edges: HashMap<(NodeId, Box<[u8]>), NodeId>,
    paths: Vec<Path<R>>,
}

/// The result of a lookup by host and path. The method is not selected yet.
#[derive(Debug)]
pub enum RouteMatch<'a, R, H> {
    /// A path matches. The fields are the routes of the path, and the data of the host.
    Path(&'a Path<R>, &'a H),
    /// No route of the host matches the path. The field is the data of the host.
    UnknownPath(&'a H),
    /// No service matches the host.
    UnknownHost,
}

/// The routes with the same path of a host. Each has different methods.
#[derive(Debug)]
pub struct Path<R> {
    /// Routes with their methods, in the order of the file.
    choices: Vec<(Option<RouteMethods>, R)>,
    /// The value of `Allow`, for requests whose method matches no route.
    allow: HeaderValue,
}

/// Methods of a route. A route without methods matches every method that no other route of the path lists, except
/// TRACE.
pub(crate) type RouteMethods = Box<[Box<str>]>;

/// One path of a route, with the methods and the data of the route.
#[derive(Debug)]
pub struct RouteEntry<R> {
    /// The pattern of the path.
    pub path: PathPattern,
    /// The methods of the route. None matches every method that no other route of the path lists, except TRACE.
    pub methods: Option<RouteMethods>,
    /// If true, a route that lists GET also matches HEAD, unless another route of the path lists HEAD (RFC 9110 section
    /// 9.3.2: HEAD is GET without the content of the response).
    pub get_implies_head: bool,
    /// The data of the route. [`Path::route`] returns it.
    pub route: R,
}

/// Collects the services in the order of the file, and compiles them to [`Routes`].
#[derive(Debug)]
pub struct Builder<R> {
    services: Vec<(Vec<HostPattern>, Vec<RouteEntry<R>>)>,
}

/// Two routes that match the same requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The host pattern. `*` for services without hosts.
    pub(crate) host: String,
    /// The path pattern of both routes.
    pub(crate) path: String,
    /// The first route: the index of its service, and the index of its entry in [`Builder::service`].
    pub(crate) first: (usize, usize),
    /// The second route, with the same indices.
    pub(crate) second: (usize, usize),
}

type NodeId = u32;
type HostId = u32;
type PathId = u32;

#[derive(Debug)]
struct Host<H> {
    root: NodeId,
    data: H,
}

/// A node of a path tree, with the possible next steps. Literal segments are in `edges`.
#[derive(Debug, Default, Clone, Copy)]
struct Node {
    /// The child for `/{parameter}`.
    parameter: Option<NodeId>,
    /// The path of the patterns that end here.
    end: Option<PathId>,
    /// The path of the patterns with `/*` here. They match the end of the request path, and any further segments.
    below: Option<PathId>,
}

/// A borrowed key of `edges`. Its hash must equal the hash of the owned key: an integer, then a slice.
#[derive(Hash)]
struct Edge<'a>(NodeId, &'a [u8]);

impl Equivalent<(NodeId, Box<[u8]>)> for Edge<'_> {
    fn equivalent(&self, key: &(NodeId, Box<[u8]>)) -> bool {
        self.0 == key.0 && *self.1 == *key.1
    }
}

// === impl Routes ===

impl<R, H> Routes<R, H> {
    /// Returns a builder without services.
    pub fn builder() -> Builder<R> {
        Builder { services: Vec::new() }
    }

    /// Looks up a host and a path. `host` is the text of a [`HostName`], or empty for a request without a host. The
    /// path is compared byte for byte. It must not be ambiguous, see [`is_ambiguous`].
    ///
    /// [`HostName`]: crate::domain::HostName
    pub fn find(&self, host: &str, path: &[u8]) -> RouteMatch<'_, R, H> {
        let Some(host) = self.host(host).map(|id| &self.hosts[id as usize]) else {
            return RouteMatch::UnknownHost;
        };
        let found = match path {
            // The asterisk form of a request target applies to the whole server (RFC 9110 section 7.1).
            b"*" => self.node(host.root).below,
            [b'/', rest @ ..] => self.walk(host.root, Some(rest)),
            _ => None,
        };
        match found {
            Some(id) => RouteMatch::Path(&self.paths[id as usize], &host.data),
            None => RouteMatch::UnknownPath(&host.data),
        }
    }

    /// Returns the data of a host. Returns None if no service matches the host.
    pub(crate) fn host_data(&self, host: &str) -> Option<&H> {
        self.host(host).map(|id| &self.hosts[id as usize].data)
    }

    /// Returns all paths of all hosts. Hosts with the same services share their paths.
    pub(crate) fn paths(&self) -> &[Path<R>] {
        &self.paths
    }

    /// Returns true if a service lists the host by name or with a wildcard.
    pub(crate) fn lists_host(&self, host: &str) -> bool {
        self.host(host).is_some_and(|id| Some(id) != self.any)
    }

    fn host(&self, host: &str) -> Option<HostId> {
        let wildcard = || {
            let below = |dot| self.below.get(&host[dot..]).filter(|_| are_labels(&host[..dot]));
            self.label_counts.tails(host).filter_map(below).last()
        };
        self.exact.get(host).or_else(wildcard).copied().or(self.any)
    }

    /// Continues the lookup at a node. `rest` is the path after the slash that follows this node. None at the end of
    /// the path. Each level tries the more specific continuation first. The depth of the recursion is at most the
    /// length of the longest pattern.
    fn walk(&self, at: NodeId, rest: Option<&[u8]>) -> Option<PathId> {
        let node = self.node(at);
        let Some(rest) = rest else { return node.end.or(node.below) };
        let end = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
        let (segment, next) = (&rest[..end], rest.get(end + 1..));
        let literal = self.edges.get(&Edge(at, segment)).and_then(|child| self.walk(*child, next));
        literal
            .or_else(|| node.parameter.filter(|_| !segment.is_empty()).and_then(|child| self.walk(child, next)))
            .or(node.below)
    }

    fn node(&self, id: NodeId) -> Node {
        self.nodes[id as usize]
    }
}

impl<R> Path<R> {
    /// Returns the route for a method: the route that lists it, or else the route without methods. TRACE must be
    /// listed, because its response contains the request, with its cookies and credentials.
    pub fn route(&self, method: &str) -> Option<&R> {
        let named = self.choices.iter().find(|(methods, _)| lists(methods.as_ref(), method));
        let any = || self.choices.iter().find(|(methods, _)| methods.is_none() && method != "TRACE");
        named.or_else(any).map(|(_, route)| route)
    }

    /// Adds HEAD after GET to the methods of a route, unless a route of the path lists HEAD.
    fn add_head(&mut self, choice: usize) {
        if self.choices.iter().any(|(methods, _)| lists(methods.as_ref(), "HEAD")) {
            return;
        }
        if let Some(methods) = &mut self.choices[choice].0 {
            let mut with_head: Vec<Box<str>> = Vec::with_capacity(methods.len() + 1);
            for method in methods {
                with_head.push(std::mem::take(method));
                if with_head.last().is_some_and(|method| **method == *"GET") {
                    with_head.push("HEAD".into());
                }
            }
            self.choices[choice].0 = Some(with_head.into_boxed_slice());
        }
    }

    /// Returns the route whose methods include HEAD.
    pub(crate) fn route_with_head(&self) -> Option<&R> {
        self.choices.iter().find(|(methods, _)| lists(methods.as_ref(), "HEAD")).map(|(_, route)| route)
    }

    /// Returns the routes of the path, in the order of the file. There is at least one.
    pub(crate) fn routes(&self) -> impl Iterator<Item = &R> {
        self.choices.iter().map(|(_, route)| route)
    }

    /// Returns the methods that the routes of the path list.
    pub(crate) fn methods(&self) -> impl Iterator<Item = &str> {
        self.choices.iter().filter_map(|(methods, _)| methods.as_deref()).flatten().map(|method| &**method)
    }

    /// Returns the value of the `Allow` header (RFC 9110 section 10.2.1). If a route has no methods, the value has the
    /// usual methods in their place.
    pub(crate) fn allow(&self) -> &HeaderValue {
        &self.allow
    }
}

// === impl Builder ===

impl<R: Clone> Builder<R> {
    /// Adds a service with its hosts and routes. A service without hosts matches every host that no other service
    /// lists.
    pub fn service(&mut self, hosts: Vec<HostPattern>, entries: Vec<RouteEntry<R>>) {
        self.services.push((hosts, entries));
    }

    /// Compiles the tables. `host_data` returns the data of a host, from the indices of the services with this host.
    ///
    /// Returns an error with all pairs of routes that match the same requests.
    pub fn build<H>(self, host_data: impl Fn(&[usize]) -> H) -> Result<Routes<R, H>, Vec<Conflict>> {
        // Most entries have their own path and their own node, so this capacity is usually enough.
        let entries = self.services.iter().map(|(_, entries)| entries.len()).sum();
        let mut routes = Routes {
            exact: HashMap::new(),
            below: HashMap::new(),
            label_counts: LabelCounts::default(),
            any: None,
            hosts: Vec::new(),
            nodes: Vec::with_capacity(entries),
            edges: HashMap::with_capacity(entries),
            paths: Vec::with_capacity(entries),
        };
        let mut conflicts = Vec::new();
        // Hosts with the same services share a tree, so a service with a million hosts has one tree.
        let mut trees: StdHashMap<Vec<usize>, HostId> = StdHashMap::new();
        for (pattern, services) in self.services_by_host() {
            let id = match trees.entry(services) {
                MapEntry::Occupied(known) => *known.get(),
                MapEntry::Vacant(new) => {
                    let root = routes.push_node();
                    let entries = new.key().iter().map(|service| self.services[*service].1.len()).sum();
                    let mut tree = Tree { routes: &mut routes, root, owners: HashMap::with_capacity(entries) };
                    for &service in new.key() {
                        for (i, entry) in self.services[service].1.iter().enumerate() {
                            if let Some(first) = tree.add(entry, (service, i)) {
                                conflicts.push(Conflict {
                                    host: pattern.map_or_else(|| "*".into(), ToString::to_string),
                                    path: entry.path.to_string(),
                                    first,
                                    second: (service, i),
                                });
                            }
                        }
                    }
                    let owners = tree.owners;
                    for ((path, choice), (service, entry)) in owners {
                        let entry = &self.services[service].1[entry];
                        if entry.get_implies_head && lists(entry.methods.as_ref(), "GET") {
                            routes.paths[path as usize].add_head(choice);
                        }
                    }
                    routes.hosts.push(Host { root, data: host_data(new.key()) });
                    let id = id(routes.hosts.len() - 1);
                    *new.insert(id)
                }
            };
            match pattern {
                None => routes.any = Some(id),
                Some(HostPattern::Exact(name)) => {
                    routes.exact.insert(name.clone(), id);
                }
                Some(HostPattern::Subdomains(base)) => {
                    routes.label_counts.add(base);
                    routes.below.insert(format!(".{base}").into(), id);
                }
            }
        }
        if !conflicts.is_empty() {
            conflicts.sort_by_key(|conflict| (conflict.second, conflict.first));
            return Err(conflicts);
        }
        for path in &mut routes.paths {
            path.allow = allow(&path.choices);
        }
        Ok(routes)
    }

    /// Returns the services of each host pattern. A pattern that occurs twice in one service has two entries, so that
    /// the duplicate becomes a conflict.
    fn services_by_host(&self) -> BTreeMap<Option<&HostPattern>, Vec<usize>> {
        let mut hosts: BTreeMap<Option<&HostPattern>, Vec<usize>> = BTreeMap::new();
        for (service, (patterns, _)) in self.services.iter().enumerate() {
            if patterns.is_empty() {
                hosts.entry(None).or_default().push(service);
            }
            for pattern in patterns {
                hosts.entry(Some(pattern)).or_default().push(service);
            }
        }
        hosts
    }
}

/// Builds the tree of a host.
struct Tree<'a, R, H> {
    routes: &'a mut Routes<R, H>,
    root: NodeId,
    /// The service and the entry of each route of a path.
    owners: HashMap<(PathId, usize), (usize, usize)>,
}

impl<R: Clone, H> Tree<'_, R, H> {
    /// Adds an entry. If it conflicts with an earlier route, returns the service and the entry of that route.
    fn add(&mut self, entry: &RouteEntry<R>, owner: (usize, usize)) -> Option<(usize, usize)> {
        let mut at = self.root;
        for segment in entry.path.segments() {
            at = match segment {
                Segment::Literal(text) => match self.routes.edges.get(&Edge(at, text)) {
                    Some(child) => *child,
                    None => {
                        let child = self.routes.push_node();
                        self.routes.edges.insert((at, text.into()), child);
                        child
                    }
                },
                Segment::Parameter => match self.routes.node(at).parameter {
                    Some(child) => child,
                    None => {
                        let child = self.routes.push_node();
                        self.routes.nodes[at as usize].parameter = Some(child);
                        child
                    }
                },
            };
        }
        let known = match entry.path.tail() {
            Tail::End => self.routes.node(at).end,
            Tail::Wildcard => self.routes.node(at).below,
        };
        let path = known.unwrap_or_else(|| {
            self.routes.paths.push(Path { choices: Vec::new(), allow: HeaderValue::from_static("") });
            let path = id(self.routes.paths.len() - 1);
            let node = &mut self.routes.nodes[at as usize];
            match entry.path.tail() {
                Tail::End => node.end = Some(path),
                Tail::Wildcard => node.below = Some(path),
            }
            path
        });
        let choices = &mut self.routes.paths[path as usize].choices;
        if let Some(taken) = choices.iter().position(|(methods, _)| overlap(methods.as_ref(), entry.methods.as_ref())) {
            return Some(self.owners[&(path, taken)]);
        }
        self.owners.insert((path, choices.len()), owner);
        // Most paths have one route.
        choices.reserve_exact(1);
        choices.push((entry.methods.clone(), entry.route.clone()));
        None
    }
}

impl<R, H> Routes<R, H> {
    fn push_node(&mut self) -> NodeId {
        self.nodes.push(Node::default());
        id(self.nodes.len() - 1)
    }
}

fn lists(methods: Option<&RouteMethods>, method: &str) -> bool {
    methods.is_some_and(|methods| methods.iter().any(|listed| **listed == *method))
}

/// Returns true if two routes of one path match the same method. A route without methods matches only methods that
/// other routes do not list, so it overlaps only with another route without methods.
fn overlap(a: Option<&RouteMethods>, b: Option<&RouteMethods>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.iter().any(|method| b.contains(method)),
        _ => false,
    }
}

fn allow<R>(choices: &[(Option<RouteMethods>, R)]) -> HeaderValue {
    let mut methods: Vec<&str> =
        choices.iter().flat_map(|(methods, _)| methods.iter().flatten()).map(|m| &**m).collect();
    if choices.iter().any(|(methods, _)| methods.is_none()) {
        let usual = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
        methods.extend(usual.iter().filter(|usual| !choices.iter().any(|(methods, _)| lists(methods.as_ref(), usual))));
    }
    HeaderValue::from_str(&methods.join(", ")).unwrap_or(HeaderValue::from_static(""))
}

/// Converts an index to 32 bits. 2^32 entries do not fit into memory.
fn id(index: usize) -> u32 {
    u32::try_from(index).expect("fewer than 2^32 routes")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `api.example` with three routes for `/x`, `*.app.example`, and a service for any other host.
    fn routes() -> Routes<u32, ()> {
        let entry = |path: &str, methods: Option<&[&str]>, get_implies_head, route| RouteEntry {
            path: PathPattern::parse(path).unwrap(),
            methods: methods.map(|methods| methods.iter().map(|method| (*method).into()).collect()),
            get_implies_head,
            route,
        };
        let mut builder = Routes::<u32, ()>::builder();
        let host = |text| HostPattern::parse(text).unwrap();
        builder.service(
            vec![host("api.example")],
            vec![
                entry("/x", Some(&["PUT", "GET"]), true, 1),
                entry("/x", Some(&["DELETE"]), true, 2),
                entry("/x", None, true, 3),
                entry("/y", Some(&["GET"]), false, 4),
                entry("/z", Some(&["POST"]), true, 5),
            ],
        );
        builder.service(vec![host("*.app.example")], vec![entry("/*", None, true, 6)]);
        builder.service(Vec::new(), vec![entry("/*", None, true, 7)]);
        builder.build(|_| ()).unwrap()
    }

    #[test]
    fn a_service_lists_its_hosts_and_not_those_of_a_service_for_any_host() {
        let routes = routes();
        for (host, expected) in [
            ("api.example", true),
            ("a.app.example", true),
            ("app.example", false),
            ("other.example", false),
            ("", false),
        ] {
            assert_eq!(routes.lists_host(host), expected, "{host:?}");
        }
    }

    #[test]
    fn a_path_knows_the_methods_of_its_routes() {
        let routes = routes();
        let rows: [(&str, &[&str], Option<u32>, &str); 3] = [
            ("/x", &["PUT", "GET", "HEAD", "DELETE"], Some(1), "PUT, GET, HEAD, DELETE, POST, PATCH, OPTIONS"),
            ("/y", &["GET"], None, "GET"),
            ("/z", &["POST"], None, "POST"),
        ];
        for (path, methods, head, allow) in rows {
            let RouteMatch::Path(found, ()) = routes.find("api.example", path.as_bytes()) else { panic!("{path}") };
            assert_eq!(found.methods().collect::<Vec<_>>(), methods, "{path}");
            assert_eq!(found.route_with_head().copied(), head, "{path}");
            assert_eq!(found.allow(), allow, "{path}");
        }
        // `/x`, `/y` and `/z` of the first service, and `/*` of each of the other two.
        assert_eq!(routes.paths().len(), 5);
    }
}
