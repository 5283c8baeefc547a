//! Single objects in the shape of APISIX's Admin API, and back.
//!
//! A route becomes a service with one route, both with the id as name. A service becomes a service, and its routes become
//! its routes. An upstream becomes an upstream. Only fields that have a counterpart are accepted: a field that is left out
//! in silence would change what a client has asked for.

use serde_json::{Map, Value, json};

use crate::config::values;
use crate::import::{NotImportable, SourceFile, SourceFormat, import};

/// A kind of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ApisixKind {
    Route,
    Service,
    Upstream,
}

/// Name of a route that marks a service made by this API. It also fills a service without routes, because corsgate needs at
/// least one route.
const MARK: &str = "apisix-service";
/// Fields of a route in a service. Its hosts are those of the service.
const INNER_ROUTE_FIELDS: [&str; 10] =
    ["id", "name", "uri", "uris", "methods", "service_id", "upstream", "upstream_id", "plugins", "status"];
const SERVICE_FIELDS: [&str; 6] = ["id", "name", "hosts", "upstream", "upstream_id", "plugins"];
const ROUTE_FIELDS: [&str; 11] =
    ["id", "name", "uri", "uris", "host", "hosts", "methods", "upstream", "upstream_id", "plugins", "status"];
const UPSTREAM_FIELDS: [&str; 4] = ["id", "type", "nodes", "scheme"];
const CORS_FIELDS: [&str; 8] = [
    "allow_origins",
    "allow_methods",
    "allow_headers",
    "expose_headers",
    "max_age",
    "allow_credential",
    "timing_allow_origins",
    "_meta",
];
/// Fields of the time of a change, which clients send back.
const IGNORED: [&str; 2] = ["create_time", "update_time"];
/// A node for an upstream that is named only.
const STUB: &str = "127.0.0.1:1";

/// Translates an object. `routes` are the routes that a service has. Err: what cannot be translated, with the name of the
/// field.
pub(crate) fn from_apisix(kind: ApisixKind, id: &str, object: &Value, routes: &[Value]) -> Result<Value, String> {
    let Value::Object(object) = object else { return Err("the object must be a JSON object".to_owned()) };
    if object.get("id").is_some_and(|found| text(found) != Some(id.to_owned())) {
        return Err("wrong id: the field `id` differs from the URL".to_owned());
    }
    match kind {
        ApisixKind::Upstream => upstream(object, ""),
        ApisixKind::Service => service(id, object, routes),
        ApisixKind::Route if object.contains_key("service_id") => inner_route(id, object),
        ApisixKind::Route => route(id, object),
    }
}

/// The object in the shape of APISIX. None if it has settings that this shape cannot express.
pub(crate) fn to_apisix(kind: ApisixKind, id: &str, object: &Value) -> Option<Value> {
    let shown = match kind {
        ApisixKind::Upstream => shown_upstream(object).map(|mut shown| {
            shown["id"] = id.into();
            shown
        }),
        ApisixKind::Service => shown_service(id, object),
        ApisixKind::Route => shown_route(id, object),
    }?;
    // Nothing is lost if the same object is made of it.
    let routes = object["routes"].as_array().map_or(&[][..], Vec::as_slice);
    (from_apisix(kind, id, &shown, routes).as_ref() == Ok(object)).then_some(shown)
}

/// A route of a service, in the shape of APISIX.
pub(crate) fn to_apisix_in(service: &str, id: &str, route: &Value) -> Option<Value> {
    let mut shown = json!({ "id": id, "uris": route["paths"], "service_id": service, "status": 1 });
    if let Some(methods) = route.get("methods") {
        shown["methods"] = methods.clone();
    }
    if let Some(upstream) = route.get("upstream") {
        shown_end(&mut shown, upstream)?;
    }
    shown_cors(&mut shown, route.get("cors"))?;
    (from_apisix(ApisixKind::Route, id, &shown, &[]).as_ref() == Ok(route)).then_some(shown)
}

/// The routes of a service that was made of a service of APISIX, with their names. None if it was not.
pub(crate) fn apisix_routes(service: &Value) -> Option<impl Iterator<Item = (&str, &Value)>> {
    let routes = service["routes"].as_array()?;
    let is_marked = routes.iter().any(|route| route["name"] == MARK);
    let named = routes.iter().filter_map(|route| Some((route["name"].as_str()?, route)));
    is_marked.then(|| named.filter(|(name, _)| *name != MARK))
}

/// Removes the upstream from an object, and returns it translated. None if the object has no upstream.
fn end(source: &mut Map<String, Value>) -> Result<Option<Value>, String> {
    Ok(Some(match (source.remove("upstream"), source.remove("upstream_id")) {
        (Some(_), Some(_)) => return Err("write either `upstream` or `upstream_id`".to_owned()),
        (Some(Value::Object(inline)), None) => upstream(&inline, "upstream.")?,
        (None, Some(name)) => text(&name).map(Value::from).ok_or("`upstream_id` must be a text or a number")?,
        (Some(_), None) => return Err("`upstream` must be an object".to_owned()),
        (None, None) => return Ok(None),
    }))
}

const NO_UPSTREAM: &str = "missing field `upstream` or `upstream_id`";

/// Refuses other plugins and other fields of the policy.
fn only_cors(object: &Map<String, Value>) -> Result<(), String> {
    match object.get("plugins") {
        Some(Value::Object(plugins)) => {
            only(plugins, &["cors"], "plugins.")?;
            match plugins.get("cors") {
                Some(Value::Object(cors)) => only(cors, &CORS_FIELDS, "plugins.cors."),
                Some(_) => Err("`plugins.cors` must be an object".to_owned()),
                None => Ok(()),
            }
        }
        Some(_) => Err("`plugins` must be an object".to_owned()),
        None => Ok(()),
    }
}

fn only_enabled(object: &Map<String, Value>) -> Result<(), String> {
    match object.get("status").is_none_or(|status| *status == 1) {
        true => Ok(()),
        false => Err("unsupported field `status`: a route is always enabled; delete it instead".to_owned()),
    }
}

fn service(id: &str, object: &Map<String, Value>, routes: &[Value]) -> Result<Value, String> {
    only(object, &SERVICE_FIELDS, "")?;
    only_cors(object)?;
    let mut source = object.clone();
    source.remove("name");
    source.insert("id".into(), id.into());
    let end = end(&mut source)?.ok_or(NO_UPSTREAM)?;
    source.insert("upstream".into(), json!({ "nodes": { STUB: 1 } }));
    let route = json!({ "uri": "/a", "service_id": id });
    let imported = imported(&json!({ "services": [source], "routes": [route] }))?;
    let mark = json!({ "name": MARK, "paths": [format!("/.apisix-service/{id}")], "respond": { "status": 404 }, "cors": false });
    let routes = if routes.is_empty() { vec![mark] } else { routes.to_vec() };
    let mut made = json!({ "name": id, "upstream": end, "routes": routes });
    for key in ["hosts", "cors"] {
        if let Some(value) = imported.get(key) {
            made[key] = value.clone();
        }
    }
    Ok(made)
}

fn inner_route(id: &str, object: &Map<String, Value>) -> Result<Value, String> {
    if object.contains_key("host") || object.contains_key("hosts") {
        return Err(
            "unsupported field `hosts` of a route with `service_id`: its hosts are those of the service".to_owned()
        );
    }
    only(object, &INNER_ROUTE_FIELDS, "")?;
    only_enabled(object)?;
    only_cors(object)?;
    if id == MARK {
        return Err(format!("wrong id: `{MARK}` has a meaning of its own"));
    }
    let mut source = object.clone();
    source.remove("name");
    source.insert("id".into(), id.into());
    let end = end(&mut source)?;
    source.insert("service_id".into(), "service".into());
    let service = json!({ "id": "service", "upstream": { "nodes": { STUB: 1 } } });
    let mut imported = imported(&json!({ "services": [service], "routes": [source] }))?;
    let mut route = imported["routes"][0].take();
    route["name"] = id.into();
    if let (Some(end), Some(route)) = (end, route.as_object_mut()) {
        route.insert("upstream".into(), end);
    }
    Ok(route)
}

fn route(id: &str, object: &Map<String, Value>) -> Result<Value, String> {
    only(object, &ROUTE_FIELDS, "")?;
    only_enabled(object)?;
    only_cors(object)?;
    let mut source = object.clone();
    source.insert("id".into(), id.into());
    source.remove("name");
    let end = end(&mut source)?.ok_or(NO_UPSTREAM)?;
    // The importer reads the paths, hosts, methods and the policy; the upstream is already known.
    source.insert("upstream".into(), json!({ "nodes": { STUB: 1 } }));
    let mut service = imported(&json!({ "routes": [source] }))?;
    service["name"] = id.into();
    service["routes"][0]["name"] = id.into();
    if let Some(route) = service["routes"][0].as_object_mut() {
        route.shift_remove("upstream");
    }
    if let Some(service) = service.as_object_mut() {
        service.insert("upstream".into(), end);
    }
    Ok(service)
}

/// The only service of an import.
fn imported(document: &Value) -> Result<Value, String> {
    let text = document.to_string();
    let file = SourceFile { name: "body", text: &text };
    let imported = import(&[file], Some(SourceFormat::Apisix)).map_err(|error| match error {
        NotImportable::Nothing(report) => report.losses().join("; "),
        NotImportable::Fault { problems, .. } => problems,
        NotImportable::Syntax { message, .. } => message,
        NotImportable::UnknownFormat { .. } | NotImportable::SeveralFormats { .. } => "not a route".to_owned(),
    })?;
    let losses = imported.report.losses();
    if !losses.is_empty() {
        return Err(losses.join("; "));
    }
    let mut values = values(&imported.text).ok_or("the route has a value that cannot be written")?;
    match values["services"].as_array_mut().map(Vec::as_mut_slice) {
        Some([service]) if service["routes"].as_array().is_some_and(|routes| routes.len() == 1) => Ok(service.take()),
        _ => Err("the object is not one route".to_owned()),
    }
}

fn upstream(object: &Map<String, Value>, at: &str) -> Result<Value, String> {
    only(object, &UPSTREAM_FIELDS, at)?;
    if let Some(of) = object.get("type").filter(|of| **of != "roundrobin") {
        return Err(format!("unsupported value {of} of `{at}type`: only `roundrobin` is translated"));
    }
    let tls = match object.get("scheme").map(|scheme| scheme.as_str()) {
        None | Some(Some("http")) => false,
        Some(Some("https")) => true,
        Some(_) => return Err(format!("unsupported value of `{at}scheme`: write `http` or `https`")),
    };
    let bad = || format!("`{at}nodes` must be an object such as {{\"127.0.0.1:80\": 1}}, or a list of nodes");
    let weight = |weight: &Value| weight.as_u64().ok_or_else(bad);
    let nodes: Vec<(String, u64)> = match object.get("nodes") {
        Some(Value::Object(nodes)) => nodes
            .iter()
            .map(|(address, of)| Ok((with_port(address, tls), weight(of)?)))
            .collect::<Result<_, String>>()?,
        Some(Value::Array(nodes)) => {
            let node = |node: &Value| {
                let node = node.as_object().ok_or_else(bad)?;
                only(node, &["host", "port", "weight"], &format!("{at}nodes."))?;
                let host = node.get("host").and_then(Value::as_str).ok_or_else(bad)?;
                let port = node.get("port").map(|port| port.as_u64().ok_or_else(bad)).transpose()?;
                let address = port.map_or_else(|| with_port(host, tls), |port| format!("{host}:{port}"));
                Ok((address, weight(node.get("weight").unwrap_or(&json!(1)))?))
            };
            nodes.iter().map(node).collect::<Result<_, String>>()?
        }
        _ => return Err(bad()),
    };
    let node = |(address, weight): (String, u64)| match weight {
        1 => json!({ "address": address }),
        weight => json!({ "address": address, "weight": weight }),
    };
    let mut upstream = json!({ "nodes": nodes.into_iter().map(node).collect::<Vec<_>>() });
    if tls {
        // Verifies the certificates, which APISIX does only if it is told to.
        upstream["tls"] = json!({});
    }
    Ok(upstream)
}

fn with_port(address: &str, tls: bool) -> String {
    match super::has_port(address) {
        true => address.to_owned(),
        false => format!("{address}:{}", if tls { 443 } else { 80 }),
    }
}

/// Refuses other fields than these.
fn only(object: &Map<String, Value>, known: &[&str], at: &str) -> Result<(), String> {
    match object.keys().find(|key| !known.contains(&key.as_str()) && !IGNORED.contains(&key.as_str())) {
        Some(key) => Err(format!("unsupported field `{at}{key}`; docs/api.md lists the fields that are translated")),
        None => Ok(()),
    }
}

fn shown_route(id: &str, service: &Value) -> Option<Value> {
    let [route] = service["routes"].as_array()?.as_slice() else { return None };
    let mut shown = json!({ "id": id, "uris": route["paths"], "status": 1 });
    for (key, value) in [("hosts", service.get("hosts")), ("methods", route.get("methods"))] {
        if let Some(value) = value {
            shown[key] = value.clone();
        }
    }
    shown_end(&mut shown, service.get("upstream")?)?;
    shown_cors(&mut shown, route.get("cors"))?;
    Some(shown)
}

fn shown_service(id: &str, service: &Value) -> Option<Value> {
    apisix_routes(service).is_some().then_some(())?;
    let mut shown = json!({ "id": id });
    if let Some(hosts) = service.get("hosts") {
        shown["hosts"] = hosts.clone();
    }
    shown_end(&mut shown, service.get("upstream")?)?;
    shown_cors(&mut shown, service.get("cors"))?;
    Some(shown)
}

fn shown_end(shown: &mut Value, upstream: &Value) -> Option<()> {
    match upstream {
        Value::String(name) => shown["upstream_id"] = name.as_str().into(),
        inline => shown["upstream"] = shown_upstream(inline)?,
    }
    Some(())
}

/// None if the policy has settings that this shape cannot express.
fn shown_cors(shown: &mut Value, policy: Option<&Value>) -> Option<()> {
    match policy {
        None => {}
        Some(Value::Object(policy)) => {
            let mut cors = Map::new();
            for (ours, theirs) in [
                ("allow_origins", "allow_origins"),
                ("allow_methods", "allow_methods"),
                ("allow_headers", "allow_headers"),
                ("expose_headers", "expose_headers"),
                ("timing_allow_origins", "timing_allow_origins"),
            ] {
                if let Some(list) = policy.get(ours) {
                    let entries: Option<Vec<&str>> = list.as_array()?.iter().map(Value::as_str).collect();
                    cors.insert(theirs.to_owned(), entries?.join(",").into());
                }
            }
            cors.insert("max_age".to_owned(), policy.get("max_age")?.clone());
            let credentials = policy.get("allow_credentials").cloned().unwrap_or(Value::Bool(false));
            cors.insert("allow_credential".to_owned(), credentials);
            shown["plugins"] = json!({ "cors": cors });
        }
        Some(_) => return None,
    }
    Some(())
}

fn shown_upstream(upstream: &Value) -> Option<Value> {
    let mut nodes = Map::new();
    for node in upstream["nodes"].as_array()? {
        let weight = node.get("weight").cloned().unwrap_or(json!(1));
        nodes.insert(node["address"].as_str()?.to_owned(), weight);
    }
    let scheme = if upstream.get("tls").is_some() { "https" } else { "http" };
    Some(json!({ "type": "roundrobin", "scheme": scheme, "nodes": nodes }))
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_translated_and_back() {
        let cors = json!({ "allow_origins": "https://a.example,https://b.example", "allow_methods": "GET,PUT", "allow_headers": "X-A", "max_age": 60 });
        let sent = json!({
            "uri": "/orders/*", "host": "api.example", "methods": ["GET", "PUT", "OPTIONS"], "plugins": { "cors": cors },
            "upstream": { "type": "roundrobin", "nodes": { "127.0.0.1:8000": 1, "127.0.0.1:8001": 2 } },
        });
        let service = from_apisix(ApisixKind::Route, "1", &sent, &[]).unwrap();
        assert_eq!((&service["name"], &service["hosts"]), (&json!("1"), &json!(["api.example"])));
        let nodes = json!([{ "address": "127.0.0.1:8000" }, { "address": "127.0.0.1:8001", "weight": 2 }]);
        assert_eq!(service["upstream"], json!({ "nodes": nodes }));
        let policy = &service["routes"][0]["cors"];
        assert_eq!(policy["allow_origins"], json!(["https://a.example", "https://b.example"]));
        assert_eq!(policy["max_age"], 60);
        let shown = to_apisix(ApisixKind::Route, "1", &service).unwrap();
        assert_eq!(shown["plugins"]["cors"]["allow_origins"], "https://a.example,https://b.example");
        assert_eq!(shown["upstream"]["nodes"], sent["upstream"]["nodes"]);
        assert_eq!((&shown["uris"], &shown["methods"]), (&json!(["/orders/*"]), &sent["methods"]));
        // A setting that this shape cannot express.
        let mut other = service.clone();
        other["rate_limit"] = json!({ "rate": "1/s" });
        assert_eq!(to_apisix(ApisixKind::Route, "1", &other), None);
    }

    #[test]
    fn a_service_and_its_routes_are_translated_and_back() {
        let cors = json!({ "allow_origins": "https://a.example", "allow_methods": "GET", "allow_headers": "*", "max_age": 60 });
        let sent = json!({ "name": "shop", "hosts": ["a.example"], "upstream_id": "u", "plugins": { "cors": cors } });
        let service = from_apisix(ApisixKind::Service, "s", &sent, &[]).unwrap();
        assert_eq!((&service["hosts"], &service["upstream"]), (&json!(["a.example"]), &json!("u")));
        assert_eq!(service["cors"]["allow_origins"], json!(["https://a.example"]));
        assert_eq!(apisix_routes(&service).unwrap().count(), 0);
        let shown = to_apisix(ApisixKind::Service, "s", &service).unwrap();
        assert_eq!((&shown["hosts"], &shown["upstream_id"]), (&sent["hosts"], &sent["upstream_id"]));
        assert_eq!(shown["plugins"]["cors"]["allow_origins"], "https://a.example");
        let sent = json!({ "uri": "/orders/*", "methods": ["GET", "OPTIONS"], "service_id": "s" });
        let route = from_apisix(ApisixKind::Route, "1", &sent, &[]).unwrap();
        assert_eq!((&route["name"], &route["paths"], route.get("cors")), (&json!("1"), &json!(["/orders/*"]), None));
        assert_eq!(to_apisix_in("s", "1", &route).unwrap()["service_id"], "s");
        // The routes stay when the service changes.
        let routes = [service["routes"][0].clone(), route.clone()];
        let other = json!({ "hosts": ["b.example"], "upstream_id": "u" });
        let service = from_apisix(ApisixKind::Service, "s", &other, &routes).unwrap();
        assert_eq!(apisix_routes(&service).unwrap().collect::<Vec<_>>(), [("1", &route)]);
        // A service of corsgate is not one of APISIX.
        let own = json!({ "name": "s", "upstream": "u", "routes": [{ "name": "1", "paths": ["/a"] }] });
        assert_eq!(to_apisix(ApisixKind::Service, "s", &own), None);
    }

    #[test]
    fn what_cannot_be_translated_is_named() {
        let with = |key: &str, value: Value| {
            let mut route = json!({ "uri": "/a", "upstream": { "nodes": { "127.0.0.1:1": 1 } } });
            route[key] = value;
            from_apisix(ApisixKind::Route, "1", &route, &[]).unwrap_err()
        };
        for (key, value, part) in [
            ("vars", json!([]), "`vars`"),
            ("priority", json!(1), "`priority`"),
            ("status", json!(0), "`status`"),
            ("plugins", json!({ "key-auth": {} }), "`plugins.key-auth`"),
            (
                "plugins",
                json!({ "cors": { "allow_origins_by_regex": ["a"] } }),
                "`plugins.cors.allow_origins_by_regex`",
            ),
            ("plugins", json!({ "cors": { "colour": 1 } }), "`plugins.cors.colour`"),
            (
                "plugins",
                json!({ "cors": { "allow_origins": "**", "allow_methods": "GET", "allow_headers": "A", "allow_credential": true } }),
                "",
            ),
            ("plugins", json!({ "cors": { "allow_credential": true } }), "`allow_credential`"),
            ("upstream", json!({ "nodes": { "a:1": 1 }, "type": "chash" }), "`upstream.type`"),
            ("upstream", json!({ "nodes": { "a:1": 1 }, "retries": 1 }), "`upstream.retries`"),
            ("upstream", json!({ "nodes": 1 }), "`upstream.nodes`"),
            ("upstream_id", json!("a"), "either"),
            ("uri", json!("no-slash"), ""),
            ("id", json!("2"), "wrong id"),
        ] {
            let error = with(key, value.clone());
            assert!(error.contains(part) && !error.is_empty(), "{key} {value}: {error}");
        }
    }
}
