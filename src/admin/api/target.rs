//! The target of a request, its options and its preconditions.

use http::{HeaderMap, header};
use percent_encoding::percent_decode_str;
use url::form_urlencoded::parse;

use super::Action;
use super::error::{ApiError, ErrorCode};
use crate::objects::{Condition, ObjectId, ObjectList, Section};

/// A resource of the API.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    List(ObjectList),
    Object(ObjectId),
}

/// The query.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Whether the change is only tried.
    pub(super) dry_run: bool,
}

/// Keys of queries in which other APIs accept a token. A URL is in logs and in histories.
const KEYS_OF_TOKENS: [&str; 5] = ["token", "access_token", "api_key", "apikey", "key"];

impl Target {
    /// The target of a path. Each segment is percent-decoded, so a name may have a slash: `%2F`.
    pub(super) fn parse(path: &str) -> Result<Self, ApiError> {
        let unknown = || {
            ApiError::new(
                ErrorCode::NotFound,
                "no such path; write /api/v1/SECTION, /api/v1/SECTION/NAME or /api/v1/services/NAME/routes/ROUTE, where \
                 SECTION is services, upstreams, cors_policies or origin_sets",
            )
        };
        let segments = path.strip_prefix("/api/v1/").ok_or_else(unknown)?.split('/');
        let segments: Option<Vec<String>> = segments.map(decoded).collect();
        let segments = segments.ok_or_else(unknown)?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        if segments.iter().any(|segment| segment.is_empty()) {
            return Err(unknown());
        }
        let section = Section::of(segments[0]).ok_or_else(unknown)?;
        Ok(match segments[1..] {
            [] => Target::List(ObjectList::Section(section)),
            [name] => Target::Object(ObjectId::Named { section, name: name.to_owned() }),
            [service, "routes"] if section == Section::Services => Target::List(ObjectList::Routes(service.to_owned())),
            [service, "routes", route] if section == Section::Services => {
                Target::Object(ObjectId::Route { service: service.to_owned(), route: route.to_owned() })
            }
            _ => return Err(unknown()),
        })
    }

    pub(super) fn allows(&self, action: Action) -> bool {
        match self {
            Target::List(_) => action == Action::Read,
            Target::Object(_) => true,
        }
    }

    /// The value of `Allow`.
    pub(super) fn allowed(&self) -> &'static str {
        match self {
            Target::List(_) => "GET, HEAD",
            Target::Object(_) => "GET, HEAD, PUT, PATCH, DELETE",
        }
    }
}

impl Options {
    pub(super) fn parse(query: &str) -> Result<Self, ApiError> {
        let mut options = Options::default();
        for (key, value) in parse(query.as_bytes()) {
            match (&*key, &*value) {
                ("dry_run", "true") => options.dry_run = true,
                ("dry_run", "false") => options.dry_run = false,
                (key, _) if KEYS_OF_TOKENS.contains(&&*key.to_ascii_lowercase()) => {
                    let message = "a token in a URL is in logs and histories: revoke it, and send another one in \
                                   `Authorization: Bearer TOKEN`";
                    return Err(ApiError::new(ErrorCode::TokenInUrl, message));
                }
                _ => return Err(ApiError::new(ErrorCode::BadQuery, "the only parameter is `dry_run=true`")),
            }
        }
        Ok(options)
    }
}

/// The precondition of a change: `If-Match` or `If-None-Match: *` (RFC 9110 section 13).
pub(super) fn condition(headers: &HeaderMap) -> Result<Condition, ApiError> {
    let bad = |message| ApiError::new(ErrorCode::BadPrecondition, message);
    let values = |name| -> Result<Option<String>, ApiError> {
        let values = headers.get_all(name).iter().map(|value| value.to_str());
        let values: Result<Vec<&str>, _> = values.collect();
        let values = values.map_err(|_| bad("a precondition must be ASCII"))?;
        Ok((!values.is_empty()).then(|| values.join(",").trim().to_owned()))
    };
    match (values(header::IF_MATCH)?, values(header::IF_NONE_MATCH)?) {
        (None, None) => Ok(Condition::Always),
        (None, Some(all)) if all == "*" => Ok(Condition::Absent),
        (None, Some(_)) => Err(bad("a change accepts `If-None-Match: *` only")),
        (Some(all), None) if all == "*" => Ok(Condition::Exists),
        (Some(tags), None) => tags.split(',').map(|tag| strong(tag.trim())).collect::<Option<Vec<_>>>().map_or_else(
            || Err(bad("write `If-Match: \"ETAG\"` with the `ETag` of the object, in quotes")),
            |versions| Ok(Condition::Version(versions)),
        ),
        (Some(_), Some(_)) => Err(bad("write either `If-Match` or `If-None-Match`")),
    }
}

/// The value of an entity tag. A weak tag never matches.
fn strong(tag: &str) -> Option<String> {
    let tag = tag.strip_prefix("W/").map_or(tag, |_| "\"\"");
    let inner = tag.strip_prefix('"')?.strip_suffix('"')?;
    (!inner.contains('"')).then(|| inner.to_owned())
}

/// A segment of a path. None if it is not UTF-8, or has control characters.
fn decoded(segment: &str) -> Option<String> {
    let text = percent_decode_str(segment).decode_utf8().ok()?;
    (!text.contains(char::is_control)).then(|| text.into_owned())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    type Fields = &'static [(&'static str, &'static str)];

    #[test]
    fn paths_name_lists_and_objects() {
        let named = |section, name: &str| Some(Target::Object(ObjectId::Named { section, name: name.into() }));
        let route = |service: &str, route: &str| {
            Some(Target::Object(ObjectId::Route { service: service.into(), route: route.into() }))
        };
        for (path, expected) in [
            ("services", Some(Target::List(ObjectList::Section(Section::Services)))),
            ("services/api/routes", Some(Target::List(ObjectList::Routes("api".into())))),
            ("upstreams/api", named(Section::Upstreams, "api")),
            ("cors_policies/a%2Fb", named(Section::CorsPolicies, "a/b")),
            ("origin_sets/..", named(Section::OriginSets, "..")),
            ("origin_sets/routes", named(Section::OriginSets, "routes")),
            ("services/api/routes/%2Forders%2F%2a", route("api", "/orders/*")),
            ("", None),
            ("listeners/0", None),
            ("services/", None),
            ("services//routes", None),
            ("services/a/routes/", None),
            ("services/a/routes/b/c", None),
            ("services/a/b", None),
            ("upstreams/a/routes", None),
            ("upstreams/a%00", None),
            ("upstreams/a%0a", None),
            ("upstreams/%ff", None),
        ] {
            assert_eq!(Target::parse(&format!("/api/v1/{path}")).ok(), expected, "{path}");
        }
        assert!(Target::parse("/api/v2/services").is_err());
    }

    #[test]
    fn the_query_has_no_token() {
        for (query, expected) in [
            ("", Ok(false)),
            ("dry_run=true", Ok(true)),
            ("dry_run=false", Ok(false)),
            ("dry_run=", Err("bad_query")),
            ("dry_run=1", Err("bad_query")),
            ("dryrun=true", Err("bad_query")),
            ("dry_run=true&token=x", Err("token_in_url")),
            ("API_KEY=x", Err("token_in_url")),
        ] {
            let options = Options::parse(query).map(|options| options.dry_run);
            assert_eq!(options.map_err(|error| error.code().code()), expected, "{query}");
        }
    }

    #[test]
    fn preconditions_are_strict() {
        let version = |versions: &[&str]| Ok(Condition::Version(versions.iter().map(|v| (*v).to_owned()).collect()));
        let cases: [(Fields, Result<Condition, ()>); 11] = [
            (&[], Ok(Condition::Always)),
            (&[("if-match", "*")], Ok(Condition::Exists)),
            (&[("if-none-match", "*")], Ok(Condition::Absent)),
            (&[("if-match", "\"a\"")], version(&["a"])),
            (&[("if-match", "\"a\", \"b\"")], version(&["a", "b"])),
            (&[("if-match", "\"a\""), ("if-match", "\"b\"")], version(&["a", "b"])),
            (&[("if-match", "W/\"a\"")], version(&[""])),
            (&[("if-match", "a")], Err(())),
            (&[("if-match", "")], Err(())),
            (&[("if-none-match", "\"a\"")], Err(())),
            (&[("if-match", "*"), ("if-none-match", "*")], Err(())),
        ];
        for (fields, expected) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(condition(&headers).map_err(|_| ()), expected, "{fields:?}");
        }
    }
}
