//! The plugins of APISIX besides `cors`: paths, header fields, redirects and client addresses.

use std::sync::LazyLock;

use regex::Regex;

use super::{Object, Objects, policy};
use crate::import::clients::{self, Access};
use crate::import::edits::{self, Edit, Target};
use crate::import::finding::{Finding, Kind, Place};
use crate::import::model::{Behaviors, Cors, EdgeAnswer, Edits};
use crate::import::paths;
use crate::import::value::Value;

/// A plugin, and the object that has it.
pub(super) type Plugin<'v> = (Object<'v>, &'v str, &'v Value);

/// Returns the plugins of several objects. In APISIX, the first object that has a plugin counts.
pub(super) fn of<'v>(levels: &[Object<'v>]) -> Vec<Plugin<'v>> {
    let mut all: Vec<Plugin<'v>> = Vec::new();
    for level in levels {
        for (name, conf) in level.value.get("plugins").map(Value::map).unwrap_or_default() {
            if !all.iter().any(|(_, known, _)| *known == &**name) {
                all.push((*level, name, conf));
            }
        }
    }
    all
}

/// Reads plugins: the policy, the path rewriting and the client addresses. Adds a finding for each plugin that has no
/// counterpart.
pub(super) fn plugins<'v>(
    plugins: &[Plugin<'v>],
    objects: &Objects<'v>,
    findings: &mut Vec<Finding>,
) -> (Cors, Behaviors) {
    let (mut cors, mut behaviors) = (Cors::Inherited, Behaviors::default());
    for (object, name, conf) in plugins {
        let at = object.at(conf);
        match *name {
            _ if is_disabled(conf) => {}
            "cors" => match policy(format!("plugin `cors` of `{}`", object.id()), conf, at, objects) {
                Ok(policy) => {
                    let (of_policy, said) = Cors::of(policy);
                    cors = of_policy;
                    findings.extend(said);
                }
                Err(said) => {
                    cors = Cors::Off;
                    findings.extend(said);
                }
            },
            "proxy-rewrite" => match rewriting(conf, object.file, findings) {
                Some(Behaviors { strip_prefix, replace, add_prefix, host, request_headers, .. }) => {
                    behaviors = Behaviors { strip_prefix, replace, add_prefix, host, request_headers, ..behaviors };
                }
                None => findings.push(plugin(name, at)),
            },
            // The function `route` reads this plugin, because such a route has no upstream.
            "redirect" if redirect(object).is_some() => {
                if conf.get("http_to_https").is_some() {
                    findings.push(Finding::new(at, Kind::RedirectStatus { status: HTTPS_STATUS }));
                }
            }
            "fault-injection" if abort(object).is_some() => {
                if let Some(body) = conf.at(&["abort", "body"]) {
                    let name = "the body of the plugin `fault-injection`".to_owned();
                    findings.push(Finding::new(object.at(body), Kind::Feature { name }));
                }
            }
            "client-control" if conf.map().iter().all(|(key, _)| ["max_body_size", "_meta"].contains(&&**key)) => {}
            "response-rewrite" if edits_only_headers(conf) => {
                if let Some(headers) = conf.get("headers") {
                    edit_headers(&mut behaviors.response_headers, headers, object.file, findings);
                }
            }
            "ip-restriction" => {
                for (key, access) in [("whitelist", Access::Allow), ("blacklist", Access::Deny)] {
                    let entries = conf.get(key).map(Value::texts).unwrap_or_default();
                    findings.extend(clients::add(&mut behaviors, access, entries, object.file));
                }
            }
            _ => findings.push(plugin(name, at)),
        }
    }
    (cors, behaviors)
}

pub(super) fn plugin(name: &str, at: Place) -> Finding {
    Finding::new(at, Kind::Feature { name: format!("plugin `{name}`") })
}

/// Whether a plugin is not imported.
pub(super) fn is_lost(of: &Plugin<'_>, objects: &Objects<'_>) -> bool {
    let mut findings = Vec::new();
    let _ = plugins(&[*of], objects, &mut findings);
    let (object, name, conf) = of;
    findings.iter().any(|finding| finding.kind == plugin(name, object.at(conf)).kind)
}

/// Whether a route can be served without this plugin, because the plugin only logs, measures, limits rates or changes
/// responses.
pub(super) fn is_harmless(name: &str) -> bool {
    name.ends_with("-logger") || HARMLESS.contains(&name)
}

const HARMLESS: [&str; 21] = [
    "api-breaker",
    "brotli",
    "client-control",
    "datadog",
    "echo",
    "google-cloud-logging",
    "gzip",
    "limit-conn",
    "limit-count",
    "limit-req",
    "node-status",
    "opentelemetry",
    "prometheus",
    "proxy-cache",
    "proxy-control",
    "proxy-mirror",
    "request-id",
    "response-rewrite",
    "server-info",
    "skywalking",
    "zipkin",
];

pub(super) fn is_disabled(conf: &Value) -> bool {
    conf.at(&["_meta", "disable"]).and_then(Value::truth) == Some(true)
        || conf.get("disable").and_then(Value::truth) == Some(true)
}

/// Reads the plugin `fault-injection` if it answers every request.
pub(super) fn abort(object: &Object<'_>) -> Option<EdgeAnswer> {
    let conf = object.value.at(&["plugins", "fault-injection"]).filter(|conf| !is_disabled(conf))?;
    let abort = conf.get("abort").filter(|abort| abort.get("vars").is_none())?;
    let is_always = abort.get("percentage").is_none_or(|share| share.number() == Some(100));
    let status = abort.get("http_status").and_then(Value::number).filter(|_| is_always)?;
    u16::try_from(status).ok().map(EdgeAnswer::Respond)
}

/// Reads the limit of the plugin `client-control`. No limit is 0.
pub(super) fn body_limit((_, name, conf): &Plugin<'_>) -> Option<u64> {
    let size = conf.get("max_body_size").filter(|_| *name == "client-control" && !is_disabled(conf))?;
    size.number().and_then(|size| u64::try_from(size).ok()).filter(|size| *size > 0)
}

/// Reads the plugin `redirect` of a route or service.
pub(super) fn redirect(object: &Object<'_>) -> Option<EdgeAnswer> {
    let conf = object.value.at(&["plugins", "redirect"]).filter(|conf| !is_disabled(conf))?;
    if conf.get("http_to_https").and_then(Value::truth) == Some(true) {
        return Some(EdgeAnswer::Redirect { to: "https://{host}{uri}".to_owned(), status: HTTPS_STATUS });
    }
    let only = ["uri", "ret_code", "_meta"];
    let uri = conf.text_of("uri").filter(|_| conf.map().iter().all(|(key, _)| only.contains(&&**key)))?;
    let to = match uri.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            Target {
                scheme: Some(scheme),
                host: Some(host),
                port: None,
                path: Some(if path.is_empty() { "/" } else { path }),
            }
        }
        None => Target { path: Some(uri), ..Target::default() },
    };
    let status = conf.get("ret_code").and_then(Value::number).unwrap_or(302);
    Some(EdgeAnswer::Redirect { to: to.text().ok()?, status: u16::try_from(status).ok()? })
}

/// The status of the redirect to https. APISIX sends 301 for GET and HEAD, and 308 for other methods.
const HTTPS_STATUS: u16 = 308;

/// Whether `response-rewrite` only changes header fields, and does so in every response.
fn edits_only_headers(conf: &Value) -> bool {
    conf.map().iter().all(|(key, _)| ["headers", "_meta"].contains(&&**key))
}

/// Reads the edits of header fields: `add`, `set` and `remove`. In the old form, these are names with values to set. In
/// `response-rewrite`, `add` is a list of texts.
fn edit_headers(edits: &mut Edits, headers: &Value, file: usize, findings: &mut Vec<Finding>) {
    let at = |value: &Value| Place { file, line: value.line };
    let is_new = headers
        .map()
        .iter()
        .all(|(key, value)| ["add", "set", "remove"].contains(&&**key) && (value.is_map() || value.text().is_none()));
    let mut put = |name: &str, edit: Edit<'_>, at: Place| match edit {
        Edit::Set(value) | Edit::Add(value) if value.contains('$') => {
            let kind = Kind::HeaderNotImported { name: name.to_owned(), why: "its value has a variable".to_owned() };
            findings.push(Finding::new(at, kind));
        }
        edit => edits::add(edits, name, edit, at, findings),
    };
    if !is_new {
        // An empty value removes the field.
        for (name, value) in headers.map() {
            match value.text().unwrap_or_default() {
                "" => put(name, Edit::Remove, at(value)),
                text => put(name, Edit::Set(text), at(value)),
            }
        }
        return;
    }
    for (line, name) in headers.get("remove").map(Value::texts).unwrap_or_default() {
        put(&name, Edit::Remove, Place { file, line });
    }
    for (name, value) in headers.get("set").map(Value::map).unwrap_or_default() {
        put(name, Edit::Set(value.text().unwrap_or_default()), at(value));
    }
    let Some(added) = headers.get("add") else { return };
    for (name, value) in added.map() {
        put(name, Edit::Add(value.text().unwrap_or_default()), at(value));
    }
    for (line, text) in if added.is_map() { Vec::new() } else { added.texts() } {
        if let Some((name, value)) = text.split_once(':') {
            put(name.trim(), Edit::Add(value.trim()), Place { file, line });
        }
    }
}

/// Reads `proxy-rewrite` if it changes only the path, the host and header fields.
fn rewriting(conf: &Value, file: usize, findings: &mut Vec<Finding>) -> Option<Behaviors> {
    let only = ["uri", "regex_uri", "host", "headers", "_meta"];
    if conf.map().iter().any(|(key, _)| !only.contains(&&**key)) {
        return None;
    }
    let mut request_headers = Edits::default();
    if let Some(headers) = conf.get("headers") {
        edit_headers(&mut request_headers, headers, file, findings);
    }
    let host = conf.text_of("host").filter(|host| !host.contains('$')).map(str::to_owned);
    let path = match conf.get("uri").or(conf.get("regex_uri")) {
        Some(_) => rewritten_path(conf)?,
        None => Behaviors::default(),
    };
    Some(Behaviors { host, request_headers, ..path })
}

fn rewritten_path(conf: &Value) -> Option<Behaviors> {
    let pairs = conf.get("regex_uri").map(Value::texts).unwrap_or_default();
    if let [(_, pattern), (_, with)] = &*pairs {
        let stripped = pattern.strip_prefix('^').and_then(|rest| rest.strip_suffix("(.*)")).filter(|_| with == "$1");
        if let Some(prefix) =
            stripped.filter(|prefix| paths::exact(prefix, Place::default()).0.is_some() && !prefix.ends_with('/'))
        {
            return Some(Behaviors { strip_prefix: Some(prefix.to_owned()), ..Behaviors::default() });
        }
        return replacement(pattern, with);
    }
    let uri = conf.text_of("uri")?;
    if uri.contains('$') || !uri.starts_with('/') {
        return None;
    }
    replacement("^.*$", uri)
}

/// Returns a replacement if corsgate can read the expression. Writes `$1` as `${1}`, because a letter may follow.
pub(in crate::import) fn replacement(pattern: &str, with: &str) -> Option<Behaviors> {
    static GROUP: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\$([0-9]+)").expect("the expression is valid"));
    let groups = Regex::new(pattern).ok()?.captures_len();
    let is_known = |text: &str| text.parse::<usize>().is_ok_and(|number| number < groups);
    if !GROUP.captures_iter(with).all(|found| is_known(&found[1])) || with.len() > 200 {
        return None;
    }
    let is_plain = with.bytes().all(|b| b.is_ascii_graphic() && !b"?#\\\"<>".contains(&b));
    let with = GROUP.replace_all(with, "$${$1}").into_owned();
    is_plain.then(|| Behaviors { replace: Some((pattern.to_owned(), with)), ..Behaviors::default() })
}
