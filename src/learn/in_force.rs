//! The policies in force of a configuration, and the routes that use them.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::config::Document;
use crate::cors::Settings;
use crate::problem::KeyPath;
use crate::snapshot::{Level, Route, Snapshot};

/// Maximum number of routes in the list of one policy.
const MOST_ROUTES: usize = 20;

/// A policy, and the routes that use it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PolicyInForce {
    /// Name in `cors_policies`. A policy without one gets a name from its service or route.
    pub(crate) name: String,
    /// Path of its key in the file, such as `cors_policies.pages`.
    pub(crate) place: String,
    /// The first routes that use it, in the order of the file.
    pub(crate) routes: Vec<String>,
    /// Number of all routes that use it.
    pub(crate) route_count: usize,
    #[serde(serialize_with = "given_keys")]
    pub(crate) settings: Settings,
}

/// All policies that a route uses.
#[derive(Debug, Default)]
pub(crate) struct PoliciesInForce {
    pub(crate) policies: Vec<PolicyInForce>,
    /// Position of the policy of each route, by the name of the route.
    by_route: HashMap<Box<str>, u32>,
    /// Names that several routes with different policies share.
    pub(crate) ambiguous: Vec<String>,
}

impl PoliciesInForce {
    /// Returns the policies of the routes in `only`, or of all routes if `only` is empty. The error is the name of a
    /// route that does not exist or has no policy.
    pub(crate) fn of<'n>(document: &Document, snapshot: &Snapshot, only: &'n [String]) -> Result<Self, &'n str> {
        let mut all = PoliciesInForce::default();
        let mut places: BTreeMap<String, u32> = BTreeMap::new();
        let mut ambiguous: HashSet<&str> = HashSet::new();
        let mut names: HashSet<String> = document.cors_policies.0.iter().map(|(name, _)| name.clone()).collect();
        let wanted: HashSet<&str> = only.iter().map(String::as_str).collect();
        for route in snapshot.routes().iter().filter(|route| wanted.is_empty() || wanted.contains(&*route.name)) {
            let Some((place, settings)) = written(document, route) else { continue };
            let place = place.to_string();
            let position = match places.get(&place) {
                Some(position) => *position,
                None => {
                    let position = u32::try_from(all.policies.len()).unwrap_or(u32::MAX);
                    let (name, settings) = (name(route, &mut names), settings.clone());
                    places.insert(place.clone(), position);
                    all.policies.push(PolicyInForce { name, place, routes: Vec::new(), route_count: 0, settings });
                    position
                }
            };
            match all.by_route.insert(route.name.as_ref().into(), position) {
                Some(other) if other != position => _ = ambiguous.insert(&route.name),
                _ => {}
            }
            let policy = &mut all.policies[position as usize];
            policy.route_count += 1;
            if policy.routes.len() < MOST_ROUTES {
                policy.routes.push(route.name.to_string());
            }
        }
        if let Some(unknown) = only.iter().find(|name| !all.by_route.contains_key(name.as_str())) {
            return Err(unknown);
        }
        all.by_route.retain(|route, _| !ambiguous.contains(&**route));
        all.ambiguous = ambiguous.into_iter().map(str::to_owned).collect();
        all.ambiguous.sort();
        Ok(all)
    }

    /// Returns the position of the policy of a route. Returns None if the route has no policy or is not observed.
    pub(crate) fn position(&self, route: &str) -> Option<u32> {
        self.by_route.get(route).copied()
    }
}

/// Returns the path and the settings of the policy of a route.
fn written<'d>(document: &'d Document, route: &Route) -> Option<(KeyPath, &'d Settings)> {
    let cors = route.place.cors(document, route.cors.as_ref()?.level)?;
    Some((route.policy_at()?, document.settings(cors)?))
}

/// Returns the name of a policy. A policy without a name gets the name of its service or route. All names are
/// different.
fn name(route: &Route, names: &mut HashSet<String>) -> String {
    let Some(cors) = &route.cors else { return String::new() };
    if let Some(name) = &cors.name {
        return name.to_string();
    }
    let base = match cors.level {
        Level::Top => "default",
        Level::Service => route.name.split('/').next().unwrap_or_default(),
        Level::Route => &route.name,
    };
    let usable = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let base: String = base.chars().map(usable).take(100).collect();
    let base = base.trim_matches('-');
    let mut name = base.to_owned();
    for n in 2.. {
        if names.insert(name.clone()) {
            break;
        }
        name = format!("{base}-{n}");
    }
    name
}

/// Serializes the settings without keys that have no value, because the parser refuses a key without a value.
pub(super) fn given_keys<S: Serializer>(settings: &Settings, serializer: S) -> Result<S::Ok, S::Error> {
    without_nulls(settings).serialize(serializer)
}

pub(super) fn without_nulls(settings: &Settings) -> Value {
    let mut value = serde_json::to_value(settings).unwrap_or_default();
    remove_nulls(&mut value);
    value
}

fn remove_nulls(value: &mut Value) {
    if let Some(keys) = value.as_object_mut() {
        keys.retain(|_, value| !value.is_null());
        keys.values_mut().for_each(remove_nulls);
    }
}
