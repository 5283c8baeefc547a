//! Prints an [`Audit`]: as text, and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Audit, Finding, FindingSeverity, Sample};
use crate::explain::{GREEN, PagePrinter, RED, YELLOW, lossy};
use crate::probe::render::relevant;
use crate::terminal::{Paint, Width, printable};

/// Returns an audit as text: one line for each finding, then the evidence of each finding.
pub(crate) fn text(audit: &Audit, paint: Paint, width: Width) -> String {
    let mut out = PagePrinter::new(paint, width);
    let colour = match audit.worst() {
        _ if audit.trouble.is_some() => RED,
        Some(FindingSeverity::High | FindingSeverity::Medium) => RED,
        Some(FindingSeverity::Low) => YELLOW,
        Some(FindingSeverity::Info) | None => GREEN,
    };
    let word = match (&audit.trouble, audit.findings.len()) {
        (Some(_), _) => "trouble".to_owned(),
        (None, 0) => "clean".to_owned(),
        (None, 1) => "1 finding".to_owned(),
        (None, count) => format!("{count} findings"),
    };
    let line = format!("{} ({} requests)", audit.url, audit.requests);
    let _ = writeln!(out.text, "{}: {}", paint.with(colour, &word), printable(&line));
    if let Some(trouble) = &audit.trouble {
        out.item("error", &trouble.to_string());
    }
    for finding in &audit.findings {
        let severity = format!("{:<8}", finding.severity.word());
        let severity = paint.with(painted(finding.severity), &severity);
        let _ = writeln!(out.text, "  {severity} {}", finding.kind.code());
    }
    for note in &audit.notes {
        out.item("note", note);
    }
    for finding in &audit.findings {
        let sample = &audit.samples[finding.sample];
        let title = format!("{} ({})", finding.kind.code(), finding.severity.word());
        out.exchange(&title, sample.reply.version, &request(audit, sample), &sample.fields, &relevant(&sample.reply));
        out.item("fault", &finding.fault);
        out.item("remedy", finding.kind.remedy());
    }
    out.text
}

/// Returns an audit as one JSON object.
pub(crate) fn json(audit: &Audit) -> String {
    let verdict = match (&audit.trouble, audit.findings.is_empty()) {
        (Some(_), _) => "trouble",
        (None, true) => "clean",
        (None, false) => "findings",
    };
    let object = json!({
        "verdict": verdict,
        "url": audit.url,
        "trusted": audit.trusted,
        "requests": audit.requests,
        "worst": audit.worst().map(FindingSeverity::word),
        "error": audit.trouble.as_ref().map(ToString::to_string),
        "findings": audit.findings.iter().map(|found| finding(audit, found)).collect::<Vec<_>>(),
        "notes": audit.notes,
    });
    format!("{object:#}\n")
}

fn finding(audit: &Audit, finding: &Finding) -> Value {
    let sample = &audit.samples[finding.sample];
    let head = relevant(&sample.reply);
    json!({
        "code": finding.kind.code(),
        "severity": finding.severity.word(),
        "fault": finding.fault,
        "remedy": finding.kind.remedy(),
        "request": request(audit, sample),
        "request_headers": sample.fields.iter().map(|(name, value)| json!([name, value])).collect::<Vec<_>>(),
        "status": head.status.as_u16(),
        "response_headers": head.fields().map(|(name, value)| json!([name, lossy(value)])).collect::<Vec<_>>(),
    })
}

/// Returns the method and the target of a request, in one text.
fn request(audit: &Audit, sample: &Sample) -> String {
    let rest = audit.url.split_once("://").map_or("", |(_, rest)| rest);
    let target = rest.find('/').map_or("/", |slash| &rest[slash..]);
    format!("{} {target}", sample.method)
}

fn painted(severity: FindingSeverity) -> &'static str {
    match severity {
        FindingSeverity::High | FindingSeverity::Medium => RED,
        FindingSeverity::Low => YELLOW,
        FindingSeverity::Info => GREEN,
    }
}
