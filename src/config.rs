//! The configuration file: its keys ([`Document`]), its parsers, and the position of each key in the text.
//!
//! There are two parsers. serde_yaml makes the [`Document`]; a file without problems is read only once. If there are
//! problems, [`Source`] reads the text again with a parser that keeps positions.
//!
//! All problems are reported at once. A value that cannot be read is reported and removed, and reading goes on with the
//! rest of the file.

mod cors;
mod document;
mod edit;
pub(crate) mod environment;
mod expect;
mod foreign;
pub(crate) mod form;
mod json;
mod object;
mod part;
mod part_change;
pub mod schema;
mod source;
mod yaml;

pub(crate) use self::cors::Cors;
pub use self::document::Document;
pub(crate) use self::document::{
    ADMIN_ADDRESS, AccessLog, Balance, BehaviorKeys, Certificate, ClientCertificate, Ejection, EndKeys, EtcdFormat,
    EtcdSettings, HEALTHY_STATUS, HealthCheck, Limits, ListenerTls, LogFormat, Node, ProxyProtocol, Queue, RETRIES,
    RemoteSource, Route, Server, Service, Timeouts, UnderscoresInHeaders, Upstream, UpstreamTls,
};
pub use self::edit::NewValue;
pub(crate) use self::edit::{Hunk, hunks};
pub(crate) use self::expect::{
    AssumedResponse, CODES, Expectation, ExpectationFile, ExpectedResult, INITIATORS, PageHeaders,
};
pub(crate) use self::object::{client_values, values};
pub(crate) use self::part::{Part, PartKind};
pub(crate) use self::part_change::{PartChange, Parts, part_changes, part_text, with_part_changes};
pub(crate) use self::source::Place;
pub use self::source::Source;

use crate::problem::Problems;

impl Document {
    /// Parses a text. Values that cannot be read are added to `problems` and are absent from the document. None if too
    /// little is left for further checks.
    pub fn parse(text: &str, problems: &mut Problems) -> Option<Self> {
        let text = without_mark(text);
        // JSON is valid YAML, but the JSON parser is many times faster, and programs write large files in JSON. A text
        // that it refuses goes to the YAML parser, which reports the problems.
        if text.trim_start().starts_with('{')
            && let Ok(document) = json::parse(text)
        {
            return Some(document);
        }
        yaml::parse(text, problems)
    }
}

impl ExpectationFile {
    /// Parses a file of `expect_files`, as [`Document::parse`] does.
    pub(crate) fn parse(text: &str, problems: &mut Problems) -> Option<Self> {
        yaml::parse_file(without_mark(text), problems)
    }
}

/// Removes the byte order mark that editors on Windows write at the start. The YAML parser would read it as a separate
/// document.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}
