//! The configuration file: its shape ([`Document`]), how text becomes one, and where in the text a key stands.
//!
//! Two parsers read the text. serde_yaml makes the [`Document`]; a good file meets no other. Only when there is
//! something to say does [`Source`] read the text a second time with a parser that keeps positions.
//!
//! Every problem is reported at once: a value that cannot be read is noted and taken out, and reading goes on
//! without it, until what is left can be read.

mod choices;
mod document;
mod edit;
mod json;
pub mod schema;
mod source;
mod units;
mod yaml;

pub(crate) use self::choices::{Cors, Named, Toggle, Use};
pub use self::document::Document;
pub(crate) use self::document::{
    ADMIN_ADDRESS, AccessLog, Balance, Certificate, ClientCertificate, Ejection, HEALTHY_STATUS, HealthCheck, Limits,
    ListenerTls, LogFormat, Node, RETRIES, Server, Service, Timeouts, Upstream, UpstreamTls,
};
pub use self::edit::NewValue;
pub(crate) use self::edit::{Hunk, hunks};
pub(crate) use self::source::Place;
pub use self::source::Source;
pub use self::units::{Duration, Size};

use crate::problem::Problems;

impl Document {
    /// Reads a text. What cannot be read is among the problems, and left out of the document; None when too little is
    /// left to look for more.
    pub fn parse(text: &str, problems: &mut Problems) -> Option<Self> {
        let text = without_mark(text);
        // JSON is YAML, but its own parser is many times as fast; programs write large files, and they write JSON.
        // What that parser does not take is judged as any YAML is.
        if text.trim_start().starts_with('{')
            && let Ok(document) = json::parse(text)
        {
            return Some(document);
        }
        yaml::parse(text, problems)
    }
}

/// Editors on Windows put a byte order mark in front, which the YAML parser takes for a document of its own.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}
