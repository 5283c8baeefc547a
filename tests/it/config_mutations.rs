//! A typo must not widen a policy. A mutation of a valid policy's text is either refused, or allows only origins that
//! the mutated text names.
//!
//! In other products, a trailing comma made a policy reflect every origin (kubernetes/ingress-nginx#10206), and an
//! empty list or a list in another form meant `*` (docker/model-runner#270, kubernetes/ingress-nginx#5496). The tests
//! check three claims:
//!
//! 1. No mutant allows an unrelated origin. With credentials there is no exception. Without credentials there is one:
//!    text that spells `https://*` for any host, as `https://* #.partner.example` does, where YAML takes the rest for a
//!    comment.
//! 2. A mutant allows a neighbour of an allowed origin only if one entry of the mutated text, read by the oracle
//!    [`spells`], says so. (Without the `s`, `https://*.partner.example` spells `http://x.partner.example`; the parser
//!    cannot know that this is a typo.)
//! 3. Claim 1 holds for mutants of the whole file too: keys, indentation, other services.
//!
//! Each run also counts the mutants that load, and the mutants that allow the same origins as the original. If every
//! mutant were refused, the claims would be empty.

use corsgate::decide::{ConnectionFacts, Framing, Request};
use corsgate::domain::{OwnOrigin, Scheme};
use corsgate::snapshot::{self, CompileEnv, Snapshot};
use http::{HeaderMap, HeaderValue, Method, Version};

const ENTRIES: &[&str] = &[
    "https://app.example",
    "https://staging.example:8443",
    "https://*.partner.example",
    "http://localhost:*",
    "https://*.preview.example:*",
    "tauri://app",
    "https://[2001:db8::7]",
    "https://xn--bcher-kva.example",
];

/// Unrelated origins: no single typo makes the policy spell one of them.
const STRANGERS: &[&str] = &[
    "https://evil.test",
    "http://evil.test",
    "https://evil.test:8443",
    "https://a.evil.test",
    "http://127.0.0.1:9080",
    "https://example",
    "https://evil.example",
    "tauri://evil",
    "null",
];

/// Origins close to the allowed ones, which the policy does not allow.
const NEIGHBOURS: &[&str] = &[
    "https://evilapp.example",
    "https://evil.app.example",
    "https://app.example.evil.test",
    "https://app.exampleevil",
    "https://app-example",
    "https://appxexample",
    "http://app.example",
    "https://app.example:8443",
    "https://app.example:444",
    "https://staging.example",
    "https://staging.example:84430",
    "https://evilstaging.example:8443",
    "http://staging.example:8443",
    "https://partner.example",
    "https://evilpartner.example",
    "https://x.evilpartner.example",
    "https://x.partner.example.evil.test",
    "https://x.partner.example:8443",
    "http://x.partner.example",
    "https://localhost:3000",
    "http://localhost.evil.test",
    "http://evillocalhost:3000",
    "http://x.localhost:3000",
    "https://preview.example",
    "https://preview.example:3000",
    "https://x.evilpreview.example:3000",
    "http://x.preview.example:3000",
    "tauri://evilapp",
    "tauri://app.evil.test",
    "https://[2001:db8::8]",
    "https://[2001:db8::7]:8443",
    "https://bcher-kva.example",
    "https://x.xn--bcher-kva.example",
];

/// The origins that the original allows.
const ALLOWED: &[&str] = &[
    "https://app.example",
    "https://staging.example:8443",
    "https://x.partner.example",
    "https://x.y.partner.example",
    "http://localhost",
    "http://localhost:3000",
    "https://x.preview.example:3000",
    "tauri://app",
    "https://[2001:db8::7]",
    "https://xn--bcher-kva.example",
];

/// Characters that a typo can insert at any position.
const SLIPS: &[&str] = &[
    ",", ", ", ",,", " ", "  ", "\t", "\n", "/", "//", ".", "..", "*", "**", "*.", ":", ":443", ":80", "-", "_", "@",
    "?", "#", " #", "\\", "'", "\"", "|", ";", "&", "!", "%", "[", "]", "{", "}", "null", "^", "$", "(", "ü",
];

/// The notation of the text in the file.
type Write = fn(&str) -> String;

#[test]
fn no_mutation_of_allow_origins_widens_the_policy() {
    let string = ENTRIES.join(", ");
    // A list is mutated inside its brackets, where a comma and a quote have a meaning in YAML.
    let list = format!("\"{}\"", ENTRIES.join("\", \""));
    let forms: [(&str, bool, Write); 4] = [
        (&string, false, |text| format!("'{text}'")),
        (&string, true, |text| format!("\"{text}\"")),
        (&string, false, str::to_owned),
        (&list, true, |text| format!("[{text}]")),
    ];
    let (mut mutants, mut loaded, mut harmless) = (0, 0, 0);
    for (text, credentials, write) in forms {
        let original = load(&config(&write(text), credentials)).expect("the original is valid");
        for origin in ALLOWED {
            assert!(lets_in(&original, origin), "{origin}");
        }
        for origin in NEIGHBOURS.iter().chain(STRANGERS) {
            assert!(!lets_in(&original, origin), "{origin}");
        }
        for mutant in mutations(text) {
            mutants += 1;
            let config = config(&write(&mutant), credentials);
            let Some(snapshot) = load(&config) else { continue };
            loaded += 1;
            harmless += usize::from(ALLOWED.iter().all(|origin| lets_in(&snapshot, origin)));
            // Text after ` #` is a comment in YAML, except in quotes; in quotes such a text is refused.
            let read = mutant.split([',', '\n']).map(|entry| entry.split(" #").next().unwrap_or_default());
            let entries: Vec<&str> = read.map(|entry| entry.trim_matches([' ', '"', '\''])).collect();
            let spells_any_host = !credentials && entries.iter().any(|entry| entry.ends_with("://*"));
            for origin in STRANGERS.iter().filter(|_| !spells_any_host) {
                assert!(!lets_in(&snapshot, origin), "{origin} is let in by\n{config}");
            }
            for origin in NEIGHBOURS.iter().filter(|origin| lets_in(&snapshot, origin)) {
                assert!(entries.iter().any(|entry| spells(entry, origin)), "{origin} is let in by\n{config}");
            }
        }
    }
    assert!(mutants > 10_000, "only {mutants} mutants");
    assert!(loaded > 500 && harmless > 50 && loaded < mutants / 2, "of {mutants}, {loaded} load, {harmless} harmless");
}

#[test]
fn no_mutation_of_the_whole_file_allows_an_unrelated_origin() {
    let text = config(&format!("[\"{}\"]", ENTRIES.join("\", \"")), false);
    let (mut mutants, mut loaded) = (0, 0);
    for mutant in mutations(&text) {
        mutants += 1;
        let Some(snapshot) = load(&mutant) else { continue };
        loaded += 1;
        for origin in STRANGERS {
            assert!(!lets_in(&snapshot, origin), "{origin} is let in by\n{mutant}");
        }
    }
    assert!(mutants > 10_000 && loaded > 500, "{mutants} mutants, {loaded} load");
}

/// The oracle: the meaning of one entry, by the words of its documentation. The entry need not be valid.
fn spells(entry: &str, origin: &str) -> bool {
    let (entry, origin) = match entry.strip_suffix(":*") {
        // The entry allows any port or none, so the rest is compared without a port.
        Some(entry) => match origin.rsplit_once(':') {
            Some((front, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (entry, front),
            _ => (entry, origin),
        },
        None => (entry, origin),
    };
    if let Some(scheme) = entry.strip_suffix('*') {
        let host = origin.strip_prefix(scheme);
        // Without a port. The colons of an IPv6 address are in brackets.
        return host.and_then(|host| host.rsplit(']').next()).is_some_and(|end| !end.contains(':'));
    }
    match entry.split_once("*.") {
        Some((scheme, base)) => {
            let inside = origin.strip_prefix(scheme).and_then(|rest| rest.strip_suffix(base));
            inside.is_some_and(|labels| labels.len() > 1 && labels.ends_with('.') && !labels.contains([':', '/']))
        }
        None => entry == origin,
    }
}

/// Every single typo at every position. A truncated text is not among them: `https://*.partner.example` cut short is
/// `https://*`, which spells every host (and is refused with credentials).
fn mutations(text: &str) -> Vec<String> {
    let mut mutants = Vec::new();
    let positions: Vec<usize> = text.char_indices().map(|(i, _)| i).chain([text.len()]).collect();
    for &at in &positions {
        let (before, after) = text.split_at(at);
        mutants.extend(SLIPS.iter().map(|slip| format!("{before}{slip}{after}")));
        let mut rest = after.chars();
        let Some(c) = rest.next() else { continue };
        let rest = rest.as_str();
        mutants.push(format!("{before}{rest}"));
        mutants.push(format!("{before}{c}{c}{rest}"));
        mutants.push(format!("{before}{}{rest}", c.to_uppercase()));
        if let Some(next) = rest.chars().next() {
            mutants.push(format!("{before}{next}{c}{}", &rest[next.len_utf8()..]));
        }
    }
    mutants.retain(|mutant| mutant != text);
    mutants
}

fn config(allow_origins: &str, allow_credentials: bool) -> String {
    format!(
        "listeners: [{{ address: 127.0.0.1:9080 }}]\n\
         upstreams: {{ api: {{ nodes: [{{ address: 127.0.0.1:8000 }}] }} }}\n\
         services:\n\
         \x20 - name: api\n\
         \x20   hosts: [api.example]\n\
         \x20   upstream: api\n\
         \x20   cors:\n\
         \x20     allow_origins: {allow_origins}\n\
         \x20     allow_credentials: {allow_credentials}\n\
         \x20     max_age: 600\n"
    )
}

fn load(config: &str) -> Option<Snapshot> {
    snapshot::load(config, CompileEnv::NONE).snapshot
}

fn lets_in(snapshot: &Snapshot, origin: &str) -> bool {
    let mut headers = HeaderMap::new();
    headers.insert("origin", HeaderValue::from_str(origin).unwrap());
    let request = Request {
        method: &Method::GET,
        path: b"/",
        target_length: 1,
        version: Version::HTTP_11,
        own_origin: OwnOrigin::of(Scheme::Http, "api.example"),
        authority: Some("api.example"),
        headers: &headers,
        framing: Framing::Clear,
        connection: ConnectionFacts::default(),
    };
    let mut response = HeaderMap::new();
    snapshot.decide(&request).edits.apply(&mut response);
    response.contains_key("access-control-allow-origin")
}
