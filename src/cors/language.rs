//! Sets of origins as automata: finds an origin that an expression accepts, or shows that there is none.
//!
//! A sample of an expression is a guess; a search over its automaton is not. The search runs over the products of the
//! states of several automata, so that "accepts an origin over `http` that is not loopback" is one question. It is
//! bounded: it gives up after [`MOST_STATES`] products, or when an automaton needs more than [`CACHE`] bytes.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson;
use regex_automata::util::{start, syntax};
use regex_automata::{Anchored, MatchKind};

use super::origin::{OriginHost, PortPattern};

/// A set of origins, given by a regular expression for the whole origin.
pub(super) struct Language {
    automaton: DFA,
    /// The states so far. They are computed when a search reaches them.
    cache: Mutex<Cache>,
}

/// The result of a search.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The shortest origin.
    Origin(String),
    /// There is none.
    Nothing,
    /// The bounds of the search were reached.
    Unknown,
}

const MOST_STATES: usize = 8 * 1024;
const CACHE: usize = 1024 * 1024;

/// The characters of an origin, in the order in which a search prefers them.
const ALPHABET: &[u8] = b"aebcdfghijklmnopqrstuvwxyz0123456789-.:/_[]+";

const LABEL: &str = "[a-z0-9_-]+";
/// A label that is not a number: the URL standard takes a host that ends with a number for an IPv4 address.
const NAME_LABEL: &str = "[a-z0-9_-]*[a-z_-][a-z0-9_-]*";
const OCTET: &str = "(?:[0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])";
const PORT: &str = "(?::[1-9][0-9]{0,4})?";
/// As [`PORT`], up to 65535.
const EXISTING_PORT: &str =
    "(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?";

impl Language {
    /// None if the expression is not valid or too large. It must have its own anchors.
    pub(super) fn of(expression: &str) -> Option<Self> {
        let config = DFA::config()
            .match_kind(MatchKind::All)
            .prefilter(None)
            .cache_capacity(CACHE)
            .skip_cache_capacity_check(true)
            .minimum_cache_clear_count(Some(0));
        let automaton = DFA::builder()
            .configure(config)
            .syntax(syntax::Config::new().unicode(false).utf8(false))
            .thompson(thompson::Config::new().utf8(false).nfa_size_limit(Some(CACHE)))
            .build(expression)
            .ok()?;
        let cache = Mutex::new(automaton.create_cache());
        Some(Language { automaton, cache })
    }

    fn fixed(expression: &str) -> Self {
        Self::of(&format!("^(?:{expression})$")).expect("the expressions of this file are valid")
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The shortest text that is in all languages of `within` and in none of `without`. At most four languages, each once.
pub(super) fn shortest(within: &[&Language], without: &[&Language]) -> Found {
    search(within, without).unwrap_or(Found::Unknown)
}

/// An origin that one expression accepts and another does not: a readable one if there is one. None also if the search
/// reached its bounds. Neither expression needs anchors: both must match the whole origin.
pub(crate) fn only_in(one: &str, other: &str) -> Option<String> {
    static FOREIGN: LazyLock<Language> =
        LazyLock::new(|| Language::fixed(&format!(r"https?://(?:{LABEL}\.)*evil\.test")));
    let whole = |expression: &str| Language::of(&format!("^(?:{expression})$"));
    let (one, other) = (whole(one)?, whole(other)?);
    let find = |within: &[&Language]| match shortest(within, &[&other]) {
        Found::Origin(origin) => Some(origin),
        Found::Nothing | Found::Unknown => None,
    };
    find(&[&one, &FOREIGN]).or_else(|| find(&[&one, &ORIGINS]))
}

/// A search locks several caches, so two searches at once could wait for each other.
static ONE_SEARCH_AT_A_TIME: Mutex<()> = Mutex::new(());

/// None if a bound was reached.
fn search(within: &[&Language], without: &[&Language]) -> Option<Found> {
    type States = [LazyStateID; 4];
    let _this_search = ONE_SEARCH_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut all: Vec<(&DFA, MutexGuard<'_, Cache>)> =
        within.iter().chain(without).map(|language| (&language.automaton, language.lock())).collect();
    let bytes = distinct_bytes(&all);
    let mut first = States::default();
    for (state, (automaton, cache)) in first.iter_mut().zip(&mut all) {
        *state = automaton.start_state(cache, &start::Config::new().anchored(Anchored::Yes)).ok()?;
    }
    // Each entry knows the entry that it follows, and the byte between them.
    let (mut entries, mut seen) = (vec![(first, 0, 0_u8)], HashSet::from([first]));
    let mut next = 0;
    while let Some((states, _, _)) = entries.get(next).copied() {
        let mut accepted = true;
        for (i, (automaton, cache)) in all.iter_mut().enumerate() {
            let is_in = automaton.next_eoi_state(cache, states[i]).ok()?.is_match();
            accepted = accepted && is_in == (i < within.len());
        }
        if accepted {
            return Some(Found::Origin(spelled(&entries, next)));
        }
        for byte in &bytes {
            let mut following = States::default();
            let mut is_dead = false;
            for (i, (automaton, cache)) in all.iter_mut().enumerate() {
                following[i] = automaton.next_state(cache, states[i], *byte).ok()?;
                is_dead = i < within.len() && (following[i].is_dead() || following[i].is_quit());
                if is_dead {
                    break;
                }
            }
            if !is_dead && seen.insert(following) {
                if entries.len() == MOST_STATES {
                    return None;
                }
                entries.push((following, next, *byte));
            }
        }
        next += 1;
    }
    Some(Found::Nothing)
}

/// The bytes of an origin without those that no automaton distinguishes from an earlier one.
fn distinct_bytes(all: &[(&DFA, MutexGuard<'_, Cache>)]) -> Vec<u8> {
    let classes = |byte: u8| all.iter().map(|(automaton, _)| automaton.byte_classes().get(byte)).collect::<Vec<_>>();
    let mut seen = HashSet::new();
    ALPHABET.iter().copied().filter(|byte| seen.insert(classes(*byte))).collect()
}

fn spelled(entries: &[([LazyStateID; 4], usize, u8)], mut at: usize) -> String {
    let mut bytes = Vec::new();
    while at != 0 {
        let (_, before, byte) = entries[at];
        bytes.push(byte);
        at = before;
    }
    bytes.reverse();
    String::from_utf8(bytes).unwrap_or_default()
}

// --- the sets that the checks ask for

fn host() -> String {
    format!(r"(?:(?:{LABEL}\.)*{NAME_LABEL}\.?|{OCTET}(?:\.{OCTET}){{3}}|\[[0-9a-f:]+\])")
}

/// Origins that a browser can send, except `null`.
pub(super) static ORIGINS: LazyLock<Language> =
    LazyLock::new(|| Language::fixed(&format!("[a-z][a-z0-9+.-]*://{}{PORT}", host())));

/// Origins that a browser can send, except `null`, with ports that exist.
pub(super) static SENT_ORIGINS: LazyLock<Language> =
    LazyLock::new(|| Language::fixed(&format!("[a-z][a-z0-9+.-]*://{}{EXISTING_PORT}", host())));

/// Origins that look like most origins: `https`, a name with a dot, and no port.
pub(super) static PLAIN_ORIGINS: LazyLock<Language> =
    LazyLock::new(|| Language::fixed(r"https://(?:[a-z0-9-]+\.)+[a-z]{2,}"));

/// With a port that browsers leave out.
pub(super) static DEFAULT_PORTS: LazyLock<Language> =
    LazyLock::new(|| Language::fixed("(?:http|ws)://.*:80|(?:https|wss)://.*:443|ftp://.*:21"));

/// The expression of a pattern, without anchors. Of the origins that a browser can send, it accepts those that the
/// pattern matches.
pub(super) fn of_pattern(scheme: &str, host: &OriginHost, port: PortPattern) -> String {
    let host = match host {
        OriginHost::Any => self::host(),
        OriginHost::Subdomains(base) => format!(r"(?:{LABEL}\.)+{}", regex_syntax::escape(base)),
        OriginHost::Exact(name) => regex_syntax::escape(name),
    };
    let port = match port {
        PortPattern::Any => PORT.to_owned(),
        PortPattern::Exact(None) => String::new(),
        PortPattern::Exact(Some(port)) => format!(":{port}"),
    };
    format!("{}://{host}{port}", regex_syntax::escape(scheme))
}

/// Over `http`.
pub(super) static HTTP: LazyLock<Language> = LazyLock::new(|| Language::fixed(&format!("http://{}{PORT}", host())));

/// Over `http` or `https`.
pub(super) static WEB: LazyLock<Language> = LazyLock::new(|| Language::fixed("https?://.*"));

/// Over `http`, of this machine: as [`crate::domain::is_loopback_host`].
pub(super) static LOOPBACK: LazyLock<Language> = LazyLock::new(|| {
    let address = format!(r"127(?:\.{OCTET}){{3}}|\[::1\]");
    Language::fixed(&format!(r"http://(?:(?:{LABEL}\.)*localhost\.?|{address}){PORT}"))
});

/// Parts of names that a stranger can register: letters, hexadecimal digits and decimal digits. Each with another one, for
/// which an expression with an open part allows the same.
pub(super) const STRANGERS: [(&str, &str); 3] = [("evil", "foul"), ("dead", "beef"), ("6666", "7373")];

/// A whole name, or one with an open end. A name with a fixed part, such as `pr-[0-9]+` or `[a-z0-9-]+-team`, contains
/// none of them.
const OPEN_NAME: &str = "(?:evil[a-z0-9]*|dead[a-f0-9]*|6666[0-9]*)";
/// A name with any fixed parts.
const PARTLY_OPEN_NAME: &str = "[a-z0-9_-]*(?:evil|dead|6666)[a-z0-9_-]*";
/// Suffixes that an open end of an expression, such as `\.[a-z]+`, accepts.
const COMMON_SUFFIXES: &str = r"com|org|net|io|dev|app|de|co\.uk";

fn strangers_below(name: &str, suffixes: &str) -> Language {
    Language::fixed(&format!(r"https?://(?:{LABEL}\.)*{name}\.(?:{suffixes}){PORT}"))
}

fn any_suffix() -> String {
    format!(r"(?:{LABEL}\.)*{NAME_LABEL}")
}

/// Sites of strangers, below suffixes of registries and of hosting services.
pub(super) static STRANGERS_OF_COMMON_SUFFIXES: LazyLock<Language> = LazyLock::new(|| {
    strangers_below(OPEN_NAME, &format!(r"{COMMON_SUFFIXES}|github\.io|vercel\.app|netlify\.app|pages\.dev"))
});

/// Sites of strangers, below any name.
pub(super) static STRANGERS_OF_ANY_NAME: LazyLock<Language> =
    LazyLock::new(|| strangers_below(OPEN_NAME, &any_suffix()));

/// Sites of strangers whose name may have fixed parts, below suffixes of registries.
pub(super) static PARTLY_OPEN_OF_COMMON_SUFFIXES: LazyLock<Language> =
    LazyLock::new(|| strangers_below(PARTLY_OPEN_NAME, COMMON_SUFFIXES));

/// The same below any name.
pub(super) static PARTLY_OPEN_OF_ANY_NAME: LazyLock<Language> =
    LazyLock::new(|| strangers_below(PARTLY_OPEN_NAME, &any_suffix()));

/// Hosts below a top-level domain that does not exist. Only an expression with an open end allows them.
pub(super) static UNKNOWN_TOP_LEVEL: LazyLock<Language> =
    LazyLock::new(|| Language::fixed(&format!(r"https?://(?:{LABEL}\.)+zz+{PORT}")));

/// Hosts below top-level domains in which anybody can register a name.
pub(super) static OPEN_TOP_LEVEL: LazyLock<Language> =
    LazyLock::new(|| Language::fixed(&format!(r"https?://(?:{LABEL}\.)+(?:tk|cc|xyz|top|site|click|online){PORT}")));

/// Origins of these domains and of their subdomains.
pub(super) fn below(domains: &[String]) -> Option<Language> {
    let domains: Vec<String> = domains.iter().map(|domain| domain.replace('.', r"\.")).collect();
    Language::of(&format!(r"^https?://(?:{LABEL}\.)*(?:{}){PORT}$", domains.join("|")))
}

#[cfg(test)]
mod tests {
    use super::super::OriginPattern;
    use super::*;

    #[test]
    fn the_shortest_common_origin_is_found() {
        let language = |expression: &str| Language::of(&format!("^(?:{expression})$")).unwrap();
        let origin = |text: &str| Found::Origin(text.to_owned());
        let find = |expression: &str| shortest(&[&language(expression), &ORIGINS], &[&DEFAULT_PORTS]);
        assert_eq!(find(r"https?://.*\.app\.example"), origin("http://a.app.example"));
        assert_eq!(find(r"https://app\.example(:443|:8443)"), origin("https://app.example:8443"));
        assert_eq!(find(r"https://[a-z]{3,70}\.example"), origin("https://aaa.example"));
        for nothing in
            ["null", r"app\.example", "https://App", "https://a/", "https://a:443", r"http://10\.0\.0", "https://"]
        {
            assert_eq!(find(nothing), Found::Nothing, "{nothing}");
        }
        assert_eq!(find("https://.*a.{18}"), Found::Unknown, "its automaton has 2^18 states");
    }

    /// The set and the parser of patterns must agree on what an origin is.
    #[test]
    fn origins_are_what_the_parser_accepts() {
        for text in [
            "https://app.example",
            "https://app.example.",
            "http://localhost:3000",
            "http://127.0.0.1",
            "http://[::1]:80",
            "http://[::1]:8080",
            "https://a_b.example",
            "tauri://localhost",
            "https://1.2.3",
            "https://256.0.0.1",
            "https://a..b",
            "https://.a",
            "https://a:0",
            "https://a:00",
            "https://x1",
            "https://1x",
            "null",
            "https://",
            "https://a/",
            "https://A",
        ] {
            let exact = Language::of(&format!("^(?:{})$", regex_syntax::escape(text))).unwrap();
            let is_known = shortest(&[&exact, &ORIGINS], &[&DEFAULT_PORTS]) == Found::Origin(text.to_owned());
            let is_valid = matches!(OriginPattern::parse(text), Ok(OriginPattern::Tuple(_)));
            assert_eq!(is_known, is_valid, "{text}");
        }
    }
}
