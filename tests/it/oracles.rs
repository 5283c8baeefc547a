//! Oracles compare fast code with a few slow and obvious lines that follow the design, with random inputs that are
//! close to valid ones.
//!
//! An oracle shares no code with the tested code. It works on text, and the tested code works on parsed values.
//! `tests/proptest-regressions` keeps failing inputs, which run first in later runs.

use std::collections::HashSet;

use corsgate::config::Document;
use corsgate::cors::{
    CorsRequest, CrossSite, Danger, Decision, DisallowedOrigins, Field, OriginMatch, OriginPattern, OriginSet,
    Patterns, Policy, PolicyAction, PreflightMatch, PreflightSettings, Reason, Settings, TuplePattern, UpstreamHeaders,
};
use corsgate::domain::{HostName, OwnOrigin, Scheme};
use corsgate::notation::List;
use corsgate::problem::{At, Problems};
use corsgate::route::{HostPattern, PathPattern, RouteEntry, RouteMatch, Routes, is_ambiguous};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

// === origins ===

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn an_origin_set_agrees_with_its_patterns_one_by_one((texts, origin) in patterns_and_origin()) {
        let patterns: Vec<TuplePattern> = texts.iter().map(|text| tuple(text)).collect();
        let set: OriginSet = patterns.iter().collect();
        let found = set.find(&origin);
        let covered = texts.iter().any(|text| covers(text, &origin));
        prop_assert_eq!(found.is_some(), covered, "set and contract differ");
        prop_assert_eq!(patterns.iter().any(|pattern| pattern.matches(&origin)), covered, "pattern and contract differ");
        prop_assert_eq!(found == Some(OriginMatch::Exact), covered && texts.contains(&origin), "exact means listed");
    }

    #[test]
    fn the_set_finds_every_origin_that_the_strict_parser_accepts(text in origin_text()) {
        if let Ok(OriginPattern::Tuple(pattern)) = OriginPattern::parse(&text)
            && !text.contains(['*', '{'])
        {
            prop_assert!(pattern.matches(&text));
            prop_assert!(covers(&text, &text), "the contract knows it as an origin");
            let set: OriginSet = [&pattern].into_iter().collect();
            prop_assert_eq!(set.find(&text), Some(OriginMatch::Exact));
            let (scheme, _) = text.split_once("://").unwrap();
            let everything: OriginSet = [&tuple(&format!("{scheme}://*:*"))].into_iter().collect();
            prop_assert_eq!(everything.find(&text), Some(OriginMatch::Pattern), "the cheap parser takes it too");
        }
    }
}

/// Each pattern with each origin, and the set of the patterns with the origin. `ORIGIN_PAIRS` is the number of pairs.
#[test]
#[ignore = "`make pairs` takes half an hour"]
fn fifty_million_pairs_of_patterns_and_origins_agree() {
    let most: u64 = std::env::var("ORIGIN_PAIRS").map_or(50_000_000, |text| text.parse().expect("a number"));
    let config = ProptestConfig { max_local_rejects: u32::MAX, ..ProptestConfig::default() };
    let (strategy, mut runner) = (patterns_and_origin(), TestRunner::new(config));
    let (mut pairs, mut allowed) = (0, 0);
    while pairs < most {
        let (texts, origin) = strategy.new_tree(&mut runner).unwrap().current();
        let patterns: Vec<TuplePattern> = texts.iter().map(|text| tuple(text)).collect();
        let covered: Vec<bool> = texts.iter().map(|text| covers(text, &origin)).collect();
        let matched: Vec<bool> = patterns.iter().map(|pattern| pattern.matches(&origin)).collect();
        assert_eq!(matched, covered, "{texts:?} {origin:?}");
        let set: OriginSet = patterns.iter().collect();
        let exact = texts.contains(&origin);
        let expected = covered.contains(&true).then_some(if exact { OriginMatch::Exact } else { OriginMatch::Pattern });
        assert_eq!(set.find(&origin), expected, "{texts:?} {origin:?}");
        pairs += texts.len() as u64;
        allowed += covered.iter().filter(|covered| **covered).count();
    }
    println!("{pairs} pairs, of which {allowed} match: no disagreement");
    assert!(allowed as u64 > pairs / 100, "the pairs are too far from each other");
}

/// The section "Origin patterns" of the design, word by word.
fn covers(pattern: &str, origin: &str) -> bool {
    let (Some((scheme, listed)), Some((given, authority))) = (pattern.split_once("://"), origin.split_once("://"))
    else {
        return false;
    };
    let ((listed_host, listed_port), (host, port)) = (host_and_port(listed), host_and_port(authority));
    scheme == given
        && is_sent_by_browsers(scheme, host, port)
        && (listed_port == Some("*") || listed_port == port)
        && (listed_host == "*"
            || listed_host == host
            || listed_host.contains('{') && has_short_labels(listed_host, host) && fits(listed_host, host)
            || !listed_host.contains('{')
                && listed_host.strip_prefix('*').is_some_and(|base| host.len() > base.len() && host.ends_with(base)))
}

/// Whether each label for which `listed` has a label has at most 63 characters. A leading `*.` limits none.
fn has_short_labels(listed: &str, host: &str) -> bool {
    let written = listed.strip_prefix("*.").unwrap_or(listed).split('.').count();
    host.rsplit('.').take(written).all(|label| label.len() <= 63)
}

/// Tries every length for each placeholder, and every number of labels for a leading `*.`.
fn fits(listed: &str, host: &str) -> bool {
    if let Some(rest) = listed.strip_prefix("*.") {
        let ends = host.match_indices('.').map(|(dot, _)| &host[dot + 1..]);
        return ends.into_iter().any(|end| fits(rest, end));
    }
    let Some((name, rest)) = listed.strip_prefix('{').and_then(|listed| listed.split_once('}')) else {
        return match (listed.chars().next(), host.strip_prefix(|c| listed.starts_with(c))) {
            (None, _) => host.is_empty(),
            (Some(first), Some(host)) => fits(&listed[first.len_utf8()..], host),
            (Some(_), None) => false,
        };
    };
    let is_in = |c: char| match name {
        "digits" => "0123456789".contains(c),
        "hex" => "0123456789abcdef".contains(c),
        _ => "0123456789abcdefghijklmnopqrstuvwxyz-".contains(c),
    };
    (1..=host.len()).take_while(|end| host[..*end].chars().all(is_in)).any(|end| fits(rest, &host[end..]))
}

fn is_sent_by_browsers(scheme: &str, host: &str, port: Option<&str>) -> bool {
    let default = [("http", "80"), ("https", "443"), ("ws", "80"), ("wss", "443"), ("ftp", "21")];
    let in_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    // A dot at the end of a host makes another origin.
    let is_name =
        host.strip_suffix('.').unwrap_or(host).split('.').all(|label| !label.is_empty() && label.chars().all(in_name));
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or_default();
    let is_v6 = !inner.is_empty() && inner.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f' | ':'));
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|number| number > 0 && number.to_string() == port);
    (is_name || is_v6) && port.is_none_or(|port| is_port(port) && !default.contains(&(scheme, port)))
}

fn host_and_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn tuple(text: &str) -> TuplePattern {
    match OriginPattern::parse(text) {
        Ok(OriginPattern::Tuple(pattern)) => pattern,
        other => panic!("{text} is a pattern: {other:?}"),
    }
}

const SCHEMES: [&str; 5] = ["https", "http", "capacitor", "tauri", "chrome-extension"];
/// Names that are suffixes of each other or look alike, and addresses.
const HOSTS: [&str; 13] = [
    "foo.com",
    "foo.com.",
    "bar.com",
    "barfoo.com",
    "app.foo.com",
    "a.b.foo.com",
    "o.com",
    "com",
    "localhost",
    "xn--bcher-kva.example",
    "127.0.0.1",
    "[::1]",
    "[2001:db8::1]",
];
/// Hosts with placeholders whose texts and neighbours look alike.
const TEMPLATES: [&str; 8] = [
    "pr-{digits}.foo.com",
    "{label}.foo.com",
    "{hex}.foo.com.",
    "{label}-{digits}.foo.com",
    "a{hex}a{hex}a.foo.com",
    "{digits}.{label}.foo.com",
    "{label}-{label}.app.foo.com",
    "b.{hex}.com",
];
const PORTS: [&str; 6] = ["", ":8080", ":8443", ":80", ":1", ":65535"];

fn pattern_text() -> impl Strategy<Value = String> {
    let host = prop_oneof![
        4 => select(&HOSTS[..]).prop_map(str::to_owned),
        4 => select(&HOSTS[..10]).prop_map(|host| format!("*.{host}")),
        4 => select(&TEMPLATES[..]).prop_map(str::to_owned),
        2 => select(&TEMPLATES[..]).prop_map(|host| format!("*.{host}")),
        1 => Just("*".to_owned()),
    ];
    let port = prop_oneof![3 => select(&PORTS[..]), 1 => Just(":*")];
    (select(&SCHEMES[..]), host, port)
        .prop_map(|(scheme, host, port)| format!("{scheme}://{host}{port}"))
        .prop_filter("the strict parser refuses default ports", |text| OriginPattern::parse(text).is_ok())
}

fn patterns_and_origin() -> impl Strategy<Value = (Vec<String>, String)> {
    let near = (vec(pattern_text(), 1..12), any::<Index>(), labels(), select(&PORTS[..]), vec(slip(), 0..3), parts())
        .prop_map(|(patterns, chosen, labels, port, slips, [digits, hex, label])| {
            let origin = chosen.get(&patterns).replace("*.", &format!("{labels}.")).replace(":*", port);
            let origin = origin.replace("{digits}", &digits).replace("{hex}", &hex).replace("{label}", &label);
            let origin = slips.iter().fold(origin.replace('*', &labels), |origin, slip| slip.make(&origin));
            (patterns, origin)
        });
    let far = (vec(pattern_text(), 1..12), origin_text());
    prop_oneof![6 => near, 1 => far]
}

fn labels() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("www".to_owned()),
        Just("a.b".to_owned()),
        "[a-z0-9_-]{1,5}(\\.[a-z0-9_-]{1,5}){0,2}",
        // The deepest names, in which every suffix is a candidate.
        (1..120_usize).prop_map(|depth| vec!["a"; depth].join(".")),
    ]
}

/// A text for each placeholder. Most of them match.
fn parts() -> impl Strategy<Value = [String; 3]> {
    let part = |class: &'static str| prop_oneof![8 => class, 1 => "[a-z0-9_.-]{0,3}", 1 => (58..66_usize).prop_map(|length| "1".repeat(length))];
    [part("[0-9]{1,4}"), part("[0-9a]{1,5}"), part("[a-z0-9-]{1,6}")]
}

/// Texts from valid origins to random characters.
fn origin_text() -> impl Strategy<Value = String> {
    let v6 = any::<u128>().prop_flat_map(|bits| {
        let sparse =
            select(vec![bits, bits & 0xffff_ffff, bits >> 112 << 112, bits & 0xf00f, 0xffff << 32 | bits >> 96]);
        sparse.prop_map(|bits| format!("[{}]", std::net::Ipv6Addr::from(bits)))
    });
    let host = prop_oneof![
        4 => "([a-z0-9_-]{1,4}\\.){0,3}[a-z0-9_-]{1,4}",
        1 => "([0-9]{1,3}\\.){1,3}[0-9]{1,3}",
        1 => v6,
        1 => "\\[[0-9a-f:.]{0,12}\\]",
        1 => "[a-z.]{0,8}",
    ];
    let formed = ("[a-z][a-z0-9+.-]{0,6}|https?|wss?|ftp", host, "(:[0-9]{0,6})?");
    prop_oneof![
        4 => formed.prop_map(|(scheme, host, port)| format!("{scheme}://{host}{port}")),
        1 => "(https?://)?[a-zA-Z0-9:/.@%*\\[\\]_-]{0,40}",
        1 => "\\PC{0,20}",
    ]
}

/// Changes that make another origin look like this one.
#[derive(Debug, Clone)]
enum Slip {
    InFrontOfHost(&'static str),
    Behind(&'static str),
    InFrontOfPort(&'static str),
    Scheme(&'static str),
    Port(&'static str),
    Dropped(Index),
    Swapped(Index, char),
    Inserted(Index, char),
    UpperCase(Index),
    WithoutDot(Index),
    DotSwapped(Index, char),
}

fn slip() -> impl Strategy<Value = Slip> {
    let front =
        vec!["evil", "evil.", "evil-", ".", "..", "bar", "foo.com", "foo.com@", "user:secret@", "%2e", "*.", "/"];
    let behind =
        vec![".", "..", ".evil.test", "evil", "/", "/path", "?", "#", ",https://foo.com", " ", "%00", "@evil.test"];
    let host_end = vec![".", ".evil.test", "evil", "-", "@evil.test", "%2eevil.test", "]", ":1"];
    let ports = vec!["", ":", ":0", ":80", ":443", ":8080", ":08080", ":8443", ":65535", ":65536", ":+80", ":1", ":*"];
    let odd = select(vec!['.', '-', '_', 'a', 'z', '0', ':', '/', '@', '%', '*', '[', ']', ',', ' ', 'é', '\\']);
    prop_oneof![
        select(front).prop_map(Slip::InFrontOfHost),
        select(behind).prop_map(Slip::Behind),
        select(host_end).prop_map(Slip::InFrontOfPort),
        select(&SCHEMES[..]).prop_map(Slip::Scheme),
        select(ports).prop_map(Slip::Port),
        any::<Index>().prop_map(Slip::Dropped),
        (any::<Index>(), odd.clone()).prop_map(|(at, by)| Slip::Swapped(at, by)),
        (any::<Index>(), odd.clone()).prop_map(|(at, new)| Slip::Inserted(at, new)),
        any::<Index>().prop_map(Slip::UpperCase),
        any::<Index>().prop_map(Slip::WithoutDot),
        (any::<Index>(), odd).prop_map(|(at, by)| Slip::DotSwapped(at, by)),
    ]
}

impl Slip {
    fn make(&self, origin: &str) -> String {
        let (scheme, authority) = origin.split_once("://").unwrap_or(("https", origin));
        let (host, port) = host_and_port(authority);
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        let mut all: Vec<char> = origin.chars().collect();
        let dots: Vec<usize> = all.iter().enumerate().filter(|(_, c)| **c == '.').map(|(i, _)| i).collect();
        let dot = |at: &Index| (!dots.is_empty()).then(|| *at.get(&dots));
        match self {
            Slip::InFrontOfHost(text) => return format!("{scheme}://{text}{host}{port}"),
            Slip::InFrontOfPort(text) => return format!("{scheme}://{host}{text}{port}"),
            Slip::Behind(text) => return format!("{origin}{text}"),
            Slip::Scheme(scheme) => return format!("{scheme}://{authority}"),
            Slip::Port(port) => return format!("{scheme}://{host}{port}"),
            Slip::Inserted(at, new) => all.insert(at.index(all.len() + 1), *new),
            Slip::Swapped(at, by) if !all.is_empty() => *at.get_mut(&mut all) = *by,
            Slip::UpperCase(at) if !all.is_empty() => at.get_mut(&mut all).make_ascii_uppercase(),
            Slip::Dropped(at) if !all.is_empty() => {
                all.remove(at.index(all.len()));
            }
            Slip::DotSwapped(at, by) => dot(at).into_iter().for_each(|dot| all[dot] = *by),
            Slip::WithoutDot(at) => {
                if let Some(dot) = dot(at) {
                    all.remove(dot);
                }
            }
            Slip::Swapped(..) | Slip::UpperCase(_) | Slip::Dropped(_) => {}
        }
        all.into_iter().collect()
    }
}

// === routes ===

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn a_host_name_is_the_authority_without_its_port(
        authority in prop_oneof![
            "[aA0.:\\[\\]_%/ -]{0,12}",
            "(api|API|a_b|xn--p1ai)(\\.|\\.example|\\.\\.)?(:|:0|:80|:65535|:65536|:080|:99999999999|:8a|:-1)?",
            "\\[(::1|::FFFF:1.2.3.4|1:2|::g)\\]?(:|:80|80|:x)?",
            "a{250,256}(\\.)?",
        ]
    ) {
        let found = HostName::parse(&authority).map(|host| host.as_str().to_owned());
        prop_assert_eq!(found, host_name(&authority), "{}", authority);
    }
}

/// The host of an authority, as the standard defines it.
fn host_name(authority: &str) -> Option<String> {
    let lower = authority.to_ascii_lowercase();
    let host = match lower.starts_with('[') {
        true => &lower[..=lower.find(']')?],
        false => lower.split(':').next()?,
    };
    let port = lower[host.len()..].strip_prefix(':');
    let number =
        |digits: &str| digits.chars().all(|c| c.is_ascii_digit()) && digits.parse::<u128>().unwrap_or(0) < 65536;
    if !(lower.len() == host.len() || port.is_some_and(number)) || host.len() > 254 {
        return None;
    }
    let bare = host.strip_suffix('.').unwrap_or(host);
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().ok().map(|_| host.to_owned()),
        None => (!bare.is_empty() && bare.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)))
            .then(|| bare.to_owned()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn routes_agree_with_trying_them_all((services, requests) in services_and_requests()) {
        let mut builder = Routes::<(usize, usize), Vec<usize>>::builder();
        for (i, (hosts, entries)) in services.iter().enumerate() {
            let hosts = hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect();
            let entries = entries.iter().enumerate().map(|(j, written)| RouteEntry {
                path: PathPattern::parse(&written.path).unwrap(),
                methods: written.methods.as_ref().map(|methods| methods.iter().map(|m| (*m).into()).collect()),
                get_implies_head: written.get_implies_head,
                route: (i, j),
            });
            builder.service(hosts, entries.collect());
        }
        // A service with the same host twice conflicts with itself, unless it has no routes.
        let built = builder.build(|services| {
            let mut services = services.to_vec();
            services.dedup();
            services
        });
        prop_assert_eq!(built.is_err(), any_conflict(&services), "a conflict is missed or made up");
        let Ok(routes) = built else { return Ok(()) };
        for (authority, path, method) in &requests {
            let Some(host) = HostName::parse(authority) else { continue };
            let expected = try_all(&services, authority, path, method);
            let found = match routes.find(host.as_str(), path.as_bytes()) {
                RouteMatch::Path(path, host) => Tried::Path(host.clone(), path.route(method).copied()),
                RouteMatch::UnknownPath(host) => Tried::UnknownPath(host.clone()),
                RouteMatch::UnknownHost => Tried::UnknownHost,
            };
            prop_assert_eq!(found, expected, "{} {} {}", method, authority, path);
        }
    }
}

/// A service: hosts and routes, as text.
type Service = (Vec<String>, Vec<Written>);

#[derive(Debug, Clone)]
struct Written {
    path: String,
    methods: Option<Vec<&'static str>>,
    get_implies_head: bool,
}

#[derive(Debug, PartialEq)]
enum Tried {
    Path(Vec<usize>, Option<(usize, usize)>),
    UnknownPath(Vec<usize>),
    UnknownHost,
}

/// Design, section 4: the host decides first, then the path, then the method.
fn try_all(services: &[Service], authority: &str, path: &str, method: &str) -> Tried {
    let (host, _) = host_and_port(authority);
    let host = host.strip_suffix('.').unwrap_or(host).to_lowercase();
    let with = |pattern: &str| -> Vec<usize> {
        let has = |hosts: &[String]| hosts.iter().any(|host| host == pattern);
        (0..services.len()).filter(|i| has(&services[*i].0)).collect()
    };
    let labels: Vec<&str> = host.split('.').collect();
    let wildcards = (1..labels.len())
        .filter(|front| labels[..*front].iter().all(|label| !label.is_empty()))
        .map(|front| with(&format!("*.{}", labels[front..].join("."))));
    let without_hosts = (0..services.len()).filter(|i| services[*i].0.is_empty()).collect();
    let candidates = std::iter::once(with(&host)).chain(wildcards).chain([without_hosts]);
    let Some(these) = candidates.into_iter().find(|services| !services.is_empty()) else { return Tried::UnknownHost };

    let matching: Vec<(Vec<u8>, (usize, usize))> = these
        .iter()
        .flat_map(|i| services[*i].1.iter().enumerate().map(move |(j, written)| (written, (*i, j))))
        .filter_map(|(written, id)| Some((rank(&written.path, path)?, id)))
        .collect();
    let Some(best) = matching.iter().map(|(rank, _)| rank).max() else { return Tried::UnknownPath(these) };
    let best: Vec<(usize, usize)> = matching.iter().filter(|(rank, _)| rank == best).map(|(_, id)| *id).collect();
    let methods = |(i, j): (usize, usize)| services[i].1[j].methods.as_ref();
    let lists = |id: (usize, usize), method: &str| methods(id).is_some_and(|methods| methods.contains(&method));
    let named = best.iter().find(|id| lists(**id, method));
    let implies = |(i, j): (usize, usize)| services[i].1[j].get_implies_head;
    let named = named.or_else(|| best.iter().find(|id| method == "HEAD" && lists(**id, "GET") && implies(**id)));
    Tried::Path(these, named.or_else(|| best.iter().find(|id| methods(**id).is_none())).copied())
}

/// The specificity of a pattern for a path that it matches. At each step the end of the pattern ranks above a literal
/// segment, a literal above a parameter, and a parameter above `*`. No two different patterns have the same rank for
/// one path.
fn rank(pattern: &str, path: &str) -> Option<Vec<u8>> {
    let (front, open) = match pattern.strip_suffix("/*") {
        Some(front) => (front, true),
        None => (pattern, false),
    };
    if path == "*" {
        return (pattern == "/*").then(|| vec![0]);
    }
    if !path.starts_with('/') {
        return None;
    }
    let wanted: Vec<&str> = front.split('/').skip(1).collect();
    let given: Vec<&str> = path.split('/').skip(1).collect();
    if given.len() < wanted.len() || (given.len() > wanted.len() && !open) {
        return None;
    }
    let steps = wanted.iter().zip(&given).map(|(wanted, given)| match wanted.starts_with('{') {
        true => (!given.is_empty()).then_some(1),
        false => (wanted == given).then_some(2),
    });
    let mut rank: Vec<u8> = steps.collect::<Option<_>>()?;
    rank.push(if open { 0 } else { 3 });
    Some(rank)
}

/// Whether two routes conflict: same host, same path except for the names of parameters, and a common method or both
/// without methods.
fn any_conflict(services: &[Service]) -> bool {
    let mut taken: Vec<(String, String, Option<&str>)> = Vec::new();
    for (hosts, entries) in services {
        let any = [String::new()];
        for host in if hosts.is_empty() { &any[..] } else { hosts } {
            for written in entries {
                let named = |segment: &str| if segment.starts_with('{') { "{}".into() } else { segment.to_owned() };
                let path = written.path.split('/').map(named).collect::<Vec<_>>().join("/");
                let mut methods: Vec<Option<&str>> = match &written.methods {
                    None => vec![None],
                    Some(methods) => methods.iter().map(|method| Some(*method)).collect(),
                };
                // A repeated method in one route is no conflict.
                methods.dedup();
                taken.extend(methods.into_iter().map(|method| (host.to_lowercase(), path.clone(), method)));
            }
        }
    }
    let all = taken.len();
    taken.into_iter().collect::<HashSet<_>>().len() < all
}

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PURGE"];

fn services_and_requests() -> impl Strategy<Value = (Vec<Service>, Vec<(String, String, &'static str)>)> {
    let names = vec!["api.example", "example", "a.api.example", "xexample", "[::1]", "10.0.0.1", "*.example"]
        .into_iter()
        .chain(["*.api.example", "*.a.api.example"])
        .collect::<Vec<_>>();
    let host = select(names).prop_map(str::to_owned);
    let hosts = prop_oneof![1 => Just(Vec::new()), 4 => vec(host, 1..4)];
    let methods = option::weighted(0.4, subsequence(&METHODS[..5], 1..3));
    let entry = (path_pattern(), methods, prop::bool::weighted(0.8));
    let entry = entry.prop_map(|(path, methods, get_implies_head)| Written { path, methods, get_implies_head });
    // Conflicts are likely. Most of them are removed, so that most services are valid.
    let services = (vec((hosts, vec(entry, 0..6)), 1..6), prop::bool::weighted(0.9));
    let services = services.prop_map(|(mut services, peaceful)| {
        if peaceful {
            make_peace(&mut services);
        }
        services
    });
    let request = (authority(), request_path(), select(&METHODS[..]));
    (services, vec(request, 1..30))
}

fn make_peace(services: &mut [Service]) {
    for i in 0..services.len() {
        services[i].0.sort();
        services[i].0.dedup();
        let mut j = 0;
        while j < services[i].1.len() {
            let mut upto = services[..=i].to_vec();
            upto[i].1.truncate(j + 1);
            match any_conflict(&upto) {
                true => drop(services[i].1.remove(j)),
                false => j += 1,
            }
        }
    }
}

fn path_pattern() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        4 => select(vec!["v1", "v1x", "users", "a", "b"]),
        1 => Just(""),
        3 => select(vec!["{id}", "{name}"]),
    ];
    (vec(segment, 0..5), any::<bool>()).prop_map(|(segments, open)| match (segments.is_empty(), open) {
        (true, true) => "/*".to_owned(),
        (true, false) => "/".to_owned(),
        (false, open) => format!("/{}{}", segments.join("/"), if open { "/*" } else { "" }),
    })
}

fn request_path() -> impl Strategy<Value = String> {
    let segment = select(vec!["v1", "v1x", "users", "a", "b", "V1", "7", "{id}", "*", "", "v1*"]);
    prop_oneof![
        20 => vec(segment, 0..6).prop_map(|segments| format!("/{}", segments.join("/"))),
        1 => select(vec!["*", "", "v1", "/*", "//"]).prop_map(str::to_owned),
    ]
}

fn authority() -> impl Strategy<Value = String> {
    let front = select(vec!["", "", "a.", "b.", "x", "a.b.", ".", "b..", "evil-"]);
    let name = select(vec!["api.example", "example", "a.api.example", "API.Example", "[::1]", "10.0.0.1", "other", ""]);
    let end = select(vec!["", "", "", ".", "..", ".evil.test", "x"]);
    let port = select(vec!["", "", ":80", ":8080", ":"]);
    (front, name, end, port).prop_map(|(front, name, end, port)| format!("{front}{name}{end}{port}"))
}

// === paths that servers interpret differently ===

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn a_path_is_ambiguous_when_decoding_changes_its_segments(path in odd_path()) {
        prop_assert_eq!(is_ambiguous(path.as_bytes()), decodes_to_something_else(path.as_bytes()));
    }
}

/// Decodes the path and then compares the segments.
fn decodes_to_something_else(path: &[u8]) -> bool {
    path.split(|b| *b == b'/').any(|segment| {
        let decoded = decode(segment);
        let name = decoded.split(|b| *b == b';').next().unwrap();
        name == b"." || name == b".." || decoded.iter().any(|b| [b'/', b'\\', 0].contains(b))
    })
}

fn decode(bytes: &[u8]) -> Vec<u8> {
    let (mut decoded, mut rest) = (Vec::new(), bytes);
    while let [first, tail @ ..] = rest {
        let code = tail.get(..2).filter(|code| *first == b'%' && code.iter().all(u8::is_ascii_hexdigit));
        let byte = code.map(|code| u8::from_str_radix(std::str::from_utf8(code).unwrap(), 16).unwrap());
        decoded.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    decoded
}

fn odd_path() -> impl Strategy<Value = String> {
    let piece = select(vec![
        "/", "/", ".", ".", "..", "%2e", "%2E", "%2f", "%2F", "%5c", "%00", "%3b", "%3B", "%25", "%", "%2", "%%", "\\",
        "\0", ";", ";v=1", "a", "2e", "2f", "...", "%20", "x.y",
    ]);
    vec(piece, 0..8).prop_map(|pieces| format!("/{}", pieces.concat()))
}

// === preflights: methods and header names ===

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_preflight_is_decided_as_by_sets_of_names(
        listed_methods in option::of(vec(listed_method(), 1..5)),
        listed_headers in option::of(vec(select(&LISTED_HEADERS[..]), 1..6)),
        credentials in any::<bool>(),
        method in option::of(requested_method()),
        fields in vec(requested_names(), 0..3),
    ) {
        let list = |names: &Option<Vec<&str>>| names.as_ref().map(|names| names.iter().map(|n| (*n).to_owned()).collect());
        let settings = Settings {
            allow_origins: Some(List::from_iter(["https://app.example".to_owned()])),
            allow_methods: list(&listed_methods),
            allow_headers: list(&listed_headers),
            allow_credentials: credentials,
            ..Settings::default()
        };
        let policy = policy(&settings).expect("only valid names were listed");
        let mut headers = HeaderMap::new();
        headers.insert("origin", HeaderValue::from_static("https://app.example"));
        if let Some(method) = &method {
            headers.insert("access-control-request-method", HeaderValue::from_str(method).unwrap());
        }
        for field in &fields {
            headers.append("access-control-request-headers", HeaderValue::from_str(field).unwrap());
        }
        let decision = policy.decide(&options(&headers));
        let methods = listed_methods.unwrap_or(vec!["*"]);
        let names = listed_headers.unwrap_or(vec!["*"]);
        let expected = match (method_passes(&methods, method.as_deref()), names_pass(&names, credentials, &fields)) {
            (false, _) => Reason::MethodNotAllowed,
            (true, Err(reason)) => reason,
            (true, Ok(())) => Reason::AllowedExact,
        };
        prop_assert_eq!(decision.reason, expected);
        // The configured lists. With credentials and `*`, the requested names if they are valid.
        let value = |field| decision.edits.value(field).map(|value| value.to_str().unwrap().to_owned());
        let echo = fields.iter().filter(|field| field.contains(|c| !", \t".contains(c))).cloned().collect::<Vec<_>>();
        let headers_value = match (credentials && names.contains(&"*"), names_pass(&names, credentials, &fields)) {
            (true, Ok(())) => Some(echo.join(", ")).filter(|echo| !echo.is_empty()),
            (true, Err(_)) => None,
            (false, _) => Some(once_each(names.iter().map(|name| (*name).to_owned()), str::to_lowercase)),
        };
        prop_assert_eq!(value(Field::AllowHeaders), headers_value);
        let methods_value = match credentials && methods.contains(&"*") {
            true => method.filter(|method| is_token(method)),
            false => Some(once_each(methods.iter().map(|method| normalise(method)), str::to_owned)),
        };
        prop_assert_eq!(value(Field::AllowMethods), methods_value);
    }
}

fn method_passes(listed: &[&str], requested: Option<&str>) -> bool {
    let listed: HashSet<String> = listed.iter().map(|method| normalise(method)).collect();
    requested.is_none_or(|method| match listed.contains("*") {
        true => is_token(method),
        false => listed.contains(method) || ["GET", "HEAD", "POST"].contains(&method),
    })
}

/// Design, section 3: more than 128 names or 8 KiB of names are refused. `*` does not cover `Authorization`, except
/// with credentials, where names are echoed.
fn names_pass(listed: &[&str], credentials: bool, fields: &[String]) -> Result<(), Reason> {
    let elements: Vec<&str> = fields.iter().flat_map(|field| field.split(',')).collect();
    if elements.len() > 128 || fields.iter().map(String::len).sum::<usize>() > 8 * 1024 {
        return Err(Reason::HeaderListTooLong);
    }
    let listed: HashSet<String> = listed.iter().map(|name| name.to_lowercase()).collect();
    let passes = |name: &str| match (listed.contains("*"), credentials) {
        (true, true) => is_token(name),
        (true, false) => is_token(name) && (name.to_lowercase() != "authorization" || listed.contains("authorization")),
        (false, _) => listed.contains(&name.to_lowercase()),
    };
    let names = elements.iter().map(|name| name.trim_matches([' ', '\t'])).filter(|name| !name.is_empty());
    names.into_iter().all(passes).then_some(()).ok_or(Reason::HeaderNotAllowed)
}

/// Fetch, "normalise a method".
fn normalise(method: &str) -> String {
    match method.to_uppercase() {
        upper if ["DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"].contains(&&*upper) => upper,
        _ => method.to_owned(),
    }
}

/// The names in order without repetitions, `*` first.
fn once_each(names: impl Iterator<Item = String>, same: impl Fn(&str) -> String) -> String {
    let (stars, others): (Vec<String>, Vec<String>) = names.partition(|name| name == "*");
    let mut seen = HashSet::new();
    let all = stars.into_iter().chain(others);
    all.filter(|name| seen.insert(same(name))).collect::<Vec<_>>().join(", ")
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
}

const LISTED_HEADERS: [&str; 8] =
    ["X-One", "x-one", "X-Two", "Content-Type", "Authorization", "X-One-More", "*", "authorization"];

fn listed_method() -> impl Strategy<Value = &'static str> {
    select(vec!["GET", "put", "PUT", "DELETE", "PATCH", "Purge", "PURGE", "*"])
}

fn requested_method() -> impl Strategy<Value = String> {
    let known =
        select(vec!["GET", "get", "HEAD", "POST", "PUT", "put", "PATCH", "patch", "Purge", "PURGE", "*", "", "G T"]);
    prop_oneof![8 => known.prop_map(str::to_owned), 1 => "[A-Za-z ,/!]{0,6}"]
}

fn requested_names() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        8 => select(&LISTED_HEADERS[..]).prop_map(str::to_lowercase),
        2 => select(vec!["X-ONE", "x-three", "x-one-", "x one", "", "", "x\tone", "x@y", "*", "AUTHORIZATION"])
            .prop_map(str::to_owned),
    ];
    let comma = select(vec![",", ", ", " ,\t", ",,"]);
    let usual = (vec(name, 0..6), comma).prop_map(|(names, comma)| names.join(comma));
    // Around both limits.
    let many = (120..135_usize).prop_map(|count| vec!["x-one"; count].join(","));
    let empty = (120..135_usize).prop_map(|commas| ",".repeat(commas));
    let long = (8_180..8_200_usize).prop_map(|bytes| format!("x-one{}", " ".repeat(bytes - 5)));
    prop_oneof![20 => usual, 1 => many, 1 => empty, 1 => long]
}

// === Vary ===

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn vary_is_merged_as_by_the_oracle(there in vec(vary_field(), 0..4), settings in vary_settings(), preflight in any::<bool>()) {
        let policy = policy(&settings).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("origin", HeaderValue::from_static("https://app.example"));
        let method = if preflight { Method::OPTIONS } else { Method::GET };
        let decision = policy.decide(&request(&method, &headers));
        let mut response = HeaderMap::new();
        for field in &there {
            response.append("vary", HeaderValue::from_str(field).unwrap());
        }
        decision.edits.apply(&mut response);
        let after: Vec<&str> = response.get_all("vary").iter().map(|value| value.to_str().unwrap()).collect();

        let names = |fields: &[&str]| -> Vec<String> {
            let elements = fields.iter().flat_map(|field| field.split(','));
            elements.map(|name| name.trim().to_lowercase()).filter(|name| !name.is_empty()).collect()
        };
        let before: Vec<&str> = there.iter().map(String::as_str).collect();
        let needed = needed(&settings, preflight);
        if needed.is_empty() || names(&before).iter().any(|name| name == "*") {
            prop_assert_eq!(&after, &before, "nothing to add, so nothing to touch");
        } else {
            let mut merged = Vec::new();
            for name in names(&before).into_iter().chain(needed.into_iter().map(str::to_lowercase)) {
                if !merged.contains(&name) {
                    merged.push(name);
                }
            }
            prop_assert_eq!(after.len(), 1);
            prop_assert_eq!(names(&after), merged);
        }
    }
}

/// Design, section 3: exactly the request headers on which the response depends.
fn needed(settings: &Settings, preflight: bool) -> Vec<&'static str> {
    let any_origin = settings.allow_origins.as_ref().is_some_and(|list| list.entries()[0] == "*");
    let statuses_differ = settings.preflight.status != settings.preflight.refused_status;
    let echoes = settings.allow_credentials;
    let all = [
        ("Origin", !any_origin || settings.allow_credentials),
        ("Access-Control-Request-Method", preflight && (statuses_differ || echoes)),
        ("Access-Control-Request-Headers", preflight && (statuses_differ || echoes)),
        ("Access-Control-Request-Private-Network", preflight && settings.allow_private_network),
    ];
    all.into_iter().filter(|(_, needed)| *needed).map(|(name, _)| name).collect()
}

fn vary_settings() -> impl Strategy<Value = Settings> {
    let origins = select(vec!["*", "https://app.example", "https://other.example"]);
    (origins, any::<bool>(), any::<bool>(), select(vec![200, 204, 403])).prop_map(
        |(origin, credentials, private, refused)| Settings {
            allow_origins: Some(List::from_iter([origin.to_owned()])),
            allow_credentials: credentials,
            allow_private_network: private,
            preflight: PreflightSettings { refused_status: refused, ..PreflightSettings::default() },
            dangerously_allow: Some(vec![Danger::AnyOriginWithCredentials]),
            ..Settings::default()
        },
    )
}

fn vary_field() -> impl Strategy<Value = String> {
    let names = ["Accept-Encoding", "accept-encoding", "Origin", "ORIGIN", "Accept", "", "x-origin"];
    let names = names.into_iter().chain(["access-control-request-method", "Access-Control-Request-Headers"]);
    let name = prop_oneof![12 => select(names.collect::<Vec<_>>()), 1 => Just("*")];
    (vec(name, 0..4), select(vec![",", ", ", " , ", ",,"])).prop_map(|(names, comma)| names.join(comma))
}

// === any decision ===

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_decision_depends_on_its_request_alone(
        settings in any_settings(), one in any_request(), others in vec(any_request(), 0..4),
    ) {
        let policy = policy(&settings).expect("valid settings");
        let first = outcome(&policy.decide(&one.as_request()));
        for other in &others {
            let before = outcome(&policy.decide(&other.as_request()));
            prop_assert_eq!(outcome(&policy.decide(&one.as_request())), first.clone());
            prop_assert_eq!(outcome(&policy.decide(&other.as_request())), before);
        }
    }

    #[test]
    fn no_response_has_repeated_empty_or_wrongly_reflected_values(
        settings in any_settings(), asked in any_request(), upstream in vec(upstream_field(), 0..8),
    ) {
        let policy = policy(&settings).expect("valid settings");
        let request = asked.as_request();
        let decision = policy.decide(&request);
        let mut response = HeaderMap::new();
        // A local reply starts without fields.
        if decision.action == PolicyAction::Forward {
            for (name, value) in &upstream {
                response.append(*name, HeaderValue::from_static(value));
            }
        }
        decision.edits.apply(&mut response);
        let (edits, _) = policy.respond(&request);
        let mut error = HeaderMap::new();
        edits.apply(&mut error);
        for response in [response, error] {
            for name in ACCESS_CONTROL {
                let values: Vec<&[u8]> = response.get_all(name).iter().map(HeaderValue::as_bytes).collect();
                prop_assert!(values.len() <= 1, "{name} twice: {values:?}");
                prop_assert!(values.iter().all(|value| !value.trim_ascii().is_empty()), "{name} is empty");
            }
            prop_assert!(response.get_all("vary").iter().count() <= 1 || decision.action == PolicyAction::Forward);
            let origins: Vec<&HeaderValue> = asked.headers.get_all("origin").iter().collect();
            let origin = origins.first().map(|origin| origin.as_bytes()).filter(|_| origins.len() == 1);
            if let Some(allowed) = response.get("access-control-allow-origin").map(HeaderValue::as_bytes) {
                prop_assert!(allowed == b"*" || Some(allowed) == origin, "{allowed:?} is not the request's Origin");
                prop_assert!(allowed != b"*" || !settings.allow_credentials, "* with credentials");
            }
            // Only two fields reflect a requested value, after a check, and only with credentials and `*`.
            for (name, value) in &response {
                let echo = [("access-control-allow-methods", "access-control-request-method"),
                    ("access-control-allow-headers", "access-control-request-headers")];
                let may_echo = settings.allow_credentials && echo.iter().any(|(field, _)| name == field);
                if ACCESS_CONTROL.contains(&name.as_str()) && !may_echo && name != "access-control-allow-origin" {
                    prop_assert!(!value.as_bytes().windows(6).any(|bytes| bytes == b"canary"), "{name}: {value:?}");
                }
                if may_echo {
                    let text = value.to_str().unwrap_or("\u{fffd}");
                    let elements = text.split(',').map(|name| name.trim_matches([' ', '\t']));
                    prop_assert!(elements.filter(|name| !name.is_empty()).all(is_token), "{name}: {value:?}");
                }
            }
        }
    }
}

/// All parts of a decision.
pub(crate) fn outcome(decision: &Decision) -> (PolicyAction, Reason, Vec<(HeaderName, HeaderValue)>) {
    let mut response = HeaderMap::new();
    decision.edits.apply(&mut response);
    let fields = response.iter().map(|(name, value)| (name.clone(), value.clone()));
    (decision.action, decision.reason, fields.collect())
}

const ACCESS_CONTROL: [&str; 7] = [
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-max-age",
    "access-control-expose-headers",
    "access-control-allow-private-network",
];

pub(crate) fn any_settings() -> impl Strategy<Value = Settings> {
    let lists = (
        select(vec!["*", "https://app.example", "https://*.app.example, https://app.example", "null,https://*:*"]),
        option::of(select(vec!["https://[a-z]+\\.rex\\.example", ".*"])),
        option::of(select(vec!["*", "PUT", "get, PURGE", "*, PUT"])),
        option::of(select(vec!["*", "X-One", "x-one, X-Two", "*, Authorization"])),
        option::of(select(vec!["X-Out", "x-out, ETag"])),
        option::of(select(vec!["*", "https://app.example"])),
    );
    let words = (
        any::<bool>(),
        any::<bool>(),
        select(vec![PreflightMatch::Standard, PreflightMatch::Origin, PreflightMatch::Any]),
        select(vec![(200, 200), (204, 403)]),
        select(vec![UpstreamHeaders::Override, UpstreamHeaders::Replace]),
        select(vec![DisallowedOrigins::Forward, DisallowedOrigins::Reject]),
        select(vec![CrossSite::Forward, CrossSite::Reject]),
    );
    let list = |text: &str| text.split(',').map(|entry| entry.trim().to_owned()).collect::<List>();
    (lists, words).prop_map(
        move |(lists, (credentials, private, matches, statuses, upstream, disallowed, cross_site))| Settings {
            allow_origins: Some(list(lists.0)),
            allow_origins_by_regex: lists.1.filter(|_| lists.0 != "*").map(|source| Patterns::One(source.to_owned())),
            allow_methods: lists.2.map(list),
            allow_headers: lists.3.map(list),
            expose_headers: lists.4.map(list),
            timing_allow_origins: lists.5.map(list),
            allow_credentials: credentials,
            allow_private_network: private,
            preflight: PreflightSettings {
                matches,
                status: statuses.0,
                refused_status: statuses.1,
                cache_control: private.then(|| "max-age=60".to_owned()),
            },
            upstream_headers: upstream,
            disallowed_origins: disallowed,
            cross_site,
            dangerously_allow: Some(vec![
                Danger::NullOrigin,
                Danger::AnyOriginWithCredentials,
                Danger::InsecureOrigins,
                Danger::PublicSuffixSubdomains,
            ]),
            ..Settings::default()
        },
    )
}

#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
}

impl Asked {
    pub(crate) fn as_request(&self) -> CorsRequest<'_> {
        request(&self.method, &self.headers)
    }
}

pub(crate) fn any_request() -> impl Strategy<Value = Asked> {
    let bytes =
        vec(any::<u8>().prop_filter("a field has no line ends", |b| HeaderValue::from_bytes(&[*b]).is_ok()), 0..40);
    let origin = prop_oneof![
        4 => select(vec!["https://app.example", "https://a.app.example", "null", "", "https://x.rex.example"])
            .prop_map(|text| text.as_bytes().to_vec()),
        2 => select(vec!["https://app.example.", "https://api.example", "https://canary", "https://app.example, null"])
            .prop_map(|text| text.as_bytes().to_vec()),
        1 => (0..400_usize).prop_map(|length| format!("https://{}.app.example", "a".repeat(length)).into_bytes()),
        2 => bytes.clone(),
    ];
    let words = |words: &'static [&'static str]| select(words).prop_map(|text| text.as_bytes().to_vec());
    let method = prop_oneof![4 => words(&["PUT", "PURGE", "canary", "c anary", "GET"]), 1 => bytes.clone()];
    let names = prop_oneof![
        6 => words(&["x-one", "X-One,x-two", "x-canary", "x-canary,authorization", ",", "x canary", "x-canary,,"]),
        1 => (1..200_usize, 1..200_usize).prop_map(|(count, length)| vec!["a".repeat(length); count].join(",").into_bytes()),
        2 => bytes,
    ];
    let private = option::of(words(&["true", "canary"]));
    let own_method = select(vec![Method::OPTIONS, Method::OPTIONS, Method::GET, Method::PUT]);
    (own_method, vec(origin, 0..3), vec(method, 0..3), vec(names, 0..4), private).prop_map(
        |(own_method, origins, methods, names, private)| {
            let mut headers = HeaderMap::new();
            let mut add = |name: &'static str, values: Vec<Vec<u8>>| {
                for value in values {
                    headers.append(name, HeaderValue::from_bytes(&value).unwrap());
                }
            };
            add("origin", origins);
            add("access-control-request-method", methods);
            add("access-control-request-headers", names);
            add("access-control-request-private-network", private.into_iter().collect());
            Asked { method: own_method, headers }
        },
    )
}

fn upstream_field() -> impl Strategy<Value = (&'static str, &'static str)> {
    let names = ACCESS_CONTROL.into_iter().chain(["vary", "timing-allow-origin", "content-type", "access-control-odd"]);
    let values = vec!["*", "true", "", " ", "false", "https://app.example", "X-One, X-Two", "X-Two", "Accept-Encoding"];
    (select(names.collect::<Vec<_>>()), select(values))
}

// === JSON ===

/// JSON has its own parser, which must give the same result as the YAML parser. A trailing comment makes the text YAML
/// only.
#[test]
fn json_reads_as_yaml() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/conf/walkthrough.yaml")).unwrap();
    let value: serde_json::Value = serde_yaml::from_str(&text).unwrap();
    for json in [
        value.to_string(),
        serde_json::to_string_pretty(&value).unwrap(),
        r#"{"services": [{"name": "a", "hosts": "a.example, b.example", "cors": false}], "server": {"threads": 2}}"#
            .into(),
        r#"{"cors_policies": {"a": {"allow_origins_by_regex": "a{1,2}", "max_age": -1}}, "cors": "\u0061"}"#.into(),
        r#"{"services": [{"name": "a"}], "services": []}"#.into(),
        r#"{"limits": {"body": 1.0, "uri": "1KiB"}}"#.into(),
        r#"{"services": null}"#.into(),
        r#"{"server": {"threads": 1}, "serve": 1}"#.into(),
        "{cors: false}".into(),
        "{} # nothing".into(),
    ] {
        let read = |text: &str| {
            let mut problems = Problems::default();
            let document = Document::parse(text, &mut problems);
            (document, problems.to_string())
        };
        assert_eq!(read(&json), read(&format!("{json} # YAML")), "{json}");
    }
}

// === a policy and its requests ===

fn policy(settings: &Settings) -> Option<Policy> {
    Policy::compile(settings, &corsgate::cors::OriginSets::default(), &At::root(), &mut Problems::default())
}

fn options(headers: &HeaderMap) -> CorsRequest<'_> {
    request(&Method::OPTIONS, headers)
}

fn request<'a>(method: &'a Method, headers: &'a HeaderMap) -> CorsRequest<'a> {
    CorsRequest { method, headers, own_origin: OwnOrigin::of(Scheme::Https, "api.example") }
}
