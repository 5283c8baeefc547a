//! Prints a [`Report`]: as text, and as JSON.

use std::fmt::Write as _;

use http::HeaderMap;
use serde_json::{Value, json};

use super::WireReply;
use super::report::{ProbeVerdict, Report, ReportStep};
use crate::explain::fetch::{Credentials, Stage};
use crate::explain::{Head, Initiator, Outcome, PagePrinter, PageSummary, RED, lossy, preflight_json};
use crate::terminal::{Paint, Width, printable};

/// Returns a report as text.
pub(crate) fn text(report: &Report, paint: Paint, width: Width) -> String {
    let mut out = PagePrinter::new(paint, width);
    let summary = summary(report);
    match &report.verdict {
        ProbeVerdict::Trouble { stage, url, trouble } => {
            let stage = match stage {
                Stage::Preflight => "preflight",
                Stage::Request => "request",
            };
            let word = paint.with(RED, "trouble");
            let line = format!("no response to the {stage} of {url} ({})", trouble.kind.code());
            let _ = writeln!(out.text, "{word}: {}", printable(&line));
            out.item("error", &trouble.to_string());
        }
        _ => out.verdict(&summary),
    }
    if let Some(console) = &report.console {
        out.item("browser", console);
    }
    if let Some(advice) = &report.advice {
        out.item("cause", &advice.cause);
        out.item("remedy", &advice.remedy);
    }
    if let ProbeVerdict::RedirectAway(next) = &report.verdict {
        out.next(next, "the server redirects to a server that the command line does not name");
        let server = next.url.split("://").nth(1).and_then(|rest| rest.split(['/', '?']).next()).unwrap_or_default();
        out.item("follow", &format!("`--follow {server}` sends requests to that server too"));
    }
    for note in &report.notes {
        out.item("note", note);
    }
    out.preflight(&summary);
    let peers: Vec<String> = report.steps.iter().map(|step| step.reply.peer.to_string()).collect();
    if let Some(peer) = peers.last() {
        out.item("server", peer);
    }
    for (i, step) in report.steps.iter().enumerate() {
        let title = format!("{}. {}", i + 1, stage(step.stage));
        out.exchange(&title, step.reply.version, &step.request, &step.fields, &relevant(&step.reply));
    }
    out.page(&summary);
    out.text
}

/// Returns a report as one JSON object. The keys that `explain` has too have the same names.
pub(crate) fn json(report: &Report) -> String {
    let next = match &report.verdict {
        ProbeVerdict::RedirectAway(next) => json!({
            "method": next.method, "url": next.url, "origin": next.origin, "preflight": next.has_preflight,
        }),
        _ => Value::Null,
    };
    let advice = report.advice.as_ref();
    let object = json!({
        "verdict": match report.outcome() {
            Some(Outcome::Allowed) => "allowed",
            Some(Outcome::Refused) => "refused",
            Some(Outcome::Undecided) => "undecided",
            None => "trouble",
        },
        "reason": report.code(),
        "origin": report.origin,
        "method": report.method,
        "url": report.url,
        "credentials": report.credentials == Credentials::Include,
        "console": report.console,
        "cause": advice.map(|advice| &advice.cause),
        "remedy": advice.map(|advice| &advice.remedy),
        "error": match &report.verdict {
            ProbeVerdict::Trouble { trouble, .. } => Some(trouble.to_string()),
            _ => None,
        },
        "preflight": preflight_json(&report.preflight, report.preflight_max_age),
        "next": next,
        "exchanges": report.steps.iter().map(exchange).collect::<Vec<_>>(),
        "readable": report.readable,
        "unreadable": report.unreadable,
        "notes": report.notes,
    });
    format!("{object:#}\n")
}

fn summary(report: &Report) -> PageSummary<'_> {
    PageSummary {
        origin: &report.origin,
        method: &report.method,
        url: &report.url,
        credentials: report.credentials,
        initiator: Initiator::Fetch,
        earlier: &[],
        outcome: report.outcome().unwrap_or(Outcome::Undecided),
        code: report.code(),
        preflight: &report.preflight,
        preflight_max_age: report.preflight_max_age,
        next: match &report.verdict {
            ProbeVerdict::RedirectAway(next) => Some(next),
            _ => None,
        },
        readable: &report.readable,
        unreadable: &report.unreadable,
    }
}

fn exchange(step: &ReportStep) -> Value {
    let head = relevant(&step.reply);
    json!({
        "stage": stage(step.stage),
        "peer": step.reply.peer.to_string(),
        "version": step.reply.version,
        "request": step.request,
        "request_headers": step.fields.iter().map(|(name, value)| json!([name, value])).collect::<Vec<_>>(),
        "status": head.status.as_u16(),
        "response_headers": head.fields().map(|(name, value)| json!([name, lossy(value)])).collect::<Vec<_>>(),
    })
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Preflight => "preflight",
        Stage::Request => "request",
    }
}

/// Returns the response with only the CORS fields, and the fields that identify the server.
pub(super) fn relevant(reply: &WireReply) -> Head {
    let is_relevant = |name: &str| {
        name.starts_with("access-control-")
            || matches!(
                name,
                "vary"
                    | "location"
                    | "allow"
                    | "server"
                    | "via"
                    | "cache-control"
                    | "age"
                    | "content-type"
                    | "timing-allow-origin"
                    | "cross-origin-resource-policy"
            )
    };
    let fields = reply.head.headers.iter().filter(|(name, _)| is_relevant(name.as_str()));
    Head { status: reply.head.status, headers: fields.map(|(n, v)| (n.clone(), v.clone())).collect::<HeaderMap>() }
}
