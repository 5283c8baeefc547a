//! Texts with variables in values of the configuration, such as `https://{host}/`.

use crate::problem::{At, Known, ProblemKind, Problems};

/// One part of a text. `V` is the set of variables that the key allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TemplatePart<V> {
    Text(Box<str>),
    Variable(V),
}

/// Splits a text into its parts. A variable is a name of lower-case letters and `_` in braces. Other braces are text,
/// because a value may be JSON. If a variable is unknown, it adds a problem and returns None.
pub(super) fn parse<V: Copy>(
    text: &str,
    variables: &[(&str, V)],
    at: &At<'_>,
    problems: &mut Problems,
) -> Option<Vec<TemplatePart<V>>> {
    let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), text);
    while let Some((before, after)) = rest.split_once('{') {
        literal.push_str(before);
        let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let Some((name, after_variable)) = after.split_once('}').filter(|(name, _)| is_name(name)) else {
            literal.push('{');
            rest = after;
            continue;
        };
        let Some((_, variable)) = variables.iter().find(|(known, _)| *known == name) else {
            let known = Known::instead_of(name, variables.iter().map(|(known, _)| (*known).to_owned()).collect());
            problems.add(at, ProblemKind::UnknownVariable { name: name.to_owned(), known });
            return None;
        };
        if !literal.is_empty() {
            parts.push(TemplatePart::Text(std::mem::take(&mut literal).into()));
        }
        parts.push(TemplatePart::Variable(*variable));
        rest = after_variable;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(TemplatePart::Text(literal.into()));
    }
    Some(parts)
}
