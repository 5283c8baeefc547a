//! Compares two policies for one class of requests, and builds an example request for each difference.
//!
//! All requests of a class have the same policies and the same methods, so the result is true for all of them.

use super::page::{Need, PageRequest, Upstreams};
use super::{Effect, Kind, Methods};
use crate::cors::compare::{Exposed, GrantedBy, OriginEntry, Witness};
use crate::cors::fetch_names::{is_forbidden_response_header, is_safelisted_method, is_safelisted_response_header};
use crate::cors::{Policy, PreflightMatch, ResourcePolicy, is_unsafe};
use crate::explain::fetch::Credentials;

/// A difference whose witnesses have not run yet.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) effect: Effect,
    pub(super) kind: Kind,
    /// Changed values. Each value has a request that shows the change. The request is None if no such request exists,
    /// or if none was found.
    pub(super) items: Vec<(String, Option<PageRequest>)>,
}

/// Both policies, and the methods of the requests.
#[derive(Clone, Copy)]
pub(super) struct Pair<'p> {
    /// None if there is no policy, and so no CORS handling.
    pub(super) old: Option<&'p Policy>,
    pub(super) new: Option<&'p Policy>,
    pub(super) methods: &'p Methods,
    pub(super) stage: Stage,
}

/// The requests to which the policies apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// Requests that have a route in both configurations.
    Routed,
    /// Requests that have no route in the new configuration. A page can read the error if its request needs no
    /// preflight.
    Errors,
}

/// A header that no policy names.
const OTHER_HEADER: &str = "x-some-header";

/// Returns all differences. The caller fills in the host and the path of each request.
pub(super) fn compare(pair: Pair<'_>) -> Vec<Claim> {
    let mut claims = Vec::new();
    pair.origins(Effect::Allowed, &mut claims);
    pair.origins(Effect::Refused, &mut claims);
    pair.policy_itself(&mut claims);
    if let (Some(old), Some(new)) = (pair.old, pair.new) {
        let both = pair.usable(Some(old), Some(new));
        let origin = old.origin_of_both(new);
        if origin.is_some() {
            let origin = origin.as_ref().and_then(|origin| match origin {
                Witness::Origin(origin) => Some(origin.as_str()),
                Witness::Unknown => None,
            });
            pair.methods(old, new, origin, &mut claims);
            if let Some(method) = both {
                let shared = Shared { old, new, origin, method, stage: pair.stage };
                shared.credentials(&mut claims);
                shared.headers(&mut claims);
                shared.exposed(&mut claims);
                shared.private_network(&mut claims);
            }
        }
        if pair.stage == Stage::Routed {
            settings(old, new, &mut claims);
        }
    }
    pair.timing(&mut claims);
    pair.resource_policy(&mut claims);
    pair.refused_origins(&mut claims);
    pair.cross_site(&mut claims);
    claims.retain(|claim| !claim.items.is_empty());
    claims
}

impl Pair<'_> {
    /// Returns a method that both policies allow. A policy of None allows every method.
    fn usable(&self, one: Option<&Policy>, other: Option<&Policy>) -> Option<&str> {
        let all = || self.methods.all().filter(|method| self.can_use(method, one) && self.can_use(method, other));
        ["GET", "POST"].into_iter().find(|usual| all().any(|method| method == *usual)).or_else(|| all().next())
    }

    fn can_use(&self, method: &str, policy: Option<&Policy>) -> bool {
        match self.stage {
            Stage::Routed => policy.is_none_or(|policy| policy.allows_method(method)),
            Stage::Errors => is_safelisted_method(method.as_bytes()),
        }
    }

    fn request(&self, origin: &str, method: &str) -> PageRequest {
        request(self.stage, origin, method)
    }

    /// Adds the origins that only one policy allows.
    fn origins(&self, effect: Effect, claims: &mut Vec<Claim>) {
        let (wide, narrow) = match effect {
            Effect::Allowed => (self.new, self.old),
            _ => (self.old, self.new),
        };
        let Some(wide) = wide else { return };
        // Without such a method, a page of this origin cannot send any request of the class.
        let Some(method) = self.usable(Some(wide), None) else { return };
        let credentials = match wide.credentials() {
            GrantedBy::Policy => Credentials::Include,
            GrantedBy::Upstream | GrantedBy::Nobody => Credentials::Omit,
        };
        let request = |origin: &str| PageRequest { credentials, ..self.request(origin, method) };
        entries(wide.origins_beyond(narrow), effect, Kind::Origin, &request, claims);
    }

    /// Adds the change if only one side has a policy. Without a policy, the CORS headers of the upstream reach the
    /// page.
    fn policy_itself(&self, claims: &mut Vec<Claim>) {
        let (policy, effect, text) = match (self.old, self.new) {
            (Some(old), None) => (old, Effect::Upstream, "none: the upstream's own CORS headers are sent"),
            (None, Some(new)) => (new, Effect::Refused, "the upstream's own CORS headers"),
            _ => return,
        };
        // An origin that the policy refuses. The upstream may still allow this origin.
        let foreign = match policy.origin_of_none(None) {
            Some(Witness::Origin(origin)) => Some(origin),
            Some(Witness::Unknown) | None => None,
        };
        let method = self.usable(None, None);
        let request = foreign
            .zip(method)
            .map(|(origin, method)| PageRequest { upstream: Upstreams::Permissive, ..self.request(&origin, method) });
        // The gateway's own errors carry no headers from an upstream.
        if self.stage == Stage::Routed {
            claims.push(Claim { effect, kind: Kind::Policy, items: vec![(text.to_owned(), request)] });
        }
    }

    /// Adds the methods that only one policy allows, for origins that both policies allow.
    fn methods(&self, old: &Policy, new: &Policy, origin: Option<&str>, claims: &mut Vec<Claim>) {
        if self.stage == Stage::Errors {
            return;
        }
        for (effect, wide, narrow) in [(Effect::Allowed, new, old), (Effect::Refused, old, new)] {
            let only = self.methods.all().filter(|method| wide.allows_method(method) && !narrow.allows_method(method));
            let items = only.map(|method| {
                let is_other = self.methods.other.as_deref() == Some(method);
                let text = if is_other { "any other method" } else { method };
                (text.to_owned(), origin.map(|origin| self.request(origin, method)))
            });
            claims.push(Claim { effect, kind: Kind::Method, items: items.collect() });
        }
    }

    /// Adds the origins to which only one policy sends `Timing-Allow-Origin`. Browsers check this header in every
    /// response, so the method does not matter.
    fn timing(&self, claims: &mut Vec<Claim>) {
        let (Some(old), Some(new)) = (self.old, self.new) else {
            return self.timing_of_one(claims);
        };
        let Some(method) = self.methods.all().next() else { return };
        let request = |origin: &str| PageRequest { needs: Need::Timing, ..self.request(origin, method) };
        entries(new.timing_beyond(Some(old)), Effect::Allowed, Kind::Timing, &request, claims);
        entries(old.timing_beyond(Some(new)), Effect::Refused, Kind::Timing, &request, claims);
        let (effect, text) = match (old.passes_timing(), new.passes_timing()) {
            (false, true) => (Effect::Upstream, "the upstream decides"),
            (true, false) => (Effect::Refused, "Timing-Allow-Origin of the upstream"),
            _ => return,
        };
        if self.stage == Stage::Routed {
            let request = PageRequest { upstream: Upstreams::Permissive, ..request("https://timing.example") };
            claims.push(Claim { effect, kind: Kind::Timing, items: vec![(text.to_owned(), Some(request))] });
        }
    }

    /// Adds the origins that get `Timing-Allow-Origin`, if only one side has a policy.
    fn timing_of_one(&self, claims: &mut Vec<Claim>) {
        let Some(method) = self.methods.all().next() else { return };
        let request = |origin: &str| PageRequest { needs: Need::Timing, ..self.request(origin, method) };
        for (effect, policy) in [(Effect::Allowed, self.new), (Effect::Refused, self.old)] {
            let beyond = policy.map(|policy| policy.timing_beyond(None)).unwrap_or_default();
            entries(beyond, effect, Kind::Timing, &request, claims);
        }
    }

    /// Adds the change of `Cross-Origin-Resource-Policy`. Without CORS, pages send only GET here, for example for an image.
    fn resource_policy(&self, claims: &mut Vec<Claim>) {
        let [old, new] = [self.old, self.new].map(|policy| policy.and_then(Policy::resource_policy));
        if old == new || self.stage == Stage::Errors || !self.methods.all().any(|method| method == "GET") {
            return;
        }
        let load = |same_site, upstream| PageRequest {
            needs: Need::Load { same_site },
            upstream,
            ..self.request("https://foreign.example", "GET")
        };
        // Pages of the same site notice only a change from or to `same-origin`.
        let same_site = [old, new].iter().flatten().all(|policy| *policy < ResourcePolicy::CrossOrigin);
        let silent = Upstreams::Silent;
        let (effect, request) = match (old, new) {
            (Some(old), Some(new)) if old < new => (Effect::Allowed, load(same_site, silent)),
            (Some(_), Some(_)) => (Effect::Refused, load(same_site, silent)),
            (None, Some(ResourcePolicy::CrossOrigin)) => (Effect::Allowed, load(false, Upstreams::Restrictive)),
            (None, _) => (Effect::Refused, load(false, silent)),
            (Some(ResourcePolicy::CrossOrigin), None) => (Effect::Refused, load(false, Upstreams::Restrictive)),
            (Some(_), None) => (Effect::Upstream, load(false, silent)),
        };
        let word = |policy: Option<ResourcePolicy>| policy.map_or("the upstream's", ResourcePolicy::word);
        let text = format!("{} -> {}", word(old), word(new));
        claims.push(Claim { effect, kind: Kind::ResourcePolicy, items: vec![(text, Some(request))] });
    }

    /// Adds the change if only one side rejects requests of refused origins with 403.
    fn refused_origins(&self, claims: &mut Vec<Claim>) {
        let rejects = |policy: Option<&Policy>| policy.is_some_and(Policy::rejects);
        let (effect, policy, other) = match (rejects(self.old), rejects(self.new)) {
            (true, false) => (Effect::Allowed, self.old, self.new),
            (false, true) => (Effect::Refused, self.new, self.old),
            _ => return,
        };
        // If the other policy allows every origin that this policy refuses, the report of origins is sufficient.
        let Some(origin) = policy.and_then(|policy| policy.origin_of_none(other)) else { return };
        let Some(method) = self.methods.all().next() else { return };
        if self.stage == Stage::Errors {
            return;
        }
        let request = match origin {
            Witness::Origin(origin) => Some(PageRequest { needs: Need::Arrival, ..self.request(&origin, method) }),
            Witness::Unknown => None,
        };
        let text = match effect {
            Effect::Allowed => "their requests reach the route; they got 403",
            _ => "their requests get 403; they reached the route",
        };
        claims.push(Claim { effect, kind: Kind::RefusedOrigins, items: vec![(text.to_owned(), request)] });
    }

    /// Adds the change if only one side rejects cross-site requests that change state. Forms and WebSockets do not need
    /// the permission of a policy, so the allowed methods of the policies do not matter.
    fn cross_site(&self, claims: &mut Vec<Claim>) {
        let rejects = |policy: Option<&Policy>| policy.is_some_and(Policy::rejects_cross_site);
        let (effect, policy, other) = match (rejects(self.old), rejects(self.new)) {
            (true, false) => (Effect::Allowed, self.old, self.new),
            (false, true) => (Effect::Refused, self.new, self.old),
            _ => return,
        };
        if self.stage == Stage::Errors {
            return;
        }
        let Some(origin) = policy.and_then(|policy| policy.origin_of_cross_site(other)) else { return };
        let unsafe_method = self.methods.all().find(|method| is_unsafe(method));
        let websocket = self.methods.all().find(|method| *method == "GET");
        let (method, needs, requests) = match (unsafe_method, websocket) {
            (Some(method), _) => (method, Need::Arrival, "requests with an unsafe method"),
            (None, Some(method)) => (method, Need::WebSocket, "WebSockets"),
            (None, None) => return,
        };
        let request = match origin {
            Witness::Origin(origin) => Some(PageRequest { needs, ..self.request(&origin, method) }),
            Witness::Unknown => None,
        };
        let text = match effect {
            Effect::Allowed => {
                format!("{requests} of pages of other origins reach the route; they got 403")
            }
            _ => format!("{requests} of pages of other origins get 403; they reached the route"),
        };
        claims.push(Claim { effect, kind: Kind::CrossSite, items: vec![(text, request)] });
    }
}

/// Adds a claim for entries of origins. Entries without a known witness become a separate claim.
fn entries(
    entries: Vec<OriginEntry>,
    effect: Effect,
    kind: Kind,
    request: &dyn Fn(&str) -> PageRequest,
    claims: &mut Vec<Claim>,
) {
    let (mut items, mut unknown) = (Vec::new(), Vec::new());
    for OriginEntry { text, witness, .. } in entries {
        match witness {
            Witness::Origin(origin) => items.push((text, Some(request(&origin)))),
            Witness::Unknown => unknown.push((text, None)),
        }
    }
    claims.push(Claim { effect, kind, items });
    // An unknown refusal does not allow more requests, so it counts as a plain change.
    let effect = if effect == Effect::Allowed { Effect::Unknown } else { Effect::Changed };
    claims.push(Claim { effect, kind, items: unknown });
}

/// Two policies, with an origin and a method that both policies allow.
struct Shared<'p> {
    old: &'p Policy,
    new: &'p Policy,
    /// None if the origin is not known.
    origin: Option<&'p str>,
    method: &'p str,
    stage: Stage,
}

impl Shared<'_> {
    fn request(&self) -> Option<PageRequest> {
        self.origin.map(|origin| request(self.stage, origin, self.method))
    }

    fn sides(&self) -> [(Effect, &Policy, &Policy); 2] {
        [(Effect::Allowed, self.new, self.old), (Effect::Refused, self.old, self.new)]
    }

    fn credentials(&self, claims: &mut Vec<Claim>) {
        let (old, new) = (self.old.credentials(), self.new.credentials());
        let with = |upstream| {
            self.request().map(|request| PageRequest { credentials: Credentials::Include, upstream, ..request })
        };
        let (effect, text, request) = match (old, new) {
            (GrantedBy::Nobody | GrantedBy::Upstream, GrantedBy::Policy) => {
                (Effect::Allowed, "cookies and other credentials", with(Upstreams::Silent))
            }
            (GrantedBy::Policy, GrantedBy::Nobody) => {
                (Effect::Refused, "cookies and other credentials", with(Upstreams::Silent))
            }
            (GrantedBy::Policy, GrantedBy::Upstream) => (
                Effect::Refused,
                "cookies and other credentials, unless the upstream allows them",
                with(Upstreams::Silent),
            ),
            // The gateway's own errors carry no headers from an upstream.
            _ if self.stage == Stage::Errors => return,
            (GrantedBy::Nobody, GrantedBy::Upstream) => {
                (Effect::Upstream, "Access-Control-Allow-Credentials of the upstream", with(Upstreams::Permissive))
            }
            (GrantedBy::Upstream, GrantedBy::Nobody) => {
                (Effect::Refused, "Access-Control-Allow-Credentials of the upstream", with(Upstreams::Permissive))
            }
            _ => return,
        };
        claims.push(Claim { effect, kind: Kind::Credentials, items: vec![(text.to_owned(), request)] });
    }

    fn headers(&self, claims: &mut Vec<Claim>) {
        if self.stage == Stage::Errors {
            return;
        }
        let mut names: Vec<String> = self.old.named_headers().chain(self.new.named_headers()).collect();
        names.sort();
        names.dedup();
        let other = other_name(OTHER_HEADER, &names);
        names.push(other.clone());
        for (effect, wide, narrow) in self.sides() {
            let only = names.iter().filter(|name| wide.allows_header(name) && !narrow.allows_header(name));
            let items = only.map(|name| {
                let text = if *name == other { "any other header" } else { name.as_str() };
                let request = self.request().map(|request| PageRequest { headers: vec![name.clone()], ..request });
                (text.to_owned(), request)
            });
            claims.push(Claim { effect, kind: Kind::RequestHeader, items: items.collect() });
        }
    }

    fn exposed(&self, claims: &mut Vec<Claim>) {
        let reads = |name: &str, upstream| {
            self.request().map(|request| PageRequest { needs: Need::Header(name.to_owned()), upstream, ..request })
        };
        let (old, new) = (self.old.exposed(), self.new.exposed());
        let mut names: Vec<String> = old.names.iter().chain(&new.names).map(|name| name.to_ascii_lowercase()).collect();
        names.retain(|name| name != "*" && !is_safelisted_response_header(name) && !is_forbidden_response_header(name));
        names.sort();
        names.dedup();
        let other = other_name(OTHER_HEADER, &names);
        names.push(other.clone());
        for (effect, wide, narrow) in [(Effect::Allowed, &new, &old), (Effect::Refused, &old, &new)] {
            let only = names.iter().filter(|name| exposes(wide, name) && !exposes(narrow, name));
            let items = only.map(|name| {
                let text = if *name == other { "any other header" } else { name.as_str() };
                (text.to_owned(), reads(name, Upstreams::Silent))
            });
            claims.push(Claim { effect, kind: Kind::ExposedHeader, items: items.collect() });
        }
        let (effect, text) = match (old.by_upstream, new.by_upstream) {
            (false, true) => (Effect::Upstream, "Access-Control-Expose-Headers of the upstream"),
            (true, false) => (Effect::Refused, "Access-Control-Expose-Headers of the upstream"),
            _ => return,
        };
        if self.stage == Stage::Routed {
            let request = reads(&other, Upstreams::Permissive);
            claims.push(Claim { effect, kind: Kind::ExposedHeader, items: vec![(text.to_owned(), request)] });
        }
    }

    fn private_network(&self, claims: &mut Vec<Claim>) {
        let effect = match (self.old.allows_private_network(), self.new.allows_private_network()) {
            (false, true) => Effect::Allowed,
            (true, false) => Effect::Refused,
            _ => return,
        };
        if self.stage == Stage::Errors {
            return;
        }
        let request = self.request().map(|request| PageRequest { needs: Need::PrivateNetwork, ..request });
        claims.push(Claim {
            effect,
            kind: Kind::PrivateNetwork,
            items: vec![("preflights for a private network".to_owned(), request)],
        });
    }
}

/// Adds the changed settings that do not change which requests are allowed.
fn settings(old: &Policy, new: &Policy, claims: &mut Vec<Claim>) {
    let (old_statuses, new_statuses) = (old.preflight_statuses(), new.preflight_statuses());
    for (kind, old, new) in [
        (Kind::MaxAge, format!("{} s", old.max_age()), format!("{} s", new.max_age())),
        (Kind::PreflightMatch, matched(old).to_owned(), matched(new).to_owned()),
        (Kind::PreflightStatus, old_statuses.0.as_u16().to_string(), new_statuses.0.as_u16().to_string()),
        (Kind::CacheControl, cache_control(old), cache_control(new)),
        (Kind::RefusedStatus, old_statuses.1.as_u16().to_string(), new_statuses.1.as_u16().to_string()),
    ] {
        if old != new {
            let items = vec![(format!("{old} -> {new}"), None)];
            claims.push(Claim { effect: Effect::Changed, kind, items });
        }
    }
}

fn cache_control(policy: &Policy) -> String {
    policy.cache_control().unwrap_or("none").to_owned()
}

fn matched(policy: &Policy) -> &'static str {
    match policy.preflight_match() {
        PreflightMatch::Standard => "standard",
        PreflightMatch::Origin => "origin",
        PreflightMatch::Any => "any",
    }
}

fn request(stage: Stage, origin: &str, method: &str) -> PageRequest {
    PageRequest {
        host: String::new(),
        path: String::new(),
        method: method.to_owned(),
        origin: origin.to_owned(),
        headers: Vec::new(),
        credentials: Credentials::Omit,
        needs: match stage {
            Stage::Routed => Need::Response,
            Stage::Errors => Need::Error,
        },
        upstream: Upstreams::Silent,
    }
}

fn exposes(exposed: &Exposed<'_>, name: &str) -> bool {
    exposed.names.iter().any(|known| *known == "*" || known.eq_ignore_ascii_case(name))
}

/// Returns a name that is not in the list.
fn other_name(name: &str, names: &[String]) -> String {
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let mut candidates = std::iter::once(name.to_owned()).chain(numbered);
    candidates.find(|name| !names.contains(name)).unwrap_or_default()
}
