//! Lists of client addresses of other engines as `clients`.

use super::finding::{Finding, Kind, Place};
use super::model::Behaviors;
use crate::domain::Networks;

/// Adds the entries of a list to those that may send requests, or to those that may not.
///
/// A list of which no entry is an address stays as it is: corsgate does not accept it, and the route is left out. Without
/// the list the route would be open.
pub(super) fn add(
    behaviors: &mut Behaviors,
    access: Access,
    entries: Vec<(usize, String)>,
    file: usize,
) -> Vec<Finding> {
    let Some(first) = entries.first().map(|(line, _)| Place { file, line: *line }) else { return Vec::new() };
    let mut findings = vec![Finding::new(first, Kind::ClientAddresses)];
    let is_valid = |text: &str| Networks::parse_entry(text).is_some();
    let keeps_all = !entries.iter().any(|(_, text)| is_valid(text));
    let list = match access {
        Access::Allow => &mut behaviors.allow,
        Access::Deny => &mut behaviors.deny,
    };
    for (line, entry) in entries {
        if keeps_all || is_valid(&entry) {
            list.push(entry);
        } else {
            let why = "it is not an address or a network".to_owned();
            findings.push(Finding::new(Place { file, line }, Kind::EntryNotImported { entry, why }));
        }
    }
    findings
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Access {
    Allow,
    Deny,
}
