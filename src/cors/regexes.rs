//! Regular expressions for origins, and the lint that finds mistakes in them.
//!
//! An expression must match the whole Origin, with or without anchors of its own. Other gateways match without anchors,
//! and then `https://app\.example` allows `https://app.example.evil.test`. Matching takes linear time, and the size of
//! a compiled expression is limited.
//!
//! [`lint`] warns only with evidence: an origin that the expression allows and that its author very probably does not
//! want to allow. Each one is tried on the compiled expression before it is reported.

use regex_syntax::ast::{Ast, GroupKind, RepetitionKind, RepetitionRange};
use regex_syntax::hir::{Hir, HirKind};

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
    let ast = regex_syntax::ast::parse::Parser::new().parse(source).ok()?;
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
    if let Ast::Alternation(alternation) = &ast {
        let without_scheme = alternation.asts.iter().map(sample).find(|text| !text.contains("://"));
        if let Some(witness) = without_scheme.and_then(accepted) {
            return Some(ProblemKind::RegexAlternation { witness });
        }
    }
    if let Some(witness) = with_wrong_dot(&ast).and_then(accepted) {
        return Some(ProblemKind::RegexUnescapedDot { witness });
    }
    if let Some(witness) = with_open_prefix(&ast).and_then(accepted) {
        return Some(ProblemKind::RegexOpenPrefix { witness });
    }
    if !source.contains("://") {
        let text = sample(&ast);
        let host = text.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        let witness = [format!("http://{host}"), format!("evil://{host}"), text.clone()].into_iter().find_map(accepted);
        return witness.map(|witness| ProblemKind::RegexWithoutScheme { witness });
    }
    None
}

// --- anchoring

fn parse(source: &str) -> Result<Hir, Box<regex_syntax::Error>> {
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

// --- evidence

/// A short, plain text that the expression is likely to match.
fn sample(ast: &Ast) -> String {
    let mut out = String::new();
    Sampler { wrong_dot: None, dots: 0 }.write(ast, &mut out);
    out
}

/// A sample in which the first unescaped dot next to a letter or digit is replaced by a letter.
fn with_wrong_dot(ast: &Ast) -> Option<String> {
    let Ast::Concat(concat) = ungrouped(ast) else { return None };
    let mut dots = 0;
    let mut wrong = None;
    for (i, part) in concat.asts.iter().enumerate() {
        if let Ast::Dot(_) = part {
            let beside = |ast: Option<&Ast>| ast.is_some_and(is_letter);
            let before = i.checked_sub(1).and_then(|i| concat.asts.get(i));
            if wrong.is_none() && (beside(before) || beside(concat.asts.get(i + 1))) {
                wrong = Some(dots);
            }
            dots += 1;
        }
    }
    let mut out = String::new();
    Sampler { wrong_dot: Some(wrong?), dots: 0 }.write(ast, &mut out);
    Some(out)
}

/// A sample in which an unbounded repetition of any character runs into the letters after it: `.*example` as
/// `evilexample`.
fn with_open_prefix(ast: &Ast) -> Option<String> {
    let Ast::Concat(concat) = ungrouped(ast) else { return None };
    let open = concat.asts.windows(2).position(|pair| is_any_run(&pair[0]) && is_letter(&pair[1]))?;
    let part = |asts: &[Ast]| asts.iter().map(sample).collect::<String>();
    let (before, after) = (part(&concat.asts[..open]), part(&concat.asts[open + 1..]));
    let scheme = if before.is_empty() { "https://" } else { "" };
    Some(format!("{scheme}{before}evil{after}"))
}

fn ungrouped(ast: &Ast) -> &Ast {
    match ast {
        Ast::Group(group) => ungrouped(&group.ast),
        other => other,
    }
}

fn is_letter(ast: &Ast) -> bool {
    matches!(ast, Ast::Literal(literal) if literal.c.is_ascii_alphanumeric())
}

/// Whether it is an unbounded repetition of something that can be a letter or digit.
fn is_any_run(ast: &Ast) -> bool {
    let Ast::Repetition(repetition) = ast else { return false };
    let unbounded = match &repetition.op.kind {
        RepetitionKind::ZeroOrMore | RepetitionKind::OneOrMore => true,
        RepetitionKind::Range(range) => matches!(range, RepetitionRange::AtLeast(_)),
        RepetitionKind::ZeroOrOne => false,
    };
    unbounded
        && match &*repetition.ast {
            Ast::Dot(_) => true,
            class @ (Ast::ClassBracketed(_) | Ast::ClassPerl(_)) => class_member(class).is_ascii_alphanumeric(),
            _ => false,
        }
}

struct Sampler {
    /// Index, in writing order, of the dot that becomes a letter.
    wrong_dot: Option<usize>,
    dots: usize,
}

impl Sampler {
    fn write(&mut self, ast: &Ast, out: &mut String) {
        match ast {
            Ast::Empty(_) | Ast::Flags(_) | Ast::Assertion(_) => {}
            Ast::Literal(literal) => out.push(literal.c),
            Ast::Dot(_) => {
                out.push(if self.wrong_dot == Some(self.dots) { 'x' } else { '.' });
                self.dots += 1;
            }
            Ast::ClassUnicode(_) | Ast::ClassPerl(_) | Ast::ClassBracketed(_) => out.push(class_member(ast)),
            Ast::Repetition(repetition) => {
                let times = match &repetition.op.kind {
                    RepetitionKind::ZeroOrOne => 0,
                    RepetitionKind::ZeroOrMore | RepetitionKind::OneOrMore => 1,
                    RepetitionKind::Range(
                        RepetitionRange::Exactly(n) | RepetitionRange::AtLeast(n) | RepetitionRange::Bounded(n, _),
                    ) => (*n).min(64),
                };
                for _ in 0..times {
                    match &*repetition.ast {
                        Ast::Dot(_) => out.push('a'),
                        other => self.write(other, out),
                    }
                }
            }
            Ast::Group(group) => match &group.kind {
                GroupKind::CaptureIndex(_) | GroupKind::CaptureName { .. } | GroupKind::NonCapturing(_) => {
                    self.write(&group.ast, out);
                }
            },
            Ast::Alternation(alternation) => {
                if let Some(first) = alternation.asts.first() {
                    self.write(first, out);
                }
            }
            Ast::Concat(concat) => concat.asts.iter().for_each(|part| self.write(part, out)),
        }
    }
}

/// A character of a class: a letter if possible, else a digit, else the first character.
fn class_member(ast: &Ast) -> char {
    let hir = parse(&ast.to_string());
    let ranges: Vec<(char, char)> = match hir.as_ref().map(Hir::kind) {
        Ok(HirKind::Class(regex_syntax::hir::Class::Bytes(class))) => {
            class.ranges().iter().map(|r| (char::from(r.start()), char::from(r.end()))).collect()
        }
        Ok(HirKind::Class(regex_syntax::hir::Class::Unicode(class))) => {
            class.ranges().iter().map(|r| (r.start(), r.end())).collect()
        }
        Ok(HirKind::Literal(literal)) => return literal.0.first().map_or('a', |b| char::from(*b)),
        _ => return 'a',
    };
    let has = |c: char| ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
    let preferred = ('a'..='z').chain('0'..='9').find(|c| has(*c));
    preferred.or(ranges.first().map(|(low, _)| *low)).unwrap_or('a')
}
