//! Errors of a question. They name a part of the question, and nothing of the interface that asks it.

use std::fmt;

/// A part of a question is invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidQuestion {
    /// The part that is invalid.
    pub part: QuestionPart,
    /// What is wrong and what to write, as a phrase without a full stop.
    pub reason: String,
    /// The part that sets the same thing in a valid way, if there is one. A page cannot set the header `Cookie`, for
    /// example: this is [`QuestionPart::Credentials`].
    pub instead: Option<QuestionPart>,
}

/// A part of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuestionPart {
    /// The part of the page that makes the request.
    Initiator,
    /// The page's origin.
    Origin,
    /// The URL that the page fetches.
    Url,
    /// The method.
    Method,
    /// A request after the first.
    Later,
    /// A request header that the page sets.
    Header,
    /// The credentials mode.
    Credentials,
    /// A response header that the page reads.
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

    /// Browsers ignore the header when a page sets it (Fetch, "forbidden request-header").
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
