//! Compares two snapshots for each class of requests, and groups the classes that have the same changes.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::ptr;
use std::rc::Rc;

use super::page::{Need, PageRequest, Upstreams};
use super::policies::{self, Claim, Pair, Stage};
use super::render::shortened;
use super::{Change, Effect, Group, Item, Kind, Methods, Place, Witness, routes};
use crate::cors::Policy;
use crate::cors::compare::GrantedBy;
use crate::explain::fetch::Credentials;
use crate::route::Path;
use crate::route::classes::{Classes, HostClass, PathClass};
use crate::snapshot::{Route, RouteId, Snapshot};

/// Methods that are always compared. TRACE and CONNECT are not in the list, because a page cannot send them.
const USUAL: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Maximum number of origins in the line of a new route.
const MOST_ORIGINS: usize = 3;

/// Returns all changes. Each group has the places with the same changes.
pub(super) fn groups(old: &Snapshot, new: &Snapshot) -> Vec<Group> {
    let mut walk = Walk {
        snapshots: [old, new],
        compared: HashMap::new(),
        allowed: HashMap::new(),
        known: HashMap::new(),
        groups: Vec::new(),
    };
    let classes = Classes::new(old.table(), new.table());
    for hosts in classes.hosts() {
        match classes.paths(&hosts) {
            None => walk.too_many(&hosts),
            Some(paths) => {
                let policies = [0, 1].map(|i| match classes.host_data(&hosts)[i] {
                    Some(policy) => policy.as_deref(),
                    None => walk.snapshots[i].default_policy(),
                });
                paths.iter().for_each(|path| walk.path(&hosts, policies, path));
            }
        }
    }
    let mut groups = walk.groups;
    for group in &mut groups {
        group.places.sort_by_key(|place| place.order);
        group.changes.sort_by_key(|change| (change.effect, change.kind));
    }
    mark_repeated(&mut groups);
    let first = |group: &Group| group.places.first().map(|place| place.order);
    groups.sort_by_cached_key(|group| (group.changes.first().map(|change| change.effect), first(group)));
    groups
}

/// Marks groups of errors whose changes are all in a group with routes of the same hosts.
fn mark_repeated(groups: &mut [Group]) {
    let has_routes = |group: &Group| group.places.iter().any(Place::has_route);
    let hosts = |group: &Group| -> BTreeSet<String> {
        group.places.iter().flat_map(|place| place.hosts.iter().cloned()).collect()
    };
    let keys = |group: &Group| -> BTreeSet<ChangeKey> { group.changes.iter().map(key).collect() };
    let routed: Vec<_> =
        groups.iter().filter(|group| has_routes(group)).map(|group| (hosts(group), keys(group))).collect();
    for group in groups.iter_mut().filter(|group| !has_routes(group)) {
        let (hosts, keys) = (hosts(group), keys(group));
        group.is_repeated = routed.iter().any(|(other, known)| hosts.is_subset(other) && keys.is_subset(known));
    }
}

/// A change without its witnesses. Places with equal keys are in the same group.
type ChangeKey = (Effect, Kind, Vec<String>);

fn key(change: &Change) -> ChangeKey {
    (change.effect, change.kind, change.items.iter().map(|item| item.text.clone()).collect())
}

struct Walk<'s> {
    snapshots: [&'s Snapshot; 2],
    /// Changes of each compared pair of policies.
    compared: HashMap<Compared, Rc<[Change]>>,
    /// The pages that each policy allows.
    allowed: HashMap<*const Policy, Rc<AllowedPages>>,
    /// Index of the group that has these changes.
    known: HashMap<Vec<ChangeKey>, usize>,
    groups: Vec<Group>,
}

/// Key of a comparison. Policies are compared by their address, because equal settings of a configuration are compiled
/// only once.
type Compared = ([Option<*const Policy>; 2], Methods, Stage);

/// The pages that a policy allows.
struct AllowedPages {
    /// Origin of one of the pages. None if the policy allows no origin that a browser sends.
    origin: Option<String>,
    /// All origin entries of the policy, for the report.
    text: String,
}

type Routes<'s> = [Option<&'s Route>; 2];
type Policies<'s> = [Option<&'s Policy>; 2];

impl<'s> Walk<'s> {
    fn too_many(&mut self, hosts: &HostClass) {
        let text = "too many paths to compare: their patterns cross each other";
        let methods = Methods { named: Vec::new(), other: None };
        let path = PathClass { path: "/".to_owned(), pattern: "/*".to_owned(), routes: [None, None] };
        self.add(place(hosts, &path, [None, None], methods), vec![Change::text(Effect::Unknown, Kind::Paths, text)]);
    }

    /// Compares the requests for a class of paths. `host_policies` are the policies for requests without a route.
    fn path(&mut self, hosts: &HostClass, host_policies: Policies<'s>, path: &PathClass<'s, RouteId>) {
        let snapshots = self.snapshots;
        let route = |i: usize, method: &str| -> Option<&'s Route> {
            Some(snapshots[i].route(path.routes[i]?.route(method)?.0))
        };
        // An error gets the common policy of all routes of the path. Without a common policy, it gets the policy of the
        // host.
        let error_policy = |i: usize| {
            let common = path.routes[i].and_then(|routes| snapshots[i].common_policy(routes));
            common.unwrap_or(host_policies[i])
        };
        for (methods, example) in methods(snapshots, path) {
            let routes = [0, 1].map(|i| route(i, &example));
            let place = place(hosts, path, routes, methods);
            let changes = match routes {
                [None, None] => {
                    let policies = [0, 1].map(error_policy);
                    self.compared(&place, policies, Stage::Errors).to_vec()
                }
                [Some(old), Some(new)] => {
                    let policies = [old.policy.as_deref(), new.policy.as_deref()];
                    let mut changes = self.compared(&place, policies, Stage::Routed).to_vec();
                    changes.extend(routes::compare((snapshots[0], old), (snapshots[1], new)));
                    changes.extend(caching(snapshots, path, policies));
                    changes.extend(report_only(&place, old, new));
                    changes
                }
                [None, Some(new)] => vec![self.route_of_one(&place, 1, new)],
                [Some(old), None] => {
                    // A page that could not read the response of the route may be able to read the error.
                    let policies = [old.policy.as_deref(), error_policy(1)];
                    let errors = self.compared(&place, policies, Stage::Errors);
                    let wider = errors.iter().filter(|change| change.effect.is_wider()).cloned();
                    std::iter::once(self.route_of_one(&place, 0, old)).chain(wider).collect()
                }
            };
            if !changes.is_empty() {
                self.add(place, changes);
            }
        }
    }

    /// Returns the changes between two policies at a place.
    fn compared(&mut self, place: &Place, policies: Policies<'s>, stage: Stage) -> Rc<[Change]> {
        if policies.iter().all(Option::is_none) {
            return Rc::from([]);
        }
        let key = (policies.map(|policy| policy.map(ptr::from_ref)), place.methods.clone(), stage);
        if let Some(changes) = self.compared.get(&key) {
            return changes.clone();
        }
        let pair = Pair { old: policies[0], new: policies[1], methods: &place.methods, stage };
        let changes: Rc<[Change]> =
            policies::compare(pair).into_iter().flat_map(|claim| self.checked(claim, place)).collect();
        self.compared.insert(key, changes.clone());
        changes
    }

    /// Runs the witnesses of a claim. Items whose witness does not show the effect become a separate change.
    fn checked(&self, claim: Claim, place: &Place) -> Vec<Change> {
        let Claim { effect, kind, items } = claim;
        let (mut shown, mut others) = (Vec::new(), Vec::new());
        for (text, request) in items {
            let witness = request.and_then(|request| self.witness(request, effect, place));
            match witness {
                Some(_) => shown.push(Item { text, witness }),
                None => others.push(Item { text, witness }),
            }
        }
        let unshown = match effect {
            Effect::Allowed | Effect::Unknown => Effect::Unknown,
            // The upstream can allow the request, even if the witness does not show this.
            Effect::Upstream => Effect::Upstream,
            Effect::Refused | Effect::Changed => Effect::Changed,
        };
        let changes = [Change::new(effect, kind, shown), Change::new(unshown, kind, others)];
        changes.into_iter().filter(|change| !change.items.is_empty()).collect()
    }

    /// Runs a request. Returns None if the request does not show the effect.
    fn witness(&self, request: PageRequest, effect: Effect, place: &Place) -> Option<Witness> {
        let request = PageRequest { host: place.host.clone(), path: place.path.clone(), ..request };
        let answers = request.run(self.snapshots[0], self.snapshots[1]);
        let shows = match effect {
            Effect::Allowed | Effect::Upstream | Effect::Unknown => !answers.old.is_allowed && answers.new.is_allowed,
            Effect::Refused => answers.old.is_allowed && !answers.new.is_allowed,
            Effect::Changed => true,
        };
        shows.then_some(Witness { request, answers })
    }

    /// Returns the change for a route that only one snapshot has.
    fn route_of_one(&mut self, place: &Place, side: usize, route: &Route) -> Change {
        let policy = route.policy.as_deref();
        let method = place.methods.all().find(|method| policy.is_none_or(|policy| policy.allows_method(method)));
        let pages = policy.map(|policy| self.pages(policy));
        let origin = match &pages {
            Some(pages) => pages.origin.clone(),
            None => Some("https://app.example".to_owned()),
        };
        let includes = policy.is_some_and(|policy| policy.credentials() == GrantedBy::Policy);
        let request = origin.zip(method).map(|(origin, method)| PageRequest {
            host: String::new(),
            path: String::new(),
            method: method.to_owned(),
            origin,
            headers: Vec::new(),
            credentials: if includes { Credentials::Include } else { Credentials::Omit },
            needs: Need::Response,
            upstream: if policy.is_some() { Upstreams::Silent } else { Upstreams::Permissive },
        });
        let effect = match (side, policy) {
            // No page can use the route, because no request of a page is allowed.
            _ if request.is_none() => Effect::Changed,
            (1, Some(_)) => Effect::Allowed,
            (1, None) => Effect::Upstream,
            _ => Effect::Refused,
        };
        let word = if side == 1 { "new" } else { "removed" };
        let of = pages.map(|pages| format!(", for pages of {}", pages.text)).unwrap_or_default();
        let text = format!("{word}: {}{of}", routes::end(self.snapshots[side], route));
        let witness = request.and_then(|request| self.witness(request, effect, place));
        let effect = match (effect, &witness) {
            (Effect::Allowed, None) => Effect::Unknown,
            (Effect::Refused, None) => Effect::Changed,
            (effect, _) => effect,
        };
        Change::new(effect, Kind::Route, vec![Item { text, witness }])
    }

    fn pages(&mut self, policy: &Policy) -> Rc<AllowedPages> {
        let make =
            || AllowedPages { origin: policy.some_origin(), text: shortened(&policy.origin_texts(), MOST_ORIGINS) };
        self.allowed.entry(ptr::from_ref(policy)).or_insert_with(|| Rc::new(make())).clone()
    }

    fn add(&mut self, place: Place, changes: Vec<Change>) {
        match self.known.entry(changes.iter().map(key).collect()) {
            Entry::Occupied(group) => {
                let group = &mut self.groups[*group.get()];
                // A request with a route is a better witness than a request that gets an error.
                if place.has_route() && !group.places.iter().any(Place::has_route) {
                    group.changes = changes;
                }
                group.places.push(place);
            }
            Entry::Vacant(group) => {
                group.insert(self.groups.len());
                self.groups.push(Group { places: vec![place], changes, is_repeated: false });
            }
        }
    }
}

/// Groups the methods of a path by route. Each group has one example method.
fn methods(snapshots: [&Snapshot; 2], path: &PathClass<'_, RouteId>) -> Vec<(Methods, String)> {
    let mut named: BTreeSet<&str> = BTreeSet::new();
    for (i, routes) in path.routes.iter().enumerate() {
        let Some(routes) = routes else { continue };
        named.extend(routes.methods());
        let policies = routes.routes().filter_map(|id| snapshots[i].route(id.0).policy.as_deref());
        named.extend(policies.flat_map(Policy::named_methods));
    }
    let is_sent = |method: &&str| !["TRACE", "CONNECT", "TRACK"].iter().any(|never| never.eq_ignore_ascii_case(method));
    let others = named.iter().copied().filter(|method| !USUAL.contains(method));
    let all: Vec<&str> = USUAL.into_iter().chain(others.filter(is_sent)).collect();
    let mut candidates = std::iter::once("PROPFIND".to_owned()).chain((1..).map(|number| format!("OTHER{number}")));
    let other = candidates.find(|method| !named.contains(method.as_str())).unwrap_or_default();
    let ids = |method: &str| {
        [0, 1].map(|i: usize| path.routes[i].and_then(|routes: &Path<RouteId>| routes.route(method)).map(|id| id.0))
    };
    let mut classes: Vec<([Option<u32>; 2], Methods, String)> = Vec::new();
    for method in all {
        let ids = ids(method);
        match classes.iter_mut().find(|(known, ..)| *known == ids) {
            Some((_, methods, _)) => methods.named.push(method.to_owned()),
            None => {
                let methods = Methods { named: vec![method.to_owned()], other: None };
                classes.push((ids, methods, method.to_owned()));
            }
        }
    }
    let ids = ids(&other);
    match classes.iter_mut().find(|(known, ..)| *known == ids) {
        Some((_, methods, _)) => methods.other = Some(other),
        None => classes.push((ids, Methods { named: Vec::new(), other: Some(other.clone()) }, other)),
    }
    classes.into_iter().map(|(_, methods, example)| (methods, example)).collect()
}

fn place(hosts: &HostClass, path: &PathClass<'_, RouteId>, routes: Routes<'_>, methods: Methods) -> Place {
    let order = |route: &Route| (route.place.service as usize) << 32 | route.place.route.unwrap_or(0) as usize;
    Place {
        routes: routes.map(|route| route.map(|route| route.name.to_string())),
        order: routes[1].or(routes[0]).map_or(usize::MAX, order),
        hosts: hosts.patterns.clone(),
        host: hosts.host.clone(),
        path: path.path.clone(),
        pattern: path.pattern.clone(),
        methods,
    }
}

/// Returns the names of the keys that differ between the two report-only policies.
fn report_only(place: &Place, old: &Route, new: &Route) -> Option<Change> {
    let text = match (old.report_only.as_deref(), new.report_only.as_deref()) {
        (None, None) => return None,
        (None, Some(_)) => "none -> a policy".to_owned(),
        (Some(_), None) => "a policy -> none".to_owned(),
        (old, new) => {
            let claims = policies::compare(Pair { old, new, methods: &place.methods, stage: Stage::Routed });
            let kinds: BTreeSet<Kind> = claims.iter().map(|claim| claim.kind).collect();
            if kinds.is_empty() {
                return None;
            }
            kinds.into_iter().map(Kind::words).collect::<Vec<_>>().join(", ")
        }
    };
    Some(Change::text(Effect::Changed, Kind::ReportOnly, text))
}

/// Compares the caching of preflight answers in browsers. They must not cache the answers if the methods of the path
/// have several policies.
fn caching(snapshots: [&Snapshot; 2], path: &PathClass<'_, RouteId>, policies: Policies<'_>) -> Option<Change> {
    let (Some(old), Some(new)) = (policies[0], policies[1]) else { return None };
    let is_common = |i: usize| path.routes[i].is_some_and(|routes| snapshots[i].common_policy(routes).is_some());
    let caches = [is_common(0) && old.allows_caching(), is_common(1) && new.allows_caching()];
    // A different max_age is reported separately.
    let text = match caches {
        [true, false] if !is_common(1) => "no longer: the methods of the path have several policies",
        [false, true] if !is_common(0) => "again: the methods of the path have one policy",
        _ => return None,
    };
    Some(Change::text(Effect::Changed, Kind::Caching, text))
}
