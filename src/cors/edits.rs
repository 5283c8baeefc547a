//! What happens to the headers of a response: data, and the one function that applies it.
//!
//! [`Edits`] are made once per request and hold everything that any response of that request needs. They are applied
//! through [`Headers`], because Pingora keeps a second map beside its header map and insists on its own methods.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The response headers that a policy owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Field {
    /// `Access-Control-Allow-Origin`
    AllowOrigin,
    /// `Access-Control-Allow-Credentials`
    AllowCredentials,
    /// `Access-Control-Allow-Methods`
    AllowMethods,
    /// `Access-Control-Allow-Headers`
    AllowHeaders,
    /// `Access-Control-Max-Age`
    MaxAge,
    /// `Access-Control-Expose-Headers`
    ExposeHeaders,
    /// `Access-Control-Allow-Private-Network`
    AllowPrivateNetwork,
    /// `Timing-Allow-Origin`
    TimingAllowOrigin,
}

/// A set of [`Field`]s.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fields(u8);

/// What of the upstream's own headers goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    /// Nothing, and nothing is mended either: there is no policy.
    Nothing,
    /// These.
    Listed(Fields),
    /// Every `Access-Control-*`, known or not, and these.
    AllAccessControl(Fields),
}

/// The request headers that an answer can depend on, as a set: what goes into `Vary`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vary(u8);

/// Everything that any response of one request gets. The default changes nothing.
#[derive(Debug, Clone)]
pub struct Edits {
    pub(super) removal: Removal,
    pub(super) values: Values,
    pub(super) vary: Vary,
    /// What was decided, for development. Nearly no request has it.
    said: Option<Box<Said>>,
}

/// What was decided, and about which request.
#[derive(Debug, Clone)]
struct Said {
    code: &'static str,
    request_id: Option<HeaderValue>,
}

/// At most one value for each field, without an allocation.
#[derive(Debug, Clone, Default)]
pub(super) struct Values([Option<HeaderValue>; Field::ALL.len()]);

/// A response's headers, as far as [`Edits::apply`] needs them.
pub trait Headers {
    /// To read.
    fn map(&self) -> &HeaderMap;
    /// Sets a field, whatever was there.
    fn insert(&mut self, name: &'static str, value: HeaderValue);
    /// Removes all fields of a name.
    fn remove(&mut self, name: &HeaderName);
}

// === impl Edits ===

impl Edits {
    pub(super) fn new(removal: Removal, values: Values, vary: Vary) -> Self {
        Edits { removal, values, vary, said: None }
    }

    /// The value that one field will get, for those who explain or test.
    pub fn value(&self, field: Field) -> Option<&HeaderValue> {
        self.values.0[field as usize].as_ref()
    }

    /// The only way in which CORS headers get onto a response, be it the upstream's or the gateway's own.
    ///
    /// Afterwards there are never two fields of one `Access-Control-*` name of ours, never an empty one, and exactly
    /// one `Vary` with every name that the answer depends on (or `*`).
    pub fn apply(&self, headers: &mut impl Headers) {
        self.remove_from(headers);
        for field in Field::ALL {
            if let Some(value) = &self.values.0[field as usize] {
                headers.insert(field.name(), value.clone());
            }
        }
        self.vary.merge_into(headers);
        if let Some(said) = &self.said {
            headers.insert("X-Corsgate-Reason", HeaderValue::from_static(said.code));
            if let Some(id) = &said.request_id {
                headers.insert("X-Request-Id", id.clone());
            }
        }
    }

    /// Also says in a header what was decided, in one word.
    pub(crate) fn say(&mut self, code: &'static str) {
        self.said = Some(Box::new(Said { code, request_id: None }));
    }

    /// Says for which request too, if it says anything.
    pub(crate) fn say_for(&mut self, request_id: impl FnOnce() -> HeaderValue) {
        if let Some(said) = &mut self.said {
            said.request_id = Some(request_id());
        }
    }

    /// For interim responses (RFC 9110 section 15.2), which carry no CORS headers of anybody: under a policy the
    /// upstream's go.
    pub(crate) fn strip(&self, headers: &mut impl Headers) {
        if self.removal != Removal::Nothing {
            remove_all_access_control(headers, |_| true);
        }
    }

    fn remove_from(&self, headers: &mut impl Headers) {
        let (listed, all) = match self.removal {
            Removal::Nothing => return,
            Removal::Listed(listed) => (listed, false),
            Removal::AllAccessControl(listed) => (listed, true),
        };
        // One pass over the names, since most upstreams send none of ours; only then look at each that is there.
        let (mut present, mut others) = (Fields::default(), false);
        for name in headers.map().keys() {
            match Field::of(name) {
                Some(field) => present = present.with(field),
                None => others |= is_access_control(name),
            }
        }
        for field in Field::ALL.into_iter().filter(|field| present.has(*field)) {
            let overwritten = self.values.0[field as usize].is_some();
            if listed.has(field) || (all && field != Field::TimingAllowOrigin) {
                if !overwritten {
                    headers.remove(&field.header_name());
                }
            } else if !overwritten && field != Field::TimingAllowOrigin {
                make_single(field, headers);
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

/// A field of the upstream's that may stay: twice or empty it would break the page, and what breaks is our answer.
fn make_single(field: Field, headers: &mut impl Headers) {
    let name = field.header_name();
    let mut values = headers.map().get_all(&name).iter();
    let (first, second) = (values.next(), values.next());
    match (first, second) {
        (Some(only), None) if !only.as_bytes().trim_ascii().is_empty() => {}
        (Some(_), Some(_)) => {
            let parts: Vec<&[u8]> = headers
                .map()
                .get_all(&name)
                .iter()
                .map(|value| value.as_bytes().trim_ascii())
                .filter(|value| !value.is_empty())
                .collect();
            let merged = match field {
                // A list, so its fields are one list.
                Field::ExposeHeaders => HeaderValue::from_bytes(&parts.join(&b", "[..])).ok(),
                // Not a list: only a unanimous answer is one.
                _ => parts
                    .first()
                    .filter(|first| parts.iter().all(|part| part == *first))
                    .and_then(|first| HeaderValue::from_bytes(first).ok()),
            };
            match merged.filter(|value| !value.is_empty()) {
                Some(value) => headers.insert(field.name(), value),
                None => headers.remove(&name),
            }
        }
        _ => headers.remove(&name),
    }
}

fn remove_all_access_control(headers: &mut impl Headers, which: impl Fn(&HeaderName) -> bool) {
    let names: Vec<HeaderName> =
        headers.map().keys().filter(|name| is_access_control(name) && which(name)).cloned().collect();
    names.iter().for_each(|name| headers.remove(name));
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

    /// As it is written on the wire.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Field::AllowOrigin => "Access-Control-Allow-Origin",
            Field::AllowCredentials => "Access-Control-Allow-Credentials",
            Field::AllowMethods => "Access-Control-Allow-Methods",
            Field::AllowHeaders => "Access-Control-Allow-Headers",
            Field::MaxAge => "Access-Control-Max-Age",
            Field::ExposeHeaders => "Access-Control-Expose-Headers",
            Field::AllowPrivateNetwork => "Access-Control-Allow-Private-Network",
            Field::TimingAllowOrigin => "Timing-Allow-Origin",
        }
    }

    fn header_name(self) -> HeaderName {
        use http::header;
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

    const NAMES: [&'static str; 4] = [
        "Origin",
        "Access-Control-Request-Method",
        "Access-Control-Request-Headers",
        "Access-Control-Request-Private-Network",
    ];

    /// This, and `other` when the condition holds.
    pub(super) fn and_if(self, condition: bool, other: Vary) -> Vary {
        Vary(self.0 | if condition { other.0 } else { 0 })
    }

    /// The names in the set, in a fixed order.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().enumerate().filter(move |(i, _)| self.0 & (1 << i) != 0).map(|(_, name)| name)
    }

    /// Adds the names to what the response already says, in one field: every `Vary` field counts, nothing twice, and
    /// `*` already says everything (RFC 9110 section 12.5.5).
    fn merge_into(self, headers: &mut impl Headers) {
        if self == Vary::default() {
            return;
        }
        let mut fields = headers.map().get_all(http::header::VARY).iter();
        let prepared = match (fields.next(), fields.next()) {
            (None, _) => Some(&PREPARED[self.0 as usize].alone),
            // By far the most usual one of an upstream's own.
            (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"accept-encoding") => {
                Some(&PREPARED[self.0 as usize].after_accept_encoding)
            }
            _ => None,
        };
        let merged = match prepared {
            Some(value) => value.clone(),
            None => match self.merged(headers.map()) {
                Some(value) => value,
                None => return,
            },
        };
        headers.insert("Vary", merged);
    }

    /// None when what is there can stay as it is.
    fn merged(self, headers: &HeaderMap) -> Option<HeaderValue> {
        let fields = headers.get_all(http::header::VARY);
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

/// The elements of a list-based field that are not empty (RFC 9110 section 5.6.1).
fn elements(field: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    field.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// The values for one set of names.
struct Prepared {
    alone: HeaderValue,
    after_accept_encoding: HeaderValue,
}

/// For every set of names: what it needs to be ready when a response comes.
static PREPARED: LazyLock<Vec<Prepared>> = LazyLock::new(|| {
    let value = |text: String| {
        HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).expect("header names are valid in a field value")
    };
    (0..1 << Vary::NAMES.len())
        .map(|bits| {
            let names: Vec<&str> = Vary(bits).names().collect();
            Prepared {
                alone: value(names.join(", ")),
                after_accept_encoding: value([&["Accept-Encoding"], &names[..]].concat().join(", ")),
            }
        })
        .collect()
});

impl Headers for HeaderMap {
    fn map(&self) -> &HeaderMap {
        self
    }
    fn insert(&mut self, name: &'static str, value: HeaderValue) {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            HeaderMap::insert(self, name, value);
        }
    }
    fn remove(&mut self, name: &HeaderName) {
        HeaderMap::remove(self, name);
    }
}
