//! Errors of a question. They refer to a part of the question, and not to the interface of the user.

use std::fmt;

/// The error for an invalid part of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidQuestion {
    /// The part that is invalid.
    pub part: QuestionPart,
    /// The fault and the remedy, as a phrase without a full stop.
    pub reason: String,
    /// Another part that sets the same value in a valid way. None if there is no such part. For example, a page cannot
    /// set the header `Cookie`; the other part is [`QuestionPart::Credentials`].
    pub instead: Option<QuestionPart>,
}

/// A part of a question. `Display` writes its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuestionPart {
    /// The part of the page that makes the request.
    Initiator,
    /// The page's origin.
    Origin,
    /// The URL that the page fetches.
    Url,
    /// The method of a request.
    Method,
    /// A request after the first.
    Later,
    /// A request header that the page sets.
    Header,
    /// The credentials mode.
    Credentials,
    /// A response header that the page wants to read.
    Reads,
    /// The status of the upstream's response.
    UpstreamStatus,
    /// A header of the upstream's response.
    UpstreamHeader,
}

impl InvalidQuestion {
    pub(super) fn new(part: QuestionPart, reason: String) -> Self {
        InvalidQuestion { part, reason, instead: None }
    }

    /// Returns the error for a header that browsers ignore if a page sets it (Fetch, "forbidden request-header").
    pub(super) fn forbidden_header(name: &str) -> Self {
        let instead = match &*name.to_ascii_lowercase() {
            "cookie" => Some(QuestionPart::Credentials),
            "origin" => Some(QuestionPart::Origin),
            _ => None,
        };
        let reason = match instead {
            Some(_) => format!("a page cannot set `{name}`"),
            None => format!("a page cannot set `{name}`, browsers ignore it; leave it out"),
        };
        InvalidQuestion { instead, ..InvalidQuestion::new(QuestionPart::Header, reason) }
    }
}

impl fmt::Display for InvalidQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.part, self.reason)?;
        match self.instead {
            Some(part) => write!(f, "; set the {part} instead"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for InvalidQuestion {}

impl fmt::Display for QuestionPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            QuestionPart::Initiator => "initiator",
            QuestionPart::Origin => "origin",
            QuestionPart::Url => "URL",
            QuestionPart::Method => "method",
            QuestionPart::Later => "later request",
            QuestionPart::Header => "header",
            QuestionPart::Credentials => "credentials",
            QuestionPart::Reads => "header to read",
            QuestionPart::UpstreamStatus => "upstream status",
            QuestionPart::UpstreamHeader => "upstream header",
        })
    }
}
