//! Gives hints about paths whose methods have different policies.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::Compiler;
use crate::problem::{At, ProblemKind};
use crate::route::Routes;
use crate::snapshot::{Route, RouteId, RoutePlace};

/// Maximum number of paths in one hint.
const MOST_PATHS_NAMED: usize = 3;

impl Compiler<'_> {
    /// Gives one hint for each service with paths whose methods have different policies. Browsers do not cache the
    /// answers to preflights on such paths (`Snapshot::decide`).
    pub(super) fn hint_paths_with_several_policies<H>(&mut self, table: &Routes<RouteId, H>) {
        let mut seen = HashSet::new();
        let mut by_service: BTreeMap<u32, Vec<(usize, usize)>> = BTreeMap::new();
        for path in table.paths() {
            let mut ids = path.routes().map(|id| id.0 as usize);
            let Some(first) = ids.next() else { continue };
            let policy = |id: usize| self.routes[id].policy.as_ref();
            let is_other = |id: &usize| match (policy(first), policy(*id)) {
                (None, None) => false,
                (Some(a), Some(b)) => !Arc::ptr_eq(a, b),
                _ => true,
            };
            let Some(other) = ids.find(is_other) else { continue };
            let is_cached = path.routes().any(|id| policy(id.0 as usize).is_some_and(|policy| policy.allows_caching()));
            // A route with several hosts can be in several tables. Each pair is reported once.
            if is_cached && seen.insert((first, other)) {
                by_service.entry(self.routes[first].place.service).or_default().push((first, other));
            }
        }
        // A policy with errors would count as no policy.
        if by_service.is_empty() || self.problems.any_errors() {
            return;
        }
        let root = At::root();
        for (service, pairs) in by_service {
            let shared = pairs.iter().take(MOST_PATHS_NAMED).map(|(first, other)| {
                (self.shared_path(*first, *other), [first, other].map(|id| self.name_or_place(*id)))
            });
            let (shared, more) = (shared.collect(), pairs.len().saturating_sub(MOST_PATHS_NAMED));
            let services = root.key("services");
            let at = services.index(service as usize);
            let at_routes = at.key("routes");
            let kind = ProblemKind::PoliciesShareAPath { shared, more };
            match self.routes[pairs[0].0].place.route {
                Some(route) => self.problems.add(&at_routes.index(route as usize), kind),
                None => self.problems.add(&at, kind),
            }
        }
    }

    /// Returns the name of a route, or its place in the file if it has no name.
    fn name_or_place(&self, id: usize) -> String {
        let Route { name, place: RoutePlace { service, route }, .. } = &self.routes[id];
        let (root, service) = (At::root(), *service as usize);
        let route = route.map(|route| route as usize);
        let routes = self.document.services.as_ref().and_then(|services| services.get(service)?.routes.as_ref());
        match route.filter(|route| routes.and_then(|routes| routes.get(*route)).is_some_and(|r| r.name.is_none())) {
            Some(route) => root.key("services").index(service).key("routes").index(route).path().to_string(),
            None => name.to_string(),
        }
    }

    /// Returns the text of a path that two routes have.
    fn shared_path(&self, first: usize, other: usize) -> String {
        let paths = |id: usize| {
            let RoutePlace { service, route } = self.routes[id].place;
            let service = self.document.services.as_ref()?.get(service as usize)?;
            Some(service.routes.as_ref()?.get(route? as usize)?.paths.as_ref()?.entries())
        };
        let (Some(own), Some(others)) = (paths(first), paths(other)) else { return "/*".to_owned() };
        own.iter().find(|path| others.contains(path)).or(own.first()).cloned().unwrap_or_default()
    }
}
