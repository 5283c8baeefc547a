//! Prints an explanation: as text, and as JSON.

mod printer;

use std::fmt::Write as _;

use serde_json::{Value, json};

pub(crate) use self::printer::{GREEN, PagePrinter, PageSummary, RED, YELLOW, lossy};
use self::printer::{LABEL, shortened};
use super::{
    AnsweredBy, EditError, Explanation, FilePosition, Fix, Hunk, MatchedPolicy, MatchedRoute, Outcome, Preflight,
    RejectedFix, WireExchange,
};
use crate::config::Source;
use crate::explain::fetch::{Credentials, Stage};
use crate::problem::Problems;
use crate::report::{hunks_json, problems_json};
use crate::snapshot::Level;
use crate::terminal::{Paint, Width, printable};

/// Returns an explanation as text: the verdict, the cause, the exchanges, and the fix.
pub fn text(explanation: &Explanation, paint: Paint, width: Width) -> String {
    let mut out = Printer::new(&explanation.file, paint, width);
    let summary = explanation.summary();
    out.verdict(explanation);
    out.cause(explanation);
    for (i, exchange) in explanation.exchanges.iter().enumerate() {
        out.exchange(i + 1, exchange, explanation.earlier.is_empty());
    }
    out.page.page(&summary);
    match &explanation.fix {
        Some(fix) => out.fix(fix),
        None if explanation.outcome == Outcome::Refused => {
            out.page.text.push_str("\ncorsgate found no edit that allows this request.\n");
            explanation.rejected_fix.iter().for_each(|fix| out.rejected_fix(fix));
        }
        None => {}
    }
    out.page.text
}

/// Returns the edit that repairs an invalid text, as text. It is printed after the output of `check`.
pub(crate) fn repair_text(fix: &Fix, paint: Paint, width: Width) -> String {
    let mut out = Printer::new(&fix.file, paint, width);
    out.fix(fix);
    out.page.text
}

/// Returns one JSON object for an invalid text. It has the problems, as in `check`, and the edit that repairs the text.
pub(crate) fn repair_json(problems: &Problems, source: &Source<'_>, fix: Option<&Fix>) -> String {
    let object =
        json!({ "verdict": "unusable", "problems": problems_json(problems, source), "fix": fix.map(self::fix) });
    format!("{object:#}\n")
}

/// Returns an explanation as one JSON object.
pub fn json(explanation: &Explanation) -> String {
    format!("{:#}\n", value(explanation))
}

// --- text

struct Printer {
    page: PagePrinter,
    file: String,
}

impl Explanation {
    fn summary(&self) -> PageSummary<'_> {
        PageSummary {
            origin: &self.origin,
            method: &self.method,
            url: &self.url,
            credentials: self.credentials,
            initiator: self.initiator,
            earlier: &self.earlier,
            outcome: self.outcome,
            code: self.code(),
            preflight: &self.preflight,
            preflight_max_age: self.preflight_max_age,
            next: self.next.as_ref(),
            readable: &self.readable,
            unreadable: &self.unreadable,
        }
    }
}

impl Printer {
    fn new(file: &str, paint: Paint, width: Width) -> Self {
        Printer { page: PagePrinter::new(paint, width), file: printable(file) }
    }

    fn verdict(&mut self, explanation: &Explanation) {
        self.page.verdict(&explanation.summary());
        if let Some(console) = &explanation.console {
            self.page.item("browser", console);
        }
        if let Some(next) = &explanation.next {
            let by = match explanation.exchanges.last().map(|exchange| exchange.answered_by) {
                Some(AnsweredBy::Gateway) => "the route",
                Some(AnsweredBy::Upstream) | None => "the upstream",
            };
            self.page.next(next, &format!("{by} redirects to a server that this file does not know"));
        }
    }

    fn cause(&mut self, explanation: &Explanation) {
        if let Some(cause) = &explanation.cause {
            self.page.item("cause", &sentence(&cause.fault()));
            if let Some(place) = &explanation.cause_place {
                let FilePosition { line, column, key } = place;
                let _ = writeln!(
                    self.page.text,
                    "{:LABEL$}  {}:{line}:{column} {}",
                    "",
                    self.file,
                    printable(&key.to_string())
                );
            }
            if let Some(advice) = cause.advice() {
                self.page.item("advice", &advice);
            }
        }
        for note in &explanation.notes {
            self.page.item("note", note);
        }
        if let Some(route) = &explanation.route {
            self.page.item("route", &format!("{}, {}", route.name, self.at(&route.place)));
            self.page.item("policy", &policy(route, &self.file));
        }
        self.page.preflight(&explanation.summary());
    }

    fn exchange(&mut self, number: usize, exchange: &WireExchange, is_only_request: bool) {
        let of_request = exchange.of_request;
        let stage = match (exchange.stage, exchange.cached_from) {
            (Stage::Preflight, _) if is_only_request => "preflight".to_owned(),
            (Stage::Preflight, _) => format!("preflight of request {of_request}"),
            (Stage::Request, _) if is_only_request => "request".to_owned(),
            (Stage::Request, None) => format!("request {of_request}"),
            (Stage::Request, Some(from)) => {
                format!("request {of_request} (no preflight: cached answer of request {from})")
            }
        };
        let by = match exchange.answered_by {
            AnsweredBy::Gateway => "answered by corsgate".to_owned(),
            AnsweredBy::Upstream => "forwarded to the upstream; its response is assumed".to_owned(),
        };
        let title = format!("{number}. {stage}, {by}");
        self.page.exchange(&title, "HTTP/1.1", &exchange.request, &exchange.fields, &exchange.response);
    }

    fn fix(&mut self, fix: &Fix) {
        let title = self.page.width.wrap("", &format!("fix: {}", printable(&fix.steps.join("; "))));
        let _ = writeln!(self.page.text, "\n{}", self.page.paint.with(GREEN, &title));
        self.hunks(&fix.hunks);
        for widening in &fix.widens {
            let _ = writeln!(self.page.text, "{}", self.page.width.wrap("  ", &printable(&widening.to_string())));
        }
    }

    fn rejected_fix(&mut self, fix: &RejectedFix) {
        let steps = printable(&fix.steps.join("; "));
        let closest = self.page.width.wrap("", &format!("The closest edit: {steps}. But it makes the file invalid:"));
        let _ = writeln!(self.page.text, "{closest}");
        for EditError { at: FilePosition { line, column, key }, kind } in &fix.errors {
            let problem = format!("{key}: {}; {}", kind.fault(), kind.remedy());
            let _ = writeln!(self.page.text, "  {}:{line}:{column} {}", self.file, printable(&problem));
        }
    }

    fn hunks(&mut self, hunks: &[Hunk]) {
        let width = hunks.iter().map(|hunk| hunk.line + hunk.removed.len()).max().unwrap_or(0).to_string().len();
        for hunk in hunks {
            let _ = writeln!(self.page.text, "  {}:{}", self.file, hunk.line);
            for (i, line) in hunk.removed.iter().enumerate() {
                let line = format!("- {:>width$} | {}", hunk.line + i, shortened(line.trim_end_matches('\r')));
                let _ = writeln!(self.page.text, "  {}", self.page.paint.with(RED, &line));
            }
            for line in &hunk.added {
                let line = format!("+ {:>width$} | {}", "", shortened(line.trim_end_matches('\r')));
                let _ = writeln!(self.page.text, "  {}", self.page.paint.with(GREEN, &line));
            }
        }
    }

    fn at(&self, place: &FilePosition) -> String {
        at(&self.file, place)
    }
}

/// Returns the policy of a route, and its place in the file.
fn policy(route: &MatchedRoute, file: &str) -> String {
    match &route.policy {
        MatchedPolicy::Absent => "none at any level".to_owned(),
        MatchedPolicy::Off(level, place) => {
            format!("none: `cors: false` {}, {}", super::cause::of_level(*level), at(file, place))
        }
        MatchedPolicy::Inline(level, place) => {
            let policy = match level {
                Level::Top => "the policy at the top of the file",
                Level::Service => "the service's policy",
                Level::Route => "the route's policy",
            };
            format!("{policy}, {}", at(file, place))
        }
        MatchedPolicy::Named { name, level, used, written } => {
            let by = match level {
                Level::Top => "at the top of the file",
                Level::Service => "by the service",
                Level::Route => "by the route",
            };
            format!("`{name}`, {}, used {by}, {}", at(file, written), at(file, used))
        }
    }
}

fn at(file: &str, place: &FilePosition) -> String {
    format!("{file}:{}", place.line)
}

/// Returns the policy of the last request, and its place in the file. Returns None without a route.
pub(crate) fn policy_of(explanation: &Explanation) -> Option<String> {
    explanation.route.as_ref().map(|route| policy(route, &printable(&explanation.file)))
}

/// Turns a phrase into a sentence. A key at its beginning keeps its case.
fn sentence(text: &str) -> String {
    let is_key = text.split(' ').next().unwrap_or_default().contains('_');
    let mut characters = text.chars();
    match characters.next() {
        Some(first) if !is_key => first.to_ascii_uppercase().to_string() + characters.as_str() + ".",
        _ => format!("{text}."),
    }
}

// --- JSON

/// Returns an explanation as a JSON object, which [`json`] prints.
pub(crate) fn value(explanation: &Explanation) -> Value {
    let file = &explanation.file;
    let place = |place: &FilePosition| json!({ "file": file, "line": place.line, "column": place.column, "path": place.key.to_string() });
    let route = explanation.route.as_ref().map(|route| {
        let policy = match &route.policy {
            MatchedPolicy::Absent => Value::Null,
            MatchedPolicy::Off(_, at) => json!({ "off": true, "at": place(at) }),
            MatchedPolicy::Inline(_, at) => json!({ "at": place(at) }),
            MatchedPolicy::Named { name, used, written, .. } => {
                json!({ "name": name, "used": place(used), "at": place(written) })
            }
        };
        json!({ "name": route.name, "at": place(&route.place), "policy": policy })
    });
    let next = explanation.next.as_ref().map(|next| {
        json!({ "method": next.method, "url": next.url, "origin": next.origin, "preflight": next.has_preflight })
    });
    let cause = explanation.cause.as_ref().map(|cause| {
        json!({
            "code": cause.code(),
            "fault": cause.fault(),
            "advice": cause.advice(),
            "at": explanation.cause_place.as_ref().map(place),
        })
    });
    json!({
        "verdict": match explanation.outcome {
            Outcome::Allowed => "allowed",
            Outcome::Refused => "refused",
            Outcome::Undecided => "undecided",
        },
        "reason": explanation.reason,
        "origin": explanation.origin,
        "method": explanation.method,
        "url": explanation.url,
        "credentials": explanation.credentials == Credentials::Include,
        "as": explanation.initiator.code(),
        "after": explanation.earlier,
        "console": explanation.console,
        "cause": cause,
        "route": route,
        "same_origin": explanation.preflight == Preflight::SameOrigin,
        "preflight": preflight_json(&explanation.preflight, explanation.preflight_max_age),
        "next": next,
        "exchanges": explanation.exchanges.iter().map(exchange).collect::<Vec<_>>(),
        "readable": explanation.readable,
        "unreadable": explanation.unreadable,
        "notes": explanation.notes,
        "fix": explanation.fix.as_ref().map(fix),
        "tried": explanation.rejected_fix.as_ref().map(|fix| rejected_fix(fix, &place)),
    })
}

/// Returns the decision about the preflight, its reasons, and the time for which the browser caches the answer.
pub(crate) fn preflight_json(preflight: &Preflight, max_age: Option<u64>) -> Value {
    let (needed, because) = match preflight {
        Preflight::SameOrigin | Preflight::Safelisted | Preflight::Never(_) => (false, Vec::new()),
        Preflight::Recorded => (true, Vec::new()),
        Preflight::Needed(reasons) => (true, reasons.iter().map(ToString::to_string).collect()),
        Preflight::Cached { reasons, .. } => (false, reasons.iter().map(ToString::to_string).collect()),
    };
    let cached_from = match preflight {
        Preflight::Cached { request, .. } => Some(request),
        _ => None,
    };
    json!({ "needed": needed, "because": because, "remembered": max_age, "cached_from": cached_from })
}

fn exchange(exchange: &WireExchange) -> Value {
    let field = |name: &str, value: &str| json!([name, value]);
    let response = &exchange.response;
    json!({
        "of_request": exchange.of_request,
        "cached_from": exchange.cached_from,
        "stage": match exchange.stage {
            Stage::Preflight => "preflight",
            Stage::Request => "request",
        },
        "kind": exchange.kind.code(),
        "answered_by": match exchange.answered_by {
            AnsweredBy::Gateway => "corsgate",
            AnsweredBy::Upstream => "upstream",
        },
        "reason": exchange.reason,
        "request": exchange.request,
        "request_headers": exchange.fields.iter().map(|(name, value)| field(name, value)).collect::<Vec<_>>(),
        "status": response.status.as_u16(),
        "response_headers": response.fields().map(|(name, value)| field(&name, &lossy(value))).collect::<Vec<_>>(),
    })
}

fn rejected_fix(fix: &RejectedFix, place: &dyn Fn(&FilePosition) -> Value) -> Value {
    let problem = |EditError { at, kind }: &EditError| json!({ "code": kind.code(), "at": place(at), "fault": kind.fault(), "remedy": kind.remedy() });
    json!({ "steps": fix.steps, "problems": fix.errors.iter().map(problem).collect::<Vec<_>>() })
}

fn fix(fix: &Fix) -> Value {
    json!({
        "file": fix.file,
        "steps": fix.steps,
        "hunks": hunks_json(&fix.hunks),
        "widens": fix.widens.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}
