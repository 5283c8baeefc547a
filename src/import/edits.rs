//! Converts edits of header fields and redirects of other engines.

use super::finding::{Finding, Kind, Place};
use super::model::Edits;
use super::value::Value;

/// An edit of a header field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edit<'v> {
    Remove,
    /// Replaces all fields of the name.
    Set(&'v str),
    /// Adds a field.
    Add(&'v str),
}

/// Adds an edit. If corsgate cannot express it, adds a finding instead.
pub(super) fn add(edits: &mut Edits, name: &str, edit: Edit<'_>, at: Place, findings: &mut Vec<Finding>) {
    let has = |list: &[(String, String)]| list.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    let why = match edit {
        Edit::Set(_) | Edit::Add(_) if has(&edits.set) || has(&edits.add) => Some("it has several values"),
        Edit::Remove if has(&edits.set) || has(&edits.add) => Some("it is removed after it is set"),
        // `{client_ip}` is a variable in corsgate.
        Edit::Set(value) | Edit::Add(value) if value.contains('{') => Some("its value has a brace"),
        _ => None,
    };
    if let Some(why) = why {
        let kind = Kind::HeaderNotImported { name: name.to_owned(), why: why.to_owned() };
        return findings.push(Finding::new(at, kind));
    }
    match edit {
        Edit::Remove if edits.remove.iter().any(|known| known.eq_ignore_ascii_case(name)) => {}
        Edit::Remove => edits.remove.push(name.to_owned()),
        Edit::Set(value) => edits.set.push((name.to_owned(), value.to_owned())),
        Edit::Add(value) => edits.add.push((name.to_owned(), value.to_owned())),
    }
}

/// Reads the form of Gateway API: `set` and `add` are lists of `name` and `value`, `remove` is a list of names.
pub(super) fn of_lists(edits: &mut Edits, settings: &Value, file: usize, findings: &mut Vec<Finding>) {
    for (line, name) in settings.get("remove").map(Value::texts).unwrap_or_default() {
        add(edits, &name, Edit::Remove, Place { file, line }, findings);
    }
    for (key, edit) in [("set", Edit::Set as fn(_) -> _), ("add", Edit::Add)] {
        for one in settings.list(key) {
            let value = one.text_of("value").unwrap_or_default();
            add(edits, one.text_of("name").unwrap_or_default(), edit(value), Place { file, line: one.line }, findings);
        }
    }
}

/// Reads the form of Istio and APISIX: `set` and `add` are maps, `remove` is a list of names.
pub(super) fn of_maps(edits: &mut Edits, settings: &Value, file: usize, findings: &mut Vec<Finding>) {
    for (line, name) in settings.get("remove").map(Value::texts).unwrap_or_default() {
        add(edits, &name, Edit::Remove, Place { file, line }, findings);
    }
    for (key, edit) in [("set", Edit::Set as fn(_) -> _), ("add", Edit::Add)] {
        for (name, value) in settings.get(key).map(Value::map).unwrap_or_default() {
            let at = Place { file, line: value.line };
            add(edits, name, edit(value.text().unwrap_or_default()), at, findings);
        }
    }
}

/// The target of a redirect. A part that is `None` is the same as in the request.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Target<'v> {
    pub(super) scheme: Option<&'v str>,
    pub(super) host: Option<&'v str>,
    pub(super) port: Option<&'v str>,
    pub(super) path: Option<&'v str>,
}

impl Target<'_> {
    /// Returns the value of `redirect.to`. Err: the reason why corsgate cannot express the target.
    pub(super) fn text(&self) -> Result<String, &'static str> {
        let Target { scheme, host, port, path } = *self;
        if [scheme, host, port, path].into_iter().flatten().any(|part| part.contains(['{', '%', '$', ' '])) {
            return Err("a redirect with a variable");
        }
        let path = path.unwrap_or("{uri}");
        match (scheme, host, port) {
            (Some(scheme @ ("http" | "https")), host, port) => {
                let default = if scheme == "https" { "443" } else { "80" };
                let port = port.filter(|port| *port != default).map(|port| format!(":{port}")).unwrap_or_default();
                Ok(format!("{scheme}://{}{port}{path}", host.unwrap_or("{host}")))
            }
            (None, None, None) if path.starts_with('/') => Ok(path.to_owned()),
            (None, None, None) => Err("a redirect to the same URL"),
            _ => Err("a redirect to another host with the scheme of the request"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_imported_if_it_is_a_url_or_a_path() {
        let target = |scheme, host, port, path| Target { scheme, host, port, path }.text();
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(target(Some("https"), None, None, None), ok("https://{host}{uri}"));
        assert_eq!(target(Some("https"), Some("b.example"), Some("8443"), None), ok("https://b.example:8443{uri}"));
        assert_eq!(target(Some("http"), Some("b.example"), Some("80"), Some("/x")), ok("http://b.example/x"));
        assert_eq!(target(None, None, None, Some("/x")), ok("/x"));
        assert!(target(None, None, None, None).is_err());
        assert!(target(None, Some("b.example"), None, None).is_err());
        assert!(target(Some("https"), Some("{uri}"), None, None).is_err());
        assert!(target(Some("ftp"), None, None, None).is_err());
    }

    #[test]
    fn an_edit_that_corsgate_cannot_express_is_a_finding() {
        let (mut edits, mut findings) = (Edits::default(), Vec::new());
        for (name, edit) in [
            ("X-A", Edit::Remove),
            ("x-a", Edit::Remove),
            ("X-A", Edit::Set("1")),
            ("x-a", Edit::Add("2")),
            ("X-B", Edit::Add("{host}")),
            ("X-C", Edit::Add("3")),
        ] {
            add(&mut edits, name, edit, Place::default(), &mut findings);
        }
        let pair = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        let expected = Edits { remove: vec!["X-A".to_owned()], set: pair("X-A", "1"), add: pair("X-C", "3") };
        assert_eq!((edits, findings.len()), (expected, 2));
    }
}
