//! The route of a request, with the part of the document that configures it.

use std::sync::Arc;

use crate::config::Document;
use crate::cors::{self, CorsRequest, OriginSets, Origins, Policy, Settings};
use crate::explain::simulation::Step;
use crate::notation::List;
use crate::problem::{At, KeyPath, PathStep, Problems};
use crate::snapshot::{Level, Route};

/// A compiled route and the document that it came from.
#[derive(Clone, Copy)]
pub(in crate::explain) struct RouteConfig<'d> {
    pub(in crate::explain) document: &'d Document,
    pub(in crate::explain) route: &'d Route,
}

impl<'d> RouteConfig<'d> {
    /// Returns the settings of the route's policy, and their place.
    pub(in crate::explain) fn settings(&self) -> Option<(&'d Settings, KeyPath)> {
        let at = self.route.policy_at()?;
        let place = self.route.cors.as_ref()?;
        Some((self.document.settings(self.route.place.cors(self.document, place.level)?)?, at))
    }

    /// Returns the policies of the levels outside `level`, from the service to the top of the file.
    pub(super) fn outer_policies(&self, level: Level) -> impl Iterator<Item = (Level, &'d Settings)> {
        let levels = [Level::Service, Level::Top].into_iter().filter(move |other| *other < level);
        let (document, place) = (self.document, self.route.place);
        levels.filter_map(move |level| Some((level, document.settings(place.cors(document, level)?)?)))
    }

    /// Returns the place of a key of the policy. The policy may not have the key.
    pub(in crate::explain) fn policy_key(&self, key: &str) -> Option<KeyPath> {
        let mut at = self.route.policy_at()?;
        at.0.push(PathStep::Key(key.into()));
        Some(at)
    }

    /// Returns the place of the first key of the policy that allows origins.
    pub(super) fn origins_at(&self) -> Option<KeyPath> {
        let (settings, _) = self.settings()?;
        let key = match settings {
            Settings { allow_origins: Some(_), .. } => "allow_origins",
            Settings { allow_origin_sets: Some(_), .. } => "allow_origin_sets",
            _ => "allow_origins_by_regex",
        };
        self.policy_key(key)
    }

    /// Returns all origin lists of the policy: `allow_origins`, and each set of `allow_origin_sets`. Each list has its
    /// place in the file.
    pub(super) fn listed_origins(&self) -> Vec<(&'d [String], KeyPath)> {
        let Some((settings, at)) = self.settings() else { return Vec::new() };
        let below =
            |at: &KeyPath, key: &str| KeyPath(at.0.iter().cloned().chain([PathStep::Key(key.into())]).collect());
        let own = settings.allow_origins.iter().map(|list| (list.entries(), below(&at, "allow_origins")));
        let root = KeyPath(vec![PathStep::Key("origin_sets".into())]);
        let names = settings.allow_origin_sets.iter().flat_map(List::entries);
        let sets = names.filter_map(|name| {
            let (_, list) = self.document.origin_sets.0.iter().find(|(known, _)| known == name)?;
            Some((list.entries(), below(&root, name)))
        });
        own.chain(sets).collect()
    }

    /// Returns the outer level whose policy would allow the origin. The route's own policy replaces that policy.
    pub(super) fn shadowed_policy(&self, step: &Step<'_>) -> Option<Level> {
        let level = self.route.cors.as_ref()?.level;
        // Sets of origins can be large, and are compiled here again. So this returns early without an outer policy.
        self.outer_policies(level).next()?;
        let facts = CorsRequest { method: &step.method, headers: &step.headers, own_origin: step.own_origin() };
        let sets = origin_sets(self.document);
        let allows = |settings: &Settings| {
            let policy = Policy::compile(settings, &sets, &At::root(), &mut Problems::default());
            policy.is_some_and(|policy| policy.decide(&facts).edits.value(cors::Field::AllowOrigin).is_some())
        };
        self.outer_policies(level).find(|(_, settings)| allows(settings)).map(|(level, _)| level)
    }

    /// Returns the names that `allow_headers` does not allow, and true if it has a `*`.
    pub(in crate::explain) fn missing_headers(&self, names: &[String]) -> (Vec<String>, bool) {
        let star = self.settings().is_none_or(|(settings, _)| match &settings.allow_headers {
            Some(list) => list.entries().iter().any(|entry| entry == "*"),
            None => settings.allow_header_sets.is_none(),
        });
        let lacks = |name: &&String| !self.route.policy.as_ref().is_some_and(|policy| policy.allows_header(name));
        (names.iter().filter(lacks).cloned().collect(), star)
    }
}

fn origin_sets(document: &Document) -> OriginSets {
    let compile = |list| Origins::compile(list, &At::root(), &mut Problems::default()).map(Arc::new);
    document.origin_sets.0.iter().map(|(name, list)| (name.clone(), compile(list))).collect()
}
