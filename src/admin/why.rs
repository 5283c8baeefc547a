//! Why a request was refused: what happened, and then what the configuration in force makes of it and how to change that.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::json::{ago, refusal, scheme_word};
use super::{Process, time};
use crate::explain::fetch::Credentials;
use crate::explain::{self, Configuration, Explanation, Question, Recorded};
use crate::record::RefusedRequest;
use crate::terminal::{Paint, Width, printable};

/// For people.
pub(super) fn text(process: &Process, refused: &RefusedRequest, now: SystemTime) -> String {
    let RefusedRequest { at, id, generation, client, scheme, authority, path, method, code, route, status, .. } =
        refused;
    let route = route.as_ref().map(|route| format!(", route {route}")).unwrap_or_default();
    let status = status.map_or("no status".to_owned(), |status| format!("status {status}"));
    let url = format!("{}://{authority}{path}", scheme_word(*scheme));
    let current = process.live.current().number;
    let by = match current == *generation {
        true => format!("configuration generation {generation}, which is in force"),
        false => {
            format!("configuration generation {generation}; what follows is about {current}, which is in force now")
        }
    };
    let happened = [
        format!("request {id}, {} ago ({}): {code}", ago(*at, now), time(*at)),
        format!("  {method} {url} from {client}: {status}{route}"),
        format!("  {by}"),
    ];
    let happened = happened.map(|line| printable(&line)).join("\n");
    format!(
        "{happened}\n\n{}",
        explained(process, refused, |explanation| explain::text(explanation, Paint::Plain, Width::DEFAULT))
    )
}

/// For programs.
pub(super) fn json(process: &Process, refused: &RefusedRequest) -> Value {
    let explanation = explained(process, refused, explain::json);
    json!({
        "request": refusal(refused),
        "generation_in_force": process.live.current().number,
        "explanation": serde_json::from_str::<Value>(&explanation).unwrap_or_default(),
    })
}

/// The explanation of the request by the configuration in force.
fn explained<T>(process: &Process, refused: &RefusedRequest, write: impl FnOnce(&Explanation) -> T) -> T {
    let question = Question::recorded(&Recorded {
        kind: refused.kind,
        scheme: refused.scheme,
        authority: &refused.authority,
        path: &refused.path,
        method: &refused.method,
        origin: refused.origin.as_deref(),
        requested_method: refused.requested_method.as_deref(),
        requested_headers: refused.requested_headers.as_deref(),
        credentials: if refused.credentials { Credentials::Include } else { Credentials::Omit },
    });
    let generation = process.live.current();
    let written = &generation.written;
    let read = |text: &str| process.live.source().load(text);
    let configuration = Configuration::new(&written.name, &written.text, &generation.snapshot, &read);
    write(&explain::explain(&question, &configuration))
}
