//! Classes of requests in two routing tables.
//!
//! Two requests are in the same class if each table gives the same result for both hosts and paths. So one request of
//! each class is enough to compare the tables. Every request is in a class, for these reasons:
//!
//! **Hosts.** A table looks up the exact name of a host, then the longest wildcard that covers the host, then the
//! services without hosts. Each exact name of the two tables is a class. For any other host, let `*.base` be the
//! longest wildcard of the two tables that covers the host. Choose a label `x` so that `x.base` is not an exact name.
//! The host and `x.base` are covered by the same wildcards. First, a wildcard that covers the host ends with `base` or
//! with a shorter suffix of `base`, so it also covers `x.base`. Second, a wildcard that covers `x.base` has a base that
//! is not longer than `base`, so it also covers the host. So `x.base` stands for all hosts of this class. The hosts
//! that no wildcard covers are the last class. Names that are too long for a host have no class.
//!
//! **Paths.** A table walks its tree one segment at a time. It tries the edge of the literal first, then `{parameter}`
//! if the segment is not empty, then `/*`. So the result depends only on the edges of the reached nodes. At a set of
//! nodes, each literal of the nodes is one kind of segment. The empty segment is another kind, and all remaining
//! segments are the last kind. Segments of the same kind reach the same nodes. The walk starts at the roots of both
//! trees, and tries one segment of each kind at each step. So the walk finds every class. If a segment reaches no node,
//! the rest of the path does not change the result.
//!
//! `OPTIONS *` has no class, because no page can send it. Ambiguous paths ([`super::is_ambiguous`]) have no class,
//! because they are never looked up in a table.

use std::collections::{BTreeSet, HashMap as StdHashMap};

use super::{Edge, Host, HostId, NodeId, Path, PathId, Routes};
use crate::domain::HostName;

/// Two tables with indexes for the walk. The old table is first.
pub(crate) struct Classes<'a, R, H> {
    tables: [&'a Routes<R, H>; 2],
    /// The literal edges of each node.
    literals: [Vec<Literals<'a>>; 2],
}

type Literals<'a> = Vec<(&'a [u8], NodeId)>;

/// Hosts with the same services in each table.
#[derive(Debug)]
pub(crate) struct HostClass {
    /// An example host of the class.
    pub(crate) host: String,
    /// Patterns of the class, such as `api.example` or `*.example`. `*` stands for all hosts that no pattern covers.
    pub(crate) patterns: Vec<String>,
    ids: [Option<HostId>; 2],
}

/// Paths with the same routes in each table.
#[derive(Debug)]
pub(crate) struct PathClass<'a, R> {
    /// An example path of the class.
    pub(crate) path: String,
    /// The path as a pattern. `{}` stands for a segment that is not a literal, and `/*` at the end stands for any rest.
    pub(crate) pattern: String,
    /// The routes of the path in each table. None if no route has the path.
    pub(crate) routes: [Option<&'a Path<R>>; 2],
}

/// Maximum number of steps in the walk over the paths of one class of hosts. Only patterns that overlap many times need
/// more steps, such as a thousand patterns `/{a}/x` together with a thousand patterns `/y/{b}`.
const MOST_STEPS: usize = 1_000_000;

impl<'a, R, H> Classes<'a, R, H> {
    pub(crate) fn new(old: &'a Routes<R, H>, new: &'a Routes<R, H>) -> Self {
        let tables = [old, new];
        let literals = tables.map(|table| {
            let mut literals = vec![Vec::new(); table.nodes.len()];
            for ((from, text), to) in &table.edges {
                literals[*from as usize].push((&**text, *to));
            }
            literals
        });
        Classes { tables, literals }
    }

    /// Returns all classes of hosts.
    pub(crate) fn hosts(&self) -> Vec<HostClass> {
        let names = |table: &'a Routes<R, H>| table.exact.keys().map(|name| &**name);
        let exact: BTreeSet<&str> = self.tables.iter().flat_map(|table| names(table)).collect();
        let bases: BTreeSet<&str> =
            self.tables.iter().flat_map(|table| table.below.keys().map(|tail| &**tail)).collect();
        let is_new = |host: &str| !exact.contains(host);
        let below = bases.iter().filter_map(|tail| {
            let host = labels().map(|label| format!("{label}{tail}")).find(|host| is_new(host))?;
            // A name that is too long for a host has no class.
            HostName::parse(&host)?;
            Some((host, format!("*{tail}")))
        });
        let is_other = |host: &String| is_new(host) && !bases.iter().any(|tail| host.ends_with(tail));
        let other = labels().map(|label| format!("{label}.test")).take(100).chain(labels()).find(is_other);
        let exact = exact.iter().map(|name| ((*name).to_owned(), (*name).to_owned()));
        let other = other.map(|host| (host, "*".to_owned()));

        let mut classes: Vec<HostClass> = Vec::new();
        let mut known: StdHashMap<[Option<HostId>; 2], usize> = StdHashMap::new();
        for (host, pattern) in exact.chain(below).chain(other) {
            let ids = self.tables.map(|table| table.host(&host));
            match known.get(&ids) {
                Some(class) => classes[*class].patterns.push(pattern),
                None => {
                    known.insert(ids, classes.len());
                    classes.push(HostClass { host, patterns: vec![pattern], ids });
                }
            }
        }
        classes
    }

    /// Returns all classes of paths for a class of hosts. None if there are too many classes.
    pub(crate) fn paths(&self, hosts: &HostClass) -> Option<Vec<PathClass<'a, R>>> {
        let roots = [0, 1].map(|i| hosts.ids[i].map(|id| self.tables[i].hosts[id as usize].root));
        let mut walk = Walk { classes: self, roots, known: StdHashMap::new(), found: Vec::new(), steps: 0 };
        walk.from(&roots.map(|root| root.into_iter().collect()), &mut String::new(), &mut String::new())?;
        Some(walk.found)
    }

    /// Returns the data of a class of hosts in each table.
    pub(crate) fn host_data(&self, hosts: &HostClass) -> [Option<&'a H>; 2] {
        let data = |i: usize| {
            let Host { data, .. } = &self.tables[i].hosts[hosts.ids[i]? as usize];
            Some(data)
        };
        [data(0), data(1)]
    }
}

/// Returns labels for example hosts.
fn labels() -> impl Iterator<Item = String> {
    let plain = ["any", "other"].into_iter().map(str::to_owned);
    plain.chain((1..).map(|number| format!("any{number}")))
}

/// A walk over the paths of both tables.
struct Walk<'w, 'a, R, H> {
    classes: &'w Classes<'a, R, H>,
    roots: [Option<NodeId>; 2],
    /// The index of each known class in `found`.
    known: StdHashMap<[Option<PathId>; 2], usize>,
    found: Vec<PathClass<'a, R>>,
    steps: usize,
}

impl<'a, R, H> Walk<'_, 'a, R, H> {
    /// Continues the walk from the nodes that `path` reaches in both trees. Returns None if the walk has too many
    /// steps. The recursion is at most one level deeper than the longest pattern has segments.
    fn from(&mut self, nodes: &[Vec<NodeId>; 2], path: &mut String, pattern: &mut String) -> Option<()> {
        let mut segments: BTreeSet<&'a [u8]> = BTreeSet::from([&b""[..]]);
        for (i, nodes) in nodes.iter().enumerate() {
            let edges = nodes.iter().flat_map(|node| &self.classes.literals[i][*node as usize]);
            segments.extend(edges.map(|(text, _)| *text));
        }
        let other = std::iter::once("x".to_owned()).chain((1..).map(|number| format!("x{number}")));
        let other = other.into_iter().find(|text| !segments.contains(text.as_bytes()))?;
        let literals = segments.iter().map(|text| (*text, true));
        for (segment, is_literal) in literals.chain([(other.as_bytes(), false)]) {
            self.steps += 1;
            if self.steps > MOST_STEPS {
                return None;
            }
            let (path_length, pattern_length) = (path.len(), pattern.len());
            let text = String::from_utf8_lossy(segment);
            let next = [0, 1].map(|i| self.after(i, &nodes[i], segment));
            let is_dead = next.iter().all(Vec::is_empty);
            path.extend(["/", &*text]);
            pattern.extend(["/", if is_literal { &*text } else { "{}" }]);
            self.add(path, pattern, path_length, is_dead);
            if !is_dead {
                self.from(&next, path, pattern)?;
            }
            path.truncate(path_length);
            pattern.truncate(pattern_length);
        }
        Some(())
    }

    /// Returns the nodes that a segment reaches from the given nodes of one tree.
    fn after(&self, i: usize, nodes: &[NodeId], segment: &[u8]) -> Vec<NodeId> {
        let table = self.classes.tables[i];
        let literal = |node: &NodeId| table.edges.get(&Edge(*node, segment)).copied();
        let parameter = |node: &NodeId| table.node(*node).parameter.filter(|_| !segment.is_empty());
        nodes.iter().flat_map(|node| literal(node).into_iter().chain(parameter(node))).collect()
    }

    /// Adds the class of a path if it is new. A known class gets the new pattern if this is a shorter pattern with
    /// `/*`, because it describes more paths.
    fn add(&mut self, path: &str, pattern: &str, before: usize, is_dead: bool) {
        let rest = path.strip_prefix('/').unwrap_or(path).as_bytes();
        let ids = [0, 1].map(|i| self.classes.tables[i].walk(self.roots[i]?, Some(rest)));
        let shown = || match is_dead {
            true => format!("{}/*", pattern.rsplit_once('/').map_or("", |(front, _)| front)),
            false => pattern.to_owned(),
        };
        match self.known.get(&ids) {
            None => {
                self.known.insert(ids, self.found.len());
                let routes = [0, 1].map(|i| Some(&self.classes.tables[i].paths[ids[i]? as usize]));
                self.found.push(PathClass { path: path.to_owned(), pattern: shown(), routes });
            }
            Some(known) => {
                let class = &mut self.found[*known];
                let depth = |pattern: &str| pattern.matches('/').count();
                let says_more =
                    |pattern: &str| !class.pattern.ends_with("/*") || depth(&class.pattern) > depth(pattern);
                // A path that ends with an empty segment is a bad example, so it replaces no other example.
                if is_dead && path.len() > before + 1 && says_more(&shown()) {
                    (class.path, class.pattern) = (path.to_owned(), shown());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pattern::MOST_SEGMENTS;
    use super::super::{HostPattern, PathPattern, RouteEntry, RouteMatch};
    use super::*;

    type Table = Routes<u32, u32>;

    fn table(services: &[(&[&str], &[&str])]) -> Table {
        let mut builder = Table::builder();
        let mut number = 0;
        for (hosts, paths) in services {
            let hosts = hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect();
            let entries = paths.iter().map(|path| {
                number += 1;
                RouteEntry {
                    path: PathPattern::parse(path).unwrap(),
                    methods: None,
                    get_implies_head: true,
                    route: number,
                }
            });
            builder.service(hosts, entries.collect());
        }
        builder.build(|services| u32::try_from(services[0]).unwrap()).unwrap()
    }

    #[test]
    fn each_class_has_a_host_and_its_patterns() {
        let old = table(&[(&["a.example", "*.example"], &["/*"]), (&["*.b.example"], &["/*"])]);
        let new = table(&[(&["a.example", "any.example", "*.example"], &["/*"]), (&[], &["/x"])]);
        let classes = Classes::new(&old, &new).hosts();
        let shown: Vec<String> =
            classes.iter().map(|class| format!("{} {}", class.host, class.patterns.join(" "))).collect();
        assert_eq!(shown, ["a.example a.example any.example *.example", "any.b.example *.b.example", "any.test *"]);
    }

    #[test]
    fn each_class_has_a_path_and_a_pattern() {
        let old = table(&[(&[], &["/users/{id}", "/users/me", "/*"])]);
        let new = table(&[(&[], &["/users/{id}", "/{tenant}/me", "/files/*"])]);
        let classes = Classes::new(&old, &new);
        let hosts = classes.hosts();
        let route = |path: Option<&Path<u32>>| path.and_then(|path| path.route("GET").copied()).unwrap_or(0);
        let paths = classes.paths(&hosts[0]).unwrap();
        let shown: Vec<String> = paths
            .iter()
            .map(|class| {
                format!("{} {} {}-{}", class.path, class.pattern, route(class.routes[0]), route(class.routes[1]))
            })
            .collect();
        assert_eq!(
            shown,
            [
                "/ /* 3-0",
                "/files/x /files/* 3-3",
                "/users/me /users/me 2-1",
                "/users/x /users/{} 1-1",
                "/x/me /{}/me 3-2"
            ]
        );
    }

    /// Checks all short paths over a small alphabet. The routes of each path must be the routes of a class.
    #[test]
    fn no_path_is_outside_the_classes() {
        let patterns =
            ["/", "/*", "/a", "/a/*", "/{}/b", "/a/{}", "/{}/{}/c", "/a/b/c", "/b/{}/*", "/{}/a/", "/{}/*", "/a//b"];
        let named = patterns.map(|pattern| pattern.replace("{}", "{p}"));
        let segments = ["", "a", "b", "c", "z"];
        let mut paths = vec![String::new()];
        for _ in 0..4 {
            let longer = paths.iter().flat_map(|path| segments.map(|segment| format!("{path}/{segment}")));
            paths = longer.chain(paths.iter().cloned()).collect();
        }
        paths.retain(|path| !path.is_empty());
        let chosen = |bits: usize| -> Vec<&str> {
            named.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, pattern)| pattern.as_str()).collect()
        };
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..300 {
            let (one, other) = (chosen(random.usize(1..4096)), chosen(random.usize(1..4096)));
            let (old, new) = (table(&[(&["h"], &one)]), table(&[(&["h"], &other)]));
            let classes = Classes::new(&old, &new);
            let hosts = classes.hosts();
            let host = hosts.iter().find(|class| class.host == "h").unwrap();
            let known: BTreeSet<[u32; 2]> = classes
                .paths(host)
                .unwrap()
                .iter()
                .map(|class| class.routes.map(|path| path.map_or(0, |path| *path.route("GET").unwrap())))
                .collect();
            let find = |table: &Table, path: &str| match table.find("h", path.as_bytes()) {
                RouteMatch::Path(path, _) => *path.route("GET").unwrap(),
                _ => 0,
            };
            for path in &paths {
                let found = [find(&old, path), find(&new, path)];
                assert!(known.contains(&found), "{path} {found:?} {one:?} {other:?}");
            }
        }
    }

    #[test]
    fn the_classes_of_the_longest_paths_are_listed() {
        let long = table(&[(&["h"], &[&"/a".repeat(MOST_SEGMENTS)])]);
        let classes = Classes::new(&long, &long);
        assert!(classes.paths(&classes.hosts()[0]).is_some());
    }
}
