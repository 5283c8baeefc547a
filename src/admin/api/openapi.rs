//! `/api/v1/openapi.json`: the description of the API (OpenAPI 3.1). The schemas are those of the configuration file.

use serde_json::{Map, Value, json};

use super::error::ErrorCode;
use crate::config::schema;
use crate::objects::Section;

/// The whole description.
pub(super) fn description() -> Value {
    let mut schemas = schema::definitions(&["Service", "Route", "Upstream", "Settings", "NamedOrigins"]);
    schemas.extend(own_schemas());
    let mut paths = Map::new();
    for section in Section::ALL {
        let (key, noun) = (section.key(), noun(section));
        paths.insert(format!("/api/v1/{key}"), json!({ "get": list_operation(noun) }));
        let item = resource(noun, &object_schema(section), &[("name", "Its name.")]);
        paths.insert(format!("/api/v1/{key}/{{name}}"), item);
    }
    let service = parameter("service", "The name of the service.");
    let mut routes = json!({ "get": list_operation("route") });
    routes["parameters"] = json!([service]);
    paths.insert("/api/v1/services/{service}/routes".into(), routes);
    let names = [
        ("service", "The name of the service."),
        ("route", "Its name. For a route without a name its first path, percent-encoded."),
    ];
    let route = resource("route", &reference("Route"), &names);
    paths.insert("/api/v1/services/{service}/routes/{route}".into(), route);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "corsgate",
            "summary": "Reads and changes the objects of a configuration of corsgate.",
            "description": "A change is checked with the whole configuration, written to its file, and active when the response is sent.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "http://127.0.0.1:9180" }],
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {
                "Error": {
                    "description": "The request was refused. Nothing has changed.",
                    "content": { "application/json": { "schema": reference("Error") } },
                },
            },
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token that `corsgate token` has made. Its role is `read` or `write`.",
                },
            },
        },
    })
}

fn noun(section: Section) -> &'static str {
    match section {
        Section::Services => "service",
        Section::Upstreams => "upstream",
        Section::CorsPolicies => "policy",
        Section::OriginSets => "origin set",
    }
}

fn object_schema(section: Section) -> Value {
    match section {
        Section::Services => reference("Service"),
        Section::Upstreams => reference("Upstream"),
        Section::CorsPolicies => reference("Settings"),
        Section::OriginSets => reference("NamedOrigins"),
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn parameter(name: &str, description: &str) -> Value {
    json!({ "name": name, "in": "path", "required": true, "description": description, "schema": { "type": "string" } })
}

fn list_operation(noun: &str) -> Value {
    json!({
        "operationId": operation_id("list", noun),
        "summary": format!("Lists each {noun}."),
        "responses": { "200": json_response("The objects, in the order of the file.", &reference("List")), "default": error() },
    })
}

/// The operations of one object.
fn resource(noun: &str, schema: &Value, names: &[(&str, &str)]) -> Value {
    let dry_run = json!({
        "name": "dry_run", "in": "query", "description": "Checks the change and says what it changes, without making it.",
        "schema": { "type": "boolean", "default": false },
    });
    let if_match = json!({
        "name": "If-Match", "in": "header",
        "description": "The `ETag` of the object. If it has changed since, the response is 412. `*`: the object must exist.",
        "schema": { "type": "string" },
    });
    let if_none_match = json!({
        "name": "If-None-Match", "in": "header", "description": "`*`: the object must not exist.",
        "schema": { "const": "*" },
    });
    let body = |types: &[&str], schema: &Value| {
        let content: Map<String, Value> =
            types.iter().map(|of| ((*of).to_owned(), json!({ "schema": schema }))).collect();
        json!({ "required": true, "content": content })
    };
    let result = json_response("The change was accepted.", &reference("Result"));
    let parameters: Vec<Value> = names.iter().map(|(name, description)| parameter(name, description)).collect();
    json!({
        "parameters": parameters,
        "get": {
            "operationId": operation_id("get", noun),
            "summary": format!("Reads the {noun} as the file has it."),
            "responses": { "200": with_etag(json_response("The object.", schema)), "default": error() },
        },
        "put": {
            "operationId": operation_id("put", noun),
            "summary": format!("Creates or replaces the {noun}."),
            "parameters": [dry_run, if_match, if_none_match],
            "requestBody": body(&["application/json", "application/yaml"], schema),
            "responses": {
                "200": with_etag(result.clone()),
                "201": with_etag(json_response("The object was created.", &reference("Result"))),
                "default": error(),
            },
        },
        "patch": {
            "operationId": operation_id("patch", noun),
            "summary": format!("Changes some keys of the {noun}, with a JSON Merge Patch (RFC 7396)."),
            "parameters": [dry_run, if_match],
            "requestBody": body(&["application/merge-patch+json", "application/json", "application/yaml"], &json!({})),
            "responses": { "200": with_etag(result.clone()), "default": error() },
        },
        "delete": {
            "operationId": operation_id("delete", noun),
            "summary": format!("Deletes the {noun}."),
            "parameters": [dry_run, if_match],
            "responses": { "200": result, "default": error() },
        },
    })
}

fn operation_id(verb: &str, noun: &str) -> String {
    format!("{verb}_{}", noun.replace(' ', "_"))
}

fn json_response(description: &str, schema: &Value) -> Value {
    json!({ "description": description, "content": { "application/json": { "schema": schema } } })
}

fn with_etag(mut response: Value) -> Value {
    response["headers"] =
        json!({ "ETag": { "description": "The version of the object.", "schema": { "type": "string" } } });
    response
}

fn error() -> Value {
    json!({ "$ref": "#/components/responses/Error" })
}

/// The shapes of responses.
fn own_schemas() -> Map<String, Value> {
    let count = json!({ "type": "integer", "minimum": 0 });
    let text = json!({ "type": "string" });
    let codes: Vec<Value> = ErrorCode::ALL.map(|code| Value::from(code.code())).to_vec();
    let meanings: Vec<String> = ErrorCode::ALL
        .map(|code| format!("- `{}` ({}): {}", code.code(), code.status().as_u16(), code.meaning()))
        .to_vec();
    let effects = ["newly_allowed", "up_to_upstream", "unknown", "newly_refused", "changed"];
    let counts: Map<String, Value> = effects.iter().map(|effect| ((*effect).to_owned(), count.clone())).collect();
    let schemas = json!({
        "List": {
            "type": "object",
            "required": ["items", "generation", "sha256"],
            "properties": {
                "items": { "type": "array", "items": {
                    "type": "object",
                    "required": ["name", "etag", "object"],
                    "properties": { "name": text, "etag": text, "object": {} },
                } },
                "generation": count,
                "sha256": text,
            },
        },
        "Result": {
            "type": "object",
            "required": ["object", "applied", "generation", "sha256", "changes", "problems", "needs_restart"],
            "properties": {
                "object": { "description": "The object as the file has it. `null` if it was deleted." },
                "applied": { "type": "boolean", "description": "`false` for `dry_run`." },
                "generation": { "type": "integer", "minimum": 0, "description": "Number of the active configuration." },
                "sha256": {
                    "type": "object",
                    "description": "Hashes of the file before and after the change.",
                    "required": ["from", "to"],
                    "properties": { "from": text, "to": text },
                },
                "changes": reference("Changes"),
                "problems": { "type": "array", "items": reference("Problem"), "description": "Warnings and hints about the object." },
                "needs_restart": { "type": "array", "items": text, "description": "Keys that have changed and need a restart." },
            },
        },
        "Changes": {
            "type": "object",
            "description": "What changes for requests of pages, as `corsgate diff --format json` says it.",
            "required": ["same", "wider", "counts", "groups", "settings"],
            "properties": {
                "same": { "type": "boolean", "description": "Whether every request gets the same response." },
                "wider": { "type": "boolean", "description": "Whether more is allowed, or may be." },
                "counts": { "type": "object", "properties": counts },
                "groups": { "type": "array", "items": { "type": "object" } },
                "settings": { "type": "array", "items": text },
            },
        },
        "Problem": {
            "type": "object",
            "required": ["severity", "code", "in", "path", "line", "column", "fault", "remedy"],
            "properties": {
                "severity": { "enum": ["error", "warning", "hint"] },
                "code": { "type": "string", "description": "As `corsgate check` prints it." },
                "in": { "enum": ["object", "configuration"], "description": "What `path` is in: the sent object, or the file." },
                "path": text,
                "line": { "type": ["integer", "null"], "description": "In the body, from 1." },
                "column": { "type": ["integer", "null"], "description": "In the body, from 1." },
                "fault": text,
                "remedy": text,
            },
        },
        "Error": {
            "type": "object",
            "required": ["error"],
            "properties": {
                "error": {
                    "type": "object",
                    "required": ["code", "message", "problems"],
                    "properties": {
                        "code": { "enum": codes, "description": meanings.join("\n") },
                        "message": text,
                        "problems": { "type": "array", "items": reference("Problem") },
                    },
                },
            },
        },
    });
    match schemas {
        Value::Object(schemas) => schemas,
        _ => Map::new(),
    }
}
