//! The built-in sets of header names, for `allow_header_sets` and `expose_header_sets`.
//!
//! The names are from public specifications. `docs/configuration.md` has the lists and their sources. No set contains
//! `Authorization`, so a policy must list it explicitly.

use super::names;
use crate::notation::List;
use crate::problem::{At, Known, ProblemKind, Problems};

/// A built-in set of header names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderSet {
    /// Model Context Protocol, Streamable HTTP.
    Mcp,
    GrpcWeb,
    /// W3C Trace Context and Baggage, and B3.
    Tracing,
    /// tus resumable uploads 1.0.
    Tus,
}

// === impl HeaderSet ===

impl HeaderSet {
    const ALL: [HeaderSet; 4] = [HeaderSet::Mcp, HeaderSet::GrpcWeb, HeaderSet::Tracing, HeaderSet::Tus];

    /// The name in the configuration.
    pub(super) const fn word(self) -> &'static str {
        match self {
            HeaderSet::Mcp => "mcp",
            HeaderSet::GrpcWeb => "grpc-web",
            HeaderSet::Tracing => "tracing",
            HeaderSet::Tus => "tus",
        }
    }

    /// Returns the request headers of the set, without CORS-safelisted ones.
    pub(super) const fn request_headers(self) -> &'static [&'static str] {
        match self {
            // Versions 2025-03-26 to 2025-11-25 have a session and resume streams; 2026-07-28 has the method and the name.
            HeaderSet::Mcp => {
                &["Content-Type", "MCP-Protocol-Version", "Mcp-Session-Id", "Last-Event-ID", "Mcp-Method", "Mcp-Name"]
            }
            HeaderSet::GrpcWeb => &["Content-Type", "X-Grpc-Web", "X-User-Agent", "Grpc-Timeout"],
            HeaderSet::Tracing => &[
                "traceparent",
                "tracestate",
                "baggage",
                "b3",
                "X-B3-TraceId",
                "X-B3-SpanId",
                "X-B3-ParentSpanId",
                "X-B3-Sampled",
                "X-B3-Flags",
            ],
            // Not `X-HTTP-Method-Override`: with it, a page could use methods that `allow_methods` does not list.
            HeaderSet::Tus => &[
                "Content-Type",
                "Tus-Resumable",
                "Upload-Offset",
                "Upload-Length",
                "Upload-Defer-Length",
                "Upload-Metadata",
                "Upload-Checksum",
                "Upload-Concat",
            ],
        }
    }

    /// Returns the response headers of the set, without CORS-safelisted ones.
    pub(super) const fn response_headers(self) -> &'static [&'static str] {
        match self {
            HeaderSet::Mcp => &["Mcp-Session-Id", "WWW-Authenticate"],
            HeaderSet::GrpcWeb => &["Grpc-Status", "Grpc-Message", "Grpc-Status-Details-Bin"],
            HeaderSet::Tracing => &[],
            HeaderSet::Tus => &[
                "Location",
                "Tus-Resumable",
                "Tus-Version",
                "Tus-Extension",
                "Tus-Max-Size",
                "Tus-Checksum-Algorithm",
                "Upload-Offset",
                "Upload-Length",
                "Upload-Defer-Length",
                "Upload-Metadata",
                "Upload-Concat",
                "Upload-Expires",
            ],
        }
    }

    /// Parses the sets of a list, and leaves out duplicates. Each set has the index of its entry.
    pub(super) fn parse(list: Option<&List>, at: &At<'_>, problems: &mut Problems) -> Vec<(usize, HeaderSet)> {
        let mut sets: Vec<(usize, HeaderSet)> = Vec::new();
        for (i, entry) in names::entries(list, at, problems) {
            match Self::ALL.into_iter().find(|set| set.word() == entry) {
                Some(set) if sets.iter().any(|(_, known)| *known == set) => {}
                Some(set) => sets.push((i, set)),
                None => {
                    let words = Self::ALL.iter().map(|set| set.word().to_owned()).collect();
                    let known = Known::instead_of(entry, words);
                    problems.add(&at.index(i), ProblemKind::UnknownWord { word: entry.to_owned(), known });
                }
            }
        }
        sets
    }
}

#[cfg(test)]
mod tests {
    use super::super::fetch_names::{
        Direction, direction, is_forbidden_request_header, is_forbidden_response_header, is_safelisted_response_header,
    };
    use super::*;

    /// No set contains a name for which `check` warns.
    #[test]
    fn every_name_of_a_set_has_an_effect_in_its_direction() {
        for set in HeaderSet::ALL {
            for name in set.request_headers() {
                assert!(!is_forbidden_request_header(name) && direction(name) != Direction::Response, "{name}");
                assert!(!name.eq_ignore_ascii_case("authorization") && *name != "*");
            }
            for name in set.response_headers() {
                let is_readable = !is_forbidden_response_header(name) && !is_safelisted_response_header(name);
                assert!(is_readable && direction(name) != Direction::Request && *name != "*", "{name}");
            }
            for names in [set.request_headers(), set.response_headers()] {
                let mut lower: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
                lower.sort();
                lower.dedup();
                assert_eq!(lower.len(), names.len(), "{}", set.word());
            }
        }
    }

    #[test]
    fn a_set_that_a_list_has_twice_counts_once() {
        let list: List = serde_yaml::from_str("[mcp, grpc-web, mcp]").unwrap();
        let mut problems = Problems::default();
        let sets = HeaderSet::parse(Some(&list), &At::root(), &mut problems);
        let found: Vec<(usize, &str)> = sets.iter().map(|(i, set)| (*i, set.word())).collect();
        assert_eq!(found, [(0, "mcp"), (1, "grpc-web")]);
        assert!(problems.is_empty(), "{problems}");
    }
}
