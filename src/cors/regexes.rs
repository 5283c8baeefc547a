//! Regular expressions for origins, and the lint that finds mistakes in them.
//!
//! An expression must match the whole Origin, with or without anchors of its own. Other gateways match without anchors,
//! and then `https://app\.example` allows `https://app.example.evil.test`. Matching takes linear time, and the size of
//! a compiled expression is limited.
//!
//! Each warning shows an origin that the expression allows, and that its author very probably does not want to allow.
//! The safety checks of a policy with credentials search for such an origin with [`super::language`], so the result
//! does not depend on the notation of the expression. The checks for mistakes of notation match samples with the
//! compiled expression.

use regex_syntax::hir::Hir;

use super::language::{
    self, DEFAULT_PORTS, Found, HTTP, LOOPBACK, Language, OPEN_TOP_LEVEL, ORIGINS, PARTLY_OPEN_OF_ANY_NAME,
    PARTLY_OPEN_OF_COMMON_SUFFIXES, STRANGERS, STRANGERS_OF_ANY_NAME, STRANGERS_OF_COMMON_SUFFIXES, UNKNOWN_TOP_LEVEL,
    WEB,
};
use super::origin::OriginPattern;
use super::witness::Expression;
use crate::domain::split_port;
use crate::problem::ProblemKind;

/// Largest size of one compiled expression, in bytes of memory.
const SIZE_LIMIT: usize = 256 * 1024;
/// Maximum number of alternatives of one expression that are checked.
const MOST_ALTERNATIVES: usize = 32;
/// Maximum number of domains of one expression that are compared with the public suffix list.
const MOST_DOMAINS: usize = 8;

/// Several expressions, matched in one pass.
#[derive(Debug)]
pub(crate) struct OriginRegexes {
    set: regex::bytes::RegexSet,
    /// The expressions in the spelling of the configuration.
    sources: Box<[Box<str>]>,
}

impl OriginRegexes {
    /// Compiles expressions. Each of them must have passed [`check`].
    pub(crate) fn compile<'a>(sources: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let sources: Box<[Box<str>]> = sources.into_iter().map(Into::into).collect();
        let limit = SIZE_LIMIT * sources.len().max(1);
        let anchored = sources.iter().filter_map(|source| anchored(source));
        let set = regex::bytes::RegexSetBuilder::new(anchored).unicode(false).size_limit(limit).build();
        set.ok().map(|set| OriginRegexes { set, sources })
    }

    /// Returns the expressions in the spelling of the configuration.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(|source| &**source)
    }

    /// Whether an expression matches the whole value.
    pub(crate) fn matches(&self, origin: &str) -> bool {
        self.set.is_match(origin.as_bytes())
    }
}

/// A valid expression, with the data for the checks.
pub(crate) struct Checked<'s> {
    source: &'s str,
    regex: regex::bytes::Regex,
    /// The origins that the expression matches. None if the expression is too large for the searches.
    language: Option<Language>,
}

/// Compiles an expression. Err: the reason why it cannot be used.
pub(crate) fn check(source: &str) -> Result<Checked<'_>, ProblemKind> {
    let broken = |message: String| {
        // The parser's message has several lines. The last line names the error.
        let last = message.lines().last().unwrap_or_default();
        let message = last.trim_start_matches("error: ").to_owned();
        ProblemKind::RegexDoesNotCompile { message, is_pattern: is_pattern(source) }
    };
    if source.is_empty() {
        return Err(ProblemKind::EmptyEntry);
    }
    if !source.is_ascii() {
        return Err(ProblemKind::OriginNonAscii { text: source.to_owned() });
    }
    parse(source).map_err(|e| broken(e.to_string()))?;
    let anchored = anchored(source).unwrap_or_default();
    match regex::bytes::RegexBuilder::new(&anchored).unicode(false).size_limit(SIZE_LIMIT).build() {
        Ok(regex) => Ok(Checked { source, regex, language: Language::of(&anchored) }),
        Err(regex::Error::CompiledTooBig(_)) => Err(ProblemKind::RegexTooLarge { limit: SIZE_LIMIT }),
        Err(error) => Err(broken(error.to_string())),
    }
}

impl Checked<'_> {
    fn matches(&self, origin: &str) -> bool {
        self.regex.is_match(origin.as_bytes())
    }

    /// Returns an origin that the expression matches, and that is in all of `within` and in none of `without`. None if
    /// no such origin exists, or if the search reached its bounds.
    fn origin(&self, within: &[&Language], without: &[&Language]) -> Option<String> {
        let language = self.language.as_ref()?;
        match language::shortest(&[&[language], within].concat(), without) {
            Found::Origin(origin) => Some(origin),
            Found::Nothing | Found::Unknown => None,
        }
    }

    /// Whether the expression matches no origin that a browser can send. False if the search reached its bounds.
    fn matches_no_origin(&self) -> bool {
        let Some(language) = &self.language else { return false };
        // Most expressions need no search, because their sample is an origin.
        let sample = Expression::parse(self.source).map(|expression| expression.sample()).unwrap_or_default();
        if self.matches(&sample) && matches!(OriginPattern::parse(&sample), Ok(OriginPattern::Tuple(_))) {
            return false;
        }
        language::shortest(&[language, &ORIGINS], &[&DEFAULT_PORTS]) == Found::Nothing
    }

    /// Returns a warning if the expression matches no origin that a browser can send.
    pub(crate) fn never_matches(&self) -> Option<ProblemKind> {
        self.matches_no_origin().then(|| ProblemKind::RegexNeverMatches { part: None, write: repaired(self.source) })
    }

    /// Returns an unrelated origin if the expression matches every host, at least with this scheme. An expression that
    /// matches two unrelated hosts counts as an expression for every host.
    pub(crate) fn any_host(&self, scheme: &str) -> Option<String> {
        let unrelated = ["evil.test", "an-other.1.example"].map(|host| format!("{scheme}://{host}"));
        let [witness, other] = unrelated;
        (self.matches(&witness) && self.matches(&other)).then_some(witness)
    }

    /// Returns an origin that the expression matches, over `http` and not loopback.
    pub(crate) fn insecure_origin(&self) -> Option<String> {
        self.origin(&[&HTTP], &[&LOOPBACK, &DEFAULT_PORTS])
    }

    /// Returns an origin that the expression matches, with another scheme than `http` and `https`.
    pub(crate) fn odd_origin(&self) -> Option<String> {
        self.origin(&[&ORIGINS], &[&WEB])
    }

    /// Returns an origin that a stranger can register below a public suffix, and the suffix.
    ///
    /// Below the suffix of a registry, such as `com`, a stranger can also register a name with a fixed part. Below the
    /// suffix of a hosting service, such as `vercel.app`, the fixed part may be the name of the author's team, so such
    /// names are accepted.
    pub(crate) fn foreign_site(&self) -> Option<(String, String)> {
        let any = |_: psl::Suffix<'_>| true;
        let of_registry = |suffix: psl::Suffix<'_>| suffix.typ() == Some(psl::Type::Icann);
        self.site_of_stranger(&STRANGERS_OF_COMMON_SUFFIXES, &STRANGERS_OF_ANY_NAME, any)
            .or_else(|| self.site_of_stranger(&PARTLY_OPEN_OF_COMMON_SUFFIXES, &PARTLY_OPEN_OF_ANY_NAME, of_registry))
            .or_else(|| self.open_top_level())
    }

    /// Returns an origin from `common` or `all` that a stranger can register, and whose suffix `counts`.
    fn site_of_stranger(
        &self,
        common: &Language,
        all: &Language,
        counts: impl Fn(psl::Suffix<'_>) -> bool,
    ) -> Option<(String, String)> {
        let of_stranger = |origin: &str| {
            let host = origin_host(origin)?;
            let suffix = psl::suffix(host.as_bytes()).filter(psl::Suffix::is_known).filter(|suffix| counts(*suffix))?;
            let suffix = std::str::from_utf8(suffix.as_bytes()).ok()?;
            let label = host.strip_suffix(suffix)?.strip_suffix('.')?.rsplit('.').next()?;
            // A label that is literal in the expression, such as `deadline`, is not open.
            let is_open = STRANGERS.iter().any(|(free, other)| {
                let name = |label: &str| format!("{label}.{suffix}");
                label.contains(free)
                    && self.matches(&origin.replacen(&name(label), &name(&label.replacen(free, other, 1)), 1))
            });
            is_open.then(|| suffix.to_owned())
        };
        if let Some(origin) = self.origin(&[common], &[&DEFAULT_PORTS])
            && let Some(suffix) = of_stranger(&origin)
        {
            return Some((origin, suffix));
        }
        // The suffix is part of the expression. Each round finds another domain; a domain that belongs to one owner, or
        // whose suffix does not count, is left out of the next rounds.
        let mut owned: Vec<String> = Vec::new();
        for _ in 0..MOST_DOMAINS {
            let left_out = if owned.is_empty() { None } else { language::below(&owned) };
            let without: Vec<&Language> = left_out.iter().chain([&*DEFAULT_PORTS]).collect();
            let origin = self.origin(&[all], &without)?;
            if let Some(suffix) = of_stranger(&origin) {
                return Some((origin, suffix));
            }
            let host = origin_host(&origin)?;
            // The list does not contain private suffixes such as `internal`, so nothing is known about registrations
            // below them.
            let counts = psl::suffix(host.as_bytes()).is_some_and(|suffix| suffix.is_known() && counts(suffix));
            let domain = psl::domain_str(host).filter(|_| counts).or_else(|| psl::suffix_str(host));
            owned.push(domain.unwrap_or(host).to_owned());
        }
        None
    }

    /// Returns an origin below a top-level domain that is not literal in the expression, as in `example\.[a-z]+`.
    fn open_top_level(&self) -> Option<(String, String)> {
        self.origin(&[&UNKNOWN_TOP_LEVEL], &[])?;
        let origin = self.origin(&[&OPEN_TOP_LEVEL], &[&DEFAULT_PORTS])?;
        let suffix = origin_host(&origin)?.rsplit('.').next()?.to_owned();
        Some((origin, suffix))
    }

    /// Returns a warning about the most serious mistake in the expression.
    pub(crate) fn lint(&self) -> Option<ProblemKind> {
        let expression = Expression::parse(self.source)?;
        // Browsers send origins with a scheme, so a witness with a scheme is better evidence.
        let accepted = |witness: String| {
            let with_scheme = (!witness.contains("://")).then(|| format!("https://{witness}"));
            // An empty Origin counts as absent, and regular expressions never allow `null`.
            let sendable = |witness: &String| !witness.is_empty() && witness != "null" && self.matches(witness);
            with_scheme.into_iter().chain([witness]).find(sendable)
        };

        // The checks are ordered by severity. Only the first warning is returned.
        if is_pattern(self.source) {
            return Some(ProblemKind::RegexIsPattern { text: self.source.to_owned() });
        }
        let without_scheme = expression.alternatives().into_iter().find(|text| !text.contains("://"));
        if let Some(witness) = without_scheme.and_then(accepted) {
            return Some(ProblemKind::RegexAlternation { witness });
        }
        if let Some(witness) = expression.with_unescaped_dot().and_then(accepted) {
            return Some(ProblemKind::RegexUnescapedDot { witness });
        }
        if let Some(witness) = expression.with_open_prefix().and_then(accepted) {
            return Some(ProblemKind::RegexOpenPrefix { witness });
        }
        if !plain_slashes(self.source).contains("://") {
            let text = expression.sample();
            let host = text.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
            let mut witnesses = [format!("http://{host}"), format!("evil://{host}"), text.clone()].into_iter();
            return witnesses.find_map(accepted).map(|witness| ProblemKind::RegexWithoutScheme { witness });
        }
        let alternatives = expression.alternative_sources(self.source);
        let useless = alternatives
            .iter()
            .take(MOST_ALTERNATIVES)
            .find(|part| check(part).is_ok_and(|c| c.matches_no_origin()))?;
        Some(ProblemKind::RegexNeverMatches { part: Some((*useless).to_owned()), write: None })
    }
}

/// Whether the text of an expression is a pattern for `allow_origins`, with a wildcard or a placeholder.
fn is_pattern(source: &str) -> bool {
    let is_valid = |text: &str| matches!(OriginPattern::parse(text), Ok(OriginPattern::Tuple(_)));
    source.contains(['*', '{']) && (is_valid(source) || is_valid(&format!("https://{source}")))
}

fn origin_host(origin: &str) -> Option<&str> {
    Some(split_port(origin.split_once("://")?.1).0)
}

// --- expressions that match nothing

/// Returns the probable correction of an expression that matches no origin. None if no change helps.
fn repaired(source: &str) -> Option<String> {
    let mut text = source.trim().to_owned();
    let steps: [fn(&str) -> String; 6] =
        [without_operator, without_delimiters, with_scheme, without_path, without_default_port, in_lower_case];
    for step in steps {
        let changed = step(&text);
        if changed == text {
            continue;
        }
        let Ok(checked) = check(&changed) else { continue };
        if !checked.matches_no_origin() {
            return Some(changed);
        }
        text = changed;
    }
    None
}

/// nginx writes `~` or `~*` before an expression.
fn without_operator(text: &str) -> String {
    text.strip_prefix("~*").or_else(|| text.strip_prefix('~')).unwrap_or(text).trim_start().to_owned()
}

/// JavaScript, Ruby and Perl write an expression between slashes.
fn without_delimiters(text: &str) -> String {
    let inner = text.strip_prefix('/').and_then(|rest| rest.rsplit_once('/'));
    match inner.filter(|(_, flags)| flags.bytes().all(|flag| flag.is_ascii_lowercase())) {
        Some((inner, _)) => plain_slashes(inner),
        None => text.to_owned(),
    }
}

fn with_scheme(text: &str) -> String {
    if plain_slashes(text).contains("://") {
        return text.to_owned();
    }
    let host = text.trim_start_matches('^');
    let scheme = if ["localhost", "127"].iter().any(|local| host.starts_with(local)) { "http" } else { "https" };
    format!("{scheme}://{host}")
}

/// An origin has no path, not even a slash.
fn without_path(text: &str) -> String {
    let text = plain_slashes(text);
    let host = text.find("://").map_or(0, |at| at + 3);
    let end = text[host..].find('/').map_or(text.len(), |at| host + at);
    text[..end].to_owned()
}

/// Languages that write an expression between slashes need a backslash before each slash inside.
fn plain_slashes(text: &str) -> String {
    text.replace(r"\/", "/")
}

fn without_default_port(text: &str) -> String {
    let end = text.trim_end_matches('$');
    end.strip_suffix(":443").or_else(|| end.strip_suffix(":80")).unwrap_or(text).to_owned()
}

/// Origins are in lower case. After a backslash a letter has another meaning in upper case.
fn in_lower_case(text: &str) -> String {
    let mut escaped = false;
    text.chars()
        .map(|c| {
            let letter = if escaped { c } else { c.to_ascii_lowercase() };
            escaped = c == '\\' && !escaped;
            letter
        })
        .collect()
}

// --- anchoring

/// Parses an expression as it is compiled: bytes, not Unicode.
pub(super) fn parse(source: &str) -> Result<Hir, Box<regex_syntax::Error>> {
    regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build().parse(source).map_err(Box::new)
}

/// The expression between anchors, printed from its syntax tree, so that no comment, flag or parenthesis in the source
/// can disable the anchors.
pub(super) fn anchored(source: &str) -> Option<String> {
    let whole = Hir::concat(vec![
        Hir::look(regex_syntax::hir::Look::Start),
        parse(source).ok()?,
        Hir::look(regex_syntax::hir::Look::End),
    ]);
    Some(whole.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_after_a_backslash_keep_their_case() {
        for (text, expected) in [
            (r"https://App\.EXAMPLE", r"https://app\.example"),
            (r"https://\D+\.APP\.example", r"https://\D+\.app\.example"),
            // The first backslash escapes the second one.
            (r"A\\DB", r"a\\db"),
        ] {
            assert_eq!(in_lower_case(text), expected);
        }
    }
}
