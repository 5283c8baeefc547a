//! Completes a model so that corsgate accepts it: unique names, one route for each request, and a complete request for
//! each witness.

use std::collections::{HashMap, HashSet};

use super::finding::{Finding, Kind, Outcome, Place};
use super::model::{Cors, Model, Policy, Route, Service, Upstream};
use super::witness::{Answer, Witness};
use super::{SourceFormat, closed, conditions, limits, paths, rerouted, weights};
use crate::problem::{PathStep, Problems, Severity};
use crate::route::HostPattern;

/// Checks and completes a model. Leaves out services without routes.
pub(super) fn finish(model: &mut Model, format: SourceFormat) {
    listeners(model);
    hosts(model);
    conditions::leave_out(model, format);
    prefixes(model, format);
    routes(model);
    closed::settle(model);
    let findings = &mut model.findings;
    model.services.retain_mut(|service| {
        let is_used = !service.routes.is_empty();
        if !is_used {
            abandon(service, findings);
        }
        is_used
    });
    if format.falls_through() {
        hidden(model);
    }
    for service in &mut model.services {
        let of_routes = service.routes.iter_mut().map(|route| &mut route.upstream);
        of_routes.chain([&mut service.upstream]).flatten().for_each(|upstream| weights::scale(&mut upstream.nodes));
    }
    limits::finish(model, format);
    names(model);
    witnesses(model);
}

/// Moves the findings of a route or service that is left out. Only findings about dropped parts are kept. Findings
/// about changed answers are no longer true.
pub(super) fn left_out(into: &mut Vec<Finding>, findings: &mut Vec<Finding>) {
    into.extend(findings.drain(..).filter(|finding| finding.kind.outcome() == Outcome::Dropped));
}

/// Closes the routes and services that corsgate does not accept, such as a route with an invalid header. Leaves out
/// those that are closed and still not accepted. Returns false if no problem is about a route or service.
pub(super) fn leave_out(model: &mut Model, problems: &Problems) -> bool {
    let mut routes: Vec<(usize, Option<usize>, String)> = Vec::new();
    // The lists of edits that this round has changed. Indexes into them are no longer valid.
    let mut edited: Vec<&[PathStep]> = Vec::new();
    for problem in problems.iter().filter(|problem| problem.kind.severity() == Severity::Error) {
        let why = problem.kind.fault().into_owned();
        if edited.iter().any(|list| problem.at.0.starts_with(list)) {
            continue;
        }
        if let Some((route, side, name)) = edit_at(model, &problem.at.0) {
            let edits = match side {
                "request_headers" => &mut route.behaviors.request_headers,
                _ => &mut route.behaviors.response_headers,
            };
            edits.remove.retain(|known| *known != name);
            edits.set.retain(|(known, _)| *known != name);
            edits.add.retain(|(known, _)| *known != name);
            route.findings.push(Finding::new(route.at, Kind::HeaderNotImported { name, why }));
            edited.extend(problem.at.0.get(..5));
            continue;
        }
        match &*problem.at.0 {
            [PathStep::Key(list), PathStep::Index(service), rest @ ..] if list == "services" => {
                let route = match rest {
                    [PathStep::Key(list), PathStep::Index(route), ..] if list == "routes" => Some(*route),
                    _ => None,
                };
                routes.push((*service, route, why));
            }
            [PathStep::Key(map), PathStep::Key(name), ..] if map == "upstreams" => {
                for (index, service) in model.services.iter().enumerate() {
                    let uses = |upstream: &Option<Upstream>| upstream.as_ref().is_some_and(|one| one.name == *name);
                    if uses(&service.upstream) {
                        routes.push((index, None, why.clone()));
                    }
                    let of_routes = service.routes.iter().enumerate().filter(|(_, route)| uses(&route.upstream));
                    routes.extend(of_routes.map(|(route, _)| (index, Some(route), why.clone())));
                }
            }
            _ => {}
        }
    }
    // Removes from the end, so that the other indexes stay valid. The routes of a service are removed before the
    // service.
    routes.sort_by_key(|(service, route, _)| std::cmp::Reverse((*service, *route)));
    routes.dedup_by(|one, other| (one.0, one.1) == (other.0, other.1));
    let has_any = !edited.is_empty() || !routes.is_empty();
    for (service, route, why) in routes {
        let Some(of) = model.services.get_mut(service) else { continue };
        match route {
            Some(index) => {
                let Some(route) = of.routes.get_mut(index) else { continue };
                let not_accepted = Finding::new(route.at, Kind::NotAccepted { why });
                if route.is_closed {
                    of.routes.remove(index);
                    of.findings.push(not_accepted);
                } else {
                    closed::close(route);
                    route.findings.push(not_accepted);
                }
            }
            None => {
                let not_accepted = Finding::new(of.at, Kind::NotAccepted { why });
                if of.routes.iter().all(|route| route.is_closed) {
                    model.services.remove(service);
                    model.findings.push(not_accepted);
                } else {
                    of.routes.iter_mut().for_each(closed::close);
                    (of.upstream, of.cors) = (None, Cors::Off);
                    of.findings.push(not_accepted);
                }
            }
        }
    }
    closed::settle(model);
    let findings = &mut model.findings;
    model.services.retain_mut(|service| {
        let is_used = !service.routes.is_empty();
        if !is_used {
            abandon(service, findings);
        }
        is_used
    });
    has_any
}

/// Returns the route, the list and the name of the header field, if a problem is about the edit of a header field.
fn edit_at<'m, 'p>(model: &'m mut Model, at: &'p [PathStep]) -> Option<(&'m mut Route, &'p str, String)> {
    let [
        _,
        PathStep::Index(service),
        PathStep::Key(_),
        PathStep::Index(route),
        PathStep::Key(side),
        PathStep::Key(list),
        entry,
        ..,
    ] = at
    else {
        return None;
    };
    let route = model.services.get_mut(*service)?.routes.get_mut(*route)?;
    let edits = match &**side {
        "request_headers" => &route.behaviors.request_headers,
        "response_headers" => &route.behaviors.response_headers,
        _ => return None,
    };
    let name = match (&**list, entry) {
        ("remove", PathStep::Index(index)) => edits.remove.get(*index)?.clone(),
        ("set" | "add", PathStep::Key(name)) => name.clone(),
        _ => return None,
    };
    let is_known = edits.remove.contains(&name) || edits.set.iter().chain(&edits.add).any(|(known, _)| *known == name);
    is_known.then_some((route, side, name))
}

/// Moves the findings about dropped parts out of a service that is left out.
fn abandon(service: &mut Service, findings: &mut Vec<Finding>) {
    let host = sample_host(service.hosts.first().map(String::as_str));
    for witness in service.findings.iter_mut().filter_map(|finding| finding.witness.as_mut()) {
        if witness.host.is_empty() {
            witness.host.clone_from(&host);
        }
    }
    left_out(findings, &mut service.findings);
    let mut of_policy = |cors: &mut Cors| {
        if let Cors::Policy(policy) = cors {
            let mut said: Vec<Finding> = policy.findings.drain(..).map(|(_, finding)| finding).collect();
            left_out(findings, &mut said);
        }
    };
    of_policy(&mut service.cors);
    service.routes.iter_mut().for_each(|route| of_policy(&mut route.cors));
    service.routes.iter_mut().for_each(|route| left_out(findings, &mut route.findings));
}

/// Writes hosts in corsgate's form. If no host of a service is valid, the service is left out. Otherwise the service
/// would take requests for every host.
fn hosts(model: &mut Model) {
    let findings = &mut model.findings;
    model.services.retain_mut(|service| {
        let had_hosts = !service.hosts.is_empty();
        let path = service.routes.first().and_then(|route| route.paths.first()).map(|path| sample_path(path));
        let mut seen = HashSet::new();
        let mut kept = Vec::new();
        for host in std::mem::take(&mut service.hosts) {
            match HostPattern::parse(&host) {
                Ok(pattern) => {
                    let text = pattern.to_string();
                    if seen.insert(text.clone()) {
                        kept.push(text);
                    }
                }
                Err(kind) => {
                    let why = kind.fault().into_owned();
                    let sample = match host.strip_prefix('~') {
                        Some(expression) => rerouted::sample_host(expression),
                        None => Some(host.replacen("*-", "a-", 1).replace("*.", "a.").replace('*', "example")),
                    };
                    let finding = Finding::new(service.at, Kind::HostNotImported { host, why });
                    service.findings.push(match (sample, &path) {
                        (Some(host), Some(path)) => finding.with(rerouted::witness(&host, path)),
                        _ => finding,
                    });
                }
            }
        }
        service.hosts = kept;
        let is_usable = !had_hosts || !service.hosts.is_empty();
        if !is_usable {
            abandon(service, findings);
        }
        is_usable
    });
}

/// Adds a finding to each service that the source has only at some listeners, if another service has other listeners.
fn listeners(model: &mut Model) {
    let is_same = model.services.windows(2).all(|pair| pair[0].listener == pair[1].listener);
    for service in model.services.iter_mut().filter(|_| !is_same) {
        if let Some(listener) = service.listener.clone() {
            service.findings.push(Finding::new(service.at, Kind::OneListener { listener }));
        }
    }
}

/// Gives the path without the last slash to the route that has it in the source. In corsgate, `/v1/*` also covers
/// `/v1`, so the other route gets the exact path `/v1`.
fn prefixes(model: &mut Model, format: SourceFormat) {
    for service in &mut model.services {
        for index in 0..service.routes.len() {
            for position in (0..service.routes[index].findings.len()).rev() {
                let finding = &mut service.routes[index].findings[position];
                let (Kind::PathWithoutSlash { .. }, Some(witness)) = (&finding.kind, &mut finding.witness) else {
                    continue;
                };
                if matches!(format, SourceFormat::Nginx | SourceFormat::IngressNginx) {
                    witness.before = Answer::RedirectsToSlash;
                    continue;
                }
                let path = witness.path.clone();
                let has = |route: &Route| route.paths.contains(&path);
                let covers = |route: &Route| {
                    let prefixes = route.paths.iter().filter_map(|pattern| pattern.strip_suffix("/*"));
                    let covering =
                        prefixes.filter(|prefix| path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/')));
                    covering.map(str::len).max()
                };
                let others = service.routes.iter().enumerate().filter(|(other, _)| *other != index);
                let other = others
                    .filter_map(|(other, route)| {
                        let rank = if has(route) { Some(usize::MAX) } else { covers(route) };
                        Some((rank?, std::cmp::Reverse(other)))
                    })
                    .max();
                let Some((rank, std::cmp::Reverse(other))) = other else { continue };
                service.routes[index].findings.remove(position);
                if rank != usize::MAX {
                    service.routes[other].paths.push(path);
                }
            }
        }
    }
}

/// Removes each path that an earlier route has for the same host and method. The formats sort their routes by the rules
/// of the engine, so the engine also uses the first route.
fn routes(model: &mut Model) {
    /// Host, path and method that a route takes. `None` means every host or every method.
    type Taken = HashSet<(Option<String>, String, Option<String>)>;
    let mut taken: HashMap<(Option<String>, String), (Place, Taken)> = HashMap::new();
    for service in &mut model.services {
        let hosts: Vec<Option<String>> = match service.hosts.is_empty() {
            true => vec![None],
            false => service.hosts.iter().cloned().map(Some).collect(),
        };
        let mut without_paths = Vec::new();
        for route in &mut service.routes {
            let methods: Vec<Option<String>> = match route.methods.is_empty() {
                true => vec![None],
                false => route.methods.iter().cloned().map(Some).collect(),
            };
            let (mut kept, mut findings) = (Vec::new(), Vec::new());
            for path in std::mem::take(&mut route.paths) {
                let clash = hosts.iter().find_map(|host| {
                    let (first, taken) = taken.get(&(host.clone(), shape(&path)))?;
                    let is_taken =
                        methods.iter().any(|method| taken.contains(&(host.clone(), shape(&path), method.clone())));
                    is_taken.then_some(*first)
                });
                match clash {
                    Some(first) => {
                        findings.push(Finding::new(route.at, Kind::SameRoute { path, first: first.line }));
                    }
                    None => {
                        for host in &hosts {
                            let entry = taken.entry((host.clone(), shape(&path))).or_insert((route.at, HashSet::new()));
                            entry.1.extend(methods.iter().map(|method| (host.clone(), shape(&path), method.clone())));
                        }
                        kept.push(path);
                    }
                }
            }
            route.paths = kept;
            route.findings.extend(findings);
            if route.paths.is_empty() {
                // No request reaches this route, so its policy has no effect. One finding replaces all findings about
                // the policy.
                if let (Cors::Policy(_), Some(Finding { kind: Kind::SameRoute { first, .. }, .. })) =
                    (&route.cors, route.findings.last())
                {
                    without_paths.push(Finding::new(route.at, Kind::RouteNeverReached { first: *first }));
                } else {
                    left_out(&mut without_paths, &mut route.findings);
                }
            }
        }
        service.routes.retain(|route| !route.paths.is_empty());
        service.findings.append(&mut without_paths);
    }
}

/// Removes each path that an earlier and wider route hides, for engines that take the first matching route. corsgate
/// would take the more specific route.
pub(super) fn first_wins(routes: &mut Vec<Route>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut wide: Vec<(String, Place)> = Vec::new();
    routes.retain_mut(|route| {
        let hiding = |path: &String| wide.iter().find(|(wide, _)| paths::covers(wide, path)).map(|(_, at)| at.line);
        let hidden: Vec<(String, usize)> =
            route.paths.iter().filter_map(|path| Some((path.clone(), hiding(path)?))).collect();
        if let Some((_, first)) = hidden.first().filter(|_| hidden.len() == route.paths.len()) {
            findings.push(Finding::new(route.at, Kind::RouteNeverReached { first: *first }));
            return false;
        }
        route.paths.retain(|path| hiding(path).is_none());
        let same = |(path, first)| Finding::new(route.at, Kind::SameRoute { path, first });
        route.findings.extend(hidden.into_iter().map(same));
        if route.methods.is_empty() && route.condition.is_none() {
            wide.extend(route.paths.iter().map(|path| (path.clone(), route.at)));
        }
        true
    });
    findings
}

/// Returns a pattern without the names of its parameters. `/a/{x}` and `/a/{y}` give the same text.
fn shape(path: &str) -> String {
    path.split('/').map(|segment| if segment.starts_with('{') { "{}" } else { segment }).collect::<Vec<_>>().join("/")
}

/// Adds a finding for each service whose routes a more specific host hides. In some engines, a request for the specific
/// host can still reach these routes. corsgate chooses the host first.
fn hidden(model: &mut Model) {
    let specific: Vec<(String, Vec<String>)> = model
        .services
        .iter()
        .flat_map(|service| service.hosts.iter().map(|host| (host.clone(), all_paths(service))))
        .collect();
    for service in &mut model.services {
        let mut seen = HashSet::new();
        for route in &service.routes {
            for path in &route.paths {
                let hides = specific.iter().find(|(host, paths)| {
                    covers(&service.hosts, host)
                        && !seen.contains(host)
                        && !paths.iter().any(|other| other == "/*" || other == path)
                });
                let Some((host, _)) = hides else { continue };
                seen.insert(host.clone());
                let witness =
                    Witness::route(&sample_path(path), Answer::Routed).to(&sample_host(Some(host)), &sample_path(path));
                let kind = Kind::HostHidesRoutes { host: host.clone(), service: service.name.clone() };
                service.findings.push(Finding::new(service.at, kind).with(witness));
            }
        }
    }
}

/// Whether a service takes requests for a host by a wider pattern, and not by the exact host.
fn covers(hosts: &[String], host: &str) -> bool {
    let is_wider =
        |pattern: &String| pattern != host && pattern.strip_prefix('*').is_some_and(|base| host.ends_with(base));
    hosts.is_empty() || (!hosts.iter().any(|pattern| pattern == host) && hosts.iter().any(is_wider))
}

fn all_paths(service: &Service) -> Vec<String> {
    service.routes.iter().flat_map(|route| route.paths.iter().cloned()).collect()
}

fn names(model: &mut Model) {
    let mut services = HashSet::new();
    let mut upstreams: Vec<Upstream> = Vec::new();
    for service in &mut model.services {
        service.name = unique(&service.name, "service", &mut services);
        let mut routes = HashSet::new();
        service.routes.iter_mut().for_each(|route| route.name = unique(&route.name, "route", &mut routes));
        let own = service.upstream.iter_mut();
        for upstream in own.chain(service.routes.iter_mut().filter_map(|route| route.upstream.as_mut())) {
            upstream.name = clean(&upstream.name, "upstream");
            let is_same = |other: &&Upstream| Upstream { name: upstream.name.clone(), ..(*other).clone() } == *upstream;
            match upstreams.iter().find(is_same) {
                Some(same) => upstream.name.clone_from(&same.name),
                None => {
                    let mut taken: HashSet<String> = upstreams.iter().map(|other| other.name.clone()).collect();
                    upstream.name = unique(&upstream.name, "upstream", &mut taken);
                    upstreams.push(upstream.clone());
                }
            }
        }
    }
}

/// Replaces the characters that corsgate does not accept in a name. Returns `otherwise` if nothing is left.
fn clean(name: &str, otherwise: &str) -> String {
    let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let clean: String = name.chars().map(|c| if usable(c) { c } else { '-' }).take(100).collect();
    let clean = clean.trim_matches('-').to_owned();
    if clean.is_empty() { otherwise.to_owned() } else { clean }
}

fn unique(name: &str, otherwise: &str, taken: &mut HashSet<String>) -> String {
    let name = clean(name, otherwise);
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let free = std::iter::once(name.clone()).chain(numbered).find(|name| !taken.contains(name)).unwrap_or(name);
    taken.insert(free.clone());
    free
}

/// Gives each witness a host, a path and a method that a route with its policy takes.
fn witnesses(model: &mut Model) {
    let mut of_all = None;
    for service in &mut model.services {
        let host = sample_host(service.hosts.first().map(String::as_str));
        // A request for this route shows the policy of the service.
        let shown =
            service.routes.iter().find(|route| matches!(route.cors, Cors::Inherited)).or(service.routes.first());
        let of_service = shown.map(|route| Sample::of(&host, route));
        if let Some(sample) = &of_service {
            if matches!(service.cors, Cors::Inherited) {
                of_all.get_or_insert_with(|| sample.clone());
            }
            service.findings.iter_mut().for_each(|finding| sample.complete(finding));
            if let Cors::Policy(policy) = &mut service.cors {
                sample.complete_all(policy);
            }
        }
        for route in &mut service.routes {
            let sample = Sample::of(&host, route);
            route.findings.iter_mut().for_each(|finding| sample.complete(finding));
            for witness in route.findings.iter_mut().filter_map(|finding| finding.witness.as_mut()) {
                // If the route has another path, that path may take the request.
                witness.route = Some(format!("{}/{}", service.name, route.name));
            }
            if let Cors::Policy(policy) = &mut route.cors {
                sample.complete_all(policy);
            }
        }
    }
    let sample = of_all.unwrap_or_else(|| Sample { host: "any.example".into(), path: "/".into(), method: None });
    model.findings.iter_mut().for_each(|finding| sample.complete(finding));
    if let Some(policy) = &mut model.cors {
        sample.complete_all(policy);
    }
}

/// Host, path and method of a request that a route takes.
#[derive(Clone)]
pub(super) struct Sample {
    pub(super) host: String,
    pub(super) path: String,
    /// A method of the route, if it does not take GET.
    pub(super) method: Option<String>,
}

impl Sample {
    pub(super) fn of(host: &str, route: &Route) -> Self {
        let takes_get = route.methods.is_empty() || route.methods.iter().any(|method| method == "GET");
        let other = route.methods.iter().find(|method| *method != "OPTIONS");
        Sample {
            host: host.to_owned(),
            path: sample_path(route.paths.first().map_or("/", String::as_str)),
            method: if takes_get { None } else { other.cloned() },
        }
    }

    fn complete(&self, finding: &mut Finding) {
        // A witness with a host is complete.
        let Some(witness) = finding.witness.as_mut().filter(|witness| witness.host.is_empty()) else { return };
        witness.host.clone_from(&self.host);
        if witness.path.is_empty() {
            witness.path.clone_from(&self.path);
        }
        // The request of a rerouted witness is not for this route.
        if let Some(method) = self.method.as_ref().filter(|_| !rerouted::shows(witness)) {
            match &mut witness.asks_for {
                Some((asked, _)) => asked.clone_from(method),
                None if witness.method == "GET" => witness.method.clone_from(method),
                None => {}
            }
        }
    }

    fn complete_all(&self, policy: &mut Policy) {
        policy.findings.iter_mut().for_each(|(_, finding)| self.complete(finding));
    }
}

pub(super) fn sample_host(pattern: Option<&str>) -> String {
    pattern.map_or_else(|| "any.example".to_owned(), |pattern| pattern.replace("*.", "a."))
}

fn sample_path(pattern: &str) -> String {
    let path = pattern.strip_suffix('*').unwrap_or(pattern);
    path.split('/').map(|segment| if segment.starts_with('{') { "1" } else { segment }).collect::<Vec<_>>().join("/")
}
