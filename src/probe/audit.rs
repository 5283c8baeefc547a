//! `probe --audit`: sends origins that a server should not trust, and judges the responses.
//!
//! All requests are GET or OPTIONS without credentials and a body. There are at most [`MOST_REQUESTS`], one after the
//! other.

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
    /// The worst are first.
    findings: Vec<Finding>,
    /// All requests with a response.
    samples: Vec<Sample>,
    /// Further facts, as whole sentences.
    notes: Vec<String>,
    /// Why the audit has no result, or ended early.
    trouble: Option<Trouble>,
    requests: usize,
}

/// A request of an audit with its response.
#[derive(Debug, Clone)]
struct Sample {
    purpose: Purpose,
    origin: Option<String>,
    method: Method,
    /// The fields that matter to CORS.
    fields: Vec<(String, String)>,
    reply: WireReply,
}

/// What a request tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// A request without an Origin.
    NoOrigin,
    /// The origin that the server trusts.
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
    /// `https://api.example.attacker`: the beginning is compared.
    Prefix,
    /// `https://attackerapi.example`: the end is compared.
    Suffix,
    /// `https://apiXexample`: a dot of a regular expression is not escaped.
    Dot,
    /// `https://pi.example`: the trusted host includes the text.
    Part,
    /// `https://api.example_.attacker`: a character that browsers accept in hosts, and patterns do not consider.
    Special,
    /// Any subdomain.
    Subdomain,
    /// `http` instead of `https`.
    Downgrade,
    /// Another port.
    Port,
    /// A service on which everybody can publish pages.
    SharedHost,
    /// A page on the user's machine.
    Localhost,
}

impl Audit {
    /// Audits a URL. `trusted` is an origin that the server allows. None if the user names none.
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
            // The request needs no permission of a CORS policy.
            run.options(Purpose::TrustedPreflight, Some(trusted), Some("GET"), None);
        }
        run.options(Purpose::OriginOptions, Some(trusted.unwrap_or(origins.foreign())), None, None);
        run.options(Purpose::PlainOptions, None, None, None);
        let AuditRun { samples, requests, trouble, failures, .. } = run;
        let (mut findings, notes) = judge::judge(&samples, trusted);
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        // A single failure, such as a firewall that drops `Origin: null`, does not make the result worthless.
        let trouble = trouble.filter(|_| failures >= MOST_FAILURES || samples.is_empty());
        Audit { url: url.to_string(), trusted: trusted.map(str::to_owned), findings, samples, notes, trouble, requests }
    }

    /// Why the audit has no complete result.
    pub(crate) fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// The severity of the worst finding.
    pub(crate) fn worst(&self) -> Option<FindingSeverity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

/// A header that no server knows.
const FOREIGN_HEADER: &str = "x-corsgate-probe";

/// The requests of an audit, so far.
struct AuditRun<'a> {
    url: &'a PageUrl,
    transport: &'a mut dyn Transport,
    samples: Vec<Sample>,
    requests: usize,
    /// Failures in a row.
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
