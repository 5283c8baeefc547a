//! Requests for a path or a host that is not imported. If another route takes them, the report shows one of them.

use regex::Regex;
use regex_syntax::hir::{Class, Hir, HirKind};

use super::finding::{Finding, Kind};
use super::model::Model;
use super::witness::{Answer, Witness};
use crate::snapshot::Snapshot;

/// Name of the route of a witness that no route of the import may take.
const NO_ROUTE: &str = "";

/// Returns the request for a path that is not imported. An empty host stands for one of the service.
pub(super) fn witness(host: &str, path: &str) -> Witness {
    let witness = Witness::route(path, Answer::Routed).to(host, path);
    Witness { route: Some(NO_ROUTE.to_owned()), ..witness }
}

/// Whether a request is for a path, host or rule that is not imported.
pub(super) fn shows(witness: &Witness) -> bool {
    witness.route.as_deref() == Some(NO_ROUTE)
}

/// Changes the findings about paths, hosts and rules that are not imported, if another route takes their requests.
/// Returns whether any was changed.
pub(super) fn seen(model: &mut Model, snapshot: &Snapshot) -> bool {
    let mut has_changed = false;
    let mut look = |finding: &mut Finding| {
        let (what, why) = match &finding.kind {
            Kind::PathNotImported { path, why } => (format!("the path `{path}`"), why.clone()),
            Kind::HostNotImported { host, why } => (format!("the host `{host}`"), why.clone()),
            Kind::RuleNotImported { rule, why } => (format!("the rule `{rule}`"), why.clone()),
            _ => return,
        };
        let Some(witness) = finding.witness.take() else { return };
        has_changed = true;
        if witness.answer(snapshot) == Some(Answer::OtherRoute) {
            finding.kind = Kind::Rerouted { what, why };
            finding.witness = Some(witness);
        }
    };
    model.findings.iter_mut().for_each(&mut look);
    for service in &mut model.services {
        service.findings.iter_mut().for_each(&mut look);
        service.routes.iter_mut().flat_map(|route| &mut route.findings).for_each(&mut look);
    }
    has_changed
}

/// Returns a path that begins with a match of an expression. Returns `None` if no short and usual path is known.
pub(super) fn sample_path(expression: &str) -> Option<String> {
    let begins = Regex::new(&format!("^(?:{expression})")).ok()?;
    let text = sample(&regex_syntax::parse(expression).ok()?)?;
    let with_slash = [text.clone(), format!("/{text}"), format!("/a{text}")];
    with_slash.into_iter().find(|path| path.starts_with('/') && begins.is_match(path))
}

/// Returns a host that an expression matches somewhere.
pub(super) fn sample_host(expression: &str) -> Option<String> {
    let found = Regex::new(expression).ok()?;
    let text = sample(&regex_syntax::parse(expression).ok()?)?.to_ascii_lowercase();
    let hosts = [text.clone(), format!("a{text}"), format!("{text}.example")];
    hosts.into_iter().find(|host| !host.is_empty() && !host.starts_with('.') && found.is_match(host))
}

/// Returns a text that an expression matches, of letters and digits where there is a choice.
fn sample(hir: &Hir) -> Option<String> {
    /// Limit of repetitions.
    const MOST: u32 = 16;
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Some(String::new()),
        HirKind::Literal(literal) => String::from_utf8(literal.0.to_vec()).ok(),
        HirKind::Class(Class::Unicode(class)) => {
            let usual = ('a'..='z').chain('0'..='9').chain("-_./~%@:".chars());
            let has = |c: &char| class.iter().any(|range| (range.start()..=range.end()).contains(c));
            usual.into_iter().find(has).map(String::from)
        }
        HirKind::Class(Class::Bytes(_)) => None,
        HirKind::Repetition(repetition) if repetition.min <= MOST => {
            Some(sample(&repetition.sub)?.repeat(usize::try_from(repetition.min).ok()?))
        }
        HirKind::Repetition(_) => None,
        HirKind::Capture(capture) => sample(&capture.sub),
        HirKind::Concat(parts) => parts.iter().map(sample).collect(),
        HirKind::Alternation(parts) => parts.iter().find_map(sample),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_matches_its_expression() {
        for (expression, path) in [
            (r".*\.php$", Some("/.php")),
            (r"/files/.*\.png$", Some("/files/.png")),
            ("/v[12]/x", Some("/v1/x")),
            ("/a|/b", Some("/a")),
            (r"/\d+$", Some("/0")),
            ("(?i)/x", Some("/x")),
            (r"/(?!x)", None),
            ("/x{100}", None),
            ("(", None),
        ] {
            assert_eq!(sample_path(expression).as_deref(), path, "{expression}");
        }
        for (expression, host) in [
            (r"^(www\.)?(.+)$", Some("a")),
            (r"^(?<sub>.+)\.shop\.example$", Some("a.shop.example")),
            (r"\.shop\.example$", Some("a.shop.example")),
            ("^(?=x)", None),
        ] {
            assert_eq!(sample_host(expression).as_deref(), host, "{expression}");
        }
    }
}
