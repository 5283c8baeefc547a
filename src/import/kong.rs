//! Kong: declarative files (decK, DB-less), and the Kubernetes resources `KongPlugin` and `KongClusterPlugin`.
//!
//! The behavior of Kong is taken from its source at 22246ef2:
//! <https://github.com/Kong/kong/blob/22246ef2/kong/plugins/cors/handler.lua> and `schema.lua`. `configure_origin`
//! sends a single plain origin to every page, without a comparison. If there are several plain origins, it removes
//! default ports and paths, and compares them. An entry with any other character is a regular expression. It is
//! anchored at its start, and Kong adds `$` at its end. `configure_credentials` reflects the origin for `*`.

use super::Parsed;
use super::apisix::node;
use super::clients::{self, Access};
use super::closed;
use super::finding::{Finding, Kind, Place};
use super::finish::left_out;
use super::kubernetes;
use super::limits;
use super::model::{Behaviors, Condition, Cors, EdgeAnswer, Key, Model, Policy, Route, Service, Upstream};
use super::value::Value;
use super::witness::{Answer, Witness};
use super::{origins, paths};
use crate::cors::PreflightMatch;

/// The default of `methods`, without the two methods that no browser sends.
const METHODS: [&str; 7] = ["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS"];

pub(super) fn shows_in(document: &Value) -> bool {
    let kind = |object: &Value| matches!(object.text_of("kind"), Some("KongPlugin" | "KongClusterPlugin"));
    document.get("_format_version").is_some() || kubernetes::objects(document).any(kind)
}

/// A declarative file.
#[derive(Clone, Copy)]
struct File<'v> {
    file: usize,
    value: &'v Value,
}

impl File<'_> {
    fn at(self, value: &Value) -> Place {
        Place { file: self.file, line: value.line }
    }

    /// Whether an expression begins with `~`, as in 3.0 and later. In earlier versions, a path with an unusual
    /// character is an expression.
    fn marks_expressions(self) -> bool {
        let version = self.value.text_of("_format_version").unwrap_or("3.0");
        version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_none_or(|major| major >= 3)
    }
}

pub(super) fn read(files: &[Parsed<'_>], model: &mut Model) {
    for parsed in files {
        for document in parsed.documents {
            match document.get("_format_version").is_some() || document.get("services").is_some() {
                true => declarative(File { file: parsed.file, value: document }, model),
                false => kubernetes::objects(document).for_each(|object| resource(parsed.file, object, model)),
            }
        }
    }
}

/// Reads a plugin that is a Kubernetes resource. The resource does not name its routes. Annotations of other objects
/// refer to it.
fn resource(file: usize, object: &Value, model: &mut Model) {
    let at = Place { file, line: object.line };
    match (object.text_of("kind"), object.text_of("plugin")) {
        (Some("KongPlugin" | "KongClusterPlugin"), Some("cors")) => {
            let name = format!("KongPlugin `{}`", kubernetes::name(object));
            let empty = Value { line: object.line, node: super::value::Node::Map([].into()) };
            let policy = policy(name, object.get("config").unwrap_or(&empty), file);
            let (cors, findings) = Cors::of(policy);
            model.findings.extend(findings);
            model.services.push(Service::placeholder(kubernetes::name(object), at, cors, None));
        }
        (Some("KongPlugin" | "KongClusterPlugin"), Some(plugin)) => {
            model.findings.push(Finding::new(at, Kind::Feature { name: format!("plugin `{plugin}`") }));
        }
        (kind, _) => {
            let kind = kind.unwrap_or("an object without a kind").to_owned();
            model.findings.push(Finding::new(at, Kind::OtherObject { kind }));
        }
    }
}

fn declarative(file: File<'_>, model: &mut Model) {
    let plugins = file.value.list("plugins");
    // A plugin of a service or route can also be in the top-level list, with a reference.
    let of = |scope: &str, name: &str| -> Vec<&Value> {
        plugins.iter().filter(|plugin| reference(plugin, scope).is_some_and(|of| of == name)).collect()
    };
    let is_global =
        |plugin: &&Value| ["service", "route", "consumer"].iter().all(|scope| reference(plugin, scope).is_none());
    let global: Vec<&Value> = plugins.iter().filter(is_global).collect();
    let (found, findings) = cors_of("global plugin `cors`", &global, file);
    model.findings.extend(findings);
    match found {
        Some(Cors::Policy(policy)) => model.cors = Some(*policy),
        Some(Cors::Inherited | Cors::Off) | None => {}
    }
    let mut routes: Vec<(&Value, &Value)> = Vec::new();
    for service in file.value.list("services") {
        routes.extend(service.list("routes").iter().map(|route| (service, route)));
        let name = service.text_of("name").unwrap_or_default();
        let apart =
            file.value.list("routes").iter().filter(|route| reference(route, "service").is_some_and(|of| of == name));
        routes.extend(apart.map(|route| (service, route)));
    }
    // Without a service, a route has only answers of its plugins.
    let nowhere = Value { line: file.value.line, node: super::value::Node::Map([].into()) };
    let is_known = |name: &str| file.value.list("services").iter().any(|of| of.text_of("name") == Some(name));
    let alone = file.value.list("routes").iter().filter(|route| !reference(route, "service").is_some_and(is_known));
    routes.extend(alone.map(|route| (&nowhere, route)));
    let named = |value: &Value, otherwise: &str| value.text_of("name").unwrap_or(otherwise).to_owned();
    for service in file.value.list("services").iter().chain([&nowhere]) {
        let name = named(service, "service");
        if service.get("enabled").and_then(Value::truth) == Some(false) {
            let kind = Kind::Feature { name: "services with `enabled: false`".to_owned() };
            model.findings.push(Finding::new(file.at(service), kind));
            continue;
        }
        let mut findings = Vec::new();
        let of_service: Vec<&Value> = service.list("plugins").iter().chain(of("service", &name)).collect();
        let (cors, said) = cors_of(&format!("plugin `cors` of service `{name}`"), &of_service, file);
        findings.extend(said);
        let found = upstream(service, file, &mut findings);
        let (upstream, base) = found.map_or((None, None), |(upstream, base)| (Some(upstream), base));
        // A corsgate service has one list of hosts, so routes with other hosts form another service.
        let mut services: Vec<Service> = Vec::new();
        for (_, route) in routes.iter().filter(|(of, _)| std::ptr::eq(*of, service)) {
            let hosts: Vec<String> = texts(route, "hosts");
            let host_of_node = route.get("preserve_host").and_then(Value::truth) != Some(true);
            let known = services.iter().position(|known| known.hosts == hosts && known.host_of_node == host_of_node);
            let index = known.unwrap_or_else(|| {
                services.push(Service {
                    name: name.clone(),
                    at: file.at(service),
                    hosts,
                    upstream: upstream.clone(),
                    cors: cors.as_ref().map(Cors::again).unwrap_or_default(),
                    host_of_node,
                    listener: None,
                    routes: Vec::new(),
                    findings: Vec::new(),
                });
                services.len() - 1
            });
            let into = &mut services[index];
            if host_of_node && into.routes.is_empty() {
                into.findings.push(Finding::new(file.at(service), Kind::HostHeaderOfNode));
            }
            let own: Vec<&Value> = route.list("plugins").iter().chain(of("route", &named(route, ""))).collect();
            // The `ip-restriction` of the nearest level applies.
            let levels = [&own, &of_service, &global];
            let restrictions = levels.map(|level| enabled(level, "ip-restriction"));
            let restrictions =
                restrictions.iter().find(|level| !level.is_empty()).map(Vec::as_slice).unwrap_or_default();
            let answer = levels.iter().find_map(|level| termination(level));
            let body_limit = levels.iter().find_map(|level| body_limit(level));
            let policy = match (&into.cors, &model.cors) {
                (Cors::Policy(policy), _) => Some(&**policy),
                (_, global) => global.as_ref(),
            };
            let mut new = self::routes(route, &own, base.as_deref(), restrictions, policy, file, &mut into.findings);
            for one in &mut new {
                one.answer.clone_from(&answer);
                one.body_limit = body_limit;
                if answer.is_none() && upstream.is_none() {
                    one.findings.push(Finding::new(one.at, Kind::WithoutUpstream));
                    closed::close(one);
                }
            }
            into.routes.extend(new);
        }
        // The file is only a part: this service has a policy but no routes.
        if let (true, Some(cors @ Cors::Policy(_))) = (services.is_empty(), cors) {
            services.push(Service::placeholder(&name, file.at(service), cors, upstream));
        }
        match services.first_mut() {
            Some(first) => first.findings.splice(0..0, findings).for_each(drop),
            None => left_out(&mut model.findings, &mut findings),
        }
        model.services.append(&mut services);
    }
    for (key, name) in
        [("consumers", "consumers"), ("certificates", "certificates"), ("ca_certificates", "CA certificates")]
    {
        if let Some(value) = file.value.get(key).filter(|value| !value.entries().is_empty()) {
            model.findings.push(Finding::new(file.at(value), Kind::Feature { name: name.to_owned() }));
        }
    }
}

/// Returns the enabled plugins with a name.
fn enabled<'v>(plugins: &[&'v Value], name: &str) -> Vec<&'v Value> {
    let is_on = |plugin: &Value| plugin.get("enabled").and_then(Value::truth) != Some(false);
    plugins.iter().filter(|plugin| plugin.text_of("name") == Some(name) && is_on(plugin)).copied().collect()
}

/// Reads the plugin `request-size-limiting`. Its default is 128 megabytes.
fn body_limit(plugins: &[&Value]) -> Option<u64> {
    let plugin = *enabled(plugins, "request-size-limiting").first()?;
    let config = plugin.get("config").unwrap_or(plugin);
    let size = config.get("allowed_payload_size").map_or(Some(128), Value::number)?;
    let shift = match config.text_of("size_unit").unwrap_or("megabytes") {
        "bytes" => 0,
        "kilobytes" => 10,
        "megabytes" => 20,
        _ => return None,
    };
    u64::try_from(size).ok()?.checked_mul(1 << shift)
}

/// Reads the plugin `request-termination` if it answers every request.
fn termination(plugins: &[&Value]) -> Option<EdgeAnswer> {
    let plugin = *enabled(plugins, "request-termination").first()?;
    let config = plugin.get("config").unwrap_or(plugin);
    if config.get("trigger").is_some() || config.get("echo").and_then(Value::truth) == Some(true) {
        return None;
    }
    let status = config.get("status_code").and_then(Value::number).unwrap_or(503);
    u16::try_from(status).ok().map(EdgeAnswer::Respond)
}

/// Reads a reference: `service: name`, or `service: { name: name }`.
fn reference<'v>(value: &'v Value, scope: &str) -> Option<&'v str> {
    let of = value.get(scope)?;
    of.text().or(of.text_of("name")).or(of.text_of("id"))
}

fn texts(value: &Value, key: &str) -> Vec<String> {
    value.get(key).map(Value::texts).unwrap_or_default().into_iter().map(|(_, text)| text).collect()
}

fn routes(
    route: &Value,
    plugins: &[&Value],
    base: Option<&str>,
    restrictions: &[&Value],
    inherited: Option<&Policy>,
    file: File<'_>,
    of_service: &mut Vec<Finding>,
) -> Vec<Route> {
    let at = file.at(route);
    let conditions = [
        ("headers", "headers"),
        ("snis", "the server name of TLS"),
        ("sources", "the address of the client"),
        ("destinations", "the address of Kong"),
        ("expression", "an expression"),
    ];
    let condition = conditions.into_iter().find(|(key, _)| route.get(key).is_some());
    let condition = condition.map(|(key, what)| match route.get(key).filter(|_| key == "headers") {
        Some(headers) => {
            let fields = headers.map().iter();
            let first = fields.filter_map(|(name, values)| Some((name.to_string(), values.texts().first()?.1.clone())));
            Condition::headers(first.collect())
        }
        None => Condition::new(what),
    });
    let name = route.text_of("name").unwrap_or("route");
    let (cors, mut findings) = cors_of(&format!("plugin `cors` of route `{name}`"), plugins, file);
    let methods = texts(route, "methods");
    let policy = match &cors {
        Some(Cors::Policy(policy)) => Some(&**policy),
        Some(Cors::Off | Cors::Inherited) => None,
        None => inherited,
    };
    if let Some(policy) = policy.filter(|_| !methods.is_empty() && !methods.iter().any(|method| method == "OPTIONS")) {
        let asked = methods.first().cloned().unwrap_or_default();
        let witness = Witness::preflight(&asked, &policy.sample_origin(), Answer::NotRouted);
        findings.push(Finding::new(at, Kind::OptionsNotRouted { methods: methods.clone() }).with(witness));
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/-_~.%".contains(c);
    let expression_in = |path: &str| match file.marks_expressions() {
        true => path.strip_prefix('~').map(str::to_owned),
        false => (!path.chars().all(is_plain)).then(|| path.to_owned()),
    };
    // Kong tries expressions before prefixes, even if a prefix is longer.
    let has_expression = texts(route, "paths").iter().any(|path| expression_in(path).is_some());
    if has_expression || route.get("regex_priority").and_then(Value::number).unwrap_or(0) != 0 {
        findings.push(Finding::new(at, Kind::Priority));
    }
    let strips = route.get("strip_path").and_then(Value::truth) != Some(false);
    let mut listed = route.get("paths").map(Value::texts).unwrap_or_default();
    if listed.is_empty() {
        listed.push((at.line, "/".to_owned()));
    }
    let mut made: Vec<Route> = Vec::new();
    for (line, path) in listed {
        let at = Place { line, ..at };
        let expression = expression_in(&path);
        let (pattern, mut said) = match &expression {
            Some(expression) => paths::expression(expression, at),
            None => paths::text_prefix(&path, at),
        };
        let Some(pattern) = pattern else {
            left_out(of_service, &mut said);
            continue;
        };
        let mut behaviors = rewriting(&path, expression.is_some(), strips, base);
        for plugin in restrictions {
            let config = plugin.get("config");
            for (key, access) in [("allow", Access::Allow), ("deny", Access::Deny)] {
                let entries = config.and_then(|config| config.get(key)).map(Value::texts).unwrap_or_default();
                said.extend(clients::add(&mut behaviors, access, entries, file.file));
            }
        }
        // Paths with the same behaviors share one route.
        match made.iter_mut().find(|known| known.behaviors == behaviors) {
            Some(known) => {
                known.paths.push(pattern);
                known.findings.append(&mut said);
            }
            None => made.push(Route {
                name: name.to_owned(),
                at: file.at(route),
                paths: vec![pattern],
                methods: methods.clone(),
                upstream: None,
                cors: cors.as_ref().map(Cors::again).unwrap_or_default(),
                behaviors,
                condition: condition.clone(),
                findings: said,
                ..Route::default()
            }),
        }
    }
    match made.first_mut() {
        Some(first) => first.findings.splice(0..0, findings).for_each(drop),
        None => left_out(of_service, &mut findings),
    }
    made
}

/// Returns the path rewriting for `strip_path` and for the path of the service.
fn rewriting(path: &str, is_expression: bool, strips: bool, base: Option<&str>) -> Behaviors {
    let base = base.map(|base| base.trim_end_matches('/')).filter(|base| !base.is_empty()).map(str::to_owned);
    if strips && is_expression {
        // The expression matches the whole path, so the whole path is removed.
        let with = base.unwrap_or_else(|| "/".to_owned());
        return Behaviors { replace: Some(("^.*$".to_owned(), with)), ..Behaviors::default() };
    }
    let prefix = path.trim_end_matches('/');
    let strip_prefix = (strips && !prefix.is_empty()).then(|| prefix.to_owned());
    Behaviors { strip_prefix, add_prefix: base, ..Behaviors::default() }
}

/// Returns the upstream of a service, and the path of the service.
fn upstream(service: &Value, file: File<'_>, findings: &mut Vec<Finding>) -> Option<(Upstream, Option<String>)> {
    let at = service.get("url").or(service.get("host")).map_or(file.at(service), |value| file.at(value));
    let (scheme, host, port, path) = match service.text_of("url") {
        Some(url) => {
            let (scheme, rest) = url.split_once("://")?;
            let (authority, path) =
                rest.split_once('/').map_or((rest, None), |(host, path)| (host, Some(format!("/{path}"))));
            let (host, port) = match authority.rsplit_once(':') {
                Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
                _ => (authority, None),
            };
            (scheme, host, port, path)
        }
        None => {
            let path = service.text_of("path").map(str::to_owned);
            (service.text_of("protocol").unwrap_or("http"), service.text_of("host")?, service.text_of("port"), path)
        }
    };
    let tls = matches!(scheme, "https" | "wss" | "grpcs");
    let number = |port: Option<&str>| port.map_or(if tls { "443" } else { "80" }.to_owned(), str::to_owned);
    let targets = file.value.list("upstreams").iter().find(|upstream| upstream.text_of("name") == Some(host));
    let mut nodes = Vec::new();
    for target in targets.map(|upstream| upstream.list("targets")).unwrap_or_default() {
        let text = target.text_of("target").unwrap_or_default();
        let text = if text.contains(':') { text.to_owned() } else { format!("{text}:8000") };
        let weight = target.get("weight").and_then(Value::number).and_then(|weight| u64::try_from(weight).ok());
        let weight = weight.unwrap_or(100);
        nodes.push((node(text, file.at(target), findings), weight));
    }
    if nodes.is_empty() {
        nodes.push((node(format!("{host}:{}", number(port)), at, findings), 1));
    }
    let timeouts = limits::of_map(service, ["connect_timeout", "read_timeout", "write_timeout"], 1);
    let name = service.text_of("name").unwrap_or(host).to_owned();
    Some((Upstream { name, nodes, tls: tls.then_some(None), timeouts }, path))
}

// --- CORS

/// Returns the policy of a list of plugins, or `None` if the list has no `cors`.
fn cors_of(name: &str, plugins: &[&Value], file: File<'_>) -> (Option<Cors>, Vec<Finding>) {
    let (mut cors, mut findings) = (None, Vec::new());
    for plugin in plugins {
        let kind = plugin.text_of("name").unwrap_or("without a name");
        if plugin.get("enabled").and_then(Value::truth) == Some(false) {
            continue;
        }
        // The function `routes` reads this plugin.
        if kind == "ip-restriction" {
            continue;
        }
        if kind == "request-termination" && termination(&[plugin]).is_some() {
            let config = plugin.get("config");
            if let Some(text) = config.and_then(|config| config.get("message").or(config.get("body"))) {
                let name = "the text of the plugin `request-termination`".to_owned();
                findings.push(Finding::new(file.at(text), Kind::Feature { name }));
            }
            continue;
        }
        if kind == "request-size-limiting" && body_limit(&[plugin]).is_some() {
            continue;
        }
        if kind != "cors" {
            findings.push(Finding::new(file.at(plugin), Kind::Feature { name: format!("plugin `{kind}`") }));
            continue;
        }
        let (found, said) = Cors::of(policy(name.to_owned(), plugin.get("config").unwrap_or(plugin), file.file));
        findings.extend(said);
        cors = Some(found);
    }
    (cors, findings)
}

/// Reads `config` of the plugin. Without `config`, every key has its default.
fn policy(name: String, config: &Value, file: usize) -> Policy {
    let at = Place { file, line: config.line };
    let place = |key: &str| Place { file, line: config.get(key).map_or(config.line, |value| value.line) };
    let truth = |key: &str| config.get(key).and_then(Value::truth) == Some(true);
    let mut policy = Policy::new(name, at);
    policy.credentials = truth("credentials");
    policy.preflight = PreflightMatch::Standard;
    policy.private_network = truth("private_network");
    policy.methods = match config.get("methods") {
        Some(_) => texts(config, "methods"),
        None => {
            policy.note(Key::Methods, Finding::new(at, Kind::Default { key: "allow_methods" }));
            METHODS.map(str::to_owned).to_vec()
        }
    };
    policy.headers = texts(config, "headers");
    if policy.headers.is_empty() {
        policy.allow_every_header(at);
    }
    policy.expose = texts(config, "exposed_headers");
    allow_origins(&texts(config, "origins"), &mut policy, place("origins"));
    if truth("preflight_continue") {
        let witness = Witness::preflight("GET", &policy.sample_origin(), Answer::ServiceDecides);
        policy.note(Key::Preflight, Finding::new(place("preflight_continue"), Kind::PreflightContinues).with(witness));
    }
    let max_age = config.get("max_age").and_then(Value::number);
    policy.set_max_age(max_age.unwrap_or(crate::cors::Settings::DEFAULT_MAX_AGE), place("max_age"));
    policy
}

fn allow_origins(entries: &[String], policy: &mut Policy, at: Place) {
    if entries.is_empty() || entries.iter().any(|entry| entry == "*") {
        policy.origins.push("*".to_owned());
        let others: Vec<String> = entries.iter().filter(|entry| *entry != "*").cloned().collect();
        if entries.is_empty() {
            policy.note(Key::Origins, Finding::new(at, Kind::Default { key: "allow_origins" }));
        }
        if !others.is_empty() {
            policy.note(Key::Origins, Finding::new(at, Kind::StarTakesAll { others }));
        }
        if policy.credentials {
            let witness = Witness::request("GET", "null", Answer::WithCredentials);
            policy.note(Key::Origins, Finding::new(at, Kind::NullReflected).with(witness));
        }
        return;
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".:/-".contains(c);
    for entry in entries {
        if !entry.chars().all(is_plain) {
            expression(entry, policy, at);
        } else if !entry.contains("://") {
            let why = "it has no scheme";
            policy.note(Key::Origins, Finding::new(at, Kind::EntryIgnored { entry: entry.clone(), why }));
        } else if entries.len() == 1 {
            origins::exact(policy, entry);
        } else {
            origins::exact(policy, &normalized(entry));
        }
    }
}

/// Removes the path and the default port, as `normalize_origin` does.
fn normalized(entry: &str) -> String {
    let Some((scheme, rest)) = entry.split_once("://") else { return entry.to_owned() };
    let authority = rest.split('/').next().unwrap_or_default();
    let default = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => "",
    };
    format!("{scheme}://{}", authority.strip_suffix(default).unwrap_or(authority))
}

fn expression(entry: &str, policy: &mut Policy, at: Place) {
    // Kong anchors the expression at its start and adds `$` at its end. In `a|b`, only `b` is anchored at its end.
    let bare = entry.strip_prefix('^').unwrap_or(entry);
    let closed = if bare.ends_with('$') { bare.to_owned() } else { format!("{bare}$") };
    let open = closed.strip_suffix('$').unwrap_or(&closed);
    if entry.contains(':') {
        return origins::expression(policy, open, &format!("(?:{closed}).*"), entry, at);
    }
    // Kong compares this expression with the host alone.
    policy.expressions.push(format!("https?://(?:{open})(?::[0-9]+)?"));
    policy.note(Key::Origins, Finding::new(at, Kind::AnySchemeAndPort { entry: entry.to_owned() }));
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Row, asks, get, same, table};
    use super::super::witness::Answer::*;

    fn file(config: &str, route: &str) -> String {
        format!(
            "_format_version: \"3.0\"\nservices:\n  - name: s\n    url: http://s.example:8000\n    routes: [{{ name: r, paths: [/], \
             {route} }}]\n    plugins:\n      - name: cors\n        config: {{ {config} }}\n"
        )
    }

    fn check(what: &str, config: &str, rows: &[Row]) -> (String, Vec<&'static str>) {
        table("a.example", what, &file(config, "strip_path: false"), rows)
    }

    /// Tests `configure_origin` and `configure_credentials` of handler.lua at 22246ef2, and the cases about origins in
    /// <https://github.com/Kong/kong/blob/22246ef2/spec/03-plugins/13-cors/01-access_spec.lua>.
    #[test]
    fn origins_and_credentials() {
        check(
            "no config: any origin, the requested headers are echoed",
            "",
            &[same("https://a.example", Readable), asks("DELETE", "https://a.example", Readable, Readable, "")],
        );
        let reflected = check(
            "* with credentials",
            "origins: ['*'], credentials: true",
            &[same("https://evil.test", WithCredentials), get("null", WithCredentials, Unreadable, "null-reflected")],
        );
        assert!(reflected.1.contains(&"reflects-any-origin"));
        assert!(reflected.0.contains("dangerously_allow: [any_origin_with_credentials]"), "{}", reflected.0);
        check("* among others", "origins: ['https://a.example', '*']", &[same("https://evil.test", Readable)]);
        check(
            "one plain origin",
            "origins: ['https://a.example']",
            &[same("https://a.example", Readable), same("https://evil.test", Unreadable)],
        );
        check(
            "several: a path and a default port are cut",
            "origins: ['https://a.example/', 'https://b.example:443']",
            &[
                same("https://a.example", Readable),
                same("https://b.example", Readable),
                same("https://c.example", Unreadable),
            ],
        );
        let bare = check(
            "without a scheme",
            "origins: [a.example, 'https://b.example']",
            &[same("https://a.example", Unreadable)],
        );
        assert!(bare.1.contains(&"entry-ignored"));
        // This expression is anchored at both ends.
        check(
            "an expression",
            r"origins: ['https://.*\.a\.example']",
            &[same("https://x.a.example", Readable), same("https://x.a.example.evil.test", Unreadable)],
        );
        check(
            "an alternative is anchored at its start only",
            r"origins: ['https://a\.example|https://b\.example$']",
            &[
                same("https://b.example", Readable),
                get("https://a.example.evil.test", Readable, Unreadable, "expression-not-anchored"),
                same("https://b.example.evil.test", Unreadable),
            ],
        );
        check(
            "an expression without a colon is for the host",
            r"origins: ['(.*\.)?a\.example']",
            &[
                same("http://x.a.example:8080", Readable),
                get("tauri://a.example", Readable, Unreadable, "any-scheme-and-port"),
            ],
        );
    }

    #[test]
    fn preflights_and_lists() {
        let rows = [asks("PUT", "https://a.example", ServiceDecides, Readable, "preflight-continues")];
        check("preflight_continue", "origins: ['https://a.example'], preflight_continue: true", &rows);
        let (text, _) = check(
            "max_age",
            "origins: ['https://a.example'], max_age: 3600, headers: [X-A], exposed_headers: [X-B]",
            &[],
        );
        for part in ["max_age: 3600", "allow_headers: [X-A]", "expose_headers: [X-B]", "match: standard"] {
            assert!(text.contains(part), "no {part}:\n{text}");
        }
        let source = file("origins: ['https://a.example']", "methods: [PATCH], strip_path: true");
        let rows = [asks("PATCH", "https://a.example", NotRouted, Readable, "options-not-routed")];
        table("a.example", "methods without OPTIONS", &source, &rows);
    }

    #[test]
    fn routes_and_services() {
        let source = "_format_version: '2.1'\nservices:\n  - name: one\n    url: https://one.example/base\n    routes:\n      - { name: a, \
                      paths: [/a/, /b], hosts: [h.example] }\n      - { name: n, paths: ['/t/(?<id>[^/]+)$'], hosts: [h.example], preserve_host: \
                      true, strip_path: false }\n  - { name: off, enabled: false, host: x }\nupstreams: []\nplugins:\n  - { name: rate-limiting }\n  - { name: ip-restriction, config: { allow: [10.0.0.0/8], deny: [10.1.0.1] } }\n  \
                      - { name: cors, service: one, config: { origins: ['https://a.example'] } }\n";
        let (text, codes) = table("h.example", "deck", source, &[same("https://a.example", Readable).at("/a/x")]);
        for part in [
            "strip_prefix: /a",
            "strip_prefix: /b",
            "add_prefix: /base",
            "one.example:443",
            "tls: {}",
            "/t/{id}",
            "upstream_host: node",
            "allow: [\"10.0.0.0/8\"]",
            "deny: [\"10.1.0.1\"]",
        ] {
            assert!(text.contains(part), "no {part}:\n{text}");
        }
        for code in ["feature", "path-prefix", "path-without-slash", "path-expression", "priority"] {
            assert!(codes.contains(&code), "no {code}: {codes:?}");
        }
        let part = "_format_version: '3.0'\nservices: [{ name: p, url: 'https://u.example', plugins: [{ name: cors, config: { origins: ['*'] } }] }]\n";
        let (text, codes) =
            table("any.example", "a service without routes", part, &[same("https://a.example", Readable)]);
        assert!(codes.contains(&"without-routes") && text.contains("u.example:443"), "{text}");
        let plugin = "kind: KongPlugin\nmetadata: { name: c }\nplugin: cors\nconfig: { origins: ['https://a.example'], credentials: true }\n";
        let (_, codes) =
            table("any.example", "a KongPlugin alone", plugin, &[same("https://a.example", WithCredentials)]);
        assert!(codes.contains(&"without-routes"));
    }

    /// A route with a condition is left out, and the report has a finding that another route takes its requests.
    #[test]
    fn conditions() {
        let source = "_format_version: '3.0'\nservices:\n- name: s\n  url: http://127.0.0.1:8000\n  routes:\n  - { name: v, paths: [/x], headers: { X-V: ['2'] }, \
                      plugins: [{ name: cors, config: { origins: ['https://a.example'] } }] }\n  - { name: w, paths: [/x] }\n";
        let (text, codes) =
            table("any.example", "conditions", source, &[same("https://a.example", ServiceDecides).at("/x")]);
        assert!(codes.contains(&"condition-lost"), "{codes:?}\n{text}");
    }
}
