//! `/refusals/REQUEST_ID`: shows a request that was refused, or that a report-only policy would refuse, and explains it
//! with the active configuration.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::json::{ago, refusal};
use super::{Process, time};
use crate::decide::RefusalCode;
use crate::explain::fetch::Credentials;
use crate::explain::{self, Configuration, Explanation, Question, RecordedRequest};
use crate::record::RefusedRequest;
use crate::terminal::{Paint, Width, printable};

const CLIENT_DENIED: &str = RefusalCode::ClientDenied.code();
/// The record of a request does not name the listener, and does not tell whether the client had an address.
const HINT_CLIENT_DENIED: &str = "\n  refused by `clients` of the listener that received it; the explanation below is without \
                                  the listener; no list contains the clients of a Unix-domain socket";

/// Returns the response as text. `others` is the number of other refused requests with the same id.
pub(super) fn text(process: &Process, refused: &RefusedRequest, others: usize, now: SystemTime) -> String {
    let RefusedRequest { at, id, generation, client, scheme, authority, path, method, code, route, status, .. } =
        refused;
    let route = route.as_ref().map(|route| format!(", route {route}")).unwrap_or_default();
    let status = status.map_or("no status".to_owned(), |status| format!("status {status}"));
    let url = format!("{}://{authority}{path}", scheme.as_str());
    let current = process.live.current().number;
    let decided_by = match current == *generation {
        true => format!("configuration generation {generation}, which is active"),
        false => format!(
            "configuration generation {generation}; the explanation is for generation {current}, which is active now"
        ),
    };
    let would = if refused.report_only { "not refused, but the report-only policy would refuse it: " } else { "" };
    let others = match others {
        0 => String::new(),
        others => {
            format!("\n  refused requests with the same id, which a client chose: {others} more; this is the newest")
        }
    };
    let record = [
        format!("request {id}, {} ago ({}): {would}{code}", ago(*at, now), time(*at)),
        format!("  {method} {url} from {client}: {status}{route}"),
        format!("  {decided_by}"),
    ];
    let record = record.map(|line| printable(&line)).join("\n");
    let (explanation, reason) = explained(process, refused, |explanation| {
        (explain::text(explanation, Paint::Plain, Width::DEFAULT), explanation.reason)
    });
    let hint = match current == *generation && *code == CLIENT_DENIED && reason != CLIENT_DENIED {
        true => HINT_CLIENT_DENIED,
        false => "",
    };
    format!("{record}{others}{hint}\n\n{explanation}")
}

/// Returns the response as JSON.
pub(super) fn json(process: &Process, refused: &RefusedRequest, others: usize) -> Value {
    let explanation = explained(process, refused, explain::json);
    json!({
        "request": refusal(refused),
        "others_with_this_id": others,
        "generation_in_force": process.live.current().number,
        "explanation": serde_json::from_str::<Value>(&explanation).unwrap_or_default(),
    })
}

/// Explains the request with the active configuration.
fn explained<T>(process: &Process, refused: &RefusedRequest, print: impl FnOnce(&Explanation) -> T) -> T {
    let question = Question::recorded(&RecordedRequest {
        kind: refused.kind,
        client: refused.client,
        scheme: refused.scheme,
        authority: &refused.authority,
        path: &refused.path,
        method: &refused.method,
        origin: refused.origin.as_deref(),
        requested_method: refused.requested_method.as_deref(),
        requested_headers: refused.requested_headers.as_deref(),
        credentials: if refused.credentials { Credentials::Include } else { Credentials::Omit },
        fetch_mode: refused.fetch_mode.as_deref(),
        fetch_site: refused.fetch_site.as_deref(),
    });
    let generation = process.live.current();
    let written = &generation.written;
    let load = |text: &str| process.live.source().load_checked(text);
    let configuration = Configuration::new(&written.name, &written.text, &generation.snapshot, &load);
    print(&explain::explain(&question, &configuration))
}
