//! Patterns and origins: a set of patterns matches what one of its patterns matches, and a pattern without a wildcard
//! matches itself only. The first lines are patterns, up to an empty line; the others are origins.

#![no_main]

use corsgate::cors::{OriginPattern, OriginSet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (patterns, origins) = text.split_once("\n\n").unwrap_or((text, ""));
    let patterns: Vec<_> = patterns
        .lines()
        .take(32)
        .filter_map(|line| match OriginPattern::parse(line) {
            Ok(OriginPattern::Tuple(pattern)) => Some(pattern),
            _ => None,
        })
        .collect();
    let set: OriginSet = patterns.iter().collect();
    let written: Vec<String> = patterns.iter().map(ToString::to_string).collect();
    for origin in origins.lines().take(32).chain(written.iter().map(String::as_str)) {
        let twin = patterns.iter().any(|pattern| pattern.matches(origin));
        assert_eq!(set.find(origin).is_some(), twin, "{written:?} {origin:?}");
        for (pattern, written) in patterns.iter().zip(&written) {
            let is_exact = !written.contains(['*', '{']);
            assert!(!is_exact || pattern.matches(origin) == (written == origin), "{written} {origin:?}");
        }
    }
    // What is written can be read again, and is the same.
    for (pattern, written) in patterns.iter().zip(&written) {
        match OriginPattern::parse(written) {
            Ok(OriginPattern::Tuple(again)) => assert_eq!(format!("{again:?}"), format!("{pattern:?}")),
            other => panic!("{written}: {other:?}"),
        }
    }
});
