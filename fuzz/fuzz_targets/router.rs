//! Patterns and a path: the router finds the most specific pattern, as a search over all patterns does. The first line is
//! the path, the others are patterns.

#![no_main]

use corsgate::route::{HostPattern, PathPattern, RouteEntry, RouteMatch, Routes};
use libfuzzer_sys::fuzz_target;

/// Whether a pattern covers a path, and how specific it is: a literal before a parameter before the rest, from the left.
fn rank(pattern: &str, path: &str) -> Option<Vec<u8>> {
    let (pattern, is_prefix) = match pattern.strip_suffix("/*") {
        Some(pattern) => (pattern, true),
        None => (pattern, false),
    };
    let parts: Vec<&str> = if is_prefix && pattern.is_empty() { Vec::new() } else { pattern[1..].split('/').collect() };
    let segments: Vec<&str> = path[1..].split('/').collect();
    let fits = if is_prefix { parts.len() <= segments.len() } else { parts.len() == segments.len() };
    if !fits {
        return None;
    }
    let mut rank = Vec::new();
    for (part, segment) in parts.iter().zip(&segments) {
        match part.starts_with('{') {
            true if segment.is_empty() => return None,
            true => rank.push(1),
            false if part == segment => rank.push(2),
            false => return None,
        }
    }
    // The rest is the least specific; the end of the pattern is the most specific.
    rank.push(if is_prefix { 0 } else { 3 });
    Some(rank)
}

fuzz_target!(|text: &str| {
    let mut lines = text.lines();
    let path = lines.next().unwrap_or_default();
    // Requests with other paths are refused before, or are matched in their plain form.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_".contains(&byte);
    if !path.starts_with('/') || !path.bytes().all(is_plain) || path.contains("//") {
        return;
    }
    let mut patterns: Vec<(String, PathPattern)> = Vec::new();
    for line in lines.take(16) {
        let is_simple = line.bytes().all(|byte| is_plain(byte) || b"*{}".contains(&byte));
        if let (true, Ok(pattern)) = (is_simple, PathPattern::parse(line)) {
            patterns.push((line.to_owned(), pattern));
        }
    }
    let mut routes = Routes::<String, ()>::builder();
    let entries = patterns.iter().map(|(text, path)| RouteEntry {
        path: path.clone(),
        methods: None,
        get_implies_head: true,
        route: text.clone(),
    });
    routes.service(vec![HostPattern::parse("a.example").unwrap()], entries.collect());
    // Patterns that conflict are refused.
    let Ok(routes) = routes.build(|_| ()) else { return };
    let found = match routes.find("a.example", path.as_bytes()) {
        RouteMatch::Path(path, ()) => path.route("GET").cloned(),
        RouteMatch::UnknownPath(()) => None,
        RouteMatch::UnknownHost => panic!("the host is known"),
    };
    let best = patterns.iter().filter_map(|(text, _)| Some((rank(text, path)?, text))).max();
    assert_eq!(found.as_ref(), best.as_ref().map(|(_, text)| *text), "{path} {best:?}");
});
