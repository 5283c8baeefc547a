//! Prints a page's request as text: the verdict, the exchanges, and the readable parts of the response. `explain` and
//! `probe` share these texts.

use std::fmt::Write as _;

use http::HeaderValue;

use crate::explain::fetch::{Credentials, PreflightReason};
use crate::explain::simulation::NextRequest;
use crate::explain::{Head, Initiator, Outcome, Preflight};
use crate::terminal::{Paint, Width, printable};

pub(crate) const RED: &str = "1;31";
pub(crate) const GREEN: &str = "1;32";
pub(crate) const CYAN: &str = "1;36";
pub(crate) const YELLOW: &str = "1;33";

/// Width of the column of labels: the longest label and a gap.
pub(crate) const LABEL: usize = 12;

/// Maximum length of a printed line in characters, so that a long header does not fill the screen.
const MAX_LINE: usize = 400;

/// A page's request and its result.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageSummary<'a> {
    /// The page's origin. It is empty if the request has none.
    pub(crate) origin: &'a str,
    /// The method after normalisation (Fetch: `get` becomes `GET`).
    pub(crate) method: &'a str,
    pub(crate) url: &'a str,
    pub(crate) credentials: Credentials,
    pub(crate) initiator: Initiator,
    /// The earlier requests of the page.
    pub(crate) earlier: &'a [String],
    pub(crate) outcome: Outcome,
    /// The reason code of the result.
    pub(crate) code: &'a str,
    pub(crate) preflight: &'a Preflight,
    /// Time in seconds for which the browser caches the preflight. None if no preflight passed.
    pub(crate) preflight_max_age: Option<u64>,
    /// The request after a redirect to a server that is not part of the summary. None without such a redirect.
    pub(crate) next: Option<&'a NextRequest>,
    /// Response headers that the page can read. `*` stands for all.
    pub(crate) readable: &'a [String],
    /// Response headers that the page wants to read, but that are not exposed to it.
    pub(crate) unreadable: &'a [String],
}

/// Collects the parts of the text.
pub(crate) struct PagePrinter {
    pub(crate) text: String,
    pub(crate) paint: Paint,
    pub(crate) width: Width,
}

impl PagePrinter {
    pub(crate) fn new(paint: Paint, width: Width) -> Self {
        PagePrinter { text: String::new(), paint, width }
    }

    /// Writes the verdict, the first line.
    pub(crate) fn verdict(&mut self, summary: &PageSummary<'_>) {
        let PageSummary { method, url, code, .. } = summary;
        let page = match summary.origin {
            "" => "a request without an Origin".to_owned(),
            "null" => "a page with the origin null".to_owned(),
            origin => format!("a page of {origin}"),
        };
        let credentials = match summary.credentials {
            Credentials::Include => " with credentials",
            Credentials::Omit => "",
        };
        let earlier = match summary.earlier.is_empty() {
            true => String::new(),
            false => format!(" after {}", summary.earlier.join(", ")),
        };
        let request = format!("{method} {url}{}{credentials}{earlier}", summary.initiator.phrase());
        let (word, colour, line) = match summary.outcome {
            Outcome::Allowed => ("allowed", GREEN, format!("{page} can {request} ({code})")),
            Outcome::Refused if !summary.unreadable.is_empty() => {
                let names = summary.unreadable.join(", ");
                ("unreadable", RED, format!("{page} can {request}, but not read {names} ({code})"))
            }
            Outcome::Refused => ("refused", RED, format!("{page} cannot {request} ({code})")),
            Outcome::Undecided => match summary.next {
                Some(next) => {
                    let next = &next.url;
                    ("undecided", YELLOW, format!("{page} can {request} if {next} allows it ({code})"))
                }
                None => ("undecided", YELLOW, format!("{page} can send {request} ({code})")),
            },
        };
        let word = self.paint.with(colour, word);
        let _ = writeln!(self.text, "{word}: {}", printable(&line));
    }

    /// Writes the request after a redirect to a server that is not part of the summary. `redirect` describes the
    /// redirect.
    pub(crate) fn next(&mut self, next: &NextRequest, redirect: &str) {
        let preflight = if next.has_preflight { "a preflight, and then " } else { "" };
        let origin = match &next.origin {
            Some(origin) => format!("with `Origin: {origin}`"),
            None => "without an Origin".to_owned(),
        };
        let next = format!("{redirect}. The browser sends it {preflight}{} {} {origin}.", next.method, next.url);
        self.item("next", &next);
    }

    /// Writes whether the browser sends a preflight, with the reasons.
    pub(crate) fn preflight(&mut self, summary: &PageSummary<'_>) {
        let preflight = match summary.preflight {
            Preflight::SameOrigin if summary.origin.is_empty() => {
                "not needed: the request has no Origin, so CORS does not apply".to_owned()
            }
            Preflight::SameOrigin => "not needed: page and URL have the same origin, so CORS does not apply".to_owned(),
            Preflight::Safelisted => {
                format!("not needed: the method is {}, and no header needs a preflight", summary.method)
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

    /// Writes a request with its response.
    pub(crate) fn exchange(
        &mut self,
        title: &str,
        version: &str,
        request: &str,
        fields: &[(String, String)],
        response: &Head,
    ) {
        let _ = writeln!(self.text, "\n{}", self.paint.with(CYAN, &printable(title)));
        self.request(version, request, fields);
        let _ = writeln!(self.text, "   < {version} {}", response.status);
        for (name, value) in response.fields() {
            let _ = writeln!(self.text, "   < {}", shortened(&format!("{name}: {}", lossy(value))));
        }
    }

    /// Writes a request.
    pub(crate) fn request(&mut self, version: &str, request: &str, fields: &[(String, String)]) {
        let _ = writeln!(self.text, "   > {} {version}", printable(request));
        for (name, value) in fields {
            let _ = writeln!(self.text, "   > {}", shortened(&format!("{name}: {value}")));
        }
    }

    /// Writes the parts of the response that the page can read, and the time for which the browser caches the
    /// preflight.
    pub(crate) fn page(&mut self, summary: &PageSummary<'_>) {
        let reads = match summary.initiator {
            Initiator::Fetch | Initiator::XhrUpload | Initiator::NoCors => true,
            Initiator::Image
            | Initiator::Module
            | Initiator::Font
            | Initiator::EventSource
            | Initiator::WebSocket
            | Initiator::Navigation => false,
        };
        let has_response = summary.outcome == Outcome::Allowed || !summary.unreadable.is_empty();
        let gets_response = reads && has_response;
        if gets_response || summary.preflight_max_age.is_some() {
            self.text.push('\n');
        }
        if gets_response && *summary.preflight != Preflight::SameOrigin {
            let readable = match summary.readable {
                _ if summary.initiator == Initiator::NoCors => {
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
        match summary.preflight_max_age {
            Some(0) => self.item("cached", "not at all: the browser sends a preflight before each request"),
            Some(seconds) => self.item("cached", &format!("the browser caches the preflight for {seconds} s")),
            None => {}
        }
    }

    /// Writes a text with a label.
    pub(crate) fn item(&mut self, label: &str, text: &str) {
        let line = self.width.wrap(&format!("  {label:<LABEL$}"), &printable(text));
        let _ = writeln!(self.text, "{line}");
    }
}

fn joined(reasons: &[PreflightReason]) -> String {
    reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Escapes a line for the terminal, and cuts it at [`MAX_LINE`].
pub(crate) fn shortened(line: &str) -> String {
    let line = printable(line);
    match line.char_indices().nth(MAX_LINE) {
        Some((cut, _)) => format!("{}… ({} bytes)", &line[..cut], line.len()),
        None => line,
    }
}

/// Converts a header value to text. Bytes that are not UTF-8 are replaced.
pub(crate) fn lossy(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}
