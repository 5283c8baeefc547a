//! An explanation, written out: for people and for machines.

use std::fmt::Write as _;

use http::HeaderValue;
use serde_json::{Value, json};

use super::{
    AnsweredBy, Cause, Explanation, Fix, Hunk, Objection, Outcome, Place, PolicyFound, Preflight, RejectedFix,
    RouteFound, Shown,
};
use crate::config::Source;
use crate::explain::fetch::{Credentials, Stage};
use crate::problem::Problems;
use crate::report::{hunks_json, problems_json};
use crate::snapshot::Level;
use crate::terminal::{Paint, Width, printable};

const RED: &str = "1;31";
const GREEN: &str = "1;32";
const CYAN: &str = "1;36";

/// An explanation for people: the verdict first, then why, then what goes over the wire, then what to change.
pub fn text(explanation: &Explanation, paint: Paint, width: Width) -> String {
    let mut out = Out { text: String::new(), file: printable(&explanation.file), paint, width };
    out.verdict(explanation);
    out.why(explanation);
    for (i, exchange) in explanation.exchanges.iter().enumerate() {
        out.exchange(i + 1, exchange);
    }
    out.after(explanation);
    match &explanation.fix {
        Some(fix) => out.fix("to let it pass", fix),
        None if explanation.outcome == Outcome::Refused => {
            out.text.push_str("\nNo edit of the file was found that lets it pass.\n");
            explanation.tried.iter().for_each(|tried| out.tried(tried));
        }
        None => {}
    }
    out.text
}

/// What mends a text that was refused, for people: behind what `check` prints.
pub(crate) fn repaired_text(fix: &Fix, paint: Paint, width: Width) -> String {
    let mut out = Out { text: String::new(), file: printable(&fix.file), paint, width };
    out.fix("to repair it", fix);
    out.text
}

/// A text that was refused, as one JSON object: its problems, as `check` writes them, and what mends it.
pub(crate) fn repaired_json(problems: &Problems, source: &Source<'_>, fix: Option<&Fix>) -> String {
    let object =
        json!({ "verdict": "unusable", "problems": problems_json(problems, source), "fix": fix.map(self::fix) });
    format!("{object:#}\n")
}

/// An explanation as one JSON object.
pub fn json(explanation: &Explanation) -> String {
    format!("{:#}\n", value(explanation))
}

// --- for people

struct Out {
    text: String,
    file: String,
    paint: Paint,
    width: Width,
}

/// As wide as the longest label and a gap.
const LABEL: usize = 12;

impl Out {
    fn verdict(&mut self, explanation: &Explanation) {
        let Explanation { origin, method, url, reason, .. } = explanation;
        let page = match origin.as_str() {
            "" => "a request without an Origin".to_owned(),
            "null" => "a page with the origin null".to_owned(),
            origin => format!("a page of {origin}"),
        };
        let credentials = match explanation.credentials {
            Credentials::Include => " with credentials",
            Credentials::Omit => "",
        };
        // The gateway's word says little when the browser stops for another reason.
        let code = explanation.cause.as_ref().map_or(*reason, Cause::code);
        let request = format!("{method} {url}{credentials}");
        let (word, colour, line) = match explanation.outcome {
            Outcome::Allowed => ("allowed", GREEN, format!("{page} can {request} ({code})")),
            Outcome::Refused if !explanation.unreadable.is_empty() => {
                let names = explanation.unreadable.join(", ");
                ("unreadable", RED, format!("{page} can {request}, but not read {names} ({code})"))
            }
            Outcome::Refused => ("refused", RED, format!("{page} cannot {request} ({code})")),
        };
        let word = self.paint.with(colour, word);
        let _ = writeln!(self.text, "{word}: {}", printable(&line));
        if let Some(console) = &explanation.console {
            self.item("browser", console);
        }
    }

    fn why(&mut self, explanation: &Explanation) {
        if let Some(cause) = &explanation.cause {
            self.item("cause", &sentence(&cause.fault()));
            if let Some(place) = &explanation.culprit {
                let Place { line, column, key } = place;
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
            self.item("policy", &self.policy(route));
        }
        let preflight = match &explanation.preflight {
            Preflight::SameOrigin if explanation.origin.is_empty() => {
                "none: without an Origin CORS has no part in it".to_owned()
            }
            Preflight::SameOrigin => "none: page and URL are of one origin, so that CORS has no part in it".to_owned(),
            Preflight::Safelisted => format!("none: a plain {} without special headers needs none", explanation.method),
            Preflight::Recorded => "this request was the preflight".to_owned(),
            Preflight::Needed(why) => {
                let why: Vec<String> = why.iter().map(ToString::to_string).collect();
                format!("needed: {}", why.join("; "))
            }
        };
        self.item("preflight", &preflight);
    }

    fn exchange(&mut self, number: usize, exchange: &Shown) {
        let what = match exchange.stage {
            Stage::Preflight => "preflight",
            Stage::Response => "request",
        };
        let by = match exchange.answered_by {
            AnsweredBy::Gateway => "answered by corsgate".to_owned(),
            AnsweredBy::Upstream => "forwarded; what the upstream answers is assumed".to_owned(),
        };
        let _ = writeln!(self.text, "\n{}", self.paint.with(CYAN, &format!("{number}. {what}, {by}")));
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

    fn after(&mut self, explanation: &Explanation) {
        let gets_it = explanation.outcome == Outcome::Allowed || !explanation.unreadable.is_empty();
        if gets_it || explanation.remembered.is_some() {
            self.text.push('\n');
        }
        if gets_it && explanation.preflight != Preflight::SameOrigin {
            let readable = match explanation.readable.as_slice() {
                [] => "the body; of the headers only those that need no exposing, such as Content-Type".to_owned(),
                names if names.iter().any(|name| name == "*") => "the body; all headers but Set-Cookie".to_owned(),
                names => format!("the body; headers: {}, and those that need no exposing", names.join(", ")),
            };
            self.item("readable", &readable);
        }
        match explanation.remembered {
            Some(0) => self.item("remembered", "not at all: the browser asks before every request"),
            Some(seconds) => self.item("remembered", &format!("for {seconds} s the browser does not ask again")),
            None => {}
        }
    }

    fn fix(&mut self, what: &str, fix: &Fix) {
        let title = self.width.wrap("", &format!("{what}: {}", printable(&fix.steps.join("; "))));
        let _ = writeln!(self.text, "\n{}", self.paint.with(GREEN, &title));
        self.hunks(&fix.hunks);
        for widening in &fix.widens {
            let _ = writeln!(self.text, "{}", self.width.wrap("  ", &printable(&widening.to_string())));
        }
    }

    fn tried(&mut self, tried: &RejectedFix) {
        let steps = printable(&tried.steps.join("; "));
        let closest = self.width.wrap("", &format!("The closest one: {steps}; but the file is refused then:"));
        let _ = writeln!(self.text, "{closest}");
        for Objection { at: Place { line, column, key }, kind } in &tried.objections {
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

    fn policy(&self, route: &RouteFound) -> String {
        match &route.policy {
            PolicyFound::Absent => "none at any level".to_owned(),
            PolicyFound::Off(level, place) => format!("none: `false` {}, {}", super::cause::at(*level), self.at(place)),
            PolicyFound::Inline(level, place) => format!("{}, {}", that(*level), self.at(place)),
            PolicyFound::Named { name, level, used, written } => {
                format!("`{name}`, {}, chosen {}, {}", self.at(written), by(*level), self.at(used))
            }
        }
    }

    fn at(&self, place: &Place) -> String {
        format!("{}:{}", self.file, place.line)
    }

    fn item(&mut self, label: &str, text: &str) {
        let line = self.width.wrap(&format!("  {label:<LABEL$}"), &printable(text));
        let _ = writeln!(self.text, "{line}");
    }
}

fn by(level: Level) -> &'static str {
    match level {
        Level::Top => "at the top of the file",
        Level::Service => "by the service",
        Level::Route => "by the route",
    }
}

fn that(level: Level) -> &'static str {
    match level {
        Level::Top => "that at the top of the file",
        Level::Service => "that of the service",
        Level::Route => "that of the route",
    }
}

/// As a sentence. The name of a key stays as it is written.
fn sentence(text: &str) -> String {
    let is_key = text.split(' ').next().unwrap_or_default().contains('_');
    let mut characters = text.chars();
    match characters.next() {
        Some(first) if !is_key => first.to_ascii_uppercase().to_string() + characters.as_str() + ".",
        _ => format!("{text}."),
    }
}

/// More than this of a line fills the screen.
const WIDEST: usize = 400;

fn shortened(line: &str) -> String {
    let line = printable(line);
    match line.char_indices().nth(WIDEST) {
        Some((cut, _)) => format!("{}… ({} bytes)", &line[..cut], line.len()),
        None => line,
    }
}

fn lossy(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

// --- for machines

fn value(explanation: &Explanation) -> Value {
    let file = &explanation.file;
    let place = |place: &Place| json!({ "file": file, "line": place.line, "column": place.column, "path": place.key.to_string() });
    let route = explanation.route.as_ref().map(|route| {
        let policy = match &route.policy {
            PolicyFound::Absent => Value::Null,
            PolicyFound::Off(_, at) => json!({ "off": true, "at": place(at) }),
            PolicyFound::Inline(_, at) => json!({ "at": place(at) }),
            PolicyFound::Named { name, used, written, .. } => {
                json!({ "name": name, "used": place(used), "at": place(written) })
            }
        };
        json!({ "name": route.name, "at": place(&route.place), "policy": policy })
    });
    let (needed, why) = match &explanation.preflight {
        Preflight::SameOrigin | Preflight::Safelisted => (false, Vec::new()),
        Preflight::Recorded => (true, Vec::new()),
        Preflight::Needed(why) => (true, why.iter().map(ToString::to_string).collect()),
    };
    let cause = explanation.cause.as_ref().map(|cause| {
        json!({
            "code": cause.code(),
            "fault": cause.fault(),
            "advice": cause.advice(),
            "at": explanation.culprit.as_ref().map(place),
        })
    });
    json!({
        "verdict": match explanation.outcome {
            Outcome::Allowed => "allowed",
            Outcome::Refused => "refused",
        },
        "reason": explanation.reason,
        "origin": explanation.origin,
        "method": explanation.method,
        "url": explanation.url,
        "credentials": explanation.credentials == Credentials::Include,
        "console": explanation.console,
        "cause": cause,
        "route": route,
        "same_origin": explanation.preflight == Preflight::SameOrigin,
        "preflight": { "needed": needed, "because": why, "remembered": explanation.remembered },
        "exchanges": explanation.exchanges.iter().map(shown).collect::<Vec<_>>(),
        "readable": explanation.readable,
        "unreadable": explanation.unreadable,
        "notes": explanation.notes,
        "fix": explanation.fix.as_ref().map(fix),
        "tried": explanation.tried.as_ref().map(|tried| self::tried(tried, &place)),
    })
}

fn shown(exchange: &Shown) -> Value {
    let field = |name: &str, value: &str| json!([name, value]);
    let response = &exchange.response;
    json!({
        "stage": match exchange.stage {
            Stage::Preflight => "preflight",
            Stage::Response => "request",
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
        "response_headers": response.fields().map(|(name, value)| field(name, &lossy(value))).collect::<Vec<_>>(),
    })
}

fn tried(tried: &RejectedFix, place: &dyn Fn(&Place) -> Value) -> Value {
    let problem = |Objection { at, kind }: &Objection| json!({ "code": kind.code(), "at": place(at), "fault": kind.fault(), "remedy": kind.remedy() });
    json!({ "steps": tried.steps, "problems": tried.objections.iter().map(problem).collect::<Vec<_>>() })
}

fn fix(fix: &Fix) -> Value {
    json!({
        "file": fix.file,
        "steps": fix.steps,
        "hunks": hunks_json(&fix.hunks),
        "widens": fix.widens.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}
