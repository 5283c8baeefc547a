//! `probe --audit`: sends requests with origins that a server should not trust, and judges the responses.
//!
//! All requests are GET or OPTIONS, without credentials and without a body. An audit sends one request at a time,
//! and at most [`MOST_REQUESTS`].

mod finding;
mod judge;
mod origins;
mod render;

use http::Method;

pub(crate) use self::finding::{Finding, FindingSeverity};
use self::origins::Origins;
pub(crate) use self::render::{json, text};
use super::{Transport, Trouble, WireReply, WireRequest, wire_fields};
use crate::explain::PageUrl;

/// Maximum number of requests of an audit.
pub(crate) const MOST_REQUESTS: usize = 40;

/// The audit stops after this number of requests in a row without a response.
const MOST_FAILURES: usize = 3;

/// The result of an audit.
#[derive(Debug)]
pub(crate) struct Audit {
    url: String,
    trusted: Option<String>,
    /// Findings, with the most severe first.
    findings: Vec<Finding>,
    /// All requests with a response.
    samples: Vec<Sample>,
    /// Further facts, as whole sentences for the user.
    notes: Vec<String>,
    /// The failure that ended the audit. None if the audit is complete.
    trouble: Option<Trouble>,
    requests: usize,
}

/// A request of an audit with its response.
#[derive(Debug, Clone)]
struct Sample {
    purpose: Purpose,
    origin: Option<String>,
    method: Method,
    /// The header fields of the request.
    fields: Vec<(String, String)>,
    reply: WireReply,
}

/// The purpose of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// A request without an Origin.
    NoOrigin,
    /// An origin that the server trusts, from the user.
    Trusted,
    /// An origin unrelated to the server.
    Foreign,
    /// The origin `null`.
    Null,
    /// An origin that a faulty comparison accepts as trusted.
    LookAlike(LookAlike),
    /// The preflight of the trusted origin.
    TrustedPreflight,
    /// The preflight of a foreign origin.
    ForeignPreflight,
    /// OPTIONS with an Origin, but without `Access-Control-Request-Method`: no preflight.
    OriginOptions,
    /// OPTIONS without an Origin.
    PlainOptions,
}

/// The fault that a look-alike origin tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LookAlike {
    /// `https://api.example.attacker`: the server compares only the beginning.
    Prefix,
    /// `https://attackerapi.example`: the server compares only the end.
    Suffix,
    /// `https://apiXexample`: a regular expression has a dot without an escape.
    Dot,
    /// `https://pi.example`: the server searches for the origin inside the trusted one.
    Part,
    /// `https://api.example_.attacker`: browsers accept this character in hosts, but a pattern may not expect it.
    Special,
    /// A subdomain that does not exist.
    Subdomain,
    /// The same host with `http` instead of `https`.
    Downgrade,
    /// The same host with another port.
    Port,
    /// The origin of a service on which everybody can publish pages.
    SharedHost,
    /// An origin of the user's own machine.
    Localhost,
}

impl Audit {
    /// Audits a URL. `trusted` is an origin that the server allows. None if the user gives no origin.
    pub(crate) fn of(url: &PageUrl, trusted: Option<&str>, transport: &mut dyn Transport) -> Self {
        let mut run = AuditRun { url, transport, samples: Vec::new(), requests: 0, failures: 0, trouble: None };
        let origins = Origins::of(url, trusted);
        run.get(Purpose::NoOrigin, None);
        if let Some(trusted) = trusted {
            run.get(Purpose::Trusted, Some(trusted));
        }
        run.get(Purpose::Foreign, Some(origins.foreign()));
        run.get(Purpose::Null, Some("null"));
        // A server that allows a foreign origin allows the look-alikes too, so they are not sent.
        let is_open = judge::is_open(&run.samples);
        for (kind, origin) in origins.look_alikes().iter().filter(|_| !is_open) {
            run.get(Purpose::LookAlike(*kind), Some(origin));
        }
        run.options(Purpose::ForeignPreflight, Some(origins.foreign()), Some("DELETE"), Some(FOREIGN_HEADER));
        if let Some(trusted) = trusted {
            // A simple GET has no custom header, so this preflight tests only the origin.
            run.options(Purpose::TrustedPreflight, Some(trusted), Some("GET"), None);
        }
        run.options(Purpose::OriginOptions, Some(trusted.unwrap_or(origins.foreign())), None, None);
        run.options(Purpose::PlainOptions, None, None, None);
        let AuditRun { samples, requests, trouble, failures, .. } = run;
        let (mut findings, notes) = judge::judge(&samples, trusted);
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        // A few failures do not end the audit, because a firewall may drop a single request, such as one with `Origin:
        // null`.
        let trouble = trouble.filter(|_| failures >= MOST_FAILURES || samples.is_empty());
        Audit { url: url.to_string(), trusted: trusted.map(str::to_owned), findings, samples, notes, trouble, requests }
    }

    /// Returns the failure that ended the audit. Returns None if the audit is complete.
    pub(crate) fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// Returns the severity of the worst finding. Returns None without findings.
    pub(crate) fn worst(&self) -> Option<FindingSeverity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

/// A request header that servers do not use.
const FOREIGN_HEADER: &str = "x-corsgate-probe";

/// The state of an audit: its requests until now.
struct AuditRun<'a> {
    url: &'a PageUrl,
    transport: &'a mut dyn Transport,
    samples: Vec<Sample>,
    requests: usize,
    /// Number of failures in a row.
    failures: usize,
    trouble: Option<Trouble>,
}

impl AuditRun<'_> {
    fn get(&mut self, purpose: Purpose, origin: Option<&str>) {
        self.send(purpose, Method::GET, origin, Vec::new());
    }

    fn options(&mut self, purpose: Purpose, origin: Option<&str>, method: Option<&str>, headers: Option<&str>) {
        let requested = [("Access-Control-Request-Method", method), ("Access-Control-Request-Headers", headers)];
        let requested = requested.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
        self.send(purpose, Method::OPTIONS, origin, requested.collect());
    }

    fn send(&mut self, purpose: Purpose, method: Method, origin: Option<&str>, requested: Vec<(String, String)>) {
        let is_over = self.failures >= MOST_FAILURES || (self.samples.is_empty() && self.failures > 0);
        if is_over || self.requests == MOST_REQUESTS {
            return;
        }
        self.requests += 1;
        let mut fields: Vec<(String, String)> =
            origin.into_iter().map(|origin| ("Origin".to_owned(), origin.to_owned())).collect();
        fields.extend(requested);
        let request = WireRequest {
            url: self.url.clone(),
            method: method.clone(),
            fields: wire_fields(&method, self.url, &fields, "cross-site"),
        };
        match self.transport.send(&request) {
            Ok(reply) => {
                self.failures = 0;
                self.samples.push(Sample { purpose, origin: origin.map(str::to_owned), method, fields, reply });
            }
            Err(trouble) => {
                self.failures += 1;
                self.trouble = Some(trouble);
            }
        }
    }
}
