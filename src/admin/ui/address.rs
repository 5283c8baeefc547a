//! The addresses of the pages: `/ui/` and, below it, those of the API.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::config::PartKind;
use crate::config::form::FormOf;
use crate::objects::{ObjectId, Section};

/// Prefix of all pages.
pub(in crate::admin) const PREFIX: &str = "/ui";

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// All objects.
    Home,
    Login,
    Logout,
    Object(ObjectId),
    /// A form for an object that does not exist.
    New(NewObject),
}

/// The place of a new object, which has no name yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NewObject {
    In(Section),
    RouteOf(String),
}

/// Characters that are encoded in a segment of a path.
const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}');

impl Address {
    /// The page of a path. None if there is no such page.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let rest = path.strip_prefix(PREFIX)?;
        let segments: Option<Vec<String>> = rest.strip_prefix('/').unwrap_or(rest).split('/').map(decoded).collect();
        let segments = segments?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        Some(match segments[..] {
            [""] => Address::Home,
            ["login"] => Address::Login,
            ["logout"] => Address::Logout,
            ["new", section] => Address::New(NewObject::In(Section::of(section)?)),
            ["new", "services", service, "routes"] => Address::New(NewObject::RouteOf(service.to_owned())),
            [section, name] if !name.is_empty() => {
                Address::Object(ObjectId::Named { section: Section::of(section)?, name: name.to_owned() })
            }
            ["services", service, "routes", route] if !service.is_empty() && !route.is_empty() => {
                Address::Object(ObjectId::Route { service: service.to_owned(), route: route.to_owned() })
            }
            _ => return None,
        })
    }

    pub(super) fn path(&self) -> String {
        let segment = |name: &str| utf8_percent_encode(name, SEGMENT).to_string();
        match self {
            Address::Home => format!("{PREFIX}/"),
            Address::Login => format!("{PREFIX}/login"),
            Address::Logout => format!("{PREFIX}/logout"),
            Address::Object(ObjectId::Named { section, name }) => {
                format!("{PREFIX}/{}/{}", section.key(), segment(name))
            }
            Address::Object(ObjectId::Route { service, route }) => {
                format!("{PREFIX}/services/{}/routes/{}", segment(service), segment(route))
            }
            Address::New(NewObject::In(section)) => format!("{PREFIX}/new/{}", section.key()),
            Address::New(NewObject::RouteOf(service)) => format!("{PREFIX}/new/services/{}/routes", segment(service)),
        }
    }
}

impl NewObject {
    pub(super) fn named(&self, name: &str) -> ObjectId {
        let name = name.to_owned();
        match self {
            NewObject::In(section) => ObjectId::Named { section: *section, name },
            NewObject::RouteOf(service) => ObjectId::Route { service: service.clone(), route: name },
        }
    }

    pub(super) fn form(&self) -> FormOf {
        match self {
            NewObject::In(section) => FormOf::Part(kind(*section)),
            NewObject::RouteOf(_) => FormOf::Route,
        }
    }
}

/// The form of an object.
pub(super) fn form_of(id: &ObjectId) -> FormOf {
    match id {
        ObjectId::Named { section, .. } => FormOf::Part(kind(*section)),
        ObjectId::Route { .. } => FormOf::Route,
    }
}

fn kind(section: Section) -> PartKind {
    match section {
        Section::Services => PartKind::Service,
        Section::Upstreams => PartKind::Upstream,
        Section::CorsPolicies => PartKind::Policy,
        Section::OriginSets => PartKind::OriginSet,
    }
}

fn decoded(segment: &str) -> Option<String> {
    let text = percent_decode_str(segment).decode_utf8().ok()?;
    (!text.contains(char::is_control)).then(|| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_page_has_one_address() {
        for (path, known) in [
            ("/ui/", true),
            ("/ui/login", true),
            ("/ui/logout", true),
            ("/ui/services/api", true),
            ("/ui/cors_policies/a%2Fb%20%22%3Cscript%3E", true),
            ("/ui/services/api/routes/%2Forders%2F*", true),
            ("/ui/new/cors_policies", true),
            ("/ui/new/services/api/routes", true),
            ("/ui/services/", false),
            ("/ui/services", false),
            ("/ui/policies/a", false),
            ("/ui/new/policies", false),
            ("/ui/services/api/routes/", false),
            ("/ui/upstreams/api/routes/a", false),
            ("/ui/services/%00", false),
            ("/ui/services/%ff", false),
            ("/uix", false),
            ("/ui//", false),
        ] {
            let found = Address::parse(path);
            assert_eq!(found.as_ref().map(Address::path), known.then(|| path.to_owned()), "{path}: {found:?}");
        }
        assert_eq!(Address::parse("/ui"), Some(Address::Home));
    }
}
