//! JSON of `/config`, `/routes` and `/refusals`, and helpers that the status page shares.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::{Process, time};
use crate::config::{Document, Source};
use crate::cors::ReportedChange;
use crate::decide::RequestKind;
use crate::domain::{OwnOrigin, Scheme};
use crate::explain::Initiator;
use crate::explain::effective::{self, EffectiveRoute};
use crate::live::Generation;
use crate::problem::Problems;
use crate::record::{CUT, RefusedRequest};
use crate::terminal::shell_word;

/// Refused requests with the same origin, route and reason.
pub(super) struct Group {
    /// The newest request of the group.
    pub(super) newest: RefusedRequest,
    /// Number of stored requests in the group.
    pub(super) count: usize,
}

/// Returns the active configuration: source, settings and routes.
pub(super) fn config(process: &Process) -> Value {
    let generation = process.live.current();
    let written = &generation.written;
    let text = generation.snapshot.redacted(&written.text);
    let document = Document::parse(text, &mut Problems::default()).unwrap_or_default();
    let mut effective = serde_json::to_value(document).unwrap_or_default();
    tidy(&mut effective);
    let mut shown = json!({
        "file": written.name,
        "sha256": written.hash,
        "read": time(written.read).to_string(),
        "generation": generation.number,
        "needs_restart": process.live.needs_restart(),
        "listening": process.live.started().listeners.iter().map(|listener| listener.address.to_string()).collect::<Vec<_>>(),
        "config": effective,
        "routes": routes(&generation),
    });
    if let Some(status) = super::etcd::status(process) {
        shown["etcd"] = super::etcd::json(&status);
    }
    shown
}

/// Returns the effective settings of all routes.
pub(super) fn routes(generation: &Generation) -> Value {
    let mut all = effective::json(&effective_routes(generation, usize::MAX));
    for (position, value) in all.as_array_mut().into_iter().flatten().enumerate() {
        if let Some(reports) = reports(generation, position) {
            let counts = reports.map(|(change, count)| (change.code().to_owned(), count.into()));
            value["report_only"] = Value::Object(counts.into_iter().collect());
        }
    }
    all
}

/// Returns how many requests the report-only policy of a route would refuse and allow. Returns None if the route has no
/// such policy. Routes and metrics both have the order of the snapshot.
pub(super) fn reports(generation: &Generation, position: usize) -> Option<[(ReportedChange, u64); 2]> {
    generation.snapshot.routes().get(position)?.report_only.as_ref()?;
    let metrics = generation.route_metrics().of(position);
    Some(ReportedChange::ALL.map(|change| (change, metrics.map_or(0, |metrics| metrics.reported(change)))))
}

/// Returns the effective settings of the first `most` routes.
pub(super) fn effective_routes(generation: &Generation, most: usize) -> Vec<EffectiveRoute> {
    let written = &generation.written;
    let source = Source::new(&written.name, &written.text);
    let text = generation.snapshot.redacted(&written.text);
    let document = Document::parse(text, &mut Problems::default()).unwrap_or_default();
    effective::routes(&document, &generation.snapshot, &source).take(most).collect()
}

/// Returns all stored refused requests, newest first.
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
        fetch_mode,
        fetch_site,
        kind,
        report_only,
        code,
        route,
        status,
    } = refused;
    json!({
        "time": time(*at).to_string(),
        "request_id": id,
        "generation": generation,
        "client": client,
        "scheme": scheme.as_str(),
        "host": authority,
        "path": path,
        "method": method,
        "origin": origin,
        "requested_method": requested_method,
        "requested_headers": requested_headers,
        "credentials": credentials,
        "fetch_mode": fetch_mode,
        "fetch_site": fetch_site,
        "cors": kind.code(),
        "report_only": report_only,
        "reason": code,
        "route": route,
        "status": status,
    })
}

/// Groups refused requests by origin, route and reason. The group with the newest request is first.
pub(super) fn groups(newest_first: Vec<RefusedRequest>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut places = HashMap::new();
    for refused in newest_first {
        // A request without a route is grouped by its host.
        let to = refused.route.clone().unwrap_or_else(|| refused.authority.clone());
        match places.entry((refused.origin.clone(), to, refused.code, refused.report_only)) {
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

/// Returns a shell command that explains a refused request. Returns None if the request has no Origin, or if one of its
/// values was cut. With a cut value, the command would explain another request.
pub(super) fn explain_command(refused: &RefusedRequest, file: &str) -> Option<String> {
    let origin = refused.origin.as_ref()?;
    // `--origin=VALUE` is one word, so the value cannot be read as an option.
    let mut command = format!("corsgate explain --config {} --origin={}", shell_word(file), shell_word(origin));
    let method = match refused.kind {
        RequestKind::Preflight => refused.requested_method.as_deref().unwrap_or("GET"),
        RequestKind::Actual => &refused.method,
    };
    if method != "GET" {
        let _ = write!(command, " --method={}", shell_word(method));
    }
    let names = refused.requested_headers.iter().flat_map(|names| names.split(','));
    for name in names.map(str::trim).filter(|name| !name.is_empty()).take(20) {
        let _ = write!(command, " --header={}", shell_word(name));
    }
    if refused.credentials {
        command += " --credentials";
    }
    let initiator = Initiator::of_mode(refused.fetch_mode.as_deref());
    if initiator != Initiator::Fetch {
        let _ = write!(command, " --as={}", initiator.code());
    }
    // If another component ends TLS, the gateway gets plain http, but the URL of the page has https.
    let is_own_over_tls = OwnOrigin::of(Scheme::Https, &refused.authority).is(origin);
    let scheme = if is_own_over_tls { Scheme::Https } else { refused.scheme };
    let url = format!("{}://{}{}", scheme.as_str(), refused.authority, refused.path);
    let _ = write!(command, " {}", shell_word(&url));
    Some(command).filter(|command| !command.contains(CUT))
}

/// Formats an age in its largest useful unit.
pub(super) fn ago(at: SystemTime, now: SystemTime) -> String {
    let seconds = now.duration_since(at).unwrap_or_default().as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Removes keys without a value, and replaces the paths of private keys.
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
