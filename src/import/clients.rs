//! Converts lists of client addresses of other engines to `clients`.

use super::finding::{Finding, Kind, Place};
use super::model::Behaviors;
use crate::domain::Networks;

/// Adds the entries of a list to the clients that may send requests, or to the clients that may not.
///
/// If no entry is an address, the list is kept unchanged. corsgate does not accept such a list, so the route is left
/// out. Without the list, the route would be open to every client.
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
