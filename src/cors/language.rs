//! Sets of origins as automata. A search finds an origin that an expression accepts, or proves that none exists.
//!
//! A sample of an expression is a guess, but a search over its automaton is exact. The search combines the states of
//! several automata. So a single search can find an origin that an expression accepts, that is over `http`, and that is
//! not loopback. The search stops after [`MOST_STATES`] combined states, or when an automaton needs more than [`CACHE`]
//! bytes.

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
    /// Computed states. A state is computed when a search reaches it for the first time.
    cache: Mutex<Cache>,
}

/// The result of a search.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The shortest origin.
    Origin(String),
    /// No such origin exists.
    Nothing,
    /// The bounds of the search were reached.
    Unknown,
}

const MOST_STATES: usize = 8 * 1024;
const CACHE: usize = 1024 * 1024;

/// The characters of an origin, in the order in which a search prefers them.
const ALPHABET: &[u8] = b"aebcdfghijklmnopqrstuvwxyz0123456789-.:/_[]+";

const LABEL: &str = "[a-z0-9_-]+";
/// A label that is not a number. In the URL standard, a host that ends with a number is an IPv4 address.
const NAME_LABEL: &str = "[a-z0-9_-]*[a-z_-][a-z0-9_-]*";
const OCTET: &str = "(?:[0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])";
const PORT: &str = "(?::[1-9][0-9]{0,4})?";
/// Like [`PORT`], but only up to 65535.
const EXISTING_PORT: &str =
    "(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?";

impl Language {
    /// Compiles an expression, which must contain anchors. Returns None if the expression is not valid or too large.
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

/// Returns the shortest text that is in all languages of `within` and in no language of `without`. At most four
/// languages are possible, and a language must not occur twice.
pub(super) fn shortest(within: &[&Language], without: &[&Language]) -> Found {
    search(within, without).unwrap_or(Found::Unknown)
}

/// Returns an origin that the expression `one` accepts and `other` does not, if possible a readable origin. Returns
/// None if no such origin exists, or if the search reaches its bounds. The expressions need no anchors. They always
/// match the whole origin.
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

/// Whether two expressions with anchors match the same origins, of all origins that a browser can send. False if the
/// search reaches its bounds.
pub(super) fn are_equal(one: &str, other: &str) -> bool {
    let (Some(one), Some(other)) = (Language::of(one), Language::of(other)) else { return false };
    let is_within = |narrow: &Language, wide: &Language| {
        shortest(&[narrow, &SENT_ORIGINS], &[wide, &DEFAULT_PORTS]) == Found::Nothing
    };
    is_within(&one, &other) && is_within(&other, &one)
}

/// A search locks several caches, so two searches at the same time could deadlock.
static ONE_SEARCH_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs a search. Returns None if it reaches a bound.
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
    // Each entry has the states, the index of the previous entry, and the byte that leads from the previous entry to
    // these states.
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

/// Returns the bytes of an origin. If no automaton distinguishes two bytes, only the first byte is returned.
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

// --- the sets of origins for the checks

fn host() -> String {
    format!(r"(?:(?:{LABEL}\.)*{NAME_LABEL}\.?|{OCTET}(?:\.{OCTET}){{3}}|\[[0-9a-f:]+\])")
}

/// Origins that a browser can send, except `null`.
pub(super) static ORIGINS: LazyLock<Language> =
    LazyLock::new(|| Language::fixed(&format!("[a-z][a-z0-9+.-]*://{}{PORT}", host())));

/// Origins that a browser can send, except `null`, with ports that exist.
pub(super) static SENT_ORIGINS: LazyLock<Language> =
    LazyLock::new(|| Language::fixed(&format!("[a-z][a-z0-9+.-]*://{}{EXISTING_PORT}", host())));

/// Origins of the most usual form: `https`, a name with a dot, and no port.
pub(super) static PLAIN_ORIGINS: LazyLock<Language> =
    LazyLock::new(|| Language::fixed(r"https://(?:[a-z0-9-]+\.)+[a-z]{2,}"));

/// Origins with the default port of their scheme. Browsers omit this port.
pub(super) static DEFAULT_PORTS: LazyLock<Language> =
    LazyLock::new(|| Language::fixed("(?:http|ws)://.*:80|(?:https|wss)://.*:443|ftp://.*:21"));

/// Returns the regular expression of a pattern, without anchors. For the origins that a browser can send, the
/// expression and the pattern give the same result.
pub(super) fn of_pattern(scheme: &str, host: &OriginHost, port: PortPattern) -> String {
    let host = match host {
        OriginHost::Any => self::host(),
        OriginHost::Subdomains(base) => format!(r"(?:{LABEL}\.)+{}", regex_syntax::escape(base)),
        OriginHost::Exact(name) => regex_syntax::escape(name),
        OriginHost::Template(template) => template.expression(&format!(r"(?:{LABEL}\.)+")),
    };
    let port = match port {
        PortPattern::Any => PORT.to_owned(),
        PortPattern::Exact(None) => String::new(),
        PortPattern::Exact(Some(port)) => format!(":{port}"),
    };
    format!("{}://{host}{port}", regex_syntax::escape(scheme))
}

/// Origins over `http`.
pub(super) static HTTP: LazyLock<Language> = LazyLock::new(|| Language::fixed(&format!("http://{}{PORT}", host())));

/// Origins over `http` or `https`.
pub(super) static WEB: LazyLock<Language> = LazyLock::new(|| Language::fixed("https?://.*"));

/// Origins over `http` on loopback. The hosts are the same as in [`crate::domain::is_loopback_host`].
pub(super) static LOOPBACK: LazyLock<Language> = LazyLock::new(|| {
    let address = format!(r"127(?:\.{OCTET}){{3}}|\[::1\]");
    Language::fixed(&format!(r"http://(?:(?:{LABEL}\.)*localhost\.?|{address}){PORT}"))
});

/// Parts of names that a stranger can register: letters, hexadecimal digits and decimal digits. Each part has a
/// replacement of the same kind. An expression whose name is really open also accepts the replacement.
pub(super) const STRANGERS: [(&str, &str); 3] = [("evil", "foul"), ("dead", "beef"), ("6666", "7373")];

/// Names that a stranger can choose completely. An expression with a fixed part, such as `pr-[0-9]+` or
/// `[a-z0-9-]+-team`, accepts none of these names.
const OPEN_NAME: &str = "(?:evil[a-z0-9]*|dead[a-f0-9]*|6666[0-9]*)";
/// Names that a stranger can choose in part. The rest of the name can be fixed.
const PARTLY_OPEN_NAME: &str = "[a-z0-9_-]*(?:evil|dead|6666)[a-z0-9_-]*";
/// Common suffixes. An expression with an open end, such as `\.[a-z]+`, accepts them.
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

/// Sites of strangers whose name may have fixed parts, below any name.
pub(super) static PARTLY_OPEN_OF_ANY_NAME: LazyLock<Language> =
    LazyLock::new(|| strangers_below(PARTLY_OPEN_NAME, &any_suffix()));

/// Hosts below a top-level domain that does not exist. Only an expression with an open end allows them.
pub(super) static UNKNOWN_TOP_LEVEL: LazyLock<Language> =
    LazyLock::new(|| Language::fixed(&format!(r"https?://(?:{LABEL}\.)+zz+{PORT}")));

/// Hosts below top-level domains in which anybody can register a name.
pub(super) static OPEN_TOP_LEVEL: LazyLock<Language> =
    LazyLock::new(|| Language::fixed(&format!(r"https?://(?:{LABEL}\.)+(?:tk|cc|xyz|top|site|click|online){PORT}")));

/// Returns the origins of these domains and of their subdomains.
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

    /// Checks that [`ORIGINS`] and the parser of patterns accept the same origins.
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

    #[test]
    fn an_origin_of_one_expression_only_is_found() {
        assert_eq!(
            only_in(r"https://.*\.a\.example", r"https://b\.a\.example").as_deref().map(|o| o.ends_with(".a.example")),
            Some(true)
        );
        assert_eq!(only_in(r"https://[ab]\.example", r"https://a\.example").as_deref(), Some("https://b.example"));
        assert_eq!(only_in(r"https://a\.example", r"https://[ab]\.example"), None);
        // A readable origin is preferred.
        assert_eq!(only_in("https://.*", r"https://a\.example").as_deref(), Some("https://evil.test"));
    }
}
