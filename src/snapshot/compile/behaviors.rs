//! Compiles the behaviors of services and routes, and the destinations of their requests.

use std::sync::Arc;

use super::Compiler;
use crate::behavior::Behaviors;
use crate::behavior::answer::Answer;
use crate::behavior::clients::Clients;
use crate::behavior::compression::Compression;
use crate::behavior::forward_auth::ForwardAuth;
use crate::behavior::headers::HeaderEdits;
use crate::behavior::rate_limit::RateLimit;
use crate::behavior::rewrite::{Rewrite, UpstreamHost};
use crate::behavior::split::{Split, SplitSettings};
use crate::config::{BehaviorKeys, EndKeys};
use crate::notation::OffOr;
use crate::problem::{At, Known, ProblemKind, Problems};
use crate::route::PathPattern;
use crate::snapshot::{End, SplitEnd};

impl Behaviors {
    /// Compiles the behaviors of a service or a route. A key replaces the same key of `above` as a whole, as `cors`
    /// does. Only the edits of headers are added to those of `above`. `owner` is the name of the service or of the
    /// route.
    pub(super) fn compile(
        keys: &BehaviorKeys<'_>,
        owner: &str,
        above: &Self,
        at: &At<'_>,
        problems: &mut Problems,
    ) -> Self {
        // The pattern has no `..`, so a new key does not compile until it is used here. `Compiler::forward_auth`
        // compiles `forward_auth`, because that key can have an upstream.
        let BehaviorKeys {
            clients,
            rate_limit,
            forward_auth: _,
            strip_prefix,
            path,
            upstream_host,
            request_headers,
            response_headers,
            compression,
        } = *keys;
        let mut all = above.clone();
        if let Some(clients) = clients {
            all.clients = Some(Arc::new(Clients::compile(clients, &at.key("clients"), problems)));
        }
        if let Some(limit) = rate_limit {
            all.rate_limit = match limit {
                OffOr::Off => None,
                OffOr::Value(limit) => RateLimit::compile(limit, owner, &at.key("rate_limit"), problems).map(Arc::new),
            };
        }
        if strip_prefix.is_some() || path.is_some() {
            all.rewrite = Some(Arc::new(Rewrite::compile(strip_prefix, path, at, problems)));
        }
        if let Some(host) = upstream_host {
            all.upstream_host = UpstreamHost::compile(host, &at.key("upstream_host"), problems);
        }
        if let Some(edits) = request_headers {
            let at = at.key("request_headers");
            let edits = HeaderEdits::of_requests(edits, above.request_headers.as_deref(), &at, problems);
            all.request_headers = Some(Arc::new(edits));
        }
        if let Some(edits) = response_headers {
            let at = at.key("response_headers");
            let edits = HeaderEdits::of_responses(edits, above.response_headers.as_deref(), &at, problems);
            all.response_headers = Some(Arc::new(edits));
        }
        if let Some(compression) = compression {
            let compiled = Compression::compile(compression, &at.key("compression"), problems);
            all.compression = compiled.map(Arc::new);
        }
        all
    }

    /// Returns the behaviors. None if the route has no behaviors besides routing and CORS.
    pub(super) fn some(&self) -> Option<Arc<Self>> {
        (!self.is_empty()).then(|| Arc::new(self.clone()))
    }
}

impl BehaviorKeys<'_> {
    /// Whether a key is set.
    pub(super) fn any(&self) -> bool {
        *self != BehaviorKeys::default()
    }
}

impl EndKeys<'_> {
    /// Whether a key is set.
    pub(super) fn any(&self) -> bool {
        *self != EndKeys::default()
    }
}

impl<'d> Compiler<'d> {
    /// Returns the destination of the requests of a service or a route. None without a key, and for an invalid value.
    pub(super) fn end(&mut self, keys: &EndKeys<'d>, owner: &str, at: &At<'_>) -> Option<End> {
        let EndKeys { upstream, split, respond, redirect } = *keys;
        let set = [
            ("upstream", upstream.is_some()),
            ("split", split.is_some()),
            ("respond", respond.is_some()),
            ("redirect", redirect.is_some()),
        ];
        let mut set = set.into_iter().filter(|(_, set)| *set).map(|(key, _)| key);
        if let (Some(one), Some(other)) = (set.next(), set.next()) {
            self.problems.add(&at.key(other), ProblemKind::ExclusiveKeys { one, other });
        }
        if let Some(upstream) = upstream {
            return self.use_upstream(upstream, owner, &at.key("upstream")).map(End::Upstream);
        }
        if let Some(split) = split {
            return self.split(split, &at.key("split"));
        }
        let respond = respond.and_then(|answer| Answer::respond(answer, &at.key("respond"), self.problems));
        let redirect = redirect.and_then(|answer| Answer::redirect(answer, &at.key("redirect"), self.problems));
        respond.or(redirect).map(|answer| End::Answer(Arc::new(answer)))
    }

    /// Warns if the key of a rate limit is a header that the gateway removes before.
    pub(super) fn warn_about_rate_key(&mut self, behaviors: &Behaviors, own: &BehaviorKeys<'_>, at: &At<'_>) {
        let limit = behaviors.rate_limit.as_ref().filter(|_| own.rate_limit.is_some());
        if let Some(name) = limit.and_then(|limit| limit.key_header()) {
            self.warn_if_removed(name.as_str(), &at.key("rate_limit").key("key"));
        }
    }

    /// Compiles `forward_auth` of a service or a route. Without the key, the setting in `behaviors` stays.
    pub(super) fn forward_auth(
        &mut self,
        behaviors: &mut Behaviors,
        keys: &BehaviorKeys<'d>,
        owner: &str,
        at: &At<'_>,
    ) {
        let at = at.key("forward_auth");
        let settings = match keys.forward_auth {
            None => return,
            Some(OffOr::Off) => {
                behaviors.forward_auth = ForwardAuth::off(behaviors.forward_auth.as_deref()).map(Arc::new);
                return;
            }
            Some(OffOr::Value(settings)) => settings,
        };
        let upstream = match &settings.upstream {
            Some(upstream) => self.use_upstream(upstream, owner, &at.key("upstream")),
            None => {
                self.problems.add(&at.key("upstream"), ProblemKind::Missing { example: "upstream: auth" });
                None
            }
        };
        self.positive(settings.timeout, "a duration such as `5s`", &at.key("timeout"));
        let above = behaviors.forward_auth.as_deref();
        let compiled = ForwardAuth::compile(settings, upstream.map(|id| id.0), above, &at, self.problems);
        behaviors.forward_auth = compiled.map(Arc::new);
    }

    fn split(&mut self, settings: &'d SplitSettings, at: &At<'_>) -> Option<End> {
        let sticky = settings.sticky.as_deref().map(|text| self.hash_on("sticky", text, &at.key("sticky")));
        let (ids, known) = (&self.upstream_ids, &self.document.upstreams);
        let split = Split::compile(settings, at, self.problems, |name, at, problems| match ids.get(name) {
            Some(id) => *id,
            None => {
                let known = Known::instead_of(name, known.0.iter().map(|(name, _)| name.clone()).collect());
                problems.add(at, ProblemKind::UnknownName { what: "upstream", name: name.to_owned(), known });
                None
            }
        });
        Some(End::Split(Arc::new(SplitEnd { split: split?, sticky: sticky.flatten() })))
    }

    /// Warns about paths of a route that do not begin with the prefix to remove. `own` has the keys of the route, if
    /// they can have the prefix. Without `own`, the prefix is that of the service. `at` is the place of the route or of
    /// the service.
    pub(super) fn check_strip_prefix(
        &mut self,
        behaviors: &Behaviors,
        paths: &[(usize, PathPattern)],
        own: Option<&BehaviorKeys<'_>>,
        at: &At<'_>,
    ) {
        let Some(prefix) = behaviors.rewrite.as_ref().and_then(|rewrite| rewrite.stripped()) else { return };
        let Some((_, path)) = paths.iter().find(|(_, path)| !path.begins_with(prefix)) else { return };
        let kind = ProblemKind::StripPrefixMismatch { prefix: prefix.into(), path: path.to_string() };
        match own.is_some_and(|own| own.strip_prefix.is_some()) {
            true => self.problems.add(&at.key("strip_prefix"), kind),
            false => self.problems.add(&at.key("path").key("strip_prefix"), kind),
        }
    }
}
