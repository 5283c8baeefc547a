//! What is in force and what was refused, for programs.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::{Process, time};
use crate::config::{Document, Source};
use crate::cors::Scheme;
use crate::decide::RequestKind;
use crate::explain::effective::{self, EffectiveRoute};
use crate::live::Generation;
use crate::problem::Problems;
use crate::record::{CUT, RefusedRequest};

/// Refused requests that differ in nothing that matters.
pub(super) struct Group {
    /// The newest of them.
    pub(super) newest: RefusedRequest,
    /// How many are remembered.
    pub(super) count: usize,
}

/// The configuration in force: where it comes from, and what it means.
pub(super) fn config(process: &Process) -> Value {
    let generation = process.live.current();
    let written = &generation.written;
    let document = Document::parse(&written.text, &mut Problems::default()).unwrap_or_default();
    let mut effective = serde_json::to_value(document).unwrap_or_default();
    tidy(&mut effective);
    json!({
        "file": written.name,
        "sha256": written.hash,
        "read": time(written.read).to_string(),
        "generation": generation.number,
        "needs_restart": process.live.needs_restart(),
        "listening": process.live.started().listeners.iter().map(|(address, _)| address).collect::<Vec<_>>(),
        "config": effective,
        "routes": routes(&generation),
    })
}

/// What is in force for every route.
pub(super) fn routes(generation: &Generation) -> Value {
    effective::json(&effective_routes(generation, usize::MAX))
}

/// The first so many of them.
pub(super) fn effective_routes(generation: &Generation, most: usize) -> Vec<EffectiveRoute> {
    let written = &generation.written;
    let source = Source::new(&written.name, &written.text);
    let document = Document::parse(&written.text, &mut Problems::default()).unwrap_or_default();
    effective::routes(&document, &generation.snapshot, &source).take(most).collect()
}

/// All refused requests that are remembered, newest first.
pub(super) fn refusals(process: &Process) -> Value {
    process.recorder.refusals.newest().iter().map(refusal).collect()
}

pub(super) fn refusal(refused: &RefusedRequest) -> Value {
    let RefusedRequest {
        at,
        id,
        generation,
        client,
        scheme,
        authority,
        path,
        method,
        origin,
        requested_method,
        requested_headers,
        credentials,
        kind,
        code,
        route,
        status,
    } = refused;
    json!({
        "time": time(*at).to_string(),
        "request_id": id,
        "generation": generation,
        "client": client,
        "scheme": scheme_word(*scheme),
        "host": authority,
        "path": path,
        "method": method,
        "origin": origin,
        "requested_method": requested_method,
        "requested_headers": requested_headers,
        "credentials": credentials,
        "cors": kind.code(),
        "reason": code,
        "route": route,
        "status": status,
    })
}

/// Refused requests by origin, route and reason, those with the newest request first.
pub(super) fn groups(newest_first: Vec<RefusedRequest>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut places = HashMap::new();
    for refused in newest_first {
        // Without a route the host says most about where it was meant to go.
        let to = refused.route.clone().unwrap_or_else(|| refused.authority.clone());
        match places.entry((refused.origin.clone(), to, refused.code)) {
            std::collections::hash_map::Entry::Occupied(place) => {
                let place: &usize = place.get();
                groups[*place].count += 1;
            }
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(groups.len());
                groups.push(Group { newest: refused, count: 1 });
            }
        }
    }
    groups
}

/// What to type into a shell to have a refused request explained. None without an Origin, which there is nothing to
/// explain for, and for one that is not remembered whole: that would be another one.
pub(super) fn explain_command(refused: &RefusedRequest, file: &str) -> Option<String> {
    let origin = refused.origin.as_ref()?;
    // In one word with its name, so that none is taken for an option of its own.
    let mut command = format!("corsgate explain --config {} --origin={}", quoted(file), quoted(origin));
    let method = match refused.kind {
        RequestKind::Preflight => refused.requested_method.as_deref().unwrap_or("GET"),
        RequestKind::Actual => &refused.method,
    };
    if method != "GET" {
        let _ = write!(command, " --method={}", quoted(method));
    }
    let names = refused.requested_headers.iter().flat_map(|names| names.split(','));
    for name in names.map(str::trim).filter(|name| !name.is_empty()).take(20) {
        let _ = write!(command, " --header={}", quoted(name));
    }
    if refused.credentials {
        command += " --credentials";
    }
    let url = format!("{}://{}{}", scheme_word(refused.scheme), refused.authority, refused.path);
    let _ = write!(command, " {}", quoted(&url));
    Some(command).filter(|command| !command.contains(CUT))
}

/// How long ago, in a word.
pub(super) fn ago(at: SystemTime, now: SystemTime) -> String {
    let seconds = now.duration_since(at).unwrap_or_default().as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

pub(super) fn scheme_word(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    }
}

/// For a POSIX shell: as it is where nothing of it means anything, else in single quotes.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,@%+=".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// Without keys that are absent, and without what gives something away: where private keys are.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            entries.retain(|_, value| !value.is_null());
            for (name, value) in entries {
                match value {
                    Value::String(path) if name == "key" => *path = "[redacted]".into(),
                    _ => tidy(value),
                }
            }
        }
        Value::Array(entries) => entries.iter_mut().for_each(tidy),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_request_means_anything_to_a_shell() {
        for (text, safe) in [
            ("https://app.example:8443", "https://app.example:8443"),
            ("", "''"),
            ("$(reboot)", "'$(reboot)'"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("`x`", "'`x`'"),
            ("*", "'*'"),
            ("https://x/?a&b", "'https://x/?a&b'"),
            ("~", "'~'"),
        ] {
            assert_eq!(quoted(text), safe);
        }
    }
}
