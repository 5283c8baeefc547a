//! Converts lists of client addresses of other engines to `clients`.

use super::finding::{Finding, Kind, Place};
use super::model::Behaviors;
use crate::domain::Networks;

/// Adds the entries of a list to the clients that may send requests, or to the clients that may not.
///
/// Without an entry of a deny list, or without all entries of an allow list, a route would be open to clients that the
/// source refuses. Such a route denies every client instead. It is not left out, because a wider route would then take
/// its requests.
pub(super) fn add(
    behaviors: &mut Behaviors,
    access: Access,
    entries: Vec<(usize, String)>,
    file: usize,
) -> Vec<Finding> {
    let Some(first) = entries.first().map(|(line, _)| Place { file, line: *line }) else { return Vec::new() };
    let is_valid = |(_, text): &(usize, String)| Networks::parse_entry(text).is_some();
    let (valid, invalid): (Vec<_>, Vec<_>) = entries.into_iter().partition(is_valid);
    let is_kept = match access {
        Access::Allow => !valid.is_empty(),
        Access::Deny => invalid.is_empty(),
    };
    if let (false, Some((line, entry))) = (is_kept, invalid.first()) {
        let why = format!("`{entry}` is not an address or a network");
        return vec![deny_all(behaviors, Place { file, line: *line }, why)];
    }
    let list = match access {
        Access::Allow => &mut behaviors.allow,
        Access::Deny => &mut behaviors.deny,
    };
    list.extend(valid.into_iter().map(|(_, text)| text));
    let not_imported = |(line, entry)| {
        let why = "it is not an address or a network".to_owned();
        Finding::new(Place { file, line }, Kind::EntryNotImported { entry, why })
    };
    [Finding::new(first, Kind::ClientAddresses)].into_iter().chain(invalid.into_iter().map(not_imported)).collect()
}

/// Denies every client, because the list of the source cannot be kept. `why` is a phrase without a full stop.
pub(super) fn deny_all(behaviors: &mut Behaviors, at: Place, why: String) -> Finding {
    behaviors.allow.clear();
    behaviors.deny = EVERY_CLIENT.map(str::to_owned).to_vec();
    Finding::new(at, Kind::ClientsDenied { why })
}

/// All IPv4 and all IPv6 addresses.
pub(super) const EVERY_CLIENT: [&str; 2] = ["0.0.0.0/0", "::/0"];

#[derive(Debug, Clone, Copy)]
pub(super) enum Access {
    Allow,
    Deny,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list, the lists of corsgate, and the codes of the findings.
    #[test]
    fn a_list_that_cannot_be_kept_denies_every_client() {
        use Access::{Allow, Deny};
        for (access, entries, allow, deny, codes) in [
            (Allow, &[][..], &[][..], &[][..], &[][..]),
            (Allow, &["10.0.0.0/8", "::1"], &["10.0.0.0/8", "::1"], &[], &["client-addresses"]),
            (Deny, &["10.0.0.1"], &[], &["10.0.0.1"], &["client-addresses"]),
            // Fewer clients are allowed than in the source.
            (Allow, &["office", "10.0.0.1"], &["10.0.0.1"], &[], &["client-addresses", "entry-not-imported"]),
            (Allow, &["office"], &[], &EVERY_CLIENT, &["clients-denied"]),
            (Allow, &["unix:", "10.0.0.0/33"], &[], &EVERY_CLIENT, &["clients-denied"]),
            // `office` would be allowed.
            (Deny, &["office"], &[], &EVERY_CLIENT, &["clients-denied"]),
            (Deny, &["10.0.0.1", "office"], &[], &EVERY_CLIENT, &["clients-denied"]),
        ] {
            let mut behaviors = Behaviors::default();
            let lines = entries.iter().map(|entry| (1, (*entry).to_owned())).collect();
            let findings = add(&mut behaviors, access, lines, 0);
            let found: Vec<&str> =
                findings.iter().map(|one| one.kind.describe(crate::import::SourceFormat::Nginx).code).collect();
            assert_eq!(
                (&*behaviors.allow, &*behaviors.deny, &*found),
                (
                    &*allow.iter().map(|&text| text.to_owned()).collect::<Vec<_>>(),
                    &*deny.iter().map(|&text| text.to_owned()).collect::<Vec<_>>(),
                    codes
                ),
                "{access:?} {entries:?}"
            );
        }
    }
}
