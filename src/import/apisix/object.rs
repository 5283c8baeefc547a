//! Single objects in the shape of APISIX's Admin API, and back.
//!
//! A route becomes a service with one route, both with the id as name. An upstream becomes an upstream. Only fields that
//! have a counterpart are accepted: a field that is left out in silence would change what a client has asked for.

use serde_json::{Map, Value, json};

use crate::config::values;
use crate::import::{NotImportable, SourceFile, SourceFormat, import};

/// A kind of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ApisixKind {
    Route,
    Upstream,
}

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

/// Translates an object. Err: what cannot be translated, with the name of the field.
pub(crate) fn from_apisix(kind: ApisixKind, id: &str, object: &Value) -> Result<Value, String> {
    let Value::Object(object) = object else { return Err("the object must be a JSON object".to_owned()) };
    if object.get("id").is_some_and(|found| text(found) != Some(id.to_owned())) {
        return Err("wrong id: the field `id` differs from the URL".to_owned());
    }
    match kind {
        ApisixKind::Upstream => upstream(object, ""),
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
        ApisixKind::Route => shown_route(id, object),
    }?;
    // Nothing is lost if the same object is made of it.
    (from_apisix(kind, id, &shown).as_ref() == Ok(object)).then_some(shown)
}

fn route(id: &str, object: &Map<String, Value>) -> Result<Value, String> {
    only(object, &ROUTE_FIELDS, "")?;
    if object.get("status").is_some_and(|status| *status != 1) {
        return Err("unsupported field `status`: a route is always enabled; delete it instead".to_owned());
    }
    if let Some(Value::Object(plugins)) = object.get("plugins") {
        only(plugins, &["cors"], "plugins.")?;
        match plugins.get("cors") {
            Some(Value::Object(cors)) => only(cors, &CORS_FIELDS, "plugins.cors.")?,
            Some(_) => return Err("`plugins.cors` must be an object".to_owned()),
            None => {}
        }
    }
    let mut source = object.clone();
    source.insert("id".into(), id.into());
    source.remove("name");
    let end = match (source.remove("upstream"), source.remove("upstream_id")) {
        (Some(_), Some(_)) => return Err("write either `upstream` or `upstream_id`".to_owned()),
        (Some(Value::Object(inline)), None) => upstream(&inline, "upstream.")?,
        (None, Some(name)) => text(&name).map(Value::from).ok_or("`upstream_id` must be a text or a number")?,
        (Some(_), None) => return Err("`upstream` must be an object".to_owned()),
        (None, None) => return Err("missing field `upstream` or `upstream_id`".to_owned()),
    };
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
    match service.get("upstream")? {
        Value::String(name) => shown["upstream_id"] = name.as_str().into(),
        inline => shown["upstream"] = shown_upstream(inline)?,
    }
    match route.get("cors") {
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
    Some(shown)
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
        let service = from_apisix(ApisixKind::Route, "1", &sent).unwrap();
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
    fn what_cannot_be_translated_is_named() {
        let with = |key: &str, value: Value| {
            let mut route = json!({ "uri": "/a", "upstream": { "nodes": { "127.0.0.1:1": 1 } } });
            route[key] = value;
            from_apisix(ApisixKind::Route, "1", &route).unwrap_err()
        };
        for (key, value, part) in [
            ("vars", json!([]), "`vars`"),
            ("priority", json!(1), "`priority`"),
            ("service_id", json!("1"), "`service_id`"),
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
