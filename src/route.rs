//! Host and path to a route.
//!
//! Generic over what a route and a host carry, and ignorant of CORS and of HTTP servers. The host decides first: an
//! exact name, then the longest `*.suffix`, then the services without hosts. Among the routes of that host the path
//! decides, segment by segment: the literal, then `{parameter}`, then `*` for all the rest. Only then the method.
//!
//! Every step is a hash lookup in a table that all hosts share, so that a million hosts cost a request what ten cost;
//! and nothing is allocated.
//!
//! ```
//! use corsgate::domain::HostName;
//! use corsgate::route::{RouteEntry, RouteMatch, HostPattern, PathPattern, Routes};
//!
//! let mut routes = Routes::<&str, ()>::builder();
//! let entry = |path, route| RouteEntry { path: PathPattern::parse(path).unwrap(), methods: None, route };
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

mod pattern;

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{BTreeMap, HashMap as StdHashMap};

use hashbrown::{Equivalent, HashMap};
use http::HeaderValue;

pub use self::pattern::{HostPattern, PathPattern, is_ambiguous};
use self::pattern::{Segment, Tail};
use crate::domain::{Depths, are_labels};

/// All routes, compiled. `R` is what a route carries, `H` what a host carries for requests that no route takes.
#[derive(Debug)]
pub struct Routes<R, H> {
    /// `api.example`
    exact: HashMap<Box<str>, HostId>,
    /// `.example` of `*.example`
    below: HashMap<Box<str>, HostId>,
    depths: Depths,
    /// Services without hosts.
    any: Option<HostId>,
    hosts: Vec<Host<H>>,
    nodes: Vec<Node>,
    /// From a node by a literal segment to the next: one table for the trees of all hosts.
    edges: HashMap<(NodeId, Box<[u8]>), NodeId>,
    paths: Vec<Path<R>>,
}

/// What was found for a host and a path.
#[derive(Debug)]
pub enum RouteMatch<'a, R, H> {
    /// The routes of the path, to be chosen by method; and what the host carries.
    Path(&'a Path<R>, &'a H),
    /// The host is known, the path is not.
    UnknownPath(&'a H),
    /// No service has this host.
    UnknownHost,
}

/// The routes that share one path of one host; they differ by their methods.
#[derive(Debug)]
pub struct Path<R> {
    /// In the order of the file.
    choices: Vec<(Option<RouteMethods>, R)>,
    /// The value of `Allow` when no route takes a method.
    allow: HeaderValue,
}

/// RouteMethods of a route; None takes all that no other route of the path names.
pub(crate) type RouteMethods = Box<[Box<str>]>;

/// One route of a service under one path.
#[derive(Debug)]
pub struct RouteEntry<R> {
    /// Where.
    pub path: PathPattern,
    /// Which methods; None for all.
    pub methods: Option<RouteMethods>,
    /// What.
    pub route: R,
}

/// Collects services, in the order of the file.
#[derive(Debug)]
pub struct Builder<R> {
    services: Vec<(Vec<HostPattern>, Vec<RouteEntry<R>>)>,
}

/// Two routes that would take the same requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The host, as a pattern; `*` for services without hosts.
    pub(crate) host: String,
    /// The path, as a pattern.
    pub(crate) path: String,
    /// Service and entry (in the order given to [`Builder::service`]) of the one that stands first.
    pub(crate) first: (usize, usize),
    /// Those of the other.
    pub(crate) second: (usize, usize),
}

type NodeId = u32;
type HostId = u32;
type PathId = u32;

#[derive(Debug)]
struct Host<H> {
    root: NodeId,
    carried: H,
}

/// What may follow on a path up to here.
#[derive(Debug, Default, Clone, Copy)]
struct Node {
    /// `/{parameter}`
    parameter: Option<NodeId>,
    /// The path ends here.
    here: Option<PathId>,
    /// `/*`: it ends here or goes on with anything.
    below: Option<PathId>,
}

/// A borrowed key of `edges`. Hashes as the owned one: an integer, then a slice.
#[derive(Hash)]
struct Edge<'a>(NodeId, &'a [u8]);

impl Equivalent<(NodeId, Box<[u8]>)> for Edge<'_> {
    fn equivalent(&self, key: &(NodeId, Box<[u8]>)) -> bool {
        self.0 == key.0 && *self.1 == *key.1
    }
}

// === impl Routes ===

impl<R, H> Routes<R, H> {
    /// An empty collection of services.
    pub fn builder() -> Builder<R> {
        Builder { services: Vec::new() }
    }

    /// Looks a request up. The host is what [`HostName`] makes of what the client sent, empty when there was none. The
    /// path is compared byte for byte; it must have passed [`is_ambiguous`].
    ///
    /// [`HostName`]: crate::domain::HostName
    pub fn find(&self, host: &str, path: &[u8]) -> RouteMatch<'_, R, H> {
        let Some(host) = self.host(host).map(|id| &self.hosts[id as usize]) else {
            return RouteMatch::UnknownHost;
        };
        let found = match path {
            // The asterisk form of OPTIONS is about the whole server.
            b"*" => self.node(host.root).below,
            [b'/', rest @ ..] => self.walk(host.root, Some(rest)),
            _ => None,
        };
        match found {
            Some(id) => RouteMatch::Path(&self.paths[id as usize], &host.carried),
            None => RouteMatch::UnknownPath(&host.carried),
        }
    }

    /// What a host carries, whatever the path.
    pub(crate) fn carried(&self, host: &str) -> Option<&H> {
        self.host(host).map(|id| &self.hosts[id as usize].carried)
    }

    fn host(&self, host: &str) -> Option<HostId> {
        let wildcard = || {
            let below = |dot| self.below.get(&host[dot..]).filter(|_| are_labels(&host[..dot]));
            self.depths.tails(host).filter_map(below).last()
        };
        self.exact.get(host).or_else(wildcard).copied().or(self.any)
    }

    /// `rest` is what follows the slash behind this node; None at the end of the path. Goes no deeper than the
    /// patterns do, and each level tries the more specific continuation first.
    fn walk(&self, at: NodeId, rest: Option<&[u8]>) -> Option<PathId> {
        let node = self.node(at);
        let Some(rest) = rest else { return node.here.or(node.below) };
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
    /// The route for a method: one that names it, else one that takes all.
    pub fn route(&self, method: &str) -> Option<&R> {
        let naming =
            |methods: &Option<RouteMethods>| methods.as_ref().is_some_and(|m| m.iter().any(|m| **m == *method));
        let named = self.choices.iter().find(|(methods, _)| naming(methods));
        named.or_else(|| self.choices.iter().find(|(methods, _)| methods.is_none())).map(|(_, route)| route)
    }

    /// All routes of the path, in the order of the file; never none.
    pub(crate) fn routes(&self) -> impl Iterator<Item = &R> {
        self.choices.iter().map(|(_, route)| route)
    }

    /// The value of `Allow` (RFC 9110 section 15.5.6).
    pub(crate) fn allow(&self) -> &HeaderValue {
        &self.allow
    }
}

// === impl Builder ===

impl<R: Clone> Builder<R> {
    /// Adds a service: its hosts (none: any host) and its routes.
    pub fn service(&mut self, hosts: Vec<HostPattern>, entries: Vec<RouteEntry<R>>) {
        self.services.push((hosts, entries));
    }

    /// Compiles. `carry` makes what a host carries out of the services that have it, by position.
    pub fn build<H>(self, carry: impl Fn(&[usize]) -> H) -> Result<Routes<R, H>, Vec<Conflict>> {
        // Most entries have a path of their own, which ends at a node of its own.
        let entries = self.services.iter().map(|(_, entries)| entries.len()).sum();
        let mut routes = Routes {
            exact: HashMap::new(),
            below: HashMap::new(),
            depths: Depths::default(),
            any: None,
            hosts: Vec::new(),
            nodes: Vec::with_capacity(entries),
            edges: HashMap::with_capacity(entries),
            paths: Vec::with_capacity(entries),
        };
        let mut conflicts = Vec::new();
        // Hosts with the same services share one tree: a service with a million hosts has one, not a million.
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
                    routes.hosts.push(Host { root, carried: carry(new.key()) });
                    let id = id(routes.hosts.len() - 1);
                    *new.insert(id)
                }
            };
            match pattern {
                None => routes.any = Some(id),
                Some(HostPattern::Exact(name)) => {
                    routes.exact.insert(name.clone(), id);
                }
                Some(HostPattern::Below(base)) => {
                    routes.depths.add(base);
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

    /// For each host pattern the services that have it; the same host twice in one service counts twice, so that it
    /// conflicts with itself.
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

/// The tree of one host while it grows.
struct Tree<'a, R, H> {
    routes: &'a mut Routes<R, H>,
    root: NodeId,
    /// Who put each choice of a path there.
    owners: HashMap<(PathId, usize), (usize, usize)>,
}

impl<R: Clone, H> Tree<'_, R, H> {
    /// Adds an entry; or says who already takes its requests.
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
            Tail::End => self.routes.node(at).here,
            Tail::Anything => self.routes.node(at).below,
        };
        let path = known.unwrap_or_else(|| {
            self.routes.paths.push(Path { choices: Vec::new(), allow: HeaderValue::from_static("") });
            let path = id(self.routes.paths.len() - 1);
            let node = &mut self.routes.nodes[at as usize];
            match entry.path.tail() {
                Tail::End => node.here = Some(path),
                Tail::Anything => node.below = Some(path),
            }
            path
        });
        let choices = &mut self.routes.paths[path as usize].choices;
        if let Some(taken) = choices.iter().position(|(methods, _)| overlap(methods.as_ref(), entry.methods.as_ref())) {
            return Some(self.owners[&(path, taken)]);
        }
        self.owners.insert((path, choices.len()), owner);
        // Most paths have one.
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

/// A route without methods takes what the others leave, so it overlaps only with another one without.
fn overlap(a: Option<&RouteMethods>, b: Option<&RouteMethods>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.iter().any(|method| b.contains(method)),
        _ => false,
    }
}

fn allow<R>(choices: &[(Option<RouteMethods>, R)]) -> HeaderValue {
    let methods: Vec<&str> = choices.iter().flat_map(|(methods, _)| methods.iter().flatten()).map(|m| &**m).collect();
    HeaderValue::from_str(&methods.join(", ")).unwrap_or(HeaderValue::from_static(""))
}

/// Tables of routes are addressed with 32 bits; four thousand million entries do not fit into memory anyway.
fn id(index: usize) -> u32 {
    u32::try_from(index).expect("fewer than 2^32 routes")
}
