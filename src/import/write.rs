//! Writes a model as the text of a configuration, with a comment at each place where the import made a decision.

use super::finding::{Finding, Outcome};
use super::limits;
use super::model::{Behaviors, Cors, EdgeAnswer, Edits, Key, Model, Policy, Route, Service, Timeouts, Upstream};
use super::{SourceFile, SourceFormat};
use crate::cors::PreflightMatch;
use crate::notation::{quoted, scalar};

/// Width of comments and of lists on one line, in columns.
const WIDTH: usize = 118;

/// Returns the text of the configuration.
pub(super) fn write(model: &Model, format: SourceFormat, files: &[SourceFile<'_>]) -> String {
    let mut out = Writer { text: String::new(), format, files };
    let names: Vec<&str> = files.iter().map(|file| file.name).collect();
    out.comment(0, &format!("Imported by `corsgate import --from {}` from {}.", format.word(), names.join(", ")));
    out.comment(
        0,
        "Comments mark the decisions of the import. The report lists the same decisions with example requests.",
    );
    let decided = model.findings.iter().filter(|finding| finding.kind.outcome() > Outcome::Kept);
    decided.for_each(|finding| out.finding(0, finding));
    out.line(0, "listeners:");
    out.line(1, "- address: 0.0.0.0:9080   # choose the address; add `tls` for https");
    if let Some(bytes) = model.body_limit {
        out.line(0, &format!("limits: {{ body: {} }}", limits::size_text(bytes)));
    }
    out.upstreams(model);
    if let Some(policy) = &model.cors {
        out.policy(0, policy);
    }
    out.line(0, "services:");
    model.services.iter().for_each(|service| out.service(service));
    out.text
}

struct Writer<'f> {
    text: String,
    format: SourceFormat,
    files: &'f [SourceFile<'f>],
}

impl Writer<'_> {
    fn line(&mut self, level: usize, text: &str) {
        self.text.push_str(&"  ".repeat(level));
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// Writes `key: value`. Quotes the value if necessary.
    fn pair(&mut self, level: usize, key: &str, value: &str) {
        self.line(level, &format!("{key}: {}", scalar(value)));
    }

    fn list(&mut self, level: usize, key: &str, entries: &[String]) {
        let one_line = format!("{key}: [{}]", entries.iter().map(|entry| scalar(entry)).collect::<Vec<_>>().join(", "));
        if level * 2 + one_line.len() <= WIDTH {
            return self.line(level, &one_line);
        }
        self.line(level, &format!("{key}:"));
        entries.iter().for_each(|entry| self.line(level + 1, &format!("- {}", scalar(entry))));
    }

    fn comment(&mut self, level: usize, text: &str) {
        let indent = "  ".repeat(level);
        let mut line = format!("{indent}#");
        for word in printable_words(text) {
            if line.chars().count() + 1 + word.chars().count() > WIDTH && line.len() > indent.len() + 1 {
                self.text.push_str(&line);
                self.text.push('\n');
                line = format!("{indent}#  ");
            }
            line.push(' ');
            line.push_str(&word);
        }
        self.text.push_str(&line);
        self.text.push('\n');
    }

    fn finding(&mut self, level: usize, finding: &Finding) {
        let described = finding.kind.describe(self.format);
        let file = match self.files {
            [_] => "line ".to_owned(),
            files => files.get(finding.at.file).map(|file| format!("{}:", file.name)).unwrap_or_default(),
        };
        let text = format!("{} ({file}{}): {}", described.outcome.word(), finding.at.line, described.text);
        self.comment(level, &text);
    }

    fn upstreams(&mut self, model: &Model) {
        let of_service = |service: &Service| {
            let own = service.upstream.iter().cloned();
            own.chain(service.routes.iter().filter_map(|route| route.upstream.clone())).collect::<Vec<_>>()
        };
        let mut all: Vec<Upstream> = Vec::new();
        for upstream in model.services.iter().flat_map(of_service) {
            if !all.iter().any(|known| known.name == upstream.name) {
                all.push(upstream);
            }
        }
        if all.is_empty() {
            return;
        }
        self.line(0, "upstreams:");
        for upstream in all {
            self.line(1, &format!("{}:", scalar(&upstream.name)));
            self.line(2, "nodes:");
            for (address, weight) in &upstream.nodes {
                let weight = if *weight == 1 { String::new() } else { format!(", weight: {weight}") };
                self.line(3, &format!("- {{ address: {}{weight} }}", quoted(address)));
            }
            match &upstream.tls {
                Some(Some(name)) => self.line(2, &format!("tls: {{ sni: {} }}", quoted(name))),
                Some(None) => self.line(2, "tls: {}"),
                None => {}
            }
            let Timeouts { connect, read, write, total } = upstream.timeouts;
            let timeouts: Vec<String> = [("connect", connect), ("read", read), ("write", write), ("total", total)]
                .into_iter()
                .filter_map(|(key, time)| Some(format!("{key}: {}", duration(time?))))
                .collect();
            if !timeouts.is_empty() {
                self.line(2, &format!("timeouts: {{ {} }}", timeouts.join(", ")));
            }
        }
    }

    fn service(&mut self, service: &Service) {
        service.findings.iter().for_each(|finding| self.finding(1, finding));
        self.line(1, &format!("- name: {}", scalar(&service.name)));
        if !service.hosts.is_empty() {
            self.list(2, "hosts", &service.hosts);
        }
        if let Some(upstream) = &service.upstream {
            self.pair(2, "upstream", &upstream.name);
        }
        if service.host_of_node {
            self.line(2, "upstream_host: node");
        }
        self.cors(2, &service.cors);
        self.line(2, "routes:");
        service.routes.iter().for_each(|route| self.route(route));
    }

    fn route(&mut self, route: &Route) {
        route.findings.iter().for_each(|finding| self.finding(3, finding));
        self.line(3, &format!("- name: {}", scalar(&route.name)));
        self.list(4, "paths", &route.paths);
        if !route.methods.is_empty() {
            self.list(4, "methods", &route.methods);
            let lists = |name: &str| route.methods.iter().any(|method| method == name);
            // In all engines whose methods are imported, GET does not include HEAD.
            if lists("GET") && !lists("HEAD") {
                self.line(4, "get_implies_head: false");
            }
        }
        let Behaviors { strip_prefix, replace, add_prefix, allow, deny, host, request_headers, response_headers } =
            &route.behaviors;
        if strip_prefix.is_some() || replace.is_some() || add_prefix.is_some() {
            self.line(4, "path:");
            if let Some(prefix) = strip_prefix {
                self.pair(5, "strip_prefix", prefix);
            }
            if let Some((pattern, with)) = replace {
                self.line(5, &format!("replace: {{ pattern: {}, with: {} }}", quoted(pattern), quoted(with)));
            }
            if let Some(prefix) = add_prefix {
                self.pair(5, "add_prefix", prefix);
            }
        }
        if !allow.is_empty() || !deny.is_empty() {
            self.line(4, "clients:");
            for (key, entries) in [("allow", allow), ("deny", deny)] {
                if !entries.is_empty() {
                    self.list(5, key, entries);
                }
            }
        }
        if let Some(host) = host {
            self.pair(4, "upstream_host", host);
        }
        self.edits("request_headers", request_headers);
        self.edits("response_headers", response_headers);
        match (&route.answer, &route.upstream) {
            (Some(EdgeAnswer::Respond(status)), _) => self.line(4, &format!("respond: {{ status: {status} }}")),
            (Some(EdgeAnswer::Redirect { to, status }), _) => {
                self.line(4, &format!("redirect: {{ to: {}, status: {status} }}", quoted(to)));
            }
            (None, Some(upstream)) => self.pair(4, "upstream", &upstream.name),
            (None, None) => {}
        }
        self.cors(4, &route.cors);
    }

    fn edits(&mut self, key: &str, edits: &Edits) {
        let Edits { remove, set, add } = edits;
        if *edits == Edits::default() {
            return;
        }
        self.line(4, &format!("{key}:"));
        if !remove.is_empty() {
            self.list(5, "remove", remove);
        }
        for (key, fields) in [("set", set), ("add", add)].into_iter().filter(|(_, fields)| !fields.is_empty()) {
            self.line(5, &format!("{key}:"));
            fields.iter().for_each(|(name, value)| self.line(6, &format!("{}: {}", scalar(name), quoted(value))));
        }
    }

    fn cors(&mut self, level: usize, cors: &Cors) {
        match cors {
            Cors::Inherited => {}
            Cors::Off => self.line(level, "cors: false"),
            Cors::Policy(policy) => self.policy(level, policy),
        }
    }

    fn policy(&mut self, level: usize, policy: &Policy) {
        let about = |key: Key| policy.findings.iter().filter(move |(of, _)| *of == key).map(|(_, finding)| finding);
        about(Key::Policy).for_each(|finding| self.finding(level, finding));
        self.line(level, "cors:");
        let level = level + 1;
        about(Key::Origins).for_each(|finding| self.finding(level, finding));
        let lists = [
            ("allow_origins", &policy.origins),
            ("allow_origins_by_regex", &policy.expressions),
            ("timing_allow_origins", &policy.timing_origins),
            ("timing_allow_origins_by_regex", &policy.timing_expressions),
        ];
        for (key, entries) in lists.into_iter().filter(|(_, entries)| !entries.is_empty()) {
            self.list(level, key, entries);
        }
        about(Key::Methods).for_each(|finding| self.finding(level, finding));
        self.list(level, "allow_methods", &policy.methods);
        about(Key::Headers).for_each(|finding| self.finding(level, finding));
        self.list(level, "allow_headers", &policy.headers);
        about(Key::Expose).for_each(|finding| self.finding(level, finding));
        if !policy.expose.is_empty() {
            self.list(level, "expose_headers", &policy.expose);
        }
        about(Key::Credentials).for_each(|finding| self.finding(level, finding));
        if policy.credentials {
            self.line(level, "allow_credentials: true");
        }
        let dangers: Vec<String> = policy.dangers.iter().map(|danger| danger.word().to_owned()).collect();
        if !dangers.is_empty() {
            self.list(level, "dangerously_allow", &dangers);
        }
        about(Key::MaxAge).for_each(|finding| self.finding(level, finding));
        self.line(level, &format!("max_age: {}", policy.max_age));
        if policy.private_network {
            self.line(level, "allow_private_network: true");
        }
        about(Key::Preflight).for_each(|finding| self.finding(level, finding));
        let matches = match policy.preflight {
            PreflightMatch::Standard => Some("standard"),
            PreflightMatch::Origin => None,
            PreflightMatch::Any => Some("any"),
        };
        let mut preflight: Vec<String> = matches.map(|word| format!("match: {word}")).into_iter().collect();
        if policy.status != 200 {
            preflight.push(format!("status: {}, refused_status: {}", policy.status, policy.status));
        }
        if !preflight.is_empty() {
            self.line(level, &format!("preflight: {{ {} }}", preflight.join(", ")));
        }
    }
}

fn duration(milliseconds: u64) -> String {
    match milliseconds % 1000 {
        0 => format!("{}s", milliseconds / 1000),
        _ => format!("{milliseconds}ms"),
    }
}

/// Splits the text of a comment into words. Line breaks become spaces, so that a text of the source cannot end the
/// comment.
fn printable_words(text: &str) -> Vec<String> {
    crate::terminal::printable(&text.replace('\n', " "))
        .split(' ')
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}
