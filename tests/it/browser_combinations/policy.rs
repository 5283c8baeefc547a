//! Random policies.

use std::fmt::Write as _;

use corsgate::snapshot::{CompileEnv, load};
use fastrand::Rng;

use super::LISTENER;
use super::request::{Page, PageRequest, Responder};

/// A random policy. `text` is the value of `cors`, and the other fields describe the intention.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) text: String,
    origins: Vec<Origin>,
    methods: Names,
    headers: Names,
    credentials: bool,
    exposes_total: bool,
    rejects_cross_site: bool,
}

/// An entry of `allow_origins`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    App,
    BelowApp,
    LabelOfOther,
    Null,
    Any,
}

#[derive(Debug)]
pub(super) enum Names {
    Any,
    Listed(Vec<&'static str>),
}

impl Policy {
    /// Returns a random policy without errors.
    pub(super) fn random(random: &mut Rng, port: u16) -> Self {
        loop {
            let policy = Self::guess(random, port);
            let text = configuration(&[&policy.text], LISTENER, "127.0.0.1:8000");
            if load(&text, CompileEnv::NONE).snapshot.is_some() {
                return policy;
            }
        }
    }

    fn guess(random: &mut Rng, port: u16) -> Self {
        let mut some = |all: &[Origin]| -> Vec<Origin> { all.iter().copied().filter(|_| random.bool()).collect() };
        let mut origins = some(&[Origin::App, Origin::BelowApp, Origin::LabelOfOther, Origin::Null]);
        if origins.is_empty() || random.u8(..) < 40 {
            origins = vec![Origin::Any];
        }
        let written: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.text(port))).collect();
        let methods = Names::random(random, &["PUT", "DELETE", "PATCH", "patch", "QUERY"]);
        let headers = Names::random(random, &["Content-Type", "X-A", "Authorization"]);
        let (credentials, exposes_total) = (random.bool(), random.bool());
        let rejects_cross_site = random.u8(..) < 60;
        let mut text = format!(
            "{{ allow_origins: [{}], allow_methods: {}, allow_headers: {}",
            written.join(", "),
            methods.text(),
            headers.text()
        );
        for (key, is_set) in [
            ("allow_credentials: true", credentials),
            ("expose_headers: [X-Total]", exposes_total),
            ("dangerously_allow: [null_origin]", origins.contains(&Origin::Null)),
            ("disallowed_origins: reject", random.u8(..) < 60),
            ("cross_site: reject", rejects_cross_site),
            ("cross_origin_resource_policy: same-origin", random.u8(..) < 30),
            ("max_age: 0", random.u8(..) < 60),
        ] {
            if is_set {
                let _ = write!(text, ", {key}");
            }
        }
        Policy { text: text + " }", origins, methods, headers, credentials, exposes_total, rejects_cross_site }
    }

    /// Returns true if the request has `Authorization`, and the policy answers with `Access-Control-Allow-Headers: *`.
    pub(super) fn has_star_without_authorization(&self, request: &PageRequest) -> bool {
        let has_star = self.headers.are_any() && !self.credentials;
        has_star && request.has_authorization()
    }

    /// Returns true if the policy allows all methods, or all headers.
    pub(super) fn has_star(&self) -> bool {
        self.methods.are_any() || self.headers.are_any()
    }

    /// Returns the letter of `page.js` that a request of `fetch()` should have, by the fields of the policy alone.
    pub(super) fn intended_letter(&self, request: &PageRequest) -> char {
        // The policy of the host after the redirect allows no credentials.
        let is_refused_there = request.responder == Responder::RedirectAway && request.credentials;
        let is_allowed = self.intends(request) && self.intends(request.first()) && !is_refused_there;
        match (is_allowed, self.exposes_total && request.responder.has_total()) {
            (false, _) => 'r',
            (true, false) => 'a',
            (true, true) => 't',
        }
    }

    /// Returns whether the policy allows a request of `fetch()`, by the fields of the policy alone.
    fn intends(&self, request: &PageRequest) -> bool {
        let origin = self.origins.iter().any(|entry| entry.allows(&request.page));
        let credentials = self.credentials || !request.credentials;
        let method = request.method.to_ascii_uppercase();
        // Browsers convert these methods to upper case.
        let method =
            if ["GET", "HEAD", "POST", "PUT", "DELETE"].contains(&&*method) { &*method } else { request.method };
        let may_use = ["GET", "HEAD", "POST"].contains(&method) || self.methods.have(method, false);
        let headers = request.headers.iter().all(|(name, value)| {
            let is_safelisted = *name == "Accept-Language" || *value == "text/plain";
            // With credentials, the gateway names the requested headers instead of `*`.
            is_safelisted || self.headers.have(name, *name == "Authorization" && !self.credentials)
        });
        // With `cross_site: reject`, `*` allows only reads.
        let is_read = ["GET", "HEAD"].contains(&method) || !self.rejects_cross_site || self.origins != [Origin::Any];
        origin && credentials && may_use && headers && is_read
    }
}

impl Origin {
    fn text(self, port: u16) -> String {
        match self {
            Origin::App => format!("http://app.localhost:{port}"),
            Origin::BelowApp => format!("http://*.app.localhost:{port}"),
            Origin::LabelOfOther => format!("http://o{{label}}.localhost:{port}"),
            Origin::Null => "null".to_owned(),
            Origin::Any => "*".to_owned(),
        }
    }

    fn allows(self, page: &Page) -> bool {
        matches!(
            (self, page),
            (Origin::Any, _)
                | (Origin::App, Page::Host("app"))
                | (Origin::BelowApp, Page::Host("b.app"))
                | (Origin::LabelOfOther, Page::Host("other"))
                | (Origin::Null, Page::Sandboxed)
        )
    }
}

impl Names {
    fn random(random: &mut Rng, all: &[&'static str]) -> Self {
        match random.u8(..) < 70 {
            true => Names::Any,
            false => Names::Listed(all.iter().copied().filter(|_| random.bool()).collect()),
        }
    }

    fn are_any(&self) -> bool {
        matches!(self, Names::Any)
    }

    fn text(&self) -> String {
        match self {
            Names::Any => "\"*\"".to_owned(),
            Names::Listed(names) => format!("[{}]", names.join(", ")),
        }
    }

    /// Returns whether the list has a name. With `needs_entry`, `*` does not cover the name.
    fn have(&self, name: &str, needs_entry: bool) -> bool {
        match self {
            Names::Any => !needs_entry,
            Names::Listed(names) => names.contains(&name),
        }
    }
}

/// Returns a configuration with one service for each policy: `p0.localhost`, `p1.localhost`, … Nothing listens at the node
/// of the paths below `/dead/`.
pub(super) fn configuration(policies: &[&str], listeners: &str, upstream: &str) -> String {
    let mut text = format!(
        "
listeners: [{listeners}]
access_log: {{ to: access.log }}
upstreams:
  api: {{ nodes: [{{ address: \"{upstream}\" }}] }}
  dead: {{ nodes: [{{ address: 127.0.0.1:1 }}] }}
services:
"
    );
    text.push_str(
        "  - name: moved
    hosts: [moved.localhost]
    upstream: api
    cors: { allow_origins: '*', allow_methods: '*', allow_headers: '*' }\n",
    );
    for (i, policy) in policies.iter().enumerate() {
        let _ = writeln!(
            text,
            "  - name: p{i}
    hosts: [p{i}.localhost]
    upstream: api
    cors: {policy}
    routes: [{{ name: dead, paths: [/dead/*], upstream: dead }}, {{ name: rest, paths: [/*] }}]"
        );
    }
    text
}
