//! Prints an explanation: as text for people, and as JSON for programs.

use std::fmt::Write as _;

use http::HeaderValue;
use serde_json::{Value, json};

use super::{
    AnsweredBy, EditError, Explanation, FilePosition, Fix, Hunk, Initiator, MatchedPolicy, MatchedRoute, Outcome,
    Preflight, RejectedFix, WireExchange,
};
use crate::config::Source;
use crate::explain::fetch::{Credentials, PreflightReason, Stage};
use crate::problem::Problems;
use crate::report::{hunks_json, problems_json};
use crate::snapshot::Level;
use crate::terminal::{Paint, Width, printable};

const RED: &str = "1;31";
const GREEN: &str = "1;32";
const CYAN: &str = "1;36";
const YELLOW: &str = "1;33";

/// An explanation for people: the verdict, the cause, the exchanges, and the fix.
pub fn text(explanation: &Explanation, paint: Paint, width: Width) -> String {
    let mut out = Printer { text: String::new(), file: printable(&explanation.file), paint, width };
    out.verdict(explanation);
    out.cause(explanation);
    for (i, exchange) in explanation.exchanges.iter().enumerate() {
        out.exchange(i + 1, exchange, explanation.earlier.is_empty());
    }
    out.page(explanation);
    match &explanation.fix {
        Some(fix) => out.fix(fix),
        None if explanation.outcome == Outcome::Refused => {
            out.text.push_str("\ncorsgate found no edit that allows this request.\n");
            explanation.rejected_fix.iter().for_each(|fix| out.rejected_fix(fix));
        }
        None => {}
    }
    out.text
}

/// The edit that repairs an invalid text, for people. It follows the output of `check`.
pub(crate) fn repair_text(fix: &Fix, paint: Paint, width: Width) -> String {
    let mut out = Printer { text: String::new(), file: printable(&fix.file), paint, width };
    out.fix(fix);
    out.text
}

/// An invalid text as one JSON object: its problems, as `check` prints them, and the edit that repairs it.
pub(crate) fn repair_json(problems: &Problems, source: &Source<'_>, fix: Option<&Fix>) -> String {
    let object =
        json!({ "verdict": "unusable", "problems": problems_json(problems, source), "fix": fix.map(self::fix) });
    format!("{object:#}\n")
}

/// An explanation as one JSON object.
pub fn json(explanation: &Explanation) -> String {
    format!("{:#}\n", value(explanation))
}

// --- for people

struct Printer {
    text: String,
    file: String,
    paint: Paint,
    width: Width,
}

/// Width of the column of labels: the longest label and a gap.
const LABEL: usize = 12;

impl Printer {
    fn verdict(&mut self, explanation: &Explanation) {
        let Explanation { origin, method, url, earlier, .. } = explanation;
        let page = match origin.as_str() {
            "" => "a request without an Origin".to_owned(),
            "null" => "a page with the origin null".to_owned(),
            origin => format!("a page of {origin}"),
        };
        let credentials = match explanation.credentials {
            Credentials::Include => " with credentials",
            Credentials::Omit => "",
        };
        // The code of the cause is more exact than the gateway's code if only the browser refuses.
        let code = explanation.code();
        let earlier = match earlier.is_empty() {
            true => String::new(),
            false => format!(" after {}", earlier.join(", ")),
        };
        let request = format!("{method} {url}{}{credentials}{earlier}", explanation.initiator.phrase());
        let (word, colour, line) = match explanation.outcome {
            Outcome::Allowed => ("allowed", GREEN, format!("{page} can {request} ({code})")),
            Outcome::Refused if !explanation.unreadable.is_empty() => {
                let names = explanation.unreadable.join(", ");
                ("unreadable", RED, format!("{page} can {request}, but not read {names} ({code})"))
            }
            Outcome::Refused => ("refused", RED, format!("{page} cannot {request} ({code})")),
            Outcome::Undecided => {
                let next = explanation.next.as_ref().map(|next| next.url.as_str()).unwrap_or_default();
                ("undecided", YELLOW, format!("{page} can {request} if {next} allows it ({code})"))
            }
        };
        let word = self.paint.with(colour, word);
        let _ = writeln!(self.text, "{word}: {}", printable(&line));
        if let Some(console) = &explanation.console {
            self.item("browser", console);
        }
        if let Some(next) = &explanation.next {
            let preflight = if next.has_preflight { "a preflight, and then " } else { "" };
            let origin = match &next.origin {
                Some(origin) => format!("with `Origin: {origin}`"),
                None => "without an Origin".to_owned(),
            };
            let by = match explanation.exchanges.last().map(|exchange| exchange.answered_by) {
                Some(AnsweredBy::Gateway) => "the route",
                Some(AnsweredBy::Upstream) | None => "the upstream",
            };
            let next = format!(
                "{by} redirects to a server that this file does not know. The browser sends it {preflight}{} {} \
                 {origin}.",
                next.method, next.url
            );
            self.item("next", &next);
        }
    }

    fn cause(&mut self, explanation: &Explanation) {
        if let Some(cause) = &explanation.cause {
            self.item("cause", &sentence(&cause.fault()));
            if let Some(place) = &explanation.cause_place {
                let FilePosition { line, column, key } = place;
                let _ =
                    writeln!(self.text, "{:LABEL$}  {}:{line}:{column} {}", "", self.file, printable(&key.to_string()));
            }
            if let Some(advice) = cause.advice() {
                self.item("advice", &advice);
            }
        }
        for note in &explanation.notes {
            self.item("note", note);
        }
        if let Some(route) = &explanation.route {
            self.item("route", &format!("{}, {}", route.name, self.at(&route.place)));
            self.item("policy", &policy(route, &self.file));
        }
        let preflight = match &explanation.preflight {
            Preflight::SameOrigin if explanation.origin.is_empty() => {
                "not needed: the request has no Origin, so CORS does not apply".to_owned()
            }
            Preflight::SameOrigin => "not needed: page and URL have the same origin, so CORS does not apply".to_owned(),
            Preflight::Safelisted => {
                format!("not needed: the method is {}, and no header needs a preflight", explanation.method)
            }
            Preflight::Recorded => "this request is the preflight".to_owned(),
            Preflight::Needed(reasons) => format!("needed: {}", joined(reasons)),
            Preflight::Cached { request, reasons } => format!(
                "not sent: the browser has cached the answer to the preflight of request {request}, which allows this \
                 request too. It would be needed: {}",
                joined(reasons)
            ),
            Preflight::Never(Initiator::NoCors) => {
                "never: `mode: no-cors` allows only requests that need none".to_owned()
            }
            Preflight::Never(Initiator::WebSocket) => "never: CORS does not apply to WebSockets".to_owned(),
            Preflight::Never(_) => "never: CORS does not apply to navigations".to_owned(),
        };
        self.item("preflight", &preflight);
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
        let _ = writeln!(self.text, "\n{}", self.paint.with(CYAN, &format!("{number}. {stage}, {by}")));
        let _ = writeln!(self.text, "   > {} HTTP/1.1", printable(&exchange.request));
        for (name, value) in &exchange.fields {
            let _ = writeln!(self.text, "   > {}", shortened(&format!("{name}: {value}")));
        }
        let status = exchange.response.status;
        let _ = writeln!(self.text, "   < HTTP/1.1 {status}");
        for (name, value) in exchange.response.fields() {
            let _ = writeln!(self.text, "   < {}", shortened(&format!("{name}: {}", lossy(value))));
        }
    }

    fn page(&mut self, explanation: &Explanation) {
        let reads = match explanation.initiator {
            Initiator::Fetch | Initiator::XhrUpload | Initiator::NoCors => true,
            Initiator::Image
            | Initiator::Module
            | Initiator::Font
            | Initiator::EventSource
            | Initiator::WebSocket
            | Initiator::Navigation => false,
        };
        let has_response = explanation.outcome == Outcome::Allowed || !explanation.unreadable.is_empty();
        let gets_response = reads && has_response;
        if gets_response || explanation.preflight_max_age.is_some() {
            self.text.push('\n');
        }
        if gets_response && explanation.preflight != Preflight::SameOrigin {
            let readable = match explanation.readable.as_slice() {
                _ if explanation.initiator == Initiator::NoCors => {
                    "nothing, not even the status: the response is opaque".to_owned()
                }
                [] => "the body, and only safelisted headers such as Content-Type".to_owned(),
                names if names.iter().any(|name| name == "*") => {
                    "the body, and all headers except Set-Cookie".to_owned()
                }
                names => {
                    format!("the body, {}, and safelisted headers such as Content-Type", names.join(", "))
                }
            };
            self.item("readable", &readable);
        }
        match explanation.preflight_max_age {
            Some(0) => self.item("cached", "not at all: the browser sends a preflight before each request"),
            Some(seconds) => self.item("cached", &format!("the browser caches the preflight for {seconds} s")),
            None => {}
        }
    }

    fn fix(&mut self, fix: &Fix) {
        let title = self.width.wrap("", &format!("fix: {}", printable(&fix.steps.join("; "))));
        let _ = writeln!(self.text, "\n{}", self.paint.with(GREEN, &title));
        self.hunks(&fix.hunks);
        for widening in &fix.widens {
            let _ = writeln!(self.text, "{}", self.width.wrap("  ", &printable(&widening.to_string())));
        }
    }

    fn rejected_fix(&mut self, fix: &RejectedFix) {
        let steps = printable(&fix.steps.join("; "));
        let closest = self.width.wrap("", &format!("The closest edit: {steps}. But it makes the file invalid:"));
        let _ = writeln!(self.text, "{closest}");
        for EditError { at: FilePosition { line, column, key }, kind } in &fix.errors {
            let problem = format!("{key}: {}; {}", kind.fault(), kind.remedy());
            let _ = writeln!(self.text, "  {}:{line}:{column} {}", self.file, printable(&problem));
        }
    }

    fn hunks(&mut self, hunks: &[Hunk]) {
        let width = hunks.iter().map(|hunk| hunk.line + hunk.removed.len()).max().unwrap_or(0).to_string().len();
        for hunk in hunks {
            let _ = writeln!(self.text, "  {}:{}", self.file, hunk.line);
            for (i, line) in hunk.removed.iter().enumerate() {
                let line = format!("- {:>width$} | {}", hunk.line + i, shortened(line.trim_end_matches('\r')));
                let _ = writeln!(self.text, "  {}", self.paint.with(RED, &line));
            }
            for line in &hunk.added {
                let line = format!("+ {:>width$} | {}", "", shortened(line.trim_end_matches('\r')));
                let _ = writeln!(self.text, "  {}", self.paint.with(GREEN, &line));
            }
        }
    }

    fn at(&self, place: &FilePosition) -> String {
        at(&self.file, place)
    }

    fn item(&mut self, label: &str, text: &str) {
        let line = self.width.wrap(&format!("  {label:<LABEL$}"), &printable(text));
        let _ = writeln!(self.text, "{line}");
    }
}

/// The policy of a route, and its place in the file.
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

/// The policy of the last request, and its place in the file. None without a route.
pub(crate) fn policy_of(explanation: &Explanation) -> Option<String> {
    explanation.route.as_ref().map(|route| policy(route, &printable(&explanation.file)))
}

fn joined(reasons: &[PreflightReason]) -> String {
    reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A phrase as a sentence. A key at its beginning keeps its case.
fn sentence(text: &str) -> String {
    let is_key = text.split(' ').next().unwrap_or_default().contains('_');
    let mut characters = text.chars();
    match characters.next() {
        Some(first) if !is_key => first.to_ascii_uppercase().to_string() + characters.as_str() + ".",
        _ => format!("{text}."),
    }
}

/// Limit of characters of a printed line; a long header would fill the screen.
const MAX_LINE: usize = 400;

fn shortened(line: &str) -> String {
    let line = printable(line);
    match line.char_indices().nth(MAX_LINE) {
        Some((cut, _)) => format!("{}… ({} bytes)", &line[..cut], line.len()),
        None => line,
    }
}

fn lossy(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

// --- for programs

/// An explanation as a JSON object, as [`json`] prints it.
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
    let (needed, because) = match &explanation.preflight {
        Preflight::SameOrigin | Preflight::Safelisted | Preflight::Never(_) => (false, Vec::new()),
        Preflight::Recorded => (true, Vec::new()),
        Preflight::Needed(reasons) => (true, reasons.iter().map(ToString::to_string).collect()),
        Preflight::Cached { reasons, .. } => (false, reasons.iter().map(ToString::to_string).collect()),
    };
    let cached_from = match &explanation.preflight {
        Preflight::Cached { request, .. } => Some(request),
        _ => None,
    };
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
        "preflight": { "needed": needed, "because": because, "remembered": explanation.preflight_max_age, "cached_from": cached_from },
        "next": next,
        "exchanges": explanation.exchanges.iter().map(exchange).collect::<Vec<_>>(),
        "readable": explanation.readable,
        "unreadable": explanation.unreadable,
        "notes": explanation.notes,
        "fix": explanation.fix.as_ref().map(fix),
        "tried": explanation.rejected_fix.as_ref().map(|fix| rejected_fix(fix, &place)),
    })
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
