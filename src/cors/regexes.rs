//! Regular expressions for origins, and the lint that finds mistakes in them.
//!
//! An expression must match the whole Origin, with or without anchors of its own. Other gateways match without anchors,
//! and then `https://app\.example` allows `https://app.example.evil.test`. Matching takes linear time, and the size of
//! a compiled expression is limited.
//!
//! [`lint`] warns only with evidence: an origin that the expression allows and that its author very probably does not
//! want to allow. Each one is tried on the compiled expression before it is reported.

use regex_syntax::hir::Hir;

use super::witness::Expression;
use crate::problem::ProblemKind;

/// Largest size of one compiled expression, in bytes of memory.
const SIZE_LIMIT: usize = 256 * 1024;

/// Several expressions, matched in one pass.
#[derive(Debug)]
pub(crate) struct OriginRegexes(regex::bytes::RegexSet);

impl OriginRegexes {
    /// Compiles expressions. Each of them must have passed [`check`].
    pub(crate) fn compile<'a>(sources: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let sources: Vec<String> = sources.into_iter().filter_map(anchored).collect();
        let limit = SIZE_LIMIT * sources.len().max(1);
        let set = regex::bytes::RegexSetBuilder::new(sources).unicode(false).size_limit(limit).build();
        set.ok().map(OriginRegexes)
    }

    /// Whether an expression matches the whole value.
    pub(crate) fn matches(&self, origin: &str) -> bool {
        self.0.is_match(origin.as_bytes())
    }
}

/// Whether an expression can be used.
pub(crate) fn check(source: &str) -> Result<(), ProblemKind> {
    let broken = |message: String| {
        // The parser's message is a drawing over several lines. The last line has the fault.
        let last = message.lines().last().unwrap_or_default();
        ProblemKind::RegexDoesNotCompile { message: last.trim_start_matches("error: ").to_owned() }
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
        Ok(_) => Ok(()),
        Err(regex::Error::CompiledTooBig(_)) => Err(ProblemKind::RegexTooLarge { limit: SIZE_LIMIT }),
        Err(error) => Err(broken(error.to_string())),
    }
}

/// Warns about the most serious mistake in an expression that has passed [`check`].
pub(crate) fn lint(source: &str) -> Option<ProblemKind> {
    let regexes = OriginRegexes::compile([source])?;
    let expression = Expression::parse(source)?;
    // Browsers send origins with a scheme, so a witness with a scheme is better evidence.
    let accepted = |witness: String| {
        let with_scheme = (!witness.contains("://")).then(|| format!("https://{witness}"));
        // An empty Origin counts as absent, and regular expressions never allow `null`.
        let sendable = |witness: &String| !witness.is_empty() && witness != "null" && regexes.matches(witness);
        with_scheme.into_iter().chain([witness]).find(sendable)
    };

    // From the most serious mistake to the least: one warning is enough. An expression that matches two hosts with
    // nothing in common matches every host, at least for this scheme.
    for scheme in ["https", "http"] {
        let unrelated = ["evil.test", "an-other.1.example"].map(|host| format!("{scheme}://{host}"));
        if unrelated.iter().all(|origin| regexes.matches(origin)) {
            let [witness, _] = unrelated;
            return Some(ProblemKind::RegexMatchesAll { witness });
        }
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
    if !source.contains("://") {
        let text = expression.sample();
        let host = text.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        let witness = [format!("http://{host}"), format!("evil://{host}"), text.clone()].into_iter().find_map(accepted);
        return witness.map(|witness| ProblemKind::RegexWithoutScheme { witness });
    }
    None
}

// --- anchoring

/// Parses an expression as it is compiled: bytes, not Unicode.
pub(super) fn parse(source: &str) -> Result<Hir, Box<regex_syntax::Error>> {
    regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build().parse(source).map_err(Box::new)
}

/// The expression between anchors, printed from its syntax tree, so that no comment, flag or parenthesis in the source
/// can disable the anchors.
fn anchored(source: &str) -> Option<String> {
    let whole = Hir::concat(vec![
        Hir::look(regex_syntax::hir::Look::Start),
        parse(source).ok()?,
        Hir::look(regex_syntax::hir::Look::End),
    ]);
    Some(whole.to_string())
}
