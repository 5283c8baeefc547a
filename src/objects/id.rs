//! The names of objects, and their places in a configuration.

use std::fmt;

use serde_json::{Map, Value};

use super::ObjectList;
use crate::problem::{KeyPath, PathStep};

/// A top-level key with named objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Services,
    Upstreams,
    CorsPolicies,
    OriginSets,
}

/// The name of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ObjectId {
    Named {
        section: Section,
        name: String,
    },
    /// A route by its name, or without a name by its first path, as in logs.
    Route {
        service: String,
        route: String,
    },
}

// === impl Section ===

impl Section {
    pub(crate) const ALL: [Self; 4] = [Self::Services, Self::Upstreams, Self::CorsPolicies, Self::OriginSets];

    /// The key in the configuration.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Section::Services => "services",
            Section::Upstreams => "upstreams",
            Section::CorsPolicies => "cors_policies",
            Section::OriginSets => "origin_sets",
        }
    }

    pub(crate) fn of(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|section| section.key() == key)
    }
}

// === impl ObjectId ===

impl ObjectId {
    /// The place of the object. None if it does not exist.
    pub(crate) fn find(&self, values: &Value) -> Option<KeyPath> {
        let section = |section: Section| PathStep::Key(section.key().to_owned());
        match self {
            ObjectId::Named { section: Section::Services, name } => {
                let service = position(&values["services"], name, service_name)?;
                Some(KeyPath(vec![section(Section::Services), PathStep::Index(service)]))
            }
            ObjectId::Named { section: of, name } => {
                values[of.key()].get(name.as_str())?;
                Some(KeyPath(vec![section(*of), PathStep::Key(name.clone())]))
            }
            ObjectId::Route { service, route } => {
                let service = position(&values["services"], service, service_name)?;
                let route = position(&values["services"][service]["routes"], route, route_name)?;
                let routes = PathStep::Key("routes".to_owned());
                Some(KeyPath(vec![
                    section(Section::Services),
                    PathStep::Index(service),
                    routes,
                    PathStep::Index(route),
                ]))
            }
        }
    }

    /// The values with another object, or without it, and the place of the object. None if the service of a route does not
    /// exist. A new entry of a list is the last one.
    pub(super) fn replaced(&self, values: &Value, object: Option<Value>) -> Option<(Value, KeyPath)> {
        let mut new = values.clone();
        let (steps, parent) = match self {
            ObjectId::Named { section, .. } => {
                (vec![PathStep::Key(section.key().to_owned())], section_of(&mut new, *section)?)
            }
            ObjectId::Route { service, .. } => {
                let place = ObjectId::Named { section: Section::Services, name: service.clone() }.find(values)?;
                let PathStep::Index(index) = place.0[1] else { return None };
                let routes =
                    new["services"][index].as_object_mut()?.entry("routes").or_insert(Value::Array(Vec::new()));
                ([place.0, vec![PathStep::Key("routes".to_owned())]].concat(), routes)
            }
        };
        let last = match parent {
            Value::Object(entries) => {
                let ObjectId::Named { name, .. } = self else { return None };
                match object {
                    Some(object) => drop(entries.insert(name.clone(), object)),
                    None => drop(entries.shift_remove(name)),
                }
                PathStep::Key(name.clone())
            }
            Value::Array(entries) => {
                let found = self.find(values).and_then(|at| match at.0.last() {
                    Some(PathStep::Index(index)) => Some(*index),
                    _ => None,
                });
                let index = found.unwrap_or(entries.len());
                match (object, found) {
                    (Some(object), Some(index)) => entries[index] = object,
                    (Some(object), None) => entries.push(object),
                    (None, Some(index)) => drop(entries.remove(index)),
                    (None, None) => {}
                }
                PathStep::Index(index)
            }
            _ => return None,
        };
        let mut at = KeyPath(steps);
        at.0.push(last);
        Some((new, at))
    }

    /// Whether a value has the form of such objects: a list or a text for an origin set, else a mapping.
    pub(super) fn has_form_of(&self, value: &Value) -> bool {
        match self {
            ObjectId::Named { section: Section::OriginSets, .. } => value.is_array() || value.is_string(),
            ObjectId::Named { .. } | ObjectId::Route { .. } => value.is_object(),
        }
    }

    /// The values of the object with its name, for objects that contain their name. Err: another name that they have.
    pub(super) fn named(&self, value: Value) -> Result<Value, String> {
        let (name, found) = match self {
            ObjectId::Named { section: Section::Services, name } => (name, service_name(&value)),
            ObjectId::Named { .. } => return Ok(value),
            ObjectId::Route { route, .. } => (route, route_name(&value)),
        };
        match (value, found) {
            (value, Some(found)) if found == *name => Ok(value),
            // A route without a name has its first path as name, which need not be the one of the address.
            (Value::Object(object), found) if !object.contains_key("name") => {
                let _ = found;
                let first = std::iter::once(("name".to_owned(), Value::from(name.as_str())));
                Ok(Value::Object(first.chain(object).collect::<Map<_, _>>()))
            }
            (_, Some(found)) => Err(found),
            // A value of another type, which is reported when the text is loaded.
            (value, None) => Ok(value),
        }
    }
}

impl fmt::Display for ObjectId {
    /// Such as `services/api/routes/orders`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ObjectId::Named { section, name } => write!(f, "{}/{name}", section.key()),
            ObjectId::Route { service, route } => write!(f, "services/{service}/routes/{route}"),
        }
    }
}

/// The names and the values of the objects of a list.
pub(super) fn names<'v>(values: &'v Value, of: &ObjectList) -> Option<Vec<(String, &'v Value)>> {
    let entries = |list: &'v Value, name: fn(&Value) -> Option<String>| {
        let entries = list.as_array().map(Vec::as_slice).unwrap_or_default();
        entries.iter().map(|entry| (name(entry).unwrap_or_default(), entry)).collect()
    };
    Some(match of {
        ObjectList::Section(Section::Services) => entries(&values["services"], service_name),
        ObjectList::Section(section) => {
            let objects = values[section.key()].as_object();
            objects.into_iter().flatten().map(|(name, value)| (name.clone(), value)).collect()
        }
        ObjectList::Routes(service) => {
            let service = position(&values["services"], service, service_name)?;
            entries(&values["services"][service]["routes"], route_name)
        }
    })
}

/// The section of a configuration, which is created if it is missing.
fn section_of(values: &mut Value, section: Section) -> Option<&mut Value> {
    let empty = match section {
        Section::Services => Value::Array(Vec::new()),
        Section::Upstreams | Section::CorsPolicies | Section::OriginSets => Value::Object(Map::new()),
    };
    let entry = values.as_object_mut()?.entry(section.key()).or_insert(Value::Null);
    if entry.is_null() {
        *entry = empty;
    }
    Some(entry)
}

fn position(list: &Value, name: &str, name_of: fn(&Value) -> Option<String>) -> Option<usize> {
    list.as_array()?.iter().position(|entry| name_of(entry).is_some_and(|found| found == name))
}

fn service_name(service: &Value) -> Option<String> {
    text(&service["name"])
}

/// The name of a route, or its first path.
pub(super) fn route_name(route: &Value) -> Option<String> {
    text(&route["name"]).or_else(|| match &route["paths"] {
        Value::Array(paths) => text(paths.first()?),
        paths => Some(text(paths)?.split(',').next()?.trim().to_owned()),
    })
}

/// A scalar as the configuration reads it where it expects a string.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(word) => Some(word.to_string()),
        _ => None,
    }
}
