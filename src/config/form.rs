//! The keys of an object as the fields of a form, with the texts of the schema, and the values of such fields.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::{PartKind, client_values, part_text, schema};

/// A key of an object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FormField {
    /// The key, with the keys of the mappings that contain it: `preflight.status`.
    pub(crate) path: String,
    /// Its meaning, as in the reference.
    pub(crate) description: String,
    pub(crate) default: Option<Value>,
    pub(crate) control: Control,
}

/// How a key is entered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Control {
    /// Texts, one on each line. Some lists have only these words, each with its meaning.
    Lines(Vec<(Value, String)>),
    /// One line: a text or a number.
    Text,
    /// One of these values, each with its meaning.
    Choice(Vec<(Value, String)>),
    /// A mapping with these keys.
    Group(Vec<FormField>),
    /// `false`, the name of a policy, or a policy with these keys.
    Policy(Vec<FormField>),
    /// Any other value, as YAML.
    Yaml,
}

/// An object that a form can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FormOf {
    Part(PartKind),
    Route,
}

/// The texts that a client entered, by the path of their field.
pub(crate) type Entered = BTreeMap<String, String>;

/// A text that cannot be read. The rest of the checks is made when the configuration is loaded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct UnreadableField {
    pub(crate) path: String,
    pub(crate) fault: String,
    pub(crate) remedy: String,
}

/// The text of a field for an empty list. An empty field removes the key.
const EMPTY_LIST: &str = "[]";

static SCHEMA: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(&schema::json()).unwrap_or_default());

static FORMS: LazyLock<[Vec<FormField>; 4]> = LazyLock::new(|| {
    ["Settings", "Service", "Upstream", "Route"].map(|name| fields_of(&SCHEMA["$defs"][name], "", true))
});

/// The fields of an object. An origin set has one field, without a name.
pub(crate) fn fields(of: FormOf) -> Vec<FormField> {
    let [policy, service, upstream, route] = &*FORMS;
    match of {
        FormOf::Part(PartKind::Policy) => policy.clone(),
        FormOf::Part(PartKind::Service) => service.clone(),
        FormOf::Part(PartKind::Upstream) => upstream.clone(),
        FormOf::Route => route.clone(),
        FormOf::Part(PartKind::OriginSet | PartKind::Settings) => vec![FormField {
            path: String::new(),
            description: "Origins as in `allow_origins`, except `\"*\"` and `\"null\"`.".to_owned(),
            default: None,
            control: Control::Lines(Vec::new()),
        }],
    }
}

/// The texts of the fields for a value.
pub(crate) fn entered(fields: &[FormField], value: &Value) -> Entered {
    let mut all = Entered::new();
    for field in fields {
        let own = at(value, &field.path);
        match &field.control {
            Control::Group(fields) => all.extend(entered(fields, value)),
            Control::Policy(fields) => {
                let (kind, name) = match own {
                    Some(Value::Bool(false)) => ("none", String::new()),
                    Some(Value::String(name)) => ("named", name.clone()),
                    Some(Value::Object(_)) => ("own", String::new()),
                    _ => ("", String::new()),
                };
                all.insert(field.path.clone(), kind.to_owned());
                all.insert(format!("{}.name", field.path), name);
                if kind == "own" {
                    all.extend(entered(fields, value));
                }
            }
            Control::Lines(_) | Control::Text | Control::Choice(_) | Control::Yaml => {
                all.insert(field.path.clone(), own.map_or_else(String::new, |own| shown(&field.control, own)));
            }
        }
    }
    all
}

/// The value with the entered texts. A key whose text has not changed keeps its present value; the keys that no field has
/// stay.
pub(crate) fn value_of(
    fields: &[FormField],
    entered: &Entered,
    present: &Value,
) -> Result<Value, Vec<UnreadableField>> {
    let mut faults = Vec::new();
    let value = match fields {
        [only] if only.path.is_empty() => own_value(only, entered, Some(present), &mut faults).unwrap_or(json!([])),
        fields => {
            let mut object = present.as_object().cloned().unwrap_or_default();
            set_all(fields, entered, &mut object, &mut faults);
            Value::Object(object)
        }
    };
    if faults.is_empty() { Ok(value) } else { Err(faults) }
}

fn set_all(
    fields: &[FormField],
    entered: &Entered,
    object: &mut Map<String, Value>,
    faults: &mut Vec<UnreadableField>,
) {
    for field in fields {
        let key = field.path.rsplit('.').next().unwrap_or_default();
        let value = own_value(field, entered, object.get(key), faults);
        match value {
            Some(value) => drop(object.insert(key.to_owned(), value)),
            None => drop(object.shift_remove(key)),
        }
    }
}

/// The value of a field. None if the key is absent.
fn own_value(
    field: &FormField,
    entered: &Entered,
    present: Option<&Value>,
    faults: &mut Vec<UnreadableField>,
) -> Option<Value> {
    let text = entered.get(&field.path).map(|text| text.replace("\r\n", "\n")).unwrap_or_default();
    match &field.control {
        Control::Group(fields) => {
            let mut group = present.and_then(Value::as_object).cloned().unwrap_or_default();
            set_all(fields, entered, &mut group, faults);
            return (!group.is_empty()).then_some(Value::Object(group));
        }
        Control::Policy(fields) => {
            return match &*text {
                "own" => {
                    let mut own = present.and_then(Value::as_object).cloned().unwrap_or_default();
                    set_all(fields, entered, &mut own, faults);
                    Some(Value::Object(own))
                }
                // An object that had a policy of its own may get another one. Otherwise the fields were filled in by mistake.
                _ if !present.is_some_and(Value::is_object) && has_text(fields, entered) => {
                    let fault = "fields of its own policy are filled in, and another policy is chosen".to_owned();
                    let remedy = "choose its own policy, or clear these fields".to_owned();
                    faults.push(UnreadableField { path: field.path.clone(), fault, remedy });
                    None
                }
                "none" => Some(Value::Bool(false)),
                "named" => {
                    let name = entered.get(&format!("{}.name", field.path)).map(|name| name.trim());
                    Some(Value::from(name.unwrap_or_default()))
                }
                _ => None,
            };
        }
        Control::Lines(_) | Control::Text | Control::Choice(_) | Control::Yaml => {}
    }
    if let Some(present) = present
        && shown(&field.control, present).trim() == text.trim()
    {
        return Some(present.clone());
    }
    if text.trim().is_empty() {
        return None;
    }
    match &field.control {
        Control::Lines(_) if text.trim() == EMPTY_LIST => Some(json!([])),
        Control::Lines(_) => {
            Some(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(Value::from).collect::<Value>())
        }
        Control::Choice(values) => {
            let chosen = values.iter().find(|(value, _)| word(value) == text);
            Some(chosen.map_or_else(|| Value::from(&*text), |(value, _)| value.clone()))
        }
        Control::Text => Some(scalar(text.trim())),
        Control::Yaml | Control::Group(_) | Control::Policy(_) => match client_values(&text) {
            Ok(value) => Some(value),
            Err(problems) => {
                faults.extend(problems.iter().map(|problem| UnreadableField {
                    path: field.path.clone(),
                    fault: problem.kind.fault().into_owned(),
                    remedy: problem.kind.remedy().into_owned(),
                }));
                None
            }
        },
    }
}

/// Whether a field has a text.
fn has_text(fields: &[FormField], entered: &Entered) -> bool {
    fields.iter().any(|field| match &field.control {
        Control::Group(fields) | Control::Policy(fields) => has_text(fields, entered),
        Control::Lines(_) | Control::Text | Control::Choice(_) | Control::Yaml => {
            entered.get(&field.path).is_some_and(|text| !text.trim().is_empty())
        }
    })
}

/// A number or a text.
fn scalar(text: &str) -> Value {
    match text.parse::<i64>() {
        Ok(number) if number.to_string() == text => Value::from(number),
        _ => Value::from(text),
    }
}

/// The text of a value in its control.
fn shown(control: &Control, value: &Value) -> String {
    match (control, value) {
        (Control::Lines(_), Value::Array(entries)) if entries.is_empty() => EMPTY_LIST.to_owned(),
        (Control::Lines(_), Value::Array(entries)) => entries.iter().map(word).collect::<Vec<_>>().join("\n"),
        (Control::Yaml, value) => part_text(None, value).trim_end().to_owned(),
        (_, value) => word(value),
    }
}

/// A scalar without quotes.
pub(crate) fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    match path {
        "" => Some(value),
        path => path.split('.').try_fold(value, |value, key| value.get(key)),
    }
}

/// The keys of a definition. A policy inside of an object has its keys, but no policy inside of it.
fn fields_of(definition: &Value, prefix: &str, with_policies: bool) -> Vec<FormField> {
    let keys = definition["properties"].as_object().into_iter().flatten();
    // The name is in the URL. The other one is another spelling for files of APISIX.
    let keys = keys.filter(|(key, _)| !(prefix.is_empty() && *key == "name") && *key != "allow_credential");
    keys.map(|(key, property)| {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        let control = control(key, property, &path, with_policies);
        let description = property["description"].as_str().unwrap_or_default().to_owned();
        FormField { path, description, default: property.get("default").cloned(), control }
    })
    .collect()
}

fn control(key: &str, property: &Value, path: &str, with_policies: bool) -> Control {
    let target = match property["$ref"].as_str().and_then(|target| target.strip_prefix("#/$defs/")) {
        Some(name) => &SCHEMA["$defs"][name],
        None => property,
    };
    if key == "cors" && with_policies {
        return Control::Policy(fields_of(&SCHEMA["$defs"]["Settings"], path, false));
    }
    let meaning = |choice: &Value| choice["description"].as_str().unwrap_or_default().replace('\n', " ");
    if let Some(choices) = target["oneOf"].as_array()
        && choices.iter().all(|choice| choice["const"].is_string())
    {
        return Control::Choice(choices.iter().map(|choice| (choice["const"].clone(), meaning(choice))).collect());
    }
    if let Some(values) = target["enum"].as_array() {
        return Control::Choice(values.iter().map(|value| (value.clone(), String::new())).collect());
    }
    let has_type = |schema: &Value, word: &str| {
        schema["type"] == word || schema["type"].as_array().is_some_and(|types| types.iter().any(|kind| kind == word))
    };
    let is_text =
        |schema: &Value| has_type(schema, "string") || has_type(schema, "integer") || has_type(schema, "number");
    // The items of a list are texts, or words with meanings.
    let words_of = |schema: &Value| -> Vec<(Value, String)> {
        let items = match schema["items"]["$ref"].as_str().and_then(|target| target.strip_prefix("#/$defs/")) {
            Some(name) => &SCHEMA["$defs"][name],
            None => &schema["items"],
        };
        let words = items["oneOf"].as_array().into_iter().flatten().filter(|word| word["const"].is_string());
        words.map(|word| (word["const"].clone(), meaning(word))).collect()
    };
    let is_lines =
        |schema: &Value| has_type(schema, "array") && (is_text(&schema["items"]) || !words_of(schema).is_empty());
    if target["type"] == "boolean" {
        return Control::Choice([true, false].map(|value| (Value::from(value), String::new())).to_vec());
    }
    let choices = target["anyOf"].as_array().map(Vec::as_slice).unwrap_or_default();
    if is_lines(target)
        || choices.iter().any(is_lines) && choices.iter().all(|choice| is_lines(choice) || is_text(choice))
    {
        return Control::Lines(words_of(target));
    }
    if key == "preflight" && has_type(target, "object") {
        return Control::Group(fields_of(target, path, false));
    }
    if is_text(target) && !has_type(target, "object") || !choices.is_empty() && choices.iter().all(is_text) {
        return Control::Text;
    }
    Control::Yaml
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [FormOf; 5] = [
        FormOf::Part(PartKind::Policy),
        FormOf::Part(PartKind::Service),
        FormOf::Part(PartKind::Upstream),
        FormOf::Part(PartKind::OriginSet),
        FormOf::Route,
    ];

    #[test]
    fn each_key_of_a_policy_has_its_control() {
        let word = |control: &Control| match control {
            Control::Lines(_) => "lines",
            Control::Text => "text",
            Control::Choice(_) => "choice",
            Control::Group(_) => "group",
            Control::Policy(_) => "policy",
            Control::Yaml => "yaml",
        };
        let found: Vec<String> = fields(FormOf::Part(PartKind::Policy))
            .iter()
            .map(|field| format!("{} {}", field.path, word(&field.control)))
            .collect();
        let expected = "allow_origins lines, allow_origins_by_regex lines, allow_origin_sets lines, allow_methods lines, \
                        allow_headers lines, allow_header_sets lines, expose_headers lines, expose_header_sets lines, \
                        max_age text, allow_credentials choice, timing_allow_origins lines, \
                        timing_allow_origins_by_regex lines, cross_origin_resource_policy choice, \
                        allow_private_network choice, preflight group, upstream_headers choice, disallowed_origins choice, \
                        cross_site choice, dangerously_allow lines, report_only yaml";
        assert_eq!(found.join(", "), expected);
        for of in ALL {
            assert!(fields(of).iter().all(|field| !field.description.is_empty()), "{of:?}");
        }
        let policy = fields(FormOf::Part(PartKind::Policy));
        let preflight = policy.iter().find(|field| field.path == "preflight").unwrap();
        let Control::Group(preflight) = &preflight.control else { panic!("{preflight:?}") };
        let controls: Vec<&str> = preflight.iter().map(|field| word(&field.control)).collect();
        assert_eq!(controls, ["choice", "choice", "choice", "text"]);
        let service = fields(FormOf::Part(PartKind::Service));
        let cors = service.iter().find(|field| field.path == "cors").unwrap();
        assert!(matches!(&cors.control, Control::Policy(fields) if fields[0].path == "cors.allow_origins"), "{cors:?}");
    }

    /// The texts of a value give the same value again.
    #[test]
    fn a_form_that_nobody_changes_keeps_the_value() {
        let text = include_str!("../../conf/reference.yaml");
        let parts = super::super::Parts::of(text).unwrap();
        for ((kind, name), value) in &parts.named {
            let fields = fields(FormOf::Part(*kind));
            let entered = entered(&fields, value);
            assert_eq!(value_of(&fields, &entered, value).as_ref(), Ok(value), "{kind:?} {name}");
            // Without the present value, the spelling of values may change, and the keys stay the same.
            let empty = if value.is_array() { json!([]) } else { json!({}) };
            let again = value_of(&fields, &entered, &empty).unwrap();
            if let (Some(again), Some(value)) = (again.as_object(), value.as_object()) {
                assert_eq!(again.len(), value.len(), "{kind:?} {name}: {again:?}");
            }
        }
    }

    #[test]
    fn texts_become_values() {
        let policy = fields(FormOf::Part(PartKind::Policy));
        let made = |pairs: &[(&str, &str)], present: Value| {
            let entered = pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
            value_of(&policy, &entered, &present)
        };
        #[rustfmt::skip]
        let rows = [
            (&[("allow_origins", " https://a.example \r\n\r\nhttps://b.example\r\n")][..], json!({ "allow_origins": ["https://a.example", "https://b.example"] })),
            (&[("allow_methods", "[]")], json!({ "allow_methods": [] })),
            (&[("max_age", "60")], json!({ "max_age": 60 })),
            (&[("max_age", "1h")], json!({ "max_age": "1h" })),
            (&[("allow_credentials", "true")], json!({ "allow_credentials": true })),
            (&[("preflight.refused_status", "403")], json!({ "preflight": { "refused_status": 403 } })),
            (&[("disallowed_origins", "<script>")], json!({ "disallowed_origins": "<script>" })),
            (&[("report_only", "allow_origins: '*'")], json!({ "report_only": { "allow_origins": "*" } })),
        ];
        for (pairs, expected) in rows {
            assert_eq!(made(pairs, json!({})), Ok(expected), "{pairs:?}");
        }
        // A text that has not changed keeps its spelling, an empty one removes the key, and an unknown key stays.
        let present = json!({ "allow_origins": "https://a.example", "max_age": 5, "other": 1 });
        assert_eq!(
            made(&[("allow_origins", "https://a.example")], present),
            Ok(json!({ "allow_origins": "https://a.example", "other": 1 }))
        );
        let faults = made(&[("report_only", "a: [")], json!({})).unwrap_err();
        assert_eq!(faults[0].path, "report_only");
    }
}
