//! Method and header names: the lists of a policy, and the names that a preflight requests.
//!
//! A list is compiled together with the finished header value that announces it. Requested names are compared in place,
//! so a hostile list costs no allocation. [`MAX_NAMES`] and [`MAX_NAMES_BYTES`] limit the time.

use std::cmp::Ordering;

use http::HeaderValue;
use http::header::{HeaderMap, HeaderName};

use super::fetch_names::{
    Direction, direction, is_cors_response_header, is_forbidden_method, is_forbidden_request_header,
    is_forbidden_response_header, is_normalized_method, is_safelisted_method, is_safelisted_response_header,
};
use super::header_sets::HeaderSet;
use crate::notation::List;
use crate::per_thread::FinishedValue;
use crate::problem::{At, ProblemKind, Problems};

/// Maximum number of header names in one preflight. Browsers list the headers that a page sets; usual lists have fewer
/// than 20 names.
pub(crate) const MAX_NAMES: usize = 128;
/// Maximum size of the header names in one preflight, in bytes.
pub(crate) const MAX_NAMES_BYTES: usize = 8 * 1024;
/// Maximum length of a header name or method in a configuration, in bytes.
const MAX_TOKEN: usize = 256;

/// `allow_methods`, compiled.
#[derive(Debug)]
pub(crate) enum AllowedMethods {
    /// `*`: every method that is a token.
    Any {
        /// The header value without credentials. With credentials the requested method is echoed.
        value: FinishedValue,
    },
    /// The listed methods, and always GET, HEAD and POST.
    Listed {
        /// The methods, in the order of the list. They are case-sensitive.
        names: Vec<Box<str>>,
        /// The header value. None if no method is listed, because an empty header is never sent.
        value: Option<FinishedValue>,
    },
}

/// `allow_headers`, compiled.
#[derive(Debug)]
pub(crate) enum RequestHeaders {
    /// `*`: every name except `Authorization`, unless the list has that too (Fetch, "CORS non-wildcard request-header
    /// name").
    Any {
        /// Whether the list has `Authorization` in addition to `*`.
        authorization: bool,
        /// The header value without credentials. With credentials the requested names are echoed.
        value: FinishedValue,
    },
    Listed {
        names: NameSet,
        /// The header value. None if no name is listed, because an empty header is never sent.
        value: Option<FinishedValue>,
    },
}

/// Header names, sorted, compared without case.
#[derive(Debug, Default)]
pub(crate) struct NameSet(Box<[Box<str>]>);

/// The reason why a list of requested headers is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListFault {
    /// More than [`MAX_NAMES`] names or [`MAX_NAMES_BYTES`] bytes.
    TooLong,
    /// A name is not allowed, or is not a token.
    NotAllowed,
}

// === impl AllowedMethods ===

impl AllowedMethods {
    /// A missing key means `*`. An empty list allows only the safelisted methods.
    pub(super) fn compile(list: Option<&List>, at: &At<'_>, problems: &mut Problems) -> Self {
        let mut names: Vec<Box<str>> = Vec::new();
        let mut any = list.is_none();
        for (i, entry) in non_empty(list, at, problems) {
            let at = at.index(i);
            if entry == "*" {
                any = true;
                continue;
            }
            if is_word_for_any(entry) {
                problems.add(&at, ProblemKind::WordForAny { text: entry.into() });
                continue;
            }
            if !is_token(entry.as_bytes()) || entry.len() > MAX_TOKEN {
                problems.add(&at, ProblemKind::BadMethod { text: entry.into() });
                continue;
            }
            let upper = entry.to_ascii_uppercase();
            if is_forbidden_method(entry) {
                problems.add(&at, ProblemKind::MethodNeverSent { method: entry.into() });
            }
            let name = match &*upper {
                normalized if is_normalized_method(normalized) => normalized,
                "PATCH" if entry != "PATCH" => {
                    problems.add(&at, ProblemKind::MethodCase { method: entry.into(), upper: upper.clone() });
                    entry
                }
                _ => entry,
            };
            if !names.iter().any(|known| **known == *name) {
                names.push(name.into());
            }
        }
        if any && let Some(list) = list {
            warn_redundant(list, at, problems, |_| true);
        }
        match any {
            true => Self::Any { value: joined(std::iter::once("*").chain(names.iter().map(|n| &**n))) },
            false => Self::Listed { value: (!names.is_empty()).then(|| joined(names.iter().map(|n| &**n))), names },
        }
    }

    /// Whether a preflight that requests this method is allowed. Safelisted methods always are (Fetch, "CORS-preflight
    /// fetch", step 7).
    pub(crate) fn allow(&self, method: &[u8]) -> bool {
        match self {
            Self::Any { .. } => is_token(method),
            Self::Listed { names, .. } => {
                is_safelisted_method(method) || names.iter().any(|name| name.as_bytes() == method)
            }
        }
    }
}

// === impl RequestHeaders ===

impl RequestHeaders {
    /// A missing key means `*`. An empty list allows only headers that need no permission. With sets, a missing key
    /// allows no other header.
    pub(super) fn compile(
        list: Option<&List>,
        sets: Option<&List>,
        credentials: bool,
        at_policy: &At<'_>,
        problems: &mut Problems,
    ) -> Self {
        let (at, at_sets) = (&at_policy.key("allow_headers"), &at_policy.key("allow_header_sets"));
        let mut parsed = header_names(list, at, problems, |name, at, problems| {
            if is_forbidden_request_header(name) {
                problems.add(at, ProblemKind::HeaderNeverSent { name: name.into() });
            } else if direction(name) == Direction::Response {
                let is_no_use_there = is_cors_response_header(name)
                    || is_safelisted_response_header(name)
                    || is_forbidden_response_header(name);
                let move_to = (!is_no_use_there).then_some("expose_headers");
                problems
                    .add(at, ProblemKind::HeaderOtherDirection { name: name.into(), key: "allow_headers", move_to });
            }
        });
        let parsed_sets = HeaderSet::parse(sets, at_sets, problems);
        if parsed.any && (list.is_some() || sets.is_none()) {
            for (i, set) in parsed_sets {
                let text = set.word().to_owned();
                problems.add(&at_sets.index(i), ProblemKind::MeaninglessBesideAny { text });
            }
            let authorization = parsed.names.iter().any(|name| name.eq_ignore_ascii_case("authorization"));
            if let Some(list) = list {
                // With credentials the requested names are echoed, so an entry for `Authorization` has no effect
                // either.
                warn_redundant(list, at, problems, |name| credentials || !name.eq_ignore_ascii_case("authorization"));
            }
            if !credentials && !authorization {
                problems.add(at, ProblemKind::AnyHeaderWithoutAuthorization);
            }
            return Self::Any { authorization, value: joined(std::iter::once("*").chain(parsed.iter())) };
        }
        parsed.add(parsed_sets.iter().flat_map(|(_, set)| set.request_headers()));
        let value = (!parsed.names.is_empty()).then(|| joined(parsed.iter()));
        Self::Listed { value, names: parsed.names.into_iter().collect() }
    }

    /// Whether all headers that a preflight requests are allowed.
    pub(crate) fn allow(&self, headers: &HeaderMap, credentials: bool) -> Result<(), ListFault> {
        requested(headers, |name| self.allow_name(name, credentials))
    }

    /// Whether a header is allowed. With credentials Fetch treats `*` as an ordinary name, so the names are echoed
    /// instead, and every token is allowed.
    pub(super) fn allow_name(&self, name: &[u8], credentials: bool) -> bool {
        match self {
            Self::Any { authorization, .. } => {
                is_token(name) && (credentials || *authorization || !name.eq_ignore_ascii_case(b"authorization"))
            }
            Self::Listed { names, .. } => names.contains(name),
        }
    }
}

/// Checks the requested names in all fields, in order.
fn requested(headers: &HeaderMap, allowed: impl Fn(&[u8]) -> bool) -> Result<(), ListFault> {
    let fields = headers.get_all(http::header::ACCESS_CONTROL_REQUEST_HEADERS);
    if fields.iter().map(HeaderValue::len).sum::<usize>() > MAX_NAMES_BYTES {
        return Err(ListFault::TooLong);
    }
    let (mut count, mut result) = (0, Ok(()));
    for element in fields.iter().flat_map(|field| field.as_bytes().split(|b| *b == b',')) {
        // Empty elements are ignored (RFC 9110 section 5.6.1.2), but they count, because reading them takes time.
        count += 1;
        if count > MAX_NAMES {
            return Err(ListFault::TooLong);
        }
        let name = trim(element);
        if result.is_ok() && !name.is_empty() && !allowed(name) {
            result = Err(ListFault::NotAllowed);
        }
    }
    result
}

/// Returns the requested names as one header value. The names must have passed [`RequestHeaders::allow`]. None if no
/// name is requested, because an empty field is never sent.
pub(crate) fn echoed(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut fields = headers
        .get_all(http::header::ACCESS_CONTROL_REQUEST_HEADERS)
        .iter()
        .filter(|field| field.as_bytes().iter().any(|b| !matches!(b, b',' | b' ' | b'\t')));
    let first = fields.next()?;
    let Some(second) = fields.next() else { return Some(first.clone()) };
    // Browsers send one field, so only unusual requests need this allocation. Its size is bounded.
    let mut bytes = first.as_bytes().to_vec();
    for field in std::iter::once(second).chain(fields) {
        bytes.extend_from_slice(b", ");
        bytes.extend_from_slice(field.as_bytes());
    }
    HeaderValue::from_bytes(&bytes).ok()
}

/// Compiles `expose_headers` and `expose_header_sets` to one header value. `*` with credentials is refused, because
/// Fetch then treats it as an ordinary name.
pub(super) fn expose(
    list: Option<&List>,
    sets: Option<&List>,
    credentials: bool,
    at_policy: &At<'_>,
    problems: &mut Problems,
) -> Option<FinishedValue> {
    let (at, at_sets) = (&at_policy.key("expose_headers"), &at_policy.key("expose_header_sets"));
    let parsed_sets = HeaderSet::parse(sets, at_sets, problems);
    for (i, set) in parsed_sets.iter().filter(|(_, set)| set.response_headers().is_empty()) {
        problems.add(&at_sets.index(*i), ProblemKind::NothingToExpose { set: set.word() });
    }
    if list.is_some_and(|list| list.entries().is_empty()) {
        problems.add(at, ProblemKind::EmptyList { required: false });
    }
    let none = List::default();
    let list = list.or_else(|| sets.map(|_| &none))?;
    let mut parsed = header_names(Some(list), at, problems, |name, at, problems| {
        if is_forbidden_response_header(name) {
            problems.add(at, ProblemKind::HeaderNeverRead { name: name.into() });
        } else if is_cors_response_header(name) {
            problems.add(at, ProblemKind::ExposedWithoutUse { name: name.into() });
        } else if is_safelisted_response_header(name) {
            problems.add(at, ProblemKind::ExposedAnyway { name: name.into() });
        } else if direction(name) == Direction::Request {
            let move_to = (!is_forbidden_request_header(name)).then_some("allow_headers");
            problems.add(at, ProblemKind::HeaderOtherDirection { name: name.into(), key: "expose_headers", move_to });
        }
    });
    if parsed.any {
        if credentials {
            problems.add(at, ProblemKind::AnyExposedWithCredentials);
        }
        for (i, set) in parsed_sets {
            problems.add(&at_sets.index(i), ProblemKind::MeaninglessBesideAny { text: set.word().to_owned() });
        }
        // `*` does not include `Authorization` for responses either.
        warn_redundant(list, at, problems, |name| !name.eq_ignore_ascii_case("authorization"));
        return Some(joined(std::iter::once("*").chain(parsed.iter())));
    }
    parsed.add(parsed_sets.iter().flat_map(|(_, set)| set.response_headers()));
    (!parsed.names.is_empty()).then(|| joined(parsed.iter()))
}

// === impl NameSet ===

impl FromIterator<Box<str>> for NameSet {
    fn from_iter<I: IntoIterator<Item = Box<str>>>(names: I) -> Self {
        let mut names: Box<[Box<str>]> = names.into_iter().collect();
        names.sort_by(|a, b| compare(a.as_bytes(), b.as_bytes()));
        NameSet(names)
    }
}

impl NameSet {
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }

    /// Compares without case and without a copy in lower case.
    pub(crate) fn contains(&self, name: &[u8]) -> bool {
        self.0.binary_search_by(|known| compare(known.as_bytes(), name)).is_ok()
    }
}

fn compare(a: &[u8], b: &[u8]) -> Ordering {
    a.iter().map(u8::to_ascii_lowercase).cmp(b.iter().map(u8::to_ascii_lowercase))
}

// --- reading lists

struct ParsedNames {
    any: bool,
    /// The names in the spelling of the configuration, without duplicates.
    names: Vec<Box<str>>,
}

impl ParsedNames {
    /// Adds the names that the list does not have yet.
    fn add<'n>(&mut self, names: impl Iterator<Item = &'n &'static str>) {
        for name in names {
            if !self.names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                self.names.push((*name).into());
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|n| &**n)
    }
}

/// Reads header names and calls `check` for each valid one. A missing list means `*`.
fn header_names(
    list: Option<&List>,
    at: &At<'_>,
    problems: &mut Problems,
    check: impl Fn(&str, &At<'_>, &mut Problems),
) -> ParsedNames {
    let mut parsed = ParsedNames { any: list.is_none(), names: Vec::new() };
    for (i, entry) in non_empty(list, at, problems) {
        let at = at.index(i);
        if entry == "*" {
            parsed.any = true;
        } else if is_word_for_any(entry) {
            problems.add(&at, ProblemKind::WordForAny { text: entry.into() });
        } else if HeaderName::from_bytes(entry.as_bytes()).is_err() || entry.len() > MAX_TOKEN {
            problems.add(&at, ProblemKind::BadHeaderName { text: entry.into() });
        } else {
            check(entry, &at, problems);
            if !parsed.names.iter().any(|known| known.eq_ignore_ascii_case(entry)) {
                parsed.names.push(entry.into());
            }
        }
    }
    parsed
}

/// Returns the non-empty entries with their indices. Reports an empty list and empty entries.
pub(super) fn entries<'a>(
    list: Option<&'a List>,
    at: &At<'_>,
    problems: &mut Problems,
) -> impl Iterator<Item = (usize, &'a str)> + use<'a> {
    if list.is_some_and(|list| list.entries().is_empty()) {
        problems.add(at, ProblemKind::EmptyList { required: false });
    }
    non_empty(list, at, problems)
}

/// Returns the non-empty entries with their indices. Reports empty entries.
fn non_empty<'a>(
    list: Option<&'a List>,
    at: &At<'_>,
    problems: &mut Problems,
) -> impl Iterator<Item = (usize, &'a str)> + use<'a> {
    let entries = list.map(List::entries).unwrap_or_default();
    for (i, _) in entries.iter().enumerate().filter(|(_, entry)| entry.is_empty()) {
        problems.add(&at.index(i), ProblemKind::EmptyEntry);
    }
    entries.iter().map(String::as_str).enumerate().filter(|(_, entry)| !entry.is_empty())
}

/// Warns about the entries beside a `*` for which `is_covered` holds, unless an entry already has a problem.
fn warn_redundant(list: &List, at: &At<'_>, problems: &mut Problems, is_covered: impl Fn(&str) -> bool) {
    for (i, entry) in list.entries().iter().enumerate().filter(|(_, entry)| *entry != "*" && is_covered(entry)) {
        let at = at.index(i);
        let path = at.path();
        if !problems.iter().any(|problem| problem.at == path) {
            problems.add(&at, ProblemKind::MeaninglessBesideAny { text: entry.clone() });
        }
    }
}

/// Returns a header value for names that are valid tokens, or `*`.
fn joined<'a>(names: impl Iterator<Item = &'a str>) -> FinishedValue {
    let names: Vec<&str> = names.collect();
    let value = HeaderValue::from_maybe_shared(bytes::Bytes::from(names.join(", ")));
    FinishedValue::new(value.expect("tokens are valid in a field value"))
}

/// Whether an entry stands for any method or header in another gateway. No method and no header has such a name.
pub(super) fn is_word_for_any(entry: &str) -> bool {
    entry == "**" || ["all", "any"].iter().any(|word| entry.eq_ignore_ascii_case(word))
}

/// Whether the bytes are a token (RFC 9110 section 5.6.2).
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.iter().all(|b| {
            b.is_ascii_alphanumeric()
                || matches!(
                    b,
                    b'!' | b'#'
                        | b'$'
                        | b'%'
                        | b'&'
                        | b'\''
                        | b'*'
                        | b'+'
                        | b'-'
                        | b'.'
                        | b'^'
                        | b'_'
                        | b'`'
                        | b'|'
                        | b'~'
                )
        })
}

fn trim(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::super::{OriginSets, Policy, Settings};
    use super::*;

    /// Returns the codes of the problems of a policy, except warnings about missing keys.
    fn problems(settings: &str) -> Vec<&'static str> {
        let settings: Settings =
            serde_yaml::from_str(&format!("allow_origins: https://a.example\n{settings}")).unwrap();
        let mut problems = Problems::default();
        Policy::compile(&settings, &OriginSets::default(), &At::root(), &mut problems);
        let of_missing_keys = ["any-header-without-authorization", "max-age-left-out"];
        problems.iter().map(|problem| problem.kind.code()).filter(|code| !of_missing_keys.contains(code)).collect()
    }

    #[test]
    fn names_have_a_maximum_length() {
        for (key, code) in [
            ("allow_methods", "bad-method"),
            ("allow_headers", "bad-header-name"),
            ("expose_headers", "bad-header-name"),
        ] {
            let of_length = |length| problems(&format!("{key}: [{}]", "X".repeat(length)));
            assert!(of_length(MAX_TOKEN).is_empty(), "{key}: {:?}", of_length(MAX_TOKEN));
            assert_eq!(of_length(MAX_TOKEN + 1), [code], "{key}");
        }
    }

    #[test]
    fn only_patch_in_another_case_is_a_mistake() {
        for (methods, codes) in [
            ("PATCH", &[][..]),
            ("patch", &["method-case"]),
            ("Patch", &["method-case"]),
            ("get", &[]),
            ("purge", &[]),
            ("trace", &["method-never-sent"]),
        ] {
            assert_eq!(problems(&format!("allow_methods: [{methods}]")), codes, "{methods}");
        }
    }
}
