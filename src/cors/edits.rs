//! Edits of response headers: the data, and the only function that applies them.
//!
//! [`Edits`] are made once per request. They contain the edits for every response of the request.

use std::sync::LazyLock;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::ResourcePolicy;

/// Header fields for `debug_header`.
const REASON: HeaderName = HeaderName::from_static("x-corsgate-reason");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// `Cache-Control` of an answer to a preflight that a shared cache must not keep.
pub(super) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The response headers that a policy controls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Field {
    /// `Access-Control-Allow-Origin`: the origin that may read the response.
    AllowOrigin,
    /// `Access-Control-Allow-Credentials`: whether pages may read responses to requests with credentials.
    AllowCredentials,
    /// `Access-Control-Allow-Methods`: the methods that pages may use. Only in answers to preflights.
    AllowMethods,
    /// `Access-Control-Allow-Headers`: the request headers that pages may set. Only in answers to preflights.
    AllowHeaders,
    /// `Access-Control-Max-Age`: the time in seconds for which browsers may cache the answer to a preflight.
    MaxAge,
    /// `Access-Control-Expose-Headers`: the response headers that pages may read.
    ExposeHeaders,
    /// `Access-Control-Allow-Private-Network`: whether pages of public networks may send the request.
    AllowPrivateNetwork,
    /// `Timing-Allow-Origin`: the origin that may read the timing of the response.
    TimingAllowOrigin,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fields(u8);

/// The CORS headers of the upstream's response that are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    /// No header is removed, and duplicate fields are not repaired, because there is no policy.
    Nothing,
    Listed(Fields),
    /// Every `Access-Control-*` header, known or not, and these fields.
    AllAccessControl(Fields),
}

/// A set of request headers on which a response depends. `Vary` gets their names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vary(u8);

/// The header edits for every response of one request. The default changes nothing.
#[derive(Debug, Clone)]
pub struct Edits {
    pub(super) removal: Removal,
    pub(super) values: Values,
    pub(super) vary: Vary,
    /// `Cross-Origin-Resource-Policy`. Not a [`Field`], because one byte costs less per request than one more value.
    pub(super) resource_policy: Option<ResourcePolicy>,
    /// `Cache-Control` of the answer to a preflight. Not a [`Field`], because a policy never removes the upstream's field.
    pub(super) cache_control: Option<HeaderValue>,
    /// The header fields of `debug_header`. Boxed, because most requests have none.
    debug_reason: Option<Box<DebugReason>>,
}

#[derive(Debug, Clone)]
struct DebugReason {
    code: &'static str,
    request_id: Option<HeaderValue>,
}

/// At most one value per field. The values are in an array, so that a decision allocates nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Values([Option<HeaderValue>; Field::ALL.len()]);

/// Adds `Accept-Encoding` to the `Vary` of a response that compression makes depend on it. It comes after the edits.
pub(crate) fn vary_on_accept_encoding(headers: &mut HeaderMap) {
    Vary::ACCEPT_ENCODING.merge_into(headers);
}

// === impl Edits ===

impl Edits {
    pub(super) fn new(removal: Removal, values: Values, vary: Vary) -> Self {
        Edits { removal, values, vary, resource_policy: None, cache_control: None, debug_reason: None }
    }

    /// The value that a field will get. None if the edits set no value.
    pub fn value(&self, field: Field) -> Option<&HeaderValue> {
        self.values.0[field as usize].as_ref()
    }

    /// Forbids browsers to cache the answer to a preflight, because it is valid for the requested method only. Browsers
    /// cache an answer per origin, URL and credentials mode, not per method (Fetch, CORS-preflight cache).
    pub(crate) fn forbid_caching(&mut self) {
        // Without an allowed origin there is nothing to cache.
        if self.value(Field::MaxAge).is_some() {
            self.values.set(Field::MaxAge, HeaderValue::from_static("0"));
        }
        if self.cache_control.is_some() {
            self.cache_control = Some(NO_STORE);
        }
        self.vary = self.vary.with_if(true, Vary::REQUEST_METHOD);
    }

    /// Replaces the list of allowed methods. None removes it.
    pub(crate) fn set_allowed_methods(&mut self, methods: Option<&HeaderValue>) {
        self.values.0[Field::AllowMethods as usize] = methods.cloned();
    }

    /// Applies the edits. Only this function writes CORS headers to a response; a test checks the source for this.
    ///
    /// The edits of a policy leave at most one field of each `Access-Control-*` name of [`Field`], without an empty value,
    /// and one `Vary` with every name on which the response depends. A `Vary` of the upstream with `*` stays as it is.
    /// Default edits change nothing.
    pub fn apply(&self, headers: &mut HeaderMap) {
        self.remove_from(headers);
        for field in Field::ALL {
            if let Some(value) = &self.values.0[field as usize] {
                headers.insert(field.header_name(), value.clone());
            }
        }
        self.vary.merge_into(headers);
        if let Some(value) = &self.cache_control {
            headers.insert(header::CACHE_CONTROL, value.clone());
        }
        if let Some(policy) = self.resource_policy {
            headers.insert(RESOURCE_POLICY, HeaderValue::from_static(policy.word()));
        }
        if let Some(reason) = &self.debug_reason {
            headers.insert(REASON, HeaderValue::from_static(reason.code));
            if let Some(id) = &reason.request_id {
                headers.insert(REQUEST_ID, id.clone());
            }
        }
    }

    /// Sets the code for the `X-Corsgate-Reason` header.
    pub(crate) fn set_debug_reason(&mut self, code: &'static str) {
        self.debug_reason = Some(Box::new(DebugReason { code, request_id: None }));
    }

    /// Changes the code, if there is one.
    pub(crate) fn change_debug_reason(&mut self, code: &'static str) {
        if let Some(reason) = &mut self.debug_reason {
            reason.code = code;
        }
    }

    /// Sets the request id for the `X-Request-Id` header, if there is a debug reason.
    pub(crate) fn set_debug_request_id(&mut self, request_id: impl FnOnce() -> HeaderValue) {
        if let Some(reason) = &mut self.debug_reason {
            reason.request_id = Some(request_id());
        }
    }

    /// Removes the upstream's CORS headers from an interim response (RFC 9110 section 15.2), if there is a policy.
    /// Interim responses get no CORS headers.
    pub(crate) fn strip(&self, headers: &mut HeaderMap) {
        if self.removal != Removal::Nothing {
            remove_all_access_control(headers, |_| true);
        }
    }

    fn remove_from(&self, headers: &mut HeaderMap) {
        let (listed, all) = match self.removal {
            Removal::Nothing => return,
            Removal::Listed(listed) => (listed, false),
            Removal::AllAccessControl(listed) => (listed, true),
        };
        // One pass over all names, because most upstreams send none of these headers. Then only the names that occur
        // are looked up.
        let (mut present, mut others) = (Fields::default(), false);
        for name in headers.keys() {
            match Field::of(name) {
                Some(field) => present = present.with(field),
                None => others |= is_access_control(name),
            }
        }
        for field in Field::ALL.into_iter().filter(|field| present.has(*field)) {
            let overwritten = self.values.0[field as usize].is_some();
            if listed.has(field) || (all && field != Field::TimingAllowOrigin) {
                if !overwritten {
                    headers.remove(field.header_name());
                }
            } else if !overwritten && field != Field::TimingAllowOrigin {
                repair_field(field, headers);
            }
        }
        if all && others {
            remove_all_access_control(headers, |name| Field::of(name).is_none());
        }
    }
}

impl Default for Edits {
    fn default() -> Self {
        Edits::new(Removal::Nothing, Values::default(), Vary::default())
    }
}

impl Values {
    pub(super) fn set(&mut self, field: Field, value: HeaderValue) {
        self.0[field as usize] = Some(value);
    }
}

/// Repairs an upstream's field that stays. A field that is duplicated or empty fails the browser's check, although the
/// policy allows the origin.
fn repair_field(field: Field, headers: &mut HeaderMap) {
    let name = field.header_name();
    let mut values = headers.get_all(&name).iter();
    let (first, second) = (values.next(), values.next());
    if second.is_none() && first.is_some_and(|only| !only.as_bytes().trim_ascii().is_empty()) {
        return;
    }
    let values = headers.get_all(&name).iter().map(|value| value.as_bytes().trim_ascii());
    let parts: Vec<&[u8]> = values.filter(|value| !value.is_empty()).collect();
    let merged = match field {
        // A list-based field: several fields mean one list (RFC 9110 section 5.3).
        Field::ExposeHeaders => HeaderValue::from_bytes(&parts.join(&b", "[..])).ok(),
        // Not a list-based field: several fields are accepted only if their values are equal.
        _ => parts
            .first()
            .filter(|first| parts.iter().all(|part| part == *first))
            .and_then(|first| HeaderValue::from_bytes(first).ok()),
    };
    match merged.filter(|value| !value.is_empty()) {
        Some(value) => headers.insert(name, value),
        None => headers.remove(name),
    };
}

fn remove_all_access_control(headers: &mut HeaderMap, which: impl Fn(&HeaderName) -> bool) {
    let names: Vec<HeaderName> =
        headers.keys().filter(|name| is_access_control(name) && which(name)).cloned().collect();
    names.iter().for_each(|name| drop(headers.remove(name)));
}

fn is_access_control(name: &HeaderName) -> bool {
    name.as_str().starts_with("access-control-")
}

// === impl Field, Fields ===

impl Field {
    pub(super) const ALL: [Field; 8] = [
        Field::AllowOrigin,
        Field::AllowCredentials,
        Field::AllowMethods,
        Field::AllowHeaders,
        Field::MaxAge,
        Field::ExposeHeaders,
        Field::AllowPrivateNetwork,
        Field::TimingAllowOrigin,
    ];

    pub(super) const fn header_name(self) -> HeaderName {
        match self {
            Field::AllowOrigin => header::ACCESS_CONTROL_ALLOW_ORIGIN,
            Field::AllowCredentials => header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
            Field::AllowMethods => header::ACCESS_CONTROL_ALLOW_METHODS,
            Field::AllowHeaders => header::ACCESS_CONTROL_ALLOW_HEADERS,
            Field::MaxAge => header::ACCESS_CONTROL_MAX_AGE,
            Field::ExposeHeaders => header::ACCESS_CONTROL_EXPOSE_HEADERS,
            Field::AllowPrivateNetwork => HeaderName::from_static("access-control-allow-private-network"),
            Field::TimingAllowOrigin => HeaderName::from_static("timing-allow-origin"),
        }
    }

    fn of(name: &HeaderName) -> Option<Field> {
        let text = name.as_str();
        let Some(rest) = text.strip_prefix("access-control-") else {
            return (text == "timing-allow-origin").then_some(Field::TimingAllowOrigin);
        };
        Some(match rest {
            "allow-origin" => Field::AllowOrigin,
            "allow-credentials" => Field::AllowCredentials,
            "allow-methods" => Field::AllowMethods,
            "allow-headers" => Field::AllowHeaders,
            "max-age" => Field::MaxAge,
            "expose-headers" => Field::ExposeHeaders,
            "allow-private-network" => Field::AllowPrivateNetwork,
            _ => return None,
        })
    }
}

impl Fields {
    pub(super) const fn of(fields: &[Field]) -> Fields {
        let (mut bits, mut i) = (0, 0);
        while i < fields.len() {
            bits |= 1 << fields[i] as u8;
            i += 1;
        }
        Fields(bits)
    }
    pub(super) const fn with(self, field: Field) -> Fields {
        Fields(self.0 | 1 << field as u8)
    }
    const fn has(self, field: Field) -> bool {
        self.0 & (1 << field as u8) != 0
    }
}

// === impl Vary ===

impl Vary {
    /// `Origin`
    pub(crate) const ORIGIN: Vary = Vary(1);
    /// `Access-Control-Request-Method`
    pub(crate) const REQUEST_METHOD: Vary = Vary(2);
    /// `Access-Control-Request-Headers`
    pub(crate) const REQUEST_HEADERS: Vary = Vary(4);
    /// `Access-Control-Request-Private-Network`
    pub(crate) const REQUEST_PRIVATE_NETWORK: Vary = Vary(8);

    /// `Accept-Encoding`
    const ACCEPT_ENCODING: Vary = Vary(16);

    const NAMES: [&'static str; 5] = [
        "Origin",
        "Access-Control-Request-Method",
        "Access-Control-Request-Headers",
        "Access-Control-Request-Private-Network",
        "Accept-Encoding",
    ];

    /// Adds `other` if the condition holds.
    pub(super) fn with_if(self, condition: bool, other: Vary) -> Vary {
        Vary(self.0 | if condition { other.0 } else { 0 })
    }

    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().enumerate().filter(move |(i, _)| self.0 & (1 << i) != 0).map(|(_, name)| name)
    }

    /// Adds the names to the `Vary` of the response and merges all its fields into one, without duplicates. `*` already
    /// includes every name (RFC 9110 section 12.5.5).
    fn merge_into(self, headers: &mut HeaderMap) {
        if self == Vary::default() {
            return;
        }
        let mut fields = headers.get_all(header::VARY).iter();
        let prepared = match (fields.next(), fields.next()) {
            (None, _) => Some(&PREPARED[self.0 as usize].alone),
            // Most upstreams send this `Vary`. It needs no parsing.
            (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"accept-encoding") => {
                Some(&PREPARED[self.0 as usize].after_accept_encoding)
            }
            _ => None,
        };
        let merged = match prepared {
            Some(value) => value.clone(),
            None => match self.merged(headers) {
                Some(value) => value,
                None => return,
            },
        };
        headers.insert(header::VARY, merged);
    }

    /// Returns the merged `Vary`. None if the existing field needs no change.
    fn merged(self, headers: &HeaderMap) -> Option<HeaderValue> {
        let fields = headers.get_all(header::VARY);
        let there: Vec<&[u8]> = fields.iter().flat_map(elements).collect();
        if there.contains(&&b"*"[..]) {
            return None;
        }
        let mut all: Vec<&[u8]> = Vec::new();
        let (mut repeated, mut added) = (false, false);
        for token in there {
            match contains(&all, token) {
                true => repeated = true,
                false => all.push(token),
            }
        }
        for name in self.names().map(str::as_bytes) {
            if !contains(&all, name) {
                added = true;
                all.push(name);
            }
        }
        if fields.iter().count() == 1 && !repeated && !added {
            return None;
        }
        HeaderValue::from_bytes(&all.join(&b", "[..])).ok()
    }
}

fn contains(names: &[&[u8]], name: &[u8]) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// The non-empty elements of a list-based field (RFC 9110 section 5.6.1).
fn elements(field: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    field.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// Finished `Vary` values for one set of names.
struct PreparedVary {
    alone: HeaderValue,
    after_accept_encoding: HeaderValue,
}

/// Finished `Vary` values, indexed by the bits of the set, so that the usual responses need no new value.
static PREPARED: LazyLock<Vec<PreparedVary>> = LazyLock::new(|| {
    // The values are static. A clone of any other value changes a reference count, in a cache line that all threads
    // share.
    let value = |text: String| HeaderValue::from_static(text.leak());
    (0..1 << Vary::NAMES.len())
        .map(|bits| {
            let names: Vec<&str> = Vary(bits).names().collect();
            let others: Vec<&str> = Vary(bits & !Vary::ACCEPT_ENCODING.0).names().collect();
            PreparedVary {
                alone: value(names.join(", ")),
                after_accept_encoding: value([&["Accept-Encoding"], &others[..]].concat().join(", ")),
            }
        })
        .collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_encoding_is_merged_into_vary_as_the_names_of_a_policy_are() {
        #[rustfmt::skip]
        let cases: [(&[&str], Vary, &str); 9] = [
            (&[],                                     Vary::default(), "Accept-Encoding"),
            (&[],                                     Vary::ORIGIN,    "Origin, Accept-Encoding"),
            (&["Accept-Encoding"],                    Vary::default(), "Accept-Encoding"),
            (&["accept-encoding"],                    Vary::default(), "Accept-Encoding"),
            (&["accept-encoding"],                    Vary::ORIGIN,    "Accept-Encoding, Origin"),
            (&["Cookie"],                             Vary::ORIGIN,    "Cookie, Origin, Accept-Encoding"),
            (&["Cookie, ACCEPT-ENCODING", "Cookie"],  Vary::ORIGIN,    "Cookie, ACCEPT-ENCODING, Origin"),
            (&["*"],                                  Vary::ORIGIN,    "*"),
            (&["Cookie, *"],                          Vary::default(), "Cookie, *"),
        ];
        for (fields, of_policy, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.extend(fields.iter().map(|field| (header::VARY, HeaderValue::from_static(field))));
            Edits::new(Removal::Nothing, Values::default(), of_policy).apply(&mut headers);
            vary_on_accept_encoding(&mut headers);
            let merged: Vec<&HeaderValue> = headers.get_all(header::VARY).iter().collect();
            assert_eq!(merged, [expected], "{fields:?}");
        }
    }

    /// Lines of a header, sorted.
    fn lines(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    fn headers(lines: &[&str]) -> HeaderMap {
        let field = |line: &&str| {
            let (name, value) = line.split_once(": ").unwrap();
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        lines.iter().map(field).collect()
    }

    /// A response of an upstream with two known fields, an unknown one, and two that have nothing to do with a policy.
    const OF_UPSTREAM: [&str; 5] = [
        "access-control-allow-methods: PUT",
        "access-control-allow-origin: *",
        "access-control-unknown: 1",
        "content-type: text/plain",
        "timing-allow-origin: *",
    ];

    #[test]
    fn only_the_fields_of_the_removal_are_removed() {
        let [methods, origin, unknown, content, timing] = OF_UPSTREAM;
        let own = "access-control-allow-origin: https://app.example";
        let of = Fields::of;
        #[rustfmt::skip]
        let cases: [(Removal, &[&str], &[&str]); 8] = [
            // The removal, the response without own values, and the response with an own `Access-Control-Allow-Origin`.
            (Removal::Nothing, &OF_UPSTREAM, &[methods, own, unknown, content, timing]),
            (Removal::Listed(of(&[])), &OF_UPSTREAM, &[methods, own, unknown, content, timing]),
            (Removal::Listed(of(&[Field::AllowOrigin])), &[methods, unknown, content, timing], &[methods, own, unknown, content, timing]),
            (Removal::Listed(of(&[Field::AllowMethods])), &[origin, unknown, content, timing], &[own, unknown, content, timing]),
            (Removal::Listed(of(&[Field::TimingAllowOrigin])), &[methods, origin, unknown, content], &[methods, own, unknown, content]),
            (Removal::AllAccessControl(of(&[])), &[content, timing], &[own, content, timing]),
            (Removal::AllAccessControl(of(&[Field::TimingAllowOrigin])), &[content], &[own, content]),
            (Removal::AllAccessControl(of(&[Field::AllowMethods])), &[content, timing], &[own, content, timing]),
        ];
        for (removal, alone, with_own) in cases {
            let mut response = headers(&OF_UPSTREAM);
            Edits::new(removal, Values::default(), Vary::default()).apply(&mut response);
            assert_eq!(lines(&response), alone, "{removal:?}");

            let mut values = Values::default();
            values.set(Field::AllowOrigin, HeaderValue::from_static("https://app.example"));
            let mut response = headers(&OF_UPSTREAM);
            Edits::new(removal, values, Vary::default()).apply(&mut response);
            assert_eq!(lines(&response), with_own, "{removal:?}, with an own value");
        }
    }

    #[test]
    fn an_interim_response_of_a_route_with_a_policy_has_no_access_control_field() {
        for (removal, kept) in [
            (Removal::Nothing, &OF_UPSTREAM[..]),
            (Removal::Listed(Fields::default()), &OF_UPSTREAM[3..]),
            (Removal::AllAccessControl(Fields::default()), &OF_UPSTREAM[3..]),
        ] {
            let mut response = headers(&OF_UPSTREAM);
            Edits::new(removal, Values::default(), Vary::default()).strip(&mut response);
            assert_eq!(lines(&response), kept, "{removal:?}");
        }
    }

    #[test]
    fn a_field_that_stays_is_repaired() {
        #[rustfmt::skip]
        let cases: [(&[&str], &[&str]); 8] = [
            (&["access-control-allow-origin: a"], &["access-control-allow-origin: a"]),
            (&["access-control-allow-origin: a", "access-control-allow-origin: a"], &["access-control-allow-origin: a"]),
            (&["access-control-allow-origin: a", "access-control-allow-origin: b"], &[]),
            (&["access-control-allow-origin: ", "access-control-allow-origin: a"], &["access-control-allow-origin: a"]),
            (&["access-control-allow-origin: "], &[]),
            (&["access-control-expose-headers: X-A", "access-control-expose-headers: X-B"], &["access-control-expose-headers: X-A, X-B"]),
            (&["access-control-expose-headers: "], &[]),
            (&["timing-allow-origin: a", "timing-allow-origin: b"], &["timing-allow-origin: a", "timing-allow-origin: b"]),
        ];
        for (of_upstream, repaired) in cases {
            let mut response = headers(of_upstream);
            Edits::new(Removal::Listed(Fields::default()), Values::default(), Vary::default()).apply(&mut response);
            assert_eq!(lines(&response), repaired, "{of_upstream:?}");
            // Without a policy nothing changes.
            let mut response = headers(of_upstream);
            Edits::default().apply(&mut response);
            assert_eq!(lines(&response), lines(&headers(of_upstream)));
        }
    }

    #[test]
    fn the_request_id_is_sent_with_a_debug_reason_only() {
        let mut edits = Edits::default();
        let apply = |edits: &Edits| {
            let mut response = HeaderMap::new();
            edits.apply(&mut response);
            lines(&response)
        };
        edits.change_debug_reason("late");
        edits.set_debug_request_id(|| unreachable!("there is no reason"));
        assert!(apply(&edits).is_empty());
        edits.set_debug_reason("early");
        assert_eq!(apply(&edits), ["x-corsgate-reason: early"]);
        edits.change_debug_reason("late");
        edits.set_debug_request_id(|| HeaderValue::from_static("7"));
        assert_eq!(apply(&edits), ["x-corsgate-reason: late", "x-request-id: 7"]);
    }
}
