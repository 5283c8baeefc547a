//! `rate_limit`: limits the requests of a service or a route, for each client, header value or cookie, or for all
//! requests together.
//!
//! Each key has a bucket with room for `burst` tokens. A request takes one token, or is refused if the bucket is empty.
//! The bucket is refilled at `rate`. The state of a bucket is one number: the time at which the bucket is full again.
//! So no timer is needed. This is the "virtual scheduling" of ITU-T I.371, known as GCRA.
//!
//! This module has the keys of the configuration and the arithmetic of a bucket. The time is an argument of every
//! calculation. [`crate::limiter`] stores the buckets.

use std::borrow::Cow;
use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Unexpected, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::domain::ClientKey;
use crate::notation::{WriteInstead, forms, given};
use crate::per_thread::FinishedValue;
use crate::problem::{At, ProblemKind, Problems};

/// Header fields of draft-ietf-httpapi-ratelimit-headers-10.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// Maximum number in `rate` and maximum `burst`. With this maximum, the interval of a bucket is at least 1 us. So
/// rounding the interval to nanoseconds changes a rate by less than 0.1 %, and no sum overflows.
const MOST: u64 = 1_000_000;
const NANOSECONDS: u64 = 1_000_000_000;

// === keys of the configuration ===

/// Limits the number of requests. A request above the limit gets 429 with `Retry-After`. The routes that inherit the
/// limit of their service share the budget of this limit. A limit that is written in a route has its own budget.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Rate limit", extend("required" = ["rate"]))]
pub(crate) struct RateLimitSettings {
    /// Number of requests per second, minute or hour: `100/s`, `100/m`, `100/h`. The budget is refilled continuously:
    /// `60/m` adds one request each second.
    #[serde(deserialize_with = "given")]
    pub(crate) rate: Option<Rate>,
    /// Number of requests that are accepted at once if the budget is full. Without this key, it is the number in
    /// `rate`.
    #[serde(deserialize_with = "given")]
    #[schemars(range(min = 1, max = MOST))]
    pub(crate) burst: Option<u64>,
    /// Requests with the same key share one budget. `client_ip` is the IPv4 address or the IPv6 /64 of the client, and
    /// `header:NAME` or `cookie:NAME` is the value of a header or cookie. `route` means one budget for all requests. If
    /// a request does not have the header or cookie, or has several, its key is the client's address.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::RateKey", extend("default" = "client_ip"))]
    pub(crate) key: Option<String>,
    /// Limit of preflights that corsgate answers, for each client address. These preflights never use the budget of
    /// requests. Without this key, they have no limit: the answer to a preflight costs no more than a 429, and a
    /// browser reports a refused preflight as a CORS error.
    #[serde(deserialize_with = "given")]
    pub(crate) preflights: Option<PreflightRateSettings>,
}

impl WriteInstead for RateLimitSettings {
    const EXAMPLE: &'static str = "a limit such as `{ rate: 100/s }`";
}

/// The limit of preflights that corsgate answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Rate limit of preflights", extend("required" = ["rate"]))]
pub(crate) struct PreflightRateSettings {
    /// Number of preflights per second, minute or hour, such as `100/s`, `100/m` or `100/h`.
    #[serde(deserialize_with = "given")]
    pub(crate) rate: Option<Rate>,
    /// Number of preflights that are accepted at once if the budget is full. Without this key, it is the number in
    /// `rate`.
    #[serde(deserialize_with = "given")]
    #[schemars(range(min = 1, max = MOST))]
    pub(crate) burst: Option<u64>,
}

/// A number of requests in a second, a minute or an hour. Written as `100/s`, `100/m` or `100/h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    requests: u64,
    unit: RateUnit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RateUnit {
    Second,
    Minute,
    Hour,
}

// === compiled form ===

/// The limit of a service or a route.
#[derive(Debug)]
pub(crate) struct RateLimit {
    /// Name of the limit: `service` or `service/route`.
    pub(crate) name: Box<str>,
    requests: Budget,
    preflights: Option<Budget>,
    key: KeyKind,
}

/// Rate and burst of the budget of each key, and texts for the response header.
#[derive(Debug)]
struct Budget {
    rate: Rate,
    burst: u64,
    bucket: Bucket,
    /// Start of the `RateLimit` value, up to the number of remaining requests.
    remaining: Box<str>,
    /// The `RateLimit-Policy` value.
    policy: FinishedValue,
}

/// The two budgets of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BudgetKind {
    Requests,
    /// For preflights that the gateway answers.
    Preflights,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum KeyKind {
    ClientIp,
    Header(HeaderName),
    Cookie(Box<str>),
    Route,
}

/// The key of a request. Keys of different variants are never equal, so no header value that a client sends can be
/// equal to the key of another client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RateKey<'r> {
    /// None if the address is not known.
    Client(Option<ClientKey>),
    /// Value of the header or cookie.
    Value(&'r [u8]),
    /// The same key for all requests of the limit.
    Route,
}

/// Result of the check of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RateCheck {
    /// The budget of the request.
    pub(crate) budget: BudgetKind,
    pub(crate) outcome: BucketOutcome,
}

/// Size and refill rate of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// Nanoseconds in which one token is refilled. At least 1.
    interval: u64,
    /// Nanoseconds in which an empty bucket becomes full. At least `interval`.
    capacity: u64,
}

/// Result of the check of a bucket. The times are in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BucketOutcome {
    /// The bucket had a token, and the request has taken it.
    Allowed {
        /// Number of whole tokens that are left.
        left: u64,
        /// Time until one more whole token is in the bucket.
        wait: u64,
    },
    Refused {
        /// Time until there is a whole token.
        wait: u64,
    },
}

// === compile ===

impl RateLimit {
    /// Compiles the settings. `name` is the name of the service or route in which `rate_limit` is written.
    pub(crate) fn compile(
        settings: &RateLimitSettings,
        name: &str,
        at: &At<'_>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let RateLimitSettings { rate, burst, key, preflights } = settings;
        let requests = Budget::compile(*rate, *burst, name, at, problems);
        let preflights = preflights.as_ref().map(|PreflightRateSettings { rate, burst }| {
            Budget::compile(*rate, *burst, &format!("{name} (preflights)"), &at.key("preflights"), problems)
        });
        let key = KeyKind::compile(key.as_deref(), &at.key("key"), problems);
        // None inside of `Some` means that the settings of preflights have a problem.
        let preflights = match preflights {
            Some(preflights) => Some(preflights?),
            None => None,
        };
        Some(RateLimit { name: name.into(), requests: requests?, preflights, key: key? })
    }

    /// Returns the name of the header in `key: header:NAME`.
    pub(crate) fn key_header(&self) -> Option<&HeaderName> {
        match &self.key {
            KeyKind::Header(name) => Some(name),
            KeyKind::ClientIp | KeyKind::Cookie(_) | KeyKind::Route => None,
        }
    }
}

impl Budget {
    fn compile(
        rate: Option<Rate>,
        burst: Option<u64>,
        name: &str,
        at: &At<'_>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let Some(rate) = rate else {
            problems.add(&at.key("rate"), ProblemKind::Missing { example: "rate: 100/s" });
            return None;
        };
        let out_of_range = |value: u64, write: &str| ProblemKind::OutOfRange {
            value: value.to_string(),
            range: format!("1 to {MOST}"),
            write: write.into(),
        };
        let mut valid = true;
        if !(1..=MOST).contains(&rate.requests) {
            let write = match rate.requests {
                0 => "for example `10/m`; to refuse all requests, use `respond` with `status: 403`",
                _ => "a lower rate, or remove the limit",
            };
            problems.add(&at.key("rate"), out_of_range(rate.requests, write));
            valid = false;
        }
        if let Some(burst) = burst.filter(|burst| !(1..=MOST).contains(burst)) {
            let write = match burst {
                0 => "`1`: one request fits in at a time",
                _ => "a lower number",
            };
            problems.add(&at.key("burst"), out_of_range(burst, write));
            valid = false;
        }
        valid.then(|| Budget::new(rate, burst.unwrap_or(rate.requests), name))
    }

    fn new(rate: Rate, burst: u64, name: &str) -> Self {
        // The window is the time in which the bucket is refilled, rounded up to whole seconds. The quota is the number
        // of requests that the rate allows in this window, so it is never below the number of remaining requests.
        let window = (burst * rate.unit.seconds()).div_ceil(rate.requests).max(1);
        let quota = rate.requests * window / rate.unit.seconds();
        let name = quoted_string(name);
        let policy = HeaderValue::try_from(format!("{name};q={quota};w={window}"));
        Budget {
            rate,
            burst,
            bucket: Bucket::new(rate.interval(), burst),
            remaining: format!("{name};r=").into(),
            policy: FinishedValue::new(policy.unwrap_or_else(|_| HeaderValue::from_static(""))),
        }
    }
}

impl KeyKind {
    fn compile(text: Option<&str>, at: &At<'_>, problems: &mut Problems) -> Option<Self> {
        let name = |name: &str| HeaderName::from_bytes(name.as_bytes()).ok();
        let kind = match text.map(|text| (text, text.split_once(':'))) {
            None | Some(("client_ip", _)) => Some(KeyKind::ClientIp),
            Some(("route", _)) => Some(KeyKind::Route),
            Some((_, Some(("header", text)))) => name(text).map(KeyKind::Header),
            // A cookie name is a token like a header name (RFC 6265 section 4.1.1), but it is case-sensitive.
            Some((_, Some(("cookie", text)))) => name(text).map(|_| KeyKind::Cookie(text.into())),
            Some(_) => None,
        };
        if let (None, Some(text)) = (&kind, text) {
            problems.add(at, ProblemKind::RateKeyUnknown { text: text.to_owned() });
        }
        kind
    }
}

/// Returns the text as a string of structured fields (RFC 9651 section 3.3.3).
fn quoted_string(text: &str) -> String {
    let escape = |c: char| match c {
        '"' | '\\' => ['\\', c].into_iter().collect(),
        ' '..='~' => String::from(c),
        _ => String::from('?'),
    };
    format!("\"{}\"", text.chars().map(escape).collect::<String>())
}

// === requests and responses ===

impl RateLimit {
    /// Returns the bucket of a budget, or None if the budget has no limit.
    pub(crate) fn bucket(&self, budget: BudgetKind) -> Option<&Bucket> {
        self.budget(budget).map(|budget| &budget.bucket)
    }

    /// Returns the key of a request. A preflight has no cookies and no custom header fields, so its key is always its
    /// client.
    pub(crate) fn key<'r>(&self, budget: BudgetKind, headers: &'r HeaderMap, client: Option<ClientKey>) -> RateKey<'r> {
        let value = match (&self.key, budget) {
            (KeyKind::Route, BudgetKind::Requests) => return RateKey::Route,
            (KeyKind::ClientIp, _) | (_, BudgetKind::Preflights) => None,
            (KeyKind::Header(name), BudgetKind::Requests) => {
                only(headers.get_all(name).iter().map(|value| value.as_bytes().trim_ascii()))
            }
            (KeyKind::Cookie(name), BudgetKind::Requests) => only(cookies(headers, name)),
        };
        value.filter(|value| !value.is_empty()).map_or(RateKey::Client(client), RateKey::Value)
    }

    /// Checks whether this limit can continue with the state of `other`, a limit of an earlier configuration.
    pub(crate) fn continues(&self, other: &RateLimit) -> bool {
        let same = |one: &Budget, other: &Budget| one.bucket == other.bucket;
        let same_preflights = match (&self.preflights, &other.preflights) {
            (Some(one), Some(other)) => same(one, other),
            (None, None) => true,
            _ => false,
        };
        self.name == other.name && self.key == other.key && same(&self.requests, &other.requests) && same_preflights
    }

    /// Adds the header fields for the result of a check to a response. `RateLimit` and `RateLimit-Policy` are lists, so
    /// fields of the upstream for its own limits stay.
    pub(crate) fn add_fields(&self, check: RateCheck, headers: &mut HeaderMap) {
        let Some(budget) = self.budget(check.budget) else { return };
        let (left, wait) = match check.outcome {
            BucketOutcome::Allowed { left, wait } => (left, wait),
            BucketOutcome::Refused { wait } => (0, wait),
        };
        let seconds = wait.div_ceil(NANOSECONDS);
        if let BucketOutcome::Refused { .. } = check.outcome {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        let mut value = String::with_capacity(budget.remaining.len() + 16);
        value.push_str(&budget.remaining);
        value.push_str(itoa::Buffer::new().format(left));
        value.push_str(";t=");
        value.push_str(itoa::Buffer::new().format(seconds));
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.append(RATE_LIMIT, value);
        }
        headers.append(RATE_LIMIT_POLICY, budget.policy.for_message());
    }

    fn budget(&self, budget: BudgetKind) -> Option<&Budget> {
        match budget {
            BudgetKind::Requests => Some(&self.requests),
            BudgetKind::Preflights => self.preflights.as_ref(),
        }
    }
}

/// Returns the only item, or None if there are several items. With several items, the upstream may use another item
/// than the gateway. Then a client could get a new budget for each request by adding an item.
fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    items.next().filter(|_| items.next().is_none())
}

/// Returns the values of a cookie. HTTP/2 clients may send several `Cookie` fields.
fn cookies<'r>(headers: &'r HeaderMap, name: &str) -> impl Iterator<Item = &'r [u8]> {
    let fields = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    let pairs = fields.flat_map(|field| field.split(|b| *b == b';')).map(<[u8]>::trim_ascii);
    pairs.filter_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

impl fmt::Display for RateLimit {
    /// Writes the limit in words, for `explain`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |f: &mut fmt::Formatter<'_>, Budget { rate, burst, .. }: &Budget| {
            write!(f, "{rate}")?;
            if *burst != rate.requests {
                write!(f, ", at most {burst} at once")?;
            }
            Ok(())
        };
        of(f, &self.requests)?;
        match &self.key {
            KeyKind::ClientIp => f.write_str(" for each client")?,
            KeyKind::Header(name) => write!(f, " for each value of the header {name}")?,
            KeyKind::Cookie(name) => write!(f, " for each value of the cookie {name}")?,
            KeyKind::Route => f.write_str(" for all clients together")?,
        }
        match &self.preflights {
            Some(preflights) => {
                f.write_str("; preflights: ")?;
                of(f, preflights)?;
                f.write_str(" for each client")
            }
            None => Ok(()),
        }
    }
}

/// Compares two limits without their names.
impl PartialEq for RateLimit {
    fn eq(&self, other: &Self) -> bool {
        let RateLimit { name: _, requests, preflights, key } = self;
        *requests == other.requests && *preflights == other.preflights && *key == other.key
    }
}

impl PartialEq for Budget {
    fn eq(&self, other: &Self) -> bool {
        // The other fields are computed from these two and from the name.
        (self.rate, self.burst) == (other.rate, other.burst)
    }
}

// === impl Bucket ===

impl Bucket {
    /// Creates a bucket with room for `burst` tokens. `interval` is the time in which one token is refilled, in
    /// nanoseconds.
    pub(crate) fn new(interval: u64, burst: u64) -> Self {
        let interval = interval.max(1);
        Bucket { interval, capacity: interval.saturating_mul(burst.max(1)) }
    }

    /// Takes one token, if the bucket has one. `full_at` is the state of the bucket: the time at which the bucket is
    /// full again, or 0 for a full bucket. All times are nanoseconds since the same moment.
    pub(crate) fn check(&self, full_at: &mut u64, now: u64) -> BucketOutcome {
        // The minimum is for a clock that has gone back: the bucket is then empty, but not below empty.
        let missing = full_at.saturating_sub(now).min(self.capacity);
        let wait = missing.saturating_sub(self.capacity - self.interval);
        if wait > 0 {
            return BucketOutcome::Refused { wait };
        }
        let missing = missing + self.interval;
        *full_at = now.saturating_add(missing);
        let free = self.capacity - missing;
        BucketOutcome::Allowed { left: free / self.interval, wait: self.interval - free % self.interval }
    }
}

// === impl Rate ===

impl Rate {
    const FORM: &'static str = "a rate such as `100/s`, `100/m` or `100/h`";

    fn parse(text: &str) -> Option<Self> {
        let (requests, unit) = text.split_once('/')?;
        let unit = match unit {
            "s" => RateUnit::Second,
            "m" => RateUnit::Minute,
            "h" => RateUnit::Hour,
            _ => return None,
        };
        // `u64::from_str` accepts a plus sign, which is not valid in a rate.
        let requests = requests.parse().ok().filter(|_| !requests.starts_with('+'))?;
        Some(Rate { requests, unit })
    }

    /// Returns the nanoseconds for one request, rounded.
    fn interval(self) -> u64 {
        let unit = self.unit.seconds() * NANOSECONDS;
        (unit + self.requests / 2) / self.requests.max(1)
    }
}

impl RateUnit {
    const fn seconds(self) -> u64 {
        match self {
            RateUnit::Second => 1,
            RateUnit::Minute => 60,
            RateUnit::Hour => 3600,
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            RateUnit::Second => "s",
            RateUnit::Minute => "m",
            RateUnit::Hour => "h",
        };
        write!(f, "{}/{unit}", self.requests)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RateVisitor;
        impl Visitor<'_> for RateVisitor {
            type Value = Rate;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Rate::FORM)
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Rate, E> {
                Rate::parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(RateVisitor)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Rate {
    fn schema_name() -> Cow<'static, str> {
        "Rate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "rate",
            "description": "A number of requests per second, minute or hour: `100/s`, `100/m`, `100/h`.",
            "type": "string",
            "pattern": "^0*([1-9][0-9]{0,5}|1000000)/(s|m|h)$",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = NANOSECONDS;

    fn limit(settings: &str) -> (Option<RateLimit>, Problems) {
        let settings: RateLimitSettings = serde_json::from_str(settings).unwrap();
        let mut problems = Problems::default();
        (RateLimit::compile(&settings, "api/search", &At::root(), &mut problems), problems)
    }

    fn valid(settings: &str) -> RateLimit {
        let (limit, problems) = limit(settings);
        assert!(problems.is_empty(), "{settings}: {problems}");
        limit.unwrap()
    }

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn fields_of(settings: &str, budget: BudgetKind, outcome: BucketOutcome) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        valid(settings).add_fields(RateCheck { budget, outcome }, &mut headers);
        headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn a_rate_is_a_number_and_a_unit() {
        for (text, interval) in [
            ("1/s", SECOND),
            ("100/s", SECOND / 100),
            ("3/s", 333_333_333),
            ("7/m", 8_571_428_571),
            ("60/m", SECOND),
            ("1/h", 3600 * SECOND),
            ("1000000/s", 1000),
            ("007/s", 142_857_143),
        ] {
            let rate = Rate::parse(text).unwrap();
            assert_eq!(rate.interval(), interval, "{text}");
            assert_eq!(Rate::parse(&rate.to_string()), Some(rate));
        }
        for text in
            ["", "100", "/s", "100/", "100/d", "100/S", "-1/s", "+1/s", "1.5/s", "100 /s", "100/s ", "1e3/s", "100r/s"]
        {
            assert_eq!(Rate::parse(text), None, "{text}");
        }
        assert_eq!(Rate::parse("18446744073709551616/s"), None, "more than u64 holds");
    }

    #[test]
    fn numbers_out_of_range_are_reported_with_a_remedy() {
        for (settings, at, remedy) in [
            ("{}", "rate", "write for example `rate: 100/s`"),
            (r#"{"rate": "0/s"}"#, "rate", "write for example `10/m`; to refuse all requests"),
            (r#"{"rate": "1000001/s"}"#, "rate", "write a lower rate"),
            (r#"{"rate": "18446744073709551615/h"}"#, "rate", "write a lower rate"),
            (r#"{"rate": "1/s", "burst": 0}"#, "burst", "write `1`"),
            (r#"{"rate": "1/s", "burst": 1000001}"#, "burst", "write a lower number"),
            (r#"{"rate": "1/s", "burst": 18446744073709551615}"#, "burst", "write a lower number"),
            (r#"{"rate": "1/s", "preflights": {}}"#, "preflights.rate", "write for example `rate: 100/s`"),
            (r#"{"rate": "1/s", "preflights": {"rate": "1/s", "burst": 0}}"#, "preflights.burst", "write `1`"),
            (r#"{"rate": "1/s", "key": "ip"}"#, "key", "write `client_ip`"),
            (r#"{"rate": "1/s", "key": "header:"}"#, "key", "write `client_ip`"),
            (r#"{"rate": "1/s", "key": "header:X Key"}"#, "key", "write `client_ip`"),
            (r#"{"rate": "1/s", "key": "cookie:a;b"}"#, "key", "write `client_ip`"),
            (r#"{"rate": "1/s", "key": "client_ip:x"}"#, "key", "write `client_ip`"),
        ] {
            let (limit, problems) = limit(settings);
            let problems: Vec<_> =
                problems.iter().map(|problem| (problem.at.to_string(), problem.kind.remedy())).collect();
            let [(place, text)] = &problems[..] else { panic!("{settings}: {problems:?}") };
            assert!(place == at && text.starts_with(remedy) && limit.is_none(), "{settings}: {place}: {text}");
        }
    }

    #[test]
    fn the_policy_has_the_burst_as_quota_and_the_time_to_fill_it_as_window() {
        for (settings, policy) in [
            (r#"{"rate": "100/m"}"#, r#""api/search";q=100;w=60"#),
            (r#"{"rate": "100/s", "burst": 200}"#, r#""api/search";q=200;w=2"#),
            // A window has whole seconds.
            (r#"{"rate": "100/s", "burst": 20}"#, r#""api/search";q=100;w=1"#),
            (r#"{"rate": "100/s", "burst": 250}"#, r#""api/search";q=300;w=3"#),
            (r#"{"rate": "7/m", "burst": 3}"#, r#""api/search";q=3;w=26"#),
            (r#"{"rate": "1/h", "burst": 1}"#, r#""api/search";q=1;w=3600"#),
            (r#"{"rate": "1/h", "burst": 1000000}"#, r#""api/search";q=1000000;w=3600000000"#),
            (r#"{"rate": "1000000/s", "burst": 1}"#, r#""api/search";q=1000000;w=1"#),
        ] {
            let outcome = BucketOutcome::Allowed { left: 1, wait: SECOND };
            let fields = fields_of(settings, BudgetKind::Requests, outcome);
            assert_eq!(fields[1], ("ratelimit-policy".to_owned(), policy.to_owned()), "{settings}");
        }
        assert_eq!(quoted_string("a \"b\\\u{e9}\n"), r#""a \"b\\??""#);
    }

    #[test]
    fn a_response_says_what_is_left_and_a_refusal_says_when_to_try_again() {
        let settings = r#"{"rate": "10/m", "preflights": {"rate": "5/s"}}"#;
        let check = |budget, outcome| {
            let fields = fields_of(settings, budget, outcome);
            fields.into_iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>()
        };
        assert_eq!(
            check(BudgetKind::Requests, BucketOutcome::Allowed { left: 9, wait: 6 * SECOND }),
            [r#"ratelimit: "api/search";r=9;t=6"#, r#"ratelimit-policy: "api/search";q=10;w=60"#]
        );
        // Seconds are rounded up, so that a request after this time is accepted.
        assert_eq!(
            check(BudgetKind::Requests, BucketOutcome::Refused { wait: 5 * SECOND + 1 }),
            ["retry-after: 6", r#"ratelimit: "api/search";r=0;t=6"#, r#"ratelimit-policy: "api/search";q=10;w=60"#]
        );
        assert_eq!(
            check(BudgetKind::Preflights, BucketOutcome::Refused { wait: 1 }),
            [
                "retry-after: 1",
                r#"ratelimit: "api/search (preflights)";r=0;t=1"#,
                r#"ratelimit-policy: "api/search (preflights)";q=5;w=1"#
            ]
        );
    }

    #[test]
    fn fields_of_the_upstream_stay() {
        let mut headers = map(&[("ratelimit", "\"db\";r=1;t=1"), ("ratelimit-policy", "\"db\";q=9;w=9")]);
        let check = RateCheck { budget: BudgetKind::Requests, outcome: BucketOutcome::Allowed { left: 3, wait: 1 } };
        valid(r#"{"rate": "10/m"}"#).add_fields(check, &mut headers);
        let values: Vec<_> = headers.get_all("ratelimit").iter().collect();
        assert_eq!(values, ["\"db\";r=1;t=1", "\"api/search\";r=3;t=1"]);
        assert_eq!(headers.get_all("ratelimit-policy").iter().count(), 2);
    }

    #[test]
    fn the_key_is_what_the_setting_names_or_the_client() {
        type Case = (&'static str, &'static [(&'static str, &'static str)], Option<&'static [u8]>);
        let client = Some(ClientKey::of("192.0.2.1".parse().unwrap()));
        let by_client = RateKey::Client(client);
        #[rustfmt::skip]
        let cases: [Case; 14] = [
            ("header:X-Key", &[("x-key", "a")],                        Some(b"a")),
            ("header:X-Key", &[("x-key", "a, b")],                     Some(b"a, b")),
            ("header:X-Key", &[],                                      None),
            ("header:X-Key", &[("x-key", "")],                         None),
            ("header:X-Key", &[("x-keys", "a")],                       None),
            // The upstream may read either value.
            ("header:X-Key", &[("x-key", "a"), ("x-key", "b")],        None),
            ("header:X-Key", &[("x-key", "a"), ("x-key", "a")],        None),
            ("cookie:id",    &[("cookie", "a=b; id=7; c=d")],          Some(b"7")),
            ("cookie:id",    &[("cookie", "a=b"), ("cookie", "id=7")], Some(b"7")),
            ("cookie:id",    &[("cookie", "ID=7; idx=8; xid=9")],      None),
            ("cookie:id",    &[("cookie", "id=7; id=8")],              None),
            ("cookie:id",    &[("cookie", "id=")],                     None),
            ("cookie:id",    &[("cookie", "id")],                      None),
            ("client_ip",    &[("x-key", "a")],                        None),
        ];
        for (key, fields, value) in cases {
            let limit = valid(&format!(r#"{{"rate": "1/s", "key": "{key}", "preflights": {{"rate": "1/s"}}}}"#));
            let headers = map(fields);
            let expected = value.map_or(by_client, RateKey::Value);
            assert_eq!(limit.key(BudgetKind::Requests, &headers, client), expected, "{key} {fields:?}");
            assert_eq!(limit.key(BudgetKind::Preflights, &headers, client), by_client, "{key} {fields:?}");
        }
        let limit = valid(r#"{"rate": "1/s", "key": "route"}"#);
        assert_eq!(limit.key(BudgetKind::Requests, &HeaderMap::new(), client), RateKey::Route);
        assert_eq!(limit.key(BudgetKind::Preflights, &HeaderMap::new(), client), by_client);
        assert_eq!(limit.key(BudgetKind::Preflights, &HeaderMap::new(), None), RateKey::Client(None));
    }

    #[test]
    fn state_goes_on_with_equal_settings_only() {
        let same = r#"{"rate": "60/m", "burst": 5, "preflights": {"rate": "9/s"}}"#;
        let equal = r#"{"rate": "60/m", "burst": 5, "key": "client_ip", "preflights": {"rate": "9/s", "burst": 9}}"#;
        assert!(valid(same).continues(&valid(equal)));
        for other in [
            r#"{"rate": "61/m", "burst": 5, "preflights": {"rate": "9/s"}}"#,
            r#"{"rate": "60/m", "burst": 6, "preflights": {"rate": "9/s"}}"#,
            r#"{"rate": "60/m", "burst": 5, "preflights": {"rate": "8/s"}}"#,
            r#"{"rate": "60/m", "burst": 5}"#,
            r#"{"rate": "60/m", "burst": 5, "key": "route", "preflights": {"rate": "9/s"}}"#,
        ] {
            assert!(!valid(same).continues(&valid(other)), "{other}");
        }
        let settings = RateLimitSettings { rate: Rate::parse("1/s"), ..RateLimitSettings::default() };
        let at = |name| RateLimit::compile(&settings, name, &At::root(), &mut Problems::default()).unwrap();
        assert!(at("api").continues(&at("api")) && !at("api").continues(&at("web")));
    }

    #[test]
    fn a_limit_in_words() {
        for (settings, words) in [
            (r#"{"rate": "10/m"}"#, "10/m for each client"),
            (r#"{"rate": "10/m", "burst": 3, "key": "route"}"#, "10/m, at most 3 at once for all clients together"),
            (r#"{"rate": "9/s", "key": "header:X-Key"}"#, "9/s for each value of the header x-key"),
            (
                r#"{"rate": "9/s", "key": "cookie:id", "preflights": {"rate": "8/s"}}"#,
                "9/s for each value of the cookie id; preflights: 8/s for each client",
            ),
        ] {
            assert_eq!(valid(settings).to_string(), words);
        }
    }

    #[test]
    fn a_bucket_allows_its_burst_and_then_its_rate() {
        let bucket = Bucket::new(SECOND, 3);
        let mut state = 0;
        let start = 1_000 * SECOND;
        let expected = [
            (0, BucketOutcome::Allowed { left: 2, wait: SECOND }),
            (0, BucketOutcome::Allowed { left: 1, wait: SECOND }),
            (0, BucketOutcome::Allowed { left: 0, wait: SECOND }),
            (0, BucketOutcome::Refused { wait: SECOND }),
            (SECOND / 4, BucketOutcome::Refused { wait: SECOND - SECOND / 4 }),
            (SECOND - 1, BucketOutcome::Refused { wait: 1 }),
            (SECOND, BucketOutcome::Allowed { left: 0, wait: SECOND }),
            (SECOND, BucketOutcome::Refused { wait: SECOND }),
            (5 * SECOND / 2, BucketOutcome::Allowed { left: 0, wait: SECOND / 2 }),
            (100 * SECOND, BucketOutcome::Allowed { left: 2, wait: SECOND }),
        ];
        for (time, outcome) in expected {
            assert_eq!(bucket.check(&mut state, start + time), outcome, "at {time}");
        }
    }

    #[test]
    fn a_clock_that_goes_back_or_jumps_empties_or_fills_a_bucket_and_no_more() {
        let bucket = Bucket::new(SECOND, 3);
        let mut state = 0;
        let start = 1_000_000 * SECOND;
        assert!(matches!(bucket.check(&mut state, start), BucketOutcome::Allowed { left: 2, .. }));
        // Without a bound, the bucket would be empty for eleven days.
        assert_eq!(bucket.check(&mut state, 0), BucketOutcome::Refused { wait: SECOND });
        assert!(matches!(bucket.check(&mut state, u64::MAX / 2), BucketOutcome::Allowed { left: 2, .. }));
        for _ in 0..10 {
            bucket.check(&mut state, u64::MAX);
        }
        assert_eq!(state, u64::MAX, "no overflow");
    }

    proptest! {
        /// Compares the bucket with a model that counts tokens exactly, in fractions.
        #[test]
        fn a_bucket_agrees_with_one_that_counts_requests(
            requests in 1..=MOST,
            unit in prop_oneof![Just(RateUnit::Second), Just(RateUnit::Minute), Just(RateUnit::Hour)],
            burst in prop_oneof![1..5_u64, 1..=MOST],
            steps in prop::collection::vec(0..=3_000_u64, 1..300),
        ) {
            let rate = Rate { requests, unit };
            let bucket = Bucket::new(rate.interval(), burst);
            let (mut state, mut now) = (0, 3600 * SECOND);
            // Tokens, multiplied by the interval.
            let full = u128::from(burst) * u128::from(rate.interval());
            let mut tokens = full;
            for step in steps {
                let elapsed = u128::from(step) * u128::from(rate.interval()) / 1_000;
                now += u64::try_from(elapsed).unwrap();
                tokens = (tokens + elapsed).min(full);
                let expected = tokens >= u128::from(rate.interval());
                let outcome = bucket.check(&mut state, now);
                prop_assert_eq!(matches!(outcome, BucketOutcome::Allowed { .. }), expected);
                if expected {
                    tokens -= u128::from(rate.interval());
                }
                match outcome {
                    BucketOutcome::Allowed { left, wait } => {
                        prop_assert_eq!(u128::from(left), tokens / u128::from(rate.interval()));
                        prop_assert_eq!(u128::from(wait), u128::from(rate.interval()) - tokens % u128::from(rate.interval()));
                    }
                    // The next request is allowed exactly at that time, and not one nanosecond earlier.
                    BucketOutcome::Refused { wait } => {
                        let (mut early, mut in_time) = (state, state);
                        prop_assert!(wait > 0 && wait <= rate.interval());
                        let refused = matches!(bucket.check(&mut early, now + wait - 1), BucketOutcome::Refused { .. });
                        let allowed = matches!(bucket.check(&mut in_time, now + wait), BucketOutcome::Allowed { .. });
                        prop_assert!(refused && allowed);
                    }
                }
            }
        }

        /// Checks that rounding the interval changes the rate by less than 0.1 %.
        #[test]
        fn the_rate_is_right_within_a_thousandth(requests in 1..=MOST, unit in 0..3_usize) {
            let unit = [RateUnit::Second, RateUnit::Minute, RateUnit::Hour][unit];
            let rate = Rate { requests, unit };
            // Without rounding, the product would be exactly one unit.
            let unit = unit.seconds() * NANOSECONDS;
            prop_assert!((rate.interval() * requests).abs_diff(unit) <= unit / 1000);
        }

        #[test]
        fn no_state_and_no_time_overflows(state in any::<u64>(), now in any::<u64>(), burst in 1..=MOST, requests in 1..=MOST) {
            let rate = Rate { requests, unit: RateUnit::Hour };
            let bucket = Bucket::new(rate.interval(), burst);
            let mut after = state;
            match bucket.check(&mut after, now) {
                BucketOutcome::Allowed { left, wait } => prop_assert!(left < burst && wait <= rate.interval()),
                BucketOutcome::Refused { wait } => prop_assert!(after == state && wait <= rate.interval()),
            }
        }
    }
}
