//! The problems that `check` reports for regular expressions of origins. The expressions are from real configurations,
//! good and bad.

use corsgate::cors::{OriginSets, Policy, Settings};
use corsgate::problem::{At, Problems, Severity};

/// An expression, and the codes of its problems: with credentials, and without. The hints are left out.
const TABLE: &[(&str, &[&str], &[&str])] = &[
    // --- right ones
    (r"https://([a-z0-9-]+\.)?example\.com", &[], &[]),
    (r"https://([a-z0-9-]+\.)*example\.com", &[], &[]),
    (r"^https://([a-z0-9-]+\.)+example\.com$", &[], &[]),
    (r"^https:\/\/([a-z0-9-]+\.)?example\.com$", &[], &[]),
    (r"https://[a-z0-9-]+\.preview\.example\.com(:[0-9]+)?", &[], &[]),
    (r"https://pr-\d+\.preview\.example\.com", &[], &[]),
    (r"https://(app|admin)\.example\.(com|de|co\.uk)", &[], &[]),
    (r"^(https://a\.example|https://b\.example)$", &[], &[]),
    (r"https?://localhost(:[0-9]+)?", &[], &[]),
    (r"http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", &[], &[]),
    (r"http://([a-z0-9-]+\.)*localhost:3000", &[], &[]),
    (r"(?i)https://app\.example\.com", &[], &[]),
    (r"https://[a-z0-9-]+\.internal", &[], &[]),
    (r"https://my-app-[a-z0-9]+-my-team\.vercel\.app", &[], &[]),
    (r"https://[a-z0-9-]+-my-team\.vercel\.app", &[], &[]),
    (r"https://deploy-preview-[0-9]+--my-site\.netlify\.app", &[], &[]),
    (r"https://[a-z]{8,32}\.tenant\.example\.com", &[], &[]),
    (r"https://.*\.example\.com", &[], &[]),
    (r"https://app\.example\.com\.?", &[], &[]),
    (r"https://[a-z]+\.evil-dead\.com", &[], &[]),
    (r"https://([a-z]+\.)?(deadline|devil)\.com", &[], &[]),
    (r"https://example\.(com|xyz|tk)", &[], &[]),
    (r"https://example-[a-z]{2}\.com", &[], &[]),
    // --- over http
    (r"https?://([a-z0-9-]+\.)*example\.com", &["insecure-origin-with-credentials"], &[]),
    (r"http://192\.168\.1\.[0-9]+", &["insecure-origin-with-credentials"], &[]),
    (r"http://192\.168\.\d{1,3}\.\d{1,3}(:\d+)?", &["insecure-origin-with-credentials"], &[]),
    (r"http://.*\.local", &["insecure-origin-with-credentials"], &[]),
    (r"https://a\.example|http://b\.example", &["insecure-origin-with-credentials"], &[]),
    (r"[a-z]+://app\.example", &["insecure-origin-with-credentials", "odd-scheme-with-credentials"], &[]),
    (
        r"http://(localhost|127.0.0.1):3000",
        // An unescaped dot: `http://127a0.0.1:3000` is a host of the network.
        &["insecure-origin-with-credentials"],
        &[],
    ),
    // --- sites of strangers
    (r"https://.*\.vercel\.app", &["public-suffix-with-credentials"], &["public-suffix"]),
    (
        r"https?://localhost.*",
        &["public-suffix-with-credentials", "insecure-origin-with-credentials"],
        &["public-suffix"],
    ),
    (r"https://[a-z0-9-]+\.vercel\.app", &["public-suffix-with-credentials"], &["public-suffix"]),
    (r"https://[a-f0-9]{8}\.netlify\.app", &["public-suffix-with-credentials"], &["public-suffix"]),
    (r"https://[0-9]{4,}\.pages\.dev", &["public-suffix-with-credentials"], &["public-suffix"]),
    (r"^https://(\w+\.)+github\.io(:[0-9]+)?$", &["public-suffix-with-credentials"], &["public-suffix"]),
    (r"https://.*\.eu-west-1\.elasticbeanstalk\.com", &["public-suffix-with-credentials"], &["public-suffix"]),
    (r"https://([a-z0-9-]+\.)+(example\.com|vercel\.app)", &["public-suffix-with-credentials"], &["public-suffix"]),
    (r"https://app\.[a-z]+\.com", &["public-suffix-with-credentials"], &["public-suffix"]),
    (r"https://[a-z]+\.[a-z]+", &["public-suffix-with-credentials"], &["public-suffix"]),
    (r"https://[^.]+\.co\.uk", &["public-suffix-with-credentials"], &["public-suffix"]),
    (r"https://.*example\.com", &["public-suffix-with-credentials", "regex-open-prefix"], &["regex-open-prefix"]),
    (
        r".*\.vercel\.app",
        &["public-suffix-with-credentials", "insecure-origin-with-credentials", "regex-without-scheme"],
        &["public-suffix"],
    ),
    // A name with a fixed part, below the suffix of a registry.
    (r"https://.*-example\.com", &["public-suffix-with-credentials"], &["public-suffix"]),
    (r"https://[a-z0-9-]+-example\.fr", &["public-suffix-with-credentials"], &["public-suffix"]),
    (r"https://my[a-z]*\.com", &["public-suffix-with-credentials"], &["public-suffix"]),
    (r"https://[a-z]+-[a-z]+\.(com|org)", &["public-suffix-with-credentials"], &["public-suffix"]),
    // An open top-level domain.
    (r"https://example\.[a-z]+", &["public-suffix-with-credentials"], &["public-suffix"]),
    (r"https://(www\.)?example\.[a-z]{2,3}(\.[a-z]{2})?", &["public-suffix-with-credentials"], &["public-suffix"]),
    (r"https://app\.example\.com(\.[a-z]+)?", &["public-suffix-with-credentials"], &["public-suffix"]),
    // --- every host, every origin
    (r"https?://.+", &["any-origin-with-credentials"], &["regex-matches-all"]),
    (r".*", &["any-origin-with-credentials"], &["regex-matches-all"]),
    (r"^https?:\/\/.*$", &["any-origin-with-credentials"], &["regex-matches-all"]),
    (r"https://.*", &["public-suffix-with-credentials"], &["regex-matches-all"]),
    (r"https://[^/]+", &["public-suffix-with-credentials"], &["regex-matches-all"]),
    (r"http://.*", &["public-suffix-with-credentials", "insecure-origin-with-credentials"], &["regex-matches-all"]),
    // --- notation
    (r"https://app.example\.com", &["regex-unescaped-dot"], &["regex-unescaped-dot"]),
    (r"https://a\.example|b\.example", &["regex-alternation"], &["regex-alternation"]),
    (r"https://*.app.example", &["regex-is-pattern"], &["regex-is-pattern"]),
    (r"http://localhost:*", &["regex-is-pattern"], &["regex-is-pattern"]),
    (r"*.app.example", &["regex-does-not-compile"], &["regex-does-not-compile"]),
    (r"(capacitor|ionic)://localhost", &["odd-scheme-with-credentials"], &[]),
    (r"https://app\.example|capacitor://localhost", &["odd-scheme-with-credentials"], &[]),
    // --- never matched
    (r"/example\.com$/", &["regex-never-matches"], &["regex-never-matches"]),
    (r"/^https:\/\/example\.com$/i", &["regex-never-matches"], &["regex-never-matches"]),
    (r"~^https://example\.com$", &["regex-never-matches"], &["regex-never-matches"]),
    (r"~* ^https://example\.com", &["regex-never-matches"], &["regex-never-matches"]),
    (r"example\.com", &["regex-never-matches"], &["regex-never-matches"]),
    (r"localhost:[0-9]+", &["regex-never-matches"], &["regex-never-matches"]),
    (r"https://example\.com/", &["regex-never-matches"], &["regex-never-matches"]),
    (r"https://example\.com/.*", &["regex-never-matches"], &["regex-never-matches"]),
    (r"https://example\.com:443", &["regex-never-matches"], &["regex-never-matches"]),
    (r"https://Example\.com", &["regex-never-matches"], &["regex-never-matches"]),
    (r"https:// example\.com", &["regex-never-matches"], &["regex-never-matches"]),
    (r"null", &["regex-never-matches"], &["regex-never-matches"]),
    (r"null|https://a\.example", &["regex-never-matches"], &["regex-never-matches"]),
    (r"^(null|https://a\.example)$", &["regex-never-matches"], &["regex-never-matches"]),
    (r"https://a\.example|https://b\.example/", &["regex-never-matches"], &["regex-never-matches"]),
];

#[test]
fn the_table_says_what_check_says_about_an_expression() {
    let mut failures = Vec::new();
    for (source, with_credentials, without) in TABLE {
        for (credentials, expected) in [(true, with_credentials), (false, without)] {
            let problems = compile(source, credentials, &[]);
            let mut codes: Vec<&str> = problems.iter().map(|problem| problem.kind.code()).collect();
            codes.sort_unstable();
            let mut expected = expected.to_vec();
            expected.sort_unstable();
            if codes != expected {
                failures.push(format!("{source} (credentials: {credentials}): {expected:?}\n{problems}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A word of `dangerously_allow` accepts the danger of an expression in the same way as the danger of a pattern.
#[test]
fn a_danger_that_is_accepted_is_no_error() {
    for (source, words) in [
        (r"https?://([a-z0-9-]+\.)*example\.com", &["insecure_origins"][..]),
        (r"https://.*\.vercel\.app", &["public_suffix_subdomains"]),
        (r"https://.*", &["public_suffix_subdomains"]),
        (r"http://.*", &["public_suffix_subdomains", "insecure_origins"]),
        (r"https?://.+", &["any_origin_with_credentials"]),
    ] {
        assert!(compile(source, true, &[]).any_errors(), "{source}");
        let problems = compile(source, true, words);
        assert!(problems.is_empty(), "{source}: {problems}");
    }
}

/// The message suggests a text in place of an expression that never matches.
#[test]
fn a_dead_expression_gets_one_that_matches() {
    for (source, write) in [
        (r"/example\.com$/", r"https://example\.com$"),
        (r"/^https:\/\/example\.com$/i", r"^https://example\.com$"),
        (r"~^https://example\.com$", r"^https://example\.com$"),
        (r"~* ^https://example\.com", r"^https://example\.com"),
        (r"^example\.com$", r"https://example\.com$"),
        (r"localhost:[0-9]+", r"http://localhost:[0-9]+"),
        (r"^https:\/\/example\.com\/$", r"^https://example\.com"),
        (r"https://example\.com/.*", r"https://example\.com"),
        (r"https://example\.com:443$", r"https://example\.com"),
        (r"https://Example\.com:\d+", r"https://example\.com:\d+"),
    ] {
        let problems = compile(source, false, &[]);
        let remedy = problems.iter().next().expect(source).kind.remedy();
        assert_eq!(remedy, format!("write `{write}`"), "{source}");
        assert!(compile(write, false, &[]).is_empty(), "{write}");
    }
}

/// The searches have a bound. An expression with a huge automaton loads at once, without a verdict.
#[test]
fn an_expression_with_a_huge_automaton_is_accepted() {
    for source in [r"https://([a-z]*a[a-z]{30}\.)+example\.com", r"https://([a-z0-9-]{1,63}\.){1,8}example\.com"] {
        assert!(!compile(source, true, &[]).any_errors(), "{source}");
    }
}

fn compile(source: &str, credentials: bool, dangers: &[&str]) -> Problems {
    let mut settings = serde_json::json!({
        "allow_origins_by_regex": source,
        "allow_methods": [],
        "allow_headers": [],
        "max_age": 600,
        "allow_credentials": credentials,
    });
    if !dangers.is_empty() {
        settings["dangerously_allow"] = dangers.into();
    }
    let settings: Settings = serde_json::from_value(settings).unwrap();
    let mut problems = Problems::default();
    Policy::compile(&settings, &OriginSets::default(), &At::root(), &mut problems);
    problems.retain(|problem| problem.kind.severity() > Severity::Hint || !dangers.is_empty());
    problems
}
